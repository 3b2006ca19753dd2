//! MRD streams: v1 messages and v2 (yardl) records.
//!
//! [`decode`] and [`encode`] turn bytes into [`Message`]s and back, without I/O; [`Reader`] takes messages
//! from a file or a socket; [`Session`] says what each of them means at its place; [`v2`] reads and writes the
//! newer format; [`Stream`] reads a file of either kind.

mod buffer;
mod decode;
mod encode;
mod session;
mod stream;
#[cfg(test)]
mod tests;
pub mod v2;

#[cfg(feature = "hdf5")]
pub(crate) use decode::values;
pub use decode::{Step, decode};
pub use encode::{encode, encode_acquisition};
#[cfg(feature = "hdf5")]
pub(crate) use encode::{pixels as put_pixels, values as put_values};
pub use session::{Config, Event, Session, SessionError, State};
pub use stream::{Item, Reader, Stream, StreamKind, sniff};

use crate::acquisition::Acquisition;
use crate::image::{Image, NdArray};
use crate::waveform::Waveform;

/// Numbers of the v1 messages.
///
/// # Source
/// ISMRMRD `mrd_messages.md`; 6 to 8, 1018 and 1019: Gadgetron `MessageID.h`.
#[allow(missing_docs)]
pub mod id {
    pub const CONFIG_FILE: u16 = 1;
    pub const CONFIG_TEXT: u16 = 2;
    pub const HEADER: u16 = 3;
    pub const CLOSE: u16 = 4;
    pub const TEXT: u16 = 5;
    pub const QUERY: u16 = 6;
    pub const RESPONSE: u16 = 7;
    pub const ERROR: u16 = 8;
    pub const ACQUISITION: u16 = 1008;
    pub const DICOM_WITH_NAME: u16 = 1018;
    pub const DEPENDENCY_QUERY: u16 = 1019;
    pub const IMAGE: u16 = 1022;
    pub const WAVEFORM: u16 = 1026;
    pub const NDARRAY: u16 = 1030;
}

/// One message of the v1 protocol. Texts are without the trailing NULs that some peers send.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Name of a configuration at the server.
    ConfigFile(String),
    /// A configuration itself.
    ConfigText(String),
    /// The XML header.
    Header(String),
    /// No more from this side.
    Close,
    /// Text for people; python-ismrmrd-server also sends JSON parameters this way.
    Text(String),
    /// Gadgetron only.
    Query {
        /// Comes back in the response.
        correlation_id: u64,
        /// Key.
        text: String,
    },
    /// Gadgetron only.
    Response {
        /// As in the query.
        correlation_id: u64,
        /// Answer.
        text: String,
    },
    /// Gadgetron's links between its own processes.
    Error(String),
    /// A readout.
    Acquisition(Acquisition),
    /// An image.
    Image(Image),
    /// A waveform.
    Waveform(Waveform),
    /// An array; its axes are reversed on the wire (fastest first).
    NdArray(NdArray),
    /// A DICOM file.
    Dicom {
        /// The file.
        bytes: Vec<u8>,
        /// Its name.
        name: String,
        /// Meta attributes.
        meta: String,
    },
    /// Gadgetron: asks for stored dependencies; meta XML.
    DependencyQuery(String),
}

impl Message {
    /// The message's number.
    pub fn id(&self) -> u16 {
        match self {
            Message::ConfigFile(_) => id::CONFIG_FILE,
            Message::ConfigText(_) => id::CONFIG_TEXT,
            Message::Header(_) => id::HEADER,
            Message::Close => id::CLOSE,
            Message::Text(_) => id::TEXT,
            Message::Query { .. } => id::QUERY,
            Message::Response { .. } => id::RESPONSE,
            Message::Error(_) => id::ERROR,
            Message::Acquisition(_) => id::ACQUISITION,
            Message::Image(_) => id::IMAGE,
            Message::Waveform(_) => id::WAVEFORM,
            Message::NdArray(_) => id::NDARRAY,
            Message::Dicom { .. } => id::DICOM_WITH_NAME,
            Message::DependencyQuery(_) => id::DEPENDENCY_QUERY,
        }
    }
}
