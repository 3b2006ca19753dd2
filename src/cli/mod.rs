//! The command line: one file per command, each written to be read like the method section of a paper.
//!
//! In: arguments. Out: results on stdout, words for people on stderr, an exit code. May name every room; decides
//! nothing that a room should decide.

pub mod bench;
pub mod compare;
pub mod convert;
pub mod demo;
pub mod doctor;
pub mod inspect;
pub mod interrupt;
pub mod kernels;
pub mod output;
pub mod phantom;
pub mod plan;
mod plot;
pub mod protocol;
pub mod recon;
pub mod record;
pub mod send;
pub mod serve;
pub mod simulate;
pub mod synth;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::data::{Fault, FaultKind};
use output::Output;

/// MR reconstruction: k-space from a scanner in, finished images out.
///
/// Research use only; not a medical device.
#[derive(Debug, Parser)]
#[command(
    name = "cauda",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done; 1 ran, but a stated check failed; 2 protocol or command line;\n            \
                  3 input data; 4 machine, disk or network; 5 a fault of this program; 130 interrupted."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reconstructs k-space into images
    Recon(recon::Args),
    /// Says what a k-space file holds, and what is odd about it
    Inspect(inspect::Args),
    /// Compares two images: NRMSE, PSNR, SSIM, HFEN; exit code 1 when a stated threshold fails
    Compare(compare::Args),
    /// Writes k-space in another format
    Convert(convert::Args),
    /// Makes STIR, T2FS and CT from T1w and T2w: SYNTHETIC, with their error and where they abstain
    Synth(synth::Args),
    /// Says what a protocol would do with a scan, and why, without doing it
    Plan(plan::Args),
    /// Lists, checks and explains protocols
    Protocol(protocol::Args),
    /// Shows a digital patient: pictures, measurements, findings
    Phantom(phantom::Args),
    /// Simulates a scan with known truth
    Simulate(simulate::Args),
    /// Scans a digital patient over loopback, and reconstructs a small real scan
    Demo(demo::Args),
    /// Serves scanners: k-space streams in, images go back while the scan runs
    Serve(serve::Args),
    /// Sends a file to an MRD server as a scanner would
    Send(send::Args),
    /// Stores a scanner's stream as it came
    Record(record::Args),
    /// Measures how long images take: a simulated scanner against a server
    Bench(bench::Args),
    /// Says what this machine and this build offer
    Doctor(doctor::Args),
    /// Compiles the CUDA kernels, for this machine or to take along
    Kernels(kernels::Args),
}

/// How a command ended, faults apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Done,
    /// Ran, but a stated check failed.
    CheckFailed,
}

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are results; a wrong argument is a message. clap's own printing knows which.
            let code = if e.use_stderr() { 2 } else { 0 };
            return match e.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::from(4),
            };
        }
    };
    output::quiet_panics();
    interrupt::install();
    let out = Output::new(cli.command.is_json());
    // Rooms catch panics at stage borders; this is the border of everything else.
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cli.command.run(&out)));
    match ended {
        Ok(Ok(Outcome::Done)) => ExitCode::SUCCESS,
        Ok(Ok(Outcome::CheckFailed)) => ExitCode::from(1),
        Ok(Err(_)) if interrupt::is_set() => {
            out.note("interrupted: nothing was written");
            ExitCode::from(interrupt::EXIT_CODE)
        }
        Ok(Err(fault)) => {
            out.fault(&fault);
            ExitCode::from(fault.kind.exit_code())
        }
        Err(payload) => {
            let fault = Fault::new(
                FaultKind::Bug,
                "cli",
                format!(
                    "a fault of this program: {}; please report it with the command",
                    crate::pipeline::panic_text(payload.as_ref())
                ),
            );
            out.fault(&fault);
            ExitCode::from(fault.kind.exit_code())
        }
    }
}

impl Command {
    fn is_json(&self) -> bool {
        match self {
            Self::Recon(a) => a.json,
            Self::Inspect(a) => a.json,
            Self::Compare(a) => a.json,
            Self::Convert(a) => a.json,
            Self::Plan(a) => a.json,
            Self::Simulate(a) => a.json,
            Self::Synth(a) => a.json,
            Self::Protocol(a) => a.is_json(),
            Self::Phantom(a) => a.is_json(),
            Self::Demo(a) => a.json,
            Self::Serve(a) => a.json,
            Self::Send(a) => a.json,
            Self::Record(a) => a.json,
            Self::Bench(a) => a.json,
            Self::Doctor(a) => a.json,
            Self::Kernels(a) => a.json,
        }
    }

    fn run(&self, out: &Output) -> Result<Outcome, Fault> {
        match self {
            Self::Recon(a) => recon::run(a, out),
            Self::Inspect(a) => inspect::run(a, out),
            Self::Compare(a) => compare::run(a, out),
            Self::Convert(a) => convert::run(a, out),
            Self::Plan(a) => plan::run(a, out),
            Self::Phantom(a) => phantom::run(a, out),
            Self::Simulate(a) => simulate::run(a, out),
            Self::Synth(a) => synth::run(a, out),
            Self::Protocol(a) => protocol::run(a, out),
            Self::Demo(a) => demo::run(a, out),
            Self::Serve(a) => serve::run(a, out),
            Self::Send(a) => send::run(a, out),
            Self::Record(a) => record::run(a, out),
            Self::Bench(a) => bench::run(a, out),
            Self::Doctor(a) => doctor::run(a, out),
            Self::Kernels(a) => kernels::run(a, out),
        }
    }
}
