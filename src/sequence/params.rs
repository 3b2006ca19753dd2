//! The `[sequence]` table: every key with its unit, and what follows from it by arithmetic alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How signal is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Turbo (fast) spin echo.
    #[default]
    Tse,
    /// Spoiled gradient echo.
    Gre,
}

/// What the images are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Contrast {
    /// T1-weighted.
    T1w,
    /// T2-weighted.
    #[default]
    T2w,
    /// Weighted by proton density.
    Pdw,
    /// Short-TI inversion recovery.
    Stir,
    /// T2-weighted without fat.
    T2fs,
    /// T2*-weighted.
    T2star,
}

/// Plane of the slices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Plane {
    /// Slices from left to right.
    #[default]
    Sagittal,
    /// Slices from feet to head.
    Axial,
    /// Slices from front to back.
    Coronal,
}

/// Patient axis along which phase is encoded; the other axis of the plane is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PhaseDirection {
    /// Head to feet.
    #[default]
    HeadFeet,
    /// Front to back.
    AnteriorPosterior,
    /// Left to right.
    LeftRight,
}

/// Part of the spine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Region {
    /// Lumbar spine.
    #[default]
    Lumbar,
    /// Cervical spine.
    Cervical,
}

/// What is done about fat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FatMethod {
    /// Nothing.
    #[default]
    None,
    /// Chemically selective saturation before each excitation.
    Chess,
    /// Chemically selective adiabatic inversion, then a wait until fat is null.
    Spair,
    /// Nothing is suppressed; the scan is repeated with shifted echoes and separated afterwards.
    Dixon,
}

/// Fat suppression or separation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FatParams {
    /// What is done about fat.
    pub method: FatMethod,
    /// Width of the saturated band of CHESS, centred on the main fat peak, ppm.
    pub bandwidth_ppm: f64,
    /// Dixon: shifts of the echo against the spin echo (TSE) or the echo time (GRE), ms; one scan each.
    pub echo_shifts_ms: Vec<f64>,
}

impl Default for FatParams {
    fn default() -> Self {
        Self {
            method: FatMethod::None,
            bandwidth_ppm: 2.7,
            echo_shifts_ms: Vec::new(),
        }
    }
}

/// In which order lines meet the echoes of a train.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LineOrder {
    /// Along pe1 with the echoes; turned round so that the centre meets the effective echo.
    #[default]
    Linear,
    /// From the centre outwards, with the echoes in the order of their distance from the effective one.
    Centric,
}

/// Kinds of pattern.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SamplingKind {
    /// Every `pe1`th line of every `pe2`th partition, through the centre.
    #[default]
    Regular,
    /// Random lines, denser at the centre, as many as the regular pattern has.
    VariableDensity,
}

/// Which lines are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingParams {
    /// Kind of pattern.
    pub kind: SamplingKind,
    /// Variable density: chance proportional to `(1 - distance)^power`; 0 is uniform.
    pub power: f64,
    /// Variable density: seed of the pattern.
    pub seed: u64,
}

/// Parallel imaging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccelerationParams {
    /// Factor along pe1.
    pub pe1: usize,
    /// Factor along pe2 (3D).
    pub pe2: usize,
    /// CAIPIRINHA: lines of pe1 by which the pattern shifts from one measured partition to the next.
    pub caipi_shift: usize,
    /// Calibration lines along pe1, embedded around the centre; none are added where pe1 and pe2 are 1.
    pub acs_pe1: usize,
    /// Calibration partitions along pe2 (3D).
    pub acs_pe2: usize,
}

impl Default for AccelerationParams {
    fn default() -> Self {
        Self {
            pe1: 1,
            pe2: 1,
            caipi_shift: 0,
            acs_pe1: 24,
            acs_pe2: 24,
        }
    }
}

/// What the scanner plays. Defaults are a sagittal T2-weighted TSE of the lumbar spine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SequenceParams {
    /// How signal is made.
    pub kind: Kind,
    /// What the images are called.
    pub contrast: Contrast,
    /// Part of the spine.
    pub region: Region,
    /// Plane of the slices.
    pub plane: Plane,
    /// Patient axis along which phase is encoded; the other axis of the plane is read.
    pub phase: PhaseDirection,
    /// Field strength, T.
    pub field_strength_t: f64,
    /// From one excitation of a slice to its next, ms.
    pub tr_ms: f64,
    /// TSE: time of the echo that fills the centre of k-space, a multiple of the echo spacing. GRE: of the first echo. ms.
    pub te_ms: f64,
    /// From inversion to excitation, ms; absent: no inversion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ti_ms: Option<f64>,
    /// Part of the magnetisation that the inversion turns over, 0 to 1.
    pub inversion_efficiency: f64,
    /// Echoes of a train (TSE); 1 for GRE.
    pub echo_train_length: usize,
    /// Time between echoes: of a train (TSE), of the gradient echoes after one excitation (GRE), ms.
    pub echo_spacing_ms: f64,
    /// Gradient echoes after one excitation, each an image (GRE); 1 for TSE.
    pub n_echoes: usize,
    /// Angle of the excitation, degrees.
    pub excitation_deg: f64,
    /// Angle of the refocusing pulses (TSE), degrees.
    pub refocusing_deg: f64,
    /// Order of the lines in the train.
    pub line_order: LineOrder,
    /// Pixels along read and lines along phase, as acquired, without oversampling.
    pub matrix: [usize; 2],
    /// Field of view along read and phase, without oversampling, mm.
    pub fov_mm: [f64; 2],
    /// Extra lines, as part of the matrix: 0.8 is 80 % more.
    pub phase_oversampling: f64,
    /// Samples per pixel along read.
    pub readout_oversampling: usize,
    /// Bandwidth, Hz per pixel; its inverse is the time of a full readout.
    pub bandwidth_hz_per_pixel: f64,
    /// Slices (slabs for 3D).
    pub n_slices: usize,
    /// Thickness of a slice (of a partition for 3D), mm.
    pub slice_thickness_mm: f64,
    /// Gap between slices (slabs), mm.
    pub slice_gap_mm: f64,
    /// Partitions of a slab; 1 is 2D.
    pub n_partitions: usize,
    /// Extra partitions, as part of their number (3D).
    pub slice_oversampling: f64,
    /// How often every line is measured.
    pub averages: usize,
    /// Groups of slices measured one after the other; 0 is as many as needed.
    pub concatenations: usize,
    /// Shots without acquisition at the start of every concatenation.
    pub dummy_shots: usize,
    /// Part of the lines along pe1 that are measured, above 0.5 to 1; the first are left out.
    pub partial_fourier: f64,
    /// Part of a readout that is measured, above 0.5 to 1; its first samples are left out.
    pub asymmetric_echo: f64,
    /// Fat suppression or separation.
    pub fat: FatParams,
    /// Parallel imaging.
    pub acceleration: AccelerationParams,
    /// Which lines are left out.
    pub sampling: SamplingParams,
}

impl Default for SequenceParams {
    fn default() -> Self {
        Self {
            kind: Kind::Tse,
            contrast: Contrast::T2w,
            region: Region::Lumbar,
            plane: Plane::Sagittal,
            phase: PhaseDirection::HeadFeet,
            field_strength_t: 3.0,
            tr_ms: 3500.0,
            te_ms: 104.0,
            ti_ms: None,
            inversion_efficiency: 1.0,
            echo_train_length: 19,
            echo_spacing_ms: 10.4,
            n_echoes: 1,
            excitation_deg: 90.0,
            refocusing_deg: 160.0,
            line_order: LineOrder::Linear,
            matrix: [384, 307],
            fov_mm: [280.0, 280.0],
            phase_oversampling: 0.8,
            readout_oversampling: 2,
            bandwidth_hz_per_pixel: 260.0,
            n_slices: 15,
            slice_thickness_mm: 4.0,
            slice_gap_mm: 0.4,
            n_partitions: 1,
            slice_oversampling: 0.0,
            averages: 1,
            concatenations: 0,
            dummy_shots: 0,
            partial_fourier: 1.0,
            asymmetric_echo: 1.0,
            fat: FatParams::default(),
            acceleration: AccelerationParams::default(),
            sampling: SamplingParams::default(),
        }
    }
}

impl SequenceParams {
    /// Whether partitions are encoded.
    pub fn is_3d(&self) -> bool {
        self.n_partitions > 1
    }

    /// Lines of full k-space along pe1 and pe2, with oversampling; even unless 1.
    pub fn n_lines(&self) -> [usize; 2] {
        let grown = |n: usize, extra: f64| match n {
            0 | 1 => n,
            n => 2 * ((n as f64 * (1.0 + extra) / 2.0).round() as usize).max(1),
        };
        [
            grown(self.matrix[1], self.phase_oversampling),
            grown(self.n_partitions, self.slice_oversampling),
        ]
    }

    /// Matrix of full k-space: samples of a readout, pe1, pe2.
    pub fn encoded_matrix(&self) -> [usize; 3] {
        let [pe1, pe2] = self.n_lines();
        [self.matrix[0] * self.readout_oversampling, pe1, pe2]
    }

    /// Field of view of the encoded matrix, mm. The third is the thickness of a slice for 2D.
    pub fn encoded_fov_mm(&self) -> [f64; 3] {
        let [pe1, pe2] = self.n_lines();
        let [x, y, z] = self.pixel_mm();
        [
            x * (self.matrix[0] * self.readout_oversampling) as f64,
            y * pe1 as f64,
            z * pe2 as f64,
        ]
    }

    /// Matrix of the image as acquired: read, phase, partitions.
    pub fn image_matrix(&self) -> [usize; 3] {
        [self.matrix[0], self.matrix[1], self.n_partitions]
    }

    /// Pixel as acquired: read, phase, slice, mm.
    pub fn pixel_mm(&self) -> [f64; 3] {
        [
            self.fov_mm[0] / self.matrix[0] as f64,
            self.fov_mm[1] / self.matrix[1] as f64,
            self.slice_thickness_mm,
        ]
    }

    /// Distance of slice (slab) centres, mm.
    pub fn slice_pitch_mm(&self) -> f64 {
        self.slice_thickness_mm * self.n_partitions as f64 + self.slice_gap_mm
    }

    /// Time of one sample, µs.
    pub fn dwell_us(&self) -> f64 {
        1e6 / (self.bandwidth_hz_per_pixel * (self.matrix[0] * self.readout_oversampling) as f64)
    }

    /// Samples of a readout that are measured: the last of `encoded_matrix()[0]`.
    pub fn n_samples(&self) -> usize {
        let full = self.matrix[0] * self.readout_oversampling;
        ((full as f64 * self.asymmetric_echo).ceil() as usize).min(full)
    }

    /// Time of a readout, ms.
    pub fn readout_ms(&self) -> f64 {
        self.n_samples() as f64 * self.dwell_us() * 1e-3
    }

    /// Scans of every line with different echo shifts: 1, or those of Dixon.
    pub fn n_shifts(&self) -> usize {
        match self.fat.method {
            FatMethod::Dixon => self.fat.echo_shifts_ms.len(),
            _ => 1,
        }
    }

    /// The echo of the train that fills the centre of k-space; 0 is the first.
    pub fn effective_echo(&self) -> usize {
        match self.kind {
            Kind::Tse => ((self.te_ms / self.echo_spacing_ms).round() as usize).saturating_sub(1),
            Kind::Gre => 0,
        }
    }

    /// From excitation to echo `idx`: of the train (TSE) or of the gradient echoes (GRE), ms.
    pub fn echo_time_ms(&self, idx: usize) -> f64 {
        match self.kind {
            Kind::Tse => (idx + 1) as f64 * self.echo_spacing_ms,
            Kind::Gre => self.te_ms + idx as f64 * self.echo_spacing_ms,
        }
    }
}
