//! Pseudo-replica: the noise of any reconstruction by brute force, to judge the analytic noise maps by.
//!
//! [`Recon`] + `Frame` -> standard deviation of each voxel over many reconstructions of the frame with fresh noise.
//!
//! # Source
//! Robson et al., Magn Reson Med 60:895-907 (2008), doi:10.1002/mrm.21728.

use rayon::prelude::*;

use super::combine::low_res::unit;
use super::known::{Calibrations, Keep, Known};
use super::{Recon, ReconError};
use crate::data::{Frame, KSpace};
use crate::num::rng::Rng;

/// Standard deviation of each voxel over the replicas, `[z, y, x]`.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Of the component along the mean image's phase: what the magnitude shows where there is signal.
    pub along_signal: Vec<f32>,
    /// Of real and imaginary part, root of the mean of both variances.
    pub per_component: Vec<f32>,
}

/// Reconstructs the frame `n` times with new white noise (standard deviation `1/sqrt(averages)` per component) added
/// to its samples. Calibration sees the same data every time, so that the operator stays what it is in a single
/// reconstruction.
///
/// # Errors
/// Those of [`Recon::run`].
pub fn replicas(plan: &Recon, frame: &Frame, n: usize, seed: u64) -> Result<Replica, ReconError> {
    // The calibration lines go along as a reference of their own, without the added noise.
    let calibrations = Calibrations::new(Keep::FirstFrames, u64::MAX);
    let known = Known(Some(&calibrations));
    let mean = plan.run_calibrated(frame, frame, known)?.voxels;
    let voxels = mean.len();
    let phases: Vec<_> = mean.iter().map(|v| unit(*v).conj()).collect();
    // Eight replicas at a time, summed in order: the same on any number of threads.
    let mut along = vec![[0.0f64; 2]; voxels];
    let mut total = vec![0.0f64; voxels];
    for start in (0..n).step_by(8) {
        let images: Vec<Result<_, ReconError>> = (start..n.min(start + 8))
            .into_par_iter()
            .map(|i| {
                let mut noisy = frame.clone();
                add_noise(&mut noisy.kspace, seed.wrapping_add(i as u64));
                plan.run_calibrated(&noisy, frame, known)
            })
            .collect();
        for image in images {
            for (i, v) in image?.voxels.iter().enumerate() {
                let d = v - mean[i];
                let a = f64::from((d * phases[i]).re);
                along[i][0] += a;
                along[i][1] += a * a;
                total[i] += f64::from(d.norm_sqr()) / 2.0;
            }
        }
    }
    let count = n.max(1) as f64;
    Ok(Replica {
        along_signal: along
            .iter()
            .map(|[s, q]| ((q / count - (s / count).powi(2)).max(0.0)).sqrt() as f32)
            .collect(),
        per_component: total.iter().map(|t| (t / count).sqrt() as f32).collect(),
    })
}

fn add_noise(kspace: &mut KSpace, seed: u64) {
    // One output as the new state: neighbouring seeds would give the same sequence, shifted.
    let mut rng = Rng::new(Rng::new(seed).next_u64());
    let (n_lines, ro) = (kspace.lines.len(), kspace.shape.ro);
    for (i, row) in kspace.samples.chunks_exact_mut(ro.max(1)).enumerate() {
        let std = 1.0 / (kspace.lines[i % n_lines].averages.max(1) as f32).sqrt();
        for v in &mut row[kspace.ro_range.clone()] {
            *v += rng.normal() * std;
        }
    }
}
