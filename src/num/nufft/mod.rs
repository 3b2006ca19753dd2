//! Fourier transforms between a grid of voxels and samples anywhere in k-space (NUFFT), 2D and 3D.
//!
//! `y(k) = sum_x v(x) exp(-2 pi i sum_a k_a (x_a - n_a/2) / n_a) / sqrt(N)` (type 2, [`Nufft::forward`]) and its adjoint
//! (type 1, [`Nufft::adjoint`]): on whole `k` exactly the unitary, centred transform of [`super::fft`]. A window leads from
//! the samples to a grid that is finer than the image needs, an FFT from there to the image, a factor per voxel takes the
//! window's transform out. Without density compensation: the adjoint is no inverse.
//!
//! # Numerics
//! Data `f32`, everything planned in `f64`. Against the definition, relative, for any image and samples spread evenly: the
//! tolerance asked for, 1e-2 to 1e-6. Forward and adjoint use the same weights, to the bit; results do not depend on the
//! number of threads. Eight coils cost what one costs.
//!
//! # Source
//! Fessler and Sutton, IEEE Trans Signal Process 51:560-574 (2003), doi:10.1109/TSP.2002.807005; the window: `kernel`.

mod grid;
mod kernel;
pub mod reference;
mod spread;
#[cfg(test)]
mod tests;
mod toeplitz;

use std::sync::{Mutex, PoisonError};

use num_complex::Complex32;
use rayon::prelude::*;

use super::lanes::{LANES, Lanes};
use super::linop::LinOp;
use crate::device::Recipe;
use grid::{Axes, Axis};
use kernel::{CELLS, Window};
use spread::{Lattice, Point};
pub use toeplitz::Toeplitz;

/// Why there is no plan, or why it cannot be run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NufftError {
    /// Neither two nor three axes, or an axis without voxels.
    #[error(
        "a NUFFT of shape {shape:?} was asked for; needed: two or three axes, each of at least one voxel"
    )]
    Shape {
        /// What was asked for, slowest axis first.
        shape: Vec<usize>,
    },
    /// More than this machine can address.
    #[error(
        "a NUFFT of shape {shape:?} with {n_samples} samples is too large; try fewer voxels, or samples in parts"
    )]
    TooLarge {
        /// Voxels, slowest axis first.
        shape: Vec<usize>,
        /// Samples of one coil.
        n_samples: usize,
    },
    /// Outside of what `f32` can hold.
    #[error("a tolerance of {asked} was asked for; possible: 1e-6 to 1e-2")]
    Tolerance {
        /// What was asked for.
        asked: f64,
    },
    /// An empty trajectory.
    #[error("the trajectory has no samples; the scan must bring one, or it must be computed")]
    NoTrajectory,
    /// Not whole samples.
    #[error("the trajectory has {found} values, which is no multiple of its {axes} axes")]
    TrajectoryLength {
        /// Values.
        found: usize,
        /// Axes of the shape.
        axes: usize,
    },
    /// NaN or infinite.
    #[error("sample {sample} of the trajectory is not finite along {axis}")]
    NotFinite {
        /// First such sample.
        sample: usize,
        /// `x`, `y` or `z`.
        axis: char,
    },
    /// Beyond what the matrix resolves.
    #[error(
        "sample {sample} of the trajectory lies at {found} cycles per field of view along {axis}; the matrix holds \
         -{limit} to {limit}: scale the trajectory, or take a larger matrix"
    )]
    OutOfRange {
        /// First such sample.
        sample: usize,
        /// `x`, `y` or `z`.
        axis: char,
        /// Where it lies.
        found: f32,
        /// Half the matrix size.
        limit: f32,
    },
    /// Images and samples of different numbers of coils, or of no whole coil.
    #[error(
        "{images} voxels and {samples} samples do not belong to the same number of coils; one coil has {voxels} voxels \
         and {n_samples} samples"
    )]
    Lengths {
        /// Voxels found, all coils.
        images: usize,
        /// Samples found, all coils.
        samples: usize,
        /// Voxels of one coil.
        voxels: usize,
        /// Samples of one coil.
        n_samples: usize,
    },
    /// Not one weight per sample.
    #[error("{found} weights for {needed} samples")]
    WeightsLength {
        /// Weights.
        found: usize,
        /// Samples.
        needed: usize,
    },
    /// NaN or infinite.
    #[error("the weight of sample {sample} is not finite")]
    WeightNotFinite {
        /// First such sample.
        sample: usize,
    },
}

/// Smallest grid: no window laps itself.
const SMALLEST: usize = 16;

/// A planned transform for one trajectory and one matrix; see the module.
#[derive(Debug)]
pub struct Nufft {
    recipe: Recipe,
    shape: Vec<usize>,
    trajectory: Vec<f32>,
    tolerance: f64,
    axes: Axes,
    lattice: Lattice,
    scratch: Mutex<Vec<[Vec<Lanes>; 2]>>,
}

/// The smallest number from `n` on whose prime factors are 2, 3 and 5.
fn smooth(n: usize) -> usize {
    let is_smooth = |mut n: usize| {
        for p in [2, 3, 5] {
            while n.is_multiple_of(p) {
                n /= p;
            }
        }
        n == 1
    };
    (n.max(1)..).find(|n| is_smooth(*n)).unwrap_or(n)
}

/// Sizes of the grid, x first, and the width of its window.
struct Choice {
    sizes: Vec<usize>,
    width: usize,
    oversampling: f64,
    cost: f64,
}

/// The cheaper of a coarse grid with a wide window and a fine grid with a narrow one.
fn choose(
    shape: &[usize],
    n_samples: usize,
    tolerance: f64,
    oversampling: &[f64],
) -> Option<Choice> {
    // Polynomials and chance take the rest.
    let error = 0.9 * tolerance;
    oversampling
        .iter()
        .filter_map(|oversampling| {
            let sizes: Vec<usize> = (shape.iter().rev())
                .map(|n| smooth(((*n as f64 * oversampling).ceil() as usize).max(SMALLEST)))
                .collect();
            let ratios: Vec<f64> = (sizes.iter().zip(shape.iter().rev()))
                .map(|(size, n)| *size as f64 / *n as f64)
                .collect();
            let width = Window::narrowest(error, &ratios)?;
            // In cells of a window. What a cell of the grid costs was measured: 13 going back, 20 going forward.
            let cells: f64 = sizes.iter().map(|s| *s as f64).product();
            let window = (width as f64).powi(sizes.len() as i32);
            let cost = n_samples as f64 * window + 15.0 * cells;
            Some(Choice {
                sizes,
                width,
                oversampling: *oversampling,
                cost,
            })
        })
        .min_by(|a, b| a.cost.total_cmp(&b.cost))
}

impl Nufft {
    /// Plans transforms between images of `shape` and samples at `trajectory`.
    ///
    /// # Shapes
    /// `trajectory` is `[sample, axis]`, axes `kx, ky` or `kx, ky, kz` as ISMRMRD has them; `shape` is `[ny, nx]` or
    /// `[nz, ny, nx]`.
    ///
    /// # Units
    /// `trajectory`: cycles per field of view, from `-n/2` to `n/2` along each axis. `tolerance`: relative error.
    ///
    /// # Errors
    /// What is wrong with shape, tolerance or trajectory, with the first sample that is: see [`NufftError`].
    pub fn plan(trajectory: &[f32], shape: &[usize], tolerance: f64) -> Result<Self, NufftError> {
        Self::plan_on(trajectory, shape, tolerance, &[1.25, 2.0])
    }

    fn plan_on(
        trajectory: &[f32],
        shape: &[usize],
        tolerance: f64,
        oversampling: &[f64],
    ) -> Result<Self, NufftError> {
        let n_axes = shape.len();
        if !(2..=3).contains(&n_axes) || shape.contains(&0) {
            return Err(NufftError::Shape {
                shape: shape.to_vec(),
            });
        }
        if !(1e-6..=1e-2).contains(&tolerance) {
            return Err(NufftError::Tolerance { asked: tolerance });
        }
        if trajectory.is_empty() {
            return Err(NufftError::NoTrajectory);
        }
        if !trajectory.len().is_multiple_of(n_axes) {
            return Err(NufftError::TrajectoryLength {
                found: trajectory.len(),
                axes: n_axes,
            });
        }
        for (sample, k) in trajectory.chunks_exact(n_axes).enumerate() {
            for ((k, n), axis) in k.iter().zip(shape.iter().rev()).zip("xyz".chars()) {
                let limit = *n as f32 / 2.0;
                if !k.is_finite() {
                    return Err(NufftError::NotFinite { sample, axis });
                }
                if k.abs() > limit {
                    return Err(NufftError::OutOfRange {
                        sample,
                        axis,
                        found: *k,
                        limit,
                    });
                }
            }
        }
        let n_samples = trajectory.len() / n_axes;
        let too_large = || NufftError::TooLarge {
            shape: shape.to_vec(),
            n_samples,
        };
        // Twice as fine and a little more along each axis, 64 bytes a cell, and indices of 32 bits.
        let largest = (shape.iter())
            .try_fold(256usize, |p, n| {
                p.checked_mul(n.checked_mul(3)?.max(2 * SMALLEST))
            })
            .filter(|bytes| isize::try_from(*bytes).is_ok());
        if largest.is_none() || u32::try_from(n_samples).is_err() {
            return Err(too_large());
        }
        let choice = choose(shape, n_samples, tolerance, oversampling).ok_or_else(too_large)?;
        let (sizes, width) = (&choice.sizes, choice.width);

        let mut windows = Vec::new();
        let mut axes = Vec::new();
        for (size, n) in sizes.iter().zip(shape.iter().rev()) {
            let window = Window::new(width, *size as f64 / *n as f64);
            windows.push(window.polynomials(tolerance / 50.0));
            let factors = (0..*n)
                .map(|x| (x as f64 - (n / 2) as f64) / *size as f64)
                .map(|xi| (1.0 / (window.transform(xi) * (*n as f64).sqrt())) as f32)
                .collect();
            axes.push(Axis::new(*n, *size, factors));
        }
        // The grid is [kx, ky] or [kx, ky, kz]; in 2D its middle axis is one cell with the weight 1.
        let mut size = [1; 3];
        let mut lattice_windows: [Vec<[f32; CELLS]>; 3] = Default::default();
        let mut one = [0.0; CELLS];
        one[0] = 1.0;
        lattice_windows[1] = vec![one];
        for (a, window) in windows.into_iter().enumerate() {
            let to = if n_axes == 2 && a == 1 { 2 } else { a };
            size[to] = sizes[a];
            lattice_windows[to] = window;
        }
        let points = trajectory
            .par_chunks_exact(n_axes)
            .map(|k| {
                let mut point = Point {
                    first: [0; 3],
                    between: [0.0; 3],
                };
                for (a, (k, n)) in k.iter().zip(shape.iter().rev()).enumerate() {
                    let to = if n_axes == 2 && a == 1 { 2 } else { a };
                    let at = f64::from(*k) * sizes[a] as f64 / *n as f64 - width as f64 / 2.0;
                    let first = at.ceil();
                    point.first[to] = first.rem_euclid(sizes[a] as f64) as u32;
                    point.between[to] = (2.0 * (first - at) - 1.0) as f32;
                }
                point
            })
            .collect();
        let lattice = Lattice::new(size, width, lattice_windows, points);
        let axes = Axes(axes);
        let cells: usize = axes.scratch(lattice.pitch()).iter().sum();
        let recipe = Recipe {
            op: "num/nufft".into(),
            backend: "cpu",
            detail: format!(
                "{shape:?} voxels, {n_samples} samples, tolerance {tolerance:.0e}: grid {sizes:?} (x first), window {width}"
            ),
            scratch_bytes: (cells * size_of::<Lanes>()) as u64,
            reason: format!(
                "oversampling {}: the cheapest that keeps the tolerance",
                choice.oversampling
            ),
        };
        Ok(Self {
            recipe,
            shape: shape.to_vec(),
            trajectory: trajectory.to_vec(),
            tolerance,
            axes,
            lattice,
            scratch: Mutex::default(),
        })
    }

    /// What was decided.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Voxels of one image.
    pub fn voxels(&self) -> usize {
        self.axes.voxels()
    }

    /// Samples of one coil.
    pub fn n_samples(&self) -> usize {
        self.lattice.n_samples()
    }

    /// Type 2: from images to samples.
    ///
    /// # Shapes
    /// `images` is `[coil, y, x]` or `[coil, z, y, x]`, `samples` is `[coil, sample]` and is overwritten.
    ///
    /// # Errors
    /// [`NufftError::Lengths`].
    pub fn forward(
        &self,
        images: &[Complex32],
        samples: &mut [Complex32],
    ) -> Result<(), NufftError> {
        self.check(images.len(), samples.len())?;
        self.with_scratch(|grid, other| {
            let pitch = self.lattice.pitch();
            for (images, samples) in images
                .chunks(LANES * self.voxels())
                .zip(samples.chunks_mut(LANES * self.n_samples()))
            {
                self.axes.up(images, grid, other, pitch);
                self.lattice.interpolate(grid, samples);
            }
        });
        Ok(())
    }

    /// Type 1, the adjoint of [`Nufft::forward`]: from samples to images.
    ///
    /// # Shapes
    /// As in [`Nufft::forward`]; `images` is overwritten.
    ///
    /// # Errors
    /// [`NufftError::Lengths`].
    pub fn adjoint(
        &self,
        samples: &[Complex32],
        images: &mut [Complex32],
    ) -> Result<(), NufftError> {
        self.check(images.len(), samples.len())?;
        self.with_scratch(|grid, other| {
            for (samples, images) in samples
                .chunks(LANES * self.n_samples())
                .zip(images.chunks_mut(LANES * self.voxels()))
            {
                self.spread(samples, grid, other);
                self.axes.down(other, grid, images);
            }
        });
        Ok(())
    }

    /// Slab by slab, from samples to `[kx, ky, z]` or `[kx, y]`: a slab's rows are transformed while they are at hand.
    fn spread(&self, samples: &[Complex32], grid: &mut [Lanes], to: &mut [Lanes]) {
        let (l, pitch) = (&self.lattice, self.lattice.pitch());
        let Some(axis) = self.axes.0.last() else {
            return;
        };
        let (mut grid, mut to) = (grid, to);
        let mut tasks = Vec::new();
        for slab in &l.slabs {
            let n_rows = slab.rows.len() * l.size[1];
            let (cells, rest) = std::mem::take(&mut grid).split_at_mut(n_rows * pitch);
            let (voxels, rest_to) = std::mem::take(&mut to).split_at_mut(n_rows * axis.n);
            (grid, to) = (rest, rest_to);
            tasks.push((slab, cells, voxels));
        }
        tasks
            .into_par_iter()
            .with_max_len(1)
            .for_each(|(slab, cells, voxels)| {
                l.spread(slab, samples, cells);
                let mut buffer = vec![Lanes::ZERO; axis.size];
                for (row, to) in cells
                    .chunks_exact(pitch)
                    .zip(voxels.chunks_exact_mut(axis.n))
                {
                    axis.row_down(row, &mut buffer, to);
                }
            });
    }

    fn check(&self, images: usize, samples: usize) -> Result<(), NufftError> {
        let (voxels, n_samples) = (self.voxels(), self.n_samples());
        let is_whole = images.is_multiple_of(voxels) && samples.is_multiple_of(n_samples);
        if is_whole && images / voxels == samples / n_samples {
            return Ok(());
        }
        Err(NufftError::Lengths {
            images,
            samples,
            voxels,
            n_samples,
        })
    }

    /// Working memory that outlives a run: fresh pages would cost as much as a transform.
    fn with_scratch(&self, run: impl FnOnce(&mut [Lanes], &mut [Lanes])) {
        // A thread that panicked while it held the lock left the list whole.
        let pool = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = pool().pop();
        let mut scratch = kept.unwrap_or_else(|| {
            (self.axes.scratch(self.lattice.pitch())).map(|n| vec![Lanes::ZERO; n])
        });
        let [grid, other] = &mut scratch;
        run(grid, other);
        pool().push(scratch);
    }

    /// The transform of `n_coils` coils as an operator.
    pub fn of_coils(&self, n_coils: usize) -> OfCoils<'_> {
        OfCoils {
            nufft: self,
            n_coils,
        }
    }
}

/// See [`Nufft::of_coils`].
#[derive(Clone, Copy, Debug)]
pub struct OfCoils<'a> {
    nufft: &'a Nufft,
    n_coils: usize,
}

impl LinOp for OfCoils<'_> {
    fn domain(&self) -> usize {
        self.n_coils * self.nufft.voxels()
    }
    fn range(&self) -> usize {
        self.n_coils * self.nufft.n_samples()
    }
    fn forward(&self, x: &[Complex32], y: &mut [Complex32]) {
        let done = self.nufft.forward(x, y);
        debug_assert_eq!(done, Ok(()));
    }
    fn adjoint(&self, y: &[Complex32], x: &mut [Complex32]) {
        let done = self.nufft.adjoint(y, x);
        debug_assert_eq!(done, Ok(()));
    }
}
