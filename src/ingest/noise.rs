//! Noise readouts in, covariance and whitening matrix out.

use ismrmrd::acquisition::AcquisitionRef;
use num_complex::{Complex32, Complex64};

use crate::data::{NoiseCovariance, Whitening};

/// What can be wrong with the noise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoiseError {
    /// The estimate would be noise itself.
    #[error(
        "noise scan too short: {got} samples per coil, needed {need} (8 per coil)\n  try:    measure a longer noise scan, or set ingest.whiten = \"off\""
    )]
    TooFewSamples {
        /// Samples per coil.
        got: u64,
        /// Needed.
        need: u64,
    },
    /// A coil without noise.
    #[error(
        "coil {coil} is dead: its noise readouts are zero\n  try:    set ingest.dead_coil = \"drop\" to go on without it"
    )]
    DeadCoil {
        /// Index.
        coil: usize,
    },
    /// Noise of a coil is a combination of others'.
    #[error(
        "noise covariance is not positive definite at coil {coil}: its noise repeats coil {like}'s (correlation {correlation:.6})\n  try:    set ingest.duplicate_coil = \"drop\" to go on without it"
    )]
    NotPositiveDefinite {
        /// Index.
        coil: usize,
        /// The coil it is most like.
        like: usize,
        /// Magnitude of their correlation.
        correlation: f64,
    },
    /// A dwell time is missing; it is never guessed.
    #[error(
        "the {which} readouts state no dwell time (sample_time_us is {found}): noise cannot be scaled\n  try:    state it as ingest.{key}"
    )]
    MissingDwell {
        /// `imaging` or `noise`.
        which: &'static str,
        /// What they state.
        found: f64,
        /// The parameter.
        key: &'static str,
    },
    /// The dwell time changes among the noise readouts.
    #[error("noise readouts state two dwell times, {first} and {second} us\n  try:    split them")]
    MixedDwell {
        /// First.
        first: f64,
        /// Other.
        second: f64,
    },
    /// Noise and imaging readouts have different coils.
    #[error(
        "the noise scan has {noise} coils, the imaging readouts {imaging}\n  try:    a noise scan with the same coil selection"
    )]
    CoilCount {
        /// Coils of the noise scan.
        noise: usize,
        /// Coils of the imaging readouts.
        imaging: usize,
    },
    /// NaN or infinity.
    #[error(
        "{count} noise samples are NaN or infinite\n  try:    copy or convert the scan again, or set ingest.whiten = \"off\""
    )]
    NotFinite {
        /// How many.
        count: usize,
    },
    /// There is none, and it was required.
    #[error(
        "no noise readouts in the scan, and ingest.whiten = \"require\"\n  try:    give a noise file, or set ingest.whiten = \"auto\" for images in arbitrary units"
    )]
    Absent,
}

/// Samples that noise readouts contribute after `discard_pre` and `discard_post`.
pub(crate) fn kept_samples(head: &ismrmrd::AcquisitionHeader) -> std::ops::Range<usize> {
    let n = usize::from(head.number_of_samples);
    let start = usize::from(head.discard_pre).min(n);
    let end = n.saturating_sub(usize::from(head.discard_post));
    start..end.max(start)
}

/// `Σ n nᴴ` over the samples of one readout, `[coil, coil]`, in f64.
pub(crate) fn gram(
    data: &[Complex32],
    n_coils: usize,
    kept: std::ops::Range<usize>,
) -> Vec<Complex64> {
    let n = data.len().checked_div(n_coils).unwrap_or(0);
    let mut sum = vec![Complex64::ZERO; n_coils * n_coils];
    for i in 0..n_coils {
        let a = &data[i * n..(i + 1) * n][kept.clone()];
        for j in 0..=i {
            let b = &data[j * n..(j + 1) * n][kept.clone()];
            let mut re = [0.0f64; 4];
            let mut im = [0.0f64; 4];
            for (k, (x, y)) in a.iter().zip(b).enumerate() {
                let (xr, xi) = (f64::from(x.re), f64::from(x.im));
                let (yr, yi) = (f64::from(y.re), f64::from(y.im));
                re[k & 3] += xr * yr + xi * yi;
                im[k & 3] += xi * yr - xr * yi;
            }
            let c = Complex64::new(re.iter().sum(), im.iter().sum());
            sum[i * n_coils + j] = c;
            sum[j * n_coils + i] = c.conj();
        }
    }
    sum
}

/// One readout's share of the covariance.
#[derive(Clone, Debug)]
struct Part {
    scan_counter: u32,
    gram: Vec<Complex64>,
}

/// Collects noise readouts.
///
/// # Numerics
/// f64; the shares are added in order of the scan counter, so that the result does not depend on the order of
/// arrival (up to 1024 readouts; beyond, shares are merged as they come).
#[derive(Clone, Debug, Default)]
pub struct NoiseAccumulator {
    n_coils: usize,
    n_samples: u64,
    dwell_us: Option<f64>,
    parts: Vec<Part>,
}

impl NoiseAccumulator {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether no readout came.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Coils, 0 before the first readout.
    pub fn n_coils(&self) -> usize {
        self.n_coils
    }

    /// Adds a readout of noise.
    ///
    /// # Errors
    /// [`NoiseError::NotFinite`], [`NoiseError::CoilCount`], [`NoiseError::MixedDwell`].
    pub fn push(&mut self, readout: &AcquisitionRef<'_>) -> Result<(), NoiseError> {
        let count = readout.data.iter().filter(|v| !v.is_finite()).count();
        if count > 0 {
            return Err(NoiseError::NotFinite { count });
        }
        let n_coils = usize::from(readout.head.active_channels);
        let sum = gram(readout.data, n_coils, kept_samples(readout.head));
        self.push_gram(readout.head, sum)
    }

    pub(crate) fn push_gram(
        &mut self,
        head: &ismrmrd::AcquisitionHeader,
        gram: Vec<Complex64>,
    ) -> Result<(), NoiseError> {
        let n_coils = usize::from(head.active_channels);
        if !self.is_empty() && n_coils != self.n_coils {
            return Err(NoiseError::CoilCount {
                noise: self.n_coils,
                imaging: n_coils,
            });
        }
        let dwell = f64::from(head.sample_time_us);
        if dwell > 0.0 {
            match self.dwell_us {
                Some(first) if (first - dwell).abs() > 1e-6 * first => {
                    return Err(NoiseError::MixedDwell {
                        first,
                        second: dwell,
                    });
                }
                _ => self.dwell_us = Some(dwell),
            }
        }
        self.n_coils = n_coils;
        self.n_samples += kept_samples(head).len() as u64;
        self.parts.push(Part {
            scan_counter: head.scan_counter,
            gram,
        });
        if self.parts.len() > 1024 {
            let merged = self.sum();
            self.parts = vec![Part {
                scan_counter: 0,
                gram: merged,
            }];
        }
        Ok(())
    }

    fn sum(&self) -> Vec<Complex64> {
        let mut order: Vec<&Part> = self.parts.iter().collect();
        order.sort_by_key(|p| p.scan_counter);
        let mut sum = vec![Complex64::ZERO; self.n_coils * self.n_coils];
        for part in order {
            for (s, v) in sum.iter_mut().zip(&part.gram) {
                *s += v;
            }
        }
        sum
    }

    /// The covariance.
    ///
    /// # Errors
    /// [`NoiseError::TooFewSamples`] below 8 samples per coil and coil.
    pub fn finish(&self) -> Result<NoiseCovariance, NoiseError> {
        let need = 8 * self.n_coils.max(1) as u64;
        if self.n_samples < need {
            return Err(NoiseError::TooFewSamples {
                got: self.n_samples,
                need,
            });
        }
        let scale = 1.0 / self.n_samples as f64;
        Ok(NoiseCovariance {
            n_coils: self.n_coils,
            matrix: self.sum().iter().map(|v| v * scale).collect(),
            n_samples: self.n_samples,
            dwell_us: self.dwell_us,
        })
    }
}

/// Covariance of the coils from readouts that hold nothing but noise.
///
/// # Shapes
/// Each readout is `[coil, sample]`.
///
/// # Errors
/// As [`NoiseAccumulator`].
///
/// # Numerics
/// The mean is not removed: the expectation of receiver noise is zero, so `Σ n nᴴ / N` is unbiased.
pub fn noise_covariance(readouts: &[AcquisitionRef<'_>]) -> Result<NoiseCovariance, NoiseError> {
    let mut noise = NoiseAccumulator::new();
    for readout in readouts {
        noise.push(readout)?;
    }
    noise.finish()
}

/// Dwell times of the two scans that meet in [`whitening`], microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dwell {
    /// Imaging readouts.
    pub scan_us: f64,
    /// Noise readouts.
    pub noise_us: f64,
}

/// Pivots below this fraction of the coil's own variance count as zero. A copy of a coil in f32 leaves about
/// 1e-14; coils of real arrays stay above 1e-4.
const PIVOT: f64 = 1e-10;

/// Inverse of the Cholesky factor of `psi`, row-major, lower triangular.
fn inverse_factor(psi: &[Complex64], n: usize) -> Result<Vec<Complex64>, NoiseError> {
    let mut variances: Vec<f64> = (0..n).map(|i| psi[i * n + i].re).collect();
    let of = variances.clone();
    variances.sort_by(f64::total_cmp);
    let median = variances.get(n / 2).copied().unwrap_or(0.0);
    if let Some(coil) = (0..n).find(|&i| of[i] <= 1e-12 * median || of[i] <= 0.0) {
        return Err(NoiseError::DeadCoil { coil });
    }
    let mut l = vec![Complex64::ZERO; n * n];
    for i in 0..n {
        for j in 0..=i {
            let mut s = psi[i * n + j];
            for k in 0..j {
                s -= l[i * n + k] * l[j * n + k].conj();
            }
            if i == j {
                // A NaN must fail too, so the comparison is written the way round that it does.
                let is_positive = s.re > PIVOT * of[i];
                if !is_positive {
                    let correlation = |j: usize| psi[i * n + j].norm() / (of[i] * of[j]).sqrt();
                    let like = (0..i)
                        .max_by(|&a, &b| correlation(a).total_cmp(&correlation(b)))
                        .unwrap_or(i);
                    return Err(NoiseError::NotPositiveDefinite {
                        coil: i,
                        like,
                        correlation: correlation(like),
                    });
                }
                l[i * n + i] = Complex64::new(s.re.sqrt(), 0.0);
            } else {
                l[i * n + j] = s / l[j * n + j];
            }
        }
    }
    let mut inv = vec![Complex64::ZERO; n * n];
    for j in 0..n {
        inv[j * n + j] = Complex64::new(1.0 / l[j * n + j].re, 0.0);
        for i in j + 1..n {
            let mut s = Complex64::ZERO;
            for k in j..i {
                s -= l[i * n + k] * inv[k * n + j];
            }
            inv[i * n + j] = s / l[i * n + i];
        }
    }
    Ok(inv)
}

/// Returns the matrix that decorrelates receiver noise and scales it to unit standard deviation.
///
/// With noise covariance `psi = L·Lᴴ` (Cholesky) the result is `W = √2 · s · L⁻¹`, where
/// `s = √(scan dwell / noise dwell · bandwidth ratio)`. Noise multiplied by `W` has standard deviation
/// 1 in the real **and** 1 in the imaginary part (variance 2 for the complex sample), so that images
/// combined with unit noise gain are in SNR units.
///
/// # Shapes
/// `psi` is `[coil, coil]`, Hermitian. The result is `[coil, coil]`, lower triangular.
///
/// # Units
/// `psi`: receiver counts squared, at the dwell time of the noise scan. Dwell times: microseconds.
/// `bandwidth_ratio`: dimensionless (MRD `relativeReceiverNoiseBandwidth`): noise power of the noise readouts over
/// what a receiver with a flat filter would give.
///
/// # Errors
/// * [`NoiseError::TooFewSamples`]: fewer than 8 samples per coil, the estimate would be noise itself.
/// * [`NoiseError::DeadCoil`], [`NoiseError::NotPositiveDefinite`]: names the first such coil.
/// * [`NoiseError::MissingDwell`]: a dwell time is missing. It is never guessed: a guess would change every
///   SNR by √2 and more without a trace.
///
/// # Numerics
/// Covariance and factorisation in `f64`, rounded once to `f32`. Bit-identical for any thread count.
///
/// # Source
/// Kellman and McVeigh, Magn Reson Med 54:1439–1447 (2005), doi:10.1002/mrm.20713. The √2 follows the
/// per-component convention; implementations that normalise the complex variance to 1 differ from ours by √2.
pub fn whitening(
    psi: &NoiseCovariance,
    dwell: Dwell,
    bandwidth_ratio: f64,
) -> Result<Whitening, NoiseError> {
    let need = 8 * psi.n_coils as u64;
    if psi.n_samples < need {
        return Err(NoiseError::TooFewSamples {
            got: psi.n_samples,
            need,
        });
    }
    for (value, which, key) in [
        (dwell.scan_us, "imaging", "dwell_us"),
        (dwell.noise_us, "noise", "noise_dwell_us"),
    ] {
        if !(value > 0.0 && value.is_finite()) {
            return Err(NoiseError::MissingDwell {
                which,
                found: value,
                key,
            });
        }
    }
    let s = (2.0 * dwell.scan_us / dwell.noise_us * bandwidth_ratio).sqrt();
    let inv = inverse_factor(&psi.matrix, psi.n_coils)?;
    Ok(Whitening {
        n_coils: psi.n_coils,
        matrix: inv.iter().map(|v| to_c32(v * s)).collect(),
    })
}

#[allow(clippy::cast_possible_truncation)] // rounding to storage precision is meant
fn to_c32(v: Complex64) -> Complex32 {
    Complex32::new(v.re as f32, v.im as f32)
}

/// Decorrelation of a scan whose dead or repeated coils may have been left out.
///
/// # Shapes
/// `matrix` is `[kept, coil]`: `√2·L⁻¹` on the kept coils, zero columns for the others.
#[derive(Clone, Debug)]
pub(crate) struct Whitener {
    pub(crate) n_coils: usize,
    pub(crate) kept: Vec<usize>,
    matrix: Vec<Complex64>,
    /// `bandwidth ratio / noise dwell` per microsecond; `None`: unknown, so units stay arbitrary.
    pub(crate) per_us: Option<f64>,
    /// The noise was estimated from the imaging readouts themselves, so dwell and filter are theirs.
    pub(crate) is_own: bool,
}

impl Whitener {
    /// Plans the decorrelation; `drop_dead` and `drop_copy` say which coils may be left out.
    pub(crate) fn plan(
        psi: &NoiseCovariance,
        drop_dead: bool,
        drop_copy: bool,
        per_us: Option<f64>,
    ) -> Result<(Self, Vec<NoiseError>), NoiseError> {
        let n = psi.n_coils;
        let mut kept: Vec<usize> = (0..n).collect();
        let mut dropped = Vec::new();
        loop {
            let m = kept.len();
            let sub: Vec<Complex64> = kept
                .iter()
                .flat_map(|&i| kept.iter().map(move |&j| psi.matrix[i * n + j]))
                .collect();
            let (position, error) = match inverse_factor(&sub, m) {
                Ok(inv) => {
                    let mut matrix = vec![Complex64::ZERO; m * n];
                    for r in 0..m {
                        for c in 0..=r {
                            matrix[r * n + kept[c]] = inv[r * m + c] * std::f64::consts::SQRT_2;
                        }
                    }
                    let whitener = Self {
                        n_coils: n,
                        kept,
                        matrix,
                        per_us,
                        is_own: false,
                    };
                    return Ok((whitener, dropped));
                }
                Err(NoiseError::DeadCoil { coil }) => {
                    let error = NoiseError::DeadCoil { coil: kept[coil] };
                    if !drop_dead {
                        return Err(error);
                    }
                    (coil, error)
                }
                Err(NoiseError::NotPositiveDefinite {
                    coil,
                    like,
                    correlation,
                }) => {
                    let error = NoiseError::NotPositiveDefinite {
                        coil: kept[coil],
                        like: kept[like],
                        correlation,
                    };
                    if !drop_copy {
                        return Err(error);
                    }
                    (coil, error)
                }
                Err(other) => return Err(other),
            };
            // With one coil left there is nothing to go on with.
            if m <= 1 {
                return Err(error);
            }
            kept.remove(position);
            dropped.push(error);
        }
    }

    /// Whether readouts of this dwell time come out with unit noise.
    pub(crate) fn is_unit(&self, dwell_us: Option<f64>) -> bool {
        self.is_own || (self.per_us.is_some() && dwell_us.is_some())
    }

    /// The matrix for readouts of this dwell time, `[kept, coil]`; without a dwell time it only decorrelates.
    pub(crate) fn scaled(&self, dwell_us: Option<f64>) -> Vec<Complex32> {
        let s = match (self.per_us, dwell_us) {
            (Some(per_us), Some(dwell)) if !self.is_own => (per_us * dwell).sqrt(),
            _ => 1.0,
        };
        self.matrix.iter().map(|v| to_c32(v * s)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn psi(matrix: &[(f64, f64)], n: usize) -> NoiseCovariance {
        NoiseCovariance {
            n_coils: n,
            matrix: matrix.iter().map(|&(r, i)| Complex64::new(r, i)).collect(),
            n_samples: 1000,
            dwell_us: Some(5.0),
        }
    }

    const UNIT: Dwell = Dwell {
        scan_us: 5.0,
        noise_us: 5.0,
    };

    // W psi Wᴴ = 2·1 for a correct W at equal dwell times.
    fn whitened(w: &Whitening, psi: &NoiseCovariance) -> Vec<Complex64> {
        let n = w.n_coils;
        let w: Vec<Complex64> = w
            .matrix
            .iter()
            .map(|v| Complex64::new(v.re.into(), v.im.into()))
            .collect();
        let mut out = vec![Complex64::ZERO; n * n];
        for i in 0..n {
            for j in 0..n {
                for a in 0..n {
                    for b in 0..n {
                        out[i * n + j] +=
                            w[i * n + a] * psi.matrix[a * n + b] * w[j * n + b].conj();
                    }
                }
            }
        }
        out
    }

    fn is_white(w: &Whitening, psi: &NoiseCovariance) -> bool {
        whitened(w, psi).iter().enumerate().all(|(i, v)| {
            let want = if i % (psi.n_coils + 1) == 0 { 2.0 } else { 0.0 };
            (v - want).norm() < 1e-5
        })
    }

    #[test]
    fn one_coil_by_hand() {
        // variance 4, equal dwell: W = √2/2. Twice the dwell: noise power halves, so W grows by √2.
        let p = psi(&[(4.0, 0.0)], 1);
        let w = whitening(&p, UNIT, 1.0).unwrap();
        assert!((w.matrix[0].re - 0.5f32.sqrt()).abs() < 1e-7);
        let w = whitening(
            &p,
            Dwell {
                scan_us: 10.0,
                noise_us: 5.0,
            },
            1.0,
        )
        .unwrap();
        assert!((w.matrix[0].re - 1.0).abs() < 1e-7);
        let w = whitening(&p, UNIT, 0.5).unwrap();
        assert!((w.matrix[0].re - 0.5).abs() < 1e-7);
    }

    #[test]
    fn two_coils_by_hand_and_wrong_twins() {
        // L = [[2, 0], [1-i, 1]]: psi = L Lᴴ = [[4, 2+2i], [2-2i, 3]]
        let p = psi(&[(4.0, 0.0), (2.0, 2.0), (2.0, -2.0), (3.0, 0.0)], 2);
        let w = whitening(&p, UNIT, 1.0).unwrap();
        let r2 = 2f32.sqrt();
        let want = [
            Complex32::new(r2 / 2.0, 0.0),
            Complex32::ZERO,
            Complex32::new(-r2 / 2.0, r2 / 2.0),
            Complex32::new(r2, 0.0),
        ];
        for (a, b) in w.matrix.iter().zip(want) {
            assert!((a - b).norm() < 1e-6, "{a} {b}");
        }
        assert!(is_white(&w, &p));
        // wrong twins: conjugated, transposed, identity, without the √2
        let twin = |f: &dyn Fn(usize, usize) -> Complex32| Whitening {
            n_coils: 2,
            matrix: (0..4).map(|k| f(k / 2, k % 2)).collect(),
        };
        assert!(!is_white(&twin(&|i, j| w.matrix[i * 2 + j].conj()), &p));
        assert!(!is_white(&twin(&|i, j| w.matrix[j * 2 + i]), &p));
        assert!(!is_white(
            &twin(&|i, j| Complex32::from(f32::from(i == j))),
            &p
        ));
        assert!(!is_white(&twin(&|i, j| w.matrix[i * 2 + j] / r2), &p));
    }

    #[test]
    fn covariance_by_hand() {
        // coil 0: 1, i; coil 1: 1+i, 2. Σ n0 n1* = 1·(1-i) + i·2 = 1 + i.
        let mut a = ismrmrd::Acquisition::default();
        a.head.active_channels = 2;
        a.head.number_of_samples = 2;
        a.data = [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (2.0, 0.0)]
            .map(|(r, i)| Complex32::new(r, i))
            .to_vec();
        let g = gram(&a.data, 2, 0..2);
        assert_eq!(g[0], Complex64::new(2.0, 0.0));
        assert_eq!(g[1], Complex64::new(1.0, 1.0));
        assert_eq!(g[2], Complex64::new(1.0, -1.0));
        assert_eq!(g[3], Complex64::new(6.0, 0.0));
        assert!(matches!(
            noise_covariance(&[a.as_ref()]),
            Err(NoiseError::TooFewSamples { got: 2, need: 16 })
        ));
    }

    #[test]
    fn dead_and_copied_coils_are_named() {
        let p = psi(&[(4.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)], 2);
        assert!(matches!(
            whitening(&p, UNIT, 1.0),
            Err(NoiseError::DeadCoil { coil: 1 })
        ));
        let (w, dropped) = Whitener::plan(&p, true, false, Some(0.2)).unwrap();
        assert_eq!(w.kept, [0]);
        assert_eq!(dropped.len(), 1);
        let p = psi(&[(4.0, 0.0), (0.0, 4.0), (0.0, -4.0), (4.0, 0.0)], 2);
        assert!(matches!(
            whitening(&p, UNIT, 1.0),
            Err(NoiseError::NotPositiveDefinite {
                coil: 1,
                like: 0,
                ..
            })
        ));
        let (w, _) = Whitener::plan(&p, false, true, Some(0.2)).unwrap();
        assert_eq!(w.kept, [0]);
    }

    #[test]
    fn missing_dwell_is_refused() {
        let p = psi(&[(1.0, 0.0)], 1);
        let dwell = Dwell {
            scan_us: 0.0,
            noise_us: 5.0,
        };
        assert!(matches!(
            whitening(&p, dwell, 1.0),
            Err(NoiseError::MissingDwell {
                which: "imaging",
                ..
            })
        ));
    }
}
