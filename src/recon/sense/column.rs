//! One problem: all phase-encoding voxels at one place along the readout; eight of them side by side where there are.

use std::sync::Arc;

use num_complex::Complex32;
use rayon::prelude::*;

use super::banded::Banded;
use super::lattice::Folding;
use super::value::{PerLane, Value};
use crate::num::complex::{Kernel, dispatch};
use crate::num::fft::{Direction, fft2};
use crate::num::lanes::{self, LANES, LaneFft, Lanes};

/// Transforms and weights that all columns share.
pub(super) struct Shared<'a, V> {
    pub(super) folding: &'a Folding,
    pub(super) n_sets: usize,
    /// Absolute Tikhonov weight.
    pub(super) lambda: f32,
    /// Whether the variance of the blocks is wanted.
    pub(super) with_noise: bool,
    /// Work on the coils of a column in parallel: there are too few columns for the threads.
    pub(super) inner_parallel: bool,
    /// Along pe2 and pe1.
    ffts: [Arc<LaneFft>; 2],
    /// What transforms multiply with, over `n1 n2`: the rest beside the lattice, or the mask where it is along one axis.
    transformed: Weights,
    /// Weight of every line of the plane, counted from `o`.
    mask: Vec<f32>,
    is_exact: bool,
    /// Whether the mask is along one axis and no lattice: the lattice then has no part in the solution.
    is_banded: bool,
    /// Place of each measured line in a transformed plane.
    line_places: Vec<usize>,
    /// Factor of each measured line's sample on the way in: phase, weight and the scale of the transform.
    line_factors: Vec<V>,
    /// Factor of each voxel of the plane on the way out.
    pub(super) voxel_phase: Vec<V>,
}

/// Real weights of a transformed plane, as [`Value::pack`] has its columns: `[pe1 / packed, pe2]`.
struct Weights {
    lanes: Vec<[f32; LANES]>,
    /// Whether any of a group of columns has weight.
    is_needed: Vec<bool>,
}

impl Weights {
    /// `weight(lane, k2, k1)` at the frequencies `k2`, `k1`.
    fn new<V: Value>(
        ffts: &[Arc<LaneFft>; 2],
        weight: impl Fn(usize, usize, usize) -> f32,
    ) -> Self {
        let [o2, o1] = [ffts[0].order(), ffts[1].order()];
        let lanes: Vec<[f32; LANES]> = o1
            .chunks(V::PACKED)
            .flat_map(|group| o2.iter().map(move |k2| (group, k2)))
            .map(|(group, k2)| {
                std::array::from_fn(|l| match group.get(l / V::WIDTH) {
                    Some(k1) => weight(l % V::WIDTH, *k2, *k1),
                    None => 0.0,
                })
            })
            .collect();
        let is_needed = lanes
            .chunks(o2.len())
            .map(|group| group.iter().flatten().any(|w| *w != 0.0))
            .collect();
        Self { lanes, is_needed }
    }
}

/// Memory that is kept between calls, because fresh memory costs as much as a transform.
#[derive(Default)]
pub(super) struct Room<V> {
    /// `[coil, plane]` or `[plane]`.
    images: Vec<V>,
    turned: Vec<Lanes>,
}

impl<'a, V: Value> Shared<'a, V> {
    pub(super) fn new(
        folding: &'a Folding,
        n_sets: usize,
        lambda: f32,
        with_noise: bool,
        inner_parallel: bool,
    ) -> Self {
        let [n2, n1] = folding.grid;
        let ffts = folding.grid.map(LaneFft::plan);
        let places = [ffts[0].places(), ffts[1].places()];
        let scale = 1.0 / (n1 * n2) as f32;
        let mut mask = vec![0.0f32; n1 * n2];
        for (place, weight) in folding.places.iter().zip(&folding.weights) {
            mask[*place] += weight;
        }
        let is_exact = folding.is_exact();
        let is_banded = n2 == 1 && n_sets == 1 && !is_exact;
        let weights = if is_banded { &mask } else { &folding.rest };
        let transformed = Weights::new::<V>(&ffts, |_, k2, k1| weights[k2 * n1 + k1] * scale);
        let line_places = folding
            .places
            .iter()
            .map(|p| places[0][p / n1] * n1 + places[1][p % n1])
            .collect();
        let line_factors = folding
            .line_phase
            .iter()
            .zip(&folding.weights)
            .map(|(phase, weight)| V::splat(phase * (weight * scale.sqrt())))
            .collect();
        let voxel_phase = folding.voxel_phase.iter().map(|p| V::splat(*p)).collect();
        Self {
            folding,
            n_sets,
            lambda,
            with_noise,
            inner_parallel,
            is_exact,
            is_banded,
            ffts,
            transformed,
            mask,
            line_places,
            line_factors,
            voxel_phase,
        }
    }

    pub(super) fn plane(&self) -> usize {
        self.folding.grid[0] * self.folding.grid[1]
    }

    /// `Fᴴ weights F` of one plane, in place, on this thread.
    /// Rows along pe1 that are not in `is_row` are zero on the way in and without meaning on the way out.
    fn filter(&self, image: &mut [V], weights: &Weights, is_row: &[bool]) {
        let [n2, n1] = self.folding.grid;
        let [columns, rows] = &self.ffts;
        let some_rows = |image: &mut [V], run: fn(&LaneFft, &mut [V])| {
            for (image, is_row) in image
                .chunks_mut(n1 * V::PACKED)
                .zip(is_row.chunks(V::PACKED))
            {
                if is_row.contains(&true) {
                    run(rows, image);
                }
            }
        };
        some_rows(image, V::rows_forward);
        if n2 == 1 {
            V::mul_real(image, weights.lanes.as_flattened());
        } else {
            let mut buffer = vec![Lanes::ZERO; n2];
            for (group, weights_of) in weights.lanes.chunks_exact(n2).enumerate() {
                let at = group * V::PACKED..((group + 1) * V::PACKED).min(n1);
                if !weights.is_needed[group] {
                    for row in image.chunks_exact_mut(n1) {
                        row[at.clone()].fill(V::ZERO);
                    }
                    continue;
                }
                V::pack_columns(image, n1, at.start, &mut buffer);
                columns.forward(&mut buffer);
                lanes::mul_real(&mut buffer, weights_of);
                columns.inverse(&mut buffer);
                V::unpack_columns(&buffer, image, n1, at.start);
            }
        }
        some_rows(image, V::rows_inverse);
    }

    /// [`Shared::filter`] of a whole plane on the current pool.
    fn filter_parallel(&self, image: &mut [V], weights: &Weights, turned: &mut Vec<Lanes>) {
        let [n2, n1] = self.folding.grid;
        let [columns, rows] = &self.ffts;
        let some = n1 * V::PACKED;
        image
            .par_chunks_mut(some)
            .for_each(|image| V::rows_forward(rows, image));
        turned.resize(weights.lanes.len(), Lanes::ZERO);
        turned
            .par_chunks_mut(n2)
            .zip(weights.lanes.par_chunks(n2))
            .enumerate()
            .for_each(|(group, (buffer, weights))| {
                V::pack_columns(image, n1, group * V::PACKED, buffer);
                columns.forward(buffer);
                lanes::mul_real(buffer, weights);
                columns.inverse(buffer);
            });
        let turned: &[Lanes] = turned;
        image
            .par_chunks_mut(some)
            .enumerate()
            .for_each(|(i, image)| {
                for (j, row) in image.chunks_exact_mut(n1).enumerate() {
                    let k2 = i * V::PACKED + j;
                    for (group, row) in row.chunks_mut(V::PACKED).enumerate() {
                        V::unpack(&turned[group * n2 + k2], row);
                    }
                }
                V::rows_inverse(rows, image);
            });
    }

    /// The preconditioner of an irregular mask over two axes: the best circulant approximation of the normal operator,
    /// whose diagonal in k-space is the mask averaged over the width of the maps' spectrum. Masks along one axis have
    /// too few points in that width for the average to tell anything: there it costs iterations.
    ///
    /// # Source
    /// Koolstra et al., Magn Reson Med 81:670-685 (2019), for the diagonal; the square roots of the sensitivity on
    /// both sides, for maps that are not of unit norm, are ours.
    fn circulant(&self, maps: &[V], is_same: bool) -> Vec<Circulant> {
        let folding = self.folding;
        let [n2, n1] = folding.grid;
        if folding.is_lattice || n2 == 1 || n1 == 1 {
            return Vec::new();
        }
        let plane = n2 * n1;
        // Index of k-space with its origin in the middle, as the centred transform wants it.
        let centred = |i: usize| (i / n1 + n2 / 2) % n2 * n1 + (i % n1 + n1 / 2) % n1;
        let mut mask = vec![Complex32::ZERO; plane];
        for (i, rest) in folding.rest.iter().enumerate() {
            mask[centred(i)] = Complex32::from(rest + folding.weight);
        }
        fft2(&mut mask, n2, n1, Direction::Forward);
        let of_lane = |maps: &[V], lane: usize| -> [Vec<f32>; 2] {
            let mut spectra: Vec<Complex32> = maps.iter().map(|v| v.get(lane)).collect();
            let density = sum_of_squares(&spectra, plane);
            let inside = density.iter().filter(|d| **d > 0.0).count().max(1) as f32;
            let mean = density.iter().sum::<f32>() / inside;
            fft2(&mut spectra, n2, n1, Direction::Forward);
            let mut local: Vec<Complex32> = sum_of_squares(&spectra, plane)
                .into_iter()
                .map(|power| Complex32::from(power / inside))
                .collect();
            fft2(&mut local, n2, n1, Direction::Forward);
            let scale = (plane as f32).sqrt();
            for (l, m) in local.iter_mut().zip(&mask) {
                *l = m * l.conj() * scale;
            }
            fft2(&mut local, n2, n1, Direction::Inverse);
            let inverse = (0..plane)
                .map(|i| 1.0 / ((local[centred(i)].re.max(0.0) + self.lambda) * plane as f32))
                .collect();
            let full = |d: f32| folding.mean_weight as f32 * d + self.lambda;
            let even = density
                .iter()
                .map(|d| match *d > 0.0 {
                    true => (full(mean) / full(*d)).sqrt(),
                    false => 0.0,
                })
                .collect();
            [even, inverse]
        };
        maps.chunks_exact(maps.len() / self.n_sets)
            .map(|maps| {
                let wanted = if is_same { 1 } else { V::WIDTH };
                let lanes: Vec<_> = (0..wanted).map(|lane| of_lane(maps, lane)).collect();
                let lane = |lane: usize| &lanes[lane % wanted];
                let even = (0..plane * V::WIDTH)
                    .map(|i| lane(i % V::WIDTH)[0][i / V::WIDTH])
                    .collect();
                let inverse = Weights::new::<V>(&self.ffts, |l, k2, k1| lane(l)[1][k2 * n1 + k1]);
                Circulant { even, inverse }
            })
            .collect()
    }

    /// Inverse transform of one plane, in place, neither centred nor scaled.
    fn inverse(&self, image: &mut [V]) {
        let [n2, n1] = self.folding.grid;
        V::rows_inverse(&self.ffts[1], image);
        if n2 > 1 {
            let mut buffer = vec![Lanes::ZERO; n2];
            for start in (0..n1).step_by(V::PACKED) {
                V::pack_columns(image, n1, start, &mut buffer);
                self.ffts[0].inverse(&mut buffer);
                V::unpack_columns(&buffer, image, n1, start);
            }
        }
    }
}

/// One column, or several side by side: maps, and the inverse of the blocks.
pub(super) struct Column<'a, V> {
    shared: &'a Shared<'a, V>,
    n_coils: usize,
    /// `[set, coil, plane]`; coils may be mixtures.
    maps: Vec<V>,
    /// The maps before mixing, for the right-hand side; empty where nothing was mixed.
    unmixed: Vec<V>,
    /// Rows of the plane with any sensitivity.
    is_row: Vec<bool>,
    /// `[member, member, group]` with members `[set, fold]`: each block of the lattice's normal operator, lambda
    /// included; empty where the lattice is the mask.
    normal: Vec<V>,
    /// The same, inverted.
    inverse: Vec<V>,
    /// Diagonal of the noise covariance of the blocks alone, `[set, plane, lane]`; empty where no noise is wanted.
    pub(super) block_variance: Vec<f32>,
    /// Preconditioner of an irregular mask over two axes; empty otherwise.
    circulant: Vec<Circulant>,
    /// Preconditioner of a mask along one axis.
    banded: Option<Banded>,
}

/// A preconditioner `D Fᴴ C F D` of one set: `D` evens out the sensitivity, `C` the local density of the mask.
struct Circulant {
    /// Per voxel `[plane, lane]`; zero where the maps are.
    even: Vec<f32>,
    /// Inverse density of k-space, with the scale of both transforms.
    inverse: Weights,
}

/// What a solve reports.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Done {
    pub(super) iterations: usize,
    pub(super) residual: f64,
}

impl<'a, V: Value> Column<'a, V> {
    /// Takes the maps of this place, `[set, coil, plane]`, and inverts the blocks.
    ///
    /// `unmixed` are the maps of all coils where `maps` are of mixtures, else empty. What mixing leaves out of the
    /// operator counts squared, but the right-hand side would lose it once, with the noise it carries.
    pub(super) fn new(shared: &'a Shared<'a, V>, maps: Vec<V>, unmixed: Vec<V>) -> Self {
        Self::build(shared, maps, unmixed, false)
    }

    /// The column of one lane alone, in every lane.
    pub(super) fn repeated(&self, lane: usize) -> Self {
        let repeat = |maps: &[V]| maps.iter().map(|v| V::splat(v.get(lane))).collect();
        Self::build(self.shared, repeat(&self.maps), repeat(&self.unmixed), true)
    }

    fn build(shared: &'a Shared<'a, V>, maps: Vec<V>, unmixed: Vec<V>, is_same: bool) -> Self {
        let folding = shared.folding;
        let plane = shared.plane();
        let n_coils = maps.len() / (shared.n_sets * plane);
        let folds = folding.members.len();
        let size = folds * shared.n_sets;
        let [rows, width] = folding.domain;
        let banded = shared.is_banded.then(|| {
            let density = sum_of_squares(&maps, plane);
            let full = |d: f32| folding.mean_weight as f32 * d + shared.lambda;
            Banded::new(&maps, &density, &shared.mask, shared.lambda, full)
        });
        // Blocks are wanted to solve, or for the noise.
        let groups = match shared.is_banded && !shared.with_noise {
            true => 0,
            false => rows * width,
        };
        let mut gram = vec![V::ZERO; size * size * groups];
        for i in 0..size {
            for j in 0..=i {
                let block = &mut gram[(i * size + j) * groups..(i * size + j + 1) * groups];
                for (row, out) in block.chunks_exact_mut(width).enumerate() {
                    let a = folding.members[i % folds][row];
                    let b = folding.members[j % folds][row];
                    for coil in 0..n_coils {
                        let map = |set: usize, at: usize| {
                            let start = (set * n_coils + coil) * plane + at;
                            &maps[start..start + width]
                        };
                        V::conj_mul_add(out, map(i / folds, a), map(j / folds, b));
                    }
                }
            }
        }
        let mut normal = if shared.is_exact || shared.is_banded {
            Vec::new()
        } else {
            vec![V::ZERO; gram.len()]
        };
        let variances = if shared.with_noise { size * groups } else { 0 };
        let mut variance = vec![0.0f32; variances * V::WIDTH];
        dispatch(Invert {
            size,
            groups,
            scale: folding.weight / folds as f32,
            lambda: shared.lambda,
            matrix: &mut gram,
            normal: &mut normal,
            variance: &mut variance,
        });
        let mut block_variance = vec![0.0f32; variances / size * folds * shared.n_sets * V::WIDTH];
        if shared.with_noise {
            let width = width * V::WIDTH;
            for member in 0..size {
                for row in 0..rows {
                    let to = (member / folds) * plane + folding.members[member % folds][row];
                    let to = to * V::WIDTH;
                    let from = member * groups * V::WIDTH + row * width;
                    block_variance[to..to + width].copy_from_slice(&variance[from..from + width]);
                }
            }
        }
        let circulant = shared.circulant(&maps, is_same);
        let [n2, n1] = folding.grid;
        let is_row = (0..n2)
            .map(|row| {
                let at = row * n1..(row + 1) * n1;
                maps.chunks_exact(plane)
                    .any(|m| m[at.clone()].iter().any(|v| *v != V::ZERO))
            })
            .collect();
        Self {
            shared,
            n_coils,
            circulant,
            banded,
            is_row,
            maps,
            unmixed,
            normal,
            inverse: gram,
            block_variance,
        }
    }

    fn map(&self, set: usize, coil: usize) -> &[V] {
        map_of(&self.maps, self.n_coils, self.shared.plane(), set, coil)
    }

    /// `z = M⁻¹ r`, block by block, or the circulant one.
    fn precondition(&self, r: &[V], z: &mut [V], room: &mut Room<V>) {
        if let Some(banded) = &self.banded {
            return banded.apply(r, z, &mut room.turned);
        }
        if self.circulant.is_empty() {
            z.fill(V::ZERO);
            self.add_blocks(&self.inverse, r, z);
            return;
        }
        let plane = self.shared.plane();
        for (set, circulant) in self.circulant.iter().enumerate() {
            let z = &mut z[set * plane..(set + 1) * plane];
            z.copy_from_slice(&r[set * plane..(set + 1) * plane]);
            V::mul_real(z, &circulant.even);
            let weights = &circulant.inverse;
            if self.shared.inner_parallel {
                self.shared.filter_parallel(z, weights, &mut room.turned);
            } else {
                self.shared.filter(z, weights, &self.is_row);
            }
            V::mul_real(z, &circulant.even);
        }
    }

    /// `z += B r` for a matrix of blocks.
    fn add_blocks(&self, blocks: &[V], r: &[V], z: &mut [V]) {
        let folding = self.shared.folding;
        let plane = self.shared.plane();
        let folds = folding.members.len();
        let size = folds * self.shared.n_sets;
        let [rows, width] = folding.domain;
        let groups = rows * width;
        for i in 0..size {
            for j in 0..size {
                let block = &blocks[(i * size + j) * groups..(i * size + j + 1) * groups];
                for row in 0..rows {
                    let to = (i / folds) * plane + folding.members[i % folds][row];
                    let from = (j / folds) * plane + folding.members[j % folds][row];
                    V::mul_add(
                        &mut z[to..to + width],
                        &block[row * width..(row + 1) * width],
                        &r[from..from + width],
                    );
                }
            }
        }
    }

    /// `q = (Sᴴ Fᴴ W F S + lambda) p`.
    fn normal(&self, p: &[V], q: &mut [V], room: &mut Room<V>) {
        q.fill(V::ZERO);
        if self.shared.is_banded {
            V::axpy(&[self.shared.lambda; LANES], p, q);
        } else {
            self.add_blocks(&self.normal, p, q);
        }
        let coil_image = |coil: usize, image: &mut [V]| {
            let plane = image.len();
            V::mul(image, self.map(0, coil), &p[..plane]);
            for set in 1..self.shared.n_sets {
                let p = &p[set * plane..(set + 1) * plane];
                V::mul_add(image, self.map(set, coil), p);
            }
            self.shared
                .filter(image, &self.shared.transformed, &self.is_row);
        };
        self.sum_over_coils(&self.maps, coil_image, q, room);
    }

    /// `q += sum over coils of conj(map) image(coil)`, coils in order whatever the number of threads.
    fn sum_over_coils(
        &self,
        maps: &[V],
        coil_image: impl Fn(usize, &mut [V]) + Sync,
        q: &mut [V],
        room: &mut Room<V>,
    ) {
        let plane = self.shared.plane();
        let n_coils = maps.len() / (self.shared.n_sets * plane);
        if !self.shared.inner_parallel {
            room.images.resize(plane, V::ZERO);
            let image = room.images.as_mut_slice();
            for coil in 0..n_coils {
                coil_image(coil, image);
                for (set, q) in q.chunks_exact_mut(plane).enumerate() {
                    V::conj_mul_add(q, map_of(maps, n_coils, plane, set, coil), image);
                }
            }
            return;
        }
        room.images.resize(n_coils * plane, V::ZERO);
        room.images
            .par_chunks_exact_mut(plane)
            .enumerate()
            .for_each(|(coil, image)| coil_image(coil, image));
        const PIECE: usize = 4096;
        for (set, q) in q.chunks_exact_mut(plane).enumerate() {
            q.par_chunks_mut(PIECE).enumerate().for_each(|(i, q)| {
                let range = i * PIECE..i * PIECE + q.len();
                for (coil, image) in room.images.chunks_exact(plane).enumerate() {
                    let map = map_of(maps, n_coils, plane, set, coil);
                    V::conj_mul_add(q, &map[range.clone()], &image[range.clone()]);
                }
            });
        }
    }

    /// `Sᴴ Fᴴ W y` from samples `[coil, line]`.
    pub(super) fn adjoint(&self, samples: &[V], room: &mut Room<V>) -> Vec<V> {
        let factors = &self.shared.line_factors;
        let n_lines = factors.len();
        let coil_image = |coil: usize, image: &mut [V]| {
            image.fill(V::ZERO);
            let mut line = vec![V::ZERO; n_lines];
            V::mul(&mut line, &samples[coil * n_lines..], factors);
            for (place, v) in self.shared.line_places.iter().zip(line) {
                image[*place] = v;
            }
            self.shared.inverse(image);
        };
        let maps = if self.unmixed.is_empty() {
            &self.maps
        } else {
            &self.unmixed
        };
        let mut b = vec![V::ZERO; self.shared.n_sets * self.shared.plane()];
        self.sum_over_coils(maps, coil_image, &mut b, room);
        b
    }

    /// Solves the regularised normal equations for the right-hand side `b`; exact where the lattice is the mask.
    ///
    /// Problems side by side take the same number of iterations: until all of them have reached their tolerance.
    pub(super) fn solve(
        &self,
        b: &[V],
        max_iterations: usize,
        tolerance: &PerLane<f64>,
        room: &mut Room<V>,
    ) -> (Vec<V>, PerLane<Done>) {
        let n = b.len();
        let mut done = [Done::default(); LANES];
        let mut z = vec![V::ZERO; n];
        self.precondition(b, &mut z, room);
        if self.shared.is_exact {
            return (z, done);
        }
        let start = V::dot_real(b, &z);
        let mut x = vec![V::ZERO; n];
        let mut r = b.to_vec();
        let mut p = vec![V::ZERO; n];
        let mut q = vec![V::ZERO; n];
        let mut rho = start;
        let mut beta = [0.0f32; LANES];
        // Problems that go on: not those without data, nor those that rounding has ended.
        let mut is_alive = start.map(|s| s > 0.0);
        for iteration in 0.. {
            let mut is_done = true;
            for l in 0..V::WIDTH {
                if is_alive[l] {
                    done[l] = Done {
                        iterations: iteration,
                        residual: (rho[l].max(0.0) / start[l]).sqrt(),
                    };
                    is_done &= done[l].residual <= tolerance[l];
                    is_alive[l] = rho[l] > 0.0;
                }
            }
            if is_done || iteration >= max_iterations {
                break;
            }
            V::xpby(&z, &beta, &mut p);
            self.normal(&p, &mut q, room);
            let curvature = V::dot_real(&p, &q);
            let mut alpha = [0.0f32; LANES];
            for l in 0..V::WIDTH {
                is_alive[l] &= curvature[l] > 0.0; // else rounding: nothing more to gain along p
                if is_alive[l] {
                    alpha[l] = (rho[l] / curvature[l]) as f32;
                }
            }
            V::axpy(&alpha, &p, &mut x);
            V::axpy(&alpha.map(|a| -a), &q, &mut r);
            self.precondition(&r, &mut z, room);
            let next = V::dot_real(&r, &z);
            for l in 0..V::WIDTH {
                beta[l] = if is_alive[l] {
                    (next[l] / rho[l]) as f32
                } else {
                    0.0
                };
            }
            rho = next;
        }
        (x, done)
    }
}

fn map_of<V>(maps: &[V], n_coils: usize, plane: usize, set: usize, coil: usize) -> &[V] {
    let start = (set * n_coils + coil) * plane;
    &maps[start..start + plane]
}

/// Sum of squares over coils of `[coil, plane]`: `[plane, lane]`.
pub(super) fn sum_of_squares<V: Value>(maps: &[V], plane: usize) -> Vec<f32> {
    let mut density = vec![0.0f32; plane * V::WIDTH];
    for map in maps.chunks_exact(plane) {
        V::add_power(&mut density, map);
    }
    density
}

/// Inverts `scale * matrix + lambda` for many small Hermitian matrices at once, and the diagonal of the noise
/// covariance `(N + lambda)⁻¹ N (N + lambda)⁻¹`.
struct Invert<'a, V> {
    size: usize,
    groups: usize,
    scale: f32,
    lambda: f32,
    /// `[i, j, group]`, lower triangle given, all of the inverse returned.
    matrix: &'a mut [V],
    /// All of `scale * matrix + lambda`, where there is room for it.
    normal: &'a mut [V],
    /// `[i, group, lane]`, where there is room for it.
    variance: &'a mut [f32],
}

impl<V: Value> Kernel for Invert<'_, V> {
    type Out = ();
    #[inline(always)]
    #[allow(
        clippy::needless_range_loop,
        reason = "lanes of several arrays share one index: the form that is vectorised"
    )]
    fn run<const FMA: bool>(self) {
        let n = self.size;
        let mut re = vec![[0.0f64; LANES]; n * n];
        let mut im = vec![[0.0f64; LANES]; n * n];
        let lambda = f64::from(self.lambda);
        for start in (0..self.groups).step_by(V::PACKED) {
            let at = |i: usize, j: usize| {
                let from = (i * n + j) * self.groups;
                from + start..from + (start + V::PACKED).min(self.groups)
            };
            for i in 0..n {
                for j in 0..=i {
                    let mut v = V::pack(&self.matrix[at(i, j)]);
                    let (re_ij, im_ij) = (&mut re[i * n + j], &mut im[i * n + j]);
                    for l in 0..LANES {
                        v.re[l] *= self.scale;
                        v.im[l] *= self.scale;
                        if i == j {
                            v.re[l] += self.lambda;
                            v.im[l] = 0.0;
                        }
                        re_ij[l] = f64::from(v.re[l]);
                        im_ij[l] = f64::from(v.im[l]);
                    }
                    re[j * n + i] = re[i * n + j];
                    im[j * n + i] = im[i * n + j].map(|v| -v);
                    if !self.normal.is_empty() {
                        V::unpack(&v, &mut self.normal[at(i, j)]);
                        v.im = v.im.map(|v| -v);
                        V::unpack(&v, &mut self.normal[at(j, i)]);
                    }
                }
            }
            // Gauss-Jordan without pivoting: stable for positive definite matrices.
            for k in 0..n {
                let mut pivot = [0.0f64; LANES];
                for l in 0..LANES {
                    pivot[l] = 1.0 / re[k * n + k][l];
                }
                re[k * n + k] = [1.0; LANES];
                im[k * n + k] = [0.0; LANES];
                for j in 0..n {
                    for l in 0..LANES {
                        re[k * n + j][l] *= pivot[l];
                        im[k * n + j][l] *= pivot[l];
                    }
                }
                for i in 0..n {
                    if i == k {
                        continue;
                    }
                    let (factor_re, factor_im) = (re[i * n + k], im[i * n + k]);
                    re[i * n + k] = [0.0; LANES];
                    im[i * n + k] = [0.0; LANES];
                    for j in 0..n {
                        let (row_re, row_im) = (re[k * n + j], im[k * n + j]);
                        let (a, b) = (&mut re[i * n + j], &mut im[i * n + j]);
                        for l in 0..LANES {
                            let (fr, fi) = (factor_re[l], factor_im[l]);
                            a[l] -= fr * row_re[l] - fi * row_im[l];
                            b[l] -= fr * row_im[l] + fi * row_re[l];
                        }
                    }
                }
            }
            for i in 0..n {
                let mut squares = [0.0f64; LANES];
                for j in 0..n {
                    let (a, b) = (&re[i * n + j], &im[i * n + j]);
                    let mut v = Lanes::ZERO;
                    for l in 0..LANES {
                        squares[l] += a[l] * a[l] + b[l] * b[l];
                        v.re[l] = a[l] as f32;
                        v.im[l] = b[l] as f32;
                    }
                    V::unpack(&v, &mut self.matrix[at(i, j)]);
                }
                if !self.variance.is_empty() {
                    let first = (i * self.groups + start) * V::WIDTH;
                    let end = (first + LANES).min((i + 1) * self.groups * V::WIDTH);
                    for (l, v) in self.variance[first..end].iter_mut().enumerate() {
                        *v = (re[i * n + i][l] - lambda * squares[l]).max(0.0) as f32;
                    }
                }
            }
        }
    }
}
