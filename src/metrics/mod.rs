//! What is counted and timed, and how alike two images are.
//!
//! In: marks of the pipeline, pairs of images. Out: plain reports. Knows no room; prints nothing.

pub mod clock;
pub mod names;
pub mod quality;

pub use clock::{Clock, Latencies, Latency, Monotonic, StageClock, StageTime};
pub use quality::{Comparison, Pair, Quality, QualityError, compare};

/// Most memory that this process ever held (`VmHWM`), where the system says it.
pub fn peak_memory_bytes() -> Option<u64> {
    status_bytes("VmHWM:")
}

/// Memory that this process holds now (`VmRSS`), where the system says it.
pub fn resident_memory_bytes() -> Option<u64> {
    status_bytes("VmRSS:")
}

fn status_bytes(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|l| l.starts_with(key))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
