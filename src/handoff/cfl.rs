//! BART's pair `.cfl` (voxels) and `.hdr` (extents): complex `f32`, first axis fastest.

use std::io::Write;

use super::volume::Volume;

// BART's axes that are used here.
const READ: usize = 0;
const PHS1: usize = 1;
const PHS2: usize = 2;
const COIL: usize = 3;
const MAPS: usize = 4;
const TIME: usize = 10;
const SLICE: usize = 13;

/// Extents in BART's order of axes.
pub(super) fn dims(volume: &Volume, is_3d: bool) -> [usize; 16] {
    let [frame, set, coil, z, y, x] = volume.dims;
    let mut dims = [1; 16];
    dims[READ] = x;
    dims[PHS1] = y;
    dims[if is_3d { PHS2 } else { SLICE }] = z;
    dims[COIL] = coil;
    dims[MAPS] = set;
    dims[TIME] = frame;
    dims
}

/// Writes the `.hdr` text.
pub(super) fn write_header(out: &mut impl Write, dims: &[usize; 16]) -> std::io::Result<()> {
    let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
    writeln!(out, "# Dimensions\n{}", dims.join(" "))
}

/// Writes the voxels.
///
/// A stack of 2D slices lies along axis 13 (slice) and frames along axis 10 (time), both slower than the maps' axes,
/// time faster than slice; so the order is `[slice, time, maps, coil, (partition), y, x]`.
pub(super) fn write_voxels(
    out: &mut impl Write,
    volume: Volume,
    is_3d: bool,
) -> std::io::Result<()> {
    let [n_frames, n_sets, n_coils, nz, ny, nx] = volume.dims;
    let n_maps = n_sets * n_coils;
    let values = volume.values.into_complex();
    let plane = nx * ny;
    let mut put = |frame: usize, map: usize, z: usize| -> std::io::Result<()> {
        let start = ((frame * n_maps + map) * nz + z) * plane;
        for value in &values[start..start + plane] {
            out.write_all(&value.re.to_le_bytes())?;
            out.write_all(&value.im.to_le_bytes())?;
        }
        Ok(())
    };
    if is_3d {
        for frame in 0..n_frames {
            for map in 0..n_maps {
                for z in 0..nz {
                    put(frame, map, z)?;
                }
            }
        }
    } else {
        for z in 0..nz {
            for frame in 0..n_frames {
                for map in 0..n_maps {
                    put(frame, map, z)?;
                }
            }
        }
    }
    Ok(())
}
