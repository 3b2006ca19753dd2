//! Keys of `[synth]`.

use serde::{Deserialize, Serialize};

use super::SynthError;
use crate::data::SyntheticKind;
use crate::model::RuntimeKind;

/// Keys of `[synth]`. Without this table no contrast is made up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SynthParams {
    /// What is made from T1w and T2w: "stir", "t2fs", "ct".
    pub want: Vec<SyntheticKind>,
    /// Network of STIR and T2FS: the name of one that ships ("synth_fs"), or the path of a manifest of the same contract.
    pub fs_model: String,
    /// Network of CT: the name of one that ships ("synth_ct"), or the path of a manifest of the same contract.
    pub ct_model: String,
    /// What runs them: "onnx" is ONNX Runtime, "torch" libtorch.
    pub runtime: RuntimeKind,
    /// Repetition time of the STIR that is made, ms. 500 to 20000.
    pub stir_tr_ms: f32,
    /// Its echo time, ms. 5 to 200.
    pub stir_te_ms: f32,
    /// Its inversion time, ms; 0 is what nulls fat at the field of the scan (160 at 1.5 T, 220 at 3 T). 0 to 1000.
    pub stir_ti_ms: f32,
    /// Its echo spacing, ms. 2 to 30.
    pub stir_esp_ms: f32,
    /// Repetition time of the T2FS that is made, ms. 500 to 20000.
    pub t2fs_tr_ms: f32,
    /// Its echo time, ms. 5 to 200.
    pub t2fs_te_ms: f32,
    /// Share of the fat that saturation leaves; the network that ships has seen 0.1. 0 to 1.
    pub t2fs_residual_fat: f32,
    /// Seconds that a server keeps a series for the others of its study; then the set is given up, with a mark. 1 to 86400.
    pub wait_s: f32,
    /// Largest displacement between the series that is corrected, mm along an axis; beyond it what needs both is refused. 0 to 20.
    pub max_shift_mm: f64,
    /// Largest rotation, degrees about an axis. 0 to 20.
    pub max_rotation_deg: f64,
}

impl Default for SynthParams {
    fn default() -> Self {
        Self {
            want: SyntheticKind::ALL.to_vec(),
            fs_model: "synth_fs".to_owned(),
            ct_model: "synth_ct".to_owned(),
            runtime: RuntimeKind::Onnx,
            stir_tr_ms: 4000.0,
            stir_te_ms: 60.0,
            stir_ti_ms: 0.0,
            stir_esp_ms: 10.0,
            t2fs_tr_ms: 3500.0,
            t2fs_te_ms: 80.0,
            t2fs_residual_fat: 0.1,
            wait_s: 1800.0,
            max_shift_mm: 5.0,
            max_rotation_deg: 5.0,
        }
    }
}

impl SynthParams {
    /// Checks ranges.
    ///
    /// # Errors
    /// [`SynthError::Params`] names the key, what was found and what is allowed.
    pub fn check(&self) -> Result<(), SynthError> {
        let wrong = |key, found: String, allowed| {
            Err(SynthError::Params {
                key,
                found,
                allowed,
            })
        };
        if self.want.is_empty() {
            return wrong("want", "nothing".to_owned(), "stir, t2fs, ct");
        }
        let mut sorted = self.want.clone();
        sorted.sort();
        if sorted.windows(2).any(|w| w[0] == w[1]) {
            return wrong("want", format!("{:?}", self.want), "each of them once");
        }
        for (key, value, [low, high], allowed) in [
            ("stir_tr_ms", self.stir_tr_ms, [500.0, 2e4], "500 to 20000"),
            ("stir_te_ms", self.stir_te_ms, [5.0, 200.0], "5 to 200"),
            ("stir_ti_ms", self.stir_ti_ms, [0.0, 1e3], "0 to 1000"),
            ("stir_esp_ms", self.stir_esp_ms, [2.0, 30.0], "2 to 30"),
            ("t2fs_tr_ms", self.t2fs_tr_ms, [500.0, 2e4], "500 to 20000"),
            ("t2fs_te_ms", self.t2fs_te_ms, [5.0, 200.0], "5 to 200"),
            (
                "t2fs_residual_fat",
                self.t2fs_residual_fat,
                [0.0, 1.0],
                "0 to 1",
            ),
            ("wait_s", self.wait_s, [1.0, 86400.0], "1 to 86400"),
        ] {
            if !(low..=high).contains(&value) {
                return wrong(key, value.to_string(), allowed);
            }
        }
        for (key, value) in [
            ("max_shift_mm", self.max_shift_mm),
            ("max_rotation_deg", self.max_rotation_deg),
        ] {
            if !(0.0..=20.0).contains(&value) {
                return wrong(key, value.to_string(), "0 to 20");
            }
        }
        for (key, value) in [("fs_model", &self.fs_model), ("ct_model", &self.ct_model)] {
            if value.is_empty() {
                return wrong(
                    key,
                    "nothing".to_owned(),
                    "a name that ships, or the path of a manifest",
                );
            }
        }
        Ok(())
    }

    /// The inversion time that is meant at a field.
    pub fn ti_ms(&self, field_strength_t: f32) -> f32 {
        if self.stir_ti_ms > 0.0 {
            self.stir_ti_ms
        } else if field_strength_t < 2.0 {
            160.0
        } else {
            220.0
        }
    }
}
