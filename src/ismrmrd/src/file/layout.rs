//! How ISMRMRD structures lie in HDF5 files: compound types by name, offset and kind.
//!
//! Structures cross the HDF5 library as plain byte arrays with a declared compound type over them, so
//! that the library converts whatever a writer chose (padding, field order, byte order) into the one
//! packed layout that [`crate::packed`] decodes.

use hdf5::types::{
    CompoundField, CompoundType, FloatSize, H5Type, IntSize, TypeDescriptor, VarLenArray,
};
use num_complex::Complex;

use crate::acquisition::ACQUISITION_HEADER_BYTES;
use crate::image::IMAGE_HEADER_BYTES;
use crate::packed::{
    ACQUISITION_FIELDS, COUNTER_FIELDS, COUNTERS_BYTES, COUNTERS_OFFSET, Field, IMAGE_FIELDS, Kind,
    WAVEFORM_FIELDS,
};
use crate::waveform::WAVEFORM_HEADER_BYTES;

/// An acquisition as the HDF5 library hands it over.
#[repr(C)]
pub(super) struct RawAcquisition {
    pub(super) head: [u8; ACQUISITION_HEADER_BYTES],
    pub(super) traj: VarLenArray<f32>,
    pub(super) data: VarLenArray<f32>,
}

/// A waveform as the HDF5 library hands it over.
#[repr(C)]
pub(super) struct RawWaveform {
    pub(super) head: [u8; WAVEFORM_HEADER_BYTES],
    pub(super) data: VarLenArray<u32>,
}

/// An image header as the HDF5 library hands it over.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct RawImageHeader(pub(super) [u8; IMAGE_HEADER_BYTES]);

/// A complex number under the member names of ISMRMRD: `real`, `imag`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Cx<T>(pub(super) Complex<T>);

/// The same under the names that h5py uses: `r`, `i`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct CxShort<T>(pub(super) Complex<T>);

fn compound(fields: Vec<CompoundField>, size: usize) -> TypeDescriptor {
    TypeDescriptor::Compound(CompoundType { fields, size })
}

fn described(fields: &[Field]) -> Vec<CompoundField> {
    let field = |(index, &(name, offset, kind, count)): (usize, &Field)| {
        let one = match kind {
            Kind::U16 => TypeDescriptor::Unsigned(IntSize::U2),
            Kind::U32 => TypeDescriptor::Unsigned(IntSize::U4),
            Kind::U64 => TypeDescriptor::Unsigned(IntSize::U8),
            Kind::I32 => TypeDescriptor::Integer(IntSize::U4),
            Kind::F32 => TypeDescriptor::Float(FloatSize::U4),
        };
        let ty = if count == 0 {
            one
        } else {
            TypeDescriptor::FixedArray(Box::new(one), count)
        };
        CompoundField::new(name, ty, offset, index)
    };
    fields.iter().enumerate().map(field).collect()
}

/// `ISMRMRD_AcquisitionHeader`, packed.
pub(super) fn acquisition_header() -> TypeDescriptor {
    let mut fields = described(ACQUISITION_FIELDS);
    let counters = compound(described(COUNTER_FIELDS), COUNTERS_BYTES);
    fields.push(CompoundField::new("idx", counters, COUNTERS_OFFSET, 0));
    fields.sort_by_key(|f| f.offset);
    for (index, field) in fields.iter_mut().enumerate() {
        field.index = index;
    }
    compound(fields, ACQUISITION_HEADER_BYTES)
}

/// `ISMRMRD_WaveformHeader`, with its padding.
pub(super) fn waveform_header() -> TypeDescriptor {
    compound(described(WAVEFORM_FIELDS), WAVEFORM_HEADER_BYTES)
}

fn vlen(of: TypeDescriptor) -> TypeDescriptor {
    TypeDescriptor::VarLenArray(Box::new(of))
}

// The obligation of `H5Type` is that the descriptor is the memory layout of the type, without a member
// whose bytes could be an invalid value. Byte arrays and `VarLenArray` take any bytes the library writes.

// SAFETY: `repr(C)`; the offsets are taken from the compiler, and `head` is plain bytes of the packed layout.
#[allow(unsafe_code)]
unsafe impl H5Type for RawAcquisition {
    fn type_descriptor() -> TypeDescriptor {
        let f32s = vlen(TypeDescriptor::Float(FloatSize::U4));
        let fields = vec![
            CompoundField::new(
                "head",
                acquisition_header(),
                core::mem::offset_of!(Self, head),
                0,
            ),
            CompoundField::new("traj", f32s.clone(), core::mem::offset_of!(Self, traj), 1),
            CompoundField::new("data", f32s, core::mem::offset_of!(Self, data), 2),
        ];
        compound(fields, size_of::<Self>())
    }
}

// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl H5Type for RawWaveform {
    fn type_descriptor() -> TypeDescriptor {
        let u32s = vlen(TypeDescriptor::Unsigned(IntSize::U4));
        let fields = vec![
            CompoundField::new(
                "head",
                waveform_header(),
                core::mem::offset_of!(Self, head),
                0,
            ),
            CompoundField::new("data", u32s, core::mem::offset_of!(Self, data), 1),
        ];
        compound(fields, size_of::<Self>())
    }
}

// SAFETY: `repr(transparent)` over the bytes of the packed layout.
#[allow(unsafe_code)]
unsafe impl H5Type for RawImageHeader {
    fn type_descriptor() -> TypeDescriptor {
        compound(described(IMAGE_FIELDS), IMAGE_HEADER_BYTES)
    }
}

macro_rules! complex {
    ($wrapper:ident, $t:ty, $size:ident, $re:literal, $im:literal) => {
        // SAFETY: `Complex<T>` is `repr(C)` with `re` before `im`; the wrapper is transparent.
        #[allow(unsafe_code)]
        unsafe impl H5Type for $wrapper<$t> {
            fn type_descriptor() -> TypeDescriptor {
                let part = TypeDescriptor::Float(FloatSize::$size);
                let fields = vec![
                    CompoundField::new($re, part.clone(), 0, 0),
                    CompoundField::new($im, part, size_of::<$t>(), 1),
                ];
                compound(fields, 2 * size_of::<$t>())
            }
        }
    };
}
complex!(Cx, f32, U4, "real", "imag");
complex!(Cx, f64, U8, "real", "imag");
complex!(CxShort, f32, U4, "r", "i");
complex!(CxShort, f64, U8, "r", "i");

/// Names in `needed` that `found` lacks, with their paths. A compound read with a member missing would
/// leave that member's memory as it was.
pub(super) fn missing_members(
    needed: &TypeDescriptor,
    found: &TypeDescriptor,
    path: &str,
) -> Vec<String> {
    let TypeDescriptor::Compound(needed) = needed else {
        return Vec::new();
    };
    let TypeDescriptor::Compound(found) = found else {
        return vec![format!("{path}: not a structure")];
    };
    let mut missing = Vec::new();
    for field in &needed.fields {
        let path = if path.is_empty() {
            field.name.clone()
        } else {
            format!("{path}.{}", field.name)
        };
        match found.fields.iter().find(|f| f.name == field.name) {
            Some(have) => missing.extend(missing_members(&field.ty, &have.ty, &path)),
            None => missing.push(path),
        }
    }
    missing
}

/// Whether two descriptions are the same bytes: fields compared by offset, not by the order of listing.
pub(super) fn same_bytes(a: &TypeDescriptor, b: &TypeDescriptor) -> bool {
    match (a, b) {
        (TypeDescriptor::Compound(a), TypeDescriptor::Compound(b)) => {
            a.size == b.size
                && a.fields.len() == b.fields.len()
                && a.fields.iter().all(|f| {
                    b.fields.iter().any(|g| {
                        f.name == g.name && f.offset == g.offset && same_bytes(&f.ty, &g.ty)
                    })
                })
        }
        _ => a == b,
    }
}
