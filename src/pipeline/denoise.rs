//! Between the reconstruction and the sink: every image meets its neighbouring slices and loses its noise, in order.
//!
//! A network looks at the slices beside. An image waits for those that the header announces until they are there, are known
//! to be lost, the source has ended, the protocol's patience (live scans) or the memory for waiting images is used up; then it
//! goes on with what there is. Whatever fails, the plain image goes out, marked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use num_complex::Complex32;

use crate::data::{Fault, FaultKind, FrameKey, Geometry, Note, ReconImage, Scan, Stamp};
use crate::denoise::{Beside, Denoise, DenoiseParams};

use super::chain::Settings;
use super::guard::border;

/// What leaves: an image with its marks, and its time from the batch that completed its frame.
pub(super) type Leaving = (Box<ReconImage>, Stamp, Duration);

/// The stage.
pub(super) struct Stage<'a> {
    settings: &'a Settings<'a>,
    work: Work,
    /// Slices by encoding.
    n_slices: Vec<u16>,
    held: VecDeque<Held>,
    /// Images as measured, for their neighbours.
    plain: BTreeMap<FrameKey, Plain>,
    lost: BTreeSet<FrameKey>,
    held_bytes: u64,
    limit_bytes: u64,
    /// How long an image of a live scan waits.
    patience: Option<Duration>,
    has_ended: bool,
}

enum Work {
    /// The protocol asks for none.
    None,
    /// It asks for one that cannot be had.
    Failed(String),
    Network(Denoise),
}

struct Held {
    image: Box<ReconImage>,
    stamp: Stamp,
    completed: Instant,
    latency: Duration,
    since: Instant,
    is_done: bool,
}

/// The planes that neighbours see, the first and the last.
struct Plain {
    first: Arc<[Complex32]>,
    last: Arc<[Complex32]>,
    geometry: Geometry,
    /// How many images still look at it.
    n_users: usize,
}

impl<'a> Stage<'a> {
    /// Loads the network, unless the protocol asks for none.
    pub(super) fn new(scan: &Scan, settings: &'a Settings<'a>) -> Self {
        let params = settings
            .protocol
            .file
            .denoise
            .as_ref()
            .filter(|p| p.strength > 0.0);
        let work = params.map_or(Work::None, |p| {
            let loaded = settings
                .clock
                .time("denoise", || border("denoise", || load(p, settings)));
            loaded.map_or_else(|f| Work::Failed(f.message), Work::Network)
        });
        let slices = |e: &ismrmrd::header::Encoding| {
            let last = e.encoding_limits.slice.map_or(0, |l| l.maximum);
            u16::try_from(last.saturating_add(1)).unwrap_or(u16::MAX)
        };
        Self {
            settings,
            work,
            n_slices: scan.header.encoding.iter().map(slices).collect(),
            held: VecDeque::new(),
            plain: BTreeMap::new(),
            lost: BTreeSet::new(),
            held_bytes: 0,
            limit_bytes: settings.device.memory_bytes / 8,
            patience: params
                .filter(|_| settings.is_live)
                .map(|p| Duration::from_secs_f32(p.wait_s)),
            has_ended: false,
        }
    }

    /// An image, in the order in which images are to leave.
    pub(super) fn push(
        &mut self,
        image: Box<ReconImage>,
        stamp: Stamp,
        (completed, latency): (Instant, Duration),
    ) {
        let key = image.key;
        let wants = matches!(&self.work, Work::Network(d) if d.wants_neighbours());
        if wants {
            let n = image.geometry.matrix[0] * image.geometry.matrix[1];
            let mut planes = image.voxels.chunks_exact(n.max(1));
            let first: Arc<[Complex32]> = planes.next().unwrap_or(&[]).into();
            let last = planes.last().map_or_else(|| Arc::clone(&first), Into::into);
            let plain = Plain {
                first,
                last,
                geometry: image.geometry,
                n_users: 1 + self.beside(&key).filter(|k| !self.lost.contains(k)).count(),
            };
            self.held_bytes += plain.bytes();
            self.plain.insert(key, plain);
        }
        self.held_bytes += bytes(&image);
        self.held.push_back(Held {
            image,
            stamp,
            completed,
            latency,
            since: Instant::now(),
            is_done: false,
        });
    }

    /// A frame that gives no image.
    pub(super) fn lost(&mut self, key: FrameKey) {
        if matches!(self.work, Work::Network(_)) {
            self.lost.insert(key);
            self.release(self.beside(&key).collect());
        }
    }

    /// The source has ended: nothing waits any more.
    pub(super) fn end(&mut self) {
        self.has_ended = true;
    }

    /// How long until an image has waited enough.
    pub(super) fn patience(&self) -> Option<Duration> {
        let oldest = self
            .held
            .iter()
            .filter(|h| !h.is_done)
            .map(|h| h.since)
            .min()?;
        Some(self.patience?.saturating_sub(oldest.elapsed()))
    }

    /// Works on every image that need not wait longer, and returns the next one in order if it is done.
    pub(super) fn next(&mut self) -> Option<Leaving> {
        for i in 0..self.held.len() {
            let is_forced = self.held_bytes > self.limit_bytes && i == 0;
            if !self.held[i].is_done && (is_forced || self.is_ready(&self.held[i])) {
                self.denoise(i);
            }
        }
        if !self.held.front()?.is_done {
            return None;
        }
        let held = self.held.pop_front()?;
        self.held_bytes = self.held_bytes.saturating_sub(bytes(&held.image));
        // Planes whose neighbours never came.
        if self.held.is_empty() && self.held_bytes > self.limit_bytes {
            self.plain.clear();
            self.held_bytes = 0;
        }
        Some((held.image, held.stamp, held.latency))
    }

    fn before(&self, key: &FrameKey) -> Option<FrameKey> {
        let slice_idx = key.slice_idx.checked_sub(1)?;
        Some(FrameKey { slice_idx, ..*key })
    }

    fn after(&self, key: &FrameKey) -> Option<FrameKey> {
        let n = self
            .n_slices
            .get(usize::from(key.encoding_idx))
            .copied()
            .unwrap_or(1);
        let slice_idx = key.slice_idx.checked_add(1).filter(|s| *s < n)?;
        Some(FrameKey { slice_idx, ..*key })
    }

    /// The slices beside one, as far as the header announces them.
    fn beside(&self, key: &FrameKey) -> impl Iterator<Item = FrameKey> + use<> {
        [self.before(key), self.after(key)].into_iter().flatten()
    }

    /// Planes of these images have one user less.
    fn release(&mut self, keys: Vec<FrameKey>) {
        for k in keys {
            let Some(plain) = self.plain.get_mut(&k) else {
                continue;
            };
            plain.n_users = plain.n_users.saturating_sub(1);
            if plain.n_users == 0 {
                self.held_bytes = self.held_bytes.saturating_sub(plain.bytes());
                self.plain.remove(&k);
            }
        }
    }

    fn is_ready(&self, held: &Held) -> bool {
        let Work::Network(denoise) = &self.work else {
            return true;
        };
        if !denoise.wants_neighbours() || self.has_ended || held.image.noise_std.is_none() {
            return true;
        }
        let key = &held.image.key;
        let is_late = self.patience.is_some_and(|p| held.since.elapsed() >= p);
        is_late
            || self
                .beside(key)
                .all(|k| self.plain.contains_key(&k) || self.lost.contains(&k))
    }

    fn denoise(&mut self, i: usize) {
        let key = self.held[i].image.key;
        let (before, after) = (self.before(&key), self.after(&key));
        let beside = |k: &Option<FrameKey>| {
            let plain = self.plain.get(k.as_ref()?)?;
            is_next(&plain.geometry, &self.held[i].image.geometry).then_some(plain)
        };
        let (first, last) = (
            beside(&before).map(|p| Arc::clone(&p.last)),
            beside(&after).map(|p| Arc::clone(&p.first)),
        );
        // Of none at all the stage itself tells.
        let is_one_missing = (first.is_some() && after.is_some() && last.is_none())
            || (last.is_some() && before.is_some() && first.is_none());
        let held = &mut self.held[i];
        held.is_done = true;
        let image = &mut held.image;
        match &self.work {
            Work::None => return,
            Work::Failed(why) => image
                .provenance
                .notes
                .push(Note::new("denoise_failed", plain_goes_out(why))),
            Work::Network(denoise) => {
                let planes = Beside {
                    before: first.as_deref(),
                    after: last.as_deref(),
                };
                let settings = self.settings;
                let done = settings.clock.time("denoise", || {
                    border("denoise", || Ok(denoise.run(image, planes)?))
                });
                if done.is_ok() && is_one_missing {
                    image.provenance.notes.push(Note::new(
                        "denoised_without_neighbour",
                        "one neighbouring slice was not at hand, or lies elsewhere: the slice itself stood for it",
                    ));
                }
                if let Err(f) = done {
                    let code = if f.kind == FaultKind::Unsupported {
                        "denoise_skipped"
                    } else {
                        "denoise_failed"
                    };
                    image
                        .provenance
                        .notes
                        .push(Note::new(code, plain_goes_out(&f.message)));
                }
            }
        }
        held.stamp.denoised = Some(self.settings.now.now());
        held.latency = held.completed.elapsed();
        let grown = image
            .denoised
            .as_ref()
            .map_or(0, |d| 12 * d.sigma.len() as u64);
        self.held_bytes += grown;
        let users = std::iter::once(key).chain(self.beside(&key));
        self.release(users.collect());
    }
}

impl Plain {
    fn bytes(&self) -> u64 {
        8 * (self.first.len() + self.last.len()) as u64
    }
}

fn load(params: &DenoiseParams, settings: &Settings<'_>) -> Result<Denoise, Fault> {
    let threads = settings.device.threads;
    let model = settings
        .warm
        .model(&params.model, params.runtime, threads)?;
    Ok(Denoise::plan(params, model)?)
}

fn plain_goes_out(why: &str) -> String {
    format!(
        "not denoised, the image is as measured: {}",
        why.replace('\n', ";")
    )
}

fn bytes(image: &ReconImage) -> u64 {
    let n = image.voxels.len() as u64;
    n * (12 + if image.denoised.is_some() { 12 } else { 0 })
}

/// Whether two slices lie beside one another, whatever their numbers say.
fn is_next(a: &Geometry, b: &Geometry) -> bool {
    let dot = |p: [f32; 3], q: [f32; 3]| p[0] * q[0] + p[1] * q[1] + p[2] * q[2];
    let d = [0, 1, 2].map(|i| a.centre_mm[i] - b.centre_mm[i]);
    let pitch_mm = b.voxel_mm[2] * b.matrix[2] as f32;
    a.matrix == b.matrix
        && dot(a.read_dir, b.read_dir) > 0.99
        && dot(a.phase_dir, b.phase_dir) > 0.99
        && dot(d, b.slice_dir).abs() < 2.5 * pitch_mm
        && dot(d, b.read_dir).abs() < 0.1 * b.voxel_mm[0] * b.matrix[0] as f32
        && dot(d, b.phase_dir).abs() < 0.1 * b.voxel_mm[1] * b.matrix[1] as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{AcquisitionStamps, Intensity, Provenance};
    use crate::device::Device;
    use crate::ingest::{Ingest, IngestParams};
    use crate::metrics::{Monotonic, StageClock};
    use crate::pipeline::chain::STAGES;
    use crate::pipeline::{Unwatched, Warm};
    use crate::protocol::Registry;

    fn image(slice_idx: u16) -> Box<ReconImage> {
        let n = 64;
        let value =
            |i: usize| Complex32::new(20.0 + (i % 7) as f32 * 0.3, 5.0 - (i % 5) as f32 * 0.4);
        Box::new(ReconImage {
            key: FrameKey {
                slice_idx,
                ..FrameKey::default()
            },
            geometry: Geometry {
                matrix: [n, n, 1],
                voxel_mm: [1.0, 1.0, 4.0],
                centre_mm: [0.0, 0.0, 4.4 * f32::from(slice_idx)],
                read_dir: [1.0, 0.0, 0.0],
                phase_dir: [0.0, 1.0, 0.0],
                slice_dir: [0.0, 0.0, 1.0],
            },
            table_position_mm: [0.0; 3],
            voxels: (0..n * n).map(value).collect(),
            intensity: Intensity::WithNoise,
            noise_std: Some(vec![1.0; n * n]),
            gfactor: None,
            finer: [1.0; 3],
            denoised: None,
            synthetic: None,
            csm: None,
            stamps: AcquisitionStamps::default(),
            provenance: Provenance::default(),
        })
    }

    /// Slices of a stack of four in any order, one of them never to come; what leaves, and what is left behind.
    #[test]
    fn images_wait_for_neighbours_and_for_no_one_who_is_lost() {
        let sim = crate::phantom::Simulate {
            matrix: [16, 16, 1],
            n_slices: 4,
            n_coils: 2,
            ..crate::phantom::Simulate::preset("small").unwrap()
        };
        let header = crate::phantom::simulate(&sim).unwrap().header;
        let ingest = Ingest::plan(&header, &IngestParams::default(), None).unwrap();
        let overlay = ["denoise.model=denoiser".to_owned()];
        let protocol = Registry.find("default", &overlay).unwrap();
        let (device, warm) = (Device::detect(), Warm::once());
        let clock = StageClock::new(&STAGES);
        let settings = Settings {
            protocol: &protocol,
            device: &device,
            warm: &warm,
            watch: &Unwatched,
            clock: &clock,
            input: "test",
            notes: &[],
            now: &Monotonic,
            is_live: false,
        };
        let mut stage = Stage::new(ingest.scan(), &settings);
        let t = Instant::now();
        let stamp = Stamp {
            first_readout: t,
            last_readout: t,
            sorted: t,
            begun: t,
            reconstructed: t,
            denoised: None,
            sent: None,
        };
        let left = |stage: &mut Stage<'_>| -> Vec<(u16, bool)> {
            let mut out = Vec::new();
            while let Some((image, ..)) = stage.next() {
                let notes = &image.provenance.notes;
                assert!(image.denoised.is_some(), "{notes:?}");
                let is_short = notes.iter().any(|n| n.code == "denoised_without_neighbour");
                out.push((image.key.slice_idx, is_short));
            }
            out
        };
        let push =
            |stage: &mut Stage<'_>, slice| stage.push(image(slice), stamp, (t, Duration::ZERO));
        push(&mut stage, 1);
        push(&mut stage, 0);
        // 0 has all that it can have, but 1 goes first.
        assert_eq!(left(&mut stage), []);
        stage.lost(FrameKey {
            slice_idx: 2,
            ..FrameKey::default()
        });
        assert_eq!(left(&mut stage), [(1, true), (0, false)]);
        push(&mut stage, 3);
        assert_eq!(left(&mut stage), [(3, false)]);
        // Nothing stays in memory for the one that never came.
        assert!(
            stage.plain.is_empty() && stage.held_bytes == 0,
            "{}",
            stage.held_bytes
        );
    }
}
