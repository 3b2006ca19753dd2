//! The simulator's own Fourier transforms: centred, in two dimensions, keeping only the middle of what comes out.
//!
//! Nothing of this is shared with the reconstruction but the crate that does one row.

use std::sync::Arc;

use num_complex::Complex32;
use rayon::prelude::*;
use rustfft::{Fft, FftDirection, FftPlanner};

/// Columns that travel together through the cache.
const BLOCK: usize = 16;

/// A transform of `[from[0], from[1]]` (rows, columns) of which the middle `[to[0], to[1]]` is kept.
///
/// `out[k] = scale · Σ in[i] exp(∓2πi (k − m/2)(i − n/2) / n)` along both axes, with `m` kept of `n`.
pub(super) struct Middle {
    from: [usize; 2],
    to: [usize; 2],
    rows: Arc<dyn Fft<f32>>,
    columns: Arc<dyn Fft<f32>>,
    scale: f32,
}

impl Middle {
    /// `to` must not exceed `from`.
    pub(super) fn plan(from: [usize; 2], to: [usize; 2], is_inverse: bool, scale: f64) -> Self {
        let direction = if is_inverse {
            FftDirection::Inverse
        } else {
            FftDirection::Forward
        };
        let mut planner = FftPlanner::new();
        #[allow(clippy::cast_possible_truncation)] // storage precision
        Self {
            from,
            to,
            rows: planner.plan_fft(from[1], direction),
            columns: planner.plan_fft(from[0], direction),
            scale: scale as f32,
        }
    }

    /// Transforms `data`, which is used up.
    pub(super) fn run(&self, data: &mut [Complex32]) -> Vec<Complex32> {
        let ([ny, nx], [my, mx]) = (self.from, self.to);
        let mut scratch = vec![Complex32::ZERO; self.rows.get_inplace_scratch_len()];
        let left = nx / 2 - mx / 2;
        for row in data.chunks_exact_mut(nx) {
            // Air stays air: most rows of a wide field of view are empty.
            if row.iter().all(|v| *v == Complex32::ZERO) {
                continue;
            }
            row.rotate_left(nx / 2);
            self.rows.process_with_scratch(row, &mut scratch);
            row.rotate_right(nx / 2);
        }
        let mut scratch = vec![Complex32::ZERO; self.columns.get_inplace_scratch_len()];
        let mut columns = vec![Complex32::ZERO; BLOCK * ny];
        let mut out = vec![Complex32::ZERO; my * mx];
        let top = ny / 2 - my / 2;
        for first in (0..mx).step_by(BLOCK) {
            let width = BLOCK.min(mx - first);
            for y in 0..ny {
                // The middle comes first, as the transform wants it.
                let at = (y + ny - ny / 2) % ny;
                let row = &data[y * nx + left + first..][..width];
                for (c, v) in row.iter().enumerate() {
                    columns[c * ny + at] = *v;
                }
            }
            self.columns
                .process_with_scratch(&mut columns[..width * ny], &mut scratch);
            for y in 0..my {
                let at = (y + top + ny - ny / 2) % ny;
                let row = &mut out[y * mx + first..][..width];
                for (c, v) in row.iter_mut().enumerate() {
                    *v = columns[c * ny + at] * self.scale;
                }
            }
        }
        out
    }

    /// Transforms several at once.
    pub(super) fn run_all(&self, maps: Vec<Vec<Complex32>>) -> Vec<Vec<Complex32>> {
        maps.into_par_iter().map(|mut m| self.run(&mut m)).collect()
    }
}

/// The next size at or above `n` that is even and has no prime factor above 7.
pub(super) fn good_size(n: usize) -> usize {
    let mut size = n.max(2).next_multiple_of(2);
    loop {
        let mut rest = size;
        for p in [2, 3, 5, 7] {
            while rest.is_multiple_of(p) {
                rest /= p;
            }
        }
        if rest == 1 {
            return size;
        }
        size += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    fn direct(x: &[Complex32], from: [usize; 2], to: [usize; 2], sign: f64) -> Vec<Complex32> {
        let phase = |k: usize, m: usize, i: usize, n: usize| {
            sign * TAU * (k as f64 - (m / 2) as f64) * (i as f64 - (n / 2) as f64) / n as f64
        };
        let mut out = Vec::new();
        for ky in 0..to[0] {
            for kx in 0..to[1] {
                let mut sum = num_complex::Complex64::ZERO;
                for y in 0..from[0] {
                    for x_at in 0..from[1] {
                        let v = x[y * from[1] + x_at];
                        sum += num_complex::Complex64::new(v.re.into(), v.im.into())
                            * num_complex::Complex64::from_polar(
                                1.0,
                                phase(ky, to[0], y, from[0]) + phase(kx, to[1], x_at, from[1]),
                            );
                    }
                }
                out.push(Complex32::new(sum.re as f32, sum.im as f32));
            }
        }
        out
    }

    #[test]
    fn the_transform_is_its_direct_sum() {
        for (from, to) in [
            ([1, 1], [1, 1]),
            ([6, 10], [6, 10]),
            ([7, 9], [3, 4]),
            ([24, 18], [12, 17]),
            ([5, 40], [4, 19]),
        ] {
            let x: Vec<Complex32> = (0..from[0] * from[1])
                .map(|i| Complex32::new((i as f32 * 0.7).sin(), (i as f32 * 1.3).cos()))
                .collect();
            for inverse in [false, true] {
                let sign = if inverse { 1.0 } else { -1.0 };
                let want = direct(&x, from, to, sign);
                let got = Middle::plan(from, to, inverse, 2.0).run(&mut x.clone());
                for (g, w) in got.iter().zip(&want) {
                    assert!((g - w * 2.0).norm() < 1e-3, "{from:?} {to:?} {g} {w}");
                }
            }
        }
    }

    #[test]
    fn sizes_are_good() {
        assert_eq!(good_size(1), 2);
        assert_eq!(good_size(640), 640);
        assert_eq!(good_size(641), 648);
        assert_eq!(good_size(334), 336);
    }
}
