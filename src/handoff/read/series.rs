//! Images read back as what they were written from: a [`Scan`] with what the file says of it, and [`ReconImage`]s where
//! they lie. For what is made from finished images; a mark of the file (synthetic) stays with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ismrmrd::header as h;
use ismrmrd::{Header, Limits, Meta, Pixels};

use super::{dicom, nifti};
use crate::data::{
    AcquisitionStamps, Complex32, FrameKey, Geometry, Intensity, Note, Provenance, ReconImage,
    Scan, Synthetic,
};
use crate::handoff::{HandoffError, synthetic};

/// A series as read.
#[derive(Clone, Debug)]
pub struct ReadSeries {
    /// What the file says of the scan.
    pub scan: Scan,
    /// Its images, magnitudes as a rule.
    pub images: Vec<ReconImage>,
    /// DICOM class and instance of each.
    pub instances: Vec<(String, String)>,
}

/// What formats say of one image or slice.
pub(super) struct Slice {
    pub(super) geometry: Geometry,
    pub(super) voxels: Vec<Complex32>,
    pub(super) synthetic: Option<Synthetic>,
}

/// Reads a folder of DICOM slices, a DICOM file, NIfTI (with the `.json` beside it, if any) or ISMRMRD images in HDF5.
///
/// # Errors
/// As [`super::read_image`]; also where the file does not say where its voxels lie.
pub fn read_series(path: &Path) -> Result<ReadSeries, HandoffError> {
    if path.is_dir() {
        return dicom::series(path);
    }
    let head = head(path).map_err(super::io(path))?;
    if is_dicom(&head) {
        dicom::series(path)
    } else if is_nifti(&head) {
        nifti::series(path)
    } else if head.starts_with(b"\x89HDF") {
        ismrmrd_series(path)
    } else {
        Err(HandoffError::read(
            path,
            "content that is not read as a series of images",
            "DICOM (a file or a folder), NIfTI, or ISMRMRD images in HDF5",
        ))
    }
}

fn head(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut head = Vec::new();
    std::fs::File::open(path)?
        .take(512)
        .read_to_end(&mut head)?;
    Ok(head)
}

fn is_dicom(head: &[u8]) -> bool {
    head.get(128..132) == Some(b"DICM")
}

fn is_nifti(head: &[u8]) -> bool {
    head.starts_with(b"\x1f\x8b")
        || (head.get(344..347) == Some(b"n+1") && head.get(..4).is_some_and(|h| h != [0; 4]))
}

/// Whether a path is one of images and nothing else: DICOM, a folder with a DICOM file, NIfTI. HDF5 may hold either.
pub fn holds_images(path: &Path) -> bool {
    let is_it = |path: &Path| head(path).is_ok_and(|h| is_dicom(&h) || is_nifti(&h));
    if !path.is_dir() {
        return is_it(path);
    }
    let files = std::fs::read_dir(path).into_iter().flatten().flatten();
    files
        .map(|e| e.path())
        .any(|p| head(&p).is_ok_and(|h| is_dicom(&h)))
}

/// A scan and its images from what a file says.
pub(super) fn finished(
    path: &Path,
    header: Header,
    slices: Vec<Slice>,
    instances: Vec<(String, String)>,
) -> Result<ReadSeries, HandoffError> {
    if slices.is_empty() {
        return Err(HandoffError::read(path, "no images", "at least one"));
    }
    let input = format!("images of {}", path.display());
    let image = |(i, slice): (usize, Slice)| {
        let mut provenance = Provenance {
            input: input.clone(),
            ..Provenance::default()
        };
        if let Some(s) = &slice.synthetic {
            // What is made from it says so too.
            provenance
                .notes
                .push(Note::new("synthetic", format!("{}, as read", s.sentence())));
        }
        ReconImage {
            key: FrameKey {
                slice_idx: u16::try_from(i).unwrap_or(u16::MAX),
                ..FrameKey::default()
            },
            geometry: slice.geometry,
            table_position_mm: [0.0; 3],
            voxels: slice.voxels,
            intensity: Intensity::Arbitrary,
            noise_std: None,
            gfactor: None,
            finer: [1.0; 3],
            denoised: None,
            synthetic: slice.synthetic.map(Box::new),
            csm: None,
            stamps: AcquisitionStamps::default(),
            provenance,
        }
    };
    Ok(ReadSeries {
        images: slices.into_iter().enumerate().map(image).collect(),
        scan: Scan {
            header: Arc::new(header),
            encodings: Vec::new(),
        },
        instances,
    })
}

/// Images of an HDF5 file: those of magnitude, of the lowest series.
fn ismrmrd_series(path: &Path) -> Result<ReadSeries, HandoffError> {
    let file = ismrmrd::file::File::open(path, Limits::default())?;
    let groups = file.groups()?;
    let found = groups.iter().find_map(|g| {
        let names = g.images.iter().map(|i| i.name.clone());
        let number = |n: &String| n.rsplit('_').next().and_then(|w| w.parse::<u32>().ok());
        let chosen = names.min_by_key(|n| (number(n).unwrap_or(u32::MAX), n.clone()))?;
        Some((g.name.clone(), chosen))
    });
    let Some((group, name)) = found else {
        return Err(HandoffError::read(
            path,
            "no series of images",
            "ISMRMRD images",
        ));
    };
    let header = file.header(&group).unwrap_or_default();
    let mut slices = Vec::new();
    for image in file.images(&group, &name)? {
        let head = image.head;
        if head.channels > 1 {
            return Err(HandoffError::read(
                path,
                format!("images of {} channels", head.channels),
                "one",
            ));
        }
        let meta = Meta::parse(&image.attributes).unwrap_or_default();
        let matrix = head.matrix_size.map(usize::from);
        let real = |v: f64| Complex32::new(v as f32, 0.0);
        let voxels: Vec<Complex32> = match &image.pixels {
            Pixels::F32(v) => v.iter().map(|v| Complex32::new(*v, 0.0)).collect(),
            Pixels::C32(v) => v.clone(),
            Pixels::U16(v) => v.iter().map(|v| real(f64::from(*v))).collect(),
            Pixels::I16(v) => v.iter().map(|v| real(f64::from(*v))).collect(),
            Pixels::U32(v) => v.iter().map(|v| real(f64::from(*v))).collect(),
            Pixels::I32(v) => v.iter().map(|v| real(f64::from(*v))).collect(),
            Pixels::F64(v) => v.iter().map(|v| real(*v)).collect(),
            Pixels::C64(v) => v.iter().map(|v| super::to_c32(*v)).collect(),
        };
        slices.push(Slice {
            geometry: Geometry {
                matrix,
                voxel_mm: std::array::from_fn(|i| {
                    head.field_of_view[i] / f32::from(head.matrix_size[i].max(1))
                }),
                centre_mm: head.position,
                read_dir: head.read_dir,
                phase_dir: head.phase_dir,
                slice_dir: head.slice_dir,
            },
            voxels,
            synthetic: from_meta(&meta),
        });
    }
    finished(path, header, slices, Vec::new())
}

/// The mark from meta attributes.
fn from_meta(meta: &Meta) -> Option<Synthetic> {
    meta.get_str("SyntheticData")
        .filter(|v| v.eq_ignore_ascii_case("YES"))?;
    let text = |key: &str| meta.get_str(key).unwrap_or("UNKNOWN").to_owned();
    let value = serde_json::json!({
        "SyntheticData": "YES",
        "SyntheticKind": text("CaudaSyntheticKind"),
        "SeriesDescription": text("SeriesDescription"),
        "AlgorithmName": text("AlgorithmName"),
        "AlgorithmVersion": text("AlgorithmVersion"),
        "AlgorithmDigest": text("AlgorithmDigest"),
        "Domain": meta.get_str("CaudaDomain").and_then(|v| v.parse::<f64>().ok()),
    });
    let mut mark = synthetic::from_sidecar(&value)?;
    mark.sources = meta
        .get("CaudaSources")
        .unwrap_or_default()
        .iter()
        .filter_map(|s| s.split_once(": "))
        .map(|(role, name)| crate::data::SourceSeries {
            role: role.to_owned(),
            name: name.to_owned(),
            instances: Vec::new(),
        })
        .collect();
    Some(mark)
}

/// A header of what images say: names, times, identity.
#[derive(Default)]
pub(super) struct Said {
    pub(super) description: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) sequence: Option<String>,
    pub(super) patient_id: Option<String>,
    pub(super) patient_name: Option<String>,
    pub(super) study_uid: Option<String>,
    pub(super) study_id: Option<String>,
    pub(super) study_date: Option<String>,
    pub(super) study_time: Option<String>,
    pub(super) frame_of_reference: Option<String>,
    pub(super) body_part: Option<String>,
    pub(super) patient_position: Option<String>,
    pub(super) series_number: Option<i64>,
    pub(super) vendor: Option<String>,
    pub(super) tesla: Option<f64>,
    pub(super) tr_ms: Option<f64>,
    pub(super) te_ms: Option<f64>,
    pub(super) ti_ms: Option<f64>,
    pub(super) echo_train: Option<f64>,
}

impl Said {
    pub(super) fn header(self) -> Header {
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let list = |v: Option<f64>| -> Vec<f32> {
            v.filter(|v| v.is_finite() && *v > 0.0)
                .map(|v| v as f32)
                .into_iter()
                .collect()
        };
        #[allow(clippy::cast_possible_truncation)] // small whole numbers
        let train = self.echo_train.filter(|n| *n >= 1.0).map(|n| n as i64);
        Header {
            subject_information: Some(h::SubjectInformation {
                patient_name: self.patient_name,
                patient_id: self.patient_id,
                ..Default::default()
            }),
            study_information: Some(h::StudyInformation {
                study_instance_uid: self.study_uid,
                study_id: self.study_id,
                study_date: self.study_date,
                study_time: self.study_time,
                body_part_examined: self.body_part,
                ..Default::default()
            }),
            measurement_information: Some(h::MeasurementInformation {
                patient_position: self.patient_position.unwrap_or_default(),
                series_description: self.description,
                protocol_name: self.protocol,
                sequence_name: self.sequence,
                frame_of_reference_uid: self.frame_of_reference,
                initial_series_number: self.series_number,
                ..Default::default()
            }),
            acquisition_system_information: Some(h::AcquisitionSystemInformation {
                system_vendor: self.vendor,
                #[allow(clippy::cast_possible_truncation)] // storage precision
                system_field_strength_t: self.tesla.map(|v| v as f32),
                ..Default::default()
            }),
            encoding: vec![h::Encoding {
                echo_train_length: train,
                ..Default::default()
            }],
            sequence_parameters: Some(h::SequenceParameters {
                tr: list(self.tr_ms),
                te: list(self.te_ms),
                ti: list(self.ti_ms),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

/// DICOM classes and instances of files, for what refers to them.
///
/// # Errors
/// [`HandoffError::Read`] of a file that is no DICOM object.
pub fn dicom_instances(files: &[PathBuf]) -> Result<Vec<(String, String)>, HandoffError> {
    files.iter().map(|f| dicom::instance(f)).collect()
}
