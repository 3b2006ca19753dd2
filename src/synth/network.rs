//! The two networks of the stage as functions of slices: contract, batches, padding.

use std::sync::Arc;

use super::SynthError;
use crate::model::{Dim, Input, Model, ModelError, Tiles};

/// Pixels that go through a network at once.
const BATCH_PIXELS: usize = 1 << 18;
/// Largest plane that goes through in one piece, and by how much larger ones overlap.
const MOST: usize = 512;
const MARGIN: usize = 48;

/// Names of a network's inputs and outputs, with their channels; 0 channels is one number for each slice.
pub(super) struct Contract {
    pub(super) kind: &'static str,
    /// `[n, c]`, beside the planes `t1w` and `t2w`.
    pub(super) numbers: &'static [(&'static str, usize)],
    /// `[n, c, h, w]`, or `[n]`.
    pub(super) outputs: &'static [(&'static str, usize)],
    /// What `[limits]` of the manifest must state.
    pub(super) limits: &'static [&'static str],
}

/// STIR and T2FS.
pub(super) const FS: Contract = Contract {
    kind: "synth_fs",
    numbers: &[("noise", 2), ("sequence", 16)],
    outputs: &[
        ("stir", 1),
        ("stir_sigma", 1),
        ("t2fs", 1),
        ("t2fs_sigma", 1),
        ("maps", 4),
        ("mismatch", 2),
        ("domain", 0),
    ],
    limits: &["mismatch", "stir_sigma", "t2fs_sigma"],
};

/// CT.
pub(super) const CT: Contract = Contract {
    kind: "synth_ct",
    numbers: &[("noise", 2), ("geometry", 4)],
    outputs: &[("hu", 1), ("sigma", 1), ("bone", 1), ("domain", 0)],
    limits: &["hu_sigma"],
};

/// A network that keeps a contract.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) model: Arc<Model>,
    outputs: &'static [(&'static str, usize)],
}

/// What came out of one slice: maps in the order of the contract, `[c, y, x]`.
pub(super) struct Answer {
    maps: Vec<(&'static str, Vec<f32>)>,
    pub(super) domain: f32,
}

impl Answer {
    pub(super) fn take(&mut self, name: &str) -> Vec<f32> {
        let at = self.maps.iter().position(|(n, _)| *n == name);
        at.map(|i| std::mem::take(&mut self.maps[i].1))
            .unwrap_or_default()
    }
}

/// Two stacks of planes in units of their scale.
#[derive(Clone, Copy)]
pub(super) struct Planes<'a> {
    pub(super) t1w: &'a [f32],
    /// Zeros when absent.
    pub(super) t2w: &'a [f32],
    /// x, y, z.
    pub(super) matrix: [usize; 3],
}

impl Network {
    pub(super) fn new(model: Arc<Model>, contract: &Contract) -> Result<Self, ModelError> {
        let manifest = model.manifest();
        let wrong = |what: String| ModelError::Contract {
            model: manifest.id(),
            what,
        };
        if manifest.kind != contract.kind {
            return Err(wrong(format!(
                "kind = {:?}; needed: {:?}",
                manifest.kind, contract.kind
            )));
        }
        if manifest.tiny || !manifest.complete {
            return Err(wrong("its training was a trial or did not end".to_owned()));
        }
        let planes = |c: usize, shape: &[Dim]| matches!(shape, [Dim::Named(_), Dim::Fixed(n), Dim::Named(_), Dim::Named(_)] if *n == c);
        let numbers =
            |c: usize, shape: &[Dim]| matches!(shape, [Dim::Named(_), Dim::Fixed(n)] if *n == c);
        let one = |shape: &[Dim]| matches!(shape, [Dim::Named(_)]);
        let has = |name: &str, is_right: &dyn Fn(&[Dim]) -> bool| {
            manifest
                .inputs
                .get(name)
                .is_some_and(|p| is_right(&p.shape))
        };
        let mut missing: Vec<String> = Vec::new();
        for name in ["t1w", "t2w"] {
            if !has(name, &|s| planes(3, s)) {
                missing.push(format!("input {name} [n, 3, h, w]"));
            }
        }
        for (name, c) in contract.numbers {
            if !has(name, &|s| numbers(*c, s)) {
                missing.push(format!("input {name} [n, {c}]"));
            }
        }
        for (name, c) in contract.outputs {
            let is_right = manifest.outputs.get(*name).is_some_and(|p| match c {
                0 => one(&p.shape),
                c => planes(*c, &p.shape),
            });
            if !is_right {
                missing.push(format!("output {name}"));
            }
        }
        for name in contract.limits {
            if manifest
                .limits
                .get(*name)
                .is_none_or(|l| l.is_nan() || *l <= 0.0)
            {
                missing.push(format!("limits.{name} > 0"));
            }
        }
        if manifest.inputs.len() != 2 + contract.numbers.len() {
            missing.push("no other inputs".to_owned());
        }
        if !missing.is_empty() {
            return Err(wrong(format!("needed: {}", missing.join("; "))));
        }
        Ok(Self {
            outputs: contract.outputs,
            model,
        })
    }

    /// What `domain` reaches in reconstructed scans of those that the network is for, where that is more than in its training samples; else 1.
    fn domain_limit(&self) -> f32 {
        let limits = &self.model.manifest().limits;
        limits.get("domain").copied().unwrap_or(1.0).max(1.0)
    }

    /// Where the manifest says that the answer is not to be trusted; of a name that the contract does not know, everywhere.
    pub(super) fn limit(&self, name: &str) -> f32 {
        let limits = &self.model.manifest().limits;
        limits.get(name).copied().unwrap_or(f32::NEG_INFINITY)
    }

    /// Runs all slices in batches, and hands on what came out of each as soon as it is there. `numbers`: one list for every
    /// slice alike, in the contract's order.
    pub(super) fn run<E: From<SynthError>>(
        &self,
        planes: Planes<'_>,
        numbers: &[(&'static str, Vec<f32>)],
        leave: &mut dyn FnMut(usize, Answer) -> Result<(), E>,
    ) -> Result<(), E> {
        let [nx, ny, nz] = planes.matrix;
        let n = nx * ny;
        let manifest = self.model.manifest();
        let tiles = Tiles::cut([ny, nx], MOST, manifest.size_multiple, MARGIN);
        let at_once = match tiles.tiles.as_slice() {
            [tile] => (BATCH_PIXELS / tile.size().iter().product::<usize>().max(1)).max(1),
            _ => 1,
        };
        for begin in (0..nz).step_by(at_once) {
            let slices: Vec<usize> = (begin..(begin + at_once).min(nz)).collect();
            let mut answers: Vec<Answer> = slices
                .iter()
                .map(|_| Answer {
                    maps: self
                        .outputs
                        .iter()
                        .filter(|(_, c)| *c > 0)
                        .map(|(name, c)| (*name, vec![0.0; c * n]))
                        .collect(),
                    domain: 0.0,
                })
                .collect();
            for tile in &tiles.tiles {
                let [h, w] = tile.size();
                let stack = |series: &[f32]| {
                    let mut to = Vec::with_capacity(slices.len() * 3 * h * w);
                    for z in &slices {
                        // Beyond the ends the slice itself.
                        for at in [z.checked_sub(1), Some(*z), Some(z + 1)] {
                            let at = at.filter(|a| *a < nz).unwrap_or(*z);
                            tiles.read(tile, &series[at * n..][..n], &mut to);
                        }
                    }
                    to
                };
                let (t1w, t2w) = (stack(planes.t1w), stack(planes.t2w));
                let repeated: Vec<(&str, [usize; 2], Vec<f32>)> = numbers
                    .iter()
                    .map(|(name, v)| (*name, [slices.len(), v.len()], v.repeat(slices.len())))
                    .collect();
                let shape = [slices.len(), 3, h, w];
                let mut inputs = vec![
                    Input {
                        name: "t1w",
                        shape: &shape,
                        data: &t1w,
                    },
                    Input {
                        name: "t2w",
                        shape: &shape,
                        data: &t2w,
                    },
                ];
                inputs.extend(repeated.iter().map(|(name, shape, data)| Input {
                    name,
                    shape,
                    data,
                }));
                let out = self.model.run(&inputs).map_err(SynthError::from)?;
                let named = |name: &str| {
                    let at = manifest.outputs.keys().position(|k| k == name);
                    at.and_then(|i| out.get(i))
                };
                for (b, answer) in answers.iter_mut().enumerate() {
                    for (name, map) in &mut answer.maps {
                        let Some(tensor) = named(name) else { continue };
                        for (c, plane) in map.chunks_exact_mut(n).enumerate() {
                            let channels = tensor.shape.get(1).copied().unwrap_or(1);
                            let from = &tensor.data[(b * channels + c) * h * w..];
                            tiles.write(tile, from, plane);
                        }
                    }
                    let domain = named("domain").and_then(|t| t.data.get(b)).copied();
                    // A score that is no number is outside of everything.
                    let domain = domain.filter(|d| d.is_finite()).unwrap_or(f32::MAX);
                    answer.domain = answer.domain.max(domain / self.domain_limit());
                }
            }
            for (z, answer) in slices.into_iter().zip(answers) {
                let count = answer
                    .maps
                    .iter()
                    .flat_map(|(_, m)| m)
                    .filter(|v| !v.is_finite())
                    .count();
                if count > 0 {
                    return Err(SynthError::NotFinite {
                        model: manifest.id(),
                        count,
                    }
                    .into());
                }
                leave(z, answer)?;
            }
        }
        Ok(())
    }
}
