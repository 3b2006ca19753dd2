//! Surface-coil intensity correction: divides the image (and its noise) by a smooth estimate of the receive profile.
//!
//! Off by default; where it is on, the image carries a note, since voxel values no longer compare across the image
//! in the units of the scanner. The image in SNR units is unchanged, since signal and noise are divided alike.

use num_complex::Complex32;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::error::ReconError;
use super::params::require;

/// Intensity correction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IntensityParams {
    /// Whether to correct.
    pub enabled: bool,
    /// Full width of the smoothing, as a share of the field of view, 0.02 to 1.
    pub width: f64,
    /// Largest gain relative to the gain at the brightest place, 1 to 1000: keeps air from being blown up.
    pub max_gain: f64,
}

impl Default for IntensityParams {
    fn default() -> Self {
        Self {
            enabled: false,
            width: 0.2,
            max_gain: 20.0,
        }
    }
}

impl IntensityParams {
    pub(crate) fn check(&self) -> Result<(), ReconError> {
        require(
            (0.02..=1.0).contains(&self.width),
            "intensity_correction.width",
            self.width,
            "0.02 to 1",
        )?;
        require(
            (1.0..=1000.0).contains(&self.max_gain),
            "intensity_correction.max_gain",
            self.max_gain,
            "1 to 1000",
        )
    }
}

/// Divides image and noise by the smoothed magnitude, relative to its largest value; returns what they were multiplied with.
pub(crate) fn correct(
    voxels: &mut [Complex32],
    noise_std: Option<&mut [f32]>,
    dims: [usize; 3],
    params: &IntensityParams,
) -> Option<Vec<f32>> {
    let mut profile: Vec<f32> = voxels.iter().map(|v| v.norm()).collect();
    for axis in 0..3 {
        smooth(&mut profile, dims, axis, params.width);
    }
    let largest = profile.iter().copied().fold(0.0f32, f32::max);
    let least = largest / params.max_gain as f32;
    if least.is_nan() || least <= 0.0 {
        return None;
    }
    // Gain 1 where the profile is largest.
    let gains: Vec<f32> = profile.iter().map(|p| largest / p.max(least)).collect();
    for (v, g) in voxels.iter_mut().zip(&gains) {
        *v *= *g;
    }
    if let Some(noise) = noise_std {
        for (v, g) in noise.iter_mut().zip(&gains) {
            *v *= g;
        }
    }
    Some(gains)
}

/// Gaussian along one axis, full width at half maximum `width` of the axis, edges repeated.
fn smooth(values: &mut [f32], dims: [usize; 3], axis: usize, width: f64) {
    let n = dims[axis];
    if n == 1 {
        return;
    }
    let sigma = width * n as f64 / 2.354_820_045;
    let reach = (3.0 * sigma).ceil() as i64;
    let taps: Vec<f32> = (-reach..=reach)
        .map(|d| (-0.5 * (d as f64 / sigma).powi(2)).exp() as f32)
        .collect();
    let total: f32 = taps.iter().sum();
    let inner: usize = dims[axis + 1..].iter().product();
    values.par_chunks_mut(n * inner).for_each(|block| {
        let source = block.to_vec();
        for i in 0..n {
            let row = &mut block[i * inner..(i + 1) * inner];
            row.fill(0.0);
            for (t, tap) in taps.iter().enumerate() {
                let from = (i as i64 + t as i64 - reach).clamp(0, n as i64 - 1) as usize * inner;
                for (o, v) in row.iter_mut().zip(&source[from..from + inner]) {
                    *o += tap / total * v;
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shaded_plane_becomes_flatter_and_keeps_its_snr() {
        let dims = [1, 40, 50];
        let shade = |i: usize| 1.0 + 3.0 * (i % 50) as f32 / 49.0;
        let mut voxels: Vec<Complex32> = (0..2000)
            .map(|i| Complex32::from_polar(shade(i), 0.3))
            .collect();
        let mut noise = vec![0.1f32; 2000];
        let snr: Vec<f32> = voxels
            .iter()
            .zip(&noise)
            .map(|(v, n)| v.norm() / n)
            .collect();
        let params = IntensityParams {
            enabled: true,
            ..Default::default()
        };
        correct(&mut voxels, Some(&mut noise), dims, &params);
        let inside = |i: &usize| (8..42).contains(&(i % 50));
        let (lo, hi) = (0..2000)
            .filter(inside)
            .fold((f32::MAX, 0.0f32), |(a, b), i| {
                (a.min(voxels[i].norm()), b.max(voxels[i].norm()))
            });
        assert!(hi / lo < 1.1, "{lo} {hi}");
        for i in 0..2000 {
            assert!((voxels[i].norm() / noise[i] / snr[i] - 1.0).abs() < 1e-5);
            assert!((voxels[i].arg() - 0.3).abs() < 1e-5);
        }
    }

    #[test]
    fn an_empty_image_stays_empty() {
        let mut voxels = vec![Complex32::ZERO; 12];
        correct(&mut voxels, None, [1, 3, 4], &IntensityParams::default());
        assert!(voxels.iter().all(|v| *v == Complex32::ZERO));
    }
}
