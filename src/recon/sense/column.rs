//! One problem: all phase-encoding voxels at one place along the readout.
#![allow(
    clippy::needless_range_loop,
    reason = "lanes of several arrays share one index: the form that is vectorised"
)]

use num_complex::Complex32;
use rayon::prelude::*;

use super::compress::sum_of_squares;
use super::lattice::Folding;
use crate::num::complex::{
    Kernel, axpy, conj_mul_add, dispatch, dot_conj, mul, mul_add, mul_real, norm2, xpby,
};
use crate::num::fft::{Direction, Fft, fft2};

/// Transforms and weights that all columns share.
pub(super) struct Shared<'a> {
    pub(super) folding: &'a Folding,
    pub(super) n_sets: usize,
    /// Absolute Tikhonov weight.
    pub(super) lambda: f32,
    /// Along pe1 and pe2, both directions, not centred.
    rows: [Fft; 2],
    columns: [Fft; 2],
    /// `rest / (n1 n2)`, as the transforms need it: `[pe1, pe2]`, so that columns find it contiguous.
    rest: Vec<f32>,
    /// Whether any line along pe2 at this pe1 has weight.
    is_needed: Vec<bool>,
    is_exact: bool,
    /// Work on the coils of a column in parallel: there are too few columns for the threads.
    pub(super) inner_parallel: bool,
}

const FORWARD: usize = 0;
const INVERSE: usize = 1;
/// Columns along pe2 that are gathered together.
const GATHER: usize = 8;

impl<'a> Shared<'a> {
    pub(super) fn new(
        folding: &'a Folding,
        n_sets: usize,
        lambda: f32,
        inner_parallel: bool,
    ) -> Self {
        let [n2, n1] = folding.grid;
        let both = |n| {
            [
                Fft::plan(n, Direction::Forward),
                Fft::plan(n, Direction::Inverse),
            ]
        };
        let scale = 1.0 / (n1 * n2) as f32;
        let rest: Vec<f32> = (0..n1)
            .flat_map(|k1| (0..n2).map(move |k2| k2 * n1 + k1))
            .map(|i| folding.rest[i] * scale)
            .collect();
        let is_needed = rest
            .chunks(n2)
            .map(|c| c.iter().any(|w| *w != 0.0))
            .collect();
        Self {
            folding,
            n_sets,
            lambda,
            rows: both(n1),
            columns: both(n2),
            rest,
            is_needed,
            is_exact: folding.is_exact(),
            inner_parallel,
        }
    }

    pub(super) fn plane(&self) -> usize {
        self.folding.grid[0] * self.folding.grid[1]
    }

    fn scratch(&self) -> Vec<Complex32> {
        let n = self.rows[0]
            .scratch_len()
            .max(self.columns[0].scratch_len());
        vec![Complex32::ZERO; n]
    }

    /// `Fᴴ rest F` of one coil's plane, in place.
    /// Rows along pe1 that are not in `is_row` are zero on the way in and without meaning on the way out.
    fn filter(&self, image: &mut [Complex32], is_row: &[bool], scratch: &mut [Complex32]) {
        let [n2, n1] = self.folding.grid;
        self.some_rows(FORWARD, image, is_row, scratch);
        if n2 == 1 {
            mul_real(image, &self.rest);
        } else {
            let pitch = n2;
            let mut buffer = vec![Complex32::ZERO; GATHER * pitch];
            for start in (0..n1).step_by(GATHER) {
                let width = GATHER.min(n1 - start);
                if !self.is_needed[start..start + width].contains(&true) {
                    for row in image.chunks_exact_mut(n1) {
                        row[start..start + width].fill(Complex32::ZERO);
                    }
                    continue;
                }
                for (k, row) in image.chunks_exact(n1).enumerate() {
                    for (j, v) in row[start..start + width].iter().enumerate() {
                        buffer[j * pitch + k] = *v;
                    }
                }
                let used = &mut buffer[..width * pitch];
                self.columns[FORWARD].run_plain(used, scratch);
                mul_real(used, &self.rest[start * n2..(start + width) * n2]);
                self.columns[INVERSE].run_plain(used, scratch);
                for (k, row) in image.chunks_exact_mut(n1).enumerate() {
                    for (j, v) in row[start..start + width].iter_mut().enumerate() {
                        *v = buffer[j * pitch + k];
                    }
                }
            }
        }
        self.some_rows(INVERSE, image, is_row, scratch);
    }

    fn some_rows(
        &self,
        direction: usize,
        image: &mut [Complex32],
        is_row: &[bool],
        scratch: &mut [Complex32],
    ) {
        let n1 = self.folding.grid[1];
        for (row, is_row) in image.chunks_exact_mut(n1).zip(is_row) {
            if *is_row {
                self.rows[direction].run_plain(row, scratch);
            }
        }
    }

    /// `Fᴴ weights F` of one plane, in place, on the current pool; weights `[pe1, pe2]` hold the scale. `turned` is
    /// room for a plane.
    fn multiply(&self, image: &mut [Complex32], weights: &[f32], turned: &mut Vec<Complex32>) {
        let [n2, n1] = self.folding.grid;
        let rows = |direction: usize, image: &mut [Complex32]| {
            image.par_chunks_mut(n1 * GATHER).for_each(|rows| {
                self.rows[direction].run_plain(rows, &mut self.scratch());
            });
        };
        rows(FORWARD, image);
        turned.resize(n1 * n2, Complex32::ZERO);
        turned
            .par_chunks_mut(n2 * GATHER)
            .zip(weights.par_chunks(n2 * GATHER))
            .enumerate()
            .for_each(|(i, (columns, weights))| {
                let width = columns.len() / n2;
                for (k, row) in image.chunks_exact(n1).enumerate() {
                    for (j, v) in row[i * GATHER..i * GATHER + width].iter().enumerate() {
                        columns[j * n2 + k] = *v;
                    }
                }
                let mut scratch = self.scratch();
                self.columns[FORWARD].run_plain(columns, &mut scratch);
                mul_real(columns, weights);
                self.columns[INVERSE].run_plain(columns, &mut scratch);
            });
        image
            .par_chunks_mut(n1 * GATHER)
            .enumerate()
            .for_each(|(i, rows)| {
                let height = rows.len() / n1;
                for (k, column) in turned.chunks_exact(n2).enumerate() {
                    for (j, v) in column[i * GATHER..i * GATHER + height].iter().enumerate() {
                        rows[j * n1 + k] = *v;
                    }
                }
            });
        rows(INVERSE, image);
    }

    /// The preconditioner of an irregular mask over two axes: the best circulant approximation of the normal operator,
    /// whose diagonal in k-space is the mask averaged over the width of the maps' spectrum. Masks along one axis have
    /// too few points in that width for the average to tell anything: there it costs iterations.
    ///
    /// # Source
    /// Koolstra et al., Magn Reson Med 81:670-685 (2019), for the diagonal; the square roots of the sensitivity on
    /// both sides, for maps that are not of unit norm, are ours.
    fn circulant(&self, maps: &[Complex32]) -> Vec<Circulant> {
        let folding = self.folding;
        let [n2, n1] = folding.grid;
        if folding.is_lattice || n2 == 1 || n1 == 1 {
            return Vec::new();
        }
        let plane = n2 * n1;
        // Index of k-space with its origin in the middle, as the centred transform wants it.
        let centred = |i: usize| (i / n1 + n2 / 2) % n2 * n1 + (i % n1 + n1 / 2) % n1;
        let mut mask = vec![Complex32::ZERO; plane];
        for (i, rest) in folding.rest.iter().enumerate() {
            mask[centred(i)] = Complex32::from(rest + folding.weight);
        }
        fft2(&mut mask, n2, n1, Direction::Forward);
        maps.chunks_exact(maps.len() / self.n_sets)
            .map(|maps| {
                let density = sum_of_squares(maps, plane);
                let inside = density.iter().filter(|d| **d > 0.0).count().max(1) as f32;
                let mean = density.iter().sum::<f32>() / inside;
                let mut spectra = maps.to_vec();
                fft2(&mut spectra, n2, n1, Direction::Forward);
                let mut local: Vec<Complex32> = sum_of_squares(&spectra, plane)
                    .into_iter()
                    .map(|power| Complex32::from(power / inside))
                    .collect();
                fft2(&mut local, n2, n1, Direction::Forward);
                let scale = (plane as f32).sqrt();
                for (l, m) in local.iter_mut().zip(&mask) {
                    *l = m * l.conj() * scale;
                }
                fft2(&mut local, n2, n1, Direction::Inverse);
                let inverse = (0..n1)
                    .flat_map(|k1| (0..n2).map(move |k2| k2 * n1 + k1))
                    .map(|i| 1.0 / ((local[centred(i)].re.max(0.0) + self.lambda) * plane as f32))
                    .collect();
                let full = |d: f32| folding.mean_weight as f32 * d + self.lambda;
                let even = density
                    .iter()
                    .map(|d| {
                        if *d > 0.0 {
                            (full(mean) / full(*d)).sqrt()
                        } else {
                            0.0
                        }
                    })
                    .collect();
                Circulant { even, inverse }
            })
            .collect()
    }

    /// Unitary inverse transform of one coil's plane, in place, but for centring.
    fn inverse(&self, image: &mut [Complex32], scratch: &mut [Complex32]) {
        let [n2, n1] = self.folding.grid;
        self.rows[INVERSE].run_plain(image, scratch);
        let mut column = vec![Complex32::ZERO; n2];
        if n2 > 1 {
            for k1 in 0..n1 {
                for (k2, v) in column.iter_mut().enumerate() {
                    *v = image[k2 * n1 + k1];
                }
                self.columns[INVERSE].run_plain(&mut column, scratch);
                for (k2, v) in column.iter().enumerate() {
                    image[k2 * n1 + k1] = *v;
                }
            }
        }
        let scale = 1.0 / ((n1 * n2) as f32).sqrt();
        image.iter_mut().for_each(|v| *v *= scale);
    }
}

/// One column: its maps, and the inverse of its blocks.
pub(super) struct Column<'a> {
    shared: &'a Shared<'a>,
    n_coils: usize,
    /// `[set, coil, plane]`; coils may be mixtures.
    maps: Vec<Complex32>,
    /// The maps before mixing, for the right-hand side; empty where nothing was mixed.
    unmixed: Vec<Complex32>,
    /// Rows of the plane with any sensitivity.
    is_row: Vec<bool>,
    /// `[member, member, group]` with members `[set, fold]`: each block of the lattice's normal operator, lambda
    /// included; empty where the lattice is the mask.
    normal: Vec<Complex32>,
    /// The same, inverted.
    inverse: Vec<Complex32>,
    /// Diagonal of the noise covariance of the blocks alone, `[set, plane]`.
    pub(super) block_variance: Vec<f32>,
    /// Preconditioner of an irregular mask over two axes; empty otherwise.
    circulant: Vec<Circulant>,
}

/// A preconditioner `D Fᴴ C F D` of one set: `D` evens out the sensitivity, `C` the local density of the mask.
struct Circulant {
    /// Per voxel; zero where the maps are.
    even: Vec<f32>,
    /// Inverse density of k-space, with the scale of both transforms, `[pe1, pe2]` as [`Shared::rest`].
    inverse: Vec<f32>,
}

/// What a solve reports.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Done {
    pub(super) iterations: usize,
    pub(super) residual: f64,
}

impl<'a> Column<'a> {
    /// Takes the maps of this place, `[set, coil, plane]`, and inverts the blocks.
    ///
    /// `unmixed` are the maps of all coils where `maps` are of mixtures, else empty. What mixing leaves out of the
    /// operator counts squared, but the right-hand side would lose it once, with the noise it carries.
    pub(super) fn new(
        shared: &'a Shared<'a>,
        maps: Vec<Complex32>,
        unmixed: Vec<Complex32>,
    ) -> Self {
        let folding = shared.folding;
        let plane = shared.plane();
        let n_coils = maps.len() / (shared.n_sets * plane);
        let folds = folding.members.len();
        let size = folds * shared.n_sets;
        let [rows, width] = folding.domain;
        let groups = rows * width;
        let mut gram = vec![Complex32::ZERO; size * size * groups];
        for i in 0..size {
            for j in 0..=i {
                let block = &mut gram[(i * size + j) * groups..(i * size + j + 1) * groups];
                for (row, out) in block.chunks_exact_mut(width).enumerate() {
                    let a = folding.members[i % folds][row];
                    let b = folding.members[j % folds][row];
                    for coil in 0..n_coils {
                        let map = |set: usize, at: usize| {
                            let start = (set * n_coils + coil) * plane + at;
                            &maps[start..start + width]
                        };
                        conj_mul_add(out, map(i / folds, a), map(j / folds, b));
                    }
                }
            }
        }
        let scale = folding.weight / folds as f32;
        let normal = if shared.is_exact {
            Vec::new()
        } else {
            both_triangles(&gram, size, groups, scale, shared.lambda)
        };
        let mut variance = vec![0.0f32; size * groups];
        dispatch(Invert {
            size,
            groups,
            scale,
            lambda: shared.lambda,
            matrix: &mut gram,
            variance: &mut variance,
        });
        let mut block_variance = vec![0.0f32; shared.n_sets * plane];
        for member in 0..size {
            for row in 0..rows {
                let to = (member / folds) * plane + folding.members[member % folds][row];
                let from = member * groups + row * width;
                block_variance[to..to + width].copy_from_slice(&variance[from..from + width]);
            }
        }
        let circulant = shared.circulant(&maps);
        let [n2, n1] = folding.grid;
        let is_row = (0..n2)
            .map(|row| {
                maps.chunks_exact(plane).any(|m| {
                    m[row * n1..(row + 1) * n1]
                        .iter()
                        .any(|v| *v != Complex32::ZERO)
                })
            })
            .collect();
        Self {
            shared,
            n_coils,
            circulant,
            is_row,
            maps,
            unmixed,
            normal,
            inverse: gram,
            block_variance,
        }
    }

    fn map(&self, set: usize, coil: usize) -> &[Complex32] {
        map_of(&self.maps, self.n_coils, self.shared.plane(), set, coil)
    }

    /// `z = M⁻¹ r`, block by block, or the circulant one.
    pub(super) fn precondition(&self, r: &[Complex32], z: &mut [Complex32]) {
        if self.circulant.is_empty() {
            z.fill(Complex32::ZERO);
            self.add_blocks(&self.inverse, r, z);
            return;
        }
        let plane = self.shared.plane();
        let mut turned = Vec::new();
        for (set, circulant) in self.circulant.iter().enumerate() {
            let z = &mut z[set * plane..(set + 1) * plane];
            z.copy_from_slice(&r[set * plane..(set + 1) * plane]);
            mul_real(z, &circulant.even);
            self.shared.multiply(z, &circulant.inverse, &mut turned);
            mul_real(z, &circulant.even);
        }
    }

    /// `z += B r` for a matrix of blocks.
    fn add_blocks(&self, blocks: &[Complex32], r: &[Complex32], z: &mut [Complex32]) {
        let folding = self.shared.folding;
        let plane = self.shared.plane();
        let folds = folding.members.len();
        let size = folds * self.shared.n_sets;
        let [rows, width] = folding.domain;
        let groups = rows * width;
        for i in 0..size {
            for j in 0..size {
                let block = &blocks[(i * size + j) * groups..(i * size + j + 1) * groups];
                for row in 0..rows {
                    let to = (i / folds) * plane + folding.members[i % folds][row];
                    let from = (j / folds) * plane + folding.members[j % folds][row];
                    mul_add(
                        &mut z[to..to + width],
                        &block[row * width..(row + 1) * width],
                        &r[from..from + width],
                    );
                }
            }
        }
    }

    /// `q += Sᴴ Fᴴ rest F S p`; `images` is kept between calls, because fresh memory costs as much as a transform.
    fn add_rest(&self, p: &[Complex32], q: &mut [Complex32], images: &mut Vec<Complex32>) {
        if self.shared.is_exact {
            return;
        }
        let plane = self.shared.plane();
        let (n_sets, n_coils) = (self.shared.n_sets, self.n_coils);
        let coil_image = |coil: usize, image: &mut [Complex32], scratch: &mut [Complex32]| {
            mul(image, self.map(0, coil), &p[..plane]);
            for set in 1..n_sets {
                mul_add(
                    image,
                    self.map(set, coil),
                    &p[set * plane..(set + 1) * plane],
                );
            }
            self.shared.filter(image, &self.is_row, scratch);
        };
        if self.shared.inner_parallel {
            images.resize(n_coils * plane, Complex32::ZERO);
            images
                .par_chunks_exact_mut(plane)
                .enumerate()
                .for_each(|(coil, image)| coil_image(coil, image, &mut self.shared.scratch()));
            combine(&self.maps, plane, images, q);
        } else {
            let mut scratch = self.shared.scratch();
            images.resize(plane, Complex32::ZERO);
            let image = images.as_mut_slice();
            for coil in 0..n_coils {
                coil_image(coil, image, &mut scratch);
                for set in 0..n_sets {
                    conj_mul_add(
                        &mut q[set * plane..(set + 1) * plane],
                        self.map(set, coil),
                        image,
                    );
                }
            }
        }
    }

    /// `Sᴴ Fᴴ W y` from samples `[coil, line]`.
    pub(super) fn adjoint(&self, samples: &[Complex32]) -> Vec<Complex32> {
        let folding = self.shared.folding;
        let plane = self.shared.plane();
        let n_lines = folding.places.len();
        let maps = if self.unmixed.is_empty() {
            &self.maps
        } else {
            &self.unmixed
        };
        let n_coils = maps.len() / (self.shared.n_sets * plane);
        let mut b = vec![Complex32::ZERO; self.shared.n_sets * plane];
        let coil_image = |coil: usize, image: &mut [Complex32], scratch: &mut [Complex32]| {
            image.fill(Complex32::ZERO);
            for (i, v) in samples[coil * n_lines..(coil + 1) * n_lines]
                .iter()
                .enumerate()
            {
                image[folding.places[i]] = v * folding.line_phase[i] * folding.weights[i];
            }
            self.shared.inverse(image, scratch);
        };
        if self.shared.inner_parallel {
            let mut images = vec![Complex32::ZERO; n_coils * plane];
            images
                .par_chunks_exact_mut(plane)
                .enumerate()
                .for_each(|(coil, image)| coil_image(coil, image, &mut self.shared.scratch()));
            combine(maps, plane, &images, &mut b);
        } else {
            let mut scratch = self.shared.scratch();
            let mut image = vec![Complex32::ZERO; plane];
            for coil in 0..n_coils {
                coil_image(coil, &mut image, &mut scratch);
                for (set, b) in b.chunks_exact_mut(plane).enumerate() {
                    conj_mul_add(b, map_of(maps, n_coils, plane, set, coil), &image);
                }
            }
        }
        b
    }

    /// Solves the regularised normal equations for the right-hand side `b`; exact where the lattice is the mask.
    pub(super) fn solve(
        &self,
        b: &[Complex32],
        max_iterations: usize,
        tolerance: f64,
    ) -> (Vec<Complex32>, Done) {
        let n = b.len();
        let mut x = vec![Complex32::ZERO; n];
        self.precondition(b, &mut x);
        if self.shared.is_exact {
            return (x, Done::default());
        }
        let start = dot_conj(b, &x).re;
        if start <= 0.0 {
            return (x, Done::default());
        }
        let mut r = vec![Complex32::ZERO; n];
        self.add_blocks(&self.normal, &x, &mut r);
        let mut images = Vec::new();
        self.add_rest(&x, &mut r, &mut images);
        for (r, b) in r.iter_mut().zip(b) {
            *r = b - *r;
        }
        let mut z = vec![Complex32::ZERO; n];
        let mut p = vec![Complex32::ZERO; n];
        let mut q = vec![Complex32::ZERO; n];
        let mut before = 0.0f64;
        let mut done = Done::default();
        loop {
            self.precondition(&r, &mut z);
            let rho = dot_conj(&r, &z).re;
            done.residual = (rho.max(0.0) / start).sqrt();
            if done.residual <= tolerance || done.iterations >= max_iterations || norm2(&r) == 0.0 {
                return (x, done);
            }
            let beta = if before > 0.0 {
                (rho / before) as f32
            } else {
                0.0
            };
            xpby(&z, beta, &mut p);
            q.fill(Complex32::ZERO);
            self.add_blocks(&self.normal, &p, &mut q);
            self.add_rest(&p, &mut q, &mut images);
            let curvature = dot_conj(&p, &q).re;
            if curvature <= 0.0 {
                return (x, done); // rounding: nothing more to gain along p
            }
            let alpha = (rho / curvature) as f32;
            axpy(alpha, &p, &mut x);
            axpy(-alpha, &q, &mut r);
            before = rho;
            done.iterations += 1;
        }
    }
}

fn map_of(
    maps: &[Complex32],
    n_coils: usize,
    plane: usize,
    set: usize,
    coil: usize,
) -> &[Complex32] {
    let start = (set * n_coils + coil) * plane;
    &maps[start..start + plane]
}

/// `q += sum over coils of conj(map) image`, coils in order whatever the number of threads.
fn combine(maps: &[Complex32], plane: usize, images: &[Complex32], q: &mut [Complex32]) {
    const PIECE: usize = 4096;
    let n_coils = images.len() / plane;
    for (set, q) in q.chunks_exact_mut(plane).enumerate() {
        q.par_chunks_mut(PIECE).enumerate().for_each(|(i, q)| {
            for (coil, image) in images.chunks_exact(plane).enumerate() {
                let range = i * PIECE..i * PIECE + q.len();
                let map = map_of(maps, n_coils, plane, set, coil);
                conj_mul_add(q, &map[range.clone()], &image[range]);
            }
        });
    }
}

/// `scale * matrix + lambda` with both triangles, from the lower one; `[i, j, group]`.
fn both_triangles(
    lower: &[Complex32],
    size: usize,
    groups: usize,
    scale: f32,
    lambda: f32,
) -> Vec<Complex32> {
    let mut full = vec![Complex32::ZERO; lower.len()];
    for i in 0..size {
        for j in 0..=i {
            let from = &lower[(i * size + j) * groups..(i * size + j + 1) * groups];
            for (g, v) in from.iter().enumerate() {
                let v = v * scale;
                if i == j {
                    full[(i * size + i) * groups + g] = Complex32::new(v.re + lambda, 0.0);
                } else {
                    full[(i * size + j) * groups + g] = v;
                    full[(j * size + i) * groups + g] = v.conj();
                }
            }
        }
    }
    full
}

/// Inverts `scale * matrix + lambda` for many small Hermitian matrices at once, and the diagonal of the noise
/// covariance `(N + lambda)⁻¹ N (N + lambda)⁻¹`.
struct Invert<'a> {
    size: usize,
    groups: usize,
    scale: f32,
    lambda: f32,
    /// `[i, j, group]`, lower triangle given, all of the inverse returned.
    matrix: &'a mut [Complex32],
    /// `[i, group]`.
    variance: &'a mut [f32],
}

/// Matrices that are inverted side by side.
const LANES: usize = 8;

impl Kernel for Invert<'_> {
    type Out = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let n = self.size;
        let mut re = vec![[0.0f64; LANES]; n * n];
        let mut im = vec![[0.0f64; LANES]; n * n];
        let mut factor = [[[0.0f64; LANES]; 2]; 1];
        let lambda = f64::from(self.lambda);
        for start in (0..self.groups).step_by(LANES) {
            let width = LANES.min(self.groups - start);
            for i in 0..n {
                for j in 0..=i {
                    let from = &self.matrix[(i * n + j) * self.groups + start..][..width];
                    for l in 0..LANES {
                        // Lanes beyond the end repeat the last matrix: they are never stored.
                        let v = from[l.min(width - 1)] * self.scale;
                        let diagonal = if i == j { lambda } else { 0.0 };
                        re[i * n + j][l] = f64::from(v.re) + diagonal;
                        im[i * n + j][l] = if i == j { 0.0 } else { f64::from(v.im) };
                        re[j * n + i][l] = re[i * n + j][l];
                        im[j * n + i][l] = -im[i * n + j][l];
                    }
                }
            }
            // Gauss-Jordan without pivoting: stable for positive definite matrices.
            for k in 0..n {
                let mut pivot = [0.0f64; LANES];
                for l in 0..LANES {
                    pivot[l] = 1.0 / re[k * n + k][l];
                }
                re[k * n + k] = [1.0; LANES];
                im[k * n + k] = [0.0; LANES];
                for j in 0..n {
                    for l in 0..LANES {
                        re[k * n + j][l] *= pivot[l];
                        im[k * n + j][l] *= pivot[l];
                    }
                }
                for i in 0..n {
                    if i == k {
                        continue;
                    }
                    factor[0] = [re[i * n + k], im[i * n + k]];
                    re[i * n + k] = [0.0; LANES];
                    im[i * n + k] = [0.0; LANES];
                    for j in 0..n {
                        let (row_re, row_im) = (re[k * n + j], im[k * n + j]);
                        let (a, b) = (&mut re[i * n + j], &mut im[i * n + j]);
                        for l in 0..LANES {
                            let [fr, fi] = [factor[0][0][l], factor[0][1][l]];
                            a[l] -= fr * row_re[l] - fi * row_im[l];
                            b[l] -= fr * row_im[l] + fi * row_re[l];
                        }
                    }
                }
            }
            for i in 0..n {
                let mut squares = [0.0f64; LANES];
                for j in 0..n {
                    for l in 0..LANES {
                        let (a, b) = (re[i * n + j][l], im[i * n + j][l]);
                        squares[l] += a * a + b * b;
                    }
                    let to = &mut self.matrix[(i * n + j) * self.groups + start..][..width];
                    for (l, v) in to.iter_mut().enumerate() {
                        *v = Complex32::new(re[i * n + j][l] as f32, im[i * n + j][l] as f32);
                    }
                }
                let to = &mut self.variance[i * self.groups + start..][..width];
                for (l, v) in to.iter_mut().enumerate() {
                    *v = (re[i * n + i][l] - lambda * squares[l]).max(0.0) as f32;
                }
            }
        }
    }
}
