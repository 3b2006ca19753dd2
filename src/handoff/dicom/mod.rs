//! DICOM: classic MR images (one file per slice) and Enhanced MR (one multi-frame file per series).
//!
//! Images -> files. Attributes come from the scan's header; what the header does not say is left empty where the
//! standard allows (type 2) or left out (type 3), never invented. Source: DICOM PS3.3 A.4, A.36, C.7, C.8.3, C.8.13.

mod classic;
mod dataset;
mod enhanced;
mod modules;
mod scaling;
mod uid;

use std::path::{Path, PathBuf};

use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileDicomObject, FileMetaTableBuilder, InMemDicomObject};
use rayon::prelude::*;

pub(in crate::handoff) use classic::image_type;

use self::{dataset::Dataset, scaling::Scaling, uid::Uids};
use super::{
    DicomKind, HandoffError, HandoffParams, Quantity,
    deliver::{DeliveredFile, Staging},
    orient::{self, Display, Plane},
    quantity::{extract, window},
    stack::{Stack, describe},
    synthetic,
};
use crate::data::{Note, ReconImage, Scan, Synthetic, SyntheticKind};

/// One displayed slice of the series.
struct Item<'a> {
    image: &'a ReconImage,
    /// Partition within the image.
    z: usize,
    plane: Plane,
    display: Display,
    thickness_mm: f64,
    /// Distance between neighbouring slices, if they are evenly spaced.
    spacing_mm: Option<f64>,
    /// Which stack (contrast, set, ...), from 0.
    stack_idx: usize,
    /// Place in the stack, from 0.
    slice_in_stack: usize,
    /// Frame (repetition and cardiac phase), from 0, and how many there are.
    frame: (usize, usize),
}

impl Item<'_> {
    /// Height along the normal of the displayed slice, mm.
    fn location_mm(&self) -> f64 {
        orient::dot(
            self.plane.position,
            orient::cross(self.plane.row_dir, self.plane.column_dir),
        )
    }
}

/// What all objects of a series share.
struct Series<'a> {
    scan: &'a Scan,
    uids: &'a Uids,
    uid: String,
    number: usize,
    quantity: Quantity,
    scaling: Scaling,
    /// `[low, high]` in units of the quantity.
    window: [f32; 2],
    /// The first image: its provenance stands for the series.
    first: &'a ReconImage,
    /// The mark of any of its images.
    synthetic: Option<&'a Synthetic>,
    /// SOP class.
    class: &'static str,
}

/// Writes one series per quantity.
///
/// `folder`: classic files `magnitude-0001.dcm`, ... or one `magnitude.dcm` per series when Enhanced; otherwise `out`
/// names a single file, and other quantities get a suffix.
pub(super) fn write(
    staging: &mut Staging,
    images: &[ReconImage],
    stacks: &[Stack<'_>],
    scan: &Scan,
    out: &Path,
    is_folder: bool,
    params: &HandoffParams,
) -> Result<(), HandoffError> {
    let uids = Uids::of(scan, images);
    let items = items(stacks);
    let is_enhanced = match params.dicom.kind {
        DicomKind::Enhanced => true,
        DicomKind::Classic if !is_folder && items.len() > 1 => {
            return Err(HandoffError::Params {
                key: "dicom.kind",
                found: format!("\"classic\" for one file with {} slices", items.len()),
                needed: "a folder as output, or dicom.kind = \"enhanced\"",
            });
        }
        DicomKind::Classic => false,
        DicomKind::Auto => !is_folder && items.len() > 1,
    };
    check_sizes(&items, is_enhanced)?;
    let class = if is_enhanced { "enhanced" } else { "classic" };
    let mark = synthetic::of(images);
    for (i, &quantity) in params.quantities.iter().enumerate() {
        let is_hounsfield = synthetic::is_hounsfield(mark, quantity);
        if is_hounsfield && is_enhanced {
            return Err(HandoffError::Params {
                key: "dicom.kind",
                found: "\"enhanced\" for a synthetic CT".into(),
                needed: "a folder of classic objects: Enhanced CT would have to state an acquisition that never was",
            });
        }
        // HU are read by what reads CT; the maps beside them by what reads MR.
        let class_uid = match (is_enhanced, is_hounsfield) {
            (true, _) => uids::ENHANCED_MR_IMAGE_STORAGE,
            (_, true) => uids::CT_IMAGE_STORAGE,
            _ => uids::MR_IMAGE_STORAGE,
        };
        let (scaling, window) = survey(&items, quantity, params.window_percentiles)?;
        let series = Series {
            scan,
            uids: &uids,
            uid: uids.series(quantity, class),
            number: series_number(scan, params) + series_offset(mark) + i,
            quantity,
            scaling,
            window,
            first: items[0].image,
            synthetic: mark,
            class: class_uid,
        };
        let stored = pixels(&items, &series)?;
        if is_enhanced {
            let path = if is_folder {
                out.join(format!("{}.dcm", quantity.name()))
            } else {
                super::with_suffix(out, &quantity.suffix())
            };
            let dataset = enhanced::dataset(&series, &items, stored.concat());
            let notes = save(
                staging,
                dataset,
                path,
                "dicom_enhanced",
                class_uid,
                &series,
                items.len(),
            )?;
            notes.into_iter().for_each(|note| staging.note(note));
            continue;
        }
        for (n, (item, stored)) in items.iter().zip(stored).enumerate() {
            let path = if is_folder {
                out.join(format!("{}-{:04}.dcm", quantity.name(), n + 1))
            } else {
                super::with_suffix(out, &quantity.suffix())
            };
            let dataset = classic::dataset(&series, item, n + 1, stored);
            let notes = save(staging, dataset, path, "dicom", class_uid, &series, 1)?;
            notes.into_iter().for_each(|note| staging.note(note));
        }
    }
    Ok(())
}

fn items<'a>(stacks: &[Stack<'a>]) -> Vec<Item<'a>> {
    let mut items = Vec::new();
    for (stack_idx, stack) in stacks.iter().enumerate() {
        let display = Display::of(&stack.slices[0]);
        let n_partitions = stack.n_partitions();
        let spacing_mm = match &stack.block {
            Some(block) if stack.n_z() > 1 => Some(f64::from(block.voxel_mm[2])),
            _ => None,
        };
        for (frame_idx, frame) in stack.frames.iter().enumerate() {
            for (s, image) in frame.iter().enumerate() {
                for z in 0..n_partitions {
                    items.push(Item {
                        image,
                        z,
                        plane: display.plane(&stack.slices[s], z),
                        display,
                        thickness_mm: f64::from(stack.slices[s].voxel_mm[2]),
                        spacing_mm,
                        stack_idx,
                        slice_in_stack: s * n_partitions + z,
                        frame: (frame_idx, stack.frames.len()),
                    });
                }
            }
        }
    }
    items
}

/// Scaling and grey window over the whole series; also the place where every voxel is checked before any is written.
fn survey(
    items: &[Item<'_>],
    quantity: Quantity,
    percentiles: [f32; 2],
) -> Result<(Scaling, [f32; 2]), HandoffError> {
    let mut values: Vec<f32> = Vec::new();
    for item in items.iter().filter(|item| item.z == 0) {
        values.extend(extract(item.image, quantity)?.into_real());
    }
    let max = values.iter().fold(0.0_f32, |max, v| max.max(v.abs()));
    let min = values.iter().fold(0.0_f32, |min, v| min.min(*v));
    let window = window(&mut values, percentiles);
    let mark = synthetic::of(items.iter().map(|i| i.image));
    let scaling = if synthetic::is_hounsfield(mark, quantity) {
        Scaling::hounsfield([min, max])
    } else {
        Scaling::of(quantity, max)
    };
    Ok((scaling, window))
}

/// Stored pixels of every displayed slice; the voxels of an image are taken out once for all of its partitions.
fn pixels(items: &[Item<'_>], series: &Series<'_>) -> Result<Vec<Vec<u16>>, HandoffError> {
    let images: Vec<&[Item<'_>]> = items
        .chunk_by(|a, b| std::ptr::eq(a.image, b.image))
        .collect();
    let stored = images
        .par_iter()
        .map(|partitions| {
            let [nx, ny, _] = partitions[0].image.geometry.matrix;
            let plane = nx * ny;
            let values = extract(partitions[0].image, series.quantity)?.into_real();
            let slice = |item: &Item<'_>| {
                let voxels = &values[item.z * plane..(item.z + 1) * plane];
                series.scaling.store(&item.display.apply(voxels, nx, ny))
            };
            Ok(partitions.iter().map(slice).collect())
        })
        .collect::<Result<Vec<Vec<Vec<u16>>>, HandoffError>>()?;
    Ok(stored.into_iter().flatten().collect())
}

/// Rows and columns are 16-bit numbers, and a multi-frame object has one size for all frames.
fn check_sizes(items: &[Item<'_>], is_enhanced: bool) -> Result<(), HandoffError> {
    let first = &items[0].plane;
    for item in items {
        let p = &item.plane;
        let is_same = (p.rows, p.columns) == (first.rows, first.columns);
        if p.rows.max(p.columns) > usize::from(u16::MAX) || (is_enhanced && !is_same) {
            return Err(HandoffError::Shape {
                image: describe(item.image),
                found: format!("{} rows, {} columns", p.rows, p.columns),
                needed: format!(
                    "at most 65535 each, and in one Enhanced object {} x {} as its first frame",
                    first.rows, first.columns
                ),
            });
        }
    }
    Ok(())
}

/// Keeps synthetic series behind the measured one that they were made from.
fn series_offset(synthetic: Option<&Synthetic>) -> usize {
    match synthetic.map(|s| s.kind) {
        None => 0,
        Some(SyntheticKind::Stir) => 60,
        Some(SyntheticKind::T2fs) => 70,
        Some(SyntheticKind::Ct) => 80,
    }
}

fn series_number(scan: &Scan, params: &HandoffParams) -> usize {
    if params.dicom.series_number > 0 {
        return params.dicom.series_number as usize;
    }
    scan.header
        .measurement_information
        .as_ref()
        .and_then(|m| m.initial_series_number)
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| (1..=99_999).contains(n))
        .map_or(9000, |n| n * 100)
}

/// Encodes and stages one object.
fn save(
    staging: &mut Staging,
    dataset: Dataset,
    path: PathBuf,
    format: &'static str,
    class: &str,
    series: &Series<'_>,
    n_slices: usize,
) -> Result<Vec<Note>, HandoffError> {
    let (object, notes) = dataset.finish();
    let object = with_meta(object, class).map_err(|message| HandoffError::Dicom {
        path: path.clone(),
        message,
    })?;
    // Encoded in memory first: a fault of ours and a fault of the disk are then told apart.
    let mut bytes = Vec::new();
    object
        .write_all(&mut bytes)
        .map_err(|e| HandoffError::Dicom {
            path: path.clone(),
            message: e.to_string(),
        })?;
    let file = DeliveredFile {
        path,
        format,
        quantities: vec![series.quantity],
        n_slices,
        bytes: 0,
        window: Some(series.window),
    };
    staging.write(file, |out| std::io::Write::write_all(out, &bytes))?;
    Ok(notes)
}

fn with_meta(
    object: InMemDicomObject,
    class: &str,
) -> Result<FileDicomObject<InMemDicomObject>, String> {
    let instance = object
        .element(tags::SOP_INSTANCE_UID)
        .map_err(|e| e.to_string())?
        .to_str()
        .map_err(|e| e.to_string())?
        .into_owned();
    object
        .with_meta(
            FileMetaTableBuilder::new()
                .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
                .media_storage_sop_class_uid(class)
                .media_storage_sop_instance_uid(instance)
                .implementation_class_uid(uid::IMPLEMENTATION)
                .implementation_version_name("CAUDA"),
        )
        .map_err(|e| e.to_string())
}

/// Grey window as centre and width, with the function that gives it meaning: `LINEAR` needs a width of at least 1.
fn put_window(d: &mut Dataset, window: [f32; 2], centre: Tag, width: Tag) {
    let [low, high] = window.map(f64::from);
    d.ds(centre, &[0.5 * (low + high)]);
    d.ds(width, &[high - low]);
    if high - low < 1.0 {
        d.word(tags::VOILUT_FUNCTION, VR::CS, "LINEAR_EXACT");
    }
}
