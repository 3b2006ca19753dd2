//! Every format read back; endings, names, refusals, full disks.

use std::{path::Path, process::Command};

use super::{image, names, oblique, oblique_stack, program, python, run, scan};
use crate::{
    data::{Complex32, Fault, FaultKind, Geometry, Note, ReconImage},
    handoff::{Format, HandoffError, HandoffParams, Quantity, orient::Display, read_image, write},
};

fn with(quantities: &[Quantity]) -> HandoffParams {
    HandoffParams {
        quantities: quantities.to_vec(),
        ..HandoffParams::default()
    }
}

/// Two repetitions and two contrasts of a three-slice stack.
fn dynamic() -> Vec<ReconImage> {
    let mut images = Vec::new();
    for repetition in 0..2 {
        for contrast in 0..2 {
            for mut image in oblique_stack(3) {
                image.key.repetition = repetition;
                image.key.contrast = contrast;
                for v in &mut image.voxels {
                    *v *= f32::from(1 + repetition + 2 * contrast);
                }
                images.push(image);
            }
        }
    }
    images
}

/// What the stack of `oblique_stack` holds, slices by position along `slice_dir`.
fn voxels_of(images: &[ReconImage]) -> Vec<Complex32> {
    images.iter().flat_map(|i| i.voxels.clone()).collect()
}

#[test]
fn endings_decide() {
    for (name, format) in [
        ("a.h5", Format::Ismrmrd),
        ("dir.x/a.NII", Format::Nifti),
        ("a.b.nii.gz", Format::NiftiGz),
        ("a.dcm", Format::Dicom),
        ("a.png", Format::Png),
        ("a.npy", Format::Npy),
        ("a.cfl", Format::Cfl),
        ("folder", Format::DicomFolder),
        ("folder.v1/", Format::DicomFolder),
    ] {
        assert_eq!(Format::of(Path::new(name)).unwrap(), format, "{name}");
    }
    for name in ["a.jpg", "a.gz", ".nii", "a.hdr"] {
        assert!(Format::of(Path::new(name)).is_err(), "{name}");
    }
}

#[test]
fn arrays_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let images = oblique_stack(5);
    let expected = voxels_of(&images);
    for ending in ["nii", "nii.gz", "npy", "cfl", "h5"] {
        let out = folder.path().join(format!("a.{ending}"));
        let params = with(&[Quantity::Complex]);
        write(&images, &scan("HFS"), &out, &params).unwrap();
        let name = if ending == "h5" {
            out
        } else {
            folder.path().join(format!("a_complex.{ending}"))
        };
        let back = read_image(&name, None).unwrap();
        assert_eq!(back.dims, [5, 10, 12], "{ending}");
        assert_eq!(back.voxels, expected, "{ending}");
        assert!(back.is_complex);
    }
    for (quantity, value) in [
        (Quantity::Magnitude, 42.0_f32),
        (Quantity::Snr, 42.0 / 3.0),
        (Quantity::Gfactor, 1.25),
        (Quantity::NoiseStd, 3.0),
    ] {
        let out = folder.path().join(format!("{}.npy", quantity.name()));
        write(&images, &scan("HFS"), &out, &with(&[quantity])).unwrap();
        let out = folder
            .path()
            .join(format!("{}{}.npy", quantity.name(), quantity.suffix()));
        let back = read_image(&out, None).unwrap();
        assert!(
            (back.voxels[41].re - value).abs() < 1e-4,
            "{quantity:?} {}",
            back.voxels[41]
        );
    }
}

#[test]
fn contrasts_are_files_and_repetitions_an_axis() {
    let folder = tempfile::tempdir().unwrap();
    let mut images = dynamic();
    images.reverse();
    let delivered = write(
        &images,
        &scan("HFS"),
        &folder.path().join("a.nii.gz"),
        &with(&[Quantity::Magnitude, Quantity::Gfactor]),
    )
    .unwrap();
    assert_eq!(
        delivered.slices_per_quantity,
        [(Quantity::Magnitude, 12), (Quantity::Gfactor, 12)]
    );
    assert_eq!(
        names(folder.path()),
        [
            "a_contrast-0.nii.gz",
            "a_contrast-0_gfactor.nii.gz",
            "a_contrast-1.nii.gz",
            "a_contrast-1_gfactor.nii.gz"
        ]
    );
    let back = read_image(&folder.path().join("a_contrast-1.nii.gz"), None).unwrap();
    assert_eq!(back.dims, [2, 3, 10, 12]);
    let n = 360;
    for i in [0, 7, n - 1] {
        assert!((back.voxels[i].re - 3.0 * (1.0 + i as f32)).abs() < 1e-3);
        assert!((back.voxels[n + i].re - 4.0 * (1.0 + i as f32)).abs() < 1e-3);
    }
    // The same shape and order from the others.
    for ending in ["npy", "cfl"] {
        write(
            &images,
            &scan("HFS"),
            &folder.path().join(format!("a.{ending}")),
            &with(&[Quantity::Magnitude]),
        )
        .unwrap();
        let other =
            read_image(&folder.path().join(format!("a_contrast-1.{ending}")), None).unwrap();
        assert_eq!(
            (other.dims, other.voxels),
            (back.dims.clone(), back.voxels.clone()),
            "{ending}"
        );
    }
}

#[test]
fn maps_keep_their_coils() {
    let folder = tempfile::tempdir().unwrap();
    let images = oblique_stack(2);
    write(
        &images,
        &scan("HFS"),
        &folder.path().join("a.npy"),
        &with(&[Quantity::Csm]),
    )
    .unwrap();
    let back = read_image(&folder.path().join("a_csm.npy"), None).unwrap();
    assert_eq!(back.dims, [2, 2, 10, 12]);
    // [coil 1, slice 0, ...] is the second half of the first image's maps.
    assert_eq!(back.voxels[240], images[0].csm.as_ref().unwrap().maps[120]);
    write(
        &images,
        &scan("HFS"),
        &folder.path().join("a.cfl"),
        &with(&[Quantity::Csm]),
    )
    .unwrap();
    let cfl = read_image(&folder.path().join("a_csm.cfl"), None).unwrap();
    assert_eq!((cfl.dims, cfl.voxels), (back.dims, back.voxels));
    let refused = write(
        &images,
        &scan("HFS"),
        &folder.path().join("a.nii"),
        &with(&[Quantity::Csm]),
    );
    assert!(matches!(
        refused,
        Err(HandoffError::UnsupportedQuantity { .. })
    ));
}

#[test]
fn mrd_images_carry_header_and_meta() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("a.h5");
    let images = oblique_stack(2);
    let params = with(&[
        Quantity::Magnitude,
        Quantity::Gfactor,
        Quantity::Snr,
        Quantity::Csm,
    ]);
    let delivered = write(&images, &scan("HFS"), &out, &params).unwrap();
    assert_eq!(delivered.slices_per_quantity.len(), 4);
    let file = ismrmrd::file::File::open(&out, ismrmrd::Limits::default()).unwrap();
    assert_eq!(
        file.header("dataset")
            .unwrap()
            .sequence_parameters
            .unwrap()
            .tr,
        [4000.0]
    );
    let magnitude = file.images("dataset", "image_1").unwrap();
    assert_eq!(magnitude.len(), 2);
    let head = magnitude[1].head;
    let geometry = images[1].geometry;
    assert_eq!(head.position, geometry.centre_mm);
    assert_eq!(head.phase_dir, geometry.phase_dir);
    assert_eq!(head.field_of_view, geometry.field_of_view_mm());
    assert_eq!(
        (
            head.slice,
            head.image_index,
            head.image_series_index,
            head.image_type
        ),
        (1, 2, 1, 1)
    );
    assert_eq!(
        (head.measurement_uid, head.physiology_time_stamp),
        (77, [1, 2, 3])
    );
    let meta = ismrmrd::Meta::parse(&magnitude[1].attributes).unwrap();
    assert_eq!(meta.get_str("DataRole"), Some("Image"));
    assert_eq!(meta.get_str("SequenceDescription"), Some("t2_tse_sag"));
    assert_eq!(meta.get_str("EchoTime"), Some("98"));
    assert_eq!(
        meta.get_str("ImageComments"),
        Some("missing_lines: 2 lines were missing")
    );
    for (series, role) in [
        ("image_20", "Quantitative"),
        ("image_300", "Quantitative"),
        ("image_10", "Quantitative"),
    ] {
        let images = file.images("dataset", series).unwrap();
        let meta = ismrmrd::Meta::parse(&images[0].attributes).unwrap();
        assert_eq!(meta.get_str("DataRole"), Some(role), "{series}");
    }
    assert_eq!(
        file.images("dataset", "image_10").unwrap()[0].head.channels,
        2
    );
    drop(file); // ismrmrd-python opens for writing
    if let Some(python) = python() {
        let code = "import ismrmrd, sys\nd = ismrmrd.Dataset(sys.argv[1], 'dataset', False)\ni = d.read_image('image_1', 1)\nprint(i.data.shape, i.meta['DataRole'], round(float(i.data[0,0,0,0])))";
        let has = Command::new(&python)
            .args(["-c", "import ismrmrd"])
            .output()
            .unwrap()
            .status
            .success();
        if has {
            let said = run(Command::new(python).args(["-c", code]).arg(&out));
            assert!(said.contains("(1, 1, 10, 12) Image 121"), "{said}");
        } else {
            eprintln!("SKIPPED: no ismrmrd-python");
        }
    }
}

#[test]
fn dicom_comes_back_turned() {
    let folder = tempfile::tempdir().unwrap();
    let images = oblique_stack(3);
    let display = Display::of(&images[0].geometry);
    for (name, params) in [
        ("classic", with(&[Quantity::Magnitude])),
        ("enhanced.dcm", with(&[Quantity::Magnitude])),
    ] {
        let out = folder.path().join(name);
        let delivered = write(&images, &scan("HFS"), &out, &params).unwrap();
        assert!(delivered.files[0].window.is_some());
        let back = read_image(&out, None).unwrap();
        assert_eq!(back.dims, [3, 10, 12]);
        for (s, image) in images.iter().enumerate() {
            let magnitude: Vec<f32> = image.voxels.iter().map(|v| v.norm()).collect();
            for (i, value) in display.apply(&magnitude, 12, 10).into_iter().enumerate() {
                let off = (back.voxels[s * 120 + i].re - value).abs();
                assert!(off < 360.0 / 65_535.0, "{name} {s} {i}");
            }
        }
    }
}

#[test]
fn a_second_run_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let images = oblique_stack(2);
    for name in ["one", "two"] {
        write(
            &images,
            &scan("FFP"),
            &folder.path().join(name),
            &HandoffParams::default(),
        )
        .unwrap();
        write(
            &images,
            &scan("FFP"),
            &folder.path().join(format!("{name}.nii.gz")),
            &HandoffParams::default(),
        )
        .unwrap();
    }
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(
        read("one/magnitude-0001.dcm"),
        read("two/magnitude-0001.dcm")
    );
    assert_eq!(read("one.nii.gz"), read("two.nii.gz"));
}

#[test]
fn other_pixels_are_other_instances_of_the_same_study() {
    let folder = tempfile::tempdir().unwrap();
    let uids = |images: &[ReconImage], name: &str| {
        let out = folder.path().join(name);
        write(images, &scan("HFS"), &out, &HandoffParams::default()).unwrap();
        let object = dicom_object::open_file(out.join("magnitude-0001.dcm")).unwrap();
        [
            dicom_dictionary_std::tags::STUDY_INSTANCE_UID,
            dicom_dictionary_std::tags::SERIES_INSTANCE_UID,
            dicom_dictionary_std::tags::SOP_INSTANCE_UID,
        ]
        .map(|tag| object.element(tag).unwrap().to_str().unwrap().into_owned())
    };
    let images = oblique_stack(1);
    let first = uids(&images, "first");
    let mut other = images.clone();
    other[0].provenance.protocol = "another".into();
    let second = uids(&other, "second");
    assert_eq!(first[0], second[0]);
    assert_ne!(first[1], second[1]);
    assert_ne!(first[2], second[2]);
    let mut pixels = images.clone();
    pixels[0].voxels[0] *= 50.0;
    let third = uids(&pixels, "third");
    assert_eq!(first[..2], third[..2]);
    assert_ne!(first[2], third[2]);
}

#[test]
fn sheets_are_windowed_and_tiled() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("a.png");
    let delivered = write(
        &oblique_stack(5),
        &scan("HFS"),
        &out,
        &with(&[Quantity::Magnitude, Quantity::Phase]),
    )
    .unwrap();
    assert_eq!(delivered.files[0].n_slices, 5);
    let [low, high] = delivered.files[0].window.unwrap();
    assert!(
        low > 1.0 && low < 10.0 && high > 590.0 && high < 600.0,
        "{low} {high}"
    );
    let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&out).unwrap()));
    let reader = decoder.read_info().unwrap();
    let info = reader.info();
    // 12 x 10 voxels of 0.9 x 0.7 mm: pixels of 0.7 mm, tiles 15 wide and 10 high; two in a row, three rows.
    assert_eq!((info.width, info.height), (2 * 15, 3 * 10));
}

/// A head seen from the left, stored with rows and columns exchanged and both reversed: for people to look at, with
/// `CAUDA_SHOW=folder`. The nose must point left, the neck down.
#[test]
fn a_head_is_shown_upright() {
    let geometry = Geometry {
        matrix: [64, 64, 1],
        voxel_mm: [4.0, 4.0, 5.0],
        centre_mm: [0.0; 3],
        read_dir: [0.0, 0.0, 1.0],   // increasing x: towards the head
        phase_dir: [0.0, -1.0, 0.0], // increasing y: towards the front
        slice_dir: [1.0, 0.0, 0.0],
    };
    let head = image(0, geometry, |x, y, _| {
        let p = geometry.voxel_to_patient([x as f64, y as f64, 0.0]);
        let (posterior, up) = (p[1], p[2]);
        let skull = (posterior / 80.0).powi(2) + ((up - 20.0) / 90.0).powi(2) < 1.0;
        let nose = (posterior + 85.0).abs() < 20.0 && (up - 5.0).abs() < 15.0;
        let neck = (posterior - 20.0).abs() < 30.0 && up < -40.0;
        let value = if nose {
            3.0
        } else if skull {
            1.0
        } else if neck {
            2.0
        } else {
            0.0
        };
        Complex32::from_polar(value, posterior as f32 / 30.0)
    });
    let folder = tempfile::tempdir().unwrap();
    let place = std::env::var_os("CAUDA_SHOW").map_or(folder.path().to_path_buf(), Into::into);
    let out = place.join("head.png");
    let mut params = with(&[Quantity::Magnitude, Quantity::Phase]);
    params.overwrite = true;
    write(&[head], &scan("HFS"), &out, &params).unwrap();
    let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&out).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    let brightest: Vec<usize> = (0..pixels.len()).filter(|i| pixels[*i] == 255).collect();
    assert!(
        brightest.iter().all(|i| i % 64 < 20),
        "the nose points left"
    );
    let bottom: usize = pixels[63 * 64..].iter().filter(|v| **v > 0).count();
    let top: usize = pixels[..64].iter().filter(|v| **v > 0).count();
    assert!(bottom > 10 && top == 0, "the neck is at the bottom");
}

#[test]
fn what_exists_stays_unless_told() {
    let folder = tempfile::tempdir().unwrap();
    let images = oblique_stack(2);
    let scan = scan("HFS");
    for name in ["a.nii", "a.h5", "a.dcm", "series"] {
        let out = folder.path().join(name);
        write(&images, &scan, &out, &HandoffParams::default()).unwrap();
        let refused = write(&images, &scan, &out, &HandoffParams::default());
        assert!(
            matches!(refused, Err(HandoffError::Exists { .. })),
            "{name} {refused:?}"
        );
        let again = HandoffParams {
            overwrite: true,
            ..HandoffParams::default()
        };
        write(&oblique_stack(1), &scan, &out, &again).unwrap();
    }
    assert_eq!(names(&folder.path().join("series")), ["magnitude-0001.dcm"]);
    // A folder with anything else in it is never replaced.
    std::fs::write(folder.path().join("series/thesis.txt"), "years of work").unwrap();
    let again = HandoffParams {
        overwrite: true,
        ..HandoffParams::default()
    };
    let refused = write(&images, &scan, &folder.path().join("series"), &again);
    assert!(matches!(refused, Err(HandoffError::ForeignFolder { .. })));
    assert_eq!(names(folder.path()), ["a.dcm", "a.h5", "a.nii", "series"]);
}

#[test]
fn faults_are_named_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let scan = scan("HFS");
    let every = [
        "a.nii.gz", "a.h5", "a.png", "a.npy", "a.cfl", "a.dcm", "series",
    ];
    type Twin = fn(&mut Vec<ReconImage>);
    let twins: [(Twin, Quantity, &str, FaultKind); 7] = [
        (
            |i| i[1].voxels[13].re = f32::NAN,
            Quantity::Magnitude,
            "slice 1: 1 voxels are NaN or infinite, the first at [z, y, x] = [0, 1, 1]",
            FaultKind::Input,
        ),
        (
            |i| i[0].noise_std = None,
            Quantity::Snr,
            "has none",
            FaultKind::Protocol,
        ),
        (
            |i| i[0].gfactor = None,
            Quantity::Gfactor,
            "gives no g-factor",
            FaultKind::Protocol,
        ),
        (
            |i| i[1].geometry.voxel_mm[0] = 0.0,
            Quantity::Magnitude,
            "positive voxel sizes",
            FaultKind::Input,
        ),
        (
            |i| i[1].geometry.read_dir = [1.0, 1.0, 0.0],
            Quantity::Magnitude,
            "right angles",
            FaultKind::Input,
        ),
        (
            |i| i[1].key.slice_idx = 0,
            Quantity::Magnitude,
            "two images with these counters",
            FaultKind::Bug,
        ),
        (
            Vec::clear,
            Quantity::Magnitude,
            "no image to write",
            FaultKind::Input,
        ),
    ];
    for (twin, quantity, text, kind) in twins {
        let mut images = oblique_stack(3);
        twin(&mut images);
        for name in every {
            let error = write(
                &images,
                &scan,
                &folder.path().join(name),
                &with(&[quantity]),
            )
            .unwrap_err();
            assert!(error.to_string().contains(text), "{name}: {error}");
            let fault = Fault::from(error);
            assert_eq!((fault.kind, fault.room), (kind, "handoff"));
            assert!(
                names(folder.path()).is_empty(),
                "{name} {:?}",
                names(folder.path())
            );
        }
    }
    let error = write(
        &oblique_stack(1),
        &scan,
        &folder.path().join("no/such/a.nii"),
        &HandoffParams::default(),
    )
    .unwrap_err();
    assert_eq!(error.kind(), FaultKind::Io);
    assert!(
        error.to_string().contains("make the folder first"),
        "{error}"
    );
}

#[test]
fn a_reason_from_the_reconstruction_is_passed_on() {
    let mut images = oblique_stack(1);
    images[0].noise_std = None;
    images[0]
        .provenance
        .notes
        .push(Note::new("no_noise_scan", "the scan has no noise readouts"));
    let folder = tempfile::tempdir().unwrap();
    let error = write(
        &images,
        &scan("HFS"),
        &folder.path().join("a.npy"),
        &with(&[Quantity::Snr]),
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("the scan has no noise readouts"),
        "{error}"
    );
}

#[test]
fn gaps_in_the_header_are_filled_with_a_note() {
    let folder = tempfile::tempdir().unwrap();
    let mut images = oblique_stack(3);
    for image in &mut images {
        let g = &mut image.geometry;
        (g.read_dir, g.phase_dir, g.slice_dir) = ([0.0; 3], [0.0; 3], [0.0; 3]);
        g.centre_mm = [0.0; 3];
        g.voxel_mm[2] = 0.0;
    }
    let delivered = write(
        &images,
        &scan("HFS"),
        &folder.path().join("a.nii"),
        &HandoffParams::default(),
    )
    .unwrap();
    let codes: Vec<&str> = delivered.notes.iter().map(|n| n.code).collect();
    assert_eq!(
        codes,
        [
            "directions_assumed",
            "thickness_assumed",
            "slice_positions_assumed"
        ]
    );
    assert_eq!(
        read_image(&folder.path().join("a.nii"), None).unwrap().dims,
        [3, 10, 12]
    );
}

#[test]
fn uneven_slices_become_single_volumes() {
    let folder = tempfile::tempdir().unwrap();
    let mut images = oblique_stack(3);
    images[2].geometry.centre_mm[0] -= 0.5;
    let delivered = write(
        &images,
        &scan("HFS"),
        &folder.path().join("a.nii"),
        &HandoffParams::default(),
    )
    .unwrap();
    assert_eq!(delivered.notes[0].code, "irregular_slices");
    assert_eq!(
        names(folder.path()),
        ["a_slice-0.nii", "a_slice-1.nii", "a_slice-2.nii"]
    );
    let dicom = write(
        &images,
        &scan("HFS"),
        &folder.path().join("series"),
        &HandoffParams::default(),
    )
    .unwrap();
    assert!(dicom.notes.is_empty());
}

#[test]
fn an_interrupted_scan_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let mut images: Vec<ReconImage> = dynamic()
        .into_iter()
        .filter(|i| i.key.contrast == 0)
        .collect();
    images.pop();
    let delivered = write(
        &images,
        &scan("HFS"),
        &folder.path().join("a.nii"),
        &HandoffParams::default(),
    )
    .unwrap();
    assert_eq!(delivered.notes[0].code, "incomplete_frame");
    assert_eq!(
        names(folder.path()),
        ["a.nii", "a_repetition-1_cardiacphase-0.nii"]
    );
    let all = write(
        &images,
        &scan("HFS"),
        &folder.path().join("series"),
        &HandoffParams::default(),
    )
    .unwrap();
    assert_eq!(all.slices_per_quantity, [(Quantity::Magnitude, 5)]);
}

/// On a file system of 64 KiB every format fails with words, nothing stays behind, and the process goes on: the next HDF5
/// file is written and read.
#[test]
fn full_disk_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(folder.path())
        .output()
        .is_ok_and(|out| out.status.success());
    if !mounted {
        eprintln!("SKIPPED: a small tmpfs cannot be mounted here (needs root)");
        return;
    }
    let images: Vec<ReconImage> = (0..3)
        .map(|s| {
            image(s as u16, oblique(s, 3, [128, 96]), |x, y, _| {
                Complex32::new((x * 7919 + y * 104_729 + s) as f32 % 65_521.0, 0.0)
            })
        })
        .collect();
    let mut failures = Vec::new();
    for name in [
        "a.nii", "a.nii.gz", "a.npy", "a.cfl", "a.dcm", "series", "a.png", "a.h5",
    ] {
        match write(
            &images,
            &scan("HFS"),
            &folder.path().join(name),
            &HandoffParams::default(),
        ) {
            Ok(_) if name == "a.png" => drop(std::fs::remove_file(folder.path().join(name))),
            Ok(_) => failures.push(format!("{name}: written to a full disk?")),
            Err(error) => {
                if error.kind() != FaultKind::Io {
                    failures.push(format!("{name}: {:?} {error}", error.kind()));
                }
                if !error.to_string().contains("free space") {
                    failures.push(format!("{name}: {error}"));
                }
            }
        }
        if !names(folder.path()).is_empty() {
            failures.push(format!("{name} left {:?}", names(folder.path())));
        }
    }
    // A program that another test starts holds a copy of every open file for a moment: busy once is no leak, busy for
    // seconds is.
    let is_unmounted = (0..100).any(|_| {
        let out = Command::new("umount").arg(folder.path()).output().unwrap();
        let done = out.status.success();
        if !done {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        done
    });
    assert!(is_unmounted, "a file on the full disk is still open");
    assert!(failures.is_empty(), "{failures:#?}");
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("a.h5");
    let params = HandoffParams::default();
    write(&images, &scan("HFS"), &path, &params).unwrap();
    assert_eq!(read_image(&path, None).unwrap().dims, [3, 96, 128]);
}

#[test]
fn readers_refuse_with_words() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &oblique_stack(2),
        &scan("HFS"),
        &folder.path().join("a.nii"),
        &HandoffParams::default(),
    )
    .unwrap();
    write(
        &oblique_stack(2),
        &scan("HFS"),
        &folder.path().join("a.npy"),
        &HandoffParams::default(),
    )
    .unwrap();
    for name in ["a.nii", "a.npy"] {
        let whole = std::fs::read(folder.path().join(name)).unwrap();
        for n in [0, 1, 9, 60, 200, 347, 351, whole.len() - 1] {
            let cut = folder.path().join(format!("cut_{name}"));
            std::fs::write(&cut, &whole[..n]).unwrap();
            assert!(read_image(&cut, None).is_err(), "{name} cut at {n}");
        }
        // An absurd extent is refused before memory is taken.
        let mut absurd = whole.clone();
        if name == "a.nii" {
            for axis in 1..=3 {
                absurd[40 + 2 * axis..42 + 2 * axis].copy_from_slice(&32_767_i16.to_le_bytes());
            }
        } else {
            let text =
                String::from_utf8_lossy(&whole[..128]).replace("(1, 2, 10, 12)", "(9999999999999)");
            absurd[..text.len().min(128)].copy_from_slice(&text.as_bytes()[..text.len().min(128)]);
        }
        let path = folder.path().join(format!("absurd_{name}"));
        std::fs::write(&path, absurd).unwrap();
        assert!(read_image(&path, None).is_err(), "{name}");
    }
    for name in ["a.png", "nothing.nii", "nothing.cfl"] {
        assert!(
            read_image(&folder.path().join(name), None).is_err(),
            "{name}"
        );
    }
    assert!(
        read_image(folder.path(), None)
            .unwrap_err()
            .to_string()
            .contains("no .dcm file")
    );
}

#[test]
fn params_are_checked() {
    for (toml, text) in [
        ("quantities = []", "empty list"),
        ("quantities = [\"snr\", \"snr\"]", "snr twice"),
        ("window_percentiles = [99, 1]", "low < high"),
    ] {
        let params: HandoffParams = toml::from_str(toml).unwrap();
        assert!(
            params.check().unwrap_err().to_string().contains(text),
            "{toml}"
        );
    }
    assert!(toml::from_str::<HandoffParams>("quantity = \"snr\"").is_err());
    assert!(toml::from_str::<HandoffParams>("quantities = [\"SNR\"]").is_err());
    let all: HandoffParams =
        toml::from_str("overwrite = true\n[dicom]\nkind = \"enhanced\"").unwrap();
    assert!(all.overwrite && all.check().is_ok());
}

/// NumPy, nibabel and BART read what we write.
#[test]
fn peers_read_our_arrays() {
    let folder = tempfile::tempdir().unwrap();
    let images = oblique_stack(4);
    for name in ["a.npy", "a.nii.gz", "a.cfl"] {
        write(
            &images,
            &scan("HFS"),
            &folder.path().join(name),
            &with(&[Quantity::Magnitude, Quantity::Complex]),
        )
        .unwrap();
    }
    if let Some(python) = python() {
        let code = "import sys, numpy as np, nibabel\nf = sys.argv[1]\na = np.load(f + '/a.npy'); c = np.load(f + '/a_complex.npy')\nn = nibabel.load(f + '/a.nii.gz'); m = nibabel.load(f + '/a_complex.nii.gz')\nassert a.shape == (1, 4, 10, 12) and a.dtype == np.float32, a.shape\nassert np.array_equal(np.asarray(n.dataobj).T, a[0])\nassert np.array_equal(np.asarray(m.dataobj).T, c[0])\nassert np.allclose(abs(c), a)\nassert n.header['descrip'].item().startswith(b'magnitude;TE=98;TR=4000'), n.header['descrip']\nprint('same', n.header.get_zooms())";
        let said = run(Command::new(python).args(["-c", code]).arg(folder.path()));
        assert!(said.contains("same"), "{said}");
    }
    if let Some(bart) = program(&["bart"]) {
        let said = run(Command::new(bart)
            .args(["show", "-m"])
            .arg(folder.path().join("a")));
        assert!(
            said.contains("12\t10\t1") || said.contains("12 10 1"),
            "{said}"
        );
    }
}
