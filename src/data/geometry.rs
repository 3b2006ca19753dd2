//! Where voxels lie in the patient. The one source of geometry for every output format.

/// A block of voxels in patient coordinates.
///
/// # Units
/// Millimetres, LPS (x to the patient's left, y posterior, z head), as in MRD and DICOM.
///
/// # Numerics
/// Voxel index `n/2` (integer division) of each axis lies at `centre_mm`: the convention of the discrete
/// Fourier transform with DC at `n/2`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometry {
    /// Voxels along read, phase, slice (x, y, z).
    pub matrix: [usize; 3],
    /// Voxel size along read, phase, slice; the last is the slice thickness for 2D.
    pub voxel_mm: [f32; 3],
    /// Position of voxel `[n/2, n/2, n/2]`.
    pub centre_mm: [f32; 3],
    /// Direction cosines of increasing x index.
    pub read_dir: [f32; 3],
    /// Direction cosines of increasing y index.
    pub phase_dir: [f32; 3],
    /// Direction cosines of increasing z index (slice normal).
    pub slice_dir: [f32; 3],
}

impl Geometry {
    /// Patient position (LPS, mm) of a voxel index `[x, y, z]`.
    pub fn voxel_to_patient(&self, index: [f64; 3]) -> [f64; 3] {
        let mut p = self.centre_mm.map(f64::from);
        for (axis, dir) in [self.read_dir, self.phase_dir, self.slice_dir]
            .iter()
            .enumerate()
        {
            let mm =
                (index[axis] - (self.matrix[axis] / 2) as f64) * f64::from(self.voxel_mm[axis]);
            for i in 0..3 {
                p[i] += mm * f64::from(dir[i]);
            }
        }
        p
    }

    /// Extent along read, phase, slice in mm.
    pub fn field_of_view_mm(&self) -> [f32; 3] {
        [0, 1, 2].map(|i| self.matrix[i] as f32 * self.voxel_mm[i])
    }
}
