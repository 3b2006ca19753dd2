//! Scanners on the line: a scan streams in while it is measured, images go back as soon as they are there.
//!
//! In: MRD v1 messages over TCP (or MRD v1 and v2 on pipes). Out: MRD images, texts, a spill file when something failed.
//! It stands apart from `pipeline` because it knows sockets, peers and their bad habits; the chain behind is the same as
//! for a file. Threads, no async: a scanner or two, compute-bound.
//!
//! ```text
//! socket ─▶ [spill] ─▶ front (v1 | v2) ─▶ chain ─▶ sink (v1 | v2) ─▶ [outbox, bounded in bytes] ─▶ socket
//! ```
//! Nothing that comes from the network is a path, and nothing is allocated before its declared length passed the limits.
//! A fault reaches the peer as TEXT and then CLOSE, never as silence, and the connection is read on until the peer has
//! had time to see it.

mod client;
mod config;
mod connection;
mod front;
mod http;
mod listen;
mod names;
mod noise;
mod outbox;
mod query;
mod record;
mod sink;
mod source;
mod spill;
mod stats;
mod tls;

pub use client::{Client, Received, Receiver};
pub use config::ServerConfig;
pub use connection::{Ending, serve_pipe};
pub use listen::Server;
pub use noise::NoiseStore;
pub use record::{Recorded, record};
pub use stats::Stats;
pub use tls::{ClientTls, ServerTls};
