//! TLS on a connection that is read and written by two threads.
//!
//! The state of TLS stands under one lock, the socket does not: who reads waits for the peer without keeping who writes
//! from sending images, and the other way round.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConnection};

use crate::data::{Fault, FaultKind};

/// Bytes that are read from the socket at once; a record of TLS has at most 16 KiB and a head.
const PIECE: usize = 32 << 10;

/// What the server shows, and whom it lets in.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<rustls::ServerConfig>);

/// What the client trusts, and what it shows.
#[derive(Clone, Debug)]
pub struct ClientTls(Arc<ClientConfig>);

fn wrong(what: &str, path: &Path, e: impl std::fmt::Display) -> Fault {
    Fault::new(
        FaultKind::Protocol,
        "server",
        format!("{what}: {e}: {}", path.display()),
    )
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let failed = |e: rustls::pki_types::pem::Error| wrong("cannot read certificates", path, e);
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect();
    match all.map_err(failed)? {
        none if none.is_empty() => Err(wrong(
            "no certificate",
            path,
            "needed: PEM with at least one",
        )),
        some => Ok(some),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Fault> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| wrong("cannot read the private key", path, e))
}

fn roots(path: &Path) -> Result<Arc<RootCertStore>, Fault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|e| wrong("not a certificate to trust", path, e))?;
    }
    Ok(Arc::new(roots))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl ServerTls {
    /// Reads PEM files. With `clients`, a peer must show a certificate that one of these signed.
    ///
    /// # Errors
    /// The file that cannot be used, and why.
    pub fn new(
        certificate: &Path,
        private_key: &Path,
        clients: Option<&Path>,
    ) -> Result<Self, Fault> {
        let builder = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong("TLS", certificate, e))?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots(path)?, provider())
                        .build()
                        .map_err(|e| wrong("not a certificate to trust", path, e))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder
            .with_single_cert(certificates(certificate)?, key(private_key)?)
            .map_err(|e| wrong("certificate and key do not fit", certificate, e))?;
        Ok(Self(Arc::new(config)))
    }

    /// The two ends of a connection that was accepted. The handshake happens with the first read.
    pub(super) fn split(&self, socket: TcpStream) -> std::io::Result<(TlsReader, TlsWriter)> {
        let connection = ServerConnection::new(Arc::clone(&self.0)).map_err(other)?;
        Ok(split(connection.into(), socket))
    }
}

impl ClientTls {
    /// Trusts servers that show a certificate which one of `trusted` signed; shows a certificate of its own if given.
    ///
    /// # Errors
    /// The file that cannot be used, and why.
    pub fn new(trusted: &Path, own: Option<(&Path, &Path)>) -> Result<Self, Fault> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong("TLS", trusted, e))?
            .with_root_certificates(roots(trusted)?);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some((certificate, private_key)) => builder
                .with_client_auth_cert(certificates(certificate)?, key(private_key)?)
                .map_err(|e| wrong("certificate and key do not fit", certificate, e))?,
        };
        Ok(Self(Arc::new(config)))
    }

    /// The two ends of a connection that was made, after the handshake.
    pub(super) fn split(
        &self,
        host: &str,
        socket: TcpStream,
    ) -> std::io::Result<(TlsReader, TlsWriter)> {
        let name = ServerName::try_from(host.to_owned()).map_err(other)?;
        let connection = ClientConnection::new(Arc::clone(&self.0), name).map_err(other)?;
        let (mut reader, writer) = split(connection.into(), socket);
        while reader.0.lock().is_handshaking() {
            if !reader.advance()? {
                return Err(Error::new(
                    ErrorKind::UnexpectedEof,
                    "the server hung up in the handshake",
                ));
            }
        }
        Ok((reader, writer))
    }
}

fn other(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::InvalidData, e)
}

struct Shared {
    connection: Mutex<Connection>,
    socket: TcpStream,
    /// Held while bytes leave, so that records stay in order.
    leaving: Mutex<()>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Sends what TLS has to send.
    fn flush(&self) -> std::io::Result<()> {
        let _order = self.leaving.lock().unwrap_or_else(|e| e.into_inner());
        loop {
            let mut out = Vec::new();
            let mut connection = self.lock();
            while connection.wants_write() {
                connection.write_tls(&mut out)?;
            }
            drop(connection);
            if out.is_empty() {
                return Ok(());
            }
            (&self.socket).write_all(&out)?;
        }
    }
}

fn split(connection: Connection, socket: TcpStream) -> (TlsReader, TlsWriter) {
    let shared = Arc::new(Shared {
        connection: Mutex::new(connection),
        socket,
        leaving: Mutex::new(()),
    });
    let reader = TlsReader(Arc::clone(&shared), Vec::new(), 0);
    (reader, TlsWriter(shared))
}

/// The reading end: shared state, plain bytes that are there, and how many of them were given.
pub(super) struct TlsReader(Arc<Shared>, Vec<u8>, usize);

impl TlsReader {
    /// Waits for bytes of the peer and takes them in; false at the end.
    fn advance(&mut self) -> std::io::Result<bool> {
        if self.0.lock().wants_write() {
            self.0.flush()?;
        }
        let mut piece = [0; PIECE];
        let n = (&self.0.socket).read(&mut piece)?;
        let mut rest = piece.get(..n).unwrap_or_default();
        let mut connection = self.0.lock();
        let mut taken = Ok(());
        while !rest.is_empty() && taken.is_ok() {
            connection.read_tls(&mut rest)?;
            match connection.process_new_packets() {
                Ok(state) => {
                    let mut plain = vec![0; state.plaintext_bytes_to_read()];
                    connection.reader().read_exact(&mut plain)?;
                    self.1.append(&mut plain);
                    if state.peer_has_closed() {
                        return Ok(false);
                    }
                }
                Err(e) => taken = Err(other(e)),
            }
        }
        let wants_write = connection.wants_write();
        drop(connection);
        if wants_write {
            // An answer of the handshake, or the alert that says why it failed.
            self.0.flush()?;
        }
        taken.map(|()| n > 0)
    }
}

impl Read for TlsReader {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let mut goes_on = true;
        while self.2 == self.1.len() && goes_on {
            self.1.clear();
            self.2 = 0;
            goes_on = self.advance()?;
        }
        let there = self.1.get(self.2..).unwrap_or_default();
        let n = there.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), there.get(..n)) {
            to.copy_from_slice(from);
        }
        self.2 += n;
        Ok(n)
    }
}

/// The writing end; says goodbye when it is dropped.
pub(super) struct TlsWriter(Arc<Shared>);

impl Write for TlsWriter {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.0.lock().writer().write(buf)?;
        self.0.flush()?;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Drop for TlsWriter {
    fn drop(&mut self) {
        self.0.lock().send_close_notify();
        // A peer that is gone needs no goodbye.
        drop(self.0.flush());
    }
}
