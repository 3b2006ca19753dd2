//! Weights that predict missing lines from measured ones, fitted to the calibration block.
//!
//! [`Acs`] + [`Window`] -> [`Weights`]: one regularised normal equation for all targets and coils.
//!
//! # Numerics
//! The window slides, so an entry of the normal matrix is a sum of products of *pairs of lines* at a readout lag, and
//! the same pair serves many entries. Each pair product is calculated once (f32 over at most [`CHUNK`] samples, f64
//! beyond), and an entry whose readout range begins one sample later differs by one product at each end. Sums over
//! lines and the factorisation are f64. The result does not depend on the number of threads.
//!
//! # Source
//! Griswold et al., Magn Reson Med 47:1202-1210 (2002), doi:10.1002/mrm.10171. Unlike the paper, one window serves
//! all missing lines between two measured ones, so that the normal matrix is factorised once.

use faer::linalg::solvers::Solve;
use faer::{Accum, MatMut, MatRef, Par, Side};
use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

use super::window::Window;
use crate::num::complex::{Kernel, dispatch};
use crate::recon::acs::Acs;
use crate::recon::error::ReconError;

/// Samples that are summed in f32.
const CHUNK: usize = 512;

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
    block: &crate::recon::sampling::Block,
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
/// `lambda` is relative to the mean diagonal of the normal matrix.
///
/// # Errors
/// * [`ReconError::Calibration`]: fewer equations than unknowns.
/// * [`ReconError::Singular`]: the factorisation failed.
pub(crate) fn calibrate(acs: &Acs, window: &Window, lambda: f64) -> Result<Weights, ReconError> {
    let n_ro = acs.ro_range.len();
    check(window, &acs.block, acs.shape.coil, n_ro)?;
    let (mut gram, mut rhs, n_equations) = normal_equations(acs, window);
    let n = window.n_unknowns(acs.shape.coil);
    let n_out = window.targets.len() * acs.shape.coil;
    let mean = (0..n).map(|i| gram[i * n + i].re).sum::<f64>() / n as f64;
    for i in 0..n {
        gram[i * n + i] += lambda * mean;
    }
    solve(&gram, &mut rhs, n, n_out)?;
    Ok(Weights {
        window: window.clone(),
        n_coils: acs.shape.coil,
        values: rhs
            .iter()
            .map(|v| Complex32::new(v.re as f32, v.im as f32))
            .collect(),
        n_equations,
    })
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

/// A pair of lines at a readout lag: `sum_x conj(first(x)) second(x + lag)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    first: u32,
    second: u32,
    lag: i32,
}

/// Lines in planar layout: `[line, x, (re, im), coil]`.
struct Planar {
    data: Vec<f32>,
    n_coils: usize,
    n_ro: usize,
    /// First readout sample of the block on the full readout.
    n_pe1: usize,
}

impl Planar {
    fn new(acs: &Acs) -> Self {
        let n_coils = acs.shape.coil;
        let n_ro = acs.ro_range.len();
        let n_lines = acs.shape.pe2 * acs.shape.pe1;
        let mut data = vec![0.0; n_lines * n_ro * 2 * n_coils];
        data.par_chunks_mut((n_ro * 2 * n_coils).max(1))
            .enumerate()
            .for_each(|(l, out)| {
                for coil in 0..n_coils {
                    let line = acs.line(coil, l / acs.shape.pe1, l % acs.shape.pe1);
                    for (x, v) in line[acs.ro_range.clone()].iter().enumerate() {
                        out[x * 2 * n_coils + coil] = v.re;
                        out[(x * 2 + 1) * n_coils + coil] = v.im;
                    }
                }
            });
        Self {
            data,
            n_coils,
            n_ro,
            n_pe1: acs.shape.pe1,
        }
    }

    fn samples(&self, line: u32, x: usize) -> &[f32] {
        let start = (line as usize * self.n_ro + x) * 2 * self.n_coils;
        &self.data[start..]
    }

    /// Adds `sign * conj(first(x)) second(x + lag)` for all coils to `out`.
    fn add_product(&self, pair: Pair, x: usize, sign: f64, out: &mut [Complex64]) {
        let n = self.n_coils;
        let a = self.samples(pair.first, x);
        let b = self.samples(pair.second, (x as i64 + i64::from(pair.lag)) as usize);
        dispatch(Outer { n, a, b, sign, out });
    }
}

/// `out[c, d] += sign * conj(a[c]) b[d]` of planar samples.
struct Outer<'a> {
    n: usize,
    a: &'a [f32],
    b: &'a [f32],
    sign: f64,
    out: &'a mut [Complex64],
}

impl Kernel for Outer<'_> {
    type Out = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let n = self.n;
        let (b_re, b_im) = (&self.b[..n], &self.b[n..2 * n]);
        for (c, out) in self.out.chunks_exact_mut(n).enumerate() {
            let (ar, ai) = (
                self.sign * f64::from(self.a[c]),
                self.sign * f64::from(self.a[n + c]),
            );
            for ((o, br), bi) in out.iter_mut().zip(b_re).zip(b_im) {
                let (br, bi) = (f64::from(*br), f64::from(*bi));
                o.re += ar * br + ai * bi;
                o.im += ar * bi - ai * br;
            }
        }
    }
}

/// Pair product over `len` samples from `x`, `[coil, coil]`: one real product of the planar lines, which holds all
/// four products of real and imaginary parts.
fn pair_product(planar: &Planar, pair: Pair, start: usize, len: usize) -> Vec<Complex64> {
    let n = planar.n_coils;
    let width = 2 * n;
    let mut sum = vec![Complex64::ZERO; n * n];
    let mut part = vec![0.0f32; width * width];
    let parts = len.div_ceil(CHUNK);
    for i in 0..parts {
        let x = start + len * i / parts;
        let rows = start + len * (i + 1) / parts - x;
        let lines = |line, x: i64| {
            let samples = &planar.samples(line, x as usize)[..rows * width];
            MatRef::from_row_major_slice(samples, rows, width)
        };
        faer::linalg::matmul::matmul(
            MatMut::from_row_major_slice_mut(&mut part, width, width),
            Accum::Replace,
            lines(pair.first, x as i64).transpose(),
            lines(pair.second, x as i64 + i64::from(pair.lag)),
            1.0f32,
            Par::Seq,
        );
        let (re, im) = part.split_at(n * width);
        let rows = re.chunks_exact(width).zip(im.chunks_exact(width));
        for (sum, (re, im)) in sum.chunks_exact_mut(n).zip(rows) {
            for (d, o) in sum.iter_mut().enumerate() {
                o.re += f64::from(re[d]) + f64::from(im[n + d]);
                o.im += f64::from(re[n + d]) - f64::from(im[d]);
            }
        }
    }
    sum
}

/// One `coil x coil` block of the normal equations.
struct BlockOf {
    /// Source and readout tap of the row.
    row: (usize, usize),
    /// Source and tap of the column, or the target.
    column: Column,
}

enum Column {
    Source(usize, usize),
    Target(usize),
}

/// `AᴴA`, `AᴴB` and the number of equations.
fn normal_equations(acs: &Acs, window: &Window) -> (Vec<Complex64>, Vec<Complex64>, usize) {
    let planar = Planar::new(acs);
    let positions = window.positions(&acs.block);
    let (w, h) = (window.ro, window.ro / 2);
    let len = planar.n_ro + 1 - w;
    let mut blocks = Vec::new();
    for j in 0..window.sources.len() {
        for i in 0..w {
            for j2 in 0..=j {
                let taps = if j2 == j { i + 1 } else { w };
                blocks.extend((0..taps).map(|i2| BlockOf {
                    row: (j, i),
                    column: Column::Source(j2, i2),
                }));
            }
            blocks.extend((0..window.targets.len()).map(|t| BlockOf {
                row: (j, i),
                column: Column::Target(t),
            }));
        }
    }
    let line = |b: (usize, usize), step: (i64, i64)| {
        ((b.0 as i64 + step.0) * planar.n_pe1 as i64 + b.1 as i64 + step.1) as u32
    };
    // The pair of a block at a position, in the order that is calculated, and whether it was turned round.
    let pair_of = |block: &BlockOf, b: (usize, usize)| {
        let first = line(b, window.sources[block.row.0]);
        let (second, tap) = match block.column {
            Column::Source(j, i) => (line(b, window.sources[j]), i),
            Column::Target(t) => (line(b, window.targets[t]), h),
        };
        let lag = tap as i32 - block.row.1 as i32;
        let is_turned = (second, lag) < (first, 0);
        let pair = if is_turned {
            Pair {
                first: second,
                second: first,
                lag: -lag,
            }
        } else {
            Pair { first, second, lag }
        };
        // Readout sample at which the first line of the pair begins.
        let start = if is_turned { tap } else { block.row.1 };
        (pair, is_turned, start)
    };
    let mut pairs: Vec<Pair> = blocks
        .iter()
        .flat_map(|block| positions.iter().map(|b| pair_of(block, *b).0))
        .collect();
    pairs.sort_unstable();
    pairs.dedup();
    let canonical = |pair: &Pair| (-pair.lag).max(0) as usize;
    let products: Vec<Vec<Complex64>> = pairs
        .par_iter()
        .map(|pair| pair_product(&planar, *pair, canonical(pair), len))
        .collect();
    let n_coils = planar.n_coils;
    let sums: Vec<Vec<Complex64>> = blocks
        .par_iter()
        .map(|block| {
            let mut sum = vec![Complex64::ZERO; n_coils * n_coils];
            let mut turned = vec![Complex64::ZERO; n_coils * n_coils];
            for b in &positions {
                let (pair, is_turned, start) = pair_of(block, *b);
                let out = if is_turned { &mut turned } else { &mut sum };
                if let Ok(at) = pairs.binary_search(&pair) {
                    for (o, v) in out.iter_mut().zip(&products[at]) {
                        *o += v;
                    }
                }
                // The canonical range begins at its own sample: one product less in front, one more behind.
                for x in canonical(&pair)..start {
                    planar.add_product(pair, x, -1.0, out);
                    planar.add_product(pair, x + len, 1.0, out);
                }
            }
            for c in 0..n_coils {
                for d in 0..n_coils {
                    sum[c * n_coils + d] += turned[d * n_coils + c].conj();
                }
            }
            sum
        })
        .collect();
    let n = window.n_unknowns(n_coils);
    let n_out = window.targets.len() * n_coils;
    let mut gram = vec![Complex64::ZERO; n * n];
    let mut rhs = vec![Complex64::ZERO; n * n_out];
    for (block, sum) in blocks.iter().zip(&sums) {
        let row = (block.row.0 * w + block.row.1) * n_coils;
        for c in 0..n_coils {
            let values = &sum[c * n_coils..(c + 1) * n_coils];
            match block.column {
                Column::Source(j, i) => {
                    let at = (row + c) * n + (j * w + i) * n_coils;
                    gram[at..at + n_coils].copy_from_slice(values);
                }
                Column::Target(t) => {
                    let at = (row + c) * n_out + t * n_coils;
                    rhs[at..at + n_coils].copy_from_slice(values);
                }
            }
        }
    }
    (gram, rhs, positions.len() * len)
}

/// The normal equations by their definition, for tests and the feature `check`; lower triangle of the matrix.
#[cfg(test)]
pub(crate) fn reference(acs: &Acs, window: &Window) -> (Vec<Complex64>, Vec<Complex64>, usize) {
    let n_coils = acs.shape.coil;
    let n = window.n_unknowns(n_coils);
    let n_out = window.targets.len() * n_coils;
    let (mut gram, mut rhs) = (
        vec![Complex64::ZERO; n * n],
        vec![Complex64::ZERO; n * n_out],
    );
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
        for x in acs.ro_range.start + h..acs.ro_range.end - h {
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
            for u in 0..n {
                for v in 0..=u {
                    gram[u * n + v] += row[u].conj() * row[v];
                }
                for v in 0..n_out {
                    rhs[u * n_out + v] += row[u].conj() * out[v];
                }
            }
        }
    }
    (gram, rhs, n_equations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Shape;
    use crate::num::rng::Rng;
    use crate::num::testing::assert_same_on_any_threads;
    use crate::recon::grappa::GrappaParams;
    use crate::recon::sampling::{Block, Lattice};

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
            samples: Rng::new(7).complex(shape.len()),
        }
    }

    fn cases() -> Vec<(Acs, Window)> {
        let params = |ro, pe1, pe2| GrappaParams {
            window_ro: ro,
            window_pe1: pe1,
            window_pe2: pe2,
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
        vec![
            (
                noise_acs(3, 1, 11, 23),
                Window::new(lattice(2, 1, 0), &params(5, 4, 2), false),
            ),
            (
                noise_acs(2, 1, 14, 17),
                Window::new(lattice(4, 1, 0), &params(3, 4, 2), false),
            ),
            (
                noise_acs(9, 1, 9, 31),
                Window::new(lattice(3, 1, 0), &params(1, 2, 2), false),
            ),
            (
                noise_acs(2, 8, 9, 13),
                Window::new(lattice(2, 2, 1), &params(3, 2, 2), true),
            ),
            (
                noise_acs(2, 7, 9, 13),
                Window::new(lattice(1, 3, 0), &params(5, 2, 2), true),
            ),
            (
                noise_acs(1, 6, 12, 300),
                Window::new(lattice(4, 1, 2), &params(7, 2, 2), true),
            ),
            (
                partial,
                Window::new(lattice(2, 1, 0), &params(5, 4, 2), false),
            ),
        ]
    }

    #[test]
    fn pair_products_give_the_normal_equations_of_the_definition() {
        for (acs, window) in cases() {
            let (gram, rhs, n) = normal_equations(&acs, &window);
            let (gram_ref, rhs_ref, n_ref) = reference(&acs, &window);
            assert_eq!(n, n_ref);
            let size = window.n_unknowns(acs.shape.coil);
            let scale = gram_ref[0].re;
            for u in 0..size {
                for v in 0..=u {
                    let d = (gram[u * size + v] - gram_ref[u * size + v]).norm();
                    assert!(d < 2e-6 * scale, "{window:?} {u} {v}: {d}");
                }
            }
            for (a, b) in rhs.iter().zip(&rhs_ref) {
                assert!((a - b).norm() < 2e-6 * scale, "{window:?}");
            }
        }
    }

    #[test]
    fn the_comparison_above_sees_a_missing_conjugate() {
        let (acs, window) = cases().remove(0);
        let (gram, _, _) = normal_equations(&acs, &window);
        let (mut twin, _, _) = reference(&acs, &window);
        twin.iter_mut().for_each(|v| *v = v.conj());
        let n = window.n_unknowns(acs.shape.coil);
        assert!((gram[n] - twin[n]).norm() > 1e-2 * gram[0].re);
    }

    #[test]
    fn weights_are_the_same_on_any_number_of_threads() {
        let (acs, window) = cases().remove(1);
        assert_same_on_any_threads(|| calibrate(&acs, &window, 1e-3).map(|w| w.values).ok());
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
            window_pe1: 2,
            ..Default::default()
        };
        let w = calibrate(&acs, &Window::new(lattice, &params, false), 1e-6).unwrap();
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
        let window = Window::new(lattice, &GrappaParams::default(), false);
        let message = calibrate(&acs, &window, 1e-3).unwrap_err().to_string();
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
        let window = Window::new(lattice, &GrappaParams::default(), false);
        assert!(matches!(
            calibrate(&acs, &window, 0.0),
            Err(ReconError::Singular { .. })
        ));
        assert!(calibrate(&acs, &window, 1e-6).is_ok());
    }
}
