//! The chain: one thread reads and ingests, workers reconstruct, one thread hands images on in order.
//!
//! ```text
//! source ─▶ ingest ─▶ [queue, bounded in bytes] ─▶ worker, worker, ... ─▶ in order ─▶ denoise ─▶ sink
//! ```
//! Nothing in it grows without a bound: a slow sink stops the workers, these the queue, the queue the source.
//! The sink gets an image as soon as all images before it are there, while the source is still being read: a file's
//! sink collects, a socket's will send.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam::channel::RecvTimeoutError;
use ismrmrd::acquisition::AcquisitionRef;

use crate::data::{
    Fault, FaultKind, FrameKey, NoiseCovariance, Note, ReconImage, Scan, Stamp, Step,
};
use crate::device::Device;
use crate::ingest::{Ingest, PendingFrame};
use crate::metrics::{Clock, Latencies, Latency, StageClock};
use crate::protocol::{OnFrameError, Protocol};

use super::denoise;
use super::guard::{border, count_non_finite};
use super::plans::Plans;
use super::queue::ByteQueue;
use super::report::{PatternReport, RefusedFrame, frame_name};
use super::schedule::{Schedule, schedule};
use super::warm::Warm;
use super::watch::Watch;

/// Names of the stages, in order.
pub const STAGES: [&str; 8] = [
    "open", "read", "ingest", "assemble", "plan", "recon", "denoise", "handoff",
];

/// What takes the images, each with its marks.
pub type Sink<'a> = dyn FnMut(ReconImage, Stamp) -> Result<(), Fault> + Send + 'a;

/// What visits batches of readouts, on any thread.
pub type Visit<'a> = dyn FnMut(&[AcquisitionRef<'_>]) -> ControlFlow<()> + Send + 'a;

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
    /// What the scans before left.
    pub warm: &'a Warm,
    /// Who looks on.
    pub watch: &'a dyn Watch,
    /// Where times go.
    pub clock: &'a StageClock,
    /// Kind and place of the input, for the provenance.
    pub input: &'a str,
    /// Marks of the source, for the provenance of every image.
    pub notes: &'a [Note],
    /// What time it is, for the marks of the images.
    pub now: &'a dyn Clock,
    /// Images leave for good as soon as they are there: frames that were complete before the source failed are still
    /// delivered, and each image carries ingest's steps as far as they are known then.
    pub is_live: bool,
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
    /// The first frames that gave no image.
    pub refused: Vec<RefusedFrame>,
    /// All of them.
    pub n_refused: usize,
    /// What was planned.
    pub patterns: Vec<PatternReport>,
    /// What ingest did.
    pub steps: Vec<Step>,
    /// Marks of the scan as a whole.
    pub notes: Vec<Note>,
    /// Covariance of the noise that was used.
    pub noise: Option<NoiseCovariance>,
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
    /// When the frame was handed on.
    sorted: Instant,
    steps: Arc<[Step]>,
}

struct Done {
    seq: u64,
    key: FrameKey,
    completed: Instant,
    latency: Duration,
    image: Result<(Box<ReconImage>, Stamp), Fault>,
}

/// Frames without an image that are named; more are counted.
const MAX_REFUSED: usize = 1000;

/// Frames between the queue and the sink, for each worker: enough to keep all of them busy while one is late.
const IN_FLIGHT_PER_WORKER: usize = 4;

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
    sink: &mut Sink<'_>,
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

    let warm = settings.warm;
    let ingest_pool = warm.pool(settings.device.threads)?;
    let worker_pools = (0..shares.workers)
        .map(|_| warm.pool(shares.threads_per_worker))
        .collect::<Result<Vec<_>, _>>()?;
    let plans =
        Plans::new(&scan, &settings.protocol.file.recon, settings.device).with_networks(warm);
    let queue: ByteQueue<Job> = ByteQueue::new(params.queue_mib.saturating_mul(1 << 20));
    let in_flight = shares.workers * IN_FLIGHT_PER_WORKER;
    let (done_in, done_out) = crossbeam::channel::bounded::<Done>(in_flight);
    // Jobs are taken in order, so the frame that all others wait for holds a token: no standstill.
    let (token_in, token_out) = crossbeam::channel::bounded::<()>(in_flight);
    let give_token = || {
        // There are never more tokens than places.
        token_in.try_send(()).unwrap_or(());
    };
    (0..in_flight).for_each(|_| give_token());
    let fault = FirstFault::default();
    let readouts = AtomicU64::new(0);
    let must_stop = || fault.is_set() || settings.watch.is_cancelled();

    let mut ended: Option<(Vec<Step>, Vec<Note>, Option<NoiseCovariance>)> = None;
    let mut source_fault: Option<Fault> = None;
    let mut collected = Collected::default();
    std::thread::scope(|scope| {
        for pool in &worker_pools {
            let (queue, plans, done_in, must_stop) = (&queue, &plans, done_in.clone(), &must_stop);
            let (tokens, give_token) = (token_out.clone(), &give_token);
            scope.spawn(move || {
                while tokens.recv().is_ok() {
                    let Some(job) = queue.take() else { break };
                    if must_stop() {
                        give_token();
                        continue;
                    }
                    let (seq, key, completed) = (job.seq, job.pending.key(), job.completed);
                    let image = pool.install(|| reconstruct(job, plans, settings));
                    let done = Done {
                        seq,
                        key,
                        completed,
                        latency: completed.elapsed(),
                        image: image.map(|(image, stamp)| (Box::new(image), stamp)),
                    };
                    // The collector outlives the workers; should it have died, its fault is known.
                    if done_in.send(done).is_err() {
                        queue.abandon();
                    }
                }
                // The worker that found the end lets the next one find it.
                give_token();
            });
        }
        drop(done_in);
        let collector = scope.spawn(|| {
            let mut state = Collected::default();
            let mut stage = denoise::Stage::new(&scan, settings);
            let mut has_failed = false;
            loop {
                let done = match stage.patience() {
                    Some(patience) => done_out.recv_timeout(patience),
                    None => done_out.recv().map_err(|_| RecvTimeoutError::Disconnected),
                };
                let has_ended = matches!(done, Err(RecvTimeoutError::Disconnected));
                if has_ended {
                    stage.end();
                }
                let begun = done.as_ref().map_or(u64::MAX, |d| d.seq);
                let taken = border("pipeline", || {
                    let left = done.map_or(Ok(0), |done| state.take(done, settings, &mut stage))?;
                    (0..left).for_each(|_| give_token());
                    // After a fault of the sink images only leave the queue.
                    while let Some(ready) = stage.next() {
                        if !has_failed {
                            state.leave(ready, settings, sink)?;
                        }
                    }
                    Ok(())
                });
                if let Err(f) = taken {
                    has_failed = true;
                    fault.set(begun, f);
                    queue.abandon();
                    // From here on nothing is kept back.
                    (0..in_flight).for_each(|_| give_token());
                }
                if has_ended {
                    break state;
                }
            }
        });

        let mut seq = 0;
        let mut feed = |frames: Vec<PendingFrame>, completed: Instant, steps: &Arc<[Step]>| {
            for pending in frames {
                let bytes = pending.heap_bytes() as u64;
                let job = Job {
                    seq,
                    pending,
                    completed,
                    sorted: settings.now.now(),
                    steps: Arc::clone(steps),
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
            let mut steps: Arc<[Step]> = Arc::default();
            let mut steps_known = !settings.is_live;
            let held_limit = settings.device.memory_bytes;
            let begin = Instant::now();
            let read = source.for_each_batch(&mut |batch| {
                let entered = Instant::now();
                last_batch = entered;
                let flow = if must_stop() {
                    ControlFlow::Break(())
                } else {
                    let taken = settings.clock.time("ingest", || {
                        border("ingest", || {
                            ingest.arrived(settings.now.now());
                            if settings.is_live {
                                ingest.push_here(batch)?;
                            } else {
                                ingest_pool.install(|| ingest.push(batch))?;
                            }
                            let frames = ingest.take_complete()?;
                            if !steps_known && !frames.is_empty() {
                                steps = ingest.steps_so_far()?.into();
                                steps_known = true;
                            }
                            if settings.is_live && ingest.held_bytes() > held_limit {
                                return Err(too_much(ingest.held_bytes(), held_limit));
                            }
                            Ok(frames)
                        })
                    });
                    readouts.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    settings.watch.readouts(batch.len() as u64);
                    match taken {
                        Ok(frames) => feed(frames, entered, &steps),
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
            if settings.is_live
                && let Some(noise) = border("ingest", || Ok(ingest.noise_only()?))?
            {
                // A noise scan on its own: what it was measured for is its covariance.
                return Ok(Some((Vec::new(), Vec::new(), Some(noise))));
            }
            let rest = settings.clock.time("ingest", || {
                border("ingest", || Ok(ingest_pool.install(|| ingest.finish())?))
            })?;
            let end = (rest.steps, rest.notes, rest.noise);
            if !steps_known {
                let known = end.0.iter().filter(|s| s.op != "ingest/sort");
                steps = known.cloned().collect::<Vec<_>>().into();
            }
            // A fault behind the queue closes it; that fault is the one to tell.
            if feed(rest.frames, last_batch, &steps).is_break() {
                return Ok(None);
            }
            Ok(Some(end))
        });
        match fed {
            Ok(end) => ended = end,
            Err(f) if settings.is_live => source_fault = Some(f),
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

    if let Some(f) = fault.take().or(source_fault) {
        return Err(f);
    }
    if settings.watch.is_cancelled() {
        return Err(interrupted());
    }
    let Some((mut steps, notes, noise)) = ended else {
        return Err(interrupted());
    };
    steps.dedup();
    Ok(Ran {
        patterns: plans.report(),
        scan,
        schedule: shares,
        readouts: readouts.into_inner(),
        refused: collected.refused,
        n_refused: collected.n_refused,
        steps,
        notes,
        noise,
        latency: collected.latencies.report(),
        deadline_misses: collected.deadline_misses,
        queue_high_water_bytes: queue.high_water_bytes(),
    })
}

/// An image, its marks, when the batch that completed its frame was taken in, and how long it took from there.
type Ready = (Box<ReconImage>, Stamp, (Instant, Duration));

/// Images on their way into order.
#[derive(Default)]
struct Collected {
    waiting: BTreeMap<u64, Result<Ready, FrameKey>>,
    next: u64,
    refused: Vec<RefusedFrame>,
    n_refused: usize,
    latencies: Latencies,
    deadline_misses: usize,
}

impl Collected {
    /// Puts what is next in order before the stage; returns how many frames.
    fn take(
        &mut self,
        done: Done,
        settings: &Settings<'_>,
        stage: &mut denoise::Stage<'_>,
    ) -> Result<usize, Fault> {
        let image = match done.image {
            Ok((image, stamp)) => Ok((image, stamp, (done.completed, done.latency))),
            Err(f) => {
                let frame = frame_name(&done.key);
                let params = &settings.protocol.file.pipeline;
                if params.on_frame_error == OnFrameError::Fail || f.kind == FaultKind::Bug {
                    return Err(f);
                }
                self.n_refused += 1;
                if self.refused.len() < MAX_REFUSED {
                    self.refused.push(RefusedFrame {
                        frame,
                        message: f.message,
                    });
                }
                Err(done.key)
            }
        };
        self.waiting.insert(done.seq, image);
        let mut left = 0;
        while let Some(ready) = self.waiting.remove(&self.next) {
            self.next += 1;
            left += 1;
            match ready {
                Ok((image, stamp, times)) => stage.push(image, stamp, times),
                Err(key) => stage.lost(key),
            }
        }
        Ok(left)
    }

    /// An image leaves for good.
    fn leave(
        &mut self,
        (mut image, stamp, latency): denoise::Leaving,
        settings: &Settings<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), Fault> {
        let deadline_s = settings.protocol.file.pipeline.deadline_s;
        self.latencies.add(latency);
        let seconds = latency.as_secs_f64();
        if deadline_s > 0.0 && seconds > deadline_s {
            self.deadline_misses += 1;
            image.provenance.notes.push(Note::new(
                "deadline_missed",
                format!(
                    "the image took {seconds:.2} s from its last readout, the protocol asks for {deadline_s:.2} s"
                ),
            ));
        }
        settings.watch.image();
        sink(*image, stamp)
    }
}

/// One frame: put together, planned for, reconstructed; counted at both gates.
fn reconstruct(
    job: Job,
    plans: &Plans<'_>,
    settings: &Settings<'_>,
) -> Result<(ReconImage, Stamp), Fault> {
    let clock = settings.clock;
    let begun = settings.now.now();
    let Job {
        pending,
        sorted,
        steps,
        ..
    } = job;
    let (first_readout, last_readout) = pending.arrival().unwrap_or((sorted, sorted));
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
    let mut image = clock.time("recon", || {
        border("recon", || {
            Ok(recon.run_with(&frame, settings.warm.calibrations())?)
        })
    })?;
    gate("recon", &name, count_non_finite(&image.voxels), allowed)?;

    let provenance = &mut image.provenance;
    provenance.protocol = settings.protocol.describe();
    provenance.input = settings.input.to_owned();
    provenance.steps.splice(0..0, steps.iter().cloned());
    let from_recon = std::mem::take(&mut provenance.notes);
    for note in settings.notes.iter().chain(&frame.notes).chain(&from_recon) {
        if !provenance.notes.contains(note) {
            provenance.notes.push(note.clone());
        }
    }
    let stamp = Stamp {
        first_readout,
        last_readout,
        sorted,
        begun,
        reconstructed: settings.now.now(),
        denoised: None,
        sent: None,
    };
    Ok((image, stamp))
}

fn too_much(held: u64, limit: u64) -> Fault {
    Fault::new(
        FaultKind::Limit,
        "pipeline",
        format!(
            "{} MiB of readouts wait for their frames to become complete, this scan may hold {} MiB; no frame of it \
             was announced as complete (last-in-slice flags), or the memory budget is too small",
            held >> 20,
            limit >> 20
        ),
    )
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

fn interrupted() -> Fault {
    Fault::new(
        FaultKind::Io,
        "pipeline",
        "interrupted; nothing was delivered",
    )
}
