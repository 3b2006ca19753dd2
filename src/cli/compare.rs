//! `cauda compare`: how far apart two images are, and whether that is too far.

use std::path::PathBuf;

use super::{Outcome, output::Output, output::table};
use crate::data::{Fault, FaultKind};
use crate::handoff::read_image;
use crate::metrics::{Pair, compare};

/// Arguments of `cauda compare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The reference: NumPy, NIfTI, BART, ISMRMRD images (.h5, stream), DICOM or a folder of it
    #[arg(value_name = "A")]
    reference: PathBuf,
    /// What is judged
    #[arg(value_name = "B")]
    test: PathBuf,
    /// Series of ISMRMRD images or arrays, when there are several
    #[arg(long, value_name = "NAME")]
    series: Option<String>,
    /// Largest NRMSE allowed
    #[arg(long, value_name = "MAX")]
    nrmse: Option<f64>,
    /// Smallest PSNR allowed, dB
    #[arg(long, value_name = "MIN")]
    psnr: Option<f64>,
    /// Smallest SSIM allowed
    #[arg(long, value_name = "MIN")]
    ssim: Option<f64>,
    /// Largest HFEN allowed
    #[arg(long, value_name = "MAX")]
    hfen: Option<f64>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// One figure against its threshold.
#[derive(Debug, serde::Serialize)]
struct Check {
    figure: &'static str,
    value: f64,
    allowed: Option<f64>,
    is_met: bool,
}

pub(super) fn run(args: &Args, out: &Output) -> Result<Outcome, Fault> {
    let series = args.series.as_deref();
    let reference = read_image(&args.reference, series)?;
    let test = read_image(&args.test, series)?;
    out.notes(reference.note.iter().chain(&test.note));
    let wrong = |message: String| Fault::new(FaultKind::Input, "cli", message);
    if reference.dims != test.dims {
        return Err(wrong(format!(
            "the images have different extents: {:?} ({}), {:?} ({}); compare images of one grid",
            reference.dims,
            args.reference.display(),
            test.dims,
            args.test.display()
        )));
    }
    let [planes @ .., ny, nx] = reference.dims.as_slice() else {
        return Err(wrong("an image needs rows and columns".to_owned()));
    };
    let found = compare(&Pair {
        shape: [planes.iter().product(), *ny, *nx],
        reference: &reference.voxels,
        test: &test.voxels,
        is_magnitude: !(reference.is_complex && test.is_complex),
    })
    .map_err(|e| wrong(e.to_string()))?;

    let q = found.quality;
    let at_most = |figure, value: f64, allowed: Option<f64>| Check {
        figure,
        value,
        allowed,
        is_met: allowed.is_none_or(|a| value <= a),
    };
    let at_least = |figure, value: f64, allowed: Option<f64>| Check {
        is_met: allowed.is_none_or(|a| value >= a),
        ..at_most(figure, value, allowed)
    };
    let checks = [
        at_most("nrmse", q.nrmse, args.nrmse),
        at_least("psnr_db", q.psnr_db, args.psnr),
        at_least("ssim", q.ssim, args.ssim),
        at_most("hfen", q.hfen, args.hfen),
    ];
    let rows: Vec<_> = checks
        .iter()
        .map(|c| {
            vec![
                c.figure.to_owned(),
                format!("{:.6}", c.value),
                c.allowed.map_or_else(String::new, |a| a.to_string()),
                if c.is_met { "ok" } else { "FAILED" }.to_owned(),
            ]
        })
        .collect();
    out.text(&table(&["figure", "value", "allowed", "verdict"], &rows));
    out.text(&format!(
        "fitted: scale {:.6}, phase {:.2} deg; {} compared",
        found.scale,
        found.phase_deg,
        if found.is_magnitude {
            "magnitudes"
        } else {
            "complex values"
        }
    ));
    out.json(&serde_json::json!({ "comparison": found, "checks": checks }))?;
    Ok(if checks.iter().all(|c| c.is_met) {
        Outcome::Done
    } else {
        Outcome::CheckFailed
    })
}
