//! Readout oversampling removed, asymmetric echoes placed: measured samples in, `[coil, ro]` on the grid out.
//!
//! Inverse transform, crop to the recon field of view, forward transform; all unitary, so that white noise stays
//! white with the standard deviation it had. Eight coils are transformed side by side ([`LaneFft`]); the shifts of the
//! centred transforms, and the order in which the stages leave frequencies, are where samples are put on the way in and
//! taken from on the way out.

use std::f64::consts::PI;
use std::ops::Range;
use std::sync::Arc;

use num_complex::Complex32;

use crate::num::lanes::{
    LANES, LaneFft, Lanes, gather_rows, mul_each, scatter_rows, sum_of_places,
};

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
        fft: Arc<LaneFft>,
        /// `exp(2πi x/n) / (m√2)` in transform order.
        shift: Arc<[Complex32]>,
        /// Where encoded samples go: the even ones in order, behind them the odd ones as frequencies of the transform.
        to: Arc<[usize]>,
        /// Where, among the odd ones, the partner of each sample of the grid lies in the end.
        from: Arc<[usize]>,
    },
    /// Any ratio.
    General {
        inverse: Arc<LaneFft>,
        forward: Arc<LaneFft>,
        /// Where encoded samples go, as frequencies of the long transform.
        to: Arc<[usize]>,
        /// Where samples of the grid lie, as frequencies of the short one.
        from: Arc<[usize]>,
        scale: f32,
    },
}

/// Buffers of one thread.
#[derive(Default)]
pub(crate) struct Work {
    /// Readouts that do not fill the encoded samples as they are, `[coil, n]`.
    rows: Vec<Complex32>,
    /// Eight coils.
    lanes: Vec<Lanes>,
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
        let fft = LaneFft::plan(m);
        let place = fft.places();
        // Encoded index i holds k = i - m. Even k = 2p belongs to grid index p + m/2; odd k = 2q + 1 is frequency
        // q mod m of the transform.
        let first_even = m % 2;
        let to = (0..n)
            .map(|i| {
                if i % 2 == first_even {
                    i / 2
                } else {
                    m + place[(i / 2 + m / 2) % m]
                }
            })
            .collect();
        let from = (0..m).map(|j| place[(j + m - m / 2) % m]).collect();
        Self {
            n,
            m,
            kind: Kind::Half {
                fft,
                shift,
                to,
                from,
            },
        }
    }

    fn general(n: usize, m: usize) -> Self {
        let kind = if n == m {
            Kind::Same
        } else {
            let (inverse, forward) = (LaneFft::plan(n), LaneFft::plan(m));
            let (long, short) = (inverse.places(), forward.places());
            #[allow(clippy::cast_possible_truncation)] // storage precision
            let scale = (1.0 / (n as f64 * m as f64).sqrt()) as f32;
            Kind::General {
                to: (0..n).map(|i| long[(i + n - n / 2) % n]).collect(),
                from: (0..m).map(|j| short[(j + m - m / 2) % m]).collect(),
                inverse,
                forward,
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
        let is_plain = !place.is_reverse && place.kept == (0..n) && n_samples == n;
        let rows = if is_plain {
            &data[..n_coils * n]
        } else {
            lay_out(data, n_samples, place, n, &mut work.rows);
            &work.rows[..n_coils * n]
        };
        match &self.kind {
            Kind::Same => out.copy_from_slice(rows),
            Kind::Half {
                fft,
                shift,
                to,
                from,
            } => {
                work.lanes.resize(n, Lanes::ZERO);
                let lanes = &mut work.lanes[..n];
                for (rows, out) in rows.chunks(LANES * n).zip(out.chunks_mut(LANES * m)) {
                    gather_rows(rows, n, |i| to[i], lanes);
                    let (even, odd) = lanes.split_at_mut(m);
                    fft.inverse(odd);
                    mul_each(odd, shift);
                    fft.forward(odd);
                    sum_of_places(even, std::f32::consts::FRAC_1_SQRT_2, odd, from);
                    scatter_rows(even, m, |j| j, 1.0, out);
                }
            }
            Kind::General {
                inverse,
                forward,
                to,
                from,
                scale,
            } => {
                work.lanes.resize(n, Lanes::ZERO);
                let lanes = &mut work.lanes[..n];
                for (rows, out) in rows.chunks(LANES * n).zip(out.chunks_mut(LANES * m)) {
                    gather_rows(rows, n, |i| to[i], lanes);
                    inverse.inverse(lanes);
                    lanes.copy_within(n - m / 2.., m - m / 2);
                    forward.forward(&mut lanes[..m]);
                    scatter_rows(lanes, m, |j| from[j], *scale, out);
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

/// Lays readouts on `n` encoded samples each, zero where nothing was measured.
fn lay_out(
    data: &[Complex32],
    n_samples: usize,
    place: &Placement,
    n: usize,
    rows: &mut Vec<Complex32>,
) {
    rows.clear();
    for row in data.chunks_exact(n_samples) {
        let begin = rows.len();
        rows.resize(begin + n, Complex32::ZERO);
        let to = &mut rows[begin + place.start..][..place.kept.len()];
        if place.is_reverse {
            let kept = n_samples - place.kept.end..n_samples - place.kept.start;
            for (v, s) in to.iter_mut().zip(row[kept].iter().rev()) {
                *v = *s;
            }
        } else {
            to.copy_from_slice(&row[place.kept.clone()]);
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
