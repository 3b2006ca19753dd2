//! MRD v2: streams of yardl records, read ([`Reader`]) and written ([`Writer`]).
//!
//! A stream carries its own schema as JSON, and the reader follows that schema instead of one version's
//! code: streams of 2.0 (times as vendor ticks) and 2.2 (times in nanoseconds) are read alike, and items
//! that are not understood are passed over.
//!
//! Times in nanoseconds become what v1 headers carry: time stamps in milliseconds (as `ismrmrd_to_mrd` and
//! `mrd_to_ismrmrd` take a tick to be), modulo 2³² (49 days); sample times in microseconds.
//!
//! # Source
//! yardl "Binary encoding reference"; `ismrmrd/mrd: model/`.

mod build;
mod convert;
mod header;
mod record;
mod schema;
#[cfg(test)]
mod tests;
mod value;

use std::collections::VecDeque;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use self::record::Record;
use self::schema::Schema;
use self::value::{Cursor, Short, Stop, Value};
use super::Item;
use super::buffer::Buffer;
use super::stream::at_byte;
use crate::{Error, Header, Limits};

/// Reads a v2 stream.
#[derive(Debug)]
pub struct Reader<R> {
    buffer: Buffer<R>,
    limits: Limits,
    text: Arc<str>,
    schema: Arc<Schema>,
    header: Option<Header>,
    header_given: bool,
    /// Items left in the current block.
    left: u64,
    ended: bool,
    /// Items of a bucket that was taken apart.
    waiting: VecDeque<Item>,
}

impl<R: Read> Reader<R> {
    /// Reads signature, schema and header.
    ///
    /// # Errors
    /// [`Error::Malformed`]: another signature, version or protocol, a schema that does not hold together,
    /// the end before the header's; [`Error::TooLarge`]; [`Error::Io`].
    pub fn new(source: R, limits: Limits) -> Result<Self, Error> {
        let mut buffer = Buffer::new(source);
        let text = take(&mut buffer, |c| {
            let signature = c.bytes(5)?;
            if signature != b"yardl" {
                let found = format!("\"{}\"", signature.escape_ascii());
                return Err(Stop::malformed("signature", found, "\"yardl\""));
            }
            let version = c.u32_fixed()?;
            if version != 1 {
                return Err(Stop::malformed(
                    "version of the binary format",
                    version.to_string(),
                    "1",
                ));
            }
            Ok(c.text(limits.xml_bytes)?.to_owned())
        })?;
        let schema = Schema::parse(&text)?;
        let header = take(&mut buffer, |c| {
            let value = c.value(&schema, schema.header, &limits)?;
            match &value {
                Value::Null => Ok(None),
                value => Ok(Some(Record::new(&schema, value).header()?)),
            }
        })?;
        Ok(Self {
            buffer,
            limits,
            text: text.into(),
            schema: Arc::new(schema),
            header,
            header_given: false,
            left: 0,
            ended: false,
            waiting: VecDeque::new(),
        })
    }

    /// Whether the last block was read.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Writes an answer in the schema of this stream.
    pub fn writer(&self) -> Writer {
        Writer {
            text: Arc::clone(&self.text),
            schema: Arc::clone(&self.schema),
        }
    }

    /// Where bytes come from: for reading on without decoding.
    pub fn source_mut(&mut self) -> &mut R {
        self.buffer.source_mut()
    }

    /// The header, when the stream has one.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// The next item, the header first; `None` at the end.
    ///
    /// Acquisitions and waveforms of a bucket are given one by one, image arrays as images.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the byte offset: bytes that contradict the schema, counters that v1 headers
    /// cannot hold, an end inside an item; [`Error::TooLarge`]; [`Error::Io`].
    pub fn next_item(&mut self) -> Result<Option<Item>, Error> {
        if !self.header_given {
            self.header_given = true;
            if let Some(header) = &self.header {
                return Ok(Some(Item::Header(Box::new(header.clone()))));
            }
        }
        loop {
            if let Some(item) = self.waiting.pop_front() {
                return Ok(Some(item));
            }
            if self.ended {
                return Ok(None);
            }
            if self.left == 0 {
                self.left = take(&mut self.buffer, |c| c.varint())?;
                self.ended = self.left == 0;
                continue;
            }
            let (schema, limits) = (&self.schema, &self.limits);
            let items = take(&mut self.buffer, |c| next(c, schema, limits))?;
            self.left -= 1;
            self.waiting.extend(items);
        }
    }
}

impl<R: Read> Reader<R> {
    /// The next item if it is there whole already; `None` when more bytes would have to be read, or at the end. Never
    /// waits.
    ///
    /// # Errors
    /// As [`Self::next_item`], except those of reading.
    pub fn next_ready(&mut self) -> Result<Option<Item>, Error> {
        if !self.header_given {
            return self.next_item();
        }
        loop {
            if let Some(item) = self.waiting.pop_front() {
                return Ok(Some(item));
            }
            if self.ended {
                return Ok(None);
            }
            if self.left == 0 {
                let Some(left) = ready(&mut self.buffer, |c| c.varint())? else {
                    return Ok(None);
                };
                self.left = left;
                self.ended = left == 0;
                continue;
            }
            let (schema, limits) = (&self.schema, &self.limits);
            let Some(items) = ready(&mut self.buffer, |c| next(c, schema, limits))? else {
                return Ok(None);
            };
            self.left -= 1;
            self.waiting.extend(items);
        }
    }
}

fn next(c: &mut Cursor<'_>, schema: &Schema, limits: &Limits) -> Result<Vec<Item>, Stop> {
    let value = c.value(schema, schema.item, limits)?;
    Ok(convert::items(schema, &value)?)
}

/// The schema that is written unless another is asked for: that of MRD 2.2.
const SCHEMA: &str = include_str!("mrd_2_2.json");

/// Writes a v2 stream piece by piece into buffers of the caller's.
///
/// The peers' readers take a stream only in their own version's schema, so an answer is written in the schema of the
/// question ([`Reader::writer`]).
///
/// # Source
/// As for reading. The schema of [`Writer::new`] is that of `ismrmrd/mrd` 2.2 (MIT), byte for byte as its own programs
/// write it.
#[derive(Clone, Debug)]
pub struct Writer {
    text: Arc<str>,
    schema: Arc<Schema>,
}

impl Writer {
    /// Writes MRD 2.2.
    ///
    /// # Errors
    /// None in practice: the schema ships with this package.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            text: SCHEMA.into(),
            schema: Arc::new(Schema::parse(SCHEMA)?),
        })
    }

    /// Appends what a stream begins with: signature, schema and header.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a word or a date of the header that v2 has no place for; `out` is then as it was.
    pub fn begin(&self, header: Option<&Header>, out: &mut Vec<u8>) -> Result<(), Error> {
        let before = out.len();
        out.extend(b"yardl");
        out.extend(1_u32.to_le_bytes());
        value::put_varint(self.text.len() as u64, out);
        out.extend(self.text.as_bytes());
        let schema = &*self.schema;
        let builder = build::Builder { schema };
        let header = header.map_or(Ok(Value::Null), |h| builder.header(h));
        let put = header.and_then(|h| value::put(schema, schema.header, &h, out));
        if put.is_err() {
            out.truncate(before);
        }
        put
    }

    /// Appends one item as a block of its own, so that a reader gets it as soon as it is written.
    ///
    /// # Errors
    /// [`Error::Malformed`] for an item that v2 does not have (texts), or that contradicts itself; `out` is then as it
    /// was.
    pub fn item(&self, item: &Item, out: &mut Vec<u8>) -> Result<(), Error> {
        let schema = &*self.schema;
        let builder = build::Builder { schema };
        let value = match item {
            Item::Acquisition(a) => builder.acquisition(a)?,
            Item::Waveform(w) => builder.waveform(w)?,
            Item::Image(i) => builder.image(i)?,
            Item::Array(a) => builder.array(a)?,
            Item::Header(_) | Item::Text(_) | Item::Other(_) => {
                return Err(Error::Malformed {
                    place: "item for MRD v2".into(),
                    found: "a header, a text or something that was not understood".into(),
                    needed: "an acquisition, a waveform, an image or an array".into(),
                });
            }
        };
        let before = out.len();
        value::put_varint(1, out);
        let put = value::put(schema, schema.item, &value, out);
        if put.is_err() {
            out.truncate(before);
        }
        put
    }

    /// Appends what a stream ends with.
    pub fn end(&self, out: &mut Vec<u8>) {
        value::put_varint(0, out);
    }
}

/// Runs a decoder on what is there; `None` when that is not enough.
fn ready<R: Read, T>(
    buffer: &mut Buffer<R>,
    decode: impl FnOnce(&mut Cursor<'_>) -> Result<T, Stop>,
) -> Result<Option<T>, Error> {
    let at = buffer.position();
    let mut cursor = Cursor::new(buffer.unused());
    match decode(&mut cursor) {
        Ok(value) => {
            let used = cursor.at();
            buffer.use_up(used);
            Ok(Some(value))
        }
        Err(Stop::Short(_)) => Ok(None),
        Err(Stop::Error(e)) => Err(at_byte(e, at)),
    }
}

/// Runs a decoder on what is there, reading on until it has enough.
fn take<R: Read, T>(
    buffer: &mut Buffer<R>,
    mut decode: impl FnMut(&mut Cursor<'_>) -> Result<T, Stop>,
) -> Result<T, Error> {
    loop {
        let at = buffer.position();
        let mut cursor = Cursor::new(buffer.unused());
        let need = match decode(&mut cursor) {
            Ok(value) => {
                let used = cursor.at();
                buffer.use_up(used);
                return Ok(value);
            }
            Err(Stop::Error(e)) => return Err(at_byte(e, at)),
            Err(Stop::Short(Short(n))) => n,
        };
        let have = buffer.unused().len();
        // Decoding begins again each time, so the amount grows by doubling.
        let came = buffer.fill(need.max(have)).map_err(|source| Error::Io {
            what: "read the stream",
            path: PathBuf::new(),
            source,
        })?;
        if came < need {
            return Err(Error::CutOff {
                place: format!("stream, item at byte {at}"),
                have: buffer.unused().len() as u64,
            });
        }
    }
}
