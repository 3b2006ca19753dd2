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
        /// Why.
        why: String,
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
    /// What a site's choice means on this machine. `open` is a card that is open already.
    ///
    /// # Errors
    /// Those of [`cuda::Context::open`] where a card is required; where it is not, they are the reason for the CPU.
    pub fn choose(
        backend: Backend,
        on_fault: Policy,
        open: Option<&Arc<cuda::Accelerator>>,
    ) -> Result<Self, cuda::CudaError> {
        if backend == Backend::Cpu {
            let why = "asked for".into();
            return Ok(Self::No { why });
        }
        let card = match open {
            Some(card) if card.context().is_open() => Ok(card.clone()),
            _ => cuda::Accelerator::open(),
        };
        match card {
            Ok(card) => Ok(Self::Yes {
                card,
                is_required: backend == Backend::Cuda,
                on_fault,
            }),
            Err(e) if backend == Backend::Cuda => Err(e),
            Err(e) => Ok(Self::No { why: e.to_string() }),
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
            card: CardUse::No {
                why: "no card was asked for".into(),
            },
        }
    }
}

fn physical_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
