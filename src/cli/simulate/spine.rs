//! `cauda simulate --protocol`: a drawn patient, scanned; and `--dataset`: many of them, as training samples.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ismrmrd::{NdArray, Pixels};
use num_complex::Complex32;
use rayon::prelude::*;

use super::super::phantom::findings;
use super::super::{Outcome, interrupt, output::Output};
use super::{Args, wrong};
use crate::data::{
    AcquisitionStamps, Fault, FaultKind, FrameKey, Geometry, Intensity, Provenance, ReconImage,
    Scan,
};
use crate::handoff::{self, HandoffParams, Quantity};
use crate::phantom::acquire::{self, AcquireParams, Block, CtParams, Matter, Subject, TissueMaps};
use crate::phantom::spine::{Pathology, Patient, Request};
use crate::protocol::{Registry, overlay, schema};
use crate::sequence::{self, SequenceParams};
use crate::source::{beside, persist};

/// Samples in one folder of a data set.
const SHARD: usize = 256;

fn file(e: ismrmrd::Error) -> Fault {
    Fault::new(FaultKind::Io, "ismrmrd", e.to_string())
}

fn io(what: &str, path: &Path, e: &std::io::Error) -> Fault {
    Fault::new(
        FaultKind::Io,
        "cli",
        format!("{what} {}: {e}", path.display()),
    )
}

/// Sequence of a protocol with overlays, and how it is measured.
fn asked(args: &Args, protocol: &str) -> Result<(SequenceParams, AcquireParams), Fault> {
    let (mut overlays, mut table) = (Vec::new(), toml::Table::new());
    for text in &args.set {
        match text.strip_prefix("acquire.") {
            Some(rest) => overlay::apply(&mut table, rest)?,
            None => overlays.push(text.clone()),
        }
    }
    // Given by themselves they make another measurement of the same patient.
    let has = ["seed", "series"].map(|key| table.contains_key(key));
    let found = Registry.find(protocol, &overlays)?;
    let sequence = found.sequence()?.clone();
    let mut params: AcquireParams = serde_path_to_error::deserialize(toml::Value::Table(table))
        .map_err(|e| {
            let (key, words) = schema::sharpen(&e.path().to_string(), &e.inner().to_string());
            wrong(format!("acquire.{key}: {words}"))
        })?;
    if !has[0] {
        params.seed = args.seed;
    }
    if !has[1] {
        params.series = args.series;
    }
    Ok((sequence, params))
}

fn guard(path: &Path, is_forced: bool) -> Result<(), Fault> {
    if !is_forced && path.exists() {
        return Err(wrong(format!(
            "the output exists; --force replaces it: {}",
            path.display()
        )));
    }
    Ok(())
}

/// One scan of one patient.
pub(super) fn scan(
    args: &Args,
    protocol: &str,
    output: &Path,
    out: &Output,
) -> Result<Outcome, Fault> {
    for path in [Some(output), args.truth.as_deref(), args.ct.as_deref()]
        .into_iter()
        .flatten()
    {
        guard(path, args.force)?;
    }
    let (sequence, params) = asked(args, protocol)?;
    let patient = Patient::draw(&Request {
        region: sequence.region,
        seed: args.seed,
        pathology: findings(&args.pathology, sequence.region, args.seed)?,
        ..Request::default()
    })?;
    let subject = Subject::new(patient, sequence.field_strength_t);
    let plan = acquire::Scan::plan(&subject, &sequence, &params, protocol)?;

    let header = plan.header();
    let mut writer = ismrmrd::file::Writer::create(output, "dataset").map_err(file)?;
    writer.header(&header).map_err(file)?;
    let bar = out.progress("readouts", plan.n_readouts() as u64);
    let mut n_readouts = 0;
    let truth = plan.run(args.truth.is_some(), |a| {
        if interrupt::is_set() {
            // The writer removes what it began.
            return Err(wrong("interrupted".to_owned()));
        }
        n_readouts += 1;
        bar.inc(1);
        writer.acquisition(&a).map_err(file)
    })?;
    bar.finish_and_clear();
    writer.finish().map_err(file)?;

    if let (Some(path), Some(truth)) = (&args.truth, truth) {
        let block = plan.block();
        let maps = acquire::tissue_maps(&subject, &block, (&[], 0.0), 8, args.seed)?;
        let mut w = ismrmrd::file::Writer::create(path, "truth").map_err(file)?;
        let [z, y, x] = truth.matrix;
        let images = NdArray {
            shape: vec![truth.n_contrasts, z, y, x],
            values: Pixels::C32(truth.images),
        };
        w.array("images", &images).map_err(file)?;
        w.array("snr_of_unit", &floats(&[z, y, x], truth.snr_of_unit))
            .map_err(file)?;
        put_maps(&mut w, &block, maps)?;
        w.finish().map_err(file)?;
        write_json(&path.with_extension("json"), &subject.patient().truth())?;
    }
    if let Some(path) = &args.ct {
        write_ct(&subject, &header, args, path)?;
    }
    out.text(&format!(
        "wrote {n_readouts} readouts, {} coils, {} slices, acceleration {} (SIMULATED): {}",
        params.n_coils,
        sequence.n_slices,
        sequence.acceleration.pe1 * sequence.acceleration.pe2,
        output.display()
    ));
    out.json(&serde_json::json!({
        "path": output,
        "readouts": n_readouts,
        "sequence": sequence,
        "acquire": params,
        "patient": subject.patient().truth(),
    }))?;
    Ok(Outcome::Done)
}

fn floats(shape: &[usize], values: Vec<f32>) -> NdArray {
    NdArray {
        shape: shape.to_vec(),
        values: Pixels::F32(values),
    }
}

fn put_maps(w: &mut ismrmrd::file::Writer, block: &Block, maps: TissueMaps) -> Result<(), Fault> {
    for (name, values) in [
        ("label", maps.label),
        ("level", maps.level),
        ("lesion", maps.lesion),
    ] {
        let array = NdArray {
            shape: block.matrix.to_vec(),
            values: Pixels::U16(values),
        };
        w.array(name, &array).map_err(file)?;
    }
    for (name, values) in [
        ("pd", maps.pd),
        ("fat_fraction", maps.fat_fraction),
        ("t1_ms", maps.t1_ms),
        ("t2_ms", maps.t2_ms),
        ("t2star_ms", maps.t2star_ms),
        ("hu", maps.hu),
        ("field_ppm", maps.field_ppm),
    ] {
        w.array(name, &floats(&block.matrix, values))
            .map_err(file)?;
    }
    // Middle, voxel and axes (slice, phase, read), LPS, mm.
    let geometry: Vec<f64> = block
        .centre_mm
        .iter()
        .chain(&block.voxel_mm)
        .chain(block.axes.iter().flatten())
        .copied()
        .collect();
    let array = NdArray {
        shape: vec![5, 3],
        values: Pixels::F64(geometry),
    };
    w.array("geometry", &array).map_err(file)
}

/// Written beside its name and renamed: whole or not there.
fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), Fault> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Fault::new(FaultKind::Bug, "cli", e.to_string()))?;
    let mut file = beside(path)?;
    file.write_all((text + "\n").as_bytes())
        .map_err(|e| io("cannot write", path, &e))?;
    Ok(persist(file, path)?)
}

/// A CT of the examined part: pixels and slices of 1 mm.
fn write_ct(
    subject: &Subject,
    header: &ismrmrd::Header,
    args: &Args,
    path: &Path,
) -> Result<(), Fault> {
    let block = Block {
        matrix: [220, 240, 240],
        voxel_mm: [1.0, 1.0, 1.0],
        centre_mm: subject.centre_mm(),
        axes: [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]],
    };
    let hu = acquire::ct(
        subject,
        &block,
        &CtParams {
            seed: args.seed,
            ..CtParams::default()
        },
    );
    #[allow(clippy::cast_possible_truncation)] // storage precision
    let f = |v: [f64; 3]| v.map(|v| v as f32);
    let [z, y, x] = block.matrix;
    let [vz, vy, vx] = block.voxel_mm;
    let image = ReconImage {
        key: FrameKey::default(),
        geometry: Geometry {
            matrix: [x, y, z],
            voxel_mm: f([vx, vy, vz]),
            centre_mm: f(block.centre_mm),
            read_dir: f(block.axes[2]),
            phase_dir: f(block.axes[1]),
            slice_dir: f(block.axes[0]),
        },
        table_position_mm: [0.0; 3],
        voxels: hu.into_iter().map(|v| Complex32::new(v, 0.0)).collect(),
        intensity: Intensity::Arbitrary,
        noise_std: None,
        gfactor: None,
        finer: [1.0; 3],
        denoised: None,
        synthetic: None,
        csm: None,
        stamps: AcquisitionStamps::default(),
        provenance: Provenance {
            protocol: "ct".into(),
            input: format!("cauda simulate, seed {} (SIMULATED)", args.seed),
            ..Provenance::default()
        },
    };
    let scan = Scan {
        header: Arc::new(header.clone()),
        encodings: Vec::new(),
    };
    let params = HandoffParams {
        quantities: vec![Quantity::Real],
        overwrite: args.force,
        ..HandoffParams::default()
    };
    let delivered = handoff::write(&[image], &scan, path, &params)?;
    // The hand-off puts the quantity into the name; a CT has one only.
    for file in &delivered.files {
        if file.path != path {
            std::fs::rename(&file.path, path).map_err(|e| io("cannot rename", &file.path, &e))?;
        }
    }
    Ok(())
}

/// Contrasts of a training sample, in this order.
const CONTRASTS: [&str; 4] = ["t1w", "t2w", "stir", "t2fs"];

/// The four sequences of a sample: clinical ranges, drawn from the seed.
fn drawn(args: &Args, seed: u64) -> Result<Vec<SequenceParams>, Fault> {
    // splitmix64: a draw for a seed and a number.
    let draw = |number: u64, a: f64, b: f64| -> f64 {
        let mut z = seed
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(number.wrapping_mul(0xd134_2543_de82_ef95));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        a + (b - a) * ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let cervical = args.cervical;
    let is_3t = draw(1, 0.0, 1.0) < 0.5;
    let base = SequenceParams {
        region: if cervical {
            sequence::Region::Cervical
        } else {
            sequence::Region::Lumbar
        },
        field_strength_t: if is_3t { 3.0 } else { 1.5 },
        matrix: [256, 256],
        fov_mm: [if cervical { 240.0 } else { 280.0 }; 2],
        phase_oversampling: 0.0,
        n_slices: args.slab.into(),
        slice_thickness_mm: draw(2, 3.0, 4.0),
        ..SequenceParams::default()
    };
    let tse = |number: u64, contrast, tr: [f64; 2], echo: usize, etl: usize, spacing: [f64; 2]| {
        let spacing = (draw(number + 1, spacing[0], spacing[1]) * 10.0).round() / 10.0;
        SequenceParams {
            contrast,
            tr_ms: draw(number, tr[0], tr[1]).round(),
            echo_spacing_ms: spacing,
            te_ms: spacing * echo as f64,
            echo_train_length: etl,
            refocusing_deg: draw(number + 2, 120.0, 180.0).round(),
            bandwidth_hz_per_pixel: 300.0,
            ..base.clone()
        }
    };
    let null = if is_3t {
        [200.0, 240.0]
    } else {
        [140.0, 180.0]
    };
    Ok(vec![
        tse(
            10,
            sequence::Contrast::T1w,
            [450.0, 750.0],
            1,
            4,
            [8.0, 13.0],
        ),
        tse(
            20,
            sequence::Contrast::T2w,
            [3000.0, 4500.0],
            10,
            19,
            [9.0, 11.5],
        ),
        SequenceParams {
            ti_ms: Some(draw(33, null[0], null[1]).round()),
            ..tse(
                30,
                sequence::Contrast::Stir,
                [3500.0, 5000.0],
                6,
                13,
                [8.0, 11.0],
            )
        },
        SequenceParams {
            fat: sequence::FatParams {
                method: sequence::FatMethod::Chess,
                ..sequence::FatParams::default()
            },
            ..tse(
                40,
                sequence::Contrast::T2fs,
                [3000.0, 4500.0],
                8,
                15,
                [9.0, 11.0],
            )
        },
    ])
}

/// Training samples, one file each: what is there is not made again, what is killed is not half there.
pub(super) fn dataset(
    args: &Args,
    n: usize,
    folder: &Path,
    out: &Output,
) -> Result<Outcome, Fault> {
    let region = if args.cervical {
        sequence::Region::Cervical
    } else {
        sequence::Region::Lumbar
    };
    // Refused before a folder is made; "random" is drawn anew for each sample.
    findings(&args.pathology, region, args.seed)?;
    let path_of = |i: usize| {
        folder
            .join(format!("shard_{:04}", i / SHARD))
            .join(format!("sample_{i:06}.h5"))
    };
    for shard in 0..n.div_ceil(SHARD) {
        let path = folder.join(format!("shard_{shard:04}"));
        std::fs::create_dir_all(&path).map_err(|e| io("cannot make the folder", &path, &e))?;
    }
    let missing: Vec<usize> = (0..n).filter(|i| !path_of(*i).exists()).collect();
    let bar = out.progress("samples", n as u64);
    bar.set_position((n - missing.len()) as u64);
    let done = AtomicUsize::new(0);
    missing.par_iter().try_for_each(|&i| {
        if interrupt::is_set() {
            return Err(wrong("interrupted".to_owned()));
        }
        sample(args, args.seed.wrapping_add(i as u64), &path_of(i))?;
        done.fetch_add(1, Ordering::Relaxed);
        bar.inc(1);
        Ok(())
    })?;
    bar.finish_and_clear();
    let made = done.into_inner();
    out.text(&format!(
        "{made} samples made, {} were there (SIMULATED): {}",
        n - missing.len(),
        folder.display()
    ));
    out.json(&serde_json::json!({
        "path": folder,
        "made": made,
        "there": n - missing.len(),
        "contrasts": CONTRASTS,
    }))?;
    Ok(Outcome::Done)
}

fn sample(args: &Args, seed: u64, path: &Path) -> Result<(), Fault> {
    let sequences = drawn(args, seed)?;
    let first = &sequences[0];
    let pathology = if args.pathology.is_empty() {
        Pathology::random(first.region, seed)
    } else {
        findings(&args.pathology, first.region, seed)?
    };
    let patient = Patient::draw(&Request {
        region: first.region,
        seed,
        pathology,
        ..Request::default()
    })?;
    let subject = Subject::new(patient, first.field_strength_t);
    let [px, py, _] = first.pixel_mm();
    let block = Block {
        matrix: [args.slab.into(), first.matrix[1], first.matrix[0]],
        voxel_mm: [first.slice_thickness_mm, py, px],
        centre_mm: subject.centre_mm(),
        axes: [[-1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]],
    };
    let params = AcquireParams::default();
    let mut maps = acquire::scanned_maps(&subject, &block, (&sequences, params.b1_spread), seed)?;
    let clean = std::mem::take(&mut maps.contrasts);
    let mut noisy = Vec::new();
    let mut noise = Vec::new();
    for (stream, (image, s)) in clean.iter().zip(&sequences).enumerate() {
        // Scans of all qualities: half to eight times the usual noise.
        let worse =
            2f64.powf((seed.wrapping_mul(31).wrapping_add(stream as u64) % 9) as f64 / 2.0 - 1.0);
        let std = acquire::noise_std(s, params.snr) * worse;
        noisy.extend(acquire::with_noise(image, std, seed, stream as u64));
        noise.push(std);
    }
    let ct = acquire::ct(
        &subject,
        &Block {
            voxel_mm: [1.0, py, px],
            ..block
        },
        &CtParams {
            seed,
            ..CtParams::default()
        },
    );
    let json = serde_json::json!({
        "seed": seed,
        "contrasts": CONTRASTS,
        "sequences": sequences,
        "noise_std": noise,
        "patient": subject.patient().truth(),
    });
    write_json(&path.with_extension("json"), &json)?;
    let mut w = ismrmrd::file::Writer::create(path, "sample").map_err(file)?;
    let [z, y, x] = block.matrix;
    let shape = [CONTRASTS.len(), z, y, x];
    w.array("images", &floats(&shape, clean.concat()))
        .map_err(file)?;
    w.array("images_noisy", &floats(&shape, noisy))
        .map_err(file)?;
    w.array("ct_hu", &floats(&block.matrix, ct)).map_err(file)?;
    put_maps(&mut w, &block, maps)?;
    w.finish().map_err(file)
}
