//! Seeded noise that is the same on every machine.

use num_complex::Complex32;

/// A small generator: SplitMix64 for the integers, Box and Muller for the normal values.
///
/// # Source
/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, doi:10.1145/2660193.2660195.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Two independent normal values of standard deviation 1, as one complex number: the noise of whitened k-space.
    pub fn normal(&mut self) -> Complex32 {
        // 1 - u lies in (0, 1], so that the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let angle = std::f64::consts::TAU * self.uniform();
        Complex32::new((radius * angle.cos()) as f32, (radius * angle.sin()) as f32)
    }

    /// `n` values of [`Rng::normal`].
    pub fn complex(&mut self, n: usize) -> Vec<Complex32> {
        (0..n).map(|_| self.normal()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_published_sequence() {
        // First outputs of SplitMix64 for seed 1234567 (the value table of the Rosetta Code task of that name).
        let mut rng = Rng::new(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn normal_values_have_unit_standard_deviation_per_component() {
        let v = Rng::new(3).complex(100_000);
        let n = v.len() as f64;
        let re = v.iter().map(|v| f64::from(v.re).powi(2)).sum::<f64>() / n;
        let im = v.iter().map(|v| f64::from(v.im).powi(2)).sum::<f64>() / n;
        let cross = v.iter().map(|v| f64::from(v.re * v.im)).sum::<f64>() / n;
        assert!((re - 1.0).abs() < 0.02 && (im - 1.0).abs() < 0.02 && cross.abs() < 0.02);
    }
}
