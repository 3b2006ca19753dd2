//! SENSE: images from undersampled lines and sensitivity maps.
//!
//! In: [`KSpace`] and [`Csm`]; out: [`SenseImage`] with noise and g-factor. One algorithm for every Cartesian mask:
//!
//! The readout is transformed first, so that every voxel along `ro` is a small problem of its own over the phase
//! encoding plane. The mask is written as a lattice `H` with weight `c` plus the rest `E` (calibration lines, missing
//! lattice points, or everything when there is no lattice). The lattice part of the normal operator couples only the
//! voxels that fold onto each other: blocks of `reduction x sets` unknowns, inverted exactly (direct unfolding). With
//! `E = 0` that is the solution; otherwise it preconditions conjugate gradients on the full normal operator. Masks along
//! one axis are preconditioned by the band of the normal operator in k-space instead, irregular masks over two axes by
//! the local density of the mask, and coils are mixed into as few as the maps of a place need where that leaves the
//! operator unchanged beside the Tikhonov weight.

use num_complex::Complex32;

use super::sampling::{self, Lattice};
pub use super::tikhonov::Lambda;
use crate::data::{Csm, Fault, FaultKind, KSpace, Line, Shape};
use crate::device::Recipe;

mod banded;
mod column;
mod compress;
mod cuda;
mod lattice;
mod noise;
mod prior;
mod solver;
mod value;

#[cfg(test)]
mod tests;

/// Which solver.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum SenseSolver {
    /// Direct unfolding where the mask is a lattice, conjugate gradients otherwise.
    #[default]
    Auto,
    /// Direct unfolding only: the mask must be a lattice over the whole grid.
    Unfold,
    /// Conjugate gradients, whatever the mask.
    Cg,
}

/// Parameters of SENSE.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SenseParams {
    /// Which solver.
    pub solver: SenseSolver,
    /// Tikhonov weight: `"auto"`, or a number relative to the mean diagonal of the normal operator (the sampled
    /// fraction of k-space, each line counted with its averages, for maps of unit norm). `"auto"` takes, for every
    /// frame, the noise over the signal energy of the lines outside the calibration block, per voxel of the object:
    /// the weight of least expected error. Values below `1e-6` act as `1e-6`, which only keeps voxels without
    /// sensitivity solvable.
    pub lambda: Lambda,
    /// Iterations of conjugate gradients at most.
    pub max_iterations: usize,
    /// Stop when the preconditioned residual has fallen to this fraction of the start.
    pub tolerance: f64,
    /// Noise and g-factor maps.
    pub noise_map: bool,
    /// Noise of irregular masks is estimated from so many replicas of the image with noise added, smoothed over
    /// neighbours.
    pub replicas: usize,
}

impl Default for SenseParams {
    fn default() -> Self {
        Self {
            solver: SenseSolver::Auto,
            lambda: Lambda::Auto,
            max_iterations: 50,
            tolerance: 1e-3,
            noise_map: true,
            replicas: 8,
        }
    }
}

/// Why there is no image.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SenseError {
    /// Maps and k-space do not belong together.
    #[error(
        "sensitivity maps of {csm_coils} coils and matrix {csm_matrix:?} (z, y, x) do not fit k-space of {coils} coils and grid \
         {grid:?} (pe2, pe1, ro); estimate the maps from this scan, at this grid"
    )]
    MapsDoNotFit {
        /// Coils of the maps.
        csm_coils: usize,
        /// z, y, x of the maps.
        csm_matrix: [usize; 3],
        /// Coils of k-space.
        coils: usize,
        /// pe2, pe1, ro of k-space.
        grid: [usize; 3],
    },
    /// Nothing was measured.
    #[error("no line was measured: there is nothing to reconstruct")]
    NoLines,
    /// Direct unfolding was asked for a mask that is no lattice.
    #[error(
        "solver \"unfold\" needs a mask that is regular over the whole grid of {grid:?} lines (pe2, pe1); found {found}; use solver \"auto\" or \"cg\""
    )]
    NotRegular {
        /// pe2, pe1.
        grid: [usize; 2],
        /// What the mask looks like.
        found: String,
    },
    /// A parameter that makes no sense.
    #[error("sense.{name} = {value} is not possible: {needed}")]
    BadParam {
        /// Name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is possible.
        needed: &'static str,
    },
    /// A weight that nobody found.
    #[error(
        "sense.lambda = \"auto\" is found from a frame by `Recon`; `Sense` alone needs the number"
    )]
    NoLambda,
    /// Lines that were not planned for.
    #[error(
        "the lines of this frame are not those that the reconstruction was planned for: planned {planned}, found {found}; plan again"
    )]
    OtherLines {
        /// Lines planned.
        planned: usize,
        /// Lines found.
        found: usize,
    },
}

impl From<SenseError> for Fault {
    fn from(error: SenseError) -> Self {
        let kind = match &error {
            SenseError::NoLines => FaultKind::Input,
            SenseError::NotRegular { .. } | SenseError::BadParam { .. } => FaultKind::Protocol,
            SenseError::MapsDoNotFit { .. }
            | SenseError::NoLambda
            | SenseError::OtherLines { .. } => FaultKind::Bug,
        };
        let mut fault = Fault::new(kind, "recon", error.to_string());
        fault.source = Some(Box::new(error));
        fault
    }
}

/// An unfolded image.
///
/// # Shapes
/// Everything is `[set, z, y, x]` of the maps.
#[derive(Clone, Debug, PartialEq)]
pub struct SenseImage {
    /// Complex voxels; zero where the maps are zero.
    pub voxels: Vec<Complex32>,
    /// Standard deviation of the noise in the real (and in the imaginary) part of each voxel, for whitened k-space.
    pub noise_std: Option<Vec<f32>>,
    /// Noise against the fully sampled scan of the same maps, times the square root of the sampled fraction: at
    /// least 1 without regularisation, below it where regularisation suppresses noise; 0 where the maps are zero.
    pub gfactor: Option<Vec<f32>>,
    /// Iterations of the slowest column; 0 when unfolding was exact.
    pub iterations: usize,
    /// Largest preconditioned residual of a column, relative to its start, or to the mean column's where that is larger.
    pub residual: f64,
}

/// A planned SENSE reconstruction: one mask.
#[derive(Clone, Debug)]
pub struct Sense {
    shape: Shape,
    lines: Vec<Line>,
    /// Measured samples of a readout.
    ro_range: std::ops::Range<usize>,
    lattice: lattice::Folding,
    params: SenseParams,
    recipe: Recipe,
}

impl Sense {
    /// Decides how to solve for frames with the lines of `kspace`.
    ///
    /// # Errors
    /// * [`SenseError::NoLines`], [`SenseError::BadParam`].
    /// * [`SenseError::NotRegular`]: solver `unfold` for another mask.
    pub fn plan(kspace: &KSpace, params: &SenseParams) -> Result<Self, SenseError> {
        let shape = kspace.shape;
        if kspace.lines.is_empty() || shape.is_empty() {
            return Err(SenseError::NoLines);
        }
        if let Lambda::Fixed(lambda) = params.lambda
            && !(lambda.is_finite() && lambda >= 0.0)
        {
            return Err(SenseError::BadParam {
                name: "lambda",
                value: params.lambda.to_string(),
                needed: "\"auto\", or 0 or more",
            });
        }
        if params.noise_map && params.replicas < 2 {
            return Err(SenseError::BadParam {
                name: "replicas",
                value: params.replicas.to_string(),
                needed: "2 or more, or noise_map = false",
            });
        }
        let found = match params.solver {
            SenseSolver::Cg => None,
            SenseSolver::Auto | SenseSolver::Unfold => sampling::of(kspace)
                .lattice
                .filter(|l| lattice::closes(l, shape.pe2, shape.pe1)),
        };
        let is_lattice = found.is_some();
        let lattice = lattice::Folding::new(found.unwrap_or(Lattice::FULL), is_lattice, kspace);
        if params.solver == SenseSolver::Unfold && !lattice.is_exact() {
            return Err(SenseError::NotRegular {
                grid: [shape.pe2, shape.pe1],
                found: lattice.describe(),
            });
        }
        let recipe = Recipe {
            op: "recon/sense".into(),
            backend: "cpu",
            detail: format!(
                "{} coils, {}x{}x{}, lambda {}{}; noise map: {}",
                shape.coil,
                shape.pe2,
                shape.pe1,
                shape.ro,
                params.lambda,
                match params.lambda {
                    Lambda::Auto =>
                        " (per frame, noise over the energy outside the calibration block)",
                    Lambda::Fixed(_) => "",
                },
                noise::method(&lattice, params)
            ),
            scratch_bytes: (shape.coil * kspace.lines.len() * shape.ro * 8) as u64,
            reason: if lattice.is_exact() {
                format!("{}: direct unfolding is exact", lattice.describe())
            } else {
                format!(
                    "{}: conjugate gradients, at most {} iterations to {:e}",
                    lattice.describe(),
                    params.max_iterations,
                    params.tolerance
                )
            },
        };
        Ok(Self {
            shape,
            lines: kspace.lines.clone(),
            ro_range: kspace.ro_range.clone(),
            lattice,
            params: params.clone(),
            recipe,
        })
    }

    /// What was decided and why.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Whether the solution needs no iteration.
    pub fn is_exact(&self) -> bool {
        self.lattice.is_exact()
    }

    /// Reconstructs one frame with the planned weight.
    ///
    /// # Errors
    /// Those of [`Self::run_with`], and [`SenseError::NoLambda`].
    pub fn run(&self, kspace: &KSpace, csm: &Csm) -> Result<SenseImage, SenseError> {
        match self.params.lambda {
            Lambda::Fixed(lambda) => self.run_with(kspace, csm, lambda),
            Lambda::Auto => Err(SenseError::NoLambda),
        }
    }

    /// Reconstructs one frame with a Tikhonov weight, relative as [`SenseParams::lambda`].
    ///
    /// # Shapes
    /// `csm.matrix` is the grid of `kspace` (pe2, pe1, ro).
    ///
    /// # Errors
    /// * [`SenseError::MapsDoNotFit`], [`SenseError::OtherLines`].
    ///
    /// # Numerics
    /// A place along the readout with less energy than the mean stops at the mean's tolerance. Vectors and transforms
    /// in `f32`, blocks inverted and inner products summed in `f64`; the same bits for any
    /// number of threads.
    ///
    /// # Source
    /// Pruessmann et al., Magn Reson Med 42:952-962 (1999) for unfolding and g-factor, 46:638-651 (2001) for
    /// conjugate gradients. Splitting the mask into lattice and rest is ours.
    pub fn run_with(
        &self,
        kspace: &KSpace,
        csm: &Csm,
        lambda: f32,
    ) -> Result<SenseImage, SenseError> {
        self.check(kspace, csm)?;
        Ok(solver::run(
            &self.lattice,
            kspace,
            csm,
            &self.params,
            lambda,
        ))
    }

    /// Are these the lines that were planned for, and maps of their grid?
    fn check(&self, kspace: &KSpace, csm: &Csm) -> Result<(), SenseError> {
        let shape = self.shape;
        if csm.n_coils != shape.coil
            || csm.matrix != [shape.pe2, shape.pe1, shape.ro]
            || kspace.shape != shape
        {
            return Err(SenseError::MapsDoNotFit {
                csm_coils: csm.n_coils,
                csm_matrix: csm.matrix,
                coils: kspace.shape.coil,
                grid: [kspace.shape.pe2, kspace.shape.pe1, kspace.shape.ro],
            });
        }
        if kspace.lines != self.lines {
            return Err(SenseError::OtherLines {
                planned: self.lines.len(),
                found: kspace.lines.len(),
            });
        }
        Ok(())
    }
}
