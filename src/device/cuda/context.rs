//! A card that is opened once and kept warm: its memory, its kernels, and whether it is still of use.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CString, c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use cudarc::driver::sys::{self, CUresult};

use super::driver::{Handle, driver, is_sticky};
use super::memory::Pages;
use super::probe::card;
use super::signature::{Signature, signature};
use super::{Buffer, Card, CudaError, Element, KERNELS, Kernel, Library, Origin, Pinned, Stream};

/// A card in use. Cheap to clone; every clone is the same.
///
/// One per card and process, for as long as somebody holds it: opening it again gives the same one, with its kernels and
/// its memory warm. After a fault that the driver cannot forgive (a kernel that died) every call says
/// [`CudaError::Lost`]; then [`Self::open`] resets the card and gives a new one.
#[derive(Clone, Debug)]
pub struct Context(pub(super) Arc<Inner>);

/// How much of a card's memory is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryUse {
    /// Buffers that are alive.
    pub in_use_bytes: u64,
    /// The most at any time.
    pub high_water_bytes: u64,
    /// What may be used.
    pub budget_bytes: u64,
}

/// Whether driver calls may be made.
#[derive(Debug)]
enum Gate {
    Open,
    /// Why not.
    Lost(String),
    /// The context is gone, with all that it held; another one may be in its place.
    Reset(String),
}

#[derive(Debug, Default)]
struct Loaded {
    modules: BTreeMap<&'static str, (Handle<sys::CUmod_st>, Origin, Option<String>)>,
    functions: BTreeMap<&'static str, Handle<sys::CUfunc_st>>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) card: Card,
    device: sys::CUdevice,
    raw: Handle<sys::CUctx_st>,
    /// Memory is taken and given back on this stream, which does nothing else.
    home: Handle<sys::CUstream_st>,
    pool: Handle<sys::CUmemPoolHandle_st>,
    gate: RwLock<Gate>,
    memory: Mutex<MemoryUse>,
    library: Library,
    loaded: Mutex<Loaded>,
    /// Memory of the host that a lost card may still write to: freed when it is reset.
    graveyard: Mutex<Vec<Pages>>,
}

/// A panic elsewhere leaves these values whole: each is changed in one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

static OPEN: Mutex<BTreeMap<i32, Weak<Inner>>> = Mutex::new(BTreeMap::new());

impl Context {
    /// Opens a card, or gives the one that is open, with this budget from now on.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`], [`CudaError::OldDriver`], [`CudaError::NoCard`], [`CudaError::Call`].
    pub fn open(ordinal: i32, memory_budget_bytes: u64) -> Result<Self, CudaError> {
        driver()?;
        let mut open = lock(&OPEN);
        // Dropped after the lock, which its end would take.
        let old = open.get(&ordinal).and_then(Weak::upgrade);
        let mut failed = None;
        let result = match &old {
            Some(inner) if inner.is_open() => {
                lock(&inner.memory).budget_bytes = memory_budget_bytes;
                Ok(Self(inner.clone()))
            }
            _ => {
                if let Some(lost) = &old {
                    lost.reset();
                }
                Inner::retain(ordinal, memory_budget_bytes).and_then(|mut inner| {
                    if let Err(e) = inner.prepare() {
                        failed = Some(inner);
                        return Err(e);
                    }
                    let inner = Arc::new(inner);
                    open.insert(ordinal, Arc::downgrade(&inner));
                    Ok(Self(inner))
                })
            }
        };
        drop(open);
        drop((old, failed));
        result
    }

    /// The card.
    pub fn card(&self) -> &Card {
        &self.0.card
    }

    /// Whether it can be used: else open a new one.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// Of the budget.
    pub fn memory(&self) -> MemoryUse {
        *lock(&self.0.memory)
    }

    /// Memory of the card in bytes: free, whoever uses the rest, and all.
    ///
    /// # Errors
    /// [`CudaError::Call`], [`CudaError::Lost`].
    pub fn card_memory(&self) -> Result<(u64, u64), CudaError> {
        let (mut free, mut total) = (0usize, 0usize);
        // SAFETY: writes two sizes to the addresses of two.
        self.0.call("cuMemGetInfo", || unsafe {
            sys::cuMemGetInfo_v2(&mut free, &mut total)
        })?;
        Ok((free as u64, total as u64))
    }

    /// Memory on the card for `len` values, which are anything.
    ///
    /// # Errors
    /// [`CudaError::OverBudget`], [`CudaError::OutOfMemory`], [`CudaError::Lost`], [`CudaError::Wrong`] for none.
    pub fn buffer<T: Element>(&self, len: usize) -> Result<Buffer<T>, CudaError> {
        Buffer::new(&self.0, len)
    }

    /// Memory of the host for copies to and from the card: `len` zeros.
    ///
    /// # Errors
    /// [`CudaError::Call`], [`CudaError::Lost`], [`CudaError::Wrong`] for none.
    pub fn pinned<T: Element>(&self, len: usize) -> Result<Pinned<T>, CudaError> {
        Pinned::new(&self.0, len)
    }

    /// A queue of work.
    ///
    /// # Errors
    /// [`CudaError::Call`], [`CudaError::Lost`].
    pub fn stream(&self) -> Result<Stream, CudaError> {
        Stream::new(&self.0)
    }

    /// Loads a kernel before it is needed: from its image, or by compiling it, which takes its time.
    ///
    /// # Errors
    /// As [`Library::image`]; [`CudaError::Wrong`] for a kernel that is none; [`CudaError::Call`], [`CudaError::Lost`].
    pub fn load(&self, kernel: &str) -> Result<(), CudaError> {
        self.0.function(find(kernel)?, true).map(|_| ())
    }

    /// Loads all.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_all(&self) -> Result<(), CudaError> {
        let mut loaded = lock(&self.0.loaded);
        KERNELS
            .iter()
            .try_for_each(|file| self.0.module(&mut loaded, file).map(|_| ()))
    }

    /// Files of kernels that are loaded, where their images came from, and why one could not be kept.
    pub fn loaded(&self) -> Vec<(&'static str, Origin, Option<String>)> {
        let loaded = lock(&self.0.loaded);
        let modules = loaded.modules.iter();
        modules
            .map(|(name, (_, origin, not_kept))| (*name, origin.clone(), not_kept.clone()))
            .collect()
    }
}

/// Of a kernel's name.
pub(super) fn find(kernel: &str) -> Result<&'static Signature, CudaError> {
    signature(kernel).ok_or_else(|| CudaError::Wrong {
        what: format!("kernel {kernel}"),
        why: "there is none of this name in kernels/".into(),
    })
}

impl Inner {
    fn retain(ordinal: i32, budget_bytes: u64) -> Result<Self, CudaError> {
        let (device, card) = card(ordinal)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: `device` came from the driver; writes one handle to the address of one.
        let status = unsafe { sys::cuDevicePrimaryCtxRetain(&mut raw, device) };
        if status != CUresult::CUDA_SUCCESS {
            return Err(CudaError::Call {
                call: "cuDevicePrimaryCtxRetain",
                card: card.name,
                status: format!("{status:?}"),
            });
        }
        Ok(Self {
            card,
            device,
            raw: Handle(raw),
            home: Handle::NONE,
            pool: Handle::NONE,
            gate: RwLock::new(Gate::Open),
            memory: Mutex::new(MemoryUse {
                budget_bytes,
                ..MemoryUse::default()
            }),
            library: Library::open(),
            loaded: Mutex::default(),
            graveyard: Mutex::default(),
        })
    }

    fn prepare(&mut self) -> Result<(), CudaError> {
        self.home = self.create_stream()?;
        self.pool = self.create_pool(lock(&self.memory).budget_bytes)?;
        Ok(())
    }

    pub(super) fn create_stream(&self) -> Result<Handle<sys::CUstream_st>, CudaError> {
        let mut raw = std::ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: writes one handle to the address of one.
        self.call("cuStreamCreate", || unsafe {
            sys::cuStreamCreate(&mut raw, flags)
        })?;
        Ok(Handle(raw))
    }

    /// Keeps what buffers give back, up to the budget: taking it again costs little.
    fn create_pool(&self, keep: u64) -> Result<Handle<sys::CUmemPoolHandle_st>, CudaError> {
        let properties = sys::CUmemPoolProps {
            allocType: sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
            handleTypes: sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
            location: sys::CUmemLocation {
                type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
                id: self.device,
            },
            win32SecurityAttributes: std::ptr::null_mut(),
            maxSize: 0,
            usage: 0,
            reserved: [0; 54],
        };
        let mut raw = std::ptr::null_mut();
        // SAFETY: reads the properties, writes one handle to the address of one.
        self.call("cuMemPoolCreate", || unsafe {
            sys::cuMemPoolCreate(&mut raw, &properties)
        })?;
        let pool = Handle(raw);
        let mut keep = keep;
        let which = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the pool is alive; this attribute is read as a `u64`, which `keep` is.
        let done = self.call("cuMemPoolSetAttribute", || unsafe {
            sys::cuMemPoolSetAttribute(pool.0, which, (&raw mut keep).cast::<c_void>())
        });
        if let Err(e) = done {
            self.destroy_pool(pool);
            return Err(e);
        }
        Ok(pool)
    }

    fn destroy_pool(&self, pool: Handle<sys::CUmemPoolHandle_st>) {
        // SAFETY: made by `cuMemPoolCreate`, and destroyed once; all its memory was given back.
        drop(self.call("cuMemPoolDestroy", || unsafe {
            sys::cuMemPoolDestroy(pool.0)
        }));
    }

    pub(super) fn is_open(&self) -> bool {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        matches!(*gate, Gate::Open)
    }

    /// Frees pages that the driver would not let go of: now, if it has dropped all that belonged to this context, else
    /// when it has.
    pub(super) fn bury(&self, pages: Pages) {
        lock(&self.graveyard).push(pages);
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if matches!(*gate, Gate::Reset(_)) {
            lock(&self.graveyard).clear();
        }
    }

    /// A call of the driver with this context, which is neither lost nor reset while the call lasts.
    ///
    /// # Errors
    /// [`CudaError::Lost`], and nothing is called; [`CudaError::Fault`], and the context is lost; [`CudaError::Call`].
    pub(super) fn call(
        &self,
        call: &'static str,
        f: impl FnOnce() -> CUresult,
    ) -> Result<(), CudaError> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if let Gate::Lost(why) | Gate::Reset(why) = &*gate {
            return Err(CudaError::Lost {
                card: self.card.name.clone(),
                why: why.clone(),
            });
        }
        // SAFETY: retained until this is dropped, and not reset as long as the gate is held.
        let status = match unsafe { sys::cuCtxSetCurrent(self.raw.0) } {
            CUresult::CUDA_SUCCESS => f(),
            status => status,
        };
        drop(gate);
        if status == CUresult::CUDA_SUCCESS {
            return Ok(());
        }
        let (card, words) = (self.card.name.clone(), format!("{status:?}"));
        if is_sticky(status) {
            let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
            if matches!(*gate, Gate::Open) {
                *gate = Gate::Lost(format!("{call} gave {words}"));
            }
            return Err(CudaError::Fault {
                call,
                card,
                status: words,
                queued: String::new(),
            });
        }
        Err(CudaError::Call {
            call,
            card,
            status: words,
        })
    }

    /// Of a context that is lost, once.
    fn reset(&self) {
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        if let Gate::Lost(why) = &*gate {
            // SAFETY: the device came from the driver. Nobody calls the driver with this context: the gate is shut.
            // A failure shows when the card is opened again.
            unsafe { sys::cuDevicePrimaryCtxReset_v2(self.device) };
            *gate = Gate::Reset(why.clone());
            lock(&self.graveyard).clear();
        }
    }

    // Memory

    /// # Errors
    /// [`CudaError::OverBudget`], before the driver is asked; [`CudaError::OutOfMemory`], [`CudaError::Lost`].
    pub(super) fn allocate(&self, bytes: usize) -> Result<sys::CUdeviceptr, CudaError> {
        let asked = bytes as u64;
        let mut memory = lock(&self.memory);
        let before = *memory;
        if asked > before.budget_bytes.saturating_sub(before.in_use_bytes) {
            return Err(CudaError::OverBudget {
                asked_bytes: asked,
                in_use_bytes: before.in_use_bytes,
                budget_bytes: before.budget_bytes,
            });
        }
        memory.in_use_bytes += asked;
        memory.high_water_bytes = memory.high_water_bytes.max(memory.in_use_bytes);
        drop(memory);
        self.allocate_from_pool(bytes).map_err(|e| {
            lock(&self.memory).in_use_bytes -= asked;
            match e {
                CudaError::Call { status, .. } if status == "CUDA_ERROR_OUT_OF_MEMORY" => {
                    CudaError::OutOfMemory {
                        card: self.card.name.clone(),
                        asked_bytes: asked,
                        in_use_bytes: before.in_use_bytes,
                        budget_bytes: before.budget_bytes,
                        free_bytes: self.free_bytes(),
                    }
                }
                other => other,
            }
        })
    }

    fn allocate_from_pool(&self, bytes: usize) -> Result<sys::CUdeviceptr, CudaError> {
        let mut address = 0;
        // SAFETY: pool and stream are alive; writes one address to the address of one.
        self.call("cuMemAllocFromPoolAsync", || unsafe {
            sys::cuMemAllocFromPoolAsync(&mut address, bytes, self.pool.0, self.home.0)
        })?;
        // Other streams may use it only after this one came to it; there is nothing else to wait for.
        // SAFETY: the stream is alive.
        self.call("cuStreamSynchronize", || unsafe {
            sys::cuStreamSynchronize(self.home.0)
        })?;
        Ok(address)
    }

    fn free_bytes(&self) -> Option<u64> {
        let (mut free, mut total) = (0usize, 0usize);
        // SAFETY: writes two sizes to the addresses of two.
        let done = self.call("cuMemGetInfo", || unsafe {
            sys::cuMemGetInfo_v2(&mut free, &mut total)
        });
        done.ok().map(|()| free as u64)
    }

    /// Of memory that no queued work uses.
    pub(super) fn free(&self, address: sys::CUdeviceptr, bytes: usize) {
        // SAFETY: from `allocate`, given back once. Of a lost context the driver has dropped it, and nothing is called.
        drop(self.call("cuMemFreeAsync", || unsafe {
            sys::cuMemFreeAsync(address, self.home.0)
        }));
        lock(&self.memory).in_use_bytes -= bytes as u64;
    }

    // Kernels

    fn module(
        &self,
        loaded: &mut Loaded,
        file: &'static Kernel,
    ) -> Result<Handle<sys::CUmod_st>, CudaError> {
        if let Some((module, ..)) = loaded.modules.get(file.name) {
            return Ok(*module);
        }
        let image = self.library.image(file, self.card.arch)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the image is an ELF file, as `Library` checked, which says its own length, and outlives the call; writes
        // one handle to the address of one.
        self.call("cuModuleLoadData", || unsafe {
            sys::cuModuleLoadData(&mut raw, image.bytes.as_ptr().cast::<c_void>())
        })?;
        let module = Handle(raw);
        loaded
            .modules
            .insert(file.name, (module, image.origin, image.not_kept));
        Ok(module)
    }

    /// A kernel's function; with `may_load` its file is loaded if it must be.
    pub(super) fn function(
        &self,
        of: &'static Signature,
        may_load: bool,
    ) -> Result<Handle<sys::CUfunc_st>, CudaError> {
        let mut loaded = lock(&self.loaded);
        if let Some(function) = loaded.functions.get(of.name.as_str()) {
            return Ok(*function);
        }
        let wrong = |why: String| CudaError::Wrong {
            what: format!("kernel {}", of.name),
            why,
        };
        if !may_load {
            let why = "it is not loaded, and no kernel can be during a capture: Context::load";
            return Err(wrong(why.into()));
        }
        let module = self.module(&mut loaded, of.file)?;
        let name = CString::new(of.name.as_str()).map_err(|e| wrong(e.to_string()))?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the module is alive until this context ends; the name ends with a NUL; writes one handle.
        self.call("cuModuleGetFunction", || unsafe {
            sys::cuModuleGetFunction(&mut raw, module.0, name.as_ptr())
        })?;
        let mut most: c_int = 0;
        let which = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK;
        // The question also makes the driver load the code now, which it may otherwise put off to the first launch.
        // SAFETY: the function is alive; writes one integer to the address of one.
        self.call("cuFuncGetAttribute", || unsafe {
            sys::cuFuncGetAttribute(&mut most, which, raw)
        })?;
        if most.unsigned_abs() < of.threads {
            let why = format!("{} threads, {most} are possible on this card", of.threads);
            return Err(wrong(why));
        }
        loaded.functions.insert(of.name.as_str(), Handle(raw));
        Ok(Handle(raw))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Not while another one opens.
        let _open = lock(&OPEN);
        self.reset();
        let loaded = std::mem::take(&mut *lock(&self.loaded));
        for (module, ..) in loaded.modules.into_values() {
            // SAFETY: from `cuModuleLoadData`, unloaded once; who queued its kernels held this context until they were done.
            drop(self.call("cuModuleUnload", || unsafe {
                sys::cuModuleUnload(module.0)
            }));
        }
        if !self.pool.0.is_null() {
            self.destroy_pool(self.pool);
        }
        if !self.home.0.is_null() {
            // SAFETY: from `cuStreamCreate`, destroyed once.
            drop(self.call("cuStreamDestroy", || unsafe {
                sys::cuStreamDestroy_v2(self.home.0)
            }));
        }
        // Those that it refused to let go of without being lost are its own for ever.
        std::mem::take(&mut *lock(&self.graveyard))
            .into_iter()
            .for_each(std::mem::forget);
        // SAFETY: retained once, in `retain`; a reset does not release.
        unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}
