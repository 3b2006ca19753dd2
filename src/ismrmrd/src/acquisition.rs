//! One digitised line from all active channels, as it stands in files and on the wire.

use num_complex::Complex32;

use crate::{Error, Limits};

/// Length of the packed acquisition header in files and on the wire, in bytes.
pub const ACQUISITION_HEADER_BYTES: usize = 340;

/// Counters that say which line of which image an acquisition belongs to (`ISMRMRD_EncodingCounters`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EncodingCounters {
    /// First phase-encoding step (in-plane).
    pub kspace_encode_step_1: u16,
    /// Second phase-encoding step (partition of a 3D scan).
    pub kspace_encode_step_2: u16,
    /// Signal average.
    pub average: u16,
    /// Slice of a multi-slice scan.
    pub slice: u16,
    /// Contrast: echo number of a multi-echo scan.
    pub contrast: u16,
    /// Cardiac phase.
    pub phase: u16,
    /// Repetition: dynamic.
    pub repetition: u16,
    /// Set: flow encoding and the like.
    pub set: u16,
    /// Segment of a segmented scan.
    pub segment: u16,
    /// Free for the user.
    pub user: [u16; 8],
}

/// The fixed part of an acquisition (`ISMRMRD_AcquisitionHeader`, 340 bytes packed, little-endian).
///
/// # Units
/// Times: vendor ticks. `sample_time_us`: microseconds. Positions: mm, patient coordinates (LPS).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AcquisitionHeader {
    /// Version of the format: 1.
    pub version: u16,
    /// Bit field; see [`AcquisitionFlag`]. Unknown bits are carried.
    pub flags: u64,
    /// Unique number of the measurement.
    pub measurement_uid: u32,
    /// Number of this acquisition in the scan.
    pub scan_counter: u32,
    /// Vendor clock at acquisition.
    pub acquisition_time_stamp: u32,
    /// Vendor clocks since the last physiological triggers.
    pub physiology_time_stamp: [u32; 3],
    /// Complex samples per channel.
    pub number_of_samples: u16,
    /// Channels that the system has.
    pub available_channels: u16,
    /// Channels whose data are present.
    pub active_channels: u16,
    /// Bit mask of the active channels.
    pub channel_mask: [u64; 16],
    /// Samples to drop at the beginning.
    pub discard_pre: u16,
    /// Samples to drop at the end.
    pub discard_post: u16,
    /// Index of the sample at the centre of k-space.
    pub center_sample: u16,
    /// Index of the header's `encoding` that describes this acquisition.
    pub encoding_space_ref: u16,
    /// Components per sample of the trajectory; 0 without one.
    pub trajectory_dimensions: u16,
    /// Time between samples (dwell), microseconds.
    pub sample_time_us: f32,
    /// Centre of the field of view, mm from the isocentre.
    pub position: [f32; 3],
    /// Direction cosines of the readout axis.
    pub read_dir: [f32; 3],
    /// Direction cosines of the phase-encoding axis.
    pub phase_dir: [f32; 3],
    /// Direction cosines of the slice axis.
    pub slice_dir: [f32; 3],
    /// Table position, mm.
    pub patient_table_position: [f32; 3],
    /// Which line of which image.
    pub idx: EncodingCounters,
    /// Free for the user.
    pub user_int: [i32; 8],
    /// Free for the user.
    pub user_float: [f32; 8],
}

impl Default for AcquisitionHeader {
    fn default() -> Self {
        Self {
            version: 1,
            flags: 0,
            measurement_uid: 0,
            scan_counter: 0,
            acquisition_time_stamp: 0,
            physiology_time_stamp: [0; 3],
            number_of_samples: 0,
            available_channels: 0,
            active_channels: 0,
            channel_mask: [0; 16],
            discard_pre: 0,
            discard_post: 0,
            center_sample: 0,
            encoding_space_ref: 0,
            trajectory_dimensions: 0,
            sample_time_us: 0.0,
            position: [0.0; 3],
            read_dir: [1.0, 0.0, 0.0],
            phase_dir: [0.0, 1.0, 0.0],
            slice_dir: [0.0, 0.0, 1.0],
            patient_table_position: [0.0; 3],
            idx: EncodingCounters::default(),
            user_int: [0; 8],
            user_float: [0.0; 8],
        }
    }
}

impl AcquisitionHeader {
    /// Whether the flag is set.
    pub fn has(&self, flag: AcquisitionFlag) -> bool {
        self.flags & flag.bit() != 0
    }

    /// Sets the flag.
    pub fn set(&mut self, flag: AcquisitionFlag) {
        self.flags |= flag.bit();
    }

    /// Clears the flag.
    pub fn clear(&mut self, flag: AcquisitionFlag) {
        self.flags &= !flag.bit();
    }
}

/// Named bits of [`AcquisitionHeader::flags`]; the specification numbers them from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // the names are the specification's own
pub enum AcquisitionFlag {
    FirstInEncodeStep1 = 1,
    LastInEncodeStep1 = 2,
    FirstInEncodeStep2 = 3,
    LastInEncodeStep2 = 4,
    FirstInAverage = 5,
    LastInAverage = 6,
    FirstInSlice = 7,
    LastInSlice = 8,
    FirstInContrast = 9,
    LastInContrast = 10,
    FirstInPhase = 11,
    LastInPhase = 12,
    FirstInRepetition = 13,
    LastInRepetition = 14,
    FirstInSet = 15,
    LastInSet = 16,
    FirstInSegment = 17,
    LastInSegment = 18,
    IsNoiseMeasurement = 19,
    IsParallelCalibration = 20,
    IsParallelCalibrationAndImaging = 21,
    IsReverse = 22,
    IsNavigationData = 23,
    IsPhasecorrData = 24,
    LastInMeasurement = 25,
    IsHpfeedbackData = 26,
    IsDummyscanData = 27,
    IsRtfeedbackData = 28,
    IsSurfacecoilcorrectionscanData = 29,
    IsPhaseStabilizationReference = 30,
    IsPhaseStabilization = 31,
    Compression1 = 53,
    Compression2 = 54,
    Compression3 = 55,
    Compression4 = 56,
    User1 = 57,
    User2 = 58,
    User3 = 59,
    User4 = 60,
    User5 = 61,
    User6 = 62,
    User7 = 63,
    User8 = 64,
}

impl AcquisitionFlag {
    /// The bit in [`AcquisitionHeader::flags`].
    pub const fn bit(self) -> u64 {
        1 << (self as u8 - 1)
    }
}

/// One readout with its header.
///
/// # Shapes
/// `traj`: `[sample, trajectory_dimensions]`; `data`: `[channel, sample]`, samples contiguous.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Acquisition {
    /// The fixed part.
    pub head: AcquisitionHeader,
    /// Trajectory; empty without one.
    pub traj: Vec<f32>,
    /// Samples.
    pub data: Vec<Complex32>,
}

impl Acquisition {
    /// Borrows the readout.
    pub fn as_ref(&self) -> AcquisitionRef<'_> {
        AcquisitionRef {
            head: &self.head,
            traj: &self.traj,
            data: &self.data,
        }
    }
}

/// A readout whose samples stay where they were read (a memory map, a batch buffer).
///
/// # Shapes
/// As [`Acquisition`].
#[derive(Clone, Copy, Debug)]
pub struct AcquisitionRef<'a> {
    /// The fixed part.
    pub head: &'a AcquisitionHeader,
    /// Trajectory; empty without one.
    pub traj: &'a [f32],
    /// Samples, `[channel, sample]`.
    pub data: &'a [Complex32],
}

impl AcquisitionRef<'_> {
    /// Copies the readout out of the borrowed memory.
    pub fn to_owned(&self) -> Acquisition {
        Acquisition {
            head: *self.head,
            traj: self.traj.to_vec(),
            data: self.data.to_vec(),
        }
    }
}

impl AcquisitionHeader {
    /// Whether the declared sizes are within the limits.
    ///
    /// # Errors
    /// [`Error::TooLarge`] naming the size.
    pub fn check_limits(&self, limits: &Limits) -> Result<(), Error> {
        let declared = [
            ("active channels", self.active_channels, limits.channels),
            (
                "samples of one acquisition",
                self.number_of_samples,
                limits.samples,
            ),
            (
                "trajectory dimensions",
                self.trajectory_dimensions,
                limits.trajectory_dimensions,
            ),
        ];
        for (what, declared, limit) in declared {
            if usize::from(declared) > limit {
                return Err(Error::TooLarge {
                    what,
                    declared: declared.into(),
                    limit: limit as u64,
                });
            }
        }
        Ok(())
    }
}
