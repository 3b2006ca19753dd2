//! A scanner streams in and gets its images back: to the person at the console, who waits for them.
//!
//! The images are those of `cauda recon`, bit for bit, whatever the transport; each leaves as soon as its frame is
//! complete, and says how long it took; what the peers' clients send is understood.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use cauda::server::{NoiseStore, Received, ServerTls};
use ismrmrd::wire::{Item, Message, Reader, v2};
use ismrmrd::{Image, Limits, Meta, Pixels};

use crate::support::server::{Running, messages, tiny, wire};
use crate::support::{cauda_in, data, root};

type Key = (u16, u16, u16, u16, u16, u16);

fn key(image: &Image) -> Key {
    let h = &image.head;
    (
        h.image_series_index,
        h.repetition,
        h.phase,
        h.contrast,
        h.slice,
        h.set,
    )
}

/// Images by what they are, without what depends on the order of arrival.
fn by_key(images: Vec<Image>) -> BTreeMap<Key, (ismrmrd::ImageHeader, Pixels)> {
    images
        .into_iter()
        .map(|i| {
            let mut head = i.head;
            head.image_index = 0;
            head.attribute_string_len = 0;
            (key(&i), (head, i.pixels))
        })
        .collect()
}

fn stored(path: &std::path::Path) -> Vec<Image> {
    let file = ismrmrd::file::File::open(path, Limits::default()).unwrap();
    let groups = file.groups().unwrap();
    groups
        .iter()
        .flat_map(|g| g.images.iter().map(|i| (g.name.clone(), i.name.clone())))
        .flat_map(|(group, name)| file.images(&group, &name).unwrap())
        .collect()
}

fn good(dir: &std::path::Path, line: &str) -> serde_json::Value {
    let output = cauda_in(dir, line);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

#[test]
fn over_the_wire_come_the_images_of_a_file() {
    let server = Running::start(|_| {});
    let dir = tempfile::tempdir().unwrap();
    good(
        dir.path(),
        "simulate many.h5 --preset small --set n_slices=3 --set n_repetitions=2",
    );
    for (scan, n) in [
        (data("demo_mouse_pf.h5"), 9),
        (dir.path().join("many.h5"), 6),
    ] {
        let scan = scan.display();
        good(dir.path(), &format!("recon {scan} -o file.h5"));
        let sent = good(
            dir.path(),
            &format!(
                "send {scan} {} --protocol default -o wire.h5 --json",
                server.address
            ),
        );
        assert_eq!(sent["images"], n, "{sent}");
        assert_eq!(sent["closed"], true);
        let by_file = by_key(stored(&dir.path().join("file.h5")));
        let by_wire = by_key(stored(&dir.path().join("wire.h5")));
        assert_eq!(by_file.len(), n);
        assert!(by_file == by_wire, "{scan}: the images differ");
        for name in ["file.h5", "wire.h5"] {
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
    }
}

#[test]
fn on_pipes_both_versions_give_the_same() {
    let scan = tiny();
    let v1 = wire(&messages(&scan, Some("default")));
    let mut v2_in = Vec::new();
    let writer = v2::Writer::new().unwrap();
    writer.begin(Some(&scan.header), &mut v2_in).unwrap();
    for readout in &scan.acquisitions {
        let item = Item::Acquisition(Box::new(readout.clone()));
        writer.item(&item, &mut v2_in).unwrap();
    }
    writer.end(&mut v2_in);

    let out = pipe(&v1);
    let mut reader = Reader::new(out.as_slice(), Limits::default());
    let mut images = Vec::new();
    assert!(matches!(
        reader.next_message().unwrap(),
        Some(Message::Header(_))
    ));
    loop {
        match reader.next_message().unwrap() {
            Some(Message::Image(image)) => images.push(image),
            Some(Message::Close) => break,
            other => panic!("{other:?}"),
        }
    }
    let out = pipe(&v2_in);
    let mut reader = v2::Reader::new(out.as_slice(), Limits::default()).unwrap();
    assert_eq!(reader.header().unwrap().encoding.len(), 1);
    let mut images2 = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        if let Item::Image(image) = item {
            images2.push(*image);
        }
    }
    assert_eq!(images.len(), 2);
    assert!(by_key(images) == by_key(images2));
}

/// Through `cauda serve --stdio`.
fn pipe(input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cauda"))
        .args(["serve", "--stdio", "--log", "error"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    })
}

#[test]
fn an_image_leaves_before_the_scan_ends() {
    let server = Running::start(|_| {});
    let scan = tiny();
    let (mut client, mut receiver) = server.connect();
    client.send(&Message::ConfigFile("default".into())).unwrap();
    client.send(&Message::Header(scan.header.to_xml())).unwrap();
    let (first, second): (Vec<_>, Vec<_>) = scan
        .acquisitions
        .iter()
        .partition(|a| a.head.idx.slice == 0);
    for readout in first {
        client.readout(&readout.as_ref()).unwrap();
    }
    client.flush().unwrap();
    let Received::Image(image) = receiver.receive().unwrap() else {
        panic!("no image came");
    };
    assert_eq!(image.head.slice, 0);
    // Its marks: in order, and all of them there.
    let meta = Meta::parse(&image.attributes).unwrap();
    let ms = |name: &str| -> f64 {
        meta.get_str(&format!("CaudaMs_{name}"))
            .unwrap_or_else(|| panic!("no mark {name}"))
            .parse()
            .unwrap()
    };
    assert!(ms("first_readout") <= 0.0 && ms("last_readout") == 0.0);
    assert!(ms("sorted") <= ms("begun") && ms("begun") <= ms("reconstructed"));
    assert!(
        meta.get("ImageProcessingHistory")
            .unwrap()
            .iter()
            .any(|s| s.contains("ingest/whiten"))
    );
    for readout in second {
        client.readout(&readout.as_ref()).unwrap();
    }
    client.send(&Message::Close).unwrap();
    let (rest, words, is_closed) = receiver.rest().unwrap();
    assert_eq!((rest.len(), is_closed), (1, true), "{words:?}");
}

#[test]
fn what_the_peers_clients_send_is_understood() {
    let server = Running::start(|c| c.default_protocol = "recon_only".into());
    let scan = tiny();
    let body = || messages(&scan, None);
    let with = |first: Message| [vec![first], body()].concat();
    let noted = |messages: &[Message], code: &str| {
        let heard = server.talk(&wire(messages));
        heard.assert_good(2);
        let meta = Meta::parse(&heard.images[0].attributes).unwrap();
        let comments = meta.get("ImageComments").unwrap().join("\n");
        assert!(comments.contains(code), "no {code} in {comments}");
        heard.words
    };
    noted(&body(), "default_protocol");
    let words = noted(
        &with(Message::ConfigFile("Generic_Cartesian_Grappa.xml".into())),
        "equivalent_protocol",
    );
    assert!(
        words
            .iter()
            .any(|w| w.contains("Generic_Cartesian_Grappa.xml")),
        "{words:?}"
    );
    noted(
        &with(Message::ConfigText("[recon]\nmethod = \"fft\"\n".into())),
        "client_overlay",
    );

    // python-ismrmrd-server's client: trailing NULs that count, JSON after the header, all waveforms first.
    let mut bytes = wire(&[Message::ConfigFile("default".into())]);
    let xml = scan.header.to_xml() + "\0";
    bytes.extend(3_u16.to_le_bytes());
    bytes.extend((xml.len() as u32).to_le_bytes());
    bytes.extend(xml.as_bytes());
    let waveform = Message::Waveform(ismrmrd::Waveform::default());
    let json =
        Message::Text("{\"parameters\": {\"config\": \"default\", \"threshold\": 3}}\0".into());
    bytes.extend(wire(&[json, waveform.clone(), waveform]));
    bytes.extend(wire(&body()[1..]));
    let heard = server.talk(&bytes);
    heard.assert_good(2);
    assert!(
        heard.words.iter().any(|w| w.contains("threshold")),
        "{:?}",
        heard.words
    );
    assert_eq!(
        heard
            .words
            .iter()
            .filter(|w| w.contains("waveforms"))
            .count(),
        1
    );

    // JSON may name the protocol when nothing else does.
    let mut named = body();
    named.insert(
        1,
        Message::Text("{\"parameters\": {\"config\": \"default\"}}".into()),
    );
    let heard = server.talk(&wire(&named));
    heard.assert_good(2);
    assert!(heard.images[0].attributes.contains("default ("));

    // Gadgetron's: is anybody there, what are you.
    let alive = [Message::ConfigFile("isalive.xml".into()), Message::Close];
    server.talk(&wire(&alive)).assert_good(0);
    let query = |text: &str| Message::Query {
        correlation_id: 9,
        text: text.into(),
    };
    let heard = server.talk(&wire(&[
        query("ismrmrd::version"),
        query("gadgetron::info"),
        query("who are you"),
        Message::Close,
    ]));
    heard.assert_good(0);
    assert!(heard.words[1].contains("cauda"), "{:?}", heard.words);
    assert_eq!(heard.words[2], "Unknown query");
    // A client that only looks whether the port is open.
    drop(TcpStream::connect(server.address).unwrap());
    server
        .talk(&wire(&messages(&scan, Some("default"))))
        .assert_good(2);
}

#[test]
fn metrics_and_health_are_told() {
    let server = Running::start(|c| c.metrics = Some(([127, 0, 0, 1], 0).into()));
    let scan = wire(&messages(&tiny(), Some("default")));
    server.talk(&scan).assert_good(2);
    let get = |line: &str| {
        let mut stream = TcpStream::connect(server.metrics.unwrap()).unwrap();
        stream
            .write_all(format!("{line}\r\nHost: x\r\n\r\n").as_bytes())
            .unwrap();
        let mut out = String::new();
        stream.read_to_string(&mut out).unwrap();
        out
    };
    let health = get("GET /health HTTP/1.1");
    assert!(
        health.starts_with("HTTP/1.1 200") && health.contains("ok\n"),
        "{health}"
    );
    let metrics = get("GET /metrics HTTP/1.1");
    for line in ["cauda_images_total 2", "cauda_scans_running 0"] {
        assert!(metrics.lines().any(|l| l == line), "no {line} in {metrics}");
    }
    assert!(metrics.contains("cauda_stage_seconds_count{stage=\"last_readout_to_sent\"} 2"));
    assert!(get("GET /etc/passwd HTTP/1.1").starts_with("HTTP/1.1 404"));
    assert!(get("POST /metrics HTTP/1.1").starts_with("HTTP/1.1 405"));
    assert_eq!(server.stats.images.load(Ordering::Relaxed), 2);
}

#[test]
fn a_recorded_stream_is_the_scan() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = wire(&messages(&tiny(), Some("default")));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let path = dir.path().join("scan.mrd");
    std::thread::scope(|scope| {
        let recording = scope.spawn(|| cauda::server::record(&listener, &path).unwrap());
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, [4, 0]);
        let recorded = recording.join().unwrap();
        assert!(recorded.is_complete && recorded.fault.is_none());
        assert_eq!(
            (recorded.bytes, recorded.version),
            (bytes.len() as u64, Some(1))
        );
    });
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    let result = good(dir.path(), "recon scan.mrd -o out.npy --json");
    assert_eq!(result["images"], 2);
}

/// Clients of other people, where they are installed.
#[test]
fn other_peoples_clients_get_their_images() {
    let python = ["/opt/peers/bin/python", "python3"].into_iter().find(|p| {
        let import = Command::new(p)
            .args(["-c", "import ismrmrd.serialization, mrd"])
            .output();
        import.is_ok_and(|o| o.status.success())
    });
    let Some(python) = python else {
        eprintln!("SKIPPED: no Python with ismrmrd and mrd");
        return;
    };
    let server = Running::start(|_| {});
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("scan.v1"),
        wire(&messages(&tiny(), Some("default.xml"))),
    )
    .unwrap();
    for mode in ["tcp", "fire", "pipe2"] {
        let output = Command::new(python)
            .arg(root().join("tests/support/peers.py"))
            .args([
                mode,
                &server.address.port().to_string(),
                env!("CARGO_BIN_EXE_cauda"),
            ])
            .arg(dir.path().join("scan.v1"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{mode}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// The pipes of the ISMRMRD tools: a file becomes a stream, the images of the stream a file.
#[test]
fn the_ismrmrd_tools_on_pipes_get_the_images_of_a_file() {
    let has = |tool: &str| Command::new(tool).arg("--help").output().is_ok();
    if !has("ismrmrd_hdf5_to_stream") || !has("ismrmrd_stream_to_hdf5") {
        eprintln!("SKIPPED: ismrmrd_hdf5_to_stream and ismrmrd_stream_to_hdf5 are not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let scan = data("demo_mouse_pf.h5");
    good(dir.path(), &format!("recon {} -o file.h5", scan.display()));
    let output = Command::new("bash")
        .args(["-o", "pipefail", "-c"])
        .arg(format!(
            "ismrmrd_hdf5_to_stream -i {} --use-stdout | {} serve --stdio --log error \
             | ismrmrd_stream_to_hdf5 --use-stdin -o pipe.h5",
            scan.display(),
            env!("CARGO_BIN_EXE_cauda")
        ))
        .env("HDF5_USE_FILE_LOCKING", "FALSE")
        .current_dir(dir.path())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    let by_file = by_key(stored(&dir.path().join("file.h5")));
    let by_pipe = by_key(stored(&dir.path().join("pipe.h5")));
    assert_eq!(by_file.len(), 9);
    assert!(by_file == by_pipe, "the images differ");
}

/// Debian's ismrmrd-tools measure a phantom and reconstruct it; over the wire we give their image.
#[test]
fn a_scan_of_the_ismrmrd_tools_gives_their_image_over_the_wire() {
    let dir = tempfile::tempdir().unwrap();
    let tool = |line: &str| {
        let (program, arguments) = line.split_once(' ').unwrap();
        Command::new(program)
            .args(arguments.split(' '))
            .env("HDF5_USE_FILE_LOCKING", "FALSE")
            .current_dir(dir.path())
            .output()
    };
    let made = tool("ismrmrd_generate_cartesian_shepp_logan -m 128 -c 4 -o phantom.h5");
    let Ok(made) = made else {
        eprintln!("SKIPPED: ismrmrd_generate_cartesian_shepp_logan is not installed");
        return;
    };
    assert!(made.status.success(), "{made:?}");
    let converted = cauda_in(dir.path(), "convert phantom.h5 phantom.mrd");
    assert!(converted.status.success(), "{converted:?}");
    // As they do it.
    let rss = "recon.method = \"fft\"\nrecon.combine.method = \"rss\"\n";
    let mut bytes = wire(&[Message::ConfigText(rss.into())]);
    bytes.extend(std::fs::read(dir.path().join("phantom.mrd")).unwrap());
    let heard = Running::start(|_| {}).talk(&bytes);
    heard.assert_good(1);
    let theirs = tool("ismrmrd_recon_cartesian_2d phantom.h5").unwrap();
    assert!(theirs.status.success(), "{theirs:?}");
    let magnitude = |image: &Image| -> Vec<f64> {
        match &image.pixels {
            Pixels::F32(v) => v.iter().map(|v| f64::from(*v)).collect(),
            Pixels::U16(v) => v.iter().map(|v| f64::from(*v)).collect(),
            other => panic!("{other:?}"),
        }
    };
    let ours = magnitude(&heard.images[0]);
    let theirs = magnitude(&stored(&dir.path().join("phantom.h5"))[0]);
    let (n, shifts) = (128, [0, 1]);
    assert_eq!((ours.len(), theirs.len()), (n * n, n * n));
    // One scale between them.
    let [same, shifted] = shifts.map(|shift| {
        let other = |i: usize| theirs[(i + shift * n) % (n * n)];
        let dot = |a: &dyn Fn(usize) -> f64, b: &dyn Fn(usize) -> f64| {
            (0..n * n).map(|i| a(i) * b(i)).sum::<f64>()
        };
        let us = |i: usize| ours[i];
        let (uu, uo, oo) = (dot(&us, &us), dot(&us, &other), dot(&other, &other));
        (1.0 - uo * uo / (uu * oo)).max(0.0).sqrt()
    });
    assert!(same < 1e-4, "{same}");
    // Wrong twin: one voxel off along phase.
    assert!(shifted > 0.1, "{shifted}");
}

/// A noise scan in front of the examination, and a scan that names it: no storage server, no second copy.
#[test]
fn noise_outlives_its_scan() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(|c| {
        c.noise = Some(NoiseStore::new(
            dir.path().to_owned(),
            Duration::from_secs(3600),
        ));
    });
    let whole = tiny();
    let is_noise =
        |a: &ismrmrd::Acquisition| a.head.has(ismrmrd::AcquisitionFlag::IsNoiseMeasurement);
    let mut noise = tiny();
    noise.acquisitions.retain(is_noise);
    let mut imaging = tiny();
    imaging.acquisitions.retain(|a| !is_noise(a));
    let information = imaging.header.measurement_information.as_mut().unwrap();
    let id = information
        .measurement_id
        .replace("another".into())
        .unwrap();
    information
        .measurement_dependency
        .push(ismrmrd::header::MeasurementDependency {
            dependency_type: "Noise".into(),
            measurement_id: id,
        });

    let imaging = wire(&messages(&imaging, Some("default")));
    let before = server.talk(&imaging);
    before.assert_good(2);
    assert!(
        before.words.iter().any(|w| w.contains("not kept here")),
        "{:?}",
        before.words
    );
    assert!(
        before.images[0]
            .attributes
            .contains("noise_dependency_missing")
    );

    let name = "default_measurement_dependencies.xml";
    server
        .talk(&wire(&messages(&noise, Some(name))))
        .assert_good(0);
    let after = server.talk(&imaging);
    after.assert_good(2);
    assert!(
        after.images[0].attributes.contains("kept_noise: whitened"),
        "{}",
        after.images[0].attributes
    );
    // The same noise, the same bits as if it had come with the scan.
    let together = server.talk(&wire(&messages(&whole, Some("default"))));
    for (a, b) in after.images.iter().zip(&together.images) {
        assert!(a.pixels == b.pixels);
    }
}

#[test]
fn two_scans_at_the_same_time_do_not_mix() {
    let server = Running::start(|c| c.max_scans = 2);
    let scans: Vec<Vec<u8>> = [1, 2]
        .map(|seed| {
            let mut scan = tiny();
            for a in &mut scan.acquisitions {
                a.head.measurement_uid = seed;
            }
            wire(&messages(&scan, Some("default")))
        })
        .into();
    std::thread::scope(|scope| {
        for (scan, uid) in scans.iter().zip([1, 2]) {
            let server = &server;
            scope.spawn(move || {
                for _ in 0..5 {
                    let heard = server.talk_in(scan, 5000);
                    heard.assert_good(2);
                    assert!(heard.images.iter().all(|i| i.head.measurement_uid == uid));
                }
            });
        }
    });
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(server.stats.running.load(Ordering::Relaxed), 0);
}

/// An authority, a server and a client, made by OpenSSL; none where it is not installed.
fn certificates(dir: &std::path::Path) -> bool {
    let script = "set -e; cd \"$0\"
        req() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \"$@\" 2>/dev/null; }
        for ca in ca stranger; do req -x509 -keyout $ca.key -out $ca.pem -subj /CN=$ca; done
        sign() {
            req -keyout $1.key -out $1.csr -subj /CN=$1
            printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\\n' > ext
            openssl x509 -req -in $1.csr -CA $2.pem -CAkey $2.key -CAcreateserial -days 30 -extfile ext -out $1.pem 2>/dev/null
        }
        sign server ca; sign client ca; sign other stranger";
    let made = Command::new("sh").args(["-c", script]).arg(dir).status();
    if made.is_ok_and(|s| s.success()) {
        return true;
    }
    eprintln!("SKIPPED: no openssl that makes certificates");
    false
}

#[test]
fn over_tls_only_those_who_are_known_get_in() {
    let dir = tempfile::tempdir().unwrap();
    if !certificates(dir.path()) {
        return;
    }
    let file = |name: &str| dir.path().join(name);
    let tls = ServerTls::new(
        &file("server.pem"),
        &file("server.key"),
        Some(&file("ca.pem")),
    )
    .unwrap();
    let server = Running::start(|c| {
        c.tls = Some(tls);
        c.linger = Duration::from_millis(200);
    });
    good(
        dir.path(),
        "simulate scan.h5 --preset small --set n_slices=3",
    );
    let line = format!("send scan.h5 {} -p recon_only --json", server.address);
    let sent = good(
        dir.path(),
        &format!("{line} --tls-ca ca.pem --tls-cert client.pem --tls-key client.key -o wire.h5"),
    );
    assert_eq!(sent["images"], 3, "{sent}");
    good(dir.path(), "recon scan.h5 -p recon_only -o file.h5");
    let images = |name| by_key(stored(&file(name)));
    assert!(images("file.h5") == images("wire.h5"));

    for (what, options) in [
        ("no certificate", "--tls-ca ca.pem"),
        (
            "a stranger's",
            "--tls-ca ca.pem --tls-cert other.pem --tls-key other.key",
        ),
        (
            "not trusted by us",
            "--tls-ca stranger.pem --tls-cert client.pem --tls-key client.key",
        ),
        ("no TLS at all", ""),
    ] {
        let output = cauda_in(dir.path(), &format!("{line} --timeout 5 {options}"));
        // Who does not speak TLS takes the alert for a message that does not exist.
        let code = output.status.code();
        assert!(matches!(code, Some(3 | 4)), "{what}: {code:?}");
    }
    assert!(ServerTls::new(&file("server.pem"), &file("client.key"), None).is_err());
    assert!(ServerTls::new(&file("scan.h5"), &file("server.key"), None).is_err());
}
