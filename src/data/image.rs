//! Reconstructed images, complex and with their noise.

use num_complex::Complex32;

use super::{AcquisitionStamps, Csm, FrameKey, Geometry, Provenance, Synthetic};

/// What a voxel value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intensity {
    /// Linear in the signal, unknown factor, unknown noise.
    Arbitrary,
    /// Linear in the signal; `noise_std` gives the noise of each voxel in the same unit.
    WithNoise,
}

/// One reconstructed image or 3D slab.
///
/// # Shapes
/// Every map is `[z, y, x]` of `geometry.matrix`, x contiguous.
#[derive(Clone, Debug)]
pub struct ReconImage {
    /// Which image.
    pub key: FrameKey,
    /// Where it lies.
    pub geometry: Geometry,
    /// Table position, mm.
    pub table_position_mm: [f32; 3],
    /// Complex voxels.
    pub voxels: Vec<Complex32>,
    /// What the voxels mean.
    pub intensity: Intensity,
    /// Standard deviation of the noise in the real (and in the imaginary) part of each voxel;
    /// `None` exactly when `intensity` is `Arbitrary`. `|voxels| / noise_std` is the image in SNR units.
    pub noise_std: Option<Vec<f32>>,
    /// Noise amplification by parallel imaging against the fully sampled scan, at least 1; `None` if the method
    /// gives none.
    pub gfactor: Option<Vec<f32>>,
    /// Voxels per measured voxel along x, y, z: above 1 the noise of neighbours is alike.
    pub finer: [f32; 3],
    /// What a network took away; `None`: no network has touched the image.
    pub denoised: Option<Denoised>,
    /// The mark of an image that was not measured; `None`: it was. Whatever is made from a marked image is marked.
    pub synthetic: Option<Box<Synthetic>>,
    /// Sensitivity maps at the image's matrix, if asked for.
    pub csm: Option<Csm>,
    /// Vendor clocks.
    pub stamps: AcquisitionStamps,
    /// How it came to be.
    pub provenance: Provenance,
}

/// What a network did to an image. Both maps are `[z, y, x]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Denoised {
    /// Image as measured minus image as it is.
    pub removed: Vec<Complex32>,
    /// Standard deviation of the error that is left in the real (and in the imaginary) part, as the network predicts it.
    pub sigma: Vec<f32>,
}
