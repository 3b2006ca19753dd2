//! Numerics with no MR in them.

pub mod fft;
