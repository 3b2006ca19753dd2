//! A frame: the k-space that becomes one image, with what is known about it.

use super::{Geometry, KSpace, Note};

/// Which image of the scan. Orders as listed: encoding slowest, average fastest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameKey {
    /// Index of the encoding in the header.
    pub encoding_idx: u16,
    /// Repetition (dynamic).
    pub repetition: u16,
    /// Cardiac phase.
    pub cardiac_phase: u16,
    /// Contrast (echo).
    pub contrast: u16,
    /// Slice (slab for 3D).
    pub slice_idx: u16,
    /// Set.
    pub set: u16,
    /// Average, when averages are kept apart; 0 when they are combined.
    pub average: u16,
}

impl FrameKey {
    /// How many counters a key has.
    pub const COUNTERS: usize = 7;

    /// All counters, in the order of the fields: for what stores keys or counts them.
    pub fn counters(&self) -> [u16; Self::COUNTERS] {
        [
            self.encoding_idx,
            self.repetition,
            self.cardiac_phase,
            self.contrast,
            self.slice_idx,
            self.set,
            self.average,
        ]
    }

    /// The key of [`Self::counters`].
    pub fn from_counters(counters: [u16; Self::COUNTERS]) -> Self {
        let [
            encoding_idx,
            repetition,
            cardiac_phase,
            contrast,
            slice_idx,
            set,
            average,
        ] = counters;
        Self {
            encoding_idx,
            repetition,
            cardiac_phase,
            contrast,
            slice_idx,
            set,
            average,
        }
    }
}

/// Vendor clocks of the frame, carried from its central readout; never used for latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcquisitionStamps {
    /// MRD measurement identifier.
    pub measurement_uid: u32,
    /// Vendor ticks.
    pub acquisition_time_stamp: u32,
    /// Vendor ticks.
    pub physiology_time_stamp: [u32; 3],
}

/// Complete k-space of one image.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Which image.
    pub key: FrameKey,
    /// Imaging lines, calibration lines that are also imaging lines among them.
    pub kspace: KSpace,
    /// Calibration lines measured apart from the imaging lines (separate reference scan, or lines flagged
    /// calibration-only), on a grid of the same extents. `None`: calibrate from `kspace`.
    pub reference: Option<KSpace>,
    /// Whether the noise is white with unit standard deviation per component, so that SNR units are meant.
    pub is_whitened: bool,
    /// Where the *reconstructed* image lies (recon matrix and field of view).
    pub geometry: Geometry,
    /// Table position, mm.
    pub table_position_mm: [f32; 3],
    /// Vendor clocks.
    pub stamps: AcquisitionStamps,
    /// What was noticed on the way (missing lines, repeated lines, ...).
    pub notes: Vec<Note>,
}
