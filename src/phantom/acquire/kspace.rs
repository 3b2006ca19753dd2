//! K-space of one plane of the patient, noise-free, for every coil.
//!
//! The patient is sampled on a raster about twice as fine as the acquired one, at several depths of the slice, and what
//! each sample sends is sorted into *pools*: a pool is what shares one function of the echo number and one motion.
//! Every pool is transformed once per coil; a line of k-space is the sum of the pools with the weights of its echo and
//! of its moment. Truncation, and so Gibbs ringing, is that of the transform; partial volume is that of the samples.

use std::f64::consts::TAU;

use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

use super::Matter;
use super::basis::Basis;
use super::coils::{CoilArray, Raster};
use super::fourier::{Middle, good_size};
use super::motion::{Motion, Pose};
use super::signals::Saturation;
use crate::phantom::noise::Rng;
use crate::phantom::readout::to_c32;
use crate::phantom::{Structure, Tissue};

/// Points between which the field and the transmit field are interpolated, mm.
const FIELD_GRID_MM: f64 = 5.0;
/// Steps of the transmit field at which trains are computed: 0.8 to 1.2.
pub(super) const B1_NODES: usize = 9;
/// Samples of k-space beyond the acquired ones that a coil's shape may bring in, on each side.
const MARGIN: usize = 24;

/// Transmit field of a node, 1 is nominal.
pub(super) fn b1_of(node: usize) -> f64 {
    0.8 + 0.4 * node as f64 / (B1_NODES as f64 - 1.0)
}

/// A transmit field's place among the nodes.
pub(super) fn node_of(b1: f32) -> f32 {
    ((b1 - 0.8) / 0.4 * (B1_NODES as f32 - 1.0)).clamp(0.0, B1_NODES as f32 - 1.001)
}

/// One echo of a scan that becomes images of its own, with what all matter sends in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Contrast {
    /// Water of material `m` at node `b`: train `m · B1_NODES + b`.
    pub(super) water: Basis,
    /// Fluid that pulses, as `water`; it has no share in `water`.
    pub(super) csf: Basis,
    /// Fat at node `b`.
    pub(super) fat: Basis,
    /// Time during which the field turns the phase, ms: the echo time of a gradient echo, the shift of a Dixon echo.
    pub(super) turned_ms: f64,
}

/// What a scan asks of a patient.
pub(super) struct Play {
    pub(super) contrasts: Vec<Contrast>,
    /// Peaks of fat that a saturation pulse sees, then those too close to water: `(amplitude, Hz)`.
    pub(super) peaks: [Vec<(f64, f64)>; 2],
    /// What is left of them; `None` without saturation: then both are one.
    pub(super) saturation: Option<Saturation>,
    /// Hz per ppm.
    pub(super) hz_per_ppm: f64,
    /// Time between samples, ms.
    pub(super) dwell_ms: f64,
    /// Strength of the transmit field's unevenness: 1 is 0.8 to 1.2.
    pub(super) b1_spread: f64,
    /// Signal of blood that flows, 0 to 1.
    pub(super) flow: f32,
    /// Whether the front wall moves by itself.
    pub(super) has_wall: bool,
}

/// Encoded space of one stack.
#[derive(Clone, Debug)]
pub(super) struct Space {
    /// Encoded matrix: read, pe1, pe2.
    pub(super) n: [usize; 3],
    /// Encoded field of view, mm.
    pub(super) fov_mm: [f64; 3],
    pub(super) read: [f64; 3],
    pub(super) phase: [f64; 3],
    pub(super) slice: [f64; 3],
}

/// A plane: depths and their weights, relative to its centre.
pub(super) struct Plane {
    pub(super) centre_mm: [f64; 3],
    pub(super) depths: Vec<(f64, f64)>,
    /// Number that keeps planes' random numbers apart.
    pub(super) number: u64,
}

/// A readout to be made: its line, and the moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shot {
    pub(super) pe1: usize,
    pub(super) pe2: usize,
    pub(super) contrast: usize,
    /// Echo of the train.
    pub(super) echo: usize,
    /// Since the scan began.
    pub(super) time_s: f64,
}

/// What moves and turns together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Water,
    Csf,
    /// Fat of the peaks far from water.
    Fat,
    /// The same in the wall that breathes.
    Wall,
    /// Fat of the peaks near water, where the others are saturated.
    Floor,
}

struct Pool {
    kind: Kind,
    contrast: usize,
    function: usize,
}

/// Pools of a plane as images, before any coil.
pub(super) struct Pools {
    pools: Vec<Pool>,
    /// Band-limited, `[rows · repeats, columns]`.
    maps: Vec<Vec<Complex32>>,
    raster: Raster,
    repeats: usize,
    rows: usize,
}

impl Pools {
    /// Samples the patient in a plane.
    pub(super) fn sample<M: Matter + ?Sized>(
        body: &M,
        play: &Play,
        space: &Space,
        plane: &Plane,
        pose: &Pose,
        seed: u64,
    ) -> Self {
        let [nx, ny, _] = space.n;
        // Whole fields of view along pe1 that hold the body, so that what is outside folds in.
        let repeats = repeats(body, space, plane);
        let fine_x = good_size(2 * nx);
        let fine_y = good_size(2 * ny) * repeats;
        let rows = good_size(ny + 2 * MARGIN).min(fine_y / repeats);
        let columns = good_size(nx + 2 * MARGIN).min(fine_x);
        let fine = raster(space, plane.centre_mm, [fine_y, fine_x], repeats);

        let pools = list(play);
        let field = Field::new(body, &fine, pose, play);
        let mut maps: Vec<Vec<Complex32>> = Vec::new();
        maps.resize_with(pools.len(), || vec![Complex32::ZERO; fine_y * fine_x]);
        // Rows of all maps, side by side, for one thread each.
        let mut by_row: Vec<Vec<&mut [Complex32]>> = (0..fine_y).map(|_| Vec::new()).collect();
        for map in &mut maps {
            for (row, part) in by_row.iter_mut().zip(map.chunks_exact_mut(fine_x)) {
                row.push(part);
            }
        }
        let sampler = Sampler {
            body,
            play,
            pools: &pools,
            fine: &fine,
            field: &field,
            pose,
            slice: space.slice,
            depths: &plane.depths,
            // Fine pixels per Hz: the readout maps frequency on place.
            shift: play.dwell_ms * 1e-3 * fine_x as f64,
            seed: seed ^ plane.number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        by_row
            .into_par_iter()
            .enumerate()
            .for_each(|(y, mut row)| sampler.row(y, &mut row));

        let total_rows = rows * repeats;
        let down = Middle::plan(
            [fine_y, fine_x],
            [total_rows, columns],
            false,
            1.0 / (fine_y * fine_x) as f64,
        );
        let up = Middle::plan([total_rows, columns], [total_rows, columns], true, 1.0);
        let maps = up.run_all(down.run_all(maps));
        Self {
            pools,
            maps,
            raster: raster(space, plane.centre_mm, [total_rows, columns], repeats),
            repeats,
            rows,
        }
    }

    /// Adds this plane's part to the readouts `[coil][shot, sample]`. `depth` is the plane's place along pe2, in parts
    /// of the encoded slab, and `share` its part of the whole.
    #[allow(clippy::too_many_arguments)] // one plane, all of it
    pub(super) fn add(
        &self,
        play: &Play,
        space: &Space,
        shots: &[Shot],
        motion: &Motion,
        coils: &[Vec<Complex32>],
        (depth, share): (f64, f64),
        out: &mut [Vec<Complex32>],
    ) {
        let [nx, ny, nz] = space.n;
        let columns = self.raster.n[1];
        let scale = ((nx * ny * nz) as f64).sqrt() / (columns * self.rows) as f64 * share;
        let forward = Middle::plan([self.rows, columns], [ny, nx], false, scale);
        let ramps = self.ramps(play, nx);
        // Weights of the pools in each readout.
        let weights: Vec<Vec<Complex32>> = shots
            .par_iter()
            .map(|s| self.weights(play, space, s, motion, depth))
            .collect();
        out.par_iter_mut().zip(coils).for_each(|(out, map)| {
            for (p, pool) in self.maps.iter().enumerate() {
                let mut image = vec![Complex32::ZERO; self.rows * columns];
                let total = self.rows * self.repeats;
                for y in 0..total {
                    // Where the field of view repeats, what is outside folds in.
                    let at = (y + self.rows * self.repeats + self.rows / 2 - total / 2) % self.rows;
                    let from = y * columns..(y + 1) * columns;
                    for ((o, v), s) in image[at * columns..(at + 1) * columns]
                        .iter_mut()
                        .zip(&pool[from.clone()])
                        .zip(&map[from])
                    {
                        *o += v * s;
                    }
                }
                let mut k = forward.run(&mut image);
                if let Some(ramp) = &ramps[p] {
                    for row in k.chunks_exact_mut(nx) {
                        row.iter_mut().zip(ramp).for_each(|(v, r)| *v *= r);
                    }
                }
                for (shot, (w, line)) in shots
                    .iter()
                    .zip(weights.iter().zip(out.chunks_exact_mut(nx)))
                {
                    let w = w[p];
                    if w == Complex32::ZERO {
                        continue;
                    }
                    let row = &k[shot.pe1 * nx..][..nx];
                    line.iter_mut().zip(row).for_each(|(o, v)| *o += v * w);
                }
            }
        });
    }

    /// Sensitivities on the raster of the pools.
    pub(super) fn coil_maps(&self, array: &CoilArray) -> Vec<Vec<Complex32>> {
        array.maps(&self.raster)
    }

    /// A coil that receives evenly within the encoded field of view and nothing from outside, for the truth.
    pub(super) fn even_map(&self) -> Vec<Complex32> {
        let [total, columns] = self.raster.n;
        let first = total / 2 - self.rows / 2;
        let mut map = vec![Complex32::ZERO; total * columns];
        map[first * columns..(first + self.rows) * columns].fill(Complex32::ONE);
        map
    }

    /// Phase along the readout of the pools whose frequency is not water's.
    fn ramps(&self, play: &Play, nx: usize) -> Vec<Option<Vec<Complex32>>> {
        let ramp = |peaks: &[&Vec<(f64, f64)>], turned_ms: f64| -> Vec<Complex32> {
            (0..nx)
                .map(|i| {
                    let t_s = (turned_ms + (i as f64 - (nx / 2) as f64) * play.dwell_ms) * 1e-3;
                    to_c32(spectrum(peaks, t_s))
                })
                .collect()
        };
        let [far, near] = &play.peaks;
        self.pools
            .iter()
            .map(|pool| {
                let turned = play.contrasts[pool.contrast].turned_ms;
                match pool.kind {
                    Kind::Water | Kind::Csf => None,
                    Kind::Floor => Some(ramp(&[near], turned)),
                    // Saturated, the far peaks have an image of their own.
                    Kind::Fat | Kind::Wall if play.saturation.is_some() => {
                        Some(ramp(&[far], turned))
                    }
                    Kind::Fat | Kind::Wall => Some(ramp(&[far, near], turned)),
                }
            })
            .collect()
    }

    fn weights(
        &self,
        play: &Play,
        space: &Space,
        shot: &Shot,
        motion: &Motion,
        depth: f64,
    ) -> Vec<Complex32> {
        let [_, ny, nz] = space.n;
        let ky = (shot.pe1 as f64 - (ny / 2) as f64) / space.fov_mm[1];
        let kz = shot.pe2 as f64 - (nz / 2) as f64;
        let at = motion.at(shot.time_s);
        // Displacement along the phase direction; along the readout it would be the same for every line.
        let along = |d: [f64; 3]| (0..3).map(|i| d[i] * space.phase[i]).sum::<f64>();
        let whole = -TAU * (ky * along(at.body_mm) + kz * depth);
        let wall = -TAU * ky * along(at.wall_mm);
        self.pools
            .iter()
            .map(|pool| {
                if pool.contrast != shot.contrast {
                    return Complex32::ZERO;
                }
                let c = &play.contrasts[pool.contrast];
                let functions = match pool.kind {
                    Kind::Water => &c.water.functions,
                    Kind::Csf => &c.csf.functions,
                    _ => &c.fat.functions,
                };
                let w = functions[pool.function]
                    .get(shot.echo)
                    .copied()
                    .unwrap_or(0.0);
                let moved = Complex64::from_polar(w, whole);
                to_c32(match pool.kind {
                    Kind::Csf => moved * at.csf,
                    Kind::Wall => moved * Complex64::from_polar(1.0, wall),
                    _ => moved,
                })
            })
            .collect()
    }
}

fn list(play: &Play) -> Vec<Pool> {
    let mut pools = Vec::new();
    for (contrast, c) in play.contrasts.iter().enumerate() {
        let mut push = |kind: Kind, n: usize| {
            pools.extend((0..n).map(|function| Pool {
                kind,
                contrast,
                function,
            }));
        };
        push(Kind::Water, c.water.functions.len());
        push(Kind::Csf, c.csf.functions.len());
        push(Kind::Fat, c.fat.functions.len());
        if play.has_wall {
            push(Kind::Wall, c.fat.functions.len());
        }
        if play.saturation.is_some() {
            push(Kind::Floor, c.fat.functions.len());
        }
    }
    pools
}

/// Signal of peaks `(amplitude, Hz)` at a time.
pub(super) fn spectrum(peaks: &[&Vec<(f64, f64)>], t_s: f64) -> Complex64 {
    peaks
        .iter()
        .flat_map(|p| p.iter())
        .map(|(a, hz)| Complex64::from_polar(*a, TAU * hz * t_s))
        .sum()
}

/// Pixel `n/2` is at the centre along both axes.
fn raster(space: &Space, centre: [f64; 3], n: [usize; 2], repeats: usize) -> Raster {
    let step = [
        space.fov_mm[1] * repeats as f64 / n[0] as f64,
        space.fov_mm[0] / n[1] as f64,
    ];
    let dx = space.read.map(|v| v * step[1]);
    let dy = space.phase.map(|v| v * step[0]);
    let middle = n.map(|n| (n / 2) as f64);
    Raster {
        origin: std::array::from_fn(|i| centre[i] - middle[1] * dx[i] - middle[0] * dy[i]),
        dx,
        dy,
        n,
    }
}

pub(super) fn repeats<M: Matter + ?Sized>(body: &M, space: &Space, plane: &Plane) -> usize {
    let extent = body.extent_mm();
    // The farthest corner of the body along the phase direction.
    let mut far: f64 = 0.0;
    for corner in 0..8 {
        let along: f64 = (0..3)
            .map(|i| {
                let edge = f64::from(extent[i][corner >> i & 1]);
                (edge - plane.centre_mm[i]) * space.phase[i]
            })
            .sum();
        far = far.max(along.abs());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small
    let n = (2.0 * far / space.fov_mm[1]).ceil() as usize;
    n.clamp(1, 3)
}

/// The field in a plane, coarsely: Hz, and the transmit field.
struct Field {
    per: [f64; 2],
    n: [usize; 2],
    hz: Vec<f32>,
    b1: Vec<f32>,
}

impl Field {
    fn new<M: Matter + ?Sized>(body: &M, fine: &Raster, pose: &Pose, play: &Play) -> Self {
        let norm = |v: [f64; 3]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
        let per = [norm(fine.dy), norm(fine.dx)].map(|s| (s / FIELD_GRID_MM).min(1.0));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small
        let n = [0, 1].map(|i| (fine.n[i] as f64 * per[i]).ceil() as usize + 2);
        let centre = body.centre_mm();
        let both: Vec<(f32, f32)> = (0..n[0] * n[1])
            .into_par_iter()
            .map(|i| {
                let p = fine.at((i / n[1]) as f64 / per[0], (i % n[1]) as f64 / per[1]);
                let q = pose.to_body(p);
                #[allow(clippy::cast_possible_truncation)] // storage precision
                let pair = (
                    (f64::from(body.field_ppm(q.map(|v| v as f32))) * play.hz_per_ppm) as f32,
                    b1_at(p, centre, play.b1_spread) as f32,
                );
                pair
            })
            .collect();
        let (hz, b1) = both.into_iter().unzip();
        Self { per, n, hz, b1 }
    }

    /// Hz and transmit field at a place of the fine raster.
    fn at(&self, y: f32, x: f32) -> (f32, f32) {
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let (v, u) = (
            y.max(0.0) * self.per[0] as f32,
            x.max(0.0) * self.per[1] as f32,
        );
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small, positive
        let (j, i) = (
            (v as usize).min(self.n[0] - 2),
            (u as usize).min(self.n[1] - 2),
        );
        let (fv, fu) = (v - j as f32, u - i as f32);
        let at = j * self.n[1] + i;
        let mix = |f: &[f32]| {
            let top = f[at] + (f[at + 1] - f[at]) * fu;
            let low = f[at + self.n[1]] + (f[at + self.n[1] + 1] - f[at + self.n[1]]) * fu;
            top + (low - top) * fv
        };
        (mix(&self.hz), mix(&self.b1))
    }
}

/// Transmit field, smooth: stronger in the middle of the body, weaker to one side, 0.8 to 1.2 at spread 1.
pub(super) fn b1_at(p: [f64; 3], centre: [f64; 3], spread: f64) -> f64 {
    let r2 = ((p[0] - centre[0]) / 220.0).powi(2) + ((p[1] - centre[1]) / 180.0).powi(2);
    let tilt = 0.06 * ((p[0] - centre[0]) / 150.0).tanh()
        - 0.06 * ((p[2] - centre[2]) / 200.0).powi(2).min(1.0);
    (1.0 + spread * (0.2 * (-1.5 * r2).exp() - 0.1 + tilt)).clamp(0.8, 1.2)
}

struct Sampler<'a, M: ?Sized> {
    body: &'a M,
    play: &'a Play,
    pools: &'a [Pool],
    fine: &'a Raster,
    field: &'a Field,
    pose: &'a Pose,
    slice: [f64; 3],
    depths: &'a [(f64, f64)],
    shift: f64,
    seed: u64,
}

impl<M: Matter + ?Sized> Sampler<'_, M> {
    /// One row of the fine raster. Samples are spread over their pixel, a different place at each depth, so that edges
    /// are not stairs; each goes to the pixel where its frequency puts it: a phase of `+2πft` during the readout is a
    /// displacement by `-f` over the bandwidth.
    fn row(&self, y: usize, maps: &mut [&mut [Complex32]]) {
        let nx = self.fine.n[1];
        let mut rng = Rng::new(self.seed, y as u64);
        let count = self.depths.len();
        let wall_mm = f64::from(self.body.extent_mm()[1][0]) + 45.0;
        let [low, high] = self.body.extent_mm()[2].map(f64::from);
        let materials = self.body.materials();
        for x in 0..nx {
            let first = if count > 1 { rng.uniform() } else { 0.5 };
            for (j, (depth, weight)) in self.depths.iter().enumerate() {
                // Strata along both axes, in different orders.
                let along = (j as f64 + first) / count as f64 % 1.0 - 0.5;
                let across = if count > 1 {
                    ((j * 2 % count) as f64 + first) / count as f64 % 1.0 - 0.5
                } else {
                    0.0
                };
                let (sx, sy) = (
                    x as f64 + along * f64::from(u8::from(count > 1)),
                    y as f64 + across,
                );
                let mut p = self.fine.at(sy, sx);
                p.iter_mut()
                    .zip(self.slice)
                    .for_each(|(p, s)| *p += depth * s);
                let q = self.pose.to_body(p);
                // Head and feet go on beyond the part of the body that coils hear.
                if q[2] < low || q[2] > high {
                    continue;
                }
                #[allow(clippy::cast_possible_truncation)] // storage precision
                let v = self.body.at(q.map(|v| v as f32));
                if v.pd <= 0.0 {
                    continue;
                }
                #[allow(clippy::cast_possible_truncation)] // storage precision
                let (hz, b1) = self.field.at(sy as f32, sx as f32);
                #[allow(clippy::cast_possible_truncation)] // within the raster, or left out
                let to = (sx - self.shift * f64::from(hz)).round() as i64;
                let Ok(to) = usize::try_from(to) else {
                    continue;
                };
                if to >= nx {
                    continue;
                }
                let tissue = materials
                    .get(usize::from(v.material))
                    .map_or(Tissue::Air, |m| m.tissue);
                #[allow(clippy::cast_possible_truncation)] // storage precision
                let mut pd = v.pd * *weight as f32;
                if tissue == Tissue::FlowingBlood {
                    pd *= self.play.flow;
                }
                let is_wall = self.play.has_wall
                    && q[1] < wall_mm
                    && matches!(
                        v.structure,
                        Structure::Subcutaneous | Structure::VisceralFat
                    );
                self.put(to, maps, &v, tissue, pd, (hz, b1), is_wall);
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // one sample, all of it
    fn put(
        &self,
        to: usize,
        maps: &mut [&mut [Complex32]],
        v: &crate::phantom::Voxel,
        tissue: Tissue,
        pd: f32,
        (hz, b1): (f32, f32),
        is_wall: bool,
    ) {
        let node = node_of(b1);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // below B1_NODES
        let (low, t) = (node as usize, node.fract());
        let share = |b: &Basis, first: usize, f: usize| -> f32 {
            let (Some(l), Some(h)) = (b.shares.get(first + low), b.shares.get(first + low + 1))
            else {
                return 0.0;
            };
            l[f] + (h[f] - l[f]) * t
        };
        let material = usize::from(v.material) * B1_NODES;
        let (water, fat) = (pd * (1.0 - v.fat_fraction), pd * v.fat_fraction);
        let [far, near, left] = self
            .play
            .saturation
            .as_ref()
            .map_or([1.0; 3], |s| s.at(hz, low, t));
        let water = water * left;
        let mut turned = (usize::MAX, Complex32::ONE);
        for (pool, map) in self.pools.iter().zip(maps) {
            let c = &self.play.contrasts[pool.contrast];
            let amount = match pool.kind {
                Kind::Water => water * share(&c.water, material, pool.function),
                Kind::Csf if tissue == Tissue::Csf => {
                    water * share(&c.csf, material, pool.function)
                }
                Kind::Fat if !is_wall => fat * far * share(&c.fat, 0, pool.function),
                Kind::Wall if is_wall => fat * far * share(&c.fat, 0, pool.function),
                Kind::Floor => fat * near * share(&c.fat, 0, pool.function),
                _ => continue,
            };
            if amount == 0.0 {
                continue;
            }
            if turned.0 != pool.contrast {
                #[allow(clippy::cast_possible_truncation)] // storage precision
                let turn = if c.turned_ms == 0.0 {
                    Complex32::ONE
                } else {
                    Complex32::from_polar(
                        1.0,
                        (TAU * f64::from(hz) * c.turned_ms * 1e-3 % TAU) as f32,
                    )
                };
                turned = (pool.contrast, turn);
            }
            map[to] += turned.1 * amount;
        }
    }
}
