//! The acquisition: a patient and a sequence in, readouts and their header out, as a scanner would give them.
//!
//! [`Scan::plan`] checks and builds the coils; [`Scan::run`] makes the readouts in order of time. The patient is
//! anything that says what is where ([`Matter`]). No transform and no sampling pattern is shared with the
//! reconstruction: `fourier` has the transforms, `crate::sequence` the order of the lines.

mod basis;
mod coils;
mod fourier;
mod kspace;
mod maps;
mod motion;
mod scan;
mod scanned;
mod signals;
mod subject;
#[cfg(test)]
mod tests;

pub use coils::{CoilArray, Loop, Placement, Raster};
pub use maps::{Block, CtParams, TissueMaps, ct, noise_std, scanned_maps, tissue_maps, with_noise};
pub use motion::MotionParams;
pub use scan::{Scan, ScanTruth};
pub use subject::Subject;

use serde::{Deserialize, Serialize};

use super::{CalibrationLines, Material, PhantomError, Voxel};

/// A body in the scanner, as a function of place (LPS, mm), at one field strength.
pub trait Matter: Sync {
    /// What is at a place.
    fn at(&self, p_mm: [f32; 3]) -> Voxel;
    /// Materials; [`Voxel::material`] is the index.
    fn materials(&self) -> &[Material];
    /// T1 and apparent T2 of fat.
    fn fat_t1_t2_ms(&self) -> [f64; 2];
    /// Deviation of the field.
    fn field_ppm(&self, p_mm: [f32; 3]) -> f32;
    /// Box that holds the body: `[[low, high]; 3]`.
    fn extent_mm(&self) -> [[f32; 2]; 3];
    /// Middle of an exam's slices.
    fn centre_mm(&self) -> [f64; 3];
}

/// How a sequence is measured: everything that is not the sequence's nor the patient's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AcquireParams {
    /// Receive coils.
    pub n_coils: usize,
    /// Signal-to-noise ratio of the cord's white matter in a standard sagittal T2-weighted TSE at 3 T, unaccelerated;
    /// other scans follow by field strength, voxel and time of sampling.
    pub snr: f64,
    /// Unevenness of the transmit field: 1 is 0.8 to 1.2 over a trunk, 0 none.
    pub b1_spread: f64,
    /// Depths at which a slice is sampled.
    pub n_depths: usize,
    /// How calibration lines are measured.
    pub calibration: CalibrationLines,
    /// Noise readouts in front of the scan.
    pub n_noise_readouts: usize,
    /// Samples of each.
    pub noise_samples: usize,
    /// Time between noise samples, microseconds.
    pub noise_dwell_us: f32,
    /// `relativeReceiverNoiseBandwidth`; the noise readouts are quieter by this factor (in power).
    pub noise_bandwidth_ratio: f32,
    /// How the patient moves.
    pub motion: MotionParams,
    /// Seed of noise, motion and the places of samples.
    pub seed: u64,
    /// Which scan of an examination; the first is 0.
    pub series: u64,
}

impl Default for AcquireParams {
    fn default() -> Self {
        Self {
            n_coils: 16,
            snr: 20.0,
            b1_spread: 1.0,
            n_depths: 5,
            calibration: CalibrationLines::Embedded,
            n_noise_readouts: 64,
            noise_samples: 512,
            noise_dwell_us: 5.0,
            noise_bandwidth_ratio: 0.793,
            motion: MotionParams::default(),
            seed: 1,
            series: 0,
        }
    }
}

impl AcquireParams {
    /// Refuses what cannot be measured.
    ///
    /// # Errors
    /// [`PhantomError`].
    pub fn check(&self) -> Result<(), PhantomError> {
        let bad = |key: &'static str, found: String, needed: &'static str| {
            Err(PhantomError { key, found, needed })
        };
        if !(1..=128).contains(&self.n_coils) {
            return bad("n_coils", self.n_coils.to_string(), "1 to 128");
        }
        if !(self.snr > 0.0 && self.snr <= 1e6) {
            return bad("snr", self.snr.to_string(), "above 0, up to 1e6");
        }
        if !(0.0..=1.0).contains(&self.b1_spread) {
            return bad("b1_spread", self.b1_spread.to_string(), "0 to 1");
        }
        if !(1..=64).contains(&self.n_depths) {
            return bad("n_depths", self.n_depths.to_string(), "1 to 64");
        }
        if self.noise_samples == 0 || self.noise_samples > 65_535 || self.n_noise_readouts > 65_535
        {
            return bad(
                "noise_samples, n_noise_readouts",
                format!("{}, {}", self.noise_samples, self.n_noise_readouts),
                "1 to 65535, 0 to 65535",
            );
        }
        if !(self.noise_dwell_us > 0.0 && self.noise_bandwidth_ratio > 0.0) {
            return bad(
                "noise_dwell_us, noise_bandwidth_ratio",
                format!("{}, {}", self.noise_dwell_us, self.noise_bandwidth_ratio),
                "above 0",
            );
        }
        self.motion.check()
    }
}
