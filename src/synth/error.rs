//! Why nothing was made up. The acquired images are out by then, and stay as they are.

use crate::data::{Fault, FaultKind, SyntheticKind};
use crate::model::ModelError;

/// Why nothing was made up.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SynthError {
    /// A key out of its range.
    #[error("{key}: found {found}; allowed: {allowed}")]
    Params {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// Its range.
        allowed: &'static str,
    },
    /// Images that are no series.
    #[error("{series}: {what}")]
    NoSeries {
        /// Its name.
        series: String,
        /// What is wrong.
        what: String,
    },
    /// No T1w among the series.
    #[error("there is no T1w series among {found}: nothing is made from T2w alone")]
    NoT1w {
        /// What there is.
        found: String,
    },
    /// No T2w, and fat-suppressed images are asked for.
    #[error("there is no T2w series among {found}: {kind} needs T1w and T2w")]
    NoT2w {
        /// What there is.
        found: String,
        /// What was asked for.
        kind: &'static str,
    },
    /// Two series that could have the role.
    #[error(
        "{first} and {second} are both {role}: which is meant?\n  try:    give only one of them"
    )]
    Twice {
        /// Role.
        role: &'static str,
        /// Name.
        first: String,
        /// Name.
        second: String,
    },
    /// A series of another kind than it was given for.
    #[error("{series} was given as {given}, but {why}\n  try:    T1w first, then T2w")]
    Role {
        /// Its name.
        series: String,
        /// What it was given as.
        given: &'static str,
        /// Why it is not that.
        why: String,
    },
    /// Names say one thing, voxels another.
    #[error(
        "{t1w} (as T1w) and {t2w} (as T2w) look exchanged or alike: {why}; nothing is made from them"
    )]
    Signal {
        /// Name.
        t1w: String,
        /// Name.
        t2w: String,
        /// What was found in the voxels.
        why: String,
    },
    /// Series that do not belong together.
    #[error("{t1w} and {t2w} are not of one {what}: {found:?}")]
    Identity {
        /// Name.
        t1w: String,
        /// Name.
        t2w: String,
        /// Patient, study, frame of reference.
        what: &'static str,
        /// Of each.
        found: [String; 2],
    },
    /// A synthetic image is no source.
    #[error("{series} is itself synthetic: nothing is made from it")]
    FromSynthetic {
        /// Its name.
        series: String,
    },
    /// Not sagittal.
    #[error(
        "{series}: its slices are tilted by {degrees:.0} degrees from sagittal; the networks know sagittal slices (up to {most:.0})"
    )]
    Plane {
        /// Its name.
        series: String,
        /// Angle.
        degrees: f64,
        /// The limit.
        most: f64,
    },
    /// Too little in common.
    #[error("only {percent:.0} % of the body in {t1w} lies inside {t2w}; needed: {least:.0} %")]
    Overlap {
        /// Name.
        t1w: String,
        /// Name.
        t2w: String,
        /// Share.
        percent: f64,
        /// The limit.
        least: f64,
    },
    /// The patient moved too far.
    #[error(
        "the patient moved between {t1w} and {t2w} by {found}; corrected are up to {shift_mm} mm and {rotation_deg} degrees (synth.max_shift_mm, synth.max_rotation_deg)"
    )]
    Motion {
        /// Name.
        t1w: String,
        /// Name.
        t2w: String,
        /// Along and about the axes.
        found: String,
        /// Limit.
        shift_mm: f64,
        /// Limit.
        rotation_deg: f64,
    },
    /// The network's answer is no image.
    #[error("{count} values of the answer of {model} are NaN or infinite")]
    NotFinite {
        /// The network.
        model: String,
        /// How many.
        count: usize,
    },
    /// The series that it waited for never came.
    #[error("{kind}: the set was given up: {why}")]
    TimedOut {
        /// What was asked for.
        kind: &'static str,
        /// What came and what not.
        why: String,
    },
    /// The network failed, or is not there.
    #[error("{0}")]
    Model(String),
}

impl From<ModelError> for SynthError {
    fn from(e: ModelError) -> Self {
        Self::Model(e.to_string())
    }
}

impl From<SynthError> for Fault {
    fn from(e: SynthError) -> Self {
        let kind = match e {
            SynthError::Params { .. } => FaultKind::Protocol,
            SynthError::Model(_) | SynthError::NotFinite { .. } => FaultKind::Model,
            SynthError::Plane { .. } => FaultKind::Unsupported,
            _ => FaultKind::Input,
        };
        Self {
            kind,
            room: "synth",
            message: e.to_string(),
            source: Some(Box::new(e)),
        }
    }
}

/// One of the images that was asked for, and why there is none.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Which.
    pub kind: SyntheticKind,
    /// Why.
    pub why: SynthError,
}
