//! GRAPPA: missing lines of k-space from their measured neighbours, in one, two and sheared dimensions.

mod params;

pub use params::{Apply, GrappaParams};
