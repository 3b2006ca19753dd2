//! Fewer coils for the columns of one block, chosen from the maps so that the normal operator stays the same.
//!
//! A unitary mixture of whitened coils changes neither the solution nor its noise, and coils whose maps are zero
//! contribute nothing. Along one place of the readout the maps of an array span far fewer dimensions than it has
//! coils: the mixture that puts their energy first (Buehrer et al., Magn Reson Med 57:1131-1139, 2007; per place as in
//! Zhang et al., Magn Reson Med 69:571-582, 2013) leaves the rest negligible beside the Tikhonov weight.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use num_complex::{Complex32, Complex64};

use crate::num::linalg::eigh;

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
    /// Chooses a mixture for `columns` of maps `[set, coil, plane]`; `limit` is the Tikhonov weight over the largest
    /// weight of a line. `None` where it would not save a quarter of the coils.
    pub(super) fn of(
        columns: &[Vec<Complex32>],
        n_coils: usize,
        plane: usize,
        limit: f32,
    ) -> Option<Self> {
        let voxels: usize = columns.iter().map(|c| c.len() / n_coils.max(1)).sum();
        let step = (voxels / SAMPLED).max(1);
        let mut gram = vec![Complex64::ZERO; n_coils * n_coils];
        let mut voxel = vec![Complex64::ZERO; n_coils];
        let mut seen = 0usize;
        for (i, column) in columns.iter().enumerate() {
            for set in column.chunks_exact(n_coils * plane) {
                for at in (i % step..plane).step_by(step) {
                    for (coil, v) in voxel.iter_mut().enumerate() {
                        let m = set[coil * plane + at];
                        *v = Complex64::new(m.re.into(), m.im.into());
                    }
                    if voxel.iter().all(|v| *v == Complex64::ZERO) {
                        continue;
                    }
                    seen += 1;
                    for a in 0..n_coils {
                        for b in 0..=a {
                            gram[a * n_coils + b] += voxel[a] * voxel[b].conj();
                        }
                    }
                }
            }
        }
        // Fewer voxels than coils say nothing about those in between.
        if seen < 2 * n_coils {
            return None;
        }
        let eigen = eigh(&gram, n_coils).ok()?;
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

    /// `[coil, n]` to `[virtual coil, n]`.
    pub(super) fn apply(&self, data: &[Complex32]) -> Vec<Complex32> {
        let n = data.len() / self.n_coils;
        let mut out = vec![Complex32::ZERO; self.n_virtual * n];
        matmul(
            MatMut::from_row_major_slice_mut(&mut out, self.n_virtual, n),
            Accum::Replace,
            MatRef::from_row_major_slice(&self.rows, self.n_virtual, self.n_coils),
            MatRef::from_row_major_slice(data, self.n_coils, n),
            Complex32::ONE,
            Par::Seq,
        );
        out
    }

    /// Mixes maps `[set, coil, plane]`; `None` where more than may be left out would be, seen at every voxel.
    pub(super) fn maps(
        &self,
        maps: &[Complex32],
        density: &[f32],
        plane: usize,
        limit: f32,
    ) -> Option<Vec<Complex32>> {
        let mut mixed = Vec::with_capacity(maps.len() / self.n_coils * self.n_virtual);
        let (mut sum, mut inside) = (0.0f64, 0usize);
        for (set, density) in maps
            .chunks_exact(self.n_coils * plane)
            .zip(density.chunks_exact(plane))
        {
            let set = self.apply(set);
            let kept = sum_of_squares(&set, plane);
            for (d, k) in density.iter().zip(&kept) {
                let dropped = f64::from((d - k).max(0.0));
                if dropped > DROPPED_PEAK * f64::from(limit) + 1e-6 * f64::from(*d) {
                    return None;
                }
                sum += dropped;
                inside += usize::from(*d > 0.0);
            }
            mixed.extend(set);
        }
        (sum <= 4.0 * DROPPED * f64::from(limit) * inside as f64).then_some(mixed)
    }
}

/// Sum of squares over coils of `[coil, plane]`.
pub(super) fn sum_of_squares(maps: &[Complex32], plane: usize) -> Vec<f32> {
    let mut density = vec![0.0f32; plane];
    for map in maps.chunks_exact(plane) {
        for (d, v) in density.iter_mut().zip(map) {
            *d += v.norm_sqr();
        }
    }
    density
}
