//! Lines of one frame in, compact k-space out: whitened, averaged, sorted, with what was noticed on the way.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use faer::{Accum, MatMut, MatRef, Par};
use ismrmrd::AcquisitionHeader;
use num_complex::Complex32;
use rayon::prelude::*;

use super::coverage::{Mask, coverage, list};
use super::geometry::{geometry, turn};
use super::noise::Whitener;
use super::pool::PooledLine;
use super::{Averages, IngestError};
use crate::data::{
    AcquisitionStamps, Calibration, Frame, FrameKey, KSpace, Line, Note, ScanEncoding, Shape,
};

/// One readout on the grid, before whitening.
#[derive(Clone, Debug)]
pub(crate) struct PlacedLine {
    pub(crate) pe1: u32,
    pub(crate) pe2: u32,
    /// Fixes the order of sums, so that it does not depend on the order of arrival.
    pub(crate) order: LineOrder,
    pub(crate) dwell_us: Option<f64>,
    pub(crate) ro_range: Range<usize>,
    /// `[coil, ro]`.
    pub(crate) samples: PooledLine,
}

/// Bytes of the samples of lines.
pub(super) fn bytes<'a>(lines: impl IntoIterator<Item = &'a PlacedLine>) -> u64 {
    let samples: usize = lines.into_iter().map(|l| l.samples.len()).sum();
    (samples * size_of::<Complex32>()) as u64
}

/// Repeated readouts of one line are summed in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LineOrder {
    pub(crate) average: u16,
    pub(crate) repetition: u16,
    pub(crate) segment: u16,
    pub(crate) scan_counter: u32,
    pub(crate) time_stamp: u32,
}

/// What all frames of a scan share.
#[derive(Debug)]
pub(crate) struct FrameContext {
    pub(crate) encoding: ScanEncoding,
    pub(crate) averages: Averages,
    pub(crate) n_coils: usize,
    pub(crate) whitener: Option<Arc<Whitener>>,
    /// The stated directions belong to a forward transform from k-space to image.
    pub(crate) is_forward_vendor: bool,
    /// Marks of the scan that every image must carry.
    pub(crate) notes: Vec<Note>,
}

/// The readout nearest the k-space centre, and whether others lie elsewhere in the patient.
#[derive(Clone, Debug)]
pub(crate) struct Central {
    rank: (i64, u16, u32, u32),
    pub(crate) head: AcquisitionHeader,
    pub(crate) is_moving: bool,
}

impl Central {
    pub(crate) fn new(head: &AcquisitionHeader, distance: i64) -> Self {
        Self {
            rank: (
                distance,
                head.idx.average,
                head.scan_counter,
                head.acquisition_time_stamp,
            ),
            head: *head,
            is_moving: false,
        }
    }

    pub(crate) fn meet(&mut self, head: &AcquisitionHeader, distance: i64) {
        let h = &self.head;
        self.is_moving |= h.position != head.position
            || h.read_dir != head.read_dir
            || h.phase_dir != head.phase_dir
            || h.slice_dir != head.slice_dir;
        let other = Self::new(head, distance);
        if other.rank < self.rank {
            self.rank = other.rank;
            self.head = other.head;
        }
    }
}

/// The lines of a frame that is complete, before they are put together. Cheap to send to another thread.
#[derive(Debug)]
pub struct PendingFrame {
    pub(crate) key: FrameKey,
    pub(crate) imaging: Vec<PlacedLine>,
    pub(crate) calibration: Arc<Vec<PlacedLine>>,
    pub(crate) central: Central,
    pub(crate) context: Arc<FrameContext>,
    pub(crate) notes: Vec<Note>,
    pub(crate) arrival: Option<(Instant, Instant)>,
}

/// Text for people of a key.
pub(crate) fn key_text(key: &FrameKey) -> String {
    let mut text = format!("slice {}", key.slice_idx);
    for (name, value) in [
        ("encoding", key.encoding_idx),
        ("repetition", key.repetition),
        ("cardiac phase", key.cardiac_phase),
        ("contrast", key.contrast),
        ("set", key.set),
        ("average", key.average),
    ] {
        if value != 0 {
            text.push_str(&format!(", {name} {value}"));
        }
    }
    text
}

/// What becomes of the lines flagged "calibration only".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CalibrationUse {
    None,
    /// Same readout train as the imaging lines: they belong to the image.
    Imaging,
    /// Another contrast, or another time: calibrate from them only.
    Reference,
}

impl PendingFrame {
    /// Which image it becomes.
    pub fn key(&self) -> FrameKey {
        self.key
    }

    /// When its first and its last line came, if ingest was told.
    pub fn arrival(&self) -> Option<(Instant, Instant)> {
        self.arrival
    }

    /// Imaging readouts collected for it.
    pub fn n_readouts(&self) -> usize {
        self.imaging.len()
    }

    /// Bytes of samples held.
    pub fn heap_bytes(&self) -> usize {
        let lines = self.imaging.iter().chain(self.calibration.iter());
        lines.map(|l| l.samples.len()).sum::<usize>() * size_of::<Complex32>()
    }

    /// Whitens the lines, averages repeated ones, sorts them, and looks for missing ones.
    ///
    /// # Errors
    /// [`IngestError::Orientation`].
    ///
    /// # Numerics
    /// Whitening in f32 (one product per line); sums of repeated lines in f32 in a fixed order: bit-identical for
    /// any order of arrival and any number of threads.
    pub fn assemble(mut self) -> Result<Frame, IngestError> {
        let context = Arc::clone(&self.context);
        let e = &context.encoding;
        let mut notes = context.notes.clone();
        notes.append(&mut self.notes);
        let name = key_text(&self.key);
        let mut geometry = geometry(&name, &self.central.head, e, &mut notes)?;
        if context.is_forward_vendor {
            turn(&mut geometry, e.grid[2] > 1);
        }
        if self.central.is_moving {
            notes.push(Note::new(
                "moving_geometry",
                format!("{name}: its readouts state several positions or directions: those of the central readout are used"),
            ));
        }

        let calibration_use = self.calibration_use(&mut notes);
        let calibration = std::mem::take(&mut self.calibration);
        let mut imaging = std::mem::take(&mut self.imaging);
        if calibration_use == CalibrationUse::Imaging {
            imaging.extend(match Arc::try_unwrap(calibration.clone()) {
                Ok(lines) => lines,
                Err(shared) => shared.as_ref().clone(),
            });
        }
        let is_whitened = context.whitener.as_ref().is_some_and(|w| {
            imaging
                .iter()
                .chain(calibration.iter())
                .all(|l| w.is_unit(l.dwell_us))
        });
        let kspace = self.put_together(imaging, &name, &mut notes);
        let mut mask = Mask::new(e.grid[1], e.grid[2]);
        for line in &kspace.lines {
            mask.set(line.pe1, line.pe2);
        }
        coverage(&mask, e).notes(e, &mut notes);
        let reference = (calibration_use == CalibrationUse::Reference).then(|| {
            let lines =
                Arc::try_unwrap(calibration).unwrap_or_else(|shared| shared.as_ref().clone());
            // Calibration lines may be repeated or sparse by design: nothing to say about them.
            self.put_together(lines, &name, &mut Vec::new())
        });
        let head = &self.central.head;
        Ok(Frame {
            key: self.key,
            kspace,
            reference,
            is_whitened,
            geometry,
            table_position_mm: head.patient_table_position,
            stamps: AcquisitionStamps {
                measurement_uid: head.measurement_uid,
                acquisition_time_stamp: head.acquisition_time_stamp,
                physiology_time_stamp: head.physiology_time_stamp,
            },
            notes,
        })
    }

    fn calibration_use(&self, notes: &mut Vec<Note>) -> CalibrationUse {
        if self.calibration.is_empty() {
            return CalibrationUse::None;
        }
        let mode = self.context.encoding.calibration;
        if mode != Calibration::Embedded && mode != Calibration::Unstated {
            return CalibrationUse::Reference;
        }
        // A line measured both for imaging and for calibration only was measured in a scan of its own.
        let mut mask = std::collections::BTreeSet::new();
        mask.extend(self.imaging.iter().map(|l| (l.pe2, l.pe1)));
        let n_both = self
            .calibration
            .iter()
            .filter(|l| mask.contains(&(l.pe2, l.pe1)))
            .count();
        if n_both == 0 {
            if mode == Calibration::Unstated {
                notes.push(Note::new(
                    "calibration_unstated",
                    "the header states no calibration mode; the calibration lines fill gaps of the imaging lines: \
                     read as embedded",
                ));
            }
            return CalibrationUse::Imaging;
        }
        notes.push(Note::new(
            "calibration_repeats_imaging",
            format!(
                "the header states {} calibration, but {n_both} of {} calibration-only lines repeat imaging lines: \
                 read as a separate reference scan",
                if mode == Calibration::Embedded { "embedded" } else { "no" },
                self.calibration.len()
            ),
        ));
        CalibrationUse::Reference
    }

    /// Whitened, averaged, sorted.
    fn put_together(
        &self,
        mut lines: Vec<PlacedLine>,
        name: &str,
        notes: &mut Vec<Note>,
    ) -> KSpace {
        let c = &self.context;
        let [ro, pe1, pe2] = c.encoding.grid;
        lines.sort_by_key(|l| (l.pe2, l.pe1, l.order));

        let mut runs: Vec<&mut [PlacedLine]> = lines
            .chunk_by_mut(|a, b| (a.pe2, a.pe1) == (b.pe2, b.pe1))
            .collect();
        say_repeats(&runs, name, c.averages, notes);
        let n_out = c.whitener.as_ref().map_or(c.n_coils, |w| w.kept.len());
        combine(&mut runs, c.whitener.as_deref(), ro);

        let ro_range = common_range(runs.iter().flat_map(|run| run.iter()), ro, name, notes);
        let is_whole = ro_range == (0..ro);
        let n_lines = runs.len();
        let mut samples = vec![Complex32::ZERO; n_out * n_lines * ro];
        if n_lines > 0 {
            samples
                .par_chunks_mut(n_lines * ro)
                .enumerate()
                .for_each(|(coil, rows)| {
                    for (row, run) in rows.chunks_exact_mut(ro).zip(&runs) {
                        row.copy_from_slice(&run[0].samples[coil * ro..(coil + 1) * ro]);
                        if !is_whole {
                            row[..ro_range.start].fill(Complex32::ZERO);
                            row[ro_range.end..].fill(Complex32::ZERO);
                        }
                    }
                });
        }
        #[allow(clippy::cast_possible_truncation)] // readouts of one line: counters are 16 bits
        let lines = runs
            .iter()
            .map(|run| Line {
                pe2: run[0].pe2,
                pe1: run[0].pe1,
                averages: run.len() as u32,
            })
            .collect();
        KSpace {
            shape: Shape {
                coil: n_out,
                pe2,
                pe1,
                ro,
            },
            lines,
            ro_range,
            samples,
        }
    }
}

/// Makes the first line of each run the whitened mean of all of them; runs in parallel.
fn combine(runs: &mut [&mut [PlacedLine]], whitener: Option<&Whitener>, ro: usize) {
    // One matrix per dwell time; nearly always there is one.
    let mut matrices: BTreeMap<Option<u64>, Vec<Complex32>> = BTreeMap::new();
    if let Some(whitener) = whitener {
        for l in runs.iter().flat_map(|run| run.iter()) {
            matrices
                .entry(l.dwell_us.map(f64::to_bits))
                .or_insert_with(|| whitener.scaled(l.dwell_us));
        }
    }
    runs.par_iter_mut().for_each_init(Vec::new, |room, run| {
        let mut whiten = |l: &mut PlacedLine| {
            if let Some(w) = matrices.get(&l.dwell_us.map(f64::to_bits)) {
                multiply(w, l, ro, room);
            }
        };
        // Whitening is linear: lines of one dwell time are whitened once, as their mean.
        let is_mixed = run.iter().any(|l| l.dwell_us != run[0].dwell_us);
        if is_mixed {
            run.iter_mut().for_each(&mut whiten);
        }
        let Some((first, others)) = run.split_first_mut() else {
            return;
        };
        for other in &*others {
            for (v, s) in first.samples.iter_mut().zip(other.samples.iter()) {
                *v += s;
            }
        }
        if !others.is_empty() {
            let mean = 1.0 / (others.len() + 1) as f32;
            first.samples.iter_mut().for_each(|v| *v *= mean);
        }
        if !is_mixed {
            whiten(first);
        }
    });
}

/// Multiplies the coils of a line by `matrix` `[out, coil]`; the first `out` rows of the line are the result.
fn multiply(matrix: &[Complex32], line: &mut PlacedLine, ro: usize, room: &mut Vec<Complex32>) {
    let n_in = line.samples.len() / ro.max(1);
    let n_out = matrix.len() / n_in.max(1);
    room.resize(n_out * ro, Complex32::ZERO);
    faer::linalg::matmul::matmul(
        MatMut::from_row_major_slice_mut(room, n_out, ro),
        Accum::Replace,
        MatRef::from_row_major_slice(matrix, n_out, n_in),
        MatRef::from_row_major_slice(&line.samples, n_in, ro),
        Complex32::ONE,
        Par::Seq,
    );
    line.samples[..n_out * ro].copy_from_slice(room);
}

/// Samples that every line measured. Lines that measured more are cut to it, with a mark.
fn common_range<'a>(
    mut lines: impl Iterator<Item = &'a PlacedLine>,
    ro: usize,
    name: &str,
    notes: &mut Vec<Note>,
) -> Range<usize> {
    let Some(first) = lines.next() else {
        return 0..ro;
    };
    let mut range = first.ro_range.clone();
    let mut is_mixed = false;
    for l in lines {
        is_mixed |= l.ro_range != first.ro_range;
        range = range.start.max(l.ro_range.start)..range.end.min(l.ro_range.end);
    }
    if range.end < range.start {
        range.end = range.start;
    }
    if is_mixed {
        notes.push(Note::new(
            "mixed_echo_position",
            format!(
                "{name}: lines measured different parts of the readout; samples {}..{} of {ro}, which all have, are used",
                range.start, range.end
            ),
        ));
    }
    range
}

/// Says which lines were measured more than once.
fn say_repeats(runs: &[&mut [PlacedLine]], name: &str, averages: Averages, notes: &mut Vec<Note>) {
    let most = runs.iter().map(|run| run.len()).max().unwrap_or(0);
    if most < 2 {
        return;
    }
    let least = runs.iter().map(|run| run.len()).min().unwrap_or(0);
    // Averages that the counter announces are as asked; repeats under one average counter are not.
    let repeated: Vec<(usize, usize)> = runs
        .iter()
        .filter(|run| {
            run.windows(2)
                .any(|w| w[0].order.average == w[1].order.average)
        })
        .map(|run| (run[0].pe2 as usize, run[0].pe1 as usize))
        .collect();
    if averages == Averages::Combine && repeated.is_empty() {
        let text = if least == most {
            format!("{name}: {most} averages of each line combined")
        } else {
            format!("{name}: {least} to {most} averages per line combined")
        };
        notes.push(Note::new("averages_combined", text));
    } else {
        notes.push(Note::new(
            "repeated_lines",
            format!(
                "{name}: {} lines were measured more than once under one average counter ({}): their mean is used",
                repeated.len(),
                list(&repeated)
            ),
        ));
    }
}
