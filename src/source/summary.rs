//! What a file holds, for `cauda inspect`: one pass over its readouts, a value that can be printed or serialised.

use std::collections::{BTreeMap, BTreeSet};

use ismrmrd::acquisition::AcquisitionRef;
use ismrmrd::{AcquisitionFlag as Flag, Header, Pixels};

use super::{Beside, Kind, NoiseSource, Opened, doctor};
use crate::data::Note;

/// Lowest and highest value seen.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Range<T> {
    /// Lowest.
    pub min: T,
    /// Highest.
    pub max: T,
}

impl<T: Copy + PartialOrd> Range<T> {
    fn grow(range: &mut Option<Self>, value: T) {
        match range {
            None => {
                *range = Some(Self {
                    min: value,
                    max: value,
                });
            }
            Some(r) => {
                if value < r.min {
                    r.min = value;
                }
                if value > r.max {
                    r.max = value;
                }
            }
        }
    }
}

/// How many readouts of each purpose. A readout counts once, in the first class that fits, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Purposes {
    /// Receiver noise.
    pub noise: u64,
    /// Phase correction.
    pub phase_correction: u64,
    /// Navigators and feedback.
    pub navigation: u64,
    /// Dummies, stabilisation, coil correction.
    pub aside: u64,
    /// Calibration lines that are no image lines.
    pub calibration: u64,
    /// Image lines that are flagged for calibration too.
    pub calibration_and_imaging: u64,
    /// Image lines.
    pub imaging: u64,
}

/// One `encoding` of the header.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct EncodingSummary {
    /// `cartesian`, `radial`, ...
    pub trajectory: String,
    /// x, y, z.
    pub encoded_matrix: [u32; 3],
    /// mm.
    pub encoded_fov_mm: [f32; 3],
    /// x, y, z.
    pub recon_matrix: [u32; 3],
    /// mm.
    pub recon_fov_mm: [f32; 3],
    /// Line at the centre of k-space.
    pub centre_line: Option<u32>,
    /// Partition at the centre of k-space.
    pub centre_partition: Option<u32>,
    /// As stated: along pe1 and pe2.
    pub acceleration: [u32; 2],
    /// As stated.
    pub calibration_mode: Option<String>,
    /// As stated.
    pub echo_train_length: Option<i64>,
}

/// A series of images or arrays of one size and type.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SeriesSummary {
    /// Name in a file; of a stream, `image_` and the series' number.
    pub name: String,
    /// How many.
    pub count: u64,
    /// Of each: images `[channel, z, y, x]`.
    pub shape: Vec<usize>,
    /// Type of the values: `f32`, `c32`, ...
    pub values: &'static str,
    /// `magnitude`, `phase`, ...; of arrays nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_type: Option<&'static str>,
    /// How many carry meta attributes.
    pub with_attributes: u64,
}

impl SeriesSummary {
    fn count(list: &mut Vec<Self>, one: Self) {
        let same = list.iter_mut().find(|s| {
            s.name == one.name
                && s.shape == one.shape
                && s.values == one.values
                && s.image_type == one.image_type
        });
        match same {
            Some(s) => {
                s.count += one.count;
                s.with_attributes += one.with_attributes;
            }
            None => list.push(one),
        }
    }
}

fn value_word(pixels: &Pixels) -> &'static str {
    match pixels {
        Pixels::U16(_) => "u16",
        Pixels::I16(_) => "i16",
        Pixels::U32(_) => "u32",
        Pixels::I32(_) => "i32",
        Pixels::F32(_) => "f32",
        Pixels::F64(_) => "f64",
        Pixels::C32(_) => "c32",
        Pixels::C64(_) => "c64",
    }
}

fn image_type_word(image_type: u16) -> &'static str {
    match image_type {
        1 => "magnitude",
        2 => "phase",
        3 => "real",
        4 => "imaginary",
        5 => "complex",
        _ => "unstated type",
    }
}

/// What a file holds.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Summary {
    /// Kind of file.
    pub kind: Kind,
    /// Kind of file, for people.
    pub kind_name: &'static str,
    /// Where.
    pub path: String,
    /// Group of an HDF5 file.
    pub group: Option<String>,
    /// Scanner: vendor, model.
    pub system: [Option<String>; 2],
    /// Tesla.
    pub field_strength_t: Option<f32>,
    /// Name of the protocol on the scanner.
    pub protocol_name: Option<String>,
    /// `HFS` and the like.
    pub patient_position: Option<String>,
    /// ms.
    pub tr_ms: Vec<f32>,
    /// ms.
    pub te_ms: Vec<f32>,
    /// ms.
    pub ti_ms: Vec<f32>,
    /// Degrees.
    pub flip_angle_deg: Vec<f32>,
    /// Encodings of the header.
    pub encodings: Vec<EncodingSummary>,
    /// All readouts.
    pub readouts: u64,
    /// By purpose.
    pub purposes: Purposes,
    /// By flag of ISMRMRD.
    pub flags: BTreeMap<&'static str, u64>,
    /// Receive channels of all readouts.
    pub coils: Option<Range<u16>>,
    /// Samples of image lines.
    pub samples: Option<Range<u16>>,
    /// Samples of noise readouts.
    pub noise_samples: Option<Range<u16>>,
    /// Dwell time of image lines, microseconds.
    pub dwell_us: Option<Range<f32>>,
    /// Dwell time of noise readouts, microseconds.
    pub noise_dwell_us: Option<Range<f32>>,
    /// Counters of image lines.
    pub counters: BTreeMap<&'static str, Range<u16>>,
    /// Counters of calibration-only lines along pe1.
    pub calibration_lines: Option<Range<u16>>,
    /// Different (pe2, pe1) of image lines, over all frames.
    pub distinct_lines: u64,
    /// Reversed readouts.
    pub reversed: u64,
    /// Readouts with a trajectory.
    pub with_trajectory: u64,
    /// Samples that are NaN or infinite.
    pub not_finite: u64,
    /// Coils without any signal.
    pub silent_coils: Vec<usize>,
    /// Waveforms beside the readouts.
    pub waveforms: u64,
    /// Images beside the readouts, or instead of them.
    pub images: Vec<SeriesSummary>,
    /// Arrays beside the readouts, or instead of them.
    pub arrays: Vec<SeriesSummary>,
    /// Where noise readouts come from.
    pub noise: Option<NoiseSource>,
    /// What a complete scan would have and this one has not.
    pub missing: Vec<&'static str>,
    /// Marks of the reader and of the header doctor.
    pub notes: Vec<Note>,
    #[serde(skip)]
    pub(super) tally: Tally,
}

/// What only the doctor needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) lines: BTreeSet<(u16, u16)>,
    pub(super) energy: Vec<f64>,
    pub(super) centre_beyond: u64,
    pub(super) bad_directions: u64,
    pub(super) encoding_beyond: Option<u16>,
    pub(super) asymmetric: u64,
    pub(super) samples_seen: BTreeMap<(u16, u16), u64>,
    pub(super) last_in_slice: u64,
}

const FLAGS: [(Flag, &str); 17] = [
    (Flag::IsNoiseMeasurement, "noise_measurement"),
    (Flag::IsParallelCalibration, "parallel_calibration"),
    (
        Flag::IsParallelCalibrationAndImaging,
        "parallel_calibration_and_imaging",
    ),
    (Flag::IsReverse, "reverse"),
    (Flag::IsNavigationData, "navigation"),
    (Flag::IsPhasecorrData, "phase_correction"),
    (Flag::IsHpfeedbackData, "hp_feedback"),
    (Flag::IsDummyscanData, "dummy_scan"),
    (Flag::IsRtfeedbackData, "rt_feedback"),
    (
        Flag::IsSurfacecoilcorrectionscanData,
        "surface_coil_correction",
    ),
    (
        Flag::IsPhaseStabilizationReference,
        "phase_stabilization_reference",
    ),
    (Flag::IsPhaseStabilization, "phase_stabilization"),
    (Flag::FirstInSlice, "first_in_slice"),
    (Flag::LastInSlice, "last_in_slice"),
    (Flag::LastInRepetition, "last_in_repetition"),
    (Flag::LastInMeasurement, "last_in_measurement"),
    (Flag::LastInEncodeStep1, "last_in_encode_step_1"),
];

impl Summary {
    pub(super) fn new(opened: &Opened) -> Self {
        let header = &opened.header;
        let system = header.acquisition_system_information.as_ref();
        let measurement = header.measurement_information.as_ref();
        let sequence = header.sequence_parameters.clone().unwrap_or_default();
        Self {
            kind: opened.kind,
            kind_name: opened.kind.name(),
            path: opened.path.display().to_string(),
            group: opened.group.clone(),
            system: [
                system.and_then(|s| s.system_vendor.clone()),
                system.and_then(|s| s.system_model.clone()),
            ],
            field_strength_t: system.and_then(|s| s.system_field_strength_t),
            protocol_name: measurement.and_then(|m| m.protocol_name.clone()),
            patient_position: measurement.map(|m| m.patient_position.clone()),
            tr_ms: sequence.tr,
            te_ms: sequence.te,
            ti_ms: sequence.ti,
            flip_angle_deg: sequence.flip_angle_deg,
            encodings: header
                .encoding
                .iter()
                .map(|e| EncodingSummary {
                    trajectory: e.trajectory.word().to_owned(),
                    encoded_matrix: e.encoded_space.matrix_size,
                    encoded_fov_mm: e.encoded_space.field_of_view_mm,
                    recon_matrix: e.recon_space.matrix_size,
                    recon_fov_mm: e.recon_space.field_of_view_mm,
                    centre_line: e.encoding_limits.kspace_encoding_step_1.map(|l| l.center),
                    centre_partition: e.encoding_limits.kspace_encoding_step_2.map(|l| l.center),
                    acceleration: e
                        .parallel_imaging
                        .as_ref()
                        .map_or([1, 1], |p| p.acceleration_factor),
                    calibration_mode: e
                        .parallel_imaging
                        .as_ref()
                        .and_then(|p| p.calibration_mode.clone()),
                    echo_train_length: e.echo_train_length,
                })
                .collect(),
            readouts: 0,
            purposes: Purposes::default(),
            flags: BTreeMap::new(),
            coils: None,
            samples: None,
            noise_samples: None,
            dwell_us: None,
            noise_dwell_us: None,
            counters: BTreeMap::new(),
            calibration_lines: None,
            distinct_lines: 0,
            reversed: 0,
            with_trajectory: 0,
            not_finite: 0,
            silent_coils: Vec::new(),
            waveforms: 0,
            images: Vec::new(),
            arrays: Vec::new(),
            noise: opened.noise.clone(),
            missing: Vec::new(),
            notes: opened.notes.clone(),
            tally: Tally::default(),
        }
    }

    pub(super) fn add(&mut self, readout: &AcquisitionRef<'_>) {
        let head = readout.head;
        self.readouts += 1;
        for (flag, word) in FLAGS {
            if head.has(flag) {
                *self.flags.entry(word).or_default() += 1;
            }
        }
        Range::grow(&mut self.coils, head.active_channels);
        self.reversed += u64::from(head.has(Flag::IsReverse));
        self.with_trajectory += u64::from(head.trajectory_dimensions > 0);
        let tally = &mut self.tally;
        let n = usize::from(head.number_of_samples);
        if let Some(coils) = readout.data.len().checked_div(n) {
            if tally.energy.len() < coils {
                tally.energy.resize(coils, 0.0);
            }
            for (energy, samples) in tally.energy.iter_mut().zip(readout.data.chunks(n)) {
                let sum: f64 = samples
                    .iter()
                    .map(|s| f64::from(s.re) * f64::from(s.re) + f64::from(s.im) * f64::from(s.im))
                    .sum();
                if sum.is_finite() {
                    *energy += sum;
                } else {
                    self.not_finite += samples
                        .iter()
                        .filter(|s| !s.re.is_finite() || !s.im.is_finite())
                        .count() as u64;
                    *energy += 1.0;
                }
            }
        }
        if usize::from(head.encoding_space_ref) >= self.encodings.len() {
            tally.encoding_beyond = Some(head.encoding_space_ref);
        }
        let purposes = &mut self.purposes;
        if head.has(Flag::IsNoiseMeasurement) {
            purposes.noise += 1;
            Range::grow(&mut self.noise_samples, head.number_of_samples);
            Range::grow(&mut self.noise_dwell_us, head.sample_time_us);
            return;
        }
        if head.has(Flag::IsPhasecorrData) {
            purposes.phase_correction += 1;
            return;
        }
        if head.has(Flag::IsNavigationData)
            || head.has(Flag::IsRtfeedbackData)
            || head.has(Flag::IsHpfeedbackData)
        {
            purposes.navigation += 1;
            return;
        }
        if head.has(Flag::IsDummyscanData)
            || head.has(Flag::IsSurfacecoilcorrectionscanData)
            || head.has(Flag::IsPhaseStabilization)
            || head.has(Flag::IsPhaseStabilizationReference)
        {
            purposes.aside += 1;
            return;
        }
        let both = head.has(Flag::IsParallelCalibrationAndImaging);
        if head.has(Flag::IsParallelCalibration) && !both {
            purposes.calibration += 1;
            Range::grow(&mut self.calibration_lines, head.idx.kspace_encode_step_1);
            return;
        }
        if both {
            purposes.calibration_and_imaging += 1;
        } else {
            purposes.imaging += 1;
        }
        Range::grow(&mut self.samples, head.number_of_samples);
        Range::grow(&mut self.dwell_us, head.sample_time_us);
        let idx = &head.idx;
        for (word, value) in [
            ("kspace_encode_step_1", idx.kspace_encode_step_1),
            ("kspace_encode_step_2", idx.kspace_encode_step_2),
            ("average", idx.average),
            ("slice", idx.slice),
            ("contrast", idx.contrast),
            ("phase", idx.phase),
            ("repetition", idx.repetition),
            ("set", idx.set),
            ("segment", idx.segment),
        ] {
            let mut range = self.counters.get(word).copied();
            Range::grow(&mut range, value);
            if let Some(range) = range {
                self.counters.insert(word, range);
            }
        }
        tally
            .lines
            .insert((idx.kspace_encode_step_2, idx.kspace_encode_step_1));
        tally.last_in_slice += u64::from(head.has(Flag::LastInSlice));
        tally.centre_beyond += u64::from(head.center_sample >= head.number_of_samples.max(1));
        tally.asymmetric += u64::from(head.center_sample != head.number_of_samples / 2);
        *tally
            .samples_seen
            .entry((head.encoding_space_ref, head.number_of_samples))
            .or_default() += 1;
        tally.bad_directions += u64::from(!doctor::is_orthonormal(head));
    }

    pub(super) fn add_beside(&mut self, item: &Beside) {
        match item {
            Beside::Waveform(_) => self.waveforms += 1,
            Beside::Image(name, image) => {
                let [x, y, z] = image.head.matrix_size.map(usize::from);
                SeriesSummary::count(
                    &mut self.images,
                    SeriesSummary {
                        name: name.clone(),
                        count: 1,
                        shape: vec![usize::from(image.head.channels), z, y, x],
                        values: value_word(&image.pixels),
                        image_type: Some(image_type_word(image.head.image_type)),
                        with_attributes: u64::from(!image.attributes.is_empty()),
                    },
                );
            }
            Beside::Array(name, array) => SeriesSummary::count(
                &mut self.arrays,
                SeriesSummary {
                    name: name.clone(),
                    count: 1,
                    shape: array.shape.clone(),
                    values: value_word(&array.values),
                    image_type: None,
                    with_attributes: 0,
                },
            ),
        }
    }

    pub(super) fn finish(&mut self, header: &Header) {
        if self.readouts == 0 {
            // Images: what a scan would have is not missing here.
            return;
        }
        self.distinct_lines = self.tally.lines.len() as u64;
        self.silent_coils = (0..self.tally.energy.len())
            .filter(|&c| self.tally.energy[c] == 0.0)
            .collect();
        let missing = [
            (
                self.purposes.noise == 0,
                "noise readouts (no SNR units without a separate noise scan)",
            ),
            (
                self.purposes.imaging + self.purposes.calibration_and_imaging == 0,
                "image lines",
            ),
            (self.dwell_us.is_none_or(|d| d.min <= 0.0), "dwell time"),
            (
                self.patient_position.as_ref().is_none_or(String::is_empty),
                "patient position",
            ),
            (self.field_strength_t.is_none(), "field strength"),
            (self.te_ms.is_empty(), "TE"),
            (self.tr_ms.is_empty(), "TR"),
        ];
        self.missing = missing.into_iter().filter(|m| m.0).map(|m| m.1).collect();
        let marks = doctor::examine(self, header);
        self.notes.extend(marks);
    }
}
