//! The sums of the definition, one term after another in `f64`: the oracle.

use num_complex::{Complex32, Complex64};

/// Phases `exp(-2 pi i k (x - n/2) / n)` of one sample along every axis, x first.
fn phases(sample: &[f32], shape: &[usize]) -> Vec<Vec<Complex64>> {
    let along = |(k, n): (&f32, &usize)| {
        (0..*n)
            .map(|x| {
                let turns = f64::from(*k) * (x as f64 - (n / 2) as f64) / *n as f64;
                Complex64::cis(-std::f64::consts::TAU * turns.fract())
            })
            .collect()
    };
    sample.iter().zip(shape.iter().rev()).map(along).collect()
}

fn each_voxel(sample: &[f32], shape: &[usize], mut f: impl FnMut(usize, Complex64)) {
    let phases = phases(sample, shape);
    let one = vec![Complex64::ONE];
    let (px, py) = (&phases[0], &phases[1]);
    let pz = phases.get(2).unwrap_or(&one);
    let mut at = 0;
    for z in pz {
        for y in py {
            for x in px {
                f(at, x * y * z);
                at += 1;
            }
        }
    }
}

fn narrow(v: Complex64) -> Complex32 {
    Complex32::new(v.re as f32, v.im as f32)
}

fn wide(v: Complex32) -> Complex64 {
    Complex64::new(v.re.into(), v.im.into())
}

/// See [`super::Nufft::forward`].
pub fn forward(trajectory: &[f32], shape: &[usize], images: &[Complex32]) -> Vec<Complex32> {
    let voxels: usize = shape.iter().product();
    let scale = 1.0 / (voxels as f64).sqrt();
    let mut out = Vec::new();
    for image in images.chunks_exact(voxels) {
        for sample in trajectory.chunks_exact(shape.len()) {
            let mut sum = Complex64::ZERO;
            each_voxel(sample, shape, |at, phase| sum += wide(image[at]) * phase);
            out.push(narrow(sum * scale));
        }
    }
    out
}

/// See [`super::Nufft::adjoint`].
pub fn adjoint(trajectory: &[f32], shape: &[usize], samples: &[Complex32]) -> Vec<Complex32> {
    let voxels: usize = shape.iter().product();
    let scale = 1.0 / (voxels as f64).sqrt();
    let n_samples = trajectory.len() / shape.len();
    let mut out = Vec::new();
    for values in samples.chunks_exact(n_samples) {
        let mut image = vec![Complex64::ZERO; voxels];
        for (sample, value) in trajectory.chunks_exact(shape.len()).zip(values) {
            each_voxel(sample, shape, |at, phase| {
                image[at] += wide(*value) * phase.conj();
            });
        }
        out.extend(image.into_iter().map(|v| narrow(v * scale)));
    }
    out
}
