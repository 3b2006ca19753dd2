//! `GET /metrics` and `GET /health` on a port of their own. By hand: two fixed answers need no framework, and the
//! small ones are no longer kept.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// A request's first line and headers fit; the rest is not read.
const MAX_REQUEST_BYTES: usize = 8192;

/// What to answer.
pub(super) struct Pages<'a> {
    pub(super) metrics: &'a (dyn Fn() -> String + Sync),
    /// Whether scans are taken, and one line about it.
    pub(super) health: &'a (dyn Fn() -> (bool, String) + Sync),
    pub(super) allows: &'a (dyn Fn(std::net::IpAddr) -> bool + Sync),
}

/// Answers one request after the other until `should_stop` says so.
pub(super) fn serve(listener: &TcpListener, pages: &Pages<'_>, should_stop: &dyn Fn() -> bool) {
    for stream in listener.incoming() {
        if should_stop() {
            return;
        }
        if let Ok(stream) = stream
            && stream.peer_addr().is_ok_and(|a| (pages.allows)(a.ip()))
        {
            // A client that breaks off mid-answer is its own affair.
            drop(answer(stream, pages));
        }
    }
}

fn answer(mut stream: TcpStream, pages: &Pages<'_>) -> std::io::Result<()> {
    let limit = Some(Duration::from_secs(2));
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < MAX_REQUEST_BYTES {
        match stream.read(&mut piece)? {
            0 => break,
            n => request.extend(piece.get(..n).unwrap_or_default()),
        }
    }
    let line = request.split(|b| *b == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (status, body) = match (words.next(), words.next()) {
        (Some("GET"), Some("/metrics")) => ("200 OK", (pages.metrics)()),
        (Some("GET"), Some("/health")) => match (pages.health)() {
            (true, words) => ("200 OK", words),
            (false, words) => ("503 Service Unavailable", words),
        },
        (Some("GET"), _) => ("404 Not Found", "there are /metrics and /health\n".into()),
        _ => ("405 Method Not Allowed", "GET only\n".into()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())
}
