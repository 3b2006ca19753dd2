//! Whole scans against sums by hand.

use std::f64::consts::TAU;

use ismrmrd::{Acquisition, AcquisitionFlag as Flag};
use num_complex::{Complex32, Complex64};

use super::kspace::Space;
use super::*;
use crate::phantom::{Structure, Tissue};
use crate::sequence::{
    AccelerationParams, FAT_PEAKS, HYDROGEN_HZ_PER_T, Order, PhaseDirection, Plane, SequenceParams,
    Train,
};

/// A box or an ellipsoid: `(centre, half axes, is box, material, pd, fat fraction)`.
pub(super) type Shape = ([f32; 3], [f32; 3], bool, u8, f32, f32);

/// The last shape that holds a place wins.
pub(super) struct Bodies {
    shapes: Vec<Shape>,
    pub(super) materials: Vec<Material>,
    pub(super) ppm: f32,
    extent: [[f32; 2]; 3],
    structure: Structure,
}

impl Bodies {
    pub(super) fn new(shapes: Vec<Shape>) -> Self {
        let of = |tissue, t1, t2| Material {
            tissue,
            pd: 1.0,
            fat_fraction: 0.0,
            water_t1_ms: t1,
            water_t2_ms: t2,
            water_t2star_ms: t2 / 2.0,
            hu: 50.0,
        };
        Self {
            shapes,
            materials: vec![
                of(Tissue::Air, 0.0, 0.0),
                of(Tissue::Muscle, 1250.0, 38.0),
                of(Tissue::Csf, 4300.0, 1600.0),
                of(Tissue::Fat, 1100.0, 35.0),
            ],
            ppm: 0.0,
            extent: [[-62.0, 62.0], [-47.0, 47.0], [-80.0, 80.0]],
            structure: Structure::OtherMuscle,
        }
    }

    /// Muscle with fluid and fat in it.
    pub(super) fn trunk() -> Self {
        Self::new(vec![
            ([0.0, 0.0, 0.0], [60.0, 45.0, 400.0], false, 1, 0.8, 0.1),
            ([5.0, 12.0, 0.0], [12.0, 10.0, 400.0], false, 2, 1.0, 0.0),
            (
                [-20.0, -10.0, 10.0],
                [14.0, 12.0, 30.0],
                false,
                3,
                0.95,
                0.95,
            ),
        ])
    }
}

impl Matter for Bodies {
    fn at(&self, p: [f32; 3]) -> Voxel {
        let mut out = Voxel::default();
        for (c, h, is_box, material, pd, fat_fraction) in &self.shapes {
            let u: [f32; 3] = std::array::from_fn(|i| (p[i] - c[i]) / h[i]);
            let is_in = if *is_box {
                u.iter().all(|u| u.abs() <= 1.0)
            } else {
                u.iter().map(|u| u * u).sum::<f32>() <= 1.0
            };
            if is_in {
                out = Voxel {
                    material: *material,
                    structure: self.structure,
                    hu: self.materials[usize::from(*material)].hu,
                    pd: *pd,
                    fat_fraction: *fat_fraction,
                    ..Voxel::default()
                };
            }
        }
        out
    }

    fn materials(&self) -> &[Material] {
        &self.materials
    }

    fn fat_t1_t2_ms(&self) -> [f64; 2] {
        [350.0, 110.0]
    }

    fn field_ppm(&self, _: [f32; 3]) -> f32 {
        self.ppm
    }

    fn extent_mm(&self) -> [[f32; 2]; 3] {
        self.extent
    }

    fn centre_mm(&self) -> [f64; 3] {
        [1.0, 2.0, 0.0]
    }
}

pub(super) fn small() -> SequenceParams {
    SequenceParams {
        plane: Plane::Axial,
        phase: PhaseDirection::AnteriorPosterior,
        tr_ms: 2000.0,
        te_ms: 30.0,
        echo_spacing_ms: 10.0,
        echo_train_length: 6,
        refocusing_deg: 150.0,
        matrix: [32, 24],
        fov_mm: [160.0, 120.0],
        phase_oversampling: 0.0,
        bandwidth_hz_per_pixel: 260.0,
        n_slices: 1,
        slice_thickness_mm: 4.0,
        ..SequenceParams::default()
    }
}

fn quiet() -> AcquireParams {
    AcquireParams {
        n_coils: 3,
        snr: 1e5,
        n_depths: 1,
        n_noise_readouts: 4,
        motion: MotionParams::none(),
        ..AcquireParams::default()
    }
}

fn readouts<M: Matter>(scan: &Scan<'_, M>) -> Vec<Acquisition> {
    let mut all = Vec::new();
    scan.run(false, |a| {
        all.push(a);
        Ok::<(), std::convert::Infallible>(())
    })
    .unwrap();
    all
}

/// Every readout's samples by a direct sum over the fine raster, with exact trains and sensitivities: no basis, no
/// transform, no interpolation.
fn plain(
    body: &Bodies,
    s: &SequenceParams,
    scan: &Scan<'_, Bodies>,
    echo_of: impl Fn(usize) -> usize,
    fat_shifts: f64,
    b1: impl Fn([f64; 3]) -> f64,
) -> Vec<Vec<Vec<Complex64>>> {
    let train = Train::plan(s).unwrap();
    let order = Order::plan(s).unwrap();
    let space: &Space = scan.space();
    let [nx, ny, nz] = space.n;
    let (fx, fy) = (
        super::fourier::good_size(2 * nx),
        super::fourier::good_size(2 * ny),
    );
    let fz = if nz > 1 { 2 * nz } else { 1 };
    let centre = body.centre_mm();
    let hz = s.field_strength_t * HYDROGEN_HZ_PER_T * 1e-6;
    let unit = (nx * ny * nz) as f64 / (fx * fy * fz) as f64 / ((nx * ny * nz) as f64).sqrt();
    let mut points = Vec::new();
    for z in 0..fz {
        for y in 0..fy {
            for x in 0..fx {
                let u = [
                    (x as f64 - (fx / 2) as f64) / fx as f64,
                    (y as f64 - (fy / 2) as f64) / fy as f64,
                    (z as f64 - (fz / 2) as f64) / fz as f64,
                ];
                let p: [f64; 3] = std::array::from_fn(|i| {
                    centre[i]
                        + u[0] * space.fov_mm[0] * space.read[i]
                        + u[1] * space.fov_mm[1] * space.phase[i]
                        + u[2] * space.fov_mm[2] * space.slice[i]
                });
                let v = body.at(p.map(|v| v as f32));
                let slab = s.n_partitions as f64 * s.slice_thickness_mm;
                let share = super::scan::profile(u[2] * space.fov_mm[2] / slab);
                if v.pd > 0.0 && share > 0.0 {
                    let m = &body.materials[usize::from(v.material)];
                    let water: Vec<f64> = train
                        .echoes(m.water_t1_ms.into(), m.water_t2_ms.into(), b1(p))
                        .iter()
                        .map(|e| e * share * f64::from(v.pd * (1.0 - v.fat_fraction)))
                        .collect();
                    let fat: Vec<f64> = train
                        .echoes(350.0, 110.0, b1(p))
                        .iter()
                        .map(|e| e * share * f64::from(v.pd * v.fat_fraction))
                        .collect();
                    points.push((u, p, water, fat));
                }
            }
        }
    }
    order
        .shots
        .iter()
        .flat_map(|shot| &shot.lines)
        .map(|line| {
            scan.array()
                .loops
                .iter()
                .map(|coil| {
                    let s_of: Vec<Complex64> =
                        points.iter().map(|p| coil.sensitivity(p.1)).collect();
                    (0..nx)
                        .map(|i| {
                            let kx = i as f64 - (nx / 2) as f64;
                            let ky = line.pe1 as f64 - (ny / 2) as f64;
                            let kz = line.pe2 as f64 - (nz / 2) as f64;
                            let t = kx * s.dwell_us() * 1e-6;
                            let turn: Complex64 = FAT_PEAKS
                                .iter()
                                .map(|(ppm, a)| {
                                    Complex64::from_polar(*a, TAU * ppm * hz * t * fat_shifts)
                                })
                                .sum();
                            let e = echo_of(line.echo);
                            points
                                .iter()
                                .zip(&s_of)
                                .map(|((u, _, w, f), s)| {
                                    let angle = -TAU * (kx * u[0] + ky * u[1] + kz * u[2]);
                                    s * Complex64::from_polar(unit, angle) * (w[e] + turn * f[e])
                                })
                                .sum::<Complex64>()
                                * scan.gain()
                        })
                        .collect()
                })
                .collect()
        })
        .collect()
}

/// Root of the summed squared difference over that of `want`.
fn distance(got: &[Acquisition], want: &[Vec<Vec<Complex64>>]) -> f64 {
    let (mut off, mut all) = (0.0, 0.0);
    for (g, w) in got.iter().zip(want) {
        let flat: Vec<Complex64> = w.iter().flatten().copied().collect();
        assert_eq!(g.data.len(), flat.len());
        for (a, b) in g.data.iter().zip(&flat) {
            off += (Complex64::new(a.re.into(), a.im.into()) - b).norm_sqr();
            all += b.norm_sqr();
        }
    }
    (off / all).sqrt()
}

#[test]
fn every_sample_is_its_direct_sum() {
    let body = Bodies::trunk();
    let s = small();
    let p = AcquireParams {
        b1_spread: 0.0,
        ..quiet()
    };
    let scan = Scan::plan(&body, &s, &p, "test").unwrap();
    let got: Vec<Acquisition> = readouts(&scan).split_off(p.n_noise_readouts);
    let want = plain(&body, &s, &scan, |e| e, 1.0, |_| 1.0);
    assert_eq!(got.len(), want.len());
    let d = distance(&got, &want);
    assert!(d < 2e-3, "{d}");
    // Twins: one weight for all lines; fat that does not shift; an echo too late.
    for (twin, name) in [
        (plain(&body, &s, &scan, |_| 2, 1.0, |_| 1.0), "no weights"),
        (plain(&body, &s, &scan, |e| e, 0.0, |_| 1.0), "no shift"),
        (
            plain(&body, &s, &scan, |e| e, -1.0, |_| 1.0),
            "shift the other way",
        ),
        (
            plain(&body, &s, &scan, |e| (e + 1).min(5), 1.0, |_| 1.0),
            "late",
        ),
    ] {
        let d = distance(&got, &twin);
        assert!(d > 1e-2, "{name}: {d}");
    }
}

/// A wide body, so that the transmit field reaches from 0.85 to 1.15 within it.
#[test]
fn echoes_have_the_weights_of_the_transmit_field() {
    let mut body = Bodies::new(vec![
        ([0.0, 0.0, 0.0], [170.0, 110.0, 400.0], false, 1, 0.8, 0.1),
        ([95.0, 60.0, 0.0], [30.0, 25.0, 400.0], false, 2, 1.0, 0.0),
        (
            [-100.0, -40.0, 0.0],
            [40.0, 30.0, 400.0],
            false,
            3,
            0.95,
            0.95,
        ),
    ]);
    body.extent = [[-172.0, 172.0], [-112.0, 112.0], [-80.0, 80.0]];
    let s = SequenceParams {
        fov_mm: [400.0, 300.0],
        refocusing_deg: 120.0,
        ..small()
    };
    let centre = body.centre_mm();
    for spread in [0.5, 1.0] {
        let p = AcquireParams {
            b1_spread: spread,
            ..quiet()
        };
        let b1 = |p: [f64; 3]| super::kspace::b1_at(p, centre, spread);
        let range = [[170.0, 0.0, 0.0], [1.0, 2.0, 0.0], [-170.0, 0.0, 0.0]].map(b1);
        assert!(range[1] - range[2] > 0.1 * spread, "{range:?}");
        let scan = Scan::plan(&body, &s, &p, "test").unwrap();
        let got: Vec<Acquisition> = readouts(&scan).split_off(p.n_noise_readouts);
        let d = distance(&got, &plain(&body, &s, &scan, |e| e, 1.0, b1));
        assert!(d < 4e-3, "{spread}: {d}");
        // Twins: the field turned round, and one field for all.
        let turned = distance(&got, &plain(&body, &s, &scan, |e| e, 1.0, |p| 2.0 - b1(p)));
        let even = distance(&got, &plain(&body, &s, &scan, |e| e, 1.0, |_| 1.0));
        assert!(turned > 3.0 * d && even > 3.0 * d, "{d} {turned} {even}");
    }
}

/// K-space of one coil, `[pe1][sample]`, of a scan with one line per shot.
fn lines_of(body: &Bodies, s: &SequenceParams, p: &AcquireParams) -> Vec<Vec<Complex64>> {
    let scan = Scan::plan(body, s, p, "test").unwrap();
    let mut lines = vec![Vec::new(); s.matrix[1]];
    for a in readouts(&scan).split_off(p.n_noise_readouts) {
        let n = usize::from(a.head.number_of_samples);
        lines[usize::from(a.head.idx.kspace_encode_step_1)] = a.data[..n]
            .iter()
            .map(|v| Complex64::new(v.re.into(), v.im.into()))
            .collect();
    }
    lines
}

/// Part of `of` that is `what` moved by `shift` pixels along phase, by projection: both `[pe1][sample]`.
fn side_band(of: &[Vec<Complex64>], what: &[Vec<Complex64>], shift: f64) -> Complex64 {
    let (mut product, mut norm) = (Complex64::ZERO, 0.0);
    for (j, (a, b)) in of.iter().zip(what).enumerate() {
        let turn = Complex64::from_polar(1.0, -TAU * j as f64 * shift / of.len() as f64);
        for (a, b) in a.iter().zip(b) {
            product += (b * turn).conj() * a;
            norm += b.norm_sqr();
        }
    }
    product / norm
}

/// One line per TR, a TR of so many periods: `turns` per TR move a ghost by `turns` fields of view.
fn one_by_one(period_s: f64, turns: f64) -> SequenceParams {
    SequenceParams {
        echo_train_length: 1,
        te_ms: 10.0,
        tr_ms: period_s * turns * 1e3,
        matrix: [32, 48],
        fov_mm: [160.0, 120.0],
        ..small()
    }
}

#[test]
fn pulsation_makes_the_ghosts_of_its_side_bands() {
    let body = Bodies::new(vec![(
        [5.0, 2.0, 0.0],
        [12.0, 9.0, 400.0],
        false,
        2,
        1.0,
        0.0,
    )]);
    let still = AcquireParams {
        snr: 1e6,
        b1_spread: 0.0,
        ..quiet()
    };
    let strength = 0.05;
    let pulse = AcquireParams {
        motion: MotionParams {
            pulsation: strength,
            ..MotionParams::none()
        },
        ..still.clone()
    };
    let [beat_s, _] = super::motion::Motion::new(&pulse.motion, false, pulse.seed, 0).periods_s();
    // A quarter of a turn from line to line: ghosts 12 of 48 pixels off.
    let s = one_by_one(beat_s, 2.25);
    let (quiet_lines, lines) = (lines_of(&body, &s, &still), lines_of(&body, &s, &pulse));
    let band = |shift: f64| side_band(&lines, &quiet_lines, shift).norm();
    // (1 - p/2 - p/2 sin b) exp(1.5 i p cos b): p e^(ib) and p/2 e^(-ib) to first order; forwards in time is -12 pixels.
    let (main, near, far) = (band(0.0), band(-12.0), band(12.0));
    assert!((main - (1.0 - strength / 2.0)).abs() < 0.003, "{main}");
    assert!((near / strength - 1.0).abs() < 0.05, "{near}");
    assert!((far / (strength / 2.0) - 1.0).abs() < 0.1, "{far}");
    for elsewhere in [-6.0, 6.0, 18.0, 3.0] {
        let here = side_band(&lines, &quiet_lines, elsewhere).norm();
        let without = side_band(&quiet_lines, &quiet_lines, elsewhere).norm();
        assert!(
            (here - main * without).abs() < 0.2 * strength,
            "{elsewhere}: {here} {without}"
        );
    }
}

#[test]
fn breaths_make_the_ghosts_of_their_side_bands() {
    let rise_mm = 0.2;
    let still = AcquireParams {
        snr: 1e6,
        b1_spread: 0.0,
        ..quiet()
    };
    let breath = AcquireParams {
        motion: MotionParams {
            respiration_mm: rise_mm,
            ..MotionParams::none()
        },
        ..still.clone()
    };
    let [_, breath_s] =
        super::motion::Motion::new(&breath.motion, false, breath.seed, 0).periods_s();
    // The wall rises, the spine by a tenth; sin^4 of half the angle has a quarter of its height in each side band.
    for (structure, moves_mm) in [
        (Structure::OtherMuscle, 0.1 * rise_mm),
        (Structure::Subcutaneous, 1.1 * rise_mm),
    ] {
        let mut body = Bodies::new(vec![(
            [5.0, -20.0, 0.0],
            [12.0, 9.0, 400.0],
            false,
            3,
            1.0,
            1.0,
        )]);
        body.structure = structure;
        let bands = |turns: f64| {
            let s = one_by_one(breath_s, turns);
            let (before, mut lines) = (lines_of(&body, &s, &still), lines_of(&body, &s, &breath));
            // The image's slope along phase.
            let slope: Vec<Vec<Complex64>> = before
                .iter()
                .enumerate()
                .map(|(j, line)| {
                    let k = Complex64::new(0.0, TAU * (j as f64 - 24.0) / s.fov_mm[1]);
                    line.iter().map(|v| v * k).collect()
                })
                .collect();
            let take = |lines: &mut Vec<Vec<Complex64>>, part: Complex64, of: &[Vec<Complex64>]| {
                for (line, of) in lines.iter_mut().zip(of) {
                    line.iter_mut().zip(of).for_each(|(a, b)| *a -= part * b);
                }
            };
            // What stays in place would reach into the ghosts by its own width.
            take(&mut lines, Complex64::ONE, &before);
            let mean = side_band(&lines, &slope, 0.0);
            take(&mut lines, mean, &slope);
            [-12.0, 12.0].map(|shift| side_band(&lines, &slope, shift).norm())
        };
        let want = moves_mm / 4.0;
        for size in bands(0.25) {
            assert!(
                (size / want - 1.0).abs() < 0.1,
                "{structure:?}: {size} {want}"
            );
        }
        // A breath in each TR: every line meets the same moment, and nothing is elsewhere.
        for size in bands(1.0) {
            assert!(size < 0.1 * want, "{structure:?}: {size} {want}");
        }
    }
}

#[test]
fn a_ct_has_its_numbers_its_noise_and_its_blur() {
    let mut body = Bodies::new(vec![(
        [-500.0, 0.0, 0.0],
        [500.0, 500.0, 500.0],
        true,
        1,
        1.0,
        0.0,
    )]);
    body.materials[1].hu = 250.0;
    let block = |x: f64| Block {
        matrix: [2, 96, 96],
        voxel_mm: [1.0, 0.4, 0.4],
        centre_mm: [x, 0.0, 0.0],
        axes: [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]],
    };
    let inside = ct(&body, &block(-100.0), &CtParams::default());
    let n = inside.len() as f64;
    let mean = inside.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let std = (inside
        .iter()
        .map(|v| (f64::from(*v) - mean).powi(2))
        .sum::<f64>()
        / n)
        .sqrt();
    assert!((mean - 250.0).abs() < 1.5, "{mean}");
    assert!((std / 20.0 - 1.0).abs() < 0.05, "{std}");
    // An edge's slope is the point spread along x; its second moment is the sum of the blur's, the voxel's and the
    // difference's.
    let width = |psf_mm: f64| {
        let params = CtParams {
            noise_hu: 0.0,
            psf_mm,
            seed: 1,
        };
        let image = ct(&body, &block(0.0), &params);
        let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
        for row in image.chunks(96) {
            for (x, pair) in row.windows(2).enumerate() {
                let slope = f64::from(pair[0] - pair[1]);
                let at = x as f64 * 0.4;
                sum += slope;
                first += slope * at;
                second += slope * at * at;
            }
        }
        let mean = first / sum;
        (second / sum - mean * mean).sqrt()
    };
    let want = |psf_mm: f64| ((psf_mm / 2.354_82).powi(2) + 2.0 * 0.4f64.powi(2) / 12.0).sqrt();
    for psf in [0.8, 1.6] {
        assert!(
            (width(psf) / want(psf) - 1.0).abs() < 0.05,
            "{psf}: {} {}",
            width(psf),
            want(psf)
        );
    }
    assert!(width(0.8) < 0.9 * want(1.0));
}

#[test]
fn noise_amplification_follows_the_pattern() {
    let mut body = Bodies::trunk();
    body.extent = [[-62.0, 62.0], [-47.0, 47.0], [-200.0, 200.0]];
    let p = AcquireParams {
        n_coils: 12,
        ..quiet()
    };
    let of = |pe1, pe2, caipi_shift| -> Vec<f32> {
        let s = SequenceParams {
            plane: Plane::Sagittal,
            phase: PhaseDirection::HeadFeet,
            matrix: [32, 32],
            fov_mm: [160.0, 160.0],
            n_partitions: 24,
            slice_thickness_mm: 4.0,
            echo_train_length: 8,
            acceleration: AccelerationParams {
                pe1,
                pe2,
                caipi_shift,
                acs_pe1: 8,
                acs_pe2: 8,
            },
            ..small()
        };
        let mut g = Scan::plan(&body, &s, &p, "test").unwrap().gfactor([16, 16]);
        assert!(g.iter().all(|g| *g == 0.0 || (*g >= 1.0 && g.is_finite())));
        g.retain(|g| *g > 0.0);
        g
    };
    let mean = |g: &[f32]| g.iter().sum::<f32>() / g.len() as f32;
    assert!(of(1, 1, 0).iter().all(|g| *g == 1.0));
    let (two, four, caipi) = (mean(&of(2, 1, 0)), mean(&of(2, 2, 0)), mean(&of(2, 2, 1)));
    assert!(
        two > 1.0 && four > two && caipi > 1.0,
        "{two} {four} {caipi}"
    );
}

#[test]
fn a_scan_that_needs_too_much_memory_is_refused_with_its_size() {
    let body = Bodies::trunk();
    let s = SequenceParams {
        matrix: [512, 512],
        n_slices: 40,
        tr_ms: 8000.0,
        echo_train_length: 8,
        te_ms: 40.0,
        bandwidth_hz_per_pixel: 400.0,
        ..small()
    };
    let with = |n_coils: usize| {
        let p = AcquireParams { n_coils, ..quiet() };
        Scan::plan(&body, &s, &p, "test").map(|scan| scan.memory_bytes())
    };
    let said = with(32).err().unwrap().to_string();
    assert!(
        said.contains("GiB") && said.contains("more concatenations"),
        "{said}"
    );
    // Lines of all slices and four coils: 40 x 512 x 1024 x 4 x 8 bytes, and less than as much again for the rest.
    let bytes = with(4).unwrap();
    let lines = 40 * 512 * 1024 * 4 * 8;
    assert!((lines..2 * lines).contains(&bytes), "{bytes} {lines}");
}

#[test]
fn partitions_are_their_direct_sum() {
    let body = Bodies::trunk();
    let s = SequenceParams {
        matrix: [16, 16],
        fov_mm: [160.0, 160.0],
        n_partitions: 8,
        slice_oversampling: 0.5,
        echo_train_length: 16,
        ..small()
    };
    let p = AcquireParams {
        b1_spread: 0.0,
        ..quiet()
    };
    let scan = Scan::plan(&body, &s, &p, "test").unwrap();
    let got: Vec<Acquisition> = readouts(&scan).split_off(p.n_noise_readouts);
    let want = plain(&body, &s, &scan, |e| e, 1.0, |_| 1.0);
    assert_eq!(got.len(), want.len());
    let d = distance(&got, &want);
    assert!(d < 3e-3, "{d}");
    assert!(got.iter().any(|a| a.head.idx.kspace_encode_step_2 == 11));
}

fn truth_of(body: &Bodies, s: &SequenceParams, p: &AcquireParams) -> ScanTruth {
    Scan::plan(body, s, p, "test")
        .unwrap()
        .run(true, |_| Ok::<(), std::convert::Infallible>(()))
        .unwrap()
        .unwrap()
}

/// Centre of mass of a complex image along rows and columns, pixels from the middle.
fn centre(image: &[Complex32], [ny, nx]: [usize; 2]) -> [f64; 2] {
    let (mut sum, mut x_sum, mut y_sum) = (Complex64::ZERO, Complex64::ZERO, Complex64::ZERO);
    for (i, v) in image.iter().enumerate() {
        let v = Complex64::new(v.re.into(), v.im.into());
        sum += v;
        x_sum += v * ((i % nx) as f64 - (nx / 2) as f64);
        y_sum += v * ((i / nx) as f64 - (ny / 2) as f64);
    }
    [(y_sum / sum).re, (x_sum / sum).re]
}

#[test]
fn a_point_is_where_it_is_and_its_frequency_moves_it() {
    let s = SequenceParams {
        matrix: [64, 64],
        fov_mm: [128.0, 128.0],
        echo_train_length: 4,
        te_ms: 10.0,
        bandwidth_hz_per_pixel: 260.0,
        ..small()
    };
    let p = AcquireParams {
        n_depths: 9,
        ..quiet()
    };
    // 12 mm to the left and 20 mm to the back of the middle (1, 2): 6 and 10 pixels of 2 mm.
    let at = |material, fat, ppm| {
        let mut b = Bodies::new(vec![(
            [13.0, 22.0, 0.0],
            [5.0, 5.0, 50.0],
            false,
            material,
            1.0,
            fat,
        )]);
        b.ppm = ppm;
        centre(&truth_of(&b, &s, &p).images, [64, 64])
    };
    let water = at(2, 0.0, 0.0);
    assert!(
        (water[1] - 6.0).abs() < 0.05 && (water[0] - 10.0).abs() < 0.05,
        "{water:?}"
    );
    let hz_per_ppm = 3.0 * HYDROGEN_HZ_PER_T * 1e-6;
    // Fat as its spectrum's mean; the truncated tails cost some of it.
    let mean: f64 = FAT_PEAKS.iter().map(|(ppm, a)| ppm * a).sum::<f64>() * hz_per_ppm;
    let fat = at(3, 1.0, 0.0);
    assert!(
        (fat[1] - (6.0 - mean / 260.0)).abs() < 0.1,
        "{fat:?} {mean}"
    );
    assert!((fat[0] - water[0]).abs() < 0.05);
    // A field off by 1 ppm moves water by half a pixel, the way of its frequency.
    let off = at(2, 0.0, 1.0);
    assert!(
        (off[1] - water[1] + hz_per_ppm / 260.0).abs() < 0.06,
        "{off:?} {water:?}"
    );
}

#[test]
fn a_box_rings_as_its_truncated_series() {
    let s = SequenceParams {
        matrix: [64, 16],
        fov_mm: [128.0, 128.0],
        echo_train_length: 1,
        te_ms: 10.0,
        echo_spacing_ms: 10.0,
        ..small()
    };
    let p = AcquireParams {
        n_depths: 16,
        b1_spread: 0.0,
        ..quiet()
    };
    let body = Bodies::new(vec![(
        [1.0, 2.0, 0.0],
        [20.0, 300.0, 300.0],
        true,
        2,
        1.0,
        0.0,
    )]);
    let truth = truth_of(&body, &s, &p);
    let row: Vec<f64> = truth.images[8 * 64..9 * 64]
        .iter()
        .map(|v| v.re.into())
        .collect();
    let signal = Train::plan(&s).unwrap().echoes(4300.0, 1600.0, 1.0)[0];
    // 40 mm in 128: 128 harmonics of the 256 mm that the oversampled readout sees.
    for (x, got) in row.iter().enumerate() {
        let at = (x as f64 - 32.0) * 2.0;
        let want: f64 = (-64..64)
            .map(|k| {
                let k = f64::from(k) / 256.0;
                let width = if k == 0.0 {
                    40.0
                } else {
                    (TAU * k * 20.0).sin() / (TAU * k / 2.0)
                };
                width / 256.0 * (TAU * k * at).cos()
            })
            .sum::<f64>()
            * signal;
        assert!((got - want).abs() < 0.025 * signal, "{x}: {got} {want}");
    }
    let top = row.iter().fold(0.0, |a: f64, b| a.max(*b));
    assert!(top > 1.03 * signal, "rings: {top} {signal}");
}

#[test]
fn one_seed_is_one_scan_on_any_number_of_threads() {
    let body = Bodies::trunk();
    let s = SequenceParams {
        n_slices: 3,
        fat: crate::sequence::FatParams {
            method: crate::sequence::FatMethod::Chess,
            ..Default::default()
        },
        ..small()
    };
    let p = AcquireParams {
        snr: 30.0,
        n_depths: 3,
        ..AcquireParams::default()
    };
    let on = |n: usize, p: &AcquireParams| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(n)
            .build()
            .unwrap()
            .install(|| readouts(&Scan::plan(&body, &s, p, "test").unwrap()))
    };
    let one = on(1, &p);
    assert!(one == on(3, &p));
    assert!(
        one != on(
            1,
            &AcquireParams {
                seed: 2,
                ..p.clone()
            }
        )
    );
    assert!(
        one != on(
            1,
            &AcquireParams {
                series: 1,
                ..p.clone()
            }
        )
    );
}

#[test]
fn counters_flags_and_times_are_a_scanners() {
    let body = Bodies::trunk();
    let s = SequenceParams {
        n_slices: 4,
        averages: 2,
        concatenations: 2,
        matrix: [32, 32],
        partial_fourier: 0.8,
        asymmetric_echo: 0.8,
        acceleration: AccelerationParams {
            pe1: 2,
            acs_pe1: 8,
            ..AccelerationParams::default()
        },
        ..small()
    };
    for calibration in [
        CalibrationLines::Embedded,
        CalibrationLines::Separate,
        CalibrationLines::Unflagged,
    ] {
        let p = AcquireParams {
            calibration,
            ..quiet()
        };
        let scan = Scan::plan(&body, &s, &p, "test").unwrap();
        let all = readouts(&scan);
        assert_eq!(all.len(), scan.n_readouts());
        let header = scan.header();
        let e = &header.encoding[0];
        let pe1 = e.encoding_limits.kspace_encoding_step_1.unwrap();
        assert!(
            all[..4]
                .iter()
                .all(|a| a.head.has(Flag::IsNoiseMeasurement))
        );
        let images = &all[4..];
        let order = Order::plan(&s).unwrap();
        let n_imaging: usize = order.shots.iter().map(|x| x.lines.len()).sum();
        let is_separate = calibration == CalibrationLines::Separate;
        if !is_separate {
            assert_eq!(images.len(), n_imaging * 4);
        }
        let mut last = 0;
        for a in images {
            assert_eq!(usize::from(a.head.number_of_samples), s.n_samples());
            assert_eq!(a.head.center_sample, 32 - 12);
            assert!(u32::from(a.head.idx.kspace_encode_step_1) <= pe1.maximum);
            assert!(a.head.acquisition_time_stamp >= last, "time runs back");
            last = a.head.acquisition_time_stamp;
        }
        let count = |f: Flag| images.iter().filter(|a| a.head.has(f)).count();
        let (both, only) = (
            count(Flag::IsParallelCalibrationAndImaging),
            count(Flag::IsParallelCalibration),
        );
        match calibration {
            CalibrationLines::Embedded => assert_eq!((both, only), (4 * 8, 4 * 8)),
            CalibrationLines::Separate => assert_eq!((both, only), (0, 8 * 4)),
            CalibrationLines::Unflagged => assert_eq!((both, only), (0, 0)),
        }
        assert_eq!(count(Flag::FirstInSlice), 8);
        assert_eq!(count(Flag::LastInSlice), 8);
        assert_eq!(count(Flag::LastInMeasurement), 1);
        assert!(all.last().unwrap().head.has(Flag::LastInMeasurement));
        // The centre line is on the effective echo.
        let centre = images
            .iter()
            .find(|a| u32::from(a.head.idx.kspace_encode_step_1) == pe1.center && !is_separate);
        assert!(
            is_separate || usize::from(centre.unwrap().head.idx.segment) == order.effective_echo
        );
        // A concatenation is over before the next begins.
        let odd = images
            .iter()
            .position(|a| a.head.idx.slice % 2 == 1)
            .unwrap();
        assert!(images[odd..].iter().all(|a| a.head.idx.slice % 2 == 1));
    }
}

#[test]
fn noise_has_its_covariance_and_its_bandwidth() {
    let mut body = Bodies::trunk();
    let s = SequenceParams {
        matrix: [256, 96],
        te_ms: 30.0,
        ..small()
    };
    let p = AcquireParams {
        n_coils: 4,
        n_noise_readouts: 64,
        ..quiet()
    };
    let psi = Scan::plan(&body, &s, &p, "test").unwrap().noise();
    // Coils are loaded by the body; then it loses its signal, so that imaging lines are noise.
    let of = |readouts: &[Acquisition], i: usize, j: usize| -> Complex64 {
        let (mut sum, mut n) = (Complex64::ZERO, 0.0);
        for a in readouts {
            let m = usize::from(a.head.number_of_samples);
            for k in 0..m {
                let (u, v) = (a.data[i * m + k], a.data[j * m + k]);
                sum += Complex64::new(u.re.into(), u.im.into())
                    * Complex64::new(v.re.into(), -f64::from(v.im));
                n += 1.0;
            }
        }
        sum / n
    };
    for m in &mut body.materials {
        m.water_t2_ms = 0.0;
    }
    for shape in &mut body.shapes {
        shape.5 = 0.0;
    }
    let scan = Scan::plan(&body, &s, &p, "test").unwrap();
    let all = readouts(&scan);
    let (noise, images) = all.split_at(64);
    let ratio = s.dwell_us() / 5.0 * 0.793;
    for i in 0..4 {
        for j in 0..4 {
            let want = psi.matrix[i * 4 + j];
            let scale = (psi.matrix[i * 4 + i] * psi.matrix[j * 4 + j])
                .norm()
                .sqrt();
            let got = of(images, i, j);
            assert!((got - want).norm() < 0.03 * scale, "{i} {j} {got} {want}");
            let got = of(noise, i, j) / ratio;
            assert!((got - want).norm() < 0.03 * scale, "{i} {j} {got} {want}");
        }
    }
}

#[test]
fn fat_saturation_darkens_fat_and_spares_water() {
    let body = Bodies::new(vec![
        ([-30.0, 2.0, 0.0], [15.0, 15.0, 50.0], false, 2, 1.0, 0.0),
        ([30.0, 2.0, 0.0], [15.0, 15.0, 50.0], false, 3, 1.0, 1.0),
    ]);
    let plain = small();
    let chess = SequenceParams {
        fat: crate::sequence::FatParams {
            method: crate::sequence::FatMethod::Chess,
            ..Default::default()
        },
        ..small()
    };
    let p = AcquireParams {
        b1_spread: 0.0,
        ..quiet()
    };
    let sum = |s: &SequenceParams, left: bool| -> f64 {
        truth_of(&body, s, &p)
            .images
            .iter()
            .enumerate()
            .filter(|(i, _)| (i % 32 < 16) == left)
            .map(|(_, v)| f64::from(v.norm()))
            .sum()
    };
    assert!((sum(&chess, true) / sum(&plain, true) - 1.0).abs() < 0.1);
    let left = sum(&chess, false) / sum(&plain, false);
    assert!((0.04..0.3).contains(&left), "{left}");
}

#[test]
fn what_cannot_be_is_refused() {
    let body = Bodies::trunk();
    let s = small();
    for p in [
        AcquireParams {
            n_coils: 0,
            ..quiet()
        },
        AcquireParams {
            snr: f64::NAN,
            ..quiet()
        },
        AcquireParams {
            n_depths: 0,
            ..quiet()
        },
        AcquireParams {
            noise_dwell_us: 0.0,
            ..quiet()
        },
        AcquireParams {
            b1_spread: 2.0,
            ..quiet()
        },
        AcquireParams {
            motion: MotionParams {
                pulsation: -1.0,
                ..MotionParams::none()
            },
            ..quiet()
        },
    ] {
        assert!(Scan::plan(&body, &s, &p, "test").is_err());
    }
    let s = SequenceParams {
        te_ms: 33.0,
        ..small()
    };
    let e = Scan::plan(&body, &s, &quiet(), "test")
        .err()
        .unwrap()
        .to_string();
    assert!(e.contains("te_ms"), "{e}");
}
