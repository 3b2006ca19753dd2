//! Every kind of file, recognised and read; damaged files.

use std::path::PathBuf;

use ismrmrd::AcquisitionFlag as Flag;
use num_complex::Complex32;

use super::*;

/// Small files made by `scripts/make_source_samples.py`.
pub(crate) fn sample(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/source")
        .join(name)
}

/// A file of the shared catalogue; `None`, and said so, where it is absent.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("CAUDA_SHARED")
        .map_or_else(|| PathBuf::from("/work/shared"), PathBuf::from);
    let path = root.join("data").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is absent", path.display());
    None
}

pub(crate) fn all(opened: &mut Opened) -> Vec<Acquisition> {
    let mut list = Vec::new();
    opened
        .for_each_batch(&mut |batch| {
            list.extend(batch.iter().map(AcquisitionRef::to_owned));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(list.len() as u64, opened.count());
    list
}

fn read(path: &Path) -> (Opened, Vec<Acquisition>) {
    let mut opened = open(path, &OpenOptions::default()).unwrap();
    let list = all(&mut opened);
    for a in &list {
        let h = &a.head;
        assert_eq!(
            a.data.len(),
            usize::from(h.active_channels) * usize::from(h.number_of_samples)
        );
        assert_eq!(
            a.traj.len(),
            usize::from(h.trajectory_dimensions) * usize::from(h.number_of_samples)
        );
    }
    (opened, list)
}

fn codes(notes: &[Note]) -> Vec<&'static str> {
    notes.iter().map(|n| n.code).collect()
}

/// The samples that `make_source_samples.py` gives a line.
fn expected(line: u16, slice: u16, coil: usize, column: usize, extra: f32) -> Complex32 {
    Complex32::new(
        100.0 * f32::from(line) + coil as f32 + extra,
        column as f32 + 1000.0 * f32::from(slice),
    )
}

#[test]
fn vb_twix_gives_every_readout_with_its_flags_and_samples() {
    let (mut opened, list) = read(&sample("vb_tse.dat"));
    assert_eq!(opened.kind, Kind::TwixVb);
    // Noise, phase correction, then two slices of 8 lines and 2 calibration-only lines.
    assert_eq!(list.len(), 2 + 2 * 10);
    assert!(list[0].head.has(Flag::IsNoiseMeasurement));
    assert_eq!(list[0].head.number_of_samples, 64);
    // siemens_to_ismrmrd's rule for VB: 10^6 / samples / 130.
    assert!((list[0].head.sample_time_us - 120.192_3).abs() < 1e-3);
    assert!(list[1].head.has(Flag::IsPhasecorrData));
    for a in list
        .iter()
        .filter(|a| !a.head.has(Flag::IsNoiseMeasurement))
    {
        assert_eq!(a.head.sample_time_us, 11.6);
        let (line, slice) = (a.head.idx.kspace_encode_step_1, a.head.idx.slice);
        for coil in 0..3 {
            for column in 0..32 {
                assert_eq!(
                    a.data[coil * 32 + column],
                    expected(line, slice, coil, column, 0.0)
                );
            }
        }
        assert_eq!(a.head.position, [1.0, 2.0, 3.0 + 5.0 * f32::from(slice)]);
        assert!(
            (a.head.read_dir[0] + 1.0).abs() < 1e-6 && (a.head.phase_dir[1] - 1.0).abs() < 1e-6
        );
        assert_eq!(a.head.user_int[..4], [11, 12, 13, 14]);
        assert_eq!(a.head.center_sample, 16);
        assert_eq!(a.head.idx.user[5], 8);
        assert_eq!(a.head.has(Flag::IsReverse), line == 4);
    }
    let summary = opened.describe().unwrap();
    // The odd calibration lines of this VB protocol carry both bits, as embedded ones do.
    assert_eq!(summary.purposes.calibration_and_imaging, 8);
    assert_eq!(summary.purposes.imaging, 12);
    assert_eq!(summary.purposes.calibration, 0);
    assert_eq!(summary.purposes.noise, 1);
    let e = &opened.header.encoding[0];
    assert_eq!(e.encoded_space.matrix_size, [32, 16, 1]);
    assert_eq!(e.encoded_space.field_of_view_mm, [320.0, 200.0, 4.0]);
    assert_eq!(e.recon_space.matrix_size, [16, 16, 1]);
    assert_eq!(e.recon_space.field_of_view_mm, [160.0, 160.0, 4.0]);
    let limit = e.encoding_limits.kspace_encoding_step_1.unwrap();
    assert_eq!((limit.minimum, limit.maximum, limit.center), (0, 15, 8));
    assert_eq!(e.echo_train_length, Some(4));
    let p = e.parallel_imaging.as_ref().unwrap();
    assert_eq!(p.acceleration_factor, [2, 1]);
    assert_eq!(p.calibration_mode.as_deref(), Some("embedded"));
    let s = opened.header.sequence_parameters.as_ref().unwrap();
    assert_eq!(
        (s.tr.as_slice(), s.te.as_slice()),
        (&[3000.0][..], &[85.0][..])
    );
    assert_eq!(s.flip_angle_deg, [180.0]);
    let system = opened
        .header
        .acquisition_system_information
        .as_ref()
        .unwrap();
    assert_eq!(system.receiver_channels, Some(3));
    let names: Vec<&str> = system
        .coil_label
        .iter()
        .map(|c| c.coil_name.as_str())
        .collect();
    assert_eq!(names, ["Spine:SP1", "Spine:SP2", "Spine:SP3"]);
    assert!(codes(&opened.notes).contains(&"sync_data_skipped"));
}

#[test]
fn vd_twix_reads_the_last_measurement_and_takes_noise_from_an_earlier_one() {
    let (mut opened, list) = read(&sample("vd_multi.dat"));
    assert_eq!(opened.kind, Kind::TwixVd);
    assert_eq!(list.len(), 4 + 2 * 9);
    for a in &list[..4] {
        assert!(a.head.has(Flag::IsNoiseMeasurement));
        // The adjustment's dwell time is fixed.
        assert_eq!(a.head.sample_time_us, 5.0);
    }
    assert_eq!(opened.noise.as_ref().unwrap().readouts, 4);
    assert!(codes(&opened.notes).contains(&"measurement_chosen"));
    for a in &list[4..] {
        let (line, slice) = (a.head.idx.kspace_encode_step_1, a.head.idx.slice);
        assert_eq!(a.data[2 * 32 + 5], expected(line, slice, 2, 5, 0.0));
        let is_reference = (7..=10).contains(&line);
        assert_eq!(
            a.head.has(Flag::IsParallelCalibration),
            is_reference && line % 2 == 1
        );
        assert_eq!(
            a.head.has(Flag::IsParallelCalibrationAndImaging),
            is_reference && line % 2 == 0
        );
        assert!(
            (a.head.patient_table_position[2] + 1040.015).abs() < 1e-3
                || a.head.patient_table_position[0] != 0.0
        );
    }
    let limit = opened.header.encoding[0]
        .encoding_limits
        .kspace_encoding_step_1
        .unwrap();
    // Protocol: 14 of 16 lines with a first Fourier line gives 16/2 - 2 = 6; the readouts say 8 and are believed.
    assert_eq!((limit.maximum, limit.center), (13, 8));
    assert!(codes(&opened.notes).contains(&"centre_line_from_data"));
    let summary = opened.describe().unwrap();
    assert!(codes(&summary.notes).contains(&"partial_fourier"));
    assert_eq!(summary.purposes.calibration, 4);

    // The first measurement alone, when asked for.
    let mut first = open(
        &sample("vd_multi.dat"),
        &OpenOptions {
            measurement: Some(1),
            ..OpenOptions::default()
        },
    )
    .unwrap();
    assert_eq!(all(&mut first).len(), 4);
    let third = open(
        &sample("vd_multi.dat"),
        &OpenOptions {
            measurement: Some(3),
            ..OpenOptions::default()
        },
    );
    assert!(matches!(third, Err(SourceError::Option { .. })));
}

#[test]
fn twix_that_is_cut_short_is_refused_or_read_as_far_as_it_goes() {
    let bytes = std::fs::read(sample("vb_tse.dat")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut");
    for n in [200, 9_000, 10_240 + 60, 10_240 + 1000, bytes.len() - 4000] {
        std::fs::write(&path, &bytes[..n]).unwrap();
        let error = open(&path, &OpenOptions::default()).unwrap_err();
        assert!(
            matches!(error, SourceError::Malformed { .. }),
            "{n}: {error}"
        );
        assert!(error.to_string().contains("cut short"), "{n}: {error}");
    }
    let options = OpenOptions {
        allow_truncated: true,
        ..OpenOptions::default()
    };
    let mut opened = open(&path, &options).unwrap();
    let list = all(&mut opened);
    assert!(list.len() > 10 && list.len() < 22, "{}", list.len());
    assert!(codes(&opened.notes).contains(&"no_end_mark"));

    let bytes = std::fs::read(sample("vd_multi.dat")).unwrap();
    for n in [100, 5_000, 10_240, 12_000, bytes.len() - 4000] {
        std::fs::write(&path, &bytes[..n]).unwrap();
        let error = open(&path, &OpenOptions::default()).unwrap_err();
        assert!(
            matches!(
                error,
                SourceError::Malformed { .. } | SourceError::Unsupported { .. }
            ),
            "{n}: {error}"
        );
    }
}

#[test]
fn twix_with_a_wrong_length_in_a_readout_is_refused_by_place() {
    let bytes = std::fs::read(sample("vd_multi.dat")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong");
    let second = u64::from_le_bytes(bytes[8 + 152 + 8..8 + 152 + 16].try_into().unwrap()) as usize;
    let header = u32::from_le_bytes(bytes[second..second + 4].try_into().unwrap()) as usize;
    // After the sync block (192 + 64 bytes): the first line. Its number of samples, then its number of channels.
    let line = second + header + 256;
    for (offset, value) in [(48, 30u16), (48, 65_000), (50, 4), (50, 60_000)] {
        let mut wrong = bytes.clone();
        wrong[line + offset..line + offset + 2].copy_from_slice(&value.to_le_bytes());
        std::fs::write(&path, &wrong).unwrap();
        let error = open(&path, &OpenOptions::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("measurement 2, readout 2 at byte"), "{text}");
    }
    // A sync block whose DMA length is shorter than its own header would never end.
    let mut wrong = bytes.clone();
    wrong[second + header..second + header + 4].copy_from_slice(&0u32.to_le_bytes());
    wrong[second + header + 48] = 1;
    wrong[second + header + 50] = 1;
    std::fs::write(&path, &wrong).unwrap();
    assert!(open(&path, &OpenOptions::default()).is_err());
}

#[test]
fn fastmri_transposes_drops_unmeasured_lines_and_counts_as_the_header_does() {
    let (mut opened, list) = read(&sample("fastmri_full.h5"));
    assert_eq!(opened.kind, Kind::FastMri);
    assert_eq!(list.len(), 3 * 10);
    for a in &list {
        let (line, slice) = (a.head.idx.kspace_encode_step_1, a.head.idx.slice);
        assert_eq!(a.head.number_of_samples, 16);
        for coil in 0..2 {
            for ro in 0..16 {
                assert_eq!(a.data[coil * 16 + ro], expected(line, slice, coil, ro, 1.0));
            }
        }
    }
    assert_eq!(
        list.iter()
            .take(10)
            .map(|a| a.head.idx.kspace_encode_step_1)
            .collect::<Vec<_>>(),
        (0..10).collect::<Vec<u16>>()
    );
    assert_eq!(
        opened
            .header
            .measurement_information
            .as_ref()
            .unwrap()
            .protocol_name
            .as_deref(),
        Some("CORPD_FBK")
    );
    let summary = opened.describe().unwrap();
    assert!(
        !codes(&summary.notes).contains(&"counter_outside_limits"),
        "{:?}",
        summary.notes
    );

    let (opened, list) = read(&sample("fastmri_test.h5"));
    // Columns 2, 5, 6, 7, 8, 10 are in the mask; counters are two less.
    let lines: Vec<u16> = list
        .iter()
        .take(6)
        .map(|a| a.head.idx.kspace_encode_step_1)
        .collect();
    assert_eq!(lines, [0, 3, 4, 5, 6, 8]);
    assert_eq!(list.len(), 18);
    assert!(codes(&opened.notes).contains(&"zeros_not_measured"));
}

#[test]
fn arrays_read_in_either_order_and_name_their_axes() {
    for name in ["kspace_c16.npy", "kspace_c8_fortran.npy"] {
        let (opened, list) = read(&sample(name));
        assert_eq!(opened.kind, Kind::Npy);
        let lines: Vec<u16> = list
            .iter()
            .map(|a| a.head.idx.kspace_encode_step_1)
            .collect();
        assert_eq!(lines, [0, 1, 2, 4]);
        for a in &list {
            let line = a.head.idx.kspace_encode_step_1;
            for coil in 0..2 {
                for ro in 0..6 {
                    assert_eq!(a.data[coil * 6 + ro], expected(line, 0, coil, ro, 1.0));
                }
            }
            assert_eq!(a.head.center_sample, 3);
        }
        assert!(codes(&opened.notes).contains(&"nominal_geometry"));
        assert_eq!(
            opened.header.encoding[0].encoded_space.matrix_size,
            [6, 5, 1]
        );
    }
    // The same array from MATLAB: the third axis is slices unless said otherwise.
    let (opened, list) = read(&sample("kspace.mat"));
    assert_eq!(opened.kind, Kind::Mat);
    assert_eq!(list.len(), 8);
    assert_eq!(list[4].head.idx.slice, 1);
    let mut opened = open(
        &sample("kspace.mat"),
        &OpenOptions {
            axes: Some("ro,pe1,coil".into()),
            ..OpenOptions::default()
        },
    )
    .unwrap();
    let list = all(&mut opened);
    assert_eq!(list.len(), 4);
    assert_eq!(list[3].data[6 + 2], expected(4, 0, 1, 2, 1.0));
    for axes in ["ro,pe1", "ro,pe1,pe1", "ro,pe1,echo", "ro,pe1,coil,slice"] {
        let error = open(
            &sample("kspace.mat"),
            &OpenOptions {
                axes: Some(axes.into()),
                ..OpenOptions::default()
            },
        )
        .unwrap_err();
        assert!(
            matches!(error, SourceError::Option { .. }),
            "{axes}: {error}"
        );
    }
}

#[test]
fn matlab_samples_with_a_trajectory_keep_it() {
    let (opened, list) = read(&sample("spiral.mat"));
    assert_eq!(list.len(), 3);
    assert_eq!(list[1].head.trajectory_dimensions, 2);
    // data = arange(24).reshape(4, 3, 2) + 1j: sample s, interleaf l, coil c is 6 s + 2 l + c.
    assert_eq!(
        list[1].data[4 + 2],
        Complex32::new(6.0 * 2.0 + 2.0 + 1.0, 1.0)
    );
    // traj = linspace(-0.5, 0.5, 12): sample 2, interleaf 1 is the 8th of 12.
    assert!((list[1].traj[4] - (7.0 / 11.0 - 0.5)).abs() < 1e-6);
    assert_eq!(
        opened.header.encoding[0].trajectory,
        ismrmrd::header::Trajectory::Other
    );
    assert!(codes(&opened.notes).contains(&"density_weights_dropped"));
}

#[test]
fn what_is_no_kspace_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kspace.h5");
    let mut dicom = vec![0u8; 128];
    dicom.extend_from_slice(b"DICM\x02\0\0\0UL");
    let mut nifti = vec![0u8; 352];
    nifti[0] = 0x5c;
    nifti[1] = 1;
    nifti[344..348].copy_from_slice(b"n+1\0");
    for (bytes, needed) in [
        (Vec::new(), "empty"),
        (dicom, "DICOM"),
        (nifti, "NIfTI"),
        (b"\x89PNG\r\n\x1a\n1234".to_vec(), "PNG"),
        (
            b"hello, world\n".to_vec(),
            "text beginning with \"hello, world\"",
        ),
        (b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), "gzip"),
        (vec![0u8; 4096], "zeros"),
        (vec![0xde, 0xad, 0xbe, 0xef, 1, 2, 3], "de ad be ef"),
        (
            b"MATLAB 7.3 MAT-file, Platform: GLNXA64"
                .iter()
                .copied()
                .chain(vec![0; 474])
                .chain(*b"\x89HDF\r\n\x1a\n")
                .collect(),
            "version 7.3",
        ),
        (b"# Dimensions\n1 2 3\n".to_vec(), "BART header without"),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        let error = open(&path, &OpenOptions::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(needed), "{needed}: {text}");
        assert!(matches!(error, SourceError::Unsupported { .. }));
        assert_eq!(
            crate::data::Fault::from(error).kind,
            crate::data::FaultKind::Unsupported
        );
    }
    assert!(matches!(
        detect(&folder.path().join("absent")),
        Err(SourceError::Io { .. })
    ));
    assert!(matches!(
        detect(folder.path()),
        Err(SourceError::Unsupported { .. })
    ));
    for name in ["real.npy", "strange.mat"] {
        let error = open(&sample(name), &OpenOptions::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("complex"), "{error}");
    }
}

#[test]
fn bart_pairs_are_found_by_either_name_and_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let stem = folder.path().join("k.v2");
    let extents = [6usize, 4, 1, 2];
    let samples: Vec<Complex32> = (0..48)
        .map(|i| Complex32::new(i as f32 + 1.0, -(i as f32)))
        .collect();
    write_cfl(&folder.path().join("k"), &extents, samples.iter().copied()).unwrap();
    for name in ["k", "k.cfl", "k.hdr"] {
        let (opened, list) = read(&folder.path().join(name));
        assert_eq!(opened.kind, Kind::Bart);
        assert_eq!(list.len(), 4);
        for (line, a) in list.iter().enumerate() {
            for coil in 0..2 {
                for ro in 0..6 {
                    assert_eq!(a.data[coil * 6 + ro], samples[ro + 6 * (line + 4 * coil)]);
                }
            }
        }
    }
    std::fs::write(folder.path().join("k.v2.hdr"), "# Dimensions\n2 2\n").unwrap();
    std::fs::write(folder.path().join("k.v2.cfl"), [1u8; 31]).unwrap();
    let error = open(&stem, &OpenOptions::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("31 bytes") && error.contains("32 bytes"),
        "{error}"
    );
    for dims in [
        "",
        "0 2",
        "-1 2",
        "a",
        "99999999999 99999999999 99999999999",
        "1 2 1 1 3",
    ] {
        std::fs::write(
            folder.path().join("k.v2.hdr"),
            format!("# Dimensions\n{dims}\n"),
        )
        .unwrap();
        open(&stem, &OpenOptions::default()).unwrap_err();
    }
}

#[test]
fn single_missing_points_make_a_phase_encoding_plane_and_missing_lines_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let stem = folder.path().join("p");
    // 8 x 6 plane, one coil: a scattered half of the points.
    let point = |i: usize| {
        if (i * 7) % 5 < 2 {
            Complex32::ZERO
        } else {
            Complex32::new(i as f32 + 1.0, 0.0)
        }
    };
    for extents in [vec![8, 6], vec![1, 8, 6]] {
        write_cfl(&stem, &extents, (0..48).map(point)).unwrap();
        let (opened, list) = read(&stem);
        assert_eq!(
            list.len(),
            (0..48).filter(|&i| point(i) != Complex32::ZERO).count()
        );
        for a in &list {
            let (x, y) = (
                usize::from(a.head.idx.kspace_encode_step_1),
                usize::from(a.head.idx.kspace_encode_step_2),
            );
            assert_eq!(a.data, [point(x + 8 * y)]);
        }
        assert_eq!(
            opened.header.encoding[0].encoded_space.matrix_size,
            [1, 8, 6]
        );
    }
    // Whole lines missing along the last axis: the same 1 x 8 x 6 is a 2D scan with readout 8.
    let line = |i: usize| {
        if (i / 8) % 2 == 1 {
            Complex32::ZERO
        } else {
            Complex32::new(1.0, i as f32)
        }
    };
    write_cfl(&stem, &[1, 8, 6], (0..48).map(line)).unwrap();
    let (opened, list) = read(&stem);
    assert_eq!(list.len(), 3);
    assert_eq!(
        opened.header.encoding[0].encoded_space.matrix_size,
        [8, 6, 1]
    );
    assert!(codes(&opened.notes).contains(&"readout_from_phase_axis"));
    // Nothing but zeros.
    write_cfl(&stem, &[8, 6], (0..48).map(|_| Complex32::ZERO)).unwrap();
    assert!(open(&stem, &OpenOptions::default()).is_err());
}

#[test]
fn conversion_to_bart_places_lines_about_the_centre_and_averages_repeats() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("vb.cfl");
    let done = convert(&sample("vb_tse.dat"), &out, &ConvertOptions::default()).unwrap();
    assert_eq!((done.readouts, done.written), (22, 20));
    let text = std::fs::read_to_string(folder.path().join("vb.hdr")).unwrap();
    assert!(
        text.starts_with("# Dimensions\n32 16 1 3 1 1 1 1 1 1 1 1 1 2 1 1 \n"),
        "{text}"
    );
    let bytes = std::fs::read(&out).unwrap();
    let at = |x: usize, y: usize, coil: usize, slice: usize| {
        let i = 8 * (x + 32 * (y + 16 * (coil + 3 * slice)));
        Complex32::new(
            f32::from_le_bytes(bytes[i..i + 4].try_into().unwrap()),
            f32::from_le_bytes(bytes[i + 4..i + 8].try_into().unwrap()),
        )
    };
    assert_eq!(at(5, 6, 2, 1), expected(6, 1, 2, 5, 0.0));
    // Line 4 was read backwards with its centre at sample 16: sample i lies at 31 - i, and its centre at 15 moves to 16.
    assert_eq!(at(3, 4, 0, 0), expected(4, 0, 0, 31 - 3, 0.0));
    assert_eq!(at(0, 3, 0, 0), Complex32::ZERO);
    let error = convert(
        &sample("vb_tse.dat"),
        &folder.path().join("x.xyz"),
        &ConvertOptions::default(),
    )
    .unwrap_err();
    assert!(matches!(error, SourceError::Option { .. }));
}

#[test]
fn conversion_to_ismrmrd_keeps_every_readout_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "vb_tse.dat",
        "vd_multi.dat",
        "fastmri_test.h5",
        "spiral.mat",
        "kspace_c16.npy",
    ] {
        let out = folder.path().join(format!("{name}.h5"));
        let done = convert(&sample(name), &out, &ConvertOptions::default()).unwrap();
        let (before, a) = read(&sample(name));
        let (after, b) = read(&out);
        assert_eq!(done.written as usize, a.len());
        assert_eq!(after.kind, Kind::Ismrmrd);
        assert_eq!(a, b, "{name}");
        assert_eq!(before.header, after.header, "{name}");

        let stream = folder.path().join(format!("{name}.mrd"));
        convert(&sample(name), &stream, &ConvertOptions::default()).unwrap();
        let (streamed, c) = read(&stream);
        assert_eq!(streamed.kind, Kind::MrdV1Stream);
        assert_eq!(a, c, "{name}");
        assert_eq!(before.header, streamed.header, "{name}");
        let whole = std::fs::read(&stream).unwrap();
        std::fs::write(&stream, &whole[..whole.len() - 10]).unwrap();
        assert!(open(&stream, &OpenOptions::default()).is_err());
    }
}

#[test]
fn files_with_images_only_are_refused_and_listed() {
    for (name, needed) in [
        ("mrd/ismrmrdviewer_image.h5", "without readouts"),
        ("mrd/brain8_images.v1stream", "3 images"),
        ("mrd/phantom_v2_c8_m64.recon.mrd", "without readouts"),
        ("brain/p7a_3T_FLAIR.mat", "image (double"),
        ("dicom/emri_small.dcm", "DICOM"),
        ("spine/sct_t1w.nii.gz", "gzip"),
        ("models/dncnn_gray_sigma25.safetensors", "no known kind"),
    ] {
        let Some(path) = shared(name) else { return };
        let error = open(&path, &OpenOptions::default()).unwrap_err();
        assert!(matches!(error, SourceError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(needed), "{name}: {error}");
    }
}

#[test]
fn every_shared_kspace_file_reads() {
    for (name, kind, count) in [
        ("kspace/brain8_full.cfl", Kind::Bart, 180),
        ("kspace/radial_bricks_top_sp69", Kind::Bart, 69),
        ("kspace/brain8_poisson.npy", Kind::Npy, 5148),
        ("kspace/bruker_rare_mouse", Kind::Bruker, 1440),
        ("kspace/bruker_rare_mouse/fid", Kind::Bruker, 1440),
        ("kspace/bruker_rare_mouse/method", Kind::Bruker, 1440),
        ("kspace/skyra_gre_phantom.dat", Kind::TwixVd, 160),
        ("kspace/spiral_phantom_8ch.mat", Kind::Mat, 60),
        (
            "kspace/ulf_p7a/0.055T_FSE_kspace_postEMI.mat",
            Kind::Mat,
            504,
        ),
        (
            "kspace/ulf_p7a/0.055T_GRE_kspace_postEMI.mat",
            Kind::Mat,
            784,
        ),
        (
            "kspace/ulf_p7a/0.055T_FLAIR_kspace_postEMI.mat",
            Kind::Mat,
            504,
        ),
        ("mrd/brain8_full.h5", Kind::Ismrmrd, 180),
        ("mrd/brain8_r2_acs24.h5", Kind::Ismrmrd, 102),
        ("mrd/mouse_rare_t2w.h5", Kind::Ismrmrd, 1440),
        ("mrd/radial_bricks_top_sp69.h5", Kind::Ismrmrd, 69),
        ("mrd/sirf_grappa2_1rep_simulated.h5", Kind::Ismrmrd, 143),
        ("mrd/ulf_p7a_fse.h5", Kind::Ismrmrd, 504),
        ("mrd/ulf_p7a_gre.h5", Kind::Ismrmrd, 784),
        ("mrd/brain8_r2_acs24.v1stream", Kind::MrdV1Stream, 102),
        ("mrd/brain8_r2_acs24.v2.mrd", Kind::MrdV2Stream, 102),
        ("mrd/phantom_v2_c8_m64.mrd", Kind::MrdV2Stream, 0),
        ("mrd/phantom_v2_c8_m64_r2w16.mrd", Kind::MrdV2Stream, 0),
    ] {
        let Some(path) = shared(name) else { return };
        let (mut opened, list) = read(&path);
        assert_eq!(opened.kind, kind, "{name}");
        // 0: the catalogue does not say how many.
        assert!(
            list.len() == count || (count == 0 && !list.is_empty()),
            "{name}: {}",
            list.len()
        );
        let summary = opened.describe().unwrap();
        assert_eq!(summary.not_finite, 0);
        eprintln!("{name}: {:?}", codes(&summary.notes));
        serde_json::to_string(&summary).unwrap();
    }
}

#[test]
fn bruker_samples_and_counters_are_those_of_the_converted_file() {
    let (Some(raw), Some(converted)) = (
        shared("kspace/bruker_rare_mouse"),
        shared("mrd/mouse_rare_t2w.h5"),
    ) else {
        return;
    };
    let ((raw, a), (converted, b)) = (read(&raw), read(&converted));
    for (a, b) in a.iter().zip(&b) {
        // The converter left out the planned offset along phase, 1.4791 of 27 mm.
        let step = f64::from(b.head.idx.kspace_encode_step_1) - 48.0;
        let angle = -std::f64::consts::TAU * step * 1.4791 / 27.0;
        let turn = Complex32::new(angle.cos() as f32, angle.sin() as f32);
        for (a, b) in a.data.iter().zip(&b.data) {
            assert!((a - b * turn).norm() <= 1e-6 * b.norm());
        }
        let (mut left, mut right) = (a.head.idx, b.head.idx);
        (left.user, right.user) = ([0; 8], [0; 8]);
        assert_eq!(left, right);
        assert_eq!(a.head.center_sample, b.head.center_sample);
        assert!((a.head.sample_time_us - b.head.sample_time_us).abs() < 1e-3);
    }
    let (x, y) = (&raw.header.encoding[0], &converted.header.encoding[0]);
    assert_eq!(x.encoded_space.matrix_size, y.encoded_space.matrix_size);
    assert_eq!(x.recon_space, y.recon_space);
    assert_eq!(
        x.encoding_limits.kspace_encoding_step_1,
        y.encoding_limits.kspace_encoding_step_1
    );
    assert_eq!(x.encoding_limits.slice, y.encoding_limits.slice);
    assert_eq!(x.echo_train_length, y.echo_train_length);
}

/// Where the vendor's own image lies: `VisuCorePosition` is its first voxel, `VisuCoreOrientation` the directions along
/// its columns, its rows and its slices; `2dseq` has our phase axis along its columns.
#[test]
fn bruker_geometry_is_that_of_the_vendors_image() {
    let Some(folder) = shared("kspace/bruker_rare_mouse") else {
        return;
    };
    let text = std::fs::read_to_string(folder.join("pdata/1/visu_pars")).unwrap();
    let numbers = |key: &str| -> Vec<f32> {
        let rest = text.split_once(&format!("##${key}=(")).unwrap().1;
        let rest = rest.split_once(')').unwrap().1;
        let rest = rest.split("##").next().unwrap();
        rest.split_whitespace()
            .filter_map(|w| w.parse().ok())
            .collect()
    };
    let (directions, corners) = (numbers("VisuCoreOrientation"), numbers("VisuCorePosition"));
    let (_, list) = read(&folder);
    let near = |a: [f32; 3], b: [f32; 3]| (0..3).all(|i| (a[i] - b[i]).abs() < 1e-3);
    let is_there = |head: &ismrmrd::AcquisitionHeader| {
        let of = |list: &[f32], at: usize| [list[at], list[at + 1], list[at + 2]];
        let slice = usize::from(head.idx.slice);
        let (columns, rows) = (of(&directions, 9 * slice), of(&directions, 9 * slice + 3));
        let corner = of(&corners, 3 * slice);
        let centre = [0, 1, 2].map(|i| corner[i] + 13.5 * (columns[i] + rows[i]));
        near(head.phase_dir, columns) && near(head.read_dir, rows) && near(head.position, centre)
    };
    assert!(list.iter().all(|a| is_there(&a.head)));
    // wrong twins: against the gradients, on the other side, the neighbouring slice
    let mut twin = list[0].head;
    twin.read_dir = twin.read_dir.map(|v| -v);
    assert!(!is_there(&twin));
    let mut twin = list[0].head;
    twin.position[0] = -twin.position[0];
    assert!(!is_there(&twin));
    let mut twin = list[0].head;
    twin.idx.slice += 1;
    assert!(!is_there(&twin));
}

#[test]
fn a_real_twix_file_gives_the_header_of_its_protocol() {
    let Some(path) = shared("kspace/skyra_gre_phantom.dat") else {
        return;
    };
    let (opened, list) = read(&path);
    let e = &opened.header.encoding[0];
    assert_eq!(e.encoded_space.matrix_size, [320, 160, 1]);
    assert_eq!(e.encoded_space.field_of_view_mm, [400.0, 200.0, 4.0]);
    assert_eq!(e.recon_space.matrix_size, [160, 160, 1]);
    assert_eq!(e.encoding_limits.kspace_encoding_step_1.unwrap().center, 80);
    let s = opened.header.sequence_parameters.as_ref().unwrap();
    assert_eq!(
        (s.tr.as_slice(), s.te.as_slice()),
        (&[10.0][..], &[3.0][..])
    );
    assert_eq!(s.flip_angle_deg, [15.0]);
    let system = opened
        .header
        .acquisition_system_information
        .as_ref()
        .unwrap();
    assert_eq!(system.system_model.as_deref(), Some("Skyra"));
    assert_eq!(system.coil_label.len(), 2);
    assert!((system.system_field_strength_t.unwrap() - 2.893_62).abs() < 1e-5);
    assert_eq!(
        opened
            .header
            .experimental_conditions
            .h1_resonance_frequency_hz,
        123_263_034
    );
    let m = opened.header.measurement_information.as_ref().unwrap();
    assert_eq!(
        (m.patient_position.as_str(), m.protocol_name.as_deref()),
        ("HFS", Some("gre"))
    );
    assert_eq!(m.measurement_id.as_deref(), Some("6327770_6327775_358"));
    let h = &list[0].head;
    assert_eq!(h.sample_time_us, 11.6);
    assert_eq!(h.center_sample, 160);
    assert!((h.position[1] - 53.922_43).abs() < 1e-5);
    // All samples, [channel, sample] of every readout, as twixtools 0.24 reads them.
    let mut crc = flate2::Crc::new();
    for a in &list {
        crc.update(bytemuck::cast_slice(&a.data));
    }
    assert_eq!(crc.sum(), 0x8384_f4dc);
    // Slice normal of the protocol: (6.6e-9, 0.0384, 0.9993).
    assert!(
        (h.slice_dir[1] - 0.038_387_8).abs() < 1e-4 && (h.slice_dir[2] - 0.999_263).abs() < 1e-4
    );
}

/// Deterministic pseudo-random numbers (xorshift64*), so that a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

/// Opens, visits everything, and accepts an error; what must not happen is a panic or an endless loop.
fn survive(path: &Path, allow_truncated: bool) {
    let options = OpenOptions {
        allow_truncated,
        ..OpenOptions::default()
    };
    if let Ok(mut opened) = open(path, &options) {
        let mut visited = 0u64;
        let done = opened.for_each_batch(&mut |batch| {
            for a in batch {
                assert_eq!(
                    a.data.len(),
                    usize::from(a.head.active_channels) * usize::from(a.head.number_of_samples)
                );
                visited += 1;
            }
            ControlFlow::Continue(())
        });
        assert!(done.is_err() || visited == opened.count());
        if opened.describe().is_ok() && allow_truncated {
            let out = path.with_extension("out.cfl");
            // Whether it converts does not matter here.
            drop(convert(path, &out, &ConvertOptions::default()));
        }
    }
}

#[test]
fn damaged_files_are_refused_or_read_but_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for name in [
        "vb_tse.dat",
        "vd_multi.dat",
        "kspace_c16.npy",
        "kspace.mat",
        "spiral.mat",
        "strange.mat",
    ] {
        let bytes = std::fs::read(sample(name)).unwrap();
        let path = folder.path().join(name);
        for round in 0..40 {
            let mut damaged = bytes.clone();
            // The beginning of a file is where its lengths are.
            let reach = if round % 2 == 0 {
                bytes.len()
            } else {
                bytes.len().min(600)
            };
            for _ in 0..=random.below(4) {
                let at = random.below(reach);
                damaged[at] = match random.below(4) {
                    0 => 0,
                    1 => 0xff,
                    _ => random.below(256) as u8,
                };
            }
            if round % 5 == 0 {
                damaged.truncate(random.below(bytes.len()));
            }
            std::fs::write(&path, &damaged).unwrap();
            survive(&path, round % 3 == 0);
        }
    }
    // Readout headers of both twix lines, field by field.
    for (name, at, size) in [
        ("vb_tse.dat", 10_240, 128),
        ("vd_multi.dat", 10_240 + 10_240, 192),
    ] {
        let bytes = std::fs::read(sample(name)).unwrap();
        let path = folder.path().join(name);
        for field in (0..size).step_by(2) {
            for value in [0u16, 0x7fff, 0xffff] {
                let mut damaged = bytes.clone();
                damaged[at + field..at + field + 2].copy_from_slice(&value.to_le_bytes());
                std::fs::write(&path, &damaged).unwrap();
                survive(&path, false);
            }
        }
    }
}

#[test]
fn the_hostile_corpus_is_refused() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/source");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "md" || e == "hdr") {
            continue;
        }
        let error = open(&path, &OpenOptions::default()).and_then(|mut opened| opened.describe());
        let error = error.expect_err(&path.display().to_string());
        let text = error.to_string();
        assert!(
            text.contains(path.file_stem().unwrap().to_str().unwrap()),
            "no path in: {text}"
        );
        let fault = crate::data::Fault::from(error);
        assert!(
            matches!(
                fault.kind,
                crate::data::FaultKind::Input
                    | crate::data::FaultKind::Unsupported
                    | crate::data::FaultKind::Limit
            ),
            "{text}"
        );
        count += 1;
    }
    assert!(count >= 14, "{count}");
}
