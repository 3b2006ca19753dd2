//! Stage clock: how often each stage ran and how long it was busy; and the latency from readout to image.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// The monotonic clock. Given from outside, so that tests own time.
pub trait Clock: Sync {
    /// Now.
    fn now(&self) -> Instant;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Monotonic;

impl Clock for Monotonic {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// Time of one stage.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct StageTime {
    /// Stage: `read`, `ingest`, `recon`, ...
    pub stage: &'static str,
    /// How often it ran.
    pub calls: u64,
    /// Seconds it was busy, summed over workers.
    pub busy_s: f64,
    /// Part of the busy time of all stages, 0 to 1.
    pub share: f64,
}

/// Collects stage times from any thread. Stages appear in the order in which they were announced.
#[derive(Debug)]
pub struct StageClock {
    stages: Mutex<Vec<(&'static str, u64, Duration)>>,
    begun: Instant,
}

impl StageClock {
    /// A clock that knows the stages, in the order of the report.
    pub fn new(stages: &[&'static str]) -> Self {
        Self {
            stages: Mutex::new(stages.iter().map(|s| (*s, 0, Duration::ZERO)).collect()),
            begun: Instant::now(),
        }
    }

    /// Adds one call of a stage.
    pub fn add(&self, stage: &'static str, busy: Duration) {
        // A thread that panicked while it held the lock leaves a sum that is still a sum.
        let mut stages = self.stages.lock().unwrap_or_else(|e| e.into_inner());
        match stages.iter_mut().find(|s| s.0 == stage) {
            Some(entry) => {
                entry.1 += 1;
                entry.2 += busy;
            }
            None => stages.push((stage, 1, busy)),
        }
    }

    /// Times one call of a stage.
    pub fn time<T>(&self, stage: &'static str, work: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let out = work();
        self.add(stage, begin.elapsed());
        out
    }

    /// Seconds since the clock was made.
    pub fn wall_s(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Stages that ran, in order.
    pub fn report(&self) -> Vec<StageTime> {
        let stages = self.stages.lock().unwrap_or_else(|e| e.into_inner());
        let total: f64 = stages.iter().map(|s| s.2.as_secs_f64()).sum();
        stages
            .iter()
            .filter(|s| s.1 > 0)
            .map(|&(stage, calls, busy)| StageTime {
                stage,
                calls,
                busy_s: busy.as_secs_f64(),
                share: if total > 0.0 {
                    busy.as_secs_f64() / total
                } else {
                    0.0
                },
            })
            .collect()
    }
}

/// Distribution of a latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Latency {
    /// Values behind the figures.
    pub count: u64,
    /// Median, seconds.
    pub p50_s: f64,
    /// 95th percentile (nearest rank), seconds.
    pub p95_s: f64,
    /// 99th percentile (nearest rank), seconds.
    pub p99_s: f64,
    /// Largest, seconds.
    pub max_s: f64,
}

/// Latencies of a scan in memory that does not grow with it. Percentiles are at most 0.1 % above the value of their
/// rank; the largest is exact. Values beyond an hour count as an hour, but for the largest.
#[derive(Debug)]
pub struct Latencies {
    nanoseconds: Option<Histogram<u64>>,
    max: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            // A nanosecond to an hour, three digits: these bounds are constants that the crate accepts.
            nanoseconds: Histogram::new_with_bounds(1, 3_600_000_000_000, 3).ok(),
            max: Duration::ZERO,
        }
    }
}

impl Latencies {
    /// One more.
    pub fn add(&mut self, latency: Duration) {
        self.max = self.max.max(latency);
        if let Some(histogram) = &mut self.nanoseconds {
            histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// Percentiles by nearest rank; all zero without values.
    pub fn report(&self) -> Latency {
        let Some(histogram) = &self.nanoseconds else {
            return Latency::default();
        };
        let max_s = self.max.as_secs_f64();
        let at = |q| (1e-9 * histogram.value_at_quantile(q) as f64).min(max_s);
        Latency {
            count: histogram.len(),
            p50_s: at(0.5),
            p95_s: at(0.95),
            p99_s: at(0.99),
            max_s,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_one_and_idle_stages_are_left_out() {
        let clock = StageClock::new(&["read", "ingest", "recon"]);
        clock.add("recon", Duration::from_millis(30));
        clock.add("read", Duration::from_millis(10));
        clock.add("recon", Duration::from_millis(60));
        let report = clock.report();
        assert_eq!(
            report
                .iter()
                .map(|s| (s.stage, s.calls))
                .collect::<Vec<_>>(),
            [("read", 1), ("recon", 2)]
        );
        assert!((report[0].share - 0.1).abs() < 1e-9);
        assert!((report.iter().map(|s| s.share).sum::<f64>() - 1.0).abs() < 1e-9);
    }

    /// By sorting; the plain reference.
    fn by_sorting(values: &[Duration]) -> [f64; 4] {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        [0.5, 0.95, 0.99, 1.0].map(|p: f64| {
            let i = (p * sorted.len() as f64).ceil() as usize;
            sorted[i.saturating_sub(1)].as_secs_f64()
        })
    }

    fn agrees(latency: &Latency, values: &[Duration]) -> bool {
        let found = [latency.p50_s, latency.p95_s, latency.p99_s, latency.max_s];
        let close = |(f, e): (f64, f64)| f >= e * (1.0 - 1e-9) && f <= e * 1.001;
        latency.count == values.len() as u64
            && found.into_iter().zip(by_sorting(values)).all(close)
            && (latency.max_s - by_sorting(values)[3]).abs() < 1e-12
    }

    #[test]
    fn percentiles_by_nearest_rank_within_a_thousandth() {
        // From nanoseconds to an hour, in no order.
        let mut spread: Vec<_> = (0..5000u64)
            .map(|i| Duration::from_nanos(1 + i * i * 7919 % (1 << (i % 41))))
            .collect();
        spread.push(Duration::from_secs(3000));
        for values in [
            (1..=20).rev().map(Duration::from_millis).collect(),
            vec![Duration::from_micros(3)],
            spread,
        ] {
            let mut all = Latencies::default();
            values.iter().for_each(|v| all.add(*v));
            assert!(agrees(&all.report(), &values), "{:?}", all.report());
            // Wrong twins: one that misses the first, one that keeps the last thousand.
            let mut twin = Latencies::default();
            values.iter().skip(1).for_each(|v| twin.add(*v));
            assert!(!agrees(&twin.report(), &values));
            if values.len() > 1000 {
                let mut twin = Latencies::default();
                let kept = &values[values.len() - 1000..];
                kept.iter().for_each(|v| twin.add(*v));
                assert!(!agrees(&twin.report(), &values));
            }
        }
        assert_eq!(Latencies::default().report(), Latency::default());
        let mut longer = Latencies::default();
        longer.add(Duration::from_secs(7200));
        assert!((longer.report().max_s - 7200.0).abs() < 1e-9);
    }
}
