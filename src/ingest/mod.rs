//! Readouts in, complete k-space out.
