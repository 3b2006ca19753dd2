//! Formats read back.
