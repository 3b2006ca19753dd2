//! A peer that breaks every rule ends its own scan and no other: to everyone whose scan comes next.
//!
//! Whatever bytes come, in whatever pieces, and whenever they stop: the peer is told in words what was wrong, then
//! CLOSE; the data are kept when a folder for them is given; and the next scan works.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cauda::server::{Client, Received};
use ismrmrd::Limits;
use ismrmrd::wire::{Message, Session, Step, decode};

use crate::support::server::{Running, messages, tiny, wire};
use crate::support::{cauda_in, outputs};

fn scan() -> Vec<u8> {
    wire(&messages(&tiny(), Some("default")))
}

/// A scan with one message more, at a place.
fn with(at: usize, message: Message) -> Vec<u8> {
    let mut all = messages(&tiny(), Some("default"));
    all.insert(at, message);
    wire(&all)
}

/// Byte offsets at which a message begins.
fn borders(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut out) = (0, Vec::new());
    while at < bytes.len() {
        out.push(at);
        match decode(&bytes[at..], &Limits::default()).unwrap() {
            Step::Message { used, .. } => at += used,
            Step::Need(n) => panic!("{n} bytes short at {at}"),
        }
    }
    out
}

#[test]
fn pieces_of_any_size_are_the_same_scan() {
    let server = Running::start(|_| {});
    let scan = scan();
    let whole = server.talk(&scan);
    whole.assert_good(2);
    for piece in [1, 2, 7, 341, 4096] {
        let heard = server.talk_in(&scan, piece);
        heard.assert_good(2);
        assert!(
            heard
                .images
                .iter()
                .zip(&whole.images)
                .all(|(a, b)| a.pixels == b.pixels),
            "pieces of {piece}"
        );
    }
}

/// Without sockets: what the state machine makes of a stream that ends at any byte.
#[test]
fn a_stream_cut_at_any_byte_is_cut_off_and_nothing_else() {
    let scan = scan();
    let borders = borders(&scan);
    for cut in 0..scan.len() {
        let mut session = Session::new();
        let mut reader = ismrmrd::wire::Reader::new(&scan[..cut], Limits::default());
        let ended = loop {
            match reader.next_message() {
                Ok(Some(message)) => drop(session.take(message).unwrap()),
                Ok(None) => break session.peer_closed().map(|_| ()).map_err(|e| e.to_string()),
                Err(e) => break Err(e.to_string()),
            }
        };
        match ended {
            Ok(()) => assert_eq!(cut, 0, "cut at {cut} was not noticed"),
            Err(words) if borders.contains(&cut) => {
                assert!(words.contains("without CLOSE"), "{cut}: {words}");
            }
            Err(words) => assert!(words.contains("cut off"), "{cut}: {words}"),
        }
    }
}

#[test]
fn a_scan_cut_off_is_told_and_the_next_one_works() {
    let server = Running::start(|_| {});
    let scan = scan();
    let borders = borders(&scan);
    // Every border, one byte around it, and a stride that meets all parts of a message.
    let mut cuts: Vec<usize> = borders
        .iter()
        .flat_map(|b| [b.saturating_sub(1), *b, b + 1])
        .collect();
    cuts.extend((0..scan.len()).step_by(997));
    cuts.retain(|c| *c > 0 && *c < scan.len());
    for cut in cuts {
        let heard = server.talk(&scan[..cut]);
        assert!(heard.is_closed, "cut at {cut}: {:?}", heard.words);
        let fault = heard.fault();
        assert!(
            fault.contains("without CLOSE") || fault.contains("cut off"),
            "cut at {cut}: {fault}"
        );
        // The first slice's image was complete and left, if the cut is behind it.
        if cut > borders[borders.len() - 3] {
            assert!(!heard.images.is_empty(), "cut at {cut}");
        }
    }
    server.talk(&scan).assert_good(2);
    assert_eq!(server.stats.running.load(Ordering::Relaxed), 0);
}

#[test]
fn what_no_peer_may_do_is_named() {
    let server = Running::start(|_| {});
    let header = Message::Header(tiny().header.to_xml());
    let readout = Message::Acquisition(tiny().acquisitions[0].clone());
    let mut lying = scan();
    let second = borders(&lying)[1];
    lying[second + 2..second + 6].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut wrong_id = scan();
    let last = *borders(&wrong_id).last().unwrap();
    wrong_id[last..last + 2].copy_from_slice(&999_u16.to_le_bytes());
    let mut no_xml = wire(&[Message::Header("this is no header".into())]);
    no_xml.extend(wire(&[readout.clone(), Message::Close]));
    let mut huge = tiny().acquisitions[0].clone();
    huge.head.active_channels = 1025;
    huge.head.number_of_samples = 0;
    huge.data.clear();
    let huge = Message::Acquisition(huge);
    for (what, bytes, words) in [
        (
            "second config",
            with(1, Message::ConfigFile("default".into())),
            "a second configuration",
        ),
        (
            "late config",
            with(2, Message::ConfigText("x".into())),
            "a second configuration",
        ),
        (
            "second header",
            with(5, header),
            "a second header came after 3 readouts",
        ),
        (
            "data first",
            wire(&[readout.clone(), Message::Close]),
            "an acquisition came before the header",
        ),
        ("a length that lies", lying, "4294967295 declared"),
        ("a wrong number", wrong_id, "found 999"),
        ("no XML", no_xml, "header"),
        ("too many coils", with(4, huge), "1025 declared, limit 1024"),
        (
            "an unknown name",
            wire(&messages(&tiny(), Some("nothing"))),
            "\"nothing\"",
        ),
        (
            "a path",
            wire(&messages(&tiny(), Some("/etc/passwd"))),
            "not known here",
        ),
        (
            "a failure",
            with(4, Message::Error("magnet quenched".into())),
            "magnet quenched",
        ),
        (
            "an answer to nothing",
            with(
                4,
                Message::Response {
                    correlation_id: 1,
                    text: "x".into(),
                },
            ),
            "expected none",
        ),
        ("rubbish", vec![0xff; 4096], "message number"),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), "message number"),
    ] {
        let heard = server.talk(&bytes);
        assert!(heard.is_closed, "{what}: no CLOSE");
        assert!(heard.fault().contains(words), "{what}: {}", heard.fault());
        // And a scan that comes afterwards does not notice.
        server.talk(&scan()).assert_good(2);
    }
}

#[test]
fn a_million_words_are_no_scan() {
    let server = Running::start(|_| {});
    let mut bytes = wire(&[Message::ConfigFile("default".into())]);
    let one = wire(&[Message::Text("x".into())]);
    for _ in 0..1_000_000 {
        bytes.extend_from_slice(&one);
    }
    bytes.extend(wire(&messages(&tiny(), None)));
    server.talk(&bytes).assert_good(2);
}

#[test]
fn one_scan_too_many_is_refused_and_can_come_again() {
    let server = Running::start(|c| c.max_scans = 1);
    let (mut client, mut receiver) = server.connect();
    let all = messages(&tiny(), Some("default"));
    for message in &all[..4] {
        client.send(message).unwrap();
    }
    while server.stats.running.load(Ordering::Relaxed) == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let heard = server.talk(&scan());
    assert!(
        heard.is_closed && heard.fault().contains("1 scans are running"),
        "{}",
        heard.fault()
    );
    for message in &all[4..] {
        client.send(message).unwrap();
    }
    let (images, words, is_closed) = receiver.rest().unwrap();
    assert_eq!((images.len(), is_closed), (2, true), "{words:?}");
    server.talk(&scan()).assert_good(2);
}

#[test]
fn who_does_not_read_is_left_and_the_data_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(|c| {
        c.spill = Some(dir.path().to_owned());
        c.write_timeout = Duration::from_millis(400);
        // The system takes a few megabytes by itself: the scan must have more images than that.
        c.outbox_bytes = 1 << 16;
        c.linger = Duration::from_millis(300);
        c.idle_timeout = Duration::from_secs(3);
    });
    let (mut client, _receiver) = server.connect();
    client
        .stream()
        .set_write_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let tiny = tiny();
    client
        .send(&Message::ConfigFile("recon_only".into()))
        .unwrap();
    let mut header = tiny.header.clone();
    for e in &mut header.encoding {
        e.encoding_limits.repetition = Some(ismrmrd::header::Limit {
            minimum: 0,
            maximum: 65_534,
            center: 0,
        });
    }
    client.send(&Message::Header(header.to_xml())).unwrap();
    let begun = Instant::now();
    'scan: for repetition in 0..60_000 {
        for readout in &tiny.acquisitions {
            let mut readout = readout.clone();
            if repetition > 0
                && readout
                    .head
                    .has(ismrmrd::AcquisitionFlag::IsNoiseMeasurement)
            {
                continue;
            }
            readout.head.idx.repetition = repetition;
            if client.readout(&readout.as_ref()).is_err() {
                break 'scan;
            }
        }
        if begun.elapsed() > Duration::from_secs(50) {
            panic!("the server took everything and never stopped");
        }
    }
    drop(client);
    let kept = wait_for(|| {
        outputs(dir.path()).len() == 2 && server.stats.running.load(Ordering::Relaxed) == 0
    });
    assert!(kept, "{:?}", outputs(dir.path()));
    server.talk(&scan()).assert_good(2);
}

fn wait_for(done: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// The only spilled stream of a folder.
fn spilled(dir: &Path) -> std::path::PathBuf {
    let found: Vec<_> = outputs(dir)
        .into_iter()
        .filter(|n| n.ends_with(".mrd"))
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    dir.join(&found[0])
}

#[test]
fn a_client_that_vanishes_leaves_a_scan_that_recon_reads() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(|c| c.spill = Some(dir.path().to_owned()));
    server.talk(&scan()).assert_good(2);
    assert!(
        wait_for(|| outputs(dir.path()).is_empty()),
        "a good scan is not kept"
    );
    let scan = scan();
    let cut = scan.len() - 700;
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(&scan[..cut]).unwrap();
    // A reset, not a goodbye: unread bytes of ours are thrown away too.
    drop(stream);
    let ended = || {
        let told = server.stats.prometheus();
        told.contains("outcome=\"input\"") || told.contains("outcome=\"io\"")
    };
    assert!(wait_for(ended), "the scan did not end");
    assert!(wait_for(|| std::fs::metadata(spilled(dir.path()))
        .unwrap()
        .len()
        == cut as u64));
    let spill = spilled(dir.path());
    assert_eq!(std::fs::read(&spill).unwrap(), &scan[..cut]);
    let out = tempfile::tempdir().unwrap();
    let line = format!("recon {} -o out.npy", spill.display());
    let strict = cauda_in(out.path(), &line);
    assert_eq!(strict.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&strict.stderr).contains("--allow-truncated"));
    let output = cauda_in(out.path(), &format!("{line} --allow-truncated --json"));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        result["images"],
        2,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    server.talk(&scan).assert_good(2);
}

#[test]
fn a_scan_that_cannot_be_reconstructed_is_kept_whole() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(|c| {
        c.spill = Some(dir.path().to_owned());
        c.idle_timeout = Duration::from_millis(800);
    });
    // The protocol asks for acceleration 4, which this scan does not have: refused at its first readout.
    let refused = wire(&messages(&tiny(), Some("grappa_r4")));
    let heard = server.talk(&refused);
    assert!(
        heard.fault().contains("kept on the reconstruction host"),
        "{}",
        heard.fault()
    );
    let whole = wait_for(|| std::fs::read(spilled(dir.path())).unwrap() == refused);
    assert!(whole, "the spill file is not the stream");
    let out = tempfile::tempdir().unwrap();
    let line = format!("recon {} -o out.npy --json", spilled(dir.path()).display());
    let result: serde_json::Value =
        serde_json::from_slice(&cauda_in(out.path(), &line).stdout).unwrap();
    assert_eq!(result["images"], 2);
}

/// A burst with a fault in it, and a peer that waits for an answer before it says more: the words come at once.
#[test]
fn a_fault_is_told_while_the_peer_waits() {
    let mut scan = tiny();
    let n = scan.acquisitions.len();
    scan.acquisitions[n - 2].data[0].re = f32::NAN;
    let mut messages = messages(&scan, None);
    messages.pop();
    let server = Running::start(|_| {});
    let (client, mut receiver) = server.connect();
    let stream = client.stream().try_clone().unwrap();
    (&stream).write_all(&wire(&messages)).unwrap();
    let begun = Instant::now();
    let (_, words, is_closed) = receiver.rest().unwrap();
    assert!(
        is_closed && words.iter().any(|w| w.contains("NaN")),
        "{words:?}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn silence_ends_a_scan() {
    let server = Running::start(|c| {
        c.idle_timeout = Duration::from_millis(300);
        c.hello_timeout = Duration::from_millis(300);
        c.linger = Duration::from_millis(100);
    });
    let all = messages(&tiny(), Some("default"));
    for n in [0, 1, 2, 10, all.len() - 1] {
        let (mut client, mut receiver) = server.connect();
        for message in &all[..n] {
            client.send(message).unwrap();
        }
        let (images, words, is_closed) = receiver.rest().unwrap();
        assert!(is_closed, "{n} messages");
        assert!(words.iter().any(|w| w.contains("silent")), "{n}: {words:?}");
        // What was complete is sent; the last slice may wait for nothing but CLOSE.
        assert!(
            n < all.len() - 1 || images.len() == 2,
            "{} images",
            images.len()
        );
    }
    server.talk(&scan()).assert_good(2);
}

#[test]
fn a_shutdown_ends_scans_in_order() {
    let server = Running::start(|c| c.drain = Duration::from_millis(300));
    let all = messages(&tiny(), Some("default"));
    let (mut client, mut receiver) = server.connect();
    for message in &all[..all.len() - 2] {
        client.send(message).unwrap();
    }
    let Received::Image(_) = receiver.receive().unwrap() else {
        panic!("no image");
    };
    server.ask_to_stop();
    let (_, words, is_closed) = receiver.rest().unwrap();
    assert!(
        is_closed && words.iter().any(|w| w.contains("shutting down")),
        "{words:?}"
    );
    assert!(wait_for(|| Client::connect(
        &server.address.to_string(),
        Duration::from_secs(1)
    )
    .is_err()));

    // Within the drain time a scan may end as if nothing were.
    let server = Running::start(|c| c.drain = Duration::from_secs(20));
    let (mut client, mut receiver) = server.connect();
    for message in &all[..10] {
        client.send(message).unwrap();
    }
    while server.stats.running.load(Ordering::Relaxed) == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    server.ask_to_stop();
    std::thread::sleep(Duration::from_millis(100));
    for message in &all[10..] {
        client.send(message).unwrap();
    }
    let (images, words, is_closed) = receiver.rest().unwrap();
    assert_eq!((images.len(), is_closed), (2, true), "{words:?}");
}

/// A limit on file size stands in for a full disk under the spill file.
#[test]
fn a_spill_file_that_breaks_is_told_and_marked() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new("sh")
        .arg("-c")
        // 4 blocks of 512 bytes; the ignored signal turns the limit into an error of write().
        .arg(format!(
            "trap '' XFSZ; ulimit -f 4; exec {} serve --listen 127.0.0.1:0 --json --spill {}",
            env!("CARGO_BIN_EXE_cauda"),
            dir.path().display()
        ))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = told["listening"].as_str().unwrap();
    for (protocol, n_images) in [("default", 2), ("grappa_r4", 0)] {
        let (mut client, mut receiver) = Client::connect(address, Duration::from_secs(5)).unwrap();
        for message in &messages(&tiny(), Some(protocol)) {
            // The second scan is refused in the middle.
            if client.send(message).is_err() {
                break;
            }
        }
        let (images, words, is_closed) = receiver.rest().unwrap();
        assert_eq!((images.len(), is_closed), (n_images, true), "{words:?}");
        for image in &images {
            assert!(image.attributes.contains("spill_file_broken"));
        }
        let words = words.join("\n");
        assert!(
            n_images == 0 || words.contains("the spill file is not whole"),
            "{words}"
        );
        assert!(!words.contains("are kept on"), "{words}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The binary and its signals.
#[test]
fn sigterm_in_mid_scan_is_an_orderly_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_cauda"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--drain",
            "0.2",
            "--json",
            "--spill",
        ])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(child.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    let (mut client, mut receiver) =
        Client::connect(told["listening"].as_str().unwrap(), Duration::from_secs(5)).unwrap();
    let all = messages(&tiny(), Some("default"));
    for message in &all[..all.len() - 2] {
        client.send(message).unwrap();
    }
    let Received::Image(_) = receiver.receive().unwrap() else {
        panic!("no image");
    };
    let killed = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let (_, words, is_closed) = receiver.rest().unwrap();
    assert!(
        is_closed && words.iter().any(|w| w.contains("shutting down")),
        "{words:?}"
    );
    drop(client);
    let status = child.wait().unwrap();
    let mut log = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        log.contains("the scan's data are kept") && log.contains("stopped"),
        "{log}"
    );
    assert_eq!(outputs(dir.path()).len(), 2);
}

#[test]
fn strangers_learn_nothing() {
    let mut config = cauda::server::ServerConfig::new(1, 1 << 30);
    config.listen = ([0, 0, 0, 0], 0).into();
    let fault = cauda::server::Server::bind(config).err().unwrap();
    assert!(fault.message.contains("--allow"), "{}", fault.message);
    let dir = tempfile::tempdir().unwrap();
    let output = cauda_in(dir.path(), "serve --listen 0.0.0.0:0");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn half_a_goodbye_is_none() {
    // The client ends its sending side without CLOSE after all readouts: the images are sent, and the missing word named.
    let server = Running::start(|_| {});
    let all = messages(&tiny(), Some("default"));
    let (client, mut receiver) = server.connect();
    let mut stream = client.stream();
    stream.write_all(&wire(&all[..all.len() - 1])).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let (images, words, is_closed) = receiver.rest().unwrap();
    assert!(
        is_closed && words.iter().any(|w| w.contains("without CLOSE")),
        "{words:?}"
    );
    assert_eq!(images.len(), 2);
}
