//! Voxels lie where they were measured: four planes, eight patient positions, slices and slabs, in NIfTI and DICOM.
//!
//! Golden positions come from `scripts/golden/make_orientation.py`, which shares nothing with this program. They are
//! checked here with a reader of a few lines, and by pydicom and nibabel where Python has them.

use std::{collections::BTreeMap, path::Path, process::Command};

use dicom_dictionary_std::tags;
use serde::Deserialize;

use super::{image, python, run, scan};
use crate::{
    data::{Complex32, Geometry, ReconImage},
    handoff::{DicomKind, HandoffParams, write},
};

const TOLERANCE_MM: f64 = 0.01;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize, Clone)]
struct Case {
    name: String,
    patient_position: String,
    kind: String,
    matrix: [usize; 3],
    voxel_mm: [f32; 3],
    read_dir: [f32; 3],
    phase_dir: [f32; 3],
    slice_dir: [f32; 3],
    centres_lps: Vec<[f64; 3]>,
    markers: Vec<Marker>,
}

#[derive(Deserialize, Clone)]
struct Marker {
    index: [usize; 3],
    value: f32,
    lps: [f64; 3],
    ras: [f64; 3],
}

fn cases() -> Vec<Case> {
    let text = include_str!("../../../tests/golden/orientation/cases.json");
    let golden: Golden = serde_json::from_str(text).unwrap();
    assert_eq!(golden.cases.len(), 4 * 8 * 2);
    golden.cases
}

fn images(case: &Case) -> Vec<ReconImage> {
    let [nx, ny, nz] = case.matrix;
    let is_3d = case.kind == "3d";
    case.centres_lps
        .iter()
        .enumerate()
        .map(|(s, centre)| {
            let geometry = Geometry {
                matrix: [nx, ny, if is_3d { nz } else { 1 }],
                voxel_mm: case.voxel_mm,
                centre_mm: centre.map(|v| v as f32),
                read_dir: case.read_dir,
                phase_dir: case.phase_dir,
                slice_dir: case.slice_dir,
            };
            image(s as u16, geometry, |x, y, z| {
                let index = [x, y, if is_3d { z } else { s }];
                let marker = case.markers.iter().find(|m| m.index == index);
                Complex32::new(marker.map_or(1.0, |m| m.value), 0.0)
            })
        })
        .collect()
}

type Places = BTreeMap<i64, [f64; 3]>;

/// Bright voxels of a NIfTI file in RAS, by `sform` and by `qform` as the header's documentation spells it out.
fn nifti_places(path: &Path) -> (Places, Places) {
    let h = std::fs::read(path).unwrap();
    let i16_at = |at: usize| i16::from_le_bytes([h[at], h[at + 1]]);
    let f32_at =
        |at: usize| f64::from(f32::from_le_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]));
    let n: Vec<usize> = (1..4).map(|i| i16_at(40 + 2 * i) as usize).collect();
    assert_eq!((i16_at(252), i16_at(254)), (1, 1));
    let (b, c, d) = (f32_at(256), f32_at(260), f32_at(264));
    let a = (1.0 - b * b - c * c - d * d).max(0.0).sqrt();
    let r = [
        [
            a * a + b * b - c * c - d * d,
            2.0 * (b * c - a * d),
            2.0 * (b * d + a * c),
        ],
        [
            2.0 * (b * c + a * d),
            a * a + c * c - b * b - d * d,
            2.0 * (c * d - a * b),
        ],
        [
            2.0 * (b * d - a * c),
            2.0 * (c * d + a * b),
            a * a + d * d - b * b - c * c,
        ],
    ];
    let pixdim: Vec<f64> = (0..4).map(|i| f32_at(76 + 4 * i)).collect();
    let (mut by_s, mut by_q) = (Places::new(), Places::new());
    for (v, bytes) in h[352..].chunks_exact(4).enumerate() {
        let value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        if value < 50.0 {
            continue;
        }
        let index = [v % n[0], v / n[0] % n[1], v / (n[0] * n[1])].map(|i| i as f64);
        let s = std::array::from_fn(|row| {
            let at = |k: usize| f32_at(280 + 16 * row + 4 * k);
            at(0) * index[0] + at(1) * index[1] + at(2) * index[2] + at(3)
        });
        let q = std::array::from_fn(|row| {
            r[row][0] * index[0] * pixdim[1]
                + r[row][1] * index[1] * pixdim[2]
                + pixdim[0] * r[row][2] * index[2] * pixdim[3]
                + f32_at(268 + 4 * row)
        });
        by_s.insert(value.round() as i64, s);
        by_q.insert(value.round() as i64, q);
    }
    (by_s, by_q)
}

/// Bright voxels of a folder of classic objects in LPS, by PS3.3 equation C.7.6.2.1-1.
fn dicom_places(folder: &Path, position: &str) -> Places {
    let mut places = Places::new();
    for name in super::names(folder) {
        let object = dicom_object::open_file(folder.join(name)).unwrap();
        let numbers = |tag| object.element(tag).unwrap().to_multi_float64().unwrap();
        assert_eq!(
            object
                .element(tags::PATIENT_POSITION)
                .unwrap()
                .to_str()
                .unwrap(),
            position
        );
        let columns = object
            .element(tags::COLUMNS)
            .unwrap()
            .to_int::<usize>()
            .unwrap();
        let (ipp, iop) = (
            numbers(tags::IMAGE_POSITION_PATIENT),
            numbers(tags::IMAGE_ORIENTATION_PATIENT),
        );
        let spacing = numbers(tags::PIXEL_SPACING);
        let slope = numbers(tags::RESCALE_SLOPE)[0];
        let pixels = object
            .element(tags::PIXEL_DATA)
            .unwrap()
            .to_multi_int::<u16>()
            .unwrap();
        for (i, stored) in pixels.into_iter().enumerate() {
            let value = f64::from(stored) * slope;
            if value < 50.0 {
                continue;
            }
            let (row, column) = ((i / columns) as f64, (i % columns) as f64);
            let place = std::array::from_fn(|k| {
                ipp[k] + iop[k] * spacing[1] * column + iop[3 + k] * spacing[0] * row
            });
            places.insert((value / 100.0).round() as i64 * 100, place);
        }
    }
    places
}

fn params(kind: DicomKind) -> HandoffParams {
    let mut params = HandoffParams::default();
    params.dicom.kind = kind;
    params
}

fn write_case(case: &Case, images: &[ReconImage], folder: &Path) {
    let scan = scan(&case.patient_position);
    for (name, kind) in [
        (format!("{}.nii", case.name), DicomKind::Auto),
        (format!("{}.nii.gz", case.name), DicomKind::Auto),
        (case.name.clone(), DicomKind::Classic),
        (format!("{}.dcm", case.name), DicomKind::Enhanced),
    ] {
        let delivered = write(images, &scan, &folder.join(name), &params(kind)).unwrap();
        assert!(delivered.notes.is_empty(), "{:?}", delivered.notes);
    }
}

/// Compares the written files of a case with its golden positions.
fn check(case: &Case, folder: &Path) -> Result<(), String> {
    let (by_s, by_q) = nifti_places(&folder.join(format!("{}.nii", case.name)));
    let dicom = dicom_places(&folder.join(&case.name), &case.patient_position);
    for marker in &case.markers {
        for (reader, places, golden) in [
            ("sform", &by_s, marker.ras),
            ("qform", &by_q, marker.ras),
            ("DICOM", &dicom, marker.lps),
        ] {
            let place = places
                .get(&(marker.value as i64))
                .ok_or_else(|| format!("{}: {reader} lacks value {}", case.name, marker.value))?;
            let off = (0..3)
                .map(|k| (place[k] - golden[k]).powi(2))
                .sum::<f64>()
                .sqrt();
            if off >= TOLERANCE_MM {
                return Err(format!(
                    "{}: {reader} puts voxel {:?} at {place:?}, golden {golden:?}",
                    case.name, marker.index
                ));
            }
        }
    }
    Ok(())
}

#[test]
fn voxels_lie_where_they_were_measured() {
    let folder = tempfile::tempdir().unwrap();
    for case in cases() {
        write_case(&case, &images(&case), folder.path());
        check(&case, folder.path()).unwrap();
    }
    if let Some(python) = python() {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/scripts/golden/check_orientation.py"
        );
        let said = run(Command::new(python).arg(script).arg(folder.path()));
        assert!(said.contains("64 cases"), "{said}");
        println!("{said}");
    }
}

/// Slices arrive in any order: the files do not change.
#[test]
fn order_of_arrival_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let case = cases()
        .into_iter()
        .find(|c| c.name == "oblique_FFDL_2d")
        .unwrap();
    let mut shuffled = images(&case);
    shuffled.reverse();
    shuffled.swap(0, 2);
    write_case(&case, &shuffled, folder.path());
    check(&case, folder.path()).unwrap();
}

/// The checker itself: each of these mistakes must be caught.
#[test]
fn wrong_geometry_is_caught() {
    type Twin = fn(&mut Geometry);
    let twins: [(&str, Twin); 6] = [
        ("patient position applied twice (prone)", |g| {
            for v in [
                &mut g.read_dir,
                &mut g.phase_dir,
                &mut g.slice_dir,
                &mut g.centre_mm,
            ] {
                v[0] = -v[0];
                v[1] = -v[1];
            }
        }),
        ("RAS taken for LPS in x only", |g| {
            g.centre_mm[0] = -g.centre_mm[0]
        }),
        ("centre between voxels instead of at n/2", |g| {
            for k in 0..3 {
                g.centre_mm[k] -= 0.5 * g.voxel_mm[0] * g.read_dir[k];
            }
        }),
        ("read and phase exchanged", |g| {
            std::mem::swap(&mut g.read_dir, &mut g.phase_dir)
        }),
        ("slice direction reversed", |g| {
            g.slice_dir = g.slice_dir.map(|v| -v)
        }),
        ("voxel sizes exchanged", |g| g.voxel_mm.swap(0, 1)),
    ];
    for name in ["oblique_HFP_3d", "sagittal_HFS_3d", "axial_FFS_3d"] {
        let case = cases().into_iter().find(|c| c.name == name).unwrap();
        for (what, twin) in twins {
            let folder = tempfile::tempdir().unwrap();
            let mut images = images(&case);
            images.iter_mut().for_each(|i| twin(&mut i.geometry));
            write_case(&case, &images, folder.path());
            assert!(
                check(&case, folder.path()).is_err(),
                "{name}: {what} went unseen"
            );
        }
    }
}

/// Displayed slices look as radiologists expect: IOP near the usual view for each plane.
#[test]
fn display_is_the_usual_view() {
    for case in cases() {
        let usual: [[f64; 3]; 2] = match case.name.split('_').next().unwrap() {
            "sagittal" => [[0.0, 1.0, 0.0], [0.0, 0.0, -1.0]],
            "coronal" => [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0]],
            "axial" => [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
            _ => continue,
        };
        let geometry = images(&case)[0].geometry;
        let plane = crate::handoff::orient::Display::of(&geometry).plane(&geometry, 0);
        assert_eq!(
            [plane.row_dir, plane.column_dir].map(|d| d.map(|v| v + 0.0)),
            usual,
            "{}",
            case.name
        );
    }
}
