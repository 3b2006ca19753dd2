//! Sensitivity maps from calibration lines: ESPIRiT (one or two sets), Walsh, Inati.
//!
//! In: calibration lines ([`KSpace`]) and the matrix of the image; out: [`Csm`]. The solvers next door
//! (`recon/sense`) and the combination take the maps as they are.

use num_complex::Complex32;

use crate::data::{Csm, Fault, FaultKind, KSpace};
use crate::num::fft::{Direction, Fft};
use crate::num::linalg::LinalgError;

pub mod cuda;
mod eigen;
mod espirit;
mod inati;
mod space;
mod walsh;

#[cfg(test)]
pub(crate) mod tests;

/// How maps are estimated.
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
pub enum CsmMethod {
    /// Eigenvectors of the calibration matrix's row space, per voxel; masks where they explain the data.
    #[default]
    Espirit,
    /// Dominant eigenvector of the local coil covariance of the low-resolution image.
    Walsh,
    /// Iteration between a smooth map and a combined image (ISMRM 2014; Gadgetron's `coil_map_2d_Inati_Iter`).
    Inati,
}

/// Parameters of the maps.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CsmParams {
    /// Method.
    pub method: CsmMethod,
    /// Calibration samples used along each axis, at most; samples. The block lies around the k-space centre.
    pub calibration: usize,
    /// ESPIRiT: window of the calibration matrix along each axis, samples.
    pub window: usize,
    /// ESPIRiT: singular vectors count as signal when their eigenvalue of the normal matrix (the squared singular
    /// value) exceeds this fraction of the largest. As BART's `-t`.
    pub threshold: f64,
    /// ESPIRiT: maps are zero where the eigenvalue is at or below this, 0..1. As BART's `-c`.
    pub crop: f32,
    /// ESPIRiT: weights that fall smoothly to zero around `crop` instead of a step (soft-SENSE). As BART's `-S`.
    pub soft: bool,
    /// ESPIRiT: sets of maps, 1 or 2. Two where the object folds within the field of view.
    pub n_sets: usize,
    /// Walsh and Inati: edge of the block of voxels that are averaged, voxels (odd).
    pub block: usize,
    /// Inati: iterations at most; it stops before when the combined image changes by less than 0.1 %.
    pub iterations: usize,
    /// Walsh and Inati: maps are zero where the root sum of squares of the low-resolution image lies below this
    /// fraction of its maximum.
    pub signal_floor: f32,
}

impl Default for CsmParams {
    fn default() -> Self {
        Self {
            method: CsmMethod::Espirit,
            calibration: 24,
            window: 6,
            threshold: 0.001,
            crop: 0.8,
            soft: false,
            n_sets: 1,
            block: 7,
            iterations: 10,
            signal_floor: 0.02,
        }
    }
}

/// Why there are no maps.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CsmError {
    /// The fully sampled block around the centre of k-space is too small.
    #[error(
        "sensitivity maps need {needed} contiguous calibration samples around the centre of k-space along {axis}, found {found}; \
         acquire more calibration lines, lower csm.window, or pass maps from another scan"
    )]
    AcsTooSmall {
        /// `pe2`, `pe1` or `ro`.
        axis: &'static str,
        /// Samples needed.
        needed: usize,
        /// Samples found.
        found: usize,
    },
    /// The calibration samples are all zero.
    #[error(
        "the {samples} calibration samples are all zero: no sensitivity can be estimated; check the calibration lines' flags"
    )]
    NoSignal {
        /// Samples looked at.
        samples: usize,
    },
    /// NaN or infinity in the calibration samples.
    #[error(
        "{count} of {samples} calibration samples are not finite; nothing was replaced; check the input"
    )]
    NotFinite {
        /// How many.
        count: usize,
        /// Samples looked at.
        samples: usize,
    },
    /// A parameter that makes no sense.
    #[error("csm.{name} = {value} is not possible: {needed}")]
    BadParam {
        /// Name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is possible.
        needed: &'static str,
    },
    /// The calibration matrix is too large to factorise.
    #[error(
        "the ESPIRiT calibration matrix would have {found} unknowns, at most {limit} are factorised; lower csm.window or compress to fewer coils"
    )]
    TooLarge {
        /// Smaller side of the matrix.
        found: usize,
        /// The most that is tried.
        limit: usize,
    },
    /// The eigendecomposition failed.
    #[error("calibration matrix: {0}")]
    Linalg(#[from] LinalgError),
}

impl From<CsmError> for Fault {
    fn from(error: CsmError) -> Self {
        let kind = match &error {
            CsmError::BadParam { .. } => FaultKind::Protocol,
            CsmError::TooLarge { .. } => FaultKind::Limit,
            CsmError::Linalg(_) => FaultKind::Bug,
            _ => FaultKind::Input,
        };
        let mut fault = Fault::new(kind, "recon", error.to_string());
        fault.source = Some(Box::new(error));
        fault
    }
}

/// The fully sampled block around the centre of k-space.
pub(crate) struct Calibration {
    pub(crate) n_coils: usize,
    /// pe2, pe1, ro.
    pub(crate) dims: [usize; 3],
    /// `[coil, pe2, pe1, ro]`.
    pub(crate) samples: Vec<Complex32>,
}

/// First index of `size` samples around the centre of `n`: DC (`n/2`) becomes `size/2`.
fn first_of(n: usize, size: usize) -> usize {
    n / 2 - size / 2
}

impl Calibration {
    /// The samples scaled to unit mean square, so that f32 neither over- nor underflows whatever the receiver's unit.
    fn of_unit_power(&self) -> Vec<Complex32> {
        let power = crate::num::complex::norm2(&self.samples) / self.samples.len() as f64;
        let scale = (1.0 / power.sqrt()) as f32;
        self.samples.iter().map(|v| v * scale).collect()
    }

    /// Finds the largest block, at most `limit` along each axis, in which every line was measured.
    pub(crate) fn extract(acs: &KSpace, limit: usize) -> Result<Self, CsmError> {
        let shape = acs.shape;
        let mask = acs.mask();
        let full = |size2: usize, size1: usize| {
            let (first2, first1) = (first_of(shape.pe2, size2), first_of(shape.pe1, size1));
            (first2..first2 + size2)
                .all(|k2| (first1..first1 + size1).all(|k1| mask[k2 * shape.pe1 + k1]))
        };
        let (mut size2, mut size1) = (0, 0);
        if shape.pe2 > 0 && shape.pe1 > 0 && full(1, 1) {
            (size2, size1) = (1, 1);
            // Grows both axes in turn, so that a square block is found before a long one.
            loop {
                let before = (size2, size1);
                if size2 < limit.min(shape.pe2) && full(size2 + 1, size1) {
                    size2 += 1;
                }
                if size1 < limit.min(shape.pe1) && full(size2, size1 + 1) {
                    size1 += 1;
                }
                if (size2, size1) == before {
                    break;
                }
            }
        }
        // An asymmetric echo has its short side towards the start or the end: the block is symmetric around DC.
        let size0 = (1..=limit.min(shape.ro))
            .rev()
            .find(|size| {
                let first = first_of(shape.ro, *size);
                first >= acs.ro_range.start && first + size <= acs.ro_range.end
            })
            .unwrap_or(0);
        let dims = [size2, size1, size0];
        let (first2, first1, first0) = (
            first_of(shape.pe2, size2),
            first_of(shape.pe1, size1),
            first_of(shape.ro, size0),
        );
        let mut samples = vec![Complex32::ZERO; shape.coil * size2 * size1 * size0];
        for (i, line) in acs.lines.iter().enumerate() {
            let (k2, k1) = (line.pe2 as usize, line.pe1 as usize);
            if k2 < first2 || k2 >= first2 + size2 || k1 < first1 || k1 >= first1 + size1 {
                continue;
            }
            for coil in 0..shape.coil {
                let row = (coil * size2 + k2 - first2) * size1 + k1 - first1;
                samples[row * size0..(row + 1) * size0]
                    .copy_from_slice(&acs.line(coil, i)[first0..first0 + size0]);
            }
        }
        let count = samples
            .iter()
            .filter(|v| !(v.re.is_finite() && v.im.is_finite()))
            .count();
        if count > 0 {
            return Err(CsmError::NotFinite {
                count,
                samples: samples.len(),
            });
        }
        Ok(Self {
            n_coils: shape.coil,
            dims,
            samples,
        })
    }

    /// Fails unless every axis that is longer than 1 in the grid has at least `needed` samples.
    pub(crate) fn require(&self, acs: &KSpace, needed: usize) -> Result<(), CsmError> {
        let extents = [acs.shape.pe2, acs.shape.pe1, acs.shape.ro];
        for (axis, name) in ["pe2", "pe1", "ro"].into_iter().enumerate() {
            let needed = needed.min(extents[axis]);
            if self.dims[axis] < needed {
                return Err(CsmError::AcsTooSmall {
                    axis: name,
                    needed,
                    found: self.dims[axis],
                });
            }
        }
        if self.samples.iter().all(|v| *v == Complex32::ZERO) {
            return Err(CsmError::NoSignal {
                samples: self.samples.len(),
            });
        }
        Ok(())
    }

    /// Coil images of the block at `matrix` (z, y, x), tapered by a Hann window against ringing: `[coil, z, y, x]`.
    pub(crate) fn low_resolution(&self, matrix: [usize; 3]) -> Vec<Complex32> {
        let taper = |size: usize| -> Vec<f32> {
            (0..size)
                .map(|k| {
                    let x = (k as f64 - (size / 2) as f64) / (size as f64 / 2.0 + 0.5);
                    if size == 1 {
                        1.0
                    } else {
                        (0.5 + 0.5 * (std::f64::consts::PI * x).cos()) as f32
                    }
                })
                .collect()
        };
        let [t2, t1, t0] = self.dims.map(taper);
        let [nz, ny, nx] = matrix;
        let keep = [0, 1, 2].map(|i| self.dims[i].min(matrix[i]));
        let from = [0, 1, 2].map(|i| first_of(self.dims[i], keep[i]));
        let to = [0, 1, 2].map(|i| first_of(matrix[i], keep[i]));
        let mut image = vec![Complex32::ZERO; self.n_coils * nz * ny * nx];
        let rows = Fft::plan(nx, Direction::Inverse);
        let mut scratch = vec![Complex32::ZERO; rows.scratch_len()];
        for coil in 0..self.n_coils {
            for k2 in 0..keep[0] {
                for k1 in 0..keep[1] {
                    let (s2, s1) = (from[0] + k2, from[1] + k1);
                    let source = ((coil * self.dims[0] + s2) * self.dims[1] + s1) * self.dims[2];
                    let row = (((coil * nz) + to[0] + k2) * ny + to[1] + k1) * nx;
                    let row = &mut image[row..row + nx];
                    for k0 in 0..keep[2] {
                        let s0 = from[2] + k0;
                        row[to[2] + k0] = self.samples[source + s0] * (t2[s2] * t1[s1] * t0[s0]);
                    }
                    // Only rows with samples are transformed along x.
                    rows.run_row(row, &mut scratch);
                }
            }
        }
        let dims = [self.n_coils, nz, ny, nx];
        if ny > 1 {
            Fft::plan(ny, Direction::Inverse).run_axis(&mut image, &dims, 2);
        }
        if nz > 1 {
            Fft::plan(nz, Direction::Inverse).run_axis(&mut image, &dims, 1);
        }
        image
    }
}

/// Estimates sensitivity maps from calibration lines.
///
/// # Shapes
/// * `acs`: any lines; the largest fully sampled block around the centre is used, at most `params.calibration`
///   samples along each axis.
/// * `matrix`: z, y, x of the image, over the same field of view as the grid of `acs`.
/// * result: `[set, coil, z, y, x]`.
///
/// # Units
/// Maps are dimensionless; over the coils of one set their squares sum to 1, or to 0 where a map is masked
/// (ESPIRiT: eigenvalue at or below `crop`; Walsh, Inati: below `signal_floor`), or in between (`soft`).
/// The phase is that of a virtual coil, the first principal component of the calibration samples: over the maps of a
/// voxel, its projection is real and positive.
///
/// # Errors
/// * [`CsmError::AcsTooSmall`] names axis, needed and found.
/// * [`CsmError::NotFinite`], [`CsmError::NoSignal`]: the samples.
/// * [`CsmError::BadParam`]: the parameters. [`CsmError::TooLarge`]: window times coils.
///
/// # Numerics
/// The same bits for any number of threads. ESPIRiT with one set finds eigenvectors on a coarser grid (16 points per
/// shortest period of the matrix function, which is a trigonometric polynomial), interpolates where they are smooth,
/// and evaluates the rest exactly; against the exact maps everywhere the error is below 2e-3 (NRMSE over voxels that
/// both keep).
///
/// # Source
/// ESPIRiT: Uecker et al., Magn Reson Med 71:990-1001 (2014), doi:10.1002/mrm.24751; thresholds and phase as in BART's
/// `ecalib`. Walsh et al., Magn Reson Med 43:682-690 (2000). Inati et al., ISMRM 22:4407 (2014).
pub fn maps(acs: &KSpace, matrix: [usize; 3], params: &CsmParams) -> Result<Csm, CsmError> {
    check(params)?;
    if matrix.contains(&0) {
        return Err(CsmError::BadParam {
            name: "matrix",
            value: format!("{matrix:?}"),
            needed: "at least one voxel along every axis",
        });
    }
    match params.method {
        CsmMethod::Espirit => espirit::maps(acs, matrix, params, espirit::Grid::Coarse),
        CsmMethod::Walsh => walsh::maps(acs, matrix, params),
        CsmMethod::Inati => inati::maps(acs, matrix, params),
    }
}

fn check(params: &CsmParams) -> Result<(), CsmError> {
    let bad = |name, value: String, needed| {
        Err(CsmError::BadParam {
            name,
            value,
            needed,
        })
    };
    if !(1..=2).contains(&params.n_sets) {
        return bad("n_sets", params.n_sets.to_string(), "1 or 2");
    }
    if params.n_sets == 2 && params.method != CsmMethod::Espirit {
        return bad("n_sets", "2".into(), "2 sets only with method \"espirit\"");
    }
    if !(2..=16).contains(&params.window) {
        return bad("window", params.window.to_string(), "2 to 16 samples");
    }
    if params.calibration < 4 {
        return bad(
            "calibration",
            params.calibration.to_string(),
            "at least 4 samples",
        );
    }
    if !(params.threshold > 0.0 && params.threshold < 1.0) {
        return bad("threshold", params.threshold.to_string(), "between 0 and 1");
    }
    if !(0.0..1.0).contains(&params.crop) {
        return bad("crop", params.crop.to_string(), "0 or more and below 1");
    }
    if params.block.is_multiple_of(2) || params.block > 63 {
        return bad("block", params.block.to_string(), "an odd number up to 63");
    }
    if !(0.0..1.0).contains(&params.signal_floor) {
        return bad(
            "signal_floor",
            params.signal_floor.to_string(),
            "0 or more and below 1",
        );
    }
    Ok(())
}

/// First principal component of the calibration samples over the coils: the virtual coil that gives maps their phase.
/// Its largest component is real and positive.
fn principal_component(calibration: &Calibration) -> Result<Vec<Complex32>, CsmError> {
    use num_complex::Complex64;
    let n = calibration.n_coils;
    let per_coil = calibration.samples.len() / n.max(1);
    let coil = |c: usize| &calibration.samples[c * per_coil..(c + 1) * per_coil];
    let mut covariance = vec![Complex64::ZERO; n * n];
    for i in 0..n {
        for j in 0..=i {
            let v = crate::num::complex::dot_conj(coil(j), coil(i));
            covariance[i * n + j] = v;
            covariance[j * n + i] = v.conj();
        }
    }
    let eigen = crate::num::linalg::eigh(&covariance, n)?;
    let first = &eigen.vectors[..n];
    let largest = first
        .iter()
        .max_by(|a, b| a.norm().total_cmp(&b.norm()))
        .copied()
        .unwrap_or(Complex64::ONE);
    let turn = largest.conj() / largest.norm().max(f64::MIN_POSITIVE);
    Ok(first
        .iter()
        .map(|v| {
            let v = v * turn;
            Complex32::new(v.re as f32, v.im as f32)
        })
        .collect())
}
