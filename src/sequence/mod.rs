//! What the scanner plays: parameters, the order of the lines, timing, and what one sort of matter answers.
//!
//! [`SequenceParams`] is the `[sequence]` table of a protocol. [`Order`] says which line is measured in which shot at
//! which echo, [`Timing`] how long it takes and whether it is possible, [`Train`] the amplitude of each echo for one
//! compartment. Knows no k-space and no anatomy.

mod epg;
mod error;
mod fat;
mod order;
mod params;
mod signal;
mod timing;
mod words;
mod worth;

pub use error::SequenceError;
pub use fat::{FAT_PEAKS, FatPeak, HYDROGEN_HZ_PER_T};
pub use order::{Line, Order, Shot};
pub use params::{
    AccelerationParams, Contrast, FatMethod, FatParams, Kind, LineOrder, PhaseDirection, Plane,
    Region, SamplingKind, SamplingParams, SequenceParams,
};
pub use signal::{Recovery, Train};
pub use timing::Timing;
pub use worth::{REFERENCE_TISSUES, ReferenceTissue, TissueWorth, Worth, snr_to_win_back};

#[cfg(test)]
mod tests;
