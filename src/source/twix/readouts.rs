//! Readouts by their place in the file.

use std::ops::ControlFlow;
use std::path::PathBuf;

use ismrmrd::acquisition::AcquisitionRef;
use ismrmrd::{Acquisition, AcquisitionFlag, AcquisitionHeader};
use num_complex::Complex32;

use super::mdh::{Mdh, VB_BYTES, VD_BYTES, VD_CHANNEL_BYTES, eval};
use super::walk::Entry;
use crate::source::bytes::Bytes;
use crate::source::grid::BATCH;
use crate::source::{Readouts, SourceError, Visit};

pub(super) struct Twix {
    pub(super) path: PathBuf,
    pub(super) bytes: Bytes,
    pub(super) is_vd: bool,
    pub(super) entries: Vec<Entry>,
    pub(super) max_channels: u16,
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
