//! What a run did, for people and for `--json`. Keys are stable.

use crate::data::{FrameKey, Note, Step};
use crate::device::Recipe;
use crate::metrics::{Latency, StageTime};

use super::schedule::Schedule;

/// One sampling pattern of the scan, and what was planned for it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PatternReport {
    /// What is special about the pattern, in one line.
    pub pattern: String,
    /// Frames that were reconstructed so.
    pub frames: usize,
    /// Operators in order, each with its reason.
    pub recipes: Vec<Recipe>,
}

/// A frame that gave no image.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct RefusedFrame {
    /// Which.
    pub frame: String,
    /// Why.
    pub message: String,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Report {
    /// Kind and place of the input.
    pub input: String,
    /// Protocol with its fingerprint.
    pub protocol: String,
    /// How the threads were shared out.
    pub schedule: Schedule,
    /// Readouts read.
    pub readouts: u64,
    /// Images reconstructed.
    pub images: usize,
    /// Frames that gave none: the first of them.
    pub refused: Vec<RefusedFrame>,
    /// All frames that gave none.
    pub n_refused: usize,
    /// What was planned, per sampling pattern.
    pub patterns: Vec<PatternReport>,
    /// What ingest did.
    pub steps: Vec<Step>,
    /// Marks of the scan and of all its images.
    pub notes: Vec<Note>,
    /// Times of the stages. Busy seconds of parallel stages are summed over workers.
    pub stages: Vec<StageTime>,
    /// From the first readout asked for to the last byte delivered, seconds.
    pub wall_s: f64,
    /// From the batch that completed a frame to its image.
    pub last_readout_to_image: Latency,
    /// Frames that took longer than the protocol's deadline.
    pub deadline_misses: usize,
    /// Most complete k-space that waited for a worker, bytes.
    pub queue_high_water_bytes: u64,
    /// Most memory that the process ever held, bytes; maps of input files count. `None` where the system does not say.
    pub peak_memory_bytes: Option<u64>,
}

/// A frame's name for people: only the counters that are not zero, the slice always.
pub fn frame_name(key: &FrameKey) -> String {
    let mut out = format!("slice {}", key.slice_idx);
    for (name, value) in [
        ("encoding", key.encoding_idx),
        ("repetition", key.repetition),
        ("cardiac phase", key.cardiac_phase),
        ("contrast", key.contrast),
        ("set", key.set),
        ("average", key.average),
    ] {
        if value != 0 {
            out.push_str(&format!(", {name} {value}"));
        }
    }
    out
}
