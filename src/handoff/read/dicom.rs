//! DICOM files and folders.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{ImageArray, io};
use crate::data::Complex32;
use crate::handoff::HandoffError;

pub(super) fn folder(folder: &Path) -> Result<ImageArray, HandoffError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path();
        if path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("dcm"))
        {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(HandoffError::read(
            folder,
            "no .dcm file",
            "a folder of DICOM slices",
        ));
    }
    self::files(folder, files)
}

pub(super) fn files(path: &Path, files: Vec<PathBuf>) -> Result<ImageArray, HandoffError> {
    use dicom_core::Tag;
    use dicom_dictionary_std::tags;
    let mut slices = Vec::new();
    let mut series: Option<String> = None;
    let mut size = None;
    for file in files {
        let fault = |found: String, needed: &str| HandoffError::read(&file, found, needed);
        let object = dicom_object::open_file(&file)
            .map_err(|e| fault(format!("no DICOM object ({e})"), "a DICOM file"))?;
        let text = |tag: Tag| {
            object
                .element(tag)
                .ok()
                .and_then(|e| e.to_str().ok().map(|s| s.trim().to_owned()))
        };
        let number = |tag: Tag| text(tag).and_then(|t| t.parse::<f64>().ok());
        let uid = text(tags::SERIES_INSTANCE_UID).unwrap_or_default();
        if series.get_or_insert_with(|| uid.clone()) != &uid {
            return Err(HandoffError::read(
                path,
                "more than one DICOM series",
                "one series: give a folder that holds only one, or a single file",
            ));
        }
        let extent = |tag: Tag| {
            object
                .element(tag)
                .ok()
                .and_then(|e| e.to_int::<usize>().ok())
        };
        let (Some(rows), Some(columns)) = (extent(tags::ROWS), extent(tags::COLUMNS)) else {
            return Err(fault("no rows and columns".into(), "a DICOM image"));
        };
        if *size.get_or_insert((rows, columns)) != (rows, columns) {
            return Err(fault(
                format!("{rows} x {columns} pixels"),
                "the size of the other slices",
            ));
        }
        let is_plain =
            extent(tags::BITS_ALLOCATED) == Some(16) && extent(tags::SAMPLES_PER_PIXEL) == Some(1);
        let is_signed = extent(tags::PIXEL_REPRESENTATION) == Some(1);
        let pixels = object
            .element(tags::PIXEL_DATA)
            .ok()
            .filter(|_| is_plain)
            .and_then(|e| e.to_multi_int::<u16>().ok())
            .ok_or_else(|| {
                fault(
                    "pixels in another form".into(),
                    "uncompressed 16-bit grey pixels",
                )
            })?;
        let (slope, intercept) = rescale(&object, &number);
        let voxels: Vec<Complex32> = pixels
            .into_iter()
            .map(|stored| {
                let stored = if is_signed {
                    f64::from(stored as i16)
                } else {
                    f64::from(stored)
                };
                Complex32::new((stored * slope + intercept) as f32, 0.0)
            })
            .collect();
        slices.push((number(tags::INSTANCE_NUMBER).unwrap_or(0.0), voxels));
    }
    slices.sort_by(|a, b| a.0.total_cmp(&b.0));
    let voxels: Vec<Complex32> = slices.into_iter().flat_map(|(_, v)| v).collect();
    let (rows, columns) = size.unwrap_or((0, 0));
    let n = voxels.len() / (rows * columns).max(1);
    ImageArray::new(path, &[n, rows, columns], voxels, false)
}

/// Slope and intercept, at the top or in the shared functional groups.
fn rescale(
    object: &dicom_object::DefaultDicomObject,
    number: &impl Fn(dicom_core::Tag) -> Option<f64>,
) -> (f64, f64) {
    use dicom_dictionary_std::tags;
    let shared = |tag: dicom_core::Tag| -> Option<f64> {
        let groups = object
            .element(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE)
            .ok()?
            .items()?
            .first()?;
        let item = groups
            .element(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE)
            .ok()?
            .items()?
            .first()?;
        item.element(tag).ok()?.to_float64().ok()
    };
    let value = |tag| number(tag).or_else(|| shared(tag));
    (
        value(tags::RESCALE_SLOPE).unwrap_or(1.0),
        value(tags::RESCALE_INTERCEPT).unwrap_or(0.0),
    )
}
