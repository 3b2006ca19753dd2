//! Enhanced MR Image Storage: one multi-frame object per series, with shared and per-frame functional groups.
//!
//! The objects are marked `DERIVED`: `ORIGINAL` obliges to state absorption rates, coil types, saturation and more
//! for every frame (type 1C), which no MRD header carries; they are left out rather than invented.

use dicom_core::VR;
use dicom_dictionary_std::tags;

use super::{
    super::{Quantity, synthetic, timing},
    Item, Series,
    dataset::Dataset,
    modules, put_window,
    uid::Uids,
};
use crate::data::Note;

/// The whole object.
pub(super) fn dataset(series: &Series<'_>, items: &[Item<'_>], pixels: Vec<u16>) -> Dataset {
    let mut d = Dataset::default();
    let instance = Uids::instance(&series.uid, 1, &pixels);
    modules::sop(&mut d, series, &instance);
    modules::patient_and_study(&mut d, series);
    modules::series(&mut d, series);
    modules::equipment(&mut d, series, true);
    modules::provenance(&mut d, series);
    image(&mut d, series);
    modules::image_pixel(&mut d, &items[0]);
    sequence(&mut d, series, &items[0]);
    dimensions(&mut d, &series.uid);
    d.is(tags::INSTANCE_NUMBER, 1);
    d.is(tags::NUMBER_OF_FRAMES, items.len());
    d.item(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, |groups| {
        shared(groups, series)
    });
    let frames = items.iter().map(|item| per_frame(series, item)).collect();
    d.sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, frames);
    d.pixels(tags::PIXEL_DATA, pixels);
    d
}

fn frame_type(series: &Series<'_>) -> String {
    if let Some(s) = series.synthetic {
        return format!(
            "DERIVED\\PRIMARY\\OTHER\\{}",
            synthetic::contrast(s.kind, series.quantity)
        );
    }
    match series.quantity {
        Quantity::Snr | Quantity::Gfactor | Quantity::NoiseStd | Quantity::Sigma => {
            "DERIVED\\PRIMARY\\OTHER\\QUANTITY"
        }
        _ => "DERIVED\\PRIMARY\\OTHER\\NONE",
    }
    .to_owned()
}

/// Attributes that stand both at the top and in the frame type group.
fn description(d: &mut Dataset, series: &Series<'_>) {
    d.word(tags::PIXEL_PRESENTATION, VR::CS, "MONOCHROME");
    d.word(tags::VOLUMETRIC_PROPERTIES, VR::CS, "VOLUME");
    d.word(tags::VOLUME_BASED_CALCULATION_TECHNIQUE, VR::CS, "NONE");
    d.word(
        tags::COMPLEX_IMAGE_COMPONENT,
        VR::CS,
        match series.quantity {
            Quantity::Phase => "PHASE",
            Quantity::Real => "REAL",
            Quantity::Imag => "IMAGINARY",
            _ => "MAGNITUDE",
        },
    );
    d.word(tags::ACQUISITION_CONTRAST, VR::CS, "UNKNOWN");
}

fn image(d: &mut Dataset, series: &Series<'_>) {
    let header = &series.scan.header;
    d.word(tags::IMAGE_TYPE, VR::CS, &frame_type(series));
    description(d, series);
    // Must have a value (IEC, FDA, MHW, ...), and the header does not say which standard the scanner obeyed.
    d.word(tags::APPLICABLE_SAFETY_STANDARD_AGENCY, VR::CS, "UNKNOWN");
    d.word(tags::PRESENTATION_LUT_SHAPE, VR::CS, "IDENTITY");
    d.sequence(tags::ACQUISITION_CONTEXT_SEQUENCE, Vec::new());
    let (date, time) = content_time(d, series);
    d.word(tags::CONTENT_DATE, VR::DA, &date);
    d.word(tags::CONTENT_TIME, VR::TM, &time);
    let hz = header.experimental_conditions.h1_resonance_frequency_hz;
    if hz > 0 {
        d.word(tags::RESONANT_NUCLEUS, VR::CS, "1H");
    }
    let tesla = header
        .acquisition_system_information
        .as_ref()
        .and_then(|s| s.system_field_strength_t)
        .map(f64::from)
        .filter(|t| t.is_finite() && *t > 0.0);
    if let Some(tesla) = tesla {
        d.ds(tags::MAGNETIC_FIELD_STRENGTH, &[tesla]);
    }
}

/// What the header and the reconstruction know about the sequence, at the top of the object (a standard extension).
fn sequence(d: &mut Dataset, series: &Series<'_>, item: &Item<'_>) {
    let key = item.image.key;
    let times = timing::of(series.scan, key.contrast as usize);
    let number = |v: Option<f32>| v.map(f64::from).filter(|v| v.is_finite());
    if let Some(tr) = number(times.tr_ms) {
        d.ds(tags::REPETITION_TIME, &[tr]);
    }
    if let Some(ti) = number(times.ti_ms) {
        d.ds(tags::INVERSION_TIME, &[ti]);
    }
    if let Some(angle) = number(times.flip_angle_deg) {
        d.ds(tags::FLIP_ANGLE, &[angle]);
    }
    let encoding = series.scan.header.encoding.get(key.encoding_idx as usize);
    if let Some(train) = encoding
        .and_then(|e| e.echo_train_length)
        .filter(|n| *n > 0)
    {
        d.is(tags::ECHO_TRAIN_LENGTH, train as usize);
    }
    if let Some((technique, r)) = modules::acceleration(item, series) {
        d.word(tags::PARALLEL_ACQUISITION, VR::CS, "YES");
        d.word(tags::PARALLEL_ACQUISITION_TECHNIQUE, VR::CS, technique);
        d.fd(tags::PARALLEL_REDUCTION_FACTOR_IN_PLANE, &[r[0] as f64]);
        d.fd(tags::PARALLEL_REDUCTION_FACTOR_OUT_OF_PLANE, &[r[1] as f64]);
    }
}

/// When the content was made; the standard wants a value. The scan's own date and time, so that a second run gives the
/// same object; a header without them gives 1900-01-01, with a note.
fn content_time(d: &mut Dataset, series: &Series<'_>) -> (String, String) {
    use super::dataset::{date, time};
    let header = &series.scan.header;
    let measurement = header.measurement_information.as_ref();
    let study = header.study_information.as_ref();
    let day = measurement
        .and_then(|m| m.series_date.as_deref())
        .and_then(date)
        .or_else(|| study.and_then(|s| s.study_date.as_deref()).and_then(date));
    let clock = measurement
        .and_then(|m| m.series_time.as_deref())
        .and_then(time)
        .or_else(|| study.and_then(|s| s.study_time.as_deref()).and_then(time));
    if day.is_none() {
        d.notes.push(Note::new(
            "dicom_date_assumed",
            "the header gives no date: Enhanced MR must have a content date and gets 1900-01-01",
        ));
    }
    (
        day.unwrap_or_else(|| "19000101".into()),
        clock.unwrap_or_else(|| "000000".into()),
    )
}

/// Stack, place in the stack, time: the order a viewer sorts by.
fn dimensions(d: &mut Dataset, series_uid: &str) {
    let organisation = Uids::dimensions(series_uid);
    d.item(tags::DIMENSION_ORGANIZATION_SEQUENCE, |item| {
        item.word(tags::DIMENSION_ORGANIZATION_UID, VR::UI, &organisation);
    });
    let pointers = [
        (tags::STACK_ID, "Stack"),
        (tags::IN_STACK_POSITION_NUMBER, "Slice"),
        (tags::TEMPORAL_POSITION_INDEX, "Time"),
    ];
    let items = pointers
        .into_iter()
        .map(|(tag, label)| {
            let mut item = Dataset::default();
            item.word(tags::DIMENSION_ORGANIZATION_UID, VR::UI, &organisation);
            item.at(tags::DIMENSION_INDEX_POINTER, tag);
            item.at(tags::FUNCTIONAL_GROUP_POINTER, tags::FRAME_CONTENT_SEQUENCE);
            item.text(tags::DIMENSION_DESCRIPTION_LABEL, VR::LO, label);
            item
        })
        .collect();
    d.sequence(tags::DIMENSION_INDEX_SEQUENCE, items);
}

fn shared(groups: &mut Dataset, series: &Series<'_>) {
    groups.item(tags::MR_IMAGE_FRAME_TYPE_SEQUENCE, |d| {
        d.word(tags::FRAME_TYPE, VR::CS, &frame_type(series));
        description(d, series);
    });
    groups.item(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, |d| {
        d.ds(tags::RESCALE_INTERCEPT, &[series.scaling.intercept]);
        d.ds(tags::RESCALE_SLOPE, &[series.scaling.slope]);
        d.word(tags::RESCALE_TYPE, VR::LO, "US");
    });
    groups.item(tags::FRAME_VOILUT_SEQUENCE, |d| {
        put_window(d, series.window, tags::WINDOW_CENTER, tags::WINDOW_WIDTH);
    });
    modules::real_world(groups, series);
    groups.item(tags::FRAME_ANATOMY_SEQUENCE, |d| {
        d.word(tags::FRAME_LATERALITY, VR::CS, "U");
        // The header's body part is free text: the code for "some body part" claims nothing.
        d.code(
            tags::ANATOMIC_REGION_SEQUENCE,
            "38866009",
            "SCT",
            "Body part",
        );
    });
}

fn per_frame(series: &Series<'_>, item: &Item<'_>) -> Dataset {
    let mut groups = Dataset::default();
    let p = &item.plane;
    let (stack, slice, time) = (
        item.stack_idx as u32 + 1,
        item.slice_in_stack as u32 + 1,
        item.frame.0 as u32 + 1,
    );
    groups.item(tags::FRAME_CONTENT_SEQUENCE, |d| {
        d.word(tags::STACK_ID, VR::SH, &stack.to_string());
        d.ul(tags::IN_STACK_POSITION_NUMBER, &[slice]);
        d.ul(tags::TEMPORAL_POSITION_INDEX, &[time]);
        d.ul(tags::DIMENSION_INDEX_VALUES, &[stack, slice, time]);
    });
    groups.item(tags::PIXEL_MEASURES_SEQUENCE, |d| {
        d.ds(tags::PIXEL_SPACING, &p.pixel_spacing);
        d.ds(tags::SLICE_THICKNESS, &[item.thickness_mm]);
        if let Some(spacing) = item.spacing_mm {
            d.ds(tags::SPACING_BETWEEN_SLICES, &[spacing]);
        }
    });
    groups.item(tags::PLANE_POSITION_SEQUENCE, |d| {
        d.ds(tags::IMAGE_POSITION_PATIENT, &p.position);
    });
    groups.item(tags::PLANE_ORIENTATION_SEQUENCE, |d| {
        d.ds(
            tags::IMAGE_ORIENTATION_PATIENT,
            &[p.row_dir, p.column_dir].concat(),
        );
    });
    echo_time(&mut groups, series, item);
    groups
}

/// The echo time of the frame's contrast, if the header gives it.
///
/// The MR Timing and MR Modifier groups are left out: whoever writes them must state absorption rates, saturation and
/// compensation as well. What is known of them stands at the top, see [`sequence`].
fn echo_time(groups: &mut Dataset, series: &Series<'_>, item: &Item<'_>) {
    let key = item.image.key;
    let times = timing::of(series.scan, key.contrast as usize);
    let number = |v: Option<f32>| v.map(f64::from).filter(|v| v.is_finite());
    if let Some(te) = number(times.te_ms) {
        groups.item(tags::MR_ECHO_SEQUENCE, |d| {
            d.fd(tags::EFFECTIVE_ECHO_TIME, &[te])
        });
    }
}
