//! Unrolled reconstruction: SENSE, then cascades of a denoiser and of what was measured.
//!
//! `x_0` is SENSE with its own noise map. A cascade is `z = D(x_k, noise_k)`, with the network's prediction `s` of the error of
//! `z`, then the image nearest to both the lines and `z` (`Sense::between`): where little is measured the network
//! speaks, where much is measured the lines do. All in standard deviations of the noise, with the engine's own operator.
//! The network was trained through the cascades (after Aggarwal, TMI 38:394, 2019: one network for all of them, data consistency by
//! conjugate gradients; sigma conditioning after Zhang, TPAMI 44:6360, 2022): `scripts/train/unrolled.py`. One that was trained
//! by itself fits the same place (plug and play: Venkatakrishnan, GlobalSIP 2013).

use std::sync::Arc;

use num_complex::Complex32;
use serde::{Deserialize, Serialize};

use super::error::ReconError;
use super::params::require;
use super::sense::Sense;
use crate::data::{Csm, KSpace};
use crate::model::{Beside, Denoiser};

/// Share of the standard deviation of what is left after a cascade that looks like noise to the next one: its error is that of the
/// network where nothing was measured, and smooth there.
const STILL_NOISE: f32 = 0.7;

/// Cascades of a network that was not trained through them: more of them take what the lines do not hold for noise.
const PLUG_AND_PLAY: usize = 2;

/// Unrolled reconstruction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UnrolledParams {
    /// The network: the name of one that ships ("unrolled", "denoiser"), or the path of a manifest (`model.toml`) of the same contract.
    pub model: String,
    /// Times that network and data consistency follow each other, 1 to 6; 0: as often as in the network's training, or 2 if it
    /// was not trained through them.
    pub cascades: usize,
    /// Tikhonov weight of the SENSE image that it begins with, as `sense.lambda`; small: a smoothed start hides its noise.
    pub start_lambda: f32,
    /// Largest plane that goes through the network in one piece, voxels along a side, 128 to 4096.
    pub tile: usize,
}

impl Default for UnrolledParams {
    fn default() -> Self {
        Self {
            model: "unrolled".to_owned(),
            cascades: 0,
            start_lambda: 3e-3,
            tile: 512,
        }
    }
}

impl UnrolledParams {
    pub(crate) fn check(&self) -> Result<(), ReconError> {
        require(
            self.cascades <= 6,
            "unrolled.cascades",
            self.cascades,
            "0 to 6",
        )?;
        require(
            (128..=4096).contains(&self.tile),
            "unrolled.tile",
            self.tile,
            "128 to 4096",
        )?;
        let is_small = (0.0..=1.0).contains(&self.start_lambda);
        require(
            is_small,
            "unrolled.start_lambda",
            self.start_lambda,
            "0 to 1",
        )
    }
}

/// The network of a plan, or why there is none.
pub type Network = Result<Arc<Denoiser>, String>;

/// What the cascades made of a SENSE image, `[z, y, x]`.
pub(crate) struct Unrolled {
    pub(crate) voxels: Vec<Complex32>,
    /// Predicted standard deviation of the error, per part.
    pub(crate) sigma: Vec<f32>,
    /// How many cascades it were.
    pub(crate) n_cascades: usize,
    /// Distance of the lines from the image, per part, in standard deviations of their noise: 1 if all that is left is noise.
    pub(crate) distance: f64,
}

/// Runs the cascades. `noise` is that of `start`, `[z, y, x]` of `grid`; 0 where the maps are zero.
pub(crate) fn run(
    network: &Denoiser,
    params: &UnrolledParams,
    sense: &Sense,
    (kspace, csm): (&KSpace, &Csm),
    (start, noise): (&[Complex32], &[f32]),
    grid: [usize; 3],
) -> Result<Unrolled, ReconError> {
    let mut voxels = start.to_vec();
    let mut level = noise.to_vec();
    let mut sigma = Vec::new();
    let trained = network.model().manifest().cascades;
    let n_cascades = match params.cascades {
        0 => trained.map_or(PLUG_AND_PLAY, |c| c.n),
        n => n,
    };
    for _ in 0..n_cascades {
        let answer = network
            .run(&voxels, grid, &level, Beside::default(), params.tile)
            .map_err(|e| ReconError::Network(e.to_string()))?;
        let is_finite = |v: &Complex32| v.re.is_finite() && v.im.is_finite();
        if !answer.voxels.iter().all(is_finite) || !answer.sigma.iter().all(|s| s.is_finite()) {
            return Err(ReconError::Network(
                "its answer is NaN or infinite".to_owned(),
            ));
        }
        // Nothing is known where nothing is measured.
        let own = answer.sigma.iter().zip(noise);
        let error: Vec<f32> = own.map(|(s, n)| if *n > 0.0 { *s } else { 0.0 }).collect();
        voxels = sense.between(kspace, csm, &answer.voxels, &error)?;
        // Two estimates of independent errors.
        let both = |s: f32, n: f32| {
            if s > 0.0 && n > 0.0 {
                s * n / s.hypot(n)
            } else {
                0.0
            }
        };
        sigma = error.iter().zip(noise).map(|(s, n)| both(*s, *n)).collect();
        level = sigma.iter().map(|s| STILL_NOISE * s).collect();
    }
    if let Some(trained) = trained {
        sigma.iter_mut().for_each(|s| *s *= trained.sigma_ratio);
    }
    Ok(Unrolled {
        n_cascades,
        distance: sense.distance(kspace, csm, &voxels),
        voxels,
        sigma,
    })
}
