//! Seeded, correlated receiver noise.

use std::f64::consts::PI;

use num_complex::Complex64;

/// xoshiro256++ seeded through splitmix64: small, fast, the same everywhere.
///
/// # Source
/// Blackman and Vigna, ACM Trans Math Softw 47:36 (2021), doi:10.1145/3460772.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// `stream` separates the readouts, so that they can be made in any order.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut x = seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95);
        Self {
            state: std::array::from_fn(|_| {
                x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = x;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ (z >> 31)
            }),
        }
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// Uniform in [0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Complex normal with standard deviation 1 in each component (Box-Muller).
    pub(crate) fn normal(&mut self) -> Complex64 {
        let r = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        Complex64::from_polar(r, 2.0 * PI * self.uniform())
    }
}

/// Noise covariance of the coils (`E[n nᴴ]` per complex sample): unlike levels, correlation that falls with distance
/// and turns in phase. `std` is the mean level of one component.
pub(crate) fn covariance(n_coils: usize, std: f64, correlation: f64) -> Vec<Complex64> {
    let level = |i: usize| std * (1.0 + 0.25 * (2.1 * i as f64).sin());
    let mut psi = vec![Complex64::ZERO; n_coils * n_coils];
    for i in 0..n_coils {
        for j in 0..n_coils {
            let d = i as f64 - j as f64;
            psi[i * n_coils + j] = Complex64::from_polar(
                2.0 * level(i)
                    * level(j)
                    * if i == j {
                        1.0
                    } else {
                        correlation.powf(d.abs())
                    },
                0.7 * d,
            );
        }
    }
    psi
}

/// Lower Cholesky factor, `psi = L Lᴴ`.
pub(crate) fn factor(psi: &[Complex64], n: usize) -> Vec<Complex64> {
    let mut l = vec![Complex64::ZERO; n * n];
    for i in 0..n {
        for j in 0..=i {
            let s: Complex64 = psi[i * n + j]
                - (0..j)
                    .map(|k| l[i * n + k] * l[j * n + k].conj())
                    .sum::<Complex64>();
            l[i * n + j] = if i == j {
                Complex64::new(s.re.max(0.0).sqrt(), 0.0)
            } else if l[j * n + j].re > 0.0 {
                s / l[j * n + j].re
            } else {
                Complex64::ZERO
            };
        }
    }
    l
}

/// Noise of one readout, `[coil, sample]`, with covariance `scale² L Lᴴ`.
pub(crate) fn readout(
    rng: &mut Rng,
    factor: &[Complex64],
    n_coils: usize,
    n_samples: usize,
    scale: f64,
) -> Vec<Complex64> {
    // Unit complex variance: half in each component.
    let scale = scale * std::f64::consts::FRAC_1_SQRT_2;
    let mut white = vec![Complex64::ZERO; n_coils];
    let mut out = vec![Complex64::ZERO; n_coils * n_samples];
    for s in 0..n_samples {
        white.iter_mut().for_each(|w| *w = rng.normal() * scale);
        for i in 0..n_coils {
            let row = &factor[i * n_coils..=i * n_coils + i];
            out[i * n_samples + s] = row.iter().zip(&white).map(|(l, w)| l * w).sum();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_its_covariance() {
        let n = 3;
        let psi = covariance(n, 0.5, 0.4);
        let l = factor(&psi, n);
        let mut rng = Rng::new(5, 0);
        let samples = 200_000;
        let x = readout(&mut rng, &l, n, samples, 1.0);
        for i in 0..n {
            for j in 0..n {
                let c: Complex64 = (0..samples)
                    .map(|s| x[i * samples + s] * x[j * samples + s].conj())
                    .sum::<Complex64>()
                    / samples as f64;
                assert!(
                    (c - psi[i * n + j]).norm() < 0.01,
                    "{i}{j} {c} {}",
                    psi[i * n + j]
                );
            }
        }
        // half of the variance in each component
        let re: f64 = x[..samples].iter().map(|v| v.re * v.re).sum::<f64>() / samples as f64;
        assert!((re - psi[0].re / 2.0).abs() < 0.01);
    }

    #[test]
    fn streams_differ_and_repeat() {
        let a = Rng::new(1, 0).normal();
        assert_eq!(a, Rng::new(1, 0).normal());
        assert_ne!(a, Rng::new(1, 1).normal());
        assert_ne!(a, Rng::new(2, 0).normal());
    }
}
