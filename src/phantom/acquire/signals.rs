//! What the matter of a patient answers to a sequence, as the acquisition wants it: trains as sums of a few functions.

use super::basis::Basis;
use super::kspace::{B1_NODES, Contrast, Play, b1_of};
use super::{AcquireParams, Matter};
use crate::phantom::Tissue;
use crate::sequence::{
    FAT_PEAKS, FatMethod, HYDROGEN_HZ_PER_T, Kind, Order, SequenceParams, Train,
};

/// T2' of fat in a gradient echo, ms: what its own field gradients add to T2.
const FAT_T2PRIME_MS: f64 = 60.0;
/// Peaks of fat that suppression reaches; the others lie too close to water.
const FAR_PEAKS: usize = 4;
/// Saturation is tabulated over this many Hz per step.
const HZ_STEP: f64 = 10.0;
/// The part of flowing blood's signal that a spin echo sees.
const FLOW_TSE: f32 = 0.05;

/// What fat suppression leaves, over off-resonance and transmit field.
pub(super) struct Saturation {
    first_hz: f64,
    n: usize,
    /// `[hz][node]`: far peaks, near peaks, water.
    table: Vec<[f32; 3]>,
}

impl Saturation {
    fn new(train: &Train, sequence: &SequenceParams, fat_t1_ms: f64) -> Option<Self> {
        if !matches!(sequence.fat.method, FatMethod::Chess | FatMethod::Spair) {
            return None;
        }
        // Ten ppm to either side hold every metal.
        let reach = (10.0 * hz_per_ppm(sequence) / HZ_STEP).ceil();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small
        let n = 2 * reach as usize + 1;
        let first_hz = -reach * HZ_STEP;
        let mut table = Vec::with_capacity(n * B1_NODES);
        for i in 0..n {
            let hz = first_hz + i as f64 * HZ_STEP;
            for node in 0..B1_NODES {
                let peaks = train.fat_peaks(fat_t1_ms, b1_of(node), hz);
                let part = |of: std::ops::Range<usize>| -> f64 {
                    peaks[of.clone()].iter().map(|p| p.weight).sum::<f64>()
                        / FAT_PEAKS[of].iter().map(|p| p.1).sum::<f64>()
                };
                // Tissue of 1 s stands for all water: only a field wrong by 2 ppm reaches it.
                let water = train.water_left(1000.0, b1_of(node), hz);
                #[allow(clippy::cast_possible_truncation)] // storage precision
                table.push(
                    [part(0..FAR_PEAKS), part(FAR_PEAKS..FAT_PEAKS.len()), water].map(|v| v as f32),
                );
            }
        }
        Some(Self { first_hz, n, table })
    }

    /// Far peaks, near peaks, water; `node` and its fraction are the transmit field's.
    pub(super) fn at(&self, hz: f32, node: usize, t: f32) -> [f32; 3] {
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let at =
            ((f64::from(hz) - self.first_hz) / HZ_STEP).clamp(0.0, self.n as f64 - 1.001) as f32;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
        let (i, u) = (at as usize, at.fract());
        let row = |i: usize, k: usize| {
            let (a, b) = (
                self.table[i * B1_NODES + node][k],
                self.table[i * B1_NODES + node + 1][k],
            );
            a + (b - a) * t
        };
        std::array::from_fn(|k| row(i, k) + (row(i + 1, k) - row(i, k)) * u)
    }
}

/// Hz per ppm.
pub(super) fn hz_per_ppm(sequence: &SequenceParams) -> f64 {
    sequence.field_strength_t * HYDROGEN_HZ_PER_T * 1e-6
}

/// Trains of all matter in all contrasts; `tolerance` as in [`Basis::of`].
pub(super) fn play<M: Matter + ?Sized>(
    body: &M,
    sequence: &SequenceParams,
    params: &AcquireParams,
    train: &Train,
    tolerance: f64,
) -> Play {
    let is_gre = sequence.kind == Kind::Gre;
    let [fat_t1, fat_t2] = body.fat_t1_t2_ms();
    let materials = body.materials();
    let n = train.n_echoes();
    let all = |keep: &dyn Fn(Tissue) -> bool| -> Vec<Vec<f64>> {
        let mut compartments = Vec::new();
        let mut is_there = Vec::new();
        for m in materials {
            let t2 = if is_gre {
                m.water_t2star_ms
            } else {
                m.water_t2_ms
            };
            let is_kept = keep(m.tissue) && m.water_t1_ms > 0.0 && t2 > 0.0;
            for node in 0..B1_NODES {
                is_there.push(is_kept);
                compartments.push(if is_kept {
                    [m.water_t1_ms.into(), t2.into(), b1_of(node)]
                } else {
                    [1000.0, 1.0, 1.0]
                });
            }
        }
        let mut out = vec![0.0; compartments.len() * n];
        train.echoes_of_many(&compartments, &mut out);
        out.chunks_exact(n)
            .zip(is_there)
            .map(|(e, is)| if is { e.to_vec() } else { vec![0.0; n] })
            .collect()
    };
    let has_pulse = params.motion.pulsation > 0.0;
    let water = all(&|t| t != Tissue::Air && !(has_pulse && t == Tissue::Csf));
    let csf = if has_pulse {
        all(&|t| t == Tissue::Csf)
    } else {
        Vec::new()
    };
    let t2 = if is_gre {
        1.0 / (1.0 / fat_t2 + 1.0 / FAT_T2PRIME_MS)
    } else {
        fat_t2
    };
    let fat: Vec<Vec<f64>> = (0..B1_NODES)
        .map(|node| train.echoes(fat_t1, t2, b1_of(node)))
        .collect();
    // Each gradient echo is an image, with a train of one.
    let one = |trains: &[Vec<f64>], echo: usize| -> Basis {
        if is_gre {
            let single: Vec<Vec<f64>> = trains.iter().map(|t| vec![t[echo]]).collect();
            Basis::of(&single, tolerance)
        } else {
            Basis::of(trains, tolerance)
        }
    };
    let images = if is_gre { n } else { 1 };
    let mut contrasts = Vec::new();
    for shift in 0..sequence.n_shifts() {
        for echo in 0..images {
            contrasts.push(Contrast {
                water: one(&water, echo),
                csf: one(&csf, echo),
                fat: one(&fat, echo),
                turned_ms: train.dephasing_ms(shift, echo),
            });
        }
    }
    let per_ppm = hz_per_ppm(sequence);
    let peaks = |of: std::ops::Range<usize>| -> Vec<(f64, f64)> {
        FAT_PEAKS[of]
            .iter()
            .map(|(ppm, a)| (*a, ppm * per_ppm))
            .collect()
    };
    Play {
        contrasts,
        peaks: [peaks(0..FAR_PEAKS), peaks(FAR_PEAKS..FAT_PEAKS.len())],
        saturation: Saturation::new(train, sequence, fat_t1),
        hz_per_ppm: per_ppm,
        dwell_ms: sequence.dwell_us() * 1e-3,
        b1_spread: params.b1_spread,
        flow: if is_gre { 1.0 } else { FLOW_TSE },
        has_wall: params.motion.respiration_mm > 0.0,
    }
}

/// Signal-to-noise ratio of a unit signal per mm³ and root of ms of sampling at 3 T, where white matter of the cord has
/// `snr` in the standard sagittal T2-weighted scan of [`SequenceParams::default`], combined at its best.
pub(super) fn anchor(snr: f64) -> f64 {
    let standard = SequenceParams::default();
    // PD 0.55, T1 876 ms, T2 73 ms: white matter of the cord at 3 T.
    let signal = match (Train::plan(&standard), Order::plan(&standard)) {
        (Ok(train), Ok(order)) => {
            0.55 * train
                .echoes(876.0, 73.0, 1.0)
                .get(order.effective_echo)
                .copied()
                .unwrap_or(1.0)
        }
        _ => 1.0,
    };
    let [nx, ny, nz] = standard.encoded_matrix();
    let volume: f64 = standard.pixel_mm().iter().product();
    let sampling_ms = (nx * ny * nz) as f64 * standard.dwell_us() * 1e-3;
    snr / (signal * volume * sampling_ms.sqrt())
}
