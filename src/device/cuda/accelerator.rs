//! A card as operators see it: queues, transforms and staging memory that outlive a frame.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use num_complex::Complex32;

use super::context::lock;
use super::fft::Transform;
use super::{Buffer, Context, CudaError, Element, FftPlan, Pending, Pinned, Stream};

/// Staging memory for samples that is kept between frames, at most.
const MOST_KEPT: usize = 16;
/// Samples in a small piece of staging memory: tables, and numbers that come back.
const SMALL: usize = 8192;
/// Small pieces that are kept: registering one with the driver takes longer than most kernels.
const MOST_SMALL_KEPT: usize = 64;

/// A card, warm.
#[derive(Debug)]
pub struct Accelerator {
    context: Context,
    streams: Mutex<Vec<Stream>>,
    transforms: Mutex<BTreeMap<usize, Arc<Transform>>>,
    staging: Mutex<Vec<Pinned<Complex32>>>,
    small: Mutex<Vec<Pinned<Complex32>>>,
    /// Pieces of either size whose copies nobody waits for: they come back when they are next looked for.
    travelling: Mutex<Vec<Pending<Complex32>>>,
}

impl Accelerator {
    /// The first card, with what of its memory is free now, less a tenth for others; the same one for as long as anybody
    /// holds it and it is not lost.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn open() -> Result<Arc<Self>, CudaError> {
        static SHARED: Mutex<Weak<Accelerator>> = Mutex::new(Weak::new());
        let mut shared = lock(&SHARED);
        if let Some(open) = shared.upgrade().filter(|a| a.context.is_open()) {
            return Ok(open);
        }
        let context = Context::open(0, 0)?;
        let (free, _) = context.card_memory()?;
        // The same context, with its budget.
        let opened = Arc::new(Self::new(Context::open(0, free / 10 * 9)?));
        *shared = Arc::downgrade(&opened);
        Ok(opened)
    }

    /// Around an open card.
    pub fn new(context: Context) -> Self {
        Self {
            context,
            streams: Mutex::default(),
            transforms: Mutex::default(),
            staging: Mutex::default(),
            small: Mutex::default(),
            travelling: Mutex::default(),
        }
    }

    /// The card.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Runs `work` on a queue of its own, and waits for what it queued. A queue on which something failed is given up.
    ///
    /// # Errors
    /// Those of `work`, and [`CudaError::Fault`] or [`CudaError::Lost`] for what it queued.
    pub fn run<T>(
        &self,
        work: impl FnOnce(&Stream) -> Result<T, CudaError>,
    ) -> Result<T, CudaError> {
        let known = lock(&self.streams).pop();
        let stream = known.map_or_else(|| self.context.stream(), Ok)?;
        let done = work(&stream)?;
        stream.synchronise()?;
        lock(&self.streams).push(stream);
        Ok(done)
    }

    /// Transforms of length `n`.
    ///
    /// # Errors
    /// [`CudaError::Wrong`] if the kernels have none of it ([`FftPlan::new`]); as [`Context::buffer`] and
    /// [`Stream::upload`], the first time.
    pub fn transform(&self, n: usize) -> Result<Arc<Transform>, CudaError> {
        if let Some(known) = lock(&self.transforms).get(&n) {
            return Ok(known.clone());
        }
        let plan = FftPlan::new(n).ok_or_else(|| CudaError::Wrong {
            what: format!("a transform of length {n}"),
            why: "the kernels have none".into(),
        })?;
        // Other queues may use it at once: it is there before anyone gets it.
        let twiddles = self.run(|stream| self.upload(stream, &plan.twiddles))?;
        let transform = Arc::new(Transform::new(plan, twiddles));
        Ok(lock(&self.transforms).entry(n).or_insert(transform).clone())
    }

    /// A copy on the card; [`Self::send`] for large ones.
    ///
    /// # Errors
    /// As [`Context::buffer`], [`Context::pinned`] and [`Stream::upload`].
    pub fn upload<T: Element>(
        &self,
        stream: &Stream,
        values: &[T],
    ) -> Result<Buffer<T>, CudaError> {
        let mut pinned = self.piece(values.len())?;
        pinned.copy_from_slice(values);
        let mut buffer = self.context.buffer(values.len())?;
        let pending = stream.upload(pinned, &mut buffer, 0)?;
        lock(&self.travelling).push(pending.cast());
        Ok(buffer)
    }

    /// What is in a buffer, when all that was queued before is done.
    ///
    /// # Errors
    /// As [`Context::pinned`], [`Stream::download`] and [`Pending::wait`].
    pub fn download<T: Element>(
        &self,
        stream: &Stream,
        buffer: &Buffer<T>,
    ) -> Result<Vec<T>, CudaError> {
        let pinned = self.piece(buffer.len())?;
        let pinned = stream.download(buffer, 0, pinned)?.wait()?;
        let values = pinned.to_vec();
        self.give_back(pinned.cast());
        Ok(values)
    }

    /// Staging memory for `len` values of any type, after taking back what arrived.
    fn piece<T: Element>(&self, len: usize) -> Result<Pinned<T>, CudaError> {
        let travelling = std::mem::take(&mut *lock(&self.travelling));
        for pending in travelling {
            match pending.is_done() {
                Ok(true) => self.give_back(pending.wait()?),
                Ok(false) => lock(&self.travelling).push(pending),
                // Whoever waits for that queue hears of it.
                Err(_) => {}
            }
        }
        let samples = (len * size_of::<T>()).div_ceil(size_of::<Complex32>());
        let mut piece = self.pinned(samples)?.cast();
        piece.set_len(len);
        Ok(piece)
    }

    /// A copy of samples on the card, through staging memory that is kept: give what it leaves to [`Self::keep`].
    ///
    /// # Errors
    /// As [`Self::upload`].
    pub fn send(
        &self,
        stream: &Stream,
        values: &[Complex32],
    ) -> Result<(Buffer<Complex32>, Pending<Complex32>), CudaError> {
        let mut buffer = self.context.buffer(values.len())?;
        let pending = self.send_into(stream, values, &mut buffer)?;
        Ok((buffer, pending))
    }

    /// [`Self::send`] into a buffer that is there.
    ///
    /// # Errors
    /// As [`Context::pinned`] and [`Stream::upload`].
    pub fn send_into(
        &self,
        stream: &Stream,
        values: &[Complex32],
        buffer: &mut Buffer<Complex32>,
    ) -> Result<Pending<Complex32>, CudaError> {
        let mut pinned = self.pinned(values.len())?;
        pinned.copy_from_slice(values);
        stream.upload(pinned, buffer, 0)
    }

    /// Queues a copy of a buffer to the host, in staging memory.
    ///
    /// # Errors
    /// As [`Context::pinned`] and [`Stream::download`].
    pub fn fetch(
        &self,
        stream: &Stream,
        buffer: &Buffer<Complex32>,
    ) -> Result<Pending<Complex32>, CudaError> {
        let pinned = self.pinned(buffer.len())?;
        stream.download(buffer, 0, pinned)
    }

    /// Staging memory for `len` samples.
    fn pinned(&self, len: usize) -> Result<Pinned<Complex32>, CudaError> {
        if len <= SMALL {
            let kept = lock(&self.small).pop();
            let mut piece = kept.map_or_else(|| self.context.pinned(SMALL), Ok)?;
            piece.set_len(len);
            return Ok(piece);
        }
        // The smallest that is large enough.
        let mut staging = lock(&self.staging);
        let fitting = staging.iter().enumerate();
        let fitting = fitting.filter(|(_, p)| p.capacity() >= len);
        let fitting = fitting.min_by_key(|(_, p)| p.capacity()).map(|(i, _)| i);
        let kept = fitting.map(|i| staging.swap_remove(i));
        drop(staging);
        let mut piece = kept.map_or_else(|| self.context.pinned(len), Ok)?;
        piece.set_len(len);
        Ok(piece)
    }

    /// Waits for staging memory and keeps it.
    ///
    /// # Errors
    /// As [`Pending::wait`].
    pub fn keep(&self, pending: Pending<Complex32>) -> Result<(), CudaError> {
        self.give_back(pending.wait()?);
        Ok(())
    }

    /// Waits for what was fetched, copies it, and keeps the staging memory.
    ///
    /// # Errors
    /// As [`Pending::wait`].
    pub fn take(&self, pending: Pending<Complex32>) -> Result<Vec<Complex32>, CudaError> {
        self.take_as(pending, <[Complex32]>::to_vec)
    }

    /// [`Self::take`] with what is made of it instead of a copy.
    ///
    /// # Errors
    /// As [`Pending::wait`].
    pub fn take_as<T>(
        &self,
        pending: Pending<Complex32>,
        made_of: impl FnOnce(&[Complex32]) -> T,
    ) -> Result<T, CudaError> {
        let pinned = pending.wait()?;
        let made = made_of(&pinned);
        self.give_back(pinned);
        Ok(made)
    }

    fn give_back(&self, pinned: Pinned<Complex32>) {
        let (kept, most) = match pinned.capacity() {
            SMALL => (&self.small, MOST_SMALL_KEPT),
            _ => (&self.staging, MOST_KEPT),
        };
        let mut kept = lock(kept);
        kept.push(pinned);
        if kept.len() > most {
            // The largest serves all.
            let least = kept.iter().enumerate().min_by_key(|(_, p)| p.capacity());
            if let Some(i) = least.map(|(i, _)| i) {
                drop(kept.swap_remove(i));
            }
        }
    }
}
