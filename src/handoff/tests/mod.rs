//! Tests of the room: every format read back, by our own readers and by independent ones where they are installed.

mod formats;
mod orientation;
mod outside;
mod synthetic;

use std::{path::Path, process::Command, sync::Arc};

use crate::data::{
    AcquisitionStamps, Calibration, Complex32, Csm, Denoised, FrameKey, Geometry, Intensity, Note,
    Provenance, ReconImage, Scan, ScanEncoding, Space, Step,
};

/// A scan with a well-filled header.
pub(super) fn scan(patient_position: &str) -> Scan {
    use ismrmrd::header::*;
    let header = Header {
        subject_information: Some(SubjectInformation {
            patient_name: Some("Müller^Jürgen 山田".into()),
            patient_id: Some("P-0815".into()),
            patient_weight_kg: Some(72.5),
            patient_height_m: Some(1.78),
            patient_birthdate: Some("1970-02-28".into()),
            patient_gender: Some("M".into()),
        }),
        study_information: Some(StudyInformation {
            study_date: Some("2024-05-06".into()),
            study_time: Some("07:08:09.25".into()),
            study_id: Some("17".into()),
            accession_number: Some(4711),
            referring_physician_name: Some("Doe^Jane".into()),
            study_description: Some("Lumbar spine".into()),
            body_part_examined: Some("LSPINE".into()),
            ..Default::default()
        }),
        measurement_information: Some(MeasurementInformation {
            measurement_id: Some("45387_1_2_3".into()),
            series_date: Some("2024-05-06".into()),
            series_time: Some("07:10:00".into()),
            patient_position: patient_position.into(),
            initial_series_number: Some(5),
            protocol_name: Some("t2_tse_sag".into()),
            ..Default::default()
        }),
        acquisition_system_information: Some(AcquisitionSystemInformation {
            system_vendor: Some("Example".into()),
            system_model: Some("Model 3".into()),
            system_field_strength_t: Some(2.893_62),
            institution_name: Some("Institute".into()),
            device_serial_number: Some("12345".into()),
            ..Default::default()
        }),
        experimental_conditions: ExperimentalConditions {
            h1_resonance_frequency_hz: 123_251_815,
        },
        encoding: vec![Encoding {
            echo_train_length: Some(16),
            encoded_space: EncodingSpace {
                matrix_size: [12, 10, 1],
                field_of_view_mm: [12.0, 10.0, 4.0],
            },
            recon_space: EncodingSpace {
                matrix_size: [12, 10, 1],
                field_of_view_mm: [12.0, 10.0, 4.0],
            },
            ..Default::default()
        }],
        sequence_parameters: Some(SequenceParameters {
            tr: vec![4000.0],
            te: vec![98.0, 120.0],
            flip_angle_deg: vec![150.0],
            sequence_type: Some("TurboSpinEcho".into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let space = Space {
        matrix: [12, 10, 1],
        field_of_view_mm: [12.0, 10.0, 4.0],
    };
    Scan {
        header: Arc::new(header),
        encodings: vec![Some(ScanEncoding {
            encoded: space,
            recon_space: space,
            pe1_centre: 5,
            pe2_centre: 0,
            last_line: [None, None],
            first_line: [0, 0],
            acceleration: [2, 1],
            calibration: Calibration::Embedded,
            grid: [12, 10, 1],
        })],
    }
}

/// An image with every quantity, voxel values from `value(x, y, z)`.
pub(super) fn image(
    slice_idx: u16,
    geometry: Geometry,
    value: impl Fn(usize, usize, usize) -> Complex32,
) -> ReconImage {
    let [nx, ny, nz] = geometry.matrix;
    let mut voxels = Vec::new();
    for z in 0..nz {
        for y in 0..ny {
            for x in 0..nx {
                voxels.push(value(x, y, z));
            }
        }
    }
    let n = voxels.len();
    ReconImage {
        key: FrameKey {
            slice_idx,
            ..FrameKey::default()
        },
        geometry,
        table_position_mm: [0.0; 3],
        noise_std: Some((0..n).map(|i| 1.0 + (i % 3) as f32).collect()),
        gfactor: Some((0..n).map(|i| 1.0 + 0.25 * (i % 5) as f32).collect()),
        finer: [1.0; 3],
        denoised: Some(Denoised {
            removed: (0..n).map(|i| Complex32::new(0.5, i as f32)).collect(),
            sigma: (0..n).map(|i| 0.5 + (i % 2) as f32).collect(),
        }),
        synthetic: None,
        csm: Some(Csm {
            n_sets: 1,
            n_coils: 2,
            matrix: [nz, ny, nx],
            maps: (0..2 * n)
                .map(|i| Complex32::new(i as f32, -(i as f32)))
                .collect(),
        }),
        voxels,
        intensity: Intensity::WithNoise,
        stamps: AcquisitionStamps {
            measurement_uid: 77,
            acquisition_time_stamp: 1000,
            physiology_time_stamp: [1, 2, 3],
        },
        provenance: Provenance {
            protocol: "recon_only".into(),
            input: "ISMRMRD scan.h5".into(),
            steps: vec![Step {
                op: "recon/grappa".into(),
                backend: "cpu",
                detail: "window 5x4".into(),
            }],
            notes: vec![Note::new("missing_lines", "2 lines were missing")],
        },
    }
}

/// An oblique 2D geometry; slices 4.4 mm apart along the normal, 4 mm thick.
pub(super) fn oblique(slice: usize, n_slices: usize, matrix: [usize; 2]) -> Geometry {
    let (read_dir, phase_dir) = ([0.0, 0.8, -0.6], [0.0, -0.6, -0.8]);
    let slice_dir = [-1.0, 0.0, 0.0];
    let mm = 4.4 * (slice as f32 - (n_slices / 2) as f32);
    Geometry {
        matrix: [matrix[0], matrix[1], 1],
        voxel_mm: [0.9, 0.7, 4.0],
        centre_mm: std::array::from_fn(|i| [3.5, -20.25, 101.0][i] + mm * slice_dir[i]),
        read_dir,
        phase_dir,
        slice_dir,
    }
}

/// A stack of `n` oblique slices with distinct values.
pub(super) fn oblique_stack(n: usize) -> Vec<ReconImage> {
    (0..n)
        .map(|s| {
            image(s as u16, oblique(s, n, [12, 10]), |x, y, _| {
                Complex32::from_polar((1 + x + 12 * y + 120 * s) as f32, 0.1 * x as f32 - 0.5)
            })
        })
        .collect()
}

/// A program to check with, if it is installed; says so when it is not.
pub(super) fn program(names: &[&str]) -> Option<String> {
    for name in names {
        if Command::new(name).arg("--version").output().is_ok() {
            return Some((*name).to_owned());
        }
    }
    eprintln!("SKIPPED: none of {names:?} is installed");
    None
}

/// Python with pydicom and nibabel, if there is one; says so when there is not.
pub(super) fn python() -> Option<String> {
    let candidates = [
        std::env::var("CAUDA_PYTHON").unwrap_or_default(),
        "/opt/peers/bin/python".into(),
        "python3".into(),
    ];
    for python in candidates.iter().filter(|p| !p.is_empty()) {
        let has_all = Command::new(python)
            .args(["-c", "import numpy, pydicom, nibabel"])
            .output()
            .is_ok_and(|out| out.status.success());
        if has_all {
            return Some(python.clone());
        }
    }
    eprintln!("SKIPPED: no Python with numpy, pydicom and nibabel (set CAUDA_PYTHON)");
    None
}

/// Runs a program and returns its output; panics with it when the program fails.
pub(super) fn run(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(out.status.success(), "{command:?} failed:\n{text}");
    text
}

/// Names in a folder, sorted.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
