//! Queues of work on a card: copies, launches, and what waits for what.
#![allow(unsafe_code)]

use std::any::Any;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::{self, CUresult};

use super::context::{Inner, find, lock};
use super::driver::{Handle, elapsed};
use super::memory::RawBuffer;
use super::signature::{Param, Signature};
use super::{Buffer, CudaError, Element, Graph, Pinned};

/// An argument of a kernel.
#[derive(Debug)]
pub enum Arg<'a> {
    /// `IN(T)`.
    In(View<'a>),
    /// `OUT(T)`. Exclusive, for kernels may assume that nothing else is the same memory.
    Out(View<'a>),
    /// `int`.
    I32(i32),
    /// `float`.
    F32(f32),
}

/// A buffer from some value on.
#[derive(Debug)]
pub struct View<'a> {
    raw: &'a Arc<RawBuffer>,
    from_bytes: usize,
    element: &'static str,
}

impl<'a> Arg<'a> {
    /// A buffer that the kernel reads.
    pub fn input<T: Element>(buffer: &'a Buffer<T>) -> Self {
        Self::input_from(buffer, 0)
    }

    /// The same, from a value on. Kernels read 16 bytes at a time: it must begin at a multiple.
    pub fn input_from<T: Element>(buffer: &'a Buffer<T>, from: usize) -> Self {
        Self::In(View::new(buffer, from))
    }

    /// A buffer that the kernel writes.
    pub fn output<T: Element>(buffer: &'a mut Buffer<T>) -> Self {
        Self::output_from(buffer, 0)
    }

    /// The same, from a value on, as [`Self::input_from`].
    pub fn output_from<T: Element>(buffer: &'a mut Buffer<T>, from: usize) -> Self {
        Self::Out(View::new(buffer, from))
    }

    fn matches(&self, param: &Param) -> bool {
        match (self, param) {
            (Self::In(v), Param::In(t)) | (Self::Out(v), Param::Out(t)) => v.element == t,
            (Self::I32(_), Param::I32) | (Self::F32(_), Param::F32) => true,
            _ => false,
        }
    }
}

impl<'a> View<'a> {
    fn new<T: Element>(buffer: &'a Buffer<T>, from: usize) -> Self {
        Self {
            raw: &buffer.raw,
            from_bytes: from.saturating_mul(size_of::<T>()),
            element: T::NAME,
        }
    }
}

impl std::fmt::Display for Arg<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::In(v) => write!(f, "IN({})", v.element),
            Self::Out(v) => write!(f, "OUT({})", v.element),
            Self::I32(_) => write!(f, "int"),
            Self::F32(_) => write!(f, "float"),
        }
    }
}

/// What work needs for as long as it is queued.
type Kept = Arc<dyn Any + Send + Sync>;

#[derive(Debug, Default)]
struct Queued {
    /// Of the last piece of work.
    ticket: u64,
    /// By address: the ticket of the last piece of work that uses it.
    kept: BTreeMap<usize, (u64, Kept)>,
    kernels: BTreeMap<&'static str, u64>,
}

#[derive(Debug)]
pub(super) struct Inside {
    pub(super) context: Arc<Inner>,
    pub(super) raw: Handle<sys::CUstream_st>,
    queued: Mutex<Queued>,
    pub(super) is_capturing: bool,
}

/// A queue of work, done in order. Streams know nothing of each other but by events: what one writes and another reads
/// needs [`Stream::record`] there and [`Stream::wait`] here.
///
/// All that queued work uses (buffers, pinned memory, graphs) is held until the work is known to be done: when the stream,
/// or an event after it, was waited for. Dropping the stream waits.
#[derive(Clone, Debug)]
pub struct Stream(pub(super) Arc<Inside>);

/// What kernels can be launched on: a queue whose work is done, or one that is captured.
pub trait Queue {
    /// As [`Stream::launch`].
    ///
    /// # Errors
    /// The same.
    fn launch(&self, kernel: &str, grid: [u32; 3], args: &[Arg<'_>]) -> Result<(), CudaError>;
}

impl Queue for Stream {
    fn launch(&self, kernel: &str, grid: [u32; 3], args: &[Arg<'_>]) -> Result<(), CudaError> {
        Self::launch(self, kernel, grid, args)
    }
}

impl Stream {
    pub(super) fn new(context: &Arc<Inner>) -> Result<Self, CudaError> {
        Self::of(context, false)
    }

    pub(super) fn of(context: &Arc<Inner>, is_capturing: bool) -> Result<Self, CudaError> {
        Ok(Self(Arc::new(Inside {
            context: context.clone(),
            raw: context.create_stream()?,
            queued: Mutex::default(),
            is_capturing,
        })))
    }

    /// Copies to the card, from value `at` of the buffer on.
    ///
    /// # Errors
    /// [`CudaError::Wrong`] for what does not fit; [`CudaError::Call`], [`CudaError::Fault`], [`CudaError::Lost`].
    pub fn upload<T: Element>(
        &self,
        from: Pinned<T>,
        to: &mut Buffer<T>,
        at: usize,
    ) -> Result<Pending<T>, CudaError> {
        let address = to.at(at, from.len())?;
        let (pointer, bytes) = (from.raw.address, size_of_val(&*from));
        self.copied(from, to, "cuMemcpyHtoDAsync", |stream| {
            // SAFETY: `address` has room for as many bytes, as `at` checked. Both sides are kept by this stream, and the
            // `Pinned` comes back to the caller only after the copy.
            unsafe { sys::cuMemcpyHtoDAsync_v2(address, pointer.cast::<c_void>(), bytes, stream) }
        })
    }

    /// Copies from the card as many values as `to` has, from value `at` of the buffer on.
    ///
    /// # Errors
    /// As [`Self::upload`].
    pub fn download<T: Element>(
        &self,
        from: &Buffer<T>,
        at: usize,
        to: Pinned<T>,
    ) -> Result<Pending<T>, CudaError> {
        let address = from.at(at, to.len())?;
        let (pointer, bytes) = (to.raw.address, size_of_val(&*to));
        self.copied(to, from, "cuMemcpyDtoHAsync", |stream| {
            // SAFETY: as for `upload`.
            unsafe { sys::cuMemcpyDtoHAsync_v2(pointer.cast::<c_void>(), address, bytes, stream) }
        })
    }

    fn copied<T: Element>(
        &self,
        pinned: Pinned<T>,
        buffer: &Buffer<T>,
        call: &'static str,
        f: impl FnOnce(sys::CUstream) -> CUresult,
    ) -> Result<Pending<T>, CudaError> {
        self.0.is_ours(&buffer.raw)?;
        if pinned.is_empty() {
            return Err(CudaError::Wrong {
                what: "a copy".into(),
                why: "it is of nothing".into(),
            });
        }
        let kept: Vec<Kept> = vec![pinned.raw.clone(), buffer.raw.clone()];
        self.0.queue(call, None, kept, f)?;
        let event = self.record()?;
        Ok(Pending { event, pinned })
    }

    /// Copies on the card: `n` values.
    ///
    /// # Errors
    /// As [`Self::upload`].
    pub fn copy<T: Element>(
        &self,
        (from, from_at): (&Buffer<T>, usize),
        (to, to_at): (&mut Buffer<T>, usize),
        n: usize,
    ) -> Result<(), CudaError> {
        self.0.is_ours(&from.raw)?;
        self.0.is_ours(&to.raw)?;
        let (source, target) = (from.at(from_at, n)?, to.at(to_at, n)?);
        let bytes = n * size_of::<T>();
        let kept: Vec<Kept> = vec![from.raw.clone(), to.raw.clone()];
        self.0.queue("cuMemcpyDtoDAsync", None, kept, |stream| {
            // SAFETY: both ranges lie in their buffers, as `at` checked, which this stream keeps.
            unsafe { sys::cuMemcpyDtoDAsync_v2(target, source, bytes, stream) }
        })
    }

    /// Zeros.
    ///
    /// # Errors
    /// As [`Self::upload`].
    pub fn clear<T: Element>(&self, buffer: &mut Buffer<T>) -> Result<(), CudaError> {
        self.0.is_ours(&buffer.raw)?;
        let (address, bytes) = (buffer.raw.address, buffer.raw.bytes);
        self.0.queue(
            "cuMemsetD8Async",
            None,
            vec![buffer.raw.clone()],
            |stream| {
                // SAFETY: the whole buffer, which this stream keeps. Zeros are a value of every plain type.
                unsafe { sys::cuMemsetD8Async(address, 0, bytes, stream) }
            },
        )
    }

    /// Launches a kernel of `kernels/` on a grid of blocks; the block is what its text says.
    ///
    /// Sizes among the arguments are the caller's to get right: they say how far the kernel reads and writes.
    ///
    /// # Errors
    /// [`CudaError::Wrong`] for a kernel, a grid or arguments that do not fit, before the driver is asked; as
    /// [`Context::load`](super::Context::load), where the kernel is loaded by this; [`CudaError::Call`], [`CudaError::Fault`],
    /// [`CudaError::Lost`]. What goes wrong in the kernel itself is told by whatever waits for it.
    pub fn launch(&self, kernel: &str, grid: [u32; 3], args: &[Arg<'_>]) -> Result<(), CudaError> {
        let of = find(kernel)?;
        check(of, grid, args)?;
        let mut kept: Vec<Kept> = Vec::with_capacity(args.len());
        let mut words: Vec<u64> = Vec::with_capacity(args.len());
        for arg in args {
            words.push(match arg {
                Arg::In(v) | Arg::Out(v) => {
                    self.0.is_ours(v.raw)?;
                    kept.push(v.raw.clone());
                    v.raw.address + v.from_bytes as u64
                }
                // The driver reads the first four bytes.
                Arg::I32(v) => u64::from_le_bytes(low(v.to_le_bytes())),
                Arg::F32(v) => u64::from_le_bytes(low(v.to_le_bytes())),
            });
        }
        let function = self.0.context.function(of, !self.0.is_capturing)?;
        let mut params: Vec<*mut c_void> = words
            .iter_mut()
            .map(|w| std::ptr::from_mut(w).cast::<c_void>())
            .collect();
        let [x, y, z] = grid;
        let call = "cuLaunchKernel";
        self.0.queue(call, Some(&of.name), kept, |stream| {
            // SAFETY: the function is of a module of this context, which lives as long as the stream. There is one
            // parameter of its type for each of the kernel's, as `check` compared with its text; the driver copies them
            // during the call. Buffers are kept until the kernel is done.
            unsafe {
                sys::cuLaunchKernel(
                    function.0,
                    x,
                    y,
                    z,
                    of.threads,
                    1,
                    1,
                    0,
                    stream,
                    params.as_mut_ptr(),
                    std::ptr::null_mut(),
                )
            }
        })
    }

    /// Does again what was captured.
    ///
    /// # Errors
    /// [`CudaError::Wrong`] for a graph of another context; [`CudaError::Call`], [`CudaError::Fault`], [`CudaError::Lost`].
    pub fn replay(&self, graph: &Graph) -> Result<(), CudaError> {
        let executable = graph.executable(&self.0.context)?;
        let kept: Vec<Kept> = vec![graph.0.clone()];
        let name = graph.name();
        self.0.queue("cuGraphLaunch", Some(name), kept, |stream| {
            // SAFETY: the graph is kept until it is done, and with it the buffers that it uses.
            unsafe { sys::cuGraphLaunch(executable.0, stream) }
        })
    }

    /// The end of all that is queued now.
    ///
    /// # Errors
    /// [`CudaError::Call`], [`CudaError::Fault`], [`CudaError::Lost`].
    pub fn record(&self) -> Result<Event, CudaError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one handle to the address of one.
        self.0.context.call("cuEventCreate", || unsafe {
            sys::cuEventCreate(&mut raw, 0)
        })?;
        let mut event = Event {
            stream: self.0.clone(),
            raw: Handle(raw),
            ticket: 0,
        };
        let queued = lock(&self.0.queued);
        // SAFETY: event and stream are alive.
        self.0.context.call("cuEventRecord", || unsafe {
            sys::cuEventRecord(raw, self.0.raw.0)
        })?;
        event.ticket = queued.ticket;
        drop(queued);
        Ok(event)
    }

    /// What is queued from now on begins after the event.
    ///
    /// # Errors
    /// As [`Self::record`]; [`CudaError::Wrong`] for an event of another context.
    pub fn wait(&self, event: &Event) -> Result<(), CudaError> {
        if !Arc::ptr_eq(&self.0.context, &event.stream.context) {
            return Err(elsewhere("an event"));
        }
        // The wait outlives the event: the driver keeps what it needs of it.
        self.0
            .queue("cuStreamWaitEvent", None, Vec::new(), |stream| {
                // SAFETY: stream and event are alive, of this context.
                unsafe { sys::cuStreamWaitEvent(stream, event.raw.0, 0) }
            })
    }

    /// Waits until all is done.
    ///
    /// # Errors
    /// [`CudaError::Fault`] names what was queued; [`CudaError::Lost`].
    pub fn synchronise(&self) -> Result<(), CudaError> {
        self.0.synchronise()
    }
}

/// The kernel is given what its text asks for.
fn check(of: &Signature, grid: [u32; 3], args: &[Arg<'_>]) -> Result<(), CudaError> {
    let wrong = |why: String| {
        Err(CudaError::Wrong {
            what: format!("kernel {}", of.name),
            why,
        })
    };
    let most = [0x7fff_ffff, 65535, 65535];
    if grid.iter().zip(most).any(|(n, most)| *n == 0 || *n > most) {
        return wrong(format!(
            "a grid of {grid:?} blocks: 1 to {most:?} are possible"
        ));
    }
    let fits =
        args.len() == of.params.len() && args.iter().zip(&of.params).all(|(a, p)| a.matches(p));
    if !fits {
        let list = |all: Vec<String>| all.join(", ");
        return wrong(format!(
            "arguments ({}), needed ({})",
            list(args.iter().map(Arg::to_string).collect()),
            list(of.params.iter().map(Param::to_string).collect())
        ));
    }
    for (i, arg) in args.iter().enumerate() {
        if let Arg::In(v) | Arg::Out(v) = arg
            && (v.from_bytes >= v.raw.bytes || !v.from_bytes.is_multiple_of(16))
        {
            return wrong(format!(
                "argument {i} begins at byte {} of {}: a multiple of 16 inside is needed",
                v.from_bytes, v.raw.bytes
            ));
        }
    }
    Ok(())
}

fn low(bytes: [u8; 4]) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&bytes);
    out
}

pub(super) fn elsewhere(what: &str) -> CudaError {
    CudaError::Wrong {
        what: what.to_owned(),
        why: "it is of another context, or of one that was lost".into(),
    }
}

impl Inside {
    fn is_ours(&self, buffer: &RawBuffer) -> Result<(), CudaError> {
        match Arc::ptr_eq(&self.context, &buffer.context) {
            true => Ok(()),
            false => Err(elsewhere("a buffer")),
        }
    }

    /// Queues one piece of work and keeps what it uses. The lock is held, so that tickets are in the stream's order.
    fn queue(
        &self,
        call: &'static str,
        kernel: Option<&'static str>,
        kept: Vec<Kept>,
        f: impl FnOnce(sys::CUstream) -> CUresult,
    ) -> Result<(), CudaError> {
        let mut queued = lock(&self.queued);
        queued.ticket += 1;
        let ticket = queued.ticket;
        for k in kept {
            queued
                .kept
                .insert(Arc::as_ptr(&k).cast::<()>().addr(), (ticket, k));
        }
        queued.kernels.extend(kernel.map(|k| (k, ticket)));
        let done = self.context.call(call, || f(self.raw.0));
        drop(queued);
        done.map_err(|e| self.name(e))
    }

    /// Says what was queued, one of which it was.
    fn name(&self, e: CudaError) -> CudaError {
        let names: Vec<&str> = lock(&self.queued).kernels.keys().copied().collect();
        e.with_queued(&names)
    }

    fn synchronise(&self) -> Result<(), CudaError> {
        let ticket = lock(&self.queued).ticket;
        // SAFETY: the stream is alive.
        let done = self.context.call("cuStreamSynchronize", || unsafe {
            sys::cuStreamSynchronize(self.raw.0)
        });
        self.finish(done, ticket)
    }

    /// Lets go of what is done.
    fn finish(&self, done: Result<(), CudaError>, ticket: u64) -> Result<(), CudaError> {
        done.map_err(|e| self.name(e))?;
        let mut queued = lock(&self.queued);
        queued.kernels.retain(|_, t| *t > ticket);
        let all = std::mem::take(&mut queued.kept);
        let (later, past): (BTreeMap<_, _>, BTreeMap<_, _>) =
            all.into_iter().partition(|(_, (t, _))| *t > ticket);
        queued.kept = later;
        drop(queued);
        drop(past);
        Ok(())
    }

    /// Kernels and all that they use, of a capture.
    pub(super) fn take(&self) -> (Vec<&'static str>, Vec<Kept>) {
        let queued = std::mem::take(&mut *lock(&self.queued));
        let kept = queued.kept.into_values().map(|(_, k)| k).collect();
        (queued.kernels.into_keys().collect(), kept)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // What is kept is dropped after this, when all is done or the context lost.
        drop(self.synchronise());
        // SAFETY: from `cuStreamCreate`, destroyed once.
        drop(self.context.call("cuStreamDestroy", || unsafe {
            sys::cuStreamDestroy_v2(self.raw.0)
        }));
    }
}

/// A place in the order of a stream.
#[derive(Debug)]
pub struct Event {
    stream: Arc<Inside>,
    raw: Handle<sys::CUevent_st>,
    ticket: u64,
}

impl Event {
    /// Waits until all before it is done.
    ///
    /// # Errors
    /// As [`Stream::synchronise`].
    pub fn synchronise(&self) -> Result<(), CudaError> {
        // SAFETY: the event is alive.
        let done = self.stream.context.call("cuEventSynchronize", || unsafe {
            sys::cuEventSynchronize(self.raw.0)
        });
        self.stream.finish(done, self.ticket)
    }

    /// Whether all before it is done.
    ///
    /// # Errors
    /// As [`Stream::synchronise`].
    pub fn is_done(&self) -> Result<bool, CudaError> {
        let mut is_done = true;
        let done = self.stream.context.call("cuEventQuery", || {
            // SAFETY: the event is alive.
            match unsafe { sys::cuEventQuery(self.raw.0) } {
                CUresult::CUDA_ERROR_NOT_READY => {
                    is_done = false;
                    CUresult::CUDA_SUCCESS
                }
                status => status,
            }
        });
        if done.is_ok() && !is_done {
            return Ok(false);
        }
        self.stream.finish(done, self.ticket)?;
        Ok(true)
    }

    /// Time of the card between an earlier event and this one, both done.
    ///
    /// # Errors
    /// [`CudaError::Call`] if one is not done; [`CudaError::Lost`]; [`CudaError::Wrong`] for one of another context.
    pub fn since(&self, earlier: &Self) -> Result<std::time::Duration, CudaError> {
        if !Arc::ptr_eq(&self.stream.context, &earlier.stream.context) {
            return Err(elsewhere("an event"));
        }
        let mut ms = 0.0f32;
        // SAFETY: both are alive, of this context.
        self.stream.context.call("cuEventElapsedTime", || unsafe {
            elapsed(&mut ms, earlier.raw.0, self.raw.0)
        })?;
        Ok(std::time::Duration::from_secs_f32(ms.max(0.0) / 1000.0))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: from `cuEventCreate`, destroyed once; who waits for it already, waits on.
        drop(self.stream.context.call("cuEventDestroy", || unsafe {
            sys::cuEventDestroy_v2(self.raw.0)
        }));
    }
}

/// Pinned memory on its way. Dropping this is safe: the stream holds the memory until the copy is done.
#[derive(Debug)]
#[must_use = "the memory comes back by waiting"]
pub struct Pending<T> {
    event: Event,
    pinned: Pinned<T>,
}

impl<T: Element> Pending<T> {
    /// Waits until the copy is done.
    ///
    /// # Errors
    /// As [`Stream::synchronise`].
    pub fn wait(self) -> Result<Pinned<T>, CudaError> {
        self.event.synchronise()?;
        Ok(self.pinned)
    }

    /// The same memory for values of another type.
    pub(super) fn cast<U: Element>(self) -> Pending<U> {
        Pending {
            event: self.event,
            pinned: self.pinned.cast(),
        }
    }

    /// Whether the copy is done.
    ///
    /// # Errors
    /// As [`Stream::synchronise`].
    pub fn is_done(&self) -> Result<bool, CudaError> {
        self.event.is_done()
    }
}
