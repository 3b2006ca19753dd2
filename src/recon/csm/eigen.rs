//! Dominant eigenvectors of many small Hermitian matrices: power iteration with real and imaginary parts apart, eight
//! coils to a vector register.
#![allow(
    clippy::needless_range_loop,
    reason = "lanes of several arrays share one index: the form that is vectorised"
)]

use crate::num::complex::fma;

/// Coils are padded to a multiple of this.
pub(super) const LANES: usize = 8;

/// Coils with padding.
pub(super) fn padded(n_coils: usize) -> usize {
    n_coils.next_multiple_of(LANES)
}

/// Index of element `(i, j)`, `i >= j`, of a packed lower triangle stored by columns.
#[inline(always)]
pub(super) fn packed_index(n: usize, i: usize, j: usize) -> usize {
    j * n - j * (j + 1) / 2 + i
}

/// One Hermitian matrix and the vectors of its iteration; reused from voxel to voxel.
pub(super) struct Workspace {
    n: usize,
    pitch: usize,
    /// `[column, row]`, padded rows are zero.
    re: Vec<f32>,
    im: Vec<f32>,
    next: [Vec<f32>; 2],
    /// The eigenvector found last, real and imaginary part, padded with zeros.
    pub(super) vector: [Vec<f32>; 2],
}

/// Iterations at most. Where two eigenvalues are so near that this is too few, BART's 30 iterations mix them as well.
const MAX_ITERATIONS: usize = 96;
/// Relative residual at which the iteration goes on for only [`EXTRA`] more steps: its square stays above what `f32`
/// resolves.
const TOLERANCE: f32 = 1e-3;
/// Steps after that, which bring the vector's error below `1e-3` unless two eigenvalues nearly coincide.
const EXTRA: usize = 3;

impl Workspace {
    pub(super) fn new(n: usize) -> Self {
        let pitch = padded(n);
        Self {
            n,
            pitch,
            re: vec![0.0; n * pitch],
            im: vec![0.0; n * pitch],
            next: [vec![0.0; pitch], vec![0.0; pitch]],
            vector: [vec![0.0; pitch], vec![0.0; pitch]],
        }
    }

    /// Takes a packed lower triangle (see [`packed_index`]).
    #[inline(always)]
    pub(super) fn unpack(&mut self, re: &[f32], im: &[f32]) {
        let (n, pitch) = (self.n, self.pitch);
        for j in 0..n {
            let start = packed_index(n, j, j);
            let count = n - j;
            self.re[j * pitch + j..j * pitch + n].copy_from_slice(&re[start..start + count]);
            self.im[j * pitch + j..j * pitch + n].copy_from_slice(&im[start..start + count]);
            self.im[j * pitch + j] = 0.0;
            for i in j + 1..n {
                self.re[i * pitch + j] = re[start + i - j];
                self.im[i * pitch + j] = -im[start + i - j];
            }
        }
    }

    /// Starts from the column of the largest diagonal element: it holds the dominant eigenvector unless that has
    /// nothing in this coil.
    #[inline(always)]
    pub(super) fn start_from_largest_column(&mut self) {
        let mut best = 0;
        for j in 1..self.n {
            if self.re[j * self.pitch + j] > self.re[best * self.pitch + best] {
                best = j;
            }
        }
        let column = best * self.pitch..(best + 1) * self.pitch;
        self.vector[0].copy_from_slice(&self.re[column.clone()]);
        self.vector[1].copy_from_slice(&self.im[column]);
        self.normalise_start();
    }

    #[inline(always)]
    pub(super) fn normalise_start(&mut self) {
        let norm = norm2(&self.vector).sqrt();
        if norm > 0.0 {
            scale(&mut self.vector, 1.0 / norm);
        } else {
            self.vector[0][0] = 1.0;
        }
    }

    #[inline(always)]
    fn multiply<const FMA: bool>(&mut self) {
        let pitch = self.pitch;
        for block in (0..pitch).step_by(LANES) {
            let mut rr = [0.0f32; LANES];
            let mut ii = [0.0f32; LANES];
            let mut ri = [0.0f32; LANES];
            let mut ir = [0.0f32; LANES];
            let columns_re = self.re.chunks_exact(pitch);
            let columns_im = self.im.chunks_exact(pitch);
            for (j, (re, im)) in columns_re.zip(columns_im).enumerate() {
                let (a, b) = (self.vector[0][j], self.vector[1][j]);
                let re = &re[block..block + LANES];
                let im = &im[block..block + LANES];
                for l in 0..LANES {
                    rr[l] = fma::<FMA>(re[l], a, rr[l]);
                    ii[l] = fma::<FMA>(im[l], b, ii[l]);
                    ri[l] = fma::<FMA>(re[l], b, ri[l]);
                    ir[l] = fma::<FMA>(im[l], a, ir[l]);
                }
            }
            for l in 0..LANES {
                self.next[0][block + l] = rr[l] - ii[l];
                self.next[1][block + l] = ri[l] + ir[l];
            }
        }
    }

    /// Iterates to the dominant eigenvector from the unit vector in `vector`; returns its eigenvalue.
    #[inline(always)]
    pub(super) fn iterate<const FMA: bool>(&mut self) -> f32 {
        let mut eigenvalue = 0.0;
        let mut last = MAX_ITERATIONS;
        let mut step = 0;
        while step < last {
            step += 1;
            self.multiply::<FMA>();
            let power = norm2(&self.next);
            if power <= f32::MIN_POSITIVE {
                return 0.0;
            }
            if step == last || (step % 4 == 0 && last == MAX_ITERATIONS) {
                // |G v - lambda v|^2 = |G v|^2 - lambda^2 for the Rayleigh quotient lambda of the unit vector v.
                eigenvalue = dot_re(&self.vector, &self.next);
                if power - eigenvalue * eigenvalue < TOLERANCE * TOLERANCE * power {
                    last = last.min(step + EXTRA);
                }
            }
            std::mem::swap(&mut self.vector, &mut self.next);
            scale(&mut self.vector, 1.0 / power.sqrt());
        }
        eigenvalue
    }

    /// Takes the eigenvector in `vector` out of the matrix.
    #[inline(always)]
    pub(super) fn deflate(&mut self, eigenvalue: f32) {
        for j in 0..self.n {
            let (a, b) = (
                self.vector[0][j] * eigenvalue,
                -self.vector[1][j] * eigenvalue,
            );
            for i in 0..self.n {
                let (c, d) = (self.vector[0][i], self.vector[1][i]);
                self.re[j * self.pitch + i] -= c * a - d * b;
                self.im[j * self.pitch + i] -= c * b + d * a;
            }
        }
    }
}

#[inline(always)]
pub(super) fn norm2(v: &[Vec<f32>; 2]) -> f32 {
    dot_re(v, v)
}

#[inline(always)]
fn dot_re(a: &[Vec<f32>; 2], b: &[Vec<f32>; 2]) -> f32 {
    let mut sum = [0.0f32; LANES];
    for part in 0..2 {
        for (a, b) in a[part].chunks_exact(LANES).zip(b[part].chunks_exact(LANES)) {
            for l in 0..LANES {
                sum[l] += a[l] * b[l];
            }
        }
    }
    sum.iter().sum()
}

#[inline(always)]
fn scale(v: &mut [Vec<f32>; 2], factor: f32) {
    for part in v {
        for x in part.iter_mut() {
            *x *= factor;
        }
    }
}
