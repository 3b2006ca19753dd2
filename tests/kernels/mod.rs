//! Every CUDA kernel, run on the CPU by the emulator, gives what the operator gives, whatever order its threads run in.
//!
//! Promised to: everyone who has no CUDA card at hand and changes a kernel or the operator behind it. Wrong twins of the
//! kernels (`kernels/emu/build.rs`) must fail the same cases.

use std::collections::{BTreeMap, BTreeSet};

use cauda::data::{Complex32, Csm, KSpace, Line, Shape};
use cauda::device::cuda::KERNELS;
use cauda::num::fft::{Direction, Fft};
use cauda::num::linalg::mix;
use cauda::num::rng::Rng;
use cauda::num::testing::nrmse_real;
use cauda::recon::sense::{Lambda, Sense, SenseParams, SenseSolver};
use kernel_emu::{Arg, SCHEDULES, kernels};

use on::launch;
pub(crate) use on::{Card, On};

mod on;
mod space;
mod transforms;

/// Whatever was not written is not a number.
const NAN: Complex32 = Complex32::new(f32::NAN, f32::NAN);

/// What a kernel wrote, and what it should have written.
struct Output {
    name: &'static str,
    found: Vec<f32>,
    truth: Vec<f32>,
}

fn output(name: &'static str, found: &[f32], truth: &[f32]) -> Output {
    Output {
        name,
        found: found.to_vec(),
        truth: truth.to_vec(),
    }
}

fn complex_output(name: &'static str, found: &[Complex32], truth: &[Complex32]) -> Output {
    output(name, parts(found), parts(truth))
}

fn parts(v: &[Complex32]) -> &[f32] {
    bytemuck::cast_slice(v)
}

type Run = dyn Fn(&str, On<'_>) -> Result<Vec<Output>, String>;

/// One launch of a kernel, or of a twin of it; or a chain of launches.
struct Case {
    kernel: String,
    /// What else the chain launches.
    others: &'static [&'static str],
    what: String,
    run: Box<Run>,
}

impl Case {
    fn new(
        kernel: &str,
        what: String,
        run: impl Fn(&str, On<'_>) -> Result<Vec<Output>, String> + 'static,
    ) -> Self {
        Self {
            kernel: kernel.to_owned(),
            others: &[],
            what,
            run: Box::new(run),
        }
    }

    fn covers(&self, kernel: &str) -> bool {
        self.kernel == kernel || self.others.contains(&kernel)
    }

    /// What it gave, and its largest error; or why `kernel` does not pass.
    fn run(&self, kernel: &str, on: On<'_>, tolerance: f64) -> Result<(Vec<Output>, f64), String> {
        let outputs = (self.run)(kernel, on)?;
        let mut most = 0.0;
        for o in &outputs {
            let error = nrmse_real(&o.found, &o.truth);
            if error > tolerance || error.is_nan() {
                return Err(format!(
                    "{}: error {error:.2e} above {tolerance:.0e}",
                    o.name
                ));
            }
            most = f64::max(most, error);
        }
        Ok((outputs, most))
    }

    /// Why `kernel` does not pass in the emulator, if it does not.
    fn check(&self, kernel: &str, tolerance: f64) -> Result<(), String> {
        let mut first: Option<Vec<Output>> = None;
        for schedule in SCHEDULES {
            let outputs = self.run(kernel, On::Emulator(schedule), tolerance)?.0;
            match &first {
                Some(f) if bits(f) != bits(&outputs) => {
                    return Err(format!("{schedule:?} differs from {:?}", SCHEDULES[0]));
                }
                Some(_) => {}
                None => first = Some(outputs),
            }
        }
        Ok(())
    }
}

fn bits(all: &[Output]) -> Vec<u32> {
    let values = all.iter().flat_map(|o| &o.found);
    values.map(|v| v.to_bits()).collect()
}

fn blocks(n: usize, per_block: usize) -> u32 {
    n.div_ceil(per_block) as u32
}

fn int(n: usize) -> Arg<'static> {
    Arg::I32(i32::try_from(n).unwrap())
}

/// out, in, samples: one, primes, odd, over the border of a block, of a row of blocks, of a tile.
const MIXES: [[usize; 3]; 9] = [
    [1, 1, 1],
    [1, 3, 2],
    [2, 2, 7],
    [5, 7, 13],
    [8, 16, 300],
    [16, 16, 512],
    [17, 16, 257],
    [20, 70, 31],
    [33, 130, 6],
];

fn whiten_cases() -> impl Iterator<Item = Case> {
    MIXES.into_iter().map(|[n_out, n_in, n]| {
        let mut rng = Rng::new(1);
        let matrix = rng.complex(n_out * n_in);
        let input = rng.complex(n_in * n);
        let mut truth = vec![NAN; n_out * n];
        mix(&matrix, n_in, &input, &mut truth);
        let what = format!("{n_out} x {n_in}, {n} samples");
        Case::new("whiten_c32", what, move |kernel, schedule| {
            let mut out = vec![NAN; n_out * n];
            let args = &mut [
                Arg::input(&matrix),
                Arg::input(&input),
                Arg::output(&mut out),
                int(n_out),
                int(n_in),
                int(n),
            ];
            let grid = [blocks(n, 256), blocks(n_out, 16), 1];
            launch(kernel, grid, [128, 1, 1], args, schedule)?;
            Ok(vec![complex_output("out", &out, &truth)])
        })
    })
}

/// Coils, voxels.
const COMBINATIONS: [[usize; 2]; 6] = [[1, 1], [2, 2], [3, 7], [16, 512], [5, 1025], [16, 1030]];

fn combine_cases() -> impl Iterator<Item = Case> {
    COMBINATIONS.into_iter().flat_map(|[n_coils, n]| {
        let mut rng = Rng::new(2);
        let images = rng.complex(n_coils * n);
        let mut csm = rng.complex(n_coils * n);
        // A voxel that no coil sees.
        csm.iter_mut().step_by(n).for_each(|v| *v = Complex32::ZERO);
        if n == 1 {
            csm = rng.complex(n_coils);
        }
        let (mut sum, mut power, mut square) =
            (vec![Complex32::ZERO; n], vec![0.0f32; n], vec![0.0f32; n]);
        for (i, (m, s)) in images.iter().zip(&csm).enumerate() {
            sum[i % n] += s.conj() * m;
            power[i % n] += s.norm_sqr();
            square[i % n] += m.norm_sqr();
        }
        let gain_truth: Vec<f32> = power.iter().map(|v| v.sqrt()).collect();
        let rss_truth: Vec<f32> = square.iter().map(|v| v.sqrt()).collect();
        let what = format!("{n_coils} coils, {n} voxels");
        let grid = [blocks(n, 512), 1, 1];
        let of_rss = images.clone();
        let weighted = Case::new("combine_csm_c32", what.clone(), move |kernel, schedule| {
            let (mut out, mut gain) = (vec![NAN; n], vec![f32::NAN; n]);
            let args = &mut [
                Arg::input(&images),
                Arg::input(&csm),
                Arg::output(&mut out),
                Arg::output(&mut gain),
                int(n_coils),
                int(n),
            ];
            launch(kernel, grid, [256, 1, 1], args, schedule)?;
            Ok(vec![
                complex_output("out", &out, &sum),
                output("gain", &gain, &gain_truth),
            ])
        });
        let rss = Case::new("combine_rss_c32", what, move |kernel, schedule| {
            let mut out = vec![f32::NAN; n];
            let args = &mut [
                Arg::input(&of_rss),
                Arg::output(&mut out),
                int(n_coils),
                int(n),
            ];
            launch(kernel, grid, [256, 1, 1], args, schedule)?;
            Ok(vec![output("magnitude", &out, &rss_truth)])
        });
        [weighted, rss]
    })
}

/// Coils, folds, rows of the folded image, columns.
const UNMIXINGS: [[usize; 4]; 7] = [
    [1, 1, 1, 1],
    [2, 2, 3, 5],
    [3, 3, 7, 16],
    [4, 4, 10, 33],
    [2, 5, 4, 6],
    [16, 6, 5, 64],
    [3, 9, 2, 130],
];

fn unmix_cases() -> impl Iterator<Item = Case> {
    UNMIXINGS
        .into_iter()
        .map(|[n_coils, n_folds, n_rows, n_x]| {
            let n_y = n_folds * n_rows;
            let mut rng = Rng::new(3);
            let folded = rng.complex(n_coils * n_rows * n_x);
            let weights = rng.complex(n_coils * n_y * n_x);
            let turn: Vec<Complex32> = rng.complex(n_y).iter().map(|v| v / v.norm()).collect();
            let mut truth = vec![Complex32::ZERO; n_y * n_x];
            for (i, w) in weights.iter().enumerate() {
                let (c, y, x) = (i / n_x / n_y, i / n_x % n_y, i % n_x);
                truth[y * n_x + x] += turn[y] * w * folded[(c * n_rows + y % n_rows) * n_x + x];
            }
            let what = format!("{n_coils} coils, {n_folds} folds of {n_rows} x {n_x}");
            Case::new("grappa_unmix_c32", what, move |kernel, schedule| {
                let mut out = vec![NAN; n_y * n_x];
                let args = &mut [
                    Arg::input(&folded),
                    Arg::input(&weights),
                    Arg::input(&turn),
                    Arg::output(&mut out),
                    int(n_coils),
                    int(n_folds),
                    int(n_rows),
                    int(n_x),
                ];
                let grid = [blocks(n_rows * n_x.div_ceil(2), 128), 1, blocks(n_folds, 4)];
                launch(kernel, grid, [128, 1, 1], args, schedule)?;
                Ok(vec![complex_output("out", &out, &truth)])
            })
        })
}

/// Coils, grid (pe2, pe1, ro), reduction (pe2, pe1), first line.
type Unfolding = (usize, [usize; 3], [usize; 2], [usize; 2]);
const UNFOLDINGS: [Unfolding; 13] = [
    (1, [1, 1, 1], [1, 1], [0, 0]),
    (4, [1, 13, 5], [1, 1], [0, 0]),
    (4, [1, 14, 11], [1, 2], [0, 1]),
    (5, [1, 21, 9], [1, 3], [0, 2]),
    (16, [1, 40, 33], [1, 4], [0, 1]),
    (8, [1, 25, 7], [1, 5], [0, 3]),
    (12, [1, 30, 8], [1, 6], [0, 0]),
    (12, [1, 35, 9], [1, 7], [0, 5]),
    (16, [1, 40, 10], [1, 8], [0, 2]),
    (8, [6, 10, 9], [2, 1], [0, 0]),
    (8, [6, 10, 9], [2, 2], [0, 1]),
    (16, [6, 12, 5], [3, 2], [2, 1]),
    (16, [8, 12, 9], [2, 4], [1, 3]),
];

const LAMBDA: f32 = 1e-3;

/// What a lattice's plan knows: see `recon/sense/lattice.rs`.
struct Folding {
    members: Vec<i32>,
    phase: Vec<Complex32>,
    /// `[coil, row, pe1, x]`.
    folded: Vec<Complex32>,
}

fn fold(kspace: &KSpace, reduction: [usize; 2], first: [usize; 2]) -> Folding {
    let grid = [kspace.shape.pe2, kspace.shape.pe1];
    let (n_x, n_lines) = (kspace.shape.ro, kspace.lines.len());
    // The lattice's line next to the centre, from which its lines are counted.
    let origin = [0, 1].map(|a| {
        let centre = grid[a] / 2;
        (0..=centre)
            .rev()
            .find(|k| k % reduction[a] == first[a])
            .unwrap()
    });
    let domain = [0, 1].map(|a| grid[a] / reduction[a]);
    let cis = |turns: f64| {
        let (sin, cos) = (std::f64::consts::TAU * turns).sin_cos();
        Complex32::new(cos as f32, sin as f32)
    };
    let counted = |a: usize, k: u32| (k as usize + grid[a] - origin[a]) % grid[a];
    let mut hybrid = kspace.samples.clone();
    Fft::plan(n_x, Direction::Inverse).run_rows(&mut hybrid);
    let n_domain = domain[0] * domain[1];
    let mut folded = vec![Complex32::ZERO; kspace.shape.coil * n_domain * n_x];
    for (i, row) in folded.chunks_exact_mut(n_x).enumerate() {
        let (coil, at) = (i / n_domain, [i % n_domain / domain[1], i % domain[1]]);
        for (l, line) in kspace.lines.iter().enumerate() {
            let k = [counted(0, line.pe2), counted(1, line.pe1)];
            let turns = |a: usize| {
                let back = (k[a] * (grid[a] / 2) % grid[a]) as f64 / grid[a] as f64;
                let step = (k[a] / reduction[a] * at[a] % domain[a]) as f64 / domain[a] as f64;
                step - back
            };
            let factor = cis(turns(0) + turns(1)) / (n_domain as f32).sqrt();
            let samples = &hybrid[(coil * n_lines + l) * n_x..][..n_x];
            for (r, v) in row.iter_mut().zip(samples) {
                *r += v * factor;
            }
        }
    }
    let mut members = Vec::new();
    for j in 0..reduction[0] {
        for m in 0..reduction[1] {
            for z in 0..domain[0] {
                members.push(((z + j * domain[0]) * grid[1] + m * domain[1]) as i32);
            }
        }
    }
    let phase = (0..grid[0] * grid[1])
        .map(|r| {
            let at = [r / grid[1], r % grid[1]];
            let turns = |a: usize| {
                let c = (grid[a] / 2) as f64;
                (origin[a] as f64 - c) * (at[a] as f64 - c) / grid[a] as f64
            };
            cis(turns(0) + turns(1))
        })
        .collect();
    Folding {
        members,
        phase,
        folded,
    }
}

/// Maps of unit norm, random because then nothing is symmetric, but alike, so that g-factors are high; some voxels see
/// nothing.
fn maps(n_coils: usize, matrix: [usize; 3]) -> Csm {
    let n: usize = matrix.iter().product();
    let mut rng = Rng::new(4);
    let common = rng.complex(n_coils);
    let mut maps = rng.complex(n_coils * n);
    for (i, v) in maps.iter_mut().enumerate() {
        *v = common[i / n] + *v * 0.2;
    }
    for i in 0..n {
        let norm = maps[i..]
            .iter()
            .step_by(n)
            .map(|v| v.norm_sqr())
            .sum::<f32>()
            .sqrt();
        let scale = if n > 1 && i % 11 == 3 {
            0.0
        } else {
            1.0 / norm
        };
        maps[i..].iter_mut().step_by(n).for_each(|v| *v *= scale);
    }
    Csm {
        n_sets: 1,
        n_coils,
        matrix,
        maps,
    }
}

fn unfold_cases() -> impl Iterator<Item = Case> {
    UNFOLDINGS
        .into_iter()
        .flat_map(|(n_coils, grid, reduction, first)| {
            let [n2, n1, n_x] = grid;
            let lines: Vec<Line> = (0..n2 * n1)
                .map(|i| [i / n1, i % n1])
                .filter(|k| [0, 1].iter().all(|&a| k[a] % reduction[a] == first[a]))
                .map(|k| Line {
                    pe2: k[0] as u32,
                    pe1: k[1] as u32,
                    averages: 1,
                })
                .collect();
            let kspace = KSpace {
                shape: Shape {
                    coil: n_coils,
                    pe2: n2,
                    pe1: n1,
                    ro: n_x,
                },
                ro_range: 0..n_x,
                samples: Rng::new(5).complex(n_coils * lines.len() * n_x),
                lines,
            };
            let csm = maps(n_coils, grid);
            let params = SenseParams {
                solver: SenseSolver::Unfold,
                lambda: Lambda::Fixed(LAMBDA),
                ..SenseParams::default()
            };
            let truth = Sense::plan(&kspace, &params)
                .unwrap()
                .run(&kspace, &csm)
                .unwrap();
            let (std_truth, g_truth) = (truth.noise_std.unwrap(), truth.gfactor.unwrap());
            let voxels = truth.voxels;
            let r = reduction[0] * reduction[1];
            let folding = fold(&kspace, reduction, first);
            let (rows, pe1) = (n2 / reduction[0], n1 / reduction[1]);
            let what = format!("{n_coils} coils, {grid:?} over {reduction:?}");
            let launch_grid = [blocks(rows * pe1 * n_x, 128), 1, 1];
            let sizes = move || {
                [
                    int(n_coils),
                    int(rows),
                    int(pe1),
                    int(n_x),
                    int(n2 * n1),
                    Arg::F32(LAMBDA),
                ]
            };
            let (of_noise, members) = (csm.maps.clone(), folding.members.clone());
            let unfold = Case::new(
                &format!("sense_unfold_r{r}"),
                what.clone(),
                move |kernel, schedule| {
                    let mut out = vec![NAN; voxels.len()];
                    let mut args = vec![
                        Arg::input(&folding.folded),
                        Arg::input(&csm.maps),
                        Arg::input(&folding.members),
                        Arg::input(&folding.phase),
                        Arg::output(&mut out),
                    ];
                    args.extend(sizes());
                    launch(kernel, launch_grid, [128, 1, 1], &mut args, schedule)?;
                    Ok(vec![complex_output("out", &out, &voxels)])
                },
            );
            let noise = Case::new(
                &format!("sense_gfactor_r{r}"),
                what,
                move |kernel, schedule| {
                    let (mut std, mut g) =
                        (vec![f32::NAN; g_truth.len()], vec![f32::NAN; g_truth.len()]);
                    let mut args = vec![
                        Arg::input(&of_noise),
                        Arg::input(&members),
                        Arg::output(&mut std),
                        Arg::output(&mut g),
                    ];
                    args.extend(sizes());
                    launch(kernel, launch_grid, [128, 1, 1], &mut args, schedule)?;
                    Ok(vec![
                        output("std", &std, &std_truth),
                        output("gfactor", &g, &g_truth),
                    ])
                },
            );
            [unfold, noise]
        })
}

fn cases() -> Vec<Case> {
    whiten_cases()
        .chain(combine_cases())
        .chain(unmix_cases())
        .chain(unfold_cases())
        .chain(transforms::fft_cases())
        .chain(transforms::line_cases())
        .chain(transforms::beside_cases())
        .chain(transforms::espirit_cases())
        .chain(space::cases())
        .chain(transforms::cg_lines_cases())
        .chain(transforms::cg_planes_cases())
        .collect()
}

/// The tolerance in the head of the source that holds each kernel.
fn tolerances() -> BTreeMap<String, f64> {
    let mut out = BTreeMap::new();
    for file in KERNELS {
        let text = file.text;
        let line = text.lines().find_map(|l| l.strip_prefix("// tolerance "));
        let Some(tolerance) = line.and_then(|l| l.split(' ').next()?.parse().ok()) else {
            continue; // tests/architecture.rs names it
        };
        for kernel in kernels() {
            if text.contains(&format!("{kernel}(")) || text.contains(&format!("({kernel},")) {
                out.insert(kernel.to_owned(), tolerance);
            }
        }
    }
    out
}

/// How many cases of each kernel run through the driver, at most: for tools that make a card a hundred times slower.
const FEWER_CASES: &str = "CAUDA_TEST_CASES";

/// Of each kernel, `most` cases at even distances, with the last one.
fn fewer(cases: Vec<Case>, most: usize) -> Vec<Case> {
    let mut by_kernel: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    for case in cases {
        by_kernel.entry(case.kernel.clone()).or_default().push(case);
    }
    let some = |cases: Vec<Case>| {
        let (n, most) = (cases.len(), most.min(cases.len()));
        let is_kept = move |i: usize| (0..most).any(|k| i == (k + 1) * n / most - 1);
        let kept = cases.into_iter().enumerate();
        kept.filter(move |(i, _)| is_kept(*i)).map(|(_, case)| case)
    };
    by_kernel.into_values().flat_map(some).collect()
}

/// All cases through the driver: values within the tolerance; on the emulated card those of the emulator, to the bit.
/// Gives a row for each kernel.
pub(crate) fn through_the_driver(card: &Card) -> String {
    use std::fmt::Write;
    let (mut cases, tolerances) = (cases(), tolerances());
    if let Some(most) = std::env::var_os(FEWER_CASES) {
        let most: usize = most.to_str().unwrap().parse().unwrap();
        cases = fewer(cases, most);
    }
    let mut rows: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in &cases {
        let tolerance = tolerances[&case.kernel];
        let checked =
            case.run(&case.kernel, On::Card(card), tolerance)
                .and_then(|(found, error)| {
                    let emulated = On::Emulator(SCHEDULES[0]);
                    let is_same = !card.is_emulated()
                        || bits(&found) == bits(&case.run(&case.kernel, emulated, tolerance)?.0);
                    if is_same {
                        Ok(error)
                    } else {
                        Err("other bits than the emulator's".into())
                    }
                });
        match checked {
            Ok(error) => {
                let row = rows.entry(&case.kernel).or_default();
                *row = (row.0 + 1, row.1.max(error));
            }
            Err(why) => wrong.push(format!("{}, {}: {why}", case.kernel, case.what)),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    let launched = card.launched();
    let there: BTreeSet<String> = kernels()
        .into_iter()
        .filter(|k| is_shipped(k))
        .map(String::from)
        .collect();
    assert_eq!(
        launched, there,
        "kernels that were launched, and kernels that there are"
    );
    let mut said = format!(
        "{} cases, {} kernels on {}\n\n| kernel | cases | largest error | tolerance |\n| --- | --- | --- | --- |\n",
        cases.len(),
        launched.len(),
        card.name()
    );
    for (kernel, (n, error)) in &rows {
        let tolerance = tolerances[*kernel];
        writeln!(said, "| {kernel} | {n} | {error:.1e} | {tolerance:.0e} |").unwrap();
    }
    said
}

/// A launch without its last block, as a kernel that ends early, is found out.
pub(crate) fn a_short_launch_fails(card: &Card) {
    let (cases, tolerances) = (cases(), tolerances());
    let case = cases
        .iter()
        .find(|c| c.what == "20 x 70, 31 samples")
        .unwrap();
    let on = On::ShortBy1(card);
    let why = case
        .run(&case.kernel, on, tolerances[&case.kernel])
        .map(|_| ());
    assert!(why.is_err_and(|e| e.contains("error NaN")));
}

fn is_shipped(kernel: &str) -> bool {
    !kernel.starts_with("faulty_") && !kernel.starts_with("twin_")
}

#[test]
fn every_kernel_gives_what_its_operator_gives_under_every_schedule() {
    let (cases, tolerances) = (cases(), tolerances());
    for case in &cases {
        if let Err(why) = case.check(&case.kernel, tolerances[&case.kernel]) {
            panic!("{}, {}: {why}", case.kernel, case.what);
        }
    }
    let run: BTreeSet<&str> = cases
        .iter()
        .flat_map(|c| c.others.iter().copied().chain([c.kernel.as_str()]))
        .collect();
    let there: BTreeSet<&str> = kernels().into_iter().filter(|k| is_shipped(k)).collect();
    eprintln!(
        "{} kernels, {} cases, {} schedules",
        run.len(),
        cases.len(),
        SCHEDULES.len()
    );
    assert!(!there.is_empty(), "no kernel was compiled");
    assert_eq!(
        run, there,
        "kernels with a case, and kernels that were compiled"
    );
}

#[test]
fn wrong_twins_of_the_kernels_are_rejected() {
    let (cases, tolerances) = (cases(), tolerances());
    // A twin is a whole source: it is found out by one of its kernels.
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for name in kernels() {
        let Some((number, kernel)) = name.strip_prefix("twin_").and_then(|n| n.split_once('_'))
        else {
            continue;
        };
        let why = found.entry(number).or_default();
        if why.is_empty() {
            let of_kernel = cases.iter().filter(|c| c.covers(kernel));
            let mut check = |c: &Case| {
                let name = format!("twin_{number}_{}", c.kernel);
                c.check(&name, tolerances[kernel]).err()
            };
            why.extend(of_kernel.filter_map(&mut check).next());
        }
    }
    assert!(!found.is_empty(), "no twin was compiled");
    for (number, why) in &found {
        assert!(
            !why.is_empty(),
            "twin {number} of kernels/emu/build.rs passes"
        );
    }
}
