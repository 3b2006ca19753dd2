//! Interleaved scans: the lines of successive frames, which fill each other's gaps, roll on with time.
//!
//! Every frame of acceleration `R` measures other lines than the one before; `R` of them make a full k-space. From its
//! middle a frame is calibrated (TGRAPPA, TSENSE); with a sliding window the frame takes all missing lines from it.
//!
//! # Source
//! Breuer et al., Magn Reson Med 53:981-985 (2005), doi:10.1002/mrm.20430 (TGRAPPA); Kellman et al., Magn Reson Med
//! 45:846-852 (2001), doi:10.1002/mrm.1113 (TSENSE). Unlike both, a frame is calibrated from itself and the frames
//! *before* it, so that no image waits for a later one; only the first `R - 1` do.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::Growing;
use super::sort::{self, PlacedLine, key_text};
use crate::data::{Calibration, FrameKey, Note, ScanEncoding};

/// Lines on each side of the centre that calibrate.
const HALF: usize = 16;

/// Frames of one slice.
#[derive(Default)]
pub(super) struct Rolling {
    recent: VecDeque<Arc<Vec<PlacedLine>>>,
    waiting: Vec<(FrameKey, Growing)>,
}

/// A frame that waits no longer.
pub(super) struct Calibrated {
    pub(super) key: FrameKey,
    pub(super) growing: Growing,
    pub(super) note: Note,
}

/// Frames that make a full k-space, if the encoding is interleaved.
pub(super) fn n_frames(e: &ScanEncoding) -> Option<usize> {
    let n = e.acceleration[0] * e.acceleration[1];
    (e.calibration == Calibration::Interleaved && n > 1).then_some(n)
}

/// Frames of one key follow each other in time.
pub(super) fn series(key: &FrameKey) -> FrameKey {
    FrameKey {
        repetition: 0,
        cardiac_phase: 0,
        ..*key
    }
}

impl Rolling {
    /// Bytes of the lines that are kept: of frames that wait, and of those that calibrate the next ones.
    pub(super) fn held_bytes(&self) -> u64 {
        let recent = self.recent.iter().flat_map(|lines| lines.iter());
        let waiting = self.waiting.iter().flat_map(|(_, g)| &g.imaging);
        sort::bytes(recent.chain(waiting))
    }

    /// Takes a frame in; gives back those that can be calibrated, this one last.
    pub(super) fn push(
        &mut self,
        key: FrameKey,
        growing: Growing,
        e: &ScanEncoding,
        n_frames: usize,
        is_sliding: bool,
    ) -> Vec<Calibrated> {
        let is_central = |l: &&PlacedLine| {
            let near = |k: u32, n: usize| (k as usize).abs_diff(n / 2) <= HALF || n == 1;
            near(l.pe1, e.grid[1]) && near(l.pe2, e.grid[2])
        };
        let kept = growing
            .imaging
            .iter()
            .filter(|l| is_sliding || is_central(l));
        self.recent.push_back(Arc::new(kept.cloned().collect()));
        if self.recent.len() > n_frames {
            self.recent.pop_front();
        }
        self.waiting.push((key, growing));
        if self.recent.len() < n_frames {
            return Vec::new();
        }
        self.release(is_sliding)
    }

    /// Everything that waits, with the lines that there are.
    pub(super) fn release(&mut self, is_sliding: bool) -> Vec<Calibrated> {
        let n = self.recent.len();
        let all: Vec<PlacedLine> = self.recent.iter().flat_map(|l| l.iter().cloned()).collect();
        let n_waiting = self.waiting.len();
        std::mem::take(&mut self.waiting)
            .into_iter()
            .enumerate()
            .map(|(i, (key, mut growing))| {
                let name = key_text(&key);
                let when = match n_waiting - 1 - i {
                    0 => "itself and those before it".to_owned(),
                    later => format!("itself, those before it and {later} after it"),
                };
                let note = if is_sliding {
                    let own: BTreeSet<(u32, u32)> =
                        growing.imaging.iter().map(|l| (l.pe2, l.pe1)).collect();
                    let others = all.iter().filter(|l| !own.contains(&(l.pe2, l.pe1)));
                    growing.imaging.extend(others.cloned());
                    Note::new(
                        "sliding_window",
                        format!("{name}: lines of {n} frames, {when}: motion between them blurs"),
                    )
                } else {
                    growing.calibration.clone_from(&all);
                    Note::new(
                        "reference_rolling",
                        format!("{name}: calibrated from the central lines of {n} frames, {when}"),
                    )
                };
                Calibrated { key, growing, note }
            })
            .collect()
    }
}
