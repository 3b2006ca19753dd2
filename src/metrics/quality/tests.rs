//! Hand-computed values, golden values of scikit-image (scripts/golden/metrics.py), laws.

use super::*;

const NY: usize = 23;
const NX: usize = 31;

fn lcg(seed: u64, n: usize) -> Vec<f64> {
    let mut s = seed;
    (0..n)
        .map(|_| {
            s = s
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (s >> 40) as f64 / f64::from(1 << 24)
        })
        .collect()
}

fn images() -> (Vec<Complex32>, Vec<Complex32>) {
    let reference: Vec<f64> = (0..NY * NX)
        .map(|i| {
            let (y, x) = (i / NX, i % NX);
            (100 + 50 * ((x / 5 + y / 4) % 2) + x) as f64
        })
        .collect();
    let test = reference
        .iter()
        .zip(lcg(1, NY * NX))
        .map(|(r, n)| Complex32::new(((r + 20.0 * (n - 0.5)) * 0.25) as f32, 0.0))
        .collect();
    (
        reference
            .iter()
            .map(|&r| Complex32::new(r as f32, 0.0))
            .collect(),
        test,
    )
}

fn pair<'a>(reference: &'a [Complex32], test: &'a [Complex32]) -> Pair<'a> {
    Pair {
        shape: [1, NY, NX],
        reference,
        test,
        is_magnitude: false,
    }
}

#[test]
fn agrees_with_scikit_image() {
    let (reference, test) = images();
    let c = compare(&pair(&reference, &test)).unwrap();
    for (name, ours, golden) in [
        ("scale", c.scale, 3.989_300_553_072_716_6),
        ("nrmse", c.quality.nrmse, 0.040_153_162_939_636_39),
        ("psnr", c.quality.psnr_db, 29.956_225_025_189_585),
        ("ssim", c.quality.ssim, 0.976_391_579_455_732_7),
        ("hfen", c.quality.hfen, 0.054_081_136_171_982_56),
    ] {
        assert!(
            (ours - golden).abs() < 1e-9 * golden,
            "{name}: ours {ours}, scikit-image {golden}"
        );
    }
}

#[test]
fn scale_and_phase_change_nothing() {
    let (reference, test) = images();
    let turned: Vec<_> = test
        .iter()
        .map(|v| v * Complex32::from_polar(7.5, 1.1))
        .collect();
    let (a, b) = (
        compare(&pair(&reference, &test)).unwrap(),
        compare(&pair(&reference, &turned)).unwrap(),
    );
    assert!((a.quality.nrmse - b.quality.nrmse).abs() < 1e-6);
    assert!((a.quality.ssim - b.quality.ssim).abs() < 1e-6);
    assert!((b.phase_deg + 1.1_f64.to_degrees()).abs() < 1e-3);
}

#[test]
fn equal_images() {
    let (reference, _) = images();
    let c = compare(&pair(&reference, &reference)).unwrap();
    assert!(c.quality.nrmse < 1e-12 && c.quality.hfen < 1e-12);
    assert!((c.quality.ssim - 1.0).abs() < 1e-12);
}

#[test]
fn nrmse_by_hand() {
    // ref = 3 everywhere but one voxel 4; test = 3 everywhere: s = (48*9 + 12)/(49*9), error by Pythagoras.
    let mut reference = vec![Complex32::new(3.0, 0.0); 49];
    let test = reference.clone();
    reference[10].re = 4.0;
    let s: f64 = (48.0 * 9.0 + 12.0) / (49.0 * 9.0);
    let e: f64 = 48.0 * (3.0 - 3.0 * s).powi(2) + (4.0 - 3.0 * s).powi(2);
    let c = compare(&Pair {
        shape: [1, 7, 7],
        reference: &reference,
        test: &test,
        is_magnitude: false,
    })
    .unwrap();
    assert!((c.quality.nrmse - (e / (48.0 * 9.0 + 16.0)).sqrt()).abs() < 1e-12);
}

#[test]
fn a_shift_by_one_voxel_is_seen() {
    let (reference, _) = images();
    let mut shifted = reference.clone();
    shifted.rotate_right(1);
    let c = compare(&pair(&reference, &shifted)).unwrap();
    assert!(c.quality.nrmse > 0.05 && c.quality.ssim < 0.9 && c.quality.hfen > 0.3);
}

#[test]
fn refuses_what_has_no_answer() {
    let (reference, mut test) = images();
    assert!(matches!(
        compare(&pair(&reference, &test[1..])),
        Err(QualityError::Shape { .. })
    ));
    let zeros = vec![Complex32::ZERO; NY * NX];
    assert_eq!(compare(&pair(&zeros, &test)), Err(QualityError::Empty));
    test[5].im = f32::NAN;
    assert_eq!(
        compare(&pair(&reference, &test)),
        Err(QualityError::NotFinite(1))
    );
}
