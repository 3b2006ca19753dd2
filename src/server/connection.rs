//! One connection from the first byte to the last: what the peer wants, its scan, its end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use ismrmrd::wire::{Config, Message, StreamKind};
use ismrmrd::{Acquisition, Header};

use super::config::ServerConfig;
use super::front::{Front, Incoming};
use super::names::{self, Choice};
use super::outbox::Outbox;
use super::query;
use super::sink::Sink;
use super::source::{LiveSource, describe, images_refused};
use super::spill::{Spill, Tee};
use super::stats::Stats;
use crate::data::{Fault, FaultKind, Note, ReconImage, Scan, SyntheticKind};
use crate::device::Device;
use crate::handoff::MrdSeries;
use crate::metrics::{Clock, Monotonic};
use crate::pipeline::synth::{Met, synthesise};
use crate::pipeline::{Live, LiveJob, Report, Warm, Watch, border};
use crate::synth::SynthParams;

/// Longest time that a connection without a spill file is read on after a fault.
const MAX_DRAIN_S: u64 = 120;

/// Refused frames that are named to the client one by one.
const MAX_NAMED: usize = 20;

/// How a connection ended.
#[derive(Debug)]
pub enum Ending {
    /// A scan whose images were all sent.
    Done(Box<Report>),
    /// Nothing to reconstruct: a question, a check whether anybody is there.
    Nothing,
    /// Something failed; the client was told.
    Failed(Fault),
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) config: ServerConfig,
    pub(super) stats: Arc<Stats>,
    pub(super) warm: Warm,
}

impl Shared {
    pub(super) fn new(config: ServerConfig) -> Self {
        Self {
            // A scan takes all threads twice: to ingest and to reconstruct.
            warm: Warm::new(
                2 * config.threads.saturating_mul(config.max_scans),
                config.memory_bytes,
            ),
            stats: Arc::new(Stats::new()),
            config,
        }
    }

    /// All counters in the text format of Prometheus.
    pub(super) fn metrics(&self) -> String {
        let calibrations = self.warm.calibrations();
        let ([known, fitted], bytes) = (calibrations.counts(), calibrations.bytes());
        self.stats.prometheus()
            + &format!(
                "# HELP cauda_calibrations_total Frames whose weights or maps were known or fitted.\n\
                 # TYPE cauda_calibrations_total counter\n\
                 cauda_calibrations_total{{from=\"known\"}} {known}\n\
                 cauda_calibrations_total{{from=\"fitted\"}} {fitted}\n\
                 # HELP cauda_calibrations_bytes Weights and maps that are kept.\n\
                 # TYPE cauda_calibrations_bytes gauge\n\
                 cauda_calibrations_bytes {bytes}\n"
            )
    }
}

/// The other end.
pub(super) struct Peer {
    pub(super) reader: Box<dyn Read + Send>,
    pub(super) writer: Box<dyn Write + Send>,
    /// For people.
    pub(super) name: String,
    pub(super) number: u64,
    pub(super) is_pipe: bool,
}

/// How the server reaches into a connection.
#[derive(Debug, Default)]
pub(super) struct Control {
    pub(super) is_cancelled: AtomicBool,
    /// The header has come.
    pub(super) is_scanning: AtomicBool,
    pub(super) socket: Option<TcpStream>,
}

impl Control {
    /// The longest silence from now on.
    pub(super) fn allow_silence(&self, limit: std::time::Duration) {
        if let Some(socket) = &self.socket {
            // A socket that refuses is broken, and the next read says so.
            drop(socket.set_read_timeout(Some(limit)));
        }
    }

    /// Ends reading; what was complete is still sent.
    pub(super) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Release);
        if let Some(socket) = &self.socket {
            drop(socket.shutdown(std::net::Shutdown::Read));
        }
    }

    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }
}

/// Serves one peer on pipes (standard input and output) instead of a socket.
///
/// # Errors
/// What failed; on a pipe there is nobody else to tell it to.
pub fn serve_pipe(
    config: ServerConfig,
    reader: Box<dyn Read + Send>,
    writer: Box<dyn Write + Send>,
) -> Result<Option<Report>, Fault> {
    config.check()?;
    let shared = Shared::new(config);
    let peer = Peer {
        reader,
        writer,
        name: "pipe".into(),
        number: 1,
        is_pipe: true,
    };
    match converse(peer, &shared, &Control::default()) {
        Ending::Done(report) => Ok(Some(*report)),
        Ending::Nothing => Ok(None),
        Ending::Failed(fault) => Err(fault),
    }
}

/// Holds the whole conversation. Never panics, never returns before the peer was told.
pub(super) fn converse(peer: Peer, shared: &Shared, control: &Control) -> Ending {
    let number = peer.number;
    let span = tracing::info_span!("connection", number, peer = %peer.name);
    let _entered = span.enter();
    match border("server", || Ok(hold(peer, shared, control))) {
        Ok(ending) => ending,
        Err(fault) => {
            tracing::error!(message = %fault.message, "connection failed");
            Ending::Failed(fault)
        }
    }
}

fn hold(peer: Peer, shared: &Shared, control: &Control) -> Ending {
    let config = &shared.config;
    let spill = config.spill.as_ref().and_then(|dir| {
        Spill::create(dir, peer.number)
            .inspect_err(|f| tracing::error!(message = %f.message, "no spill file for this scan"))
            .ok()
    });
    control.allow_silence(config.hello_timeout);
    let received = Arc::new(AtomicU64::new(0));
    let tee = Tee {
        from: peer.reader,
        to: spill.clone(),
        count: Arc::clone(&received),
    };
    let outbox = match Outbox::new(peer.writer, config.outbox_bytes) {
        Ok(outbox) => Arc::new(outbox),
        Err(fault) => {
            tracing::error!(message = %fault.message, "connection refused");
            return Ending::Failed(fault);
        }
    };
    let (mut front, begun) = match Front::new(Box::new(tee), config.limits) {
        Ok(front) => (Some(front), Ok(())),
        Err(fault) => (None, Err(fault)),
    };
    let v2 = front.as_ref().and_then(Front::v2_writer);
    let sink = Sink::new(Arc::clone(&outbox), v2, peer.is_pipe);
    let mut dialogue = Dialogue {
        sink: sink.clone(),
        outbox: Arc::clone(&outbox),
        shared,
        control,
        spill: spill.clone(),
        choice: None,
        header: None,
        asides: Asides::default(),
        is_scan: false,
        peer: peer.name,
    };
    let held = match (begun, front.as_mut()) {
        (Ok(()), Some(front)) => border("server", || dialogue.run(front)),
        (Err(fault), _) => Err(fault),
        (Ok(()), None) => Ok(None),
    };
    let is_scan = dialogue.is_scan;
    drop(dialogue);

    // A fault of ours that the end of reading brought about has another reason.
    let held = held.map_err(|fault| {
        if control.is_cancelled() {
            stopping()
        } else {
            fault
        }
    });
    let told = held.and_then(|report| {
        sink.close(true)?;
        outbox.finish()?;
        Ok(report)
    });
    let ending = match told {
        Ok(report) => {
            if let Some(spill) = &spill {
                spill.remove();
            }
            if let Some(report) = &report {
                log_report(report);
            }
            report.map_or(Ending::Nothing, |r| Ending::Done(Box::new(r)))
        }
        Err(fault) => {
            let spilled = spill.as_ref().is_some_and(|s| s.is_whole()) && is_scan;
            refuse(&sink, &fault, spilled);
            if let Err(f) = outbox.finish() {
                tracing::warn!(message = %f.message, "the client could not be told");
            }
            if let Some(front) = front.as_mut()
                && !peer.is_pipe
            {
                read_on(front, shared, control, spilled);
            }
            keep_or_remove(spill.as_deref(), is_scan);
            Ending::Failed(fault)
        }
    };
    if is_scan {
        shared.stats.scan(match &ending {
            Ending::Done(_) => "done",
            Ending::Nothing => "empty",
            Ending::Failed(f) => outcome(f.kind),
        });
    }
    let bytes = received.load(Ordering::Relaxed);
    shared.stats.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    tracing::debug!(
        bytes,
        outbox_high_water = outbox.high_water_bytes(),
        "connection ended"
    );
    ending
}

fn outcome(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Input => "input",
        FaultKind::Protocol => "protocol",
        FaultKind::Unsupported => "unsupported",
        FaultKind::Limit => "limit",
        FaultKind::Device => "device",
        FaultKind::Model => "model",
        FaultKind::Io => "io",
        FaultKind::Bug => "bug",
    }
}

fn stopping() -> Fault {
    Fault::new(
        FaultKind::Io,
        "server",
        "the server is shutting down: the scan was ended before its CLOSE; frames that were complete were sent",
    )
}

/// TEXT, then CLOSE.
fn refuse(sink: &Sink, fault: &Fault, spilled: bool) {
    tracing::error!(kind = outcome(fault.kind), room = fault.room, message = %fault.message, "scan failed");
    let mut words = format!("[cauda/{}] {}", fault.room, fault.message);
    if spilled {
        words.push_str("; the data are kept on the reconstruction host");
    }
    if let Err(f) = sink.text("ERR", &words).and_then(|()| sink.close(false)) {
        tracing::warn!(message = %f.message, "the client could not be told");
    }
}

/// A socket that is closed with unread bytes in it takes the last words back: the peer would see a reset instead of the
/// reason. And with a spill file, what still comes is the scan.
fn read_on(front: &mut Front, shared: &Shared, control: &Control, spilled: bool) {
    let config = &shared.config;
    if let Some(socket) = &control.socket {
        drop(socket.shutdown(std::net::Shutdown::Write));
    }
    control.allow_silence(if spilled {
        config.idle_timeout
    } else {
        config.linger
    });
    let begun = Instant::now();
    front
        .drain(&|| control.is_cancelled() || (!spilled && begun.elapsed().as_secs() > MAX_DRAIN_S));
}

fn keep_or_remove(spill: Option<&Spill>, is_scan: bool) {
    match spill {
        Some(spill) if is_scan => match spill.keep() {
            Ok((path, bytes)) => {
                let path = path.display();
                tracing::error!(%path, bytes, "the scan's data are kept; `cauda recon` reads them");
            }
            Err(f) => tracing::error!(message = %f.message, "the scan's data are lost"),
        },
        Some(spill) => spill.remove(),
        None => {}
    }
}

fn log_report(report: &Report) {
    tracing::info!(
        images = report.images,
        readouts = report.readouts,
        wall_s = report.wall_s,
        p50_ms = 1e3 * report.last_readout_to_image.p50_s,
        p99_ms = 1e3 * report.last_readout_to_image.p99_s,
        max_ms = 1e3 * report.last_readout_to_image.max_s,
        "scan done"
    );
}

/// Everything that is known about a peer's wishes so far.
struct Dialogue<'a> {
    sink: Sink,
    outbox: Arc<Outbox>,
    shared: &'a Shared,
    control: &'a Control,
    spill: Option<Arc<Spill>>,
    choice: Option<Choice>,
    header: Option<Box<Header>>,
    asides: Asides,
    is_scan: bool,
    peer: String,
}

impl Dialogue<'_> {
    /// Until the end of the scan; `None` when there was none.
    fn run(&mut self, front: &mut Front) -> Result<Option<Report>, Fault> {
        loop {
            match front.next()? {
                Incoming::Config(config) => self.configure(&config)?,
                Incoming::Header(header) => {
                    tracing::info!(header = %describe(&header), "header");
                    self.header = Some(header);
                    self.is_scan = true;
                    self.control.is_scanning.store(true, Ordering::Release);
                    self.control.allow_silence(self.shared.config.idle_timeout);
                }
                Incoming::Readout(readout) => return self.scan(front, readout).map(Some),
                Incoming::Closed | Incoming::Silent => return Ok(None),
                Incoming::Failed(words) => {
                    return Err(Fault::new(
                        FaultKind::Input,
                        "server",
                        format!("the client says that it failed: {words}"),
                    ));
                }
                Incoming::Image => return Err(images_refused()),
                Incoming::Text(text) if text.trim_start().starts_with('{') => {
                    self.parameters(&text)?
                }
                other => self.asides.take(&self.sink, other)?,
            }
        }
    }

    fn configure(&mut self, config: &Config) -> Result<(), Fault> {
        let choice = names::choose(Some(config), &self.shared.config.default_protocol)?;
        tracing::info!(protocol = %choice.protocol.describe(), probe = choice.is_probe, "configuration");
        self.choice = Some(choice);
        Ok(())
    }

    /// JSON after the header: python-ismrmrd-server's clients repeat the configuration and add options of their modules.
    fn parameters(&mut self, text: &str) -> Result<(), Fault> {
        let json: Option<serde_json::Value> = serde_json::from_str(text).ok();
        let Some(json) = json else {
            return self
                .asides
                .take(&self.sink, Incoming::Text(text.to_owned()));
        };
        let name = json.pointer("/parameters/config").and_then(|v| v.as_str());
        if let (None, Some(name)) = (&self.choice, name) {
            self.configure(&Config::Name(name.to_owned()))?;
        }
        let others: Vec<&str> = json
            .get("parameters")
            .and_then(|p| p.as_object())
            .into_iter()
            .flat_map(|p| p.keys().map(String::as_str))
            .filter(|k| *k != "config")
            .take(MAX_ASIDES)
            .collect();
        if others.is_empty() {
            return Ok(());
        }
        let words = format!(
            "JSON parameters that mean nothing here were passed over: {}",
            others.join(", ")
        );
        self.asides.say(&self.sink, words)
    }

    fn scan(&mut self, front: &mut Front, first: Acquisition) -> Result<Report, Fault> {
        let shared = self.shared;
        let _slot = Slot::take(shared)?;
        let Some(header) = self.header.take() else {
            // The session lets no readout through before the header; a v2 stream may have none.
            return Err(Fault::new(
                FaultKind::Input,
                "server",
                "readouts came without a header, expected the header first",
            ));
        };
        let choice = match self.choice.take() {
            Some(choice) => choice,
            None => names::choose(None, &shared.config.default_protocol)?,
        };
        for note in &choice.notes {
            self.sink.text("INFO", &note.text)?;
        }
        let (device, protocol) = share(&shared.config, choice.protocol)?;
        let outbox = Arc::clone(&self.outbox);
        let watch = Gone(&outbox);
        let clock = Monotonic;
        let input = match front.kind() {
            Some(StreamKind::V2) => format!("MRD v2 stream from {}", self.peer),
            _ => format!("MRD stream from {}", self.peer),
        };
        let mut notes: Vec<Note> = choice.notes;
        let store = shared.config.noise.as_ref();
        let (kept, missing) = store.map_or((None, None), |s| s.find(&header));
        if let Some(note) = missing {
            tracing::warn!(message = %note.text, "noise");
            self.sink.text("WRN", &note.text)?;
            notes.push(note);
        }
        if shared.config.spill.is_some() && self.spill.is_none() {
            let note = Note::new(
                "no_spill_file",
                "the spill folder takes no file (the server's log says why): if this scan fails, its data are not kept",
            );
            self.sink.text("WRN", &note.text)?;
            notes.push(note);
        }
        let is_kept = kept.is_some();
        let live = Live::plan(LiveJob {
            header: &header,
            noise: kept,
            protocol: &protocol,
            device,
            warm: &shared.warm,
            watch: &watch,
            now: &clock,
            input: &input,
            notes: &notes,
        })?;
        let mut series = border("handoff", || {
            Ok(MrdSeries::new(live.scan().clone(), &protocol.file.handoff)?)
        })?;
        self.sink.begin(live.scan())?;

        let (sink, spill) = (self.sink.clone(), self.spill.clone());
        let asides = &mut self.asides;
        let for_aside = self.sink.clone();
        let mut source = LiveSource {
            front,
            first: Some(first),
            aside: &mut |incoming| asides.take(&for_aside, incoming),
            control: self.control,
            silence: shared.config.idle_timeout,
        };
        let mut broken: Option<Note> = None;
        let scan = live.scan().clone();
        let threads = live.threads();
        // What a set is made of, once its images are out.
        let mut kept_images: Vec<ReconImage> = Vec::new();
        let keeps = protocol.file.synth.is_some();
        let ran = live.run(&mut source, &mut |mut image, stamp| {
            if let Some(spill) = &spill {
                if let Err(f) = spill.sending(&image.key) {
                    tracing::error!(message = %f.message, "journal");
                }
                tell_broken(spill, &sink, &mut broken)?;
                image.provenance.notes.extend(broken.clone());
            }
            let marks: Vec<(String, String)> = stamp
                .offsets_ms()
                .into_iter()
                .map(|(name, ms)| (format!("CaudaMs_{name}"), format!("{ms:.3}")))
                .collect();
            let images = border("handoff", || Ok(series.images(&image, &marks)?))?;
            let (stats, mut stamp) = (Arc::clone(&shared.stats), stamp);
            let bytes = sink.images(
                images,
                Box::new(move || {
                    stamp.sent = Some(Monotonic.now());
                    stats.sent(&stamp);
                }),
            )?;
            shared.stats.bytes_out.fetch_add(bytes, Ordering::Relaxed);
            if keeps {
                kept_images.push(image);
            }
            Ok(())
        });
        // It may break behind the last image, or before a fault.
        let told = match &self.spill {
            Some(spill) => tell_broken(spill, &self.sink, &mut broken),
            None => Ok(()),
        };
        let (report, noise) = ran?;
        told?;
        let stats = &shared.stats;
        stats.readouts.fetch_add(report.readouts, Ordering::Relaxed);
        stats
            .deadline_misses
            .fetch_add(report.deadline_misses as u64, Ordering::Relaxed);
        for refused in report.refused.iter().take(MAX_NAMED) {
            let words = format!("{} gave no image: {}", refused.frame, refused.message);
            tracing::warn!(%words, "frame refused");
            self.sink.text("WRN", &words)?;
        }
        if let (Some(store), Some(noise), false) = (store, &noise, is_kept)
            && let Err(f) = store.keep(&header, noise)
        {
            tracing::error!(message = %f.message, "noise");
        }
        if let (Some(params), false) = (&protocol.file.synth, kept_images.is_empty()) {
            self.synthesise(params, &protocol, &scan, &kept_images, threads)?;
        }
        // A noise scan on its own has no images.
        let is_noise_scan = report.refused.is_empty() && noise.is_some();
        if report.images == 0 && !is_noise_scan {
            return Err(Fault::new(
                FaultKind::Input,
                "server",
                "no frame of the scan gave an image",
            ));
        }
        Ok(report)
    }
}

impl Dialogue<'_> {
    /// Behind the acquired images: what the set of this study makes, if it is complete now. Whatever fails here is said, and
    /// fails nothing that was measured.
    fn synthesise(
        &self,
        params: &SynthParams,
        protocol: &crate::protocol::Protocol,
        scan: &Scan,
        images: &[ReconImage],
        threads: usize,
    ) -> Result<(), Fault> {
        let say = |level: &str, words: &str| {
            tracing::info!(%words, "synthesis");
            self.sink.text(level, words)
        };
        let studies = self.shared.warm.studies();
        let (exam, notes) = match studies.meet(scan, images, params, Instant::now()) {
            Ok(Met::Set(exam, notes)) => (exam, notes),
            Ok(Met::Waits(notes)) => return notes.iter().try_for_each(|n| say("INFO", &n.text)),
            Ok(Met::Alone(note)) => return say("INFO", &note.text),
            Err(f) => return say("WRN", &f.message),
        };
        for note in &notes {
            say("WRN", &note.text)?;
        }
        let mut series: Vec<(SyntheticKind, MrdSeries)> = Vec::new();
        let (sink, shared) = (self.sink.clone(), self.shared);
        let made = synthesise(params, &exam, &shared.warm, threads, &mut |scan, image| {
            let Some(kind) = image.synthetic.as_ref().map(|s| s.kind) else {
                return Ok(());
            };
            if !series.iter().any(|(k, _)| *k == kind) {
                let params = protocol.file.handoff.of_synthetic(kind);
                let new = border("handoff", || Ok(MrdSeries::new(scan.clone(), &params)?))?;
                series.push((kind, new));
            }
            for (_, series) in series.iter_mut().filter(|(k, _)| *k == kind) {
                let images = border("handoff", || Ok(series.images(&image, &[])?))?;
                let bytes = sink.images(images, Box::new(|| ()))?;
                shared.stats.bytes_out.fetch_add(bytes, Ordering::Relaxed);
            }
            Ok(())
        });
        match made {
            Ok(report) => {
                for note in &report.notes {
                    say("WRN", &note.text)?;
                }
                for (kind, n) in &report.made {
                    let words = format!("{}: {n} slices; {}", kind.title(), kind.caution());
                    say("INFO", &words)?;
                }
                for refused in &report.refused {
                    say(
                        "WRN",
                        &format!("no {}: {}", refused.kind.title(), refused.why),
                    )?;
                }
                Ok(())
            }
            // A peer that is gone ends the scan; nothing else does.
            Err(f) if f.kind == FaultKind::Io => Err(f),
            Err(f) => say("WRN", &format!("nothing synthetic is made: {}", f.message)),
        }
    }
}

/// Tells the client, once, that the spill file is not whole; the note is for the images from now on.
fn tell_broken(spill: &Spill, sink: &Sink, broken: &mut Option<Note>) -> Result<(), Fault> {
    let Some(why) = spill.take_failure() else {
        return Ok(());
    };
    let words = format!(
        "the spill file is not whole ({why}): the scan goes on without, and if it fails, its data are not kept"
    );
    tracing::error!(%words, "spill");
    sink.text("WRN", &words)?;
    *broken = Some(Note::new("spill_file_broken", words));
    Ok(())
}

/// This scan's share of the machine. A protocol may ask for less, never for more.
fn share(
    config: &ServerConfig,
    mut protocol: crate::protocol::Protocol,
) -> Result<(Device, crate::protocol::Protocol), Fault> {
    let card = crate::pipeline::file::card(&protocol)?;
    let prefs = &protocol.file.device;
    let mut device = Device {
        threads: config.threads.max(1),
        memory_bytes: config.memory_bytes / config.max_scans as u64,
        card,
    };
    if prefs.threads > 0 {
        device.threads = device.threads.min(prefs.threads);
    }
    if prefs.memory_budget_mib > 0 {
        device.memory_bytes = device
            .memory_bytes
            .min(prefs.memory_budget_mib.saturating_mul(1 << 20));
    }
    let queue_mib = &mut protocol.file.pipeline.queue_mib;
    *queue_mib = (*queue_mib).min((device.memory_bytes >> 22).max(1));
    Ok((device, protocol))
}

/// What was answered, logged or passed over without touching the scan. Bounded: a peer may send a million of each.
#[derive(Default)]
struct Asides {
    /// Each kind once.
    said: Vec<String>,
    texts: usize,
}

/// Texts of a client that are logged, and remarks that it gets.
const MAX_ASIDES: usize = 32;

impl Asides {
    /// Says a remark to the client, unless it was said before.
    fn say(&mut self, sink: &Sink, words: String) -> Result<(), Fault> {
        if self.said.len() >= MAX_ASIDES || self.said.contains(&words) {
            return Ok(());
        }
        tracing::warn!(%words, "passed over");
        sink.text("WRN", &words)?;
        self.said.push(words);
        Ok(())
    }

    fn take(&mut self, sink: &Sink, incoming: Incoming) -> Result<(), Fault> {
        match incoming {
            Incoming::Query {
                correlation_id,
                text,
            } => sink.message(&Message::Response {
                correlation_id,
                text: query::answer(&text),
            }),
            Incoming::Text(text) => {
                self.texts += 1;
                if self.texts <= MAX_ASIDES {
                    let words: String =
                        text.chars().take(200).filter(|c| !c.is_control()).collect();
                    tracing::info!(%words, "text from the client");
                }
                Ok(())
            }
            Incoming::DependencyQuery => {
                let words = "dependency queries are not answered: a scan's header names its noise";
                self.say(sink, words.into())
            }
            Incoming::Other(what) => self.say(sink, format!("{what} are not used here")),
            _ => Ok(()),
        }
    }
}

/// A place among the scans that run.
struct Slot<'a>(&'a Stats);

impl<'a> Slot<'a> {
    fn take(shared: &'a Shared) -> Result<Self, Fault> {
        let (running, max) = (&shared.stats.running, shared.config.max_scans as u64);
        let taken = running.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
            (n < max).then_some(n + 1)
        });
        match taken {
            Ok(_) => Ok(Self(&shared.stats)),
            Err(n) => Err(Fault::new(
                FaultKind::Limit,
                "server",
                format!(
                    "{n} scans are running, this server takes {max} at the same time; send the scan again later"
                ),
            )),
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Ends the work when nobody takes the images any more.
struct Gone<'a>(&'a Outbox);

impl Watch for Gone<'_> {
    fn is_cancelled(&self) -> bool {
        self.0.has_failed()
    }
}
