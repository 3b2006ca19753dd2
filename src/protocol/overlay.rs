//! `--set key=value`: one key laid over the text of a protocol.

use super::ProtocolError;

/// Sets one dotted key. The value is read as TOML; what is not TOML is taken as a word: `recon.method=grappa` needs
/// no quotation marks.
///
/// # Errors
/// [`ProtocolError::Overlay`], [`ProtocolError::NotATable`]. Whether the key exists and the value fits is the
/// schema's business, and is checked after all overlays are applied.
pub fn apply(table: &mut toml::Table, text: &str) -> Result<(), ProtocolError> {
    let bad = || ProtocolError::Overlay {
        text: text.to_owned(),
    };
    let (key, value) = text.split_once('=').ok_or_else(bad)?;
    let parts: Vec<&str> = key.trim().split('.').map(str::trim).collect();
    if parts.iter().any(|p| p.is_empty()) {
        return Err(bad());
    }
    let Some((last, parents)) = parts.split_last() else {
        return Err(bad());
    };
    let mut here = table;
    for (depth, part) in parents.iter().enumerate() {
        let entry = here
            .entry(*part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        here = match entry {
            toml::Value::Table(t) => t,
            _ => {
                return Err(ProtocolError::NotATable {
                    key: key.trim().to_owned(),
                    parent: parts[..=depth].join("."),
                });
            }
        };
    }
    here.insert((*last).to_owned(), value_of(value.trim()));
    Ok(())
}

fn value_of(text: &str) -> toml::Value {
    format!("v = {text}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

/// A message of a parser without its line breaks.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
