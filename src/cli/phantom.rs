//! `cauda phantom view | truth | findings`: look at a digital patient before it is scanned.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{Outcome, output::Output};
use crate::data::{Fault, FaultKind};
use crate::phantom::spine::{Pathology, PathologyKind, Patient, Request};
use crate::phantom::view::{self, Show};
use crate::sequence::Region;

/// Arguments of `cauda phantom`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Draws a sheet: T1w, T2w, STIR, T2FS, CT and labels in six planes
    View {
        #[command(flatten)]
        who: Who,
        /// Output, PNG
        #[arg(short, long, value_name = "PNG")]
        output: PathBuf,
        /// Field strength, T
        #[arg(long, value_name = "T", default_value_t = 3.0)]
        field: f64,
        /// Pixels of a picture along each side
        #[arg(long, value_name = "N", default_value_t = 320, value_parser = clap::value_parser!(u16).range(32..=2048))]
        pixels: u16,
        /// Replace an output that exists
        #[arg(short, long)]
        force: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Prints the truth: measurements and grades of every level, findings
    Truth {
        #[command(flatten)]
        who: Who,
        /// Print JSON, with every drawn number
        #[arg(long)]
        json: bool,
    },
    /// Lists the findings that can be asked for
    Findings {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which patient.
#[derive(Debug, Clone, clap::Args)]
pub struct Who {
    /// Part of the spine: lumbar, cervical
    #[arg(long, value_name = "REGION", default_value = "lumbar", value_parser = region)]
    region: Region,
    /// Seed: the same seed is the same patient
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Years; drawn from the seed if not given
    #[arg(long, value_name = "YEARS", value_parser = clap::value_parser!(u8).range(20..=90))]
    age: Option<u8>,
    /// A finding, kind[:severity][@level][-left|-right], for example central_stenosis:severe@L4/5;
    /// "random" draws some; may be given several times
    #[arg(long, value_name = "FINDING")]
    pathology: Vec<String>,
}

fn region(text: &str) -> Result<Region, String> {
    match text {
        "lumbar" => Ok(Region::Lumbar),
        "cervical" => Ok(Region::Cervical),
        _ => Err("needed lumbar or cervical".to_owned()),
    }
}

/// Findings as typed; "random" draws some.
///
/// # Errors
/// A finding that does not exist, with the nearest that does.
pub(super) fn findings(
    typed: &[String],
    region: Region,
    seed: u64,
) -> Result<Vec<Pathology>, Fault> {
    let mut out = Vec::new();
    for text in typed {
        if text == "random" {
            out.extend(Pathology::random(region, seed));
        } else {
            out.push(text.parse()?);
        }
    }
    Ok(out)
}

impl Who {
    fn patient(&self) -> Result<Patient, Fault> {
        Ok(Patient::draw(&Request {
            region: self.region,
            seed: self.seed,
            age_years: self.age.map(f64::from),
            pathology: findings(&self.pathology, self.region, self.seed)?,
            wear: None,
        })?)
    }
}

impl Args {
    pub(super) fn is_json(&self) -> bool {
        match self.action {
            Action::View { json, .. } | Action::Truth { json, .. } | Action::Findings { json } => {
                json
            }
        }
    }
}

pub(super) fn run(args: &Args, out: &Output) -> Result<Outcome, Fault> {
    match &args.action {
        Action::View {
            who,
            output,
            field,
            pixels,
            force,
            ..
        } => {
            if !force && output.exists() {
                return Err(Fault::new(
                    FaultKind::Protocol,
                    "cli",
                    format!(
                        "the output exists; --force replaces it: {}",
                        output.display()
                    ),
                ));
            }
            sheet(&who.patient()?, output, *field, usize::from(*pixels), out)
        }
        Action::Truth { who, .. } => truth(&who.patient()?, out),
        Action::Findings { .. } => {
            let names: Vec<&str> = PathologyKind::ALL.iter().map(|k| k.name()).collect();
            out.text(&names.join("\n"));
            out.json(&names)?;
            Ok(Outcome::Done)
        }
    }
}

/// Rows of what is shown, columns of planes.
fn sheet(
    patient: &Patient,
    path: &Path,
    field: f64,
    n: usize,
    out: &Output,
) -> Result<Outcome, Fault> {
    let planes = view::planes(patient);
    let (width, height) = (n * planes.len(), n * Show::ALL.len());
    let mut pixels = vec![0u8; 3 * width * height];
    for (column, plane) in planes.iter().enumerate() {
        let pictures = view::pictures(patient, plane, n, field, &Show::ALL)?;
        for (row, (show, picture)) in Show::ALL.iter().zip(&pictures).enumerate() {
            for (i, rgb) in view::colours(*show, picture).into_iter().enumerate() {
                let at = 3 * ((row * n + i / n) * width + column * n + i % n);
                pixels[at..at + 3].copy_from_slice(&rgb);
            }
        }
    }
    write_png(path, width, height, &pixels)?;
    out.text(&format!(
        "{} in {}: rows T1w, T2w, STIR, T2FS ({field} T, ideal, SIMULATED), CT, labels; columns {}",
        describe(patient),
        path.display(),
        planes.iter().map(|p| p.name).collect::<Vec<_>>().join(", ")
    ));
    out.json(&serde_json::json!({ "path": path, "planes": planes.iter().map(|p| p.name).collect::<Vec<_>>() }))?;
    Ok(Outcome::Done)
}

fn describe(patient: &Patient) -> String {
    let d = patient.draft();
    format!(
        "{} spine, seed {}, {:.0} years, {}",
        match d.region {
            Region::Lumbar => "lumbar",
            Region::Cervical => "cervical",
        },
        d.seed,
        d.age_years,
        if d.is_male { "male" } else { "female" }
    )
}

/// Writes an RGB picture, whole or not at all.
pub(super) fn write_png(
    path: &Path,
    width: usize,
    height: usize,
    pixels: &[u8],
) -> Result<(), Fault> {
    let bad = |e: png::EncodingError| {
        Fault::new(
            FaultKind::Io,
            "cli",
            format!("cannot write: {e}: {}", path.display()),
        )
    };
    let size = |v: usize| u32::try_from(v).unwrap_or(u32::MAX);
    let mut file = crate::source::beside(path)?;
    let mut encoder = png::Encoder::new(&mut file, size(width), size(height));
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(bad)?;
    writer.write_image_data(pixels).map_err(bad)?;
    writer.finish().map_err(bad)?;
    Ok(crate::source::persist(file, path)?)
}

fn truth(patient: &Patient, out: &Output) -> Result<Outcome, Fault> {
    let truth = patient.truth();
    out.text(&describe(patient));
    let rows: Vec<Vec<String>> = truth
        .levels
        .iter()
        .map(|l| {
            let (m, g) = (&l.measurements, &l.grades);
            let many = |v: &[f64]| {
                v.iter()
                    .map(|x| format!("{x:.1}"))
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            vec![
                l.name.clone(),
                many(&m.body_height_mm),
                many(&m.disc_height_mm),
                format!("{:.1}", m.canal_ap_mm),
                format!("{:.0}", m.dural_sac_area_mm2),
                many(&m.foramen_height_mm),
                many(&m.foramen_width_mm),
                format!("{:.0}", m.segmental_lordosis_deg),
                format!("{}", g.pfirrmann),
                format!("{}", g.central_stenosis),
                format!("{} {}", g.foramen[0], g.foramen[1]),
                format!("{} {}", g.facet[0], g.facet[1]),
                format!("{}", g.modic),
            ]
        })
        .collect();
    out.text(&super::output::table(
        &[
            "level",
            "body mm",
            "disc mm",
            "canal",
            "sac mm2",
            "foramen h",
            "foramen w",
            "lordosis",
            "pfirrmann",
            "central",
            "foramen",
            "facet",
            "modic",
        ],
        &rows,
    ));
    for l in &truth.lesions {
        out.text(&format!(
            "{} at {}, severity {}{}",
            l.name,
            l.level,
            l.severity,
            l.side
                .map_or_else(String::new, |s| format!(", {s:?}").to_lowercase())
        ));
    }
    out.json(&truth)?;
    Ok(Outcome::Done)
}
