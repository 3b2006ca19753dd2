//! Does what was removed look like noise?
//!
//! In the body, in units of `strength` times the measured noise, sums over squares of 5 x 5 voxels are normal with a known
//! standard deviation if nothing but white noise was removed: what stands out by more than five of them is structure, a small
//! lesion of contrast 1 among it. A good denoiser removes less than white noise at low frequencies, so that it stays below.

use num_complex::Complex32;

use crate::data::ReconImage;

/// Half side of the squares.
const REACH: usize = 2;
/// Standard deviations from which a sum is not noise.
const LIMIT: f32 = 5.0;
/// Signal over noise of what counts as body.
const BODY: f32 = 3.0;
/// More than noise can be.
const RMS_LIMIT: f32 = 1.15;

/// What was removed, against noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residual {
    /// Root mean square of what was removed from the body, per part, in units of the measured noise.
    pub rms: f32,
    /// The same in units of `strength` times the noise: 1 is all of it.
    pub relative_rms: f32,
    /// Share of the body's voxels around which sums stand out.
    pub structured: f32,
    /// Voxels of the body.
    pub n_body: usize,
}

impl Residual {
    /// Measures `removed`, `[z, y, x]`, against the image it was taken from.
    pub fn of(removed: &[Complex32], image: &ReconImage, strength: f32) -> Self {
        let [nx, ny, _] = image.geometry.matrix;
        let noise = image.noise_std.as_deref().unwrap_or(&[]);
        let is_body: Vec<bool> = (image.voxels.iter().zip(noise))
            .map(|(v, s)| *s > 0.0 && v.norm() > BODY * s)
            .collect();
        let unit: Vec<Complex32> = (removed.iter().zip(noise))
            .map(|(r, s)| if *s > 0.0 { r / s } else { Complex32::ZERO })
            .collect();
        let n_body = is_body.iter().filter(|b| **b).count();
        let power: f64 = (unit.iter().zip(&is_body))
            .filter(|(_, b)| **b)
            .map(|(v, _)| f64::from(v.norm_sqr()))
            .sum();
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let rms = (0.5 * power / n_body.max(1) as f64).sqrt() as f32;
        // Interpolated noise is alike over neighbours: sums of it grow.
        let alike = image.finer[0].max(1.0) * image.finer[1].max(1.0);
        let side = (2 * REACH + 1) as f32;
        let limit = LIMIT * strength * side * alike.sqrt();
        let mut n_out = 0;
        let planes = unit
            .chunks_exact((nx * ny).max(1))
            .zip(is_body.chunks_exact((nx * ny).max(1)));
        for (plane, body) in planes {
            let sums = sums(plane, ny, nx);
            let stands_out = |v: &Complex32| v.re.abs() > limit || v.im.abs() > limit;
            n_out += sums
                .iter()
                .zip(body)
                .filter(|(v, b)| **b && stands_out(v))
                .count();
        }
        Self {
            rms,
            relative_rms: if strength > 0.0 { rms / strength } else { 0.0 },
            structured: n_out as f32 / n_body.max(1) as f32,
            n_body,
        }
    }

    /// What is wrong with it, if anything is.
    pub fn structure(&self, limit: f32) -> Option<String> {
        let too_much = self.relative_rms > RMS_LIMIT;
        (self.structured > limit || too_much).then(|| {
            format!(
                "what was removed does not look like noise: {:.2} times the noise, and around {:.2} % of the body's voxels it has \
                 structure (allowed: {RMS_LIMIT}, {:.2} %); compare with the image as measured (handoff quantity removed)",
                self.relative_rms,
                100.0 * self.structured,
                100.0 * limit
            )
        })
    }
}

impl std::fmt::Display for Residual {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "removed {:.2} of the noise, structure around {:.2} % of the body's voxels",
            self.rms,
            100.0 * self.structured
        )
    }
}

/// Sums over squares, what lies beyond the edges left out.
fn sums(plane: &[Complex32], ny: usize, nx: usize) -> Vec<Complex32> {
    let along = |n: usize, at: usize| at.saturating_sub(REACH)..(at + REACH + 1).min(n);
    let mut rows = vec![Complex32::ZERO; plane.len()];
    for (row, out) in plane.chunks_exact(nx).zip(rows.chunks_exact_mut(nx)) {
        for (x, out) in out.iter_mut().enumerate() {
            *out = row[along(nx, x)].iter().sum();
        }
    }
    let mut out = vec![Complex32::ZERO; plane.len()];
    for (y, out) in out.chunks_exact_mut(nx).enumerate() {
        for from in along(ny, y) {
            for (o, v) in out.iter_mut().zip(&rows[from * nx..][..nx]) {
                *o += v;
            }
        }
    }
    out
}
