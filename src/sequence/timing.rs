//! Whether a sequence is possible, and how long it takes.

use serde::Serialize;

use super::order::Order;
use super::{FatMethod, Kind, PhaseDirection, Plane, SequenceError, SequenceParams};

/// Excitation and spoilers of a train, ms.
const EXCITATION_MS: f64 = 3.0;
/// Inversion pulse with its spoiler, ms.
const INVERSION_MS: f64 = 12.0;
/// CHESS pulse with its spoiler, ms.
const CHESS_MS: f64 = 12.0;
/// SPAIR pulse, spoiler and wait, ms.
const SPAIR_MS: f64 = 110.0;
/// Refocusing pulse with its crushers, ms: no readout in this part of an echo spacing.
const REFOCUSING_MS: f64 = 2.0;
/// From the middle of the excitation of a GRE to the first sample, ms.
const BEFORE_READOUT_MS: f64 = 1.5;
/// Between the readouts of two gradient echoes (rewinder), ms.
const REWIND_MS: f64 = 0.8;

/// How long, in which parts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timing {
    /// Whole scan, s.
    pub scan_s: f64,
    /// Different lines that are measured.
    pub n_lines: usize,
    /// Shots of a slice that are acquired: averages and echo shifts counted.
    pub n_shots: usize,
    /// Groups of slices, one after the other.
    pub concatenations: usize,
    /// Slices (slabs) in the largest group.
    pub slices_per_concatenation: usize,
    /// Slices (slabs) for which a TR has room.
    pub slices_fitting: usize,
    /// Preparation and train of one slice, ms.
    pub slice_ms: f64,
    /// One readout, ms.
    pub readout_ms: f64,
    /// All readouts of a slice (slab), s: SNR goes with its square root.
    pub sampling_s: f64,
}

impl Timing {
    /// Checks every key, then computes.
    ///
    /// # Errors
    /// [`SequenceError`]: key, what was asked, the nearest that would do.
    pub fn plan(params: &SequenceParams) -> Result<Self, SequenceError> {
        ranges(params)?;
        lines(params)?;
        echoes(params)?;
        let slice_ms = slice_ms(params);
        let ti_ms = params.ti_ms.unwrap_or(0.0);
        let room_ms = params.tr_ms - ti_ms;
        if let Some(ti_ms) = params.ti_ms
            && !(ti_ms > 0.0 && room_ms + 1e-6 >= slice_ms)
            && params.tr_ms > slice_ms
        {
            return Err(SequenceError::InversionTime {
                ti_ms,
                tr_ms: params.tr_ms,
                slice_ms,
                longest_ms: ((params.tr_ms - slice_ms) * 10.0 + 1e-6).floor() / 10.0,
            });
        }
        // A part in a million: a TR computed from the slices must fit them.
        let fitting = (room_ms / slice_ms * (1.0 + 1e-6)).floor().max(0.0) as usize;
        let concatenations = match params.concatenations {
            0 if fitting > 0 => params.n_slices.div_ceil(fitting),
            0 => 1,
            n => n,
        };
        let per = params.n_slices.div_ceil(concatenations);
        if per > fitting {
            return Err(SequenceError::SlicesDoNotFit {
                n_slices: params.n_slices,
                concatenations,
                tr_ms: params.tr_ms,
                slice_ms,
                fitting,
                nearest_tr_ms: (ti_ms + per as f64 * slice_ms - 1e-6).ceil(),
                or_concatenations: match fitting {
                    0 => String::new(),
                    n => format!(", or concatenations = {}", params.n_slices.div_ceil(n)),
                },
            });
        }
        let order = Order::of(params);
        if params.kind == Kind::Tse && params.echo_train_length > order.n_measured {
            return Err(range(
                "echo_train_length",
                params.echo_train_length,
                format!("at most the {} lines that are measured", order.n_measured),
            ));
        }
        let n_shots = order.shots.len();
        let readout_ms = params.readout_ms();
        Ok(Self {
            scan_s: params.tr_ms * 1e-3 * ((n_shots + params.dummy_shots) * concatenations) as f64,
            n_lines: order.n_measured,
            n_shots,
            concatenations,
            slices_per_concatenation: per,
            slices_fitting: fitting,
            slice_ms,
            readout_ms,
            sampling_s: (order.n_measured * params.averages * params.n_shifts()) as f64
                * readout_ms
                * 1e-3,
        })
    }
}

/// Preparation and train of one slice, ms; the wait of an inversion is not in it: other slices are measured meanwhile.
fn slice_ms(params: &SequenceParams) -> f64 {
    let fat_ms = match params.fat.method {
        FatMethod::None | FatMethod::Dixon => 0.0,
        FatMethod::Chess => CHESS_MS,
        FatMethod::Spair => SPAIR_MS,
    };
    let inversion_ms = params.ti_ms.map_or(0.0, |_| INVERSION_MS);
    let train_ms = match params.kind {
        Kind::Tse => params.echo_train_length as f64 * params.echo_spacing_ms,
        Kind::Gre => {
            params.echo_time_ms(params.n_echoes.saturating_sub(1)) + params.readout_ms() / 2.0
        }
    };
    EXCITATION_MS + inversion_ms + fat_ms + train_ms
}

fn range(key: &'static str, found: impl std::fmt::Display, needed: String) -> SequenceError {
    SequenceError::Range {
        key,
        found: found.to_string(),
        needed,
    }
}

fn positive(key: &'static str, value: f64, nearest: &str) -> Result<(), SequenceError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(range(key, value, format!("above 0, for example {nearest}")))
}

fn within(key: &'static str, value: f64, low: f64, high: f64) -> Result<(), SequenceError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let nearest = if value > high { high } else { low };
    Err(range(
        key,
        value,
        format!("{low} to {high}; nearest: {nearest}"),
    ))
}

fn at_most(key: &'static str, value: usize, low: usize, high: usize) -> Result<(), SequenceError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let nearest = value.clamp(low, high);
    Err(range(
        key,
        value,
        format!("{low} to {high}; nearest: {nearest}"),
    ))
}

/// Keys that can be judged alone.
fn ranges(p: &SequenceParams) -> Result<(), SequenceError> {
    within("field_strength_t", p.field_strength_t, 0.05, 12.0)?;
    positive("tr_ms", p.tr_ms, "600")?;
    positive("te_ms", p.te_ms, "10")?;
    positive("echo_spacing_ms", p.echo_spacing_ms, "10")?;
    positive("bandwidth_hz_per_pixel", p.bandwidth_hz_per_pixel, "250")?;
    positive("slice_thickness_mm", p.slice_thickness_mm, "3")?;
    for side in p.fov_mm {
        positive("fov_mm", side, "280")?;
    }
    for n in p.matrix {
        at_most("matrix", n, 8, 4096)?;
    }
    at_most("readout_oversampling", p.readout_oversampling, 1, 8)?;
    at_most("n_slices", p.n_slices, 1, 1024)?;
    at_most("n_partitions", p.n_partitions, 1, 1024)?;
    at_most("averages", p.averages, 1, 64)?;
    at_most(
        "n_echoes",
        p.n_echoes,
        1,
        if p.kind == Kind::Gre { 64 } else { 1 },
    )?;
    at_most(
        "echo_train_length",
        p.echo_train_length,
        1,
        if p.kind == Kind::Tse { 512 } else { 1 },
    )?;
    within("slice_gap_mm", p.slice_gap_mm, 0.0, 1000.0)?;
    within("phase_oversampling", p.phase_oversampling, 0.0, 3.0)?;
    within("slice_oversampling", p.slice_oversampling, 0.0, 3.0)?;
    within("excitation_deg", p.excitation_deg, 1.0, 180.0)?;
    within("refocusing_deg", p.refocusing_deg, 20.0, 180.0)?;
    within("partial_fourier", p.partial_fourier, 0.51, 1.0)?;
    within("asymmetric_echo", p.asymmetric_echo, 0.51, 1.0)?;
    within("inversion_efficiency", p.inversion_efficiency, 0.0, 1.0)?;
    within("sampling.power", p.sampling.power, 0.0, 20.0)?;
    within("fat.bandwidth_ppm", p.fat.bandwidth_ppm, 0.5, 6.0)?;
    at_most("dummy_shots", p.dummy_shots, 0, 1000)?;
    at_most("concatenations", p.concatenations, 0, p.n_slices)?;
    if p.kind == Kind::Gre
        && let Some(ti_ms) = p.ti_ms
    {
        return Err(range(
            "ti_ms",
            ti_ms,
            "absent: only tse is inverted".to_owned(),
        ));
    }
    let in_plane = match p.plane {
        Plane::Sagittal => [PhaseDirection::HeadFeet, PhaseDirection::AnteriorPosterior],
        Plane::Axial => [PhaseDirection::AnteriorPosterior, PhaseDirection::LeftRight],
        Plane::Coronal => [PhaseDirection::LeftRight, PhaseDirection::HeadFeet],
    };
    if !in_plane.contains(&p.phase) {
        return Err(range(
            "phase",
            format!("{:?} is not an axis of a {:?} slice", p.phase, p.plane),
            format!("{:?} or {:?}", in_plane[0], in_plane[1]),
        ));
    }
    let n_shifts = p.fat.echo_shifts_ms.len();
    if p.fat.method == FatMethod::Dixon {
        at_most("fat.echo_shifts_ms", n_shifts, 2, 16)?;
    } else if n_shifts > 0 {
        return Err(range(
            "fat.echo_shifts_ms",
            n_shifts,
            "none, or fat.method = \"dixon\"".to_owned(),
        ));
    }
    Ok(())
}

/// What depends on the number of lines.
fn lines(p: &SequenceParams) -> Result<(), SequenceError> {
    let [n1, n2] = p.n_lines();
    let a = p.acceleration;
    at_most("acceleration.pe1", a.pe1, 1, n1 / 2)?;
    at_most("acceleration.pe2", a.pe2, 1, (n2 / 2).max(1))?;
    at_most(
        "acceleration.caipi_shift",
        a.caipi_shift,
        0,
        if a.pe2 > 1 { a.pe1 - 1 } else { 0 },
    )?;
    if a.pe1 * a.pe2 > 1 {
        let around_centre = 2 * (n1 / 2 - super::order::first_line(p));
        at_most("acceleration.acs_pe1", a.acs_pe1, 0, around_centre)?;
        if n2 > 1 {
            at_most("acceleration.acs_pe2", a.acs_pe2, 0, n2)?;
        }
    }
    Ok(())
}

/// Whether echo, readout and shifts have their place between the pulses.
fn echoes(p: &SequenceParams) -> Result<(), SequenceError> {
    let readout_ms = p.readout_ms();
    let shift_ms = p
        .fat
        .echo_shifts_ms
        .iter()
        .fold(0.0, |most: f64, s| most.max(s.abs()));
    let (room_ms, key, missing_at) = match p.kind {
        Kind::Tse => (
            p.echo_spacing_ms - REFOCUSING_MS - 2.0 * shift_ms,
            "echo_spacing_ms",
            p.echo_spacing_ms,
        ),
        Kind::Gre => {
            // What stands before the echo of the full readout.
            let before = 2.0 * (p.te_ms - BEFORE_READOUT_MS);
            let between = if p.n_echoes > 1 {
                p.echo_spacing_ms - REWIND_MS
            } else {
                f64::INFINITY
            };
            if between < before {
                (between, "echo_spacing_ms", p.echo_spacing_ms)
            } else {
                (before, "te_ms", p.te_ms)
            }
        }
    };
    if readout_ms > room_ms + 1e-9 {
        let missing = (readout_ms - room_ms) / if key == "te_ms" { 2.0 } else { 1.0 };
        return Err(SequenceError::Readout {
            bandwidth: p.bandwidth_hz_per_pixel,
            readout_ms,
            room_ms: room_ms.max(0.0),
            nearest_bandwidth: if room_ms > 0.0 {
                (p.bandwidth_hz_per_pixel * readout_ms / room_ms - 1e-6).ceil()
            } else {
                f64::INFINITY
            },
            key,
            // Rounded up, but not by the last bit.
            nearest_ms: ((missing_at + missing) * 100.0 - 1e-6).ceil() / 100.0,
        });
    }
    if p.kind == Kind::Tse {
        let at = p.te_ms / p.echo_spacing_ms;
        let nearest = at.round();
        let is_on_echo = (at - nearest).abs() * p.echo_spacing_ms <= 0.05;
        if !(is_on_echo && nearest >= 1.0 && nearest <= p.echo_train_length as f64) {
            let echo = |n: f64| {
                let n = n.clamp(1.0, p.echo_train_length as f64);
                (n * p.echo_spacing_ms * 1e3).round() / 1e3
            };
            return Err(SequenceError::EchoTime {
                te_ms: p.te_ms,
                echo_spacing_ms: p.echo_spacing_ms,
                echo_train_length: p.echo_train_length,
                below_ms: echo(at.floor()),
                above_ms: echo(at.ceil()),
            });
        }
    }
    Ok(())
}
