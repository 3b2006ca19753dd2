//! NIfTI-1, plain or compressed.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use super::{ImageArray, Type, count, exactly, io, to_c32};
use crate::handoff::HandoffError;

pub(super) fn read(path: &Path) -> Result<ImageArray, HandoffError> {
    let mut file = BufReader::new(File::open(path).map_err(io(path))?);
    let size = file.get_ref().metadata().map_err(io(path))?.len();
    let mut magic = [0_u8; 2];
    let n = file.read(&mut magic).map_err(io(path))?;
    let is_gzip = n == 2 && magic == [0x1f, 0x8b];
    let file = magic[..n].chain(file);
    if is_gzip {
        decode(path, flate2::bufread::MultiGzDecoder::new(file), None)
    } else {
        decode(path, file, Some(size))
    }
}

fn decode(
    path: &Path,
    mut reader: impl Read,
    size: Option<u64>,
) -> Result<ImageArray, HandoffError> {
    let h = exactly(path, &mut reader, 348)?;
    let is_big = match [h[0], h[1], h[2], h[3]] {
        [0x5c, 1, 0, 0] => false,
        [0, 0, 1, 0x5c] => true,
        other => {
            return Err(HandoffError::read(
                path,
                format!("first bytes {other:?}"),
                "a NIfTI-1 header (348 in the first four bytes); NIfTI-2 is not read",
            ));
        }
    };
    if &h[344..347] != b"n+1" {
        return Err(HandoffError::read(
            path,
            format!("magic word {:?}", String::from_utf8_lossy(&h[344..347])),
            "n+1: voxels in the same file",
        ));
    }
    let i16_at = |at: usize| {
        let b = [h[at], h[at + 1]];
        if is_big {
            i16::from_be_bytes(b)
        } else {
            i16::from_le_bytes(b)
        }
    };
    let f32_at = |at: usize| {
        let b = [h[at], h[at + 1], h[at + 2], h[at + 3]];
        f64::from(if is_big {
            f32::from_be_bytes(b)
        } else {
            f32::from_le_bytes(b)
        })
    };
    let n_dims = i16_at(40);
    if !(1..=7).contains(&n_dims) {
        return Err(HandoffError::read(
            path,
            format!("{n_dims} axes"),
            "1 to 7 axes",
        ));
    }
    let mut dims = Vec::new();
    for i in (1..=n_dims as usize).rev() {
        let n = i16_at(40 + 2 * i);
        dims.push(usize::try_from(n).ok().filter(|n| *n > 0).ok_or_else(|| {
            HandoffError::read(path, format!("an extent of {n}"), "positive extents")
        })?);
    }
    let kind = match i16_at(70) {
        2 => Type::U8,
        256 => Type::I8,
        4 => Type::I16,
        512 => Type::U16,
        8 => Type::I32,
        768 => Type::U32,
        1024 => Type::I64,
        1280 => Type::U64,
        16 => Type::F32,
        64 => Type::F64,
        32 => Type::C32,
        1792 => Type::C64,
        other => {
            return Err(HandoffError::read(
                path,
                format!("data type {other}"),
                "integers, floats or complex numbers (not RGB, not 128-bit)",
            ));
        }
    };
    let offset = f32_at(108);
    if !(348.0..=1e9).contains(&offset) {
        return Err(HandoffError::read(
            path,
            format!("vox_offset {offset}"),
            "at least 352",
        ));
    }
    exactly(path, &mut reader, offset as usize - 348)?;
    let n = count(path, &dims, size.map(|s| s / kind.bytes() as u64))?;
    let n_bytes = n.checked_mul(kind.bytes()).ok_or_else(|| {
        HandoffError::read(
            path,
            format!("extents {dims:?}"),
            "extents whose product is a number",
        )
    })?;
    let bytes = exactly(path, &mut reader, n_bytes)?;
    let (slope, intercept) = (f32_at(112), f32_at(116));
    let is_scaled = slope != 0.0 && slope.is_finite() && intercept.is_finite();
    let voxels = kind
        .decode(&bytes, is_big)
        .into_iter()
        .map(|v| to_c32(if is_scaled { v * slope + intercept } else { v }))
        .collect();
    ImageArray::new(path, &dims, voxels, kind.is_complex())
}
