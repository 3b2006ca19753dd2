//! The CUDA side of the cellar: what the machine has, and kernels compiled for its card.
//!
//! Nothing of CUDA is needed to build, or to run on the CPU: the driver and the compiler are looked for when they are
//! wanted, and each missing one is a value that says what to install. Kernels are text in this program; the images that
//! a card runs are compiled once and kept ([`Library`]).
//!
//! A [`Context`] is a card in use: [`Buffer`]s on it, [`Pinned`] memory beside it, [`Stream`]s of copies and launches, [`Graph`]s
//! of launches that are done again and again. Nothing here can be used too early or given back too early; what goes wrong
//! is a [`CudaError`], and a card that died is opened again.

mod accelerator;
mod context;
mod driver;
mod error;
mod fft;
mod graph;
mod kernels;
mod library;
mod lines;
mod memory;
mod nvrtc;
mod probe;
mod signature;
mod stream;

pub use accelerator::Accelerator;
pub use context::{Context, MemoryUse};
pub use error::CudaError;
pub use fft::{FftPlan, Transform, Way, grid, int};
pub use graph::{Capture, Graph};
pub use kernels::KERNELS;
pub use library::{Image, Kernel, Library, Origin};
pub use lines::sort_lines;
pub use memory::{Buffer, Element, Pinned, Staging};
pub use nvrtc::Compiler;
pub use probe::{Card, Probe, probe};
pub use stream::{Arg, Event, Pending, Queue, Stream, View};

/// An architecture as compilers name it: 90 is `sm_90`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Arch(pub u32);

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sm_{}", self.0)
    }
}

impl std::str::FromStr for Arch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("sm_").unwrap_or(text);
        match digits.parse() {
            Ok(n @ 30..=999) => Ok(Self(n)),
            _ => Err(format!(
                "{text:?} is no architecture, expected one like sm_90"
            )),
        }
    }
}
