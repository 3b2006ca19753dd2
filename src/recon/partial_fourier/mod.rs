//! Partial Fourier: what to do where one side of k-space was not measured.

use serde::{Deserialize, Serialize};

use super::error::ReconError;
use super::params::require;

/// Treatment of the side that was not measured.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PartialFourierMethod {
    /// POCS where the symmetric part is wide enough for a phase estimate, else zero filling; the choice is noted.
    #[default]
    Auto,
    /// Zeros, with a smooth edge towards them.
    ZeroFill,
    /// Weighted real part after removing the phase of the symmetric centre; one axis only.
    Homodyne,
    /// Projections onto measured data and phase of the symmetric centre.
    Pocs,
}

/// Partial Fourier.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PartialFourierParams {
    /// `auto`, `zero_fill`, `homodyne` or `pocs`.
    pub method: PartialFourierMethod,
    /// Iterations of POCS, 1 to 200.
    pub iterations: usize,
    /// Width of the smooth edge between measured and not measured samples, in samples, 0 to 64.
    pub transition: usize,
}

impl Default for PartialFourierParams {
    fn default() -> Self {
        Self {
            method: PartialFourierMethod::Auto,
            iterations: 12,
            transition: 4,
        }
    }
}

impl PartialFourierParams {
    pub(crate) fn check(&self) -> Result<(), ReconError> {
        require(
            (1..=200).contains(&self.iterations),
            "partial_fourier.iterations",
            self.iterations,
            "1 to 200",
        )?;
        require(
            self.transition <= 64,
            "partial_fourier.transition",
            self.transition,
            "0 to 64",
        )
    }
}
