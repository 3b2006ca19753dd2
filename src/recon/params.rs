//! What a protocol may say about the reconstruction: one struct, checked before anything runs.

use serde::{Deserialize, Serialize};

use super::combine::CombineParams;
use super::compress::CompressParams;
use super::csm::CsmParams;
use super::error::ReconError;
use super::filter::FilterParams;
use super::grappa::GrappaParams;
use super::intensity::IntensityParams;
use super::partial_fourier::PartialFourierParams;
use super::sense::SenseParams;
use super::unrolled::UnrolledParams;

/// Reconstruction method.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Chosen from header and mask; the reason is printed and kept in the provenance.
    #[default]
    Auto,
    /// Fourier transform of what was measured, then coil combination.
    Fft,
    /// GRAPPA: missing lines (or the unmixing of folded images) from calibrated weights.
    Grappa,
    /// SENSE by exact unfolding of a regular pattern, with sensitivity maps.
    Sense,
    /// SENSE by conjugate gradients, for any mask, with sensitivity maps.
    CgSense,
    /// SENSE, then cascades of a network and of data consistency. Without the network, or the noise, the SENSE image goes out,
    /// marked.
    Unrolled,
}

impl Method {
    /// Name as the protocol spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Fft => "fft",
            Self::Grappa => "grappa",
            Self::Sense => "sense",
            Self::CgSense => "cg_sense",
            Self::Unrolled => "unrolled",
        }
    }
}

/// Maps wanted beside the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutputParams {
    /// Keep the g-factor map (parallel imaging only).
    pub gfactor: bool,
    /// Keep the coil sensitivity maps, at the image's matrix.
    pub csm: bool,
}

impl Default for OutputParams {
    fn default() -> Self {
        Self {
            gfactor: true,
            csm: false,
        }
    }
}

/// Parameters of the room `recon`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReconParams {
    /// `auto`, `fft`, `grappa`, `sense`, `cg_sense` or `unrolled`.
    pub method: Method,
    /// Coil compression in front of everything else.
    pub compress: CompressParams,
    /// Sensitivity maps for `sense`, `cg_sense`, `unrolled` and `combine.method = "csm"`.
    pub csm: CsmParams,
    /// The solver of `sense`, `cg_sense` and `unrolled`.
    pub sense: SenseParams,
    /// Network and cascades of `unrolled`.
    pub unrolled: UnrolledParams,
    /// GRAPPA calibration and application.
    pub grappa: GrappaParams,
    /// Coil combination of `fft` and `grappa`.
    pub combine: CombineParams,
    /// What to do when one side of k-space was not measured.
    pub partial_fourier: PartialFourierParams,
    /// K-space filter (apodisation).
    pub filter: FilterParams,
    /// Matrix of the image, voxels along x, y, z; absent: the header's recon matrix. The field of view is the
    /// header's recon field of view in any case. Each 1 to 4096; z must be 1 for 2D scans.
    pub matrix: Option<[usize; 3]>,
    /// Surface-coil intensity correction.
    pub intensity_correction: IntensityParams,
    /// Maps wanted beside the image.
    pub outputs: OutputParams,
}

impl ReconParams {
    /// Checks every value.
    ///
    /// # Errors
    /// [`ReconError::Parameter`] with key, value and what is allowed.
    pub fn check(&self) -> Result<(), ReconError> {
        self.compress.check()?;
        self.grappa.check()?;
        self.unrolled.check()?;
        if self.method == Method::Unrolled && self.csm.n_sets != 1 {
            return Err(ReconError::Parameter {
                key: "csm.n_sets",
                value: self.csm.n_sets.to_string(),
                allowed: "1 for method = \"unrolled\"",
            });
        }
        self.partial_fourier.check()?;
        self.filter.check()?;
        self.combine.check()?;
        self.intensity_correction.check()?;
        if let Some(matrix) = self.matrix
            && matrix.iter().any(|n| !(1..=4096).contains(n))
        {
            return Err(ReconError::Parameter {
                key: "matrix",
                value: format!("{matrix:?}"),
                allowed: "three numbers, each 1 to 4096",
            });
        }
        Ok(())
    }
}

/// `Ok` when `ok`, else the error that names the key.
pub(crate) fn require(
    ok: bool,
    key: &'static str,
    value: impl std::fmt::Display,
    allowed: &'static str,
) -> Result<(), ReconError> {
    if ok {
        return Ok(());
    }
    Err(ReconError::Parameter {
        key,
        value: value.to_string(),
        allowed,
    })
}
