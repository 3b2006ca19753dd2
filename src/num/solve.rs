//! Conjugate gradients for Hermitian positive (semi-)definite operators.

use num_complex::Complex32;

use super::complex::{axpy, dot_conj, norm2, xpby};
use super::linop::LinOp;

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stop {
    /// At most so many iterations.
    pub max_iterations: usize,
    /// Stop when the residual's norm has fallen to this fraction of the right-hand side's.
    pub tolerance: f64,
}

/// How a solve went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Solved {
    /// Iterations done.
    pub iterations: usize,
    /// Norm of the residual relative to the right-hand side (by recurrence).
    pub residual: f64,
}

/// Solves `N x = b` by conjugate gradients from the start `x`.
///
/// `normal` writes `N p` into its second argument.
///
/// # Numerics
/// Vectors in `f32`, inner products in `f64`.
///
/// # Source
/// Hestenes and Stiefel, J Res Natl Bur Stand 49:409-436 (1952), doi:10.6028/jres.049.044.
pub fn conjugate_gradients(
    mut normal: impl FnMut(&[Complex32], &mut [Complex32]),
    b: &[Complex32],
    x: &mut [Complex32],
    stop: Stop,
) -> Solved {
    let mut q = vec![Complex32::ZERO; b.len()];
    let mut r = b.to_vec();
    if x.iter().any(|v| *v != Complex32::ZERO) {
        normal(x, &mut q);
        axpy(-1.0, &q, &mut r);
    }
    let scale = norm2(b);
    let mut p = r.clone();
    let mut rr = norm2(&r);
    let mut iterations = 0;
    let limit = stop.tolerance * stop.tolerance * scale;
    while iterations < stop.max_iterations && rr > limit && rr > 0.0 {
        normal(&p, &mut q);
        let curvature = dot_conj(&p, &q).re;
        if curvature <= 0.0 {
            break; // p lies in the null space: nothing more to gain along it
        }
        let alpha = rr / curvature;
        axpy(alpha as f32, &p, x);
        axpy(-alpha as f32, &q, &mut r);
        let next = norm2(&r);
        xpby(&r, (next / rr) as f32, &mut p);
        rr = next;
        iterations += 1;
    }
    Solved {
        iterations,
        residual: if scale > 0.0 {
            (rr / scale).sqrt()
        } else {
            0.0
        },
    }
}

/// Minimises `|A x - y|^2 + lambda |x|^2` from the start `x`.
pub fn least_squares(
    op: &dyn LinOp,
    y: &[Complex32],
    lambda: f32,
    x: &mut [Complex32],
    stop: Stop,
) -> Solved {
    let mut b = vec![Complex32::ZERO; op.domain()];
    op.adjoint(y, &mut b);
    let mut between = vec![Complex32::ZERO; op.range()];
    conjugate_gradients(
        |p, q| {
            op.forward(p, &mut between);
            op.adjoint(&between, q);
            axpy(lambda, p, q);
        },
        &b,
        x,
        stop,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::linop::Dense;
    use crate::num::rng::Rng;
    use crate::num::testing::nrmse;

    const STOP: Stop = Stop {
        max_iterations: 50,
        tolerance: 1e-7,
    };

    #[test]
    fn hand_numbers() {
        // [[4, i], [-i, 3]] x = [1, 0]: x = [3, i] / 11.
        let mut x = [Complex32::ZERO; 2];
        let done = conjugate_gradients(
            |p, q| {
                q[0] = p[0] * 4.0 + Complex32::I * p[1];
                q[1] = -Complex32::I * p[0] + p[1] * 3.0;
            },
            &[Complex32::ONE, Complex32::ZERO],
            &mut x,
            STOP,
        );
        assert!(done.iterations <= 3);
        assert!((x[0] - Complex32::new(3.0 / 11.0, 0.0)).norm() < 1e-6);
        assert!((x[1] - Complex32::new(0.0, 1.0 / 11.0)).norm() < 1e-6);
    }

    #[test]
    fn least_squares_finds_the_source() {
        let mut rng = Rng::new(2);
        let op = Dense {
            rows: 20,
            columns: 7,
            entries: rng.complex(140),
        };
        let truth = rng.complex(7);
        let mut y = vec![Complex32::ZERO; 20];
        op.forward(&truth, &mut y);
        let mut x = vec![Complex32::ZERO; 7];
        least_squares(&op, &y, 0.0, &mut x, STOP);
        assert!(nrmse(&x, &truth) < 1e-5);
        // Wrong twin: with a heavy penalty it is another vector.
        let mut x = vec![Complex32::ZERO; 7];
        least_squares(&op, &y, 10.0, &mut x, STOP);
        assert!(nrmse(&x, &truth) > 1e-2);
    }

    #[test]
    fn zero_data_gives_zero() {
        let mut x = [Complex32::ZERO; 3];
        let done = conjugate_gradients(
            |p, q| q.copy_from_slice(p),
            &[Complex32::ZERO; 3],
            &mut x,
            STOP,
        );
        assert_eq!(done.iterations, 0);
        assert_eq!(x, [Complex32::ZERO; 3]);
    }
}
