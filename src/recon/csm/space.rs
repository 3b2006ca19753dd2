//! The signal space of the calibration matrix on a card, by products of Hermitian matrices alone: what a card does best.
//!
//! With `N = A^H A` of the calibration matrix, the projector onto the eigenvectors whose eigenvalues exceed `tau = threshold
//! x largest` is `(1 - sign(tau - N)) / 2`. Three rows of products find it:
//! 1. `N`, squared [`POWERS`] times, is dominated by its largest eigenvalues, and `tr(N M) / tr(M)` of that power `M` is the largest to
//!    4e-4;
//! 2. `Y = (1 - x N / tau)^(2^k)` lies between 0 and 1, above one half below `tau` and below it above: `x` is chosen for
//!    that, and `k` such that the large eigenvalues stay where this is small;
//! 3. `S = 2 Y - 1` goes to its sign by `S (3 a - a^3 S^2) / 2`, where `a` is larger than 1 while some eigenvalues are
//!    near zero (Chen and Chow, "A stable scaling of Newton-Schulz for improving the sign function computation of a Hermitian
//!    matrix", ANL/MCS-P5059-0114, 2014).
//!
//! Every product is made Hermitian to the bit: without that, what rounding leaves beside grows. Eigenvalues within
//! [`RESOLUTION`] of the threshold may count in part.

use num_complex::Complex32;

use super::Calibration;
use crate::device::cuda::{Accelerator, Arg, Buffer, CudaError, Stream, grid, int};

/// Squarings of the normal matrix for its largest eigenvalue.
const POWERS: usize = 10;
/// Relative distance from the threshold at which eigenvalues count wholly or not at all.
const RESOLUTION: f64 = 1e-3;
/// The scaling assumes no eigenvalue of `S` nearer to zero: large ones would come back near zero, and mix.
const LEAST_SCALED: f64 = 0.1;
/// Part of the lower bound that is relied upon after each scaled step.
const RELIED: f64 = 0.97;
/// Steps without scaling at the end: from 0.9 they leave less than `f32` resolves.
const LAST: usize = 3;
/// Sizes and thresholds that `f32` and this many products are good for.
const MOST_UNKNOWNS: usize = 2048;
const THRESHOLDS: std::ops::RangeInclusive<f64> = 1e-5..=0.5;

/// The products' factors: they depend on the threshold alone.
#[derive(Clone, Debug, PartialEq)]
struct Steps {
    /// `x` of the head of this file.
    at_threshold: f64,
    /// `k`.
    squarings: usize,
    /// `a` of each step to the sign.
    scales: Vec<f64>,
}

impl Steps {
    fn new(threshold: f64) -> Self {
        let at = |k: usize| 1.0 - 0.5f64.powf(0.5f64.powi(k as i32));
        // Beyond 1 the power rises again, but from far below one half.
        let most = |k: usize| if k == 0 { 1.0 } else { 1.5 };
        let squarings = (0..64).find(|k| at(*k) <= most(*k) * threshold);
        let squarings = squarings.unwrap_or(64);
        let mut least = RESOLUTION * std::f64::consts::LN_2;
        let mut scales = Vec::new();
        while least < 0.9 {
            let from = least.max(LEAST_SCALED);
            let a = (3.0 / (1.0 + from + from * from)).sqrt();
            let step = |s: f64| 0.5 * a * s * (3.0 - a * a * s * s);
            scales.push(a);
            least = RELIED * step(least).min(step(1.0));
        }
        scales.extend([1.0; LAST]);
        Self {
            at_threshold: at(squarings),
            squarings,
            scales,
        }
    }
}

/// Whether a card finds the signal space of so many unknowns.
pub(super) fn applies(n_unknowns: usize, threshold: f64) -> bool {
    n_unknowns <= MOST_UNKNOWNS && THRESHOLDS.contains(&threshold)
}

/// Room for the products of one size.
struct Products<'a> {
    card: &'a Accelerator,
    stream: &'a Stream,
    n: usize,
    one: Buffer<f32>,
    scale: Buffer<f32>,
    dots: Buffer<f64>,
}

type Matrix = Buffer<Complex32>;

impl Products<'_> {
    fn room(&self) -> Result<Matrix, CudaError> {
        self.card.context().buffer(self.n * self.n)
    }

    /// `out = alpha scale a^H b + beta` for `a` and `b` of `k` rows.
    fn product(
        &self,
        (a, b, k): (&Matrix, &Matrix, usize),
        scale: &Buffer<f32>,
        [alpha, beta]: [f64; 2],
        out: &mut Matrix,
    ) -> Result<(), CudaError> {
        let args = [
            Arg::input(a),
            Arg::input(b),
            Arg::input(scale),
            Arg::output(out),
            int(self.n)?,
            int(k)?,
            Arg::F32(alpha as f32),
            Arg::F32(beta as f32),
        ];
        let tiles = self.n.div_ceil(32);
        let blocks = [grid(tiles * (tiles + 1) / 2)?, 1, 1];
        self.stream.launch("hermitian_product_c32", blocks, &args)
    }

    /// The scale of the next product: of a power's next square, or `factor` over its mean eigenvalue.
    fn rescale(&mut self, m: &Matrix, factor: Option<f64>) -> Result<(), CudaError> {
        let args = [
            Arg::input(m),
            Arg::input(&self.dots),
            Arg::output(&mut self.scale),
            int(self.n)?,
            Arg::I32(factor.is_none().into()),
            Arg::F32(factor.unwrap_or(0.0) as f32),
        ];
        self.stream.launch("trace_scale_f32", [1, 1, 1], &args)
    }
}

/// Coefficients of the matrix function of the projector onto the signal space, `[tap, pair]`, as
/// [`super::espirit::Polynomial`] has them; only where this [`applies`].
pub(super) fn coefficients(
    card: &Accelerator,
    stream: &Stream,
    calibration: &Calibration,
    (window, pairs): ([usize; 3], usize),
    threshold: f64,
) -> Result<Buffer<Complex32>, CudaError> {
    let dims = calibration.dims;
    let n_coils = calibration.n_coils;
    let n = n_coils * window.iter().product::<usize>();
    let n_windows: usize = (0..3).map(|d| dims[d] - window[d] + 1).product();
    let steps = Steps::new(threshold);
    let context = card.context();
    let samples = card.upload(stream, &calibration.of_unit_power())?;
    let mut windows = context.buffer(n_windows * n)?;
    let [d2, d1, d0] = dims;
    let [w2, w1, w0] = window;
    let args = [
        Arg::input(&samples),
        Arg::output(&mut windows),
        int(n)?,
        int(d2)?,
        int(d1)?,
        int(d0)?,
        int(w2)?,
        int(w1)?,
        int(w0)?,
    ];
    let blocks = [grid(n_windows)?, grid(n.div_ceil(256))?, 1];
    stream.launch("espirit_windows_c32", blocks, &args)?;

    let mut all = Products {
        card,
        stream,
        n,
        one: card.upload(stream, &[1.0f32])?,
        scale: card.upload(stream, &[1.0f32])?,
        dots: context.buffer(n)?,
    };
    // Every element is written before it is read, but for these.
    stream.clear(&mut all.dots)?;
    let gram = (&windows, &windows, n_windows);
    let (mut normal, mut m, mut other) = (all.room()?, all.room()?, all.room()?);
    all.product(gram, &all.one, [1.0, 0.0], &mut normal)?;
    all.rescale(&normal, None)?;
    all.product((&normal, &normal, n), &all.scale, [1.0, 0.0], &mut m)?;
    for _ in 1..POWERS {
        all.rescale(&m, None)?;
        all.product((&m, &m, n), &all.scale, [1.0, 0.0], &mut other)?;
        std::mem::swap(&mut m, &mut other);
    }
    let args = [
        Arg::input(&m),
        Arg::input(&normal),
        Arg::output(&mut all.dots),
        int(n)?,
    ];
    stream.launch("row_dots_f64", [grid(n)?, 1, 1], &args)?;
    all.rescale(&m, Some(steps.at_threshold / threshold))?;

    // S of the head of this file: 2 Y - 1, which the last squaring makes.
    let first = if steps.squarings == 0 { -2.0 } else { -1.0 };
    all.product(gram, &all.scale, [first, 1.0], &mut m)?;
    for i in (0..steps.squarings).rev() {
        let factors = if i == 0 { [2.0, -1.0] } else { [1.0, 0.0] };
        all.product((&m, &m, n), &all.one, factors, &mut other)?;
        std::mem::swap(&mut m, &mut other);
    }
    for a in &steps.scales {
        let factors = [-0.5 * a * a * a, 1.5 * a];
        all.product((&m, &m, n), &all.one, factors, &mut normal)?;
        all.product((&m, &normal, n), &all.one, [1.0, 0.0], &mut other)?;
        std::mem::swap(&mut m, &mut other);
    }

    let n_taps: usize = window.iter().map(|w| 2 * w - 1).product();
    let mut taps = context.buffer(n_taps * pairs)?;
    let args = [
        Arg::input(&m),
        Arg::output(&mut taps),
        int(n_coils)?,
        int(pairs)?,
        int(w2)?,
        int(w1)?,
        int(w0)?,
    ];
    let blocks = [grid(n_taps)?, grid(pairs.div_ceil(128))?, 1];
    stream.launch("espirit_taps_c32", blocks, &args)?;
    Ok(taps)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Steps {
        /// What becomes of an eigenvalue: 1 below `threshold`, -1 above. `largest` is what is taken for the largest.
        fn sign(&self, eigenvalue: f64, threshold: f64) -> f64 {
            let mut s = 1.0 - self.at_threshold * eigenvalue / threshold;
            for _ in 0..self.squarings {
                s *= s;
            }
            s = 2.0 * s - 1.0;
            for a in &self.scales {
                s *= 1.5 * a - 0.5 * a * a * a * s * s;
            }
            s
        }
    }

    /// Eigenvalues of all sizes, and near the threshold on both sides.
    fn is_sign(steps: &Steps, threshold: f64) -> bool {
        let all = (0..=1000).map(|i| f64::from(i) / 1000.0);
        let near = [0.5, 0.9, 0.99, 0.999, 1.001, 1.01, 1.1, 2.0].map(|r| r * threshold);
        all.chain(near).all(|eigenvalue| {
            let expected = if eigenvalue > threshold { -1.0 } else { 1.0 };
            (eigenvalue / threshold - 1.0).abs() < 0.99 * RESOLUTION
                || (steps.sign(eigenvalue, threshold) - expected).abs() < 1e-6
        })
    }

    #[test]
    fn steps_tell_eigenvalues_above_the_threshold_from_those_below() {
        for threshold in [1e-5, 1e-3, 4e-3, 0.02, 0.1, 0.25, 0.3, 0.5] {
            let steps = Steps::new(threshold);
            assert!(is_sign(&steps, threshold), "{threshold}: {steps:?}");
            assert!(steps.squarings + 2 * steps.scales.len() < 50);
            // Wrong twins: too few steps, a threshold beside.
            let n = steps.scales.len();
            for kept in [n - LAST, n - 2] {
                let mut twin = steps.clone();
                twin.scales.truncate(kept);
                assert!(!is_sign(&twin, threshold), "{threshold}: {kept} steps");
            }
            let mut twin = steps.clone();
            twin.at_threshold *= 1.01;
            assert!(!is_sign(&twin, threshold), "{threshold}: beside");
        }
    }
}
