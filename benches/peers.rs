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

use cauda::data::Complex32;
use cauda::num::fft::{Direction, fft2};

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
        file.for_each_batch("dataset", 256, &mut |batch| {
            for readout in batch {
                elements += readout.data.len();
                // Every sample is touched, as a reader that copies would: no credit for pages never read.
                sum += readout.data.iter().map(|v| f64::from(v.re)).sum::<f64>();
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(elements > 0 && sum.is_finite());
        Vec::new()
    });
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
        "read" => read(&job),
        _ => {
            eprintln!("peers: no operator {op}");
            std::process::exit(2);
        }
    }
}
