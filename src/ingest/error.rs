//! What can be wrong with readouts or with their header.

use crate::data::{Fault, FaultKind};

use super::noise::NoiseError;

/// Errors of ingest. Acquisitions are numbered from 0 in the order they came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// A field of the header cannot be right.
    #[error("header, encoding {encoding}: {what}: found {found}, needed {needed}")]
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
        "the header has no `encoding` element: matrix, field of view and trajectory are unknown; convert the scan again"
    )]
    NoEncoding,
    /// No encoding is Cartesian.
    #[error("trajectory not supported: {found}; Cartesian scans are reconstructed")]
    Trajectory {
        /// What each encoding says.
        found: String,
    },
    /// A readout refers to an encoding that the header lacks.
    #[error(
        "acquisition {acquisition} (scan counter {scan_counter}) refers to encoding {found}, the header has {n_encodings}"
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
        "acquisition {acquisition} (scan counter {scan_counter}) has {found} coils, {expected_from} has {expected}: a scan must keep its coils; split the file by coil count"
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
        "acquisition {acquisition} (scan counter {scan_counter}): {what}: found {found}, needed {needed}"
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
        "{count} samples are NaN or infinite, the first in acquisition {acquisition} (scan counter {scan_counter}), coil {coil}: the data are damaged; nothing was replaced"
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
        "acquisition {acquisition} (scan counter {scan_counter}): line {counter} along {axis} lies at {position} of the encoded matrix (centre {centre} at {half} of {n}): header and data contradict each other; correct the header's encodingLimits, or set ingest.lines_outside = \"skip\""
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
        "acquisition {acquisition} (scan counter {scan_counter}) is compressed (flags 53-56): decompress the stream first"
    )]
    Compressed {
        /// Which readout.
        acquisition: u64,
        /// Its counter.
        scan_counter: u32,
    },
    /// Nothing to reconstruct.
    #[error("no imaging readout in the scan: {seen}")]
    Empty {
        /// What there was instead.
        seen: String,
    },
    /// A readout of a frame that was handed on.
    #[error(
        "acquisition {acquisition} (scan counter {scan_counter}) belongs to {key}, which was complete and handed on: the scan's last-in-slice flags or its average limits are wrong; set ingest.release = \"end\" to wait for the end of the scan"
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
        "{key}: direction cosines read {read:?}, phase {phase:?}, slice {slice:?} are not orthonormal (off by {off:.3}): the image's place in the patient would be wrong; correct the acquisition headers"
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
