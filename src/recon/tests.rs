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
        ..Device::detect()
    }
}

pub(crate) fn recon(frame: &Frame, params: &ReconParams) -> Result<ReconImage, ReconError> {
    Recon::plan(&scan_of(frame.kspace.shape), frame, params, &device())?.run(frame)
}

fn sense_params() -> ReconParams {
    ReconParams {
        method: Method::Sense,
        ..Default::default()
    }
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
    for (ny, r, offset) in [(48usize, 2, 0), (48, 3, 1), (49, 2, 1)] {
        let sim = Sim::new(8, 1, ny, 44, 200.0);
        let frame = sim.frame(|_, k| k % r == offset || acs(ny, k, 20), 0.1, 1);
        let image = recon(&frame, &grappa_params()).unwrap();
        let error = error_inside(&image.voxels, &sim.truth, &sim.inside);
        let mut unmixing = grappa_params();
        unmixing.grappa.apply = grappa::Apply::Image;
        unmixing.combine.method = CombineMethod::Rss;
        assert!(matches!(
            recon(&frame, &unmixing),
            Err(ReconError::Pattern { .. })
        ));
        let sense = recon(&frame, &sense_params()).unwrap();
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
        assert!(image.gfactor.as_ref().unwrap().iter().all(|g| *g > 0.0));
    }
}

#[test]
fn noise_maps_agree_with_replicas_within_three_percent() {
    let mut image = grappa_params();
    image.grappa.apply = grappa::Apply::Image;
    for (name, params) in [("fill", grappa_params()), ("image", image)] {
        for (r, lines) in [(1usize, 0usize), (2, 12), (3, 16)] {
            if name == "image" && r == 1 {
                continue;
            }
            let sim = Sim::new(6, 1, 48, 32, 200.0);
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
    for params in [grappa_params(), unmixing, sense_params()] {
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
    let inside: Vec<bool> = sim.truth.iter().map(|t| *t > 0.1 * max).collect();
    for (r, pygrappa) in [(2, 0.0304), (3, 0.0665)] {
        let frame = sim.frame(|_, k| k % r == 0 || (78..102).contains(&k), 0.0, 1);
        let image = recon(&frame, &grappa_params()).unwrap();
        let error = error_inside(&image.voxels, &sim.truth, &inside);
        println!("brain8 R={r}: {error:.4} inside, pygrappa {pygrappa}");
        assert!(error <= 1.01 * pygrappa);
    }
}

#[test]
fn grappa_fills_in_two_dimensions_and_sheared() {
    use super::sampling::Lattice;
    let sim = Sim::new(8, 16, 32, 20, 200.0);
    for (r1, r2, shift) in [(2, 2, 1), (1, 2, 0)] {
        let lattice = Lattice {
            r1,
            r2,
            shift,
            o1: 0,
            o2: 0,
        };
        let block = |k2: usize, k1: usize| (2..14).contains(&k2) && (6..26).contains(&k1);
        let frame = sim.frame(
            |k2, k1| lattice.contains(k2 as i64, k1 as i64) || block(k2, k1),
            0.1,
            1,
        );
        let mut params = grappa_params();
        params.compress.method = compress::CompressMethod::None;
        let image = recon(&frame, &params).unwrap();
        let error = error_inside(&image.voxels, &sim.truth, &sim.inside);
        let zero_filled = recon(
            &frame,
            &ReconParams {
                method: Method::Fft,
                ..Default::default()
            },
        )
        .unwrap();
        let aliased = error_inside(&zero_filled.voxels, &sim.truth, &sim.inside);
        println!("{r1} x {r2} shift {shift}: {error:.4}, zero-filled {aliased:.4}");
        assert!(
            error < aliased * 0.65,
            "{r1} x {r2} shift {shift}: {error} {aliased}"
        );
    }
}

#[test]
fn measured_samples_come_through_bit_for_bit_and_a_twin_that_touches_them_is_seen() {
    let sim = Sim::new(5, 1, 33, 28, 100.0);
    let frame = sim.frame(|_, k| k % 3 == 1 || acs(33, k, 16), 1.0, 1);
    let lattice = sampling::of(&frame.kspace).lattice.unwrap();
    let (block, origin) = acs::locate(&frame, Calibration::Embedded);
    let window = Window::new(lattice, &grappa::GrappaParams::default(), false, &block);
    let weights = grappa::calibrate::calibrate(
        &acs::cut(&frame, &block, origin),
        &window,
        &grappa::GrappaParams::default(),
        grappa::calibrate::Ridge::Relative(1e-3),
    )
    .unwrap();
    let whole = Block {
        pe2: 0..1,
        pe1: 0..33,
    };
    let mut grid = grappa::fill::fill(&frame.kspace, &weights, &whole);
    let is_untouched = |grid: &[Complex32]| {
        frame.kspace.lines.iter().enumerate().all(|(i, line)| {
            (0..5).all(|c| {
                let row = (c * 33 + line.pe1 as usize) * 28;
                let same = |(a, b): (&Complex32, &Complex32)| {
                    a.re.to_bits() == b.re.to_bits() && a.im.to_bits() == b.im.to_bits()
                };
                grid[row..row + 28]
                    .iter()
                    .zip(frame.kspace.line(c, i))
                    .all(same)
            })
        })
    };
    assert!(is_untouched(&grid));
    // Every missing line got something.
    for k in 0..33 {
        assert!(
            grid[k * 28..(k + 1) * 28].iter().any(|v| v.norm() > 0.0),
            "line {k}"
        );
    }
    grid[(33 + 16) * 28 + 5] *= 1.0 + 1e-6;
    assert!(!is_untouched(&grid));
}

#[test]
fn unmixing_folded_images_is_filling() {
    // Calibration lines in a reference of their own and among the imaging lines; even and odd folded lengths.
    // Patterns that close over the grid and that do not, wide windows, partial Fourier.
    for (ny, r, offset, is_embedded, window, first) in [
        (48usize, 3usize, 0usize, false, 2, 0),
        (45, 3, 1, false, 2, 0),
        (48, 3, 2, true, 4, 0),
        (45, 3, 1, true, 2, 0),
        (48, 4, 1, true, 2, 0),
        (47, 3, 1, true, 2, 0),
        (50, 4, 3, true, 4, 0),
        (50, 3, 0, false, 3, 0),
        (48, 2, 1, true, 2, 13),
        (51, 3, 2, true, 4, 12),
    ] {
        let sim = Sim::new(6, 1, ny, 37, 100.0);
        let mut frame = sim.frame(
            |_, k| k >= first && (k % r == offset || (is_embedded && acs(ny, k, 20))),
            1.0,
            1,
        );
        if !is_embedded {
            frame.reference = Some(sim.frame(|_, k| acs(ny, k, 20), 1.0, 2).kspace);
        }
        // They differ only where the window leaves the readout: it wraps round in the image, and is cut off in k-space.
        let row = frame.kspace.shape.ro;
        for samples in frame.kspace.samples.chunks_exact_mut(row) {
            samples[..4].fill(Complex32::ZERO);
            samples[row - 4..].fill(Complex32::ZERO);
        }
        let mut params = grappa_params();
        params.grappa.window_pe1 = Some(window);
        params.partial_fourier.method = partial_fourier::PartialFourierMethod::ZeroFill;
        params.grappa.apply = grappa::Apply::Kspace;
        let filled = recon(&frame, &params).unwrap();
        params.grappa.apply = grappa::Apply::Image;
        let unmixed = recon(&frame, &params).unwrap();
        let error = crate::num::testing::nrmse(&unmixed.voxels, &filled.voxels);
        println!("unmixed against filled, n={ny} R={r} {is_embedded}: {error:.2e}");
        assert!(error < 1e-4, "n={ny} R={r} {is_embedded}: {error}");
        let (a, b) = (filled.noise_std.unwrap(), unmixed.noise_std.unwrap());
        for ((a, b), inside) in a.iter().zip(&b).zip(&sim.inside) {
            // In the air the low-resolution images vanish, and with them the ratio's digits.
            assert!(!inside || (a / b - 1.0).abs() < 2e-2, "{a} {b}");
        }
        let mut twin = unmixed.voxels.clone();
        twin.rotate_left(37);
        assert!(crate::num::testing::nrmse(&twin, &filled.voxels) > 0.1);
    }
}

#[test]
fn partial_fourier_restores_what_zero_filling_blurs() {
    use super::partial_fourier::PartialFourierMethod::{Homodyne, Pocs, ZeroFill};
    let sim = Sim::new(6, 1, 64, 48, 200.0);
    for (what, ro, first) in [
        ("pe1", 0..48, 20),
        ("ro", 14..48, 0),
        ("other side", 0..48, 64),
    ] {
        let mask = move |_: usize, k: usize| if first == 64 { k < 44 } else { k >= first };
        let mut errors = Vec::new();
        for method in [ZeroFill, Homodyne, Pocs] {
            let frame = sim.frame_ro(mask, ro.clone(), 0.5, 1);
            let mut params = ReconParams::default();
            params.partial_fourier.method = method;
            let image = recon(&frame, &params).unwrap();
            errors.push(error_inside(&image.voxels, &sim.truth, &sim.inside));
            let (median, _) = replica_ratio(&sim, &frame, &params, 120);
            println!(
                "{what} {method:?}: error {:.4}, replica/analytic {median:.4}",
                errors[errors.len() - 1]
            );
            assert!((median - 1.0).abs() < 0.03, "{what} {method:?}: {median}");
        }
        assert!(
            errors[1] < errors[0] && errors[2] < errors[0],
            "{what}: {errors:?}"
        );
    }
}

#[test]
fn noise_of_partial_readouts_agrees_with_replicas_after_sense() {
    let sim = Sim::new(8, 1, 96, 64, 100.0);
    for (what, ro) in [("whole", 0..64), ("ro", 18..64)] {
        let frame = sim.frame_ro(|_, k| k % 2 == 0 || acs(96, k, 20), ro, 1.0, 1);
        let params = ReconParams {
            method: Method::Sense,
            ..Default::default()
        };
        let (median, _) = replica_ratio(&sim, &frame, &params, 120);
        println!("sense, {what}: replica/analytic {median:.4}");
        assert!((median - 1.0).abs() < 0.03, "{what}: {median}");
    }
}

#[test]
fn a_lone_line_far_out_does_not_make_a_random_mask_partial_fourier() {
    let sim = Sim::new(8, 1, 96, 40, 200.0);
    let random = |k: usize| acs(96, k, 20) || [28, 33, 62, 65, 70].contains(&k) || k == 3;
    let partial = |k: usize| k >= 34 && (acs(96, k, 20) || k * k % 7 < 3);
    for (mask, is_partial) in [(&random as &dyn Fn(usize) -> bool, false), (&partial, true)] {
        let frame = sim.frame(|_, k| mask(k), 0.5, 1);
        let image = recon(&frame, &ReconParams::default()).unwrap();
        let steps = image.provenance.steps;
        assert_eq!(
            steps.iter().any(|s| s.op == "recon/partial_fourier"),
            is_partial
        );
    }
}

#[test]
fn partial_fourier_goes_with_parallel_imaging() {
    let sim = Sim::new(8, 1, 64, 40, 200.0);
    let frame = sim.frame(|_, k| k >= 20 && (k % 2 == 0 || acs(64, k, 20)), 0.5, 1);
    for method in [Method::Grappa, Method::Sense] {
        let mut errors = Vec::new();
        for pf in [
            partial_fourier::PartialFourierMethod::ZeroFill,
            partial_fourier::PartialFourierMethod::Pocs,
        ] {
            let mut params = ReconParams {
                method,
                ..Default::default()
            };
            params.partial_fourier.method = pf;
            let image = recon(&frame, &params).unwrap();
            errors.push(error_inside(&image.voxels, &sim.truth, &sim.inside));
        }
        println!("{method:?} with partial Fourier: {errors:?}");
        assert!(errors[1] < errors[0], "{method:?} {errors:?}");
    }
}

#[test]
fn homodyne_on_two_axes_and_too_narrow_centres_are_refused() {
    let sim = Sim::new(3, 1, 32, 32, 100.0);
    let mut params = ReconParams::default();
    params.partial_fourier.method = partial_fourier::PartialFourierMethod::Homodyne;
    let both = sim.frame_ro(|_, k| k >= 8, 8..32, 1.0, 1);
    assert!(matches!(
        recon(&both, &params),
        Err(ReconError::Pattern { .. })
    ));
    let narrow = sim.frame(|_, k| k >= 14, 1.0, 1);
    let message = recon(&narrow, &params).unwrap_err().to_string();
    assert!(message.contains("zero_fill"), "{message}");
    // Left to itself it fills with zeros, and says why.
    let image = recon(&narrow, &ReconParams::default()).unwrap();
    assert!(
        image
            .provenance
            .steps
            .iter()
            .any(|s| s.detail.contains("too few for a phase estimate"))
    );
}

#[test]
fn compression_changes_little_and_keeps_the_noise() {
    let sim = Sim::new(10, 1, 48, 40, 200.0);
    let frame = sim.frame(|_, k| k % 2 == 0 || acs(48, k, 20), 1.0, 1);
    let all = recon(&frame, &grappa_params()).unwrap();
    let before = error_inside(&all.voxels, &sim.truth, &sim.inside);
    for method in [
        compress::CompressMethod::Svd,
        compress::CompressMethod::Geometric,
    ] {
        for base in [grappa_params(), sense_params()] {
            let mut params = base;
            params.compress.method = method;
            let image = recon(&frame, &params).unwrap();
            let after = error_inside(&image.voxels, &sim.truth, &sim.inside);
            let step = image
                .provenance
                .steps
                .iter()
                .find(|s| s.op == "recon/compress")
                .unwrap();
            println!("{}: {before:.4} -> {after:.4}", step.detail);
            assert!(after < before * 1.5 + 0.005, "{method:?} {before} {after}");
        }
    }
}

#[test]
fn averages_lower_the_noise_map() {
    let sim = Sim::new(4, 1, 32, 24, 100.0);
    let mut frame = sim.frame(|_, _| true, 0.5, 1);
    frame.kspace.lines.iter_mut().for_each(|l| l.averages = 4);
    let image = recon(&frame, &ReconParams::default()).unwrap();
    assert!(
        image
            .noise_std
            .unwrap()
            .iter()
            .all(|s| (s - 0.5).abs() < 1e-5)
    );
}

#[test]
fn every_key_of_the_parameters_survives_a_round_trip_and_unknown_ones_do_not() {
    let params = ReconParams {
        matrix: Some([10, 20, 1]),
        ..Default::default()
    };
    let text = toml::to_string(&params).unwrap();
    assert_eq!(toml::from_str::<ReconParams>(&text).unwrap(), params);
    assert!(toml::from_str::<ReconParams>("[grappa]\nwindow = 3").is_err());
    let bad: ReconParams = toml::from_str("[grappa]\nwindow_ro = 4").unwrap();
    let message = bad.check().unwrap_err().to_string();
    assert!(
        message.contains("grappa.window_ro") && message.contains('4') && message.contains("odd"),
        "{message}"
    );
}
