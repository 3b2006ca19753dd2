//! All columns of a frame: gathers maps and samples, solves, and puts voxels and noise back in order.

use num_complex::Complex32;
use rayon::prelude::*;

use super::column::{Column, Done, Room, Shared, sum_of_squares};
use super::compress::Mixture;
use super::lattice::Folding;
use super::value::{PerLane, Value};
use super::{SenseImage, SenseParams, noise};
use crate::data::{Csm, KSpace};
use crate::num::fft::{Direction, Fft};
use crate::num::lanes::{LANES, Lanes};

/// Least relative Tikhonov weight: keeps blocks without sensitivity invertible in f32.
pub(super) const LEAST_LAMBDA: f32 = 1e-6;

/// What neighbouring columns yield: `[set, plane]` of values, `[set, plane, lane]` of numbers.
struct Solved<V> {
    voxels: Vec<V>,
    /// Variance of the lattice part per component; empty without a noise map.
    variance: Vec<f32>,
    /// Sum of squares of the maps.
    density: Vec<f32>,
    /// Mean squared magnitude of the replicas per component, `[set, plane]` of each column where they ran.
    power: Vec<Vec<f32>>,
    done: PerLane<Done>,
}

/// Everything that the columns of a frame have in common.
struct Job<'a, V> {
    shared: Shared<'a, V>,
    params: &'a SenseParams,
    csm: &'a Csm,
    /// Lines transformed along the readout, `[coil, line, x]`.
    hybrid: Vec<Complex32>,
    /// Of each column.
    tolerance: Vec<f64>,
    /// What mixing may leave out: the Tikhonov weight over the largest weight of a line.
    limit: f32,
    replicas: usize,
}

pub(super) fn run(
    folding: &Folding,
    kspace: &KSpace,
    csm: &Csm,
    params: &SenseParams,
    lambda: f32,
) -> SenseImage {
    if kspace.shape.ro < LANES {
        run_as::<Complex32>(folding, kspace, csm, params, lambda)
    } else {
        run_as::<Lanes>(folding, kspace, csm, params, lambda)
    }
}

fn run_as<V: Value>(
    folding: &Folding,
    kspace: &KSpace,
    csm: &Csm,
    params: &SenseParams,
    lambda: f32,
) -> SenseImage {
    let nx = kspace.shape.ro;
    let mut hybrid = kspace.samples.clone();
    if nx > 1 {
        Fft::plan(nx, Direction::Inverse).run_rows(&mut hybrid);
    }
    // Every column to the same error against the frame, not against its own faint content.
    let energy = energy_of_columns(&hybrid, nx);
    let mean_energy = energy.iter().sum::<f64>() / nx as f64;
    let loosened: Vec<f64> = energy
        .iter()
        .map(|e| (mean_energy / e).sqrt().max(1.0))
        .collect();
    let threads = rayon::current_num_threads();
    let n_blocks = nx.div_ceil(V::WIDTH);
    let inner_parallel = n_blocks < threads && threads > 1;
    let lambda = lambda.max(LEAST_LAMBDA) * folding.mean_weight as f32;
    let heaviest = folding.weights.iter().copied().fold(1.0, f32::max);
    let job = Job {
        shared: Shared::new(
            folding,
            csm.n_sets,
            lambda,
            params.noise_map,
            inner_parallel,
        ),
        params,
        csm,
        hybrid,
        tolerance: loosened.iter().map(|l| params.tolerance * l).collect(),
        limit: lambda / heaviest,
        replicas: if params.noise_map && !folding.is_exact() {
            params.replicas
        } else {
            0
        },
    };
    let solved: Vec<Solved<V>> = if inner_parallel {
        (0..n_blocks).map(|i| job.solve(i * V::WIDTH)).collect()
    } else {
        (0..n_blocks)
            .into_par_iter()
            .map(|i| job.solve(i * V::WIDTH))
            .collect()
    };

    let plane = job.shared.plane();
    let n = csm.n_sets * plane * nx;
    let mut voxels = vec![Complex32::ZERO; n];
    voxels
        .par_chunks_mut(nx)
        .enumerate()
        .for_each(|(row, out)| {
            for (out, block) in out.chunks_mut(V::WIDTH).zip(&solved) {
                block.voxels[row].store(out);
            }
        });
    let (noise_std, gfactor) = if params.noise_map {
        let numbers = |part: fn(&Solved<V>) -> &[f32]| {
            let mut all = vec![0.0f32; n];
            all.par_chunks_mut(nx).enumerate().for_each(|(row, out)| {
                for (out, block) in out.chunks_mut(V::WIDTH).zip(&solved) {
                    out.copy_from_slice(&part(block)[row * V::WIDTH..][..out.len()]);
                }
            });
            all
        };
        let mut variance = numbers(|block| &block.variance);
        let density = numbers(|block| &block.density);
        if job.replicas > 0 {
            let measured: Vec<&Vec<f32>> = solved.iter().flat_map(|block| &block.power).collect();
            for (set, variance) in variance.chunks_exact_mut(plane * nx).enumerate() {
                let power: Vec<f32> = (set * plane..(set + 1) * plane)
                    .flat_map(|row| measured.iter().map(move |power| power[row]))
                    .collect();
                noise::scale_by_replicas(variance, &power, csm.matrix);
            }
        }
        let std: Vec<f32> = variance.iter().map(|v| v.sqrt()).collect();
        let fraction = folding.mean_weight as f32;
        let gfactor = std
            .iter()
            .zip(&density)
            .map(|(s, d)| s * (d * fraction).sqrt())
            .collect();
        (Some(std), Some(gfactor))
    } else {
        (None, None)
    };
    let done = || {
        let columns = solved.iter().flat_map(|block| &block.done[..V::WIDTH]);
        columns.zip(&loosened)
    };
    SenseImage {
        voxels,
        noise_std,
        gfactor,
        iterations: done().map(|(d, _)| d.iterations).max().unwrap_or(0),
        residual: done().map(|(d, l)| d.residual / l).fold(0.0, f64::max),
    }
}

impl<V: Value> Job<'_, V> {
    /// Solves the columns from `first` that lie side by side.
    fn solve(&self, first: usize) -> Solved<V> {
        let (nx, n_coils) = (self.csm.matrix[2], self.csm.n_coils);
        let plane = self.shared.plane();
        let n = self.shared.n_sets * plane;
        let columns = first..(first + V::WIDTH).min(nx);
        let stride = noise::stride(nx);
        let measured = columns
            .clone()
            .filter(|x| self.replicas > 0 && x % stride == stride / 2);
        let mut maps: Vec<V> = V::gather(&self.csm.maps, nx, first);
        let density: Vec<f32> = maps
            .chunks_exact(n_coils * plane)
            .flat_map(|set| sum_of_squares(set, plane))
            .collect();
        if density.iter().all(|d| *d == 0.0) {
            return Solved {
                voxels: vec![V::ZERO; n],
                variance: vec![0.0; density.len()],
                power: measured.map(|_| vec![0.0; n]).collect(),
                density,
                done: Default::default(),
            };
        }
        let samples: Vec<V> = V::gather(&self.hybrid, nx, first);
        let mut unmixed = Vec::new();
        // Unfolding needs each coil once: only iterations repay mixing them.
        if !self.shared.folding.is_exact()
            && let Some(mixture) = Mixture::of(&maps, n_coils, plane, self.limit)
            && let Some(mixed) = mixture.maps(&maps, &density, plane, self.limit)
        {
            unmixed = std::mem::replace(&mut maps, mixed);
        }
        let mut room = Room::default();
        let column = Column::new(&self.shared, maps, unmixed);
        let b = column.adjoint(&samples, &mut room);
        let mut tolerance = [f64::INFINITY; LANES];
        tolerance[..columns.len()].copy_from_slice(&self.tolerance[columns]);
        let (mut voxels, done) =
            column.solve(&b, self.params.max_iterations, &tolerance, &mut room);
        let power = measured
            .map(|x| self.replicate(&column, x - first, x, [&b, &voxels], &done, &mut room))
            .collect();
        for voxels in voxels.chunks_exact_mut(plane) {
            let unturned = voxels.to_vec();
            V::mul(voxels, &unturned, &self.shared.voxel_phase);
        }
        let mut variance = column.block_variance;
        for (v, d) in variance.iter_mut().zip(&density) {
            if *d == 0.0 {
                *v = 0.0;
            }
        }
        Solved {
            voxels,
            variance,
            density,
            power,
            done,
        }
    }

    /// Mean squared magnitude per component, `[set, plane]`, of the noise of the image at place `x`, which is `lane`
    /// of `columns`; as many replicas at a time as go side by side.
    ///
    /// `solved` are the columns' right-hand side and its solution. A replica is the difference that added noise makes
    /// after as many iterations as the image took: iterations that end early leave out part of the noise, and which
    /// part follows from the image, not from the noise. Noise on its own would be solved further and show too much.
    fn replicate(
        &self,
        columns: &Column<'_, V>,
        lane: usize,
        x: usize,
        solved: [&[V]; 2],
        done: &PerLane<Done>,
        room: &mut Room<V>,
    ) -> Vec<f32> {
        let column = columns.repeated(lane);
        let [b, image] =
            solved.map(|v| -> Vec<V> { v.iter().map(|v| V::splat(v.get(lane))).collect() });
        let energy = V::dot_real(&b, &b)[0];
        // Without signal there is nothing but the noise to iterate for.
        let (iterations, tolerance) = match energy > 0.0 {
            true => (done[lane].iterations, 0.0),
            false => (self.params.max_iterations, self.params.tolerance),
        };
        let weights = &self.shared.folding.weights;
        let mut power = vec![0.0f32; self.shared.n_sets * self.shared.plane()];
        let mut rng = noise::rng(x);
        for start in (0..self.replicas).step_by(V::WIDTH) {
            let some = V::WIDTH.min(self.replicas - start);
            let mut noise = vec![V::ZERO; self.csm.n_coils * weights.len()];
            for lane in 0..some {
                for (i, v) in noise.iter_mut().enumerate() {
                    v.set(
                        lane,
                        rng.normal() * (1.0 / weights[i % weights.len()].sqrt()),
                    );
                }
            }
            let mut noisy = column.adjoint(&noise, room);
            let gain = V::dot_real(&noisy, &noisy).map(|noise_energy| {
                if energy > 0.0 && noise_energy > 0.0 {
                    (noise::LEAST * (energy / noise_energy).sqrt()).max(noise::SMALL) as f32
                } else {
                    1.0
                }
            });
            V::xpby(&b, &gain, &mut noisy);
            let (mut found, _) = column.solve(&noisy, iterations, &[tolerance; LANES], room);
            V::axpy(&[-1.0; LANES], &image, &mut found);
            for (lane, gain) in gain.iter().enumerate().take(some) {
                let found = found.iter().map(|v| v.get(lane) * (1.0 / gain));
                noise::add_power(&mut power, found, self.replicas);
            }
        }
        power
    }
}

/// Energy of each column of `[rows, nx]`.
fn energy_of_columns(data: &[Complex32], nx: usize) -> Vec<f64> {
    // Pieces of fixed size: the same sum for any number of threads.
    const ROWS: usize = 256;
    let parts: Vec<Vec<f64>> = data
        .par_chunks(nx * ROWS)
        .map(|rows| {
            let mut sum = vec![0.0f32; nx];
            for row in rows.chunks_exact(nx) {
                for (s, v) in sum.iter_mut().zip(row) {
                    *s += v.norm_sqr();
                }
            }
            sum.into_iter().map(f64::from).collect()
        })
        .collect();
    let mut energy = vec![0.0f64; nx];
    for part in parts {
        for (e, p) in energy.iter_mut().zip(part) {
            *e += p;
        }
    }
    energy
}
