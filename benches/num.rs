//! Transforms: `num/fft2/cpu/320x(320x320)` is the batch that FFTW and ducc0 are timed with.

use cauda::num::fft::{Direction, fft2};
use cauda::num::rng::Rng;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn transforms(c: &mut Criterion) {
    let mut group = c.benchmark_group("num");
    group.sample_size(10);
    let mut data = Rng::new(1).complex(320 * 320 * 320);
    group.throughput(Throughput::Elements(data.len() as u64));
    group.bench_function("fft2/cpu/320x(320x320)", |b| {
        b.iter(|| fft2(&mut data, 320, 320, Direction::Forward));
    });
    group.finish();
}

criterion_group!(benches, transforms);
criterion_main!(benches);
