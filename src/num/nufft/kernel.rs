//! The Kaiser-Bessel window between samples and grid: its width for a tolerance, its transform, and the polynomials by
//! which it is evaluated. All in `f64`, once, when planned.
//!
//! # Source
//! Beatty, Nishimura and Pauly, IEEE Trans Med Imaging 24:799-808 (2005), doi:10.1109/TMI.2005.848376, for the shape at a
//! given oversampling; piecewise polynomials after Barnett, Magland and af Klinteberg, SIAM J Sci Comput 41:C479-C504
//! (2019), doi:10.1137/18M120885X, whose exponential of a semicircle has no transform in closed form.

use std::f64::consts::PI;

use num_complex::Complex64;

/// Widest window that the loops are compiled for.
pub(super) const WIDEST: usize = 12;
/// What single precision leaves of any image, and of a voxel in a corner per range of the factors: measured in
/// `tests.rs`, rounded up.
const ROUNDING: f64 = 4e-7;
const ROUNDING_IN_CORNERS: f64 = 6e-9;
/// Cells that a row of coefficients has room for.
pub(super) const CELLS: usize = 16;

/// `I0(beta sqrt(1 - (2 t / width)²)) / I0(beta)` for `|t| <= width / 2`, in cells of the grid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    width: usize,
    beta: f64,
}

impl Window {
    /// The window of this width on a grid `ratio` times as fine as the image needs.
    pub(super) fn new(width: usize, ratio: f64) -> Self {
        let w = width as f64;
        let square = (w / ratio * (ratio - 0.5)).powi(2) - 0.8;
        Self {
            width,
            beta: PI * square.max(0.0).sqrt(),
        }
    }

    pub(super) fn value(&self, t: f64) -> f64 {
        let z = 2.0 * t / self.width as f64;
        bessel_i0(self.beta * (1.0 - z * z).max(0.0).sqrt()) / bessel_i0(self.beta)
    }

    /// `∫ value(t) exp(-2 pi i t xi) dt`.
    pub(super) fn transform(&self, xi: f64) -> f64 {
        let w = self.width as f64;
        let square = self.beta * self.beta - (PI * w * xi).powi(2);
        let s = square.abs().sqrt();
        let ratio = match s {
            s if s < 1e-9 => 1.0,
            s if square > 0.0 => s.sinh() / s,
            s => s.sin() / s,
        };
        w * ratio / bessel_i0(self.beta)
    }

    /// The error of a voxel at `xi` (in units of the grid's field of view), for the sample between two cells that it is
    /// largest for.
    fn error(&self, xi: f64) -> f64 {
        (0..=16)
            .map(|i| f64::from(i) / 16.0 - self.width as f64 / 2.0)
            .map(|first| {
                let sum: Complex64 = (0..=self.width)
                    .map(|cell| first + cell as f64)
                    .filter(|t| 2.0 * t.abs() <= self.width as f64)
                    .map(|t| self.value(t) * Complex64::cis(2.0 * PI * t * xi))
                    .sum();
                (sum / self.transform(xi) - 1.0).norm()
            })
            .fold(0.0, f64::max)
    }

    /// How much larger the factor of a voxel at the edge is than that of the centre: what rounding grows by.
    fn range(&self, edge: f64) -> f64 {
        self.transform(0.0) / self.transform(edge)
    }

    /// The narrowest window that keeps the error of *every* voxel, the corners included, below `error` in `f32`; `None` if
    /// there is none.
    pub(super) fn narrowest(error: f64, ratios: &[f64]) -> Option<usize> {
        (3..=WIDEST).find(|width| {
            let (mut squares, mut range) = (ROUNDING.powi(2), 1.0);
            for ratio in ratios {
                let (window, edge) = (Self::new(*width, *ratio), 0.5 / ratio);
                squares += window.error(edge).max(window.error(0.0)).powi(2);
                range *= window.range(edge);
            }
            (squares + (ROUNDING_IN_CORNERS * range).powi(2)).sqrt() <= error
        })
    }

    /// Coefficients `[power, cell]` of the values at `cell - width / 2 + (t + 1) / 2` for `t` from -1 to 1, nearer to the
    /// window than `error` (its peak is 1).
    pub(super) fn polynomials(&self, error: f64) -> Vec<[f32; CELLS]> {
        const HIGHEST: usize = 16;
        let at = |cell: usize, t: f64| {
            self.value(cell as f64 - self.width as f64 / 2.0 + (t + 1.0) / 2.0)
        };
        let mut fitted = Vec::new();
        for degree in 3..=HIGHEST {
            let cells: Vec<Vec<f64>> = (0..self.width)
                .map(|cell| interpolate(|t| at(cell, t), degree))
                .collect();
            let worst = (0..self.width)
                .flat_map(|cell| (0..=64).map(move |i| (cell, f64::from(i) / 32.0 - 1.0)))
                .map(|(cell, t)| (horner(&cells[cell], t) - at(cell, t)).abs())
                .fold(0.0, f64::max);
            fitted = (0..=degree)
                .map(|power| {
                    let mut row = [0.0; CELLS];
                    for (c, cell) in row.iter_mut().zip(&cells) {
                        *c = cell[power] as f32;
                    }
                    row
                })
                .collect();
            if worst <= error {
                break;
            }
        }
        fitted
    }
}

/// The modified Bessel function of order 0, by its series: all terms are positive, so nothing cancels.
fn bessel_i0(x: f64) -> f64 {
    let (mut term, mut sum, mut k) = (1.0, 1.0, 0.0);
    while term > sum * 1e-17 {
        k += 1.0;
        term *= (x / (2.0 * k)).powi(2);
        sum += term;
    }
    sum
}

/// The polynomial through `f` at the Chebyshev points, by powers: divided differences, then multiplied out.
fn interpolate(f: impl Fn(f64) -> f64, degree: usize) -> Vec<f64> {
    let points: Vec<f64> = (0..=degree)
        .map(|i| ((i as f64 + 0.5) * PI / (degree as f64 + 1.0)).cos())
        .collect();
    let mut differences: Vec<f64> = points.iter().map(|t| f(*t)).collect();
    for order in 1..=degree {
        for i in (order..=degree).rev() {
            differences[i] =
                (differences[i] - differences[i - 1]) / (points[i] - points[i - order]);
        }
    }
    let mut powers = vec![0.0; degree + 1];
    for i in (0..=degree).rev() {
        // powers = powers * (t - points[i]) + differences[i]
        for p in (0..=degree).rev() {
            let lower = if p > 0 { powers[p - 1] } else { differences[i] };
            powers[p] = lower - points[i] * powers[p];
        }
    }
    powers
}

fn horner(powers: &[f64], t: f64) -> f64 {
    powers.iter().rev().fold(0.0, |sum, c| sum * t + c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bessel_by_hand() {
        // Abramowitz and Stegun, table 9.8.
        assert!((bessel_i0(1.0) - 1.266_065_877_752_008).abs() < 1e-14);
        assert!((bessel_i0(10.0) / 2_815.716_628_466_254 - 1.0).abs() < 1e-13);
    }

    #[test]
    fn the_transform_is_the_integral() {
        for (width, ratio) in [(4, 2.0), (7, 1.25), (11, 1.25)] {
            let window = Window::new(width, ratio);
            for xi in [0.0, 0.1, 0.4, 1.3] {
                let n = 20_000;
                let step = width as f64 / f64::from(n);
                let sum: f64 = (0..n)
                    .map(|i| (f64::from(i) + 0.5) * step - width as f64 / 2.0)
                    .map(|t| window.value(t) * (2.0 * PI * t * xi).cos())
                    .sum();
                assert!((sum * step - window.transform(xi)).abs() < 1e-7);
            }
        }
    }

    #[test]
    fn polynomials_are_the_window() {
        let window = Window::new(6, 1.25);
        let rows = window.polynomials(1e-6);
        for cell in 0..6 {
            for t in [-1.0, -0.3, 0.0, 0.9, 1.0] {
                let powers: Vec<f64> = rows.iter().map(|r| f64::from(r[cell])).collect();
                let exact = window.value(cell as f64 - 3.0 + (t + 1.0) / 2.0);
                assert!((horner(&powers, t) - exact).abs() < 2e-6);
            }
        }
    }

    #[test]
    fn finer_grids_and_wider_windows_err_less() {
        assert_eq!(Window::narrowest(8e-4, &[2.0, 2.0]), Some(5));
        assert_eq!(Window::narrowest(1e-3, &[1.25, 1.25]), Some(7));
        assert_eq!(Window::narrowest(1e-12, &[2.0, 2.0]), None);
    }
}
