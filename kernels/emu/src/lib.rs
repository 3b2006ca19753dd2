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

use std::ffi::{CStr, c_char, c_int};

use bytemuck::Pod;

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
    /// `IN(T)`.
    In(&'a [u8]),
    /// `OUT(T)`.
    Out(&'a mut [u8]),
    /// `int`.
    I32(i32),
    /// `float`.
    F32(f32),
}

impl<'a> Arg<'a> {
    /// A buffer that the kernel reads.
    pub fn input<T: Pod>(values: &'a [T]) -> Self {
        Self::In(bytemuck::cast_slice(values))
    }

    /// A buffer that the kernel writes, and may read.
    pub fn output<T: Pod>(values: &'a mut [T]) -> Self {
        Self::Out(bytemuck::cast_slice_mut(values))
    }
}

/// `emu::Arg` of `shim/emu.h`.
#[repr(C)]
struct RawArg {
    kind: u32,
    pad: u32,
    bytes: *mut u8,
    n_bytes: u64,
    bits: u64,
}

unsafe extern "C" {
    fn emu_kernel_count() -> usize;
    fn emu_kernel_name(i: usize) -> *const c_char;
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

/// Names of all kernels that were compiled; those of `faulty/` begin with `faulty_`, those of wrong twins (`build.rs`) with
/// `twin_<n>_`.
pub fn kernels() -> Vec<&'static str> {
    // SAFETY: no arguments; reads a constant.
    let n = unsafe { emu_kernel_count() };
    (0..n)
        .filter_map(|i| {
            // SAFETY: `i` is below the count, so that this is a string literal of C++, which lives for ever.
            let name = unsafe { CStr::from_ptr(emu_kernel_name(i)) };
            name.to_str().ok()
        })
        .collect()
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
    let Some(idx) = kernels().iter().position(|k| *k == kernel) else {
        return Err(format!(
            "no kernel {kernel:?}; there are {}",
            kernels().join(", ")
        ));
    };
    let raw: Vec<RawArg> = args.iter_mut().map(raw).collect();
    let (order, seed) = match schedule {
        Schedule::Forward => (0, 0),
        Schedule::Reverse => (1, 0),
        Schedule::Shuffled(seed) => (2, seed),
    };
    let mut text = [0 as c_char; 1024];
    // SAFETY: `grid` and `block` are three numbers each, `raw` holds `raw.len()` arguments whose buffers are borrowed from
    // `args` until after the call, `text` has the length given. The shim refuses accesses outside the buffers and writes
    // to read-only ones, catches its exceptions, and keeps no pointer after it returns.
    let code = unsafe {
        emu_launch(
            idx,
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
    let (kind, bytes, n, bits) = match arg {
        // Read only: the shim makes a span of constants of it, which has no way to write.
        Arg::In(b) => (0, b.as_ptr().cast_mut(), b.len(), 0),
        Arg::Out(b) => (1, b.as_mut_ptr(), b.len(), 0),
        Arg::I32(v) => (2, std::ptr::null_mut(), 0, u64::from(v.cast_unsigned())),
        Arg::F32(v) => (3, std::ptr::null_mut(), 0, u64::from(v.to_bits())),
    };
    RawArg {
        kind,
        pad: 0,
        bytes,
        n_bytes: n as u64,
        bits,
    }
}

#[cfg(test)]
mod tests;
