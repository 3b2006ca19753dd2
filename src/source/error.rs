//! What can go wrong between a path and its readouts.

use std::path::{Path, PathBuf};

use crate::data::{Fault, FaultKind, fault::advice};

/// Errors of this room. Every message names the file, the place, what was found, what was needed, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The operating system refused.
    #[error("{}: {what}: {source}{}", path.display(), advice(.source))]
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
    #[error(
        "{}: {what}\n  found:  {declared} declared\n  needed: at most {limit}\n  try:    damaged files declare such \
         sizes: copy or convert the file again",
        path.display()
    )]
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
}

impl SourceError {
    pub(crate) fn io(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            what,
            path: path.to_path_buf(),
            source,
        }
    }

    /// An error of the package `ismrmrd`, which does not know what the user could do.
    pub(crate) fn ismrmrd(path: &Path, source: ismrmrd::Error) -> Self {
        use ismrmrd::Error as E;
        // The file's name stands in front of every message of this room.
        let file = path.display().to_string();
        let within = |place: String| match place.strip_prefix(&file) {
            Some("") => "the file".to_owned(),
            Some(rest) => rest.trim_start_matches([':', ' ']).to_owned(),
            None => place,
        };
        let again =
            "copy or convert the file again; if it stays so, the program that wrote it is at fault";
        match source {
            E::Io { what, source, .. } => {
                let what = match what {
                    "open" => "cannot open",
                    "write" => "cannot write",
                    _ => "cannot read",
                };
                Self::io(what, path, source)
            }
            E::Malformed {
                place,
                found,
                needed,
            } => Self::malformed(path, within(place), found, needed, again),
            E::TooLarge {
                what,
                declared,
                limit,
            } => Self::TooLarge {
                path: path.to_path_buf(),
                what,
                declared,
                limit,
            },
            E::Missing { what, found, .. } => Self::malformed(
                path,
                "the file",
                found,
                what,
                "name another group with --group, or convert the scan again",
            ),
            E::Hdf5 { what, message } => Self::malformed(
                path,
                within(what),
                format!("what the HDF5 library refuses: {message}"),
                "an intact file",
                again,
            ),
            other => Self::malformed(path, "the file", other.to_string(), "an intact file", again),
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
