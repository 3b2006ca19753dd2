//! `cauda kernels`: CUDA kernels compiled ahead, for this machine's cards or for hosts that have only the driver.

use std::path::PathBuf;

use super::{Outcome, output::Output, output::table};
use crate::data::{Fault, FaultKind};
use crate::device::cuda::{Arch, CudaError, KERNELS, Library, Origin, probe};

/// Arguments of `cauda kernels`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Architectures, for example sm_90; without it, those of this machine's cards
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<Arch>,
    /// Write images that travel: set CAUDA_KERNELS to this folder on the other host, or put it beside the program as `kernels`
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// One image.
#[derive(Debug, serde::Serialize)]
struct Row {
    kernel: &'static str,
    arch: Arch,
    bytes: usize,
    from: String,
}

pub(super) fn run(args: &Args, out: &Output) -> Result<Outcome, Fault> {
    let fault = |e: CudaError| Fault::new(FaultKind::Device, "device", e.to_string());
    let mut archs = args.arch.clone();
    if archs.is_empty() {
        let cards = probe().cards.map_err(|why| {
            let words = format!("no card here ({why}); name an architecture: --arch sm_90");
            Fault::new(FaultKind::Device, "device", words)
        })?;
        archs.extend(cards.iter().map(|c| c.arch));
    }
    archs.sort_unstable();
    archs.dedup();
    let library = Library::open();
    let mut rows = Vec::new();
    for arch in archs {
        for kernel in KERNELS {
            let image = library.image(kernel, arch).map_err(fault)?;
            let not_kept = image
                .not_kept
                .map_or(String::new(), |why| format!("; not kept: {why}"));
            let from = match &args.out {
                Some(folder) => {
                    let path = library.ship(kernel, arch, folder).map_err(fault)?;
                    format!("written to {}", path.display())
                }
                None => match image.origin {
                    Origin::Shipped(path) => format!("came along: {}", path.display()),
                    Origin::Cached(path) => format!("compiled before: {}", path.display()),
                    Origin::Compiled(version) => format!("compiled now by NVRTC {version}"),
                },
            };
            rows.push(Row {
                kernel: kernel.name,
                arch,
                bytes: image.bytes.len(),
                from: from + &not_kept,
            });
        }
    }
    let cells: Vec<_> = rows
        .iter()
        .map(|r| {
            let bytes = r.bytes.to_string();
            vec![
                r.kernel.to_owned(),
                r.arch.to_string(),
                bytes,
                r.from.clone(),
            ]
        })
        .collect();
    out.text(&table(&["kernel", "arch", "bytes", "image"], &cells));
    out.json(&rows)?;
    Ok(Outcome::Done)
}
