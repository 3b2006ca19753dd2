//! Reads images back for comparison: `.npy`, NIfTI, BART `.cfl`, ISMRMRD images in files and streams, DICOM files and
//! folders. The kind is found from the content; only a `.cfl`, which has no mark, is known by the `.hdr` beside it.

mod cfl;
mod dicom;
mod mrd;
mod nifti;
mod npy;
mod series;

pub use series::{ReadSeries, dicom_instances, holds_images, read_series};

use std::{fs::File, io::Read, path::Path};

use super::HandoffError;
use crate::data::{Complex32, Complex64, Note};

/// An array of voxels of whatever origin.
///
/// # Shapes
/// The last three axes are z, y, x (rows and columns for DICOM); in front of them stand whatever axes the file has
/// beyond those, slowest first, without leading axes of extent 1. So the same images come out with the same shape from
/// every format. DICOM is read as displayed, so its rows and columns may be turned against the others.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageArray {
    /// Extents, slowest first; at least three.
    pub dims: Vec<usize>,
    /// Voxels with every scaling of the file applied; imaginary parts are 0 when the file holds real numbers.
    pub voxels: Vec<Complex32>,
    /// Whether the file holds complex numbers.
    pub is_complex: bool,
    /// What was chosen of several things in the file.
    pub note: Option<Note>,
}

impl ImageArray {
    fn new(
        path: &Path,
        dims: &[usize],
        voxels: Vec<Complex32>,
        is_complex: bool,
    ) -> Result<Self, HandoffError> {
        let n = dims.iter().product::<usize>();
        if n != voxels.len() || n == 0 {
            return Err(HandoffError::read(
                path,
                format!("{} voxels", voxels.len()),
                format!("at least one, and as many as the extents {dims:?} say"),
            ));
        }
        let start = dims
            .iter()
            .take_while(|n| **n == 1)
            .count()
            .min(dims.len().saturating_sub(3));
        let mut dims = dims[start..].to_vec();
        while dims.len() < 3 {
            dims.insert(0, 1);
        }
        Ok(Self {
            dims,
            voxels,
            is_complex,
            note: None,
        })
    }
}

/// Reads an image file, or a folder of DICOM slices. `series` names one of several in an ISMRMRD file or stream.
///
/// # Errors
/// [`HandoffError::Io`]; [`HandoffError::Read`] says what stands in the file and what was needed, also for content that
/// is not read (PNG among it: its values are windowed).
pub fn read_image(path: &Path, series: Option<&str>) -> Result<ImageArray, HandoffError> {
    if path.is_dir() {
        return dicom::folder(path);
    }
    let mut head = Vec::new();
    match File::open(path) {
        Ok(file) => drop(file.take(4096).read_to_end(&mut head).map_err(io(path))?),
        // The stem of a BART pair is no file.
        Err(_) if cfl::is_pair(path) => return cfl::read(path),
        Err(e) => return Err(io(path)(e)),
    }
    let has = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|b| b.starts_with(magic));
    if has(0, b"\x93NUMPY") {
        npy::read(path)
    } else if has(0, b"\x89HDF") {
        mrd::file(path, series)
    } else if has(128, b"DICM") {
        dicom::files(path, vec![path.to_path_buf()])
    } else if has(0, b"\x1f\x8b") || has(0, &[0x5c, 1, 0, 0]) || has(0, &[0, 0, 1, 0x5c]) {
        nifti::read(path)
    } else if ismrmrd::wire::sniff(&head).is_some() {
        mrd::stream(path, series)
    } else if cfl::is_pair(path) {
        cfl::read(path)
    } else {
        let start = head.get(..head.len().min(8)).unwrap_or_default();
        Err(HandoffError::read(
            path,
            match start {
                [] => "an empty file".to_owned(),
                _ => format!(
                    "content that is not read as images, beginning \"{}\"",
                    start.escape_ascii()
                ),
            },
            "NumPy, NIfTI, DICOM (a file or a folder of .dcm files), ISMRMRD images (HDF5 or a stream), or BART .cfl with \
             its .hdr",
        ))
    }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> HandoffError + '_ {
    move |source| HandoffError::io("reading", path, source)
}

/// Number types of `.npy` and NIfTI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    C32,
    C64,
}

impl Type {
    fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::C32 => 8,
            Self::C64 => 16,
        }
    }

    fn is_complex(self) -> bool {
        matches!(self, Self::C32 | Self::C64)
    }

    fn decode(self, bytes: &[u8], is_big_endian: bool) -> Vec<Complex64> {
        let real = |b: &[u8]| -> f64 {
            let mut le = [0_u8; 8];
            for (i, byte) in b.iter().enumerate() {
                le[if is_big_endian { b.len() - 1 - i } else { i }] = *byte;
            }
            let [a, b1, c, d, ..] = le;
            match self {
                Self::U8 => f64::from(a),
                Self::I8 => f64::from(a as i8),
                Self::U16 => f64::from(u16::from_le_bytes([a, b1])),
                Self::I16 => f64::from(i16::from_le_bytes([a, b1])),
                Self::U32 => f64::from(u32::from_le_bytes([a, b1, c, d])),
                Self::I32 => f64::from(i32::from_le_bytes([a, b1, c, d])),
                Self::U64 => u64::from_le_bytes(le) as f64,
                Self::I64 => i64::from_le_bytes(le) as f64,
                Self::F32 | Self::C32 => f64::from(f32::from_le_bytes([a, b1, c, d])),
                Self::F64 | Self::C64 => f64::from_le_bytes(le),
            }
        };
        bytes
            .chunks_exact(self.bytes())
            .map(|b| {
                if self.is_complex() {
                    let (re, im) = b.split_at(b.len() / 2);
                    Complex64::new(real(re), real(im))
                } else {
                    Complex64::new(real(b), 0.0)
                }
            })
            .collect()
    }
}

fn to_c32(v: Complex64) -> Complex32 {
    Complex32::new(v.re as f32, v.im as f32)
}

/// Product of extents, refused when it overflows or exceeds `limit` voxels (what the file can hold).
fn count(path: &Path, dims: &[usize], limit: Option<u64>) -> Result<usize, HandoffError> {
    dims.iter()
        .try_fold(1_usize, |n, d| n.checked_mul(*d))
        .filter(|n| limit.is_none_or(|limit| *n as u64 <= limit))
        .ok_or_else(|| {
            HandoffError::read(
                path,
                format!("extents {dims:?}"),
                match limit {
                    Some(limit) => {
                        format!("at most {limit} voxels, which is what the file's size allows")
                    }
                    None => "extents whose product is a number".into(),
                },
            )
        })
}

/// Exactly `n` bytes; memory grows with what arrives, not with what was announced.
fn exactly(path: &Path, reader: impl Read, n: usize) -> Result<Vec<u8>, HandoffError> {
    let mut bytes = Vec::new();
    reader
        .take(n as u64)
        .read_to_end(&mut bytes)
        .map_err(io(path))?;
    if bytes.len() < n {
        return Err(HandoffError::read(
            path,
            format!("{} bytes of voxels, then the end", bytes.len()),
            format!("{n} bytes, as the header says"),
        ));
    }
    Ok(bytes)
}

/// Brings an array stored with its first axis fastest into row-major order.
fn fastest_last<T: Copy>(values: &[T], dims: &[usize]) -> Vec<T> {
    let mut strides = vec![1_usize; dims.len()];
    for i in 1..dims.len() {
        strides[i] = strides[i - 1] * dims[i - 1];
    }
    permuted(values, dims, &strides)
}

/// Gathers `[dims]` in row-major order from places `sum(index · stride)`.
fn permuted<T: Copy>(values: &[T], dims: &[usize], strides: &[usize]) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len());
    let mut index = vec![0_usize; dims.len()];
    let n = dims.iter().product();
    while out.len() < n {
        out.push(values[index.iter().zip(strides).map(|(i, s)| i * s).sum::<usize>()]);
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            if index[axis] < dims[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}
