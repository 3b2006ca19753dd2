//! `cauda protocol list | check | explain | time | compare`.

use clap::Subcommand;

use super::{Outcome, output::Output, output::table};
use crate::data::{Fault, FaultKind};
use crate::phantom::acquire::{AcquireParams, MotionParams, Scan, Subject};
use crate::phantom::spine::{Patient, Request};
use crate::pipeline::{FileJob, Unwatched, recon_file};
use crate::protocol::{Protocol, ProtocolError, Registry, explain};
use crate::sequence::{SequenceParams, Timing, Worth, snr_to_win_back};
use crate::source::OpenOptions;

/// Arguments of `cauda protocol`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Names the protocols that ship with the program
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Reads protocols and says what is wrong with them
    Check {
        /// Names or files
        #[arg(required = true, value_name = "NAME|FILE")]
        protocols: Vec<String>,
        /// Lay one key over the protocol
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Explains every key: meaning, unit, default; or shows what a protocol sets
    Explain {
        /// Only keys that begin so (`recon.grappa`), or a protocol's name
        #[arg(value_name = "KEY|NAME")]
        what: Option<String>,
        /// Print protocols/README.md
        #[arg(long, conflicts_with_all = ["what", "json"])]
        markdown: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Computes how long protocols take, and the exams that are made of them
    Time {
        /// Names, files, or exams
        #[arg(required = true, value_name = "NAME|FILE|EXAM")]
        protocols: Vec<String>,
        /// Lay one key over every protocol
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Noise amplification of parallel imaging, as `cauda recon` measured it; else that of a simulated slice, as each
        /// protocol reconstructs it
        #[arg(long, value_name = "G")]
        gfactor: Option<f64>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Compares two protocols (time, SNR, sharpness, load of the pulses), or the time of two exams
    Compare {
        /// Name, file or exam
        #[arg(value_name = "A")]
        a: String,
        /// Name, file or exam
        #[arg(value_name = "B")]
        b: String,
        /// Noise amplification of parallel imaging of A and of B, as `cauda recon` measured it; else that of a simulated
        /// slice, as each protocol reconstructs it
        #[arg(long, num_args = 2, value_names = ["A", "B"])]
        gfactor: Option<Vec<f64>>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl Args {
    pub(super) fn is_json(&self) -> bool {
        match self.action {
            Action::List { json }
            | Action::Check { json, .. }
            | Action::Explain { json, .. }
            | Action::Time { json, .. }
            | Action::Compare { json, .. } => json,
        }
    }
}

pub(super) fn run(args: &Args, out: &Output) -> Result<Outcome, Fault> {
    match &args.action {
        Action::List { .. } => list(out),
        Action::Check { protocols, set, .. } => check(protocols, set, out),
        Action::Explain { markdown: true, .. } => {
            out.text(explain::readme().trim_end());
            Ok(Outcome::Done)
        }
        Action::Explain { what, .. } => explain_keys(what.as_deref(), out),
        Action::Time {
            protocols,
            set,
            gfactor,
            ..
        } => time(protocols, set, *gfactor, out),
        Action::Compare { a, b, gfactor, .. } => compare(a, b, gfactor.as_deref(), out),
    }
}

fn list(out: &Output) -> Result<Outcome, Fault> {
    let protocols = Registry
        .shipped()
        .iter()
        .map(|s| Protocol::parse(s.name, s.text, &[]))
        .collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<_> = protocols
        .iter()
        .map(|p| vec![p.name.clone(), p.file.title.clone()])
        .collect();
    out.text(&table(&["protocol", "title"], &rows));
    out.json(
        &protocols
            .iter()
            .map(|p| {
                serde_json::json!({ "name": p.name, "title": p.file.title, "digest": p.digest })
            })
            .collect::<Vec<_>>(),
    )?;
    Ok(Outcome::Done)
}

fn check(names: &[String], set: &[String], out: &Output) -> Result<Outcome, Fault> {
    let mut checked = Vec::new();
    for name in names {
        let protocol = Registry.find(name, set)?;
        out.text(&format!("{}: ok", protocol.describe()));
        checked.push(serde_json::json!({
            "name": protocol.name,
            "digest": protocol.digest,
            "effective": protocol.file,
        }));
    }
    out.json(&checked)?;
    Ok(Outcome::Done)
}

fn explain_keys(what: Option<&str>, out: &Output) -> Result<Outcome, Fault> {
    let mut entries = explain::entries();
    if let Some(what) = what {
        let is_below = |key: &str| {
            key.strip_prefix(what)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if entries.iter().any(|e| is_below(&e.key)) {
            entries.retain(|e| is_below(&e.key));
        } else {
            return show(what, out);
        }
    }
    for e in &entries {
        out.text(&format!("{} ({})", e.key, e.kind));
        if !e.default.is_empty() {
            out.text(&format!("    default: {}", e.default));
        }
        out.text(&format!("    {}", e.meaning));
    }
    out.json(&entries)?;
    Ok(Outcome::Done)
}

/// What a protocol means: every key with its effective value.
fn show(name: &str, out: &Output) -> Result<Outcome, Fault> {
    let protocol = Registry.find(name, &[])?;
    out.text(&format!("# {}", protocol.describe()));
    if let Some(sequence) = &protocol.file.sequence {
        for line in sequence.in_words(&planned(&protocol)?) {
            out.text(&format!("# {line}"));
        }
    }
    out.text(protocol.effective_text()?.trim_end());
    out.json(&protocol.file)?;
    Ok(Outcome::Done)
}

/// A sequence as the errors of this room: what the protocol's check would have said.
fn refused(protocol: &Protocol) -> impl Fn(crate::sequence::SequenceError) -> Fault + '_ {
    |e| {
        ProtocolError::Key {
            protocol: protocol.name.clone(),
            key: "sequence".to_owned(),
            message: e.to_string(),
        }
        .into()
    }
}

fn planned(protocol: &Protocol) -> Result<Timing, Fault> {
    Timing::plan(protocol.sequence()?).map_err(refused(protocol))
}

/// The protocols of an exam, or the one of that name.
fn parts(name: &str, set: &[String]) -> Result<Vec<Protocol>, Fault> {
    let names = Registry
        .exams()?
        .remove(name)
        .map_or_else(|| vec![name.to_owned()], |exam| exam.protocols);
    Ok(names
        .iter()
        .map(|n| Registry.find(n, set))
        .collect::<Result<_, _>>()?)
}

/// `3:30` of 210 s.
fn minutes(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    format!("{}:{:02}", whole / 60, whole % 60)
}

/// Noise amplification of a protocol's parallel imaging, and where it comes from.
#[derive(Clone, Debug, serde::Serialize)]
struct Gfactor {
    /// Mean over the body in the middle slice.
    mean: f64,
    /// What 95 of 100 places of it do not exceed.
    p95: f64,
    source: String,
}

impl Gfactor {
    /// Mean and 95th percentile of what is above 0.
    fn of(g: impl IntoIterator<Item = f32>, source: String) -> Self {
        let mut g: Vec<f32> = g
            .into_iter()
            .filter(|g| *g > 0.0 && g.is_finite())
            .collect();
        g.sort_by(f32::total_cmp);
        let n = g.len().max(1);
        Self {
            mean: g.iter().map(|g| f64::from(*g)).sum::<f64>() / n as f64,
            p95: f64::from(g.get(n * 95 / 100).copied().unwrap_or(1.0)),
            source,
        }
    }

    fn given(value: f64) -> Self {
        Self {
            mean: value,
            p95: value,
            source: "as given".to_owned(),
        }
    }
}

/// Pixels along read of the slice that is reconstructed for its g-factor: the middle of k-space, where weights are
/// calibrated, is the protocol's own, and along phase so is everything.
const GFACTOR_READ: usize = 128;

/// By the simulator's standard array on the patient of seed 1: of a slice as the protocol reconstructs it. Slabs would take
/// minutes: theirs is that of ideal unfolding, which is the least that any method has.
fn gfactor(protocol: &Protocol) -> Result<Gfactor, Fault> {
    let s = protocol.sequence()?;
    if s.acceleration.pe1 * s.acceleration.pe2 <= 1 {
        return Ok(Gfactor {
            source: "not accelerated".to_owned(),
            ..Gfactor::given(1.0)
        });
    }
    let patient = Patient::draw(&Request {
        region: s.region,
        seed: 1,
        ..Request::default()
    })?;
    let subject = Subject::new(patient, s.field_strength_t);
    let read = s.matrix[0].min(GFACTOR_READ);
    // Coils and pattern do not depend on how many slices and how fine; a sample lasts as long as it did.
    let coarse = SequenceParams {
        n_slices: 1,
        concatenations: 1,
        matrix: [read, s.matrix[1]],
        bandwidth_hz_per_pixel: s.bandwidth_hz_per_pixel * s.matrix[0] as f64 / read as f64,
        ..s.clone()
    };
    let params = AcquireParams {
        n_depths: 1,
        motion: MotionParams::none(),
        ..AcquireParams::default()
    };
    let scan = Scan::plan(&subject, &coarse, &params, &protocol.name)?;
    let ideal = scan.gfactor([64, 64]);
    let on = "standard array of 16 coils, patient of seed 1";
    if s.is_3d() {
        return Ok(Gfactor::of(
            ideal,
            format!("ideal unfolding (SENSE), not of the protocol's own method; {on}"),
        ));
    }
    let write = |e: ismrmrd::Error| Fault::new(FaultKind::Io, "ismrmrd", e.to_string());
    let folder = tempfile::tempdir().map_err(|e| {
        Fault::new(
            FaultKind::Io,
            "cli",
            format!("cannot make a folder for the simulated slice: {e}"),
        )
    })?;
    let path = folder.path().join("slice.h5");
    let mut writer = ismrmrd::file::Writer::create(&path, "dataset").map_err(write)?;
    writer.header(&scan.header()).map_err(write)?;
    scan.run(false, |a| writer.acquisition(&a).map_err(write))?;
    writer.finish().map_err(write)?;
    let mut own = protocol.clone();
    own.file.recon.outputs.gfactor = true;
    let finished = recon_file(&FileJob {
        input: &path,
        options: OpenOptions::default(),
        noise: None,
        protocol: &own,
        threads: None,
        watch: &Unwatched,
    })?;
    let found = finished.images.first().and_then(|image| {
        let [nx, ny, _] = image.geometry.matrix;
        let body = |i: usize| ideal[(i / nx * 64 / ny) * 64 + i % nx * 64 / nx] > 0.0;
        let g = image.gfactor.as_ref()?.iter().take(nx * ny).enumerate();
        Some(
            g.filter(|(i, _)| body(*i))
                .map(|(_, g)| *g)
                .collect::<Vec<f32>>(),
        )
    });
    let method = protocol.file.recon.method.name();
    found.map_or_else(
        || {
            Ok(Gfactor::of(
                ideal.iter().copied(),
                format!("ideal unfolding (SENSE): {method} says none of its own; {on}"),
            ))
        },
        |g| {
            Ok(Gfactor::of(
                g,
                format!("a simulated slice as the protocol reconstructs it ({method}); {on}"),
            ))
        },
    )
}

fn time(
    names: &[String],
    set: &[String],
    given: Option<f64>,
    out: &Output,
) -> Result<Outcome, Fault> {
    let (mut rows, mut json, mut total_s) = (Vec::new(), Vec::new(), 0.0);
    let mut sources: Vec<(String, Vec<String>)> = Vec::new();
    for name in names {
        for protocol in parts(name, set)? {
            let t = planned(&protocol)?;
            let g = match given {
                Some(g) => Gfactor::given(g),
                None => gfactor(&protocol)?,
            };
            match sources.iter_mut().find(|s| s.0 == g.source) {
                Some(s) => s.1.push(protocol.name.clone()),
                None => sources.push((g.source.clone(), vec![protocol.name.clone()])),
            }
            rows.push(vec![
                protocol.name.clone(),
                minutes(t.scan_s),
                format!("{:.1}", t.scan_s),
                t.n_lines.to_string(),
                t.n_shots.to_string(),
                t.concatenations.to_string(),
                format!("{} of {}", t.slices_per_concatenation, t.slices_fitting),
                format!("{:.2} ({:.2})", g.mean, g.p95),
            ]);
            total_s += t.scan_s;
            json.push(serde_json::json!({ "name": protocol.name, "timing": t, "gfactor": g }));
        }
    }
    if rows.len() > 1 {
        let mut last = vec!["all".to_owned(), minutes(total_s), format!("{total_s:.1}")];
        last.resize(8, String::new());
        rows.push(last);
    }
    let head = [
        "protocol",
        "min:s",
        "s",
        "lines",
        "shots",
        "concatenations",
        "slices per TR",
        "g (95 %)",
    ];
    out.text(&table(&head, &rows));
    out.text("g: mean over the body in the middle slice, and what 95 of 100 places do not exceed.");
    for (source, names) in &sources {
        out.text(&format!("g of {}: {source}", names.join(", ")));
    }
    out.json(&serde_json::json!({ "protocols": json, "total_s": total_s }))?;
    Ok(Outcome::Done)
}

fn compare(a: &str, b: &str, given: Option<&[f64]>, out: &Output) -> Result<Outcome, Fault> {
    let (of_a, of_b) = (parts(a, &[])?, parts(b, &[])?);
    let total = |of: &[Protocol]| -> Result<f64, Fault> {
        of.iter().map(|p| planned(p).map(|t| t.scan_s)).sum()
    };
    let seconds = [total(&of_a)?, total(&of_b)?];
    let saving = 1.0 - seconds[1] / seconds[0];
    let mut rows = vec![vec![
        "time".to_owned(),
        minutes(seconds[0]),
        minutes(seconds[1]),
        format!("{:+.1} %", -100.0 * saving),
    ]];
    let ([one], [other]) = (&of_a[..], &of_b[..]) else {
        out.text(&table(&["", a, b, "B against A"], &rows));
        out.json(&serde_json::json!({ "a": a, "b": b, "scan_s": seconds, "saving": saving }))?;
        return Ok(Outcome::Done);
    };
    let g = |i: usize, p: &Protocol| match given.and_then(|g| g.get(i)) {
        Some(g) => Ok(Gfactor::given(*g)),
        None => gfactor(p),
    };
    let g = [g(0, one)?, g(1, other)?];
    // What regularisation takes from the noise it takes from the signal too: no SNR is gained.
    let is_given = given.is_some();
    let worth = |p: &Protocol, g: f64| -> Result<Worth, Fault> {
        let g = if is_given { g } else { g.max(1.0) };
        Worth::plan(p.sequence()?, g).map_err(refused(p))
    };
    let (one, other) = (worth(one, g[0].mean)?, worth(other, g[1].mean)?);
    let mut row = |name: String, x: f64, y: f64, digits: usize| {
        rows.push(vec![
            name,
            format!("{x:.digits$}"),
            format!("{y:.digits$}"),
            format!("x {:.2}", y / x),
        ]);
    };
    for (axis, name) in ["read", "phase", "slice"].iter().enumerate() {
        row(
            format!("pixel, {name} (mm)"),
            one.pixel_mm[axis],
            other.pixel_mm[axis],
            2,
        );
    }
    row(
        "load of the pulses (per s)".to_owned(),
        one.pulse_load_per_s,
        other.pulse_load_per_s,
        1,
    );
    row(
        "g-factor, mean over the body".to_owned(),
        g[0].mean,
        g[1].mean,
        2,
    );
    row(
        "g-factor, 95 % of it below".to_owned(),
        g[0].p95,
        g[1].p95,
        2,
    );
    let mut tissues = Vec::new();
    for (x, y) in one.tissues.iter().zip(&other.tissues) {
        let ratio = y.snr / x.snr;
        row(format!("SNR, {}", x.name), x.snr, y.snr, 3);
        row(
            format!("width along phase, {} (mm)", x.name),
            x.width_mm,
            y.width_mm,
            2,
        );
        tissues.push(serde_json::json!({
            "tissue": x.name, "snr_ratio": ratio, "snr_to_win_back": 1.0 / ratio - 1.0,
            "width_mm": [x.width_mm, y.width_mm], "signal": [x.signal, y.signal],
        }));
    }
    out.text(&table(&["", a, b, "B against A"], &rows));
    out.text(&format!(
        "g-factor of A: {}; of B: {}",
        g[0].source, g[1].source
    ));
    if !is_given && g.iter().any(|g| g.mean < 1.0) {
        out.text("A g-factor below 1 is regularisation's, which takes signal with the noise: SNR counts it as 1.");
    }
    let cord = one.tissue("cord").zip(other.tissue("cord"));
    if let Some((x, y)) = cord {
        out.text(&format!(
            "B's SNR in the cord must grow by {:.0} % to be A's; its time alone would ask for {:.0} %.",
            100.0 * (x.snr / y.snr - 1.0),
            100.0 * snr_to_win_back(saving)
        ));
    }
    out.json(&serde_json::json!({
        "a": { "name": a, "worth": one }, "b": { "name": b, "worth": other },
        "gfactor": g, "saving": saving, "snr_to_win_back_of_time": snr_to_win_back(saving), "tissues": tissues,
    }))?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gfactor_is_that_of_the_protocols_own_method() {
        let of = |name: &str, set: &[&str]| {
            let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
            gfactor(&Registry.find(name, &set).unwrap()).unwrap()
        };
        let grappa = of("lumbar_sag_t1_fast", &[]);
        assert!(grappa.source.contains("(grappa)"), "{}", grappa.source);
        assert!(
            (1.0..1.6).contains(&grappa.mean) && grappa.p95 > grappa.mean,
            "{grappa:?}"
        );
        let sense = of("lumbar_sag_t1_fast", &["recon.method=\"sense\""]);
        assert!(sense.source.contains("(sense)"), "{}", sense.source);
        assert!(
            (sense.mean - grappa.mean).abs() > 1e-3,
            "{sense:?} {grappa:?}"
        );
        let slab = of("lumbar_3d_t2_fast", &[]);
        assert!(
            slab.source.contains("not of the protocol's own method"),
            "{}",
            slab.source
        );
        let plain = of("lumbar_sag_t2_standard", &[]);
        assert_eq!((plain.mean, plain.p95), (1.0, 1.0));
    }
}
