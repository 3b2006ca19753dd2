//! `cauda simulate`: a scan without a scanner, with known truth: for commissioning and tests.

use std::path::PathBuf;

use super::{Outcome, output::Output};
use crate::data::{Fault, FaultKind};
use crate::phantom::{Simulate, simulate};
use crate::protocol::{overlay, schema};

/// Arguments of `cauda simulate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Output, ISMRMRD HDF5
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// A scan by name: small, bench, tse, caipi, random
    #[arg(long, value_name = "NAME", default_value = "small")]
    preset: String,
    /// Change one parameter, for example n_coils=16 or acceleration=[4,1]
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Replace an output that exists
    #[arg(short, long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &Args, out: &Output) -> Result<Outcome, Fault> {
    let wrong = |message: String| Fault::new(FaultKind::Protocol, "phantom", message);
    let preset = Simulate::preset(&args.preset).ok_or_else(|| {
        wrong(format!(
            "no preset is named {:?}; there are: {}",
            args.preset,
            Simulate::PRESETS.join(", ")
        ))
    })?;
    let mut table = toml::Table::try_from(&preset)
        .map_err(|e| wrong(format!("preset {}: {e}", args.preset)))?;
    for text in &args.set {
        overlay::apply(&mut table, text)?;
    }
    let sim: Simulate =
        serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|e| {
            let (key, words) = schema::sharpen(&e.path().to_string(), &e.inner().to_string());
            wrong(format!("{key}: {words}"))
        })?;
    if !args.force && args.output.exists() {
        return Err(wrong(format!(
            "the output exists; --force replaces it: {}",
            args.output.display()
        )));
    }

    let scan = simulate(&sim).map_err(|e| wrong(e.to_string()))?;
    let file = |e: ismrmrd::Error| Fault::new(FaultKind::Io, "ismrmrd", e.to_string());
    let mut writer = ismrmrd::file::Writer::create(&args.output, "dataset").map_err(file)?;
    writer.header(&scan.header).map_err(file)?;
    for acquisition in &scan.acquisitions {
        if super::interrupt::is_set() {
            // The writer removes what it began.
            return Err(wrong("interrupted".to_owned()));
        }
        writer.acquisition(acquisition).map_err(file)?;
    }
    writer.finish().map_err(file)?;

    out.text(&format!(
        "wrote {} readouts, {} coils, matrix {:?}, {} slices, acceleration {:?} (SIMULATED): {}",
        scan.acquisitions.len(),
        sim.n_coils,
        sim.matrix,
        sim.n_slices,
        sim.acceleration,
        args.output.display()
    ));
    out.json(&serde_json::json!({
        "path": args.output,
        "readouts": scan.acquisitions.len(),
        "parameters": sim,
    }))?;
    Ok(Outcome::Done)
}
