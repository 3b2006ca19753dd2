//! Whole frames through the door.

use num_complex::Complex32;

use super::combine::CombineMethod;
use super::testing::{Sim, error_inside, scan_of};
use super::*;
use crate::data::{Intensity, KSpace};
use crate::num::rng::Rng;
use crate::num::testing::assert_same_on_any_threads;

pub(crate) fn device() -> Device {
    Device {
        threads: 1,
        memory_bytes: 4 << 30,
    }
}

pub(crate) fn recon(frame: &Frame, params: &ReconParams) -> Result<ReconImage, ReconError> {
    Recon::plan(&scan_of(frame.kspace.shape), frame, params, &device())?.run(frame)
}

fn grappa_params() -> ReconParams {
    ReconParams {
        method: Method::Grappa,
        ..Default::default()
    }
}

fn acs(n: usize, k: usize, lines: usize) -> bool {
    k.abs_diff(n / 2) < lines.div_ceil(2) && k + lines / 2 >= n / 2 && k < n / 2 + lines.div_ceil(2)
}

/// Median over the object of replica standard deviation over the analytic one.
fn replica_ratio(sim: &Sim, frame: &Frame, params: &ReconParams, n: usize) -> (f64, f64) {
    let plan = Recon::plan(&scan_of(sim.shape), frame, params, &device()).unwrap();
    let image = plan.run(frame).unwrap();
    let replica = replica::replicas(&plan, frame, n, 17).unwrap();
    let analytic = image.noise_std.unwrap();
    let mut ratios: Vec<f64> = replica
        .along_signal
        .iter()
        .zip(&analytic)
        .enumerate()
        .filter(|(i, _)| {
            // The object on the image's own matrix, nearest voxel.
            let [nx, ny, _] = image.geometry.matrix;
            sim.inside[(i / nx * sim.shape.pe1 / ny) * sim.shape.ro + i % nx * sim.shape.ro / nx]
        })
        .map(|(_, (a, b))| f64::from(*a) / f64::from(*b))
        .collect();
    ratios.sort_by(f64::total_cmp);
    let pick = |q: f64| ratios[((ratios.len() - 1) as f64 * q) as usize];
    (pick(0.5), pick(0.95) - pick(0.05))
}

#[test]
fn full_sampling_gives_the_object_in_snr_units() {
    let sim = Sim::new(6, 1, 48, 40, 50.0);
    let image = recon(&sim.frame(|_, _| true, 1.0, 1), &ReconParams::default()).unwrap();
    assert_eq!(image.intensity, Intensity::WithNoise);
    assert!(
        image
            .noise_std
            .as_ref()
            .unwrap()
            .iter()
            .all(|s| (s - 1.0).abs() < 1e-6)
    );
    assert!(image.gfactor.is_none());
    assert!(error_inside(&image.voxels, &sim.truth, &sim.inside) < 0.03);
}

#[test]
fn grappa_unaliases() {
    for (ny, r, offset) in [(48usize, 2, 0), (48, 3, 1), (49, 2, 1), (60, 4, 3)] {
        let sim = Sim::new(8, 1, ny, 44, 200.0);
        let frame = sim.frame(|_, k| k % r == offset || acs(ny, k, 20), 0.1, 1);
        let image = recon(&frame, &grappa_params()).unwrap();
        let error = error_inside(&image.voxels, &sim.truth, &sim.inside);
        let mut unmixing = grappa_params();
        unmixing.grappa.apply = grappa::Apply::Image;
        if ny % r == 0 {
            let folded = recon(&frame, &unmixing).unwrap();
            let folded_error = error_inside(&folded.voxels, &sim.truth, &sim.inside);
            println!("R={r} n={ny}: unmixing {folded_error:.4}");
            assert!(folded_error < 0.05, "{folded_error}");
        } else {
            assert!(matches!(
                recon(&frame, &unmixing),
                Err(ReconError::Pattern { .. })
            ));
        }
        let sense = recon(&frame, &ReconParams::default()).unwrap();
        println!(
            "R={r} n={ny}: auto {:.4}",
            error_inside(&sense.voxels, &sim.truth, &sim.inside)
        );
        let zero_filled = recon(
            &frame,
            &ReconParams {
                method: Method::Fft,
                ..Default::default()
            },
        )
        .unwrap();
        let aliased = error_inside(&zero_filled.voxels, &sim.truth, &sim.inside);
        println!("R={r} n={ny}: {error:.4}, zero-filled {aliased:.4}");
        assert!(
            error < 0.03 && error < aliased / 2.5,
            "R={r} n={ny}: {error} {aliased}"
        );
        assert!(image.gfactor.as_ref().unwrap().iter().all(|g| *g >= 1.0));
    }
}

#[test]
fn noise_maps_agree_with_replicas_within_three_percent() {
    let mut image = grappa_params();
    image.grappa.apply = grappa::Apply::Image;
    let mut filtered = grappa_params();
    filtered.filter.kind = filter::FilterKind::Hamming;
    filtered.matrix = Some([36, 60, 1]);
    let mut rss = grappa_params();
    rss.combine.method = CombineMethod::Rss;
    let mut csm = grappa_params();
    csm.combine.method = CombineMethod::Csm;
    for (name, params) in [
        ("fill", grappa_params()),
        ("image", image),
        ("filter", filtered),
        ("rss", rss),
        ("csm", csm),
        ("auto", ReconParams::default()),
    ] {
        for (r, lines) in [(1usize, 0usize), (2, 12), (3, 16)] {
            if name == "image" && r == 1 {
                continue;
            }
            let sim = Sim::new(8, 1, 48, 24, 200.0);
            let frame = sim.frame(|_, k| k % r == 0 || acs(48, k, lines), 1.0, 1);
            let (median, spread) = replica_ratio(&sim, &frame, &params, 200);
            println!("{name} R={r}: replica/analytic {median:.4}, 5-95 % {spread:.3}");
            assert!((median - 1.0).abs() < 0.03, "{name} R={r}: {median}");
        }
    }
}

#[test]
fn coil_order_and_coil_phase_change_nothing() {
    let sim = Sim::new(5, 1, 32, 28, 100.0);
    let frame = sim.frame(|_, k| k % 2 == 0 || acs(32, k, 14), 1.0, 1);
    let image = recon(&frame, &grappa_params()).unwrap();
    let mut other = frame.clone();
    let n = frame.kspace.lines.len() * 28;
    for c in 0..5 {
        let turn = Complex32::cis(c as f32);
        for (o, v) in other.kspace.samples[c * n..(c + 1) * n]
            .iter_mut()
            .zip(frame.kspace.coil((c + 2) % 5))
        {
            *o = v * turn;
        }
    }
    let turned = recon(&other, &grappa_params()).unwrap();
    for (a, b) in image.voxels.iter().zip(&turned.voxels) {
        assert!((a.norm() - b.norm()).abs() < 2e-3 * 100.0, "{a} {b}");
    }
}

#[test]
fn the_same_bits_on_any_number_of_threads() {
    let sim = Sim::new(5, 1, 32, 28, 100.0);
    let frame = sim.frame(|_, k| k % 2 == 0 || acs(32, k, 14), 1.0, 1);
    let mut unmixing = grappa_params();
    unmixing.grappa.apply = grappa::Apply::Image;
    for params in [grappa_params(), unmixing, ReconParams::default()] {
        assert_same_on_any_threads(|| {
            let image = recon(&frame, &params).unwrap();
            let bits: Vec<[u32; 2]> = image
                .voxels
                .iter()
                .map(|v| [v.re.to_bits(), v.im.to_bits()])
                .collect();
            (bits, image.noise_std, image.gfactor)
        });
    }
}

#[test]
fn another_pattern_or_encoding_is_refused() {
    let sim = Sim::new(4, 1, 32, 16, 100.0);
    let frame = sim.frame(|_, k| k % 2 == 0 || acs(32, k, 14), 1.0, 1);
    let plan = Recon::plan(
        &scan_of(sim.shape),
        &frame,
        &ReconParams::default(),
        &device(),
    )
    .unwrap();
    let other = sim.frame(|_, k| k % 2 == 1 || acs(32, k, 14), 1.0, 1);
    assert!(matches!(
        plan.run(&other),
        Err(ReconError::PatternChanged { .. })
    ));
    let mut far = frame.clone();
    far.key.encoding_idx = 3;
    assert!(matches!(
        recon(&far, &ReconParams::default()),
        Err(ReconError::NoEncoding { .. })
    ));
    let empty = sim.frame(|_, _| false, 1.0, 1);
    assert!(matches!(
        recon(&empty, &ReconParams::default()),
        Err(ReconError::NoLines { .. })
    ));
}

#[test]
fn a_nan_sample_is_an_error_with_a_count() {
    let sim = Sim::new(4, 1, 32, 16, 100.0);
    let mut frame = sim.frame(|_, _| true, 1.0, 1);
    frame.kspace.samples[5] = Complex32::new(f32::NAN, 0.0);
    assert!(matches!(
        recon(&frame, &ReconParams::default()),
        Err(ReconError::NotFinite { .. })
    ));
}

#[test]
fn one_coil_is_left_as_it_is() {
    let sim = Sim::new(1, 1, 24, 20, 100.0);
    let image = recon(&sim.frame(|_, _| true, 0.0, 1), &ReconParams::default()).unwrap();
    for (a, b) in image.voxels.iter().zip(&sim.coil_images) {
        assert!((a - b).norm() < 1e-2);
    }
}

#[test]
fn a_dead_coil_does_no_harm() {
    let sim = Sim::new(6, 1, 48, 32, 200.0);
    let mut frame = sim.frame(|_, k| k % 2 == 0 || acs(48, k, 16), 1.0, 1);
    let n = frame.kspace.lines.len() * 32;
    frame.kspace.samples[2 * n..3 * n].fill(Complex32::ZERO);
    let image = recon(&frame, &ReconParams::default()).unwrap();
    assert!(image.voxels.iter().all(|v| v.re.is_finite()));
}

#[test]
fn matrix_and_field_of_view_are_those_of_the_image() {
    let sim = Sim::new(4, 1, 48, 40, 100.0);
    let mut frame = sim.frame(|_, _| true, 0.0, 1);
    // Twice the resolution along x, and the central two thirds of the field of view along y.
    frame.geometry.matrix = [80, 32, 1];
    frame.geometry.voxel_mm = [0.5, 1.0, 1.0];
    let image = recon(&frame, &ReconParams::default()).unwrap();
    assert_eq!(image.voxels.len(), 80 * 32);
    let full = recon(&sim.frame(|_, _| true, 0.0, 1), &ReconParams::default()).unwrap();
    for y in 0..32 {
        for x in 0..40 {
            let (a, b) = (image.voxels[y * 80 + 2 * x], full.voxels[(y + 8) * 40 + x]);
            assert!((a - b).norm() < 1e-2, "{y} {x}: {a} {b}");
        }
    }
    let params = ReconParams {
        matrix: Some([20, 24, 1]),
        ..Default::default()
    };
    let small = recon(&sim.frame(|_, _| true, 0.0, 1), &params).unwrap();
    assert_eq!(small.geometry.voxel_mm, [2.0, 2.0, 1.0]);
    assert_eq!(small.voxels.len(), 480);
}

#[test]
fn rss_is_the_root_of_the_sum_of_squares() {
    let sim = Sim::new(4, 1, 24, 20, 100.0);
    let mut params = ReconParams::default();
    params.combine.method = CombineMethod::Rss;
    let image = recon(&sim.frame(|_, _| true, 0.0, 1), &params).unwrap();
    for (v, t) in image.voxels.iter().zip(&sim.truth) {
        assert!((v.re - t).abs() < 1e-2 && v.im == 0.0);
    }
}

#[test]
fn noise_alone_has_the_stated_standard_deviation() {
    // No signal at all: the combination must still have unit noise gain.
    let shape = Shape {
        coil: 4,
        pe2: 1,
        pe1: 64,
        ro: 64,
    };
    let sim = Sim::new(4, 1, 64, 64, 0.0);
    let mut frame = sim.frame(|_, _| true, 0.0, 1);
    frame.kspace = KSpace {
        samples: Rng::new(5).complex(shape.len()),
        ..frame.kspace
    };
    let image = recon(&frame, &ReconParams::default()).unwrap();
    let n = image.voxels.len() as f64;
    let var = image
        .voxels
        .iter()
        .map(|v| f64::from(v.norm_sqr()))
        .sum::<f64>()
        / (2.0 * n);
    // The centre of k-space is in the weights too, which biases noise-only data upwards: the more, the smaller the
    // matrix is against `combine.centre`.
    assert!((0.9..1.6).contains(&var), "{var}");
}

/// Error on the real brain data; says so when the data is not there.
#[test]
fn brain8_is_at_least_as_good_as_the_peers() {
    let path = "/work/shared/data/kspace/brain8_full.cfl";
    let Ok(bytes) = std::fs::read(path) else {
        println!("skipped: {path} is not on this machine");
        return;
    };
    let shape = Shape {
        coil: 8,
        pe2: 1,
        pe1: 180,
        ro: 230,
    };
    let samples: Vec<Complex32> = bytes
        .chunks_exact(8)
        .map(|b| {
            Complex32::new(
                f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
                f32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            )
        })
        .collect();
    let mut sim = Sim::new(8, 1, 180, 230, 1.0);
    sim.kspace = samples;
    let mut images = sim.kspace.clone();
    crate::num::fft::fft2(&mut images, 180, 230, crate::num::fft::Direction::Inverse);
    let n = shape.plane();
    sim.truth = (0..n)
        .map(|i| {
            (0..8)
                .map(|c| images[c * n + i].norm_sqr())
                .sum::<f32>()
                .sqrt()
        })
        .collect();
    let max = sim.truth.iter().copied().fold(0.0f32, f32::max);
    let all = vec![true; n];
    let inside: Vec<bool> = sim.truth.iter().map(|t| *t > 0.1 * max).collect();
    for (r, readme) in [(1usize, 0.0), (2, 0.066), (3, 0.068), (4, 0.138)] {
        let frame = sim.frame(|_, k| k % r == 0 || (78..102).contains(&k), 0.0, 1);
        let mut unmixing = grappa_params();
        unmixing.grappa.apply = grappa::Apply::Image;
        for (name, params) in [
            ("grappa", grappa_params()),
            ("unmix", unmixing),
            ("auto", ReconParams::default()),
        ] {
            let Ok(image) = recon(&frame, &params) else {
                continue;
            };
            println!(
                "brain8 {name} R={r}: {:.4} everywhere (peers {readme}), {:.4} inside",
                error_inside(&image.voxels, &sim.truth, &all),
                error_inside(&image.voxels, &sim.truth, &inside)
            );
        }
    }
}
