//! What can be wrong with readouts or with their header.

use crate::data::{Fault, FaultKind};

use super::noise::NoiseError;

/// Errors of ingest. Acquisitions are numbered from 0 in the order they came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// A field of the header cannot be right.
    #[error(
        "header, encoding {encoding}: {what}\n  found:  {found}\n  needed: {needed}\n  try:    correct the header, or convert the scan again"
    )]
    Header {
        /// Index of the encoding.
        encoding: usize,
        /// Which field.
        what: &'static str,
        /// What stands there.
        found: String,
        /// What would do.
        needed: String,
    },
    /// The header has no encoding at all.
    #[error(
        "the header has no `encoding` element\n  needed: one, with matrix, field of view and trajectory\n  try:    convert the scan again"
    )]
    NoEncoding,
    /// No encoding is Cartesian.
    #[error(
        "trajectory not supported\n  found:  {found}\n  needed: cartesian\n  try:    grid it elsewhere first, or name a Cartesian scan"
    )]
    Trajectory {
        /// What each encoding says.
        found: String,
    },
    /// A readout refers to an encoding that the header lacks.
    #[error(
        "acquisition {acquisition} (scan counter {scan_counter})\n  found:  it refers to encoding {found}\n  needed: one of the header's {n_encodings}\n  try:    convert the scan again; header and data may be of two scans"
    )]
    NoSuchEncoding {
        /// Which readout.
        acquisition: u64,
        /// Its counter.
        scan_counter: u32,
        /// What it refers to.
        found: u16,
        /// Encodings of the header.
        n_encodings: usize,
    },
    /// Number of coils changes within the scan.
    #[error(
        "acquisition {acquisition} (scan counter {scan_counter})\n  found:  {found} coils\n  needed: {expected}, as {expected_from} has\n  try:    split the file by coil count"
    )]
    CoilCount {
        /// Which readout.
        acquisition: u64,
        /// Its counter.
        scan_counter: u32,
        /// Coils found.
        found: usize,
        /// Coils needed.
        expected: usize,
        /// Where the expectation comes from.
        expected_from: String,
    },
    /// Header of a readout and its samples disagree, or its own fields do.
    #[error(
        "acquisition {acquisition} (scan counter {scan_counter}): {what}\n  found:  {found}\n  needed: {needed}\n  try:    convert the scan again; header and data contradict each other"
    )]
    Readout {
        /// Which readout.
        acquisition: u64,
        /// Its counter.
        scan_counter: u32,
        /// Which field.
        what: &'static str,
        /// What stands there.
        found: String,
        /// What would do.
        needed: String,
    },
    /// NaN or infinity among the samples.
    #[error(
        "acquisition {acquisition} (scan counter {scan_counter}), coil {coil}\n  found:  {count} samples that are NaN or infinite, here and behind\n  needed: numbers; nothing was replaced\n  try:    copy or convert the scan again"
    )]
    NotFinite {
        /// How many in this batch.
        count: usize,
        /// First readout.
        acquisition: u64,
        /// Its counter.
        scan_counter: u32,
        /// First coil of it.
        coil: usize,
    },
    /// A line does not fit the encoded matrix.
    #[error(
        "acquisition {acquisition} (scan counter {scan_counter}): line {counter} along {axis}\n  found:  place {position} of the encoded matrix (centre {centre} at {half})\n  needed: 0 to below {n}: header and data contradict each other\n  try:    correct the header's encodingLimits, or set ingest.lines_outside = \"skip\""
    )]
    LineOutside {
        /// Which readout.
        acquisition: u64,
        /// Its counter.
        scan_counter: u32,
        /// `kspace_encode_step_1` or `_2`.
        axis: &'static str,
        /// Counter value.
        counter: u16,
        /// Index that it would have.
        position: i64,
        /// Centre as announced.
        centre: usize,
        /// Index of DC.
        half: usize,
        /// Extent.
        n: usize,
    },
    /// Samples are compressed.
    #[error(
        "acquisition {acquisition} (scan counter {scan_counter})\n  found:  compressed samples (flags 53-56)\n  needed: plain samples\n  try:    decompress the stream first"
    )]
    Compressed {
        /// Which readout.
        acquisition: u64,
        /// Its counter.
        scan_counter: u32,
    },
    /// Nothing to reconstruct.
    #[error(
        "no imaging readout in the scan\n  found:  {seen}\n  needed: image lines\n  try:    name another file, group or measurement"
    )]
    Empty {
        /// What there was instead.
        seen: String,
    },
    /// A readout of a frame that was handed on.
    #[error(
        "acquisition {acquisition} (scan counter {scan_counter}) belongs to {key}, which was complete and handed on: the scan's last-in-slice flags or its average limits are wrong\n  try:    set ingest.release = \"end\" to wait for the end of the scan"
    )]
    Late {
        /// Which readout.
        acquisition: u64,
        /// Its counter.
        scan_counter: u32,
        /// Which frame.
        key: String,
    },
    /// Directions that are no axes.
    #[error(
        "{key}: direction cosines read {read:?}, phase {phase:?}, slice {slice:?} are not orthonormal (off by {off:.3}): the image's place in the patient would be wrong\n  try:    correct the acquisition headers"
    )]
    Orientation {
        /// Which frame.
        key: String,
        /// Found.
        read: [f32; 3],
        /// Found.
        phase: [f32; 3],
        /// Found.
        slice: [f32; 3],
        /// Largest deviation.
        off: f64,
    },
    /// The noise cannot be used.
    #[error(transparent)]
    Noise(#[from] NoiseError),
}

impl From<IngestError> for Fault {
    fn from(e: IngestError) -> Self {
        let kind = match &e {
            IngestError::Trajectory { .. } | IngestError::Compressed { .. } => {
                FaultKind::Unsupported
            }
            _ => FaultKind::Input,
        };
        Fault {
            kind,
            room: "ingest",
            message: e.to_string(),
            source: Some(Box::new(e)),
        }
    }
}
