//! Measurement data headers: what stands before every readout.
//!
//! VB: 128 bytes before each *channel*. VD/VE: 192 bytes before each readout, then 32 bytes before each channel. All
//! fields little-endian.
//!
//! # Source
//! Field layout as published with siemens_to_ismrmrd (`siemensraw.h`), mapVBVD and twixtools (all MIT); the bits of the
//! evaluation mask as listed in twixtools.

use crate::source::bytes::{f32_at, i32_at, u16_at, u32_at, u64_at};

/// Bytes of a VB header.
pub(crate) const VB_BYTES: usize = 128;
/// Bytes of a VD/VE scan header.
pub(crate) const VD_BYTES: usize = 192;
/// Bytes of a VD/VE channel header.
pub(crate) const VD_CHANNEL_BYTES: usize = 32;

/// Bits of the evaluation mask that mean something here.
#[allow(missing_docs)]
pub(crate) mod eval {
    pub(crate) const ACQEND: u64 = 1;
    pub(crate) const RTFEEDBACK: u64 = 1 << 1;
    pub(crate) const HPFEEDBACK: u64 = 1 << 2;
    pub(crate) const SYNCDATA: u64 = 1 << 5;
    pub(crate) const RAWDATACORRECTION: u64 = 1 << 10;
    pub(crate) const LASTSCANINMEAS: u64 = 1 << 11;
    pub(crate) const REFPHASESTABSCAN: u64 = 1 << 14;
    pub(crate) const PHASESTABSCAN: u64 = 1 << 15;
    pub(crate) const PHASCOR: u64 = 1 << 21;
    pub(crate) const PATREFSCAN: u64 = 1 << 22;
    pub(crate) const PATREFANDIMASCAN: u64 = 1 << 23;
    pub(crate) const REFLECT: u64 = 1 << 24;
    pub(crate) const NOISEADJSCAN: u64 = 1 << 25;
    pub(crate) const FIRSTSCANINSLICE: u64 = 1 << 28;
    pub(crate) const LASTSCANINSLICE: u64 = 1 << 29;
    pub(crate) const RETRO_DUMMYSCAN: u64 = 1 << 51;
}

/// A measurement data header of either line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Mdh {
    /// Declared bytes of this readout; wrong when several readouts are packed into one transfer.
    pub(crate) dma_length: u32,
    pub(crate) measurement_uid: i32,
    pub(crate) scan_counter: u32,
    pub(crate) time_stamp: u32,
    pub(crate) pmu_time_stamp: u32,
    pub(crate) eval: u64,
    pub(crate) n_samples: u16,
    pub(crate) n_channels: u16,
    /// Line, acquisition, slice, partition, echo, phase, repetition, set, segment, Ida to Ide.
    pub(crate) counters: [u16; 14],
    pub(crate) cut_off: [u16; 2],
    pub(crate) centre_column: u16,
    pub(crate) centre_line: u16,
    pub(crate) centre_partition: u16,
    /// Sagittal, coronal, transversal: LPS, mm.
    pub(crate) position: [f32; 3],
    /// W, X, Y, Z.
    pub(crate) quaternion: [f32; 4],
    pub(crate) ice: [u16; 24],
    pub(crate) table: [i32; 3],
}

impl Mdh {
    /// Reads a header; `None` when the bytes end before it does.
    pub(crate) fn read(bytes: &[u8], offset: usize, is_vd: bool) -> Option<Self> {
        let size = if is_vd { VD_BYTES } else { VB_BYTES };
        let b = bytes.get(offset..offset.checked_add(size)?)?;
        let mut mdh = Self {
            // The upper 7 bits are the pack bit and PCI flags.
            dma_length: u32_at(b, 0)? & 0x01ff_ffff,
            measurement_uid: i32_at(b, 4)?,
            scan_counter: u32_at(b, 8)?,
            time_stamp: u32_at(b, 12)?,
            pmu_time_stamp: u32_at(b, 16)?,
            ..Self::default()
        };
        // VD has 20 bytes more: system type, table position.
        let at = if is_vd { 40 } else { 20 };
        if is_vd {
            for (i, value) in mdh.table.iter_mut().enumerate() {
                *value = i32_at(b, 24 + 4 * i)?;
            }
        }
        mdh.eval = u64_at(b, at)?;
        mdh.n_samples = u16_at(b, at + 8)?;
        mdh.n_channels = u16_at(b, at + 10)?;
        for (i, counter) in mdh.counters.iter_mut().enumerate() {
            *counter = u16_at(b, at + 12 + 2 * i)?;
        }
        mdh.cut_off = [u16_at(b, at + 40)?, u16_at(b, at + 42)?];
        mdh.centre_column = u16_at(b, at + 44)?;
        mdh.centre_line = u16_at(b, at + 56)?;
        mdh.centre_partition = u16_at(b, at + 58)?;
        let (slice_at, ice_at, n_ice) = if is_vd {
            (at + 60, at + 88, 24)
        } else {
            (at + 76, at + 60, 4)
        };
        for (i, value) in mdh.position.iter_mut().enumerate() {
            *value = f32_at(b, slice_at + 4 * i)?;
        }
        for (i, value) in mdh.quaternion.iter_mut().enumerate() {
            *value = f32_at(b, slice_at + 12 + 4 * i)?;
        }
        for (i, value) in mdh.ice.iter_mut().take(n_ice).enumerate() {
            *value = u16_at(b, ice_at + 2 * i)?;
        }
        if !is_vd {
            mdh.table[2] = i32::from(u16_at(b, 126)?);
        }
        Some(mdh)
    }

    /// Whether any of the bits is set.
    pub(crate) fn has(&self, bits: u64) -> bool {
        self.eval & bits != 0
    }

    /// Bytes of the readout, header included. The declared length serves only where there are no samples.
    pub(crate) fn block_bytes(&self, is_vd: bool) -> usize {
        if self.has(eval::ACQEND | eval::SYNCDATA) {
            return self.dma_length as usize;
        }
        let samples = usize::from(self.n_samples) * 8;
        let channels = usize::from(self.n_channels);
        if is_vd {
            VD_BYTES + channels * (VD_CHANNEL_BYTES + samples)
        } else {
            channels * (VB_BYTES + samples)
        }
    }

    /// Direction cosines (read, phase, slice) of the slice's quaternion, or `None` if it is no rotation.
    ///
    /// The quaternion is (W, X, Y, Z) and its matrix has columns phase, read, slice: siemens_to_ismrmrd.
    pub(crate) fn directions(&self) -> Option<[[f32; 3]; 3]> {
        let [w, x, y, z] = self.quaternion.map(f64::from);
        let norm = (w * w + x * x + y * y + z * z).sqrt();
        if !norm.is_finite() || (norm - 1.0).abs() > 1e-2 {
            return None;
        }
        let [w, x, y, z] = [w, x, y, z].map(|v| v / norm);
        let phase = [
            1.0 - 2.0 * (y * y + z * z),
            2.0 * (x * y + z * w),
            2.0 * (x * z - y * w),
        ];
        let read = [
            2.0 * (x * y - z * w),
            1.0 - 2.0 * (x * x + z * z),
            2.0 * (y * z + x * w),
        ];
        let slice = [
            2.0 * (x * z + y * w),
            2.0 * (y * z - x * w),
            1.0 - 2.0 * (x * x + y * y),
        ];
        Some([read, phase, slice].map(|d| d.map(|v| v as f32)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quaternion_of_a_quarter_turn_gives_phase_along_y_and_read_along_minus_x() {
        let h = std::f32::consts::FRAC_1_SQRT_2;
        let mdh = Mdh {
            quaternion: [h, 0.0, 0.0, h],
            ..Mdh::default()
        };
        let [read, phase, slice] = mdh.directions().unwrap();
        for (found, expected) in [
            (read, [-1.0, 0.0, 0.0]),
            (phase, [0.0, 1.0, 0.0]),
            (slice, [0.0, 0.0, 1.0]),
        ] {
            for i in 0..3 {
                assert!(
                    (found[i] - expected[i]).abs() < 1e-6,
                    "{found:?} {expected:?}"
                );
            }
        }
        assert!(Mdh::default().directions().is_none());
    }
}
