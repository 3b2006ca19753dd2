//! Operators on a card: whether they run there, and what a fault means.

use std::sync::Arc;

use super::error::ReconError;
use super::grappa::{cuda, fold};
use super::params::Method;
use super::run::Log;
use super::sampling::Lattice;
use super::sense::{Sense, SenseImage};
use super::{Recon, csm, sense};
use crate::data::{Csm, KSpace, Line};
use crate::device::cuda::{Accelerator, CudaError};
use crate::device::{CardUse, Device, Policy};

/// A card that the planned method has kernels for.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    accelerator: Arc<Accelerator>,
    is_required: bool,
    on_fault: Policy,
}

impl Card {
    /// Where everything runs on the CPU, why; nothing where there is no card to use.
    pub(super) fn of(
        device: &Device,
        kspace: &KSpace,
        sense: Option<&Sense>,
        (method, lattice): (Method, Option<&Lattice>),
    ) -> Result<Result<Self, Option<String>>, ReconError> {
        let (card, is_required, on_fault) = match &device.card {
            CardUse::Yes {
                card,
                is_required,
                on_fault,
            } => (card, is_required, on_fault),
            CardUse::No { why } => return Ok(Err(why.clone())),
        };
        // Sets of maps and weight are known later: with one set and enough weight, what lacks now lacks always.
        let lacks = match (sense, lattice) {
            (Some(sense), _) => sense.card_lacks(1, 1.0),
            // Frames whose weights are fitted with them are unmixed where that is done.
            (None, Some(lattice)) if fold::applies(kspace, lattice) => {
                let on_pattern = |l: &&Line| lattice.contains(0, i64::from(l.pe1));
                let n_pattern = kspace.lines.iter().filter(on_pattern).count();
                cuda::lacks(kspace.shape, n_pattern, lattice.r1)
            }
            _ => Some(format!("method {}", method.name())),
        };
        match lacks {
            Some(what) if *is_required => Err(lacking(&what)),
            Some(what) => Ok(Err(Some(format!("the card has no kernels for {what}")))),
            None => Ok(Ok(Self {
                accelerator: card.clone(),
                is_required: *is_required,
                on_fault: *on_fault,
            })),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.accelerator.context().card().name
    }
}

fn lacking(what: &str) -> ReconError {
    let message = format!(
        "device.prefer = \"cuda\", but the card has no kernels for {what}; set `device.prefer = \"auto\"` to do it on the CPU"
    );
    ReconError::Card { message }
}

impl Card {
    /// What it means that `what` did not run on the card: an error, or a note that it ran on the CPU.
    ///
    /// A fault is the policy's to judge; a card that cannot be used for this frame (memory, no image of a kernel) is one
    /// only where a card is required.
    fn failed(&self, e: &CudaError, what: &str, log: &mut Log) -> Result<(), ReconError> {
        let (code, is_error, remedy) = match e.is_fault() {
            true => (
                "card_failed",
                self.on_fault == Policy::Fail,
                "`device.on_cuda_fault = \"finish_on_cpu\"` goes on without it",
            ),
            false => (
                "not_on_the_card",
                self.is_required,
                "`device.prefer = \"auto\"` does it on the CPU",
            ),
        };
        if is_error {
            let message = format!("{e}; {remedy}");
            return Err(ReconError::Card { message });
        }
        log.note(
            code,
            format!("{what} ran on the CPU, not on {}: {e}", self.name()),
        );
        Ok(())
    }
}

impl Recon {
    /// Unmixing with weights that are known, where it was planned to run; also where it ran.
    pub(super) fn unmix(
        &self,
        kspace: &KSpace,
        unmixing: &fold::Unmixing,
        log: &mut Log,
    ) -> Result<(fold::Unfolded, &'static str), ReconError> {
        if let Some(card) = &self.card {
            match unmixing.unfold_on(&card.accelerator, kspace) {
                Ok(voxels) => {
                    let power = unmixing.power.clone();
                    let unfolded = fold::Unfolded {
                        voxels,
                        power,
                        unmixing: None,
                    };
                    return Ok((unfolded, "cuda"));
                }
                Err(e) => card.failed(&e, "GRAPPA", log)?,
            }
        }
        let folded = fold::Folded::new(kspace, unmixing.weights.window.lattice);
        Ok((fold::unfold_known(kspace, &folded, unmixing), "cpu"))
    }

    /// Sensitivity maps of a calibration block, on the card where it has kernels for them; also where they were made.
    pub(super) fn make_maps(
        &self,
        block: &KSpace,
        grid: [usize; 3],
        log: &mut Log,
    ) -> Result<(Csm, &'static str), ReconError> {
        let params = &self.params.csm;
        if let Some(card) = &self.card
            && csm::cuda::lacks(params, block.shape.coil).is_none()
        {
            match csm::cuda::maps(&card.accelerator, block, grid, params) {
                Ok(csm) => return Ok((csm, "cuda")),
                Err(csm::cuda::Failed::Maps(e)) => return Err(e.into()),
                Err(csm::cuda::Failed::Card(e)) => card.failed(&e, "ESPIRiT", log)?,
            }
        }
        Ok((csm::maps(block, grid, params)?, "cpu"))
    }

    /// Says that a frame which must run on a card brought weights that were not known yet.
    pub(super) fn note_fitted(&self, log: &mut Log) {
        if let Some(card) = &self.card
            && card.is_required
        {
            log.note(
                "not_on_the_card",
                format!(
                    "GRAPPA weights were fitted with this frame, on the CPU, which then unmixed it: frames that share \
                     them run on {}",
                    card.name()
                ),
            );
        }
    }

    /// SENSE where it was planned to run; also where it ran.
    pub(super) fn solve(
        &self,
        sense: &sense::Sense,
        kspace: &KSpace,
        csm: &Csm,
        lambda: f32,
        log: &mut Log,
    ) -> Result<(SenseImage, &'static str), ReconError> {
        let Some(card) = &self.card else {
            return Ok((sense.run_with(kspace, csm, lambda)?, "cpu"));
        };
        match sense.card_lacks(csm.n_sets, lambda) {
            Some(what) if card.is_required => return Err(lacking(&what)),
            Some(what) => log.note(
                "not_on_the_card",
                format!("SENSE ran on the CPU: the card has no kernels for {what}"),
            ),
            None => match sense.run_on(&card.accelerator, kspace, csm, lambda) {
                Ok(image) => return Ok((image, "cuda")),
                Err(e) => card.failed(&e, "SENSE", log)?,
            },
        }
        Ok((sense.run_with(kspace, csm, lambda)?, "cpu"))
    }
}
