//! Damage that the HDF5 library does not survive, found before it sees the file.
//!
//! A group of the old kind keeps its names in a local heap, whose free blocks are a list. The library takes memory for
//! every block of it and never asks whether it has been there: a list that bites its tail takes all memory there is. So
//! the groups are walked here first, without the library: from the superblock to each header of a group, its heap, and
//! the entries of its symbol tables. What is not understood is left to the library, which refuses it with words.
//!
//! # Source
//! HDF5 File Format Specification 3.0: II superblock; III.A.1 B-trees version 1; III.B symbol table nodes; III.C symbol
//! table entries; III.D local heap; IV.A.1.a object header version 1; messages 0x10, 0x11.

use std::collections::BTreeSet;

/// Finds a local heap whose free list does not end: its address.
///
/// `file` begins at the superblock.
pub(super) fn endless_heap(file: &[u8]) -> Option<u64> {
    let mut walk = Walk {
        file,
        seen: BTreeSet::new(),
        headers: Vec::new(),
        trees: Vec::new(),
        heaps: Vec::new(),
    };
    match file.get(8)? {
        // The root's entry in a symbol table stands behind four addresses; version 1 has four bytes more in front.
        0 => walk.entry(56),
        1 => walk.entry(60),
        _ => walk.headers.push(u64_at(file, 36)?),
    }
    loop {
        if let Some(heap) = walk.heaps.pop() {
            if walk.is_endless(heap) == Some(true) {
                return Some(heap);
            }
        } else if let Some(tree) = walk.trees.pop() {
            if walk.seen.insert(('t', tree)) {
                walk.children(tree);
            }
        } else {
            let header = walk.headers.pop()?;
            if walk.seen.insert(('h', header)) {
                walk.messages(header);
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

    /// Messages of an object header of version 1 that lead to a group.
    fn messages(&mut self, header: u64) -> Option<()> {
        let head = self.at(header)?;
        if head.first()? != &1 {
            return None;
        }
        let bytes = u32::from_le_bytes(*head.get(8..)?.first_chunk()?);
        let mut blocks = vec![(header.checked_add(16)?, u64::from(bytes))];
        while let Some((start, bytes)) = blocks.pop() {
            let Some(block) = self.at(start) else {
                continue;
            };
            let block = block.get(..usize::try_from(bytes).ok()?).unwrap_or(block);
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
        Some(())
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

    fn is_endless(&self, heap: u64) -> Option<bool> {
        let head = self.at(heap)?;
        if !head.starts_with(b"HEAP") {
            return None;
        }
        let (bytes, mut free) = (u64_at(head, 8)?, u64_at(head, 16)?);
        let data = self.at(u64_at(head, 24)?)?;
        // A free block has 16 bytes, so there are no more than fit. The list ends with 1.
        let most = bytes.min(data.len() as u64) / 16;
        for _ in 0..=most {
            if free == 1 || free >= bytes {
                return Some(false);
            }
            free = u64_at(data, usize::try_from(free).ok()?)?;
        }
        Some(true)
    }
}
