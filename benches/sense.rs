//! Sensitivity maps of a simulated scan: `recon/csm/cpu/c16_320x320_acs24` is what ESPIRiT peers are timed with.

use cauda::data::{Complex32, KSpace, Line, Shape};
use cauda::num::fft::{Direction, fft2};
use cauda::num::rng::Rng;
use cauda::recon::csm::{CsmParams, maps};
use cauda::recon::sense::{Lambda, Sense, SenseParams};
use criterion::{Criterion, criterion_group, criterion_main};

const N: usize = 320;
const COILS: usize = 16;

/// An ellipse with holes seen by a ring of coils, with noise: the lines that `keep` wants.
fn scan(keep: impl Fn(usize) -> bool) -> KSpace {
    let place = |i: usize| 2.0 * (i as f32 - (N / 2) as f32) / N as f32;
    let mut grid = vec![Complex32::ZERO; COILS * N * N];
    for i in 0..N * N {
        let (y, x) = (place(i / N), place(i % N));
        let inside = |cx: f32, cy: f32, a: f32, b: f32| {
            ((x - cx) / a).powi(2) + ((y - cy) / b).powi(2) < 1.0
        };
        if !inside(0.0, 0.0, 0.72, 0.88) {
            continue;
        }
        let mut m = 1.0;
        if inside(0.2, 0.1, 0.2, 0.35) {
            m -= 0.5;
        }
        if inside(-0.25, -0.3, 0.15, 0.2) {
            m += 0.7;
        }
        for c in 0..COILS {
            let angle = std::f32::consts::TAU * c as f32 / COILS as f32;
            let (dx, dy) = (x - 1.3 * angle.cos(), y - 1.3 * angle.sin());
            let phase = angle + 0.5 * (dx * angle.sin() - dy * angle.cos());
            grid[c * N * N + i] =
                Complex32::from_polar(30.0 * m / (dx * dx + dy * dy + 0.05), phase);
        }
    }
    fft2(&mut grid, N, N, Direction::Forward);
    let lines: Vec<Line> = (0..N as u32)
        .filter(|l| keep(*l as usize))
        .map(|pe1| Line {
            pe2: 0,
            pe1,
            averages: 1,
        })
        .collect();
    let mut rng = Rng::new(1);
    let samples = (0..COILS)
        .flat_map(|c| lines.iter().map(move |l| (c * N + l.pe1 as usize) * N))
        .flat_map(|row| row..row + N)
        .map(|i| grid[i] + rng.normal())
        .collect();
    KSpace {
        shape: Shape {
            coil: COILS,
            pe2: 1,
            pe1: N,
            ro: N,
        },
        lines,
        ro_range: 0..N,
        samples,
    }
}

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

criterion_group!(benches, csm, sense);
criterion_main!(benches);
