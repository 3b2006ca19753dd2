//! What can go wrong with a file, a header or a stream.

use std::path::PathBuf;

/// Errors of this package. Every message names the place, what was found and what was needed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{what}: {source}: {path}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// File.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The bytes are not what the format says.
    #[error("{place}: found {found}, needed {needed}")]
    Malformed {
        /// Where: element, data set, byte offset.
        place: String,
        /// What stands there.
        found: String,
        /// What the format asks for.
        needed: String,
    },
    /// A stream ends inside a message.
    #[error(
        "{place}: found the end after {have} bytes of it, needed more bytes: the stream is cut off"
    )]
    CutOff {
        /// Which message.
        place: String,
        /// Bytes of it that are there.
        have: u64,
    },
    /// A declared size is above the limit.
    #[error("{what}: {declared} declared, limit {limit}")]
    TooLarge {
        /// Which size.
        what: &'static str,
        /// Declared.
        declared: u64,
        /// Allowed.
        limit: u64,
    },
    /// A group or data set is absent.
    #[error("no {what} in {path}; found: {found}")]
    Missing {
        /// What was asked for.
        what: String,
        /// File.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// The HDF5 library failed.
    #[error("HDF5: {what}: {message}")]
    Hdf5 {
        /// What was being done.
        what: String,
        /// The library's text.
        message: String,
    },
}
