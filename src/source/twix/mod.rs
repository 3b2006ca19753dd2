//! Siemens twix `.dat` files of the VB and of the VD/VE line.
//!
//! A VD/VE file begins with a table of measurements (offset, length, protocol name); the last is the scan, earlier ones
//! are adjustments, of which the noise readouts are used. A VB file is one measurement. A measurement is a text header
//! ([`protocol`]) and then readouts, each behind its binary header ([`mdh`]), up to one with the bit `ACQEND`.
//!
//! Samples, counters, positions and directions are those of siemens_to_ismrmrd, so a file read here and one converted
//! first are the same scan. Readouts are copied from a map of the file a batch at a time; only a table of their offsets
//! is held.

mod header;
mod mdh;
mod protocol;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ismrmrd::acquisition::AcquisitionRef;
use ismrmrd::{Acquisition, AcquisitionFlag, AcquisitionHeader};
use num_complex::Complex32;

use self::header::Seen;
use self::mdh::{Mdh, VB_BYTES, VD_BYTES, VD_CHANNEL_BYTES, eval};
use self::protocol::Protocol;
use super::bytes::{Bytes, u32_at, u64_at};
use super::grid::BATCH;
use super::{NoiseSource, OpenOptions, Parts, Readouts, SourceError, Visit};
use crate::data::Note;

/// Bytes of the table entry of one measurement.
const ENTRY_BYTES: usize = 152;
/// Entries that the table of a VD/VE file has room for.
const MAX_MEASUREMENTS: usize = 64;

/// Names of header buffers; a file that is twix begins with one of them.
const BUFFERS: [&[u8]; 6] = [
    b"Config\0",
    b"Dicom\0",
    b"Meas\0",
    b"MeasYaps\0",
    b"Phoenix\0",
    b"Spice\0",
];

/// Software line of the scanner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Baseline {
    /// VA, VB: one measurement, one header per channel.
    Vb,
    /// VD, VE and later: several measurements, one header per readout.
    Vd,
}

/// Recognises a twix file by its first bytes.
pub(crate) fn detect(bytes: &[u8]) -> Option<Baseline> {
    let begins_header = |at: usize| {
        let n = u32_at(bytes, at + 4)?;
        let rest = bytes.get(at + 8..)?;
        ((1..=64).contains(&n) && BUFFERS.iter().any(|name| rest.starts_with(name))).then_some(())
    };
    let (first, second) = (u32_at(bytes, 0)?, u32_at(bytes, 4)?);
    if first < 10_000 && (1..=MAX_MEASUREMENTS as u32).contains(&second) {
        let offset = u64_at(bytes, 16)?;
        let table_end = (8 + ENTRY_BYTES * second as usize) as u64;
        if offset >= table_end && offset <= 1 << 20 {
            let offset = offset as usize;
            // A file cut within its first header still is a twix file, and is told so.
            if bytes.len() < offset + 16 || begins_header(offset).is_some() {
                return Some(Baseline::Vd);
            }
        }
    }
    begins_header(0).map(|()| Baseline::Vb)
}

/// A measurement of the file.
#[derive(Debug)]
struct Measurement {
    number: usize,
    id: u32,
    name: String,
    start: usize,
    end: usize,
    protocol: Protocol,
    data_start: usize,
}

/// Where a readout stands.
#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: usize,
    dwell_us: f32,
}

/// What a pass over a measurement's headers found.
#[derive(Debug, Default)]
struct Walk {
    noise: Vec<Entry>,
    other: Vec<Entry>,
    seen: Seen,
    sync_blocks: usize,
    empty: usize,
    packed: usize,
    ended: bool,
    noise_channels: u16,
}

struct Twix {
    path: PathBuf,
    bytes: Bytes,
    is_vd: bool,
    entries: Vec<Entry>,
    max_channels: u16,
}

struct Walker<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    is_vd: bool,
    options: &'a OpenOptions,
}

const CUT_SHORT: &str = "the copy was cut short or the scan was aborted: copy it again, or read the whole readouts that \
                         are left with the option `allow_truncated`";

impl Walker<'_> {
    fn bad(
        &self,
        place: impl Into<String>,
        found: impl Into<String>,
        needed: impl Into<String>,
        hint: &str,
    ) -> SourceError {
        SourceError::malformed(self.path, place, found, needed, hint)
    }

    fn measurements(&self) -> Result<Vec<Measurement>, SourceError> {
        let mut list = Vec::new();
        if self.is_vd {
            let count = u32_at(self.bytes, 4).unwrap_or(0) as usize;
            for number in 0..count {
                let at = 8 + number * ENTRY_BYTES;
                let entry = (
                    u32_at(self.bytes, at),
                    u64_at(self.bytes, at + 8),
                    u64_at(self.bytes, at + 16),
                );
                let (Some(id), Some(offset), Some(length)) = entry else {
                    return Err(self.bad(
                        format!("table of measurements, entry {}", number + 1),
                        "end of file",
                        format!("{count} entries"),
                        CUT_SHORT,
                    ));
                };
                let name = self.bytes.get(at + 88..at + 152).unwrap_or_default();
                let name: String = name
                    .iter()
                    .take_while(|b| **b != 0)
                    .map(|&b| char::from(b))
                    .collect();
                let place = format!("measurement {} ({name})", number + 1);
                let size = self.bytes.len() as u64;
                if offset >= size {
                    return Err(self.bad(
                        place,
                        format!("begins at byte {offset} of {size}"),
                        "a place within the file",
                        CUT_SHORT,
                    ));
                }
                // Some scanners leave the length of a single measurement at 0: it reaches to the end of the file.
                let end = match length {
                    0 => size,
                    n => offset.saturating_add(n),
                };
                if end > size && !self.options.allow_truncated {
                    return Err(self.bad(
                        place,
                        format!("{} bytes left of the file at byte {offset}", size - offset),
                        format!("{length} bytes"),
                        CUT_SHORT,
                    ));
                }
                list.push(self.measurement(
                    number,
                    id,
                    name,
                    offset as usize,
                    end.min(size) as usize,
                )?);
            }
        } else {
            list.push(self.measurement(0, 0, String::new(), 0, self.bytes.len())?);
        }
        Ok(list)
    }

    fn measurement(
        &self,
        number: usize,
        id: u32,
        name: String,
        start: usize,
        end: usize,
    ) -> Result<Measurement, SourceError> {
        let place = format!("header of measurement {}", number + 1);
        let length = u32_at(self.bytes, start).unwrap_or(0) as usize;
        if length < 16 || length > end - start {
            return Err(self.bad(
                place,
                format!(
                    "{length} bytes announced at byte {start}, {} left",
                    end - start
                ),
                "a header within the measurement",
                CUT_SHORT,
            ));
        }
        let text = self.bytes.get(start..start + length).unwrap_or_default();
        let protocol = Protocol::parse(text).map_err(|(inner, found, needed)| {
            self.bad(
                format!("{place}: {inner}"),
                found,
                needed,
                "the file is damaged: copy it again from the scanner",
            )
        })?;
        Ok(Measurement {
            number,
            id,
            name,
            start,
            end,
            protocol,
            data_start: start + length,
        })
    }

    /// Passes over all readouts of a measurement, checking every length before it is believed.
    fn walk(&self, m: &Measurement) -> Result<Walk, SourceError> {
        let mut walk = Walk::default();
        let header_bytes = if self.is_vd { VD_BYTES } else { VB_BYTES };
        let dwell_us = m
            .protocol
            .number(&["MEAS.sRXSPEC.alDwellTime[0]"])
            .unwrap_or(0.0) as f32
            / 1000.0;
        let name = m
            .protocol
            .text(&["MEAS.tProtocolName", "HEADER.tProtocolName"])
            .unwrap_or(&m.name)
            .to_string();
        let mut at = m.data_start;
        let mut readout = 0usize;
        while at < m.end {
            let place = || {
                format!(
                    "measurement {}, readout {} at byte {at}",
                    m.number + 1,
                    readout + 1
                )
            };
            let left = m.end - at;
            let Some(mdh) = (left >= header_bytes)
                .then(|| Mdh::read(self.bytes, at, self.is_vd))
                .flatten()
            else {
                // Less than a header is left without ACQEND: padding, or the end of a file that was cut.
                if self
                    .bytes
                    .get(at..m.end)
                    .is_some_and(|b| b.iter().all(|&v| v == 0))
                    || self.options.allow_truncated
                {
                    break;
                }
                return Err(self.bad(
                    place(),
                    format!("{left} bytes left"),
                    format!("{header_bytes} bytes of header"),
                    CUT_SHORT,
                ));
            };
            if mdh.dma_length == 0 && mdh.n_samples == 0 {
                break;
            }
            let length = mdh.block_bytes(self.is_vd);
            if mdh.has(eval::ACQEND) {
                walk.ended = true;
                break;
            }
            if length < header_bytes && mdh.n_channels > 0 {
                return Err(self.bad(
                    place(),
                    format!("a DMA length of {length} bytes"),
                    format!("at least the {header_bytes} bytes of the header"),
                    "the readout headers are damaged: copy the file again",
                ));
            }
            let limits = &self.options.limits;
            if usize::from(mdh.n_channels) > limits.channels
                || usize::from(mdh.n_samples) > limits.samples
            {
                return Err(self.bad(
                    place(),
                    format!("{} channels of {} samples", mdh.n_channels, mdh.n_samples),
                    format!(
                        "at most {} channels of {} samples",
                        limits.channels, limits.samples
                    ),
                    "the readout headers are damaged: copy the file again",
                ));
            }
            if length > left {
                if self.options.allow_truncated {
                    break;
                }
                return Err(self.bad(
                    place(),
                    format!("{left} bytes left"),
                    format!("{length} bytes"),
                    CUT_SHORT,
                ));
            }
            if mdh.has(eval::SYNCDATA) {
                walk.sync_blocks += 1;
            } else if mdh.n_samples == 0 || mdh.n_channels == 0 {
                walk.empty += 1;
                if length == 0 {
                    at += header_bytes;
                    readout += 1;
                    continue;
                }
            } else {
                self.check_channels(&mdh, at, &place)?;
                walk.packed += usize::from(mdh.dma_length as usize != length);
                self.count(&mdh, &name, at, dwell_us, &mut walk);
            }
            at += length;
            readout += 1;
        }
        Ok(walk)
    }

    /// The headers of the channels must agree with the readout's: a wrong length shows here, before samples are taken
    /// from the wrong place.
    fn check_channels(
        &self,
        mdh: &Mdh,
        at: usize,
        place: &dyn Fn() -> String,
    ) -> Result<(), SourceError> {
        let samples = usize::from(mdh.n_samples) * 8;
        let last = usize::from(mdh.n_channels) - 1;
        let (found, needed) = if self.is_vd {
            let header = at + VD_BYTES + last * (VD_CHANNEL_BYTES + samples);
            let declared = u32_at(self.bytes, header).unwrap_or(0) >> 8;
            let needed = (VD_CHANNEL_BYTES + samples) as u32;
            // Some software writes 0 here.
            if declared == 0 || declared == needed {
                return Ok(());
            }
            (declared, needed)
        } else {
            let header = at + last * (VB_BYTES + samples);
            let other = Mdh::read(self.bytes, header, false).unwrap_or_default();
            if other.n_samples == mdh.n_samples && other.n_channels == mdh.n_channels {
                return Ok(());
            }
            (u32::from(other.n_samples), u32::from(mdh.n_samples))
        };
        Err(self.bad(
            format!("{}, header of channel {}", place(), last + 1),
            format!(
                "length {found} (DMA length of the readout: {})",
                mdh.dma_length
            ),
            format!(
                "length {needed}, as {} channels of {} samples give",
                mdh.n_channels, mdh.n_samples
            ),
            "the readout headers are damaged: copy the file again",
        ))
    }

    fn count(&self, mdh: &Mdh, protocol: &str, at: usize, dwell_us: f32, walk: &mut Walk) {
        let seen = &mut walk.seen;
        seen.max_channels = seen.max_channels.max(mdh.n_channels);
        if mdh.has(eval::NOISEADJSCAN) {
            walk.noise_channels = walk.noise_channels.max(mdh.n_channels);
            walk.noise.push(Entry {
                offset: at,
                dwell_us: noise_dwell_us(mdh.n_samples, protocol, self.is_vd),
            });
            return;
        }
        walk.other.push(Entry {
            offset: at,
            dwell_us,
        });
        let aside = eval::RTFEEDBACK
            | eval::HPFEEDBACK
            | eval::PHASCOR
            | eval::REFPHASESTABSCAN
            | eval::PHASESTABSCAN
            | eval::RETRO_DUMMYSCAN;
        let is_reference_only = mdh.has(eval::PATREFSCAN) && !mdh.has(eval::PATREFANDIMASCAN);
        if mdh.has(aside) || is_reference_only {
            return;
        }
        seen.max_samples = seen.max_samples.max(mdh.n_samples);
        let [
            line,
            average,
            slice,
            partition,
            echo,
            phase,
            repetition,
            set,
            segment,
            ..,
        ] = mdh.counters;
        seen.max_line = seen.max_line.max(line);
        seen.max_partition = seen.max_partition.max(partition);
        for (max, value) in seen
            .max
            .iter_mut()
            .zip([average, slice, echo, phase, repetition, set, segment])
        {
            *max = (*max).max(value);
        }
        seen.centre
            .get_or_insert([mdh.centre_line, mdh.centre_partition]);
    }
}

/// Dwell time of Siemens noise readouts, which the protocol does not state: siemens_to_ismrmrd's rule.
fn noise_dwell_us(n_samples: u16, protocol: &str, is_vd: bool) -> f32 {
    let n = f64::from(n_samples);
    (match protocol {
        "AdjCoilSens" => 5.0,
        "AdjQuietCoilSens" => 4.0,
        _ if is_vd => (76_800.0 / n).trunc() / 10.0,
        _ => 1e6 / n / 130.0,
    }) as f32
}

pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<Parts, SourceError> {
    let bytes = Bytes::open(path)?;
    let Some(baseline) = detect(bytes.all()) else {
        return Err(SourceError::unsupported(
            path,
            "no twix file",
            "a Siemens raw data file",
            "name another file",
        ));
    };
    let is_vd = baseline == Baseline::Vd;
    let walker = Walker {
        path,
        bytes: bytes.all(),
        is_vd,
        options,
    };
    let measurements = walker.measurements()?;
    let names: Vec<String> = measurements
        .iter()
        .map(|m| {
            format!(
                "{} ({}, MID {})",
                m.number + 1,
                if m.name.is_empty() {
                    "unnamed"
                } else {
                    &m.name
                },
                m.id
            )
        })
        .collect();
    let mut walks = Vec::with_capacity(measurements.len());
    for m in &measurements {
        walks.push(walker.walk(m)?);
    }
    let chosen = match options.measurement {
        Some(n) => n
            .checked_sub(1)
            .filter(|n| *n < measurements.len())
            .ok_or_else(|| SourceError::Option {
                path: path.to_path_buf(),
                asked: format!("measurement {n}"),
                found: format!("measurements {}", names.join(", ")),
                hint: "name one of them; without, the last with imaging readouts is taken".into(),
            })?,
        None => walks
            .iter()
            .rposition(|w| w.seen.centre.is_some())
            .or_else(|| {
                walks
                    .iter()
                    .rposition(|w| !w.noise.is_empty() || !w.other.is_empty())
            })
            .unwrap_or(measurements.len() - 1),
    };
    let mut notes = Vec::new();
    if measurements.len() > 1 {
        notes.push(Note::new(
            "measurement_chosen",
            format!(
                "measurement {} of {} is read: {}",
                chosen + 1,
                measurements.len(),
                names.join(", ")
            ),
        ));
    }
    let Some(measurement) = measurements.get(chosen) else {
        return Err(SourceError::malformed(
            path,
            "table of measurements",
            "none",
            "one measurement",
            CUT_SHORT,
        ));
    };
    let walk = std::mem::take(&mut walks[chosen]);
    if walk.other.is_empty() && walk.noise.is_empty() {
        return Err(SourceError::malformed(
            path,
            format!("measurement {} at byte {}", chosen + 1, measurement.start),
            "no readout",
            "at least one",
            "the scan was aborted before data were acquired",
        ));
    }
    let mut entries = Vec::new();
    let mut noise = None;
    if !walk.noise.is_empty() {
        noise = Some(NoiseSource {
            from: "the scan's own noise readouts".into(),
            readouts: walk.noise.len() as u64,
        });
    } else {
        for (m, earlier) in measurements.iter().zip(&walks).take(chosen).rev() {
            if earlier.noise.is_empty() {
                continue;
            }
            if earlier.noise_channels != walk.seen.max_channels {
                notes.push(Note::new(
                    "noise_channels_differ",
                    format!(
                        "measurement {} has noise readouts of {} channels, the scan has {}: they are not used",
                        m.number + 1,
                        earlier.noise_channels,
                        walk.seen.max_channels
                    ),
                ));
                continue;
            }
            entries.extend_from_slice(&earlier.noise);
            noise = Some(NoiseSource {
                from: format!("measurement {} ({}) of the file", m.number + 1, m.name),
                readouts: earlier.noise.len() as u64,
            });
            notes.push(Note::new(
                "noise_from_earlier_measurement",
                format!(
                    "{} noise readouts of measurement {} ({}) come first",
                    earlier.noise.len(),
                    m.number + 1,
                    m.name
                ),
            ));
            break;
        }
    }
    if noise.is_some() {
        notes.push(Note::new(
            "noise_dwell_by_rule",
            "the dwell time of the noise readouts follows siemens_to_ismrmrd's rule; the file does not state it",
        ));
    }
    // File order within the measurement: noise readouts stand where they were measured.
    let mut own: Vec<Entry> = walk.noise.iter().chain(&walk.other).copied().collect();
    own.sort_by_key(|e| e.offset);
    entries.extend(own);
    for (n, code, what) in [
        (
            walk.sync_blocks,
            "sync_data_skipped",
            "blocks of physiological or other synchronous data are not read",
        ),
        (
            walk.empty,
            "empty_readouts_skipped",
            "readouts without samples are skipped",
        ),
        (
            walk.packed,
            "dma_length_ignored",
            "readouts declare a DMA length other than their channels and samples give (several packed into one transfer): \
             channels and samples are believed",
        ),
    ] {
        if n > 0 {
            notes.push(Note::new(code, format!("{n} {what}")));
        }
    }
    if !walk.ended {
        notes.push(Note::new(
            "no_end_mark",
            "the measurement ends without the readout that marks its end: the scan may be incomplete",
        ));
    }
    let header = header::header(&measurement.protocol, &walk.seen, &mut notes);
    let max_channels = header
        .acquisition_system_information
        .as_ref()
        .and_then(|a| a.receiver_channels)
        .map_or(walk.seen.max_channels, |n| {
            n.min(u32::from(u16::MAX)) as u16
        });
    drop(measurements);
    let twix = Twix {
        path: path.to_path_buf(),
        bytes,
        is_vd,
        entries,
        max_channels,
    };
    let mut parts = Parts::new(header, notes, Box::new(twix));
    parts.noise = noise;
    Ok(parts)
}

impl Twix {
    /// Reads a readout into a buffer that is used again and again.
    fn read(&self, entry: &Entry, into: &mut Acquisition) -> Result<(), SourceError> {
        let bytes = self.bytes.all();
        let damaged = || {
            SourceError::malformed(
                &self.path,
                format!("readout at byte {}", entry.offset),
                "end of file",
                "the whole readout",
                "the file changed while it was read",
            )
        };
        let mdh = Mdh::read(bytes, entry.offset, self.is_vd).ok_or_else(damaged)?;
        let mut head = head(&mdh, entry.dwell_us, self.max_channels);
        let n = usize::from(mdh.n_samples);
        let n_channels = usize::from(mdh.n_channels);
        for channel in 0..n_channels.min(1024) {
            head.channel_mask[channel / 64] |= 1 << (channel % 64);
        }
        into.data.resize(n * n_channels, Complex32::ZERO);
        let (before, skip) = if self.is_vd {
            (VD_BYTES, VD_CHANNEL_BYTES)
        } else {
            (0, VB_BYTES)
        };
        for (channel, out) in into.data.chunks_mut(n.max(1)).enumerate() {
            let at = entry.offset + before + channel * (skip + 8 * n) + skip;
            let samples = bytes.get(at..at + 8 * n).ok_or_else(damaged)?;
            // On the little-endian hosts we build for, file order is memory order.
            bytemuck::cast_slice_mut::<Complex32, u8>(out).copy_from_slice(samples);
        }
        into.head = head;
        Ok(())
    }
}

impl Readouts for Twix {
    fn count(&self) -> u64 {
        self.entries.len() as u64
    }

    fn for_each_batch(&mut self, visit: &mut Visit<'_>) -> Result<(), SourceError> {
        let mut readouts = vec![Acquisition::default(); BATCH];
        for entries in self.entries.chunks(BATCH) {
            let readouts = &mut readouts[..entries.len()];
            for (entry, readout) in entries.iter().zip(readouts.iter_mut()) {
                self.read(entry, readout)?;
            }
            let refs: Vec<AcquisitionRef<'_>> = readouts.iter().map(Acquisition::as_ref).collect();
            if let ControlFlow::Break(()) = visit(&refs) {
                break;
            }
        }
        Ok(())
    }
}

fn head(mdh: &Mdh, dwell_us: f32, max_channels: u16) -> AcquisitionHeader {
    let [
        line,
        average,
        slice,
        partition,
        echo,
        phase,
        repetition,
        set,
        segment,
        ida,
        idb,
        idc,
        idd,
        ide,
    ] = mdh.counters;
    let mut head = AcquisitionHeader {
        measurement_uid: mdh.measurement_uid as u32,
        scan_counter: mdh.scan_counter,
        acquisition_time_stamp: mdh.time_stamp,
        physiology_time_stamp: [mdh.pmu_time_stamp, 0, 0],
        number_of_samples: mdh.n_samples,
        available_channels: max_channels.max(mdh.n_channels),
        active_channels: mdh.n_channels,
        discard_pre: mdh.cut_off[0],
        discard_post: mdh.cut_off[1],
        center_sample: mdh.centre_column,
        sample_time_us: dwell_us,
        position: mdh.position,
        // Table positions are in micrometres in the file.
        patient_table_position: mdh.table.map(|v| v as f32 / 1000.0),
        ..Default::default()
    };
    if let Some([read, phase, slice]) = mdh.directions() {
        head.read_dir = read;
        head.phase_dir = phase;
        head.slice_dir = slice;
    }
    head.idx.kspace_encode_step_1 = line;
    head.idx.kspace_encode_step_2 = partition;
    head.idx.average = average;
    head.idx.slice = slice;
    head.idx.contrast = echo;
    head.idx.phase = phase;
    head.idx.repetition = repetition;
    head.idx.set = set;
    head.idx.segment = segment;
    head.idx.user = [
        ida,
        idb,
        idc,
        idd,
        ide,
        mdh.centre_line,
        mdh.centre_partition,
        0,
    ];
    for (i, value) in mdh.ice.iter().enumerate().take(16) {
        if i < 8 {
            head.user_int[i] = i32::from(*value);
        } else {
            head.user_float[i - 8] = f32::from(*value);
        }
    }
    for (bits, flag) in [
        (eval::NOISEADJSCAN, AcquisitionFlag::IsNoiseMeasurement),
        (eval::FIRSTSCANINSLICE, AcquisitionFlag::FirstInSlice),
        (eval::LASTSCANINSLICE, AcquisitionFlag::LastInSlice),
        (eval::LASTSCANINMEAS, AcquisitionFlag::LastInRepetition),
        (eval::LASTSCANINMEAS, AcquisitionFlag::LastInMeasurement),
        (
            eval::PATREFANDIMASCAN,
            AcquisitionFlag::IsParallelCalibrationAndImaging,
        ),
        (eval::REFLECT, AcquisitionFlag::IsReverse),
        (eval::PHASCOR, AcquisitionFlag::IsPhasecorrData),
        (eval::RTFEEDBACK, AcquisitionFlag::IsNavigationData),
        (eval::RTFEEDBACK, AcquisitionFlag::IsRtfeedbackData),
        (eval::HPFEEDBACK, AcquisitionFlag::IsHpfeedbackData),
        (eval::RETRO_DUMMYSCAN, AcquisitionFlag::IsDummyscanData),
        (
            eval::RAWDATACORRECTION,
            AcquisitionFlag::IsSurfacecoilcorrectionscanData,
        ),
        (
            eval::REFPHASESTABSCAN,
            AcquisitionFlag::IsPhaseStabilizationReference,
        ),
        (eval::PHASESTABSCAN, AcquisitionFlag::IsPhaseStabilization),
    ] {
        if mdh.has(bits) {
            head.set(flag);
        }
    }
    // Lines that serve both purposes carry both bits; in ISMRMRD the plain calibration flag means "not an image line".
    if mdh.has(eval::PATREFSCAN) && !mdh.has(eval::PATREFANDIMASCAN) {
        head.set(AcquisitionFlag::IsParallelCalibration);
    }
    head
}
