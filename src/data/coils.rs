//! What is known about the receive coils: noise, whitening, sensitivity.

use num_complex::{Complex32, Complex64};

/// Noise covariance of the receive coils.
///
/// # Shapes
/// `[coil, coil]`, Hermitian, row-major.
///
/// # Units
/// Receiver counts squared, per complex sample (`E[n nᴴ]`), at `dwell_us`.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseCovariance {
    /// Coils.
    pub n_coils: usize,
    /// Row-major entries.
    pub matrix: Vec<Complex64>,
    /// Complex samples per coil that went into the estimate.
    pub n_samples: u64,
    /// Dwell time of the noise readouts, microseconds; `None` if the file does not say.
    pub dwell_us: Option<f64>,
}

/// Matrix that turns coil samples into samples with unit noise per component, lower triangular `[coil, coil]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Whitening {
    /// Coils.
    pub n_coils: usize,
    /// Row-major entries.
    pub matrix: Vec<Complex32>,
}

/// Coil sensitivity maps.
///
/// # Shapes
/// `[set, coil, z, y, x]`, x contiguous. Where there is no signal to say, all coils are zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Csm {
    /// Sets of maps (1, or 2 for scans with folding inside the field of view).
    pub n_sets: usize,
    /// Coils.
    pub n_coils: usize,
    /// z, y, x.
    pub matrix: [usize; 3],
    /// Sensitivities, dimensionless; over the coils of one set their squares sum to 1 (soft-SENSE: to at most 1).
    pub maps: Vec<Complex32>,
}
