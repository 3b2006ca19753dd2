//! Who looks on: progress for people, and the question whether to go on.

/// Hears how far a run has come. Called from several threads.
pub trait Watch: Sync {
    /// The run begins; how many readouts and frames are expected, as far as the source and its header say.
    fn begin(&self, _readouts: Option<u64>, _frames: usize) {}
    /// So many more readouts were taken in.
    fn readouts(&self, _count: u64) {}
    /// One more image is there.
    fn image(&self) {}
    /// Whether someone asked for an end.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Nobody looks on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {}
