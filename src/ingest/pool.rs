//! Memory of lines that were done with, for lines that still come, of this scan or the next: mapped already, and often
//! warm.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use num_complex::Complex32;

/// Bytes that are kept at most.
const MAX_BYTES: usize = 256 << 20;

/// Lines that are free, never more than were in use at the same time. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct LinePool(Arc<Mutex<Free>>);

#[derive(Debug, Default)]
struct Free {
    by_len: BTreeMap<usize, Vec<Box<[Complex32]>>>,
    bytes: usize,
}

/// Samples of a line, on loan from a pool.
#[derive(Debug)]
pub(crate) struct PooledLine {
    samples: Box<[Complex32]>,
    pool: LinePool,
}

impl LinePool {
    /// `len` samples of any value.
    pub(crate) fn take(&self, len: usize) -> PooledLine {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = free.by_len.get_mut(&len).and_then(Vec::pop);
        free.bytes -= line.as_deref().map_or(0, size_of_val);
        drop(free);
        PooledLine {
            samples: line.unwrap_or_else(|| vec![Complex32::ZERO; len].into_boxed_slice()),
            pool: self.clone(),
        }
    }

    /// Beyond the bound, lines of other lengths are let go first: scans of their kind are over.
    fn give(&self, line: Box<[Complex32]>) {
        let (len, bytes) = (line.len(), size_of_val(&*line));
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.bytes + bytes > MAX_BYTES {
            free.by_len.retain(|l, _| *l == len);
            free.bytes = free.by_len.get(&len).map_or(0, Vec::len) * bytes;
        }
        if free.bytes + bytes <= MAX_BYTES {
            free.bytes += bytes;
            free.by_len.entry(len).or_default().push(line);
        }
    }
}

impl Drop for PooledLine {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.samples));
    }
}

impl Clone for PooledLine {
    fn clone(&self) -> Self {
        let mut copy = self.pool.take(self.samples.len());
        copy.copy_from_slice(&self.samples);
        copy
    }
}

impl Deref for PooledLine {
    type Target = [Complex32];

    fn deref(&self) -> &[Complex32] {
        &self.samples
    }
}

impl DerefMut for PooledLine {
    fn deref_mut(&mut self) -> &mut [Complex32] {
        &mut self.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(pool: &LinePool) -> usize {
        pool.0.lock().unwrap().bytes
    }

    #[test]
    fn lines_come_back_with_their_length_and_within_the_bound() {
        let pool = LinePool::default();
        let line = pool.take(1 << 20);
        let at = line.as_ptr();
        drop(line);
        assert_eq!(pool.take(3).len(), 3);
        let line = pool.clone().take(1 << 20);
        assert_eq!(line.as_ptr(), at);
        let others: Vec<_> = (0..40).map(|_| line.clone()).collect();
        drop((line, others));
        assert_eq!(free(&pool), MAX_BYTES);
        // Another kind of scan: the old lines go.
        drop(pool.take(1 << 10));
        assert_eq!(free(&pool), 1 << 13);
    }

    #[test]
    fn copies_do_not_make_it_grow() {
        let pool = LinePool::default();
        let line = pool.take(100);
        for _ in 0..1000 {
            drop(line.clone());
        }
        drop(line);
        assert_eq!(free(&pool), 2 * 800);
    }
}
