//! `cauda protocol list | check | explain`.

use clap::Subcommand;

use super::{Outcome, output::Output, output::table};
use crate::data::Fault;
use crate::protocol::{Protocol, Registry, explain};

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
}

impl Args {
    pub(super) fn is_json(&self) -> bool {
        match self.action {
            Action::List { json } | Action::Check { json, .. } | Action::Explain { json, .. } => {
                json
            }
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
    out.text(protocol.effective_text()?.trim_end());
    out.json(&protocol.file)?;
    Ok(Outcome::Done)
}
