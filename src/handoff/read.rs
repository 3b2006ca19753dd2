//! Reads images back for comparison: `.npy`, NIfTI, BART `.cfl`, ISMRMRD image files, DICOM files and folders.

use std::{
    fs::{self, File},
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use super::HandoffError;
use crate::data::{Complex32, Complex64};

/// An array of voxels of whatever origin.
///
/// # Shapes
/// The last three axes are z, y, x (rows and columns for DICOM); in front of them stand whatever axes the file has
/// beyond those, slowest first, without leading axes of extent 1. So the same images come out with the same shape from
/// every format. DICOM is read as displayed, so its rows and columns may be turned against the others.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageArray {
    /// Extents, slowest first; at least three.
    pub dims: Vec<usize>,
    /// Voxels with every scaling of the file applied; imaginary parts are 0 when the file holds real numbers.
    pub voxels: Vec<Complex32>,
    /// Whether the file holds complex numbers.
    pub is_complex: bool,
}

impl ImageArray {
    fn new(
        path: &Path,
        dims: &[usize],
        voxels: Vec<Complex32>,
        is_complex: bool,
    ) -> Result<Self, HandoffError> {
        let n = dims.iter().product::<usize>();
        if n != voxels.len() || n == 0 {
            return Err(HandoffError::read(
                path,
                format!("{} voxels", voxels.len()),
                format!("at least one, and as many as the extents {dims:?} say"),
            ));
        }
        let start = dims
            .iter()
            .take_while(|n| **n == 1)
            .count()
            .min(dims.len().saturating_sub(3));
        let mut dims = dims[start..].to_vec();
        while dims.len() < 3 {
            dims.insert(0, 1);
        }
        Ok(Self {
            dims,
            voxels,
            is_complex,
        })
    }
}

/// Reads an image file, or a folder of DICOM slices.
///
/// # Errors
/// [`HandoffError::Io`]; [`HandoffError::Read`] says what stands in the file and what was needed;
/// [`HandoffError::UnknownFormat`] for an ending that is not read (PNG among them: its values are windowed).
pub fn read_image(path: &Path) -> Result<ImageArray, HandoffError> {
    if path.is_dir() {
        return dicom_folder(path);
    }
    let name = path.to_string_lossy().to_lowercase();
    let ends = |ending: &str| name.ends_with(ending);
    if ends(".npy") {
        npy(path)
    } else if ends(".nii") || ends(".nii.gz") {
        nifti(path)
    } else if ends(".cfl") || ends(".hdr") {
        cfl(path)
    } else if ends(".h5") || ends(".mrd") || ends(".hdf5") {
        mrd(path)
    } else if ends(".dcm") || ends(".ima") {
        dicom_files(path, vec![path.to_path_buf()])
    } else {
        Err(HandoffError::read(
            path,
            "an ending that is not read as images",
            ".npy, .nii, .nii.gz, .cfl, .h5, .dcm, or a folder of .dcm files",
        ))
    }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> HandoffError + '_ {
    move |source| HandoffError::io("reading", path, source)
}

/// Number types of `.npy` and NIfTI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    C32,
    C64,
}

impl Type {
    fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::C32 => 8,
            Self::C64 => 16,
        }
    }

    fn is_complex(self) -> bool {
        matches!(self, Self::C32 | Self::C64)
    }

    fn decode(self, bytes: &[u8], is_big_endian: bool) -> Vec<Complex64> {
        let real = |b: &[u8]| -> f64 {
            let mut le = [0_u8; 8];
            for (i, byte) in b.iter().enumerate() {
                le[if is_big_endian { b.len() - 1 - i } else { i }] = *byte;
            }
            let [a, b1, c, d, ..] = le;
            match self {
                Self::U8 => f64::from(a),
                Self::I8 => f64::from(a as i8),
                Self::U16 => f64::from(u16::from_le_bytes([a, b1])),
                Self::I16 => f64::from(i16::from_le_bytes([a, b1])),
                Self::U32 => f64::from(u32::from_le_bytes([a, b1, c, d])),
                Self::I32 => f64::from(i32::from_le_bytes([a, b1, c, d])),
                Self::U64 => u64::from_le_bytes(le) as f64,
                Self::I64 => i64::from_le_bytes(le) as f64,
                Self::F32 | Self::C32 => f64::from(f32::from_le_bytes([a, b1, c, d])),
                Self::F64 | Self::C64 => f64::from_le_bytes(le),
            }
        };
        bytes
            .chunks_exact(self.bytes())
            .map(|b| {
                if self.is_complex() {
                    let (re, im) = b.split_at(b.len() / 2);
                    Complex64::new(real(re), real(im))
                } else {
                    Complex64::new(real(b), 0.0)
                }
            })
            .collect()
    }
}

fn to_c32(v: Complex64) -> Complex32 {
    Complex32::new(v.re as f32, v.im as f32)
}

/// Product of extents, refused when it overflows or exceeds `limit` voxels (what the file can hold).
fn count(path: &Path, dims: &[usize], limit: Option<u64>) -> Result<usize, HandoffError> {
    dims.iter()
        .try_fold(1_usize, |n, d| n.checked_mul(*d))
        .filter(|n| limit.is_none_or(|limit| *n as u64 <= limit))
        .ok_or_else(|| {
            HandoffError::read(
                path,
                format!("extents {dims:?}"),
                match limit {
                    Some(limit) => {
                        format!("at most {limit} voxels, which is what the file's size allows")
                    }
                    None => "extents whose product is a number".into(),
                },
            )
        })
}

/// Exactly `n` bytes; memory grows with what arrives, not with what was announced.
fn exactly(path: &Path, reader: impl Read, n: usize) -> Result<Vec<u8>, HandoffError> {
    let mut bytes = Vec::new();
    reader
        .take(n as u64)
        .read_to_end(&mut bytes)
        .map_err(io(path))?;
    if bytes.len() < n {
        return Err(HandoffError::read(
            path,
            format!("{} bytes of voxels, then the end", bytes.len()),
            format!("{n} bytes, as the header says"),
        ));
    }
    Ok(bytes)
}

fn npy(path: &Path) -> Result<ImageArray, HandoffError> {
    let mut file = BufReader::new(File::open(path).map_err(io(path))?);
    let size = file.get_ref().metadata().map_err(io(path))?.len();
    let start = exactly(path, &mut file, 10)?;
    if !start.starts_with(b"\x93NUMPY") {
        return Err(HandoffError::read(
            path,
            "no NumPy file",
            "the magic word \\x93NUMPY",
        ));
    }
    let mut len = usize::from(u16::from_le_bytes([start[8], start[9]]));
    if start[6] > 1 {
        let more = exactly(path, &mut file, 2)?;
        len += usize::from(u16::from_le_bytes([more[0], more[1]])) << 16;
    }
    let header = exactly(path, &mut file, len.min(1 << 20))?;
    let header = String::from_utf8_lossy(&header).into_owned();
    let bad = |needed: &str| HandoffError::read(path, format!("the header {header:?}"), needed);
    let after = |key: &str| {
        header
            .split_once(&format!("'{key}':"))
            .map(|(_, rest)| rest.trim_start())
    };
    let descr = after("descr")
        .and_then(|rest| rest.strip_prefix('\''))
        .and_then(|rest| rest.split_once('\''))
        .map(|(descr, _)| descr)
        .ok_or_else(|| bad("a 'descr' of one number type"))?;
    let kind = match descr.trim_start_matches(['<', '>', '|', '=']) {
        "u1" | "b1" => Type::U8,
        "i1" => Type::I8,
        "u2" => Type::U16,
        "i2" => Type::I16,
        "u4" => Type::U32,
        "i4" => Type::I32,
        "u8" => Type::U64,
        "i8" => Type::I64,
        "f4" => Type::F32,
        "f8" => Type::F64,
        "c8" => Type::C32,
        "c16" => Type::C64,
        _ => return Err(bad("a 'descr' of integers, f4, f8, c8 or c16")),
    };
    let is_fortran = after("fortran_order").is_some_and(|rest| rest.starts_with("True"));
    let shape = after("shape")
        .and_then(|rest| rest.strip_prefix('('))
        .and_then(|rest| rest.split_once(')'))
        .map(|(shape, _)| shape)
        .ok_or_else(|| bad("a 'shape'"))?;
    let mut dims = Vec::new();
    for part in shape.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        dims.push(
            part.parse::<usize>()
                .map_err(|_| bad("a 'shape' of numbers"))?,
        );
    }
    let n = count(path, &dims, Some(size / kind.bytes() as u64))?;
    let bytes = exactly(path, &mut file, n * kind.bytes())?;
    let mut values = kind.decode(&bytes, descr.starts_with('>'));
    if is_fortran {
        values = fastest_last(&values, &dims);
    }
    ImageArray::new(
        path,
        &dims,
        values.into_iter().map(to_c32).collect(),
        kind.is_complex(),
    )
}

/// Brings an array stored with its first axis fastest into row-major order.
fn fastest_last<T: Copy>(values: &[T], dims: &[usize]) -> Vec<T> {
    let mut strides = vec![1_usize; dims.len()];
    for i in 1..dims.len() {
        strides[i] = strides[i - 1] * dims[i - 1];
    }
    permuted(values, dims, &strides)
}

/// Gathers `[dims]` in row-major order from places `sum(index · stride)`.
fn permuted<T: Copy>(values: &[T], dims: &[usize], strides: &[usize]) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len());
    let mut index = vec![0_usize; dims.len()];
    let n = dims.iter().product();
    while out.len() < n {
        out.push(values[index.iter().zip(strides).map(|(i, s)| i * s).sum::<usize>()]);
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            if index[axis] < dims[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

fn nifti(path: &Path) -> Result<ImageArray, HandoffError> {
    let mut file = BufReader::new(File::open(path).map_err(io(path))?);
    let size = file.get_ref().metadata().map_err(io(path))?.len();
    let mut magic = [0_u8; 2];
    let n = file.read(&mut magic).map_err(io(path))?;
    let is_gzip = n == 2 && magic == [0x1f, 0x8b];
    let file = magic[..n].chain(file);
    if is_gzip {
        nifti_from(path, flate2::bufread::MultiGzDecoder::new(file), None)
    } else {
        nifti_from(path, file, Some(size))
    }
}

fn nifti_from(
    path: &Path,
    mut reader: impl Read,
    size: Option<u64>,
) -> Result<ImageArray, HandoffError> {
    let h = exactly(path, &mut reader, 348)?;
    let is_big = match [h[0], h[1], h[2], h[3]] {
        [0x5c, 1, 0, 0] => false,
        [0, 0, 1, 0x5c] => true,
        other => {
            return Err(HandoffError::read(
                path,
                format!("first bytes {other:?}"),
                "a NIfTI-1 header (348 in the first four bytes); NIfTI-2 is not read",
            ));
        }
    };
    if &h[344..347] != b"n+1" {
        return Err(HandoffError::read(
            path,
            format!("magic word {:?}", String::from_utf8_lossy(&h[344..347])),
            "n+1: voxels in the same file",
        ));
    }
    let i16_at = |at: usize| {
        let b = [h[at], h[at + 1]];
        if is_big {
            i16::from_be_bytes(b)
        } else {
            i16::from_le_bytes(b)
        }
    };
    let f32_at = |at: usize| {
        let b = [h[at], h[at + 1], h[at + 2], h[at + 3]];
        f64::from(if is_big {
            f32::from_be_bytes(b)
        } else {
            f32::from_le_bytes(b)
        })
    };
    let n_dims = i16_at(40);
    if !(1..=7).contains(&n_dims) {
        return Err(HandoffError::read(
            path,
            format!("{n_dims} axes"),
            "1 to 7 axes",
        ));
    }
    let mut dims = Vec::new();
    for i in (1..=n_dims as usize).rev() {
        let n = i16_at(40 + 2 * i);
        dims.push(usize::try_from(n).ok().filter(|n| *n > 0).ok_or_else(|| {
            HandoffError::read(path, format!("an extent of {n}"), "positive extents")
        })?);
    }
    let kind = match i16_at(70) {
        2 => Type::U8,
        256 => Type::I8,
        4 => Type::I16,
        512 => Type::U16,
        8 => Type::I32,
        768 => Type::U32,
        1024 => Type::I64,
        1280 => Type::U64,
        16 => Type::F32,
        64 => Type::F64,
        32 => Type::C32,
        1792 => Type::C64,
        other => {
            return Err(HandoffError::read(
                path,
                format!("data type {other}"),
                "integers, floats or complex numbers (not RGB, not 128-bit)",
            ));
        }
    };
    let offset = f32_at(108);
    if !(348.0..=1e9).contains(&offset) {
        return Err(HandoffError::read(
            path,
            format!("vox_offset {offset}"),
            "at least 352",
        ));
    }
    exactly(path, &mut reader, offset as usize - 348)?;
    let n = count(path, &dims, size.map(|s| s / kind.bytes() as u64))?;
    let n_bytes = n.checked_mul(kind.bytes()).ok_or_else(|| {
        HandoffError::read(
            path,
            format!("extents {dims:?}"),
            "extents whose product is a number",
        )
    })?;
    let bytes = exactly(path, &mut reader, n_bytes)?;
    let (slope, intercept) = (f32_at(112), f32_at(116));
    let is_scaled = slope != 0.0 && slope.is_finite() && intercept.is_finite();
    let voxels = kind
        .decode(&bytes, is_big)
        .into_iter()
        .map(|v| to_c32(if is_scaled { v * slope + intercept } else { v }))
        .collect();
    ImageArray::new(path, &dims, voxels, kind.is_complex())
}

fn cfl(path: &Path) -> Result<ImageArray, HandoffError> {
    let (hdr, cfl) = (path.with_extension("hdr"), path.with_extension("cfl"));
    let text = fs::read_to_string(&hdr).map_err(io(&hdr))?;
    let line = text
        .split_once("# Dimensions")
        .map_or(text.as_str(), |(_, rest)| rest)
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with('#'))
        .unwrap_or("");
    let mut dims = Vec::new();
    for word in line.split_whitespace() {
        dims.push(
            word.parse::<usize>()
                .ok()
                .filter(|n| *n > 0)
                .ok_or_else(|| {
                    HandoffError::read(
                        &hdr,
                        format!("the extents {line:?}"),
                        "positive whole numbers",
                    )
                })?,
        );
    }
    dims.resize(dims.len().max(16), 1);
    let size = fs::metadata(&cfl).map_err(io(&cfl))?.len();
    let n = count(&cfl, &dims, Some(size / 8))?;
    let bytes = exactly(&cfl, File::open(&cfl).map_err(io(&cfl))?, n * 8)?;
    let values = Type::C32.decode(&bytes, false);
    // All other axes in front, slowest first, then slice and partition as one, then phase and read.
    let mut strides = vec![1_usize; dims.len()];
    for i in 1..dims.len() {
        strides[i] = strides[i - 1] * dims[i - 1];
    }
    let mut axes: Vec<usize> = (3..dims.len())
        .rev()
        .filter(|a| *a != 13 && dims[*a] > 1)
        .collect();
    let mut out_dims: Vec<usize> = axes.iter().map(|a| dims[*a]).collect();
    out_dims.extend([dims[13] * dims[2], dims[1], dims[0]]);
    axes.extend([13, 2, 1, 0]);
    let picked: Vec<usize> = axes.iter().map(|a| dims[*a]).collect();
    let steps: Vec<usize> = axes.iter().map(|a| strides[*a]).collect();
    let values = permuted(&values, &picked, &steps);
    ImageArray::new(
        path,
        &out_dims,
        values.into_iter().map(to_c32).collect(),
        true,
    )
}

/// The first image series of an ISMRMRD file (`image_1` if there is one), frames in front of slices.
fn mrd(path: &Path) -> Result<ImageArray, HandoffError> {
    use ismrmrd::{Limits, Pixels, file::File};
    let file = File::open(path, Limits::default())?;
    let groups = file.groups()?;
    let Some((group, series)) = groups
        .iter()
        .flat_map(|g| {
            g.images
                .iter()
                .map(move |i| (g.name.as_str(), i.name.as_str()))
        })
        .min_by_key(|(group, series)| (*series != "image_1", *group != "dataset"))
    else {
        return Err(HandoffError::read(
            path,
            "no image series",
            "an ISMRMRD file with images",
        ));
    };
    let mut images = file.images(group, series)?;
    let height = |i: &ismrmrd::Image| {
        let h = &i.head;
        (0..3).map(|k| h.position[k] * h.slice_dir[k]).sum::<f32>()
    };
    let frame = |i: &ismrmrd::Image| {
        let h = &i.head;
        (h.contrast, h.set, h.average, h.repetition, h.phase)
    };
    images.sort_by(|a, b| {
        frame(a)
            .cmp(&frame(b))
            .then(height(a).total_cmp(&height(b)))
            .then(a.head.slice.cmp(&b.head.slice))
    });
    let Some(first) = images.first().map(|i| i.head) else {
        return Err(HandoffError::read(
            path,
            "an empty image series",
            "at least one image",
        ));
    };
    let n_frames = images.chunk_by(|a, b| frame(a) == frame(b)).count();
    let [nx, ny, nz] = first.matrix_size.map(usize::from);
    let n_channels = usize::from(first.channels).max(1);
    let mut voxels = Vec::new();
    let mut is_complex = false;
    for image in &images {
        let real = |v: f64| Complex32::new(v as f32, 0.0);
        match &image.pixels {
            Pixels::U16(v) => voxels.extend(v.iter().map(|v| real(f64::from(*v)))),
            Pixels::I16(v) => voxels.extend(v.iter().map(|v| real(f64::from(*v)))),
            Pixels::U32(v) => voxels.extend(v.iter().map(|v| real(f64::from(*v)))),
            Pixels::I32(v) => voxels.extend(v.iter().map(|v| real(f64::from(*v)))),
            Pixels::F32(v) => voxels.extend(v.iter().map(|v| Complex32::new(*v, 0.0))),
            Pixels::F64(v) => voxels.extend(v.iter().map(|v| real(*v))),
            Pixels::C32(v) => {
                is_complex = true;
                voxels.extend_from_slice(v);
            }
            Pixels::C64(v) => {
                is_complex = true;
                voxels.extend(v.iter().map(|v| to_c32(*v)));
            }
        }
    }
    let n = images.len();
    let dims = if n_channels == 1 && nz == 1 && n % n_frames == 0 {
        vec![n_frames, n / n_frames, ny, nx]
    } else if n_channels == 1 {
        vec![n, nz, ny, nx]
    } else {
        vec![n, n_channels, nz, ny, nx]
    };
    ImageArray::new(path, &dims, voxels, is_complex)
}

fn dicom_folder(folder: &Path) -> Result<ImageArray, HandoffError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path();
        if path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("dcm"))
        {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(HandoffError::read(
            folder,
            "no .dcm file",
            "a folder of DICOM slices",
        ));
    }
    dicom_files(folder, files)
}

fn dicom_files(path: &Path, files: Vec<PathBuf>) -> Result<ImageArray, HandoffError> {
    use dicom_core::Tag;
    use dicom_dictionary_std::tags;
    let mut slices = Vec::new();
    let mut series: Option<String> = None;
    let mut size = None;
    for file in files {
        let fault = |found: String, needed: &str| HandoffError::read(&file, found, needed);
        let object = dicom_object::open_file(&file)
            .map_err(|e| fault(format!("no DICOM object ({e})"), "a DICOM file"))?;
        let text = |tag: Tag| {
            object
                .element(tag)
                .ok()
                .and_then(|e| e.to_str().ok().map(|s| s.trim().to_owned()))
        };
        let number = |tag: Tag| text(tag).and_then(|t| t.parse::<f64>().ok());
        let uid = text(tags::SERIES_INSTANCE_UID).unwrap_or_default();
        if series.get_or_insert_with(|| uid.clone()) != &uid {
            return Err(HandoffError::read(
                path,
                "more than one DICOM series",
                "one series: give a folder that holds only one, or a single file",
            ));
        }
        let extent = |tag: Tag| {
            object
                .element(tag)
                .ok()
                .and_then(|e| e.to_int::<usize>().ok())
        };
        let (Some(rows), Some(columns)) = (extent(tags::ROWS), extent(tags::COLUMNS)) else {
            return Err(fault("no rows and columns".into(), "a DICOM image"));
        };
        if *size.get_or_insert((rows, columns)) != (rows, columns) {
            return Err(fault(
                format!("{rows} x {columns} pixels"),
                "the size of the other slices",
            ));
        }
        let is_plain =
            extent(tags::BITS_ALLOCATED) == Some(16) && extent(tags::SAMPLES_PER_PIXEL) == Some(1);
        let is_signed = extent(tags::PIXEL_REPRESENTATION) == Some(1);
        let pixels = object
            .element(tags::PIXEL_DATA)
            .ok()
            .filter(|_| is_plain)
            .and_then(|e| e.to_multi_int::<u16>().ok())
            .ok_or_else(|| {
                fault(
                    "pixels in another form".into(),
                    "uncompressed 16-bit grey pixels",
                )
            })?;
        let (slope, intercept) = rescale(&object, &number);
        let voxels: Vec<Complex32> = pixels
            .into_iter()
            .map(|stored| {
                let stored = if is_signed {
                    f64::from(stored as i16)
                } else {
                    f64::from(stored)
                };
                Complex32::new((stored * slope + intercept) as f32, 0.0)
            })
            .collect();
        slices.push((number(tags::INSTANCE_NUMBER).unwrap_or(0.0), voxels));
    }
    slices.sort_by(|a, b| a.0.total_cmp(&b.0));
    let voxels: Vec<Complex32> = slices.into_iter().flat_map(|(_, v)| v).collect();
    let (rows, columns) = size.unwrap_or((0, 0));
    let n = voxels.len() / (rows * columns).max(1);
    ImageArray::new(path, &[n, rows, columns], voxels, false)
}

/// Slope and intercept, at the top or in the shared functional groups.
fn rescale(
    object: &dicom_object::DefaultDicomObject,
    number: &impl Fn(dicom_core::Tag) -> Option<f64>,
) -> (f64, f64) {
    use dicom_dictionary_std::tags;
    let shared = |tag: dicom_core::Tag| -> Option<f64> {
        let groups = object
            .element(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE)
            .ok()?
            .items()?
            .first()?;
        let item = groups
            .element(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE)
            .ok()?
            .items()?
            .first()?;
        item.element(tag).ok()?.to_float64().ok()
    };
    let value = |tag| number(tag).or_else(|| shared(tag));
    (
        value(tags::RESCALE_SLOPE).unwrap_or(1.0),
        value(tags::RESCALE_INTERCEPT).unwrap_or(0.0),
    )
}
