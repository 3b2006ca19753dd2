//! The packed, little-endian layouts of the fixed headers: bytes ↔ fields, field by field.
//!
//! One table of byte offsets, in `recon-systems.md` 1.3 and `ismrmrd.h`, holds for HDF5 files and for
//! streams; the tests at the foot check every field against it.

use crate::acquisition::{ACQUISITION_HEADER_BYTES, AcquisitionHeader, EncodingCounters};
use crate::image::{IMAGE_HEADER_BYTES, ImageHeader};
use crate::waveform::{WAVEFORM_HEADER_BYTES, WaveformHeader};

/// Takes little-endian values from the front of a slice. The callers hand in arrays whose length is in
/// their type, so running out cannot happen; if it did, zeros would be read.
struct Take<'a>(&'a [u8]);

impl Take<'_> {
    #[inline(always)]
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((head, tail)) => {
                self.0 = tail;
                *head
            }
            None => [0; N],
        }
    }
}

macro_rules! value {
    ($($take:ident $take_n:ident $t:ty, $n:literal;)*) => {
        impl Take<'_> {
            $(
                #[inline(always)]
                fn $take(&mut self) -> $t {
                    <$t>::from_le_bytes(self.bytes::<$n>())
                }
                #[inline(always)]
                #[allow(dead_code)]
                fn $take_n<const N: usize>(&mut self) -> [$t; N] {
                    core::array::from_fn(|_| self.$take())
                }
            )*
        }
    };
}

value! {
    u16 u16s u16, 2;
    u32 u32s u32, 4;
    u64 u64s u64, 8;
    i32 i32s i32, 4;
    f32 f32s f32, 4;
}

/// Puts little-endian values behind each other.
struct Put<const N: usize> {
    out: [u8; N],
    at: usize,
}

impl<const N: usize> Put<N> {
    fn new() -> Self {
        Self { out: [0; N], at: 0 }
    }

    fn bytes<const M: usize>(&mut self, value: [u8; M]) {
        if let Some(to) = self.out.get_mut(self.at..self.at + M) {
            to.copy_from_slice(&value);
        }
        self.at += M;
    }

    fn u16(&mut self, v: u16) {
        self.bytes(v.to_le_bytes());
    }
    fn u32(&mut self, v: u32) {
        self.bytes(v.to_le_bytes());
    }
    fn u64(&mut self, v: u64) {
        self.bytes(v.to_le_bytes());
    }
    fn u16s(&mut self, v: &[u16]) {
        v.iter().for_each(|&x| self.u16(x));
    }
    fn u32s(&mut self, v: &[u32]) {
        v.iter().for_each(|&x| self.u32(x));
    }
    fn u64s(&mut self, v: &[u64]) {
        v.iter().for_each(|&x| self.u64(x));
    }
    fn i32s(&mut self, v: &[i32]) {
        v.iter().for_each(|&x| self.bytes(x.to_le_bytes()));
    }
    fn f32(&mut self, v: f32) {
        self.bytes(v.to_le_bytes());
    }
    fn f32s(&mut self, v: &[f32]) {
        v.iter().for_each(|&x| self.f32(x));
    }
}

impl AcquisitionHeader {
    /// Reads the packed header.
    pub fn decode(bytes: &[u8; ACQUISITION_HEADER_BYTES]) -> Self {
        let mut t = Take(bytes);
        Self {
            version: t.u16(),
            flags: t.u64(),
            measurement_uid: t.u32(),
            scan_counter: t.u32(),
            acquisition_time_stamp: t.u32(),
            physiology_time_stamp: t.u32s(),
            number_of_samples: t.u16(),
            available_channels: t.u16(),
            active_channels: t.u16(),
            channel_mask: t.u64s(),
            discard_pre: t.u16(),
            discard_post: t.u16(),
            center_sample: t.u16(),
            encoding_space_ref: t.u16(),
            trajectory_dimensions: t.u16(),
            sample_time_us: t.f32(),
            position: t.f32s(),
            read_dir: t.f32s(),
            phase_dir: t.f32s(),
            slice_dir: t.f32s(),
            patient_table_position: t.f32s(),
            idx: EncodingCounters {
                kspace_encode_step_1: t.u16(),
                kspace_encode_step_2: t.u16(),
                average: t.u16(),
                slice: t.u16(),
                contrast: t.u16(),
                phase: t.u16(),
                repetition: t.u16(),
                set: t.u16(),
                segment: t.u16(),
                user: t.u16s(),
            },
            user_int: t.i32s(),
            user_float: t.f32s(),
        }
    }

    /// Writes the packed header.
    pub fn encode(&self) -> [u8; ACQUISITION_HEADER_BYTES] {
        let mut p = Put::new();
        p.u16(self.version);
        p.u64(self.flags);
        p.u32(self.measurement_uid);
        p.u32(self.scan_counter);
        p.u32(self.acquisition_time_stamp);
        p.u32s(&self.physiology_time_stamp);
        p.u16(self.number_of_samples);
        p.u16(self.available_channels);
        p.u16(self.active_channels);
        p.u64s(&self.channel_mask);
        p.u16(self.discard_pre);
        p.u16(self.discard_post);
        p.u16(self.center_sample);
        p.u16(self.encoding_space_ref);
        p.u16(self.trajectory_dimensions);
        p.f32(self.sample_time_us);
        p.f32s(&self.position);
        p.f32s(&self.read_dir);
        p.f32s(&self.phase_dir);
        p.f32s(&self.slice_dir);
        p.f32s(&self.patient_table_position);
        let i = &self.idx;
        p.u16(i.kspace_encode_step_1);
        p.u16(i.kspace_encode_step_2);
        p.u16(i.average);
        p.u16(i.slice);
        p.u16(i.contrast);
        p.u16(i.phase);
        p.u16(i.repetition);
        p.u16(i.set);
        p.u16(i.segment);
        p.u16s(&i.user);
        p.i32s(&self.user_int);
        p.f32s(&self.user_float);
        p.out
    }
}

impl ImageHeader {
    /// Reads the packed header.
    pub fn decode(bytes: &[u8; IMAGE_HEADER_BYTES]) -> Self {
        let mut t = Take(bytes);
        Self {
            version: t.u16(),
            data_type: t.u16(),
            flags: t.u64(),
            measurement_uid: t.u32(),
            matrix_size: t.u16s(),
            field_of_view: t.f32s(),
            channels: t.u16(),
            position: t.f32s(),
            read_dir: t.f32s(),
            phase_dir: t.f32s(),
            slice_dir: t.f32s(),
            patient_table_position: t.f32s(),
            average: t.u16(),
            slice: t.u16(),
            contrast: t.u16(),
            phase: t.u16(),
            repetition: t.u16(),
            set: t.u16(),
            acquisition_time_stamp: t.u32(),
            physiology_time_stamp: t.u32s(),
            image_type: t.u16(),
            image_index: t.u16(),
            image_series_index: t.u16(),
            user_int: t.i32s(),
            user_float: t.f32s(),
            attribute_string_len: t.u32(),
        }
    }

    /// Writes the packed header.
    pub fn encode(&self) -> [u8; IMAGE_HEADER_BYTES] {
        let mut p = Put::new();
        p.u16(self.version);
        p.u16(self.data_type);
        p.u64(self.flags);
        p.u32(self.measurement_uid);
        p.u16s(&self.matrix_size);
        p.f32s(&self.field_of_view);
        p.u16(self.channels);
        p.f32s(&self.position);
        p.f32s(&self.read_dir);
        p.f32s(&self.phase_dir);
        p.f32s(&self.slice_dir);
        p.f32s(&self.patient_table_position);
        p.u16(self.average);
        p.u16(self.slice);
        p.u16(self.contrast);
        p.u16(self.phase);
        p.u16(self.repetition);
        p.u16(self.set);
        p.u32(self.acquisition_time_stamp);
        p.u32s(&self.physiology_time_stamp);
        p.u16(self.image_type);
        p.u16(self.image_index);
        p.u16(self.image_series_index);
        p.i32s(&self.user_int);
        p.f32s(&self.user_float);
        p.u32(self.attribute_string_len);
        p.out
    }
}

impl WaveformHeader {
    /// Reads the header; the C structure has six bytes of padding after `version` and two at the end.
    pub fn decode(bytes: &[u8; WAVEFORM_HEADER_BYTES]) -> Self {
        let mut t = Take(bytes);
        let version = t.u16();
        let _padding: [u8; 6] = t.bytes();
        Self {
            version,
            flags: t.u64(),
            measurement_uid: t.u32(),
            scan_counter: t.u32(),
            time_stamp: t.u32(),
            number_of_samples: t.u16(),
            channels: t.u16(),
            sample_time_us: t.f32(),
            waveform_id: t.u16(),
        }
    }

    /// Writes the header, padding as zeros.
    pub fn encode(&self) -> [u8; WAVEFORM_HEADER_BYTES] {
        let mut p = Put::new();
        p.u16(self.version);
        p.bytes([0; 6]);
        p.u64(self.flags);
        p.u32(self.measurement_uid);
        p.u32(self.scan_counter);
        p.u32(self.time_stamp);
        p.u16(self.number_of_samples);
        p.u16(self.channels);
        p.f32(self.sample_time_us);
        p.u16(self.waveform_id);
        p.out
    }
}

/// What a field of a fixed header is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    U16,
    U32,
    U64,
    I32,
    F32,
}

impl Kind {
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Kind::U16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 => 8,
        }
    }
}

/// A field of a fixed header: name, byte offset, kind, how many (0: a single value, not an array).
pub(crate) type Field = (&'static str, usize, Kind, usize);

/// `ISMRMRD_AcquisitionHeader` without its counters.
pub(crate) const ACQUISITION_FIELDS: &[Field] = &[
    ("version", 0, Kind::U16, 0),
    ("flags", 2, Kind::U64, 0),
    ("measurement_uid", 10, Kind::U32, 0),
    ("scan_counter", 14, Kind::U32, 0),
    ("acquisition_time_stamp", 18, Kind::U32, 0),
    ("physiology_time_stamp", 22, Kind::U32, 3),
    ("number_of_samples", 34, Kind::U16, 0),
    ("available_channels", 36, Kind::U16, 0),
    ("active_channels", 38, Kind::U16, 0),
    ("channel_mask", 40, Kind::U64, 16),
    ("discard_pre", 168, Kind::U16, 0),
    ("discard_post", 170, Kind::U16, 0),
    ("center_sample", 172, Kind::U16, 0),
    ("encoding_space_ref", 174, Kind::U16, 0),
    ("trajectory_dimensions", 176, Kind::U16, 0),
    ("sample_time_us", 178, Kind::F32, 0),
    ("position", 182, Kind::F32, 3),
    ("read_dir", 194, Kind::F32, 3),
    ("phase_dir", 206, Kind::F32, 3),
    ("slice_dir", 218, Kind::F32, 3),
    ("patient_table_position", 230, Kind::F32, 3),
    ("user_int", 276, Kind::I32, 8),
    ("user_float", 308, Kind::F32, 8),
];

/// Where the counters stand in the acquisition header, and how long they are.
#[cfg(any(test, feature = "hdf5"))]
pub(crate) const COUNTERS_OFFSET: usize = 242;
pub(crate) const COUNTERS_BYTES: usize = 34;

/// `ISMRMRD_EncodingCounters`.
pub(crate) const COUNTER_FIELDS: &[Field] = &[
    ("kspace_encode_step_1", 0, Kind::U16, 0),
    ("kspace_encode_step_2", 2, Kind::U16, 0),
    ("average", 4, Kind::U16, 0),
    ("slice", 6, Kind::U16, 0),
    ("contrast", 8, Kind::U16, 0),
    ("phase", 10, Kind::U16, 0),
    ("repetition", 12, Kind::U16, 0),
    ("set", 14, Kind::U16, 0),
    ("segment", 16, Kind::U16, 0),
    ("user", 18, Kind::U16, 8),
];

/// `ISMRMRD_ImageHeader`.
pub(crate) const IMAGE_FIELDS: &[Field] = &[
    ("version", 0, Kind::U16, 0),
    ("data_type", 2, Kind::U16, 0),
    ("flags", 4, Kind::U64, 0),
    ("measurement_uid", 12, Kind::U32, 0),
    ("matrix_size", 16, Kind::U16, 3),
    ("field_of_view", 22, Kind::F32, 3),
    ("channels", 34, Kind::U16, 0),
    ("position", 36, Kind::F32, 3),
    ("read_dir", 48, Kind::F32, 3),
    ("phase_dir", 60, Kind::F32, 3),
    ("slice_dir", 72, Kind::F32, 3),
    ("patient_table_position", 84, Kind::F32, 3),
    ("average", 96, Kind::U16, 0),
    ("slice", 98, Kind::U16, 0),
    ("contrast", 100, Kind::U16, 0),
    ("phase", 102, Kind::U16, 0),
    ("repetition", 104, Kind::U16, 0),
    ("set", 106, Kind::U16, 0),
    ("acquisition_time_stamp", 108, Kind::U32, 0),
    ("physiology_time_stamp", 112, Kind::U32, 3),
    ("image_type", 124, Kind::U16, 0),
    ("image_index", 126, Kind::U16, 0),
    ("image_series_index", 128, Kind::U16, 0),
    ("user_int", 130, Kind::I32, 8),
    ("user_float", 162, Kind::F32, 8),
    ("attribute_string_len", 194, Kind::U32, 0),
];

/// `ISMRMRD_WaveformHeader`, with its padding.
pub(crate) const WAVEFORM_FIELDS: &[Field] = &[
    ("version", 0, Kind::U16, 0),
    ("flags", 8, Kind::U64, 0),
    ("measurement_uid", 16, Kind::U32, 0),
    ("scan_counter", 20, Kind::U32, 0),
    ("time_stamp", 24, Kind::U32, 0),
    ("number_of_samples", 28, Kind::U16, 0),
    ("channels", 30, Kind::U16, 0),
    ("sample_time_us", 32, Kind::F32, 0),
    ("waveform_id", 36, Kind::U16, 0),
];

// Fields fill their header without gap or overlap (`padding` bytes excepted).
const fn filled(fields: &[Field]) -> usize {
    let mut sum = 0;
    let mut i = 0;
    while i < fields.len() {
        let (_, _, kind, count) = fields[i];
        sum += kind.bytes() * if count == 0 { 1 } else { count };
        i += 1;
    }
    sum
}
const _: () = assert!(filled(ACQUISITION_FIELDS) + COUNTERS_BYTES == ACQUISITION_HEADER_BYTES);
const _: () = assert!(filled(COUNTER_FIELDS) == COUNTERS_BYTES);
const _: () = assert!(filled(IMAGE_FIELDS) == IMAGE_HEADER_BYTES);
const _: () = assert!(filled(WAVEFORM_FIELDS) + 6 + 2 == WAVEFORM_HEADER_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that differ from their neighbours, so that a shifted or swapped field shows.
    fn pattern<const N: usize>() -> [u8; N] {
        core::array::from_fn(|i| u8::try_from((i * 37 + 11) % 251).unwrap())
    }

    /// A float's bits must survive; the pattern holds no signalling NaN (exponent bits are never all ones here).
    fn check<const N: usize>(
        fields: &[Field],
        decode_encode: impl Fn(&[u8; N]) -> [u8; N],
        got: &[(&str, u64)],
    ) {
        let bytes = pattern::<N>();
        let again = decode_encode(&bytes);
        for &(name, offset, kind, count) in fields {
            let end = offset + kind.bytes() * count.max(1);
            assert_eq!(again[offset..end], bytes[offset..end], "{name}");
            let mut first = [0_u8; 8];
            first[..kind.bytes()].copy_from_slice(&bytes[offset..offset + kind.bytes()]);
            let want = u64::from_le_bytes(first);
            let (_, value) = got
                .iter()
                .find(|(n, _)| *n == name)
                .unwrap_or_else(|| panic!("{name} not checked"));
            assert_eq!(*value, want, "{name} is not read from offset {offset}");
        }
    }

    fn f(v: f32) -> u64 {
        u64::from(v.to_bits())
    }
    fn i(v: i32) -> u64 {
        u64::from(v.cast_unsigned())
    }

    #[test]
    fn acquisition_header_fields_stand_at_their_offsets() {
        let h = AcquisitionHeader::decode(&pattern());
        let got = [
            ("version", h.version.into()),
            ("flags", h.flags),
            ("measurement_uid", h.measurement_uid.into()),
            ("scan_counter", h.scan_counter.into()),
            ("acquisition_time_stamp", h.acquisition_time_stamp.into()),
            ("physiology_time_stamp", h.physiology_time_stamp[0].into()),
            ("number_of_samples", h.number_of_samples.into()),
            ("available_channels", h.available_channels.into()),
            ("active_channels", h.active_channels.into()),
            ("channel_mask", h.channel_mask[0]),
            ("discard_pre", h.discard_pre.into()),
            ("discard_post", h.discard_post.into()),
            ("center_sample", h.center_sample.into()),
            ("encoding_space_ref", h.encoding_space_ref.into()),
            ("trajectory_dimensions", h.trajectory_dimensions.into()),
            ("sample_time_us", f(h.sample_time_us)),
            ("position", f(h.position[0])),
            ("read_dir", f(h.read_dir[0])),
            ("phase_dir", f(h.phase_dir[0])),
            ("slice_dir", f(h.slice_dir[0])),
            ("patient_table_position", f(h.patient_table_position[0])),
            ("user_int", i(h.user_int[0])),
            ("user_float", f(h.user_float[0])),
        ];
        check(
            ACQUISITION_FIELDS,
            |b| AcquisitionHeader::decode(b).encode(),
            &got,
        );
        let bytes = pattern::<ACQUISITION_HEADER_BYTES>();
        let c = h.idx;
        let counters = [
            c.kspace_encode_step_1,
            c.kspace_encode_step_2,
            c.average,
            c.slice,
            c.contrast,
            c.phase,
            c.repetition,
            c.set,
            c.segment,
            c.user[0],
        ];
        for (&(name, offset, ..), got) in COUNTER_FIELDS.iter().zip(counters) {
            let at = COUNTERS_OFFSET + offset;
            assert_eq!(
                got,
                u16::from_le_bytes([bytes[at], bytes[at + 1]]),
                "{name}"
            );
        }
        assert_eq!(AcquisitionHeader::decode(&bytes).encode(), bytes);
    }

    #[test]
    fn image_header_fields_stand_at_their_offsets() {
        let h = ImageHeader::decode(&pattern());
        let got = [
            ("version", h.version.into()),
            ("data_type", h.data_type.into()),
            ("flags", h.flags),
            ("measurement_uid", h.measurement_uid.into()),
            ("matrix_size", h.matrix_size[0].into()),
            ("field_of_view", f(h.field_of_view[0])),
            ("channels", h.channels.into()),
            ("position", f(h.position[0])),
            ("read_dir", f(h.read_dir[0])),
            ("phase_dir", f(h.phase_dir[0])),
            ("slice_dir", f(h.slice_dir[0])),
            ("patient_table_position", f(h.patient_table_position[0])),
            ("average", h.average.into()),
            ("slice", h.slice.into()),
            ("contrast", h.contrast.into()),
            ("phase", h.phase.into()),
            ("repetition", h.repetition.into()),
            ("set", h.set.into()),
            ("acquisition_time_stamp", h.acquisition_time_stamp.into()),
            ("physiology_time_stamp", h.physiology_time_stamp[0].into()),
            ("image_type", h.image_type.into()),
            ("image_index", h.image_index.into()),
            ("image_series_index", h.image_series_index.into()),
            ("user_int", i(h.user_int[0])),
            ("user_float", f(h.user_float[0])),
            ("attribute_string_len", h.attribute_string_len.into()),
        ];
        check(IMAGE_FIELDS, |b| ImageHeader::decode(b).encode(), &got);
    }

    #[test]
    fn waveform_header_fields_stand_at_their_offsets() {
        let h = WaveformHeader::decode(&pattern());
        let got = [
            ("version", h.version.into()),
            ("flags", h.flags),
            ("measurement_uid", h.measurement_uid.into()),
            ("scan_counter", h.scan_counter.into()),
            ("time_stamp", h.time_stamp.into()),
            ("number_of_samples", h.number_of_samples.into()),
            ("channels", h.channels.into()),
            ("sample_time_us", f(h.sample_time_us)),
            ("waveform_id", h.waveform_id.into()),
        ];
        check(
            WAVEFORM_FIELDS,
            |b| WaveformHeader::decode(b).encode(),
            &got,
        );
    }
}
