//! Keys of `[denoise]`.

use serde::{Deserialize, Serialize};

use super::DenoiseError;
use crate::model::RuntimeKind;

/// Keys of `[denoise]`. Without this table no network touches an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DenoiseParams {
    /// The network: the name of one that ships ("denoiser"), or the path of a manifest (`model.toml`) of the same contract.
    pub model: String,
    /// What runs it: "onnx" is ONNX Runtime; "torch" is libtorch, which needs the plug-in and a `model` made by
    /// `scripts/torch.sh`. Their answers agree to 1e-4 of the image's rms.
    pub runtime: RuntimeKind,
    /// 0 leaves the image as measured, 1 is the network's answer, between them both are mixed.
    pub strength: f32,
    /// Largest plane that goes through the network in one piece, voxels along a side, 128 to 4096; larger ones in overlapping
    /// tiles.
    pub tile: usize,
    /// Seconds that an image of a scan still running waits for its neighbouring slices; then it goes without. 0 to 600.
    pub wait_s: f32,
    /// Share of the body's voxels around which what was removed may stand out from noise; above it the image is marked
    /// `denoise_structured`. 0 to 1.
    pub structure_limit: f32,
}

impl Default for DenoiseParams {
    fn default() -> Self {
        Self {
            model: "denoiser".to_owned(),
            runtime: RuntimeKind::Onnx,
            strength: 1.0,
            tile: 512,
            wait_s: 5.0,
            structure_limit: 1e-3,
        }
    }
}

impl DenoiseParams {
    /// Checks ranges.
    ///
    /// # Errors
    /// [`DenoiseError::Params`] names the key, what was found and what is allowed.
    pub fn check(&self) -> Result<(), DenoiseError> {
        let wrong = |key, found: String, allowed| {
            Err(DenoiseError::Params {
                key,
                found,
                allowed,
            })
        };
        if !(0.0..=1.0).contains(&self.strength) {
            return wrong("strength", self.strength.to_string(), "0 to 1");
        }
        if !(128..=4096).contains(&self.tile) {
            return wrong("tile", self.tile.to_string(), "128 to 4096");
        }
        if !(0.0..=600.0).contains(&self.wait_s) {
            return wrong("wait_s", self.wait_s.to_string(), "0 to 600");
        }
        if !(0.0..=1.0).contains(&self.structure_limit) {
            return wrong(
                "structure_limit",
                self.structure_limit.to_string(),
                "0 to 1",
            );
        }
        if self.model.is_empty() {
            return wrong(
                "model",
                "nothing".to_owned(),
                "a name that ships, or the path of a manifest",
            );
        }
        Ok(())
    }
}
