//! Why an image was not denoised. It goes out as measured, with this as its mark.

use crate::data::{Fault, FaultKind};
use crate::model::ModelError;

/// Why an image was not denoised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DenoiseError {
    /// A key out of its range.
    #[error("{key}: found {found}; allowed: {allowed}")]
    Params {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// Its range.
        allowed: &'static str,
    },
    /// Nobody knows how strong the noise is.
    #[error(
        "the noise of its voxels is not known; a scan with noise readouts, a noise file or ingest.noise_from_edges is needed"
    )]
    NoNoise,
    /// Magnitudes: their noise is not Gaussian.
    #[error(
        "it is a magnitude image (root sum of squares): its noise is not that of complex images"
    )]
    NotComplex,
    /// A network has touched it already.
    #[error("the reconstruction has used a network on it already")]
    Twice,
    /// A neighbour of another size.
    #[error("a neighbouring slice has {found} voxels, this one {needed}")]
    Shape {
        /// Its voxels.
        found: usize,
        /// Those of the image.
        needed: usize,
    },
    /// The network's answer is no image.
    #[error("{count} values of the network's answer are NaN or infinite")]
    NotFinite {
        /// How many.
        count: usize,
    },
    /// The network failed.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl From<DenoiseError> for Fault {
    fn from(e: DenoiseError) -> Self {
        let kind = match e {
            DenoiseError::Params { .. } => FaultKind::Protocol,
            DenoiseError::NoNoise
            | DenoiseError::NotComplex
            | DenoiseError::Twice
            | DenoiseError::Shape { .. } => FaultKind::Unsupported,
            _ => FaultKind::Model,
        };
        Self {
            kind,
            room: "denoise",
            message: e.to_string(),
            source: Some(Box::new(e)),
        }
    }
}
