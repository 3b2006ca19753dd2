//! When an image passed which place on its way.

use std::time::{Duration, Instant};

/// Marks of one image on the monotonic clock of this process. A mark is the *end* of what its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The first readout of its frame was there.
    pub first_readout: Instant,
    /// The last readout of its frame was there.
    pub last_readout: Instant,
    /// Its frame was known to be complete and handed on.
    pub sorted: Instant,
    /// A worker began with it; before that it waited.
    pub begun: Instant,
    /// The image was there.
    pub reconstructed: Instant,
    /// A network was done with it, or had failed; `None` without one.
    pub denoised: Option<Instant>,
    /// Its last byte was given to the receiver's connection; `None` before.
    pub sent: Option<Instant>,
}

impl Stamp {
    /// From the last readout to the image, and if it was sent, to its last byte.
    pub fn latency(&self) -> Duration {
        self.sent
            .or(self.denoised)
            .unwrap_or(self.reconstructed)
            .saturating_duration_since(self.last_readout)
    }

    /// Marks as milliseconds since the last readout, in order; the first readout is negative.
    pub fn offsets_ms(&self) -> Vec<(&'static str, f64)> {
        let ms = |at: Instant| {
            1e3 * at
                .saturating_duration_since(self.last_readout)
                .as_secs_f64()
        };
        let first = self
            .last_readout
            .saturating_duration_since(self.first_readout);
        let mut out = vec![
            ("first_readout", -1e3 * first.as_secs_f64()),
            ("last_readout", 0.0),
            ("sorted", ms(self.sorted)),
            ("begun", ms(self.begun)),
            ("reconstructed", ms(self.reconstructed)),
        ];
        let later = [("denoised", self.denoised), ("sent", self.sent)];
        out.extend(
            later
                .into_iter()
                .filter_map(|(name, at)| Some((name, ms(at?)))),
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_from_the_last_readout() {
        let t = Instant::now();
        let at = |ms| t + Duration::from_millis(ms);
        let mut stamp = Stamp {
            first_readout: at(0),
            last_readout: at(100),
            sorted: at(101),
            begun: at(103),
            reconstructed: at(110),
            denoised: None,
            sent: None,
        };
        assert_eq!(stamp.latency(), Duration::from_millis(10));
        stamp.sent = Some(at(112));
        assert_eq!(stamp.latency(), Duration::from_millis(12));
        let offsets: Vec<_> = stamp
            .offsets_ms()
            .into_iter()
            .map(|(n, v)| (n, v.round()))
            .collect();
        assert_eq!(
            offsets,
            [
                ("first_readout", -100.0),
                ("last_readout", 0.0),
                ("sorted", 1.0),
                ("begun", 3.0),
                ("reconstructed", 10.0),
                ("sent", 12.0)
            ]
        );
    }
}
