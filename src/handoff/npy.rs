//! NumPy's `.npy`, version 1.0: little-endian, C order.

use std::io::Write;

use super::{quantity::Values, volume::Volume};

/// Writes `[frame, z, y, x]` (`f4`, or `c8` for complex voxels); sensitivity maps `[frame, set, coil, z, y, x]`.
pub(super) fn write(out: &mut impl Write, volume: &Volume, is_csm: bool) -> std::io::Result<()> {
    let [frame, set, coil, z, y, x] = volume.dims;
    let shape = if is_csm {
        format!("({frame}, {set}, {coil}, {z}, {y}, {x})")
    } else {
        format!("({frame}, {z}, {y}, {x})")
    };
    let descr = match volume.values {
        Values::Real(_) => "<f4",
        Values::Complex(_) => "<c8",
    };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, version, length and text together are a multiple of 64, closed by a newline.
    let padding = 64 - (10 + header.len() + 1) % 64;
    header += &" ".repeat(padding);
    header.push('\n');
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(header.len() as u16).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    out.write_all(&volume.to_bytes())
}
