//! Memory of the card, and memory of the host that copies to and from the card use.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::VecDeque;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytemuck::Pod;
use cudarc::driver::sys;
use num_complex::Complex32;

use super::context::Inner;
use super::{Context, CudaError, Pending};

/// What buffers hold.
pub trait Element: Pod + Send + Sync {
    /// As kernels call it: `IN(float2)`.
    const NAME: &'static str;
}

impl Element for f32 {
    const NAME: &'static str = "float";
}

impl Element for f64 {
    const NAME: &'static str = "double";
}

impl Element for i32 {
    const NAME: &'static str = "int";
}

impl Element for Complex32 {
    const NAME: &'static str = "float2";
}

/// Bytes of `len` elements.
fn bytes_of<T>(what: &str, len: usize) -> Result<usize, CudaError> {
    let bytes = len.checked_mul(size_of::<T>());
    bytes
        .filter(|b| *b > 0 && isize::try_from(*b).is_ok())
        .ok_or_else(|| CudaError::Wrong {
            what: what.to_owned(),
            why: format!("{len} elements: 1 and more are possible, in all below 2^63 bytes"),
        })
}

/// Given back when nobody holds it: the owner, and every stream and graph whose work uses it. So it is never given back,
/// and never another's, while work that was queued may touch it.
#[derive(Debug)]
pub(super) struct RawBuffer {
    pub(super) context: Arc<Inner>,
    pub(super) address: sys::CUdeviceptr,
    pub(super) bytes: usize,
}

impl Drop for RawBuffer {
    fn drop(&mut self) {
        self.context.free(self.address, self.bytes);
    }
}

/// Memory on the card for values of `T`; what it holds at first is anything.
///
/// Dropping it is safe at any time: streams hold the memory until the work that uses it is known to be done.
#[derive(Debug)]
pub struct Buffer<T> {
    pub(super) raw: Arc<RawBuffer>,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    pub(super) fn new(context: &Arc<Inner>, len: usize) -> Result<Self, CudaError> {
        let bytes = bytes_of::<T>("a buffer", len)?;
        let address = context.allocate(bytes)?;
        Ok(Self {
            raw: Arc::new(RawBuffer {
                context: context.clone(),
                address,
                bytes,
            }),
            len,
            of: PhantomData,
        })
    }

    /// Number of values.
    #[allow(clippy::len_without_is_empty)] // there is no empty one
    pub fn len(&self) -> usize {
        self.len
    }

    /// Address of `n` values from `from` on.
    pub(super) fn at(&self, from: usize, n: usize) -> Result<sys::CUdeviceptr, CudaError> {
        if from > self.len || n > self.len - from {
            return Err(CudaError::Wrong {
                what: format!("{n} values from {from} on"),
                why: format!("the buffer has {}", self.len),
            });
        }
        Ok(self.raw.address + (from * size_of::<T>()) as u64)
    }
}

const PAGE: usize = 4096;

/// Pages of the host, zeros at first.
#[derive(Debug)]
pub(super) struct Pages {
    address: *mut u8,
    layout: Layout,
}

// SAFETY: owned memory.
unsafe impl Send for Pages {}
// SAFETY: only its address can be read through a shared reference.
unsafe impl Sync for Pages {}

impl Pages {
    fn new(bytes: usize) -> Result<Self, CudaError> {
        let wrong = |why: String| CudaError::Wrong {
            what: format!("{bytes} bytes of pinned memory"),
            why,
        };
        let layout = Layout::from_size_align(bytes, PAGE).map_err(|e| wrong(e.to_string()))?;
        // SAFETY: the size is not zero, as `bytes_of` checked.
        let address = unsafe { alloc_zeroed(layout) };
        if address.is_null() {
            return Err(wrong("the host has no memory left".into()));
        }
        Ok(Self { address, layout })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: from `alloc_zeroed` with this layout.
        unsafe { dealloc(self.address, self.layout) };
    }
}

/// Pages that the driver knows. They are ours, so that a card that is reset cannot take them away.
#[derive(Debug)]
pub(super) struct RawPinned {
    context: Arc<Inner>,
    /// Some until it is dropped.
    pages: Option<Pages>,
    pub(super) address: *mut u8,
}

// SAFETY: owned memory, reached only through the one `Pinned` that has it, or by copies while nobody has.
unsafe impl Send for RawPinned {}
// SAFETY: as above.
unsafe impl Sync for RawPinned {}

impl RawPinned {
    fn new(context: &Arc<Inner>, bytes: usize) -> Result<Self, CudaError> {
        let pages = Pages::new(bytes)?;
        let address = pages.address;
        // SAFETY: memory of so many bytes, which stays in its place until it is unregistered.
        context.call("cuMemHostRegister", || unsafe {
            sys::cuMemHostRegister_v2(address.cast::<c_void>(), bytes, 0)
        })?;
        Ok(Self {
            context: context.clone(),
            pages: Some(pages),
            address,
        })
    }
}

impl Drop for RawPinned {
    fn drop(&mut self) {
        // SAFETY: registered once, in `new`; no copy is queued, for its stream would hold this.
        let done = self.context.call("cuMemHostUnregister", || unsafe {
            sys::cuMemHostUnregister(self.address.cast::<c_void>())
        });
        // Of a lost context that is not reset yet, a copy may still be on its way.
        if let (Err(_), Some(pages)) = (done, self.pages.take()) {
            self.context.bury(pages);
        }
    }
}

/// Memory of the host that the card copies to and from without help of the host.
///
/// A copy takes it away and gives it back when it is done ([`Pending`]): nobody can look at it or write to it too early.
#[derive(Debug)]
pub struct Pinned<T> {
    pub(super) raw: Arc<RawPinned>,
    len: usize,
    capacity: usize,
    of: PhantomData<T>,
}

impl<T: Element> Pinned<T> {
    pub(super) fn new(context: &Arc<Inner>, len: usize) -> Result<Self, CudaError> {
        let bytes = bytes_of::<T>("pinned memory", len)?;
        Ok(Self {
            raw: Arc::new(RawPinned::new(context, bytes)?),
            len,
            capacity: len,
            of: PhantomData,
        })
    }

    /// Most values that it has room for.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The same memory for values of another type, as many as fit. What they are is of no meaning.
    pub(super) fn cast<U: Element>(self) -> Pinned<U> {
        let capacity = self.capacity * size_of::<T>() / size_of::<U>();
        Pinned {
            raw: self.raw,
            len: capacity,
            capacity,
            of: PhantomData,
        }
    }

    /// Uses the first `len` values only, or as many as there are.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.capacity);
    }
}

impl<T: Element> Deref for Pinned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the memory has room for `capacity` values, is aligned to a page and was zeros or values of an `Element`,
        // all of which are plain data whatever their bits, from the start. No copy of the card touches it: a copy consumes
        // the `Pinned`, and only `Pending` gives it back, after the copy.
        unsafe { std::slice::from_raw_parts(self.raw.address.cast(), self.len) }
    }
}

impl<T: Element> DerefMut for Pinned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; there is one `Pinned` of this memory, and it is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.raw.address.cast(), self.len) }
    }
}

/// Pinned memory in turns: one piece is filled while the others travel.
#[derive(Debug)]
pub struct Staging<T> {
    free: Vec<Pinned<T>>,
    travelling: VecDeque<Pending<T>>,
}

impl<T: Element> Staging<T> {
    /// `n` pieces of `len` values.
    ///
    /// # Errors
    /// As [`Context::pinned`].
    pub fn new(context: &Context, n: usize, len: usize) -> Result<Self, CudaError> {
        let free = (0..n.max(1)).map(|_| context.pinned(len));
        Ok(Self {
            free: free.collect::<Result<_, _>>()?,
            travelling: VecDeque::new(),
        })
    }

    /// A piece of full length: a free one, else the one that left first, when it arrived.
    ///
    /// # Errors
    /// [`CudaError::Fault`], [`CudaError::Lost`]; [`CudaError::Wrong`] if all were taken and none given.
    pub fn take(&mut self) -> Result<Pinned<T>, CudaError> {
        let mut piece = if let Some(piece) = self.free.pop() {
            piece
        } else if let Some(pending) = self.travelling.pop_front() {
            pending.wait()?
        } else {
            return Err(CudaError::Wrong {
                what: "staging".into(),
                why: "all pieces were taken and none was given back".into(),
            });
        };
        piece.set_len(piece.capacity);
        Ok(piece)
    }

    /// A piece on its way.
    pub fn give(&mut self, pending: Pending<T>) {
        self.travelling.push_back(pending);
    }
}
