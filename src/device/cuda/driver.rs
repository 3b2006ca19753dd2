//! The driver, whose functions are looked for before any is called: `cudarc` panics on one that is missing.
#![allow(unsafe_code)]

use cudarc::driver::sys::{self, CUresult};

use super::CudaError;

/// All that is called. The youngest came with CUDA 11.4.
const NEEDED: &[&str] = &[
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGet",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxReset_v2",
    "cuCtxSetCurrent",
    "cuMemGetInfo_v2",
    "cuMemPoolCreate",
    "cuMemPoolDestroy",
    "cuMemPoolSetAttribute",
    "cuMemAllocFromPoolAsync",
    "cuMemFreeAsync",
    "cuMemHostRegister_v2",
    "cuMemHostUnregister",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemsetD8Async",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventQuery",
    "cuEventSynchronize",
    "cuEventElapsedTime",
    "cuEventDestroy_v2",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuModuleUnload",
    "cuFuncGetAttribute",
    "cuLaunchKernel",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
];

/// The driver is here and has all that is called.
///
/// # Errors
/// [`CudaError::NoDriver`], [`CudaError::OldDriver`].
pub(super) fn find() -> Result<(), CudaError> {
    // SAFETY: opens libcuda, whose initialisers NVIDIA ships to be run on opening, and looks at nothing in it.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDriver {
            why: "no libcuda.so".into(),
        });
    }
    // SAFETY: the library is here, so that this does not panic.
    let library = unsafe { sys::culib() };
    for name in NEEDED.iter().copied() {
        // SAFETY: the symbol is looked for and not used.
        if unsafe { library.get::<*const ()>(name.as_bytes()) }.is_err() {
            return Err(CudaError::OldDriver { missing: name });
        }
    }
    Ok(())
}

/// The same, and it is initialised.
///
/// # Errors
/// As [`find`].
pub(super) fn driver() -> Result<(), CudaError> {
    find()?;
    // SAFETY: 0 is the only value that its argument may have.
    match unsafe { sys::cuInit(0) } {
        CUresult::CUDA_SUCCESS => Ok(()),
        status => Err(CudaError::NoDriver {
            why: format!("the driver does not start: {status:?}"),
        }),
    }
}

/// Milliseconds between two events. `cudarc` knows the name of CUDA 12.8 alone; every driver has this one.
///
/// # Safety
/// Events of the current context, on a machine where [`driver`] found the driver.
pub(super) unsafe fn elapsed(ms: &mut f32, from: sys::CUevent, to: sys::CUevent) -> CUresult {
    type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> CUresult;
    // SAFETY: the library is here, as the caller says, and has had this function with this type since CUDA 2.
    match unsafe { sys::culib().get::<Elapsed>(b"cuEventElapsedTime") } {
        // SAFETY: events as the caller says; writes one number to the address of one.
        Ok(f) => unsafe { f(ms, from, to) },
        Err(_) => CUresult::CUDA_ERROR_NOT_FOUND,
    }
}

/// A name that the driver gave to something of its own.
#[derive(Debug)]
pub(super) struct Handle<T>(pub(super) *mut T);

impl<T> Handle<T> {
    pub(super) const NONE: Self = Self(std::ptr::null_mut());
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

// SAFETY: never dereferenced on this side; the driver's calls may be made with it from any thread, at any time.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Handle<T> {}

/// Whether a context that gave this is of no use any more: every later call would give it again.
pub(super) fn is_sticky(status: CUresult) -> bool {
    use CUresult as S;
    matches!(
        status,
        S::CUDA_ERROR_DEINITIALIZED
            | S::CUDA_ERROR_ECC_UNCORRECTABLE
            | S::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | S::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | S::CUDA_ERROR_ILLEGAL_ADDRESS
            | S::CUDA_ERROR_LAUNCH_TIMEOUT
            | S::CUDA_ERROR_ASSERT
            | S::CUDA_ERROR_HARDWARE_STACK_ERROR
            | S::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | S::CUDA_ERROR_MISALIGNED_ADDRESS
            | S::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | S::CUDA_ERROR_INVALID_PC
            | S::CUDA_ERROR_LAUNCH_FAILED
            | S::CUDA_ERROR_UNKNOWN
    )
}
