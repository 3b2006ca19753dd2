//! A TorchScript module on one device: loaded once, run often, one run at a time.

use std::ffi::c_void;
use std::io::Cursor;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tch::{CModule, Device, IValue, Kind, TchError, Tensor};

use crate::cuda::{self, Cuda};

/// The libtorch that tch was made for: major, minor. Another one has other C++ classes behind the same names.
const VERSION: (u64, u64) = (2, 11);

unsafe extern "C" {
    fn aoti_torch_abi_version() -> u64;
    fn cauda_torch_settle() -> bool;
}

/// Threads and precision are libtorch's own globals, so one call at a time, over all models.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The loaded libtorch and whether it sees a card, as `libtorch 2.11.0, CUDA not available`.
pub(crate) fn describe() -> String {
    let _alone = alone();
    let is_available = if cuda::cuda().is_ok() {
        "available"
    } else {
        "not available"
    };
    let (major, minor, patch) = version();
    format!("libtorch {major}.{minor}.{patch}, CUDA {is_available}")
}

fn version() -> (u64, u64, u64) {
    // SAFETY: takes nothing, returns a constant.
    let v = unsafe { aoti_torch_abi_version() };
    (v >> 56, v >> 48 & 0xff, v >> 40 & 0xff)
}

/// Contiguous f32 values that belong to the caller.
pub(crate) struct View<'a> {
    pub(crate) data: *mut f32,
    pub(crate) shape: &'a [i64],
    pub(crate) device: i32,
}

pub(crate) struct Model {
    module: CModule,
    device: Device,
    /// -1 is the CPU.
    device_idx: i32,
    cuda: Option<&'static Cuda>,
    /// 0 leaves libtorch's own number.
    n_threads: i32,
}

impl Model {
    /// Reads TorchScript to the CPU (`device_idx` -1) or a card.
    ///
    /// # Errors
    /// Another libtorch than 2.11, a card that is not there, bytes that are no TorchScript.
    pub(crate) fn load(bytes: &[u8], device_idx: i32, n_threads: u32) -> Result<Self, String> {
        let _alone = alone();
        let known = cuda::cuda();
        let found = version();
        if (found.0, found.1) != VERSION {
            let (major, minor) = VERSION;
            return Err(format!(
                "libtorch {}.{} was loaded, needed {major}.{minor}: build the plug-in again with scripts/torch.sh",
                found.0, found.1
            ));
        }
        // SAFETY: takes nothing; catches its exceptions. No run is under way: `_alone`.
        if !unsafe { cauda_torch_settle() } {
            return Err("libtorch refuses deterministic single precision".to_owned());
        }
        let (device, cuda) = match usize::try_from(device_idx) {
            Err(_) if device_idx == -1 => (Device::Cpu, None),
            Err(_) => {
                return Err(format!(
                    "device {device_idx}: needed -1 (CPU) or the index of a card"
                ));
            }
            Ok(idx) => {
                let cuda = known.map_err(|e| format!("device {device_idx}: {e}"))?;
                let n = cuda.n_devices();
                if device_idx >= n {
                    return Err(format!("device {device_idx}: libtorch sees {n} card(s)"));
                }
                (Device::Cuda(idx), Some(cuda))
            }
        };
        is_whole(bytes).map_err(|e| format!("not a TorchScript module: {e}"))?;
        let mut module = CModule::load_data_on_device(&mut &bytes[..], device)
            .map_err(|e| format!("not a TorchScript module: {}", brief(&e)))?;
        module.f_set_eval().map_err(|e| brief(&e))?;
        if device_idx >= 0 {
            // The weights came by the default stream, which the caller's streams do not wait for.
            tch::Cuda::synchronize(device_idx.into());
        }
        Ok(Self {
            module,
            device,
            device_idx,
            cuda,
            n_threads: i32::try_from(n_threads).unwrap_or(i32::MAX),
        })
    }

    /// One pass: `inputs` are used in place, `outputs` filled. On a card it is queued on `stream`, not waited for.
    ///
    /// # Errors
    /// A view of another device; what the module refuses; outputs of other number, type or shape than `outputs`.
    ///
    /// # Safety
    /// Every view's `data` holds the product of its shape in f32, on the model's device, until the pass (on a card: the
    /// stream) is through; `stream` is null or a living stream of that card's primary context.
    pub(crate) unsafe fn run(
        &self,
        inputs: &[View],
        outputs: &[View],
        stream: *mut c_void,
    ) -> Result<(), String> {
        let _alone = alone();
        let _no_grad = tch::no_grad_guard();
        // The optimising executor changes the program, and with it the last bits, after the first runs of each shape.
        // Both settings are the calling thread's.
        tch::jit::f_set_graph_executor_optimize(false).map_err(|e| brief(&e))?;
        if self.n_threads > 0 && tch::get_num_threads() != self.n_threads {
            tch::set_num_threads(self.n_threads);
        }
        let _queue = match self.cuda {
            // SAFETY: the stream is as `queue_on` needs it by this function's contract.
            Some(cuda) => Some(unsafe { cuda.queue_on(stream, self.device_idx) }?),
            None => None,
        };
        let tensors = |views: &[View], what| {
            let tensor = |(i, view): (usize, &View)| {
                // SAFETY: this function's contract.
                unsafe { self.tensor(view) }.map_err(|e| format!("{what} {i}: {e}"))
            };
            views
                .iter()
                .enumerate()
                .map(tensor)
                .collect::<Result<Vec<_>, _>>()
        };
        let mut wanted = tensors(outputs, "output")?;
        let inputs: Vec<_> = tensors(inputs, "input")?
            .into_iter()
            .map(IValue::Tensor)
            .collect();
        let made = self.module.forward_is(&inputs).map_err(|e| brief(&e))?;
        let made = match made {
            IValue::Tuple(values) => values,
            value => vec![value],
        };
        if made.len() != wanted.len() {
            return Err(format!(
                "the module gives {} outputs, asked for {}",
                made.len(),
                wanted.len()
            ));
        }
        let made: Vec<_> = made
            .into_iter()
            .enumerate()
            .map(|(i, v)| single(i, v, self.device))
            .collect::<Result<_, _>>()?;
        for (i, (made, view)) in made.iter().zip(outputs).enumerate() {
            if made.size() != view.shape {
                return Err(format!(
                    "output {i}: the module gives {:?}, asked for {:?}",
                    made.size(),
                    view.shape
                ));
            }
        }
        for (wanted, made) in wanted.iter_mut().zip(&made) {
            wanted.f_copy_(made).map_err(|e| brief(&e))?;
        }
        Ok(())
    }

    /// # Safety
    /// As [`Model::run`] says of views.
    unsafe fn tensor(&self, view: &View) -> Result<Tensor, String> {
        if view.device != self.device_idx {
            return Err(format!(
                "on device {}, the model is on {}",
                view.device, self.device_idx
            ));
        }
        let n =
            view.shape.iter().try_fold(
                1_i64,
                |n, &side| if side < 0 { None } else { n.checked_mul(side) },
            );
        if n.is_none_or(|n| n > i64::MAX / 4) {
            return Err(format!("shape {:?} is impossible", view.shape));
        }
        if view.data.is_null() || !view.data.is_aligned() {
            return Err(format!("{:?} is no address of f32", view.data));
        }
        // SAFETY: not null and aligned; the values are there and stay by this function's contract. Default strides.
        unsafe { Tensor::f_from_blob(view.data.cast(), view.shape, &[], Kind::Float, self.device) }
            .map_err(|e| brief(&e))
    }
}

/// Reads the archive once for its checksums: libtorch does not, and may crash on a damaged program.
fn is_whole(bytes: &[u8]) -> Result<(), String> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| e.to_string())?;
    for i in 0..archive.len() {
        let mut part = archive.by_index(i).map_err(|e| e.to_string())?;
        std::io::copy(&mut part, &mut std::io::sink())
            .map_err(|e| format!("{}: {e}", part.name()))?;
    }
    Ok(())
}

/// Output `i` as a tensor of f32 on `device`; a conversion or a way through the host would be silent.
fn single(i: usize, value: IValue, device: Device) -> Result<Tensor, String> {
    let IValue::Tensor(tensor) = value else {
        return Err(format!("output {i} of the module is no tensor"));
    };
    match (tensor.f_kind(), tensor.device()) {
        (Ok(Kind::Float), at) if at == device => Ok(tensor),
        (kind, at) => Err(format!(
            "output {i} of the module is {kind:?} on {at:?}, needed f32 on {device:?}"
        )),
    }
}

/// The sentence of libtorch's message that says what is wrong: the rest is advice and two call stacks.
fn brief(error: &TchError) -> String {
    let text = match error {
        TchError::Torch(text) => text.clone(),
        other => other.to_string(),
    };
    let lines = || text.lines().map(str::trim).filter(|l| !l.is_empty());
    let line = lines()
        .find(|l| l.contains("Error: "))
        .or_else(|| lines().next());
    let sentence = line.and_then(|l| l.split(". ").next());
    sentence
        .unwrap_or("libtorch gave no reason")
        .trim_end_matches('.')
        .to_owned()
}
