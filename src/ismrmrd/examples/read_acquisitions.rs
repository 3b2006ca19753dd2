//! Times the readers: `read_acquisitions write|direct|library|headers FILE [acquisitions channels samples]`.
//!
//! Every sample is touched (summed), so that a memory map has to bring all of them in. Used by
//! `scripts/bench/read_acquisitions.sh`, which runs libismrmrd beside it.
#![allow(clippy::print_stdout)]

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use ismrmrd::file::{File, Writer};
use ismrmrd::{Acquisition, AcquisitionHeader, AcquisitionRef, Complex32, Limits};

/// Sums in sixteen lanes, which the compiler turns into vector instructions.
fn sum(data: &[Complex32]) -> f64 {
    let mut lanes = [0.0_f32; 16];
    let (blocks, rest) = data.as_chunks::<8>();
    for block in blocks {
        for (pair, c) in lanes.as_chunks_mut::<2>().0.iter_mut().zip(block) {
            pair[0] += c.re;
            pair[1] += c.im;
        }
    }
    lanes.iter().map(|&x| f64::from(x)).sum::<f64>()
        + rest.iter().map(|c| f64::from(c.re + c.im)).sum::<f64>()
}

fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, mode, path, numbers @ ..] = arguments.as_slice() else {
        return Err(
            "read_acquisitions write|direct|library|headers FILE [acquisitions channels samples]"
                .into(),
        );
    };
    let path = Path::new(path);
    let start = Instant::now();
    let mut total = 0.0;
    let mut bytes = 0_usize;
    let mut visit = |batch: &[AcquisitionRef<'_>]| {
        for a in batch {
            bytes += size_of_val(a.data);
            total += if mode == "headers" {
                f64::from(a.head.sample_time_us)
            } else {
                sum(a.data)
            };
        }
        ControlFlow::Continue(())
    };
    match mode.as_str() {
        "write" => {
            let number = |i: usize| numbers.get(i).and_then(|n| n.parse::<u16>().ok());
            let (n, channels, samples) = (
                number(0).unwrap_or(20_000),
                number(1).unwrap_or(16),
                number(2).unwrap_or(640),
            );
            let len = usize::from(channels) * usize::from(samples);
            let mut a = Acquisition {
                head: AcquisitionHeader {
                    number_of_samples: samples,
                    active_channels: channels,
                    available_channels: channels,
                    ..Default::default()
                },
                traj: Vec::new(),
                data: (0..len)
                    .map(|i| Complex32::new((i % 97) as f32, (i % 31) as f32))
                    .collect(),
            };
            let mut writer = Writer::create(path, "dataset")?;
            writer.header_xml("<ismrmrdHeader><experimentalConditions><H1resonanceFrequency_Hz>0</H1resonanceFrequency_Hz></experimentalConditions></ismrmrdHeader>")?;
            for i in 0..n {
                a.head.scan_counter = i.into();
                a.head.idx.kspace_encode_step_1 = i % 320;
                writer.acquisition(&a)?;
                bytes += size_of_val(a.data.as_slice());
            }
            writer.finish()?;
        }
        "direct" | "headers" => {
            let file = File::open(path, Limits::default())?;
            file.for_each_batch("dataset", 64, &mut visit)?;
        }
        "library" => {
            let file = File::open(path, Limits::default())?;
            file.for_each_batch_by_library("dataset", 64, &mut visit)?;
        }
        other => return Err(format!("unknown mode {other}").into()),
    }
    let seconds = start.elapsed().as_secs_f64();
    let rate = bytes as f64 / seconds / 1e6;
    println!(
        "{mode:8} {seconds:7.3} s  {rate:8.0} MB/s  peak {:6.0} MiB  sum {total}",
        peak_mib()
    );
    Ok(())
}
