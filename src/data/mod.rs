//! The corridor: plain types that travel between rooms; no algorithms, no I/O, no device.

pub mod coils;
pub mod fault;
pub mod frame;
pub mod geometry;
pub mod image;
pub mod kspace;
pub mod provenance;
pub mod scan;
pub mod stamp;
pub mod synthetic;

pub use coils::{Csm, NoiseCovariance, Whitening};
pub use fault::{Fault, FaultKind};
pub use frame::{AcquisitionStamps, Frame, FrameKey};
pub use geometry::Geometry;
pub use image::{Denoised, Intensity, ReconImage};
pub use kspace::{KSpace, Line, Shape};
pub use num_complex::{Complex32, Complex64};
pub use provenance::{Note, Provenance, Step};
pub use scan::{Calibration, Scan, ScanEncoding, Space};
pub use stamp::Stamp;
pub use synthetic::{SourceSeries, Synthetic, SyntheticKind};
