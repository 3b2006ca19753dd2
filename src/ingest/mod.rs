//! Readouts in, complete k-space out.
//!
//! In: the scan's header and batches of readouts in any order. Out: one [`PendingFrame`] per image, which becomes a
//! [`Frame`](crate::data::Frame) on the thread that reconstructs it: noise whitened, readout oversampling removed,
//! asymmetric echoes placed, lines sorted, repeats averaged, gaps seen. What was set aside, dropped or guessed is a
//! [`Note`].
//!
//! The heavy part of [`Ingest::push`] (two short transforms per coil) runs in parallel over the batch and keeps only
//! the cropped samples. Whitening commutes with everything that is done along the readout, so it waits for
//! [`PendingFrame::assemble`]: on half the data, and with the noise of the whole scan whatever the order of arrival.

mod accept;
mod coverage;
mod error;
mod geometry;
mod header;
mod noise;
mod oversampling;
mod params;
mod sort;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ismrmrd::acquisition::AcquisitionRef;
use ismrmrd::{AcquisitionFlag as Flag, AcquisitionHeader};
use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

pub use error::IngestError;
pub use noise::{Dwell, NoiseAccumulator, NoiseError, noise_covariance, whitening};
pub use params::{Averages, BadCoil, Directions, IngestParams, LinesOutside, Release, Whiten};
pub use sort::PendingFrame;

use crate::data::{FrameKey, NoiseCovariance, Note, Scan, ScanEncoding, Step};
use accept::Kind;
use noise::Whitener;
use oversampling::{Oversampling, Placement, Work};
use sort::{Central, FrameContext, LineOrder, PlacedLine, key_text};

/// Everything that a scan gave.
#[derive(Debug)]
pub struct Ingested {
    /// The validated scan.
    pub scan: Scan,
    /// Frames that were not taken before, ordered by key.
    pub frames: Vec<PendingFrame>,
    /// Covariance of the noise, if there was any to estimate it from.
    pub noise: Option<NoiseCovariance>,
    /// What was done.
    pub steps: Vec<Step>,
    /// Marks of the scan as a whole. Those that every image must carry stand in its frame too.
    pub notes: Vec<Note>,
}

/// Lines of a frame that still grows.
#[derive(Default)]
struct Growing {
    imaging: Vec<PlacedLine>,
    calibration: Vec<PlacedLine>,
    /// Of the imaging lines, else of the calibration lines.
    central: Option<Central>,
    calibration_central: Option<Central>,
    /// A readout of the last average said "last in slice", "last in repetition" or "last in measurement".
    is_last_seen: bool,
}

/// Collects the readouts of one scan.
pub struct Ingest {
    scan: Scan,
    params: IngestParams,
    /// Per encoding.
    oversampling: Vec<Option<Oversampling>>,
    given_noise: Option<NoiseCovariance>,
    noise: NoiseAccumulator,
    growing: BTreeMap<FrameKey, Growing>,
    released: BTreeSet<FrameKey>,
    /// Calibration-only lines of a slice, kept for frames of the same slice that come without.
    references: BTreeMap<(u16, u16), Arc<Vec<PlacedLine>>>,
    contexts: Option<Vec<Option<Arc<FrameContext>>>>,
    /// Coils of the imaging readouts and the readout that set them.
    coils: Option<(usize, u64)>,
    /// Energy per coil over all imaging readouts is above zero.
    is_alive: Vec<bool>,
    counts: Counts,
    header_notes: Vec<Note>,
}

#[derive(Default)]
struct Counts {
    readouts: u64,
    noise: u64,
    imaging: u64,
    calibration: u64,
    reversed: u64,
    skipped_lines: u64,
    first_skipped: Option<u64>,
    outside_limits: u64,
    first_outside_limits: Option<(u64, u16, u16)>,
    no_encoding: u64,
    trajectories: u64,
    aside: BTreeMap<&'static str, u64>,
}

/// What is to be done with one readout of a batch.
enum Job {
    Noise,
    Line {
        key: FrameKey,
        is_calibration: bool,
        pe1: u32,
        pe2: u32,
        place: Placement,
    },
}

enum Done {
    Noise(Vec<Complex64>),
    Line {
        samples: Box<[Complex32]>,
        alive: Vec<bool>,
    },
    NotFinite {
        count: usize,
        coil: usize,
    },
}

/// Whether the header names Siemens as the vendor.
fn is_siemens(header: &ismrmrd::Header) -> bool {
    let system = header.acquisition_system_information.as_ref();
    let vendor = system.and_then(|s| s.system_vendor.as_deref());
    vendor.is_some_and(|v| v.to_ascii_uppercase().contains("SIEMENS"))
}

impl Ingest {
    /// Validates the header. `noise` is a covariance from elsewhere (a noise file); it takes precedence over the
    /// scan's own noise readouts.
    ///
    /// # Errors
    /// [`IngestError::NoEncoding`], [`IngestError::Header`], [`IngestError::Trajectory`].
    pub fn plan(
        header: &ismrmrd::Header,
        params: &IngestParams,
        noise: Option<NoiseCovariance>,
    ) -> Result<Self, IngestError> {
        let (scan, header_notes) = header::scan(header)?;
        let oversampling = scan
            .encodings
            .iter()
            .map(|e| {
                e.as_ref()
                    .map(|e| Oversampling::plan(e.encoded.matrix[0], e.grid[0]))
            })
            .collect();
        Ok(Self {
            scan,
            params: params.clone(),
            oversampling,
            given_noise: noise,
            noise: NoiseAccumulator::new(),
            growing: BTreeMap::new(),
            released: BTreeSet::new(),
            references: BTreeMap::new(),
            contexts: None,
            coils: None,
            is_alive: Vec::new(),
            counts: Counts::default(),
            header_notes,
        })
    }

    /// The validated scan.
    pub fn scan(&self) -> &Scan {
        &self.scan
    }

    /// Takes readouts, in any order and any division into batches. Noise readouts must not come after the first
    /// frame was taken with [`Self::take_complete`].
    ///
    /// # Errors
    /// See [`IngestError`]; the first faulty readout of the batch is named, whatever the number of threads.
    pub fn push(&mut self, batch: &[AcquisitionRef<'_>]) -> Result<(), IngestError> {
        let first = self.counts.readouts;
        let mut jobs = Vec::with_capacity(batch.len());
        for (i, readout) in batch.iter().enumerate() {
            if let Some(job) = self.accept(first + i as u64, readout)? {
                jobs.push((i, job));
            }
        }
        self.counts.readouts += batch.len() as u64;

        let oversampling = &self.oversampling;
        let scan = &self.scan;
        let done: Vec<Done> = jobs
            .par_iter()
            .map_init(Work::default, |work, (i, job)| {
                run(&batch[*i], job, oversampling, scan, work)
            })
            .collect();

        let mut bad: Option<(usize, u64, u32, usize)> = None;
        for ((i, _), d) in jobs.iter().zip(&done) {
            if let Done::NotFinite { count, coil } = d {
                let first =
                    bad.get_or_insert((0, first + *i as u64, batch[*i].head.scan_counter, *coil));
                first.0 += count;
            }
        }
        if let Some((count, acquisition, scan_counter, coil)) = bad {
            return Err(IngestError::NotFinite {
                count,
                acquisition,
                scan_counter,
                coil,
            });
        }
        for ((i, job), d) in jobs.into_iter().zip(done) {
            self.store(first + i as u64, batch[i].head, job, d)?;
        }
        Ok(())
    }

    /// Checks one readout and says what is to be done with it.
    fn accept(
        &mut self,
        acquisition: u64,
        readout: &AcquisitionRef<'_>,
    ) -> Result<Option<Job>, IngestError> {
        let head = readout.head;
        let n_coils = usize::from(head.active_channels);
        let n_samples = usize::from(head.number_of_samples);
        if accept::is_compressed(head) {
            return Err(IngestError::Compressed {
                acquisition,
                scan_counter: head.scan_counter,
            });
        }
        if readout.data.len() != n_coils * n_samples {
            return Err(IngestError::Readout {
                acquisition,
                scan_counter: head.scan_counter,
                what: "number of samples",
                found: format!("{} complex samples", readout.data.len()),
                needed: format!("{n_coils} coils x {n_samples} samples, as its header states"),
            });
        }
        let kind = accept::kind(head);
        if let Kind::Aside(what) = kind {
            *self.counts.aside.entry(what).or_default() += 1;
            return Ok(None);
        }
        if n_coils == 0 {
            return Err(IngestError::Readout {
                acquisition,
                scan_counter: head.scan_counter,
                what: "active_channels",
                found: "0".into(),
                needed: "at least one coil".into(),
            });
        }
        if kind == Kind::Noise {
            self.counts.noise += 1;
            return Ok(Some(Job::Noise));
        }

        let n_encodings = self.scan.encodings.len();
        let Some(encoding) = self
            .scan
            .encodings
            .get(usize::from(head.encoding_space_ref))
        else {
            return Err(IngestError::NoSuchEncoding {
                acquisition,
                scan_counter: head.scan_counter,
                found: head.encoding_space_ref,
                n_encodings,
            });
        };
        let Some(e) = encoding else {
            self.counts.no_encoding += 1;
            return Ok(None);
        };
        match self.coils {
            None => self.coils = Some((n_coils, acquisition)),
            Some((expected, from)) if expected != n_coils => {
                return Err(IngestError::CoilCount {
                    acquisition,
                    scan_counter: head.scan_counter,
                    found: n_coils,
                    expected,
                    expected_from: format!("acquisition {from}"),
                });
            }
            Some(_) => {}
        }
        if let Some(noise) = &self.given_noise
            && noise.n_coils != n_coils
        {
            return Err(NoiseError::CoilCount {
                noise: noise.n_coils,
                imaging: n_coils,
            }
            .into());
        }
        let Some((pe1, pe2)) = accept::line(acquisition, head, e, self.params.lines_outside)?
        else {
            self.counts.skipped_lines += 1;
            self.counts.first_skipped.get_or_insert(acquisition);
            return Ok(None);
        };
        if is_outside_limits(head, e) {
            self.counts.outside_limits += 1;
            self.counts.first_outside_limits.get_or_insert((
                acquisition,
                head.idx.kspace_encode_step_1,
                head.idx.kspace_encode_step_2,
            ));
        }
        let place = accept::placement(acquisition, head, e)?;
        if head.trajectory_dimensions > 0 {
            self.counts.trajectories += 1;
        }
        if place.is_reverse {
            self.counts.reversed += 1;
        }
        let is_calibration = kind == Kind::Calibration;
        if is_calibration {
            self.counts.calibration += 1;
        } else {
            self.counts.imaging += 1;
        }
        let key = self.key(head);
        if self.released.contains(&key) {
            return Err(IngestError::Late {
                acquisition,
                scan_counter: head.scan_counter,
                key: key_text(&key),
            });
        }
        Ok(Some(Job::Line {
            key,
            is_calibration,
            pe1,
            pe2,
            place,
        }))
    }

    fn key(&self, head: &AcquisitionHeader) -> FrameKey {
        FrameKey {
            encoding_idx: head.encoding_space_ref,
            repetition: head.idx.repetition,
            cardiac_phase: head.idx.phase,
            contrast: head.idx.contrast,
            slice_idx: head.idx.slice,
            set: head.idx.set,
            average: match self.params.averages {
                Averages::Combine => 0,
                Averages::Apart => head.idx.average,
            },
        }
    }

    fn store(
        &mut self,
        acquisition: u64,
        head: &AcquisitionHeader,
        job: Job,
        done: Done,
    ) -> Result<(), IngestError> {
        match (job, done) {
            (Job::Noise, Done::Noise(gram)) => {
                if self.contexts.is_some() && self.given_noise.is_none() {
                    return Err(IngestError::Late {
                        acquisition,
                        scan_counter: head.scan_counter,
                        key: "the noise scan".into(),
                    });
                }
                self.noise.push_gram(head, gram)?;
            }
            (
                Job::Line {
                    key,
                    is_calibration,
                    pe1,
                    pe2,
                    place,
                },
                Done::Line { samples, alive },
            ) => {
                let Some(e) = &self.scan.encodings[usize::from(key.encoding_idx)] else {
                    return Ok(());
                };
                let Some(o) = &self.oversampling[usize::from(key.encoding_idx)] else {
                    return Ok(());
                };
                self.is_alive.resize(alive.len(), false);
                for (a, b) in self.is_alive.iter_mut().zip(&alive) {
                    *a |= b;
                }
                let d1 = i64::from(pe1) - (e.grid[1] / 2) as i64;
                let d2 = i64::from(pe2) - (e.grid[2] / 2) as i64;
                let distance = d1 * d1 + d2 * d2;
                let stated = f64::from(head.sample_time_us);
                let line = PlacedLine {
                    pe1,
                    pe2,
                    order: LineOrder {
                        average: head.idx.average,
                        repetition: head.idx.repetition,
                        segment: head.idx.segment,
                        scan_counter: head.scan_counter,
                        time_stamp: head.acquisition_time_stamp,
                    },
                    dwell_us: if stated > 0.0 {
                        Some(stated)
                    } else {
                        self.params.dwell_us
                    },
                    ro_range: o.range(&(place.start..place.start + place.kept.len())),
                    samples,
                };
                let last_average = self.scan.header.encoding[usize::from(key.encoding_idx)]
                    .encoding_limits
                    .average
                    // Without limits nobody knows which average is the last: wait for the end.
                    .map_or(u32::MAX, |l| l.maximum);
                let g = self.growing.entry(key).or_default();
                let central = if is_calibration {
                    &mut g.calibration_central
                } else {
                    &mut g.central
                };
                match central {
                    Some(c) => c.meet(head, distance),
                    None => *central = Some(Central::new(head, distance)),
                }
                if is_calibration {
                    g.calibration.push(line);
                } else {
                    g.imaging.push(line);
                    // With averages combined, only the last average's flag ends the slice.
                    let is_last_average = self.params.averages == Averages::Apart
                        || u32::from(head.idx.average) >= last_average;
                    g.is_last_seen |= head.has(Flag::LastInSlice) && is_last_average;
                }
                if head.has(Flag::LastInRepetition) || head.has(Flag::LastInMeasurement) {
                    for (k, g) in &mut self.growing {
                        g.is_last_seen |= head.has(Flag::LastInMeasurement)
                            || (k.repetition == key.repetition
                                && k.encoding_idx == key.encoding_idx
                                && k.contrast == key.contrast
                                && k.cardiac_phase == key.cardiac_phase
                                && k.set == key.set
                                && k.slice_idx == key.slice_idx);
                    }
                }
            }
            // `run` answers each job in kind.
            _ => {}
        }
        Ok(())
    }

    /// Hands on the frames that are known to be complete: their last-in-slice flag was seen and no announced line is
    /// missing. Frames with gaps wait for the end of the measurement, because a flag may be set too early.
    ///
    /// # Errors
    /// [`IngestError::Noise`]: the first frame taken fixes the noise.
    pub fn take_complete(&mut self) -> Result<Vec<PendingFrame>, IngestError> {
        if self.params.release == Release::End {
            return Ok(Vec::new());
        }
        let complete: Vec<FrameKey> = self
            .growing
            .iter()
            .filter(|(key, g)| g.is_last_seen && !g.imaging.is_empty() && self.is_covered(key, g))
            .map(|(key, _)| *key)
            .collect();
        if complete.is_empty() {
            return Ok(Vec::new());
        }
        self.fix_noise()?;
        let mut frames = Vec::new();
        for key in complete {
            if let Some(g) = self.growing.remove(&key) {
                self.released.insert(key);
                frames.extend(self.release(key, g));
            }
        }
        Ok(frames)
    }

    fn is_covered(&self, key: &FrameKey, g: &Growing) -> bool {
        let Some(Some(e)) = self.scan.encodings.get(usize::from(key.encoding_idx)) else {
            return false;
        };
        let mut mask = coverage::Mask::new(e.grid[1], e.grid[2]);
        for l in g.imaging.iter().chain(&g.calibration) {
            mask.set(l.pe1, l.pe2);
        }
        coverage::coverage(&mask, e).missing.is_empty()
    }

    /// Ends the scan.
    ///
    /// # Errors
    /// [`IngestError::Empty`] when no frame came of it; [`IngestError::Noise`].
    pub fn finish(mut self) -> Result<Ingested, IngestError> {
        let mut notes = std::mem::take(&mut self.header_notes);
        if self.growing.values().all(|g| g.imaging.is_empty()) && self.released.is_empty() {
            // A scan of calibration lines only (a reference scan on its own) is imaged as it stands.
            if self.growing.is_empty() {
                return Err(IngestError::Empty {
                    seen: self.counts.seen(),
                });
            }
            notes.push(Note::new(
                "only_calibration_lines",
                "every line is flagged calibration only: they are imaged",
            ));
            for g in self.growing.values_mut() {
                g.imaging = std::mem::take(&mut g.calibration);
                g.central = g.calibration_central.take();
            }
        }
        self.fix_noise()?;
        let growing = std::mem::take(&mut self.growing);
        // References first, so that a frame finds its slice's whatever the order of keys.
        for (key, g) in &growing {
            self.keep_reference(key, &g.calibration);
        }
        let mut frames = Vec::new();
        for (key, g) in growing {
            frames.extend(self.release(key, g));
        }
        self.counts.notes(&mut notes);
        for (coil, _) in self.is_alive.iter().enumerate().filter(|(_, a)| !**a) {
            notes.push(Note::new(
                "zero_coil",
                format!("coil {coil}: every imaging sample is zero"),
            ));
        }
        for context in self.contexts.iter().flatten().flatten().take(1) {
            notes.extend(context.notes.iter().cloned());
        }
        let noise = self.noise_covariance()?;
        let steps = self.steps(noise.as_ref());
        Ok(Ingested {
            scan: self.scan,
            frames,
            noise,
            steps,
            notes,
        })
    }

    fn keep_reference(&mut self, key: &FrameKey, lines: &[PlacedLine]) {
        // Only where another frame of the same slice may need them: a scan with one frame per slice keeps no copy.
        let may_be_shared = !lines.is_empty()
            && self.scan.header.encoding[usize::from(key.encoding_idx)]
                .parallel_imaging
                .as_ref()
                .is_some_and(|p| p.calibration_mode.as_deref() != Some("embedded"));
        if may_be_shared {
            self.references
                .entry((key.encoding_idx, key.slice_idx))
                .or_insert_with(|| Arc::new(lines.to_vec()));
        }
    }

    fn release(&mut self, key: FrameKey, mut g: Growing) -> Option<PendingFrame> {
        self.keep_reference(&key, &g.calibration);
        if g.imaging.is_empty() {
            return None; // calibration only: kept as reference of its slice
        }
        let mut notes = Vec::new();
        let calibration = if g.calibration.is_empty() {
            match self.references.get(&(key.encoding_idx, key.slice_idx)) {
                Some(shared) => {
                    notes.push(Note::new(
                        "reference_shared",
                        format!(
                            "{}: calibrated from another frame's reference lines of the same slice",
                            key_text(&key)
                        ),
                    ));
                    Arc::clone(shared)
                }
                None => Arc::default(),
            }
        } else {
            Arc::new(std::mem::take(&mut g.calibration))
        };
        let context = self
            .contexts
            .as_ref()?
            .get(usize::from(key.encoding_idx))?
            .clone()?;
        Some(PendingFrame {
            key,
            imaging: g.imaging,
            calibration,
            central: g.central.or(g.calibration_central)?,
            context,
            notes,
        })
    }

    /// Covariance from the file beside the scan, else from the scan's own noise readouts, else `None`.
    fn noise_covariance(&self) -> Result<Option<NoiseCovariance>, IngestError> {
        if let Some(given) = &self.given_noise {
            return Ok(Some(given.clone()));
        }
        if self.noise.is_empty() {
            return Ok(None);
        }
        match self.noise.finish() {
            Ok(noise) => Ok(Some(noise)),
            // In `auto` the mark of `whitener` says it.
            Err(NoiseError::TooFewSamples { .. }) if self.params.whiten != Whiten::Require => {
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Decides about whitening, once.
    fn fix_noise(&mut self) -> Result<(), IngestError> {
        if self.contexts.is_some() {
            return Ok(());
        }
        let mut notes = Vec::new();
        let whitener = self.whitener(&mut notes)?.map(Arc::new);
        let n_coils = self.coils.map_or(0, |c| c.0);
        let averages = self.params.averages;
        let is_forward_vendor =
            self.params.directions == Directions::ByVendor && is_siemens(&self.scan.header);
        if is_forward_vendor {
            notes.push(Note::new(
                "directions_turned",
                "the vendor is Siemens, whose directions belong to a forward transform from k-space to image: read and \
                 phase (3D: and slice) directions were turned; if a converter conjugated the data already, set \
                 ingest.directions = \"as_stated\"",
            ));
        }
        self.contexts = Some(
            self.scan
                .encodings
                .iter()
                .map(|e| {
                    e.as_ref().map(|e| {
                        Arc::new(FrameContext {
                            encoding: e.clone(),
                            averages,
                            n_coils,
                            whitener: whitener.clone(),
                            is_forward_vendor,
                            notes: notes.clone(),
                        })
                    })
                })
                .collect(),
        );
        Ok(())
    }

    fn whitener(&self, notes: &mut Vec<Note>) -> Result<Option<Whitener>, IngestError> {
        let p = &self.params;
        if p.whiten == Whiten::Off {
            notes.push(Note::new(
                "not_whitened",
                "ingest.whiten = \"off\": noise is not whitened, the image is in arbitrary units",
            ));
            return Ok(None);
        }
        let mut is_own = false;
        let noise = match self.noise_covariance()? {
            Some(noise) => noise,
            None if p.noise_from_edges => match self.noise_of_edges(notes)? {
                Some(noise) => {
                    is_own = true;
                    noise
                }
                None => return Ok(None),
            },
            None if p.whiten == Whiten::Require => return Err(NoiseError::Absent.into()),
            None if !self.noise.is_empty() => {
                notes.push(Note::new(
                    "noise_scan_too_short",
                    "the noise readouts are too few to estimate a covariance (8 samples per coil and coil): noise is \
                     not whitened, the image is in arbitrary units",
                ));
                return Ok(None);
            }
            None => {
                notes.push(Note::new(
                    "no_noise_scan",
                    "the scan has no noise readouts: noise is not whitened, the image is in arbitrary units",
                ));
                return Ok(None);
            }
        };
        if let Some((imaging, _)) = self.coils
            && imaging != noise.n_coils
        {
            return Err(NoiseError::CoilCount {
                noise: noise.n_coils,
                imaging,
            }
            .into());
        }
        let per_us = if is_own {
            None
        } else {
            self.noise_per_us(&noise, notes)?
        };
        let (mut whitener, dropped) = Whitener::plan(
            &noise,
            p.dead_coil == BadCoil::Drop,
            p.duplicate_coil == BadCoil::Drop,
            per_us,
        )?;
        whitener.is_own = is_own;
        for error in dropped {
            let (code, text) = match error {
                NoiseError::DeadCoil { coil } => (
                    "dead_coil_dropped",
                    format!("coil {coil} is dead (its noise is zero): left out"),
                ),
                NoiseError::NotPositiveDefinite {
                    coil,
                    like,
                    correlation,
                } => (
                    "duplicate_coil_dropped",
                    format!(
                        "coil {coil} repeats coil {like} (correlation of the noise {correlation:.6}): left out"
                    ),
                ),
                other => return Err(other.into()),
            };
            notes.push(Note::new(code, text));
        }
        Ok(Some(whitener))
    }

    /// `bandwidth ratio / noise dwell`, per microsecond. `None`, with a mark, when a dwell time is missing.
    fn noise_per_us(
        &self,
        noise: &NoiseCovariance,
        notes: &mut Vec<Note>,
    ) -> Result<Option<f64>, IngestError> {
        let p = &self.params;
        let noise_dwell = noise.dwell_us.or(p.noise_dwell_us).filter(|d| *d > 0.0);
        let has_scan_dwell = self
            .growing
            .values()
            .flat_map(|g| g.imaging.iter().chain(&g.calibration))
            .all(|l| l.dwell_us.is_some_and(|d| d > 0.0));
        let missing = match (noise_dwell, has_scan_dwell) {
            (Some(dwell), true) => return Ok(Some(self.bandwidth_ratio() / dwell)),
            (None, _) => NoiseError::MissingDwell {
                which: "noise",
                found: 0.0,
                key: "noise_dwell_us",
            },
            (_, false) => NoiseError::MissingDwell {
                which: "imaging",
                found: 0.0,
                key: "dwell_us",
            },
        };
        if p.whiten == Whiten::Require {
            return Err(missing.into());
        }
        notes.push(Note::new(
            "no_dwell",
            format!(
                "{missing}; the coils' noise is decorrelated, but the image is in arbitrary units"
            ),
        ));
        Ok(None)
    }

    /// MRD `relativeReceiverNoiseBandwidth`; 1 (a flat receiver) when the header is silent.
    fn bandwidth_ratio(&self) -> f64 {
        self.params
            .noise_bandwidth_ratio
            .or_else(|| {
                self.scan
                    .header
                    .acquisition_system_information
                    .as_ref()
                    .and_then(|a| a.relative_receiver_noise_bandwidth)
                    .map(f64::from)
            })
            .filter(|r| *r > 0.0 && r.is_finite())
            .unwrap_or(1.0)
    }

    /// Covariance from the outer tenth of the readout of the outer tenth of the lines.
    fn noise_of_edges(
        &self,
        notes: &mut Vec<Note>,
    ) -> Result<Option<NoiseCovariance>, IngestError> {
        let mut noise = NoiseAccumulator::new();
        let n_coils = self.coils.map_or(0, |c| c.0);
        for (key, g) in &self.growing {
            let Some(Some(e)) = self.scan.encodings.get(usize::from(key.encoding_idx)) else {
                continue;
            };
            let ro = e.grid[0];
            let mut lines: Vec<&PlacedLine> = g.imaging.iter().collect();
            let far = |l: &PlacedLine| {
                let d = |i: u32, n: usize| (f64::from(i) - (n / 2) as f64).abs() / n as f64;
                d(l.pe1, e.grid[1]).max(d(l.pe2, e.grid[2]))
            };
            lines.sort_by(|a, b| {
                far(b)
                    .total_cmp(&far(a))
                    .then((a.pe2, a.pe1, a.order).cmp(&(b.pe2, b.pe1, b.order)))
            });
            for l in lines.iter().take((lines.len() / 10).max(1)) {
                let head = AcquisitionHeader {
                    active_channels: u16::try_from(n_coils).unwrap_or(u16::MAX),
                    #[allow(clippy::cast_possible_truncation)] // a tenth of 16 bits
                    number_of_samples: (ro / 10) as u16,
                    sample_time_us: 0.0,
                    scan_counter: l.order.scan_counter,
                    ..AcquisitionHeader::default()
                };
                for edge in [
                    l.ro_range.start..(l.ro_range.start + ro / 20).min(l.ro_range.end),
                    l.ro_range.end.saturating_sub(ro / 20).max(l.ro_range.start)..l.ro_range.end,
                ] {
                    let head = AcquisitionHeader {
                        number_of_samples: u16::try_from(edge.len()).unwrap_or(u16::MAX),
                        ..head
                    };
                    noise.push_gram(&head, noise::gram(&l.samples, n_coils, edge))?;
                }
            }
        }
        match noise.finish() {
            Ok(noise) => {
                notes.push(Note::new(
                    "noise_from_edges",
                    "no noise readouts: the noise was estimated from the edges of k-space, which hold signal too; \
                     SNR comes out too low by an unknown factor",
                ));
                Ok(Some(noise))
            }
            Err(NoiseError::TooFewSamples { .. }) => {
                notes.push(Note::new(
                    "no_noise_scan",
                    "the scan has no noise readouts, and its k-space edges are too small to estimate noise from: the \
                     image is in arbitrary units",
                ));
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }

    fn steps(&self, noise: Option<&NoiseCovariance>) -> Vec<Step> {
        let step = |op: &str, detail: String| Step {
            op: op.into(),
            backend: "cpu",
            detail,
        };
        let mut steps = Vec::new();
        if let Some(n) = noise {
            let from = if self.given_noise.is_some() {
                "given"
            } else {
                "the scan's noise readouts"
            };
            steps.push(step(
                "ingest/noise",
                format!(
                    "covariance of {} coils from {from}: {} samples, dwell {}",
                    n.n_coils,
                    n.n_samples,
                    n.dwell_us
                        .map_or("unstated".into(), |d| format!("{d:.3} us"))
                ),
            ));
        }
        if let Some(w) = self
            .contexts
            .iter()
            .flatten()
            .flatten()
            .find_map(|c| c.whitener.clone())
        {
            let ratio = self
                .scan
                .header
                .acquisition_system_information
                .as_ref()
                .and_then(|a| a.relative_receiver_noise_bandwidth);
            let from = match (self.params.noise_bandwidth_ratio, ratio) {
                (Some(_), _) => "protocol",
                (None, Some(_)) => "header",
                (None, None) => "header silent: flat receiver",
            };
            steps.push(step(
                "ingest/whiten",
                format!(
                    "{} coils in, {} out; noise bandwidth ratio {} ({from})",
                    w.n_coils,
                    w.kept.len(),
                    self.bandwidth_ratio()
                ),
            ));
        }
        for (i, e) in self.scan.encodings.iter().enumerate() {
            let Some(e) = e else { continue };
            if e.grid[0] != e.encoded.matrix[0] {
                steps.push(step(
                    "ingest/oversampling",
                    format!(
                        "encoding {i}: readout cropped from {} to {} samples ({} to {} mm)",
                        e.encoded.matrix[0],
                        e.grid[0],
                        e.encoded.field_of_view_mm[0],
                        e.recon_space.field_of_view_mm[0]
                    ),
                ));
            }
        }
        let c = &self.counts;
        steps.push(step(
            "ingest/sort",
            format!("{} readouts: {}", c.readouts, c.seen()),
        ));
        steps
    }
}

impl Counts {
    /// What came, in words.
    fn seen(&self) -> String {
        let mut words = Vec::new();
        for (what, n) in [
            ("imaging", self.imaging),
            ("calibration only", self.calibration),
            ("noise", self.noise),
            ("reversed (turned round)", self.reversed),
            ("outside the matrix", self.skipped_lines),
            ("of encodings that are not Cartesian", self.no_encoding),
        ] {
            if n > 0 {
                words.push(format!("{n} {what}"));
            }
        }
        words.extend(
            self.aside
                .iter()
                .map(|(what, n)| format!("{n} {what} (set aside)")),
        );
        if words.is_empty() {
            words.push("no readouts at all".into());
        }
        words.join(", ")
    }

    fn notes(&self, notes: &mut Vec<Note>) {
        if !self.aside.is_empty() {
            let text: Vec<String> = self
                .aside
                .iter()
                .map(|(what, n)| format!("{n} {what}"))
                .collect();
            notes.push(Note::new(
                "readouts_set_aside",
                format!("set aside: {}", text.join(", ")),
            ));
        }
        if let Some(first) = self.first_skipped {
            notes.push(Note::new(
                "lines_outside_skipped",
                format!(
                    "{} lines outside the encoded matrix were left out, the first in acquisition {first}",
                    self.skipped_lines
                ),
            ));
        }
        if let Some((first, pe1, pe2)) = self.first_outside_limits {
            notes.push(Note::new(
                "lines_outside_limits",
                format!(
                    "{} lines lie outside the header's encodingLimits but within the matrix, the first in acquisition \
                     {first} (counters {pe1}, {pe2}): used",
                    self.outside_limits
                ),
            ));
        }
        if self.no_encoding > 0 {
            notes.push(Note::new(
                "readouts_not_cartesian",
                format!(
                    "{} readouts belong to encodings that are not Cartesian: left out",
                    self.no_encoding
                ),
            ));
        }
        if self.trajectories > 0 {
            notes.push(Note::new(
                "trajectory_ignored",
                format!(
                    "{} readouts carry a trajectory, the header says Cartesian: the counters are used",
                    self.trajectories
                ),
            ));
        }
    }
}

fn is_outside_limits(head: &AcquisitionHeader, e: &ScanEncoding) -> bool {
    let counters = [head.idx.kspace_encode_step_1, head.idx.kspace_encode_step_2];
    (0..2).any(|i| {
        let c = usize::from(counters[i]);
        e.last_line[i].is_some_and(|last| c < e.first_line[i] || c > last)
    })
}

/// Does one job; pure, so that it may run anywhere.
fn run(
    readout: &AcquisitionRef<'_>,
    job: &Job,
    oversampling: &[Option<Oversampling>],
    scan: &Scan,
    work: &mut Work,
) -> Done {
    let n_samples = usize::from(readout.head.number_of_samples);
    let n_coils = usize::from(readout.head.active_channels);
    let mut alive = Vec::with_capacity(n_coils);
    for row in readout.data.chunks_exact(n_samples.max(1)) {
        alive.push(row_energy(row));
    }
    if let Some(coil) = alive.iter().position(|e| !e.is_finite()) {
        // The sum may also have overflowed on finite samples: count exactly.
        let count = readout.data.iter().filter(|v| !v.is_finite()).count();
        if count > 0 {
            return Done::NotFinite { count, coil };
        }
    }
    match job {
        Job::Noise => Done::Noise(noise::gram(
            readout.data,
            n_coils,
            noise::kept_samples(readout.head),
        )),
        Job::Line { key, place, .. } => {
            let encoding = usize::from(key.encoding_idx);
            let (Some(Some(o)), Some(Some(e))) =
                (oversampling.get(encoding), scan.encodings.get(encoding))
            else {
                return Done::Noise(Vec::new());
            };
            let mut samples = vec![Complex32::ZERO; n_coils * e.grid[0]].into_boxed_slice();
            o.run(readout.data, n_samples, place, work, &mut samples);
            Done::Line {
                samples,
                alive: alive.iter().map(|&e| e != 0.0).collect(),
            }
        }
    }
}

/// Sum of squares of one row; NaN or infinite if a sample is.
fn row_energy(row: &[Complex32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let values: &[f32] = bytemuck::cast_slice(row);
    let mut chunks = values.chunks_exact(16);
    for chunk in &mut chunks {
        for (s, v) in sums.iter_mut().zip(chunk) {
            *s += v * v;
        }
    }
    let rest: f32 = chunks.remainder().iter().map(|v| v * v).sum();
    sums.iter().sum::<f32>() + rest
}
