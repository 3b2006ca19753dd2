//! NUFFT of a golden-angle radial scan, 256 x 256, 400 spokes of 512 samples, 16 coils, tolerance 1e-3: what finufft and
//! bartorch are timed with by `scripts/bench/run.py nufft`. Plans, both directions, and the normal operator.

#![allow(clippy::unwrap_used)]

use cauda::num::nufft::{Nufft, Toeplitz};
use cauda::num::rng::Rng;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const N: usize = 256;
const N_COILS: usize = 16;

fn radial() -> Vec<f32> {
    let golden = std::f64::consts::PI * (5.0f64.sqrt() - 1.0) / 2.0;
    (0..400)
        .flat_map(|spoke| (0..512).map(move |i| (f64::from(spoke) * golden, f64::from(i))))
        .flat_map(|(angle, i)| {
            let r = (i - 256.0) / 512.0 * N as f64;
            [(r * angle.cos()) as f32, (r * angle.sin()) as f32]
        })
        .collect()
}

fn transforms(c: &mut Criterion) {
    let k = radial();
    let shape = [N, N];
    let nufft = Nufft::plan(&k, &shape, 1e-3).unwrap();
    let toeplitz = Toeplitz::plan(&nufft, &vec![1.0; nufft.n_samples()]).unwrap();
    let mut rng = Rng::new(1);
    let mut images = rng.complex(N_COILS * N * N);
    let mut samples = rng.complex(N_COILS * nufft.n_samples());
    let mut group = c.benchmark_group("num/nufft/cpu/256x256/400x512x16");
    group.sample_size(20);
    group.bench_function("plan", |b| {
        b.iter(|| Nufft::plan(&k, &shape, 1e-3).unwrap())
    });
    group.throughput(Throughput::Elements(samples.len() as u64));
    group.bench_function("type 1", |b| {
        b.iter(|| nufft.adjoint(&samples, &mut images).unwrap());
    });
    group.bench_function("type 2", |b| {
        b.iter(|| nufft.forward(&images, &mut samples).unwrap());
    });
    let from = images.clone();
    group.bench_function("normal", |b| {
        b.iter(|| toeplitz.run(&from, &mut images).unwrap());
    });
    group.finish();
}

criterion_group!(benches, transforms);
criterion_main!(benches);
