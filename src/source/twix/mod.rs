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
mod readouts;
mod walk;

use std::path::Path;

use self::readouts::Twix;
use self::walk::{CUT_SHORT, Entry, Walker};
use super::bytes::{Bytes, u32_at, u64_at};
use super::{NoiseSource, OpenOptions, Parts, SourceError};
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
