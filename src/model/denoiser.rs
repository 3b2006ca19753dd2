//! A network of the kind `denoiser` (contract in `scripts/train/README.md`): planes of complex voxels with known noise in, the same
//! with less noise and its predicted error out.

use std::sync::Arc;

use num_complex::Complex32;

use super::{Dim, Input, Manifest, Model, ModelError, Port, Tiles};

/// What a network's answer depends on around a voxel, voxels: tiles overlap by twice this.
const MARGIN: usize = 48;
/// Voxels of all planes and tiles that go through the network at once.
const BATCH_VOXELS: usize = 1 << 18;

/// A network that was found to be a denoiser.
#[derive(Clone, Debug)]
pub struct Denoiser {
    model: Arc<Model>,
    n_slices: usize,
}

/// Planes next to those of a stack, `[y, x]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// The plane before the first.
    pub before: Option<&'a [Complex32]>,
    /// The plane behind the last.
    pub after: Option<&'a [Complex32]>,
}

/// What comes out, `[z, y, x]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Voxels with less noise.
    pub voxels: Vec<Complex32>,
    /// Standard deviation of the error that is left, per part, as predicted.
    pub sigma: Vec<f32>,
}

impl Denoiser {
    /// Checks that a network is a denoiser.
    ///
    /// # Errors
    /// [`ModelError::Contract`].
    pub fn new(model: Arc<Model>) -> Result<Self, ModelError> {
        let n_slices = contract(model.manifest())?;
        Ok(Self { model, n_slices })
    }

    /// The network.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Whether it looks at neighbouring planes.
    pub fn wants_neighbours(&self) -> bool {
        self.n_slices > 1
    }

    /// Every plane of `[z, y, x]`, in batches, in tiles of at most `most` voxels along a side. Where `noise` (standard
    /// deviation per part) is 0 nothing is measured: the answer there means nothing.
    ///
    /// # Errors
    /// [`ModelError::Run`], also where no voxel has noise; [`ModelError::Shape`].
    pub fn run(
        &self,
        voxels: &[Complex32],
        [nz, ny, nx]: [usize; 3],
        noise: &[f32],
        beside: Beside<'_>,
        most: usize,
    ) -> Result<Answer, ModelError> {
        let n = nx * ny;
        let level = median_of_positive(noise).ok_or_else(|| ModelError::Run {
            model: self.model.manifest().id(),
            what: "no voxel has noise".to_owned(),
        })?;
        // Where nothing is measured neither signal nor noise passes.
        let gfactor: Vec<f32> = noise
            .iter()
            .map(|s| if *s > 0.0 { s / level } else { 1.0 })
            .collect();
        let slices = Slices::split(voxels, n, beside);
        let multiple = self.model.manifest().size_multiple;
        let tiles = Tiles::cut([ny, nx], most, multiple, MARGIN);
        let jobs: Vec<(usize, usize)> = (0..nz)
            .flat_map(|z| (0..tiles.tiles.len()).map(move |t| (z, t)))
            .collect();
        let mut parts = vec![0.0; 2 * n * nz];
        let mut sigma_of_all = vec![0.0; n * nz];
        let half = self.n_slices / 2;
        let mut begin = 0;
        while begin < jobs.len() {
            let size = tiles.tiles[jobs[begin].1].size();
            let [h, w] = size;
            let at_once = (BATCH_VOXELS / (h * w)).max(1);
            let same = jobs[begin..]
                .iter()
                .take(at_once)
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
                return Err(ModelError::Run {
                    model: self.model.manifest().id(),
                    what: format!("{} outputs; needed: denoised, sigma", answer.len()),
                });
            };
            for (b, &(z, t)) in batch.iter().enumerate() {
                let tile = &tiles.tiles[t];
                for part in 0..2 {
                    tiles.write(
                        tile,
                        &denoised.data[(2 * b + part) * h * w..],
                        &mut parts[(2 * z + part) * n..][..n],
                    );
                }
                tiles.write(
                    tile,
                    &sigma.data[b * h * w..],
                    &mut sigma_of_all[z * n..][..n],
                );
            }
        }
        let voxel = |i: usize| {
            let at = 2 * (i / n) * n + i % n;
            Complex32::new(parts[at], parts[at + n])
        };
        Ok(Answer {
            voxels: (0..n * nz).map(voxel).collect(),
            sigma: sigma_of_all,
        })
    }
}

/// Real and imaginary parts of planes.
struct Slices {
    before: Option<[Vec<f32>; 2]>,
    own: Vec<[Vec<f32>; 2]>,
    after: Option<[Vec<f32>; 2]>,
}

impl Slices {
    /// Planes of `n` voxels.
    fn split(voxels: &[Complex32], n: usize, beside: Beside<'_>) -> Self {
        let parts = |plane: &[Complex32]| {
            [
                plane.iter().map(|v| v.re).collect(),
                plane.iter().map(|v| v.im).collect(),
            ]
        };
        Self {
            before: beside.before.map(parts),
            own: voxels.chunks_exact(n.max(1)).map(parts).collect(),
            after: beside.after.map(parts),
        }
    }

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

/// The contract of a denoiser; how many slices it looks at.
fn contract(manifest: &Manifest) -> Result<usize, ModelError> {
    let wrong = |what: String| ModelError::Contract {
        model: manifest.id(),
        what,
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
    let shape = |of: &std::collections::BTreeMap<String, Port>, name: &str| {
        of.get(name).map(|p| p.shape.clone())
    };
    let names = |of: &std::collections::BTreeMap<String, Port>| {
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
