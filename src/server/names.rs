//! What a peer's configuration means here: a protocol by name, never by path, never by guess.

use ismrmrd::wire::Config;

use crate::data::{Fault, FaultKind, Note};
use crate::protocol::{Protocol, Registry};

/// A chain of another server that has an equivalent here.
struct Known {
    name: &'static str,
    protocol: &'static str,
    overlays: &'static [&'static str],
}

const GRAPPA: &str = "recon.method=grappa";

/// Names under which clients ask for the standard Cartesian cases.
///
/// # Source
/// Gadgetron `gadgets/mri_core/config/*.xml`; python-ismrmrd-server `simplefft.py`.
const KNOWN: &[Known] = &[
    known("default.xml", &[]),
    known("default_optimized.xml", &[]),
    // The noise scan in front of an examination: its covariance is kept, there are no images.
    known("default_measurement_dependencies.xml", &[]),
    known("Generic_Cartesian_FFT.xml", &["recon.method=fft"]),
    known(
        "simplefft",
        &["recon.method=fft", "recon.combine.method=rss"],
    ),
    known("Generic_Cartesian_Grappa.xml", &[GRAPPA]),
    known("Generic_Cartesian_Grappa_T2W.xml", &[GRAPPA]),
    known("Generic_Cartesian_Grappa_RealTimeCine.xml", &[GRAPPA]),
    known(
        "Generic_Cartesian_Grappa_Complex.xml",
        &[GRAPPA, "handoff.quantities=[\"complex\"]"],
    ),
    known(
        "Generic_Cartesian_Grappa_SNR.xml",
        &[
            GRAPPA,
            "handoff.quantities=[\"magnitude\", \"gfactor\", \"snr\"]",
        ],
    ),
];

const fn known(name: &'static str, overlays: &'static [&'static str]) -> Known {
    Known {
        name,
        protocol: "recon_only",
        overlays,
    }
}

/// Configurations that ask nothing of a scan: is anybody there, what are you.
const NO_SCAN: [&str; 2] = ["isalive.xml", "gtquery.xml"];

/// Longest overlay text that a peer may send; all keys of the schema take less than a tenth.
const MAX_OVERLAY_BYTES: usize = 256 << 10;

/// What was chosen.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// The protocol in force.
    pub(super) protocol: Protocol,
    /// Marks for every image.
    pub(super) notes: Vec<Note>,
    /// The configuration only asks whether we are there.
    pub(super) is_probe: bool,
}

/// Chooses by what the peer sent; `default` is for peers that send nothing.
///
/// # Errors
/// The name is unknown: there is no default for it. The text is no overlay, or a key of it is refused.
pub(super) fn choose(config: Option<&Config>, default: &str) -> Result<Choice, Fault> {
    let plain = |protocol| Choice {
        protocol,
        notes: Vec::new(),
        is_probe: false,
    };
    match config {
        None => {
            let protocol = Registry.find_shipped(default, &[])?;
            let note = Note::new(
                "default_protocol",
                format!(
                    "the client sent no configuration: protocol {default}, the server's default"
                ),
            );
            Ok(Choice {
                notes: vec![note],
                ..plain(protocol)
            })
        }
        Some(Config::Name(name)) => {
            if NO_SCAN.contains(&name.as_str()) {
                let protocol = Registry.find_shipped(default, &[])?;
                return Ok(Choice {
                    is_probe: true,
                    ..plain(protocol)
                });
            }
            if let Some(k) = KNOWN.iter().find(|k| k.name == name) {
                let overlays: Vec<String> = k.overlays.iter().map(|o| (*o).to_owned()).collect();
                let protocol = Registry.find_shipped(k.protocol, &overlays)?;
                let note = Note::new(
                    "equivalent_protocol",
                    format!(
                        "the client asked for {name}: its equivalent here is {}; numbers differ from the original's",
                        protocol.describe()
                    ),
                );
                return Ok(Choice {
                    notes: vec![note],
                    ..plain(protocol)
                });
            }
            Ok(plain(Registry.find_shipped(name, &[]).map_err(|e| {
                let mut fault = Fault::from(e);
                let names: Vec<&str> = KNOWN.iter().map(|k| k.name).collect();
                fault.message = format!(
                    "the client asked for the configuration {name:?}, which is not known here; there are: {}; and as \
                     equivalents of Gadgetron's chains: {}",
                    Registry.shipped().iter().map(|s| s.name).collect::<Vec<_>>().join(", "),
                    names.join(", ")
                );
                fault
            })?))
        }
        Some(Config::Text(text)) => overlay(text, default),
    }
}

/// A TOML text laid over a protocol: `protocol = "name"` says which, else the server's default.
fn overlay(text: &str, default: &str) -> Result<Choice, Fault> {
    let wrong = |message: String| Fault::new(FaultKind::Protocol, "server", message);
    if text.len() > MAX_OVERLAY_BYTES {
        return Err(wrong(format!(
            "the configuration text has {} bytes, allowed are {MAX_OVERLAY_BYTES}",
            text.len()
        )));
    }
    if text.trim_start().starts_with('<') {
        return Err(wrong(
            "the configuration text is XML, a chain of another server; send its name instead (for example \
             Generic_Cartesian_Grappa.xml), or TOML keys of a protocol"
                .into(),
        ));
    }
    let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        let words = e.message().split_whitespace().collect::<Vec<_>>().join(" ");
        wrong(format!("the configuration text is not TOML: {words}"))
    })?;
    let base = match table.remove("protocol") {
        None => default.to_owned(),
        Some(toml::Value::String(name)) => name,
        Some(other) => {
            return Err(wrong(format!(
                "the configuration text has protocol = {other}, needed: a name in quotation marks"
            )));
        }
    };
    let mut overlays = Vec::new();
    flatten("", &table, &mut overlays);
    if let Some(one) = overlays.iter().find(|o| names_a_network_by_path(o)) {
        return Err(wrong(format!(
            "the configuration text has {one}: a client chooses among the networks that ship, by name, never among files of the server"
        )));
    }
    let protocol = Registry.find_shipped(&base, &overlays)?;
    let note = Note::new(
        "client_overlay",
        format!(
            "the client laid {} keys over protocol {base}",
            overlays.len()
        ),
    );
    Ok(Choice {
        protocol,
        notes: vec![note],
        is_probe: false,
    })
}

/// Whether an overlay, `key=value`, chooses a network (`model`, `fs_model`, ...) by what is no plain name: a manifest decides which
/// program of libtorch is run, and that is for who keeps the server.
fn names_a_network_by_path(overlay: &str) -> bool {
    let (key, value) = overlay.split_once('=').unwrap_or((overlay, ""));
    let is_network = key.rsplit('.').next().is_some_and(|k| k.ends_with("model"));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    is_network && !value.trim_matches('"').chars().all(is_name)
}

/// `[a] b = 1` as `a.b=1`.
fn flatten(before: &str, table: &toml::Table, out: &mut Vec<String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => flatten(&format!("{before}{key}."), inner, out),
            value => out.push(format!("{before}{key}={value}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_name(name: &str) -> Result<Choice, Fault> {
        choose(Some(&Config::Name(name.into())), "default")
    }

    fn by_text(text: &str) -> Result<Choice, Fault> {
        choose(Some(&Config::Text(text.into())), "default")
    }

    #[test]
    fn every_equivalent_is_a_protocol() {
        for known in KNOWN {
            let choice = by_name(known.name).unwrap();
            assert_eq!(choice.protocol.name, "recon_only");
            assert!(choice.notes[0].text.contains(known.name));
        }
        for shipped in Registry.shipped() {
            assert_eq!(by_name(shipped.name).unwrap().protocol.name, shipped.name);
        }
        assert!(by_name("isalive.xml").unwrap().is_probe);
        let choice = choose(None, "recon_only").unwrap();
        assert_eq!(choice.protocol.name, "recon_only");
        assert_eq!(choice.notes[0].code, "default_protocol");
    }

    #[test]
    fn no_name_is_a_path_and_none_is_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.toml");
        std::fs::write(&path, Registry.shipped()[0].text).unwrap();
        for name in [
            path.to_str().unwrap(),
            "../protocols/default.toml",
            "protocols/default.toml",
            "/etc/passwd",
            "default.toml",
            "defualt",
            "DEFAULT",
            "",
            "Generic_Cartesian_Grappa",
        ] {
            let fault = by_name(name).unwrap_err();
            assert_eq!(fault.kind, FaultKind::Protocol, "{name}");
            assert!(
                fault.message.contains("not known here"),
                "{}",
                fault.message
            );
        }
        assert!(by_text("protocol = \"/etc/passwd\"").is_err());
    }

    #[test]
    fn texts_are_overlays() {
        let choice = by_text("protocol = \"recon_only\"\n[recon]\nmethod = \"fft\"\n").unwrap();
        assert_eq!(choice.protocol.name, "recon_only");
        assert_eq!(choice.protocol.overlays, ["recon.method=\"fft\""]);
        assert!(by_text("").unwrap().protocol.overlays.is_empty());
        by_text("[recon.unrolled]\nmodel = \"denoiser\"\n").unwrap();
        for (text, word) in [
            (
                "<?xml version=\"1.0\"?><gadgetronStreamConfiguration/>",
                "XML",
            ),
            ("no toml at all", "not TOML"),
            ("[recon]\nmethud = 1", "recon.methud"),
            ("protocol = 3", "needed: a name"),
            ("[denoise]\nmodel = \"/etc/model.toml\"", "denoise.model"),
            ("recon.unrolled.model = 'mine.toml'", "networks that ship"),
            ("[synth]\nct_model = \"..\\\\x.toml\"", "synth.ct_model"),
        ] {
            let fault = by_text(text).unwrap_err();
            assert!(fault.message.contains(word), "{}", fault.message);
        }
    }
}
