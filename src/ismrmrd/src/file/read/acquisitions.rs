//! Acquisitions and waveforms: from the memory map, or through the library.

use std::borrow::Cow;
use std::ops::{ControlFlow, Range};

use hdf5::Dataset;
use hdf5::types::{H5Type, TypeDescriptor};
use memmap2::UncheckedAdvice;

use super::super::heap::{Heap, Pointer};
use super::super::layout::{RawAcquisition, RawWaveform};
use super::super::table::{NEVER_WRITTEN, Table, members};
use super::{File, dtype_of, hdf5_error, slice};
use crate::acquisition::{AcquisitionHeader, AcquisitionRef};
use crate::waveform::{Waveform, WaveformHeader};
use crate::{Complex32, Error, Limits};

/// Samples that one batch of the library path may hold, in bytes.
const LIBRARY_BATCH_BYTES: usize = 64 << 20;

/// How acquisitions of a group are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReaderKind {
    /// From a memory map, samples borrowed.
    Direct,
    /// Through the HDF5 library, samples copied; with the reason.
    Library(String),
}

/// Where a data set's elements stand, and where members stand in an element.
type Layouts<const N: usize> = (Table, [usize; N]);

/// Members of an acquisition.
const ACQUISITION: [&str; 3] = ["head", "traj", "data"];

/// One acquisition before it is lent out: header, trajectory, samples.
type Held<'a> = (AcquisitionHeader, Cow<'a, [f32]>, Cow<'a, [Complex32]>);

impl File {
    fn acquisitions(&self, group: &str) -> Result<Dataset, Error> {
        let g = self.group(group)?;
        let ds = self.dataset(&g, group, "data", "acquisitions")?;
        self.check_members::<RawAcquisition>(&ds, &self.place(group, "data"))?;
        Ok(ds)
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
        Ok(match self.direct::<RawAcquisition, 3>(&ds, ACQUISITION)? {
            Ok(_) => ReaderKind::Direct,
            Err(reason) => ReaderKind::Library(reason),
        })
    }

    fn direct<T: H5Type, const N: usize>(
        &self,
        ds: &Dataset,
        names: [&str; N],
    ) -> Result<Result<Layouts<N>, String>, Error> {
        let members = match members::<T>(ds)? {
            Ok(members) => members,
            Err(reason) => return Ok(Err(reason)),
        };
        let offset = |name: &str| members.iter().find(|(n, _)| n == name).map_or(0, |m| m.1);
        Ok(self.table(ds)?.map(|table| (table, names.map(offset))))
    }

    fn outside(&self, place: String) -> Error {
        let needed = "the whole file: is it cut off?";
        self.malformed(place, "an address outside the file", needed)
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
        match self.direct::<RawAcquisition, 3>(&ds, ACQUISITION)? {
            Ok((table, at)) => self.batches_direct(&table, at, &place, batch, visit),
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
        [head_at, traj_at, data_at]: [usize; 3],
        place: &str,
        batch: usize,
        visit: &mut dyn FnMut(&[AcquisitionRef<'_>]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let bytes = self.bytes();
        let mut heap = Heap::new(bytes);
        let mut held: Vec<Held<'_>> = Vec::new();
        let batch = batch.max(1);
        for first in (0..table.len).step_by(batch) {
            held.clear();
            let mut touched = Touched::default();
            for i in first..table.len.min(first.saturating_add(batch)) {
                let here = || format!("{place}[{i}]");
                let read = table.element(i, bytes).and_then(|element| {
                    let head = AcquisitionHeader::decode(head(element, head_at)?);
                    let traj = Pointer::read(element, traj_at)?;
                    Some((head, traj, Pointer::read(element, data_at)?))
                });
                let (head, traj, data) = read.ok_or_else(|| self.outside(here()))?;
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

    /// The library takes memory for as many values as a pointer declares before it looks for them; so no pointer may
    /// declare more than the file could hold.
    fn check_lengths(&self, ds: &Dataset, len: usize, place: &str) -> Result<(), Error> {
        let bytes = ds.dtype().map_err(hdf5_error(place))?.size();
        self.check_stored(ds, len, bytes, place)?;
        self.check_heaps(place)?;
        let table = match self.table(ds)? {
            Ok(table) => table,
            Err(reason) if reason == NEVER_WRITTEN => {
                let needed = "all of them: was writing stopped?";
                return Err(self.malformed(place.into(), reason, needed));
            }
            Err(_) => return Ok(()),
        };
        let Some(TypeDescriptor::Compound(found)) = dtype_of(ds) else {
            return Ok(());
        };
        let bytes = self.bytes();
        for field in &found.fields {
            let TypeDescriptor::VarLenArray(base) = &field.ty else {
                continue;
            };
            let each = base.size() as u64;
            for i in 0..table.len {
                let element = table.element(i, bytes);
                let declared = element
                    .and_then(|e| Pointer::read(e, field.offset))
                    .map_or(0, |p| u64::from(p.len));
                if declared.saturating_mul(each) > self.file_len {
                    return Err(self.malformed(
                        format!("{place}[{i}].{}", field.name),
                        format!("{declared} values of {each} bytes declared"),
                        format!("no more than the file's {} bytes hold", self.file_len),
                    ));
                }
            }
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
        self.check_lengths(ds, len, place)?;
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
        match self.direct::<RawWaveform, 2>(&ds, ["head", "data"])? {
            Ok((table, [head_at, data_at])) => {
                let bytes = self.bytes();
                let mut heap = Heap::new(bytes);
                for i in 0..table.len {
                    let here = || format!("{place}[{i}]");
                    let read = table.element(i, bytes).and_then(|element| {
                        let head = WaveformHeader::decode(head(element, head_at)?);
                        Some((head, Pointer::read(element, data_at)?))
                    });
                    let (head, data) = read.ok_or_else(|| self.outside(here()))?;
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
                self.check_lengths(&ds, len, &place)?;
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
}

/// A header of `N` bytes within an element.
fn head<const N: usize>(element: &[u8], at: usize) -> Option<&[u8; N]> {
    element.get(at..)?.first_chunk()
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

pub(crate) fn check_waveform(
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
