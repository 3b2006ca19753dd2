//! What several benches measure: a simulated slice, and a frame around k-space.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "every bench takes its part"
)]

use std::sync::Arc;

use cauda::data::{
    AcquisitionStamps, Calibration, Complex32, Frame, FrameKey, Geometry, KSpace, Line, Scan,
    ScanEncoding, Shape, Space,
};
use cauda::num::fft::{Direction, fft2};
use cauda::num::rng::Rng;

/// Matrix of the simulated slice.
pub const N: usize = 320;
pub const COILS: usize = 16;

/// An ellipse with holes seen by a ring of coils, with noise: the lines that `keep` wants.
pub fn scan(keep: impl Fn(usize) -> bool) -> KSpace {
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

/// `kspace` as the only frame of a scan whose header states an acceleration along pe1.
pub fn one_frame(kspace: KSpace, acceleration: usize) -> (Scan, Frame) {
    let shape = kspace.shape;
    let matrix = [shape.ro, shape.pe1, shape.pe2];
    let space = Space {
        matrix,
        field_of_view_mm: [240.0; 3],
    };
    let scan = Scan {
        header: Arc::new(ismrmrd::Header::default()),
        encodings: vec![Some(ScanEncoding {
            encoded: space,
            recon_space: space,
            pe1_centre: shape.pe1 / 2,
            pe2_centre: shape.pe2 / 2,
            last_line: [None, None],
            first_line: [0, 0],
            acceleration: [acceleration, 1],
            calibration: Calibration::Embedded,
            grid: matrix,
        })],
    };
    let frame = Frame {
        key: FrameKey::default(),
        kspace,
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
