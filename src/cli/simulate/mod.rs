//! `cauda simulate`: a scan without a scanner, with known truth: for commissioning, tests and training.

mod spine;

use std::path::PathBuf;

use super::{Outcome, output::Output};
use crate::data::{Fault, FaultKind};
use crate::phantom::{Simulate, simulate};
use crate::protocol::{overlay, schema};

/// Arguments of `cauda simulate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Output, ISMRMRD HDF5; a folder for --dataset
    #[arg(value_name = "OUT", required_unless_present = "out")]
    output: Option<PathBuf>,
    /// The same by name
    #[arg(short, long = "out", value_name = "OUT", conflicts_with = "output")]
    out: Option<PathBuf>,
    /// A scan of an analytic phantom by name: small, bench, tse, caipi, random
    #[arg(long, value_name = "NAME", default_value = "small")]
    preset: String,
    /// A drawn patient's spine instead, scanned with the [sequence] of this protocol
    #[arg(long, value_name = "NAME|FILE", conflicts_with_all = ["preset", "dataset"])]
    protocol: Option<String>,
    /// Seed of the patient, the noise and the motion; the first of a data set
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Which scan of the patient's examination: after the first the patient lies a little elsewhere
    #[arg(long, value_name = "N", default_value_t = 0)]
    series: u64,
    /// A finding, kind[:severity][@level][-side], for example central_stenosis:3@L4; more than one may be given
    #[arg(long, value_name = "FINDING")]
    pathology: Vec<String>,
    /// Write the truth too: images, labels, tissue maps (HDF5), and the patient's measurements and grades (.json beside)
    #[arg(long, value_name = "FILE", requires = "protocol")]
    truth: Option<PathBuf>,
    /// Write a CT of the patient too, in any format of images, for example ct.nii.gz
    #[arg(long, value_name = "FILE", requires = "protocol")]
    ct: Option<PathBuf>,
    /// Make this many training samples: T1w, T2w, STIR, T2FS, CT, labels and maps of a slab, one HDF5 each
    #[arg(long, value_name = "N", conflicts_with = "preset")]
    dataset: Option<usize>,
    /// Slices of a sample
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=64))]
    slab: u8,
    /// Samples of the neck instead of the lumbar spine
    #[arg(long, requires = "dataset")]
    cervical: bool,
    /// Change one parameter: n_coils=16 or acceleration=[4,1] of a preset; sequence.tr_ms=4000 or acquire.n_coils=20 of
    /// a protocol
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Replace an output that exists
    #[arg(short, long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

fn wrong(message: String) -> Fault {
    Fault::new(FaultKind::Protocol, "phantom", message)
}

pub(super) fn run(args: &Args, out: &Output) -> Result<Outcome, Fault> {
    // clap asks for one of them.
    let output = args
        .output
        .as_deref()
        .or(args.out.as_deref())
        .ok_or_else(|| wrong("no output is named".to_owned()))?;
    if let Some(n) = args.dataset {
        return spine::dataset(args, n, output, out);
    }
    if let Some(protocol) = &args.protocol {
        return spine::scan(args, protocol, output, out);
    }
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
    if !args.force && output.exists() {
        return Err(wrong(format!(
            "the output exists; --force replaces it: {}",
            output.display()
        )));
    }

    let scan = simulate(&sim).map_err(|e| wrong(e.to_string()))?;
    let file = |e: ismrmrd::Error| Fault::new(FaultKind::Io, "ismrmrd", e.to_string());
    let mut writer = ismrmrd::file::Writer::create(output, "dataset").map_err(file)?;
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
        output.display()
    ));
    out.json(&serde_json::json!({
        "path": output,
        "readouts": scan.acquisitions.len(),
        "parameters": sim,
    }))?;
    Ok(Outcome::Done)
}
