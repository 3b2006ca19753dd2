//! The simulator: a body and a way to scan it in, header and readouts out, and the truth beside them.
//!
//! A user command (commissioning without a volunteer, training data), so a room. It shares no Fourier transform and no
//! sampling code with the reconstruction. [`simulate`] scans ellipsoids, exactly; [`spine`] draws patients who do not exist
//! and [`acquire`] scans them as a scanner would; [`view`] looks at them without one.

pub mod acquire;
mod analytic;
mod error;
mod matter;
mod noise;
mod parameters;
mod readout;
pub mod spine;
pub mod view;

pub use analytic::{
    CalibrationLines, Object, Plane, Sampling, Simulate, Simulated, Truth, simulate, truth,
};
pub use error::PhantomError;
pub use matter::{Material, Structure, Tissue, Voxel};
