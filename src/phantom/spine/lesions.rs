//! Lesions as volumes: what they are made of, where they are, and what they do to the field.

use serde::{Deserialize, Serialize};

use super::Patient;
use super::bone::{Body, Bone};
use super::column::Along;
use super::draw::Draft;
use super::matters::Matters;
use super::pathology::{Kind, Placed, Side};
use super::texture::{dot, ellipsoid, noise, rough, segment, step};
use crate::phantom::{Structure, Tissue, Voxel};

/// A lesion for the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LesionTruth {
    /// Its number in label volumes.
    pub id: u8,
    /// Name of the finding.
    pub name: String,
    /// Level.
    pub level: String,
    /// 1 to 3.
    pub severity: u8,
    /// Side, where it has one.
    pub side: Option<Side>,
    /// Middle, LPS, mm; `None` for findings that are a shape of the spine and no volume.
    pub centre_mm: Option<[f32; 3]>,
    /// Half axes, mm.
    pub half_mm: Option<[f32; 3]>,
}

/// One volume of a finding.
#[derive(Clone, Debug)]
pub(super) struct Lesion {
    pub(super) id: u8,
    pub(super) kind: Kind,
    pub(super) level: usize,
    pub(super) severity: u8,
    pub(super) side: Option<Side>,
    shape: Shape,
    /// Material, and a second one for what lies beside it.
    matter: [u8; 2],
    seed: u32,
    /// Parts per million at one mm from a metal's surface; 0 for others.
    ppm: f32,
}

#[derive(Clone, Debug)]
enum Shape {
    /// An ellipsoid in a vertebra's frame.
    Ball { centre: [f32; 3], half: [f32; 3] },
    /// A layer under the upper or lower plate of a vertebra, deepest at `at` (side, depth of the body).
    Plate {
        is_upper: bool,
        depth: f32,
        at: [f32; 2],
        reach: f32,
    },
    /// A band at a height, with the rest of the body touched by oedema.
    Band { w: f32, half: f32, whole: bool },
    /// The whole vertebra.
    Whole,
    /// A disc.
    Disc,
    /// A stretch of the cord: level, half length in levels, place and half axes relative to the cord.
    Cord {
        t: f32,
        half: f32,
        at: [f32; 2],
        radius: f32,
    },
    /// Screws through the pedicles of a vertebra, and rods to the next.
    Screws { is_last: bool },
    /// Only numbers were changed.
    None,
}

/// Makes volumes of the findings.
pub(super) fn place(
    matters: &mut Matters,
    draft: &Draft,
    bones: &[Bone],
    findings: &[Placed],
) -> Vec<Lesion> {
    let mut out = Vec::new();
    for (n, f) in findings.iter().enumerate() {
        let mut d = f.dice.clone();
        let id = u8::try_from(n + 1).unwrap_or(u8::MAX);
        let level = &draft.levels[f.level];
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let cast = |v: f64| v as f32;
        let (h, b, a) = (
            bones[f.level].height(),
            bones[f.level].back(),
            0.5 * cast(level.width_mm),
        );
        let s = f32::from(f.severity);
        let mut new = |shape: Shape,
                       tissues: [Tissue; 2],
                       level: usize,
                       vary: &mut dyn FnMut(&mut super::matters::Stuff)| {
            let matter = tissues.map(|t| {
                let mut stuff = matters.all[usize::from(matters.of(t))].clone();
                vary(&mut stuff);
                matters.push(stuff)
            });
            out.push(Lesion {
                id,
                kind: f.kind,
                level,
                severity: f.severity,
                side: f.side,
                shape,
                matter,
                seed: 0x1000 * u32::from(id) + 17,
                ppm: if f.kind == Kind::Metal { 26.0 } else { 0.0 },
            });
        };
        let keep = &mut |_: &mut super::matters::Stuff| {};
        match f.kind {
            Kind::Modic1 | Kind::Modic2 | Kind::Modic3 | Kind::ModicMixed => {
                let tissues = match f.kind {
                    Kind::Modic1 => [Tissue::Oedema; 2],
                    Kind::Modic2 => [Tissue::ModicTwo; 2],
                    Kind::Modic3 => [Tissue::ModicThree; 2],
                    _ => [Tissue::Oedema, Tissue::ModicTwo],
                };
                // A quarter of type 2 has lost its long water: those alone are suppressed with the fat.
                let dry = f.kind == Kind::Modic2 && d.chance(0.25);
                let mut vary = |stuff: &mut super::matters::Stuff| {
                    if dry && stuff.tissue == Tissue::ModicTwo {
                        stuff.t2_ms = 30.0;
                        stuff.fat = (stuff.fat + 0.15).min(0.92);
                    }
                };
                let at = [cast(d.uniform(-0.45, 0.45)), cast(d.uniform(-0.7, 0.5))];
                for (level, is_upper) in [(f.level, false), (f.level + 1, true)] {
                    let depth = h * (0.12 + 0.10 * s + cast(d.uniform(-0.03, 0.05)));
                    let reach = 0.45 + 0.17 * s + cast(d.uniform(0.0, 0.15));
                    new(
                        Shape::Plate {
                            is_upper,
                            depth,
                            at,
                            reach,
                        },
                        tissues,
                        level,
                        &mut vary,
                    );
                }
            }
            Kind::FractureOsteoporotic | Kind::FractureTraumatic => {
                let whole = d.chance(0.5);
                new(
                    Shape::Band {
                        w: 0.5 * h - 2.5 - 0.12 * h,
                        half: 1.1 + 0.4 * s,
                        whole,
                    },
                    [Tissue::FractureOedema; 2],
                    f.level,
                    keep,
                );
            }
            Kind::FractureMalignant => {
                new(Shape::Whole, [Tissue::MetastasisLytic; 2], f.level, keep)
            }
            Kind::MetastasisLytic
            | Kind::MetastasisBlastic
            | Kind::Haemangioma
            | Kind::HaemangiomaAtypical => {
                let tissue = match f.kind {
                    Kind::MetastasisLytic => Tissue::MetastasisLytic,
                    Kind::MetastasisBlastic => Tissue::MetastasisBlastic,
                    Kind::Haemangioma => Tissue::Haemangioma,
                    _ => Tissue::HaemangiomaAtypical,
                };
                let k = h / 28.0;
                let r = k * (2.2 + 2.3 * s + cast(d.uniform(-0.8, 0.8)));
                let room = |half: f32, r: f32| (half - 0.6 * r).max(0.0);
                let centre = [
                    cast(d.uniform(-1.0, 1.0)) * room(0.7 * a, r),
                    cast(d.uniform(-1.0, 1.0)) * room(0.8 * b, r),
                    cast(d.uniform(-1.0, 1.0)) * room(0.45 * h, r),
                ];
                let half = [
                    r * cast(d.uniform(0.9, 1.3)),
                    r,
                    r * cast(d.uniform(0.85, 1.1)),
                ];
                new(Shape::Ball { centre, half }, [tissue; 2], f.level, keep);
                // Metastases are seldom alone.
                if f.kind == Kind::MetastasisLytic && f.severity > 1 {
                    let centre = [-0.5 * centre[0], 0.6 * b, 0.12 * h];
                    new(
                        Shape::Ball {
                            centre,
                            half: [0.55 * r; 3],
                        },
                        [tissue; 2],
                        f.level,
                        keep,
                    );
                }
            }
            Kind::Spondylodiscitis => {
                new(Shape::Disc, [Tissue::Spondylodiscitis; 2], f.level, keep);
                for (level, is_upper) in [(f.level, false), (f.level + 1, true)] {
                    new(
                        Shape::Plate {
                            is_upper,
                            depth: h * (0.3 + 0.13 * s),
                            at: [0.0, 0.0],
                            reach: 1.6,
                        },
                        [Tissue::Spondylodiscitis; 2],
                        level,
                        keep,
                    );
                }
            }
            Kind::CordLesion => {
                let at = [cast(d.uniform(-0.4, 0.4)), cast(d.uniform(-0.1, 0.5))];
                new(
                    Shape::Cord {
                        t: f.level as f32 + cast(d.uniform(-0.3, 0.3)),
                        half: 0.2 + 0.22 * s,
                        at,
                        radius: 0.35 + 0.12 * s,
                    },
                    [Tissue::CordLesion; 2],
                    f.level,
                    keep,
                );
            }
            Kind::Metal => {
                new(
                    Shape::Screws { is_last: false },
                    [Tissue::Metal; 2],
                    f.level,
                    keep,
                );
                new(
                    Shape::Screws { is_last: true },
                    [Tissue::Metal; 2],
                    f.level + 1,
                    keep,
                );
            }
            _ => new(Shape::None, [Tissue::Air; 2], f.level, keep),
        }
    }
    out
}

impl Lesion {
    /// What the lesion makes of a place in a vertebra's body; `None` outside of it.
    pub(super) fn marrow(
        &self,
        patient: &Patient,
        p: [f32; 3],
        l: [f32; 3],
        i: usize,
        body: &Body,
    ) -> Option<Voxel> {
        if i != self.level {
            return None;
        }
        let lumpy = |scale: f32| rough(self.seed, p.map(|x| x / scale));
        let bone = &patient.bones[i];
        let (a, b) = (0.5 * patient.by_level[i].width, bone.back());
        let plate = 0.75;
        match &self.shape {
            Shape::Ball { centre, half } => {
                let q = [0, 1, 2].map(|k| l[k] - centre[k]);
                let r = half[1];
                let d = ellipsoid(q, *half) + 0.28 * r * lumpy(0.8 * r.max(3.0));
                if d > 0.0 || body.whole > -0.5 {
                    return None;
                }
                let mut v = self.paint(patient, 0, Structure::VertebralBody);
                if matches!(self.kind, Kind::Haemangioma | Kind::HaemangiomaAtypical) {
                    // Thick vertical trabeculae: dots in a slice, stripes along it.
                    let strut = noise(self.seed ^ 3, [p[0] / 1.7, p[1] / 1.7, p[2] / 14.0]);
                    if strut > 0.42 {
                        v.pd *= 0.45;
                        v.hu = 300.0;
                    }
                }
                v.hu += 25.0 * lumpy(2.0);
                Some(v)
            }
            Shape::Plate {
                is_upper,
                depth,
                at,
                reach,
            } => {
                let below = if *is_upper { -body.top } else { -body.bottom };
                let q = (l[0] / a - at[0]).hypot(l[1] / b - at[1]) / reach;
                let deep = depth * (1.0 - q * q).max(0.0).sqrt() * (1.0 + 0.35 * lumpy(6.0));
                let spares_the_plate = self.kind != Kind::Spondylodiscitis;
                if below > deep || (spares_the_plate && below < plate) || body.whole > -0.5 {
                    return None;
                }
                // Mixed: type 1 next to the disc, type 2 around it.
                let which = usize::from(below > 0.5 * deep + 0.8 * lumpy(4.0));
                let mut v = self.paint(patient, which, Structure::VertebralBody);
                // The border fades into the marrow.
                let x = 0.75 * step(0.72, 1.0, below / deep.max(0.1));
                let normal = patient.marrow(p, i, Structure::VertebralBody);
                v.fat_fraction += x * (normal.fat_fraction - v.fat_fraction);
                v.pd += x * (normal.pd - v.pd);
                v.hu += x * (normal.hu - v.hu) + 30.0 * lumpy(1.6);
                Some(v)
            }
            Shape::Band { w, half, whole } => {
                if body.whole > -0.5 || -body.top.max(body.bottom) < plate {
                    return None;
                }
                let wave = w + 1.6 * noise(self.seed, [p[0] / 9.0, p[1] / 9.0, 0.0]);
                let away = (l[2] - wave).abs();
                let mut v = self.paint(patient, 0, Structure::VertebralBody);
                if away < 0.45 * half {
                    // The line of the fracture: compacted trabeculae.
                    v.pd *= 0.45;
                    v.hu = patient.marrow(p, i, Structure::VertebralBody).hu + 130.0;
                    return Some(v);
                }
                let spread = if *whole { 40.0 } else { 0.42 * bone.height() };
                let x = step(0.35 * spread, spread, away + 3.0 * lumpy(7.0));
                if x >= 0.98 {
                    return None;
                }
                let normal = patient.marrow(p, i, Structure::VertebralBody);
                v.fat_fraction = (v.fat_fraction
                    + x * (normal.fat_fraction - v.fat_fraction)
                    + 0.05 * lumpy(4.0))
                .clamp(0.0, 0.95);
                v.pd += x * (normal.pd - v.pd);
                v.hu = normal.hu + (1.0 - x) * 60.0 * step(3.0 * half, *half, away);
                Some(v)
            }
            Shape::Whole => {
                if body.whole > -0.5 || -body.top.max(body.bottom) < plate {
                    return None;
                }
                let mut v = self.paint(patient, 0, Structure::VertebralBody);
                v.fat_fraction = (v.fat_fraction + 0.02 * lumpy(4.0)).max(0.0);
                v.hu += 30.0 * lumpy(2.5);
                Some(v)
            }
            _ => None,
        }
    }

    /// The same for arch and processes: only what fills a whole vertebra reaches them, through the pedicles.
    pub(super) fn arch(
        &self,
        patient: &Patient,
        p: [f32; 3],
        what: Structure,
        i: usize,
    ) -> Option<Voxel> {
        let reaches =
            matches!(self.shape, Shape::Whole) && what == Structure::Pedicle && i == self.level;
        if !reaches {
            return None;
        }
        let mut v = self.paint(patient, 0, what);
        v.hu += 30.0 * rough(self.seed, p.map(|x| x / 2.5));
        Some(v)
    }

    /// The same for a disc.
    pub(super) fn disc(&self, patient: &Patient, p: [f32; 3], j: usize, rho: f32) -> Option<Voxel> {
        if !matches!(self.shape, Shape::Disc) || j != self.level || rho > 0.9 {
            return None;
        }
        let mut v = self.paint(patient, 0, Structure::Nucleus);
        v.pd *= 1.0 + 0.06 * rough(self.seed, p.map(|x| x / 3.0));
        Some(v)
    }

    /// The same for the cord.
    pub(super) fn cord(&self, patient: &Patient, p: [f32; 3], a: &Along) -> Option<Voxel> {
        let Shape::Cord {
            t,
            half,
            at,
            radius,
        } = self.shape
        else {
            return None;
        };
        let ([_, v0], [ru, rv]) = patient.cord_at(&patient.here(a.t), a.t)?;
        let q = [
            (a.u / ru - at[0]) / radius,
            ((a.v - v0) / rv - at[1]) / radius,
            (a.t - t) / half,
        ];
        let r = dot(q, q).sqrt() + 0.2 * noise(self.seed, p.map(|x| x / 2.5));
        (r < 1.0).then(|| self.paint(patient, 0, Structure::Cord))
    }

    /// Metal at a place.
    pub(super) fn implant(&self, patient: &Patient, p: [f32; 3]) -> Option<Voxel> {
        (self.metal_distance(patient, p)? < 0.0).then(|| self.paint(patient, 0, Structure::Implant))
    }

    fn metal_distance(&self, patient: &Patient, p: [f32; 3]) -> Option<f32> {
        let Shape::Screws { is_last } = self.shape else {
            return None;
        };
        let l = patient.column.vertebrae[self.level].local(p);
        if l[2].abs() > 70.0 {
            return None;
        }
        let bone = &patient.bones[self.level];
        let back = bone.back();
        let u = 0.5 * bone.canal_width + 4.0;
        let w = 0.17 * bone.height();
        let q = [l[0].abs(), l[1], l[2]];
        let head = [u + 3.0, back + 31.0, w];
        let (screw, _) = segment(q, head, [u - 6.0, -0.35 * back, w - 1.0]);
        let mut d = screw - 2.9;
        let up = if is_last { 44.0 } else { -44.0 };
        let (rod, _) = segment(q, head, [head[0], head[1] + 1.0, w + up]);
        d = d.min(rod - 3.0);
        Some(d)
    }

    /// Field of the metal, parts per million: a dipole's fall with distance and its lobes, kept finite inside.
    pub(super) fn field_ppm(&self, patient: &Patient, p: [f32; 3]) -> f32 {
        let Some(d) = self.metal_distance(patient, p) else {
            return 0.0;
        };
        let r = patient.column.vertebrae[self.level].local(p);
        let cos = r[2] / (dot(r, r).sqrt() + 1.0);
        let fall = (4.0 / (4.0 + d.max(0.0))).powi(3);
        self.ppm * fall * (0.35 + 0.65 * (3.0 * cos * cos - 1.0))
    }

    fn paint(&self, patient: &Patient, which: usize, structure: Structure) -> Voxel {
        let mut v = patient.paint_index(self.matter[which], structure);
        v.lesion = self.id;
        v.level = u8::try_from(self.level).unwrap_or(u8::MAX);
        v
    }

    /// For the record.
    pub(super) fn truth(&self, patient: &Patient) -> LesionTruth {
        let frame = &patient.column.vertebrae[self.level];
        let bone = &patient.bones[self.level];
        let (h, b, a) = (
            bone.height(),
            bone.back(),
            0.5 * patient.by_level[self.level].width,
        );
        let (centre, half) = match &self.shape {
            Shape::Ball { centre, half } => (Some(frame.place(*centre)), Some(*half)),
            Shape::Plate {
                is_upper,
                depth,
                at,
                reach,
            } => {
                let w = if *is_upper {
                    0.5 * (h - depth)
                } else {
                    -0.5 * (h - depth)
                };
                let half = [a * reach.min(1.0), b * reach.min(1.0), 0.5 * depth];
                (Some(frame.place([at[0] * a, at[1] * b, w])), Some(half))
            }
            Shape::Band { .. } | Shape::Whole => (Some(frame.origin), Some([a, b, 0.5 * h])),
            Shape::Disc => (
                Some(patient.column.discs[self.level].origin),
                Some([a, b, 0.5 * h.min(8.0)]),
            ),
            Shape::Cord {
                t,
                half,
                at,
                radius,
            } => {
                let place = patient.cord_at(&patient.here(*t), *t);
                let frame = patient.column.frame_at(*t);
                match place {
                    Some(([_, v0], [ru, rv])) => (
                        Some(frame.place([at[0] * ru, v0 + at[1] * rv, 0.0])),
                        Some([radius * ru, radius * rv, half * 0.7 * (h + 5.0)]),
                    ),
                    None => (None, None),
                }
            }
            Shape::Screws { .. } => (Some(frame.place([0.0, b + 15.0, 0.0])), None),
            Shape::None => (None, None),
        };
        LesionTruth {
            id: self.id,
            name: self.kind.name().to_owned(),
            level: patient.draft.levels[self.level].name.clone(),
            severity: self.severity,
            side: self.side,
            centre_mm: centre,
            half_mm: half,
        }
    }
}
