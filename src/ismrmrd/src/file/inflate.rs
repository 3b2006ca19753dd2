//! Compressed data sets, without the HDF5 library's own zlib: our build of it has none.
//!
//! Chunks are found through the library and their bytes taken from the memory map; deflate, shuffle and
//! the length of Fletcher-32 are undone here. Checksums are not compared.

use std::iter::zip;

use hdf5::Dataset;
use hdf5::filters::Filter;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;

use super::hdf5_error;
use super::table::stored_bytes;
use crate::Error;

/// All elements of a compressed data set, row-major as stored, or why they are not read.
///
/// Memory is bounded by `limit` and by 2048 times what is stored (deflate reaches about 1032).
///
/// # Errors
/// Only when the library fails; a filter that is not known is `Ok(Err(reason))`.
pub(super) fn inflate(
    ds: &Dataset,
    file: &[u8],
    limit: usize,
) -> Result<Result<Vec<u8>, String>, Error> {
    let shape = ds.shape();
    let filters = ds.filters();
    let known = |f: &Filter| matches!(f, Filter::Deflate(_) | Filter::Shuffle | Filter::Fletcher32);
    if let Some(other) = filters.iter().find(|f| !known(f)) {
        return Ok(Err(format!("filter {other:?}")));
    }
    let Some(chunk) = ds
        .chunk()
        .filter(|c| c.len() == shape.len() && !c.contains(&0))
    else {
        return Ok(Err("no chunks".into()));
    };
    let element = stored_bytes(ds)?;
    let bytes_of = |shape: &[usize]| shape.iter().try_fold(element, |n, &m| n.checked_mul(m));
    let stored = usize::try_from(ds.storage_size())
        .unwrap_or(usize::MAX)
        .min(file.len());
    let most = limit.min(stored.saturating_mul(2048));
    let (Some(total), Some(each)) = (bytes_of(&shape), bytes_of(&chunk)) else {
        return Ok(Err(format!("shape {shape:?}")));
    };
    if total > most || each > limit {
        return Ok(Err(format!(
            "{total} bytes from {stored} stored ones, limit {limit}"
        )));
    }
    let mut out = vec![0_u8; total];
    let mut reason = None;
    ds.chunks_visit(|c| {
        let start = usize::try_from(c.addr).ok();
        let len = usize::try_from(c.size).ok();
        let raw = start.zip(len).and_then(|(s, n)| file.get(s..)?.get(..n));
        let plain = match raw {
            Some(raw) => undo(raw, &filters, c.filter_mask, element, each),
            None => Err(format!(
                "a chunk at byte {} of {} bytes outside the file",
                c.addr, c.size
            )),
        };
        let origin: Option<Vec<usize>> =
            c.offset.iter().map(|&o| usize::try_from(o).ok()).collect();
        match (plain, origin) {
            (Ok(plain), Some(origin)) => place(&plain, &origin, &chunk, &shape, element, &mut out),
            (Err(e), _) => reason = Some(e),
            (_, None) => reason = Some("a chunk beyond the address space".into()),
        }
        i32::from(reason.is_some())
    })
    .map_err(hdf5_error("table of chunks"))?;
    Ok(match reason {
        Some(reason) => Err(reason),
        None => Ok(out),
    })
}

/// Undoes the filters of one chunk, last first; a set bit in `mask` says that a filter was left out.
fn undo(
    raw: &[u8],
    filters: &[Filter],
    mask: u32,
    element: usize,
    each: usize,
) -> Result<Vec<u8>, String> {
    let mut bytes = raw.to_vec();
    for (i, filter) in filters.iter().enumerate().rev() {
        if mask >> i & 1 == 1 {
            continue;
        }
        match filter {
            // A checksum of four bytes may stand behind the data.
            Filter::Deflate(_) => {
                bytes = decompress_to_vec_zlib_with_limit(&bytes, each + 4)
                    .map_err(|e| format!("deflate: {e}"))?;
            }
            Filter::Shuffle => bytes = unshuffle(&bytes, element),
            Filter::Fletcher32 => bytes.truncate(bytes.len().saturating_sub(4)),
            other => return Err(format!("filter {other:?}")),
        }
    }
    if bytes.len() != each {
        return Err(format!(
            "a chunk of {} instead of {each} bytes",
            bytes.len()
        ));
    }
    Ok(bytes)
}

/// Shuffle puts the first bytes of all elements first, then the second ones; a remainder stays as it is.
fn unshuffle(bytes: &[u8], element: usize) -> Vec<u8> {
    let n = bytes.len() / element.max(1);
    let mut out = bytes.to_vec();
    for (b, plane) in bytes.chunks_exact(n.max(1)).take(element).enumerate() {
        for (to, &from) in zip(out.iter_mut().skip(b).step_by(element.max(1)), plane) {
            *to = from;
        }
    }
    out
}

/// Copies a chunk to its place, row by row; what hangs over the edge is dropped.
fn place(
    plain: &[u8],
    origin: &[usize],
    chunk: &[usize],
    shape: &[usize],
    element: usize,
    out: &mut [u8],
) {
    let (Some(&row), Some(&width), Some(&x)) = (chunk.last(), shape.last(), origin.last()) else {
        return;
    };
    let fits = row.min(width.saturating_sub(x)) * element;
    for (r, from) in plain.chunks_exact(row * element).enumerate() {
        // The row's indices inside the chunk, slowest axis first, from its number.
        let mut number = r;
        let mut index = 0;
        let mut stride = width;
        let mut inside = true;
        let axes = zip(zip(origin, chunk), shape).rev().skip(1);
        for ((&o, &c), &s) in axes {
            let at = o + number % c;
            number /= c;
            inside &= at < s;
            index += at.saturating_mul(stride);
            stride = stride.saturating_mul(s);
        }
        let start = (index + x).saturating_mul(element);
        if inside
            && let (Some(to), Some(from)) = (out.get_mut(start..start + fits), from.get(..fits))
        {
            to.copy_from_slice(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffle_is_undone() {
        assert_eq!(unshuffle(&[1, 4, 2, 5, 3, 6], 3), [1, 2, 3, 4, 5, 6]);
        assert_eq!(unshuffle(&[1, 3, 2, 4, 9], 2), [1, 2, 3, 4, 9]);
        assert_eq!(unshuffle(&[], 4), [0_u8; 0]);
    }

    #[test]
    fn chunks_over_the_edge_are_cut() {
        // 3 x 3 values in chunks of 2 x 2.
        let mut out = vec![0_u8; 9];
        place(&[1, 2, 3, 4], &[0, 0], &[2, 2], &[3, 3], 1, &mut out);
        place(&[5, 0, 6, 0], &[0, 2], &[2, 2], &[3, 3], 1, &mut out);
        place(&[7, 8, 0, 0], &[2, 0], &[2, 2], &[3, 3], 1, &mut out);
        place(&[9, 0, 0, 0], &[2, 2], &[2, 2], &[3, 3], 1, &mut out);
        assert_eq!(out, [1, 2, 5, 3, 4, 6, 7, 8, 9]);
    }
}
