//! Header in, validated [`Scan`] out: matrices, fields of view, limits and centres, once.

use std::sync::Arc;

use ismrmrd::header::{Encoding, Limit, Trajectory};

use super::IngestError;
use crate::data::{Calibration, Note, Scan, ScanEncoding, Space};

/// Largest extent of one axis, and largest number of voxels of a grid, that are believed. The counters of the
/// format are 16 bits wide; a header above this is damaged or hostile.
const MAX_EXTENT: u32 = 32_768;
const MAX_VOXELS: u64 = 1 << 31;

/// Validates the header.
///
/// # Errors
/// [`IngestError::NoEncoding`], [`IngestError::Header`]; [`IngestError::Trajectory`] when no encoding is Cartesian.
pub(crate) fn scan(header: &ismrmrd::Header) -> Result<(Scan, Vec<Note>), IngestError> {
    if header.encoding.is_empty() {
        return Err(IngestError::NoEncoding);
    }
    let mut notes = Vec::new();
    let mut encodings = Vec::new();
    let mut refused = Vec::new();
    for (i, e) in header.encoding.iter().enumerate() {
        if e.trajectory == Trajectory::Cartesian {
            encodings.push(Some(encoding(i, e, &mut notes)?));
        } else {
            refused.push(format!(
                "encoding {i} is {}",
                trajectory_word(&e.trajectory)
            ));
            encodings.push(None);
        }
    }
    if encodings.iter().all(Option::is_none) {
        return Err(IngestError::Trajectory {
            found: refused.join(", "),
        });
    }
    for reason in refused {
        notes.push(Note::new(
            "trajectory_unsupported",
            format!("{reason}: its readouts are left out (Cartesian scans are reconstructed)"),
        ));
    }
    let scan = Scan {
        header: Arc::new(header.clone()),
        encodings,
    };
    Ok((scan, notes))
}

fn trajectory_word(t: &Trajectory) -> String {
    match t {
        Trajectory::Cartesian => "cartesian".into(),
        Trajectory::Epi => "epi (ramp sampling and ghost correction are not there yet)".into(),
        Trajectory::Radial => "radial".into(),
        Trajectory::GoldenAngle => "goldenangle".into(),
        Trajectory::Spiral => "spiral".into(),
        Trajectory::Other => "other".into(),
        Trajectory::Unknown(word) => format!("\"{word}\""),
    }
}

fn space(
    i: usize,
    what: &'static str,
    s: &ismrmrd::header::EncodingSpace,
) -> Result<Space, IngestError> {
    let n = s.matrix_size;
    // A header may state anything: a product that wraps would pass the bound below.
    let voxels = n.iter().fold(1u64, |a, &v| a.saturating_mul(u64::from(v)));
    if n.iter().any(|&v| v == 0 || v > MAX_EXTENT) || voxels > MAX_VOXELS {
        return Err(IngestError::Header {
            encoding: i,
            what,
            found: format!("matrix {} x {} x {}", n[0], n[1], n[2]),
            needed: format!("1 to {MAX_EXTENT} along each axis, at most {MAX_VOXELS} in all"),
        });
    }
    let f = s.field_of_view_mm;
    if f.iter().any(|&v| !(v.is_finite() && v > 0.0)) {
        return Err(IngestError::Header {
            encoding: i,
            what,
            found: format!("field of view {} x {} x {} mm", f[0], f[1], f[2]),
            needed: "a positive extent along each axis: oversampling and voxel size follow from it"
                .into(),
        });
    }
    Ok(Space {
        matrix: n.map(|v| v as usize),
        field_of_view_mm: f,
    })
}

fn encoding(i: usize, e: &Encoding, notes: &mut Vec<Note>) -> Result<ScanEncoding, IngestError> {
    let encoded = space(i, "encodedSpace", &e.encoded_space)?;
    let recon_space = space(i, "reconSpace", &e.recon_space)?;
    let limits = &e.encoding_limits;
    let (pe1_centre, first1, last1) = axis(
        i,
        "kspace_encoding_step_1",
        limits.kspace_encoding_step_1,
        encoded.matrix[1],
        notes,
    );
    let (pe2_centre, first2, last2) = axis(
        i,
        "kspace_encoding_step_2",
        limits.kspace_encoding_step_2,
        encoded.matrix[2],
        notes,
    );
    let (acceleration, calibration) = match &e.parallel_imaging {
        None => ([1, 1], Calibration::Unstated),
        Some(p) => {
            if p.acceleration_factor.contains(&0) {
                notes.push(Note::new(
                    "acceleration_zero",
                    format!(
                        "encoding {i}: accelerationFactor {:?}: a factor of 0 is read as 1",
                        p.acceleration_factor
                    ),
                ));
            }
            let calibration = match p.calibration_mode.as_deref() {
                Some("embedded") => Calibration::Embedded,
                Some("interleaved") => Calibration::Interleaved,
                Some("separate") => Calibration::Separate,
                Some("external") => Calibration::External,
                _ => Calibration::Unstated,
            };
            (
                p.acceleration_factor.map(|v| (v as usize).max(1)),
                calibration,
            )
        }
    };
    let mut grid = encoded.matrix;
    grid[0] = readout_grid(i, &encoded, &recon_space, notes);
    Ok(ScanEncoding {
        encoded,
        recon_space,
        pe1_centre,
        pe2_centre,
        last_line: [last1, last2],
        first_line: [first1, first2],
        acceleration,
        calibration,
        grid,
    })
}

/// Centre, first and last line of one phase-encoding axis, by counter value.
fn axis(
    i: usize,
    name: &'static str,
    limit: Option<Limit>,
    n: usize,
    notes: &mut Vec<Note>,
) -> (usize, usize, Option<usize>) {
    match limit {
        // Converters that do not know the limits write zeros; for an axis of one line zeros are the truth.
        Some(Limit {
            minimum: 0,
            maximum: 0,
            center: 0,
        }) if n > 1 => {
            notes.push(Note::new(
                "limits_empty",
                format!(
                    "encoding {i}: {name} is 0..0 with centre 0 for {n} lines: read as unstated, centre {}",
                    n / 2
                ),
            ));
            (n / 2, 0, None)
        }
        Some(l) if l.center < l.minimum || l.center > l.maximum => {
            notes.push(Note::new(
                "centre_outside_limits",
                format!(
                    "encoding {i}: {name} announces lines {}..{} with centre {}: the centre is kept",
                    l.minimum, l.maximum, l.center
                ),
            ));
            (
                l.center as usize,
                l.minimum as usize,
                Some(l.maximum as usize),
            )
        }
        Some(l) => (
            l.center as usize,
            l.minimum as usize,
            Some(l.maximum as usize),
        ),
        None if n == 1 => (0, 0, Some(0)),
        None => {
            notes.push(Note::new(
                "centre_unstated",
                format!(
                    "encoding {i}: no {name} in encodingLimits: the centre is taken at line {}",
                    n / 2
                ),
            ));
            (n / 2, 0, None)
        }
    }
}

/// Samples along the readout when it is cropped to the recon field of view.
fn readout_grid(i: usize, encoded: &Space, recon: &Space, notes: &mut Vec<Note>) -> usize {
    let n = encoded.matrix[0];
    let (fov_enc, fov_rec) = (encoded.field_of_view_mm[0], recon.field_of_view_mm[0]);
    let exact = n as f64 * f64::from(fov_rec) / f64::from(fov_enc);
    if exact > n as f64 + 0.5 {
        notes.push(Note::new(
            "recon_fov_larger",
            format!(
                "encoding {i}: the recon field of view along the readout ({fov_rec} mm) is larger than the \
                 encoded one ({fov_enc} mm): nothing is cropped, the rim of the image is empty"
            ),
        ));
        return n;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 1..=n by the branch above
    let m = (exact.round().max(1.0) as usize).min(n);
    if (exact - m as f64).abs() > 0.01 {
        notes.push(Note::new(
            "readout_crop_rounded",
            format!(
                "encoding {i}: {fov_rec} of {fov_enc} mm is {exact:.3} of {n} samples along the readout: cropped to {m}"
            ),
        ));
    }
    m
}

#[cfg(test)]
mod tests {
    use super::*;
    use ismrmrd::header::{EncodingSpace, Header};

    fn header(matrix: [u32; 3], fov: [f32; 3], recon: [u32; 3], recon_fov: [f32; 3]) -> Header {
        Header {
            encoding: vec![Encoding {
                encoded_space: EncodingSpace {
                    matrix_size: matrix,
                    field_of_view_mm: fov,
                },
                recon_space: EncodingSpace {
                    matrix_size: recon,
                    field_of_view_mm: recon_fov,
                },
                ..Encoding::default()
            }],
            ..Header::default()
        }
    }

    #[test]
    fn oversampling_from_fields_of_view() {
        let h = header(
            [640, 380, 1],
            [640.0, 380.0, 5.0],
            [320, 320, 1],
            [320.0, 320.0, 5.0],
        );
        let (s, notes) = scan(&h).unwrap();
        let e = s.encodings[0].as_ref().unwrap();
        assert_eq!(e.grid, [320, 380, 1]);
        assert_eq!((e.pe1_centre, e.pe2_centre), (190, 0));
        assert_eq!(notes.len(), 1);
        assert_eq!(notes[0].code, "centre_unstated");
        // not only 2x: 1.25x
        let h = header(
            [400, 4, 1],
            [500.0, 4.0, 5.0],
            [320, 4, 1],
            [400.0, 4.0, 5.0],
        );
        assert_eq!(
            scan(&h).unwrap().0.encodings[0].as_ref().unwrap().grid[0],
            320
        );
    }

    #[test]
    fn bad_headers_are_refused() {
        assert!(matches!(
            scan(&Header::default()),
            Err(IngestError::NoEncoding)
        ));
        let h = header([0, 4, 1], [1.0; 3], [4, 4, 1], [1.0; 3]);
        assert!(matches!(scan(&h), Err(IngestError::Header { .. })));
        let h = header([4, 4, 1], [1.0, f32::NAN, 1.0], [4, 4, 1], [1.0; 3]);
        assert!(matches!(scan(&h), Err(IngestError::Header { .. })));
        let h = header([u32::MAX, 4, 1], [1.0; 3], [4, 4, 1], [1.0; 3]);
        assert!(matches!(scan(&h), Err(IngestError::Header { .. })));
        let mut h = header([4, 4, 1], [1.0; 3], [4, 4, 1], [1.0; 3]);
        h.encoding[0].trajectory = Trajectory::Spiral;
        let e = scan(&h).unwrap_err();
        assert!(e.to_string().contains("spiral"), "{e}");
    }

    #[test]
    fn limits_of_zeros_are_unstated() {
        let mut h = header([4, 8, 1], [4.0, 8.0, 1.0], [4, 8, 1], [4.0, 8.0, 1.0]);
        h.encoding[0].encoding_limits.kspace_encoding_step_1 = Some(Limit::default());
        let (s, notes) = scan(&h).unwrap();
        assert_eq!(s.encodings[0].as_ref().unwrap().pe1_centre, 4);
        assert_eq!(notes[0].code, "limits_empty");
    }
}
