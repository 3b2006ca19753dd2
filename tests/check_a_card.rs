//! What `scripts/gpu_check.sh` asks of a card: the cases of the kernels, whole frames, memory, replays, what a full card means.
//!
//! Promised to: a site that gets a card. Run by `cargo test`, each check has the emulated card and small sizes; run with
//! CAUDA_TEST_INSIDE=FILE, the card that the machine has, and FILE gets what was found: its first word is the number of cases.
//! Every check fails without a card.

use cauda::data::{Complex32, KSpace, ReconImage};
use cauda::device::cuda::{Accelerator, Arg, Context, Queue};
use cauda::device::{CardUse, Device, Policy};
use cauda::num::rng::Rng;
use cauda::num::testing::{nrmse, nrmse_real};
use cauda::recon::sense::{Lambda, Sense};
use cauda::recon::{Method, Recon, ReconError, ReconParams, csm};

use crate::golden_values::slice;
use crate::kernels::{Card, a_short_launch_fails, through_the_driver};
use crate::recon_on_a_card::{backend, lines_of};
use crate::use_a_card::on_card;

fn check(name: &str, body: impl FnOnce(Card) -> String) {
    let body = || body(Card::open().unwrap());
    if let Some(ran) = on_card(&format!("check_a_card::{name}"), &[], body) {
        let said = ran.clean().said;
        let n = said.split(' ').next().and_then(|n| n.parse().ok());
        assert!(n.is_some_and(|n: usize| n > 0), "{name}: no cases: {said}");
    }
}

#[test]
fn kernels_give_through_the_driver_what_operators_give() {
    check(
        "kernels_give_through_the_driver_what_operators_give",
        |card| {
            a_short_launch_fails(&card);
            through_the_driver(&card)
        },
    );
}

/// What racecheck runs, for it makes a card a hundred times slower.
#[test]
fn fewer_cases_are_of_every_kernel() {
    let test = "check_a_card::fewer_cases_are_of_every_kernel";
    let body = || through_the_driver(&Card::open().unwrap());
    let n_cases = |env: &[(&str, &str)]| {
        let said = on_card(test, env, body).map(|ran| ran.clean().said);
        said.map(|s| s.split(' ').next().unwrap().parse::<usize>().unwrap())
    };
    // Every kernel was launched, or it fails.
    if let Some(one) = n_cases(&[("CAUDA_TEST_CASES", "1")]) {
        let two = n_cases(&[("CAUDA_TEST_CASES", "2")]).unwrap();
        assert!(one < two && two <= 2 * one, "{one}, {two}");
    }
}

fn on(card: &Card, on_fault: Policy, budget_bytes: u64) -> Device {
    let context = Context::open(0, budget_bytes).unwrap();
    assert_eq!(context.card().name, card.name());
    Device {
        card: CardUse::Yes {
            card: Accelerator::new(context).into(),
            is_required: on_fault == Policy::Fail,
            on_fault,
        },
        ..Device::detect()
    }
}

const ROOM: u64 = 2 << 30;
const LAMBDA: f32 = 0.01;

/// Coils, grid, and whether the mask is any (else every fourth line, with maps of noise).
struct Job {
    name: &'static str,
    n_coils: usize,
    grid: [usize; 3],
    is_any: bool,
}

const fn job(name: &'static str, n_coils: usize, grid: [usize; 3], is_any: bool) -> Job {
    Job {
        name,
        n_coils,
        grid,
        is_any,
    }
}

/// Too large for the emulated card, and for no other.
const FULL: [Job; 3] = [
    job(
        "any mask over a plane, 12 coils, 256 x 256",
        12,
        [256, 256, 1],
        true,
    ),
    job(
        "any mask along one axis, 12 coils, 256 x 256",
        12,
        [1, 256, 256],
        true,
    ),
    job(
        "every fourth line, 16 coils, 320 x 320",
        16,
        [1, 320, 320],
        false,
    ),
];
const SMALL: [Job; 3] = [
    job("any mask over a plane", 3, [20, 24, 1], true),
    job("any mask along one axis", 3, [1, 30, 16], true),
    job("every fourth line", 6, [1, 32, 16], false),
];

impl Job {
    /// Lines, and those of the calibration.
    fn lines(&self) -> [KSpace; 2] {
        let [n2, n1, _] = self.grid;
        let centre = [n2, n1].map(|n| (n / 16).max(6));
        let is_central =
            |k: [usize; 2]| k[0].abs_diff(n2 / 2) < centre[0] && k[1].abs_diff(n1 / 2) < centre[1];
        let is_measured = |k: [usize; 2]| match self.is_any {
            true => (k[0] * 7 + k[1] * 5 + k[0] * k[1]).is_multiple_of(4) || is_central(k),
            false => k[1] % 4 == 1,
        };
        [
            lines_of(self.n_coils, self.grid, is_measured),
            lines_of(self.n_coils, self.grid, is_central),
        ]
    }

    fn params(&self) -> ReconParams {
        let mut params = ReconParams {
            method: if self.is_any {
                Method::CgSense
            } else {
                Method::Sense
            },
            ..ReconParams::default()
        };
        if self.grid.iter().product::<usize>() < 1000 {
            // Products of matrices take long in the emulator.
            params.csm.window = 3;
        }
        params.sense.lambda = Lambda::Fixed(LAMBDA);
        // Both sides as near as f32 gets.
        params.sense.tolerance = 1e-6;
        params.sense.max_iterations = 400;
        params.sense.noise_map = !self.is_any;
        params
    }

    /// A whole frame, maps and all.
    fn run(&self, device: &Device) -> Result<ReconImage, ReconError> {
        let [measured, central] = self.lines();
        let (scan, mut frame) = slice(measured);
        if !self.is_any {
            frame.reference = Some(central);
        }
        Recon::plan(&scan, &frame, &self.params(), device)?.run(&frame)
    }

    /// The same with the same maps on both sides: how far the images are apart.
    fn with_the_same_maps(&self, card: &Accelerator) -> f64 {
        let ([measured, central], params) = (self.lines(), self.params());
        let maps = csm::maps(&central, self.grid, &params.csm).unwrap();
        let sense = Sense::plan(&measured, &params.sense).unwrap();
        let truth = sense.run(&measured, &maps).unwrap();
        let ours = sense.run_on(card, &measured, &maps, LAMBDA).unwrap();
        let mut error = nrmse(&ours.voxels, &truth.voxels);
        for (a, b) in [
            (ours.noise_std, truth.noise_std),
            (ours.gfactor, truth.gfactor),
        ] {
            if let (Some(a), Some(b)) = (a, b) {
                error = error.max(nrmse_real(&a, &b));
            }
        }
        error
    }
}

fn jobs(card: &Card) -> &'static [Job] {
    if card.is_emulated() { &SMALL } else { &FULL }
}

#[test]
fn frames_of_real_size_are_those_of_the_cpu() {
    check("frames_of_real_size_are_those_of_the_cpu", |card| {
        let device = on(&card, Policy::Fail, ROOM);
        let mut said = format!(
            "{} frames\n\n| frame | error with the same maps | with maps of its own |\n| --- | --- | --- |\n",
            jobs(&card).len()
        );
        for job in jobs(&card) {
            let (ours, truth) = (
                job.run(&device).unwrap(),
                job.run(&Device::detect()).unwrap(),
            );
            assert_eq!([backend(&ours), backend(&truth)], ["cuda", "cpu"]);
            let CardUse::Yes {
                card: accelerator, ..
            } = &device.card
            else {
                unreachable!()
            };
            let error = job.with_the_same_maps(accelerator);
            assert!(error < 2e-4, "{}: {error:.1e}", job.name);
            // The CPU interpolates maps where that costs no more than 1.4e-3, the card does not: some voxels at the edge of
            // what has a map have one on one side only.
            let whole = nrmse(&ours.voxels, &truth.voxels);
            assert!(whole < 2e-2, "{}: {whole:.1e}", job.name);
            said += &format!("| {} | {error:.1e} | {whole:.1e} |\n", job.name);
        }
        said
    });
}

/// Coils, grid, window, threshold.
const MAPS: [(usize, [usize; 3], usize, f64); 4] = [
    (3, [1, 20, 22], 4, 1e-3),
    (2, [8, 9, 10], 3, 1e-2),
    (4, [1, 18, 18], 3, 0.3),
    // Too low for a card: factorised by the CPU.
    (3, [1, 20, 18], 4, 5e-6),
];
const MAPS_OF_REAL_SIZE: [(usize, [usize; 3], usize, f64); 2] =
    [(16, [1, 320, 320], 6, 1e-3), (8, [1, 200, 256], 6, 1e-2)];

#[test]
fn espirit_maps_of_a_card_are_those_of_the_cpu() {
    check("espirit_maps_of_a_card_are_those_of_the_cpu", |card| {
        let device = on(&card, Policy::Fail, ROOM);
        let CardUse::Yes {
            card: accelerator, ..
        } = &device.card
        else {
            unreachable!()
        };
        let real = MAPS_OF_REAL_SIZE.iter().filter(|_| !card.is_emulated());
        let all: Vec<_> = MAPS.iter().chain(real).collect();
        let mut said = format!(
            "{} sets of maps\n\n| coils, grid | error | kept by one side only |\n| --- | --- | --- |\n",
            all.len()
        );
        for &&(n_coils, grid, window, threshold) in &all {
            let centre = [grid[0].min(8), grid[1].min(24)];
            let acs = lines_of(n_coils, grid, |k| {
                (0..2).all(|d| 2 * k[d].abs_diff(grid[d] / 2) < centre[d])
            });
            let params = csm::CsmParams {
                window,
                threshold,
                crop: 0.7,
                ..csm::CsmParams::default()
            };
            let truth = csm::maps(&acs, grid, &params).unwrap();
            let ours = csm::cuda::maps(accelerator, &acs, grid, &params).unwrap();
            // A voxel at the edge may be kept on one side only.
            let n = grid.iter().product::<usize>();
            let is_kept = |maps: &[Complex32], x: usize| {
                maps.iter().skip(x).step_by(n).any(|v| v.norm() > 0.0)
            };
            let kept: Vec<[bool; 2]> = (0..n)
                .map(|x| [is_kept(&ours.maps, x), is_kept(&truth.maps, x)])
                .collect();
            let both = |maps: &[Complex32]| -> Vec<Complex32> {
                let voxels = maps.iter().enumerate();
                voxels
                    .filter(|(i, _)| kept[i % n] == [true; 2])
                    .map(|(_, v)| *v)
                    .collect()
            };
            let error = nrmse(&both(&ours.maps), &both(&truth.maps));
            let apart = kept.iter().filter(|[a, b]| a != b).count() as f64 / n as f64;
            assert!(
                kept.iter().filter(|k| k[0]).count() > n / 10,
                "{n_coils} coils, {grid:?}: no maps"
            );
            // Interpolation on the CPU: 1.4e-3. Both stop at a residual of 1e-3.
            assert!(
                error < 3e-3 && apart < 5e-3,
                "{n_coils} coils, {grid:?}: {error:.1e}, {apart:.1e}"
            );
            said += &format!(
                "| {n_coils}, {grid:?} | {error:.1e} | {:.2} % |\n",
                100.0 * apart
            );
        }
        said
    });
}

/// What any card can be brought to without harm: it has less memory than the frame needs. No fault of the card: whether a
/// card is required decides.
#[test]
fn a_full_card_refuses_the_frame_or_leaves_it_to_the_cpu() {
    check(
        "a_full_card_refuses_the_frame_or_leaves_it_to_the_cpu",
        |card| {
            let job = &SMALL[2];
            let fails = job.run(&on(&card, Policy::Fail, 1 << 12));
            let Err(ReconError::Card { message }) = fails else {
                panic!("a card without memory: {:?}", fails.err())
            };
            assert!(
                message.contains("4096") && message.contains("device.prefer"),
                "{message}"
            );
            let image = job.run(&on(&card, Policy::FinishOnCpu, 1 << 12)).unwrap();
            let truth = job.run(&Device::detect()).unwrap();
            assert!(image.voxels == truth.voxels && backend(&image) == "cpu");
            assert!(
                image
                    .provenance
                    .notes
                    .iter()
                    .any(|n| n.code == "not_on_the_card" && n.text.contains("4096"))
            );
            // With memory it is as good as before.
            assert_eq!(
                backend(&job.run(&on(&card, Policy::Fail, ROOM)).unwrap()),
                "cuda"
            );
            format!("3 policies\n\n> {message}\n")
        },
    );
}

/// What the driver may round up or keep: less than one frame of [`FULL`] uses.
const SLACK: u64 = 4 << 20;

#[test]
fn memory_of_the_card_stays_flat_over_frames_and_openings() {
    check(
        "memory_of_the_card_stays_flat_over_frames_and_openings",
        |card| {
            let (n_frames, n_openings) = if card.is_emulated() {
                (8, 3)
            } else {
                (100, 10)
            };
            let device = on(&card, Policy::Fail, ROOM);
            let CardUse::Yes {
                card: accelerator, ..
            } = &device.card
            else {
                panic!("no card")
            };
            let context = accelerator.context();
            let state = || {
                (
                    context.card_memory().unwrap().0,
                    context.memory().in_use_bytes,
                )
            };
            let (scan, frame) = slice(lines_of(8, [1, 64, 64], |[_, k]| {
                k % 3 != 1 || k.abs_diff(32) < 6
            }));
            let mut params = ReconParams {
                method: Method::CgSense,
                ..ReconParams::default()
            };
            if card.is_emulated() {
                params.csm.window = 2;
            }
            params.sense.noise_map = false;
            params.sense.lambda = Lambda::Fixed(0.01);
            let plan = Recon::plan(&scan, &frame, &params, &device).unwrap();
            let mut states = Vec::new();
            for _ in 0..n_frames {
                assert_eq!(backend(&plan.run(&frame).unwrap()), "cuda");
                states.push(state());
            }
            let (warm, last) = (states[n_frames / 4], states[n_frames - 1]);
            assert_eq!(warm.1, last.1, "bytes in use");
            assert!(
                warm.0 <= last.0 + SLACK,
                "bytes free: {} then {}",
                warm.0,
                last.0
            );
            // Everything goes with the last holder: another context each time. What this check holds is let go of before.
            drop((plan, device, card));
            let mut free = Vec::new();
            for _ in 0..n_openings {
                let context = Context::open(0, ROOM).unwrap();
                context.load_all().unwrap();
                free.push(context.card_memory().unwrap().0);
            }
            assert!(
                free[0] <= free[n_openings - 1] + SLACK,
                "bytes free: {free:?}"
            );
            format!(
                "{n_frames} frames: {} bytes free after a quarter of them, {} at the end, {} in use; opened {n_openings} times: {} free \
             the first time, {} the last\n",
                warm.0,
                last.0,
                last.1,
                free[0],
                free[n_openings - 1]
            )
        },
    );
}

#[test]
fn a_graph_is_replayed_ten_thousand_times() {
    check("a_graph_is_replayed_ten_thousand_times", |card| {
        let n_replays = if card.is_emulated() { 301 } else { 10_001 };
        let context = Context::open(0, ROOM).unwrap();
        let stream = context.stream().unwrap();
        const N: usize = 500;
        let swap = [
            Complex32::ZERO,
            Complex32::ONE,
            Complex32::ONE,
            Complex32::ZERO,
        ];
        let input = Rng::new(5).complex(2 * N);
        let accelerator = Accelerator::new(context.clone());
        let matrix = accelerator.upload(&stream, &swap).unwrap();
        let mut a = accelerator.upload(&stream, &input).unwrap();
        let mut b = context.buffer::<Complex32>(2 * N).unwrap();
        context.load("whiten_c32").unwrap();
        // Two coils change places, and again at the next replay.
        let graph = context
            .capture(|capture| {
                let args = [
                    Arg::input(&matrix),
                    Arg::input(&a),
                    Arg::output(&mut b),
                    Arg::I32(2),
                    Arg::I32(2),
                    Arg::I32(N as i32),
                ];
                capture.launch("whiten_c32", [2, 1, 1], &args)?;
                capture.copy((&b, 0), (&mut a, 0), 2 * N)
            })
            .unwrap();
        stream.synchronise().unwrap();
        let before = context.memory().in_use_bytes;
        let begin = std::time::Instant::now();
        for i in 0..n_replays {
            stream.replay(&graph).unwrap();
            if i % 1000 == 999 {
                stream.synchronise().unwrap();
            }
        }
        stream.synchronise().unwrap();
        let each = begin.elapsed().as_secs_f64() * 1e6 / f64::from(n_replays);
        let out = stream
            .download(&a, 0, context.pinned(2 * N).unwrap())
            .unwrap();
        let out = out.wait().unwrap();
        assert!(
            out[..N] == input[N..] && out[N..] == input[..N],
            "an odd number of swaps"
        );
        assert_eq!(context.memory().in_use_bytes, before);
        format!("{n_replays} replays, {each:.1} us each\n")
    });
}
