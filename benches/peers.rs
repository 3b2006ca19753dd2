//! Our operators behind the line protocol of `scripts/bench/run.py`: `peers OP ARGS... out=FILE` prepares once, then runs
//! once per line on stdin and answers `{"seconds": s}`; at the end of input it writes the last result as `.npy`.
//!
//! Not a Criterion bench, because peers in other languages must take turns with us in one run. Under `cargo bench`
//! (which passes `--bench` and no operator) it does nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cauda::data::{Complex32, Csm, Frame, KSpace, Line, Scan, Shape};
use cauda::device::Device;
use cauda::ingest::{Ingest, IngestParams};
use cauda::num::fft::{Direction, fft2};
use cauda::num::linalg::mix;
use cauda::num::nufft::Nufft;
use cauda::recon::compress::{CompressMethod, CompressParams};
use cauda::recon::csm::{CsmParams, maps};
use cauda::recon::grappa::Apply;
use cauda::recon::sense::{Lambda, Sense, SenseParams};
use cauda::recon::{Method, Recon, ReconParams};
use cauda::source::OpenOptions;

#[path = "support/card.rs"]
mod card;
mod support;
use support::one_frame;

/// What the timed section leaves: voxels or samples, for the comparison of quality.
type Output = Vec<Complex32>;

struct Npy {
    shape: Vec<usize>,
    kind: String,
    bytes: Vec<u8>,
}

fn npy(path: &Path) -> Npy {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..end]).unwrap();
    assert!(
        header.contains("'fortran_order': False"),
        "{}",
        path.display()
    );
    let between = |from: &str, to: char| {
        let start = header.find(from).unwrap() + from.len();
        header[start..start + header[start..].find(to).unwrap()].to_owned()
    };
    Npy {
        shape: between("'shape': (", ')')
            .split(',')
            .filter_map(|s| s.trim().parse().ok())
            .collect(),
        kind: between("'descr': '", '\''),
        bytes: bytes[end..].to_vec(),
    }
}

impl Npy {
    fn real(&self) -> Vec<f32> {
        assert_eq!(self.kind, "<f4");
        self.bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    }
    fn complex(&self) -> Vec<Complex32> {
        assert_eq!(self.kind, "<c8");
        let float = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        self.bytes
            .chunks_exact(8)
            .map(|b| Complex32::new(float(b), float(&b[4..])))
            .collect()
    }
}

fn write_npy(path: &Path, data: &[Complex32]) {
    let mut header = format!(
        "{{'descr': '<c8', 'fortran_order': False, 'shape': ({},), }}",
        data.len()
    );
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    file.write_all(b"\x93NUMPY\x01\x00").unwrap();
    file.write_all(&(header.len() as u16).to_le_bytes())
        .unwrap();
    file.write_all(header.as_bytes()).unwrap();
    for v in data {
        file.write_all(&v.re.to_le_bytes()).unwrap();
        file.write_all(&v.im.to_le_bytes()).unwrap();
    }
    file.flush().unwrap();
}

struct Job {
    words: Vec<String>,
    options: HashMap<String, String>,
}

impl Job {
    fn folder(&self) -> PathBuf {
        PathBuf::from(&self.words[0])
    }
    fn array(&self, name: &str) -> Npy {
        npy(&self.folder().join(format!("{name}.npy")))
    }
}

/// Runs `timed` once per line; only what it does is on the clock.
fn serve(job: &Job, mut timed: impl FnMut() -> Output) {
    let mut last = Vec::new();
    for line in std::io::stdin().lock().lines() {
        line.unwrap();
        let start = Instant::now();
        last = timed();
        println!("{{\"seconds\": {:.9}}}", start.elapsed().as_secs_f64());
        std::io::stdout().flush().unwrap();
    }
    if let Some(path) = job.options.get("out").filter(|p| !p.is_empty()) {
        write_npy(Path::new(path), &last);
    }
}

fn fft(job: &Job) {
    let dims: Vec<usize> = job.options["shape"]
        .split('x')
        .map(|s| s.parse().unwrap())
        .collect();
    let mut data: Vec<Complex32> = (0..dims.iter().product::<usize>())
        .map(|i| Complex32::new((i % 97) as f32 - 48.0, (i % 89) as f32 - 44.0))
        .collect();
    fft2(&mut data, dims[1], dims[2], Direction::Forward);
    serve(job, || {
        fft2(&mut data, dims[1], dims[2], Direction::Forward);
        Vec::new()
    });
}

fn read(job: &Job) {
    serve(job, || {
        let file = ismrmrd::file::File::open(Path::new(&job.words[0]), ismrmrd::Limits::default())
            .unwrap();
        let (mut elements, mut sum) = (0_usize, 0.0_f64);
        let mut buffer: Vec<Complex32> = Vec::new();
        file.for_each_batch("dataset", 256, &mut |batch| {
            for readout in batch {
                elements += readout.data.len();
                // Every sample is copied out, as the C++ library does: no credit for pages never touched.
                buffer.clear();
                buffer.extend_from_slice(std::hint::black_box(readout.data));
                sum += f64::from(buffer[0].re);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(elements > 0 && sum.is_finite());
        Vec::new()
    });
}

/// One slice from `full.npy`-like k-space `[coil, y, x]` and a mask `[y, x]`. A mask that is regular along x is lines
/// with a readout; any other one is points: both axes phase-encoded, the readout a single sample (a slice of a 3D scan
/// after the transform along its readout).
fn frame(job: &Job) -> (Scan, Frame) {
    let name = &job.options["mask"];
    let is_full = name == "full";
    let grid = job.array(&if is_full {
        name.clone()
    } else {
        format!("ksp_{name}")
    });
    let [coils, ny, nx] = grid.shape[..] else {
        panic!("{:?}", grid.shape)
    };
    let samples = grid.complex();
    let mask: Vec<bool> = if is_full {
        vec![true; ny * nx]
    } else {
        let mask = job.array(&format!("mask_{name}"));
        mask.bytes.iter().map(|b| *b != 0).collect()
    };
    let is_lines = (0..ny).all(|y| (1..nx).all(|x| mask[y * nx + x] == mask[y * nx]));
    let (shape, step) = if is_lines {
        (
            Shape {
                coil: coils,
                pe2: 1,
                pe1: ny,
                ro: nx,
            },
            nx,
        )
    } else {
        (
            Shape {
                coil: coils,
                pe2: ny,
                pe1: nx,
                ro: 1,
            },
            1,
        )
    };
    let kept: Vec<usize> = (0..ny * nx / step).filter(|i| mask[i * step]).collect();
    let mut packed = Vec::with_capacity(coils * kept.len() * step);
    for coil in 0..coils {
        for i in &kept {
            let row = coil * ny * nx + i * step;
            packed.extend_from_slice(&samples[row..row + step]);
        }
    }
    let lines = kept
        .iter()
        .map(|i| Line {
            pe2: (i / shape.pe1) as u32,
            pe1: (i % shape.pe1) as u32,
            averages: 1,
        })
        .collect();
    let kspace = KSpace {
        shape,
        lines,
        ro_range: 0..shape.ro,
        samples: packed,
    };
    let acceleration = job.options.get("accel").map_or(1, |a| a.parse().unwrap());
    one_frame(kspace, acceleration)
}

/// File to k-space: reading, whitening, oversampling, sorting. Leaves the zero-filled grids of all frames.
fn ingest(job: &Job) {
    serve(job, || {
        let mut opened =
            cauda::source::open(Path::new(&job.words[0]), &OpenOptions::default()).unwrap();
        let mut ingest = Ingest::plan(&opened.header, &IngestParams::default(), None).unwrap();
        opened
            .for_each_batch(&mut |batch| {
                ingest.push(batch).unwrap();
                ControlFlow::Continue(())
            })
            .unwrap();
        let done = ingest.finish().unwrap();
        for note in &done.notes {
            eprintln!("{}: {}", note.code, note.text);
        }
        let mut grids = Vec::new();
        for pending in done.frames {
            let frame = pending.assemble().unwrap();
            let mut grid = frame.kspace.to_grid();
            if let Some(reference) = &frame.reference {
                // Lines that were measured for calibration alone count as measured here.
                for (a, b) in grid.iter_mut().zip(reference.to_grid()) {
                    if *a == Complex32::ZERO {
                        *a = b;
                    }
                }
            }
            grids.extend(grid);
        }
        grids
    });
}

fn espirit(job: &Job) {
    let (_, frame) = frame(job);
    let params = CsmParams {
        calibration: job.options["acs"].parse().unwrap(),
        ..CsmParams::default()
    };
    let shape = frame.kspace.shape;
    serve(job, || {
        maps(&frame.kspace, [shape.pe2, shape.pe1, shape.ro], &params)
            .unwrap()
            .maps
    });
}

/// Tikhonov SENSE with given maps `[coil, y, x]`; `lambda` is absolute, as everybody else's. Also the relative one.
fn sense_of(job: &Job) -> (Sense, KSpace, Csm, f32) {
    let (_, frame) = frame(job);
    let shape = frame.kspace.shape;
    let sampled = frame.kspace.lines.len() as f32 / (shape.pe1 * shape.pe2) as f32;
    let defaults = SenseParams::default();
    let number = |key: &str, or: f64| job.options.get(key).map_or(or, |v| v.parse().unwrap());
    let lambda = job.options["lambda"].parse::<f32>().unwrap() / sampled;
    let params = SenseParams {
        lambda: Lambda::Fixed(lambda),
        noise_map: job.options.contains_key("noise"),
        tolerance: number("tolerance", defaults.tolerance),
        max_iterations: number("iterations", defaults.max_iterations as f64) as usize,
        ..defaults
    };
    let csm = Csm {
        n_sets: 1,
        n_coils: shape.coil,
        matrix: [shape.pe2, shape.pe1, shape.ro],
        maps: job.array("maps").complex(),
    };
    let plan = Sense::plan(&frame.kspace, &params).unwrap();
    (plan, frame.kspace, csm, lambda)
}

fn sense(job: &Job) {
    let (plan, kspace, csm, _) = sense_of(job);
    let mut said = false;
    serve(job, || {
        let image = plan.run(&kspace, &csm).unwrap();
        if !std::mem::replace(&mut said, true) {
            eprintln!(
                "{} iterations, residual {:.1e}",
                image.iterations, image.residual
            );
        }
        image.voxels
    });
}

/// `[coil, sample]` through a whitening matrix.
fn whiten(job: &Job) {
    let (data, matrix) = (job.array("full"), job.array("whitening").complex());
    let (coils, data) = (data.shape[0], data.complex());
    let mut out = vec![Complex32::ZERO; data.len()];
    serve(job, || {
        mix(&matrix, coils, &data, &mut out);
        Vec::new()
    });
    if let Some(path) = job.options.get("out").filter(|p| !p.is_empty()) {
        write_npy(Path::new(path), &out);
    }
}

/// `type=1`, samples to images, or `type=2`; planned before the clock starts, as the peers are.
fn nufft(job: &Job) {
    let (images, samples) = (job.array("images"), job.array("samples"));
    let trajectory = job.array("trajectory").real();
    let tolerance = job.options["tolerance"].parse().unwrap();
    let nufft = Nufft::plan(&trajectory, &images.shape[1..], tolerance).unwrap();
    eprintln!("{:?}", nufft.recipe());
    let (mut images, mut samples) = (images.complex(), samples.complex());
    let is_adjoint = job.options["type"] == "1";
    serve(job, || {
        if is_adjoint {
            nufft.adjoint(&samples, &mut images).unwrap();
        } else {
            nufft.forward(&images, &mut samples).unwrap();
        }
        Vec::new()
    });
    if let Some(path) = job.options.get("out").filter(|p| !p.is_empty()) {
        write_npy(Path::new(path), if is_adjoint { &images } else { &samples });
    }
}

/// All samples of a slice calibrate and are compressed, as the peer's are.
fn compress(job: &Job) {
    let (_, frame) = frame(job);
    let params = CompressParams {
        method: CompressMethod::Svd,
        n_virtual: 8,
        ..CompressParams::default()
    };
    serve(job, || {
        cauda::recon::compress::compress(&frame, &params)
            .unwrap()
            .kspace
            .samples
    });
}

/// The whole room `recon` on one frame: calibration, solution, combination, noise.
fn recon(job: &Job, method: Method) {
    let (scan, frame) = frame(job);
    let mut params = ReconParams {
        method,
        ..ReconParams::default()
    };
    params.outputs.gfactor = job.options.contains_key("gfactor");
    if let Some(lines) = job.options.get("window") {
        params.grappa.window_pe1 = lines.parse().ok();
    }
    params.grappa.apply = match job.options.get("apply").map(String::as_str) {
        Some("image") => Apply::Image,
        Some("kspace") => Apply::Kspace,
        _ => Apply::Auto,
    };
    let plan = Recon::plan(&scan, &frame, &params, &Device::detect()).unwrap();
    for recipe in plan.recipes() {
        eprintln!("{recipe:?}");
    }
    serve(job, || plan.run(&frame).unwrap().voxels);
}

fn main() {
    let mut words = Vec::new();
    let mut options = HashMap::new();
    for word in std::env::args().skip(1) {
        match word.split_once('=') {
            Some((key, value)) if !word.starts_with('/') => {
                options.insert(key.to_owned(), value.to_owned());
            }
            _ => words.push(word),
        }
    }
    if words.is_empty() || words[0].starts_with("--") {
        return;
    }
    let op = words.remove(0);
    let job = Job { words, options };
    match op.as_str() {
        "fft" => fft(&job),
        "nufft" => nufft(&job),
        "read" => read(&job),
        "ingest" => ingest(&job),
        "espirit" => espirit(&job),
        "sense" => sense(&job),
        "whiten" => whiten(&job),
        "compress" => compress(&job),
        "cg_card" => card::sense(&job),
        "unfold_card" => card::slices(&job),
        "grappa_card" => card::grappa(&job),
        "espirit_card" => card::espirit(&job),
        "copy_card" => card::copy(&job),
        "kernels_card" => card::kernels(&job),
        "grappa" => recon(&job, Method::Grappa),
        _ => {
            eprintln!("peers: no operator {op}");
            std::process::exit(2);
        }
    }
}
