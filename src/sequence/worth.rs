//! What the images of a sequence are worth: SNR, sharpness, and the load of its pulses, for named tissues.

use serde::Serialize;

use super::fat::{between, nominal_t1_ms};
use super::{Kind, Order, SequenceError, SequenceParams, Timing, Train};

/// A tissue by which sequences are compared; values at 1.5 T and 3 T.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReferenceTissue {
    /// Name.
    pub name: &'static str,
    /// Proton density, CSF = 1.
    pub pd: f64,
    /// Part of the protons that are fat.
    pub fat_fraction: f64,
    /// T1 of the water, ms.
    pub t1_ms: [f64; 2],
    /// T2 of the water, ms.
    pub t2_ms: f64,
    /// T2* of the water, ms.
    pub t2star_ms: [f64; 2],
}

impl ReferenceTissue {
    const fn new(
        name: &'static str,
        pd: f64,
        fat_fraction: f64,
        t1_ms: [f64; 2],
        t2_ms: f64,
        t2star_ms: [f64; 2],
    ) -> Self {
        Self {
            name,
            pd,
            fat_fraction,
            t1_ms,
            t2_ms,
            t2star_ms,
        }
    }
}

/// Proton density, fat fraction, T1 and T2 as the recommended simulator defaults; T2* is a judgement: with T2' of 120 and
/// 60 ms, and of 24 and 12 ms in bone.
pub const REFERENCE_TISSUES: [ReferenceTissue; 6] = [
    ReferenceTissue::new("cord", 0.55, 0.0, [725.0, 876.0], 73.0, [45.0, 33.0]),
    ReferenceTissue::new("csf", 1.0, 0.0, [4200.0, 4300.0], 1600.0, [112.0, 58.0]),
    ReferenceTissue::new("marrow", 0.85, 0.42, [850.0, 1050.0], 36.0, [14.0, 9.0]),
    ReferenceTissue::new("disc", 0.75, 0.0, [1100.0, 1300.0], 150.0, [67.0, 43.0]),
    ReferenceTissue::new("muscle", 0.80, 0.12, [1000.0, 1250.0], 38.0, [29.0, 23.0]),
    ReferenceTissue::new("fat", 0.95, 0.95, [900.0, 1100.0], 35.0, [27.0, 22.0]),
];

/// Apparent T2 of fat in an echo train, ms.
const FAT_T2_MS: f64 = 110.0;

/// Full width at half maximum of the point spread function of a uniform k-space, pixels.
const UNIFORM_FWHM_PX: f64 = 1.206_709;

/// One tissue in the images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TissueWorth {
    /// Name.
    pub name: &'static str,
    /// Magnitude at the effective echo, CSF's equilibrium = 1.
    pub signal: f64,
    /// Signal x voxel (mm³) x square root of the sampling time (s) x field (T) / g: only ratios mean something.
    pub snr: f64,
    /// Width along phase of the point spread function that the echo train makes, as the pixel of the same width, mm.
    pub width_mm: f64,
}

/// The images of one sequence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Worth {
    /// Timing.
    pub timing: Timing,
    /// Pixel as acquired: read, phase, slice, mm.
    pub pixel_mm: [f64; 3],
    /// Named tissues.
    pub tissues: Vec<TissueWorth>,
    /// Sum of (angle / 180 degrees)² of all pulses per second: like SAR at one field strength.
    pub pulse_load_per_s: f64,
    /// As given: the g-factor by which the SNR was divided.
    pub gfactor: f64,
}

impl Worth {
    /// Judges a sequence; `gfactor` is the noise amplification of its parallel imaging where it matters, 1 for none.
    ///
    /// # Errors
    /// [`SequenceError`] if the sequence is impossible.
    pub fn plan(params: &SequenceParams, gfactor: f64) -> Result<Self, SequenceError> {
        if !(gfactor.is_finite() && gfactor >= 1.0) {
            return Err(SequenceError::Range {
                key: "gfactor",
                found: gfactor.to_string(),
                needed: "1 or more".to_owned(),
            });
        }
        let timing = Timing::plan(params)?;
        let order = Order::of(params);
        let train = Train::of(params);
        let pixel_mm = params.pixel_mm();
        let voxel_mm3: f64 = pixel_mm.iter().product();
        let of_scan = voxel_mm3 * timing.sampling_s.sqrt() * params.field_strength_t / gfactor;
        let tissues = REFERENCE_TISSUES
            .iter()
            .map(|tissue| {
                let echoes = magnitudes(params, &train, tissue);
                let signal = echoes.get(order.effective_echo).copied().unwrap_or(0.0);
                TissueWorth {
                    name: tissue.name,
                    signal,
                    snr: signal * of_scan,
                    width_mm: pixel_mm[1]
                        * match params.kind {
                            Kind::Tse => width(&order, &echoes) / UNIFORM_FWHM_PX,
                            Kind::Gre => 1.0,
                        },
                }
            })
            .collect();
        Ok(Self {
            pixel_mm,
            tissues,
            pulse_load_per_s: pulse_load(params, &timing),
            timing,
            gfactor,
        })
    }

    /// A tissue by name.
    pub fn tissue(&self, name: &str) -> Option<&TissueWorth> {
        self.tissues.iter().find(|t| t.name == name)
    }
}

/// SNR to win back, as part of what is left, when time is saved at equal resolution: `1/sqrt(1-saving) - 1`.
pub fn snr_to_win_back(saving: f64) -> f64 {
    1.0 / (1.0 - saving).sqrt() - 1.0
}

/// Magnitude of a tissue at each echo, water and fat together, on resonance.
fn magnitudes(params: &SequenceParams, train: &Train, tissue: &ReferenceTissue) -> Vec<f64> {
    let field = params.field_strength_t;
    let t2 = match params.kind {
        Kind::Tse => tissue.t2_ms,
        Kind::Gre => between(field, tissue.t2star_ms[0], tissue.t2star_ms[1]),
    };
    let fat_t2 = match params.kind {
        Kind::Tse => FAT_T2_MS,
        Kind::Gre => t2,
    };
    let water = train.echoes(between(field, tissue.t1_ms[0], tissue.t1_ms[1]), t2, 1.0);
    let fat_t1 = nominal_t1_ms(field);
    let fat = train.echoes(fat_t1, fat_t2, 1.0);
    let peaks = train.fat_peaks(fat_t1, 1.0, 0.0);
    water
        .iter()
        .zip(&fat)
        .enumerate()
        .map(|(echo, (w, f))| {
            let seconds = train.dephasing_ms(0, echo) * 1e-3;
            let (mut re, mut im) = (0.0, 0.0);
            for peak in &peaks {
                let (sin, cos) = (std::f64::consts::TAU * peak.frequency_hz * seconds).sin_cos();
                re += peak.weight * cos;
                im += peak.weight * sin;
            }
            let ff = tissue.fat_fraction;
            tissue.pd * ((1.0 - ff) * w + ff * f * re).hypot(ff * f * im)
        })
        .collect()
}

/// Sum of (angle / 180)² of the pulses of all slices, per second.
fn pulse_load(params: &SequenceParams, timing: &Timing) -> f64 {
    let square = |deg: f64| (deg / 180.0).powi(2);
    let refocusing = match params.kind {
        Kind::Tse => params.echo_train_length as f64 * square(params.refocusing_deg),
        Kind::Gre => 0.0,
    };
    let inversion = params.ti_ms.map_or(0.0, |_| 1.0);
    let fat = match params.fat.method {
        super::FatMethod::Chess => 0.25,
        super::FatMethod::Spair => 1.0,
        super::FatMethod::None | super::FatMethod::Dixon => 0.0,
    };
    (square(params.excitation_deg) + refocusing + inversion + fat)
        * timing.slices_per_concatenation as f64
        / (params.tr_ms * 1e-3)
}

/// Full width at half maximum along pe1 of the point spread function, pixels.
///
/// A line that was left out has the weight of its nearest measured neighbour in its half of k-space (parallel imaging);
/// those that partial Fourier left out, of their mirror.
fn width(order: &Order, echoes: &[f64]) -> f64 {
    let [n1, n2] = order.n_lines;
    let row = &order.echo_of_line()[n1 * (n2 / 2)..][..n1];
    let measured: Vec<usize> = (0..n1).filter(|i| row[*i].is_some()).collect();
    let weight = |at: usize| -> f64 {
        let first = measured.first().copied().unwrap_or(0);
        let at = if at < first {
            (n1 - at).min(n1 - 1)
        } else {
            at
        };
        let near = measured.partition_point(|m| *m < at);
        let candidates = [near.checked_sub(1), Some(near)];
        candidates
            .into_iter()
            .flatten()
            .filter_map(|i| measured.get(i))
            .min_by_key(|m| m.abs_diff(at))
            .and_then(|m| row[*m])
            .map_or(0.0, |echo| echoes[echo].abs())
    };
    let weights: Vec<f64> = (0..n1).map(weight).collect();
    let value = |x: f64| {
        let (mut re, mut im) = (0.0, 0.0);
        for (i, w) in weights.iter().enumerate() {
            let k = (i as f64 - (n1 / 2) as f64) / n1 as f64;
            let (sin, cos) = (std::f64::consts::TAU * k * x).sin_cos();
            re += w * cos;
            im += w * sin;
        }
        re.hypot(im)
    };
    let half = value(0.0) / 2.0;
    if half.is_nan() || half <= 0.0 {
        return UNIFORM_FWHM_PX;
    }
    let cross = |sign: f64| {
        let (mut inside, mut outside) = (0.0, 0.25);
        while value(sign * outside) > half && outside < n1 as f64 / 2.0 {
            inside = outside;
            outside += 0.25;
        }
        for _ in 0..30 {
            let middle = (inside + outside) / 2.0;
            if value(sign * middle) > half {
                inside = middle;
            } else {
                outside = middle;
            }
        }
        inside
    };
    cross(1.0) + cross(-1.0)
}
