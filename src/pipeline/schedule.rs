//! How the threads are shared out: many frames side by side, or all threads inside one frame.

/// How the reconstruction runs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Schedule {
    /// Frames reconstructed at the same time.
    pub workers: usize,
    /// Threads of each of them.
    pub threads_per_worker: usize,
    /// Why.
    pub reason: String,
}

/// Shares `threads` out. A frame alone leaves threads idle in its serial parts (small eigenproblems, transposes), so
/// frames side by side with one thread each are faster as soon as there are enough of them to keep all threads busy;
/// as long as a frame's working memory fits that many times.
pub fn schedule(
    expected_frames: usize,
    threads: usize,
    frame_bytes: u64,
    budget_bytes: u64,
) -> Schedule {
    let threads = threads.max(1);
    // Working memory of a frame: maps, calibration, scratch. Measured at 3 to 6 times its k-space.
    let fit = usize::try_from(budget_bytes / 2 / frame_bytes.saturating_mul(6).max(1))
        .unwrap_or(usize::MAX)
        .max(1);
    if threads == 1 {
        return Schedule {
            workers: 1,
            threads_per_worker: 1,
            reason: "one thread".to_owned(),
        };
    }
    if expected_frames >= 2 * threads && fit >= threads {
        return Schedule {
            workers: threads,
            threads_per_worker: 1,
            reason: format!(
                "{expected_frames} frames expected for {threads} threads: frames side by side"
            ),
        };
    }
    Schedule {
        workers: 1,
        threads_per_worker: threads,
        reason: if fit < threads {
            format!("memory for {fit} frames at a time: all threads inside one frame")
        } else {
            format!(
                "{expected_frames} frames expected for {threads} threads: all threads inside one frame"
            )
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_as_a_table() {
        let gib = 1 << 30;
        for (frames, threads, frame_bytes, budget, workers, each) in [
            (1, 8, 1 << 20, gib, 1, 8),
            (15, 8, 1 << 20, gib, 1, 8),
            (16, 8, 1 << 20, gib, 8, 1),
            (16, 1, 1 << 20, gib, 1, 1),
            (16, 8, gib, 2 * gib, 1, 8),
            (0, 0, 0, 0, 1, 1),
        ] {
            let s = schedule(frames, threads, frame_bytes, budget);
            assert_eq!(
                (s.workers, s.threads_per_worker),
                (workers, each),
                "{frames} frames, {threads} threads: {}",
                s.reason
            );
        }
    }
}
