//! What lies between the noise of endless k-space and that of the lines that were really filled.
//!
//! [`Weights`] + lines -> one factor. The mean variance of an image is that of its lines (Parseval), so that windows cut
//! at the edges of k-space and lines out of their reach need no more than counting.

use super::calibrate::Weights;
use crate::data::KSpace;
use crate::recon::sampling::Block;

/// Noise of the lines of `extent` outside `acs`, as they are filled from `kspace`, over that of the same number of
/// lines far from any edge, measured and predicted in turn.
pub(crate) fn edge_factor(kspace: &KSpace, weights: &Weights, extent: &Block, acs: &Block) -> f32 {
    let shape = kspace.shape;
    let window = &weights.window;
    let mask = kspace.mask();
    let gains = gains(weights);
    let is_measured = |k2: i64, k1: i64| {
        (0..shape.pe2 as i64).contains(&k2)
            && (0..shape.pe1 as i64).contains(&k1)
            && mask[k2 as usize * shape.pe1 + k1 as usize]
    };
    // Target of the window that a line is, with its base point; measured lattice lines have none.
    let (mut found, mut lines) = (0.0f64, 0usize);
    for k2 in extent.pe2.clone() {
        for k1 in extent.pe1.clone() {
            if acs.contains(k2, k1) {
                continue;
            }
            lines += 1;
            let (k2, k1) = (k2 as i64, k1 as i64);
            if is_measured(k2, k1) {
                found += 1.0;
                continue;
            }
            let target = window.targets.iter().enumerate().find_map(|(t, step)| {
                let base = (k2 - step.0, k1 - step.1);
                window.lattice.contains(base.0, base.1).then_some((t, base))
            });
            let Some((target, base)) = target else {
                continue;
            };
            let seen: Vec<usize> = (0..window.sources.len())
                .filter(|&s| {
                    let step = window.sources[s];
                    is_measured(base.0 + step.0, base.1 + step.1)
                })
                .collect();
            if 2 * seen.len() >= window.sources.len() {
                found += seen.iter().map(|&s| gains[target][s]).sum::<f64>();
            }
        }
    }
    let endless = (1.0 + gains.iter().flatten().sum::<f64>()) / window.lattice.reduction() as f64;
    if lines == 0 {
        return 1.0;
    }
    (found / (endless * lines as f64)) as f32
}

/// Noise that each source adds to each target, mean over coils: `[target][source]`.
fn gains(weights: &Weights) -> Vec<Vec<f64>> {
    let (n_coils, n_out) = (weights.n_coils, weights.n_outputs());
    let window = &weights.window;
    let mut gains = vec![vec![0.0; window.sources.len()]; window.targets.len()];
    for (unknown, row) in weights.values.chunks_exact(n_out).enumerate() {
        let source = unknown / (window.ro * n_coils);
        for (target, coils) in row.chunks_exact(n_coils).enumerate() {
            let power: f64 = coils.iter().map(|w| f64::from(w.norm_sqr())).sum();
            gains[target][source] += power / n_coils as f64;
        }
    }
    gains
}
