//! The digital spine: echo trains by phase graphs, what is at a place, one slice of k-space, one training sample. All on
//! one thread; throughput is trains, places, readouts and voxels.

use std::convert::Infallible;
use std::hint::black_box;

use cauda::phantom::acquire::{
    AcquireParams, Block, CtParams, Matter, Scan, Subject, ct, scanned_maps,
};
use cauda::phantom::spine::{Patient, Request};
use cauda::sequence::{Contrast, FatMethod, FatParams, SequenceParams, Train};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rayon::{ThreadPool, ThreadPoolBuilder};

fn subject() -> Option<Subject> {
    let patient = Patient::draw(&Request {
        seed: 7,
        ..Request::default()
    });
    Some(Subject::new(patient.ok()?, 3.0))
}

fn trains(c: &mut Criterion) {
    let Ok(train) = Train::plan(&SequenceParams::default()) else {
        return;
    };
    let compartments: Vec<[f64; 3]> = (0..64)
        .map(|i| {
            let i = f64::from(i);
            [400.0 + 60.0 * i, 30.0 + 2.0 * i, 0.8 + 0.4 * i / 63.0]
        })
        .collect();
    let mut echoes = vec![0.0; compartments.len() * train.n_echoes()];
    let mut group = c.benchmark_group("phantom/epg");
    group.throughput(Throughput::Elements(compartments.len() as u64));
    group.bench_function("cpu/tse_19_echoes", |b| {
        b.iter(|| train.echoes_of_many(black_box(&compartments), &mut echoes));
    });
    group.finish();
}

#[allow(clippy::cast_possible_truncation)] // storage precision
fn places(c: &mut Criterion) {
    let Some(subject) = subject() else { return };
    let centre = subject.centre_mm();
    let n = 128usize;
    let mut group = c.benchmark_group("phantom/at");
    group.throughput(Throughput::Elements((n * n) as u64));
    group.bench_function("cpu/sagittal_280mm", |b| {
        b.iter(|| {
            (0..n * n).fold(0.0f32, |sum, i| {
                let at = |i: usize| (i as f64 / n as f64 - 0.5) * 280.0;
                let p = [centre[0], centre[1] + at(i % n), centre[2] - at(i / n)];
                sum + subject.at(black_box(p.map(|v| v as f32))).pd
            })
        });
    });
    group.finish();
}

fn slice(c: &mut Criterion) {
    let (Some(subject), Some(one)) = (subject(), one_thread()) else {
        return;
    };
    let params = AcquireParams::default();
    let sequence = SequenceParams {
        matrix: [320, 320],
        n_slices: 1,
        ..SequenceParams::default()
    };
    let Ok(scan) = Scan::plan(&subject, &sequence, &params, "bench") else {
        return;
    };
    let mut group = c.benchmark_group("phantom/kspace");
    group.sample_size(10);
    group.throughput(Throughput::Elements(scan.n_readouts() as u64));
    group.bench_function("cpu/c16_320x320_slice", |b| {
        let run = || {
            scan.run(false, |a| {
                black_box(a);
                Ok::<_, Infallible>(())
            })
        };
        b.iter(|| one.install(run));
    });
    group.finish();
}

/// As `cauda simulate --dataset` makes one, without the file.
fn sample(c: &mut Criterion) {
    let (Some(subject), Some(one)) = (subject(), one_thread()) else {
        return;
    };
    let mm = 280.0 / 256.0;
    let tse = |contrast, tr_ms, echo: usize, etl| SequenceParams {
        contrast,
        tr_ms,
        echo_spacing_ms: 10.0,
        te_ms: 10.0 * echo as f64,
        echo_train_length: etl,
        refocusing_deg: 150.0,
        matrix: [256, 256],
        phase_oversampling: 0.0,
        n_slices: 5,
        bandwidth_hz_per_pixel: 300.0,
        ..SequenceParams::default()
    };
    let sequences = [
        tse(Contrast::T1w, 600.0, 1, 4),
        tse(Contrast::T2w, 3500.0, 10, 19),
        SequenceParams {
            ti_ms: Some(220.0),
            ..tse(Contrast::Stir, 4000.0, 6, 13)
        },
        SequenceParams {
            fat: FatParams {
                method: FatMethod::Chess,
                ..FatParams::default()
            },
            ..tse(Contrast::T2fs, 3500.0, 8, 15)
        },
    ];
    let block = Block {
        matrix: [5, 256, 256],
        voxel_mm: [4.0, mm, mm],
        centre_mm: subject.centre_mm(),
        axes: [[-1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]],
    };
    let mut group = c.benchmark_group("phantom/sample");
    group.sample_size(10);
    group.throughput(Throughput::Elements(5 * 256 * 256));
    group.bench_function("cpu/5x256x256_maps_and_scans", |b| {
        b.iter(|| one.install(|| scanned_maps(&subject, &block, (&sequences, 1.0), 7)));
    });
    group.bench_function("cpu/5x256x256_ct", |b| {
        b.iter(|| one.install(|| ct(&subject, &block, &CtParams::default())));
    });
    group.finish();
}

fn one_thread() -> Option<ThreadPool> {
    ThreadPoolBuilder::new().num_threads(1).build().ok()
}

criterion_group!(benches, trains, places, slice, sample);
criterion_main!(benches);
