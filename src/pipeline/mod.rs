//! The runtime: source -> ingest -> recon -> hand-off, with bounded queues, clocks and policies.
//!
//! In: a path or a stream of readouts, a protocol, a device. Out: images in order, and a report. The only room that
//! knows all the others; knows no mathematics.

pub mod guard;
pub mod queue;
pub mod schedule;

pub use guard::{panic_text, remember_panic};
