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
use crate::model::{Dim, Input, Manifest, Model, Tiles};
use guard::Residual;

/// What a network's answer depends on around a voxel, voxels: tiles overlap by twice this.
const MARGIN: usize = 48;
/// Voxels of all planes and tiles that go through the network at once.
const BATCH_VOXELS: usize = 1 << 18;

/// A network that was found to be a denoiser.
#[derive(Clone, Debug)]
pub struct Denoise {
    model: Arc<Model>,
    params: DenoiseParams,
    n_slices: usize,
}

/// Planes next to an image's own, as measured: `[y, x]` of its matrix.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// The plane before the first.
    pub before: Option<&'a [Complex32]>,
    /// The plane behind the last.
    pub after: Option<&'a [Complex32]>,
}

impl Denoise {
    /// Checks the parameters, and that the network is a denoiser.
    ///
    /// # Errors
    /// [`DenoiseError::Params`], [`DenoiseError::Contract`].
    pub fn plan(params: &DenoiseParams, model: Arc<Model>) -> Result<Self, DenoiseError> {
        params.check()?;
        let n_slices = contract(model.manifest())?;
        Ok(Self {
            model,
            params: params.clone(),
            n_slices,
        })
    }

    /// Whether the network looks at neighbours.
    pub fn wants_neighbours(&self) -> bool {
        self.n_slices > 1
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
        let level = median_of_positive(noise).ok_or(DenoiseError::NoNoise)?;
        let answers = self.through_the_network(image, noise, level, beside)?;

        let strength = self.params.strength;
        let mut removed = vec![Complex32::ZERO; n * nz];
        let mut sigma = vec![0.0; n * nz];
        for (i, (out, sigma)) in removed.iter_mut().zip(&mut sigma).enumerate() {
            let (plane, at) = (i / n, i % n);
            let network = Complex32::new(
                answers.denoised[2 * plane * n + at],
                answers.denoised[(2 * plane + 1) * n + at],
            );
            if noise[i] > 0.0 {
                *out = (image.voxels[i] - network) * strength;
                // Error of a mean is at most the mean of the errors.
                *sigma = (1.0 - strength) * noise[i] + strength * answers.sigma[i];
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
        let manifest = self.model.manifest();
        let strength = self.params.strength;
        let provenance = &mut image.provenance;
        provenance.steps.push(Step {
            op: "denoise/network".to_owned(),
            backend: "cpu",
            detail: format!(
                "{} on {}, strength {strength}; {residual}",
                manifest.id(),
                self.model.runtime()
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

    /// Every plane, in tiles, in batches.
    fn through_the_network(
        &self,
        image: &ReconImage,
        noise: &[f32],
        level: f32,
        beside: Beside<'_>,
    ) -> Result<Answers, DenoiseError> {
        let [nx, ny, nz] = image.geometry.matrix;
        let n = nx * ny;
        // Where nothing is measured neither signal nor noise passes.
        let gfactor: Vec<f32> = noise
            .iter()
            .map(|s| if *s > 0.0 { s / level } else { 1.0 })
            .collect();
        let slices = self.split(image, beside);
        let multiple = self.model.manifest().size_multiple;
        let tiles = Tiles::cut([ny, nx], self.params.tile, multiple, MARGIN);
        let jobs: Vec<(usize, usize)> = (0..nz)
            .flat_map(|z| (0..tiles.tiles.len()).map(move |t| (z, t)))
            .collect();
        let mut out = Answers {
            denoised: vec![0.0; 2 * n * nz],
            sigma: vec![0.0; n * nz],
        };
        let half = self.n_slices / 2;
        let mut begin = 0;
        while begin < jobs.len() {
            let size = tiles.tiles[jobs[begin].1].size();
            let [h, w] = size;
            let most = (BATCH_VOXELS / (h * w)).max(1);
            let same = jobs[begin..]
                .iter()
                .take(most)
                .take_while(|(_, t)| tiles.tiles[*t].size() == size);
            let batch = &jobs[begin..begin + same.count()];
            begin += batch.len();
            let (mut planes, mut g) = (Vec::new(), Vec::new());
            for &(z, t) in batch {
                let tile = &tiles.tiles[t];
                for s in 0..self.n_slices {
                    // Beyond the stack the plane itself.
                    let at = (z + s).wrapping_sub(half);
                    let parts = slices.at(at).or(slices.at(z)).unwrap_or([&[]; 2]);
                    parts.iter().for_each(|p| tiles.read(tile, p, &mut planes));
                }
                tiles.read(tile, &gfactor[z * n..][..n], &mut g);
            }
            let answer = self.model.run(&[
                Input {
                    name: "image",
                    shape: &[batch.len(), 2 * self.n_slices, h, w],
                    data: &planes,
                },
                Input {
                    name: "gfactor",
                    shape: &[batch.len(), 1, h, w],
                    data: &g,
                },
                Input {
                    name: "noise",
                    shape: &[batch.len()],
                    data: &vec![level; batch.len()],
                },
            ])?;
            // In the order of their names: denoised, sigma.
            let [denoised, sigma] = answer.as_slice() else {
                return Err(DenoiseError::Contract {
                    what: format!("{} outputs; needed: denoised, sigma", answer.len()),
                });
            };
            for (b, &(z, t)) in batch.iter().enumerate() {
                let tile = &tiles.tiles[t];
                for part in 0..2 {
                    tiles.write(
                        tile,
                        &denoised.data[(2 * b + part) * h * w..],
                        &mut out.denoised[(2 * z + part) * n..][..n],
                    );
                }
                tiles.write(tile, &sigma.data[b * h * w..], &mut out.sigma[z * n..][..n]);
            }
        }
        Ok(out)
    }

    fn split(&self, image: &ReconImage, beside: Beside<'_>) -> Slices {
        let [nx, ny, _] = image.geometry.matrix;
        let parts = |plane: &[Complex32]| {
            [
                plane.iter().map(|v| v.re).collect(),
                plane.iter().map(|v| v.im).collect(),
            ]
        };
        Slices {
            before: beside.before.map(parts),
            own: image
                .voxels
                .chunks_exact((nx * ny).max(1))
                .map(parts)
                .collect(),
            after: beside.after.map(parts),
        }
    }
}

/// Real and imaginary parts of planes.
struct Slices {
    before: Option<[Vec<f32>; 2]>,
    own: Vec<[Vec<f32>; 2]>,
    after: Option<[Vec<f32>; 2]>,
}

impl Slices {
    /// Plane `z`; -1 (wrapped) is that before the first.
    fn at(&self, z: usize) -> Option<[&[f32]; 2]> {
        let plane = if z == usize::MAX {
            self.before.as_ref()
        } else if z == self.own.len() {
            self.after.as_ref()
        } else {
            self.own.get(z)
        };
        plane.map(|[re, im]| [re.as_slice(), im.as_slice()])
    }
}

/// `denoised` is `[z, part, y, x]`, `sigma` `[z, y, x]`.
struct Answers {
    denoised: Vec<f32>,
    sigma: Vec<f32>,
}

/// The contract of a denoiser; how many slices it looks at.
fn contract(manifest: &Manifest) -> Result<usize, DenoiseError> {
    let wrong = |what: String| DenoiseError::Contract {
        what: format!("{}: {what}", manifest.id()),
    };
    if manifest.kind != "denoiser" {
        return Err(wrong(format!(
            "kind = {:?}; needed: \"denoiser\"",
            manifest.kind
        )));
    }
    if manifest.tiny || !manifest.complete {
        return Err(wrong("its training was a trial or did not end".to_owned()));
    }
    let shape = |of: &std::collections::BTreeMap<String, crate::model::Port>, name: &str| {
        of.get(name).map(|p| p.shape.clone())
    };
    let names = |of: &std::collections::BTreeMap<String, crate::model::Port>| {
        of.keys().cloned().collect::<Vec<_>>().join(", ")
    };
    let channels = match shape(&manifest.inputs, "image").as_deref() {
        Some([Dim::Named(_), Dim::Fixed(c), Dim::Named(_), Dim::Named(_)]) if c % 4 == 2 => *c,
        found => {
            return Err(wrong(format!(
                "input image is {found:?}; needed: [n, 2 x slices, h, w] with an odd number of slices"
            )));
        }
    };
    let is_map = |shape: Option<Vec<Dim>>, c: usize| matches!(shape.as_deref(), Some([Dim::Named(_), Dim::Fixed(n), Dim::Named(_), Dim::Named(_)]) if *n == c);
    let is_right = manifest.inputs.len() == 3
        && is_map(shape(&manifest.inputs, "gfactor"), 1)
        && matches!(
            shape(&manifest.inputs, "noise").as_deref(),
            Some([Dim::Named(_)])
        )
        && manifest.outputs.len() == 2
        && is_map(shape(&manifest.outputs, "denoised"), 2)
        && is_map(shape(&manifest.outputs, "sigma"), 1);
    if !is_right {
        return Err(wrong(format!(
            "inputs {}, outputs {}; needed: image, gfactor [n, 1, h, w], noise [n]; denoised [n, 2, h, w], sigma [n, 1, h, w]",
            names(&manifest.inputs),
            names(&manifest.outputs)
        )));
    }
    Ok(channels / 2)
}

fn median_of_positive(values: &[f32]) -> Option<f32> {
    let mut positive: Vec<f32> = values
        .iter()
        .copied()
        .filter(|v| *v > 0.0 && v.is_finite())
        .collect();
    if positive.is_empty() {
        return None;
    }
    let middle = positive.len() / 2;
    Some(*positive.select_nth_unstable_by(middle, f32::total_cmp).1)
}

#[cfg(test)]
mod tests;
