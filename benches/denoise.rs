//! The network that ships on one 320 x 320 slice, two threads: ONNX Runtime by itself, and the whole stage around it (parts,
//! tiles, mixing, guard, marks), whose overhead is the difference; libtorch by itself, where CAUDA_TORCH names the plug-in (with
//! OMP_WAIT_POLICY=PASSIVE, as the program has it); and loading it. Throughput is slices.

use std::hint::black_box;
use std::sync::Arc;

use cauda::data::{AcquisitionStamps, FrameKey, Geometry, Intensity, Provenance, ReconImage};
use cauda::denoise::{Beside, Denoise, DenoiseParams};
use cauda::model::{Input, Model, RuntimeKind};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use num_complex::Complex32;

const N: usize = 320;
const THREADS: usize = 2;

/// A disc with a ripple, and a little of everything else.
fn voxels() -> Vec<Complex32> {
    let value = |i: usize| {
        let (x, y) = ((i % N) as f32 - 160.0, (i / N) as f32 - 160.0);
        let noise = ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0;
        let body = if x.hypot(y) < 120.0 {
            20.0 + (0.2 * x).sin()
        } else {
            0.0
        };
        Complex32::new(body + noise, 0.3 * body - noise)
    };
    (0..N * N).map(value).collect()
}

fn image() -> ReconImage {
    ReconImage {
        key: FrameKey::default(),
        geometry: Geometry {
            matrix: [N, N, 1],
            voxel_mm: [0.9, 0.9, 4.0],
            centre_mm: [0.0; 3],
            read_dir: [1.0, 0.0, 0.0],
            phase_dir: [0.0, 1.0, 0.0],
            slice_dir: [0.0, 0.0, 1.0],
        },
        table_position_mm: [0.0; 3],
        voxels: voxels(),
        intensity: Intensity::WithNoise,
        noise_std: Some(vec![1.0; N * N]),
        gfactor: None,
        finer: [1.0; 3],
        denoised: None,
        synthetic: None,
        csm: None,
        stamps: AcquisitionStamps::default(),
        provenance: Provenance::default(),
    }
}

fn slices(c: &mut Criterion) {
    // Without ONNX Runtime (scripts/onnxruntime.sh) there is nothing to measure.
    let Ok(model) = Model::load("denoiser", RuntimeKind::Onnx, THREADS) else {
        return;
    };
    let model = Arc::new(model);
    let Ok(denoise) = Denoise::plan(&DenoiseParams::default(), Arc::clone(&model)) else {
        return;
    };
    let mut group = c.benchmark_group("denoise/slice");
    group.sample_size(20);
    group.throughput(Throughput::Elements(1));
    let planes: Vec<f32> = (0..6 * N * N).map(|i| (i % 97) as f32 * 0.2).collect();
    let gfactor = vec![1.0; N * N];
    let inputs = [
        Input {
            name: "image",
            shape: &[1, 6, N, N],
            data: &planes,
        },
        Input {
            name: "gfactor",
            shape: &[1, 1, N, N],
            data: &gfactor,
        },
        Input {
            name: "noise",
            shape: &[1],
            data: &[1.0],
        },
    ];
    group.bench_function("cpu/onnxruntime_alone", |b| {
        b.iter(|| model.run(black_box(&inputs)));
    });
    // As scripts/torch.sh leaves it.
    let script = "target/torch/model.toml";
    if let Ok(model) = Model::load(script, RuntimeKind::Torch, THREADS) {
        group.bench_function("cpu/libtorch_alone", |b| {
            b.iter(|| model.run(black_box(&inputs)));
        });
    }
    let image = image();
    let beside = voxels();
    group.bench_function("cpu/stage", |b| {
        b.iter_batched_ref(
            || image.clone(),
            |image| {
                denoise.run(
                    image,
                    Beside {
                        before: Some(&beside),
                        after: Some(&beside),
                    },
                )
            },
            criterion::BatchSize::LargeInput,
        );
    });
    group.finish();
    c.bench_function("denoise/load/cpu", |b| {
        b.iter(|| Model::load("denoiser", RuntimeKind::Onnx, THREADS));
    });
}

criterion_group!(benches, slices);
criterion_main!(benches);
