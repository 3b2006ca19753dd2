//! Bytes of a peer in, what they mean out; the same for MRD v1 and v2, told apart by the first byte.

use std::io::{Chain, Cursor, Read};

use ismrmrd::wire::{self, Config, Event, Item, Session, StreamKind, v2};
use ismrmrd::{Acquisition, Error, Header, Limits};

use crate::data::{Fault, FaultKind};

/// What came.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // a box would cost an allocation for each readout
pub(super) enum Incoming {
    /// What the peer wants done.
    Config(Config),
    /// The scan's header.
    Header(Box<Header>),
    /// A readout.
    Readout(Acquisition),
    /// Words, or JSON parameters.
    Text(String),
    /// A question.
    Query { correlation_id: u64, text: String },
    /// A question for stored dependencies.
    DependencyQuery,
    /// The peer failed, in its own words.
    Failed(String),
    /// Images instead of readouts.
    Image,
    /// Passed over: what it is.
    Other(String),
    /// The orderly end.
    Closed,
    /// The peer left without a word.
    Silent,
}

type Source = Chain<Cursor<[u8; 1]>, Box<dyn Read + Send>>;

/// The decoding end of a connection.
pub(super) struct Front {
    wire: Wire,
}

enum Wire {
    /// Nothing came at all.
    Nothing,
    V1 {
        reader: Box<wire::Reader<Source>>,
        session: Session,
    },
    V2(Box<v2::Reader<Source>>),
}

impl Front {
    /// Waits for the first byte and chooses by it: no v1 message begins with the `y` of `yardl`.
    pub(super) fn new(mut reader: Box<dyn Read + Send>, limits: Limits) -> Result<Self, Fault> {
        let mut first = [0];
        let came = loop {
            match reader.read(&mut first) {
                Ok(n) => break n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(io_fault(&e)),
            }
        };
        let source = Cursor::new(first).chain(reader);
        let wire = match (came, first) {
            (0, _) => Wire::Nothing,
            (_, [b'y']) => Wire::V2(Box::new(v2::Reader::new(source, limits).map_err(fault)?)),
            _ => Wire::V1 {
                reader: Box::new(wire::Reader::new(source, limits)),
                session: Session::new(),
            },
        };
        Ok(Self { wire })
    }

    /// Which kind of stream; `None` if nothing came.
    pub(super) fn kind(&self) -> Option<StreamKind> {
        match &self.wire {
            Wire::Nothing => None,
            Wire::V1 { .. } => Some(StreamKind::V1),
            Wire::V2(_) => Some(StreamKind::V2),
        }
    }

    /// How answers to a v2 stream are written.
    pub(super) fn v2_writer(&self) -> Option<v2::Writer> {
        match &self.wire {
            Wire::V2(reader) => Some(reader.writer()),
            _ => None,
        }
    }

    /// Gives a readout back that was done with, for the next one's samples.
    pub(super) fn give_back(&mut self, readout: Acquisition) {
        if let Wire::V1 { reader, .. } = &mut self.wire {
            reader.give_back(readout.data);
        }
    }

    /// Reads on and throws away, until the end of the stream or `until` says so; what copies the bytes on their way
    /// goes on doing so.
    pub(super) fn drain(&mut self, until: &dyn Fn() -> bool) {
        let source = match &mut self.wire {
            Wire::Nothing => return,
            Wire::V1 { reader, .. } => reader.source_mut(),
            Wire::V2(reader) => reader.source_mut(),
        };
        let mut room = vec![0; 64 << 10];
        while !until() {
            match source.read(&mut room) {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                // Silence, or a peer that is gone: there is nothing more to wait for.
                Err(_) => return,
            }
        }
    }

    /// Waits for the next thing.
    ///
    /// # Errors
    /// Bytes that are no MRD, a message out of turn, the end without `CLOSE`, a silence that was too long.
    pub(super) fn next(&mut self) -> Result<Incoming, Fault> {
        match &mut self.wire {
            Wire::Nothing => Ok(Incoming::Silent),
            Wire::V1 { reader, session } => {
                let event = match reader.next_message().map_err(fault)? {
                    Some(message) => session.take(message),
                    None => session.peer_closed(),
                };
                event.map_err(session_fault).and_then(incoming)
            }
            Wire::V2(reader) => Ok(reader
                .next_item()
                .map_err(fault)?
                .map_or(Incoming::Closed, item)),
        }
    }

    /// The next thing if it is there whole; never waits.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(super) fn ready(&mut self) -> Result<Option<Incoming>, Fault> {
        match &mut self.wire {
            Wire::Nothing => Ok(Some(Incoming::Silent)),
            Wire::V1 { reader, session } => match reader.next_ready().map_err(fault)? {
                Some(message) => {
                    let event = session.take(message).map_err(session_fault)?;
                    incoming(event).map(Some)
                }
                None => Ok(None),
            },
            Wire::V2(reader) => Ok(reader.next_ready().map_err(fault)?.map(item)),
        }
    }
}

fn incoming(event: Event) -> Result<Incoming, Fault> {
    Ok(match event {
        Event::Config(config) => Incoming::Config(config),
        Event::Header(xml) => Incoming::Header(Box::new(Header::parse(&xml).map_err(fault)?)),
        Event::Acquisition(a) => Incoming::Readout(a),
        Event::Waveform(_) => Incoming::Other("waveforms".into()),
        Event::Image(_) => Incoming::Image,
        Event::Array(_) => Incoming::Other("arrays".into()),
        Event::Text(text) => Incoming::Text(text),
        Event::Query {
            correlation_id,
            text,
        } => Incoming::Query {
            correlation_id,
            text,
        },
        Event::DependencyQuery(_) => Incoming::DependencyQuery,
        Event::Failed(text) => Incoming::Failed(text),
        Event::Other(what) => Incoming::Other(what.into()),
        Event::Closed => Incoming::Closed,
        Event::Silent => Incoming::Silent,
    })
}

fn item(item: Item) -> Incoming {
    match item {
        Item::Header(header) => Incoming::Header(header),
        Item::Acquisition(a) => Incoming::Readout(*a),
        Item::Waveform(_) => Incoming::Other("waveforms".into()),
        Item::Image(_) => Incoming::Image,
        Item::Array(_) => Incoming::Other("arrays".into()),
        Item::Text(text) => Incoming::Text(text),
        Item::Other(what) => Incoming::Other(what),
    }
}

fn session_fault(error: wire::SessionError) -> Fault {
    Fault {
        kind: FaultKind::Input,
        room: "server",
        message: error.to_string(),
        source: Some(Box::new(error)),
    }
}

/// What an error of the format is to the house.
pub(super) fn fault(error: Error) -> Fault {
    let (kind, message) = match &error {
        Error::Io { source, .. } => return io_fault(source),
        Error::TooLarge { .. } => (FaultKind::Limit, error.to_string()),
        _ => (FaultKind::Input, error.to_string()),
    };
    Fault {
        kind,
        room: "server",
        message,
        source: Some(Box::new(error)),
    }
}

fn io_fault(error: &std::io::Error) -> Fault {
    use std::io::ErrorKind as K;
    let message = match error.kind() {
        K::WouldBlock | K::TimedOut => {
            "the client was silent for longer than this server waits, and did not say CLOSE"
                .to_owned()
        }
        K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe => {
            format!("the client vanished: {error}")
        }
        _ => format!("reading from the client: {error}"),
    };
    Fault::new(FaultKind::Io, "server", message)
}
