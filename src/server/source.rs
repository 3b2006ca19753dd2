//! The chain's source: batches of the readouts that the socket holds.

use std::ops::ControlFlow;

use ismrmrd::acquisition::AcquisitionRef;
use ismrmrd::{Acquisition, Header};

use super::front::{Front, Incoming};
use crate::data::{Fault, FaultKind};
use crate::pipeline::{Source, Visit};

/// Most readouts that are handed on at once; what a socket holds is rarely more.
const BATCH: usize = 256;

/// What to do with everything that is not a readout.
pub(super) type Aside<'a> = dyn FnMut(Incoming) -> Result<(), Fault> + 'a;

/// Readouts of one connection, from the first to `CLOSE`.
pub(super) struct LiveSource<'a> {
    pub(super) front: &'a mut Front,
    /// The readout that began the scan.
    pub(super) first: Option<Acquisition>,
    pub(super) aside: &'a mut Aside<'a>,
}

impl LiveSource<'_> {
    /// Adds a readout to the batch; `Break` at the end of the scan.
    fn take(
        &mut self,
        incoming: Incoming,
        batch: &mut Vec<Acquisition>,
    ) -> Result<ControlFlow<()>, Fault> {
        match incoming {
            Incoming::Readout(readout) => batch.push(readout),
            Incoming::Closed | Incoming::Silent => return Ok(ControlFlow::Break(())),
            Incoming::Failed(words) => {
                return Err(Fault::new(
                    FaultKind::Input,
                    "server",
                    format!("the client says that it failed: {words}"),
                ));
            }
            Incoming::Image => return Err(images_refused()),
            other => (self.aside)(other)?,
        }
        Ok(ControlFlow::Continue(()))
    }
}

pub(super) fn images_refused() -> Fault {
    Fault::new(
        FaultKind::Unsupported,
        "server",
        "images came, expected readouts: this server reconstructs, it does not process images",
    )
}

impl Source for LiveSource<'_> {
    fn count(&self) -> Option<u64> {
        None
    }

    fn for_each_batch(&mut self, visit: &mut Visit<'_>) -> Result<(), Fault> {
        let mut batch: Vec<Acquisition> = self.first.take().into_iter().collect();
        let mut end: Result<ControlFlow<()>, Fault> = Ok(ControlFlow::Continue(()));
        loop {
            while batch.len() < BATCH && matches!(end, Ok(ControlFlow::Continue(()))) {
                match self.front.ready() {
                    Ok(Some(incoming)) => end = self.take(incoming, &mut batch),
                    Ok(None) => break,
                    Err(f) => end = Err(f),
                }
            }
            // What came before the end or the fault counts.
            if !batch.is_empty() {
                let refs: Vec<AcquisitionRef<'_>> = batch.iter().map(Acquisition::as_ref).collect();
                if visit(&refs).is_break() {
                    return Ok(());
                }
                batch.clear();
                if matches!(end, Ok(ControlFlow::Continue(()))) {
                    continue;
                }
            }
            if end?.is_break() {
                return Ok(());
            }
            let incoming = self.front.next();
            end = incoming.and_then(|i| self.take(i, &mut batch));
        }
    }
}

/// One line about a header, for the log.
pub(super) fn describe(header: &Header) -> String {
    let encodings: Vec<String> = header
        .encoding
        .iter()
        .map(|e| {
            let [x, y, z] = e.recon_space.matrix_size;
            format!("{x}x{y}x{z}")
        })
        .collect();
    let coils = header
        .acquisition_system_information
        .as_ref()
        .and_then(|s| s.receiver_channels)
        .map_or_else(|| "unstated".into(), |n| n.to_string());
    format!("{} matrix, {coils} coils", encodings.join(" + "))
}
