//! One pass over a file's headers: which measurements there are, where their readouts stand, and whether every length
//! holds before it is believed.

use std::path::Path;

use super::header::Seen;
use super::mdh::{Mdh, VB_BYTES, VD_BYTES, VD_CHANNEL_BYTES, eval};
use super::protocol::Protocol;
use super::{ENTRY_BYTES, OpenOptions, SourceError};
use crate::source::bytes::{u32_at, u64_at};

/// A measurement of the file.
#[derive(Debug)]
pub(super) struct Measurement {
    pub(super) number: usize,
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) protocol: Protocol,
    pub(super) data_start: usize,
}

/// Where a readout stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) offset: usize,
    pub(super) dwell_us: f32,
}

/// What a pass over a measurement's headers found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) noise: Vec<Entry>,
    pub(super) other: Vec<Entry>,
    pub(super) seen: Seen,
    pub(super) sync_blocks: usize,
    pub(super) empty: usize,
    pub(super) packed: usize,
    pub(super) ended: bool,
    pub(super) noise_channels: u16,
}

pub(super) struct Walker<'a> {
    pub(super) path: &'a Path,
    pub(super) bytes: &'a [u8],
    pub(super) is_vd: bool,
    pub(super) options: &'a OpenOptions,
}

pub(super) const CUT_SHORT: &str = "the copy was cut short or the scan was aborted: copy it again, or read the whole readouts that \
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

    pub(super) fn measurements(&self) -> Result<Vec<Measurement>, SourceError> {
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
    pub(super) fn walk(&self, m: &Measurement) -> Result<Walk, SourceError> {
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
            // Blocks without samples may be shorter; every other must carry the walk on.
            if length < header_bytes && (mdh.n_channels > 0 || mdh.has(eval::SYNCDATA)) {
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
                if length < header_bytes {
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
