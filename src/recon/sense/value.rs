//! What a column is made of: numbers of eight columns side by side, or of one where the readout is too short for that.

use num_complex::Complex32;

use crate::num::complex;
use crate::num::lanes::{self, LANES, LaneFft, Lanes, gather_rows, scatter_rows};

/// Factors or sums of every problem; a single number uses the first.
pub(super) type PerLane<T> = [T; LANES];

/// One complex number of each of [`Value::WIDTH`] problems.
///
/// Slice operations act element by element, on every problem by itself; real numbers come [`Value::WIDTH`] to an
/// element.
pub(super) trait Value: Copy + Default + PartialEq + Send + Sync + 'static {
    const ZERO: Self;
    /// Problems side by side.
    const WIDTH: usize;
    /// Neighbouring elements that fill [`Lanes`].
    const PACKED: usize = LANES / Self::WIDTH;

    /// Neighbouring columns of `[rows, nx]`; zero beyond the rows' ends.
    fn gather(data: &[Complex32], nx: usize, first: usize) -> Vec<Self>;
    fn store(&self, to: &mut [Complex32]);
    fn get(&self, lane: usize) -> Complex32;
    fn set(&mut self, lane: usize, v: Complex32);
    fn splat(v: Complex32) -> Self;
    /// Up to [`Value::PACKED`] elements; zero beyond the end of `from`.
    fn pack(from: &[Self]) -> Lanes;
    fn unpack(v: &Lanes, to: &mut [Self]);
    /// [`Value::pack`] of every row of `[rows, pitch]`, from `first`.
    fn pack_columns(from: &[Self], pitch: usize, first: usize, to: &mut [Lanes]);
    fn unpack_columns(from: &[Lanes], to: &mut [Self], pitch: usize, first: usize);

    fn mul(out: &mut [Self], a: &[Self], b: &[Self]);
    fn mul_add(out: &mut [Self], a: &[Self], b: &[Self]);
    fn conj_mul_add(out: &mut [Self], a: &[Self], b: &[Self]);
    fn mul_real(a: &mut [Self], b: &[f32]);
    fn axpy(alpha: &PerLane<f32>, x: &[Self], y: &mut [Self]);
    fn xpby(x: &[Self], beta: &PerLane<f32>, y: &mut [Self]);
    fn dot_real(a: &[Self], b: &[Self]) -> PerLane<f64>;
    fn add_power(sums: &mut [f32], v: &[Self]);
    /// `matrix` times `[coil, n]`.
    fn product(matrix: &[Complex32], data: &[Self], n: usize, out: &mut [Self]);

    /// Transforms rows of the plan's length in place, neither centred nor scaled: frequencies in the plan's order.
    fn rows_forward(plan: &LaneFft, rows: &mut [Self]);
    /// The opposite.
    fn rows_inverse(plan: &LaneFft, rows: &mut [Self]);
}

impl Value for Lanes {
    const ZERO: Self = Self::ZERO;
    const WIDTH: usize = LANES;

    fn gather(data: &[Complex32], nx: usize, first: usize) -> Vec<Self> {
        let mut out = vec![Self::ZERO; data.len() / nx];
        lanes::load_columns(data, nx, first, &mut out);
        out
    }
    fn store(&self, to: &mut [Complex32]) {
        self.store(to);
    }
    fn get(&self, lane: usize) -> Complex32 {
        self.get(lane)
    }
    fn set(&mut self, lane: usize, v: Complex32) {
        self.set(lane, v);
    }
    fn splat(v: Complex32) -> Self {
        Self::splat(v)
    }
    fn pack(from: &[Self]) -> Lanes {
        from[0]
    }
    fn unpack(v: &Lanes, to: &mut [Self]) {
        to[0] = *v;
    }
    fn pack_columns(from: &[Self], pitch: usize, first: usize, to: &mut [Lanes]) {
        for (to, row) in to.iter_mut().zip(from.chunks_exact(pitch)) {
            *to = row[first];
        }
    }
    fn unpack_columns(from: &[Lanes], to: &mut [Self], pitch: usize, first: usize) {
        for (from, row) in from.iter().zip(to.chunks_exact_mut(pitch)) {
            row[first] = *from;
        }
    }

    fn mul(out: &mut [Self], a: &[Self], b: &[Self]) {
        lanes::mul(out, a, b);
    }
    fn mul_add(out: &mut [Self], a: &[Self], b: &[Self]) {
        lanes::mul_add(out, a, b);
    }
    fn conj_mul_add(out: &mut [Self], a: &[Self], b: &[Self]) {
        lanes::conj_mul_add(out, a, b);
    }
    fn mul_real(a: &mut [Self], b: &[f32]) {
        lanes::mul_real(a, b.as_chunks().0);
    }
    fn axpy(alpha: &PerLane<f32>, x: &[Self], y: &mut [Self]) {
        lanes::axpy(alpha, x, y);
    }
    fn xpby(x: &[Self], beta: &PerLane<f32>, y: &mut [Self]) {
        lanes::xpby(x, beta, y);
    }
    fn dot_real(a: &[Self], b: &[Self]) -> PerLane<f64> {
        lanes::dot_real(a, b)
    }
    fn add_power(sums: &mut [f32], v: &[Self]) {
        lanes::add_power(sums.as_chunks_mut().0, v);
    }
    fn product(matrix: &[Complex32], data: &[Self], n: usize, out: &mut [Self]) {
        lanes::product(matrix, data, n, out);
    }

    fn rows_forward(plan: &LaneFft, rows: &mut [Self]) {
        rows.chunks_exact_mut(plan.len())
            .for_each(|row| plan.forward(row));
    }
    fn rows_inverse(plan: &LaneFft, rows: &mut [Self]) {
        rows.chunks_exact_mut(plan.len())
            .for_each(|row| plan.inverse(row));
    }
}

impl Value for Complex32 {
    const ZERO: Self = Self::ZERO;
    const WIDTH: usize = 1;

    fn gather(data: &[Complex32], nx: usize, first: usize) -> Vec<Self> {
        data.iter().skip(first).step_by(nx).copied().collect()
    }
    fn store(&self, to: &mut [Complex32]) {
        to[0] = *self;
    }
    fn get(&self, _: usize) -> Complex32 {
        *self
    }
    fn set(&mut self, _: usize, v: Complex32) {
        *self = v;
    }
    fn splat(v: Complex32) -> Self {
        v
    }
    fn pack(from: &[Self]) -> Lanes {
        Lanes::load(from)
    }
    fn unpack(v: &Lanes, to: &mut [Self]) {
        v.store(to);
    }
    fn pack_columns(from: &[Self], pitch: usize, first: usize, to: &mut [Lanes]) {
        lanes::load_columns(from, pitch, first, to);
    }
    fn unpack_columns(from: &[Lanes], to: &mut [Self], pitch: usize, first: usize) {
        lanes::store_columns(from, to, pitch, first);
    }

    fn mul(out: &mut [Self], a: &[Self], b: &[Self]) {
        complex::mul(out, a, b);
    }
    fn mul_add(out: &mut [Self], a: &[Self], b: &[Self]) {
        complex::mul_add(out, a, b);
    }
    fn conj_mul_add(out: &mut [Self], a: &[Self], b: &[Self]) {
        complex::conj_mul_add(out, a, b);
    }
    fn mul_real(a: &mut [Self], b: &[f32]) {
        complex::mul_real(a, b);
    }
    fn axpy(alpha: &PerLane<f32>, x: &[Self], y: &mut [Self]) {
        complex::axpy(alpha[0], x, y);
    }
    fn xpby(x: &[Self], beta: &PerLane<f32>, y: &mut [Self]) {
        complex::xpby(x, beta[0], y);
    }
    fn dot_real(a: &[Self], b: &[Self]) -> PerLane<f64> {
        let mut out = [0.0; LANES];
        out[0] = complex::dot_conj(a, b).re;
        out
    }
    fn add_power(sums: &mut [f32], v: &[Self]) {
        for (s, v) in sums.iter_mut().zip(v) {
            *s += v.norm_sqr();
        }
    }
    fn product(matrix: &[Complex32], data: &[Self], n: usize, out: &mut [Self]) {
        let coils = data.len() / n.max(1);
        let pieces = out.chunks_mut(n.max(1)).zip(matrix.chunks(coils.max(1)));
        for (out, row) in pieces {
            out.fill(Self::ZERO);
            for (m, v) in row.iter().zip(data.chunks_exact(n)) {
                for (o, v) in out.iter_mut().zip(v) {
                    *o += m * v;
                }
            }
        }
    }

    fn rows_forward(plan: &LaneFft, rows: &mut [Self]) {
        in_lanes(plan, rows, LaneFft::forward);
    }
    fn rows_inverse(plan: &LaneFft, rows: &mut [Self]) {
        in_lanes(plan, rows, LaneFft::inverse);
    }
}

/// Eight rows of one problem side by side.
fn in_lanes(plan: &LaneFft, rows: &mut [Complex32], run: impl Fn(&LaneFft, &mut [Lanes])) {
    let n = plan.len();
    let mut buffer = vec![Lanes::ZERO; n];
    for rows in rows.chunks_mut(n * LANES) {
        gather_rows(rows, n, |x| x, &mut buffer);
        run(plan, &mut buffer);
        scatter_rows(&buffer, n, |x| x, 1.0, rows);
    }
}
