//! Where voxels lie, in the words of each format: the only place that turns [`Geometry`] into DICOM planes,
//! NIfTI matrices and display order.
//!
//! MRD directions and positions are patient coordinates (LPS) already. The patient position (`HFS`, `FFP`, ...) is
//! therefore handed on as a label and is never applied to them: applying it would count it twice.

use crate::data::Geometry;

type Vec3 = [f64; 3];

pub(super) fn dot(a: Vec3, b: Vec3) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn cross(a: Vec3, b: Vec3) -> Vec3 {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

pub(super) fn norm(a: Vec3) -> f64 {
    dot(a, a).sqrt()
}

fn scaled(a: Vec3, s: f64) -> Vec3 {
    a.map(|v| v * s)
}

/// Read, phase and slice directions in double precision, orthonormal.
///
/// The header's single-precision cosines are off by 10⁻⁷; Gram–Schmidt in the order read, phase, slice takes that
/// away, keeping the handedness.
pub(super) fn directions(geometry: &Geometry) -> [Vec3; 3] {
    let [read, phase, slice] =
        [geometry.read_dir, geometry.phase_dir, geometry.slice_dir].map(|d| d.map(f64::from));
    let read = scaled(read, 1.0 / norm(read));
    let phase = std::array::from_fn(|i| phase[i] - dot(phase, read) * read[i]);
    let phase = scaled(phase, 1.0 / norm(phase));
    let normal = cross(read, phase);
    let sign = if dot(slice, normal) < 0.0 { -1.0 } else { 1.0 };
    [read, phase, scaled(normal, sign)]
}

/// Why a geometry cannot be expressed, if it cannot.
///
/// Needed: finite centre, positive finite in-plane voxel sizes, unit orthogonal directions (to 10⁻³).
pub(super) fn fault(geometry: &Geometry) -> Option<(String, &'static str)> {
    let g = geometry;
    if !g.centre_mm.iter().all(|v| v.is_finite()) {
        return Some((
            format!("centre {:?}", g.centre_mm),
            "a finite position in mm",
        ));
    }
    if !g.voxel_mm[..2].iter().all(|v| v.is_finite() && *v > 0.0) {
        return Some((
            format!("voxel size {:?} mm", g.voxel_mm),
            "positive voxel sizes (the header's field of view and matrix give them)",
        ));
    }
    let d = [g.read_dir, g.phase_dir, g.slice_dir].map(|d| d.map(f64::from));
    let unit = d.iter().all(|v| (norm(*v) - 1.0).abs() < 1e-3);
    let orthogonal = dot(d[0], d[1]).abs() < 1e-3
        && dot(d[0], d[2]).abs() < 1e-3
        && dot(d[1], d[2]).abs() < 1e-3;
    if !(unit && orthogonal) {
        return Some((
            format!("read {:?}, phase {:?}, slice {:?}", d[0], d[1], d[2]),
            "three unit vectors at right angles (direction cosines, LPS)",
        ));
    }
    None
}

/// How the voxels of one slice are turned for display: transposed first, then flipped.
///
/// DICOM viewers show rows and columns as stored, and readers expect axial and coronal slices with the patient's
/// left on the right, sagittal slices with the front on the left, the head up. The turn is by whole voxels, so no
/// value changes, and the position and orientation written with it are those of the turned picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Display {
    pub(super) transpose: bool,
    pub(super) flip_columns: bool,
    pub(super) flip_rows: bool,
}

/// One displayed slice in patient coordinates (LPS, mm).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plane {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Centre of the first voxel: Image Position (Patient).
    pub(super) position: Vec3,
    /// Direction of increasing column index: first three of Image Orientation (Patient).
    pub(super) row_dir: Vec3,
    /// Direction of increasing row index: last three of Image Orientation (Patient).
    pub(super) column_dir: Vec3,
    /// mm between rows, then between columns, as Pixel Spacing orders them.
    pub(super) pixel_spacing: [f64; 2],
}

impl Display {
    /// The turn that brings a slice nearest to the usual view.
    pub(super) fn of(geometry: &Geometry) -> Self {
        let [read, phase, _] = directions(geometry);
        let normal = cross(read, phase).map(f64::abs);
        let (right, down) = if normal[0] > normal[1] && normal[0] > normal[2] {
            ([0.0, 1.0, 0.0], [0.0, 0.0, -1.0]) // sagittal: back on the right, feet down
        } else if normal[1] > normal[2] {
            ([1.0, 0.0, 0.0], [0.0, 0.0, -1.0]) // coronal: left on the right, feet down
        } else {
            ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]) // axial: left on the right, back down
        };
        let straight = dot(read, right).abs() + dot(phase, down).abs();
        let turned = dot(phase, right).abs() + dot(read, down).abs();
        let transpose = turned > straight;
        let (row_dir, column_dir) = if transpose {
            (phase, read)
        } else {
            (read, phase)
        };
        Self {
            transpose,
            flip_columns: dot(row_dir, right) < 0.0,
            flip_rows: dot(column_dir, down) < 0.0,
        }
    }

    /// The displayed plane of partition `z`.
    pub(super) fn plane(self, geometry: &Geometry, z: usize) -> Plane {
        let [read, phase, _] = directions(geometry);
        let [nx, ny, _] = geometry.matrix;
        let [dx, dy, _] = geometry.voxel_mm.map(f64::from);
        let (columns, rows) = if self.transpose { (ny, nx) } else { (nx, ny) };
        let (mut row_dir, mut column_dir) = if self.transpose {
            (phase, read)
        } else {
            (read, phase)
        };
        let (column_mm, row_mm) = if self.transpose { (dy, dx) } else { (dx, dy) };
        // Index of the displayed first voxel in the image's own axes.
        let first_column = if self.flip_columns { columns - 1 } else { 0 };
        let first_row = if self.flip_rows { rows - 1 } else { 0 };
        let (x, y) = if self.transpose {
            (first_row, first_column)
        } else {
            (first_column, first_row)
        };
        if self.flip_columns {
            row_dir = scaled(row_dir, -1.0);
        }
        if self.flip_rows {
            column_dir = scaled(column_dir, -1.0);
        }
        Plane {
            rows,
            columns,
            position: geometry.voxel_to_patient([x as f64, y as f64, z as f64]),
            row_dir,
            column_dir,
            pixel_spacing: [row_mm, column_mm],
        }
    }

    /// Turns one slice `[y, x]` into the displayed `[row, column]`.
    pub(super) fn apply<T: Copy>(self, slice: &[T], nx: usize, ny: usize) -> Vec<T> {
        let (columns, rows) = if self.transpose { (ny, nx) } else { (nx, ny) };
        let mut turned = Vec::with_capacity(slice.len());
        for row in 0..rows {
            let r = if self.flip_rows { rows - 1 - row } else { row };
            for column in 0..columns {
                let c = if self.flip_columns {
                    columns - 1 - column
                } else {
                    column
                };
                turned.push(if self.transpose {
                    slice[c * nx + r]
                } else {
                    slice[r * nx + c]
                });
            }
        }
        turned
    }
}

/// LPS to RAS: the only place where the sign of x and y changes for NIfTI.
pub(super) fn lps_to_ras(p: Vec3) -> Vec3 {
    [-p[0], -p[1], p[2]]
}

/// NIfTI's two statements of the same mapping from voxel `[x, y, z]` to RAS mm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct NiftiAffine {
    /// Rows of `srow_x`, `srow_y`, `srow_z`.
    pub(super) srow: [[f64; 4]; 3],
    /// `quatern_b`, `_c`, `_d`.
    pub(super) quaternion: Vec3,
    /// `qoffset_x`, `_y`, `_z`.
    pub(super) offset: Vec3,
    /// `pixdim[0]`: −1 when read, phase, slice are a left-handed triple.
    pub(super) qfac: f64,
    /// `pixdim[1..4]`.
    pub(super) voxel_mm: Vec3,
}

/// The NIfTI mapping of a block of voxels.
///
/// # Source
/// NIfTI-1 header (`nifti1.h`), methods 2 and 3; the quaternion by the largest component, as `nifti_mat44_to_quatern`.
pub(super) fn nifti_affine(geometry: &Geometry) -> NiftiAffine {
    let voxel_mm = geometry.voxel_mm.map(f64::from);
    let axes = directions(geometry).map(lps_to_ras);
    let offset = lps_to_ras(geometry.voxel_to_patient([0.0; 3]));
    let mut srow = [[0.0; 4]; 3];
    for i in 0..3 {
        for j in 0..3 {
            srow[i][j] = axes[j][i] * voxel_mm[j];
        }
        srow[i][3] = offset[i];
    }
    let qfac = if dot(cross(axes[0], axes[1]), axes[2]) < 0.0 {
        -1.0
    } else {
        1.0
    };
    let r = [axes[0], axes[1], scaled(axes[2], qfac)]; // columns of a proper rotation
    let m = |i: usize, j: usize| r[j][i];
    let trace = m(0, 0) + m(1, 1) + m(2, 2);
    let (a, b, c, d);
    if trace > 0.0 {
        a = 0.5 * (1.0 + trace).sqrt();
        b = 0.25 * (m(2, 1) - m(1, 2)) / a;
        c = 0.25 * (m(0, 2) - m(2, 0)) / a;
        d = 0.25 * (m(1, 0) - m(0, 1)) / a;
    } else if m(0, 0) >= m(1, 1) && m(0, 0) >= m(2, 2) {
        b = 0.5 * (1.0 + m(0, 0) - m(1, 1) - m(2, 2)).sqrt();
        a = 0.25 * (m(2, 1) - m(1, 2)) / b;
        c = 0.25 * (m(0, 1) + m(1, 0)) / b;
        d = 0.25 * (m(0, 2) + m(2, 0)) / b;
    } else if m(1, 1) >= m(2, 2) {
        c = 0.5 * (1.0 + m(1, 1) - m(0, 0) - m(2, 2)).sqrt();
        a = 0.25 * (m(0, 2) - m(2, 0)) / c;
        b = 0.25 * (m(0, 1) + m(1, 0)) / c;
        d = 0.25 * (m(1, 2) + m(2, 1)) / c;
    } else {
        d = 0.5 * (1.0 + m(2, 2) - m(0, 0) - m(1, 1)).sqrt();
        a = 0.25 * (m(1, 0) - m(0, 1)) / d;
        b = 0.25 * (m(0, 2) + m(2, 0)) / d;
        c = 0.25 * (m(1, 2) + m(2, 1)) / d;
    }
    // The header has no room for the real part: it is taken as positive by readers.
    let sign = if a < 0.0 { -1.0 } else { 1.0 };
    NiftiAffine {
        srow,
        quaternion: [b * sign, c * sign, d * sign],
        offset,
        qfac,
        voxel_mm,
    }
}
