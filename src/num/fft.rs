//! Unitary, centred FFT along chosen axes of complex f32 arrays.
//!
//! DC at index `n/2` (integer division) in both domains; forward is image -> k-space with `exp(-2 pi i k x / n)`;
//! both directions are scaled by `1/sqrt(n)`.
//!
//! Eight rows or columns are transformed side by side ([`LaneFft`]); the shifts are where samples are put on the way in
//! and taken from on the way out. Single rows, and lengths with a prime factor beyond `LARGEST_FACTOR` (200), go through
//! `rustfft`. There, with `c = n/2`, `exp(-2 pi i (k-c)(x-c)/n) = after(k) exp(-2 pi i k x / n) before(x)`, where
//! `before` and `after` are phases (for even `n`: signs), and `after` takes the scale along. Plans are made once per
//! process and length.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

use super::complex::{mul_assign, mul_real};
use super::lanes::{
    LANES, LaneFft, Lanes, gather_columns, gather_rows, largest_factor, scatter_columns,
    scatter_rows,
};

/// Direction of a transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Image to k-space.
    Forward,
    /// K-space to image.
    Inverse,
}

impl Direction {
    /// The other one.
    pub fn reverse(self) -> Self {
        match self {
            Self::Forward => Self::Inverse,
            Self::Inverse => Self::Forward,
        }
    }

    fn sign(self) -> f64 {
        match self {
            Self::Forward => -1.0,
            Self::Inverse => 1.0,
        }
    }
}

/// The phases around a plain transform that centre it.
#[derive(Debug)]
enum Centring {
    /// Even lengths: real factors.
    Signs { before: Vec<f32>, after: Vec<f32> },
    /// Odd lengths.
    Phases {
        before: Vec<Complex32>,
        after: Vec<Complex32>,
    },
}

/// Largest prime factor for which eight rows in step, at a cost of `n` times the factor, beat `rustfft`.
const LARGEST_FACTOR: usize = 200;

/// Eight rows in step, and where samples lie in them.
struct Sided {
    fft: Arc<LaneFft>,
    direction: Direction,
    /// Place of each sample on the way in and out.
    places: [Vec<usize>; 2],
    scale: f32,
}

impl Sided {
    fn new(n: usize, direction: Direction) -> Self {
        let fft = LaneFft::plan(n);
        let shifted = || (0..n).map(|i| (i + n - n / 2) % n);
        let sorted = fft.places();
        let (natural, frequencies) = (shifted().collect(), shifted().map(|i| sorted[i]).collect());
        Self {
            fft,
            direction,
            places: match direction {
                Direction::Forward => [natural, frequencies],
                Direction::Inverse => [frequencies, natural],
            },
            scale: (1.0 / (n as f64).sqrt()) as f32,
        }
    }

    fn transform(&self, buffer: &mut [Lanes]) {
        match self.direction {
            Direction::Forward => self.fft.forward(buffer),
            Direction::Inverse => self.fft.inverse(buffer),
        }
    }

    fn rows(&self, rows: &mut [Complex32]) {
        let n = self.fft.len();
        let [before, after] = &self.places;
        let mut buffer = vec![Lanes::ZERO; n];
        for rows in rows.chunks_mut(n * LANES) {
            gather_rows(rows, n, |x| before[x], &mut buffer);
            self.transform(&mut buffer);
            scatter_rows(&buffer, n, |x| after[x], self.scale, rows);
        }
    }

    fn columns(&self, block: &mut [Complex32], inner: usize) {
        let [before, after] = &self.places;
        let mut buffer = vec![Lanes::ZERO; self.fft.len()];
        for first in (0..inner).step_by(LANES) {
            gather_columns(block, inner, first, before, &mut buffer);
            self.transform(&mut buffer);
            scatter_columns(&buffer, after, self.scale, block, inner, first);
        }
    }
}

impl Sided {
    /// [`Sided::columns`] by all threads together.
    fn columns_shared(&self, block: &mut [Complex32], inner: usize) {
        let n = self.fft.len();
        let [before, after] = &self.places;
        let mut columns = vec![Lanes::ZERO; inner.div_ceil(LANES) * n];
        let source: &[Complex32] = block;
        columns
            .par_chunks_mut(n)
            .enumerate()
            .for_each(|(group, columns)| {
                gather_columns(source, inner, group * LANES, before, columns);
                self.transform(columns);
            });
        block
            .par_chunks_mut(inner)
            .zip(after)
            .for_each(|(row, after)| {
                for (row, columns) in row.chunks_mut(LANES).zip(columns.chunks_exact(n)) {
                    columns[*after].scaled(self.scale).store(row);
                }
            });
    }
}

/// A planned centred, unitary 1D transform of length `n`.
#[derive(Clone)]
pub struct Fft {
    n: usize,
    sided: Option<Arc<Sided>>,
    plan: Arc<dyn rustfft::Fft<f32>>,
    centring: Arc<Centring>,
}

impl std::fmt::Debug for Fft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fft({})", self.n)
    }
}

type Plans = Mutex<HashMap<(usize, Direction), Fft>>;

/// Rows per task: about 64 KiB, so that a task outweighs its hand-over, and whole groups of lanes.
fn rows_per_task(n: usize) -> usize {
    (8192 / n.max(1)).clamp(LANES, 64) / LANES * LANES
}

/// Columns that are gathered together: one cache line of complex f32.
const COLUMNS: usize = 8;

impl Fft {
    /// Plans a transform of length `n`, or takes the plan that the process already has.
    pub fn plan(n: usize, direction: Direction) -> Self {
        static PLANS: OnceLock<Plans> = OnceLock::new();
        let plans = PLANS.get_or_init(Plans::default);
        // A thread that panicked while it held the lock left at worst a missing entry: the map itself is sound.
        let mut plans = plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans
            .entry((n, direction))
            .or_insert_with(|| Self::new(n, direction))
            .clone()
    }

    fn new(n: usize, direction: Direction) -> Self {
        let mut planner = rustfft::FftPlanner::new();
        let plan = match direction {
            Direction::Forward => planner.plan_fft_forward(n),
            Direction::Inverse => planner.plan_fft_inverse(n),
        };
        let c = n / 2;
        let phase = |k: usize| {
            let turns = ((k as u64 * c as u64) % n.max(1) as u64) as f64 / n as f64;
            Complex64::cis(-direction.sign() * std::f64::consts::TAU * turns)
        };
        let scale = 1.0 / (n as f64).sqrt();
        let centre = phase(c).conj() * scale;
        let narrow = |v: Complex64| Complex32::new(v.re as f32, v.im as f32);
        let centring = if n.is_multiple_of(2) {
            Centring::Signs {
                before: (0..n).map(|k| phase(k).re.round() as f32).collect(),
                after: (0..n)
                    .map(|k| ((phase(k) * centre).re / scale).round() as f32 * scale as f32)
                    .collect(),
            }
        } else {
            Centring::Phases {
                before: (0..n).map(|k| narrow(phase(k))).collect(),
                after: (0..n).map(|k| narrow(phase(k) * centre)).collect(),
            }
        };
        Self {
            n,
            sided: (1..=LARGEST_FACTOR)
                .contains(&largest_factor(n))
                .then(|| Arc::new(Sided::new(n, direction))),
            plan,
            centring: Arc::new(centring),
        }
    }

    /// Length.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Scratch that [`Fft::run_row`] and [`Fft::run_plain`] need.
    pub fn scratch_len(&self) -> usize {
        self.plan.get_inplace_scratch_len()
    }

    /// Transforms one row of length `n` in place, on this thread.
    pub fn run_row(&self, row: &mut [Complex32], scratch: &mut [Complex32]) {
        self.before(row);
        self.plan.process_with_scratch(row, scratch);
        self.after(row);
    }

    /// Transforms contiguous rows in place *without* centring and scaling: `sum_x exp(-+2 pi i k x / n) v(x)`.
    ///
    /// For solvers that put centring and scale into what they multiply with anyway.
    pub fn run_plain(&self, rows: &mut [Complex32], scratch: &mut [Complex32]) {
        if self.n > 0 {
            self.plan.process_with_scratch(rows, scratch);
        }
    }

    fn before(&self, row: &mut [Complex32]) {
        match &*self.centring {
            Centring::Signs { before, .. } => mul_real(row, before),
            Centring::Phases { before, .. } => mul_assign(row, before),
        }
    }

    fn after(&self, row: &mut [Complex32]) {
        match &*self.centring {
            Centring::Signs { after, .. } => mul_real(row, after),
            Centring::Phases { after, .. } => mul_assign(row, after),
        }
    }

    /// Transforms each contiguous row of length `n` in `rows`, in place, on the current rayon pool.
    pub fn run_rows(&self, rows: &mut [Complex32]) {
        if self.n == 0 {
            return;
        }
        rows.par_chunks_mut(self.n * rows_per_task(self.n))
            .for_each(|block| self.run_rows_here(block));
    }

    /// [`Fft::run_rows`] on this thread alone.
    pub fn run_rows_here(&self, rows: &mut [Complex32]) {
        if self.n == 0 {
            return;
        }
        if let Some(sided) = &self.sided {
            return sided.rows(rows);
        }
        let mut scratch = vec![Complex32::ZERO; self.scratch_len()];
        for row in rows.chunks_exact_mut(self.n) {
            self.run_row(row, &mut scratch);
        }
    }

    /// Transforms along `axis` of a row-major array with extents `dims`, in place, on the current rayon pool.
    pub fn run_axis(&self, data: &mut [Complex32], dims: &[usize], axis: usize) {
        debug_assert_eq!(dims[axis], self.n);
        debug_assert_eq!(dims.iter().product::<usize>(), data.len());
        let inner: usize = dims[axis + 1..].iter().product();
        if data.is_empty() {
            return;
        }
        if inner == 1 {
            return self.run_rows(data);
        }
        let outer = data.len() / (self.n * inner);
        if outer >= 2 * rayon::current_num_threads() || rayon::current_num_threads() == 1 {
            data.par_chunks_mut(self.n * inner)
                .for_each(|block| self.run_columns_here(block, inner));
        } else {
            for block in data.chunks_exact_mut(self.n * inner) {
                self.run_columns_shared(block, inner);
            }
        }
    }

    /// Transforms the columns of `[n, inner]` in place, on this thread: eight columns at a time through a small
    /// buffer, so that memory is touched by whole cache lines.
    pub fn run_columns_here(&self, block: &mut [Complex32], inner: usize) {
        if let Some(sided) = &self.sided {
            return sided.columns(block, inner);
        }
        let n = self.n;
        // A little longer than the column: powers of two would put all eight streams into the same cache sets.
        let pitch = n + COLUMNS;
        let mut buffer = vec![Complex32::ZERO; COLUMNS * pitch];
        let mut scratch = vec![Complex32::ZERO; self.scratch_len()];
        for start in (0..inner).step_by(COLUMNS) {
            let width = COLUMNS.min(inner - start);
            self.gather(block, inner, start, width, &mut buffer, pitch);
            for column in buffer.chunks_exact_mut(pitch).take(width) {
                self.run_row(&mut column[..n], &mut scratch);
            }
            if width == COLUMNS {
                for (k, row) in block.chunks_exact_mut(inner).enumerate() {
                    for (j, v) in row[start..start + COLUMNS].iter_mut().enumerate() {
                        *v = buffer[j * pitch + k];
                    }
                }
            } else {
                for (k, row) in block.chunks_exact_mut(inner).enumerate() {
                    for (j, v) in row[start..start + width].iter_mut().enumerate() {
                        *v = buffer[j * pitch + k];
                    }
                }
            }
        }
    }

    fn gather(
        &self,
        block: &[Complex32],
        inner: usize,
        start: usize,
        width: usize,
        buffer: &mut [Complex32],
        pitch: usize,
    ) {
        if width == COLUMNS {
            for (k, row) in block.chunks_exact(inner).enumerate() {
                for (j, v) in row[start..start + COLUMNS].iter().enumerate() {
                    buffer[j * pitch + k] = *v;
                }
            }
        } else {
            for (k, row) in block.chunks_exact(inner).enumerate() {
                for (j, v) in row[start..start + width].iter().enumerate() {
                    buffer[j * pitch + k] = *v;
                }
            }
        }
    }

    /// As [`Fft::run_columns_here`], by all threads together: through a transposed copy of the block.
    fn run_columns_shared(&self, block: &mut [Complex32], inner: usize) {
        if let Some(sided) = &self.sided {
            return sided.columns_shared(block, inner);
        }
        let n = self.n;
        let mut columns = vec![Complex32::ZERO; block.len()];
        let source: &[Complex32] = block;
        columns
            .par_chunks_mut(n * COLUMNS)
            .enumerate()
            .for_each(|(i, group)| {
                let width = group.len() / n;
                self.gather(source, inner, i * COLUMNS, width, group, n);
                self.run_rows_here(group);
            });
        block
            .par_chunks_mut(inner)
            .enumerate()
            .for_each(|(k, row)| {
                for (i, v) in row.iter_mut().enumerate() {
                    *v = columns[i * n + k];
                }
            });
    }
}

/// Transforms along the last two axes of `[batch, ny, nx]`, in place.
pub fn fft2(data: &mut [Complex32], ny: usize, nx: usize, direction: Direction) {
    if data.is_empty() {
        return;
    }
    let batch = data.len() / (ny * nx);
    let (rows, columns) = (Fft::plan(nx, direction), Fft::plan(ny, direction));
    if batch >= 2 * rayon::current_num_threads() || rayon::current_num_threads() == 1 {
        // One image at a time stays in the cache between its rows and its columns.
        data.par_chunks_mut(ny * nx).for_each(|image| {
            rows.run_rows_here(image);
            columns.run_columns_here(image, nx);
        });
    } else {
        let dims = [batch, ny, nx];
        rows.run_axis(data, &dims, 2);
        columns.run_axis(data, &dims, 1);
    }
}

/// Transforms along the last three axes of `[batch, nz, ny, nx]`, in place.
pub fn fft3(data: &mut [Complex32], nz: usize, ny: usize, nx: usize, direction: Direction) {
    if data.is_empty() {
        return;
    }
    fft2(data, ny, nx, direction);
    if nz > 1 {
        let dims = [data.len() / (nz * ny * nx), nz, ny, nx];
        Fft::plan(nz, direction).run_axis(data, &dims, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::linop::LinOp;
    use crate::num::rng::Rng;
    use crate::num::testing::{
        assert_adjoint, assert_close, assert_linear, assert_same_on_any_threads, assert_unitary,
        nrmse,
    };

    const LENGTHS: [usize; 17] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 16, 17, 30, 31, 97, 320];

    /// The sum of the definition, in `f64`: the oracle.
    fn reference(row: &[Complex32], direction: Direction) -> Vec<Complex32> {
        let n = row.len();
        let c = (n / 2) as i64;
        (0..n)
            .map(|k| {
                let sum: Complex64 = row
                    .iter()
                    .enumerate()
                    .map(|(x, v)| {
                        let turns = ((k as i64 - c) * (x as i64 - c)).rem_euclid(n as i64);
                        let angle =
                            direction.sign() * std::f64::consts::TAU * turns as f64 / n as f64;
                        Complex64::new(v.re.into(), v.im.into()) * Complex64::cis(angle)
                    })
                    .sum();
                let v = sum / (n as f64).sqrt();
                Complex32::new(v.re as f32, v.im as f32)
            })
            .collect()
    }

    #[test]
    fn hand_numbers() {
        // A point at the centre becomes flat; a point one beside it a phase ramp that is 1 at the centre.
        let mut v = [0.0, 0.0, 1.0, 0.0].map(|v| Complex32::new(v, 0.0));
        Fft::plan(4, Direction::Forward).run_rows(&mut v);
        assert_close(&v, &[Complex32::new(0.5, 0.0); 4], 1e-6);
        let mut v = [0.0, 0.0, 0.0, 1.0].map(|v| Complex32::new(v, 0.0));
        Fft::plan(4, Direction::Forward).run_rows(&mut v);
        let i = Complex32::I;
        let one = Complex32::ONE;
        assert_close(&v, &[-one, i, one, -i].map(|v| v * 0.5), 1e-6);
    }

    #[test]
    fn is_the_sum_of_the_definition() {
        for n in LENGTHS {
            for direction in [Direction::Forward, Direction::Inverse] {
                let row = Rng::new(n as u64).complex(n);
                let mut found = row.clone();
                Fft::plan(n, direction).run_rows(&mut found);
                assert_close(&found, &reference(&row, direction), 1e-6);
            }
        }
    }

    #[test]
    fn wrong_twins_are_seen() {
        let row = Rng::new(9).complex(9);
        let right = reference(&row, Direction::Forward);
        assert!(nrmse(&row, &right) > 0.1, "identity");
        assert!(
            nrmse(&reference(&row, Direction::Inverse), &right) > 0.1,
            "missing conjugate"
        );
        let mut shifted = row.clone();
        shifted.rotate_left(1);
        assert!(
            nrmse(&reference(&shifted, Direction::Forward), &right) > 0.1,
            "centre off by one"
        );
    }

    #[test]
    fn every_axis_is_the_row_transform_of_the_transposed() {
        let dims = [2usize, 5, 4, 11];
        let data = Rng::new(4).complex(dims.iter().product());
        for axis in 0..4 {
            let n = dims[axis];
            let inner: usize = dims[axis + 1..].iter().product();
            let mut found = data.clone();
            Fft::plan(n, Direction::Forward).run_axis(&mut found, &dims, axis);
            let mut expected = data.clone();
            for o in 0..data.len() / (n * inner) {
                for i in 0..inner {
                    let at = |k: usize| (o * n + k) * inner + i;
                    let row: Vec<_> = (0..n).map(|k| data[at(k)]).collect();
                    for (k, v) in reference(&row, Direction::Forward).into_iter().enumerate() {
                        expected[at(k)] = v;
                    }
                }
            }
            assert_close(&found, &expected, 1e-6);
        }
    }

    struct Transform {
        dims: [usize; 4],
    }
    impl Transform {
        fn run(&self, from: &[Complex32], to: &mut [Complex32], direction: Direction) {
            to.copy_from_slice(from);
            let [_, z, y, x] = self.dims;
            fft3(to, z, y, x, direction);
        }
    }
    impl LinOp for Transform {
        fn domain(&self) -> usize {
            self.dims.iter().product()
        }
        fn range(&self) -> usize {
            self.domain()
        }
        fn forward(&self, x: &[Complex32], y: &mut [Complex32]) {
            self.run(x, y, Direction::Forward);
        }
        fn adjoint(&self, y: &[Complex32], x: &mut [Complex32]) {
            self.run(y, x, Direction::Inverse);
        }
    }

    #[test]
    fn laws_hold_for_all_shapes() {
        for dims in [
            [1, 1, 1, 1],
            [3, 1, 8, 12],
            [9, 1, 7, 9],
            [2, 3, 5, 7],
            [1, 4, 6, 31],
        ] {
            let op = Transform { dims };
            assert_adjoint(&op, 1e-6);
            assert_linear(&op, 1e-6);
            assert_unitary(&op, 2e-6);
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let data = Rng::new(4).complex(3 * 20 * 33);
        assert_same_on_any_threads(|| {
            let mut v = data.clone();
            fft3(&mut v, 3, 20, 33, Direction::Forward);
            fft2(&mut v, 20, 33, Direction::Forward);
            v
        });
    }

    #[test]
    fn nothing_to_transform_is_no_error() {
        fft2(&mut [], 4, 4, Direction::Forward);
        Fft::plan(0, Direction::Forward).run_rows(&mut []);
    }
}
