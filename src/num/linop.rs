//! Linear operators: a forward map and its adjoint between flat complex arrays.

use num_complex::Complex32;

/// A linear operator between complex spaces of fixed sizes.
pub trait LinOp {
    /// Values that `forward` reads.
    fn domain(&self) -> usize;
    /// Values that `forward` writes.
    fn range(&self) -> usize;
    /// `y = A x`; overwrites `y`.
    fn forward(&self, x: &[Complex32], y: &mut [Complex32]);
    /// `x = Aᴴ y`; overwrites `x`.
    fn adjoint(&self, y: &[Complex32], x: &mut [Complex32]);
}

/// `B A`: first `A`, then `B`.
pub struct Chain<A, B>(pub A, pub B);

impl<A: LinOp, B: LinOp> LinOp for Chain<A, B> {
    fn domain(&self) -> usize {
        self.0.domain()
    }
    fn range(&self) -> usize {
        self.1.range()
    }
    fn forward(&self, x: &[Complex32], y: &mut [Complex32]) {
        let mut between = vec![Complex32::ZERO; self.0.range()];
        self.0.forward(x, &mut between);
        self.1.forward(&between, y);
    }
    fn adjoint(&self, y: &[Complex32], x: &mut [Complex32]) {
        let mut between = vec![Complex32::ZERO; self.1.domain()];
        self.1.adjoint(y, &mut between);
        self.0.adjoint(&between, x);
    }
}

/// A row-major matrix as an operator: the plain reference in tests.
pub struct Dense {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Row-major entries.
    pub entries: Vec<Complex32>,
}

impl LinOp for Dense {
    fn domain(&self) -> usize {
        self.columns
    }
    fn range(&self) -> usize {
        self.rows
    }
    fn forward(&self, x: &[Complex32], y: &mut [Complex32]) {
        for (row, y) in self.entries.chunks_exact(self.columns).zip(y) {
            *y = row.iter().zip(x).map(|(a, x)| a * x).sum();
        }
    }
    fn adjoint(&self, y: &[Complex32], x: &mut [Complex32]) {
        x.fill(Complex32::ZERO);
        for (row, y) in self.entries.chunks_exact(self.columns).zip(y) {
            for (a, x) in row.iter().zip(x.iter_mut()) {
                *x += a.conj() * y;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::Rng;
    use crate::num::testing::{adjoint_error, assert_adjoint, assert_linear};

    #[test]
    fn chain_is_adjoint_and_linear() {
        let mut rng = Rng::new(5);
        let a = Dense {
            rows: 4,
            columns: 3,
            entries: rng.complex(12),
        };
        let b = Dense {
            rows: 2,
            columns: 4,
            entries: rng.complex(8),
        };
        let chain = Chain(a, b);
        assert_adjoint(&chain, 1e-6);
        assert_linear(&chain, 1e-6);
    }

    #[test]
    fn a_transpose_is_not_an_adjoint() {
        struct Wrong(Dense);
        impl LinOp for Wrong {
            fn domain(&self) -> usize {
                self.0.domain()
            }
            fn range(&self) -> usize {
                self.0.range()
            }
            fn forward(&self, x: &[Complex32], y: &mut [Complex32]) {
                self.0.forward(x, y);
            }
            fn adjoint(&self, y: &[Complex32], x: &mut [Complex32]) {
                let y: Vec<_> = y.iter().map(|v| v.conj()).collect();
                self.0.adjoint(&y, x);
                x.iter_mut().for_each(|v| *v = v.conj());
            }
        }
        let wrong = Wrong(Dense {
            rows: 4,
            columns: 3,
            entries: Rng::new(5).complex(12),
        });
        assert!(adjoint_error(&wrong) > 1e-2);
    }
}
