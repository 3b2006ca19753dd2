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
mod counts;
mod coverage;
mod error;
mod geometry;
mod header;
mod job;
mod noise;
mod oversampling;
mod params;
mod pool;
mod released;
mod rolling;
mod sort;
#[cfg(test)]
mod tests;
mod whitening;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use ismrmrd::acquisition::AcquisitionRef;
use ismrmrd::{AcquisitionFlag as Flag, AcquisitionHeader};
use rayon::prelude::*;

pub use error::IngestError;
pub use noise::{Dwell, NoiseAccumulator, NoiseError, noise_covariance, whitening};
pub use params::{
    Averages, BadCoil, Directions, IngestParams, Interleaved, LinesOutside, Release, Whiten,
};
pub use pool::LinePool;
pub use sort::PendingFrame;

use crate::data::{FrameKey, NoiseCovariance, Note, Scan, ScanEncoding, Step};
use accept::Kind;
use counts::Counts;
use job::{Done, Job, Places, run};
use oversampling::{Oversampling, Work};
use released::Released;
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
    /// When its first and its last line came.
    arrival: Option<(Instant, Instant)>,
}

/// Collects the readouts of one scan.
pub struct Ingest {
    scan: Scan,
    params: IngestParams,
    /// Per encoding.
    oversampling: Vec<Option<Oversampling>>,
    given_noise: Option<NoiseCovariance>,
    /// For a scan without noise readouts.
    kept_noise: Option<NoiseCovariance>,
    noise: NoiseAccumulator,
    /// Buffers of the thread that pushes.
    work: Work,
    pool: LinePool,
    growing: BTreeMap<FrameKey, Growing>,
    released: Released,
    /// Calibration-only lines of a slice, kept for frames of the same slice that come without.
    references: BTreeMap<(u16, u16), Arc<Vec<PlacedLine>>>,
    /// Frames of interleaved scans, which calibrate each other.
    rolling: BTreeMap<FrameKey, rolling::Rolling>,
    contexts: Option<Vec<Option<Arc<FrameContext>>>>,
    /// Coils of the imaging readouts and the readout that set them.
    coils: Option<(usize, u64)>,
    /// Energy per coil over all imaging readouts is above zero.
    is_alive: Vec<bool>,
    counts: Counts,
    header_notes: Vec<Note>,
    /// When the batch that is being taken in arrived, if the caller says so.
    now: Option<Instant>,
    /// Bytes of lines whose frames are not complete or wait for others.
    held_bytes: u64,
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
            kept_noise: None,
            noise: NoiseAccumulator::new(),
            work: Work::default(),
            pool: LinePool::default(),
            growing: BTreeMap::new(),
            released: Released::default(),
            references: BTreeMap::new(),
            rolling: BTreeMap::new(),
            contexts: None,
            coils: None,
            is_alive: Vec::new(),
            counts: Counts::default(),
            header_notes,
            now: None,
            held_bytes: 0,
        })
    }

    /// The validated scan.
    pub fn scan(&self) -> &Scan {
        &self.scan
    }

    /// Gives noise that was measured with another scan. It is used if the scan has no noise readouts of its own and as
    /// many coils.
    pub fn keep_noise(&mut self, noise: NoiseCovariance) {
        self.kept_noise = Some(noise);
    }

    /// Takes the memory of lines from `pool` instead of one of its own, before the first readout.
    pub fn share_lines(&mut self, pool: LinePool) {
        self.pool = pool;
    }

    /// The covariance of a scan of noise readouts and nothing else.
    ///
    /// # Errors
    /// [`IngestError::Noise`].
    pub fn noise_only(&self) -> Result<Option<NoiseCovariance>, IngestError> {
        if self.counts.imaging + self.counts.calibration > 0 {
            return Ok(None);
        }
        self.noise_covariance()
    }

    /// Says when the readouts that are pushed next arrived; frames then know when their first and last line came.
    pub fn arrived(&mut self, at: Instant) {
        self.now = Some(at);
    }

    /// Bytes of samples held for frames that are not complete, or wait for those after them.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// What is done with every readout and is known by the time the first frame is complete.
    ///
    /// # Errors
    /// [`IngestError::Noise`].
    pub fn steps_so_far(&self) -> Result<Vec<Step>, IngestError> {
        let noise = self.noise_covariance()?;
        let mut steps = self.steps(noise.as_ref());
        // Its counts are known at the end only.
        steps.retain(|s| s.op != "ingest/sort");
        Ok(steps)
    }

    /// Takes readouts, in any order and any division into batches, on the current rayon pool. Noise readouts must not
    /// come after the first frame was taken with [`Self::take_complete`].
    ///
    /// # Errors
    /// See [`IngestError`]; the first faulty readout of the batch is named, whatever the number of threads.
    pub fn push(&mut self, batch: &[AcquisitionRef<'_>]) -> Result<(), IngestError> {
        self.take(batch, true)
    }

    /// [`Self::push`] on this thread alone: as fast as a socket, and nobody has to be woken.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_here(&mut self, batch: &[AcquisitionRef<'_>]) -> Result<(), IngestError> {
        self.take(batch, false)
    }

    fn take(&mut self, batch: &[AcquisitionRef<'_>], is_shared: bool) -> Result<(), IngestError> {
        let first = self.counts.readouts;
        let mut jobs = Vec::with_capacity(batch.len());
        for (i, readout) in batch.iter().enumerate() {
            if let Some(job) = self.accept(first + i as u64, readout)? {
                jobs.push((i, job));
            }
        }
        self.counts.readouts += batch.len() as u64;

        let to = Places {
            oversampling: &self.oversampling,
            scan: &self.scan,
            pool: &self.pool,
        };
        let done: Vec<Done> = if is_shared {
            let one = |work: &mut Work, (i, job): &(usize, Job)| run(&batch[*i], job, &to, work);
            jobs.par_iter().map_init(Work::default, one).collect()
        } else {
            let work = &mut self.work;
            let one = |(i, job): &(usize, Job)| run(&batch[*i], job, &to, work);
            jobs.iter().map(one).collect()
        };

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
                self.held_bytes += sort::bytes([&line]);
                let g = self.growing.entry(key).or_default();
                if let Some(now) = self.now {
                    let first = g.arrival.map_or(now, |a| a.0);
                    g.arrival = Some((first, now));
                }
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
                self.released.insert(&key);
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
        // Fewer frames than make a full k-space: whether they can be calibrated is for reconstruction to say.
        let is_sliding = self.params.interleaved == Interleaved::SlidingWindow;
        for mut rolling in std::mem::take(&mut self.rolling).into_values() {
            let waiting = rolling.release(is_sliding).into_iter();
            frames.extend(waiting.filter_map(|f| self.pend(f.key, f.growing, vec![f.note])));
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

    fn release(&mut self, key: FrameKey, g: Growing) -> Vec<PendingFrame> {
        let bytes = sort::bytes(g.imaging.iter().chain(&g.calibration));
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
        self.keep_reference(&key, &g.calibration);
        if g.imaging.is_empty() {
            return Vec::new(); // calibration only: kept as reference of its slice
        }
        let encoding = self.scan.encodings.get(usize::from(key.encoding_idx));
        if let Some(Some(e)) = encoding
            && let Some(n_frames) = rolling::n_frames(e)
            && g.calibration.is_empty()
        {
            let is_sliding = self.params.interleaved == Interleaved::SlidingWindow;
            let rolling = self.rolling.entry(rolling::series(&key)).or_default();
            let before = rolling.held_bytes();
            let ready = rolling.push(key, g, e, n_frames, is_sliding).into_iter();
            self.held_bytes = (self.held_bytes + rolling.held_bytes()).saturating_sub(before);
            return ready
                .filter_map(|f| self.pend(f.key, f.growing, vec![f.note]))
                .collect();
        }
        self.pend(key, g, Vec::new()).into_iter().collect()
    }

    /// With the calibration lines that it has, or those of its slice.
    fn pend(&self, key: FrameKey, mut g: Growing, mut notes: Vec<Note>) -> Option<PendingFrame> {
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
            arrival: g.arrival,
        })
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
            } else if self.noise.is_empty() {
                "another scan"
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

fn is_outside_limits(head: &AcquisitionHeader, e: &ScanEncoding) -> bool {
    let counters = [head.idx.kspace_encode_step_1, head.idx.kspace_encode_step_2];
    (0..2).any(|i| {
        let c = usize::from(counters[i]);
        e.last_line[i].is_some_and(|last| c < e.first_line[i] || c > last)
    })
}
