//! Routes readouts by their flags and checks them against the header.

use ismrmrd::{AcquisitionFlag as Flag, AcquisitionHeader};

use super::noise::kept_samples;
use super::oversampling::Placement;
use super::{IngestError, LinesOutside};
use crate::data::ScanEncoding;

/// What a readout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Noise,
    Imaging,
    /// Calibration and nothing else.
    Calibration,
    /// Set aside, and why.
    Aside(&'static str),
}

/// Reads the flags. The first that applies decides, in this order.
pub(crate) fn kind(head: &AcquisitionHeader) -> Kind {
    for (flag, kind) in [
        (Flag::IsNoiseMeasurement, Kind::Noise),
        (Flag::IsNavigationData, Kind::Aside("navigator")),
        (Flag::IsPhasecorrData, Kind::Aside("phase correction")),
        (Flag::IsHpfeedbackData, Kind::Aside("feedback")),
        (Flag::IsRtfeedbackData, Kind::Aside("feedback")),
        (Flag::IsDummyscanData, Kind::Aside("dummy")),
        (
            Flag::IsSurfacecoilcorrectionscanData,
            Kind::Aside("surface-coil correction"),
        ),
        (
            Flag::IsPhaseStabilizationReference,
            Kind::Aside("phase stabilisation"),
        ),
        (
            Flag::IsPhaseStabilization,
            Kind::Aside("phase stabilisation"),
        ),
        (Flag::IsParallelCalibrationAndImaging, Kind::Imaging),
        (Flag::IsParallelCalibration, Kind::Calibration),
    ] {
        if head.has(flag) {
            return kind;
        }
    }
    Kind::Imaging
}

/// Whether the samples are compressed, which no reader here undoes.
pub(crate) fn is_compressed(head: &AcquisitionHeader) -> bool {
    [
        Flag::Compression1,
        Flag::Compression2,
        Flag::Compression3,
        Flag::Compression4,
    ]
    .into_iter()
    .any(|f| head.has(f))
}

/// Where along the readout the samples go.
///
/// `center_sample` counts all samples, discarded ones included, in the order of increasing k: for a reversed
/// readout, after it was turned round (as Siemens' and Gadgetron's readers have it).
///
/// # Errors
/// [`IngestError::Readout`] when the samples do not fit the encoded matrix.
pub(crate) fn placement(
    acquisition: u64,
    head: &AcquisitionHeader,
    e: &ScanEncoding,
) -> Result<Placement, IngestError> {
    let n = e.encoded.matrix[0];
    let wrong = |what, found: String, needed: String| IngestError::Readout {
        acquisition,
        scan_counter: head.scan_counter,
        what,
        found,
        needed,
    };
    let is_reverse = head.has(Flag::IsReverse);
    let mut kept = kept_samples(head);
    let n_samples = usize::from(head.number_of_samples);
    if is_reverse {
        // discard_pre and _post are in order of time.
        kept = n_samples - kept.end..n_samples - kept.start;
    }
    if kept.is_empty() {
        return Err(wrong(
            "samples after discard_pre and discard_post",
            format!(
                "none of {n_samples} (discard {} and {})",
                head.discard_pre, head.discard_post
            ),
            "at least one".into(),
        ));
    }
    let start = (n / 2 + kept.start) as i64 - i64::from(head.center_sample);
    let end = start + kept.len() as i64;
    if start < 0 || end > n as i64 {
        return Err(wrong(
            "readout outside the encoded matrix",
            format!(
                "{} samples with centre at {} reach positions {start}..{end}",
                kept.len(),
                head.center_sample
            ),
            format!(
                "positions within 0..{n} (the header's encodedSpace matrix x is {n}, its centre {}): header and data contradict each other",
                n / 2
            ),
        ));
    }
    Ok(Placement {
        kept,
        start: start.unsigned_abs() as usize,
        is_reverse,
    })
}

/// Where the line goes on the grid, `(pe1, pe2)`; `None` when it is to be skipped.
///
/// # Errors
/// [`IngestError::LineOutside`].
pub(crate) fn line(
    acquisition: u64,
    head: &AcquisitionHeader,
    e: &ScanEncoding,
    outside: LinesOutside,
) -> Result<Option<(u32, u32)>, IngestError> {
    let mut index = [0u32; 2];
    let axes = [
        (
            "kspace_encode_step_1",
            head.idx.kspace_encode_step_1,
            e.pe1_centre,
            e.grid[1],
        ),
        (
            "kspace_encode_step_2",
            head.idx.kspace_encode_step_2,
            e.pe2_centre,
            e.grid[2],
        ),
    ];
    for (i, (axis, counter, centre, n)) in axes.into_iter().enumerate() {
        let position = i64::from(counter) - centre as i64 + (n / 2) as i64;
        match u32::try_from(position) {
            Ok(p) if (p as usize) < n => index[i] = p,
            _ if outside == LinesOutside::Skip => return Ok(None),
            _ => {
                return Err(IngestError::LineOutside {
                    acquisition,
                    scan_counter: head.scan_counter,
                    axis,
                    counter,
                    position,
                    centre,
                    half: n / 2,
                    n,
                });
            }
        }
    }
    Ok(Some((index[0], index[1])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Calibration, Space};

    fn encoding() -> ScanEncoding {
        let space = Space {
            matrix: [16, 10, 1],
            field_of_view_mm: [1.0; 3],
        };
        ScanEncoding {
            encoded: space,
            recon_space: space,
            pe1_centre: 3,
            pe2_centre: 0,
            last_line: [Some(7), Some(0)],
            first_line: [0, 0],
            acceleration: [1, 1],
            calibration: Calibration::Unstated,
            grid: [8, 10, 1],
        }
    }

    #[test]
    fn flags_route() {
        let mut h = AcquisitionHeader::default();
        assert_eq!(kind(&h), Kind::Imaging);
        h.set(Flag::IsParallelCalibration);
        assert_eq!(kind(&h), Kind::Calibration);
        h.set(Flag::IsParallelCalibrationAndImaging);
        assert_eq!(kind(&h), Kind::Imaging);
        h.set(Flag::IsPhasecorrData);
        assert_eq!(kind(&h), Kind::Aside("phase correction"));
        h.set(Flag::IsNoiseMeasurement);
        assert_eq!(kind(&h), Kind::Noise);
    }

    #[test]
    fn placement_by_hand() {
        let e = encoding();
        let mut h = AcquisitionHeader {
            number_of_samples: 16,
            center_sample: 8,
            ..Default::default()
        };
        assert_eq!(
            placement(0, &h, &e).unwrap(),
            Placement {
                kept: 0..16,
                start: 0,
                is_reverse: false
            }
        );
        // asymmetric echo: 12 samples, centre at 4
        h.number_of_samples = 12;
        h.center_sample = 4;
        assert_eq!(placement(0, &h, &e).unwrap().start, 4);
        // discarded samples count for the centre
        h.number_of_samples = 14;
        h.center_sample = 6;
        h.discard_pre = 1;
        h.discard_post = 3;
        assert_eq!(
            placement(0, &h, &e).unwrap(),
            Placement {
                kept: 1..11,
                start: 3,
                is_reverse: false
            }
        );
        h.set(Flag::IsReverse);
        assert_eq!(
            placement(0, &h, &e).unwrap(),
            Placement {
                kept: 3..13,
                start: 5,
                is_reverse: true
            }
        );
        h.number_of_samples = 32;
        let error = placement(7, &h, &e).unwrap_err().to_string();
        assert!(
            error.contains("acquisition 7") && error.contains("matrix x is 16"),
            "{error}"
        );
        h.discard_pre = 40;
        assert!(placement(7, &h, &e).is_err());
    }

    #[test]
    fn lines_by_hand() {
        let e = encoding();
        let mut h = AcquisitionHeader::default();
        // counter 3 is the centre, and the centre is index 5 of 10
        h.idx.kspace_encode_step_1 = 3;
        assert_eq!(line(0, &h, &e, LinesOutside::Refuse).unwrap(), Some((5, 0)));
        h.idx.kspace_encode_step_1 = 8;
        assert!(matches!(
            line(4, &h, &e, LinesOutside::Refuse),
            Err(IngestError::LineOutside {
                acquisition: 4,
                counter: 8,
                position: 10,
                ..
            })
        ));
        assert_eq!(line(4, &h, &e, LinesOutside::Skip).unwrap(), None);
        h.idx.kspace_encode_step_1 = 0;
        h.idx.kspace_encode_step_2 = 1;
        assert!(line(4, &h, &e, LinesOutside::Refuse).is_err());
    }
}
