//! What we write, ismrmrd-python reads, and the other way round, bit for bit.
//!
//! Needs a Python with the package `ismrmrd` (`ISMRMRD_PYTHON`, else `/opt/peers/bin/python`); skipped,
//! saying so, without one.
#![cfg(feature = "hdf5")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use ismrmrd::file::{File, Writer};
use ismrmrd::{
    Acquisition, AcquisitionHeader, Complex32, Complex64, Header, Image, ImageHeader, Limits, Meta,
    NdArray, Pixels, Waveform, WaveformHeader,
};

fn python() -> Option<PathBuf> {
    let path = std::env::var_os("ISMRMRD_PYTHON")
        .map_or_else(|| "/opt/peers/bin/python".into(), PathBuf::from);
    let works = Command::new(&path)
        .args(["-c", "import ismrmrd, h5py, xsdata"])
        .output();
    if works.is_ok_and(|o| o.status.success()) {
        return Some(path);
    }
    eprintln!("SKIPPED: no Python with the package ismrmrd (ISMRMRD_PYTHON)");
    None
}

fn run(python: &Path, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peer.py");
    let output = Command::new(python)
        .arg(script)
        .args(arguments)
        // The program inherits files that another test has open, with their locks.
        .env("HDF5_USE_FILE_LOCKING", "FALSE")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn bytes_of(a: &Acquisition) -> Vec<u8> {
    let mut bytes = a.head.encode().to_vec();
    bytes.extend(a.traj.iter().flat_map(|v| v.to_le_bytes()));
    bytes.extend(
        a.data
            .iter()
            .flat_map(|c| [c.re.to_le_bytes(), c.im.to_le_bytes()].concat()),
    );
    bytes
}

fn all_bytes(path: &Path, group: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path, Limits::default())
        .unwrap()
        .for_each_batch(group, 16, &mut |batch| {
            batch
                .iter()
                .for_each(|a| bytes.extend(bytes_of(&a.to_owned())));
            ControlFlow::Continue(())
        })
        .unwrap();
    bytes
}

#[test]
fn python_reads_our_acquisitions() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (file, dump) = (dir.path().join("ours.h5"), dir.path().join("dump"));
    let mut w = Writer::create(&file, "scan 1").unwrap();
    w.header_xml("<ismrmrdHeader/>").unwrap();
    let mut written = Vec::new();
    for i in 0..130_u16 {
        let (channels, samples, dimensions) = (1 + i % 5, 1 + i * 7 % 300, i % 4);
        let mut head = AcquisitionHeader {
            scan_counter: i.into(),
            flags: 1 << (i % 64),
            number_of_samples: samples,
            active_channels: channels,
            available_channels: channels,
            trajectory_dimensions: dimensions,
            user_float: [0.1 * f32::from(i); 8],
            ..Default::default()
        };
        head.idx.user[7] = i;
        let n = usize::from(samples);
        let a = Acquisition {
            head,
            traj: (0..n * usize::from(dimensions)).map(|k| k as f32).collect(),
            data: (0..n * usize::from(channels))
                .map(|k| Complex32::new(k as f32, -f32::from(i)))
                .collect(),
        };
        written.extend(bytes_of(&a));
        w.acquisition(&a).unwrap();
    }
    w.finish().unwrap();
    run(&python, &["dump", text(&file), "scan 1", text(&dump)]);
    assert!(std::fs::read(&dump).unwrap() == written);
    assert!(all_bytes(&file, "scan 1") == written);
    // The library goes on in a file of our making: chunks behind the last one, more names than a table has room for.
    run(&python, &["append", text(&file), "scan 1", text(&dump)]);
    let twice = [written.clone(), written].concat();
    assert!(std::fs::read(&dump).unwrap() == twice);
    assert!(all_bytes(&file, "scan 1") == twice);
}

#[test]
fn we_read_what_python_writes() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (file, dump) = (dir.path().join("theirs.h5"), dir.path().join("dump"));
    run(&python, &["write", text(&file), "dataset", text(&dump)]);
    assert!(all_bytes(&file, "dataset") == std::fs::read(&dump).unwrap());
}

#[test]
fn real_files_agree_with_python() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "brain8_r2_acs24",
        "radial_bricks_top_sp69",
        "sirf_grappa2_1rep_simulated",
        "ulf_p7a_fse",
    ] {
        let file = Path::new("/work/shared/data/mrd")
            .join(name)
            .with_extension("h5");
        if !file.exists() {
            eprintln!("SKIPPED: {name} is not here");
            continue;
        }
        let dump = dir.path().join(name);
        run(&python, &["dump", text(&file), "dataset", text(&dump)]);
        assert!(
            all_bytes(&file, "dataset") == std::fs::read(&dump).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn python_reads_our_images_arrays_and_waveforms() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (file, dump) = (dir.path().join("images.h5"), dir.path().join("dump"));
    let mut w = Writer::create(&file, "dataset").unwrap();
    w.header_xml("<ismrmrdHeader/>").unwrap();
    let n = 24_u16;
    let series = [
        Pixels::U16((0..n).collect()),
        Pixels::I16((0..n).map(|v| 5 - v.cast_signed()).collect()),
        Pixels::U32((0..n).map(|v| u32::from(v) << 20).collect()),
        Pixels::I32((0..n).map(|v| -i32::from(v)).collect()),
        Pixels::F32((0..n).map(|v| f32::from(v) / 3.0).collect()),
        Pixels::F64((0..n).map(|v| f64::from(v) / 3.0).collect()),
        Pixels::C32((0..n).map(|v| Complex32::new(v.into(), 0.5)).collect()),
        Pixels::C64((0..n).map(|v| Complex64::new(0.5, v.into())).collect()),
    ];
    let mut meta = Meta::default();
    meta.set("ImageComment", "größer < 1");
    for (k, pixels) in series.iter().enumerate() {
        for i in 0..2 {
            let attributes = meta.to_xml();
            let head = ImageHeader {
                matrix_size: [4, 3, 1],
                channels: 2,
                image_index: i,
                ..Default::default()
            };
            w.image(
                &format!("image_{k}"),
                &Image {
                    head,
                    attributes,
                    pixels: pixels.clone(),
                },
            )
            .unwrap();
        }
        w.array(
            &format!("array_{k}"),
            &NdArray {
                shape: vec![6, 4],
                values: pixels.clone(),
            },
        )
        .unwrap();
    }
    let waveform = Waveform {
        head: WaveformHeader {
            version: 1,
            flags: 1 << 40,
            channels: 2,
            number_of_samples: 3,
            sample_time_us: 2.5,
            waveform_id: 7,
            ..Default::default()
        },
        data: vec![1, 2, 3, 4, 5, u32::MAX],
    };
    w.waveform(&waveform).unwrap();
    w.finish().unwrap();
    let raw = |p: &Pixels| -> Vec<u8> {
        match p {
            Pixels::U16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Pixels::I16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Pixels::U32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Pixels::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Pixels::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Pixels::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Pixels::C32(v) => v
                .iter()
                .flat_map(|c| [c.re.to_le_bytes(), c.im.to_le_bytes()].concat())
                .collect(),
            Pixels::C64(v) => v
                .iter()
                .flat_map(|c| [c.re.to_le_bytes(), c.im.to_le_bytes()].concat())
                .collect(),
        }
    };
    let ours = File::open(&file, Limits::default()).unwrap();
    for (k, pixels) in series.iter().enumerate() {
        let name = format!("image_{k}");
        run(
            &python,
            &["images", text(&file), "dataset", &name, text(&dump)],
        );
        let mut want = Vec::new();
        for image in ours.images("dataset", &name).unwrap() {
            want.extend(&image.head.encode()[..194]);
            want.extend(image.attributes.as_bytes());
            want.extend(raw(&image.pixels));
            assert_eq!(&image.pixels, pixels);
        }
        assert!(std::fs::read(&dump).unwrap() == want, "{name}");
        let name = format!("array_{k}");
        run(
            &python,
            &["arrays", text(&file), "dataset", &name, text(&dump)],
        );
        assert!(std::fs::read(&dump).unwrap() == raw(pixels), "{name}");
    }
    run(&python, &["waveforms", text(&file), "dataset", text(&dump)]);
    let mut want = waveform.head.encode().to_vec();
    want.extend(waveform.data.iter().flat_map(|v| v.to_le_bytes()));
    assert!(std::fs::read(&dump).unwrap() == want);
}

#[test]
fn compressed_files_read() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (plain, packed, dump) = (
        dir.path().join("a.h5"),
        dir.path().join("b.h5"),
        dir.path().join("dump"),
    );
    run(&python, &["write", text(&plain), "dataset", text(&dump)]);
    run(
        &python,
        &["compress", text(&plain), "dataset", text(&packed)],
    );
    assert!(all_bytes(&packed, "dataset") == std::fs::read(&dump).unwrap());

    let mut w = Writer::create(&plain, "dataset").unwrap();
    let head = ImageHeader {
        matrix_size: [7, 5, 3],
        channels: 2,
        ..Default::default()
    };
    let values: Vec<f32> = (0..210_u16).map(f32::from).collect();
    let complex = values.iter().map(|&v| Complex32::new(v, -v)).collect();
    let series = [
        Pixels::U16((0..210).collect()),
        Pixels::F64(values.iter().map(|&v| v.into()).collect()),
        Pixels::C32(complex),
        Pixels::F32(values),
    ];
    for (k, pixels) in series.iter().enumerate() {
        for _ in 0..3 {
            let image = Image {
                head,
                attributes: "<ismrmrdMeta/>".into(),
                pixels: pixels.clone(),
            };
            w.image(&format!("image_{k}"), &image).unwrap();
        }
    }
    w.finish().unwrap();
    run(
        &python,
        &["compress", text(&plain), "dataset", text(&packed)],
    );
    let (plain, packed) = (
        File::open(&plain, Limits::default()).unwrap(),
        File::open(&packed, Limits::default()).unwrap(),
    );
    for k in 0..series.len() {
        let name = format!("image_{k}");
        let images = packed.images("dataset", &name).unwrap();
        assert_eq!(images.len(), 3);
        assert_eq!(images, plain.images("dataset", &name).unwrap());
    }
}

#[test]
fn python_accepts_our_header() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (file, again) = (dir.path().join("header.xml"), dir.path().join("again.xml"));
    let full = Header::parse(include_str!("data/header_full.xml")).unwrap();
    std::fs::write(&file, full.to_xml()).unwrap();
    run(&python, &["header", text(&file), text(&again)]);
    assert_eq!(
        Header::parse(&std::fs::read_to_string(&again).unwrap()).unwrap(),
        full
    );
}
