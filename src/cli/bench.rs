//! `cauda bench`: a simulated scanner against a server, and how long every image took.
//!
//! Method. One frame is simulated and sent again and again with its repetition counter counted up (behind repetition
//! 65535 the cardiac phase goes up by one and the repetition begins again), at a pace or flat out; interleaved scans
//! send its lines by turns. The latency of a frame is measured at the client, by its clock alone: from the moment when the last readout was
//! given to the socket to the moment when the whole image was read from it. So it holds for any MRD server
//! (`--against`), and network and socket are part of it. Frames of the warm-up are sent and not counted. Without
//! `--against` the server runs in this process, and client and server share its cores.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ismrmrd::wire::Message;
use ismrmrd::{Acquisition, AcquisitionFlag, Header, Meta};

use super::{Outcome, output::Output, output::table, plot};
use crate::data::{Fault, FaultKind};
use crate::device::Device;
use crate::device::cuda::Accelerator;
use crate::metrics::{peak_memory_bytes, resident_memory_bytes};
use crate::phantom::{CalibrationLines, Simulate, simulate};
use crate::server::{Client, Received, Receiver, Server, ServerConfig};

/// Values of a counter of the format.
const REPETITIONS: u32 = 1 << 16;

/// More than a day at 100 frames per second.
const MAX_FRAMES: u32 = 10_000_000;

/// Arguments of `cauda bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An MRD server that runs already; without it, one of our own
    #[arg(long, value_name = "HOST:PORT")]
    against: Option<String>,
    /// Configuration to ask for
    #[arg(short, long, value_name = "NAME", default_value = "recon_only")]
    protocol: String,
    /// Frames that are counted, one repetition each; every 65536 of them are a cardiac phase
    #[arg(long, value_name = "N", default_value_t = 500)]
    frames: u32,
    /// Frames before them that are not
    #[arg(long, value_name = "N", default_value_t = 20)]
    warm_up: u32,
    /// Matrix, both ways
    #[arg(long, value_name = "N", default_value_t = 128)]
    matrix: usize,
    /// Receive coils
    #[arg(long, value_name = "N", default_value_t = 12)]
    coils: usize,
    /// Acceleration; calibration lines come in front of the first frame
    #[arg(long, value_name = "R", default_value_t = 3)]
    accel: usize,
    /// No calibration lines: every frame measures other lines than the one before (TGRAPPA)
    #[arg(long)]
    interleaved: bool,
    /// Frames per second; 0 is flat out
    #[arg(long, value_name = "HZ", default_value_t = 0.0)]
    rate: f64,
    /// Frames that come at once, as fast as the socket takes them, before a pause that keeps the rate
    #[arg(long, value_name = "N", default_value_t = 1)]
    burst: u32,
    /// Frames that may be on their way at once; flat out without a bound measures the queue, not the server
    #[arg(long, value_name = "N", default_value_t = 0)]
    in_flight: u64,
    /// Latency above which a frame is late, ms
    #[arg(long, value_name = "MS", default_value_t = 5.0)]
    deadline_ms: f64,
    /// Wait so long before each image is read, ms: a slow consumer
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    read_delay_ms: f64,
    /// Threads of our own server
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Draw latency over time and its distribution: .png, .svg, .html
    #[arg(long, value_name = "OUT.png")]
    plot: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Distribution of a time, milliseconds.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(super) struct Quantiles {
    count: usize,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Quantiles {
    /// By nearest rank.
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let rank = |p: f64| {
            let i = (p * values.len() as f64).ceil() as usize;
            values.get(i.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Self {
            count: values.len(),
            p50_ms: rank(0.5),
            p95_ms: rank(0.95),
            p99_ms: rank(0.99),
            max_ms: rank(1.0),
        }
    }

    fn row(&self, name: &str) -> Vec<String> {
        let ms = |v: f64| format!("{v:.3}");
        vec![
            name.to_owned(),
            self.count.to_string(),
            ms(self.p50_ms),
            ms(self.p95_ms),
            ms(self.p99_ms),
            ms(self.max_ms),
        ]
    }
}

/// What was measured. Keys are stable.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct BenchReport {
    server: String,
    matrix: usize,
    coils: usize,
    acceleration: usize,
    is_interleaved: bool,
    rate_hz: f64,
    burst: u32,
    in_flight: u64,
    threads: usize,
    frames: usize,
    lost: usize,
    /// From the connection to the first image.
    first_image_ms: f64,
    /// From the last readout given to the socket to the image read from it.
    latency: Quantiles,
    /// Differences of the times between images, against the median.
    jitter: Quantiles,
    /// Parts of the way, as the images' marks say, if the server is ours.
    stages: BTreeMap<String, Quantiles>,
    deadline_ms: f64,
    deadline_misses: usize,
    frames_per_s: f64,
    sent_mib_per_s: f64,
    peak_memory_mib: Option<u64>,
    /// Memory now and after the warm-up: a difference that grows with the frames is a leak.
    resident_mib: [Option<u64>; 2],
    texts: Vec<String>,
}

/// The scan: what comes once, and the frames that are sent by turns, again and again.
struct Scan {
    header: Header,
    once: Vec<Acquisition>,
    frames: Vec<Vec<Acquisition>>,
}

fn scan(args: &Args) -> Result<Scan, Fault> {
    let wrong = |text: String| Fault::new(FaultKind::Protocol, "phantom", text);
    let preset = Simulate::preset("small").ok_or_else(|| wrong("no preset small".into()))?;
    let is_interleaved = args.interleaved && args.accel > 1;
    let accel = if is_interleaved { 1 } else { args.accel };
    let sim = Simulate {
        matrix: [args.matrix, args.matrix, 1],
        n_slices: 1,
        n_coils: args.coils,
        acceleration: [accel, 1],
        acs: if accel > 1 { [24, 0] } else { [0, 0] },
        calibration: CalibrationLines::Separate,
        ..preset
    };
    let made = simulate(&sim).map_err(|e| wrong(e.to_string()))?;
    let mut header = made.header;
    let last = args.frames + args.warm_up - 1;
    let up_to = |maximum| {
        Some(ismrmrd::header::Limit {
            minimum: 0,
            maximum,
            center: 0,
        })
    };
    for e in &mut header.encoding {
        e.encoding_limits.repetition = up_to(last.min(REPETITIONS - 1));
        e.encoding_limits.phase = up_to(last / REPETITIONS);
        if is_interleaved {
            e.parallel_imaging = Some(ismrmrd::header::ParallelImaging {
                acceleration_factor: [args.accel as u32, 1],
                calibration_mode: Some("interleaved".into()),
                interleaving_dimension: Some("repetition".into()),
                multiband: None,
            });
        }
    }
    let is_once = |a: &Acquisition| {
        a.head.has(AcquisitionFlag::IsNoiseMeasurement)
            || a.head.has(AcquisitionFlag::IsParallelCalibration)
    };
    let (once, mut frame): (Vec<_>, Vec<_>) = made.acquisitions.into_iter().partition(is_once);
    for a in &mut frame {
        a.head.clear(AcquisitionFlag::LastInMeasurement);
    }
    let frames = if is_interleaved {
        let every = |offset| {
            let lines = frame
                .iter()
                .filter(|a| usize::from(a.head.idx.kspace_encode_step_1) % args.accel == offset);
            let mut lines: Vec<Acquisition> = lines.cloned().collect();
            if let Some(last) = lines.last_mut() {
                last.head.set(AcquisitionFlag::LastInSlice);
            }
            lines
        };
        (0..args.accel).map(every).collect()
    } else {
        vec![frame]
    };
    Ok(Scan {
        header,
        once,
        frames,
    })
}

pub(super) fn run(args: &Args, out: &Output) -> Result<Outcome, Fault> {
    let total = args.warm_up.checked_add(args.frames);
    if args.frames == 0 || total.is_none_or(|n| n > MAX_FRAMES) {
        return Err(Fault::new(
            FaultKind::Protocol,
            "cli",
            format!(
                "--frames: needed at least 1, and at most {MAX_FRAMES} with those of the warm-up"
            ),
        ));
    }
    let plot = args.plot.as_ref();
    let plot = plot
        .map(|path| plot::Format::of(path).map(|format| (path, format)))
        .transpose()?;
    let scan = scan(args)?;
    let device = Device::detect();
    let threads = args.threads.unwrap_or(device.threads);
    let report = match &args.against {
        Some(address) => measure(args, &scan, address, threads)?,
        None => {
            let mut config = ServerConfig::new(threads, device.memory_bytes);
            config.card = Accelerator::open().ok();
            config.listen = ([127, 0, 0, 1], 0).into();
            let server = Server::bind(config)?;
            let address = server.address()?.to_string();
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let serving = scope.spawn(|| server.run(&|| stop.load(Ordering::Relaxed)));
                let mut report = measure(args, &scan, &address, threads);
                if let Ok((report, _)) = &mut report {
                    // An image cannot carry the time of its own sending; frames of the warm-up are among these.
                    let stats = server.stats();
                    let ms = |q| {
                        let time = stats.quantile("send", q).unwrap_or_default();
                        1e3 * time.as_secs_f64()
                    };
                    let sending = Quantiles {
                        count: report.frames + args.warm_up as usize,
                        p50_ms: ms(0.5),
                        p95_ms: ms(0.95),
                        p99_ms: ms(0.99),
                        max_ms: ms(1.0),
                    };
                    report
                        .stages
                        .insert("4 encoding and sending".into(), sending);
                }
                stop.store(true, Ordering::Relaxed);
                match serving.join() {
                    Ok(served) => served.and(report),
                    Err(p) => Err(Fault::new(
                        FaultKind::Bug,
                        "cli",
                        crate::pipeline::panic_text(p.as_ref()),
                    )),
                }
            })?
        }
    };
    if let Some((path, format)) = plot {
        let picture = format.draw(&report.0, &report.1)?;
        std::fs::write(path, picture).map_err(|e| {
            Fault::new(
                FaultKind::Io,
                "cli",
                format!("cannot write the plot: {e}: {}", path.display()),
            )
        })?;
    }
    let report = report.0;
    out.text(&describe(&report));
    out.json(&report)?;
    Ok(if report.lost > 0 {
        Outcome::CheckFailed
    } else {
        Outcome::Done
    })
}

/// One line per frame: when its image came, seconds since the first, and its latency, milliseconds.
pub(super) type Timeline = Vec<(f64, f64)>;

fn measure(
    args: &Args,
    scan: &Scan,
    address: &str,
    threads: usize,
) -> Result<(BenchReport, Timeline), Fault> {
    let limit = Duration::from_secs(60);
    let (mut client, receiver) = Client::connect(address, limit)?;
    drop(client.stream().set_read_timeout(Some(limit)));
    drop(client.stream().set_write_timeout(Some(limit)));
    let total = (args.frames + args.warm_up) as usize;
    let sent_at: Vec<Mutex<Option<Instant>>> = (0..total).map(|_| Mutex::new(None)).collect();
    let received = AtomicU64::new(0);
    let has_ended = AtomicBool::new(false);
    let begun = Instant::now();
    let (sent, heard) = std::thread::scope(|scope| {
        let (received, has_ended) = (&received, &has_ended);
        let hearing = scope.spawn(move || {
            let heard = hear(receiver, args, total, received);
            has_ended.store(true, Ordering::Release);
            heard
        });
        let sent = send(&mut client, scan, args, &sent_at, received, has_ended);
        let heard = hearing.join().unwrap_or_else(|p| {
            Err(Fault::new(
                FaultKind::Bug,
                "cli",
                crate::pipeline::panic_text(p.as_ref()),
            ))
        });
        (sent, heard)
    });
    let heard = heard?;
    if let Some(text) = heard.texts.iter().find(|t| t.starts_with("ERR")) {
        return Err(Fault::new(
            FaultKind::Io,
            "cli",
            format!("the server refused: {text}"),
        ));
    }
    let (resident_before, sent_at_warm) = sent?;

    let first = args.warm_up as usize;
    let mut timeline = Timeline::new();
    let mut arrivals = Vec::new();
    let mut stages: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for frame in first..total {
        let sent = sent_at
            .get(frame)
            .and_then(|s| *s.lock().unwrap_or_else(|e| e.into_inner()));
        if let (Some((at, parts)), Some(sent)) = (&heard.images[frame], sent) {
            let ms = 1e3 * at.saturating_duration_since(sent).as_secs_f64();
            timeline.push((at.saturating_duration_since(begun).as_secs_f64(), ms));
            arrivals.push(*at);
            for (name, ms) in PARTS.iter().zip(parts).filter(|(_, ms)| ms.is_finite()) {
                stages.entry(name[0].into()).or_default().push(*ms);
            }
        }
    }
    arrivals.sort();
    let gaps: Vec<f64> = arrivals
        .windows(2)
        .map(|w| 1e3 * (w[1] - w[0]).as_secs_f64())
        .collect();
    let median_gap = Quantiles::of(gaps.clone()).p50_ms;
    let span = match (arrivals.first(), arrivals.last()) {
        (Some(a), Some(b)) => (*b - *a).as_secs_f64(),
        _ => 0.0,
    };
    let latencies: Vec<f64> = timeline.iter().map(|t| t.1).collect();
    let sending = sent_at_warm.elapsed().as_secs_f64();
    let report = BenchReport {
        server: args
            .against
            .clone()
            .unwrap_or_else(|| "in this process".into()),
        matrix: args.matrix,
        coils: args.coils,
        acceleration: args.accel,
        is_interleaved: args.interleaved,
        rate_hz: args.rate,
        burst: args.burst,
        in_flight: args.in_flight,
        threads,
        frames: latencies.len(),
        lost: args.frames as usize - latencies.len(),
        first_image_ms: heard.first.map_or(0.0, |at| {
            1e3 * at.saturating_duration_since(begun).as_secs_f64()
        }),
        deadline_ms: args.deadline_ms,
        deadline_misses: latencies.iter().filter(|l| **l > args.deadline_ms).count(),
        latency: Quantiles::of(latencies),
        jitter: Quantiles::of(gaps.iter().map(|g| (g - median_gap).abs()).collect()),
        stages: stages
            .into_iter()
            .map(|(n, v)| (n, Quantiles::of(v)))
            .collect(),
        frames_per_s: if span > 0.0 {
            (arrivals.len() - 1) as f64 / span
        } else {
            0.0
        },
        sent_mib_per_s: client.sent_bytes() as f64 / f64::from(1 << 20) / sending.max(1e-9),
        peak_memory_mib: args
            .against
            .is_none()
            .then(peak_memory_bytes)
            .flatten()
            .map(|b| b >> 20),
        resident_mib: [resident_before, resident_memory_bytes()].map(|b| b.map(|b| b >> 20)),
        texts: heard.texts,
    };
    Ok((report, timeline))
}

struct Heard {
    /// Of each frame when its image came and the [`PARTS`] of its way, ms. All of it is there from the beginning: the
    /// memory of a server in this process is read off the same figure.
    images: Vec<Option<(Instant, [f64; 3])>>,
    first: Option<Instant>,
    texts: Vec<String>,
}

fn hear(
    mut receiver: Receiver,
    args: &Args,
    total: usize,
    received: &AtomicU64,
) -> Result<Heard, Fault> {
    let mut heard = Heard {
        images: (0..total).map(|_| None).collect(),
        first: None,
        texts: Vec::new(),
    };
    let delay = Duration::try_from_secs_f64(1e-3 * args.read_delay_ms).unwrap_or_default();
    loop {
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        match receiver.receive()? {
            Received::Image(image) => {
                let now = Instant::now();
                heard.first.get_or_insert(now);
                let head = &image.head;
                let frame = u32::from(head.phase) * REPETITIONS + u32::from(head.repetition);
                // One frame may come as several images; the last of them counts.
                if let Some(slot) = heard.images.get_mut(frame as usize)
                    && slot.replace((now, parts(&image.attributes))).is_none()
                {
                    received.fetch_add(1, Ordering::Release);
                }
            }
            Received::Text(text) | Received::Response(text) => heard.texts.push(text),
            Received::Other => {}
            Received::Close | Received::CutOff => return Ok(heard),
        }
    }
}

/// Parts of an image's way in our server, between two marks.
const PARTS: [[&str; 3]; 3] = [
    ["1 last readout to sorted", "last_readout", "sorted"],
    ["2 waiting for a worker", "sorted", "begun"],
    ["3 reconstruction", "begun", "reconstructed"],
];

/// Their times from the marks in an image's meta attributes, milliseconds; NaN where there are none.
fn parts(attributes: &str) -> [f64; 3] {
    let Ok(meta) = Meta::parse(attributes) else {
        return [f64::NAN; 3];
    };
    let at = |name: &str| -> Option<f64> { meta.get_str(&format!("CaudaMs_{name}"))?.parse().ok() };
    PARTS.map(|[_, from, to]| {
        at(to)
            .zip(at(from))
            .map_or(f64::NAN, |(to, from)| to - from)
    })
}

fn send(
    client: &mut Client,
    scan: &Scan,
    args: &Args,
    sent_at: &[Mutex<Option<Instant>>],
    received: &AtomicU64,
    has_ended: &AtomicBool,
) -> Result<(Option<u64>, Instant), Fault> {
    client.send(&Message::ConfigFile(args.protocol.clone()))?;
    client.send(&Message::Header(scan.header.to_xml()))?;
    for readout in &scan.once {
        client.readout(&readout.as_ref())?;
    }
    let mut frames = scan.frames.clone();
    let n_frames = frames.len();
    let begun = Instant::now();
    let per_frame = if args.rate > 0.0 {
        1.0 / args.rate
    } else {
        0.0
    };
    let mut warm = (None, begun);
    for (n, mark) in sent_at.iter().enumerate() {
        if n == args.warm_up as usize {
            warm = (resident_memory_bytes(), Instant::now());
        }
        // A client that waits for its images is the only way to see the latency of a server that is flat out.
        while args.in_flight > 0
            && (n as u64).saturating_sub(received.load(Ordering::Acquire)) >= args.in_flight
            && !has_ended.load(Ordering::Acquire)
        {
            // Yielding instead would take the core that the server needs.
            std::thread::sleep(Duration::from_micros(50));
        }
        let frame = &mut frames[n % n_frames];
        let per_readout = per_frame / frame.len().max(1) as f64;
        for (i, readout) in frame.iter_mut().enumerate() {
            readout.head.idx.repetition = (n as u32 % REPETITIONS) as u16;
            readout.head.idx.phase = (n as u32 / REPETITIONS) as u16;
            let is_paced = args.burst <= 1 || (i == 0 && (n as u32).is_multiple_of(args.burst));
            if per_frame > 0.0 && is_paced {
                let due = per_frame * n as f64 + per_readout * i as f64;
                let due = begun + Duration::from_secs_f64(due);
                client.flush()?;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            client.readout(&readout.as_ref())?;
        }
        client.flush()?;
        *mark.lock().unwrap_or_else(|e| e.into_inner()) = Some(Instant::now());
    }
    client.send(&Message::Close)?;
    Ok(warm)
}

fn describe(r: &BenchReport) -> String {
    let mut rows = vec![r.latency.row("last readout sent to image read")];
    rows.extend(r.stages.iter().map(|(name, q)| q.row(name)));
    rows.push(r.jitter.row("jitter"));
    let pace = if r.rate_hz > 0.0 {
        let bursts = if r.burst > 1 {
            format!(" in bursts of {}", r.burst)
        } else {
            String::new()
        };
        format!("{} frames/s{bursts}", r.rate_hz)
    } else if r.in_flight > 0 {
        format!("flat out, {} in flight", r.in_flight)
    } else {
        "flat out".into()
    };
    let mib = |b: Option<u64>| b.map_or_else(|| "unknown".into(), |b| format!("{b} MiB"));
    [
        format!(
            "{0}x{0}, {1} coils, R = {2}, {pace}; server {3}, {4} threads",
            r.matrix, r.coils, r.acceleration, r.server, r.threads
        ),
        table(&["ms", "count", "p50", "p95", "p99", "max"], &rows),
        format!(
            "{:.1} frames/s, {:.1} MiB/s sent; first image after {:.1} ms; {} of {} frames later than {} ms, {} lost",
            r.frames_per_s,
            r.sent_mib_per_s,
            r.first_image_ms,
            r.deadline_misses,
            r.frames,
            r.deadline_ms,
            r.lost
        ),
        format!(
            "memory: peak {}, after the warm-up {}, at the end {}",
            mib(r.peak_memory_mib),
            mib(r.resident_mib[0]),
            mib(r.resident_mib[1])
        ),
    ]
    .join("\n")
}
