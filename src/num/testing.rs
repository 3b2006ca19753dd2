//! Checks that every room's tests use: the laws of operators and distances between arrays.
//!
//! Each `assert_*` has a value beside it, so that a suite can also show that a wrong twin *fails* the check.

use num_complex::{Complex32, Complex64};

use super::complex::{dot_conj, norm2};
use super::linop::LinOp;
use super::rng::Rng;

/// Root of the mean squared error over the root mean square of `truth`; 0 for two empty or two zero arrays.
pub fn nrmse(found: &[Complex32], truth: &[Complex32]) -> f64 {
    assert_eq!(found.len(), truth.len(), "lengths differ");
    let error: f64 = found
        .iter()
        .zip(truth)
        .map(|(a, b)| {
            let d = Complex64::new(
                f64::from(a.re) - f64::from(b.re),
                f64::from(a.im) - f64::from(b.im),
            );
            d.norm_sqr()
        })
        .sum();
    ratio(error, norm2(truth))
}

/// [`nrmse`] of real arrays.
pub fn nrmse_real(found: &[f32], truth: &[f32]) -> f64 {
    assert_eq!(found.len(), truth.len(), "lengths differ");
    let error: f64 = found
        .iter()
        .zip(truth)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum();
    ratio(error, truth.iter().map(|v| f64::from(*v).powi(2)).sum())
}

fn ratio(error: f64, power: f64) -> f64 {
    if error == 0.0 {
        0.0
    } else {
        (error / power).sqrt()
    }
}

/// The complex factor `s` that makes `s * found` nearest to `truth`.
pub fn fitted_scale(found: &[Complex32], truth: &[Complex32]) -> Complex64 {
    dot_conj(found, truth) / norm2(found)
}

/// Fails with NRMSE, worst element and fitted scale unless the arrays are close.
///
/// # Panics
/// If they are not within `tolerance` (NRMSE).
#[track_caller]
pub fn assert_close(found: &[Complex32], truth: &[Complex32], tolerance: f64) {
    let error = nrmse(found, truth);
    let worst = found
        .iter()
        .zip(truth)
        .enumerate()
        .max_by(|a, b| (a.1.0 - a.1.1).norm().total_cmp(&(b.1.0 - b.1.1).norm()))
        .map(|(i, (a, b))| (i, *a, *b));
    let scale = fitted_scale(found, truth);
    assert!(
        error <= tolerance,
        "NRMSE {error:.3e} above {tolerance:.1e}; worst {worst:?}; fitted scale {} at {:.4} rad",
        scale.norm(),
        scale.arg()
    );
}

/// `|<A x, y> - <x, Aᴴ y>|` relative to `|A x| |y|`, for noise `x` and `y`.
pub fn adjoint_error(op: &dyn LinOp) -> f64 {
    let mut rng = Rng::new(0xad01);
    let x = rng.complex(op.domain());
    let y = rng.complex(op.range());
    // Filled with NaN: an operator that adds to its output instead of overwriting it is found out.
    let mut forward = vec![Complex32::new(f32::NAN, f32::NAN); op.range()];
    let mut adjoint = vec![Complex32::new(f32::NAN, f32::NAN); op.domain()];
    op.forward(&x, &mut forward);
    op.adjoint(&y, &mut adjoint);
    let left = dot_conj(&y, &forward);
    let right = dot_conj(&adjoint, &x);
    let scale = (norm2(&forward) * norm2(&y)).sqrt();
    if scale == 0.0 {
        (left - right).norm()
    } else {
        (left - right).norm() / scale
    }
}

/// Fails unless `adjoint` is the adjoint of `forward`.
///
/// # Panics
/// If [`adjoint_error`] is above `tolerance` or not a number.
#[track_caller]
pub fn assert_adjoint(op: &dyn LinOp, tolerance: f64) {
    let error = adjoint_error(op);
    assert!(error <= tolerance, "adjoint error {error:.3e}");
}

/// Relative error of `A(a x + b y) = a A x + b A y` for noise `x` and `y`.
pub fn linear_error(op: &dyn LinOp) -> f64 {
    let mut rng = Rng::new(0x11ea);
    let x = rng.complex(op.domain());
    let y = rng.complex(op.domain());
    let (a, b) = (Complex32::new(0.7, -1.3), Complex32::new(-0.2, 0.9));
    let mix: Vec<_> = x.iter().zip(&y).map(|(x, y)| a * x + b * y).collect();
    let run = |v: &[Complex32]| {
        let mut out = vec![Complex32::ZERO; op.range()];
        op.forward(v, &mut out);
        out
    };
    let expected: Vec<_> = run(&x)
        .iter()
        .zip(run(&y))
        .map(|(x, y)| a * x + b * y)
        .collect();
    nrmse(&run(&mix), &expected)
}

/// Fails unless `forward` is linear.
///
/// # Panics
/// If [`linear_error`] is above `tolerance` or not a number.
#[track_caller]
pub fn assert_linear(op: &dyn LinOp, tolerance: f64) {
    let error = linear_error(op);
    assert!(error <= tolerance, "linearity error {error:.3e}");
}

/// Relative change of a noise vector's norm, plus the relative error of `Aᴴ A x = x`.
pub fn unitary_error(op: &dyn LinOp) -> f64 {
    let x = Rng::new(0x0717).complex(op.domain());
    let mut y = vec![Complex32::ZERO; op.range()];
    let mut back = vec![Complex32::ZERO; op.domain()];
    op.forward(&x, &mut y);
    op.adjoint(&y, &mut back);
    (norm2(&y) / norm2(&x) - 1.0).abs() + nrmse(&back, &x)
}

/// Fails unless `forward` is unitary.
///
/// # Panics
/// If [`unitary_error`] is above `tolerance` or not a number.
#[track_caller]
pub fn assert_unitary(op: &dyn LinOp, tolerance: f64) {
    let error = unitary_error(op);
    assert!(error <= tolerance, "unitarity error {error:.3e}");
}

/// Runs `f` on pools of 1, 2 and 7 threads and fails unless the results are the same bits.
///
/// # Panics
/// If they differ, or a pool cannot be started.
#[track_caller]
pub fn assert_same_on_any_threads<T: PartialEq + Send>(f: impl Fn() -> T + Sync) {
    let results: Vec<Option<T>> = [1, 2, 7]
        .into_iter()
        .map(|n| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(n)
                .build()
                .ok()
                .map(|pool| pool.install(&f))
        })
        .collect();
    assert!(results.iter().all(Option::is_some), "no thread pool");
    assert!(results[0] == results[1], "2 threads differ from 1");
    assert!(results[0] == results[2], "7 threads differ from 1");
}
