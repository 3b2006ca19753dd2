//! What may be wrong with a network.

use std::path::PathBuf;

use crate::data::fault::advice;
use crate::data::{Fault, FaultKind};

/// What may be wrong with a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Neither a name that ships nor a manifest.
    #[error(
        "no model is named \"{found}\"\n  there are: {shipped}\n  try:    one of these, or the path of a manifest (model.toml)"
    )]
    Unknown {
        /// What was asked for.
        found: String,
        /// Names.
        shipped: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}{}", path.display(), advice(source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that nobody meant to load.
    #[error("{}: more than {limit_mib} MiB, which is all that is read of such a file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit_mib: u64,
    },
    /// A manifest that is not one.
    #[error(
        "manifest of the model {place}: {what}\n  try:    scripts/train/README.md tells what a manifest holds"
    )]
    Manifest {
        /// Name or path.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// Weights that are not those of the manifest.
    #[error(
        "model {model}: {file} has the digest {found}, the manifest says {needed}\n  try:    copy both files again; a \
         model that was trained anew has a new manifest"
    )]
    Digest {
        /// Name and version.
        model: String,
        /// The file of weights.
        file: String,
        /// Of the file.
        found: String,
        /// Of the manifest.
        needed: String,
    },
    /// No run-time on this machine.
    #[error(
        "ONNX Runtime is not here: {why}\n  try:    scripts/onnxruntime.sh, or CAUDA_ONNXRUNTIME=/path/to/libonnxruntime.so"
    )]
    NoRuntime {
        /// What was looked for, and found.
        why: String,
    },
    /// No plug-in on this machine, or none that can be used.
    #[error(
        "the libtorch plug-in cannot be used: {why}\n  try:    scripts/torch.sh, then CAUDA_TORCH=target/torch/libcauda_torch.so"
    )]
    NoPlugin {
        /// What was looked for, and found.
        why: String,
    },
    /// The manifest has no file for libtorch.
    #[error(
        "model {model}: its manifest has no [torchscript], the file that libtorch runs\n  try:    scripts/torch.sh, which makes one of the denoiser that ships, then denoise.model = \"target/torch/model.toml\"; or denoise.runtime = \"onnx\""
    )]
    NoTorchScript {
        /// Name, version, digest.
        model: String,
    },
    /// The run-time refused the weights.
    #[error("model {model}: {runtime} cannot load it: {what}")]
    Load {
        /// Name, version, digest.
        model: String,
        /// Name and version.
        runtime: String,
        /// Its words.
        what: String,
    },
    /// Another kind of network than is asked for.
    #[error(
        "model {model}: not the network that is asked for: {what}\n  try:    scripts/train/README.md has the contract"
    )]
    Contract {
        /// Name, version, digest.
        model: String,
        /// What is missing.
        what: String,
    },
    /// Not the shape of the manifest.
    #[error("model {model}: {port} is {found}, the manifest says {needed}")]
    Shape {
        /// Name, version, digest.
        model: String,
        /// Input or output.
        port: String,
        /// What it is.
        found: String,
        /// What it must be.
        needed: String,
    },
    /// The run-time failed.
    #[error("model {model}: the run failed: {what}")]
    Run {
        /// Name, version, digest.
        model: String,
        /// Its words.
        what: String,
    },
}

impl From<ModelError> for Fault {
    fn from(e: ModelError) -> Self {
        Self {
            kind: FaultKind::Model,
            room: "model",
            message: e.to_string(),
            source: Some(Box::new(e)),
        }
    }
}
