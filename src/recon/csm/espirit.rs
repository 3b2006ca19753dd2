//! ESPIRiT: maps as eigenvectors of the projector onto the calibration matrix's row space, per voxel.
//!
//! With `P` the projector onto the span of all calibration windows (coil x window), the matrix
//! `G(r) = 1/K sum_(o,o') P[(c,o),(c',o')] exp(2 pi i (o-o') r / N)` has the sensitivities of voxel `r` as eigenvector
//! with eigenvalue 1. `G` depends on `o - o'` alone: it is a trigonometric polynomial of `2 k - 1` terms along each
//! axis, kept here as its coefficients for every pair of coils and evaluated wherever it is wanted.
#![allow(
    clippy::needless_range_loop,
    reason = "lanes of several arrays share one index: the form that is vectorised"
)]

use faer::MatRef;
use num_complex::Complex32;
use rayon::prelude::*;

use super::eigen::{LANES, Workspace, packed_index, padded};
use super::{Calibration, CsmError, CsmParams, principal_component};
use crate::data::{Csm, KSpace};
use crate::num::complex::{Kernel, dispatch, fma};
use crate::num::linalg::{LinalgError, eigh_f32};

/// Where eigenvectors are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grid {
    /// At every voxel: the reference.
    #[cfg_attr(not(test), allow(dead_code))]
    Full,
    /// On a coarser grid with interpolation where they are smooth.
    Coarse,
}

/// Largest calibration matrix that is factorised (smaller side).
const LARGEST: usize = 2048;
/// Nodes of the coarse grid per shortest period of `G`.
const NODES_PER_PERIOD: usize = 16;
/// Cubic and linear interpolation in the middle of a cell may differ by this much (unit vectors) for the cubic one to
/// be used: for a sinusoid the cubic one's own error is then below 1.5 times its square, 1.4e-3.
const SMOOTH: f32 = 0.03;

pub(super) fn maps(
    acs: &KSpace,
    matrix: [usize; 3],
    params: &CsmParams,
    grid: Grid,
) -> Result<Csm, CsmError> {
    let calibration = Calibration::extract(acs, params.calibration)?;
    calibration.require(acs, params.window + 2)?;
    let polynomial = Polynomial::new(&calibration, params)?;
    let gauge = principal_component(&calibration)?;
    let n_coils = calibration.n_coils;
    let [nz, ny, nx] = matrix;
    let plane = ny * nx;
    let mut maps = vec![Complex32::ZERO; params.n_sets * n_coils * nz * plane];
    let job = Job {
        polynomial: &polynomial,
        gauge: Gauge::new(&gauge),
        params,
        matrix,
    };
    let nodes = [ny, nx].map(|n| n.min(NODES_PER_PERIOD * (params.window - 1)));
    let is_coarse =
        grid == Grid::Coarse && params.n_sets == 1 && 3 * nodes[0] * nodes[1] < 2 * plane;
    for z in 0..nz {
        // Rows of all coils and sets, grouped by the strip of rows that one task makes.
        let strip_of = |y: usize| if is_coarse { y * nodes[0] / ny } else { y };
        let n_strips = if is_coarse { nodes[0] } else { ny };
        let mut strips: Vec<Vec<&mut [Complex32]>> = (0..n_strips).map(|_| Vec::new()).collect();
        for (i, row) in maps.chunks_exact_mut(nx).enumerate() {
            let (y, z_of_row) = (i % ny, i / ny % nz);
            if z_of_row == z {
                strips[strip_of(y)].push(row);
            }
        }
        if is_coarse {
            let coarse = Nodes::new(&job, z, nodes);
            strips.par_iter_mut().enumerate().for_each(|(strip, rows)| {
                dispatch(Strip {
                    job: &job,
                    coarse: &coarse,
                    z,
                    strip,
                    rows,
                })
            });
        } else {
            strips.par_iter_mut().enumerate().for_each(|(y, rows)| {
                dispatch(ExactRow {
                    job: &job,
                    z,
                    y,
                    rows,
                })
            });
        }
    }
    Ok(Csm {
        n_sets: params.n_sets,
        n_coils,
        matrix,
        maps,
    })
}

/// The matrix function `G` by its coefficients.
pub(super) struct Polynomial {
    pub(super) n_coils: usize,
    /// Pairs of coils, padded to whole vector registers.
    pub(super) pairs: usize,
    /// Coefficients along z, y, x: `2 window - 1`, differences `-(window-1)..window`.
    pub(super) taps: [usize; 3],
    /// `[z, y, x, pair]`.
    pub(super) re: Vec<f32>,
    pub(super) im: Vec<f32>,
}

/// The calibration matrix's window.
pub(super) fn window_of(calibration: &Calibration, params: &CsmParams) -> [usize; 3] {
    let dims = calibration.dims;
    dims.map(|n| if n == 1 { 1 } else { params.window.min(n) })
}

/// [`Polynomial::pairs`].
pub(super) fn pairs_of(n_coils: usize) -> usize {
    (n_coils * (n_coils + 1) / 2).next_multiple_of(LANES)
}

/// Coefficients left along x once z and y are fixed, `[x, pair]`.
struct RowPolynomial {
    re: Vec<f32>,
    im: Vec<f32>,
}

impl Polynomial {
    pub(super) fn new(calibration: &Calibration, params: &CsmParams) -> Result<Self, CsmError> {
        let window = window_of(calibration, params);
        let kernels = signal_space(calibration, window, params.threshold)?;
        let n_coils = calibration.n_coils;
        let size: usize = window.iter().product();
        let unknowns = n_coils * size;
        let rank = kernels.len() / unknowns;
        let k = MatRef::from_row_major_slice(&kernels, rank, unknowns);
        // Row c of the projector's column-major result is one coil and offset.
        let projector = k.transpose() * k.conjugate();
        let taps = window.map(|w| 2 * w - 1);
        let pairs = pairs_of(n_coils);
        let mut re = vec![0.0; taps.iter().product::<usize>() * pairs];
        let mut im = re.clone();
        let scale = 1.0 / size as f32;
        let offsets: Vec<[usize; 3]> = (0..size)
            .map(|o| {
                [
                    o / (window[1] * window[2]),
                    o / window[2] % window[1],
                    o % window[2],
                ]
            })
            .collect();
        for j in 0..n_coils {
            for (b, second) in offsets.iter().enumerate() {
                let column = projector.col(j * size + b);
                for i in j..n_coils {
                    let pair = packed_index(n_coils, i, j);
                    for (a, first) in offsets.iter().enumerate() {
                        let tap = [0, 1, 2].map(|d| first[d] + window[d] - 1 - second[d]);
                        let at = ((tap[0] * taps[1] + tap[1]) * taps[2] + tap[2]) * pairs + pair;
                        let v = column[i * size + a];
                        re[at] += v.re * scale;
                        im[at] += v.im * scale;
                    }
                }
            }
        }
        Ok(Self {
            n_coils,
            pairs,
            taps,
            re,
            im,
        })
    }

    /// Fixes z and y, in turns of the field of view (`(r - n/2) / n`).
    fn row(&self, z: f64, y: f64) -> RowPolynomial {
        let line = self.taps[2] * self.pairs;
        let mut row = RowPolynomial {
            re: vec![0.0; line],
            im: vec![0.0; line],
        };
        for tz in 0..self.taps[0] {
            for ty in 0..self.taps[1] {
                let turns = (tz as f64 - (self.taps[0] / 2) as f64) * z
                    + (ty as f64 - (self.taps[1] / 2) as f64) * y;
                let start = (tz * self.taps[1] + ty) * line;
                dispatch(AddTurned {
                    re: &self.re[start..start + line],
                    im: &self.im[start..start + line],
                    turn: turn(turns),
                    row: &mut row,
                });
            }
        }
        row
    }

    /// `exp(2 pi i t x)` for each tap `t` along x.
    fn turns_x(&self, x: f64) -> Vec<[f32; 2]> {
        let half = (self.taps[2] / 2) as f64;
        (0..self.taps[2])
            .map(|t| turn((t as f64 - half) * x))
            .collect()
    }
}

fn turn(turns: f64) -> [f32; 2] {
    let (sin, cos) = (std::f64::consts::TAU * turns.fract()).sin_cos();
    [cos as f32, sin as f32]
}

struct AddTurned<'a> {
    re: &'a [f32],
    im: &'a [f32],
    turn: [f32; 2],
    row: &'a mut RowPolynomial,
}
impl Kernel for AddTurned<'_> {
    type Out = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let [c, s] = self.turn;
        let from = self.re.iter().zip(self.im);
        let to = self.row.re.iter_mut().zip(self.row.im.iter_mut());
        for ((a, b), (re, im)) in from.zip(to) {
            *re = fma::<FMA>(*a, c, fma::<FMA>(-*b, s, *re));
            *im = fma::<FMA>(*a, s, fma::<FMA>(*b, c, *im));
        }
    }
}

/// Evaluates the packed matrix at one position along x.
#[inline(always)]
fn evaluate<const FMA: bool>(
    row: &RowPolynomial,
    pairs: usize,
    turns: &[[f32; 2]],
    re: &mut [f32],
    im: &mut [f32],
) {
    for block in (0..pairs).step_by(LANES) {
        let mut sum_re = [0.0f32; LANES];
        let mut sum_im = [0.0f32; LANES];
        for (t, [c, s]) in turns.iter().enumerate() {
            let at = t * pairs + block;
            let a = &row.re[at..at + LANES];
            let b = &row.im[at..at + LANES];
            for l in 0..LANES {
                sum_re[l] = fma::<FMA>(a[l], *c, fma::<FMA>(-b[l], *s, sum_re[l]));
                sum_im[l] = fma::<FMA>(a[l], *s, fma::<FMA>(b[l], *c, sum_im[l]));
            }
        }
        re[block..block + LANES].copy_from_slice(&sum_re);
        im[block..block + LANES].copy_from_slice(&sum_im);
    }
}

/// Orthonormal basis of the span of the calibration windows that hold signal: `[vector, coil, z, y, x]`.
fn signal_space(
    calibration: &Calibration,
    window: [usize; 3],
    threshold: f64,
) -> Result<Vec<Complex32>, CsmError> {
    let dims = calibration.dims;
    let places = [0, 1, 2].map(|d| dims[d] - window[d] + 1);
    let n_windows: usize = places.iter().product();
    let unknowns = calibration.n_coils * window.iter().product::<usize>();
    let smaller = n_windows.min(unknowns);
    if smaller > LARGEST {
        return Err(CsmError::TooLarge {
            found: smaller,
            limit: LARGEST,
        });
    }
    let samples = calibration.of_unit_power();

    let mut matrix = Vec::with_capacity(n_windows * unknowns);
    for p2 in 0..places[0] {
        for p1 in 0..places[1] {
            for p0 in 0..places[2] {
                for coil in 0..calibration.n_coils {
                    for w2 in 0..window[0] {
                        for w1 in 0..window[1] {
                            let row =
                                ((coil * dims[0] + p2 + w2) * dims[1] + p1 + w1) * dims[2] + p0;
                            matrix.extend_from_slice(&samples[row..row + window[2]]);
                        }
                    }
                }
            }
        }
    }
    let a = MatRef::from_row_major_slice(&matrix, n_windows, unknowns);
    let significant = |values: &[f64]| {
        values
            .iter()
            .take_while(|v| **v > threshold * values[0])
            .count()
    };
    if n_windows < unknowns {
        let gram = window_gram(&samples, calibration.n_coils, dims, window);
        let eigen = eigh_f32(&gram, n_windows)?;
        let rank = significant(&eigen.values);
        if rank == 0 {
            return Err(LinalgError::NoConvergence { size: n_windows }.into());
        }
        let u = MatRef::from_row_major_slice(&eigen.vectors[..rank * n_windows], rank, n_windows);
        let product = u.conjugate() * a;
        let mut basis = Vec::with_capacity(rank * unknowns);
        for (m, value) in eigen.values.iter().enumerate().take(rank) {
            let scale = (1.0 / value.sqrt()) as f32;
            basis.extend((0..unknowns).map(|k| product[(m, k)] * scale));
        }
        Ok(basis)
    } else {
        let product = a.adjoint() * a;
        let gram: Vec<Complex32> = (0..unknowns)
            .flat_map(|i| (0..unknowns).map(move |j| (i, j)))
            .map(|(i, j)| product[(i, j)])
            .collect();
        let eigen = eigh_f32(&gram, unknowns)?;
        let rank = significant(&eigen.values);
        if rank == 0 {
            return Err(LinalgError::NoConvergence { size: unknowns }.into());
        }
        // A row of the matrix is a combination of conjugated right singular vectors.
        Ok(eigen.vectors[..rank * unknowns]
            .iter()
            .map(|v| v.conj())
            .collect())
    }
}

/// Gram matrix of the windows, `[window, window]`: the samples' Gram matrix summed along its diagonals, one axis at a
/// time, instead of `windows^2 x unknowns` products.
fn window_gram(
    samples: &[Complex32],
    n_coils: usize,
    dims: [usize; 3],
    window: [usize; 3],
) -> Vec<Complex32> {
    let n: usize = dims.iter().product();
    let by_coil = MatRef::from_row_major_slice(samples, n_coils, n);
    let product = by_coil.transpose() * by_coil.conjugate();
    let mut gram: Vec<Complex32> = (0..n)
        .flat_map(|i| (0..n).map(move |j| (i, j)))
        .map(|(i, j)| product[(i, j)])
        .collect();
    let mut extents = dims;
    for axis in 0..3 {
        let width = window[axis];
        if width == 1 {
            continue;
        }
        let from = extents[axis];
        let to = from - width + 1;
        let before: usize = extents[..axis].iter().product();
        let after: usize = extents[axis + 1..].iter().product();
        let (row_from, row_to) = (before * from * after, before * to * after);
        let mut next = vec![Complex32::ZERO; row_to * row_to];
        for b1 in 0..before {
            for i in 0..to {
                for a1 in 0..after {
                    let out_row = ((b1 * to + i) * after + a1) * row_to;
                    for b2 in 0..before {
                        let out = out_row + b2 * to * after;
                        let out = &mut next[out..out + to * after];
                        for o in 0..width {
                            let row = ((b1 * from + i + o) * after + a1) * row_from;
                            let start = row + (b2 * from + o) * after;
                            for (sum, v) in out.iter_mut().zip(&gram[start..start + to * after]) {
                                *sum += v;
                            }
                        }
                    }
                }
            }
        }
        gram = next;
        extents[axis] = to;
    }
    gram
}

/// The virtual coil that gives maps their phase, real and imaginary parts padded.
struct Gauge {
    re: Vec<f32>,
    im: Vec<f32>,
}

impl Gauge {
    fn new(vector: &[Complex32]) -> Self {
        let pitch = padded(vector.len());
        let part = |f: fn(&Complex32) -> f32| {
            let mut out: Vec<f32> = vector.iter().map(f).collect();
            out.resize(pitch, 0.0);
            out
        };
        Self {
            re: part(|v| v.re),
            im: part(|v| v.im),
        }
    }
}

struct Job<'a> {
    polynomial: &'a Polynomial,
    gauge: Gauge,
    params: &'a CsmParams,
    matrix: [usize; 3],
}

impl Job<'_> {
    fn position(index: usize, n: usize) -> f64 {
        (index as f64 - (n / 2) as f64) / n as f64
    }

    fn row(&self, z: usize, y: usize) -> RowPolynomial {
        let [nz, ny, _] = self.matrix;
        self.polynomial
            .row(Self::position(z, nz), Self::position(y, ny))
    }

    /// Weight of a map with this eigenvalue, and the eigenvalue below which it is surely zero.
    #[inline(always)]
    fn weight(&self, eigenvalue: f32) -> f32 {
        let crop = self.params.crop;
        if self.params.soft {
            // As `crop_weight_function` of BART's calib.c.
            let x = (eigenvalue.max(0.0).sqrt() - crop) / (1.0 - crop);
            if x <= -1.0 {
                0.0
            } else if x >= 1.0 {
                1.0
            } else {
                0.5 * (1.0 + 2.0 * x / (1.0 + x * x))
            }
        } else if eigenvalue > crop {
            1.0
        } else {
            0.0
        }
    }

    fn surely_zero_below(&self) -> f32 {
        let crop = self.params.crop;
        if self.params.soft {
            (2.0 * crop - 1.0).max(0.0).powi(2) - 0.05
        } else {
            crop - 0.15
        }
    }

    /// Writes weight times unit vector times phase of one voxel into each coil's row.
    #[inline(always)]
    fn write<R: RowsOfVoxel>(&self, v: &[Vec<f32>; 2], weight: f32, rows: &mut R, x: usize) {
        let mut power = [0.0f32; LANES];
        let mut re = [0.0f32; LANES];
        let mut im = [0.0f32; LANES];
        for block in (0..v[0].len()).step_by(LANES) {
            let (a, b) = (&v[0][block..block + LANES], &v[1][block..block + LANES]);
            let p = &self.gauge.re[block..block + LANES];
            let q = &self.gauge.im[block..block + LANES];
            for l in 0..LANES {
                power[l] += a[l] * a[l] + b[l] * b[l];
                re[l] += p[l] * a[l] + q[l] * b[l];
                im[l] += p[l] * b[l] - q[l] * a[l];
            }
        }
        let power: f32 = power.iter().sum();
        let (re, im): (f32, f32) = (re.iter().sum(), im.iter().sum());
        let projection = (re * re + im * im).sqrt();
        if power <= 0.0 || weight == 0.0 {
            return;
        }
        let factor = weight / power.sqrt();
        let (c, s) = if projection > 0.0 {
            (re / projection * factor, -im / projection * factor)
        } else {
            (factor, 0.0)
        };
        for coil in 0..self.polynomial.n_coils {
            let (a, b) = (v[0][coil], v[1][coil]);
            rows.set(coil, x, Complex32::new(a * c - b * s, a * s + b * c));
        }
    }
}

trait RowsOfVoxel {
    fn set(&mut self, coil: usize, x: usize, v: Complex32);
}
/// One row of each coil, every `step`-th of a list from `first`.
struct RowsOf<'a, 'b> {
    rows: &'a mut [&'b mut [Complex32]],
    first: usize,
    step: usize,
}
impl RowsOfVoxel for RowsOf<'_, '_> {
    #[inline(always)]
    fn set(&mut self, coil: usize, x: usize, v: Complex32) {
        self.rows[self.first + coil * self.step][x] = v;
    }
}

/// Eigenvectors at every voxel of one row, for one or two sets.
struct ExactRow<'a, 'b> {
    job: &'a Job<'a>,
    z: usize,
    y: usize,
    /// `[set, coil]`, one row each.
    rows: &'a mut Vec<&'b mut [Complex32]>,
}
impl Kernel for ExactRow<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let polynomial = self.job.polynomial;
        let row = self.job.row(self.z, self.y);
        let nx = self.job.matrix[2];
        let mut work = Workspace::new(polynomial.n_coils);
        let (mut re, mut im) = (vec![0.0; polynomial.pairs], vec![0.0; polynomial.pairs]);
        for x in 0..nx {
            let turns = polynomial.turns_x(Job::position(x, nx));
            evaluate::<FMA>(&row, polynomial.pairs, &turns, &mut re, &mut im);
            work.unpack(&re, &im);
            for set in 0..self.job.params.n_sets {
                work.start_from_largest_column();
                let eigenvalue = work.iterate::<FMA>();
                let weight = self.job.weight(eigenvalue);
                let mut rows = RowsOf {
                    rows: self.rows,
                    first: set * polynomial.n_coils,
                    step: 1,
                };
                self.job.write(&work.vector, weight, &mut rows, x);
                if set + 1 < self.job.params.n_sets {
                    work.deflate(eigenvalue);
                }
            }
        }
    }
}

/// Eigenvectors on the coarse grid of one plane.
struct Nodes {
    /// y, x.
    extents: [usize; 2],
    pitch: usize,
    /// `[y, x, 2, coil]`.
    vectors: Vec<f32>,
    /// `[y, x]`.
    eigenvalues: Vec<f32>,
}

impl Nodes {
    fn new(job: &Job<'_>, z: usize, extents: [usize; 2]) -> Self {
        let pitch = padded(job.polynomial.n_coils);
        let mut vectors = vec![0.0; extents[0] * extents[1] * 2 * pitch];
        let mut eigenvalues = vec![0.0; extents[0] * extents[1]];
        vectors
            .par_chunks_mut(extents[1] * 2 * pitch)
            .zip(eigenvalues.par_chunks_mut(extents[1]))
            .enumerate()
            .for_each(|(y, (vectors, eigenvalues))| {
                dispatch(NodeRow {
                    job,
                    z,
                    y,
                    extents,
                    pitch,
                    vectors,
                    eigenvalues,
                });
            });
        Self {
            extents,
            pitch,
            vectors,
            eigenvalues,
        }
    }

    /// Real and imaginary part of the node, `[2, coil]`; indices wrap around.
    #[inline(always)]
    fn vector(&self, y: isize, x: isize) -> &[f32] {
        let at = self.index(y, x) * 2 * self.pitch;
        &self.vectors[at..at + 2 * self.pitch]
    }

    #[inline(always)]
    fn index(&self, y: isize, x: isize) -> usize {
        let [ny, nx] = self.extents;
        y.rem_euclid(ny as isize) as usize * nx + x.rem_euclid(nx as isize) as usize
    }
}

struct NodeRow<'a> {
    job: &'a Job<'a>,
    z: usize,
    y: usize,
    extents: [usize; 2],
    pitch: usize,
    vectors: &'a mut [f32],
    eigenvalues: &'a mut [f32],
}
impl Kernel for NodeRow<'_> {
    type Out = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let polynomial = self.job.polynomial;
        let [nz, ny, nx] = self.job.matrix;
        // Node j lies at voxel j n / nodes, which need not be a whole number.
        let position =
            |j: usize, nodes: usize, n: usize| j as f64 / nodes as f64 - (n / 2) as f64 / n as f64;
        let row = polynomial.row(
            Job::position(self.z, nz),
            position(self.y, self.extents[0], ny),
        );
        let mut work = Workspace::new(polynomial.n_coils);
        let (mut re, mut im) = (vec![0.0; polynomial.pairs], vec![0.0; polynomial.pairs]);
        for x in 0..self.extents[1] {
            let turns = polynomial.turns_x(position(x, self.extents[1], nx));
            evaluate::<FMA>(&row, polynomial.pairs, &turns, &mut re, &mut im);
            work.unpack(&re, &im);
            work.start_from_largest_column();
            self.eigenvalues[x] = work.iterate::<FMA>();
            let out = &mut self.vectors[x * 2 * self.pitch..(x + 1) * 2 * self.pitch];
            out[..self.pitch].copy_from_slice(&work.vector[0]);
            out[self.pitch..].copy_from_slice(&work.vector[1]);
        }
    }
}

/// Nodes that cubic interpolation reads along one axis.
const STENCIL: usize = 4;

/// Weights of Lagrange's cubic through nodes -1, 0, 1, 2 at `f` in `[0, 1)`.
fn cubic(f: f32) -> [f32; STENCIL] {
    [
        -f * (f - 1.0) * (f - 2.0) / 6.0,
        (f + 1.0) * (f - 1.0) * (f - 2.0) / 2.0,
        -(f + 1.0) * f * (f - 2.0) / 2.0,
        (f + 1.0) * f * (f - 1.0) / 6.0,
    ]
}

/// Cell and weights of each voxel along an axis.
fn places(n: usize, nodes: usize) -> Vec<(usize, [f32; STENCIL])> {
    (0..n)
        .map(|i| {
            let cell = i * nodes / n;
            let rest = (i * nodes % n) as f32 / n as f32;
            (cell, cubic(rest))
        })
        .collect()
}

/// Whether and how the voxels of a cell are made.
#[derive(Clone, Copy, PartialEq)]
enum Cell {
    Zero,
    Interpolated,
    Exact,
}

/// All rows between two rows of nodes.
struct Strip<'a, 'b> {
    job: &'a Job<'a>,
    coarse: &'a Nodes,
    z: usize,
    strip: usize,
    /// `[coil, y]`, rows of this strip.
    rows: &'a mut Vec<&'b mut [Complex32]>,
}

impl Kernel for Strip<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let job = self.job;
        let [_, ny, nx] = job.matrix;
        let nodes = self.coarse.extents;
        let pitch = self.coarse.pitch;
        let n_coils = job.polynomial.n_coils;
        let y_places: Vec<(usize, [f32; STENCIL])> = places(ny, nodes[0])
            .into_iter()
            .enumerate()
            .filter(|(_, (cell, _))| *cell == self.strip)
            .map(|(y, (_, weights))| (y, weights))
            .collect();
        let x_places = places(nx, nodes[1]);
        let columns = self.aligned_columns();
        let cells = self.judge_cells(&columns);

        let n_columns = nodes[1] + STENCIL - 1;
        let width = 2 * pitch;
        let mut line = vec![0.0f32; n_columns * width];
        let mut values = vec![0.0f32; n_columns];
        let mut voxel = [vec![0.0f32; pitch], vec![0.0f32; pitch]];
        let mut work = Workspace::new(n_coils);
        let (mut re, mut im) = (
            vec![0.0; job.polynomial.pairs],
            vec![0.0; job.polynomial.pairs],
        );
        let n_rows = y_places.len();
        for (i, (y, wy)) in y_places.iter().enumerate() {
            for column in 0..n_columns {
                let from = &columns[column * STENCIL * width..(column + 1) * STENCIL * width];
                let to = &mut line[column * width..(column + 1) * width];
                for block in (0..width).step_by(LANES) {
                    let mut sum = [0.0f32; LANES];
                    for t in 0..STENCIL {
                        let v = &from[t * width + block..t * width + block + LANES];
                        for l in 0..LANES {
                            sum[l] = fma::<FMA>(v[l], wy[t], sum[l]);
                        }
                    }
                    to[block..block + LANES].copy_from_slice(&sum);
                }
                values[column] = (0..STENCIL)
                    .map(|t| {
                        let y = self.strip as isize + t as isize - 1;
                        wy[t] * self.coarse.eigenvalues[self.coarse.index(y, column as isize - 1)]
                    })
                    .sum();
            }
            let mut exact_row = None;
            let mut rows = RowsOf {
                rows: self.rows,
                first: i,
                step: n_rows,
            };
            for (x, (cell, wx)) in x_places.iter().enumerate() {
                match cells[*cell] {
                    Cell::Zero => {}
                    Cell::Interpolated => {
                        let eigenvalue: f32 = (0..STENCIL).map(|t| wx[t] * values[cell + t]).sum();
                        let from = &line[cell * width..(cell + STENCIL) * width];
                        for part in 0..2 {
                            for block in (0..pitch).step_by(LANES) {
                                let mut sum = [0.0f32; LANES];
                                for t in 0..STENCIL {
                                    let at = t * width + part * pitch + block;
                                    let v = &from[at..at + LANES];
                                    for l in 0..LANES {
                                        sum[l] = fma::<FMA>(v[l], wx[t], sum[l]);
                                    }
                                }
                                voxel[part][block..block + LANES].copy_from_slice(&sum);
                            }
                        }
                        job.write(&voxel, job.weight(eigenvalue), &mut rows, x);
                    }
                    Cell::Exact => {
                        let row = exact_row.get_or_insert_with(|| job.row(self.z, *y));
                        let turns = job.polynomial.turns_x(Job::position(x, nx));
                        evaluate::<FMA>(row, job.polynomial.pairs, &turns, &mut re, &mut im);
                        work.unpack(&re, &im);
                        work.start_from_largest_column();
                        let eigenvalue = work.iterate::<FMA>();
                        job.write(&work.vector, job.weight(eigenvalue), &mut rows, x);
                    }
                }
            }
        }
    }
}

impl Strip<'_, '_> {
    /// The four nodes along y of every column, `[column, 4, 2, coil]`, columns -1 .. nodes + 2.
    ///
    /// Eigenvectors have no phase of their own: each column's second node follows its left neighbour, and the other
    /// nodes of the column follow it, so that within reach of the stencil all are in phase.
    #[inline(always)]
    fn aligned_columns(&self) -> Vec<f32> {
        let width = 2 * self.coarse.pitch;
        let n_columns = self.coarse.extents[1] + STENCIL - 1;
        let mut columns = vec![0.0f32; n_columns * STENCIL * width];
        let mut reference = self.coarse.vector(self.strip as isize, -1).to_vec();
        for column in 0..n_columns {
            let x = column as isize - 1;
            let column = &mut columns[column * STENCIL * width..(column + 1) * STENCIL * width];
            let anchor = &mut column[width..2 * width];
            align(
                self.coarse.vector(self.strip as isize, x),
                &reference,
                anchor,
            );
            reference.copy_from_slice(anchor);
            for t in [0, 2, 3] {
                let y = self.strip as isize + t as isize - 1;
                align(
                    self.coarse.vector(y, x),
                    &reference,
                    &mut column[t * width..(t + 1) * width],
                );
            }
        }
        columns
    }

    #[inline(always)]
    fn judge_cells(&self, columns: &[f32]) -> Vec<Cell> {
        let width = 2 * self.coarse.pitch;
        let middle = cubic(0.5);
        let low = self.job.surely_zero_below();
        (0..self.coarse.extents[1])
            .map(|cell| {
                let corner = |dy: isize, dx: isize| {
                    let at = self
                        .coarse
                        .index(self.strip as isize + dy, cell as isize + dx);
                    self.coarse.eigenvalues[at]
                };
                let largest = corner(0, 0)
                    .max(corner(0, 1))
                    .max(corner(1, 0))
                    .max(corner(1, 1));
                if largest < low {
                    return Cell::Zero;
                }
                let mut difference = 0.0;
                for k in 0..width {
                    let mut cubic_value = 0.0;
                    let mut linear_value = 0.0;
                    for tx in 0..STENCIL {
                        let column = &columns[(cell + tx) * STENCIL * width..];
                        let along_y: f32 = (0..STENCIL)
                            .map(|ty| middle[ty] * column[ty * width + k])
                            .sum();
                        cubic_value += middle[tx] * along_y;
                        if tx == 1 || tx == 2 {
                            linear_value += 0.25 * (column[width + k] + column[2 * width + k]);
                        }
                    }
                    difference += (cubic_value - linear_value).powi(2);
                }
                if difference < SMOOTH * SMOOTH {
                    Cell::Interpolated
                } else {
                    Cell::Exact
                }
            })
            .collect()
    }
}

/// `out = v` turned so that its inner product with `reference` is real and positive.
#[inline(always)]
fn align(v: &[f32], reference: &[f32], out: &mut [f32]) {
    let pitch = v.len() / 2;
    let (a, b) = v.split_at(pitch);
    let (p, q) = reference.split_at(pitch);
    let mut re = [0.0f32; LANES];
    let mut im = [0.0f32; LANES];
    for block in (0..pitch).step_by(LANES) {
        for l in block..block + LANES {
            re[l - block] += p[l] * a[l] + q[l] * b[l];
            im[l - block] += p[l] * b[l] - q[l] * a[l];
        }
    }
    let (re, im): (f32, f32) = (re.iter().sum(), im.iter().sum());
    let norm = (re * re + im * im).sqrt();
    let (c, s) = if norm > 0.0 {
        (re / norm, -im / norm)
    } else {
        (1.0, 0.0)
    };
    let (out_re, out_im) = out.split_at_mut(pitch);
    for l in 0..pitch {
        out_re[l] = a[l] * c - b[l] * s;
        out_im[l] = a[l] * s + b[l] * c;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::Rng;
    use crate::num::testing::assert_close;

    /// The windows' Gram matrix by its definition.
    fn reference_gram(
        samples: &[Complex32],
        n_coils: usize,
        dims: [usize; 3],
        window: [usize; 3],
    ) -> Vec<Complex32> {
        let places = [0, 1, 2].map(|d| dims[d] - window[d] + 1);
        let n: usize = places.iter().product();
        let at = |p: usize| {
            [
                p / (places[1] * places[2]),
                p / places[2] % places[1],
                p % places[2],
            ]
        };
        let mut gram = vec![Complex32::ZERO; n * n];
        for p in 0..n {
            for q in 0..n {
                for c in 0..n_coils {
                    for o2 in 0..window[0] {
                        for o1 in 0..window[1] {
                            for o0 in 0..window[2] {
                                let sample = |w: [usize; 3]| {
                                    samples[((c * dims[0] + w[0] + o2) * dims[1] + w[1] + o1)
                                        * dims[2]
                                        + w[2]
                                        + o0]
                                };
                                gram[p * n + q] += sample(at(p)) * sample(at(q)).conj();
                            }
                        }
                    }
                }
            }
        }
        gram
    }

    #[test]
    fn window_gram_is_its_definition() {
        for (dims, window) in [
            ([1, 7, 8], [1, 3, 4]),
            ([3, 5, 4], [2, 2, 3]),
            ([1, 4, 4], [1, 4, 2]),
        ] {
            let n_coils = 3;
            let samples = Rng::new(7).complex(n_coils * dims.iter().product::<usize>());
            assert_close(
                &window_gram(&samples, n_coils, dims, window),
                &reference_gram(&samples, n_coils, dims, window),
                1e-6,
            );
        }
    }

    #[test]
    fn cubic_reproduces_a_cubic() {
        let p = |x: f32| 1.0 + 2.0 * x - x * x + 0.5 * x * x * x;
        for f in [0.0, 0.25, 0.5, 0.9] {
            let w = cubic(f);
            let v: f32 = (0..4).map(|t| w[t] * p(t as f32 - 1.0)).sum();
            assert!((v - p(f)).abs() < 1e-5);
        }
    }
}
