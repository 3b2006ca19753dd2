//! `cauda demo`: what the engine does, on defaults that are inside the program. A small real scan is reconstructed from its
//! file; then a digital patient is scanned with the fast lumbar pair and streamed over loopback while the scan runs.

mod pair;
mod real;

use std::path::{Path, PathBuf};

use super::{Outcome, output::Output};
use crate::data::{Fault, FaultKind};

/// Arguments of `cauda demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for the results
    #[arg(long, value_name = "DIR", default_value = "out/demo")]
    out: PathBuf,
    /// Slices of the simulated series; 15 is the protocol's own number
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=15))]
    slices: u8,
    /// Lay one key over both protocols, for example sequence.matrix=[192,160]
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Seed of the digital patient
    #[arg(long, value_name = "N", default_value_t = 7)]
    seed: u64,
    /// Threads in all; the default is every core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &Args, out: &Output) -> Result<Outcome, Fault> {
    std::fs::create_dir_all(&args.out).map_err(|e| io("cannot make the folder", &args.out, &e))?;
    // First, so that the peak of memory that it prints is its own.
    let mut value = real::run(args, out)?;
    out.text("");
    let pair = pair::run(args, out)?;
    if let Some(map) = value.as_object_mut() {
        map.insert("pair".to_owned(), serde_json::json!(pair));
    }
    out.json(&value)?;
    Ok(Outcome::Done)
}

fn io(what: &str, path: &Path, e: &std::io::Error) -> Fault {
    Fault::new(
        FaultKind::Io,
        "cli",
        format!("{what}: {e}: {}", path.display()),
    )
}
