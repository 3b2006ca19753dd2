//! Bytes that have come in and not been used yet.

use std::io::{ErrorKind, Read};

/// Bytes asked for at once, at least and at most.
const LEAST: usize = 64 << 10;
const MOST: usize = 4 << 20;

/// Reads ahead of a decoder. Memory grows with what arrived, never with what was announced.
#[derive(Debug)]
pub(super) struct Buffer<R> {
    source: R,
    bytes: Vec<u8>,
    start: usize,
    /// Bytes used before `start`.
    used: u64,
}

impl<R: Read> Buffer<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            bytes: Vec::new(),
            start: 0,
            used: 0,
        }
    }

    /// What is there.
    pub(super) fn unused(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Place in the stream.
    pub(super) fn position(&self) -> u64 {
        self.used
    }

    pub(super) fn use_up(&mut self, n: usize) {
        self.start = self.start.saturating_add(n).min(self.bytes.len());
        self.used += n as u64;
    }

    /// Reads on until `more` bytes have come, or the end. Returns how many came.
    pub(super) fn fill(&mut self, more: usize) -> std::io::Result<usize> {
        self.bytes.drain(..self.start);
        self.start = 0;
        let before = self.bytes.len();
        loop {
            let len = self.bytes.len();
            // One read of what is there: a socket must not be waited on for more than is needed.
            let wanted = (before + more).saturating_sub(len).clamp(LEAST, MOST);
            self.bytes.resize(len + wanted, 0);
            let slot = self.bytes.get_mut(len..).unwrap_or_default();
            let came = match self.source.read(slot) {
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {
                    self.bytes.truncate(len);
                    continue;
                }
                Err(e) => {
                    self.bytes.truncate(len);
                    return Err(e);
                }
            };
            self.bytes.truncate(len + came);
            if came == 0 || self.bytes.len() >= before + more {
                return Ok(self.bytes.len() - before);
            }
        }
    }
}
