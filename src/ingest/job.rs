//! What is done to one readout of a batch, in parallel with the others.

use ismrmrd::acquisition::AcquisitionRef;
use num_complex::Complex64;

use super::noise;
use super::oversampling::{Oversampling, Placement, Work};
use super::pool::{LinePool, PooledLine};
use crate::data::{FrameKey, Scan};
use crate::num::complex::energy;

/// What is to be done with one readout of a batch.
pub(super) enum Job {
    Noise,
    Line {
        key: FrameKey,
        is_calibration: bool,
        pe1: u32,
        pe2: u32,
        place: Placement,
    },
}

pub(super) enum Done {
    Noise(Vec<Complex64>),
    Line {
        samples: PooledLine,
        alive: Vec<bool>,
    },
    NotFinite {
        count: usize,
        coil: usize,
    },
}

/// What all readouts of a scan share.
pub(super) struct Places<'a> {
    /// Per encoding.
    pub(super) oversampling: &'a [Option<Oversampling>],
    pub(super) scan: &'a Scan,
    pub(super) pool: &'a LinePool,
}

/// Does one job; it may run anywhere.
pub(super) fn run(
    readout: &AcquisitionRef<'_>,
    job: &Job,
    to: &Places<'_>,
    work: &mut Work,
) -> Done {
    let n_samples = usize::from(readout.head.number_of_samples);
    let n_coils = usize::from(readout.head.active_channels);
    let mut alive = Vec::with_capacity(n_coils);
    for row in readout.data.chunks_exact(n_samples.max(1)) {
        alive.push(energy(row));
    }
    if let Some(coil) = alive.iter().position(|e| !e.is_finite()) {
        // The sum may also have overflowed on finite samples: count exactly.
        let count = readout.data.iter().filter(|v| !v.is_finite()).count();
        if count > 0 {
            return Done::NotFinite { count, coil };
        }
    }
    match job {
        Job::Noise => Done::Noise(noise::gram(
            readout.data,
            n_coils,
            noise::kept_samples(readout.head),
        )),
        Job::Line { key, place, .. } => {
            let encoding = usize::from(key.encoding_idx);
            let (Some(Some(o)), Some(Some(e))) = (
                to.oversampling.get(encoding),
                to.scan.encodings.get(encoding),
            ) else {
                return Done::Noise(Vec::new());
            };
            let mut samples = to.pool.take(n_coils * e.grid[0]);
            o.run(readout.data, n_samples, place, work, &mut samples);
            Done::Line {
                samples,
                alive: alive.iter().map(|&e| e != 0.0).collect(),
            }
        }
    }
}
