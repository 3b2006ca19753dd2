//! Position and directions of the central readout in, geometry of the reconstructed image out.

use ismrmrd::AcquisitionHeader;

use super::IngestError;
use crate::data::{Geometry, Note, ScanEncoding};

/// Deviation from orthonormal that single-precision direction cosines have anyway.
const EXACT: f64 = 1e-3;
/// Deviation up to which directions are straightened, with a mark. Above it they are no axes.
const NEAR: f64 = 0.05;

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn scaled(a: [f64; 3], s: f64) -> [f64; 3] {
    a.map(|v| v * s)
}

/// Where the image of this frame lies: recon matrix and field of view around the readouts' position.
///
/// # Errors
/// [`IngestError::Orientation`] when the direction cosines are no axes.
pub(crate) fn geometry(
    key: &str,
    head: &AcquisitionHeader,
    encoding: &ScanEncoding,
    notes: &mut Vec<Note>,
) -> Result<Geometry, IngestError> {
    let recon = &encoding.recon_space;
    let voxel_mm = [0, 1, 2].map(|i| recon.field_of_view_mm[i] / recon.matrix[i] as f32);
    let (read_dir, phase_dir, slice_dir) = directions(key, head, notes)?;
    let centre_mm = if head.position.iter().all(|v| v.is_finite()) {
        head.position
    } else {
        notes.push(Note::new(
            "position_not_finite",
            format!(
                "position {:?} is not finite: the image is placed at the isocentre",
                head.position
            ),
        ));
        [0.0; 3]
    };
    Ok(Geometry {
        matrix: recon.matrix,
        voxel_mm,
        centre_mm,
        read_dir,
        phase_dir,
        slice_dir,
    })
}

/// Turns the directions of the encoded axes, for data whose vendor means a forward transform from k-space to image.
///
/// `conj(k)` under our inverse transform is the vendor's image; that is our image read against each encoded axis about
/// voxel `n/2`, which stays where it is.
///
/// # Source
/// mrpro, pull request 833 (conjugates the k-space of Siemens raw data); twixtools, `geometry.py` (negates read and
/// phase directions). Two independent findings; no vendor image in our data confirms them.
pub(crate) fn turn(geometry: &mut Geometry, is_3d: bool) {
    let turned = |d: [f32; 3]| d.map(|v| -v);
    geometry.read_dir = turned(geometry.read_dir);
    geometry.phase_dir = turned(geometry.phase_dir);
    if is_3d {
        geometry.slice_dir = turned(geometry.slice_dir);
    }
}

type Axes = ([f32; 3], [f32; 3], [f32; 3]);

fn directions(
    key: &str,
    head: &AcquisitionHeader,
    notes: &mut Vec<Note>,
) -> Result<Axes, IngestError> {
    let found = [head.read_dir, head.phase_dir, head.slice_dir];
    if found.iter().flatten().all(|&v| v == 0.0) {
        notes.push(Note::new(
            "no_orientation",
            "the readouts state no direction cosines: the image is given the axes left, posterior, head; \
             its orientation in the patient is unknown",
        ));
        return Ok(([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]));
    }
    let axes = found.map(|d| d.map(f64::from));
    let off = (0..3)
        .flat_map(|i| (0..3).map(move |j| (i, j)))
        .map(|(i, j)| (dot(axes[i], axes[j]) - f64::from(u8::from(i == j))).abs())
        // A NaN counts as infinitely wrong.
        .map(|v| if v.is_nan() { f64::INFINITY } else { v })
        .fold(0.0, f64::max);
    if off <= EXACT {
        return Ok((found[0], found[1], found[2]));
    }
    if off > NEAR {
        return Err(IngestError::Orientation {
            key: key.to_owned(),
            read: head.read_dir,
            phase: head.phase_dir,
            slice: head.slice_dir,
            off,
        });
    }
    notes.push(Note::new(
        "orientation_straightened",
        format!("direction cosines are off orthonormal by {off:.4}: straightened (Gram-Schmidt, read first)"),
    ));
    let read = scaled(axes[0], 1.0 / dot(axes[0], axes[0]).sqrt());
    let along = dot(axes[1], read);
    let phase = [0, 1, 2].map(|i| axes[1][i] - along * read[i]);
    let phase = scaled(phase, 1.0 / dot(phase, phase).sqrt());
    let cross = [
        read[1] * phase[2] - read[2] * phase[1],
        read[2] * phase[0] - read[0] * phase[2],
        read[0] * phase[1] - read[1] * phase[0],
    ];
    let slice = scaled(cross, dot(cross, axes[2]).signum());
    #[allow(clippy::cast_possible_truncation)] // storage precision
    let to_f32 = |a: [f64; 3]| a.map(|v| v as f32);
    Ok((to_f32(read), to_f32(phase), to_f32(slice)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Calibration, Space};

    fn encoding() -> ScanEncoding {
        let space = Space {
            matrix: [4, 6, 1],
            field_of_view_mm: [8.0, 9.0, 5.0],
        };
        ScanEncoding {
            encoded: space,
            recon_space: space,
            pe1_centre: 3,
            pe2_centre: 0,
            last_line: [Some(5), Some(0)],
            first_line: [0, 0],
            acceleration: [1, 1],
            calibration: Calibration::Unstated,
            grid: [4, 6, 1],
        }
    }

    #[test]
    fn turning_keeps_the_centre_and_mirrors_the_rest() {
        let head = AcquisitionHeader {
            position: [10.0, -20.0, 30.0],
            ..AcquisitionHeader::default()
        };
        let mut g = geometry("k", &head, &encoding(), &mut Vec::new()).unwrap();
        turn(&mut g, false);
        assert_eq!(g.voxel_to_patient([2.0, 3.0, 0.0]), [10.0, -20.0, 30.0]);
        assert_eq!(g.voxel_to_patient([3.0, 3.0, 0.0]), [8.0, -20.0, 30.0]);
        assert_eq!(g.voxel_to_patient([2.0, 5.0, 0.0]), [10.0, -23.0, 30.0]);
        assert_eq!(g.slice_dir, [0.0, 0.0, 1.0]);
        turn(&mut g, true);
        assert_eq!(g.slice_dir, [0.0, 0.0, -1.0]);
        assert_eq!(g.read_dir, [1.0, 0.0, 0.0]);
    }

    #[test]
    fn voxels_by_hand() {
        let mut head = AcquisitionHeader {
            position: [10.0, -20.0, 30.0],
            ..AcquisitionHeader::default()
        };
        head.read_dir = [0.0, 1.0, 0.0];
        head.phase_dir = [0.0, 0.0, -1.0];
        head.slice_dir = [-1.0, 0.0, 0.0];
        let mut notes = Vec::new();
        let g = geometry("k", &head, &encoding(), &mut notes).unwrap();
        assert!(notes.is_empty());
        assert_eq!(g.voxel_mm, [2.0, 1.5, 5.0]);
        assert_eq!(g.voxel_to_patient([2.0, 3.0, 0.0]), [10.0, -20.0, 30.0]);
        assert_eq!(g.voxel_to_patient([0.0, 0.0, 0.0]), [10.0, -24.0, 34.5]);
    }

    #[test]
    fn crooked_directions() {
        let mut notes = Vec::new();
        let mut head = AcquisitionHeader {
            read_dir: [1.02, 0.0, 0.0],
            ..AcquisitionHeader::default()
        };
        let g = geometry("k", &head, &encoding(), &mut notes).unwrap();
        assert_eq!(g.read_dir, [1.0, 0.0, 0.0]);
        assert_eq!(notes[0].code, "orientation_straightened");
        head.read_dir = [0.0, 1.0, 0.0];
        assert!(matches!(
            geometry("k", &head, &encoding(), &mut notes),
            Err(IngestError::Orientation { .. })
        ));
        head.read_dir = [f32::NAN, 0.0, 0.0];
        assert!(geometry("k", &head, &encoding(), &mut notes).is_err());
        head.read_dir = [0.0; 3];
        head.phase_dir = [0.0; 3];
        head.slice_dir = [0.0; 3];
        notes.clear();
        geometry("k", &head, &encoding(), &mut notes).unwrap();
        assert_eq!(notes[0].code, "no_orientation");
        // left-handed triples are axes too
        head = AcquisitionHeader {
            slice_dir: [0.0, 0.0, -1.0],
            ..AcquisitionHeader::default()
        };
        assert_eq!(
            geometry("k", &head, &encoding(), &mut notes)
                .unwrap()
                .slice_dir,
            [0.0, 0.0, -1.0]
        );
    }
}
