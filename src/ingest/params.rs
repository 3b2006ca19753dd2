//! What a protocol may choose about ingest.

use serde::{Deserialize, Serialize};

/// Whether noise is whitened.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Whiten {
    /// If the scan (or a file beside it) has noise readouts; a mark otherwise.
    #[default]
    Auto,
    /// Whiten to unit noise or refuse the scan.
    Require,
    /// Never; a mark says so.
    Off,
}

/// What to do with averages.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Averages {
    /// One image from all of them.
    #[default]
    Combine,
    /// One image each.
    Apart,
}

/// What to do with a coil that carries nothing of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BadCoil {
    /// Go on without it, with a mark.
    Drop,
    /// Refuse the scan.
    Refuse,
}

/// What to do with a line that does not fit the encoded matrix.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LinesOutside {
    /// Refuse the scan: header and data contradict each other.
    #[default]
    Refuse,
    /// Leave them out, with a mark.
    Skip,
}

/// When a frame is handed on.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// As soon as its last-in-slice flag was seen and no announced line is missing.
    #[default]
    Flags,
    /// When the scan is over: for scans whose flags are wrong.
    End,
}

/// What the frames of an interleaved scan, of which each measures other lines, are to each other.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Interleaved {
    /// Each is an image of its own lines, calibrated from the last frames together (TGRAPPA, TSENSE).
    #[default]
    Parallel,
    /// Each takes its missing lines from the frames before it.
    SlidingWindow,
}

/// Which way the stated directions run.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Directions {
    /// As the header's vendor means them: raw data of Siemens are made for a forward transform from k-space to image,
    /// so the directions are turned for ours, with a mark.
    #[default]
    ByVendor,
    /// As stated, whoever the vendor is: for files whose k-space was conjugated on the way.
    AsStated,
}

/// Parameters of ingest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IngestParams {
    /// Whether noise is whitened: `auto`, `require`, `off`.
    pub whiten: Whiten,
    /// Averages: `combine`, `apart`.
    pub averages: Averages,
    /// A coil whose noise readouts are zero. It carries no information, so by default the scan goes on without it.
    pub dead_coil: BadCoil,
    /// A coil that is a copy of another (noise covariance not positive definite). It points to a broken
    /// conversion, so by default the scan is refused.
    pub duplicate_coil: BadCoil,
    /// A line outside the encoded matrix: `refuse`, `skip`.
    pub lines_outside: LinesOutside,
    /// When a frame is handed on: `flags`, `end`.
    pub release: Release,
    /// Frames of an interleaved scan: `parallel` (each from its own lines, calibrated from the last frames together),
    /// `sliding_window` (missing lines from the frames before).
    pub interleaved: Interleaved,
    /// Which way the stated directions run: `by_vendor` (Siemens raw data are made for a forward transform from k-space
    /// to image; their directions are turned, with a mark), `as_stated` (k-space was conjugated on the way).
    pub directions: Directions,
    /// Without noise readouts, estimate the noise from the edges of k-space. The image is marked: edges hold
    /// signal too, so the noise comes out too high and the SNR too low.
    pub noise_from_edges: bool,
    /// Time between samples of the imaging readouts, microseconds, where the readouts do not state it.
    pub dwell_us: Option<f64>,
    /// Time between samples of the noise readouts, microseconds, where the readouts do not state it.
    pub noise_dwell_us: Option<f64>,
    /// Overrides the header's `relativeReceiverNoiseBandwidth`.
    pub noise_bandwidth_ratio: Option<f64>,
}

impl Default for IngestParams {
    fn default() -> Self {
        Self {
            whiten: Whiten::Auto,
            averages: Averages::Combine,
            dead_coil: BadCoil::Drop,
            duplicate_coil: BadCoil::Refuse,
            lines_outside: LinesOutside::Refuse,
            release: Release::Flags,
            interleaved: Interleaved::Parallel,
            directions: Directions::ByVendor,
            noise_from_edges: false,
            dwell_us: None,
            noise_dwell_us: None,
            noise_bandwidth_ratio: None,
        }
    }
}
