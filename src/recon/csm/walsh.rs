//! Walsh's adaptive maps: the dominant eigenvector of the coil covariance over a block of voxels.
#![allow(
    clippy::needless_range_loop,
    reason = "lanes of several arrays share one index: the form that is vectorised"
)]

use num_complex::Complex32;
use rayon::prelude::*;

use super::eigen::{LANES, Workspace, packed_index};
use super::{Calibration, CsmError, CsmParams, principal_component};
use crate::data::{Csm, KSpace};
use crate::num::complex::{Kernel, dispatch, fma};

pub(super) fn maps(acs: &KSpace, matrix: [usize; 3], params: &CsmParams) -> Result<Csm, CsmError> {
    let calibration = Calibration::extract(acs, params.calibration)?;
    calibration.require(acs, 4)?;
    let gauge = principal_component(&calibration)?;
    let images = calibration.low_resolution(matrix);
    let n_coils = calibration.n_coils;
    let maps = eigenvectors(&images, n_coils, matrix, params, &gauge);
    Ok(Csm {
        n_sets: 1,
        n_coils,
        matrix,
        maps,
    })
}

/// Root of the sum of squares over the coils, `[z, y, x]`, below which voxels are masked, as a squared value.
pub(super) fn floor(images: &[Complex32], n_coils: usize, signal_floor: f32) -> (Vec<f32>, f32) {
    let n = images.len() / n_coils.max(1);
    let mut power = vec![0.0f32; n];
    for coil in images.chunks_exact(n) {
        for (p, v) in power.iter_mut().zip(coil) {
            *p += v.norm_sqr();
        }
    }
    let largest = power.iter().copied().fold(0.0, f32::max);
    (power, largest * signal_floor * signal_floor)
}

fn eigenvectors(
    images: &[Complex32],
    n_coils: usize,
    matrix: [usize; 3],
    params: &CsmParams,
    gauge: &[Complex32],
) -> Vec<Complex32> {
    let [_, ny, nx] = matrix;
    let (power, floor) = floor(images, n_coils, params.signal_floor);
    let mut maps = vec![Complex32::ZERO; images.len()];
    let n_rows = images.len() / n_coils / nx;
    let mut rows: Vec<Vec<&mut [Complex32]>> = (0..n_rows).map(|_| Vec::new()).collect();
    for (i, row) in maps.chunks_exact_mut(nx).enumerate() {
        rows[i % n_rows].push(row);
    }
    rows.par_iter_mut().enumerate().for_each(|(row, out)| {
        dispatch(Row {
            images,
            n_coils,
            matrix,
            half: params.block / 2,
            z: row / ny,
            y: row % ny,
            power: &power[row * nx..(row + 1) * nx],
            floor,
            gauge,
            out,
        });
    });
    maps
}

struct Row<'a, 'b> {
    images: &'a [Complex32],
    n_coils: usize,
    matrix: [usize; 3],
    half: usize,
    z: usize,
    y: usize,
    power: &'a [f32],
    floor: f32,
    gauge: &'a [Complex32],
    out: &'a mut Vec<&'b mut [Complex32]>,
}

impl Kernel for Row<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let [nz, ny, nx] = self.matrix;
        let n = self.n_coils;
        let pairs = (n * (n + 1) / 2).next_multiple_of(LANES);
        let around = |i: usize, n: usize| i.saturating_sub(self.half)..(i + self.half + 1).min(n);
        // Products of all pairs of coils, summed over z and y of the block: `[x, pair]`. The block ends at the edge.
        let mut sums = vec![[0.0f32; 2]; nx * pairs];
        for z in around(self.z, nz) {
            for y in around(self.y, ny) {
                let row = |coil: usize| {
                    let start = ((coil * nz + z) * ny + y) * nx;
                    &self.images[start..start + nx]
                };
                for j in 0..n {
                    for i in j..n {
                        let pair = packed_index(n, i, j);
                        for (x, (a, b)) in row(i).iter().zip(row(j)).enumerate() {
                            let sum = &mut sums[x * pairs + pair];
                            sum[0] = fma::<FMA>(a.re, b.re, fma::<FMA>(a.im, b.im, sum[0]));
                            sum[1] = fma::<FMA>(a.im, b.re, fma::<FMA>(-a.re, b.im, sum[1]));
                        }
                    }
                }
            }
        }
        let mut work = Workspace::new(n);
        let (mut re, mut im) = (vec![0.0f32; pairs], vec![0.0f32; pairs]);
        for x in 0..nx {
            if self.power[x] <= self.floor {
                continue;
            }
            re.fill(0.0);
            im.fill(0.0);
            for near in around(x, nx) {
                let sum = &sums[near * pairs..(near + 1) * pairs];
                for (pair, sum) in sum.iter().enumerate() {
                    re[pair] += sum[0];
                    im[pair] += sum[1];
                }
            }
            work.unpack(&re, &im);
            work.start_from_largest_column();
            work.iterate::<FMA>();
            let vector = |c: usize| Complex32::new(work.vector[0][c], work.vector[1][c]);
            let projection: Complex32 = (0..n).map(|c| self.gauge[c].conj() * vector(c)).sum();
            let norm = projection.norm();
            let turn = if norm > 0.0 {
                projection.conj() / norm
            } else {
                Complex32::ONE
            };
            for (c, row) in self.out.iter_mut().enumerate() {
                row[x] = vector(c) * turn;
            }
        }
    }
}
