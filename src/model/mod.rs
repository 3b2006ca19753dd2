//! Networks: files in, functions out. Knows no MR.
//!
//! A [`Model`] is a file of weights that its [`Manifest`] describes: digest, inputs and outputs by name with shapes and
//! units, training data, licence, intended use, measured quality. It is loaded once and run often, by ONNX Runtime
//! (`onnx`), or by libtorch, a plug-in (`torch`, whose package is the folder of that name); each is found when the first network
//! asks for it. Both take and give plain tensors and agree to 1e-4 of each output's root mean square.
//!
//! Nothing in a file is believed: the digest is checked before a run-time sees the bytes, the shapes after; a run-time's
//! panic is an error here.

mod denoiser;
mod error;
mod manifest;
mod onnx;
mod tiles;
mod torch;

pub use denoiser::{Answer, Beside, Denoiser};
pub use error::ModelError;
use manifest::Named;
pub use manifest::{Dim, Manifest, Port};
pub use onnx::{library, library_version};
pub use tiles::{Tile, Tiles};
pub use torch::{plugin, plugin_version};

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

/// Models that are part of the program, by name.
const SHIPPED: [(&str, &str, &[u8]); 4] = [
    (
        "denoiser",
        include_str!("shipped/denoiser/model.toml"),
        include_bytes!("shipped/denoiser/model.onnx"),
    ),
    (
        "unrolled",
        include_str!("shipped/unrolled/model.toml"),
        include_bytes!("shipped/unrolled/model.onnx"),
    ),
    (
        "synth_fs",
        include_str!("shipped/synth_fs/model.toml"),
        include_bytes!("shipped/synth_fs/model.onnx"),
    ),
    (
        "synth_ct",
        include_str!("shipped/synth_ct/model.toml"),
        include_bytes!("shipped/synth_ct/model.onnx"),
    ),
];

/// Largest manifest and largest file of weights that is read, bytes.
const MANIFEST_LIMIT: u64 = 1 << 20;
const WEIGHTS_LIMIT: u64 = 2 << 30;

/// A dense tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Lengths, the slowest axis first.
    pub shape: Vec<usize>,
    /// Values.
    pub data: Vec<f32>,
}

/// One input of a run.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Name in the manifest.
    pub name: &'a str,
    /// Lengths, the slowest axis first.
    pub shape: &'a [usize],
    /// Values, as many as the shape has.
    pub data: &'a [f32],
}

/// What runs networks; protocol key `denoise.runtime`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeKind {
    /// ONNX Runtime.
    #[default]
    Onnx,
    /// libtorch, which needs a manifest with `[torchscript]`.
    Torch,
}

/// What runs a file of weights.
trait Runtime: Send + Sync {
    /// Name and version of the run-time.
    fn describe(&self) -> &str;

    /// One run; outputs in the order of their names. The inputs are those of the manifest, whose named axes have the lengths
    /// `named`.
    fn run(
        &self,
        manifest: &Manifest,
        named: &Named<'_>,
        inputs: &[Input<'_>],
    ) -> Result<Vec<Tensor>, String>;
}

/// A network that is loaded and may be run by several threads, one after the other.
pub struct Model {
    manifest: Manifest,
    kind: RuntimeKind,
    runtime: Box<dyn Runtime>,
    threads: usize,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.manifest.id(), self.runtime.describe())
    }
}

impl Model {
    /// Names of the models that are part of the program.
    pub fn shipped() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|(name, ..)| *name)
    }

    /// Manifest of a model: the name of one that ships, or the path of a `.toml`.
    ///
    /// # Errors
    /// [`ModelError`]: no such model; what is wrong with its manifest.
    pub fn describe(which: &str) -> Result<Manifest, ModelError> {
        Ok(find(which)?.0)
    }

    /// Loads a model: the name of one that ships, or the path of a manifest. `threads`: of one run.
    ///
    /// # Errors
    /// [`ModelError`]: no such model, manifest, digest, run-time, weights, or a graph that is not as the manifest says.
    pub fn load(which: &str, kind: RuntimeKind, threads: usize) -> Result<Self, ModelError> {
        let (manifest, place) = find(which)?;
        let (file, _) = manifest.weights(kind)?;
        let bytes = match place {
            // Ships with ONNX alone: what has another file has a manifest in a folder.
            Place::Here(bytes) => bytes.into(),
            Place::Beside(path) => {
                std::borrow::Cow::Owned(read(&path.with_file_name(file), WEIGHTS_LIMIT)?)
            }
        };
        manifest.check_digest(kind, &bytes)?;
        let threads = threads.max(1);
        let runtime: Box<dyn Runtime> = match kind {
            RuntimeKind::Onnx => Box::new(onnx::load(&manifest, &bytes, threads)?),
            RuntimeKind::Torch => {
                Box::new(torch::load(torch::loaded()?, &manifest, &bytes, threads)?)
            }
        };
        Ok(Self {
            manifest,
            kind,
            runtime,
            threads,
        })
    }

    /// What it is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Threads of one run.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// What kind of run-time it is loaded for.
    pub fn kind(&self) -> RuntimeKind {
        self.kind
    }

    /// Name and version of what runs it.
    pub fn runtime(&self) -> &str {
        self.runtime.describe()
    }

    /// One run; outputs in the order of their names.
    ///
    /// # Errors
    /// [`ModelError::Shape`]: an input is missing, or not of the manifest's shape, or an output is not;
    /// [`ModelError::Run`]: the run-time failed.
    pub fn run(&self, inputs: &[Input<'_>]) -> Result<Vec<Tensor>, ModelError> {
        let named = self.manifest.check_inputs(inputs)?;
        let outputs =
            caught(|| self.runtime.run(&self.manifest, &named, inputs)).map_err(|what| {
                ModelError::Run {
                    model: self.manifest.id(),
                    what,
                }
            })?;
        self.manifest.check_outputs(&outputs, &named)?;
        Ok(outputs)
    }
}

/// What a run-time says, its panics among it. What it was working on is not used again.
fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Err(format!("it panicked: {}", text.unwrap_or_default()))
    })
}

/// Where a network's files are.
enum Place {
    /// In the program: its ONNX file.
    Here(&'static [u8]),
    /// Beside this manifest.
    Beside(PathBuf),
}

fn find(which: &str) -> Result<(Manifest, Place), ModelError> {
    if let Some((name, text, bytes)) = SHIPPED.iter().find(|(name, ..)| *name == which) {
        return Ok((Manifest::parse(text, name)?, Place::Here(bytes)));
    }
    let path = Path::new(which);
    if path.extension().is_none_or(|e| e != "toml") {
        return Err(ModelError::Unknown {
            found: which.to_owned(),
            shipped: Model::shipped().collect::<Vec<_>>().join(", "),
        });
    }
    let text =
        String::from_utf8(read(path, MANIFEST_LIMIT)?).map_err(|_| ModelError::Manifest {
            place: which.to_owned(),
            what: "it is not text".to_owned(),
        })?;
    let manifest = Manifest::parse(&text, which)?;
    Ok((manifest, Place::Beside(path.to_owned())))
}

/// What is loaded once per process. A machine where it is missing may get it later: only success is kept.
struct Once<T> {
    kept: OnceLock<T>,
    turn: Mutex<()>,
}

impl<T> Once<T> {
    const fn new() -> Self {
        Self {
            kept: OnceLock::new(),
            turn: Mutex::new(()),
        }
    }

    fn get(&self, load: impl FnOnce() -> Result<T, ModelError>) -> Result<&T, ModelError> {
        let _turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(kept) = self.kept.get() {
            return Ok(kept);
        }
        let loaded = load()?;
        Ok(self.kept.get_or_init(|| loaded))
    }
}

/// Where scripts put what is called `name`, for every program of the user.
fn installed(name: &str) -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    // A folder that depends on where one stands is nobody's installation.
    let data = variable("XDG_DATA_HOME")
        .filter(|p| p.is_absolute())
        .or_else(|| Some(variable("HOME")?.join(".local/share")).filter(|p| p.is_absolute()))?;
    Some(data.join("cauda").join(name))
}

/// Where a library of the program may lie: beside it, in a folder `name` there, where scripts put it.
fn folders(name: &str) -> Vec<PathBuf> {
    let program = std::env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent);
    let beside = beside
        .into_iter()
        .flat_map(|p| [p.to_owned(), p.join(name)]);
    beside.chain(installed(name)).collect()
}

/// Folders in a sentence.
fn said(folders: &[PathBuf]) -> String {
    let said: Vec<_> = folders.iter().map(|p| p.display().to_string()).collect();
    said.join(", ")
}

/// A whole file of at most `limit` bytes.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ModelError> {
    use std::io::Read;
    let unreadable = |source| ModelError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(ModelError::TooLarge {
            path: path.to_owned(),
            limit_mib: limit >> 20,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
