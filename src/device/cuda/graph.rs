//! Work that is queued once and done many times.
#![allow(unsafe_code)]

use std::any::Any;
use std::sync::Arc;

use cudarc::driver::sys;

use super::context::Inner;
use super::driver::Handle;
use super::stream::{Queue, elsewhere};
use super::{Arg, Buffer, Context, CudaError, Element, Stream};

/// Launches on the card in one call. It holds the buffers that it uses; what they hold at each replay is what it works on.
#[derive(Clone, Debug)]
pub struct Graph(pub(super) Arc<Raw>);

#[derive(Debug)]
pub(super) struct Raw {
    context: Arc<Inner>,
    executable: Handle<sys::CUgraphExec_st>,
    kernels: Vec<&'static str>,
    /// Alive for as long as the graph is: its launches name their addresses.
    _kept: Vec<Arc<dyn Any + Send + Sync>>,
}

/// What is captured: work that stays on the card. Copies from and to the host, events and other graphs do not belong in it,
/// and kernels must be loaded before ([`Context::load`]).
#[derive(Debug)]
pub struct Capture(Stream);

impl Queue for Capture {
    /// As [`Stream::launch`]; [`CudaError::Wrong`] for a kernel that is not loaded.
    fn launch(&self, kernel: &str, grid: [u32; 3], args: &[Arg<'_>]) -> Result<(), CudaError> {
        self.0.launch(kernel, grid, args)
    }
}

impl Capture {
    /// As [`Stream::copy`].
    ///
    /// # Errors
    /// The same.
    pub fn copy<T: Element>(
        &self,
        from: (&Buffer<T>, usize),
        to: (&mut Buffer<T>, usize),
        n: usize,
    ) -> Result<(), CudaError> {
        self.0.copy(from, to, n)
    }

    /// As [`Stream::clear`].
    ///
    /// # Errors
    /// The same.
    pub fn clear<T: Element>(&self, buffer: &mut Buffer<T>) -> Result<(), CudaError> {
        self.0.clear(buffer)
    }
}

impl Context {
    /// Makes a graph of what `f` queues, which is not done yet.
    ///
    /// # Errors
    /// Those of `f`; [`CudaError::Call`], [`CudaError::Lost`].
    pub fn capture(
        &self,
        f: impl FnOnce(&Capture) -> Result<(), CudaError>,
    ) -> Result<Graph, CudaError> {
        let context = &self.0;
        // Its own stream, so that nobody else can queue on it meanwhile. Relaxed: other work of this thread is not on it.
        let capture = Capture(Stream::of(context, true)?);
        let stream = &capture.0.0;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is alive, and nothing is queued on it.
        context.call("cuStreamBeginCapture", || unsafe {
            sys::cuStreamBeginCapture_v2(stream.raw.0, mode)
        })?;
        let queued = f(&capture);
        let mut raw = std::ptr::null_mut();
        // SAFETY: the stream is alive; writes one handle to the address of one.
        let ended = context.call("cuStreamEndCapture", || unsafe {
            sys::cuStreamEndCapture(stream.raw.0, &mut raw)
        });
        let template = Template(context, raw);
        queued?;
        ended?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the graph is alive; writes one handle to the address of one.
        context.call("cuGraphInstantiate", || unsafe {
            sys::cuGraphInstantiateWithFlags(&mut raw, template.1, 0)
        })?;
        let (kernels, kept) = stream.take();
        Ok(Graph(Arc::new(Raw {
            context: context.clone(),
            executable: Handle(raw),
            kernels,
            _kept: kept,
        })))
    }
}

/// Destroyed when an executable graph was made of it, or not.
struct Template<'a>(&'a Inner, sys::CUgraph);

impl Drop for Template<'_> {
    fn drop(&mut self) {
        if !self.1.is_null() {
            // SAFETY: from `cuStreamEndCapture`, destroyed once.
            drop(
                self.0
                    .call("cuGraphDestroy", || unsafe { sys::cuGraphDestroy(self.1) }),
            );
        }
    }
}

impl Graph {
    pub(super) fn executable(
        &self,
        context: &Arc<Inner>,
    ) -> Result<Handle<sys::CUgraphExec_st>, CudaError> {
        match Arc::ptr_eq(context, &self.0.context) {
            true => Ok(self.0.executable),
            false => Err(elsewhere("a graph")),
        }
    }

    /// Its kernels.
    pub fn kernels(&self) -> &[&'static str] {
        &self.0.kernels
    }

    /// The first of them, for messages.
    pub(super) fn name(&self) -> &'static str {
        self.0.kernels.first().copied().unwrap_or("a graph")
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: from `cuGraphInstantiate`, destroyed once, when no stream has it queued.
        drop(self.context.call("cuGraphExecDestroy", || unsafe {
            sys::cuGraphExecDestroy(self.executable.0)
        }));
    }
}
