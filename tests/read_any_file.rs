//! Whatever the scanner's or another program's format: it is recognised by content and read.
//!
//! Files that may not be redistributed lie in `../shared/data`; without that folder these tests say so and pass.

use std::path::Path;

use cauda::data::Complex32;
use ismrmrd::file::{File, Writer};
use ismrmrd::{
    Acquisition, AcquisitionHeader, Header, Image, ImageHeader, Limits, NdArray, Pixels, Waveform,
    WaveformHeader,
};

use crate::support::{cauda_in, data, shared};

fn inspect(path: &std::path::Path) -> serde_json::Value {
    let output = cauda_in(
        path.parent().unwrap(),
        &format!("inspect {} --json", path.display()),
    );
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_kind_is_found_from_the_content_not_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("looks_like.dat");
    std::fs::copy(data("demo_mouse_pf.h5"), &path).unwrap();
    let found = inspect(&path);
    assert_eq!(found["kind"], "ismrmrd");
    assert_eq!(found["readouts"], 648);
}

#[test]
fn every_shared_scan_is_recognised() {
    let Some(folder) = shared() else { return };
    for (file, kind, readouts) in [
        ("kspace/brain8_full.cfl", "bart", None),
        ("kspace/skyra_gre_phantom.dat", "twix_vd", Some(160)),
        ("kspace/bruker_rare_mouse", "bruker", Some(1440)),
        ("mrd/brain8_full.h5", "ismrmrd", Some(180)),
        ("mrd/brain8_r2_acs24.h5", "ismrmrd", Some(102)),
        ("mrd/brain8_r2_acs24.v1stream", "mrd_v1_stream", Some(102)),
        ("mrd/brain8_r2_acs24.v2.mrd", "mrd_v2_stream", Some(102)),
        ("mrd/mouse_rare_t2w.h5", "ismrmrd", Some(1440)),
        ("mrd/phantom_v2_c8_m64.mrd", "mrd_v2_stream", None),
        ("mrd/sirf_grappa2_1rep_simulated.h5", "ismrmrd", Some(143)),
        ("mrd/ulf_p7a_fse.h5", "ismrmrd", Some(504)),
    ] {
        let found = inspect(&folder.join(file));
        assert_eq!(found["kind"], kind, "{file}");
        if let Some(n) = readouts {
            assert_eq!(found["readouts"], n, "{file}");
        }
    }
}

#[test]
fn one_scan_in_three_formats_gives_one_image() {
    let Some(folder) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut images = Vec::new();
    for file in [
        "brain8_r2_acs24.h5",
        "brain8_r2_acs24.v1stream",
        "brain8_r2_acs24.v2.mrd",
    ] {
        let out = format!("{file}.npy");
        let path = folder.join("mrd").join(file);
        let output = cauda_in(dir.path(), &format!("recon {} -o {out}", path.display()));
        assert_eq!(
            output.status.code(),
            Some(0),
            "{file}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        images.push(std::fs::read(dir.path().join(out)).unwrap());
    }
    assert!(images[0] == images[1] && images[0] == images[2]);
}

fn done(dir: &Path, line: &str) -> String {
    let output = cauda_in(dir, line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{line}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Two series of images, an array, a waveform and, if asked, a readout, in a group of an unusual name.
fn write_images(path: &Path, group: &str, with_readout: bool) {
    let mut writer = Writer::create(path, group).unwrap();
    let value = |i: usize| (i * 7919 % 251) as f32 + 1.0;
    if with_readout {
        writer.header(&Header::default()).unwrap();
        let head = AcquisitionHeader {
            number_of_samples: 4,
            active_channels: 1,
            ..AcquisitionHeader::default()
        };
        let a = Acquisition {
            head,
            traj: Vec::new(),
            data: vec![Complex32::ONE; 4],
        };
        writer.acquisition(&a).unwrap();
    }
    for slice in 0..3_u16 {
        let head = ImageHeader {
            matrix_size: [20, 18, 1],
            slice,
            position: [0.0, 0.0, f32::from(slice) * 5.0],
            image_type: 1,
            image_series_index: 1,
            ..ImageHeader::default()
        };
        let n = usize::from(slice) * 360;
        let image = Image {
            head,
            attributes: format!(
                "<ismrmrdMeta><meta><name>n</name><value>{slice}</value></meta></ismrmrdMeta>"
            ),
            pixels: Pixels::F32((n..n + 360).map(value).collect()),
        };
        writer.image("image_1", &image).unwrap();
        let complex = Image {
            head: ImageHeader {
                image_type: 5,
                ..head
            },
            attributes: String::new(),
            pixels: Pixels::C32(
                (n..n + 360)
                    .map(|i| Complex32::new(value(i), -2.0))
                    .collect(),
            ),
        };
        writer.image("image_1_complex", &complex).unwrap();
    }
    let array = NdArray {
        shape: vec![4, 5],
        values: Pixels::F64((0..20).map(|i| f64::from(value(i))).collect()),
    };
    writer.array("maps", &array).unwrap();
    let waveform = Waveform {
        head: WaveformHeader {
            channels: 2,
            number_of_samples: 3,
            ..WaveformHeader::default()
        },
        data: vec![1, 2, 3, 4, 5, 6],
    };
    writer.waveform(&waveform).unwrap();
    writer.finish().unwrap();
}

#[test]
fn images_and_arrays_are_described_converted_and_compared() {
    for with_readout in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        write_images(&dir.path().join("a.h5"), "2026/monday", with_readout);
        let found = inspect(&dir.path().join("a.h5"));
        assert_eq!(found["readouts"], u64::from(with_readout));
        assert_eq!(found["images"][0]["name"], "image_1");
        assert_eq!(
            found["images"][0]["shape"],
            serde_json::json!([1, 1, 18, 20])
        );
        assert_eq!(found["images"][0]["with_attributes"], 3);
        assert_eq!(found["images"][1]["values"], "c32");
        assert_eq!(found["arrays"][0]["shape"], serde_json::json!([4, 5]));
        assert_eq!(found["waveforms"], 1);

        done(dir.path(), "convert a.h5 b.mrd");
        done(dir.path(), "convert b.mrd c.h5 --out-group again");
        let read = |name: &str, group: &str, series: &str| {
            let file = File::open(&dir.path().join(name), Limits::default()).unwrap();
            file.images(group, series).unwrap()
        };
        assert_eq!(
            read("a.h5", "2026/monday", "image_1"),
            read("c.h5", "again", "image_1")
        );
        // In a stream the series has a number only; another type under one number gets a name of its own.
        assert_eq!(
            read("a.h5", "2026/monday", "image_1_complex"),
            read("c.h5", "again", "image_1_2")
        );
        let file = File::open(&dir.path().join("c.h5"), Limits::default()).unwrap();
        assert_eq!(file.arrays("again", "array").unwrap()[0].shape, [4, 5]);
        assert_eq!(file.waveforms("again").unwrap()[0].data, [1, 2, 3, 4, 5, 6]);
        assert_eq!(
            file.groups().unwrap()[0].acquisitions,
            with_readout.then_some(1)
        );

        let said = done(dir.path(), "compare a.h5 b.mrd --nrmse 0 --json");
        assert!(said.contains("\"is_magnitude\": true"), "{said}");
        let said = done(
            dir.path(),
            "compare b.mrd c.h5 --series image_1_2 --nrmse 0 --json",
        );
        assert!(said.contains("\"is_magnitude\": false"), "{said}");
        // A wrong twin: one voxel of one slice.
        let mut images = read("c.h5", "again", "image_1");
        if let Pixels::F32(v) = &mut images[2].pixels {
            v[100] += 50.0;
        }
        let mut writer = Writer::create(&dir.path().join("twin.h5"), "dataset").unwrap();
        for image in &images {
            writer.image("image_1", image).unwrap();
        }
        writer.finish().unwrap();
        let output = cauda_in(dir.path(), "compare a.h5 twin.h5 --nrmse 0.001");
        assert_eq!(output.status.code(), Some(1));
        let output = cauda_in(dir.path(), "compare a.h5 c.h5 --series none");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            stderr.contains("none") && stderr.contains("image_1"),
            "{stderr}"
        );
        assert_eq!(output.status.code(), Some(3));
    }
}

#[test]
fn images_are_found_from_the_content_not_the_name() {
    let dir = tempfile::tempdir().unwrap();
    write_images(&dir.path().join("a.h5"), "dataset", false);
    done(dir.path(), "convert a.h5 b.mrd");
    std::fs::copy(dir.path().join("a.h5"), dir.path().join("a.png")).unwrap();
    std::fs::copy(dir.path().join("b.mrd"), dir.path().join("b.h5")).unwrap();
    done(dir.path(), "compare a.png b.h5 --nrmse 0");
}

#[test]
fn shared_images_are_described_and_converted() {
    let Some(folder) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    for (file, series) in [
        ("brain8_images.v1stream", 3),
        ("ismrmrdviewer_image.h5", 1),
        ("phantom_v2_c8_m64.recon.mrd", 1),
    ] {
        let path = folder.join("mrd").join(file);
        let found = inspect(&path);
        let names = found["images"].as_array().unwrap();
        assert_eq!(names.len(), series, "{file}: {names:?}");
        done(
            dir.path(),
            &format!("convert {} {file}.out.h5", path.display()),
        );
        done(
            dir.path(),
            &format!("compare {} {file}.out.h5 --nrmse 0", path.display()),
        );
    }
}

#[test]
fn a_bruker_scan_gives_the_vendors_image() {
    let Some(folder) = shared() else { return };
    let scan = folder.join("kspace/bruker_rare_mouse");
    let dir = tempfile::tempdir().unwrap();
    done(dir.path(), &format!("recon {} -o a.npy", scan.display()));
    let ours = crate::support::npy(&dir.path().join("a.npy"));
    assert_eq!(ours.shape, [1, 15, 128, 128]);
    let bytes = std::fs::read(scan.join("pdata/1/2dseq")).unwrap();
    let vendor: Vec<f64> = bytes
        .chunks_exact(2)
        .map(|b| f64::from(i16::from_le_bytes([b[0], b[1]])))
        .collect();
    // 2dseq is [slice, read, phase]; ours is [slice, phase, read], moved along phase by `shift`.
    let distance = |shift: usize| {
        let pairs = (0..vendor.len()).map(|i| {
            let (z, x, y) = (i / 16384, i / 128 % 128, i % 128);
            let at = z * 16384 + (y + shift) % 128 * 128 + x;
            (f64::from(ours.values[at].norm()), vendor[i])
        });
        let (mut oo, mut ov, mut vv) = (0.0, 0.0, 0.0);
        for (o, v) in pairs {
            oo += o * o;
            ov += o * v;
            vv += v * v;
        }
        (1.0 - ov * ov / (oo * vv)).max(0.0).sqrt()
    };
    assert!(distance(0) < 0.01, "{}", distance(0));
    // wrong twin: the planned offset along phase left out, seven voxels
    assert!(distance(7) > 0.1);
}

/// ISMRMRD's own C library, as Debian has it, reads a file of our making, and adds its image to it.
#[test]
fn the_c_library_goes_on_in_a_file_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let tool = "ismrmrd_recon_cartesian_2d";
    if std::process::Command::new(tool).output().is_err() {
        eprintln!("SKIPPED: {tool} is not installed");
        return;
    }
    let made = cauda_in(
        dir.path(),
        "simulate scan.h5 --preset small --set n_slices=1 --set acceleration=[1,1]",
    );
    assert!(made.status.success());
    let output = std::process::Command::new(tool)
        .arg("scan.h5")
        .env("HDF5_USE_FILE_LOCKING", "FALSE")
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let file = File::open(&dir.path().join("scan.h5"), Limits::default()).unwrap();
    assert_eq!(file.number_of_acquisitions("dataset").unwrap(), 160);
    let images = file.images("dataset", "cpp").unwrap();
    assert_eq!(images[0].head.matrix_size, [128, 128, 1]);
    assert!(matches!(&images[0].pixels, Pixels::F32(v) if v.iter().any(|v| *v > 0.0)));
}
