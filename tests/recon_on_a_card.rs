//! What a card reconstructs is what the CPU reconstructs, and what a card cannot finish is said.
//!
//! Promised to: a host with a card. Runs through the emulated driver, as `use_a_card.rs`.

use cauda::data::{Complex32, Frame, KSpace, Line, ReconImage, Scan, Shape};
use cauda::device::cuda::Compiler;
use cauda::device::{Backend, CardUse, Device, Policy};
use cauda::num::fft::{Direction, fft3};
use cauda::num::rng::Rng;
use cauda::num::testing::{nrmse, nrmse_real};
use cauda::recon::sense::Lambda;
use cauda::recon::{Calibrations, Keep, Method, Recon, ReconError, ReconParams};

use crate::golden_values::slice;
use crate::use_a_card::{card, on_card, with_card};

/// Grid (pe2, pe1, ro), whether calibration lines are a scan of their own, and the mask.
struct Case {
    name: &'static str,
    grid: [usize; 3],
    is_separate: bool,
    is_measured: fn([usize; 2]) -> bool,
    needs_noise: bool,
}

const CASES: [Case; 5] = [
    Case {
        name: "lattice, every second line",
        grid: [1, 24, 16],
        is_separate: true,
        is_measured: |[_, k1]| k1 % 2 == 0,
        needs_noise: true,
    },
    Case {
        name: "lattice, every third line, odd readout",
        grid: [1, 27, 15],
        is_separate: true,
        is_measured: |[_, k1]| k1 % 3 == 1,
        needs_noise: true,
    },
    Case {
        name: "lattice over two axes",
        grid: [12, 16, 6],
        is_separate: true,
        is_measured: |[k2, k1]| k2 % 2 == 1 && k1 % 2 == 0,
        needs_noise: true,
    },
    Case {
        name: "along one axis, with calibration lines",
        grid: [1, 30, 14],
        is_separate: false,
        is_measured: |[_, k1]| k1 % 3 == 0 || k1.abs_diff(15) < 6,
        needs_noise: true,
    },
    Case {
        name: "over two axes, irregular",
        grid: [14, 15, 5],
        is_separate: false,
        is_measured: |[k2, k1]| {
            (k2 * 7 + k1 * 5) % 3 != 1 || (k2.abs_diff(7) < 5 && k1.abs_diff(7) < 5)
        },
        needs_noise: false,
    },
];

const COILS: usize = 4;

/// Smooth coils over a smooth object with an edge, and a little noise.
fn lines(grid: [usize; 3], is_measured: impl Fn([usize; 2]) -> bool) -> KSpace {
    lines_of(COILS, grid, is_measured)
}

pub(crate) fn lines_of(
    n_coils: usize,
    grid: [usize; 3],
    is_measured: impl Fn([usize; 2]) -> bool,
) -> KSpace {
    let [n2, n1, ro] = grid;
    let at = |i: usize, n: usize| (i as f32 + 0.5) / n as f32 - 0.5;
    let mut full: Vec<Complex32> = (0..n_coils * n2 * n1 * ro)
        .map(|i| {
            let (coil, z, y, x) = (
                i / (n2 * n1 * ro),
                at(i / (n1 * ro) % n2, n2),
                at(i / ro % n1, n1),
                at(i % ro, ro),
            );
            if x * x + y * y + z * z > 0.16 {
                return Complex32::ZERO;
            }
            let turn = coil as f32 * std::f32::consts::TAU / n_coils as f32;
            let (sin, cos) = turn.sin_cos();
            let near = (-3.0 * ((x - 0.4 * cos).powi(2) + (y - 0.4 * sin).powi(2) + z * z)).exp();
            Complex32::from_polar(60.0 * near * (1.0 + x - y * z), turn + x + 2.0 * y)
        })
        .collect();
    fft3(&mut full, n2, n1, ro, Direction::Forward);
    let noise = Rng::new(3).complex(full.len());
    let lines: Vec<Line> = (0..n2 * n1)
        .filter(|i| is_measured([i / n1, i % n1]))
        .map(|i| Line {
            pe2: (i / n1) as u32,
            pe1: (i % n1) as u32,
            averages: 2,
        })
        .collect();
    let samples = (0..n_coils)
        .flat_map(|coil| {
            let (full, noise) = (&full, &noise);
            lines.iter().flat_map(move |l| {
                let row = coil * n2 * n1 + l.pe2 as usize * n1 + l.pe1 as usize;
                let row = row * ro..(row + 1) * ro;
                full[row.clone()]
                    .iter()
                    .zip(&noise[row])
                    .map(|(v, n)| v + n)
            })
        })
        .collect();
    KSpace {
        shape: Shape {
            coil: n_coils,
            pe2: n2,
            pe1: n1,
            ro,
        },
        ro_range: 0..ro,
        samples,
        lines,
    }
}

fn frame(case: &Case) -> (Scan, Frame) {
    let [n2, n1, _] = case.grid;
    let (scan, mut frame) = slice(lines(case.grid, case.is_measured));
    let is_central = |[k2, k1]: [usize; 2]| k2.abs_diff(n2 / 2) < 6 && k1.abs_diff(n1 / 2) < 6;
    frame.reference = case.is_separate.then(|| lines(case.grid, is_central));
    (scan, frame)
}

fn params(case: &Case) -> ReconParams {
    let mut params = ReconParams {
        method: Method::CgSense,
        ..ReconParams::default()
    };
    if case.is_separate {
        params.method = Method::Sense;
    }
    // Products of matrices take long in the emulator.
    params.csm.window = 3;
    params.sense.lambda = Lambda::Fixed(0.01);
    params.sense.tolerance = 1e-5;
    params.sense.max_iterations = 100;
    params.sense.noise_map = case.needs_noise;
    params
}

fn device(backend: Backend, on_fault: Policy) -> Device {
    Device {
        card: CardUse::choose(backend, on_fault).unwrap(),
        ..Device::detect()
    }
}

fn recon(case: &Case, device: &Device) -> Result<ReconImage, ReconError> {
    let (scan, frame) = frame(case);
    Recon::plan(&scan, &frame, &params(case), device)?.run(&frame)
}

pub(crate) fn backend(image: &ReconImage) -> &'static str {
    backend_of(image, "recon/sense")
}

fn backend_of(image: &ReconImage, op: &str) -> &'static str {
    let mut steps = image.provenance.steps.iter();
    steps.find(|s| s.op == op).unwrap().backend
}

#[test]
fn sense_on_a_card_is_sense_on_the_cpu() {
    for seed in ["0", "1"] {
        let Some(ran) = on_card(
            "recon_on_a_card::sense_on_a_card_is_sense_on_the_cpu",
            &[("CAUDA_EMU_SEED", seed)],
            || {
                let card = device(Backend::Cuda, Policy::Fail);
                // Another order of streams, on what the emulator does quickly.
                let is_first = std::env::var("CAUDA_EMU_SEED").as_deref() == Ok("0");
                let n = if is_first { CASES.len() } else { 2 };
                for case in &CASES[..n] {
                    let ours = recon(case, &card).unwrap();
                    let truth = recon(case, &Device::detect()).unwrap();
                    assert_eq!([backend(&ours), backend(&truth)], ["cuda", "cpu"]);
                    assert_eq!(backend_of(&ours, "recon/csm"), "cuda");
                    let error = nrmse(&ours.voxels, &truth.voxels);
                    // Maps of its own, whose kernels are held to 2e-3; with the same maps: check_a_card.rs.
                    assert!(error < 2e-3, "{}: {error:.1e}", case.name);
                    if case.needs_noise {
                        let of = |i: &ReconImage| {
                            (i.noise_std.clone().unwrap(), i.gfactor.clone().unwrap())
                        };
                        let ((a, g), (b, h)) = (of(&ours), of(&truth));
                        // Replicas respond to noise of their own size, which each side chooses by what it has.
                        let limit = if case.is_separate { 2e-3 } else { 1e-2 };
                        let errors = [nrmse_real(&a, &b), nrmse_real(&g, &h)];
                        assert!(
                            errors.iter().all(|e| *e < limit),
                            "{}: {errors:?}",
                            case.name
                        );
                    }
                }
                String::new()
            },
        ) else {
            return;
        };
        ran.clean();
    }
}

/// Frames of a series that share a reference: grid, every how many lines, the first of them, and lines measured beside the
/// pattern.
const SERIES: [([usize; 3], usize, usize, &[usize]); 4] = [
    ([1, 24, 16], 2, 0, &[]),
    ([1, 27, 15], 3, 1, &[]),
    ([1, 30, 14], 3, 0, &[13, 14, 16, 17]),
    // The pattern does not close over the grid.
    ([1, 25, 12], 2, 1, &[12]),
];

#[test]
fn grappa_on_a_card_is_grappa_on_the_cpu_for_frames_that_share_weights() {
    let name =
        "recon_on_a_card::grappa_on_a_card_is_grappa_on_the_cpu_for_frames_that_share_weights";
    for seed in ["0", "1"] {
        let Some(ran) = on_card(name, &[("CAUDA_EMU_SEED", seed)], || {
            let card = device(Backend::Auto, Policy::Fail);
            for (grid, step, first, beside) in SERIES {
                let n1 = grid[1];
                let lines_of_frame =
                    lines(grid, |[_, k1]| k1 % step == first || beside.contains(&k1));
                let (scan, mut frame) = slice(lines_of_frame);
                frame.reference = Some(lines(grid, |[_, k1]| k1.abs_diff(n1 / 2) < 8));
                let params = ReconParams {
                    method: Method::Grappa,
                    ..ReconParams::default()
                };
                let plans = [&card, &Device::detect()]
                    .map(|d| Recon::plan(&scan, &frame, &params, d).unwrap());
                let known = [(); 2].map(|()| Calibrations::new(Keep::References, 1 << 30));
                for repetition in 0..5u16 {
                    frame.key.repetition = repetition;
                    let samples = &mut frame.kspace.samples;
                    // Other samples of the same energy: the weights are the same.
                    let turn = Complex32::from_polar(1.0, 1.0 + f32::from(repetition));
                    samples.iter_mut().for_each(|v| *v *= turn);
                    let [ours, truth] =
                        [0, 1].map(|i| plans[i].run_with(&frame, &known[i]).unwrap());
                    let ran = |i: &ReconImage| backend_of(i, "recon/grappa/unmix");
                    let expected = if repetition > 2 { "cuda" } else { ran(&ours) };
                    assert_eq!(
                        [ran(&ours), ran(&truth)],
                        [expected, "cpu"],
                        "{grid:?} {repetition}"
                    );
                    let error = nrmse(&ours.voxels, &truth.voxels);
                    assert!(error < 1e-5, "{grid:?} {repetition}: {error:.1e}");
                    assert!(ours.noise_std == truth.noise_std);
                }
            }
            String::new()
        }) else {
            return;
        };
        ran.clean();
    }
}

#[test]
fn a_card_that_fails_ends_the_frame_or_leaves_it_to_the_cpu() {
    let name = "recon_on_a_card::a_card_that_fails_ends_the_frame_or_leaves_it_to_the_cpu";
    for fault in ["enqueue:2", "launch:2", "copy:3", "pinned:2", "load:1"] {
        let Some(ran) = on_card(name, &[("CAUDA_EMU_FAIL", fault)], || {
            let fails = recon(&CASES[0], &device(Backend::Cuda, Policy::Fail));
            let Err(ReconError::Card { message }) = fails else {
                panic!("no fault of the card: {:?}", fails.err())
            };
            assert!(message.contains("finish_on_cpu"), "{message}");
            // The fault was the first frame's only, and a card that was lost is opened again.
            let image = recon(&CASES[0], &device(Backend::Cuda, Policy::Fail)).unwrap();
            assert_eq!(backend(&image), "cuda");
            message
        }) else {
            return;
        };
        let said = ran.clean().said;
        assert!(said.contains("Emulated card"), "{fault}: {said}");
    }
}

#[test]
fn the_cpu_finishes_what_a_card_cannot_and_says_so() {
    let name = "recon_on_a_card::the_cpu_finishes_what_a_card_cannot_and_says_so";
    for fault in ["launch:2", "copy:3"] {
        let Some(ran) = on_card(name, &[("CAUDA_EMU_FAIL", fault)], || {
            let card = device(Backend::Auto, Policy::FinishOnCpu);
            let image = recon(&CASES[0], &card).unwrap();
            let truth = recon(&CASES[0], &Device::detect()).unwrap();
            assert!(image.voxels == truth.voxels);
            assert_eq!(backend(&image), "cpu");
            let notes = image.provenance.notes;
            let said = notes.iter().find(|n| n.code == "card_failed").unwrap();
            said.text.clone()
        }) else {
            return;
        };
        let said = ran.clean().said;
        assert!(said.contains("Emulated card"), "{fault}: {said}");
    }
}

/// Not faults: without enough memory, or images of the kernels and a compiler, `auto` is the CPU and says why.
#[test]
fn a_card_that_cannot_be_used_is_no_fault_unless_it_must() {
    let name = "recon_on_a_card::a_card_that_cannot_be_used_is_no_fault_unless_it_must";
    let empty = tempfile::tempdir().unwrap();
    let nowhere = empty.path().display().to_string();
    let mut cards = vec![([("CAUDA_EMU_MEMORY_MIB", "0")], "GPU memory")];
    // Where there is a compiler, images are never missing.
    if Compiler::find().is_err() {
        cards.push(([("CAUDA_KERNELS", nowhere.as_str())], "no image"));
    }
    for (env, said) in cards {
        let Some(ran) = on_card(name, &env, || {
            let found = recon(&CASES[0], &device(Backend::Auto, Policy::Fail)).unwrap();
            let truth = recon(&CASES[0], &Device::detect()).unwrap();
            assert!(found.voxels == truth.voxels && backend(&found) == "cpu");
            let notes = found.provenance.notes.iter();
            let why: Vec<&str> = notes
                .filter(|n| n.code == "not_on_the_card")
                .map(|n| n.text.as_str())
                .collect();
            let must = recon(&CASES[0], &device(Backend::Cuda, Policy::FinishOnCpu));
            let refused = must.expect_err("a card is required").to_string();
            format!("{}\n{refused}", why.join("\n"))
        }) else {
            return;
        };
        let words = ran.clean().said;
        assert!(
            words.lines().count() > 1 && words.lines().all(|l| l.contains(said)),
            "{words}"
        );
    }
}

#[test]
fn what_a_card_has_no_kernels_for_is_refused_if_it_must_and_planned_for_the_cpu_if_not() {
    let name = "recon_on_a_card::what_a_card_has_no_kernels_for_is_refused_if_it_must_and_planned_for_the_cpu_if_not";
    let ran = on_card(name, &[], || {
        let (scan, frame) = frame(&CASES[4]);
        let mut params = params(&CASES[4]);
        params.sense.noise_map = true;
        let plan = |backend| Recon::plan(&scan, &frame, &params, &device(backend, Policy::Fail));
        let refused = plan(Backend::Cuda).unwrap_err().to_string();
        assert!(
            refused.contains("noise maps of irregular masks over two axes"),
            "{refused}"
        );
        let plan = plan(Backend::Auto).unwrap();
        assert!(plan.recipes().iter().all(|r| r.backend == "cpu"));
        assert!(
            plan.recipes()[0]
                .reason
                .contains("noise maps of irregular masks")
        );
        assert_eq!(backend(&plan.run(&frame).unwrap()), "cpu");
        refused
    });
    if let Some(ran) = ran {
        ran.clean();
    }
}

/// `cauda` with these words; with the card whose folder is given.
fn program(words: &[&str], card: Option<&std::path::Path>) -> (Option<i32>, String) {
    program_with(words, card, "")
}

/// [`program`], whose card fails so.
fn program_with(
    words: &[&str],
    card: Option<&std::path::Path>,
    fail: &str,
) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cauda"));
    command.env("CAUDA_EMU_FAIL", fail);
    match card {
        Some(card) => with_card(&mut command, card),
        // Whatever this machine has.
        None => drop(command.env("CUDA_VISIBLE_DEVICES", "")),
    }
    let output = command.args(words).output().unwrap();
    let words = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&words).into())
}

#[test]
fn the_program_reconstructs_a_file_on_a_card_and_says_so() {
    let dir = card();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let scan = at("scan.h5");
    let made = program(
        &[
            "simulate",
            &scan,
            "--set",
            "n_slices=1",
            "--set",
            "acceleration=[2,1]",
        ],
        None,
    );
    assert_eq!(made.0, Some(0), "{}", made.1);
    let recon = |out: &str, prefer: &str, card| {
        let prefer = format!("device.prefer={prefer}");
        let words = [
            "recon",
            &scan,
            "-o",
            out,
            "--set",
            "recon.method=cg_sense",
            "--set",
        ];
        let rest = [&prefer, "--set", "recon.sense.noise_map=false", "--json"];
        program(&[&words[..], &rest[..]].concat(), card)
    };
    let (ours, truth) = (at("card.npy"), at("cpu.npy"));
    let (code, report) = recon(&ours, "cuda", Some(dir.path()));
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("\"cuda\""), "{report}");
    let (code, report) = recon(&truth, "cpu", Some(dir.path()));
    assert!(code == Some(0) && !report.contains("\"cuda\""), "{report}");
    let (code, said) = program(&["compare", &ours, &truth, "--nrmse", "2e-3"], None);
    assert_eq!(code, Some(0), "{said}");
    let report = std::fs::read_to_string(dir.path().join("report")).unwrap();
    assert!(report.ends_with("released; left: nothing\n"), "{report}");
    // Without a card: refused, and nothing written.
    let (code, said) = recon(&at("none.npy"), "cuda", None);
    assert!(code == Some(4) && said.contains("device.prefer"), "{said}");
    assert!(!dir.path().join("none.npy").exists());
}

#[test]
fn a_server_unmixes_on_its_card_what_comes_after_the_first_frames() {
    let dir = card();
    let words = "bench --frames 6 --warm-up 3 --coils 4 --matrix 48 --accel 2 --rate 20 --json";
    let words: Vec<&str> = words.split(' ').collect();
    // That the card is used shows where it fails: with the first launch, which is not the first frame's.
    let (code, report) = program_with(&words, Some(dir.path()), "launch:1");
    assert!(
        code != Some(0) && report.contains("Emulated card"),
        "{report}"
    );
    let (code, report) = program(&words, Some(dir.path()));
    assert_eq!(code, Some(0), "{report}");
    let report = std::fs::read_to_string(dir.path().join("report")).unwrap();
    assert!(report.ends_with("released; left: nothing\n"), "{report}");
}
