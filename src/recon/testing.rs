//! Simulated frames for this room's tests: ellipses, smooth coils, white noise, any mask.

use std::sync::Arc;

use num_complex::Complex32;

use crate::data::{
    AcquisitionStamps, Calibration, Frame, FrameKey, Geometry, KSpace, Line, Scan, ScanEncoding,
    Shape, Space,
};
use crate::num::fft::{Direction, fft3};
use crate::num::rng::Rng;

/// An object with its coils on a grid.
pub(crate) struct Sim {
    pub(crate) shape: Shape,
    /// Coil images, `[coil, z, y, x]`.
    pub(crate) coil_images: Vec<Complex32>,
    /// Root sum of squares over the coils: what a noise-free combination shows.
    pub(crate) truth: Vec<f32>,
    /// Where the object is.
    pub(crate) inside: Vec<bool>,
    /// `[coil, pe2, pe1, ro]`, noise-free.
    pub(crate) kspace: Vec<Complex32>,
}

impl Sim {
    /// Ellipses with structure and a smooth phase, seen by coils on a ring; signal about `level` in units of noise.
    pub(crate) fn new(coil: usize, nz: usize, ny: usize, nx: usize, level: f32) -> Self {
        let shape = Shape {
            coil,
            pe2: nz,
            pe1: ny,
            ro: nx,
        };
        let plane = shape.plane();
        let mut coil_images = vec![Complex32::ZERO; shape.len()];
        let mut truth = vec![0.0f32; plane];
        let mut inside = vec![false; plane];
        let at = |i: usize, n: usize| {
            if n == 1 {
                0.0
            } else {
                2.0 * (i as f32 - (n / 2) as f32) / n as f32
            }
        };
        for i in 0..plane {
            let (z, y, x) = (at(i / (ny * nx), nz), at(i / nx % ny, ny), at(i % nx, nx));
            let ellipse = |cz: f32, cy: f32, cx: f32, rz: f32, ry: f32, rx: f32| {
                ((z - cz) / rz).powi(2) + ((y - cy) / ry).powi(2) + ((x - cx) / rx).powi(2) < 1.0
            };
            inside[i] = ellipse(0.0, 0.0, 0.0, 0.9, 0.82, 0.7);
            let mut v = 0.0;
            if inside[i] {
                v += 1.0;
            }
            if ellipse(0.0, 0.25, 0.2, 0.6, 0.25, 0.2) {
                v -= 0.5;
            }
            if ellipse(0.1, -0.3, -0.1, 0.5, 0.2, 0.35) {
                v += 0.6;
            }
            if ellipse(0.0, 0.1, -0.35, 0.4, 0.4, 0.1) {
                v -= 0.3;
            }
            let object = Complex32::from_polar(v * level, 0.8 * x - 0.6 * y * y + 0.4 * z);
            for c in 0..coil {
                let angle = std::f32::consts::TAU * c as f32 / coil as f32;
                let height = if nz == 1 {
                    0.0
                } else {
                    if c % 2 == 0 { 0.6 } else { -0.6 }
                };
                let (dy, dx, dz) = (y - 1.2 * angle.sin(), x - 1.1 * angle.cos(), z - height);
                let d2 = dy * dy + dx * dx + dz * dz;
                let map = Complex32::from_polar(
                    1.0 / (0.25 + d2),
                    0.9 * angle + 0.5 * dx * angle.sin() - 0.4 * dy,
                );
                coil_images[c * plane + i] = object * map;
                truth[i] += (object * map).norm_sqr();
            }
        }
        truth.iter_mut().for_each(|v| *v = v.sqrt());
        let mut kspace = coil_images.clone();
        fft3(&mut kspace, nz, ny, nx, Direction::Forward);
        Self {
            shape,
            coil_images,
            truth,
            inside,
            kspace,
        }
    }

    /// Lines for which `mask(pe2, pe1)`, with white noise of standard deviation `noise` per component.
    pub(crate) fn frame(
        &self,
        mask: impl Fn(usize, usize) -> bool,
        noise: f32,
        seed: u64,
    ) -> Frame {
        self.frame_ro(mask, 0..self.shape.ro, noise, seed)
    }

    /// As [`Sim::frame`], with a part of the readout only.
    pub(crate) fn frame_ro(
        &self,
        mask: impl Fn(usize, usize) -> bool,
        ro_range: std::ops::Range<usize>,
        noise: f32,
        seed: u64,
    ) -> Frame {
        let shape = self.shape;
        let mut rng = Rng::new(seed);
        let mut lines = Vec::new();
        for k2 in 0..shape.pe2 {
            for k1 in 0..shape.pe1 {
                if mask(k2, k1) {
                    lines.push(Line {
                        pe2: k2 as u32,
                        pe1: k1 as u32,
                        averages: 1,
                    });
                }
            }
        }
        let mut samples = Vec::with_capacity(shape.coil * lines.len() * shape.ro);
        for coil in 0..shape.coil {
            for line in &lines {
                let row = (coil * shape.pe2 + line.pe2 as usize) * shape.pe1 + line.pe1 as usize;
                for (k, v) in self.kspace[row * shape.ro..(row + 1) * shape.ro]
                    .iter()
                    .enumerate()
                {
                    let n = if noise > 0.0 {
                        rng.normal() * noise
                    } else {
                        Complex32::ZERO
                    };
                    samples.push(if ro_range.contains(&k) {
                        v + n
                    } else {
                        Complex32::ZERO
                    });
                }
            }
        }
        frame_of(KSpace {
            shape,
            lines,
            ro_range,
            samples,
        })
    }
}

/// A frame around a k-space, 1 mm voxels, image on the same grid.
pub(crate) fn frame_of(kspace: KSpace) -> Frame {
    let shape = kspace.shape;
    Frame {
        key: FrameKey::default(),
        kspace,
        reference: None,
        is_whitened: true,
        geometry: Geometry {
            matrix: [shape.ro, shape.pe1, shape.pe2],
            voxel_mm: [1.0; 3],
            centre_mm: [0.0; 3],
            read_dir: [1.0, 0.0, 0.0],
            phase_dir: [0.0, 1.0, 0.0],
            slice_dir: [0.0, 0.0, 1.0],
        },
        table_position_mm: [0.0; 3],
        stamps: AcquisitionStamps::default(),
        notes: Vec::new(),
    }
}

/// A scan whose grid is that of the frames, 1 mm voxels.
pub(crate) fn scan_of(shape: Shape) -> Scan {
    let matrix = [shape.ro, shape.pe1, shape.pe2];
    let space = Space {
        matrix,
        field_of_view_mm: matrix.map(|n| n as f32),
    };
    Scan {
        header: Arc::new(ismrmrd::Header::default()),
        encodings: vec![Some(ScanEncoding {
            encoded: space,
            recon_space: space,
            pe1_centre: shape.pe1 / 2,
            pe2_centre: shape.pe2 / 2,
            last_line: [None; 2],
            first_line: [0; 2],
            acceleration: [1; 2],
            calibration: Calibration::Embedded,
            grid: matrix,
        })],
    }
}

/// Error of a magnitude image inside the object, after fitting one scale.
pub(crate) fn error_inside(voxels: &[Complex32], truth: &[f32], inside: &[bool]) -> f64 {
    let pairs: Vec<(f64, f64)> = voxels
        .iter()
        .zip(truth)
        .zip(inside)
        .filter(|(_, i)| **i)
        .map(|((v, t), _)| (f64::from(v.norm()), f64::from(*t)))
        .collect();
    let scale = pairs.iter().map(|(v, t)| v * t).sum::<f64>()
        / pairs.iter().map(|(v, _)| v * v).sum::<f64>();
    let error: f64 = pairs.iter().map(|(v, t)| (scale * v - t).powi(2)).sum();
    (error / pairs.iter().map(|(_, t)| t * t).sum::<f64>()).sqrt()
}
