//! Receive coils as trigonometric polynomials, so that their k-space is exact too.
//!
//! A coil's sensitivity is a finite Fourier series over a period at least half again as long as the field of view.
//! Multiplying the object by it adds up copies of the object's transform, shifted by multiples of one over the period.

use std::f64::consts::PI;

use num_complex::Complex64;

/// Harmonics on each side of zero.
pub(crate) const ORDER: i64 = 4;
/// All harmonics of one axis.
pub(crate) const N_TERMS: usize = (2 * ORDER + 1) as usize;

/// One coil: a product of three series, `Σ c[p] exp(2πi p r / period)`.
#[derive(Clone, Debug)]
pub(crate) struct Coil {
    /// Coefficients along x, y, z.
    pub(crate) terms: [[Complex64; N_TERMS]; 3],
}

/// A ring of coils around the object; several rings along z when `is_3d`.
///
/// # Units
/// `period`: fields of view.
pub(crate) fn ring(n_coils: usize, sharpness: f64, period: [f64; 3], is_3d: bool) -> Vec<Coil> {
    let n_rings = if is_3d && n_coils >= 8 { 2 } else { 1 };
    let per_ring = n_coils.div_ceil(n_rings);
    (0..n_coils)
        .map(|i| {
            let (ring, j) = (i / per_ring, i % per_ring);
            let turn = 2.0 * PI * (j as f64 + 0.5 * ring as f64 + 0.13) / per_ring as f64;
            let x = 0.55 * turn.cos();
            let y = 0.55 * turn.sin();
            let z = if n_rings == 1 {
                0.0
            } else {
                0.6 * (ring as f64 - 0.5)
            };
            // A sharpness given for two fields of view is kept for any period: curvature κ/L².
            let kappa = |axis: usize| sharpness * (period[axis] / 2.0).powi(2);
            // A complex centre gives the coil a phase that turns across the object.
            let mut coil = Coil {
                terms: [
                    series(x, 0.12 * turn.sin(), kappa(0), period[0]),
                    series(y, -0.12 * turn.cos(), kappa(1), period[1]),
                    series(z, 0.0, if is_3d { kappa(2) } else { 0.0 }, period[2]),
                ],
            };
            let phase = Complex64::from_polar(1.0, turn);
            coil.terms[0].iter_mut().for_each(|t| *t *= phase);
            coil
        })
        .collect()
}

/// Fourier series of `exp(κ (cos(2π (r - centre - i·tilt)/period) - 1))`, cut at [`ORDER`].
fn series(centre: f64, tilt: f64, kappa: f64, period: f64) -> [Complex64; N_TERMS] {
    std::array::from_fn(|i| {
        let p = i as i64 - ORDER;
        let weight = bessel_i(p.unsigned_abs(), kappa) * (-kappa).exp();
        let turn = -2.0 * PI * p as f64 / period;
        Complex64::from_polar(weight * (-turn * tilt).exp(), turn * centre)
    })
}

/// Modified Bessel function of integer order by its power series; arguments here are below 50.
fn bessel_i(order: u64, x: f64) -> f64 {
    let half = x / 2.0;
    let mut term = (1..=order).fold(1.0, |t, k| t * half / k as f64);
    let mut sum = term;
    for k in 1..200u32 {
        term *= half * half / (f64::from(k) * (f64::from(k) + order as f64));
        sum += term;
        if term < 1e-17 * sum {
            break;
        }
    }
    sum
}

impl Coil {
    /// Sensitivity at a place, in fields of view.
    pub(crate) fn at(&self, r: [f64; 3], period: [f64; 3]) -> Complex64 {
        (0..3)
            .map(|axis| {
                self.terms[axis]
                    .iter()
                    .enumerate()
                    .map(|(i, c)| {
                        let p = (i as i64 - ORDER) as f64;
                        c * Complex64::from_polar(1.0, 2.0 * PI * p * r[axis] / period[axis])
                    })
                    .sum::<Complex64>()
            })
            .product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modified_bessel_values() {
        // Abramowitz and Stegun, tables 9.8 and 9.9
        assert!((bessel_i(0, 1.0) - 1.266_065_877_8).abs() < 1e-9);
        assert!((bessel_i(1, 2.0) - 1.590_636_854_6).abs() < 1e-9);
        assert!((bessel_i(2, 2.0) - 0.688_948_447_7).abs() < 1e-9);
        assert_eq!(bessel_i(3, 0.0), 0.0);
    }

    #[test]
    fn coils_peak_at_their_place_and_differ() {
        let period = [2.0; 3];
        let coils = ring(8, 2.0, period, false);
        for (i, c) in coils.iter().enumerate() {
            let turn = 2.0 * PI * (i as f64 + 0.13) / 8.0;
            let near = c
                .at([0.5 * turn.cos(), 0.5 * turn.sin(), 0.0], period)
                .norm();
            let far = c
                .at([-0.5 * turn.cos(), -0.5 * turn.sin(), 0.0], period)
                .norm();
            assert!(near > 3.0 * far, "{i}: {near} {far}");
        }
        // sharpness 0: uniform
        let flat = &ring(1, 0.0, period, false)[0];
        assert!((flat.at([0.3, -0.2, 0.0], period).norm() - 1.0).abs() < 1e-12);
    }
}
