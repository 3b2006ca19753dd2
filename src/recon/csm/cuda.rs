//! ESPIRiT on a card: the signal space of the calibration matrix (`space.rs`), and the eigenvectors of every voxel.

use num_complex::Complex32;
use rayon::prelude::*;

use super::espirit::{Polynomial, pairs_of, window_of};
use super::{Calibration, CsmError, CsmMethod, CsmParams, principal_component, space};
use crate::data::{Csm, KSpace};
use crate::device::cuda::{Accelerator, Arg, CudaError, grid, int};

/// Coils that the kernel has room for: `ESPIRIT_COILS`.
const MOST_COILS: usize = 17;

/// Why there are no maps from a card.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Nowhere else either.
    #[error(transparent)]
    Maps(#[from] CsmError),
    /// The card's fault.
    #[error(transparent)]
    Card(#[from] CudaError),
}

/// Why a card cannot make such maps; `None` where it can.
pub fn lacks(params: &CsmParams, n_coils: usize) -> Option<String> {
    if params.method != CsmMethod::Espirit {
        return Some(format!("maps by {:?}", params.method));
    }
    if params.n_sets > 1 {
        return Some("several sets of maps".into());
    }
    (n_coils > MOST_COILS).then(|| format!("maps of {n_coils} coils"))
}

/// [`super::maps`] on a card, at every voxel: interpolation on the CPU differs by up to 1.4e-3.
///
/// # Errors
/// Those of [`super::maps`], and the card's. Call it only where it [`lacks`] nothing.
pub fn maps(
    card: &Accelerator,
    acs: &KSpace,
    matrix: [usize; 3],
    params: &CsmParams,
) -> Result<Csm, Failed> {
    super::check(params)?;
    let calibration = Calibration::extract(acs, params.calibration)?;
    calibration.require(acs, params.window + 2)?;
    let window = window_of(&calibration, params);
    let (n_coils, pairs) = (calibration.n_coils, pairs_of(calibration.n_coils));
    let n_unknowns = n_coils * window.iter().product::<usize>();
    // Else here, as on the CPU.
    let factorised = if space::applies(n_unknowns, params.threshold) {
        None
    } else {
        let polynomial = Polynomial::new(&calibration, params)?;
        let parts = polynomial.re.iter().zip(&polynomial.im);
        let parts = parts.map(|(re, im)| Complex32::new(*re, *im));
        Some(parts.collect::<Vec<_>>())
    };
    let gauge = principal_component(&calibration)?;
    let [nz, ny, nx] = matrix;
    let n_rows = nz * ny;
    let [tz, ty, tx] = window.map(|w| 2 * w - 1);
    // Position of a row or column, in turns of the field of view, times a tap.
    let turns = |index: usize, n: usize, tap: usize, taps: usize| {
        let position = (index as f64 - (n / 2) as f64) / n as f64;
        (tap as f64 - (taps / 2) as f64) * position
    };
    let wave = |turns: f64| {
        let (sin, cos) = (std::f64::consts::TAU * turns.fract()).sin_cos();
        Complex32::new(cos as f32, sin as f32)
    };
    let of_rows: Vec<Complex32> = (0..n_rows * tz * ty)
        .map(|i| {
            let (row, a, b) = (i / (tz * ty), i / ty % tz, i % ty);
            wave(turns(row / ny, nz, a, tz) + turns(row % ny, ny, b, ty))
        })
        .collect();
    let of_columns: Vec<Complex32> = (0..nx * tx)
        .map(|i| wave(turns(i / tx, nx, i % tx, tx)))
        .collect();
    let fetched = card.run(|stream| {
        let of_rows = card.upload(stream, &of_rows)?;
        let of_columns = card.upload(stream, &of_columns)?;
        let coefficients = match &factorised {
            Some(coefficients) => card.upload(stream, coefficients)?,
            None => {
                let of = (window, pairs);
                space::coefficients(card, stream, &calibration, of, params.threshold)?
            }
        };
        let gauge = card.upload(stream, &gauge)?;
        let n = tx * pairs;
        let mut rows = card.context().buffer::<Complex32>(n_rows * n)?;
        let args = [
            Arg::input(&of_rows),
            Arg::input(&coefficients),
            Arg::output(&mut rows),
            int(n_rows)?,
            int(tz * ty)?,
            int(n)?,
        ];
        let blocks = [grid(n.div_ceil(256))?, grid(n_rows.div_ceil(16))?, 1];
        stream.launch("whiten_c32", blocks, &args)?;
        let mut maps = card.context().buffer::<Complex32>(n_coils * n_rows * nx)?;
        let args = [
            Arg::input(&rows),
            Arg::input(&of_columns),
            Arg::input(&gauge),
            Arg::output(&mut maps),
            int(n_coils)?,
            int(pairs)?,
            int(tx)?,
            int(n_rows)?,
            int(nx)?,
            Arg::F32(params.crop),
            Arg::I32(i32::from(params.soft)),
        ];
        let blocks = [grid(n_rows)?, grid(nx.div_ceil(32))?, 1];
        stream.launch("espirit_maps_c32", blocks, &args)?;
        card.fetch(stream, &maps)
    })?;
    // Most of the time of a copy goes into pages that are new: several threads.
    let copy = |maps: &[Complex32]| maps.par_iter().with_min_len(1 << 14).copied().collect();
    let maps: Vec<Complex32> = card.take_as(fetched, copy)?;
    Ok(Csm {
        n_sets: 1,
        n_coils,
        matrix,
        maps,
    })
}
