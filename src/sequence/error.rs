//! What can be impossible about a sequence, and the nearest that is possible.

/// Errors of this room. Every message names the key, what was asked, and the nearest possible values.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SequenceError {
    /// One value out of its range.
    #[error("sequence.{key}: {found}; needed: {needed}")]
    Range {
        /// Key below `sequence`.
        key: &'static str,
        /// As asked.
        found: String,
        /// What is possible, with the nearest value.
        needed: String,
    },
    /// The slices of a concatenation do not fit into TR.
    #[error(
        "sequence.n_slices: {n_slices} slices in {concatenations} concatenation(s) do not fit into a TR of {tr_ms} ms: \
         each takes {slice_ms:.1} ms, room is for {fitting}; nearest: tr_ms = {nearest_tr_ms}{or_concatenations}"
    )]
    SlicesDoNotFit {
        /// Asked for.
        n_slices: usize,
        /// Asked for.
        concatenations: usize,
        /// Asked for.
        tr_ms: f64,
        /// Preparation and train of one slice.
        slice_ms: f64,
        /// Slices that fit into TR.
        fitting: usize,
        /// Shortest TR for this number of concatenations, whole ms.
        nearest_tr_ms: f64,
        /// `, or concatenations = n`, where any number would do.
        or_concatenations: String,
    },
    /// The inversion is not before the excitation, or leaves no room for a train in TR.
    #[error(
        "sequence.ti_ms: {ti_ms} ms; possible: above 0 and at most {longest_ms:.1} ms, which leaves one train of {slice_ms:.1} ms in a TR of {tr_ms} ms"
    )]
    InversionTime {
        /// Asked for.
        ti_ms: f64,
        /// Asked for.
        tr_ms: f64,
        /// Preparation and train of one slice.
        slice_ms: f64,
        /// Longest possible.
        longest_ms: f64,
    },
    /// The effective echo time is not the time of an echo.
    #[error(
        "sequence.te_ms: {te_ms} ms is not on an echo (every {echo_spacing_ms} ms, {echo_train_length} echoes); nearest: {below_ms} or {above_ms} ms"
    )]
    EchoTime {
        /// Asked for.
        te_ms: f64,
        /// Asked for.
        echo_spacing_ms: f64,
        /// Asked for.
        echo_train_length: usize,
        /// Nearest echo at or below; the first where there is none.
        below_ms: f64,
        /// Nearest echo at or above; the last where there is none.
        above_ms: f64,
    },
    /// The readout is longer than the gap between two pulses.
    #[error(
        "sequence.bandwidth_hz_per_pixel: {bandwidth} Hz reads for {readout_ms:.2} ms, room is for {room_ms:.2} ms; \
         nearest: bandwidth_hz_per_pixel = {nearest_bandwidth}, or {key} = {nearest_ms}"
    )]
    Readout {
        /// Asked for, Hz per pixel.
        bandwidth: f64,
        /// Time of a readout.
        readout_ms: f64,
        /// Time there is.
        room_ms: f64,
        /// Smallest bandwidth that fits, whole Hz.
        nearest_bandwidth: f64,
        /// Which time could be longer instead.
        key: &'static str,
        /// Its shortest value that fits.
        nearest_ms: f64,
    },
}
