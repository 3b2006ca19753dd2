//! What can go wrong before a kernel runs.

use std::path::PathBuf;

use super::Arch;

/// Faults of the CUDA side.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// No image of a kernel for this card, and nothing to compile it with.
    #[error(
        "kernel {kernel} has no image for {arch} in {searched} and NVRTC is not here to compile it; install NVRTC \
         (`pip install nvidia-cuda-nvrtc-cu12`, its folder in LD_LIBRARY_PATH), or take images along that \
         `cauda kernels -o DIR --arch {arch}` made on another machine (CAUDA_KERNELS=DIR)"
    )]
    NoImage {
        /// Name of the kernel's file.
        kernel: &'static str,
        /// What the card is.
        arch: Arch,
        /// Folders that were searched.
        searched: String,
    },
    /// The compiler refused a kernel.
    #[error("kernel {kernel} does not compile for {arch} with NVRTC {version}: {log}")]
    Compile {
        /// Name of the kernel's file.
        kernel: String,
        /// For which card.
        arch: Arch,
        /// Of the compiler.
        version: String,
        /// What it said.
        log: String,
    },
    /// The compiler itself failed.
    #[error("NVRTC: {call} gave {status}{hint}")]
    Compiler {
        /// The function.
        call: &'static str,
        /// What it gave.
        status: String,
        /// What may help.
        hint: &'static str,
    },
    /// An image could not be stored.
    #[error("{path}: {source}; the kernel cache is in CAUDA_CACHE or the user's cache folder")]
    Store {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
