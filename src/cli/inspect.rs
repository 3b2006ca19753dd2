//! `cauda inspect`: what a file of k-space or of ISMRMRD images holds, and what is odd about it.

use std::path::PathBuf;

use super::recon::OpenArgs;
use super::{Outcome, output::Output};
use crate::data::Fault;
use crate::source::{self, OpenOptions, Range, SeriesSummary, Summary};

/// Arguments of `cauda inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// K-space file; its kind is found from its content
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    open: OpenArgs,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &Args, out: &Output) -> Result<Outcome, Fault> {
    let options = OpenOptions {
        images: true,
        ..args.open.options()
    };
    let mut opened = source::open(&args.file, &options)?;
    let summary = opened.describe()?;
    out.text(&describe(&summary));
    out.notes(&summary.notes);
    out.json(&summary)?;
    Ok(Outcome::Done)
}

fn describe(s: &Summary) -> String {
    let mut lines = Vec::new();
    let mut line = |what: &str, text: String| {
        if !text.is_empty() {
            lines.push(format!("{what:<24}{text}"));
        }
    };
    let group = s
        .group
        .as_ref()
        .map_or_else(String::new, |g| format!(", group {g}"));
    line("kind", format!("{}{group}", s.kind_name));
    let mut system: Vec<String> = s.system.iter().flatten().cloned().collect();
    system.extend(s.field_strength_t.map(|t| format!("{t} T")));
    line("scanner", system.join(" "));
    line("protocol", s.protocol_name.clone().unwrap_or_default());
    line("position", s.patient_position.clone().unwrap_or_default());
    let times: Vec<String> = [
        ("TR", &s.tr_ms, "ms"),
        ("TE", &s.te_ms, "ms"),
        ("TI", &s.ti_ms, "ms"),
        ("flip", &s.flip_angle_deg, "deg"),
    ]
    .iter()
    .filter(|(_, values, _)| !values.is_empty())
    .map(|(name, values, unit)| format!("{name} {} {unit}", list(values)))
    .collect();
    line("sequence", times.join(", "));
    for (i, e) in s.encodings.iter().enumerate() {
        let mut text = format!(
            "{}, encoded {} ({} mm), recon {} ({} mm)",
            e.trajectory,
            by(&e.encoded_matrix),
            by(&e.encoded_fov_mm),
            by(&e.recon_matrix),
            by(&e.recon_fov_mm)
        );
        if let Some(c) = e.centre_line {
            text.push_str(&format!(", centre line {c}"));
        }
        if let Some(c) = e.centre_partition.filter(|_| e.encoded_matrix[2] > 1) {
            text.push_str(&format!(", centre partition {c}"));
        }
        if e.acceleration != [1, 1] {
            text.push_str(&format!(", acceleration {}", by(&e.acceleration)));
        }
        if let Some(mode) = &e.calibration_mode {
            text.push_str(&format!(", calibration {mode}"));
        }
        if let Some(etl) = e.echo_train_length {
            text.push_str(&format!(", echo train {etl}"));
        }
        line(&format!("encoding {i}"), text);
    }
    line("coils", range(s.coils));
    if s.readouts > 0 {
        line("readouts", s.readouts.to_string());
    }
    let p = &s.purposes;
    for (name, n) in [
        ("imaging", p.imaging),
        ("imaging + acs", p.calibration_and_imaging),
        ("acs only", p.calibration),
        ("noise", p.noise),
        ("phase corr.", p.phase_correction),
        ("navigation", p.navigation),
        ("aside", p.aside),
    ] {
        if n > 0 {
            line(&format!("  {name}"), n.to_string());
        }
    }
    line("samples", range(s.samples));
    line("dwell", with_unit(range(s.dwell_us), "us"));
    line("noise samples", range(s.noise_samples));
    line("noise dwell", with_unit(range(s.noise_dwell_us), "us"));
    for (name, r) in &s.counters {
        if r.max > 0 {
            line(&format!("  {name}"), range(Some(*r)));
        }
    }
    if s.reversed > 0 {
        line("reversed", s.reversed.to_string());
    }
    if s.with_trajectory > 0 {
        line("trajectories", s.with_trajectory.to_string());
    }
    if s.not_finite > 0 {
        line("NaN, infinite", s.not_finite.to_string());
    }
    if !s.silent_coils.is_empty() {
        line("silent coils", list(&s.silent_coils));
    }
    if s.waveforms > 0 {
        line("waveforms", s.waveforms.to_string());
    }
    for series in &s.images {
        line(&format!("images {}", series.name), describe_series(series));
    }
    for series in &s.arrays {
        line(&format!("arrays {}", series.name), describe_series(series));
    }
    if let Some(noise) = &s.noise {
        line("noise from", noise.from.clone());
    }
    if !s.missing.is_empty() {
        line("missing", s.missing.join(", "));
    }
    lines.join("\n")
}

fn describe_series(s: &SeriesSummary) -> String {
    let mut text = format!("{} of {}, {}", s.count, by(&s.shape), s.values);
    if let Some(kind) = s.image_type {
        text.push_str(&format!(" (channel x z x y x x), {kind}"));
    }
    if s.with_attributes > 0 {
        text.push_str(&format!(", {} with meta attributes", s.with_attributes));
    }
    text
}

fn list<T: std::fmt::Display>(values: &[T]) -> String {
    values
        .iter()
        .map(T::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

fn by<T: std::fmt::Display>(values: &[T]) -> String {
    values
        .iter()
        .map(T::to_string)
        .collect::<Vec<_>>()
        .join("x")
}

fn range<T: std::fmt::Display + PartialEq>(r: Option<Range<T>>) -> String {
    match r {
        None => String::new(),
        Some(r) if r.min == r.max => r.min.to_string(),
        Some(r) => format!("{} to {}", r.min, r.max),
    }
}

fn with_unit(text: String, unit: &str) -> String {
    if text.is_empty() {
        text
    } else {
        format!("{text} {unit}")
    }
}
