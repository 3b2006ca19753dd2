//! Fat's spectrum, and what suppression leaves of each peak.

use super::{FatMethod, FatParams};

/// Frequency of hydrogen, Hz per T.
pub const HYDROGEN_HZ_PER_T: f64 = 42.577_478_518e6;

/// Peaks of fat against water: shift in ppm, part of the amplitude (Ren 2008, Hamilton 2011).
pub const FAT_PEAKS: [(f64, f64); 6] = [
    (-3.80, 0.087),
    (-3.40, 0.693),
    (-2.60, 0.128),
    (-1.94, 0.004),
    (-0.39, 0.039),
    (0.60, 0.048),
];

/// Middle of the band that fat suppression plays in: the main peak, ppm.
const MAIN_PEAK_PPM: f64 = -3.4;
/// Half a transition from pass to stop, ppm; a Gaussian-like pulse of a dozen ms.
const EDGE_PPM: f64 = 0.15;
/// Band of SPAIR's inversion, ppm: the methylene edge as CHESS, and open towards lower frequencies.
const SPAIR_BAND_PPM: [f64; 2] = [-8.0, -2.05];

/// One peak of fat as the receiver hears it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FatPeak {
    /// Frequency against water at the same place, Hz.
    pub frequency_hz: f64,
    /// Signed part of the whole fat signal that is left; without suppression they sum to 1.
    pub weight: f64,
}

/// Part of the band at `ppm`: 1 inside, 0 outside.
fn band(ppm: f64, [low, high]: [f64; 2]) -> f64 {
    0.5 * (((ppm - low) / EDGE_PPM).tanh() - ((ppm - high) / EDGE_PPM).tanh())
}

/// Longitudinal magnetisation that suppression leaves at `ppm` from water on resonance, as part of what was there.
///
/// `t1_ratio` is T1 over the T1 for which SPAIR waits.
fn left(fat: &FatParams, ppm: f64, b1: f64, t1_ratio: f64) -> f64 {
    match fat.method {
        FatMethod::None | FatMethod::Dixon => 1.0,
        FatMethod::Chess => {
            let half = fat.bandwidth_ppm / 2.0;
            let played = band(ppm, [MAIN_PEAK_PPM - half, MAIN_PEAK_PPM + half]);
            1.0 - played * (1.0 - (b1 * std::f64::consts::FRAC_PI_2).cos())
        }
        FatMethod::Spair => {
            // Adiabatic: no B1. The wait of T1 ln 2 after a full inversion nulls fat of the nominal T1.
            let at_excitation = 1.0 - 2.0 * (-std::f64::consts::LN_2 / t1_ratio).exp();
            1.0 - band(ppm, SPAIR_BAND_PPM) * (1.0 - at_excitation)
        }
    }
}

/// T1 of fat that vendors and this room take for granted, ms: 260 at 1.5 T, 350 at 3 T.
pub(super) fn nominal_t1_ms(field_strength_t: f64) -> f64 {
    between(field_strength_t, 260.0, 350.0)
}

/// Linear between 1.5 T and 3 T, constant outside.
pub(super) fn between(field_strength_t: f64, at_1t5: f64, at_3t: f64) -> f64 {
    at_1t5 + ((field_strength_t - 1.5) / 1.5).clamp(0.0, 1.0) * (at_3t - at_1t5)
}

/// What is left of each peak where water is off resonance by `off_resonance_hz`.
pub(super) fn peaks(
    fat: &FatParams,
    field_strength_t: f64,
    t1_ms: f64,
    b1: f64,
    off_resonance_hz: f64,
) -> [FatPeak; 6] {
    let hz_per_ppm = field_strength_t * HYDROGEN_HZ_PER_T * 1e-6;
    let t1_ratio = t1_ms / nominal_t1_ms(field_strength_t);
    FAT_PEAKS.map(|(ppm, amplitude)| FatPeak {
        frequency_hz: ppm * hz_per_ppm,
        weight: amplitude * left(fat, ppm + off_resonance_hz / hz_per_ppm, b1, t1_ratio),
    })
}

/// What fat suppression leaves of water that is off resonance: 1 unless the field is very wrong.
pub(super) fn water_left(
    fat: &FatParams,
    field_strength_t: f64,
    t1_ms: f64,
    b1: f64,
    off_resonance_hz: f64,
) -> f64 {
    let hz_per_ppm = field_strength_t * HYDROGEN_HZ_PER_T * 1e-6;
    let t1_ratio = t1_ms / nominal_t1_ms(field_strength_t);
    left(fat, off_resonance_hz / hz_per_ppm, b1, t1_ratio)
}
