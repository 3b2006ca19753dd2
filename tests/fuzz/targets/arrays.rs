//! Bytes as an `.npy` or `.mat` file: the magic is put before them, so that the fuzzer need not find it.
//!
//! Good seeds: the files under `tests/data/source` and `tests/hostile/source`.
#![no_main]
#![allow(dead_code, unused_imports, unreachable_pub)]

#[path = "../../../src/data/mod.rs"]
mod data;
#[path = "../../../src/source/mod.rs"]
mod source;

use std::io::Write as _;
use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use source::{OpenOptions, open};

fuzz_target!(|data: &[u8]| {
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    let magic: &[u8] = match data.first() {
        Some(0..128) => b"\x93NUMPY\x01\0",
        _ => b"",
    };
    if file.write_all(magic).is_err() {
        return;
    }
    if file.write_all(data).is_err() || file.flush().is_err() {
        return;
    }
    for allow_truncated in [false, true] {
        let options = OpenOptions { allow_truncated, ..OpenOptions::default() };
        if let Ok(mut opened) = open(file.path(), &options) {
            let _ = opened.for_each_batch(&mut |_| ControlFlow::Continue(()));
            let _ = opened.describe();
        }
    }
});
