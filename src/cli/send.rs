//! `cauda send`: a file as a scanner would send it, and the images that come back.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use ismrmrd::Image;
use ismrmrd::acquisition::AcquisitionRef;
use ismrmrd::wire::Message;

use super::recon::OpenArgs;
use super::{Outcome, interrupt, output::Output};
use crate::data::{Fault, FaultKind};
use crate::server::{Client, ClientTls, Received};
use crate::source::{self, Opened};

/// Arguments of `cauda send`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// K-space of any kind that `cauda recon` reads
    #[arg(value_name = "FILE")]
    input: PathBuf,
    /// An MRD server
    #[arg(value_name = "HOST:PORT")]
    to: String,
    /// Configuration to ask for: a protocol of cauda, or a configuration of another server
    #[arg(short, long, value_name = "NAME")]
    protocol: Option<String>,
    /// How fast: full, real (by the time stamps of the readouts), or readouts per second
    #[arg(long, value_name = "full|real|HZ", default_value = "full")]
    pace: Pace,
    /// Length of a tick of the scanner's time stamps, ms; Siemens counts 2.5
    #[arg(long, value_name = "MS", default_value_t = 1.0)]
    tick_ms: f64,
    /// Speak TLS, and trust a server whose certificate one of these signed (PEM)
    #[arg(long, value_name = "PEM")]
    tls_ca: Option<PathBuf>,
    /// Certificate to show to the server (PEM)
    #[arg(long, value_name = "PEM", requires_all = ["tls_ca", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "PEM", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    #[command(flatten)]
    open: OpenArgs,
    /// Store the images that come back
    #[arg(short, long, value_name = "OUT.h5")]
    out: Option<PathBuf>,
    /// Replace an output that exists
    #[arg(short, long)]
    force: bool,
    /// Longest wait for the connection and for each answer, seconds
    #[arg(long, value_name = "S", default_value_t = 300)]
    timeout: u64,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// How fast readouts leave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as they are taken.
    Full,
    /// By their time stamps.
    Real,
    /// So many in a second.
    Hz(f64),
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "full" => Ok(Self::Full),
            "real" => Ok(Self::Real),
            _ => match s.parse::<f64>() {
                Ok(hz) if hz > 0.0 && hz.is_finite() => Ok(Self::Hz(hz)),
                _ => Err("needed full, real, or a number of readouts per second".into()),
            },
        }
    }
}

/// When each readout is due.
pub(super) struct Due {
    pace: Pace,
    tick_s: f64,
    begun: Instant,
    first_stamp: Option<u32>,
    count: u64,
}

impl Due {
    pub(super) fn new(pace: Pace, tick_ms: f64) -> Self {
        Self {
            pace,
            tick_s: 1e-3 * tick_ms,
            begun: Instant::now(),
            first_stamp: None,
            count: 0,
        }
    }

    /// When the next readout is due; `None` is now.
    pub(super) fn next(&mut self, readout: &AcquisitionRef<'_>) -> Option<Instant> {
        let n = self.count;
        self.count += 1;
        let after = match self.pace {
            Pace::Full => return None,
            Pace::Hz(hz) => n as f64 / hz,
            Pace::Real => {
                let stamp = readout.head.acquisition_time_stamp;
                let first = *self.first_stamp.get_or_insert(stamp);
                // Stamps that run backwards (a noise scan of another day) are due at once.
                f64::from(stamp.checked_sub(first)?) * self.tick_s
            }
        };
        Some(self.begun + Duration::try_from_secs_f64(after).ok()?)
    }
}

#[derive(serde::Serialize)]
struct Sent {
    readouts: u64,
    bytes: u64,
    images: usize,
    texts: Vec<String>,
    seconds: f64,
    closed: bool,
}

pub(super) fn run(args: &Args, out: &Output) -> Result<Outcome, Fault> {
    if let Some(path) = &args.out {
        writable(path, args.force)?;
    }
    let mut opened = source::open(&args.input, &args.open.options())?;
    out.notes(&opened.notes);
    let timeout = Duration::from_secs(args.timeout.max(1));
    let tls = match &args.tls_ca {
        Some(trusted) => {
            let own = args.tls_cert.as_deref().zip(args.tls_key.as_deref());
            Some(ClientTls::new(trusted, own)?)
        }
        None => None,
    };
    let (mut client, mut receiver) = Client::connect_with(&args.to, timeout, tls.as_ref())?;
    drop(client.stream().set_read_timeout(Some(timeout)));
    drop(client.stream().set_write_timeout(Some(timeout)));

    let begun = Instant::now();
    let (sent, received) = std::thread::scope(|scope| {
        let receiving = scope.spawn(move || {
            let (mut images, mut texts) = (Vec::new(), Vec::new());
            loop {
                match receiver.receive()? {
                    Received::Image(image) => images.push(*image),
                    Received::Text(text) | Received::Response(text) => texts.push(text),
                    Received::Other => {}
                    Received::Close => return Ok::<_, Fault>((images, texts, true)),
                    Received::CutOff => return Ok((images, texts, false)),
                }
            }
        });
        let sent = send(&mut client, &mut opened, args);
        let received = receiving.join().unwrap_or_else(|p| {
            Err(Fault::new(
                FaultKind::Bug,
                "cli",
                crate::pipeline::panic_text(p.as_ref()),
            ))
        });
        (sent, received)
    });
    let (images, texts, closed) = received?;
    for text in &texts {
        out.note(text);
    }
    let is_refused = texts.iter().any(|t| t.starts_with("ERR"));
    // The server's own words say more than the broken connection that followed them.
    if let (Err(fault), false) = (&sent, is_refused) {
        return Err(Fault::new(fault.kind, fault.room, fault.message.clone()));
    }
    if let Some(path) = &args.out
        && !images.is_empty()
    {
        store(path, &opened, &images)?;
    }
    let report = Sent {
        readouts: sent.unwrap_or(0),
        bytes: client.sent_bytes(),
        images: images.len(),
        texts,
        seconds: begun.elapsed().as_secs_f64(),
        closed,
    };
    out.text(&format!(
        "sent {} readouts, {} bytes; received {} images in {:.3} s",
        report.readouts, report.bytes, report.images, report.seconds
    ));
    out.json(&report)?;
    if !closed && !is_refused {
        return Err(Fault::new(
            FaultKind::Io,
            "cli",
            format!("the server ended the connection without CLOSE: {}", args.to),
        ));
    }
    Ok(if is_refused || report.images == 0 {
        Outcome::CheckFailed
    } else {
        Outcome::Done
    })
}

fn send(client: &mut Client, opened: &mut Opened, args: &Args) -> Result<u64, Fault> {
    if let Some(name) = &args.protocol {
        client.send(&Message::ConfigFile(name.clone()))?;
    }
    client.send(&Message::Header(opened.header.to_xml()))?;
    let mut due = Due::new(args.pace, args.tick_ms);
    let (mut readouts, mut failure) = (0, None);
    opened.for_each_batch(&mut |batch| {
        for readout in batch {
            let sent = (|| {
                if let Some(at) = due.next(readout) {
                    client.flush()?;
                    std::thread::sleep(at.saturating_duration_since(Instant::now()));
                }
                client.readout(readout)
            })();
            if let Err(f) = sent {
                failure = Some(f);
                return ControlFlow::Break(());
            }
            readouts += 1;
        }
        if interrupt::is_set() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    match failure {
        Some(f) => Err(f),
        // Whoever interrupts leaves an incomplete scan, and the server must not take it for a whole one.
        None if interrupt::is_set() => {
            drop(client.stream().shutdown(std::net::Shutdown::Both));
            Err(Fault::new(
                FaultKind::Io,
                "cli",
                "interrupted: the scan was not sent to its end",
            ))
        }
        None => {
            client.send(&Message::Close)?;
            Ok(readouts)
        }
    }
}

fn writable(path: &Path, force: bool) -> Result<(), Fault> {
    let wrong = |text: String| Err(Fault::new(FaultKind::Protocol, "cli", text));
    if path.extension().is_none_or(|e| e != "h5") {
        return wrong(format!(
            "images are stored as ISMRMRD: needed a name that ends in .h5: {}",
            path.display()
        ));
    }
    if path.exists() && !force {
        return wrong(format!(
            "the output exists; --force replaces it: {}",
            path.display()
        ));
    }
    Ok(())
}

/// Images as they came, one series each.
fn store(path: &Path, opened: &Opened, images: &[Image]) -> Result<(), Fault> {
    let io = |e: String| {
        Fault::new(
            FaultKind::Io,
            "cli",
            format!("cannot store the images: {e}: {}", path.display()),
        )
    };
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let temporary = tempfile::Builder::new()
        .suffix(".h5")
        .tempfile_in(folder)
        .map_err(|e| io(e.to_string()))?
        .into_temp_path();
    let mut writer =
        ismrmrd::file::Writer::create(&temporary, "dataset").map_err(|e| io(e.to_string()))?;
    writer
        .header(&opened.header)
        .map_err(|e| io(e.to_string()))?;
    let first = images
        .first()
        .map(|i| (i.head.matrix_size, i.head.channels));
    for image in images {
        let h = &image.head;
        let mut name = format!("image_{}", h.image_series_index);
        if Some((h.matrix_size, h.channels)) != first {
            let [x, y, z] = h.matrix_size;
            name += &format!("_{x}x{y}x{z}x{}", h.channels);
        }
        writer.image(&name, image).map_err(|e| io(e.to_string()))?;
    }
    writer.finish().map_err(|e| io(e.to_string()))?;
    temporary.persist(path).map_err(|e| io(e.error.to_string()))
}
