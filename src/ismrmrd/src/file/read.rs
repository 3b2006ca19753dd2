//! [`File`]: what is in an ISMRMRD file.

use std::borrow::Cow;
use std::io::Read;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use hdf5::dataset::Layout;
use hdf5::datatype::ByteOrder;
use hdf5::types::{
    FixedAscii, FloatSize, H5Type, IntSize, TypeDescriptor, VarLenAscii, VarLenUnicode,
};
use hdf5::{Dataset, Group, Hyperslab, LinkType, LocationType, Selection, SliceOrIndex};
use memmap2::{Mmap, UncheckedAdvice};
use ndarray::IxDyn;

use super::hdf5_error;
use super::heap::{Heap, Pointer};
use super::inflate::inflate;
use super::layout::{
    Cx, CxShort, RawAcquisition, RawImageHeader, RawWaveform, missing_members, same_bytes,
};
use super::table::{Table, members, stored_bytes};
use crate::acquisition::{ACQUISITION_HEADER_BYTES, AcquisitionHeader, AcquisitionRef};
use crate::header::{self, Header};
use crate::image::{Image, ImageHeader, NdArray, Pixels};
use crate::waveform::{WAVEFORM_HEADER_BYTES, Waveform, WaveformHeader};
use crate::wire::values;
use crate::{Complex32, Error, Limits};

/// Groups below groups that are searched, and groups in all: links may form circles.
const MAX_GROUP_DEPTH: usize = 4;
const MAX_GROUPS: usize = 4096;
/// Samples that one batch of the library path may hold, in bytes.
const LIBRARY_BATCH_BYTES: usize = 64 << 20;

/// An ISMRMRD HDF5 file, open for reading.
///
/// The file must not be changed by another program while it is open: it is mapped into memory.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    limits: Limits,
    h5: hdf5::File,
    /// None on systems that refuse to map the file; everything then goes through the library.
    map: Option<Mmap>,
    userblock: u64,
    file_len: u64,
}

/// What one group holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupInfo {
    /// Path in the file without the leading slash; `/` for the root.
    pub name: String,
    /// Whether there is an XML header.
    pub has_header: bool,
    /// Acquisitions, when there is a data set of them.
    pub acquisitions: Option<u64>,
    /// Waveforms, when there is a data set of them.
    pub waveforms: Option<u64>,
    /// Image series.
    pub images: Vec<ImagesInfo>,
    /// Array series.
    pub arrays: Vec<ArraysInfo>,
}

/// A series of images of one size and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagesInfo {
    /// Name below the group.
    pub name: String,
    /// How many.
    pub count: u64,
    /// `[channel, z, y, x]` of each.
    pub shape: Vec<usize>,
}

/// A series of arrays of one size and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArraysInfo {
    /// Name below the group.
    pub name: String,
    /// How many.
    pub count: u64,
    /// Shape of each.
    pub shape: Vec<usize>,
}

/// How acquisitions of a group are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReaderKind {
    /// From a memory map, samples borrowed.
    Direct,
    /// Through the HDF5 library, samples copied; with the reason.
    Library(String),
}

/// Where a data set's elements stand, and where the members stand in an element.
type Layouts = (Table, Vec<(String, usize)>);

/// One acquisition before it is lent out: header, trajectory, samples.
type Held<'a> = (AcquisitionHeader, Cow<'a, [f32]>, Cow<'a, [Complex32]>);

impl File {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Malformed`] for a file that is empty, not HDF5, or cut off.
    pub fn open(path: &Path, limits: Limits) -> Result<File, Error> {
        let io = |what| {
            move |source| Error::Io {
                what,
                path: path.to_path_buf(),
                source,
            }
        };
        let mut file = std::fs::File::open(path).map_err(io("open"))?;
        let meta = file.metadata().map_err(io("read"))?;
        if meta.is_dir() {
            return Err(io("open")(std::io::Error::from(
                std::io::ErrorKind::IsADirectory,
            )));
        }
        let malformed = |found: String, needed: &str| Error::Malformed {
            place: path.display().to_string(),
            found,
            needed: needed.to_owned(),
        };
        if meta.len() == 0 {
            return Err(malformed("an empty file".into(), "an HDF5 file"));
        }
        let userblock = signature(&mut file).map_err(io("read"))?.map_err(|first| {
            malformed(
                format!("bytes {first} at the beginning"),
                "an HDF5 file (\\x89HDF\\r\\n\\x1a\\n)",
            )
        })?;
        // The library would print its error stack on stderr; its text comes back in our error instead.
        hdf5::silence_errors(true);
        let h5 = hdf5::File::open(path).map_err(|e| {
            match hdf5_error(path.display().to_string())(e) {
                Error::Hdf5 { message, .. } if !message.contains("lock") => malformed(
                    format!("an HDF5 file that does not open ({message})"),
                    "an intact file: copy or convert it again",
                ),
                other => other,
            }
        })?;
        // SAFETY: the map is read-only and private to this value. The remaining obligation, that nobody
        // changes the file meanwhile, is the user's and stands in the documentation of `File`; our own
        // writer never changes a file in place but renames a new one over it.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.ok();
        Ok(File {
            path: path.to_path_buf(),
            limits,
            h5,
            map,
            userblock,
            file_len: meta.len(),
        })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every group that holds a header, acquisitions, waveforms, images or arrays.
    ///
    /// # Errors
    /// [`Error::Hdf5`] when the library cannot list a group.
    pub fn groups(&self) -> Result<Vec<GroupInfo>, Error> {
        let mut found = Vec::new();
        let mut visited = 0;
        self.search(&self.h5, "", 0, &mut visited, &mut found)?;
        Ok(found)
    }

    fn search(
        &self,
        group: &Group,
        name: &str,
        depth: usize,
        visited: &mut usize,
        found: &mut Vec<GroupInfo>,
    ) -> Result<(), Error> {
        *visited += 1;
        if *visited > MAX_GROUPS {
            return Err(Error::TooLarge {
                what: "groups in the file",
                declared: *visited as u64,
                limit: MAX_GROUPS as u64,
            });
        }
        let members = self.list(group)?;
        let mut info = GroupInfo {
            name: if name.is_empty() {
                "/".into()
            } else {
                name.into()
            },
            ..Default::default()
        };
        let mut below = Vec::new();
        for (member, kind) in members {
            match kind {
                LocationType::Dataset => {
                    let Ok(ds) = group.dataset(&member) else {
                        continue;
                    };
                    let shape = ds.shape();
                    let count = shape.first().map_or(1, |&n| n as u64);
                    match member.as_str() {
                        "xml" => info.has_header = true,
                        "data" if is_compound_with(&ds, &["head", "data"]) => {
                            info.acquisitions = Some(count)
                        }
                        "waveforms" if is_compound_with(&ds, &["head", "data"]) => {
                            info.waveforms = Some(count)
                        }
                        _ if pixel_kind(&ds).is_some() && shape.len() > 1 => {
                            let shape = shape.get(1..).unwrap_or_default().to_vec();
                            info.arrays.push(ArraysInfo {
                                name: member,
                                count,
                                shape,
                            });
                        }
                        _ => {}
                    }
                }
                LocationType::Group => {
                    let Ok(sub) = group.group(&member) else {
                        continue;
                    };
                    match image_series(&sub) {
                        Some((count, shape)) => info.images.push(ImagesInfo {
                            name: member,
                            count,
                            shape,
                        }),
                        None => below.push((member, sub)),
                    }
                }
                _ => {}
            }
        }
        // Arrays alone make a group ours only below the root: any HDF5 file may have arrays in its root.
        let ours = info.has_header
            || info.acquisitions.is_some()
            || info.waveforms.is_some()
            || !info.images.is_empty();
        if ours || (!name.is_empty() && !info.arrays.is_empty()) {
            found.push(info);
        }
        if depth < MAX_GROUP_DEPTH {
            for (member, sub) in below {
                let path = if name.is_empty() {
                    member
                } else {
                    format!("{name}/{member}")
                };
                self.search(&sub, &path, depth + 1, visited, found)?;
            }
        }
        Ok(())
    }

    /// Members by name and kind. Links that lead to other files are left out: a file does not get to
    /// name which of the reader's files are opened.
    fn list(&self, group: &Group) -> Result<Vec<(String, LocationType)>, Error> {
        let names = group
            .iter_visit_default(Vec::new(), |_, name, info, names: &mut Vec<String>| {
                if info.link_type != LinkType::External {
                    names.push(name.to_owned());
                }
                true
            })
            .map_err(hdf5_error(format!(
                "{}: list of group {}",
                self.path.display(),
                group.name()
            )))?;
        let kind = |name: String| {
            group
                .loc_info_by_name(&name)
                .ok()
                .map(|info| (name, info.loc_type))
        };
        Ok(names.into_iter().filter_map(kind).collect())
    }

    fn place(&self, group: &str, member: &str) -> String {
        let group = group.trim_matches('/');
        let sep = if group.is_empty() { "" } else { "/" };
        format!("{}: {group}{sep}{member}", self.path.display())
    }

    fn malformed(
        &self,
        place: String,
        found: impl Into<String>,
        needed: impl Into<String>,
    ) -> Error {
        Error::Malformed {
            place,
            found: found.into(),
            needed: needed.into(),
        }
    }

    fn group(&self, name: &str) -> Result<Group, Error> {
        let path = name.trim_matches('/');
        let group = if path.is_empty() {
            self.h5.group("/")
        } else {
            self.h5.group(path)
        };
        group.map_err(|_| {
            let found = match self.groups() {
                Ok(groups) if groups.is_empty() => "no group of ISMRMRD data".to_owned(),
                Ok(groups) => groups
                    .iter()
                    .map(|g| format!("\"{}\"", g.name))
                    .collect::<Vec<_>>()
                    .join(", "),
                Err(e) => e.to_string(),
            };
            Error::Missing {
                what: format!("group \"{name}\""),
                path: self.path.clone(),
                found,
            }
        })
    }

    fn dataset(
        &self,
        group: &Group,
        group_name: &str,
        member: &str,
        what: &str,
    ) -> Result<Dataset, Error> {
        let names = self.list(group)?;
        if !names
            .iter()
            .any(|(name, kind)| name == member && *kind == LocationType::Dataset)
        {
            let found = names
                .iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            return Err(Error::Missing {
                what: format!("{what} (data set \"{member}\" in group \"{group_name}\")"),
                path: self.path.clone(),
                found: if found.is_empty() {
                    "an empty group".into()
                } else {
                    found
                },
            });
        }
        let place = self.place(group_name, member);
        let ds = group.dataset(member).map_err(hdf5_error(place.clone()))?;
        let plain = matches!(
            ds.layout(),
            Layout::Contiguous | Layout::Chunked | Layout::Compact
        );
        let external = ds.dcpl().is_ok_and(|p| !p.external().is_empty());
        if !plain || external {
            return Err(self.malformed(place, "data kept in other files", "data inside the file"));
        }
        Ok(ds)
    }

    fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    fn table(&self, ds: &Dataset) -> Result<Result<Table, String>, Error> {
        match &self.map {
            Some(map) => Table::locate(ds, map, self.userblock),
            None => Ok(Err("a file that cannot be mapped".into())),
        }
    }

    /// The XML header as it stands in the file, decoded to text.
    ///
    /// # Errors
    /// [`Error::Missing`] for a group without one; [`Error::TooLarge`]; [`Error::Malformed`] for bytes that
    /// are no text.
    pub fn header_xml(&self, group: &str) -> Result<String, Error> {
        let g = self.group(group)?;
        let ds = self.dataset(&g, group, "xml", "XML header")?;
        let bytes = self.string(
            &ds,
            0,
            "bytes of the XML header",
            self.limits.xml_bytes,
            &self.place(group, "xml"),
        )?;
        header::decode_text(&bytes).map_err(|e| self.in_file(e))
    }

    /// The XML header.
    ///
    /// # Errors
    /// As [`File::header_xml`] and [`Header::parse`].
    pub fn header(&self, group: &str) -> Result<Header, Error> {
        Header::parse(&self.header_xml(group)?).map_err(|e| self.in_file(e))
    }

    /// Puts the file's name in front of an error's place.
    fn in_file(&self, error: Error) -> Error {
        match error {
            Error::Malformed {
                place,
                found,
                needed,
            } => Error::Malformed {
                place: format!("{}: {place}", self.path.display()),
                found,
                needed,
            },
            other => other,
        }
    }

    /// String `i` of a data set: variable-length or fixed, ASCII or UTF-8.
    fn string(
        &self,
        ds: &Dataset,
        i: usize,
        what: &'static str,
        limit: usize,
        place: &str,
    ) -> Result<Vec<u8>, Error> {
        let too_large = |n: usize| Error::TooLarge {
            what,
            declared: n as u64,
            limit: limit as u64,
        };
        let dtype = ds
            .dtype()
            .and_then(|t| t.to_descriptor())
            .map_err(hdf5_error(place))?;
        if i >= ds.size() {
            return Err(self.malformed(
                place.into(),
                format!("{} entries", ds.size()),
                format!("at least {}", i + 1),
            ));
        }
        // A scalar is one element.
        let table = if ds.ndim() == 0 {
            self.scalar_table(ds)
        } else {
            self.table(ds)?
        };
        let bytes = self.bytes();
        let fixed = match dtype {
            TypeDescriptor::VarLenAscii | TypeDescriptor::VarLenUnicode => None,
            TypeDescriptor::FixedAscii(n) | TypeDescriptor::FixedUnicode(n) => Some(n),
            other => return Err(self.malformed(place.into(), format!("type {other}"), "a string")),
        };
        if let Ok(table) = &table {
            let outside = || {
                self.malformed(
                    place.into(),
                    "a pointer outside the file",
                    "a place inside the file",
                )
            };
            let element = table.element(i, bytes).ok_or_else(outside)?;
            if let Some(n) = fixed {
                if n > limit {
                    return Err(too_large(n));
                }
                return Ok(element.get(..n).ok_or_else(outside)?.to_vec());
            }
            let pointer = Pointer::read(element, 0).ok_or_else(outside)?;
            if pointer.len as usize > limit {
                return Err(too_large(pointer.len as usize));
            }
            let range = Heap::new(bytes).bytes(pointer, 1, &|| place.to_owned())?;
            return Ok(bytes.get(range).unwrap_or_default().to_vec());
        }
        let text = match (dtype_of(ds), ds.ndim()) {
            (Some(TypeDescriptor::VarLenAscii), 0) => ds
                .read_scalar::<VarLenAscii>()
                .map(|s| s.as_bytes().to_vec()),
            (Some(TypeDescriptor::VarLenAscii), _) => {
                one::<VarLenAscii>(ds, i).map(|s| s.as_bytes().to_vec())
            }
            (Some(TypeDescriptor::VarLenUnicode), 0) => ds
                .read_scalar::<VarLenUnicode>()
                .map(|s| s.as_bytes().to_vec()),
            (Some(TypeDescriptor::VarLenUnicode), _) => {
                one::<VarLenUnicode>(ds, i).map(|s| s.as_bytes().to_vec())
            }
            // A fixed string in compact storage fits in an object header: 64 KiB.
            (_, 0) => ds
                .read_scalar::<FixedAscii<65_536>>()
                .map(|s| s.as_bytes().to_vec()),
            _ => one::<FixedAscii<65_536>>(ds, i).map(|s| s.as_bytes().to_vec()),
        };
        let text = text.map_err(hdf5_error(place))?;
        if text.len() > limit {
            return Err(too_large(text.len()));
        }
        Ok(text)
    }

    fn scalar_table(&self, ds: &Dataset) -> Result<Table, String> {
        let offset = ds
            .offset()
            .filter(|_| self.map.is_some() && self.userblock == 0);
        let bytes = stored_bytes(ds).map_err(|e| e.to_string())?;
        offset
            .map(|o| Table::single(o, bytes))
            .ok_or_else(|| "a scalar without an address".to_owned())
    }

    fn acquisitions(&self, group: &str) -> Result<Dataset, Error> {
        let g = self.group(group)?;
        let ds = self.dataset(&g, group, "data", "acquisitions")?;
        self.check_members::<RawAcquisition>(&ds, &self.place(group, "data"))?;
        Ok(ds)
    }

    /// A structure must have every member, or the library would leave part of our memory unwritten.
    fn check_members<T: H5Type>(&self, ds: &Dataset, place: &str) -> Result<(), Error> {
        let found = ds
            .dtype()
            .and_then(|t| t.to_descriptor())
            .map_err(hdf5_error(place))?;
        let missing = missing_members(&T::type_descriptor(), &found, "");
        if missing.is_empty() {
            return Ok(());
        }
        Err(self.malformed(
            place.into(),
            format!("a structure without {}", missing.join(", ")),
            "the ISMRMRD structure",
        ))
    }

    /// How many acquisitions a group holds.
    ///
    /// # Errors
    /// [`Error::Missing`] for a group without any.
    pub fn number_of_acquisitions(&self, group: &str) -> Result<u64, Error> {
        Ok(self
            .acquisitions(group)?
            .shape()
            .first()
            .map_or(0, |&n| n as u64))
    }

    /// Which path reads a group's acquisitions.
    ///
    /// # Errors
    /// As [`File::number_of_acquisitions`].
    pub fn reader_kind(&self, group: &str) -> Result<ReaderKind, Error> {
        let ds = self.acquisitions(group)?;
        Ok(match self.direct::<RawAcquisition>(&ds)? {
            Ok(_) => ReaderKind::Direct,
            Err(reason) => ReaderKind::Library(reason),
        })
    }

    fn direct<T: H5Type>(&self, ds: &Dataset) -> Result<Result<Layouts, String>, Error> {
        let members = match members::<T>(ds)? {
            Ok(members) => members,
            Err(reason) => return Ok(Err(reason)),
        };
        Ok(self.table(ds)?.map(|table| (table, members)))
    }

    /// Visits all acquisitions in file order, `batch` at a time.
    ///
    /// Samples are borrowed from the memory map on the direct path; pages that were visited are given
    /// back to the system after their batch, so that memory does not grow with the file. `visit` returns
    /// [`ControlFlow::Break`] to stop early.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the acquisition, what was found and needed (lengths that contradict the
    /// header, data outside the file); [`Error::TooLarge`]. Batches before the bad one have been visited.
    pub fn for_each_batch(
        &self,
        group: &str,
        batch: usize,
        visit: &mut dyn FnMut(&[AcquisitionRef<'_>]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let ds = self.acquisitions(group)?;
        let place = self.place(group, "data");
        match self.direct::<RawAcquisition>(&ds)? {
            Ok((table, members)) => self.batches_direct(&table, &members, &place, batch, visit),
            Err(_) => self.batches_library(&ds, &place, batch, visit),
        }
    }

    /// As [`File::for_each_batch`], but always through the HDF5 library: the reference that the direct
    /// path is tested and timed against.
    ///
    /// # Errors
    /// As [`File::for_each_batch`].
    pub fn for_each_batch_by_library(
        &self,
        group: &str,
        batch: usize,
        visit: &mut dyn FnMut(&[AcquisitionRef<'_>]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let ds = self.acquisitions(group)?;
        self.batches_library(&ds, &self.place(group, "data"), batch, visit)
    }

    fn batches_direct(
        &self,
        table: &Table,
        members: &[(String, usize)],
        place: &str,
        batch: usize,
        visit: &mut dyn FnMut(&[AcquisitionRef<'_>]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let bytes = self.bytes();
        let offset = |name: &str| members.iter().find(|(n, _)| n == name).map_or(0, |m| m.1);
        let (head_at, traj_at, data_at) = (offset("head"), offset("traj"), offset("data"));
        let mut heap = Heap::new(bytes);
        let mut held: Vec<Held<'_>> = Vec::new();
        let batch = batch.max(1);
        for first in (0..table.len).step_by(batch) {
            held.clear();
            let mut touched = Touched::default();
            for i in first..table.len.min(first.saturating_add(batch)) {
                let here = || format!("{place}[{i}]");
                let outside = || {
                    self.malformed(
                        here(),
                        "an address outside the file",
                        "the whole file: is it cut off?",
                    )
                };
                let element = table.element(i, bytes).ok_or_else(outside)?;
                let head = element
                    .get(head_at..)
                    .and_then(|b| b.first_chunk::<ACQUISITION_HEADER_BYTES>());
                let head = AcquisitionHeader::decode(head.ok_or_else(outside)?);
                let traj = Pointer::read(element, traj_at).ok_or_else(outside)?;
                let data = Pointer::read(element, data_at).ok_or_else(outside)?;
                check_acquisition(
                    &head,
                    traj.len as usize,
                    data.len as usize,
                    &self.limits,
                    &here,
                )?;
                let traj = heap.bytes(traj, 4, &here)?;
                let data = heap.bytes(data, 4, &here)?;
                touched.add(&data);
                held.push((head, floats(bytes, traj), samples(bytes, data)));
            }
            let lent: Vec<AcquisitionRef<'_>> = held
                .iter()
                .map(|(head, traj, data)| AcquisitionRef { head, traj, data })
                .collect();
            let flow = visit(&lent);
            drop(lent);
            self.release(&touched);
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// What was never written reads as zeros without end, so a count must be backed by storage. Deflate
    /// cannot shrink by more than about a thousand.
    fn check_stored(&self, ds: &Dataset, len: usize, place: &str) -> Result<(), Error> {
        let bytes = ds.dtype().map_err(hdf5_error(place))?.size();
        let declared = (len as u64).saturating_mul(bytes as u64);
        let stored = ds.storage_size().min(self.file_len);
        let most = if ds.filters().is_empty() {
            stored
        } else {
            stored.saturating_mul(2048)
        };
        if declared > most {
            return Err(self.malformed(
                place.to_owned(),
                format!("{len} entries declared, but only {stored} bytes stored"),
                format!("{declared} bytes: is the file cut off, or was writing stopped?"),
            ));
        }
        Ok(())
    }

    /// Gives visited pages back, when they lie close together (they do in files written in order).
    fn release(&self, touched: &Touched) {
        let Some(map) = &self.map else { return };
        let span = touched.end.saturating_sub(touched.start);
        if span == 0 || span / 2 > touched.bytes {
            return;
        }
        // SAFETY: the map is read-only and backed by the file, so dropping its pages loses nothing: the
        // next access reads the same bytes from the page cache. No reference is invalidated. A refusal
        // costs memory only.
        #[allow(unsafe_code)]
        let released =
            unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, touched.start, span) };
        drop(released);
    }

    fn batches_library(
        &self,
        ds: &Dataset,
        place: &str,
        batch: usize,
        visit: &mut dyn FnMut(&[AcquisitionRef<'_>]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let len = ds.shape().first().copied().unwrap_or(0);
        self.check_stored(ds, len, place)?;
        let mut first = 0;
        let mut step = 1;
        while first < len {
            let end = len.min(first + step);
            let raw = slice::<RawAcquisition>(ds, first..end)
                .map_err(hdf5_error(format!("{place}[{first}]")))?;
            let mut held: Vec<Held<'_>> = Vec::with_capacity(raw.len());
            let mut bytes = 0;
            for (i, raw) in (first..).zip(&raw) {
                let head = AcquisitionHeader::decode(&raw.head);
                check_acquisition(&head, raw.traj.len(), raw.data.len(), &self.limits, &|| {
                    format!("{place}[{i}]")
                })?;
                bytes += raw.data.len() * 4;
                let samples = match bytemuck::try_cast_slice(raw.data.as_slice()) {
                    Ok(samples) => Cow::Borrowed(samples),
                    Err(_) => Cow::Owned(pairs(&raw.data)),
                };
                held.push((head, Cow::Borrowed(raw.traj.as_slice()), samples));
            }
            let lent: Vec<AcquisitionRef<'_>> = held
                .iter()
                .map(|(head, traj, data)| AcquisitionRef { head, traj, data })
                .collect();
            if visit(&lent).is_break() {
                break;
            }
            first = end;
            // The first read shows how large an acquisition is; the next ones are bounded in bytes.
            let each = bytes / held.len().max(1);
            step = (LIBRARY_BATCH_BYTES / each.max(1)).clamp(1, batch.max(1));
        }
        Ok(())
    }

    /// All waveforms of a group; none when it has no data set of them.
    ///
    /// # Errors
    /// As [`File::for_each_batch`].
    pub fn waveforms(&self, group: &str) -> Result<Vec<Waveform>, Error> {
        let g = self.group(group)?;
        if !self.list(&g)?.iter().any(|(name, _)| name == "waveforms") {
            return Ok(Vec::new());
        }
        let ds = self.dataset(&g, group, "waveforms", "waveforms")?;
        let place = self.place(group, "waveforms");
        self.check_members::<RawWaveform>(&ds, &place)?;
        let mut waveforms = Vec::new();
        match self.direct::<RawWaveform>(&ds)? {
            Ok((table, members)) => {
                let bytes = self.bytes();
                let offset =
                    |name: &str| members.iter().find(|(n, _)| n == name).map_or(0, |m| m.1);
                let (head_at, data_at) = (offset("head"), offset("data"));
                let mut heap = Heap::new(bytes);
                for i in 0..table.len {
                    let here = || format!("{place}[{i}]");
                    let outside = || {
                        self.malformed(
                            here(),
                            "an address outside the file",
                            "the whole file: is it cut off?",
                        )
                    };
                    let element = table.element(i, bytes).ok_or_else(outside)?;
                    let head = element
                        .get(head_at..)
                        .and_then(|b| b.first_chunk::<WAVEFORM_HEADER_BYTES>());
                    let head = WaveformHeader::decode(head.ok_or_else(outside)?);
                    let data = Pointer::read(element, data_at).ok_or_else(outside)?;
                    check_waveform(&head, data.len as usize, &here)?;
                    let range = heap.bytes(data, 4, &here)?;
                    let words = bytes.get(range).unwrap_or_default().as_chunks::<4>().0;
                    waveforms.push(Waveform {
                        head,
                        data: words.iter().map(|w| u32::from_le_bytes(*w)).collect(),
                    });
                }
            }
            Err(_) => {
                let len = ds.shape().first().copied().unwrap_or(0);
                self.check_stored(&ds, len, &place)?;
                for first in (0..len).step_by(256) {
                    let raw = slice::<RawWaveform>(&ds, first..len.min(first + 256))
                        .map_err(hdf5_error(&*place))?;
                    for (i, raw) in (first..).zip(&raw) {
                        let head = WaveformHeader::decode(&raw.head);
                        check_waveform(&head, raw.data.len(), &|| format!("{place}[{i}]"))?;
                        waveforms.push(Waveform {
                            head,
                            data: raw.data.to_vec(),
                        });
                    }
                }
            }
        }
        Ok(waveforms)
    }

    /// All images of a series.
    ///
    /// # Errors
    /// [`Error::Missing`] for a series that is not there; [`Error::Malformed`] for headers that contradict the
    /// voxels; [`Error::TooLarge`].
    pub fn images(&self, group: &str, name: &str) -> Result<Vec<Image>, Error> {
        let g = self.group(group)?;
        let series = g.group(name).map_err(|_| {
            let images = self
                .groups()
                .unwrap_or_default()
                .into_iter()
                .find(|i| i.name == group.trim_matches('/'));
            let names: Vec<String> = images
                .into_iter()
                .flat_map(|i| i.images)
                .map(|i| i.name)
                .collect();
            Error::Missing {
                what: format!("image series \"{name}\" in group \"{group}\""),
                path: self.path.clone(),
                found: if names.is_empty() {
                    "no image series".into()
                } else {
                    names.join(", ")
                },
            }
        })?;
        let path = format!("{}/{name}", group.trim_matches('/'));
        let heads = self.dataset(&series, &path, "header", "image headers")?;
        self.check_members::<RawImageHeader>(&heads, &self.place(&path, "header"))?;
        let data = self.dataset(&series, &path, "data", "image voxels")?;
        let has_attributes = self.list(&series)?.iter().any(|(n, _)| n == "attributes");
        let attributes = if has_attributes {
            Some(self.dataset(&series, &path, "attributes", "attributes")?)
        } else {
            None
        };
        let place = self.place(&path, "data");
        let shape = data.shape();
        let count = heads.shape().first().copied().unwrap_or(0);
        if shape.first() != Some(&count) {
            return Err(self.malformed(
                place,
                format!("shape {shape:?}"),
                format!("{count} images, one for each header"),
            ));
        }
        let per_image = self.check_size(&data, &place)?;
        // The usual layout is read without the library, which cannot undo compression here.
        let usual = little_endian(&heads)
            && dtype_of(&heads).is_some_and(|t| same_bytes(&t, &RawImageHeader::type_descriptor()));
        let plain_heads = if usual {
            self.table(&heads)?.ok()
        } else {
            None
        };
        let inflated = self.inflated(&data, &place)?;
        let mut images = Vec::new();
        for i in 0..count {
            let head = match &plain_heads {
                Some(table) => table
                    .element(i, self.bytes())
                    .and_then(|b| b.first_chunk())
                    .map(ImageHeader::decode),
                None => slice::<RawImageHeader>(&heads, i..i + 1)
                    .map_err(hdf5_error(self.place(&path, "header")))?
                    .first()
                    .map(|h| ImageHeader::decode(&h.0)),
            };
            let head = head.unwrap_or_default();
            let declared = Image::declared_len(&head);
            if declared != per_image as u64 {
                let [x, y, z] = head.matrix_size;
                let found = format!(
                    "a header of {} channels, matrix {x} x {y} x {z}",
                    head.channels
                );
                return Err(self.malformed(
                    format!("{place}[{i}]"),
                    found,
                    format!("{per_image} voxels as in shape {shape:?}"),
                ));
            }
            let attributes = match &attributes {
                Some(ds) => {
                    let place = self.place(&path, &format!("attributes[{i}]"));
                    let bytes = self.string(
                        ds,
                        i,
                        "bytes of image attributes",
                        self.limits.attribute_bytes,
                        &place,
                    )?;
                    crate::xml::decode(&bytes, &place)?
                }
                None => String::new(),
            };
            images.push(Image {
                head,
                attributes,
                pixels: self.pixels(&data, i, &place, inflated.as_deref())?,
            });
        }
        Ok(images)
    }

    /// All arrays of a series.
    ///
    /// # Errors
    /// As [`File::images`].
    pub fn arrays(&self, group: &str, name: &str) -> Result<Vec<NdArray>, Error> {
        let g = self.group(group)?;
        let ds = self.dataset(&g, group, name, "array")?;
        let place = self.place(group, name);
        let shape = ds.shape();
        let Some((&count, shape)) = shape.split_first() else {
            return Err(self.malformed(place, "a single value", "an array"));
        };
        self.check_size(&ds, &place)?;
        let inflated = self.inflated(&ds, &place)?;
        (0..count)
            .map(|i| {
                Ok(NdArray {
                    shape: shape.to_vec(),
                    values: self.pixels(&ds, i, &place, inflated.as_deref())?,
                })
            })
            .collect()
    }

    /// Values of each element along the first axis, within the limits and not more than storage can hold.
    fn check_size(&self, ds: &Dataset, place: &str) -> Result<usize, Error> {
        let shape = ds.shape();
        let bytes = ds.dtype().map_err(hdf5_error(place))?.size();
        let per = shape
            .iter()
            .skip(1)
            .try_fold(1_usize, |n, &m| n.checked_mul(m))
            .unwrap_or(usize::MAX);
        let declared = per.saturating_mul(bytes);
        if declared > self.limits.image_bytes {
            return Err(Error::TooLarge {
                what: "bytes of one image",
                declared: declared as u64,
                limit: self.limits.image_bytes as u64,
            });
        }
        // Deflate cannot shrink by more than about a thousand; what is not stored at all reads as zeros.
        let all = declared.saturating_mul(shape.first().copied().unwrap_or(0)) as u64;
        let stored = ds.storage_size().min(self.file_len);
        if all / 2048 > stored {
            return Err(self.malformed(
                place.into(),
                format!("{stored} stored bytes"),
                format!("{all} bytes for shape {shape:?}"),
            ));
        }
        Ok(per)
    }

    /// The values of a compressed data set; `None` when it is not compressed.
    fn inflated(&self, ds: &Dataset, place: &str) -> Result<Option<Vec<u8>>, Error> {
        let filters = ds.filters();
        if filters.is_empty() {
            return Ok(None);
        }
        let reason = match self.userblock {
            0 => match inflate(ds, self.bytes(), self.limits.image_bytes)? {
                Ok(_) if !little_endian(ds) => "another byte order".to_owned(),
                Ok(all) => return Ok(Some(all)),
                Err(reason) => reason,
            },
            n => format!("a user block of {n} bytes"),
        };
        Err(self.malformed(
            place.into(),
            format!("data behind {filters:?}: {reason}"),
            "data that is plain, or compressed by deflate; h5repack -f NONE makes it plain",
        ))
    }

    fn pixels(
        &self,
        ds: &Dataset,
        i: usize,
        place: &str,
        inflated: Option<&[u8]>,
    ) -> Result<Pixels, Error> {
        let fail = || hdf5_error(format!("{place}[{i}]"));
        let unsupported = || {
            let found = dtype_of(ds).map_or_else(|| "a type".to_owned(), |t| format!("type {t}"));
            self.malformed(
                place.into(),
                found,
                "one of the eight pixel types of ISMRMRD",
            )
        };
        let kind = pixel_kind(ds).ok_or_else(unsupported)?;
        if let Some(all) = inflated {
            let element = ds.dtype().map_err(fail())?.size();
            let (component, whole) = kind.bytes();
            let each = ds.shape().iter().skip(1).product::<usize>() * element;
            let bytes = all.get(i * each..(i + 1) * each).unwrap_or_default();
            if element != whole {
                return Err(unsupported());
            }
            return Ok(match kind {
                PixelKind::U16 => Pixels::U16(values(bytes, component)),
                PixelKind::I16 => Pixels::I16(values(bytes, component)),
                PixelKind::U32 => Pixels::U32(values(bytes, component)),
                PixelKind::I32 => Pixels::I32(values(bytes, component)),
                PixelKind::F32 => Pixels::F32(values(bytes, component)),
                PixelKind::F64 => Pixels::F64(values(bytes, component)),
                PixelKind::C32 | PixelKind::C32Short => Pixels::C32(values(bytes, component)),
                PixelKind::C64 | PixelKind::C64Short => Pixels::C64(values(bytes, component)),
            });
        }
        Ok(match kind {
            PixelKind::U16 => Pixels::U16(plane::<u16>(ds, i).map_err(fail())?),
            PixelKind::I16 => Pixels::I16(plane::<i16>(ds, i).map_err(fail())?),
            PixelKind::U32 => Pixels::U32(plane::<u32>(ds, i).map_err(fail())?),
            PixelKind::I32 => Pixels::I32(plane::<i32>(ds, i).map_err(fail())?),
            PixelKind::F32 => Pixels::F32(plane::<f32>(ds, i).map_err(fail())?),
            PixelKind::F64 => Pixels::F64(plane::<f64>(ds, i).map_err(fail())?),
            PixelKind::C32 => Pixels::C32(
                plane::<Cx<f32>>(ds, i)
                    .map_err(fail())?
                    .into_iter()
                    .map(|c| c.0)
                    .collect(),
            ),
            PixelKind::C64 => Pixels::C64(
                plane::<Cx<f64>>(ds, i)
                    .map_err(fail())?
                    .into_iter()
                    .map(|c| c.0)
                    .collect(),
            ),
            PixelKind::C32Short => Pixels::C32(
                plane::<CxShort<f32>>(ds, i)
                    .map_err(fail())?
                    .into_iter()
                    .map(|c| c.0)
                    .collect(),
            ),
            PixelKind::C64Short => Pixels::C64(
                plane::<CxShort<f64>>(ds, i)
                    .map_err(fail())?
                    .into_iter()
                    .map(|c| c.0)
                    .collect(),
            ),
        })
    }
}

/// Where the HDF5 signature stands (a user block may precede it): 0, 512, 1024, 2048 ... Else the first bytes.
fn signature(file: &mut std::fs::File) -> std::io::Result<Result<u64, String>> {
    use std::io::{Seek, SeekFrom};
    const SIGNATURE: [u8; 8] = *b"\x89HDF\r\n\x1a\n";
    let len = file.metadata()?.len();
    let mut first = Vec::new();
    let mut at = 0;
    while at < len {
        file.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        file.take(8).read_to_end(&mut bytes)?;
        if bytes == SIGNATURE {
            return Ok(Ok(at));
        }
        if at == 0 {
            first = bytes;
        }
        at = if at == 0 { 512 } else { at * 2 };
    }
    Ok(Err(format!("\"{}\"", first.escape_ascii())))
}

#[derive(Default)]
struct Touched {
    start: usize,
    end: usize,
    bytes: usize,
}

impl Touched {
    fn add(&mut self, range: &Range<usize>) {
        if range.is_empty() {
            return;
        }
        if self.bytes == 0 {
            self.start = range.start;
        }
        self.start = self.start.min(range.start);
        self.end = self.end.max(range.end);
        self.bytes += range.len();
    }
}

fn floats(bytes: &[u8], range: Range<usize>) -> Cow<'_, [f32]> {
    let bytes = bytes.get(range).unwrap_or_default();
    match bytemuck::try_cast_slice(bytes) {
        Ok(values) => Cow::Borrowed(values),
        Err(_) => Cow::Owned(
            bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect(),
        ),
    }
}

fn samples(bytes: &[u8], range: Range<usize>) -> Cow<'_, [Complex32]> {
    let part = bytes.get(range.clone()).unwrap_or_default();
    match bytemuck::try_cast_slice(part) {
        Ok(values) => Cow::Borrowed(values),
        Err(_) => Cow::Owned(pairs(&floats(bytes, range))),
    }
}

fn pairs(values: &[f32]) -> Vec<Complex32> {
    values
        .as_chunks::<2>()
        .0
        .iter()
        .map(|&[re, im]| Complex32::new(re, im))
        .collect()
}

/// Whether lengths agree with the header and with the limits.
///
/// # Errors
/// [`Error::Malformed`] and [`Error::TooLarge`].
pub(crate) fn check_acquisition(
    head: &AcquisitionHeader,
    traj_floats: usize,
    data_floats: usize,
    limits: &Limits,
    place: &dyn Fn() -> String,
) -> Result<(), Error> {
    let samples = usize::from(head.number_of_samples);
    let channels = usize::from(head.active_channels);
    let dimensions = usize::from(head.trajectory_dimensions);
    head.check_limits(limits)?;
    if data_floats != 2 * samples * channels {
        let compressed = if head.flags >> 52 & 0xf != 0 {
            " (flagged as compressed, which is not read)"
        } else {
            ""
        };
        return Err(Error::Malformed {
            place: place(),
            found: format!("{data_floats} floats of data{compressed}"),
            needed: format!(
                "{} for {channels} channels of {samples} complex samples",
                2 * samples * channels
            ),
        });
    }
    if traj_floats != samples * dimensions {
        return Err(Error::Malformed {
            place: place(),
            found: format!("{traj_floats} floats of trajectory"),
            needed: format!(
                "{} for {samples} samples in {dimensions} dimensions",
                samples * dimensions
            ),
        });
    }
    Ok(())
}

fn check_waveform(
    head: &WaveformHeader,
    words: usize,
    place: &dyn Fn() -> String,
) -> Result<(), Error> {
    let needed = usize::from(head.channels) * usize::from(head.number_of_samples);
    if words == needed {
        return Ok(());
    }
    Err(Error::Malformed {
        place: place(),
        found: format!("{words} values"),
        needed: format!(
            "{needed} for {} channels of {} samples",
            head.channels, head.number_of_samples
        ),
    })
}

fn dtype_of(ds: &Dataset) -> Option<TypeDescriptor> {
    ds.dtype().ok()?.to_descriptor().ok()
}

fn is_compound_with(ds: &Dataset, names: &[&str]) -> bool {
    match dtype_of(ds) {
        Some(TypeDescriptor::Compound(c)) => {
            names.iter().all(|n| c.fields.iter().any(|f| f.name == *n))
        }
        _ => false,
    }
}

/// Count and shape of an image series, when the group is one.
fn image_series(group: &Group) -> Option<(u64, Vec<usize>)> {
    if !group.link_exists("header") || !group.link_exists("data") {
        return None;
    }
    let heads = group.dataset("header").ok()?;
    let shape = group.dataset("data").ok()?.shape();
    if !is_compound_with(&heads, &["matrix_size", "data_type"]) {
        return None;
    }
    Some((
        heads.shape().first().map_or(0, |&n| n as u64),
        shape.get(1..).unwrap_or_default().to_vec(),
    ))
}

enum PixelKind {
    U16,
    I16,
    U32,
    I32,
    F32,
    F64,
    C32,
    C64,
    C32Short,
    C64Short,
}

impl PixelKind {
    /// Bytes of a real number and of a value.
    fn bytes(&self) -> (usize, usize) {
        match self {
            PixelKind::U16 | PixelKind::I16 => (2, 2),
            PixelKind::U32 | PixelKind::I32 | PixelKind::F32 => (4, 4),
            PixelKind::F64 => (8, 8),
            PixelKind::C32 | PixelKind::C32Short => (4, 8),
            PixelKind::C64 | PixelKind::C64Short => (8, 16),
        }
    }
}

fn little_endian(ds: &Dataset) -> bool {
    ds.dtype()
        .is_ok_and(|t| t.byte_order() == ByteOrder::LittleEndian)
}

fn pixel_kind(ds: &Dataset) -> Option<PixelKind> {
    Some(match dtype_of(ds)? {
        TypeDescriptor::Unsigned(IntSize::U2) => PixelKind::U16,
        TypeDescriptor::Integer(IntSize::U2) => PixelKind::I16,
        TypeDescriptor::Unsigned(IntSize::U4) => PixelKind::U32,
        TypeDescriptor::Integer(IntSize::U4) => PixelKind::I32,
        TypeDescriptor::Float(FloatSize::U4) => PixelKind::F32,
        TypeDescriptor::Float(FloatSize::U8) => PixelKind::F64,
        TypeDescriptor::Compound(c) => {
            let [a, b] = c.fields.as_slice() else {
                return None;
            };
            match (a.name.as_str(), b.name.as_str(), &a.ty, &b.ty) {
                (
                    "real",
                    "imag",
                    TypeDescriptor::Float(FloatSize::U4),
                    TypeDescriptor::Float(_),
                ) => PixelKind::C32,
                (
                    "real",
                    "imag",
                    TypeDescriptor::Float(FloatSize::U8),
                    TypeDescriptor::Float(_),
                ) => PixelKind::C64,
                ("r", "i", TypeDescriptor::Float(FloatSize::U4), TypeDescriptor::Float(_)) => {
                    PixelKind::C32Short
                }
                ("r", "i", TypeDescriptor::Float(FloatSize::U8), TypeDescriptor::Float(_)) => {
                    PixelKind::C64Short
                }
                _ => return None,
            }
        }
        _ => return None,
    })
}

/// Elements `range` of the first axis; further axes of length 1 are dropped.
fn slice<T: H5Type>(ds: &Dataset, range: Range<usize>) -> hdf5::Result<Vec<T>> {
    let mut axes = vec![SliceOrIndex::from(range)];
    axes.extend((1..ds.ndim()).map(|_| SliceOrIndex::Index(0)));
    let array = ds.read_slice::<T, _, IxDyn>(Selection::from(Hyperslab::from(axes)))?;
    Ok(array.into_raw_vec_and_offset().0)
}

fn one<T: H5Type>(ds: &Dataset, i: usize) -> hdf5::Result<T> {
    let mut values = slice::<T>(ds, i..i + 1)?;
    values
        .pop()
        .ok_or_else(|| hdf5::Error::from("no such element"))
}

/// Element `i` of the first axis with all other axes whole.
fn plane<T: H5Type>(ds: &Dataset, i: usize) -> hdf5::Result<Vec<T>> {
    let mut axes = vec![SliceOrIndex::from(i..i + 1)];
    axes.extend(ds.shape().iter().skip(1).map(|&n| SliceOrIndex::from(0..n)));
    let array = ds.read_slice::<T, _, IxDyn>(Selection::from(Hyperslab::from(axes)))?;
    Ok(array.into_raw_vec_and_offset().0)
}
