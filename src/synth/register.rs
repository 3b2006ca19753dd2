//! Rigid registration of one series to another of another contrast: six parameters, mutual information.
//!
//! Mattes' mutual information (IEEE TMI 22:120, 2003: bins of the fixed image, cubic B-spline windows of the moving one, so
//! that it has a slope) of places inside the body, from coarse to fine, by BFGS. Places lie off the grid by a fixed hash:
//! where both grids coincide, interpolation would otherwise make identity look better than it is. The same input gives the
//! same answer on any number of threads: sums are made in blocks of one size.

use rayon::prelude::*;

use super::grid::{Affine, Volume, norm};

/// A rigid motion: a place `p` of the fixed series is at `centre + R (p - centre) + shift` in the moving one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rigid {
    /// Point that is turned about, LPS, mm.
    pub centre_mm: [f64; 3],
    /// Along the axes.
    pub shift_mm: [f64; 3],
    /// About the axes x, y, z, in this order, degrees.
    pub rotation_deg: [f64; 3],
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Registered {
    /// The motion.
    pub rigid: Rigid,
    /// Share of the body's places that lie inside of the moving series.
    pub overlap: f64,
    /// Mutual information without and with it, nats.
    pub information: [f64; 2],
}

/// Smoothing of the levels, mm.
const LEVELS_MM: [f64; 3] = [4.0, 2.0, 1.0];
/// Places of a level.
const PLACES: [usize; 3] = [12_000, 20_000, 40_000];
const BINS: usize = 32;
/// Radius at which a rotation is as long as a shift, mm.
const RADIUS_MM: f64 = 80.0;
/// Places whose sums are made by one thread.
const BLOCK: usize = 2048;

impl Rigid {
    /// As a map of patient coordinates.
    pub(super) fn affine(&self) -> Affine {
        let [x, y, z] = self.rotation_deg.map(f64::to_radians);
        let r = product(
            rotation(2, z)[0],
            product(rotation(1, y)[0], rotation(0, x)[0]),
        );
        self.with(r)
    }

    fn with(&self, r: [[f64; 3]; 3]) -> Affine {
        let c = self.centre_mm;
        Affine {
            m: r,
            v: std::array::from_fn(|i| {
                c[i] + self.shift_mm[i] - (0..3).map(|k| r[i][k] * c[k]).sum::<f64>()
            }),
        }
    }

    /// Where a place of the fixed series lies in the moving one.
    pub fn at(&self, p: [f64; 3]) -> [f64; 3] {
        self.affine().at(p)
    }
}

/// A rotation about an axis, and its derivative by the angle.
fn rotation(axis: usize, angle: f64) -> [[[f64; 3]; 3]; 2] {
    let (sin, cos) = angle.sin_cos();
    let (a, b) = ((axis + 1) % 3, (axis + 2) % 3);
    let mut r = [[0.0; 3]; 3];
    let mut d = [[0.0; 3]; 3];
    r[axis][axis] = 1.0;
    (r[a][a], r[a][b], r[b][a], r[b][b]) = (cos, -sin, sin, cos);
    (d[a][a], d[a][b], d[b][a], d[b][b]) = (-sin, -cos, cos, -sin);
    [r, d]
}

fn product(a: [[f64; 3]; 3], b: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    std::array::from_fn(|i| std::array::from_fn(|k| (0..3).map(|j| a[i][j] * b[j][k]).sum()))
}

/// Finds the motion from `fixed` to `moving`; `body` marks places of `fixed`.
pub(super) fn register(fixed: &Volume, moving: &Volume, body: &[bool]) -> Registered {
    let centre_mm = fixed.geometry.centre_mm.map(f64::from);
    let mut at = [0.0; 6];
    let mut levels = Vec::new();
    for (sigma_mm, n_places) in LEVELS_MM.into_iter().zip(PLACES) {
        let level = Level::new(
            &fixed.smoothed(sigma_mm),
            moving.smoothed(sigma_mm),
            body,
            n_places,
            centre_mm,
        );
        at = minimise(at, |p| level.cost(p));
        levels.push(level);
    }
    let rigid = rigid(centre_mm, at);
    let finest = levels.pop();
    let cost = |p| finest.as_ref().map_or(0.0, |l| -l.cost(p).0);
    Registered {
        rigid,
        overlap: finest.as_ref().map_or(0.0, |l| l.overlap(&rigid)),
        information: [cost([0.0; 6]), cost(at)],
    }
}

fn rigid(centre_mm: [f64; 3], p: [f64; 6]) -> Rigid {
    Rigid {
        centre_mm,
        shift_mm: [p[0], p[1], p[2]],
        rotation_deg: [p[3], p[4], p[5]].map(|v| (v / RADIUS_MM).to_degrees()),
    }
}

/// A place that lies inside: its row and first window in the joint histogram, how far behind a bin its value is, the slope of
/// the moving image there, and where it is.
type Sample = (u32, f32, [f32; 3], [f64; 3]);

struct Level {
    moving: Volume,
    to_voxels: Affine,
    /// Patient coordinates and bin of the fixed image.
    places: Vec<([f64; 3], usize)>,
    /// Bins per unit of the moving image.
    per_unit: f32,
    centre_mm: [f64; 3],
}

/// A number between 0 and 1 from a number and a stream.
fn hash(i: usize, stream: u64) -> f64 {
    let mut z = (i as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(stream.wrapping_mul(0xd134_2543_de82_ef95));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

impl Level {
    fn new(
        fixed: &Volume,
        moving: Volume,
        body: &[bool],
        n_places: usize,
        centre_mm: [f64; 3],
    ) -> Self {
        let [nx, ny, nz] = fixed.geometry.matrix;
        let to_patient = Affine::of_voxels(&fixed.geometry);
        let n_body = body.iter().filter(|b| **b).count();
        let share = n_places as f64 / n_body.max(1) as f64;
        // The brightest voxels are few and far from the rest.
        let top = fixed.percentile(0.995).max(f32::MIN_POSITIVE);
        let mut places = Vec::new();
        for i in (0..body.len()).filter(|i| body[*i] && hash(*i, 0) < share) {
            let index = [i % nx, i / nx % ny, i / (nx * ny)];
            let n = [nx, ny, nz];
            let at: [f64; 3] = std::array::from_fn(|k| {
                let jitter = hash(i, k as u64 + 1) - 0.5;
                (index[k] as f64 + jitter).clamp(0.0, (n[k] - 1) as f64)
            });
            if let Some((v, _)) = fixed.linear(at) {
                let bin = (v / top * (BINS - 1) as f32).round() as usize;
                places.push((to_patient.at(at), bin.min(BINS - 1)));
            }
        }
        Self {
            per_unit: (BINS - 1) as f32 / moving.percentile(0.995).max(f32::MIN_POSITIVE),
            to_voxels: Affine::to_voxels(&moving.geometry),
            moving,
            places,
            centre_mm,
        }
    }

    fn overlap(&self, rigid: &Rigid) -> f64 {
        let map = self.to_voxels.after(&rigid.affine());
        let inside = |(p, _): &&([f64; 3], usize)| self.moving.linear(map.at(*p)).is_some();
        self.places.iter().filter(inside).count() as f64 / self.places.len().max(1) as f64
    }

    /// Minus the mutual information, and its slope.
    fn cost(&self, p: [f64; 6]) -> (f64, [f64; 6]) {
        let r = rigid(self.centre_mm, p);
        let turn: [[[[f64; 3]; 3]; 2]; 3] =
            std::array::from_fn(|k| rotation(k, r.rotation_deg[k].to_radians()));
        let map = self.to_voxels.after(&r.affine());
        // Slopes of the turned place by each angle.
        let d = [
            product(turn[2][0], product(turn[1][0], turn[0][1])),
            product(turn[2][0], product(turn[1][1], turn[0][0])),
            product(turn[2][1], product(turn[1][0], turn[0][0])),
        ];
        // Windows reach a bin and a half beyond the ends.
        const WIDE: usize = BINS + 4;
        let sampled: Vec<(Vec<f64>, Vec<Sample>)> = self
            .places
            .par_chunks(BLOCK)
            .map(|places| {
                let mut joint = vec![0.0; BINS * WIDE];
                let mut kept = Vec::with_capacity(places.len());
                for (place, bin) in places {
                    let Some((v, slope)) = self.moving.linear(map.at(*place)) else {
                        continue;
                    };
                    let b = v * self.per_unit;
                    let is_above = b > (BINS - 1) as f32;
                    let b = b.min((BINS - 1) as f32);
                    let low = b.floor();
                    let w = window(b - low);
                    let at = bin * WIDE + low as usize;
                    for (k, w) in w.iter().enumerate() {
                        joint[at + k] += f64::from(*w);
                    }
                    let slope = if is_above { [0.0; 3] } else { slope };
                    #[allow(clippy::cast_possible_truncation)] // BINS * WIDE
                    kept.push((at as u32, b - low, slope, *place));
                }
                (joint, kept)
            })
            .collect();
        let mut joint = vec![0.0; BINS * WIDE];
        for (part, _) in &sampled {
            joint.iter_mut().zip(part).for_each(|(j, p)| *j += p);
        }
        let n: f64 = sampled.iter().map(|(_, k)| k.len() as f64).sum();
        if n < 100.0 {
            return (0.0, [0.0; 6]);
        }
        let fixed: Vec<f64> = joint.chunks_exact(WIDE).map(|r| r.iter().sum()).collect();
        let mut moving = [0.0; WIDE];
        for row in joint.chunks_exact(WIDE) {
            moving.iter_mut().zip(row).for_each(|(m, j)| *m += j);
        }
        let mut information = 0.0;
        let mut log = vec![0.0; BINS * WIDE];
        for f in 0..BINS {
            for m in 0..WIDE {
                let j = joint[f * WIDE + m];
                if j > 1e-12 {
                    information += j / n * (j * n / (fixed[f] * moving[m])).ln();
                    log[f * WIDE + m] = (j / moving[m]).ln();
                }
            }
        }
        let scale = -f64::from(self.per_unit) / n;
        let slopes: Vec<[f64; 6]> = sampled
            .par_iter()
            .map(|(_, kept)| {
                let mut sum = [0.0; 6];
                for (at, f, slope, place) in kept {
                    let w = window_slope(*f);
                    let by_value: f64 = (0..4)
                        .map(|k| f64::from(w[k]) * log[*at as usize + k])
                        .sum();
                    let m = &self.to_voxels.m;
                    // By the place in the moving series, mm.
                    let by_place: [f64; 3] = std::array::from_fn(|i| {
                        by_value * (0..3).map(|k| f64::from(slope[k]) * m[k][i]).sum::<f64>()
                    });
                    let off: [f64; 3] = std::array::from_fn(|i| place[i] - self.centre_mm[i]);
                    for i in 0..3 {
                        sum[i] += by_place[i];
                        for (axis, d) in d.iter().enumerate() {
                            let moved: f64 = (0..3).map(|k| d[i][k] * off[k]).sum();
                            sum[3 + axis] += by_place[i] * moved / RADIUS_MM;
                        }
                    }
                }
                sum
            })
            .collect();
        let mut slope = [0.0; 6];
        for part in slopes {
            slope
                .iter_mut()
                .zip(part)
                .for_each(|(s, p)| *s += scale * p);
        }
        (-information, slope)
    }
}

/// Weights of four bins around a value `f` behind the second: cubic B-spline.
fn window(f: f32) -> [f32; 4] {
    let (g, f2) = (1.0 - f, f * f);
    let f3 = f2 * f;
    [
        g * g * g / 6.0,
        (3.0 * f3 - 6.0 * f2 + 4.0) / 6.0,
        (-3.0 * f3 + 3.0 * f2 + 3.0 * f + 1.0) / 6.0,
        f3 / 6.0,
    ]
}

/// Their slopes.
fn window_slope(f: f32) -> [f32; 4] {
    let g = 1.0 - f;
    [
        -0.5 * g * g,
        1.5 * f * f - 2.0 * f,
        -1.5 * f * f + f + 0.5,
        0.5 * f * f,
    ]
}

/// BFGS with backtracking; parameters in mm.
fn minimise(start: [f64; 6], cost: impl Fn([f64; 6]) -> (f64, [f64; 6])) -> [f64; 6] {
    let times = |h: &[[f64; 6]; 6], v: &[f64; 6]| -> [f64; 6] {
        std::array::from_fn(|i| (0..6).map(|k| h[i][k] * v[k]).sum())
    };
    let inner = |a: &[f64; 6], b: &[f64; 6]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let identity = |s: f64| -> [[f64; 6]; 6] {
        std::array::from_fn(|i| std::array::from_fn(|k| if i == k { s } else { 0.0 }))
    };
    let mut p = start;
    let (mut value, mut slope) = cost(p);
    let length = inner(&slope, &slope).sqrt();
    if length < 1e-12 {
        return p;
    }
    // The first step is a millimetre long.
    let mut h = identity(1.0 / length);
    for _ in 0..40 {
        let mut step = times(&h, &slope).map(|v| -v);
        if inner(&step, &slope) >= 0.0 {
            let length = inner(&slope, &slope).sqrt().max(1e-12);
            h = identity(1.0 / length);
            step = slope.map(|v| -v / length);
        }
        let longest = inner(&step, &step).sqrt();
        if longest > 3.0 {
            step = step.map(|v| 3.0 * v / longest);
        }
        let along = inner(&step, &slope);
        let mut t = 1.0;
        let mut found = None;
        for _ in 0..8 {
            let next: [f64; 6] = std::array::from_fn(|i| p[i] + t * step[i]);
            let (v, s) = cost(next);
            if v <= value + 1e-4 * t * along {
                found = Some((next, v, s));
                break;
            }
            t *= 0.5;
        }
        let Some((next, next_value, next_slope)) = found else {
            break;
        };
        let s: [f64; 6] = std::array::from_fn(|i| next[i] - p[i]);
        let y: [f64; 6] = std::array::from_fn(|i| next_slope[i] - slope[i]);
        let sy = inner(&s, &y);
        if sy > 1e-14 {
            let hy = times(&h, &y);
            let yhy = inner(&y, &hy);
            for i in 0..6 {
                for k in 0..6 {
                    h[i][k] +=
                        (1.0 + yhy / sy) * s[i] * s[k] / sy - (hy[i] * s[k] + s[i] * hy[k]) / sy;
                }
            }
        }
        (p, value, slope) = (next, next_value, next_slope);
        if norm([s[0], s[1], s[2]]).max(norm([s[3], s[4], s[5]])) < 5e-3 {
            break;
        }
    }
    p
}
