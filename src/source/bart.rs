//! BART's `.cfl`/`.hdr` pairs, in and out.
//!
//! `.hdr` is text with the extents under `# Dimensions`; `.cfl` is little-endian complex64, first dimension fastest.
//! Dimensions: 0 read, 1 and 2 phase, 3 coil, 4 maps, 5 TE, 6 and 7 coefficients, 8 iteration, 9 constrained shift,
//! 10 time, 11 second time, 12 level, 13 slice, 14 average, 15 batch. BART's FFT has its centre at `n/2`, as ours.
//!
//! # Source
//! BART, `src/misc/mri.h` (dimension numbers) and `src/misc/io.c` (header), BSD licence.

use std::path::{Path, PathBuf};

use super::bytes::Bytes;
use super::grid::{Axis, Element, Grid, Layout, Store};
use super::{OpenOptions, Parts, SourceError};
use crate::data::Note;

/// Our axis of each of BART's dimensions; `None` must have extent 1.
const DIMS: [Option<Axis>; 16] = [
    Some(Axis::Ro),
    Some(Axis::Pe1),
    Some(Axis::Pe2),
    Some(Axis::Coil),
    None,
    Some(Axis::Contrast),
    None,
    None,
    None,
    None,
    Some(Axis::Repetition),
    Some(Axis::Phase),
    Some(Axis::Set),
    Some(Axis::Slice),
    Some(Axis::Average),
    None,
];

/// Names of dimensions that are not k-space axes, for messages.
const NAMES: [&str; 16] = [
    "read",
    "phase 1",
    "phase 2",
    "coil",
    "maps",
    "TE",
    "coefficient",
    "coefficient 2",
    "iteration",
    "shift",
    "time",
    "time 2",
    "level",
    "slice",
    "average",
    "batch",
];

/// Names of the pair: the path itself may be either file; any other path is the stem, to which BART appends.
fn names(path: &Path) -> (PathBuf, PathBuf) {
    let ending = path.extension().and_then(|e| e.to_str());
    if matches!(ending, Some("cfl" | "hdr")) {
        return (path.with_extension("hdr"), path.with_extension("cfl"));
    }
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_os_string();
        name.push(suffix);
        PathBuf::from(name)
    };
    (with(".hdr"), with(".cfl"))
}

/// The pair a path belongs to, `(hdr, cfl)`, both present and the first a BART header.
pub(crate) fn pair(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let (hdr, cfl) = names(path);
    (hdr.is_file() && cfl.is_file() && is_header(&hdr)).then_some((hdr, cfl))
}

/// Whether the file is a BART header by content.
pub(crate) fn is_header(hdr: &Path) -> bool {
    let mut start = [0u8; 12];
    std::fs::File::open(hdr)
        .and_then(|mut f| std::io::Read::read_exact(&mut f, &mut start))
        .is_ok()
        && &start == b"# Dimensions"
}

fn extents(hdr: &Path) -> Result<Vec<usize>, SourceError> {
    let size = std::fs::metadata(hdr)
        .map_err(|e| SourceError::io("cannot read the size", hdr, e))?
        .len();
    if size > 1 << 20 {
        return Err(SourceError::TooLarge {
            path: hdr.to_path_buf(),
            what: "bytes of a BART header",
            declared: size,
            limit: 1 << 20,
        });
    }
    let bytes = std::fs::read(hdr).map_err(|e| SourceError::io("cannot read", hdr, e))?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().nth(1).unwrap_or_default();
    let bad = |found: String| {
        SourceError::malformed(
            hdr,
            "line 2, below \"# Dimensions\"",
            found,
            "1 to 16 extents of 1 or more",
            "write the pair again with BART, or correct the header",
        )
    };
    let mut extents = Vec::new();
    for word in line.split_whitespace() {
        let n: usize = word.parse().map_err(|_| bad(format!("{word:?}")))?;
        if n == 0 {
            return Err(bad(format!("an extent of 0 in {line:?}")));
        }
        extents.push(n);
    }
    if extents.is_empty() || extents.len() > 16 {
        return Err(bad(format!("{} numbers", extents.len())));
    }
    Ok(extents)
}

pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<Parts, SourceError> {
    let (hdr, cfl) = pair(path).ok_or_else(|| {
        SourceError::malformed(
            path,
            "BART pair",
            "one file of the two",
            "NAME.hdr and NAME.cfl in one folder",
            "copy the missing one beside it",
        )
    })?;
    let extents = extents(&hdr)?;
    let mut axes = Vec::new();
    for (dim, &n) in extents.iter().enumerate() {
        match DIMS[dim] {
            Some(axis) => axes.push((axis, n)),
            None if n == 1 => {}
            None => {
                return Err(SourceError::unsupported(
                    &hdr,
                    format!("dimension {dim} ({}) has extent {n}", NAMES[dim]),
                    "k-space: extents above 1 only for read, phase, coil, TE, time, level, slice and average",
                    "take one index with `bart slice`, or name the axes with the option `axes`",
                ));
            }
        }
    }
    if let Some(list) = &options.axes {
        axes = super::named_axes(&hdr, list, &extents)?;
    }
    let layout = Layout::fastest_first(&axes);
    let (Some(layout), Some(samples)) = (layout, layout.and_then(|l| l.len())) else {
        return Err(SourceError::TooLarge {
            path: hdr,
            what: "samples (product of the dimensions)",
            declared: u64::MAX,
            limit: usize::MAX as u64,
        });
    };
    let bytes = Bytes::open(&cfl)?;
    let needed = samples.checked_mul(8);
    if needed != Some(bytes.all().len()) {
        return Err(SourceError::malformed(
            &cfl,
            "size of the file",
            format!("{} bytes", bytes.all().len()),
            format!(
                "{} bytes: 8 for each of the {samples} samples that {} announces",
                needed.map_or("more than 2^64".to_string(), |n| n.to_string()),
                hdr.display()
            ),
            "the pair does not belong together, or the copy was cut short: copy it again",
        ));
    }
    let mut notes = Vec::new();
    let store = Store::Mapped {
        bytes,
        start: 0,
        element: Element::Complex32,
    };
    let grid = Grid::new(&cfl, store, layout, &mut notes)?;
    let header = grid.nominal_header(&mut notes);
    notes.push(Note::new(
        "cartesian_assumed",
        "a BART pair does not say how k-space was sampled: Cartesian is assumed (radial or spiral data look the same)",
    ));
    Ok(Parts::new(header, notes, Box::new(grid)))
}

/// Writes `samples` (first dimension fastest) as a pair; both files appear complete or not at all.
///
/// # Errors
/// The system's refusals, or a number of samples that is not the product of the extents.
pub fn write(
    stem: &Path,
    extents: &[usize],
    samples: impl Iterator<Item = num_complex::Complex32>,
) -> Result<(), SourceError> {
    use std::io::Write as _;
    let (hdr, cfl) = names(stem);
    let mut data = std::io::BufWriter::with_capacity(1 << 20, super::beside(&cfl)?);
    let mut count = 0usize;
    for sample in samples {
        let io = |e| SourceError::io("cannot write", &cfl, e);
        data.write_all(&sample.re.to_le_bytes()).map_err(io)?;
        data.write_all(&sample.im.to_le_bytes()).map_err(io)?;
        count += 1;
    }
    let needed: usize = extents.iter().product();
    if count != needed {
        return Err(SourceError::malformed(
            &cfl,
            "samples to write",
            count.to_string(),
            format!("{needed}, the product of {extents:?}"),
            "this is a fault of Cauda: please report it",
        ));
    }
    let data = data
        .into_inner()
        .map_err(|e| SourceError::io("cannot write", &cfl, e.into_error()))?;
    let mut text = super::beside(&hdr)?;
    let mut dims = extents.to_vec();
    dims.resize(16, 1);
    let list: Vec<String> = dims.iter().map(usize::to_string).collect();
    write!(
        text,
        "# Dimensions\n{} \n# Creator\ncauda {}\n",
        list.join(" "),
        env!("CARGO_PKG_VERSION")
    )
    .and_then(|()| text.as_file().sync_all())
    .map_err(|e| SourceError::io("cannot write", &hdr, e))?;
    super::persist(data, &cfl)?;
    super::persist(text, &hdr)
}
