//! `cauda doctor`: what this machine and this build offer, and nothing that they do not.

use super::{Outcome, output::Output, output::table};
use crate::data::Fault;
use crate::device::Device;
use crate::device::cuda::{Card, Context, CudaError, KERNELS, Library, Origin, probe};
use crate::model::Model;
use crate::protocol::{Protocol, Registry};

/// Arguments of `cauda doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What runs networks, and which there are.
fn networks() -> String {
    let runtime = match crate::model::library_version() {
        Ok(version) => {
            let place =
                crate::model::library().map_or_else(String::new, |p| p.display().to_string());
            format!("{version} ({place})")
        }
        Err(e) => e.to_string().replace('\n', ";"),
    };
    let describe = |name: &str| match Model::describe(name) {
        Ok(manifest) => manifest.id(),
        Err(e) => e.to_string(),
    };
    let shipped: Vec<String> = Model::shipped().map(describe).collect();
    format!("{runtime}; shipped: {}", shipped.join(", "))
}

/// libtorch's plug-in, if there is one. Nobody needs it; one that is here and does not work is a fault.
fn libtorch() -> Result<String, String> {
    let Some(place) = crate::model::plugin() else {
        return Ok("no plug-in; scripts/torch.sh builds one, CAUDA_TORCH names it".to_owned());
    };
    crate::model::plugin_version()
        .map(|version| format!("{version} ({})", place.display()))
        .map_err(|e| e.to_string().replace('\n', ";"))
}

/// One finding.
#[derive(Debug, serde::Serialize)]
struct Finding {
    what: &'static str,
    found: String,
    is_ok: bool,
}

pub(super) fn run(_: &Args, out: &Output) -> Result<Outcome, Fault> {
    let device = Device::detect();
    let broken: Vec<String> = Registry
        .shipped()
        .iter()
        .filter_map(|s| Protocol::parse(s.name, s.text, &[]).err())
        .map(|e| e.to_string())
        .collect();
    let scratch = scratch();
    let libtorch = libtorch();
    let cuda = probe();
    let cards = match &cuda.cards {
        Ok(cards) if cards.is_empty() => "none".to_owned(),
        Ok(cards) => {
            let card = |c: &Card| format!("{} ({}, {} MiB)", c.name, c.arch, c.memory_bytes >> 20);
            cards.iter().map(card).collect::<Vec<_>>().join("; ")
        }
        Err(why) => why.clone(),
    };
    let opened = cuda
        .cards
        .as_ref()
        .ok()
        .filter(|c| !c.is_empty())
        .map(|_| open_card());
    let mut findings = vec![
        Finding {
            what: "version",
            found: format!(
                "cauda {} ({} build)",
                env!("CARGO_PKG_VERSION"),
                if cfg!(debug_assertions) {
                    "debug: slow"
                } else {
                    "release"
                }
            ),
            is_ok: true,
        },
        Finding {
            what: "threads",
            found: device.threads.to_string(),
            is_ok: true,
        },
        Finding {
            what: "memory budget",
            found: format!("{} MiB", device.memory_bytes >> 20),
            is_ok: device.memory_bytes > 512 << 20,
        },
        Finding {
            what: "SIMD",
            found: simd(),
            is_ok: true,
        },
        Finding {
            what: "HDF5",
            found: "built in".to_owned(),
            is_ok: true,
        },
        // A missing driver or card is no fault: everything runs on the CPU.
        Finding {
            what: "CUDA driver",
            found: cuda.driver.unwrap_or_else(|why| why),
            is_ok: true,
        },
        Finding {
            what: "CUDA cards",
            found: cards,
            is_ok: true,
        },
        Finding {
            what: "CUDA compiler",
            found: cuda.nvrtc.map_or_else(|why| why, |v| format!("NVRTC {v}")),
            is_ok: true,
        },
        Finding {
            what: "CUDA kernels",
            found: format!(
                "{} texts, cache {}",
                KERNELS.len(),
                Library::open()
                    .cache()
                    .map_or_else(|| "nowhere".into(), |p| p.display().to_string())
            ),
            is_ok: true,
        },
        Finding {
            what: "networks",
            found: networks(),
            // Without a run-time images go out without them, and say so.
            is_ok: true,
        },
        Finding {
            what: "libtorch",
            is_ok: libtorch.is_ok(),
            found: libtorch.unwrap_or_else(|why| why),
        },
        Finding {
            what: "protocols",
            found: if broken.is_empty() {
                format!(
                    "{} shipped: {}",
                    Registry.shipped().len(),
                    Registry
                        .shipped()
                        .iter()
                        .map(|s| s.name)
                        .collect::<Vec<_>>()
                        .join(", ")
                )
            } else {
                broken.join("; ")
            },
            is_ok: broken.is_empty(),
        },
        Finding {
            what: "temporary files",
            is_ok: scratch.is_ok(),
            found: scratch.unwrap_or_else(|e| e),
        },
    ];
    if let Some(opened) = opened {
        findings.push(Finding {
            what: "CUDA context",
            is_ok: opened.is_ok(),
            found: opened.unwrap_or_else(|e| e.to_string()),
        });
    }
    let rows: Vec<_> = findings
        .iter()
        .map(|f| {
            vec![
                f.what.to_owned(),
                if f.is_ok { "ok" } else { "BAD" }.to_owned(),
                f.found.clone(),
            ]
        })
        .collect();
    out.text(&table(&["what", "state", "found"], &rows));
    out.json(&findings)?;
    Ok(if findings.iter().all(|f| f.is_ok) {
        Outcome::Done
    } else {
        Outcome::CheckFailed
    })
}

/// Opens the first card and loads every kernel.
fn open_card() -> Result<String, CudaError> {
    let context = Context::open(0, 0)?;
    let (free, total) = context.card_memory()?;
    context.load_all()?;
    let loaded = context.loaded();
    let count = |name: &str, is_it: fn(&Origin) -> bool| {
        let n = loaded.iter().filter(|(_, o, _)| is_it(o)).count();
        (n > 0).then(|| format!("{n} {name}"))
    };
    let from = [
        count("came along", |o| matches!(o, Origin::Shipped(_))),
        count("from the cache", |o| matches!(o, Origin::Cached(_))),
        count("compiled now", |o| matches!(o, Origin::Compiled(_))),
    ];
    let from: Vec<String> = from.into_iter().flatten().collect();
    let not_kept = loaded.iter().find_map(|(_, _, why)| why.as_deref());
    Ok(format!(
        "{}: {} of {} MiB free; kernel files: {}{}",
        context.card().name,
        free >> 20,
        total >> 20,
        from.join(", "),
        not_kept.map_or_else(String::new, |why| format!("; not kept: {why}"))
    ))
}

fn simd() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        let mut found = Vec::new();
        for (name, is_there) in [
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
            ("sse4.1", std::arch::is_x86_feature_detected!("sse4.1")),
        ] {
            if is_there {
                found.push(name);
            }
        }
        return format!("x86-64: {}", found.join(" "));
    }
    #[cfg(target_arch = "aarch64")]
    return "aarch64: neon".to_owned();
    #[allow(unreachable_code)]
    std::env::consts::ARCH.to_owned()
}

fn scratch() -> Result<String, String> {
    let dir = std::env::temp_dir();
    tempfile::NamedTempFile::new_in(&dir)
        .map(|_| format!("writable: {}", dir.display()))
        .map_err(|e| format!("not writable: {e}: {}", dir.display()))
}
