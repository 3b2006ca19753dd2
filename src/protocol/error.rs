//! What can be wrong with a protocol.

use crate::data::{Fault, FaultKind};

/// Errors of this room. Every message names the protocol or the key, what was found and what is allowed.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// No such name.
    #[error(
        "no protocol is named {name:?}{hint}; there are: {known}. A file of your own is given by its path"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// `; did you mean ...?` or nothing.
        hint: String,
        /// Names that exist.
        known: String,
    },
    /// A protocol that says nothing of the scan is asked how long it takes.
    #[error(
        "protocol {protocol} has no [sequence] table: it is only a reconstruction; with a sequence: {known}"
    )]
    NoSequence {
        /// Which.
        protocol: String,
        /// Names that have one.
        known: String,
    },
    /// The file cannot be read.
    #[error("cannot read the protocol file: {reason}: {path}")]
    Unreadable {
        /// The system's answer.
        reason: String,
        /// File.
        path: String,
    },
    /// Not TOML.
    #[error("protocol {protocol}: not valid TOML: {message}")]
    Syntax {
        /// Which.
        protocol: String,
        /// The parser's words.
        message: String,
    },
    /// A key or a value that the schema refuses.
    #[error("protocol {protocol}: {key}: {message}")]
    Key {
        /// Which.
        protocol: String,
        /// Dotted key.
        key: String,
        /// What is wrong, what is allowed.
        message: String,
    },
    /// `--set` without a key or a value.
    #[error("--set {text:?}: needed key=value, for example recon.grappa.lambda=1e-3")]
    Overlay {
        /// As typed.
        text: String,
    },
    /// `--set` on something that is not a table.
    #[error("--set {key}: {parent} is a value, not a table, and has no keys below it")]
    NotATable {
        /// Dotted key.
        key: String,
        /// The part that is a value.
        parent: String,
    },
    /// Another version of the format.
    #[error("protocol {protocol}: schema = {found}; this program reads schema = 1")]
    Schema {
        /// Which.
        protocol: String,
        /// As found.
        found: u32,
    },
    /// The scan is not the one that the protocol is for.
    #[error(
        "protocol {protocol}: {key} asks for {needed}, the scan has {found}; try --protocol default, or a protocol for this scan"
    )]
    Scan {
        /// Which.
        protocol: String,
        /// Dotted key.
        key: &'static str,
        /// What the protocol asks for.
        needed: String,
        /// What the header says.
        found: String,
    },
}

impl From<ProtocolError> for Fault {
    fn from(e: ProtocolError) -> Self {
        let kind = match e {
            ProtocolError::Scan { .. } => FaultKind::Input,
            _ => FaultKind::Protocol,
        };
        Fault::new(kind, "protocol", e.to_string())
    }
}
