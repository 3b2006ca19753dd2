//! Sensitivity maps of a simulated scan: `recon/csm/cpu/c16_320x320_acs24` is what ESPIRiT peers are timed with. Solves,
//! and whole frames (`recon/sense_frame`).

use cauda::device::Device;
use cauda::recon::csm::{CsmParams, maps};
use cauda::recon::sense::{Lambda, Sense, SenseParams};
use cauda::recon::{Calibrations, Keep, Method, Recon, ReconParams};
use criterion::{Criterion, criterion_group, criterion_main};

mod support;
use support::{N, one_frame, scan};

fn csm(c: &mut Criterion) {
    let mut group = c.benchmark_group("recon/csm");
    group.sample_size(10);
    let scan = scan(|l| l % 4 == 0 || (N / 2 - 12..N / 2 + 12).contains(&l));
    let params = CsmParams::default();
    group.bench_function("cpu/c16_320x320_acs24", |b| {
        b.iter(|| maps(&scan, [1, N, N], &params));
    });
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    if let Ok(one) = one {
        group.bench_function("cpu/c16_320x320_acs24/1_thread", |b| {
            b.iter(|| one.install(|| maps(&scan, [1, N, N], &params)));
        });
    }
    group.finish();
}

/// Solves: lattice with calibration lines (the clinical case), a lattice alone, and an irregular mask.
fn sense(c: &mut Criterion) {
    let mut group = c.benchmark_group("recon/sense");
    group.sample_size(10);
    let centre = |l: usize| (N / 2 - 12..N / 2 + 12).contains(&l);
    let calibration = scan(centre);
    let Ok(csm) = maps(&calibration, [1, N, N], &CsmParams::default()) else {
        return;
    };
    let loud = SenseParams {
        lambda: Lambda::Fixed(3e-2),
        ..SenseParams::default()
    };
    let quiet = SenseParams {
        noise_map: false,
        ..loud.clone()
    };
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let masks: [(&str, &dyn Fn(usize) -> bool); 3] = [
        ("r4_acs24", &|l| l % 4 == 0 || centre(l)),
        ("r4", &|l| l % 4 == 0),
        ("irregular", &|l| (l * l + 3 * l) % 11 < 3 || centre(l)),
    ];
    for (name, mask) in masks {
        let scan = scan(mask);
        for (kind, params) in [("image", &quiet), ("noise", &loud)] {
            let Ok(plan) = Sense::plan(&scan, params) else {
                continue;
            };
            group.bench_function(format!("cpu/c16_320x320_{name}/{kind}"), |b| {
                b.iter(|| plan.run(&scan, &csm))
            });
            if let (Ok(one), "image") = (&one, kind) {
                group.bench_function(format!("cpu/c16_320x320_{name}/{kind}/1_thread"), |b| {
                    b.iter(|| one.install(|| plan.run(&scan, &csm)));
                });
            }
        }
    }
    group.finish();
}

/// A whole frame, maps fitted in every run or known from the run before.
fn frame(c: &mut Criterion) {
    let mut group = c.benchmark_group("recon/sense_frame");
    group.sample_size(10);
    let (scan, frame) = one_frame(scan(|l| l % 4 == 0 || l.abs_diff(N / 2) < 12), 4);
    let params = ReconParams {
        method: Method::Sense,
        ..ReconParams::default()
    };
    let Ok(plan) = Recon::plan(&scan, &frame, &params, &Device::detect()) else {
        return;
    };
    group.bench_function("cpu/c16_320x320_r4_acs24", |b| {
        b.iter(|| plan.run(&frame));
    });
    let known = Calibrations::new(Keep::FirstFrames, 1 << 30);
    group.bench_function("cpu/c16_320x320_r4_acs24/known", |b| {
        b.iter(|| plan.run_with(&frame, &known));
    });
    group.finish();
}

criterion_group!(benches, csm, sense, frame);
criterion_main!(benches);
