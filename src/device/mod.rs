//! Where code runs: how many threads, how much memory, and the record of each choice.

pub mod cuda;
mod policy;

pub use policy::{Backend, Policy};

/// What was decided for one operator: a plain value that can be printed and compared.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Recipe {
    /// Operator: `recon/grappa`.
    pub op: String,
    /// `cpu` (CUDA joins with its back end).
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
}

impl Device {
    /// All cores of this machine; three quarters of its memory.
    pub fn detect() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        Self {
            threads,
            memory_bytes: physical_memory_bytes().map_or(8 << 30, |b| b / 4 * 3),
        }
    }
}

fn physical_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
