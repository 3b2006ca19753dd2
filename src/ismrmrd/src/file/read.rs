//! [`File`]: an ISMRMRD file, opened and checked; its header and its strings. What else it holds: [`groups`],
//! [`acquisitions`], [`images`].

mod acquisitions;
mod groups;
mod images;

use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hdf5::types::{FixedAscii, H5Type, TypeDescriptor, VarLenAscii, VarLenUnicode};
use hdf5::{Dataset, Hyperslab, Selection, SliceOrIndex};
use memmap2::Mmap;
use ndarray::IxDyn;

use super::guard::deadly;
use super::hdf5_error;
use super::heap::{Heap, Pointer};
use super::layout::missing_members;
use super::table::{Table, stored_bytes};
use crate::header::{self, Header};
use crate::{Error, Limits};

pub use acquisitions::ReaderKind;
pub(crate) use acquisitions::{check_acquisition, check_waveform};
pub use groups::{ArraysInfo, GroupInfo, ImagesInfo};

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
    /// The heaps have been found fit for the library.
    are_heaps_checked: OnceLock<()>,
}

impl File {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Malformed`] for a file that is empty, not HDF5, or cut off.
    pub fn open(path: &Path, limits: Limits) -> Result<File, Error> {
        let (file, userblock) = check(path)?;
        // The library would print its error stack on stderr; its text comes back in our error instead.
        hdf5::silence_errors(true);
        let h5 = hdf5::File::open(path).map_err(|e| {
            match hdf5_error(path.display().to_string())(e) {
                Error::Hdf5 { message, .. } if !message.contains("lock") => Error::Malformed {
                    place: path.display().to_string(),
                    found: format!("an HDF5 file that does not open ({message})"),
                    needed: "an intact file: copy or convert it again".into(),
                },
                other => other,
            }
        })?;
        let file_len = file.metadata().map_or(0, |m| m.len());
        let map = map(&file);
        Ok(File {
            path: path.to_path_buf(),
            limits,
            h5,
            map,
            userblock,
            file_len,
            are_heaps_checked: OnceLock::new(),
        })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
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

    fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// Before the library follows a pointer into a heap; see [`Heap::check_all`].
    fn check_heaps(&self, place: &str) -> Result<(), Error> {
        if self.are_heaps_checked.get().is_none() {
            Heap::new(self.bytes()).check_all(&|| place.to_owned())?;
            self.are_heaps_checked.get_or_init(|| ());
        }
        Ok(())
    }

    /// What was never written reads as zeros without end, so a count must be backed by storage: of entries without bytes
    /// by that of the file. Deflate cannot shrink by more than about a thousand.
    fn check_stored(
        &self,
        ds: &Dataset,
        count: usize,
        entry_bytes: usize,
        place: &str,
    ) -> Result<(), Error> {
        let declared = (count as u64).saturating_mul(entry_bytes.max(1) as u64);
        let stored = match entry_bytes {
            0 => self.file_len,
            _ => ds.storage_size().min(self.file_len),
        };
        let most = if ds.filters().is_empty() {
            stored
        } else {
            stored.saturating_mul(2048)
        };
        if declared > most {
            return Err(self.malformed(
                place.to_owned(),
                format!("{count} entries declared, but only {stored} bytes stored"),
                format!("{declared} bytes: is the file cut off, or was writing stopped?"),
            ));
        }
        Ok(())
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
        self.check_heaps(place)?;
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
}

/// Opens a file for the library: whether it is HDF5, and none of those that the library does not survive. Returns it with
/// the length of its user block.
///
/// # Errors
/// [`Error::Io`], and [`Error::Malformed`] for a file that is empty, not HDF5, or damaged so.
pub fn check(path: &Path) -> Result<(std::fs::File, u64), Error> {
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
    let base = usize::try_from(userblock).unwrap_or(usize::MAX);
    let map = map(&file);
    let bytes = map.as_deref().and_then(|m| m.get(base..));
    if let Some(found) = bytes.and_then(deadly) {
        return Err(malformed(
            format!("a cut-off HDF5 file or a damaged one: {found}"),
            "the whole file: copy or convert it again",
        ));
    }
    Ok((file, userblock))
}

fn map(file: &std::fs::File) -> Option<Mmap> {
    // SAFETY: the map is read-only and private to its owner. The remaining obligation, that nobody changes the file
    // meanwhile, is the user's and stands in the documentation of `File`; our own writer never changes a file in place
    // but renames a new one over it.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(file) }.ok()
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
