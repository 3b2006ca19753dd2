//! The binary under test, and folders to run it in.

pub(crate) mod npy;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
        .env("COLUMNS", "100")
        .output()
        .unwrap()
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
