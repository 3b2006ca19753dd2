//! From real numbers to stored 16-bit pixels, and what a reader needs to go back.

use super::super::Quantity;
use super::dataset::decimal;

/// `value = slope · stored + intercept`; both numbers are exactly what the DICOM text says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scaling {
    pub(super) slope: f64,
    pub(super) intercept: f64,
}

impl Scaling {
    /// One scaling for a whole series, so that slices and repetitions stay comparable, also for viewers that
    /// ignore it. Nothing is clipped: the largest magnitude `max` fits.
    ///
    /// * magnitude, noise: the largest value is stored as (nearly) 65535;
    /// * signed quantities: zero is stored as 32768;
    /// * SNR and g-factor: steps of 0.01 and 0.001 (or the next power of ten that fits), so that stored numbers can
    ///   be read by eye.
    pub(super) fn of(quantity: Quantity, max: f32) -> Self {
        let max = f64::from(max);
        let step = |smallest: f64| {
            let mut step = smallest;
            while max / step > 65_535.0 {
                step *= 10.0;
            }
            decimal(step).parse().unwrap_or(step)
        };
        match quantity {
            Quantity::Snr => Self {
                slope: step(0.01),
                intercept: 0.0,
            },
            Quantity::Gfactor => Self {
                slope: step(0.001),
                intercept: 0.0,
            },
            Quantity::Phase => Self::signed(std::f64::consts::PI),
            Quantity::Real | Quantity::Imag => Self::signed(max),
            _ => Self {
                slope: six_digits_up(max / 65_535.0),
                intercept: 0.0,
            },
        }
    }

    /// Whole HU as CT stores them, 1024 below zero; a wider range where the values ask for it. `[lowest, largest magnitude]`.
    pub(super) fn hounsfield([min, max]: [f32; 2]) -> Self {
        let (min, max) = (f64::from(min), f64::from(max));
        if min >= -1024.0 && max <= 65_535.0 - 1024.0 {
            return Self {
                slope: 1.0,
                intercept: -1024.0,
            };
        }
        Self::signed(max.max(1.0))
    }

    fn signed(max: f64) -> Self {
        let slope = six_digits_up(max / 32_767.0);
        // Six digits times five: eleven digits, exact in the sixteen characters of a decimal string.
        Self {
            slope,
            intercept: decimal(-32_768.0 * slope)
                .parse()
                .unwrap_or(-32_768.0 * slope),
        }
    }

    /// Stored pixels.
    pub(super) fn store(self, values: &[f32]) -> Vec<u16> {
        values
            .iter()
            .map(|&v| ((f64::from(v) - self.intercept) / self.slope).round() as u16)
            .collect()
    }
}

/// The next number not below `value` with six significant digits; 1 for zero.
fn six_digits_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let unit = 10_f64.powi(value.log10().floor() as i32 - 5);
    let up = format!("{:.5e}", (value / unit).ceil() * unit);
    up.parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_clipped_and_all_is_near() {
        for max in [1e-12_f32, 0.37, 1.0, 65535.0, 65536.0, 3e9, 1e30] {
            for quantity in [
                Quantity::Magnitude,
                Quantity::Snr,
                Quantity::Gfactor,
                Quantity::Real,
            ] {
                let scaling = Scaling::of(quantity, max);
                let values = [0.0, max / 3.0, max];
                for (value, stored) in values.iter().zip(scaling.store(&values)) {
                    let back = scaling.slope * f64::from(stored) + scaling.intercept;
                    assert!(
                        (back - f64::from(*value)).abs() <= 0.5001 * scaling.slope,
                        "{quantity:?} {max} {value} {back}"
                    );
                }
            }
        }
        let scaling = Scaling::of(Quantity::Real, 5.0);
        assert_eq!(scaling.store(&[0.0])[0], 32768);
        assert_eq!(scaling.slope * 32768.0 + scaling.intercept, 0.0);
        let phase = Scaling::of(Quantity::Phase, 0.0);
        let pi = std::f32::consts::PI;
        for (value, stored) in [-pi, 0.0, pi].iter().zip(phase.store(&[-pi, 0.0, pi])) {
            assert!(
                (phase.slope * f64::from(stored) + phase.intercept - f64::from(*value)).abs()
                    < 1e-4
            );
        }
        assert_eq!(Scaling::of(Quantity::Gfactor, 4.0).slope, 0.001);
        assert_eq!(Scaling::of(Quantity::Gfactor, 70.0).slope, 0.01);
        assert_eq!(Scaling::of(Quantity::Magnitude, 0.0).slope, 1.0);
    }
}
