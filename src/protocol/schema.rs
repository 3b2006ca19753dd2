//! What may be typed: every table and key of a protocol file. The doc comment of a key is its entry in
//! `protocols/README.md` and in `cauda protocol explain`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::denoise::DenoiseParams;
use crate::device::{Backend, Policy};
use crate::handoff::HandoffParams;
use crate::ingest::IngestParams;
use crate::recon::ReconParams;
use crate::sequence::SequenceParams;
use crate::synth::SynthParams;

use super::{ProtocolError, overlay::one_line, registry::nearest};

/// A protocol as typed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProtocolFile {
    /// Version of this format. Required; 1.
    pub schema: u32,
    /// One line for people. Required.
    pub title: String,
    /// What results may be used for. Required; only "research" exists: Cauda is not a medical device.
    pub intended_use: IntendedUse,
    /// What must be true of the scan's header, else the scan is refused. A key that is absent asks for nothing.
    #[serde(default)]
    pub scan: ScanRequirements,
    /// What the scanner plays: for `cauda simulate --protocol`, `cauda protocol time` and `compare`. A protocol without
    /// this table is only a reconstruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<SequenceParams>,
    /// Where and with how much of the machine to run.
    #[serde(default)]
    pub device: DevicePrefs,
    /// From readouts to k-space: noise, whitening, averages, lines that do not fit.
    #[serde(default)]
    pub ingest: IngestParams,
    /// From k-space to images.
    #[serde(default)]
    pub recon: ReconParams,
    /// A network that takes noise away. Without this table none touches an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denoise: Option<DenoiseParams>,
    /// Networks that make STIR, T2FS and CT from T1w and T2w, every one of them marked as synthetic. Without this table no
    /// contrast is made up. A server makes them when the last series of a study is in; files are for `cauda synth`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synth: Option<SynthParams>,
    /// From images to files. The ending of the output's name says which format.
    #[serde(default)]
    pub handoff: HandoffParams,
    /// How the chain runs.
    #[serde(default)]
    pub pipeline: PipelineParams,
}

/// What results may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntendedUse {
    /// Research, never diagnosis or treatment.
    Research,
}

/// What must be true of the header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScanRequirements {
    /// Trajectory that the header must state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trajectory: Option<Trajectory>,
    /// Acceleration that the header must state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acceleration: Option<Acceleration>,
    /// 2 for slices, 3 for slabs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u8>,
    /// Fewest receive coils.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_coils: Option<u16>,
}

/// Trajectories that a protocol can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trajectory {
    /// Lines on a grid.
    Cartesian,
}

/// Acceleration along both phase-encoding axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Acceleration {
    /// Along the first phase-encoding axis.
    pub pe1: usize,
    /// Along the second phase-encoding axis.
    #[serde(default = "one")]
    pub pe2: usize,
}

fn one() -> usize {
    1
}

/// Where to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DevicePrefs {
    /// Where operators run: "auto" takes a card where there is one with kernels for what is asked, "cuda" refuses to run
    /// without one. Each image says where it was made.
    pub prefer: Backend,
    /// What a scan does whose card fails: "fail" ends it with what the card said; "finish_on_cpu" reconstructs the frame
    /// and the rest on the CPU, and each image says so.
    pub on_cuda_fault: Policy,
    /// Threads in all; 0 is every core. `--threads` on the command line goes before it.
    pub threads: usize,
    /// Memory for k-space and working memory, MiB; 0 is three quarters of the machine's.
    pub memory_budget_mib: u64,
}

impl Default for DevicePrefs {
    fn default() -> Self {
        Self {
            prefer: Backend::Auto,
            on_cuda_fault: Policy::Fail,
            threads: 0,
            memory_budget_mib: 0,
        }
    }
}

/// How the chain runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PipelineParams {
    /// Complete k-space that may wait for reconstruction, MiB; reading stops until there is room.
    pub queue_mib: u64,
    /// What a frame that cannot be reconstructed does to the scan: "fail" ends it and nothing is delivered;
    /// "deliver_rest" delivers the other images, marks each of them, and ends with exit code 1.
    pub on_frame_error: OnFrameError,
    /// Non-finite values (NaN, infinity) tolerated per frame after ingest and per image after reconstruction.
    /// Nothing is replaced; above this count the frame is refused.
    pub max_non_finite: u64,
    /// Seconds from a frame's last readout to its image that the site asks for; 0 is no deadline. A miss is counted
    /// and noted in the image.
    pub deadline_s: f64,
}

impl Default for PipelineParams {
    fn default() -> Self {
        Self {
            queue_mib: 512,
            on_frame_error: OnFrameError::Fail,
            max_non_finite: 0,
            deadline_s: 0.0,
        }
    }
}

/// What a refused frame does to the scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFrameError {
    /// Ends it.
    Fail,
    /// The rest is delivered, marked.
    DeliverRest,
}

/// Reads the table; an error names the dotted key and what is allowed.
pub(super) fn from_table(name: &str, table: toml::Table) -> Result<ProtocolFile, ProtocolError> {
    serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|e| {
        let path = e.path().to_string();
        let (key, message) = sharpen(&path, &e.inner().to_string());
        ProtocolError::Key {
            protocol: name.to_owned(),
            key,
            message,
        }
    })
}

/// Makes key and message of serde's words: adds the nearest allowed word to "unknown field `x`, expected one of `a`, `b`",
/// and the field to the key.
pub fn sharpen(path: &str, message: &str) -> (String, String) {
    let message = one_line(message);
    // toml repeats the path at the end, in words of its own.
    let message = message
        .rsplit_once(" in `")
        .filter(|(_, tail)| tail.ends_with('`'))
        .map_or(message.as_str(), |(words, _)| words);
    let mut quoted = message.split('`').skip(1).step_by(2);
    let kind = ["unknown field", "unknown variant"]
        .iter()
        .find(|k| message.starts_with(**k));
    let (Some(kind), Some(word)) = (kind, quoted.next()) else {
        let key = if path == "." { "the file" } else { path };
        return (key.to_owned(), message.to_owned());
    };
    let allowed: Vec<&str> = quoted.collect();
    let hint = nearest(word, allowed.iter().copied())
        .map_or_else(String::new, |n| format!("; did you mean {n}?"));
    let list = allowed.join(", ");
    if *kind == "unknown field" {
        // serde_path_to_error may or may not have the unknown field at the end of the path already.
        let parent = path
            .strip_suffix(word)
            .map_or(path, |p| p.trim_end_matches('.'));
        let key = match parent {
            "." | "" => word.to_owned(),
            parent => format!("{parent}.{word}"),
        };
        (key, format!("no such key{hint}; keys here: {list}"))
    } else {
        (
            path.to_owned(),
            format!("{word:?} is not allowed{hint}; allowed: {list}"),
        )
    }
}

/// Defaults of every table, as a tree.
pub(super) fn defaults() -> serde_json::Value {
    let file = ProtocolFile {
        schema: 1,
        title: String::new(),
        intended_use: IntendedUse::Research,
        scan: ScanRequirements::default(),
        sequence: Some(SequenceParams::default()),
        device: DevicePrefs::default(),
        ingest: IngestParams::default(),
        recon: ReconParams::default(),
        denoise: Some(DenoiseParams::default()),
        synth: Some(SynthParams::default()),
        handoff: HandoffParams::default(),
        pipeline: PipelineParams::default(),
    };
    let mut tree = serde_json::to_value(file).unwrap_or_default();
    if let Some(map) = tree.as_object_mut() {
        // Required keys have no default.
        for key in ["schema", "title", "intended_use"] {
            map.remove(key);
        }
    }
    tree
}
