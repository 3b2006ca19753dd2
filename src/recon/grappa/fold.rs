//! Unmixing of folded images, the fast way: 2D scans.
//!
//! Lattice lines + [`Weights`] + [`LowRes`] -> combined image and power of its weights. Where the pattern closes over the
//! grid, only transforms of the length of what was measured are made of the data (`n / R` along the phase-encoding
//! axis); the unmixing weights are calculated on the smallest grid that holds their spectra, and both meet in one pass
//! over the columns, eight at a time, so that nothing of the size of all coil images is ever stored.
//!
//! A product in the image is a convolution that wraps round in k-space, knows no measured lines but the pattern's, and
//! fills what was never asked for. Where that is not what [`super::fill`] would have done (calibration lines, the edges
//! of k-space, partial Fourier), the difference of the two is combined while it is still k-space along y, where both it
//! and the low-resolution images have few rows.
//!
//! # Numerics
//! The same image as filling k-space and combining, up to rounding and to windows at the ends of the readout: they see
//! the other end instead of zeros. Coils are summed in order.

use std::sync::{Arc, Mutex};

use num_complex::Complex32;
use rayon::prelude::*;

use super::calibrate::Weights;
use super::cuda::OnCard;
use super::unmix::{coarse_grid, smooth_length, turn, unmixing};
use super::window::Window;
use crate::data::{KSpace, Line};
use crate::num::complex::{Kernel, dispatch, mul};
use crate::num::fft::{Direction, Fft, fft2};
use crate::num::lanes::{LANES, LaneFft, Lanes, add_power, gather_columns, mul_add, mul_in_place};
use crate::recon::combine::low_res::LowRes;
use crate::recon::sampling::{Block, Lattice};

/// Combined image and power of the unmixing weights, `[y, x]`.
pub(crate) struct Unfolded {
    pub(crate) voxels: Vec<Complex32>,
    pub(crate) power: Vec<f32>,
    /// For the next frame with this calibration and pattern, where it was wanted.
    pub(crate) unmixing: Option<Unmixing>,
}

/// All that unmixing needs and the data do not change.
#[derive(Debug)]
pub(crate) struct Unmixing {
    pub(crate) weights: Arc<Weights>,
    pub(super) lines: Vec<Differing>,
    /// Eight columns each.
    pub(super) blocks: Vec<Columns>,
    pub(crate) power: Vec<f32>,
    /// The same on a card, once a frame was unmixed there.
    pub(super) on_card: Mutex<Option<Arc<OnCard>>>,
}

/// Eight columns of the unmixing weights.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// Numerators, `[coil, y]`.
    pub(super) numerators: Vec<Lanes>,
    /// What the sum over coils is multiplied with, `[y]`.
    pub(super) turn: Vec<Lanes>,
    pub(super) beside: BesideColumns,
}

impl Unmixing {
    pub(crate) fn bytes(&self) -> u64 {
        let lanes = |c: &Columns| {
            let beside = c.beside.predictors.len() + c.beside.conjugate.len();
            c.numerators.len() + c.turn.len() + beside
        };
        let lanes: usize = self.blocks.iter().map(lanes).sum();
        let power = size_of_val(self.power.as_slice());
        (lanes * size_of::<Lanes>() + power + size_of_val(self.weights.values.as_slice())) as u64
    }
}

/// Whether [`unfold`] can be used: one phase-encoding axis.
pub(crate) fn applies(kspace: &KSpace, lattice: &Lattice) -> bool {
    kspace.shape.pe2 == 1 && lattice.r2 == 1
}

/// Spectra `[item, row, x]`: transformed along x, still k-space along y.
struct Hybrid {
    rows: usize,
    nx: usize,
    data: Vec<Complex32>,
}

impl Hybrid {
    /// Pads centred spectra `[item, rows, columns]` to `nx` and transforms along x.
    fn new(spectra: &[Complex32], rows: usize, columns: usize, nx: usize) -> Self {
        let mut data = vec![Complex32::ZERO; spectra.len() / columns * nx];
        let fft = Fft::plan(nx, Direction::Inverse);
        let at = nx / 2 - (columns / 2).min(nx / 2);
        data.par_chunks_mut(nx * 8)
            .zip(spectra.par_chunks(columns * 8))
            .for_each(|(out, rows)| {
                for (o, r) in out.chunks_exact_mut(nx).zip(rows.chunks_exact(columns)) {
                    o[at..at + columns].copy_from_slice(r);
                }
                fft.run_rows_here(out);
            });
        Self { rows, nx, data }
    }

    /// Eight neighbours in one row of an item.
    #[inline(always)]
    fn lanes(&self, item: usize, row: usize, x: usize) -> Lanes {
        let start = (item * self.rows + row) * self.nx;
        Lanes::load(&self.data[start + x..start + self.nx])
    }

    /// Columns of one item from `x`, transformed along y into `out`, neither centred nor scaled; `places` says where
    /// each row belongs, and what has no row is zero.
    fn columns(&self, item: usize, x: usize, fft: &LaneFft, places: &[usize], out: &mut [Lanes]) {
        let size = self.rows * self.nx;
        if self.rows < out.len() {
            out.fill(Lanes::ZERO);
        }
        let rows = &self.data[item * size..(item + 1) * size];
        gather_columns(rows, self.nx, x, places, out);
        fft.inverse(out);
    }
}

/// Transform of columns, and the place of every line in them.
struct AlongY {
    fft: Arc<LaneFft>,
    places: Vec<usize>,
}

impl AlongY {
    fn new(n: usize) -> Self {
        let fft = LaneFft::plan(n);
        let places = fft.places();
        Self { fft, places }
    }

    /// Places of lines counted from the centre of k-space, which may leave the grid and wrap round.
    fn places(&self, lines: impl Iterator<Item = i64>) -> Vec<usize> {
        let n = self.places.len() as i64;
        lines
            .map(|line| self.places[line.rem_euclid(n) as usize])
            .collect()
    }

    /// Places of the rows of a centred spectrum whose middle is line `shift`.
    fn centred(&self, spectrum: &Hybrid, shift: i64) -> Vec<usize> {
        let first = shift - (spectrum.rows / 2) as i64;
        self.places(first..first + spectrum.rows as i64)
    }
}

/// The measured lines, transformed along x.
pub(crate) struct Folded {
    /// Lines of the pattern, and those measured beside it.
    pattern: Hybrid,
    beside: Hybrid,
}

impl Folded {
    pub(crate) fn new(kspace: &KSpace, lattice: Lattice) -> Self {
        let on_pattern = |l: &Line| lattice.contains(0, i64::from(l.pe1));
        Self {
            pattern: hybrid_rows(kspace, on_pattern),
            beside: hybrid_rows(kspace, |l| !on_pattern(l)),
        }
    }
}

/// What of the calibration does not need the weights, so that it can be made while they are fitted.
pub(crate) struct Profiles {
    /// Squared root sum of squares of the low-resolution images, over `power_scale`.
    power: Hybrid,
    power_scale: f32,
    reference: Hybrid,
}

impl Profiles {
    pub(crate) fn new(kspace: &KSpace, low: &LowRes) -> Self {
        let (ny, nx) = (kspace.shape.pe1, kspace.shape.ro);
        let (power, power_grid, power_scale) = squared_magnitude(low, ny, nx);
        Self {
            power: Hybrid::new(&power, power_grid[0], power_grid[1], nx),
            power_scale,
            reference: Hybrid::new(&reference_spectrum(low), low.support[1], low.support[2], nx),
        }
    }
}

/// Where folded columns meet the unmixing weights.
struct Meeting {
    long: AlongY,
    short: AlongY,
    /// Length of the short transform.
    m: usize,
    /// Line in the middle of the weights' spectra.
    shift: i64,
    folded_places: Vec<usize>,
}

impl Meeting {
    fn new(kspace: &KSpace, lattice: Lattice, folded: &Hybrid) -> Self {
        let ny = kspace.shape.pe1;
        // Both transforms count voxels from the middle of the grid: there, folding repeats the short one.
        let is_closed = folded.rows * lattice.r1 == ny;
        let m = if is_closed { folded.rows } else { ny };
        let short = AlongY::new(m);
        let (shift, folded_places) = if is_closed {
            let shift = lattice.o1 as i64 + (lattice.r1 * (m / 2)) as i64 - (ny / 2) as i64;
            (shift, short.centred(folded, 0))
        } else {
            let lines = kspace.lines.iter();
            let lines = lines.filter(|l| lattice.contains(0, i64::from(l.pe1)));
            let lines = lines.map(|l| i64::from(l.pe1) - (ny / 2) as i64);
            (0, short.places(lines))
        };
        Self {
            long: AlongY::new(ny),
            short,
            m,
            shift,
            folded_places,
        }
    }

    /// `sum += numerators * folded image` of one coil.
    fn add(
        &self,
        sum: &mut [Lanes],
        numerators: &[Lanes],
        (folded, coil, x): (&Hybrid, usize, usize),
        room: &mut [Lanes],
    ) {
        folded.columns(coil, x, &self.short.fft, &self.folded_places, room);
        let parts = sum.chunks_exact_mut(self.m);
        for (sum, u) in parts.zip(numerators.chunks_exact(self.m)) {
            mul_add(sum, u, room);
        }
    }

    /// Adds what filling makes beyond the wrapped convolution.
    fn add_beside(
        &self,
        sum: &mut [Lanes],
        lines: &[Differing],
        columns: &BesideColumns,
        (folded, x): (&Folded, usize),
        room: &mut [Lanes],
    ) {
        if lines.is_empty() {
            return;
        }
        combine_beside(lines, columns, folded, x, &self.long, room);
        for (sum, v) in sum.iter_mut().zip(&*room) {
            *sum = sum.plus::<false>(1.0, *v);
        }
    }
}

/// Unmixes; call only where [`applies`]. `extent`: the lines that may be filled; `is_kept`: the unmixing weights are
/// wanted for another frame.
pub(crate) fn unfold(
    kspace: &KSpace,
    folded: &Folded,
    profiles: &Profiles,
    weights: &Arc<Weights>,
    low: &LowRes,
    extent: &Block,
    is_kept: bool,
) -> Unfolded {
    let (ny, nx) = (kspace.shape.pe1, kspace.shape.ro);
    let n_coils = kspace.shape.coil;
    let (small, _) = coarse_grid(weights, low, [1, ny, nx]);
    let mut conjugate = low.images(small);
    conjugate.iter_mut().for_each(|v| *v = v.conj());
    let mut numerators = unmixing(weights, &conjugate, small);
    fft2(&mut numerators, small[1], small[2], Direction::Forward);
    let numerators = Hybrid::new(&numerators, small[1], small[2], nx);
    let lines = differing(kspace, &weights.window, extent);
    let beside = (!lines.is_empty()).then(|| Beside::new(nx, weights, low));

    let meeting = Meeting::new(kspace, weights.window.lattice, &folded.pattern);
    let long = &meeting.long;
    let Profiles {
        power,
        power_scale,
        reference,
    } = profiles;
    let numerator_places = long.centred(&numerators, meeting.shift);
    let power_places = long.centred(power, 0);
    let reference_places = long.centred(reference, 0);
    // What the unitary transforms would have scaled with.
    let long_scale = 1.0 / (ny as f32).sqrt();
    let blocks: Vec<(Vec<Lanes>, Vec<[f32; LANES]>, Columns)> = (0..nx.div_ceil(LANES))
        .into_par_iter()
        .map_init(Work::default, |work, block| {
            let x = block * LANES;
            let [u, a, phase] = work.buffers(ny, meeting.m);
            let mut columns = Columns::default();
            let mut sum = vec![Lanes::ZERO; ny];
            let mut gain = vec![[0.0f32; LANES]; ny];
            for coil in 0..n_coils {
                numerators.columns(coil, x, &long.fft, &numerator_places, u);
                add_power(&mut gain, u);
                meeting.add(&mut sum, u, (&folded.pattern, coil, x), a);
                if is_kept {
                    columns.numerators.extend_from_slice(u);
                }
            }
            if let Some(beside) = &beside {
                columns.beside = beside.columns(x);
                meeting.add_beside(&mut sum, &lines, &columns.beside, (folded, x), u);
            }
            power.columns(0, x, &long.fft, &power_places, u);
            reference.columns(0, x, &long.fft, &reference_places, phase);
            dispatch(Normalise {
                gain: &mut gain,
                power: u,
                phase,
                power_scale: long_scale * *power_scale,
                gain_scale: long_scale * long_scale,
                scale: 1.0 / ny as f32,
            });
            mul_in_place(&mut sum, phase);
            if is_kept {
                columns.turn.extend_from_slice(phase);
            }
            (sum, gain, columns)
        })
        .collect();
    let mut power = vec![0.0f32; ny * nx];
    power.par_chunks_mut(nx).enumerate().for_each(|(y, power)| {
        let y = (y + ny - ny / 2) % ny;
        for (power, (_, gain, _)) in power.chunks_mut(LANES).zip(&blocks) {
            power.copy_from_slice(&gain[y][..power.len()]);
        }
    });
    let mut sums = Vec::with_capacity(blocks.len());
    let mut kept = Vec::with_capacity(blocks.len());
    for (sum, _, columns) in blocks {
        sums.push(sum);
        kept.push(columns);
    }
    let unmixing = is_kept.then(|| Unmixing {
        weights: Arc::clone(weights),
        lines,
        blocks: kept,
        power: power.clone(),
        on_card: Mutex::default(),
    });
    Unfolded {
        voxels: in_rows(&sums, ny, nx),
        power,
        unmixing,
    }
}

/// [`unfold`] with weights that are known: the same bits.
pub(crate) fn unfold_known(kspace: &KSpace, folded: &Folded, unmixing: &Unmixing) -> Unfolded {
    let (ny, nx) = (kspace.shape.pe1, kspace.shape.ro);
    let meeting = Meeting::new(kspace, unmixing.weights.window.lattice, &folded.pattern);
    let sums: Vec<Vec<Lanes>> = unmixing
        .blocks
        .par_iter()
        .enumerate()
        .map_init(Work::default, |work, (block, columns)| {
            let x = block * LANES;
            let [room, a, _] = work.buffers(ny, meeting.m);
            let mut sum = vec![Lanes::ZERO; ny];
            for (coil, u) in columns.numerators.chunks_exact(ny).enumerate() {
                meeting.add(&mut sum, u, (&folded.pattern, coil, x), a);
            }
            meeting.add_beside(
                &mut sum,
                &unmixing.lines,
                &columns.beside,
                (folded, x),
                room,
            );
            mul_in_place(&mut sum, &columns.turn);
            sum
        })
        .collect();
    Unfolded {
        voxels: in_rows(&sums, ny, nx),
        power: unmixing.power.clone(),
        unmixing: None,
    }
}

/// Blocks of eight columns, in transform order, to rows with their centre in the middle.
fn in_rows(blocks: &[Vec<Lanes>], ny: usize, nx: usize) -> Vec<Complex32> {
    let mut voxels = vec![Complex32::ZERO; ny * nx];
    voxels.par_chunks_mut(nx).enumerate().for_each(|(y, row)| {
        let y = (y + ny - ny / 2) % ny;
        for (voxels, block) in row.chunks_mut(LANES).zip(blocks) {
            block[y].store(voxels);
        }
    });
    voxels
}

/// Columns that are used again for every block.
#[derive(Default)]
struct Work {
    long: Vec<Lanes>,
    short: Vec<Lanes>,
    phase: Vec<Lanes>,
}

impl Work {
    fn buffers(&mut self, ny: usize, m: usize) -> [&mut [Lanes]; 3] {
        self.long.resize(ny, Lanes::ZERO);
        self.short.resize(m, Lanes::ZERO);
        self.phase.resize(ny, Lanes::ZERO);
        [&mut self.long, &mut self.short, &mut self.phase]
    }
}

/// What makes voxels of combined numerators: one over the root sum of squares of the low-resolution images, with the
/// phase of the reference coil; the gains likewise. Where no coil sees anything, zero.
struct Normalise<'a> {
    gain: &'a mut [[f32; LANES]],
    /// Squared root sum of squares over `power_scale`, real.
    power: &'a [Lanes],
    /// In: the reference. Out: the factor.
    phase: &'a mut [Lanes],
    power_scale: f32,
    gain_scale: f32,
    scale: f32,
}

impl Kernel for Normalise<'_> {
    type Out = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let rows = self.gain.iter_mut().zip(self.power.iter().zip(self.phase));
        for (gain, (power, phase)) in rows {
            #[allow(clippy::needless_range_loop)]
            // lanes share one index: the form that is vectorised
            for l in 0..LANES {
                let p = power.re[l] * self.power_scale;
                let inverse = if p > f32::MIN_POSITIVE { 1.0 / p } else { 0.0 };
                gain[l] *= inverse * self.gain_scale;
                let (re, im) = (phase.re[l], phase.im[l]);
                let norm = (re * re + im * im).sqrt();
                let scale = self.scale * inverse.sqrt();
                let is_phase = norm > f32::MIN_POSITIVE;
                let part = if is_phase { scale / norm } else { scale };
                phase.re[l] = part * if is_phase { re } else { 1.0 };
                phase.im[l] = part * if is_phase { im } else { 0.0 };
            }
        }
    }
}

/// Some measured lines of every coil, transformed along x: `[coil, line, x]`.
fn hybrid_rows(kspace: &KSpace, wanted: impl Fn(&Line) -> bool) -> Hybrid {
    let nx = kspace.shape.ro;
    let lines: Vec<usize> = (0..kspace.lines.len())
        .filter(|&i| wanted(&kspace.lines[i]))
        .collect();
    let rows = lines.len();
    let mut data = vec![Complex32::ZERO; kspace.shape.coil * rows * nx];
    let fft = Fft::plan(nx, Direction::Inverse);
    data.par_chunks_mut(nx * 8)
        .enumerate()
        .for_each(|(block, out)| {
            for (j, row) in out.chunks_exact_mut(nx).enumerate() {
                let i = block * 8 + j;
                row.copy_from_slice(kspace.line(i / rows, lines[i % rows]));
            }
            fft.run_rows_here(out);
        });
    Hybrid { rows, nx, data }
}

/// A line of which the wrapped convolution does not make what filling would.
#[derive(Debug)]
pub(super) struct Differing {
    pub(super) line: usize,
    /// Its row in [`Folded::beside`], if it was measured outside the pattern.
    pub(super) measured: Option<usize>,
    /// Contributions to take away: `target * sources + source`, and the row of the pattern.
    pub(super) terms: Vec<(usize, usize)>,
}

/// What filling makes beyond the wrapped convolution of the pattern's lines.
struct Beside<'a> {
    weights: &'a Weights,
    nx: usize,
    /// Conjugate low-resolution images, `[coil, row, x]`, DC in the middle row.
    conjugate: Hybrid,
}

/// Eight columns of it.
#[derive(Debug, Default)]
pub(super) struct BesideColumns {
    n_coils: usize,
    /// Minus the weights, transformed along the readout: `[target, source, coil_in, coil_out]`.
    pub(super) predictors: Vec<Lanes>,
    /// `[row, coil]`.
    pub(super) conjugate: Vec<Lanes>,
}

impl<'a> Beside<'a> {
    fn new(nx: usize, weights: &'a Weights, low: &LowRes) -> Self {
        // The spectrum of a conjugate image is the conjugate of the reversed spectrum.
        let n: usize = low.support.iter().product();
        let mut spectra = low.spectra.clone();
        for spectrum in spectra.chunks_exact_mut(n) {
            spectrum.reverse();
            spectrum.iter_mut().for_each(|v| *v = v.conj());
        }
        Self {
            weights,
            nx,
            conjugate: Hybrid::new(&spectra, low.support[1], low.support[2], nx),
        }
    }

    fn columns(&self, x: usize) -> BesideColumns {
        let n_coils = self.weights.n_coils;
        BesideColumns {
            n_coils,
            predictors: self.predictors(x),
            conjugate: (0..self.conjugate.rows * n_coils)
                .map(|i| self.conjugate.lanes(i % n_coils, i / n_coils, x))
                .collect(),
        }
    }

    fn predictors(&self, x: usize) -> Vec<Lanes> {
        let (window, n_coils) = (&self.weights.window, self.weights.n_coils);
        let n_out = self.weights.n_outputs();
        let turns: Vec<Lanes> = (0..window.ro)
            .map(|tap| {
                let mut turns = Lanes::ZERO;
                for lane in 0..LANES {
                    let t = turn(tap as i64 - (window.ro / 2) as i64, x + lane, self.nx);
                    turns.set(lane, Complex32::new(-t.re as f32, -t.im as f32));
                }
                turns
            })
            .collect();
        let mut out = vec![Lanes::ZERO; n_out * window.sources.len() * n_coils];
        dispatch(Predictors {
            values: &self.weights.values,
            turns: &turns,
            n_coils,
            n_out,
            out: &mut out,
        });
        out
    }
}

/// The differences times the conjugate images, summed over coils: eight columns from `x`, transformed along y into `out`,
/// as [`Hybrid::columns`] does.
fn combine_beside(
    lines: &[Differing],
    columns: &BesideColumns,
    folded: &Folded,
    x: usize,
    along_y: &AlongY,
    out: &mut [Lanes],
) {
    out.fill(Lanes::ZERO);
    let coils = |line: &Differing| {
        let row = line.measured;
        (0..columns.n_coils)
            .map(move |coil| row.map_or(Lanes::ZERO, |row| folded.beside.lanes(coil, row, x)))
    };
    dispatch(Difference {
        lines,
        columns,
        folded: &folded.pattern,
        x,
        difference: lines.iter().flat_map(coils).collect(),
        places: &along_y.places,
        out,
    });
    along_y.fft.inverse(out);
}

/// The lines that filling ([`super::fill`]) treats otherwise than the wrapped convolution does.
fn differing(kspace: &KSpace, window: &Window, extent: &Block) -> Vec<Differing> {
    let ny = kspace.shape.pe1 as i64;
    let on_pattern = |line: i64| window.lattice.contains(0, line);
    // Rows of the measured lines: of the pattern, and beside it.
    let mut pattern = vec![None; ny as usize];
    let mut beside = vec![None; ny as usize];
    let (mut n_pattern, mut n_beside) = (0, 0);
    for line in &kspace.lines {
        let (rows, n) = if on_pattern(i64::from(line.pe1)) {
            (&mut pattern, &mut n_pattern)
        } else {
            (&mut beside, &mut n_beside)
        };
        rows[line.pe1 as usize] = Some(*n);
        *n += 1;
    }
    let n_sources = window.sources.len();
    (0..ny)
        .filter_map(|line| {
            let at = line as usize;
            let is_measured = pattern[at].is_some() || beside[at].is_some();
            let mut terms = Vec::new();
            for (t, target) in window.targets.iter().enumerate() {
                let base = line - target.1;
                let is_there = |k: i64| (0..ny).contains(&k) && pattern[k as usize].is_some();
                let seen = window
                    .sources
                    .iter()
                    .filter(|s| is_there(base + s.1))
                    .count();
                let is_filled = !is_measured
                    && extent.contains(0, at)
                    && on_pattern(base)
                    && 2 * seen >= n_sources;
                for (s, source) in window.sources.iter().enumerate() {
                    let from = base + source.1;
                    let Some(row) = pattern[from.rem_euclid(ny) as usize] else {
                        continue;
                    };
                    if !(is_filled && (0..ny).contains(&from)) {
                        terms.push((t * n_sources + s, row));
                    }
                }
            }
            let measured = beside[at];
            (measured.is_some() || !terms.is_empty()).then_some(Differing {
                line: at,
                measured,
                terms,
            })
        })
        .collect()
}

/// See [`Beside::predictors`].
struct Predictors<'a> {
    values: &'a [Complex32],
    turns: &'a [Lanes],
    n_coils: usize,
    n_out: usize,
    out: &'a mut [Lanes],
}

impl Kernel for Predictors<'_> {
    type Out = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let (n, w) = (self.n_coils, self.turns.len());
        let n_sources = self.out.len() / (self.n_out * n);
        for (i, out) in self.out.chunks_exact_mut(n).enumerate() {
            let (target, source, coil) = (i / (n_sources * n), i / n % n_sources, i % n);
            for (tap, turn) in self.turns.iter().enumerate() {
                let row = ((source * w + tap) * n + coil) * self.n_out + target * n;
                for (o, v) in out.iter_mut().zip(&self.values[row..row + n]) {
                    *o = o.plus_product::<FMA, false>(Lanes::splat(*v), *turn);
                }
            }
        }
    }
}

/// See [`combine_beside`].
struct Difference<'a> {
    lines: &'a [Differing],
    columns: &'a BesideColumns,
    folded: &'a Hybrid,
    x: usize,
    /// What was measured of the lines, `[line, coil]`; zero otherwise.
    difference: Vec<Lanes>,
    places: &'a [usize],
    out: &'a mut [Lanes],
}

impl Kernel for Difference<'_> {
    type Out = ();

    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        let n = self.columns.n_coils;
        let BesideColumns {
            predictors,
            conjugate,
            ..
        } = self.columns;
        let ny = self.out.len() as i64;
        let half = (conjugate.len() / n / 2) as i64;
        for (line, difference) in self.lines.iter().zip(self.difference.chunks_exact_mut(n)) {
            for &(predictor, row) in &line.terms {
                for coil in 0..n {
                    let from = self.folded.lanes(coil, row, self.x);
                    let at = (predictor * n + coil) * n;
                    for (d, w) in difference.iter_mut().zip(&predictors[at..at + n]) {
                        *d = d.plus_product::<FMA, false>(*w, from);
                    }
                }
            }
            for (j, image) in conjugate.chunks_exact(n).enumerate() {
                let mut sum = Lanes::ZERO;
                for (s, d) in image.iter().zip(&*difference) {
                    sum = sum.plus_product::<FMA, false>(*s, *d);
                }
                let at = (line.line as i64 - ny / 2 + j as i64 - half).rem_euclid(ny) as usize;
                let out = &mut self.out[self.places[at]];
                *out = out.plus::<FMA>(1.0, sum);
            }
        }
    }
}

/// Spectrum of the squared root sum of squares of the low-resolution images, its grid `[y, x]`, and the factor that
/// puts it into the units of a unitary transform of the large grid.
fn squared_magnitude(low: &LowRes, ny: usize, nx: usize) -> (Vec<Complex32>, [usize; 2], f32) {
    let grid: [usize; 2] =
        [(low.support[1], ny), (low.support[2], nx)].map(|(s, n)| smooth_length(2 * s - 1).min(n));
    let images = low.images([1, grid[0], grid[1]]);
    let n = grid[0] * grid[1];
    let mut power = vec![Complex32::ZERO; n];
    for image in images.chunks_exact(n) {
        for (p, s) in power.iter_mut().zip(image) {
            p.re += s.norm_sqr();
        }
    }
    fft2(&mut power, grid[0], grid[1], Direction::Forward);
    (power, grid, (n as f32 / (ny * nx) as f32).sqrt())
}

fn reference_spectrum(low: &LowRes) -> Vec<Complex32> {
    let n: usize = low.support.iter().product();
    let mut out = vec![Complex32::ZERO; n];
    let mut turned = vec![Complex32::ZERO; n];
    for (spectrum, v) in low.spectra.chunks_exact(n).zip(&low.reference) {
        mul(&mut turned, spectrum, &vec![v.conj(); n]);
        for (o, t) in out.iter_mut().zip(&turned) {
            *o += t;
        }
    }
    out
}
