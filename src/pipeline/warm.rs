//! What outlives a scan: thread pools, memory of lines, networks, and what was calibrated. (Plans of transforms are kept by `num::fft` for the
//! whole process.)

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use rayon::ThreadPool;

use crate::data::{Fault, FaultKind};
use crate::ingest::LinePool;
use crate::model::{Denoiser, Model, ModelError, RuntimeKind};
use crate::recon::{Calibrations, Keep};

use super::synth::Studies;

/// Calibrations that frames of one file may share.
const FILE_BYTES: u64 = 64 << 20;

/// Most that a server keeps of them: maps of 40 slices of 320 x 320 voxels and 16 coils.
const MAX_BYTES: u64 = 512 << 20;

/// Kept by a server for all its scans; a file gets a new one.
#[derive(Debug)]
pub struct Warm {
    idle: Mutex<Idle>,
    /// More idle threads than these are let go.
    most_idle: usize,
    lines: LinePool,
    calibrations: Calibrations,
    models: Mutex<Vec<Arc<Model>>>,
    studies: Studies,
}

#[derive(Debug, Default)]
struct Idle {
    /// By number of threads.
    pools: BTreeMap<usize, Vec<Arc<ThreadPool>>>,
    threads: usize,
}

/// A pool that goes back when it is dropped.
#[derive(Debug)]
pub struct Lent<'a> {
    pool: Arc<ThreadPool>,
    to: &'a Warm,
}

impl Warm {
    /// For many scans. `most_idle`: threads that may wait for the next one; `memory_bytes`: all that there is, of which
    /// calibrations take a sixteenth at most.
    pub fn new(most_idle: usize, memory_bytes: u64) -> Self {
        Self {
            idle: Mutex::default(),
            most_idle,
            lines: LinePool::default(),
            calibrations: Calibrations::new(Keep::FirstFrames, MAX_BYTES.min(memory_bytes / 16)),
            models: Mutex::default(),
            studies: Studies::new(memory_bytes / 8),
        }
    }

    /// For one file.
    pub fn once() -> Self {
        Self {
            idle: Mutex::default(),
            most_idle: 0,
            lines: LinePool::default(),
            calibrations: Calibrations::new(Keep::References, FILE_BYTES),
            models: Mutex::default(),
            studies: Studies::new(0),
        }
    }

    /// Series that wait for the others of their study.
    pub fn studies(&self) -> &Studies {
        &self.studies
    }

    /// Memory of lines.
    pub fn lines(&self) -> LinePool {
        self.lines.clone()
    }

    /// What was calibrated.
    pub fn calibrations(&self) -> &Calibrations {
        &self.calibrations
    }

    /// A network, loaded once as long as its manifest stays the same; `threads` of one run.
    ///
    /// # Errors
    /// Those of [`Model::load`].
    pub fn model(
        &self,
        which: &str,
        kind: RuntimeKind,
        threads: usize,
    ) -> Result<Arc<Model>, ModelError> {
        let manifest = Model::describe(which)?;
        let weights = manifest.weights(kind)?;
        // Who comes second waits for the first one's load.
        let mut models = self.models.lock().unwrap_or_else(|e| e.into_inner());
        let is_it = |m: &Arc<Model>| {
            m.kind() == kind && m.threads() == threads.max(1) && *m.manifest() == manifest
        };
        if let Some(model) = models.iter().find(|m| is_it(m)) {
            return Ok(Arc::clone(model));
        }
        let model = Arc::new(Model::load(which, kind, threads)?);
        // Of one name, the last weights.
        models.retain(|m| {
            m.manifest().name != manifest.name
                || m.kind() != kind
                || m.manifest().weights(kind).is_ok_and(|w| w == weights)
        });
        models.push(Arc::clone(&model));
        Ok(model)
    }

    /// A network that is a denoiser, by ONNX Runtime, or why there is none.
    pub fn denoiser(&self, which: &str, threads: usize) -> Result<Arc<Denoiser>, ModelError> {
        let model = self.model(which, RuntimeKind::Onnx, threads)?;
        Ok(Arc::new(Denoiser::new(model)?))
    }

    /// A pool of so many threads for the use of the caller alone.
    ///
    /// # Errors
    /// [`FaultKind::Device`]: the system has no threads for us.
    pub fn pool(&self, threads: usize) -> Result<Lent<'_>, Fault> {
        let threads = threads.max(1);
        let mut idle = self.idle.lock().unwrap_or_else(|e| e.into_inner());
        let kept = idle.pools.get_mut(&threads).and_then(Vec::pop);
        if kept.is_some() {
            idle.threads -= threads;
        }
        drop(idle);
        let pool = match kept {
            Some(pool) => pool,
            None => Arc::new(start(threads)?),
        };
        Ok(Lent { pool, to: self })
    }
}

impl Deref for Lent<'_> {
    type Target = ThreadPool;

    fn deref(&self) -> &ThreadPool {
        &self.pool
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let threads = self.pool.current_num_threads();
        let mut idle = self.to.idle.lock().unwrap_or_else(|e| e.into_inner());
        if idle.threads + threads <= self.to.most_idle {
            idle.threads += threads;
            let pools = idle.pools.entry(threads).or_default();
            pools.push(Arc::clone(&self.pool));
        }
    }
}

fn start(threads: usize) -> Result<ThreadPool, Fault> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("cauda-{i}"))
        .build()
        .map_err(|e| {
            Fault::new(
                FaultKind::Device,
                "pipeline",
                format!("cannot start {threads} threads: {e}; try --threads with a smaller number"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(pool: &Lent<'_>) -> std::thread::ThreadId {
        pool.install(|| std::thread::current().id())
    }

    #[test]
    fn a_network_is_loaded_once_for_each_run_time_and_number_of_threads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.toml");
        let shipped = include_str!("../model/shipped/denoiser/model.toml");
        let script = format!(
            "\n[torchscript]\nfile = \"model.pt\"\nsha256 = \"{}\"\n\
             inputs = [\"image\", \"gfactor\", \"noise\"]\noutputs = [\"denoised\", \"sigma\"]\n",
            "0".repeat(64)
        );
        std::fs::write(&path, format!("{shipped}{script}")).unwrap();
        let weights = include_bytes!("../model/shipped/denoiser/model.onnx");
        std::fs::write(folder.path().join("model.onnx"), weights).unwrap();
        std::fs::write(folder.path().join("model.pt"), "another").unwrap();
        let which = path.to_str().unwrap();
        let warm = Warm::once();
        let first = warm.model(which, RuntimeKind::Onnx, 1).unwrap();
        let again = warm.model(which, RuntimeKind::Onnx, 1).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(
            warm.model(which, RuntimeKind::Onnx, 2).unwrap().threads(),
            2
        );
        // The other file is looked at, not the network that is there.
        let e = warm.model(which, RuntimeKind::Torch, 1).unwrap_err();
        assert!(e.to_string().contains("model.pt has the digest"), "{e}");
        // A manifest that was changed is another one.
        let version = format!("version = \"{}\"", first.manifest().version);
        std::fs::write(&path, shipped.replace(&version, "version = \"changed\"")).unwrap();
        let changed = warm.model(which, RuntimeKind::Onnx, 1).unwrap();
        assert_eq!(changed.manifest().version, "changed");
    }

    #[test]
    fn a_pool_comes_back_is_never_lent_twice_and_no_more_threads_wait_than_may() {
        let warm = Warm::new(3, 0);
        let idle = || warm.idle.lock().unwrap().threads;
        let (one, other) = (warm.pool(1).unwrap(), warm.pool(1).unwrap());
        let ids = [id(&one), id(&other)];
        assert_ne!(ids[0], ids[1]);
        drop(one);
        assert_eq!(idle(), 1);
        // Of the right size, or a new one.
        let two = warm.pool(2).unwrap();
        assert_eq!(two.current_num_threads(), 2);
        let again = warm.pool(1).unwrap();
        assert_eq!(id(&again), ids[0]);
        assert_eq!(idle(), 0);
        drop((again, two, other));
        assert_eq!(idle(), 3, "the last one had no place");
        // A panic in a pool leaves it as good as it was.
        let pool = warm.pool(2).unwrap();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.install(|| std::panic::resume_unwind(Box::new(())));
        }));
        assert!(caught.is_err());
        drop(pool);
        let pool = warm.pool(2).unwrap();
        assert_eq!(pool.install(|| 7), 7);
    }
}
