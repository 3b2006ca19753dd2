//! Where the cases of kernels run.

use std::any::TypeId;
use std::cell::RefCell;
use std::collections::BTreeSet;

use cauda::data::Complex32;
use cauda::device::cuda::{self, Buffer, Context, CudaError, Element, Stream};
use kernel_emu::{Arg, Schedule};

/// One of the runners.
#[derive(Clone, Copy)]
pub(crate) enum On<'a> {
    /// The emulator, without a driver.
    Emulator(Schedule),
    /// A card, through the driver: real, or the emulated one.
    Card(&'a Card),
    /// The same without the last block of the grid's first axis that has several: wrong on purpose.
    ShortBy1(&'a Card),
}

/// A card in use.
pub(crate) struct Card {
    context: Context,
    stream: Stream,
    launched: RefCell<BTreeSet<String>>,
}

impl Card {
    /// Whichever the driver has first.
    pub(crate) fn open() -> Result<Self, CudaError> {
        let context = Context::open(0, 1 << 30)?;
        Ok(Self {
            stream: context.stream()?,
            context,
            launched: RefCell::default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.context.card().name
    }

    pub(crate) fn is_emulated(&self) -> bool {
        self.name().contains("Emulated")
    }

    /// Kernels that were launched.
    pub(crate) fn launched(&self) -> BTreeSet<String> {
        self.launched.borrow().clone()
    }

    fn launch(&self, kernel: &str, grid: [u32; 3], args: &mut [Arg<'_>]) -> Result<(), CudaError> {
        let mut there = Vec::with_capacity(args.len());
        for arg in &*args {
            there.push(match arg {
                Arg::In(bytes, of) => Some(self.up(bytes, *of)?),
                Arg::Out(bytes, of) => Some(self.up(bytes, *of)?),
                Arg::I32(_) | Arg::F32(_) => None,
            });
        }
        let words: Vec<cuda::Arg<'_>> = args
            .iter()
            .zip(&mut there)
            .filter_map(|(arg, there)| {
                Some(match arg {
                    Arg::In(..) => there.as_deref()?.input(),
                    Arg::Out(..) => there.as_deref_mut()?.output(),
                    Arg::I32(v) => cuda::Arg::I32(*v),
                    Arg::F32(v) => cuda::Arg::F32(*v),
                })
            })
            .collect();
        self.stream.launch(kernel, grid, &words)?;
        drop(words);
        for (arg, there) in args.iter_mut().zip(&there) {
            if let (Arg::Out(bytes, _), Some(buffer)) = (arg, there) {
                buffer.down(self, bytes)?;
            }
        }
        self.launched.borrow_mut().insert(kernel.to_owned());
        Ok(())
    }

    fn up(&self, bytes: &[u8], of: TypeId) -> Result<Box<dyn There>, CudaError> {
        match of {
            t if t == TypeId::of::<Complex32>() => self.up_as::<Complex32>(bytes),
            t if t == TypeId::of::<f32>() => self.up_as::<f32>(bytes),
            t if t == TypeId::of::<f64>() => self.up_as::<f64>(bytes),
            t if t == TypeId::of::<i32>() => self.up_as::<i32>(bytes),
            _ => panic!("no kernel takes this type"),
        }
    }

    fn up_as<T: Element>(&self, bytes: &[u8]) -> Result<Box<dyn There>, CudaError> {
        let values: &[T] = bytemuck::cast_slice(bytes);
        let mut pinned = self.context.pinned(values.len())?;
        pinned.copy_from_slice(values);
        let mut buffer = self.context.buffer(values.len())?;
        drop(self.stream.upload(pinned, &mut buffer, 0)?);
        Ok(Box::new(buffer))
    }
}

/// A buffer of some type.
trait There {
    fn input(&self) -> cuda::Arg<'_>;
    fn output(&mut self) -> cuda::Arg<'_>;
    fn down(&self, card: &Card, to: &mut [u8]) -> Result<(), CudaError>;
}

impl<T: Element> There for Buffer<T> {
    fn input(&self) -> cuda::Arg<'_> {
        cuda::Arg::input(self)
    }

    fn output(&mut self) -> cuda::Arg<'_> {
        cuda::Arg::output(self)
    }

    fn down(&self, card: &Card, to: &mut [u8]) -> Result<(), CudaError> {
        let pinned = card.context.pinned::<T>(self.len())?;
        let done = card.stream.download(self, 0, pinned)?.wait()?;
        to.copy_from_slice(bytemuck::cast_slice(&done));
        Ok(())
    }
}

/// Runs a kernel; `block` is what its text says, or the emulator refuses it.
pub(super) fn launch(
    kernel: &str,
    mut grid: [u32; 3],
    block: [u32; 3],
    args: &mut [Arg<'_>],
    on: On<'_>,
) -> Result<(), String> {
    let card = match on {
        On::Emulator(schedule) => return kernel_emu::launch(kernel, grid, block, args, schedule),
        On::Card(card) => card,
        On::ShortBy1(card) => {
            if let Some(n) = grid.iter_mut().find(|n| **n > 1) {
                *n -= 1;
            }
            card
        }
    };
    card.launch(kernel, grid, args).map_err(|e| e.to_string())
}
