//! What the server counts: scans, images, bytes, and where the time of every image went.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::data::Stamp;

/// Parts of an image's way, in order; the last is the sum that matters.
pub(crate) const STAGES: [&str; 6] = [
    "wait",
    "sort",
    "recon",
    "denoise",
    "send",
    "last_readout_to_sent",
];

/// Upper bounds of the histogram buckets that are told, seconds.
const BOUNDS_S: [f64; 14] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];

/// Counters of one server. All methods may be called from any thread.
#[derive(Debug)]
pub struct Stats {
    begun: Instant,
    /// Connections taken.
    pub connections: AtomicU64,
    /// Connections refused: peer not allowed, or too many.
    pub refused: AtomicU64,
    /// Scans that run.
    pub running: AtomicU64,
    /// Bytes received.
    pub bytes_in: AtomicU64,
    /// Bytes of images given to connections.
    pub bytes_out: AtomicU64,
    /// Readouts taken in.
    pub readouts: AtomicU64,
    /// Images sent.
    pub images: AtomicU64,
    /// Frames later than the protocol's deadline.
    pub deadline_misses: AtomicU64,
    scans: Mutex<BTreeMap<&'static str, u64>>,
    stages: Mutex<Vec<Histogram<u64>>>,
}

impl Default for Stats {
    fn default() -> Self {
        Self::new()
    }
}

impl Stats {
    /// Everything at zero.
    pub fn new() -> Self {
        let histogram = || {
            // A microsecond to an hour, three digits: these bounds are constants that the crate accepts.
            Histogram::new_with_bounds(1, 3_600_000_000, 3).ok()
        };
        Self {
            begun: Instant::now(),
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            running: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            readouts: AtomicU64::new(0),
            images: AtomicU64::new(0),
            deadline_misses: AtomicU64::new(0),
            scans: Mutex::new(BTreeMap::new()),
            stages: Mutex::new(STAGES.iter().filter_map(|_| histogram()).collect()),
        }
    }

    /// A scan ended so.
    pub fn scan(&self, outcome: &'static str) {
        let mut scans = self.scans.lock().unwrap_or_else(|e| e.into_inner());
        *scans.entry(outcome).or_default() += 1;
    }

    /// An image was sent.
    pub fn sent(&self, stamp: &Stamp) {
        self.images.fetch_add(1, Ordering::Relaxed);
        let there = stamp.denoised.unwrap_or(stamp.reconstructed);
        let sent = stamp.sent.unwrap_or(there);
        let between = |from: Instant, to: Instant| Some(to.saturating_duration_since(from));
        let times = [
            between(stamp.sorted, stamp.begun),
            between(stamp.last_readout, stamp.sorted),
            between(stamp.begun, stamp.reconstructed),
            stamp
                .denoised
                .and_then(|at| between(stamp.reconstructed, at)),
            between(there, sent),
            Some(stamp.latency()),
        ];
        let mut stages = self.stages.lock().unwrap_or_else(|e| e.into_inner());
        for (histogram, time) in stages.iter_mut().zip(times) {
            let Some(time) = time else { continue };
            let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            histogram.saturating_record(us.max(1));
        }
    }

    /// Stage, and its time at a quantile, 0 to 1.
    pub fn quantile(&self, stage: &str, q: f64) -> Option<Duration> {
        let at = STAGES.iter().position(|s| *s == stage)?;
        let stages = self.stages.lock().unwrap_or_else(|e| e.into_inner());
        let histogram = stages.get(at)?;
        (!histogram.is_empty()).then(|| Duration::from_micros(histogram.value_at_quantile(q)))
    }

    /// All counters in the text format of Prometheus.
    pub fn prometheus(&self) -> String {
        let mut out = String::new();
        let mut one = |name: &str, kind: &str, help: &str, value: f64| {
            // Writing to a string cannot fail.
            writeln!(
                out,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
            )
            .unwrap_or(());
        };
        let n = |a: &AtomicU64| a.load(Ordering::Relaxed) as f64;
        one(
            "cauda_up_seconds",
            "gauge",
            "Since the server began.",
            self.begun.elapsed().as_secs_f64(),
        );
        one(
            "cauda_connections_total",
            "counter",
            "Connections taken.",
            n(&self.connections),
        );
        one(
            "cauda_connections_refused_total",
            "counter",
            "Connections refused.",
            n(&self.refused),
        );
        one(
            "cauda_scans_running",
            "gauge",
            "Scans that run.",
            n(&self.running),
        );
        one(
            "cauda_received_bytes_total",
            "counter",
            "Bytes received.",
            n(&self.bytes_in),
        );
        one(
            "cauda_sent_bytes_total",
            "counter",
            "Bytes of images sent.",
            n(&self.bytes_out),
        );
        one(
            "cauda_readouts_total",
            "counter",
            "Readouts taken in.",
            n(&self.readouts),
        );
        one(
            "cauda_images_total",
            "counter",
            "Frames whose images were sent.",
            n(&self.images),
        );
        one(
            "cauda_deadline_miss_total",
            "counter",
            "Frames later than the protocol's deadline.",
            n(&self.deadline_misses),
        );
        if let Some(bytes) = crate::metrics::peak_memory_bytes() {
            one(
                "cauda_peak_memory_bytes",
                "gauge",
                "Most memory ever held.",
                bytes as f64,
            );
        }
        self.scans_text(&mut out).unwrap_or(());
        self.stages_text(&mut out).unwrap_or(());
        out
    }

    fn scans_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "# HELP cauda_scans_total Scans that ended.\n# TYPE cauda_scans_total counter"
        )?;
        let scans = self.scans.lock().unwrap_or_else(|e| e.into_inner());
        for (outcome, count) in scans.iter() {
            writeln!(out, "cauda_scans_total{{outcome=\"{outcome}\"}} {count}")?;
        }
        Ok(())
    }

    fn stages_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "# HELP cauda_stage_seconds Where the time of each image went.\n# TYPE cauda_stage_seconds histogram"
        )?;
        let stages = self.stages.lock().unwrap_or_else(|e| e.into_inner());
        for (stage, histogram) in STAGES.iter().zip(stages.iter()) {
            for bound in BOUNDS_S {
                let count = histogram.count_between(0, (bound * 1e6) as u64);
                writeln!(
                    out,
                    "cauda_stage_seconds_bucket{{stage=\"{stage}\",le=\"{bound}\"}} {count}"
                )?;
            }
            let count = histogram.len();
            let sum = histogram.mean() * 1e-6 * count as f64;
            writeln!(
                out,
                "cauda_stage_seconds_bucket{{stage=\"{stage}\",le=\"+Inf\"}} {count}"
            )?;
            writeln!(out, "cauda_stage_seconds_sum{{stage=\"{stage}\"}} {sum}")?;
            writeln!(
                out,
                "cauda_stage_seconds_count{{stage=\"{stage}\"}} {count}"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_up_and_names_are_stable() {
        let stats = Stats::new();
        let t = Instant::now();
        let at = |ms| t + Duration::from_millis(ms);
        for recon in [3, 30] {
            stats.sent(&Stamp {
                first_readout: at(0),
                last_readout: at(10),
                sorted: at(10),
                begun: at(11),
                reconstructed: at(11 + recon),
                denoised: None,
                sent: Some(at(12 + recon)),
            });
        }
        stats.scan("done");
        let text = stats.prometheus();
        for line in [
            "cauda_images_total 2",
            "cauda_scans_total{outcome=\"done\"} 1",
            "cauda_stage_seconds_bucket{stage=\"recon\",le=\"0.005\"} 1",
            "cauda_stage_seconds_bucket{stage=\"recon\",le=\"0.05\"} 2",
            "cauda_stage_seconds_bucket{stage=\"recon\",le=\"+Inf\"} 2",
            "cauda_stage_seconds_count{stage=\"last_readout_to_sent\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
        let p99 = stats.quantile("last_readout_to_sent", 0.99).unwrap();
        assert!((0.0315..0.0325).contains(&p99.as_secs_f64()), "{p99:?}");
        assert_eq!(stats.quantile("nothing", 0.5), None);
    }
}
