//! What users can do and what can go wrong, one file per capability. See README.md.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod architecture;
mod golden_values;
mod messages;
mod shipped_protocols;
mod support;
