//! Frames that were handed on, whose late readouts are refused.
//!
//! A scan that runs all day hands on as many frames as a counter can count, so that they are kept as ranges of one
//! counter: a scan that counts up takes as much memory after its last frame as after its first.

use std::collections::BTreeMap;

use crate::data::FrameKey;

const COUNTERS: usize = FrameKey::COUNTERS;

/// Index of the repetition, which runs in most scans.
const REPETITION: usize = 1;

/// So many ranges are kept before another counter is tried.
const FEW: usize = 64;

type Counters = [u16; COUNTERS];

/// A set of keys.
#[derive(Debug)]
pub(super) struct Released {
    /// The counter whose ranges are kept.
    running: usize,
    /// First key of each range, the running counter moved to the end, and the last value of that counter. Ranges of the
    /// same other counters neither overlap nor touch.
    ranges: BTreeMap<Counters, u16>,
    /// From this many ranges on, another counter may do better.
    too_many: usize,
}

impl Default for Released {
    fn default() -> Self {
        Self {
            running: REPETITION,
            ranges: BTreeMap::new(),
            too_many: FEW,
        }
    }
}

/// Swaps a counter with the last one; twice is nothing.
fn last(mut counters: Counters, running: usize) -> Counters {
    counters.swap(running, COUNTERS - 1);
    counters
}

fn with(mut counters: Counters, value: u16) -> Counters {
    counters[COUNTERS - 1] = value;
    counters
}

/// Adds a key that is not there yet; joins the ranges on both sides of it.
fn add(ranges: &mut BTreeMap<Counters, u16>, key: Counters) {
    let value = key[COUNTERS - 1];
    let mut end = value;
    if let Some(next) = value.checked_add(1)
        && let Some(last) = ranges.remove(&with(key, next))
    {
        end = last;
    }
    if let Some((first, last)) = ranges.range_mut(..key).next_back()
        && with(*first, value) == key
        && last.checked_add(1) == Some(value)
    {
        *last = end;
    } else {
        ranges.insert(key, end);
    }
}

impl Released {
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) fn contains(&self, key: &FrameKey) -> bool {
        let key = last(key.counters(), self.running);
        let value = key[COUNTERS - 1];
        let before = self.ranges.range(..=key).next_back();
        before.is_some_and(|(first, end)| with(*first, value) == key && value <= *end)
    }

    pub(super) fn insert(&mut self, key: &FrameKey) {
        if self.contains(key) {
            return;
        }
        add(&mut self.ranges, last(key.counters(), self.running));
        if self.ranges.len() > self.too_many {
            self.choose();
        }
    }

    /// Keeps ranges of the counter that has the fewest. As often as the number of ranges doubles.
    fn choose(&mut self) {
        for running in 0..COUNTERS {
            if running == self.running {
                continue;
            }
            let mut ranges = BTreeMap::new();
            let keys = self.ranges.iter().flat_map(|(first, end)| {
                (first[COUNTERS - 1]..=*end).map(|value| last(with(*first, value), self.running))
            });
            for key in keys {
                add(&mut ranges, last(key, running));
                if ranges.len() >= self.ranges.len() {
                    break;
                }
            }
            if ranges.len() < self.ranges.len() {
                (self.ranges, self.running) = (ranges, running);
            }
        }
        self.too_many = FEW.max(2 * self.ranges.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::Rng;
    use std::collections::BTreeSet;

    fn filled(keys: &[FrameKey]) -> Released {
        let mut released = Released::default();
        keys.iter().for_each(|k| released.insert(k));
        released
    }

    /// Whether it holds these keys and none beside them, by a plain set.
    fn is_same(released: &Released, keys: &[FrameKey]) -> bool {
        let plain: BTreeSet<&FrameKey> = keys.iter().collect();
        let near = keys.iter().flat_map(|key| {
            (0..COUNTERS).flat_map(move |at| {
                [-1i32, 1].map(|step| {
                    let mut c = key.counters();
                    c[at] = c[at].wrapping_add_signed(step as i16);
                    FrameKey::from_counters(c)
                })
            })
        });
        released.is_empty() == keys.is_empty()
            && keys.iter().all(|k| released.contains(k))
            && near
                .into_iter()
                .all(|k| released.contains(&k) == plain.contains(&k))
    }

    #[test]
    fn a_scan_that_counts_up_takes_no_more_memory_with_every_frame() {
        let at = |repetition, slice_idx, cardiac_phase| FrameKey {
            repetition,
            slice_idx,
            cardiac_phase,
            ..FrameKey::default()
        };
        let repetitions: Vec<_> = (0..=u16::MAX).map(|i| at(i, 0, 0)).collect();
        let slices: Vec<_> = (0..400)
            .flat_map(|r| (0..20).map(move |s| at(r, s, 0)))
            .collect();
        let phases: Vec<_> = (0..3000).map(|p| at(0, 0, p)).collect();
        let both: Vec<_> = (0..2000)
            .flat_map(|p| (0..3).map(move |s| at(7, s, p)))
            .collect();
        for (keys, most) in [(repetitions, 1), (slices, 20), (phases, 1), (both, 3)] {
            let released = filled(&keys);
            assert_eq!(released.ranges.len(), most);
            assert!(is_same(&released, &keys));
        }
    }

    #[test]
    fn any_order_holds_what_a_plain_set_holds() {
        let mut rng = Rng::new(5);
        let mut draw = |n: u64| (rng.next_u64() % n) as u16;
        assert!(is_same(&Released::default(), &[]));
        for extents in [[40, 1, 1], [12, 3, 2], [3, 60, 40], [1, 2, 300]] {
            for n in [1, 2, 30, 900] {
                let keys: Vec<_> = (0..n)
                    .map(|_| FrameKey {
                        // The edges of the counter among them.
                        repetition: draw(extents[0]).wrapping_sub(2),
                        slice_idx: draw(extents[1]),
                        set: draw(extents[2]).wrapping_sub(1),
                        ..FrameKey::default()
                    })
                    .collect();
                assert!(is_same(&filled(&keys), &keys), "{extents:?}, {n}");
            }
        }
    }

    #[test]
    fn wrong_twins_are_caught() {
        let key = |repetition, set| FrameKey {
            repetition,
            set,
            ..FrameKey::default()
        };
        let keys = [key(3, 0), key(5, 0), key(4, 1)];
        assert!(is_same(&filled(&keys), &keys));
        // One that remembers first and last alone, one that forgets the other counters, one that keeps the newest.
        let mut spans = filled(&keys);
        spans.ranges = BTreeMap::from([(last(keys[0].counters(), REPETITION), 5)]);
        assert!(!is_same(&spans, &keys));
        let blind: Vec<_> = keys.iter().map(|k| key(k.repetition, 0)).collect();
        assert!(!is_same(&filled(&blind), &keys));
        assert!(!is_same(&filled(&keys[1..]), &keys));
    }
}
