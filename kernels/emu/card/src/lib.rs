//! `libcuda.so` of a card that is not there: what `src/device/cuda` calls of the driver API, on memory of the host, with
//! kernels run by `kernel-emu`. So the host's side (contexts, memory, streams, copies, graphs, faults) runs without a card.
//!
//! It is as unkind as the driver's contract allows:
//! * Work on a stream is done as late as allowed: when somebody waits for it, and no more of it than the wait needs.
//!   `CAUDA_EMU_SEED` other than 0 lets streams run ahead in an order that the seed picks. Memory is freed as early as
//!   its stream allows. So a missing wait gives wrong values, in every run.
//! * Fresh memory is NaN (bytes 0xff), and so is what a download has not reached. Addresses are never used twice: what was
//!   freed is a fault.
//! * A kernel gets spans of the allocations that its addresses lie in: outside is a fault. Wrong blocks, arguments that are
//!   the same memory (`__restrict__`), an image of another text are refused.
//! * A fault of a kernel or a copy is sticky, as on a card: every later call gives it, until the context is reset.
//!
//! | environment | |
//! | --- | --- |
//! | `CAUDA_EMU_MEMORY_MIB` | memory of the card, 1024 |
//! | `CAUDA_EMU_SEED` | order of streams and threads, 0 |
//! | `CAUDA_EMU_FAIL` | `alloc:3,copy:2`: the n-th of a kind fails as the driver would, counted from 1: `retain`, `alloc`, `pinned`, `stream`, `event`, `load`, `enqueue` (a launch is refused), `launch` (a kernel dies; sticky), `copy` (dies; sticky), `capture`, `instantiate` |
//! | `CAUDA_EMU_REPORT` | file that gets a line for every misuse, fault and, when the context is released, what was not; else stderr |
//!
//! Where it is kinder than a card: one context, one card; no pageable copies that overlap; a capture holds one stream, no
//! events; nothing of speed.

#![allow(unsafe_code)] // a C interface and memory by address: the contract is the driver API's

mod card;
mod exports;
mod status;

use std::path::PathBuf;

/// An image that this card loads: of a kernel file by its name, for exactly this text.
pub fn image(source: &str, text: &str, headers: &[&str]) -> Vec<u8> {
    let digest = kernel_emu::digest(text, headers);
    format!("{}{source}\n{digest:016x}\n\0", card::MAGIC).into_bytes()
}

/// The driver, beside the test that asks. Give it the name `libcuda.so` in a folder of LD_LIBRARY_PATH.
///
/// # Errors
/// It is not there: says where it was looked for.
pub fn library() -> Result<PathBuf, String> {
    let name = format!(
        "{}emulated_card{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    );
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let folders = exe.ancestors().skip(1).take(2);
    let paths: Vec<PathBuf> = folders
        .flat_map(|f| [f.join(&name), f.join("deps").join(&name)])
        .collect();
    match paths.iter().find(|p| p.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(format!("the emulated card is none of {paths:?}")),
    }
}
