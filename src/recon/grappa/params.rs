//! Parameters of GRAPPA.

use serde::{Deserialize, Serialize};

use crate::recon::error::ReconError;
use crate::recon::params::require;
use crate::recon::tikhonov::Lambda;

/// Where the weights are applied.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Apply {
    /// In the image where that is possible (2D, adaptive combination), in k-space otherwise.
    #[default]
    Auto,
    /// Fill the missing lines; measured samples stay as they are, bit for bit.
    Kspace,
    /// Unmix folded images: several times faster, and k-space is never filled.
    Image,
}

/// How much each calibration equation counts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// One over the energy of its sources, in 3D over the root of it: the few samples around DC do not rule.
    #[default]
    Energy,
    /// All the same, as in the paper.
    None,
}

/// GRAPPA.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GrappaParams {
    /// Window along the readout, samples, odd, 1 to 15.
    pub window_ro: usize,
    /// Window along the first phase-encoding axis, measured lines, 2 to 12; by default 2, or 3 in 3D with 16 x 16
    /// calibration lines or more. Where pe1 is not accelerated but pe2 is, the next odd number is used.
    pub window_pe1: Option<usize>,
    /// Likewise along the second phase-encoding axis; used for 3D only.
    pub window_pe2: Option<usize>,
    /// Samples along the readout, around DC, that calibrate: no fewer than the window's and no fewer than give one
    /// equation per unknown; 0 takes all that were measured.
    pub calibration_ro: usize,
    /// How much each calibration equation counts: `energy` or `none`.
    pub weighting: Weighting,
    /// Tikhonov regularisation: `"auto"`, or a number relative to the mean diagonal of the normal matrix, 0 to 1.
    /// `"auto"` puts noise and signal into the proportion that they have in the lines that are missing.
    pub lambda: Lambda,
    /// `auto`, `kspace` or `image`.
    pub apply: Apply,
}

impl Default for GrappaParams {
    fn default() -> Self {
        Self {
            window_ro: 5,
            window_pe1: None,
            window_pe2: None,
            calibration_ro: 24,
            weighting: Weighting::Energy,
            lambda: Lambda::Auto,
            apply: Apply::Auto,
        }
    }
}

impl GrappaParams {
    pub(crate) fn check(&self) -> Result<(), ReconError> {
        require(
            self.window_ro % 2 == 1 && self.window_ro <= 15,
            "grappa.window_ro",
            self.window_ro,
            "odd, 1 to 15",
        )?;
        for (key, lines) in [
            ("grappa.window_pe1", self.window_pe1),
            ("grappa.window_pe2", self.window_pe2),
        ] {
            if let Some(lines) = lines {
                require((2..=12).contains(&lines), key, lines, "2 to 12")?;
            }
        }
        require(
            match self.lambda {
                Lambda::Auto => true,
                Lambda::Fixed(lambda) => (0.0..=1.0).contains(&lambda),
            },
            "grappa.lambda",
            self.lambda,
            "\"auto\", or 0 to 1",
        )
    }
}
