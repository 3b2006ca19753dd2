//! libtorch's CUDA half: loaded when there is a driver, and told which stream to queue on.

use std::ffi::{CStr, c_void};
use std::sync::OnceLock;

type CreateGuard = unsafe extern "C" fn(*mut c_void, i32, *mut *mut c_void) -> i32;
type DeleteGuard = unsafe extern "C" fn(*mut c_void) -> i32;

/// Two functions of libtorch's C interface; tch has none for streams.
pub(crate) struct Cuda {
    create: CreateGuard,
    delete: DeleteGuard,
    n_devices: i32,
}

/// Loads the library the first time, or says why cards cannot be used. Call it before anything else of libtorch, which looks
/// for its CUDA half once.
pub(crate) fn cuda() -> Result<&'static Cuda, &'static str> {
    static CUDA: OnceLock<Result<Cuda, String>> = OnceLock::new();
    CUDA.get_or_init(load).as_ref().map_err(String::as_str)
}

fn load() -> Result<Cuda, String> {
    // Without a driver, half a gigabyte of code would be loaded for nothing.
    open(c"libcuda.so.1").map_err(|e| format!("no CUDA driver: {e}"))?;
    let library =
        open(c"libtorch_cuda.so").map_err(|e| format!("this libtorch has no CUDA: {e}"))?;
    let create = symbol(library, c"aoti_torch_create_cuda_stream_guard")?;
    let delete = symbol(library, c"aoti_torch_delete_cuda_stream_guard")?;
    let n_devices = i32::try_from(tch::Cuda::device_count()).unwrap_or(0);
    if n_devices == 0 {
        return Err("the CUDA driver shows libtorch no card".to_owned());
    }
    Ok(Cuda {
        // SAFETY: the signature in torch/csrc/inductor/aoti_torch/c/shim.h: (void*, int32_t, Handle*) -> int32_t.
        create: unsafe { std::mem::transmute::<*mut c_void, CreateGuard>(create) },
        // SAFETY: likewise: (Handle) -> int32_t.
        delete: unsafe { std::mem::transmute::<*mut c_void, DeleteGuard>(delete) },
        n_devices,
    })
}

impl Cuda {
    /// How many cards libtorch sees, at least 1.
    pub(crate) fn n_devices(&self) -> i32 {
        self.n_devices
    }

    /// Until the guard is dropped, what this thread asks of libtorch on card `device` is queued on `stream` (null: the
    /// default stream).
    ///
    /// # Errors
    /// libtorch refuses the card or the stream.
    ///
    /// # Safety
    /// `stream` is null or a living stream of the card's primary context.
    pub(crate) unsafe fn queue_on(
        &self,
        stream: *mut c_void,
        device: i32,
    ) -> Result<Queue<'_>, String> {
        let mut guard = std::ptr::null_mut();
        // SAFETY: the stream is alive by this function's contract; writes one handle to the address of one. It catches its
        // exceptions and says so by its code.
        match unsafe { (self.create)(stream, device, &mut guard) } {
            0 => Ok(Queue { cuda: self, guard }),
            code => Err(format!(
                "libtorch cannot queue on this stream of card {device} (code {code})"
            )),
        }
    }
}

/// Puts the thread's former stream back when dropped.
pub(crate) struct Queue<'a> {
    cuda: &'a Cuda,
    guard: *mut c_void,
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `create` in this thread (raw pointers do not travel), deleted once.
        unsafe { (self.cuda.delete)(self.guard) };
    }
}

fn open(name: &CStr) -> Result<*mut c_void, String> {
    // SAFETY: `name` ends with NUL; the library is never closed. Its initialisers are those of CUDA and libtorch.
    let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if library.is_null() {
        Err(last_error())
    } else {
        Ok(library)
    }
}

fn symbol(library: *mut c_void, name: &CStr) -> Result<*mut c_void, String> {
    // SAFETY: `library` came from `dlopen` and is open; `name` ends with NUL.
    let address = unsafe { libc::dlsym(library, name.as_ptr()) };
    if address.is_null() {
        Err(last_error())
    } else {
        Ok(address)
    }
}

fn last_error() -> String {
    // SAFETY: takes nothing; what it returns is null or lives until this thread's next dl call.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "unknown reason".to_owned();
    }
    // SAFETY: not null, and ends with NUL.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}
