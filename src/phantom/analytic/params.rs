//! What a simulated scan is made of.

use serde::{Deserialize, Serialize};

use crate::phantom::PhantomError;

/// What lies in the scanner.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    /// The head of Shepp and Logan, in Toft's contrast, as ellipsoids.
    #[default]
    SheppLogan,
    /// A trunk with fat, muscle, vertebra, cord, kidneys and vessels, left and right unlike.
    Body,
}

/// Plane of the slices before `rotation_deg`. Patient axes are LPS.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Plane {
    /// Read to the left, phase to the back, slices to the head.
    #[default]
    Axial,
    /// Read to the feet, phase to the back, slices to the left.
    Sagittal,
    /// Read to the feet, phase to the left, slices to the front.
    Coronal,
}

/// How calibration lines are measured.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum CalibrationLines {
    /// Among the imaging lines, flagged as a Siemens converter does: "calibration and imaging" on the pattern,
    /// "calibration" off it.
    #[default]
    Embedded,
    /// In front of the scan, flagged "calibration", in the first repetition, contrast and set only.
    Separate,
    /// Among the imaging lines, without flags.
    Unflagged,
}

/// Which lines are measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Sampling {
    /// Every `acceleration`th line.
    #[default]
    Regular,
    /// Random lines, denser at the centre: chance proportional to `(1 - distance)^power`.
    Random {
        /// Fraction of all lines.
        fraction: f64,
        /// 0: uniform.
        power: f64,
    },
}

/// A simulated scan. Equal parameters give equal readouts, bit for bit on one platform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Simulate {
    /// What lies in the scanner.
    pub object: Object,
    /// Reconstructed matrix x, y, z; z above 1 is a 3D scan.
    pub matrix: [usize; 3],
    /// Reconstructed field of view x, y, z (z: slice or slab thickness), mm.
    pub field_of_view_mm: [f32; 3],
    /// Slices (slabs for 3D).
    pub n_slices: usize,
    /// Distance of slice centres, mm.
    pub slice_spacing_mm: f32,
    /// Whether even slices come first, then odd ones.
    pub is_interleaved: bool,
    /// Plane of the slices.
    pub plane: Plane,
    /// Rotation of the plane about the patient's x, then y, then z axis, degrees.
    pub rotation_deg: [f64; 3],
    /// Centre of the slice stack, LPS, mm.
    pub centre_mm: [f32; 3],
    /// `HFS`, `HFP`, `HFDR`, `HFDL`, `FFS`, `FFP`, `FFDR`, `FFDL`.
    pub patient_position: String,
    /// Receive coils.
    pub n_coils: usize,
    /// How local coils are: 0 is uniform.
    pub coil_sharpness: f64,
    /// Noise of one component of an imaging sample, against an object of intensity 1 in an image of unitary scale.
    pub noise_std: f64,
    /// Correlation of the noise of neighbouring coils, below 1.
    pub noise_correlation: f64,
    /// Noise readouts in front of the scan.
    pub n_noise_readouts: usize,
    /// Samples of each.
    pub noise_samples: usize,
    /// Time between noise samples, microseconds.
    pub noise_dwell_us: f32,
    /// Time between imaging samples, microseconds.
    pub dwell_us: f32,
    /// `relativeReceiverNoiseBandwidth`; the noise readouts are quieter by this factor (in power).
    pub noise_bandwidth_ratio: f32,
    /// Receiver counts per unit of intensity.
    pub gain: f64,
    /// Readout oversampling.
    pub oversampling: f64,
    /// Additional field of view along pe1 and pe2: 0.2 is 20 %.
    pub phase_oversampling: [f64; 2],
    /// Fraction of pe1 and pe2 that is measured; the first lines are left out.
    pub partial_fourier: [f64; 2],
    /// Fraction of the readout that is measured; the first samples are left out.
    pub asymmetric_echo: f64,
    /// Whether every other readout runs backwards.
    pub is_alternating: bool,
    /// Samples to be discarded before and after, filled with rubbish.
    pub discard: [usize; 2],
    /// Averages.
    pub n_averages: usize,
    /// Contrasts (echoes).
    pub n_contrasts: usize,
    /// Cardiac phases.
    pub n_phases: usize,
    /// Repetitions.
    pub n_repetitions: usize,
    /// Sets.
    pub n_sets: usize,
    /// Lines per shot; above 1 their number in the shot is the segment.
    pub echo_train_length: usize,
    /// Acceleration along pe1 and pe2.
    pub acceleration: [usize; 2],
    /// Shift along pe1 from one measured partition to the next (CAIPIRINHA).
    pub caipi_shift: usize,
    /// Calibration lines along pe1 and pe2; 0 for none.
    pub acs: [usize; 2],
    /// How they are measured.
    pub calibration: CalibrationLines,
    /// Which lines are measured.
    pub sampling: Sampling,
    /// Seed of noise and random lines.
    pub seed: u64,
}

impl Default for Simulate {
    fn default() -> Self {
        Self {
            object: Object::SheppLogan,
            matrix: [128, 128, 1],
            field_of_view_mm: [240.0, 240.0, 5.0],
            n_slices: 1,
            slice_spacing_mm: 6.0,
            is_interleaved: true,
            plane: Plane::Axial,
            rotation_deg: [0.0; 3],
            centre_mm: [0.0; 3],
            patient_position: "HFS".into(),
            n_coils: 8,
            coil_sharpness: 2.0,
            noise_std: 0.01,
            noise_correlation: 0.3,
            n_noise_readouts: 32,
            noise_samples: 512,
            noise_dwell_us: 5.0,
            dwell_us: 10.0,
            noise_bandwidth_ratio: 0.793,
            gain: 1.0,
            oversampling: 2.0,
            phase_oversampling: [0.0; 2],
            partial_fourier: [1.0; 2],
            asymmetric_echo: 1.0,
            is_alternating: false,
            discard: [0; 2],
            n_averages: 1,
            n_contrasts: 1,
            n_phases: 1,
            n_repetitions: 1,
            n_sets: 1,
            echo_train_length: 1,
            acceleration: [1, 1],
            caipi_shift: 0,
            acs: [0, 0],
            calibration: CalibrationLines::Embedded,
            sampling: Sampling::Regular,
            seed: 1,
        }
    }
}

impl Simulate {
    /// Names that [`Self::preset`] knows.
    pub const PRESETS: [&'static str; 5] = ["small", "bench", "tse", "caipi", "random"];

    /// A scan by name: `small` (one slice, R = 2), `bench` (the speed target: 20 slices of 320 x 320, 16 coils, R = 4),
    /// `tse` (oblique sagittal spine, segments, partial Fourier, phase oversampling), `caipi` (3D, 2 x 2 shifted),
    /// `random` (variable density).
    pub fn preset(name: &str) -> Option<Self> {
        let base = Self::default();
        Some(match name {
            "small" => Self {
                acceleration: [2, 1],
                acs: [24, 0],
                ..base
            },
            "bench" => Self {
                object: Object::Body,
                matrix: [320, 320, 1],
                field_of_view_mm: [320.0, 320.0, 4.0],
                n_slices: 20,
                slice_spacing_mm: 4.4,
                n_coils: 16,
                acceleration: [4, 1],
                acs: [24, 0],
                ..base
            },
            "tse" => Self {
                object: Object::Body,
                matrix: [192, 160, 1],
                field_of_view_mm: [288.0, 240.0, 4.0],
                n_slices: 5,
                plane: Plane::Sagittal,
                rotation_deg: [8.0, 0.0, 15.0],
                centre_mm: [4.0, 35.0, -120.0],
                phase_oversampling: [0.5, 0.0],
                partial_fourier: [0.8, 1.0],
                echo_train_length: 8,
                n_averages: 2,
                acceleration: [2, 1],
                acs: [24, 0],
                n_coils: 12,
                ..base
            },
            "caipi" => Self {
                matrix: [64, 64, 32],
                field_of_view_mm: [220.0, 220.0, 110.0],
                slice_spacing_mm: 110.0,
                acceleration: [2, 2],
                caipi_shift: 1,
                acs: [20, 12],
                n_coils: 12,
                ..base
            },
            "random" => Self {
                matrix: [160, 160, 1],
                acs: [24, 0],
                sampling: Sampling::Random {
                    fraction: 0.3,
                    power: 3.0,
                },
                calibration: CalibrationLines::Unflagged,
                ..base
            },
            _ => return None,
        })
    }

    /// Samples of the encoded space along x, y, z.
    pub fn encoded_matrix(&self) -> [usize; 3] {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // checked to be small and positive
        let grow = |n: usize, by: f64| (n as f64 * by).round() as usize;
        [
            grow(self.matrix[0], self.oversampling),
            grow(self.matrix[1], 1.0 + self.phase_oversampling[0]),
            if self.matrix[2] > 1 {
                grow(self.matrix[2], 1.0 + self.phase_oversampling[1])
            } else {
                1
            },
        ]
    }

    /// Field of view of the encoded space along x, y, z, mm.
    pub fn encoded_field_of_view_mm(&self) -> [f32; 3] {
        let n = self.encoded_matrix();
        [0, 1, 2].map(|i| self.field_of_view_mm[i] * n[i] as f32 / self.matrix[i] as f32)
    }

    /// Refuses what cannot be simulated.
    ///
    /// # Errors
    /// [`PhantomError`].
    pub fn check(&self) -> Result<(), PhantomError> {
        let bad = |key: &'static str, found: String, needed: &'static str| {
            Err(PhantomError { key, found, needed })
        };
        let counts = [
            self.n_slices,
            self.n_averages,
            self.n_contrasts,
            self.n_phases,
            self.n_repetitions,
            self.n_sets,
            self.echo_train_length,
            self.acceleration[0],
            self.acceleration[1],
        ];
        if counts.iter().any(|&n| n == 0 || n > 65_535) {
            return bad(
                "n_slices, n_averages, n_contrasts, n_phases, n_repetitions, n_sets, echo_train_length, acceleration",
                format!("{counts:?}"),
                "1 to 65535",
            );
        }
        if !(1.0..=8.0).contains(&self.oversampling) {
            return bad("oversampling", self.oversampling.to_string(), "1 to 8");
        }
        if self
            .phase_oversampling
            .iter()
            .any(|v| !(0.0..=4.0).contains(v))
        {
            return bad(
                "phase_oversampling",
                format!("{:?}", self.phase_oversampling),
                "0 to 4",
            );
        }
        if self.matrix.iter().any(|&n| n == 0 || n > 4096) || self.encoded_matrix()[0] > 32_000 {
            return bad(
                "matrix",
                format!("{:?}", self.matrix),
                "1 to 4096 along each axis",
            );
        }
        if self
            .field_of_view_mm
            .iter()
            .any(|v| !(v.is_finite() && *v > 0.0))
        {
            return bad(
                "field_of_view_mm",
                format!("{:?}", self.field_of_view_mm),
                "positive",
            );
        }
        if self.n_coils == 0 || self.n_coils > 256 {
            return bad("n_coils", self.n_coils.to_string(), "1 to 256");
        }
        if !(0.0..=20.0).contains(&self.coil_sharpness) {
            return bad("coil_sharpness", self.coil_sharpness.to_string(), "0 to 20");
        }
        if !(0.0..1.0).contains(&self.noise_correlation) {
            return bad(
                "noise_correlation",
                self.noise_correlation.to_string(),
                "0 up to, not including, 1",
            );
        }
        if !(self.noise_std >= 0.0 && self.noise_std.is_finite()) {
            return bad("noise_std", self.noise_std.to_string(), "0 or more");
        }
        if !(self.dwell_us > 0.0 && self.noise_dwell_us > 0.0 && self.noise_bandwidth_ratio > 0.0) {
            return bad(
                "dwell_us, noise_dwell_us, noise_bandwidth_ratio",
                format!(
                    "{}, {}, {}",
                    self.dwell_us, self.noise_dwell_us, self.noise_bandwidth_ratio
                ),
                "positive",
            );
        }
        if self.noise_samples > 65_535 || self.n_noise_readouts > 65_535 {
            return bad(
                "noise_samples, n_noise_readouts",
                format!("{}, {}", self.noise_samples, self.n_noise_readouts),
                "at most 65535",
            );
        }
        let fractions = [
            self.partial_fourier[0],
            self.partial_fourier[1],
            self.asymmetric_echo,
        ];
        if fractions.iter().any(|f| !(0.5..=1.0).contains(f)) {
            return bad(
                "partial_fourier, asymmetric_echo",
                format!("{fractions:?}"),
                "0.5 to 1",
            );
        }
        if self.discard.iter().any(|&d| d > 1000) {
            return bad("discard", format!("{:?}", self.discard), "at most 1000");
        }
        if let Sampling::Random { fraction, power } = self.sampling
            && !((0.0..=1.0).contains(&fraction) && (0.0..=20.0).contains(&power))
        {
            return bad(
                "sampling",
                format!("fraction {fraction}, power {power}"),
                "fraction 0 to 1, power 0 to 20",
            );
        }
        Ok(())
    }
}
