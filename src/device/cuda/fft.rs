//! Transforms on a card: what `kernels/fft.cuh` wants to know of a length, and the launches.

use num_complex::{Complex32, Complex64};

use super::{Arg, Buffer, CudaError, Queue};

/// Samples that a block has room for: `FFT_HALF`.
const HALF: usize = 3072;

/// The passes of a transform of one length.
#[derive(Clone, Debug, PartialEq)]
pub struct FftPlan {
    /// Length.
    pub n: usize,
    /// Radices of the passes, four bits each, the first one lowest.
    pub radices: i32,
    /// `exp(-2 pi i k / n)`.
    pub twiddles: Vec<Complex32>,
}

impl FftPlan {
    /// `None` for lengths that the kernels have no passes for: above 3072, or with a prime factor above 7.
    pub fn new(n: usize) -> Option<Self> {
        if n == 0 || n > HALF {
            return None;
        }
        let (mut rest, mut radices, mut shift) = (n, 0, 0);
        for radix in [8, 4, 2, 7, 5, 3] {
            while rest.is_multiple_of(radix) {
                // 3072 has six passes at most, of four bits each.
                radices |= (radix as i32) << shift;
                shift += 4;
                rest /= radix;
            }
        }
        let twiddle = |k: usize| {
            let wave = Complex64::cis(-std::f64::consts::TAU * k as f64 / n as f64);
            Complex32::new(wave.re as f32, wave.im as f32)
        };
        (rest == 1).then(|| Self {
            n,
            radices,
            twiddles: (0..n).map(twiddle).collect(),
        })
    }

    /// Most lines that a block can transform side by side.
    pub fn lines_at_once(&self) -> usize {
        HALF / self.n
    }
}

/// Unitary transforms of one length, with their table on a card.
#[derive(Debug)]
pub struct Transform {
    plan: FftPlan,
    twiddles: Buffer<Complex32>,
}

/// Which transform of some lines.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Way {
    /// `exp(-2 pi i)`, from image to k-space; else back.
    pub is_forward: bool,
    /// DC and the origin in the middle (`n / 2`); else first.
    pub is_centred: bool,
}

impl Way {
    /// From centred k-space to a centred image.
    pub const IMAGE: Self = Self {
        is_forward: false,
        is_centred: true,
    };
    /// From frequencies to places, both from zero on.
    pub const FROM_ZERO: Self = Self {
        is_forward: false,
        is_centred: false,
    };
}

/// Lines that a block takes at most.
const MOST_LINES: usize = 8;
/// Blocks that a card should have before they grow: about as many as it has multiprocessors.
const ENOUGH_BLOCKS: usize = 128;

impl Transform {
    pub(super) fn new(plan: FftPlan, twiddles: Buffer<Complex32>) -> Self {
        Self { plan, twiddles }
    }

    /// Length.
    pub fn n(&self) -> usize {
        self.plan.n
    }

    /// The passes, as kernels take them.
    pub fn radices(&self) -> Arg<'static> {
        Arg::I32(self.plan.radices)
    }

    /// The table, as kernels take it.
    pub fn twiddles(&self) -> Arg<'_> {
        Arg::input(&self.twiddles)
    }

    /// Lines that a block should take where there are `n_lines` in all.
    pub fn lines(&self, n_lines: usize) -> usize {
        let most = self.plan.lines_at_once().min(MOST_LINES);
        (n_lines / ENOUGH_BLOCKS).clamp(1, most)
    }

    /// Rows `[n_rows, n]`.
    ///
    /// # Errors
    /// As [`Queue::launch`].
    pub fn rows(
        &self,
        queue: &impl Queue,
        input: &Buffer<Complex32>,
        out: &mut Buffer<Complex32>,
        n_rows: usize,
        way: Way,
    ) -> Result<(), CudaError> {
        let count = self.lines(n_rows);
        let grid = [grid(n_rows.div_ceil(count))?, 1, 1];
        let n_lines = [n_rows, count];
        self.launch("fft_rows_c32", queue, (input, out), n_lines, grid, way)
    }

    /// Columns of `[n_batch, n, n_x]`.
    ///
    /// # Errors
    /// As [`Queue::launch`].
    pub fn columns(
        &self,
        queue: &impl Queue,
        input: &Buffer<Complex32>,
        out: &mut Buffer<Complex32>,
        [n_batch, n_x]: [usize; 2],
        way: Way,
    ) -> Result<(), CudaError> {
        let count = self.lines(n_x * n_batch);
        let grid = [grid(n_x.div_ceil(count))?, grid(n_batch)?, 1];
        let n_lines = [n_x, count];
        self.launch("fft_columns_c32", queue, (input, out), n_lines, grid, way)
    }

    fn launch(
        &self,
        kernel: &str,
        queue: &impl Queue,
        (input, out): (&Buffer<Complex32>, &mut Buffer<Complex32>),
        [n_lines, count]: [usize; 2],
        grid: [u32; 3],
        way: Way,
    ) -> Result<(), CudaError> {
        let n = self.plan.n;
        let args = [
            Arg::input(input),
            Arg::output(out),
            self.twiddles(),
            int(n)?,
            int(n_lines)?,
            self.radices(),
            int(count)?,
            int(if way.is_centred { n / 2 } else { 0 })?,
            Arg::F32(if way.is_forward { 1.0 } else { -1.0 }),
            Arg::F32(1.0 / (n as f32).sqrt()),
        ];
        queue.launch(kernel, grid, &args)
    }
}

/// A size as kernels take it.
///
/// # Errors
/// [`CudaError::Wrong`] from 2^31 on.
pub fn int(n: usize) -> Result<Arg<'static>, CudaError> {
    let of = i32::try_from(n).map(Arg::I32);
    of.map_err(|_| too_large(n))
}

/// A number of blocks.
///
/// # Errors
/// [`CudaError::Wrong`] from 2^31 on.
pub fn grid(n: usize) -> Result<u32, CudaError> {
    let of = i32::try_from(n).map(i32::cast_unsigned);
    of.map_err(|_| too_large(n))
}

fn too_large(n: usize) -> CudaError {
    CudaError::Wrong {
        what: format!("a size of {n}"),
        why: "kernels count below 2^31".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_multiply_to_the_length() {
        let mut known = 0;
        for n in 1..=HALF {
            let Some(plan) = FftPlan::new(n) else {
                continue;
            };
            let mut product = 1;
            let mut rest = plan.radices;
            while rest != 0 {
                product *= (rest & 15) as usize;
                rest >>= 4;
            }
            assert!(plan.radices >= 0 && product == n, "{n}");
            known += 1;
        }
        assert!(FftPlan::new(320).unwrap().radices == 0x588);
        assert!(known > 200 && FftPlan::new(11).is_none() && FftPlan::new(4096).is_none());
    }
}
