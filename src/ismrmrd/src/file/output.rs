//! [`Output`]: an HDF5 file written front to back with our own writes, without the HDF5 library.
//!
//! After a write that the system refused (a full disk) a later call of the library in the same process may meet a null
//! pointer, and its files and locks pass to every program that is started meanwhile. Neither is fit for a server that
//! runs all day; so the library reads here, and never writes.
//!
//! What is written is the oldest form that every reader knows: superblock 0, groups as symbol tables, data sets in chunks
//! that can grow along the first axis. Samples go to the disk as they come; in memory stay the chunks that are not full
//! and 8 bytes for each that is.
//!
//! # Source
//! HDF5 File Format Specification 3.0: II.A superblock; III.A.1 B-trees version 1; III.B symbol tables; III.D local
//! heap; III.E global heap; IV.A.1.a object header version 1; IV.A.2 messages.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use bytemuck::Pod;

use crate::packed::{Field, Kind};
use crate::wire::put_values;

/// "Undefined address".
const NONE: u64 = u64::MAX;
const SUPERBLOCK_BYTES: usize = 96;
/// Smallest heap collection that the library accepts.
const HEAP_MIN_BYTES: usize = 4096;
/// A heap collection is closed above this: the library reads a whole one to find one object.
const HEAP_BYTES: usize = 1 << 20;
/// Bytes of a variable-length member in its element.
pub(super) const POINTER_BYTES: usize = 16;
/// Children of a B-tree node over chunks: twice the 32 that superblock 0 implies.
const CHUNK_CHILDREN: usize = 64;
/// Half the children of a B-tree node over a group's names.
const GROUP_K: u16 = 16;
/// Bytes of one entry of a symbol table.
const ENTRY_BYTES: usize = 40;

/// A datatype message and the size of one element.
#[derive(Clone, Debug)]
pub(super) struct Type {
    bytes: usize,
    code: Vec<u8>,
}

impl Type {
    fn new(class: u8, bits: [u8; 3], bytes: usize) -> Type {
        let mut code = vec![2 << 4 | class];
        code.extend(bits);
        code.extend((bytes as u32).to_le_bytes());
        Type { bytes, code }
    }

    fn with(mut self, properties: &[u8]) -> Type {
        self.code.extend(properties);
        self
    }

    pub(super) fn integer(bytes: usize, is_signed: bool) -> Type {
        let [low, high] = (8 * bytes as u16).to_le_bytes();
        Type::new(0, [u8::from(is_signed) << 3, 0, 0], bytes).with(&[0, 0, low, high])
    }

    /// IEEE 754 of 4 or 8 bytes.
    pub(super) fn float(bytes: usize) -> Type {
        let (mantissa, exponent, bias) = if bytes == 4 {
            (23, 8, 127_u32)
        } else {
            (52, 11, 1023)
        };
        let bits = 8 * bytes as u8;
        Type::new(1, [0x20, bits - 1, 0], bytes)
            .with(&[0, 0, bits, 0, mantissa, exponent, 0, mantissa])
            .with(&bias.to_le_bytes())
    }

    /// A complex number under the member names of ISMRMRD.
    pub(super) fn complex(part_bytes: usize) -> Type {
        let part = || Type::float(part_bytes);
        let members = [("real", 0, part()), ("imag", part_bytes, part())];
        Type::compound(&members, 2 * part_bytes)
    }

    /// A structure: names, offsets, types.
    pub(super) fn compound(members: &[(&str, usize, Type)], bytes: usize) -> Type {
        let [low, high] = (members.len() as u16).to_le_bytes();
        let mut this = Type::new(6, [low, high, 0], bytes);
        for (name, offset, of) in members {
            this.code.extend(padded_name(name));
            this.code.extend((*offset as u32).to_le_bytes());
            this.code.extend(&of.code);
        }
        this
    }

    /// A variable-length sequence.
    pub(super) fn sequence(of: &Type) -> Type {
        Type::new(9, [0; 3], POINTER_BYTES).with(&of.code)
    }

    /// A variable-length text.
    pub(super) fn text(is_utf8: bool) -> Type {
        Type::new(9, [1, u8::from(is_utf8), 0], POINTER_BYTES).with(&Type::integer(1, false).code)
    }

    /// Members of a packed header.
    pub(super) fn members(fields: &[Field]) -> Vec<(&'static str, usize, Type)> {
        let member = |&(name, offset, kind, count): &Field| {
            let one = match kind {
                Kind::F32 => Type::float(4),
                Kind::I32 => Type::integer(4, true),
                Kind::U16 | Kind::U32 | Kind::U64 => Type::integer(kind.bytes(), false),
            };
            let of = match count {
                0 => one,
                // One axis, its extent, its place in a permutation that was never implemented.
                n => Type::new(10, [0; 3], n * one.bytes)
                    .with(&[1, 0, 0, 0])
                    .with(&(n as u32).to_le_bytes())
                    .with(&[0; 4])
                    .with(&one.code),
            };
            (name, offset, of)
        };
        fields.iter().map(member).collect()
    }
}

/// With its NUL, filled up to a multiple of 8.
fn padded_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize((bytes.len() + 1).next_multiple_of(8), 0);
    bytes
}

/// A data set that grows along its first axis.
#[derive(Debug)]
pub(super) struct Set {
    of: Type,
    /// Extents of the other axes.
    entry: Vec<u32>,
    entry_bytes: usize,
    /// Entries of one chunk.
    chunk: usize,
    pub(super) len: usize,
    /// The chunk that is not full yet.
    open: Vec<u8>,
    /// Addresses of those that are.
    chunks: Vec<u64>,
}

impl Set {
    /// `None` when an axis or a chunk is longer than a chunk may be, 4 GiB.
    pub(super) fn new(of: Type, entry: &[usize], chunk: usize) -> Option<Set> {
        let values = entry.iter().try_fold(1_usize, |n, &m| n.checked_mul(m));
        let entry_bytes = values?.checked_mul(of.bytes)?;
        u32::try_from(entry_bytes.checked_mul(chunk)?).ok()?;
        let entry = entry.iter().map(|&n| u32::try_from(n));
        Some(Set {
            entry: entry.collect::<Result<_, _>>().ok()?,
            of,
            entry_bytes,
            chunk,
            len: 0,
            open: Vec::new(),
            chunks: Vec::new(),
        })
    }
}

/// A group: names and what they stand for.
#[derive(Debug, Default)]
pub(super) struct Group(BTreeMap<String, Member>);

#[derive(Debug)]
enum Member {
    Group(Group),
    /// Index of a data set.
    Set(usize),
}

impl Group {
    /// Enters a data set under a path, with the groups above it; `false` when the name is taken.
    pub(super) fn insert(&mut self, path: &str, set: usize) -> bool {
        match path.split_once('/') {
            None if self.0.contains_key(path) => false,
            None => {
                self.0.insert(path.to_owned(), Member::Set(set));
                true
            }
            Some((first, rest)) => match self.subgroup(first) {
                Some(group) => group.insert(rest, set),
                None => false,
            },
        }
    }

    /// The group of a name, made when it is not there; `None` when a data set has the name.
    pub(super) fn subgroup(&mut self, name: &str) -> Option<&mut Group> {
        let member = self.0.entry(name.to_owned());
        match member.or_insert_with(|| Member::Group(Group::default())) {
            Member::Group(group) => Some(group),
            Member::Set(_) => None,
        }
    }

    fn most_members(&self) -> usize {
        let below = self.0.values().map(|m| match m {
            Member::Group(group) => group.most_members(),
            Member::Set(_) => 0,
        });
        below.fold(self.0.len(), usize::max)
    }
}

/// The file under way.
#[derive(Debug)]
pub(super) struct Output {
    out: BufWriter<File>,
    /// Where the next byte goes; an open heap collection will begin here.
    at: u64,
    /// Objects of the open heap collection.
    heap: Vec<u8>,
    n_objects: u16,
    is_broken: bool,
}

impl Output {
    /// Begins an empty file.
    pub(super) fn new(file: File) -> io::Result<Output> {
        let mut this = Output {
            out: BufWriter::with_capacity(1 << 20, file),
            at: 0,
            heap: Vec::new(),
            n_objects: 0,
            is_broken: false,
        };
        this.put(&[0; SUPERBLOCK_BYTES])?;
        Ok(this)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_broken {
            return Err(io::Error::other("an earlier write failed"));
        }
        let done = self.out.write_all(bytes);
        self.is_broken = done.is_err();
        self.at += bytes.len() as u64;
        done
    }

    /// Writes a piece that others point to, from a multiple of 8 on.
    fn block(&mut self, bytes: &[u8]) -> io::Result<u64> {
        self.close_heap()?;
        let at = self.at;
        self.put(bytes)?;
        self.put(&[0; 8][..bytes.len().next_multiple_of(8) - bytes.len()])?;
        Ok(at)
    }

    /// Puts values of `component` bytes (a complex number has two components) into the heap and returns the member that
    /// points to them. `elements` is the length that the member tells.
    pub(super) fn variable<T: Pod>(
        &mut self,
        data: &[T],
        component: usize,
        elements: usize,
    ) -> io::Result<[u8; POINTER_BYTES]> {
        let elements = u32::try_from(elements).map_err(io::Error::other)?;
        if self.heap.len() >= HEAP_BYTES || self.n_objects == u16::MAX {
            self.close_heap()?;
        }
        self.n_objects += 1;
        let n_bytes = size_of_val(data);
        self.heap.extend(self.n_objects.to_le_bytes());
        self.heap.extend([0; 6]);
        self.heap.extend((n_bytes as u64).to_le_bytes());
        put_values(data, component, &mut self.heap);
        let end = self.heap.len().next_multiple_of(8);
        self.heap.resize(end, 0);
        let mut pointer = [0; POINTER_BYTES];
        pointer[..4].copy_from_slice(&elements.to_le_bytes());
        pointer[4..12].copy_from_slice(&self.at.to_le_bytes());
        pointer[12..].copy_from_slice(&u32::from(self.n_objects).to_le_bytes());
        Ok(pointer)
    }

    fn close_heap(&mut self) -> io::Result<()> {
        if self.heap.is_empty() {
            return Ok(());
        }
        let mut objects = std::mem::take(&mut self.heap);
        self.n_objects = 0;
        let size = (16 + objects.len()).max(HEAP_MIN_BYTES);
        let free = size - 16 - objects.len();
        // Object 0 is the free space, its head counted in; below 16 bytes there is room for none.
        if free >= 16 {
            objects.extend([0; 8]);
            objects.extend((free as u64).to_le_bytes());
        }
        objects.resize(size - 16, 0);
        let mut head = b"GCOL\x01\0\0\0".to_vec();
        head.extend((size as u64).to_le_bytes());
        self.put(&head)?;
        self.put(&objects)?;
        objects.clear();
        self.heap = objects;
        Ok(())
    }

    /// Adds one entry to a data set.
    pub(super) fn append(&mut self, set: &mut Set, entry: &[u8]) -> io::Result<()> {
        debug_assert_eq!(entry.len(), set.entry_bytes);
        set.len += 1;
        if set.chunk == 1 && !entry.is_empty() {
            set.chunks.push(self.block(entry)?);
            return Ok(());
        }
        set.open.extend_from_slice(entry);
        if set.open.len() >= set.chunk * set.entry_bytes {
            self.close_chunk(set)?;
        }
        Ok(())
    }

    fn close_chunk(&mut self, set: &mut Set) -> io::Result<()> {
        if set.open.is_empty() {
            return Ok(());
        }
        set.open.resize(set.chunk * set.entry_bytes, 0);
        set.chunks.push(self.block(&set.open)?);
        set.open.clear();
        Ok(())
    }

    /// The B-tree over a data set's chunks: from its leaves up, siblings one after the other.
    fn chunk_index(&mut self, set: &Set) -> io::Result<u64> {
        let rank = 1 + set.entry.len();
        let key_bytes = 8 + 8 * (rank + 1);
        let node_bytes = 24 + CHUNK_CHILDREN * (key_bytes + 8) + key_bytes;
        // Behind the last chunk stands a key that is above all others.
        let key = |chunk: usize| {
            let is_one = chunk < set.chunks.len();
            let bytes = usize::from(is_one) * set.chunk * set.entry_bytes;
            let mut key = (bytes as u64).to_le_bytes().to_vec();
            key.extend(((chunk * set.chunk) as u64).to_le_bytes());
            key.resize(key_bytes, 0);
            key
        };
        let mut children: Vec<(usize, u64)> = set.chunks.iter().copied().enumerate().collect();
        self.close_heap()?;
        for level in 0.. {
            let first = self.at;
            let n_nodes = children.len().div_ceil(CHUNK_CHILDREN);
            let mut above = Vec::new();
            for (i, node) in children.chunks(CHUNK_CHILDREN).enumerate() {
                let place = |i: usize| first + (i * node_bytes) as u64;
                let left = i.checked_sub(1).map_or(NONE, place);
                let right = if i + 1 < n_nodes { place(i + 1) } else { NONE };
                let next = children.get((i + 1) * CHUNK_CHILDREN);
                let mut bytes = tree_head(1, level, node.len(), left, right);
                for &(chunk, address) in node {
                    bytes.extend(key(chunk));
                    bytes.extend(address.to_le_bytes());
                }
                bytes.extend(key(next.map_or(set.chunks.len(), |n| n.0)));
                bytes.resize(node_bytes, 0);
                above.push((node.first().map_or(0, |n| n.0), self.block(&bytes)?));
            }
            match above[..] {
                [] => return Ok(NONE),
                [(_, root)] => return Ok(root),
                _ => children = above,
            }
        }
        Ok(NONE)
    }

    /// The object header of a data set; its last chunk goes before it.
    fn set(&mut self, set: &mut Set) -> io::Result<u64> {
        self.close_chunk(set)?;
        let index = self.chunk_index(set)?;
        let rank = 1 + set.entry.len() as u8;
        let mut space = vec![1, rank, 1, 0, 0, 0, 0, 0];
        let tail = || set.entry.iter().flat_map(|&n| u64::from(n).to_le_bytes());
        space.extend((set.len as u64).to_le_bytes());
        space.extend(tail());
        // The first axis has no end.
        space.extend(u64::MAX.to_le_bytes());
        space.extend(tail());
        // Storage as it is needed, no fill value but zero.
        let fill = vec![2, 3, 2, 1, 0, 0, 0, 0];
        let mut layout = vec![3, 2, rank + 1];
        layout.extend(index.to_le_bytes());
        layout.extend((set.chunk as u32).to_le_bytes());
        layout.extend(set.entry.iter().flat_map(|&n| n.max(1).to_le_bytes()));
        layout.extend((set.of.bytes as u32).to_le_bytes());
        let of = set.of.code.clone();
        self.object(vec![
            (0x01, space),
            (0x03, of),
            (0x05, fill),
            (0x08, layout),
        ])
    }

    fn object(&mut self, messages: Vec<(u16, Vec<u8>)>) -> io::Result<u64> {
        let mut body = Vec::new();
        let n_messages = messages.len() as u16;
        for (kind, mut data) in messages {
            data.resize(data.len().next_multiple_of(8), 0);
            let bytes = u16::try_from(data.len()).map_err(io::Error::other)?;
            body.extend(kind.to_le_bytes());
            body.extend(bytes.to_le_bytes());
            // Types and fill values never change.
            body.extend([u8::from(matches!(kind, 0x03 | 0x05)), 0, 0, 0]);
            body.extend(data);
        }
        let mut object = vec![1, 0];
        object.extend(n_messages.to_le_bytes());
        object.extend(1_u32.to_le_bytes());
        object.extend((body.len() as u32).to_le_bytes());
        object.extend([0; 4]);
        object.extend(body);
        self.block(&object)
    }

    /// A group with all that is in it; its entry as others name it. `leaf_k` is half the room of a symbol table.
    fn group(&mut self, group: &Group, sets: &[u64], leaf_k: u16) -> io::Result<Entry> {
        let mut names = vec![0; 8];
        let mut table = b"SNOD\x01\0".to_vec();
        table.extend((group.0.len() as u16).to_le_bytes());
        let mut last = 0;
        for (name, member) in &group.0 {
            let entry = match member {
                Member::Group(group) => self.group(group, sets, leaf_k)?,
                Member::Set(set) => {
                    let object = sets.get(*set).copied().unwrap_or(NONE);
                    Entry {
                        object,
                        cached: None,
                    }
                }
            };
            last = names.len() as u64;
            table.extend(entry.encode(last));
            names.extend(padded_name(name));
        }
        table.resize(8 + 2 * usize::from(leaf_k) * ENTRY_BYTES, 0);
        let table = self.block(&table)?;
        let mut tree = tree_head(0, 0, 1, NONE, NONE);
        for word in [0, table, last] {
            tree.extend(word.to_le_bytes());
        }
        tree.resize(24 + (4 * usize::from(GROUP_K) + 1) * 8, 0);
        let tree = self.block(&tree)?;
        let bytes = names.len() as u64;
        let names = self.block(&names)?;
        let mut heap = b"HEAP\0\0\0\0".to_vec();
        // 1: no free space.
        for word in [bytes, 1, names] {
            heap.extend(word.to_le_bytes());
        }
        let heap = self.block(&heap)?;
        let message = [tree.to_le_bytes(), heap.to_le_bytes()].concat();
        let object = self.object(vec![(0x11, message)])?;
        Ok(Entry {
            object,
            cached: Some([tree, heap]),
        })
    }

    /// Writes what is missing, the superblock last, and gives the file back.
    pub(super) fn finish(mut self, root: &Group, sets: &mut [Set]) -> io::Result<File> {
        let leaf_k = u16::try_from(root.most_members().div_ceil(2).max(4))
            .map_err(|_| io::Error::other("too many names in one group"))?;
        let sets = sets.iter_mut().map(|set| self.set(set));
        let sets = sets.collect::<io::Result<Vec<u64>>>()?;
        let root = self.group(root, &sets, leaf_k)?;
        let mut head = b"\x89HDF\r\n\x1a\n".to_vec();
        // Versions; addresses and lengths of 8 bytes.
        head.extend([0, 0, 0, 0, 0, 8, 8, 0]);
        head.extend(leaf_k.to_le_bytes());
        head.extend(GROUP_K.to_le_bytes());
        head.extend(0_u32.to_le_bytes());
        for word in [0, NONE, self.at, NONE] {
            head.extend(word.to_le_bytes());
        }
        head.extend(root.encode(0));
        self.out.seek(SeekFrom::Start(0))?;
        self.put(&head)?;
        self.out
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
    }
}

/// Where an object stands; of a group also its B-tree and heap.
struct Entry {
    object: u64,
    cached: Option<[u64; 2]>,
}

impl Entry {
    fn encode(&self, name: u64) -> Vec<u8> {
        let mut bytes = [name.to_le_bytes(), self.object.to_le_bytes()].concat();
        bytes.extend(u64::from(self.cached.is_some()).to_le_bytes());
        let [tree, heap] = self.cached.unwrap_or_default();
        bytes.extend([tree.to_le_bytes(), heap.to_le_bytes()].concat());
        bytes
    }
}

/// `kind` 0 is over a group's names, 1 over chunks.
fn tree_head(kind: u8, level: u8, n_children: usize, left: u64, right: u64) -> Vec<u8> {
    let mut head = b"TREE".to_vec();
    head.extend([kind, level]);
    head.extend((n_children as u16).to_le_bytes());
    head.extend(left.to_le_bytes());
    head.extend(right.to_le_bytes());
    head
}
