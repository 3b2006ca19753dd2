//! [`Writer`]: an ISMRMRD file, written beside its target and renamed when it is complete.

use std::path::{Path, PathBuf};

use hdf5::types::{H5Type, VarLenArray, VarLenAscii, VarLenUnicode};
use hdf5::{Dataset, Group, Hyperslab, Selection, SliceOrIndex};
use ndarray::{ArrayView, IxDyn};
use tempfile::TempPath;

use super::layout::{Cx, RawAcquisition, RawImageHeader, RawWaveform};
use super::write_error;
use crate::acquisition::{Acquisition, AcquisitionRef};
use crate::header::Header;
use crate::image::{Image, NdArray, Pixels};
use crate::waveform::Waveform;
use crate::{Complex32, Complex64, Error, Limits};

/// Acquisitions that are handed to the library at once: it takes 1.6 s for 20,000 of 80 KB that way,
/// 9.7 s one by one and 2.8 s in batches of 320.
const BATCH: usize = 64;
/// Elements of one chunk of the acquisition and waveform data sets (372 bytes each).
const CHUNK: usize = 16;

/// Writes an ISMRMRD file that ismrmrd-python and libismrmrd read.
///
/// Nothing appears at the target before [`Writer::finish`]; dropped earlier, the writer leaves nothing.
pub struct Writer {
    target: PathBuf,
    temporary: TempPath,
    file: Option<hdf5::File>,
    group_name: String,
    group: Group,
    acquisitions: Option<Dataset>,
    waiting: Vec<RawAcquisition>,
    written: usize,
    waveforms: Option<Dataset>,
    series: Vec<Series>,
    arrays: Vec<(String, Dataset, Vec<usize>, u16)>,
}

struct Series {
    name: String,
    headers: Dataset,
    attributes: Dataset,
    data: Dataset,
    shape: [usize; 4],
    data_type: u16,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("target", &self.target)
            .field("group", &self.group_name)
            .finish_non_exhaustive()
    }
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
        let temporary = builder.tempfile_in(folder).map_err(io)?.into_temp_path();
        hdf5::silence_errors(true);
        let place = || path.display().to_string();
        let file = hdf5::File::create(&temporary).map_err(write_error(path, place()))?;
        let group = nested(&file, &group_name).map_err(write_error(path, place()))?;
        Ok(Writer {
            target: path.to_path_buf(),
            temporary,
            file: Some(file),
            group_name,
            group,
            acquisitions: None,
            waiting: Vec::new(),
            written: 0,
            waveforms: None,
            series: Vec::new(),
            arrays: Vec::new(),
        })
    }

    fn place(&self, member: &str) -> String {
        format!("{}: {}/{member}", self.target.display(), self.group_name)
    }

    fn failed(&self, member: &str) -> impl FnOnce(hdf5::Error) -> Error + use<> {
        write_error(&self.target, self.place(member))
    }

    /// Writes the XML header.
    ///
    /// # Errors
    /// [`Error::Hdf5`], also for a second header.
    pub fn header(&mut self, header: &Header) -> Result<(), Error> {
        self.header_xml(&header.to_xml())
    }

    /// Writes the XML header from text, as it is.
    ///
    /// # Errors
    /// [`Error::Malformed`] for text with a NUL; [`Error::Hdf5`], also for a second header.
    pub fn header_xml(&mut self, xml: &str) -> Result<(), Error> {
        // libismrmrd makes a variable-length string without a character set, which is ASCII; its bytes are
        // UTF-8 all the same.
        let text = VarLenAscii::from_ascii(xml).ok();
        let ds = match text {
            Some(text) => self
                .dataset::<VarLenAscii>("xml", &[1], None, false)?
                .write_raw(&[text]),
            None => {
                let text = self.unicode(xml, "xml")?;
                self.dataset::<VarLenUnicode>("xml", &[1], None, false)?
                    .write_raw(&[text])
            }
        };
        ds.map_err(self.failed("xml"))
    }

    fn unicode(&self, text: &str, member: &str) -> Result<VarLenUnicode, Error> {
        text.parse().map_err(|_| Error::Malformed {
            place: self.place(member),
            found: "a NUL inside the text".into(),
            needed: "text without NULs".into(),
        })
    }

    /// A data set in the group: `shape`, growing along the first axis when `chunk` is given.
    fn dataset<T: H5Type>(
        &self,
        name: &str,
        shape: &[usize],
        chunk: Option<&[usize]>,
        packed: bool,
    ) -> Result<Dataset, Error> {
        let builder = self.group.new_dataset_builder().packed(packed).empty::<T>();
        let made = match chunk {
            Some(chunk) => {
                let mut extents =
                    vec![hdf5::Extent::resizable(shape.first().copied().unwrap_or(0))];
                extents.extend(shape.iter().skip(1).map(|&n| hdf5::Extent::fixed(n)));
                builder
                    .shape(hdf5::SimpleExtents::from_vec(extents))
                    .chunk(chunk.to_vec())
                    .create(name)
            }
            None => builder
                .shape(hdf5::SimpleExtents::from_vec(
                    shape.iter().map(|&n| n.into()).collect(),
                ))
                .create(name),
        };
        made.map_err(self.failed(name))
    }

    /// Adds an acquisition.
    ///
    /// # Errors
    /// As [`Writer::acquisition_ref`].
    pub fn acquisition(&mut self, acquisition: &Acquisition) -> Result<(), Error> {
        self.acquisition_ref(&acquisition.as_ref())
    }

    /// Adds an acquisition; it is written when 64 have come together.
    ///
    /// # Errors
    /// [`Error::Malformed`] when lengths contradict the header; [`Error::Io`] when the system refused, for example
    /// because the disk is full; [`Error::Hdf5`] for what else the library refuses.
    pub fn acquisition_ref(&mut self, a: &AcquisitionRef<'_>) -> Result<(), Error> {
        let place = || {
            format!(
                "{}[{}]",
                self.place("data"),
                self.written + self.waiting.len()
            )
        };
        super::read::check_acquisition(a.head, a.traj.len(), 2 * a.data.len(), &UNLIMITED, &place)?;
        self.waiting.push(RawAcquisition {
            head: a.head.encode(),
            traj: VarLenArray::from_slice(a.traj),
            data: VarLenArray::from_slice(bytemuck::cast_slice(a.data)),
        });
        if self.waiting.len() >= BATCH {
            self.flush_acquisitions()
        } else {
            Ok(())
        }
    }

    fn flush_acquisitions(&mut self) -> Result<(), Error> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let ds = match &self.acquisitions {
            Some(ds) => ds.clone(),
            None => self.dataset::<RawAcquisition>("data", &[0], Some(&[CHUNK]), true)?,
        };
        self.acquisitions = Some(ds.clone());
        append(&ds, self.written, &[], &self.waiting).map_err(self.failed("data"))?;
        self.written += self.waiting.len();
        self.waiting.clear();
        Ok(())
    }

    /// Adds a waveform.
    ///
    /// # Errors
    /// As [`Writer::acquisition_ref`].
    pub fn waveform(&mut self, waveform: &Waveform) -> Result<(), Error> {
        let (channels, samples) = (waveform.head.channels, waveform.head.number_of_samples);
        let needed = usize::from(channels) * usize::from(samples);
        if waveform.data.len() != needed {
            return Err(Error::Malformed {
                place: self.place("waveforms"),
                found: format!("{} values", waveform.data.len()),
                needed: format!("{needed} for {channels} channels of {samples} samples"),
            });
        }
        let ds = match &self.waveforms {
            Some(ds) => ds.clone(),
            // With the padding of the C structure, as libismrmrd has it.
            None => self.dataset::<RawWaveform>("waveforms", &[0], Some(&[CHUNK]), false)?,
        };
        self.waveforms = Some(ds.clone());
        let raw = RawWaveform {
            head: waveform.head.encode(),
            data: VarLenArray::from_slice(&waveform.data),
        };
        append(&ds, ds.size(), &[], &[raw]).map_err(self.failed("waveforms"))
    }

    /// Adds an image to a series; all images of a series have one size and type.
    ///
    /// `data_type` and `attribute_string_len` of its header are set from what it carries.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the header contradicts the voxels or the series; [`Error::Hdf5`].
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
        let attributes = self.unicode(&image.attributes, name)?;
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
        let n = series.headers.size();
        let written = append(&series.headers, n, &[], &[RawImageHeader(head.encode())])
            .and_then(|()| append(&series.attributes, n, &[], &[attributes]))
            .and_then(|()| append_pixels(&series.data, n, &shape, &image.pixels));
        written.map_err(self.failed(name))
    }

    fn new_series(&self, name: &str, shape: [usize; 4], pixels: &Pixels) -> Result<Series, Error> {
        nested(&self.group, name).map_err(self.failed(name))?;
        let member = |part: &str| format!("{name}/{part}");
        Ok(Series {
            name: name.to_owned(),
            headers: self.dataset::<RawImageHeader>(&member("header"), &[0], Some(&[1]), true)?,
            attributes: self.dataset::<VarLenUnicode>(
                &member("attributes"),
                &[0],
                Some(&[1]),
                false,
            )?,
            data: self.create_pixels(&member("data"), &shape, pixels)?,
            shape,
            data_type: pixels.data_type(),
        })
    }

    fn create_pixels(
        &self,
        name: &str,
        shape: &[usize],
        pixels: &Pixels,
    ) -> Result<Dataset, Error> {
        let all: Vec<usize> = std::iter::once(0).chain(shape.iter().copied()).collect();
        let chunk: Vec<usize> = std::iter::once(1)
            .chain(shape.iter().map(|&n| n.max(1)))
            .collect();
        let chunk = Some(chunk.as_slice());
        match pixels {
            Pixels::U16(_) => self.dataset::<u16>(name, &all, chunk, false),
            Pixels::I16(_) => self.dataset::<i16>(name, &all, chunk, false),
            Pixels::U32(_) => self.dataset::<u32>(name, &all, chunk, false),
            Pixels::I32(_) => self.dataset::<i32>(name, &all, chunk, false),
            Pixels::F32(_) => self.dataset::<f32>(name, &all, chunk, false),
            Pixels::F64(_) => self.dataset::<f64>(name, &all, chunk, false),
            Pixels::C32(_) => self.dataset::<Cx<f32>>(name, &all, chunk, false),
            Pixels::C64(_) => self.dataset::<Cx<f64>>(name, &all, chunk, false),
        }
    }

    /// Adds an array to a series; all arrays of a series have one size and type.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the shape contradicts the values or the series; [`Error::Hdf5`].
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
        let ds = match known {
            Some((_, _, shape, kind)) if *shape != array.shape || *kind != data_type => {
                return Err(Error::Malformed {
                    place: self.place(name),
                    found: format!("an array of shape {:?}, type {data_type}", array.shape),
                    needed: format!("{shape:?}, type {kind}, as the series; use another name"),
                });
            }
            Some((_, ds, ..)) => ds.clone(),
            None => {
                let ds = self.create_pixels(name, &array.shape, &array.values)?;
                self.arrays
                    .push((name.to_owned(), ds.clone(), array.shape.clone(), data_type));
                ds
            }
        };
        let n = ds.shape().first().copied().unwrap_or(0);
        append_pixels(&ds, n, &array.shape, &array.values).map_err(self.failed(name))
    }

    /// Completes the file and puts it at its target, over a file that stood there.
    ///
    /// # Errors
    /// [`Error::Hdf5`] and [`Error::Io`]: nothing is left at the target but what stood there before.
    pub fn finish(mut self) -> Result<(), Error> {
        self.flush_acquisitions()?;
        let failed = |e| write_error(&self.target, self.target.display().to_string())(e);
        if let Some(file) = self.file.take() {
            file.flush().map_err(failed)?;
            // Objects keep the file open inside the library: all must go before the close counts.
            self.acquisitions = None;
            self.waveforms = None;
            self.series.clear();
            self.arrays.clear();
            drop(self.group);
            file.close().map_err(failed)?;
        }
        let io = |source| Error::Io {
            what: "write",
            path: self.target.clone(),
            source,
        };
        // A full disk may show only when the system writes its cache back.
        std::fs::File::open(&self.temporary)
            .and_then(|f| f.sync_all())
            .map_err(io)?;
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

/// Makes a group and those above it, or opens what is there.
fn nested(parent: &Group, path: &str) -> hdf5::Result<Group> {
    let mut group = parent.clone();
    for step in path.split('/').filter(|s| !s.is_empty()) {
        group = if group.link_exists(step) {
            group.group(step)?
        } else {
            group.create_group(step)?
        };
    }
    Ok(group)
}

/// Writes `values` behind the first `n` entries of the first axis.
fn append<T: H5Type>(ds: &Dataset, n: usize, shape: &[usize], values: &[T]) -> hdf5::Result<()> {
    let per = shape.iter().product::<usize>();
    let count = if shape.is_empty() { values.len() } else { 1 };
    let all: Vec<usize> = std::iter::once(n + count)
        .chain(shape.iter().copied())
        .collect();
    ds.resize(all)?;
    if values.is_empty() || per == 0 {
        return Ok(());
    }
    let mut axes = vec![SliceOrIndex::from(n..n + count)];
    axes.extend(shape.iter().map(|&m| SliceOrIndex::from(0..m)));
    let view_shape: Vec<usize> = std::iter::once(count)
        .chain(shape.iter().copied())
        .collect();
    let view = ArrayView::from_shape(IxDyn(&view_shape), values)
        .map_err(|e| hdf5::Error::from(e.to_string()))?;
    ds.write_slice(view, Selection::from(Hyperslab::from(axes)))
}

fn append_pixels(ds: &Dataset, n: usize, shape: &[usize], pixels: &Pixels) -> hdf5::Result<()> {
    match pixels {
        Pixels::U16(v) => append(ds, n, shape, v),
        Pixels::I16(v) => append(ds, n, shape, v),
        Pixels::U32(v) => append(ds, n, shape, v),
        Pixels::I32(v) => append(ds, n, shape, v),
        Pixels::F32(v) => append(ds, n, shape, v),
        Pixels::F64(v) => append(ds, n, shape, v),
        Pixels::C32(v) => append(
            ds,
            n,
            shape,
            &v.iter().map(|&c: &Complex32| Cx(c)).collect::<Vec<_>>(),
        ),
        Pixels::C64(v) => append(
            ds,
            n,
            shape,
            &v.iter().map(|&c: &Complex64| Cx(c)).collect::<Vec<_>>(),
        ),
    }
}
