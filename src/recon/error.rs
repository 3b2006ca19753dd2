//! What can go wrong between a frame and its image: every message says what was asked, found, needed, and what to try.

use crate::data::{Fault, FaultKind};

/// Error of the room `recon`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconError {
    /// A parameter is outside its range.
    #[error("recon parameter `{key}` is {value}; allowed: {allowed}")]
    Parameter {
        /// Key as the protocol spells it, below `recon`.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The network of `unrolled` failed.
    #[error("the network failed: {0}")]
    Network(String),
    /// The frame names an encoding that the header does not describe as Cartesian.
    #[error(
        "encoding {encoding_idx} is not a Cartesian encoding of this header ({n_encodings} encodings); \
         only Cartesian data is reconstructed so far"
    )]
    NoEncoding {
        /// Index that the frame carries.
        encoding_idx: u16,
        /// Encodings in the header.
        n_encodings: usize,
    },
    /// The card that was asked for cannot do it, or failed.
    #[error("{message}")]
    Card {
        /// What happened, and what to do.
        message: String,
    },
    /// No line at all.
    #[error("frame {frame}: no imaging line was measured; nothing to reconstruct")]
    NoLines {
        /// Which frame, for people.
        frame: String,
    },
    /// Nothing is measured where the signal is: no calibration, no phase, no combination.
    #[error(
        "{frame}: none of its {lines} lines goes through the centre of k-space; needed: the central line; the scan was cut \
         off, or its header states another centre"
    )]
    NoCentre {
        /// Which frame.
        frame: String,
        /// Lines that are there.
        lines: usize,
    },
    /// Too little fully sampled k-space around the centre to calibrate from.
    #[error(
        "method `{method}` needs {need} fully sampled calibration lines around the k-space centre, found {found}; \
         {hint}"
    )]
    Calibration {
        /// Method asked for or chosen.
        method: &'static str,
        /// Lines needed, per axis.
        need: String,
        /// Lines found, per axis.
        found: String,
        /// What to try.
        hint: String,
    },
    /// The sampling does not fit the method that was asked for.
    #[error("method `{method}` was asked for, but {found}; {hint}")]
    Pattern {
        /// Method asked for.
        method: &'static str,
        /// What the mask looks like.
        found: String,
        /// What to try.
        hint: String,
    },
    /// The frame does not have the sampling that was planned for.
    #[error(
        "the frame's sampling differs from the planned one ({what}); plan again for this frame"
    )]
    PatternChanged {
        /// What differs.
        what: String,
    },
    /// NaN or infinity.
    #[error("{count} of {total} {what} are not finite, first at index {first}; {hint}")]
    NotFinite {
        /// Samples or voxels.
        what: &'static str,
        /// How many.
        count: usize,
        /// Of how many.
        total: usize,
        /// Where the first is.
        first: usize,
        /// What to look at.
        hint: &'static str,
    },
    /// The normal matrix of a calibration cannot be factorised.
    #[error(
        "the calibration of `{method}` is singular ({detail}); raise `{key}` or check for dead or duplicated coils"
    )]
    Singular {
        /// Method.
        method: &'static str,
        /// Pivot and coil where known.
        detail: String,
        /// Key to raise.
        key: &'static str,
    },
    /// Sensitivity maps could not be made.
    #[error(transparent)]
    Maps(#[from] super::csm::CsmError),
    /// SENSE could not be planned or run.
    #[error(transparent)]
    Sense(#[from] super::sense::SenseError),
    /// A limit of the machine.
    #[error(
        "reconstruction needs {need_mb} MB of working memory, {have_mb} MB are allowed; {hint}"
    )]
    Memory {
        /// Needed.
        need_mb: u64,
        /// Allowed.
        have_mb: u64,
        /// What to try.
        hint: &'static str,
    },
    /// Ours.
    #[error("bug in recon: {0}")]
    Bug(String),
}

impl ReconError {
    /// Whose fault it is.
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::Network(_) => FaultKind::Model,
            Self::Parameter { .. } | Self::Pattern { .. } => FaultKind::Protocol,
            Self::NoEncoding { .. } => FaultKind::Unsupported,
            Self::NoLines { .. }
            | Self::NoCentre { .. }
            | Self::Calibration { .. }
            | Self::NotFinite { .. }
            | Self::Singular { .. } => FaultKind::Input,
            // Their own kinds, given by `Fault::from` below.
            Self::Maps(_) | Self::Sense(_) => FaultKind::Input,
            Self::Card { .. } => FaultKind::Device,
            Self::Memory { .. } => FaultKind::Limit,
            Self::PatternChanged { .. } | Self::Bug(_) => FaultKind::Bug,
        }
    }
}

impl From<ReconError> for Fault {
    fn from(error: ReconError) -> Self {
        match error {
            ReconError::Maps(inner) => return inner.into(),
            ReconError::Sense(inner) => return inner.into(),
            _ => {}
        }
        let (kind, message) = (error.kind(), error.to_string());
        Self {
            kind,
            room: "recon",
            message,
            source: Some(Box::new(error)),
        }
    }
}
