//! One frame through the planned operators.

use std::sync::Arc;

use num_complex::Complex32;
use rayon::prelude::*;

use super::acs::{self, Acs};
use super::combine::CombineMethod;
use super::combine::low_res::LowRes;
use super::compress::CompressMethod;
use super::compress::apply::Compression;
use super::error::ReconError;
use super::grappa::calibrate::{Ridge, Weights};
use super::grappa::{Apply, fill, fold, noise, unmix};
use super::known::{Known, Unfolding};
use super::params::{Method, ReconParams};
use super::partial_fourier::PartialFourierMethod;
use super::sense::{Lambda, Sense, SenseParams};
use super::tikhonov::{Outside, Wiener};
use super::{Recon, auto, interpolate, unrolled};
use crate::data::{Csm, Denoised, Frame, Intensity, KSpace, Note, Provenance, ReconImage, Step};
use crate::num::fft::{Direction, fft3};

/// Images on the grid of k-space, with the variance of their noise.
pub(crate) struct OnGrid {
    /// `[batch, z, y, x]`: one combined image, or all coils for a root sum of squares.
    pub(crate) images: Vec<Complex32>,
    /// Variance per component if the whole grid had been measured like this, `[z, y, x]`.
    pub(crate) variance: Vec<f32>,
    pub(crate) gfactor: Option<Vec<f32>>,
    pub(crate) csm: Option<Arc<Csm>>,
    pub(crate) is_rss: bool,
    /// What a network took away, and the error that is left.
    pub(crate) denoised: Option<Denoised>,
}

/// Combination weights, `[coil, z, y, x]`, and the maps that were made on the way.
type Combination = (Option<Vec<Complex32>>, Option<Arc<Csm>>);

/// To the nearest eighth of an octave.
fn eighth(v: f64) -> f64 {
    if v > 0.0 {
        ((8.0 * v.log2()).round() / 8.0).exp2()
    } else {
        v
    }
}

/// What happened to one frame, in order.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) steps: Vec<Step>,
    pub(crate) notes: Vec<Note>,
}

impl Log {
    pub(crate) fn step(&mut self, op: &str, detail: impl Into<String>) {
        self.step_on("cpu", op, detail);
    }

    pub(crate) fn step_on(&mut self, backend: &'static str, op: &str, detail: impl Into<String>) {
        self.steps.push(Step {
            op: op.into(),
            backend,
            detail: detail.into(),
        });
    }

    pub(crate) fn note(&mut self, code: &'static str, text: impl Into<String>) {
        self.notes.push(Note::new(code, text));
    }
}

impl Recon {
    /// Reconstructs `frame` with everything that is calibrated taken from `calibration` (usually the same frame).
    pub(crate) fn run_calibrated(
        &self,
        frame: &Frame,
        calibration: &Frame,
        known: Known<'_>,
    ) -> Result<ReconImage, ReconError> {
        self.check_frame(frame)?;
        let mut log = Log::default();
        log.notes.extend(frame.notes.iter().cloned());
        log.notes.extend(self.notes.iter().cloned());
        let compressed = self.compress(frame, calibration, &mut log)?;
        let (frame, calibration) = match &compressed {
            Some((frame, calibration)) => (frame, calibration.as_ref().unwrap_or(frame)),
            None => (frame, calibration),
        };
        let grid = match self.choice.method {
            Method::Grappa => self.grappa(frame, calibration, known, &mut log)?,
            Method::Fft | Method::Auto => self.fft(frame, calibration, known, &mut log)?,
            Method::Sense | Method::CgSense => self.sense(frame, calibration, known, &mut log)?,
            Method::Unrolled => self.unrolled(frame, calibration, known, &mut log)?,
        };
        self.finish(frame, grid, log)
    }

    /// Frame and calibration with virtual coils; the second is `None` when both are the same frame.
    fn compress(
        &self,
        frame: &Frame,
        calibration: &Frame,
        log: &mut Log,
    ) -> Result<Option<(Frame, Option<Frame>)>, ReconError> {
        let params = &self.params.compress;
        if params.method == CompressMethod::None || self.shape.coil == 1 {
            return Ok(None);
        }
        // More lines than these say nothing new about the coils.
        const LINES: usize = 48;
        let acs = self.acs(calibration, Some(LINES));
        if acs.samples.is_empty() {
            return Err(ReconError::Calibration {
                method: "compress",
                need: "1".into(),
                found: "0".into(),
                hint: "set `compress.method = \"none\"`".into(),
            });
        }
        let compression = Compression::new(&acs, params).map_err(|e| ReconError::Singular {
            method: "compress",
            detail: e.to_string(),
            key: "compress.energy",
        })?;
        log.step(
            "recon/compress",
            format!(
                "{:?}: {} coils to {}, {:.5} of the calibration energy",
                params.method, self.shape.coil, compression.n_virtual, compression.energy
            ),
        );
        let is_same = std::ptr::eq(frame, calibration);
        let other = (!is_same).then(|| compression.run(calibration));
        Ok(Some((compression.run(frame), other)))
    }

    fn check_frame(&self, frame: &Frame) -> Result<(), ReconError> {
        let changed = |what: String| Err(ReconError::PatternChanged { what });
        if frame.kspace.shape != self.shape {
            return changed(format!(
                "{:?} instead of {:?}",
                frame.kspace.shape, self.shape
            ));
        }
        if frame.kspace.ro_range != self.ro_range {
            return changed(format!(
                "readout samples {:?} instead of {:?}",
                frame.kspace.ro_range, self.ro_range
            ));
        }
        if frame.kspace.mask() != self.mask {
            return changed(format!("other lines; {} of them", frame.kspace.lines.len()));
        }
        let (block, _) = acs::locate(frame, self.calibration);
        if block != self.acs_block {
            return changed(format!(
                "calibration block {block:?} instead of {:?}",
                self.acs_block
            ));
        }
        Ok(())
    }

    /// The calibration block of this frame, at most `centre` lines wide around DC if given.
    fn acs(&self, frame: &Frame, centre: Option<usize>) -> Acs {
        let mut block = self.acs_block.clone();
        if let Some(centre) = centre {
            let cut = |range: &mut std::ops::Range<usize>, dc: usize| {
                *range = range.start.max(dc.saturating_sub(centre / 2))
                    ..range.end.min(dc + centre / 2 + 1);
            };
            cut(&mut block.pe2, self.shape.pe2 / 2);
            cut(&mut block.pe1, self.shape.pe1 / 2);
        }
        acs::cut(frame, &block, self.acs_origin)
    }

    fn grid(&self) -> [usize; 3] {
        [self.shape.pe2, self.shape.pe1, self.shape.ro]
    }

    /// Mean of `1 / averages` over the measured lines, times the share of the extent that they fill.
    fn line_variance(&self, kspace: &KSpace, expected: usize) -> f32 {
        let sum: f64 = kspace
            .lines
            .iter()
            .map(|l| 1.0 / f64::from(l.averages.max(1)))
            .sum();
        (sum / expected.max(1) as f64) as f32
    }

    fn fft(
        &self,
        frame: &Frame,
        calibration: &Frame,
        known: Known<'_>,
        log: &mut Log,
    ) -> Result<OnGrid, ReconError> {
        let [nz, ny, nx] = self.grid();
        let mut images = frame.kspace.to_grid();
        fft3(&mut images, nz, ny, nx, Direction::Inverse);
        log.step("recon/fft", &self.choice.reason);
        let variance = self.line_variance(&frame.kspace, self.sampling.extent.len());
        let variance = vec![variance; nz * ny * nx];
        if frame.kspace.shape.coil == 1 {
            log.step("recon/combine", "one coil: nothing to combine");
            return Ok(OnGrid {
                images,
                variance,
                gfactor: None,
                csm: None,
                is_rss: false,
                denoised: None,
            });
        }
        let (weights, csm) = self.combination(calibration, known, log)?;
        Ok(self.combined(images, weights, csm, variance, None))
    }

    /// Combination weights on the grid, `[coil, z, y, x]`; `None` for a root sum of squares.
    fn combination(
        &self,
        frame: &Frame,
        known: Known<'_>,
        log: &mut Log,
    ) -> Result<Combination, ReconError> {
        let centre = self.params.combine.centre;
        match self.params.combine.method {
            CombineMethod::Rss => {
                log.step("recon/combine", "root sum of squares, asked for");
                Ok((None, None))
            }
            CombineMethod::Csm => {
                let csm = self.maps(frame, known, log)?;
                let first = csm.n_coils * csm.matrix.iter().product::<usize>();
                let mut weights = csm.maps[..first].to_vec();
                weights.par_iter_mut().for_each(|v| *v = v.conj());
                log.step("recon/combine", "sensitivity-weighted, unit noise gain");
                Ok((Some(weights), Some(csm)))
            }
            CombineMethod::Adaptive => {
                let low = LowRes::from_acs(&self.acs(frame, Some(centre)), centre);
                log.step(
                    "recon/combine",
                    format!(
                        "adaptive: matched filter from the central {} x {} x {} samples (ro x pe1 x pe2)",
                        low.support[2], low.support[1], low.support[0]
                    ),
                );
                let csm = if self.params.outputs.csm {
                    Some(self.maps(frame, known, log)?)
                } else {
                    None
                };
                Ok((Some(low.weights(self.grid())), csm))
            }
        }
    }

    fn combined(
        &self,
        images: Vec<Complex32>,
        weights: Option<Vec<Complex32>>,
        csm: Option<Arc<Csm>>,
        variance: Vec<f32>,
        gfactor: Option<Vec<f32>>,
    ) -> OnGrid {
        let is_rss = weights.is_none();
        let images = match weights {
            Some(weights) => weighted_sum(&images, &weights, variance.len()),
            None => images,
        };
        OnGrid {
            images,
            variance,
            gfactor,
            csm,
            is_rss,
            denoised: None,
        }
    }

    fn maps(
        &self,
        calibration: &Frame,
        known: Known<'_>,
        log: &mut Log,
    ) -> Result<Arc<Csm>, ReconError> {
        let acs = self.acs(calibration, None);
        let mut backend = "cpu";
        let params = &self.params.csm;
        let csm = known.maps(&acs, self.shape, params, |block, grid| {
            let (csm, made_on) = self.make_maps(block, grid, log)?;
            backend = made_on;
            Ok(csm)
        })?;
        log.step_on(
            backend,
            "recon/csm",
            format!(
                "{:?}, {} set(s), from {} x {} lines (pe1 x pe2) of the {}",
                self.params.csm.method, csm.n_sets, acs.shape.pe1, acs.shape.pe2, acs.origin
            ),
        );
        Ok(csm)
    }

    /// What the solver is asked: no noise map where noise is unknown.
    pub(crate) fn sense_params_of(params: &ReconParams, frame: &Frame) -> SenseParams {
        SenseParams {
            noise_map: params.sense.noise_map && frame.is_whitened,
            ..params.sense.clone()
        }
    }

    fn sense(
        &self,
        frame: &Frame,
        calibration: &Frame,
        known: Known<'_>,
        log: &mut Log,
    ) -> Result<OnGrid, ReconError> {
        let Some(sense) = &self.sense else {
            return Err(ReconError::Bug("sense was chosen without a plan".into()));
        };
        let csm = self.maps(calibration, known, log)?;
        // The number of virtual coils is known only now.
        let replanned = if frame.kspace.shape == self.shape {
            None
        } else {
            Some(Sense::plan(
                &frame.kspace,
                &Self::sense_params_of(&self.params, frame),
            )?)
        };
        let sense = replanned.as_ref().unwrap_or(sense);
        let (lambda, chosen) = match self.params.sense.lambda {
            _ if self.choice.method == Method::Unrolled => (
                self.params.unrolled.start_lambda,
                format!("lambda {:e}, a start", self.params.unrolled.start_lambda),
            ),
            Lambda::Fixed(lambda) => (lambda, format!("lambda {lambda:e}, asked for")),
            Lambda::Auto => {
                let acs = self.acs(calibration, Some(self.params.combine.centre));
                let low = LowRes::from_acs(&acs, self.params.combine.centre);
                let wiener = Wiener::of(frame, &self.sampling, &low);
                (wiener.lambda, wiener.describe())
            }
        };
        let (image, backend) = self.solve(sense, &frame.kspace, &csm, lambda, log)?;
        log.step_on(
            backend,
            "recon/sense",
            format!(
                "{}; {chosen}; {} iterations, residual {:.1e}; {}",
                sense.recipe().reason,
                image.iterations,
                image.residual,
                self.choice.reason
            ),
        );
        let n: usize = self.grid().iter().product();
        let n_sets = image.voxels.len() / n.max(1);
        // The solver sees lines that were not measured as they are, and the tail multiplies with the measured share;
        // columns along the readout it takes as if every sample had been measured.
        let share = self.fill_extent.len() as f32 / (self.shape.pe2 * self.shape.pe1) as f32;
        let whole = 1.0 / share.max(f32::MIN_POSITIVE);
        let mut variance = vec![1.0; n];
        if let Some(noise) = &image.noise_std {
            // First order for several sets: noise along the vector of their voxels.
            for (i, v) in variance.iter_mut().enumerate() {
                let (mut sum, mut power) = (0.0, 0.0);
                for s in 0..n_sets {
                    let p = image.voxels[s * n + i].norm_sqr();
                    sum += p * noise[s * n + i].powi(2);
                    power += p;
                }
                let own = if power > 0.0 {
                    sum / power
                } else {
                    noise[i].powi(2)
                };
                // Where the maps are zero there is neither signal nor noise: 1 keeps the SNR there at 0.
                *v = if own > 0.0 { own * whole } else { 1.0 };
            }
        }
        Ok(OnGrid {
            images: image.voxels,
            variance,
            gfactor: image.gfactor.map(|g| {
                g[..n]
                    .iter()
                    .map(|g| if *g == 0.0 { 1.0 } else { *g })
                    .collect()
            }),
            csm: Some(csm),
            is_rss: n_sets > 1,
            denoised: None,
        })
    }

    /// SENSE, then the cascades; where these cannot be, SENSE and a mark.
    fn unrolled(
        &self,
        frame: &Frame,
        calibration: &Frame,
        known: Known<'_>,
        log: &mut Log,
    ) -> Result<OnGrid, ReconError> {
        let mut grid = self.sense(frame, calibration, known, log)?;
        let plain = |why: &str| {
            format!("no cascades, the image is that of SENSE with unrolled.start_lambda: {why}")
        };
        let network = match &self.network {
            Some(Ok(network)) => network,
            Some(Err(why)) => {
                log.note("unrolled_failed", plain(&why.replace('\n', ";")));
                return Ok(grid);
            }
            None => {
                return Err(ReconError::Bug(
                    "unrolled was chosen without a network".into(),
                ));
            }
        };
        if !frame.is_whitened || !self.params.sense.noise_map {
            log.note(
                "unrolled_skipped",
                plain("the noise of its voxels is not known; noise readouts and sense.noise_map are needed"),
            );
            return Ok(grid);
        }
        let Some(csm) = grid.csm.clone() else {
            return Err(ReconError::Bug("sense gave no maps".into()));
        };
        let (params, kspace) = (&self.params.unrolled, &frame.kspace);
        let sense = Sense::plan(kspace, &Self::sense_params_of(&self.params, frame))?;
        // As the solver had it; where the maps are zero nothing is known.
        let share = self.fill_extent.len() as f32 / (self.shape.pe2 * self.shape.pe1) as f32;
        let n = grid.variance.len();
        let noise: Vec<f32> = (grid.variance.iter().enumerate())
            .map(|(i, v)| {
                let is_seen = (0..csm.n_coils).any(|c| csm.maps[c * n + i] != Complex32::ZERO);
                if is_seen { (v * share).sqrt() } else { 0.0 }
            })
            .collect();
        let start = (grid.images.as_slice(), noise.as_slice());
        let made = unrolled::run(network, params, &sense, (kspace, &*csm), start, self.grid());
        let made = match made {
            Ok(made) => made,
            Err(e) => {
                log.note("unrolled_failed", plain(&e.to_string().replace('\n', ";")));
                return Ok(grid);
            }
        };
        let model = network.model();
        let id = model.manifest().id();
        log.step(
            "recon/unrolled",
            format!(
                "{} cascades of {id} on {} and SENSE; lines {:.3} standard deviations of their noise from the image",
                made.n_cascades,
                model.runtime(),
                made.distance
            ),
        );
        log.note(
            "denoised",
            format!(
                "by the network {id} in {} cascades; noise_std and snr are those of SENSE",
                made.n_cascades
            ),
        );
        let removed = grid
            .images
            .iter()
            .zip(&made.voxels)
            .map(|(a, b)| a - b)
            .collect();
        grid.images = made.voxels;
        grid.denoised = Some(Denoised {
            removed,
            sigma: made.sigma,
        });
        Ok(grid)
    }

    fn grappa(
        &self,
        frame: &Frame,
        calibration: &Frame,
        known: Known<'_>,
        log: &mut Log,
    ) -> Result<OnGrid, ReconError> {
        let acs = self.acs(calibration, None);
        let Some(window) = &self.window else {
            return Err(ReconError::Bug("grappa was chosen without a window".into()));
        };
        let (ridge, chosen) = self.ridge(frame, &acs);
        let said = |log: &mut Log, weights: &Weights| {
            log.step(
                "recon/grappa/calibrate",
                format!(
                    "window {} x {} (ro x lines), {} coils, {} equations from {}, lambda {:.2e}, {chosen}; {}",
                    window.ro,
                    window.sources.len(),
                    weights.n_coils,
                    weights.n_equations,
                    acs.origin,
                    weights.lambda,
                    self.choice.reason
                ),
            );
        };
        let kspace = &frame.kspace;
        if !self.unmixes_images(frame)? {
            let (weights, low) = rayon::join(
                || known.weights(&acs, window, &self.params.grappa, ridge),
                || LowRes::from_acs(&acs, self.params.combine.centre),
            );
            let (weights, _) = weights?;
            said(log, &weights);
            return self.grappa_in_kspace(frame, calibration, known, &weights, &low, log);
        }
        let asked = || Unfolding {
            window: window.clone(),
            params: self.params.grappa,
            ridge,
            centre: self.params.combine.centre,
            shape: kspace.shape,
            lines: kspace.lines.clone(),
            extent: self.fill_extent.clone(),
        };
        let (unfolded, weights, backend) = if let Some(unmixing) = known.unmixing(&acs, asked) {
            let (unfolded, backend) = self.unmix(kspace, &unmixing, log)?;
            (unfolded, Arc::clone(&unmixing.weights), backend)
        } else {
            self.note_fitted(log);
            // The fit is a chain of small steps, of which other threads make little: what does not need it goes beside
            // it.
            let (weights, (low, folded, profiles)) = rayon::join(
                || known.weights(&acs, window, &self.params.grappa, ridge),
                || {
                    let low = LowRes::from_acs(&acs, self.params.combine.centre);
                    let folded = fold::Folded::new(kspace, window.lattice);
                    let profiles = fold::Profiles::new(kspace, &low);
                    (low, folded, profiles)
                },
            );
            // Weights that come a second time come again.
            let (weights, is_known) = weights?;
            let extent = &self.fill_extent;
            let mut unfolded =
                fold::unfold(kspace, &folded, &profiles, &weights, &low, extent, is_known);
            if let Some(unmixing) = unfolded.unmixing.take() {
                known.keep_unmixing(&acs, asked(), unmixing);
            }
            (unfolded, weights, "cpu")
        };
        said(log, &weights);
        log.step_on(
            backend,
            "recon/grappa/unmix",
            "folded images unmixed and combined (adaptive) in one step, as if k-space had been filled",
        );
        let (variance, gfactor) = self.grappa_noise(frame, &weights, &unfolded.power);
        Ok(OnGrid {
            images: unfolded.voxels,
            variance,
            gfactor: Some(gfactor),
            csm: if self.params.outputs.csm {
                Some(self.maps(calibration, known, log)?)
            } else {
                None
            },
            is_rss: false,
            denoised: None,
        })
    }

    /// Regularisation of the weights, and where it comes from.
    fn ridge(&self, frame: &Frame, acs: &Acs) -> (Ridge, String) {
        match self.params.grappa.lambda {
            Lambda::Fixed(lambda) => (Ridge::Relative(f64::from(lambda)), "asked for".into()),
            Lambda::Auto => {
                let outside = Outside::of(frame, &self.sampling);
                // Within 5 %, which the weights do not feel, so that frames of a series find the same.
                let [energy, noise] = [outside.energy_per_sample(), outside.noise].map(eighth);
                let averages = self.line_variance(&frame.kspace, frame.kspace.lines.len());
                let ridge = Ridge::Wiener {
                    noise_acs: noise * acs.variance,
                    noise: noise * f64::from(averages),
                    energy,
                };
                let chosen = format!(
                    "automatic: {} over the signal energy of the lines outside the calibration block ({:.2} times the \
                     noise)",
                    outside.origin(),
                    energy / noise.max(f64::MIN_POSITIVE)
                );
                (ridge, chosen)
            }
        }
    }

    /// Whether folded images are unmixed instead of filling k-space.
    fn unmixes_images(&self, frame: &Frame) -> Result<bool, ReconError> {
        if self.params.grappa.apply == Apply::Kspace {
            return Ok(false);
        }
        let fits = self
            .choice
            .lattice
            .is_some_and(|l| fold::applies(&frame.kspace, &l))
            && self.params.combine.method == CombineMethod::Adaptive;
        if fits || self.params.grappa.apply == Apply::Auto {
            return Ok(fits);
        }
        Err(ReconError::Pattern {
            method: "grappa.apply = \"image\"",
            found: format!("{}, combination {:?}", auto::describe(&self.sampling), self.params.combine.method),
            hint: "image unmixing needs a 2D scan and `combine.method = \"adaptive\"`; set `grappa.apply = \"kspace\"`"
                .into(),
        })
    }

    fn grappa_in_kspace(
        &self,
        frame: &Frame,
        calibration: &Frame,
        known: Known<'_>,
        weights: &Weights,
        low: &LowRes,
        log: &mut Log,
    ) -> Result<OnGrid, ReconError> {
        let [nz, ny, nx] = self.grid();
        let n = nz * ny * nx;
        let mut images = fill::fill(&frame.kspace, weights, &self.fill_extent);
        log.step(
            "recon/grappa/fill",
            "in k-space; measured samples unchanged",
        );
        fft3(&mut images, nz, ny, nx, Direction::Inverse);
        let (combination, csm) = self.combination(calibration, known, log)?;
        let power = match (&combination, self.params.combine.method) {
            (Some(combination), CombineMethod::Csm) => {
                let u = unmix::unmixing(weights, combination, [nz, ny, nx]);
                unmix::sum_of_squares(&u, n)
            }
            // A root sum of squares is, to first order, the matched filter with the images themselves.
            _ => unmix::power(weights, low, [nz, ny, nx]),
        };
        let (variance, gfactor) = self.grappa_noise(frame, weights, &power);
        Ok(self.combined(images, combination, csm, variance, Some(gfactor)))
    }

    /// Variance and g-factor of the combined image.
    ///
    /// The unmixing weights give the noise of images made from lattice lines alone. Calibration lines that are
    /// measured anyway replace predicted ones, and in their band noise is that of a full measurement: the variance is
    /// the mean of both, weighted with the share of lines, and less where windows are cut at the edges of k-space.
    fn grappa_noise(
        &self,
        frame: &Frame,
        weights: &Weights,
        power: &[f32],
    ) -> (Vec<f32>, Vec<f32>) {
        let r = weights.window.lattice.reduction() as f32;
        let own = &self.sampling.acs;
        let extent = self.fill_extent.len().max(1) as f32;
        let share = if own.len() > 1 {
            own.len() as f32 / extent
        } else {
            0.0
        };
        let averages = self.line_variance(&frame.kspace, frame.kspace.lines.len());
        let edges = noise::edge_factor(&frame.kspace, weights, &self.fill_extent, own);
        let variance = power
            .iter()
            .map(|p| averages * ((1.0 - share) * edges * p / r + share))
            .collect();
        // Where no coil sees anything there is no noise to amplify: 1, as SENSE has it.
        let gfactor = |p: &f32| if *p > 0.0 { p.sqrt() / r } else { 1.0 };
        (variance, power.iter().map(gfactor).collect())
    }

    fn finish(&self, frame: &Frame, grid: OnGrid, mut log: Log) -> Result<ReconImage, ReconError> {
        let OnGrid {
            mut images,
            mut variance,
            gfactor,
            csm,
            is_rss,
            mut denoised,
        } = grid;
        let has_noise = frame.is_whitened && (self.sense.is_none() || self.params.sense.noise_map);
        if let Some(method) = self.partial_fourier.method() {
            let known = has_noise.then_some(variance.as_slice());
            let ratio = self.partial_fourier.run(&mut images, known);
            log.step(
                "recon/partial_fourier",
                format!(
                    "{method:?}: {}{}",
                    self.partial_fourier.reason,
                    match (&ratio, method) {
                        (Some(_), _) => "; noise by replicas through the same projections",
                        (None, PartialFourierMethod::Pocs) =>
                            "; noise for the weight of the other side read off the quietest part of k-space",
                        _ => "",
                    }
                ),
            );
            for (v, r) in variance.iter_mut().zip(ratio.iter().flatten()) {
                *v *= r;
            }
        }
        let is_identity = self.axes.iter().all(interpolate::Axis::is_identity);
        if !is_identity {
            images = interpolate::images(&self.axes, images);
            denoised = denoised.map(|d| Denoised {
                removed: interpolate::images(&self.axes, d.removed),
                sigma: interpolate::smooth_map(&self.axes, &d.sigma),
            });
            log.step("recon/interpolate", &self.interpolation);
        }
        let [nz, ny, nx] = [
            self.geometry.matrix[2],
            self.geometry.matrix[1],
            self.geometry.matrix[0],
        ];
        let n = nx * ny * nz;
        if is_rss {
            images = root_sum_of_squares(&images, n);
        }
        let mut voxels = images;
        check_finite(&voxels)?;
        let mut noise_std = None;
        if has_noise {
            let factor = self.variance_factor;
            let variance = interpolate::variance(&self.axes, variance);
            noise_std = Some(
                variance
                    .iter()
                    .map(|v| (v * factor).max(0.0).sqrt())
                    .collect::<Vec<f32>>(),
            );
        }
        let gfactor = gfactor.filter(|_| self.params.outputs.gfactor);
        let gfactor = gfactor.map(|g| interpolate::smooth_map(&self.axes, &g));
        if let Some(g) = &gfactor {
            let is_regularised = g.iter().any(|g| *g < 0.99);
            log.step(
                "recon/gfactor",
                if is_regularised {
                    "of this reconstruction: below 1 where regularisation suppressed noise, and a part of the signal"
                } else {
                    "of this reconstruction"
                },
            );
            if !frame.is_whitened {
                log.note(
                    "gfactor_not_whitened",
                    "the g-factor takes the noise of all coils as equal and independent: there was no noise scan",
                );
            }
        }
        if self.params.intensity_correction.enabled {
            let gains = super::intensity::correct(
                &mut voxels,
                noise_std.as_deref_mut(),
                [nz, ny, nx],
                &self.params.intensity_correction,
            );
            if let (Some(d), Some(gains)) = (&mut denoised, gains) {
                d.removed.iter_mut().zip(&gains).for_each(|(v, g)| *v *= *g);
                d.sigma.iter_mut().zip(&gains).for_each(|(s, g)| *s *= g);
            }
            log.step(
                "recon/intensity_correction",
                format!("{:?}", self.params.intensity_correction),
            );
            log.note(
                "intensity_corrected",
                "the image was divided by a smooth estimate of the receive profile: voxel values do not compare \
                 across the image as measured",
            );
        }
        Ok(ReconImage {
            key: frame.key,
            geometry: self.geometry_of(frame),
            table_position_mm: frame.table_position_mm,
            voxels,
            intensity: if noise_std.is_some() {
                Intensity::WithNoise
            } else {
                Intensity::Arbitrary
            },
            noise_std,
            gfactor,
            finer: [2, 1, 0].map(|a| self.axes[a].finer()),
            denoised,
            synthetic: None,
            csm: csm
                .filter(|_| self.params.outputs.csm)
                .map(|c| self.maps_of_image(Arc::unwrap_or_clone(c))),
            stamps: frame.stamps,
            provenance: Provenance {
                protocol: String::new(),
                input: String::new(),
                steps: log.steps,
                notes: log.notes,
            },
        })
    }

    /// Maps at the image's matrix.
    fn maps_of_image(&self, csm: Csm) -> Csm {
        let [x, y, z] = self.geometry.matrix;
        if self.map_axes.iter().all(interpolate::Axis::is_identity) {
            return csm;
        }
        Csm {
            maps: interpolate::images(&self.map_axes, csm.maps),
            matrix: [z, y, x],
            ..csm
        }
    }
}

/// `sum_c w_c m_c`, coils in order, `[coil, n]` each.
fn weighted_sum(images: &[Complex32], weights: &[Complex32], n: usize) -> Vec<Complex32> {
    const BLOCK: usize = 2048;
    let mut out = vec![Complex32::ZERO; n];
    out.par_chunks_mut(BLOCK).enumerate().for_each(|(i, out)| {
        let from = i * BLOCK;
        for (image, w) in images.chunks_exact(n).zip(weights.chunks_exact(n)) {
            let (image, w) = (&image[from..from + out.len()], &w[from..from + out.len()]);
            for ((o, m), w) in out.iter_mut().zip(image).zip(w) {
                *o += m * w;
            }
        }
    });
    out
}

fn root_sum_of_squares(images: &[Complex32], n: usize) -> Vec<Complex32> {
    let mut out = vec![Complex32::ZERO; n];
    out.par_chunks_mut(2048).enumerate().for_each(|(i, out)| {
        for image in images.chunks_exact(n) {
            for (o, v) in out.iter_mut().zip(&image[i * 2048..]) {
                o.re += v.norm_sqr();
            }
        }
        out.iter_mut().for_each(|v| v.re = v.re.sqrt());
    });
    out
}

fn check_finite(voxels: &[Complex32]) -> Result<(), ReconError> {
    let is_bad = |v: &Complex32| !v.re.is_finite() || !v.im.is_finite();
    let Some(first) = voxels.iter().position(is_bad) else {
        return Ok(());
    };
    Err(ReconError::NotFinite {
        what: "voxels",
        count: voxels.iter().filter(|v| is_bad(v)).count(),
        total: voxels.len(),
        first,
        hint: "look for NaN, infinity or overflow in the k-space (`cauda inspect`)",
    })
}
