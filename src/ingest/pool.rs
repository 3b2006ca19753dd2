//! Memory of lines that were put together, for lines that still come, of this scan or the next: mapped already, and
//! often warm.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use num_complex::Complex32;

/// Bytes that are kept at most.
const MAX_BYTES: usize = 256 << 20;

/// Lines that are free. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct LinePool(Arc<Mutex<Free>>);

#[derive(Debug, Default)]
struct Free {
    by_len: BTreeMap<usize, Vec<Box<[Complex32]>>>,
    bytes: usize,
}

impl LinePool {
    /// `len` samples of any value.
    pub(crate) fn take(&self, len: usize) -> Box<[Complex32]> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match free.by_len.get_mut(&len).and_then(Vec::pop) {
            Some(line) => {
                free.bytes -= size_of_val(&*line);
                line
            }
            None => vec![Complex32::ZERO; len].into_boxed_slice(),
        }
    }

    /// Gives lines back. Beyond the bound, lines of other lengths are let go first: scans of their kind are over.
    pub(crate) fn give(&self, lines: impl Iterator<Item = Box<[Complex32]>>) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines {
            let (len, bytes) = (line.len(), size_of_val(&*line));
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_with_their_length_and_within_the_bound() {
        let lines = |n: usize, len: usize| {
            (0..n).map(move |_| vec![Complex32::ZERO; len].into_boxed_slice())
        };
        let pool = LinePool::default();
        let line = pool.take(1 << 20);
        let at = line.as_ptr();
        pool.give([line].into_iter());
        assert_eq!(pool.take(3).len(), 3);
        let line = pool.clone().take(1 << 20);
        assert_eq!(line.as_ptr(), at);
        pool.give(lines(40, 1 << 20));
        assert_eq!(pool.0.lock().unwrap().bytes, MAX_BYTES);
        // Another kind of scan: the old lines go.
        pool.give(lines(2, 1 << 10));
        assert_eq!(pool.0.lock().unwrap().bytes, 2 << 13);
    }
}
