//! `cauda record`: a scanner's stream as it came, into a file.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use super::{Outcome, output::Output};
use crate::data::{Fault, FaultKind};
use crate::server;

/// Arguments of `cauda record`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the stream goes
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to take the stream; this machine only
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9002")]
    listen: SocketAddr,
    /// Replace a file that exists
    #[arg(short, long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &Args, out: &Output) -> Result<Outcome, Fault> {
    let wrong = |kind, text: String| Fault::new(kind, "cli", text);
    if !args.listen.ip().is_loopback() {
        let text = format!(
            "--listen {}: recording takes streams of this machine only",
            args.listen
        );
        return Err(wrong(FaultKind::Protocol, text));
    }
    if args.file.exists() && !args.force {
        let text = format!(
            "the output exists; --force replaces it: {}",
            args.file.display()
        );
        return Err(wrong(FaultKind::Protocol, text));
    }
    let listener = TcpListener::bind(args.listen).map_err(|e| {
        wrong(
            FaultKind::Io,
            format!("cannot listen on {}: {e}", args.listen),
        )
    })?;
    let address = listener
        .local_addr()
        .map_err(|e| wrong(FaultKind::Io, e.to_string()))?;
    out.note(&format!("listening on {address} for one stream"));
    let recorded = server::record(&listener, &args.file)?;
    if let Some(fault) = &recorded.fault {
        out.note(fault);
    }
    out.text(&format!(
        "recorded {} bytes, {} readouts{}",
        recorded.bytes,
        recorded.readouts,
        if recorded.is_complete {
            ""
        } else {
            "; the stream is not complete"
        }
    ));
    out.json(&recorded)?;
    Ok(if recorded.is_complete {
        Outcome::Done
    } else {
        Outcome::CheckFailed
    })
}
