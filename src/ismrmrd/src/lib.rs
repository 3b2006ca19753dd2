#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::print_stdout,
        clippy::print_stderr
    )
)]

pub mod acquisition;
pub mod error;
#[cfg(feature = "hdf5")]
pub mod file;
pub mod header;
pub mod image;
pub mod limits;
pub mod meta;
mod packed;
pub mod waveform;
pub mod wire;
mod xml;

pub use acquisition::{
    Acquisition, AcquisitionFlag, AcquisitionHeader, AcquisitionRef, EncodingCounters,
};
pub use error::Error;
pub use header::Header;
pub use image::{Image, ImageHeader, ImageType, NdArray, Pixels, SeriesNames};
pub use limits::Limits;
pub use meta::Meta;
pub use num_complex::{Complex32, Complex64};
pub use waveform::{Waveform, WaveformHeader};
