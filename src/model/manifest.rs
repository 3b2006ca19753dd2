//! What is said of a network: the `model.toml` beside its weights.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Input, ModelError, RuntimeKind, Tensor};

/// A manifest. `scripts/train/README.md` has the contract of each kind.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// What it is for: `denoiser`, `synth_fs`, `synth_ct`. The stage that uses it checks the inputs and outputs of its kind.
    pub kind: String,
    /// File of the weights, in the manifest's own folder.
    pub file: String,
    /// SHA-256 of that file, in hexadecimal.
    pub sha256: String,
    /// Version of the ONNX operators.
    pub opset: Option<u32>,
    /// Numbers that were learned.
    pub parameters: Option<u64>,
    /// Licence of the weights.
    pub licence: String,
    /// What it is meant for, and what not.
    pub intended_use: String,
    /// Lengths of the last two axes are multiples of this.
    #[serde(default = "one")]
    pub size_multiple: usize,
    /// Slices that it sees at once.
    #[serde(default = "one")]
    pub slices: usize,
    /// Made to prove that the training runs: not for use.
    #[serde(default)]
    pub tiny: bool,
    /// Whether the training came to its end.
    #[serde(default = "yes")]
    pub complete: bool,
    /// Inputs by name.
    pub inputs: BTreeMap<String, Port>,
    /// Outputs by name.
    pub outputs: BTreeMap<String, Port>,
    /// What it was trained on, by what.
    pub training: toml::Table,
    /// What was measured.
    pub quality: toml::Table,
    /// Numbers that the stage needs of this network, by name: where it is to abstain.
    #[serde(default)]
    pub limits: BTreeMap<String, f32>,
    /// How it was trained to be used in an unrolled reconstruction, if it was.
    pub cascades: Option<Cascades>,
    /// The same weights for libtorch.
    pub torchscript: Option<TorchScript>,
}

/// A network that was trained through the cascades of an unrolled reconstruction.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cascades {
    /// How many there were.
    pub n: usize,
    /// What the predicted error after the last one is multiplied by, found on the validation family.
    pub sigma_ratio: f32,
}

/// A second file with the same weights.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TorchScript {
    /// File, in the manifest's own folder.
    pub file: String,
    /// SHA-256 of that file, in hexadecimal.
    pub sha256: String,
    /// Names of the arguments of its `forward`, in order.
    pub inputs: Vec<String>,
    /// Names of what that returns, in order.
    pub outputs: Vec<String>,
}

/// One input or output.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// `f32`.
    pub dtype: String,
    /// Lengths, the slowest axis first; axes of one name have one length.
    pub shape: Vec<Dim>,
    /// Units.
    pub units: String,
    /// What it is.
    pub meaning: String,
}

/// Length of an axis.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Dim {
    /// Always this.
    Fixed(usize),
    /// What the caller brings.
    Named(String),
}

/// Lengths of the named axes in one run.
pub(super) type Named<'a> = BTreeMap<&'a str, usize>;

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

impl Manifest {
    /// Parses and checks a manifest; `place` is its name in messages.
    pub(super) fn parse(text: &str, place: &str) -> Result<Self, ModelError> {
        let wrong = |what: String| ModelError::Manifest {
            place: place.to_owned(),
            what,
        };
        let manifest: Self = toml::from_str(text).map_err(|e| wrong(e.message().to_owned()))?;
        let files =
            std::iter::once(&manifest.file).chain(manifest.torchscript.iter().map(|t| &t.file));
        for file in files {
            // The manifest's own folder and nothing else: a manifest is data.
            if file.is_empty() || file.contains(['/', '\\']) || file == ".." {
                return Err(wrong(format!(
                    "file = {file:?}; needed: a name without a folder"
                )));
            }
        }
        let digests =
            std::iter::once(&manifest.sha256).chain(manifest.torchscript.iter().map(|t| &t.sha256));
        for digest in digests {
            if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong(format!(
                    "sha256 = {digest:?}; needed: 64 hexadecimal digits"
                )));
            }
        }
        if manifest.size_multiple == 0 || manifest.size_multiple > 1024 {
            return Err(wrong(format!(
                "size_multiple = {}; needed: 1 to 1024",
                manifest.size_multiple
            )));
        }
        if manifest.inputs.is_empty() || manifest.outputs.is_empty() {
            return Err(wrong("it has no inputs or no outputs".to_owned()));
        }
        for (name, port) in manifest.inputs.iter().chain(&manifest.outputs) {
            if port.dtype != "f32" {
                return Err(wrong(format!(
                    "{name}.dtype = {:?}; needed: \"f32\"",
                    port.dtype
                )));
            }
        }
        if let Some(script) = &manifest.torchscript {
            for (key, order, ports) in [
                ("inputs", &script.inputs, &manifest.inputs),
                ("outputs", &script.outputs, &manifest.outputs),
            ] {
                let mut sorted: Vec<_> = order.iter().collect();
                sorted.sort_unstable();
                if !sorted.into_iter().eq(ports.keys()) {
                    let names = ports.keys().cloned().collect::<Vec<_>>().join(", ");
                    return Err(wrong(format!(
                        "torchscript.{key} = {order:?}; needed: each of {names} once"
                    )));
                }
            }
        }
        let said = [
            ("name", &manifest.name),
            ("version", &manifest.version),
            ("licence", &manifest.licence),
            ("intended_use", &manifest.intended_use),
        ];
        if let Some((key, _)) = said.into_iter().find(|(_, v)| v.trim().is_empty()) {
            return Err(wrong(format!("{key} is empty")));
        }
        Ok(manifest)
    }

    /// Name, version and the beginning of the digest: what provenance says of it.
    pub fn id(&self) -> String {
        format!("{} {} ({})", self.name, self.version, &self.sha256[..12])
    }

    /// What libtorch needs to know.
    ///
    /// # Errors
    /// [`ModelError::NoTorchScript`].
    pub(super) fn script(&self) -> Result<&TorchScript, ModelError> {
        self.torchscript
            .as_ref()
            .ok_or_else(|| ModelError::NoTorchScript { model: self.id() })
    }

    /// The file that a run-time takes, and its digest.
    ///
    /// # Errors
    /// [`ModelError::NoTorchScript`].
    pub fn weights(&self, runtime: RuntimeKind) -> Result<(&str, &str), ModelError> {
        Ok(match runtime {
            RuntimeKind::Onnx => (&self.file, &self.sha256),
            RuntimeKind::Torch => {
                let script = self.script()?;
                (&script.file, &script.sha256)
            }
        })
    }

    pub(super) fn check_digest(
        &self,
        runtime: RuntimeKind,
        bytes: &[u8],
    ) -> Result<(), ModelError> {
        let (file, needed) = self.weights(runtime)?;
        let found = Sha256::digest(bytes)
            .iter()
            .fold(String::new(), |s, b| s + &format!("{b:02x}"));
        if found.eq_ignore_ascii_case(needed) {
            return Ok(());
        }
        Err(ModelError::Digest {
            model: format!("{} {}", self.name, self.version),
            file: file.to_owned(),
            found,
            needed: needed.to_owned(),
        })
    }

    fn wrong_shape(&self, port: String, found: String, needed: String) -> ModelError {
        ModelError::Shape {
            model: self.id(),
            port,
            found,
            needed,
        }
    }

    /// Every input once, of its shape; returns the lengths of the named axes.
    pub(super) fn check_inputs(&self, inputs: &[Input<'_>]) -> Result<Named<'_>, ModelError> {
        let mut named = Named::new();
        for (name, port) in &self.inputs {
            let mut of_name = inputs.iter().filter(|i| i.name == name);
            let (Some(input), None) = (of_name.next(), of_name.next()) else {
                let found = inputs.iter().map(|i| i.name).collect::<Vec<_>>().join(", ");
                return Err(self.wrong_shape(
                    "the list of inputs".into(),
                    found,
                    format!("each of them once, {name} too"),
                ));
            };
            if !port.fits(input.shape, &mut named)
                || input.shape.iter().product::<usize>() != input.data.len()
            {
                let found = format!("{:?} with {} values", input.shape, input.data.len());
                return Err(self.wrong_shape(
                    format!("input {name}"),
                    found,
                    format!("{port} with {named:?}"),
                ));
            }
        }
        if inputs.len() != self.inputs.len() {
            return Err(self.wrong_shape(
                "the number of inputs".into(),
                inputs.len().to_string(),
                self.inputs.len().to_string(),
            ));
        }
        Ok(named)
    }

    /// Every output, in the order of their names.
    pub(super) fn check_outputs(
        &self,
        outputs: &[Tensor],
        named: &Named<'_>,
    ) -> Result<(), ModelError> {
        for (i, (name, port)) in self.outputs.iter().enumerate() {
            let found = outputs.get(i);
            let is_right = found.is_some_and(|t| {
                port.fits(&t.shape, &mut named.clone())
                    && t.shape.iter().product::<usize>() == t.data.len()
            });
            if !is_right {
                let found = found.map_or("missing".into(), |t| format!("{:?}", t.shape));
                return Err(self.wrong_shape(
                    format!("output {name}"),
                    found,
                    format!("{port} with {named:?}"),
                ));
            }
        }
        Ok(())
    }
}

impl Port {
    /// Whether a shape is this one; names that are met for the first time take its lengths.
    fn fits<'a>(&'a self, shape: &[usize], named: &mut Named<'a>) -> bool {
        shape.len() == self.shape.len()
            && self.shape.iter().zip(shape).all(|(dim, &n)| match dim {
                Dim::Fixed(needed) => *needed == n,
                Dim::Named(name) => *named.entry(name).or_insert(n) == n,
            })
    }

    /// The shape, if every length is known.
    pub(super) fn shape(&self, named: &Named<'_>) -> Option<Vec<usize>> {
        let length = |dim: &Dim| match dim {
            Dim::Fixed(n) => Some(*n),
            Dim::Named(name) => named.get(name.as_str()).copied(),
        };
        self.shape.iter().map(length).collect()
    }

    /// Whether a graph's shape, with -1 for what the caller brings, can be this one.
    pub(super) fn may_be(&self, shape: &[i64]) -> bool {
        shape.len() == self.shape.len()
            && self.shape.iter().zip(shape).all(|(dim, &n)| match dim {
                Dim::Fixed(needed) => n < 0 || usize::try_from(n) == Ok(*needed),
                Dim::Named(_) => n < 0,
            })
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dims: Vec<String> = self
            .shape
            .iter()
            .map(|d| match d {
                Dim::Fixed(n) => n.to_string(),
                Dim::Named(name) => name.clone(),
            })
            .collect();
        write!(f, "[{}]", dims.join(", "))
    }
}
