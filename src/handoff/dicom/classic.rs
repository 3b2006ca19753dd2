//! MR Image Storage: one displayed slice per object.

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};

use super::{
    super::{Quantity, synthetic, timing},
    Item, Series,
    dataset::Dataset,
    modules, put_window,
    uid::Uids,
};
use crate::data::ReconImage;

/// The whole object.
pub(super) fn dataset(
    series: &Series<'_>,
    item: &Item<'_>,
    number: usize,
    pixels: Vec<u16>,
) -> Dataset {
    let mut d = Dataset::default();
    let instance = Uids::instance(&series.uid, number, &pixels);
    modules::sop(&mut d, series, &instance);
    modules::patient_and_study(&mut d, series);
    modules::series(&mut d, series);
    if series
        .scan
        .header
        .study_information
        .as_ref()
        .and_then(|s| s.body_part_examined.as_deref())
        .is_none_or(|b| b.trim().is_empty())
    {
        // It could be one of a pair: which side is then unknown, not absent.
        d.empty(tags::LATERALITY, VR::CS);
    }
    modules::equipment(&mut d, series, false);
    modules::provenance(&mut d, series);
    general_image(&mut d, series, item, number);
    image_plane(&mut d, item);
    let is_ct = series.class == uids::CT_IMAGE_STORAGE;
    if is_ct {
        ct_image(&mut d);
    } else {
        mr_image(&mut d, series, item);
    }
    modules::image_pixel(&mut d, item);
    d.ds(tags::RESCALE_INTERCEPT, &[series.scaling.intercept]);
    d.ds(tags::RESCALE_SLOPE, &[series.scaling.slope]);
    d.word(tags::RESCALE_TYPE, VR::LO, if is_ct { "HU" } else { "US" });
    modules::real_world(&mut d, series);
    put_window(
        &mut d,
        series.window,
        tags::WINDOW_CENTER,
        tags::WINDOW_WIDTH,
    );
    d.pixels(tags::PIXEL_DATA, pixels);
    d
}

/// Image Type, values 1 to 4. Value 3 must be a term of the MR module; value 4 is the letter that converters look for.
pub(in crate::handoff) fn image_type(quantity: Quantity, image: &ReconImage) -> String {
    if let Some(s) = image.synthetic.as_deref() {
        return format!(
            "DERIVED\\SECONDARY\\OTHER\\{}",
            synthetic::contrast(s.kind, quantity)
        );
    }
    measured(quantity, image.denoised.is_some()).to_owned()
}

fn measured(quantity: Quantity, is_denoised: bool) -> &'static str {
    match quantity {
        // What a network has touched is not what was measured.
        Quantity::Magnitude if is_denoised => "DERIVED\\PRIMARY\\OTHER\\M",
        Quantity::Phase if is_denoised => "DERIVED\\PRIMARY\\PHASE MAP\\P",
        Quantity::Real if is_denoised => "DERIVED\\PRIMARY\\OTHER\\R",
        Quantity::Imag if is_denoised => "DERIVED\\PRIMARY\\OTHER\\I",
        Quantity::Magnitude | Quantity::Complex | Quantity::Csm => "ORIGINAL\\PRIMARY\\OTHER\\M",
        Quantity::Phase => "ORIGINAL\\PRIMARY\\PHASE MAP\\P",
        Quantity::Real => "ORIGINAL\\PRIMARY\\OTHER\\R",
        Quantity::Imag => "ORIGINAL\\PRIMARY\\OTHER\\I",
        Quantity::Snr => "DERIVED\\PRIMARY\\OTHER\\SNR",
        Quantity::Gfactor => "DERIVED\\PRIMARY\\OTHER\\GFACTOR",
        Quantity::NoiseStd => "DERIVED\\PRIMARY\\OTHER\\NOISE",
        Quantity::Sigma => "DERIVED\\PRIMARY\\OTHER\\SIGMA",
        Quantity::Removed => "DERIVED\\PRIMARY\\OTHER\\REMOVED",
        Quantity::Abstention | Quantity::Bone | Quantity::Domain => "DERIVED\\SECONDARY\\OTHER\\M",
    }
}

fn general_image(d: &mut Dataset, series: &Series<'_>, item: &Item<'_>, number: usize) {
    d.word(
        tags::IMAGE_TYPE,
        VR::CS,
        &image_type(series.quantity, series.first),
    );
    d.is(tags::INSTANCE_NUMBER, number);
    if series.synthetic.is_some() {
        // There was none.
        d.empty(tags::ACQUISITION_NUMBER, VR::IS);
        return;
    }
    d.is(
        tags::ACQUISITION_NUMBER,
        usize::from(item.image.key.repetition) + 1,
    );
    let (frame, n_frames) = item.frame;
    if n_frames > 1 {
        d.is(tags::TEMPORAL_POSITION_IDENTIFIER, frame + 1);
        d.is(tags::NUMBER_OF_TEMPORAL_POSITIONS, n_frames);
    }
}

fn image_plane(d: &mut Dataset, item: &Item<'_>) {
    let p = &item.plane;
    d.ds(tags::PIXEL_SPACING, &p.pixel_spacing);
    d.ds(
        tags::IMAGE_ORIENTATION_PATIENT,
        &[p.row_dir, p.column_dir].concat(),
    );
    d.ds(tags::IMAGE_POSITION_PATIENT, &p.position);
    d.ds(tags::SLICE_THICKNESS, &[item.thickness_mm]);
    if let Some(spacing) = item.spacing_mm {
        d.ds(tags::SPACING_BETWEEN_SLICES, &[spacing]);
    }
    d.ds(tags::SLICE_LOCATION, &[item.location_mm()]);
}

/// CT Image: nothing of an acquisition, for there was none.
fn ct_image(d: &mut Dataset) {
    d.empty(tags::KVP, VR::DS);
}

fn mr_image(d: &mut Dataset, series: &Series<'_>, item: &Item<'_>) {
    let header = &series.scan.header;
    let key = item.image.key;
    let sequence = header.sequence_parameters.clone().unwrap_or_default();
    let measurement = header.measurement_information.clone().unwrap_or_default();
    let encoding = header.encoding.get(key.encoding_idx as usize);
    let times = timing::of(series.scan, key.contrast as usize);
    let train = encoding
        .and_then(|e| e.echo_train_length)
        .filter(|n| *n > 0);

    let (kind, variant) = sequence_kind(&sequence.sequence_type, times.ti_ms, train);
    d.word(tags::SCANNING_SEQUENCE, VR::CS, &kind);
    d.word(tags::SEQUENCE_VARIANT, VR::CS, variant);
    d.empty(tags::SCAN_OPTIONS, VR::CS);
    let n_partitions = item.image.geometry.matrix[2];
    d.word(
        tags::MR_ACQUISITION_TYPE,
        VR::CS,
        if n_partitions > 1 { "3D" } else { "2D" },
    );
    d.text_if(
        tags::SEQUENCE_NAME,
        VR::SH,
        measurement
            .sequence_name
            .as_deref()
            .or(sequence.sequence_type.as_deref()),
    );
    let number = |v: Option<f32>| v.map(f64::from).filter(|v| v.is_finite());
    match number(times.tr_ms) {
        Some(tr) => d.ds(tags::REPETITION_TIME, &[tr]),
        None => d.empty(tags::REPETITION_TIME, VR::DS),
    }
    match number(times.te_ms) {
        Some(te) => d.ds(tags::ECHO_TIME, &[te]),
        None => d.empty(tags::ECHO_TIME, VR::DS),
    }
    match number(times.ti_ms) {
        Some(ti) => d.ds(tags::INVERSION_TIME, &[ti]),
        None if kind.contains("IR") => d.empty(tags::INVERSION_TIME, VR::DS),
        None => {}
    }
    if let Some(angle) = number(times.flip_angle_deg) {
        d.ds(tags::FLIP_ANGLE, &[angle]);
    }
    match train {
        Some(n) => d.is(tags::ECHO_TRAIN_LENGTH, n as usize),
        None => d.empty(tags::ECHO_TRAIN_LENGTH, VR::IS),
    }
    d.is(tags::ECHO_NUMBERS, usize::from(key.contrast) + 1);
    let system = header.acquisition_system_information.as_ref();
    if let Some(tesla) = number(system.and_then(|s| s.system_field_strength_t)) {
        d.ds(tags::MAGNETIC_FIELD_STRENGTH, &[tesla]);
    }
    let hz = header.experimental_conditions.h1_resonance_frequency_hz;
    if hz > 0 {
        d.ds(tags::IMAGING_FREQUENCY, &[hz as f64 * 1e-6]);
        d.word(tags::IMAGED_NUCLEUS, VR::SH, "1H");
    }
    let is_transposed = item.display.transpose;
    d.word(
        tags::IN_PLANE_PHASE_ENCODING_DIRECTION,
        VR::CS,
        if is_transposed { "ROW" } else { "COL" },
    );
    if let Some(Some(encoding)) = series.scan.encodings.get(key.encoding_idx as usize) {
        let clip = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let (read, phase) = (clip(encoding.grid[0]), clip(encoding.grid[1]));
        // Frequency rows, frequency columns, phase rows, phase columns.
        let matrix = if is_transposed {
            [read, 0, 0, phase]
        } else {
            [0, read, phase, 0]
        };
        d.us(tags::ACQUISITION_MATRIX, &matrix);
        d.is(tags::NUMBER_OF_PHASE_ENCODING_STEPS, encoding.grid[1]);
    }
    if let Some((technique, r)) = modules::acceleration(item, series) {
        d.word(tags::PARALLEL_ACQUISITION, VR::CS, "YES");
        d.word(tags::PARALLEL_ACQUISITION_TECHNIQUE, VR::CS, technique);
        d.fd(tags::PARALLEL_REDUCTION_FACTOR_IN_PLANE, &[r[0] as f64]);
        d.fd(tags::PARALLEL_REDUCTION_FACTOR_OUT_OF_PLANE, &[r[1] as f64]);
    }
}

/// Scanning Sequence and Sequence Variant from the header's free text; `RM` (research mode) when it says nothing.
fn sequence_kind(
    text: &Option<String>,
    ti_ms: Option<f32>,
    train: Option<i64>,
) -> (String, &'static str) {
    let text = text.as_deref().unwrap_or("").to_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| text.contains(w));
    let mut kind = String::from(if has(&["epi"]) {
        "EP"
    } else if has(&["tse", "fse", "haste", "spin", "space", "rare"]) || text == "se" {
        "SE"
    } else if has(&["gre", "flash", "ssfp", "trufi", "spgr", "gradient", "fisp"]) {
        "GR"
    } else {
        "RM"
    });
    if ti_ms.is_some_and(|ti| ti > 0.0) && kind != "RM" {
        kind += "\\IR";
    }
    (
        kind,
        if train.is_some_and(|n| n > 1) {
            "SK"
        } else {
            "NONE"
        },
    )
}
