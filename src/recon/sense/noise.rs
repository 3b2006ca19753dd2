//! Noise of the unfolded image.
//!
//! Exact where the lattice is the mask: the diagonal of `(N + lambda)⁻¹ N (N + lambda)⁻¹`, block by block, which for
//! `lambda = 0` is Pruessmann's `sqrt(diag(inv(SᴴS)) diag(SᴴS))` as g-factor. Otherwise the ratio between the true
//! variance and that of the lattice alone is measured with replicas: noise added to the frame goes through the same
//! iterations, and what it changes is averaged over neighbours before it multiplies the exact part.

use num_complex::Complex32;

use super::SenseParams;
use super::lattice::Folding;
use crate::num::rng::Rng;
use crate::recon::smooth::box_sum;

/// Added noise of a replica as a fraction of the frame's own: iterations respond to so little in proportion.
pub(super) const SMALL: f64 = 0.1;
/// Its least norm beside the signal's: `f32` resolves no less.
pub(super) const LEAST: f64 = 1e-4;

/// The noise of the replicas at place `x` along the readout: the same whoever works on it.
pub(super) fn rng(x: usize) -> Rng {
    Rng::new(0x5e45_e000 + x as u64)
}

/// One sentence for the recipe.
pub(super) fn method(folding: &Folding, params: &SenseParams) -> String {
    if !params.noise_map {
        "none".into()
    } else if folding.is_exact() {
        "exact, from the blocks' inverse".into()
    } else {
        format!(
            "{} noise replicas through the image's iterations against the lattice's exact variance, smoothed over neighbours",
            params.replicas
        )
    }
}

/// Half the neighbourhood over which the ratio is averaged: voxels along pe2 and pe1, measured places along the readout.
///
/// Noise after iterations falls towards the object's edges within a few voxels: a wider neighbourhood reports the
/// middle's noise there.
const HALF: [usize; 3] = [3, 3, 1];
/// Places along the readout at which replicas run, at most about.
const PLACES: usize = 20;

/// Distance between places along a readout of `nx` voxels at which replicas run; the first is at half of it.
pub(super) fn stride(nx: usize) -> usize {
    (nx / PLACES).max(1)
}

/// Scales the variance of the blocks by the smoothed ratio of the replicas' power to it, interpolated along the readout
/// between the measured places.
///
/// `variance` is `[pe2, pe1, ro]` of one set; `power`, the replicas' mean squared magnitude per component, is
/// `[pe2, pe1, place]`.
pub(super) fn scale_by_replicas(variance: &mut [f32], power: &[f32], matrix: [usize; 3]) {
    let [nz, ny, nx] = matrix;
    let stride = stride(nx);
    let places: Vec<usize> = (stride / 2..nx).step_by(stride).collect();
    let n = places.len();
    // Every voxel is first divided by its own variance, so that one of large variance does not rule its neighbours.
    let mut ratio = vec![0.0f32; nz * ny * n];
    let mut count = vec![0.0f32; nz * ny * n];
    for row in 0..nz * ny {
        for (i, x) in places.iter().enumerate() {
            let v = variance[row * nx + x];
            if v > 0.0 {
                ratio[row * n + i] = power[row * n + i] / v;
                count[row * n + i] = 1.0;
            }
        }
    }
    let voxels: f32 = count.iter().sum();
    if voxels == 0.0 {
        return;
    }
    let mean = ratio.iter().sum::<f32>() / voxels;
    for (axis, half) in HALF.into_iter().enumerate() {
        box_sum(&mut ratio, [nz, ny, n], axis, half);
        box_sum(&mut count, [nz, ny, n], axis, half);
    }
    // The overall mean stands in where a neighbourhood holds no sensitivity.
    for (r, c) in ratio.iter_mut().zip(&count) {
        *r = if *c > 0.0 { *r / c } else { mean };
    }
    for (row, variance) in variance.chunks_exact_mut(nx).enumerate() {
        let ratio = &ratio[row * n..(row + 1) * n];
        for (x, v) in variance.iter_mut().enumerate() {
            let at = (x as f32 - (stride / 2) as f32) / stride as f32;
            let low = (at.max(0.0) as usize).min(n - 1);
            let high = (low + 1).min(n - 1);
            let part = (at - low as f32).clamp(0.0, 1.0);
            *v *= ratio[low] * (1.0 - part) + ratio[high] * part;
        }
    }
}

/// Adds the squared magnitude per component, divided by `n`, of one replica's image.
pub(super) fn add_power(power: &mut [f32], image: impl Iterator<Item = Complex32>, n: usize) {
    let scale = 0.5 / n as f32;
    for (p, v) in power.iter_mut().zip(image) {
        *p += v.norm_sqr() * scale;
    }
}
