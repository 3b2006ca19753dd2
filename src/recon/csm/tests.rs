//! Maps against the sensitivities that made the data, against the exact evaluation, and the laws they must obey.

use num_complex::Complex32;

use super::{CsmError, CsmMethod, CsmParams, espirit, maps};
use crate::data::{Csm, KSpace, Line, Shape};
use crate::num::fft::{Direction, fft3};
use crate::num::rng::Rng;
use crate::num::testing::{assert_same_on_any_threads, nrmse};

/// An object and the sensitivities of a ring of coils around it, unit norm over the coils: `[coil, z, y, x]`.
pub(crate) struct Phantom {
    pub(crate) matrix: [usize; 3],
    pub(crate) n_coils: usize,
    pub(crate) object: Vec<Complex32>,
    pub(crate) sensitivities: Vec<Complex32>,
}

impl Phantom {
    pub(crate) fn new(n_coils: usize, matrix: [usize; 3]) -> Self {
        let [nz, ny, nx] = matrix;
        let n = nz * ny * nx;
        let place = |i: usize, n: usize| {
            if n == 1 {
                0.0
            } else {
                2.0 * (i as f64 - (n / 2) as f64) / n as f64
            }
        };
        let mut object = vec![Complex32::ZERO; n];
        let mut sensitivities = vec![Complex32::ZERO; n_coils * n];
        for i in 0..n {
            let (z, y, x) = (
                place(i / (ny * nx), nz),
                place(i / nx % ny, ny),
                place(i % nx, nx),
            );
            let inside = |cx: f64, cy: f64, a: f64, b: f64| {
                ((x - cx) / a).powi(2) + ((y - cy) / b).powi(2) + (z / 0.85).powi(2) < 1.0
            };
            let mut v = 0.0;
            if inside(0.0, 0.0, 0.72, 0.88) {
                v += 1.0;
            }
            if inside(0.2, 0.1, 0.2, 0.35) {
                v -= 0.5;
            }
            if inside(-0.25, -0.3, 0.15, 0.2) {
                v += 0.7;
            }
            let phase = 0.6 * x - 0.4 * y + 0.2 * z;
            object[i] = Complex32::from_polar(v as f32, phase as f32);
            let mut power = 0.0;
            for c in 0..n_coils {
                let angle = std::f64::consts::TAU * c as f64 / n_coils as f64;
                let height = if nz == 1 {
                    0.0
                } else {
                    0.6 * ((c % 2) as f64 * 2.0 - 1.0)
                };
                let (dx, dy, dz) = (x - 1.3 * angle.cos(), y - 1.3 * angle.sin(), z - height);
                let distance2 = dx * dx + dy * dy + dz * dz + 0.05;
                let s = Complex32::from_polar(
                    (1.0 / distance2) as f32,
                    (angle + 0.5 * (dx * angle.sin() - dy * angle.cos())) as f32,
                );
                sensitivities[c * n + i] = s;
                power += f64::from(s.norm_sqr());
            }
            for c in 0..n_coils {
                sensitivities[c * n + i] /= power.sqrt() as f32;
            }
        }
        Self {
            matrix,
            n_coils,
            object,
            sensitivities,
        }
    }

    /// The lines for which `keep(pe2, pe1)`, with noise of standard deviation `noise` per component.
    pub(crate) fn scan(
        &self,
        keep: impl Fn(usize, usize) -> bool,
        noise: f32,
        seed: u64,
    ) -> KSpace {
        let [nz, ny, nx] = self.matrix;
        let n = self.object.len();
        let mut grid: Vec<Complex32> = self
            .sensitivities
            .chunks_exact(n)
            .flat_map(|s| s.iter().zip(&self.object).map(|(s, m)| s * m))
            .collect();
        fft3(&mut grid, nz, ny, nx, Direction::Forward);
        let shape = Shape {
            coil: self.n_coils,
            pe2: nz,
            pe1: ny,
            ro: nx,
        };
        let lines: Vec<Line> = (0..nz * ny)
            .filter(|i| keep(i / ny, i % ny))
            .map(|i| Line {
                pe2: (i / ny) as u32,
                pe1: (i % ny) as u32,
                averages: 1,
            })
            .collect();
        let mut rng = Rng::new(seed);
        let mut samples = Vec::with_capacity(self.n_coils * lines.len() * nx);
        for coil in 0..self.n_coils {
            for line in &lines {
                let row = ((coil * nz + line.pe2 as usize) * ny + line.pe1 as usize) * nx;
                samples.extend(grid[row..row + nx].iter().map(|v| v + rng.normal() * noise));
            }
        }
        KSpace {
            shape,
            lines,
            ro_range: 0..nx,
            samples,
        }
    }
}

/// Smallest `|<map, sensitivity>|` over voxels of the object that the map keeps, and how many of them it drops.
fn agreement(csm: &Csm, phantom: &Phantom) -> (f32, usize) {
    let n = phantom.object.len();
    let (mut least, mut dropped) = (1.0f32, 0);
    for i in (0..n).filter(|i| phantom.object[*i].norm() > 0.1) {
        let vectors =
            || (0..csm.n_coils).map(|c| (csm.maps[c * n + i], phantom.sensitivities[c * n + i]));
        let inner: Complex32 = vectors().map(|(a, b)| a.conj() * b).sum();
        let norm: f32 = vectors().map(|(a, _)| a.norm_sqr()).sum();
        if norm < 0.5 {
            dropped += 1;
        } else {
            assert!((norm - 1.0).abs() < 1e-4);
            least = least.min(inner.norm());
        }
    }
    (least, dropped)
}

fn calibration_only(n: usize) -> impl Fn(usize, usize) -> bool {
    move |_, pe1| pe1 >= n / 2 - 12 && pe1 < n / 2 + 12
}

#[test]
fn espirit_finds_the_sensitivities() {
    let phantom = Phantom::new(6, [1, 60, 64]);
    let scan = phantom.scan(calibration_only(60), 0.0, 1);
    let csm = maps(&scan, phantom.matrix, &CsmParams::default()).unwrap();
    let (least, dropped) = agreement(&csm, &phantom);
    assert!(least > 0.985 && dropped < 60, "{least} {dropped}");
    // Outside the object there is nothing to say.
    let n = phantom.object.len();
    assert!(csm.maps[3] == Complex32::ZERO && csm.maps[n - 3] == Complex32::ZERO);
    // Wrong twin: conjugated maps belong to another scan.
    let mut wrong = csm;
    wrong.maps.iter_mut().for_each(|v| *v = v.conj());
    assert!(agreement(&wrong, &phantom).0 < 0.9);
}

#[test]
fn coarse_grid_agrees_with_every_voxel_evaluated() {
    let phantom = Phantom::new(9, [1, 126, 131]);
    let scan = phantom.scan(calibration_only(126), 0.02, 1);
    let params = CsmParams::default();
    let coarse = espirit::maps(&scan, phantom.matrix, &params, espirit::Grid::Coarse).unwrap();
    let full = espirit::maps(&scan, phantom.matrix, &params, espirit::Grid::Full).unwrap();
    let n = phantom.object.len();
    let kept = |csm: &Csm, i: usize| (0..9).any(|c| csm.maps[c * n + i] != Complex32::ZERO);
    let both: Vec<usize> = (0..n)
        .filter(|i| kept(&coarse, *i) && kept(&full, *i))
        .collect();
    let either = (0..n)
        .filter(|i| kept(&coarse, *i) != kept(&full, *i))
        .count();
    let pick = |csm: &Csm| -> Vec<Complex32> {
        both.iter()
            .flat_map(|i| (0..9).map(move |c| csm.maps[c * n + i]))
            .collect()
    };
    let error = nrmse(&pick(&coarse), &pick(&full));
    println!(
        "coarse against full: NRMSE {error:.2e}, {} voxels, masks differ in {either}",
        both.len()
    );
    assert!(both.len() > n / 3);
    assert!(error < 2e-3, "{error}");
    assert!(either < both.len() / 200, "{either}");
}

#[test]
fn walsh_and_inati_find_the_sensitivities() {
    let phantom = Phantom::new(5, [1, 60, 64]);
    let scan = phantom.scan(calibration_only(60), 0.0, 1);
    for (method, needed) in [(CsmMethod::Walsh, 0.97), (CsmMethod::Inati, 0.97)] {
        let params = CsmParams {
            method,
            ..CsmParams::default()
        };
        let csm = maps(&scan, phantom.matrix, &params).unwrap();
        let (least, dropped) = agreement(&csm, &phantom);
        assert!(
            least > needed && dropped == 0,
            "{method:?}: {least} {dropped}"
        );
    }
}

#[test]
fn all_methods_take_a_volume() {
    let phantom = Phantom::new(4, [14, 18, 16]);
    let scan = phantom.scan(|_, _| true, 0.0, 1);
    for method in [CsmMethod::Espirit, CsmMethod::Walsh, CsmMethod::Inati] {
        let params = CsmParams {
            method,
            calibration: 12,
            window: 4,
            block: 3,
            ..CsmParams::default()
        };
        let csm = maps(&scan, phantom.matrix, &params).unwrap();
        let (least, dropped) = agreement(&csm, &phantom);
        assert!(
            least > 0.95 && dropped < 150,
            "{method:?}: {least} {dropped}"
        );
    }
}

#[test]
fn two_sets_hold_both_voxels_of_a_fold() {
    // The object lies in a field of view of half its height: voxel y carries y and y + n/2 of the phantom.
    let phantom = Phantom::new(8, [1, 96, 64]);
    let (ny, nx, n_coils) = (48, 64, 8);
    let mut folded = vec![Complex32::ZERO; n_coils * ny * nx];
    let mut vectors = vec![Complex32::ZERO; 2 * n_coils * ny * nx];
    for c in 0..n_coils {
        for y in 0..96 {
            for x in 0..nx {
                let from = (c * 96 + y) * nx + x;
                let image = phantom.sensitivities[from] * phantom.object[y * nx + x];
                // Centred: row 24 of the fold is row 48 of the phantom.
                let to = (y + 96 - 24) % ny;
                folded[(c * ny + to) * nx + x] += image;
                vectors[(((y / ny) * n_coils + c) * ny + to) * nx + x] =
                    phantom.sensitivities[from];
            }
        }
    }
    let mut grid = folded.clone();
    fft3(&mut grid, 1, ny, nx, Direction::Forward);
    let scan = KSpace {
        shape: Shape {
            coil: n_coils,
            pe2: 1,
            pe1: ny,
            ro: nx,
        },
        lines: (0..ny as u32)
            .map(|pe1| Line {
                pe2: 0,
                pe1,
                averages: 1,
            })
            .collect(),
        ro_range: 0..nx,
        samples: grid,
    };
    // How much of the sensitivities of both voxels of a fold the maps span, where both hold signal (median).
    let spanned = |n_sets: usize| {
        let params = CsmParams {
            n_sets,
            crop: 0.5,
            ..CsmParams::default()
        };
        let csm = maps(&scan, [1, ny, nx], &params).unwrap();
        let n = ny * nx;
        let mut values = Vec::new();
        for y in 0..ny {
            // Rows of the phantom that lie on row y of the fold.
            let rows = [(y + 24) % ny, (y + 24) % ny + ny];
            for x in 0..nx {
                if rows.iter().any(|r| phantom.object[r * nx + x].norm() < 0.1) {
                    continue;
                }
                for half in 0..2 {
                    let power: f32 = (0..n_sets)
                        .map(|set| {
                            let inner: Complex32 = (0..n_coils)
                                .map(|c| {
                                    let v = vectors[((half * n_coils + c) * ny + y) * nx + x];
                                    csm.maps[(set * n_coils + c) * n + y * nx + x].conj() * v
                                })
                                .sum();
                            inner.norm_sqr()
                        })
                        .sum();
                    values.push(power);
                }
            }
        }
        values.sort_by(f32::total_cmp);
        values[values.len() / 2]
    };
    let (one, two) = (spanned(1), spanned(2));
    assert!(two > 0.95, "{two}");
    assert!(one < 0.85, "{one}");
}

#[test]
fn coil_order_and_phase_do_not_change_the_combined_magnitude() {
    let phantom = Phantom::new(5, [1, 48, 50]);
    let scan = phantom.scan(|_, _| true, 0.01, 1);
    let n = scan.shape.plane();
    let combined = |scan: &KSpace| -> Vec<Complex32> {
        let csm = maps(scan, phantom.matrix, &CsmParams::default()).unwrap();
        let mut images = scan.to_grid();
        fft3(&mut images, 1, 48, 50, Direction::Inverse);
        (0..n)
            .map(|i| {
                let v: Complex32 = (0..5)
                    .map(|c| csm.maps[c * n + i].conj() * images[c * n + i])
                    .sum();
                Complex32::new(v.norm(), 0.0)
            })
            .collect()
    };
    let mut turned = scan.clone();
    for (to, from) in [3, 0, 4, 1, 2].into_iter().enumerate() {
        let phase = Complex32::from_polar(1.0, from as f32);
        for i in 0..n {
            turned.samples[to * n + i] = scan.samples[from * n + i] * phase;
        }
    }
    assert!(nrmse(&combined(&turned), &combined(&scan)) < 1e-3);
}

#[test]
fn threads_do_not_change_a_bit() {
    let phantom = Phantom::new(5, [1, 100, 104]);
    let scan = phantom.scan(calibration_only(100), 0.01, 1);
    for method in [CsmMethod::Espirit, CsmMethod::Walsh, CsmMethod::Inati] {
        let params = CsmParams {
            method,
            window: 5,
            ..CsmParams::default()
        };
        assert_same_on_any_threads(|| maps(&scan, phantom.matrix, &params).unwrap().maps);
    }
}

#[test]
fn bad_input_is_named() {
    let phantom = Phantom::new(3, [1, 32, 32]);
    let params = CsmParams::default();
    let few = phantom.scan(|_, pe1| (14..19).contains(&pe1), 0.0, 1);
    assert_eq!(
        maps(&few, phantom.matrix, &params).unwrap_err(),
        CsmError::AcsTooSmall {
            axis: "pe1",
            needed: 8,
            found: 5
        }
    );
    let off_centre = phantom.scan(|_, pe1| pe1 < 14, 0.0, 1);
    assert!(matches!(
        maps(&off_centre, phantom.matrix, &params),
        Err(CsmError::AcsTooSmall {
            axis: "pe2",
            found: 0,
            ..
        } | CsmError::AcsTooSmall {
            axis: "pe1",
            found: 0,
            ..
        })
    ));
    let mut bad = phantom.scan(|_, _| true, 0.0, 1);
    bad.samples[16 * 32 + 16] = Complex32::new(f32::NAN, 0.0);
    assert!(matches!(
        maps(&bad, phantom.matrix, &params),
        Err(CsmError::NotFinite { count: 1, .. })
    ));
    bad.samples.fill(Complex32::ZERO);
    assert!(matches!(
        maps(&bad, phantom.matrix, &params),
        Err(CsmError::NoSignal { .. })
    ));
    let three = CsmParams {
        n_sets: 3,
        ..params
    };
    assert!(matches!(
        maps(&bad, phantom.matrix, &three),
        Err(CsmError::BadParam { name: "n_sets", .. })
    ));
}

#[test]
fn short_echo_side_shortens_the_block() {
    let phantom = Phantom::new(3, [1, 32, 64]);
    let mut scan = phantom.scan(|_, _| true, 0.0, 1);
    scan.ro_range = 25..64;
    let block = super::Calibration::extract(&scan, 24).unwrap();
    assert_eq!(block.dims, [1, 24, 15]);
    // DC of the grid is DC of the block.
    let at = block.samples[12 * 15 + 7];
    assert_eq!(at, scan.line(0, 16)[32]);
}

#[test]
fn unknown_keys_are_refused() {
    assert!(serde_json::from_str::<CsmParams>(r#"{"method": "walsh", "block": 5}"#).is_ok());
    assert!(serde_json::from_str::<CsmParams>(r#"{"kernal": 5}"#).is_err());
}

/// Writes BART's `.cfl` and `.hdr`, first dimension fastest.
fn write_cfl(base: &std::path::Path, dims: &[usize], data: &[Complex32]) {
    let text: Vec<String> = dims.iter().map(ToString::to_string).collect();
    std::fs::write(
        base.with_extension("hdr"),
        format!("# Dimensions\n{}\n", text.join(" ")),
    )
    .unwrap();
    std::fs::write(
        base.with_extension("cfl"),
        bytemuck::cast_slice::<Complex32, u8>(data),
    )
    .unwrap();
}

#[test]
fn espirit_agrees_with_bart_where_it_is_installed() {
    let phantom = Phantom::new(8, [1, 120, 128]);
    let scan = phantom.scan(|_, _| true, 0.02, 1);
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("kspace"), dir.path().join("maps"));
    // BART: readout, pe1, pe2, coil.
    write_cfl(&input, &[128, 120, 1, 8], &scan.to_grid());
    let run = std::process::Command::new("bart")
        .args(["ecalib", "-m1", "-r24"])
        .args([&input, &output])
        .output();
    if !run.is_ok_and(|r| r.status.success()) {
        println!("skipped: no BART here");
        return;
    }
    let bytes = std::fs::read(output.with_extension("cfl")).unwrap();
    let theirs: Vec<Complex32> = bytes
        .chunks_exact(8)
        .map(|b| {
            let part = |i: usize| f32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
            Complex32::new(part(0), part(4))
        })
        .collect();
    let ours = maps(&scan, phantom.matrix, &CsmParams::default())
        .unwrap()
        .maps;
    let n = phantom.object.len();
    let kept = |m: &[Complex32], i: usize| (0..8).any(|c| m[c * n + i] != Complex32::ZERO);
    let (mut error, mut both, mut either, mut common) = (0.0, 0usize, 0usize, Complex32::ZERO);
    let mut from_truth = [0.0f64; 2];
    let mut inners = Vec::new();
    for i in 0..n {
        match (kept(&ours, i), kept(&theirs, i)) {
            (true, true) => {
                both += 1;
                let inner = |a: &[Complex32], b: &[Complex32]| -> Complex32 {
                    (0..8).map(|c| a[c * n + i].conj() * b[c * n + i]).sum()
                };
                let norm = inner(&theirs, &theirs).re.sqrt();
                let between = inner(&theirs, &ours) / norm;
                // Distance of unit vectors up to a common phase.
                let distance = |inner: f32| f64::from((2.0 - 2.0 * inner).max(0.0));
                error += distance(between.norm());
                from_truth[0] += distance(inner(&phantom.sensitivities, &ours).norm());
                from_truth[1] += distance(inner(&phantom.sensitivities, &theirs).norm() / norm);
                common += between;
                inners.push(between);
            }
            (false, false) => {}
            _ => either += 1,
        }
    }
    // The virtual coil is known up to one phase for the whole image.
    let phase_error = inners
        .iter()
        .map(|v| (v * common.conj()).arg().abs())
        .sum::<f32>()
        / both as f32;
    let from_truth = from_truth.map(|e| (e / both as f64).sqrt());
    let error = (error / both as f64).sqrt();
    println!(
        "against BART: NRMSE {error:.2e}, phase {phase_error:.2e} rad, {both} voxels, masks differ in {either}; \
         from the truth: {from_truth:?}"
    );
    // BART stops its orthogonal iteration after 30 steps whatever the gap between the eigenvalues.
    assert!(error < 4e-2, "{error}");
    assert!(phase_error < 2e-3, "{phase_error}");
    assert!(either < both / 50, "{either} of {both}");
}
