//! What can go wrong while images are handed out or read back.

use std::path::{Path, PathBuf};

use crate::data::{Fault, FaultKind, fault::advice};

/// Errors of this room. Every message says what was asked, what was found, what is needed and what to try.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandoffError {
    /// The ending of the output's name is none that is written.
    #[error(
        "no output format for the ending of {path}\n  needed: .h5, .nii, .nii.gz, .dcm, .png, .npy, .cfl, or a folder (no ending) for a DICOM series"
    )]
    UnknownFormat {
        /// As asked.
        path: PathBuf,
    },
    /// Something is in the way and nobody said that it may go.
    #[error(
        "{path} exists already, nothing was written\n  try:    another name, or handoff.overwrite = true"
    )]
    Exists {
        /// What is in the way.
        path: PathBuf,
    },
    /// A folder holds files that this program did not write; it is not replaced even with `overwrite`.
    #[error(
        "{path} holds {found}, which no hand-off wrote; nothing was written or removed\n  try:    another folder, or empty this one by hand"
    )]
    ForeignFolder {
        /// The folder.
        path: PathBuf,
        /// The first foreign entry.
        found: String,
    },
    /// The operating system refused. Nothing half-written stays behind.
    #[error("{what} {path}: {source}{}", advice(.source))]
    Io {
        /// What was being done: `writing`, `renaming to`.
        what: &'static str,
        /// File.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// There was no image to write.
    #[error("no image to write: the reconstruction gave none")]
    NoImages,
    /// The quantity was not computed for this image.
    #[error("{quantity} was asked for, but {image} has none: {why}")]
    Unavailable {
        /// Quantity by its name.
        quantity: &'static str,
        /// Which image.
        image: String,
        /// Why, and what to do.
        why: String,
    },
    /// The format cannot carry the quantity.
    #[error("{quantity} cannot be written as {format}\n  try:    {alternatives}")]
    UnsupportedQuantity {
        /// Quantity by its name.
        quantity: &'static str,
        /// Format by its name.
        format: &'static str,
        /// What carries it.
        alternatives: &'static str,
    },
    /// Voxels that are not numbers. They are never replaced.
    #[error(
        "{quantity} of {image}: {count} voxels are NaN or infinite, the first at [z, y, x] = {first:?}; nothing was written\n  try:    `cauda inspect` on the input; a dead coil or an empty calibration region is the usual cause"
    )]
    NotFinite {
        /// Quantity by its name.
        quantity: &'static str,
        /// Which image.
        image: String,
        /// How many.
        count: usize,
        /// Where first.
        first: [usize; 3],
    },
    /// Position, direction or voxel size that no format can express.
    #[error("geometry of {image}: found {found}, needed {needed}")]
    Geometry {
        /// Which image.
        image: String,
        /// What stands there.
        found: String,
        /// What is needed.
        needed: &'static str,
    },
    /// An image contradicts itself or its neighbours.
    #[error("{image}: found {found}, needed {needed}")]
    Shape {
        /// Which image.
        image: String,
        /// What was found.
        found: String,
        /// What was needed.
        needed: String,
    },
    /// A parameter outside its range.
    #[error("handoff.{key}: found {found}, needed {needed}")]
    Params {
        /// Key below `handoff`.
        key: &'static str,
        /// What was given.
        found: String,
        /// What is allowed.
        needed: &'static str,
    },
    /// The DICOM library refused an object or a file.
    #[error("DICOM, {path}: {message}")]
    Dicom {
        /// File.
        path: PathBuf,
        /// The library's text.
        message: String,
    },
    /// A file could not be read as an image.
    #[error("{path}: found {found}, needed {needed}")]
    Read {
        /// File.
        path: PathBuf,
        /// What stands there.
        found: String,
        /// What was needed.
        needed: String,
    },
    /// ISMRMRD file.
    #[error(transparent)]
    Ismrmrd(#[from] ismrmrd::Error),
}

impl HandoffError {
    pub(super) fn io(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            what,
            path: path.to_path_buf(),
            source,
        }
    }

    pub(super) fn read(path: &Path, found: impl Into<String>, needed: impl Into<String>) -> Self {
        Self::Read {
            path: path.to_path_buf(),
            found: found.into(),
            needed: needed.into(),
        }
    }

    /// Whose fault it is.
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::UnknownFormat { .. }
            | Self::Exists { .. }
            | Self::ForeignFolder { .. }
            | Self::Unavailable { .. }
            | Self::UnsupportedQuantity { .. }
            | Self::Params { .. } => FaultKind::Protocol,
            Self::Io { .. } => FaultKind::Io,
            Self::Ismrmrd(ismrmrd::Error::Io { .. }) => FaultKind::Io,
            Self::Ismrmrd(ismrmrd::Error::TooLarge { .. }) => FaultKind::Limit,
            Self::NoImages
            | Self::NotFinite { .. }
            | Self::Geometry { .. }
            | Self::Read { .. }
            | Self::Ismrmrd(_) => FaultKind::Input,
            Self::Shape { .. } | Self::Dicom { .. } => FaultKind::Bug,
        }
    }
}

impl From<HandoffError> for Fault {
    fn from(error: HandoffError) -> Self {
        Self {
            kind: error.kind(),
            room: "handoff",
            message: error.to_string(),
            source: Some(Box::new(error)),
        }
    }
}
