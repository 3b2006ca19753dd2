//! Parameters of GRAPPA.

use serde::{Deserialize, Serialize};

use crate::recon::error::ReconError;
use crate::recon::params::require;

/// Where the weights are applied.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Apply {
    /// In k-space: the error is smaller (every measured line is used).
    #[default]
    Auto,
    /// Fill the missing lines; measured samples stay as they are, bit for bit.
    Kspace,
    /// Unmix folded images; faster, the measured calibration lines outside the pattern are not used as data.
    Image,
}

/// GRAPPA.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GrappaParams {
    /// Window along the readout, samples, odd, 1 to 15.
    pub window_ro: usize,
    /// Window along the first phase-encoding axis, measured lines, 2 to 12 (even is usual). Where pe1 is not
    /// accelerated but pe2 is, the next odd number is used.
    pub window_pe1: usize,
    /// Likewise along the second phase-encoding axis; used for 3D only.
    pub window_pe2: usize,
    /// Tikhonov regularisation relative to the mean diagonal of the normal matrix, 0 to 1.
    pub lambda: f64,
    /// `auto`, `kspace` or `image`.
    pub apply: Apply,
}

impl Default for GrappaParams {
    fn default() -> Self {
        Self {
            window_ro: 5,
            window_pe1: 4,
            window_pe2: 2,
            lambda: 1e-3,
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
        require(
            (2..=12).contains(&self.window_pe1),
            "grappa.window_pe1",
            self.window_pe1,
            "2 to 12",
        )?;
        require(
            (2..=12).contains(&self.window_pe2),
            "grappa.window_pe2",
            self.window_pe2,
            "2 to 12",
        )?;
        require(
            (0.0..=1.0).contains(&self.lambda),
            "grappa.lambda",
            self.lambda,
            "0 to 1",
        )
    }
}
