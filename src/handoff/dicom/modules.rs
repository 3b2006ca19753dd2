//! Modules that classic and Enhanced objects share: patient, study, series, equipment, pixels, provenance.

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};

use super::super::{Quantity, synthetic};
use super::{
    Item, Series,
    dataset::{self, Dataset},
};
use crate::data::{Note, Synthetic, SyntheticKind};

/// The eight words of MRD and DICOM for how the patient lies.
const POSITIONS: [&str; 8] = ["HFS", "HFP", "HFDR", "HFDL", "FFS", "FFP", "FFDR", "FFDL"];

/// SOP Common, with UTF-8 as character set.
pub(super) fn sop(d: &mut Dataset, series: &Series<'_>, instance: &str) {
    d.word(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192");
    d.word(tags::SOP_CLASS_UID, VR::UI, series.class);
    d.word(tags::SOP_INSTANCE_UID, VR::UI, instance);
    // NO: reconstructed from measured k-space; no contrast in it was made up.
    let is_synthetic = series.synthetic.is_some();
    d.word(
        tags::SYNTHETIC_DATA,
        VR::CS,
        if is_synthetic { "YES" } else { "NO" },
    );
    if is_synthetic || series.class == uids::ENHANCED_MR_IMAGE_STORAGE {
        d.word(tags::CONTENT_QUALIFICATION, VR::CS, "RESEARCH");
    }
}

/// Patient, General Study, Patient Study.
pub(super) fn patient_and_study(d: &mut Dataset, series: &Series<'_>) {
    let header = &series.scan.header;
    let subject = header.subject_information.clone().unwrap_or_default();
    d.text_or_empty(tags::PATIENT_NAME, VR::PN, subject.patient_name.as_deref());
    d.text_or_empty(tags::PATIENT_ID, VR::LO, subject.patient_id.as_deref());
    put_date(
        d,
        tags::PATIENT_BIRTH_DATE,
        subject.patient_birthdate.as_deref(),
        true,
    );
    match subject.patient_gender.as_deref().map(str::trim) {
        Some(sex @ ("M" | "F" | "O")) => d.word(tags::PATIENT_SEX, VR::CS, sex),
        _ => d.empty(tags::PATIENT_SEX, VR::CS),
    }
    let positive = |v: Option<f32>| v.map(f64::from).filter(|v| v.is_finite() && *v > 0.0);
    if let Some(kg) = positive(subject.patient_weight_kg) {
        d.ds(tags::PATIENT_WEIGHT, &[kg]);
    }
    if let Some(m) = positive(subject.patient_height_m) {
        d.ds(tags::PATIENT_SIZE, &[m]);
    }

    let study = header.study_information.clone().unwrap_or_default();
    d.word(tags::STUDY_INSTANCE_UID, VR::UI, &series.uids.study);
    put_date(d, tags::STUDY_DATE, study.study_date.as_deref(), true);
    put_time(d, tags::STUDY_TIME, study.study_time.as_deref(), true);
    d.text_or_empty(tags::STUDY_ID, VR::SH, study.study_id.as_deref());
    let accession = study.accession_number.map(|n| n.to_string());
    d.text_or_empty(tags::ACCESSION_NUMBER, VR::SH, accession.as_deref());
    d.text_or_empty(
        tags::REFERRING_PHYSICIAN_NAME,
        VR::PN,
        study.referring_physician_name.as_deref(),
    );
    d.text_if(
        tags::STUDY_DESCRIPTION,
        VR::LO,
        study.study_description.as_deref(),
    );
}

/// A date; one that cannot be read is left empty with a note.
fn put_date(d: &mut Dataset, tag: dicom_core::Tag, text: Option<&str>, is_type_2: bool) {
    match text.map(|t| (t, dataset::date(t))) {
        Some((_, Some(date))) => d.word(tag, VR::DA, &date),
        other => {
            if let Some((text, None)) = other {
                note_unreadable(d, tag, text);
            }
            if is_type_2 {
                d.empty(tag, VR::DA);
            }
        }
    }
}

fn put_time(d: &mut Dataset, tag: dicom_core::Tag, text: Option<&str>, is_type_2: bool) {
    match text.map(|t| (t, dataset::time(t))) {
        Some((_, Some(time))) => d.word(tag, VR::TM, &time),
        other => {
            if let Some((text, None)) = other {
                note_unreadable(d, tag, text);
            }
            if is_type_2 {
                d.empty(tag, VR::TM);
            }
        }
    }
}

fn note_unreadable(d: &mut Dataset, tag: dicom_core::Tag, text: &str) {
    if !text.trim().is_empty() {
        d.notes.push(Note::new(
            "dicom_date_unreadable",
            format!(
                "DICOM attribute {tag} is left empty: the header's {text:?} is no date or time"
            ),
        ));
    }
}

/// General Series, MR Series, Frame of Reference.
pub(super) fn series(d: &mut Dataset, series: &Series<'_>) {
    let header = &series.scan.header;
    let measurement = header.measurement_information.clone().unwrap_or_default();
    let is_ct = series.class == uids::CT_IMAGE_STORAGE;
    d.word(tags::MODALITY, VR::CS, if is_ct { "CT" } else { "MR" });
    d.word(tags::SERIES_INSTANCE_UID, VR::UI, &series.uid);
    d.is(tags::SERIES_NUMBER, series.number);
    put_date(
        d,
        tags::SERIES_DATE,
        measurement.series_date.as_deref(),
        false,
    );
    put_time(
        d,
        tags::SERIES_TIME,
        measurement.series_time.as_deref(),
        false,
    );
    d.text(tags::SERIES_DESCRIPTION, VR::LO, &description(series));
    d.text_if(
        tags::PROTOCOL_NAME,
        VR::LO,
        measurement.protocol_name.as_deref(),
    );
    let body_part = header
        .study_information
        .as_ref()
        .and_then(|s| s.body_part_examined.as_deref());
    d.text_if(tags::BODY_PART_EXAMINED, VR::CS, body_part);
    // A label only: positions and directions are in patient coordinates already.
    let position = measurement.patient_position.trim();
    if POSITIONS.contains(&position) {
        d.word(tags::PATIENT_POSITION, VR::CS, position);
    } else {
        d.empty(tags::PATIENT_POSITION, VR::CS);
    }
    d.word(
        tags::FRAME_OF_REFERENCE_UID,
        VR::UI,
        &series.uids.frame_of_reference,
    );
    d.empty(tags::POSITION_REFERENCE_INDICATOR, VR::LO);
}

/// The scan's own name with what the voxels say behind it.
fn description(series: &Series<'_>) -> String {
    let measurement = series.scan.header.measurement_information.as_ref();
    let name = measurement
        .and_then(|m| {
            m.series_description
                .as_deref()
                .or(m.protocol_name.as_deref())
        })
        .map_or("", str::trim);
    let name = synthetic::named(series.synthetic, name);
    let what = match series.quantity {
        Quantity::Magnitude => "",
        Quantity::Phase => "phase",
        Quantity::Real => "real",
        Quantity::Imag => "imaginary",
        Quantity::Snr => "SNR",
        Quantity::Gfactor => "g-factor",
        Quantity::NoiseStd => "noise std",
        Quantity::Sigma => "error std",
        Quantity::Abstention => "abstention",
        Quantity::Bone => "bone",
        Quantity::Domain => "domain",
        Quantity::Complex | Quantity::Removed | Quantity::Csm => "complex",
    };
    // The name is what may be cut, never what tells the series apart.
    let room = 64 - if what.is_empty() { 0 } else { what.len() + 1 };
    let name: String = name.chars().take(room).collect();
    match (name.is_empty(), what.is_empty()) {
        (true, true) => "magnitude".into(),
        (true, false) => what.into(),
        (false, true) => name,
        (false, false) => format!("{name} {what}"),
    }
}

/// General Equipment; `needs_values` for Enhanced objects, where the four attributes may not be empty.
pub(super) fn equipment(d: &mut Dataset, series: &Series<'_>, needs_values: bool) {
    let system = series
        .scan
        .header
        .acquisition_system_information
        .clone()
        .unwrap_or_default();
    let unknown = needs_values.then_some("UNKNOWN");
    let or_unknown = |value: &Option<String>| -> Option<String> {
        value
            .clone()
            .filter(|v| !v.trim().is_empty())
            .or(unknown.map(str::to_owned))
    };
    d.text_or_empty(
        tags::MANUFACTURER,
        VR::LO,
        or_unknown(&system.system_vendor).as_deref(),
    );
    d.text_if(
        tags::MANUFACTURER_MODEL_NAME,
        VR::LO,
        or_unknown(&system.system_model).as_deref(),
    );
    d.text_if(
        tags::DEVICE_SERIAL_NUMBER,
        VR::LO,
        or_unknown(
            &system
                .device_serial_number
                .clone()
                .or(system.device_id.clone()),
        )
        .as_deref(),
    );
    d.text_if(
        tags::INSTITUTION_NAME,
        VR::LO,
        system.institution_name.as_deref(),
    );
    d.text_if(tags::STATION_NAME, VR::SH, system.station_name.as_deref());
    d.text(tags::SOFTWARE_VERSIONS, VR::LO, SOFTWARE);
}

const SOFTWARE: &str = concat!("cauda ", env!("CARGO_PKG_VERSION"));

/// Who made the pixels and how: Contributing Equipment, Derivation Description, Image Comments.
pub(super) fn provenance(d: &mut Dataset, series: &Series<'_>) {
    let provenance = &series.first.provenance;
    // These attributes hold 1024 letters: what a network did must not be what is cut off.
    let (networks, others): (Vec<_>, Vec<_>) = provenance
        .steps
        .iter()
        .partition(|s| s.op.starts_with("denoise/") || s.op.starts_with("synth/"));
    let steps: Vec<String> = networks
        .iter()
        .chain(&others)
        .map(|s| format!("{} [{}] {}", s.op, s.backend, s.detail))
        .collect();
    let mut text = match series.synthetic {
        Some(s) => format!(
            "{}. Not measured: made by the network {} {} (sha256 {}) from {} by ",
            s.sentence(),
            s.model,
            s.version,
            s.digest,
            s.sources
                .iter()
                .map(|s| format!("{} ({})", s.role, s.name))
                .collect::<Vec<_>>()
                .join(" and ")
        ),
        None => String::from("Reconstructed from k-space by "),
    };
    text += SOFTWARE;
    if !provenance.protocol.is_empty() {
        text += &format!(", protocol {}", provenance.protocol);
    }
    if !steps.is_empty() {
        text += &format!(": {}", steps.join("; "));
    }
    d.item(tags::CONTRIBUTING_EQUIPMENT_SEQUENCE, |item| {
        let (code, meaning) = match series.synthetic {
            Some(_) => ("109100", "Synthesizing Equipment"),
            None => ("109102", "Processing Equipment"),
        };
        item.code(
            tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE,
            code,
            "DCM",
            meaning,
        );
        item.text(tags::MANUFACTURER, VR::LO, "Cauda");
        item.text(tags::MANUFACTURER_MODEL_NAME, VR::LO, "cauda");
        item.text(tags::SOFTWARE_VERSIONS, VR::LO, env!("CARGO_PKG_VERSION"));
        item.text(tags::CONTRIBUTION_DESCRIPTION, VR::ST, &text);
    });
    d.text(tags::DERIVATION_DESCRIPTION, VR::ST, &text);
    let mut comments = series
        .synthetic
        .map_or_else(String::new, |s| format!("{}. ", s.sentence()));
    comments += &format!("Research use. {}", meaning(series).2);
    for note in &provenance.notes {
        comments += &format!("\n{}: {}", note.code, note.text);
    }
    d.text(tags::IMAGE_COMMENTS, VR::LT, &comments);
    if let Some(s) = series.synthetic {
        algorithm(d, s);
    }
}

/// Which network, and from which images.
fn algorithm(d: &mut Dataset, s: &Synthetic) {
    d.item(tags::ALGORITHM_FAMILY_CODE_SEQUENCE, |item| {
        item.text(tags::CODE_VALUE, VR::SH, "123110");
        item.text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, "DCM");
        item.text(tags::CODE_MEANING, VR::LO, "Artificial Intelligence");
    });
    d.text(tags::ALGORITHM_NAME, VR::LO, &s.model);
    d.text(tags::ALGORITHM_VERSION, VR::LO, &s.version);
    d.text(
        tags::ALGORITHM_PARAMETERS,
        VR::LT,
        &format!("sha256 {}; domain {:?}", s.digest, s.domain),
    );
    let instances: Vec<Dataset> = s
        .sources
        .iter()
        .flat_map(|s| &s.instances)
        .map(|(class, instance)| {
            let mut item = Dataset::default();
            item.word(tags::REFERENCED_SOP_CLASS_UID, VR::UI, class);
            item.word(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, instance);
            item.code(
                tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE,
                "121322",
                "DCM",
                "Source image for image processing operation",
            );
            item
        })
        .collect();
    if !instances.is_empty() {
        d.sequence(tags::SOURCE_IMAGE_SEQUENCE, instances);
    }
}

/// Image Pixel without the pixels.
pub(super) fn image_pixel(d: &mut Dataset, item: &Item<'_>) {
    d.us(tags::SAMPLES_PER_PIXEL, &[1]);
    d.word(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
    d.us(tags::ROWS, &[item.plane.rows as u16]);
    d.us(tags::COLUMNS, &[item.plane.columns as u16]);
    d.us(tags::BITS_ALLOCATED, &[16]);
    d.us(tags::BITS_STORED, &[16]);
    d.us(tags::HIGH_BIT, &[15]);
    d.us(tags::PIXEL_REPRESENTATION, &[0]);
    d.word(tags::BURNED_IN_ANNOTATION, VR::CS, "NO");
    d.word(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "00");
}

/// Unit code, its meaning, and a sentence for people.
fn meaning(series: &Series<'_>) -> (&'static str, &'static str, &'static str) {
    let is_ct = series
        .synthetic
        .is_some_and(|s| s.kind == SyntheticKind::Ct);
    match series.quantity {
        Quantity::Magnitude | Quantity::Real if is_ct => {
            ("[hnsf'U]", "Hounsfield unit", "CT numbers.")
        }
        Quantity::Sigma if series.synthetic.is_some() => {
            let (code, unit) = if is_ct {
                ("[hnsf'U]", "Hounsfield unit")
            } else {
                ("[arb'U]", "arbitrary unit")
            };
            (
                code,
                unit,
                "Standard deviation of the error, predicted by a network.",
            )
        }
        Quantity::Abstention => (
            "1",
            "no units",
            "1 where the network abstains: nothing may be read from the image there.",
        ),
        Quantity::Bone => ("1", "no units", "Probability of bone."),
        Quantity::Domain => (
            "1",
            "no units",
            "Distance from what the network was trained on; above 1 it is outside.",
        ),
        Quantity::Phase => ("rad", "radian", "Phase in radians."),
        Quantity::Snr => (
            "1",
            "no units",
            "Signal-to-noise ratio: magnitude over the standard deviation of the noise in one component.",
        ),
        Quantity::Gfactor => (
            "1",
            "no units",
            "g-factor: noise amplification by parallel imaging.",
        ),
        Quantity::NoiseStd => (
            "1",
            "no units",
            "Standard deviation of the noise in one component.",
        ),
        Quantity::Sigma => (
            "1",
            "no units",
            "Standard deviation of the error that is left in one component, predicted by a network.",
        ),
        _ => ("[arb'U]", "arbitrary unit", "Signal in arbitrary units."),
    }
}

/// Real World Value Mapping: the same numbers as the rescale, with their unit.
pub(super) fn real_world(d: &mut Dataset, series: &Series<'_>) {
    let (code, unit, _) = meaning(series);
    d.item(tags::REAL_WORLD_VALUE_MAPPING_SEQUENCE, |item| {
        item.us(tags::REAL_WORLD_VALUE_FIRST_VALUE_MAPPED, &[0]);
        item.us(tags::REAL_WORLD_VALUE_LAST_VALUE_MAPPED, &[u16::MAX]);
        item.fd(
            tags::REAL_WORLD_VALUE_INTERCEPT,
            &[series.scaling.intercept],
        );
        item.fd(tags::REAL_WORLD_VALUE_SLOPE, &[series.scaling.slope]);
        item.text(tags::LUT_EXPLANATION, VR::LO, series.quantity.name());
        item.text(tags::LUT_LABEL, VR::SH, series.quantity.name());
        item.code(tags::MEASUREMENT_UNITS_CODE_SEQUENCE, code, "UCUM", unit);
    });
}

/// Parallel imaging as it was done: technique and acceleration along pe1 and pe2; `None` for a full scan.
pub(super) fn acceleration(
    item: &Item<'_>,
    series: &Series<'_>,
) -> Option<(&'static str, [usize; 2])> {
    let encoding = series
        .scan
        .encodings
        .get(item.image.key.encoding_idx as usize)?
        .as_ref()?;
    let r = encoding.acceleration;
    if r[0] * r[1] <= 1 {
        return None;
    }
    let used = |word: &str| {
        item.image
            .provenance
            .steps
            .iter()
            .any(|s| s.op.contains(word))
    };
    // PILS, SENSE, SMASH, OTHER are the standard's defined terms; GRAPPA is the extension that vendors write.
    let technique = if used("grappa") {
        "GRAPPA"
    } else if used("sense") {
        "SENSE"
    } else {
        "OTHER"
    };
    Some((technique, r))
}
