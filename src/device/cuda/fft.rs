//! What `kernels/fft.cuh` wants to know of a length.

use num_complex::{Complex32, Complex64};

/// Samples that a block has room for: `FFT_HALF`.
const HALF: usize = 3072;

/// The passes of a transform of one length.
#[derive(Clone, Debug, PartialEq)]
pub struct FftPlan {
    /// Length.
    pub n: usize,
    /// Radices of the passes, four bits each, the first one lowest.
    pub radices: i32,
    /// `exp(-2 pi i k / n)`.
    pub twiddles: Vec<Complex32>,
}

impl FftPlan {
    /// `None` for lengths that the kernels have no passes for: above 3072, or with a prime factor above 7.
    pub fn new(n: usize) -> Option<Self> {
        if n == 0 || n > HALF {
            return None;
        }
        let (mut rest, mut radices, mut shift) = (n, 0, 0);
        for radix in [8, 4, 2, 7, 5, 3] {
            while rest.is_multiple_of(radix) {
                // 3072 has six passes at most, of four bits each.
                radices |= (radix as i32) << shift;
                shift += 4;
                rest /= radix;
            }
        }
        let twiddle = |k: usize| {
            let wave = Complex64::cis(-std::f64::consts::TAU * k as f64 / n as f64);
            Complex32::new(wave.re as f32, wave.im as f32)
        };
        (rest == 1).then(|| Self {
            n,
            radices,
            twiddles: (0..n).map(twiddle).collect(),
        })
    }

    /// Most lines that a block can transform side by side.
    pub fn lines_at_once(&self) -> usize {
        HALF / self.n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_multiply_to_the_length() {
        let mut known = 0;
        for n in 1..=HALF {
            let Some(plan) = FftPlan::new(n) else {
                continue;
            };
            let mut product = 1;
            let mut rest = plan.radices;
            while rest != 0 {
                product *= (rest & 15) as usize;
                rest >>= 4;
            }
            assert!(plan.radices >= 0 && product == n, "{n}");
            known += 1;
        }
        assert!(FftPlan::new(320).unwrap().radices == 0x588);
        assert!(known > 200 && FftPlan::new(11).is_none() && FftPlan::new(4096).is_none());
    }
}
