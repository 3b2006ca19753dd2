//! `cauda synth`: T1w and T2w in; STIR, T2FS and CT that nobody measured out, each with its error and where it abstains.

use std::path::{Path, PathBuf};

use super::recon::{Bar, ScanArgs, deliveries};
use super::{Outcome, output::Output};
use crate::data::{Fault, FaultKind, ReconImage, Scan, SyntheticKind};
use crate::handoff::{self, Delivered, Format, HandoffParams};
use crate::pipeline::synth::{Loaded, load_series, synthesise};
use crate::pipeline::{Warm, border};
use crate::synth::{Exam, SynthParams};

/// Arguments of `cauda synth`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// T1-weighted series: k-space of any kind, or images (DICOM file or folder, NIfTI, ISMRMRD)
    #[arg(value_name = "T1W")]
    t1w: PathBuf,
    /// T2-weighted series of the same study; without it only CT can be made
    #[arg(value_name = "T2W")]
    t2w: Option<PathBuf>,
    /// Where they go; one file or folder each, with _stir, _t2fs, _ct in the name (a folder: below it). Acquired images that were
    /// reconstructed here go out first, with _t1w and _t2w
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
    /// What is made
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = kind)]
    want: Vec<SyntheticKind>,
    /// Protocol for k-space, and for [synth] if it has that table
    #[arg(short, long, value_name = "NAME|FILE", default_value = "default")]
    protocol: String,
    #[command(flatten)]
    scan: ScanArgs,
    /// Replace outputs that exist
    #[arg(short, long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

fn kind(word: &str) -> Result<SyntheticKind, String> {
    SyntheticKind::ALL
        .into_iter()
        .find(|k| k.name() == word)
        .ok_or_else(|| {
            format!(
                "there are: {}",
                SyntheticKind::ALL.map(SyntheticKind::name).join(", ")
            )
        })
}

pub(super) fn run(args: &Args, out: &Output) -> Result<Outcome, Fault> {
    let mut protocol = args.scan.protocol(&args.protocol)?;
    protocol.file.handoff.overwrite |= args.force;
    let mut params = protocol.file.synth.clone().unwrap_or_default();
    if !args.want.is_empty() {
        params.want.clone_from(&args.want);
    }
    params.check().map_err(Fault::from)?;
    let place = Place::new(&args.out)?;

    let load = |path: &Path| -> Result<Loaded, Fault> {
        let bar = Bar::new(out, "readouts");
        let loaded = load_series(&args.scan.job(path, &protocol, &bar))?;
        bar.clear();
        Ok(loaded)
    };
    let mut sources = vec![("t1w", load(&args.t1w)?)];
    if let Some(path) = &args.t2w {
        sources.push(("t2w", load(path)?));
    }
    // Before anything is made up, what was measured is safe.
    let mut delivered = Vec::new();
    for (name, loaded) in &mut sources {
        let Some(finished) = loaded.finished() else {
            continue;
        };
        let delivery = finished.deliver(&place.of(name)?, &protocol.file.handoff)?;
        let files: Vec<PathBuf> = delivery
            .files
            .iter()
            .filter(|f| f.format.starts_with("dicom"))
            .map(|f| f.path.clone())
            .collect();
        loaded.instances_from(&files)?;
        delivered.push(delivery);
    }

    let mut series = sources.iter().map(|(_, l)| l.series());
    let (t1w, t2w) = (series.next().transpose()?, series.next().transpose()?);
    let exam = Exam::given(t1w, t2w)?;
    let n_slices = exam.t1w.as_ref().map_or(0, |s| s.volume.geometry.matrix[2]);
    let threads = args.scan.threads();
    let begun = std::time::Instant::now();
    let mut waiting: Vec<(SyntheticKind, Scan, Vec<ReconImage>)> = Vec::new();
    let handoff = &protocol.file.handoff;
    let mut made = Vec::new();
    let report = synthesise(
        &params,
        &exam,
        &Warm::once(),
        threads,
        &mut |scan, image| {
            let Some(kind) = image.synthetic.as_ref().map(|s| s.kind) else {
                return Ok(());
            };
            let at = match waiting.iter().position(|(k, ..)| *k == kind) {
                Some(at) => at,
                None => {
                    waiting.push((kind, scan.clone(), Vec::new()));
                    waiting.len() - 1
                }
            };
            waiting[at].2.push(image);
            if waiting[at].2.len() < n_slices {
                return Ok(());
            }
            // Whole: away with it, while the others are still being made.
            let (kind, scan, images) = waiting.swap_remove(at);
            let params = HandoffParams::of_synthetic(handoff, kind);
            let delivery = border("handoff", || {
                Ok(handoff::write(
                    &images,
                    &scan,
                    &place.of(kind.name())?,
                    &params,
                )?)
            })?;
            made.push((kind, begun.elapsed().as_secs_f64()));
            delivered.push(delivery);
            Ok(())
        },
    )?;
    let seconds = begun.elapsed().as_secs_f64();

    for delivery in &delivered {
        out.notes(&delivery.notes);
    }
    out.notes(&report.notes);
    // Each reason once, unless it is the only one: then it is the error.
    let reasons: Vec<String> = report.refused.iter().map(|r| r.why.to_string()).collect();
    for (i, why) in reasons.iter().enumerate() {
        if reasons[..i].contains(why) || (report.made.is_empty() && *why == reasons[0]) {
            continue;
        }
        let same = report
            .refused
            .iter()
            .zip(&reasons)
            .filter(|(_, w)| *w == why);
        let kinds: Vec<&str> = same.map(|(r, _)| r.kind.title()).collect();
        out.note(&format!("no {}: {why}", kinds.join(", ")));
    }
    if report.made.is_empty() {
        // Each of them has a reason; the first is the exit code.
        if let Some(first) = report.refused.into_iter().next() {
            return Err(first.why.into());
        }
        return Ok(Outcome::CheckFailed);
    }
    let lines: Vec<String> = made
        .iter()
        .map(|(kind, s)| {
            format!(
                "{} {n_slices} slices, out after {s:.2} s; {}",
                kind.title(),
                kind.caution()
            )
        })
        .collect();
    out.text(&lines.join("\n"));
    out.text(&deliveries(&delivered));
    out.json(&json(&params, &report, &made, &delivered, seconds))?;
    Ok(if report.refused.is_empty() {
        Outcome::Done
    } else {
        Outcome::CheckFailed
    })
}

fn json(
    params: &SynthParams,
    report: &crate::synth::Report,
    made: &[(SyntheticKind, f64)],
    delivered: &[Delivered],
    seconds: f64,
) -> serde_json::Value {
    let registered = report.registered.map(|r| {
        serde_json::json!({
            "shift_mm": r.rigid.shift_mm,
            "rotation_deg": r.rigid.rotation_deg,
            "overlap": r.overlap,
            "mutual_information": r.information,
        })
    });
    serde_json::json!({
        "synthetic": true,
        "params": params,
        "made": made.iter().map(|(k, s)| serde_json::json!({
            "kind": k, "seconds": s, "caution": k.caution(),
        })).collect::<Vec<_>>(),
        "refused": report.refused.iter().map(|r| serde_json::json!({
            "kind": r.kind, "why": r.why.to_string(),
        })).collect::<Vec<_>>(),
        "registered": registered,
        "notes": report.notes,
        "seconds": seconds,
        "delivered": delivered,
    })
}

/// Names of outputs.
struct Place<'a> {
    out: &'a Path,
    is_folder: bool,
}

impl<'a> Place<'a> {
    fn new(out: &'a Path) -> Result<Self, Fault> {
        Ok(Self {
            is_folder: Format::of(out)? == Format::DicomFolder,
            out,
        })
    }

    fn of(&self, name: &str) -> Result<PathBuf, Fault> {
        if !self.is_folder {
            return Ok(handoff::with_suffix(self.out, &format!("_{name}")));
        }
        std::fs::create_dir_all(self.out).map_err(|e| {
            let text = format!("cannot make the folder {}: {e}", self.out.display());
            Fault::new(FaultKind::Io, "cli", text)
        })?;
        Ok(self.out.join(name))
    }
}
