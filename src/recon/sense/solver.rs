//! All columns of a frame: gathers maps and samples, solves, and puts voxels and noise back in order.

use num_complex::Complex32;
use rayon::prelude::*;

use super::column::{Column, Done, Shared};
use super::compress::{Mixture, sum_of_squares};
use super::lattice::Folding;
use super::{SenseImage, SenseParams, noise};
use crate::data::{Csm, KSpace};
use crate::num::fft::{Direction, Fft};
use crate::num::rng::Rng;

/// Columns that are gathered together: one cache line of complex values along the readout.
const BLOCK: usize = 8;
/// Least relative Tikhonov weight: keeps blocks without sensitivity invertible in f32.
const LEAST_LAMBDA: f32 = 1e-6;

/// What one column yields, every array `[set, plane]`.
struct Solved {
    voxels: Vec<Complex32>,
    /// Variance of the lattice part per component.
    variance: Vec<f32>,
    /// Mean squared magnitude of the replicas per component; empty where none ran.
    power: Vec<f32>,
    /// Sum of squares of the maps.
    density: Vec<f32>,
    done: Done,
}

pub(super) fn run(
    folding: &Folding,
    kspace: &KSpace,
    csm: &Csm,
    params: &SenseParams,
    lambda: f32,
) -> SenseImage {
    let shape = kspace.shape;
    let nx = shape.ro;
    let plane = shape.pe2 * shape.pe1;
    let n_lines = kspace.lines.len();
    // Hybrid space: lines transformed along the readout.
    let mut hybrid = kspace.samples.clone();
    if nx > 1 {
        Fft::plan(nx, Direction::Inverse).run_rows(&mut hybrid);
    }
    let energy = energy_of_columns(&hybrid, nx);
    let mean_energy = energy.iter().sum::<f64>() / nx as f64;
    let threads = rayon::current_num_threads();
    let n_blocks = nx.div_ceil(BLOCK);
    let inner_parallel = n_blocks < threads && threads > 1;
    let lambda = lambda.max(LEAST_LAMBDA) * folding.mean_weight as f32;
    let shared = Shared::new(folding, csm.n_sets, lambda, inner_parallel);
    let heaviest = folding.weights.iter().copied().fold(1.0, f32::max);
    let limit = lambda / heaviest;
    let replicas = if params.noise_map && !folding.is_exact() {
        params.replicas
    } else {
        0
    };

    let solve_block = |block: usize| -> Vec<Solved> {
        let first = block * BLOCK;
        let width = BLOCK.min(nx - first);
        let maps = gather(
            &csm.maps,
            csm.n_sets * csm.n_coils * plane,
            nx,
            first,
            width,
        );
        let samples = gather(&hybrid, shape.coil * n_lines, nx, first, width);
        // Unfolding needs each coil once: only iterations repay mixing them.
        let mixture = (!folding.is_exact())
            .then(|| Mixture::of(&maps, csm.n_coils, plane, limit))
            .flatten();
        maps.into_iter()
            .zip(samples)
            .enumerate()
            .map(|(i, (mut maps, samples))| {
                let density: Vec<f32> = maps
                    .chunks_exact(csm.n_coils * plane)
                    .flat_map(|set| sum_of_squares(set, plane))
                    .collect();
                let mut unmixed = Vec::new();
                if let Some(mixture) = &mixture
                    && let Some(mixed) = mixture.maps(&maps, &density, plane, limit)
                {
                    unmixed = std::mem::replace(&mut maps, mixed);
                }
                // Every column to the same error against the frame, not against its own faint content.
                let loosened = (mean_energy / energy[first + i]).sqrt().max(1.0);
                solve_column(
                    &shared,
                    [maps, unmixed],
                    density,
                    &samples,
                    params,
                    loosened,
                    replicas,
                    first + i,
                    nx,
                )
            })
            .collect()
    };
    let solved: Vec<Vec<Solved>> = if inner_parallel {
        (0..n_blocks).map(solve_block).collect()
    } else {
        (0..n_blocks).into_par_iter().map(solve_block).collect()
    };
    let solved: Vec<Solved> = solved.into_iter().flatten().collect();
    let columns: Vec<&Solved> = solved.iter().collect();

    let n = csm.n_sets * plane * nx;
    let mut voxels = vec![Complex32::ZERO; n];
    scatter(&mut voxels, &columns, |c| &c.voxels);
    let (noise_std, gfactor) = if params.noise_map {
        let mut variance = vec![0.0f32; n];
        scatter(&mut variance, &columns, |c| &c.variance);
        let mut density = vec![0.0f32; n];
        scatter(&mut density, &columns, |c| &c.density);
        if replicas > 0 {
            let measured: Vec<&Solved> = columns
                .iter()
                .copied()
                .filter(|c| !c.power.is_empty())
                .collect();
            let places = measured.len();
            let mut power = vec![0.0f32; csm.n_sets * plane * places];
            scatter(&mut power, &measured, |c| &c.power);
            for (variance, power) in variance
                .chunks_exact_mut(plane * nx)
                .zip(power.chunks_exact(plane * places))
            {
                noise::scale_by_replicas(variance, power, csm.matrix);
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
    SenseImage {
        voxels,
        noise_std,
        gfactor,
        iterations: columns.iter().map(|c| c.done.iterations).max().unwrap_or(0),
        residual: columns.iter().map(|c| c.done.residual).fold(0.0, f64::max),
    }
}

#[allow(clippy::too_many_arguments, reason = "what belongs to one column")]
fn solve_column(
    shared: &Shared<'_>,
    [maps, unmixed]: [Vec<Complex32>; 2],
    density: Vec<f32>,
    samples: &[Complex32],
    params: &SenseParams,
    loosened: f64,
    replicas: usize,
    x: usize,
    nx: usize,
) -> Solved {
    let plane = shared.plane();
    let n = shared.n_sets * plane;
    let stride = noise::stride(nx);
    let is_measured = replicas > 0 && x % stride == stride / 2;
    if density.iter().all(|d| *d == 0.0) {
        return Solved {
            voxels: vec![Complex32::ZERO; n],
            variance: vec![0.0; n],
            power: if is_measured {
                vec![0.0; n]
            } else {
                Vec::new()
            },
            density,
            done: Done::default(),
        };
    }
    let column = Column::new(shared, maps, unmixed);
    let b = column.adjoint(samples);
    let (mut voxels, mut done) =
        column.solve(&b, params.max_iterations, params.tolerance * loosened);
    done.residual /= loosened;
    for voxels in voxels.chunks_exact_mut(plane) {
        for (v, phase) in voxels.iter_mut().zip(&shared.folding.voxel_phase) {
            *v *= phase;
        }
    }
    let mut power = Vec::new();
    if is_measured {
        power.resize(n, 0.0f32);
        // A seed of its own for every column: the same noise whatever thread works on it.
        let mut rng = Rng::new(0x5e45_e000 + x as u64);
        for _ in 0..replicas {
            let noise: Vec<Complex32> = (0..samples.len())
                .map(|i| {
                    rng.normal()
                        * (1.0 / shared.folding.weights[i % shared.folding.weights.len()].sqrt())
                })
                .collect();
            let b = column.adjoint(&noise);
            let (image, _) = column.solve(&b, params.max_iterations, params.tolerance);
            noise::add_power(&mut power, &image, replicas);
        }
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
        power,
        density,
        done,
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

/// Columns `first..first + width` of `[rows, nx]`, each contiguous.
fn gather(
    data: &[Complex32],
    rows: usize,
    nx: usize,
    first: usize,
    width: usize,
) -> Vec<Vec<Complex32>> {
    let mut columns: Vec<Vec<Complex32>> =
        (0..width).map(|_| vec![Complex32::ZERO; rows]).collect();
    if let [only] = columns.as_mut_slice() {
        for (to, row) in only.iter_mut().zip(data.chunks_exact(nx)) {
            *to = row[first];
        }
        return columns;
    }
    // Eight rows at a time, so that every column takes whole cache lines: all columns lie at the same place of a page,
    // and eight streams of single values would push each other out of the cache.
    let mut tile = [[Complex32::ZERO; BLOCK]; BLOCK];
    for (i, rows) in data.chunks(nx * BLOCK).enumerate() {
        let height = rows.len() / nx;
        for (k, row) in rows.chunks_exact(nx).enumerate() {
            for (j, v) in row[first..first + width].iter().enumerate() {
                tile[j][k] = *v;
            }
        }
        for (column, tile) in columns.iter_mut().zip(&tile) {
            column[i * BLOCK..i * BLOCK + height].copy_from_slice(&tile[..height]);
        }
    }
    columns
}

/// Puts columns back: `[rows, nx]`.
fn scatter<T: Copy + Send + Sync>(
    out: &mut [T],
    columns: &[&Solved],
    part: impl Fn(&Solved) -> &[T] + Sync,
) {
    let nx = columns.len();
    out.par_chunks_mut(nx).enumerate().for_each(|(row, out)| {
        for (v, column) in out.iter_mut().zip(columns) {
            *v = part(column)[row];
        }
    });
}
