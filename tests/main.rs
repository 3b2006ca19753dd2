//! What users can do and what can go wrong, one file per capability. See README.md.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod architecture;
mod bad_input;
#[cfg(unix)]
mod check_a_card;
mod denoise_a_scan;
mod golden_values;
mod kernels;
mod messages;
mod read_any_file;
mod recon_a_file;
mod recon_on_a_card;
mod scan_a_spine;
mod serve_a_scanner;
mod shipped_protocols;
mod support;
mod survive_a_bad_peer;
mod survive_a_kill;
mod synth_a_study;
#[cfg(unix)]
mod use_a_card;
