//! The chain of vertebrae in space, and the smooth axis through it: places in the patient to places along the spine.

use super::draw::Draft;
use super::texture::{dot, mix};

/// A place and three directions: `u` to the left, `v` backwards, `w` towards the head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Frame {
    pub(super) origin: [f32; 3],
    pub(super) u: [f32; 3],
    pub(super) v: [f32; 3],
    pub(super) w: [f32; 3],
}

impl Frame {
    /// `tilt` forward, `bend` to the left, `turn` about the long axis, radians.
    fn new(origin: [f32; 3], [tilt, bend, turn]: [f32; 3]) -> Self {
        let (st, ct) = tilt.sin_cos();
        let (sb, cb) = bend.sin_cos();
        let (sr, cr) = turn.sin_cos();
        let w = [sb, -st * cb, ct * cb];
        // Backwards, made normal to w.
        let v = [0.0, ct, st];
        let along = dot(v, w);
        let v = [0, 1, 2].map(|i| v[i] - along * w[i]);
        let n = dot(v, v).sqrt();
        let v = v.map(|x| x / n);
        let u = [
            v[1] * w[2] - v[2] * w[1],
            v[2] * w[0] - v[0] * w[2],
            v[0] * w[1] - v[1] * w[0],
        ];
        Self {
            origin,
            u: [0, 1, 2].map(|i| cr * u[i] + sr * v[i]),
            v: [0, 1, 2].map(|i| cr * v[i] - sr * u[i]),
            w,
        }
    }

    /// Coordinates of a place in this frame, mm.
    pub(super) fn local(&self, p: [f32; 3]) -> [f32; 3] {
        let d = [0, 1, 2].map(|i| p[i] - self.origin[i]);
        [dot(d, self.u), dot(d, self.v), dot(d, self.w)]
    }

    /// The place with these coordinates.
    pub(super) fn place(&self, [u, v, w]: [f32; 3]) -> [f32; 3] {
        [0, 1, 2].map(|i| self.origin[i] + u * self.u[i] + v * self.v[i] + w * self.w[i])
    }
}

/// A place along the spine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Along {
    /// Level: `i` at the middle of vertebra i, `i + 0.5` at the middle of the disc below it.
    pub(super) t: f32,
    /// To the left of the axis, mm.
    pub(super) u: f32,
    /// Behind the axis, mm.
    pub(super) v: f32,
}

/// The axis, sampled.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// Middle of every vertebra.
    pub(super) vertebrae: Vec<Frame>,
    /// Middle of every disc.
    pub(super) discs: Vec<Frame>,
    samples: Vec<Sample>,
    /// First sample at or above each step of z.
    by_z: Vec<u32>,
    z_low: f32,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    frame: Frame,
    t: f32,
    /// Levels per mm downwards.
    rate: f32,
    /// Change of tilt per mm downwards.
    bend: f32,
}

/// Distance of samples, mm.
const STEP: f32 = 0.5;
/// Step of the table by z, mm.
const Z_STEP: f32 = 1.0;

impl Column {
    /// Stands the vertebrae on one another, beginning at the base. The base's upper endplate is the origin.
    pub(super) fn build(draft: &Draft) -> Self {
        let n = draft.levels.len();
        let base = draft.base;
        let f = |v: f64| {
            #[allow(clippy::cast_possible_truncation)] // storage precision
            let v = v as f32;
            v
        };
        let wedge = |front: f64, back: f64, length: f64| f(((front - back) / length).atan());
        let bow = |t: f64| {
            // One smooth bend; what leans left at its lower end leans right at its upper end.
            let x = (t - draft.cobb_level) / 2.4;
            f(draft.cobb_deg.to_radians() * (x / (1.0 + x * x)))
        };
        let turn = |t: f64| {
            let x = (t - draft.cobb_level) / 2.4;
            f(draft.cobb_deg.to_radians() * 0.45 / (1.0 + x * x))
        };
        let zero = Frame::new([0.0; 3], [0.0; 3]);
        let (mut vertebrae, mut discs) = (vec![zero; n], vec![zero; n]);
        let mut tilts = vec![0.0f32; 2 * n];
        let (mut top, mut tilt) = ([0.0f32; 3], f(draft.base_tilt_deg.to_radians()));
        // Downwards from the base's upper endplate.
        let start = (top, tilt);
        for i in base..n {
            let l = &draft.levels[i];
            let vw = wedge(
                l.anterior_mm,
                l.posterior_mm,
                0.5 * (l.superior_mm + l.inferior_mm),
            );
            let h = f(0.5 * (l.anterior_mm + l.posterior_mm));
            let frame = Frame::new([0.0; 3], [tilt + 0.5 * vw, bow(i as f64), turn(i as f64)]);
            vertebrae[i] = Frame {
                origin: [0, 1, 2].map(|k| top[k] - 0.5 * h * frame.w[k]),
                ..frame
            };
            tilts[2 * i] = tilt + 0.5 * vw;
            let bottom = [0, 1, 2].map(|k| top[k] - h * frame.w[k]);
            tilt += vw;
            let (rim, _) = rims(draft, i);
            let disc = f(0.5 * (rim[0] + rim[1]));
            let dw = wedge(rim[0], rim[1], l.inferior_mm);
            let frame = Frame::new(
                [0.0; 3],
                [tilt + 0.5 * dw, bow(i as f64 + 0.5), turn(i as f64 + 0.5)],
            );
            discs[i] = Frame {
                origin: [0, 1, 2].map(|k| bottom[k] - 0.5 * disc * frame.w[k]),
                ..frame
            };
            tilts[2 * i + 1] = tilt + 0.5 * dw;
            top = [0, 1, 2].map(|k| bottom[k] - disc * frame.w[k]);
            tilt += dw;
        }
        // Upwards.
        (top, tilt) = start;
        for i in (0..base).rev() {
            let l = &draft.levels[i];
            let (rim, _) = rims(draft, i);
            let dw = wedge(rim[0], rim[1], l.inferior_mm);
            let disc = f(0.5 * (rim[0] + rim[1]));
            tilt -= dw;
            let frame = Frame::new(
                [0.0; 3],
                [tilt + 0.5 * dw, bow(i as f64 + 0.5), turn(i as f64 + 0.5)],
            );
            let slip = f(l.slip_mm);
            discs[i] = Frame {
                origin: [0, 1, 2]
                    .map(|k| top[k] + 0.5 * disc * frame.w[k] - 0.5 * slip * frame.v[k]),
                ..frame
            };
            tilts[2 * i + 1] = tilt + 0.5 * dw;
            let bottom = [0, 1, 2].map(|k| top[k] + disc * frame.w[k] - slip * frame.v[k]);
            let vw = wedge(
                l.anterior_mm,
                l.posterior_mm,
                0.5 * (l.superior_mm + l.inferior_mm),
            );
            tilt -= vw;
            let h = f(0.5 * (l.anterior_mm + l.posterior_mm));
            let frame = Frame::new([0.0; 3], [tilt + 0.5 * vw, bow(i as f64), turn(i as f64)]);
            vertebrae[i] = Frame {
                origin: [0, 1, 2].map(|k| bottom[k] + 0.5 * h * frame.w[k]),
                ..frame
            };
            tilts[2 * i] = tilt + 0.5 * vw;
            top = [0, 1, 2].map(|k| bottom[k] + h * frame.w[k]);
        }
        let mut column = Self {
            vertebrae,
            discs,
            samples: Vec::new(),
            by_z: Vec::new(),
            z_low: 0.0,
        };
        column.sample(&tilts, &bow, &turn);
        column
    }

    fn sample(&mut self, tilts: &[f32], bow: &dyn Fn(f64) -> f32, turn: &dyn Fn(f64) -> f32) {
        let knots: Vec<&Frame> = self
            .vertebrae
            .iter()
            .zip(&self.discs)
            .flat_map(|(v, d)| [v, d])
            .collect();
        let n = knots.len();
        // A straight piece beyond each end, so that the axis leaves the field of view.
        let first = knots[0].place([0.0, 0.0, 130.0]);
        let last = knots[n - 1].place([0.0, 0.0, -160.0]);
        let mut samples = Vec::new();
        let mut piece =
            |a: [f32; 3], b: [f32; 3], wa: [f32; 3], wb: [f32; 3], k: [f32; 2], t: [f32; 2]| {
                let d = [0, 1, 2].map(|i| b[i] - a[i]);
                let length = dot(d, d).sqrt();
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // millimetres
                let steps = (length / STEP).ceil().max(1.0) as usize;
                for s in 0..steps {
                    let x = s as f32 / steps as f32;
                    // Cubic Hermite with the frames' own directions as tangents.
                    let (x2, x3) = (x * x, x * x * x);
                    let h = [
                        2.0 * x3 - 3.0 * x2 + 1.0,
                        x3 - 2.0 * x2 + x,
                        -2.0 * x3 + 3.0 * x2,
                        x3 - x2,
                    ];
                    let origin = [0, 1, 2].map(|i| {
                        h[0] * a[i] - h[1] * length * wa[i] + h[2] * b[i] - h[3] * length * wb[i]
                    });
                    let level = mix(t[0], t[1], x);
                    samples.push(Sample {
                        frame: Frame::new(
                            origin,
                            [
                                mix(k[0], k[1], x),
                                bow(f64::from(level)),
                                turn(f64::from(level)),
                            ],
                        ),
                        t: level,
                        rate: (t[1] - t[0]) / length,
                        bend: (k[1] - k[0]) / length,
                    });
                }
            };
        let w = |i: usize| knots[i].w;
        piece(
            first,
            knots[0].origin,
            w(0),
            w(0),
            [tilts[0]; 2],
            [-5.0, 0.0],
        );
        for i in 0..n - 1 {
            piece(
                knots[i].origin,
                knots[i + 1].origin,
                w(i),
                w(i + 1),
                [tilts[i], tilts[i + 1]],
                [i as f32 * 0.5, (i + 1) as f32 * 0.5],
            );
        }
        let end = (n - 1) as f32 * 0.5;
        piece(
            knots[n - 1].origin,
            last,
            w(n - 1),
            w(n - 1),
            [tilts[n - 1]; 2],
            [end, end + 8.0],
        );
        let z_low = samples
            .iter()
            .map(|s| s.frame.origin[2])
            .fold(f32::MAX, f32::min);
        let z_high = samples
            .iter()
            .map(|s| s.frame.origin[2])
            .fold(f32::MIN, f32::max);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // millimetres
        let rows = ((z_high - z_low) / Z_STEP) as usize + 1;
        let mut by_z = vec![0u32; rows];
        let mut s = 0;
        for row in (0..rows).rev() {
            let z = z_low + row as f32 * Z_STEP;
            while s + 1 < samples.len() && samples[s].frame.origin[2] > z {
                s += 1;
            }
            by_z[row] = u32::try_from(s).unwrap_or(u32::MAX);
        }
        (self.samples, self.by_z, self.z_low) = (samples, by_z, z_low);
    }

    /// The axis at the height of a place.
    pub(super) fn axis_at_z(&self, z: f32) -> [f32; 3] {
        self.samples[self.near_z(z)].frame.origin
    }

    fn near_z(&self, z: f32) -> usize {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
        let row = ((z - self.z_low) / Z_STEP).clamp(0.0, (self.by_z.len() - 1) as f32) as usize;
        self.by_z[row] as usize
    }

    /// Where along the spine a place is: the sample whose normal plane it lies in.
    pub(super) fn along(&self, p: [f32; 3]) -> Along {
        let last = (self.samples.len() - 1) as f32;
        let mut at = self.near_z(p[2]) as f32;
        let mut best = Along {
            t: 0.0,
            u: 0.0,
            v: 0.0,
        };
        for _ in 0..4 {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
            let s = &self.samples[at.clamp(0.0, last) as usize];
            let [u, v, w] = s.frame.local(p);
            // Downwards is positive along the samples; the planes fan out where the axis bends.
            let fan = (1.0 - s.bend * v).clamp(0.35, 3.0);
            let down = -w / fan;
            best = Along {
                t: s.t + down.clamp(-STEP, STEP) * s.rate,
                u,
                v,
            };
            if down.abs() < 0.6 * STEP {
                break;
            }
            at = (at.clamp(0.0, last) + (down / STEP).clamp(-80.0, 80.0)).clamp(0.0, last);
        }
        best
    }

    /// Frame of the axis at a level.
    pub(super) fn frame_at(&self, t: f32) -> Frame {
        let i = self
            .samples
            .partition_point(|s| s.t < t)
            .min(self.samples.len() - 1);
        self.samples[i].frame
    }
}

/// Rims of the disc below vertebra `i` (front, back) and the depth of the two bowls, mm: the drawn middle height and the
/// rims disagree by what the bowls add; the rims give way a little, the front one most.
pub(super) fn rims(draft: &Draft, i: usize) -> ([f64; 2], f64) {
    let l = &draft.levels[i];
    let bowls = l.concavity_mm[1] + draft.levels.get(i + 1).map_or(0.0, |n| n.concavity_mm[0]);
    let d = &l.disc;
    let excess = 0.5 * (d.anterior_mm + d.posterior_mm) + bowls - d.middle_mm;
    let give = excess.max(0.0);
    (
        [
            (d.anterior_mm - 0.4 * give).max(0.6),
            (d.posterior_mm - 0.15 * give).max(0.5),
        ],
        bowls,
    )
}
