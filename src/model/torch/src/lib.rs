//! libtorch behind five C functions.
//!
//! The engine opens this library at run time and starts without it. Nothing unwinds over the border: what fails returns null
//! or a code, and a text. Load it with `RTLD_NOW` and never close it: libtorch keeps threads and thread-local state.
//!
//! Calls may come from any thread; libtorch's settings are global, so they wait for each other, over all models.

mod cuda;
mod model;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::ffi::{CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::OnceLock;

use model::{Model, View};

/// Contiguous f32 values of the caller.
#[repr(C)]
pub struct CaudaTensor {
    /// An address in memory (`device` -1), or on the card `device`.
    pub data: *mut f32,
    /// `rank` sides, the slowest first; in memory.
    pub shape: *const i64,
    /// How many sides, at most 8.
    pub rank: u32,
    /// -1 is the CPU, else the index of a card.
    pub device: i32,
}

const MOST_SIDES: u32 = 8;

/// Version of these five functions: 1. Whoever finds another does not call the rest.
#[unsafe(no_mangle)]
pub extern "C" fn cauda_torch_abi() -> u32 {
    1
}

/// `libtorch 2.11.0, CUDA available` or `... not available`; the text lives as long as the process. Null if that fails.
#[unsafe(no_mangle)]
pub extern "C" fn cauda_torch_describe() -> *const c_char {
    static TEXT: OnceLock<CString> = OnceLock::new();
    catch_unwind(|| {
        TEXT.get_or_init(|| CString::new(model::describe()).unwrap_or_default())
            .as_ptr()
    })
    .unwrap_or(null_mut())
}

/// Reads TorchScript from `n` bytes to the CPU (`device` -1) or a card, in evaluation mode; null and a text in `error`
/// otherwise. `threads` is for each run's own use (libtorch has one number for all: it is set before the run); 0 leaves it.
///
/// TorchScript is a program: the caller has checked the digest.
///
/// # Safety
/// `bytes` points to `n` bytes; `error` to `error_len` writable ones, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cauda_torch_load(
    bytes: *const u8,
    n: usize,
    device: i32,
    threads: u32,
    error: *mut c_char,
    error_len: usize,
) -> *mut c_void {
    let loaded = caught(|| {
        if bytes.is_null() || n == 0 {
            return Err("not a TorchScript module: no bytes".to_owned());
        }
        // SAFETY: not null; this function's contract.
        let bytes = unsafe { std::slice::from_raw_parts(bytes, n) };
        Model::load(bytes, device, threads)
    });
    match loaded {
        Ok(model) => Box::into_raw(Box::new(model)).cast(),
        Err(text) => {
            // SAFETY: this function's contract.
            unsafe { tell(&text, error, error_len) };
            null_mut()
        }
    }
}

/// Gives the `n_in` inputs to the module's `forward` and fills the `n_out` outputs: 0. Otherwise 1 and a text in `error`, and
/// outputs that may be filled in part. The module's outputs, a tensor or a tuple of them, must have exactly the shapes of `output`.
///
/// On a card nothing passes through the host and nothing is waited for: all is queued on `stream` (null: the default stream),
/// and in- and outputs must stay until it is through. The engine's streams and libtorch share the card's primary context.
/// On the CPU the outputs are there on return.
///
/// # Safety
/// `model` came from [`cauda_torch_load`] and was not unloaded. `input` and `output` point to `n_in` and `n_out` tensors that
/// are what their fields say. `stream` is null or a living stream of the model's card. `error` as in [`cauda_torch_load`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cauda_torch_run(
    model: *mut c_void,
    input: *const CaudaTensor,
    n_in: usize,
    output: *const CaudaTensor,
    n_out: usize,
    stream: *mut c_void,
    error: *mut c_char,
    error_len: usize,
) -> i32 {
    let done = caught(|| {
        // SAFETY: null or a living `Model`, of which `run` needs no exclusive use.
        let model = unsafe { model.cast::<Model>().as_ref() }.ok_or("no model")?;
        // SAFETY: this function's contract, for both.
        let (inputs, outputs) = unsafe { (views(input, n_in)?, views(output, n_out)?) };
        // SAFETY: this function's contract.
        unsafe { model.run(&inputs, &outputs, stream) }
    });
    match done {
        Ok(()) => 0,
        Err(text) => {
            // SAFETY: this function's contract.
            unsafe { tell(&text, error, error_len) };
            1
        }
    }
}

/// Frees the model; null is allowed.
///
/// # Safety
/// `model` is null or came from [`cauda_torch_load`], is used by no run (on a card: its streams are through) and never again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cauda_torch_unload(model: *mut c_void) {
    if !model.is_null() {
        // SAFETY: from `Box::into_raw` of a `Model`, once.
        let model = unsafe { Box::from_raw(model.cast::<Model>()) };
        // What cannot be freed is lost; there is nobody to tell.
        drop(catch_unwind(AssertUnwindSafe(|| drop(model))));
    }
}

/// # Safety
/// `tensors` points to `n` of them, whose shapes have `rank` sides; all stay for `'a`.
unsafe fn views<'a>(tensors: *const CaudaTensor, n: usize) -> Result<Vec<View<'a>>, String> {
    if n == 0 {
        return Ok(Vec::new());
    }
    if tensors.is_null() {
        return Err(format!("{n} tensors at no address"));
    }
    // SAFETY: not null; this function's contract.
    let tensors = unsafe { std::slice::from_raw_parts(tensors, n) };
    let view = |t: &CaudaTensor| {
        if t.rank > MOST_SIDES || (t.rank > 0 && t.shape.is_null()) {
            return Err(format!(
                "a tensor of {} sides at {:?}: needed at most {MOST_SIDES}",
                t.rank, t.shape
            ));
        }
        let shape = match t.rank {
            0 => &[][..],
            // SAFETY: not null; this function's contract.
            rank => unsafe { std::slice::from_raw_parts(t.shape, rank as usize) },
        };
        Ok(View {
            data: t.data,
            shape,
            device: t.device,
        })
    };
    tensors.iter().map(view).collect()
}

/// A panic becomes a text. Exceptions of libtorch are errors of tch by then.
fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let text = |panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("panic")
            .to_owned()
    };
    // What a panic may leave half done is the outputs, which an error declares unfinished.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(text(panic)))
}

/// Writes as much of `text` as fits, whole characters, and a NUL.
///
/// # Safety
/// `error` is null or points to `error_len` writable bytes.
unsafe fn tell(text: &str, error: *mut c_char, error_len: usize) {
    if error.is_null() || error_len == 0 {
        return;
    }
    let mut n = text.len().min(error_len - 1);
    while !text.is_char_boundary(n) {
        n -= 1;
    }
    // SAFETY: n < error_len bytes of `text`, and one more, fit; the two do not overlap, one being ours.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), error.cast(), n);
        *error.add(n) = 0;
    }
}
