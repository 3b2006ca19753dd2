//! Low-resolution coil images of the k-space centre: the matched filter of the adaptive combination.
//!
//! `Acs` -> [`LowRes`] (small spectra) -> weights on any grid. Kept as spectra, so that they are exact on every grid
//! that holds their support.
//!
//! # Source
//! Roemer et al., Magn Reson Med 16:192-225 (1990), doi:10.1002/mrm.1910160203 (optimal combination with known
//! sensitivities, here replaced by the low-resolution images themselves); Bydder et al., Magn Reson Med 47:539-548
//! (2002), doi:10.1002/mrm.10092.

use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

use crate::num::fft::{Direction, fft3};
use crate::num::linalg::eigh;
use crate::recon::acs::Acs;

/// Tapered centre of k-space of every coil.
///
/// # Shapes
/// `spectra` is `[coil, z, y, x]` over `support` (odd extents, DC in the middle).
#[derive(Clone, Debug)]
pub(crate) struct LowRes {
    pub(crate) n_coils: usize,
    pub(crate) support: [usize; 3],
    pub(crate) spectra: Vec<Complex32>,
    /// Virtual coil that sees the whole object: its phase becomes the phase of the image.
    pub(crate) reference: Vec<Complex32>,
}

impl LowRes {
    /// Cuts at most `centre` samples per axis around DC and tapers them.
    pub(crate) fn from_acs(acs: &Acs, centre: usize) -> Self {
        let shape = acs.shape;
        let lens = [shape.pe2, shape.pe1, shape.ro];
        let half: [usize; 3] = std::array::from_fn(|axis| {
            let (lo, hi) = if axis == 2 {
                (acs.ro_range.start, acs.ro_range.end)
            } else {
                (0, lens[axis])
            };
            let dc = acs.dc[axis];
            dc.saturating_sub(lo)
                .min(hi.saturating_sub(dc + 1))
                .min((centre - 1) / 2)
        });
        let support = half.map(|h| 2 * h + 1);
        let taper: Vec<Vec<f32>> = (0..3).map(|a| taper(half[a], lens[a])).collect();
        let mut spectra = Vec::with_capacity(shape.coil * support.iter().product::<usize>());
        for coil in 0..shape.coil {
            for k2 in 0..support[0] {
                for k1 in 0..support[1] {
                    let line = acs.line(coil, acs.dc[0] + k2 - half[0], acs.dc[1] + k1 - half[1]);
                    let weight = taper[0][k2] * taper[1][k1];
                    for k0 in 0..support[2] {
                        spectra.push(line[acs.dc[2] + k0 - half[2]] * (weight * taper[2][k0]));
                    }
                }
            }
        }
        let reference = reference_coil(&spectra, shape.coil);
        Self {
            n_coils: shape.coil,
            support,
            spectra,
            reference,
        }
    }

    /// Low-resolution coil images on a grid, `[coil, z, y, x]`, in the units of a unitary transform of that grid.
    pub(crate) fn images(&self, grid: [usize; 3]) -> Vec<Complex32> {
        upsample(&self.spectra, self.support, grid)
    }

    /// Share of the voxels that the object fills, as if its magnitude were even: `(sum m)² / (n sum m²)`.
    pub(crate) fn object_share(&self) -> f64 {
        let images = self.images(self.support);
        let n = images.len() / self.n_coils.max(1);
        let (mut sum, mut power) = (0.0f64, 0.0f64);
        for i in 0..n {
            let p: f64 = images
                .iter()
                .skip(i)
                .step_by(n)
                .map(|v| f64::from(v.norm_sqr()))
                .sum();
            sum += p.sqrt();
            power += p;
        }
        if power > 0.0 {
            sum * sum / (n as f64 * power)
        } else {
            1.0
        }
    }

    /// Combination weights on a grid, `[coil, z, y, x]`: the image is `sum_c w_c m_c`; their squares sum to 1.
    pub(crate) fn weights(&self, grid: [usize; 3]) -> Vec<Complex32> {
        let mut maps = self.images(grid);
        let n: usize = grid.iter().product();
        let planes: Vec<&mut [Complex32]> = maps.chunks_exact_mut(n).collect();
        normalise(planes, &self.reference);
        maps
    }
}

/// Turns low-resolution images into weights in place: conjugate, unit sum of squares, phase of the reference coil.
fn normalise(mut planes: Vec<&mut [Complex32]>, reference: &[Complex32]) {
    const BLOCK: usize = 4096;
    let n = planes.first().map_or(0, |p| p.len());
    let mut blocks: Vec<Vec<&mut [Complex32]>> = Vec::new();
    for _ in 0..n.div_ceil(BLOCK) {
        let mut block = Vec::with_capacity(planes.len());
        for plane in &mut planes {
            let taken = std::mem::take(plane);
            let (head, tail) = taken.split_at_mut(BLOCK.min(taken.len()));
            *plane = tail;
            block.push(head);
        }
        blocks.push(block);
    }
    blocks.into_par_iter().for_each(|mut block| {
        let len = block.first().map_or(0, |b| b.len());
        for i in 0..len {
            let mut power = 0.0f32;
            let mut phase = Complex32::ZERO;
            for (plane, v) in block.iter().zip(reference) {
                power += plane[i].norm_sqr();
                phase += v.conj() * plane[i];
            }
            let scale = unit(phase) * reciprocal(power.sqrt());
            for plane in &mut block {
                plane[i] = plane[i].conj() * scale;
            }
        }
    });
}

/// `v / |v|`, or 1 where there is no phase.
pub(crate) fn unit(v: Complex32) -> Complex32 {
    let norm = v.norm();
    if norm > f32::MIN_POSITIVE {
        v / norm
    } else {
        Complex32::ONE
    }
}

/// `1 / v`, or 0 where `v` is 0: no coil sees anything there.
pub(crate) fn reciprocal(v: f32) -> f32 {
    if v > f32::MIN_POSITIVE { 1.0 / v } else { 0.0 }
}

/// Raised cosine over `2 * half + 1` samples, or ones where the axis has a single sample.
fn taper(half: usize, len: usize) -> Vec<f32> {
    (0..=2 * half)
        .map(|k| {
            if len == 1 {
                return 1.0;
            }
            let r = (k as f64 - half as f64) / (half as f64 + 1.0);
            (std::f64::consts::FRAC_PI_2 * r).cos().powi(2) as f32
        })
        .collect()
}

/// Dominant eigenvector of the coil covariance of the spectra.
fn reference_coil(spectra: &[Complex32], n_coils: usize) -> Vec<Complex32> {
    let n = spectra.len() / n_coils.max(1);
    let mut covariance = vec![Complex64::ZERO; n_coils * n_coils];
    for a in 0..n_coils {
        for b in 0..=a {
            let sum: Complex64 = spectra[a * n..(a + 1) * n]
                .iter()
                .zip(&spectra[b * n..(b + 1) * n])
                .map(|(x, y)| {
                    let p = x * y.conj();
                    Complex64::new(f64::from(p.re), f64::from(p.im))
                })
                .sum();
            covariance[a * n_coils + b] = sum;
            covariance[b * n_coils + a] = sum.conj();
        }
    }
    match eigh(&covariance, n_coils) {
        // Eigenvectors come with an arbitrary phase: the strongest entry is made real.
        Ok(eigen) => {
            let v = &eigen.vectors[..n_coils];
            let strongest =
                v.iter().copied().fold(
                    Complex64::ZERO,
                    |m, x| if x.norm() > m.norm() { x } else { m },
                );
            let turn = if strongest.norm() > 0.0 {
                strongest.conj() / strongest.norm()
            } else {
                Complex64::ONE
            };
            v.iter()
                .map(|x| x * turn)
                .map(|x| Complex32::new(x.re as f32, x.im as f32))
                .collect()
        }
        // Only values that are not finite get here; the finiteness check of the image reports them.
        Err(_) => vec![Complex32::ONE; n_coils],
    }
}

/// Puts small centred spectra `[batch, support]` into the middle of zeros and transforms to images `[batch, grid]`.
pub(crate) fn upsample(
    spectra: &[Complex32],
    support: [usize; 3],
    grid: [usize; 3],
) -> Vec<Complex32> {
    let (small, large) = (
        support.iter().product::<usize>(),
        grid.iter().product::<usize>(),
    );
    let batch = spectra.len() / small.max(1);
    let mut out = vec![Complex32::ZERO; batch * large];
    out.par_chunks_mut(large)
        .zip(spectra.par_chunks(small))
        .for_each(|(image, spectrum)| embed(spectrum, support, image, grid));
    fft3(&mut out, grid[0], grid[1], grid[2], Direction::Inverse);
    out
}

/// Copies a centred spectrum into a larger (or, clipped, a smaller) centred grid.
pub(crate) fn embed(
    spectrum: &[Complex32],
    support: [usize; 3],
    out: &mut [Complex32],
    grid: [usize; 3],
) {
    // Index on the grid of sample 0 of the support; negative where the grid is the smaller one.
    let at: [i64; 3] = std::array::from_fn(|a| (grid[a] / 2) as i64 - (support[a] / 2) as i64);
    let first = (-at[2]).max(0) as usize;
    let last = (grid[2] as i64 - at[2]).clamp(0, support[2] as i64) as usize;
    for k2 in 0..support[0] {
        for k1 in 0..support[1] {
            let (z, y) = (k2 as i64 + at[0], k1 as i64 + at[1]);
            if z < 0 || y < 0 || z >= grid[0] as i64 || y >= grid[1] as i64 || first >= last {
                continue;
            }
            let row = (z as usize * grid[1] + y as usize) * grid[2];
            let from = (k2 * support[1] + k1) * support[2];
            let to = (row as i64 + at[2]) as usize;
            out[to + first..to + last].copy_from_slice(&spectrum[from + first..from + last]);
        }
    }
}
