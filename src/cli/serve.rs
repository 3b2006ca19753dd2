//! `cauda serve`: scanners stream in, images go back.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::{Outcome, interrupt, output::Output};
use crate::data::{Fault, FaultKind};
use crate::device::Device;
use crate::device::cuda::Accelerator;
use crate::server::{NoiseStore, Server, ServerConfig, ServerTls, serve_pipe};

/// Arguments of `cauda serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to take scans (MRD v1 or v2 over TCP); port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9002")]
    listen: SocketAddr,
    /// A peer that may connect, besides this machine; may be given again
    #[arg(long, value_name = "ADDR")]
    allow: Vec<IpAddr>,
    /// Protocol for clients that send no configuration
    #[arg(long, value_name = "NAME", default_value = "default")]
    default_protocol: String,
    /// Keep each scan in this folder until its images are sent, and for good when anything failed
    #[arg(long, value_name = "DIR")]
    spill: Option<PathBuf>,
    /// Speak TLS and show this certificate (PEM)
    #[arg(long, value_name = "PEM", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "PEM", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Let only clients in that show a certificate which one of these signed (PEM)
    #[arg(long, value_name = "PEM", requires = "tls_cert")]
    tls_clients: Option<PathBuf>,
    /// Keep noise covariances in this folder, for scans whose header names another measurement's noise
    #[arg(long, value_name = "DIR")]
    noise: Option<PathBuf>,
    /// How long they are kept, hours
    #[arg(long, value_name = "H", default_value_t = 48.0)]
    noise_hours: f64,
    /// Tell metrics (/metrics, for Prometheus) and health (/health) here
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// Scans at the same time; one more is refused
    #[arg(long, value_name = "N", default_value_t = 2)]
    max_scans: usize,
    /// Threads in all; the default is every core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Memory of all scans together, MiB; the default is three quarters of the machine's
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,
    /// Longest silence of a client within a scan, seconds
    #[arg(long, value_name = "S", default_value_t = 600.0)]
    idle_timeout: f64,
    /// Longest time that a client may leave its images unread, seconds
    #[arg(long, value_name = "S", default_value_t = 30.0)]
    write_timeout: f64,
    /// How long running scans may go on when the server is asked to end, seconds
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    drain: f64,
    /// Serve one client on standard input and output instead of a port
    #[arg(long, conflicts_with_all = ["metrics", "max_scans"])]
    stdio: bool,
    /// Least that is logged to stderr: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: tracing::Level,
    /// Log as JSON lines; print results as JSON
    #[arg(long)]
    pub(super) json: bool,
}

fn seconds(option: &str, s: f64) -> Result<Duration, Fault> {
    // A time-out of zero would mean none, to a socket.
    Duration::try_from_secs_f64(s)
        .ok()
        .filter(|d| *d >= Duration::from_millis(1))
        .ok_or_else(|| {
            Fault::new(
                FaultKind::Protocol,
                "cli",
                format!("{option} {s}: needed a time of at least 0.001 seconds"),
            )
        })
}

pub(super) fn run(args: &Args, out: &Output) -> Result<Outcome, Fault> {
    let device = Device::detect();
    let mut config = ServerConfig::new(
        args.threads.unwrap_or(device.threads),
        args.memory
            .map_or(device.memory_bytes, |mib| mib.saturating_mul(1 << 20)),
    );
    // Warm before the first scan. Why there is none, a scan that must have one is told, and others say it in their images.
    config.card = Accelerator::open().ok();
    config.listen = args.listen;
    config.allow.clone_from(&args.allow);
    config.default_protocol.clone_from(&args.default_protocol);
    config.spill.clone_from(&args.spill);
    if let Some(dir) = &args.noise {
        if !dir.is_dir() {
            let text = format!("--noise: there is no folder {}", dir.display());
            return Err(Fault::new(FaultKind::Protocol, "cli", text));
        }
        let lifetime = seconds("--noise-hours", 3600.0 * args.noise_hours)?;
        let store = NoiseStore::new(dir.clone(), lifetime);
        store.tidy();
        config.noise = Some(store);
    }
    if let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) {
        config.tls = Some(ServerTls::new(
            certificate,
            key,
            args.tls_clients.as_deref(),
        )?);
    }
    config.metrics = args.metrics;
    config.max_scans = args.max_scans;
    config.idle_timeout = seconds("--idle-timeout", args.idle_timeout)?;
    config.hello_timeout = config.hello_timeout.min(config.idle_timeout);
    config.write_timeout = seconds("--write-timeout", args.write_timeout)?;
    config.drain = seconds("--drain", args.drain)?;
    out.log(args.log, args.json);

    if args.stdio {
        // Standard output is the wire: nothing else may be printed there.
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.max_scans = 1;
        let (reader, writer) = (Box::new(std::io::stdin()), Box::new(std::io::stdout()));
        // Nothing wakes a read of standard input.
        std::thread::spawn(|| {
            while !interrupt::is_set() {
                std::thread::sleep(Duration::from_millis(50));
            }
            std::process::exit(i32::from(interrupt::EXIT_CODE));
        });
        let report = serve_pipe(config, reader, writer)?;
        return Ok(match report {
            Some(report) if !report.refused.is_empty() => Outcome::CheckFailed,
            _ => Outcome::Done,
        });
    }

    let server = Server::bind(config)?;
    let address = server.address()?;
    let metrics = server.metrics_address()?;
    out.text(&format!("listening on {address}"));
    if let Some(at) = metrics {
        out.text(&format!("metrics on http://{at}/metrics"));
    }
    out.json_line(&serde_json::json!({ "listening": address, "metrics": metrics }));
    server.run(&interrupt::is_set)?;
    // An end that was asked for is what this command is for.
    interrupt::clear();
    Ok(Outcome::Done)
}
