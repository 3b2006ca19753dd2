//! K-space in, image out.
//!
//! `Frame` -> `ReconImage`: coil compression, parallel imaging (GRAPPA, SENSE) or plain Fourier transform, coil
//! combination, partial Fourier, k-space filter, interpolation to the image's matrix, and the noise of every voxel
//! all along the way. Knows `data`, `num` and `device`, no file and no pipeline.
//!
//! [`Recon::plan`] decides once per encoding and sampling pattern what will be done, and says why;
//! [`Recon::run`] does it for every frame with that pattern.

pub(crate) mod acs;
pub mod combine;
pub mod compress;
pub mod csm;
mod error;
pub mod filter;
pub mod grappa;
pub mod intensity;
pub mod interpolate;
mod params;
pub mod partial_fourier;
pub mod replica;
pub mod sampling;
pub mod sense;

pub use error::ReconError;
pub use params::{Method, OutputParams, ReconParams};

use crate::data::{Frame, ReconImage, Scan};
use crate::device::{Device, Recipe};

/// A planned reconstruction: one encoding, one sampling pattern.
#[derive(Clone, Debug)]
pub struct Recon {
    recipes: Vec<Recipe>,
}

impl Recon {
    /// Decides method, shapes and scratch for frames that are sampled like `frame`.
    ///
    /// # Errors
    /// [`ReconError::Parameter`], [`ReconError::NoEncoding`], [`ReconError::NoLines`],
    /// [`ReconError::Calibration`], [`ReconError::Pattern`].
    pub fn plan(
        _scan: &Scan,
        _frame: &Frame,
        params: &ReconParams,
        _device: &Device,
    ) -> Result<Self, ReconError> {
        params.check()?;
        Ok(Self {
            recipes: Vec::new(),
        })
    }

    /// What was decided and why, in the order in which it runs.
    pub fn recipes(&self) -> &[Recipe] {
        &self.recipes
    }

    /// Reconstructs one frame.
    ///
    /// # Errors
    /// [`ReconError::PatternChanged`] when the frame is not sampled as planned; numerical failures.
    pub fn run(&self, _frame: &Frame) -> Result<ReconImage, ReconError> {
        Err(ReconError::Bug("the reconstruction is being built".into()))
    }
}
