//! Images in, the same images with less noise out; what was taken away and how far off the rest may be come along.
//!
//! A network of the contract in `scripts/train/README.md` sees a plane with its neighbours and the noise of every voxel.
//! `strength` mixes: `out = in + strength (network - in)`. What was removed is kept and must look like noise
//! ([`guard`]); an image of which that is not true says so. Knows one image at a time and no scan.

mod error;
pub mod guard;
mod params;

pub use error::DenoiseError;
pub use params::DenoiseParams;

use std::sync::Arc;

use num_complex::Complex32;

use crate::data::{Denoised, Note, ReconImage, Step};
pub use crate::model::Beside;
use crate::model::{Denoiser, Model};
use guard::Residual;

/// The planned stage.
#[derive(Clone, Debug)]
pub struct Denoise {
    network: Denoiser,
    params: DenoiseParams,
}

impl Denoise {
    /// Checks the parameters, and that the network is a denoiser.
    ///
    /// # Errors
    /// [`DenoiseError::Params`], [`DenoiseError::Model`].
    pub fn plan(params: &DenoiseParams, model: Arc<Model>) -> Result<Self, DenoiseError> {
        params.check()?;
        Ok(Self {
            network: Denoiser::new(model)?,
            params: params.clone(),
        })
    }

    /// Whether the network looks at neighbours.
    pub fn wants_neighbours(&self) -> bool {
        self.network.wants_neighbours()
    }

    /// Denoises an image in place. `noise_std` stays that of the measurement; `denoised` is set; provenance gets a step and
    /// its marks.
    ///
    /// # Errors
    /// The image is as it was: [`DenoiseError::NoNoise`], [`DenoiseError::NotComplex`], [`DenoiseError::Shape`] of a
    /// neighbour, [`DenoiseError::Model`], [`DenoiseError::NotFinite`].
    pub fn run(&self, image: &mut ReconImage, beside: Beside<'_>) -> Result<(), DenoiseError> {
        let [nx, ny, nz] = image.geometry.matrix;
        let n = nx * ny;
        let noise = image.noise_std.as_deref().ok_or(DenoiseError::NoNoise)?;
        let is_magnitude = |v: &Complex32| v.im == 0.0 && v.re >= 0.0;
        if image.voxels.iter().all(is_magnitude) {
            return Err(DenoiseError::NotComplex);
        }
        for plane in [beside.before, beside.after].into_iter().flatten() {
            if plane.len() != n {
                return Err(DenoiseError::Shape {
                    found: plane.len(),
                    needed: n,
                });
            }
        }
        if !noise.iter().any(|s| *s > 0.0) {
            return Err(DenoiseError::NoNoise);
        }
        if image.denoised.is_some() {
            return Err(DenoiseError::Twice);
        }
        let answer =
            self.network
                .run(&image.voxels, [nz, ny, nx], noise, beside, self.params.tile)?;

        let strength = self.params.strength;
        let mut removed = vec![Complex32::ZERO; n * nz];
        let mut sigma = vec![0.0; n * nz];
        for (i, (out, sigma)) in removed.iter_mut().zip(&mut sigma).enumerate() {
            if noise[i] > 0.0 {
                *out = (image.voxels[i] - answer.voxels[i]) * strength;
                // Error of a mean is at most the mean of the errors.
                *sigma = (1.0 - strength) * noise[i] + strength * answer.sigma[i];
            }
        }
        let is_finite = |v: &Complex32| v.re.is_finite() && v.im.is_finite();
        let count = removed.iter().filter(|v| !is_finite(v)).count()
            + sigma.iter().filter(|s| !s.is_finite()).count();
        if count > 0 {
            return Err(DenoiseError::NotFinite { count });
        }
        let residual = Residual::of(&removed, image, strength);
        for (v, r) in image.voxels.iter_mut().zip(&removed) {
            *v -= r;
        }
        image.denoised = Some(Denoised { removed, sigma });
        self.mark(image, &residual, beside);
        Ok(())
    }

    fn mark(&self, image: &mut ReconImage, residual: &Residual, beside: Beside<'_>) {
        let model = self.network.model();
        let manifest = model.manifest();
        let strength = self.params.strength;
        let provenance = &mut image.provenance;
        provenance.steps.push(Step {
            op: "denoise/network".to_owned(),
            backend: "cpu",
            detail: format!(
                "{} on {}, strength {strength}; {residual}",
                manifest.id(),
                model.runtime()
            ),
        });
        provenance.notes.push(Note::new(
            "denoised",
            format!(
                "by the network {} at strength {strength}; noise_std and snr are those of the measurement",
                manifest.id()
            ),
        ));
        let n_beside = usize::from(beside.before.is_some()) + usize::from(beside.after.is_some());
        if self.wants_neighbours() && n_beside == 0 && image.geometry.matrix[2] == 1 {
            provenance.notes.push(Note::new(
                "denoised_alone",
                "no neighbouring slice was at hand: the slice itself stood for it",
            ));
        }
        if image.finer.iter().any(|f| *f > 1.7) {
            provenance.notes.push(Note::new(
                "denoised_interpolated",
                format!(
                    "the image is interpolated by {:?} (x, y, z): its noise is smoother than what the network was trained on",
                    image.finer
                ),
            ));
        }
        if let Some(what) = residual.structure(self.params.structure_limit) {
            provenance.notes.push(Note::new("denoise_structured", what));
        }
    }
}

#[cfg(test)]
mod tests;
