//! GRAPPA of a simulated slice: 5 x 4 window, R = 4, 24 calibration lines.
//!
//! `recon/grappa_unmix/cpu/..` unmixes folded images, `recon/grappa_fill/cpu/..` fills k-space; both calibrate and
//! combine in every run, as a scan does, and make the noise and g-factor maps. With `_known` the weights are known from
//! the run before.

#![allow(clippy::panic)]

use cauda::device::Device;
use cauda::recon::grappa::Apply;
use cauda::recon::{Calibrations, Keep, Method, Recon, ReconParams};
use criterion::{Criterion, criterion_group, criterion_main};

mod support;
use support::{N, one_frame, scan};

fn grappa(c: &mut Criterion) {
    let (scan, frame) = one_frame(scan(|l| l % 4 == 0 || l.abs_diff(N / 2) < 12), 4);
    for (name, apply) in [
        ("grappa_unmix", Apply::Image),
        ("grappa_fill", Apply::Kspace),
    ] {
        let mut params = ReconParams {
            method: Method::Grappa,
            ..ReconParams::default()
        };
        params.grappa.apply = apply;
        let plan = Recon::plan(&scan, &frame, &params, &Device::detect())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        c.bench_function(&format!("recon/{name}/cpu/c16_320x320_r4_acs24"), |b| {
            b.iter(|| plan.run(&frame));
        });
        let known = Calibrations::new(Keep::FirstFrames, 1 << 30);
        c.bench_function(
            &format!("recon/{name}_known/cpu/c16_320x320_r4_acs24"),
            |b| {
                b.iter(|| plan.run_with(&frame, &known));
            },
        );
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = grappa
}
criterion_main!(benches);
