//! `cauda convert`: k-space of any kind into ISMRMRD, an MRD stream or BART's format; images between the first two.

use std::path::PathBuf;

use super::recon::OpenArgs;
use super::{Outcome, output::Output};
use crate::data::{Fault, FaultKind};
use crate::source::{ConvertOptions, convert};

/// Arguments of `cauda convert`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// K-space file; its kind is found from its content
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Output; the ending says as what: .h5 (ISMRMRD), .cfl (BART), .mrd (MRD v1 stream)
    #[arg(value_name = "OUT")]
    output: PathBuf,
    #[command(flatten)]
    open: OpenArgs,
    /// Group to write in an HDF5 output
    #[arg(long, value_name = "NAME")]
    out_group: Option<String>,
    /// Replace an output that exists
    #[arg(short, long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &Args, out: &Output) -> Result<Outcome, Fault> {
    if !args.force && args.output.exists() {
        return Err(Fault::new(
            FaultKind::Protocol,
            "cli",
            format!(
                "the output exists; --force replaces it: {}",
                args.output.display()
            ),
        ));
    }
    let options = ConvertOptions {
        open: args.open.options(),
        group: args.out_group.clone(),
    };
    let converted = convert(&args.input, &args.output, &options)?;
    out.notes(&converted.notes);
    let mut what = Vec::new();
    if converted.readouts > 0 {
        what.push(format!(
            "{} of {} readouts",
            converted.written, converted.readouts
        ));
    }
    if converted.beside > 0 {
        what.push(format!("{} images, arrays, waveforms", converted.beside));
    }
    out.text(&format!(
        "wrote {} as {}: {}",
        what.join(" and "),
        converted.format,
        converted.path.display()
    ));
    out.json(&converted)?;
    Ok(Outcome::Done)
}
