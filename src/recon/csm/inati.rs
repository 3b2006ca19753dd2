//! Inati's iterative maps: smooth the coil images weighted by the combined image, normalise, combine again.
//!
//! # Source
//! Inati, Hansen and Kellman, ISMRM 22:4407 (2014); the steps are those of Gadgetron's `coil_map_2d_Inati_Iter`. Ours
//! averages blocks that end at the edge of the image, where that one takes the image as periodic or mirrored.
#![allow(
    clippy::needless_range_loop,
    reason = "lanes of several arrays share one index: the form that is vectorised"
)]

use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

use super::{Calibration, CsmError, CsmParams, principal_component};
use crate::data::{Csm, KSpace};
use crate::num::complex::{conj_mul_add, norm2};

/// Relative change of the combined image at which the iteration ends.
const CHANGE: f64 = 1e-3;

pub(super) fn maps(acs: &KSpace, matrix: [usize; 3], params: &CsmParams) -> Result<Csm, CsmError> {
    let calibration = Calibration::extract(acs, params.calibration)?;
    calibration.require(acs, 4)?;
    let gauge = principal_component(&calibration)?;
    let images = calibration.low_resolution(matrix);
    let n_coils = calibration.n_coils;
    let n = matrix.iter().product();
    let mut maps = iterate(
        &images,
        n_coils,
        matrix,
        params.block / 2,
        params.iterations,
    );
    let (power, floor) = super::walsh::floor(&images, n_coils, params.signal_floor);
    // Unit norm, the phase of the virtual coil, and zero without signal, as for the other methods.
    let mut norm = vec![0.0f32; n];
    let mut projection = vec![Complex32::ZERO; n];
    for (coil, weight) in maps.chunks_exact(n).zip(&gauge) {
        for ((v, norm), p) in coil.iter().zip(&mut norm).zip(&mut projection) {
            *norm += v.norm_sqr();
            *p += weight.conj() * v;
        }
    }
    for coil in maps.chunks_exact_mut(n) {
        for (i, v) in coil.iter_mut().enumerate() {
            let size = projection[i].norm();
            *v = if power[i] <= floor || norm[i] <= 0.0 || size <= 0.0 {
                Complex32::ZERO
            } else {
                *v * projection[i].conj() / (size * norm[i].sqrt())
            };
        }
    }
    Ok(Csm {
        n_sets: 1,
        n_coils,
        matrix,
        maps,
    })
}

/// Unit vector of the sums over all voxels of each coil.
fn mean_vector(images: &[Complex32], n: usize) -> Vec<Complex32> {
    let sums: Vec<Complex64> = images
        .par_chunks_exact(n)
        .map(|coil| {
            coil.iter()
                .map(|v| Complex64::new(v.re.into(), v.im.into()))
                .sum()
        })
        .collect();
    let norm = sums
        .iter()
        .map(|v| v.norm_sqr())
        .sum::<f64>()
        .sqrt()
        .max(f64::MIN_POSITIVE);
    sums.iter()
        .map(|v| Complex32::new((v.re / norm) as f32, (v.im / norm) as f32))
        .collect()
}

fn iterate(
    images: &[Complex32],
    n_coils: usize,
    matrix: [usize; 3],
    half: usize,
    iterations: usize,
) -> Vec<Complex32> {
    let n: usize = matrix.iter().product();
    let mut combined = vec![Complex32::ZERO; n];
    for (coil, weight) in images.chunks_exact(n).zip(mean_vector(images, n)) {
        for (sum, v) in combined.iter_mut().zip(coil) {
            *sum += weight.conj() * v;
        }
    }
    let mut maps = vec![Complex32::ZERO; n_coils * n];
    for _ in 0..iterations.max(1) {
        let before = combined.clone();
        maps.par_chunks_exact_mut(n)
            .zip(images.par_chunks_exact(n))
            .for_each(|(map, image)| {
                for ((map, image), combined) in map.iter_mut().zip(image).zip(&before) {
                    *map = image * combined.conj();
                }
                box_sum(map, matrix, half);
            });
        let mut power = vec![0.0f32; n];
        for map in maps.chunks_exact(n) {
            for (power, v) in power.iter_mut().zip(map) {
                *power += v.norm_sqr();
            }
        }
        let inverse: Vec<f32> = power
            .iter()
            .map(|p| if *p > 0.0 { 1.0 / p.sqrt() } else { 0.0 })
            .collect();
        combined.fill(Complex32::ZERO);
        for (map, image) in maps.chunks_exact_mut(n).zip(images.chunks_exact(n)) {
            for (v, w) in map.iter_mut().zip(&inverse) {
                *v *= w;
            }
            conj_mul_add(&mut combined, map, image);
        }
        // The mean map weighted by the image fixes the phase that map and image may exchange.
        let weighted: Vec<Complex32> = maps
            .chunks_exact(n)
            .flat_map(|map| map.iter().zip(&combined).map(|(m, r)| m * r))
            .collect();
        let mean = mean_vector(&weighted, n);
        let mut phase = vec![Complex32::ZERO; n];
        for (map, weight) in maps.chunks_exact(n).zip(&mean) {
            for (phase, v) in phase.iter_mut().zip(map) {
                *phase += weight.conj() * v;
            }
        }
        for v in &mut phase {
            let size = v.norm();
            *v = if size > 0.0 {
                *v / size
            } else {
                Complex32::ONE
            };
        }
        for (r, phase) in combined.iter_mut().zip(&phase) {
            *r *= phase;
        }
        for map in maps.chunks_exact_mut(n) {
            for (v, phase) in map.iter_mut().zip(&phase) {
                *v *= phase.conj();
            }
        }
        let change: Vec<Complex32> = combined.iter().zip(&before).map(|(a, b)| a - b).collect();
        if norm2(&change) < CHANGE * CHANGE * norm2(&combined) {
            break;
        }
    }
    maps
}

/// Sum over a block of `2 half + 1` voxels along every axis; the block ends at the edge.
fn box_sum(image: &mut [Complex32], matrix: [usize; 3], half: usize) {
    let mut line = Vec::new();
    for axis in 0..3 {
        let n = matrix[axis];
        if n == 1 {
            continue;
        }
        let inner: usize = matrix[axis + 1..].iter().product();
        for block in image.chunks_exact_mut(n * inner) {
            for i in 0..inner {
                line.clear();
                line.extend((0..n).map(|k| block[k * inner + i]));
                for k in 0..n {
                    block[k * inner + i] = line[k.saturating_sub(half)..(k + half + 1).min(n)]
                        .iter()
                        .sum();
                }
            }
        }
    }
}
