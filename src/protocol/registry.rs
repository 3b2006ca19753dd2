//! Names to protocols: the shipped ones by stem, a user's own by path. No default for an unknown name.

use std::path::Path;

use super::{Protocol, ProtocolError};

/// A protocol that ships inside the binary.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// Stem of the file in `protocols/`.
    pub name: &'static str,
    /// Text.
    pub text: &'static str,
}

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(Shipped {
            name: $name,
            text: include_str!(concat!("../../protocols/", $name, ".toml")),
        }),*]
    };
}

/// Every file of `protocols/`; a test compares with the folder.
pub const SHIPPED: &[Shipped] = shipped![
    "default",
    "recon_only",
    "spine_t2_tse_r2",
    "spine_t1_tse_r2",
    "grappa_r4",
    "cg_sense",
    "lumbar_sag_t1_standard",
    "lumbar_sag_t1_fast",
    "lumbar_sag_t2_standard",
    "lumbar_sag_t2_fast",
    "lumbar_sag_stir_standard",
    "lumbar_sag_stir_fast",
    "lumbar_sag_t2fs_standard",
    "lumbar_sag_t2fs_fast",
    "lumbar_ax_t2_standard",
    "lumbar_ax_t2_fast",
    "lumbar_sag_t2_dixon",
    "lumbar_3d_t2_standard",
    "lumbar_3d_t2_fast",
    "cervical_sag_t1_standard",
    "cervical_sag_t1_fast",
    "cervical_sag_t2_standard",
    "cervical_sag_t2_fast",
    "cervical_sag_stir_standard",
    "cervical_sag_stir_fast",
    "cervical_ax_t2star_standard",
    "cervical_ax_t2star_fast",
];

/// Exams that ship inside the binary.
const EXAMS: &str = include_str!("../../protocols/exams.toml");

/// An examination: protocols, one after the other.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exam {
    /// One line for people.
    pub title: String,
    /// Names of protocols, in order.
    pub protocols: Vec<String>,
}

/// Where protocols are found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registry;

impl Registry {
    /// The shipped protocols, `default` first.
    pub fn shipped(self) -> &'static [Shipped] {
        SHIPPED
    }

    /// Names of the shipped protocols that say what the scanner plays.
    pub fn names_with_sequence(self) -> Vec<&'static str> {
        SHIPPED
            .iter()
            .filter(|s| s.text.contains("\n[sequence]\n"))
            .map(|s| s.name)
            .collect()
    }

    /// The examinations of `protocols/exams.toml`, by name.
    ///
    /// # Errors
    /// [`ProtocolError::Syntax`] if the file is broken; a test says that it is not.
    pub fn exams(self) -> Result<std::collections::BTreeMap<String, Exam>, ProtocolError> {
        toml::from_str(EXAMS).map_err(|e| ProtocolError::Syntax {
            protocol: "exams".to_owned(),
            message: super::overlay::one_line(&e.to_string()),
        })
    }

    /// Finds a shipped protocol by its stem and by nothing else: for names from the network.
    ///
    /// # Errors
    /// [`ProtocolError::Unknown`] lists the names; and whatever [`Protocol::parse`] finds.
    pub fn find_shipped(self, name: &str, overlays: &[String]) -> Result<Protocol, ProtocolError> {
        let found = SHIPPED
            .iter()
            .find(|s| s.name == name)
            .ok_or_else(|| unknown(name))?;
        Protocol::parse(found.name, found.text, overlays)
    }

    /// Finds a protocol by stem, or by path if `name` has a folder in it or ends in `.toml`.
    ///
    /// # Errors
    /// [`ProtocolError::Unknown`] lists the names; [`ProtocolError::Unreadable`]; and whatever [`Protocol::parse`] finds.
    pub fn find(self, name: &str, overlays: &[String]) -> Result<Protocol, ProtocolError> {
        if name.ends_with(".toml") || name.contains(std::path::MAIN_SEPARATOR) {
            let path = Path::new(name);
            let text = std::fs::read_to_string(path).map_err(|e| ProtocolError::Unreadable {
                reason: e.to_string(),
                path: name.to_owned(),
            })?;
            let stem = path
                .file_stem()
                .map_or_else(|| name.to_owned(), |s| s.to_string_lossy().into_owned());
            return Protocol::parse(&stem, &text, overlays);
        }
        self.find_shipped(name, overlays)
    }
}

fn unknown(name: &str) -> ProtocolError {
    ProtocolError::Unknown {
        name: name.to_owned(),
        hint: nearest(name, SHIPPED.iter().map(|s| s.name))
            .map_or_else(String::new, |n| format!("; did you mean {n}?")),
        known: SHIPPED
            .iter()
            .map(|s| s.name)
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// The closest word, if it is close enough to be a slip of the hand: at most a third of its letters differ.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|k| (distance(word, k), k))
        .filter(|(d, k)| *d <= (k.chars().count() / 3).max(1))
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// Slips between two words: letters put in, left out or replaced, neighbours exchanged (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}
