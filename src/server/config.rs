//! What an operator chooses about the server.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::device::cuda::Accelerator;

use ismrmrd::Limits;

use crate::data::{Fault, FaultKind};

/// Settings of the server; all bounds are on purpose finite.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen for scans; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Peers that may connect, besides this machine itself. A listener off loopback needs at least one.
    pub allow: Vec<IpAddr>,
    /// Protocol for peers that send no configuration.
    pub default_protocol: String,
    /// Folder where a scan is kept until all its images are sent, and for good when anything failed.
    pub spill: Option<PathBuf>,
    /// Certificate, key, and whom to let in; `None` speaks plainly.
    pub tls: Option<super::ServerTls>,
    /// Where noise covariances outlive their scan.
    pub noise: Option<super::NoiseStore>,
    /// Where metrics and health are told; only asked for, never a default.
    pub metrics: Option<SocketAddr>,
    /// Scans at the same time; one more is refused.
    pub max_scans: usize,
    /// Threads in all; every scan may use all of them, the system shares them out.
    pub threads: usize,
    /// Memory of all scans; each may use its share.
    pub memory_bytes: u64,
    /// A card that stays open between scans; without one, each scan that may use a card opens it.
    pub card: Option<Arc<Accelerator>>,
    /// Images that may wait for a peer that does not read, per scan; then the chain stops, and with it the socket.
    pub outbox_bytes: u64,
    /// Longest silence before the header.
    pub hello_timeout: Duration,
    /// Longest silence within a scan.
    pub idle_timeout: Duration,
    /// Longest time that a peer may refuse to take bytes.
    pub write_timeout: Duration,
    /// How long a connection is read on after a fault, so that the peer sees why.
    pub linger: Duration,
    /// How long running scans may go on when the server is asked to end.
    pub drain: Duration,
    /// Bounds on declared sizes.
    pub limits: Limits,
}

impl ServerConfig {
    /// Loopback, port 9002, two scans.
    pub fn new(threads: usize, memory_bytes: u64) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9002)),
            allow: Vec::new(),
            default_protocol: "default".into(),
            spill: None,
            tls: None,
            noise: None,
            metrics: None,
            max_scans: 2,
            threads,
            memory_bytes,
            card: None,
            outbox_bytes: 256 << 20,
            hello_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(600),
            write_timeout: Duration::from_secs(30),
            linger: Duration::from_secs(5),
            drain: Duration::from_secs(10),
            limits: Limits {
                // A header of a real scan has some 10 KiB; with 64 MiB each, ten peers could fill the memory.
                xml_bytes: 8 << 20,
                image_bytes: 256 << 20,
                ..Limits::default()
            },
        }
    }

    /// Whether a peer may talk to us.
    pub fn allows(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        peer.is_loopback() || self.allow.iter().any(|a| a.to_canonical() == peer)
    }

    /// Refuses what would open the machine to everybody, or cannot work.
    ///
    /// # Errors
    /// [`FaultKind::Protocol`] names the option.
    pub fn check(&self) -> Result<(), Fault> {
        let wrong = |text: String| Err(Fault::new(FaultKind::Protocol, "server", text));
        let others = [("--listen", Some(self.listen)), ("--metrics", self.metrics)];
        for (option, at) in others {
            if let Some(at) = at
                && !at.ip().is_loopback()
                && self.allow.is_empty()
            {
                return wrong(format!(
                    "{option} {at} is reachable from other machines, and no peer is allowed; \
                     name each with --allow ADDRESS, or listen on 127.0.0.1"
                ));
            }
        }
        if self.max_scans == 0 {
            return wrong("--max-scans 0 would refuse every scan; needed: at least 1".into());
        }
        if let Some(dir) = &self.spill
            && !dir.is_dir()
        {
            return wrong(format!("--spill: there is no folder {}", dir.display()));
        }
        Ok(())
    }
}

/// Memory of this machine, where the system says it.
pub(super) fn physical_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_peers_come_in() {
        let mut config = ServerConfig::new(1, 1 << 30);
        assert!(config.check().is_ok());
        assert!(config.allows("127.0.0.1".parse().unwrap()));
        assert!(config.allows("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!config.allows("10.0.0.7".parse().unwrap()));
        config.listen = "0.0.0.0:9002".parse().unwrap();
        let fault = config.check().unwrap_err();
        assert!(fault.message.contains("--allow"), "{}", fault.message);
        config.allow.push("10.0.0.7".parse().unwrap());
        assert!(config.check().is_ok());
        assert!(config.allows("::ffff:10.0.0.7".parse().unwrap()));
        assert!(!config.allows("10.0.0.8".parse().unwrap()));
    }
}
