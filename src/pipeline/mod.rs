//! The runtime: rooms joined.
