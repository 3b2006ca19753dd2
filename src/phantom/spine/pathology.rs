//! Deliberate findings: their names, where they may be, and what they do to a patient's numbers.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::draw::{Dice, Draft, Herniation, set_facet};
use crate::phantom::PhantomError;
use crate::sequence::Region;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Disc that stands out all around.
    DiscBulge,
    /// Herniation with a broad base.
    Protrusion,
    /// Herniation that left the disc.
    Extrusion,
    /// Narrow canal: flavum, facets, disc.
    CentralStenosis,
    /// Narrow passage of the root beside the sac.
    LateralRecessStenosis,
    /// Narrow foramen.
    ForaminalStenosis,
    /// Worn facet joints.
    FacetArthropathy,
    /// Oedema at the endplates of a disc.
    Modic1,
    /// Fatty endplates.
    Modic2,
    /// Sclerotic endplates.
    Modic3,
    /// Types 1 and 2 beside each other.
    ModicMixed,
    /// Osteoporotic fracture, acute.
    FractureOsteoporotic,
    /// Traumatic fracture, acute.
    FractureTraumatic,
    /// Fracture of a vertebra full of tumour.
    FractureMalignant,
    /// Lytic metastasis.
    MetastasisLytic,
    /// Blastic metastasis.
    MetastasisBlastic,
    /// Haemangioma, typical.
    Haemangioma,
    /// Haemangioma, little fat.
    HaemangiomaAtypical,
    /// Infection of a disc and its vertebrae.
    Spondylodiscitis,
    /// Lesion of the cord.
    CordLesion,
    /// Screws and rods.
    Metal,
    /// Bend to the side.
    Scoliosis,
    /// Transitional lumbosacral vertebra.
    Transitional,
    /// Slipped vertebra.
    Spondylolisthesis,
}

impl Kind {
    /// Every kind, for lists.
    pub const ALL: [Self; 24] = {
        use Kind::*;
        [
            DiscBulge,
            Protrusion,
            Extrusion,
            CentralStenosis,
            LateralRecessStenosis,
            ForaminalStenosis,
            FacetArthropathy,
            Modic1,
            Modic2,
            Modic3,
            ModicMixed,
            FractureOsteoporotic,
            FractureTraumatic,
            FractureMalignant,
            MetastasisLytic,
            MetastasisBlastic,
            Haemangioma,
            HaemangiomaAtypical,
            Spondylodiscitis,
            CordLesion,
            Metal,
            Scoliosis,
            Transitional,
            Spondylolisthesis,
        ]
    };

    /// Its name as typed.
    pub fn name(self) -> &'static str {
        use Kind::*;
        match self {
            DiscBulge => "disc_bulge",
            Protrusion => "protrusion",
            Extrusion => "extrusion",
            CentralStenosis => "central_stenosis",
            LateralRecessStenosis => "lateral_recess_stenosis",
            ForaminalStenosis => "foraminal_stenosis",
            FacetArthropathy => "facet_arthropathy",
            Modic1 => "modic1",
            Modic2 => "modic2",
            Modic3 => "modic3",
            ModicMixed => "modic_mixed",
            FractureOsteoporotic => "fracture_osteoporotic",
            FractureTraumatic => "fracture_traumatic",
            FractureMalignant => "fracture_malignant",
            MetastasisLytic => "metastasis_lytic",
            MetastasisBlastic => "metastasis_blastic",
            Haemangioma => "haemangioma",
            HaemangiomaAtypical => "haemangioma_atypical",
            Spondylodiscitis => "spondylodiscitis",
            CordLesion => "cord_lesion",
            Metal => "metal",
            Scoliosis => "scoliosis",
            Transitional => "transitional",
            Spondylolisthesis => "spondylolisthesis",
        }
    }
}

/// Side of the patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The patient's right.
    Right,
    /// The patient's left.
    Left,
}

impl Side {
    pub(super) fn index(self) -> usize {
        match self {
            Self::Right => 0,
            Self::Left => 1,
        }
    }

    pub(super) fn sign(self) -> f64 {
        match self {
            Self::Right => -1.0,
            Self::Left => 1.0,
        }
    }
}

/// One finding as asked for: `kind[:severity][@level][-left|-right]`, for example `central_stenosis:3@L4/5`,
/// `protrusion@L5-left`, `modic1`. What is not said is drawn from the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pathology {
    /// What.
    pub kind: Kind,
    /// 1 mild, 2 moderate, 3 severe.
    pub severity: Option<u8>,
    /// Name of the vertebra, of a disc the one above it; kept as text of at most three letters.
    pub level: Option<LevelName>,
    /// Side, where it has one.
    pub side: Option<Side>,
}

/// `L4`, `T12`, `C7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelName([u8; 3]);

impl LevelName {
    /// The name as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.0)
            .unwrap_or("")
            .trim_end_matches('\0')
    }

    fn new(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        (!bytes.is_empty() && bytes.len() <= 3 && text.is_ascii()).then(|| {
            let mut out = [0u8; 3];
            out[..bytes.len()].copy_from_slice(bytes);
            Self(out)
        })
    }
}

impl FromStr for Pathology {
    type Err = PhantomError;

    fn from_str(text: &str) -> Result<Self, PhantomError> {
        let bad = |needed: &'static str| PhantomError {
            key: "pathology",
            found: text.to_owned(),
            needed,
        };
        let (rest, side) = match text.rsplit_once('-') {
            Some((rest, "left")) => (rest, Some(Side::Left)),
            Some((rest, "right")) => (rest, Some(Side::Right)),
            Some(_) => {
                return Err(bad(
                    "a side that is left or right: kind[:severity][@level][-left|-right]",
                ));
            }
            None => (text, None),
        };
        let (rest, level) = match rest.split_once('@') {
            Some((rest, level)) => {
                let upper = level.split('/').next().unwrap_or("").to_ascii_uppercase();
                let name =
                    LevelName::new(&upper).ok_or_else(|| bad("a level such as L4, L4/5 or C6"))?;
                (rest, Some(name))
            }
            None => (rest, None),
        };
        let (name, severity) = match rest.split_once(':') {
            Some((name, s)) => {
                let s = match s {
                    "1" | "mild" => 1,
                    "2" | "moderate" => 2,
                    "3" | "severe" => 3,
                    _ => return Err(bad("a severity of 1 to 3, mild, moderate or severe")),
                };
                (name, Some(s))
            }
            None => (rest, None),
        };
        let kind = Kind::ALL
            .into_iter()
            .find(|k| k.name() == name)
            .ok_or_else(|| {
                let near = Kind::ALL
                    .into_iter()
                    .min_by_key(|k| distance(k.name(), name))
                    .map_or("", Kind::name);
                PhantomError {
                    key: "pathology",
                    found: format!(
                        "{name}, which is nearest to {near}; there are {}",
                        Kind::ALL.map(Kind::name).join(", ")
                    ),
                    needed: "a finding that there is, as kind[:severity][@level][-left|-right]",
                }
            })?;
        Ok(Self {
            kind,
            severity,
            level,
            side,
        })
    }
}

/// Levenshtein distance, for "nearest".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        for (j, cb) in b.iter().enumerate() {
            let next = (diagonal + usize::from(ca != *cb))
                .min(row[j + 1] + 1)
                .min(left + 1);
            diagonal = row[j + 1];
            row[j] = left;
            left = next;
        }
        row[b.len()] = left;
    }
    row[b.len()]
}

impl Pathology {
    /// What a clinic's next patient might have: none to four findings.
    pub fn random(region: Region, seed: u64) -> Vec<Self> {
        let mut d = Dice::new(seed, "findings");
        let n = [0, 1, 1, 1, 2, 2, 2, 3, 3, 4][d.index(10)];
        let table: &[Kind] = match region {
            Region::Lumbar => {
                use Kind::*;
                &[
                    DiscBulge,
                    Protrusion,
                    Protrusion,
                    Extrusion,
                    CentralStenosis,
                    CentralStenosis,
                    LateralRecessStenosis,
                    ForaminalStenosis,
                    FacetArthropathy,
                    Modic1,
                    Modic1,
                    Modic2,
                    Modic2,
                    Modic3,
                    ModicMixed,
                    FractureOsteoporotic,
                    FractureOsteoporotic,
                    FractureTraumatic,
                    FractureMalignant,
                    MetastasisLytic,
                    MetastasisLytic,
                    MetastasisBlastic,
                    Haemangioma,
                    Haemangioma,
                    HaemangiomaAtypical,
                    Spondylodiscitis,
                    Spondylolisthesis,
                    Scoliosis,
                    Transitional,
                    Metal,
                ]
            }
            Region::Cervical => {
                use Kind::*;
                &[
                    DiscBulge,
                    Protrusion,
                    Protrusion,
                    Extrusion,
                    CentralStenosis,
                    CentralStenosis,
                    ForaminalStenosis,
                    FacetArthropathy,
                    Modic1,
                    Modic2,
                    FractureTraumatic,
                    MetastasisLytic,
                    MetastasisBlastic,
                    Haemangioma,
                    Spondylodiscitis,
                    CordLesion,
                    CordLesion,
                    Spondylolisthesis,
                ]
            }
        };
        (0..n)
            .map(|_| Self {
                kind: table[d.index(table.len())],
                severity: None,
                level: None,
                side: None,
            })
            .collect()
    }
}

/// A finding with everything decided.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    pub(super) kind: Kind,
    pub(super) level: usize,
    pub(super) severity: u8,
    pub(super) side: Option<Side>,
    pub(super) dice: Dice,
}

impl PartialEq for Dice {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Decides what was left open and changes the patient's numbers.
pub(super) fn apply(draft: &mut Draft, asked: &[Pathology]) -> Result<Vec<Placed>, PhantomError> {
    let mut placed = Vec::new();
    let mut taken: Vec<(usize, bool)> = Vec::new();
    for (k, ask) in asked.iter().enumerate() {
        let mut dice = Dice::new(draft.seed, &format!("finding {k} {}", ask.kind.name()));
        let severity = ask.severity.unwrap_or_else(|| [1, 2, 2, 3][dice.index(4)]);
        let side = ask.side.or_else(|| match ask.kind {
            Kind::Protrusion | Kind::Extrusion => match dice.index(3) {
                0 => Some(Side::Left),
                1 => Some(Side::Right),
                _ => None,
            },
            Kind::ForaminalStenosis | Kind::LateralRecessStenosis => Some(if dice.chance(0.5) {
                Side::Left
            } else {
                Side::Right
            }),
            _ => None,
        });
        let allowed = levels_of(draft, ask.kind);
        let level = match &ask.level {
            Some(name) => {
                let found = draft.levels.iter().position(|l| l.name == name.text());
                match found {
                    Some(i) if allowed.contains(&i) => i,
                    _ => {
                        // In the spine's order; what is likelier stands there more than once.
                        let names: Vec<&str> = (draft.levels.iter().enumerate())
                            .filter(|(i, _)| allowed.contains(i))
                            .map(|(_, l)| l.name.as_str())
                            .collect();
                        return Err(PhantomError {
                            key: "pathology",
                            found: format!(
                                "{}@{}; it can be at {}",
                                ask.kind.name(),
                                name.text(),
                                if names.is_empty() {
                                    "no level of this region".to_owned()
                                } else {
                                    names.join(", ")
                                }
                            ),
                            needed: "a level of the region that can have it",
                        });
                    }
                }
            }
            None if allowed.is_empty() => {
                return Err(PhantomError {
                    key: "pathology",
                    found: format!(
                        "{}, which no level of this region can have",
                        ask.kind.name()
                    ),
                    needed: "a finding of the region",
                });
            }
            None => {
                // Two findings of one sort in one place would hide each other.
                let of_body = is_of_body(ask.kind);
                let free: Vec<usize> = allowed
                    .iter()
                    .copied()
                    .filter(|&i| !taken.contains(&(i, of_body)))
                    .collect();
                let from = if free.is_empty() { &allowed } else { &free };
                from[dice.index(from.len())]
            }
        };
        taken.push((level, is_of_body(ask.kind)));
        change(draft, ask.kind, level, severity, side, &mut dice);
        placed.push(Placed {
            kind: ask.kind,
            level,
            severity,
            side,
            dice,
        });
    }
    Ok(placed)
}

fn is_of_body(kind: Kind) -> bool {
    use Kind::*;
    matches!(
        kind,
        FractureOsteoporotic
            | FractureTraumatic
            | FractureMalignant
            | MetastasisLytic
            | MetastasisBlastic
            | Haemangioma
            | HaemangiomaAtypical
    )
}

/// Levels that can have a finding; the usual ones several times over.
fn levels_of(draft: &Draft, kind: Kind) -> Vec<usize> {
    let at = |names: &[&str]| -> Vec<usize> {
        names
            .iter()
            .filter_map(|n| draft.levels.iter().position(|l| l.name == *n))
            .collect()
    };
    let is_lumbar = draft.region == Region::Lumbar;
    match kind {
        Kind::Transitional | Kind::Metal if !is_lumbar => Vec::new(),
        Kind::Transitional => at(&["L5"]),
        Kind::Scoliosis => at(if is_lumbar { &["L2"] } else { &["T2"] }),
        Kind::CordLesion if is_lumbar => at(&["T10", "T11", "T12"]),
        Kind::CordLesion => at(&["C2", "C3", "C4", "C5", "C6", "C7"]),
        Kind::LateralRecessStenosis if !is_lumbar => Vec::new(),
        Kind::Metal => at(&["L4", "L3", "L5"]),
        Kind::Spondylolisthesis => at(if is_lumbar {
            &["L4", "L5", "L3"]
        } else {
            &["C4", "C3", "C5"]
        }),
        k if is_of_body(k) && is_lumbar => at(&["L1", "L2", "L3", "L4", "L5", "T12", "T11"]),
        k if is_of_body(k) => at(&["C3", "C4", "C5", "C6", "C7", "T1", "T2"]),
        _ if is_lumbar => at(&["L4", "L5", "L4", "L5", "L3", "L2", "L1"]),
        _ => at(&["C5", "C6", "C5", "C4", "C3"]),
    }
}

fn change(draft: &mut Draft, kind: Kind, i: usize, severity: u8, side: Option<Side>, d: &mut Dice) {
    let s = f64::from(severity);
    // Sizes below are for the lumbar spine.
    let k = if draft.region == Region::Lumbar {
        1.0
    } else {
        0.5
    };
    let sides: Vec<usize> = side.map_or_else(|| vec![0, 1], |s| vec![s.index()]);
    let worn = |grade: u8, level: &mut super::Level| {
        let disc = &mut level.disc;
        let old = disc.pfirrmann;
        disc.pfirrmann = old.max(grade);
        if disc.pfirrmann > old {
            let sink = [1.0, 1.0, 1.0, 0.95, 0.82, 0.55];
            let r = sink[usize::from(disc.pfirrmann)] / sink[usize::from(old)];
            disc.anterior_mm *= r;
            disc.middle_mm *= r;
            disc.posterior_mm *= r;
        }
    };
    if kind == Kind::Scoliosis {
        let sign = if d.chance(0.5) { 1.0 } else { -1.0 };
        draft.cobb_deg = sign * (8.0 + 8.0 * s + d.uniform(0.0, 5.0));
        return;
    }
    let level = &mut draft.levels[i];
    match kind {
        Kind::DiscBulge => {
            worn(3, level);
            level.disc.bulge_mm = k * (1.2 + 1.0 * s + d.uniform(0.0, 0.6));
        }
        Kind::Protrusion => {
            worn(3, level);
            level.disc.herniation = Some(Herniation {
                is_extrusion: false,
                direction_deg: aim(side, d, [18.0, 38.0]),
                depth_mm: k * (1.8 + 1.3 * s + d.uniform(0.0, 0.7)),
                half_width_mm: k * d.uniform(6.0, 9.0),
                migration_mm: 0.0,
            });
        }
        Kind::Extrusion => {
            worn(4, level);
            level.disc.herniation = Some(Herniation {
                is_extrusion: true,
                direction_deg: aim(side, d, [14.0, 30.0]),
                depth_mm: k * (4.0 + 1.5 * s + d.uniform(0.0, 1.0)),
                half_width_mm: k * d.uniform(4.5, 7.0),
                migration_mm: k * d.uniform(2.0, 8.0) * if d.chance(0.4) { 1.0 } else { -1.0 },
            });
        }
        Kind::CentralStenosis => {
            worn(3, level);
            level.canal_ap_mm *= 1.0 - 0.045 * s;
            level.flavum_mm = level.flavum_mm.max(if k < 1.0 {
                1.9 + 0.5 * s
            } else {
                3.2 + 0.95 * s
            });
            level.disc.bulge_mm = level.disc.bulge_mm.max(k * (0.8 + 1.0 * s));
            let grade = 1 + u8::from(severity > 1);
            for f in &mut level.facets {
                set_facet(f, grade, d);
                f.hypertrophy_mm += 0.5 * s * k;
            }
        }
        Kind::LateralRecessStenosis => {
            worn(3, level);
            for &x in &sides {
                set_facet(&mut level.facets[x], 2, d);
                level.facets[x].hypertrophy_mm = 1.0 + 0.9 * s;
            }
            level.disc.herniation = Some(Herniation {
                is_extrusion: false,
                direction_deg: side.map_or(0.0, Side::sign) * d.uniform(40.0, 50.0),
                depth_mm: 1.0 + 0.8 * s,
                half_width_mm: d.uniform(5.0, 7.0),
                migration_mm: 0.0,
            });
        }
        Kind::ForaminalStenosis => {
            worn(4, level);
            let sink = 1.0 - 0.10 * s;
            level.disc.anterior_mm *= sink;
            level.disc.middle_mm *= sink;
            level.disc.posterior_mm *= sink * sink;
            level.osteophyte_mm = level.osteophyte_mm.max(k * (1.0 + 0.7 * s));
            for &x in &sides {
                set_facet(&mut level.facets[x], 2, d);
                level.facets[x].hypertrophy_mm += 0.5 * s * k;
            }
            level.disc.herniation = Some(Herniation {
                is_extrusion: false,
                direction_deg: side.map_or(0.0, Side::sign) * d.uniform(62.0, 78.0),
                depth_mm: k * (1.4 + 1.1 * s),
                half_width_mm: k * d.uniform(7.0, 9.0),
                migration_mm: 0.0,
            });
        }
        Kind::FacetArthropathy => {
            for &x in &sides {
                set_facet(&mut level.facets[x], severity, d);
                if k < 1.0 {
                    level.facets[x].hypertrophy_mm *= k;
                }
            }
        }
        Kind::Modic1 | Kind::Modic2 | Kind::Modic3 | Kind::ModicMixed => {
            worn(3 + u8::from(severity > 1), level)
        }
        Kind::FractureOsteoporotic | Kind::FractureMalignant | Kind::FractureTraumatic => {
            // Genant: 20, 25, 40 % of height lost.
            let loss =
                [0.0, 0.22, 0.32, 0.46][usize::from(severity.min(3))] + d.uniform(-0.015, 0.03);
            let is_wedge = kind == Kind::FractureTraumatic || d.chance(0.6);
            level.anterior_mm *= 1.0 - if is_wedge { loss } else { 0.45 * loss };
            level.posterior_mm *= 1.0
                - loss
                    * if kind == Kind::FractureMalignant {
                        0.45
                    } else {
                        0.12
                    };
            // A sunken upper plate: the loss in the middle.
            let middle = level.anterior_mm.min(level.posterior_mm);
            level.concavity_mm[0] += (if is_wedge { 0.10 } else { 0.28 }) * loss.max(0.2) * middle;
            if kind == Kind::FractureOsteoporotic {
                level.marrow_hu = level.marrow_hu.min(d.uniform(45.0, 110.0));
            }
        }
        Kind::Spondylodiscitis => {
            level.disc.anterior_mm *= 0.8;
            level.disc.middle_mm *= 0.75;
            level.disc.posterior_mm *= 0.8;
            level.disc.bulge_mm += 1.0 * k;
        }
        Kind::Transitional => {
            // Sacralisation: broad processes that reach the wing, and a small disc.
            level.transverse_mm = 56.0;
            for h in [
                &mut level.disc.anterior_mm,
                &mut level.disc.middle_mm,
                &mut level.disc.posterior_mm,
            ] {
                *h *= 0.42;
            }
            level.disc.pfirrmann = 2;
        }
        Kind::Spondylolisthesis => {
            worn(4, level);
            level.slip_mm = k * (2.0 + 2.4 * s + d.uniform(0.0, 1.0));
            for f in &mut level.facets {
                set_facet(f, 2, d);
            }
        }
        _ => {}
    }
}

/// Direction of a herniation: towards its side, or nearly straight back.
fn aim(side: Option<Side>, d: &mut Dice, [low, high]: [f64; 2]) -> f64 {
    match side {
        Some(side) => side.sign() * d.uniform(low, high),
        None => d.uniform(-8.0, 8.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_read_as_typed() {
        let p: Pathology = "central_stenosis:severe@L4/5".parse().unwrap();
        assert_eq!((p.kind, p.severity), (Kind::CentralStenosis, Some(3)));
        assert_eq!(p.level.unwrap().text(), "L4");
        let p: Pathology = "protrusion@l5-left".parse().unwrap();
        assert_eq!((p.level.unwrap().text(), p.side), ("L5", Some(Side::Left)));
        for k in Kind::ALL {
            assert_eq!(k.name().parse::<Pathology>().unwrap().kind, k);
        }
        let e = "modicc1".parse::<Pathology>().unwrap_err();
        assert!(e.to_string().contains("nearest to modic1"), "{e}");
        for wrong in ["modic1:9", "modic1@", "modic1@LONG", "modic1-up", ""] {
            assert!(wrong.parse::<Pathology>().is_err(), "{wrong}");
        }
    }
}
