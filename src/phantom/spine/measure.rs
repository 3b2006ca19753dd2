//! The truth about a patient: 24 measurements of every level, grades, lesions; measured on the shapes themselves.

use serde::{Deserialize, Serialize};

use super::Patient;
use super::draw::Draft;
use super::lesions::LesionTruth;
use super::pathology::Kind;
use crate::phantom::Structure;
use crate::sequence::Region;

/// The 24 measurements of one level: vertebra, its canal, and disc, foramina and joints below it. Millimetres, square
/// millimetres, degrees; right before left.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurements {
    /// Height of the body at its front, in the middle, at its back.
    pub body_height_mm: [f64; 3],
    /// Upper and lower endplate, front to back.
    pub endplate_ap_mm: [f64; 2],
    /// Pedicles, side to side.
    pub pedicle_width_mm: [f64; 2],
    /// Pedicles, up and down.
    pub pedicle_height_mm: [f64; 2],
    /// Disc at its front, in the middle, at its back.
    pub disc_height_mm: [f64; 3],
    /// Bony canal at the pedicles, front to back.
    pub canal_ap_mm: f64,
    /// Bony canal between the pedicles.
    pub canal_transverse_mm: f64,
    /// Dural sac in the plane of the disc.
    pub dural_sac_area_mm2: f64,
    /// Foramina, up and down.
    pub foramen_height_mm: [f64; 2],
    /// Foramina, front to back at the disc.
    pub foramen_width_mm: [f64; 2],
    /// Lamina.
    pub lamina_mm: f64,
    /// Space of the facet joints.
    pub facet_width_mm: [f64; 2],
    /// Spinous process behind the canal.
    pub spinous_length_mm: f64,
    /// Angle between this upper endplate and the next one's; positive for lordosis.
    pub segmental_lordosis_deg: f64,
}

/// Grades of one level.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Grades {
    /// Pfirrmann, 1 to 5.
    pub pfirrmann: u8,
    /// Central canal: 0 normal, 1 early, 2 stenosis, 3 severe: dural sac below 130, 100, 75 mm² (lumbar); room around the cord
    /// (cervical).
    pub central_stenosis: u8,
    /// Lateral recesses: 0 wide, 1 narrow, 2 very narrow (depth below 4, 2 mm).
    pub lateral_recess: [u8; 2],
    /// Foramina: 0 to 3 by the fat that is left around the root (Lee).
    pub foramen: [u8; 2],
    /// Facet joints, 0 to 3 (Weishaupt).
    pub facet: [u8; 2],
    /// 0 none, 1, 2, 3; 12 for types 1 and 2 together.
    pub modic: u8,
    /// Genant, 0 to 3.
    pub fracture: u8,
    /// Slip, mm.
    pub slip_mm: f64,
    /// Herniation: 0 none, 1 bulge, 2 protrusion, 3 extrusion.
    pub herniation: u8,
}

/// One level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelTruth {
    /// `L4`.
    pub name: String,
    /// Middle of the body, LPS, mm.
    pub body_mm: [f32; 3],
    /// Middle of the disc below, LPS, mm.
    pub disc_mm: [f32; 3],
    /// Measurements.
    pub measurements: Measurements,
    /// Grades.
    pub grades: Grades,
    /// Fat fraction of the marrow without texture.
    pub marrow_fat_fraction: f64,
    /// CT number of the spongy bone without texture, HU.
    pub marrow_hu: f64,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// Region.
    pub region: Region,
    /// Seed.
    pub seed: u64,
    /// Years.
    pub age_years: f64,
    /// Sex.
    pub is_male: bool,
    /// Whether L5 is transitional: its name is then uncertain.
    pub has_transitional: bool,
    /// Bend to the side, degrees (Cobb).
    pub cobb_deg: f64,
    /// Levels whose disc, canal and joints belong to the region, from head to feet.
    pub levels: Vec<LevelTruth>,
    /// Findings.
    pub lesions: Vec<LesionTruth>,
    /// Every drawn number.
    pub draft: Draft,
}

impl Patient {
    /// Measures the patient.
    ///
    /// # Numerics
    /// Heights and lengths: bisection on the surfaces, 0.01 mm. Areas: 0.25 mm grid. Foramina: marching, 0.1 mm.
    pub fn truth(&self) -> Truth {
        let (first, last) = match self.draft.region {
            Region::Lumbar => (2, self.draft.base - 1),
            Region::Cervical => (1, 7),
        };
        let levels = (first..=last)
            .map(|i| {
                let l = &self.draft.levels[i];
                let measurements = self.measure(i);
                LevelTruth {
                    name: l.name.clone(),
                    body_mm: self.column.vertebrae[i].origin,
                    disc_mm: self.column.discs[i].origin,
                    grades: self.grade(i, &measurements),
                    measurements,
                    marrow_fat_fraction: l.marrow_fat,
                    marrow_hu: l.marrow_hu,
                }
            })
            .collect();
        Truth {
            region: self.draft.region,
            seed: self.draft.seed,
            age_years: self.draft.age_years,
            is_male: self.draft.is_male,
            has_transitional: self.lesions.iter().any(|l| l.kind == Kind::Transitional),
            cobb_deg: self.draft.cobb_deg,
            levels,
            lesions: self.lesions.iter().map(|l| l.truth(self)).collect(),
            draft: self.draft.clone(),
        }
    }

    fn measure(&self, i: usize) -> Measurements {
        let bone = &self.bones[i];
        let frame = &self.column.vertebrae[i];
        let (b, h) = (bone.back(), bone.height());
        // From the back wall to the lamina in the midline, below the middle of the body.
        let w = -0.3 * h;
        let back = root(0.0, 2.0 * b, |v| bone.body([0.0, v, w]).whole);
        let roof = self.march(frame.place([0.0, back + 3.0, w]), frame.v, 40.0, &|s| {
            matches!(s, Structure::Lamina | Structure::SpinousProcess)
        });
        let foramen = [-1.0f32, 1.0].map(|sign| self.foramen(i, sign));
        Measurements {
            canal_ap_mm: f64::from(roof + 3.0),
            dural_sac_area_mm2: self.sac_area(i),
            foramen_height_mm: foramen.map(|f| f.0),
            foramen_width_mm: foramen.map(|f| f.1),
            ..self.measure_shapes(i)
        }
    }

    /// What is measured on bones and discs alone; the rest is 0.
    pub(super) fn measure_shapes(&self, i: usize) -> Measurements {
        let l = &self.draft.levels[i];
        let bone = &self.bones[i];
        let frame = &self.column.vertebrae[i];
        let (b, h) = (bone.back(), bone.height());
        let places = [-0.88 * b, 0.0, 0.88 * b];
        let body_height_mm = places.map(|v| {
            let top = root(0.0, h, |w| bone.body([0.0, v, w]).top);
            let low = root(0.0, h, |w| bone.body([0.0, v, -w]).bottom);
            f64::from(top + low)
        });
        let endplate_ap_mm = [0.47 * h, -0.47 * h].map(|w| {
            let side = |sign: f32| root(0.0, 2.0 * b, |v| bone.outline([0.0, sign * v, w]).0);
            f64::from(side(1.0) + side(-1.0))
        });
        let disc = &self.column.discs[i];
        let below = (i + 1).min(self.bones.len() - 1);
        let disc_height_mm = places.map(|v| {
            // Along the disc's own axis, from plate to plate.
            let up = root(0.0, 30.0, |w| {
                -self.bones[i]
                    .body(self.column.vertebrae[i].local(disc.place([0.0, v, w])))
                    .bottom
            });
            let down = root(0.0, 30.0, |w| {
                -self.bones[below]
                    .body(self.column.vertebrae[below].local(disc.place([0.0, v, -w])))
                    .top
            });
            f64::from(up + down)
        });
        let next = &self.column.vertebrae[below];
        let tilt = |f: &super::column::Frame| f64::from((-f.w[1]).atan2(f.w[2])).to_degrees();
        let wedge = |x: &super::Level| {
            ((x.anterior_mm - x.posterior_mm) / (0.5 * (x.superior_mm + x.inferior_mm)))
                .atan()
                .to_degrees()
        };
        let upper = |f: &super::column::Frame, x: &super::Level| tilt(f) - 0.5 * wedge(x);
        Measurements {
            body_height_mm,
            endplate_ap_mm,
            pedicle_width_mm: l.pedicle_width_mm,
            pedicle_height_mm: l.pedicle_height_mm,
            disc_height_mm,
            canal_transverse_mm: l.canal_width_mm,
            lamina_mm: l.lamina_mm,
            facet_width_mm: [l.facets[0].width_mm, l.facets[1].width_mm],
            spinous_length_mm: l.spinous_mm,
            segmental_lordosis_deg: upper(next, &self.draft.levels[below]) - upper(frame, l),
            ..Measurements::default()
        }
    }

    /// Distance from `from` along `direction` to the first place whose structure `stops`, mm; `limit` if none does.
    fn march(
        &self,
        from: [f32; 3],
        direction: [f32; 3],
        limit: f32,
        stops: &dyn Fn(Structure) -> bool,
    ) -> f32 {
        let mut x = 0.0;
        while x < limit {
            let p = [0, 1, 2].map(|k| from[k] + x * direction[k]);
            if stops(self.at(p).structure) {
                return x;
            }
            x += 0.1;
        }
        limit
    }

    /// Area of the dural sac with what swims in it, in the plane of the disc, mm².
    fn sac_area(&self, i: usize) -> f64 {
        let frame = &self.column.discs[i];
        let t = i as f32 + 0.5;
        let vc = self.here(t).canal_centre();
        let step = 0.25;
        let mut n = 0u32;
        for iu in -60..=60i16 {
            for iv in -48..=48i16 {
                let p = frame.place([f32::from(iu) * step, vc + f32::from(iv) * step, 0.0]);
                let voxel = self.at(p);
                let inside = match voxel.structure {
                    Structure::DuralSac | Structure::Cord => true,
                    Structure::NerveRoot => {
                        let a = self.column.along(p);
                        self.sac(&self.here(a.t), a.t.clamp(0.0, self.last()), a.u, a.v)
                            .0
                            < 0.0
                    }
                    _ => false,
                };
                n += u32::from(inside);
            }
        }
        f64::from(n) * f64::from(step * step)
    }

    /// Height between the pedicles and width behind the disc of one foramen, mm.
    fn foramen(&self, i: usize, sign: f32) -> (f64, f64) {
        let l = &self.draft.levels[i];
        let side = usize::from(sign > 0.0);
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let f = |v: f64| v as f32;
        let frame = &self.column.discs[i];
        let t = i as f32 + 0.5;
        let half = 0.5 * self.here(t).canal_width;
        let middle = |l: &super::Level| 0.5 * f(l.canal_width_mm + l.pedicle_width_mm[side]);
        let below = self.draft.levels.get(i + 1).unwrap_or(l);
        let u = sign
            * match self.draft.region {
                Region::Lumbar => 0.5 * (middle(l) + middle(below)),
                Region::Cervical => half + 4.0,
            };
        let v = self.here(t).back + 3.5;
        let bony = |s: Structure| {
            matches!(
                s,
                Structure::Pedicle
                    | Structure::VertebralBody
                    | Structure::Endplate
                    | Structure::Lamina
                    | Structure::Sacrum
            )
        };
        let from = frame.place([u, v, 0.0]);
        let up = self.march(from, frame.w, 30.0, &bony);
        let down = self.march(from, frame.w.map(|x| -x), 30.0, &bony);
        // At the disc: from its back edge to the joint.
        let start = frame.place([u, self.here(t).back - 12.0, 0.0]);
        let disc = |s: Structure| {
            !matches!(
                s,
                Structure::Annulus
                    | Structure::Nucleus
                    | Structure::VertebralBody
                    | Structure::Endplate
            )
        };
        let a = self.march(start, frame.v, 30.0, &disc);
        let open = [0, 1, 2].map(|k| start[k] + (a + 0.2) * frame.v[k]);
        let b = self.march(open, frame.v, 30.0, &|s| {
            matches!(
                s,
                Structure::ArticularProcess
                    | Structure::FacetJoint
                    | Structure::Lamina
                    | Structure::LigamentumFlavum
            )
        });
        (f64::from(up + down), f64::from(b + 0.2))
    }

    fn grade(&self, i: usize, m: &Measurements) -> Grades {
        let l = &self.draft.levels[i];
        let area = m.dural_sac_area_mm2;
        let central_stenosis = match self.draft.region {
            Region::Lumbar => match area {
                a if a < 75.0 => 3,
                a if a < 100.0 => 2,
                a if a < 130.0 => 1,
                _ => 0,
            },
            Region::Cervical => {
                // Part of the sac that the cord fills.
                let cord = std::f64::consts::FRAC_PI_4 * l.cord_ap_mm * l.cord_width_mm;
                match cord / area.max(1.0) {
                    x if x > 0.92 => 3,
                    x if x > 0.80 => 2,
                    x if x > 0.70 => 1,
                    _ => 0,
                }
            }
        };
        let has = |kind: Kind| self.lesions.iter().any(|s| s.kind == kind && s.level == i);
        let modic = if has(Kind::ModicMixed) || (has(Kind::Modic1) && has(Kind::Modic2)) {
            12
        } else if has(Kind::Modic1) {
            1
        } else if has(Kind::Modic2) {
            2
        } else if has(Kind::Modic3) {
            3
        } else {
            0
        };
        let fracture = self
            .lesions
            .iter()
            .filter(|s| {
                s.level == i
                    && matches!(
                        s.kind,
                        Kind::FractureOsteoporotic
                            | Kind::FractureTraumatic
                            | Kind::FractureMalignant
                    )
            })
            .map(|s| s.severity)
            .max()
            .unwrap_or(0);
        let herniation = match &l.disc.herniation {
            Some(h) if h.is_extrusion => 3,
            Some(_) => 2,
            None if l.disc.bulge_mm > 1.5 => 1,
            None => 0,
        };
        Grades {
            pfirrmann: l.disc.pfirrmann,
            central_stenosis,
            lateral_recess: [-1.0, 1.0].map(|s| self.recess(i, s)),
            foramen: [0, 1].map(|s| foramen_grade(m.foramen_height_mm[s], m.foramen_width_mm[s])),
            facet: [l.facets[0].grade, l.facets[1].grade],
            modic,
            fracture,
            slip_mm: l.slip_mm,
            herniation,
        }
    }

    /// Depth of the lateral recess at the upper edge of the next pedicle: 0 wide, 1 below 4 mm, 2 below 2 mm.
    fn recess(&self, i: usize, sign: f32) -> u8 {
        let t = i as f32 + 0.62;
        let frame = self.column.frame_at(t);
        let u = sign * (0.5 * self.here(t).canal_width - 3.5);
        let start = frame.place([u, self.here(t).back - 6.0, 0.0]);
        let solid = |s: Structure| {
            matches!(
                s,
                Structure::Annulus
                    | Structure::Nucleus
                    | Structure::VertebralBody
                    | Structure::Endplate
                    | Structure::ArticularProcess
                    | Structure::FacetJoint
                    | Structure::LigamentumFlavum
                    | Structure::Lamina
                    | Structure::Pedicle
            )
        };
        let a = self.march(start, frame.v, 25.0, &|s| !solid(s));
        let open = [0, 1, 2].map(|k| start[k] + (a + 0.1) * frame.v[k]);
        match self.march(open, frame.v, 25.0, &solid) {
            d if d < 2.0 => 2,
            d if d < 4.0 => 1,
            _ => 0,
        }
    }
}

/// Lee's grades from the room that is left: fat gone in one direction, in both, root pressed.
fn foramen_grade(height: f64, width: f64) -> u8 {
    match (height, width) {
        (h, w) if h < 9.0 || w < 1.8 => 3,
        (h, w) if h < 12.0 || w < 2.8 => 2,
        (h, w) if h < 15.0 || w < 4.0 => 1,
        _ => 0,
    }
}

/// Where a function that is negative at `low` becomes positive, by bisection.
fn root(low: f32, high: f32, f: impl Fn(f32) -> f32) -> f32 {
    let (mut a, mut b) = (low, high);
    for _ in 0..18 {
        let m = 0.5 * (a + b);
        if f(m) > 0.0 { b = m } else { a = m }
    }
    0.5 * (a + b)
}
