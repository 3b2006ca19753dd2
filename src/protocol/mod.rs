//! What a site chooses: TOML text in, [`Protocol`] out.
//!
//! [`schema::ProtocolFile`] is what was typed, [`Protocol`] is what it means; with a scan and a device the pipeline
//! makes a plan of it. Each room owns its parameters and their validation; this room only assembles them. Knows the
//! parameter types of the rooms, and no room's work.

pub mod check;
pub mod error;
pub mod explain;
pub mod overlay;
pub mod registry;
pub mod schema;

pub use error::ProtocolError;
pub use registry::{Exam, Registry, Shipped};
pub use schema::{DevicePrefs, OnFrameError, PipelineParams, ProtocolFile, ScanRequirements};

/// A protocol that was parsed and is consistent in itself.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// Stem of its file: `spine_t2_tse_r2`.
    pub name: String,
    /// Fingerprint of the effective text (file and overlays), a version-5 UUID: equal text, equal fingerprint.
    pub digest: String,
    /// Keys that were set on the command line.
    pub overlays: Vec<String>,
    /// What was asked for.
    pub file: ProtocolFile,
}

/// Name space of the fingerprints: any fixed UUID would do.
const DIGESTS: uuid::Uuid = uuid::Uuid::from_u128(0x6361_7564_6120_7072_6f74_6f63_6f6c_0001);

impl Protocol {
    /// Parses the text of a protocol and lays `overlays` (`recon.grappa.lambda=1e-3`) over it, in order.
    ///
    /// # Errors
    /// [`ProtocolError`] names the key, what was found and what is allowed.
    pub fn parse(name: &str, text: &str, overlays: &[String]) -> Result<Self, ProtocolError> {
        let mut table: toml::Table =
            text.parse()
                .map_err(|e: toml::de::Error| ProtocolError::Syntax {
                    protocol: name.to_owned(),
                    message: overlay::one_line(&e.to_string()),
                })?;
        for text in overlays {
            overlay::apply(&mut table, text)?;
        }
        let effective = table.to_string();
        let file = schema::from_table(name, table)?;
        check::consistent(name, &file)?;
        Ok(Self {
            name: name.to_owned(),
            digest: uuid::Uuid::new_v5(&DIGESTS, effective.as_bytes()).to_string(),
            overlays: overlays.to_vec(),
            file,
        })
    }

    /// Every key with its effective value, as TOML.
    ///
    /// # Errors
    /// [`ProtocolError::Syntax`] if a value has no form in TOML.
    pub fn effective_text(&self) -> Result<String, ProtocolError> {
        toml::to_string(&self.file).map_err(|e| ProtocolError::Syntax {
            protocol: self.name.clone(),
            message: e.to_string(),
        })
    }

    /// What the scanner plays.
    ///
    /// # Errors
    /// [`ProtocolError::NoSequence`] if the protocol is only a reconstruction.
    pub fn sequence(&self) -> Result<&crate::sequence::SequenceParams, ProtocolError> {
        self.file
            .sequence
            .as_ref()
            .ok_or_else(|| ProtocolError::NoSequence {
                protocol: self.name.clone(),
                known: Registry.names_with_sequence().join(", "),
            })
    }

    /// Name, fingerprint and overlays in one line, for the provenance of an image.
    pub fn describe(&self) -> String {
        let mut text = format!("{} ({})", self.name, self.digest);
        for overlay in &self.overlays {
            text.push_str(" --set ");
            text.push_str(overlay);
        }
        text
    }
}

#[cfg(test)]
mod tests;
