//! The chain: one thread reads and ingests, workers reconstruct, one thread hands images on in order.
//!
//! ```text
//! source ─▶ ingest ─▶ [queue, bounded in bytes] ─▶ worker, worker, ... ─▶ in order ─▶ sink
//! ```
//! The sink gets an image as soon as all images before it are there, while the source is still being read: a file's
//! sink collects, a socket's will send.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ismrmrd::acquisition::AcquisitionRef;

use crate::data::{Fault, FaultKind, FrameKey, Note, ReconImage, Scan, Step};
use crate::device::Device;
use crate::ingest::{Ingest, PendingFrame};
use crate::metrics::{Latency, StageClock};
use crate::protocol::{OnFrameError, Protocol};

use super::guard::{border, count_non_finite};
use super::plans::Plans;
use super::queue::ByteQueue;
use super::report::{PatternReport, RefusedFrame, frame_name};
use super::schedule::{Schedule, schedule};
use super::watch::Watch;

/// Names of the stages, in order.
pub const STAGES: [&str; 7] = [
    "open", "read", "ingest", "assemble", "plan", "recon", "handoff",
];

/// What visits batches of readouts.
pub type Visit<'a> = dyn FnMut(&[AcquisitionRef<'_>]) -> ControlFlow<()> + 'a;

/// Where readouts come from: a file, a socket.
pub trait Source {
    /// Readouts in all, if known.
    fn count(&self) -> Option<u64>;

    /// Visits batches in order until the end or until the visitor breaks off.
    ///
    /// # Errors
    /// What is wrong with the data or their medium.
    fn for_each_batch(&mut self, visit: &mut Visit<'_>) -> Result<(), Fault>;
}

impl Source for crate::source::Opened {
    fn count(&self) -> Option<u64> {
        Some(crate::source::Opened::count(self))
    }

    fn for_each_batch(&mut self, visit: &mut Visit<'_>) -> Result<(), Fault> {
        Ok(crate::source::Opened::for_each_batch(self, visit)?)
    }
}

/// Everything that a run needs besides its readouts.
pub struct Settings<'a> {
    /// What the site chose.
    pub protocol: &'a Protocol,
    /// Threads and memory.
    pub device: &'a Device,
    /// Who looks on.
    pub watch: &'a dyn Watch,
    /// Where times go.
    pub clock: &'a StageClock,
    /// Kind and place of the input, for the provenance.
    pub input: &'a str,
    /// Marks of the source, for the provenance of every image.
    pub notes: &'a [Note],
}

/// What the chain knows at its end.
#[derive(Debug)]
pub struct Ran {
    /// The validated scan.
    pub scan: Scan,
    /// How the threads were shared out.
    pub schedule: Schedule,
    /// Readouts read.
    pub readouts: u64,
    /// Frames that gave no image, with the first fault kept whole.
    pub refused: Vec<RefusedFrame>,
    /// What was planned.
    pub patterns: Vec<PatternReport>,
    /// What ingest did.
    pub steps: Vec<Step>,
    /// Marks of the scan as a whole.
    pub notes: Vec<Note>,
    /// From the batch that completed a frame to its image.
    pub latency: Latency,
    /// Frames that took longer than the deadline.
    pub deadline_misses: usize,
    /// Most complete k-space that waited.
    pub queue_high_water_bytes: u64,
}

struct Job {
    seq: u64,
    pending: PendingFrame,
    /// When the batch that completed the frame was taken in.
    completed: Instant,
}

struct Done {
    seq: u64,
    key: FrameKey,
    latency: Duration,
    image: Result<Box<ReconImage>, Fault>,
}

/// The first fault by place in the scan, whoever met it first in time.
#[derive(Default)]
struct FirstFault(Mutex<Option<(u64, Fault)>>);

impl FirstFault {
    fn set(&self, seq: u64, fault: Fault) {
        let mut first = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if first.as_ref().is_none_or(|(s, _)| seq < *s) {
            *first = Some((seq, fault));
        }
    }

    fn is_set(&self) -> bool {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).is_some()
    }

    fn take(&self) -> Option<Fault> {
        let mut first = self.0.lock().unwrap_or_else(|e| e.into_inner());
        first.take().map(|(_, f)| f)
    }
}

/// Runs the chain from `source` to `sink`. Images reach the sink in the order in which their frames became complete;
/// within a file that is read to its end, by key.
///
/// # Errors
/// The first fault by place in the scan: of the source, of a room, of the sink; a panic inside a room is a
/// [`FaultKind::Bug`]. Under `on_frame_error = "deliver_rest"` a frame's fault ends only that frame.
pub fn run(
    mut ingest: Ingest,
    source: &mut dyn Source,
    settings: &Settings<'_>,
    sink: &mut (dyn FnMut(ReconImage) -> Result<(), Fault> + Send),
) -> Result<Ran, Fault> {
    let params = &settings.protocol.file.pipeline;
    let scan = ingest.scan().clone();
    let (frames, frame_bytes) = expected(&scan);
    let shares = schedule(
        frames,
        settings.device.threads,
        frame_bytes,
        settings.device.memory_bytes,
    );
    settings.watch.begin(source.count(), frames);

    let ingest_pool = pool(settings.device.threads)?;
    let worker_pools = (0..shares.workers)
        .map(|_| pool(shares.threads_per_worker))
        .collect::<Result<Vec<_>, _>>()?;
    let plans = Plans::new(&scan, &settings.protocol.file.recon, settings.device);
    let queue: ByteQueue<Job> = ByteQueue::new(params.queue_mib.saturating_mul(1 << 20));
    let (done_in, done_out) = crossbeam::channel::unbounded::<Done>();
    let fault = FirstFault::default();
    let readouts = AtomicU64::new(0);
    let must_stop = || fault.is_set() || settings.watch.is_cancelled();

    let mut ended: Option<(Vec<Step>, Vec<Note>)> = None;
    let mut collected = Collected::default();
    std::thread::scope(|scope| {
        for pool in &worker_pools {
            let (queue, plans, done_in, must_stop) = (&queue, &plans, done_in.clone(), &must_stop);
            scope.spawn(move || {
                while let Some(job) = queue.take() {
                    if must_stop() {
                        continue;
                    }
                    let key = job.pending.key();
                    let image = pool.install(|| reconstruct(job.pending, plans, settings));
                    let done = Done {
                        seq: job.seq,
                        key,
                        latency: job.completed.elapsed(),
                        image: image.map(Box::new),
                    };
                    // The collector outlives the workers; should it have died, its fault is known.
                    if done_in.send(done).is_err() {
                        queue.abandon();
                    }
                }
            });
        }
        drop(done_in);
        let collector = scope.spawn(|| {
            let mut state = Collected::default();
            for done in &done_out {
                let begun = done.seq;
                if let Err(f) = border("pipeline", || state.take(done, settings, sink)) {
                    fault.set(begun, f);
                    queue.abandon();
                }
            }
            state
        });

        let mut seq = 0;
        let mut feed = |frames: Vec<PendingFrame>, completed: Instant| {
            for pending in frames {
                let bytes = pending.heap_bytes() as u64;
                let job = Job {
                    seq,
                    pending,
                    completed,
                };
                seq += 1;
                if queue.put(job, bytes).is_err() {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        };
        let fed = border("pipeline", || {
            let mut in_visit = Duration::ZERO;
            let mut refused: Option<Fault> = None;
            let mut last_batch = Instant::now();
            let begin = Instant::now();
            let read = source.for_each_batch(&mut |batch| {
                let entered = Instant::now();
                last_batch = entered;
                let flow = if must_stop() {
                    ControlFlow::Break(())
                } else {
                    let taken = settings.clock.time("ingest", || {
                        border("ingest", || {
                            ingest_pool.install(|| ingest.push(batch))?;
                            Ok(ingest.take_complete()?)
                        })
                    });
                    readouts.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    settings.watch.readouts(batch.len() as u64);
                    match taken {
                        Ok(frames) => feed(frames, entered),
                        Err(f) => {
                            refused = Some(f);
                            ControlFlow::Break(())
                        }
                    }
                };
                in_visit += entered.elapsed();
                flow
            });
            settings
                .clock
                .add("read", begin.elapsed().saturating_sub(in_visit));
            if let Some(f) = refused {
                return Err(f);
            }
            read?;
            if must_stop() {
                return Ok(None);
            }
            let rest = settings.clock.time("ingest", || {
                border("ingest", || Ok(ingest_pool.install(|| ingest.finish())?))
            })?;
            let end = (rest.steps, rest.notes);
            // A fault behind the queue closes it; that fault is the one to tell.
            if feed(rest.frames, last_batch).is_break() {
                return Ok(None);
            }
            Ok(Some(end))
        });
        match fed {
            Ok(end) => ended = end,
            // Whatever a later frame may still meet, the data end here.
            Err(f) => {
                fault.set(u64::MAX, f);
                queue.abandon();
            }
        }
        queue.close();
        match collector.join() {
            Ok(state) => collected = state,
            Err(payload) => fault.set(
                u64::MAX,
                Fault::new(
                    FaultKind::Bug,
                    "pipeline",
                    super::panic_text(payload.as_ref()),
                ),
            ),
        }
    });

    if let Some(f) = fault.take() {
        return Err(f);
    }
    if settings.watch.is_cancelled() {
        return Err(interrupted());
    }
    let Some((mut steps, notes)) = ended else {
        return Err(interrupted());
    };
    steps.dedup();
    Ok(Ran {
        patterns: plans.report(),
        scan,
        schedule: shares,
        readouts: readouts.into_inner(),
        refused: collected.refused,
        steps,
        notes,
        latency: Latency::of(&collected.latencies),
        deadline_misses: collected.deadline_misses,
        queue_high_water_bytes: queue.high_water_bytes(),
    })
}

/// Images on their way into order.
#[derive(Default)]
struct Collected {
    waiting: BTreeMap<u64, Option<Box<ReconImage>>>,
    next: u64,
    refused: Vec<RefusedFrame>,
    latencies: Vec<Duration>,
    deadline_misses: usize,
}

impl Collected {
    fn take(
        &mut self,
        done: Done,
        settings: &Settings<'_>,
        sink: &mut (dyn FnMut(ReconImage) -> Result<(), Fault> + Send),
    ) -> Result<(), Fault> {
        let params = &settings.protocol.file.pipeline;
        let image = match done.image {
            Ok(mut image) => {
                self.latencies.push(done.latency);
                let seconds = done.latency.as_secs_f64();
                if params.deadline_s > 0.0 && seconds > params.deadline_s {
                    self.deadline_misses += 1;
                    image.provenance.notes.push(Note::new(
                        "deadline_missed",
                        format!(
                            "the image took {seconds:.2} s from its last readout, the protocol asks for {:.2} s",
                            params.deadline_s
                        ),
                    ));
                }
                Some(image)
            }
            Err(f) => {
                let frame = frame_name(&done.key);
                if params.on_frame_error == OnFrameError::Fail || f.kind == FaultKind::Bug {
                    return Err(f);
                }
                self.refused.push(RefusedFrame {
                    frame,
                    message: f.message,
                });
                None
            }
        };
        self.waiting.insert(done.seq, image);
        while let Some(ready) = self.waiting.remove(&self.next) {
            self.next += 1;
            if let Some(image) = ready {
                settings.watch.image();
                sink(*image)?;
            }
        }
        Ok(())
    }
}

/// One frame: put together, planned for, reconstructed; counted at both gates.
fn reconstruct(
    pending: PendingFrame,
    plans: &Plans<'_>,
    settings: &Settings<'_>,
) -> Result<ReconImage, Fault> {
    let clock = settings.clock;
    let frame = clock.time("assemble", || border("ingest", || Ok(pending.assemble()?)))?;
    let name = frame_name(&frame.key);
    let allowed = settings.protocol.file.pipeline.max_non_finite;
    gate(
        "ingest",
        &name,
        count_non_finite(&frame.kspace.samples),
        allowed,
    )?;
    let recon = clock.time("plan", || plans.get(&frame))?;
    let mut image = clock.time("recon", || border("recon", || Ok(recon.run(&frame)?)))?;
    gate("recon", &name, count_non_finite(&image.voxels), allowed)?;

    let provenance = &mut image.provenance;
    provenance.protocol = settings.protocol.describe();
    provenance.input = settings.input.to_owned();
    let from_recon = std::mem::take(&mut provenance.notes);
    for note in settings.notes.iter().chain(&frame.notes).chain(&from_recon) {
        if !provenance.notes.contains(note) {
            provenance.notes.push(note.clone());
        }
    }
    Ok(image)
}

fn gate(room: &'static str, frame: &str, count: u64, allowed: u64) -> Result<(), Fault> {
    if count <= allowed {
        return Ok(());
    }
    // Ingest refuses non-finite samples by itself: whatever arrives here non-finite, we made.
    Err(Fault::new(
        FaultKind::Bug,
        room,
        format!(
            "{frame}: {count} values are NaN or infinite after {room}, allowed {allowed} \
             (pipeline.max_non_finite); nothing was replaced"
        ),
    ))
}

/// How many frames the header announces, and the k-space bytes of the largest.
fn expected(scan: &Scan) -> (usize, u64) {
    let coils = scan
        .header
        .acquisition_system_information
        .as_ref()
        .and_then(|s| s.receiver_channels)
        .unwrap_or(32);
    let (mut frames, mut bytes) = (0usize, 0u64);
    for (encoding, planned) in scan.header.encoding.iter().zip(&scan.encodings) {
        let Some(planned) = planned else { continue };
        let l = &encoding.encoding_limits;
        let product = [l.slice, l.contrast, l.phase, l.repetition, l.set]
            .iter()
            .map(|limit| limit.map_or(1, |l| (l.maximum as usize).saturating_add(1)))
            .fold(1usize, usize::saturating_mul);
        frames = frames.saturating_add(product);
        let grid = planned
            .grid
            .iter()
            .fold(u64::from(coils) * 8, |a, n| a.saturating_mul(*n as u64));
        bytes = bytes.max(grid);
    }
    (frames.max(1), bytes)
}

fn pool(threads: usize) -> Result<rayon::ThreadPool, Fault> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(|i| format!("cauda-{i}"))
        .build()
        .map_err(|e| {
            Fault::new(
                FaultKind::Device,
                "pipeline",
                format!("cannot start {threads} threads: {e}; try --threads with a smaller number"),
            )
        })
}

fn interrupted() -> Fault {
    Fault::new(
        FaultKind::Io,
        "pipeline",
        "interrupted; nothing was delivered",
    )
}
