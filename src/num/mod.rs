//! Numerics with no MR in them: transforms, small linear algebra, complex slices, operators, solvers, noise, and the
//! checks that every room's tests use. Below the rooms, since several of them need it; knows nothing of scans.

pub mod complex;
pub mod fft;
pub mod lanes;
pub mod linalg;
pub mod linop;
pub mod nufft;
pub mod rng;
pub mod solve;
pub mod testing;
