//! Numbers by hand, then the sums of the definition, then the laws; and wrong twins that the same checks reject.

use std::f64::consts::TAU;

use super::*;
use crate::num::fft::{Direction, fft2, fft3};
use crate::num::rng::Rng;
use crate::num::testing::{
    adjoint_error, assert_adjoint, assert_close, assert_linear, assert_same_on_any_threads, nrmse,
};

/// 1, primes, odd and even, unequal.
const SHAPES: [&[usize]; 10] = [
    &[1, 1],
    &[8, 8],
    &[7, 9],
    &[1, 12],
    &[31, 13],
    &[40, 37],
    &[4, 6, 5],
    &[7, 5, 3],
    &[8, 1, 9],
    &[13, 12, 11],
];
const TOLERANCES: [f64; 4] = [1e-3, 1e-4, 1e-5, 1e-6];

/// Anywhere in k-space, its edges and corners included.
fn anywhere(shape: &[usize], n_samples: usize) -> Vec<f32> {
    let mut rng = Rng::new(17);
    let half = |a: usize| shape[shape.len() - 1 - a] as f32 / 2.0;
    let mut k: Vec<f32> = (0..n_samples * shape.len())
        .map(|i| (2.0 * rng.uniform() as f32 - 1.0) * half(i % shape.len()))
        .collect();
    for a in 0..shape.len() {
        k[a] = half(a);
        k[shape.len() + a] = -half(a);
        k[2 * shape.len() + a] = 0.0;
    }
    k
}

struct Case {
    k: Vec<f32>,
    shape: Vec<usize>,
    images: Vec<Complex32>,
    samples: Vec<Complex32>,
}

fn case(shape: &[usize], n_coils: usize) -> Case {
    let k = anywhere(shape, 150);
    let mut rng = Rng::new(3);
    Case {
        images: rng.complex(n_coils * shape.iter().product::<usize>()),
        samples: rng.complex(n_coils * k.len() / shape.len()),
        k,
        shape: shape.to_vec(),
    }
}

impl Case {
    fn truth(&self) -> [Vec<Complex32>; 2] {
        [
            reference::forward(&self.k, &self.shape, &self.images),
            reference::adjoint(&self.k, &self.shape, &self.samples),
        ]
    }
    /// Results of `nufft`, forward and adjoint.
    fn run(&self, nufft: &Nufft) -> [Vec<Complex32>; 2] {
        let nan = Complex32::new(f32::NAN, f32::NAN);
        let mut samples = vec![nan; self.samples.len()];
        let mut images = vec![nan; self.images.len()];
        nufft.forward(&self.images, &mut samples).unwrap();
        nufft.adjoint(&self.samples, &mut images).unwrap();
        [samples, images]
    }
    /// The larger of the errors forward and back.
    fn error(&self, nufft: &Nufft) -> f64 {
        let (found, truth) = (self.run(nufft), self.truth());
        nrmse(&found[0], &truth[0]).max(nrmse(&found[1], &truth[1]))
    }
}

fn close(found: Complex32, expected: (f64, f64), tolerance: f32) {
    let expected = Complex32::new(expected.0 as f32, expected.1 as f32);
    assert!((found - expected).norm() < tolerance, "{found} {expected}");
}

#[test]
fn a_sample_at_dc_by_hand() {
    // 4 x 6 voxels: the sum over the root of 24; back, the same in every voxel.
    let nufft = Nufft::plan(&[0.0, 0.0], &[4, 6], 1e-6).unwrap();
    let image: Vec<_> = (0..24).map(|i| Complex32::new(i as f32, 1.0)).collect();
    let mut sample = [Complex32::ZERO];
    nufft.forward(&image, &mut sample).unwrap();
    let root = 24.0f64.sqrt();
    close(sample[0], (276.0 / root, 24.0 / root), 1e-4);
    let mut back = vec![Complex32::ZERO; 24];
    nufft
        .adjoint(&[Complex32::new(0.0, 2.0)], &mut back)
        .unwrap();
    for v in back {
        close(v, (0.0, 2.0 / root), 2e-6);
    }
}

#[test]
fn a_sample_at_one_cycle_along_x_by_hand() {
    // exp(-2 pi i (x - 3) / 6) for a voxel at x, whatever its y; back, the conjugate.
    let nufft = Nufft::plan(&[1.0, 0.0], &[4, 6], 1e-6).unwrap();
    for (y, x) in [(0, 0), (1, 2), (3, 5), (2, 3)] {
        let mut image = vec![Complex32::ZERO; 24];
        image[y * 6 + x] = Complex32::ONE;
        let mut sample = [Complex32::ZERO];
        nufft.forward(&image, &mut sample).unwrap();
        let angle = -TAU * (x as f64 - 3.0) / 6.0;
        let root = 24.0f64.sqrt();
        close(sample[0], (angle.cos() / root, angle.sin() / root), 1e-6);
        let mut back = vec![Complex32::ZERO; 24];
        nufft.adjoint(&[Complex32::ONE], &mut back).unwrap();
        let v = back[y * 6 + x];
        close(v, (angle.cos() / root, -angle.sin() / root), 1e-6);
    }
}

#[test]
fn on_whole_k_it_is_the_fft() {
    for shape in [&[6usize, 7][..], &[5, 4, 6]] {
        let mut k = Vec::new();
        let n: Vec<usize> = [vec![1; 3 - shape.len()], shape.to_vec()].concat();
        for i in 0..n.iter().product() {
            let at = [i % n[2], i / n[2] % n[1], i / n[2] / n[1]];
            let centred = |a: usize| at[a] as f32 - (n[2 - a] / 2) as f32;
            k.extend((0..shape.len()).map(centred));
        }
        let image = Rng::new(1).complex(n.iter().product());
        let mut expected = image.clone();
        fft3(&mut expected, n[0], n[1], n[2], Direction::Forward);
        let nufft = Nufft::plan(&k, shape, 1e-6).unwrap();
        let mut found = image.clone();
        nufft.forward(&image, &mut found).unwrap();
        assert_close(&found, &expected, 1e-6);
        if shape.len() == 2 {
            let mut back = image.clone();
            nufft.adjoint(&image, &mut back).unwrap();
            let mut expected = image;
            fft2(&mut expected, n[1], n[2], Direction::Inverse);
            assert_close(&back, &expected, 1e-6);
        }
    }
}

#[test]
fn is_the_sum_of_the_definition_within_the_tolerance() {
    for shape in SHAPES {
        let case = case(shape, 2);
        for tolerance in TOLERANCES {
            let nufft = Nufft::plan(&case.k, shape, tolerance).unwrap();
            let error = case.error(&nufft);
            assert!(error <= tolerance, "{shape:?} {tolerance:.0e}: {error:.2e}");
        }
        for (tolerance, oversampling) in [(1e-2, 1.25), (1e-3, 1.25), (1e-3, 2.0)] {
            let nufft = Nufft::plan_on(&case.k, shape, tolerance, &[oversampling]).unwrap();
            let error = case.error(&nufft);
            assert!(
                error <= tolerance,
                "{shape:?} on {oversampling}: {error:.2e}"
            );
        }
    }
}

#[test]
fn the_farthest_corner_keeps_the_tolerance_too() {
    for (shape, corner) in [(&[32usize, 40][..], 0), (&[16, 16, 16], 0)] {
        let mut case = case(shape, 1);
        case.k = anywhere(shape, 2000);
        case.samples = Rng::new(1).complex(2000);
        case.images.fill(Complex32::ZERO);
        case.images[corner] = Complex32::ONE;
        let truth = reference::forward(&case.k, shape, &case.images);
        for tolerance in TOLERANCES {
            for oversampling in [1.25, 2.0] {
                // The coarse grid does not reach the smallest tolerances in single precision.
                let plan = Nufft::plan_on(&case.k, shape, tolerance, &[oversampling]);
                let Ok(nufft) = plan else {
                    assert!(oversampling < 2.0 && tolerance < 1e-3, "{plan:?}");
                    continue;
                };
                let error = nrmse(&case.run(&nufft)[0], &truth);
                assert!(
                    error <= tolerance,
                    "{shape:?} {tolerance:.0e} on {oversampling}: {error:.2e}"
                );
            }
        }
    }
}

#[test]
fn coils_do_not_see_each_other() {
    for n_coils in [1, 3, 8, 9, 17] {
        for shape in [&[9usize, 10][..], &[5, 4, 6]] {
            let case = case(shape, n_coils);
            let nufft = Nufft::plan(&case.k, shape, 1e-4).unwrap();
            assert!(case.error(&nufft) <= 1e-4, "{n_coils}");
            // The last coil alone, to the bit.
            let alone = Case {
                images: case.images[(n_coils - 1) * nufft.voxels()..].to_vec(),
                samples: case.samples[(n_coils - 1) * nufft.n_samples()..].to_vec(),
                k: case.k.clone(),
                shape: case.shape.clone(),
            };
            let (all, one) = (case.run(&nufft), alone.run(&nufft));
            for (all, one) in all.iter().zip(&one) {
                assert_eq!(&all[all.len() - one.len()..], &one[..]);
            }
        }
    }
}

#[test]
fn laws_hold_for_all_shapes() {
    for shape in SHAPES {
        let k = anywhere(shape, 150);
        for tolerance in [1e-2, 1e-3, 1e-6] {
            let nufft = Nufft::plan(&k, shape, tolerance).unwrap();
            // Rounding only: far below the tolerance, since the weights are the same.
            assert_adjoint(&nufft.of_coils(2), 1e-6);
            assert_linear(&nufft.of_coils(2), 2e-6);
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    for shape in [&[60usize, 50][..], &[20, 18, 16]] {
        let mut case = case(shape, 3);
        case.k = anywhere(shape, 5000);
        case.samples = Rng::new(1).complex(3 * 5000);
        let weights: Vec<f32> = (0..5000).map(|i| i as f32 * 1e-3).collect();
        assert_same_on_any_threads(|| {
            let nufft = Nufft::plan(&case.k, shape, 1e-3).unwrap();
            let toeplitz = Toeplitz::plan(&nufft, &weights).unwrap();
            let mut normal = case.images.clone();
            toeplitz.run(&case.images, &mut normal).unwrap();
            (case.run(&nufft), normal)
        });
    }
}

#[test]
fn wrong_twins_are_rejected() {
    for shape in [&[12usize, 12][..], &[8, 8, 8]] {
        let case = case(shape, 1);
        let rejected = |nufft: &Nufft, what: &str| {
            assert!(case.error(nufft) > 1e-2, "{what}");
        };
        let mut flat = Nufft::plan(&case.k, shape, 1e-3).unwrap();
        for axis in &mut flat.axes.0 {
            let middle = axis.factors[axis.n / 2];
            axis.factors.fill(middle);
        }
        rejected(&flat, "without deapodisation");
        // Half a cell of the grid, inwards so that it stays in range.
        let cell = shape[0] as f32 / flat.axes.0[0].size as f32;
        let shifted: Vec<f32> = (case.k.iter())
            .map(|k| k - 0.5 * cell * k.signum())
            .collect();
        rejected(&Nufft::plan(&shifted, shape, 1e-3).unwrap(), "half a cell");
        let mut transposed = case.k.clone();
        for k in transposed.chunks_mut(shape.len()) {
            k.swap(0, 1);
        }
        rejected(&Nufft::plan(&transposed, shape, 1e-3).unwrap(), "axes");
        let mirrored: Vec<f32> = case.k.iter().map(|k| -k).collect();
        rejected(&Nufft::plan(&mirrored, shape, 1e-3).unwrap(), "sign");
    }
    // An adjoint of other weights.
    struct Twin(Nufft, Nufft);
    impl LinOp for Twin {
        fn domain(&self) -> usize {
            self.0.voxels()
        }
        fn range(&self) -> usize {
            self.0.n_samples()
        }
        fn forward(&self, x: &[Complex32], y: &mut [Complex32]) {
            self.0.forward(x, y).unwrap();
        }
        fn adjoint(&self, y: &[Complex32], x: &mut [Complex32]) {
            self.1.adjoint(y, x).unwrap();
        }
    }
    let k = anywhere(&[12, 12], 150);
    let on = |o| Nufft::plan_on(&k, &[12, 12], 1e-2, &[o]).unwrap();
    assert!(adjoint_error(&Twin(on(1.25), on(2.0))) > 1e-6);
}

#[test]
fn the_normal_operator_is_there_and_back() {
    for shape in SHAPES {
        let case = case(shape, 3);
        let weights: Vec<f32> = (0..150).map(|i| 0.5 + (i % 7) as f32).collect();
        for tolerance in TOLERANCES {
            let nufft = Nufft::plan(&case.k, shape, tolerance).unwrap();
            let mut between = case.samples.clone();
            nufft.forward(&case.images, &mut between).unwrap();
            for (v, w) in between.iter_mut().zip(weights.iter().cycle()) {
                *v *= w;
            }
            let mut expected = case.images.clone();
            nufft.adjoint(&between, &mut expected).unwrap();
            let toeplitz = Toeplitz::plan(&nufft, &weights).unwrap();
            let mut found = vec![Complex32::new(f32::NAN, 0.0); expected.len()];
            toeplitz.run(&case.images, &mut found).unwrap();
            assert_close(&found, &expected, tolerance);
        }
    }
    // Wrong twin: weights that are not there.
    let case = case(&[9, 8], 1);
    let nufft = Nufft::plan(&case.k, &[9, 8], 1e-3).unwrap();
    let run = |weights: &[f32]| {
        let mut out = case.images.clone();
        Toeplitz::plan(&nufft, weights)
            .unwrap()
            .run(&case.images, &mut out)
            .unwrap();
        out
    };
    let mut weights = vec![1.0; 150];
    weights[..75].fill(0.0);
    assert!(nrmse(&run(&weights), &run(&[1.0; 150])) > 0.1);
}

#[test]
fn bad_input_is_refused_by_name() {
    let plan = |k: &[f32], shape: &[usize], tolerance| Nufft::plan(k, shape, tolerance).map(|_| ());
    let k = [0.0, 1.0, -4.0, 3.0];
    assert_eq!(plan(&k, &[6, 8], 1e-3), Ok(()));
    assert_eq!(plan(&[], &[6, 8], 1e-3), Err(NufftError::NoTrajectory));
    assert!(matches!(
        plan(&k[..3], &[6, 8], 1e-3),
        Err(NufftError::TrajectoryLength { found: 3, axes: 2 })
    ));
    for shape in [&[8usize][..], &[8, 0], &[2, 2, 2, 2], &[]] {
        let refused = plan(&k, shape, 1e-3);
        assert!(matches!(refused, Err(NufftError::Shape { .. })));
    }
    for tolerance in [0.0, 1e-7, 0.5, f64::NAN, -1.0] {
        let refused = plan(&k, &[6, 8], tolerance);
        assert!(matches!(refused, Err(NufftError::Tolerance { .. })));
    }
    let refused = plan(&k, &[6, 7], 1e-3);
    let Err(NufftError::OutOfRange {
        sample: 1,
        axis: 'x',
        found: -4.0,
        limit: 3.5,
    }) = refused
    else {
        panic!("{refused:?}")
    };
    for bad in [f32::NAN, f32::INFINITY] {
        let refused = plan(&[0.0, 1.0, 0.0, bad], &[6, 8], 1e-3);
        let expected = NufftError::NotFinite {
            sample: 1,
            axis: 'y',
        };
        assert_eq!(refused, Err(expected));
    }
    assert!(matches!(
        plan(&k, &[1 << 40, 1 << 40], 1e-3),
        Err(NufftError::TooLarge { .. })
    ));
    let nufft = Nufft::plan(&k, &[6, 8], 1e-3).unwrap();
    let (images, mut samples) = (vec![Complex32::ZERO; 96], vec![Complex32::ZERO; 2]);
    let refused = nufft.forward(&images, &mut samples);
    assert!(matches!(refused, Err(NufftError::Lengths { .. })));
    assert_eq!(nufft.forward(&[], &mut []), Ok(()));
    let refused = Toeplitz::plan(&nufft, &[1.0]).map(|_| ());
    assert!(matches!(refused, Err(NufftError::WeightsLength { .. })));
    let refused = Toeplitz::plan(&nufft, &[1.0, f32::NAN]).map(|_| ());
    assert_eq!(refused, Err(NufftError::WeightNotFinite { sample: 1 }));
}
