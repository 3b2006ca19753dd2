//! Ellipsoids and their exact Fourier transforms.

use std::f64::consts::PI;

use num_complex::Complex64;

use super::Object;

/// An ellipsoid, turned about the z axis.
///
/// # Units
/// Fractions of the reconstructed field of view; the centre of the field of view is the origin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ellipsoid {
    pub(crate) intensity: f64,
    pub(crate) axes: [f64; 3],
    pub(crate) centre: [f64; 3],
    pub(crate) angle: f64,
    /// Factor of the intensity from one contrast to the next.
    pub(crate) decay: f64,
}

const fn e(
    intensity: f64,
    axes: [f64; 3],
    centre: [f64; 3],
    angle_deg: f64,
    decay: f64,
) -> Ellipsoid {
    Ellipsoid {
        intensity,
        axes,
        centre,
        angle: angle_deg * PI / 180.0,
        decay,
    }
}

/// Toft's contrast; extents along z after Kak and Slaney. Lengths in half fields of view.
const SHEPP_LOGAN: [Ellipsoid; 10] = [
    e(1.0, [0.69, 0.92, 0.81], [0.0, 0.0, 0.0], 0.0, 0.8),
    e(-0.8, [0.6624, 0.874, 0.78], [0.0, -0.0184, 0.0], 0.0, 0.8),
    e(-0.2, [0.11, 0.31, 0.22], [0.22, 0.0, 0.0], -18.0, 0.7),
    e(-0.2, [0.16, 0.41, 0.28], [-0.22, 0.0, 0.0], 18.0, 0.7),
    e(0.1, [0.21, 0.25, 0.41], [0.0, 0.35, -0.15], 0.0, 0.9),
    e(0.1, [0.046, 0.046, 0.05], [0.0, 0.1, 0.25], 0.0, 0.6),
    e(0.1, [0.046, 0.046, 0.05], [0.0, -0.1, 0.25], 0.0, 0.6),
    e(0.1, [0.046, 0.023, 0.05], [-0.08, -0.605, 0.0], 0.0, 0.9),
    e(0.1, [0.023, 0.023, 0.02], [0.0, -0.606, 0.0], 0.0, 0.9),
    e(0.1, [0.023, 0.046, 0.02], [0.06, -0.605, 0.0], 0.0, 0.9),
];

const BODY: [Ellipsoid; 13] = [
    e(0.9, [0.86, 0.62, 1.6], [0.0, 0.0, 0.0], 0.0, 0.9), // skin and fat
    e(-0.45, [0.78, 0.53, 1.6], [0.0, 0.02, 0.0], 0.0, 0.6), // muscle
    e(0.25, [0.16, 0.13, 1.5], [0.0, 0.22, 0.0], 0.0, 0.8), // vertebra
    e(0.35, [0.055, 0.045, 1.5], [0.01, 0.4, 0.0], 0.0, 0.95), // canal
    e(-0.2, [0.03, 0.022, 1.5], [0.01, 0.4, 0.0], 0.0, 0.95), // cord
    e(0.3, [0.11, 0.17, 0.7], [0.42, 0.18, 0.1], 25.0, 0.85), // left kidney
    e(0.3, [0.12, 0.15, 0.7], [-0.44, 0.16, -0.1], -20.0, 0.85), // right kidney
    e(0.15, [0.38, 0.26, 0.9], [-0.3, -0.18, 0.2], 12.0, 0.7), // liver
    e(-0.35, [0.05, 0.05, 1.6], [0.07, 0.02, 0.0], 0.0, 0.5), // aorta (flow void)
    e(-0.3, [0.06, 0.045, 1.6], [-0.09, 0.0, 0.0], 0.0, 0.5), // vena cava
    e(0.2, [0.14, 0.1, 0.5], [0.34, -0.25, 0.3], -30.0, 0.8), // stomach
    e(0.45, [0.02, 0.02, 1.2], [0.3, -0.1, 0.0], 0.0, 0.9), // small bright dot
    e(0.2, [0.05, 0.03, 0.3], [-0.1, -0.4, 0.0], 0.0, 0.9),
];

/// The ellipsoids of an object, for one contrast.
pub(crate) fn ellipsoids(object: Object, contrast: usize) -> Vec<Ellipsoid> {
    let table: &[Ellipsoid] = match object {
        Object::SheppLogan => &SHEPP_LOGAN,
        Object::Body => &BODY,
    };
    table
        .iter()
        .map(|e| Ellipsoid {
            intensity: e.intensity * e.decay.powi(i32::try_from(contrast).unwrap_or(i32::MAX)),
            axes: e.axes.map(|v| v / 2.0),
            centre: e.centre.map(|v| v / 2.0),
            ..*e
        })
        .collect()
}

impl Ellipsoid {
    /// The ellipse in which a thin slice at height `z` cuts it; `None` if it misses.
    pub(crate) fn slice(&self, z: f64) -> Option<Self> {
        let t = (z - self.centre[2]) / self.axes[2];
        let s = 1.0 - t * t;
        (s > 0.0).then(|| {
            let s = s.sqrt();
            Self {
                axes: [self.axes[0] * s, self.axes[1] * s, self.axes[2]],
                ..*self
            }
        })
    }

    fn turned(&self, x: f64, y: f64) -> (f64, f64) {
        let (sin, cos) = self.angle.sin_cos();
        (x * cos + y * sin, y * cos - x * sin)
    }

    fn shift(&self, k: [f64; 3]) -> Complex64 {
        let at: f64 = (0..3).map(|i| k[i] * self.centre[i]).sum();
        Complex64::from_polar(1.0, -2.0 * PI * at)
    }

    /// `∫ ρ exp(-2πi k·r) dr` of the ellipse in the plane; `k` in cycles per field of view.
    pub(crate) fn transform2(&self, kx: f64, ky: f64) -> Complex64 {
        let (u, v) = self.turned(kx, ky);
        let q = 2.0 * PI * (self.axes[0] * u).hypot(self.axes[1] * v);
        let jinc = if q < 1e-6 { 0.5 } else { bessel_j1(q) / q };
        self.shift([kx, ky, 0.0]) * (self.intensity * 2.0 * PI * self.axes[0] * self.axes[1] * jinc)
    }

    /// `∫ ρ exp(-2πi k·r) dr` of the ellipsoid.
    pub(crate) fn transform3(&self, kx: f64, ky: f64, kz: f64) -> Complex64 {
        let (u, v) = self.turned(kx, ky);
        let [a, b, c] = self.axes;
        let q = 2.0 * PI * ((a * u).powi(2) + (b * v).powi(2) + (c * kz).powi(2)).sqrt();
        // (sin q - q cos q) / q³, by its series where the difference cancels
        let g = if q < 0.02 {
            1.0 / 3.0 - q * q / 30.0
        } else {
            (q.sin() - q * q.cos()) / (q * q * q)
        };
        self.shift([kx, ky, kz]) * (self.intensity * 4.0 * PI * a * b * c * g)
    }

    /// Whether a point lies inside (its ellipse, if `is_flat`).
    #[cfg(test)]
    pub(crate) fn contains(&self, r: [f64; 3], is_flat: bool) -> bool {
        let (u, v) = self.turned(r[0] - self.centre[0], r[1] - self.centre[1]);
        let w = if is_flat {
            0.0
        } else {
            (r[2] - self.centre[2]) / self.axes[2]
        };
        (u / self.axes[0]).powi(2) + (v / self.axes[1]).powi(2) + w * w <= 1.0
    }
}

/// Bessel function of the first kind, order 1, for `x >= 0`, to about 1e-8.
///
/// # Source
/// Rational approximations of Hart et al., Computer Approximations (1968), as printed in Numerical Recipes 6.5.
fn bessel_j1(x: f64) -> f64 {
    if x < 8.0 {
        let y = x * x;
        let p = x
            * (72_362_614_232.0
                + y * (-7_895_059_235.0
                    + y * (242_396_853.1
                        + y * (-2_972_611.439 + y * (15_704.482_60 + y * -30.160_366_06)))));
        let q = 144_725_228_442.0
            + y * (2_300_535_178.0
                + y * (18_583_304.74 + y * (99_447.433_94 + y * (376.999_139_7 + y))));
        p / q
    } else {
        let z = 8.0 / x;
        let y = z * z;
        let xx = x - 2.356_194_491;
        let p = 1.0
            + y * (0.183_105e-2
                + y * (-0.351_639_649_6e-4 + y * (0.245_752_017_4e-5 + y * -0.240_337_019e-6)));
        let q = 0.046_874_999_95
            + y * (-0.200_269_087_3e-3
                + y * (0.844_919_909_6e-5 + y * (-0.882_289_87e-6 + y * 0.105_787_412e-6)));
        (2.0 / PI / x).sqrt() * (xx.cos() * p - z * xx.sin() * q)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bessel_values() {
        // Abramowitz and Stegun, table 9.1
        for (x, want) in [
            (0.5, 0.242_268_457_7),
            (1.0, 0.440_050_585_7),
            (5.0, -0.327_579_137_6),
            (10.0, 0.043_472_746_2),
            (17.5, -0.163_419_980_8),
        ] {
            assert!((bessel_j1(x) - want).abs() < 2e-8, "{x}: {}", bessel_j1(x));
        }
    }

    // Riemann sums over a fine grid.
    fn summed(e: &Ellipsoid, k: [f64; 3], is_flat: bool) -> Complex64 {
        let n = if is_flat { 400 } else { 80 };
        let at = |i: usize| (i as f64 + 0.5) / n as f64 - 0.5;
        let mut s = Complex64::ZERO;
        for iz in 0..if is_flat { 1 } else { n } {
            for iy in 0..n {
                for ix in 0..n {
                    let r = [at(ix), at(iy), if is_flat { 0.0 } else { at(iz) }];
                    if e.contains(r, is_flat) {
                        let phase: f64 = (0..3).map(|i| k[i] * r[i]).sum();
                        s += Complex64::from_polar(e.intensity, -2.0 * PI * phase);
                    }
                }
            }
        }
        s / (n as f64).powi(if is_flat { 2 } else { 3 })
    }

    #[test]
    fn transforms_against_sums() {
        let e = Ellipsoid {
            intensity: 1.5,
            axes: [0.2, 0.3, 0.15],
            centre: [0.05, -0.1, 0.07],
            angle: 0.6,
            decay: 1.0,
        };
        for k in [
            [0.0, 0.0, 0.0],
            [1.0, 0.0, 0.0],
            [0.5, -2.0, 1.0],
            [3.0, 2.5, -1.5],
        ] {
            let flat = [k[0], k[1], 0.0];
            let d = (e.transform2(k[0], k[1]) - summed(&e, flat, true)).norm();
            assert!(d < 2e-3, "{k:?} {d}");
            let d = (e.transform3(k[0], k[1], k[2]) - summed(&e, k, false)).norm();
            assert!(d < 2e-3, "{k:?} {d}");
        }
    }

    #[test]
    fn slices_of_a_sphere() {
        let e = Ellipsoid {
            intensity: 1.0,
            axes: [0.5; 3],
            centre: [0.0; 3],
            angle: 0.0,
            decay: 1.0,
        };
        assert!((e.slice(0.3).unwrap().axes[0] - 0.4).abs() < 1e-12);
        assert!(e.slice(0.6).is_none());
    }
}
