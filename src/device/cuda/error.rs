//! What can go wrong on the way to a card, and on it.

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
    /// No driver, or one that does not start.
    #[error("{why}: install an NVIDIA driver to use a card, or choose the CPU")]
    NoDriver {
        /// What was found.
        why: String,
    },
    /// A driver that lacks what is called.
    #[error(
        "the driver has no {missing}: one for CUDA 11.4 (470) or later is needed, `nvidia-smi` shows which is here"
    )]
    OldDriver {
        /// The function.
        missing: &'static str,
    },
    /// No such card.
    #[error(
        "card {ordinal} is not here, there are {found}; cards are counted from 0, CUDA_VISIBLE_DEVICES hides some"
    )]
    NoCard {
        /// Which was asked for.
        ordinal: i32,
        /// How many there are.
        found: i32,
    },
    /// More than the budget allows.
    #[error(
        "{asked_bytes} bytes of GPU memory are beyond the budget: {in_use_bytes} of {budget_bytes} are in use; raise the \
         budget, or work in smaller pieces"
    )]
    OverBudget {
        /// What was asked for.
        asked_bytes: u64,
        /// By us.
        in_use_bytes: u64,
        /// What we may use.
        budget_bytes: u64,
    },
    /// The card has not so much.
    #[error(
        "{card} has not {asked_bytes} bytes of GPU memory left ({}; {in_use_bytes} of the budget of {budget_bytes} are in \
         use); end other programs on the card, or lower the budget",
        free_bytes.map_or_else(|| "free: not known".into(), |b| format!("{b} free"))
    )]
    OutOfMemory {
        /// Its name.
        card: String,
        /// What was asked for.
        asked_bytes: u64,
        /// By us.
        in_use_bytes: u64,
        /// What we may use.
        budget_bytes: u64,
        /// Of the card, whoever uses the rest.
        free_bytes: Option<u64>,
    },
    /// The driver refused a call; the card can still be used.
    #[error("{card}: {call} gave {status}")]
    Call {
        /// The function.
        call: &'static str,
        /// Name of the card.
        card: String,
        /// What it gave.
        status: String,
    },
    /// Work on the card went wrong: the context is lost, with all that it holds.
    #[error(
        "{card}: {call} gave {status}{queued}; what was on the card is lost, and it must be opened again"
    )]
    Fault {
        /// The function that told it.
        call: &'static str,
        /// Name of the card.
        card: String,
        /// What it gave.
        status: String,
        /// Kernels that were queued, one of which it may have been.
        queued: String,
    },
    /// Of an earlier fault.
    #[error("{card} is lost since {why}: it must be opened again")]
    Lost {
        /// Its name.
        card: String,
        /// The fault.
        why: String,
    },
    /// What was asked for cannot be done on any card.
    #[error("{what}: {why}")]
    Wrong {
        /// What.
        what: String,
        /// Found and needed.
        why: String,
    },
}

impl CudaError {
    /// Whether there was a card to use and something went wrong on it. Else it could not be used for this: it is not here,
    /// has too little memory, or no image of a kernel and no compiler.
    pub fn is_fault(&self) -> bool {
        matches!(
            self,
            Self::Call { .. } | Self::Fault { .. } | Self::Lost { .. } | Self::Wrong { .. }
        )
    }

    /// A fault with the kernels that were queued when it was told.
    pub(super) fn with_queued(mut self, kernels: &[&str]) -> Self {
        if let Self::Fault { queued, .. } = &mut self
            && !kernels.is_empty()
        {
            *queued = format!(" (queued: {})", kernels.join(", "));
        }
        self
    }
}
