#![doc = include_str!("README.md")]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::print_stdout,
        clippy::print_stderr
    )
)]

pub mod cli;
pub mod data;
pub mod denoise;
pub mod device;
pub mod handoff;
pub mod ingest;
pub mod metrics;
pub mod model;
pub mod num;
pub mod phantom;
pub mod pipeline;
pub mod protocol;
pub mod recon;
pub mod sequence;
pub mod server;
pub mod source;
pub mod synth;
