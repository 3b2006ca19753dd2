//! `cauda recon`: k-space in, images out.

use std::path::PathBuf;

use indicatif::ProgressBar;

use super::{Outcome, interrupt, output::Output, output::table};
use crate::data::{Fault, FaultKind};
use crate::handoff::{Delivered, Format, HandoffParams};
use crate::pipeline::{FileJob, Report, Watch, recon_file};
use crate::protocol::{Protocol, Registry};
use crate::source::OpenOptions;

/// Arguments of `cauda recon`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// K-space: ISMRMRD, MRD stream, fastMRI, Siemens twix, Bruker, BART, NumPy, MATLAB; found by content
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Protocol by name (`cauda protocol list`) or file
    #[arg(short, long, value_name = "NAME|FILE", default_value = "default")]
    protocol: String,
    #[command(flatten)]
    scan: ScanArgs,
    /// Where images go; the ending says as what: .h5 .nii .nii.gz .dcm .png .npy .cfl, or a folder for DICOM
    #[arg(short, long = "out", value_name = "OUT", required = true)]
    outs: Vec<PathBuf>,
    /// Replace outputs that exist
    #[arg(short, long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// What every command that runs the chain may say.
#[derive(Debug, clap::Args)]
pub struct ScanArgs {
    /// Lay one key over the protocol, for example recon.method=grappa
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A file with noise readouts, instead of the scan's own
    #[arg(long, value_name = "FILE")]
    noise: Option<PathBuf>,
    #[command(flatten)]
    open: OpenArgs,
    /// Threads in all; the default is every core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// How to open an input.
#[derive(Debug, clap::Args)]
pub struct OpenArgs {
    /// Group of an HDF5 file, or variable of a MATLAB file
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Measurement of a twix file, counted from 1
    #[arg(long, value_name = "N")]
    measurement: Option<usize>,
    /// Axes of a plain array in the file's order, for example coil,ro,pe1
    #[arg(long, value_name = "AXES")]
    axes: Option<String>,
    /// Read the whole readouts of a twix file or an MRD stream that was cut short
    #[arg(long)]
    allow_truncated: bool,
}

impl OpenArgs {
    pub(super) fn options(&self) -> OpenOptions {
        OpenOptions {
            group: self.group.clone(),
            measurement: self.measurement,
            axes: self.axes.clone(),
            allow_truncated: self.allow_truncated,
            ..OpenOptions::default()
        }
    }
}

impl ScanArgs {
    /// Threads in all.
    pub(super) fn threads(&self) -> usize {
        self.threads
            .unwrap_or_else(|| crate::device::Device::detect().threads)
            .max(1)
    }

    pub(super) fn protocol(&self, name: &str) -> Result<Protocol, Fault> {
        Ok(Registry.find(name, &self.set)?)
    }

    pub(super) fn job<'a>(
        &self,
        input: &'a std::path::Path,
        protocol: &'a Protocol,
        watch: &'a dyn Watch,
    ) -> FileJob<'a> {
        FileJob {
            input,
            options: self.open.options(),
            noise: self.noise.clone(),
            protocol,
            threads: self.threads,
            watch,
        }
    }
}

pub(super) fn run(args: &Args, out: &Output) -> Result<Outcome, Fault> {
    let mut protocol = args.scan.protocol(&args.protocol)?;
    protocol.file.handoff.overwrite |= args.force;
    for path in &args.outs {
        writable(path, &protocol.file.handoff)?;
    }

    let bar = Bar::new(out, "readouts");
    let finished = recon_file(&args.scan.job(&args.input, &protocol, &bar))?;
    bar.clear();
    for note in &finished.report().notes {
        out.note(&note.text);
    }

    let mut delivered = Vec::new();
    for path in &args.outs {
        let delivery = finished.deliver(path, &protocol.file.handoff)?;
        out.notes(&delivery.notes);
        delivered.push(delivery);
    }

    let report = finished.report();
    out.text(&describe(&report));
    out.text(&deliveries(&delivered));
    out.json(&json(&report, &delivered)?)?;
    Ok(if report.refused.is_empty() {
        Outcome::Done
    } else {
        Outcome::CheckFailed
    })
}

/// Refuses before the work what could not be delivered after it.
fn writable(path: &std::path::Path, params: &HandoffParams) -> Result<(), Fault> {
    let format = Format::of(path)?;
    for quantity in &params.quantities {
        format.holds(*quantity)?;
    }
    if !params.overwrite && path.is_file() {
        return Err(Fault::new(
            FaultKind::Protocol,
            "cli",
            format!("the output exists; --force replaces it: {}", path.display()),
        ));
    }
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => std::path::Path::new("."),
    };
    if !parent.is_dir() {
        return Err(Fault::new(
            FaultKind::Io,
            "cli",
            format!("there is no folder {} for the output", parent.display()),
        ));
    }
    Ok(())
}

/// What was done, why, and how long it took.
pub(super) fn describe(report: &Report) -> String {
    let mut lines = vec![
        format!("input     {}", report.input),
        format!("protocol  {}", report.protocol),
        format!(
            "images    {} from {} readouts",
            report.images, report.readouts
        ),
    ];
    for refused in &report.refused {
        lines.push(format!("refused   {}: {}", refused.frame, refused.message));
    }
    let more = report.n_refused - report.refused.len();
    if more > 0 {
        lines.push(format!("refused   {more} more frames"));
    }
    lines.push(String::new());
    for step in &report.steps {
        lines.push(format!("{}: {}", step.op, step.detail));
    }
    for pattern in &report.patterns {
        lines.push(format!(
            "{} ({} {})",
            pattern.pattern,
            pattern.frames,
            if pattern.frames == 1 {
                "frame"
            } else {
                "frames"
            }
        ));
        for r in &pattern.recipes {
            lines.push(format!("  {}: {}; {}", r.op, r.detail, r.reason));
        }
    }
    lines.push(String::new());
    let rows: Vec<Vec<String>> = report
        .stages
        .iter()
        .map(|s| {
            vec![
                s.stage.to_owned(),
                s.calls.to_string(),
                format!("{:.3}", s.busy_s),
                format!("{:.1} %", 100.0 * s.share),
            ]
        })
        .collect();
    lines.push(table(&["stage", "calls", "seconds", "share"], &rows));
    lines.push(format!(
        "wall {:.3} s; {}; last readout to image: median {:.3} s, longest {:.3} s{}",
        report.wall_s,
        report.schedule.reason,
        report.last_readout_to_image.p50_s,
        report.last_readout_to_image.max_s,
        report
            .peak_memory_bytes
            .map_or_else(String::new, |b| format!("; peak memory {} MiB", b >> 20)),
    ));
    lines.join("\n")
}

/// What was written where.
pub(super) fn deliveries(delivered: &[Delivered]) -> String {
    let rows: Vec<Vec<String>> = delivered
        .iter()
        .flat_map(|d| &d.files)
        .map(|f| {
            vec![
                f.format.to_owned(),
                f.n_slices.to_string(),
                f.bytes.to_string(),
                f.path.display().to_string(),
            ]
        })
        .collect();
    // A DICOM series is one row, not one per slice.
    if rows.len() > 12 {
        let bytes: u64 = delivered.iter().map(|d| d.bytes).sum();
        let first = rows.first().map_or("", |r| r[3].as_str());
        let last = rows.last().map_or("", |r| r[3].as_str());
        return format!(
            "wrote {} files, {bytes} bytes: {first} ... {last}",
            rows.len()
        );
    }
    table(&["wrote", "slices", "bytes", "path"], &rows)
}

pub(super) fn json(report: &Report, delivered: &[Delivered]) -> Result<serde_json::Value, Fault> {
    let bug = |e: serde_json::Error| Fault::new(FaultKind::Bug, "cli", e.to_string());
    let mut value = serde_json::to_value(report).map_err(bug)?;
    if let Some(map) = value.as_object_mut() {
        map.insert(
            "delivered".to_owned(),
            serde_json::to_value(delivered).map_err(bug)?,
        );
    }
    Ok(value)
}

/// A bar over readouts, and the question whether Ctrl-C was pressed.
pub(super) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    pub(super) fn new(out: &Output, what: &'static str) -> Self {
        Self {
            bar: out.progress(what, 0),
        }
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Watch for Bar {
    fn begin(&self, readouts: Option<u64>, frames: usize) {
        self.bar.set_length(readouts.unwrap_or(0));
        if frames > 0 {
            self.bar.set_message(format!("0 of {frames} images"));
        }
    }

    fn readouts(&self, count: u64) {
        self.bar.inc(count);
    }

    fn image(&self) {
        // The message begins with the number of images that are there.
        let text = self.bar.message();
        let mut words = text.splitn(2, ' ');
        if let (Some(Ok(n)), Some(rest)) = (words.next().map(str::parse::<usize>), words.next()) {
            self.bar.set_message(format!("{} {rest}", n + 1));
        }
    }

    fn is_cancelled(&self) -> bool {
        interrupt::is_set()
    }
}
