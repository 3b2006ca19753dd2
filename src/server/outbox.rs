//! Bytes on their way to the peer: a queue bounded in bytes and one thread that writes, so that a peer that reads late
//! does not stop the reconstruction, and one that never reads does.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::data::{Fault, FaultKind};
use crate::pipeline::queue::ByteQueue;

/// Called when the bytes have left.
pub(super) type Left = Box<dyn FnOnce() + Send>;

struct Parcel {
    bytes: Vec<u8>,
    left: Option<Left>,
}

struct Shared {
    queue: ByteQueue<Parcel>,
    has_failed: AtomicBool,
    failure: Mutex<Option<String>>,
}

/// The writing end of a connection.
pub(super) struct Outbox {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Outbox {
    /// Starts the thread that writes to `to`.
    ///
    /// # Errors
    /// The system has no thread for us.
    pub(super) fn new(mut to: Box<dyn Write + Send>, limit_bytes: u64) -> Result<Self, Fault> {
        let shared = Arc::new(Shared {
            queue: ByteQueue::new(limit_bytes),
            has_failed: AtomicBool::new(false),
            failure: Mutex::new(None),
        });
        let mine = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("cauda-outbox".into())
            .spawn(move || {
                while let Some(parcel) = mine.queue.take() {
                    // One write for one image: a peer sees it whole or not at all, and no packet waits for the next.
                    let written = to.write_all(&parcel.bytes).and_then(|()| to.flush());
                    match written {
                        Ok(()) => {
                            if let Some(left) = parcel.left {
                                left();
                            }
                        }
                        Err(e) => {
                            *mine.failure.lock().unwrap_or_else(|e| e.into_inner()) =
                                Some(words(&e));
                            mine.has_failed.store(true, Ordering::Release);
                            mine.queue.abandon();
                        }
                    }
                }
            })
            .map_err(|e| {
                Fault::new(
                    FaultKind::Device,
                    "server",
                    format!("cannot start a thread for a connection: {e}"),
                )
            })?;
        Ok(Self {
            shared,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Waits for room, then adds bytes.
    ///
    /// # Errors
    /// Why nothing can be sent any more.
    pub(super) fn put(&self, bytes: Vec<u8>, left: Option<Left>) -> Result<(), Fault> {
        let n = bytes.len() as u64;
        let parcel = Parcel { bytes, left };
        self.shared.queue.put(parcel, n).map_err(|_| self.failure())
    }

    /// Whether the peer takes no more.
    pub(super) fn has_failed(&self) -> bool {
        self.shared.has_failed.load(Ordering::Acquire)
    }

    /// Most bytes that ever waited.
    pub(super) fn high_water_bytes(&self) -> u64 {
        self.shared.queue.high_water_bytes()
    }

    fn failure(&self) -> Fault {
        let failure = self
            .shared
            .failure
            .lock()
            .unwrap_or_else(|e| e.into_inner());
        let words = failure.as_deref().unwrap_or("the connection is closed");
        Fault::new(
            FaultKind::Io,
            "server",
            format!("sending to the client: {words}"),
        )
    }

    /// Sends what waits; the peer's write time-out bounds how long.
    ///
    /// # Errors
    /// Why not everything could be sent.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        self.shared.queue.close();
        let writer = self.writer.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            return Err(Fault::new(
                FaultKind::Bug,
                "server",
                "the writing thread failed",
            ));
        }
        if self.has_failed() {
            return Err(self.failure());
        }
        Ok(())
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // Whoever did not call `finish` has a fault of its own to tell.
        drop(self.finish());
    }
}

fn words(e: &std::io::Error) -> String {
    use std::io::ErrorKind as K;
    match e.kind() {
        K::WouldBlock | K::TimedOut => {
            "it took no bytes for longer than this server waits: it does not read its images".into()
        }
        K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe => format!("it vanished: {e}"),
        _ => e.to_string(),
    }
}
