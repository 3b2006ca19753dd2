//! The direct path: variable-length members read from a memory map, without the HDF5 library.
//!
//! On disk such a member is 16 bytes: `u32` number of elements, `u64` address of a global heap
//! collection, `u32` object index. A collection is `"GCOL"`, version 1, three zero bytes, `u64` size;
//! then objects: `u16` index, `u16` reference count, four reserved bytes, `u64` size, the data padded
//! to 8. Index 0 is the free space at the end.
//!
//! The file is untrusted: every address and length is checked against the map, and the work is bounded
//! by the size of the file.
//!
//! # Source
//! HDF5 File Format Specification 3.0, III.E "Global Heap"; IV.B "Variable-length datatype" encoding.

use std::ops::Range;

use crate::Error;

/// Collections whose tables are remembered. The library fills up to 16 at a time.
const REMEMBERED: usize = 32;

/// Looks up objects of global heap collections.
pub(super) struct Heap<'a> {
    file: &'a [u8],
    remembered: Vec<Collection>,
    next: usize,
    /// Objects that may still be walked over. A sane file needs each once or a few times; a hostile one
    /// could make collections overlap and have them walked over without end.
    budget: u64,
}

struct Collection {
    address: u64,
    /// `(index, first byte, length)`, sorted by index.
    objects: Vec<(u16, usize, usize)>,
}

fn malformed(place: String, found: String, needed: &str) -> Error {
    Error::Malformed {
        place,
        found,
        needed: needed.to_owned(),
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A variable-length member as it stands on disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pointer {
    pub(super) len: u32,
    address: u64,
    index: u32,
}

impl Pointer {
    pub(super) const BYTES: usize = 16;

    pub(super) fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let b: &[u8; Self::BYTES] = bytes.get(at..)?.first_chunk()?;
        let [l0, l1, l2, l3, address @ .., i0, i1, i2, i3] = *b;
        Some(Self {
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            address: u64::from_le_bytes(address),
            index: u32::from_le_bytes([i0, i1, i2, i3]),
        })
    }
}

impl<'a> Heap<'a> {
    pub(super) fn new(file: &'a [u8]) -> Self {
        let budget = 1024 + 4 * file.len() as u64;
        Self {
            file,
            remembered: Vec::new(),
            next: 0,
            budget,
        }
    }

    /// The bytes of a member with `len` elements of `element_bytes` each.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming `place` and the address: outside the file, not a collection, no such
    /// object, shorter than the member says.
    pub(super) fn bytes(
        &mut self,
        pointer: Pointer,
        element_bytes: usize,
        place: &dyn Fn() -> String,
    ) -> Result<Range<usize>, Error> {
        if pointer.len == 0 {
            return Ok(0..0);
        }
        let needed = pointer.len as usize * element_bytes;
        let (start, have) = self.object(pointer.address, pointer.index, place)?;
        if have < needed {
            let found = format!(
                "{have} bytes in heap object {} at byte {}",
                pointer.index, pointer.address
            );
            return Err(malformed(place(), found, &format!("{needed} bytes")));
        }
        Ok(start..start + needed)
    }

    /// Walks over everything in the file that looks like a collection.
    ///
    /// The library walks on for ever where the size of an object is such that the next begins where it does.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming `place` and the address.
    pub(super) fn check_all(&mut self, place: &dyn Fn() -> String) -> Result<(), Error> {
        let mut at = 0;
        while let Some(g) = self
            .file
            .get(at..)
            .and_then(|b| b.iter().position(|&c| c == b'G'))
        {
            at += g;
            if self
                .file
                .get(at..)
                .is_some_and(|b| b.starts_with(b"GCOL\x01\0\0\0"))
            {
                self.walk(at as u64, place)?;
            }
            at += 1;
        }
        Ok(())
    }

    fn object(
        &mut self,
        address: u64,
        index: u32,
        place: &dyn Fn() -> String,
    ) -> Result<(usize, usize), Error> {
        let none = || {
            let found = format!("no object {index} in the heap collection at byte {address}");
            malformed(place(), found, "the object that the data set points to")
        };
        let index = u16::try_from(index).map_err(|_| none())?;
        let known = self.remembered.iter().position(|c| c.address == address);
        let at = match known {
            Some(at) => at,
            None => {
                let collection = self.walk(address, place)?;
                if self.remembered.len() < REMEMBERED {
                    self.remembered.push(collection);
                    self.remembered.len() - 1
                } else {
                    let at = self.next;
                    self.next = (self.next + 1) % REMEMBERED;
                    if let Some(slot) = self.remembered.get_mut(at) {
                        *slot = collection;
                    }
                    at
                }
            }
        };
        let objects = self
            .remembered
            .get(at)
            .map(|c| c.objects.as_slice())
            .unwrap_or_default();
        let found = objects
            .binary_search_by_key(&index, |o| o.0)
            .ok()
            .and_then(|i| objects.get(i));
        found.map(|&(_, start, len)| (start, len)).ok_or_else(none)
    }

    fn walk(&mut self, address: u64, place: &dyn Fn() -> String) -> Result<Collection, Error> {
        let file_len = self.file.len();
        let outside = |what: &str| {
            let found = format!("{what} at byte {address} of a file of {file_len} bytes");
            malformed(
                place(),
                found,
                "a global heap collection inside the file: is the file cut off?",
            )
        };
        let start = usize::try_from(address).map_err(|_| outside("a pointer to a place"))?;
        let head = self.file.get(start..).and_then(|b| b.first_chunk::<16>());
        let head = head.ok_or_else(|| outside("a pointer to a place"))?;
        if !head.starts_with(b"GCOL\x01") {
            return Err(outside("something that is no version-1 heap collection"));
        }
        let size = u64_at(head, 8)
            .and_then(|s| usize::try_from(s).ok())
            .unwrap_or(usize::MAX);
        let end = start.checked_add(size).filter(|&e| e <= file_len);
        let end = end.ok_or_else(|| outside("a collection that is longer than the file"))?;
        let mut objects = Vec::new();
        let mut at = start + 16;
        while let Some(head) = self.file.get(at..end).and_then(|b| b.first_chunk::<16>()) {
            self.budget = self
                .budget
                .checked_sub(1)
                .ok_or_else(|| outside("overlapping collections"))?;
            let [i0, i1, ..] = *head;
            let index = u16::from_le_bytes([i0, i1]);
            let len = u64_at(head, 8)
                .and_then(|s| usize::try_from(s).ok())
                .unwrap_or(usize::MAX);
            if index == 0 && len == 0 {
                return Err(outside("free space of no bytes"));
            }
            if index == 0 {
                // The length counts the head in.
                at = at.saturating_add(len);
                continue;
            }
            let data = at + 16;
            let next = len
                .checked_next_multiple_of(8)
                .and_then(|l| data.checked_add(l));
            let next = next
                .filter(|&n| n <= end)
                .ok_or_else(|| outside("an object that is longer than its collection"))?;
            objects.push((index, data, len));
            at = next;
        }
        objects.sort_unstable_by_key(|o| o.0);
        Ok(Collection { address, objects })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collection(objects: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (index, data) in objects {
            body.extend_from_slice(&index.to_le_bytes());
            body.extend_from_slice(&[0; 6]);
            body.extend_from_slice(&(data.len() as u64).to_le_bytes());
            body.extend_from_slice(data);
            body.resize(body.len().next_multiple_of(8), 0);
        }
        let mut out = b"GCOL\x01\0\0\0".to_vec();
        out.extend_from_slice(&(16 + body.len() as u64).to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    fn pointer(len: u32, address: u64, index: u32) -> Pointer {
        Pointer {
            len,
            address,
            index,
        }
    }

    fn place() -> String {
        "dataset/data[3]".into()
    }

    #[test]
    fn finds_objects_in_any_order() {
        let mut file = vec![0xaa; 8];
        file.extend(collection(&[(2, b"abcdefg"), (1, b"xyz")]));
        let mut heap = Heap::new(&file);
        let two = heap.bytes(pointer(7, 8, 2), 1, &place).unwrap();
        assert_eq!(&file[two], b"abcdefg");
        let one = heap.bytes(pointer(3, 8, 1), 1, &place).unwrap();
        assert_eq!(&file[one], b"xyz");
        assert_eq!(
            heap.bytes(pointer(0, u64::MAX, 9), 4, &place).unwrap(),
            0..0
        );
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let file = collection(&[(1, b"abcd")]);
        for (p, element) in [
            (pointer(2, 0, 1), 4),
            (pointer(1, 0, 2), 4),
            (pointer(1, 0, 65_537), 4),
            (pointer(1, 8, 1), 4),
            (pointer(1, u64::MAX, 1), 4),
            (pointer(1, file.len() as u64 - 4, 1), 4),
            (pointer(u32::MAX, 0, 1), 16),
        ] {
            let error = Heap::new(&file)
                .bytes(p, element, &place)
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("dataset/data[3]: found"), "{error}");
        }
        let mut long = file.clone();
        long[8] = 255;
        assert!(Heap::new(&long).bytes(pointer(1, 0, 1), 4, &place).is_err());
        let mut object = file;
        object[24] = 200;
        assert!(
            Heap::new(&object)
                .bytes(pointer(1, 0, 1), 4, &place)
                .is_err()
        );
    }

    /// The library walks over these without end.
    #[test]
    fn sizes_that_lead_nowhere_are_found_anywhere() {
        let good = collection(&[(1, b"abcd"), (2, b"GCOL")]);
        let mut file = [vec![0xaa; 3], good.clone(), good].concat();
        assert!(Heap::new(&file).check_all(&place).is_ok());
        // An object at the end, of index 0 and no size; or so long that its end comes out at its beginning.
        let at = file.len() - 24;
        file[at..].fill(0);
        assert!(Heap::new(&file).check_all(&place).is_err());
        file[at..].copy_from_slice(&[[1, 0, 0, 0, 0, 0, 0, 0], [0xf0; 8], [0xff; 8]].concat());
        assert!(Heap::new(&file).check_all(&place).is_err());
    }

    #[test]
    fn overlapping_collections_do_not_hang() {
        // Every 16 bytes a collection head that claims the rest of the file.
        let n = 4096;
        let mut file = Vec::new();
        for i in 0..n {
            file.extend_from_slice(b"GCOL\x01\0\0\0");
            file.extend_from_slice(&(16 * (n - i) as u64).to_le_bytes());
        }
        // As an object, such a head has index 0x4347 and a length: the walk ends at once, or the budget does.
        let mut heap = Heap::new(&file);
        for i in 0..n as u64 {
            assert!(heap.bytes(pointer(1, 16 * i, 1), 1, &place).is_err());
        }
    }
}
