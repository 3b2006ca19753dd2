//! A server that is killed at any moment loses no image and sends none twice unmarked: to whoever starts it again.
//!
//! Promised: what the client received is the client's; what the server had read is in the spill file, byte for byte; a
//! reconstruction of that file gives the images that may have been sent a mark, so that every image that the client
//! already has comes back marked or not at all. `CAUDA_KILLS=100` for the long run.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cauda::data::FaultKind;
use cauda::phantom::{Simulate, simulate};
use cauda::pipeline::{FileJob, Unwatched, recon_file};
use cauda::protocol::Registry;
use cauda::server::{Client, Received};
use cauda::source::OpenOptions;

use crate::support::outputs;
use crate::support::server::{messages, wire};

fn server(dir: &Path) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cauda"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--json",
            "--log",
            "error",
            "--spill",
        ])
        .arg(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    (child, told["listening"].as_str().unwrap().to_owned())
}

/// Images of a spilled stream by slice: those with the mark, those without.
fn again(stream: &Path) -> (BTreeSet<u16>, BTreeSet<u16>) {
    // The last frame of a stream that was cut off has gaps; it may be refused, the others not.
    let rest = "pipeline.on_frame_error=deliver_rest".to_owned();
    let protocol = Registry.find("recon_only", &[rest]).unwrap();
    let options = OpenOptions {
        allow_truncated: true,
        ..OpenOptions::default()
    };
    let job = FileJob {
        input: stream,
        options,
        noise: None,
        protocol: &protocol,
        threads: Some(2),
        watch: &Unwatched,
    };
    let finished = match recon_file(&job) {
        Ok(finished) => finished,
        // Killed before the first frame was complete.
        Err(fault) if fault.kind != FaultKind::Bug => return Default::default(),
        Err(fault) => panic!("{}", fault.message),
    };
    let (marked, plain): (Vec<_>, Vec<_>) = finished
        .images
        .iter()
        .partition(|i| i.provenance.notes.iter().any(|n| n.code == "sent_before"));
    let slices =
        |images: Vec<&cauda::data::ReconImage>| images.iter().map(|i| i.key.slice_idx).collect();
    (slices(marked), slices(plain))
}

#[test]
fn killed_at_any_moment() {
    let kills: u64 = std::env::var("CAUDA_KILLS").map_or(20, |n| n.parse().unwrap());
    let scan = simulate(&Simulate {
        matrix: [24, 24, 1],
        n_slices: 12,
        n_coils: 2,
        acceleration: [1, 1],
        acs: [0, 0],
        ..Simulate::preset("small").unwrap()
    })
    .unwrap();
    let all = messages(&scan, Some("recon_only"));
    let bytes = wire(&all);
    let (mut in_mid_scan, mut both) = (0, 0);
    for round in 0..kills {
        let dir = tempfile::tempdir().unwrap();
        let (mut child, address) = server(dir.path());
        let (mut client, mut receiver) =
            Client::connect(&address, Duration::from_secs(10)).unwrap();
        // About a millisecond a readout; the kill comes at a point of the scan that differs from round to round.
        let at = 3 + (round * 7919) % (all.len() as u64 - 3);
        let received = std::thread::scope(|scope| {
            let hearing = scope.spawn(move || {
                let mut slices = Vec::new();
                loop {
                    match receiver.receive() {
                        Ok(Received::Image(image)) => slices.push(image.head.slice),
                        // Half an image at the end is none.
                        Ok(Received::Close | Received::CutOff) | Err(_) => return slices,
                        Ok(_) => {}
                    }
                }
            });
            for (i, message) in all.iter().enumerate() {
                if i as u64 == at {
                    child.kill().unwrap();
                }
                if client.send(message).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            hearing.join().unwrap()
        });
        child.wait().unwrap();
        let distinct: BTreeSet<u16> = received.iter().copied().collect();
        assert_eq!(
            distinct.len(),
            received.len(),
            "round {round}: one image twice: {received:?}"
        );

        let streams: Vec<_> = outputs(dir.path())
            .into_iter()
            .filter(|n| n.ends_with(".mrd"))
            .collect();
        if streams.is_empty() {
            // Killed before the first byte was read, or after everything was sent.
            assert!(
                distinct.is_empty() || distinct.len() == 12,
                "round {round}: received {distinct:?}, and nothing was kept"
            );
            continue;
        }
        assert_eq!(streams.len(), 1, "round {round}: {streams:?}");
        let stream = dir.path().join(&streams[0]);
        let kept = std::fs::read(&stream).unwrap();
        assert!(
            bytes.starts_with(&kept),
            "round {round}: the spill file is not what was sent"
        );
        let (marked, plain) = again(&stream);
        assert!(
            distinct.is_disjoint(&plain),
            "round {round}: received {distinct:?}, and again without a mark {plain:?}"
        );
        assert!(
            distinct.is_subset(&marked),
            "round {round}: received {distinct:?}, and not in the spill file: {marked:?}"
        );
        in_mid_scan += u64::from(distinct.len() < 12);
        both += u64::from(!distinct.is_empty() && !plain.is_empty());

        // And the next server takes the next scan.
        if round == 0 {
            let (mut child, address) = server(dir.path());
            let (mut client, mut receiver) =
                Client::connect(&address, Duration::from_secs(10)).unwrap();
            client.raw(&bytes).unwrap();
            let (images, words, is_closed) = receiver.rest().unwrap();
            assert_eq!((images.len(), is_closed), (12, true), "{words:?}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
    eprintln!(
        "{kills} kills, {in_mid_scan} before the last image was received, {both} with images sent and images not sent"
    );
    assert!(in_mid_scan > 0, "no kill met a scan");
}
