//! Names of every metric, in one place: `cauda_<noun>_<unit>[_total]`.

/// Busy seconds of a stage, summed over its workers; label `stage`.
pub const STAGE_SECONDS: &str = "cauda_stage_seconds";
/// Highest number of bytes that waited in the queue in front of the reconstruction.
pub const QUEUE_BYTES: &str = "cauda_queue_bytes";
/// Frames by `outcome`: `delivered`, `refused`.
pub const FRAMES_TOTAL: &str = "cauda_frames_total";
/// Readouts read.
pub const READOUTS_TOTAL: &str = "cauda_readouts_total";
/// Seconds from a frame's last readout to its image.
pub const LAST_READOUT_TO_IMAGE_SECONDS: &str = "cauda_last_readout_to_image_seconds";
/// Frames that took longer than the protocol's deadline.
pub const DEADLINE_MISS_TOTAL: &str = "cauda_deadline_miss_total";
