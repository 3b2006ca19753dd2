//! Small dense linear algebra: Hermitian eigenvectors and Cholesky solves, over `faer` or by hand where it is tiny.

use faer::{Accum, Mat, MatMut, MatRef, Par, Side};
use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

/// A factorisation that did not work.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LinalgError {
    /// A pivot was not positive.
    #[error(
        "matrix of size {size} is not positive definite: pivot {pivot} is {value:e}; regularise it, or look for a dead or duplicated coil"
    )]
    NotPositiveDefinite {
        /// Rows.
        size: usize,
        /// Index of the pivot.
        pivot: usize,
        /// Its value.
        value: f64,
    },
    /// The eigenvalue iteration did not end (in practice: a value was not finite).
    #[error(
        "eigendecomposition of a matrix of size {size} did not converge; check the data for values that are not finite"
    )]
    NoConvergence {
        /// Rows.
        size: usize,
    },
}

/// Eigenvalues, descending, and eigenvectors of a Hermitian matrix.
#[derive(Clone, Debug)]
pub struct Eigen<T> {
    /// Descending.
    pub values: Vec<f64>,
    /// `[eigenvector, component]`: row `i` belongs to `values[i]`.
    pub vectors: Vec<T>,
}

/// Eigendecomposition of a Hermitian row-major matrix (lower triangle is read) in `f64`.
///
/// # Errors
/// * [`LinalgError::NoConvergence`].
pub fn eigh(matrix: &[Complex64], n: usize) -> Result<Eigen<Complex64>, LinalgError> {
    let view = MatRef::from_row_major_slice(matrix, n, n);
    let eigen = view
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| LinalgError::NoConvergence { size: n })?;
    let (values, vectors) = (eigen.S(), eigen.U());
    Ok(Eigen {
        values: (0..n).rev().map(|i| values[i].re).collect(),
        vectors: (0..n)
            .rev()
            .flat_map(|i| (0..n).map(move |k| vectors[(k, i)]))
            .collect(),
    })
}

/// [`eigh`] in `f32`: for large matrices of which only eigenvalues far above `1e-6` of the largest matter.
///
/// # Errors
/// * [`LinalgError::NoConvergence`].
pub fn eigh_f32(matrix: &[Complex32], n: usize) -> Result<Eigen<Complex32>, LinalgError> {
    let view = MatRef::from_row_major_slice(matrix, n, n);
    let eigen = view
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| LinalgError::NoConvergence { size: n })?;
    let (values, vectors) = (eigen.S(), eigen.U());
    Ok(Eigen {
        values: (0..n).rev().map(|i| f64::from(values[i].re)).collect(),
        vectors: (0..n)
            .rev()
            .flat_map(|i| (0..n).map(move |k| vectors[(k, i)]))
            .collect(),
    })
}

/// Lower Cholesky factor `L` of a Hermitian positive definite row-major matrix, row-major.
///
/// # Errors
/// * [`LinalgError::NotPositiveDefinite`] names the first pivot that is not positive.
pub fn cholesky(matrix: &[Complex64], n: usize) -> Result<Vec<Complex64>, LinalgError> {
    let mut l = vec![Complex64::ZERO; n * n];
    for i in 0..n {
        for j in 0..=i {
            let mut sum = matrix[i * n + j];
            for k in 0..j {
                sum -= l[i * n + k] * l[j * n + k].conj();
            }
            if i == j {
                if sum.re.is_nan() || sum.re <= 0.0 {
                    return Err(LinalgError::NotPositiveDefinite {
                        size: n,
                        pivot: i,
                        value: sum.re,
                    });
                }
                l[i * n + i] = Complex64::new(sum.re.sqrt(), 0.0);
            } else {
                l[i * n + j] = sum / l[j * n + j].re;
            }
        }
    }
    Ok(l)
}

/// Solves `L Lᴴ x = b` in place, with `L` from [`cholesky`].
pub fn cholesky_solve(l: &[Complex64], n: usize, b: &mut [Complex64]) {
    for i in 0..n {
        let mut sum = b[i];
        for k in 0..i {
            sum -= l[i * n + k] * b[k];
        }
        b[i] = sum / l[i * n + i].re;
    }
    for i in (0..n).rev() {
        let mut sum = b[i];
        for k in i + 1..n {
            sum -= l[k * n + i].conj() * b[k];
        }
        b[i] = sum / l[i * n + i].re;
    }
}

/// Inverse of a Hermitian positive definite row-major matrix.
///
/// # Errors
/// As [`cholesky`].
pub fn inverse_hermitian(matrix: &[Complex64], n: usize) -> Result<Vec<Complex64>, LinalgError> {
    let l = cholesky(matrix, n)?;
    let mut inverse = vec![Complex64::ZERO; n * n];
    let mut column = vec![Complex64::ZERO; n];
    for j in 0..n {
        column.fill(Complex64::ZERO);
        column[j] = Complex64::ONE;
        cholesky_solve(&l, n, &mut column);
        for i in 0..n {
            inverse[i * n + j] = column[i];
        }
    }
    Ok(inverse)
}

/// Row-major `[m, k] x [k, n]`, for matrices of calibration size.
pub fn matmul(a: &[Complex64], b: &[Complex64], m: usize, k: usize, n: usize) -> Vec<Complex64> {
    let product: Mat<Complex64> =
        MatRef::from_row_major_slice(a, m, k) * MatRef::from_row_major_slice(b, k, n);
    (0..m)
        .flat_map(|i| (0..n).map(move |j| (i, j)))
        .map(|(i, j)| product[(i, j)])
        .collect()
}

/// Samples of all coils that are multiplied at a time: what fits the cache.
const PIECE: usize = 4096;

/// `out` `[m, n]` becomes `matrix` `[m, k]` times `data` `[k, n]`, for few rows and many samples, on the current rayon
/// pool.
pub fn mix(matrix: &[Complex32], k: usize, data: &[Complex32], out: &mut [Complex32]) {
    let (m, n) = (matrix.len() / k.max(1), data.len() / k.max(1));
    fn halve(
        dst: MatMut<'_, Complex32>,
        left: MatRef<'_, Complex32>,
        right: MatRef<'_, Complex32>,
    ) {
        let n = dst.ncols();
        if n <= PIECE {
            faer::linalg::matmul::matmul(
                dst,
                Accum::Replace,
                left,
                right,
                Complex32::ONE,
                Par::Seq,
            );
            return;
        }
        // The same pieces on any pool.
        let half = (n / 2).next_multiple_of(64);
        let (a, b) = dst.split_at_col_mut(half);
        let (ra, rb) = right.split_at_col(half);
        rayon::join(|| halve(a, left, ra), || halve(b, left, rb));
    }
    halve(
        MatMut::from_row_major_slice_mut(out, m, n),
        MatRef::from_row_major_slice(matrix, m, k),
        MatRef::from_row_major_slice(data, k, n),
    );
}

/// `data dataᴴ` of `data` `[k, n]`, for few rows and many samples, on the current rayon pool: `[k, k]`.
///
/// # Numerics
/// `f32` over at most 512 samples, `f64` beyond; the same bits for any number of threads.
pub fn gram(data: &[Complex32], k: usize) -> Vec<Complex64> {
    const CHUNK: usize = 512;
    let n = data.len() / k.max(1);
    let all = MatRef::from_row_major_slice(data, k, n);
    let parts: Vec<Vec<Complex64>> = (0..n.div_ceil(PIECE))
        .into_par_iter()
        .map(|piece| {
            let mut sum = vec![Complex64::ZERO; k * k];
            let mut part = vec![Complex32::ZERO; k * k];
            for start in (piece * PIECE..((piece + 1) * PIECE).min(n)).step_by(CHUNK) {
                let some = all.subcols(start, CHUNK.min(n - start));
                faer::linalg::matmul::matmul(
                    MatMut::from_row_major_slice_mut(&mut part, k, k),
                    Accum::Replace,
                    some,
                    some.adjoint(),
                    Complex32::ONE,
                    Par::Seq,
                );
                for (s, p) in sum.iter_mut().zip(&part) {
                    *s += Complex64::new(p.re.into(), p.im.into());
                }
            }
            sum
        })
        .collect();
    let mut sum = vec![Complex64::ZERO; k * k];
    for part in parts {
        for (s, p) in sum.iter_mut().zip(part) {
            *s += p;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::Rng;
    use crate::num::testing::{assert_same_on_any_threads, nrmse};

    fn hermitian(n: usize, seed: u64) -> Vec<Complex64> {
        let v: Vec<Complex64> = Rng::new(seed)
            .complex(n * (n + 2))
            .iter()
            .map(|v| Complex64::new(f64::from(v.re), f64::from(v.im)))
            .collect();
        let t: Vec<Complex64> = (0..(n + 2) * n)
            .map(|i| v[(i % n) * (n + 2) + i / n].conj())
            .collect();
        matmul(&v, &t, n, n + 2, n)
    }

    #[test]
    fn hand_numbers() {
        // [[2, i], [-i, 2]]: eigenvalues 3 and 1.
        let m = [
            Complex64::new(2.0, 0.0),
            Complex64::I,
            -Complex64::I,
            Complex64::new(2.0, 0.0),
        ];
        let e = eigh(&m, 2).unwrap();
        assert!((e.values[0] - 3.0).abs() < 1e-12 && (e.values[1] - 1.0).abs() < 1e-12);
        let inverse = inverse_hermitian(&m, 2).unwrap();
        assert!((inverse[0].re - 2.0 / 3.0).abs() < 1e-12);
        assert!((inverse[1] - Complex64::new(0.0, -1.0 / 3.0)).norm() < 1e-12);
    }

    #[test]
    fn eigenvectors_solve_their_equation() {
        for n in [1, 2, 5, 16, 33] {
            let m = hermitian(n, n as u64);
            let e = eigh(&m, n).unwrap();
            let f = eigh_f32(
                &m.iter()
                    .map(|v| Complex32::new(v.re as f32, v.im as f32))
                    .collect::<Vec<_>>(),
                n,
            )
            .unwrap();
            for i in 0..n {
                assert!(i == 0 || e.values[i] <= e.values[i - 1]);
                assert!((e.values[i] - f.values[i]).abs() < 1e-4 * e.values[0]);
                let v = &e.vectors[i * n..(i + 1) * n];
                let mv = matmul(&m, v, n, n, 1);
                for k in 0..n {
                    assert!((mv[k] - v[k] * e.values[i]).norm() < 1e-9 * e.values[0]);
                }
            }
        }
    }

    #[test]
    fn cholesky_solves_and_names_the_bad_pivot() {
        let n = 7;
        let m = hermitian(n, 4);
        let x: Vec<Complex64> = (0..n).map(|i| Complex64::new(i as f64, 1.0)).collect();
        let mut b = matmul(&m, &x, n, n, 1);
        cholesky_solve(&cholesky(&m, n).unwrap(), n, &mut b);
        for (b, x) in b.iter().zip(&x) {
            assert!((b - x).norm() < 1e-9);
        }
        let mut bad = m;
        for k in 0..n {
            bad[3 * n + k] = bad[n + k];
            bad[k * n + 3] = bad[k * n + 1];
        }
        bad[3 * n + 3] = bad[n + 1] - 1.0;
        assert!(matches!(
            cholesky(&bad, n),
            Err(LinalgError::NotPositiveDefinite { pivot: 3, .. })
        ));
    }

    #[test]
    fn long_products_are_sums_of_their_definition() {
        let narrow = |v: &Complex64| Complex32::new(v.re as f32, v.im as f32);
        let close = |found: &[Complex32], expected: &[Complex64]| {
            let error = nrmse(found, &expected.iter().map(narrow).collect::<Vec<_>>());
            assert!(error < 1e-6, "{error}");
        };
        for n in [1, 7, 600, 9000] {
            let (matrix, data) = (Rng::new(3).complex(2 * 3), Rng::new(4).complex(3 * n));
            let at = |i: usize| Complex64::new(data[i].re.into(), data[i].im.into());
            let mixed: Vec<Complex64> = (0..2 * n)
                .map(|i| {
                    (0..3)
                        .map(|k| {
                            let m = matrix[i / n * 3 + k];
                            Complex64::new(m.re.into(), m.im.into()) * at(k * n + i % n)
                        })
                        .sum()
                })
                .collect();
            let mut found = vec![Complex32::ONE; 2 * n];
            mix(&matrix, 3, &data, &mut found);
            close(&found, &mixed);
            let products: Vec<Complex64> = (0..9)
                .map(|i| {
                    (0..n)
                        .map(|x| at(i / 3 * n + x) * at(i % 3 * n + x).conj())
                        .sum()
                })
                .collect();
            let found: Vec<Complex32> = gram(&data, 3).iter().map(narrow).collect();
            close(&found, &products);
            // Wrong twin: the other factor conjugated.
            let turned: Vec<Complex32> = found.iter().map(|v| v.conj()).collect();
            assert!(nrmse(&turned, &found) > 1e-2 || n == 9000);
        }
        assert_same_on_any_threads(|| gram(&Rng::new(6).complex(3 * 9000), 3));
        assert_same_on_any_threads(|| {
            let mut out = vec![Complex32::ZERO; 2 * 9000];
            mix(
                &[Complex32::I; 6],
                3,
                &Rng::new(6).complex(3 * 9000),
                &mut out,
            );
            out
        });
    }
}
