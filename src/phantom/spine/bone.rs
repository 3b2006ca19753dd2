//! The shape of one vertebra in its own frame: body, arch and processes as distances, mm, negative inside.

use super::draw::Draft;
use super::texture::{
    ellipse, ellipsoid, hypot, mix, rounded_box, segment, smooth_max, smooth_min, step,
};
use crate::phantom::Structure;
use crate::sequence::Region;

/// Sizes of one vertebra.
#[derive(Clone, Debug)]
pub(super) struct Bone {
    is_cervical: bool,
    is_sacral: bool,
    /// No body: the atlas.
    pub(super) has_body: bool,
    /// The dens stands on the axis.
    has_dens: bool,
    anterior: f32,
    posterior: f32,
    concavity: [f32; 2],
    length: [f32; 2],
    width: f32,
    pub(super) osteophyte: f32,
    pedicle_width: [f32; 2],
    pedicle_height: [f32; 2],
    pub(super) canal_ap: f32,
    pub(super) canal_width: f32,
    pub(super) lamina: f32,
    pub(super) spinous: f32,
    transverse: f32,
    rises_to_the_spinous_tip: f32,
}

/// Distances of a place to the faces of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body {
    /// To the whole of it.
    pub(super) whole: f32,
    /// Above the upper endplate.
    pub(super) top: f32,
    /// Below the lower endplate.
    pub(super) bottom: f32,
}

impl Bone {
    pub(super) fn new(draft: &Draft, i: usize) -> Self {
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let f = |v: f64| v as f32;
        let l = &draft.levels[i];
        let is_cervical = draft.region == Region::Cervical && i < 7;
        Self {
            is_cervical,
            is_sacral: draft.region == Region::Lumbar && i >= draft.base,
            has_body: l.name != "C1",
            has_dens: l.name == "C2",
            anterior: f(l.anterior_mm),
            posterior: f(l.posterior_mm),
            concavity: l.concavity_mm.map(f),
            length: [f(l.superior_mm), f(l.inferior_mm)],
            width: f(l.width_mm),
            osteophyte: f(l.osteophyte_mm),
            pedicle_width: l.pedicle_width_mm.map(f),
            pedicle_height: l.pedicle_height_mm.map(f),
            canal_ap: f(l.canal_ap_mm),
            canal_width: f(l.canal_width_mm),
            lamina: f(l.lamina_mm),
            spinous: f(l.spinous_mm),
            transverse: f(l.transverse_mm),
            rises_to_the_spinous_tip: if draft.region == Region::Cervical || i < 3 {
                -0.55
            } else {
                -0.22
            },
        }
    }

    /// Mean height, mm.
    pub(super) fn height(&self) -> f32 {
        0.5 * (self.anterior + self.posterior)
    }

    /// Back of the body at half height, mm behind its middle.
    pub(super) fn back(&self) -> f32 {
        0.25 * (self.length[0] + self.length[1])
    }

    /// Half of the outline's axes (side, depth) at height `w`.
    fn axes(&self, w: f32) -> [f32; 2] {
        let h = 0.5 * self.height();
        let x = (w / h).clamp(-1.3, 1.3);
        let length = mix(self.length[1], self.length[0], 0.5 + 0.5 * x);
        let waist = (1.0 - x * x).max(0.0);
        let spur = self.osteophyte * step(0.62, 1.0, x.abs());
        [
            0.5 * self.width * (1.0 - 0.13 * waist) + spur,
            0.5 * length * (1.0 - 0.075 * waist) + 0.8 * spur,
        ]
    }

    /// How far outside of the outline a place is, and its radius relative to the outline.
    pub(super) fn outline(&self, [u, v, w]: [f32; 3]) -> (f32, f32) {
        let [a, b] = self.axes(w);
        outline(u, v, a, b, 0.09 * b)
    }

    pub(super) fn body(&self, l: [f32; 3]) -> Body {
        let [u, v, w] = l;
        let (side, rho) = self.outline(l);
        let b = self.back();
        let x = ((v + b) / (2.0 * b)).clamp(-0.1, 1.1);
        let half = 0.5 * mix(self.anterior, self.posterior, x);
        let r2 = (rho * rho).min(1.0);
        let bowl = (1.0 - r2) * (1.0 - 0.25 * r2);
        let mut top = w - (half - self.concavity[0] * bowl);
        let bottom = -w - (half - self.concavity[1] * bowl);
        if self.is_cervical {
            // Uncinate processes: the upper endplate rises at both sides.
            top -= 3.6 * step(0.66, 0.98, u.abs() / (0.5 * self.width)) * step(-0.4, 0.3, v / b);
        }
        let mut whole = smooth_max(side, smooth_max(top, bottom, 0.8), 2.2);
        if self.has_dens {
            let dens = ellipsoid([u, v + 0.12 * b, w - half - 6.5], [5.2, 5.4, 13.0]);
            whole = smooth_min(whole, dens, 3.0);
            top = top.max(-dens);
        }
        if !self.has_body {
            // The atlas keeps only its front arch.
            whole = smooth_max(ellipse(v + b + 1.5, w, 3.0, 5.2), u.abs() - 9.0, 2.0);
        }
        Body { whole, top, bottom }
    }

    /// Middle of the canal, mm behind the middle of the body.
    pub(super) fn canal_centre(&self) -> f32 {
        self.back() + 0.5 * self.canal_ap
    }

    /// Whether a place is near enough to the arch and its processes to ask for their distance.
    pub(super) fn may_hold(&self, [_, _, w]: [f32; 3]) -> bool {
        let h = self.height();
        let tip = self.rises_to_the_spinous_tip * (self.spinous + 4.0);
        w < 0.65 * h + 9.0 && w > -0.7 * h - 9.0 + tip
    }

    /// The arch and its processes without the articular ones: the part that a place is deepest in. Parts that it is not in
    /// are left out where that is seen early.
    pub(super) fn arch(&self, l: [f32; 3]) -> (f32, Structure) {
        let [u, v, w] = l;
        let side = usize::from(u > 0.0);
        let au = u.abs();
        let h = self.height();
        let back = self.back();
        let vc = self.canal_centre();
        let (half_w, half_ap) = (0.5 * self.canal_width, 0.5 * self.canal_ap);
        let mut best = (f32::MAX, Structure::Outside);
        let mut take = |d: f32, what: Structure| {
            if d < best.0 {
                best = (d, what);
            }
        };

        // Pedicle.
        let (pw, ph) = (self.pedicle_width[side], self.pedicle_height[side]);
        let wp = if self.is_cervical { 0.0 } else { 0.17 * h };
        let along = (back - 6.0 - v).max(v - vc - 0.2 * half_ap);
        if along < 0.0 {
            let across = ellipse(au - half_w - 0.5 * pw, w - wp, 0.5 * pw, 0.5 * ph);
            take(smooth_max(across, along, 2.0), Structure::Pedicle);
        }
        if !self.has_body {
            // Lateral masses of the atlas.
            take(
                ellipsoid([au - 17.0, v - back + 4.0, w], [9.0, 9.0, 8.0]),
                Structure::ArticularProcess,
            );
        }

        // Lamina: a shell around the canal's back.
        let lean = if self.is_cervical { 0.3 } else { 0.17 };
        let vv = v + lean * (w + 0.25 * h).min(4.0);
        let t = self.lamina;
        let (top, bottom) = if self.is_cervical {
            (0.42 * h, -0.52 * h)
        } else {
            (0.2 * h, -0.66 * h)
        };
        let cut = (w - top).max(bottom - w).max(vc + 0.05 * half_ap - vv);
        if cut < 0.0 {
            let shell = ellipse(u, vv - vc, half_w, half_ap);
            let ring = (shell - 0.5 * t).abs() - 0.5 * t;
            take(smooth_max(ring, cut, 1.6), Structure::Lamina);
        }

        // Spinous process: a plate that hangs down and thickens at its end.
        let root = vc + half_ap + 0.4 * t - lean * (w + 0.25 * h).min(4.0);
        let x = (v - root) / self.spinous.max(1.0);
        let ww = w - self.rises_to_the_spinous_tip * (v - root);
        let (hi, lo) = if self.is_cervical {
            (0.22 * h, -0.5 * h)
        } else {
            (0.1 * h, -0.64 * h)
        };
        let middle = 0.5 * (hi + lo);
        let tall = 0.5 * (hi - lo) * (1.0 - 0.18 * x.clamp(0.0, 1.0));
        let thick = if self.is_cervical { 2.0 } else { 2.6 } + 2.0 * step(0.55, 1.0, x);
        if self.spinous > 6.0 && au < thick {
            let plate = smooth_max(
                smooth_max(au - thick, (ww - middle).abs() - tall, 2.5),
                smooth_max(root - v - 2.0, v - root - self.spinous, 2.5),
                2.5,
            );
            take(plate, Structure::SpinousProcess);
        }

        // Transverse process.
        if self.transverse > 1.0 && au > half_w.min(self.transverse) - 6.2 {
            let (from, to) = if self.is_cervical {
                (
                    [half_w + 1.0, back - 1.0, 0.0],
                    [self.transverse, back - 4.0, -2.0],
                )
            } else {
                (
                    [half_w + 0.5 * pw, vc - 0.25 * half_ap, wp - 1.0],
                    [self.transverse, vc + 4.0, wp + 1.5],
                )
            };
            let (d, x) = segment([au, v, w], from, to);
            let r = if self.is_cervical {
                4.0
            } else {
                mix(6.2, 4.0, x)
            };
            let mut process = d - r;
            if self.is_cervical {
                // Hole of the vertebral artery.
                process = process.max(3.1 - hypot(au - half_w - 5.5, v - back + 2.0));
            }
            take(process, Structure::TransverseProcess);
        }
        best
    }

    /// Wings of the sacrum in the frame of its vertebra; the sacrum's first is the widest.
    pub(super) fn ala(&self, l: [f32; 3], nth: usize) -> f32 {
        if !self.is_sacral {
            return f32::MAX;
        }
        let [u, v, w] = l;
        let wide = [54.0, 46.0, 36.0, 26.0].get(nth).copied().unwrap_or(20.0);
        let (top, bottom) = (0.44 * self.height(), 0.62 * self.height() + 2.0);
        let thick = [17.0, 13.0, 10.0, 8.0].get(nth).copied().unwrap_or(7.0);
        // Foramina of the sacrum.
        let hole = 5.0
            - hypot(
                u.abs() - 0.5 * self.canal_width - 5.0,
                w + 0.55 * self.height(),
            );
        let slab = smooth_max(
            smooth_max(
                u.abs() - wide + 0.25 * w.abs(),
                (w - 0.5 * (top - bottom)).abs() - 0.5 * (top + bottom),
                5.0,
            ),
            (v - self.back() + 5.0 - 0.15 * u.abs()).abs() - thick,
            5.0,
        );
        let canal = -ellipse(
            u,
            v - self.canal_centre(),
            0.5 * self.canal_width,
            0.5 * self.canal_ap,
        );
        smooth_max(slab, hole.max(canal), 1.5)
    }
}

/// A rounded box with a dented back: distance and relative radius.
pub(super) fn outline(u: f32, v: f32, a: f32, b: f32, dent: f32) -> (f32, f32) {
    // The dent is cut from the back; the rest is centred so that the whole measures 2 b in the midline.
    let bb = b + 0.5 * dent;
    let vv = v - 0.5 * dent;
    let (rho, radius) = rounded_box(u, vv, [a, bb], 0.42);
    let side = (rho - 1.0) * radius;
    let x = (u / (0.62 * a)).abs().min(1.0);
    let wall = v - (b + dent * x * x);
    let side = smooth_max(side, wall, 1.5);
    (side, rho)
}
