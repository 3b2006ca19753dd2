//! The other side of the wire: sends a scan to any MRD server and takes what comes back.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use ismrmrd::acquisition::AcquisitionRef;
use ismrmrd::wire::{Message, Reader, encode, encode_acquisition};
use ismrmrd::{Image, Limits};

use super::front::fault;
use super::tls::ClientTls;
use crate::data::{Fault, FaultKind};

/// Bytes that are gathered before they are sent, when nobody waits for them.
const GATHER_BYTES: usize = 256 << 10;

/// The sending half of a connection.
pub struct Client {
    stream: TcpStream,
    writer: Box<dyn Write + Send>,
    out: Vec<u8>,
    sent_bytes: u64,
}

/// What a server says.
#[derive(Debug)]
pub enum Received {
    /// An image.
    Image(Box<Image>),
    /// Words.
    Text(String),
    /// An answer.
    Response(String),
    /// Its header, arrays, waveforms: passed over.
    Other,
    /// The orderly end.
    Close,
    /// The end without CLOSE.
    CutOff,
}

/// The receiving half.
pub struct Receiver {
    reader: Reader<Box<dyn Read + Send>>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody answers at the address.
    pub fn connect(address: &str, timeout: Duration) -> Result<(Self, Receiver), Fault> {
        Self::connect_with(address, timeout, None)
    }

    /// Connects, with TLS if it is given.
    ///
    /// # Errors
    /// Nobody answers at the address, or not somebody whom we trust.
    pub fn connect_with(
        address: &str,
        timeout: Duration,
        tls: Option<&ClientTls>,
    ) -> Result<(Self, Receiver), Fault> {
        let failed = |e: std::io::Error| {
            Fault::new(
                FaultKind::Io,
                "server",
                format!(
                    "cannot connect to {address}: {e}; does a server run there? `cauda serve` starts one"
                ),
            )
        };
        let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
        for at in address.to_socket_addrs().map_err(failed)? {
            match TcpStream::connect_timeout(&at, timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(failed)?;
                    let (reader, writer): (Box<dyn Read + Send>, Box<dyn Write + Send>) = match tls
                    {
                        Some(tls) => {
                            let host = address.rsplit_once(':').map_or(address, |a| a.0);
                            let (reader, writer) = tls
                                .split(host, stream.try_clone().map_err(failed)?)
                                .map_err(failed)?;
                            (Box::new(reader), Box::new(writer))
                        }
                        None => (
                            Box::new(stream.try_clone().map_err(failed)?),
                            Box::new(stream.try_clone().map_err(failed)?),
                        ),
                    };
                    let reader = Reader::new(reader, Limits::default());
                    let client = Self {
                        stream,
                        writer,
                        out: Vec::new(),
                        sent_bytes: 0,
                    };
                    return Ok((client, Receiver { reader }));
                }
                Err(e) => last = e,
            }
        }
        Err(failed(last))
    }

    /// Sends a message at once, with everything that was gathered before it.
    ///
    /// # Errors
    /// The server took no more.
    pub fn send(&mut self, message: &Message) -> Result<(), Fault> {
        encode(message, &mut self.out).map_err(fault)?;
        self.flush()
    }

    /// Gathers a readout; it leaves with others, or with [`Self::flush`].
    ///
    /// # Errors
    /// The server took no more.
    pub fn readout(&mut self, readout: &AcquisitionRef<'_>) -> Result<(), Fault> {
        encode_acquisition(readout, &mut self.out).map_err(fault)?;
        if self.out.len() >= GATHER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Sends bytes as they are, with everything that was gathered before them.
    ///
    /// # Errors
    /// The server took no more.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.out.extend_from_slice(bytes);
        self.flush()
    }

    /// Sends what was gathered.
    ///
    /// # Errors
    /// The server took no more.
    pub fn flush(&mut self) -> Result<(), Fault> {
        let sent = self
            .writer
            .write_all(&self.out)
            .and_then(|()| self.writer.flush());
        self.sent_bytes += self.out.len() as u64;
        self.out.clear();
        sent.map_err(|e| {
            Fault::new(
                FaultKind::Io,
                "server",
                format!("the server takes no more: {e}; its last words say why"),
            )
        })
    }

    /// Bytes sent so far.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// The connection itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

impl Receiver {
    /// Waits for the next thing.
    ///
    /// # Errors
    /// Bytes that are no MRD.
    pub fn receive(&mut self) -> Result<Received, Fault> {
        if self.reader.is_closed() {
            return Ok(Received::Close);
        }
        let message = match self.reader.next_message() {
            Ok(message) => message,
            // A reset is an end like any other here: what came before it counts.
            Err(ismrmrd::Error::Io { .. }) => return Ok(Received::CutOff),
            Err(e) => return Err(fault(e)),
        };
        Ok(match message {
            None => Received::CutOff,
            Some(Message::Close) => Received::Close,
            Some(Message::Image(image)) => Received::Image(Box::new(image)),
            Some(Message::Text(text) | Message::Error(text)) => Received::Text(text),
            Some(Message::Response { text, .. }) => Received::Response(text),
            Some(_) => Received::Other,
        })
    }

    /// Everything up to the end: images, words, and whether the end was orderly.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn rest(&mut self) -> Result<(Vec<Image>, Vec<String>, bool), Fault> {
        let (mut images, mut words) = (Vec::new(), Vec::new());
        loop {
            match self.receive()? {
                Received::Image(image) => images.push(*image),
                Received::Text(text) | Received::Response(text) => words.push(text),
                Received::Other => {}
                Received::Close => return Ok((images, words, true)),
                Received::CutOff => return Ok((images, words, false)),
            }
        }
    }
}
