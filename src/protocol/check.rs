//! Is a protocol consistent in itself, and is this scan the one it is for?

use super::{Protocol, ProtocolError, ProtocolFile};
use crate::data::Scan;

/// Checks what needs no scan.
pub(super) fn consistent(name: &str, file: &ProtocolFile) -> Result<(), ProtocolError> {
    if file.schema != 1 {
        return Err(ProtocolError::Schema {
            protocol: name.to_owned(),
            found: file.schema,
        });
    }
    let key = |key: &str, message: String| ProtocolError::Key {
        protocol: name.to_owned(),
        key: key.to_owned(),
        message,
    };
    let deadline = file.pipeline.deadline_s;
    if !(deadline.is_finite() && deadline >= 0.0) {
        return Err(key(
            "pipeline.deadline_s",
            format!("{deadline}; a number of seconds, 0 or more, is needed"),
        ));
    }
    // The rooms know the ranges of their own keys, and name the key.
    file.recon
        .check()
        .map_err(|e| key("recon", e.to_string()))?;
    if let Some(sequence) = &file.sequence {
        crate::sequence::Timing::plan(sequence).map_err(|e| {
            // The message names its key itself.
            let text = e.to_string();
            let (at, message) = text.split_once(": ").unwrap_or(("sequence", &text));
            key(at, message.to_owned())
        })?;
        let played = sequence.acceleration;
        if let Some(needed) = file.scan.acceleration
            && (needed.pe1, needed.pe2) != (played.pe1, played.pe2)
        {
            return Err(key(
                "scan.acceleration",
                format!(
                    "{}x{}, but sequence.acceleration is {}x{}; make them equal, or leave out scan.acceleration",
                    needed.pe1, needed.pe2, played.pe1, played.pe2
                ),
            ));
        }
    }
    if let Some(denoise) = &file.denoise {
        denoise.check().map_err(|e| key("denoise", e.to_string()))?;
    }
    if let Some(synth) = &file.synth {
        synth.check().map_err(|e| key("synth", e.to_string()))?;
    }
    file.handoff
        .check()
        .map_err(|e| key("handoff", e.to_string()))?;
    if let Some(d) = file.scan.dimensions
        && !(2..=3).contains(&d)
    {
        return Err(key("scan.dimensions", format!("{d}; allowed: 2, 3")));
    }
    Ok(())
}

/// Checks the `[scan]` table against a scan's header.
///
/// # Errors
/// [`ProtocolError::Scan`] names the key, what the protocol asks for and what the header says.
pub fn scan_fits(protocol: &Protocol, scan: &Scan) -> Result<(), ProtocolError> {
    let need = &protocol.file.scan;
    let refuse = |key, needed: String, found: String| ProtocolError::Scan {
        protocol: protocol.name.clone(),
        key,
        needed,
        found,
    };
    if need.trajectory.is_some()
        && let Some(i) = scan.encodings.iter().position(Option::is_none)
    {
        let found = scan.header.encoding.get(i).map_or_else(String::new, |e| {
            format!("{:?} (encoding {i})", e.trajectory)
        });
        return Err(refuse("scan.trajectory", "cartesian".to_owned(), found));
    }
    for encoding in scan.encodings.iter().flatten() {
        if let Some(a) = need.acceleration
            && encoding.acceleration != [a.pe1, a.pe2]
        {
            return Err(refuse(
                "scan.acceleration",
                format!("{}x{}", a.pe1, a.pe2),
                format!("{}x{}", encoding.acceleration[0], encoding.acceleration[1]),
            ));
        }
        if let Some(d) = need.dimensions {
            let found = if encoding.encoded.matrix[2] > 1 { 3 } else { 2 };
            if found != d {
                return Err(refuse(
                    "scan.dimensions",
                    format!("{d}D"),
                    format!("{found}D"),
                ));
            }
        }
    }
    if let Some(n) = need.min_coils
        && let Some(found) = scan
            .header
            .acquisition_system_information
            .as_ref()
            .and_then(|s| s.receiver_channels)
        && found < u32::from(n)
    {
        return Err(refuse(
            "scan.min_coils",
            format!("{n} coils or more"),
            found.to_string(),
        ));
    }
    Ok(())
}
