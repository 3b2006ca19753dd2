//! Surface-coil intensity correction: divides the image (and its noise) by a smooth estimate of the receive profile.
//!
//! Off by default; where it is on, the image carries a note, since voxel values no longer compare across the image
//! in the units of the scanner. The image in SNR units is unchanged, since signal and noise are divided alike.

use serde::{Deserialize, Serialize};

use super::error::ReconError;
use super::params::require;

/// Intensity correction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IntensityParams {
    /// Whether to correct.
    pub enabled: bool,
    /// Full width of the smoothing, as a share of the field of view, 0.02 to 1.
    pub width: f64,
    /// Largest gain relative to the gain at the brightest place, 1 to 1000: keeps air from being blown up.
    pub max_gain: f64,
}

impl Default for IntensityParams {
    fn default() -> Self {
        Self {
            enabled: false,
            width: 0.2,
            max_gain: 20.0,
        }
    }
}

impl IntensityParams {
    pub(crate) fn check(&self) -> Result<(), ReconError> {
        require(
            (0.02..=1.0).contains(&self.width),
            "intensity_correction.width",
            self.width,
            "0.02 to 1",
        )?;
        require(
            (1.0..=1000.0).contains(&self.max_gain),
            "intensity_correction.max_gain",
            self.max_gain,
            "1 to 1000",
        )
    }
}
