//! Fewer coils for the columns of one block, chosen from the maps so that the normal operator stays the same.
//!
//! A unitary mixture of whitened coils changes neither the solution nor its noise, and coils whose maps are zero
//! contribute nothing. Along one place of the readout the maps of an array span far fewer dimensions than it has
//! coils: the mixture that puts their energy first (Buehrer et al., Magn Reson Med 57:1131-1139, 2007; per place as in
//! Zhang et al., Magn Reson Med 69:571-582, 2013) leaves the rest negligible beside the Tikhonov weight.

use num_complex::Complex32;

use super::column::sum_of_squares;
use super::value::Value;
use crate::num::linalg::{eigh, gram};

/// Energy of the maps per voxel that may be left out, as a fraction of the Tikhonov weight: the operator changes by
/// no more, and the solution by about that fraction where it is held by the Tikhonov weight alone.
const DROPPED: f64 = 1e-3;
/// Most at any one voxel.
const DROPPED_PEAK: f64 = 3e-2;
/// Voxels that the mixture is chosen from, at least.
const SAMPLED: usize = 512;

/// What to mix: `[virtual coil, coil]`.
pub(super) struct Mixture {
    rows: Vec<Complex32>,
    n_virtual: usize,
    n_coils: usize,
}

impl Mixture {
    /// Chooses a mixture for maps `[set, coil, plane]`; `limit` is the Tikhonov weight over the largest weight of a
    /// line. `None` where it would not save a quarter of the coils.
    pub(super) fn of<V: Value>(
        maps: &[V],
        n_coils: usize,
        plane: usize,
        limit: f32,
    ) -> Option<Self> {
        let voxels = maps.len() / n_coils.max(1) * V::WIDTH;
        let step = (voxels / SAMPLED).max(1);
        // `[coil, voxel]`, of the voxels that any coil sees.
        let mut samples = vec![Vec::with_capacity(voxels / step + V::WIDTH); n_coils];
        for lane in 0..V::WIDTH {
            for set in maps.chunks_exact(n_coils * plane) {
                for at in (lane % step..plane).step_by(step) {
                    let of = |coil: usize| set[coil * plane + at].get(lane);
                    if (0..n_coils).all(|coil| of(coil) == Complex32::ZERO) {
                        continue;
                    }
                    for (coil, samples) in samples.iter_mut().enumerate() {
                        samples.push(of(coil));
                    }
                }
            }
        }
        let seen = samples.first().map_or(0, Vec::len);
        // Fewer voxels than coils say nothing about those in between.
        if seen < 2 * n_coils {
            return None;
        }
        let eigen = eigh(&gram(&samples.concat(), n_coils), n_coils).ok()?;
        let budget = DROPPED * f64::from(limit) * seen as f64;
        let mut left = 0.0;
        let mut n_virtual = n_coils;
        while n_virtual > 1 && left + eigen.values[n_virtual - 1].max(0.0) <= budget {
            n_virtual -= 1;
            left += eigen.values[n_virtual].max(0.0);
        }
        if 4 * n_virtual > 3 * n_coils {
            return None;
        }
        let rows = eigen.vectors[..n_virtual * n_coils]
            .iter()
            .map(|v| Complex32::new(v.re as f32, -v.im as f32))
            .collect();
        Some(Self {
            rows,
            n_virtual,
            n_coils,
        })
    }

    /// Mixes maps `[set, coil, plane]`; `None` where more than may be left out would be, seen at every voxel.
    /// `density` is `[set, plane, lane]`.
    pub(super) fn maps<V: Value>(
        &self,
        maps: &[V],
        density: &[f32],
        plane: usize,
        limit: f32,
    ) -> Option<Vec<V>> {
        let size = self.n_virtual * plane;
        let mut mixed = vec![V::ZERO; maps.len() / self.n_coils * self.n_virtual];
        let (mut sum, mut inside) = (0.0f64, 0usize);
        for ((mixed, set), density) in mixed
            .chunks_exact_mut(size)
            .zip(maps.chunks_exact(self.n_coils * plane))
            .zip(density.chunks_exact(plane * V::WIDTH))
        {
            V::product(&self.rows, set, plane, mixed);
            let kept = sum_of_squares(mixed, plane);
            for (d, k) in density.iter().zip(&kept) {
                let dropped = f64::from((d - k).max(0.0));
                if dropped > DROPPED_PEAK * f64::from(limit) + 1e-6 * f64::from(*d) {
                    return None;
                }
                sum += dropped;
                inside += usize::from(*d > 0.0);
            }
        }
        (sum <= 4.0 * DROPPED * f64::from(limit) * inside as f64).then_some(mixed)
    }
}
