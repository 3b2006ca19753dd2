//! What came in, counted.

use std::collections::BTreeMap;

use crate::data::Note;

#[derive(Default)]
pub(super) struct Counts {
    pub(super) readouts: u64,
    pub(super) noise: u64,
    pub(super) imaging: u64,
    pub(super) calibration: u64,
    pub(super) reversed: u64,
    pub(super) skipped_lines: u64,
    pub(super) first_skipped: Option<u64>,
    pub(super) outside_limits: u64,
    pub(super) first_outside_limits: Option<(u64, u16, u16)>,
    pub(super) no_encoding: u64,
    pub(super) trajectories: u64,
    pub(super) aside: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// What came, in words.
    pub(super) fn seen(&self) -> String {
        let mut words = Vec::new();
        for (what, n) in [
            ("imaging", self.imaging),
            ("calibration only", self.calibration),
            ("noise", self.noise),
            ("reversed (turned round)", self.reversed),
            ("outside the matrix", self.skipped_lines),
            ("of encodings that are not Cartesian", self.no_encoding),
        ] {
            if n > 0 {
                words.push(format!("{n} {what}"));
            }
        }
        words.extend(
            self.aside
                .iter()
                .map(|(what, n)| format!("{n} {what} (set aside)")),
        );
        if words.is_empty() {
            words.push("no readouts at all".into());
        }
        words.join(", ")
    }

    pub(super) fn notes(&self, notes: &mut Vec<Note>) {
        if !self.aside.is_empty() {
            let text: Vec<String> = self
                .aside
                .iter()
                .map(|(what, n)| format!("{n} {what}"))
                .collect();
            notes.push(Note::new(
                "readouts_set_aside",
                format!("set aside: {}", text.join(", ")),
            ));
        }
        if let Some(first) = self.first_skipped {
            notes.push(Note::new(
                "lines_outside_skipped",
                format!(
                    "{} lines outside the encoded matrix were left out, the first in acquisition {first}",
                    self.skipped_lines
                ),
            ));
        }
        if let Some((first, pe1, pe2)) = self.first_outside_limits {
            notes.push(Note::new(
                "lines_outside_limits",
                format!(
                    "{} lines lie outside the header's encodingLimits but within the matrix, the first in acquisition \
                     {first} (counters {pe1}, {pe2}): used",
                    self.outside_limits
                ),
            ));
        }
        if self.no_encoding > 0 {
            notes.push(Note::new(
                "readouts_not_cartesian",
                format!(
                    "{} readouts belong to encodings that are not Cartesian: left out",
                    self.no_encoding
                ),
            ));
        }
        if self.trajectories > 0 {
            notes.push(Note::new(
                "trajectory_ignored",
                format!(
                    "{} readouts carry a trajectory, the header says Cartesian: the counters are used",
                    self.trajectories
                ),
            ));
        }
    }
}
