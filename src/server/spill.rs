//! The stream as it came, beside the scan, so that nothing is lost when something fails.
//!
//! Every byte goes to the file before anyone looks at it. When all images were sent the file goes; else it stays and the
//! console is told its name. `cauda recon` reads it (`--allow-truncated` if the peer vanished). Beside it a journal says
//! which images were sent or were being sent, so that a second reconstruction can mark them.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::data::{Fault, FaultKind, FrameKey};
use crate::pipeline::journal;

/// Ending of a spilled stream.
const ENDING: &str = "mrd";

/// One scan's files.
pub(super) struct Spill {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    stream: Option<File>,
    journal: Option<File>,
    /// Why the stream is not whole, until it is asked.
    failure: Option<String>,
    bytes: u64,
}

impl Spill {
    /// Opens a new file in `dir`. The name is ours alone: time, process, number of the connection.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub(super) fn create(dir: &Path, connection: u64) -> Result<Arc<Self>, Fault> {
        let ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis());
        let name = format!("scan-{ms}-{}-{connection}.{ENDING}", std::process::id());
        let path = dir.join(name);
        let stream = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| io("cannot create the spill file", &path, &e))?;
        Ok(Arc::new(Self {
            path,
            inner: Mutex::new(Inner {
                stream: Some(stream),
                journal: None,
                failure: None,
                bytes: 0,
            }),
        }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // A file whose last write was cut short by a panic is still a prefix of the stream.
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Adds bytes. After the first failure (a full disk) nothing more is written: the scan goes on without.
    fn add(&self, bytes: &[u8]) {
        let mut inner = self.lock();
        let Some(stream) = inner.stream.as_mut() else {
            return;
        };
        match stream.write_all(bytes) {
            Ok(()) => inner.bytes += bytes.len() as u64,
            Err(e) => {
                inner.stream = None;
                inner.failure = Some(e.to_string());
            }
        }
    }

    /// Why the file is not whole, once.
    pub(super) fn take_failure(&self) -> Option<String> {
        self.lock().failure.take()
    }

    /// Whether everything that was read so far stands in the file.
    pub(super) fn is_whole(&self) -> bool {
        self.lock().stream.is_some()
    }

    /// Notes that an image is about to be sent: before it is, so that none can be sent and not noted.
    ///
    /// # Errors
    /// The journal cannot be written. The image may be sent nevertheless.
    pub(super) fn sending(&self, key: &FrameKey) -> Result<(), Fault> {
        let path = journal::beside(&self.path);
        let mut inner = self.lock();
        if inner.stream.is_none() {
            return Ok(());
        }
        if inner.journal.is_none() {
            let opened = OpenOptions::new().append(true).create(true).open(&path);
            inner.journal = Some(opened.map_err(|e| io("cannot create the journal", &path, &e))?);
        }
        let line = journal::line(key);
        match inner.journal.as_mut().map(|j| j.write_all(line.as_bytes())) {
            Some(Err(e)) => Err(io("cannot write the journal", &path, &e)),
            _ => Ok(()),
        }
    }

    /// Everything went well: the files go.
    pub(super) fn remove(&self) {
        let mut inner = self.lock();
        inner.stream = None;
        inner.journal = None;
        // The stream first: a kill in between must not leave a stream without the journal that marks its images. Who
        // cannot remove them leaves a scan too much, never one too few.
        drop(std::fs::remove_file(&self.path));
        drop(std::fs::remove_file(journal::beside(&self.path)));
    }

    /// The files stay, on the disk for good. Returns the stream's path and bytes, or why there is none.
    pub(super) fn keep(&self) -> Result<(PathBuf, u64), Fault> {
        let mut inner = self.lock();
        if let Some(journal) = inner.journal.take() {
            journal
                .sync_all()
                .map_err(|e| io("cannot finish the journal", &self.path, &e))?;
        }
        let Some(stream) = inner.stream.take() else {
            return Err(Fault::new(
                FaultKind::Io,
                "server",
                format!("the spill file is not whole: {}", self.path.display()),
            ));
        };
        stream
            .sync_all()
            .map_err(|e| io("cannot finish the spill file", &self.path, &e))?;
        Ok((self.path.clone(), inner.bytes))
    }
}

fn io(what: &str, path: &Path, e: &std::io::Error) -> Fault {
    Fault::new(
        FaultKind::Io,
        "server",
        format!("{what}: {e}: {}", path.display()),
    )
}

/// Copies everything that is read into the spill file.
pub(super) struct Tee {
    pub(super) from: Box<dyn Read + Send>,
    pub(super) to: Option<Arc<Spill>>,
    pub(super) count: Arc<std::sync::atomic::AtomicU64>,
}

impl Read for Tee {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.from.read(buf)?;
        if let (Some(spill), Some(bytes)) = (&self.to, buf.get(..n)) {
            spill.add(bytes);
        }
        self.count
            .fetch_add(n as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(n)
    }
}

/// Streams that an earlier server left in the folder.
pub(super) fn left_over(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut out: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == ENDING))
        .collect();
    out.sort();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_kept_or_gone() {
        let dir = tempfile::tempdir().unwrap();
        let spill = Spill::create(dir.path(), 1).unwrap();
        let mut tee = Tee {
            from: Box::new(&b"some bytes"[..]),
            to: Some(Arc::clone(&spill)),
            count: Arc::default(),
        };
        let mut out = Vec::new();
        tee.read_to_end(&mut out).unwrap();
        spill.sending(&FrameKey::default()).unwrap();
        let (path, bytes) = spill.keep().unwrap();
        assert_eq!(bytes, 10);
        assert_eq!(std::fs::read(&path).unwrap(), b"some bytes");
        assert_eq!(
            std::fs::read_to_string(journal::beside(&path)).unwrap(),
            "0 0 0 0 0 0 0\n"
        );
        assert_eq!(left_over(dir.path()), [path]);
        let gone = Spill::create(dir.path(), 2).unwrap();
        gone.sending(&FrameKey::default()).unwrap();
        gone.remove();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_full_disk_does_not_stop_the_scan() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            println!("skipped: there is no /dev/full");
            return;
        }
        let spill = Spill {
            path: full.to_path_buf(),
            inner: Mutex::new(Inner {
                stream: Some(OpenOptions::new().write(true).open(full).unwrap()),
                journal: None,
                failure: None,
                bytes: 0,
            }),
        };
        spill.add(b"x");
        spill.add(b"y");
        assert!(!spill.is_whole());
        assert!(spill.take_failure().unwrap().contains("space"));
        assert!(spill.take_failure().is_none());
        assert!(spill.keep().is_err());
    }
}
