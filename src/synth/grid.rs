//! Blocks of voxels in patient coordinates: turning to the networks' axes, smoothing, sampling, the body.

use rayon::prelude::*;

use crate::data::Geometry;

pub(super) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn norm(a: [f64; 3]) -> f64 {
    dot(a, a).sqrt()
}

pub(super) fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

/// Voxels `[z, y, x]` and where they lie.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Where.
    pub geometry: Geometry,
    /// Values.
    pub values: Vec<f32>,
}

/// A linear map and a shift.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Affine {
    pub(super) m: [[f64; 3]; 3],
    pub(super) v: [f64; 3],
}

impl Affine {
    pub(super) fn at(&self, p: [f64; 3]) -> [f64; 3] {
        std::array::from_fn(|i| dot(self.m[i], p) + self.v[i])
    }

    /// `self` after `first`.
    pub(super) fn after(&self, first: &Self) -> Self {
        Self {
            m: std::array::from_fn(|i| {
                std::array::from_fn(|k| (0..3).map(|j| self.m[i][j] * first.m[j][k]).sum())
            }),
            v: self.at(first.v),
        }
    }

    /// From voxel indices to patient coordinates.
    pub(super) fn of_voxels(g: &Geometry) -> Self {
        let dirs = [g.read_dir, g.phase_dir, g.slice_dir];
        let column = |k: usize, i: usize| f64::from(dirs[k][i]) * f64::from(g.voxel_mm[k]);
        Self {
            m: std::array::from_fn(|i| std::array::from_fn(|k| column(k, i))),
            v: g.voxel_to_patient([0.0; 3]),
        }
    }

    /// From patient coordinates to voxel indices.
    pub(super) fn to_voxels(g: &Geometry) -> Self {
        let dirs = [g.read_dir, g.phase_dir, g.slice_dir];
        let m: [[f64; 3]; 3] = std::array::from_fn(|k| {
            std::array::from_fn(|i| f64::from(dirs[k][i]) / f64::from(g.voxel_mm[k]))
        });
        let centre = g.centre_mm.map(f64::from);
        Self {
            m,
            v: std::array::from_fn(|k| (g.matrix[k] / 2) as f64 - dot(m[k], centre)),
        }
    }
}

/// How a sagittal block is turned so that x goes to the back, y to the feet, z to the right: the networks' axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Which axis of the block is x and which is y.
    axes: [usize; 2],
    /// Along the new x, y, z.
    is_flipped: [bool; 3],
    /// Of the block.
    matrix: [usize; 3],
}

/// The networks' axes, LPS.
const AXES: [[f64; 3]; 3] = [[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]];

impl Turn {
    /// The turn, and by how many degrees the slices are tilted from sagittal.
    pub(super) fn of(g: &Geometry) -> (Self, f64) {
        let dirs = [g.read_dir, g.phase_dir, g.slice_dir].map(|d| d.map(f64::from));
        let straight = dot(dirs[0], AXES[0]).abs() + dot(dirs[1], AXES[1]).abs();
        let across = dot(dirs[1], AXES[0]).abs() + dot(dirs[0], AXES[1]).abs();
        let axes = if across > straight { [1, 0] } else { [0, 1] };
        let is_flipped = [
            dot(dirs[axes[0]], AXES[0]) < 0.0,
            dot(dirs[axes[1]], AXES[1]) < 0.0,
            dot(dirs[2], AXES[2]) < 0.0,
        ];
        let turn = Self {
            axes,
            is_flipped,
            matrix: g.matrix,
        };
        (
            turn,
            dot(dirs[2], AXES[2]).abs().min(1.0).acos().to_degrees(),
        )
    }

    /// Voxels along the new x, y, z.
    pub(super) fn size(&self) -> [usize; 3] {
        [
            self.matrix[self.axes[0]],
            self.matrix[self.axes[1]],
            self.matrix[2],
        ]
    }

    /// Place in the block of each new voxel, in the order of the new ones.
    fn places(&self) -> impl Iterator<Item = usize> {
        let [nx, ny, nz] = self.size();
        let turn = *self;
        (0..nz * ny * nx).map(move |i| {
            let new = [i % nx, i / nx % ny, i / (nx * ny)];
            let mut old = [0; 3];
            for (axis, from) in [turn.axes[0], turn.axes[1], 2].into_iter().enumerate() {
                let n = turn.matrix[from];
                old[from] = if turn.is_flipped[axis] {
                    n - 1 - new[axis]
                } else {
                    new[axis]
                };
            }
            (old[2] * turn.matrix[1] + old[1]) * turn.matrix[0] + old[0]
        })
    }

    pub(super) fn there(&self, volume: &Volume) -> Volume {
        let g = volume.geometry;
        let dirs = [g.read_dir, g.phase_dir, g.slice_dir];
        let from = [self.axes[0], self.axes[1], 2];
        let dir = |axis: usize| {
            let d = dirs[from[axis]];
            if self.is_flipped[axis] {
                d.map(|v| -v)
            } else {
                d
            }
        };
        // Where the new middle voxel was.
        let mut middle = [0.0; 3];
        for (axis, &k) in from.iter().enumerate() {
            let n = g.matrix[k];
            let i = n / 2;
            middle[k] = if self.is_flipped[axis] { n - 1 - i } else { i } as f64;
        }
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let centre_mm = g.voxel_to_patient(middle).map(|v| v as f32);
        Volume {
            geometry: Geometry {
                matrix: self.size(),
                voxel_mm: from.map(|k| g.voxel_mm[k]),
                centre_mm,
                read_dir: dir(0),
                phase_dir: dir(1),
                slice_dir: dir(2),
            },
            values: self.places().map(|i| volume.values[i]).collect(),
        }
    }

    /// Slice `z` of the turned block, back in the block's own axes: which slice that is, and its values.
    pub(super) fn back(&self, z: usize, turned: &[f32]) -> (usize, Vec<f32>) {
        let [nx, ny, nz] = self.size();
        let n = nx * ny;
        let slice = if self.is_flipped[2] { nz - 1 - z } else { z };
        let mut values = vec![0.0; n];
        for (value, place) in turned.iter().zip(self.places().skip(z * n).take(n)) {
            values[place - slice * n] = *value;
        }
        (slice, values)
    }
}

impl Volume {
    /// Value below which `share` of all voxels lie.
    pub(super) fn percentile(&self, share: f64) -> f32 {
        let mut values = self.values.clone();
        if values.is_empty() {
            return 0.0;
        }
        let at = ((values.len() - 1) as f64 * share).round() as usize;
        *values.select_nth_unstable_by(at, f32::total_cmp).1
    }

    /// Noise from the finest detail: a quantile of the diagonal differences of 2 x 2 voxels inside of the body (after Donoho).
    pub(super) fn noise_estimate(&self) -> f32 {
        let [nx, ny, _] = self.geometry.matrix;
        let floor = 0.1 * self.percentile(0.995);
        let mut all = Vec::new();
        for plane in self.values.chunks_exact((nx * ny).max(1)) {
            for y in (0..ny.saturating_sub(1)).step_by(2) {
                for x in (0..nx.saturating_sub(1)).step_by(2) {
                    let v = [[y, x], [y, x + 1], [y + 1, x], [y + 1, x + 1]]
                        .map(|[y, x]| plane[y * nx + x]);
                    if v.iter().all(|v| *v > floor) {
                        all.push((0.5 * (v[0] - v[1] - v[2] + v[3])).abs());
                    }
                }
            }
        }
        // A quarter instead of the half: detail of the anatomy makes the larger ones larger.
        let quarter = all.len() / 4;
        if all.is_empty() {
            return 0.0;
        }
        *all.select_nth_unstable_by(quarter, f32::total_cmp).1 / 0.3186
    }

    /// Smoothed in the plane by a Gaussian of `sigma_mm`.
    pub(super) fn smoothed(&self, sigma_mm: f64) -> Self {
        let [nx, ny, _] = self.geometry.matrix;
        let taps = |axis: usize| -> Vec<f32> {
            let s = sigma_mm / f64::from(self.geometry.voxel_mm[axis]);
            let half = (3.0 * s).ceil() as isize;
            let w: Vec<f64> = (-half..=half)
                .map(|i| (-0.5 * (i as f64 / s.max(1e-3)).powi(2)).exp())
                .collect();
            let sum: f64 = w.iter().sum();
            #[allow(clippy::cast_possible_truncation)] // storage precision
            w.iter().map(|w| (w / sum) as f32).collect()
        };
        let (wx, wy) = (taps(0), taps(1));
        let mut out = self.clone();
        out.values
            .par_chunks_exact_mut((nx * ny).max(1))
            .for_each(|plane| {
                let mut rows = vec![0.0; nx * ny];
                let (hx, hy) = (wx.len() / 2, wy.len() / 2);
                for (row, to) in plane.chunks_exact(nx).zip(rows.chunks_exact_mut(nx)) {
                    for (x, to) in to.iter_mut().enumerate() {
                        let place = |i: usize| (x + i).saturating_sub(hx).min(nx - 1);
                        *to = wx.iter().enumerate().map(|(i, w)| w * row[place(i)]).sum();
                    }
                }
                plane.fill(0.0);
                for (y, to) in plane.chunks_exact_mut(nx).enumerate() {
                    for (i, w) in wy.iter().enumerate() {
                        let from = (y + i).saturating_sub(hy).min(ny - 1);
                        for (to, v) in to.iter_mut().zip(&rows[from * nx..][..nx]) {
                            *to += w * v;
                        }
                    }
                }
            });
        out
    }

    /// Each value against the mean of the body around it, a Gaussian of `sigma_mm` in the plane: what a coil's shading leaves
    /// alone. 0 outside of the body.
    pub(super) fn local(&self, body: &[bool], sigma_mm: f64) -> Vec<f32> {
        let [nx, ny, nz] = self.geometry.matrix;
        // Means are smooth: they are made on blocks, and interpolated.
        let step: [usize; 2] = [0, 1].map(|k| {
            let mm = f64::from(self.geometry.voxel_mm[k]);
            ((sigma_mm / 4.0 / mm).floor() as usize).max(1)
        });
        let coarse = [nx.div_ceil(step[0]), ny.div_ceil(step[1])];
        let mut geometry = self.geometry;
        geometry.matrix = [coarse[0], coarse[1], nz];
        for (mm, n) in geometry.voxel_mm.iter_mut().zip(step) {
            *mm *= n as f32;
        }
        let n = coarse[0] * coarse[1];
        let (mut sum, mut count) = (vec![0.0; n * nz], vec![0.0; n * nz]);
        for (i, v) in self.values.iter().enumerate().filter(|(i, _)| body[*i]) {
            let (x, y, z) = (i % nx / step[0], i / nx % ny / step[1], i / (nx * ny));
            let at = (z * coarse[1] + y) * coarse[0] + x;
            sum[at] += v;
            count[at] += 1.0;
        }
        let smooth = |values: Vec<f32>| Self { geometry, values }.smoothed(sigma_mm);
        let (mut mean, count) = (smooth(sum), smooth(count));
        for (m, c) in mean.values.iter_mut().zip(&count.values) {
            *m /= c.max(1e-6);
        }
        let place = |i: usize, k: usize| {
            ((i as f64 + 0.5) / step[k] as f64 - 0.5).clamp(0.0, (coarse[k] - 1) as f64)
        };
        let mut out = vec![0.0; self.values.len()];
        out.par_iter_mut().enumerate().for_each(|(i, out)| {
            if body[i] {
                let at = [
                    place(i % nx, 0),
                    place(i / nx % ny, 1),
                    (i / (nx * ny)) as f64,
                ];
                let mean = mean.linear(at).map_or(0.0, |(v, _)| v);
                *out = self.values[i] / mean.max(f32::MIN_POSITIVE);
            }
        });
        out
    }

    /// The body: whatever lies, along its row and along its column, between voxels with signal.
    pub(super) fn body(&self) -> Vec<bool> {
        let [nx, ny, _] = self.geometry.matrix;
        let smooth = self.smoothed(2.5);
        let floor = 0.1 * smooth.percentile(0.98);
        let mut body = vec![false; self.values.len()];
        body.par_chunks_exact_mut((nx * ny).max(1))
            .zip(smooth.values.par_chunks_exact((nx * ny).max(1)))
            .for_each(|(body, plane)| {
                let ends = |line: &mut dyn DoubleEndedIterator<Item = (usize, f32)>| {
                    let mut there = line.filter(|(_, v)| *v > floor).map(|(i, _)| i);
                    let first = there.next()?;
                    Some((first, there.next_back().unwrap_or(first)))
                };
                let row = |y: usize| ends(&mut (0..nx).map(|x| (x, plane[y * nx + x])));
                let column = |x: usize| ends(&mut (0..ny).map(|y| (y, plane[y * nx + x])));
                let (rows, columns): (Vec<_>, Vec<_>) =
                    ((0..ny).map(row).collect(), (0..nx).map(column).collect());
                let is_in = |end: Option<(usize, usize)>, i: usize| {
                    end.is_some_and(|(a, b)| (a..=b).contains(&i))
                };
                for y in 0..ny {
                    for x in 0..nx {
                        body[y * nx + x] = is_in(rows[y], x) && is_in(columns[x], y);
                    }
                }
            });
        body
    }

    /// Linear interpolation at a voxel index, and its slope; `None` more than half a voxel outside.
    pub(super) fn linear(&self, at: [f64; 3]) -> Option<(f32, [f32; 3])> {
        let n = self.geometry.matrix;
        let mut low = [0_usize; 3];
        let mut f = [0.0_f32; 3];
        for k in 0..3 {
            let last = (n[k] - 1) as f64;
            if !(-0.5..=last + 0.5).contains(&at[k]) {
                return None;
            }
            let a = at[k].clamp(0.0, last);
            low[k] = (a as usize).min(n[k].saturating_sub(2));
            #[allow(clippy::cast_possible_truncation)] // storage precision
            {
                f[k] = (a - low[k] as f64) as f32;
            }
        }
        let (sy, sz) = (n[0], n[0] * n[1]);
        let step = [
            usize::from(n[0] > 1),
            if n[1] > 1 { sy } else { 0 },
            if n[2] > 1 { sz } else { 0 },
        ];
        let base = low[2] * sz + low[1] * sy + low[0];
        let v = |x: usize, y: usize, z: usize| {
            self.values[base + x * step[0] + y * step[1] + z * step[2]]
        };
        let mix = |a: f32, b: f32, f: f32| a + (b - a) * f;
        let row = |y, z| mix(v(0, y, z), v(1, y, z), f[0]);
        let rows = [[row(0, 0), row(1, 0)], [row(0, 1), row(1, 1)]];
        let planes = rows.map(|r| mix(r[0], r[1], f[1]));
        let dx = |y, z| v(1, y, z) - v(0, y, z);
        let dxs = mix(
            mix(dx(0, 0), dx(1, 0), f[1]),
            mix(dx(0, 1), dx(1, 1), f[1]),
            f[2],
        );
        let dy = mix(rows[0][1] - rows[0][0], rows[1][1] - rows[1][0], f[2]);
        Some((
            mix(planes[0], planes[1], f[2]),
            [dxs, dy, planes[1] - planes[0]],
        ))
    }

    /// Brought onto another grid; `to_voxels` leads from that grid's indices to ours. Cubic in the plane (Catmull and Rom),
    /// linear from slice to slice: the slices of a 2D scan are what they are.
    pub(super) fn resampled(&self, grid: &Geometry, to_voxels: &Affine) -> Resampled {
        let [nx, ny, nz] = grid.matrix;
        let n = nx * ny;
        let mut values = vec![0.0_f32; n * nz];
        let mut is_there = vec![false; n * nz];
        let gains: Vec<f64> = values
            .par_chunks_exact_mut(n)
            .zip(is_there.par_chunks_exact_mut(n))
            .enumerate()
            .map(|(z, (values, is_there))| {
                let mut gain = 0.0;
                for y in 0..ny {
                    for x in 0..nx {
                        let at = to_voxels.at([x as f64, y as f64, z as f64]);
                        if let Some((v, g)) = self.cubic(at) {
                            values[y * nx + x] = v;
                            is_there[y * nx + x] = true;
                            gain += f64::from(g);
                        }
                    }
                }
                gain
            })
            .collect();
        let count = is_there.iter().filter(|t| **t).count().max(1);
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let noise_gain = (gains.iter().sum::<f64>() / count as f64).sqrt() as f32;
        Resampled {
            values,
            is_there,
            noise_gain,
        }
    }

    /// Value at a voxel index and the sum of the squared weights.
    fn cubic(&self, at: [f64; 3]) -> Option<(f32, f32)> {
        let n = self.geometry.matrix;
        let mut places = [[0_usize; 4]; 3];
        let mut weights = [[0.0_f32; 4]; 3];
        for k in 0..3 {
            let last = (n[k] - 1) as f64;
            if !(-0.5..=last + 0.5).contains(&at[k]) {
                return None;
            }
            let a = at[k].clamp(0.0, last);
            let low = a.floor();
            #[allow(clippy::cast_possible_truncation)] // storage precision
            let t = (a - low) as f32;
            weights[k] = if k == 2 {
                [0.0, 1.0 - t, t, 0.0]
            } else {
                let (t2, t3) = (t * t, t * t * t);
                [
                    0.5 * (-t3 + 2.0 * t2 - t),
                    0.5 * (3.0 * t3 - 5.0 * t2 + 2.0),
                    0.5 * (-3.0 * t3 + 4.0 * t2 + t),
                    0.5 * (t3 - t2),
                ]
            };
            let low = low as usize;
            places[k] = std::array::from_fn(|i| (low + i).saturating_sub(1).min(n[k] - 1));
        }
        let mut value = 0.0;
        for (z, wz) in places[2].iter().zip(weights[2]).skip(1).take(2) {
            for (y, wy) in places[1].iter().zip(weights[1]) {
                let row = &self.values[(z * n[1] + y) * n[0]..][..n[0]];
                let sum: f32 = places[0]
                    .iter()
                    .zip(weights[0])
                    .map(|(x, w)| w * row[*x])
                    .sum();
                value += wz * wy * sum;
            }
        }
        let squares = weights.map(|w| w.iter().map(|w| w * w).sum::<f32>());
        // A magnitude stays one where the cubic overshoots.
        Some((value.max(0.0), squares.iter().product()))
    }
}

/// A volume on another grid.
pub(super) struct Resampled {
    pub(super) values: Vec<f32>,
    pub(super) is_there: Vec<bool>,
    /// Standard deviation of the noise, against that before.
    pub(super) noise_gain: f32,
}
