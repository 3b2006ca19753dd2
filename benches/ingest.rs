//! Readouts per second from a batch in memory to assembled frames: the speed target's scan (20 slices, 98 lines,
//! 16 coils, 640 samples), and how its parts share the time.

#![allow(missing_docs, clippy::unwrap_used)]

use cauda::ingest::{Ingest, IngestParams, PendingFrame};
use cauda::phantom::{Simulate, Simulated, simulate};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ismrmrd::acquisition::{Acquisition, AcquisitionRef};
use rayon::prelude::*;

/// As the file reader hands them over: batches of borrowed readouts.
fn collect(s: &Simulated, refs: &[AcquisitionRef<'_>]) -> Vec<PendingFrame> {
    let mut ingest = Ingest::plan(&s.header, &IngestParams::default(), None).unwrap();
    for batch in refs.chunks(256) {
        ingest.push(batch).unwrap();
    }
    ingest.finish().unwrap().frames
}

fn ingest(c: &mut Criterion) {
    let scans = [
        ("c16_20x98x640", Simulate::preset("bench").unwrap()),
        // not twofold: the general way round
        (
            "c16_4x98x400",
            Simulate {
                oversampling: 1.25,
                n_slices: 4,
                ..Simulate::preset("bench").unwrap()
            },
        ),
    ];
    for (name, sim) in scans {
        let s = simulate(&sim).unwrap();
        let refs: Vec<AcquisitionRef<'_>> =
            s.acquisitions.iter().map(Acquisition::as_ref).collect();
        let mut group = c.benchmark_group("ingest");
        group.sample_size(10);
        group.throughput(Throughput::Elements(refs.len() as u64));
        group.bench_function(format!("push/cpu/{name}"), |b| {
            b.iter(|| collect(&s, &refs))
        });
        group.bench_function(format!("assemble/cpu/{name}"), |b| {
            b.iter_batched(
                || collect(&s, &refs),
                |frames| {
                    // as the pipeline does: one frame per worker, dropped when it was reconstructed
                    frames
                        .into_par_iter()
                        .for_each(|f| drop(f.assemble().unwrap()));
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function(format!("whole/cpu/{name}"), |b| {
            b.iter(|| {
                collect(&s, &refs)
                    .into_par_iter()
                    .for_each(|f| drop(f.assemble().unwrap()));
            });
        });
        group.finish();
    }
}

criterion_group!(benches, ingest);
criterion_main!(benches);
