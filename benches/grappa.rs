//! GRAPPA of a simulated slice: 5 x 4 window, R = 4, 24 calibration lines.
//!
//! `recon/grappa_unmix/cpu/..` unmixes folded images, `recon/grappa_fill/cpu/..` fills k-space; both calibrate and
//! combine in every run, as a scan does, and make the noise and g-factor maps.

#![allow(clippy::panic)]

use std::sync::Arc;

use cauda::data::{
    AcquisitionStamps, Calibration, Complex32, Frame, FrameKey, Geometry, KSpace, Line, Scan,
    ScanEncoding, Shape, Space,
};
use cauda::device::Device;
use cauda::num::fft::{Direction, fft2};
use cauda::num::rng::Rng;
use cauda::recon::grappa::Apply;
use cauda::recon::{Method, Recon, ReconParams};
use criterion::{Criterion, criterion_group, criterion_main};

const N: usize = 320;
const COILS: usize = 16;

/// An ellipse with holes seen by a ring of coils, with noise: the lines that `keep` wants.
fn scan_lines(keep: impl Fn(usize) -> bool) -> KSpace {
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

fn one_frame() -> (Scan, Frame) {
    let matrix = [N, N, 1];
    let space = Space {
        matrix,
        field_of_view_mm: [240.0; 3],
    };
    let scan = Scan {
        header: Arc::new(ismrmrd::Header::default()),
        encodings: vec![Some(ScanEncoding {
            encoded: space,
            recon_space: space,
            pe1_centre: N / 2,
            pe2_centre: 0,
            last_line: [None, None],
            first_line: [0, 0],
            acceleration: [4, 1],
            calibration: Calibration::Embedded,
            grid: matrix,
        })],
    };
    let frame = Frame {
        key: FrameKey::default(),
        kspace: scan_lines(|l| l % 4 == 0 || l.abs_diff(N / 2) < 12),
        reference: None,
        is_whitened: true,
        geometry: Geometry {
            matrix,
            voxel_mm: [0.75; 3],
            centre_mm: [0.0; 3],
            read_dir: [1.0, 0.0, 0.0],
            phase_dir: [0.0, 1.0, 0.0],
            slice_dir: [0.0, 0.0, 1.0],
        },
        table_position_mm: [0.0; 3],
        stamps: AcquisitionStamps::default(),
        notes: Vec::new(),
    };
    (scan, frame)
}

fn grappa(c: &mut Criterion) {
    let (scan, frame) = one_frame();
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
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = grappa
}
criterion_main!(benches);
