//! Stage clock: how often each stage ran and how long it was busy; and the latency from readout to image.

use std::sync::Mutex;
use std::time::{Duration, Instant};

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
    pub count: usize,
    /// Median, seconds.
    pub p50_s: f64,
    /// 95th percentile (nearest rank), seconds.
    pub p95_s: f64,
    /// Largest, seconds.
    pub max_s: f64,
}

impl Latency {
    /// Percentiles by nearest rank; all zero without values.
    pub fn of(values: &[Duration]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let rank = |p: f64| -> f64 {
            let i = (p * sorted.len() as f64).ceil() as usize;
            sorted
                .get(i.saturating_sub(1))
                .map_or(0.0, Duration::as_secs_f64)
        };
        Self {
            count: sorted.len(),
            p50_s: rank(0.5),
            p95_s: rank(0.95),
            max_s: rank(1.0),
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

    #[test]
    fn percentiles_by_nearest_rank() {
        let ms: Vec<_> = (1..=20).rev().map(Duration::from_millis).collect();
        let latency = Latency::of(&ms);
        assert_eq!(latency.count, 20);
        assert!((latency.p50_s - 0.010).abs() < 1e-12);
        assert!((latency.p95_s - 0.019).abs() < 1e-12);
        assert!((latency.max_s - 0.020).abs() < 1e-12);
        assert_eq!(Latency::of(&[]), Latency::default());
    }
}
