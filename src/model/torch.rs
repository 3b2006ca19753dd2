//! libtorch, by a plug-in that is found when the first network asks for it. Its five functions are those of
//! `src/model/torch/src/lib.rs`, in the same words.
//!
//! On the CPU. The plug-in lets calls wait for one another, over all models. Its OpenMP spins while it waits unless the process has
//! `OMP_WAIT_POLICY=PASSIVE` before the plug-in is loaded, as `main` sees to; another program that uses this crate does it itself.
#![allow(unsafe_code)] // Calls over a C border; nothing else is done here.

use std::ffi::{CStr, c_char, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::ptr::{NonNull, null_mut};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::manifest::Named;
use super::{Dim, Input, Manifest, ModelError, Once, Runtime, Tensor, folders, said};

/// Where the plug-in is said to be.
const VARIABLE: &str = "CAUDA_TORCH";
const FILE: &str = "libcauda_torch.so";

/// Version of the functions below.
const ABI: u32 = 1;
/// `device` of memory.
const CPU: i32 = -1;
/// Most values of one output: what is allocated for it is the manifest's word.
const MOST_VALUES: usize = 1 << 30;

#[repr(C)]
struct CaudaTensor {
    data: *mut f32,
    shape: *const i64,
    rank: u32,
    device: i32,
}

type AbiFn = unsafe extern "C" fn() -> u32;
type DescribeFn = unsafe extern "C" fn() -> *const c_char;
type LoadFn = unsafe extern "C" fn(*const u8, usize, i32, u32, *mut c_char, usize) -> *mut c_void;
type RunFn = unsafe extern "C" fn(
    *mut c_void,
    *const CaudaTensor,
    usize,
    *const CaudaTensor,
    usize,
    *mut c_void,
    *mut c_char,
    usize,
) -> i32;
type UnloadFn = unsafe extern "C" fn(*mut c_void);

/// The plug-in, of the right version.
pub(super) struct Plugin {
    name: String,
    load: LoadFn,
    run: RunFn,
    unload: UnloadFn,
}

/// The plug-in of this process.
pub(super) fn loaded() -> Result<&'static Plugin, ModelError> {
    static LOADED: Once<Plugin> = Once::new();
    LOADED.get(|| {
        let path = plugin().ok_or_else(|| ModelError::NoPlugin {
            why: format!(
                "{VARIABLE} is not set, and there is no {FILE} in {}",
                said(&folders("torch"))
            ),
        })?;
        open(&path)
    })
}

/// The plug-in: as the environment says; beside the program; where one may put it for all programs.
pub fn plugin() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) {
        return Some(path.into());
    }
    let mut places = folders("torch").into_iter().map(|p| p.join(FILE));
    places.find(|p| p.is_file())
}

/// Name and version of the plug-in's libtorch, and whether that sees a card.
///
/// # Errors
/// [`ModelError::NoPlugin`].
pub fn plugin_version() -> Result<&'static str, ModelError> {
    Ok(&loaded()?.name)
}

pub(super) fn open(path: &Path) -> Result<Plugin, ModelError> {
    let no_plugin = |what: String| {
        // The loader may have named the file already.
        let place = format!("{}: ", path.display());
        let what = what.strip_prefix(&place).unwrap_or(&what);
        ModelError::NoPlugin {
            why: format!("{place}{what}"),
        }
    };
    // SAFETY: initialisers run that are the plug-in's and libtorch's: the operator put this file in its place, or named it.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    // Never closed: libtorch keeps threads and thread-local state. So its functions stay as long as the process.
    let library = ManuallyDrop::new(library.map_err(|e| no_plugin(whole(&e)))?);
    let missing = |e: String| no_plugin(format!("not the plug-in: {e}"));
    // SAFETY: the signature of this name in every version.
    let abi = unsafe { symbol::<AbiFn>(&library, "cauda_torch_abi") }.map_err(missing)?;
    // SAFETY: takes nothing and returns a number.
    let found = unsafe { abi() };
    if found != ABI {
        return Err(no_plugin(format!(
            "its functions are of version {found}, needed {ABI}: build it anew, then start cauda anew"
        )));
    }
    // SAFETY: the signatures of version 1.
    let (describe, load, run, unload) = unsafe {
        (
            symbol::<DescribeFn>(&library, "cauda_torch_describe").map_err(missing)?,
            symbol::<LoadFn>(&library, "cauda_torch_load").map_err(missing)?,
            symbol::<RunFn>(&library, "cauda_torch_run").map_err(missing)?,
            symbol::<UnloadFn>(&library, "cauda_torch_unload").map_err(missing)?,
        )
    };
    // SAFETY: takes nothing.
    let text = unsafe { describe() };
    if text.is_null() {
        return Err(no_plugin("it cannot say which libtorch it has".to_owned()));
    }
    // SAFETY: not null; ends with NUL and lives as long as the process, by the function's contract.
    let name = unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned();
    Ok(Plugin {
        name,
        load,
        run,
        unload,
    })
}

/// A function of the library.
///
/// # Safety
/// `F` is the pointer type of the function of this name.
unsafe fn symbol<F: Copy>(library: &Library, name: &str) -> Result<F, String> {
    // SAFETY: by this function's contract; an address of null is `None`.
    let found = unsafe { library.get::<Option<F>>(name) }.map_err(|e| whole(&e))?;
    (*found).ok_or_else(|| format!("{name} is at no address"))
}

/// The loader's words: `libloading` has them as the cause of its own.
fn whole(e: &libloading::Error) -> String {
    std::error::Error::source(e).map_or_else(|| e.to_string(), ToString::to_string)
}

/// A module ready to run.
pub(super) struct Torch {
    plugin: &'static Plugin,
    model: NonNull<c_void>,
    name: String,
}

// SAFETY: the plug-in takes calls from any thread, and lets them wait for one another.
unsafe impl Send for Torch {}
// SAFETY: likewise.
unsafe impl Sync for Torch {}

impl Drop for Torch {
    fn drop(&mut self) {
        // SAFETY: from `load`, freed once; runs borrow `self`, so none is under way.
        unsafe { (self.plugin.unload)(self.model.as_ptr()) };
    }
}

/// What the plug-in says of an error, with room for it.
struct Said([u8; 1024]);

impl Said {
    fn new() -> Self {
        Self([0; 1024])
    }

    fn room(&mut self) -> (*mut c_char, usize) {
        (self.0.as_mut_ptr().cast(), self.0.len())
    }

    fn text(&self) -> String {
        let text = self.0.split(|b| *b == 0).next().unwrap_or_default();
        match String::from_utf8_lossy(text) {
            text if text.is_empty() => "no reason is given".to_owned(),
            text => text.into_owned(),
        }
    }
}

/// Hands over bytes whose digest was checked: TorchScript is a program.
pub(super) fn load(
    plugin: &'static Plugin,
    manifest: &Manifest,
    bytes: &[u8],
    threads: usize,
) -> Result<Torch, ModelError> {
    let script = manifest.script()?;
    let axes = manifest.inputs.values().flat_map(|p| &p.shape);
    let known: Named<'_> = axes
        .filter_map(|d| match d {
            Dim::Named(name) => Some((name.as_str(), 1)),
            Dim::Fixed(_) => None,
        })
        .collect();
    for (name, port) in &manifest.outputs {
        if port.shape(&known).is_none() {
            return Err(ModelError::Shape {
                model: manifest.id(),
                port: format!("output {name} of the manifest"),
                found: port.to_string(),
                needed: format!("axes of the inputs, {:?}", known.keys()),
            });
        }
    }
    let mut said = Said::new();
    let (error, error_len) = said.room();
    let threads = u32::try_from(threads).unwrap_or(u32::MAX);
    // SAFETY: both addresses are of as many bytes as is said; neither is kept.
    let model =
        unsafe { (plugin.load)(bytes.as_ptr(), bytes.len(), CPU, threads, error, error_len) };
    let model = NonNull::new(model).ok_or_else(|| ModelError::Load {
        model: manifest.id(),
        runtime: plugin.name.clone(),
        what: said.text(),
    })?;
    let libtorch = plugin.name.split(',').next().unwrap_or_default();
    Ok(Torch {
        plugin,
        model,
        name: format!("{libtorch} ({} {})", script.file, &script.sha256[..12]),
    })
}

/// A tensor of the border, and the shape it points to.
struct Lent {
    shape: Vec<i64>,
    values: Vec<f32>,
}

impl Lent {
    fn new(shape: &[usize], values: Vec<f32>) -> Result<Self, String> {
        let sides = shape.iter().map(|&n| i64::try_from(n));
        Ok(Self {
            shape: sides.collect::<Result<_, _>>().map_err(|e| e.to_string())?,
            values,
        })
    }

    /// Good as long as `self` is where it is.
    fn view(&mut self) -> CaudaTensor {
        CaudaTensor {
            data: self.values.as_mut_ptr(),
            shape: self.shape.as_ptr(),
            // More sides than that are refused there.
            rank: u32::try_from(self.shape.len()).unwrap_or(u32::MAX),
            device: CPU,
        }
    }
}

impl Runtime for Torch {
    fn describe(&self) -> &str {
        &self.name
    }

    fn run(
        &self,
        manifest: &Manifest,
        named: &Named<'_>,
        inputs: &[Input<'_>],
    ) -> Result<Vec<Tensor>, String> {
        let script = manifest.script().map_err(|e| e.to_string())?;
        // Copies: a module may write to what it is given.
        let mut given = Vec::new();
        for name in &script.inputs {
            let input = inputs.iter().find(|i| i.name == name);
            let input = input.ok_or_else(|| format!("there is no input {name}"))?;
            given.push(Lent::new(input.shape, input.data.to_vec())?);
        }
        let mut asked = Vec::new();
        for name in &script.outputs {
            let shape = manifest.outputs.get(name).and_then(|p| p.shape(named));
            let shape = shape.ok_or_else(|| format!("output {name} has no known shape"))?;
            let n = shape
                .iter()
                .try_fold(1usize, |n, &side| n.checked_mul(side));
            let n = n.filter(|n| *n <= MOST_VALUES);
            let n = n.ok_or_else(|| format!("output {name} would be {shape:?}: too large"))?;
            asked.push(Lent::new(&shape, vec![0.0; n])?);
        }
        let views_in: Vec<_> = given.iter_mut().map(Lent::view).collect();
        let views_out: Vec<_> = asked.iter_mut().map(Lent::view).collect();
        let mut said = Said::new();
        let (error, error_len) = said.room();
        // SAFETY: the model is alive. Each view is of a `Lent` of its own, whose values are as many as its shape says (inputs:
        // `check_inputs`; outputs: allocated above) and which nobody else touches until the call is over. No stream: on the
        // CPU all is done on return, and nothing is kept. The text is as long as is said.
        let code = unsafe {
            (self.plugin.run)(
                self.model.as_ptr(),
                views_in.as_ptr(),
                views_in.len(),
                views_out.as_ptr(),
                views_out.len(),
                null_mut(),
                error,
                error_len,
            )
        };
        if code != 0 {
            return Err(said.text());
        }
        // In the order of their names, each of which the script has once.
        let mut outputs: Vec<_> = script.outputs.iter().zip(asked).collect();
        outputs.sort_unstable_by_key(|(name, _)| *name);
        let tensor = |(name, lent): (&String, Lent)| Tensor {
            shape: manifest
                .outputs
                .get(name)
                .and_then(|p| p.shape(named))
                .unwrap_or_default(),
            data: lent.values,
        };
        Ok(outputs.into_iter().map(tensor).collect())
    }
}
