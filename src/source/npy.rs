//! NumPy's `.npy`: complex k-space, `[coil, ro, pe1]` and the like.
//!
//! # Source
//! NumPy Enhancement Proposal 1 ("A Simple File Format for NumPy Arrays"): magic, version, header length, a Python
//! dictionary with `descr`, `fortran_order` and `shape`.

use std::path::Path;

use super::bytes::{Bytes, u16_at, u32_at};
use super::grid::{Axis, Element, Grid, Layout, Store};
use super::{OpenOptions, Parts, SourceError};
use crate::data::Note;

/// First bytes of every `.npy`.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";

struct Npy {
    start: usize,
    element: Element,
    shape: Vec<usize>,
    is_fortran: bool,
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Npy, SourceError> {
    let bad = |place: &str, found: String, needed: &str| {
        SourceError::malformed(
            path,
            place,
            found,
            needed,
            "write the array again with numpy.save(NAME, kspace.astype('complex64'))",
        )
    };
    let major = bytes.get(6).copied().unwrap_or_default();
    let (length, start) = match major {
        1 => (u16_at(bytes, 8).map(u64::from), 10usize),
        2 | 3 => (u32_at(bytes, 8).map(u64::from), 12),
        _ => return Err(bad("version", major.to_string(), "1, 2 or 3")),
    };
    let length =
        length.ok_or_else(|| bad("header length", "end of file".into(), "a number"))? as usize;
    let text = start
        .checked_add(length)
        .and_then(|end| bytes.get(start..end))
        .ok_or_else(|| {
            bad(
                "header",
                format!(
                    "{length} bytes announced, {} left",
                    bytes.len().saturating_sub(start)
                ),
                "the whole header",
            )
        })?;
    let text = String::from_utf8_lossy(text);
    let value = |key: &str| -> Option<&str> {
        let at = text.find(&format!("'{key}'"))? + key.len() + 2;
        text[at..]
            .trim_start()
            .strip_prefix(':')
            .map(str::trim_start)
    };
    let descr = value("descr")
        .and_then(|v| v.strip_prefix('\''))
        .and_then(|v| v.split('\'').next())
        .ok_or_else(|| {
            bad(
                "header",
                text.chars().take(80).collect(),
                "'descr': a simple data type",
            )
        })?;
    let element = match descr {
        "<c8" => Element::Complex32,
        "<c16" => Element::Complex64,
        _ => {
            return Err(bad(
                "data type",
                format!("{descr:?}"),
                "complex k-space: '<c8' or '<c16', little-endian",
            ));
        }
    };
    let is_fortran = value("fortran_order").is_some_and(|v| v.starts_with("True"));
    let list = value("shape")
        .and_then(|v| v.strip_prefix('('))
        .and_then(|v| v.split(')').next())
        .ok_or_else(|| {
            bad(
                "header",
                text.chars().take(80).collect(),
                "'shape': ( ... )",
            )
        })?;
    let mut shape = Vec::new();
    for word in list.split(',').map(str::trim).filter(|w| !w.is_empty()) {
        let n: usize = word
            .parse()
            .map_err(|_| bad("shape", format!("{list:?}"), "whole numbers"))?;
        if n == 0 {
            return Err(bad("shape", format!("({list})"), "no extent of 0"));
        }
        shape.push(n);
    }
    Ok(Npy {
        start: start + length,
        element,
        shape,
        is_fortran,
    })
}

pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<Parts, SourceError> {
    let bytes = Bytes::open(path)?;
    let npy = parse(path, bytes.all())?;
    let needed = npy
        .shape
        .iter()
        .try_fold(npy.element.bytes(), |n, &extent| n.checked_mul(extent));
    let found = bytes.all().len().saturating_sub(npy.start);
    if needed.is_none_or(|n| n > found) {
        return Err(SourceError::malformed(
            path,
            "samples",
            format!("{found} bytes"),
            format!(
                "{} bytes for shape {:?}",
                needed.map_or("more than 2^64".into(), |n| n.to_string()),
                npy.shape
            ),
            "the copy was cut short: copy the file again",
        ));
    }
    let mut notes = Vec::new();
    // NumPy lists the slowest axis first; in our lists the fastest comes first.
    let (axes, extents) = match &options.axes {
        Some(list) => {
            let named = super::named_axes(path, list, &npy.shape)?;
            (
                named.iter().map(|a| a.0).collect::<Vec<_>>(),
                npy.shape.clone(),
            )
        }
        None => {
            let axes: &[Axis] = match npy.shape.len() {
                2 => &[Axis::Ro, Axis::Pe1],
                3 => &[Axis::Coil, Axis::Ro, Axis::Pe1],
                4 => &[Axis::Slice, Axis::Coil, Axis::Ro, Axis::Pe1],
                n => {
                    return Err(SourceError::Option {
                        path: path.to_path_buf(),
                        asked: "which axis is what".into(),
                        found: format!("{n} axes {:?}; only 2, 3 and 4 have a default meaning", npy.shape),
                        hint: "name the axes with the option `axes`, slowest first: axes = \"coil,ro,pe1,pe2\"".into(),
                    });
                }
            };
            notes.push(Note::new(
                "axes_assumed",
                format!(
                    "shape {:?} is taken as [{}]; name the axes with the option `axes` if they are others",
                    npy.shape,
                    Axis::words(axes)
                ),
            ));
            (axes.to_vec(), npy.shape.clone())
        }
    };
    if npy.element == Element::Complex64 {
        notes.push(rounded());
    }
    let mut pairs: Vec<(Axis, usize)> = axes.into_iter().zip(extents).collect();
    if !npy.is_fortran {
        pairs.reverse();
    }
    let layout = Layout::fastest_first(&pairs).ok_or_else(|| SourceError::TooLarge {
        path: path.to_path_buf(),
        what: "samples",
        declared: u64::MAX,
        limit: usize::MAX as u64,
    })?;
    let store = Store::Mapped {
        bytes,
        start: npy.start,
        element: npy.element,
    };
    let grid = Grid::new(path, store, layout, &mut notes)?;
    let header = grid.nominal_header(&mut notes);
    Ok(Parts::new(header, notes, Box::new(grid)))
}

/// The mark for 64-bit numbers.
pub(crate) fn rounded() -> Note {
    Note::new(
        "rounded_to_f32",
        "64-bit numbers in the file are rounded to 32 bits",
    )
}
