//! Weights that predict missing lines from measured ones, fitted to the calibration block.
//!
//! [`Acs`] + [`Window`] -> [`Weights`]: one regularised normal equation for all targets and coils.
//!
//! # What is minimised
//! The weights are wanted where lines are missing, and those hold little energy per sample beside noise, while the
//! middle of the calibration block holds hundreds of times more. A plain least-squares fit therefore answers to a few
//! samples around DC and takes hardly any notice of noise. Two things make the block speak for the missing lines:
//! every equation is divided by the energy of its sources ([`Weighting::Energy`]), and the noise in the normal matrix is
//! raised to what it is, relative to the signal, *outside* the block ([`Ridge::Wiener`]). Samples far out along the
//! readout say nothing that is not noise, so that only the middle is used.
//!
//! # Numerics
//! Products are f32 over at most [`ROWS`] equations, f64 beyond; the factorisation is f64. The result does not depend
//! on the number of threads.
//!
//! # Source
//! Griswold et al., Magn Reson Med 47:1202-1210 (2002), doi:10.1002/mrm.10171. Unlike the paper, one window serves
//! all missing lines between two measured ones, so that the normal matrix is factorised once. Weighted
//! equations: Huo and Wilson, J Magn Reson Imaging 27:1412-1420 (2008), PMC4484794 (against outliers; the weight
//! against the dominance of the centre, and the ridge, are ours).

use std::ops::Range;

use faer::linalg::matmul::{matmul, triangular};
use faer::linalg::solvers::Solve;
use faer::{Accum, MatMut, MatRef, Par, Side};
use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

use super::params::{GrappaParams, Weighting};
use super::window::Window;
use crate::data::Shape;
use crate::recon::acs::Acs;
use crate::recon::error::ReconError;
use crate::recon::sampling::Block;

/// Equations that are summed in f32.
const ROWS: usize = 128;
/// Sums in f64 that are made side by side.
const GROUPS: usize = 8;
/// Least regularisation relative to the mean diagonal, so that dead coils and noise-free data can be solved.
const LEAST: f64 = 1e-4;
/// Most regularisation: the weights are nearly zero with it.
const MOST: f64 = 100.0;

/// Regularisation of the fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ridge {
    /// Relative to the mean diagonal of the normal matrix.
    Relative(f64),
    /// So that noise and signal of the normal matrix are in the proportion of the lines that are missing. All per
    /// complex sample.
    Wiener {
        /// Variance of the noise in the calibration block.
        noise_acs: f64,
        /// Variance of the noise in the measured lines outside of it.
        noise: f64,
        /// Energy of the signal outside of it.
        energy: f64,
    },
}

/// Fitted weights.
///
/// # Shapes
/// `[unknown, output]`: unknown `(source, ro, coil_in)`, output `(target, coil_out)`, row-major.
///
/// # Units
/// Dimensionless.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    pub(crate) window: Window,
    pub(crate) n_coils: usize,
    pub(crate) values: Vec<Complex32>,
    /// Equations that were fitted.
    pub(crate) n_equations: usize,
    /// Regularisation relative to the mean diagonal of the normal matrix.
    pub(crate) lambda: f64,
}

impl Weights {
    pub(crate) fn n_outputs(&self) -> usize {
        self.window.targets.len() * self.n_coils
    }
}

/// Checks that the calibration block is large enough, before anything is calculated.
///
/// # Errors
/// [`ReconError::Calibration`].
pub(crate) fn check(
    window: &Window,
    block: &Block,
    n_coils: usize,
    ro: usize,
) -> Result<(), ReconError> {
    let equations = window.positions(block).len() * (ro + 1).saturating_sub(window.ro);
    let unknowns = window.n_unknowns(n_coils);
    if equations >= unknowns {
        return Ok(());
    }
    let [s2, s1] = window.span();
    Err(ReconError::Calibration {
        method: "grappa",
        need: if s2 > 1 {
            format!("{s1} x {s2} (pe1 x pe2)")
        } else {
            format!("{s1}")
        } + &format!(" or more, with {unknowns} equations"),
        found: if s2 > 1 {
            format!("{} x {}", block.pe1.len(), block.pe2.len())
        } else {
            format!("{}", block.pe1.len())
        } + &format!(", with {equations}"),
        hint: "try a smaller `grappa.window_pe1`, coil compression (`compress.method = \"svd\"`), a separate \
               reference scan, or `method = \"cg_sense\"`"
            .into(),
    })
}

/// Fits the weights.
///
/// # Errors
/// * [`ReconError::Calibration`]: fewer equations than unknowns.
/// * [`ReconError::Singular`]: the factorisation failed.
#[cfg(test)]
pub(crate) fn calibrate(
    acs: &Acs,
    window: &Window,
    params: &GrappaParams,
    ridge: Ridge,
) -> Result<Weights, ReconError> {
    Fit::new(acs, window, params)?.weights(ridge)
}

/// The normal equation, which does not depend on the regularisation.
#[derive(Clone, Debug)]
pub(crate) struct Fit {
    window: Window,
    n_coils: usize,
    n_equations: usize,
    n_unknowns: usize,
    normal: Normal,
}

impl Fit {
    /// Sums over the calibration block.
    ///
    /// # Errors
    /// [`ReconError::Calibration`]: fewer equations than unknowns.
    pub(crate) fn new(
        acs: &Acs,
        window: &Window,
        params: &GrappaParams,
    ) -> Result<Self, ReconError> {
        check(window, &acs.block, acs.shape.coil, acs.ro_range.len())?;
        let equations = Equations::new(acs, window, params);
        Ok(Self {
            window: window.clone(),
            n_coils: acs.shape.coil,
            n_equations: equations.n_rows(),
            n_unknowns: equations.n_unknowns,
            normal: equations.normal(),
        })
    }

    pub(crate) fn bytes(&self) -> u64 {
        ((self.normal.gram.len() + self.normal.rhs.len()) * size_of::<Complex64>()) as u64
    }

    /// Solves for the weights.
    ///
    /// # Errors
    /// [`ReconError::Singular`]: the factorisation failed.
    pub(crate) fn weights(self, ridge: Ridge) -> Result<Weights, ReconError> {
        let Self {
            window,
            n_coils,
            n_equations,
            n_unknowns: n,
            mut normal,
        } = self;
        let mean = (0..n).map(|i| normal.gram[i * n + i].re).sum::<f64>() / n as f64;
        let lambda = match ridge {
            Ridge::Relative(lambda) => lambda,
            Ridge::Wiener {
                noise_acs,
                noise,
                energy,
            } => {
                // In 3D half of it is better, measured on simulated scans.
                let noise = if window.is_3d() { 0.5 * noise } else { noise };
                let signal = (mean - noise_acs * normal.weight).max(0.0);
                let wanted =
                    signal * noise / energy.max(f64::MIN_POSITIVE) - noise_acs * normal.weight;
                (wanted / mean.max(f64::MIN_POSITIVE)).clamp(LEAST, MOST)
            }
        };
        for i in 0..n {
            normal.gram[i * n + i] += lambda * mean;
        }
        let n_outputs = window.targets.len() * n_coils;
        solve(&normal.gram, &mut normal.rhs, n, n_outputs)?;
        Ok(Weights {
            window,
            n_coils,
            values: normal
                .rhs
                .iter()
                .map(|v| Complex32::new(v.re as f32, v.im as f32))
                .collect(),
            n_equations,
            lambda,
        })
    }
}

fn solve(
    gram: &[Complex64],
    rhs: &mut [Complex64],
    n: usize,
    n_out: usize,
) -> Result<(), ReconError> {
    let singular = |detail: String| ReconError::Singular {
        method: "grappa",
        detail,
        key: "grappa.lambda",
    };
    let factor = MatRef::from_row_major_slice(gram, n, n)
        .llt(Side::Lower)
        .map_err(|e| singular(format!("normal matrix of size {n}: {e:?}")))?;
    factor.solve_in_place(MatMut::from_row_major_slice_mut(rhs, n, n_out));
    if rhs.iter().any(|v| !v.re.is_finite() || !v.im.is_finite()) {
        return Err(singular(format!(
            "normal matrix of size {n}: weights are not finite"
        )));
    }
    Ok(())
}

/// `AᴴA` (lower triangle), `AᴴB`, and the sum of the weights of the equations.
#[derive(Clone, Debug)]
struct Normal {
    gram: Vec<Complex64>,
    rhs: Vec<Complex64>,
    weight: f64,
}

/// Every position of the window at every readout sample that calibrates.
struct Equations<'a> {
    window: &'a Window,
    weighting: Weighting,
    positions: Vec<(usize, usize)>,
    /// Calibration lines, `[line, x, coil]`: the samples of a window's line lie side by side.
    samples: Vec<Complex32>,
    n_coils: usize,
    n_pe1: usize,
    /// Samples along the readout in `samples`.
    n_ro: usize,
    n_unknowns: usize,
    n_outputs: usize,
}

impl<'a> Equations<'a> {
    fn new(acs: &Acs, window: &'a Window, params: &GrappaParams) -> Self {
        let padded = window.is_3d().then(|| padded(acs));
        let acs = padded.as_ref().unwrap_or(acs);
        let n_coils = acs.shape.coil;
        let positions = window.positions(&acs.block);
        let n_unknowns = window.n_unknowns(n_coils);
        let range = central(
            acs,
            window.ro,
            params.calibration_ro,
            n_unknowns.div_ceil(positions.len().max(1)),
        );
        let n_ro = range.len();
        let mut samples = vec![Complex32::ZERO; acs.shape.pe2 * acs.shape.pe1 * n_ro * n_coils];
        for (l, out) in samples
            .chunks_exact_mut((n_ro * n_coils).max(1))
            .enumerate()
        {
            for coil in 0..n_coils {
                let line = acs.line(coil, l / acs.shape.pe1, l % acs.shape.pe1);
                for (x, v) in line[range.clone()].iter().enumerate() {
                    out[x * n_coils + coil] = *v;
                }
            }
        }
        Self {
            window,
            weighting: params.weighting,
            positions,
            samples,
            n_coils,
            n_pe1: acs.shape.pe1,
            n_ro,
            n_unknowns,
            n_outputs: window.targets.len() * n_coils,
        }
    }

    fn n_rows(&self) -> usize {
        self.positions.len() * (self.n_ro + 1 - self.window.ro)
    }

    /// Writes equation `i`: sources, then targets; weighted. Returns the weight.
    fn row(&self, i: usize, sources: &mut [Complex32], targets: &mut [Complex32]) -> f64 {
        let per_position = self.n_ro + 1 - self.window.ro;
        let (b, x) = (self.positions[i / per_position], i % per_position);
        let at = |step: (i64, i64), x: usize| {
            let line = (b.0 as i64 + step.0) * self.n_pe1 as i64 + b.1 as i64 + step.1;
            (line as usize * self.n_ro + x) * self.n_coils
        };
        let wide = self.window.ro * self.n_coils;
        for (step, out) in self
            .window
            .sources
            .iter()
            .zip(sources.chunks_exact_mut(wide))
        {
            out.copy_from_slice(&self.samples[at(*step, x)..][..wide]);
        }
        let middle = x + self.window.ro / 2;
        for (step, out) in self
            .window
            .targets
            .iter()
            .zip(targets.chunks_exact_mut(self.n_coils))
        {
            out.copy_from_slice(&self.samples[at(*step, middle)..][..self.n_coils]);
        }
        if self.weighting == Weighting::None {
            return 1.0;
        }
        let energy = sources.iter().map(Complex32::norm_sqr).sum::<f32>() / sources.len() as f32;
        // An equation of zeros says nothing.
        let weight = if energy == 0.0 {
            0.0
        } else if self.window.is_3d() {
            // The corners of a plane are many: measured on simulated scans, they would rule in their turn.
            1.0 / energy.sqrt()
        } else {
            1.0 / energy
        };
        let scale = weight.sqrt();
        sources.iter_mut().chain(targets).for_each(|v| *v *= scale);
        f64::from(weight)
    }

    fn normal(&self) -> Normal {
        let n_chunks = self.n_rows().div_ceil(ROWS);
        let groups = GROUPS.min(n_chunks);
        let parts: Vec<Normal> = (0..groups)
            .into_par_iter()
            .map(|g| self.sum(n_chunks * g / groups..n_chunks * (g + 1) / groups))
            .collect();
        let mut parts = parts.into_iter();
        let Some(mut total) = parts.next() else {
            return self.zero();
        };
        for part in parts {
            total.weight += part.weight;
            for (t, p) in total.gram.iter_mut().zip(&part.gram) {
                *t += p;
            }
            for (t, p) in total.rhs.iter_mut().zip(&part.rhs) {
                *t += p;
            }
        }
        total
    }

    fn zero(&self) -> Normal {
        Normal {
            gram: vec![Complex64::ZERO; self.n_unknowns * self.n_unknowns],
            rhs: vec![Complex64::ZERO; self.n_unknowns * self.n_outputs],
            weight: 0.0,
        }
    }

    /// The sum over some chunks of [`ROWS`] equations.
    fn sum(&self, chunks: Range<usize>) -> Normal {
        use triangular::BlockStructure::{Rectangular, TriangularLower};
        let (n, n_out) = (self.n_unknowns, self.n_outputs);
        let mut total = self.zero();
        let mut a = vec![Complex32::ZERO; ROWS * n];
        let mut b = vec![Complex32::ZERO; ROWS * n_out];
        let mut gram = vec![Complex32::ZERO; n * n];
        let mut rhs = vec![Complex32::ZERO; n * n_out];
        for chunk in chunks {
            let first = chunk * ROWS;
            let rows = ROWS.min(self.n_rows() - first);
            for (i, (a, b)) in a
                .chunks_exact_mut(n)
                .zip(b.chunks_exact_mut(n_out))
                .take(rows)
                .enumerate()
            {
                total.weight += self.row(first + i, a, b);
            }
            let a = MatRef::from_row_major_slice(&a[..rows * n], rows, n);
            let b = MatRef::from_row_major_slice(&b[..rows * n_out], rows, n_out);
            triangular::matmul(
                MatMut::from_row_major_slice_mut(&mut gram, n, n),
                TriangularLower,
                Accum::Replace,
                a.adjoint(),
                Rectangular,
                a,
                Rectangular,
                Complex32::ONE,
                Par::Seq,
            );
            matmul(
                MatMut::from_row_major_slice_mut(&mut rhs, n, n_out),
                Accum::Replace,
                a.adjoint(),
                b,
                Complex32::ONE,
                Par::Seq,
            );
            let wide = |v: &Complex32| Complex64::new(f64::from(v.re), f64::from(v.im));
            for (row, (t, g)) in total
                .gram
                .chunks_exact_mut(n)
                .zip(gram.chunks_exact(n))
                .enumerate()
            {
                for (t, g) in t[..=row].iter_mut().zip(g) {
                    *t += wide(g);
                }
            }
            for (t, r) in total.rhs.iter_mut().zip(&rhs) {
                *t += wide(r);
            }
        }
        total
    }
}

/// The block with a line of zeros around it. In 3D, windows that leave the block by a line are many; measured on simulated
/// scans, the weights are better with them, and in 2D they are not.
fn padded(acs: &Acs) -> Acs {
    let old = acs.shape;
    let shape = Shape {
        pe2: old.pe2 + 2,
        pe1: old.pe1 + 2,
        ..old
    };
    let mut samples = vec![Complex32::ZERO; shape.len()];
    for coil in 0..old.coil {
        for k2 in 0..old.pe2 {
            let row = (coil * shape.pe2 + k2 + 1) * shape.pe1 + 1;
            for k1 in 0..old.pe1 {
                samples[(row + k1) * old.ro..][..old.ro].copy_from_slice(acs.line(coil, k2, k1));
            }
        }
    }
    Acs {
        shape,
        dc: [acs.dc[0] + 1, acs.dc[1] + 1, acs.dc[2]],
        block: Block {
            pe2: 0..shape.pe2,
            pe1: 0..shape.pe1,
        },
        ro_range: acs.ro_range.clone(),
        samples,
        ..*acs
    }
}

/// The samples along the readout that calibrate: `wanted` around DC, or so many that a position of the window gives
/// `per_position` equations; all of them for `wanted = 0`. Less at the ends of what was measured.
fn central(acs: &Acs, window_ro: usize, wanted: usize, per_position: usize) -> Range<usize> {
    if wanted == 0 {
        return acs.ro_range.clone();
    }
    let wanted = wanted
        .max(per_position + window_ro - 1)
        .min(acs.ro_range.len());
    let start = acs.dc[2]
        .saturating_sub(wanted / 2)
        .clamp(acs.ro_range.start, acs.ro_range.end - wanted);
    start..start + wanted
}

/// The normal equations by their definition, for tests; lower triangle of the matrix.
#[cfg(test)]
fn reference(
    acs: &Acs,
    window: &Window,
    range: Range<usize>,
    weighting: Weighting,
) -> (Normal, usize) {
    let n_coils = acs.shape.coil;
    let n = window.n_unknowns(n_coils);
    let n_out = window.targets.len() * n_coils;
    let mut normal = Normal {
        gram: vec![Complex64::ZERO; n * n],
        rhs: vec![Complex64::ZERO; n * n_out],
        weight: 0.0,
    };
    let h = window.ro / 2;
    let wide = |v: Complex32| Complex64::new(f64::from(v.re), f64::from(v.im));
    let mut n_equations = 0;
    for (b2, b1) in window.positions(&acs.block) {
        let at = |coil: usize, step: (i64, i64), x: usize| {
            wide(
                acs.line(
                    coil,
                    (b2 as i64 + step.0) as usize,
                    (b1 as i64 + step.1) as usize,
                )[x],
            )
        };
        for x in range.start + h..range.end - h {
            n_equations += 1;
            let mut row = Vec::with_capacity(n);
            for s in &window.sources {
                for i in 0..window.ro {
                    row.extend((0..n_coils).map(|c| at(c, *s, x + i - h)));
                }
            }
            let mut out = Vec::with_capacity(n_out);
            for t in &window.targets {
                out.extend((0..n_coils).map(|c| at(c, *t, x)));
            }
            let energy = row.iter().map(Complex64::norm_sqr).sum::<f64>() / n as f64;
            let weight = match weighting {
                Weighting::Energy if window.is_3d() => 1.0 / energy.sqrt(),
                Weighting::Energy => 1.0 / energy,
                Weighting::None => 1.0,
            };
            normal.weight += weight;
            for u in 0..n {
                for v in 0..=u {
                    normal.gram[u * n + v] += weight * row[u].conj() * row[v];
                }
                for (v, out) in out.iter().enumerate() {
                    normal.rhs[u * n_out + v] += weight * row[u].conj() * out;
                }
            }
        }
    }
    (normal, n_equations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::Rng;
    use crate::num::testing::assert_same_on_any_threads;
    use crate::recon::grappa::GrappaParams;
    use crate::recon::sampling::Lattice;

    fn noise_acs(coil: usize, pe2: usize, pe1: usize, ro: usize) -> Acs {
        let shape = Shape { coil, pe2, pe1, ro };
        Acs {
            shape,
            dc: [pe2 / 2, pe1 / 2, ro / 2],
            block: Block {
                pe2: 0..pe2,
                pe1: 0..pe1,
            },
            ro_range: 0..ro,
            origin: "imaging lines",
            variance: 1.0,
            samples: Rng::new(7).complex(shape.len()),
        }
    }

    fn window(acs: &Acs, lattice: Lattice, params: &GrappaParams) -> Window {
        Window::new(lattice, params, acs.shape.pe2 > 1, &acs.block)
    }

    fn cases() -> Vec<(Acs, Window)> {
        let params = |ro, pe1, pe2| GrappaParams {
            window_ro: ro,
            window_pe1: Some(pe1),
            window_pe2: Some(pe2),
            ..Default::default()
        };
        let lattice = |r1, r2, shift| Lattice {
            r1,
            r2,
            shift,
            o1: 0,
            o2: 0,
        };
        let mut partial = noise_acs(3, 1, 13, 29);
        partial.ro_range = 5..29;
        let case = |acs: Acs, lattice, params| {
            let window = window(&acs, lattice, &params);
            (acs, window)
        };
        vec![
            case(noise_acs(3, 1, 11, 23), lattice(2, 1, 0), params(5, 4, 2)),
            case(noise_acs(2, 1, 14, 17), lattice(4, 1, 0), params(3, 4, 2)),
            case(noise_acs(9, 1, 9, 31), lattice(3, 1, 0), params(1, 2, 2)),
            case(noise_acs(2, 8, 9, 13), lattice(2, 2, 1), params(3, 2, 2)),
            case(noise_acs(2, 7, 9, 13), lattice(1, 3, 0), params(5, 2, 2)),
            case(noise_acs(1, 6, 12, 300), lattice(4, 1, 2), params(7, 2, 2)),
            case(partial, lattice(2, 1, 0), params(5, 4, 2)),
        ]
    }

    /// Parameters with which all of the readout calibrates.
    fn ways() -> Vec<GrappaParams> {
        let way = |calibration_ro, weighting| GrappaParams {
            calibration_ro,
            weighting,
            ..Default::default()
        };
        vec![
            way(0, Weighting::None),
            way(0, Weighting::Energy),
            way(1000, Weighting::Energy),
        ]
    }

    #[test]
    fn products_give_the_normal_equations_of_the_definition() {
        for (acs, window) in cases() {
            for params in ways() {
                let equations = Equations::new(&acs, &window, &params);
                let normal = equations.normal();
                let block = if window.is_3d() {
                    padded(&acs)
                } else {
                    acs.clone()
                };
                let (expected, n) =
                    reference(&block, &window, acs.ro_range.clone(), params.weighting);
                assert_eq!(equations.n_rows(), n);
                assert!((normal.weight / expected.weight - 1.0).abs() < 1e-5);
                let size = equations.n_unknowns;
                let scale = expected.gram[0].re;
                for u in 0..size {
                    for v in 0..=u {
                        let d = (normal.gram[u * size + v] - expected.gram[u * size + v]).norm();
                        assert!(d < 2e-6 * scale, "{window:?} {u} {v}: {d}");
                    }
                }
                for (a, b) in normal.rhs.iter().zip(&expected.rhs) {
                    assert!((a - b).norm() < 2e-6 * scale, "{window:?}");
                }
            }
        }
    }

    #[test]
    fn the_comparison_above_sees_a_missing_conjugate() {
        let (acs, window) = cases().remove(0);
        let normal = Equations::new(&acs, &window, &ways()[0]).normal();
        let (mut twin, _) = reference(&acs, &window, acs.ro_range.clone(), Weighting::None);
        twin.gram.iter_mut().for_each(|v| *v = v.conj());
        let n = window.n_unknowns(acs.shape.coil);
        assert!((normal.gram[n] - twin.gram[n]).norm() > 1e-2 * normal.gram[0].re);
    }

    #[test]
    fn the_middle_of_the_readout_calibrates_and_grows_until_there_are_equations_enough() {
        let mut acs = noise_acs(2, 1, 12, 100);
        assert_eq!(central(&acs, 5, 24, 3), 38..62);
        assert_eq!(central(&acs, 5, 24, 40), 28..72);
        assert_eq!(central(&acs, 5, 24, 400), 0..100);
        assert_eq!(central(&acs, 5, 0, 3), 0..100);
        // An asymmetric echo: DC near the beginning of what was measured.
        acs.ro_range = 45..100;
        assert_eq!(central(&acs, 5, 24, 3), 45..69);
    }

    #[test]
    fn the_automatic_ridge_brings_noise_and_signal_into_the_wanted_proportion() {
        // Pure noise of variance 2 called a signal of 1.5 and a noise of 0.5: outside there is three times as much
        // noise as signal, so that the diagonal must grow to a signal of 1.5 and a noise of 4.5.
        let acs = noise_acs(2, 1, 12, 400);
        let window = window(&acs, cases()[0].1.lattice, &GrappaParams::default());
        let params = GrappaParams {
            calibration_ro: 0,
            weighting: Weighting::None,
            ..Default::default()
        };
        let fit = |noise, energy| {
            let ridge = Ridge::Wiener {
                noise_acs: 0.5,
                noise,
                energy,
            };
            calibrate(&acs, &window, &params, ridge).unwrap().lambda
        };
        let lambda = fit(0.3, 0.1);
        assert!((lambda - 2.0).abs() < 0.1, "{lambda}");
        // Never nothing, and never more than what silences the prediction.
        assert_eq!(fit(1e-9, 1.0), LEAST);
        assert_eq!(fit(1.0, 0.0), MOST);
    }

    #[test]
    fn weights_are_the_same_on_any_number_of_threads() {
        let (acs, window) = cases().remove(1);
        let params = GrappaParams::default();
        assert_same_on_any_threads(|| {
            let weights = calibrate(&acs, &window, &params, Ridge::Relative(1e-3));
            weights.map(|w| w.values).ok()
        });
    }

    #[test]
    fn a_linear_relation_between_lines_is_found() {
        // Every line is twice the line before it: any window predicts it exactly.
        let mut acs = noise_acs(1, 1, 12, 40);
        let first: Vec<Complex32> = acs.line(0, 0, 0).to_vec();
        for l in 0..12 {
            for (x, v) in first.iter().enumerate() {
                acs.samples[l * 40 + x] = v * 1.5f32.powi(l as i32);
            }
        }
        let lattice = Lattice {
            r1: 2,
            ..Lattice::FULL
        };
        let params = GrappaParams {
            window_ro: 1,
            window_pe1: Some(2),
            ..Default::default()
        };
        let window = window(&acs, lattice, &params);
        let w = calibrate(&acs, &window, &params, Ridge::Relative(1e-6)).unwrap();
        // target = 1.5 base, second source = 2.25 base: minimum-norm solution of a + 2.25 b = 1.5.
        let total = w.values[0] + w.values[1] * 2.25;
        assert!((total - 1.5).norm() < 1e-3, "{:?}", w.values);
    }

    #[test]
    fn too_few_lines_are_named() {
        let acs = noise_acs(4, 1, 8, 64);
        let lattice = Lattice {
            r1: 4,
            ..Lattice::FULL
        };
        let params = GrappaParams {
            window_pe1: Some(4),
            ..Default::default()
        };
        let window = window(&acs, lattice, &params);
        let message = calibrate(&acs, &window, &params, Ridge::Relative(1e-3))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("needs 13") && message.contains("found 8"),
            "{message}"
        );
    }

    #[test]
    fn a_dead_coil_without_regularisation_is_an_error_not_a_nan() {
        let mut acs = noise_acs(2, 1, 12, 40);
        acs.samples[12 * 40..].fill(Complex32::ZERO);
        let lattice = Lattice {
            r1: 2,
            ..Lattice::FULL
        };
        let params = GrappaParams::default();
        let window = window(&acs, lattice, &params);
        let fit = |ridge| calibrate(&acs, &window, &params, ridge);
        let singular = fit(Ridge::Relative(0.0));
        assert!(matches!(singular, Err(ReconError::Singular { .. })));
        assert!(fit(Ridge::Relative(1e-6)).is_ok());
    }
}
