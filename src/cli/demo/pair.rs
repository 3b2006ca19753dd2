//! The fast lumbar pair: a patient who does not exist, scanned, streamed over loopback, reconstructed while the scan runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ismrmrd::wire::Message;
use ismrmrd::{Image, Meta, Pixels};

use super::super::output::{Output, table};
use super::super::phantom::write_png;
use super::Args;
use crate::data::{Fault, FaultKind};
use crate::device::Device;
use crate::phantom::acquire::{AcquireParams, Scan, Subject};
use crate::phantom::spine::{Patient, Request};
use crate::protocol::Registry;
use crate::server::{Client, Receiver, Server, ServerConfig};

/// The protocols, in the order of the exam.
const PAIR: [&str; 2] = ["lumbar_sag_t1_fast", "lumbar_sag_t2_fast"];
/// What the patient has.
const FINDINGS: [&str; 4] = [
    "central_stenosis:severe@L4/5",
    "modic1:severe@L5",
    "fracture_osteoporotic:moderate@L1",
    "haemangioma@L3",
];
/// Pixels of the sheet along each side of a slice.
const TILE: usize = 360;

/// One series of the demonstration.
#[derive(Debug, serde::Serialize)]
pub(super) struct Series {
    protocol: &'static str,
    readouts: u64,
    coils: usize,
    images: usize,
    /// What the scanner would take.
    scan_s: f64,
    /// What simulating and sending took.
    simulated_s: f64,
    /// What a network did to the images, in their own words.
    network: Vec<String>,
    /// From the last readout on the socket to the last image read.
    last_image_ms: f64,
}

/// Scans the patient with both protocols and draws a sheet.
pub(super) fn run(args: &Args, out: &Output) -> Result<Vec<Series>, Fault> {
    let request = Request {
        seed: args.seed,
        age_years: Some(58.0),
        pathology: FINDINGS
            .iter()
            .map(|f| f.parse())
            .collect::<Result<_, _>>()?,
        ..Request::default()
    };
    let patient = Patient::draw(&request)?;
    out.text(&format!(
        "A digital patient (SIMULATED): lumbar spine, seed {}, 58 years; {}.\n\
         Scanned with the fast pair, streamed over loopback as readouts are made, reconstructed by the server:\n",
        args.seed,
        FINDINGS.join(", ")
    ));
    let device = Device::detect();
    let threads = args.threads.unwrap_or(device.threads);
    let mut config = ServerConfig::new(threads, device.memory_bytes);
    config.listen = ([127, 0, 0, 1], 0).into();
    let server = Server::bind(config)?;
    let address = server.address()?.to_string();
    let stop = AtomicBool::new(false);
    let made = std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.run(&|| stop.load(Ordering::Relaxed)));
        let made: Result<Vec<_>, Fault> = PAIR
            .iter()
            .enumerate()
            .map(|(i, name)| series(args, &patient, name, i as u64, &address))
            .collect();
        stop.store(true, Ordering::Relaxed);
        match serving.join() {
            Ok(served) => served.and(made),
            Err(p) => Err(bug(p.as_ref())),
        }
    })?;
    let path = args.out.join("spine.png");
    let (series, images): (Vec<_>, Vec<_>) = made.into_iter().unzip();
    let (width, height, pixels) = sheet(&images);
    write_png(&path, width, height, &pixels)?;
    let rows: Vec<Vec<String>> = series
        .iter()
        .map(|s: &Series| {
            vec![
                s.protocol.to_owned(),
                s.readouts.to_string(),
                s.images.to_string(),
                format!("{:.0} s", s.scan_s),
                format!("{:.1} s", s.simulated_s),
                format!("{:.0} ms", s.last_image_ms),
            ]
        })
        .collect();
    out.text(&table(
        &[
            "protocol",
            "readouts",
            "images",
            "a scanner takes",
            "simulated in",
            "last image after the last readout",
        ],
        &rows,
    ));
    let said: std::collections::BTreeSet<&String> =
        series.iter().flat_map(|s| &s.network).collect();
    for words in said {
        out.text(words);
    }
    out.text(&format!(
        "look at {} (rows T1w, T2w; {} slices); the truth: cauda phantom truth --seed {} --age 58{}",
        path.display(),
        args.slices,
        args.seed,
        FINDINGS.map(|f| format!(" --pathology {f}")).concat()
    ));
    Ok(series)
}

/// What the marks of the images say of networks, each once.
fn network(images: &[Image]) -> Vec<String> {
    let mut said: Vec<String> = images
        .iter()
        .filter_map(|i| Meta::parse(&i.attributes).ok())
        .flat_map(|meta| {
            meta.get("ImageComments")
                .map_or_else(Vec::new, <[_]>::to_vec)
        })
        .filter(|words| words.starts_with("denoise"))
        .collect();
    said.sort();
    said.dedup();
    said
}

fn bug(payload: &(dyn std::any::Any + Send)) -> Fault {
    Fault::new(FaultKind::Bug, "cli", crate::pipeline::panic_text(payload))
}

/// One scan over one connection.
fn series(
    args: &Args,
    patient: &Patient,
    name: &'static str,
    number: u64,
    address: &str,
) -> Result<(Series, Vec<Image>), Fault> {
    let mut overlays = vec![format!("sequence.n_slices={}", args.slices)];
    overlays.extend(args.set.iter().cloned());
    let protocol = Registry.find(name, &overlays)?;
    let sequence = protocol.sequence()?.clone();
    let params = AcquireParams {
        seed: args.seed,
        series: number,
        ..AcquireParams::default()
    };
    let subject = Subject::new(patient.clone(), sequence.field_strength_t);
    let scan = Scan::plan(&subject, &sequence, &params, name)?;
    let scan_s = crate::sequence::Timing::plan(&sequence)
        .map_err(crate::phantom::PhantomError::from)?
        .scan_s;

    let limit = Duration::from_secs(600);
    let (mut client, receiver) = Client::connect(address, limit)?;
    let begun = Instant::now();
    let mut readouts = 0;
    let (sent, heard) = std::thread::scope(|scope| {
        let hearing = scope.spawn(|| listen(receiver));
        let sent: Result<Instant, Fault> = (|| {
            client.send(&Message::ConfigFile(name.to_owned()))?;
            client.send(&Message::Header(scan.header().to_xml()))?;
            scan.run(false, |a| {
                if super::super::interrupt::is_set() {
                    return Err(Fault::new(FaultKind::Io, "cli", "interrupted"));
                }
                readouts += 1;
                client.readout(&a.as_ref())
            })?;
            client.flush()?;
            let last = Instant::now();
            client.send(&Message::Close)?;
            Ok(last)
        })();
        if sent.is_err() {
            drop(client.stream().shutdown(std::net::Shutdown::Both));
        }
        let heard = hearing.join().unwrap_or_else(|p| Err(bug(p.as_ref())));
        (sent, heard)
    });
    let last = sent?;
    let (images, at) = heard?;
    Ok((
        Series {
            protocol: name,
            readouts,
            coils: params.n_coils,
            images: images.len(),
            network: network(&images),
            scan_s,
            simulated_s: last.duration_since(begun).as_secs_f64(),
            last_image_ms: 1e3 * at.saturating_duration_since(last).as_secs_f64(),
        },
        images,
    ))
}

/// Images until the server closes, and when it did: right after the last one.
fn listen(mut receiver: Receiver) -> Result<(Vec<Image>, Instant), Fault> {
    let (images, words, is_closed) = receiver.rest()?;
    let at = Instant::now();
    let failed = |text: &str| Fault::new(FaultKind::Io, "server", text);
    if let Some(said) = words.iter().find(|w| w.starts_with("ERR")) {
        return Err(failed(said));
    }
    if images.is_empty() || !is_closed {
        return Err(failed(
            "the server ended before its images, or without CLOSE",
        ));
    }
    Ok((images, at))
}

/// Magnitudes of a series side by side, a row each, head up and front to the left, square pixels.
fn sheet(series: &[Vec<Image>]) -> (usize, usize, Vec<u8>) {
    let columns = series.iter().map(Vec::len).max().unwrap_or(0);
    let (width, height) = (columns * TILE, series.len() * TILE);
    let mut pixels = vec![0u8; 3 * width * height];
    for (row, images) in series.iter().enumerate() {
        let mut images: Vec<(&Image, Vec<f32>)> =
            images.iter().map(|i| (i, magnitude(i))).collect();
        images.sort_by(|a, b| a.0.head.position[0].total_cmp(&b.0.head.position[0]));
        let mut all: Vec<f32> = images.iter().flat_map(|i| i.1.iter().copied()).collect();
        all.sort_by(f32::total_cmp);
        let white = all
            .get(all.len().saturating_sub(1) * 995 / 1000)
            .copied()
            .unwrap_or(1.0)
            .max(1e-9);
        for (column, (image, values)) in images.iter().enumerate() {
            let [nx, ny, _] = image.head.matrix_size.map(usize::from);
            let is_feet_first = image.head.phase_dir[2] > 0.0;
            let is_back_first = image.head.read_dir[1] < 0.0;
            for i in 0..TILE * TILE {
                let at = |k: usize, n: usize, flip: bool| {
                    let x = (k as f32 + 0.5) * n as f32 / TILE as f32 - 0.5;
                    let x = if flip { n as f32 - 1.0 - x } else { x };
                    x.clamp(0.0, n as f32 - 1.0)
                };
                let (y, x) = (
                    at(i / TILE, ny, is_feet_first),
                    at(i % TILE, nx, is_back_first),
                );
                let g = 255.0 * (linear(values, nx, ny, x, y) / white).clamp(0.0, 1.0);
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
                let g = g.round() as u8;
                let place = 3 * ((row * TILE + i / TILE) * width + column * TILE + i % TILE);
                pixels[place..place + 3].fill(g);
            }
        }
    }
    (width, height, pixels)
}

fn linear(values: &[f32], nx: usize, ny: usize, x: f32, y: f32) -> f32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // inside of the image
    let (i, j) = (x as usize, y as usize);
    let (fx, fy) = (x - i as f32, y - j as f32);
    let at = |j: usize, i: usize| {
        values
            .get(j.min(ny - 1) * nx + i.min(nx - 1))
            .copied()
            .unwrap_or(0.0)
    };
    (at(j, i) * (1.0 - fx) + at(j, i + 1) * fx) * (1.0 - fy)
        + (at(j + 1, i) * (1.0 - fx) + at(j + 1, i + 1) * fx) * fy
}

#[allow(clippy::cast_possible_truncation)] // for eyes
fn magnitude(image: &Image) -> Vec<f32> {
    match &image.pixels {
        Pixels::U16(v) => v.iter().map(|v| f32::from(*v)).collect(),
        Pixels::I16(v) => v.iter().map(|v| f32::from(*v)).collect(),
        Pixels::U32(v) => v.iter().map(|v| *v as f32).collect(),
        Pixels::I32(v) => v.iter().map(|v| *v as f32).collect(),
        Pixels::F32(v) => v.clone(),
        Pixels::F64(v) => v.iter().map(|v| *v as f32).collect(),
        Pixels::C32(v) => v.iter().map(|v| v.norm()).collect(),
        Pixels::C64(v) => v.iter().map(|v| v.norm() as f32).collect(),
    }
}
