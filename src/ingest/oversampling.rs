//! Readout oversampling removed, asymmetric echoes placed: measured samples in, `[coil, ro]` on the grid out.
//!
//! Inverse transform, crop to the recon field of view, forward transform; all unitary, so that white noise stays
//! white with the standard deviation it had. The shifts of the centred transforms are folded into the copies.

use std::f64::consts::PI;
use std::ops::Range;
use std::sync::Arc;

use num_complex::Complex32;
use rustfft::Fft;

/// How one encoding's readouts reach the grid.
#[derive(Clone)]
pub(crate) struct Oversampling {
    /// Encoded samples.
    n: usize,
    /// Samples of the grid.
    m: usize,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// Nothing to crop.
    Same,
    /// Twofold oversampling, the common case, with transforms of half the length only.
    ///
    /// Even samples alone are k-space of the cropped field of view with the removed half folded in; the odd ones
    /// likewise, half a step off. `K[p] = (s[2p] + shift(s[2q+1])[p]) / √2`, the half-step shift done in image space.
    Half {
        inverse: Arc<dyn Fft<f32>>,
        forward: Arc<dyn Fft<f32>>,
        /// `exp(2πi x/n) / (m√2)` in transform order.
        shift: Arc<[Complex32]>,
    },
    /// Any ratio.
    General {
        inverse: Arc<dyn Fft<f32>>,
        forward: Arc<dyn Fft<f32>>,
        scale: f32,
    },
}

/// Buffers of one thread.
#[derive(Default)]
pub(crate) struct Work {
    long: Vec<Complex32>,
    short: Vec<Complex32>,
    scratch: Vec<Complex32>,
}

impl Oversampling {
    /// Plans the way from `n` encoded samples to `m` of the grid, `1 <= m <= n`.
    pub(crate) fn plan(n: usize, m: usize) -> Self {
        if n == 2 * m {
            Self::half(m)
        } else {
            Self::general(n, m)
        }
    }

    fn half(m: usize) -> Self {
        let n = 2 * m;
        let mut planner = rustfft::FftPlanner::new();
        let scale = 1.0 / (m as f64 * 2f64.sqrt());
        let shift = (0..m)
            .map(|t| {
                let x = if t < m - m / 2 {
                    t as f64
                } else {
                    t as f64 - m as f64
                };
                let (sin, cos) = (2.0 * PI * x / n as f64).sin_cos();
                #[allow(clippy::cast_possible_truncation)] // storage precision
                Complex32::new((cos * scale) as f32, (sin * scale) as f32)
            })
            .collect();
        Self {
            n,
            m,
            kind: Kind::Half {
                inverse: planner.plan_fft_inverse(m),
                forward: planner.plan_fft_forward(m),
                shift,
            },
        }
    }

    fn general(n: usize, m: usize) -> Self {
        let kind = if n == m {
            Kind::Same
        } else {
            let mut planner = rustfft::FftPlanner::new();
            #[allow(clippy::cast_possible_truncation)] // storage precision
            let scale = (1.0 / (n as f64 * m as f64).sqrt()) as f32;
            Kind::General {
                inverse: planner.plan_fft_inverse(n),
                forward: planner.plan_fft_forward(m),
                scale,
            }
        };
        Self { n, m, kind }
    }

    /// Which samples of the grid lie within the measured encoded samples.
    pub(crate) fn range(&self, measured: &Range<usize>) -> Range<usize> {
        let (n, m) = (self.n, self.m);
        // Grid index j lies at encoded position n/2 + (j - m/2)·n/m; compared in integers, times m.
        let position = |j: usize| (n / 2 * m) as i64 + (j as i64 - (m / 2) as i64) * n as i64;
        let start = if measured.start == 0 {
            0
        } else {
            (0..m)
                .find(|&j| position(j) >= (measured.start * m) as i64)
                .unwrap_or(m)
        };
        let end = if measured.end >= n {
            m
        } else {
            (0..m)
                .rfind(|&j| position(j) <= (measured.end as i64 - 1) * m as i64)
                .map_or(0, |j| j + 1)
        };
        start..end.max(start)
    }

    /// Puts the samples of one readout on the grid.
    ///
    /// # Shapes
    /// `data`: `[coil, sample]`, `n_samples` each; of those, `kept` are used, the first of them at encoded position
    /// `start`. `reverse` reads each coil's samples backwards first. `out`: `[coil, m]`.
    pub(crate) fn run(
        &self,
        data: &[Complex32],
        n_samples: usize,
        place: &Placement,
        work: &mut Work,
        out: &mut [Complex32],
    ) {
        let (n, m) = (self.n, self.m);
        let n_coils = out.len() / m;
        let measured = place.start..place.start + place.kept.len();
        // Sample at encoded position i, or zero where nothing was measured.
        let sample = |row: &[Complex32], i: usize| -> Complex32 {
            if i < measured.start || i >= measured.end {
                return Complex32::ZERO;
            }
            let s = place.kept.start + (i - measured.start);
            if place.is_reverse {
                row[n_samples - 1 - s]
            } else {
                row[s]
            }
        };
        let is_plain = !place.is_reverse && place.start == 0 && place.kept.len() == n;
        match &self.kind {
            Kind::Same => {
                for c in 0..n_coils {
                    let row = &data[c * n_samples..(c + 1) * n_samples];
                    let dst = &mut out[c * m..(c + 1) * m];
                    if is_plain {
                        dst.copy_from_slice(&row[place.kept.clone()]);
                    } else {
                        for (i, v) in dst.iter_mut().enumerate() {
                            *v = sample(row, i);
                        }
                    }
                }
            }
            Kind::Half {
                inverse,
                forward,
                shift,
            } => {
                // Encoded index i holds k = i - m. Odd k = 2q+1 goes to transform index q mod m; even k = 2p
                // to grid index p + m/2.
                let odd = &mut work.short;
                odd.resize(n_coils * m, Complex32::ZERO);
                let first_even = m % 2; // smallest i with even k
                let h = m / 2;
                for c in 0..n_coils {
                    let row = &data[c * n_samples..(c + 1) * n_samples];
                    let dst = &mut out[c * m..(c + 1) * m];
                    let odd = &mut odd[c * m..(c + 1) * m];
                    if is_plain && first_even == 0 {
                        // m even: i = 2j is grid index j, i = 2j+1 transform index (j + m - h) mod m
                        let row = &row[place.kept.clone()];
                        for (j, pair) in row.chunks_exact(2).enumerate() {
                            dst[j] = pair[0];
                            odd[if j < h { j + m - h } else { j - h }] = pair[1];
                        }
                    } else {
                        for (j, v) in dst.iter_mut().enumerate() {
                            *v = sample(row, 2 * j + first_even);
                        }
                        for q in 0..m {
                            // i = 1 - first_even + 2q: k = i - m = 2(q - ceil(m/2)) + 1
                            let i = 1 - first_even + 2 * q;
                            odd[(q + m - (m - h)) % m] = sample(row, i);
                        }
                    }
                }
                let need = inverse
                    .get_inplace_scratch_len()
                    .max(forward.get_inplace_scratch_len());
                work.scratch.resize(need, Complex32::ZERO);
                inverse.process_with_scratch(odd, &mut work.scratch);
                for row in odd.chunks_exact_mut(m) {
                    for (v, s) in row.iter_mut().zip(shift.iter()) {
                        *v *= s;
                    }
                }
                forward.process_with_scratch(odd, &mut work.scratch);
                for (dst, odd) in out.chunks_exact_mut(m).zip(odd.chunks_exact(m)) {
                    let (negative, positive) = dst.split_at_mut(h);
                    let (from_zero, below_zero) = odd.split_at(m - h);
                    for (v, o) in positive.iter_mut().zip(from_zero) {
                        *v = *v * std::f32::consts::FRAC_1_SQRT_2 + o;
                    }
                    for (v, o) in negative.iter_mut().zip(below_zero) {
                        *v = *v * std::f32::consts::FRAC_1_SQRT_2 + o;
                    }
                }
            }
            Kind::General {
                inverse,
                forward,
                scale,
            } => {
                let long = &mut work.long;
                let short = &mut work.short;
                long.resize(n_coils * n, Complex32::ZERO);
                short.resize(n_coils * m, Complex32::ZERO);
                for c in 0..n_coils {
                    let row = &data[c * n_samples..(c + 1) * n_samples];
                    for (i, v) in long[c * n..(c + 1) * n].iter_mut().enumerate() {
                        *v = sample(row, (i + n / 2) % n);
                    }
                }
                let need = inverse
                    .get_inplace_scratch_len()
                    .max(forward.get_inplace_scratch_len());
                work.scratch.resize(need, Complex32::ZERO);
                inverse.process_with_scratch(long, &mut work.scratch);
                let positive = m - m / 2;
                for (s, l) in short.chunks_exact_mut(m).zip(long.chunks_exact(n)) {
                    s[..positive].copy_from_slice(&l[..positive]);
                    s[positive..].copy_from_slice(&l[n - m / 2..]);
                }
                forward.process_with_scratch(short, &mut work.scratch);
                for (dst, s) in out.chunks_exact_mut(m).zip(short.chunks_exact(m)) {
                    for (j, v) in dst.iter_mut().enumerate() {
                        *v = s[(j + m - m / 2) % m] * *scale;
                    }
                }
            }
        }
        // The crop spreads a little signal beyond the measured range; the contract says zero there.
        let range = self.range(&measured);
        if range != (0..m) {
            for dst in out.chunks_exact_mut(m) {
                dst[..range.start].fill(Complex32::ZERO);
                dst[range.end..].fill(Complex32::ZERO);
            }
        }
    }
}

/// Where the samples of a readout go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Samples used, counted after a reversed readout was turned round.
    pub(crate) kept: Range<usize>,
    /// Encoded position of the first of them.
    pub(crate) start: usize,
    /// Whether the samples run backwards.
    pub(crate) is_reverse: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_complex::Complex64;

    fn noise(n: usize, seed: u64) -> Vec<Complex32> {
        let mut s = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            (s >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..n).map(|_| Complex32::new(next(), next())).collect()
    }

    // Plain reference: sums as the definition has them, in f64.
    fn reference(row: &[Complex32], m: usize) -> Vec<Complex64> {
        let n = row.len();
        let image: Vec<Complex64> = (0..m)
            .map(|j| {
                let x = j as f64 - (m / 2) as f64;
                let mut s = Complex64::ZERO;
                for (i, v) in row.iter().enumerate() {
                    let k = i as f64 - (n / 2) as f64;
                    s += Complex64::new(v.re.into(), v.im.into())
                        * Complex64::from_polar(1.0, 2.0 * PI * k * x / n as f64);
                }
                s / (n as f64).sqrt()
            })
            .collect();
        (0..m)
            .map(|j| {
                let k = j as f64 - (m / 2) as f64;
                let mut s = Complex64::ZERO;
                for (i, v) in image.iter().enumerate() {
                    let x = i as f64 - (m / 2) as f64;
                    s += v * Complex64::from_polar(1.0, -2.0 * PI * k * x / m as f64);
                }
                s / (m as f64).sqrt()
            })
            .collect()
    }

    fn run(
        plan: &Oversampling,
        row: &[Complex32],
        place: &Placement,
        n_coils: usize,
    ) -> Vec<Complex32> {
        let mut out = vec![Complex32::ZERO; plan.m * n_coils];
        plan.run(
            row,
            row.len() / n_coils,
            place,
            &mut Work::default(),
            &mut out,
        );
        out
    }

    fn whole(n: usize) -> Placement {
        Placement {
            kept: 0..n,
            start: 0,
            is_reverse: false,
        }
    }

    fn differ(a: &[Complex32], b: &[Complex64]) -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| (Complex64::new(a.re.into(), a.im.into()) - b).norm())
            .fold(0.0, f64::max)
    }

    #[test]
    fn against_the_definition() {
        for (n, m) in [
            (1, 1),
            (2, 1),
            (4, 2),
            (6, 3),
            (10, 5),
            (8, 5),
            (7, 3),
            (12, 7),
            (9, 9),
            (64, 32),
            (50, 40),
            (26, 13),
        ] {
            let row = noise(n, 7 + n as u64);
            let want = reference(&row, m);
            for plan in [Oversampling::plan(n, m), Oversampling::general(n, m)] {
                let got = run(&plan, &row, &whole(n), 1);
                assert!(
                    differ(&got, &want) < 1e-5,
                    "{n} -> {m}: {}",
                    differ(&got, &want)
                );
            }
            // wrong twins: transform the other way round; centre off by one
            if m > 2 {
                let conj: Vec<Complex64> = want.iter().rev().copied().collect();
                let mut off = want.clone();
                off.rotate_left(1);
                let got = run(&Oversampling::plan(n, m), &row, &whole(n), 1);
                assert!(differ(&got, &conj) > 1e-2);
                assert!(differ(&got, &off) > 1e-2);
            }
        }
    }

    #[test]
    fn constant_image_by_hand() {
        // A delta at DC of 8 samples is the constant 1/√8; cropped to 4 and back: √4/√8 at DC.
        let mut row = vec![Complex32::ZERO; 8];
        row[4] = Complex32::ONE;
        let got = run(&Oversampling::plan(8, 4), &row, &whole(8), 1);
        for (j, v) in got.iter().enumerate() {
            let want = if j == 2 { 0.5f32.sqrt() } else { 0.0 };
            assert!((v - want).norm() < 1e-6, "{j} {v}");
        }
    }

    #[test]
    fn white_noise_stays_white() {
        for (n, m) in [(64, 32), (50, 40), (27, 9)] {
            // The operator A satisfies A Aᴴ = 1 when its rows are orthonormal: apply it to unit vectors.
            let plan = Oversampling::plan(n, m);
            let mut gram = vec![Complex32::ZERO; m * m];
            for i in 0..n {
                let mut row = vec![Complex32::ZERO; n];
                row[i] = Complex32::ONE;
                let a = run(&plan, &row, &whole(n), 1);
                for p in 0..m {
                    for q in 0..m {
                        gram[p * m + q] += a[p] * a[q].conj();
                    }
                }
            }
            for (k, v) in gram.iter().enumerate() {
                let want = f32::from(k % (m + 1) == 0);
                assert!((v - want).norm() < 1e-4, "{n} {m} {k} {v}");
            }
        }
    }

    #[test]
    fn reversed_and_asymmetric() {
        let (n, m) = (12, 6);
        let plan = Oversampling::plan(n, m);
        let full = noise(n, 3);
        // Asymmetric echo: the first 3 positions are missing.
        let mut zeroed = full.clone();
        zeroed[..3].fill(Complex32::ZERO);
        let want = reference(&zeroed, m);
        let place = Placement {
            kept: 0..9,
            start: 3,
            is_reverse: false,
        };
        let got = run(&plan, &full[3..], &place, 1);
        assert_eq!(plan.range(&(3..12)), 2..6);
        assert!(differ(&got[2..], &want[2..]) < 1e-5);
        assert_eq!(got[..2], [Complex32::ZERO; 2]);
        // Reversed: stored backwards.
        let back: Vec<Complex32> = full[3..].iter().rev().copied().collect();
        let place = Placement {
            is_reverse: true,
            ..place
        };
        assert_eq!(run(&plan, &back, &place, 1), got);
        // wrong twin: forgotten flip
        let place = Placement {
            is_reverse: false,
            ..place
        };
        assert_ne!(run(&plan, &back, &place, 1), got);
        // discard: two leading and one trailing sample dropped
        let mut padded = vec![Complex32::ONE; 2];
        padded.extend_from_slice(&full[3..]);
        padded.push(Complex32::ONE);
        let place = Placement {
            kept: 2..11,
            start: 3,
            is_reverse: false,
        };
        assert_eq!(run(&plan, &padded, &place, 1), got);
    }

    #[test]
    fn coils_do_not_mix() {
        let (n, m) = (20, 10);
        let plan = Oversampling::plan(n, m);
        let (a, b) = (noise(n, 1), noise(n, 2));
        let both = [a.clone(), b.clone()].concat();
        let got = run(&plan, &both, &whole(n), 2);
        assert_eq!(got[..m], run(&plan, &a, &whole(n), 1));
        assert_eq!(got[m..], run(&plan, &b, &whole(n), 1));
    }

    #[test]
    fn measured_range_on_the_grid() {
        assert_eq!(Oversampling::plan(8, 4).range(&(0..8)), 0..4);
        assert_eq!(Oversampling::plan(8, 4).range(&(1..8)), 1..4);
        assert_eq!(Oversampling::plan(8, 4).range(&(2..7)), 1..4);
        assert_eq!(Oversampling::plan(8, 4).range(&(2..6)), 1..3);
        assert_eq!(Oversampling::plan(6, 5).range(&(0..6)), 0..5);
        assert_eq!(Oversampling::plan(5, 5).range(&(1..4)), 1..4);
    }
}
