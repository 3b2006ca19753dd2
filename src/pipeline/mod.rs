//! The runtime: source -> ingest -> recon -> hand-off, with bounded queues, clocks and policies.
//!
//! In: a path or a stream of readouts, a protocol, a device. Out: images in order, and a report. The only room that
//! knows all the others; knows no mathematics. [`chain::run`] is the chain itself and takes any [`Source`]: a file pulls
//! it through in one go ([`recon_file`]), a socket will feed it as readouts arrive.

pub mod chain;
pub mod file;
pub mod guard;
pub mod plans;
pub mod queue;
pub mod report;
pub mod schedule;
pub mod watch;

pub use chain::{Settings, Source};
pub use file::{FileJob, Finished, plan_file, recon_file};
pub use guard::{panic_text, remember_panic};
pub use report::{PatternReport, RefusedFrame, Report};
pub use watch::{Unwatched, Watch};
