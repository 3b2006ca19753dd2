//! A server in this process, and peers that speak to it byte by byte.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use cauda::phantom::{Simulate, Simulated, simulate};
use cauda::server::{Client, Receiver, Server, ServerConfig, Stats};
use ismrmrd::Image;
use ismrmrd::wire::{Message, encode};

/// A server on a free port of loopback; ends in order when dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) stats: Arc<Stats>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = ServerConfig::new(2, 1 << 30);
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.linger = Duration::from_secs(2);
        change(&mut config);
        let server = Server::bind(config).unwrap();
        let (address, metrics, stats) = (
            server.address().unwrap(),
            server.metrics_address().unwrap(),
            server.stats(),
        );
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            server.run(&|| asked.load(Ordering::Relaxed)).unwrap();
        });
        Self {
            address,
            metrics,
            stats,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn connect(&self) -> (Client, Receiver) {
        Client::connect(&self.address.to_string(), Duration::from_secs(5)).unwrap()
    }

    /// Sends bytes, says no more, and takes everything that comes back.
    pub(crate) fn talk(&self, bytes: &[u8]) -> Heard {
        self.talk_in(bytes, bytes.len().max(1))
    }

    /// As [`Self::talk`], in pieces.
    pub(crate) fn talk_in(&self, bytes: &[u8], piece: usize) -> Heard {
        let (client, mut receiver) = self.connect();
        let stream = client.stream().try_clone().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for piece in bytes.chunks(piece) {
                    // The server may have said goodbye already.
                    if (&stream).write_all(piece).is_err() {
                        break;
                    }
                }
                drop(stream.shutdown(Shutdown::Write));
            });
            let (images, words, is_closed) = receiver.rest().unwrap();
            Heard {
                images,
                words,
                is_closed,
            }
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ask_to_stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// What a server said.
pub(crate) struct Heard {
    pub(crate) images: Vec<Image>,
    pub(crate) words: Vec<String>,
    /// Whether it said `CLOSE`.
    pub(crate) is_closed: bool,
}

impl Heard {
    /// The words of its fault.
    pub(crate) fn fault(&self) -> &str {
        let fault = self.words.iter().find(|w| w.starts_with("ERR"));
        fault.map_or_else(|| panic!("no fault among {:?}", self.words), String::as_str)
    }

    pub(crate) fn assert_good(&self, images: usize) {
        assert!(self.is_closed, "no CLOSE: {:?}", self.words);
        assert!(
            !self.words.iter().any(|w| w.starts_with("ERR")),
            "{:?}",
            self.words
        );
        assert_eq!(self.images.len(), images, "{:?}", self.words);
    }
}

/// A scan of a few kilobytes: two slices of 16 x 16, two coils, noise in front.
pub(crate) fn tiny() -> Simulated {
    simulate(&Simulate {
        matrix: [16, 16, 1],
        n_slices: 2,
        n_coils: 2,
        acceleration: [1, 1],
        acs: [0, 0],
        n_noise_readouts: 2,
        noise_samples: 64,
        ..Simulate::preset("small").unwrap()
    })
    .unwrap()
}

/// A v1 stream of messages.
pub(crate) fn wire(messages: &[Message]) -> Vec<u8> {
    let mut out = Vec::new();
    for message in messages {
        encode(message, &mut out).unwrap();
    }
    out
}

/// A scan as messages: configuration by name, header, readouts, `CLOSE`.
pub(crate) fn messages(scan: &Simulated, config: Option<&str>) -> Vec<Message> {
    let mut out: Vec<Message> = config
        .map(|name| Message::ConfigFile(name.into()))
        .into_iter()
        .collect();
    out.push(Message::Header(scan.header.to_xml()));
    out.extend(scan.acquisitions.iter().cloned().map(Message::Acquisition));
    out.push(Message::Close);
    out
}
