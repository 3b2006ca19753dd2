//! Coil compression: many receive coils -> few virtual ones, noise kept white.
//!
//! `KSpace` -> `KSpace` with fewer coils, by a unitary matrix (SVD) or one per readout position (geometric), both
//! calculated from the calibration block.
//!
//! # Source
//! Buehrer et al., Magn Reson Med 57:1131-1139 (2007), doi:10.1002/mrm.21237 (SVD). Zhang et al., Magn Reson Med
//! 69:571-582 (2013), doi:10.1002/mrm.24267 (geometric, aligned along the readout).

pub(crate) mod apply;

use serde::{Deserialize, Serialize};

use super::acs;
use super::error::ReconError;
use super::params::require;
use crate::data::{Calibration, Frame};

/// How coils are compressed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum CompressMethod {
    /// Keep every coil.
    #[default]
    None,
    /// One matrix for all of k-space.
    Svd,
    /// One matrix per readout position, aligned from position to position: fewer virtual coils for the same energy.
    Geometric,
}

/// Coil compression.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CompressParams {
    /// `none`, `svd` or `geometric`.
    pub method: CompressMethod,
    /// Virtual coils to keep, 1 to 1024; 0: as many as `energy` asks for. More than there are coils means all.
    pub n_virtual: usize,
    /// Share of the calibration signal's energy to keep when `n_virtual` is 0; above 0, at most 1.
    pub energy: f64,
}

impl Default for CompressParams {
    fn default() -> Self {
        Self {
            method: CompressMethod::None,
            n_virtual: 0,
            energy: 0.999,
        }
    }
}

impl CompressParams {
    pub(crate) fn check(&self) -> Result<(), ReconError> {
        require(
            self.n_virtual <= 1024,
            "compress.n_virtual",
            self.n_virtual,
            "0 to 1024",
        )?;
        require(
            self.energy > 0.0 && self.energy <= 1.0,
            "compress.energy",
            self.energy,
            "above 0, at most 1",
        )
    }
}

/// The frame with virtual coils, calibrated from its own lines and its reference.
///
/// # Errors
/// * [`ReconError::Parameter`]: a parameter is outside its range.
/// * [`ReconError::Singular`]: samples that are not finite.
pub fn compress(frame: &Frame, params: &CompressParams) -> Result<Frame, ReconError> {
    params.check()?;
    let (block, origin) = acs::locate(frame, Calibration::Unstated);
    let compression = apply::Compression::new(&acs::cut(frame, &block, origin), params);
    let singular = |e: crate::num::linalg::LinalgError| ReconError::Singular {
        method: "coil compression",
        detail: e.to_string(),
        key: "compress.method",
    };
    Ok(compression.map_err(singular)?.run(frame))
}
