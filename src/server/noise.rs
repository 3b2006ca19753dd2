//! Noise covariances that outlive their scan: on disk, by measurement identifier, with an expiry.
//!
//! A scan that was measured with its noise leaves the covariance here; a later scan whose header names that measurement
//! as its noise dependency takes it up, unless it brings noise readouts of its own. Nothing is guessed: another number
//! of coils, another identifier or too old a file is no match, and every image says so.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ismrmrd::Header;
use num_complex::Complex64;

use crate::data::{Fault, FaultKind, NoiseCovariance, Note};

/// The identifier is the peer's words and never part of a name: its fingerprint is.
const NAMES: uuid::Uuid = uuid::Uuid::from_u128(0x6361_7564_6120_6e6f_6973_6500_0000_0001);

/// Most coils that a file may declare; the wire takes no more.
const MAX_COILS: usize = 1024;

/// A folder of covariances.
#[derive(Clone, Debug)]
pub struct NoiseStore {
    dir: PathBuf,
    lifetime: Duration,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Stored {
    schema: u32,
    measurement_id: String,
    made_unix_s: u64,
    n_coils: usize,
    n_samples: u64,
    dwell_us: Option<f64>,
    /// Row-major, real and imaginary parts in turn.
    matrix: Vec<f64>,
}

impl NoiseStore {
    /// Uses a folder that exists.
    pub fn new(dir: PathBuf, lifetime: Duration) -> Self {
        Self { dir, lifetime }
    }

    fn path(&self, measurement_id: &str) -> PathBuf {
        let name = uuid::Uuid::new_v5(&NAMES, measurement_id.as_bytes());
        self.dir.join(format!("noise-{name}.json"))
    }

    /// Keeps the covariance of a scan whose header has an identifier.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn keep(&self, header: &Header, noise: &NoiseCovariance) -> Result<(), Fault> {
        let id = header
            .measurement_information
            .as_ref()
            .and_then(|m| m.measurement_id.as_deref());
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            return Ok(());
        };
        let path = self.path(id);
        let stored = Stored {
            schema: 1,
            measurement_id: id.to_owned(),
            made_unix_s: now_s(),
            n_coils: noise.n_coils,
            n_samples: noise.n_samples,
            dwell_us: noise.dwell_us,
            matrix: noise.matrix.iter().flat_map(|z| [z.re, z.im]).collect(),
        };
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
            serde_json::to_writer(&mut file, &stored)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|e| e.error)?;
            Ok(())
        };
        write().map_err(|e| {
            Fault::new(
                FaultKind::Io,
                "server",
                format!("cannot keep the noise: {e}: {}", path.display()),
            )
        })
    }

    /// The covariance that the header's noise dependency names, and what has to be said about it.
    pub fn find(&self, header: &Header) -> (Option<NoiseCovariance>, Option<Note>) {
        let Some(id) = dependency(header) else {
            return (None, None);
        };
        let missing = |why: &str| {
            let text = format!(
                "the header names the noise of measurement {id:?}, which is not kept here ({why}): only noise readouts of \
                 the scan itself can whiten it"
            );
            (None, Some(Note::new("noise_dependency_missing", text)))
        };
        let path = self.path(id);
        let stored = match read(&path) {
            Ok(stored) if stored.measurement_id == id => stored,
            Ok(_) => return missing("another measurement has its place"),
            Err(e) => return missing(&e),
        };
        let age = Duration::from_secs(now_s().saturating_sub(stored.made_unix_s));
        if age > self.lifetime {
            return missing("it expired");
        }
        let noise = NoiseCovariance {
            n_coils: stored.n_coils,
            matrix: stored
                .matrix
                .chunks_exact(2)
                .map(|z| Complex64::new(z[0], z[1]))
                .collect(),
            n_samples: stored.n_samples,
            dwell_us: stored.dwell_us,
        };
        (Some(noise), None)
    }

    /// Removes what has expired. Returns how many.
    pub fn tidy(&self) -> usize {
        let Ok(entries) = std::fs::read_dir(&self.dir) else {
            return 0;
        };
        let mut removed = 0;
        for path in entries.flatten().map(|e| e.path()) {
            let is_ours = path
                .file_name()
                .and_then(|n| n.to_str())
                .is_some_and(|n| n.starts_with("noise-") && n.ends_with(".json"));
            let is_old = std::fs::metadata(&path)
                .and_then(|m| m.modified())
                .is_ok_and(|t| t.elapsed().is_ok_and(|age| age > self.lifetime));
            if is_ours && is_old && std::fs::remove_file(&path).is_ok() {
                removed += 1;
            }
        }
        removed
    }
}

/// Measurement that the header names as its noise.
fn dependency(header: &Header) -> Option<&str> {
    header
        .measurement_information
        .as_ref()?
        .measurement_dependency
        .iter()
        .find(|d| d.dependency_type.eq_ignore_ascii_case("noise"))
        .map(|d| d.measurement_id.as_str())
}

fn read(path: &Path) -> Result<Stored, String> {
    let text = std::fs::read(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => "it was not sent to this server".to_owned(),
        _ => e.to_string(),
    })?;
    let stored: Stored =
        serde_json::from_slice(&text).map_err(|e| format!("its file is damaged: {e}"))?;
    let n = stored.n_coils;
    if stored.schema != 1 || n == 0 || n > MAX_COILS || stored.matrix.len() != 2 * n * n {
        return Err("its file is damaged".to_owned());
    }
    Ok(stored)
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ismrmrd::header::{MeasurementDependency, MeasurementInformation};

    fn header(id: &str, noise: &str) -> Header {
        let information = MeasurementInformation {
            measurement_id: Some(id.into()),
            measurement_dependency: vec![MeasurementDependency {
                dependency_type: "Noise".into(),
                measurement_id: noise.into(),
            }],
            ..MeasurementInformation::default()
        };
        Header {
            measurement_information: Some(information),
            ..Header::default()
        }
    }

    #[test]
    fn a_noise_scan_is_found_again_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = NoiseStore::new(dir.path().to_owned(), Duration::from_secs(3600));
        let noise = NoiseCovariance {
            n_coils: 2,
            matrix: [(1.0, 0.0), (0.25, -0.5), (0.25, 0.5), (3.0, 0.0)]
                .map(|(re, im)| Complex64::new(re, im))
                .to_vec(),
            n_samples: 512,
            dwell_us: Some(5.0),
        };
        // An identifier that would be a path, were it used as one.
        store.keep(&header("../../etc/passwd", ""), &noise).unwrap();
        assert_eq!(
            store.find(&header("b", "../../etc/passwd")),
            (Some(noise.clone()), None)
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let (none, note) = store.find(&header("b", "a"));
        assert!(none.is_none() && note.unwrap().text.contains("not sent to this server"));
        assert_eq!(store.find(&Header::default()), (None, None));
        assert_eq!(store.tidy(), 0);

        let expired = NoiseStore::new(dir.path().to_owned(), Duration::ZERO);
        std::thread::sleep(Duration::from_millis(1100));
        let (none, note) = expired.find(&header("b", "../../etc/passwd"));
        assert!(none.is_none() && note.unwrap().text.contains("expired"));
        assert_eq!(expired.tidy(), 1);

        let path = store.path("a");
        for damage in [
            "",
            "{}",
            "{\"schema\": 1, \"measurement_id\": \"a\", \"made_unix_s\": 0, \"n_coils\": 9, \
                        \"n_samples\": 1, \"dwell_us\": null, \"matrix\": [1.0]}",
        ] {
            std::fs::write(&path, damage).unwrap();
            assert!(
                store
                    .find(&header("b", "a"))
                    .1
                    .unwrap()
                    .text
                    .contains("damaged")
            );
        }
    }
}
