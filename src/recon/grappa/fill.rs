//! Application in k-space: fills the missing lines, leaves the measured ones alone.
//!
//! Along the readout the weights are a correlation. After a Fourier transform of the measured lines it is one small
//! matrix per frequency, a window's width fewer operations than tap by tap; zeros behind each line keep its two ends
//! apart, so the result is that of the plain sum with zeros beyond the readout.

use faer::{Accum, MatMut, MatRef, Par};
use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

use super::calibrate::Weights;
use super::unmix::smooth_length;
use crate::data::KSpace;
use crate::num::complex::{Kernel, dispatch, fma};
use crate::num::fft::{Direction, Fft};
use crate::recon::sampling::Block;

/// Frequencies that are handled together: one cache line.
const COLUMNS: usize = 8;
/// Positions of the window that are handled together: bounds the memory in 3D.
const POSITIONS: usize = 256;

/// One position of the window: wanted targets with their line index, and the measured line of each source.
type Position = (Vec<(usize, usize)>, Vec<Option<usize>>);

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
    // Measured lattice lines, and the place of each among them.
    let mut lattice_lines = Vec::new();
    let mut measured = vec![None; shape.pe2 * shape.pe1];
    let mut is_known = vec![false; shape.pe2 * shape.pe1];
    for (i, line) in kspace.lines.iter().enumerate() {
        let at = line.pe2 as usize * shape.pe1 + line.pe1 as usize;
        is_known[at] = true;
        if window
            .lattice
            .contains(i64::from(line.pe2), i64::from(line.pe1))
        {
            measured[at] = Some(lattice_lines.len());
            lattice_lines.push(i);
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
    let mut positions: Vec<Position> = Vec::new();
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
                positions.push((wanted, sources));
            }
        }
    }
    let spectra = Spectra::new(kspace, &lattice_lines, weights.window.ro / 2);
    positions
        .chunks(POSITIONS)
        .flat_map(|some| predict_some(&spectra, weights, some, shape.ro))
        .collect()
}

/// Measured lines transformed along the readout, zeros behind them, `[line, coil, frequency]`, not scaled.
struct Spectra {
    /// Length with the zeros.
    n: usize,
    data: Vec<Complex32>,
}

impl Spectra {
    /// `reach`: samples to each side at which a window looks.
    fn new(kspace: &KSpace, lines: &[usize], reach: usize) -> Self {
        let (ro, n_coils) = (kspace.shape.ro, kspace.shape.coil);
        let n = smooth_length(ro + reach);
        let fft = Fft::plan(n, Direction::Forward);
        let mut data = vec![Complex32::ZERO; lines.len() * n_coils * n];
        data.par_chunks_mut(n_coils * n)
            .zip(lines)
            .for_each(|(out, &line)| {
                for (coil, row) in out.chunks_exact_mut(n).enumerate() {
                    row[..ro].copy_from_slice(kspace.line(coil, line));
                }
                fft.run_plain(out, &mut vec![Complex32::ZERO; fft.scratch_len()]);
            });
        Self { n, data }
    }
}

/// `out += turn * values`.
struct Turned<'a> {
    turn: Complex32,
    values: &'a [Complex32],
    out: &'a mut [Complex32],
}

impl Kernel for Turned<'_> {
    type Out = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let (tr, ti) = (self.turn.re, self.turn.im);
        for (o, v) in self.out.iter_mut().zip(self.values) {
            o.re = fma::<FMA>(-ti, v.im, fma::<FMA>(tr, v.re, o.re));
            o.im = fma::<FMA>(ti, v.re, fma::<FMA>(tr, v.im, o.im));
        }
    }
}

fn predict_some(
    spectra: &Spectra,
    weights: &Weights,
    positions: &[Position],
    ro: usize,
) -> Vec<(usize, Vec<Complex32>)> {
    let n = spectra.n;
    let (n_coils, w) = (weights.n_coils, weights.window.ro);
    let (n_in, n_out) = (weights.window.sources.len() * n_coils, weights.n_outputs());
    let n_rows = positions.len() * n_out;
    // [block of frequencies][frequency, position, output].
    let blocks: Vec<Vec<Complex32>> = (0..n.div_ceil(COLUMNS))
        .into_par_iter()
        .map(|block| {
            let frequencies = block * COLUMNS..(block * COLUMNS + COLUMNS).min(n);
            let mut out = vec![Complex32::ZERO; frequencies.len() * n_rows];
            let mut seen = vec![Complex32::ZERO; positions.len() * n_in];
            let mut matrix = vec![Complex32::ZERO; n_in * n_out];
            for (k, out) in frequencies.zip(out.chunks_exact_mut(n_rows)) {
                // A source missing at one frequency is missing at all: its zeros stay.
                for ((_, sources), row) in positions.iter().zip(seen.chunks_exact_mut(n_in)) {
                    for (source, row) in sources.iter().zip(row.chunks_exact_mut(n_coils)) {
                        if let Some(line) = source {
                            let column = &spectra.data[line * n_coils * n + k..];
                            for (v, s) in row.iter_mut().zip(column.iter().step_by(n)) {
                                *v = *s;
                            }
                        }
                    }
                }
                weights_at(weights, k, n, &mut matrix);
                faer::linalg::matmul::matmul(
                    MatMut::from_row_major_slice_mut(out, positions.len(), n_out),
                    Accum::Replace,
                    MatRef::from_row_major_slice(&seen, positions.len(), n_in),
                    MatRef::from_row_major_slice(&matrix, n_in, n_out),
                    Complex32::ONE,
                    Par::Seq,
                );
            }
            out
        })
        .collect();
    debug_assert!(w <= 2 * (n - ro) + 1);
    let fft = Fft::plan(n, Direction::Inverse);
    positions
        .par_iter()
        .enumerate()
        .flat_map_iter(|(p, (wanted, _))| {
            let mut rows = vec![Complex32::ZERO; n_coils * n];
            let mut scratch = vec![Complex32::ZERO; fft.scratch_len()];
            let mut found = Vec::with_capacity(wanted.len());
            for &(t, at) in wanted {
                let frequencies = blocks.iter().flat_map(|b| b.chunks_exact(n_rows));
                for (k, values) in frequencies.enumerate() {
                    let values = &values[p * n_out + t * n_coils..][..n_coils];
                    for (v, o) in values.iter().zip(rows[k..].iter_mut().step_by(n)) {
                        *o = *v;
                    }
                }
                fft.run_plain(&mut rows, &mut scratch);
                let mut lines = Vec::with_capacity(n_coils * ro);
                for row in rows.chunks_exact(n) {
                    lines.extend_from_slice(&row[..ro]);
                }
                found.push((at, lines));
            }
            found
        })
        .collect()
}

/// Weights at a frequency, `[source, coil_in, output]`, with the scale `1/n` of the way back.
fn weights_at(weights: &Weights, k: usize, n: usize, out: &mut [Complex32]) {
    let (n_coils, w) = (weights.n_coils, weights.window.ro);
    let size = n_coils * weights.n_outputs();
    out.fill(Complex32::ZERO);
    for (source, out) in out.chunks_exact_mut(size).enumerate() {
        for tap in 0..w {
            let step = tap as i64 - (w / 2) as i64;
            let turns = (step * k as i64).rem_euclid(n as i64) as f64 / n as f64;
            let turn = Complex64::from_polar(1.0 / n as f64, std::f64::consts::TAU * turns);
            dispatch(Turned {
                turn: Complex32::new(turn.re as f32, turn.im as f32),
                values: &weights.values[(source * w + tap) * size..][..size],
                out,
            });
        }
    }
}
