//! Which images belong together: slices to a stack, repetitions to its frames.

use super::{HandoffError, orient};
use crate::data::{Geometry, Note, ReconImage};

/// Slices of one contrast, set, average and encoding, over repetitions and cardiac phases.
///
/// One stack is one NIfTI, `.npy`, `.cfl` or PNG file (per quantity).
#[derive(Clone, Debug)]
pub(super) struct Stack<'a> {
    /// What sets its file name apart from its siblings': `_contrast-1`, or nothing when it is alone.
    pub(super) label: String,
    /// `[frame][slice]`; frames in the order repetition, then cardiac phase; slices by position along the normal.
    pub(super) frames: Vec<Vec<&'a ReconImage>>,
    /// Per slice, with gaps in the header filled (each with a note).
    pub(super) slices: Vec<Geometry>,
    /// All slices as one block of voxels: present when they are parallel and equidistant.
    pub(super) block: Option<Geometry>,
}

impl Stack<'_> {
    /// Partitions of each image: more than one for 3D.
    pub(super) fn n_partitions(&self) -> usize {
        self.slices[0].matrix[2]
    }

    /// Slices times partitions: the extent along z in files.
    pub(super) fn n_z(&self) -> usize {
        self.slices.len() * self.n_partitions()
    }
}

/// `encoding 0, repetition 3, contrast 1, slice 12`: counters that are zero are left out, except the slice.
pub(super) fn describe(image: &ReconImage) -> String {
    let k = image.key;
    let mut text = String::new();
    for (name, value) in [
        ("encoding", k.encoding_idx),
        ("repetition", k.repetition),
        ("cardiac phase", k.cardiac_phase),
        ("contrast", k.contrast),
        ("set", k.set),
        ("average", k.average),
    ] {
        if value > 0 {
            text += &format!("{name} {value}, ");
        }
    }
    text + &format!("slice {}", k.slice_idx)
}

/// What separates files: encoding, contrast, set, average; the slab for 3D.
fn file_key(image: &ReconImage) -> [u16; 5] {
    let k = image.key;
    let slab = if image.geometry.matrix[2] > 1 {
        k.slice_idx
    } else {
        0
    };
    [k.encoding_idx, k.contrast, k.set, k.average, slab]
}

/// Sorts images into stacks.
///
/// # Errors
/// [`HandoffError::NoImages`]; [`HandoffError::Geometry`] for voxel sizes or directions that mean nothing;
/// [`HandoffError::Shape`] for slices of one stack with different matrices, or two images with the same counters.
pub(super) fn stacks<'a>(
    images: &'a [ReconImage],
    notes: &mut Vec<Note>,
) -> Result<Vec<Stack<'a>>, HandoffError> {
    if images.is_empty() {
        return Err(HandoffError::NoImages);
    }
    let mut sorted: Vec<&ReconImage> = images.iter().collect();
    sorted.sort_by_key(|image| (file_key(image), image.key));
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].key == pair[1].key) {
        return Err(HandoffError::Shape {
            image: describe(pair[0]),
            found: "two images with these counters".into(),
            needed: "one image per repetition, phase, contrast, slice, set and average".into(),
        });
    }
    let groups: Vec<&[&ReconImage]> = sorted.chunk_by(|a, b| file_key(a) == file_key(b)).collect();
    let varies: [bool; 5] = std::array::from_fn(|i| {
        groups
            .iter()
            .any(|g| file_key(g[0])[i] != file_key(groups[0][0])[i])
    });
    let mut stacks = Vec::new();
    for group in groups {
        let key = file_key(group[0]);
        let mut label = String::new();
        for (i, name) in ["encoding", "contrast", "set", "average", "slab"]
            .iter()
            .enumerate()
        {
            if varies[i] {
                label += &format!("_{name}-{}", key[i]);
            }
        }
        for (suffix, frames) in frames(group, notes) {
            stacks.push(stack(format!("{label}{suffix}"), frames, notes)?);
        }
    }
    Ok(stacks)
}

type Frames<'a> = Vec<Vec<&'a ReconImage>>;

/// Frames that have the same slices stay together; a frame that lacks some gets a file of its own.
fn frames<'a>(group: &[&'a ReconImage], notes: &mut Vec<Note>) -> Vec<(String, Frames<'a>)> {
    let mut frames: Frames<'a> = group
        .chunk_by(|a, b| {
            (a.key.repetition, a.key.cardiac_phase) == (b.key.repetition, b.key.cardiac_phase)
        })
        .map(<[_]>::to_vec)
        .collect();
    let slices_of = |frame: &[&ReconImage]| -> Vec<u16> {
        let mut slices: Vec<u16> = frame.iter().map(|image| image.key.slice_idx).collect();
        slices.sort_unstable();
        slices
    };
    for frame in &mut frames {
        frame.sort_by_key(|image| image.key.slice_idx);
    }
    // The most complete set of slices is the stack.
    let Some(whole) = frames.iter().map(|f| slices_of(f)).max_by_key(Vec::len) else {
        return Vec::new();
    };
    let (complete, partial): (Frames<'a>, Frames<'a>) = frames
        .into_iter()
        .partition(|frame| slices_of(frame) == whole);
    let mut out = vec![(String::new(), complete)];
    for frame in partial {
        let k = frame[0].key;
        let suffix = format!(
            "_repetition-{}_cardiacphase-{}",
            k.repetition, k.cardiac_phase
        );
        notes.push(Note::new(
            "incomplete_frame",
            format!(
                "repetition {}, cardiac phase {} has {} of {} slices; in files with a fourth axis it stands alone, with the ending {suffix}",
                k.repetition, k.cardiac_phase, frame.len(), whole.len()
            ),
        ));
        out.push((suffix, vec![frame]));
    }
    out
}

fn stack<'a>(
    label: String,
    mut frames: Frames<'a>,
    notes: &mut Vec<Note>,
) -> Result<Stack<'a>, HandoffError> {
    let first = frames[0][0];
    let matrix = first.geometry.matrix;
    if matrix.contains(&0) {
        return Err(HandoffError::Shape {
            image: describe(first),
            found: format!("matrix [x, y, z] = {matrix:?}"),
            needed: "at least one voxel along each axis".into(),
        });
    }
    for image in frames.iter().flatten() {
        if image.geometry.matrix != matrix {
            return Err(HandoffError::Shape {
                image: describe(image),
                found: format!("matrix [x, y, z] = {:?}", image.geometry.matrix),
                needed: format!("{matrix:?}, as {} has", describe(first)),
            });
        }
    }
    let mut slices = Vec::with_capacity(frames[0].len());
    for image in &frames[0] {
        slices.push(usable(image, notes)?);
    }
    spread(&mut slices, notes);
    // Sorted by position along the normal of the first slice.
    let normal = orient::directions(&slices[0])[2];
    let height = |g: &Geometry| orient::dot(g.centre_mm.map(f64::from), normal);
    let mut order: Vec<usize> = (0..slices.len()).collect();
    order.sort_by(|&a, &b| height(&slices[a]).total_cmp(&height(&slices[b])));
    let slices: Vec<Geometry> = order.iter().map(|&i| slices[i]).collect();
    for frame in &mut frames {
        *frame = order.iter().map(|&i| frame[i]).collect();
    }
    let block = match block(&slices) {
        Ok(block) => Some(block),
        Err(why) => {
            notes.push(Note::new(
                "irregular_slices",
                format!("{why}: NIfTI gets one file per slice, its volume cannot express them"),
            ));
            None
        }
    };
    Ok(Stack {
        label,
        frames,
        slices,
        block,
    })
}

/// The image's geometry with what the header left out filled in, each with a note.
fn usable(image: &ReconImage, notes: &mut Vec<Note>) -> Result<Geometry, HandoffError> {
    let mut g = image.geometry;
    let mut note = |code, text: String| {
        if !notes.iter().any(|n| n.code == code) {
            notes.push(Note::new(code, text));
        }
    };
    if [g.read_dir, g.phase_dir, g.slice_dir] == [[0.0; 3]; 3] {
        g.read_dir = [1.0, 0.0, 0.0];
        g.phase_dir = [0.0, 1.0, 0.0];
        g.slice_dir = [0.0, 0.0, 1.0];
        note(
            "directions_assumed",
            "the scan gives no slice directions (all zero): read = left, phase = posterior, slice = head is assumed; left and right in the images are not to be trusted".into(),
        );
    }
    if !(g.voxel_mm[2].is_finite() && g.voxel_mm[2] > 0.0) {
        note(
            "thickness_assumed",
            format!(
                "slice thickness {} mm in the header: 1 mm is assumed",
                g.voxel_mm[2]
            ),
        );
        g.voxel_mm[2] = 1.0;
    }
    if let Some((found, needed)) = orient::fault(&g) {
        return Err(HandoffError::Geometry {
            image: describe(image),
            found,
            needed,
        });
    }
    Ok(g)
}

/// Puts slices side by side when the header gives all of them the same place.
fn spread(slices: &mut [Geometry], notes: &mut Vec<Note>) {
    let coincide = slices.len() > 1 && slices.iter().all(|g| g.centre_mm == slices[0].centre_mm);
    if !coincide {
        return;
    }
    let n = slices.len();
    for (i, g) in slices.iter_mut().enumerate() {
        let mm = (i as f32 - (n / 2) as f32) * g.voxel_mm[2];
        for axis in 0..3 {
            g.centre_mm[axis] += mm * g.slice_dir[axis];
        }
    }
    notes.push(Note::new(
        "slice_positions_assumed",
        format!("the scan gives all {n} slices the same position: they are put side by side, one slice thickness apart, in the order of their number"),
    ));
}

/// One block of voxels that holds all slices, or why there is none.
fn block(slices: &[Geometry]) -> Result<Geometry, String> {
    let first = slices[0];
    if slices.len() == 1 {
        return Ok(first);
    }
    if first.matrix[2] > 1 {
        return Err("several slabs".into());
    }
    let [read, phase, slice] = orient::directions(&first);
    for g in slices {
        let d = orient::directions(g);
        // Single-precision cosines are good to 1e-7; 1e-5 is 2 µm at the edge of the field of view.
        let parallel = d
            .iter()
            .zip([read, phase, slice])
            .all(|(a, b)| orient::norm(std::array::from_fn(|i| a[i] - b[i])) < 1e-5);
        if !parallel {
            return Err("the slices are not parallel".into());
        }
        if g.voxel_mm != first.voxel_mm {
            return Err("the slices have different voxel sizes".into());
        }
    }
    let place = |g: &Geometry| g.centre_mm.map(f64::from);
    let n = slices.len();
    let (start, end) = (place(&slices[0]), place(&slices[n - 1]));
    let step: [f64; 3] = std::array::from_fn(|i| (end[i] - start[i]) / (n - 1) as f64);
    let spacing = orient::dot(step, slice);
    // A hundredth of a millimetre: what the orientation tests ask for; positions in headers are rounded.
    let tolerance = 0.01_f64.max(1e-3 * spacing.abs());
    for (i, g) in slices.iter().enumerate() {
        let p = place(g);
        let off: [f64; 3] =
            std::array::from_fn(|k| p[k] - start[k] - i as f64 * spacing * slice[k]);
        if orient::norm(off) > tolerance {
            return Err(format!(
                "slice {i} lies {:.3} mm from an even stack of {spacing:.3} mm spacing",
                orient::norm(off)
            ));
        }
    }
    if spacing < 1e-3 {
        return Err("two slices share a position".into());
    }
    let mut block = first;
    block.matrix[2] = n;
    block.voxel_mm[2] = spacing as f32;
    // The even stack's own centre, not that of one rounded slice.
    block.centre_mm = std::array::from_fn(|k| (start[k] + (n / 2) as f64 * step[k]) as f32);
    Ok(block)
}
