//! NIfTI-1: one volume per stack, repetitions and cardiac phases along the fourth axis.

use std::io::Write;

use super::{
    Quantity, gzip,
    orient::{self, NiftiAffine},
    quantity::Values,
    stack::Stack,
    volume::Volume,
};
use crate::data::{Geometry, Scan};

/// Bytes before the voxels: header and the empty extension flag.
pub(super) const VOX_OFFSET: usize = 352;

/// Writes the header and the voxels, gzipped on request.
///
/// # Numerics
/// `FLOAT32` or `COMPLEX64`, no scaling; `sform` and `qform` state the same mapping (code 1, scanner).
pub(super) fn write(
    out: &mut impl Write,
    stack: &Stack<'_>,
    block: &Geometry,
    volume: &Volume,
    quantity: Quantity,
    scan: &Scan,
    is_gzip: bool,
) -> std::io::Result<()> {
    let header = header(stack, block, volume, quantity, scan)?;
    let voxels = volume.to_bytes();
    if is_gzip {
        let mut bytes = Vec::with_capacity(header.len() + voxels.len());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&voxels);
        gzip::write(out, &bytes)
    } else {
        out.write_all(&header)?;
        out.write_all(&voxels)
    }
}

fn header(
    stack: &Stack<'_>,
    block: &Geometry,
    volume: &Volume,
    quantity: Quantity,
    scan: &Scan,
) -> std::io::Result<[u8; VOX_OFFSET]> {
    let NiftiAffine {
        srow,
        quaternion,
        offset,
        qfac,
        voxel_mm,
    } = orient::nifti_affine(block);
    let [n_frames, _, _, nz, ny, nx] = volume.dims;
    let mut h = [0_u8; VOX_OFFSET];
    put(&mut h, 0, &348_i32.to_le_bytes());
    h[39] = 1 | 2 << 2 | 3 << 4; // dim_info: read is axis 1, phase 2, slice 3
    let n_dims = if n_frames > 1 { 4 } else { 3 };
    for (i, n) in [n_dims, nx, ny, nz, n_frames, 1, 1, 1]
        .into_iter()
        .enumerate()
    {
        let n = i16::try_from(n).map_err(|_| {
            std::io::Error::other(format!("extent {n}: NIfTI-1 holds at most 32767 per axis"))
        })?;
        put(&mut h, 40 + 2 * i, &n.to_le_bytes());
    }
    let (datatype, bitpix) = match volume.values {
        Values::Real(_) => (16_i16, 32_i16),
        Values::Complex(_) => (32, 64),
    };
    put(&mut h, 70, &datatype.to_le_bytes());
    put(&mut h, 72, &bitpix.to_le_bytes());
    let pixdim = [
        qfac,
        voxel_mm[0],
        voxel_mm[1],
        voxel_mm[2],
        0.0,
        0.0,
        0.0,
        0.0,
    ];
    for (i, v) in pixdim.into_iter().enumerate() {
        put_f32(&mut h, 76 + 4 * i, v);
    }
    put_f32(&mut h, 108, VOX_OFFSET as f64);
    put_f32(&mut h, 112, 1.0); // scl_slope; intercept stays 0
    h[123] = 2; // mm; the time between frames is not in the header and stays unknown
    let text = descrip(stack, quantity, scan);
    put(&mut h, 148, &text.as_bytes()[..text.len().min(79)]);
    put(&mut h, 252, &1_i16.to_le_bytes());
    put(&mut h, 254, &1_i16.to_le_bytes());
    for i in 0..3 {
        put_f32(&mut h, 256 + 4 * i, quaternion[i]);
        put_f32(&mut h, 268 + 4 * i, offset[i]);
        for (j, value) in srow[i].into_iter().enumerate() {
            put_f32(&mut h, 280 + 16 * i + 4 * j, value);
        }
    }
    let name = match super::synthetic::of_stack(stack) {
        Some(_) => "SYNTHETIC",
        None => quantity.name(),
    };
    put(&mut h, 328, &name.as_bytes()[..name.len().min(15)]);
    put(&mut h, 344, b"n+1\0");
    Ok(h)
}

fn put(h: &mut [u8; VOX_OFFSET], at: usize, bytes: &[u8]) {
    h[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put_f32(h: &mut [u8; VOX_OFFSET], at: usize, value: f64) {
    put(h, at, &(value as f32).to_le_bytes());
}

/// `magnitude;TE=98;TR=4000;TI=..;FA=150;cauda 0.1.0`, ASCII, cut at 79 bytes.
fn descrip(stack: &Stack<'_>, quantity: Quantity, scan: &Scan) -> String {
    let contrast = stack.frames[0][0].key.contrast as usize;
    let mut text = match super::synthetic::of_stack(stack) {
        // In front of what may be cut off.
        Some(s) => format!(
            "{} {}: {};{}",
            s.kind.title(),
            s.version,
            s.kind.caution(),
            quantity.name()
        ),
        None => quantity.name().to_owned(),
    };
    let times = super::timing::of(scan, contrast);
    for (name, value) in [
        ("TE", times.te_ms),
        ("TR", times.tr_ms),
        ("TI", times.ti_ms),
        ("FA", times.flip_angle_deg),
    ] {
        if let Some(value) = value {
            text += &format!(";{name}={value}");
        }
    }
    text + concat!(";cauda ", env!("CARGO_PKG_VERSION"))
}
