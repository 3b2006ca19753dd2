//! Behind the scans: whole series meet, and become contrasts that nobody measured.
//!
//! From files ([`load_series`], [`synthesise`]) the set is there at once. In a server each scan brings one series to
//! [`Studies`], behind its own images: the one that completes the set gets what is made. A series waits in bounded memory and
//! for as long as the protocol says; then the set is given up, and whoever comes too late is told.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::data::{Fault, FaultKind, Note, ReconImage, Scan};
use crate::handoff::{dicom_instances, holds_images, read_series};
use crate::source::{self, OpenOptions};
use crate::synth::{Exam, Leave, Report, Series, SynthParams, Synthesiser, facts};

use super::file::{FileJob, Finished, recon_file};
use super::guard::border;
use super::warm::Warm;

/// A series from a file.
pub struct Loaded {
    from: From,
    /// DICOM class and instance of each image, where it was DICOM.
    instances: Vec<(String, String)>,
}

/// What it came from.
enum From {
    Images(Scan, Vec<ReconImage>),
    KSpace(Box<Finished>),
}

/// Opens a series of images, or reconstructs one from k-space.
///
/// # Errors
/// Those of the reader, or of [`recon_file`].
pub fn load_series(job: &FileJob<'_>) -> Result<Loaded, Fault> {
    if !is_images(job.input)? {
        return Ok(Loaded {
            from: From::KSpace(Box::new(recon_file(job)?)),
            instances: Vec::new(),
        });
    }
    let read = border("handoff", || Ok(read_series(job.input)?))?;
    Ok(Loaded {
        from: From::Images(read.scan, read.images),
        instances: read.instances,
    })
}

/// Whether a path holds images rather than readouts.
fn is_images(path: &Path) -> Result<bool, Fault> {
    if holds_images(path) {
        return Ok(true);
    }
    if path.is_dir() || path.extension().is_none_or(|e| e != "h5" && e != "hdf5") {
        return Ok(false);
    }
    let options = OpenOptions {
        images: true,
        ..OpenOptions::default()
    };
    let opened = border("source", || Ok(source::open(path, &options)?))?;
    Ok(opened.count() == 0)
}

impl Loaded {
    /// From k-space: the acquired images, which go out first.
    pub fn finished(&self) -> Option<&Finished> {
        match &self.from {
            From::KSpace(finished) => Some(finished),
            From::Images(..) => None,
        }
    }

    /// The series as the stage takes it.
    ///
    /// # Errors
    /// Images that are no series.
    pub fn series(&self) -> Result<Series, Fault> {
        let (scan, images) = match &self.from {
            From::Images(scan, images) => (scan, images),
            From::KSpace(finished) => (&finished.scan, &finished.images),
        };
        let mut series = border("synth", || Ok(Series::of(scan, images)?))?;
        series.instances.clone_from(&self.instances);
        Ok(series)
    }

    /// Takes the identifiers of the acquired images from the DICOM files that they went into.
    ///
    /// # Errors
    /// A file that cannot be read back.
    pub fn instances_from(&mut self, files: &[PathBuf]) -> Result<(), Fault> {
        self.instances = border("handoff", || Ok(dicom_instances(files)?))?;
        Ok(())
    }
}

/// Makes what a protocol wants of a set; slices leave through `leave` as they are made.
///
/// # Errors
/// Wrong parameters; those of `leave`. What cannot be made stands in the report.
pub fn synthesise(
    params: &SynthParams,
    exam: &Exam,
    warm: &Warm,
    threads: usize,
    leave: &mut Leave<'_>,
) -> Result<Report, Fault> {
    let pool = warm.pool(threads)?;
    let stage = border("synth", || {
        Ok(Synthesiser::plan(params, &mut |which| {
            warm.model(which, params.runtime, threads)
        })?)
    })?;
    border("synth", || pool.install(|| stage.run(exam, leave)))
}

/// Series of studies that are not complete.
#[derive(Debug)]
pub struct Studies {
    held: Mutex<Vec<Held>>,
    limit_bytes: u64,
}

#[derive(Debug)]
struct Held {
    study: String,
    role: &'static str,
    since: Instant,
    wait: Duration,
    series: Series,
}

/// What a series found.
#[derive(Debug)]
pub enum Met {
    /// The other one: this is the set.
    Set(Box<Exam>, Vec<Note>),
    /// Nobody yet: it waits.
    Waits(Vec<Note>),
    /// It is none that anything is made from.
    Alone(Note),
}

impl Studies {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self {
            held: Mutex::default(),
            limit_bytes,
        }
    }

    /// Brings a finished series; `now` is the time.
    ///
    /// # Errors
    /// Images that are no series.
    pub fn meet(
        &self,
        scan: &Scan,
        images: &[ReconImage],
        params: &SynthParams,
        now: Instant,
    ) -> Result<Met, Fault> {
        let said = facts(scan, images);
        let alone = |code, text: String| Ok(Met::Alone(Note::new(code, text)));
        let Some(role) = Exam::role(&said) else {
            return alone(
                "synth_not_a_source",
                format!(
                    "{} is neither T1w nor T2w by its times and names: nothing is made from it",
                    said.name
                ),
            );
        };
        // A patient alone is no examination, but all that some headers state.
        let Some(study) = said.study.or(said.patient) else {
            return alone(
                "synth_no_study",
                format!(
                    "{}: its header states neither study nor patient, so that no other series can be known to belong to it",
                    said.name
                ),
            );
        };
        let series = border("synth", || Ok(Series::of(scan, images)?))?;
        let mut notes = Vec::new();
        let mut held = self.held.lock().unwrap_or_else(|e| e.into_inner());
        held.retain(|h| {
            let waited = now.saturating_duration_since(h.since);
            let is_late = waited > h.wait;
            if is_late && h.study == study {
                notes.push(Note::new(
                    "synth_timed_out",
                    format!(
                        "{} ({}) of this study came {:.0} s ago and waited for {:.0} s (synth.wait_s): that set was given up",
                        h.series.facts.name,
                        h.role,
                        waited.as_secs_f64(),
                        h.wait.as_secs_f64()
                    ),
                ));
            }
            !is_late
        });
        let other = held.iter().position(|h| h.study == study && h.role != role);
        if let Some(at) = other {
            let other = held.swap_remove(at).series;
            held.retain(|h| h.study != study);
            let (t1w, t2w) = if role == "T1w" {
                (series, other)
            } else {
                (other, series)
            };
            let exam = Exam {
                t1w: Some(t1w),
                t2w: Some(t2w),
            };
            return Ok(Met::Set(Box::new(exam), notes));
        }
        if let Some(at) = held.iter().position(|h| h.study == study) {
            let old = held.swap_remove(at);
            notes.push(Note::new(
                "synth_replaced",
                format!(
                    "{} takes the place of {}, which is {role} as well",
                    said.name, old.series.facts.name
                ),
            ));
        }
        let bytes = |held: &[Held]| held.iter().map(|h| h.series.bytes()).sum::<u64>();
        while !held.is_empty() && bytes(&held) + series.bytes() > self.limit_bytes {
            // The one that has waited longest.
            let oldest = (0..held.len()).min_by_key(|i| held[*i].since).unwrap_or(0);
            let gone = held.swap_remove(oldest);
            tracing::warn!(series = %gone.series.facts.name, "no memory for a series that waits for its study: given up");
        }
        if series.bytes() > self.limit_bytes {
            return Err(Fault::new(
                FaultKind::Limit,
                "pipeline",
                format!(
                    "{} would wait for its study with {} MiB, allowed are {} MiB: nothing is made from it",
                    said.name,
                    series.bytes() >> 20,
                    self.limit_bytes >> 20
                ),
            ));
        }
        notes.push(Note::new(
            "synth_waits",
            format!(
                "{} ({role}) waits up to {:.0} s for the other series of its study",
                said.name, params.wait_s
            ),
        ));
        held.push(Held {
            study,
            role,
            since: now,
            wait: Duration::from_secs_f32(params.wait_s.clamp(0.0, 86_400.0)),
            series,
        });
        Ok(Met::Waits(notes))
    }
}
