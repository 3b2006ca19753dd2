//! A file of any supported kind in, an ISMRMRD header and readouts out.
//!
//! `path` -> [`open`] -> [`Opened`]: header, marks, batches of borrowed readouts, and what else is there
//! ([`Beside`]: waveforms, images, arrays, for `inspect` and `convert`). The kind is found from the content
//! ([`detect`]). Readers neither whiten nor sort nor drop: what was measured comes out bit by bit, in file order, with
//! ISMRMRD's flags and counters; what a format leaves open is filled with nominal values and a mark says so. Writers for
//! `cauda convert` live here too ([`convert`]).
//!
//! | kind | reader | notes |
//! |---|---|---|
//! | ISMRMRD HDF5, MRD v1/v2 streams | package `ismrmrd` | any group name |
//! | fastMRI | [`fastmri`](self) | zero lines are not emitted |
//! | Siemens twix VB, VD/VE | `twix` | several measurements; noise of an earlier one comes first |
//! | Bruker ParaVision | `bruker` | Cartesian, RARE; lines turned by the planned offset along phase |
//! | BART, NumPy, MATLAB | `grid` | nominal geometry |

mod bart;
mod bruker;
mod bytes;
mod convert;
mod doctor;
mod error;
mod fastmri;
mod grid;
mod hdf5;
mod kind;
mod mat;
mod mrd;
mod npy;
mod summary;
mod twix;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ismrmrd::acquisition::AcquisitionRef;
use ismrmrd::{Acquisition, Header, Image, Limits, NdArray, Waveform};

pub use bart::write as write_cfl;
pub use convert::{ConvertOptions, Converted, convert};
pub use error::SourceError;
pub use kind::{Kind, SUPPORTED, detect};
pub use summary::{Range, SeriesSummary, Summary};

use crate::data::Note;
use grid::Axis;

/// What to open in a file, and how much of it to believe.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Group of an HDF5 file, or variable of a MATLAB file; `None`: the only one, or an error that lists them.
    pub group: Option<String>,
    /// Bounds on declared sizes.
    pub limits: Limits,
    /// Measurement of a twix file, counted from 1; `None`: the last with imaging readouts.
    pub measurement: Option<usize>,
    /// Axes of a plain array (BART, NumPy, MATLAB) in the file's own order, comma-separated: `coil,ro,pe1`. Words: `ro
    /// pe1 pe2 coil contrast slice set phase repetition average`.
    pub axes: Option<String>,
    /// Read the whole readouts of a twix file or an MRD stream that was cut short, instead of refusing it.
    pub allow_truncated: bool,
    /// Open files that hold images, arrays or waveforms and no readouts too. Such a file has nothing to reconstruct,
    /// but it can be described and converted.
    pub images: bool,
}

/// What a file holds beside readouts.
#[derive(Clone, Debug, PartialEq)]
pub enum Beside {
    /// A physiological or other waveform.
    Waveform(Waveform),
    /// An image and the series it belongs to.
    Image(String, Box<Image>),
    /// An array and its name.
    Array(String, NdArray),
}

/// Callback for [`Opened::for_each_beside`].
pub type VisitBeside<'a> = dyn FnMut(Beside) -> ControlFlow<()> + 'a;

/// Callback for batches of readouts; [`ControlFlow::Break`] stops early.
pub type Visit<'a> = dyn FnMut(&[AcquisitionRef<'_>]) -> ControlFlow<()> + 'a;

/// Where readouts come from.
pub(crate) trait Readouts: Send {
    /// How many there are.
    fn count(&self) -> u64;
    /// Visits all, in file order.
    fn for_each_batch(&mut self, visit: &mut Visit<'_>) -> Result<(), SourceError>;
    /// Visits what else there is.
    fn for_each_beside(&mut self, _visit: &mut VisitBeside<'_>) -> Result<(), SourceError> {
        Ok(())
    }
}

/// Where the noise readouts come from, when there are any.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NoiseSource {
    /// For people.
    pub from: String,
    /// How many; they are among the readouts, flagged.
    pub readouts: u64,
}

/// What a reader hands to [`open`].
pub(crate) struct Parts {
    pub(crate) header: Header,
    pub(crate) notes: Vec<Note>,
    pub(crate) noise: Option<NoiseSource>,
    pub(crate) group: Option<String>,
    pub(crate) readouts: Box<dyn Readouts>,
}

impl Parts {
    pub(crate) fn new(header: Header, notes: Vec<Note>, readouts: Box<dyn Readouts>) -> Self {
        Self {
            header,
            notes,
            noise: None,
            group: None,
            readouts,
        }
    }
}

/// An opened scan.
pub struct Opened {
    /// What kind of file it is.
    pub kind: Kind,
    /// Where it is.
    pub path: PathBuf,
    /// Group of an HDF5 file that was opened.
    pub group: Option<String>,
    /// The header, as found or as made from the vendor's.
    pub header: Header,
    /// What has to be said about it.
    pub notes: Vec<Note>,
    /// Where noise readouts come from, if the reader knows.
    pub noise: Option<NoiseSource>,
    readouts: Box<dyn Readouts>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("kind", &self.kind)
            .field("path", &self.path)
            .field("group", &self.group)
            .field("readouts", &self.count())
            .finish_non_exhaustive()
    }
}

impl Opened {
    /// Number of readouts.
    pub fn count(&self) -> u64 {
        self.readouts.count()
    }

    /// Visits all readouts in file order, in batches.
    ///
    /// # Errors
    /// The readout that is damaged, by place; readouts before it have been visited.
    pub fn for_each_batch(&mut self, visit: &mut Visit<'_>) -> Result<(), SourceError> {
        self.readouts.for_each_batch(visit)
    }

    /// Visits waveforms, images and arrays, one at a time.
    ///
    /// # Errors
    /// The item that is damaged, by place.
    pub fn for_each_beside(&mut self, visit: &mut VisitBeside<'_>) -> Result<(), SourceError> {
        self.readouts.for_each_beside(visit)
    }

    /// Passes over all readouts and says what the file holds, with the header doctor's marks.
    ///
    /// # Errors
    /// As [`Opened::for_each_batch`].
    pub fn describe(&mut self) -> Result<Summary, SourceError> {
        let mut summary = Summary::new(self);
        self.readouts.for_each_batch(&mut |batch| {
            for readout in batch {
                summary.add(readout);
            }
            ControlFlow::Continue(())
        })?;
        self.readouts.for_each_beside(&mut |item| {
            summary.add_beside(&item);
            ControlFlow::Continue(())
        })?;
        summary.finish(&self.header);
        Ok(summary)
    }
}

/// Opens a file of any supported kind.
///
/// # Errors
/// What the file is, if it is not k-space; what is damaged, by place; what was asked for and is not there.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Opened, SourceError> {
    let kind = detect(path)?;
    let parts = match kind {
        Kind::Ismrmrd => mrd::open_file(path, options)?,
        Kind::IsmrmrdImages if options.images => mrd::open_file(path, options)?,
        Kind::MrdV1Stream | Kind::MrdV2Stream => mrd::open_stream(path, options)?,
        Kind::FastMri => fastmri::open(path, options)?,
        Kind::Bart => bart::open(path, options)?,
        Kind::TwixVb | Kind::TwixVd => twix::open(path, options)?,
        Kind::Bruker => bruker::open(&bruker::folder(path).unwrap_or_else(|| path.to_path_buf()))?,
        Kind::Npy => npy::open(path, options)?,
        Kind::Mat => mat::open(path, options)?,
        Kind::IsmrmrdImages | Kind::OtherHdf5 => return Err(hdf5::refuse(path)),
    };
    Ok(Opened {
        kind,
        path: path.to_path_buf(),
        group: parts.group,
        header: parts.header,
        notes: parts.notes,
        noise: parts.noise,
        readouts: parts.readouts,
    })
}

/// Readouts held in memory.
pub(crate) struct Memory {
    readouts: Vec<Acquisition>,
}

impl Memory {
    pub(crate) fn new(readouts: Vec<Acquisition>) -> Self {
        Self { readouts }
    }
}

impl Readouts for Memory {
    fn count(&self) -> u64 {
        self.readouts.len() as u64
    }

    fn for_each_batch(&mut self, visit: &mut Visit<'_>) -> Result<(), SourceError> {
        for batch in self.readouts.chunks(grid::BATCH) {
            let refs: Vec<AcquisitionRef<'_>> = batch.iter().map(Acquisition::as_ref).collect();
            if let ControlFlow::Break(()) = visit(&refs) {
                break;
            }
        }
        Ok(())
    }
}

/// Names the axes of an array from the option `axes`.
pub(crate) fn named_axes(
    path: &Path,
    list: &str,
    extents: &[usize],
) -> Result<Vec<(Axis, usize)>, SourceError> {
    let wrong = |found: String, hint: String| SourceError::Option {
        path: path.to_path_buf(),
        asked: format!("axes = {list:?}"),
        found,
        hint,
    };
    let axes = Axis::parse_list(list).map_err(|found| {
        wrong(
            found,
            "use ro, pe1, pe2, coil, contrast, slice, set, phase, repetition, average".into(),
        )
    })?;
    let beyond = extents.get(axes.len()..).unwrap_or_default();
    if axes.len() > extents.len() || beyond.iter().any(|&n| n != 1) {
        return Err(wrong(
            format!("{} axes {extents:?}", extents.len()),
            "name every axis of the array, in the file's order".into(),
        ));
    }
    Ok(axes.into_iter().zip(extents.iter().copied()).collect())
}

/// The folder a file lies in; `.` for a bare name.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// A temporary file beside its target, as readable as any new file; the library's default is the owner alone.
pub(crate) fn beside(target: &Path) -> Result<tempfile::NamedTempFile, SourceError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".cauda-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder
        .tempfile_in(folder_of(target))
        .map_err(|e| SourceError::io("cannot write beside", target, e))
}

/// Gives a finished temporary file its name.
pub(crate) fn persist(file: tempfile::NamedTempFile, target: &Path) -> Result<(), SourceError> {
    file.as_file()
        .sync_all()
        .map_err(|e| SourceError::io("cannot finish writing", target, e))?;
    file.persist(target)
        .map_err(|e| SourceError::io("cannot rename into place", target, e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests;
