//! The weights in the image: what each folded coil image contributes to each voxel.
//!
//! [`Weights`] + combination weights -> unmixing weights `u_c(r)`, so that the combined image is
//! `sum_c u_c(r) a_c(r)` with the zero-filled (folded) coil images `a_c`, and its noise is `sqrt(sum |u_c|^2 / R)`.
//!
//! # Source
//! Breuer et al., Magn Reson Med 62:739-746 (2009), doi:10.1002/mrm.22066.

use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

use super::calibrate::Weights;
use crate::num::complex::{Kernel, dispatch, fma};
use crate::num::fft::{Direction, fft3};
use crate::recon::combine::low_res::{LowRes, reciprocal, upsample};

const LANES: usize = 8;

/// Unmixing weights on a grid for combination weights on the same grid.
///
/// # Shapes
/// `combination` and the result are `[coil, z, y, x]` over `grid`, which spans the field of view; it may be coarser
/// than the image, if it holds the sum of the supports of weights and combination.
pub(crate) fn unmixing(
    weights: &Weights,
    combination: &[Complex32],
    grid: [usize; 3],
) -> Vec<Complex32> {
    let n_coils = weights.n_coils;
    let steps = steps(weights);
    let along_x = expand_readout(weights, &steps, grid[2]);
    let n: usize = grid.iter().product();
    let padded = n_coils.next_multiple_of(LANES);
    // [z, y][x, coil] first: a voxel's coils lie together.
    let rows: Vec<Vec<Complex32>> = (0..grid[0] * grid[1])
        .into_par_iter()
        .map(|row| {
            let turns: Vec<Complex32> = steps
                .iter()
                .map(|s| turn(s.0, row / grid[1], grid[0]) * turn(s.1, row % grid[1], grid[1]))
                .map(|v| Complex32::new(v.re as f32, v.im as f32))
                .collect();
            let mut out = vec![Complex32::ZERO; grid[2] * n_coils];
            let mut w = vec![Complex32::ZERO; n_coils];
            let mut acc = vec![0.0f32; 2 * padded];
            for x in 0..grid[2] {
                for (c, w) in w.iter_mut().enumerate() {
                    *w = combination[c * n + row * grid[2] + x];
                }
                let size = steps.len() * n_coils * 2 * padded;
                dispatch(VoxelKernel {
                    taps: &along_x[x * size..(x + 1) * size],
                    turns: &turns,
                    w: &w,
                    acc: &mut acc,
                });
                for c in 0..n_coils {
                    // A measured sample predicts itself.
                    out[x * n_coils + c] = w[c] + Complex32::new(acc[c], acc[padded + c]);
                }
            }
            out
        })
        .collect();
    let mut out = vec![Complex32::ZERO; n_coils * n];
    out.par_chunks_mut(grid[2])
        .enumerate()
        .for_each(|(i, line)| {
            let (coil, row) = (i / (grid[0] * grid[1]), i % (grid[0] * grid[1]));
            for (x, v) in line.iter_mut().enumerate() {
                *v = rows[row][x * n_coils + coil];
            }
        });
    out
}

/// `u[c] = sum over steps and outputs of turn * w[c'] * tap[step][c'][c]`, planar.
struct VoxelKernel<'a> {
    taps: &'a [f32],
    turns: &'a [Complex32],
    w: &'a [Complex32],
    acc: &'a mut [f32],
}

impl Kernel for VoxelKernel<'_> {
    type Out = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let p = self.acc.len() / 2;
        for d in (0..p).step_by(LANES) {
            let mut re = [0.0f32; LANES];
            let mut im = [0.0f32; LANES];
            let mut rows = self.taps.chunks_exact(2 * p);
            for turn in self.turns {
                for w in self.w {
                    let s = turn * w;
                    let Some(row) = rows.next() else { return };
                    let (tr, ti) = (&row[d..d + LANES], &row[p + d..p + d + LANES]);
                    for k in 0..LANES {
                        re[k] = fma::<FMA>(s.re, tr[k], re[k]);
                        im[k] = fma::<FMA>(s.re, ti[k], im[k]);
                    }
                    for k in 0..LANES {
                        re[k] = fma::<FMA>(-s.im, ti[k], re[k]);
                        im[k] = fma::<FMA>(s.im, tr[k], im[k]);
                    }
                }
            }
            self.acc[d..d + LANES].copy_from_slice(&re);
            self.acc[p + d..p + d + LANES].copy_from_slice(&im);
        }
    }
}

/// Distinct steps `(pe2, pe1)` from target to source.
fn steps(weights: &Weights) -> Vec<(i64, i64)> {
    let window = &weights.window;
    let mut steps: Vec<(i64, i64)> = window
        .targets
        .iter()
        .flat_map(|t| window.sources.iter().map(move |s| (s.0 - t.0, s.1 - t.1)))
        .collect();
    steps.sort_unstable();
    steps.dedup();
    steps
}

/// Largest step along pe2 and pe1: how far the weights widen a spectrum to each side.
pub(crate) fn reach(weights: &Weights) -> [usize; 3] {
    let s = steps(weights);
    [
        s.iter()
            .map(|s| s.0.unsigned_abs() as usize)
            .max()
            .unwrap_or(0),
        s.iter()
            .map(|s| s.1.unsigned_abs() as usize)
            .max()
            .unwrap_or(0),
        weights.window.ro / 2,
    ]
}

/// `exp(-2 pi i step (r - n/2) / n)`: a source `step` lines away, seen from voxel `r`.
pub(super) fn turn(step: i64, r: usize, n: usize) -> Complex64 {
    let at = r as i64 - (n / 2) as i64;
    let turns = (step * at).rem_euclid(n as i64) as f64 / n as f64;
    Complex64::cis(-std::f64::consts::TAU * turns)
}

/// Weights transformed along the readout: `[x, step, coil_out, (re, im), coil_in]`.
fn expand_readout(weights: &Weights, steps: &[(i64, i64)], nx: usize) -> Vec<f32> {
    let window = &weights.window;
    let (n_coils, w) = (weights.n_coils, window.ro);
    let n_out = weights.n_outputs();
    let padded = n_coils.next_multiple_of(LANES);
    let size = steps.len() * n_coils * 2 * padded;
    let index: Vec<Vec<usize>> = window
        .targets
        .iter()
        .map(|t| {
            window
                .sources
                .iter()
                .map(|s| {
                    let step = (s.0 - t.0, s.1 - t.1);
                    steps.binary_search(&step).unwrap_or(0)
                })
                .collect()
        })
        .collect();
    let mut out = vec![0.0; nx * size];
    out.par_chunks_mut(size.max(1))
        .enumerate()
        .for_each(|(x, out)| {
            let turns: Vec<Complex32> = (0..w)
                .map(|i| turn(i as i64 - (w / 2) as i64, x, nx))
                .map(|v| Complex32::new(v.re as f32, v.im as f32))
                .collect();
            for (t, row) in index.iter().enumerate() {
                for (j, step) in row.iter().enumerate() {
                    for (i, turn) in turns.iter().enumerate() {
                        for c_in in 0..n_coils {
                            let u = (j * w + i) * n_coils + c_in;
                            let values = &weights.values[u * n_out + t * n_coils..][..n_coils];
                            for (c_out, v) in values.iter().enumerate() {
                                let v = v * turn;
                                let at = (step * n_coils + c_out) * 2 * padded + c_in;
                                out[at] += v.re;
                                out[at + padded] += v.im;
                            }
                        }
                    }
                }
            }
        });
    out
}

/// Power of the unmixing weights, `sum_c |u_c|^2`, for the adaptive combination on a grid `[z, y, x]`.
///
/// Numerators are calculated on the smallest grid that holds their spectra, and are exact on the large one.
pub(crate) fn power(weights: &Weights, low: &LowRes, grid: [usize; 3]) -> Vec<f32> {
    let n: usize = grid.iter().product();
    let (numerators, rss2) = numerators(weights, low, grid);
    let mut power = vec![0.0f32; n];
    const BLOCK: usize = 2048;
    power
        .par_chunks_mut(BLOCK)
        .enumerate()
        .for_each(|(i, out)| {
            let from = i * BLOCK;
            for u in numerators.chunks_exact(n) {
                for (o, u) in out.iter_mut().zip(&u[from..]) {
                    *o += u.norm_sqr();
                }
            }
            for (o, r) in out.iter_mut().zip(&rss2[from..]) {
                *o *= reciprocal(*r);
            }
        });
    power
}

/// `sum_c |v_c|^2` of `[coil, n]`, coils in order.
pub(crate) fn sum_of_squares(values: &[Complex32], n: usize) -> Vec<f32> {
    const BLOCK: usize = 2048;
    let mut out = vec![0.0f32; n];
    out.par_chunks_mut(BLOCK).enumerate().for_each(|(i, out)| {
        for plane in values.chunks_exact(n) {
            for (o, v) in out.iter_mut().zip(&plane[i * BLOCK..]) {
                *o += v.norm_sqr();
            }
        }
    });
    out
}

/// Unnormalised unmixing weights `sum_c' conj(s_c') K_c'c` on `grid`, and the squared root sum of squares of `s`.
fn numerators(weights: &Weights, low: &LowRes, grid: [usize; 3]) -> (Vec<Complex32>, Vec<f32>) {
    let (small, n_small) = coarse_grid(weights, low, grid);
    let mut conjugate = low.images(small);
    conjugate.iter_mut().for_each(|v| *v = v.conj());
    let mut u = unmixing(weights, &conjugate, small);
    fft3(&mut u, small[0], small[1], small[2], Direction::Forward);
    debug_assert_eq!(u.len(), low.n_coils * n_small);
    let large = upsample(&u, small, grid);
    let images = low.images(grid);
    let n: usize = grid.iter().product();
    let rss2 = sum_of_squares(&images, n);
    (large, rss2)
}

/// Smallest convenient grid that holds the spectrum of `conj(s) K`, and its size; never larger than `grid`.
pub(crate) fn coarse_grid(
    weights: &Weights,
    low: &LowRes,
    grid: [usize; 3],
) -> ([usize; 3], usize) {
    let reach = reach(weights);
    let small = std::array::from_fn(|a| {
        let need = low.support[a] + 2 * reach[a];
        if grid[a] == 1 {
            1
        } else {
            smooth_length(need).min(grid[a])
        }
    });
    (small, small.iter().product())
}

/// The next length with no prime factor above 5.
pub(crate) fn smooth_length(n: usize) -> usize {
    (n.max(1)..)
        .find(|&m| {
            let mut m = m;
            for p in [2, 3, 5] {
                while m % p == 0 {
                    m /= p;
                }
            }
            m == 1
        })
        .unwrap_or(n)
}
