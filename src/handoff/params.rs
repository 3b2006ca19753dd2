//! What a protocol or the command line may choose about the hand-off.

use serde::{Deserialize, Serialize};

use super::HandoffError;
use crate::data::SyntheticKind;

/// What a voxel of an output says. Each becomes its own series, file or image group.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// `|voxel|`, in the unit of the reconstruction (noise standard deviations when the scan was whitened).
    Magnitude,
    /// Argument of the voxel in radians, −π to π.
    Phase,
    /// Real part.
    Real,
    /// Imaginary part.
    Imag,
    /// The complex voxel itself (not for DICOM and PNG).
    Complex,
    /// `|voxel| / noise_std`: dimensionless. The noise is per component (real part, imaginary part).
    Snr,
    /// Noise amplification by parallel imaging, at least 1.
    Gfactor,
    /// Standard deviation of the noise in the real and in the imaginary part.
    NoiseStd,
    /// Standard deviation of the error that a denoised image still has in its real and in its imaginary part, or a synthetic
    /// one has, as the network predicts it.
    Sigma,
    /// 1 where the network of a synthetic image abstains, else 0.
    Abstention,
    /// Probability of bone, 0 to 1, beside a synthetic CT.
    Bone,
    /// How far a slice of a synthetic image lies from what its network was trained on; above 1 it is outside.
    Domain,
    /// What denoising took away: the image as measured minus the image as it is (not for DICOM and PNG).
    Removed,
    /// Coil sensitivity maps (`.h5`, `.npy`, `.cfl`).
    Csm,
}

impl Quantity {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 14] = [
        Self::Magnitude,
        Self::Phase,
        Self::Real,
        Self::Imag,
        Self::Complex,
        Self::Snr,
        Self::Gfactor,
        Self::NoiseStd,
        Self::Sigma,
        Self::Abstention,
        Self::Bone,
        Self::Domain,
        Self::Removed,
        Self::Csm,
    ];

    /// The name in protocols, file suffixes and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Magnitude => "magnitude",
            Self::Phase => "phase",
            Self::Real => "real",
            Self::Imag => "imag",
            Self::Complex => "complex",
            Self::Snr => "snr",
            Self::Gfactor => "gfactor",
            Self::NoiseStd => "noise_std",
            Self::Sigma => "sigma",
            Self::Abstention => "abstention",
            Self::Bone => "bone",
            Self::Domain => "domain",
            Self::Removed => "removed",
            Self::Csm => "csm",
        }
    }

    /// Suffix of file names: nothing for the magnitude, else `_` and the name.
    pub(super) fn suffix(self) -> String {
        match self {
            Self::Magnitude => String::new(),
            _ => format!("_{}", self.name()),
        }
    }

    /// Whether only a synthetic image has it.
    #[cfg(test)]
    pub(super) fn is_of_synthetic(self) -> bool {
        matches!(self, Self::Abstention | Self::Bone | Self::Domain)
    }

    /// Whether a voxel is a complex number.
    pub(super) fn is_complex(self) -> bool {
        matches!(self, Self::Complex | Self::Removed | Self::Csm)
    }
}

/// Which DICOM objects carry a series.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum DicomKind {
    /// A folder gets classic objects; a single `.dcm` gets a classic object for one slice, else an Enhanced one.
    #[default]
    Auto,
    /// MR Image Storage: one file per slice.
    Classic,
    /// Enhanced MR Image Storage: one multi-frame file per series.
    Enhanced,
}

/// DICOM keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DicomParams {
    /// Classic or Enhanced objects.
    pub kind: DicomKind,
    /// Series number of the first quantity; the others count on from it.
    /// 0: the header's initial series number times 100, or 9000 without one, so that no scanner series collides.
    pub series_number: u32,
}

/// PNG keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PngParams {
    /// Tiles in a row; 0 picks a sheet that is about as wide as high.
    pub columns: usize,
}

/// Keys of `[handoff]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HandoffParams {
    /// What is written; one series, file or image group each.
    pub quantities: Vec<Quantity>,
    /// Replace files that exist (atomically, after the new ones are complete). A DICOM folder is replaced only if
    /// nothing but earlier hand-offs is in it.
    pub overwrite: bool,
    /// Grey window of PNG sheets and DICOM, as percentiles of the voxel values of the whole series.
    pub window_percentiles: [f32; 2],
    /// DICOM keys.
    pub dicom: DicomParams,
    /// PNG keys.
    pub png: PngParams,
}

impl Default for HandoffParams {
    fn default() -> Self {
        Self {
            quantities: vec![Quantity::Magnitude],
            overwrite: false,
            window_percentiles: [0.5, 99.5],
            dicom: DicomParams::default(),
            png: PngParams::default(),
        }
    }
}

impl HandoffParams {
    /// What is written of a synthetic image: itself, its error, where it abstains, and bone beside a CT.
    pub fn of_synthetic(&self, kind: SyntheticKind) -> Self {
        let mut quantities = vec![Quantity::Magnitude, Quantity::Sigma, Quantity::Abstention];
        if kind == SyntheticKind::Ct {
            quantities.push(Quantity::Bone);
        }
        Self {
            quantities,
            ..self.clone()
        }
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`HandoffError::Params`] names the key, what was found and what is allowed.
    pub fn check(&self) -> Result<(), HandoffError> {
        if self.quantities.is_empty() {
            return Err(HandoffError::Params {
                key: "quantities",
                found: "an empty list".into(),
                needed: "at least one of magnitude, phase, real, imag, complex, snr, gfactor, noise_std, csm",
            });
        }
        let mut sorted = self.quantities.clone();
        sorted.sort();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(HandoffError::Params {
                key: "quantities",
                found: format!("{} twice", pair[0].name()),
                needed: "each quantity once",
            });
        }
        let [low, high] = self.window_percentiles;
        if !(0.0 <= low && low < high && high <= 100.0) {
            return Err(HandoffError::Params {
                key: "window_percentiles",
                found: format!("[{low}, {high}]"),
                needed: "0 <= low < high <= 100",
            });
        }
        Ok(())
    }
}
