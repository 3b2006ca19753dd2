//! Damage that the HDF5 library does not survive, found before it sees the file.
//!
//! A group of the old kind keeps its names in a local heap, whose free blocks are a list. The library takes memory for
//! every block of it and never asks whether it has been there: a list that bites its tail takes all memory there is. And
//! it takes as much memory for a header or a heap as they say, before it looks whether the file is as long. So the groups
//! are walked here first, without the library: from the superblock to each header of a group, its heap, and
//! the entries of its symbol tables. What is not understood is left to the library, which refuses it with words.
//!
//! # Source
//! HDF5 File Format Specification 3.0: II superblock; III.A.1 B-trees version 1; III.B symbol table nodes; III.C symbol
//! table entries; III.D local heap; IV.A.1.a object header version 1; messages 0x10, 0x11.

use std::collections::BTreeSet;

/// Finds a block, a header or a heap that reaches beyond the file, or a heap whose free list does not end: what it is, with its
/// address.
///
/// `file` begins at the superblock.
pub(super) fn deadly(file: &[u8]) -> Option<String> {
    let mut walk = Walk {
        file,
        seen: BTreeSet::new(),
        headers: Vec::new(),
        trees: Vec::new(),
        heaps: Vec::new(),
    };
    match file.get(8)? {
        // The root's entry in a symbol table stands behind four addresses, the last that of the driver's block; version
        // 1 has four bytes more in front.
        version @ (0 | 1) => {
            let at = 56 + 4 * usize::from(*version);
            let block = walk.at(u64_at(file, at - 8)?);
            let bytes = block.and_then(|b| Some((b.len(), u32_at(b, 4)?)));
            if bytes.is_some_and(|(room, bytes)| room < bytes as usize) {
                return Some(format!("a driver's block that {BEYOND}"));
            }
            walk.entry(at);
        }
        _ => walk.headers.push(u64_at(file, 36)?),
    }
    loop {
        if let Some(heap) = walk.heaps.pop() {
            if let Some(found) = walk.deadly_heap(heap) {
                return Some(format!("a group's heap at byte {heap} {found}"));
            }
        } else if let Some(tree) = walk.trees.pop() {
            if walk.seen.insert(('t', tree)) {
                walk.children(tree);
            }
        } else {
            let header = walk.headers.pop()?;
            if walk.seen.insert(('h', header)) && walk.messages(header).is_err() {
                return Some(format!("an object's header at byte {header} {BEYOND}"));
            }
        }
    }
}

/// What is still to be visited. Every address is visited once as what it is, so the work is bounded by the file.
struct Walk<'a> {
    file: &'a [u8],
    seen: BTreeSet<(char, u64)>,
    headers: Vec<u64>,
    /// Nodes of B-trees, and symbol tables.
    trees: Vec<u64>,
    heaps: Vec<u64>,
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?).into())
}

impl<'a> Walk<'a> {
    fn at(&self, address: u64) -> Option<&'a [u8]> {
        self.file.get(usize::try_from(address).ok()?..)
    }

    /// An entry of a symbol table: an object, and of a group perhaps its B-tree and heap.
    fn entry(&mut self, at: usize) {
        let word = |n: usize| u64_at(self.file, at + 8 * n);
        let (object, kind, tree, heap) = (word(1), word(2), word(3), word(4));
        self.headers.extend(object);
        if kind.is_some_and(|k| k & 0xffff_ffff == 1) {
            self.trees.extend(tree);
            self.heaps.extend(heap);
        }
    }

    /// First byte and length of an object header's messages.
    fn first_block(&self, header: u64) -> Option<(u64, u64)> {
        let head = self.at(header)?;
        if head.starts_with(b"OHDR\x02") {
            let flags = head.get(5)?;
            let times = usize::from(flags >> 5 & 1) * 16 + usize::from(flags >> 4 & 1) * 4;
            let (at, width) = (6 + times, 1_usize << (flags & 3));
            let mut bytes = [0; 8];
            bytes
                .get_mut(..width)?
                .copy_from_slice(head.get(at..at + width)?);
            let start = header.checked_add((at + width) as u64)?;
            return Some((start, u64::from_le_bytes(bytes)));
        }
        (head.first()? == &1).then_some(())?;
        Some((header.checked_add(16)?, u32_at(head, 8)?.into()))
    }

    /// Messages of an object header that lead to a group. Those of version 2 have other links, which are not followed.
    ///
    /// # Errors
    /// The header reaches beyond the file.
    fn messages(&mut self, header: u64) -> Result<(), ()> {
        let mut blocks: Vec<(u64, u64)> = self.first_block(header).into_iter().collect();
        let is_v2 = self.at(header).is_some_and(|h| h.starts_with(b"OHDR"));
        while let Some((start, bytes)) = blocks.pop() {
            let bytes = usize::try_from(bytes).map_err(|_| ())?;
            let block = self.at(start).and_then(|b| b.get(..bytes)).ok_or(())?;
            if is_v2 {
                continue;
            }
            let mut at = 0;
            while let (Some(kind), Some(len)) = (u16_at(block, at), u16_at(block, at + 2)) {
                let pair = u64_at(block, at + 8).zip(u64_at(block, at + 16));
                match (kind, pair) {
                    (0x10, Some((start, bytes))) if self.seen.insert(('c', start)) => {
                        blocks.push((start, bytes));
                    }
                    (0x11, Some((tree, heap))) => {
                        self.trees.push(tree);
                        self.heaps.push(heap);
                    }
                    _ => {}
                }
                at += 8 + len;
            }
        }
        Ok(())
    }

    /// What a node of a group's B-tree, or a symbol table, points to.
    fn children(&mut self, address: u64) -> Option<()> {
        let node = self.at(address)?;
        if node.starts_with(b"TREE\0") {
            let n = u16_at(node, 6)?;
            let children = (0..n).map_while(|i| u64_at(node, 32 + 16 * i));
            self.trees.extend(children);
        } else if node.starts_with(b"SNOD") {
            let n = u16_at(node, 6)?;
            let first = usize::try_from(address).ok()?.checked_add(8)?;
            let room = self.file.len().saturating_sub(first) / 40;
            for i in 0..n.min(room) {
                self.entry(first + 40 * i);
            }
        }
        Some(())
    }

    /// What is deadly about a local heap.
    fn deadly_heap(&self, heap: u64) -> Option<&'static str> {
        let head = self.at(heap).filter(|h| h.starts_with(b"HEAP"))?;
        let (bytes, mut free) = (u64_at(head, 8)?, u64_at(head, 16)?);
        let data = self.at(u64_at(head, 24)?).unwrap_or_default();
        if bytes > data.len() as u64 {
            return Some(BEYOND);
        }
        // A free block has 16 bytes, so there are no more than fit. The list ends with 1.
        for _ in 0..=bytes / 16 {
            if free == 1 || free >= bytes {
                return None;
            }
            free = u64_at(data, usize::try_from(free).ok()?)?;
        }
        Some("has a free list that does not end")
    }
}

const BEYOND: &str = "reaches beyond the end of the file";
