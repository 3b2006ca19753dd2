//! Operators on a card: whether they run there, and what a fault means.

use std::sync::Arc;

use super::error::ReconError;
use super::params::Method;
use super::run::Log;
use super::sense::{Sense, SenseImage};
use super::{Recon, sense};
use crate::data::{Csm, KSpace};
use crate::device::cuda::Accelerator;
use crate::device::{CardUse, Device, Policy};

/// A card that the planned method has kernels for.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    accelerator: Arc<Accelerator>,
    is_required: bool,
    on_fault: Policy,
}

impl Card {
    /// `None` where everything runs on the CPU.
    pub(super) fn of(
        device: &Device,
        sense: Option<&Sense>,
        method: Method,
    ) -> Result<Option<Self>, ReconError> {
        let CardUse::Yes {
            card,
            is_required,
            on_fault,
        } = &device.card
        else {
            return Ok(None);
        };
        // Sets of maps and weight are known later: with one set and enough weight, what lacks now lacks always.
        let lacks = match sense {
            Some(sense) => sense.card_lacks(1, 1.0),
            None => Some(format!("method {}", method.name())),
        };
        match lacks {
            Some(what) if *is_required => Err(lacking(&what)),
            Some(_) => Ok(None),
            None => Ok(Some(Self {
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

impl Recon {
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
                Err(e) if card.on_fault == Policy::Fail => {
                    let message = format!(
                        "{e}; `device.on_cuda_fault = \"finish_on_cpu\"` goes on without it"
                    );
                    return Err(ReconError::Card { message });
                }
                Err(e) => log.note(
                    "card_failed",
                    format!("{} failed and SENSE ran on the CPU: {e}", card.name()),
                ),
            },
        }
        Ok((sense.run_with(kspace, csm, lambda)?, "cpu"))
    }
}
