//! Where the noise comes from, and whether the scan can be whitened with it.

use ismrmrd::AcquisitionHeader;

use super::noise::{self, Whitener};
use super::sort::PlacedLine;
use super::{BadCoil, Ingest, IngestError, NoiseAccumulator, NoiseError, Whiten};
use crate::data::{NoiseCovariance, Note};

impl Ingest {
    /// Covariance from the file beside the scan, else from the scan's own noise readouts, else `None`.
    pub(super) fn noise_covariance(&self) -> Result<Option<NoiseCovariance>, IngestError> {
        if let Some(given) = &self.given_noise {
            return Ok(Some(given.clone()));
        }
        if self.noise.is_empty() {
            let fits = |n: &&NoiseCovariance| self.coils.is_some_and(|c| c.0 == n.n_coils);
            return Ok(self.kept_noise.as_ref().filter(fits).cloned());
        }
        match self.noise.finish() {
            Ok(noise) => Ok(Some(noise)),
            // In `auto` the mark of `whitener` says it.
            Err(NoiseError::TooFewSamples { .. }) if self.params.whiten != Whiten::Require => {
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn whitener(&self, notes: &mut Vec<Note>) -> Result<Option<Whitener>, IngestError> {
        let p = &self.params;
        if p.whiten == Whiten::Off {
            notes.push(Note::new(
                "not_whitened",
                "ingest.whiten = \"off\": noise is not whitened, the image is in arbitrary units",
            ));
            return Ok(None);
        }
        let mut is_own = false;
        if let (Some(kept), Some((imaging, _)), true) =
            (&self.kept_noise, self.coils, self.noise.is_empty())
        {
            let (code, text) = if kept.n_coils == imaging {
                ("kept_noise", "whitened with the noise that was measured with another scan, which the header names".into())
            } else {
                let text = format!(
                    "the noise that the header names was measured with {} coils, the scan has {imaging}: it is not used",
                    kept.n_coils
                );
                ("kept_noise_does_not_fit", text)
            };
            notes.push(Note::new(code, text));
        }
        let noise = match self.noise_covariance()? {
            Some(noise) => noise,
            None if p.noise_from_edges => match self.noise_of_edges(notes)? {
                Some(noise) => {
                    is_own = true;
                    noise
                }
                None => return Ok(None),
            },
            None if p.whiten == Whiten::Require => return Err(NoiseError::Absent.into()),
            None if !self.noise.is_empty() => {
                notes.push(Note::new(
                    "noise_scan_too_short",
                    "the noise readouts are too few to estimate a covariance (8 samples per coil and coil): noise is \
                     not whitened, the image is in arbitrary units",
                ));
                return Ok(None);
            }
            None => {
                notes.push(Note::new(
                    "no_noise_scan",
                    "the scan has no noise readouts: noise is not whitened, the image is in arbitrary units",
                ));
                return Ok(None);
            }
        };
        if let Some((imaging, _)) = self.coils
            && imaging != noise.n_coils
        {
            return Err(NoiseError::CoilCount {
                noise: noise.n_coils,
                imaging,
            }
            .into());
        }
        let per_us = if is_own {
            None
        } else {
            self.noise_per_us(&noise, notes)?
        };
        let (mut whitener, dropped) = Whitener::plan(
            &noise,
            p.dead_coil == BadCoil::Drop,
            p.duplicate_coil == BadCoil::Drop,
            per_us,
        )?;
        whitener.is_own = is_own;
        for error in dropped {
            let (code, text) = match error {
                NoiseError::DeadCoil { coil } => (
                    "dead_coil_dropped",
                    format!("coil {coil} is dead (its noise is zero): left out"),
                ),
                NoiseError::NotPositiveDefinite {
                    coil,
                    like,
                    correlation,
                } => (
                    "duplicate_coil_dropped",
                    format!(
                        "coil {coil} repeats coil {like} (correlation of the noise {correlation:.6}): left out"
                    ),
                ),
                other => return Err(other.into()),
            };
            notes.push(Note::new(code, text));
        }
        Ok(Some(whitener))
    }

    /// `bandwidth ratio / noise dwell`, per microsecond. `None`, with a mark, when a dwell time is missing.
    fn noise_per_us(
        &self,
        noise: &NoiseCovariance,
        notes: &mut Vec<Note>,
    ) -> Result<Option<f64>, IngestError> {
        let p = &self.params;
        let noise_dwell = noise.dwell_us.or(p.noise_dwell_us).filter(|d| *d > 0.0);
        let has_scan_dwell = self
            .growing
            .values()
            .flat_map(|g| g.imaging.iter().chain(&g.calibration))
            .all(|l| l.dwell_us.is_some_and(|d| d > 0.0));
        let missing = match (noise_dwell, has_scan_dwell) {
            (Some(dwell), true) => return Ok(Some(self.bandwidth_ratio() / dwell)),
            (None, _) => NoiseError::MissingDwell {
                which: "noise",
                found: 0.0,
                key: "noise_dwell_us",
            },
            (_, false) => NoiseError::MissingDwell {
                which: "imaging",
                found: 0.0,
                key: "dwell_us",
            },
        };
        if p.whiten == Whiten::Require {
            return Err(missing.into());
        }
        // A note is one line.
        let missing = missing.to_string().replace("\n  try:    ", "; ");
        notes.push(Note::new(
            "no_dwell",
            format!(
                "{missing}; the coils' noise is decorrelated, but the image is in arbitrary units"
            ),
        ));
        Ok(None)
    }

    /// MRD `relativeReceiverNoiseBandwidth`; 1 (a flat receiver) when the header is silent.
    pub(super) fn bandwidth_ratio(&self) -> f64 {
        self.params
            .noise_bandwidth_ratio
            .or_else(|| {
                self.scan
                    .header
                    .acquisition_system_information
                    .as_ref()
                    .and_then(|a| a.relative_receiver_noise_bandwidth)
                    .map(f64::from)
            })
            .filter(|r| *r > 0.0 && r.is_finite())
            .unwrap_or(1.0)
    }

    /// Covariance from the outer tenth of the readout of the outer tenth of the lines.
    fn noise_of_edges(
        &self,
        notes: &mut Vec<Note>,
    ) -> Result<Option<NoiseCovariance>, IngestError> {
        let mut noise = NoiseAccumulator::new();
        let n_coils = self.coils.map_or(0, |c| c.0);
        for (key, g) in &self.growing {
            let Some(Some(e)) = self.scan.encodings.get(usize::from(key.encoding_idx)) else {
                continue;
            };
            let ro = e.grid[0];
            let mut lines: Vec<&PlacedLine> = g.imaging.iter().collect();
            let far = |l: &PlacedLine| {
                let d = |i: u32, n: usize| (f64::from(i) - (n / 2) as f64).abs() / n as f64;
                d(l.pe1, e.grid[1]).max(d(l.pe2, e.grid[2]))
            };
            lines.sort_by(|a, b| {
                far(b)
                    .total_cmp(&far(a))
                    .then((a.pe2, a.pe1, a.order).cmp(&(b.pe2, b.pe1, b.order)))
            });
            for l in lines.iter().take((lines.len() / 10).max(1)) {
                let head = AcquisitionHeader {
                    active_channels: u16::try_from(n_coils).unwrap_or(u16::MAX),
                    #[allow(clippy::cast_possible_truncation)] // a tenth of 16 bits
                    number_of_samples: (ro / 10) as u16,
                    sample_time_us: 0.0,
                    scan_counter: l.order.scan_counter,
                    ..AcquisitionHeader::default()
                };
                for edge in [
                    l.ro_range.start..(l.ro_range.start + ro / 20).min(l.ro_range.end),
                    l.ro_range.end.saturating_sub(ro / 20).max(l.ro_range.start)..l.ro_range.end,
                ] {
                    let head = AcquisitionHeader {
                        number_of_samples: u16::try_from(edge.len()).unwrap_or(u16::MAX),
                        ..head
                    };
                    noise.push_gram(&head, noise::gram(&l.samples, n_coils, edge))?;
                }
            }
        }
        match noise.finish() {
            Ok(noise) => {
                notes.push(Note::new(
                    "noise_from_edges",
                    "no noise readouts: the noise was estimated from the edges of k-space, which hold signal too; \
                     SNR comes out too low by an unknown factor",
                ));
                Ok(Some(noise))
            }
            Err(NoiseError::TooFewSamples { .. }) => {
                notes.push(Note::new(
                    "no_noise_scan",
                    "the scan has no noise readouts, and its k-space edges are too small to estimate noise from: the \
                     image is in arbitrary units",
                ));
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }
}
