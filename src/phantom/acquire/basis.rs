//! Few functions of the echo number that describe the echo trains of all tissues.
//!
//! A line of k-space carries the weight of its echo, so a slice would need one transform per echo. All trains `E_n(T1,
//! T2, B1)` of a patient lie close to a space of a few dimensions: then one transform per dimension is enough.

use num_complex::Complex64;

use crate::num::linalg;

/// Trains as sums of a few.
#[derive(Clone, Debug, Default)]
pub(super) struct Basis {
    /// `[function][echo]`, orthonormal.
    pub(super) functions: Vec<Vec<f64>>,
    /// `[train][function]`.
    pub(super) shares: Vec<Vec<f32>>,
}

impl Basis {
    /// Finds the functions of `trains`, all of one length. `tolerance` is the largest error of any echo of any train,
    /// against the largest echo there is.
    pub(super) fn of(trains: &[Vec<f64>], tolerance: f64) -> Self {
        let n = trains.first().map_or(0, Vec::len);
        let largest = trains
            .iter()
            .flatten()
            .fold(0.0, |a: f64, b| a.max(b.abs()));
        let mut basis = Self {
            functions: Vec::new(),
            shares: vec![Vec::new(); trains.len()],
        };
        if n == 0 || largest == 0.0 {
            return basis;
        }
        let mut gram = vec![Complex64::ZERO; n * n];
        for i in 0..n {
            for j in 0..n {
                gram[i * n + j] = trains.iter().map(|t| t[i] * t[j]).sum::<f64>().into();
            }
        }
        // Without an eigensystem every echo is its own function: slower, and as right.
        let vectors: Vec<Vec<f64>> = linalg::eigh(&gram, n).map_or_else(
            |_| {
                (0..n)
                    .map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect())
                    .collect()
            },
            |e| {
                e.vectors
                    .chunks_exact(n)
                    .map(|row| {
                        // An eigenvector's phase is free; a real one is wanted, with its largest part positive.
                        let top = row.iter().fold(Complex64::ZERO, |a, b| {
                            if b.norm() > a.norm() { *b } else { a }
                        });
                        let turn = top.conj() / top.norm();
                        row.iter().map(|v| (v * turn).re).collect()
                    })
                    .collect()
            },
        );
        let mut rest: Vec<Vec<f64>> = trains.to_vec();
        for function in vectors {
            for (train, shares) in rest.iter_mut().zip(&mut basis.shares) {
                let share: f64 = train.iter().zip(&function).map(|(a, b)| a * b).sum();
                train
                    .iter_mut()
                    .zip(&function)
                    .for_each(|(a, b)| *a -= share * b);
                #[allow(clippy::cast_possible_truncation)] // storage precision
                shares.push(share as f32);
            }
            basis.functions.push(function);
            let worst = rest.iter().flatten().fold(0.0, |a: f64, b| a.max(b.abs()));
            if worst <= tolerance * largest {
                break;
            }
        }
        basis
    }

    #[cfg(test)]
    pub(super) fn train(&self, i: usize) -> Vec<f64> {
        let n = self.functions[0].len();
        (0..n)
            .map(|e| {
                self.functions
                    .iter()
                    .zip(&self.shares[i])
                    .map(|(f, s)| f[e] * f64::from(*s))
                    .sum()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decays_of_all_tissues_need_few_functions() {
        let trains: Vec<Vec<f64>> = [
            0.5, 15.0, 25.0, 38.0, 50.0, 75.0, 110.0, 150.0, 800.0, 1600.0,
        ]
        .iter()
        .map(|t2| {
            (1..=19)
                .map(|n| (-11.0 * f64::from(n) / t2).exp())
                .collect()
        })
        .collect();
        let basis = Basis::of(&trains, 1e-4);
        assert!(basis.functions.len() <= 6, "{}", basis.functions.len());
        for (i, t) in trains.iter().enumerate() {
            for (a, b) in basis.train(i).iter().zip(t) {
                assert!((a - b).abs() < 1.1e-4);
            }
        }
    }

    #[test]
    fn nothing_needs_nothing() {
        assert!(Basis::of(&[vec![0.0; 4]], 1e-4).functions.is_empty());
        assert!(Basis::of(&[], 1e-4).functions.is_empty());
    }
}
