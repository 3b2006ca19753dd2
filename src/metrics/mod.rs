//! What is counted and timed, and how alike two images are.
//!
//! In: marks of the pipeline, pairs of images. Out: plain reports. Knows no room; prints nothing.

pub mod clock;
pub mod names;
pub mod quality;

pub use clock::{Clock, Latency, Monotonic, StageClock, StageTime};
pub use quality::{Comparison, Pair, Quality, QualityError, compare};
