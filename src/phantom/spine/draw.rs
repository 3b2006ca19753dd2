//! The numbers of one patient, drawn from a seed: sizes, ages, wear. No geometry yet.

use serde::{Deserialize, Serialize};

use crate::num::rng::Rng;
use crate::phantom::parameters::{Morphometry, Parameters};
use crate::sequence::Region;

/// Seeded draws with the few distributions that anatomy needs.
#[derive(Clone, Debug)]
pub(super) struct Dice(Rng);

impl Dice {
    /// Each subject of `what` has its own stream, so that a new draw in one leaves the others as they were.
    pub(super) fn new(seed: u64, what: &str) -> Self {
        let mut h = seed ^ 0x6361_7564_6100_0001;
        for b in what.bytes() {
            h = (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let mut rng = Rng::new(h);
        Self(Rng::new(rng.next_u64()))
    }

    pub(super) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.0.uniform()
    }

    /// Normal, cut at 2.5 standard deviations so that no patient is impossible.
    pub(super) fn normal(&mut self, mean: f64, sd: f64) -> f64 {
        mean + sd * f64::from(self.0.normal().re).clamp(-2.5, 2.5)
    }

    pub(super) fn chance(&mut self, p: f64) -> bool {
        self.0.uniform() < p
    }

    pub(super) fn index(&mut self, n: usize) -> usize {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in 0..n
        let i = (self.0.uniform() * n as f64) as usize;
        i.min(n.saturating_sub(1))
    }

    pub(super) fn bits(&mut self) -> u32 {
        #[allow(clippy::cast_possible_truncation)] // half of the bits are enough
        let b = self.0.next_u64() as u32;
        b
    }
}

/// The disc below a vertebra.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disc {
    /// Height at the front rim, mm.
    pub anterior_mm: f64,
    /// Height in the middle, mm.
    pub middle_mm: f64,
    /// Height at the back rim, mm.
    pub posterior_mm: f64,
    /// Pfirrmann grade, 1 to 5.
    pub pfirrmann: u8,
    /// How far the annulus stands out behind the vertebrae, mm.
    pub bulge_mm: f64,
    /// Material that left the disc.
    pub herniation: Option<Herniation>,
    /// Gas in the disc.
    pub has_vacuum: bool,
    /// Bright fissure in the posterior annulus.
    pub has_fissure: bool,
}

/// Material of a disc in the canal or the foramen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Herniation {
    /// Extrusion: narrower at its base than farther out, and may migrate.
    pub is_extrusion: bool,
    /// Direction from the disc's centre: 0 is straight back, positive to the left, degrees.
    pub direction_deg: f64,
    /// How far it stands out, mm.
    pub depth_mm: f64,
    /// Half of its width, mm.
    pub half_width_mm: f64,
    /// How far it went up (positive) or down, mm; extrusions only.
    pub migration_mm: f64,
}

/// One facet joint, between a vertebra and the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facet {
    /// Weishaupt grade, 0 to 3.
    pub grade: u8,
    /// Width of the joint space, mm.
    pub width_mm: f64,
    /// Thickness of the fluid in it, mm.
    pub fluid_mm: f64,
    /// How much the processes have grown, mm.
    pub hypertrophy_mm: f64,
}

/// A vertebra, its part of the canal, and what lies between it and the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// `L4`.
    pub name: String,
    /// Height of the body at its front, mm.
    pub anterior_mm: f64,
    /// Height of the body at its back, mm.
    pub posterior_mm: f64,
    /// Depth of the upper and lower endplate's bowl, mm.
    pub concavity_mm: [f64; 2],
    /// Upper endplate, front to back, mm.
    pub superior_mm: f64,
    /// Lower endplate, front to back, mm.
    pub inferior_mm: f64,
    /// Width of the body, mm.
    pub width_mm: f64,
    /// Right and left pedicle, mm.
    pub pedicle_width_mm: [f64; 2],
    /// Right and left pedicle, mm.
    pub pedicle_height_mm: [f64; 2],
    /// Canal behind the body, front to back, mm.
    pub canal_ap_mm: f64,
    /// Canal between the pedicles, mm.
    pub canal_width_mm: f64,
    /// Ligamentum flavum to the next vertebra, mm.
    pub flavum_mm: f64,
    /// Lamina, mm.
    pub lamina_mm: f64,
    /// Spinous process behind the canal, mm.
    pub spinous_mm: f64,
    /// Reach of the transverse processes from the midline, mm.
    pub transverse_mm: f64,
    /// Ganglion below the pedicle, mm.
    pub root_mm: f64,
    /// Angle of the facet joints to the sagittal plane, degrees.
    pub facet_tilt_deg: f64,
    /// Cord, front to back, mm; 0 where there is none.
    pub cord_ap_mm: f64,
    /// Cord, side to side, mm.
    pub cord_width_mm: f64,
    /// Bony spurs at the rims, mm.
    pub osteophyte_mm: f64,
    /// How far this vertebra slipped forward on the next, mm.
    pub slip_mm: f64,
    /// Disc below.
    pub disc: Disc,
    /// Right and left facet joint below.
    pub facets: [Facet; 2],
    /// Marrow: fat fraction and CT number of this body before texture.
    pub marrow_fat: f64,
    /// CT number of the spongy bone, HU.
    pub marrow_hu: f64,
}

/// All drawn numbers of one patient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// Region.
    pub region: Region,
    /// Seed.
    pub seed: u64,
    /// Years.
    pub age_years: f64,
    /// Sex: draws size, marrow and muscle.
    pub is_male: bool,
    /// Size relative to the tables.
    pub scale: f64,
    /// From head to feet.
    pub levels: Vec<Level>,
    /// Index of the vertebra that stands still: S1, in the neck T4.
    pub base: usize,
    /// Forward tilt of its upper endplate, degrees.
    pub base_tilt_deg: f64,
    /// Bend to one side over all levels, degrees (Cobb); scoliosis above 10.
    pub cobb_deg: f64,
    /// Where the bend is strongest, in levels.
    pub cobb_level: f64,
    /// End of the cord, in levels.
    pub conus_level: f64,
    /// Fat under the skin of the back, mm.
    pub subcutaneous_mm: f64,
    /// Half width and depth of the trunk or neck, mm.
    pub trunk_mm: [f64; 2],
    /// Fat fraction of the muscles of the back.
    pub muscle_fat: f64,
    /// Thickness of the muscles relative to the usual.
    pub muscle_size: f64,
}

impl Draft {
    /// Draws a patient without deliberate pathology, but with the wear of the age.
    pub(super) fn draw(
        p: &Parameters,
        region: Region,
        seed: u64,
        age: Option<f64>,
        wear: f64,
    ) -> Self {
        let m = match region {
            Region::Lumbar => &p.lumbar,
            Region::Cervical => &p.cervical,
        };
        let mut d = Dice::new(seed, "person");
        let age_years = age.unwrap_or_else(|| d.uniform(p.age.years[0], p.age.years[1]));
        let is_male = d.chance(0.5);
        let scale = d.normal(if is_male { 1.025 } else { 0.975 }, 0.035);
        let marrow_fat = (p.age.marrow_fat_at_45
            + p.age.marrow_fat_per_year * (age_years - 45.0)
            + if is_male { 1.0 } else { -1.0 } * p.age.marrow_fat_male
            + d.normal(0.0, p.age.marrow_fat_sd))
        .clamp(0.06, 0.85);
        // Mineral is drawn apart from fat: T1w must not tell the density of bone.
        let marrow_hu = (p.age.marrow_hu_at_30
            + p.age.marrow_hu_per_year * (age_years - 30.0)
            + d.normal(0.0, p.age.marrow_hu_sd))
        .clamp(10.0, 350.0);
        let muscle_fat = (p.age.muscle_fat_at_38
            + p.age.muscle_fat_per_year * (age_years - 38.0)
            + d.normal(0.0, p.age.muscle_fat_sd))
        .clamp(0.03, 0.55);
        let is_lumbar = region == Region::Lumbar;
        let levels = (0..m.names.len())
            .map(|i| {
                let mut d = Dice::new(seed, &format!("level {}", m.names[i]));
                let mut level = level(m, i, scale, &mut d);
                level.marrow_fat = (marrow_fat + d.normal(0.0, 0.025)).clamp(0.04, 0.88);
                level.marrow_hu = marrow_hu + d.normal(0.0, 10.0);
                age_level(&mut level, region, age_years, wear, &mut d);
                level
            })
            .collect();
        Self {
            region,
            seed,
            age_years,
            is_male,
            scale,
            levels,
            base: m.base_vertebra,
            base_tilt_deg: d.normal(m.base_tilt_deg, m.base_tilt_sd_deg),
            cobb_deg: d.normal(0.0, 2.5),
            cobb_level: d.uniform(0.3, 0.65) * m.base_vertebra as f64,
            conus_level: d.normal(m.conus_level, m.conus_level_sd),
            subcutaneous_mm: if is_lumbar {
                d.uniform(6.0, 30.0)
            } else {
                d.uniform(4.0, 14.0)
            },
            trunk_mm: if is_lumbar {
                [d.normal(172.0, 14.0) * scale, d.normal(118.0, 13.0) * scale]
            } else {
                [d.normal(66.0, 5.0) * scale, d.normal(62.0, 4.0) * scale]
            },
            muscle_fat,
            muscle_size: d.normal(if is_male { 1.06 } else { 0.94 }, 0.07),
        }
    }
}

fn level(m: &Morphometry, i: usize, scale: f64, d: &mut Dice) -> Level {
    // What people share as a whole (scale) is part of the spread that the tables give.
    let mut size = |mean: f64, sd: f64| -> f64 {
        let share = (mean * 0.043).min(0.8 * sd);
        let own = (sd * sd - share * share).max(0.0).sqrt();
        (mean * scale + d.normal(0.0, 1.0) * own * 0.75).max(mean * 0.6)
    };
    let anterior_mm = size(m.anterior_height_mm[i], m.height_sd_mm);
    let posterior_mm = size(m.posterior_height_mm[i], m.height_sd_mm * 0.7)
        + 0.4 * (anterior_mm - m.anterior_height_mm[i] * scale);
    let superior_mm = size(m.superior_length_mm[i], m.length_sd_mm);
    let inferior_mm = m.inferior_length_mm[i] * superior_mm / m.superior_length_mm[i];
    let width_mm = size(m.width_mm[i], m.length_sd_mm);
    let pedicle = size(m.pedicle_width_mm[i], m.pedicle_width_sd_mm);
    let pedicle_h = size(m.pedicle_height_mm[i], m.pedicle_height_sd_mm);
    let disc_scale = size(10.0, m.disc_sd_mm) / 10.0;
    let canal_ap_mm = size(m.canal_ap_mm[i], m.canal_ap_sd_mm);
    let canal_width_mm = size(m.canal_width_mm[i], m.canal_width_sd_mm);
    let flavum_mm = size(m.flavum_mm[i], m.flavum_sd_mm);
    let lamina_mm = size(m.lamina_mm[i], 0.6);
    let spinous_mm = size(m.spinous_length_mm[i], 2.5);
    let mut transverse_mm = size(m.transverse_reach_mm[i], 3.0);
    if m.transverse_reach_mm[i] <= 0.0 {
        transverse_mm = 0.0; // the sacrum's lower levels have none, whatever their spread
    }
    let root_mm = size(m.root_mm[i], m.root_sd_mm);
    let concavity = m.endplate_concavity_mm[i];
    let concavity_mm = [0.6, 0.9].map(|k| (concavity * k * (1.0 + d.normal(0.0, 0.2))).max(0.0));
    let skew = d.normal(0.0, 0.04);
    let cord = 1.0 + d.normal(0.0, 0.05);
    // The tables' middle heights contain the bowls of both endplates.
    let (front, back) = (m.disc_anterior_mm[i], m.disc_posterior_mm[i]);
    Level {
        name: m.names[i].clone(),
        anterior_mm,
        posterior_mm,
        concavity_mm,
        superior_mm,
        inferior_mm,
        width_mm,
        pedicle_width_mm: [pedicle * (1.0 + skew), pedicle * (1.0 - skew)],
        pedicle_height_mm: [pedicle_h * (1.0 - skew), pedicle_h * (1.0 + skew)],
        canal_ap_mm,
        canal_width_mm,
        flavum_mm,
        lamina_mm,
        spinous_mm,
        transverse_mm,
        root_mm,
        facet_tilt_deg: m.facet_tilt_deg[i] + d.normal(0.0, 4.0),
        cord_ap_mm: m.cord_ap_mm[i] * cord,
        cord_width_mm: m.cord_width_mm[i] * cord,
        osteophyte_mm: 0.0,
        slip_mm: 0.0,
        disc: Disc {
            anterior_mm: front * disc_scale,
            middle_mm: m.disc_middle_mm[i] * disc_scale,
            posterior_mm: back * disc_scale,
            pfirrmann: 1,
            bulge_mm: 0.4,
            herniation: None,
            has_vacuum: false,
            has_fissure: false,
        },
        facets: [0, 1].map(|_| Facet {
            grade: 0,
            width_mm: d.normal(2.4, 0.3),
            fluid_mm: d.uniform(0.2, 0.8),
            hypertrophy_mm: 0.0,
        }),
        marrow_fat: 0.0,
        marrow_hu: 0.0,
    }
}

/// What the years did to one level: discs dry and sink, rims grow spurs, joints thicken.
fn age_level(level: &mut Level, region: Region, age: f64, wear: f64, d: &mut Dice) {
    // The two lowest mobile discs of each region wear first.
    let place = match (region, level.name.as_str()) {
        (Region::Lumbar, "L4" | "L5") | (Region::Cervical, "C5" | "C6") => 1.0,
        (Region::Lumbar, "L3") | (Region::Cervical, "C4") => 0.7,
        (Region::Lumbar, "S1" | "S2" | "S3" | "S4") => 0.0,
        _ => 0.45,
    };
    let strength = (wear * place * ((age - 22.0) / 45.0).max(0.0) + d.normal(0.0, 0.22)).max(0.0);
    level.disc.pfirrmann = match strength {
        s if s < 0.12 => 1,
        s if s < 0.42 => 2,
        s if s < 0.75 => 3,
        s if s < 1.15 => 4,
        _ => 5,
    };
    let sink = match level.disc.pfirrmann {
        1 | 2 => 1.0,
        3 => 0.95,
        4 => 0.82,
        _ => 0.55,
    };
    let disc = &mut level.disc;
    disc.anterior_mm *= sink;
    disc.middle_mm *= sink;
    disc.posterior_mm *= sink;
    let grade = f64::from(disc.pfirrmann);
    disc.bulge_mm = (0.2 + 0.45 * (grade - 1.5).max(0.0) + d.normal(0.0, 0.3)).max(0.0);
    disc.has_vacuum = disc.pfirrmann == 5 && d.chance(0.35);
    disc.has_fissure = (3..=4).contains(&disc.pfirrmann) && d.chance(0.3);
    level.osteophyte_mm = (1.1 * (strength - 0.5) + d.normal(0.0, 0.3)).clamp(0.0, 3.0);
    for f in &mut level.facets {
        let s = strength + d.normal(0.0, 0.2);
        f.grade = match s {
            s if s < 0.6 => 0,
            s if s < 0.95 => 1,
            s if s < 1.35 => 2,
            _ => 3,
        };
        set_facet(f, f.grade, d);
    }
    level.flavum_mm += (0.7 * (strength - 0.6)).clamp(0.0, 1.5);
}

/// Joint space, fluid and growth of a grade (Weishaupt: narrowing, osteophytes, erosion).
pub(super) fn set_facet(f: &mut Facet, grade: u8, d: &mut Dice) {
    f.grade = grade;
    (f.width_mm, f.hypertrophy_mm) = match grade {
        0 => (d.uniform(2.0, 3.4), 0.0),
        1 => (d.uniform(1.4, 2.0), d.uniform(0.3, 1.0)),
        2 => (d.uniform(0.9, 1.4), d.uniform(1.0, 2.4)),
        _ => (d.uniform(0.5, 0.9), d.uniform(2.2, 4.0)),
    };
    f.fluid_mm = if grade >= 2 && d.chance(0.4) {
        d.uniform(0.8, 2.2)
    } else {
        (0.3 * f.width_mm).min(0.9)
    };
}
