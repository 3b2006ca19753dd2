//! Runs the CUDA kernels of `kernels/` on the CPU: name, grid, block and arguments -> what the kernel wrote, or a fault.
//!
//! Every CUDA thread of a block is a fibre; barriers switch between them, in an order that the caller chooses. Found as
//! faults, with thread and block: accesses outside a buffer or misaligned for their width, shared memory read before it
//! is written, or by two threads with no barrier between, threads of a block that wait at different barriers, or have
//! ended while others wait. A missing barrier around *global* memory shows as different results of different schedules.
//!
//! Not emulated: cooperative groups, tensor cores, asynchronous copies, masks of a part of a warp, dynamic shared memory.
//! Arrays in a thread's registers are plain C++ arrays, whose bounds nobody checks. A loop without end
//! hangs. Says nothing about speed.
//!
//! A package of its own so that only tests need a C++ compiler; never published.

#![allow(unsafe_code)] // the calls into C++, each with its proof

use std::any::TypeId;
use std::ffi::{CStr, c_char, c_int};

use bytemuck::Pod;

mod digest;

pub use digest::digest;

/// In which order the blocks of a grid and the threads of a block run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// From the first to the last.
    Forward,
    /// From the last to the first.
    Reverse,
    /// Shuffled anew between barriers.
    Shuffled(u64),
}

/// Schedules that every kernel must pass: their results must be equal.
pub const SCHEDULES: [Schedule; 4] = [
    Schedule::Forward,
    Schedule::Reverse,
    Schedule::Shuffled(1),
    Schedule::Shuffled(2),
];

/// One argument of a kernel.
#[derive(Debug)]
pub enum Arg<'a> {
    /// `IN(T)`, and which `T`.
    In(&'a [u8], TypeId),
    /// `OUT(T)`.
    Out(&'a mut [u8], TypeId),
    /// `int`.
    I32(i32),
    /// `float`.
    F32(f32),
}

impl<'a> Arg<'a> {
    /// A buffer that the kernel reads.
    pub fn input<T: Pod>(values: &'a [T]) -> Self {
        Self::In(bytemuck::cast_slice(values), TypeId::of::<T>())
    }

    /// A buffer that the kernel writes, and may read.
    pub fn output<T: Pod>(values: &'a mut [T]) -> Self {
        Self::Out(bytemuck::cast_slice_mut(values), TypeId::of::<T>())
    }
}

/// `emu::Arg` of `shim/emu.h`: an argument of [`launch_raw`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RawArg {
    kind: u32,
    pad: u32,
    bytes: *mut u8,
    n_bytes: u64,
    bits: u64,
}

impl RawArg {
    /// A pointer to byte `at` of a buffer, or beyond it: then its use is a fault.
    pub fn buffer(is_writable: bool, bytes: *mut u8, n_bytes: usize, at: usize) -> Self {
        Self {
            kind: u32::from(is_writable),
            pad: 0,
            bytes,
            n_bytes: n_bytes as u64,
            bits: at as u64,
        }
    }

    /// The bits of an `int`, or of a `float`.
    pub fn number(is_float: bool, bits: u32) -> Self {
        Self {
            kind: if is_float { 3 } else { 2 },
            pad: 0,
            bytes: std::ptr::null_mut(),
            n_bytes: 0,
            bits: u64::from(bits),
        }
    }
}

/// `emu::Kernel` of `shim/emu.h`.
#[repr(C)]
struct RawKernel {
    name: *const c_char,
    source: *const c_char,
    params: *const c_char,
    call: *const (),
    digest: u64,
    threads: u64,
}

/// A kernel that was compiled.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// As in its source; those of `faulty/` begin with `faulty_`, those of wrong twins (`build.rs`) with `twin_<n>_`.
    pub name: &'static str,
    /// The file that holds it: `whiten.cu`.
    pub source: &'static str,
    /// [`digest()`] of that file and its header.
    pub digest: u64,
    /// A letter for each parameter: `r` a buffer that is read, `w` one that is written, `i` an `int`, `f` a `float`.
    pub params: &'static str,
    /// Threads of a block, as `THREADS` says.
    pub threads: Option<u32>,
}

unsafe extern "C" {
    fn emu_kernel_count() -> usize;
    fn emu_kernels() -> *const RawKernel;
    fn emu_launch(
        kernel: usize,
        grid: *const u32,
        block: *const u32,
        args: *const RawArg,
        n_args: usize,
        order: u32,
        seed: u64,
        text: *mut c_char,
        capacity: usize,
    ) -> c_int;
}

/// All kernels that were compiled; the place of one is its number for [`launch_raw`].
pub fn table() -> &'static [Kernel] {
    static TABLE: std::sync::LazyLock<Vec<Kernel>> = std::sync::LazyLock::new(|| {
        // SAFETY: no arguments; the table is a constant of as many entries as the count says, and lives for ever.
        let all = unsafe { std::slice::from_raw_parts(emu_kernels(), emu_kernel_count()) };
        // SAFETY: the texts of the table are string literals of C++, which live for ever.
        let text = |p| unsafe { CStr::from_ptr(p) }.to_str().unwrap_or("");
        all.iter()
            .map(|k| Kernel {
                name: text(k.name),
                source: text(k.source),
                digest: k.digest,
                params: text(k.params),
                threads: u32::try_from(k.threads).ok().filter(|n| *n > 0),
            })
            .collect()
    });
    &TABLE
}

/// Their names.
pub fn kernels() -> Vec<&'static str> {
    table().iter().map(|k| k.name).collect()
}

/// Runs a kernel.
///
/// # Errors
/// Says what is wrong with the launch, or what the kernel did that hardware would not forgive. Then outputs hold what
/// had been written until there.
pub fn launch(
    kernel: &str,
    grid: [u32; 3],
    block: [u32; 3],
    args: &mut [Arg<'_>],
    schedule: Schedule,
) -> Result<(), String> {
    let Some(number) = table().iter().position(|k| k.name == kernel) else {
        return Err(format!(
            "no kernel {kernel:?}; there are {}",
            kernels().join(", ")
        ));
    };
    let raw: Vec<RawArg> = args.iter_mut().map(raw).collect();
    // SAFETY: the buffers of `raw` are borrowed from `args` until after the call, those that are written exclusively.
    unsafe { launch_raw(number, grid, block, &raw, schedule) }
}

/// Runs a kernel by its number, on buffers that may overlap as a card's may.
///
/// # Safety
/// Every buffer is memory of its length, which nobody else uses until this returns.
///
/// # Errors
/// As [`launch`].
pub unsafe fn launch_raw(
    number: usize,
    grid: [u32; 3],
    block: [u32; 3],
    raw: &[RawArg],
    schedule: Schedule,
) -> Result<(), String> {
    let (order, seed) = match schedule {
        Schedule::Forward => (0, 0),
        Schedule::Reverse => (1, 0),
        Schedule::Shuffled(seed) => (2, seed),
    };
    let mut text = [0 as c_char; 1024];
    // SAFETY: `grid` and `block` are three numbers each, `raw` holds `raw.len()` arguments whose buffers are the caller's
    // promise, `text` has the length given. The shim refuses accesses outside the buffers and writes
    // to read-only ones, catches its exceptions, and keeps no pointer after it returns.
    let code = unsafe {
        emu_launch(
            number,
            grid.as_ptr(),
            block.as_ptr(),
            raw.as_ptr(),
            raw.len(),
            order,
            seed,
            text.as_mut_ptr(),
            text.len(),
        )
    };
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the shim ends the text with a zero byte within its length.
    let text = unsafe { CStr::from_ptr(text.as_ptr()) };
    Err(text.to_string_lossy().into_owned())
}

fn raw(arg: &mut Arg<'_>) -> RawArg {
    match arg {
        // Read only: the shim makes a span of constants of it, which has no way to write.
        Arg::In(b, _) => RawArg::buffer(false, b.as_ptr().cast_mut(), b.len(), 0),
        Arg::Out(b, _) => RawArg::buffer(true, b.as_mut_ptr(), b.len(), 0),
        Arg::I32(v) => RawArg::number(false, v.cast_unsigned()),
        Arg::F32(v) => RawArg::number(true, v.to_bits()),
    }
}

#[cfg(test)]
mod tests;
