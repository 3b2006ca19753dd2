//! How alike two images are: NRMSE, PSNR, SSIM, HFEN, after fitting scale and phase.

use num_complex::{Complex32, Complex64};

/// Two images on one grid.
///
/// # Shapes
/// `[n, y, x]`, x contiguous; every image of the stack is compared as a 2D image by SSIM and HFEN.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// n, y, x.
    pub shape: [usize; 3],
    /// What is held to be true.
    pub reference: &'a [Complex32],
    /// What is judged.
    pub test: &'a [Complex32],
    /// Compare magnitudes only: one of the two carries no phase.
    pub is_magnitude: bool,
}

/// What the comparison found.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Quality {
    /// `‖ref − s·test‖ / ‖ref‖`, with the fitted factor `s`. 0 is equal.
    pub nrmse: f64,
    /// Peak signal-to-noise ratio of the magnitudes, dB; the peak is the largest magnitude of the reference.
    pub psnr_db: f64,
    /// Structural similarity of the magnitudes, mean over all windows and images. 1 is equal.
    pub ssim: f64,
    /// High-frequency error norm of the magnitudes. 0 is equal.
    pub hfen: f64,
}

/// A [`Quality`] with what was fitted to reach it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Comparison {
    /// Figures after the fit.
    #[serde(flatten)]
    pub quality: Quality,
    /// `|s|`: what the test image was multiplied by.
    pub scale: f64,
    /// Argument of `s` in degrees; 0 when magnitudes were compared.
    pub phase_deg: f64,
    /// Whether only magnitudes were compared.
    pub is_magnitude: bool,
}

/// Why two images cannot be compared.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QualityError {
    /// Lengths and shape differ.
    #[error("images of {reference} and {test} voxels compared on a grid of {needed}")]
    Shape {
        /// Voxels of the reference.
        reference: usize,
        /// Voxels of the test image.
        test: usize,
        /// Voxels of the grid.
        needed: usize,
    },
    /// NaN or infinity.
    #[error("{0} voxels are not finite; nothing is replaced")]
    NotFinite(usize),
    /// The reference is zero everywhere.
    #[error("the reference image is zero everywhere: no relative error exists")]
    Empty,
    /// SSIM needs one whole window.
    #[error("images of {y}x{x} are smaller than the 7x7 window of SSIM")]
    TooSmall {
        /// Rows.
        y: usize,
        /// Columns.
        x: usize,
    },
}

/// Compares two images after multiplying the test image by the factor `s` that brings it closest to the reference.
///
/// `s = ⟨test, ref⟩ / ⟨test, test⟩`: complex (scale and phase) for complex images, real for magnitudes.
///
/// # Errors
/// [`QualityError`]: shapes differ, non-finite voxels, an empty reference, images smaller than a window.
///
/// # Numerics
/// All sums in `f64`, in the order of the voxels.
///
/// # Source
/// SSIM: Wang et al., IEEE Trans Image Process 13:600-612 (2004), doi:10.1109/TIP.2003.819861, with a uniform 7x7
/// window, sample covariance, K1 = 0.01, K2 = 0.03 and the data range `max|ref|`: the defaults of scikit-image.
/// HFEN: Ravishankar and Bresler, IEEE Trans Med Imaging 30:1028-1041 (2011), doi:10.1109/TMI.2010.2090538: relative
/// norm of the difference after a Laplacian of Gaussian, 15x15, sigma 1.5; zeros outside the image.
pub fn compare(pair: &Pair) -> Result<Comparison, QualityError> {
    let [n, ny, nx] = pair.shape;
    let needed = n * ny * nx;
    if pair.reference.len() != needed || pair.test.len() != needed {
        return Err(QualityError::Shape {
            reference: pair.reference.len(),
            test: pair.test.len(),
            needed,
        });
    }
    let bad = [pair.reference, pair.test]
        .iter()
        .flat_map(|v| v.iter())
        .filter(|v| !v.re.is_finite() || !v.im.is_finite())
        .count();
    if bad > 0 {
        return Err(QualityError::NotFinite(bad));
    }
    if ny < WINDOW || nx < WINDOW {
        return Err(QualityError::TooSmall { y: ny, x: nx });
    }
    let wide = |v: &Complex32| -> Complex64 {
        let v = Complex64::new(f64::from(v.re), f64::from(v.im));
        if pair.is_magnitude {
            Complex64::new(v.norm(), 0.0)
        } else {
            v
        }
    };
    let energy: f64 = pair.reference.iter().map(|v| wide(v).norm_sqr()).sum();
    if energy == 0.0 {
        return Err(QualityError::Empty);
    }
    let factor = fit(pair.reference.iter().map(wide), pair.test.iter().map(wide));
    let error: f64 = pair
        .reference
        .iter()
        .zip(pair.test)
        .map(|(r, t)| (wide(r) - factor * wide(t)).norm_sqr())
        .sum();

    let reference: Vec<f64> = pair.reference.iter().map(|v| wide(v).norm()).collect();
    let test: Vec<f64> = pair
        .test
        .iter()
        .map(|v| (factor * wide(v)).norm())
        .collect();
    let peak = reference.iter().copied().fold(0.0, f64::max);
    let mse = reference
        .iter()
        .zip(&test)
        .map(|(r, t)| (r - t).powi(2))
        .sum::<f64>()
        / needed as f64;
    let planes = || {
        reference
            .chunks_exact(ny * nx)
            .zip(test.chunks_exact(ny * nx))
    };
    let ssim = planes()
        .map(|(r, t)| ssim(r, t, [ny, nx], peak))
        .sum::<f64>()
        / n as f64;
    let (difference, edges) = planes()
        .map(|(r, t)| {
            let (r, t) = (log_filter(r, [ny, nx]), log_filter(t, [ny, nx]));
            (
                r.iter().zip(&t).map(|(a, b)| (a - b).powi(2)).sum::<f64>(),
                r.iter().map(|a| a * a).sum::<f64>(),
            )
        })
        .fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
    Ok(Comparison {
        quality: Quality {
            nrmse: (error / energy).sqrt(),
            psnr_db: 10.0 * (peak * peak / mse).log10(),
            ssim,
            hfen: if edges > 0.0 {
                (difference / edges).sqrt()
            } else {
                0.0
            },
        },
        scale: factor.norm(),
        phase_deg: factor.arg().to_degrees(),
        is_magnitude: pair.is_magnitude,
    })
}

/// Least-squares factor; 1 for a test image of zeros, which no factor brings closer.
fn fit(
    reference: impl Iterator<Item = Complex64>,
    test: impl Iterator<Item = Complex64>,
) -> Complex64 {
    let (mut cross, mut energy) = (Complex64::ZERO, 0.0);
    for (r, t) in reference.zip(test) {
        cross += t.conj() * r;
        energy += t.norm_sqr();
    }
    if energy > 0.0 {
        cross / energy
    } else {
        Complex64::ONE
    }
}

const WINDOW: usize = 7;

/// Mean SSIM of one image over all windows that lie inside it.
fn ssim(a: &[f64], b: &[f64], [ny, nx]: [usize; 2], range: f64) -> f64 {
    let count = (WINDOW * WINDOW) as f64;
    let (c1, c2) = ((0.01 * range).powi(2), (0.03 * range).powi(2));
    let mut sum = 0.0;
    for y in 0..=ny - WINDOW {
        for x in 0..=nx - WINDOW {
            let (mut sa, mut sb, mut saa, mut sbb, mut sab) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for row in y..y + WINDOW {
                let span = row * nx + x..row * nx + x + WINDOW;
                for (&va, &vb) in a[span.clone()].iter().zip(&b[span]) {
                    sa += va;
                    sb += vb;
                    saa += va * va;
                    sbb += vb * vb;
                    sab += va * vb;
                }
            }
            let (ma, mb) = (sa / count, sb / count);
            let unbiased = count / (count - 1.0);
            let var_a = unbiased * (saa / count - ma * ma);
            let var_b = unbiased * (sbb / count - mb * mb);
            let cov = unbiased * (sab / count - ma * mb);
            sum += (2.0 * ma * mb + c1) * (2.0 * cov + c2)
                / ((ma * ma + mb * mb + c1) * (var_a + var_b + c2));
        }
    }
    sum / ((ny - WINDOW + 1) * (nx - WINDOW + 1)) as f64
}

const TAPS: usize = 15;

/// Laplacian of Gaussian, 15x15, sigma 1.5, zero mean: MATLAB's `fspecial('log', 15, 1.5)`.
fn log_taps() -> [f64; TAPS * TAPS] {
    let sigma2 = 1.5_f64 * 1.5;
    let half = (TAPS / 2) as f64;
    let mut gauss = [0.0; TAPS * TAPS];
    for (i, g) in gauss.iter_mut().enumerate() {
        let (y, x) = ((i / TAPS) as f64 - half, (i % TAPS) as f64 - half);
        *g = (-(x * x + y * y) / (2.0 * sigma2)).exp();
    }
    let total: f64 = gauss.iter().sum();
    let mut taps = [0.0; TAPS * TAPS];
    for (i, t) in taps.iter_mut().enumerate() {
        let (y, x) = ((i / TAPS) as f64 - half, (i % TAPS) as f64 - half);
        *t = gauss[i] / total * (x * x + y * y - 2.0 * sigma2) / (sigma2 * sigma2);
    }
    let mean = taps.iter().sum::<f64>() / (TAPS * TAPS) as f64;
    taps.map(|t| t - mean)
}

fn log_filter(image: &[f64], [ny, nx]: [usize; 2]) -> Vec<f64> {
    let taps = log_taps();
    let half = TAPS / 2;
    let mut out = vec![0.0; image.len()];
    for y in 0..ny {
        for x in 0..nx {
            let mut sum = 0.0;
            for ty in 0..TAPS {
                let Some(row) = (y + ty).checked_sub(half).filter(|r| *r < ny) else {
                    continue;
                };
                for tx in 0..TAPS {
                    if let Some(col) = (x + tx).checked_sub(half).filter(|c| *c < nx) {
                        sum += taps[ty * TAPS + tx] * image[row * nx + col];
                    }
                }
            }
            out[y * nx + x] = sum;
        }
    }
    out
}

#[cfg(test)]
mod tests;
