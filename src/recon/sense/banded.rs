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
            for e in band.min(line) + 1..pitch {
                row[e] = Lanes::ZERO;
            }
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
