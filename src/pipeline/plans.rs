//! One plan per sampling pattern, shared by all workers.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::data::{Fault, Frame, KSpace, Line, Scan, Shape};
use crate::device::Device;
use crate::recon::{Recon, ReconParams};

use super::guard::border;
use super::report::PatternReport;

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

struct Entry {
    pattern: Pattern,
    recon: Arc<Recon>,
    frames: usize,
}

/// The plans of one scan.
pub struct Plans<'a> {
    scan: &'a Scan,
    params: &'a ReconParams,
    device: &'a Device,
    entries: Mutex<Vec<Entry>>,
}

impl<'a> Plans<'a> {
    /// No plans yet.
    pub fn new(scan: &'a Scan, params: &'a ReconParams, device: &'a Device) -> Self {
        Self {
            scan,
            params,
            device,
            entries: Mutex::new(Vec::new()),
        }
    }

    /// The plan for this frame, made now if it is the first of its pattern. Others wait meanwhile: most likely they
    /// need the same one.
    ///
    /// # Errors
    /// Those of [`Recon::plan`].
    pub fn get(&self, frame: &Frame) -> Result<Arc<Recon>, Fault> {
        let pattern = Pattern::of(frame);
        let mut entries = self.entries.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(entry) = entries.iter_mut().find(|e| e.pattern == pattern) {
            entry.frames += 1;
            return Ok(Arc::clone(&entry.recon));
        }
        let recon = Arc::new(border("recon", || {
            Ok(Recon::plan(self.scan, frame, self.params, self.device)?)
        })?);
        entries.push(Entry {
            pattern,
            recon: Arc::clone(&recon),
            frames: 1,
        });
        Ok(recon)
    }

    /// What was planned, in the order of first use.
    pub fn report(&self) -> Vec<PatternReport> {
        let entries = self.entries.lock().unwrap_or_else(|e| e.into_inner());
        entries
            .iter()
            .map(|e| PatternReport {
                pattern: e.pattern.describe(),
                frames: e.frames,
                recipes: e.recon.recipes().to_vec(),
            })
            .collect()
    }
}
