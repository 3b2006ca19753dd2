//! One image: header, meta attributes, voxels.

use num_complex::{Complex32, Complex64};

/// Length of the packed image header in files and on the wire, in bytes.
pub const IMAGE_HEADER_BYTES: usize = 198;

/// What the voxels are (`image_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[allow(missing_docs)]
pub enum ImageType {
    Magnitude = 1,
    Phase = 2,
    Real = 3,
    Imag = 4,
    Complex = 5,
}

/// The fixed part of an image (`ISMRMRD_ImageHeader`, 198 bytes packed, little-endian).
///
/// # Units
/// Lengths: mm, patient coordinates (LPS). Time stamps: vendor ticks.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct ImageHeader {
    pub version: u16,
    /// 1 u16, 2 i16, 3 u32, 4 i32, 5 f32, 6 f64, 7 complex64, 8 complex128.
    pub data_type: u16,
    pub flags: u64,
    pub measurement_uid: u32,
    /// x, y, z.
    pub matrix_size: [u16; 3],
    /// x, y, z in mm.
    pub field_of_view: [f32; 3],
    pub channels: u16,
    pub position: [f32; 3],
    pub read_dir: [f32; 3],
    pub phase_dir: [f32; 3],
    pub slice_dir: [f32; 3],
    pub patient_table_position: [f32; 3],
    pub average: u16,
    pub slice: u16,
    pub contrast: u16,
    pub phase: u16,
    pub repetition: u16,
    pub set: u16,
    pub acquisition_time_stamp: u32,
    pub physiology_time_stamp: [u32; 3],
    /// See [`ImageType`]; carried as found.
    pub image_type: u16,
    pub image_index: u16,
    pub image_series_index: u16,
    pub user_int: [i32; 8],
    pub user_float: [f32; 8],
    pub attribute_string_len: u32,
}

impl Default for ImageHeader {
    fn default() -> Self {
        Self {
            version: 1,
            data_type: 0,
            flags: 0,
            measurement_uid: 0,
            matrix_size: [0; 3],
            field_of_view: [0.0; 3],
            channels: 1,
            position: [0.0; 3],
            read_dir: [1.0, 0.0, 0.0],
            phase_dir: [0.0, 1.0, 0.0],
            slice_dir: [0.0, 0.0, 1.0],
            patient_table_position: [0.0; 3],
            average: 0,
            slice: 0,
            contrast: 0,
            phase: 0,
            repetition: 0,
            set: 0,
            acquisition_time_stamp: 0,
            physiology_time_stamp: [0; 3],
            image_type: 0,
            image_index: 0,
            image_series_index: 0,
            user_int: [0; 8],
            user_float: [0.0; 8],
            attribute_string_len: 0,
        }
    }
}

/// Voxels `[channel, z, y, x]`, x contiguous, in one of the eight types of the specification.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Pixels {
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    C32(Vec<Complex32>),
    C64(Vec<Complex64>),
}

/// An image with its meta attributes.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The fixed part; `data_type` and `attribute_string_len` are set from the fields below when written.
    pub head: ImageHeader,
    /// Meta attributes as XML text, byte for byte as found (see [`crate::Meta`]); may be empty.
    pub attributes: String,
    /// Voxels.
    pub pixels: Pixels,
}

impl Pixels {
    /// The specification's number of the type (`data_type`).
    pub fn data_type(&self) -> u16 {
        match self {
            Pixels::U16(_) => 1,
            Pixels::I16(_) => 2,
            Pixels::U32(_) => 3,
            Pixels::I32(_) => 4,
            Pixels::F32(_) => 5,
            Pixels::F64(_) => 6,
            Pixels::C32(_) => 7,
            Pixels::C64(_) => 8,
        }
    }

    /// Number of voxels.
    pub fn len(&self) -> usize {
        match self {
            Pixels::U16(v) => v.len(),
            Pixels::I16(v) => v.len(),
            Pixels::U32(v) => v.len(),
            Pixels::I32(v) => v.len(),
            Pixels::F32(v) => v.len(),
            Pixels::F64(v) => v.len(),
            Pixels::C32(v) => v.len(),
            Pixels::C64(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Image {
    /// Voxels that the header declares: `channels · z · y · x`.
    pub fn declared_len(head: &ImageHeader) -> u64 {
        let [x, y, z] = head.matrix_size.map(u64::from);
        u64::from(head.channels) * z * y * x
    }

    /// The header as it is written: `data_type` and `attribute_string_len` from the fields beside it.
    pub fn header_for_writing(&self) -> ImageHeader {
        ImageHeader {
            data_type: self.pixels.data_type(),
            attribute_string_len: u32::try_from(self.attributes.len()).unwrap_or(u32::MAX),
            ..self.head
        }
    }
}

/// An array of any rank, row-major: `[.., y, x]`, x contiguous.
#[derive(Clone, Debug, PartialEq)]
pub struct NdArray {
    /// Extent of each axis, slowest first.
    pub shape: Vec<usize>,
    /// Values.
    pub values: Pixels,
}

/// Names series so that each holds images or arrays of one size and type, as a file needs it: streams mix them.
///
/// The first of a name keeps it; another size or type under the same name becomes `NAME_2`, `NAME_3`, ...
#[derive(Clone, Debug, Default)]
pub struct SeriesNames {
    known: std::collections::BTreeMap<String, (Vec<usize>, u16)>,
}

impl SeriesNames {
    /// Name of the series that takes this image.
    pub fn image(&mut self, name: &str, image: &Image) -> String {
        let [x, y, z] = image.head.matrix_size.map(usize::from);
        let shape = vec![usize::from(image.head.channels), z, y, x];
        self.name(name, (shape, image.pixels.data_type()))
    }

    /// Name of the series that takes this array.
    pub fn array(&mut self, name: &str, array: &NdArray) -> String {
        self.name(name, (array.shape.clone(), array.values.data_type()))
    }

    fn name(&mut self, name: &str, like: (Vec<usize>, u16)) -> String {
        let mut unique = name.to_owned();
        let mut n = 1;
        while self.known.get(&unique).is_some_and(|k| *k != like) {
            n += 1;
            unique = format!("{name}_{n}");
        }
        self.known.insert(unique.clone(), like);
        unique
    }
}
