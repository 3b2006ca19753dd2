//! How an image came to be, and every mark that something was not as asked.

/// A mark: something that a reader of the image must be able to find out.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Note {
    /// Stable word for machines: `missing_lines`, `no_noise_scan`, ...
    pub code: &'static str,
    /// Sentence for people.
    pub text: String,
}

impl Note {
    /// A mark.
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// One operator that ran.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// Operator: `ingest/whiten`, `recon/grappa`, ...
    pub op: String,
    /// `cpu` or `cuda`.
    pub backend: &'static str,
    /// Parameters and why this operator was chosen, in one line.
    pub detail: String,
}

/// Everything that made an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Provenance {
    /// Protocol by name, with the digest of its text.
    pub protocol: String,
    /// Input: kind and place.
    pub input: String,
    /// Operators in order.
    pub steps: Vec<Step>,
    /// Marks in order.
    pub notes: Vec<Note>,
}
