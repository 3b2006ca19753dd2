//! The image that is nearest to both the measured lines and to what is expected: data consistency of unrolled reconstructions.
//!
//! `argmin_x  sum_lines averages |E x - y|^2 + sum_voxels |x - prior|^2 / error^2`, whitened: both terms are squared standard
//! deviations. With `x = prior + error u` that is SENSE of the lines that the prior does not explain, with maps times
//! `error` and the Tikhonov weight 1: the solver of [`Sense`] with all its shortcuts.

use num_complex::Complex32;
use rayon::prelude::*;

use super::{Sense, SenseError, SenseParams, solver};
use crate::data::{Csm, KSpace};
use crate::num::fft::{Direction, fft3};

impl Sense {
    /// Lines of an image, `[z, y, x]` of one set of maps: `E x`, unitary, samples outside of the measured range zero.
    pub(in crate::recon) fn lines_of(&self, image: &[Complex32], csm: &Csm) -> KSpace {
        let shape = self.shape;
        let (n, ro) = (shape.plane(), shape.ro);
        let n_lines = self.lines.len();
        let mut samples = vec![Complex32::ZERO; shape.coil * n_lines * ro];
        samples
            .par_chunks_mut((n_lines * ro).max(1))
            .zip(csm.maps.par_chunks(n.max(1)))
            .for_each(|(lines, map)| {
                let mut coil: Vec<Complex32> = map.iter().zip(image).map(|(c, v)| c * v).collect();
                fft3(&mut coil, shape.pe2, shape.pe1, ro, Direction::Forward);
                for (line, to) in self.lines.iter().zip(lines.chunks_exact_mut(ro)) {
                    let row = line.pe2 as usize * shape.pe1 + line.pe1 as usize;
                    to[self.ro_range.clone()]
                        .copy_from_slice(&coil[row * ro..][..ro][self.ro_range.clone()]);
                }
            });
        KSpace {
            shape,
            lines: self.lines.clone(),
            ro_range: self.ro_range.clone(),
            samples,
        }
    }

    /// The image between whitened lines and a prior, `[z, y, x]`, of which `error` is the standard deviation per part; where
    /// that is 0 the prior stays.
    ///
    /// # Errors
    /// [`SenseError::OtherLines`], [`SenseError::MapsDoNotFit`].
    pub(in crate::recon) fn between(
        &self,
        kspace: &KSpace,
        csm: &Csm,
        prior: &[Complex32],
        error: &[f32],
    ) -> Result<Vec<Complex32>, SenseError> {
        self.check(kspace, csm)?;
        let mut left = self.lines_of(prior, csm);
        for (l, y) in left.samples.iter_mut().zip(&kspace.samples) {
            *l = y - *l;
        }
        // Scaled to one in the mean, so that f32 holds whatever the unit.
        let power: f64 = error.iter().map(|e| f64::from(*e).powi(2)).sum();
        let scale = (power / error.len().max(1) as f64).sqrt() as f32;
        if scale.is_nan() || scale <= 0.0 {
            return Ok(prior.to_vec());
        }
        let mut scaled = csm.clone();
        for map in scaled.maps.chunks_exact_mut(error.len()) {
            for (c, e) in map.iter_mut().zip(error) {
                *c *= e / scale;
            }
        }
        let params = SenseParams {
            noise_map: false,
            ..self.params.clone()
        };
        let lambda = 1.0 / (scale * scale) / self.lattice.mean_weight as f32;
        let change = solver::run(&self.lattice, &left, &scaled, &params, lambda);
        let moved = prior.iter().zip(error).zip(&change.voxels);
        Ok(moved.map(|((p, e), u)| p + u * (e / scale)).collect())
    }

    /// Root mean square distance of the lines from those of an image, per part, in standard deviations of their noise.
    pub(in crate::recon) fn distance(
        &self,
        kspace: &KSpace,
        csm: &Csm,
        image: &[Complex32],
    ) -> f64 {
        let of_image = self.lines_of(image, csm);
        let ro = self.shape.ro;
        let rows = kspace
            .samples
            .chunks_exact(ro)
            .zip(of_image.samples.chunks_exact(ro));
        let sum: f64 = rows
            .enumerate()
            .map(|(i, (y, e))| {
                let averages = f64::from(self.lines[i % self.lines.len()].averages);
                let off: f64 = y[self.ro_range.clone()]
                    .iter()
                    .zip(&e[self.ro_range.clone()])
                    .map(|(y, e)| f64::from((y - e).norm_sqr()))
                    .sum();
                averages * off
            })
            .sum();
        let n = 2 * self.shape.coil * self.lines.len() * self.ro_range.len();
        (sum / n.max(1) as f64).sqrt()
    }
}
