//! The digital spine: one patient from a seed, as a function of place. Any resolution: nothing is a grid.
//!
//! [`Patient::draw`] draws numbers ([`Draft`]), stands the vertebrae on one another (`column`) and gives every part its
//! matter (`matters`). [`Patient::at`] answers what is at a place, in an order that is the anatomy's own: implants,
//! bone, disc, what lies in the canal, ligaments, foramina, then what lies around (`trunk`).

mod bone;
mod column;
mod draw;
mod lesions;
mod matters;
mod measure;
mod pathology;
mod texture;
mod trunk;

pub use draw::{Disc, Draft, Facet, Herniation, Level};
pub use lesions::LesionTruth;
pub use matters::FatPool;
pub use measure::{Grades, LevelTruth, Measurements, Truth};
pub use pathology::Pathology;
pub use pathology::{Kind as PathologyKind, Side};

use bone::{Bone, outline};
use column::{Along, Column, rims};
use draw::Dice;
use lesions::Lesion;
use matters::Matters;
use texture::{ellipse, ellipsoid, hypot, mix, noise, rough, segment, smooth_max, step};
use trunk::Trunk;

use super::parameters::parameters;
use super::{Material, PhantomError, Structure, Tissue, Voxel};
use crate::sequence::Region;

/// What is asked of a patient.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// Region.
    pub region: Region,
    /// Seed: the same seed is the same patient.
    pub seed: u64,
    /// Years; drawn if not given.
    pub age_years: Option<f64>,
    /// Deliberate findings. Empty: what the age brings.
    pub pathology: Vec<Pathology>,
    /// How much the years wear: 1 is usual, 0 a patient without wear.
    pub wear: Option<f64>,
}

/// A patient.
#[derive(Clone, Debug)]
pub struct Patient {
    pub(super) draft: Draft,
    column: Column,
    bones: Vec<Bone>,
    matters: Matters,
    trunk: Trunk,
    lesions: Vec<Lesion>,
    seeds: Seeds,
    by_level: Vec<Here>,
    muscle_size: f32,
    /// Middle of the uppermost vertebra.
    atlas: [f32; 3],
}

/// Streams of texture.
#[derive(Clone, Copy, Debug)]
struct Seeds {
    bone: u32,
    soft: u32,
    disc: u32,
    nerve: u32,
}

/// What is interpolated along the spine: of one vertebra, or between two.
#[derive(Clone, Copy, Debug)]
struct Here {
    back: f32,
    width: f32,
    canal_ap: f32,
    canal_width: f32,
    cord_ap: f32,
    cord_width: f32,
    flavum: f32,
    root: f32,
    spinous: f32,
    lamina: f32,
}

impl Here {
    fn mix(a: &Self, b: &Self, t: f32) -> Self {
        Self {
            back: mix(a.back, b.back, t),
            width: mix(a.width, b.width, t),
            canal_ap: mix(a.canal_ap, b.canal_ap, t),
            canal_width: mix(a.canal_width, b.canal_width, t),
            cord_ap: mix(a.cord_ap, b.cord_ap, t),
            cord_width: mix(a.cord_width, b.cord_width, t),
            flavum: mix(a.flavum, b.flavum, t),
            root: mix(a.root, b.root, t),
            spinous: mix(a.spinous, b.spinous, t),
            lamina: mix(a.lamina, b.lamina, t),
        }
    }

    /// Back of bodies and discs beside the midline, mm behind the axis: bodies are dented.
    fn wall_back(&self, u: f32) -> f32 {
        self.back + 0.09 * self.back * (u / (0.3 * self.width)).abs().min(1.0).powi(2)
    }

    /// Middle of the canal, mm behind the axis.
    fn canal_centre(&self) -> f32 {
        self.back + 0.5 * self.canal_ap
    }

    /// End of the spinous processes behind the axis, mm.
    fn spinous_tip(&self) -> f32 {
        self.canal_centre() + 0.5 * self.canal_ap + 0.4 * self.lamina + self.spinous
    }
}

impl Patient {
    /// Draws a patient.
    ///
    /// # Errors
    /// [`PhantomError`] names a finding that this region or level cannot have, with what it can.
    pub fn draw(request: &Request) -> Result<Self, PhantomError> {
        let p = parameters().map_err(|e| PhantomError {
            key: "parameters.toml",
            found: e.to_owned(),
            needed: "the file that ships",
        })?;
        let mut draft = Draft::draw(
            p,
            request.region,
            request.seed,
            request.age_years,
            request.wear.unwrap_or(1.0),
        );
        let findings = pathology::apply(&mut draft, &request.pathology)?;
        let matters = Matters::draw(p, &draft);
        let mut patient = Self::stand(draft, matters);
        patient.lesions = lesions::place(
            &mut patient.matters,
            &patient.draft,
            &patient.bones,
            &findings,
        );
        Ok(patient)
    }

    fn stand(draft: Draft, matters: Matters) -> Self {
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let f = |v: f64| v as f32;
        let column = Column::build(&draft);
        let bones: Vec<Bone> = (0..draft.levels.len())
            .map(|i| Bone::new(&draft, i))
            .collect();
        let by_level = draft
            .levels
            .iter()
            .zip(&bones)
            .map(|(l, bone)| Here {
                back: bone.back(),
                width: f(l.width_mm),
                canal_ap: f(l.canal_ap_mm),
                canal_width: f(l.canal_width_mm),
                cord_ap: f(l.cord_ap_mm),
                cord_width: f(l.cord_width_mm),
                flavum: f(l.flavum_mm),
                root: f(l.root_mm),
                spinous: f(l.spinous_mm),
                lamina: f(l.lamina_mm),
            })
            .collect();
        let mut d = Dice::new(draft.seed, "texture");
        let seeds = Seeds {
            bone: d.bits(),
            soft: d.bits(),
            disc: d.bits(),
            nerve: d.bits(),
        };
        let z = [
            column.vertebrae[draft.levels.len() - 1].origin[2] - 190.0,
            column.vertebrae[0].origin[2] + 150.0,
        ];
        let muscle_size = f(draft.muscle_size);
        let atlas = column.vertebrae[0].origin;
        let mut patient = Self {
            trunk: Trunk::build(draft.region, [1.0; 2], 1.0, [0.0, 10.0], &|_| 0.0),
            draft,
            column,
            bones,
            matters,
            lesions: Vec::new(),
            seeds,
            by_level,
            muscle_size,
            atlas,
        };
        let half = patient.draft.trunk_mm.map(f);
        let fat = f(patient.draft.subcutaneous_mm);
        let back_of = |z: f32| {
            let axis = patient.column.axis_at_z(z);
            let a = patient.column.along(axis);
            axis[1] + patient.here(a.t).spinous_tip().min(62.0)
        };
        let trunk = Trunk::build(patient.draft.region, half, fat, z, &back_of);
        patient.trunk = trunk;
        patient
    }

    /// Materials at a field strength; [`Voxel::material`] is the index.
    pub fn materials(&self, field_strength_t: f64) -> Vec<Material> {
        self.matters
            .all
            .iter()
            .map(|s| s.at(field_strength_t))
            .collect()
    }

    /// The patient's fat at a field strength.
    pub fn fat_pool(&self, field_strength_t: f64) -> FatPool {
        let [low, high] = self.matters.fat_t1_ms;
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let ratio = (field_strength_t / 1.5) as f32;
        FatPool {
            t1_ms: low * ratio.powf((high / low).log2()),
            t2_ms: self.matters.fat_t2_ms,
        }
    }

    /// The drawn numbers.
    pub fn draft(&self) -> &Draft {
        &self.draft
    }

    /// Levels from head to feet; [`Voxel::level`] is the index.
    pub fn level_names(&self) -> Vec<String> {
        self.draft.levels.iter().map(|l| l.name.clone()).collect()
    }

    /// Middle of the stack that an exam of this region plans, LPS, mm.
    pub fn stack_centre_mm(&self) -> [f32; 3] {
        let (a, b) = match self.draft.region {
            Region::Lumbar => (4, 7),
            Region::Cervical => (3, 5),
        };
        let (a, b) = (
            self.column.vertebrae[a].origin,
            self.column.vertebrae[b].origin,
        );
        let back = match self.draft.region {
            Region::Lumbar => 12.0,
            Region::Cervical => 8.0,
        };
        [
            0.5 * (a[0] + b[0]),
            0.5 * (a[1] + b[1]) + back,
            0.5 * (a[2] + b[2]),
        ]
    }

    /// Middle of a disc, and the direction of the spine there (towards the head): where an axial slice is planned.
    pub fn disc_frame(&self, level: usize) -> Option<([f32; 3], [f32; 3])> {
        self.column.discs.get(level).map(|f| (f.origin, f.w))
    }

    /// Smallest box that holds the body, LPS, mm: `[[low, high]; 3]`. Head and feet go on beyond it.
    pub fn extent_mm(&self) -> [[f32; 2]; 3] {
        let z = [
            self.column.vertebrae[self.draft.levels.len() - 1].origin[2] - 150.0,
            self.column.vertebrae[0].origin[2] + 110.0,
        ];
        let (mut x, mut y) = ([0.0f32; 2], [f32::MAX, f32::MIN]);
        let mut at = z[0];
        while at < z[1] {
            let [back, front, half] = self.trunk_row(at);
            x = [x[0].min(-half), x[1].max(half)];
            y = [y[0].min(front), y[1].max(back)];
            at += 4.0;
        }
        [x, y, z]
    }

    /// Deviation of the field, parts per million of it: the shim at the edge of the body, gas, metal.
    pub fn field_ppm(&self, p: [f32; 3]) -> f32 {
        let centre = self.stack_centre_mm();
        let q = [0, 1, 2].map(|i| (p[i] - centre[i]) / 140.0);
        let (skin, _) = self.trunk.skin(p);
        // Second-order remains of the shim, what gas in the bowel does nearby, and the dipole of implants.
        let mut ppm = 0.22 * (q[2] * q[2] - 0.5 * (q[0] * q[0] + q[1] * q[1]))
            + 0.10 * q[1]
            + 0.16 * noise(self.seeds.soft ^ 0xf1e1, p.map(|v| v / 60.0))
            + 0.45 * step(-28.0, 0.0, skin);
        for l in &self.lesions {
            ppm += l.field_ppm(self, p);
        }
        ppm
    }

    /// What is at a place (LPS, mm).
    pub fn at(&self, p: [f32; 3]) -> Voxel {
        let Some((skin, forward)) = self.trunk.within_skin(p) else {
            return self.paint(Tissue::Air, Structure::Outside);
        };
        if skin > -1.6 {
            return self.paint(Tissue::Skin, Structure::Subcutaneous);
        }
        let a = self.column.along(p);
        let here = self.here(a.t);
        let is_near = a.u.abs() < 60.0 && a.v > -34.0 && a.v < 88.0;
        let is_level = a.t > -1.4 && a.t < self.last() + 0.5;
        if is_near
            && is_level
            && let Some(voxel) = self.spine(p, &a, &here)
        {
            return voxel;
        }
        self.around(p, &a, &here, skin, forward)
    }

    // ---- the spine itself ----------------------------------------------------------------------------------------

    fn spine(&self, p: [f32; 3], a: &Along, here: &Here) -> Option<Voxel> {
        let n = self.draft.levels.len();
        let t = a.t.clamp(0.0, self.last());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
        let disc = t as usize;
        let near = disc + usize::from(t - disc as f32 >= 0.5);

        if let Some(voxel) = self.lesions.iter().find_map(|l| l.implant(self, p)) {
            return Some(voxel);
        }
        // Bone.
        let mut gap = (f32::MAX, f32::MAX);
        for i in disc..=(disc + 1).min(n - 1) {
            let bone = &self.bones[i];
            let l = self.column.vertebrae[i].local(p);
            if l[1].abs() > 34.0 || l[2].abs() > 0.9 * bone.height() + 12.0 {
                continue;
            }
            let body = bone.body(l);
            if i == disc {
                gap.0 = body.bottom;
            }
            if i == disc + 1 {
                gap.1 = body.top;
            }
            if body.whole < 0.0 {
                return Some(self.body_matter(p, l, i, &body));
            }
        }
        if a.v > here.back - 7.0 {
            for i in [near, near.saturating_sub(1), (near + 1).min(n - 1)] {
                let l = self.column.vertebrae[i].local(p);
                if !self.bones[i].may_hold(l) {
                    continue;
                }
                let (d, what) = self.bones[i].arch(l);
                if d < 0.0 {
                    return Some(self.bone_matter(p, what, i, -d, 1.3));
                }
            }
        }
        if let Some(voxel) = self.facets(p, a, disc) {
            return Some(voxel);
        }
        if self.draft.region == Region::Lumbar && near >= self.draft.base {
            let l = self.column.vertebrae[near].local(p);
            let d = self.bones[near].ala(l, near - self.draft.base);
            if d < 0.0 {
                return Some(self.bone_matter(p, Structure::Sacrum, near, -d, 1.2));
            }
        }
        if let Some(voxel) = self.disc(p, disc, gap) {
            return Some(voxel);
        }
        self.canal(p, a, here, t, disc)
    }

    fn body_matter(&self, p: [f32; 3], l: [f32; 3], i: usize, body: &bone::Body) -> Voxel {
        let level = &self.draft.levels[i];
        let depth = -body.whole;
        let plate = -body.top.max(body.bottom);
        // The basivertebral vein opens in the middle of the back wall.
        let back = self.bones[i].back();
        let vein = segment(l, [0.0, back, 0.0], [0.0, 0.35 * back, 0.0]);
        let vein_d = vein.0
            - 0.07
                * back
                * mix(2.0, 0.5, vein.1)
                * (1.0 + 0.3 * noise(self.seeds.bone, p.map(|v| v / 4.0)));
        if vein_d < 0.0 && level.name != "S1" && i < self.draft.base {
            let mut v = self.paint(Tissue::VenousBlood, Structure::VertebralBody);
            v.level = u8_of(i);
            return v;
        }
        if let Some(v) = self
            .lesions
            .iter()
            .find_map(|s| s.marrow(self, p, l, i, body))
        {
            return v;
        }
        let cortex = 0.75 + 0.25 * noise(self.seeds.bone ^ 5, p.map(|v| v / 6.0));
        let is_plate = plate < 0.75 && depth > 0.3;
        if is_plate || depth < cortex {
            let what = if is_plate {
                Tissue::BonyEndplate
            } else {
                Tissue::CorticalBone
            };
            let mut v = self.paint(
                what,
                if is_plate {
                    Structure::Endplate
                } else {
                    Structure::VertebralBody
                },
            );
            v.level = u8_of(i);
            v.hu *= 0.55;
            return v;
        }
        self.marrow(p, i, Structure::VertebralBody)
    }

    /// Spongy bone of a vertebra: marrow whose fat and whose mineral are textured apart from one another.
    fn marrow(&self, p: [f32; 3], i: usize, structure: Structure) -> Voxel {
        let level = &self.draft.levels[i.min(self.draft.levels.len() - 1)];
        let mut v = self.paint(Tissue::Marrow, structure);
        let s = self.seeds.bone;
        // Islands of yellow and red marrow, and the fine web of the trabeculae.
        let islands = rough(s, p.map(|x| x / 9.0));
        let web = noise(s ^ 0x11, [p[0] / 1.1, p[1] / 1.1, p[2] / 1.7]);
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let (fat, hu) = (level.marrow_fat as f32, level.marrow_hu as f32);
        v.fat_fraction = (fat + 0.10 * islands + 0.05 * web).clamp(0.02, 0.93);
        v.pd *= 1.0 + 0.03 * web;
        let mineral =
            noise(s ^ 0x2f, p.map(|x| x / 1.4)) * 0.7 + noise(s ^ 0x3d, p.map(|x| x / 6.0)) * 0.3;
        v.hu = hu * (1.0 + 0.45 * mineral);
        v.level = if i < self.draft.levels.len() {
            u8_of(i)
        } else {
            255
        };
        v
    }

    /// Bone other than a body: cortex of `shell` mm around marrow that is yellower than the body's.
    fn bone_matter(&self, p: [f32; 3], what: Structure, i: usize, depth: f32, shell: f32) -> Voxel {
        let shell = shell
            * if self.draft.region == Region::Cervical {
                0.6
            } else {
                1.0
            }
            * (1.0 + 0.25 * noise(self.seeds.bone ^ 7, p.map(|v| v / 5.0)));
        if depth < shell {
            let mut v = self.paint(Tissue::CorticalBone, what);
            v.level = if i < 255 { u8_of(i) } else { 255 };
            return v;
        }
        if let Some(v) = self.lesions.iter().find_map(|s| s.arch(self, p, what, i)) {
            return v;
        }
        let mut v = self.marrow(p, i, what);
        v.fat_fraction = (v.fat_fraction + 0.08).min(0.93);
        v.hu += 120.0;
        v
    }

    fn facets(&self, p: [f32; 3], a: &Along, j: usize) -> Option<Voxel> {
        let n = self.draft.levels.len();
        if j + 1 >= n || (self.draft.region == Region::Lumbar && j >= self.draft.base) {
            return None;
        }
        let level = &self.draft.levels[j];
        if level.name == "C1" {
            return None;
        }
        let side = usize::from(a.u > 0.0);
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let f = |v: f64| v as f32;
        let facet = &level.facets[side];
        let (width, fluid, grown) = (
            f(facet.width_mm),
            f(facet.fluid_mm),
            f(facet.hypertrophy_mm),
        );
        let frame = &self.column.discs[j];
        let [u, v, w] = frame.local(p);
        if w.abs() > 32.0 || v < self.bones[j].back() - 6.0 {
            return None;
        }
        let au = u.abs();
        let here = self.here(j as f32 + 0.5);
        let (half, ap, vc) = (
            0.5 * here.canal_width,
            0.5 * here.canal_ap,
            here.canal_centre(),
        );
        let spur = if grown == 0.0 {
            0.0
        } else {
            grown * (1.0 + 0.35 * noise(self.seeds.bone ^ 0x61, p.map(|x| x / 4.0)))
        };
        let joint = |depth: f32, gap: f32, owner: usize| {
            let mut voxel = if depth.abs() < 0.5 * fluid.min(gap) {
                self.paint(Tissue::FacetFluid, Structure::FacetJoint)
            } else {
                self.paint(Tissue::FacetCartilage, Structure::FacetJoint)
            };
            voxel.level = u8_of(owner);
            Some(voxel)
        };
        if self.draft.region == Region::Cervical && j < 7 {
            // Articular pillars, cut by joints that fall backwards by 45 degrees.
            let d = ellipse(au - half - 6.5, v - here.back - 8.0, 6.0 + spur, 6.4 + spur);
            if d > 0.0 || a.t < 1.2 {
                return None;
            }
            let cut = (v - here.back - 8.0 + w) * std::f32::consts::FRAC_1_SQRT_2;
            if cut.abs() < 0.5 * width {
                return joint(cut, width, j);
            }
            let owner = if cut > 0.0 { j } else { j + 1 };
            let depth = (-d).min(cut.abs() - 0.5 * width);
            return Some(self.bone_matter(p, Structure::ArticularProcess, owner, depth, 1.0));
        }
        // Lumbar: the lower vertebra's process is a cup in front of and beside the upper's.
        let (sin, cos) = f(level.facet_tilt_deg).to_radians().sin_cos();
        let q = [half + 1.0 + 2.0 * sin, vc + 0.55 * ap + 5.0];
        let ball = 5.2 + 0.7 * spur;
        let d = [au - (q[0] - 3.5 * cos), v - (q[1] + 3.5 * sin)];
        let r = hypot(d[0], d[1]);
        let toward = (d[0] * cos - d[1] * sin) / r.max(0.1);
        let inferior = smooth_max(r - ball, (w - 6.0).abs() - 15.0, 2.5);
        if inferior < 0.0 {
            return Some(self.bone_matter(p, Structure::ArticularProcess, j, -inferior, 1.3));
        }
        let thick = 4.8 + spur;
        let cup = smooth_max(
            (r - ball - width - 0.5 * thick).abs() - 0.5 * thick,
            smooth_max((0.05 - toward) * r, (w + 5.0).abs() - 14.0, 2.5),
            2.5,
        );
        if cup < 0.0 {
            return Some(self.bone_matter(p, Structure::ArticularProcess, j + 1, -cup, 1.3));
        }
        if r < ball + width && toward > 0.12 && w.abs() < 9.5 {
            return joint(r - ball - 0.5 * width, width, j);
        }
        // Parts between the articular processes: from the pedicle to the inferior process.
        let top = [half + 4.5, here.back + 12.0, 24.0];
        let (pars, _) = segment([au, v, w], top, [q[0] - 1.0, q[1] + 1.0, 8.0]);
        if pars < 5.0 {
            return Some(self.bone_matter(p, Structure::ArticularProcess, j, 5.0 - pars, 1.3));
        }
        None
    }

    fn disc(&self, p: [f32; 3], j: usize, gap: (f32, f32)) -> Option<Voxel> {
        let n = self.draft.levels.len();
        let level = &self.draft.levels[j];
        if j + 1 >= n || level.disc.middle_mm < 0.3 || level.name == "C1" {
            return None;
        }
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let f = |v: f64| v as f32;
        let frame = &self.column.discs[j];
        let [u, v, w] = frame.local(p);
        let height = gap.0 + gap.1;
        let (a, b) = self.disc_axes(j);
        let (side, rho) = outline(u, v, a, b, 0.05 * b);
        let disc = &level.disc;
        let is_whole = gap.0 >= -0.2
            && gap.1 >= -0.2
            && height <= f(disc.anterior_mm.max(disc.middle_mm)) + 9.0;
        let most = f(disc.bulge_mm);
        if disc.herniation.is_none() && (!is_whole || side > most.max(0.6 * most)) {
            return None;
        }
        if side > 24.0 + most.max(0.6 * most) {
            return None;
        }
        let angle = u.atan2(v);
        let is_behind = angle.abs() < 1.9;
        let mut reach = most * if is_behind { 1.0 } else { 0.6 };
        let paint = |which: usize, what: Structure| {
            let mut voxel = self.paint_index(self.matters.disc[j][which], what);
            voxel.level = u8_of(j);
            voxel
        };
        if let Some(h) = &disc.herniation {
            let away = angle - f(h.direction_deg.to_radians());
            let across = away * b.max(0.5 * a);
            let x = across / f(h.half_width_mm);
            let (rim, _) = rims(&self.draft, j);
            let dome = f(h.depth_mm) * (-x * x * 1.4).exp();
            if side > reach - 0.2 && side < 24.0 {
                let inside = if h.is_extrusion {
                    let (sin, cos) = f(h.direction_deg.to_radians()).sin_cos();
                    // Beyond the base it widens, and goes up or down behind the body.
                    let edge = outline_edge(a, b, f(h.direction_deg.to_radians()));
                    let mid = edge + 0.5 * f(h.depth_mm);
                    let shift = f(h.migration_mm);
                    let head = ellipsoid(
                        [u - mid * sin, v - mid * cos, w - shift],
                        [
                            f(h.half_width_mm),
                            0.56 * f(h.depth_mm) + 0.3,
                            0.5 * f(rim[1]) + 2.5 + 0.35 * shift.abs(),
                        ],
                    );
                    head.min(smooth_max(side - dome, w.abs() - 0.45 * f(rim[1]), 1.5))
                } else {
                    smooth_max(side - dome - reach, w.abs() - 0.5 * f(rim[1]) - 1.0, 1.5)
                };
                if inside + 0.3 * noise(self.seeds.disc, p.map(|x| x / 2.5)) < 0.0 {
                    return Some(paint(
                        usize::from(!h.is_extrusion) + usize::from(inside > -0.9),
                        Structure::Annulus,
                    ));
                }
            }
            reach += if h.is_extrusion { 0.0 } else { dome };
        }
        // Beyond the rims the annulus fills what the plates would, a little rounded.
        if side > reach || !is_whole {
            return None;
        }
        if side > 0.3 && w.abs() > 0.5 * f(rims(&self.draft, j).0[1]).max(2.0) + 1.2 {
            return None;
        }
        let x = gap.0 / height.max(0.1);
        let rough_edge = 0.05 * noise(self.seeds.disc ^ 3, p.map(|x| x / 3.0));
        if let Some(voxel) = self.lesions.iter().find_map(|s| s.disc(self, p, j, rho)) {
            return Some(voxel);
        }
        if rho < 0.8 && gap.0.min(gap.1) < 0.7 {
            let mut voxel = self.paint(Tissue::EndplateCartilage, Structure::Endplate);
            voxel.level = u8_of(j);
            return Some(voxel);
        }
        // Nucleus: an ellipse behind the middle; with the grades its border and its bright band are lost.
        let core = hypot(u / (0.66 * a), (v - 0.08 * b) / (0.60 * b));
        let up = (2.0 * x - 1.0).abs();
        let body = (core * core + 0.45 * up * up * up * up).sqrt() + rough_edge;
        let grade = disc.pfirrmann;
        if disc.has_vacuum && core < 0.75 && (x - 0.5).abs() < 0.18 + rough_edge {
            let mut voxel = self.paint(Tissue::VacuumCleft, Structure::Nucleus);
            voxel.level = u8_of(j);
            return Some(voxel);
        }
        if disc.has_fissure
            && v > 0.0
            && u.abs() < 0.35 * a
            && (0.86..0.95).contains(&rho)
            && (x - 0.5).abs() < 0.25
        {
            return Some(paint(0, Structure::Annulus));
        }
        let which = if body < 0.86 {
            // The cleft of the adult nucleus.
            let cleft = (2..=3).contains(&grade)
                && (x - 0.5).abs() < 0.05 + 0.5 * rough_edge
                && core < 0.55;
            usize::from(cleft)
        } else if body < 1.12 {
            1
        } else {
            2
        };
        let what = if which == 0 {
            Structure::Nucleus
        } else {
            Structure::Annulus
        };
        let mut voxel = paint(which, what);
        voxel.pd *= 1.0 + 0.05 * noise(self.seeds.disc ^ 9, p.map(|x| x / 2.2));
        Some(voxel)
    }

    /// Half of a disc's width and depth, mm.
    fn disc_axes(&self, j: usize) -> (f32, f32) {
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let f = |v: f64| v as f32;
        let l = &self.draft.levels[j];
        let below = self.draft.levels.get(j + 1).unwrap_or(l);
        (
            0.25 * f(l.width_mm + below.width_mm),
            0.25 * f(l.inferior_mm + below.superior_mm),
        )
    }

    fn canal(&self, p: [f32; 3], a: &Along, here: &Here, t: f32, j: usize) -> Option<Voxel> {
        let (back, ap, width) = (here.back, here.canal_ap, here.canal_width);
        let vc = back + 0.5 * ap;
        let (u, v) = (a.u, a.v);
        let fraction = t - j as f32;
        let rim = ellipse(u, v - vc, 0.5 * width, 0.5 * ap);
        let is_lumbar = self.draft.region == Region::Lumbar;
        let base = self.base();
        let with_level = |mut voxel: Voxel| {
            voxel.level = u8_of(j);
            Some(voxel)
        };

        // Flavum: the roof between two laminae, in two halves.
        let thick = self.here(j as f32).flavum;
        // Half of its usual thickness lies outside of the canal; what grows, grows inwards.
        let inward = 0.45 * thick + 0.55 * (thick - 4.0).max(0.0);
        let is_between =
            (0.22..0.80).contains(&fraction) && a.t > 0.6 && !(is_lumbar && t > base + 0.2);
        let flavum = rim > -inward && rim < thick - inward && v > vc + 0.05 * ap && u.abs() > 0.5;
        if is_between && flavum {
            return with_level(self.paint(Tissue::Ligament, Structure::LigamentumFlavum));
        }
        // Roots, in and out of the sac.
        let (sac, dura) = self.sac(here, t, u, v);
        if let Some(voxel) = self.roots(p, a, here, t, sac) {
            return Some(voxel);
        }
        if sac < 0.0 {
            if sac > -dura {
                return with_level(self.paint(Tissue::Ligament, Structure::DuralSac));
            }
            if let Some(voxel) = self.cord(p, a, here, t) {
                return with_level(voxel);
            }
            return with_level(self.paint(Tissue::Csf, Structure::DuralSac));
        }
        // Ligaments in front of the sac.
        let in_front = v - here.wall_back(u);
        if (0.0..0.9).contains(&in_front) && u.abs() < 5.0 {
            return with_level(self.paint(Tissue::Ligament, Structure::Ligament));
        }
        if rim < 0.0 && a.t > -0.6 {
            let plexus = noise(self.seeds.soft ^ 0x91, p.map(|x| x / 2.4));
            if v < vc && plexus > 0.35 {
                return with_level(self.paint(Tissue::VenousBlood, Structure::EpiduralSpace));
            }
            return with_level(self.fat(p, Structure::EpiduralSpace));
        }
        // Foramina: beside the canal, below a pedicle and above the next.
        let hole = if is_lumbar {
            ellipse(u.abs() - 0.5 * width - 5.0, v - back - 4.5, 11.0, 10.5)
        } else {
            ellipse(u.abs() - 0.5 * width - 4.0, v - back - 3.0, 8.0, 6.5)
        };
        if hole < 0.0 && a.t > 0.6 {
            let vein = noise(self.seeds.soft ^ 0x93, p.map(|x| x / 2.8));
            if vein > 0.5 {
                return with_level(self.paint(Tissue::VenousBlood, Structure::Foramen));
            }
            return with_level(self.fat(p, Structure::Foramen));
        }
        // In front of the bodies.
        let front = -v - back;
        if (-1.0..1.6).contains(&front) && u.abs() < 13.0 && front + 0.02 * u * u < 1.6 {
            return with_level(self.paint(Tissue::Ligament, Structure::Ligament));
        }
        // Between and behind the spinous processes.
        let tip = here.spinous_tip();
        if u.abs() < 3.0 && v > vc + 0.5 * ap && v < tip + 2.6 && a.t > 0.4 && a.t < base + 1.2 {
            if v > tip - 0.4 {
                return with_level(self.paint(Tissue::Ligament, Structure::Ligament));
            }
            let streak = noise(self.seeds.soft ^ 0x95, [p[0] / 3.0, p[1] / 5.0, p[2] / 1.6]);
            // Ligament and fat in one another.
            let mut voxel = self.paint(Tissue::Muscle, Structure::Ligament);
            voxel.fat_fraction = (0.5 + 0.45 * streak).clamp(0.05, 0.92);
            voxel.hu = 20.0 - 110.0 * voxel.fat_fraction;
            return with_level(voxel);
        }
        None
    }

    /// Distance to the dural sac and the thickness of its wall. Discs, flavum and facets press on it by being there first.
    fn sac(&self, here: &Here, t: f32, u: f32, v: f32) -> (f32, f32) {
        let base = self.base();
        let (back, ap, width) = (here.back, here.canal_ap, here.canal_width);
        let is_lumbar = self.draft.region == Region::Lumbar;
        let (front, depth, wide) = if is_lumbar {
            let low = step(base - 1.2, base, t);
            let end = ((base + 1.5 - t) / 1.7).clamp(0.0, 1.0).sqrt();
            (
                1.0 + 2.4 * low,
                ((ap - 2.6 - 1.7 * low) * end).max(0.05),
                (0.77 * width).min(18.5 - 1.5 * low) * end,
            )
        } else {
            (0.9, ap - 2.2, 0.78 * width)
        };
        if is_lumbar && t > base + 1.5 {
            return (f32::MAX, 0.4);
        }
        (
            ellipse(u, v - back - front - 0.5 * depth, 0.5 * wide, 0.5 * depth),
            0.35,
        )
    }

    /// Place of the cord's middle, and its half axes; `None` where there is none.
    fn cord_at(&self, here: &Here, t: f32) -> Option<([f32; 2], [f32; 2])> {
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let conus = self.draft.conus_level as f32;
        if t > conus {
            return None;
        }
        // The cone: over one and a half levels.
        let end = ((conus - t) / 1.6).clamp(0.0, 1.0).powf(0.7);
        let (ap, width) = if self.draft.region == Region::Lumbar {
            // Tables end above the conus: its width comes from the last entries.
            let above = self.here(t.min(conus - 0.4).clamp(0.0, 2.4));
            (above.cord_ap.max(0.0), above.cord_width.max(0.0))
        } else {
            (here.cord_ap, here.cord_width)
        };
        let lie = if self.draft.region == Region::Lumbar {
            0.5 + 0.12 * step(conus - 2.0, conus, t)
        } else {
            0.5
        };
        Some((
            [0.0, here.back + lie * here.canal_ap],
            [0.5 * width * end + 0.3, 0.5 * ap * end + 0.3],
        ))
    }

    fn cord(&self, p: [f32; 3], a: &Along, here: &Here, t: f32) -> Option<Voxel> {
        let ([_, v0], [ru, rv]) = self.cord_at(here, t)?;
        let (u, v) = (a.u, a.v - v0);
        let d = ellipse(u, v, ru, rv);
        if d > 0.0 {
            return None;
        }
        if let Some(voxel) = self.lesions.iter().find_map(|s| s.cord(self, p, a)) {
            return Some(voxel);
        }
        // The butterfly: two horns on each side and a bridge.
        let au = u.abs() / ru;
        let vv = v / rv;
        let horn = ellipse(au - 0.30 - 0.06 * vv.abs(), vv, 0.13, 0.52);
        let bridge = au < 0.3 && vv.abs() < 0.12;
        let mut voxel = if horn < 0.0 || bridge {
            self.paint(Tissue::CordGrey, Structure::Cord)
        } else {
            self.paint(Tissue::CordWhite, Structure::Cord)
        };
        voxel.pd *= 1.0 + 0.03 * noise(self.seeds.nerve, p.map(|x| x / 1.5));
        Some(voxel)
    }

    fn roots(&self, p: [f32; 3], a: &Along, here: &Here, t: f32, sac: f32) -> Option<Voxel> {
        let n = self.draft.levels.len();
        let is_lumbar = self.draft.region == Region::Lumbar;
        let side = if a.u > 0.0 { 1.0 } else { -1.0 };
        let au = a.u.abs();
        let root = |near_wall: bool| {
            let mut voxel = self.paint(Tissue::NerveRoot, Structure::NerveRoot);
            if !near_wall {
                voxel.pd *= 1.0 + 0.04 * noise(self.seeds.nerve, p.map(|x| x / 1.2));
            }
            Some(voxel)
        };
        // In the foramen: the ganglion below the pedicle (in the neck: at the disc), then out and forwards.
        if sac > -0.6 {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
            let j = a.t.clamp(0.0, (n - 1) as f32) as usize;
            for i in [j, j.saturating_sub(1)] {
                let size = self.by_level[i].root;
                let at = self.here(i as f32);
                let (half, back) = (0.5 * at.canal_width, at.back);
                let (from, to) = if is_lumbar {
                    (
                        [0.36 * half * 2.0, back + 5.0, i as f32 - 0.12],
                        [half + 13.0, back - 1.0, i as f32 + 0.52],
                    )
                } else {
                    (
                        [0.8 * half, back + 5.0, i as f32 + 0.38],
                        [half + 12.0, back + 1.0, i as f32 + 0.58],
                    )
                };
                // One level is about 37 mm in the back, 18 in the neck.
                let k = if is_lumbar { 36.0 } else { 18.0 };
                let (d, x) = segment(
                    [au, a.v, a.t * k],
                    [from[0], from[1], from[2] * k],
                    [to[0], to[1], to[2] * k],
                );
                let swell = (-((x - 0.62) / 0.22).powi(2)).exp();
                let r = 0.5 * size * (0.45 + 0.55 * swell);
                if d < r && a.t > 0.3 {
                    let mut voxel = self.paint(Tissue::NerveRoot, Structure::NerveRoot);
                    voxel.level = u8_of(i);
                    return Some(voxel);
                }
            }
            return None;
        }
        // In the sac: cauda equina. Each root leaves the conus, lies behind, and moves to the side on its way to its exit.
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let conus = self.draft.conus_level as f32;
        if !is_lumbar || t < conus - 1.2 {
            return None;
        }
        let (back, ap) = (here.back, here.canal_ap);
        let width = (0.77 * here.canal_width).min(18.5);
        let shrink = ((self.base() + 1.5 - t) / 1.7).clamp(0.0, 1.0).sqrt();
        let spread = step(conus - 1.2, conus + 0.6, t);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small and positive
        let first = (t.max(0.0)) as usize;
        for k in first..first + 7 {
            let exit = k as f32 + 0.05;
            let left = exit - t;
            if left < 0.0 {
                continue;
            }
            let x = (left / 4.2).min(1.0);
            for strand in 0..2u32 {
                let key = (k as u32) * 4 + strand * 2 + u32::from(side > 0.0);
                let wander = noise(
                    self.seeds.nerve ^ key.wrapping_mul(0x9e37),
                    [t * 0.9, key as f32, 0.5],
                );
                let angle = mix(0.15, 1.38, x.powf(0.6)) + 0.16 * wander + 0.13 * strand as f32;
                let radius = (0.80 - 0.06 * strand as f32) * (0.25 + 0.75 * spread) * shrink;
                let cu = 0.5 * width * radius * angle.cos();
                let cv = back + 0.52 * ap + 0.40 * ap * radius * angle.sin();
                let r = 0.62 + 0.22 * (1.0 - x) + 0.1 * wander;
                if hypot(au - cu, a.v - cv) < r {
                    return root(false);
                }
            }
        }
        None
    }

    // ---- along the spine -----------------------------------------------------------------------------------------

    fn last(&self) -> f32 {
        (self.draft.levels.len() - 1) as f32
    }

    fn base(&self) -> f32 {
        if self.draft.region == Region::Lumbar {
            self.draft.base as f32
        } else {
            1e3
        }
    }

    /// What is interpolated, at a level.
    fn here(&self, t: f32) -> Here {
        let last = self.by_level.len() - 1;
        let t = t.clamp(0.0, last as f32);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
        let i = (t as usize).min(last.saturating_sub(1));
        let next = &self.by_level[(i + 1).min(last)];
        Here::mix(&self.by_level[i], next, t - i as f32)
    }

    fn bone_z(&self, i: usize) -> f32 {
        self.column.vertebrae[i.min(self.draft.levels.len() - 1)].origin[2]
    }

    fn trunk_row(&self, z: f32) -> [f32; 3] {
        self.trunk.row(z)
    }

    // ---- paint ---------------------------------------------------------------------------------------------------

    fn paint(&self, tissue: Tissue, structure: Structure) -> Voxel {
        self.paint_index(self.matters.of(tissue), structure)
    }

    fn paint_index(&self, index: u8, structure: Structure) -> Voxel {
        let s = &self.matters.all[usize::from(index)];
        Voxel {
            material: index,
            structure,
            level: 255,
            lesion: 0,
            pd: s.pd,
            fat_fraction: s.fat,
            hu: s.hu,
        }
    }

    fn textured(&self, p: [f32; 3], tissue: Tissue, structure: Structure, depth: f32) -> Voxel {
        let mut v = self.paint(tissue, structure);
        let n = rough(self.seeds.soft ^ 0x31, p.map(|x| x / 5.0));
        v.pd *= 1.0 + depth * n;
        v.hu += 8.0 * n;
        v
    }

    fn fat(&self, p: [f32; 3], structure: Structure) -> Voxel {
        let mut v = self.paint(Tissue::Fat, structure);
        // Lobules with thin septa.
        let n = noise(self.seeds.soft ^ 0x41, p.map(|x| x / 6.0));
        if n.abs() < 0.03
            && structure != Structure::EpiduralSpace
            && structure != Structure::Foramen
        {
            v.pd *= 0.9;
            v.fat_fraction *= 0.88;
            v.hu += 25.0;
        } else {
            v.pd *= 1.0 + 0.02 * n;
        }
        v
    }

    /// Muscle with the fat of the patient, more of it along fibres that run with the spine, and at `edge` (mm inside).
    fn muscle(&self, p: [f32; 3], what: Structure, more: f32, edge: f32) -> Voxel {
        let mut v = self.paint(Tissue::Muscle, what);
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let fat = self.draft.muscle_fat as f32 * more;
        let fibres = rough(
            self.seeds.soft ^ 0x51,
            [p[0] / 4.5, (p[1] + 0.3 * p[2]) / 4.5, p[2] / 19.0],
        );
        // Streaks: sharp where the noise crosses a level that falls with the amount of fat.
        let threshold = 0.62 - 1.35 * fat;
        let streak = step(threshold, threshold + 0.22, fibres);
        v.fat_fraction = (0.55 * fat * (1.0 + 0.4 * fibres) + 0.72 * streak).clamp(0.01, 0.93);
        if edge > -0.7 {
            v.fat_fraction = v.fat_fraction.max(0.35);
        }
        v.hu = mix(
            v.hu,
            self.matters.all[usize::from(self.matters.of(Tissue::Fat))].hu,
            v.fat_fraction,
        );
        v
    }
}

#[cfg(test)]
mod tests;

fn u8_of(n: usize) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}

/// Distance of the outline's edge from the middle in a direction (0 is straight back).
fn outline_edge(a: f32, b: f32, angle: f32) -> f32 {
    let (sin, cos) = angle.sin_cos();
    1.0 / (sin / a).hypot(cos / b)
}
