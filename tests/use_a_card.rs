//! A card is used through the real driver interface: right values, typed faults, nothing left behind.
//!
//! Promised to: everyone who queues work on a card and has none. The driver is the emulated one (`kernels/emu/card`), which
//! works as late as allowed and fails when asked. It is found by LD_LIBRARY_PATH, so each test runs itself again with that
//! set; what is checked inside is the closure, and outside what the card reports.

use std::path::Path;
use std::process::Command;

use cauda::data::Complex32;
use cauda::device::cuda::{
    Arch, Arg, Buffer, Context, CudaError, KERNELS, Origin, Pinned, Queue, Staging, Stream,
};
use cauda::num::rng::Rng;
use kernel_emu::Schedule;

const INSIDE: &str = "CAUDA_TEST_INSIDE";
const BUDGET: u64 = 64 << 20;
/// Orders of streams and threads.
const SEEDS: [&str; 3] = ["0", "1", "2"];

/// What a run on the card left.
pub(crate) struct Ran {
    /// What the card told.
    pub(crate) report: String,
    /// What the closure gave.
    pub(crate) said: String,
}

impl Ran {
    pub(crate) fn clean(self) -> Self {
        let report = &self.report;
        assert!(!report.contains("misuse"), "{report}");
        assert!(report.ends_with("released; left: nothing\n"), "{report}");
        self
    }
}

/// A folder with the driver and images of all kernels for it.
pub(crate) fn card() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    dir
}

fn fill(dir: &Path) {
    let driver = emulated_card::library().unwrap();
    std::os::unix::fs::symlink(driver, dir.join("libcuda.so")).unwrap();
    for kernel in KERNELS {
        let headers: Vec<&str> = kernel.headers.iter().map(|(_, text)| *text).collect();
        let image = emulated_card::image(kernel.name, kernel.text, &headers);
        std::fs::write(dir.join(kernel.shipped(Arch(90))), image).unwrap();
    }
}

#[test]
#[ignore = "leaves an emulated card in the folder CAUDA_EMU_CARD, for scripts"]
fn a_card_for_scripts() {
    fill(Path::new(&std::env::var_os("CAUDA_EMU_CARD").unwrap()));
}

pub(crate) fn with_card(command: &mut Command, dir: &Path) {
    let old = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    command
        .env("LD_LIBRARY_PATH", format!("{}:{old}", dir.display()))
        .env("CAUDA_KERNELS", dir)
        .env("CAUDA_CACHE", dir.join("cache"))
        .env("CAUDA_EMU_REPORT", dir.join("report"));
}

/// Runs `body` in a process of its own that has the card; there, returns nothing. `test` is its name with its module's.
pub(crate) fn on_card(
    test: &str,
    env: &[(&str, &str)],
    body: impl FnOnce() -> String,
) -> Option<Ran> {
    if let Some(path) = std::env::var_os(INSIDE) {
        std::fs::write(path, body()).unwrap();
        return None;
    }
    let dir = card();
    let said = dir.path().join("said");
    let mut command = Command::new(std::env::current_exe().unwrap());
    with_card(&mut command, dir.path());
    let output = command
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, &said)
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let text = |p: &str| std::fs::read_to_string(dir.path().join(p)).unwrap_or_default();
    let report = text("report");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{env:?}: {words}\n{report}");
    assert!(said.is_file(), "{test} did not run");
    Some(Ran {
        report,
        said: text("said"),
    })
}

fn up<T: cauda::device::cuda::Element>(c: &Context, s: &Stream, v: &[T]) -> Buffer<T> {
    let mut pinned = c.pinned(v.len()).unwrap();
    pinned.copy_from_slice(v);
    let mut buffer = c.buffer(v.len()).unwrap();
    drop(s.upload(pinned, &mut buffer, 0).unwrap());
    buffer
}

fn down<T: cauda::device::cuda::Element>(c: &Context, s: &Stream, b: &Buffer<T>) -> Vec<T> {
    let to = c.pinned(b.len()).unwrap();
    let done = s.download(b, 0, to).unwrap().wait().unwrap();
    done.to_vec()
}

fn bits(v: &[Complex32]) -> Vec<u32> {
    let all: &[f32] = bytemuck::cast_slice(v);
    all.iter().map(|x| x.to_bits()).collect()
}

/// Kernel, grid, threads, complex inputs by length, members, length of the output, numbers.
struct Case {
    kernel: &'static str,
    grid: [u32; 3],
    threads: u32,
    inputs: Vec<Vec<Complex32>>,
    /// Stands after the second input.
    members: Option<Vec<i32>>,
    n_out: usize,
    has_gain: bool,
    numbers: Vec<i32>,
    lambda: Option<f32>,
}

fn cases() -> Vec<Case> {
    let mut rng = Rng::new(7);
    let mut make = |kernel, grid, threads, inputs: &[usize], n_out, numbers: &[i32]| Case {
        kernel,
        grid,
        threads,
        inputs: inputs.iter().map(|n| rng.complex(*n)).collect(),
        members: None,
        n_out,
        has_gain: false,
        numbers: numbers.to_vec(),
        lambda: None,
    };
    let whiten = make(
        "whiten_c32",
        [2, 2, 1],
        128,
        &[17 * 16, 16 * 257],
        17 * 257,
        &[17, 16, 257],
    );
    let mut combine = make(
        "combine_csm_c32",
        [2, 1, 1],
        256,
        &[5 * 513, 5 * 513],
        513,
        &[5, 513],
    );
    combine.has_gain = true;
    let unmix = make(
        "grappa_unmix_c32",
        [1, 1, 1],
        128,
        &[4 * 5 * 9, 4 * 15 * 9, 15],
        15 * 9,
        &[4, 3, 5, 9],
    );
    // 4 coils, a row of 7 x 11 folded voxels of a plane of 14.
    let mut unfold = make(
        "sense_unfold_r2",
        [1, 1, 1],
        128,
        &[4 * 7 * 11, 4 * 14 * 11, 14],
        14 * 11,
        &[4, 1, 7, 11, 14],
    );
    unfold.members = Some(vec![0, 7]);
    unfold.lambda = Some(1e-2);
    vec![whiten, combine, unmix, unfold]
}

impl Case {
    fn by_the_emulator(&self) -> (Vec<Complex32>, Vec<f32>) {
        use kernel_emu::Arg;
        let nan = Complex32::new(f32::NAN, f32::NAN);
        let (mut out, mut gain) = (vec![nan; self.n_out], vec![f32::NAN; self.n_out]);
        let mut args: Vec<Arg> = self.inputs.iter().map(|v| Arg::input(v)).collect();
        if let Some(m) = &self.members {
            args.insert(2, Arg::input(m));
        }
        args.push(Arg::output(&mut out));
        if self.has_gain {
            args.push(Arg::output(&mut gain));
        }
        args.extend(self.numbers.iter().map(|n| Arg::I32(*n)));
        args.extend(self.lambda.map(Arg::F32));
        let block = [self.threads, 1, 1];
        kernel_emu::launch(self.kernel, self.grid, block, &mut args, Schedule::Forward).unwrap();
        (out, gain)
    }

    fn on_the_card(&self, c: &Context, s: &Stream) -> (Vec<Complex32>, Vec<f32>) {
        let inputs: Vec<_> = self.inputs.iter().map(|v| up(c, s, v)).collect();
        let members = self.members.as_ref().map(|m| up(c, s, m));
        let mut out = c.buffer(self.n_out).unwrap();
        let mut gain = c.buffer::<f32>(self.n_out).unwrap();
        let mut args: Vec<Arg> = inputs.iter().map(Arg::input).collect();
        if let Some(m) = &members {
            args.insert(2, Arg::input(m));
        }
        args.push(Arg::output(&mut out));
        if self.has_gain {
            args.push(Arg::output(&mut gain));
        }
        args.extend(self.numbers.iter().map(|n| Arg::I32(*n)));
        args.extend(self.lambda.map(Arg::F32));
        s.launch(self.kernel, self.grid, &args).unwrap();
        // Queued work holds them.
        drop((inputs, members));
        let gain = if self.has_gain {
            down(c, s, &gain)
        } else {
            Vec::new()
        };
        (down(c, s, &out), gain)
    }
}

#[test]
fn kernels_give_the_bits_of_the_emulator() {
    for seed in SEEDS {
        let body = || {
            let c = Context::open(0, BUDGET).unwrap();
            let s = c.stream().unwrap();
            for case in cases() {
                let (truth, gain_truth) = case.by_the_emulator();
                let (out, gain) = case.on_the_card(&c, &s);
                assert_eq!(bits(&out), bits(&truth), "{}", case.kernel);
                assert!(gain.is_empty() || gain == gain_truth, "{}", case.kernel);
            }
            let origins = c.loaded();
            assert_eq!(origins.len(), 4);
            let is_shipped = |o: &Origin| matches!(o, Origin::Shipped(_));
            assert!(
                origins
                    .iter()
                    .all(|(_, o, why)| is_shipped(o) && why.is_none())
            );
            let memory = c.memory();
            assert!(
                memory.high_water_bytes > 0 && memory.in_use_bytes == 0,
                "{memory:?}"
            );
            String::new()
        };
        let test = "use_a_card::kernels_give_the_bits_of_the_emulator";
        let Some(ran) = on_card(test, &[("CAUDA_EMU_SEED", seed)], body) else {
            return;
        };
        drop(ran.clean());
    }
}

/// Two coils, swapped by a matrix: `swap` twice is nothing.
const SWAP: [Complex32; 4] = [
    Complex32::ZERO,
    Complex32::ONE,
    Complex32::ONE,
    Complex32::ZERO,
];
const N: usize = 300;

fn swap(
    s: &Stream,
    m: &Buffer<Complex32>,
    from: &Buffer<Complex32>,
    to: &mut Buffer<Complex32>,
) -> Result<(), CudaError> {
    let sizes = [Arg::I32(2), Arg::I32(2), Arg::I32(N as i32)];
    let args = [Arg::input(m), Arg::input(from), Arg::output(to)];
    let args: Vec<Arg> = args.into_iter().chain(sizes).collect();
    s.launch("whiten_c32", [2, 1, 1], &args)
}

fn pair(seed: u64) -> Vec<Complex32> {
    Rng::new(seed).complex(2 * N)
}

fn swapped(v: &[Complex32]) -> Vec<Complex32> {
    v[N..].iter().chain(&v[..N]).copied().collect()
}

/// A thread per slice, as a server has them: one context, one set of kernels, one budget.
#[test]
fn threads_share_a_context() {
    for seed in SEEDS {
        let body = || {
            let c = Context::open(0, BUDGET).unwrap();
            let matrix = c.stream().map(|s| up(&c, &s, &SWAP)).unwrap();
            std::thread::scope(|scope| {
                for slice in 0..4 {
                    let (c, matrix) = (&c, &matrix);
                    scope.spawn(move || {
                        let s = c.stream().unwrap();
                        for turn in 0..5 {
                            let input = pair(10 * slice + turn);
                            let a = up(c, &s, &input);
                            let mut b = c.buffer(2 * N).unwrap();
                            swap(&s, matrix, &a, &mut b).unwrap();
                            assert_eq!(bits(&down(c, &s, &b)), bits(&swapped(&input)));
                        }
                    });
                }
            });
            assert_eq!(c.loaded().len(), 1);
            String::new()
        };
        let env = [("CAUDA_EMU_SEED", seed)];
        let Some(ran) = on_card("use_a_card::threads_share_a_context", &env, body) else {
            return;
        };
        drop(ran.clean());
    }
}

/// An event lets go of what came before it, and of nothing that came after.
#[test]
fn what_is_queued_after_an_event_is_held_beyond_it() {
    let body = || {
        let c = Context::open(0, BUDGET).unwrap();
        let s = c.stream().unwrap();
        let (m, a) = (up(&c, &s, &SWAP), up(&c, &s, &pair(6)));
        let mut b = c.buffer(2 * N).unwrap();
        let before = c.buffer::<f32>(8).map(|mut f| s.clear(&mut f)).unwrap();
        before.unwrap();
        let event = s.record().unwrap();
        swap(&s, &m, &a, &mut b).unwrap();
        drop((m, a));
        let in_use = c.memory().in_use_bytes;
        event.synchronise().unwrap();
        assert_eq!(c.memory().in_use_bytes, in_use - 32);
        assert_eq!(bits(&down(&c, &s, &b)), bits(&swapped(&pair(6))));
        String::new()
    };
    let test = "use_a_card::what_is_queued_after_an_event_is_held_beyond_it";
    if let Some(ran) = on_card(test, &[], body) {
        drop(ran.clean());
    }
}

/// What one stream makes and another takes down, with and without an event between: right, and wrong in every run.
#[test]
fn streams_wait_for_each_other_by_events_alone() {
    for seed in SEEDS {
        let body = || {
            let c = Context::open(0, BUDGET).unwrap();
            let (one, two) = (c.stream().unwrap(), c.stream().unwrap());
            let input = pair(1);
            let m = up(&c, &one, &SWAP);
            let a = up(&c, &one, &input);
            let mut b = c.buffer(2 * N).unwrap();
            swap(&one, &m, &a, &mut b).unwrap();
            let event = one.record().unwrap();
            let early = down(&c, &two, &b);
            two.wait(&event).unwrap();
            let late = down(&c, &two, &b);
            assert!(event.is_done().unwrap());
            assert!(two.record().unwrap().since(&event).is_err(), "not done yet");
            assert_eq!(bits(&late), bits(&swapped(&input)));
            (bits(&early) == bits(&late)).to_string()
        };
        let test = "use_a_card::streams_wait_for_each_other_by_events_alone";
        let Some(ran) = on_card(test, &[("CAUDA_EMU_SEED", seed)], body) else {
            return;
        };
        let ran = ran.clean();
        // By the lazy order; another may happen to do it right.
        assert!(seed != "0" || ran.said == "false", "{}", ran.said);
    }
}

#[test]
fn a_graph_replays_a_hundred_frames_from_staging_that_is_used_in_turns() {
    for seed in SEEDS {
        let body = || {
            let c = Context::open(0, BUDGET).unwrap();
            let s = c.stream().unwrap();
            let m = up(&c, &s, &SWAP);
            let mut a = c.buffer::<Complex32>(2 * N).unwrap();
            let mut b = c.buffer::<Complex32>(2 * N).unwrap();
            // Not loaded: the capture says so, and what it had is gone.
            let make = |b: &mut Buffer<Complex32>| {
                let sizes = [Arg::I32(2), Arg::I32(2), Arg::I32(N as i32)];
                let args = [Arg::input(&m), Arg::input(&a), Arg::output(b)];
                let args: Vec<Arg> = args.into_iter().chain(sizes).collect();
                c.capture(|capture| capture.launch("whiten_c32", [2, 1, 1], &args))
            };
            let words = make(&mut b).unwrap_err().to_string();
            assert!(
                words.contains("whiten_c32") && words.contains("Context::load"),
                "{words}"
            );
            c.load("whiten_c32").unwrap();
            let graph = make(&mut b).unwrap();
            assert_eq!(graph.kernels(), ["whiten_c32"]);
            let mut staging = Staging::new(&c, 2, 2 * N).unwrap();
            let mut arrived: Vec<Pinned<Complex32>> = Vec::new();
            let mut pending = Vec::new();
            for frame in 0..100 {
                let mut piece = staging.take().unwrap();
                piece.copy_from_slice(&pair(frame));
                staging.give(s.upload(piece, &mut a, 0).unwrap());
                s.replay(&graph).unwrap();
                pending.push(s.download(&b, 0, c.pinned(2 * N).unwrap()).unwrap());
            }
            drop((graph, a, b, m));
            for p in pending {
                arrived.push(p.wait().unwrap());
            }
            for (frame, out) in arrived.iter().enumerate() {
                assert_eq!(
                    bits(out),
                    bits(&swapped(&pair(frame as u64))),
                    "frame {frame}"
                );
            }
            assert_eq!(c.memory().in_use_bytes, 0);
            String::new()
        };
        let test =
            "use_a_card::a_graph_replays_a_hundred_frames_from_staging_that_is_used_in_turns";
        let Some(ran) = on_card(test, &[("CAUDA_EMU_SEED", seed)], body) else {
            return;
        };
        drop(ran.clean());
    }
}

/// All that a reconstruction does with a card, in small.
fn chain() -> Result<Vec<Complex32>, CudaError> {
    let c = Context::open(0, BUDGET)?;
    let (one, two) = (c.stream()?, c.stream()?);
    let (mut matrix, mut input) = (c.pinned(4)?, c.pinned(2 * N)?);
    matrix.copy_from_slice(&SWAP);
    input.copy_from_slice(&pair(3));
    let (mut m, mut a, mut b) = (c.buffer(4)?, c.buffer(2 * N)?, c.buffer(2 * N)?);
    one.upload(matrix, &mut m, 0)?.wait()?;
    drop(one.upload(input, &mut a, 0)?);
    swap(&one, &m, &a, &mut b)?;
    c.load("combine_rss_c32")?;
    let event = one.record()?;
    two.wait(&event)?;
    let graph = c.capture(|capture| capture.copy((&b, 0), (&mut a, 0), 2 * N))?;
    two.replay(&graph)?;
    swap(&two, &m, &a, &mut b)?;
    let out = two.download(&b, 0, c.pinned(2 * N)?)?.wait()?;
    one.synchronise()?;
    Ok(out.to_vec())
}

/// Kind, whether the context is lost by it, and what the message must hold.
const FAULTS: [(&str, bool, &str); 11] = [
    ("retain", false, "cuDevicePrimaryCtxRetain"),
    ("alloc", false, "GPU memory"),
    ("pinned", false, "cuMemHostRegister"),
    ("stream", false, "cuStreamCreate"),
    ("event", false, "cuEventCreate"),
    ("load", false, "cuModuleLoadData"),
    ("enqueue", false, "cuLaunchKernel"),
    ("launch", true, "whiten_c32"),
    ("copy", true, "ECC"),
    ("capture", false, "cuStreamEndCapture"),
    ("instantiate", false, "cuGraphInstantiate"),
];

#[test]
fn whatever_fails_is_named_leaves_nothing_and_the_next_scan_works() {
    let test = "use_a_card::whatever_fails_is_named_leaves_nothing_and_the_next_scan_works";
    let mut n_cases = 0;
    for (kind, is_lost, needed) in FAULTS {
        for n in 1..20 {
            let body = || {
                let truth = bits(&pair(3));
                let said = match chain() {
                    Ok(out) => {
                        assert_eq!(bits(&out), truth);
                        return "all went well".into();
                    }
                    Err(e) => format!("{e}"),
                };
                assert_eq!(bits(&chain().unwrap()), truth);
                said
            };
            let fail = format!("{kind}:{n}");
            let Some(ran) = on_card(test, &[("CAUDA_EMU_FAIL", &fail)], body) else {
                return;
            };
            let ran = ran.clean();
            if ran.said == "all went well" {
                assert!(n > 1, "{kind} never happened");
                break;
            }
            n_cases += 1;
            let said = &ran.said;
            assert!(
                said.contains(needed) && said.contains("Emulated card"),
                "{fail}: {said}"
            );
            assert_eq!(said.contains("lost"), is_lost, "{fail}: {said}");
            assert_eq!(
                ran.report.contains("reset"),
                is_lost,
                "{fail}: {}",
                ran.report
            );
            assert!(n < 19, "{kind} has no end");
        }
    }
    eprintln!("{n_cases} faults");
    assert!(n_cases > 2 * FAULTS.len());
}

#[test]
fn a_lost_card_is_opened_again_while_what_was_on_it_is_still_held() {
    let body = || {
        let old = Context::open(0, BUDGET).unwrap();
        let s = old.stream().unwrap();
        let input = pair(4);
        let m = up(&old, &s, &SWAP);
        let a = up(&old, &s, &input);
        let (mut b, held) = (old.buffer(2 * N).unwrap(), old.pinned::<f32>(8).unwrap());
        swap(&s, &m, &a, &mut b).unwrap();
        let words = s.synchronise().unwrap_err().to_string();
        assert!(
            words.contains("whiten_c32") && words.contains("LAUNCH_FAILED"),
            "{words}"
        );
        assert!(!old.is_open());
        let again = old.buffer::<f32>(8).unwrap_err();
        assert!(matches!(again, CudaError::Lost { .. }), "{again}");
        let new = Context::open(0, BUDGET).unwrap();
        let stream = new.stream().unwrap();
        // The old ones have no business here, and may go at any time.
        let (c, d) = (up(&new, &stream, &input), &mut new.buffer(2 * N).unwrap());
        let mixed = swap(&stream, &m, &c, d).unwrap_err().to_string();
        assert!(mixed.contains("another context"), "{mixed}");
        assert_eq!(held[7], 0.0);
        drop((m, a, b, s, held, old));
        assert_eq!(bits(&down(&new, &stream, &c)), bits(&input));
        // Opened twice: the same.
        assert_eq!(
            Context::open(0, 1 << 20).unwrap().memory().budget_bytes,
            1 << 20
        );
        assert_eq!(new.memory().budget_bytes, 1 << 20);
        String::new()
    };
    let test = "use_a_card::a_lost_card_is_opened_again_while_what_was_on_it_is_still_held";
    if let Some(ran) = on_card(test, &[("CAUDA_EMU_FAIL", "launch:1")], body) {
        drop(ran.clean());
    }
}

#[test]
fn memory_beyond_the_budget_is_refused_before_the_driver_is_asked() {
    let body = || {
        let c = Context::open(0, 1 << 16).unwrap();
        let first = c.buffer::<f32>(1 << 13).map(|_| ()).unwrap_err();
        assert!(matches!(first, CudaError::OutOfMemory { .. }), "{first}");
        let kept = c.buffer::<f32>(1 << 13).unwrap();
        let over = c.buffer::<f32>((1 << 13) + 1).unwrap_err();
        let words = over.to_string();
        assert!(matches!(over, CudaError::OverBudget { .. }), "{words}");
        assert!(
            words.contains("32772") && words.contains("65536"),
            "{words}"
        );
        drop(kept);
        drop(c.buffer::<f32>(1 << 14).unwrap());
        assert_eq!(c.memory().high_water_bytes, 1 << 16);
        let wide = Context::open(0, 1 << 40).unwrap();
        let full = wide.buffer::<f32>(1 << 19).unwrap_err().to_string();
        assert!(
            full.contains("2097152") && full.contains("1048576 free"),
            "{full}"
        );
        String::new()
    };
    let test = "use_a_card::memory_beyond_the_budget_is_refused_before_the_driver_is_asked";
    // The first allocation that the driver sees fails; had it seen the one over budget, there were a second.
    let env = [("CAUDA_EMU_FAIL", "alloc:1"), ("CAUDA_EMU_MEMORY_MIB", "1")];
    if let Some(ran) = on_card(test, &env, body) {
        drop(ran.clean());
    }
}

#[test]
fn launches_that_do_not_fit_are_refused_before_the_driver_is_asked() {
    let body = || {
        let c = Context::open(0, BUDGET).unwrap();
        let s = c.stream().unwrap();
        let (a, f) = (
            c.buffer::<Complex32>(64).unwrap(),
            c.buffer::<f32>(64).unwrap(),
        );
        let mut b = c.buffer::<Complex32>(64).unwrap();
        let mut refused = |grid, first: Arg, last: Arg, needed: &[&str]| {
            let middle = [
                Arg::input(&a),
                Arg::output(&mut b),
                Arg::I32(2),
                Arg::I32(2),
            ];
            let args: Vec<Arg> = [first].into_iter().chain(middle).chain([last]).collect();
            let e = s.launch("whiten_c32", grid, &args).unwrap_err();
            let words = e.to_string();
            assert!(matches!(e, CudaError::Wrong { .. }), "{words}");
            assert!(needed.iter().all(|n| words.contains(n)), "{words}");
        };
        let one = [1, 1, 1];
        refused(
            one,
            Arg::input(&f),
            Arg::I32(8),
            &["IN(float)", "IN(float2)"],
        );
        refused(one, Arg::input(&a), Arg::F32(8.0), &["float)", "int)"]);
        refused([1, 0, 1], Arg::input(&a), Arg::I32(8), &["[1, 0, 1]"]);
        refused(
            one,
            Arg::input_from(&a, 1),
            Arg::I32(8),
            &["argument 0", "byte 8"],
        );
        refused(
            one,
            Arg::input_from(&a, 64),
            Arg::I32(8),
            &["byte 512 of 512"],
        );
        let none = s.launch("whiten", one, &[]).unwrap_err().to_string();
        assert!(none.contains("kernel whiten"), "{none}");
        let long = s.download(&a, 60, c.pinned(5).unwrap()).unwrap_err();
        assert!(long.to_string().contains("5 values from 60"), "{long}");
        assert!(Context::open(1, BUDGET).is_err_and(|e| matches!(e, CudaError::NoCard { .. })));
        String::new()
    };
    let test = "use_a_card::launches_that_do_not_fit_are_refused_before_the_driver_is_asked";
    if let Some(ran) = on_card(test, &[], body) {
        drop(ran.clean());
    }
}

/// A kernel that is told a wrong size reads outside: the card dies, and the one who waits is told which kernel it was.
#[test]
fn a_kernel_that_reads_outside_is_named_by_who_waits() {
    let body = || {
        let c = Context::open(0, BUDGET).unwrap();
        let s = c.stream().unwrap();
        let m = up(&c, &s, &SWAP);
        let a = up(&c, &s, &pair(5)[1..]);
        let mut b = c.buffer(2 * N).unwrap();
        swap(&s, &m, &a, &mut b).unwrap();
        let pending = s.download(&b, 0, c.pinned(2 * N).unwrap()).unwrap();
        let e = pending.wait().map(|_| ()).unwrap_err();
        assert!(matches!(e, CudaError::Fault { .. }), "{e}");
        e.to_string()
    };
    let test = "use_a_card::a_kernel_that_reads_outside_is_named_by_who_waits";
    let Some(ran) = on_card(test, &[], body) else {
        return;
    };
    let ran = ran.clean();
    assert!(
        ran.said.contains("ILLEGAL_ADDRESS") && ran.said.contains("whiten_c32"),
        "{}",
        ran.said
    );
    assert!(
        ran.report.contains("out-of-bounds read of element"),
        "{}",
        ran.report
    );
}

/// What forgets to give back is told by the card: the test of `clean`.
#[test]
fn a_leak_is_told() {
    let body = || {
        let c = Context::open(0, BUDGET).unwrap();
        let s = c.stream().unwrap();
        std::mem::forget(s.record().unwrap());
        String::new()
    };
    let Some(ran) = on_card("use_a_card::a_leak_is_told", &[], body) else {
        return;
    };
    // The event holds its stream, and that the context, which nobody releases.
    let needed = "never released; left: 2 streams, 1 events, 1 pools";
    assert!(ran.report.contains(needed), "{}", ran.report);
}

#[test]
fn a_driver_that_lacks_a_function_is_an_error_that_names_it() {
    let test = "use_a_card::a_driver_that_lacks_a_function_is_an_error_that_names_it";
    if let Some(path) = std::env::var_os(INSIDE) {
        let words = Context::open(0, BUDGET).unwrap_err().to_string();
        let probe = cauda::device::cuda::probe();
        let (driver, cards) = (probe.driver.unwrap_err(), probe.cards.unwrap_err());
        std::fs::write(path, format!("{words}\n{driver}\n{cards}")).unwrap();
        return;
    }
    // A library that is no driver at all.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps
        .lines()
        .find_map(|l| Some(&l[l.find('/')?..]).filter(|p| p.contains("libc.so")))
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(libc, dir.path().join("libcuda.so")).unwrap();
    let said = dir.path().join("said");
    let mut command = Command::new(std::env::current_exe().unwrap());
    with_card(&mut command, dir.path());
    let output = command
        .args(["--exact", test])
        .env(INSIDE, &said)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = std::fs::read_to_string(said).unwrap();
    let n = said
        .lines()
        .filter(|l| l.contains("cuInit") && l.contains("11.4"))
        .count();
    assert_eq!(n, 3, "{said}");
}

#[test]
fn the_doctor_opens_the_card() {
    let dir = card();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cauda"));
    with_card(&mut command, dir.path());
    let output = command.args(["doctor"]).output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{words}");
    for needed in ["Emulated card", "MiB free", "came along"] {
        assert!(words.contains(needed), "{words}");
    }
    let report = std::fs::read_to_string(dir.path().join("report")).unwrap();
    assert!(report.ends_with("released; left: nothing\n"), "{report}");
}
