//! Slice operations on complex f32; with [`super::lanes`] the one place for SIMD.
//!
//! Every operation has a plain version and, on x86-64 with AVX2 and FMA, a vector version that is chosen at run time.
//! The default target is baseline x86-64 (SSE2), so loops elsewhere that are worth it go through [`dispatch`], which
//! compiles the same body a second time with AVX2 and FMA allowed.
//!
//! # Numerics
//! Element-wise operations round once or twice per term (FMA or not): the two versions agree within a few units in
//! the last place. Sums ([`dot_conj`], [`norm2`]) accumulate in `f64`. No version depends on the number of threads.
#![allow(unsafe_code)]

use num_complex::{Complex32, Complex64};

/// A loop worth compiling twice. `run` and all that it calls must be `#[inline(always)]`, or the inner functions
/// keep the baseline instruction set.
pub trait Kernel {
    /// What it returns.
    type Out;
    /// The body; `FMA` says whether [`fma`] may be one instruction.
    fn run<const FMA: bool>(self) -> Self::Out;
}

/// `a * b + c`, in one instruction where `FMA`.
#[inline(always)]
pub fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Whether the vector versions run on this machine.
#[inline]
pub fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Runs `kernel` compiled for AVX2 and FMA where the machine has them.
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Out {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2<K: Kernel>(kernel: K) -> K::Out {
            kernel.run::<true>()
        }
        if has_avx2() {
            // SAFETY: the features that `with_avx2` requires were found on this machine in the line above.
            return unsafe { with_avx2(kernel) };
        }
    }
    kernel.run::<false>()
}

macro_rules! two_versions {
    ($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)?) => {
        $(#[$doc])*
        #[inline]
        pub fn $name($($arg: $ty),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            if has_avx2() {
                // SAFETY: AVX2 and FMA, which the function requires, were found on this machine.
                return unsafe { avx2::$name($($arg),*) };
            }
            plain::$name($($arg),*)
        }
    };
}

two_versions!(
    /// `out = a * b`, element by element, over the shortest of the three.
    mul(out: &mut [Complex32], a: &[Complex32], b: &[Complex32])
);
two_versions!(
    /// `out += a * b`, element by element, over the shortest of the three.
    mul_add(out: &mut [Complex32], a: &[Complex32], b: &[Complex32])
);
two_versions!(
    /// `a *= b`, element by element, over the shorter of the two.
    mul_assign(a: &mut [Complex32], b: &[Complex32])
);
two_versions!(
    /// `out += conj(a) * b`, element by element, over the shortest of the three.
    conj_mul_add(out: &mut [Complex32], a: &[Complex32], b: &[Complex32])
);
two_versions!(
    /// `a *= b` with real `b`, element by element, over the shorter of the two.
    mul_real(a: &mut [Complex32], b: &[f32])
);
two_versions!(
    /// `y += alpha * x` with real `alpha`, over the shorter of the two.
    axpy(alpha: f32, x: &[Complex32], y: &mut [Complex32])
);
two_versions!(
    /// `y = x + beta * y` with real `beta`, over the shorter of the two.
    xpby(x: &[Complex32], beta: f32, y: &mut [Complex32])
);
two_versions!(
    /// `sum(conj(a) * b)` in `f64`, over the shorter of the two.
    dot_conj(a: &[Complex32], b: &[Complex32]) -> Complex64
);
two_versions!(
    /// `sum(|a|^2)` in `f64`.
    norm2(a: &[Complex32]) -> f64
);

/// The plain versions: the oracle of the vector ones.
pub mod plain {
    use super::{Complex32, Complex64};

    /// See [`super::mul`].
    pub fn mul(out: &mut [Complex32], a: &[Complex32], b: &[Complex32]) {
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            *o = a * b;
        }
    }
    /// See [`super::mul_add`].
    pub fn mul_add(out: &mut [Complex32], a: &[Complex32], b: &[Complex32]) {
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            *o += a * b;
        }
    }
    /// See [`super::mul_assign`].
    pub fn mul_assign(a: &mut [Complex32], b: &[Complex32]) {
        for (a, b) in a.iter_mut().zip(b) {
            *a *= b;
        }
    }
    /// See [`super::conj_mul_add`].
    pub fn conj_mul_add(out: &mut [Complex32], a: &[Complex32], b: &[Complex32]) {
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            *o += a.conj() * b;
        }
    }
    /// See [`super::mul_real`].
    pub fn mul_real(a: &mut [Complex32], b: &[f32]) {
        for (a, b) in a.iter_mut().zip(b) {
            *a *= b;
        }
    }
    /// See [`super::axpy`].
    pub fn axpy(alpha: f32, x: &[Complex32], y: &mut [Complex32]) {
        for (x, y) in x.iter().zip(y) {
            *y += x * alpha;
        }
    }
    /// See [`super::xpby`].
    pub fn xpby(x: &[Complex32], beta: f32, y: &mut [Complex32]) {
        for (x, y) in x.iter().zip(y) {
            *y = x + *y * beta;
        }
    }
    /// See [`super::dot_conj`].
    pub fn dot_conj(a: &[Complex32], b: &[Complex32]) -> Complex64 {
        let (mut re, mut im) = (0.0, 0.0);
        for (a, b) in a.iter().zip(b) {
            let (ar, ai) = (f64::from(a.re), f64::from(a.im));
            let (br, bi) = (f64::from(b.re), f64::from(b.im));
            re += ar * br + ai * bi;
            im += ar * bi - ai * br;
        }
        Complex64::new(re, im)
    }
    /// See [`super::norm2`].
    pub fn norm2(a: &[Complex32]) -> f64 {
        a.iter()
            .map(|v| f64::from(v.re).powi(2) + f64::from(v.im).powi(2))
            .sum()
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{Complex32, Complex64, plain};

    const LANES: usize = 4;

    // SAFETY (of every load and store below): each chunk comes from `as_chunks`, so exactly four complex values
    // (32 bytes) lie behind its pointer; `Complex32` is `repr(C)` of two `f32`; the unaligned forms are used.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn load(chunk: &[Complex32; LANES]) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_loadu_ps(chunk.as_ptr().cast()) }
    }
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn store(chunk: &mut [Complex32; LANES], v: __m256) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(chunk.as_mut_ptr().cast(), v) }
    }
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn complex_mul(a: __m256, b: __m256) -> __m256 {
        let swapped = _mm256_permute_ps::<0b1011_0001>(b);
        _mm256_fmaddsub_ps(
            _mm256_moveldup_ps(a),
            b,
            _mm256_mul_ps(_mm256_movehdup_ps(a), swapped),
        )
    }
    /// `acc + conj(a) * b`.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn complex_conj_mul_add(acc: __m256, a: __m256, b: __m256) -> __m256 {
        // conj(a) b = (ar br + ai bi) + i (ar bi - ai br): fmsubadd adds in the even and subtracts in the odd lanes,
        // so the imaginary product is subtracted from `acc` with the sign turned for the even lanes.
        let swapped = _mm256_permute_ps::<0b1011_0001>(b);
        let real = _mm256_fmadd_ps(_mm256_moveldup_ps(a), b, acc);
        let sign = _mm256_setr_ps(0.0, -0.0, 0.0, -0.0, 0.0, -0.0, 0.0, -0.0);
        _mm256_fmadd_ps(_mm256_xor_ps(_mm256_movehdup_ps(a), sign), swapped, real)
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn mul(out: &mut [Complex32], a: &[Complex32], b: &[Complex32]) {
        let n = out.len().min(a.len()).min(b.len());
        let (o, o_tail) = out[..n].as_chunks_mut::<LANES>();
        let (a, a_tail) = a[..n].as_chunks::<LANES>();
        let (b, b_tail) = b[..n].as_chunks::<LANES>();
        for ((o, a), b) in o.iter_mut().zip(a).zip(b) {
            store(o, complex_mul(load(a), load(b)));
        }
        plain::mul(o_tail, a_tail, b_tail);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn mul_add(out: &mut [Complex32], a: &[Complex32], b: &[Complex32]) {
        let n = out.len().min(a.len()).min(b.len());
        let (o, o_tail) = out[..n].as_chunks_mut::<LANES>();
        let (a, a_tail) = a[..n].as_chunks::<LANES>();
        let (b, b_tail) = b[..n].as_chunks::<LANES>();
        for ((o, a), b) in o.iter_mut().zip(a).zip(b) {
            let v = _mm256_add_ps(load(o), complex_mul(load(a), load(b)));
            store(o, v);
        }
        plain::mul_add(o_tail, a_tail, b_tail);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn mul_assign(a: &mut [Complex32], b: &[Complex32]) {
        let n = a.len().min(b.len());
        let (a, a_tail) = a[..n].as_chunks_mut::<LANES>();
        let (b, b_tail) = b[..n].as_chunks::<LANES>();
        for (a, b) in a.iter_mut().zip(b) {
            let v = complex_mul(load(a), load(b));
            store(a, v);
        }
        plain::mul_assign(a_tail, b_tail);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn conj_mul_add(out: &mut [Complex32], a: &[Complex32], b: &[Complex32]) {
        let n = out.len().min(a.len()).min(b.len());
        let (o, o_tail) = out[..n].as_chunks_mut::<LANES>();
        let (a, a_tail) = a[..n].as_chunks::<LANES>();
        let (b, b_tail) = b[..n].as_chunks::<LANES>();
        for ((o, a), b) in o.iter_mut().zip(a).zip(b) {
            let v = complex_conj_mul_add(load(o), load(a), load(b));
            store(o, v);
        }
        plain::conj_mul_add(o_tail, a_tail, b_tail);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn mul_real(a: &mut [Complex32], b: &[f32]) {
        let n = a.len().min(b.len());
        let (a, a_tail) = a[..n].as_chunks_mut::<LANES>();
        let (b, b_tail) = b[..n].as_chunks::<LANES>();
        for (a, b) in a.iter_mut().zip(b) {
            let w = _mm256_setr_ps(b[0], b[0], b[1], b[1], b[2], b[2], b[3], b[3]);
            let v = _mm256_mul_ps(load(a), w);
            store(a, v);
        }
        plain::mul_real(a_tail, b_tail);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn axpy(alpha: f32, x: &[Complex32], y: &mut [Complex32]) {
        let n = x.len().min(y.len());
        let (x, x_tail) = x[..n].as_chunks::<LANES>();
        let (y, y_tail) = y[..n].as_chunks_mut::<LANES>();
        let w = _mm256_set1_ps(alpha);
        for (x, y) in x.iter().zip(y) {
            let v = _mm256_fmadd_ps(w, load(x), load(y));
            store(y, v);
        }
        plain::axpy(alpha, x_tail, y_tail);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn xpby(x: &[Complex32], beta: f32, y: &mut [Complex32]) {
        let n = x.len().min(y.len());
        let (x, x_tail) = x[..n].as_chunks::<LANES>();
        let (y, y_tail) = y[..n].as_chunks_mut::<LANES>();
        let w = _mm256_set1_ps(beta);
        for (x, y) in x.iter().zip(y) {
            let v = _mm256_fmadd_ps(w, load(y), load(x));
            store(y, v);
        }
        plain::xpby(x_tail, beta, y_tail);
    }

    /// Lower and upper half as `f64`.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn widen(v: __m256) -> (__m256d, __m256d) {
        (
            _mm256_cvtps_pd(_mm256_castps256_ps128(v)),
            _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(v)),
        )
    }
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn lanes(v: __m256d) -> [f64; 4] {
        let mut out = [0.0; 4];
        // SAFETY: `out` holds the four values that the unaligned store writes.
        unsafe { _mm256_storeu_pd(out.as_mut_ptr(), v) };
        out
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn dot_conj(a: &[Complex32], b: &[Complex32]) -> Complex64 {
        let n = a.len().min(b.len());
        let (a, a_tail) = a[..n].as_chunks::<LANES>();
        let (b, b_tail) = b[..n].as_chunks::<LANES>();
        let mut re = [_mm256_setzero_pd(); 2];
        let mut im = [_mm256_setzero_pd(); 2];
        for (a, b) in a.iter().zip(b) {
            let (a0, a1) = widen(load(a));
            let (b0, b1) = widen(load(b));
            re[0] = _mm256_fmadd_pd(a0, b0, re[0]);
            re[1] = _mm256_fmadd_pd(a1, b1, re[1]);
            im[0] = _mm256_fmadd_pd(a0, _mm256_permute_pd::<0b0101>(b0), im[0]);
            im[1] = _mm256_fmadd_pd(a1, _mm256_permute_pd::<0b0101>(b1), im[1]);
        }
        let re = lanes(_mm256_add_pd(re[0], re[1]));
        let im = lanes(_mm256_add_pd(im[0], im[1]));
        let head = Complex64::new(re[0] + re[1] + re[2] + re[3], im[0] - im[1] + im[2] - im[3]);
        head + plain::dot_conj(a_tail, b_tail)
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn norm2(a: &[Complex32]) -> f64 {
        let (a, a_tail) = a.as_chunks::<LANES>();
        let mut sum = [_mm256_setzero_pd(); 2];
        for a in a {
            let (a0, a1) = widen(load(a));
            sum[0] = _mm256_fmadd_pd(a0, a0, sum[0]);
            sum[1] = _mm256_fmadd_pd(a1, a1, sum[1]);
        }
        let s = lanes(_mm256_add_pd(sum[0], sum[1]));
        s[0] + s[1] + s[2] + s[3] + plain::norm2(a_tail)
    }
}

/// `sum |v|²` in f32, sixteen sums side by side; NaN or infinite if a sample is.
pub fn energy(row: &[Complex32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let values: &[f32] = bytemuck::cast_slice(row);
    let mut chunks = values.chunks_exact(16);
    for chunk in &mut chunks {
        for (s, v) in sums.iter_mut().zip(chunk) {
            *s += v * v;
        }
    }
    let rest: f32 = chunks.remainder().iter().map(|v| v * v).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::Rng;

    fn close(a: &[Complex32], b: &[Complex32]) {
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            assert!((a - b).norm() < 2e-6 * (1.0 + b.norm()), "{i}: {a} {b}");
        }
    }

    #[test]
    fn hand_numbers() {
        let a = [Complex32::new(1.0, 2.0)];
        let b = [Complex32::new(3.0, -1.0)];
        let mut out = [Complex32::ZERO];
        mul(&mut out, &a, &b);
        assert_eq!(out[0], Complex32::new(5.0, 5.0));
        conj_mul_add(&mut out, &a, &b);
        assert_eq!(out[0], Complex32::new(6.0, -2.0));
        assert_eq!(dot_conj(&a, &b), Complex64::new(1.0, -7.0));
        assert_eq!(norm2(&a), 5.0);
    }

    #[test]
    fn vector_version_agrees_with_the_plain_one() {
        let mut rng = Rng::new(1);
        for n in [0, 1, 3, 4, 5, 8, 31, 64, 101] {
            let a = rng.complex(n);
            let b = rng.complex(n);
            let c = rng.complex(n);
            let w: Vec<f32> = (0..n).map(|i| i as f32 * 0.1 - 1.0).collect();
            let mut both = [c.clone(), c.clone()];
            mul(&mut both[0], &a, &b);
            plain::mul(&mut both[1], &a, &b);
            close(&both[0], &both[1]);
            let mut both = [c.clone(), c.clone()];
            mul_add(&mut both[0], &a, &b);
            plain::mul_add(&mut both[1], &a, &b);
            close(&both[0], &both[1]);
            let mut both = [c.clone(), c.clone()];
            mul_assign(&mut both[0], &a);
            plain::mul_assign(&mut both[1], &a);
            close(&both[0], &both[1]);
            let mut both = [c.clone(), c.clone()];
            conj_mul_add(&mut both[0], &a, &b);
            plain::conj_mul_add(&mut both[1], &a, &b);
            close(&both[0], &both[1]);
            let mut both = [c.clone(), c.clone()];
            mul_real(&mut both[0], &w);
            plain::mul_real(&mut both[1], &w);
            close(&both[0], &both[1]);
            let mut both = [c.clone(), c.clone()];
            axpy(0.7, &a, &mut both[0]);
            plain::axpy(0.7, &a, &mut both[1]);
            close(&both[0], &both[1]);
            let mut both = [c.clone(), c.clone()];
            xpby(&a, 0.7, &mut both[0]);
            plain::xpby(&a, 0.7, &mut both[1]);
            close(&both[0], &both[1]);
            let d = dot_conj(&a, &b) - plain::dot_conj(&a, &b);
            assert!(d.norm() < 1e-9, "{d}");
            assert!((norm2(&a) - plain::norm2(&a)).abs() < 1e-9);
        }
    }

    #[test]
    fn a_missing_conjugate_is_seen() {
        let a = [Complex32::new(1.0, 2.0); 5];
        let mut right = [Complex32::ZERO; 5];
        let mut wrong = [Complex32::ZERO; 5];
        conj_mul_add(&mut right, &a, &a);
        mul(&mut wrong, &a, &a);
        assert!((right[0] - wrong[0]).norm() > 1.0);
    }

    struct SumOfSquares<'a>(&'a [f32]);
    impl Kernel for SumOfSquares<'_> {
        type Out = f32;
        #[inline(always)]
        fn run<const FMA: bool>(self) -> f32 {
            self.0.iter().fold(0.0, |s, v| fma::<FMA>(*v, *v, s))
        }
    }

    #[test]
    fn dispatched_kernel_is_the_same_body() {
        let v = [1.0, 2.0, 3.0];
        assert_eq!(dispatch(SumOfSquares(&v)), 14.0);
        assert_eq!(SumOfSquares(&v).run::<false>(), 14.0);
    }
}
