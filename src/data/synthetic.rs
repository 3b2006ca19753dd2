//! The mark of what was not measured, and what belongs to it.

/// What was made.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SyntheticKind {
    /// Short-TI inversion recovery.
    Stir,
    /// T2-weighted without fat.
    T2fs,
    /// CT numbers, HU.
    Ct,
}

impl SyntheticKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Stir, Self::T2fs, Self::Ct];

    /// In protocols and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stir => "stir",
            Self::T2fs => "t2fs",
            Self::Ct => "ct",
        }
    }

    /// In what a person reads.
    pub fn title(self) -> &'static str {
        match self {
            Self::Stir => "SYNTHETIC STIR",
            Self::T2fs => "SYNTHETIC T2FS",
            Self::Ct => "SYNTHETIC CT",
        }
    }

    /// What it must not be used for.
    pub fn caution(self) -> &'static str {
        match self {
            Self::Stir | Self::T2fs => "not for exclusion of marrow lesions",
            Self::Ct => "planning preview only, not for BMD, not for fracture exclusion",
        }
    }
}

/// A measured series that a synthetic one was made from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SourceSeries {
    /// `T1w`, `T2w`.
    pub role: String,
    /// Its own name.
    pub name: String,
    /// DICOM instances of its slices, class and instance, as far as they are known.
    pub instances: Vec<(String, String)>,
}

/// Says that an image was not measured, what made it and how sure that was. Maps are `[z, y, x]` of the image.
#[derive(Clone, Debug, PartialEq)]
pub struct Synthetic {
    /// What it is.
    pub kind: SyntheticKind,
    /// Name of the network.
    pub model: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its weights.
    pub digest: String,
    /// What it was made from.
    pub sources: Vec<SourceSeries>,
    /// Predicted standard deviation of the error, in the unit of the image.
    pub sigma: Option<Vec<f32>>,
    /// 1 where the network abstains: nothing may be read from the image there.
    pub abstention: Option<Vec<f32>>,
    /// Probability of bone; CT only.
    pub bone: Option<Vec<f32>>,
    /// Distance from what the network was trained on; above 1 it lies outside.
    pub domain: Option<f32>,
}

impl Synthetic {
    /// Title and caution in one sentence.
    pub fn sentence(&self) -> String {
        format!("{}: {}", self.kind.title(), self.kind.caution())
    }
}
