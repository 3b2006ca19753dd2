//! Physiological and other waveforms.

/// Length of the waveform header on the wire, in bytes (not packed: padding included).
pub const WAVEFORM_HEADER_BYTES: usize = 40;

/// The fixed part of a waveform (`ISMRMRD_WaveformHeader`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct WaveformHeader {
    pub version: u16,
    pub flags: u64,
    pub measurement_uid: u32,
    pub scan_counter: u32,
    /// Vendor ticks.
    pub time_stamp: u32,
    pub number_of_samples: u16,
    pub channels: u16,
    pub sample_time_us: f32,
    /// 0 ECG, 1 pulse, 2 respiration, 3 and 4 external; 1024 and above: custom.
    pub waveform_id: u16,
}

/// A piece of a waveform; `data` is `[channel, sample]`, samples contiguous.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Waveform {
    pub head: WaveformHeader,
    pub data: Vec<u32>,
}
