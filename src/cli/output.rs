//! The only place that prints: results to stdout, words for people to stderr.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::data::{Fault, Note};

/// Where a command's words go.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    is_json: bool,
}

impl Output {
    /// `is_json`: results are one JSON document, and texts on stdout are left out.
    pub fn new(is_json: bool) -> Self {
        Self { is_json }
    }

    /// A result for people, on stdout; nothing under `--json`.
    pub fn text(&self, text: &str) {
        if !self.is_json {
            to_stdout(text);
        }
    }

    /// The result for machines, on stdout; nothing without `--json`. Keys are stable.
    pub fn json(&self, value: &impl serde::Serialize) -> Result<(), Fault> {
        if self.is_json {
            let text = serde_json::to_string_pretty(value).map_err(|e| {
                Fault::new(
                    crate::data::FaultKind::Bug,
                    "cli",
                    format!("a result that JSON cannot hold: {e}"),
                )
            })?;
            to_stdout(&text);
        }
        Ok(())
    }

    /// One line of JSON on stdout, for what is told before the end; nothing without `--json`.
    pub fn json_line(&self, value: &serde_json::Value) {
        if self.is_json {
            to_stdout(&value.to_string());
        }
    }

    /// Sends the log of this process to stderr.
    pub fn log(&self, least: tracing::Level, is_json: bool) {
        let builder = tracing_subscriber::fmt()
            .with_max_level(least)
            .with_ansi(false)
            .with_target(false)
            .with_writer(std::io::stderr);
        let set = if is_json {
            builder.json().flatten_event(true).try_init()
        } else {
            builder.try_init()
        };
        if let Err(e) = set {
            note(&format!("there is no log: {e}"));
        }
    }

    /// A remark for people, on stderr.
    pub fn note(&self, text: &str) {
        note(text);
    }

    /// Notes of a scan, equal ones said once, with their number.
    pub fn notes<'a>(&self, notes: impl IntoIterator<Item = &'a Note>) {
        for (text, count) in grouped(notes) {
            if count == 1 {
                note(&text);
            } else {
                note(&format!("{text} ({count} times)"));
            }
        }
    }

    /// A fault: to stderr for people, and under `--json` to stdout for machines too.
    pub fn fault(&self, fault: &Fault) {
        let mut text = fault.message.clone();
        let mut below = std::error::Error::source(fault);
        while let Some(e) = below {
            let cause = e.to_string();
            if !text.contains(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
            below = e.source();
        }
        to_stderr(&format!("error: {text}"));
        if self.is_json {
            let value = serde_json::json!({ "error": {
                "kind": format!("{:?}", fault.kind).to_lowercase(),
                "room": fault.room,
                "message": text,
                "exit_code": fault.kind.exit_code(),
            }});
            to_stdout(&value.to_string());
        }
    }

    /// A bar on stderr for `total` steps of long work; invisible without a terminal and during the first moments.
    pub fn progress(&self, what: &'static str, total: u64) -> ProgressBar {
        if !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:>12} [{bar:30}] {pos}/{len} {elapsed} {msg}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(what);
        bar.enable_steady_tick(Duration::from_millis(250));
        bar
    }
}

/// Equal notes once, in the order of their first appearance, with their number.
pub fn grouped<'a>(notes: impl IntoIterator<Item = &'a Note>) -> Vec<(String, usize)> {
    let mut out: Vec<(String, usize)> = Vec::new();
    for n in notes {
        match out.iter_mut().find(|(text, _)| *text == n.text) {
            Some((_, count)) => *count += 1,
            None => out.push((n.text.clone(), 1)),
        }
    }
    out
}

/// Columns aligned by spaces; the first column to the left, the others to the right if they look like numbers.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |i: usize| {
        rows.iter()
            .filter_map(|r| r.get(i))
            .map(|c| c.chars().count())
            .chain([head[i].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let is_number = |i: usize| {
        i > 0
            && rows
                .iter()
                .filter_map(|r| r.get(i))
                .all(|c| c.is_empty() || c.starts_with(|l: char| l.is_ascii_digit() || l == '-'))
    };
    let numeric: Vec<bool> = (0..head.len()).map(is_number).collect();
    let line = |cells: &[&str]| {
        let mut out = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let pad = " ".repeat(widths[i].saturating_sub(cell.chars().count()));
            out.push_str(if i > 0 { "  " } else { "" });
            out.push_str(&if numeric[i] {
                format!("{pad}{cell}")
            } else {
                format!("{cell}{pad}")
            });
        }
        out.trim_end().to_owned()
    };
    let mut out = vec![line(head)];
    out.extend(
        rows.iter()
            .map(|r| line(&r.iter().map(String::as_str).collect::<Vec<_>>())),
    );
    out.join("\n")
}

/// A remark for people, on stderr.
pub(super) fn note(text: &str) {
    to_stderr(&format!("note: {text}"));
}

fn to_stdout(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if let Err(e) = writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        // The reader has gone (`| head`): nobody is left to talk to. Anything else is a broken environment.
        let code = if e.kind() == std::io::ErrorKind::BrokenPipe {
            0
        } else {
            4
        };
        std::process::exit(code);
    }
}

fn to_stderr(text: &str) {
    // Nowhere is left to say that stderr is gone.
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Keeps the default panic text off the screen: every panic is caught at a border and told as a fault.
pub(super) fn quiet_panics() {
    std::panic::set_hook(Box::new(crate::pipeline::remember_panic));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_stand_right() {
        let text = table(
            &["stage", "calls", "what"],
            &[
                vec!["read".into(), "1".into(), "file".into()],
                vec!["reconstruct".into(), "120".into(), "frames".into()],
            ],
        );
        assert_eq!(
            text,
            "stage        calls  what\nread             1  file\nreconstruct    120  frames"
        );
    }

    #[test]
    fn equal_notes_are_said_once() {
        let notes = [
            Note::new("a", "one"),
            Note::new("b", "two"),
            Note::new("a", "one"),
        ];
        assert_eq!(grouped(&notes), [("one".into(), 2), ("two".into(), 1)]);
    }
}
