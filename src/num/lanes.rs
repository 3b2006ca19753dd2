//! Eight complex numbers side by side, and the Fourier transform of eight rows at once.
//!
//! A transform of eight rows in step needs no shuffles: every butterfly is the same arithmetic on vectors. It runs at
//! several times the speed of transforms one after another, and prime factors cost little.
//!
//! The forward transform leaves frequencies in the order in which its stages produce them ([`LaneFft::order`]), and the
//! inverse takes them in that order: whoever only multiplies in between never sorts.
//!
//! # Numerics
//! `f32`; a lane's result does not depend on what lies in the others.
#![allow(
    clippy::needless_range_loop,
    reason = "lanes share one index: the form that is vectorised"
)]
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use num_complex::Complex32;

use super::complex::{Kernel, dispatch, fma};

/// Numbers side by side.
pub const LANES: usize = 8;

/// Eight complex numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C, align(32))]
pub struct Lanes {
    /// Real parts.
    pub re: [f32; LANES],
    /// Imaginary parts.
    pub im: [f32; LANES],
}

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    for l in 0..LANES {
        out[l] = f(l);
    }
    out
}

#[inline(always)]
fn both(f: impl Fn(&[f32; LANES], usize) -> f32, v: &Lanes) -> Lanes {
    Lanes {
        re: each(|l| f(&v.re, l)),
        im: each(|l| f(&v.im, l)),
    }
}

impl Lanes {
    /// Zeros.
    pub const ZERO: Self = Self {
        re: [0.0; LANES],
        im: [0.0; LANES],
    };

    /// The first eight of `from`; zeros where there are fewer.
    #[inline(always)]
    pub fn load(from: &[Complex32]) -> Self {
        if let Some(from) = from.first_chunk::<LANES>() {
            return Self {
                re: each(|l| from[l].re),
                im: each(|l| from[l].im),
            };
        }
        let mut out = Self::ZERO;
        for (l, v) in from.iter().enumerate() {
            out.set(l, *v);
        }
        out
    }

    /// Writes as many as fit into `to`.
    #[inline(always)]
    pub fn store(&self, to: &mut [Complex32]) {
        if let Some(to) = to.first_chunk_mut::<LANES>() {
            for l in 0..LANES {
                to[l] = self.get(l);
            }
            return;
        }
        for (l, v) in to.iter_mut().enumerate() {
            *v = self.get(l);
        }
    }

    /// One of them.
    #[inline(always)]
    pub fn get(&self, lane: usize) -> Complex32 {
        Complex32::new(self.re[lane], self.im[lane])
    }

    /// Replaces one of them.
    #[inline(always)]
    pub fn set(&mut self, lane: usize, v: Complex32) {
        self.re[lane] = v.re;
        self.im[lane] = v.im;
    }

    /// Eight times the same.
    #[inline(always)]
    pub fn splat(v: Complex32) -> Self {
        Self {
            re: [v.re; LANES],
            im: [v.im; LANES],
        }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Self {
            re: each(|l| self.re[l] + b.re[l]),
            im: each(|l| self.im[l] + b.im[l]),
        }
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Self {
            re: each(|l| self.re[l] - b.re[l]),
            im: each(|l| self.im[l] - b.im[l]),
        }
    }

    /// Times `-i`, or `i` where `INVERSE`.
    #[inline(always)]
    fn turn<const INVERSE: bool>(self) -> Self {
        let minus = |v: [f32; LANES]| each(|l| -v[l]);
        if INVERSE {
            Self {
                re: minus(self.im),
                im: self.re,
            }
        } else {
            Self {
                re: self.im,
                im: minus(self.re),
            }
        }
    }

    /// Times a real number.
    #[inline(always)]
    pub fn scaled(self, s: f32) -> Self {
        both(|v, l| v[l] * s, &self)
    }

    /// Times a real number for every lane.
    #[inline(always)]
    pub(crate) fn times(self, b: [f32; LANES]) -> Self {
        both(|v, l| v[l] * b[l], &self)
    }

    /// `self + s b`.
    #[inline(always)]
    pub(crate) fn plus<const FMA: bool>(self, s: f32, b: Self) -> Self {
        Self {
            re: each(|l| fma::<FMA>(b.re[l], s, self.re[l])),
            im: each(|l| fma::<FMA>(b.im[l], s, self.im[l])),
        }
    }

    /// `self + a b`, or `self + conj(a) b` where `CONJ`.
    #[inline(always)]
    pub(crate) fn plus_product<const FMA: bool, const CONJ: bool>(self, a: Self, b: Self) -> Self {
        let ai = if CONJ { each(|l| -a.im[l]) } else { a.im };
        let re = each(|l| fma::<FMA>(a.re[l], b.re[l], self.re[l]));
        let im = each(|l| fma::<FMA>(a.re[l], b.im[l], self.im[l]));
        Self {
            re: each(|l| fma::<FMA>(-ai[l], b.im[l], re[l])),
            im: each(|l| fma::<FMA>(ai[l], b.re[l], im[l])),
        }
    }

    /// `self - a b`, or `self - conj(a) b` where `CONJ`.
    #[inline(always)]
    pub(crate) fn minus_product<const FMA: bool, const CONJ: bool>(self, a: Self, b: Self) -> Self {
        self.plus_product::<FMA, CONJ>(both(|v, l| -v[l], &a), b)
    }

    /// Times `c + i s`, or `c - i s` where `INVERSE`.
    #[inline(always)]
    fn twiddle<const FMA: bool, const INVERSE: bool>(self, [c, s]: [f32; 2]) -> Self {
        let s = if INVERSE { -s } else { s };
        Self {
            re: each(|l| fma::<FMA>(-self.im[l], s, self.re[l] * c)),
            im: each(|l| fma::<FMA>(self.re[l], s, self.im[l] * c)),
        }
    }
}

/// One stage: blocks of `radix * m` become `radix` blocks of `m`.
#[derive(Debug)]
struct Stage {
    radix: usize,
    m: usize,
    /// `exp(-2 pi i j k / (radix m))` as cosine and sine, `[j, k - 1]`.
    twiddles: Vec<[f32; 2]>,
    /// For other radices than 2 to 5: `cos(2 pi i / radix)`, `sin(2 pi i / radix)`.
    roots: Vec<[f32; 2]>,
}

/// A planned transform of eight rows of length `n`, neither centred nor scaled: forward with `exp(-2 pi i k x / n)`,
/// inverse with the opposite sign.
#[derive(Debug)]
pub struct LaneFft {
    n: usize,
    stages: Vec<Stage>,
    order: Vec<usize>,
}

impl LaneFft {
    /// Plans a transform, or takes the plan that the process already has. Costs `n` times the sum of its factors.
    pub fn plan(n: usize) -> Arc<Self> {
        static PLANS: OnceLock<Mutex<HashMap<usize, Arc<LaneFft>>>> = OnceLock::new();
        let plans = PLANS.get_or_init(Mutex::default);
        // A thread that panicked while it held the lock left at worst a missing entry: the map itself is sound.
        let mut plans = plans.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(plans.entry(n).or_insert_with(|| Arc::new(Self::new(n))))
    }

    fn new(n: usize) -> Self {
        let angle = |k: usize, n: usize| std::f64::consts::TAU * (k % n) as f64 / n as f64;
        let mut stages = Vec::new();
        let mut order = vec![0; n];
        let (mut len, mut step) = (n, 1);
        for radix in radices(n) {
            let m = len / radix;
            let twiddles = (0..m)
                .flat_map(|j| (1..radix).map(move |k| angle(j * k, len)))
                .map(|a| [a.cos() as f32, -a.sin() as f32])
                .collect();
            let roots = (0..if radix > 5 { radix } else { 0 })
                .map(|i| angle(i, radix))
                .map(|a| [a.cos() as f32, a.sin() as f32])
                .collect();
            for (at, frequency) in order.iter_mut().enumerate() {
                *frequency += at / m % radix * step;
            }
            stages.push(Stage {
                radix,
                m,
                twiddles,
                roots,
            });
            (len, step) = (m, step * radix);
        }
        Self { n, stages, order }
    }

    /// Length.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// The frequency, `0..n`, at each place of a transformed row.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The inverse of [`LaneFft::order`]: the place of each frequency.
    pub fn places(&self) -> Vec<usize> {
        let mut places = vec![0; self.n];
        for (place, frequency) in self.order.iter().enumerate() {
            places[*frequency] = place;
        }
        places
    }

    /// Transforms `data`, one row of `n` lanes, in place; frequencies come out in [`LaneFft::order`].
    pub fn forward(&self, data: &mut [Lanes]) {
        debug_assert_eq!(data.len(), self.n);
        dispatch(Run::<false> { fft: self, data });
    }

    /// Transforms frequencies in [`LaneFft::order`] back, in place, without scale.
    pub fn inverse(&self, data: &mut [Lanes]) {
        debug_assert_eq!(data.len(), self.n);
        dispatch(Run::<true> { fft: self, data });
    }
}

/// The largest prime factor.
pub fn largest_factor(n: usize) -> usize {
    radices(n).into_iter().max().unwrap_or(1)
}

/// Radices of the stages: odd primes, then 2 and 4, so that the last stage, which turns nothing, is the most frequent.
fn radices(mut n: usize) -> Vec<usize> {
    let twos = if n == 0 { 0 } else { n.trailing_zeros() };
    n >>= twos;
    let mut out = Vec::new();
    let mut p = 3;
    while n > 1 {
        if p * p > n {
            p = n; // what is left is prime
        }
        while n.is_multiple_of(p) {
            out.push(p);
            n /= p;
        }
        p += 2;
    }
    out.reverse();
    out.extend((0..twos % 2).map(|_| 2));
    out.extend((0..twos / 2).map(|_| 4));
    out
}

struct Run<'a, const INVERSE: bool> {
    fft: &'a LaneFft,
    data: &'a mut [Lanes],
}

impl<const INVERSE: bool> Kernel for Run<'_, INVERSE> {
    type Out = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let n = self.fft.stages.len();
        for i in 0..n {
            let s = &self.fft.stages[if INVERSE { n - 1 - i } else { i }];
            match s.radix {
                2 => stage::<FMA, INVERSE, 2>(s, self.data),
                3 => stage::<FMA, INVERSE, 3>(s, self.data),
                4 => stage::<FMA, INVERSE, 4>(s, self.data),
                5 => stage::<FMA, INVERSE, 5>(s, self.data),
                _ => prime_stage::<FMA, INVERSE>(s, self.data),
            }
        }
    }
}

#[inline(always)]
fn stage<const FMA: bool, const INVERSE: bool, const R: usize>(s: &Stage, data: &mut [Lanes]) {
    let m = s.m;
    for block in data.chunks_exact_mut(R * m) {
        for j in 0..m {
            let mut x = [Lanes::ZERO; R];
            for q in 0..R {
                x[q] = block[j + q * m];
            }
            let twiddles = &s.twiddles[j * (R - 1)..(j + 1) * (R - 1)];
            if INVERSE && m > 1 {
                for q in 1..R {
                    x[q] = x[q].twiddle::<FMA, true>(twiddles[q - 1]);
                }
            }
            let mut y = butterfly::<FMA, INVERSE, R>(x);
            if !INVERSE && m > 1 {
                for q in 1..R {
                    y[q] = y[q].twiddle::<FMA, false>(twiddles[q - 1]);
                }
            }
            for q in 0..R {
                block[j + q * m] = y[q];
            }
        }
    }
}

#[inline(always)]
fn butterfly<const FMA: bool, const INVERSE: bool, const R: usize>(x: [Lanes; R]) -> [Lanes; R] {
    let mut y = x;
    match R {
        2 => {
            y[0] = x[0].add(x[1]);
            y[1] = x[0].sub(x[1]);
        }
        3 => {
            const SIN: f32 = 0.866_025_4;
            let sum = x[1].add(x[2]);
            let turned = x[1].sub(x[2]).turn::<INVERSE>();
            let middle = x[0].plus::<FMA>(-0.5, sum);
            y[0] = x[0].add(sum);
            y[1] = middle.plus::<FMA>(SIN, turned);
            y[2] = middle.plus::<FMA>(-SIN, turned);
        }
        4 => {
            let (a, b) = (x[0].add(x[2]), x[0].sub(x[2]));
            let (c, d) = (x[1].add(x[3]), x[1].sub(x[3]).turn::<INVERSE>());
            y[0] = a.add(c);
            y[1] = b.add(d);
            y[2] = a.sub(c);
            y[3] = b.sub(d);
        }
        5 => {
            const COS: [f32; 2] = [0.309_017, -0.809_017];
            const SIN: [f32; 2] = [0.951_056_5, 0.587_785_25];
            let (s1, s2) = (x[1].add(x[4]), x[2].add(x[3]));
            let (d1, d2) = (
                x[1].sub(x[4]).turn::<INVERSE>(),
                x[2].sub(x[3]).turn::<INVERSE>(),
            );
            let m1 = x[0].plus::<FMA>(COS[0], s1).plus::<FMA>(COS[1], s2);
            let m2 = x[0].plus::<FMA>(COS[1], s1).plus::<FMA>(COS[0], s2);
            let e1 = d1.scaled(SIN[0]).plus::<FMA>(SIN[1], d2);
            let e2 = d1.scaled(SIN[1]).plus::<FMA>(-SIN[0], d2);
            y[0] = x[0].add(s1).add(s2);
            y[1] = m1.add(e1);
            y[2] = m2.add(e2);
            y[3] = m2.sub(e2);
            y[4] = m1.sub(e1);
        }
        _ => {}
    }
    y
}

/// A stage of any odd radix by its definition, with the symmetry of cosine and sine: a quarter of the products.
#[inline(always)]
fn prime_stage<const FMA: bool, const INVERSE: bool>(s: &Stage, data: &mut [Lanes]) {
    let (p, m) = (s.radix, s.m);
    let half = p / 2;
    // x(q) + x(p - q), and the difference turned.
    let mut pairs = vec![[Lanes::ZERO; 2]; half];
    for block in data.chunks_exact_mut(p * m) {
        for j in 0..m {
            let twiddles = &s.twiddles[j * (p - 1)..(j + 1) * (p - 1)];
            let x0 = block[j];
            let mut sum = x0;
            for (q, pair) in (1..).zip(pairs.iter_mut()) {
                let mut a = block[j + q * m];
                let mut b = block[j + (p - q) * m];
                if INVERSE {
                    a = a.twiddle::<FMA, true>(twiddles[q - 1]);
                    b = b.twiddle::<FMA, true>(twiddles[p - q - 1]);
                }
                *pair = [a.add(b), a.sub(b).turn::<INVERSE>()];
                sum = sum.add(pair[0]);
            }
            block[j] = sum;
            // Two frequencies at a time, so that a pair that is loaded serves both.
            for k in (1..=half).step_by(2) {
                let (k0, k1) = (k, (k + 1).min(half));
                let (mut c0, mut c1) = (x0, x0);
                let (mut s0, mut s1) = (Lanes::ZERO, Lanes::ZERO);
                let (mut i0, mut i1) = (0, 0);
                for pair in &pairs {
                    i0 += k0;
                    i0 -= if i0 >= p { p } else { 0 };
                    i1 += k1;
                    i1 -= if i1 >= p { p } else { 0 };
                    let (r0, r1) = (s.roots[i0], s.roots[i1]);
                    c0 = c0.plus::<FMA>(r0[0], pair[0]);
                    s0 = s0.plus::<FMA>(r0[1], pair[1]);
                    c1 = c1.plus::<FMA>(r1[0], pair[0]);
                    s1 = s1.plus::<FMA>(r1[1], pair[1]);
                }
                for (k, c, s) in [(k0, c0, s0), (k1, c1, s1)] {
                    let (mut a, mut b) = (c.add(s), c.sub(s));
                    if !INVERSE {
                        a = a.twiddle::<FMA, false>(twiddles[k - 1]);
                        b = b.twiddle::<FMA, false>(twiddles[p - k - 1]);
                    }
                    block[j + k * m] = a;
                    block[j + (p - k) * m] = b;
                }
            }
        }
    }
}

/// A slice operation compiled twice, as [`Kernel`] says.
macro_rules! slice_kernel {
    ($(#[$doc:meta])* $name:ident = $kernel:ident($($arg:ident: $ty:ty),*) -> $out:ty $body:block) => {
        struct $kernel<'a> {
            $($arg: $ty,)*
        }
        impl Kernel for $kernel<'_> {
            type Out = $out;
            #[inline(always)]
            fn run<const FMA: bool>(self) -> $out {
                let Self { $($arg),* } = self;
                $body
            }
        }
        $(#[$doc])*
        pub fn $name<'a>($($arg: $ty),*) -> $out {
            dispatch($kernel { $($arg),* })
        }
    };
}

slice_kernel!(
    /// `out = a b`, element by element, over the shortest.
    mul = Mul(out: &'a mut [Lanes], a: &'a [Lanes], b: &'a [Lanes]) -> () {
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            *o = Lanes::ZERO.plus_product::<FMA, false>(*a, *b);
        }
    }
);
slice_kernel!(
    /// `a *= b`, element by element, over the shorter.
    mul_in_place = MulInPlace(a: &'a mut [Lanes], b: &'a [Lanes]) -> () {
        for (a, b) in a.iter_mut().zip(b) {
            *a = Lanes::ZERO.plus_product::<FMA, false>(*a, *b);
        }
    }
);
slice_kernel!(
    /// `out += a b`, element by element, over the shortest.
    mul_add = MulAdd(out: &'a mut [Lanes], a: &'a [Lanes], b: &'a [Lanes]) -> () {
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            *o = o.plus_product::<FMA, false>(*a, *b);
        }
    }
);
slice_kernel!(
    /// `out += conj(a) b`, element by element, over the shortest.
    conj_mul_add = ConjMulAdd(out: &'a mut [Lanes], a: &'a [Lanes], b: &'a [Lanes]) -> () {
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            *o = o.plus_product::<FMA, true>(*a, *b);
        }
    }
);
slice_kernel!(
    /// Multiplies each element by its factor, the same for all lanes, over the shorter.
    mul_each = MulEach(data: &'a mut [Lanes], by: &'a [Complex32]) -> () {
        for (v, b) in data.iter_mut().zip(by) {
            *v = Lanes::ZERO.plus::<FMA>(b.re, *v).plus::<FMA>(b.im, v.turn::<true>());
        }
    }
);
slice_kernel!(
    /// `sums[i] = scale sums[i] + from[place[i]]`, over the shorter.
    sum_of_places = SumOfPlaces(
        sums: &'a mut [Lanes], scale: f32, from: &'a [Lanes], place: &'a [usize]
    ) -> () {
        for (s, place) in sums.iter_mut().zip(place) {
            *s = from[*place].plus::<FMA>(scale, *s);
        }
    }
);
slice_kernel!(
    /// `a *= b` with real `b`, element by element, over the shorter.
    mul_real = MulReal(a: &'a mut [Lanes], b: &'a [[f32; LANES]]) -> () {
        for (a, b) in a.iter_mut().zip(b) {
            *a = a.times(*b);
        }
    }
);
slice_kernel!(
    /// `y += alpha x` with a real factor for every lane, over the shorter.
    axpy = Axpy(alpha: &'a [f32; LANES], x: &'a [Lanes], y: &'a mut [Lanes]) -> () {
        for (x, y) in x.iter().zip(y) {
            y.re = each(|l| fma::<FMA>(alpha[l], x.re[l], y.re[l]));
            y.im = each(|l| fma::<FMA>(alpha[l], x.im[l], y.im[l]));
        }
    }
);
slice_kernel!(
    /// `y = x + beta y` with a real factor for every lane, over the shorter.
    xpby = Xpby(x: &'a [Lanes], beta: &'a [f32; LANES], y: &'a mut [Lanes]) -> () {
        for (x, y) in x.iter().zip(y) {
            y.re = each(|l| fma::<FMA>(beta[l], y.re[l], x.re[l]));
            y.im = each(|l| fma::<FMA>(beta[l], y.im[l], x.im[l]));
        }
    }
);
slice_kernel!(
    /// Real part of `sum(conj(a) b)` of every lane in `f64`, over the shorter.
    dot_real = DotReal(a: &'a [Lanes], b: &'a [Lanes]) -> [f64; LANES] {
        let mut re = [0.0f64; LANES];
        let mut im = [0.0f64; LANES];
        for (a, b) in a.iter().zip(b) {
            for l in 0..LANES {
                re[l] += f64::from(a.re[l]) * f64::from(b.re[l]);
                im[l] += f64::from(a.im[l]) * f64::from(b.im[l]);
            }
        }
        for l in 0..LANES {
            re[l] += im[l];
        }
        re
    }
);
slice_kernel!(
    /// `sums += |v|^2`, element by element, over the shorter.
    add_power = AddPower(sums: &'a mut [[f32; LANES]], v: &'a [Lanes]) -> () {
        for (s, v) in sums.iter_mut().zip(v) {
            *s = each(|l| fma::<FMA>(v.re[l], v.re[l], fma::<FMA>(v.im[l], v.im[l], s[l])));
        }
    }
);
slice_kernel!(
    /// `out[i] = sum_j matrix[i, j] data[j]` for `[j, n]` to `[i, n]`, with one matrix for all lanes.
    product = Product(matrix: &'a [Complex32], data: &'a [Lanes], n: usize, out: &'a mut [Lanes]) -> () {
        // Rows of the result that share what is loaded.
        const TILE: usize = 3;
        let columns = data.len() / n.max(1);
        for (t, out) in out.chunks_mut(TILE * n).enumerate() {
            let height = out.len() / n;
            for at in 0..n {
                let mut sum = [Lanes::ZERO; TILE];
                for j in 0..columns {
                    let v = data[j * n + at];
                    for (i, s) in sum.iter_mut().enumerate() {
                        let m = matrix[(t * TILE + i.min(height - 1)) * columns + j];
                        *s = s.plus::<FMA>(m.re, v).plus::<FMA>(m.im, v.turn::<true>());
                    }
                }
                for i in 0..height {
                    out[i * n + at] = sum[i];
                }
            }
        }
    }
);

slice_kernel!(
    /// Up to eight neighbouring columns of `[rows, pitch]`, from `first`, side by side; zero beyond the rows' ends.
    load_columns = LoadColumns(
        data: &'a [Complex32], pitch: usize, first: usize, to: &'a mut [Lanes]
    ) -> () {
        for (row, to) in data.chunks_exact(pitch).zip(to) {
            *to = Lanes::load(&row[first..]);
        }
    }
);
slice_kernel!(
    /// The opposite of [`load_columns`].
    store_columns = StoreColumns(
        from: &'a [Lanes], data: &'a mut [Complex32], pitch: usize, first: usize
    ) -> () {
        for (row, from) in data.chunks_exact_mut(pitch).zip(from) {
            let count = (pitch - first).min(LANES);
            from.store(&mut row[first..first + count]);
        }
    }
);
slice_kernel!(
    /// As [`load_columns`], but row `k` goes to `to[place[k]]`.
    gather_columns = GatherColumns(
        data: &'a [Complex32], pitch: usize, first: usize, place: &'a [usize], to: &'a mut [Lanes]
    ) -> () {
        for (row, place) in data.chunks_exact(pitch).zip(place) {
            to[*place] = Lanes::load(&row[first..]);
        }
    }
);
slice_kernel!(
    /// The opposite of [`gather_columns`], times `scale`.
    scatter_columns = ScatterColumns(
        from: &'a [Lanes], place: &'a [usize], scale: f32, data: &'a mut [Complex32], pitch: usize, first: usize
    ) -> () {
        for (row, place) in data.chunks_exact_mut(pitch).zip(place) {
            let row = &mut row[first..];
            let count = row.len().min(LANES);
            from[*place].scaled(scale).store(&mut row[..count]);
        }
    }
);

/// Rows side by side: `to[place(x)]` gets sample `x` of up to eight contiguous rows of length `n`.
#[inline]
pub fn gather_rows(rows: &[Complex32], n: usize, place: impl Fn(usize) -> usize, to: &mut [Lanes]) {
    let mut first = 0;
    #[cfg(target_arch = "x86_64")]
    if super::complex::has_avx2() {
        // SAFETY: AVX2, which the function requires, was found on this machine.
        unsafe { avx2::gather_rows(rows, n, &place, to) };
        first = n / 4 * 4;
    }
    for x in first..n {
        let v = &mut to[place(x)];
        *v = Lanes::ZERO;
        for (l, row) in rows.chunks_exact(n).enumerate() {
            v.set(l, row[x]);
        }
    }
}

/// Rows one after another again: sample `x` is `scale * from[place(x)]`.
#[inline]
pub fn scatter_rows(
    from: &[Lanes],
    n: usize,
    place: impl Fn(usize) -> usize,
    scale: f32,
    rows: &mut [Complex32],
) {
    let mut first = 0;
    #[cfg(target_arch = "x86_64")]
    if super::complex::has_avx2() {
        // SAFETY: AVX2, which the function requires, was found on this machine.
        unsafe { avx2::scatter_rows(from, n, &place, scale, rows) };
        first = n / 4 * 4;
    }
    for x in first..n {
        let v = from[place(x)];
        for (l, row) in rows.chunks_exact_mut(n).enumerate() {
            row[x] = v.get(l) * scale;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{Complex32, LANES, Lanes};

    /// Transposes eight vectors of eight.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn transpose(r: [__m256; 8]) -> [__m256; 8] {
        let pairs = |a, b| (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let quads = |a, b| {
            (
                _mm256_shuffle_ps::<0x44>(a, b),
                _mm256_shuffle_ps::<0xee>(a, b),
            )
        };
        let ((a0, a1), (a2, a3)) = (pairs(r[0], r[1]), pairs(r[2], r[3]));
        let ((a4, a5), (a6, a7)) = (pairs(r[4], r[5]), pairs(r[6], r[7]));
        let ((b0, b1), (b2, b3)) = (quads(a0, a2), quads(a1, a3));
        let ((b4, b5), (b6, b7)) = (quads(a4, a6), quads(a5, a7));
        let low = |a, b| _mm256_permute2f128_ps::<0x20>(a, b);
        let high = |a, b| _mm256_permute2f128_ps::<0x31>(a, b);
        [
            low(b0, b4),
            low(b1, b5),
            low(b2, b6),
            low(b3, b7),
            high(b0, b4),
            high(b1, b5),
            high(b2, b6),
            high(b3, b7),
        ]
    }

    /// [`super::gather_rows`] for whole groups of four samples.
    #[target_feature(enable = "avx2")]
    pub(super) fn gather_rows(
        rows: &[Complex32],
        n: usize,
        place: impl Fn(usize) -> usize,
        to: &mut [Lanes],
    ) {
        for x in 0..n / 4 {
            let four = |l: usize| match rows.get(l * n..(l + 1) * n) {
                Some(row) => &row.as_chunks::<4>().0[x],
                None => &[Complex32::ZERO; 4],
            };
            for (i, v) in columns(std::array::from_fn(four)).into_iter().enumerate() {
                to[place(4 * x + i)] = v;
            }
        }
    }

    /// [`super::scatter_rows`] for whole groups of four samples.
    #[target_feature(enable = "avx2")]
    pub(super) fn scatter_rows(
        from: &[Lanes],
        n: usize,
        place: impl Fn(usize) -> usize,
        scale: f32,
        to: &mut [Complex32],
    ) {
        for x in 0..n / 4 {
            let four = rows(std::array::from_fn(|i| from[place(4 * x + i)]), scale);
            for (row, v) in to.chunks_exact_mut(n).zip(&four) {
                row[4 * x..4 * x + 4].copy_from_slice(v);
            }
        }
    }

    /// Four samples of eight rows, side by side.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn columns(rows: [&[Complex32; 4]; LANES]) -> [Lanes; 4] {
        // SAFETY: four complex values (`repr(C)`, two `f32` each) are the 32 bytes that an unaligned load reads.
        let t = transpose(rows.map(|r| unsafe { _mm256_loadu_ps(r.as_ptr().cast()) }));
        let mut out = [Lanes::ZERO; 4];
        for (x, v) in out.iter_mut().enumerate() {
            // SAFETY: each part holds the eight values that the unaligned store writes.
            unsafe {
                _mm256_storeu_ps(v.re.as_mut_ptr(), t[2 * x]);
                _mm256_storeu_ps(v.im.as_mut_ptr(), t[2 * x + 1]);
            }
        }
        out
    }

    /// The opposite of [`columns`], times `scale`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn rows(columns: [Lanes; 4], scale: f32) -> [[Complex32; 4]; LANES] {
        let s = _mm256_set1_ps(scale);
        // SAFETY: each part holds the eight values that an unaligned load reads.
        let load = |v: &[f32; LANES]| unsafe { _mm256_mul_ps(_mm256_loadu_ps(v.as_ptr()), s) };
        let [a, b, c, d] = columns;
        let t = transpose([
            load(&a.re),
            load(&a.im),
            load(&b.re),
            load(&b.im),
            load(&c.re),
            load(&c.im),
            load(&d.re),
            load(&d.im),
        ]);
        t.map(|v| {
            let mut out = [Complex32::ZERO; 4];
            // SAFETY: four complex values are the 32 bytes that the unaligned store writes.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr().cast(), v) };
            out
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::Rng;
    use crate::num::testing::{assert_close, nrmse};
    use num_complex::Complex64;

    const LENGTHS: [usize; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 30, 45, 97, 131, 165, 320];

    fn rows_of(data: &[Lanes]) -> Vec<Complex32> {
        (0..LANES)
            .flat_map(|l| data.iter().map(move |v| v.get(l)))
            .collect()
    }

    fn some(n: usize) -> Vec<Lanes> {
        let v = Rng::new(n as u64).complex(n * LANES);
        v.chunks(LANES).map(Lanes::load).collect()
    }

    /// The sum of the definition, in `f64`, at the frequencies of `order`.
    fn reference(data: &[Lanes], order: &[usize]) -> Vec<Complex32> {
        let n = data.len();
        rows_of(data)
            .chunks(n)
            .flat_map(|row| {
                order.iter().map(|k| {
                    let sum: Complex64 = (0..n)
                        .map(|x| {
                            let turns = (k * x % n) as f64 / n as f64;
                            let v = Complex64::new(row[x].re.into(), row[x].im.into());
                            v * Complex64::cis(-std::f64::consts::TAU * turns)
                        })
                        .sum();
                    Complex32::new(sum.re as f32, sum.im as f32)
                })
            })
            .collect()
    }

    #[test]
    fn forward_is_the_sum_of_the_definition_and_inverse_takes_it_back() {
        for n in LENGTHS {
            let fft = LaneFft::plan(n);
            let data = some(n);
            let mut found = data.clone();
            fft.forward(&mut found);
            let expected = reference(&data, fft.order());
            assert_close(&rows_of(&found), &expected, 1e-6);
            for (frequency, place) in fft.places().into_iter().enumerate() {
                assert_eq!(fft.order()[place], frequency);
            }
            if n > 3 {
                // Wrong twin: frequencies taken as if they were sorted, or a lane of a neighbour.
                let mut order = fft.order().to_vec();
                order.swap(1, n - 1);
                assert!(nrmse(&rows_of(&found), &reference(&data, &order)) > 0.1);
            }
            fft.inverse(&mut found);
            let back: Vec<Complex32> = rows_of(&found).iter().map(|v| v / n as f32).collect();
            assert_close(&back, &rows_of(&data), 1e-6);
        }
    }

    #[test]
    fn rows_go_in_and_out() {
        for (n, height) in [(1, 8), (6, 8), (9, 3), (16, 8), (13, 8), (5, 1)] {
            let rows = Rng::new(3).complex(n * height);
            let place: Vec<usize> = (0..n).map(|x| (x + n / 2) % n).collect();
            let mut lanes = vec![Lanes::splat(Complex32::ONE); n];
            gather_rows(&rows, n, |x| place[x], &mut lanes);
            for (x, p) in place.iter().enumerate() {
                for l in 0..LANES {
                    let expected = rows.chunks(n).nth(l).map_or(Complex32::ZERO, |r| r[x]);
                    assert_eq!(lanes[*p].get(l), expected, "{n} {height}");
                }
            }
            let mut back = vec![Complex32::ZERO; n * height];
            scatter_rows(&lanes, n, |x| place[x], 2.0, &mut back);
            assert!(back.iter().zip(&rows).all(|(b, r)| *b == r * 2.0));
        }
    }

    #[test]
    fn slices_agree_with_single_numbers() {
        let (a, b, c) = (some(7), some(8), some(9));
        let (x, y, z) = (rows_of(&a), rows_of(&b[..7]), rows_of(&c[..7]));
        let check = |found: &[Lanes], expected: &dyn Fn(usize) -> Complex32| {
            let expected: Vec<Complex32> = (0..x.len()).map(expected).collect();
            assert_close(&rows_of(&found[..7]), &expected, 1e-6);
        };
        let mut out = c.clone();
        mul(&mut out, &a, &b);
        check(&out, &|i| x[i] * y[i]);
        let mut out = c.clone();
        mul_add(&mut out, &a, &b);
        check(&out, &|i| z[i] + x[i] * y[i]);
        let mut out = c.clone();
        conj_mul_add(&mut out, &a, &b);
        check(&out, &|i| z[i] + x[i].conj() * y[i]);
        let factors: [f32; LANES] = std::array::from_fn(|l| l as f32 - 2.5);
        let mut out = c.clone();
        axpy(&factors, &a, &mut out);
        check(&out, &|i| z[i] + x[i] * factors[i / 7]);
        let mut out = c.clone();
        xpby(&a, &factors, &mut out);
        check(&out, &|i| x[i] + z[i] * factors[i / 7]);
        let mut out = c.clone();
        mul_real(&mut out, &[factors; 7]);
        check(&out, &|i| z[i] * factors[i / 7]);
        let mut sums = [[1.0; LANES]; 7];
        add_power(&mut sums, &a);
        for (i, s) in sums.iter().enumerate() {
            assert!((s[3] - 1.0 - a[i].get(3).norm_sqr()).abs() < 1e-5);
        }
        for (l, found) in dot_real(&a, &b).into_iter().enumerate() {
            let at = l * 7..(l + 1) * 7;
            let expected = crate::num::complex::dot_conj(&x[at.clone()], &y[at]).re;
            assert!((found - expected).abs() < 1e-6);
        }
        // [2, 3] times [3, 4].
        let matrix = Rng::new(5).complex(6);
        let data = some(12);
        let mut out = vec![Lanes::ZERO; 8];
        product(&matrix, &data, 4, &mut out);
        for (i, found) in out.iter().enumerate() {
            let sum: Complex32 = (0..3)
                .map(|j| matrix[i / 4 * 3 + j] * data[j * 4 + i % 4].get(5))
                .sum();
            assert!((found.get(5) - sum).norm() < 1e-5);
        }
    }
}
