//! SENSE against dense solutions of the same equations, and the laws it must obey.
#![allow(
    clippy::manual_is_multiple_of,
    reason = "masks read as they are written in papers"
)]

use num_complex::{Complex32, Complex64};

use super::{Lambda, Sense, SenseError, SenseImage, SenseParams, SenseSolver};
use crate::data::{Csm, KSpace};
use crate::num::fft::{Direction, Fft};
use crate::num::linalg::{inverse_hermitian, matmul};
use crate::num::rng::Rng;
use crate::num::testing::{assert_close, assert_same_on_any_threads, nrmse, nrmse_real};
use crate::recon::csm::tests::Phantom;

fn true_maps(phantom: &Phantom) -> Csm {
    let n = phantom.object.len();
    let mut maps = phantom.sensitivities.clone();
    // No map where there is no object, as estimated maps have it.
    for coil in maps.chunks_exact_mut(n) {
        for (v, m) in coil.iter_mut().zip(&phantom.object) {
            if m.norm() == 0.0 {
                *v = Complex32::ZERO;
            }
        }
    }
    Csm {
        n_sets: 1,
        n_coils: phantom.n_coils,
        matrix: phantom.matrix,
        maps,
    }
}

const ACCURATE: SenseParams = SenseParams {
    solver: SenseSolver::Auto,
    lambda: Lambda::Fixed(1e-3),
    max_iterations: 300,
    tolerance: 1e-7,
    noise_map: true,
    replicas: 8,
};

/// Solution and noise standard deviation from the dense normal equations of every column: the oracle.
fn reference(kspace: &KSpace, csm: &Csm, lambda: f32) -> (Vec<Complex32>, Vec<f32>) {
    let shape = kspace.shape;
    let (n2, n1, nx) = (shape.pe2, shape.pe1, shape.ro);
    let plane = n2 * n1;
    let n = csm.n_sets * plane;
    let n_lines = kspace.lines.len();
    let mut hybrid = kspace.samples.clone();
    Fft::plan(nx, Direction::Inverse).run_rows(&mut hybrid);
    let weight = |l: usize| f64::from(kspace.lines[l].averages);
    let mean: f64 = (0..n_lines).map(weight).sum::<f64>() / plane as f64;
    let lambda = f64::from(lambda) * mean;
    let mut voxels = vec![Complex32::ZERO; n * nx];
    let mut std = vec![0.0f32; n * nx];
    for x in 0..nx {
        let rows = csm.n_coils * n_lines;
        let mut a = vec![Complex64::ZERO; rows * n];
        let mut y = vec![Complex64::ZERO; rows];
        for coil in 0..csm.n_coils {
            for (l, line) in kspace.lines.iter().enumerate() {
                let row = coil * n_lines + l;
                let root = weight(l).sqrt();
                let v = hybrid[row * nx + x];
                y[row] = Complex64::new(v.re.into(), v.im.into()) * root;
                for i in 0..n {
                    let (set, r) = (i / plane, i % plane);
                    let s = csm.maps[((set * csm.n_coils + coil) * plane + r) * nx + x];
                    let turns = |k: u32, r: usize, n: usize| {
                        (f64::from(k) - (n / 2) as f64) * (r as f64 - (n / 2) as f64) / n as f64
                    };
                    let angle = -std::f64::consts::TAU
                        * (turns(line.pe2, r / n1, n2) + turns(line.pe1, r % n1, n1));
                    a[row * n + i] = Complex64::new(s.re.into(), s.im.into())
                        * Complex64::cis(angle)
                        * (root / (plane as f64).sqrt());
                }
            }
        }
        let adjoint: Vec<Complex64> = (0..n * rows)
            .map(|i| a[(i % rows) * n + i / rows].conj())
            .collect();
        let normal = matmul(&adjoint, &a, n, rows, n);
        let mut regular = normal.clone();
        for i in 0..n {
            regular[i * n + i] += lambda;
        }
        let inverse = inverse_hermitian(&regular, n).unwrap();
        let b = matmul(&adjoint, &y, n, rows, 1);
        let solution = matmul(&inverse, &b, n, n, 1);
        let covariance = matmul(&matmul(&inverse, &normal, n, n, n), &inverse, n, n, n);
        for i in 0..n {
            let v = solution[i];
            voxels[i * nx + x] = Complex32::new(v.re as f32, v.im as f32);
            std[i * nx + x] = covariance[i * n + i].re.max(0.0).sqrt() as f32;
        }
    }
    (voxels, std)
}

fn solve(kspace: &KSpace, csm: &Csm, params: &SenseParams) -> SenseImage {
    Sense::plan(kspace, params)
        .unwrap()
        .run(kspace, csm)
        .unwrap()
}

/// Masks: name, matrix, whether unfolding is exact, which lines.
type Mask = (&'static str, [usize; 3], bool, fn(usize, usize) -> bool);
const MASKS: [Mask; 12] = [
    ("one line", [1, 1, 5], true, |_, _| true),
    ("full", [1, 13, 4], true, |_, _| true),
    ("every second", [1, 16, 5], true, |_, k| k % 2 == 1),
    ("every third of odd", [1, 21, 4], true, |_, k| k % 3 == 2),
    ("with calibration lines", [1, 24, 4], false, |_, k| {
        k % 4 == 1 || (9..15).contains(&k)
    }),
    ("does not divide", [1, 20, 3], false, |_, k| k % 3 == 0),
    ("lattice points missing", [1, 24, 3], false, |_, k| {
        k % 2 == 0 && k > 5
    }),
    ("irregular", [1, 17, 4], false, |_, k| {
        k * k % 5 < 2 || (6..11).contains(&k)
    }),
    ("2 x 2", [6, 8, 2], true, |k2, k1| {
        k2 % 2 == 0 && k1 % 2 == 1
    }),
    ("2 x 2 shifted", [4, 6, 3], true, |k2, k1| {
        k2 % 2 == 1 && (k1 + k2 / 2) % 2 == 0
    }),
    ("1 x 3 shifted", [6, 9, 2], true, |k2, k1| {
        (k1 + 2 * k2) % 3 == 0
    }),
    ("shifted with block", [8, 8, 2], false, |k2, k1| {
        k2 % 2 == 0 && (k1 + k2 / 2) % 2 == 0 || (2..6).contains(&k2) && (2..6).contains(&k1)
    }),
];

#[test]
fn is_the_dense_solution_for_every_mask() {
    for (name, matrix, is_exact, mask) in MASKS {
        let phantom = Phantom::new(5, matrix);
        let kspace = phantom.scan(mask, 0.05, 3);
        let csm = true_maps(&phantom);
        let (voxels, std) = reference(&kspace, &csm, 1e-3);
        for solver in [SenseSolver::Auto, SenseSolver::Cg] {
            let params = SenseParams { solver, ..ACCURATE };
            let plan = Sense::plan(&kspace, &params).unwrap();
            if solver == SenseSolver::Auto {
                assert_eq!(plan.is_exact(), is_exact, "{name}: {:?}", plan.recipe());
            }
            let image = plan.run(&kspace, &csm).unwrap();
            let error = nrmse(&image.voxels, &voxels);
            assert!(
                error < 1e-3,
                "{name} {solver:?}: {error:.2e}, {image:?}",
                image = (image.iterations, image.residual)
            );
            if plan.is_exact() {
                let found = image.noise_std.unwrap();
                assert!(nrmse_real(&found, &std) < 1e-3, "{name}: noise");
            }
        }
    }
}

#[test]
fn two_sets_and_averages_are_in_the_equations() {
    let phantom = Phantom::new(6, [1, 16, 4]);
    for mask in [
        |_: usize, k: usize| k % 2 == 0,
        |_: usize, k: usize| k % 2 == 0 || k == 9,
    ] {
        let mut kspace = phantom.scan(mask, 0.05, 3);
        for (i, line) in kspace.lines.iter_mut().enumerate() {
            line.averages = if i == 3 { 3 } else { 2 };
        }
        let mut csm = true_maps(&phantom);
        let mut rng = Rng::new(8);
        csm.n_sets = 2;
        let second: Vec<Complex32> = csm
            .maps
            .iter()
            .map(|v| v * 0.3 + rng.normal() * 0.4)
            .collect();
        csm.maps.extend(second);
        let (voxels, _) = reference(&kspace, &csm, 1e-3);
        let image = solve(&kspace, &csm, &ACCURATE);
        assert!(nrmse(&image.voxels, &voxels) < 5e-4);
    }
}

#[test]
fn wrong_maps_are_seen() {
    // Wrong twins: conjugated maps, maps one voxel off, coils in another order.
    let phantom = Phantom::new(5, [1, 24, 4]);
    let kspace = phantom.scan(|_, k| k % 2 == 0, 0.0, 3);
    let csm = true_maps(&phantom);
    let params = SenseParams {
        lambda: Lambda::Fixed(0.0),
        ..ACCURATE
    };
    assert!(nrmse(&solve(&kspace, &csm, &params).voxels, &phantom.object) < 1e-3);
    let twin = |change: &dyn Fn(&mut Vec<Complex32>)| {
        let mut wrong = csm.clone();
        change(&mut wrong.maps);
        nrmse(&solve(&kspace, &wrong, &params).voxels, &phantom.object)
    };
    assert!(twin(&|m| m.iter_mut().for_each(|v| *v = v.conj())) > 0.1);
    assert!(twin(&|m| m.rotate_right(4)) > 0.02);
    assert!(twin(&|m| m.rotate_right(24 * 4)) > 0.1);
}

#[test]
fn hand_numbers_two_coils_that_see_half_each() {
    // Eight voxels, every second line: voxels i and i + 4 fold. Coil 0 sees the first four and coil 1 the last four,
    // so that nothing is left to unfold: g = 1, and half the samples give sqrt 2 of the full scan's noise, which is 1.
    let object: Vec<Complex32> = (0..8)
        .map(|i| Complex32::new(i as f32 + 1.0, 0.5))
        .collect();
    let mut samples = Vec::new();
    let mut maps = vec![Complex32::ZERO; 16];
    for coil in 0..2 {
        let mut image = vec![Complex32::ZERO; 8];
        for i in coil * 4..coil * 4 + 4 {
            maps[coil * 8 + i] = Complex32::ONE;
            image[i] = object[i];
        }
        Fft::plan(8, Direction::Forward).run_rows(&mut image);
        samples.extend(image.into_iter().step_by(2));
    }
    let kspace = KSpace {
        shape: crate::data::Shape {
            coil: 2,
            pe2: 1,
            pe1: 8,
            ro: 1,
        },
        lines: (0..8)
            .step_by(2)
            .map(|pe1| crate::data::Line {
                pe2: 0,
                pe1,
                averages: 1,
            })
            .collect(),
        ro_range: 0..1,
        samples,
    };
    let csm = Csm {
        n_sets: 1,
        n_coils: 2,
        matrix: [1, 8, 1],
        maps,
    };
    let image = solve(
        &kspace,
        &csm,
        &SenseParams {
            lambda: Lambda::Fixed(0.0),
            ..ACCURATE
        },
    );
    assert_eq!(image.iterations, 0);
    assert_close(&image.voxels, &object, 1e-5);
    for i in 0..8 {
        assert!((image.noise_std.as_ref().unwrap()[i] - 2f32.sqrt()).abs() < 1e-4);
        assert!((image.gfactor.as_ref().unwrap()[i] - 1.0).abs() < 1e-4);
    }
}

#[test]
fn gfactor_is_at_least_one_and_one_when_fully_sampled() {
    let phantom = Phantom::new(6, [1, 24, 8]);
    let csm = true_maps(&phantom);
    let params = SenseParams {
        lambda: Lambda::Fixed(0.0),
        ..ACCURATE
    };
    for (r, least_maximum) in [(1, 1.0), (2, 1.0), (3, 1.02), (4, 1.1)] {
        let kspace = phantom.scan(|_, k| k % r == 0, 0.0, 3);
        let g = solve(&kspace, &csm, &params).gfactor.unwrap();
        let inside: Vec<f32> = g.iter().copied().filter(|g| *g > 0.0).collect();
        assert!(inside.iter().all(|g| *g > 0.999), "{r}");
        let largest = inside.iter().copied().fold(0.0, f32::max);
        assert!(largest >= least_maximum * 0.999, "{r}: {largest}");
        if r == 1 {
            assert!(largest < 1.001);
        }
    }
}

#[test]
fn noise_map_agrees_with_replicas_and_dense_covariance() {
    let phantom = Phantom::new(8, [1, 48, 40]);
    let csm = true_maps(&phantom);
    let masks: [fn(usize, usize) -> bool; 3] = [
        |_, k| k % 3 == 1,
        |_, k| k % 4 == 0 || (20..28).contains(&k),
        |_, k| k * k % 7 < 3 || (20..28).contains(&k),
    ];
    for mask in masks {
        let kspace = phantom.scan(mask, 0.0, 3);
        let params = SenseParams {
            tolerance: 1e-3,
            replicas: 24,
            ..ACCURATE
        };
        let found = solve(&kspace, &csm, &params).noise_std.unwrap();
        let (_, std) = reference(&kspace, &csm, 1e-3);
        let mut ratios: Vec<f32> = found
            .iter()
            .zip(&std)
            .filter(|(_, s)| **s > 0.01)
            .map(|(f, s)| f / s)
            .collect();
        ratios.sort_by(f32::total_cmp);
        let median = ratios[ratios.len() / 2];
        let spread = (ratios[ratios.len() / 10], ratios[ratios.len() * 9 / 10]);
        assert!((median - 1.0).abs() < 0.03, "{median}");
        assert!(spread.0 > 0.9 && spread.1 < 1.1, "{spread:?}");
        // The oracle itself, by replicas of pure noise: the mean power over all voxels.
        let plan = Sense::plan(
            &kspace,
            &SenseParams {
                noise_map: false,
                ..params.clone()
            },
        )
        .unwrap();
        let mut power = 0.0;
        let replicas = 20;
        for seed in 0..replicas {
            let mut noise = kspace.clone();
            noise.samples = Rng::new(seed).complex(noise.samples.len());
            let image = plan.run(&noise, &csm).unwrap();
            power += image
                .voxels
                .iter()
                .map(|v| f64::from(v.norm_sqr()))
                .sum::<f64>()
                / 2.0;
        }
        let expected: f64 = found.iter().map(|s| f64::from(*s).powi(2)).sum();
        let ratio = (power / replicas as f64 / expected).sqrt();
        assert!((ratio - 1.0).abs() < 0.03, "{ratio}");
    }
}

#[test]
fn coil_order_and_phase_do_not_change_the_magnitude() {
    let phantom = Phantom::new(5, [1, 24, 6]);
    let kspace = phantom.scan(|_, k| k % 3 == 0 || (9..15).contains(&k), 0.05, 3);
    let csm = true_maps(&phantom);
    let (mut other, mut maps) = (kspace.clone(), csm.clone());
    let (n, plane) = (kspace.lines.len() * 6, 24 * 6);
    for (to, from) in [3usize, 0, 4, 1, 2].into_iter().enumerate() {
        let phase = Complex32::from_polar(1.0, from as f32);
        for i in 0..n {
            other.samples[to * n + i] = kspace.samples[from * n + i] * phase;
        }
        for i in 0..plane {
            maps.maps[to * plane + i] = csm.maps[from * plane + i] * phase;
        }
    }
    let a = solve(&kspace, &csm, &ACCURATE);
    let b = solve(&other, &maps, &ACCURATE);
    assert!(nrmse(&b.voxels, &a.voxels) < 1e-4);
}

#[test]
fn threads_do_not_change_a_bit() {
    let phantom = Phantom::new(4, [1, 24, 30]);
    let kspace = phantom.scan(|_, k| k % 3 == 0 || (9..15).contains(&k), 0.05, 3);
    let csm = true_maps(&phantom);
    assert_same_on_any_threads(|| solve(&kspace, &csm, &ACCURATE).voxels);
    // One column only: the coils share the threads.
    let phantom = Phantom::new(4, [20, 24, 1]);
    let kspace = phantom.scan(
        |z, y| (z * 7 + y * 5) % 3 == 0 || (z / 2 + y) % 5 == 0,
        0.05,
        3,
    );
    let csm = true_maps(&phantom);
    assert_same_on_any_threads(|| solve(&kspace, &csm, &ACCURATE));
}

#[test]
fn what_does_not_fit_is_refused() {
    let phantom = Phantom::new(4, [1, 12, 6]);
    let kspace = phantom.scan(|_, k| k % 2 == 0, 0.0, 3);
    let csm = true_maps(&phantom);
    let plan = Sense::plan(&kspace, &ACCURATE).unwrap();
    let mut fewer = csm.clone();
    fewer.n_coils = 3;
    assert!(matches!(
        plan.run(&kspace, &fewer),
        Err(SenseError::MapsDoNotFit { csm_coils: 3, .. })
    ));
    let other = phantom.scan(|_, k| k % 2 == 1, 0.0, 3);
    assert!(matches!(
        plan.run(&other, &csm),
        Err(SenseError::OtherLines { .. })
    ));
    let unfold = SenseParams {
        solver: SenseSolver::Unfold,
        ..ACCURATE
    };
    let acs = phantom.scan(|_, k| k % 2 == 0 || k == 5, 0.0, 3);
    let error = Sense::plan(&acs, &unfold).unwrap_err();
    assert!(
        error.to_string().contains("lattice 2x1 with 1 lines more"),
        "{error}"
    );
    let none = phantom.scan(|_, _| false, 0.0, 3);
    assert_eq!(
        Sense::plan(&none, &ACCURATE).unwrap_err(),
        SenseError::NoLines
    );
    let negative = SenseParams {
        lambda: Lambda::Fixed(-1.0),
        ..ACCURATE
    };
    assert!(matches!(
        Sense::plan(&kspace, &negative),
        Err(SenseError::BadParam { name: "lambda", .. })
    ));
    assert!(serde_json::from_str::<SenseParams>(r#"{"lamda": 1.0}"#).is_err());
}

/// The real eight-coil brain of the developers' data set, fully sampled: `[coil, pe1, ro]`.
fn brain() -> Option<KSpace> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../shared/data/kspace/brain8_full.cfl"
    );
    let path = if std::path::Path::new(path).exists() {
        path
    } else {
        "/work/shared/data/kspace/brain8_full.cfl"
    };
    let Ok(bytes) = std::fs::read(path) else {
        println!("skipped: {path} is not here");
        return None;
    };
    let samples: Vec<Complex32> = bytes
        .chunks_exact(8)
        .map(|b| {
            let part = |i: usize| f32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
            Complex32::new(part(0), part(4))
        })
        .collect();
    Some(KSpace {
        shape: crate::data::Shape {
            coil: 8,
            pe2: 1,
            pe1: 180,
            ro: 230,
        },
        lines: (0..180)
            .map(|pe1| crate::data::Line {
                pe2: 0,
                pe1,
                averages: 1,
            })
            .collect(),
        ro_range: 0..230,
        samples,
    })
}

fn keep(kspace: &KSpace, keep: impl Fn(usize) -> bool) -> KSpace {
    let mut out = kspace.clone();
    out.lines.retain(|l| keep(l.pe1 as usize));
    out.samples = (0..kspace.shape.coil)
        .flat_map(|c| out.lines.iter().map(move |l| (c, l.pe1 as usize)))
        .flat_map(|(c, l)| kspace.line(c, l).to_vec())
        .collect();
    out
}

/// Scaled NRMSE of magnitudes, as the data set's table has it.
fn scaled_error(found: &[f32], truth: &[f32]) -> f64 {
    let dot: f64 = found.iter().zip(truth).map(|(a, b)| f64::from(a * b)).sum();
    let power: f64 = found.iter().map(|a| f64::from(a * a)).sum();
    let scale = (dot / power) as f32;
    let fitted: Vec<f32> = found.iter().map(|a| a * scale).collect();
    nrmse_real(&fitted, truth)
}

#[test]
fn real_brain_is_as_good_as_barts() {
    let Some(full) = brain() else { return };
    let mut images = full.samples.clone();
    crate::num::fft::fft2(&mut images, 180, 230, Direction::Inverse);
    let n = 180 * 230;
    let truth: Vec<f32> = (0..n)
        .map(|i| {
            (0..8)
                .map(|c| images[c * n + i].norm_sqr())
                .sum::<f32>()
                .sqrt()
        })
        .collect();
    // BART 0.8 `ecalib -m1`, `pics -l2`: the table in the data set's README.
    for (r, bart) in [(2, 0.066), (3, 0.084), (4, 0.149)] {
        let kspace = keep(&full, |k| k % r == 0 || (78..102).contains(&k));
        let csm = crate::recon::csm::maps(&kspace, [1, 180, 230], &Default::default()).unwrap();
        let error = |params: &SenseParams| {
            let image = solve(&kspace, &csm, params);
            let magnitude: Vec<f32> = image.voxels.iter().map(|v| v.norm()).collect();
            (scaled_error(&magnitude, &truth), image.iterations)
        };
        let quiet = SenseParams {
            lambda: Lambda::Fixed(1e-2),
            noise_map: false,
            ..SenseParams::default()
        };
        if std::env::var("CAUDA_SWEEP").is_ok() {
            for lambda in [1e-4, 1e-3, 1e-2, 3e-2, 1e-1] {
                for tolerance in [1e-1, 3e-2, 1e-2, 1e-3] {
                    let found = error(&SenseParams {
                        lambda: Lambda::Fixed(lambda),
                        tolerance,
                        ..quiet.clone()
                    });
                    println!("R {r} lambda {lambda:e} tolerance {tolerance:e}: {found:?}");
                }
            }
        }
        let (error, iterations) = error(&quiet);
        println!("R {r}: NRMSE {error:.4} in {iterations} iterations, BART {bart}");
        assert!(error < bart * 1.01 + 0.0005, "R {r}: {error}");
    }
}

/// Noise of whole images by replicas of the whole scan, over the noise that one of them reports and over that of its
/// wrong twin: replicas of noise alone, which are solved further than an image. 5 %, median, 95 % over the object.
fn noise_ratios(
    phantom: &Phantom,
    csm: &Csm,
    keep: &dyn Fn(usize) -> bool,
    lambda: f32,
) -> [[f32; 3]; 2] {
    const REPLICAS: usize = 50;
    let params = SenseParams {
        lambda: Lambda::Fixed(lambda),
        ..SenseParams::default()
    };
    let kspace = phantom.scan(|_, k| keep(k), 1.0, 3);
    let mut silent = kspace.clone();
    silent.samples.fill(Complex32::ZERO);
    let reported = [&kspace, &silent].map(|k| solve(k, csm, &params).noise_std.unwrap());
    let quiet = SenseParams {
        noise_map: false,
        ..params
    };
    let plan = Sense::plan(&kspace, &quiet).unwrap();
    let clean = phantom.scan(|_, k| keep(k), 0.0, 3);
    let n = phantom.object.len();
    let (mut sum, mut power) = (vec![Complex32::ZERO; n], vec![0.0f32; n]);
    for seed in 0..REPLICAS {
        let mut noisy = clean.clone();
        let mut rng = Rng::new(Rng::new(seed as u64).next_u64());
        noisy.samples.iter_mut().for_each(|v| *v += rng.normal());
        for (i, v) in plan.run(&noisy, csm).unwrap().voxels.iter().enumerate() {
            sum[i] += v;
            power[i] += v.norm_sqr();
        }
    }
    let count = REPLICAS as f32;
    let measured = |i: usize| (power[i] - sum[i].norm_sqr() / count) / (2.0 * (count - 1.0));
    reported.map(|reported| {
        let mut ratios: Vec<f32> = (0..n)
            .filter(|i| phantom.object[*i] != Complex32::ZERO)
            .map(|i| measured(i).sqrt() / reported[i])
            .collect();
        ratios.sort_by(f32::total_cmp);
        [5, 50, 95].map(|p| ratios[(ratios.len() - 1) * p / 100])
    })
}

#[test]
fn noise_map_is_that_of_the_whole_reconstruction_for_irregular_masks() {
    const N: usize = 96;
    let kept = |share: f64, seed: u64| -> Vec<bool> {
        let mut rng = Rng::new(seed);
        (0..N).map(|_| rng.uniform() < share).collect()
    };
    let (most, few) = (kept(0.73, 5), kept(0.35, 9));
    let masks: [(&str, &dyn Fn(usize) -> bool); 5] = [
        ("R=2, lines missing", &|k| k % 2 == 0 && most[k]),
        ("R=3, lines missing", &|k| k % 3 == 0 && most[k]),
        ("R=2, a piece missing", &|k| {
            k % 2 == 0 && !(16..30).contains(&k)
        }),
        ("R=3, a piece missing", &|k| {
            k % 3 == 0 && !(66..80).contains(&k)
        }),
        ("random, denser towards the middle", &|k| {
            few[k] || most[k] && k.abs_diff(N / 2) < 24
        }),
    ];
    let mut phantom = Phantom::new(8, [1, N, 32]);
    let csm = true_maps(&phantom);
    phantom.object.iter_mut().for_each(|v| *v *= 100.0);
    for (what, mask) in masks {
        let mask = |k: usize| mask(k) || k.abs_diff(N / 2) < 8;
        let [found, _] = noise_ratios(&phantom, &csm, &mask, 3e-3);
        println!("{what}: {found:.3?}");
        assert!((found[1] - 1.0).abs() < 0.03, "{what}: {found:?}");
        assert!(found[0] > 0.75 && found[2] < 1.25, "{what}: {found:?}");
        if !what.contains("a piece") {
            continue;
        }
        // Hardly regularised: iterations end before the noise is solved for.
        let [found, twin] = noise_ratios(&phantom, &csm, &mask, 1e-4);
        println!("{what}, hardly regularised: {found:.3?}, noise alone {twin:.3?}");
        assert!((found[1] - 1.0).abs() < 0.1, "{what}: {found:?}");
        assert!(twin[1] < 0.9, "{what}: {twin:?}");
    }
}

/// Data consistency, by its own definition: at the minimum the gradient is zero.
#[test]
fn between_lines_and_a_prior_is_where_the_gradient_vanishes() {
    let (coils, n1, nx) = (4, 24, 10);
    let mut rng = Rng::new(5);
    let mut draw = |n: usize| rng.complex(n);
    let shape = crate::data::Shape {
        coil: coils,
        pe2: 1,
        pe1: n1,
        ro: nx,
    };
    let csm = Csm {
        n_sets: 1,
        n_coils: coils,
        matrix: [1, n1, nx],
        maps: draw(coils * n1 * nx).iter().map(|v| v * 0.5).collect(),
    };
    let prior = draw(n1 * nx);
    let error: Vec<f32> = (0..n1 * nx)
        .map(|i| {
            if i == 7 {
                0.0
            } else {
                0.2 + 0.1 * (i % 9) as f32
            }
        })
        .collect();
    // A lattice, and a mask without one; some lines measured twice.
    for lines in [
        [0usize, 3, 6, 9, 12, 15, 18, 21],
        [1, 2, 5, 11, 12, 13, 14, 20],
    ] {
        let lines: Vec<crate::data::Line> = lines
            .iter()
            .map(|&pe1| crate::data::Line {
                pe2: 0,
                pe1: pe1 as u32,
                averages: 1 + u32::from(pe1 == 12),
            })
            .collect();
        let kspace = KSpace {
            shape,
            ro_range: 2..nx,
            samples: (draw(coils * lines.len() * nx).into_iter().enumerate())
                .map(|(i, v)| if i % nx < 2 { Complex32::ZERO } else { v })
                .collect(),
            lines,
        };
        // The solver takes a readout as whole: so does the definition here.
        let kspace = KSpace {
            ro_range: 0..nx,
            ..kspace
        };
        let sense = Sense::plan(&kspace, &ACCURATE).unwrap();
        let x = sense.between(&kspace, &csm, &prior, &error).unwrap();
        let gradient = |x: &[Complex32], error: &[f32]| -> f64 {
            let mut off = sense.lines_of(x, &csm);
            for (i, (o, y)) in off.samples.iter_mut().zip(&kspace.samples).enumerate() {
                *o = (*o - y) * kspace.lines[i / nx % kspace.lines.len()].averages as f32;
            }
            let mut images = off.to_grid();
            crate::num::fft::fft2(&mut images, n1, nx, Direction::Inverse);
            let n = n1 * nx;
            let of = |i: usize| {
                let data: Complex32 = (0..coils)
                    .map(|c| csm.maps[c * n + i].conj() * images[c * n + i])
                    .sum();
                data * error[i] * error[i] + x[i] - prior[i]
            };
            (0..n)
                .map(|i| f64::from(of(i).norm_sqr()))
                .sum::<f64>()
                .sqrt()
        };
        assert!(gradient(&x, &error) < 1e-4, "{}", gradient(&x, &error));
        assert_eq!(x[7], prior[7]);
        // Wrong twins: the prior itself, and one error for all voxels.
        assert!(gradient(&prior, &error) > 1.0);
        let same = sense
            .between(&kspace, &csm, &prior, &vec![0.6; n1 * nx])
            .unwrap();
        assert!(gradient(&same, &error) > 0.5);
        // A sure prior stays, an unsure one follows the lines.
        let sure = sense
            .between(&kspace, &csm, &prior, &vec![1e-4; n1 * nx])
            .unwrap();
        assert!(nrmse(&sure, &prior) < 1e-4);
        let unsure = sense
            .between(&kspace, &csm, &prior, &vec![1e3; n1 * nx])
            .unwrap();
        assert!(sense.distance(&kspace, &csm, &unsure) < sense.distance(&kspace, &csm, &sure));
    }
}
