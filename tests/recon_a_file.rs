//! A k-space file in, finished images out: the first promise of the program, to the physicist with a scan.
//!
//! Through the binary, as a user would: formats by ending, figures against references computed elsewhere, the same
//! bits for any number of threads, nothing overwritten unasked, nothing half-written.

use cauda::data::Complex32;
use cauda::metrics::{Pair, compare};
use cauda::phantom::{Simulate, Simulated, simulate, truth};
use ismrmrd::file::Writer;
use ismrmrd::{Acquisition, AcquisitionFlag};

use crate::support::{Npy, cauda_in, data, npy, outputs};

/// Runs and demands success; returns the JSON result.
fn recon(dir: &std::path::Path, line: &str) -> serde_json::Value {
    let output = cauda_in(dir, &format!("recon {line} --json"));
    assert_eq!(
        output.status.code(),
        Some(0),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn nrmse(reference: &[Complex32], test: &Npy) -> f64 {
    let [ny, nx] = [
        test.shape[test.shape.len() - 2],
        test.shape[test.shape.len() - 1],
    ];
    let pair = Pair {
        shape: [reference.len() / (ny * nx), ny, nx],
        reference,
        test: &test.values,
        is_magnitude: true,
    };
    compare(&pair).unwrap().quality.nrmse
}

#[test]
fn a_real_scan_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let scan = data("demo_mouse_pf.h5");
    let result = recon(
        dir.path(),
        &format!(
            "{} -o a.nii.gz -o a.npy -o a.h5 -o a.png -o a.cfl -o a.dcm -o series/",
            scan.display()
        ),
    );
    assert_eq!(
        outputs(dir.path()),
        [
            "a.cfl", "a.dcm", "a.h5", "a.hdr", "a.nii.gz", "a.npy", "a.png", "series"
        ]
    );
    assert_eq!(
        std::fs::read_dir(dir.path().join("series"))
            .unwrap()
            .count(),
        9
    );
    assert_eq!(result["images"], 9);
    assert_eq!(result["readouts"], 648);
    for key in [
        "input",
        "protocol",
        "schedule",
        "refused",
        "patterns",
        "steps",
        "notes",
        "stages",
        "wall_s",
        "last_readout_to_image",
        "deadline_misses",
        "queue_high_water_bytes",
        "peak_memory_bytes",
        "delivered",
    ] {
        assert!(result.get(key).is_some(), "the result lacks the key {key}");
    }
    // Partial Fourier leaves its mark, and the missing lines are no surprise.
    let full = npy(&data("demo_mouse_full.npy"));
    let error = nrmse(&full.values, &npy(&dir.path().join("a.npy")));
    assert!(
        error < 0.056,
        "NRMSE against the fully sampled scan: {error}"
    );
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let scan = data("demo_mouse_pf.h5");
    for n in [1, 2, 7] {
        recon(
            dir.path(),
            &format!("{} -o t{n}.npy --threads {n}", scan.display()),
        );
    }
    let bytes = |n| std::fs::read(dir.path().join(format!("t{n}.npy"))).unwrap();
    assert!(bytes(1) == bytes(2) && bytes(1) == bytes(7));
}

#[test]
fn a_simulated_scan_comes_back_as_the_truth() {
    let dir = tempfile::tempdir().unwrap();
    let made = cauda_in(
        dir.path(),
        "simulate scan.h5 --preset small --set noise_std=0.001 --set noise_correlation=0",
    );
    assert_eq!(
        made.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let mut sim = Simulate::preset("small").unwrap();
    sim.noise_std = 0.001;
    // Whitening weighs correlated coils; without correlation the weights of image and truth are the same.
    sim.noise_correlation = 0.0;
    let truth = truth(&sim, 0, 0).unwrap();
    // Maps have unit norm over the whitened coils: the image carries the root sum of squares, each coil by its noise.
    let noise = simulate(&sim).unwrap().noise;
    let n = truth.combined.len();
    let rss: Vec<Complex32> = (0..n)
        .map(|i| {
            let sum: f32 = (0..sim.n_coils)
                .map(|c| {
                    truth.coil_images[c * n + i].norm_sqr()
                        / noise.matrix[c * sim.n_coils + c].re as f32
                })
                .sum();
            Complex32::new(sum.sqrt(), 0.0)
        })
        .collect();
    for (method, bound) in [("auto", 0.05), ("grappa", 0.05), ("cg_sense", 0.05)] {
        let result = recon(
            dir.path(),
            &format!("scan.h5 -o {method}.npy --set recon.method={method}"),
        );
        let image = npy(&dir.path().join(format!("{method}.npy")));
        let error = nrmse(&rss, &image);
        assert!(error < bound, "{method}: NRMSE {error}: {result:#}");
    }
}

#[test]
fn comparing_says_how_far_apart_and_fails_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let scan = data("demo_mouse_pf.h5");
    recon(
        dir.path(),
        &format!("{} -o a.npy -o a.nii.gz -o a.h5", scan.display()),
    );
    for other in ["a.nii.gz", "a.h5"] {
        let output = cauda_in(dir.path(), &format!("compare a.npy {other} --nrmse 1e-6"));
        assert_eq!(output.status.code(), Some(0), "{other}: {output:?}");
    }
    let line = format!(
        "compare {} a.npy --nrmse",
        data("demo_mouse_full.npy").display()
    );
    assert_eq!(
        cauda_in(dir.path(), &format!("{line} 0.06")).status.code(),
        Some(0)
    );
    assert_eq!(
        cauda_in(dir.path(), &format!("{line} 0.001")).status.code(),
        Some(1)
    );
}

#[test]
fn nothing_is_overwritten_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let scan = data("demo_mouse_pf.h5");
    std::fs::write(dir.path().join("a.npy"), "mine").unwrap();
    let line = format!("recon {} -o a.npy", scan.display());
    let output = cauda_in(dir.path(), &line);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--force"));
    assert_eq!(std::fs::read(dir.path().join("a.npy")).unwrap(), b"mine");
    assert_eq!(
        cauda_in(dir.path(), &format!("{line} --force"))
            .status
            .code(),
        Some(0)
    );
    assert!(npy(&dir.path().join("a.npy")).values.len() > 1000);
}

#[test]
fn a_plan_says_what_recon_does() {
    let dir = tempfile::tempdir().unwrap();
    let scan = data("demo_mouse_pf.h5");
    let planned = cauda_in(
        dir.path(),
        &format!("plan default --like {} --json", scan.display()),
    );
    assert_eq!(
        planned.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&planned.stderr)
    );
    let planned: serde_json::Value = serde_json::from_slice(&planned.stdout).unwrap();
    let done = recon(dir.path(), &format!("{} -o a.npy", scan.display()));
    assert_eq!(planned["patterns"], done["patterns"]);
    assert!(
        !planned["patterns"][0]["recipes"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn the_demonstration_runs_from_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let output = cauda_in(
        dir.path(),
        "demo --slices 1 --set sequence.matrix=[96,80] --json",
    );
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for series in result["pair"].as_array().unwrap() {
        assert_eq!(series["images"], 1, "{series}");
    }
    let error = result["quality"]["nrmse"].as_f64().unwrap();
    assert!(
        error < 0.056,
        "NRMSE against the fully sampled scan: {error}"
    );
    assert_eq!(
        outputs(&dir.path().join("out/demo")),
        [
            "dicom",
            "images.h5",
            "images.nii.gz",
            "images.png",
            "scan.h5",
            "spine.png"
        ]
    );
}

fn write_scan(path: &std::path::Path, scan: &Simulated, keep: impl Fn(&Acquisition) -> bool) {
    let mut writer = Writer::create(path, "dataset").unwrap();
    writer.header(&scan.header).unwrap();
    for a in scan.acquisitions.iter().filter(|a| keep(a)) {
        writer.acquisition(a).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn phase_oversampling_is_cropped_to_the_recon_matrix() {
    let dir = tempfile::tempdir().unwrap();
    let image = |name: &str, scan: &Simulated| {
        write_scan(&dir.path().join(format!("{name}.h5")), scan, |_| true);
        recon(
            dir.path(),
            &format!("{name}.h5 -o {name}.npy --set recon.combine.method=rss"),
        );
        npy(&dir.path().join(format!("{name}.npy")))
    };
    let sim = Simulate {
        matrix: [48, 40, 1],
        n_coils: 4,
        noise_std: 1e-4,
        ..Simulate::default()
    };
    let plain = image("plain", &simulate(&sim).unwrap());
    let mut over = simulate(&Simulate {
        phase_oversampling: [0.5, 0.0],
        ..sim
    })
    .unwrap();
    let cropped = image("over", &over);
    assert_eq!(cropped.shape, plain.shape);
    let error = nrmse(&plain.values, &cropped);
    assert!(error < 0.03, "{error}");
    // wrong twin: a header that keeps the oversampling to itself squeezes the object
    over.header.encoding[0].encoded_space.field_of_view_mm[1] /= 1.5;
    let squeezed = image("twin", &over);
    let error = nrmse(&plain.values, &squeezed);
    assert!(error > 0.3, "{error}");
}

#[test]
fn noise_comes_from_a_separate_file_with_its_own_dwell_and_receiver() {
    let dir = tempfile::tempdir().unwrap();
    let scan = simulate(&Simulate {
        matrix: [32, 32, 1],
        n_coils: 4,
        noise_dwell_us: 3.0,
        dwell_us: 7.0,
        noise_bandwidth_ratio: 0.8,
        ..Simulate::default()
    })
    .unwrap();
    let is_noise = |a: &Acquisition| a.head.has(AcquisitionFlag::IsNoiseMeasurement);
    let at = |name: &str| dir.path().join(name);
    let snr = |line: &str, out: &str| {
        recon(
            dir.path(),
            &format!("{line} -o {out} --set handoff.quantities=[\"snr\"]"),
        );
        npy(&at(&out.replace(".npy", "_snr.npy")))
    };
    write_scan(&at("whole.h5"), &scan, |_| true);
    write_scan(&at("noise.h5"), &scan, is_noise);
    let mut bare = scan.clone();
    if let Some(system) = &mut bare.header.acquisition_system_information {
        system.relative_receiver_noise_bandwidth = None;
    }
    write_scan(&at("bare.h5"), &bare, |a| !is_noise(a));
    let whole = snr("whole.h5", "whole.npy");
    let apart = snr("bare.h5 --noise noise.h5", "apart.npy");
    assert_eq!(whole.values, apart.values);
    // wrong twins: another dwell, another receiver; SNR goes with the root of both
    let ratio = |line: &str, out: &str| {
        let twin = snr(line, out);
        let sum = |v: &Npy| v.values.iter().map(|v| v.re).sum::<f32>();
        sum(&twin) / sum(&whole)
    };
    let mut twin = scan.clone();
    twin.acquisitions
        .iter_mut()
        .for_each(|a| a.head.sample_time_us *= 4.0);
    write_scan(&at("slow.h5"), &twin, is_noise);
    let found = ratio("bare.h5 --noise slow.h5", "slow.npy");
    assert!((found - 0.5).abs() < 1e-3, "{found}");
    let mut twin = scan.clone();
    if let Some(system) = &mut twin.header.acquisition_system_information {
        system.relative_receiver_noise_bandwidth = None;
    }
    write_scan(&at("flat.h5"), &twin, is_noise);
    let found = ratio("bare.h5 --noise flat.h5", "flat.npy");
    // Noise readouts are quieter than the scan by the ratio: without it the noise is underrated.
    assert!((found - 0.8_f32.sqrt().recip()).abs() < 1e-3, "{found}");
    // The noise of other coils is refused, and the message names its file.
    let mut twin = scan.clone();
    for a in &mut twin.acquisitions {
        let n = usize::from(a.head.number_of_samples);
        a.head.active_channels = 3;
        a.data.truncate(3 * n);
    }
    write_scan(&at("three.h5"), &twin, is_noise);
    let output = cauda_in(dir.path(), "recon bare.h5 --noise three.h5 -o no.npy");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(
        stderr.contains("noise scan has 3 coils") && stderr.contains('4'),
        "{stderr}"
    );
}
