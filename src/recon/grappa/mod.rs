//! GRAPPA: missing lines of k-space from their measured neighbours, in one, two and sheared dimensions.
//!
//! Calibration (`calibrate`) gives weights; they are applied in k-space (`fill`) or as unmixing of folded images
//! (`unmix`), which gives the noise as well.

pub(crate) mod calibrate;
pub(crate) mod cuda;
pub(crate) mod fill;
pub(crate) mod fold;
pub(crate) mod noise;
mod params;
pub(crate) mod unmix;
pub(crate) mod window;

pub use params::{Apply, GrappaParams, Weighting};
