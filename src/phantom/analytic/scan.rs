//! Header and readouts of a simulated scan.

use std::collections::BTreeMap;

use ismrmrd::header::{
    AcquisitionSystemInformation, Encoding, EncodingLimits, EncodingSpace, ExperimentalConditions,
    Limit, MeasurementInformation, ParallelImaging, SequenceParameters, Trajectory,
};
use ismrmrd::{Acquisition, AcquisitionFlag as Flag, AcquisitionHeader, EncodingCounters, Header};
use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

use super::sampling::{self, Slot};
use super::signal::Scene;
use super::{CalibrationLines, Plane, Simulate};
use crate::data::NoiseCovariance;
use crate::phantom::PhantomError;
use crate::phantom::noise::{self, Rng};
use crate::phantom::readout::{self, NoiseScan, set_slice_flags, to_c32, u16_of, u32_of};

/// A simulated scan.
#[derive(Clone, Debug)]
pub struct Simulated {
    /// Its header.
    pub header: Header,
    /// Noise readouts, calibration lines, imaging lines, in order of time.
    pub acquisitions: Vec<Acquisition>,
    /// True noise covariance of imaging samples, at the imaging dwell time.
    pub noise: NoiseCovariance,
}

/// Simulates a scan.
///
/// # Errors
/// [`PhantomError`] names the parameter.
///
/// # Numerics
/// k-space is the analytic transform in f64, rounded to f32 once; noise of each readout has its own stream, so the
/// result does not depend on the number of threads.
pub fn simulate(sim: &Simulate) -> Result<Simulated, PhantomError> {
    sim.check()?;
    let scene = Scene::new(sim);
    let (imaging, separate) = sampling::lines(sim);
    let slots = sampling::slots(sim, &imaging, &separate);
    let psi = noise::covariance(sim.n_coils, sim.noise_std * sim.gain, sim.noise_correlation);
    let factor = noise::factor(&psi, sim.n_coils);

    let mut acquisitions = noise_readouts(sim, &factor);
    let n_noise = acquisitions.len();
    acquisitions.resize(n_noise + slots.len(), Acquisition::default());

    // Readouts of one slice and contrast share their noise-free lines.
    let mut groups: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for (i, s) in slots.iter().enumerate() {
        groups.entry((s.slice, s.contrast)).or_default().push(i);
    }
    let at = |lines: &[sampling::PlannedLine]| -> Vec<(usize, usize)> {
        lines.iter().map(|l| (l.pe1, l.pe2)).collect()
    };
    let block = sim.n_coils * scene.n[0];
    for ((slice, contrast), members) in groups {
        let object = scene.object(sim, slice, contrast);
        let signal = scene.kspace(&object, &scene.coils, &at(&imaging), sim.gain);
        let calibration = if members.iter().any(|&i| slots[i].is_separate) {
            scene.kspace(&object, &scene.coils, &at(&separate), sim.gain)
        } else {
            Vec::new()
        };
        let made: Vec<Acquisition> = members
            .par_iter()
            .map(|&i| {
                let s = &slots[i];
                let lines = if s.is_separate { &calibration } else { &signal };
                let line = &lines[s.line_idx * block..(s.line_idx + 1) * block];
                imaging_readout(sim, &scene, s, line, &factor, n_noise + i)
            })
            .collect();
        for (i, a) in members.into_iter().zip(made) {
            acquisitions[n_noise + i] = a;
        }
    }
    set_flags(&mut acquisitions[n_noise..]);
    Ok(Simulated {
        header: header(sim),
        acquisitions,
        noise: NoiseCovariance {
            n_coils: sim.n_coils,
            matrix: psi,
            n_samples: u64::MAX,
            dwell_us: Some(f64::from(sim.dwell_us)),
        },
    })
}

fn base_head(sim: &Simulate, number: usize) -> AcquisitionHeader {
    AcquisitionHeader {
        measurement_uid: 1,
        scan_counter: u32_of(number),
        acquisition_time_stamp: u32_of(number * 4),
        ..readout::head(sim.n_coils)
    }
}

fn noise_readouts(sim: &Simulate, factor: &[Complex64]) -> Vec<Acquisition> {
    let scan = NoiseScan {
        n_samples: sim.noise_samples,
        dwell_us: sim.noise_dwell_us,
        bandwidth_ratio: sim.noise_bandwidth_ratio,
    };
    (0..sim.n_noise_readouts)
        .into_par_iter()
        .map(|i| {
            let mut rng = Rng::new(sim.seed, i as u64);
            let head = base_head(sim, i);
            readout::noise_readout(head, scan, sim.dwell_us.into(), factor, &mut rng)
        })
        .collect()
}

fn imaging_readout(
    sim: &Simulate,
    scene: &Scene,
    slot: &Slot,
    line: &[Complex32],
    factor: &[Complex64],
    number: usize,
) -> Acquisition {
    let nx = scene.n[0];
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0.5..=1 of nx
    let measured = ((nx as f64 * sim.asymmetric_echo).round() as usize).clamp(1, nx);
    let first = (nx - measured).min(nx / 2);
    let measured = nx - first;
    let [pre, post] = sim.discard;
    let n_samples = pre + measured + post;
    let start = sampling::first_measured(sim);
    let is_reverse = sim.is_alternating && number % 2 == 1;
    // Samples in order of time: a reversed readout begins at the far end, and discards there.
    let lead = if is_reverse { post } else { pre };

    let mut head = base_head(sim, number);
    head.number_of_samples = u16_of(n_samples);
    head.sample_time_us = sim.dwell_us;
    head.discard_pre = u16_of(if is_reverse { post } else { pre });
    head.discard_post = u16_of(if is_reverse { pre } else { post });
    head.center_sample = u16_of(pre + nx / 2 - first);
    let (read, phase, slice) = directions(sim);
    let offset =
        (slot.slice as f64 - (sim.n_slices as f64 - 1.0) / 2.0) * f64::from(sim.slice_spacing_mm);
    #[allow(clippy::cast_possible_truncation)] // storage precision
    let to_f32 = |v: [f64; 3]| v.map(|v| v as f32);
    head.position = [0, 1, 2].map(|i| {
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let v = (f64::from(sim.centre_mm[i]) + offset * slice[i]) as f32;
        v
    });
    head.read_dir = to_f32(read);
    head.phase_dir = to_f32(phase);
    head.slice_dir = to_f32(slice);
    head.idx = EncodingCounters {
        kspace_encode_step_1: u16_of(slot.line.pe1 - start[0]),
        kspace_encode_step_2: u16_of(slot.line.pe2 - start[1]),
        average: u16_of(slot.average),
        slice: u16_of(slot.slice),
        contrast: u16_of(slot.contrast),
        phase: u16_of(slot.phase),
        repetition: u16_of(slot.repetition),
        set: u16_of(slot.set),
        segment: u16_of(slot.segment),
        user: [0; 8],
    };
    if is_reverse {
        head.set(Flag::IsReverse);
    }
    if slot.is_separate {
        head.set(Flag::IsParallelCalibration);
    } else if slot.line.is_acs && sim.calibration == CalibrationLines::Embedded {
        head.set(if slot.line.is_pattern {
            Flag::IsParallelCalibrationAndImaging
        } else {
            Flag::IsParallelCalibration
        });
    }

    let mut rng = Rng::new(sim.seed, number as u64);
    let mut noise = noise::readout(&mut rng, factor, sim.n_coils, n_samples, 1.0);
    let turn = Complex64::from_polar(1.0 + 0.1 * slot.phase as f64, 0.3 * slot.set as f64);
    for c in 0..sim.n_coils {
        let row = &mut noise[c * n_samples..(c + 1) * n_samples];
        let signal = &line[c * nx + first..(c + 1) * nx];
        for (i, v) in signal.iter().enumerate() {
            let at = if is_reverse {
                lead + measured - 1 - i
            } else {
                lead + i
            };
            row[at] += turn * Complex64::new(v.re.into(), v.im.into());
        }
        // Rubbish, so that forgetting to discard shows.
        let n = row.len();
        let rubbish = Complex64::new(100.0 * sim.gain, -50.0 * sim.gain);
        row[..lead].fill(rubbish);
        row[n - (n_samples - lead - measured)..].fill(rubbish);
    }
    Acquisition {
        head,
        traj: Vec::new(),
        data: noise.into_iter().map(to_c32).collect(),
    }
}

/// Read, phase and slice axes in the patient (LPS).
fn directions(sim: &Simulate) -> ([f64; 3], [f64; 3], [f64; 3]) {
    let (read, phase) = match sim.plane {
        Plane::Axial => ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]),
        Plane::Sagittal => ([0.0, 0.0, -1.0], [0.0, 1.0, 0.0]),
        Plane::Coronal => ([0.0, 0.0, -1.0], [1.0, 0.0, 0.0]),
    };
    let (read, phase) = (
        rotated(read, sim.rotation_deg),
        rotated(phase, sim.rotation_deg),
    );
    let slice = [
        read[1] * phase[2] - read[2] * phase[1],
        read[2] * phase[0] - read[0] * phase[2],
        read[0] * phase[1] - read[1] * phase[0],
    ];
    (read, phase, slice)
}

fn rotated(mut v: [f64; 3], deg: [f64; 3]) -> [f64; 3] {
    for (axis, angle) in deg.into_iter().enumerate() {
        let (sin, cos) = angle.to_radians().sin_cos();
        let (a, b) = ((axis + 1) % 3, (axis + 2) % 3);
        (v[a], v[b]) = (v[a] * cos - v[b] * sin, v[a] * sin + v[b] * cos);
    }
    v
}

/// First and last readouts of slices, repetitions and the measurement.
fn set_flags(readouts: &mut [Acquisition]) {
    set_slice_flags(readouts.iter_mut().map(|a| &mut a.head));
    let mut repetitions = std::collections::BTreeSet::new();
    for a in readouts.iter_mut().rev() {
        if repetitions.insert(a.head.idx.repetition) {
            a.head.set(Flag::LastInRepetition);
        }
    }
    if let Some(last) = readouts.last_mut() {
        last.head.set(Flag::LastInMeasurement);
    }
}

fn header(sim: &Simulate) -> Header {
    let n = sim.encoded_matrix();
    let start = sampling::first_measured(sim);
    let limit = |maximum: usize, center: usize| {
        Some(Limit {
            minimum: 0,
            maximum: u32_of(maximum),
            center: u32_of(center),
        })
    };
    let counter = |n: usize| limit(n - 1, 0);
    let has_parallel = sim.acceleration != [1, 1];
    let calibration_mode = match (sim.acs[0], sim.calibration) {
        (0, _) => "other",
        (_, CalibrationLines::Separate) => "separate",
        _ => "embedded",
    };
    Header {
        version: Some(1),
        measurement_information: Some(MeasurementInformation {
            patient_position: sim.patient_position.clone(),
            measurement_id: Some(format!("cauda-simulate-{}", sim.seed)),
            protocol_name: Some("simulated".into()),
            ..MeasurementInformation::default()
        }),
        acquisition_system_information: Some(AcquisitionSystemInformation {
            system_vendor: Some("Cauda simulator".into()),
            system_model: Some("analytic phantom".into()),
            system_field_strength_t: Some(1.5),
            relative_receiver_noise_bandwidth: Some(sim.noise_bandwidth_ratio),
            receiver_channels: Some(u32_of(sim.n_coils)),
            ..AcquisitionSystemInformation::default()
        }),
        experimental_conditions: ExperimentalConditions {
            h1_resonance_frequency_hz: 63_870_000,
        },
        encoding: vec![Encoding {
            encoded_space: EncodingSpace {
                matrix_size: n.map(u32_of),
                field_of_view_mm: sim.encoded_field_of_view_mm(),
            },
            recon_space: EncodingSpace {
                matrix_size: sim.matrix.map(u32_of),
                field_of_view_mm: sim.field_of_view_mm,
            },
            encoding_limits: EncodingLimits {
                kspace_encoding_step_0: limit(n[0] - 1, n[0] / 2),
                kspace_encoding_step_1: limit(n[1] - 1 - start[0], n[1] / 2 - start[0]),
                kspace_encoding_step_2: limit(n[2] - 1 - start[1], n[2] / 2 - start[1]),
                average: counter(sim.n_averages),
                slice: counter(sim.n_slices),
                contrast: counter(sim.n_contrasts),
                phase: counter(sim.n_phases),
                repetition: counter(sim.n_repetitions),
                set: counter(sim.n_sets),
                segment: counter(sim.echo_train_length),
                user: [None; 8],
            },
            trajectory: Trajectory::Cartesian,
            parallel_imaging: has_parallel.then(|| ParallelImaging {
                acceleration_factor: sim.acceleration.map(u32_of),
                calibration_mode: Some(calibration_mode.into()),
                ..ParallelImaging::default()
            }),
            echo_train_length: (sim.echo_train_length > 1)
                .then(|| i64::try_from(sim.echo_train_length).unwrap_or(i64::MAX)),
            ..Encoding::default()
        }],
        sequence_parameters: Some(SequenceParameters {
            tr: vec![500.0],
            te: (0..sim.n_contrasts)
                .map(|c| 10.0 * (c as f32 + 1.0))
                .collect(),
            flip_angle_deg: vec![if sim.echo_train_length > 1 {
                90.0
            } else {
                15.0
            }],
            sequence_type: Some(
                if sim.echo_train_length > 1 {
                    "TurboSpinEcho"
                } else {
                    "Flash"
                }
                .into(),
            ),
            ..SequenceParameters::default()
        }),
        ..Header::default()
    }
}
