//! What lies around the spine: skin, fat, muscles, vessels, organs; for the trunk and for the neck.

use super::column::Along;
use super::texture::{
    ellipse, ellipsoid, hypot, misses, mix, nearest, noise, noises, rough, rounded_box, segment,
    smooth_max, step,
};
use super::{Here, Patient};
use crate::phantom::{Structure, Tissue, Voxel};
use crate::sequence::Region;

/// Outline of the body by height.
#[derive(Clone, Debug)]
pub(super) struct Trunk {
    /// Back of the skin in the midline, front, half width; one row per [`STEP`].
    rows: Vec<[f32; 3]>,
    z_low: f32,
    pub(super) subcutaneous: f32,
}

const STEP: f32 = 2.0;

impl Trunk {
    /// `back_of(z)`: place of the spinous processes' line at a height.
    pub(super) fn build(
        region: Region,
        half: [f32; 2],
        subcutaneous: f32,
        [z_low, z_high]: [f32; 2],
        back_of: &dyn Fn(f32) -> f32,
    ) -> Self {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // millimetres
        let n = ((z_high - z_low) / STEP).ceil() as usize + 1;
        let z = |i: usize| z_low + i as f32 * STEP;
        let raw: Vec<f32> = (0..n).map(|i| back_of(z(i))).collect();
        let reach = 16usize;
        let rows = (0..n)
            .map(|i| {
                // Skin bridges what the spine curves: a running mean over 64 mm.
                let (lo, hi) = (i.saturating_sub(reach), (i + reach).min(n - 1));
                let mean = raw[lo..=hi].iter().sum::<f32>() / (hi - lo + 1) as f32;
                let back = mean.max(raw[i] - 4.0) + subcutaneous + 3.0;
                match region {
                    Region::Lumbar => {
                        let waist = 1.0 - 0.07 * (-((z(i) - 110.0) / 60.0).powi(2)).exp()
                            + 0.07 * step(0.0, -110.0, z(i));
                        [back, back - 2.0 * half[1] * waist, half[0] * waist]
                    }
                    Region::Cervical => {
                        // Shoulders below, head above.
                        let down = step(70.0, -25.0, z(i));
                        let up = step(165.0, 215.0, z(i));
                        [
                            back + 18.0 * up,
                            back - 2.0
                                * mix(mix(half[1], half[1] * 1.35, down), half[1] * 1.45, up),
                            mix(mix(half[0], half[0] * 2.6, down), half[0] * 1.12, up),
                        ]
                    }
                }
            })
            .collect();
        Self {
            rows,
            z_low,
            subcutaneous,
        }
    }

    pub(super) fn row(&self, z: f32) -> [f32; 3] {
        let x = ((z - self.z_low) / STEP).clamp(0.0, (self.rows.len() - 1) as f32);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
        let i = (x as usize).min(self.rows.len() - 2);
        let f = x - i as f32;
        let (a, b) = (self.rows[i], self.rows[i + 1]);
        [mix(a[0], b[0], f), mix(a[1], b[1], f), mix(a[2], b[2], f)]
    }

    /// Back of the skin in the midline at a height.
    pub(super) fn back(&self, z: f32) -> f32 {
        self.row(z)[0]
    }

    /// Distance to the skin, mm, negative inside; and how far forward a place is, 0 at the back to 1 at the front.
    pub(super) fn skin(&self, p: [f32; 3]) -> (f32, f32) {
        let (flat, b) = self.flat(p);
        (flat + furrow(p, b), 0.5 - 0.5 * b)
    }

    /// The same within the skin; `None` outside.
    pub(super) fn within_skin(&self, p: [f32; 3]) -> Option<(f32, f32)> {
        let (flat, b) = self.flat(p);
        if flat > 0.0 {
            return None;
        }
        let skin = flat + furrow(p, b);
        (skin <= 0.0).then_some((skin, 0.5 - 0.5 * b))
    }

    /// Distance without the furrow; and the place from the back (1) to the front (-1).
    fn flat(&self, p: [f32; 3]) -> (f32, f32) {
        let [back, front, half] = self.row(p[2]);
        let depth = 0.5 * (back - front);
        let y = p[1] - 0.5 * (back + front);
        let b = y / depth;
        let (rho, radius) = rounded_box(p[0], y, [half, depth], 0.5);
        ((rho - 1.0) * radius, b)
    }
}

/// Depth of the shallow furrow over the spinous processes.
fn furrow(p: [f32; 3], b: f32) -> f32 {
    if b > 0.0 && p[0].abs() < 48.0 {
        3.0 * (-(p[0] / 16.0).powi(2)).exp()
    } else {
        0.0
    }
}

impl Patient {
    /// Everything that is not spine.
    pub(super) fn around(
        &self,
        p: [f32; 3],
        a: &Along,
        here: &Here,
        skin: f32,
        forward: f32,
    ) -> Voxel {
        match self.draft.region {
            Region::Lumbar => self.around_lumbar(p, a, here, skin, forward),
            Region::Cervical => self.around_cervical(p, a, here, skin),
        }
    }

    fn around_lumbar(&self, p: [f32; 3], a: &Along, here: &Here, skin: f32, forward: f32) -> Voxel {
        let seed = self.seeds.soft;
        let wobble = 1.6 * noise(seed, p.map(|v| v / 17.0));
        let t = a.t.clamp(0.0, self.last());
        let (u, v) = (a.u.abs() + 0.6 * wobble, a.v + wobble);
        let vc = here.canal_centre();
        let body = 0.5 * here.width;
        let size = self.muscle_size;
        let tip = here.spinous_tip();

        // Muscles of the back, under the thoracolumbar fascia.
        let fascia = tip - 1.0 - 0.0045 * u * u * (1.0 + 0.2 * step(3.0, 8.0, t));
        let below = step(self.base() + 1.6, self.base() - 0.5, t);
        if v > vc - 6.0 && v < fascia && u < 78.0 && below > 0.02 {
            let reach = size * (mix(17.0, 31.0, step(3.0, 8.0, t))) + 0.35 * (v - vc - 20.0);
            let multifidus = smooth_max(u - reach, 2.0 - u, 1.0);
            let erector = smooth_max(
                smooth_max(
                    reach + 1.4 - u,
                    ellipse(
                        u - 37.0 * size,
                        v - vc - 15.0,
                        32.0 * size,
                        (25.0 * size).max(14.0) * below + 3.0,
                    ),
                    2.0,
                ),
                v - fascia + 1.0,
                1.0,
            );
            if multifidus < 0.0 && v < fascia - 1.0 {
                return self.muscle(
                    p,
                    Structure::Multifidus,
                    1.25 + 0.8 * step(5.0, 9.0, t),
                    multifidus,
                );
            }
            if erector < 0.0 {
                return self.muscle(
                    p,
                    Structure::ErectorSpinae,
                    1.0 + 0.5 * step(5.0, 9.0, t),
                    erector,
                );
            }
            if fascia - v < 1.2 && u < 60.0 {
                return self.paint(Tissue::Ligament, Structure::Ligament);
            }
        }

        // Psoas beside the bodies, from L1 down; quadratus lumborum behind it.
        let grow = step(2.6, 7.0, t);
        let drift = (t - 6.0).max(0.0);
        let psoas = ellipse(
            u - body - 4.0 - 12.0 * grow - 5.0 * drift,
            v + 3.0 + 7.0 * drift,
            (5.0 + 14.0 * grow) * size,
            (7.0 + 16.0 * grow) * size,
        ) + if t < 2.6 { 40.0 } else { 0.0 };
        if psoas < 0.0 && t < 10.5 {
            return self.muscle(p, Structure::Psoas, 0.45, psoas);
        }
        let quadratus = ellipse(u - 62.0, v - vc + 3.0, 21.0 * size, 9.0 * size)
            + if (2.8..7.6).contains(&t) { 0.0 } else { 30.0 };
        if quadratus < 0.0 {
            return self.muscle(p, Structure::OtherMuscle, 0.7, quadratus);
        }
        // Gluteal muscles and the wings of the ilium, crudely: they are outside of sagittal stacks.
        if t > 6.6 {
            if p[0].abs() > 50.0 {
                let ilium = (ellipsoid(
                    [
                        p[0].abs() - 88.0,
                        a.v - 6.0 + 0.35 * (p[0].abs() - 88.0),
                        p[2] - self.bone_z(7) + 18.0,
                    ],
                    [40.0, 46.0, 62.0],
                ))
                .abs()
                    - 5.0;
                if ilium < 0.0 {
                    return self.bone_matter(p, Structure::Sacrum, 255, -ilium, 1.2);
                }
            }
            if a.v > vc - 5.0 && p[0].abs() > 22.0 && skin < -self.trunk.subcutaneous * 0.9 {
                return self.muscle(p, Structure::OtherMuscle, 1.0, -3.0);
            }
        }

        // Fat under the skin with its septa; the wall of the abdomen.
        let thick = self.trunk.subcutaneous * mix(0.9, 1.25, step(0.2, 0.9, forward));
        if skin > -thick {
            return self.fat(p, Structure::Subcutaneous);
        }
        let wall = thick + mix(20.0, 11.0, step(0.35, 0.9, forward)) * size;
        if skin > -wall && forward > 0.18 {
            let layer = ((-skin - thick) * 0.55 + wobble * 0.4).fract().abs();
            if layer < 0.12 {
                return self.fat(p, Structure::VisceralFat);
            }
            return self.muscle(p, Structure::OtherMuscle, 0.8, -2.0);
        }

        // Great vessels: the aorta to the left of the midline down to L4, then both iliacs.
        let front = here.back + 2.0;
        let split = (t - 6.3).max(0.0);
        let aorta = ellipse(
            if split > 0.0 {
                u - 4.0 - 16.0 * split
            } else {
                a.u - 9.0
            },
            a.v + front + 11.0 + 2.0 * split,
            if split > 0.0 { 5.5 } else { 9.0 },
            if split > 0.0 { 5.5 } else { 9.0 },
        );
        if aorta < 0.0 {
            if aorta > -1.3 {
                return self.paint(Tissue::Ligament, Structure::Artery);
            }
            return self.paint(Tissue::FlowingBlood, Structure::Artery);
        }
        let low = (t - 6.7).max(0.0);
        let cava = ellipse(
            if low > 0.0 {
                u - 8.0 - 15.0 * low
            } else {
                a.u + 15.0
            },
            a.v + front + 8.0 - 3.0 * low,
            if low > 0.0 { 6.0 } else { 11.0 },
            if low > 0.0 { 6.0 } else { 7.5 },
        );
        if cava < 0.0 {
            if cava > -0.8 {
                return self.paint(Tissue::Ligament, Structure::Vein);
            }
            return self.paint(Tissue::FlowingBlood, Structure::Vein);
        }

        // Kidneys, liver.
        let kidney_z = self.bone_z(3) - if a.u > 0.0 { 0.0 } else { 14.0 };
        let (q, half) = (
            [
                p[0].abs() - 72.0 + 0.12 * (p[2] - kidney_z),
                a.v - 4.0,
                p[2] - kidney_z,
            ],
            [26.0, 27.0, 56.0],
        );
        if !misses(q, half, 1.7) && ellipsoid(q, half) + wobble < 0.0 {
            let sinus = ellipsoid(
                [p[0].abs() - 62.0, a.v + 1.0, p[2] - kidney_z],
                [11.0, 11.0, 26.0],
            );
            if sinus + 2.5 * wobble < 0.0 {
                return self.fat(p, Structure::VisceralFat);
            }
            return self.textured(p, Tissue::Viscera, Structure::Organ, 0.05);
        }
        let (q, half) = (
            [p[0] + 95.0, a.v + 75.0, p[2] - self.bone_z(1) - 18.0],
            [92.0, 82.0, 74.0],
        );
        if !misses(q, half, 3.3) && ellipsoid(q, half) + 2.0 * wobble < 0.0 {
            return self.textured(p, Tissue::Viscera, Structure::Organ, 0.05);
        }

        // Bowel: loops as cells of a distorted lattice, with a wall, fluid or gas, and fat between.
        let bowel_zone = -skin - wall - 3.0;
        if bowel_zone > 0.0 && v < -front - 2.0 {
            let bend = noises(
                [0x77, 0x78, 0x79].map(|n| seed ^ n),
                [p[0] / 47.0, p[1] / 47.0, p[2] / 47.0],
            );
            let q = [
                p[0] / 31.0 + 0.7 * bend[0],
                p[1] / 31.0 + 0.7 * bend[1],
                p[2] / 31.0 + 0.7 * bend[2],
            ];
            let cell = [nearest(q[0]), nearest(q[1]), nearest(q[2])];
            let d = [q[0] - cell[0], q[1] - cell[1], q[2] - cell[2]];
            let r = (d[0] * d[0] + d[1] * d[1] + 0.45 * d[2] * d[2]).sqrt();
            #[allow(clippy::cast_possible_truncation)] // small
            let kind = super::texture::hash(seed ^ 0xb0, cell.map(|c| c as i32));
            let radius = 0.40 + 0.06 * kind;
            // A loop is there or not as a whole: by its own middle.
            let middle = cell.map(|c| 31.0 * c);
            let room = middle[1] - self.column.axis_at_z(middle[2])[1];
            if r < radius && room < -front - 30.0 && kind > -0.75 {
                if r > radius - 0.075 {
                    return self.textured(p, Tissue::Viscera, Structure::Bowel, 0.06);
                }
                return if kind > 0.35 {
                    self.paint(Tissue::Air, Structure::Bowel)
                } else {
                    self.textured(p, Tissue::BowelContent, Structure::Bowel, 0.25)
                };
            }
        }
        self.fat(p, Structure::VisceralFat)
    }

    fn around_cervical(&self, p: [f32; 3], a: &Along, here: &Here, skin: f32) -> Voxel {
        let seed = self.seeds.soft;
        let wobble = 1.1 * noise(seed, p.map(|v| v / 11.0));
        let t = a.t.clamp(-1.5, self.last());
        let (u, v) = (a.u.abs() + 0.5 * wobble, a.v + wobble);
        let vc = here.canal_centre();
        let size = self.muscle_size;

        // Head above the atlas: bone of the skull's base and the back of the skull, cerebellum, brain stem in front of it.
        if a.t < -0.55 {
            let base_z = self.bone_z(0);
            let q = [p[0], p[1] - self.atlas[1] - 22.0, p[2] - base_z - 62.0];
            let skull = ellipsoid(q, [66.0, 84.0, 60.0]);
            if skull < -7.0 {
                let stem = segment([a.u, a.v, 0.0], [0.0, vc, 0.0], [0.0, vc - 2.0, 0.0]).0
                    - 8.0
                    - 5.0 * step(-0.8, -1.8, a.t);
                if stem < 0.0 {
                    return self.textured(p, Tissue::CordWhite, Structure::Cord, 0.03);
                }
                let cerebellum = ellipsoid(
                    [p[0], p[1] - self.atlas[1] - 54.0, p[2] - base_z - 40.0],
                    [46.0, 32.0, 26.0],
                );
                if cerebellum < 0.0 {
                    let folia = (p[2] * 0.75 + 0.2 * p[1] + 2.0 * wobble).sin();
                    return if folia > 0.72 {
                        self.paint(Tissue::Csf, Structure::DuralSac)
                    } else {
                        self.textured(p, Tissue::CordGrey, Structure::Organ, 0.03)
                    };
                }
                if skull < -10.0 && p[2] > base_z + 58.0 {
                    return self.textured(p, Tissue::CordGrey, Structure::Organ, 0.05);
                }
                return self.paint(Tissue::Csf, Structure::DuralSac);
            }
            if skull < 0.0 && !(hypot(a.u, a.v - vc) < 14.0 && a.t > -1.2) {
                return self.bone_matter(
                    p,
                    Structure::Outside,
                    255,
                    (-skull).min(7.0 + skull),
                    1.6,
                );
            }
        }

        // Behind: layers of neck muscles with fat between.
        let back_y = self.trunk.back(p[2]) - self.trunk.subcutaneous;
        if p[1] < back_y && v > vc + 3.0 - 0.28 * u && u < 58.0 && a.t > -0.9 {
            let x = (v - vc) / (back_y - self.column.axis_at_z(p[2])[1] - vc).max(8.0);
            let r = hypot(u / (54.0 * size), x * 0.55);
            if u < 1.6 + 0.4 * wobble && x > 0.25 {
                return self.fat(p, Structure::Ligament);
            }
            let layer = x * 4.0 + 0.0009 * u * u + 0.25 * wobble;
            let seam = (layer - nearest(layer)).abs() < 0.07 && layer > 0.5;
            if r < 1.0 && !seam {
                let what = if layer < 1.5 {
                    Structure::Multifidus
                } else {
                    Structure::ErectorSpinae
                };
                return self.muscle(p, what, 0.6, -2.0);
            }
            if r < 1.08 {
                return self.fat(p, Structure::VisceralFat);
            }
        }
        if skin > -self.trunk.subcutaneous {
            return self.fat(p, Structure::Subcutaneous);
        }

        // In front: prevertebral muscles, gullet, airway, thyroid, vessels.
        let front = here.back;
        let f = -(a.v + front);
        let longus = ellipse(u - 6.0, f - 3.0, 7.0, 3.2);
        if longus < 0.0 {
            return self.muscle(p, Structure::Psoas, 0.4, longus);
        }
        let gullet = ellipse(a.u - 3.0, f - 10.0, 7.0, 3.6);
        if gullet < 0.0 && t > 3.2 {
            return if gullet < -2.2 {
                self.paint(Tissue::BowelContent, Structure::Bowel)
            } else {
                self.muscle(p, Structure::OtherMuscle, 0.3, gullet)
            };
        }
        let low = step(2.4, 4.0, t);
        let open = mix(7.0, 9.0, low);
        let airway = ellipse(a.u, f - mix(12.0, 21.0, low), open, open * 0.92);
        if airway < 2.0 && t > -0.5 {
            if airway < 0.0 {
                return self.paint(Tissue::Air, Structure::Bowel);
            }
            return self.paint(Tissue::FacetCartilage, Structure::Bowel);
        }
        let thyroid = ellipsoid([u - 15.0, f - 20.0, (t - 5.4) * 16.0], [9.0, 10.0, 24.0]);
        if thyroid < 0.0 {
            return self.textured(p, Tissue::Viscera, Structure::Organ, 0.04);
        }
        let carotid = hypot(u - 24.0, f - 12.0) - 3.6;
        if carotid < 0.0 {
            return self.paint(Tissue::FlowingBlood, Structure::Artery);
        }
        let jugular = ellipse(u - 32.0, f - 8.0, 6.0, 4.4);
        if jugular < 0.0 {
            return self.paint(Tissue::VenousBlood, Structure::Vein);
        }
        let sterno = ellipse(
            u - 45.0 + 3.0 * t,
            f - 6.0 - 2.2 * t,
            13.0 * size,
            8.0 * size,
        );
        let scalene = ellipse(u - 26.0, v + 2.0, 10.0 * size, 9.0 * size);
        if (sterno < 0.0 || scalene < 0.0) && t > -0.3 {
            return self.muscle(p, Structure::OtherMuscle, 0.5, sterno.min(scalene));
        }
        // Chest below: lungs beside, mediastinum before the spine.
        if t > 6.6 && u > 26.0 {
            let lung = ellipsoid(
                [
                    p[0].abs() - 62.0,
                    p[1] - self.atlas[1] - 25.0 + 40.0,
                    p[2] - self.bone_z(10) + 36.0,
                ],
                [44.0, 58.0, 66.0],
            );
            if lung < 0.0 {
                let mut air = self.paint(Tissue::Air, Structure::Bowel);
                air.hu = -850.0 + 60.0 * rough(seed, p.map(|x| x / 3.0));
                air.pd = 0.04;
                return air;
            }
        }
        // Strap muscles and tongue fill what is left in front; fat between.
        if f > 34.0 && f < 50.0 && a.u.abs() < 34.0 {
            return self.muscle(p, Structure::OtherMuscle, 0.7, -1.0);
        }
        self.fat(p, Structure::VisceralFat)
    }
}
