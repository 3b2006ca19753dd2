//! Pictures of a slice as its scan would make them, without coils or motion: k-space along phase has the weights of the
//! echo train, fat lies where its frequency puts it along the readout, and what the matrix does not reach is cut off.
//!
//! As in `kspace`, all trains are sums of a few functions of the echo. Here nothing but the echo differs from line to
//! line, so that the weights act along phase alone: one transform of every column for each two functions (real maps:
//! they travel as one complex), then one of every row for water and for each sort of fat. The raster is twice as fine as
//! the picture; between its ends, which a transform joins, one side fades into the other.

use std::f64::consts::TAU;
use std::sync::Arc;

use num_complex::{Complex32, Complex64};
use rustfft::{Fft, FftPlanner};

use super::fourier::good_size;
use super::kspace::{B1_NODES, Play, spectrum};
use super::{AcquireParams, Matter, MotionParams, signals};
use crate::phantom::readout::to_c32;
use crate::phantom::{PhantomError, Tissue};
use crate::sequence::{Order, SequenceParams, Train};

/// Largest error of an echo of a train, against the largest echo there is: a tenth of what noise leaves visible.
const TOLERANCE: f64 = 5e-3;
/// Voxels on which the ends of the raster fade into one another.
const FADE: usize = 32;
/// Columns of the raster that travel together through the cache.
const COLUMNS: usize = 8;

/// What one place sends, in units of proton density.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    pub(super) water: f32,
    pub(super) fat: f32,
    pub(super) material: u8,
}

/// A slice: voxels, each of them four places.
#[derive(Clone, Copy)]
pub(super) struct Slice<'a> {
    /// `[y, x][2, 2]`.
    pub(super) samples: &'a [Sample],
    /// Deviation of the field, `[y, x]`.
    pub(super) field_ppm: &'a [f32],
    /// Transmit field as a place among its nodes, `[y, x]`.
    pub(super) node: &'a [f32],
}

/// What has its own phase along the readout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pool {
    Water,
    /// Peaks of fat that saturation reaches; all of them without.
    Far,
    /// Peaks that it does not.
    Near,
}

/// One function of the echo in one pool.
struct Part {
    pool: Pool,
    /// Over the kept lines, the lowest first.
    weights: Vec<f32>,
}

/// One sequence, ready for slices of one size.
pub(super) struct Scanner {
    play: Play,
    flows: Vec<f32>,
    /// Voxels y, x; kept lines and samples of the raster's k-space, which has twice as many.
    n: [usize; 2],
    kept: [usize; 2],
    parts: Vec<Part>,
    /// Shares of the parts: `[material, node][part]` of water, `[node][part]` of fat.
    water: Vec<Vec<f32>>,
    fat: Vec<Vec<f32>>,
    /// Phase of each pool over the kept samples, and of the kept lines: half a step of the raster, to the voxels' middles.
    ramps: Vec<(Pool, Vec<Complex32>)>,
    turn: Vec<Complex32>,
    forward: [Arc<dyn Fft<f32>>; 2],
    back: [Arc<dyn Fft<f32>>; 2],
}

impl Scanner {
    /// `n`: voxels along phase and read.
    pub(super) fn plan<M: Matter + ?Sized>(
        body: &M,
        s: &SequenceParams,
        n: [usize; 2],
    ) -> Result<Self, PhantomError> {
        if s.n_partitions != 1 || s.matrix != [n[1], n[0]] {
            return Err(PhantomError {
                key: "sequence",
                found: format!("matrix {:?}, {} partitions", s.matrix, s.n_partitions),
                needed: "slices of the block's own matrix",
            });
        }
        let order = Order::plan(s)?;
        let still = AcquireParams {
            motion: MotionParams::none(),
            ..AcquireParams::default()
        };
        let play = signals::play(body, s, &still, &Train::plan(s)?, TOLERANCE);
        let kept = n.map(|n| good_size((n + FADE).min(2 * n)));
        // From the middle of k-space, in lines and samples of the field of view.
        let place = |axis: usize| {
            let per = n[axis] as f64 / kept[axis] as f64;
            (0..kept[axis]).map(move |i| (i as f64 - (kept[axis] / 2) as f64) * per)
        };
        let measured = order.echo_of_line();
        let echo = |k: f64| echo_at(&measured, k / n[0] as f64);
        let echoes: Vec<usize> = place(0).map(echo).collect();
        let contrast = &play.contrasts[0];
        let pools = if play.saturation.is_some() {
            vec![Pool::Water, Pool::Far, Pool::Near]
        } else {
            vec![Pool::Water, Pool::Far]
        };
        let mut parts = Vec::new();
        for &pool in &pools {
            let basis = if pool == Pool::Water {
                &contrast.water
            } else {
                &contrast.fat
            };
            for f in &basis.functions {
                #[allow(clippy::cast_possible_truncation)] // storage precision
                let weights = echoes.iter().map(|e| f[(*e).min(f.len() - 1)] as f32);
                parts.push(Part {
                    pool,
                    weights: weights.collect(),
                });
            }
        }
        let half_step = |axis: usize| {
            let lines = kept[axis];
            (0..lines).map(move |i| TAU * 0.25 * (i as f64 / lines as f64 - 0.5))
        };
        let scale = 0.25 / (kept[0] * kept[1]) as f64;
        let turn = half_step(0).map(|a| to_c32(Complex64::from_polar(scale, a)));
        let [far, near] = &play.peaks;
        let ramps = pools
            .iter()
            .map(|&pool| {
                let peaks: &[&Vec<(f64, f64)>] = match pool {
                    Pool::Water => &[],
                    Pool::Far if play.saturation.is_some() => &[far],
                    Pool::Far => &[far, near],
                    Pool::Near => &[near],
                };
                let ramp = place(1).zip(half_step(1)).map(|(k, a)| {
                    let t_s =
                        contrast.turned_ms * 1e-3 + k / n[1] as f64 / s.bandwidth_hz_per_pixel;
                    let phase = match pool {
                        Pool::Water => Complex64::ONE,
                        _ => spectrum(peaks, t_s),
                    };
                    to_c32(phase * Complex64::from_polar(1.0, a))
                });
                (pool, ramp.collect())
            })
            .collect();
        let flows = body.materials().iter().map(|m| match m.tissue {
            Tissue::FlowingBlood => play.flow,
            _ => 1.0,
        });
        let mut planner = FftPlanner::new();
        Ok(Self {
            flows: flows.collect(),
            n,
            kept,
            parts,
            water: contrast.water.shares.clone(),
            fat: contrast.fat.shares.clone(),
            ramps,
            turn: turn.collect(),
            forward: kept.map(|k| planner.plan_fft_forward(2 * k)),
            back: kept.map(|k| planner.plan_fft_inverse(k)),
            play,
        })
    }

    /// Magnitude of the picture, `[y, x]`; 1 is the signal of a unit of proton density that is fully relaxed.
    pub(super) fn picture(&self, slice: &Slice<'_>) -> Vec<f32> {
        let k: Vec<Vec<Complex32>> = self.along_phase(slice);
        let lines = self.along_read(k);
        self.back_along_phase(&lines)
    }

    /// K-space along phase of each pool, `[pool][kept line, column of the raster]`.
    fn along_phase(&self, slice: &Slice<'_>) -> Vec<Vec<Complex32>> {
        let ([ny, nx], lines, fine) = (self.n, self.kept[0], 2 * self.kept[0]);
        let wide = 2 * self.kept[1];
        let pairs = self.parts.len().div_ceil(2);
        let mut out = vec![vec![Complex32::ZERO; lines * wide]; self.ramps.len()];
        let mut columns = vec![Complex32::ZERO; pairs * COLUMNS * fine];
        let mut scratch = vec![Complex32::ZERO; self.forward[0].get_inplace_scratch_len()];
        let pool_of = |part: usize| {
            let part = self.parts.get(part)?;
            let pool = self.ramps.iter().position(|r| r.0 == part.pool)?;
            Some((pool, &part.weights))
        };
        for first in (0..2 * nx).step_by(COLUMNS) {
            let width = COLUMNS.min(2 * nx - first);
            let mut is_empty = true;
            if self.parts.len() % 2 == 1 {
                // Nothing is written to the imaginary part of the last.
                columns[(pairs - 1) * COLUMNS * fine..].fill(Complex32::ZERO);
            }
            for y in 0..ny {
                for x in first / 2..(first + width) / 2 {
                    let at = y * nx + x;
                    let samples = &slice.samples[4 * at..][..4];
                    is_empty &= samples.iter().all(|s| s.water == 0.0 && s.fat == 0.0);
                    let place = 2 * (y + (x - first / 2) * fine);
                    self.voxel(slice, at, samples, |part, j, v| {
                        let c =
                            &mut columns[part / 2 * COLUMNS * fine..][place + j / 2 + j % 2 * fine];
                        if part % 2 == 0 { c.re = v } else { c.im = v }
                    });
                }
            }
            // Air stays air.
            if is_empty {
                continue;
            }
            for column in columns.chunks_exact_mut(fine) {
                fade(column, 2 * ny);
            }
            self.forward[0].process_with_scratch(&mut columns, &mut scratch);
            for pair in 0..pairs {
                let of = &columns[pair * COLUMNS * fine..][..COLUMNS * fine];
                let two = [pool_of(2 * pair), pool_of(2 * pair + 1)];
                for line in 0..lines {
                    let here = (line + fine - lines / 2) % fine;
                    let there = (fine - here) % fine;
                    // Spectra of the real part, then of the imaginary part.
                    for (turn, part) in [Complex32::ONE, Complex32::I].into_iter().zip(&two) {
                        let Some((pool, weights)) = part else {
                            continue;
                        };
                        let w = turn * (0.5 * weights[line]);
                        let (z, m) = (w.conj(), w);
                        let to = &mut out[*pool][line * wide + first..][..width];
                        for (to, column) in to.iter_mut().zip(of.chunks_exact(fine)) {
                            *to += column[here] * z + column[there].conj() * m;
                        }
                    }
                }
            }
        }
        out
    }

    /// What the four places of a voxel send in every part.
    fn voxel(
        &self,
        slice: &Slice<'_>,
        at: usize,
        samples: &[Sample],
        mut put: impl FnMut(usize, usize, f32),
    ) {
        let node = slice.node[at];
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // below B1_NODES
        let (low, t) = (node as usize, node.fract());
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let hz = slice.field_ppm[at] * self.play.hz_per_ppm as f32;
        let [far, near, left] = self
            .play
            .saturation
            .as_ref()
            .map_or([1.0; 3], |s| s.at(hz, low, t));
        let n_water = self.play.contrasts[0].water.functions.len();
        let n_fat = self.play.contrasts[0].fat.functions.len();
        for (j, s) in samples.iter().enumerate() {
            let material = usize::from(s.material);
            let first = material * B1_NODES + low;
            let (Some(a), Some(b)) = (self.water.get(first), self.water.get(first + 1)) else {
                (0..self.parts.len()).for_each(|part| put(part, j, 0.0));
                continue;
            };
            let water = s.water * left * self.flows[material];
            for (f, (a, b)) in a.iter().zip(b).enumerate() {
                put(f, j, water * (a + (b - a) * t));
            }
            for (f, (a, b)) in self.fat[low].iter().zip(&self.fat[low + 1]).enumerate() {
                let v = s.fat * (a + (b - a) * t);
                put(n_water + f, j, v * far);
                if self.ramps.len() > 2 {
                    put(n_water + n_fat + f, j, v * near);
                }
            }
        }
    }

    /// Lines of the picture, `[kept line in the order of a transform, x]`.
    fn along_read(&self, mut k: Vec<Vec<Complex32>>) -> Vec<Complex32> {
        let (nx, [lines, samples]) = (self.n[1], self.kept);
        let wide = 2 * samples;
        let mut scratch = vec![Complex32::ZERO; self.forward[1].get_inplace_scratch_len()];
        let mut rest = vec![Complex32::ZERO; self.back[1].get_inplace_scratch_len()];
        let mut out = vec![Complex32::ZERO; lines * nx];
        let mut sum = vec![Complex32::ZERO; samples];
        for line in 0..lines {
            sum.fill(Complex32::ZERO);
            for (of, (_, ramp)) in k.iter_mut().zip(&self.ramps) {
                let row = &mut of[line * wide..][..wide];
                fade(row, 2 * nx);
                self.forward[1].process_with_scratch(row, &mut scratch);
                // The lower half of k-space lies at the end of a transform.
                let (below, above) = ramp.split_at(samples / 2);
                let (low, high) = (samples - below.len(), wide - below.len());
                for ((to, v), r) in sum[low..].iter_mut().zip(&row[high..]).zip(below) {
                    *to += v * r;
                }
                for ((to, v), r) in sum.iter_mut().zip(row.iter()).zip(above) {
                    *to += v * r;
                }
            }
            self.back[1].process_with_scratch(&mut sum, &mut rest);
            let to = (line + lines - lines / 2) % lines;
            for (o, v) in out[to * nx..][..nx].iter_mut().zip(&sum) {
                *o = v * self.turn[line];
            }
        }
        out
    }

    fn back_along_phase(&self, lines: &[Complex32]) -> Vec<f32> {
        let ([ny, nx], n) = (self.n, self.kept[0]);
        let mut scratch = vec![Complex32::ZERO; self.back[0].get_inplace_scratch_len()];
        let mut columns = vec![Complex32::ZERO; COLUMNS * n];
        let mut out = vec![0.0; ny * nx];
        for first in (0..nx).step_by(COLUMNS) {
            let width = COLUMNS.min(nx - first);
            for (y, line) in lines.chunks_exact(nx).enumerate() {
                for (c, v) in line[first..first + width].iter().enumerate() {
                    columns[c * n + y] = *v;
                }
            }
            self.back[0].process_with_scratch(&mut columns[..width * n], &mut scratch);
            for (y, row) in out.chunks_exact_mut(nx).enumerate() {
                for (c, v) in row[first..first + width].iter_mut().enumerate() {
                    *v = columns[c * n + y].norm_sqr().sqrt();
                }
            }
        }
        out
    }
}

/// Echo of the line nearest to a place along phase, in parts of all of them, 0 is the middle; of what is left out, its
/// mirror image's or its nearest neighbour's.
fn echo_at(echoes: &[Option<usize>], k: f64) -> usize {
    let n = echoes.len();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
    let line = ((k + 0.5) * n as f64).round().clamp(0.0, n as f64 - 1.0) as usize;
    let mirror = (n - line).min(n - 1);
    let near = (1..n).flat_map(|d| [line.saturating_sub(d), (line + d).min(n - 1)]);
    [line, mirror]
        .into_iter()
        .chain(near)
        .find_map(|l| echoes[l])
        .unwrap_or(0)
}

/// Behind the first `n` values comes what leads smoothly from the last of them to the first.
fn fade(values: &mut [Complex32], n: usize) {
    let (known, rest) = values.split_at_mut(n);
    let count = rest.len();
    for (i, v) in rest.iter_mut().enumerate() {
        let x = (i as f32 + 0.5) / count as f32;
        let s = x * x * (3.0 - 2.0 * x);
        *v = known[(n - 1).saturating_sub(i)] * (1.0 - s) + known[(count - 1 - i).min(n - 1)] * s;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bodies, small};
    use super::super::{Block, scanned_maps, tissue_maps};
    use crate::phantom::Tissue;
    use crate::sequence::{
        FAT_PEAKS, FatMethod, FatParams, HYDROGEN_HZ_PER_T, LineOrder, SequenceParams, Train,
    };

    /// Voxels of 2 mm around the middle of the field of view: `y` along phase, `x` along read.
    fn block(s: &SequenceParams) -> Block {
        Block {
            matrix: [1, s.matrix[1], s.matrix[0]],
            voxel_mm: [4.0, 2.0, 2.0],
            centre_mm: [0.0; 3],
            axes: [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]],
        }
    }

    fn sequence(matrix: [usize; 2]) -> SequenceParams {
        SequenceParams {
            matrix,
            fov_mm: matrix.map(|n| 2.0 * n as f64),
            te_ms: 10.0,
            echo_train_length: 1,
            refocusing_deg: 180.0,
            ..small()
        }
    }

    fn picture(body: &Bodies, s: &SequenceParams) -> Vec<f32> {
        let mut maps = scanned_maps(body, &block(s), (std::slice::from_ref(s), 0.0), 3).unwrap();
        maps.contrasts.remove(0)
    }

    /// Width at half of the height, between the samples, voxels.
    fn width(line: &[f32]) -> f32 {
        let (top, max) = line
            .iter()
            .enumerate()
            .fold((0, 0.0), |a, (i, v)| if *v > a.1 { (i, *v) } else { a });
        let reach = |step: &dyn Fn(usize) -> usize| {
            let mut i = top;
            while line[step(i)] > 0.5 * max {
                i = step(i);
            }
            let (a, b) = (line[i], line[step(i)]);
            i.abs_diff(top) as f32 + (a - 0.5 * max) / (a - b)
        };
        reach(&|i| i - 1) + reach(&|i| i + 1)
    }

    #[test]
    fn a_train_blurs_along_phase_by_the_width_of_its_decay() {
        let line = |t2: f32, order: LineOrder, echo: f64, is_turned: bool| -> Vec<f32> {
            let s = SequenceParams {
                echo_train_length: 16,
                te_ms: 10.0 * echo,
                line_order: order,
                ..sequence([48, 256])
            };
            // One voxel thin: across phase, or across read.
            let (half, far) = (1.0, 400.0);
            let thin = if is_turned {
                [half, far, far]
            } else {
                [far, half, far]
            };
            let mut body = Bodies::new(vec![([0.0; 3], thin, true, 1, 1.0, 0.0)]);
            body.materials[1].water_t2_ms = t2;
            let p = picture(&body, &s);
            if is_turned {
                p[128 * 48..129 * 48].to_vec()
            } else {
                (0..256).map(|y| p[y * 48 + 24]).collect()
            }
        };
        // Centric from the first echo: weights exp(-a |k|) whose transform is a Lorentz line. 160 ms of train against
        // 20 ms of T2 are a decay by 8 towards the edge: 2 * 8 / pi voxels.
        let want = 16.0 / std::f32::consts::PI;
        let centric = width(&line(20.0, LineOrder::Centric, 1.0, false));
        assert!((centric - want).abs() < 0.06 * want, "{centric} {want}");
        // Twice the T2, half the width; a plate across the other axis, and fluid, keep theirs: a voxel through its sinc.
        let longer = width(&line(40.0, LineOrder::Centric, 1.0, false));
        assert!((longer - want / 2.0).abs() < 0.1 * want, "{longer}");
        for twin in [
            line(20.0, LineOrder::Centric, 1.0, true),
            line(2e4, LineOrder::Centric, 1.0, false),
        ] {
            let sharp = width(&twin);
            assert!((0.95..1.4).contains(&sharp), "{sharp}");
        }
        // Linear: late echoes beside the centre on one side, early ones on the other. The sum by hand over the lines.
        let got = line(30.0, LineOrder::Linear, 8.0, false);
        let weight = |k: i32| {
            // 16 lines to an echo, in a ring; the centre stands in the middle of the eighth echo's.
            let echo = (7 * 16 + 8 + k).rem_euclid(256) / 16;
            (-10.0 * f64::from(echo + 1) / 30.0).exp()
        };
        let recovered = {
            let s = SequenceParams {
                echo_train_length: 16,
                te_ms: 80.0,
                ..sequence([48, 256])
            };
            Train::plan(&s).unwrap().echoes(1250.0, 30.0, 1.0)[0] / (-10.0f64 / 30.0).exp()
        };
        for (twin, shift) in [(false, 0), (true, 40)] {
            let worst = (0..256).fold(0.0f64, |worst, y| {
                let (mut re, mut im) = (0.0, 0.0);
                for k in -128..128 {
                    let turn = std::f64::consts::TAU * f64::from(k) / 256.0;
                    // A plate of one voxel, as two points a quarter of a voxel from its middle.
                    let box_of = (0.25 * turn).cos();
                    let w = weight(k + shift) * box_of * recovered / 256.0;
                    re += w * (turn * f64::from(y - 128)).cos();
                    im += w * (turn * f64::from(y - 128)).sin();
                }
                #[allow(clippy::cast_sign_loss)] // below 256
                let y = y as usize;
                worst.max((f64::from(got[y]) - re.hypot(im)).abs())
            });
            let top = f64::from(got.iter().fold(0.0f32, |a, b| a.max(*b)));
            assert_eq!(worst < 0.02 * top, !twin, "{twin}: {worst} of {top}");
        }
    }

    #[test]
    fn fat_is_shifted_along_read_by_its_frequency_over_the_bandwidth() {
        let centre = |material, fat, bandwidth_hz_per_pixel| {
            let s = SequenceParams {
                bandwidth_hz_per_pixel,
                ..sequence([96, 64])
            };
            let body = Bodies::new(vec![([0.0; 3], [8.0; 3], true, material, 1.0, fat)]);
            let p = picture(&body, &s);
            let of = |axis: usize| {
                let (mut sum, mut at) = (0.0f64, 0.0);
                for (i, v) in p.iter().enumerate() {
                    let v = f64::from(*v).powi(2);
                    sum += v;
                    at += v * [i / 96, i % 96][axis] as f64;
                }
                at / sum
            };
            [of(0), of(1)]
        };
        let hz =
            FAT_PEAKS.iter().map(|(ppm, a)| ppm * a).sum::<f64>() * 3.0 * HYDROGEN_HZ_PER_T * 1e-6;
        let water = centre(1, 0.0, 200.0);
        for bandwidth in [200.0, 400.0] {
            let fat = centre(3, 1.0, bandwidth);
            let want = -hz / bandwidth;
            assert!(want > 0.8, "{want}");
            // The main peak outweighs the others in the square.
            assert!(
                (fat[1] - water[1] - want).abs() < 0.15 * want,
                "{fat:?} {water:?} {want}"
            );
            assert!((fat[0] - water[0]).abs() < 0.05, "{fat:?}");
        }
        // Muscle of the same shape stays.
        assert!((centre(1, 0.0, 400.0)[1] - water[1]).abs() < 0.02);
    }

    #[test]
    fn an_edge_rings_by_nine_parts_of_a_hundred() {
        let s = sequence([96, 128]);
        // Edges in the middle of voxels, where a ring's top meets the next one's.
        let body = Bodies::new(vec![([0.0; 3], [40.0, 60.0, 100.0], true, 2, 1.0, 0.0)]);
        let scanned = picture(&body, &s);
        let even = tissue_maps(&body, &block(&s), (std::slice::from_ref(&s), 0.0), 4, 3).unwrap();
        let plateau = Train::plan(&s).unwrap().echoes(4300.0, 1600.0, 1.0)[0];
        let top = |p: &[f32], along_phase: bool| {
            let line = (0..if along_phase { 128 } else { 96 }).map(|i| {
                if along_phase {
                    p[i * 96 + 48]
                } else {
                    p[64 * 96 + i]
                }
            });
            f64::from(line.fold(0.0, f32::max)) / plateau
        };
        for along_phase in [true, false] {
            // 0.5 + Si(pi) / pi of an endless box; the other edge's ring adds a little.
            let got = top(&scanned, along_phase);
            assert!((got - 1.0895).abs() < 0.015, "{along_phase}: {got}");
            // The twin: means over the voxels do not ring.
            let flat = top(&even.contrasts[0], along_phase);
            assert!((flat - 1.0).abs() < 1e-3, "{flat}");
        }
    }

    #[test]
    fn where_nothing_changes_a_scan_shows_what_the_equations_say() {
        let fat = FatParams {
            method: FatMethod::Chess,
            ..FatParams::default()
        };
        let wide = [400.0; 3];
        for (material, part, fat) in [
            (1, 0.1, FatParams::default()),
            (3, 0.9, FatParams::default()),
            (3, 0.5, fat),
        ] {
            let s = SequenceParams {
                echo_train_length: 6,
                te_ms: 30.0,
                refocusing_deg: 150.0,
                fat,
                ..sequence([48, 60])
            };
            // Filled to the edges, and beyond.
            let mut body = Bodies::new(vec![([0.0; 3], wide, true, material, 0.8, part)]);
            body.ppm = 0.3;
            let got = picture(&body, &s);
            let want = tissue_maps(&body, &block(&s), (&[s], 0.0), 1, 3)
                .unwrap()
                .contrasts
                .remove(0);
            for (g, w) in got.iter().zip(&want) {
                assert!((g - w).abs() < 0.01 * w, "{material} {part}: {g} {w}");
            }
        }
    }

    #[test]
    fn one_seed_is_one_picture_on_any_number_of_threads() {
        let body = Bodies::trunk();
        let s = sequence([64, 48]);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                scanned_maps(&body, &block(&s), (&[s.clone(), s.clone()], 1.0), 5).unwrap()
            })
        };
        let one = on(1);
        assert_eq!(one, on(3));
        assert!(one.contrasts[0].iter().any(|v| *v > 0.1));
        assert!(body.materials.iter().any(|m| m.tissue == Tissue::Csf));
        let other = scanned_maps(&body, &block(&s), (std::slice::from_ref(&s), 1.0), 6).unwrap();
        assert_ne!(one.contrasts[0], other.contrasts[0]);
    }

    #[test]
    fn a_block_that_is_not_the_sequences_is_refused() {
        let body = Bodies::trunk();
        let s = sequence([64, 48]);
        let mut b = block(&s);
        b.matrix[2] = 63;
        let e = scanned_maps(&body, &b, (&[s], 1.0), 5).unwrap_err();
        assert!(e.to_string().contains("matrix"), "{e}");
    }
}
