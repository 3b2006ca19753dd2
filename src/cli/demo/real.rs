//! The real scan that ships inside the program, from k-space to pictures.

use std::io::Write;
use std::path::Path;

use num_complex::Complex32;

use super::super::output::Output;
use super::super::recon::{Bar, deliveries, describe, json};
use super::{Args, io};
use crate::data::{Fault, FaultKind, ReconImage};
use crate::metrics::{Comparison, Pair, compare};
use crate::pipeline::{FileJob, recon_file};
use crate::protocol::Registry;
use crate::source::{self, OpenOptions};

/// T2w RARE of a mouse's head and neck, 9 slices, 72 of 96 lines: see tests/data/README.md.
const SCAN: &[u8] = include_bytes!("../../../tests/data/demo_mouse_pf.h5");
/// Magnitudes of the fully sampled scan by another program, u16 `[slice, y, x]`, NumPy.
const REFERENCE: &[u8] = include_bytes!("../../../tests/data/demo_mouse_full.npy");

/// Reconstructs it from its file and compares with the full scan.
pub(super) fn run(args: &Args, out: &Output) -> Result<serde_json::Value, Fault> {
    let scan = args.out.join("scan.h5");
    place(&scan)?;

    let mut protocol = Registry.find("default", &[])?;
    protocol.file.handoff.overwrite = true;
    let bar = Bar::new(out, "readouts");
    let finished = recon_file(&FileJob {
        input: &scan,
        options: OpenOptions::default(),
        noise: None,
        protocol: &protocol,
        threads: args.threads,
        watch: &bar,
    })?;
    bar.clear();
    out.text(
        "A real scan: T2-weighted RARE of a mouse's head and neck, 1 T, 9 slices, 1 coil; 72 of 96 phase-encoding\n\
         lines are kept (partial Fourier 6/8). Source and licence: tests/data/README.md.\n",
    );
    out.notes(&finished.report().notes);

    let mut delivered = Vec::new();
    for name in ["images.png", "images.nii.gz", "images.h5", "dicom/"] {
        delivered.push(finished.deliver(&args.out.join(name), &protocol.file.handoff)?);
    }

    let report = finished.report();
    out.text(&describe(&report));
    out.text(&deliveries(&delivered));
    let quality = against_reference(&finished.images)?;
    if let Some(q) = &quality {
        out.text(&format!(
            "against the fully sampled scan (NumPy's FFT): NRMSE {:.4}, PSNR {:.1} dB, SSIM {:.4}, HFEN {:.4}",
            q.quality.nrmse, q.quality.psnr_db, q.quality.ssim, q.quality.hfen
        ));
    }
    out.text(&format!(
        "look at {}; try: cauda recon {} -o other.png --set recon.partial_fourier.method=zero_fill --force",
        args.out.join("images.png").display(),
        scan.display()
    ));
    let mut value = json(&report, &delivered)?;
    if let Some(map) = value.as_object_mut() {
        map.insert("quality".to_owned(), serde_json::json!(quality));
    }
    Ok(value)
}

/// Puts the scan beside the results, so that it can be reconstructed by hand too.
fn place(path: &Path) -> Result<(), Fault> {
    let mut file = source::beside(path)?;
    file.write_all(SCAN)
        .map_err(|e| io("cannot write", path, &e))?;
    Ok(source::persist(file, path)?)
}

/// Compares magnitudes; `None` if the images have another matrix than the reference.
fn against_reference(images: &[ReconImage]) -> Result<Option<Comparison>, Fault> {
    let Some(first) = images.first() else {
        return Ok(None);
    };
    let [nx, ny, _] = first.geometry.matrix;
    let shape = [images.len(), ny, nx];
    // A .npy of version 1 has its header's length, little-endian, at byte 8, and the values after it.
    let header = usize::from(u16::from_le_bytes([REFERENCE[8], REFERENCE[9]]));
    let reference: Vec<Complex32> = REFERENCE[10 + header..]
        .chunks_exact(2)
        .map(|b| Complex32::new(f32::from(u16::from_le_bytes([b[0], b[1]])), 0.0))
        .collect();
    let test: Vec<Complex32> = images.iter().flat_map(|i| i.voxels.clone()).collect();
    if reference.len() != shape.iter().product::<usize>() || test.len() != reference.len() {
        return Ok(None);
    }
    let pair = Pair {
        shape,
        reference: &reference,
        test: &test,
        is_magnitude: true,
    };
    compare(&pair)
        .map(Some)
        .map_err(|e| Fault::new(FaultKind::Bug, "metrics", e.to_string()))
}
