//! Writers of `cauda convert`: a readable scan into another format. `.h5` and streams carry waveforms, images and arrays
//! along; a file of images alone is converted too.
//!
//! `.cfl` gets gridded k-space in BART's dimensions: image lines placed by counter about the header's centre, repeated
//! lines averaged, unmeasured ones zero. Noise, calibration-only and other lines have no place in an array and are left
//! out, which a mark says.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ismrmrd::{AcquisitionFlag as Flag, AcquisitionHeader};
use num_complex::Complex32;

use super::{OpenOptions, Opened, SourceError, bart};
use crate::data::Note;

/// What to convert, and to what.
#[derive(Clone, Debug, Default)]
pub struct ConvertOptions {
    /// How to open the input.
    pub open: OpenOptions,
    /// Group to write in an HDF5 output; `None`: `dataset`.
    pub group: Option<String>,
}

/// What was written.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Converted {
    /// Where.
    pub path: PathBuf,
    /// Format, for people.
    pub format: &'static str,
    /// Readouts read.
    pub readouts: u64,
    /// Readouts in the output.
    pub written: u64,
    /// Waveforms, images and arrays in the output.
    pub beside: u64,
    /// What has to be said: marks of the reader and of the writer.
    pub notes: Vec<Note>,
}

/// Converts by the ending of `output`: `.h5` (ISMRMRD), `.cfl` (BART), `.mrd` or `.stream` (MRD v1 stream).
///
/// The output appears when it is complete, not before.
///
/// # Errors
/// Those of [`super::open`]; an ending that is no format; the system's refusals.
pub fn convert(
    input: &Path,
    output: &Path,
    options: &ConvertOptions,
) -> Result<Converted, SourceError> {
    let ending = output
        .extension()
        .map(|e| e.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default();
    let open = OpenOptions {
        images: true,
        ..options.open.clone()
    };
    let mut opened = super::open(input, &open)?;
    let mut beside = 0;
    opened.for_each_beside(&mut |_| {
        beside += 1;
        ControlFlow::Continue(())
    })?;
    let (format, written, notes) = match ending.as_str() {
        "cfl" | "hdr" => {
            let (written, mut notes) = to_cfl(&mut opened, output)?;
            if std::mem::take(&mut beside) > 0 {
                notes.push(Note::new(
                    "items_left_out",
                    "waveforms, images and arrays beside the readouts have no place in an array of k-space and are left out",
                ));
            }
            ("BART cfl/hdr", written, notes)
        }
        "h5" | "hdf5" => {
            let group = options.group.as_deref().unwrap_or("dataset");
            (
                "ISMRMRD HDF5",
                super::mrd::to_file(&mut opened, output, group)?,
                Vec::new(),
            )
        }
        "mrd" | "stream" | "v1stream" => (
            "MRD v1 stream",
            super::mrd::to_stream(&mut opened, output)?,
            Vec::new(),
        ),
        _ => {
            return Err(SourceError::Option {
                path: output.to_path_buf(),
                asked: format!("an output ending in {ending:?}"),
                found: "formats are chosen by ending".into(),
                hint: "use .h5 (ISMRMRD), .cfl (BART) or .mrd (MRD v1 stream)".into(),
            });
        }
    };
    let mut all = opened.notes.clone();
    all.extend(notes);
    Ok(Converted {
        path: output.to_path_buf(),
        format,
        readouts: opened.count(),
        written,
        beside,
        notes: all,
    })
}

fn is_image_line(head: &AcquisitionHeader) -> bool {
    let both = head.has(Flag::IsParallelCalibrationAndImaging);
    let aside = [
        Flag::IsNoiseMeasurement,
        Flag::IsPhasecorrData,
        Flag::IsNavigationData,
        Flag::IsRtfeedbackData,
        Flag::IsHpfeedbackData,
        Flag::IsDummyscanData,
        Flag::IsSurfacecoilcorrectionscanData,
        Flag::IsPhaseStabilization,
        Flag::IsPhaseStabilizationReference,
    ];
    !aside.iter().any(|&f| head.has(f)) && (both || !head.has(Flag::IsParallelCalibration))
}

/// Grid of the output: read, phase 1, phase 2, coil, TE, time, time 2, level, slice.
struct Target {
    extents: [usize; 16],
    centre: [usize; 2],
}

impl Target {
    fn index(&self, head: &AcquisitionHeader, x: i64, coil: usize) -> Option<usize> {
        let [nx, ny, nz] = [self.extents[0], self.extents[1], self.extents[2]];
        let y = i64::from(head.idx.kspace_encode_step_1) - self.centre[0] as i64 + (ny / 2) as i64;
        let z = i64::from(head.idx.kspace_encode_step_2) - self.centre[1] as i64 + (nz / 2) as i64;
        let inside = |v: i64, n: usize| (0..n as i64).contains(&v).then_some(v as usize);
        let mut at = [0usize; 16];
        at[0] = inside(x, nx)?;
        at[1] = inside(y, ny)?;
        at[2] = inside(z, nz)?;
        at[3] = coil;
        at[5] = usize::from(head.idx.contrast);
        at[10] = usize::from(head.idx.repetition);
        at[11] = usize::from(head.idx.phase);
        at[12] = usize::from(head.idx.set);
        at[13] = usize::from(head.idx.slice);
        let mut offset = 0;
        for dim in (0..16).rev() {
            if at[dim] >= self.extents[dim] {
                return None;
            }
            offset = offset * self.extents[dim] + at[dim];
        }
        Some(offset)
    }
}

fn to_cfl(opened: &mut Opened, output: &Path) -> Result<(u64, Vec<Note>), SourceError> {
    let path = opened.path.clone();
    if opened.count() == 0 {
        return Err(SourceError::unsupported(
            &path,
            "images or arrays without readouts",
            "readouts: a .cfl of `convert` is a grid of k-space",
            "convert to .h5 or .mrd, which hold images",
        ));
    }
    let Some(encoding) = opened.header.encoding.first().cloned() else {
        return Err(SourceError::malformed(
            &path,
            "header",
            "no encoding",
            "one, for the size of the grid",
            "convert to .h5, which keeps readouts as they are",
        ));
    };
    let summary = opened.describe()?;
    if summary.with_trajectory > 0
        || !matches!(encoding.trajectory, ismrmrd::header::Trajectory::Cartesian)
    {
        return Err(SourceError::unsupported(
            &path,
            format!("a {} scan", encoding.trajectory.word()),
            "a Cartesian scan: a .cfl of k-space is a grid",
            "convert to .h5, which keeps readouts and trajectories",
        ));
    }
    let [mx, my, mz] = encoding.encoded_space.matrix_size.map(|n| n as usize);
    let most = |word: &str| {
        summary
            .counters
            .get(word)
            .map_or(1, |r| usize::from(r.max) + 1)
    };
    let samples = summary.samples.map_or(1, |r| usize::from(r.max));
    let mut extents = [1usize; 16];
    extents[0] = mx.max(samples).max(1);
    extents[1] = my.max(1);
    extents[2] = mz.max(1);
    extents[3] = summary.coils.map_or(1, |c| usize::from(c.max)).max(1);
    extents[5] = most("contrast");
    extents[10] = most("repetition");
    extents[11] = most("phase");
    extents[12] = most("set");
    extents[13] = most("slice");
    let len = extents.iter().try_fold(1usize, |n, &e| n.checked_mul(e));
    // Grids of sparse counters may be far larger than the file; what was measured bounds what is made.
    let measured = summary
        .readouts
        .saturating_mul(extents[0] as u64)
        .saturating_mul(extents[3] as u64);
    let bound = measured.saturating_mul(64).max(1 << 24);
    let Some(len) = len.filter(|&n| n as u64 <= bound) else {
        return Err(SourceError::TooLarge {
            path,
            what: "samples of the grid (64 times what was measured)",
            declared: len.map_or(u64::MAX, |n| n as u64),
            limit: bound,
        });
    };
    let limits = &encoding.encoding_limits;
    let target = Target {
        extents,
        centre: [
            limits
                .kspace_encoding_step_1
                .map_or(my / 2, |l| l.center as usize),
            limits
                .kspace_encoding_step_2
                .map_or(mz / 2, |l| l.center as usize),
        ],
    };
    let mut grid = vec![Complex32::ZERO; len];
    let mut hits = vec![0u16; len / (extents[0] * extents[3])];
    let (mut written, mut outside, mut aside) = (0u64, 0u64, 0u64);
    let line_of = |offset: usize| -> usize {
        // Index of the line: the offset without read and coil.
        let plane = extents[0] * extents[1] * extents[2];
        let within = (offset % plane) / extents[0];
        (offset / (plane * extents[3])) * extents[1] * extents[2] + within
    };
    opened.for_each_batch(&mut |batch| {
        for readout in batch {
            let head = readout.head;
            if !is_image_line(head) || head.encoding_space_ref != 0 {
                aside += 1;
                continue;
            }
            let n = usize::from(head.number_of_samples);
            // Echo centre to grid centre; a reversed readout is turned round.
            let is_reversed = head.has(Flag::IsReverse);
            let centre = i64::from(head.center_sample);
            let x_of = |i: usize| {
                let i = if is_reversed { n - 1 - i } else { i };
                i as i64 - centre + (extents[0] / 2) as i64
            };
            let Some(first) = (0..n).find_map(|i| target.index(head, x_of(i), 0)) else {
                outside += 1;
                continue;
            };
            for (coil, samples) in readout.data.chunks(n.max(1)).enumerate() {
                for (i, sample) in samples.iter().enumerate() {
                    if let Some(at) = target.index(head, x_of(i), coil) {
                        grid[at] += *sample;
                    }
                }
            }
            if let Some(hit) = hits.get_mut(line_of(first)) {
                *hit = hit.saturating_add(1);
            }
            written += 1;
        }
        ControlFlow::Continue(())
    })?;
    for (offset, sample) in grid.iter_mut().enumerate() {
        let n = hits[line_of(offset)];
        if n > 1 {
            *sample /= f32::from(n);
        }
    }
    bart::write(output, &extents, grid.into_iter())?;
    let mut notes = Vec::new();
    for (n, code, what) in [
        (
            aside,
            "lines_left_out",
            "noise, calibration-only and other lines have no place in an array and are left out",
        ),
        (
            outside,
            "lines_outside_grid",
            "lines lie outside the grid and are left out",
        ),
    ] {
        if n > 0 {
            notes.push(Note::new(code, format!("{n} {what}")));
        }
    }
    Ok((written, notes))
}
