//! The XML header (`ismrmrdHeader`), typed after `ismrmrd.xsd`, unknown elements kept.

#![allow(missing_docs)] // field names are the schema's own, in snake case

mod parse;
#[cfg(test)]
mod tests;
mod write;

pub use parse::decode_text;

/// The whole header. Absent elements are `None` or empty; nothing is invented.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    pub version: Option<i64>,
    pub subject_information: Option<SubjectInformation>,
    pub study_information: Option<StudyInformation>,
    pub measurement_information: Option<MeasurementInformation>,
    pub acquisition_system_information: Option<AcquisitionSystemInformation>,
    pub experimental_conditions: ExperimentalConditions,
    pub encoding: Vec<Encoding>,
    pub sequence_parameters: Option<SequenceParameters>,
    pub user_parameters: Option<UserParameters>,
    pub waveform_information: Vec<WaveformInformation>,
    /// Elements that the schema does not know; those of one parent in document order.
    pub unknown: Vec<UnknownElement>,
}

/// An element outside the schema: where it stood and its text, so that it can be written back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnknownElement {
    /// Path of the parent below the root: `""`, `"encoding[0]/parallelImaging"`.
    pub parent: String,
    /// The element's own XML.
    pub xml: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubjectInformation {
    pub patient_name: Option<String>,
    pub patient_weight_kg: Option<f32>,
    pub patient_height_m: Option<f32>,
    pub patient_id: Option<String>,
    pub patient_birthdate: Option<String>,
    pub patient_gender: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct StudyInformation {
    pub study_date: Option<String>,
    pub study_time: Option<String>,
    pub study_id: Option<String>,
    pub accession_number: Option<i64>,
    pub referring_physician_name: Option<String>,
    pub study_description: Option<String>,
    pub study_instance_uid: Option<String>,
    pub body_part_examined: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeasurementInformation {
    pub measurement_id: Option<String>,
    pub series_date: Option<String>,
    pub series_time: Option<String>,
    /// `HFS`, `HFP`, `HFDR`, `HFDL`, `FFS`, `FFP`, `FFDR`, `FFDL`.
    pub patient_position: String,
    pub relative_table_position: Option<[f32; 3]>,
    pub initial_series_number: Option<i64>,
    pub protocol_name: Option<String>,
    pub sequence_name: Option<String>,
    pub series_description: Option<String>,
    pub measurement_dependency: Vec<MeasurementDependency>,
    pub series_instance_uid_root: Option<String>,
    pub frame_of_reference_uid: Option<String>,
    /// `referencedSOPInstanceUID` of `referencedImageSequence`.
    pub referenced_image_sequence: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeasurementDependency {
    pub dependency_type: String,
    pub measurement_id: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct AcquisitionSystemInformation {
    pub system_vendor: Option<String>,
    pub system_model: Option<String>,
    pub system_field_strength_t: Option<f32>,
    pub relative_receiver_noise_bandwidth: Option<f32>,
    pub receiver_channels: Option<u32>,
    pub coil_label: Vec<CoilLabel>,
    pub institution_name: Option<String>,
    pub station_name: Option<String>,
    pub device_id: Option<String>,
    pub device_serial_number: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct CoilLabel {
    pub coil_number: u32,
    pub coil_name: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExperimentalConditions {
    pub h1_resonance_frequency_hz: i64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoding {
    pub encoded_space: EncodingSpace,
    pub recon_space: EncodingSpace,
    pub encoding_limits: EncodingLimits,
    pub trajectory: Trajectory,
    pub trajectory_description: Option<TrajectoryDescription>,
    pub parallel_imaging: Option<ParallelImaging>,
    pub echo_train_length: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EncodingSpace {
    /// x, y, z.
    pub matrix_size: [u32; 3],
    /// x, y, z in mm.
    pub field_of_view_mm: [f32; 3],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    pub minimum: u32,
    pub maximum: u32,
    pub center: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodingLimits {
    pub kspace_encoding_step_0: Option<Limit>,
    pub kspace_encoding_step_1: Option<Limit>,
    pub kspace_encoding_step_2: Option<Limit>,
    pub average: Option<Limit>,
    pub slice: Option<Limit>,
    pub contrast: Option<Limit>,
    pub phase: Option<Limit>,
    pub repetition: Option<Limit>,
    pub set: Option<Limit>,
    pub segment: Option<Limit>,
    pub user: [Option<Limit>; 8],
}

impl EncodingLimits {
    /// Names in the XML schema and in MRD v2, in the order of the schema.
    pub(crate) const NAMES: [(&str, &str); 18] = [
        ("kspace_encoding_step_0", "kspaceEncodingStep0"),
        ("kspace_encoding_step_1", "kspaceEncodingStep1"),
        ("kspace_encoding_step_2", "kspaceEncodingStep2"),
        ("average", "average"),
        ("slice", "slice"),
        ("contrast", "contrast"),
        ("phase", "phase"),
        ("repetition", "repetition"),
        ("set", "set"),
        ("segment", "segment"),
        ("user_0", "user0"),
        ("user_1", "user1"),
        ("user_2", "user2"),
        ("user_3", "user3"),
        ("user_4", "user4"),
        ("user_5", "user5"),
        ("user_6", "user6"),
        ("user_7", "user7"),
    ];

    /// In the order of the names.
    pub(crate) fn all(&self) -> [Option<Limit>; 18] {
        let [u0, u1, u2, u3, u4, u5, u6, u7] = self.user;
        let [k0, k1, k2] = [
            self.kspace_encoding_step_0,
            self.kspace_encoding_step_1,
            self.kspace_encoding_step_2,
        ];
        let Self {
            average,
            slice,
            contrast,
            phase,
            repetition,
            set,
            segment,
            ..
        } = *self;
        [
            k0, k1, k2, average, slice, contrast, phase, repetition, set, segment, u0, u1, u2, u3,
            u4, u5, u6, u7,
        ]
    }

    /// From what `limit` finds under each pair of names.
    pub(crate) fn find<E>(
        mut limit: impl FnMut((&str, &str)) -> Result<Option<Limit>, E>,
    ) -> Result<Self, E> {
        let mut all = [None; 18];
        for (found, names) in all.iter_mut().zip(Self::NAMES) {
            *found = limit(names)?;
        }
        let [
            k0,
            k1,
            k2,
            average,
            slice,
            contrast,
            phase,
            repetition,
            set,
            segment,
            user @ ..,
        ] = all;
        Ok(Self {
            kspace_encoding_step_0: k0,
            kspace_encoding_step_1: k1,
            kspace_encoding_step_2: k2,
            average,
            slice,
            contrast,
            phase,
            repetition,
            set,
            segment,
            user,
        })
    }
}

/// `trajectoryType`; a word outside the schema is kept as found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trajectory {
    #[default]
    Cartesian,
    Epi,
    Radial,
    GoldenAngle,
    Spiral,
    Other,
    Unknown(String),
}

impl Trajectory {
    /// From the schema's word.
    pub fn of(word: &str) -> Self {
        match word {
            "cartesian" => Self::Cartesian,
            "epi" => Self::Epi,
            "radial" => Self::Radial,
            "goldenangle" => Self::GoldenAngle,
            "spiral" => Self::Spiral,
            "other" => Self::Other,
            word => Self::Unknown(word.to_owned()),
        }
    }

    /// The schema's word.
    pub fn word(&self) -> &str {
        match self {
            Self::Cartesian => "cartesian",
            Self::Epi => "epi",
            Self::Radial => "radial",
            Self::GoldenAngle => "goldenangle",
            Self::Spiral => "spiral",
            Self::Other => "other",
            Self::Unknown(word) => word,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrajectoryDescription {
    pub identifier: String,
    pub user_parameters: UserParameters,
    pub comment: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParallelImaging {
    /// Along `kspace_encoding_step_1` and `_2`.
    pub acceleration_factor: [u32; 2],
    pub calibration_mode: Option<String>,
    pub interleaving_dimension: Option<String>,
    pub multiband: Option<Multiband>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Multiband {
    /// One list of `dZ` per `spacing`.
    pub spacing: Vec<Vec<f32>>,
    pub delta_kz: f32,
    pub multiband_factor: u32,
    pub calibration: String,
    pub calibration_encoding: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SequenceParameters {
    /// Milliseconds, as all times here.
    pub tr: Vec<f32>,
    pub te: Vec<f32>,
    pub ti: Vec<f32>,
    pub flip_angle_deg: Vec<f32>,
    pub sequence_type: Option<String>,
    pub echo_spacing: Vec<f32>,
    pub diffusion_dimension: Option<String>,
    pub diffusion: Vec<Diffusion>,
    pub diffusion_scheme: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diffusion {
    /// `rl`, `ap`, `fh`.
    pub gradient_direction: [f32; 3],
    pub bvalue: f32,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserParameters {
    pub long: Vec<(String, i64)>,
    pub double: Vec<(String, f64)>,
    pub string: Vec<(String, String)>,
    /// Base64 text as found.
    pub base64: Vec<(String, String)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct WaveformInformation {
    pub waveform_name: String,
    pub waveform_type: String,
    pub user_parameters: UserParameters,
}
