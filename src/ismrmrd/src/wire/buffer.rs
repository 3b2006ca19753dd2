//! Bytes that have come in and not been used yet.

use std::io::{ErrorKind, Read};

/// Bytes asked for at once, at least and at most.
const LEAST: usize = 1 << 20;
const MOST: usize = 4 << 20;

/// Reads ahead of a decoder. Memory grows with what arrived, never with what was announced.
#[derive(Debug)]
pub(super) struct Buffer<R> {
    source: R,
    /// Room; what is unused stands in `start..end`.
    room: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes used before `start`.
    used: u64,
}

impl<R: Read> Buffer<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            room: Vec::new(),
            start: 0,
            end: 0,
            used: 0,
        }
    }

    /// Where bytes come from.
    pub(super) fn source_mut(&mut self) -> &mut R {
        &mut self.source
    }

    /// What is there.
    pub(super) fn unused(&self) -> &[u8] {
        self.room.get(self.start..self.end).unwrap_or_default()
    }

    /// Place in the stream.
    pub(super) fn position(&self) -> u64 {
        self.used
    }

    pub(super) fn use_up(&mut self, n: usize) {
        self.start = self.start.saturating_add(n).min(self.end);
        self.used += n as u64;
    }

    /// Reads on until `more` bytes have come, or the end. Returns how many came.
    pub(super) fn fill(&mut self, more: usize) -> std::io::Result<usize> {
        if self.start > 0 {
            self.room.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let before = self.end;
        loop {
            // One read of what is there: a socket must not be waited on for more than is needed.
            let wanted = before.saturating_add(more).saturating_sub(self.end);
            let to = self.end + wanted.clamp(LEAST, MOST);
            if self.room.len() < to {
                self.room.resize(to, 0);
            }
            let slot = self.room.get_mut(self.end..to).unwrap_or_default();
            let came = match self.source.read(slot) {
                Ok(n) => n.min(slot.len()),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            self.end += came;
            if came == 0 || self.end - before >= more {
                return Ok(self.end - before);
            }
        }
    }
}
