//! The kernels' texts.

use super::Kernel;

/// All of them.
pub const KERNELS: &[Kernel] = &[];
