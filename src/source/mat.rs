//! MATLAB level-5 `.mat` files: Cartesian k-space, or samples with their trajectory.
//!
//! Read: numeric arrays (real and complex, any class, compressed or not). Variables of other classes (struct, cell,
//! char, sparse) are named in messages. `-v7.3` files are HDF5 and are recognised as such before they come here.
//!
//! # Source
//! MathWorks, "MAT-File Format" (level 5): 128-byte header, then data elements with 8-byte tags; `miCOMPRESSED`
//! elements are zlib streams that hold one `miMATRIX`.

use std::io::Read as _;
use std::path::Path;

use ismrmrd::header as xml;
use ismrmrd::{Acquisition, AcquisitionFlag, AcquisitionHeader, Header};
use num_complex::{Complex32, Complex64};

use super::bytes::{Bytes, i32_at, u32_at};
use super::grid::{Axis, Grid, Layout, Store};
use super::{Memory, OpenOptions, Parts, SourceError};
use crate::data::Note;

/// A numeric array of the file, column-major.
#[derive(Debug)]
struct Variable {
    name: String,
    extents: Vec<usize>,
    is_complex: bool,
    /// `None` for classes that are not numeric arrays.
    values: Option<Vec<Complex64>>,
    class: &'static str,
}

/// Compressed variables may grow this much: zero-filled k-space does not compress further, and zlib's own limit (1032)
/// would let a few MiB ask for GiB.
const MAX_INFLATION: usize = 256;
/// Small variables may grow more.
const ALWAYS_INFLATED: usize = 64 << 20;

struct Parser<'a> {
    path: &'a Path,
}

/// One data element: type, payload, bytes consumed.
struct Element<'a> {
    kind: u32,
    data: &'a [u8],
    used: usize,
}

impl Parser<'_> {
    fn bad(
        &self,
        place: impl Into<String>,
        found: impl Into<String>,
        needed: impl Into<String>,
    ) -> SourceError {
        SourceError::malformed(
            self.path,
            place,
            found,
            needed,
            "the copy was cut short or the file is damaged: save it again with `save -v7`",
        )
    }

    fn element<'a>(&self, bytes: &'a [u8], place: &str) -> Result<Element<'a>, SourceError> {
        let word =
            u32_at(bytes, 0).ok_or_else(|| self.bad(place, "end of data", "a tag of 8 bytes"))?;
        // "Small" elements keep their length in the upper half of the first word and up to 4 bytes in the second.
        if word >> 16 != 0 {
            let n = (word >> 16) as usize;
            let data = (n <= 4)
                .then(|| bytes.get(4..4 + n))
                .flatten()
                .ok_or_else(|| {
                    self.bad(place, format!("a small element of {n} bytes"), "at most 4")
                })?;
            return Ok(Element {
                kind: word & 0xffff,
                data,
                used: 8,
            });
        }
        let n = u32_at(bytes, 4)
            .ok_or_else(|| self.bad(place, "end of data", "a tag of 8 bytes"))?
            as usize;
        let data = bytes.get(8..).and_then(|b| b.get(..n)).ok_or_else(|| {
            self.bad(
                place,
                format!(
                    "{n} bytes announced, {} left",
                    bytes.len().saturating_sub(8)
                ),
                "the whole element",
            )
        })?;
        // Compressed elements are not padded; all others are, to 8 bytes.
        let used = if word == 15 {
            8 + n
        } else {
            8 + n.next_multiple_of(8)
        };
        Ok(Element {
            kind: word,
            data,
            used,
        })
    }

    fn numbers(&self, element: &Element<'_>, place: &str) -> Result<Vec<f64>, SourceError> {
        let d = element.data;
        fn each<const N: usize>(d: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            d.chunks_exact(N)
                .filter_map(|c| c.try_into().ok())
                .map(f)
                .collect()
        }
        Ok(match element.kind {
            1 => each::<1>(d, |b| f64::from(b[0] as i8)),
            2 => each::<1>(d, |b| f64::from(b[0])),
            3 => each::<2>(d, |b| f64::from(i16::from_le_bytes(b))),
            4 => each::<2>(d, |b| f64::from(u16::from_le_bytes(b))),
            5 => each::<4>(d, |b| f64::from(i32::from_le_bytes(b))),
            6 => each::<4>(d, |b| f64::from(u32::from_le_bytes(b))),
            7 => each::<4>(d, |b| f64::from(f32::from_le_bytes(b))),
            9 => each::<8>(d, f64::from_le_bytes),
            12 => each::<8>(d, |b| i64::from_le_bytes(b) as f64),
            13 => each::<8>(d, |b| u64::from_le_bytes(b) as f64),
            other => {
                return Err(self.bad(
                    place,
                    format!("data type {other}"),
                    "a number type (1-7, 9, 12, 13)",
                ));
            }
        })
    }

    fn matrix(&self, body: &[u8]) -> Result<Variable, SourceError> {
        let flags = self.element(body, "array flags")?;
        let word =
            u32_at(flags.data, 0).ok_or_else(|| self.bad("array flags", "too short", "8 bytes"))?;
        let mut rest = body.get(flags.used..).unwrap_or_default();
        let dims = self.element(rest, "dimensions")?;
        rest = rest.get(dims.used..).unwrap_or_default();
        let mut extents = Vec::new();
        for i in 0..dims.data.len() / 4 {
            let n = i32_at(dims.data, 4 * i).unwrap_or(-1);
            extents.push(
                usize::try_from(n)
                    .map_err(|_| self.bad("dimensions", n.to_string(), "0 or more"))?,
            );
        }
        let name = self.element(rest, "name")?;
        rest = rest.get(name.used..).unwrap_or_default();
        let name = String::from_utf8_lossy(name.data).into_owned();
        let is_complex = word & 0x0800 != 0;
        let class = match word & 0xff {
            1 => "cell",
            2 => "struct",
            3 => "object",
            4 => "char",
            5 => "sparse",
            6 => "double",
            7 => "single",
            8..=15 => "integer",
            _ => "unknown",
        };
        let mut variable = Variable {
            name,
            extents,
            is_complex,
            values: None,
            class,
        };
        if !(6..=15).contains(&(word & 0xff)) {
            return Ok(variable);
        }
        let place = format!("variable {:?}", variable.name);
        let real = self.element(rest, &place)?;
        let re = self.numbers(&real, &place)?;
        let im = if is_complex {
            let rest = rest.get(real.used..).unwrap_or_default();
            self.numbers(&self.element(rest, &place)?, &place)?
        } else {
            Vec::new()
        };
        let needed = variable
            .extents
            .iter()
            .try_fold(1usize, |n, &e| n.checked_mul(e));
        if needed != Some(re.len()) || (is_complex && im.len() != re.len()) {
            return Err(self.bad(
                place,
                format!("{} real and {} imaginary numbers", re.len(), im.len()),
                format!("the product of {:?}", variable.extents),
            ));
        }
        variable.values = Some(
            re.into_iter()
                .zip(im.into_iter().chain(std::iter::repeat(0.0)))
                .map(|(re, im)| Complex64::new(re, im))
                .collect(),
        );
        Ok(variable)
    }

    fn variables(&self, bytes: &[u8], limit: usize) -> Result<Vec<Variable>, SourceError> {
        let mut at = 128;
        let mut variables = Vec::new();
        while at < bytes.len() {
            let place = format!("byte {at}");
            let element = self.element(bytes.get(at..).unwrap_or_default(), &place)?;
            match element.kind {
                15 => {
                    let most = element
                        .data
                        .len()
                        .saturating_mul(MAX_INFLATION)
                        .max(ALWAYS_INFLATED)
                        .min(limit);
                    let mut inflated = Vec::new();
                    flate2::read::ZlibDecoder::new(element.data)
                        .take(most as u64 + 1)
                        .read_to_end(&mut inflated)
                        .map_err(|e| {
                            self.bad(
                                &place,
                                format!("a zlib stream that fails: {e}"),
                                "a whole zlib stream",
                            )
                        })?;
                    if inflated.len() > most {
                        return Err(SourceError::TooLarge {
                            path: self.path.to_path_buf(),
                            what: "bytes of one variable",
                            declared: inflated.len() as u64,
                            limit: most as u64,
                        });
                    }
                    let inner = self.element(&inflated, &place)?;
                    if inner.kind == 14 {
                        variables.push(self.matrix(inner.data)?);
                    }
                }
                14 => variables.push(self.matrix(element.data)?),
                _ => {}
            }
            at = at.saturating_add(element.used);
        }
        Ok(variables)
    }
}

fn listing(variables: &[Variable]) -> String {
    let list: Vec<String> = variables
        .iter()
        .map(|v| {
            format!(
                "{} ({}{} {})",
                v.name,
                if v.is_complex { "complex " } else { "" },
                v.class,
                v.extents
                    .iter()
                    .map(usize::to_string)
                    .collect::<Vec<_>>()
                    .join("x")
            )
        })
        .collect();
    if list.is_empty() {
        "no variable".into()
    } else {
        list.join(", ")
    }
}

pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<Parts, SourceError> {
    let parser = Parser { path };
    let bytes = Bytes::open(path)?;
    let all = bytes.all();
    if all.get(126..128) == Some(b"MI") {
        return Err(SourceError::unsupported(
            path,
            "a MATLAB file written on a big-endian machine",
            "little-endian",
            "load it and save it again with `save -v7`",
        ));
    }
    let mut variables = parser.variables(all, options.limits.image_bytes)?;
    let find = |names: &[&str]| {
        variables.iter().position(|v| {
            v.values.is_some() && names.iter().any(|n| v.name.eq_ignore_ascii_case(n))
        })
    };
    if let Some(wanted) = &options.group {
        let Some(at) = find(&[wanted.as_str()]) else {
            return Err(SourceError::Option {
                path: path.to_path_buf(),
                asked: format!("variable {wanted:?}"),
                found: listing(&variables),
                hint: "name one of the numeric variables".into(),
            });
        };
        let variable = variables.swap_remove(at);
        return cartesian(path, variable, options);
    }
    if let (Some(k), Some(data)) = (
        find(&["k", "traj", "trajectory"]),
        find(&["data", "kspace", "rawdata"]),
    ) {
        let weights = find(&["w", "dcf", "weights"]).is_some();
        // Removing the later one first keeps the earlier index valid.
        let (hi, lo) = (k.max(data), k.min(data));
        let (a, b) = (variables.swap_remove(hi), variables.swap_remove(lo));
        let (k, data) = if k > data { (a, b) } else { (b, a) };
        return trajectory(path, k, data, weights);
    }
    let complex: Vec<usize> = (0..variables.len())
        .filter(|&i| {
            variables[i].is_complex
                && variables[i].values.is_some()
                && variables[i].extents.iter().filter(|&&n| n > 1).count() >= 2
        })
        .collect();
    let at = find(&["kspace", "ksp", "k_space", "kdata", "rawdata"]).or(match complex[..] {
        [one] => Some(one),
        _ => None,
    });
    let Some(at) = at else {
        return Err(SourceError::unsupported(
            path,
            format!("a MATLAB file with {}", listing(&variables)),
            "a complex array named kspace, or data with its trajectory k",
            "name the variable with --group, if one of them is k-space",
        ));
    };
    let variable = variables.swap_remove(at);
    cartesian(path, variable, options)
}

fn cartesian(path: &Path, variable: Variable, options: &OpenOptions) -> Result<Parts, SourceError> {
    let mut notes = Vec::new();
    let extents = &variable.extents;
    let axes: Vec<(Axis, usize)> = match &options.axes {
        Some(list) => super::named_axes(path, list, extents)?,
        None => {
            let axes: &[Axis] = match extents.len() {
                2 => &[Axis::Ro, Axis::Pe1],
                3 => &[Axis::Ro, Axis::Pe1, Axis::Slice],
                4 => &[Axis::Ro, Axis::Pe1, Axis::Slice, Axis::Coil],
                n => {
                    return Err(SourceError::Option {
                        path: path.to_path_buf(),
                        asked: "which axis is what".into(),
                        found: format!("{n} axes {extents:?}; only 2, 3 and 4 have a default meaning"),
                        hint: "name the axes in MATLAB's order with the option `axes`: axes = \"ro,pe1,pe2,coil,slice\"".into(),
                    });
                }
            };
            notes.push(Note::new(
                "axes_assumed",
                format!(
                    "variable {} with extents {extents:?} is taken as [{}]; name the axes with the option `axes` if they \
                     are others (a third axis may also be coils)",
                    variable.name,
                    Axis::words(axes)
                ),
            ));
            axes.iter().copied().zip(extents.iter().copied()).collect()
        }
    };
    let layout = Layout::fastest_first(&axes).ok_or_else(|| SourceError::TooLarge {
        path: path.to_path_buf(),
        what: "samples",
        declared: u64::MAX,
        limit: usize::MAX as u64,
    })?;
    if variable.class == "double" {
        notes.push(super::npy::rounded());
    }
    let samples = variable
        .values
        .unwrap_or_default()
        .into_iter()
        .map(|v| Complex32::new(v.re as f32, v.im as f32))
        .collect();
    let grid = Grid::new(path, Store::Owned(samples), layout, &mut notes)?;
    let header = grid.nominal_header(&mut notes);
    Ok(Parts::new(header, notes, Box::new(grid)))
}

/// `data [sample, interleaf, coil]` with `k [sample, interleaf]`, complex: kx + i ky in cycles per sample.
fn trajectory(
    path: &Path,
    k: Variable,
    data: Variable,
    has_weights: bool,
) -> Result<Parts, SourceError> {
    let n_samples = data.extents.first().copied().unwrap_or(0);
    let n_lines = data.extents.get(1).copied().unwrap_or(1);
    let n_coils = data.extents.get(2).copied().unwrap_or(1);
    if k.extents.first() != Some(&n_samples)
        || k.extents.get(1).copied().unwrap_or(1) != n_lines
        || data.extents.len() > 3
    {
        return Err(SourceError::malformed(
            path,
            format!("variables {} and {}", data.name, k.name),
            format!("extents {:?} and {:?}", data.extents, k.extents),
            "data [sample, interleaf, coil] and k [sample, interleaf]",
            "bring them to this shape in MATLAB and save again",
        ));
    }
    for (what, n) in [
        ("samples of one readout", n_samples),
        ("readouts", n_lines),
        ("coils", n_coils),
    ] {
        if n == 0 || n > usize::from(u16::MAX) {
            return Err(SourceError::TooLarge {
                path: path.to_path_buf(),
                what,
                declared: n as u64,
                limit: u64::from(u16::MAX),
            });
        }
    }
    let (data_values, k_values) = (
        data.values.unwrap_or_default(),
        k.values.unwrap_or_default(),
    );
    let mut readouts = Vec::with_capacity(n_lines);
    for line in 0..n_lines {
        let mut head = AcquisitionHeader {
            scan_counter: line as u32,
            number_of_samples: n_samples as u16,
            available_channels: n_coils as u16,
            active_channels: n_coils as u16,
            trajectory_dimensions: 2,
            ..Default::default()
        };
        head.idx.kspace_encode_step_1 = line as u16;
        if line == 0 {
            head.set(AcquisitionFlag::FirstInSlice);
        }
        if line + 1 == n_lines {
            head.set(AcquisitionFlag::LastInSlice);
            head.set(AcquisitionFlag::LastInMeasurement);
        }
        let traj = (0..n_samples)
            .filter_map(|s| k_values.get(line * n_samples + s))
            .flat_map(|k| [k.re as f32, k.im as f32])
            .collect();
        let samples = (0..n_coils)
            .flat_map(|coil| (0..n_samples).map(move |s| (coil * n_lines + line) * n_samples + s))
            .filter_map(|i| data_values.get(i))
            .map(|v| Complex32::new(v.re as f32, v.im as f32))
            .collect();
        readouts.push(Acquisition {
            head,
            traj,
            data: samples,
        });
    }
    // A trajectory in cycles per sample does not tell the matrix; the square with as many points is a stand-in.
    let n = (((n_samples * n_lines) as f64).sqrt().round() as u32)
        .next_multiple_of(2)
        .max(2);
    let space = xml::EncodingSpace {
        matrix_size: [n, n, 1],
        field_of_view_mm: [n as f32, n as f32, 1.0],
    };
    let zero = Some(xml::Limit::default());
    let header = Header {
        measurement_information: Some(xml::MeasurementInformation {
            patient_position: "HFS".into(),
            ..Default::default()
        }),
        acquisition_system_information: Some(xml::AcquisitionSystemInformation {
            receiver_channels: Some(n_coils as u32),
            ..Default::default()
        }),
        encoding: vec![xml::Encoding {
            encoded_space: space,
            recon_space: space,
            encoding_limits: xml::EncodingLimits {
                kspace_encoding_step_1: Some(xml::Limit {
                    minimum: 0,
                    maximum: n_lines as u32 - 1,
                    center: 0,
                }),
                kspace_encoding_step_2: zero,
                slice: zero,
                ..Default::default()
            },
            trajectory: xml::Trajectory::Other,
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut notes = vec![
        Note::new(
            "nominal_geometry",
            format!(
                "the file says nothing about geometry: a matrix of {n} x {n} (as many points as samples), voxels of 1 mm, \
                 axial, at the isocentre, are assumed"
            ),
        ),
        Note::new(
            "trajectory_units_assumed",
            "the trajectory is carried as it stands in the file (kx in the real, ky in the imaginary part)",
        ),
        super::npy::rounded(),
    ];
    if has_weights {
        notes.push(Note::new(
            "density_weights_dropped",
            "density-compensation weights in the file are not carried: ISMRMRD has no place for them",
        ));
    }
    Ok(Parts::new(header, notes, Box::new(Memory::new(readouts))))
}
