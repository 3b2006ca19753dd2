//! The header doctor: contradictions between a header and its readouts, as marks.
//!
//! Nothing is repaired here. What a reader or ingest decides in the face of a contradiction is their own mark; this one
//! says that there is a contradiction, where, and what both sides say.

use ismrmrd::header::{Encoding, Limit, Trajectory};
use ismrmrd::{AcquisitionHeader, Header};

use super::summary::Summary;
use crate::data::Note;

/// Whether the three directions are unit vectors at right angles, to 1 in 100.
pub(super) fn is_orthonormal(head: &AcquisitionHeader) -> bool {
    let d = [head.read_dir, head.phase_dir, head.slice_dir];
    let dot = |a: [f32; 3], b: [f32; 3]| -> f64 {
        (0..3).map(|i| f64::from(a[i]) * f64::from(b[i])).sum()
    };
    (0..3).all(|i| (0..3).all(|j| (dot(d[i], d[j]) - f64::from(u8::from(i == j))).abs() < 0.01))
}

/// All contradictions found.
pub(super) fn examine(summary: &Summary, header: &Header) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut mark = |code, text: String| notes.push(Note::new(code, text));
    let image_lines = summary.purposes.imaging + summary.purposes.calibration_and_imaging;

    if let Some(number) = summary.tally.encoding_beyond {
        mark(
            "encoding_beyond_header",
            format!(
                "readouts refer to encoding {number}, the header has {}",
                header.encoding.len()
            ),
        );
    }
    if summary.not_finite > 0 {
        mark(
            "samples_not_finite",
            format!("{} samples are NaN or infinite", summary.not_finite),
        );
    }
    if !summary.silent_coils.is_empty() {
        mark(
            "silent_coil",
            format!("coils {:?} hold nothing but zeros", summary.silent_coils),
        );
    }
    if let Some(coils) = summary.coils {
        if coils.min != coils.max {
            mark(
                "mixed_coil_counts",
                format!("readouts have {} to {} channels", coils.min, coils.max),
            );
        }
        let stated = header
            .acquisition_system_information
            .as_ref()
            .and_then(|s| s.receiver_channels);
        if let Some(stated) = stated
            && stated != u32::from(coils.max)
        {
            mark(
                "channels_differ_from_header",
                format!(
                    "the header says {stated} receiver channels, readouts have {}",
                    coils.max
                ),
            );
        }
    }
    if summary.tally.centre_beyond > 0 {
        mark(
            "centre_sample_outside",
            format!(
                "{} readouts have their centre sample outside their samples",
                summary.tally.centre_beyond
            ),
        );
    }
    if summary.tally.bad_directions > 0 {
        mark(
            "directions_not_orthonormal",
            format!(
                "{} of {image_lines} image lines have directions that are no unit vectors at right angles",
                summary.tally.bad_directions
            ),
        );
    }
    if image_lines > 0 && summary.tally.last_in_slice == 0 {
        mark(
            "no_last_in_slice",
            "no readout is flagged as the last of its slice: images come out at the end of the scan only".into(),
        );
    }
    for (i, encoding) in header.encoding.iter().enumerate() {
        examine_encoding(summary, i, encoding, header.encoding.len() == 1, &mut mark);
    }
    if header.encoding.is_empty() {
        mark(
            "no_encoding",
            "the header has no encoding: matrix and field of view are unknown".into(),
        );
    }
    notes
}

fn examine_encoding(
    summary: &Summary,
    index: usize,
    encoding: &Encoding,
    is_only: bool,
    mark: &mut dyn FnMut(&'static str, String),
) {
    let at = |what: &str| format!("encoding[{index}].{what}");
    for (name, space) in [
        ("encodedSpace", &encoding.encoded_space),
        ("reconSpace", &encoding.recon_space),
    ] {
        if space.matrix_size.contains(&0) {
            mark(
                "matrix_zero",
                format!("{}: {:?}", at(name), space.matrix_size),
            );
        }
        if space
            .field_of_view_mm
            .iter()
            .any(|mm| !mm.is_finite() || *mm <= 0.0)
        {
            mark(
                "field_of_view_not_positive",
                format!("{}: {:?} mm", at(name), space.field_of_view_mm),
            );
        }
    }
    let [x, y, z] = encoding.encoded_space.matrix_size;
    for ((number, samples), count) in &summary.tally.samples_seen {
        let differs = u32::from(*samples) != x && usize::from(*number) == index;
        if differs && encoding.trajectory == Trajectory::Cartesian {
            let cause = match (u32::from(*samples) > x, summary.tally.asymmetric > 0) {
                (true, _) => "more than the grid has",
                (false, true) => "asymmetric echo, or a grid that is too large",
                (false, false) => "fewer than the grid has, though the echo is in the middle",
            };
            mark(
                "samples_differ_from_matrix",
                format!(
                    "{count} readouts have {samples} samples, {} says {x}: {cause}",
                    at("encodedSpace")
                ),
            );
        }
    }
    // Counters are not kept per encoding, so limits are compared only when there is one.
    if !is_only {
        return;
    }
    let limits = &encoding.encoding_limits;
    for (name, limit, counter) in [
        (
            "kspace_encoding_step_1",
            limits.kspace_encoding_step_1,
            "kspace_encode_step_1",
        ),
        (
            "kspace_encoding_step_2",
            limits.kspace_encoding_step_2,
            "kspace_encode_step_2",
        ),
        ("average", limits.average, "average"),
        ("slice", limits.slice, "slice"),
        ("contrast", limits.contrast, "contrast"),
        ("phase", limits.phase, "phase"),
        ("repetition", limits.repetition, "repetition"),
        ("set", limits.set, "set"),
        ("segment", limits.segment, "segment"),
    ] {
        let (
            Some(Limit {
                minimum,
                maximum,
                center,
            }),
            Some(range),
        ) = (limit, summary.counters.get(counter))
        else {
            continue;
        };
        let (low, high) = (u32::from(range.min), u32::from(range.max));
        if low < minimum || high > maximum {
            mark(
                "counter_outside_limits",
                format!(
                    "{counter} runs {low}..={high}, {} says {minimum}..={maximum}",
                    at(&format!("encodingLimits.{name}"))
                ),
            );
        } else if high < maximum {
            mark(
                "counter_below_limit",
                format!(
                    "{counter} ends at {high}, {} announces {maximum}: the scan may be incomplete, or lines at the edge are \
                     not acquired",
                    at(&format!("encodingLimits.{name}"))
                ),
            );
        }
        if center > maximum || (center < minimum && maximum > 0) {
            mark(
                "centre_outside_limits",
                format!(
                    "{}: centre {center}, limits {minimum}..={maximum}",
                    at(&format!("encodingLimits.{name}"))
                ),
            );
        }
    }
    for (name, limit, n) in [
        ("kspace_encoding_step_1", limits.kspace_encoding_step_1, y),
        ("kspace_encoding_step_2", limits.kspace_encoding_step_2, z),
    ] {
        if let Some(limit) = limit
            && encoding.trajectory == Trajectory::Cartesian
        {
            let measured = limit
                .maximum
                .saturating_sub(limit.minimum)
                .saturating_add(1);
            // Lines on either side of the centre must fit a grid with its centre at n/2.
            let fits =
                limit.center <= n / 2 && limit.maximum.saturating_sub(limit.center) < n - n / 2;
            if n > 0 && !fits {
                mark(
                    "lines_outside_grid",
                    format!(
                        "{}: lines {}..={} about centre {} do not fit the {n} lines of the encoded matrix",
                        at(&format!("encodingLimits.{name}")),
                        limit.minimum,
                        limit.maximum,
                        limit.center
                    ),
                );
            } else if measured < n {
                mark(
                    "partial_fourier",
                    format!(
                        "{name}: {measured} of {n} lines, centre at {}: partial Fourier or zero filling",
                        limit.center
                    ),
                );
            }
        }
    }
    if let Some(p) = &encoding.parallel_imaging {
        let stated = p.acceleration_factor;
        let steps: Vec<u16> = {
            let first = summary.tally.lines.first().map(|l| l.0);
            summary
                .tally
                .lines
                .iter()
                .filter(|l| Some(l.0) == first)
                .map(|l| l.1)
                .collect()
        };
        let widest = steps
            .windows(2)
            .map(|w| u32::from(w[1] - w[0]))
            .max()
            .unwrap_or(1);
        if z <= 1 && steps.len() > 1 && widest != stated[0].max(1) {
            mark(
                "acceleration_differs",
                format!(
                    "{} says acceleration {}, the widest gap between measured lines is {widest}",
                    at("parallelImaging"),
                    stated[0]
                ),
            );
        }
        let flagged = summary.purposes.calibration + summary.purposes.calibration_and_imaging;
        if stated.iter().any(|&r| r > 1) && flagged == 0 {
            mark(
                "no_calibration_flags",
                format!(
                    "acceleration {} x {} is stated, but no readout is flagged for calibration",
                    stated[0], stated[1]
                ),
            );
        }
    }
    if encoding.trajectory != Trajectory::Cartesian
        && encoding.trajectory != Trajectory::Epi
        && summary.with_trajectory == 0
    {
        mark(
            "trajectory_absent",
            format!(
                "the trajectory is {}, but readouts carry none",
                encoding.trajectory.word()
            ),
        );
    }
}
