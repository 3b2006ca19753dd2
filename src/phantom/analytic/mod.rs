//! Ellipsoids whose k-space is known in closed form: scans that are exact to rounding, for tests of the reconstruction.
//!
//! Coils are trigonometric polynomials whose products with the object are exact shifts of its transform, and true images
//! are direct sums: no Fourier transform and no sampling code is shared with the reconstruction.

mod coils;
mod params;
mod sampling;
mod scan;
mod shapes;
mod signal;

pub use params::{CalibrationLines, Object, Plane, Sampling, Simulate};
pub use scan::{Simulated, simulate};
pub use signal::{Truth, truth};
