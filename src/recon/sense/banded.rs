//! The preconditioner of a mask along one axis: the normal operator near the diagonal of its k-space form.
//!
//! Seen in k-space, the normal operator couples lines that are as far apart as the maps' spectrum is wide, and nothing
//! else: a matrix with a narrow band, up to the edges of the maps' support. Its triangular factors cost a fraction of an
//! iteration, and what is left for the iterations are those edges.
//!
//! A band that is cut off sharply need not be positive definite. Weighting the diagonals down to zero linearly keeps it
//! so: the product of two positive semidefinite matrices, element by element, is positive semidefinite (Schur).

use std::sync::Arc;

use super::value::Value;
use crate::num::complex::{Kernel, dispatch};
use crate::num::lanes::{LANES, LaneFft, Lanes, mul_real};

/// Diagonals beside the main one.
const BAND: usize = 10;
/// Lines to each side that the maps' spectra are taken to reach.
const REACH: usize = 14;
/// Least pivot, as a fraction of its diagonal: rounding in `f32` must not make it negative.
const LEAST_PIVOT: f32 = 1e-5;

/// `D Fᴴ (L P Lᴴ)⁻¹ F D`: `D` evens out the sensitivity, `L P Lᴴ` are the factors of the band.
pub(super) struct Banded {
    fft: Arc<LaneFft>,
    /// Per voxel and lane, with the scale of both transforms; zero where the maps are.
    even: Vec<[f32; LANES]>,
    /// Place of each line, in their order from one edge of k-space to the other, in a transformed row.
    places: Vec<usize>,
    /// `[line, 0..=BAND]`: the inverse pivot (real), then the row of `L` left of the diagonal, from there.
    factors: Vec<Lanes>,
}

impl Banded {
    /// Factors the band for maps `[coil, line]` and the weight of every line (cyclic, line 0 in the middle of
    /// k-space); `full` is the normal operator's diagonal at a given sum of squares of the maps.
    pub(super) fn new<V: Value>(
        maps: &[V],
        density: &[f32],
        weights: &[f32],
        lambda: f32,
        full: impl Fn(f32) -> f32,
    ) -> Self {
        let n = weights.len();
        let fft = LaneFft::plan(n);
        let sorted = fft.places();
        let cyclic = |line: usize| (line + n - n / 2) % n;
        let places: Vec<usize> = (0..n).map(|line| sorted[cyclic(line)]).collect();
        let mut even = vec![[0.0f32; LANES]; n];
        let mut scale = [0.0f32; LANES];
        for lane in 0..V::WIDTH {
            let of_lane = || density.iter().skip(lane).step_by(V::WIDTH);
            let inside = of_lane().filter(|d| **d > 0.0).count().max(1) as f32;
            let mean = of_lane().sum::<f32>() / inside;
            scale[lane] = 1.0 / (inside * n as f32);
            for (even, d) in even.iter_mut().zip(of_lane()) {
                if *d > 0.0 {
                    even[lane] = (full(mean) / full(*d) / n as f32).sqrt();
                }
            }
        }
        let reach = REACH.min((n - 1) / 2);
        let band = BAND.min(2 * reach);
        // Around the centre, `[coil, -reach..=reach]`.
        let mut spectra = Vec::with_capacity(maps.len() / n * (2 * reach + 1));
        let mut row = vec![Lanes::ZERO; n];
        for map in maps.chunks_exact(n) {
            for (to, v) in row.iter_mut().zip(map.chunks_exact(1)) {
                *to = V::pack(v);
            }
            fft.forward(&mut row);
            spectra.extend((0..2 * reach + 1).map(|d| row[sorted[(d + n - reach) % n]]));
        }
        let weights: Vec<f32> = (0..n).map(|line| weights[cyclic(line)]).collect();
        let mut factors = vec![Lanes::ZERO; n * (BAND + 1)];
        dispatch(Factor {
            spectra: &spectra,
            weights: &weights,
            scale,
            lambda,
            reach,
            band,
            factors: &mut factors,
        });
        Self {
            fft,
            even,
            places,
            factors,
        }
    }

    /// `z = M⁻¹ r`; `row` is room for a row.
    pub(super) fn apply<V: Value>(&self, r: &[V], z: &mut [V], row: &mut Vec<Lanes>) {
        row.resize(r.len(), Lanes::ZERO);
        for (to, v) in row.iter_mut().zip(r.chunks_exact(1)) {
            *to = V::pack(v);
        }
        mul_real(row, &self.even);
        self.fft.forward(row);
        dispatch(Solve {
            factors: &self.factors,
            places: &self.places,
            row,
        });
        self.fft.inverse(row);
        mul_real(row, &self.even);
        for (v, z) in row.iter().zip(z.chunks_exact_mut(1)) {
            V::unpack(v, z);
        }
    }
}

struct Factor<'a> {
    spectra: &'a [Lanes],
    weights: &'a [f32],
    scale: [f32; LANES],
    lambda: f32,
    reach: usize,
    band: usize,
    factors: &'a mut [Lanes],
}

impl Kernel for Factor<'_> {
    type Out = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let (n, width) = (self.weights.len(), 2 * self.reach + 1);
        let (band, pitch) = (self.band, BAND + 1);
        // `sum over coils of conj(s(d)) s(d + e)`, weighted down with e, `[d, e]`.
        let mut pairs = vec![Lanes::ZERO; width * pitch];
        for spectrum in self.spectra.chunks_exact(width) {
            for d in 0..width {
                for e in 0..(band + 1).min(width - d) {
                    let sum = &mut pairs[d * pitch + e];
                    *sum = sum.plus_product::<FMA, true>(spectrum[d], spectrum[d + e]);
                }
            }
        }
        for pairs in pairs.chunks_exact_mut(pitch) {
            for (e, v) in pairs.iter_mut().enumerate() {
                let taper = 1.0 - e as f32 / pitch as f32;
                *v = v.times(self.scale).scaled(taper);
            }
        }
        for line in 0..n {
            let (done, rest) = self.factors.split_at_mut(line * pitch);
            let row = &mut rest[..pitch];
            for d in 0..width {
                let weight = self.weights[(line + n + d - self.reach) % n];
                if weight != 0.0 {
                    for e in 0..=band {
                        row[e] = row[e].plus::<FMA>(weight, pairs[d * pitch + e]);
                    }
                }
            }
            // Columns from the left: what is left of them is already `L P`.
            let mut pivot = row[0].re.map(|v| v + self.lambda);
            let least = pivot.map(|v| v * LEAST_PIVOT);
            for e in (1..=band.min(line)).rev() {
                let above = &done[(line - e) * pitch..][..pitch];
                let mut v = row[e];
                for k in 1..=band.min(line) - e {
                    v = v.minus_product::<FMA, true>(above[k], row[e + k]);
                }
                row[e] = v;
            }
            for e in 1..=band.min(line) {
                let inverse = done[(line - e) * pitch].re;
                let v = row[e];
                for l in 0..LANES {
                    pivot[l] -= (v.re[l] * v.re[l] + v.im[l] * v.im[l]) * inverse[l];
                }
                row[e] = v.times(inverse);
            }
            row[band.min(line) + 1..].fill(Lanes::ZERO);
            row[0] = Lanes::ZERO;
            for l in 0..LANES {
                row[0].re[l] = 1.0 / pivot[l].max(least[l]);
            }
        }
    }
}

struct Solve<'a> {
    factors: &'a [Lanes],
    places: &'a [usize],
    row: &'a mut [Lanes],
}

impl Kernel for Solve<'_> {
    type Out = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let pitch = BAND + 1;
        let (places, row) = (self.places, self.row);
        for (line, factor) in self.factors.chunks_exact(pitch).enumerate() {
            let mut v = row[places[line]];
            for e in (1..=BAND.min(line)).rev() {
                v = v.minus_product::<FMA, false>(factor[e], row[places[line - e]]);
            }
            row[places[line]] = v;
        }
        for (place, factor) in places.iter().zip(self.factors.chunks_exact(pitch)) {
            row[*place] = row[*place].times(factor[0].re);
        }
        for line in (0..places.len()).rev() {
            let mut v = row[places[line]];
            for e in (1..=BAND.min(places.len() - 1 - line)).rev() {
                let factor = self.factors[(line + e) * pitch + e];
                v = v.minus_product::<FMA, true>(factor, row[places[line + e]]);
            }
            row[places[line]] = v;
        }
    }
}

#[cfg(test)]
mod tests {
    use num_complex::{Complex32, Complex64};

    use super::*;
    use crate::num::linalg::{inverse_hermitian, matmul};
    use crate::num::rng::Rng;
    use crate::num::testing::nrmse;

    /// `D Fᴴ B⁻¹ F D` by its definition, for the maps of one lane; `taper` weighs the diagonals.
    fn reference(
        maps: &[Complex32],
        weights: &[f32],
        lambda: f64,
        taper: impl Fn(usize) -> f64,
    ) -> Vec<Complex64> {
        let n = weights.len();
        let wide = |v: &Complex32| Complex64::new(v.re.into(), v.im.into());
        let density: Vec<f64> = (0..n)
            .map(|y| maps.chunks(n).map(|m| wide(&m[y]).norm_sqr()).sum())
            .collect();
        let inside = density.iter().filter(|d| **d > 0.0).count() as f64;
        let mean = density.iter().sum::<f64>() / inside;
        // Lines in order from edge to edge.
        let frequency = |line: usize| line as f64 - (n / 2) as f64;
        let wave = |turns: f64| Complex64::cis(std::f64::consts::TAU * turns / n as f64);
        let fourier: Vec<Complex64> = (0..n * n)
            .map(|i| wave(-frequency(i / n) * (i % n) as f64) / (n as f64).sqrt())
            .collect();
        let reach = REACH.min((n - 1) / 2) as i64;
        let mut band = vec![Complex64::ZERO; n * n];
        for map in maps.chunks(n) {
            // Coupling of line j to line k, as far as the spectrum is taken to reach.
            let spectrum = |d: i64| -> Complex64 {
                if d.abs() > reach {
                    return Complex64::ZERO;
                }
                let turned = |(y, v)| wide(v) * wave(-(d * y as i64) as f64);
                map.iter().enumerate().map(turned).sum::<Complex64>() / n as f64
            };
            for (i, v) in band.iter_mut().enumerate() {
                let (k, l) = (i / n, i % n);
                // The mask goes on beyond its edges, the matrix does not.
                for j in -reach..n as i64 + reach {
                    let weight = weights[(j - (n / 2) as i64).rem_euclid(n as i64) as usize];
                    let [a, b] = [k, l].map(|k| spectrum(j - k as i64));
                    *v += a.conj() * b * f64::from(weight) * taper(k.abs_diff(l));
                }
            }
        }
        for (i, v) in band.iter_mut().enumerate() {
            *v *= n as f64 / inside;
            if i / n == i % n {
                *v += lambda;
            }
        }
        let inverse = inverse_hermitian(&band, n).unwrap();
        let even = |y: usize| match density[y] > 0.0 {
            true => ((mean + lambda) / (density[y] + lambda)).sqrt(),
            false => 0.0,
        };
        let turned: Vec<Complex64> = (0..n * n)
            .map(|i| fourier[i % n * n + i / n].conj() * even(i / n))
            .collect();
        let back: Vec<Complex64> = (0..n * n).map(|i| fourier[i] * even(i % n)).collect();
        matmul(&matmul(&turned, &inverse, n, n, n), &back, n, n, n)
    }

    #[test]
    fn factors_are_those_of_the_tapered_band() {
        for n in [1, 2, 7, 24, 31] {
            let mut rng = Rng::new(n as u64);
            let lane_maps: Vec<Vec<Complex32>> = (0..LANES)
                .map(|lane| {
                    let mut maps = rng.complex(3 * n);
                    // Beyond the object there is no sensitivity; its size differs from lane to lane.
                    for map in maps.chunks_mut(n) {
                        map[n - n * lane / 20..].fill(Complex32::ZERO);
                    }
                    maps
                })
                .collect();
            let mut maps = vec![Lanes::ZERO; 3 * n];
            for (lane, of_lane) in lane_maps.iter().enumerate() {
                for (v, m) in maps.iter_mut().zip(of_lane) {
                    v.set(lane, *m);
                }
            }
            let weights: Vec<f32> = (0..n).map(|k| [1.0, 0.0, 2.0, 0.0, 0.0][k % 5]).collect();
            let lambda = 0.05f32;
            let density = super::super::column::sum_of_squares(&maps, n);
            let banded = Banded::new(&maps, &density, &weights, lambda, |d| d + lambda);
            let r: Vec<Lanes> = (0..n).map(|_| Lanes::load(&rng.complex(LANES))).collect();
            let mut z = vec![Lanes::ZERO; n];
            banded.apply(&r, &mut z, &mut Vec::new());
            for lane in [0, 5] {
                let wide = |v: Complex32| Complex64::new(v.re.into(), v.im.into());
                let narrow = |v: &Complex64| Complex32::new(v.re as f32, v.im as f32);
                let r: Vec<Complex64> = r.iter().map(|v| wide(v.get(lane))).collect();
                let found: Vec<Complex32> = z.iter().map(|v| v.get(lane)).collect();
                let error = |taper: &dyn Fn(usize) -> f64| {
                    let m = reference(&lane_maps[lane], &weights, f64::from(lambda), taper);
                    let z: Vec<Complex32> = matmul(&m, &r, n, n, 1).iter().map(narrow).collect();
                    nrmse(&found, &z)
                };
                let taper = |e: usize| (1.0 - e as f64 / (BAND + 1) as f64).max(0.0);
                assert!(error(&taper) < 1e-4, "{n} {lane}: {}", error(&taper));
                // Wrong twin: the diagonal alone.
                assert!(n < 7 || error(&|e| f64::from(e == 0)) > 1e-2);
            }
        }
    }
}
