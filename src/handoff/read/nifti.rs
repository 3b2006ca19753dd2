//! NIfTI-1, plain or compressed.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use super::series::{ReadSeries, Said, Slice, finished};
use super::{ImageArray, Type, count, exactly, io, to_c32};
use crate::data::{Geometry, Synthetic};
use crate::handoff::{HandoffError, orient, synthetic};

pub(super) fn read(path: &Path) -> Result<ImageArray, HandoffError> {
    Ok(read_both(path)?.0)
}

/// The voxels and the header in front of them, whose numbers are brought to little-endian order where they are used.
fn read_both(path: &Path) -> Result<(ImageArray, Vec<u8>), HandoffError> {
    let mut file = BufReader::new(File::open(path).map_err(io(path))?);
    let size = file.get_ref().metadata().map_err(io(path))?.len();
    let mut magic = [0_u8; 2];
    let n = file.read(&mut magic).map_err(io(path))?;
    let is_gzip = n == 2 && magic == [0x1f, 0x8b];
    let file = magic[..n].chain(file);
    if is_gzip {
        decode(path, flate2::bufread::MultiGzDecoder::new(file), None)
    } else {
        decode(path, file, Some(size))
    }
}

fn decode(
    path: &Path,
    mut reader: impl Read,
    size: Option<u64>,
) -> Result<(ImageArray, Vec<u8>), HandoffError> {
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
    let array = ImageArray::new(path, &dims, voxels, kind.is_complex())?;
    Ok((array, h))
}

/// One volume with its place (`sform`, else `qform`), the first of a series, and what the `.json` beside it says; our own
/// description field where there is none.
pub(super) fn series(path: &Path) -> Result<ReadSeries, HandoffError> {
    let (array, h) = read_both(path)?;
    let is_big = h[0] == 0;
    let f32_at = |at: usize| {
        let b = [h[at], h[at + 1], h[at + 2], h[at + 3]];
        f64::from(if is_big {
            f32::from_be_bytes(b)
        } else {
            f32::from_le_bytes(b)
        })
    };
    let code = |at: usize| {
        let b = [h[at], h[at + 1]];
        if is_big {
            i16::from_be_bytes(b)
        } else {
            i16::from_le_bytes(b)
        }
    };
    let rows: [[f64; 4]; 3] = if code(254) > 0 {
        std::array::from_fn(|i| std::array::from_fn(|k| f32_at(280 + 16 * i + 4 * k)))
    } else if code(252) > 0 {
        let [b, c, d] = [256, 260, 264].map(f32_at);
        let a = (1.0 - b * b - c * c - d * d).max(0.0).sqrt();
        let qfac = if f32_at(76) < 0.0 { -1.0 } else { 1.0 };
        let mm = [f32_at(80), f32_at(84), qfac * f32_at(88)];
        let r = [
            [
                a * a + b * b - c * c - d * d,
                2.0 * (b * c - a * d),
                2.0 * (b * d + a * c),
            ],
            [
                2.0 * (b * c + a * d),
                a * a + c * c - b * b - d * d,
                2.0 * (c * d - a * b),
            ],
            [
                2.0 * (b * d - a * c),
                2.0 * (c * d + a * b),
                a * a + d * d - b * b - c * c,
            ],
        ];
        let offset = [268, 272, 276].map(f32_at);
        std::array::from_fn(|i| [r[i][0] * mm[0], r[i][1] * mm[1], r[i][2] * mm[2], offset[i]])
    } else {
        return Err(HandoffError::read(
            path,
            "neither sform nor qform",
            "a volume that says where it lies",
        ));
    };
    let [.., nz, ny, nx] = array.dims[..] else {
        return Err(HandoffError::read(path, "no volume", "three axes"));
    };
    // RAS to LPS.
    let sign = [-1.0, -1.0, 1.0];
    let column = |k: usize| -> [f64; 3] { std::array::from_fn(|i| sign[i] * rows[i][k]) };
    let (x, y, z, first) = (column(0), column(1), column(2), column(3));
    let length = [x, y, z].map(orient::norm);
    if length.iter().any(|l| !(l.is_finite() && *l > 0.0)) {
        return Err(HandoffError::read(
            path,
            "axes of no length",
            "a volume that says where it lies",
        ));
    }
    let middle: [f64; 3] = std::array::from_fn(|i| {
        first[i] + x[i] * (nx / 2) as f64 + y[i] * (ny / 2) as f64 + z[i] * (nz / 2) as f64
    });
    #[allow(clippy::cast_possible_truncation)] // storage precision
    let narrow = |v: [f64; 3]| v.map(|v| v as f32);
    let unit = |v: [f64; 3], l: f64| narrow(v.map(|v| v / l));
    let geometry = Geometry {
        matrix: [nx, ny, nz],
        voxel_mm: narrow(length),
        centre_mm: narrow(middle),
        read_dir: unit(x, length[0]),
        phase_dir: unit(y, length[1]),
        slice_dir: unit(z, length[2]),
    };
    let text: serde_json::Value = std::fs::read(synthetic::beside(path))
        .ok()
        .and_then(|b| serde_json::from_slice(&b).ok())
        .unwrap_or_default();
    let end = h[148..228].iter().position(|b| *b == 0).unwrap_or(80);
    let descrip = String::from_utf8_lossy(&h[148..148 + end]).into_owned();
    let ours = |name: &str| -> Option<f64> {
        let mut fields = descrip.split(';').filter_map(|f| f.split_once('='));
        fields.find(|(k, _)| *k == name)?.1.trim().parse().ok()
    };
    let word = |key: &str| text[key].as_str().map(str::to_owned);
    let ms = |key: &str, name: &str| text[key].as_f64().map(|s| 1e3 * s).or_else(|| ours(name));
    let stem = path.file_name().map(|n| n.to_string_lossy().into_owned());
    let said = Said {
        description: word("SeriesDescription").or(stem),
        protocol: word("ProtocolName"),
        sequence: word("SequenceName"),
        patient_id: word("PatientID"),
        patient_name: word("PatientName"),
        study_uid: word("StudyInstanceUID"),
        frame_of_reference: word("FrameOfReferenceUID"),
        body_part: word("BodyPartExamined"),
        patient_position: word("PatientPosition"),
        series_number: text["SeriesNumber"].as_i64(),
        vendor: word("Manufacturer"),
        tesla: text["MagneticFieldStrength"].as_f64(),
        tr_ms: ms("RepetitionTime", "TR"),
        te_ms: ms("EchoTime", "TE"),
        ti_ms: ms("InversionTime", "TI"),
        echo_train: text["EchoTrainLength"].as_f64(),
        ..Said::default()
    };
    // A file that lost its neighbour still says it in its header.
    let mark = synthetic::from_sidecar(&text).or_else(|| {
        descrip.contains("SYNTHETIC").then(|| Synthetic {
            kind: synthetic::kind_of(&descrip),
            model: "UNKNOWN".to_owned(),
            version: "UNKNOWN".to_owned(),
            digest: "UNKNOWN".to_owned(),
            sources: Vec::new(),
            sigma: None,
            abstention: None,
            bone: None,
            domain: None,
        })
    });
    let n = nx * ny * nz;
    let slice = Slice {
        geometry,
        voxels: array.voxels.into_iter().take(n).collect(),
        synthetic: mark,
    };
    finished(path, said.header(), vec![slice], Vec::new())
}
