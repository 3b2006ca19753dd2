//! A patient who does not exist, scanned with a protocol: what comes out of the reconstruction is the truth, and noise.
//!
//! Promised to: whoever trains, tests or compares with simulated scans, and relies on what the simulator says is true.

use cauda::metrics::{Pair, compare};
use cauda::phantom::acquire::{AcquireParams, MotionParams, Scan, Subject};
use cauda::phantom::spine::{Patient, Request};
use cauda::sequence::{AccelerationParams, PhaseDirection, SequenceParams};
use num_complex::Complex32;

use crate::support::{cauda_in, npy};

const SEQUENCE: &str = r#"
schema = 1
title = "small sagittal T2w"
intended_use = "research"
[sequence]
phase = "anterior_posterior"
matrix = [96, 96]
phase_oversampling = 0.5
n_slices = 2
acceleration = { pe1 = 2, acs_pe1 = 24 }
"#;

const QUIET: &str = "--set acquire.snr=200 --set acquire.n_coils=8 --set acquire.n_depths=3 \
    --set acquire.motion.pulsation=0 --set acquire.motion.respiration_mm=0 --set acquire.motion.drift_mm=0";

/// Runs a command that must.
fn succeeds(folder: &std::path::Path, line: &str) {
    let made = cauda_in(folder, line);
    let said = String::from_utf8_lossy(&made.stderr);
    assert_eq!(made.status.code(), Some(0), "{line}: {said}");
}

#[test]
fn a_scanned_spine_comes_back_as_the_truth() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p.toml"), SEQUENCE).unwrap();
    for line in [
        format!("simulate -o scan.h5 --protocol p.toml --seed 4 {QUIET} --truth truth.h5"),
        "recon scan.h5 -o image.npy".to_owned(),
    ] {
        succeeds(dir.path(), &line);
    }
    assert!(dir.path().join("truth.h5").exists() && dir.path().join("truth.json").exists());

    let sequence = SequenceParams {
        phase: PhaseDirection::AnteriorPosterior,
        matrix: [96, 96],
        phase_oversampling: 0.5,
        n_slices: 2,
        acceleration: AccelerationParams {
            pe1: 2,
            acs_pe1: 24,
            ..AccelerationParams::default()
        },
        ..SequenceParams::default()
    };
    let params = AcquireParams {
        snr: 200.0,
        n_coils: 8,
        n_depths: 3,
        seed: 4,
        motion: MotionParams::none(),
        ..AcquireParams::default()
    };
    let patient = Patient::draw(&Request {
        seed: 4,
        ..Request::default()
    })
    .unwrap();
    let subject = Subject::new(patient, 3.0);
    let truth = Scan::plan(&subject, &sequence, &params, "test")
        .unwrap()
        .run(true, |_| Ok::<(), std::convert::Infallible>(()))
        .unwrap()
        .unwrap();
    // In units of noise, an image that is combined at its best is signal times the ratio of a unit signal.
    let expected: Vec<Complex32> = truth
        .images
        .iter()
        .zip(&truth.snr_of_unit)
        .map(|(v, s)| Complex32::new(v.norm() * s, 0.0))
        .collect();
    let image = npy(&dir.path().join("image.npy"));
    let nrmse = |reference: &[Complex32]| {
        compare(&Pair {
            shape: [2, 96, 96],
            reference,
            test: &image.values,
            is_magnitude: true,
        })
        .unwrap()
        .quality
        .nrmse
    };
    let error = nrmse(&expected);
    // Pixels of 3 mm next to coils: their shape within a pixel, and maps of smooth coils, not noise, set the limit.
    assert!(error < 0.15, "NRMSE {error}");
    // Twins: a pixel off along the readout, and another gain.
    let mut twin = expected.clone();
    twin.rotate_left(1);
    assert!(nrmse(&twin) > 1.5 * error, "{} {error}", nrmse(&twin));
    // The comparison takes out a factor; in units of noise there is none to take out.
    let (mut both, mut own) = (0.0, 0.0);
    for (e, v) in expected.iter().zip(&image.values) {
        both += f64::from(e.re) * f64::from(v.norm());
        own += f64::from(e.re).powi(2);
    }
    assert!((both / own - 1.0).abs() < 0.1, "{}", both / own);
}

/// Of a complete scan the noise is the simulator's own unit; of an accelerated one it is what the reconstruction says of
/// itself. Both are found as the difference of a scan with noise and one with a thousandth of it.
#[test]
fn the_noise_of_a_scan_is_what_it_is_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    for (pe1, unit) in [(1, true), (2, false)] {
        let protocol = SEQUENCE.replace("pe1 = 2", &format!("pe1 = {pe1}"));
        std::fs::write(dir.path().join("p.toml"), protocol).unwrap();
        let images = [("noisy", 60.0), ("clean", 60_000.0)].map(|(name, snr)| {
            for line in [
                format!("simulate -o {name}{pe1}.h5 --protocol p.toml --seed 4 {QUIET} --set acquire.snr={snr}"),
                format!(
                    "recon {name}{pe1}.h5 -o {name}{pe1}.npy --set handoff.quantities=[\"magnitude\",\"noise_std\"]"
                ),
            ] {
                succeeds(dir.path(), &line);
            }
            npy(&dir.path().join(format!("{name}{pe1}.npy"))).values
        });
        let said = npy(&dir.path().join(format!("noisy{pe1}_noise_std.npy"))).values;
        let (mut found, mut want, mut n) = (0.0, 0.0, 0);
        for ((noisy, clean), said) in images[0].iter().zip(&images[1]).zip(&said) {
            let clean = f64::from(clean.norm()) * 1e-3;
            // Where a magnitude's noise is that of its real part.
            if clean > 10.0 {
                found += (f64::from(noisy.norm()) - clean).powi(2);
                want += f64::from(said.re).powi(2);
                n += 1;
            }
        }
        assert!(n > 3000, "{n}");
        let ratio = (found / want).sqrt();
        assert!((ratio - 1.0).abs() < 0.07, "acceleration {pe1}: {ratio}");
        let level = (found / f64::from(n)).sqrt();
        // The twin: an accelerated scan as if it were complete.
        assert_eq!(
            (level - 1.0).abs() < 0.05,
            unit,
            "acceleration {pe1}: {level}"
        );
    }
}

#[test]
fn a_data_set_goes_on_where_it_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let run = |n: usize| -> serde_json::Value {
        let made = cauda_in(
            dir.path(),
            &format!("simulate -o set --dataset {n} --slab 1 --seed 9 --json"),
        );
        assert_eq!(
            made.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        serde_json::from_slice(&made.stdout).unwrap()
    };
    assert_eq!(run(1)["made"], 1);
    let first = dir.path().join("set/shard_0000/sample_000000.h5");
    let before = std::fs::metadata(&first).unwrap().modified().unwrap();
    let result = run(2);
    assert_eq!(
        (result["made"].as_u64(), result["there"].as_u64()),
        (Some(1), Some(1))
    );
    assert_eq!(
        std::fs::metadata(&first).unwrap().modified().unwrap(),
        before
    );
    assert!(dir.path().join("set/shard_0000/sample_000001.h5").exists());
}

#[test]
fn a_scan_that_cannot_be_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p.toml"), SEQUENCE).unwrap();
    for (line, words) in [
        (
            "simulate -o a.h5 --protocol p.toml --set sequence.tr_ms=100",
            "tr_ms",
        ),
        (
            "simulate -o a.h5 --protocol p.toml --pathology nothing@L4",
            "pathology",
        ),
        (
            "simulate -o a.h5 --protocol p.toml --set acquire.n_coil=3",
            "n_coil",
        ),
        ("simulate -o a.h5 --protocol default", "[sequence]"),
    ] {
        let made = cauda_in(dir.path(), line);
        let text = String::from_utf8_lossy(&made.stderr).into_owned();
        assert_eq!(made.status.code(), Some(2), "{line}: {text}");
        assert!(text.contains(words), "{line}: {text}");
        assert!(!dir.path().join("a.h5").exists());
    }
}
