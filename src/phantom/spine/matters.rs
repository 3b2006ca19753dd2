//! What the parts of one patient are made of: the tissues of `parameters.toml`, drawn, and the few that differ from level
//! to level.

use super::draw::{Dice, Draft};
use crate::phantom::parameters::{Parameters, TissueRow};
use crate::phantom::{Material, Tissue};

/// A material before a field strength is chosen.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stuff {
    pub(super) tissue: Tissue,
    pub(super) pd: f32,
    pub(super) fat: f32,
    /// T1 of water at 1.5 and 3 T, ms.
    pub(super) t1_ms: [f32; 2],
    pub(super) t2_ms: f32,
    pub(super) t2star_ms: f32,
    pub(super) hu: f32,
}

impl Stuff {
    /// Relaxation at a field strength: T1 follows a power of the field through its two values.
    pub(super) fn at(&self, field_strength_t: f64) -> Material {
        let exponent = (self.t1_ms[1] / self.t1_ms[0]).log2();
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let ratio = (field_strength_t / 1.5) as f32;
        Material {
            tissue: self.tissue,
            pd: self.pd,
            fat_fraction: self.fat,
            water_t1_ms: self.t1_ms[0] * ratio.powf(exponent),
            water_t2_ms: self.t2_ms,
            water_t2star_ms: self.t2star_ms,
            hu: self.hu,
        }
    }
}

/// The fat of one patient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FatPool {
    /// T1, ms.
    pub t1_ms: f32,
    /// Apparent T2 in echo trains, ms.
    pub t2_ms: f32,
}

/// Materials by index; the index is [`crate::phantom::Voxel::material`].
#[derive(Clone, Debug)]
pub(super) struct Matters {
    pub(super) all: Vec<Stuff>,
    /// First index of each tissue; air where the file has none.
    by_tissue: [u8; Tissue::Metal as usize + 1],
    /// Nucleus, inner and outer annulus of each disc.
    pub(super) disc: Vec<[u8; 3]>,
    /// Fat at 1.5 and 3 T.
    pub(super) fat_t1_ms: [f32; 2],
    pub(super) fat_t2_ms: f32,
}

impl Matters {
    pub(super) fn draw(p: &Parameters, draft: &Draft) -> Self {
        let mut m = Self {
            all: Vec::new(),
            by_tissue: [0; Tissue::Metal as usize + 1],
            disc: Vec::new(),
            fat_t1_ms: [0.0; 2],
            fat_t2_ms: 0.0,
        };
        let mut rows: Vec<_> = p.tissue.iter().collect();
        rows.sort_by_key(|(t, _)| **t);
        for (&tissue, row) in rows {
            let mut d = Dice::new(draft.seed, &format!("tissue {tissue:?}"));
            let stuff = draw_row(p, tissue, row, draft, &mut d);
            let index = m.push(stuff);
            m.by_tissue[tissue as usize] = index;
        }
        let mut d = Dice::new(draft.seed, "fat pool");
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let f = |v: f64| v as f32;
        // One draw moves both fields, within the range of each.
        let x = d.normal(0.0, 0.4).clamp(-1.0, 1.0);
        m.fat_t1_ms = [0, 1].map(|i| {
            let (mid, [low, high]) = (p.fat_pool.t1_ms[i], p.fat_pool.t1_range_ms[i]);
            f(mid + x * if x < 0.0 { mid - low } else { high - mid })
        });
        m.fat_t2_ms = f(d
            .normal(p.fat_pool.t2_ms, 14.0)
            .clamp(p.fat_pool.t2_range_ms[0], p.fat_pool.t2_range_ms[1]));

        for (i, level) in draft.levels.iter().enumerate() {
            let mut d = Dice::new(draft.seed, &format!("disc matter {i}"));
            let tissue = match level.disc.pfirrmann {
                1 | 2 => Tissue::NucleusHealthy,
                3 => Tissue::NucleusIntermediate,
                _ => Tissue::NucleusDegenerate,
            };
            let mut nucleus = m.all[usize::from(m.of(tissue))].clone();
            let spread = f(1.0 + d.normal(0.0, 0.06));
            nucleus.t2_ms *= spread
                * match level.disc.pfirrmann {
                    1 => 1.25,
                    5 => 0.88,
                    _ => 1.0,
                };
            let annulus = m.all[usize::from(m.of(Tissue::Annulus))].clone();
            let mut inner = nucleus.clone();
            inner.t2_ms = (nucleus.t2_ms * annulus.t2_ms).sqrt();
            inner.pd = 0.5 * (nucleus.pd + annulus.pd);
            inner.t1_ms = [0, 1].map(|k| 0.5 * (nucleus.t1_ms[k] + annulus.t1_ms[k]));
            let mut outer = annulus;
            outer.t2_ms *= if level.disc.pfirrmann >= 4 { 0.8 } else { 1.0 };
            let indices = [nucleus, inner, outer].map(|s| m.push(s));
            m.disc.push(indices);
        }
        m
    }

    /// A new material.
    pub(super) fn push(&mut self, stuff: Stuff) -> u8 {
        self.all.push(stuff);
        u8::try_from(self.all.len() - 1).unwrap_or(u8::MAX)
    }

    /// Index of a tissue's own material; air if the file has none (a test proves that it has).
    pub(super) fn of(&self, tissue: Tissue) -> u8 {
        self.by_tissue[tissue as usize]
    }
}

fn draw_row(p: &Parameters, tissue: Tissue, row: &TissueRow, draft: &Draft, d: &mut Dice) -> Stuff {
    #[allow(clippy::cast_possible_truncation)] // storage precision
    let f = |v: f64| v as f32;
    let is_reference = matches!(tissue, Tissue::Csf | Tissue::Air | Tissue::Metal);
    let mut vary = |mean: f64, rel: f64| mean * (1.0 + d.normal(0.0, rel));
    // CSF is the unit of proton density.
    let pd = if is_reference {
        row.pd
    } else {
        vary(row.pd, p.jitter.pd_rel).min(1.0)
    };
    let t1 = vary(1.0, p.jitter.t1_rel);
    let mut t2 = vary(row.t2_ms, row.t2_rel_sd.unwrap_or(p.jitter.t2_rel));
    if let Some([low, high]) = row.t2_range_ms {
        t2 = t2.clamp(low, high);
    }
    let star = vary(row.t2star_ms, p.jitter.t2_rel).min(t2);
    let fat = match tissue {
        // Of this patient: muscle and marrow are set where they are painted.
        Tissue::Muscle => draft.muscle_fat,
        _ => d.normal(row.fat, row.fat_sd).clamp(0.0, 0.98),
    };
    Stuff {
        tissue,
        pd: f(pd),
        fat: f(fat),
        t1_ms: row.t1_ms.map(|v| f(v * t1)),
        t2_ms: f(t2),
        t2star_ms: f(star),
        hu: f(d.normal(row.hu[0], row.hu[1])),
    }
}
