//! NumPy arrays.

use std::{fs::File, io::BufReader, path::Path};

use super::{ImageArray, Type, count, exactly, fastest_last, io, to_c32};
use crate::handoff::HandoffError;

pub(super) fn read(path: &Path) -> Result<ImageArray, HandoffError> {
    let mut file = BufReader::new(File::open(path).map_err(io(path))?);
    let size = file.get_ref().metadata().map_err(io(path))?.len();
    let start = exactly(path, &mut file, 10)?;
    if !start.starts_with(b"\x93NUMPY") {
        return Err(HandoffError::read(
            path,
            "no NumPy file",
            "the magic word \\x93NUMPY",
        ));
    }
    let mut len = usize::from(u16::from_le_bytes([start[8], start[9]]));
    if start[6] > 1 {
        let more = exactly(path, &mut file, 2)?;
        len += usize::from(u16::from_le_bytes([more[0], more[1]])) << 16;
    }
    let header = exactly(path, &mut file, len.min(1 << 20))?;
    let header = String::from_utf8_lossy(&header).into_owned();
    let bad = |needed: &str| HandoffError::read(path, format!("the header {header:?}"), needed);
    let after = |key: &str| {
        header
            .split_once(&format!("'{key}':"))
            .map(|(_, rest)| rest.trim_start())
    };
    let descr = after("descr")
        .and_then(|rest| rest.strip_prefix('\''))
        .and_then(|rest| rest.split_once('\''))
        .map(|(descr, _)| descr)
        .ok_or_else(|| bad("a 'descr' of one number type"))?;
    let kind = match descr.trim_start_matches(['<', '>', '|', '=']) {
        "u1" | "b1" => Type::U8,
        "i1" => Type::I8,
        "u2" => Type::U16,
        "i2" => Type::I16,
        "u4" => Type::U32,
        "i4" => Type::I32,
        "u8" => Type::U64,
        "i8" => Type::I64,
        "f4" => Type::F32,
        "f8" => Type::F64,
        "c8" => Type::C32,
        "c16" => Type::C64,
        _ => return Err(bad("a 'descr' of integers, f4, f8, c8 or c16")),
    };
    let is_fortran = after("fortran_order").is_some_and(|rest| rest.starts_with("True"));
    let shape = after("shape")
        .and_then(|rest| rest.strip_prefix('('))
        .and_then(|rest| rest.split_once(')'))
        .map(|(shape, _)| shape)
        .ok_or_else(|| bad("a 'shape'"))?;
    let mut dims = Vec::new();
    for part in shape.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        dims.push(
            part.parse::<usize>()
                .map_err(|_| bad("a 'shape' of numbers"))?,
        );
    }
    let n = count(path, &dims, Some(size / kind.bytes() as u64))?;
    let bytes = exactly(path, &mut file, n * kind.bytes())?;
    let mut values = kind.decode(&bytes, descr.starts_with('>'));
    if is_fortran {
        values = fastest_last(&values, &dims);
    }
    ImageArray::new(
        path,
        &dims,
        values.into_iter().map(to_c32).collect(),
        kind.is_complex(),
    )
}
