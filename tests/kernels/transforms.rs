//! Cases of `fft.cu`, `sense_cg.cu` and `sense_planes.cu`.

use std::cell::RefCell;

use cauda::data::{Complex32, KSpace, Line, Shape};
use cauda::device::cuda::FftPlan;
use cauda::num::fft::{Direction, Fft, fft2};
use cauda::num::rng::Rng;
use cauda::recon::sense::{Lambda, Sense, SenseParams, SenseSolver};
use kernel_emu::Arg;

use super::{Case, NAN, On, Output, blocks, complex_output, int, launch, maps, output};

const BLOCK: [u32; 3] = [256, 1, 1];

/// Every radix, alone and together; odd; the largest.
const LENGTHS: [usize; 13] = [1, 2, 3, 4, 5, 7, 8, 9, 30, 49, 210, 320, 3072];

pub(super) fn fft_cases() -> impl Iterator<Item = Case> {
    LENGTHS
        .into_iter()
        .zip([Direction::Forward, Direction::Inverse].into_iter().cycle())
        .flat_map(|(n, direction)| {
            let plan = FftPlan::new(n).unwrap();
            // The last block of rows is not full; columns of a length of their own, too.
            let count = plan.lines_at_once().clamp(1, 3);
            let rows = if n > 1000 { 1 } else { 2 * count + 1 };
            let sign = match direction {
                Direction::Forward => 1.0,
                Direction::Inverse => -1.0,
            };
            let values = Rng::new(n as u64).complex(2 * rows * n);
            let scale = 1.0 / (n as f32).sqrt();
            let what = format!("{rows} x {n}, {direction:?}");
            let mut truth = values.clone();
            Fft::plan(n, direction).run_rows(&mut truth);
            let (of_rows, of_plan) = (values.clone(), plan.clone());
            let by_rows = Case::new("fft_rows_c32", what.clone(), move |kernel, schedule| {
                let mut out = vec![NAN; of_rows.len()];
                let args = &mut [
                    Arg::input(&of_rows),
                    Arg::output(&mut out),
                    Arg::input(&of_plan.twiddles),
                    int(n),
                    int(2 * rows),
                    Arg::I32(of_plan.radices),
                    int(count),
                    int(n / 2),
                    Arg::F32(sign),
                    Arg::F32(scale),
                ];
                launch(
                    kernel,
                    [blocks(2 * rows, count), 1, 1],
                    BLOCK,
                    args,
                    schedule,
                )?;
                Ok(vec![complex_output("out", &out, &truth)])
            });
            // `[2, n, rows]`, each column transformed.
            let mut turned = vec![Complex32::ZERO; values.len()];
            let turn = |from: &[Complex32], to: &mut [Complex32], [a, b]: [usize; 2]| {
                for (from, to) in from.chunks_exact(a * b).zip(to.chunks_exact_mut(a * b)) {
                    for (i, v) in from.iter().enumerate() {
                        to[i % b * a + i / b] = *v;
                    }
                }
            };
            turn(&values, &mut turned, [n, rows]);
            Fft::plan(n, direction).run_rows(&mut turned);
            let mut truth = vec![Complex32::ZERO; values.len()];
            turn(&turned, &mut truth, [rows, n]);
            let by_columns = Case::new("fft_columns_c32", what, move |kernel, schedule| {
                let mut out = vec![NAN; values.len()];
                let args = &mut [
                    Arg::input(&values),
                    Arg::output(&mut out),
                    Arg::input(&plan.twiddles),
                    int(n),
                    int(rows),
                    Arg::I32(plan.radices),
                    int(count),
                    int(n / 2),
                    Arg::F32(sign),
                    Arg::F32(scale),
                ];
                launch(kernel, [blocks(rows, count), 2, 1], BLOCK, args, schedule)?;
                Ok(vec![complex_output("out", &out, &truth)])
            });
            [by_rows, by_columns]
        })
}

/// A frame with the lines that `is_measured`, some of them twice.
fn frame(n_coils: usize, grid: [usize; 3], is_measured: impl Fn(usize) -> bool) -> KSpace {
    let [n2, n1, n_x] = grid;
    let lines: Vec<Line> = (0..n2 * n1)
        .filter(|i| is_measured(*i))
        .map(|i| Line {
            pe2: (i / n1) as u32,
            pe1: (i % n1) as u32,
            averages: 1 + u32::from(i % 7 == 3),
        })
        .collect();
    KSpace {
        shape: Shape {
            coil: n_coils,
            pe2: n2,
            pe1: n1,
            ro: n_x,
        },
        ro_range: 0..n_x,
        samples: Rng::new(6).complex(n_coils * lines.len() * n_x),
        lines,
    }
}

/// Relative Tikhonov weight, tolerance and iterations of both sides.
const LAMBDA: f32 = 0.1;
const TOLERANCE: f32 = 1e-6;
const ITERATIONS: usize = 30;

fn solved(kspace: &KSpace, csm: &cauda::data::Csm) -> Vec<Complex32> {
    let params = SenseParams {
        solver: SenseSolver::Cg,
        lambda: Lambda::Fixed(LAMBDA),
        tolerance: f64::from(TOLERANCE),
        max_iterations: 200,
        noise_map: false,
        ..SenseParams::default()
    };
    let plan = Sense::plan(kspace, &params).unwrap();
    plan.run(kspace, csm).unwrap().voxels
}

/// Coils, pe1, ro, columns of a block.
const CG_LINES: [[usize; 4]; 4] = [[1, 1, 1, 1], [2, 9, 5, 4], [4, 30, 3, 2], [3, 48, 9, 8]];

pub(super) fn cg_lines_cases() -> impl Iterator<Item = Case> {
    CG_LINES.into_iter().map(|[n_coils, n, n_x, count]| {
        let kspace = frame(n_coils, [1, n, n_x], |i| {
            i % 3 != 1 || i.abs_diff(n / 2) < 3
        });
        let csm = maps(n_coils, [1, n, n_x]);
        let truth = solved(&kspace, &csm);
        let mut hybrid = kspace.samples.clone();
        Fft::plan(n_x, Direction::Inverse).run_rows(&mut hybrid);
        let (mut line_of, mut weights) = (vec![-1i32; n], vec![0.0f32; n]);
        for (i, line) in kspace.lines.iter().enumerate() {
            line_of[line.pe1 as usize] = i as i32;
            weights[line.pe1 as usize] = line.averages as f32;
        }
        let mean_weight = weights.iter().sum::<f32>() / n as f32;
        let plan = FftPlan::new(n).unwrap();
        let limits = vec![TOLERANCE; n_x];
        let most = vec![ITERATIONS as i32; n_x];
        let what = format!("{n_coils} coils, {n} x {n_x}");
        Case::new("sense_cg_lines_c32", what, move |kernel, schedule| {
            let grid = blocks(n_x, count);
            let (mut out, mut iterations) = (vec![NAN; n * n_x], vec![-1i32; n_x]);
            let mut residuals = vec![f32::NAN; n_x];
            // Frequencies are weighted in the order of the transform, DC first; lines are told DC in the middle.
            let args = &mut [
                Arg::input(&csm.maps),
                Arg::input(&hybrid),
                Arg::input(&line_of),
                Arg::input(&weights),
                Arg::input(&limits),
                Arg::input(&most),
                Arg::input(&plan.twiddles),
                Arg::output(&mut out),
                Arg::output(&mut iterations),
                Arg::output(&mut residuals),
                int(n_coils),
                int(n),
                int(kspace.lines.len()),
                int(n_x),
                Arg::I32(plan.radices),
                int(count),
                Arg::F32(LAMBDA * mean_weight),
                Arg::F32(mean_weight),
            ];
            launch(kernel, [grid, 1, 1], BLOCK, args, schedule)?;
            if !iterations
                .iter()
                .all(|i| (1..ITERATIONS as i32).contains(i))
            {
                return Err(format!("iterations {iterations:?}"));
            }
            if !residuals.iter().all(|r| (0.0..=TOLERANCE).contains(r)) {
                return Err(format!("residuals {residuals:?}"));
            }
            Ok(vec![complex_output("out", &out, &truth)])
        })
    })
}

/// Planes, coils, pe2, pe1, lines of a block along either axis, blocks of the vector kernels.
const CG_PLANES: [[usize; 7]; 2] = [[1, 2, 6, 10, 3, 4, 1], [2, 3, 15, 8, 5, 4, 2]];

/// All kernels of conjugate gradients over planes, judged by the solution.
pub(super) fn cg_planes_cases() -> impl Iterator<Item = Case> {
    const JUDGED: &str = "cg_direction_c32";
    CG_PLANES.into_iter().map(|shape| {
        let problem = Planes::new(shape);
        let what = format!("planes, coils, pe2, pe1, lines, blocks {shape:?}");
        let mut case = Case::new(JUDGED, what, move |kernel, schedule| {
            let twin = kernel.strip_suffix(JUDGED).unwrap_or_default();
            problem.solve(schedule, &|name| format!("{twin}{name}"))
        });
        case.others = &[
            "sense_diagonal_f32",
            "sense_rows_forward_c32",
            "sense_columns_c32",
            "sense_rows_adjoint_c32",
            "cg_begin_c32",
            "cg_start_f64",
            "cg_step_c32",
        ];
        case
    })
}

/// Coils, lines, differing lines, rows of the conjugate images, pe1, columns.
const BESIDE: [[usize; 6]; 3] = [
    [1, 1, 1, 1, 1, 1],
    [2, 5, 3, 4, 9, 130],
    [3, 7, 6, 5, 12, 17],
];

pub(super) fn beside_cases() -> impl Iterator<Item = Case> {
    BESIDE
        .into_iter()
        .flat_map(|[n_coils, n_lines, n_diff, n_rows, n_y, n_x]| {
            let what = format!("{n_coils} coils, {n_lines} lines, {n_diff} differ, {n_y} x {n_x}");
            let mut rng = Rng::new(12);
            let hybrid = rng.complex(n_coils * n_lines * n_x);
            let n_predictors = 4;
            let predictors = rng.complex(n_predictors * n_coils * n_coils * n_x);
            let conjugate = rng.complex(n_rows * n_coils * n_x);
            let measured: Vec<i32> = (0..n_diff)
                .map(|i| if i % 2 == 1 { -1 } else { (i % n_lines) as i32 })
                .collect();
            let starts: Vec<i32> = (0..=n_diff).map(|i| (i * (i + 1) / 2) as i32).collect();
            let n_terms = n_diff * (n_diff + 1) / 2;
            let predictor: Vec<i32> = (0..n_terms)
                .map(|i| (i * 3 % n_predictors) as i32)
                .collect();
            let source: Vec<i32> = (0..n_terms).map(|i| (i * 5 % n_lines) as i32).collect();
            let shifts: Vec<i32> = (0..n_diff)
                .map(|i| ((i * 4 + n_y - 1) % n_y) as i32)
                .collect();
            let mut difference = vec![Complex32::ZERO; n_diff * n_coils * n_x];
            let mut spectrum = vec![Complex32::ZERO; n_y * n_x];
            for (i, sum) in difference.iter_mut().enumerate() {
                let (at, coil, x) = (i / n_x / n_coils, i / n_x % n_coils, i % n_x);
                if let Ok(own) = usize::try_from(measured[at]) {
                    *sum = hybrid[(coil * n_lines + own) * n_x + x];
                }
                for term in starts[at] as usize..starts[at + 1] as usize {
                    for c in 0..n_coils {
                        let w = predictors
                            [((predictor[term] as usize * n_coils + c) * n_coils + coil) * n_x + x];
                        *sum += w * hybrid[(c * n_lines + source[term] as usize) * n_x + x];
                    }
                }
                for row in 0..n_rows {
                    let k = (shifts[at] as usize + row) % n_y;
                    spectrum[k * n_x + x] += conjugate[(row * n_coils + coil) * n_x + x] * *sum;
                }
            }
            let of_spread = difference.clone();
            let differ = Case::new(
                "grappa_difference_c32",
                what.clone(),
                move |kernel, schedule| {
                    let mut out = vec![NAN; difference.len()];
                    let args = &mut [
                        Arg::input(&hybrid),
                        Arg::input(&predictors),
                        Arg::input(&measured),
                        Arg::input(&starts),
                        Arg::input(&predictor),
                        Arg::input(&source),
                        Arg::output(&mut out),
                        int(n_coils),
                        int(n_lines),
                        int(n_x),
                    ];
                    let grid = [blocks(n_x, 128), n_coils as u32, n_diff as u32];
                    launch(kernel, grid, [128, 1, 1], args, schedule)?;
                    Ok(vec![complex_output("difference", &out, &difference)])
                },
            );
            let spread = Case::new(
                "grappa_spread_c32",
                what.clone(),
                move |kernel, schedule| {
                    let mut out = vec![NAN; spectrum.len()];
                    let args = &mut [
                        Arg::input(&of_spread),
                        Arg::input(&conjugate),
                        Arg::input(&shifts),
                        Arg::output(&mut out),
                        int(n_coils),
                        int(n_diff),
                        int(n_rows),
                        int(n_y),
                        int(n_x),
                    ];
                    let grid = [blocks(n_x, 128), n_y as u32, 1];
                    launch(kernel, grid, [128, 1, 1], args, schedule)?;
                    Ok(vec![complex_output("spectrum", &out, &spectrum)])
                },
            );
            let n = n_y * n_x;
            let (factor, values, start) = (rng.complex(n), rng.complex(n), rng.complex(n));
            let truth: Vec<Complex32> = (0..n).map(|i| start[i] + factor[i] * values[i]).collect();
            let add = Case::new("add_product_c32", what, move |kernel, schedule| {
                let mut out = start.clone();
                let args = &mut [
                    Arg::input(&factor),
                    Arg::input(&values),
                    Arg::output(&mut out),
                    int(n),
                ];
                launch(kernel, [blocks(n, 128), 1, 1], [128, 1, 1], args, schedule)?;
                Ok(vec![complex_output("out", &out, &truth)])
            });
            [differ, spread, add]
        })
}

/// Coils, taps along x, rows, columns.
const EIGEN: [[usize; 4]; 5] = [
    [1, 1, 1, 1],
    [2, 3, 2, 33],
    [5, 3, 3, 7],
    [8, 5, 2, 40],
    [17, 3, 1, 20],
];

/// Hermitian matrices whose dominant eigenvector is known: `(1 - d) v v^H + d w w^H` and noise, at taps that sum to them.
pub(super) fn espirit_cases() -> impl Iterator<Item = Case> {
    EIGEN
        .into_iter()
        .flat_map(|shape| [false, true].map(|is_soft| (shape, is_soft)))
        .map(|([n, taps, n_rows, n_x], is_soft)| {
            let mut rng = Rng::new(13 + n as u64);
            let n_pairs = (n * (n + 1) / 2).next_multiple_of(8);
            let gauge = rng.complex(n);
            // The same vector along a row; voxels differ by the waves, which are phases of the whole matrix's taps.
            let mut rows = vec![NAN; n_rows * taps * n_pairs];
            let waves = vec![Complex32::from(1.0); n_x * taps];
            let mut truth = vec![Complex32::ZERO; n * n_rows * n_x];
            for row in 0..n_rows {
                let unit = |rng: &mut Rng| -> Vec<Complex32> {
                    let v = rng.complex(n);
                    let norm = v.iter().map(|v| v.norm_sqr()).sum::<f32>().sqrt();
                    v.iter().map(|v| v / norm).collect()
                };
                let (v, w) = (unit(&mut rng), unit(&mut rng));
                // The last row lies beyond what is kept.
                let eigenvalue = if n_rows > 1 && row + 1 == n_rows {
                    0.3
                } else {
                    0.97
                };
                let product: Complex32 = v.iter().zip(&w).map(|(v, w)| v.conj() * w).sum();
                // Orthogonal to the first, or the first is not an eigenvector.
                let w: Vec<Complex32> = w.iter().zip(&v).map(|(w, v)| w - v * product).collect();
                let mut pair = 0;
                for j in 0..n {
                    for i in j..n {
                        let g = v[i] * v[j].conj() * eigenvalue + w[i] * w[j].conj() * 0.2;
                        for tap in 0..taps {
                            rows[(row * taps + tap) * n_pairs + pair] = g / taps as f32;
                        }
                        pair += 1;
                    }
                }
                for rest in pair..n_pairs {
                    for tap in 0..taps {
                        rows[(row * taps + tap) * n_pairs + rest] = Complex32::ZERO;
                    }
                }
                let crop = 0.8f32;
                let weight = if is_soft {
                    let at = (eigenvalue.sqrt() - crop) / (1.0 - crop);
                    if at <= -1.0 {
                        0.0
                    } else if at >= 1.0 {
                        1.0
                    } else {
                        0.5 * (1.0 + 2.0 * at / (1.0 + at * at))
                    }
                } else {
                    f32::from(u8::from(eigenvalue > crop))
                };
                let projection: Complex32 = gauge.iter().zip(&v).map(|(g, v)| g.conj() * v).sum();
                let turn = projection.conj() / projection.norm() * weight;
                for i in 0..n {
                    for x in 0..n_x {
                        truth[(i * n_rows + row) * n_x + x] = v[i] * turn;
                    }
                }
            }
            let what = format!("{n} coils, {n_rows} x {n_x}, soft: {is_soft}");
            Case::new("espirit_maps_c32", what, move |kernel, schedule| {
                let mut out = vec![NAN; truth.len()];
                let args = &mut [
                    Arg::input(&rows),
                    Arg::input(&waves),
                    Arg::input(&gauge),
                    Arg::output(&mut out),
                    int(n),
                    int(n_pairs),
                    int(taps),
                    int(n_rows),
                    int(n_x),
                    Arg::F32(0.8),
                    Arg::I32(i32::from(is_soft)),
                ];
                launch(
                    kernel,
                    [n_rows as u32, blocks(n_x, 32), 1],
                    BLOCK,
                    args,
                    schedule,
                )?;
                Ok(vec![complex_output("maps", &out, &truth)])
            })
        })
}

/// Coils, lines, places, columns.
const SORTED: [[usize; 4]; 3] = [[1, 1, 1, 1], [3, 5, 9, 31], [2, 40, 33, 300]];

pub(super) fn line_cases() -> impl Iterator<Item = Case> {
    SORTED
        .into_iter()
        .flat_map(|[n_coils, n_lines, n_places, n_x]| {
            let what =
                format!("{n_coils} coils, {n_lines} lines, {n_places} places, {n_x} columns");
            let mut rng = Rng::new(11);
            let mut values = rng.complex(n_coils * n_lines * n_x);
            if n_x > 30 {
                // A column without signal, and a faint one.
                values
                    .iter_mut()
                    .skip(3)
                    .step_by(n_x)
                    .for_each(|v| *v = Complex32::ZERO);
                values
                    .iter_mut()
                    .skip(4)
                    .step_by(n_x)
                    .for_each(|v| *v *= 0.01);
            }
            let factor = rng.complex(n_places);
            let line_of: Vec<i32> = (0..n_places)
                .map(|i| {
                    if i % 4 == 1 {
                        -1
                    } else {
                        (i * 7 % n_lines) as i32
                    }
                })
                .collect();
            let mut truth = vec![Complex32::ZERO; n_coils * n_places * n_x];
            for (i, v) in truth.iter_mut().enumerate() {
                let (coil, place, x) = (i / n_x / n_places, i / n_x % n_places, i % n_x);
                if let Ok(line) = usize::try_from(line_of[place]) {
                    *v = factor[place] * values[(coil * n_lines + line) * n_x + x];
                }
            }
            let input = values.clone();
            let sort = Case::new("sort_lines_c32", what.clone(), move |kernel, schedule| {
                let mut out = vec![NAN; truth.len()];
                let args = &mut [
                    Arg::input(&input),
                    Arg::input(&line_of),
                    Arg::input(&factor),
                    Arg::output(&mut out),
                    int(n_lines),
                    int(n_places),
                    int(n_x),
                ];
                let grid = [blocks(n_places * n_x, 256), n_coils as u32, 1];
                launch(kernel, grid, BLOCK, args, schedule)?;
                Ok(vec![complex_output("out", &out, &truth)])
            });
            let n_rows = n_coils * n_lines;
            let turned: Vec<Complex32> = (0..values.len())
                .map(|i| values[i % n_rows * n_x + i / n_rows])
                .collect();
            let input = values.clone();
            let turn = Case::new("turn_lines_c32", what.clone(), move |kernel, schedule| {
                let mut out = vec![NAN; turned.len()];
                let args = &mut [
                    Arg::input(&input),
                    Arg::output(&mut out),
                    int(n_rows),
                    int(n_x),
                ];
                let grid = [blocks(n_rows, 32), blocks(n_x, 32), 1];
                launch(kernel, grid, BLOCK, args, schedule)?;
                Ok(vec![complex_output("out", &out, &turned)])
            });
            let energy: Vec<f64> = (0..n_x)
                .map(|x| {
                    values
                        .iter()
                        .skip(x)
                        .step_by(n_x)
                        .map(|v| f64::from(v.norm_sqr()))
                        .sum()
                })
                .collect();
            let mean = energy.iter().sum::<f64>() / n_x as f64;
            let limits: Vec<f32> = energy
                .iter()
                .map(|e| {
                    1e-3 * if *e > 0.0 {
                        (mean / e).sqrt().max(1.0)
                    } else {
                        1.0
                    } as f32
                })
                .collect();
            let narrow: Vec<f32> = energy.iter().map(|e| *e as f32).collect();
            let column: Vec<i32> = (0..2 * n_x + 1).map(|i| (i * 5 % n_x) as i32).collect();
            let gathered: Vec<Complex32> = (0..n_rows)
                .flat_map(|row| column.iter().map(move |c| row * n_x + *c as usize))
                .map(|at| values[at])
                .collect();
            let input = values.clone();
            let gather = Case::new(
                "gather_columns_c32",
                what.clone(),
                move |kernel, schedule| {
                    let n_out = column.len();
                    let mut out = vec![NAN; gathered.len()];
                    let args = &mut [
                        Arg::input(&input),
                        Arg::input(&column),
                        Arg::output(&mut out),
                        int(n_x),
                        int(n_out),
                    ];
                    let grid = [n_rows as u32, blocks(n_out, 256), 1];
                    launch(kernel, grid, BLOCK, args, schedule)?;
                    Ok(vec![complex_output("out", &out, &gathered)])
                },
            );
            let (start, scale) = (rng.complex(values.len()), rng.complex(n_x));
            let scale: Vec<f32> = scale.iter().map(|v| v.re).collect();
            let summed: Vec<Complex32> = (0..values.len())
                .map(|i| start[i] + values[i] * scale[i % n_x])
                .collect();
            let input = values.clone();
            let add = Case::new("add_scaled_c32", what.clone(), move |kernel, schedule| {
                let mut out = start.clone();
                let args = &mut [
                    Arg::input(&input),
                    Arg::input(&scale),
                    Arg::output(&mut out),
                    int(n_x),
                ];
                let grid = [n_rows as u32, blocks(n_x, 256), 1];
                launch(kernel, grid, BLOCK, args, schedule)?;
                Ok(vec![complex_output("out", &out, &summed)])
            });
            let mut stop = Case::new("column_limits_f32", what, move |kernel, schedule| {
                let twin = kernel.strip_suffix("column_limits_f32").unwrap_or_default();
                const SUMS: usize = 3;
                let mut parts = vec![f64::NAN; SUMS * n_x];
                let (mut sums, mut out) = (vec![f64::NAN; n_x], vec![f32::NAN; n_x]);
                let args = &mut [
                    Arg::input(&values),
                    Arg::output(&mut parts),
                    int(n_rows),
                    int(n_x),
                ];
                let kernel_of_sums = format!("{twin}column_energy_f64");
                launch(
                    &kernel_of_sums,
                    [blocks(n_x, 32), SUMS as u32, 1],
                    BLOCK,
                    args,
                    schedule,
                )?;
                let args = &mut [
                    Arg::input(&parts),
                    Arg::output(&mut sums),
                    Arg::output(&mut out),
                    int(SUMS),
                    int(n_x),
                    Arg::F32(1e-3),
                ];
                launch(kernel, [1, 1, 1], BLOCK, args, schedule)?;
                let sums: Vec<f32> = sums.iter().map(|e| *e as f32).collect();
                Ok(vec![
                    output("energy", &sums, &narrow),
                    output("limits", &out, &limits),
                ])
            });
            stop.others = &["column_energy_f64"];
            [sort, turn, gather, add, stop]
        })
}

struct Planes {
    shape: [usize; 7],
    /// `[plane, coil, pe2, pe1]`, `[plane, pe2, pe1]`.
    csm: Vec<Complex32>,
    b: Vec<Complex32>,
    truth: Vec<Complex32>,
    /// Over `n1 n2`, DC first.
    weights: Vec<f32>,
    mean_weight: f32,
}

impl Planes {
    fn new(shape: [usize; 7]) -> Self {
        let [n_planes, n_coils, n2, n1, ..] = shape;
        let plane = n2 * n1;
        let mut rng = Rng::new(8);
        let mask: Vec<bool> = (0..plane).map(|_| rng.complex(1)[0].re > -0.3).collect();
        let (mut csm, mut b, mut truth) = (Vec::new(), Vec::new(), Vec::new());
        let mut weights = vec![0.0; plane];
        for i in 0..n_planes {
            let mut kspace = frame(n_coils, [n2, n1, 1], |at| mask[at]);
            kspace.samples = Rng::new(9 + i as u64).complex(kspace.samples.len());
            let mut of_plane = maps(n_coils, [n2, n1, 1]);
            of_plane.maps.rotate_left(i * plane / 3);
            truth.extend(solved(&kspace, &of_plane));
            let mut right = vec![Complex32::ZERO; plane];
            for coil in 0..n_coils {
                let mut image = vec![Complex32::ZERO; plane];
                for (l, line) in kspace.lines.iter().enumerate() {
                    let w = line.averages as f32;
                    let [k2, k1] = [line.pe2 as usize, line.pe1 as usize];
                    image[k2 * n1 + k1] = kspace.samples[coil * kspace.lines.len() + l] * w;
                    let first = |k: usize, n: usize| (k + n - n / 2) % n;
                    weights[first(k2, n2) * n1 + first(k1, n1)] = w / plane as f32;
                }
                fft2(&mut image, n2, n1, Direction::Inverse);
                for (r, (v, s)) in right
                    .iter_mut()
                    .zip(image.iter().zip(&of_plane.maps[coil * plane..]))
                {
                    *r += s.conj() * v;
                }
            }
            b.extend(right);
            csm.extend(of_plane.maps);
        }
        let mean_weight = weights.iter().sum::<f32>();
        Self {
            shape,
            csm,
            b,
            truth,
            weights,
            mean_weight,
        }
    }

    /// `name` gives the kernel to launch for each step.
    fn solve(
        &self,
        schedule: On<'_>,
        name: &dyn Fn(&str) -> String,
    ) -> Result<Vec<Output>, String> {
        let [n_planes, n_coils, n2, n1, lines2, lines1, n_blocks] = self.shape;
        let [plan2, plan1] = [n2, n1].map(|n| FftPlan::new(n).unwrap());
        let plane = n2 * n1;
        let lambda = LAMBDA * self.mean_weight;
        let limits = vec![TOLERANCE; n_planes];
        // rows of a block run along pe1, columns along pe2.
        let row_blocks = blocks(n2, lines1);
        let z = n_planes as u32;
        let n = n_planes * plane;
        let (mut work, mut q) = (vec![NAN; n_coils * n], vec![NAN; n]);
        let (mut x, mut r, mut p) = (vec![NAN; n], self.b.clone(), vec![NAN; n]);
        let mut parts = vec![f64::NAN; n_planes * n_blocks];
        let mut of_rows = vec![f64::NAN; n_planes * row_blocks as usize];
        let mut rho = vec![f64::NAN; (ITERATIONS + 1) * n_planes];
        let launched = RefCell::new(0);
        let run = |kernel: &str, grid: [u32; 3], args: &mut [Arg<'_>]| {
            *launched.borrow_mut() += 1;
            launch(&name(kernel), grid, BLOCK, args, schedule)
        };
        let vectors = [n_blocks as u32, 1, z];
        let mut inverse = vec![f32::NAN; n];
        run(
            "sense_diagonal_f32",
            vectors,
            &mut [
                Arg::input(&self.csm),
                Arg::output(&mut inverse),
                int(n_coils),
                int(plane),
                Arg::F32(self.mean_weight),
                Arg::F32(lambda),
            ],
        )?;
        run(
            "cg_begin_c32",
            vectors,
            &mut [
                Arg::input(&r),
                Arg::input(&inverse),
                Arg::output(&mut x),
                Arg::output(&mut p),
                Arg::output(&mut parts),
                int(plane),
            ],
        )?;
        run(
            "cg_start_f64",
            [1, 1, z],
            &mut [Arg::input(&parts), Arg::output(&mut rho), int(n_blocks)],
        )?;
        for iteration in 0..ITERATIONS {
            run(
                "sense_rows_forward_c32",
                [row_blocks, n_coils as u32, z],
                &mut [
                    Arg::input(&self.csm),
                    Arg::input(&p),
                    Arg::input(&plan1.twiddles),
                    Arg::output(&mut work),
                    int(n2),
                    int(n1),
                    Arg::I32(plan1.radices),
                    int(lines1),
                ],
            )?;
            run(
                "sense_columns_c32",
                [blocks(n1, lines2), n_coils as u32, z],
                &mut [
                    Arg::output(&mut work),
                    Arg::input(&self.weights),
                    Arg::input(&plan2.twiddles),
                    int(n2),
                    int(n1),
                    Arg::I32(plan2.radices),
                    int(lines2),
                ],
            )?;
            run(
                "sense_rows_adjoint_c32",
                [row_blocks, 1, z],
                &mut [
                    Arg::input(&work),
                    Arg::input(&self.csm),
                    Arg::input(&p),
                    Arg::input(&plan1.twiddles),
                    Arg::output(&mut q),
                    Arg::output(&mut of_rows),
                    int(n_coils),
                    int(n2),
                    int(n1),
                    Arg::I32(plan1.radices),
                    int(lines1),
                    Arg::F32(lambda),
                ],
            )?;
            run(
                "cg_step_c32",
                vectors,
                &mut [
                    Arg::input(&p),
                    Arg::input(&q),
                    Arg::input(&inverse),
                    Arg::input(&of_rows),
                    Arg::input(&rho),
                    Arg::input(&limits),
                    Arg::output(&mut x),
                    Arg::output(&mut r),
                    Arg::output(&mut parts),
                    int(plane),
                    int(row_blocks as usize),
                    int(iteration),
                ],
            )?;
            run(
                "cg_direction_c32",
                vectors,
                &mut [
                    Arg::input(&r),
                    Arg::input(&inverse),
                    Arg::input(&parts),
                    Arg::input(&limits),
                    Arg::output(&mut rho),
                    Arg::output(&mut p),
                    int(plane),
                    int(n_blocks),
                    int(iteration),
                ],
            )?;
        }
        let start = &rho[..n_planes];
        let end = &rho[ITERATIONS * n_planes..];
        let is_solved = start
            .iter()
            .zip(end)
            .all(|(s, e)| *e >= 0.0 && e <= &(s * 1e-12));
        let ended = output("arrived", &[f32::from(u8::from(is_solved))], &[1.0]);
        Ok(vec![complex_output("x", &x, &self.truth), ended])
    }
}
