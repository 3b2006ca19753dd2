//! The chain's source: batches of the readouts that the socket holds.
//!
//! A scanner at work sends a readout, then measures: what came is visited at once, on the thread that reads. A peer that
//! sends faster than that fills batches; these are visited by a second thread while the first reads on.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam::channel::bounded;
use ismrmrd::acquisition::AcquisitionRef;
use ismrmrd::{Acquisition, Header};

use super::connection::Control;
use super::front::{Front, Incoming};
use crate::data::{Complex32, Fault, FaultKind};
use crate::pipeline::{Source, Visit};

/// Most readouts that are handed on at once.
const BATCH: usize = 256;
/// Bytes of samples from which a batch is full: they still lie in the cache when they are visited.
const BATCH_BYTES: usize = 2 << 20;

/// So few readouts are visited where they are: waking another thread takes as long as a readout of 12 coils (some 20 us).
const FEW: usize = 3;

/// How long bytes that were not there a moment ago are waited for before one asks what became of those that were.
const MOMENT: Duration = Duration::from_millis(1);

/// What to do with everything that is not a readout.
pub(super) type Aside<'a> = dyn FnMut(Incoming) -> Result<(), Fault> + 'a;

/// Readouts of one connection, from the first to `CLOSE`.
pub(super) struct LiveSource<'a> {
    pub(super) front: &'a mut Front,
    /// The readout that began the scan.
    pub(super) first: Option<Acquisition>,
    pub(super) aside: &'a mut Aside<'a>,
    pub(super) control: &'a Control,
    /// The longest silence.
    pub(super) silence: Duration,
}

/// How far a batch was filled.
enum Filled {
    Full,
    /// Nothing more is there.
    Empty,
    /// The scan is over.
    End,
}

/// Readouts that are visited together.
#[derive(Default)]
struct Batch {
    readouts: Vec<Acquisition>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, readout: Acquisition) {
        self.bytes += readout.data.len() * size_of::<Complex32>();
        self.readouts.push(readout);
    }

    fn is_full(&self) -> bool {
        self.readouts.len() >= BATCH || self.bytes >= BATCH_BYTES
    }
}

/// The visitor, who is called by one thread at a time and not again after it broke off.
struct Visitor<'a, 'v> {
    visit: Mutex<&'a mut Visit<'v>>,
    is_done: AtomicBool,
}

impl Visitor<'_, '_> {
    fn visit(&self, batch: &Batch) {
        if self.is_done() {
            return;
        }
        let refs: Vec<AcquisitionRef<'_>> =
            batch.readouts.iter().map(Acquisition::as_ref).collect();
        // A visitor that panicked is not called again: the panic ends the source.
        let mut visit = self.visit.lock().unwrap_or_else(PoisonError::into_inner);
        if visit(&refs).is_break() {
            self.is_done.store(true, Ordering::Release);
        }
    }

    fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Acquire)
    }
}

impl LiveSource<'_> {
    /// Adds a readout to the batch; `Break` at the end of the scan.
    fn take(&mut self, incoming: Incoming, batch: &mut Batch) -> Result<ControlFlow<()>, Fault> {
        match incoming {
            Incoming::Readout(readout) => batch.push(readout),
            Incoming::Closed | Incoming::Silent => return Ok(ControlFlow::Break(())),
            Incoming::Failed(words) => {
                return Err(Fault::new(
                    FaultKind::Input,
                    "server",
                    format!("the client says that it failed: {words}"),
                ));
            }
            Incoming::Image => return Err(images_refused()),
            other => (self.aside)(other)?,
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Fills the batch with what is there; never waits.
    fn fill(&mut self, batch: &mut Batch) -> Result<Filled, Fault> {
        while !batch.is_full() {
            let Some(incoming) = self.front.ready()? else {
                return Ok(Filled::Empty);
            };
            if self.take(incoming, batch)?.is_break() {
                return Ok(Filled::End);
            }
        }
        Ok(Filled::Full)
    }

    /// Whether bytes of the peer are there, or come in a moment. Nobody knows of a pipe.
    fn has_more(&self) -> bool {
        let Some(socket) = &self.control.socket else {
            return false;
        };
        self.control.allow_silence(MOMENT);
        let peeked = socket.peek(&mut [0]);
        self.control.allow_silence(self.silence);
        // The end, or a socket that is broken: the next read tells.
        !peeked.is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    fn recycle(&mut self, batch: &mut Batch) {
        for readout in batch.readouts.drain(..) {
            self.front.give_back(readout);
        }
        batch.bytes = 0;
    }
}

impl Source for LiveSource<'_> {
    fn count(&self) -> Option<u64> {
        None
    }

    fn for_each_batch(&mut self, visit: &mut Visit<'_>) -> Result<(), Fault> {
        let visitor = Visitor {
            visit: Mutex::new(visit),
            is_done: AtomicBool::new(false),
        };
        // One batch is read, one waits, one is visited.
        let (full_in, full_out) = bounded::<Batch>(1);
        let (empty_in, empty_out) = bounded::<Batch>(3);
        let handed = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let (visitor, handed) = (&visitor, &handed);
            let second = scope.spawn(move || {
                for batch in full_out {
                    visitor.visit(&batch);
                    handed.fetch_sub(1, Ordering::AcqRel);
                    // There are never more batches than places.
                    empty_in.try_send(batch).unwrap_or(());
                }
            });
            let mut batch = Batch::default();
            self.first.take().into_iter().for_each(|r| batch.push(r));
            let end = loop {
                let filled = self.fill(&mut batch);
                // What came before the end or the fault counts.
                if batch.readouts.is_empty() {
                } else if batch.readouts.len() <= FEW && handed.load(Ordering::Acquire) == 0 {
                    visitor.visit(&batch);
                    self.recycle(&mut batch);
                } else {
                    handed.fetch_add(1, Ordering::AcqRel);
                    if full_in.send(std::mem::take(&mut batch)).is_err() {
                        break Ok(()); // the second thread panicked, which is told below
                    }
                    if let Ok(visited) = empty_out.try_recv() {
                        batch = visited;
                        self.recycle(&mut batch);
                    }
                }
                match filled {
                    Err(f) => break Err(f),
                    Ok(Filled::End) => break Ok(()),
                    Ok(_) if visitor.is_done() => break Ok(()),
                    Ok(Filled::Full) => continue,
                    Ok(Filled::Empty) => {}
                }
                // What came is judged before more is waited for: the peer may wait for our words.
                while handed.load(Ordering::Acquire) > 0 && !second.is_finished() {
                    if self.has_more() {
                        break;
                    }
                    if self.control.socket.is_some() {
                        continue;
                    }
                    match empty_out.recv() {
                        Ok(mut visited) => self.recycle(&mut visited),
                        Err(_) => break,
                    }
                }
                if visitor.is_done() || second.is_finished() {
                    break Ok(());
                }
                let incoming = self.front.next();
                match incoming.and_then(|incoming| self.take(incoming, &mut batch)) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => break Ok(()),
                    Err(f) => break Err(f),
                }
            };
            drop(full_in);
            if let Err(panic) = second.join() {
                std::panic::resume_unwind(panic);
            }
            end
        })
    }
}

pub(super) fn images_refused() -> Fault {
    Fault::new(
        FaultKind::Unsupported,
        "server",
        "images came, expected readouts: this server reconstructs, it does not process images",
    )
}

/// One line about a header, for the log.
pub(super) fn describe(header: &Header) -> String {
    let encodings: Vec<String> = header
        .encoding
        .iter()
        .map(|e| {
            let [x, y, z] = e.recon_space.matrix_size;
            format!("{x}x{y}x{z}")
        })
        .collect();
    let coils = header
        .acquisition_system_information
        .as_ref()
        .and_then(|s| s.receiver_channels)
        .map_or_else(|| "unstated".into(), |n| n.to_string());
    format!("{} matrix, {coils} coils", encodings.join(" + "))
}
