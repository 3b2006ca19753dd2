//! What reconstruction needs from a scan's header, validated once.

use std::sync::Arc;

/// A space of the header: matrix and field of view along x, y, z.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Space {
    /// Samples along x, y, z.
    pub matrix: [usize; 3],
    /// mm along x, y, z.
    pub field_of_view_mm: [f32; 3],
}

/// How calibration lines were measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calibration {
    /// Within the imaging lines.
    Embedded,
    /// Rolling with time.
    Interleaved,
    /// In front of the imaging lines, flagged.
    Separate,
    /// Another measurement.
    External,
    /// The header does not say.
    Unstated,
}

/// One `encoding` of the header.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanEncoding {
    /// Encoded space, readout oversampling and phase oversampling included.
    pub encoded: Space,
    /// Reconstructed space.
    pub recon_space: Space,
    /// Index of the k-space centre line, as counted in the data (`kspace_encoding_step_1.center`).
    pub pe1_centre: usize,
    /// Likewise along the second phase-encoding axis.
    pub pe2_centre: usize,
    /// Last line that the header announces, by counter value, if it says so: (pe1, pe2).
    pub last_line: [Option<usize>; 2],
    /// First line that the header announces, by counter value.
    pub first_line: [usize; 2],
    /// Acceleration along pe1 and pe2 as stated.
    pub acceleration: [usize; 2],
    /// Calibration mode as stated.
    pub calibration: Calibration,
    /// Grid after readout-oversampling removal: x, y, z.
    pub grid: [usize; 3],
}

/// A validated scan.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The header it came from, for the hand-off.
    pub header: Arc<ismrmrd::Header>,
    /// One entry per `encoding`; `None` where the trajectory is not Cartesian.
    pub encodings: Vec<Option<ScanEncoding>>,
}
