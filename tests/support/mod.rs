//! The binary under test, and folders to run it in.

pub(crate) mod npy;
pub(crate) mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cauda::data::Complex32;

/// Root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs `cauda` in `dir` with the words of `line` as arguments.
pub(crate) fn cauda_in(dir: &Path, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cauda"))
        .args(line.split_whitespace())
        .current_dir(dir)
        .env_remove("RAYON_NUM_THREADS")
        // Tests write scans in this process and start children at the same time: a child inherits the open file with
        // its HDF5 lock, and the next one would find the scan "still being written".
        .env("HDF5_USE_FILE_LOCKING", "FALSE")
        .env("COLUMNS", "100")
        .output()
        .unwrap()
}

/// A file of `tests/data`.
pub(crate) fn data(name: &str) -> PathBuf {
    root().join("tests/data").join(name)
}

/// `../shared/data` of the workplace, if it is there; says so if not.
pub(crate) fn shared() -> Option<PathBuf> {
    let folder = root().join("../shared/data");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: there is no {}", folder.display());
    None
}

/// What `scripts/torch.sh` makes, if it was run here; says so if not.
pub(crate) fn torch() -> Option<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let folder = target.join("torch");
    if folder.join("libcauda_torch.so").is_file() {
        return Some(folder);
    }
    eprintln!(
        "skipped: there is no libtorch plug-in in {}",
        folder.display()
    );
    None
}

/// Names in a folder, sorted, hidden ones too.
pub(crate) fn outputs(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A NumPy array, as complex numbers.
pub(crate) struct Npy {
    /// Slowest axis first.
    pub(crate) shape: Vec<usize>,
    /// Row-major.
    pub(crate) values: Vec<Complex32>,
}

/// Reads a `.npy` of u16, f32, f64 or c64.
pub(crate) fn npy(path: &Path) -> Npy {
    let bytes = std::fs::read(path).unwrap();
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    let body = &bytes[10 + length..];
    let between = |a: &str, b: char| {
        let rest = &header[header.find(a).unwrap() + a.len()..];
        rest[..rest.find(b).unwrap()].to_owned()
    };
    let shape = between("'shape': (", ')')
        .split(',')
        .filter_map(|s| s.trim().parse().ok())
        .collect();
    let real = |v: f32| Complex32::new(v, 0.0);
    let f32_of = |b: &[u8]| f32::from_le_bytes(b.try_into().unwrap());
    let values = match between("'descr': '", '\'').as_str() {
        "<u2" => body
            .chunks_exact(2)
            .map(|b| real(f32::from(u16::from_le_bytes([b[0], b[1]]))))
            .collect(),
        "<f4" => body.chunks_exact(4).map(|b| real(f32_of(b))).collect(),
        "<c8" => body
            .chunks_exact(8)
            .map(|b| Complex32::new(f32_of(&b[..4]), f32_of(&b[4..])))
            .collect(),
        other => panic!("{}: {other}", path.display()),
    };
    Npy { shape, values }
}

/// Exit code, stdout and stderr as one text, for snapshots.
pub(crate) fn transcript(line: &str, output: &Output) -> String {
    format!(
        "$ cauda {line}\nexit {}\n--- stdout\n{}--- stderr\n{}",
        output
            .status
            .code()
            .map_or("by signal".to_owned(), |c| c.to_string()),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Files below `dir` whose name ends in `.ending`, sorted.
pub(crate) fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}
