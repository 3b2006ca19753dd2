//! The listening server: who may come in, how many, and how it ends.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::config::ServerConfig;
use super::connection::{Control, Peer, Shared, converse};
use super::http;
use super::spill;
use super::stats::Stats;
use crate::data::{Fault, FaultKind};

/// Connections beside those that scan: questions, health checks, scans that wait to be refused.
const EXTRA_CONNECTIONS: usize = 16;

/// How often the server looks whether it should end.
const LOOK: Duration = Duration::from_millis(20);

/// A server that is bound and may run.
pub struct Server {
    shared: Shared,
    listener: TcpListener,
    metrics: Option<TcpListener>,
}

impl Server {
    /// Takes the ports.
    ///
    /// # Errors
    /// Those of [`ServerConfig::check`]; a port that is taken; an unknown default protocol.
    pub fn bind(config: ServerConfig) -> Result<Self, Fault> {
        config.check()?;
        super::names::choose(None, &config.default_protocol)?;
        let listener = listen(config.listen, "scans")?;
        let metrics = match config.metrics {
            Some(at) => Some(listen(at, "metrics")?),
            None => None,
        };
        if let Some(dir) = &config.spill {
            for path in spill::left_over(dir) {
                tracing::warn!(path = %path.display(), "a scan of an earlier run is kept here; `cauda recon` reads it");
            }
        }
        Ok(Self {
            shared: Shared::new(config),
            listener,
            metrics,
        })
    }

    /// Where scans are taken.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> Result<SocketAddr, Fault> {
        address(&self.listener)
    }

    /// Where metrics are told.
    ///
    /// # Errors
    /// The system does not say.
    pub fn metrics_address(&self) -> Result<Option<SocketAddr>, Fault> {
        self.metrics.as_ref().map(address).transpose()
    }

    /// The counters.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.shared.stats)
    }

    /// Serves until `should_stop` says so; then takes no new scan, lets running ones end within the drain time, and
    /// ends the rest in order.
    ///
    /// # Errors
    /// The listener failed.
    pub fn run(&self, should_stop: &(dyn Fn() -> bool + Sync)) -> Result<(), Fault> {
        let stopping = AtomicBool::new(false);
        let open: Mutex<BTreeMap<u64, Arc<Control>>> = Mutex::new(BTreeMap::new());
        let lock = || open.lock().unwrap_or_else(|e| e.into_inner());
        let is_stopping = || stopping.load(Ordering::Acquire);
        let health = || {
            let running = self.shared.stats.running.load(Ordering::Relaxed);
            let (ok, word) = (
                !is_stopping(),
                if is_stopping() { "stopping" } else { "ok" },
            );
            (
                ok,
                format!(
                    "{word}\nscans_running {running}\nscans_max {}\n",
                    self.shared.config.max_scans
                ),
            )
        };
        let pages = http::Pages {
            metrics: &|| self.shared.metrics(),
            health: &health,
            allows: &|ip| self.shared.config.allows(ip),
        };
        std::thread::scope(|scope| {
            if let Some(listener) = &self.metrics {
                let pages = &pages;
                let is_stopping = &is_stopping;
                scope.spawn(move || http::serve(listener, pages, is_stopping));
            }
            let acceptor = scope.spawn(|| {
                let numbers = AtomicU64::new(1);
                for stream in self.listener.incoming() {
                    if is_stopping() {
                        return;
                    }
                    let stream = match stream {
                        Ok(stream) => stream,
                        Err(e) => {
                            // Out of descriptors, or a peer that left while it waited: the next may fare better.
                            tracing::warn!(message = %e, "a connection could not be taken");
                            std::thread::sleep(LOOK);
                            continue;
                        }
                    };
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    let Some((peer, control)) = self.admit(stream, number, lock().len()) else {
                        continue;
                    };
                    let control = Arc::new(control);
                    lock().insert(number, Arc::clone(&control));
                    let lock = &lock;
                    scope.spawn(move || {
                        converse(peer, &self.shared, &control);
                        lock().remove(&number);
                    });
                }
            });
            while !should_stop() && !acceptor.is_finished() {
                std::thread::sleep(LOOK);
            }
            stopping.store(true, Ordering::Release);
            tracing::info!(connections = lock().len(), "stopping");
            for listener in [Some(&self.listener), self.metrics.as_ref()]
                .into_iter()
                .flatten()
            {
                wake(listener);
            }
            let begun = Instant::now();
            let wait = |limit: Duration| {
                while !lock().is_empty() && begun.elapsed() < limit {
                    std::thread::sleep(LOOK);
                }
            };
            // Who has not begun a scan has nothing to lose.
            for control in lock()
                .values()
                .filter(|c| !c.is_scanning.load(Ordering::Acquire))
            {
                control.cancel();
            }
            wait(self.shared.config.drain);
            for control in lock().values() {
                control.cancel();
            }
            // They now send what was complete and say goodbye. Who does not read is left behind.
            wait(self.shared.config.drain + Duration::from_secs(2));
            for control in lock().values() {
                if let Some(socket) = &control.socket {
                    drop(socket.shutdown(std::net::Shutdown::Both));
                }
            }
        });
        tracing::info!("stopped");
        Ok(())
    }

    /// Lets a peer in, or says why not.
    fn admit(&self, stream: TcpStream, number: u64, open: usize) -> Option<(Peer, Control)> {
        let (config, stats) = (&self.shared.config, &self.shared.stats);
        let from = stream.peer_addr().ok()?;
        if !config.allows(from.ip()) {
            // A peer that was not invited learns nothing, not even who we are.
            stats.refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%from, "refused: not among the allowed peers");
            return None;
        }
        if open >= config.max_scans + EXTRA_CONNECTIONS {
            stats.refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%from, open, "refused: too many connections");
            return None;
        }
        stats.connections.fetch_add(1, Ordering::Relaxed);
        let set = || -> std::io::Result<(Peer, Control)> {
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(config.write_timeout))?;
            let (reader, writer): (Box<dyn Read + Send>, Box<dyn Write + Send>) = match &config.tls
            {
                Some(tls) => {
                    let (reader, writer) = tls.split(stream.try_clone()?)?;
                    (Box::new(reader), Box::new(writer))
                }
                None => (Box::new(stream.try_clone()?), Box::new(stream.try_clone()?)),
            };
            let peer = Peer {
                reader,
                writer,
                name: from.to_string(),
                number,
                is_pipe: false,
            };
            let control = Control {
                is_cancelled: AtomicBool::new(false),
                is_scanning: AtomicBool::new(false),
                socket: Some(stream.try_clone()?),
            };
            Ok((peer, control))
        };
        set()
            .inspect_err(
                |e| tracing::warn!(%from, message = %e, "a connection could not be set up"),
            )
            .ok()
    }
}

fn listen(at: SocketAddr, what: &str) -> Result<TcpListener, Fault> {
    TcpListener::bind(at).map_err(|e| {
        Fault::new(
            FaultKind::Io,
            "server",
            format!("cannot listen on {at} for {what}: {e}; another server may run there"),
        )
    })
}

fn address(listener: &TcpListener) -> Result<SocketAddr, Fault> {
    listener.local_addr().map_err(|e| {
        Fault::new(
            FaultKind::Io,
            "server",
            format!("the system does not say where we listen: {e}"),
        )
    })
}

/// A connection of our own, so that a listener that waits looks up.
fn wake(listener: &TcpListener) {
    if let Ok(mut at) = listener.local_addr() {
        if at.ip().is_unspecified() {
            at.set_ip(match at {
                SocketAddr::V4(_) => [127, 0, 0, 1].into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        drop(TcpStream::connect_timeout(&at, Duration::from_secs(1)));
    }
}
