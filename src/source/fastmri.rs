//! fastMRI `.h5`: `kspace [slice, coil, ro, pe1]` (or `[slice, ro, pe1]`), `ismrmrd_header`, for test sets a `mask`.
//!
//! The readout is the *second to last* axis, so lines are gathered across rows. Lines that are exactly zero in all coils,
//! or that the mask leaves out, are not emitted. The header counts lines from its own first line; the array is padded so
//! that the centre of k-space is at `n/2`, and counters are the header's. Positions were removed by the data set's
//! makers: slices are laid out one thickness apart, axial, and a mark says so.
//!
//! # Source
//! fastMRI's data description and loader (`fastmri/data/mri_data.py`, MIT): `padding_left = matrix_y / 2 - center`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ismrmrd::acquisition::AcquisitionRef;
use ismrmrd::{Acquisition, AcquisitionFlag, AcquisitionHeader, Header, header as xml};
use num_complex::Complex32;

use super::{OpenOptions, Parts, Readouts, SourceError, Visit, hdf5 as h5};
use crate::data::Note;

#[allow(unsafe_code)] // the derive's `unsafe impl H5Type`: repr(C), two f32, no padding
mod sample {
    /// One sample as h5py stores NumPy's complex64.
    #[derive(Clone, Copy, Debug, Default, PartialEq, hdf5::H5Type)]
    #[repr(C)]
    pub(crate) struct Sample {
        pub(crate) r: f32,
        pub(crate) i: f32,
    }
}
pub(crate) use sample::Sample;

/// Samples that a file can hold per byte: zlib's limit, rounded up.
const MAX_RATIO: u64 = 1100;

struct FastMri {
    path: PathBuf,
    set: hdf5::Dataset,
    shape: [usize; 4],
    mask: Option<Vec<bool>>,
    /// Counter of array column 0.
    first_counter: i64,
    slice_mm: f32,
    count: u64,
}

impl FastMri {
    /// All samples of one slice, `[coil, ro, pe1]`.
    fn slice(&self, slice: usize) -> Result<Vec<Sample>, SourceError> {
        let read = if self.set.ndim() == 4 {
            self.set
                .read_slice::<Sample, _, ndarray::Ix3>(ndarray::s![slice, .., .., ..])
                .map(|a| a.into_raw_vec_and_offset().0)
        } else {
            self.set
                .read_slice::<Sample, _, ndarray::Ix2>(ndarray::s![slice, .., ..])
                .map(|a| a.into_raw_vec_and_offset().0)
        };
        read.map_err(|e| {
            SourceError::malformed(
                &self.path,
                format!("kspace, slice {slice}"),
                e.to_string(),
                "readable samples (complex, members r and i)",
                "the copy was cut short: copy the file again",
            )
        })
    }

    fn is_measured(&self, samples: &[Sample], column: usize) -> bool {
        let [_, coils, ro, pe] = self.shape;
        self.mask.as_ref().is_none_or(|m| m[column])
            && (0..coils * ro).any(|row| samples[row * pe + column] != Sample::default())
    }

    fn readouts(&self, slice: usize, first_number: u64) -> Result<Vec<Acquisition>, SourceError> {
        let [slices, coils, ro, pe] = self.shape;
        let samples = self.slice(slice)?;
        let columns: Vec<usize> = (0..pe).filter(|&c| self.is_measured(&samples, c)).collect();
        let mut readouts = Vec::with_capacity(columns.len());
        for (i, &column) in columns.iter().enumerate() {
            let mut head = AcquisitionHeader {
                scan_counter: (first_number as usize + i) as u32,
                number_of_samples: ro as u16,
                available_channels: coils as u16,
                active_channels: coils as u16,
                center_sample: (ro / 2) as u16,
                ..Default::default()
            };
            for coil in 0..coils.min(1024) {
                head.channel_mask[coil / 64] |= 1 << (coil % 64);
            }
            head.position[2] = (slice as f32 - (slices as f32 - 1.0) / 2.0) * self.slice_mm;
            head.idx.slice = slice as u16;
            head.idx.kspace_encode_step_1 = (column as i64 + self.first_counter).max(0) as u16;
            if i == 0 {
                head.set(AcquisitionFlag::FirstInSlice);
            }
            if i + 1 == columns.len() {
                head.set(AcquisitionFlag::LastInSlice);
                if slice + 1 == slices {
                    head.set(AcquisitionFlag::LastInMeasurement);
                }
            }
            let data = (0..coils * ro)
                .map(|row| {
                    let s = samples[row * pe + column];
                    Complex32::new(s.r, s.i)
                })
                .collect();
            readouts.push(Acquisition {
                head,
                traj: Vec::new(),
                data,
            });
        }
        Ok(readouts)
    }
}

impl Readouts for FastMri {
    fn count(&self) -> u64 {
        self.count
    }

    fn for_each_batch(&mut self, visit: &mut Visit<'_>) -> Result<(), SourceError> {
        let mut number = 0;
        for slice in 0..self.shape[0] {
            let readouts = self.readouts(slice, number)?;
            number += readouts.len() as u64;
            let refs: Vec<AcquisitionRef<'_>> = readouts.iter().map(Acquisition::as_ref).collect();
            if let ControlFlow::Break(()) = visit(&refs) {
                break;
            }
        }
        Ok(())
    }
}

fn mask(path: &Path, file: &hdf5::File, pe: usize) -> Result<Option<Vec<bool>>, SourceError> {
    let Ok(set) = file.dataset("mask") else {
        return Ok(None);
    };
    let list: Option<Vec<bool>> = set
        .read_raw::<bool>()
        .or_else(|_| {
            set.read_raw::<f32>()
                .map(|v| v.into_iter().map(|m| m != 0.0).collect())
        })
        .ok();
    match list {
        Some(list) if list.len() == pe => Ok(Some(list)),
        other => Err(SourceError::malformed(
            path,
            "data set mask",
            other.map_or("values of another type".into(), |l| {
                format!("{} values", l.len())
            }),
            format!("{pe} values, one per line of kspace"),
            "remove the mask or write it again",
        )),
    }
}

pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<Parts, SourceError> {
    let file = h5::open(path)?;
    let bad = |found: String, needed: &str| {
        SourceError::malformed(
            path,
            "data set kspace",
            found,
            needed,
            "write k-space as fastMRI does, or convert it to ISMRMRD",
        )
    };
    let set = file
        .dataset("kspace")
        .map_err(|e| bad(e.to_string(), "a data set"))?;
    let shape = match set.shape()[..] {
        [slices, coils, ro, pe] => [slices, coils, ro, pe],
        [slices, ro, pe] => [slices, 1, ro, pe],
        ref other => {
            return Err(bad(
                format!("shape {other:?}"),
                "[slice, coil, ro, pe1] or [slice, ro, pe1]",
            ));
        }
    };
    if shape.iter().any(|&n| n == 0 || n > usize::from(u16::MAX))
        || shape[1] > options.limits.channels
    {
        return Err(bad(
            format!("shape {shape:?}"),
            "extents of 1 to 65535, and no more coils than the limit",
        ));
    }
    // A file cannot hold fewer bytes than its samples unless they are compressed; a sparse data set may declare any size.
    let slice_bytes = shape[1]
        .saturating_mul(shape[2])
        .saturating_mul(shape[3])
        .saturating_mul(8);
    if slice_bytes > options.limits.image_bytes {
        return Err(SourceError::TooLarge {
            path: path.to_path_buf(),
            what: "bytes of one slice of kspace",
            declared: slice_bytes as u64,
            limit: options.limits.image_bytes as u64,
        });
    }
    // Compression does not reach this ratio; a sparse data set can declare any size and must not make us allocate it.
    let size = std::fs::metadata(path)
        .map_err(|e| SourceError::io("cannot read the size", path, e))?
        .len();
    let declared = (slice_bytes as u64).saturating_mul(shape[0] as u64);
    if declared > size.saturating_mul(MAX_RATIO) {
        return Err(bad(
            format!("shape {shape:?} in a file of {size} bytes"),
            "samples that are in the file",
        ));
    }
    let mut notes = Vec::new();
    let [slices, coils, ro, pe] = shape;
    let mut header = match file.dataset("ismrmrd_header") {
        Ok(set) => {
            let text = h5::text(path, &set, options.limits.xml_bytes)?;
            super::mrd::parse_header(path, &text)?
        }
        Err(_) => {
            notes.push(Note::new(
                "no_header",
                "the file has no ismrmrd_header: matrix and centre are those of the array",
            ));
            nominal_header(shape)
        }
    };
    if header.encoding.is_empty() {
        header.encoding = nominal_header(shape).encoding;
        notes.push(Note::new(
            "no_encoding",
            "the header has no encoding: matrix and centre are those of the array",
        ));
    }
    notes.push(Note::new(
        "nominal_slice_positions",
        "fastMRI files carry no positions: slices are laid out one thickness apart, axial, centred on the isocentre",
    ));
    let mask = mask(path, &file, pe)?;
    let encoding = &mut header.encoding[0];
    let centre = encoding
        .encoding_limits
        .kspace_encoding_step_1
        .map_or((pe / 2) as u32, |l| l.center);
    // Array column n/2 is the centre; the header's counters put it at `center`.
    let first_counter = i64::from(centre) - (pe / 2) as i64;
    let [x, y, _] = encoding.encoded_space.matrix_size;
    if [x as usize, y as usize] != [ro, pe] {
        notes.push(Note::new(
            "matrix_differs_from_array",
            format!(
                "the header's encoded matrix is {x} x {y}, the array is {ro} x {pe}: the array is believed (field of view \
                 scaled with it)"
            ),
        ));
        for (axis, n) in [(0, ro), (1, pe)] {
            let declared = encoding.encoded_space.matrix_size[axis];
            if declared > 0 {
                encoding.encoded_space.field_of_view_mm[axis] *= n as f32 / declared as f32;
            }
            encoding.encoded_space.matrix_size[axis] = n as u32;
        }
    }
    let limits = &mut encoding.encoding_limits;
    if limits
        .slice
        .is_none_or(|l| l.maximum as usize + 1 != slices)
    {
        limits.slice = Some(xml::Limit {
            minimum: 0,
            maximum: slices as u32 - 1,
            center: 0,
        });
    }
    let system = header
        .acquisition_system_information
        .get_or_insert_default();
    if system.receiver_channels != Some(coils as u32) {
        if let Some(n) = system.receiver_channels {
            notes.push(Note::new(
                "coils_differ_from_header",
                format!(
                    "the header says {n} receiver channels, kspace has {coils}: kspace is believed"
                ),
            ));
        }
        system.receiver_channels = Some(coils as u32);
    }
    if let Ok(attribute) = file.attr("acquisition")
        && let Ok(name) = attribute.read_scalar::<hdf5::types::VarLenUnicode>()
    {
        let info =
            header
                .measurement_information
                .get_or_insert_with(|| xml::MeasurementInformation {
                    patient_position: "HFS".into(),
                    ..Default::default()
                });
        info.protocol_name.get_or_insert_with(|| name.to_string());
    }
    let slice_mm = header.encoding[0].recon_space.field_of_view_mm[2];
    let mut reader = FastMri {
        path: path.to_path_buf(),
        set,
        shape,
        mask,
        first_counter,
        slice_mm: if slice_mm > 0.0 { slice_mm } else { 1.0 },
        count: 0,
    };
    let mut dropped = 0;
    for slice in 0..slices {
        let samples = reader.slice(slice)?;
        let measured = (0..pe).filter(|&c| reader.is_measured(&samples, c)).count();
        reader.count += measured as u64;
        dropped += pe - measured;
    }
    if reader.count == 0 {
        return Err(bad("only zeros".into(), "at least one measured line"));
    }
    if dropped > 0 {
        notes.push(Note::new(
            "zeros_not_measured",
            format!(
                "{dropped} of {} lines are exactly zero in all coils{} and are taken as not measured",
                slices * pe,
                if reader.mask.is_some() { " or left out by the mask" } else { "" }
            ),
        ));
    }
    Ok(Parts::new(header, notes, Box::new(reader)))
}

fn nominal_header(shape: [usize; 4]) -> Header {
    let [slices, coils, ro, pe] = shape.map(|n| n as u32);
    let space = xml::EncodingSpace {
        matrix_size: [ro, pe, 1],
        field_of_view_mm: [ro as f32, pe as f32, 1.0],
    };
    let limit = |n: u32, center: u32| {
        Some(xml::Limit {
            minimum: 0,
            maximum: n - 1,
            center,
        })
    };
    Header {
        acquisition_system_information: Some(xml::AcquisitionSystemInformation {
            receiver_channels: Some(coils),
            ..Default::default()
        }),
        encoding: vec![xml::Encoding {
            encoded_space: space,
            recon_space: space,
            encoding_limits: xml::EncodingLimits {
                kspace_encoding_step_1: limit(pe, pe / 2),
                kspace_encoding_step_2: limit(1, 0),
                slice: limit(slices, 0),
                ..Default::default()
            },
            ..Default::default()
        }],
        ..Default::default()
    }
}
