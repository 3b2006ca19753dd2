//! Where the elements of a data set stand in the file, for data sets that are plain bytes on disk.

use hdf5::datatype::ByteOrder;
use hdf5::types::{H5Type, TypeDescriptor};
use hdf5::{Dataset, dataset::Layout};

use super::hdf5_error;
use super::heap::Pointer;
use super::inflate::inflate;
use super::layout::same_bytes;
use crate::Error;

/// Addresses of a one-dimensional data set's elements.
pub(super) struct Table {
    /// First byte of each chunk, in order.
    chunks: Vec<u64>,
    chunk_elements: usize,
    element_bytes: usize,
    pub(super) len: usize,
    /// The elements themselves, when they were compressed in the file.
    inflated: Option<Vec<u8>>,
}

/// Why a data set with holes is not plain bytes.
pub(super) const NEVER_WRITTEN: &str = "chunks that were never written";

/// Elements of a compressed data set that are held in memory, in bytes (2.8 million acquisitions).
const MAX_INFLATED: usize = 1 << 30;

impl Table {
    /// The bytes of element `i`.
    pub(super) fn element<'a>(&'a self, i: usize, file: &'a [u8]) -> Option<&'a [u8]> {
        if let Some(all) = &self.inflated {
            return all
                .get(i.checked_mul(self.element_bytes)?..)?
                .get(..self.element_bytes);
        }
        let chunk = usize::try_from(*self.chunks.get(i / self.chunk_elements)?).ok()?;
        let at = chunk.checked_add((i % self.chunk_elements).checked_mul(self.element_bytes)?)?;
        file.get(at..)?.get(..self.element_bytes)
    }

    /// Finds the addresses, or says why the data set is not plain bytes.
    ///
    /// # Errors
    /// When the library fails or the table of chunks is damaged; a layout that is not understood is `Ok(Err(reason))`.
    pub(super) fn locate(
        ds: &Dataset,
        file: &[u8],
        userblock: u64,
    ) -> Result<Result<Table, String>, Error> {
        let shape = ds.shape();
        let Some((&len, rest)) = shape.split_first() else {
            return Ok(Err("a scalar".into()));
        };
        if rest.iter().any(|&n| n != 1) {
            return Ok(Err(format!("shape {shape:?}")));
        }
        if userblock != 0 {
            return Ok(Err(format!("a user block of {userblock} bytes")));
        }
        let element_bytes = stored_bytes(ds)?;
        if !ds.filters().is_empty() {
            return Ok(inflate(ds, file, MAX_INFLATED)?.map(|all| Table {
                chunks: Vec::new(),
                chunk_elements: 1,
                element_bytes,
                len,
                inflated: Some(all),
            }));
        }
        let file_len = file.len();
        // Plain storage holds every element, so more of them than the file has bytes is a lie.
        if element_bytes == 0 || len > file_len / element_bytes.max(1) {
            return Ok(Err(format!(
                "{len} elements of {element_bytes} bytes in a file of {file_len} bytes"
            )));
        }
        match ds.layout() {
            Layout::Contiguous => match ds.offset() {
                Some(offset) => {
                    let chunks = vec![offset];
                    Ok(Ok(Table {
                        chunks,
                        chunk_elements: len.max(1),
                        element_bytes,
                        len,
                        inflated: None,
                    }))
                }
                None => Ok(Err("no storage".into())),
            },
            Layout::Chunked => {
                let chunk_elements = match ds.chunk().as_deref() {
                    Some([n, ..]) if *n > 0 => *n,
                    other => return Ok(Err(format!("chunks {other:?}"))),
                };
                let mut chunks = vec![u64::MAX; len.div_ceil(chunk_elements)];
                let mut damaged = None;
                let bytes = (chunk_elements as u64).saturating_mul(element_bytes as u64);
                ds.chunks_visit(|chunk| {
                    let index = chunk.offset.first().map(|&o| o / chunk_elements as u64);
                    let slot = index.and_then(|i| chunks.get_mut(usize::try_from(i).ok()?));
                    match slot {
                        Some(slot) if chunk.size == bytes => *slot = chunk.addr,
                        Some(_) => damaged = Some(chunk.size),
                        None => {} // beyond the end: a data set that was made shorter
                    }
                    0
                })
                .map_err(hdf5_error("table of chunks"))?;
                // Without filters a chunk has one size. The library would believe another one, and take the lengths
                // of samples from wherever it leads.
                if let Some(size) = damaged {
                    return Err(Error::Malformed {
                        place: format!("{}: table of chunks", ds.name()),
                        found: format!("a chunk of {size} bytes"),
                        needed: format!("{bytes} bytes"),
                    });
                }
                if chunks.contains(&u64::MAX) {
                    return Ok(Err(NEVER_WRITTEN.into()));
                }
                Ok(Ok(Table {
                    chunks,
                    chunk_elements,
                    element_bytes,
                    len,
                    inflated: None,
                }))
            }
            other => Ok(Err(format!("{other:?} storage"))),
        }
    }
}

/// Bytes of one element in the file. The library tells the size in memory, where a variable-length
/// string is a pointer of 8 bytes; in the file it is 16.
pub(super) fn stored_bytes(ds: &Dataset) -> Result<usize, Error> {
    let dtype = ds.dtype().map_err(hdf5_error("data type"))?;
    Ok(match dtype.to_descriptor() {
        Ok(TypeDescriptor::VarLenAscii | TypeDescriptor::VarLenUnicode) => Pointer::BYTES,
        _ => dtype.size(),
    })
}

/// Byte offset of each wanted member, when the type on disk is what the direct path can read.
pub(super) fn members<T: H5Type>(
    ds: &Dataset,
) -> Result<Result<Vec<(String, usize)>, String>, Error> {
    let dtype = ds.dtype().map_err(hdf5_error("data type"))?;
    if cfg!(target_endian = "big") || dtype.byte_order() != ByteOrder::LittleEndian {
        return Ok(Err(format!("byte order {:?}", dtype.byte_order())));
    }
    let found = match dtype.to_descriptor() {
        Ok(found) => found,
        Err(e) => return Ok(Err(format!("its type: {e}"))),
    };
    let (TypeDescriptor::Compound(needed), TypeDescriptor::Compound(found)) =
        (T::type_descriptor(), found)
    else {
        return Ok(Err("not a structure".into()));
    };
    let mut offsets = Vec::new();
    for field in &needed.fields {
        match found.fields.iter().find(|f| f.name == field.name) {
            Some(have) if same_bytes(&have.ty, &field.ty) => {
                offsets.push((field.name.clone(), have.offset))
            }
            Some(have) => return Ok(Err(format!("member {} as {}", field.name, have.ty))),
            None => return Ok(Err(format!("no member {}", field.name))),
        }
    }
    Ok(Ok(offsets))
}

impl Table {
    /// The one element of a scalar data set.
    pub(super) fn single(offset: u64, element_bytes: usize) -> Table {
        Table {
            chunks: vec![offset],
            chunk_elements: 1,
            element_bytes,
            len: 1,
            inflated: None,
        }
    }
}
