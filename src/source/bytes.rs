//! A file's bytes, mapped; and checked little-endian reads from them.
//!
//! Readers that jump about (twix, `.cfl`) read from the map: nothing is held twice, and memory stays bounded by the
//! file. The map is the room's one unsafe block.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use super::SourceError;

/// Bytes of a whole file.
#[derive(Debug)]
pub(crate) struct Bytes {
    map: Option<Mmap>,
}

impl Bytes {
    /// Maps the file. An empty file has no map and no bytes.
    pub(crate) fn open(path: &Path) -> Result<Self, SourceError> {
        let file = File::open(path).map_err(|e| SourceError::io("cannot open", path, e))?;
        let meta = file
            .metadata()
            .map_err(|e| SourceError::io("cannot read the size", path, e))?;
        if meta.is_dir() {
            return Err(SourceError::io(
                "is a folder",
                path,
                std::io::Error::from(std::io::ErrorKind::IsADirectory),
            ));
        }
        if meta.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the map is private to this value and only ever read as plain bytes, for which every bit pattern is
        // valid. Another process that truncates the file while it is read kills this one with a signal; as every
        // reader of mapped files we ask that inputs are left alone while they are read.
        #[allow(unsafe_code)]
        let map =
            unsafe { Mmap::map(&file) }.map_err(|e| SourceError::io("cannot map", path, e))?;
        Ok(Self { map: Some(map) })
    }

    /// All bytes.
    pub(crate) fn all(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

fn take<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes
        .get(offset..offset.checked_add(N)?)
        .and_then(|b| b.try_into().ok())
}

/// Little-endian `u16` at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    take(bytes, offset).map(u16::from_le_bytes)
}

/// Little-endian `u32` at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    take(bytes, offset).map(u32::from_le_bytes)
}

/// Little-endian `i32` at `offset`.
pub(crate) fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    take(bytes, offset).map(i32::from_le_bytes)
}

/// Little-endian `u64` at `offset`.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    take(bytes, offset).map(u64::from_le_bytes)
}

/// Little-endian `f32` at `offset`.
pub(crate) fn f32_at(bytes: &[u8], offset: usize) -> Option<f32> {
    take(bytes, offset).map(f32::from_le_bytes)
}
