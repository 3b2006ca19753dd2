//! One conversation of the v1 protocol as a state machine: messages in, events out; no socket, no clock.
//!
//! ```text
//! AwaitConfig ──config──▶ AwaitHeader ──header──▶ Streaming ──close──▶ Closed
//!      └───────────────header (no config)────────────▲
//! ```
//! What the peers do differently is accepted: a configuration by name, as text or none at all; texts and queries at any
//! time; waveforms first or in between; an early `CLOSE`. What no peer may do is refused with what came and what was
//! expected: a second configuration, a second header, data before the header, anything after `CLOSE`.

use super::Message;
use crate::acquisition::Acquisition;
use crate::image::{Image, NdArray};
use crate::waveform::Waveform;

/// Where a conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing that counts has come.
    AwaitConfig,
    /// A configuration has come.
    AwaitHeader,
    /// The header has come: data may follow.
    Streaming,
    /// The peer has said or shown that no more will come.
    Closed,
}

/// A configuration as the peer gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Config {
    /// By name. Untrusted: never a path.
    Name(String),
    /// In full.
    Text(String),
}

/// What a message means at its place in the conversation.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // a box would cost an allocation for each readout
pub enum Event {
    /// What the peer wants done.
    Config(Config),
    /// The XML header, unparsed.
    Header(String),
    /// A readout.
    Acquisition(Acquisition),
    /// A waveform.
    Waveform(Waveform),
    /// An image.
    Image(Image),
    /// An array.
    Array(NdArray),
    /// Words for people, or JSON parameters (python-ismrmrd-server's client sends them after the header).
    Text(String),
    /// A question that wants a response with the same number.
    Query {
        /// Comes back in the response.
        correlation_id: u64,
        /// Key.
        text: String,
    },
    /// A question for stored dependencies (Gadgetron's noise query): meta XML.
    DependencyQuery(String),
    /// The peer says that it failed.
    Failed(String),
    /// Something that is passed over: its name.
    Other(&'static str),
    /// The orderly end.
    Closed,
    /// The peer went away without having said anything: a port check.
    Silent,
}

/// What a peer may not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Two configurations.
    #[error("a second configuration came ({second}), expected one at most; the first was {first}")]
    SecondConfig {
        /// The one in force.
        first: String,
        /// The one refused.
        second: String,
    },
    /// A configuration after the header.
    #[error("a configuration came after the header ({config}), expected it before the header")]
    LateConfig {
        /// The one refused.
        config: String,
    },
    /// Two headers.
    #[error("a second header came after {readouts} readouts, expected one header in a connection")]
    SecondHeader {
        /// Readouts so far.
        readouts: u64,
    },
    /// Data that nobody can interpret yet.
    #[error("{what} came before the header, expected a configuration or the header first")]
    BeforeHeader {
        /// Kind of message.
        what: &'static str,
    },
    /// Something after the end.
    #[error("{what} came after CLOSE, expected nothing more")]
    AfterClose {
        /// Kind of message.
        what: &'static str,
    },
    /// An answer that nobody asked for.
    #[error("a response came (number {correlation_id}), expected none: no query was sent")]
    Unasked {
        /// As in the message.
        correlation_id: u64,
    },
    /// The end without `CLOSE`.
    #[error(
        "the connection ended after {readouts} readouts without CLOSE, expected CLOSE: the scan may be incomplete"
    )]
    CutOff {
        /// Readouts so far.
        readouts: u64,
    },
}

/// The server's side of one conversation.
#[derive(Clone, Debug)]
pub struct Session {
    state: State,
    config: Option<String>,
    readouts: u64,
    messages: u64,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// At the beginning.
    pub fn new() -> Self {
        Self {
            state: State::AwaitConfig,
            config: None,
            readouts: 0,
            messages: 0,
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Readouts so far.
    pub fn readouts(&self) -> u64 {
        self.readouts
    }

    /// Takes the next message.
    ///
    /// # Errors
    /// [`SessionError`]: what came and what was expected. The session is then [`State::Closed`].
    pub fn take(&mut self, message: Message) -> Result<Event, SessionError> {
        let event = self.next(message);
        self.messages += 1;
        if event.is_err() {
            self.state = State::Closed;
        }
        event
    }

    /// The peer will send no more: end of file on its side.
    ///
    /// # Errors
    /// [`SessionError::CutOff`] when it had begun and not said `CLOSE`.
    pub fn peer_closed(&mut self) -> Result<Event, SessionError> {
        let before = std::mem::replace(&mut self.state, State::Closed);
        match before {
            State::Closed => Ok(Event::Closed),
            State::AwaitConfig if self.messages == 0 => Ok(Event::Silent),
            _ => Err(SessionError::CutOff {
                readouts: self.readouts,
            }),
        }
    }

    fn next(&mut self, message: Message) -> Result<Event, SessionError> {
        if self.state == State::Closed {
            return Err(SessionError::AfterClose {
                what: name(&message),
            });
        }
        match message {
            Message::ConfigFile(name) => self.config(format!("named {name:?}"), Config::Name(name)),
            Message::ConfigText(text) => self.config(
                format!("a text of {} bytes", text.len()),
                Config::Text(text),
            ),
            Message::Header(xml) => {
                if self.state == State::Streaming {
                    return Err(SessionError::SecondHeader {
                        readouts: self.readouts,
                    });
                }
                self.state = State::Streaming;
                Ok(Event::Header(xml))
            }
            Message::Close => {
                self.state = State::Closed;
                Ok(Event::Closed)
            }
            Message::Text(text) => Ok(Event::Text(text)),
            Message::Query {
                correlation_id,
                text,
            } => Ok(Event::Query {
                correlation_id,
                text,
            }),
            Message::Response { correlation_id, .. } => {
                Err(SessionError::Unasked { correlation_id })
            }
            Message::Error(text) => Ok(Event::Failed(text)),
            Message::DependencyQuery(text) => Ok(Event::DependencyQuery(text)),
            data if self.state != State::Streaming => {
                Err(SessionError::BeforeHeader { what: name(&data) })
            }
            Message::Acquisition(a) => {
                self.readouts += 1;
                Ok(Event::Acquisition(a))
            }
            Message::Waveform(w) => Ok(Event::Waveform(w)),
            Message::Image(i) => Ok(Event::Image(i)),
            Message::NdArray(a) => Ok(Event::Array(a)),
            other @ Message::Dicom { .. } => Ok(Event::Other(name(&other))),
        }
    }

    fn config(&mut self, words: String, config: Config) -> Result<Event, SessionError> {
        match (self.state, &self.config) {
            (State::AwaitConfig, _) => {
                self.state = State::AwaitHeader;
                self.config = Some(words);
                Ok(Event::Config(config))
            }
            (_, Some(first)) => Err(SessionError::SecondConfig {
                first: first.clone(),
                second: words,
            }),
            (_, None) => Err(SessionError::LateConfig { config: words }),
        }
    }
}

/// Kind of a message, for people.
fn name(message: &Message) -> &'static str {
    match message {
        Message::ConfigFile(_) => "a configuration's name",
        Message::ConfigText(_) => "a configuration",
        Message::Header(_) => "a header",
        Message::Close => "CLOSE",
        Message::Text(_) => "a text",
        Message::Query { .. } => "a query",
        Message::Response { .. } => "a response",
        Message::Error(_) => "an error",
        Message::Acquisition(_) => "an acquisition",
        Message::Image(_) => "an image",
        Message::Waveform(_) => "a waveform",
        Message::NdArray(_) => "an array",
        Message::Dicom { .. } => "a DICOM file",
        Message::DependencyQuery(_) => "a dependency query",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Message {
        Message::ConfigFile("default.xml".into())
    }

    fn header() -> Message {
        Message::Header("<ismrmrdHeader/>".into())
    }

    fn readout() -> Message {
        Message::Acquisition(Acquisition::default())
    }

    /// Takes all but the last, then the last.
    fn run(messages: Vec<Message>) -> (Session, Result<Event, SessionError>) {
        let mut session = Session::new();
        let mut last = Err(SessionError::CutOff { readouts: 99 });
        let n = messages.len();
        for (i, message) in messages.into_iter().enumerate() {
            last = session.take(message);
            assert!(i + 1 == n || last.is_ok(), "message {i}: {last:?}");
        }
        (session, last)
    }

    #[test]
    fn what_the_peers_do() {
        let text = || Message::Text("{\"parameters\": {}}".into());
        let query = || Message::Query {
            correlation_id: 7,
            text: "ismrmrd::version".into(),
        };
        let waveform = || Message::Waveform(Waveform::default());
        for messages in [
            // Gadgetron's client; ismrmrd_hdf5_to_stream without a config; python-ismrmrd-server's client
            vec![config(), header(), readout(), readout(), Message::Close],
            vec![header(), readout(), Message::Close],
            vec![
                config(),
                header(),
                text(),
                waveform(),
                waveform(),
                readout(),
                Message::Close,
            ],
            vec![header(), readout(), waveform(), readout(), Message::Close],
            vec![
                Message::ConfigText("[recon]\n".into()),
                header(),
                Message::Close,
            ],
            // an early end: gt_alive and the dependency query
            vec![Message::Close],
            vec![config(), Message::Close],
            vec![
                config(),
                Message::DependencyQuery("<x/>".into()),
                Message::Close,
            ],
            vec![
                query(),
                config(),
                query(),
                header(),
                query(),
                readout(),
                query(),
                Message::Close,
            ],
            vec![text(), config(), text(), header(), Message::Close],
        ] {
            let (session, last) = run(messages);
            assert_eq!(last, Ok(Event::Closed));
            assert_eq!(session.state(), State::Closed);
        }
    }

    #[test]
    fn what_no_peer_may_do() {
        use SessionError as E;
        let second = E::SecondConfig {
            first: "named \"default.xml\"".into(),
            second: "named \"default.xml\"".into(),
        };
        let late = E::LateConfig {
            config: "a text of 1 bytes".into(),
        };
        let response = Message::Response {
            correlation_id: 3,
            text: "x".into(),
        };
        for (messages, expected) in [
            (vec![config(), config()], second.clone()),
            (vec![config(), header(), config()], second),
            (vec![header(), Message::ConfigText("x".into())], late),
            (
                vec![header(), readout(), header()],
                E::SecondHeader { readouts: 1 },
            ),
            (
                vec![readout()],
                E::BeforeHeader {
                    what: "an acquisition",
                },
            ),
            (
                vec![config(), Message::Waveform(Waveform::default())],
                E::BeforeHeader { what: "a waveform" },
            ),
            (
                vec![header(), Message::Close, readout()],
                E::AfterClose {
                    what: "an acquisition",
                },
            ),
            (
                vec![Message::Close, Message::Close],
                E::AfterClose { what: "CLOSE" },
            ),
            (vec![response], E::Unasked { correlation_id: 3 }),
        ] {
            let (session, last) = run(messages);
            assert_eq!(last, Err(expected));
            assert_eq!(session.state(), State::Closed);
        }
    }

    #[test]
    fn ends_without_a_word() {
        let mut session = Session::new();
        assert_eq!(session.peer_closed(), Ok(Event::Silent));
        for (messages, readouts) in [
            (vec![config()], 0),
            (vec![header(), readout(), readout()], 2),
            (vec![Message::Text("x".into())], 0),
        ] {
            let (mut session, _) = run(messages);
            assert_eq!(
                session.peer_closed(),
                Err(SessionError::CutOff { readouts })
            );
        }
        let (mut session, _) = run(vec![header(), Message::Close]);
        assert_eq!(session.peer_closed(), Ok(Event::Closed));
    }

    #[test]
    fn after_a_fault_nothing_is_taken() {
        let (mut session, last) = run(vec![readout()]);
        assert!(last.is_err());
        assert!(matches!(
            session.take(header()),
            Err(SessionError::AfterClose { .. })
        ));
    }

    fn message(op: u8) -> Option<Message> {
        Some(match op {
            0 => config(),
            1 => Message::ConfigText("b".into()),
            2 => header(),
            3 => readout(),
            4 => Message::Waveform(Waveform::default()),
            5 => Message::Text("d".into()),
            6 => Message::DependencyQuery("h".into()),
            7 => Message::Error("g".into()),
            8 => Message::Close,
            _ => return None,
        })
    }

    proptest::proptest! {
        /// As the fuzz target `session_ops`: at most one configuration and one header, no readout before the header, and
        /// no way back from the end.
        #[test]
        fn any_order_of_messages_keeps_the_promises(ops in proptest::collection::vec(0..10_u8, 0..60)) {
            let mut session = Session::new();
            let (mut configs, mut headers, mut readouts) = (0, 0, 0_u64);
            for op in ops {
                let before = session.state();
                let taken = match message(op) {
                    Some(message) => session.take(message),
                    None => session.peer_closed(),
                };
                match &taken {
                    Ok(Event::Config(_)) => configs += 1,
                    Ok(Event::Header(_)) => headers += 1,
                    Ok(Event::Acquisition(_)) => {
                        readouts += 1;
                        assert_eq!(headers, 1);
                    }
                    Ok(_) => {}
                    Err(_) => assert_eq!(session.state(), State::Closed),
                }
                assert!(configs <= 1 && headers <= 1 && session.readouts() == readouts);
                if before == State::Closed {
                    assert_eq!(session.state(), State::Closed);
                    assert!(matches!(taken, Err(_) | Ok(Event::Closed)));
                }
            }
        }
    }
}
