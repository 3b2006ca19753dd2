//! Files written and read back, by both readers; damaged files.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::*;
use crate::acquisition::{Acquisition, AcquisitionHeader};
use crate::header::Header;
use crate::image::{Image, ImageHeader, NdArray, Pixels};
use crate::waveform::{Waveform, WaveformHeader};
use crate::{Complex32, Complex64, Limits};

/// Values that differ everywhere, without a random number generator.
fn value(i: usize) -> f32 {
    (i as f32 * 0.618_034).fract() - 0.5
}

pub(super) fn acquisition(i: usize, channels: u16, samples: u16, dimensions: u16) -> Acquisition {
    let n = usize::from(samples);
    let mut head = AcquisitionHeader {
        scan_counter: i as u32,
        number_of_samples: samples,
        active_channels: channels,
        available_channels: channels,
        trajectory_dimensions: dimensions,
        sample_time_us: 2.5,
        position: [1.0, -2.0, 3.5],
        user_int: [-1, 2, -3, 4, -5, 6, -7, 8],
        user_float: [0.5; 8],
        flags: 1 << 63 | 1 << (i % 30),
        ..Default::default()
    };
    head.idx.kspace_encode_step_1 = i as u16;
    head.idx.user = [9, 8, 7, 6, 5, 4, 3, 2];
    head.channel_mask[15] = u64::MAX;
    Acquisition {
        head,
        traj: (0..n * usize::from(dimensions))
            .map(|k| value(k + i))
            .collect(),
        data: (0..n * usize::from(channels))
            .map(|k| Complex32::new(value(k * 3 + i), value(k * 7 + i)))
            .collect(),
    }
}

pub(super) fn read_all(path: &Path, group: &str, library: bool) -> Result<Vec<Acquisition>, Error> {
    let file = File::open(path, Limits::default())?;
    let mut all = Vec::new();
    let mut visit = |batch: &[crate::acquisition::AcquisitionRef<'_>]| {
        all.extend(batch.iter().map(|a| a.to_owned()));
        ControlFlow::Continue(())
    };
    if library {
        file.for_each_batch_by_library(group, 7, &mut visit)?;
    } else {
        file.for_each_batch(group, 7, &mut visit)?;
    }
    Ok(all)
}

/// The shared data folder, or a note that it is not there.
pub(super) fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../../shared/data/mrd")
        .join(name);
    let path = if path.exists() {
        path
    } else {
        Path::new("/work/shared/data/mrd").join(name)
    };
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {name} is not here (../shared/data is absent)");
    None
}

#[test]
fn what_is_written_is_read_by_both_paths() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scan.h5");
    // Sizes that mix in heap collections: none, odd, tiny, larger than a collection; with and without trajectory.
    let sizes = [
        (1, 1, 0),
        (3, 5, 2),
        (0, 4, 1),
        (2, 0, 3),
        (4, 640, 0),
        (16, 640, 3),
        (1, 7, 1),
    ];
    let written: Vec<Acquisition> = (0..150)
        .map(|i| {
            let (c, s, d) = sizes[i % sizes.len()];
            acquisition(i, c, s, d)
        })
        .collect();
    let mut w = Writer::create(&path, "some group/below").unwrap();
    w.header_xml("<ismrmrdHeader/>").unwrap();
    for a in &written {
        w.acquisition(a).unwrap();
    }
    w.finish().unwrap();
    let file = File::open(&path, Limits::default()).unwrap();
    assert_eq!(
        file.reader_kind("some group/below").unwrap(),
        ReaderKind::Direct
    );
    assert_eq!(
        file.number_of_acquisitions("/some group/below/").unwrap(),
        150
    );
    assert_eq!(file.header("some group/below").unwrap(), Header::default());
    assert_eq!(read_all(&path, "some group/below", false).unwrap(), written);
    assert_eq!(read_all(&path, "some group/below", true).unwrap(), written);
    let groups = file.groups().unwrap();
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].name, "some group/below");
    assert_eq!(groups[0].acquisitions, Some(150));
}

/// 66,000 acquisitions are 4,125 chunks: a B-tree of three levels.
#[test]
fn a_long_scan_reads_by_both_paths() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scan.h5");
    let written: Vec<Acquisition> = (0..66_000)
        .map(|i| acquisition(i, 1, 1, u16::from(i % 7 == 0)))
        .collect();
    let mut w = Writer::create(&path, "dataset").unwrap();
    for a in &written {
        w.acquisition(a).unwrap();
    }
    w.finish().unwrap();
    let file = File::open(&path, Limits::default()).unwrap();
    assert_eq!(file.reader_kind("dataset").unwrap(), ReaderKind::Direct);
    assert!(read_all(&path, "dataset", false).unwrap() == written);
    assert!(read_all(&path, "dataset", true).unwrap() == written);
}

/// More names than one node of the library's own making holds.
#[test]
fn a_group_takes_many_names_and_each_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("arrays.h5");
    let array = |i: usize| NdArray {
        shape: vec![2, 3],
        values: Pixels::F32((0..6).map(|k| value(k + i)).collect()),
    };
    let mut w = Writer::create(&path, "dataset").unwrap();
    w.header_xml("<ismrmrdHeader/>").unwrap();
    for i in 0..500 {
        w.array(&format!("array {i}"), &array(i)).unwrap();
    }
    for refused in ["xml", "array 3/below", "with\0nul", "./here", ""] {
        let error = w.array(refused, &array(0)).unwrap_err().to_string();
        assert!(error.contains("needed "), "{refused:?}: {error}");
    }
    let error = w.header_xml("<ismrmrdHeader/>").unwrap_err().to_string();
    assert!(error.contains("the name in use"), "{error}");
    let error = w.header_xml("a\0b").unwrap_err().to_string();
    assert!(error.contains("a NUL inside the text"), "{error}");
    w.finish().unwrap();
    let file = File::open(&path, Limits::default()).unwrap();
    assert_eq!(file.groups().unwrap()[0].arrays.len(), 500);
    for i in [0, 7, 63, 64, 499] {
        let read = file.arrays("dataset", &format!("array {i}")).unwrap();
        assert_eq!(read, [array(i)]);
    }
}

#[test]
fn visiting_can_stop_early() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scan.h5");
    let mut w = Writer::create(&path, "dataset").unwrap();
    for i in 0..20 {
        w.acquisition(&acquisition(i, 2, 8, 0)).unwrap();
    }
    w.finish().unwrap();
    let file = File::open(&path, Limits::default()).unwrap();
    let mut seen = 0;
    file.for_each_batch("dataset", 6, &mut |b| {
        seen += b.len();
        if seen >= 12 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .unwrap();
    assert_eq!(seen, 12);
}

#[test]
fn images_arrays_and_waveforms_of_every_type() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("images.h5");
    let n = 2 * 3 * 4 * 5;
    let pixels = [
        Pixels::U16((0..n).map(|i| i as u16 * 500).collect()),
        Pixels::I16((0..n).map(|i| i as i16 - 60).collect()),
        Pixels::U32((0..n).map(|i| i as u32 * 30_000_000).collect()),
        Pixels::I32((0..n).map(|i| i - 1_000_000).collect()),
        Pixels::F32((0..n).map(|i| i as f32 / 7.0).collect()),
        Pixels::F64((0..n).map(|i| f64::from(i) / 7.0).collect()),
        Pixels::C32((0..n).map(|i| Complex32::new(i as f32, -0.5)).collect()),
        Pixels::C64((0..n).map(|i| Complex64::new(-0.5, f64::from(i))).collect()),
    ];
    let mut w = Writer::create(&path, "out").unwrap();
    let mut written = Vec::new();
    for (k, pixels) in pixels.iter().enumerate() {
        for i in 0..3_u16 {
            let head = ImageHeader {
                matrix_size: [5, 4, 3],
                channels: 2,
                image_index: i,
                user_float: [0.25; 8],
                flags: 1 << 40,
                data_type: pixels.data_type(),
                attribute_string_len: if i == 0 { 0 } else { 15 },
                ..Default::default()
            };
            let attributes = if i == 0 {
                String::new()
            } else {
                "<ismrmrdMeta/>\u{e9}".chars().take(15).collect()
            };
            let head = ImageHeader {
                attribute_string_len: attributes.len() as u32,
                ..head
            };
            let image = Image {
                head,
                attributes,
                pixels: pixels.clone(),
            };
            w.image(&format!("image_{k}"), &image).unwrap();
            written.push((k, image));
        }
        let array = NdArray {
            shape: vec![n as usize / 8, 8],
            values: pixels.clone(),
        };
        w.array(&format!("array_{k}"), &array).unwrap();
        w.array(&format!("array_{k}"), &array).unwrap();
    }
    let waveform = Waveform {
        head: WaveformHeader {
            version: 1,
            flags: 3,
            channels: 2,
            number_of_samples: 5,
            waveform_id: 1024,
            ..Default::default()
        },
        data: (0..10).collect(),
    };
    w.waveform(&waveform).unwrap();
    w.waveform(&waveform).unwrap();
    w.finish().unwrap();

    let file = File::open(&path, Limits::default()).unwrap();
    assert_eq!(file.waveforms("out").unwrap(), [waveform.clone(), waveform]);
    for (k, values) in pixels.iter().enumerate() {
        let want: Vec<Image> = written
            .iter()
            .filter(|(j, _)| *j == k)
            .map(|(_, i)| i.clone())
            .collect();
        assert_eq!(file.images("out", &format!("image_{k}")).unwrap(), want);
        let arrays = file.arrays("out", &format!("array_{k}")).unwrap();
        assert_eq!(arrays.len(), 2);
        assert_eq!(
            arrays[1],
            NdArray {
                shape: vec![15, 8],
                values: values.clone()
            }
        );
    }
    let info = &file.groups().unwrap()[0];
    assert_eq!(info.images.len(), 8);
    assert_eq!(
        info.images[0],
        ImagesInfo {
            name: "image_0".into(),
            count: 3,
            shape: vec![2, 3, 4, 5]
        }
    );
    assert_eq!(
        info.arrays[3],
        ArraysInfo {
            name: "array_3".into(),
            count: 2,
            shape: vec![15, 8]
        }
    );
    assert_eq!(info.waveforms, Some(2));
}

#[test]
fn nothing_appears_before_finish_and_nothing_is_left_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scan.h5");
    let mut w = Writer::create(&path, "dataset").unwrap();
    w.acquisition(&acquisition(0, 2, 8, 0)).unwrap();
    assert!(!path.exists());
    drop(w);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn lengths_that_contradict_the_header_are_refused_when_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut w = Writer::create(&dir.path().join("scan.h5"), "dataset").unwrap();
    let mut a = acquisition(0, 2, 8, 0);
    a.data.pop();
    let error = w.acquisition(&a).unwrap_err().to_string();
    assert!(
        error.contains("data[0]: found 30 floats of data, needed 32"),
        "{error}"
    );
}

#[test]
fn messages_name_what_is_there_instead() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scan.h5");
    let mut w = Writer::create(&path, "dataset").unwrap();
    w.acquisition(&acquisition(0, 2, 8, 0)).unwrap();
    w.finish().unwrap();
    let file = File::open(&path, Limits::default()).unwrap();
    let error = file.header("datset").unwrap_err().to_string();
    assert!(
        error.contains("no group \"datset\"") && error.contains("found: \"dataset\""),
        "{error}"
    );
    let error = file.header("dataset").unwrap_err().to_string();
    assert!(
        error.contains("no XML header") && error.contains("found: data"),
        "{error}"
    );
    let error = file.images("dataset", "image_0").unwrap_err().to_string();
    assert!(error.contains("no image series \"image_0\""), "{error}");
}

#[test]
fn limits_hold() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scan.h5");
    let mut w = Writer::create(&path, "dataset").unwrap();
    w.header_xml(&format!(
        "<ismrmrdHeader>{}</ismrmrdHeader>",
        " ".repeat(1000)
    ))
    .unwrap();
    w.acquisition(&acquisition(0, 3, 8, 0)).unwrap();
    w.finish().unwrap();
    let limits = Limits {
        channels: 2,
        xml_bytes: 100,
        ..Limits::default()
    };
    let file = File::open(&path, limits).unwrap();
    let error = file.header_xml("dataset").unwrap_err().to_string();
    assert!(error.contains("limit 100"), "{error}");
    let error = file
        .for_each_batch("dataset", 1, &mut |_| ControlFlow::Continue(()))
        .unwrap_err()
        .to_string();
    assert_eq!(error, "active channels: 3 declared, limit 2");
}

#[test]
fn real_files_read_the_same_by_both_paths() {
    for name in [
        "brain8_full.h5",
        "brain8_r2_acs24.h5",
        "mouse_rare_t2w.h5",
        "radial_bricks_top_sp69.h5",
        "sirf_grappa2_1rep_simulated.h5",
        "ulf_p7a_fse.h5",
        "ulf_p7a_gre.h5",
    ] {
        let Some(path) = shared(name) else { continue };
        let file = File::open(&path, Limits::default()).unwrap();
        assert_eq!(
            file.reader_kind("dataset").unwrap(),
            ReaderKind::Direct,
            "{name}"
        );
        let header = file.header("dataset").unwrap();
        assert_eq!(Header::parse(&header.to_xml()).unwrap(), header, "{name}");
        let direct = read_all(&path, "dataset", false).unwrap();
        assert_eq!(
            direct.len() as u64,
            file.number_of_acquisitions("dataset").unwrap()
        );
        assert_eq!(direct, read_all(&path, "dataset", true).unwrap(), "{name}");
    }
}

#[test]
fn a_real_image_file_reads() {
    let Some(path) = shared("ismrmrdviewer_image.h5") else {
        return;
    };
    let file = File::open(&path, Limits::default()).unwrap();
    let groups = file.groups().unwrap();
    assert_eq!(groups[0].name, "2019-05-09 15:16:46");
    assert_eq!(groups[0].images[0].shape, [1, 1, 512, 512]);
    let images = file.images(&groups[0].name, "image_0").unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].head.matrix_size, [512, 512, 1]);
    assert!(matches!(&images[0].pixels, Pixels::F32(v) if v.len() == 512 * 512));
    crate::Meta::parse(&images[0].attributes).unwrap();
}
