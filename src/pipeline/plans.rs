//! One plan per sampling pattern, shared by all workers.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::data::{Fault, Frame, KSpace, Line, Scan, Shape};
use crate::device::Device;
use crate::recon::{Method, Recon, ReconParams};

use super::guard::border;
use super::report::PatternReport;
use super::warm::Warm;

/// What must be equal for two frames to share a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    encoding_idx: u16,
    matrix: [usize; 3],
    is_whitened: bool,
    kspace: Grid,
    reference: Option<Grid>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Grid {
    shape: Shape,
    lines: Vec<Line>,
    ro_range: Range<usize>,
}

impl Grid {
    fn of(kspace: &KSpace) -> Self {
        Self {
            shape: kspace.shape,
            lines: kspace.lines.clone(),
            ro_range: kspace.ro_range.clone(),
        }
    }
}

impl Pattern {
    fn of(frame: &Frame) -> Self {
        Self {
            encoding_idx: frame.key.encoding_idx,
            matrix: frame.geometry.matrix,
            is_whitened: frame.is_whitened,
            kspace: Grid::of(&frame.kspace),
            reference: frame.reference.as_ref().map(Grid::of),
        }
    }

    fn describe(&self) -> String {
        let s = self.kspace.shape;
        let mut out = format!(
            "encoding {}: {} coils, {} of {} lines of {} samples",
            self.encoding_idx,
            s.coil,
            self.kspace.lines.len(),
            s.pe1 * s.pe2,
            s.ro
        );
        if s.pe2 > 1 {
            out.push_str(&format!(" ({}x{})", s.pe1, s.pe2));
        }
        let n = self.kspace.ro_range.len();
        if n < s.ro {
            out.push_str(&format!(", {n} of them measured"));
        }
        if let Some(r) = &self.reference {
            out.push_str(&format!(", {} reference lines apart", r.lines.len()));
        }
        out
    }
}

/// Patterns whose plans are kept: more than a scan that comes back to them has, few enough for one whose every frame
/// is sampled anew.
const MAX_PLANS: usize = 64;

struct Entry {
    pattern: Pattern,
    recon: Arc<Recon>,
    frames: usize,
    /// When it was asked for last.
    used: u64,
}

#[derive(Default)]
struct Kept {
    entries: Vec<Entry>,
    /// Times that anything was asked for.
    asked: u64,
    /// Plans that had to go, and the frames that were reconstructed with them.
    dropped: [usize; 2],
}

/// The plans of one scan.
pub struct Plans<'a> {
    scan: &'a Scan,
    params: &'a ReconParams,
    device: &'a Device,
    /// Where networks are; without it none is loaded.
    warm: Option<&'a Warm>,
    kept: Mutex<Kept>,
}

impl<'a> Plans<'a> {
    /// No plans yet.
    pub fn new(scan: &'a Scan, params: &'a ReconParams, device: &'a Device) -> Self {
        Self {
            scan,
            params,
            device,
            warm: None,
            kept: Mutex::default(),
        }
    }

    /// With the networks that plans ask for.
    pub fn with_networks(mut self, warm: &'a Warm) -> Self {
        self.warm = Some(warm);
        self
    }

    /// The plan for this frame, made now if it is the first of its pattern. Others wait meanwhile: most likely they
    /// need the same one. The plan that was not asked for longest goes when there are too many.
    ///
    /// # Errors
    /// Those of [`Recon::plan`].
    pub fn get(&self, frame: &Frame) -> Result<Arc<Recon>, Fault> {
        let pattern = Pattern::of(frame);
        let mut kept = self.kept.lock().unwrap_or_else(|e| e.into_inner());
        kept.asked += 1;
        let used = kept.asked;
        if let Some(entry) = kept.entries.iter_mut().find(|e| e.pattern == pattern) {
            entry.frames += 1;
            entry.used = used;
            return Ok(Arc::clone(&entry.recon));
        }
        let mut recon = border("recon", || {
            Ok(Recon::plan(self.scan, frame, self.params, self.device)?)
        })?;
        if let (Method::Unrolled, Some(warm)) = (recon.method(), self.warm) {
            let which = &self.params.unrolled.model;
            let network = warm.denoiser(which, self.device.threads);
            recon = recon.with_network(network.map_err(|e| e.to_string()));
        }
        let recon = Arc::new(recon);
        let oldest = (0..kept.entries.len()).min_by_key(|i| kept.entries[*i].used);
        if let Some(oldest) = oldest.filter(|_| kept.entries.len() >= MAX_PLANS) {
            let gone = kept.entries.remove(oldest);
            kept.dropped[0] += 1;
            kept.dropped[1] += gone.frames;
        }
        kept.entries.push(Entry {
            pattern,
            recon: Arc::clone(&recon),
            frames: 1,
            used,
        });
        Ok(recon)
    }

    /// What was planned, in the order of first use; of plans that had to go only how many.
    pub fn report(&self) -> Vec<PatternReport> {
        let kept = self.kept.lock().unwrap_or_else(|e| e.into_inner());
        let [plans, frames] = kept.dropped;
        let dropped = (plans > 0).then(|| PatternReport {
            pattern: format!("{plans} more, before these"),
            frames,
            recipes: Vec::new(),
        });
        let entries = kept.entries.iter().map(|e| PatternReport {
            pattern: e.pattern.describe(),
            frames: e.frames,
            recipes: e.recon.recipes().to_vec(),
        });
        dropped.into_iter().chain(entries).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{Ingest, IngestParams};

    #[test]
    fn a_scan_that_samples_every_frame_anew_keeps_a_bounded_number_of_plans() {
        let sim = crate::phantom::Simulate {
            matrix: [16, 16, 1],
            n_slices: 1,
            n_coils: 2,
            ..crate::phantom::Simulate::preset("small").unwrap()
        };
        let made = crate::phantom::simulate(&sim).unwrap();
        let mut ingest = Ingest::plan(&made.header, &IngestParams::default(), None).unwrap();
        let readouts: Vec<_> = made.acquisitions.iter().map(|a| a.as_ref()).collect();
        ingest.push(&readouts).unwrap();
        let mut done = ingest.finish().unwrap();
        let mut frame = done.frames.remove(0).assemble().unwrap();
        let (params, device) = (ReconParams::default(), Device::detect());
        let plans = Plans::new(&done.scan, &params, &device);
        let first = plans.get(&frame).unwrap();
        for i in 0..2 * MAX_PLANS as u32 {
            // Another number of averages is another pattern.
            frame.kspace.lines[3].averages = 2 + i;
            plans.get(&frame).unwrap();
            frame.kspace.lines[3].averages = 1;
            // What is asked for again and again stays.
            assert!(Arc::ptr_eq(&first, &plans.get(&frame).unwrap()));
        }
        assert_eq!(plans.kept.lock().unwrap().entries.len(), MAX_PLANS);
        let report = plans.report();
        assert_eq!(report.len(), MAX_PLANS + 1);
        let frames: usize = report.iter().map(|p| p.frames).sum();
        assert_eq!(frames, 1 + 4 * MAX_PLANS);
    }
}
