//! Coil combination: many coil images -> one complex image with unit noise gain.

pub(crate) mod low_res;

use serde::{Deserialize, Serialize};

use super::error::ReconError;
use super::params::require;

/// How coil images become one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum CombineMethod {
    /// Matched filter from the low-resolution coil images of the k-space centre: unit noise gain, needs no maps.
    #[default]
    Adaptive,
    /// Sensitivity maps of `csm`: unit noise gain.
    Csm,
    /// Root sum of squares: magnitude only, biased where there is only noise.
    Rss,
}

/// Coil combination.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CombineParams {
    /// `adaptive`, `csm` or `rss`.
    pub method: CombineMethod,
    /// Samples of the k-space centre, per axis, that the low-resolution coil images of `adaptive` are made of,
    /// 4 to 128; less where the calibration block is smaller.
    pub centre: usize,
}

impl Default for CombineParams {
    fn default() -> Self {
        Self {
            method: CombineMethod::Adaptive,
            centre: 32,
        }
    }
}

impl CombineParams {
    pub(crate) fn check(&self) -> Result<(), ReconError> {
        require(
            (4..=128).contains(&self.centre),
            "combine.centre",
            self.centre,
            "4 to 128",
        )
    }
}
