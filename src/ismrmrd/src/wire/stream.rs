//! Reading streams: [`Reader`] for v1 messages from anything that reads, [`Stream`] for a file of either version.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use num_complex::Complex32;

use super::buffer::Buffer;
use super::decode::decode_into;
use super::{Message, Step, v2};
use crate::acquisition::Acquisition;
use crate::header::Header;
use crate::image::{Image, NdArray};
use crate::waveform::Waveform;
use crate::{Error, Limits};

/// The two kinds of MRD stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Messages with 2-byte numbers.
    V1,
    /// yardl records.
    V2,
}

/// Recognises a stream by its first bytes (some 1100 are enough; fewer may not be).
///
/// A v1 stream has no signature: it is taken for one when it begins with a configuration or an XML header
/// whose text looks like one.
pub fn sniff(bytes: &[u8]) -> Option<StreamKind> {
    if bytes.starts_with(b"yardl") {
        return Some(StreamKind::V2);
    }
    let (id, rest) = bytes.split_first_chunk::<2>()?;
    match u16::from_le_bytes(*id) {
        super::id::CONFIG_FILE => {
            let name = rest.get(..rest.len().min(1024))?;
            let end = name.iter().position(|&b| b == 0)?;
            let (name, padding) = name.split_at(end);
            let text = !name.is_empty()
                && std::str::from_utf8(name).is_ok_and(|n| !n.contains(char::is_control));
            (text && padding.iter().take(64).all(|&b| b == 0)).then_some(StreamKind::V1)
        }
        n @ (super::id::CONFIG_TEXT | super::id::HEADER) => {
            let (len, text) = rest.split_first_chunk::<4>()?;
            let start = text
                .iter()
                .take(64)
                .map(|&b| char::from(b))
                .collect::<String>();
            let start =
                start.trim_start_matches(['\u{ef}', '\u{bb}', '\u{bf}', ' ', '\n', '\r', '\t']);
            let looks = if n == super::id::HEADER {
                start.starts_with('<')
            } else {
                !start.contains('\0')
            };
            (looks && *len != [0; 4]).then_some(StreamKind::V1)
        }
        _ => None,
    }
}

/// Takes v1 messages from a file, a pipe or a socket.
#[derive(Debug)]
pub struct Reader<R> {
    buffer: Buffer<R>,
    limits: Limits,
    closed: bool,
    /// Samples that were given back.
    rooms: Vec<Vec<Complex32>>,
}

/// Bytes of rooms that are kept, when they are as large as the next one.
const ROOM_BYTES: usize = 16 << 20;

impl<R: Read> Reader<R> {
    /// Begins to read.
    pub fn new(source: R, limits: Limits) -> Self {
        Self {
            buffer: Buffer::new(source),
            limits,
            closed: false,
            rooms: Vec::new(),
        }
    }

    /// Gives the samples of a readout back that was done with: the next readout is decoded into their memory, which
    /// is mapped and warm.
    pub fn give_back(&mut self, samples: Vec<Complex32>) {
        let bytes = samples.capacity() * size_of::<Complex32>();
        if self.rooms.len().saturating_mul(bytes) < ROOM_BYTES {
            self.rooms.push(samples);
        }
    }

    /// The next message; `None` after `CLOSE` or at the end between two messages.
    ///
    /// # Errors
    /// As [`super::decode`], with the byte offset; [`Error::Malformed`] for an end inside a message; [`Error::Io`].
    pub fn next_message(&mut self) -> Result<Option<Message>, Error> {
        loop {
            let at = self.buffer.position();
            let need = match self.ready()? {
                Ready::Message(message) => return Ok(Some(message)),
                Ready::End => return Ok(None),
                Ready::Need(n) => n,
            };
            let came = self.buffer.fill(need).map_err(|source| Error::Io {
                what: "read the stream",
                path: PathBuf::new(),
                source,
            })?;
            if came < need {
                let have = self.buffer.unused().len();
                if have == 0 {
                    return Ok(None);
                }
                return Err(Error::CutOff {
                    place: format!("stream, message at byte {at}"),
                    have: have as u64,
                });
            }
        }
    }

    /// The next message that is there whole already; `None` when more bytes would have to be read. Never waits.
    ///
    /// # Errors
    /// As [`super::decode`], with the byte offset.
    pub fn next_ready(&mut self) -> Result<Option<Message>, Error> {
        Ok(match self.ready()? {
            Ready::Message(message) => Some(message),
            Ready::End | Ready::Need(_) => None,
        })
    }

    /// Where bytes come from: for reading on without decoding.
    pub fn source_mut(&mut self) -> &mut R {
        self.buffer.source_mut()
    }

    /// Bytes of the messages given so far.
    pub fn position(&self) -> u64 {
        self.buffer.position()
    }

    /// Whether `CLOSE` was given.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    fn ready(&mut self) -> Result<Ready, Error> {
        if self.closed {
            return Ok(Ready::End);
        }
        let at = self.buffer.position();
        let step = decode_into(self.buffer.unused(), &self.limits, &mut self.rooms)
            .map_err(|e| at_byte(e, at))?;
        Ok(match step {
            Step::Message { message, used } => {
                self.buffer.use_up(used);
                self.closed = message == Message::Close;
                Ready::Message(message)
            }
            Step::Need(n) => Ready::Need(n),
        })
    }
}

/// What is at the front of the buffer.
#[allow(clippy::large_enum_variant)] // a box would cost an allocation for each message
enum Ready {
    Message(Message),
    End,
    Need(usize),
}

pub(super) fn at_byte(error: Error, at: u64) -> Error {
    match error {
        Error::Malformed {
            place,
            found,
            needed,
        } => Error::Malformed {
            place: format!("stream, byte {at}: {place}"),
            found,
            needed,
        },
        other => other,
    }
}

/// What a stream carries, the same for both versions.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// The XML header (v2: translated).
    Header(Box<Header>),
    /// A readout.
    Acquisition(Box<Acquisition>),
    /// A waveform.
    Waveform(Waveform),
    /// An image.
    Image(Box<Image>),
    /// An array.
    Array(NdArray),
    /// Text for people, or the name or text of a configuration.
    Text(String),
    /// Something that is not reconstructed from: its name.
    Other(String),
}

/// A stream in a file.
#[derive(Debug)]
pub struct Stream {
    path: PathBuf,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    V1(Reader<File>),
    V2(Box<v2::Reader<File>>),
}

impl Stream {
    /// Opens a stream file of either version.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] for a file that is neither.
    pub fn open(path: &Path, limits: Limits) -> Result<Stream, Error> {
        let io = |source| Error::Io {
            what: "open",
            path: path.to_path_buf(),
            source,
        };
        let mut first = Vec::new();
        File::open(path)
            .and_then(|f| f.take(4096).read_to_end(&mut first))
            .map_err(io)?;
        let file = File::open(path).map_err(io)?;
        let inner = match sniff(&first) {
            Some(StreamKind::V1) => Inner::V1(Reader::new(file, limits)),
            Some(StreamKind::V2) => Inner::V2(Box::new(
                v2::Reader::new(file, limits).map_err(|e| in_file(e, path))?,
            )),
            None => {
                let start = first
                    .get(..first.len().min(8))
                    .unwrap_or_default()
                    .escape_ascii();
                return Err(Error::Malformed {
                    place: path.display().to_string(),
                    found: format!("bytes \"{start}\" at the beginning"),
                    needed: "an MRD stream (configuration or header first, or \"yardl\")".into(),
                });
            }
        };
        Ok(Stream {
            path: path.to_path_buf(),
            inner,
        })
    }

    /// Which version.
    pub fn kind(&self) -> StreamKind {
        match self.inner {
            Inner::V1(_) => StreamKind::V1,
            Inner::V2(_) => StreamKind::V2,
        }
    }

    /// Whether the end was said: `CLOSE` (v1), or the last block (v2).
    pub fn is_closed(&self) -> bool {
        match &self.inner {
            Inner::V1(reader) => reader.is_closed(),
            Inner::V2(reader) => reader.is_ended(),
        }
    }

    /// The next item; `None` at the end.
    ///
    /// # Errors
    /// As [`Reader::next_message`] and [`v2::Reader::next_item`], with the file's name.
    pub fn next_item(&mut self) -> Result<Option<Item>, Error> {
        let item = match &mut self.inner {
            Inner::V1(reader) => match reader.next_message() {
                Ok(Some(message)) => from_message(message),
                Ok(None) => Ok(None),
                Err(e) => Err(e),
            },
            Inner::V2(reader) => reader.next_item(),
        };
        item.map_err(|e| in_file(e, &self.path))
    }
}

fn in_file(error: Error, path: &Path) -> Error {
    match error {
        Error::Malformed {
            place,
            found,
            needed,
        } => Error::Malformed {
            place: format!("{}: {place}", path.display()),
            found,
            needed,
        },
        Error::Io { what, source, .. } => Error::Io {
            what,
            path: path.to_path_buf(),
            source,
        },
        Error::CutOff { place, have } => Error::CutOff {
            place: format!("{}: {place}", path.display()),
            have,
        },
        other => other,
    }
}

fn from_message(message: Message) -> Result<Option<Item>, Error> {
    Ok(Some(match message {
        Message::Header(xml) => Item::Header(Box::new(Header::parse(&xml)?)),
        Message::Acquisition(a) => Item::Acquisition(Box::new(a)),
        Message::Image(i) => Item::Image(Box::new(i)),
        Message::Waveform(w) => Item::Waveform(w),
        Message::NdArray(a) => Item::Array(a),
        Message::ConfigFile(t) | Message::ConfigText(t) | Message::Text(t) | Message::Error(t) => {
            Item::Text(t)
        }
        Message::Close => return Ok(None),
        Message::Query { .. } => Item::Other("query".into()),
        Message::Response { .. } => Item::Other("response".into()),
        Message::Dicom { name, .. } => Item::Other(format!("DICOM file {name}")),
        Message::DependencyQuery(_) => Item::Other("dependency query".into()),
    }))
}
