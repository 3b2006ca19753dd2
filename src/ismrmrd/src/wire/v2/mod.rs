//! MRD v2: streams of yardl records.
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

mod convert;
mod header;
mod record;
mod schema;
mod value;

use std::collections::VecDeque;
use std::io::Read;
use std::path::PathBuf;

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
    schema: Schema,
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
            schema,
            header,
            header_given: false,
            left: 0,
            ended: false,
            waiting: VecDeque::new(),
        })
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
            let items = take(&mut self.buffer, |c| {
                let value = c.value(schema, schema.item, limits)?;
                Ok(convert::items(schema, &value)?)
            })?;
            self.left -= 1;
            self.waiting.extend(items);
        }
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
            return Err(Error::Malformed {
                place: format!("stream, byte {at}"),
                found: format!("the end after {} bytes of an item", buffer.unused().len()),
                needed: "more bytes: the stream is cut off".into(),
            });
        }
    }
}
