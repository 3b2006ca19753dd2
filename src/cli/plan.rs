//! `cauda plan`: what a protocol would do with a scan, operator by operator, without doing it.

use std::path::PathBuf;

use super::recon::{Bar, ScanArgs};
use super::{Outcome, output::Output, output::table};
use crate::data::Fault;
use crate::pipeline::plan_file;

/// Arguments of `cauda plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Protocol by name (`cauda protocol list`) or file
    #[arg(value_name = "PROTOCOL")]
    protocol: String,
    /// The scan to plan for
    #[arg(long, value_name = "FILE")]
    like: PathBuf,
    #[command(flatten)]
    scan: ScanArgs,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &Args, out: &Output) -> Result<Outcome, Fault> {
    let protocol = args.scan.protocol(&args.protocol)?;
    let bar = Bar::new(out, "readouts");
    let (patterns, notes) = plan_file(&args.scan.job(&args.like, &protocol, &bar))?;
    bar.clear();
    out.notes(&notes);
    for pattern in &patterns {
        out.text(&format!("{} ({} frames)", pattern.pattern, pattern.frames));
        let rows: Vec<_> = pattern
            .recipes
            .iter()
            .map(|r| {
                vec![
                    r.op.clone(),
                    r.backend.to_owned(),
                    format!("{}", r.scratch_bytes >> 20),
                    r.detail.clone(),
                    r.reason.clone(),
                ]
            })
            .collect();
        out.text(&table(
            &["operator", "backend", "MiB", "detail", "reason"],
            &rows,
        ));
    }
    out.json(&serde_json::json!({ "patterns": patterns, "notes": notes }))?;
    Ok(Outcome::Done)
}
