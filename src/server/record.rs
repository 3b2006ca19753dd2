//! A stream as it came, into a file.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use ismrmrd::Limits;
use ismrmrd::wire::{Message, StreamKind, encode};

use super::front::{Front, Incoming};
use crate::data::{Fault, FaultKind};

/// What was stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Recorded {
    /// Bytes.
    pub bytes: u64,
    /// Readouts among them.
    pub readouts: u64,
    /// Version of the stream; `None` if nothing came.
    pub version: Option<u8>,
    /// The client said `CLOSE` (v1), or the stream has its end (v2).
    pub is_complete: bool,
    /// What is wrong with the stream, if anything is; the bytes are kept as they came.
    pub fault: Option<String>,
}

struct Copying<R> {
    from: R,
    to: File,
    bytes: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl<R: Read> Read for Copying<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.from.read(buf)?;
        self.to.write_all(buf.get(..n).unwrap_or_default())?;
        self.bytes
            .fetch_add(n as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(n)
    }
}

/// Takes one connection from this machine and stores what it sends; answers `CLOSE` when it is done.
///
/// # Errors
/// The port, the file.
pub fn record(listener: &TcpListener, path: &Path) -> Result<Recorded, Fault> {
    let io = |e: std::io::Error| {
        Fault::new(
            FaultKind::Io,
            "server",
            format!("cannot record: {e}: {}", path.display()),
        )
    };
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let temporary = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    let (stream, _) = loop {
        let (stream, from) = listener.accept().map_err(io)?;
        if from.ip().to_canonical().is_loopback() {
            break (stream, from);
        }
        tracing::warn!(%from, "refused: only this machine may be recorded");
    };
    stream
        .set_read_timeout(Some(Duration::from_secs(600)))
        .map_err(io)?;
    let bytes = std::sync::Arc::default();
    let copying = Copying {
        from: stream.try_clone().map_err(io)?,
        to: temporary.as_file().try_clone().map_err(io)?,
        bytes: std::sync::Arc::clone(&bytes),
    };
    let mut recorded = Recorded::default();
    match Front::new(Box::new(copying), Limits::default()) {
        Ok(mut front) => {
            recorded.version = front.kind().map(|k| match k {
                StreamKind::V1 => 1,
                StreamKind::V2 => 2,
            });
            loop {
                match front.next() {
                    Ok(Incoming::Readout(_)) => recorded.readouts += 1,
                    Ok(Incoming::Closed) => {
                        recorded.is_complete = true;
                        break;
                    }
                    Ok(Incoming::Silent) => break,
                    Ok(_) => {}
                    Err(f) => {
                        recorded.fault = Some(f.message);
                        front.drain(&|| false);
                        break;
                    }
                }
            }
        }
        Err(f) => recorded.fault = Some(f.message),
    }
    let mut close = Vec::new();
    encode(&Message::Close, &mut close).map_err(super::front::fault)?;
    // A client that has left needs no answer.
    drop((&stream).write_all(&close));
    temporary.as_file().sync_all().map_err(io)?;
    temporary.persist(path).map_err(|e| io(e.error))?;
    recorded.bytes = bytes.load(std::sync::atomic::Ordering::Relaxed);
    Ok(recorded)
}
