//! Whatever leaves of an image that nobody measured says so: every file of every writer is walked, and so is what is made
//! from what was read back. A mark that is taken away is found missing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::super::*;
use super::{oblique_stack, program, scan};
use crate::data::{Complex32, SourceSeries, Synthetic, SyntheticKind};

const FORMATS: [&str; 8] = [
    "series/", "one.dcm", "a.nii", "b.nii.gz", "c.npy", "d.cfl", "e.png", "f.h5",
];

fn marked(kind: SyntheticKind) -> (Scan, Vec<ReconImage>) {
    let mut scan = scan("HFS");
    let mut header = (*scan.header).clone();
    if let Some(m) = &mut header.measurement_information {
        // A name that says nothing: the writers have to.
        m.protocol_name = Some("t2_tse_sag".into());
        m.frame_of_reference_uid = Some("1.2.826.77".into());
    }
    scan.header = Arc::new(header);
    let mut images = oblique_stack(3);
    for image in &mut images {
        let n = image.voxels.len();
        if kind == SyntheticKind::Ct {
            for (i, v) in image.voxels.iter_mut().enumerate() {
                *v = Complex32::new(i as f32 * 20.0 - 1000.0, 0.0);
            }
        }
        image.denoised = None;
        image.noise_std = None;
        image.gfactor = None;
        image.csm = None;
        image.intensity = crate::data::Intensity::Arbitrary;
        image.synthetic = Some(Box::new(Synthetic {
            kind,
            model: "synth_x".into(),
            version: "3".into(),
            digest: "ab".repeat(32),
            sources: vec![
                SourceSeries {
                    role: "T1w".into(),
                    name: "t1_tse_sag".into(),
                    instances: vec![("1.2.840.10008.5.1.4.1.1.4".into(), "1.2.3.4.5".into())],
                },
                SourceSeries {
                    role: "T2w".into(),
                    name: "t2_tse_sag".into(),
                    instances: Vec::new(),
                },
            ],
            sigma: Some(vec![0.5; n]),
            abstention: Some((0..n).map(|i| (i % 2) as f32).collect()),
            bone: (kind == SyntheticKind::Ct).then(|| vec![0.25; n]),
            domain: Some(0.5),
        }));
    }
    (scan, images)
}

fn quantities(kind: SyntheticKind) -> Vec<Quantity> {
    let mut all = vec![
        Quantity::Magnitude,
        Quantity::Sigma,
        Quantity::Abstention,
        Quantity::Domain,
    ];
    if kind == SyntheticKind::Ct {
        all.push(Quantity::Bone);
    }
    all
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(files(&path));
        } else {
            out.push(path);
        }
    }
    out.sort();
    out
}

/// What a file of a synthetic image lacks.
fn lacks(path: &Path, kind: SyntheticKind) -> Vec<String> {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let mut missing = Vec::new();
    let mut need = |what: &str, is_there: bool| {
        if !is_there {
            missing.push(format!("{name}: {what}"));
        }
    };
    let (title, caution) = (kind.title(), kind.caution());
    if name.ends_with(".dcm") {
        use dicom_dictionary_std::{tags, uids};
        let o = dicom_object::open_file(path).unwrap();
        let text = |tag| {
            let element = o.element(tag).ok();
            element.map_or_else(String::new, |e| e.to_str().unwrap().trim().to_owned())
        };
        let is_enhanced = text(tags::SOP_CLASS_UID) == uids::ENHANCED_MR_IMAGE_STORAGE;
        need("Synthetic Data", text(tags::SYNTHETIC_DATA) == "YES");
        let image_type = text(tags::IMAGE_TYPE);
        let begin = if is_enhanced {
            "DERIVED\\PRIMARY\\OTHER\\SYNTHETIC_"
        } else {
            "DERIVED\\SECONDARY\\OTHER\\SYNTHETIC_"
        };
        need("Image Type", image_type.starts_with(begin));
        need(
            "values of 16 letters",
            image_type.split('\\').all(|v| v.len() <= 16),
        );
        need(
            "Series Description",
            text(tags::SERIES_DESCRIPTION).contains(title),
        );
        need(
            "Image Comments",
            text(tags::IMAGE_COMMENTS).starts_with(title),
        );
        need("caution", text(tags::IMAGE_COMMENTS).contains(caution));
        need(
            "Content Qualification",
            text(tags::CONTENT_QUALIFICATION) == "RESEARCH",
        );
        let derivation = text(tags::DERIVATION_DESCRIPTION);
        need(
            "derivation",
            derivation.contains("Not measured") && derivation.contains("synth_x 3"),
        );
        need(
            "frame of reference",
            text(tags::FRAME_OF_REFERENCE_UID) == "1.2.826.77",
        );
        need(
            "algorithm",
            text(tags::ALGORITHM_NAME) == "synth_x" && text(tags::ALGORITHM_VERSION) == "3",
        );
        let code = |sequence, inner: Option<_>| -> String {
            let item = o
                .element(sequence)
                .ok()
                .and_then(|e| e.items()?.first().cloned());
            let item = match inner {
                Some(tag) => item.and_then(|i| i.element(tag).ok()?.items()?.first().cloned()),
                None => item,
            };
            item.and_then(|i| {
                Some(
                    i.element(tags::CODE_VALUE)
                        .ok()?
                        .to_str()
                        .ok()?
                        .trim()
                        .to_owned(),
                )
            })
            .unwrap_or_default()
        };
        need(
            "family",
            code(tags::ALGORITHM_FAMILY_CODE_SEQUENCE, None) == "123110",
        );
        let purpose = Some(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE);
        need(
            "equipment",
            code(tags::CONTRIBUTING_EQUIPMENT_SEQUENCE, purpose) == "109100",
        );
        need(
            "sources",
            code(tags::SOURCE_IMAGE_SEQUENCE, purpose) == "121322",
        );
        let is_hu = kind == SyntheticKind::Ct && name.starts_with("magnitude");
        let is_ct = text(tags::SOP_CLASS_UID) == uids::CT_IMAGE_STORAGE;
        need(
            "class",
            is_hu == is_ct && (text(tags::MODALITY) == "CT") == is_ct,
        );
        if is_hu {
            need(
                "HU",
                text(tags::RESCALE_TYPE) == "HU" && text(tags::RESCALE_INTERCEPT) == "-1024",
            );
            need(
                "an empty KVP",
                o.element(tags::KVP).is_ok() && text(tags::KVP).is_empty(),
            );
            for tag in [
                tags::REPETITION_TIME,
                tags::ECHO_TIME,
                tags::EXPOSURE_TIME,
                tags::X_RAY_TUBE_CURRENT,
            ] {
                need("nothing of an acquisition", o.element(tag).is_err());
            }
        }
        need("no acquisition", text(tags::ACQUISITION_NUMBER).is_empty());
    } else if name.ends_with(".h5") {
        let file = ismrmrd::file::File::open(path, ismrmrd::Limits::default()).unwrap();
        for group in file.groups().unwrap() {
            for series in &group.images {
                for image in file.images(&group.name, &series.name).unwrap() {
                    let meta = ismrmrd::Meta::parse(&image.attributes).unwrap();
                    let has =
                        |key: &str, word: &str| meta.get_str(key).is_some_and(|v| v.contains(word));
                    need("SyntheticData", has("SyntheticData", "YES"));
                    need("SeriesDescription", has("SeriesDescription", title));
                    need(
                        "ImageComments",
                        has("ImageComments", title) && has("ImageComments", caution),
                    );
                    need("AlgorithmName", has("AlgorithmName", "synth_x"));
                    let kinds = meta.get("ImageType").unwrap_or_default();
                    need(
                        "ImageType",
                        kinds.first().is_some_and(|t| t == "DERIVED")
                            && kinds.last().is_some_and(|t| t.starts_with("SYNTHETIC_")),
                    );
                    need("its own series", image.head.image_series_index > 999);
                }
            }
        }
    } else if name.ends_with(".hdr") {
        // Extents; the mark stands beside the voxels.
    } else if name.ends_with(".json") {
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        need("SyntheticData", json["SyntheticData"] == "YES");
        need(
            "SeriesDescription",
            json["SeriesDescription"].as_str().unwrap().contains(title),
        );
        need(
            "ImageComments",
            json["ImageComments"].as_str().unwrap().contains(caution),
        );
        need("sources", json["Sources"][0]["role"] == "T1w");
    } else {
        need("a .json beside it", synthetic::beside(path).is_file());
        let bytes = std::fs::read(path).unwrap();
        if name.ends_with(".nii") {
            let descrip = String::from_utf8_lossy(&bytes[148..228]).into_owned();
            need("description", descrip.starts_with(title));
            need("intent", bytes[328..].starts_with(b"SYNTHETIC"));
        }
        if name.ends_with(".png") {
            let decoder = ::png::Decoder::new(std::io::Cursor::new(&bytes));
            let mut reader = decoder.read_info().unwrap();
            let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
            reader.next_frame(&mut pixels).unwrap();
            let texts = &reader.info().uncompressed_latin1_text;
            need(
                "texts",
                texts
                    .iter()
                    .any(|t| t.keyword == "Description" && t.text.contains(caution)),
            );
            // Letters on the band: white where S begins.
            let width = reader.info().width as usize;
            need(
                "letters",
                pixels[3 * width + 2] == 255 || pixels[4 * width + 2] == 255,
            );
        }
    }
    missing
}

fn write_all(
    folder: &Path,
    scan: &Scan,
    images: &[ReconImage],
    kind: SyntheticKind,
) -> Vec<PathBuf> {
    for format in FORMATS {
        let mut params = HandoffParams {
            quantities: quantities(kind),
            ..HandoffParams::default()
        };
        if kind == SyntheticKind::Ct && format == "one.dcm" {
            // Refused for HU; their maps go.
            assert!(matches!(
                write(images, scan, &folder.join(format), &params),
                Err(HandoffError::Params {
                    key: "dicom.kind",
                    ..
                })
            ));
            params.quantities.remove(0);
        }
        write(images, scan, &folder.join(format), &params).unwrap();
    }
    files(folder)
}

#[test]
fn every_file_of_every_writer_says_that_nobody_measured_it() {
    for kind in SyntheticKind::ALL {
        let folder = tempfile::tempdir().unwrap();
        let (scan, images) = marked(kind);
        let written = write_all(folder.path(), &scan, &images, kind);
        assert!(written.len() > 25, "{}", written.len());
        let missing: Vec<String> = written.iter().flat_map(|f| lacks(f, kind)).collect();
        assert!(missing.is_empty(), "{missing:#?}");
        // Beside every file without a header of its own.
        let is_in = |name: &str| written.iter().any(|p| p.ends_with(name));
        for name in [
            "a.json",
            "b.json",
            "c_sigma.json",
            "d_abstention.json",
            "e_domain.json",
        ] {
            assert!(is_in(name), "{name}");
        }
        // The wire says the same as the file.
        let mut series = MrdSeries::new(scan.clone(), &HandoffParams::default()).unwrap();
        for image in series.images(&images[0], &[]).unwrap() {
            let meta = ismrmrd::Meta::parse(&image.attributes).unwrap();
            assert_eq!(meta.get_str("SyntheticData"), Some("YES"));
        }
    }
}

/// The walk is worth something only if it finds what is not there.
#[test]
fn a_mark_that_was_taken_away_is_missed_in_every_format() {
    let kind = SyntheticKind::Stir;
    let folder = tempfile::tempdir().unwrap();
    let (scan, mut images) = marked(kind);
    for image in &mut images {
        image.synthetic = None;
    }
    for format in FORMATS {
        write(
            &images,
            &scan,
            &folder.path().join(format),
            &HandoffParams::default(),
        )
        .unwrap();
    }
    let written = files(folder.path());
    for file in written.iter().filter(|f| !f.ends_with("d.hdr")) {
        assert!(!lacks(file, kind).is_empty(), "{}", file.display());
    }
    // And no measured image is called synthetic.
    assert!(
        written
            .iter()
            .all(|f| f.extension().is_none_or(|e| e != "json"))
    );
    let o = dicom_object::open_file(folder.path().join("series/magnitude-0001.dcm")).unwrap();
    let mark = o
        .element(dicom_dictionary_std::tags::SYNTHETIC_DATA)
        .unwrap();
    assert_eq!(mark.to_str().unwrap().trim(), "NO");
}

#[test]
fn what_is_made_from_a_marked_image_is_marked() {
    for kind in SyntheticKind::ALL {
        let (scan, images) = marked(kind);
        let folder = tempfile::tempdir().unwrap();
        for format in ["series", "one.dcm", "a.nii", "b.nii.gz", "f.h5"] {
            if kind == SyntheticKind::Ct && format == "one.dcm" {
                continue;
            }
            let out = folder.path().join(format);
            write(&images, &scan, &out, &HandoffParams::default()).unwrap();
            let back = read_series(&out).unwrap();
            for image in &back.images {
                let mark = image
                    .synthetic
                    .as_ref()
                    .unwrap_or_else(|| panic!("{format}"));
                assert_eq!(
                    (mark.kind, mark.model.as_str()),
                    (kind, "synth_x"),
                    "{format}"
                );
                assert!(image.provenance.notes.iter().any(|n| n.code == "synthetic"));
            }
            // In whatever it is written next, even if the file of the mark was lost on the way.
            for next in ["x.nii", "y.h5", "z/"] {
                let again = folder.path().join(format!("{format}-{next}"));
                write(&back.images, &back.scan, &again, &HandoffParams::default()).unwrap();
                assert!(
                    read_series(&again)
                        .unwrap()
                        .images
                        .iter()
                        .all(|i| i.synthetic.is_some()),
                    "{format} {next}"
                );
            }
            if out.extension().is_some_and(|e| e == "nii") {
                std::fs::remove_file(synthetic::beside(&out)).unwrap();
                assert!(read_series(&out).unwrap().images[0].synthetic.is_some());
            }
        }
    }
}

/// Values and places come back as they were written.
#[test]
fn series_come_back_where_they_lay() {
    let (scan, images) = (scan("HFS"), oblique_stack(3));
    let folder = tempfile::tempdir().unwrap();
    for format in ["series", "one.dcm", "a.nii", "f.h5"] {
        let out = folder.path().join(format);
        write(&images, &scan, &out, &HandoffParams::default()).unwrap();
        let back = read_series(&out).unwrap();
        assert!(back.images.iter().all(|i| i.synthetic.is_none()));
        // Every voxel of the original is somewhere, with its value.
        for image in &images {
            for (index, v) in [([0, 0], 0), ([11, 9], 119), ([3, 7], 87)] {
                let p = image
                    .geometry
                    .voxel_to_patient([index[0] as f64, index[1] as f64, 0.0]);
                let found = back.images.iter().any(|b| {
                    let g = b.geometry;
                    let [nx, ny, nz] = g.matrix;
                    (0..nx * ny * nz).any(|i| {
                        let at = [i % nx, i / nx % ny, i / (nx * ny)].map(|i| i as f64);
                        let q = g.voxel_to_patient(at);
                        (0..3).all(|k| (p[k] - q[k]).abs() < 0.02)
                            && (b.voxels[i].norm() - image.voxels[v].norm()).abs() < 0.02
                    })
                });
                assert!(found, "{format} {index:?}");
            }
        }
        let h = &back.scan.header;
        let times = h.sequence_parameters.as_ref().unwrap();
        assert_eq!(times.te[0], 98.0, "{format}");
        if format != "a.nii" {
            assert_eq!(
                h.subject_information
                    .as_ref()
                    .unwrap()
                    .patient_id
                    .as_deref(),
                Some("P-0815"),
                "{format}"
            );
        }
    }
}

#[test]
fn a_validator_finds_no_error_in_what_nobody_measured() {
    let Some(dciodvfy) = program(&["dciodvfy"]) else {
        return;
    };
    for kind in SyntheticKind::ALL {
        let folder = tempfile::tempdir().unwrap();
        let (scan, images) = marked(kind);
        let params = HandoffParams {
            quantities: quantities(kind),
            ..HandoffParams::default()
        };
        write(&images, &scan, &folder.path().join("s"), &params).unwrap();
        for name in [
            "magnitude-0001.dcm",
            "sigma-0001.dcm",
            "abstention-0002.dcm",
        ] {
            let said = Command::new(&dciodvfy)
                .arg("-new")
                .arg(folder.path().join("s").join(name))
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&said.stderr).into_owned();
            let errors: Vec<&str> = text
                .lines()
                .filter(|l| l.starts_with("Error") && !l.contains("(0008,001c)"))
                .collect();
            assert!(errors.is_empty(), "{kind:?} {name}: {errors:#?}");
        }
    }
}
