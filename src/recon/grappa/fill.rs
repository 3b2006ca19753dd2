//! Application in k-space: fills the missing lines, leaves the measured ones alone.

use faer::{Accum, MatMut, MatRef, Par};
use num_complex::Complex32;
use rayon::prelude::*;

use super::calibrate::Weights;
use crate::data::KSpace;
use crate::recon::sampling::Block;

/// Fills every missing line inside `extent` whose window sees at least half of its sources.
///
/// # Shapes
/// Result `[coil, pe2, pe1, ro]`, the whole grid; lines outside `extent` are zero.
///
/// # Numerics
/// Measured samples are copied, bit for bit. Sources outside the grid count as zero.
pub(crate) fn fill(kspace: &KSpace, weights: &Weights, extent: &Block) -> Vec<Complex32> {
    let shape = kspace.shape;
    let mut grid = kspace.to_grid();
    let predicted = predict(kspace, weights, extent, |_, _| false);
    for (at, lines) in &predicted {
        for coil in 0..shape.coil {
            let row = (coil * shape.pe2 * shape.pe1 + at) * shape.ro;
            grid[row..row + shape.ro]
                .copy_from_slice(&lines[coil * shape.ro..(coil + 1) * shape.ro]);
        }
    }
    grid
}

/// Predictions `[coil, ro]` by line index `pe2 * n1 + pe1`: of missing lines, and of measured ones for which `also`
/// says so. Only measured lines *of the lattice* are looked at.
pub(crate) fn predict(
    kspace: &KSpace,
    weights: &Weights,
    extent: &Block,
    also: impl Fn(usize, usize) -> bool,
) -> Vec<(usize, Vec<Complex32>)> {
    let shape = kspace.shape;
    let window = &weights.window;
    let (n2, n1) = (shape.pe2 as i64, shape.pe1 as i64);
    // Index of each measured lattice line.
    let mut measured = vec![None; shape.pe2 * shape.pe1];
    let mut is_known = vec![false; shape.pe2 * shape.pe1];
    for (i, line) in kspace.lines.iter().enumerate() {
        let at = line.pe2 as usize * shape.pe1 + line.pe1 as usize;
        is_known[at] = true;
        if window
            .lattice
            .contains(i64::from(line.pe2), i64::from(line.pe1))
        {
            measured[at] = Some(i);
        }
    }
    let look = |k2: i64, k1: i64| {
        if (0..n2).contains(&k2) && (0..n1).contains(&k1) {
            measured[(k2 * n1 + k1) as usize]
        } else {
            None
        }
    };
    let (r1, r2) = (window.lattice.r1 as i64, window.lattice.r2 as i64);
    let mut bases = Vec::new();
    for b2 in extent.pe2.start as i64 - r2..extent.pe2.end as i64 {
        for b1 in extent.pe1.start as i64 - r1..extent.pe1.end as i64 {
            if !window.lattice.contains(b2, b1) {
                continue;
            }
            let wanted: Vec<(usize, usize)> = window
                .targets
                .iter()
                .enumerate()
                .filter_map(|(t, step)| {
                    let (k2, k1) = (b2 + step.0, b1 + step.1);
                    if k2 < 0 || k1 < 0 || !extent.contains(k2 as usize, k1 as usize) {
                        return None;
                    }
                    let at = (k2 * n1 + k1) as usize;
                    (!is_known[at] || also(k2 as usize, k1 as usize)).then_some((t, at))
                })
                .collect();
            let sources: Vec<Option<usize>> = window
                .sources
                .iter()
                .map(|s| look(b2 + s.0, b1 + s.1))
                .collect();
            let seen = sources.iter().filter(|s| s.is_some()).count();
            if !wanted.is_empty() && 2 * seen >= sources.len() {
                bases.push((wanted, sources));
            }
        }
    }
    bases
        .into_par_iter()
        .flat_map_iter(|(wanted, sources)| predict_base(kspace, weights, &wanted, &sources))
        .collect()
}

fn predict_base(
    kspace: &KSpace,
    weights: &Weights,
    wanted: &[(usize, usize)],
    sources: &[Option<usize>],
) -> Vec<(usize, Vec<Complex32>)> {
    let ro = kspace.shape.ro;
    let (n_coils, w) = (weights.n_coils, weights.window.ro);
    let (n_unknowns, n_out) = (weights.n_unknowns(), weights.n_outputs());
    // Rows of the shifted copies: [unknown, x], zero beyond the ends of the readout.
    let mut shifted = vec![Complex32::ZERO; n_unknowns * ro];
    for (u, row) in shifted.chunks_exact_mut(ro).enumerate() {
        let (coil, tap, source) = (u % n_coils, u / n_coils % w, u / n_coils / w);
        let Some(line) = sources[source] else {
            continue;
        };
        let samples = kspace.line(coil, line);
        let step = tap as i64 - (w / 2) as i64;
        let from = step.max(0) as usize;
        let to = (ro as i64 + step.min(0)).max(0) as usize;
        if from < ro && (-step).max(0) as usize <= ro {
            let at = (-step).max(0) as usize;
            let n = (ro - from).min(to).min(ro - at);
            row[at..at + n].copy_from_slice(&samples[from..from + n]);
        }
    }
    let mut out = vec![Complex32::ZERO; n_out * ro];
    faer::linalg::matmul::matmul(
        MatMut::from_row_major_slice_mut(&mut out, n_out, ro),
        Accum::Replace,
        MatRef::from_row_major_slice(&weights.values, n_unknowns, n_out).transpose(),
        MatRef::from_row_major_slice(&shifted, n_unknowns, ro),
        Complex32::ONE,
        Par::Seq,
    );
    wanted
        .iter()
        .map(|&(t, at)| {
            let start = t * n_coils * ro;
            (at, out[start..start + n_coils * ro].to_vec())
        })
        .collect()
}
