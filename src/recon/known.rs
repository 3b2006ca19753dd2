//! What was calibrated before: sensitivity maps and GRAPPA weights by the samples that they come from.
//!
//! Frames that share one reference scan, and a scan that is sent again, need not be calibrated again. An answer is found
//! by everything that it is made from, bit for bit: the samples of the calibration block themselves, their place, and
//! the parameters. No digest stands for them, so that what is found is what would have been calculated.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use num_complex::Complex32;

use super::acs::Acs;
use super::csm::CsmParams;
use super::error::ReconError;
use super::grappa::calibrate::{Fit, Ridge, Weights};
use super::grappa::{GrappaParams, fold::Unmixing, window::Window};
use super::sampling;
use crate::data::{Csm, KSpace, Line, Shape};

/// Answers per block: with `lambda = "auto"` every frame has weights of its own.
const MOST_ANSWERS: usize = 32;

/// Which calibrations are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Those of reference scans, which frames of one scan share.
    References,
    /// Also those of the first frame of a series, in case the scan comes again. Later frames that bring their own
    /// calibration lines differ in their noise at least.
    FirstFrames,
}

/// Calibrations that are kept, bounded in bytes; those that were not asked for longest go first.
#[derive(Debug)]
pub struct Calibrations {
    keep: Keep,
    limit_bytes: u64,
    is_same: fn(&Acs, &Acs) -> bool,
    blocks: Mutex<Blocks>,
    known: AtomicU64,
    fitted: AtomicU64,
}

#[derive(Debug, Default)]
struct Blocks {
    /// Least recently used first.
    blocks: Vec<Block>,
    bytes: u64,
    /// Questions so far.
    questions: u64,
}

/// A calibration block and what was made from it, least recently used first.
#[derive(Debug)]
struct Block {
    acs: Acs,
    answers: Vec<(Question, Answer)>,
    /// Number of the last question about it.
    asked: u64,
}

#[derive(Clone, Debug, PartialEq)]
enum Question {
    Maps(Shape, CsmParams),
    Fit(Window, GrappaParams),
    Weights(Window, GrappaParams, Ridge),
    Unmixing(Box<Unfolding>),
}

/// What, beside the calibration block, the unmixing of folded images depends on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unfolding {
    pub(crate) window: Window,
    pub(crate) params: GrappaParams,
    pub(crate) ridge: Ridge,
    pub(crate) centre: usize,
    pub(crate) shape: Shape,
    pub(crate) lines: Vec<Line>,
    pub(crate) extent: sampling::Block,
}

#[derive(Clone, Debug)]
enum Answer {
    Maps(Arc<Csm>),
    Fit(Arc<Fit>),
    Weights(Arc<Weights>),
    Unmixing(Arc<Unmixing>),
}

impl Answer {
    fn bytes(&self) -> u64 {
        let of = |n: usize| (n * size_of::<Complex32>()) as u64;
        match self {
            Self::Maps(csm) => of(csm.maps.len()),
            Self::Fit(fit) => fit.bytes(),
            Self::Weights(weights) => of(weights.values.len()),
            Self::Unmixing(unmixing) => unmixing.bytes(),
        }
    }
}

impl Block {
    fn bytes(&self) -> u64 {
        let answers: u64 = self.answers.iter().map(|(_, a)| a.bytes()).sum();
        size_of_val(self.acs.samples.as_slice()) as u64 + answers
    }
}

/// Bit for bit.
fn is_same(a: &Acs, b: &Acs) -> bool {
    a.shape == b.shape
        && a.dc == b.dc
        && a.block == b.block
        && a.ro_range == b.ro_range
        && a.variance.to_bits() == b.variance.to_bits()
        && bytemuck::cast_slice::<_, u8>(&a.samples) == bytemuck::cast_slice::<_, u8>(&b.samples)
}

impl Calibrations {
    /// Nothing yet.
    pub fn new(keep: Keep, limit_bytes: u64) -> Self {
        Self {
            keep,
            limit_bytes,
            is_same,
            blocks: Mutex::default(),
            known: AtomicU64::new(0),
            fitted: AtomicU64::new(0),
        }
    }

    /// Frames whose calibration was known, and those that were fitted. Frames whose calibration is not kept count in
    /// neither.
    pub fn counts(&self) -> [u64; 2] {
        [&self.known, &self.fitted].map(|n| n.load(Ordering::Relaxed))
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    pub(crate) fn keep(&self) -> Keep {
        self.keep
    }

    fn lock(&self) -> MutexGuard<'_, Blocks> {
        // Whoever panicked while it held the lock left whole entries.
        self.blocks.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn find(&self, acs: &Acs, question: &Question) -> Option<Answer> {
        let mut kept = self.lock();
        kept.questions += 1;
        let Blocks {
            blocks, questions, ..
        } = &mut *kept;
        let at = blocks.iter().position(|b| (self.is_same)(&b.acs, acs))?;
        let mut block = blocks.remove(at);
        block.asked = *questions;
        let found = block.answers.iter().position(|(q, _)| q == question);
        let answer = found.map(|i| {
            let entry = block.answers.remove(i);
            let answer = entry.1.clone();
            block.answers.push(entry);
            answer
        });
        blocks.push(block);
        answer
    }

    /// Whether there is room for so much without what is still being asked for: slices come round again and again, and
    /// letting go of the one that was asked for longest would be to let go of the next one.
    fn makes_room(&self, more: u64) -> bool {
        let mut kept = self.lock();
        let Blocks {
            blocks,
            bytes,
            questions,
        } = &mut *kept;
        while *bytes + more > self.limit_bytes {
            let round = 8 * (blocks.len() as u64 + 16);
            let in_use = |b: &Block| b.asked + round >= *questions;
            if blocks.first().is_none_or(in_use) {
                return false;
            }
            *bytes -= blocks.remove(0).bytes();
        }
        true
    }

    fn store(&self, acs: &Acs, question: Question, answer: Answer) {
        let mut kept = self.lock();
        let Blocks {
            blocks,
            bytes,
            questions,
        } = &mut *kept;
        let found = blocks.iter().position(|b| (self.is_same)(&b.acs, acs));
        let mut block = match found {
            Some(at) => blocks.remove(at),
            None => Block {
                acs: acs.clone(),
                answers: Vec::new(),
                asked: *questions,
            },
        };
        *bytes -= found.map_or(0, |_| block.bytes());
        // Two threads may have made the same at the same time.
        block.answers.retain(|(q, _)| *q != question);
        block.answers.push((question, answer));
        if block.answers.len() > MOST_ANSWERS {
            block.answers.remove(0);
        }
        *bytes += block.bytes();
        blocks.push(block);
        while *bytes > self.limit_bytes && !blocks.is_empty() {
            *bytes -= blocks.remove(0).bytes();
        }
    }
}

/// The door to [`Calibrations`], for frames that may use them; for others everything is calculated.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known<'a>(pub(crate) Option<&'a Calibrations>);

impl Known<'_> {
    /// Sensitivity maps on the grid `full`.
    ///
    /// # Errors
    /// Those of `make`, which makes them of the block on a grid (pe2, pe1, ro).
    pub(crate) fn maps(
        self,
        acs: &Acs,
        full: Shape,
        params: &CsmParams,
        make: impl FnOnce(&KSpace, [usize; 3]) -> Result<Csm, ReconError>,
    ) -> Result<Arc<Csm>, ReconError> {
        let make = || -> Result<Arc<Csm>, ReconError> {
            let grid = [full.pe2, full.pe1, full.ro];
            Ok(Arc::new(make(&acs.to_kspace(full), grid)?))
        };
        let Some(all) = self.0 else { return make() };
        let question = Question::Maps(full, params.clone());
        if let Some(Answer::Maps(csm)) = all.find(acs, &question) {
            all.known.fetch_add(1, Ordering::Relaxed);
            return Ok(csm);
        }
        let csm = make()?;
        all.fitted.fetch_add(1, Ordering::Relaxed);
        all.store(acs, question, Answer::Maps(Arc::clone(&csm)));
        Ok(csm)
    }

    /// Unmixing weights of folded images.
    pub(crate) fn unmixing(
        self,
        acs: &Acs,
        asked: impl FnOnce() -> Unfolding,
    ) -> Option<Arc<Unmixing>> {
        let all = self.0?;
        let Some(Answer::Unmixing(found)) = all.find(acs, &Question::Unmixing(asked().into()))
        else {
            return None;
        };
        all.known.fetch_add(1, Ordering::Relaxed);
        Some(found)
    }

    /// Keeps them, where there is room.
    pub(crate) fn keep_unmixing(self, acs: &Acs, asked: Unfolding, unmixing: Unmixing) {
        let answer = Answer::Unmixing(Arc::new(unmixing));
        if let Some(all) = self.0
            && all.makes_room(answer.bytes())
        {
            all.store(acs, Question::Unmixing(asked.into()), answer);
        }
    }

    /// GRAPPA weights, and whether they were known. Where only the regularisation is another one, the sums over the
    /// block are known.
    ///
    /// # Errors
    /// Those of [`super::grappa::calibrate::calibrate`].
    pub(crate) fn weights(
        self,
        acs: &Acs,
        window: &Window,
        params: &GrappaParams,
        ridge: Ridge,
    ) -> Result<(Arc<Weights>, bool), ReconError> {
        let Some(all) = self.0 else {
            let weights = Fit::new(acs, window, params)?.weights(ridge)?;
            return Ok((Arc::new(weights), false));
        };
        let asked = Question::Weights(window.clone(), *params, ridge);
        if let Some(Answer::Weights(weights)) = all.find(acs, &asked) {
            all.known.fetch_add(1, Ordering::Relaxed);
            return Ok((weights, true));
        }
        let question = Question::Fit(window.clone(), *params);
        let fit = match all.find(acs, &question) {
            Some(Answer::Fit(fit)) => {
                all.known.fetch_add(1, Ordering::Relaxed);
                fit
            }
            _ => {
                let fit = Arc::new(Fit::new(acs, window, params)?);
                all.fitted.fetch_add(1, Ordering::Relaxed);
                all.store(acs, question, Answer::Fit(Arc::clone(&fit)));
                fit
            }
        };
        let weights = Arc::new(Fit::clone(&fit).weights(ridge)?);
        all.store(acs, asked, Answer::Weights(Arc::clone(&weights)));
        Ok((weights, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Calibration, Frame, ReconImage};
    use crate::num::testing::assert_same_on_any_threads;
    use crate::recon::testing::{Sim, scan_of};
    use crate::recon::tests::device;
    use crate::recon::{Method, Recon, ReconParams};

    const N: usize = 32;
    const LARGE: u64 = 1 << 30;

    fn is_central(k: usize) -> bool {
        k.abs_diff(N / 2) < 8
    }

    /// Every second line and a block in the middle.
    fn embedded(seed: u64) -> Frame {
        Sim::new(4, 1, N, 20, 100.0).frame(|_, k| k % 2 == 0 || is_central(k), 1.0, seed)
    }

    /// Every second line, and a reference scan.
    fn separate(seed: u64, reference_seed: u64) -> Frame {
        let sim = Sim::new(4, 1, N, 20, 100.0);
        let mut frame = sim.frame(|_, k| k % 2 == 0, 1.0, seed);
        let reference = sim.frame(|_, k| is_central(k), 1.0, reference_seed);
        frame.reference = Some(reference.kspace);
        frame.key.repetition = u16::try_from(seed).unwrap();
        frame
    }

    fn all_params() -> [ReconParams; 5] {
        let mut all = [(); 5].map(|()| ReconParams::default());
        for (params, method) in all.iter_mut().zip([
            Method::Grappa,
            Method::Grappa,
            Method::Grappa,
            Method::Sense,
            Method::CgSense,
        ]) {
            params.method = method;
        }
        all[1].grappa.apply = crate::recon::grappa::Apply::Kspace;
        all[1].combine.method = crate::recon::combine::CombineMethod::Csm;
        all[2].grappa.lambda = crate::recon::sense::Lambda::Fixed(0.01);
        all[2].outputs.csm = true;
        all[2].csm.method = crate::recon::csm::CsmMethod::Walsh;
        all[4].csm.method = crate::recon::csm::CsmMethod::Walsh;
        all
    }

    fn plan(frame: &Frame, params: &ReconParams) -> Recon {
        let mut scan = scan_of(frame.kspace.shape);
        if frame.reference.is_some() {
            let encoding = scan.encodings[0].as_mut().unwrap();
            encoding.calibration = Calibration::Separate;
        }
        Recon::plan(&scan, frame, params, &device()).unwrap()
    }

    /// Everything that an image is.
    fn bits(image: &ReconImage) -> (Vec<[u32; 2]>, String) {
        let voxels = image.voxels.iter();
        let rest = (&image.noise_std, &image.gfactor, &image.csm);
        (
            voxels.map(|v| [v.re.to_bits(), v.im.to_bits()]).collect(),
            format!("{rest:?} {:?}", image.provenance.steps),
        )
    }

    /// Whether every frame is, with what is known from those before it, what it is alone.
    fn agrees(calibrations: &Calibrations, params: &ReconParams, frames: &[Frame]) -> bool {
        frames.iter().all(|frame| {
            let plan = plan(frame, params);
            let known = plan.run_with(frame, calibrations).unwrap();
            bits(&known) == bits(&plan.run(frame).unwrap())
        })
    }

    #[test]
    fn what_is_known_gives_the_same_bits_on_any_number_of_threads() {
        let frames = [embedded(1), embedded(1), embedded(2), embedded(1)];
        let shared = [
            separate(1, 9),
            separate(2, 9),
            separate(3, 9),
            separate(2, 9),
        ];
        for (i, params) in all_params().iter().enumerate() {
            for frames in [&frames, &shared] {
                let calibrations = Calibrations::new(Keep::FirstFrames, LARGE);
                assert!(agrees(&calibrations, params, frames), "{i}");
                assert_same_on_any_threads(|| {
                    let image = plan(&frames[1], params).run_with(&frames[1], &calibrations);
                    bits(&image.unwrap())
                });
            }
        }
    }

    #[test]
    fn shared_references_and_repeated_scans_are_fitted_once_and_changed_samples_again() {
        let [grappa, _, both, _, sense] = all_params();
        for params in [grappa, both, sense] {
            let count = |keep, frames: &[Frame]| {
                let calibrations = Calibrations::new(keep, LARGE);
                for frame in frames {
                    plan(frame, &params).run_with(frame, &calibrations).unwrap();
                }
                let [known, fitted] = calibrations.counts();
                // Some methods ask for weights and for maps.
                let per_frame = (known + fitted).max(1) / frames.len().max(1) as u64;
                [known, fitted].map(|n| n / per_frame.max(1))
            };
            let shared = [separate(1, 9), separate(2, 9), separate(3, 9)];
            assert_eq!(count(Keep::References, &shared), [2, 1]);
            let again = [embedded(1), embedded(1)];
            assert_eq!(count(Keep::FirstFrames, &again), [1, 1]);
            assert_eq!(count(Keep::References, &again), [0, 0], "a file comes once");
            let others = [separate(1, 9), separate(1, 8)];
            assert_eq!(count(Keep::References, &others), [0, 2]);
            let mut changed = [embedded(1), embedded(1)];
            let ro = changed[1].kspace.shape.ro;
            let middle = changed[1].kspace.lines.len() / 2 * ro + ro / 2;
            let v = &mut changed[1].kspace.samples[middle];
            v.re = f32::from_bits(v.re.to_bits() ^ 1);
            assert_eq!(count(Keep::FirstFrames, &changed), [0, 2], "one bit");
            let mut later = [embedded(1), embedded(1)];
            later.iter_mut().for_each(|f| f.key.repetition = 3);
            assert_eq!(count(Keep::FirstFrames, &later), [0, 0]);
        }
    }

    #[test]
    fn no_more_bytes_are_kept_than_may_and_the_newest_stay() {
        let params = &all_params()[4];
        let one = Calibrations::new(Keep::FirstFrames, LARGE);
        let run = |calibrations: &Calibrations, seed| {
            let frame = embedded(seed);
            plan(&frame, params).run_with(&frame, calibrations).unwrap();
        };
        run(&one, 0);
        let bytes = one.bytes();
        assert!(bytes > 0);
        let three = Calibrations::new(Keep::FirstFrames, 3 * bytes + 1);
        for seed in 0..10 {
            run(&three, seed);
            run(&three, 0);
            assert!(three.bytes() <= 3 * bytes + 1);
        }
        assert_eq!(three.bytes(), 3 * bytes);
        // The one that was asked for again and again stayed.
        assert_eq!(three.counts(), [10, 10]);
        let none = Calibrations::new(Keep::FirstFrames, bytes - 1);
        run(&none, 0);
        run(&none, 0);
        assert_eq!((none.bytes(), none.counts()), (0, [0, 2]));
        // Many regularisations of one block do not add up either.
        let lambdas = Calibrations::new(Keep::References, LARGE);
        let mut most = 0;
        for seed in 0..2 * MOST_ANSWERS as u64 {
            let frame = separate(seed, 9);
            let params = &all_params()[0];
            plan(&frame, params).run_with(&frame, &lambdas).unwrap();
            if seed + 1 == MOST_ANSWERS as u64 {
                most = lambdas.bytes();
            }
        }
        assert_eq!(lambdas.bytes(), most);
        assert_eq!(lambdas.lock().blocks.len(), 1);
    }

    #[test]
    fn unmixing_is_kept_from_the_second_time_and_never_at_the_cost_of_what_comes_round() {
        let mut params = all_params()[2].clone();
        params.outputs.csm = false;
        let run = |calibrations: &Calibrations, seed, reference| {
            let frame = separate(seed, reference);
            let known = plan(&frame, &params).run_with(&frame, calibrations);
            assert_eq!(
                bits(&known.unwrap()),
                bits(&plan(&frame, &params).run(&frame).unwrap())
            );
        };
        let is_kept = |calibrations: &Calibrations| {
            let kept = calibrations.lock();
            let mut answers = kept.blocks.iter().flat_map(|b| &b.answers);
            answers.any(|(q, _)| matches!(q, Question::Unmixing(_)))
        };
        let all = Calibrations::new(Keep::References, LARGE);
        run(&all, 1, 9);
        assert!(!is_kept(&all), "a frame that may have been the only one");
        let weights = all.bytes();
        run(&all, 2, 9);
        assert!(is_kept(&all));
        run(&all, 3, 9);
        assert_eq!(all.counts(), [2, 1]);
        // Room for the weights of three slices that come by turns, and not for their unmixing.
        let some = Calibrations::new(Keep::References, 3 * weights + 1);
        for seed in 0..12 {
            run(&some, seed, 7 + seed % 3);
        }
        assert!(!is_kept(&some));
        assert_eq!(some.counts(), [9, 3]);
        // Other scans long ago make room.
        let room = all.bytes() - weights;
        let some = Calibrations::new(Keep::References, room + 2 * weights);
        for seed in 0..3 {
            run(&some, seed, 7 + seed);
        }
        run(&some, 3, 9);
        assert!(!is_kept(&some));
        for seed in 0..300 {
            run(&some, seed, 9);
        }
        assert!(is_kept(&some));
        assert!(some.bytes() <= room + 2 * weights);
    }

    #[test]
    fn wrong_twins_are_caught() {
        let twin = |is_same| Calibrations {
            is_same,
            ..Calibrations::new(Keep::FirstFrames, LARGE)
        };
        let frames = [embedded(1), embedded(2)];
        let lines = Sim::new(4, 1, N, 20, 100.0);
        let fewer = lines.frame(|_, k| k % 2 == 0 || (is_central(k) && k > 9), 1.0, 1);
        for params in all_params() {
            assert!(agrees(&twin(is_same), &params, &frames));
            // One that forgets the samples, one that looks at the first of them only.
            assert!(!agrees(&twin(|a, b| a.block == b.block), &params, &frames));
            let first = |a: &Acs, b: &Acs| a.samples[..1] == b.samples[..1] || a.dc == b.dc;
            assert!(!agrees(&twin(first), &params, &frames));
            // One that forgets the place of the block.
            let others = [frames[0].clone(), fewer.clone()];
            assert!(agrees(&twin(is_same), &params, &others));
            assert!(!agrees(&twin(|_, _| true), &params, &others));
        }
    }
}
