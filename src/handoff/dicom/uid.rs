//! Unique identifiers: the scan's own where it has them, else derived from what identifies it.
//!
//! A second run of the same scan with the same protocol and the same program gives the same study, series and
//! instance identifiers, and the same bytes, so that an archive sees a repetition as one. What changes an image
//! changes its instance identifier: the voxels are part of it. Identifiers are `2.25.` and a name-based UUID (PS3.5
//! B.2; RFC 9562 version 5).
//!
//! A header without any identification (no study or measurement identifier) is told apart by its voxels alone; its
//! series from two protocols then land in two studies.

use uuid::Uuid;

use super::super::Quantity;
use crate::data::{ReconImage, Scan};

/// The name space of everything derived here; drawn once at random.
const SPACE: Uuid = Uuid::from_u128(0x3a1c_64f5_9f0e_4b2b_8d5e_7c40_52aa_91c7);

/// Identifies this implementation in the file meta information.
pub(super) const IMPLEMENTATION: &str = "2.25.77242655768649673467776165688327705031";

/// `2.25.` and the UUID of a name made of `parts`.
fn derive(parts: &[&str]) -> String {
    // Lengths in front keep ("ab", "c") and ("a", "bc") apart.
    let name: String = parts.iter().map(|p| format!("{}:{p};", p.len())).collect();
    format!("2.25.{}", Uuid::new_v5(&SPACE, name.as_bytes()).as_u128())
}

/// Whether a text is a DICOM identifier: digits and dots, at most 64, no component with a leading zero.
pub(super) fn is_valid(uid: &str) -> bool {
    uid.len() <= 64
        && uid.contains('.')
        && uid.split('.').all(|part| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_digit())
                && (part.len() == 1 || !part.starts_with('0'))
        })
}

/// Digest of the voxels of one image.
fn digest(image: &ReconImage) -> String {
    let bytes: &[u8] = bytemuck::cast_slice(&image.voxels);
    Uuid::new_v5(&SPACE, bytes).to_string()
}

/// Identifiers of one scan.
pub(super) struct Uids {
    pub(super) study: String,
    pub(super) frame_of_reference: String,
    measurement: String,
    recipe: String,
}

impl Uids {
    pub(super) fn of(scan: &Scan, images: &[ReconImage]) -> Self {
        let header = &scan.header;
        let study = header.study_information.as_ref();
        let measurement = header.measurement_information.as_ref();
        let subject = header.subject_information.as_ref();
        let system = header.acquisition_system_information.as_ref();
        let text = |value: Option<&String>| value.map_or("", |v| v.trim()).to_owned();

        let measurement_id = text(measurement.and_then(|m| m.measurement_id.as_ref()));
        let root = text(measurement.and_then(|m| m.series_instance_uid_root.as_ref()));
        let frame = text(measurement.and_then(|m| m.frame_of_reference_uid.as_ref()));
        let study_uid = text(study.and_then(|s| s.study_instance_uid.as_ref()));
        let study_id = text(study.and_then(|s| s.study_id.as_ref()));
        let study_date = text(study.and_then(|s| s.study_date.as_ref()));
        let study_time = text(study.and_then(|s| s.study_time.as_ref()));
        let accession = study
            .and_then(|s| s.accession_number)
            .map_or(String::new(), |a| a.to_string());

        let is_identified = !measurement_id.is_empty()
            || !root.is_empty()
            || is_valid(&study_uid)
            || (!study_date.is_empty() && !study_time.is_empty());
        let content = if is_identified {
            String::new()
        } else {
            images.iter().map(digest).collect()
        };
        let identity = [
            text(subject.and_then(|s| s.patient_id.as_ref())),
            text(subject.and_then(|s| s.patient_name.as_ref())),
            text(system.and_then(|s| s.station_name.as_ref())),
            text(system.and_then(|s| s.device_serial_number.as_ref())),
            study_id,
            study_date,
            study_time,
            accession,
            content,
        ];
        let mut parts: Vec<&str> = vec!["study"];
        parts.extend(identity.iter().map(String::as_str));
        // Measurements of one study share these; without any of them each measurement is a study of its own.
        if identity[4..8].iter().all(String::is_empty) {
            parts.push(&measurement_id);
            parts.push(&root);
        }
        let study = if is_valid(&study_uid) {
            study_uid
        } else {
            derive(&parts)
        };
        let measurement = derive(&["measurement", &study, &measurement_id, &root, &identity[8]]);
        // Without a stated frame of reference nothing says that two measurements share one.
        let frame_of_reference = if is_valid(&frame) {
            frame
        } else {
            derive(&["frame of reference", &measurement])
        };
        let mut recipe = String::from(env!("CARGO_PKG_VERSION"));
        if let Some(image) = images.first() {
            recipe += &image.provenance.protocol;
            for step in &image.provenance.steps {
                recipe += &format!("\n{} {} {}", step.op, step.backend, step.detail);
            }
        }
        Self {
            study,
            frame_of_reference,
            measurement,
            recipe,
        }
    }

    /// One series per measurement, quantity and way of reconstruction.
    pub(super) fn series(&self, quantity: Quantity, class: &str) -> String {
        derive(&[
            "series",
            &self.measurement,
            quantity.name(),
            class,
            &self.recipe,
        ])
    }

    /// One instance per set of pixels.
    pub(super) fn instance(series: &str, number: usize, pixels: &[u16]) -> String {
        let content = Uuid::new_v5(&SPACE, bytemuck::cast_slice(pixels)).to_string();
        derive(&["instance", series, &number.to_string(), &content])
    }

    /// The organisation of dimensions of a multi-frame object.
    pub(super) fn dimensions(series: &str) -> String {
        derive(&["dimensions", series])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity() {
        assert!(is_valid("1.2.840.10008.1.1"));
        assert!(is_valid(IMPLEMENTATION));
        assert!(is_valid(&derive(&["a", "b"])));
        for bad in ["", "1", "1..2", "1.02", "1.2a", &"1.".repeat(40)] {
            assert!(!is_valid(bad), "{bad}");
        }
    }

    #[test]
    fn parts_are_kept_apart() {
        assert_eq!(derive(&["ab", "c"]), derive(&["ab", "c"]));
        assert_ne!(derive(&["ab", "c"]), derive(&["a", "bc"]));
    }
}
