//! By hand where the network's answer does not matter, with the network that ships where it does.

use super::*;
use crate::data::{AcquisitionStamps, FrameKey, Geometry, Intensity, Provenance};
use crate::model::RuntimeKind;

fn white(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    move || {
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u32 << 24) as f32
        };
        // Twelve of them: mean 0, variance 1.
        (0..12).map(|_| next()).sum::<f32>() - 6.0
    }
}

/// A disc of signal 20 with an inner one of signal 26, phase 0.5, on zero, in noise of `noise(x)`.
fn image(
    [nx, ny, nz]: [usize; 3],
    noise: impl Fn(usize) -> f32,
    seed: u64,
) -> (ReconImage, Vec<Complex32>) {
    let mut draw = white(seed);
    let clean: Vec<Complex32> = (0..nx * ny * nz)
        .map(|i| {
            let (x, y) = (i % nx, i / nx % ny);
            let r = ((x as f32 / nx as f32 - 0.5).powi(2) + (y as f32 / ny as f32 - 0.5).powi(2))
                .sqrt();
            let value = if r < 0.15 {
                26.0
            } else if r < 0.4 {
                20.0
            } else {
                0.0
            };
            Complex32::from_polar(value, 0.5)
        })
        .collect();
    let noise_std: Vec<f32> = (0..clean.len()).map(|i| noise(i % nx)).collect();
    let voxels = (clean.iter().zip(&noise_std))
        .map(|(v, s)| v + Complex32::new(draw(), draw()) * *s)
        .collect();
    let image = ReconImage {
        key: FrameKey::default(),
        geometry: Geometry {
            matrix: [nx, ny, nz],
            voxel_mm: [1.0, 1.0, 4.0],
            centre_mm: [0.0; 3],
            read_dir: [1.0, 0.0, 0.0],
            phase_dir: [0.0, 1.0, 0.0],
            slice_dir: [0.0, 0.0, 1.0],
        },
        table_position_mm: [0.0; 3],
        voxels,
        intensity: Intensity::WithNoise,
        noise_std: Some(noise_std),
        gfactor: None,
        finer: [1.0; 3],
        denoised: None,
        synthetic: None,
        csm: None,
        stamps: AcquisitionStamps::default(),
        provenance: Provenance::default(),
    };
    (image, clean)
}

fn denoise(strength: f32) -> Denoise {
    let model = Arc::new(Model::load("denoiser", RuntimeKind::Onnx, 2).unwrap());
    let params = DenoiseParams {
        strength,
        ..DenoiseParams::default()
    };
    Denoise::plan(&params, model).unwrap()
}

fn rms(a: &[Complex32], b: &[Complex32]) -> f32 {
    let sum: f32 = a.iter().zip(b).map(|(a, b)| (a - b).norm_sqr()).sum();
    (sum / (2 * a.len()) as f32).sqrt()
}

fn codes(image: &ReconImage) -> Vec<&str> {
    image.provenance.notes.iter().map(|n| n.code).collect()
}

#[test]
fn noise_goes_by_as_much_as_is_asked_and_what_went_is_kept() {
    let (noisy, clean) = image([96, 80, 1], |_| 2.0, 1);
    let mut errors = Vec::new();
    for strength in [0.25, 0.5, 1.0] {
        let mut out = noisy.clone();
        denoise(strength).run(&mut out, Beside::default()).unwrap();
        let done = out.denoised.as_ref().unwrap();
        for ((v, r), before) in out.voxels.iter().zip(&done.removed).zip(&noisy.voxels) {
            assert!((v + r - before).norm() < 1e-5);
        }
        assert!(done.sigma.iter().all(|s| *s > 0.0 && *s <= 2.0 * 1.01));
        assert_eq!(out.noise_std, noisy.noise_std);
        errors.push(rms(&out.voxels, &clean));
        let step = out.provenance.steps.last().unwrap();
        assert_eq!(step.op, "denoise/network");
        for said in [
            "denoiser 2 (",
            "ONNX Runtime",
            &format!("strength {strength}"),
            "removed",
        ] {
            assert!(step.detail.contains(said), "{}", step.detail);
        }
        assert_eq!(codes(&out), ["denoised", "denoised_alone"]);
    }
    assert!(
        (errors[0] - 1.55).abs() < 0.1 && (errors[1] - 1.1).abs() < 0.12 && errors[2] < 0.7,
        "{errors:?}"
    );
}

#[test]
fn a_slab_is_its_own_neighbour_and_large_planes_are_tiled_without_seams() {
    let (noisy, clean) = image([320, 264, 2], |_| 1.0, 2);
    let mut whole = noisy.clone();
    denoise(1.0).run(&mut whole, Beside::default()).unwrap();
    let mut tiled = noisy.clone();
    let mut small = denoise(1.0);
    small.params.tile = 192;
    small.run(&mut tiled, Beside::default()).unwrap();
    assert_eq!(codes(&whole), ["denoised"]);
    // Far from the tiles' edges only rounding differs.
    let seam = rms(&whole.voxels, &tiled.voxels);
    assert!(seam < 1e-3, "{seam}");
    assert!(rms(&tiled.voxels, &clean) < 0.4);
    // A wrong twin: tiles without a margin have seams.
    assert!(rms(&noisy.voxels, &tiled.voxels) > 0.8);
}

#[test]
fn noise_that_differs_over_the_image_is_taken_for_what_it_is() {
    // Four times as much on the right half, and nothing measured in the first columns.
    let noise = |x: usize| {
        if x < 4 {
            0.0
        } else if x < 48 {
            1.0
        } else {
            4.0
        }
    };
    let (mut noisy, clean) = image([96, 96, 1], noise, 3);
    let before = noisy.voxels.clone();
    denoise(1.0).run(&mut noisy, Beside::default()).unwrap();
    let half = |v: &[Complex32], right: bool| -> Vec<Complex32> {
        let is_half = |x: usize| (x >= 48) == right && x >= 4;
        v.iter()
            .enumerate()
            .filter(|(i, _)| is_half(i % 96))
            .map(|(_, v)| *v)
            .collect()
    };
    for (right, least) in [(false, 2.0), (true, 2.5)] {
        let gain = rms(&half(&before, right), &half(&clean, right))
            / rms(&half(&noisy.voxels, right), &half(&clean, right));
        assert!(gain > least, "{right} {gain}");
    }
    let done = noisy.denoised.unwrap();
    for y in 0..96 {
        assert!(
            done.removed[96 * y..][..4]
                .iter()
                .all(|v| *v == Complex32::ZERO)
        );
        assert!(done.sigma[96 * y..][..4].iter().all(|v| *v == 0.0));
    }
}

#[test]
fn what_cannot_be_denoised_is_left_as_it_was() {
    let (noisy, _) = image([64, 64, 1], |_| 1.0, 4);
    let network = denoise(1.0);
    let refused = |change: &dyn Fn(&mut ReconImage), beside: Beside<'_>| {
        let mut image = noisy.clone();
        change(&mut image);
        let before = image.voxels.clone();
        let e = network.run(&mut image, beside).unwrap_err();
        assert!(
            image.voxels == before && image.denoised.is_none() && image.provenance.steps.is_empty()
        );
        e
    };
    let none = Beside::default();
    assert!(matches!(
        refused(&|i| i.noise_std = None, none),
        DenoiseError::NoNoise
    ));
    assert!(matches!(
        refused(&|i| i.noise_std = Some(vec![0.0; 64 * 64]), none),
        DenoiseError::NoNoise
    ));
    let magnitude = |i: &mut ReconImage| i.voxels.iter_mut().for_each(|v| *v = v.norm().into());
    assert!(matches!(
        refused(&magnitude, none),
        DenoiseError::NotComplex
    ));
    let short = [Complex32::ZERO; 5];
    let beside = Beside {
        before: Some(&short),
        after: None,
    };
    assert!(matches!(
        refused(&|_| (), beside),
        DenoiseError::Shape { .. }
    ));
    let large = |i: &mut ReconImage| i.voxels[100] = Complex32::new(f32::INFINITY, 0.0);
    assert!(matches!(
        refused(&large, none),
        DenoiseError::NotFinite { .. }
    ));
}

#[test]
fn neighbours_are_seen() {
    let (noisy, clean) = image([96, 96, 1], |_| 5.0, 5);
    let (before, _) = image([96, 96, 1], |_| 5.0, 6);
    let (after, _) = image([96, 96, 1], |_| 5.0, 7);
    let (mut alone, mut between) = (noisy.clone(), noisy);
    let network = denoise(1.0);
    network.run(&mut alone, Beside::default()).unwrap();
    let beside = Beside {
        before: Some(&before.voxels),
        after: Some(&after.voxels),
    };
    network.run(&mut between, beside).unwrap();
    let errors = [&between, &alone].map(|i| rms(&i.voxels, &clean));
    assert!(errors[0] < 0.99 * errors[1], "{errors:?}");
    assert_eq!(codes(&between), ["denoised"]);
}

/// The guard, by hand: noise is noise, a lesion that was removed is not, nor is more than all of the noise.
#[test]
fn the_guard_tells_noise_from_structure() {
    let (noisy, _) = image([128, 128, 1], |_| 2.0, 8);
    let mut draw = white(9);
    let noise: Vec<Complex32> = (0..128 * 128)
        .map(|_| Complex32::new(draw(), draw()) * 2.0)
        .collect();
    let judge = |removed: &[Complex32], strength| Residual::of(removed, &noisy, strength);
    let all = judge(&noise, 1.0);
    assert!(
        (all.rms - 1.0).abs() < 0.02 && all.structured < 1e-4,
        "{all:?}"
    );
    assert_eq!(all.structure(1e-3), None);
    let some: Vec<Complex32> = noise.iter().map(|v| v * 0.3).collect();
    let some = judge(&some, 0.3);
    assert!(
        (some.relative_rms - 1.0).abs() < 0.02 && some.structure(1e-3).is_none(),
        "{some:?}"
    );
    // Half the contrast of a disc of 4 x 4 voxels at 3 times the noise.
    let mut lesion = noise.clone();
    for y in 60..64 {
        (60..64).for_each(|x| lesion[128 * y + x] += 0.5 * 3.0 * 2.0);
    }
    assert!(judge(&lesion, 1.0).structure(1e-4).is_some());
    // Edges that were smoothed.
    let mut edge = noise.clone();
    (30..90).for_each(|y| edge[128 * y + 50] += 12.0);
    assert!(
        judge(&edge, 1.0)
            .structure(1e-3)
            .unwrap()
            .contains("structure")
    );
    let more: Vec<Complex32> = noise.iter().map(|v| v * 1.3).collect();
    assert!(judge(&more, 1.0).structure(1.0).is_some());
}

#[test]
fn a_network_that_is_no_denoiser_is_refused() {
    let text = include_str!("../model/shipped/denoiser/model.toml");
    for (from, to) in [
        ("kind = \"denoiser\"", "kind = \"segmenter\""),
        ("tiny = false", "tiny = true"),
        ("complete = true", "complete = false"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.toml");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        std::fs::write(
            folder.path().join("model.onnx"),
            include_bytes!("../model/shipped/denoiser/model.onnx"),
        )
        .unwrap();
        let model = Arc::new(Model::load(path.to_str().unwrap(), RuntimeKind::Onnx, 1).unwrap());
        let e = Denoise::plan(&DenoiseParams::default(), model).unwrap_err();
        assert!(
            matches!(
                e,
                DenoiseError::Model(crate::model::ModelError::Contract { .. })
            ),
            "{e}"
        );
    }
    for (strength, tile) in [(-0.1, 512), (1.1, 512), (f32::NAN, 512), (1.0, 64)] {
        let params = DenoiseParams {
            strength,
            tile,
            ..DenoiseParams::default()
        };
        assert!(matches!(params.check(), Err(DenoiseError::Params { .. })));
    }
}
