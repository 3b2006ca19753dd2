//! The simulator: parameters in, header and readouts out, and the truth beside them.
//!
//! `simulate` is a user command (commissioning without a volunteer), so it is a room. It shares no Fourier transform
//! and no sampling code with the reconstruction: objects are ellipsoids with analytic transforms, coils are
//! trigonometric polynomials whose products with the object are exact shifts of those transforms, and true images are
//! direct sums.

pub mod acquire;
mod coils;
mod matter;
mod noise;
mod parameters;
mod params;
mod sampling;
mod scan;
mod shapes;
mod signal;
pub mod spine;
pub mod view;

pub use matter::{Material, Structure, Tissue, Voxel};
pub use params::{CalibrationLines, Object, PhantomError, Plane, Sampling, Simulate};
pub use scan::{Simulated, simulate};
pub use signal::{Truth, truth};
