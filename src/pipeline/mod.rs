//! The runtime: source -> ingest -> recon -> hand-off, with bounded queues, clocks and policies.
//!
//! In: a path or a stream of readouts, a protocol, a device. Out: images in order, and a report. The only room that
//! knows all the others; knows no mathematics. [`chain::run`] is the chain itself and takes any [`Source`]: a file pulls
//! it through in one go ([`recon_file`]), a socket feeds it as readouts arrive ([`Live`]).

pub mod chain;
mod denoise;
pub mod file;
pub mod guard;
pub mod journal;
pub mod live;
pub mod plans;
pub mod queue;
pub mod report;
pub mod schedule;
pub mod synth;
pub mod warm;
pub mod watch;

pub use chain::{Settings, Sink, Source, Visit};
pub use file::{FileJob, Finished, plan_file, recon_file};
pub use guard::{border, panic_text, remember_panic};
pub use live::{Live, LiveJob};
pub use report::{PatternReport, RefusedFrame, Report};
pub use warm::Warm;
pub use watch::{Unwatched, Watch};
