//! Partial Fourier: what to do where one side of k-space was not measured.

use num_complex::Complex32;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::combine::low_res::unit;
use super::error::ReconError;
use super::params::require;
use super::smooth::box_sum;
use crate::num::fft::{Direction, Fft};
use crate::num::rng::Rng;

/// Treatment of the side that was not measured.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PartialFourierMethod {
    /// POCS where the symmetric part is wide enough for a phase estimate, else zero filling; the choice is noted.
    #[default]
    Auto,
    /// Zeros, with a smooth edge towards them.
    ZeroFill,
    /// Weighted real part after removing the phase of the symmetric centre; one axis only.
    Homodyne,
    /// Projections onto measured data and phase of the symmetric centre; what they put on the side that was not
    /// measured counts as far as its signal stands out of the noise (Wiener).
    Pocs,
}

/// Partial Fourier.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PartialFourierParams {
    /// `auto`, `zero_fill`, `homodyne` or `pocs`.
    pub method: PartialFourierMethod,
    /// Iterations of POCS, 1 to 200.
    pub iterations: usize,
    /// Width of the smooth edge between measured and not measured samples, in samples, 0 to 64.
    pub transition: usize,
}

impl Default for PartialFourierParams {
    fn default() -> Self {
        Self {
            method: PartialFourierMethod::Auto,
            iterations: 8,
            transition: 4,
        }
    }
}

impl PartialFourierParams {
    pub(crate) fn check(&self) -> Result<(), ReconError> {
        require(
            (1..=200).contains(&self.iterations),
            "partial_fourier.iterations",
            self.iterations,
            "1 to 200",
        )?;
        require(
            self.transition <= 64,
            "partial_fourier.transition",
            self.transition,
            "0 to 64",
        )
    }
}

/// Measured range of one axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AxisExtent {
    pub(crate) n: usize,
    pub(crate) measured: std::ops::Range<usize>,
}

impl AxisExtent {
    /// Samples measured on both sides of DC: `dc - half ..= dc + half`.
    pub(crate) fn half(&self) -> usize {
        let dc = self.n / 2;
        dc.saturating_sub(self.measured.start)
            .min(self.measured.end.saturating_sub(dc + 1))
    }

    /// Whether one side reaches further out than the other by more than `slack` samples.
    fn is_partial(&self, slack: usize) -> bool {
        let dc = self.n / 2;
        let (below, above) = (
            dc.saturating_sub(self.measured.start),
            self.measured.end.saturating_sub(dc + 1),
        );
        below.abs_diff(above) > slack.max(1)
    }

    /// Share of the full width that was measured.
    fn fraction(&self) -> f64 {
        self.measured.len() as f64 / self.n as f64
    }
}

/// What is done about the side that was not measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// z, y, x.
    axes: [AxisExtent; 3],
    /// The treatment, never `Auto`; `None`: nothing is missing on one side only.
    method: Option<PartialFourierMethod>,
    params: PartialFourierParams,
    /// The axis of homodyne, or -1 when several axes are partial.
    single: Option<usize>,
    pub(crate) reason: String,
}

/// Fewer symmetric samples than this on each side of DC make no phase estimate.
const LEAST_HALF: usize = 4;

impl Plan {
    /// Chooses the treatment; `slack` (per axis) is how far lines may be apart without anything missing.
    pub(crate) fn new(
        axes: [AxisExtent; 3],
        slack: [usize; 3],
        params: &PartialFourierParams,
    ) -> Result<Self, ReconError> {
        const NAMES: [&str; 3] = ["pe2", "pe1", "ro"];
        let partial: Vec<usize> = (0..3).filter(|&a| axes[a].is_partial(slack[a])).collect();
        let what: Vec<String> = partial
            .iter()
            .map(|&a| format!("{} measured to {:.3}", NAMES[a], axes[a].fraction()))
            .collect();
        let what = what.join(", ");
        let narrow = partial.iter().find(|&&a| axes[a].half() < LEAST_HALF);
        let asked = params.method;
        let (method, reason) = match (partial.len(), asked, narrow) {
            (0, _, _) => (None, "k-space is symmetric".to_string()),
            (_, PartialFourierMethod::ZeroFill, _) => (Some(asked), format!("{what}; asked for")),
            (_, PartialFourierMethod::Auto, Some(&a)) => (
                Some(PartialFourierMethod::ZeroFill),
                format!(
                    "{what}; only {} symmetric samples on each side of DC along {}, too few for a phase estimate",
                    axes[a].half(),
                    NAMES[a]
                ),
            ),
            (_, PartialFourierMethod::Auto, None) => (Some(PartialFourierMethod::Pocs), what),
            (_, _, Some(&a)) => {
                return Err(ReconError::Pattern {
                    method: "partial_fourier",
                    found: format!(
                        "{what}, with {} symmetric samples on each side of DC along {} ({LEAST_HALF} are needed)",
                        axes[a].half(),
                        NAMES[a]
                    ),
                    hint: "set `partial_fourier.method = \"zero_fill\"`".into(),
                });
            }
            (2.., PartialFourierMethod::Homodyne, None) => {
                return Err(ReconError::Pattern {
                    method: "homodyne",
                    found: format!("several axes are partial ({what})"),
                    hint: "set `partial_fourier.method = \"pocs\"`".into(),
                });
            }
            (_, method, None) => (Some(method), format!("{what}; asked for")),
        };
        let single = (partial.len() == 1).then(|| partial[0]);
        Ok(Self {
            axes,
            method,
            params: *params,
            single,
            reason,
        })
    }

    /// The treatment; `None` when nothing is missing.
    pub(crate) fn method(&self) -> Option<PartialFourierMethod> {
        self.method
    }

    /// What noise of the full grid's k-space is multiplied with, along z, y, x, and a factor on the variance.
    ///
    /// Zero filling: the measured window itself. Homodyne and POCS keep the part of the image along the local phase,
    /// in which a sample without partner counts twice: the window is 2 there, 1 in the symmetric part (or the ramp of
    /// homodyne), 0 where nothing was measured. With several partial axes the window is no product, and the factor
    /// makes up for the difference.
    pub(crate) fn noise(&self) -> ([Vec<f32>; 3], f32) {
        let mut windows: [Vec<f32>; 3] = std::array::from_fn(|a| self.measured_window(a));
        let factor = match (self.method, self.single) {
            (Some(PartialFourierMethod::Homodyne), Some(a)) => {
                windows[a] = self.homodyne_window(a);
                1.0
            }
            (Some(PartialFourierMethod::Pocs), Some(a)) => {
                let (n, extent) = (self.axes[a].n, &self.axes[a].measured);
                for k in extent.clone() {
                    let mirror = (2 * (n / 2)).wrapping_sub(k);
                    // In the transition a sample gives part of its weight to its partner.
                    windows[a][k] = if extent.contains(&mirror) {
                        1.0 + self.edge(a, k) - self.edge(a, mirror)
                    } else if mirror == n {
                        1.0
                    } else {
                        2.0
                    };
                }
                1.0
            }
            (Some(PartialFourierMethod::Pocs), None) => {
                // A sample has a measured partner when each axis has one.
                let share = |a: usize| {
                    let extent = &self.axes[a];
                    (2 * extent.half() + 1).min(extent.measured.len()) as f64
                        / extent.measured.len() as f64
                };
                let with_partner = share(0) * share(1) * share(2);
                (4.0 - 3.0 * with_partner) as f32
            }
            _ => 1.0,
        };
        (windows, factor)
    }

    /// 1 where measured; zero filling rolls off towards the side that was not.
    fn measured_window(&self, a: usize) -> Vec<f32> {
        let extent = &self.axes[a];
        let mut w = vec![0.0f32; extent.n];
        w[extent.measured.clone()].fill(1.0);
        if self.method == Some(PartialFourierMethod::ZeroFill) {
            for (k, v) in w.iter_mut().enumerate() {
                *v *= self.edge(a, k);
            }
        }
        w
    }

    /// Smooth edge of zero filling, only on a side where something is missing.
    fn edge(&self, a: usize, k: usize) -> f32 {
        let extent = &self.axes[a];
        let t = self.params.transition.min(extent.half());
        let rise = |distance: usize| {
            let r = (distance as f64 + 1.0) / (t as f64 + 1.0);
            (std::f64::consts::FRAC_PI_2 * r.min(1.0)).sin().powi(2) as f32
        };
        let mut w = 1.0;
        if extent.measured.start > 0 && k >= extent.measured.start {
            w *= rise(k - extent.measured.start);
        }
        if extent.measured.end < extent.n && k < extent.measured.end {
            w *= rise(extent.measured.end - 1 - k);
        }
        w
    }

    /// 2 on the measured side, a ramp through 1 at DC over the symmetric part, 0 on the other side.
    fn homodyne_window(&self, a: usize) -> Vec<f32> {
        let extent = &self.axes[a];
        let (dc, half) = (extent.n / 2, extent.half() as f32);
        let is_low_missing =
            dc - extent.measured.start.min(dc) < extent.measured.end.saturating_sub(dc + 1);
        (0..extent.n)
            .map(|k| {
                let signed = k as f32 - dc as f32;
                let outwards = if is_low_missing { signed } else { -signed };
                let w = (1.0 + outwards / (half + 1.0)).clamp(0.0, 2.0);
                if extent.measured.contains(&k) { w } else { 0.0 }
            })
            .collect()
    }

    /// Treats a batch of complex images `[batch, z, y, x]` in place. `variance` is that of their noise per component
    /// if the whole grid had been measured, `[z, y, x]`; `None` where it is unknown.
    ///
    /// Returns by how much POCS changes the variance against [`Self::noise`], `[z, y, x]`, where that is known.
    pub(crate) fn run(
        &self,
        images: &mut [Complex32],
        variance: Option<&[f32]>,
    ) -> Option<Vec<f32>> {
        let method = self.method?;
        let n: usize = self.axes.iter().map(|a| a.n).product();
        let strongest = strongest(images, n.max(1));
        // One image at a time inside, so that RSS over many coils needs no more memory than its images.
        let ratios: Vec<Option<Vec<f32>>> = images
            .par_chunks_mut(n.max(1))
            .enumerate()
            .map(|(i, image)| {
                match method {
                    PartialFourierMethod::Homodyne => self.homodyne(image),
                    PartialFourierMethod::Pocs => {
                        let pocs = self.pocs(image, variance);
                        // Coils share the noise: the one with most signal stands for their root sum of squares.
                        return variance
                            .filter(|_| i == strongest)
                            .map(|v| self.noise_ratio(&pocs, v));
                    }
                    PartialFourierMethod::ZeroFill | PartialFourierMethod::Auto => {
                        self.zero_fill(image)
                    }
                }
                None
            })
            .collect();
        ratios.into_iter().flatten().next()
    }

    fn transform(&self, image: &mut [Complex32], direction: Direction) {
        let dims = self.axes.each_ref().map(|a| a.n);
        for a in 0..3 {
            if dims[a] > 1 {
                Fft::plan(dims[a], direction).run_axis(image, &dims, a);
            }
        }
    }

    /// Multiplies k-space with one window per axis.
    fn multiply(&self, kspace: &mut [Complex32], windows: &[Vec<f32>; 3]) {
        let [_, ny, nx] = self.axes.each_ref().map(|a| a.n);
        for (row, line) in kspace.chunks_exact_mut(nx.max(1)).enumerate() {
            let w = windows[0][row / ny] * windows[1][row % ny];
            for (v, wx) in line.iter_mut().zip(&windows[2]) {
                *v *= w * wx;
            }
        }
    }

    fn zero_fill(&self, image: &mut [Complex32]) {
        self.transform(image, Direction::Forward);
        let windows = std::array::from_fn(|a| self.measured_window(a));
        self.multiply(image, &windows);
        self.transform(image, Direction::Inverse);
    }

    /// Phase of the symmetric centre, tapered, as unit complex numbers.
    fn phase(&self, kspace: &[Complex32]) -> Vec<Complex32> {
        let windows: [Vec<f32>; 3] = std::array::from_fn(|a| {
            let extent = &self.axes[a];
            let (dc, half) = (extent.n / 2, extent.half());
            (0..extent.n)
                .map(|k| {
                    let r = k.abs_diff(dc) as f64 / (half as f64 + 1.0);
                    if extent.n == 1 || half + 1 >= dc {
                        1.0
                    } else if r < 1.0 {
                        (std::f64::consts::FRAC_PI_2 * r).cos().powi(2) as f32
                    } else {
                        0.0
                    }
                })
                .collect()
        });
        let mut low = kspace.to_vec();
        self.multiply(&mut low, &windows);
        self.transform(&mut low, Direction::Inverse);
        low.iter_mut().for_each(|v| *v = unit(*v));
        low
    }

    fn homodyne(&self, image: &mut [Complex32]) {
        self.transform(image, Direction::Forward);
        let mut windows: [Vec<f32>; 3] = std::array::from_fn(|a| self.measured_window(a));
        let phase = self.phase(image);
        if let Some(a) = self.single {
            windows[a] = self.homodyne_window(a);
        }
        self.multiply(image, &windows);
        self.transform(image, Direction::Inverse);
        for (v, p) in image.iter_mut().zip(&phase) {
            *v = p * (*v * p.conj()).re;
        }
    }

    /// POCS of one image, and the linear operator that it was.
    fn pocs(&self, image: &mut [Complex32], variance: Option<&[f32]>) -> Pocs {
        let n = image.len();
        // Noise of one sample: the mean over the voxels that are there (SENSE leaves those without sensitivity zero).
        let noise = variance.map(|v| {
            let there = image.iter().zip(v).filter(|(v, _)| v.norm_sqr() > 0.0);
            2.0 * there.map(|(_, v)| f64::from(*v)).sum::<f64>() / n as f64
        });
        self.transform(image, Direction::Forward);
        let windows: [Vec<f32>; 3] = std::array::from_fn(|a| self.measured_window(a));
        self.multiply(image, &windows);
        let mut pocs = Pocs {
            phase: self.phase(image),
            trust: self.trust(),
            fill: Vec::new(),
        };
        pocs.fill = self.fill_weights(image, noise);
        self.project(image, &pocs);
        pocs
    }

    /// Confidence in what was measured, 0 where nothing was, with a smooth edge; `[z, y, x]`.
    fn trust(&self) -> Vec<f32> {
        let windows: [Vec<f32>; 3] = std::array::from_fn(|a| {
            let axis = &self.axes[a];
            (0..axis.n)
                .map(|k| {
                    if axis.measured.contains(&k) {
                        self.edge(a, k)
                    } else {
                        0.0
                    }
                })
                .collect()
        });
        let mut trust = Vec::with_capacity(self.axes.iter().map(|a| a.n).product());
        for z in &windows[0] {
            for y in &windows[1] {
                trust.extend(windows[2].iter().map(|x| z * y * x));
            }
        }
        trust
    }

    /// Wiener weights of samples that were not measured: signal over signal and noise around their mirror image.
    ///
    /// `kspace` is what was measured; without `noise` the quietest neighbourhood of it stands for the noise.
    fn fill_weights(&self, kspace: &[Complex32], noise: Option<f64>) -> Vec<f32> {
        let matrix = self.axes.each_ref().map(|a| a.n);
        let is_measured = |i: usize| {
            let at = [
                i / (matrix[1] * matrix[2]),
                i / matrix[2] % matrix[1],
                i % matrix[2],
            ];
            self.axes
                .iter()
                .zip(at)
                .all(|(a, k)| a.measured.contains(&k))
        };
        let mut power: Vec<f32> = kspace.iter().map(Complex32::norm_sqr).collect();
        let mut count: Vec<f32> = (0..power.len())
            .map(|i| f32::from(u8::from(is_measured(i))))
            .collect();
        for axis in 0..3 {
            box_sum(&mut power, matrix, axis, HALF_SPECTRUM);
            box_sum(&mut count, matrix, axis, HALF_SPECTRUM);
        }
        let mean = |i: usize| f64::from(power[i]) / f64::from(count[i]);
        let noise = noise.unwrap_or_else(|| {
            (0..power.len())
                .filter(|&i| is_measured(i))
                .map(mean)
                .fold(f64::INFINITY, f64::min)
        });
        (0..power.len())
            .map(|i| {
                let at = [
                    i / (matrix[1] * matrix[2]),
                    i / matrix[2] % matrix[1],
                    i % matrix[2],
                ];
                let mirror =
                    [0, 1, 2].map(|a| (2 * (matrix[a] / 2) + matrix[a] - at[a]) % matrix[a]);
                let m = (mirror[0] * matrix[1] + mirror[1]) * matrix[2] + mirror[2];
                if count[m] == 0.0 || mean(m) <= 0.0 {
                    return 0.0;
                }
                (1.0 - noise / mean(m)).clamp(0.0, 1.0) as f32
            })
            .collect()
    }

    /// The projections, from measured k-space to the image, with everything fixed: linear.
    fn project(&self, image: &mut [Complex32], pocs: &Pocs) {
        let measured = image.to_vec();
        for _ in 0..self.params.iterations {
            self.transform(image, Direction::Inverse);
            for (v, p) in image.iter_mut().zip(&pocs.phase) {
                *v = p * (*v * p.conj()).re;
            }
            self.transform(image, Direction::Forward);
            // Measured samples come back; within the transition they are blended in.
            for ((v, m), trust) in image.iter_mut().zip(&measured).zip(&pocs.trust) {
                *v = *v * (1.0 - trust) + *m * trust;
            }
        }
        for ((v, trust), fill) in image.iter_mut().zip(&pocs.trust).zip(&pocs.fill) {
            if *trust == 0.0 {
                *v *= fill;
            }
        }
        self.transform(image, Direction::Inverse);
    }

    /// Variance of replicas of pure noise through `pocs`, along its phase, over what [`Self::noise`] says, averaged
    /// over neighbours.
    fn noise_ratio(&self, pocs: &Pocs, variance: &[f32]) -> Vec<f32> {
        let matrix = self.axes.each_ref().map(|a| a.n);
        let measured: [Vec<f32>; 3] = std::array::from_fn(|a| self.measured_window(a));
        let replicas: Vec<Vec<f32>> = (0..REPLICAS)
            .into_par_iter()
            .map(|i| {
                let mut rng = Rng::new(Rng::new(0x0f0c_5000 + i).next_u64());
                let mut noise: Vec<Complex32> =
                    variance.iter().map(|v| rng.normal() * v.sqrt()).collect();
                self.transform(&mut noise, Direction::Forward);
                self.multiply(&mut noise, &measured);
                self.project(&mut noise, pocs);
                let along = noise.iter().zip(&pocs.phase);
                along.map(|(v, p)| (*v * p.conj()).re.powi(2)).collect()
            })
            .collect();
        let (windows, factor) = self.noise();
        let planned: f64 = windows
            .iter()
            .map(|w| w.iter().map(|w| f64::from(w * w)).sum::<f64>() / w.len() as f64)
            .product::<f64>()
            * f64::from(factor);
        let mut found = vec![0.0f32; variance.len()];
        for replica in &replicas {
            for (f, r) in found.iter_mut().zip(replica) {
                *f += r / REPLICAS as f32;
            }
        }
        let mut planned: Vec<f32> = variance.iter().map(|v| v * planned as f32).collect();
        for axis in 0..3 {
            box_sum(&mut found, matrix, axis, HALF_NOISE);
            box_sum(&mut planned, matrix, axis, HALF_NOISE);
        }
        found
            .iter()
            .zip(&planned)
            .map(|(f, p)| if *p > 0.0 { f / p } else { 1.0 })
            .collect()
    }
}

/// POCS once everything that depends on the data is fixed, `[z, y, x]` each.
struct Pocs {
    phase: Vec<Complex32>,
    /// Of measured samples, 0 where nothing was measured.
    trust: Vec<f32>,
    /// What is kept of samples that were not measured.
    fill: Vec<f32>,
}

/// Half the neighbourhood, samples, over which the power of k-space is averaged.
const HALF_SPECTRUM: usize = 4;
/// Replicas of pure noise, and half the neighbourhood, voxels, over which their power is averaged: 1764 independent
/// values in 2D, 1.7 % of a standard deviation.
const REPLICAS: u64 = 4;
const HALF_NOISE: usize = 10;

fn strongest(images: &[Complex32], n: usize) -> usize {
    let energy = |image: &[Complex32]| image.iter().map(|v| f64::from(v.norm_sqr())).sum::<f64>();
    let mut best = (0, -1.0);
    for (i, image) in images.chunks(n).enumerate() {
        let energy = energy(image);
        if energy > best.1 {
            best = (i, energy);
        }
    }
    best.0
}
