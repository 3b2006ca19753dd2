//! What every simulated readout has: its head's coils, its counters' width, the flags of its slice; and readouts of noise.

use std::collections::BTreeMap;

use ismrmrd::{Acquisition, AcquisitionFlag as Flag, AcquisitionHeader};
use num_complex::{Complex32, Complex64};

use super::noise::{self, Rng};

/// A head that says how many coils there are, and nothing else.
pub(super) fn head(n_coils: usize) -> AcquisitionHeader {
    let mut mask = [0u64; 16];
    for c in 0..n_coils.min(1024) {
        mask[c / 64] |= 1 << (c % 64);
    }
    AcquisitionHeader {
        available_channels: u16_of(n_coils),
        active_channels: u16_of(n_coils),
        channel_mask: mask,
        ..AcquisitionHeader::default()
    }
}

/// How noise is measured: its readouts' samples and dwell time, and what the receiver's filter leaves of its power.
#[derive(Clone, Copy)]
pub(super) struct NoiseScan {
    pub(super) n_samples: usize,
    pub(super) dwell_us: f32,
    pub(super) bandwidth_ratio: f32,
}

/// A readout of noise of the coils' `factor`, which is that of samples of `imaging_dwell_us`.
pub(super) fn noise_readout(
    mut head: AcquisitionHeader,
    scan: NoiseScan,
    imaging_dwell_us: f64,
    factor: &[Complex64],
    rng: &mut Rng,
) -> Acquisition {
    head.set(Flag::IsNoiseMeasurement);
    head.number_of_samples = u16_of(scan.n_samples);
    head.sample_time_us = scan.dwell_us;
    // Noise power goes with bandwidth (one over dwell); the receiver's filter takes some more of it.
    let scale =
        (imaging_dwell_us / f64::from(scan.dwell_us) * f64::from(scan.bandwidth_ratio)).sqrt();
    let n_coils = usize::from(head.active_channels);
    let data = noise::readout(rng, factor, n_coils, scan.n_samples, scale);
    Acquisition {
        head,
        traj: Vec::new(),
        data: data.into_iter().map(to_c32).collect(),
    }
}

/// First and last readouts of each slice of a frame. A separate calibration scan is over before its slices' imaging
/// lines begin; embedded lines belong to them.
pub(super) fn set_slice_flags<'a>(heads: impl Iterator<Item = &'a mut AcquisitionHeader>) {
    let frame = |h: &AcquisitionHeader| {
        let i = &h.idx;
        (i.repetition, i.set, i.phase, i.contrast, i.average, i.slice)
    };
    let mut last = BTreeMap::new();
    for head in heads {
        let key = frame(head);
        if !last.contains_key(&key) {
            head.set(Flag::FirstInSlice);
        }
        last.insert(key, head);
    }
    for head in last.into_values() {
        head.set(Flag::LastInSlice);
    }
}

#[allow(clippy::cast_possible_truncation)] // storage precision
pub(super) fn to_c32(v: Complex64) -> Complex32 {
    Complex32::new(v.re as f32, v.im as f32)
}

/// A count as a counter of the format; counts are checked to be small.
pub(super) fn u16_of(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

/// The same with 32 bits.
pub(super) fn u32_of(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
