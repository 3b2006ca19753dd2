//! The normal operator `Aᴴ W A` of a NUFFT as a convolution: one FFT there and back on a grid of twice the size.
//!
//! # Source
//! Wajer and Pruessmann, Proc ISMRM 9:767 (2001); Fessler et al., IEEE Trans Signal Process 53:3393-3402 (2005),
//! doi:10.1109/TSP.2005.853152.

use std::sync::{Mutex, PoisonError};

use num_complex::Complex32;
use rayon::prelude::*;

use super::grid::{Axes, Axis};
use super::{Nufft, NufftError, smooth};
use crate::device::Recipe;
use crate::num::fft::{Direction, fft3};
use crate::num::lanes::{LANES, Lanes};

/// Rows that a task multiplies.
const ROWS: usize = 16;

/// A planned normal operator; the samples are no longer needed.
#[derive(Debug)]
pub struct Toeplitz {
    recipe: Recipe,
    axes: Axes,
    /// Transform of the point spread function on `[kx, ky]` or `[kx, ky, kz]`: real, since the weights are.
    spectrum: Vec<f32>,
    scratch: Mutex<Vec<[Vec<Lanes>; 2]>>,
}

impl Toeplitz {
    /// Plans `Aᴴ W A` for the transform `nufft` and a real weight per sample.
    ///
    /// # Errors
    /// [`NufftError::WeightsLength`], [`NufftError::WeightNotFinite`], [`NufftError::TooLarge`].
    pub fn plan(nufft: &Nufft, weights: &[f32]) -> Result<Self, NufftError> {
        if weights.len() != nufft.n_samples() {
            return Err(NufftError::WeightsLength {
                found: weights.len(),
                needed: nufft.n_samples(),
            });
        }
        if let Some(sample) = weights.iter().position(|w| !w.is_finite()) {
            return Err(NufftError::WeightNotFinite { sample });
        }
        // Differences of voxels, -n to n - 1, are the voxels of a matrix of twice the size.
        let doubled: Vec<usize> = nufft.shape.iter().map(|n| 2 * n).collect();
        let trajectory: Vec<f32> = nufft.trajectory.iter().map(|k| 2.0 * k).collect();
        let spread = Nufft::plan(&trajectory, &doubled, nufft.tolerance)?;
        let weights: Vec<Complex32> = weights.iter().map(|w| Complex32::new(*w, 0.0)).collect();
        let mut psf = vec![Complex32::ZERO; spread.voxels()];
        spread.adjoint(&weights, &mut psf)?;

        let axes: Vec<Axis> = (nufft.shape.iter().rev())
            .map(|n| Axis::new(*n, smooth(2 * n), vec![1.0; *n]))
            .collect();
        let size = |a: usize| axes.get(a).map_or(1, |axis: &Axis| axis.size);
        let [sx, sy, sz] = [size(0), size(1), size(2)];
        let n = |a: usize| axes.get(a).map_or(1, |axis: &Axis| axis.n);
        let [nx, ny, nz] = [n(0), n(1), n(2)];
        let mut padded = vec![Complex32::ZERO; sx * sy * sz];
        let deep = if axes.len() == 3 { 2 * nz } else { 1 };
        for (r, row) in psf.chunks_exact(2 * nx).enumerate() {
            let (z, y) = (r / (2 * ny), r % (2 * ny));
            // A difference of -n never occurs.
            if y == 0 || (deep > 1 && z == 0) {
                continue;
            }
            let z = if deep > 1 { z + sz / 2 - nz } else { 0 };
            let start = (z * sy + y + sy / 2 - ny) * sx + sx / 2 - nx;
            padded[start + 1..start + 2 * nx].copy_from_slice(&row[1..]);
        }
        fft3(&mut padded, sz, sy, sx, Direction::Forward);
        let (voxels, cells) = ((nx * ny * nz) as f64, (sx * sy * sz) as f64);
        // The transform of `spread` was unitary for its voxels, `fft3` for the cells; there and back is unscaled.
        let scale = ((spread.voxels() as f64).sqrt() / voxels / cells.sqrt()) as f32;
        let mut spectrum = vec![0.0; padded.len()];
        for (i, to) in spectrum.iter_mut().enumerate() {
            let (qx, qy, qz) = (i / (sy * sz), i / sz % sy, i % sz);
            let centred = |q: usize, size: usize| (q + size / 2) % size;
            let at = (centred(qz, sz) * sy + centred(qy, sy)) * sx + centred(qx, sx);
            *to = padded[at].re * scale;
        }
        let axes = Axes(axes);
        let pitch = if deep > 1 { sz } else { sy };
        let scratch: usize = axes.scratch(pitch).iter().sum();
        let recipe = Recipe {
            op: "num/nufft/toeplitz".into(),
            backend: "cpu",
            detail: format!("{:?} voxels on {:?} (x first)", nufft.shape, [sx, sy, sz]),
            scratch_bytes: (scratch * size_of::<Lanes>()) as u64,
            reason: "convolution with the point spread function".into(),
        };
        Ok(Self {
            recipe,
            axes,
            spectrum,
            scratch: Mutex::default(),
        })
    }

    /// What was decided.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// `to = Aᴴ W A from`, both `[coil, y, x]` or `[coil, z, y, x]`.
    ///
    /// # Errors
    /// [`NufftError::Lengths`]; the samples in it are those of `to`.
    pub fn run(&self, from: &[Complex32], to: &mut [Complex32]) -> Result<(), NufftError> {
        let voxels = self.axes.voxels();
        if from.len() != to.len() || !from.len().is_multiple_of(voxels) {
            return Err(NufftError::Lengths {
                images: from.len(),
                samples: to.len(),
                voxels,
                n_samples: voxels,
            });
        }
        let Some(pitch) = self.axes.0.last().map(|axis| axis.size) else {
            return Ok(());
        };
        // A thread that panicked while it held the lock left the list whole.
        let pool = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = pool().pop();
        let mut scratch =
            kept.unwrap_or_else(|| self.axes.scratch(pitch).map(|n| vec![Lanes::ZERO; n]));
        let [grid, other] = &mut scratch;
        for (from, to) in from
            .chunks(LANES * voxels)
            .zip(to.chunks_mut(LANES * voxels))
        {
            self.axes.up(from, grid, other, pitch);
            let cells = &mut grid[..self.spectrum.len()];
            cells
                .par_chunks_mut(ROWS * pitch)
                .zip(self.spectrum.par_chunks(ROWS * pitch))
                .for_each(|(cells, factors)| {
                    for (v, factor) in cells.iter_mut().zip(factors) {
                        *v = v.scaled(*factor);
                    }
                });
            self.axes.first_down(cells, other);
            self.axes.down(other, grid, to);
        }
        pool().push(scratch);
        Ok(())
    }
}
