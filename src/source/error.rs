//! What can go wrong between a path and its readouts.

use std::path::{Path, PathBuf};

use crate::data::{Fault, FaultKind};

/// Errors of this room. Every message names the file, the place, what was found, what was needed, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The operating system refused.
    #[error("{}: {what}: {source}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// File.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A kind of file that holds no k-space, or that is not read.
    #[error("{}: {found}\n  needed: {needed}\n  try:    {hint}", path.display())]
    Unsupported {
        /// File.
        path: PathBuf,
        /// What the file is.
        found: String,
        /// What would be read.
        needed: String,
        /// What to do.
        hint: String,
    },
    /// The content breaks the rules of its format.
    #[error("{}: {place}\n  found:  {found}\n  needed: {needed}\n  try:    {hint}", path.display())]
    Malformed {
        /// File.
        path: PathBuf,
        /// Where: byte offset, element, data set.
        place: String,
        /// What stands there.
        found: String,
        /// What the format asks for.
        needed: String,
        /// What to do.
        hint: String,
    },
    /// A declared size is above the limit that was set.
    #[error("{}: {what}: {declared} declared, limit {limit}", path.display())]
    TooLarge {
        /// File.
        path: PathBuf,
        /// Which size.
        what: &'static str,
        /// Declared.
        declared: u64,
        /// Allowed.
        limit: u64,
    },
    /// What was asked for cannot be done with this file.
    #[error("{}: {asked}\n  found:  {found}\n  try:    {hint}", path.display())]
    Option {
        /// File.
        path: PathBuf,
        /// What was asked for.
        asked: String,
        /// What the file offers.
        found: String,
        /// What to do.
        hint: String,
    },
    /// The ISMRMRD package refused.
    #[error("{}: {source}", path.display())]
    Ismrmrd {
        /// File.
        path: PathBuf,
        /// Its error.
        source: ismrmrd::Error,
    },
}

impl SourceError {
    pub(crate) fn io(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            what,
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn ismrmrd(path: &Path, source: ismrmrd::Error) -> Self {
        Self::Ismrmrd {
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn malformed(
        path: &Path,
        place: impl Into<String>,
        found: impl Into<String>,
        needed: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Malformed {
            path: path.to_path_buf(),
            place: place.into(),
            found: found.into(),
            needed: needed.into(),
            hint: hint.into(),
        }
    }

    pub(crate) fn unsupported(
        path: &Path,
        found: impl Into<String>,
        needed: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Unsupported {
            path: path.to_path_buf(),
            found: found.into(),
            needed: needed.into(),
            hint: hint.into(),
        }
    }

    /// Whose fault it is.
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::Io { .. } => FaultKind::Io,
            Self::Unsupported { .. } => FaultKind::Unsupported,
            Self::Malformed { .. } => FaultKind::Input,
            Self::TooLarge { .. } => FaultKind::Limit,
            Self::Option { .. } => FaultKind::Protocol,
            Self::Ismrmrd { source, .. } => match source {
                ismrmrd::Error::Io { .. } => FaultKind::Io,
                ismrmrd::Error::TooLarge { .. } => FaultKind::Limit,
                _ => FaultKind::Input,
            },
        }
    }
}

impl From<SourceError> for Fault {
    fn from(error: SourceError) -> Self {
        Self {
            kind: error.kind(),
            room: "source",
            message: error.to_string(),
            source: Some(Box::new(error)),
        }
    }
}
