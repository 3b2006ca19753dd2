//! What cannot be simulated.

/// A parameter that cannot be simulated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("simulate: {key}: found {found}, needed {needed}")]
pub struct PhantomError {
    /// Parameter.
    pub key: &'static str,
    /// Its value.
    pub found: String,
    /// What would do.
    pub needed: &'static str,
}

impl From<PhantomError> for crate::data::Fault {
    fn from(e: PhantomError) -> Self {
        Self {
            kind: crate::data::FaultKind::Protocol,
            room: "phantom",
            message: e.to_string(),
            source: Some(Box::new(e)),
        }
    }
}

impl From<crate::sequence::SequenceError> for PhantomError {
    fn from(e: crate::sequence::SequenceError) -> Self {
        Self {
            key: "sequence",
            found: e.to_string(),
            needed: "a sequence that a scanner can play",
        }
    }
}
