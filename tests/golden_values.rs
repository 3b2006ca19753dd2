//! Our operators against values that other people's programs computed (`tests/golden`, one folder per case).
//!
//! Promised to a physicist: where BART, pygrappa, mrpro, scikit-image or a double-precision solver in numpy has an
//! answer to the same question, ours is that answer within the stated threshold, and where methods legitimately
//! differ, our error against the truth is not more than 1 % (relative) above theirs.

use crate::support::npy::Golden;
use cauda::data::Complex32;

fn distance(found: &[Complex32], golden: &[Complex32]) -> f64 {
    assert_eq!(found.len(), golden.len());
    let sum = |it: &mut dyn Iterator<Item = Complex32>| -> f64 {
        it.map(|v| f64::from(v.re).powi(2) + f64::from(v.im).powi(2))
            .sum()
    };
    let error = sum(&mut found.iter().zip(golden).map(|(a, b)| a - b));
    (error / sum(&mut golden.iter().copied())).sqrt()
}

#[test]
fn transforms_are_scipys() {
    use cauda::num::fft::{Direction, fft2};
    let golden = Golden::open("fft");
    for size in ["6x8", "7x9", "5x12", "1x13", "11x1"] {
        let (shape, mut x) = golden.complex(&format!("image_{size}"));
        let (_, k) = golden.complex(&format!("kspace_{size}"));
        fft2(&mut x, shape[1], shape[2], Direction::Forward);
        let d = distance(&x, &k);
        assert!(d < golden.number("relative"), "{size}: {d:.2e}");
    }
}

#[test]
fn noise_and_whitening_are_barts() {
    use cauda::ingest::{Dwell, noise_covariance, whitening};
    let golden = Golden::open("whitening");
    let (shape, noise) = golden.complex("noise");
    let [coils, samples] = shape[..] else {
        panic!("noise is {shape:?}")
    };
    let (_, covariance) = golden.complex("covariance");
    let (_, matrix) = golden.complex("whitening");
    let mut head = ismrmrd::AcquisitionHeader {
        number_of_samples: samples as u16,
        available_channels: coils as u16,
        active_channels: coils as u16,
        sample_time_us: 5.0,
        ..Default::default()
    };
    head.flags |= 1 << 18;
    let psi = noise_covariance(&[ismrmrd::acquisition::AcquisitionRef {
        head: &head,
        traj: &[],
        data: &noise,
    }])
    .unwrap();
    let ours: Vec<Complex32> = psi
        .matrix
        .iter()
        .map(|v| Complex32::new(v.re as f32, v.im as f32))
        .collect();
    let d = distance(&ours, &covariance);
    assert!(d < golden.number("covariance"), "covariance: {d:.2e}");
    let dwell = Dwell {
        scan_us: 5.0,
        noise_us: 5.0,
    };
    let w = whitening(&psi, dwell, 1.0).unwrap();
    let d = distance(&w.matrix, &matrix);
    assert!(d < golden.number("whitening"), "whitening: {d:.2e}");
}

#[test]
fn image_metrics_are_scikit_images() {
    use cauda::metrics::{Pair, compare};
    let golden = Golden::open("metrics");
    let (shape, reference) = golden.real("reference");
    let (_, test) = golden.real("test");
    let wide =
        |v: &[f32]| -> Vec<Complex32> { v.iter().map(|x| Complex32::new(*x, 0.0)).collect() };
    let found = compare(&Pair {
        shape: [1, shape[0], shape[1]],
        reference: &wide(&reference),
        test: &wide(&test),
        is_magnitude: true,
    })
    .unwrap();
    for (name, ours, tolerance) in [
        ("nrmse", found.quality.nrmse, 1e-6),
        ("scale", found.scale, 1e-6),
        ("psnr", found.quality.psnr_db, 1e-4),
        ("ssim", found.quality.ssim, 1e-6),
        ("hfen", found.quality.hfen, 1e-3),
    ] {
        let theirs = golden.number(name);
        assert!(
            (ours - theirs).abs() < tolerance,
            "{name}: ours {ours}, theirs {theirs}"
        );
    }
}
