//! Bad data are refused with a message that helps, the right exit code, and no trace on the disk.
//!
//! Promised to: the one who is on call. Never a panic, never a half-written output, never an image of garbage.

use std::path::Path;
use std::process::Output;

use cauda::data::Complex32;
use cauda::phantom::{Simulate, Simulated, simulate};
use ismrmrd::file::Writer;

use crate::support::{cauda_in, data, files, outputs, root};

/// What is true of every refusal.
fn refused(what: &str, output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{what}: {stderr}");
    assert!(
        stderr.lines().any(|l| l.starts_with("error: ")),
        "{what}: {stderr}"
    );
    assert!(
        !stderr.contains("panicked") && !stderr.contains("RUST_BACKTRACE"),
        "{what}: {stderr}"
    );
    for word in words {
        assert!(
            stderr.to_lowercase().contains(&word.to_lowercase()),
            "{what}: the message lacks {word:?}: {stderr}"
        );
    }
}

/// Runs `recon` on one file in a folder of its own.
fn recon(what: &str, place: impl FnOnce(&Path), code: i32, words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    place(&dir.path().join("scan.h5"));
    let output = cauda_in(dir.path(), "recon scan.h5 -o out.npy -o series/");
    refused(what, &output, code, words);
    // Which file, and what to do.
    refused(what, &output, code, &["scan.h5", "try:"]);
    assert_eq!(
        outputs(dir.path()),
        ["scan.h5"],
        "{what}: something was left behind"
    );
}

fn small() -> Simulated {
    simulate(&Simulate {
        matrix: [32, 32, 1],
        n_coils: 4,
        acceleration: [2, 1],
        acs: [12, 0],
        ..Simulate::default()
    })
    .unwrap()
}

fn write(scan: &Simulated, path: &Path) {
    let mut writer = Writer::create(path, "dataset").unwrap();
    writer.header(&scan.header).unwrap();
    for a in &scan.acquisitions {
        writer.acquisition(a).unwrap();
    }
    writer.finish().unwrap();
}

/// The last readout is an image line.
fn spoil(change: impl FnOnce(&mut Simulated)) -> impl FnOnce(&Path) {
    let mut scan = small();
    change(&mut scan);
    move |path| write(&scan, path)
}

#[test]
fn files_that_are_no_scan() {
    recon("empty", |p| std::fs::write(p, b"").unwrap(), 3, &["empty"]);
    recon(
        "text",
        |p| std::fs::write(p, b"hello, scanner\n".repeat(100)).unwrap(),
        3,
        &["scan.h5"],
    );
    recon(
        "a picture's first bytes",
        |p| std::fs::write(p, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").unwrap(),
        3,
        &["scan.h5"],
    );
    recon(
        "HDF5's first bytes alone",
        |p| std::fs::write(p, b"\x89HDF\r\n\x1a\n").unwrap(),
        3,
        &["scan.h5"],
    );
    let dir = tempfile::tempdir().unwrap();
    refused(
        "absent",
        &cauda_in(dir.path(), "recon nowhere.h5 -o out.npy"),
        4,
        &["nowhere.h5"],
    );
}

#[test]
fn truncated_files() {
    let whole = std::fs::read(data("demo_mouse_pf.h5")).unwrap();
    for part in [
        9,
        100,
        1000,
        5000,
        whole.len() / 2,
        whole.len() - 1000,
        whole.len() - 1,
    ] {
        recon(
            &format!("{part} of {} bytes", whole.len()),
            |p| std::fs::write(p, &whole[..part]).unwrap(),
            3,
            &["scan.h5"],
        );
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let whole = std::fs::read(data("demo_mouse_pf.h5")).unwrap();
    // A fixed walk over the file; every run damages the same bytes.
    for i in 0..24_usize {
        let mut bytes = whole.clone();
        for j in 0..8 {
            let at = (i * 7919 + j * 104_729 + i * i * 331)
                % if i % 2 == 0 { 20_000 } else { whole.len() };
            bytes[at] ^= 0xa5;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("scan.h5"), &bytes).unwrap();
        let output = cauda_in(dir.path(), "recon scan.h5 -o out.npy");
        let stderr = String::from_utf8_lossy(&output.stderr);
        // Some damage lies in samples and stays invisible; whatever is seen is the data's fault.
        assert!(
            matches!(output.status.code(), Some(0 | 3)),
            "damage {i}: {:?}: {stderr}",
            output.status
        );
    }
}

#[test]
fn a_group_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let output = cauda_in(
        dir.path(),
        &format!(
            "recon {} -o out.npy --group nowhere",
            data("demo_mouse_pf.h5").display()
        ),
    );
    let code = output.status.code();
    assert!(matches!(code, Some(2 | 3)), "{code:?}");
    refused("group", &output, code.unwrap(), &["nowhere", "dataset"]);
    assert!(outputs(dir.path()).is_empty());
}

#[test]
fn samples_that_are_not_finite() {
    recon(
        "NaN",
        spoil(|s| s.acquisitions.last_mut().unwrap().data[7].re = f32::NAN),
        3,
        &["NaN", "1 sample"],
    );
    recon(
        "infinity",
        spoil(|s| s.acquisitions.last_mut().unwrap().data[7].im = f32::INFINITY),
        3,
        &["infinite"],
    );
}

#[test]
fn header_and_data_that_contradict_each_other() {
    recon(
        "a line outside the matrix",
        spoil(|s| {
            s.acquisitions
                .last_mut()
                .unwrap()
                .head
                .idx
                .kspace_encode_step_1 = 4000
        }),
        3,
        &["4000"],
    );
    recon(
        "an encoding that is not there",
        spoil(|s| s.acquisitions.last_mut().unwrap().head.encoding_space_ref = 7),
        3,
        &["encoding 7"],
    );
    recon(
        "mixed coil counts",
        spoil(|s| {
            let a = s.acquisitions.last_mut().unwrap();
            a.head.active_channels = 3;
            let n = usize::from(a.head.number_of_samples);
            a.data.truncate(3 * n);
        }),
        3,
        &["3", "4"],
    );
    recon(
        "another number of samples",
        spoil(|s| {
            let a = s.acquisitions.last_mut().unwrap();
            a.head.number_of_samples = 10_000;
            a.data = vec![Complex32::ONE; 40_000];
        }),
        3,
        &["10000"],
    );
    recon(
        "directions that are no axes",
        spoil(|s| {
            for a in &mut s.acquisitions {
                a.head.read_dir = [1.0, 1.0, 1.0];
            }
        }),
        3,
        &["orthonormal"],
    );
}

#[test]
fn headers_that_cannot_be() {
    for (what, change) in [
        ("no matrix", [0, 0, 0]),
        (
            "absurd matrix",
            [4_000_000_000, 4_000_000_000, 4_000_000_000],
        ),
    ] {
        recon(
            what,
            spoil(|s| s.header.encoding[0].encoded_space.matrix_size = change),
            3,
            &["encoding"],
        );
    }
    recon(
        "no encoding",
        spoil(|s| s.header.encoding.clear()),
        3,
        &["encoding"],
    );
    recon(
        "radial",
        spoil(|s| s.header.encoding[0].trajectory = ismrmrd::header::Trajectory::Radial),
        3,
        &["cartesian"],
    );
}

#[test]
fn scans_that_hold_too_little() {
    recon(
        "no readouts",
        spoil(|s| s.acquisitions.clear()),
        3,
        &["scan.h5"],
    );
    recon(
        "noise only",
        spoil(|s| {
            s.acquisitions
                .retain(|a| a.head.has(ismrmrd::AcquisitionFlag::IsNoiseMeasurement));
        }),
        3,
        &["imaging"],
    );
}

#[test]
fn a_coil_that_repeats_another_is_refused() {
    recon(
        "duplicated coil",
        spoil(|s| {
            for a in &mut s.acquisitions {
                let n = usize::from(a.head.number_of_samples);
                a.data.copy_within(0..n, 3 * n);
            }
        }),
        3,
        &["coil 3", "repeats coil 0", "duplicate_coil"],
    );
}

#[test]
fn too_few_calibration_lines_are_refused_when_the_method_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let scan = simulate(&Simulate {
        matrix: [32, 32, 1],
        n_coils: 4,
        acceleration: [4, 1],
        acs: [2, 0],
        ..Simulate::default()
    })
    .unwrap();
    write(&scan, &dir.path().join("scan.h5"));
    let output = cauda_in(
        dir.path(),
        "recon scan.h5 -o out.npy --set recon.method=\"grappa\"",
    );
    refused(
        "2 calibration lines",
        &output,
        3,
        &["scan.h5", "calibration", "needs"],
    );
    assert_eq!(outputs(dir.path()), ["scan.h5"]);
}

#[test]
fn lines_beyond_the_limits_but_within_the_matrix_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut scan = small();
    let limits = &mut scan.header.encoding[0].encoding_limits;
    if let Some(limit) = &mut limits.kspace_encoding_step_1 {
        limit.maximum = 20;
    }
    write(&scan, &dir.path().join("scan.h5"));
    let output = cauda_in(dir.path(), "recon scan.h5 -o out.npy");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("encodingLimits"), "{stderr}");
}

#[test]
fn coils_that_carry_nothing_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut scan = small();
    for a in &mut scan.acquisitions {
        let n = usize::from(a.head.number_of_samples);
        a.data[2 * n..3 * n].fill(Complex32::ZERO);
    }
    write(&scan, &dir.path().join("scan.h5"));
    let output = cauda_in(dir.path(), "recon scan.h5 -o out.npy");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("coil 2"), "{stderr}");
}

/// Runs `cauda` with no more address space than the files of the corpus could ever need.
fn bounded(dir: &Path, line: &str) -> Output {
    std::process::Command::new("sh")
        .arg("-c")
        .arg(format!(
            "ulimit -v 3000000; RAYON_NUM_THREADS=2 exec {} {line}",
            env!("CARGO_BIN_EXE_cauda")
        ))
        .env("HDF5_USE_FILE_LOCKING", "FALSE")
        .current_dir(dir)
        .output()
        .unwrap()
}

#[test]
fn the_hostile_corpus_is_refused() {
    let mut n = 0;
    for ending in [
        "h5", "dat", "bin", "mrd", "npy", "mat", "cfl", "xml", "v1stream",
    ] {
        for path in files(&root().join("tests"), ending) {
            if !path.components().any(|c| c.as_os_str() == "hostile") || ending == "xml" {
                continue;
            }
            n += 1;
            let dir = tempfile::tempdir().unwrap();
            let output = bounded(dir.path(), &format!("recon {} -o out.npy", path.display()));
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(
                matches!(output.status.code(), Some(3)),
                "{}: {:?}: {stderr}",
                path.display(),
                output.status
            );
            assert!(outputs(dir.path()).is_empty(), "{}", path.display());
        }
    }
    eprintln!("{n} hostile files");
}

/// A file size limit stands in for a full disk: the write fails half-way.
#[cfg(unix)]
#[test]
fn a_disk_that_is_full_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let scan = data("demo_mouse_pf.h5");
    for (command, out) in [
        ("recon -o", "out.npy"),
        ("recon -o", "out.nii"),
        ("recon -o", "out.h5"),
        ("recon -o", "series/"),
        ("convert", "out.h5"),
        ("convert", "out.mrd"),
        ("convert", "out.cfl"),
    ] {
        let (command, option) = command.split_once(' ').unwrap_or((command, ""));
        let output = std::process::Command::new("sh")
            .arg("-c")
            // 16 blocks of 512 bytes; the ignored signal turns the limit into an error of write().
            .arg(format!(
                "trap '' XFSZ; ulimit -f 16; exec {} {command} {} {option} {out}",
                env!("CARGO_BIN_EXE_cauda"),
                scan.display()
            ))
            .current_dir(&work)
            .output()
            .unwrap();
        let what = format!("{command} {out}");
        refused(
            &what,
            &output,
            4,
            &[out.trim_end_matches('/'), "free space"],
        );
        assert!(outputs(&work).is_empty(), "{what}: {:?}", outputs(&work));
    }
}
