//! Unitary, centred FFT along chosen axes of complex f32 arrays.
//!
//! DC at index `n/2` in both domains; forward is image -> k-space with `exp(-2 pi i k x / n)`; both directions are
//! scaled by `1/sqrt(n)`.

use num_complex::Complex32;
use rayon::prelude::*;
use std::sync::Arc;

/// Direction of a transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Image to k-space.
    Forward,
    /// K-space to image.
    Inverse,
}

/// A planned centred, unitary 1D transform of length `n`.
#[derive(Clone)]
pub struct Fft {
    n: usize,
    plan: Arc<dyn rustfft::Fft<f32>>,
}

impl Fft {
    /// Plans a transform of length `n`.
    pub fn plan(n: usize, direction: Direction) -> Self {
        let mut planner = rustfft::FftPlanner::new();
        let plan = match direction {
            Direction::Forward => planner.plan_fft_forward(n),
            Direction::Inverse => planner.plan_fft_inverse(n),
        };
        Self { n, plan }
    }

    /// Transforms each contiguous row of length `n` in `rows`, in place, on the current rayon pool.
    pub fn run_rows(&self, rows: &mut [Complex32]) {
        let n = self.n;
        if n == 0 {
            return;
        }
        rows.par_chunks_mut(n * 16).for_each(|block| {
            let mut scratch = vec![Complex32::ZERO; self.plan.get_inplace_scratch_len()];
            for row in block.chunks_exact_mut(n) {
                self.run_one(row, &mut scratch);
            }
        });
    }

    fn run_one(&self, row: &mut [Complex32], scratch: &mut [Complex32]) {
        let scale = 1.0 / (self.n as f32).sqrt();
        row.rotate_left(self.n / 2);
        self.plan.process_with_scratch(row, scratch);
        row.rotate_right(self.n / 2);
        for v in row {
            *v *= scale;
        }
    }

    /// Transforms along `axis` of a row-major array with extents `dims`, in place, on the current rayon pool.
    pub fn run_axis(&self, data: &mut [Complex32], dims: &[usize], axis: usize) {
        debug_assert_eq!(dims[axis], self.n);
        debug_assert_eq!(dims.iter().product::<usize>(), data.len());
        let inner: usize = dims[axis + 1..].iter().product();
        if inner == 1 {
            return self.run_rows(data);
        }
        let n = self.n;
        data.par_chunks_mut(n * inner).for_each(|block| {
            let mut scratch = vec![Complex32::ZERO; self.plan.get_inplace_scratch_len()];
            let mut row = vec![Complex32::ZERO; n];
            for i in 0..inner {
                for k in 0..n {
                    row[k] = block[k * inner + i];
                }
                self.run_one(&mut row, &mut scratch);
                for k in 0..n {
                    block[k * inner + i] = row[k];
                }
            }
        });
    }
}

/// Transforms along the last two axes of `[batch, ny, nx]`, in place.
pub fn fft2(data: &mut [Complex32], ny: usize, nx: usize, direction: Direction) {
    if data.is_empty() {
        return;
    }
    let dims = [data.len() / (ny * nx), ny, nx];
    Fft::plan(nx, direction).run_axis(data, &dims, 2);
    Fft::plan(ny, direction).run_axis(data, &dims, 1);
}

/// Transforms along the last three axes of `[batch, nz, ny, nx]`, in place.
pub fn fft3(data: &mut [Complex32], nz: usize, ny: usize, nx: usize, direction: Direction) {
    if data.is_empty() {
        return;
    }
    let dims = [data.len() / (nz * ny * nx), nz, ny, nx];
    Fft::plan(nx, direction).run_axis(data, &dims, 3);
    Fft::plan(ny, direction).run_axis(data, &dims, 2);
    Fft::plan(nz, direction).run_axis(data, &dims, 1);
}
