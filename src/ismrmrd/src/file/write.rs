//! [`Writer`]: an ISMRMRD file, written beside its target and renamed when it is complete.

use std::path::{Path, PathBuf};

use tempfile::TempPath;

use super::output::{Group, Output, POINTER_BYTES, Set, Type};
use crate::acquisition::{ACQUISITION_HEADER_BYTES, Acquisition, AcquisitionRef};
use crate::header::Header;
use crate::image::{IMAGE_HEADER_BYTES, Image, NdArray, Pixels};
use crate::packed::{
    ACQUISITION_FIELDS, COUNTER_FIELDS, COUNTERS_BYTES, COUNTERS_OFFSET, IMAGE_FIELDS,
    WAVEFORM_FIELDS,
};
use crate::waveform::{WAVEFORM_HEADER_BYTES, Waveform};
use crate::{Error, Limits};

/// Elements of one chunk of the acquisition and waveform data sets (372 bytes each).
const CHUNK: usize = 16;

/// Writes an ISMRMRD file that ismrmrd-python and libismrmrd read.
///
/// Nothing appears at the target before [`Writer::finish`]; dropped earlier, the writer leaves nothing.
#[derive(Debug)]
pub struct Writer {
    target: PathBuf,
    temporary: TempPath,
    out: Output,
    group_name: String,
    root: Group,
    sets: Vec<Set>,
    acquisitions: Option<usize>,
    waveforms: Option<usize>,
    series: Vec<Series>,
    arrays: Vec<(String, usize, Vec<usize>, u16)>,
}

#[derive(Debug)]
struct Series {
    name: String,
    headers: usize,
    attributes: usize,
    data: usize,
    shape: [usize; 4],
    data_type: u16,
}

impl Writer {
    /// Begins a file with one group, by custom `dataset`.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be written to; [`Error::Malformed`] for a group name that HDF5
    /// cannot carry.
    pub fn create(path: &Path, group: &str) -> Result<Writer, Error> {
        let group_name = group.trim_matches('/').to_owned();
        if group_name.is_empty() || group_name.contains('\0') {
            return Err(Error::Malformed {
                place: path.display().to_string(),
                found: format!("the group name {group:?}"),
                needed: "a name such as \"dataset\"".into(),
            });
        }
        let folder = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let io = |source| Error::Io {
            what: "write",
            path: path.to_path_buf(),
            source,
        };
        let name = path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let prefix = format!(".{name}.");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".partial");
        // As any new file, readable as the user's mask allows; the default would be the owner only.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let (file, temporary) = builder.tempfile_in(folder).map_err(io)?.into_parts();
        let mut root = Group::default();
        let mut at = &mut root;
        for step in group_name.split('/').filter(|s| !s.is_empty()) {
            // A tree without data sets takes any group.
            let Some(below) = at.subgroup(step) else {
                break;
            };
            at = below;
        }
        Ok(Writer {
            target: path.to_path_buf(),
            temporary,
            out: Output::new(file).map_err(io)?,
            group_name,
            root,
            sets: Vec::new(),
            acquisitions: None,
            waveforms: None,
            series: Vec::new(),
            arrays: Vec::new(),
        })
    }

    fn place(&self, member: &str) -> String {
        format!("{}: {}/{member}", self.target.display(), self.group_name)
    }

    /// A data set in the group, empty; `entry` is the shape of what it holds many of.
    fn set(&mut self, name: &str, of: Type, entry: &[usize], chunk: usize) -> Result<usize, Error> {
        let malformed = |found: String, needed: &str| Error::Malformed {
            place: self.place(name),
            found,
            needed: needed.to_owned(),
        };
        let steps: Vec<&str> = self.group_name.split('/').chain(name.split('/')).collect();
        let path: Vec<&str> = steps.iter().copied().filter(|s| !s.is_empty()).collect();
        if name.contains('\0') || path.contains(&".") {
            let needed = "a name that HDF5 can carry: without NUL and \".\"";
            return Err(malformed(format!("the name {name:?}"), needed));
        }
        let set = Set::new(of, entry, chunk).ok_or_else(|| {
            let found = format!("an entry of shape {entry:?}");
            malformed(found, "less than 4 GiB, what a chunk of HDF5 holds")
        })?;
        let id = self.sets.len();
        if !self.root.insert(&path.join("/"), id) {
            return Err(Error::Malformed {
                place: self.place(name),
                found: "the name in use".to_owned(),
                needed: "another name".to_owned(),
            });
        }
        self.sets.push(set);
        Ok(id)
    }

    /// Adds an entry: what `encode` makes, which may put members of variable length into the heap.
    fn append(
        &mut self,
        set: usize,
        encode: impl FnOnce(&mut Output) -> std::io::Result<Vec<u8>>,
    ) -> Result<(), Error> {
        let Some(set) = self.sets.get_mut(set) else {
            return Ok(());
        };
        let entry = encode(&mut self.out);
        let done = entry.and_then(|entry| self.out.append(set, &entry));
        done.map_err(|source| Error::Io {
            what: "write",
            path: self.target.clone(),
            source,
        })
    }

    fn append_text(&mut self, set: usize, text: &str) -> Result<(), Error> {
        self.append(set, |out| {
            Ok(out.variable(text.as_bytes(), 1, text.len())?.to_vec())
        })
    }

    fn check_text(&self, text: &str, member: &str) -> Result<(), Error> {
        if !text.contains('\0') {
            return Ok(());
        }
        Err(Error::Malformed {
            place: self.place(member),
            found: "a NUL inside the text".into(),
            needed: "text without NULs".into(),
        })
    }

    /// Writes the XML header.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a second header; [`Error::Io`].
    pub fn header(&mut self, header: &Header) -> Result<(), Error> {
        self.header_xml(&header.to_xml())
    }

    /// Writes the XML header from text, as it is.
    ///
    /// # Errors
    /// [`Error::Malformed`] for text with a NUL and for a second header; [`Error::Io`].
    pub fn header_xml(&mut self, xml: &str) -> Result<(), Error> {
        self.check_text(xml, "xml")?;
        // libismrmrd makes a variable-length string without a character set, which is ASCII.
        let set = self.set("xml", Type::text(!xml.is_ascii()), &[], 1)?;
        self.append_text(set, xml)
    }

    /// Adds an acquisition.
    ///
    /// # Errors
    /// As [`Writer::acquisition_ref`].
    pub fn acquisition(&mut self, acquisition: &Acquisition) -> Result<(), Error> {
        self.acquisition_ref(&acquisition.as_ref())
    }

    /// Adds an acquisition.
    ///
    /// # Errors
    /// [`Error::Malformed`] when lengths contradict the header; [`Error::Io`] when the system refused, for example
    /// because the disk is full.
    pub fn acquisition_ref(&mut self, a: &AcquisitionRef<'_>) -> Result<(), Error> {
        let n = self.acquisitions.and_then(|set| self.sets.get(set));
        let place = || format!("{}[{}]", self.place("data"), n.map_or(0, |set| set.len));
        super::read::check_acquisition(a.head, a.traj.len(), 2 * a.data.len(), &UNLIMITED, &place)?;
        let set = match self.acquisitions {
            Some(set) => set,
            None => self.set("data", acquisition_type(), &[], CHUNK)?,
        };
        self.acquisitions = Some(set);
        self.append(set, |out| {
            let traj = out.variable(a.traj, 4, a.traj.len())?;
            let data = out.variable(a.data, 4, 2 * a.data.len())?;
            Ok([a.head.encode().as_slice(), &traj, &data].concat())
        })
    }

    /// Adds a waveform.
    ///
    /// # Errors
    /// As [`Writer::acquisition_ref`].
    pub fn waveform(&mut self, waveform: &Waveform) -> Result<(), Error> {
        let needed = waveform.data.len();
        super::read::check_waveform(&waveform.head, needed, &|| self.place("waveforms"))?;
        let set = match self.waveforms {
            Some(set) => set,
            None => self.set("waveforms", waveform_type(), &[], CHUNK)?,
        };
        self.waveforms = Some(set);
        self.append(set, |out| {
            let data = out.variable(&waveform.data, 4, needed)?;
            Ok([waveform.head.encode().as_slice(), &data].concat())
        })
    }

    /// Adds an image to a series; all images of a series have one size and type.
    ///
    /// `data_type` and `attribute_string_len` of its header are set from what it carries.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the header contradicts the voxels or the series, or an image has 4 GiB; [`Error::Io`].
    pub fn image(&mut self, name: &str, image: &Image) -> Result<(), Error> {
        let head = image.header_for_writing();
        let [x, y, z] = head.matrix_size.map(usize::from);
        let shape = [usize::from(head.channels), z, y, x];
        let have = image.pixels.len();
        if Image::declared_len(&head) != have as u64 {
            return Err(Error::Malformed {
                place: self.place(name),
                found: format!("{have} voxels"),
                needed: format!("[channel, z, y, x] = {shape:?}, as the header says"),
            });
        }
        self.check_text(&image.attributes, name)?;
        let at = match self.series.iter().position(|s| s.name == name) {
            Some(at) => at,
            None => {
                let series = self.new_series(name, shape, &image.pixels)?;
                self.series.push(series);
                self.series.len() - 1
            }
        };
        let Some(series) = self.series.get(at) else {
            return Ok(());
        };
        if series.shape != shape || series.data_type != head.data_type {
            return Err(Error::Malformed {
                place: self.place(name),
                found: format!("an image of shape {shape:?}, type {}", head.data_type),
                needed: format!(
                    "{:?}, type {}, as the series; use another name",
                    series.shape, series.data_type
                ),
            });
        }
        let (headers, attributes, data) = (series.headers, series.attributes, series.data);
        self.append(headers, |_| Ok(head.encode().to_vec()))?;
        self.append_text(attributes, &image.attributes)?;
        self.append_pixels(data, &image.pixels)
    }

    fn new_series(
        &mut self,
        name: &str,
        shape: [usize; 4],
        pixels: &Pixels,
    ) -> Result<Series, Error> {
        let header = Type::compound(&Type::members(IMAGE_FIELDS), IMAGE_HEADER_BYTES);
        Ok(Series {
            name: name.to_owned(),
            headers: self.set(&format!("{name}/header"), header, &[], 1)?,
            attributes: self.set(&format!("{name}/attributes"), Type::text(true), &[], 1)?,
            data: self.set(&format!("{name}/data"), pixel_type(pixels), &shape, 1)?,
            shape,
            data_type: pixels.data_type(),
        })
    }

    fn append_pixels(&mut self, set: usize, pixels: &Pixels) -> Result<(), Error> {
        self.append(set, |_| {
            let mut bytes = Vec::new();
            crate::wire::put_pixels(pixels, &mut bytes);
            Ok(bytes)
        })
    }

    /// Adds an array to a series; all arrays of a series have one size and type.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the shape contradicts the values or the series, or an array has 4 GiB; [`Error::Io`].
    pub fn array(&mut self, name: &str, array: &NdArray) -> Result<(), Error> {
        let declared = array
            .shape
            .iter()
            .try_fold(1_usize, |n, &m| n.checked_mul(m));
        let (have, data_type) = (array.values.len(), array.values.data_type());
        if declared != Some(have) {
            return Err(Error::Malformed {
                place: self.place(name),
                found: format!("{have} values"),
                needed: format!("shape {:?}", array.shape),
            });
        }
        let known = self.arrays.iter().find(|(n, ..)| n == name);
        let set = match known {
            Some((_, _, shape, kind)) if *shape != array.shape || *kind != data_type => {
                return Err(Error::Malformed {
                    place: self.place(name),
                    found: format!("an array of shape {:?}, type {data_type}", array.shape),
                    needed: format!("{shape:?}, type {kind}, as the series; use another name"),
                });
            }
            Some((_, set, ..)) => *set,
            None => {
                let set = self.set(name, pixel_type(&array.values), &array.shape, 1)?;
                self.arrays
                    .push((name.to_owned(), set, array.shape.clone(), data_type));
                set
            }
        };
        self.append_pixels(set, &array.values)
    }

    /// Completes the file and puts it at its target, over a file that stood there.
    ///
    /// # Errors
    /// [`Error::Io`]: nothing is left at the target but what stood there before.
    pub fn finish(mut self) -> Result<(), Error> {
        let io = |source| Error::Io {
            what: "write",
            path: self.target.clone(),
            source,
        };
        let file = self.out.finish(&self.root, &mut self.sets).map_err(io)?;
        // A full disk may show only when the system writes its cache back.
        file.sync_all().map_err(io)?;
        self.temporary
            .persist(&self.target)
            .map_err(|e| io(e.error))
    }
}

/// Our own callers may write what the format can hold.
const UNLIMITED: Limits = Limits {
    channels: usize::MAX,
    samples: usize::MAX,
    trajectory_dimensions: usize::MAX,
    xml_bytes: usize::MAX,
    attribute_bytes: usize::MAX,
    image_bytes: usize::MAX,
};

/// `ISMRMRD_Acquisition`, packed.
fn acquisition_type() -> Type {
    let counters = Type::compound(&Type::members(COUNTER_FIELDS), COUNTERS_BYTES);
    let mut head = Type::members(ACQUISITION_FIELDS);
    head.push(("idx", COUNTERS_OFFSET, counters));
    head.sort_by_key(|member| member.1);
    let head = Type::compound(&head, ACQUISITION_HEADER_BYTES);
    let floats = Type::sequence(&Type::float(4));
    let [traj_at, data_at, bytes] = [0, 1, 2].map(|n| ACQUISITION_HEADER_BYTES + n * POINTER_BYTES);
    let members = [
        ("head", 0, head),
        ("traj", traj_at, floats.clone()),
        ("data", data_at, floats),
    ];
    Type::compound(&members, bytes)
}

/// `ISMRMRD_Waveform`, its header with the padding of the C structure, as libismrmrd has it.
fn waveform_type() -> Type {
    let head = Type::compound(&Type::members(WAVEFORM_FIELDS), WAVEFORM_HEADER_BYTES);
    let words = Type::sequence(&Type::integer(4, false));
    let members = [("head", 0, head), ("data", WAVEFORM_HEADER_BYTES, words)];
    Type::compound(&members, WAVEFORM_HEADER_BYTES + POINTER_BYTES)
}

fn pixel_type(pixels: &Pixels) -> Type {
    match pixels {
        Pixels::U16(_) => Type::integer(2, false),
        Pixels::I16(_) => Type::integer(2, true),
        Pixels::U32(_) => Type::integer(4, false),
        Pixels::I32(_) => Type::integer(4, true),
        Pixels::F32(_) => Type::float(4),
        Pixels::F64(_) => Type::float(8),
        Pixels::C32(_) => Type::complex(4),
        Pixels::C64(_) => Type::complex(8),
    }
}
