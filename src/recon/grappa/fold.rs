//! Unmixing of folded images, the fast way: 2D scans whose pattern closes over the grid.
//!
//! Lattice lines + [`Weights`] + [`LowRes`] -> combined image and power of its weights. Only transforms of the size of
//! what was measured are made of the data (length `n / R` along the phase-encoding axis), the unmixing weights are
//! calculated on the smallest grid that holds their spectra, and both meet in one pass over the columns, eight at a
//! time, so that nothing of the size of all coil images is ever stored.
//!
//! Lines measured outside the pattern (calibration lines) take the place of their prediction: the difference of the two
//! is combined while it is still k-space along y, where both it and the low-resolution images have few rows.
//!
//! # Numerics
//! The same image as filling k-space and combining, up to rounding, but for windows at the edges of k-space: they see
//! the other edge instead of zeros. Coils are summed in order.

use std::sync::Arc;

use num_complex::Complex32;
use rayon::prelude::*;

use super::calibrate::Weights;
use super::unmix::{coarse_grid, smooth_length, turn, unmixing};
use crate::data::{KSpace, Line};
use crate::num::complex::{Kernel, dispatch, mul};
use crate::num::fft::{Direction, Fft, fft2};
use crate::num::lanes::{LANES, LaneFft, Lanes, add_power, gather_columns, mul_add};
use crate::recon::combine::low_res::{LowRes, reciprocal, unit};
use crate::recon::sampling::Lattice;

/// Combined image and power of the unmixing weights, `[y, x]`.
pub(crate) struct Unfolded {
    pub(crate) voxels: Vec<Complex32>,
    pub(crate) power: Vec<f32>,
}

/// Whether [`unfold`] can be used: one dimension, every lattice line of the grid measured, a whole number of them.
pub(crate) fn applies(kspace: &KSpace, lattice: &Lattice) -> bool {
    let n1 = kspace.shape.pe1;
    kspace.shape.pe2 == 1
        && lattice.r2 == 1
        && n1.is_multiple_of(lattice.r1)
        && kspace
            .lines
            .iter()
            .filter(|l| lattice.contains(0, i64::from(l.pe1)))
            .count()
            == n1 / lattice.r1
}

/// Spectra `[item, row, x]`: transformed along x, still k-space along y.
struct Hybrid {
    rows: usize,
    nx: usize,
    data: Vec<Complex32>,
}

impl Hybrid {
    /// Pads centred spectra `[item, rows, columns]` to `nx` and transforms along x.
    fn new(spectra: &[Complex32], rows: usize, columns: usize, nx: usize) -> Self {
        let mut data = vec![Complex32::ZERO; spectra.len() / columns * nx];
        let fft = Fft::plan(nx, Direction::Inverse);
        let at = nx / 2 - (columns / 2).min(nx / 2);
        data.par_chunks_mut(nx * 8)
            .zip(spectra.par_chunks(columns * 8))
            .for_each(|(out, rows)| {
                for (o, r) in out.chunks_exact_mut(nx).zip(rows.chunks_exact(columns)) {
                    o[at..at + columns].copy_from_slice(r);
                }
                fft.run_rows_here(out);
            });
        Self { rows, nx, data }
    }

    /// Eight neighbours in one row of an item.
    #[inline(always)]
    fn lanes(&self, item: usize, row: usize, x: usize) -> Lanes {
        let start = (item * self.rows + row) * self.nx;
        Lanes::load(&self.data[start + x..start + self.nx])
    }

    /// Columns of one item from `x`, transformed along y into `out`, neither centred nor scaled: row `rows/2` is line
    /// `shift`, lines that are not there are zero.
    fn columns(&self, item: usize, x: usize, along_y: &AlongY, shift: i64, out: &mut [Lanes]) {
        let ny = out.len();
        let size = self.rows * self.nx;
        let first = shift - (self.rows / 2) as i64;
        let places: Vec<usize> = (first..first + self.rows as i64)
            .map(|line| along_y.places[line.rem_euclid(ny as i64) as usize])
            .collect();
        if self.rows < ny {
            out.fill(Lanes::ZERO);
        }
        let rows = &self.data[item * size..(item + 1) * size];
        gather_columns(rows, self.nx, x, &places, out);
        along_y.fft.inverse(out);
    }
}

/// Columns side by side, and the place of every line in them.
struct AlongY {
    fft: Arc<LaneFft>,
    places: Vec<usize>,
}

impl AlongY {
    fn new(n: usize) -> Self {
        let fft = LaneFft::plan(n);
        let places = fft.places();
        Self { fft, places }
    }
}

/// Unmixes; call only where [`applies`].
pub(crate) fn unfold(kspace: &KSpace, weights: &Weights, low: &LowRes) -> Unfolded {
    let (ny, nx) = (kspace.shape.pe1, kspace.shape.ro);
    let n_coils = kspace.shape.coil;
    let lattice = weights.window.lattice;
    let m = ny / lattice.r1;
    let (small, _) = coarse_grid(weights, low, [1, ny, nx]);
    let mut conjugate = low.images(small);
    conjugate.iter_mut().for_each(|v| *v = v.conj());
    let mut numerators = unmixing(weights, &conjugate, small);
    fft2(&mut numerators, small[1], small[2], Direction::Forward);
    let numerators = Hybrid::new(&numerators, small[1], small[2], nx);
    let (power, power_grid, power_scale) = squared_magnitude(low, ny, nx);
    let power = Hybrid::new(&power, power_grid[0], power_grid[1], nx);
    let reference = reference_spectrum(low);
    let reference = Hybrid::new(&reference, low.support[1], low.support[2], nx);
    let on_pattern = |l: &Line| lattice.contains(0, i64::from(l.pe1));
    let folded = hybrid_rows(kspace, on_pattern);
    let beside = Beside::new(kspace, weights, low, |l| !on_pattern(l));

    // Both transforms count voxels from the middle of the grid: there, folding repeats the short one.
    let shift = lattice.o1 as i64 + (lattice.r1 * (m / 2)) as i64 - (ny / 2) as i64;
    let [long, short] = [ny, m].map(AlongY::new);
    // What the unitary transforms would have scaled with.
    let long_scale = 1.0 / (ny as f32).sqrt();
    let scale = long_scale / ((m * lattice.r1) as f32).sqrt();
    let blocks: Vec<(Vec<Lanes>, Vec<[f32; LANES]>)> = (0..nx.div_ceil(LANES))
        .into_par_iter()
        .map(|block| {
            let x = block * LANES;
            let mut u = vec![Lanes::ZERO; ny];
            let mut a = vec![Lanes::ZERO; m];
            let mut sum = vec![Lanes::ZERO; ny];
            let mut gain = vec![[0.0f32; LANES]; ny];
            for coil in 0..n_coils {
                numerators.columns(coil, x, &long, shift, &mut u);
                folded.columns(coil, x, &short, 0, &mut a);
                add_power(&mut gain, &u);
                for (sum, u) in sum.chunks_exact_mut(m).zip(u.chunks_exact(m)) {
                    mul_add(sum, u, &a);
                }
            }
            if let Some(beside) = &beside {
                beside.combine(&folded, x, &long, &mut u);
                for (sum, u) in sum.iter_mut().zip(&u) {
                    *sum = sum.plus_product::<false, false>(*u, Lanes::splat(Complex32::ONE));
                }
            }
            power.columns(0, x, &long, 0, &mut u);
            let mut phase = vec![Lanes::ZERO; ny];
            reference.columns(0, x, &long, 0, &mut phase);
            for y in 0..ny {
                for (l, gain) in gain[y].iter_mut().enumerate() {
                    let inverse = reciprocal(u[y].re[l] * long_scale * power_scale);
                    let turn = unit(phase[y].get(l)) * (scale * inverse.sqrt());
                    let v = sum[y].get(l) * turn;
                    sum[y].set(l, v);
                    *gain *= inverse * long_scale * long_scale;
                }
            }
            (sum, gain)
        })
        .collect();
    let mut voxels = vec![Complex32::ZERO; ny * nx];
    let mut power = vec![0.0f32; ny * nx];
    voxels
        .par_chunks_mut(nx)
        .zip(power.par_chunks_mut(nx))
        .enumerate()
        .for_each(|(y, (voxels, power))| {
            let y = (y + ny - ny / 2) % ny;
            let out = voxels.chunks_mut(LANES).zip(power.chunks_mut(LANES));
            for ((voxels, power), (sum, gain)) in out.zip(&blocks) {
                sum[y].store(voxels);
                power.copy_from_slice(&gain[y][..power.len()]);
            }
        });
    Unfolded { voxels, power }
}

/// Some measured lines of every coil, transformed along x: `[coil, line, x]`.
fn hybrid_rows(kspace: &KSpace, wanted: impl Fn(&Line) -> bool) -> Hybrid {
    let nx = kspace.shape.ro;
    let lines: Vec<usize> = (0..kspace.lines.len())
        .filter(|&i| wanted(&kspace.lines[i]))
        .collect();
    let rows = lines.len();
    let mut data = vec![Complex32::ZERO; kspace.shape.coil * rows * nx];
    let fft = Fft::plan(nx, Direction::Inverse);
    data.par_chunks_mut(nx * 8)
        .enumerate()
        .for_each(|(block, out)| {
            for (j, row) in out.chunks_exact_mut(nx).enumerate() {
                let i = block * 8 + j;
                row.copy_from_slice(kspace.line(i / rows, lines[i % rows]));
            }
            fft.run_rows_here(out);
        });
    Hybrid { rows, nx, data }
}

/// Measured lines outside the pattern, to be combined in place of their predictions.
struct Beside<'a> {
    weights: &'a Weights,
    /// `[coil, line, x]`.
    measured: Hybrid,
    /// Line, target of the window, and the pattern's rows that predict it, one per source.
    lines: Vec<(usize, usize, Vec<usize>)>,
    /// Conjugate low-resolution images, `[coil, row, x]`, DC in the middle row.
    conjugate: Hybrid,
}

impl<'a> Beside<'a> {
    /// `None` when no line lies outside the pattern.
    fn new(
        kspace: &KSpace,
        weights: &'a Weights,
        low: &LowRes,
        wanted: impl Fn(&Line) -> bool,
    ) -> Option<Self> {
        let window = &weights.window;
        let (r, o) = (window.lattice.r1 as i64, window.lattice.o1 as i64);
        let m = (kspace.shape.pe1 / window.lattice.r1) as i64;
        let lines: Vec<(usize, usize, Vec<usize>)> = kspace
            .lines
            .iter()
            .filter(|l| wanted(l))
            .filter_map(|l| {
                let step = (i64::from(l.pe1) - o).rem_euclid(r);
                let base = (i64::from(l.pe1) - o - step) / r;
                let target = window.targets.iter().position(|t| t.1 == step)?;
                let row = |s: &(i64, i64)| (base + s.1 / r).rem_euclid(m) as usize;
                Some((
                    l.pe1 as usize,
                    target,
                    window.sources.iter().map(row).collect(),
                ))
            })
            .collect();
        if lines.is_empty() {
            return None;
        }
        // The spectrum of a conjugate image is the conjugate of the reversed spectrum.
        let n: usize = low.support.iter().product();
        let mut spectra = low.spectra.clone();
        for spectrum in spectra.chunks_exact_mut(n) {
            spectrum.reverse();
            spectrum.iter_mut().for_each(|v| *v = v.conj());
        }
        Some(Self {
            weights,
            measured: hybrid_rows(kspace, wanted),
            lines,
            conjugate: Hybrid::new(&spectra, low.support[1], low.support[2], kspace.shape.ro),
        })
    }

    /// Measured minus predicted lines, times the conjugate images, summed over coils: eight columns from `x`,
    /// transformed along y into `out`, as [`Hybrid::columns`] does.
    fn combine(&self, folded: &Hybrid, x: usize, along_y: &AlongY, out: &mut [Lanes]) {
        let n_coils = self.weights.n_coils;
        out.fill(Lanes::ZERO);
        dispatch(Difference {
            beside: self,
            folded,
            x,
            predictors: self.predictors(x),
            difference: (0..self.lines.len() * n_coils)
                .map(|i| self.measured.lanes(i % n_coils, i / n_coils, x))
                .collect(),
            conjugate: (0..self.conjugate.rows * n_coils)
                .map(|i| self.conjugate.lanes(i % n_coils, i / n_coils, x))
                .collect(),
            places: &along_y.places,
            out,
        });
        along_y.fft.inverse(out);
    }

    /// Minus the weights, transformed along the readout: `[target, source, coil_in, coil_out]`.
    fn predictors(&self, x: usize) -> Vec<Lanes> {
        let (window, n_coils) = (&self.weights.window, self.weights.n_coils);
        let n_out = self.weights.n_outputs();
        let turns: Vec<Lanes> = (0..window.ro)
            .map(|tap| {
                let mut turns = Lanes::ZERO;
                for lane in 0..LANES {
                    let t = turn(
                        tap as i64 - (window.ro / 2) as i64,
                        x + lane,
                        self.measured.nx,
                    );
                    turns.set(lane, Complex32::new(-t.re as f32, -t.im as f32));
                }
                turns
            })
            .collect();
        let mut out = vec![Lanes::ZERO; n_out * window.sources.len() * n_coils];
        dispatch(Predictors {
            values: &self.weights.values,
            turns: &turns,
            n_coils,
            n_out,
            out: &mut out,
        });
        out
    }
}

/// See [`Beside::predictors`].
struct Predictors<'a> {
    values: &'a [Complex32],
    turns: &'a [Lanes],
    n_coils: usize,
    n_out: usize,
    out: &'a mut [Lanes],
}

impl Kernel for Predictors<'_> {
    type Out = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let (n, w) = (self.n_coils, self.turns.len());
        let n_sources = self.out.len() / (self.n_out * n);
        for (i, out) in self.out.chunks_exact_mut(n).enumerate() {
            let (target, source, coil) = (i / (n_sources * n), i / n % n_sources, i % n);
            for (tap, turn) in self.turns.iter().enumerate() {
                let row = ((source * w + tap) * n + coil) * self.n_out + target * n;
                for (o, v) in out.iter_mut().zip(&self.values[row..row + n]) {
                    *o = o.plus_product::<FMA, false>(Lanes::splat(*v), *turn);
                }
            }
        }
    }
}

/// See [`Beside::combine`].
struct Difference<'a> {
    beside: &'a Beside<'a>,
    folded: &'a Hybrid,
    x: usize,
    predictors: Vec<Lanes>,
    /// Measured lines, `[line, coil]`.
    difference: Vec<Lanes>,
    /// `[row, coil]`.
    conjugate: Vec<Lanes>,
    places: &'a [usize],
    out: &'a mut [Lanes],
}

impl Kernel for Difference<'_> {
    type Out = ();

    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        let n = self.beside.weights.n_coils;
        let n_sources = self.beside.weights.window.sources.len();
        let ny = self.out.len() as i64;
        let half = (self.beside.conjugate.rows / 2) as i64;
        let lines = self
            .beside
            .lines
            .iter()
            .zip(self.difference.chunks_exact_mut(n));
        for ((line, target, rows), difference) in lines {
            for (source, row) in rows.iter().enumerate() {
                for coil in 0..n {
                    let from = self.folded.lanes(coil, *row, self.x);
                    let at = ((target * n_sources + source) * n + coil) * n;
                    for (d, w) in difference.iter_mut().zip(&self.predictors[at..at + n]) {
                        *d = d.plus_product::<FMA, false>(*w, from);
                    }
                }
            }
            for (j, conjugate) in self.conjugate.chunks_exact(n).enumerate() {
                let mut sum = Lanes::ZERO;
                for (s, d) in conjugate.iter().zip(&*difference) {
                    sum = sum.plus_product::<FMA, false>(*s, *d);
                }
                let at = (*line as i64 - ny / 2 + j as i64 - half).rem_euclid(ny) as usize;
                let out = &mut self.out[self.places[at]];
                *out = out.plus_product::<FMA, false>(sum, Lanes::splat(Complex32::ONE));
            }
        }
    }
}

/// Spectrum of the squared root sum of squares of the low-resolution images, its grid `[y, x]`, and the factor that
/// puts it into the units of a unitary transform of the large grid.
fn squared_magnitude(low: &LowRes, ny: usize, nx: usize) -> (Vec<Complex32>, [usize; 2], f32) {
    let grid: [usize; 2] =
        [(low.support[1], ny), (low.support[2], nx)].map(|(s, n)| smooth_length(2 * s - 1).min(n));
    let images = low.images([1, grid[0], grid[1]]);
    let n = grid[0] * grid[1];
    let mut power = vec![Complex32::ZERO; n];
    for image in images.chunks_exact(n) {
        for (p, s) in power.iter_mut().zip(image) {
            p.re += s.norm_sqr();
        }
    }
    fft2(&mut power, grid[0], grid[1], Direction::Forward);
    (power, grid, (n as f32 / (ny * nx) as f32).sqrt())
}

fn reference_spectrum(low: &LowRes) -> Vec<Complex32> {
    let n: usize = low.support.iter().product();
    let mut out = vec![Complex32::ZERO; n];
    let mut turned = vec![Complex32::ZERO; n];
    for (spectrum, v) in low.spectra.chunks_exact(n).zip(&low.reference) {
        mul(&mut turned, spectrum, &vec![v.conj(); n]);
        for (o, t) in out.iter_mut().zip(&turned) {
            *o += t;
        }
    }
    out
}
