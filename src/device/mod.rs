//! Where code runs: how many threads, how much memory, and the record of each choice.

use std::sync::Arc;

pub mod cuda;
mod policy;

pub use policy::{Backend, Policy};

/// What was decided for one operator: a plain value that can be printed and compared.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Recipe {
    /// Operator: `recon/grappa`.
    pub op: String,
    /// `cpu` or `cuda`.
    pub backend: &'static str,
    /// Shapes and parameters, one line.
    pub detail: String,
    /// Working memory in bytes.
    pub scratch_bytes: u64,
    /// Why this one.
    pub reason: String,
}

/// The compute device of a scan. Operators use the rayon pool they are called in; the device makes the pools.
#[derive(Clone, Debug)]
pub struct Device {
    /// Threads to use in all.
    pub threads: usize,
    /// Memory budget in bytes for k-space and working memory.
    pub memory_bytes: u64,
    /// The card, if one is to be used.
    pub card: CardUse,
}

/// Whether operators may run on a card.
#[derive(Clone, Debug)]
pub enum CardUse {
    /// They may not.
    No {
        /// Why a card that is here is not used; `None` where there is none, or the CPU was asked for.
        why: Option<String>,
    },
    /// They may, where there are kernels for what they do.
    Yes {
        /// The card.
        card: Arc<cuda::Accelerator>,
        /// Refuse what the card cannot do, instead of doing it on the CPU.
        is_required: bool,
        /// What a fault of the card means.
        on_fault: Policy,
    },
}

impl CardUse {
    /// What a site's choice means on this machine.
    ///
    /// # Errors
    /// Those of [`cuda::Accelerator::open`] where a card is required; where it is not, they are the reason for the CPU.
    pub fn choose(backend: Backend, on_fault: Policy) -> Result<Self, cuda::CudaError> {
        if backend == Backend::Cpu {
            return Ok(Self::No { why: None });
        }
        match cuda::Accelerator::open() {
            Ok(card) => Ok(Self::Yes {
                card,
                is_required: backend == Backend::Cuda,
                on_fault,
            }),
            Err(e) if backend == Backend::Cuda => Err(e),
            Err(cuda::CudaError::NoDriver { .. } | cuda::CudaError::NoCard { .. }) => {
                Ok(Self::No { why: None })
            }
            Err(e) => Ok(Self::No {
                why: Some(e.to_string()),
            }),
        }
    }
}

impl Device {
    /// All cores of this machine; three quarters of its memory; no card.
    pub fn detect() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        Self {
            threads,
            memory_bytes: physical_memory_bytes().map_or(8 << 30, |b| b / 4 * 3),
            card: CardUse::No { why: None },
        }
    }
}

fn physical_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
