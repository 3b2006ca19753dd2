//! A scan that is still being measured: header first, then readouts as they arrive, each image away as soon as it is
//! there.

use crate::data::{Fault, NoiseCovariance, Note, Scan};
use crate::device::Device;
use crate::ingest::Ingest;
use crate::metrics::{Clock, StageClock, peak_memory_bytes};
use crate::protocol::{Protocol, check};

use super::chain::{self, STAGES, Settings, Sink, Source};
use super::guard::border;
use super::report::Report;
use super::warm::Warm;
use super::watch::Watch;

/// What to reconstruct, and how.
pub struct LiveJob<'a> {
    /// The scan's header.
    pub header: &'a ismrmrd::Header,
    /// Noise of another scan, for one without noise readouts.
    pub noise: Option<NoiseCovariance>,
    /// What the site chose.
    pub protocol: &'a Protocol,
    /// This scan's share of threads and memory.
    pub device: Device,
    /// What the scans before left.
    pub warm: &'a Warm,
    /// Who looks on.
    pub watch: &'a dyn Watch,
    /// What time it is.
    pub now: &'a dyn Clock,
    /// Where the data come from, for the provenance.
    pub input: &'a str,
    /// Marks for every image.
    pub notes: &'a [Note],
}

/// A scan that was checked and may begin.
pub struct Live<'a> {
    job: LiveJob<'a>,
    ingest: Ingest,
    clock: StageClock,
}

impl<'a> Live<'a> {
    /// Checks the header, and that protocol and scan fit, before the first readout.
    ///
    /// # Errors
    /// Those of ingest's planning and of the protocol's requirements.
    pub fn plan(mut job: LiveJob<'a>) -> Result<Self, Fault> {
        let clock = StageClock::new(&STAGES);
        let noise = job.noise.take();
        let ingest = border("ingest", || {
            let mut ingest = Ingest::plan(job.header, &job.protocol.file.ingest, None)?;
            ingest.share_lines(job.warm.lines());
            if let Some(noise) = noise {
                ingest.keep_noise(noise);
            }
            Ok(ingest)
        })?;
        check::scan_fits(job.protocol, ingest.scan())?;
        Ok(Self { job, ingest, clock })
    }

    /// The validated scan.
    pub fn scan(&self) -> &Scan {
        self.ingest.scan()
    }

    /// This scan's share of threads.
    pub fn threads(&self) -> usize {
        self.job.device.threads
    }

    /// Runs until the source ends. Frames that were complete before a fault of the source are delivered.
    ///
    /// # Errors
    /// As [`chain::run`].
    pub fn run(
        self,
        source: &mut dyn Source,
        sink: &mut Sink<'_>,
    ) -> Result<(Report, Option<NoiseCovariance>), Fault> {
        let job = &self.job;
        let settings = Settings {
            protocol: job.protocol,
            device: &job.device,
            warm: job.warm,
            watch: job.watch,
            clock: &self.clock,
            input: job.input,
            notes: job.notes,
            now: job.now,
            is_live: true,
        };
        let mut images = 0;
        let ran = chain::run(self.ingest, source, &settings, &mut |image, stamp| {
            images += 1;
            sink(image, stamp)
        })?;
        let report = Report {
            input: job.input.to_owned(),
            protocol: job.protocol.describe(),
            schedule: ran.schedule,
            readouts: ran.readouts,
            images,
            refused: ran.refused,
            n_refused: ran.n_refused,
            patterns: ran.patterns,
            steps: ran.steps,
            notes: ran.notes,
            stages: self.clock.report(),
            wall_s: self.clock.wall_s(),
            last_readout_to_image: ran.latency,
            deadline_misses: ran.deadline_misses,
            queue_high_water_bytes: ran.queue_high_water_bytes,
            peak_memory_bytes: peak_memory_bytes(),
        };
        Ok((report, ran.noise))
    }
}
