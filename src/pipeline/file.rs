//! A file from end to end: open, noise, chain, images, hand-off.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ismrmrd::AcquisitionFlag;

use crate::data::{Fault, FaultKind, NoiseCovariance, Note, ReconImage, Scan};
use crate::device::{CardUse, Device};
use crate::handoff::{Delivered, HandoffParams};
use crate::ingest::{Ingest, NoiseAccumulator};
use crate::metrics::{Monotonic, StageClock, peak_memory_bytes};
use crate::protocol::{Protocol, check};
use crate::source::{self, OpenOptions};

use super::chain::{self, STAGES, Settings};
use super::guard::border;
use super::journal;
use super::plans::Plans;
use super::report::{PatternReport, Report};
use super::warm::Warm;
use super::watch::Watch;

/// What to reconstruct.
pub struct FileJob<'a> {
    /// The scan.
    pub input: &'a Path,
    /// How to open it.
    pub options: OpenOptions,
    /// A file with noise readouts, instead of the scan's own.
    pub noise: Option<PathBuf>,
    /// What the site chose.
    pub protocol: &'a Protocol,
    /// Threads in all; goes before the protocol's.
    pub threads: Option<usize>,
    /// Who looks on.
    pub watch: &'a dyn Watch,
}

/// Images and everything that is known about how they came to be.
pub struct Finished {
    /// The validated scan, for the hand-off.
    pub scan: Scan,
    /// In the order of their keys.
    pub images: Vec<ReconImage>,
    clock: StageClock,
    report: Report,
}

/// Reconstructs a file. Nothing is written.
///
/// # Errors
/// The first fault of any room.
pub fn recon_file(job: &FileJob<'_>) -> Result<Finished, Fault> {
    reconstruct(job).map_err(|fault| in_file(job.input, fault))
}

/// Puts the file's name in front of what rooms say that do not know it.
fn in_file(path: &Path, mut fault: Fault) -> Fault {
    let name = path.display().to_string();
    let is_of_data = matches!(
        fault.kind,
        FaultKind::Input | FaultKind::Unsupported | FaultKind::Limit
    );
    if is_of_data && !fault.message.contains(&name) {
        fault.message = format!("{name}: {}", fault.message);
    }
    fault
}

fn reconstruct(job: &FileJob<'_>) -> Result<Finished, Fault> {
    let clock = StageClock::new(&STAGES);
    let device = device(job)?;
    let (mut opened, input, ingest) = open(job, &clock)?;
    let source_notes = opened.notes.clone();

    let mut images: Vec<ReconImage> = Vec::new();
    let settings = Settings {
        protocol: job.protocol,
        device: &device,
        warm: &Warm::once(),
        watch: job.watch,
        clock: &clock,
        input: &input,
        notes: &source_notes,
        now: &Monotonic,
        is_live: false,
    };
    let ran = chain::run(ingest, &mut opened, &settings, &mut |image, _| {
        images.push(image);
        Ok(())
    })?;
    drop(opened);
    images.sort_by_key(|i| i.key);

    // Known only at the end of a file, and part of how every image came to be.
    let sent_before = journal::read(job.input);
    for image in &mut images {
        let provenance = &mut image.provenance;
        if sent_before.contains(&image.key) {
            provenance.notes.push(Note::new(
                "sent_before",
                "the server that received this stream sent this image, or was about to: this may be its second copy",
            ));
        }
        provenance.steps.splice(0..0, ran.steps.iter().cloned());
        for refused in &ran.refused {
            provenance.notes.push(Note::new(
                "frame_refused",
                format!("{} gave no image: {}", refused.frame, refused.message),
            ));
        }
        let more = ran.n_refused - ran.refused.len();
        if more > 0 {
            let text = format!("{more} more frames gave no image");
            provenance.notes.push(Note::new("frame_refused", text));
        }
    }
    if images.is_empty() {
        let why = ran.refused.first().map_or_else(
            || "no frame".to_owned(),
            |r| format!("{}: {}", r.frame, r.message),
        );
        return Err(Fault::new(
            FaultKind::Input,
            "pipeline",
            format!("no frame of the scan gave an image; the first: {why}"),
        ));
    }
    let mut notes = source_notes;
    notes.extend(ran.notes);
    for note in images.iter().flat_map(|i| &i.provenance.notes) {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    let report = Report {
        input,
        protocol: job.protocol.describe(),
        schedule: ran.schedule,
        readouts: ran.readouts,
        images: images.len(),
        refused: ran.refused,
        n_refused: ran.n_refused,
        patterns: ran.patterns,
        steps: ran.steps,
        notes,
        stages: Vec::new(),
        wall_s: 0.0,
        last_readout_to_image: ran.latency,
        deadline_misses: ran.deadline_misses,
        queue_high_water_bytes: ran.queue_high_water_bytes,
        peak_memory_bytes: None,
    };
    Ok(Finished {
        scan: ran.scan,
        images,
        clock,
        report,
    })
}

impl Finished {
    /// Writes the images; the ending of `out` says as what.
    ///
    /// # Errors
    /// Those of the hand-off.
    pub fn deliver(&self, out: &Path, params: &HandoffParams) -> Result<Delivered, Fault> {
        self.clock.time("handoff", || {
            border("handoff", || {
                Ok(crate::handoff::write(
                    &self.images,
                    &self.scan,
                    out,
                    params,
                )?)
            })
        })
    }

    /// What the run did so far.
    pub fn report(&self) -> Report {
        Report {
            stages: self.clock.report(),
            wall_s: self.clock.wall_s(),
            peak_memory_bytes: peak_memory_bytes(),
            ..self.report.clone()
        }
    }
}

/// Says what would be done with every sampling pattern of a file, without doing it.
///
/// # Errors
/// The first fault of source, ingest or planning.
pub fn plan_file(job: &FileJob<'_>) -> Result<(Vec<PatternReport>, Vec<Note>), Fault> {
    plan(job).map_err(|fault| in_file(job.input, fault))
}

fn plan(job: &FileJob<'_>) -> Result<(Vec<PatternReport>, Vec<Note>), Fault> {
    let clock = StageClock::new(&STAGES);
    let device = device(job)?;
    let (mut opened, _, mut ingest) = open(job, &clock)?;
    let mut notes = opened.notes.clone();
    job.watch.begin(Some(opened.count()), 0);
    let mut refused: Option<Fault> = None;
    opened.for_each_batch(&mut |batch| {
        let pushed = border("ingest", || Ok(ingest.push(batch)?));
        job.watch.readouts(batch.len() as u64);
        match pushed {
            Ok(()) if !job.watch.is_cancelled() => ControlFlow::Continue(()),
            Ok(()) => ControlFlow::Break(()),
            Err(f) => {
                refused = Some(f);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(f) = refused {
        return Err(f);
    }
    let ingested = border("ingest", || Ok(ingest.finish()?))?;
    notes.extend(ingested.notes);
    let plans = Plans::new(&ingested.scan, &job.protocol.file.recon, &device);
    for pending in ingested.frames {
        let frame = border("ingest", || Ok(pending.assemble()?))?;
        plans.get(&frame)?;
        for note in &frame.notes {
            if !notes.contains(note) {
                notes.push(note.clone());
            }
        }
    }
    Ok((plans.report(), notes))
}

/// Opens the scan and its noise, and checks the scan against the protocol.
fn open(job: &FileJob<'_>, clock: &StageClock) -> Result<(source::Opened, String, Ingest), Fault> {
    clock.time("open", || {
        let mut opened = border("source", || Ok(source::open(job.input, &job.options)?))?;
        let mut params = job.protocol.file.ingest.clone();
        let noise = match &job.noise {
            Some(path) => {
                let (noise, ratio) =
                    noise_of(path, &mut opened.notes).map_err(|fault| in_file(path, fault))?;
                // The scan's own statement goes first, as it does for noise in the scan.
                if bandwidth_ratio(&opened.header).is_none() {
                    params.noise_bandwidth_ratio = params.noise_bandwidth_ratio.or(ratio);
                }
                Some(noise)
            }
            None => None,
        };
        let file_name = job.input.file_name().map_or_else(
            || job.input.display().to_string(),
            |n| n.to_string_lossy().into_owned(),
        );
        let input = format!("{}: {file_name}", opened.kind.name());
        let ingest = border("ingest", || {
            Ok(Ingest::plan(&opened.header, &params, noise)?)
        })?;
        check::scan_fits(job.protocol, ingest.scan())?;
        Ok((opened, input, ingest))
    })
}

/// `relativeReceiverNoiseBandwidth`, if the header states it.
fn bandwidth_ratio(header: &ismrmrd::Header) -> Option<f64> {
    let system = header.acquisition_system_information.as_ref()?;
    system.relative_receiver_noise_bandwidth.map(f64::from)
}

/// Noise covariance of a separate file, and the receiver's bandwidth that its header states: of its noise readouts, or
/// of all its readouts if none is flagged.
fn noise_of(path: &Path, notes: &mut Vec<Note>) -> Result<(NoiseCovariance, Option<f64>), Fault> {
    let mut opened = border("source", || {
        Ok(source::open(path, &OpenOptions::default())?)
    })?;
    let mut flagged = NoiseAccumulator::new();
    let mut all = NoiseAccumulator::new();
    let mut wrong: Option<Fault> = None;
    opened.for_each_batch(&mut |batch| {
        for readout in batch {
            let pushed = if readout.head.has(AcquisitionFlag::IsNoiseMeasurement) {
                flagged.push(readout)
            } else if flagged.is_empty() {
                all.push(readout)
            } else {
                Ok(())
            };
            if let Err(e) = pushed {
                wrong = Some(crate::ingest::IngestError::from(e).into());
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    if let Some(f) = wrong {
        return Err(f);
    }
    if flagged.is_empty() {
        notes.push(Note::new(
            "noise_file_unflagged",
            "no readout of the noise file is flagged as noise: all of them are taken as noise",
        ));
        flagged = all;
    }
    let noise = flagged.finish().map_err(crate::ingest::IngestError::from)?;
    Ok((noise, bandwidth_ratio(&opened.header)))
}

fn device(job: &FileJob<'_>) -> Result<Device, Fault> {
    let mut device = Device::detect();
    let prefs = &job.protocol.file.device;
    if let Some(n) = job.threads.or((prefs.threads > 0).then_some(prefs.threads)) {
        device.threads = n.max(1);
    }
    if prefs.memory_budget_mib > 0 {
        device.memory_bytes = prefs.memory_budget_mib.saturating_mul(1 << 20);
    }
    device.card = card(job.protocol)?;
    Ok(device)
}

/// What a protocol's choice of a card means on this machine.
///
/// # Errors
/// [`FaultKind::Device`]: a card is asked for and cannot be used.
pub(crate) fn card(protocol: &Protocol) -> Result<CardUse, Fault> {
    let prefs = &protocol.file.device;
    CardUse::choose(prefs.prefer, prefs.on_cuda_fault).map_err(|e| {
        let text = format!("protocol {}: device.prefer = \"cuda\": {e}", protocol.name);
        Fault::new(FaultKind::Device, "device", text)
    })
}
