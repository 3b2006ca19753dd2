//! What people and scripts read: help pages, errors and exit codes, word for word.
//!
//! Promised to: everyone who wraps the command line. A changed word is a changed file in `tests/snapshots/`, and so is
//! seen in review. To accept new words: `CAUDA_BLESS=1 cargo test --test it messages`.

use crate::support::{cauda_in, root, transcript};

/// Compares with `tests/snapshots/<name>.txt`, or writes it under `CAUDA_BLESS`.
fn snapshot(name: &str, text: &str) {
    let path = root().join("tests/snapshots").join(format!("{name}.txt"));
    if std::env::var_os("CAUDA_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; CAUDA_BLESS=1 writes it", path.display()));
    assert!(
        kept == text,
        "{} differs; CAUDA_BLESS=1 accepts the new words.\n--- kept\n{kept}\n--- now\n{text}",
        path.display()
    );
}

fn check(name: &str, line: &str) {
    let dir = tempfile::tempdir().unwrap();
    snapshot(name, &transcript(line, &cauda_in(dir.path(), line)));
}

#[test]
fn help_pages() {
    check("help", "--help");
    for command in [
        "recon", "inspect", "compare", "convert", "plan", "phantom", "simulate", "synth", "demo",
        "doctor", "kernels", "protocol", "serve", "send", "record", "bench",
    ] {
        check(&format!("help_{command}"), &format!("{command} --help"));
    }
}

#[test]
fn no_command_and_wrong_command() {
    check("no_command", "");
    check("wrong_command", "reconn");
}

#[test]
fn protocol_errors() {
    check("protocol_unknown", "protocol check defualt");
    check("protocol_no_file", "protocol check nowhere/x.toml");
    check(
        "protocol_unknown_key",
        "protocol check default --set device.thread=2",
    );
    check(
        "protocol_wrong_value",
        "protocol check default --set device.threads=many",
    );
    check(
        "protocol_wrong_word",
        "protocol check default --set device.prefer=gpu",
    );
    check(
        "protocol_no_value",
        "protocol check default --set device.threads",
    );
}

#[test]
fn recon_errors() {
    check("recon_no_out", "recon scan.h5");
    check("recon_no_file", "recon scan.h5 -o out.npy");
    check("recon_wrong_ending", "recon scan.h5 -o out.jpg");
    check("recon_no_folder", "recon scan.h5 -o nowhere/out.npy");
    check(
        "recon_no_place_for_maps",
        "recon scan.h5 -o series/ --set handoff.quantities=[\"csm\"]",
    );
    check(
        "simulate_unknown_preset",
        "simulate out.h5 --preset nothing",
    );
    check("simulate_unknown_key", "simulate out.h5 --set n_coil=3");
}

#[test]
fn server_errors() {
    check("serve_open_to_all", "serve --listen 0.0.0.0:9002");
    check("serve_no_scans", "serve --listen 127.0.0.1:0 --max-scans 0");
    check(
        "serve_no_folder",
        "serve --listen 127.0.0.1:0 --spill nowhere",
    );
    check(
        "serve_unknown_protocol",
        "serve --listen 127.0.0.1:0 --default-protocol nothing",
    );
    check("send_no_file", "send scan.h5 127.0.0.1:1");
    check("send_wrong_pace", "send scan.h5 127.0.0.1:1 --pace slow");
    check(
        "record_off_loopback",
        "record --listen 0.0.0.0:9002 scan.mrd",
    );
}

#[test]
fn protocol_json_error() {
    check("protocol_unknown_json", "protocol check defualt --json");
}

#[test]
fn a_reader_that_leaves_is_no_fault() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_cauda"))
        .args(["protocol", "explain"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Closing our end before the program writes is what `| head -0` does.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn doctor_finds_this_machine_sound() {
    let output = cauda_in(root(), "doctor --json");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{found}");
    let cuda = found
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f["what"] == "CUDA kernels")
        .unwrap();
    assert!(cuda["found"].as_str().unwrap().contains("texts, cache"));
}
