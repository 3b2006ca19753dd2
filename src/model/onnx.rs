//! ONNX Runtime, found when the first network is asked for. One environment for the process, as the library wants it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ort::environment::Environment;
use ort::session::{Session, SessionInputValue};
use ort::value::TensorRef;

use super::manifest::Named;
use super::{Input, Manifest, ModelError, Once, Runtime, Tensor, caught, folders, said};

/// Where the library is said to be.
const VARIABLE: &str = "CAUDA_ONNXRUNTIME";

struct Loaded {
    environment: Environment,
    version: String,
}

fn runtime() -> Result<&'static Loaded, ModelError> {
    static LOADED: Once<Loaded> = Once::new();
    LOADED.get(open)
}

fn open() -> Result<Loaded, ModelError> {
    let path = library().ok_or_else(|| ModelError::NoRuntime {
        why: format!(
            "{VARIABLE} is not set, and there is no libonnxruntime in a Python's site-packages or in {}",
            said(&folders("onnxruntime"))
        ),
    })?;
    let why = |e: &dyn std::fmt::Display| ModelError::NoRuntime {
        why: format!("{}: {e}", path.display()),
    };
    let environment = caught(|| {
        let builder = ort::init_from(&path).map_err(|e| e.to_string())?;
        let silent = builder.with_name("cauda").with_telemetry(false);
        // What it has to say comes back as errors.
        let silent = silent.with_logger(std::sync::Arc::new(
            |_, _: &str, _: &str, _: &str, _: &str| {},
        ));
        silent.build().map_err(|e| e.to_string())
    })
    .map_err(|e| why(&e))?;
    let version = path
        .file_name()
        .and_then(|n| n.to_str())
        .and_then(|n| n.split(".so.").nth(1))
        .map_or_else(|| "of unknown version".to_owned(), str::to_owned);
    Ok(Loaded {
        environment,
        version: format!("ONNX Runtime {version}"),
    })
}

/// Name and version of the library.
///
/// # Errors
/// [`ModelError::NoRuntime`].
pub fn library_version() -> Result<&'static str, ModelError> {
    Ok(&runtime()?.version)
}

/// The library: as the environment says; beside the program; where the scripts put it; in site-packages.
pub fn library() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) {
        return Some(path.into());
    }
    let mut folders = folders("onnxruntime");
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"]
        .map(|name| std::env::var_os(name).unwrap_or_else(OsString::new));
    let roots = environments
        .into_iter()
        .filter(|v| !v.is_empty())
        .map(PathBuf::from);
    for lib in roots
        .chain(["/usr/local".into(), "/usr".into()])
        .map(|root| root.join("lib"))
    {
        let pythons = std::fs::read_dir(&lib).into_iter().flatten().flatten();
        let is_python = |p: &PathBuf| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("python3"))
        };
        for python in pythons.map(|e| e.path()).filter(is_python) {
            folders.extend(
                ["site-packages", "dist-packages"].map(|d| python.join(d).join("onnxruntime/capi")),
            );
        }
    }
    folders.iter().find_map(|folder| newest_in(folder))
}

/// `libonnxruntime.so`, with the greatest version behind it.
fn newest_in(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path());
    let number = |p: &PathBuf| -> Option<Vec<u64>> {
        let name = p.file_name()?.to_str()?;
        let rest = name.strip_prefix("libonnxruntime.so")?;
        Some(rest.split('.').filter_map(|n| n.parse().ok()).collect())
    };
    entries.filter(|p| number(p).is_some()).max_by_key(number)
}

/// A graph ready to run. The library's own call takes `&mut`: runs of one model wait for one another, and each uses all
/// of the model's threads.
pub(super) struct Onnx(Mutex<Session>);

pub(super) fn load(manifest: &Manifest, bytes: &[u8], threads: usize) -> Result<Onnx, ModelError> {
    let loaded = runtime()?;
    let cannot = |what: String| ModelError::Load {
        model: manifest.id(),
        runtime: loaded.version.clone(),
        what,
    };
    let session = caught(|| {
        let text = |e: ort::Error<ort::session::builder::SessionBuilder>| e.to_string();
        let builder = Session::builder(&loaded.environment).map_err(|e| e.to_string())?;
        let builder = builder.with_intra_threads(threads).map_err(text)?;
        let builder = builder.with_deterministic_compute(true).map_err(text)?;
        // Threads that wait for the next slice leave the cores to the reconstruction.
        let mut builder = builder.with_intra_op_spinning(false).map_err(text)?;
        builder.commit_from_memory(bytes).map_err(|e| e.to_string())
    })
    .map_err(cannot)?;
    for (what, has, needed) in [
        ("input", session.inputs(), &manifest.inputs),
        ("output", session.outputs(), &manifest.outputs),
    ] {
        for (name, port) in needed {
            let shape = has
                .iter()
                .find(|o| o.name() == name)
                .and_then(|o| o.dtype().tensor_shape());
            if !shape.is_some_and(|s| port.may_be(s)) {
                let found = shape.map_or("missing or no tensor".to_owned(), |s| format!("{s:?}"));
                return Err(manifest_differs(
                    manifest,
                    format!("{what} {name} of the graph"),
                    found,
                    port.to_string(),
                ));
            }
        }
        if what == "input" && has.len() != needed.len() {
            return Err(manifest_differs(
                manifest,
                "the number of inputs of the graph".into(),
                has.len().to_string(),
                needed.len().to_string(),
            ));
        }
    }
    Ok(Onnx(Mutex::new(session)))
}

fn manifest_differs(
    manifest: &Manifest,
    port: String,
    found: String,
    needed: String,
) -> ModelError {
    ModelError::Shape {
        model: manifest.id(),
        port,
        found,
        needed,
    }
}

impl Runtime for Onnx {
    fn describe(&self) -> &str {
        runtime().map_or("ONNX Runtime", |l| &l.version)
    }

    fn run(
        &self,
        manifest: &Manifest,
        _: &Named<'_>,
        inputs: &[Input<'_>],
    ) -> Result<Vec<Tensor>, String> {
        let mut values = Vec::with_capacity(inputs.len());
        for input in inputs {
            let value =
                TensorRef::from_array_view((input.shape, input.data)).map_err(|e| e.to_string())?;
            values.push((input.name, SessionInputValue::from(value)));
        }
        let mut session = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let results = session.run(values).map_err(|e| e.to_string())?;
        let take = |name: &String| {
            let value = results
                .get(name)
                .ok_or(format!("there is no output {name}"))?;
            let (shape, data) = value
                .try_extract_tensor::<f32>()
                .map_err(|e| e.to_string())?;
            let shape = shape
                .iter()
                .map(|&n| usize::try_from(n).unwrap_or(0))
                .collect();
            Ok(Tensor {
                shape,
                data: data.to_vec(),
            })
        };
        manifest.outputs.keys().map(take).collect()
    }
}
