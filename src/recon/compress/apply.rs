//! The matrices of coil compression, and their product with k-space.

use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

use super::{CompressMethod, CompressParams};
use crate::data::{Frame, KSpace, Shape};
use crate::num::complex::mul_add;
use crate::num::fft::{Direction, Fft};
use crate::num::linalg::{LinalgError, eigh, gram, mix};
use crate::recon::acs::Acs;

/// What turns coils into virtual coils.
#[derive(Clone, Debug)]
pub(crate) struct Compression {
    n_coils: usize,
    pub(crate) n_virtual: usize,
    /// Share of the calibration energy that is kept.
    pub(crate) energy: f64,
    matrices: Matrices,
}

#[derive(Clone, Debug)]
enum Matrices {
    /// `[virtual, coil]`, orthonormal rows.
    One(Vec<Complex32>),
    /// `[virtual, coil, x]`, orthonormal rows at every readout position.
    PerPosition(Vec<Complex32>),
}

impl Compression {
    /// Calculates the matrices from a calibration block.
    ///
    /// # Errors
    /// [`LinalgError`] when the calibration samples are not finite.
    pub(crate) fn new(acs: &Acs, params: &CompressParams) -> Result<Self, LinalgError> {
        match params.method {
            CompressMethod::Geometric => Self::geometric(acs, params),
            _ => Self::svd(acs, params),
        }
    }

    fn svd(acs: &Acs, params: &CompressParams) -> Result<Self, LinalgError> {
        let n = acs.shape.coil;
        let eigen = eigh(&gram(&acs.samples, n), n)?;
        let (n_virtual, energy) = keep(&eigen.values, params);
        let matrix = eigen.vectors[..n_virtual * n]
            .iter()
            .map(|v| narrow(v.conj()))
            .collect();
        Ok(Self {
            n_coils: n,
            n_virtual,
            energy,
            matrices: Matrices::One(matrix),
        })
    }

    fn geometric(acs: &Acs, params: &CompressParams) -> Result<Self, LinalgError> {
        let (n, nx) = (acs.shape.coil, acs.shape.ro);
        let mut hybrid = acs.samples.clone();
        Fft::plan(nx, Direction::Inverse).run_rows(&mut hybrid);
        let lines = acs.shape.pe2 * acs.shape.pe1;
        let eigens = (0..nx)
            .into_par_iter()
            .map(|x| {
                let at = |c: usize| (0..lines).map(move |l| (c * lines + l) * nx + x);
                let hybrid = &hybrid;
                eigh(&covariance(n, |c| at(c).map(|i| hybrid[i])), n)
            })
            .collect::<Result<Vec<_>, _>>()?;
        // One number of virtual coils for all positions: what the sum of their spectra asks for.
        let mut values = vec![0.0; n];
        for eigen in &eigens {
            for (sum, v) in values.iter_mut().zip(&eigen.values) {
                *sum += v;
            }
        }
        let (n_virtual, energy) = keep(&values, params);
        let mut matrices = vec![Complex32::ZERO; n_virtual * n * nx];
        let mut store = |x: usize, rows: &[Complex64]| {
            for (i, v) in rows.iter().enumerate() {
                matrices[i * nx + x] = narrow(v.conj());
            }
        };
        // Eigenvectors are free up to a rotation, which must not jump between neighbouring positions: each basis is
        // turned to be nearest to its neighbour's, from the middle outwards.
        let rows = |x: usize| eigens[x].vectors[..n_virtual * n].to_vec();
        let middle = nx / 2;
        let start = rows(middle);
        store(middle, &start);
        let mut last = start.clone();
        for x in middle + 1..nx {
            last = align(&rows(x), &last, n_virtual, n)?;
            store(x, &last);
        }
        last = start;
        for x in (0..middle).rev() {
            last = align(&rows(x), &last, n_virtual, n)?;
            store(x, &last);
        }
        Ok(Self {
            n_coils: n,
            n_virtual,
            energy,
            matrices: Matrices::PerPosition(matrices),
        })
    }

    /// The frame with virtual coils.
    pub(crate) fn run(&self, frame: &Frame) -> Frame {
        Frame {
            key: frame.key,
            kspace: self.run_kspace(&frame.kspace),
            reference: frame.reference.as_ref().map(|k| self.run_kspace(k)),
            is_whitened: frame.is_whitened,
            geometry: frame.geometry,
            table_position_mm: frame.table_position_mm,
            stamps: frame.stamps,
            notes: frame.notes.clone(),
        }
    }

    fn run_kspace(&self, kspace: &KSpace) -> KSpace {
        let samples = match &self.matrices {
            Matrices::One(matrix) => {
                let n = kspace.samples.len() / self.n_coils.max(1);
                let mut samples = vec![Complex32::ZERO; self.n_virtual * n];
                mix(matrix, self.n_coils, &kspace.samples, &mut samples);
                samples
            }
            Matrices::PerPosition(matrices) => self.per_position(matrices, kspace),
        };
        KSpace {
            shape: Shape {
                coil: self.n_virtual,
                ..kspace.shape
            },
            lines: kspace.lines.clone(),
            ro_range: kspace.ro_range.clone(),
            samples,
        }
    }

    fn per_position(&self, matrices: &[Complex32], kspace: &KSpace) -> Vec<Complex32> {
        let nx = kspace.shape.ro;
        let n_lines = kspace.lines.len();
        let mut hybrid = kspace.samples.clone();
        Fft::plan(nx, Direction::Inverse).run_rows(&mut hybrid);
        let mut out = vec![Complex32::ZERO; self.n_virtual * n_lines * nx];
        let back = Fft::plan(nx, Direction::Forward);
        out.par_chunks_mut((nx * 4).max(1))
            .enumerate()
            .for_each(|(block, rows)| {
                for (j, row) in rows.chunks_exact_mut(nx).enumerate() {
                    let (v, line) = ((block * 4 + j) / n_lines, (block * 4 + j) % n_lines);
                    for c in 0..self.n_coils {
                        let m = &matrices[(v * self.n_coils + c) * nx..][..nx];
                        mul_add(row, m, &hybrid[(c * n_lines + line) * nx..][..nx]);
                    }
                }
                back.run_rows_here(rows);
                for row in rows.chunks_exact_mut(nx) {
                    // Not measured stays not measured (asymmetric echo).
                    row[..kspace.ro_range.start].fill(Complex32::ZERO);
                    row[kspace.ro_range.end..].fill(Complex32::ZERO);
                }
            });
        out
    }
}

fn narrow(v: Complex64) -> Complex32 {
    Complex32::new(v.re as f32, v.im as f32)
}

/// `sum x xᴴ` over samples, `[coil, coil]`.
fn covariance<I: Iterator<Item = Complex32>>(
    n: usize,
    coil: impl Fn(usize) -> I,
) -> Vec<Complex64> {
    let mut out = vec![Complex64::ZERO; n * n];
    for a in 0..n {
        for b in 0..=a {
            let sum: Complex64 = coil(a)
                .zip(coil(b))
                .map(|(x, y)| {
                    let p = x * y.conj();
                    Complex64::new(f64::from(p.re), f64::from(p.im))
                })
                .sum();
            out[a * n + b] = sum;
            out[b * n + a] = sum.conj();
        }
    }
    out
}

/// How many virtual coils, and which share of the energy they hold.
fn keep(values: &[f64], params: &CompressParams) -> (usize, f64) {
    let total: f64 = values.iter().map(|v| v.max(0.0)).sum();
    let share = |n: usize| {
        if total > 0.0 {
            values[..n].iter().map(|v| v.max(0.0)).sum::<f64>() / total
        } else {
            1.0
        }
    };
    let n = if params.n_virtual > 0 {
        params.n_virtual.min(values.len())
    } else {
        (1..=values.len())
            .find(|&n| share(n) >= params.energy)
            .unwrap_or(values.len())
    };
    (n, share(n))
}

/// Rotates the rows of `basis` so that they are nearest to those of `target`: `(T Bᴴ)` made unitary, times `B`.
fn align(
    basis: &[Complex64],
    target: &[Complex64],
    m: usize,
    n: usize,
) -> Result<Vec<Complex64>, LinalgError> {
    let overlap: Vec<Complex64> = (0..m * m)
        .map(|i| {
            (0..n)
                .map(|k| target[i / m * n + k] * basis[i % m * n + k].conj())
                .sum()
        })
        .collect();
    let rotation = unitary_part(&overlap, m)?;
    Ok((0..m * n)
        .map(|i| {
            (0..m)
                .map(|k| rotation[i / n * m + k] * basis[k * n + i % n])
                .sum()
        })
        .collect())
}

/// `U Vᴴ` of `C = U S Vᴴ`, as `C (Cᴴ C)^(-1/2)`.
fn unitary_part(c: &[Complex64], m: usize) -> Result<Vec<Complex64>, LinalgError> {
    let gram: Vec<Complex64> = (0..m * m)
        .map(|i| {
            (0..m)
                .map(|k| c[k * m + i / m].conj() * c[k * m + i % m])
                .sum()
        })
        .collect();
    let eigen = eigh(&gram, m)?;
    let mut out = vec![Complex64::ZERO; m * m];
    let mut left: Vec<Vec<Complex64>> = Vec::with_capacity(m);
    for e in 0..m {
        let v = &eigen.vectors[e * m..(e + 1) * m];
        // C v / |C v|, made orthogonal to those before it, so that a lost direction (S = 0) still gets a partner.
        let mut u: Vec<Complex64> = (0..m)
            .map(|i| (0..m).map(|k| c[i * m + k] * v[k]).sum())
            .collect();
        let norm = |u: &[Complex64]| u.iter().map(|x| x.norm_sqr()).sum::<f64>().sqrt();
        let mut candidate = 0;
        loop {
            for other in &left {
                let overlap: Complex64 = other.iter().zip(&u).map(|(o, u)| o.conj() * u).sum();
                for (u, o) in u.iter_mut().zip(other) {
                    *u -= o * overlap;
                }
            }
            let size = norm(&u);
            if size > 1e-6 || candidate == m {
                let size = size.max(f64::MIN_POSITIVE);
                u.iter_mut().for_each(|x| *x /= size);
                break;
            }
            u.fill(Complex64::ZERO);
            u[candidate] = Complex64::ONE;
            candidate += 1;
        }
        for i in 0..m {
            for k in 0..m {
                out[i * m + k] += u[i] * v[k].conj();
            }
        }
        left.push(u);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recon::acs;
    use crate::recon::testing::Sim;

    fn compression(method: CompressMethod, n_virtual: usize) -> (Frame, Compression) {
        let sim = Sim::new(8, 1, 32, 24, 100.0);
        let frame = sim.frame(|_, _| true, 0.0, 1);
        let (block, origin) = acs::locate(&frame, crate::data::Calibration::Embedded);
        let params = CompressParams {
            method,
            n_virtual,
            ..Default::default()
        };
        let c = Compression::new(&acs::cut(&frame, &block, origin), &params).unwrap();
        (frame, c)
    }

    fn power(k: &KSpace) -> f64 {
        crate::num::complex::norm2(&k.samples)
    }

    #[test]
    fn all_virtual_coils_keep_all_energy() {
        for method in [CompressMethod::Svd, CompressMethod::Geometric] {
            let (frame, c) = compression(method, 8);
            let out = c.run(&frame);
            assert!(
                (power(&out.kspace) / power(&frame.kspace) - 1.0).abs() < 1e-4,
                "{method:?}"
            );
        }
    }

    #[test]
    fn rows_are_orthonormal_so_noise_stays_white() {
        let (_, c) = compression(CompressMethod::Geometric, 4);
        let Matrices::PerPosition(m) = &c.matrices else {
            panic!()
        };
        for x in 0..24 {
            for a in 0..4 {
                for b in 0..4 {
                    let dot: Complex32 = (0..8)
                        .map(|k| m[(a * 8 + k) * 24 + x].conj() * m[(b * 8 + k) * 24 + x])
                        .sum();
                    let wanted = if a == b { 1.0 } else { 0.0 };
                    assert!((dot - wanted).norm() < 1e-5, "{x} {a} {b} {dot}");
                }
            }
        }
    }

    #[test]
    fn geometric_needs_no_more_coils_than_svd() {
        let (frame, svd) = compression(CompressMethod::Svd, 3);
        let (_, geometric) = compression(CompressMethod::Geometric, 3);
        assert!(geometric.energy >= svd.energy - 1e-9);
        let kept = |c: &Compression| power(&c.run(&frame).kspace) / power(&frame.kspace);
        assert!((kept(&svd) - svd.energy).abs() < 1e-3);
        assert!((kept(&geometric) - geometric.energy).abs() < 1e-3);
    }

    #[test]
    fn neighbouring_positions_have_neighbouring_matrices() {
        let (_, c) = compression(CompressMethod::Geometric, 3);
        let Matrices::PerPosition(m) = &c.matrices else {
            panic!()
        };
        // Inside the object, where there is signal to align.
        for x in 8..16 {
            let d: f32 = (0..24)
                .map(|i| (m[i * 24 + x] - m[i * 24 + x - 1]).norm_sqr())
                .sum();
            assert!(d < 1.0, "{x}: {d}");
        }
    }
}
