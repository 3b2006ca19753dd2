//! DICOM files and folders.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::series::{ReadSeries, Said, Slice, finished};
use super::{ImageArray, io};
use crate::data::{Complex32, Geometry, Synthetic};
use crate::handoff::{HandoffError, orient, synthetic};

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

/// Class and instance of a file.
pub(super) fn instance(file: &Path) -> Result<(String, String), HandoffError> {
    use dicom_dictionary_std::tags;
    let object = dicom_object::OpenFileOptions::new()
        .read_until(tags::PATIENT_NAME)
        .open_file(file)
        .map_err(|e| HandoffError::read(file, format!("no DICOM object ({e})"), "a DICOM file"))?;
    let text = |tag| {
        object
            .element(tag)
            .ok()
            .and_then(|e| e.to_str().ok().map(|s| uid(&s)))
            .unwrap_or_default()
    };
    Ok((text(tags::SOP_CLASS_UID), text(tags::SOP_INSTANCE_UID)))
}

/// Identifiers may end in NUL.
fn uid(text: &str) -> String {
    text.trim_end_matches('\0').trim().to_owned()
}

/// A series with its geometry and what its header says, from a folder or a file.
pub(super) fn series(path: &Path) -> Result<ReadSeries, HandoffError> {
    use dicom_core::Tag;
    use dicom_dictionary_std::tags;
    let mut files = vec![path.to_path_buf()];
    if path.is_dir() {
        files.clear();
        for entry in fs::read_dir(path).map_err(io(path))? {
            let file = entry.map_err(io(path))?.path();
            if file.is_file() {
                files.push(file);
            }
        }
        files.sort();
    }
    let (mut slices, mut instances) = (Vec::new(), Vec::new());
    let mut said: Option<(String, Said)> = None;
    for file in &files {
        let fault = |found: String, needed: &str| HandoffError::read(file, found, needed);
        let object = dicom_object::open_file(file).map_err(|e| {
            fault(
                format!("no DICOM object ({e})"),
                "only the slices of one series",
            )
        })?;
        type Item = dicom_object::InMemDicomObject;
        let top: &Item = &object;
        let first = |of: &Item, tag: Tag| -> Option<Item> {
            of.element(tag).ok()?.items()?.first().cloned()
        };
        let text = |of: &Item, tag: Tag| -> Option<String> {
            let element = of.element(tag).ok()?;
            let text = uid(&element.to_str().ok()?);
            (!text.is_empty()).then_some(text)
        };
        let numbers = |of: &Item, tag: Tag| -> Vec<f64> {
            let element = of.element(tag).ok();
            element
                .and_then(|e| e.to_multi_float64().ok())
                .unwrap_or_default()
        };
        let number = |of: &Item, tag: Tag| numbers(of, tag).first().copied();
        let count = |tag: Tag| top.element(tag).ok().and_then(|e| e.to_int::<usize>().ok());
        let id = text(top, tags::SERIES_INSTANCE_UID).unwrap_or_default();
        if said.as_ref().is_some_and(|(known, _)| *known != id) {
            return Err(HandoffError::read(
                path,
                "more than one DICOM series",
                "one series: give a folder that holds only one, or a single file",
            ));
        }
        let shared = first(top, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
        let frames: Vec<Item> = top
            .element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
            .ok()
            .and_then(|e| e.items().map(<[Item]>::to_vec))
            .unwrap_or_default();
        // An attribute where it stands: in a group of the frame, of all frames, or at the top.
        let find = |frame: Option<&Item>, group: Tag, tag: Tag| -> Vec<f64> {
            let groups = [frame, shared.as_ref()].into_iter().flatten();
            let found = groups
                .filter_map(|g| first(g, group))
                .map(|g| numbers(&g, tag));
            found
                .chain([numbers(top, tag)])
                .find(|v| !v.is_empty())
                .unwrap_or_default()
        };
        let (Some(rows), Some(columns)) = (count(tags::ROWS), count(tags::COLUMNS)) else {
            return Err(fault("no rows and columns".into(), "a DICOM image"));
        };
        let is_plain =
            count(tags::BITS_ALLOCATED) == Some(16) && count(tags::SAMPLES_PER_PIXEL) == Some(1);
        let is_signed = count(tags::PIXEL_REPRESENTATION) == Some(1);
        let pixels = top
            .element(tags::PIXEL_DATA)
            .ok()
            .filter(|_| is_plain)
            .and_then(|e| e.to_multi_int::<u16>().ok())
            .filter(|p| rows * columns > 0 && p.len().is_multiple_of(rows * columns))
            .ok_or_else(|| {
                fault(
                    "pixels in another form".into(),
                    "uncompressed 16-bit grey pixels",
                )
            })?;
        let is_synthetic =
            text(top, tags::SYNTHETIC_DATA).is_some_and(|v| v.eq_ignore_ascii_case("YES"));
        let mark = is_synthetic.then(|| Synthetic {
            kind: synthetic::kind_of(
                &(text(top, tags::IMAGE_TYPE).unwrap_or_default()
                    + &text(top, tags::SERIES_DESCRIPTION).unwrap_or_default()),
            ),
            model: text(top, tags::ALGORITHM_NAME).unwrap_or_else(|| "UNKNOWN".into()),
            version: text(top, tags::ALGORITHM_VERSION).unwrap_or_else(|| "UNKNOWN".into()),
            digest: text(top, tags::ALGORITHM_PARAMETERS)
                .and_then(|t| Some(t.strip_prefix("sha256 ")?.split(';').next()?.to_owned()))
                .unwrap_or_else(|| "UNKNOWN".into()),
            sources: Vec::new(),
            sigma: None,
            abstention: None,
            bone: None,
            domain: None,
        });
        for (i, plane) in pixels.chunks_exact(rows * columns).enumerate() {
            let frame = frames.get(i);
            let one = |v: Vec<f64>, usual: f64| v.first().copied().unwrap_or(usual);
            let group = tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE;
            let slope = one(find(frame, group, tags::RESCALE_SLOPE), 1.0);
            let intercept = one(find(frame, group, tags::RESCALE_INTERCEPT), 0.0);
            let place = find(
                frame,
                tags::PLANE_POSITION_SEQUENCE,
                tags::IMAGE_POSITION_PATIENT,
            );
            let axes = find(
                frame,
                tags::PLANE_ORIENTATION_SEQUENCE,
                tags::IMAGE_ORIENTATION_PATIENT,
            );
            let group = tags::PIXEL_MEASURES_SEQUENCE;
            let spacing = find(frame, group, tags::PIXEL_SPACING);
            let thickness = one(find(frame, group, tags::SLICE_THICKNESS), 0.0);
            let ([px, py, pz], [a, b, c, d, e, f], [row_mm, column_mm]) =
                (&place[..], &axes[..], &spacing[..])
            else {
                return Err(fault(
                    "no position, orientation and pixel spacing".into(),
                    "an image that says where it lies",
                ));
            };
            let (read, phase) = ([*a, *b, *c], [*d, *e, *f]);
            let along = |k: usize| {
                read[k] * column_mm * (columns / 2) as f64 + phase[k] * row_mm * (rows / 2) as f64
            };
            #[allow(clippy::cast_possible_truncation)] // storage precision
            let narrow = |v: [f64; 3]| v.map(|v| v as f32);
            let centre = [px + along(0), py + along(1), pz + along(2)];
            let voxel = |stored: &u16| {
                let stored = if is_signed {
                    f64::from(*stored as i16)
                } else {
                    f64::from(*stored)
                };
                #[allow(clippy::cast_possible_truncation)] // storage precision
                Complex32::new((stored * slope + intercept) as f32, 0.0)
            };
            slices.push(Slice {
                geometry: Geometry {
                    matrix: [columns, rows, 1],
                    voxel_mm: narrow([
                        *column_mm,
                        *row_mm,
                        if thickness > 0.0 { thickness } else { 1.0 },
                    ]),
                    centre_mm: narrow(centre),
                    read_dir: narrow(read),
                    phase_dir: narrow(phase),
                    slice_dir: narrow(orient::cross(read, phase)),
                },
                voxels: plane.iter().map(voxel).collect(),
                synthetic: mark.clone(),
            });
        }
        instances.push((
            text(top, tags::SOP_CLASS_UID).unwrap_or_default(),
            text(top, tags::SOP_INSTANCE_UID).unwrap_or_default(),
        ));
        if said.is_none() {
            let echo = frames
                .first()
                .and_then(|f| first(f, tags::MR_ECHO_SEQUENCE))
                .and_then(|g| number(&g, tags::EFFECTIVE_ECHO_TIME));
            let options = text(top, tags::SCAN_OPTIONS).filter(|o| {
                o.split('\\')
                    .any(|w| matches!(w.trim(), "FS" | "SFS" | "FATSAT_GEMS"))
            });
            let sequence = text(top, tags::SEQUENCE_NAME);
            said = Some((
                id,
                Said {
                    description: text(top, tags::SERIES_DESCRIPTION),
                    protocol: text(top, tags::PROTOCOL_NAME),
                    // Fat saturation is an option there, and a word of the sequence here.
                    sequence: match (sequence, options) {
                        (Some(s), Some(_)) => Some(format!("{s} fs")),
                        (None, Some(_)) => Some("fs".to_owned()),
                        (s, None) => s,
                    },
                    patient_id: text(top, tags::PATIENT_ID),
                    patient_name: text(top, tags::PATIENT_NAME),
                    study_uid: text(top, tags::STUDY_INSTANCE_UID),
                    study_id: text(top, tags::STUDY_ID),
                    study_date: text(top, tags::STUDY_DATE),
                    study_time: text(top, tags::STUDY_TIME),
                    frame_of_reference: text(top, tags::FRAME_OF_REFERENCE_UID),
                    body_part: text(top, tags::BODY_PART_EXAMINED),
                    patient_position: text(top, tags::PATIENT_POSITION),
                    series_number: text(top, tags::SERIES_NUMBER).and_then(|n| n.parse().ok()),
                    vendor: text(top, tags::MANUFACTURER),
                    tesla: number(top, tags::MAGNETIC_FIELD_STRENGTH),
                    tr_ms: number(top, tags::REPETITION_TIME),
                    te_ms: number(top, tags::ECHO_TIME).or(echo),
                    ti_ms: number(top, tags::INVERSION_TIME),
                    echo_train: number(top, tags::ECHO_TRAIN_LENGTH),
                },
            ));
        }
    }
    let header = said.map(|(_, s)| s.header()).unwrap_or_default();
    finished(path, header, slices, instances)
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
