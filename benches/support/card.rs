//! Operators on a card, for `scripts/bench/gpu.py`: the line protocol of `peers.rs`. On an emulated card the figures mean
//! nothing.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use cauda::data::{Calibration, Complex32, Csm, KSpace, Line, Shape};
use cauda::device::cuda::{
    Accelerator, Arg, Buffer, Context, CudaError, Element, FftPlan, Pinned, Stream,
};
use cauda::device::{Backend, CardUse, Device, Policy};
use cauda::num::rng::Rng;
use cauda::recon::csm::CsmParams;
use cauda::recon::grappa::Apply;
use cauda::recon::{Calibrations, Keep, Method, Recon, ReconParams};

use crate::{Job, frame, sense_of, serve};

fn accelerator() -> Arc<Accelerator> {
    let card = Accelerator::open().unwrap_or_else(|e| {
        eprintln!("no card: {e}");
        std::process::exit(3);
    });
    eprintln!("card: {}", card.context().card().name);
    card
}

/// Tikhonov SENSE of one slice with given maps. `resident=1`: samples and maps are on the card, the image comes down; else from
/// the host to the host, and what is pageable is copied to pinned memory on the clock.
pub(crate) fn sense(job: &Job) {
    let (plan, kspace, csm, lambda) = sense_of(job);
    let card = accelerator();
    if let Some(what) = plan.card_lacks(1, lambda) {
        eprintln!("no kernels for {what}");
        std::process::exit(3);
    }
    if !job.options.contains_key("resident") {
        serve(job, || {
            plan.run_on(&card, &kspace, &csm, lambda).unwrap().voxels
        });
        return;
    }
    let stream = card.context().stream().unwrap();
    let (samples, sent) = card.send(&stream, &kspace.samples).unwrap();
    let (maps, maps_sent) = card.send(&stream, &csm.maps).unwrap();
    card.keep(sent).unwrap();
    card.keep(maps_sent).unwrap();
    serve(job, || {
        let image = plan.run_there(&card, &stream, (&samples, &maps), &csm, lambda);
        image.unwrap().voxels
    });
}

/// Where the slices of a job are before it begins.
enum Slice {
    /// Pageable memory of the host.
    Pageable(KSpace, Vec<Complex32>),
    /// Pinned memory of the host; samples, and maps that are not on the card.
    Pinned(Pinned<Complex32>, Option<Pinned<Complex32>>),
}

/// A job of several slices, `threads=` at once, from arrays of the host to images of the host: `from=pageable` or `pinned`;
/// with `maps=resident` those of the slices are on the card.
pub(crate) fn slices(job: &Job) {
    let (plan, kspace, csm, lambda) = sense_of(job);
    let number = |key: &str, or: usize| job.options.get(key).map_or(or, |v| v.parse().unwrap());
    let (n, threads) = (number("slices", 20), number("threads", 4));
    let card = accelerator();
    let context = card.context();
    let pinned = |values: &[Complex32]| {
        let mut pinned = context.pinned(values.len()).unwrap();
        pinned.copy_from_slice(values);
        pinned
    };
    let is_pinned = job.options.get("from").is_some_and(|v| v == "pinned");
    let are_resident = job.options.get("maps").is_some_and(|v| v == "resident");
    // Each slice has memory of its own: what is in a cache is not there twenty times.
    let all: Vec<Mutex<Option<Slice>>> = (0..n)
        .map(|_| match is_pinned {
            true => Slice::Pinned(
                pinned(&kspace.samples),
                (!are_resident).then(|| pinned(&csm.maps)),
            ),
            false => Slice::Pageable(kspace.clone(), csm.maps.clone()),
        })
        .map(|slice| Mutex::new(Some(slice)))
        .collect();
    let resident: Vec<Option<Buffer<Complex32>>> = (0..n)
        .map(|_| {
            are_resident.then(|| {
                let stream = context.stream().unwrap();
                let (maps, sent) = card.send(&stream, &csm.maps).unwrap();
                card.keep(sent).unwrap();
                maps
            })
        })
        .collect();
    let one = |i: usize| {
        let slice = all[i].lock().unwrap().take().unwrap();
        let (slice, image) = match slice {
            Slice::Pageable(kspace, maps) => {
                let csm = Csm {
                    maps,
                    ..csm.clone()
                };
                let image = plan.run_on(&card, &kspace, &csm, lambda).unwrap();
                (Slice::Pageable(kspace, csm.maps), image)
            }
            Slice::Pinned(samples, maps) => {
                let done = card.run(|stream| {
                    let mut on_card = context.buffer(samples.len())?;
                    let samples = stream.upload(samples, &mut on_card, 0)?;
                    let (mut own, mut sent) = (None, None);
                    if let Some(maps) = maps {
                        let mut buffer = context.buffer(maps.len())?;
                        sent = Some(stream.upload(maps, &mut buffer, 0)?);
                        own = Some(buffer);
                    }
                    let maps = resident[i].as_ref().or(own.as_ref()).unwrap();
                    let image = plan.run_there(&card, stream, (&on_card, maps), &csm, lambda)?;
                    let sent = sent.map(cauda::device::cuda::Pending::wait).transpose()?;
                    Ok((Slice::Pinned(samples.wait()?, sent), image))
                });
                done.unwrap()
            }
        };
        *all[i].lock().unwrap() = Some(slice);
        image.voxels
    };
    serve(job, || {
        let next = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let mut last = Vec::new();
                        loop {
                            let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            if i >= n {
                                return last;
                            }
                            last = one(i);
                        }
                    })
                })
                .collect();
            let images = workers.into_iter().map(|w| w.join().unwrap());
            images.max_by_key(Vec::len).unwrap()
        })
    });
}

/// ESPIRiT maps of one slice: from the host to the host.
pub(crate) fn espirit(job: &Job) {
    let (_, frame) = frame(job);
    let params = CsmParams {
        calibration: job.options["acs"].parse().unwrap(),
        ..CsmParams::default()
    };
    let shape = frame.kspace.shape;
    let card = accelerator();
    let matrix = [shape.pe2, shape.pe1, shape.ro];
    serve(job, || {
        let made = cauda::recon::csm::cuda::maps(&card, &frame.kspace, matrix, &params);
        made.unwrap().maps
    });
}

/// A frame of a series whose GRAPPA weights are known from a reference of its own: `acs=` central lines of `full`.
pub(crate) fn grappa(job: &Job) {
    let (mut scan, mut frame) = frame(job);
    for encoding in scan.encodings.iter_mut().flatten() {
        encoding.calibration = Calibration::Separate;
    }
    let full = job.array("full");
    let [coils, ny, nx] = full.shape[..] else {
        panic!("{:?}", full.shape)
    };
    let acs: usize = job.options["acs"].parse().unwrap();
    let central = ny / 2 - acs / 2..ny / 2 - acs / 2 + acs;
    let all = full.complex();
    let rows = (0..coils).flat_map(|c| central.clone().map(move |y| c * ny + y));
    frame.reference = Some(KSpace {
        shape: Shape {
            coil: coils,
            pe2: 1,
            pe1: ny,
            ro: nx,
        },
        ro_range: 0..nx,
        samples: rows
            .flat_map(|r| all[r * nx..(r + 1) * nx].iter().copied())
            .collect(),
        lines: central
            .clone()
            .map(|y| Line {
                pe2: 0,
                pe1: y as u32,
                averages: 1,
            })
            .collect(),
    });
    let mut params = ReconParams {
        method: Method::Grappa,
        ..ReconParams::default()
    };
    params.grappa.apply = Apply::Image;
    // `backend=cpu` beside it: the same frames without a card.
    let is_on_cpu = job.options.get("backend").is_some_and(|b| b == "cpu");
    let card = if is_on_cpu {
        CardUse::No { why: None }
    } else {
        CardUse::choose(Backend::Cuda, Policy::Fail).unwrap()
    };
    let device = Device {
        card,
        ..Device::detect()
    };
    let plan = Recon::plan(&scan, &frame, &params, &device).unwrap_or_else(|e| {
        eprintln!("{e}");
        std::process::exit(3);
    });
    let known = Calibrations::new(Keep::References, 1 << 30);
    let mut repetition = 0u16;
    let mut next = || {
        frame.key.repetition = repetition;
        repetition = repetition.wrapping_add(1);
        plan.run_with(&frame, &known).unwrap()
    };
    // Weights, and from the third frame on unmixing weights, are kept.
    let warm = (0..5).map(|_| next()).last().unwrap();
    let mut steps = warm.provenance.steps.iter();
    let unmixed = steps.find(|s| s.op == "recon/grappa/unmix");
    let backend = unmixed.map_or("", |s| s.backend);
    if (backend == "cpu") != is_on_cpu {
        eprintln!("warm frames are unmixed on {backend:?}");
        std::process::exit(3);
    }
    serve(job, || next().voxels);
}

struct Bench {
    context: Context,
    stream: Stream,
    /// Divides sizes: for cards that are emulated.
    less: usize,
}

impl Bench {
    fn new(job: &Job) -> Self {
        let card = accelerator();
        Self {
            context: card.context().clone(),
            stream: card.context().stream().unwrap(),
            less: if job.options.contains_key("tiny") {
                16
            } else {
                1
            },
        }
    }

    fn room<T: Element>(&self, n: usize) -> Buffer<T> {
        self.context.buffer(n).unwrap()
    }

    fn filled<T: Element>(&self, values: &[T]) -> Buffer<T> {
        let mut pinned = self.context.pinned(values.len()).unwrap();
        pinned.copy_from_slice(values);
        let mut buffer = self.room(values.len());
        drop(self.stream.upload(pinned, &mut buffer, 0).unwrap());
        buffer
    }

    /// Random values, the same again and again.
    fn random(&self, n: usize) -> Buffer<Complex32> {
        let some = self.filled(&Rng::new(1).complex(n.min(1 << 20)));
        let mut all = self.room(n);
        for from in (0..n).step_by(1 << 20) {
            let n = some.len().min(n - from);
            self.stream.copy((&some, 0), (&mut all, from), n).unwrap();
        }
        all
    }

    /// Seconds of the card for each of some runs.
    fn time(&self, run: &dyn Fn() -> Result<(), CudaError>) -> f64 {
        const RUNS: u32 = 20;
        (0..3).for_each(|_| run().unwrap());
        let begin = self.stream.record().unwrap();
        (0..RUNS).for_each(|_| run().unwrap());
        let end = self.stream.record().unwrap();
        end.synchronise().unwrap();
        end.since(&begin).unwrap().as_secs_f64() / f64::from(RUNS)
    }

    /// Says how long a launch takes whose arguments are read and written once: `bytes`.
    fn kernel(&self, name: &str, grid: [usize; 3], args: &[Arg<'_>], bytes: usize) {
        let grid = grid.map(|n| n as u32);
        let seconds = self.time(&|| self.stream.launch(name, grid, args));
        println!("{{\"kernel\": \"{name}\", \"bytes\": {bytes}, \"seconds\": {seconds:.9}}}");
    }
}

/// Copies of 256 MiB on the card: seconds each, by its clock.
pub(crate) fn copy(job: &Job) {
    let b = Bench::new(job);
    let n = (256 << 20) / b.less / size_of::<Complex32>();
    let from = b.random(n);
    let to = std::cell::RefCell::new(b.room::<Complex32>(n));
    let seconds = b.time(&|| b.stream.copy((&from, 0), (&mut to.borrow_mut(), 0), n));
    println!(
        "{{\"bytes\": {}, \"seconds\": {seconds:.9}}}",
        2 * n * size_of::<Complex32>()
    );
    // What a launch costs the host, and the card.
    let begin = Instant::now();
    let on_card = b.time(&|| b.stream.copy((&from, 0), (&mut to.borrow_mut(), 0), 1));
    println!(
        "{{\"launch_card_s\": {on_card:.9}, \"launch_wall_s\": {:.9}}}",
        begin.elapsed().as_secs_f64() / 23.0
    );
}

fn int(n: usize) -> Arg<'static> {
    Arg::I32(i32::try_from(n).unwrap())
}

const C: usize = size_of::<Complex32>();
const F: usize = size_of::<f32>();

/// Every kernel that moves much memory, at sizes beyond the caches: bytes that it must move, and how long it takes.
pub(crate) fn kernels(job: &Job) {
    let b = Bench::new(job);
    whole_images(&b);
    transforms(&b);
    lattices(&b);
    planes(&b);
}

fn whole_images(b: &Bench) {
    let (coils, n) = (16, 20 * 320 * 320 / b.less / b.less);
    let (images, csm, matrix) = (
        b.random(coils * n),
        b.random(coils * n),
        b.random(coils * coils),
    );
    let mut out = b.room::<Complex32>(coils * n);
    let args = [
        Arg::input(&matrix),
        Arg::input(&images),
        Arg::output(&mut out),
        int(coils),
        int(coils),
        int(n),
    ];
    b.kernel(
        "whiten_c32",
        [n.div_ceil(256), 1, 1],
        &args,
        2 * coils * n * C,
    );
    let mut gain = b.room::<f32>(n);
    let args = [
        Arg::input(&images),
        Arg::input(&csm),
        Arg::output(&mut out),
        Arg::output(&mut gain),
        int(coils),
        int(n),
    ];
    let grid = [n.div_ceil(512), 1, 1];
    b.kernel("combine_csm_c32", grid, &args, n * (2 * coils * C + C + F));
    let args = [
        Arg::input(&images),
        Arg::output(&mut gain),
        int(coils),
        int(n),
    ];
    b.kernel("combine_rss_c32", grid, &args, n * (coils * C + F));
}

fn transforms(b: &Bench) {
    let n = 320;
    let (plan, batch) = (FftPlan::new(n).unwrap(), 320 / b.less);
    let count = plan.lines_at_once().min(8);
    let (input, mut out) = (b.random(batch * n * n), b.room::<Complex32>(batch * n * n));
    let twiddles = b.filled(&plan.twiddles);
    let bytes = 2 * batch * n * n * C;
    let mut time = |name: &str, grid: [usize; 3], n_lines: usize| {
        let args = [
            Arg::input(&input),
            Arg::output(&mut out),
            Arg::input(&twiddles),
            int(n),
            int(n_lines),
            Arg::I32(plan.radices),
            int(count),
            int(n / 2),
            Arg::F32(1.0),
            Arg::F32(1.0 / (n as f32).sqrt()),
        ];
        b.kernel(name, grid, &args, bytes);
    };
    time(
        "fft_rows_c32",
        [(batch * n).div_ceil(count), 1, 1],
        batch * n,
    );
    time("fft_columns_c32", [n.div_ceil(count), batch, 1], n);

    let (coils, lines, n_x) = (16, 2048 / b.less, 1024 / b.less);
    let (input, mut out) = (
        b.random(coils * lines * n_x),
        b.room::<Complex32>(coils * lines * n_x),
    );
    let line_of: Vec<i32> = (0..lines as i32).collect();
    let (line_of, factor) = (b.filled(&line_of), b.random(lines));
    let bytes = 2 * coils * lines * n_x * C;
    let args = [
        Arg::input(&input),
        Arg::input(&line_of),
        Arg::input(&factor),
        Arg::output(&mut out),
        int(lines),
        int(lines),
        int(n_x),
    ];
    b.kernel(
        "sort_lines_c32",
        [(lines * n_x).div_ceil(256), coils, 1],
        &args,
        bytes,
    );
    let rows = coils * lines;
    let args = [
        Arg::input(&input),
        Arg::output(&mut out),
        int(rows),
        int(n_x),
    ];
    b.kernel(
        "turn_lines_c32",
        [rows.div_ceil(32), n_x.div_ceil(32), 1],
        &args,
        bytes,
    );
    let n_sums = 64;
    let mut sums = b.room::<f64>(n_sums * n_x);
    let args = [
        Arg::input(&input),
        Arg::output(&mut sums),
        int(rows),
        int(n_x),
    ];
    b.kernel(
        "column_energy_f64",
        [n_x.div_ceil(32), n_sums, 1],
        &args,
        bytes / 2,
    );
}

fn lattices(b: &Bench) {
    let (coils, folds, rows, n_x) = (16, 4, 512 / b.less, 1024 / b.less);
    let (folded, weights) = (
        b.random(coils * rows * n_x),
        b.random(coils * folds * rows * n_x),
    );
    let (turn, mut out) = (
        b.random(folds * rows),
        b.room::<Complex32>(folds * rows * n_x),
    );
    let args = [
        Arg::input(&folded),
        Arg::input(&weights),
        Arg::input(&turn),
        Arg::output(&mut out),
        int(coils),
        int(folds),
        int(rows),
        int(n_x),
    ];
    let grid = [(rows * n_x.div_ceil(2)).div_ceil(128), 1, 1];
    let bytes = (coils + folds * coils + folds) * rows * n_x * C;
    b.kernel("grappa_unmix_c32", grid, &args, bytes);

    // 20 slices as planes of one stack.
    let (slices, pe1, n_x) = ((20 / b.less).max(1), 80 / b.less.min(8), 320 / b.less);
    let (n, plane) = (slices * pe1 * n_x, slices * folds * pe1);
    let (folded, csm) = (b.random(coils * n), b.random(coils * folds * n));
    let members = (0..folds).flat_map(|m| (0..slices).map(move |z| ((z * folds + m) * pe1) as i32));
    let (members, phase) = (b.filled(&members.collect::<Vec<_>>()), b.random(plane));
    let mut out = b.room::<Complex32>(folds * n);
    let sizes = || {
        [
            int(coils),
            int(slices),
            int(pe1),
            int(n_x),
            int(plane),
            Arg::F32(0.01),
        ]
    };
    let grid = [n.div_ceil(128), 1, 1];
    let mut args = vec![
        Arg::input(&folded),
        Arg::input(&csm),
        Arg::input(&members),
        Arg::input(&phase),
        Arg::output(&mut out),
    ];
    args.extend(sizes());
    b.kernel(
        "sense_unfold_r4",
        grid,
        &args,
        n * C * (coils + folds * coils + folds),
    );
    let (mut std, mut g) = (b.room::<f32>(folds * n), b.room::<f32>(folds * n));
    let mut args = vec![
        Arg::input(&csm),
        Arg::input(&members),
        Arg::output(&mut std),
        Arg::output(&mut g),
    ];
    args.extend(sizes());
    b.kernel(
        "sense_gfactor_r4",
        grid,
        &args,
        n * folds * (coils * C + 2 * F),
    );
}

fn planes(b: &Bench) {
    let (planes, coils, n) = ((16 / b.less).max(2), 12, 256 / b.less.min(8));
    let plan = FftPlan::new(n).unwrap();
    let (count, plane) = (plan.lines_at_once().min(8), n * n);
    let all = planes * plane;
    let (csm, p, twiddles) = (
        b.random(coils * all),
        b.random(all),
        b.filled(&plan.twiddles),
    );
    let (mut work, mut q) = (b.room::<Complex32>(coils * all), b.room::<Complex32>(all));
    let along = [n.div_ceil(count), coils, planes];
    let args = [
        Arg::input(&csm),
        Arg::input(&p),
        Arg::input(&twiddles),
        Arg::output(&mut work),
        int(n),
        int(n),
        Arg::I32(plan.radices),
        int(count),
    ];
    b.kernel(
        "sense_rows_forward_c32",
        along,
        &args,
        (2 * coils + 1) * all * C,
    );
    let weights = b.filled(&vec![1.0f32 / plane as f32; plane]);
    let args = [
        Arg::output(&mut work),
        Arg::input(&weights),
        Arg::input(&twiddles),
        int(n),
        int(n),
        Arg::I32(plan.radices),
        int(count),
    ];
    b.kernel(
        "sense_columns_c32",
        along,
        &args,
        2 * coils * all * C + plane * F,
    );
    let mut of_rows = b.room::<f64>(planes * along[0]);
    let args = [
        Arg::input(&work),
        Arg::input(&csm),
        Arg::input(&p),
        Arg::input(&twiddles),
        Arg::output(&mut q),
        Arg::output(&mut of_rows),
        int(coils),
        int(n),
        int(n),
        Arg::I32(plan.radices),
        int(count),
        Arg::F32(0.1),
    ];
    b.kernel(
        "sense_rows_adjoint_c32",
        [along[0], 1, planes],
        &args,
        (2 * coils + 2) * all * C,
    );
    let mut inverse = b.room::<f32>(all);
    let vectors = [plane.div_ceil(256).min(64), 1, planes];
    let args = [
        Arg::input(&csm),
        Arg::output(&mut inverse),
        int(coils),
        int(plane),
        Arg::F32(1.0),
        Arg::F32(0.1),
    ];
    b.kernel("sense_diagonal_f32", vectors, &args, all * (coils * C + F));
    let (mut x, mut start) = (b.room::<Complex32>(all), b.room::<Complex32>(all));
    let mut parts = b.room::<f64>(planes * vectors[0]);
    let args = [
        Arg::input(&p),
        Arg::input(&inverse),
        Arg::output(&mut x),
        Arg::output(&mut start),
        Arg::output(&mut parts),
        int(plane),
    ];
    b.kernel("cg_begin_c32", vectors, &args, all * (3 * C + F));
    let (rho, limits) = (
        b.filled(&vec![1.0f64; 2 * planes]),
        b.filled(&vec![1e-6f32; planes]),
    );
    let curvature = b.filled(&vec![1.0f64; planes]);
    let args = [
        Arg::input(&p),
        Arg::input(&q),
        Arg::input(&inverse),
        Arg::input(&curvature),
        Arg::input(&rho),
        Arg::input(&limits),
        Arg::output(&mut x),
        Arg::output(&mut start),
        Arg::output(&mut parts),
        int(plane),
        int(1),
        int(0),
    ];
    b.kernel("cg_step_c32", vectors, &args, all * (6 * C + F));
}
