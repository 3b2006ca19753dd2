//! A queue between two stages, bounded in bytes: who puts waits until there is room.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};

#[derive(Debug)]
struct Inner<T> {
    items: VecDeque<(T, u64)>,
    bytes: u64,
    high_water: u64,
    is_closed: bool,
}

/// First in, first out, any number of threads on both sides.
///
/// An item larger than the bound is let in when the queue is empty: a bound must not stop a scan whose single frame
/// is larger than it.
#[derive(Debug)]
pub struct ByteQueue<T> {
    limit_bytes: u64,
    inner: Mutex<Inner<T>>,
    changed: Condvar,
}

impl<T> ByteQueue<T> {
    /// A queue that holds up to `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            inner: Mutex::new(Inner {
                items: VecDeque::new(),
                bytes: 0,
                high_water: 0,
                is_closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // No code runs under the lock that could leave the queue half changed.
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Waits for room, then adds the item. Gives the item back if the queue was closed meanwhile.
    ///
    /// # Errors
    /// The item itself: nobody will take it any more.
    pub fn put(&self, item: T, bytes: u64) -> Result<(), T> {
        let mut inner = self.lock();
        while !inner.is_closed
            && !inner.items.is_empty()
            && inner.bytes.saturating_add(bytes) > self.limit_bytes
        {
            inner = self.changed.wait(inner).unwrap_or_else(|e| e.into_inner());
        }
        if inner.is_closed {
            return Err(item);
        }
        inner.items.push_back((item, bytes));
        inner.bytes += bytes;
        inner.high_water = inner.high_water.max(inner.bytes);
        drop(inner);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for an item; `None` once the queue is closed and empty.
    pub fn take(&self) -> Option<T> {
        let mut inner = self.lock();
        loop {
            if let Some((item, bytes)) = inner.items.pop_front() {
                inner.bytes -= bytes;
                drop(inner);
                self.changed.notify_all();
                return Some(item);
            }
            if inner.is_closed {
                return None;
            }
            inner = self.changed.wait(inner).unwrap_or_else(|e| e.into_inner());
        }
    }

    /// No more items will be put; what is inside may still be taken.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Closes and throws away what is inside: the scan has failed.
    pub fn abandon(&self) {
        let mut inner = self.lock();
        inner.is_closed = true;
        inner.bytes = 0;
        let dropped = std::mem::take(&mut inner.items);
        drop(inner);
        drop(dropped);
        self.changed.notify_all();
    }

    /// Most bytes that ever waited.
    pub fn high_water_bytes(&self) -> u64 {
        self.lock().high_water
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_the_bound_holds() {
        let queue = ByteQueue::new(100);
        std::thread::scope(|s| {
            s.spawn(|| {
                for i in 0..50 {
                    queue.put(i, 40).unwrap();
                }
                queue.close();
            });
            let mut got = Vec::new();
            while let Some(i) = queue.take() {
                got.push(i);
                std::thread::yield_now();
            }
            assert_eq!(got, (0..50).collect::<Vec<_>>());
        });
        assert!(queue.high_water_bytes() <= 100);
    }

    #[test]
    fn an_item_above_the_bound_passes_alone() {
        let queue = ByteQueue::new(10);
        queue.put("large", 1000).unwrap();
        assert_eq!(queue.take(), Some("large"));
        queue.close();
        assert_eq!(queue.put("late", 1), Err("late"));
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn abandoning_frees_who_waits() {
        let queue = ByteQueue::new(1);
        queue.put(0, 1).unwrap();
        std::thread::scope(|s| {
            let waiting = s.spawn(|| queue.put(1, 1));
            std::thread::sleep(std::time::Duration::from_millis(20));
            queue.abandon();
            assert_eq!(waiting.join().unwrap(), Err(1));
        });
        assert_eq!(queue.take(), None);
    }
}
