//! What others say about our files: dciodvfy, pydicom, nibabel, numpy.

use std::process::Command;

use super::{oblique_stack, program, scan};
use crate::handoff::{DicomKind, HandoffParams, Quantity, write};

fn all_dicom() -> Vec<Quantity> {
    Quantity::ALL
        .into_iter()
        .filter(|q| !q.is_complex() && !q.is_of_synthetic())
        .collect()
}

#[test]
fn dciodvfy_finds_no_error() {
    let Some(dciodvfy) = program(&["dciodvfy"]) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let scans = [
        ("full", scan("HFS")),
        ("bare", {
            let mut bare = scan("HFS");
            bare.header = std::sync::Arc::new(ismrmrd::Header::default());
            bare
        }),
    ];
    let mut images = oblique_stack(3);
    for image in oblique_stack(3) {
        let mut image = image;
        image.key.contrast = 1;
        images.push(image);
    }
    for (name, scan) in scans {
        for kind in [DicomKind::Classic, DicomKind::Enhanced] {
            let mut params = HandoffParams {
                quantities: all_dicom(),
                ..HandoffParams::default()
            };
            params.dicom.kind = kind;
            let out = folder.path().join(format!("{name}_{kind:?}"));
            let delivered = write(&images, &scan, &out, &params).unwrap();
            for file in delivered.files {
                let said = Command::new(&dciodvfy)
                    .arg("-new")
                    .arg(&file.path)
                    .output()
                    .unwrap();
                let said = String::from_utf8_lossy(&said.stderr).into_owned();
                let errors: Vec<&str> = said
                    .lines()
                    .filter(|l| l.starts_with("Error"))
                    // Synthetic Data came into the standard after this validator's dictionary (2022).
                    .filter(|l| !l.contains("(0008,001c)"))
                    .collect();
                if std::env::var_os("CAUDA_SAY").is_some() {
                    println!("{}\n{said}", file.path.display());
                }
                assert!(errors.is_empty(), "{}: {errors:#?}", file.path.display());
            }
        }
    }
}
