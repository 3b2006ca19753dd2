//! Noise of the unfolded image.
//!
//! Exact where the lattice is the mask: the diagonal of `(N + lambda)⁻¹ N (N + lambda)⁻¹`, block by block, which for
//! `lambda = 0` is Pruessmann's `sqrt(diag(inv(SᴴS)) diag(SᴴS))` as g-factor. Otherwise the ratio between the true
//! variance and that of the lattice alone is measured with replicas of pure noise that go through the same solver;
//! that ratio is smooth, so that it is averaged over neighbours before it multiplies the exact part.

use num_complex::Complex32;

use super::SenseParams;
use super::lattice::Folding;

/// One sentence for the recipe.
pub(super) fn method(folding: &Folding, params: &SenseParams) -> String {
    if !params.noise_map {
        "none".into()
    } else if folding.is_exact() {
        "exact, from the blocks' inverse".into()
    } else {
        format!(
            "{} noise replicas against the lattice's exact variance, smoothed over neighbours",
            params.replicas
        )
    }
}

/// Half the edge of the neighbourhood, voxels.
const HALF: usize = 3;

/// Scales the variance of the blocks by the smoothed ratio of the replicas' power to it.
///
/// `power` is the mean squared magnitude of the replicas per component; all `[z, y, x]` of one set.
pub(super) fn scale_by_replicas(variance: &mut [f32], power: &[f32], matrix: [usize; 3]) {
    // Numerator and denominator are averaged apart: voxels without sensitivity count in neither, and a voxel of
    // large variance does not spoil its neighbours' ratio, since every voxel is first divided by its own variance.
    let mut ratio: Vec<f32> = variance
        .iter()
        .zip(power)
        .map(|(v, p)| if *v > 0.0 { p / v } else { 0.0 })
        .collect();
    let mut count: Vec<f32> = variance
        .iter()
        .map(|v| if *v > 0.0 { 1.0 } else { 0.0 })
        .collect();
    for axis in 0..3 {
        box_sum(&mut ratio, matrix, axis);
        box_sum(&mut count, matrix, axis);
    }
    for ((v, r), c) in variance.iter_mut().zip(&ratio).zip(&count) {
        if *c > 0.0 {
            *v *= r / c;
        }
    }
}

fn box_sum(image: &mut [f32], matrix: [usize; 3], axis: usize) {
    let n = matrix[axis];
    if n == 1 {
        return;
    }
    let inner: usize = matrix[axis + 1..].iter().product();
    let mut line = vec![0.0f32; n];
    for block in image.chunks_exact_mut(n * inner) {
        for i in 0..inner {
            for (k, v) in line.iter_mut().enumerate() {
                *v = block[k * inner + i];
            }
            for k in 0..n {
                block[k * inner + i] = line[k.saturating_sub(HALF)..(k + HALF + 1).min(n)]
                    .iter()
                    .sum();
            }
        }
    }
}

/// Adds the squared magnitude per component, divided by `n`, of one replica's image.
pub(super) fn add_power(power: &mut [f32], image: &[Complex32], n: usize) {
    let scale = 0.5 / n as f32;
    for (p, v) in power.iter_mut().zip(image) {
        *p += v.norm_sqr() * scale;
    }
}
