//! One error for the whole house: every room's error becomes a [`Fault`] at the border.

/// Whose fault it is; decides the exit code and what the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The data: truncated, inconsistent.
    Input,
    /// The protocol or the command line.
    Protocol,
    /// Nobody's: not supported.
    Unsupported,
    /// A limit that was set.
    Limit,
    /// The machine: GPU.
    Device,
    /// A network's weights.
    Model,
    /// The environment: disk full, peer gone.
    Io,
    /// Ours.
    Bug,
}

impl FaultKind {
    /// Stable exit code of the command line. 1 is "ran, but a stated check failed" and belongs to no fault.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Protocol => 2,
            Self::Input | Self::Unsupported | Self::Limit => 3,
            Self::Device | Self::Model | Self::Io => 4,
            Self::Bug => 5,
        }
    }
}

/// A fault: kind, room, what happened, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Whose fault.
    pub kind: FaultKind,
    /// Room it happened in: `ismrmrd`, `source`, `ingest`, `recon`, `handoff`, `protocol`, `cli`.
    pub room: &'static str,
    /// What was asked, found, needed, and what to try.
    pub message: String,
    /// The error below, if any.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Fault {
    /// A fault without an error below it.
    pub fn new(kind: FaultKind, room: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            room,
            message: message.into(),
            source: None,
        }
    }
}

/// What to do about the system's refusal: a second line for a message, or nothing.
pub fn advice(source: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "\n  nothing half-written was left behind\n  try:    free space there, or another folder"
        }
        ErrorKind::NotFound => "\n  try:    make the folder first, or check the name",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "\n  try:    another folder, or its permissions"
        }
        _ => "",
    }
}
