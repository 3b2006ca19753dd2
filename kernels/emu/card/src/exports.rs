//! The functions of the driver API, by the names that `cudarc` looks for.
//!
//! Safety of all: pointers are what the driver API says that they are, which is the caller's part there as here.
#![allow(
    non_snake_case,
    clippy::missing_safety_doc,
    clippy::undocumented_unsafe_blocks
)]
#![allow(unsafe_op_in_unsafe_fn, unreachable_pub, missing_docs)]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::sync::{LazyLock, Mutex, MutexGuard};

use kernel_emu::table;

use crate::card::{Card, Config, Fallible, Op, Place, Value};
use crate::status::Status;

static CARD: LazyLock<Mutex<Card>> = LazyLock::new(|| {
    // What was never released is told when the process ends.
    unsafe extern "C" {
        fn atexit(f: extern "C" fn()) -> c_int;
    }
    extern "C" fn at_exit() {
        let mut card = card();
        if card.n_retained > 0 {
            let left = card.left();
            card.say(&format!("never released; left: {left}"));
        }
    }
    unsafe { atexit(at_exit) };
    Mutex::new(Card::new(Config::from_env()))
});

thread_local! {
    /// The context of this thread: its generation.
    static CURRENT: Cell<Option<u64>> = const { Cell::new(None) };
}

fn card() -> MutexGuard<'static, Card> {
    CARD.lock().unwrap_or_else(|broken| broken.into_inner())
}

/// One context, whatever its generation.
const CONTEXT: usize = 0xca0d_c0de;

fn code(result: Fallible) -> u32 {
    result.map_or_else(|status| status.0, |()| 0)
}

/// Of calls that need no context.
fn outside(f: impl FnOnce(&mut Card) -> Fallible) -> u32 {
    let mut card = card();
    if !card.is_initialised {
        return Status::NOT_INITIALIZED.0;
    }
    code(f(&mut card))
}

/// Of calls that need one that is alive, current in this thread.
fn inside(name: &str, f: impl FnOnce(&mut Card) -> Fallible) -> u32 {
    outside(|card| {
        if card.n_retained == 0 || CURRENT.get() != Some(card.generation) {
            let text = format!("{name} in a thread that has no context");
            return card.misuse(Status::INVALID_CONTEXT, &text);
        }
        card.check()?;
        f(card)
    })
}

fn of_device(device: c_int, f: impl FnOnce(&mut Card) -> Fallible) -> u32 {
    outside(|card| match device {
        0 => f(card),
        _ => Err(Status::INVALID_DEVICE),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuInit(_flags: c_uint) -> u32 {
    card().is_initialised = true;
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> u32 {
    *version = 12080;
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(status: u32, text: *mut *const c_char) -> u32 {
    let Some((name, _)) = Status(status).words() else {
        return Status::INVALID_VALUE.0;
    };
    *text = name.as_ptr();
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(status: u32, text: *mut *const c_char) -> u32 {
    let Some((_, meaning)) = Status(status).words() else {
        return Status::INVALID_VALUE.0;
    };
    *text = meaning.as_ptr();
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> u32 {
    outside(|_| {
        *count = 1;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> u32 {
    of_device(ordinal, |_| {
        *device = 0;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, device: c_int) -> u32 {
    of_device(device, |_| {
        let text = b"Emulated card";
        let n = text.len().min(len.max(1) as usize - 1);
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), name, n);
        *name.add(n) = 0;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, which: u32, device: c_int) -> u32 {
    of_device(device, |card| {
        *value = match which {
            75 => 9,  // compute capability, major
            76 => 0,  // minor
            115 => 1, // memory pools
            _ => {
                let text = format!("attribute {which}, which is not emulated");
                return card.misuse(Status::INVALID_VALUE, &text);
            }
        };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> u32 {
    of_device(device, |card| {
        *bytes = card.memory().1 as usize;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, device: c_int) -> u32 {
    of_device(device, |card| {
        card.retain()?;
        *context = CONTEXT;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> u32 {
    of_device(device, Card::release)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxReset_v2(device: c_int) -> u32 {
    of_device(device, |card| {
        card.reset();
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetCurrent(context: usize) -> u32 {
    outside(|card| match context {
        0 => {
            CURRENT.set(None);
            Ok(())
        }
        CONTEXT if card.n_retained > 0 => {
            CURRENT.set(Some(card.generation));
            Ok(())
        }
        _ => card.misuse(Status::INVALID_CONTEXT, "a context that is none"),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> u32 {
    inside("cuMemGetInfo", |card| {
        let (f, t) = card.memory();
        (*free, *total) = (f as usize, t as usize);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolCreate(pool: *mut u64, _properties: *const c_void) -> u32 {
    inside("cuMemPoolCreate", |card| {
        *pool = card.create_pool();
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolDestroy(pool: u64) -> u32 {
    inside("cuMemPoolDestroy", |card| card.destroy_pool(pool))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolSetAttribute(pool: u64, _: u32, _: *mut c_void) -> u32 {
    inside("cuMemPoolSetAttribute", |card| card.has_pool(pool))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocFromPoolAsync(
    address: *mut u64,
    len: usize,
    pool: u64,
    stream: u64,
) -> u32 {
    inside("cuMemAllocFromPoolAsync", |card| {
        *address = card.allocate(len, pool, stream)?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeAsync(address: u64, stream: u64) -> u32 {
    inside("cuMemFreeAsync", |card| card.free(address, stream))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostRegister_v2(address: usize, len: usize, _flags: c_uint) -> u32 {
    inside("cuMemHostRegister", |card| card.pin(address, len))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostUnregister(address: usize) -> u32 {
    inside("cuMemHostUnregister", |card| card.unpin(address))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const u8,
    len: usize,
    stream: u64,
) -> u32 {
    inside("cuMemcpyHtoDAsync", |card| {
        let from = match card.is_pinned(from as usize, len)? {
            true => Place::Pinned(from as usize),
            false => Place::Taken(std::slice::from_raw_parts(from, len).to_vec()),
        };
        let to = Place::Device(to);
        card.enqueue(stream, Op::Copy { to, from, len })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut u8,
    from: u64,
    len: usize,
    stream: u64,
) -> u32 {
    inside("cuMemcpyDtoHAsync", |card| {
        if !card.is_pinned(to as usize, len)? {
            let text = "a download to memory that is not pinned, which stops the host";
            return card.misuse(Status::INVALID_VALUE, text);
        }
        let (to, from) = (Place::Pinned(to as usize), Place::Device(from));
        card.enqueue(stream, Op::Copy { to, from, len })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, len: usize, stream: u64) -> u32 {
    inside("cuMemcpyDtoDAsync", |card| {
        let (to, from) = (Place::Device(to), Place::Device(from));
        card.enqueue(stream, Op::Copy { to, from, len })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8Async(to: u64, value: u8, n: usize, stream: u64) -> u32 {
    let pattern = vec![value];
    inside("cuMemsetD8Async", |card| {
        card.enqueue(stream, Op::Fill { to, pattern, n })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut u64, flags: c_uint) -> u32 {
    inside("cuStreamCreate", |card| {
        if flags != 1 {
            let text =
                "a stream that waits for the default stream: only non-blocking ones are here";
            return card.misuse(Status::INVALID_VALUE, text);
        }
        *stream = card.create_stream()?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamDestroy_v2(stream: u64) -> u32 {
    inside("cuStreamDestroy", |card| card.destroy_stream(stream))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamSynchronize(stream: u64) -> u32 {
    inside("cuStreamSynchronize", |card| card.synchronise(stream))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamWaitEvent(stream: u64, event: u64, _flags: c_uint) -> u32 {
    inside("cuStreamWaitEvent", |card| card.wait(stream, event))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut u64, _flags: c_uint) -> u32 {
    inside("cuEventCreate", |card| {
        *event = card.create_event()?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventDestroy_v2(event: u64) -> u32 {
    inside("cuEventDestroy", |card| card.destroy_event(event))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventRecord(event: u64, stream: u64) -> u32 {
    inside("cuEventRecord", |card| card.record(event, stream))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventQuery(event: u64) -> u32 {
    inside("cuEventQuery", |card| card.query(event))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventSynchronize(event: u64) -> u32 {
    inside("cuEventSynchronize", |card| card.synchronise_event(event))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(ms: *mut f32, from: u64, to: u64) -> u32 {
    inside("cuEventElapsedTime", |card| {
        *ms = card.elapsed(from, to)?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut u64, image: *const c_char) -> u32 {
    inside("cuModuleLoadData", |card| {
        *module = card.load(CStr::from_ptr(image).to_bytes())?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleUnload(module: u64) -> u32 {
    inside("cuModuleUnload", |card| card.unload(module))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut u64,
    module: u64,
    name: *const c_char,
) -> u32 {
    inside("cuModuleGetFunction", |card| {
        let name = CStr::from_ptr(name).to_string_lossy();
        *function = card.function(module, &name)?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetAttribute(value: *mut c_int, which: u32, function: u64) -> u32 {
    inside("cuFuncGetAttribute", |card| {
        let kernel = card.kernel(function)?;
        if which != 0 {
            let text = "an attribute of a function other than its most threads";
            return card.misuse(Status::INVALID_VALUE, text);
        }
        *value = table()[kernel].threads.unwrap_or(1024) as c_int;
        Ok(())
    })
}

#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // the driver's
pub unsafe extern "C" fn cuLaunchKernel(
    function: u64,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: u64,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> u32 {
    inside("cuLaunchKernel", |card| {
        let kernel = card.kernel(function)?;
        if shared_bytes != 0 || !extra.is_null() {
            let text = "dynamic shared memory and packed arguments are not emulated";
            return card.misuse(Status::INVALID_VALUE, text);
        }
        let letters = table()[kernel].params.bytes().enumerate();
        let values = letters
            .map(|(i, letter)| match letter {
                b'r' | b'w' => Value::Address((*params.add(i)).cast::<u64>().read()),
                _ => Value::Number((*params.add(i)).cast::<u32>().read()),
            })
            .collect();
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        card.launch(stream, kernel, [grid, block], values)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamBeginCapture_v2(stream: u64, _mode: u32) -> u32 {
    inside("cuStreamBeginCapture", |card| card.begin_capture(stream))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(stream: u64, graph: *mut u64) -> u32 {
    inside("cuStreamEndCapture", |card| {
        *graph = 0;
        *graph = card.end_capture(stream)?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(
    executable: *mut u64,
    graph: u64,
    _flags: c_ulonglong,
) -> u32 {
    inside("cuGraphInstantiate", |card| {
        *executable = card.instantiate(graph)?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphLaunch(executable: u64, stream: u64) -> u32 {
    inside("cuGraphLaunch", |card| {
        card.launch_graph(executable, stream)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphDestroy(graph: u64) -> u32 {
    inside("cuGraphDestroy", |card| card.destroy_graph(graph))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphExecDestroy(executable: u64) -> u32 {
    inside("cuGraphExecDestroy", |card| {
        card.destroy_executable(executable)
    })
}
