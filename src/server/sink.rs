//! Images and words in, bytes of the peer's kind of stream into the outbox.

use std::sync::Arc;

use ismrmrd::Image;
use ismrmrd::wire::{Item, Message, encode, v2};

use super::front::fault;
use super::outbox::{Left, Outbox};
use crate::data::{Fault, FaultKind, Scan};

/// Everything that goes to the peer goes through here.
#[derive(Clone)]
pub(super) struct Sink {
    outbox: Arc<Outbox>,
    /// The peer's version of v2; `None` is v1.
    v2: Option<v2::Writer>,
    /// Pipes carry the header in front of the images, as the tools of the format do; and no words.
    is_pipe: bool,
}

impl Sink {
    pub(super) fn new(outbox: Arc<Outbox>, v2: Option<v2::Writer>, is_pipe: bool) -> Self {
        Self {
            outbox,
            v2,
            is_pipe,
        }
    }

    /// Called once, when the scan begins.
    pub(super) fn begin(&self, scan: &Scan) -> Result<(), Fault> {
        let mut bytes = Vec::new();
        match &self.v2 {
            None if !self.is_pipe => return Ok(()),
            None => {
                let header = Message::Header(scan.header.to_xml());
                encode(&header, &mut bytes).map_err(ours)?;
            }
            Some(v2) => v2.begin(Some(&scan.header), &mut bytes).map_err(fault)?,
        }
        self.outbox.put(bytes, None)
    }

    /// The images of one frame, in one piece. `left` is called when their last byte was written.
    pub(super) fn images(&self, images: Vec<Image>, left: Left) -> Result<u64, Fault> {
        let voxels: usize = images.iter().map(|i| i.pixels.len()).sum();
        let mut bytes = Vec::with_capacity(voxels * 8 + images.len() * 16_384);
        for image in images {
            match &self.v2 {
                None => encode(&Message::Image(image), &mut bytes),
                Some(v2) => v2.item(&Item::Image(Box::new(image)), &mut bytes),
            }
            .map_err(ours)?;
        }
        let n = bytes.len() as u64;
        self.outbox.put(bytes, Some(left))?;
        Ok(n)
    }

    /// Words for the people at the other end: `DBG`, `INFO`, `WRN` or `ERR` in front, as FIRE's clients expect.
    pub(super) fn text(&self, level: &str, words: &str) -> Result<(), Fault> {
        if self.is_pipe || self.v2.is_some() {
            // v2 has no texts, and tools on pipes refuse them: the log has them.
            return Ok(());
        }
        self.message(&Message::Text(format!("{level} {words}")))
    }

    /// A message of the protocol itself.
    pub(super) fn message(&self, message: &Message) -> Result<(), Fault> {
        if self.v2.is_some() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        encode(message, &mut bytes).map_err(ours)?;
        self.outbox.put(bytes, None)
    }

    /// The orderly end of our side. After a fault a v2 stream is left without its end: that is how v2 says it.
    pub(super) fn close(&self, is_good: bool) -> Result<(), Fault> {
        match &self.v2 {
            None => self.message(&Message::Close),
            Some(v2) if is_good => {
                let mut bytes = Vec::new();
                v2.end(&mut bytes);
                self.outbox.put(bytes, None)
            }
            Some(_) => Ok(()),
        }
    }
}

fn ours(error: ismrmrd::Error) -> Fault {
    Fault {
        kind: FaultKind::Bug,
        room: "server",
        message: format!("an image of ours that the wire cannot carry: {error}"),
        source: Some(Box::new(error)),
    }
}
