//! From the encoded grid to the image's matrix and field of view, with the noise that goes along.
//!
//! Complex images on the grid -> complex images on the image's matrix, one axis after the other: k-space filter,
//! zero filling (or cropping) of k-space so that the voxel size fits, cropping in the image so that the field of view
//! fits. The centre (`n/2`) of every axis stays where it is.
//!
//! # Units
//! Voxel values keep their meaning: a constant object has the same value on every matrix. Noise in k-space that is
//! white on the grid becomes correlated between interpolated voxels; the noise map is the standard deviation of each
//! voxel by itself.

use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

use crate::num::fft::{Direction, Fft};

/// What happens along one axis.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    n_in: usize,
    n_out: usize,
    /// Length of the zero-filled axis, where it is a whole number.
    n_fill: Option<usize>,
    /// Field of view of the grid over voxel size of the image: samples of the (perhaps fractional) filled axis.
    fill: f64,
    /// Filter on k-space.
    window: Option<Vec<f32>>,
    /// `[n_out, n_in]`: squared magnitude of the axis operator, the noise window included; `None`: unchanged.
    noise: Option<Vec<f32>>,
}

impl Axis {
    /// Plans one axis.
    ///
    /// `ratio` is the grid's field of view over the image's. `window` filters the image; `noise_window` is what the
    /// white noise of the grid's k-space is really multiplied with (zero where nothing was measured).
    pub(crate) fn new(
        n_in: usize,
        n_out: usize,
        ratio: f64,
        window: Option<Vec<f32>>,
        noise_window: &[f32],
    ) -> Self {
        let fill = n_out as f64 * ratio;
        let whole = fill.round();
        // Half a thousandth of a voxel at the edge of the image is below what a header's rounded millimetres say.
        let n_fill = ((fill - whole).abs() * n_out as f64 / fill < 1e-3 && whole >= 1.0)
            .then_some(whole as usize);
        let fill = n_fill.map_or(fill, |n| n as f64);
        let mut axis = Self {
            n_in,
            n_out,
            n_fill,
            fill,
            window,
            noise: None,
        };
        let total: Vec<f32> = match &axis.window {
            Some(w) => w.iter().zip(noise_window).map(|(a, b)| a * b).collect(),
            None => noise_window.to_vec(),
        };
        if !axis.is_identity() || total.iter().any(|w| *w != 1.0) {
            axis.noise = Some(axis.matrix(&total).iter().map(|v| v.norm_sqr()).collect());
        }
        axis
    }

    /// Whether the image is left as it is.
    pub(crate) fn is_identity(&self) -> bool {
        self.n_in == self.n_out && self.n_fill == Some(self.n_in) && self.window.is_none()
    }

    /// Voxels per measured voxel.
    pub(crate) fn finer(&self) -> f32 {
        (self.fill / self.n_in as f64) as f32
    }

    pub(crate) fn describe(&self) -> String {
        match self.n_fill {
            Some(n) if n == self.n_in && self.n_out == n => format!("{n}"),
            Some(n) => format!("{} -> {n} -> {}", self.n_in, self.n_out),
            None => format!("{} -> {:.2} -> {}", self.n_in, self.fill, self.n_out),
        }
    }

    /// The operator as a dense matrix `[n_out, n_in]` with `window` in k-space: the reference, and the way of
    /// fractional sizes.
    fn matrix(&self, window: &[f32]) -> Vec<Complex32> {
        let (n, m) = (self.n_in, self.n_out);
        let mut rows = vec![Complex32::ZERO; n * m];
        // Frequencies that a coarser image cannot hold are cut off.
        let half = (self.fill / 2.0).min(n as f64);
        rows.par_chunks_mut(n.max(1))
            .enumerate()
            .for_each(|(i, row)| {
                let at = (i as f64 - (m / 2) as f64) / self.fill;
                // Beyond the grid's field of view nothing is known; the transform would repeat the object there.
                if !(-0.5 - 1e-9..0.5 + 1e-9).contains(&at) {
                    return;
                }
                for (k, v) in row.iter_mut().enumerate() {
                    let f = k as f64 - (n / 2) as f64;
                    if f >= -half - 1e-9 && f < half - 1e-9 {
                        let p = Complex64::cis(std::f64::consts::TAU * f * at)
                            * f64::from(window[k])
                            / (n as f64).sqrt();
                        *v = Complex32::new(p.re as f32, p.im as f32);
                    }
                }
            });
        // Row by row: sum_k p(k) exp(-2 pi i (k - n/2)(j - n/2) / n) / sqrt(n).
        Fft::plan(n, Direction::Forward).run_rows(&mut rows);
        rows
    }

    /// Applies the operator along the middle axis of `[outer, n_in, inner]`.
    fn run(&self, data: &[Complex32], inner: usize) -> Vec<Complex32> {
        let (n, m) = (self.n_in, self.n_out);
        let outer = data.len() / (n * inner).max(1);
        let Some(filled) = self.n_fill else {
            let ones = vec![1.0; n];
            return dense(
                &self.matrix(self.window.as_deref().unwrap_or(&ones)),
                data,
                n,
                m,
                inner,
            );
        };
        let mut spectrum = data.to_vec();
        Fft::plan(n, Direction::Forward).run_axis(&mut spectrum, &[outer, n, inner], 1);
        let scale = (filled as f32 / n as f32).sqrt();
        let mut long = vec![Complex32::ZERO; outer * filled * inner];
        let shift = (filled / 2) as i64 - (n / 2) as i64;
        long.par_chunks_mut((filled * inner).max(1))
            .zip(spectrum.par_chunks((n * inner).max(1)))
            .for_each(|(out, block)| {
                for k in 0..n {
                    let to = k as i64 + shift;
                    if !(0..filled as i64).contains(&to) {
                        continue;
                    }
                    let w = self.window.as_ref().map_or(1.0, |w| w[k]) * scale;
                    let row = &block[k * inner..(k + 1) * inner];
                    let at = to as usize * inner;
                    for (o, v) in out[at..at + inner].iter_mut().zip(row) {
                        *o = v * w;
                    }
                }
            });
        Fft::plan(filled, Direction::Inverse).run_axis(&mut long, &[outer, filled, inner], 1);
        if m == filled {
            return long;
        }
        let mut out = vec![Complex32::ZERO; outer * m * inner];
        let shift = (m / 2) as i64 - (filled / 2) as i64;
        out.par_chunks_mut((m * inner).max(1))
            .zip(long.par_chunks((filled * inner).max(1)))
            .for_each(|(out, block)| {
                for i in 0..m {
                    let from = i as i64 - shift;
                    if (0..filled as i64).contains(&from) {
                        let from = from as usize * inner;
                        out[i * inner..(i + 1) * inner].copy_from_slice(&block[from..from + inner]);
                    }
                }
            });
        out
    }

    fn run_noise(&self, variance: &[f32], inner: usize) -> Vec<f32> {
        let (n, m) = (self.n_in, self.n_out);
        let Some(noise) = &self.noise else {
            return variance.to_vec();
        };
        let outer = variance.len() / (n * inner).max(1);
        let mut out = vec![0.0f32; outer * m * inner];
        if inner == 1 {
            out.par_chunks_mut(m.max(1))
                .zip(variance.par_chunks(n.max(1)))
                .for_each(|(out, v)| {
                    for (out, row) in out.iter_mut().zip(noise.chunks_exact(n.max(1))) {
                        *out = dot(row, v);
                    }
                });
            return out;
        }
        out.par_chunks_mut(inner.max(1))
            .enumerate()
            .for_each(|(row, out)| {
                let (block, i) = (row / m, row % m);
                for j in 0..n {
                    let weight = noise[i * n + j];
                    let v = &variance[(block * n + j) * inner..(block * n + j + 1) * inner];
                    for (o, v) in out.iter_mut().zip(v) {
                        *o += weight * v;
                    }
                }
            });
        out
    }
}

/// Sum of products, in several sums side by side: one alone would wait for itself.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a
        .remainder()
        .iter()
        .zip(b.remainder())
        .map(|(a, b)| a * b)
        .sum();
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// `[m, n]` times the middle axis of `[outer, n, inner]`.
fn dense(
    matrix: &[Complex32],
    data: &[Complex32],
    n: usize,
    m: usize,
    inner: usize,
) -> Vec<Complex32> {
    let outer = data.len() / (n * inner).max(1);
    let mut out = vec![Complex32::ZERO; outer * m * inner];
    out.par_chunks_mut(inner.max(1))
        .enumerate()
        .for_each(|(row, out)| {
            let (block, i) = (row / m, row % m);
            for j in 0..n {
                let weight = matrix[i * n + j];
                let v = &data[(block * n + j) * inner..(block * n + j + 1) * inner];
                for (o, v) in out.iter_mut().zip(v) {
                    *o += weight * v;
                }
            }
        });
    out
}

/// Applies the three axes (z, y, x) to a batch of complex images.
pub(crate) fn images(axes: &[Axis; 3], images: Vec<Complex32>) -> Vec<Complex32> {
    let mut data = images;
    let mut dims = axes.each_ref().map(|a| a.n_in);
    for a in 0..3 {
        if !axes[a].is_identity() {
            data = axes[a].run(&data, dims[a + 1..].iter().product());
        }
        dims[a] = axes[a].n_out;
    }
    data
}

/// Variance of the voxels after the three axes, from the variance of white noise on the grid.
pub(crate) fn variance(axes: &[Axis; 3], variance: Vec<f32>) -> Vec<f32> {
    let mut data = variance;
    let mut dims = axes.each_ref().map(|a| a.n_in);
    for a in 0..3 {
        if axes[a].noise.is_some() {
            data = axes[a].run_noise(&data, dims[a + 1..].iter().product());
        }
        dims[a] = axes[a].n_out;
    }
    data
}

/// A smooth real map (g-factor) at the image's matrix: linear interpolation at the same places.
pub(crate) fn smooth_map(axes: &[Axis; 3], map: &[f32]) -> Vec<f32> {
    let dims_in = axes.each_ref().map(|a| a.n_in);
    let dims_out = axes.each_ref().map(|a| a.n_out);
    if axes
        .iter()
        .all(|a| a.n_in == a.n_out && a.n_fill == Some(a.n_in))
    {
        return map.to_vec();
    }
    let taps: Vec<Vec<(usize, usize, f32)>> = axes
        .iter()
        .map(|a| {
            (0..a.n_out)
                .map(|i| {
                    let at = (i as f64 - (a.n_out / 2) as f64) * a.n_in as f64 / a.fill
                        + (a.n_in / 2) as f64;
                    let at = at.clamp(0.0, (a.n_in - 1) as f64);
                    let low = at.floor() as usize;
                    (low, (low + 1).min(a.n_in - 1), (at - at.floor()) as f32)
                })
                .collect()
        })
        .collect();
    let get = |z: usize, y: usize, x: usize| map[(z * dims_in[1] + y) * dims_in[2] + x];
    let mut out = vec![0.0; dims_out.iter().product()];
    out.par_chunks_mut(dims_out[2])
        .enumerate()
        .for_each(|(row, out)| {
            let (z0, z1, fz) = taps[0][row / dims_out[1]];
            let (y0, y1, fy) = taps[1][row % dims_out[1]];
            for (v, &(x0, x1, fx)) in out.iter_mut().zip(&taps[2]) {
                let line = |z, y| get(z, y, x0) * (1.0 - fx) + get(z, y, x1) * fx;
                let plane = |z| line(z, y0) * (1.0 - fy) + line(z, y1) * fy;
                *v = plane(z0) * (1.0 - fz) + plane(z1) * fz;
            }
        });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::Rng;
    use crate::num::testing::{assert_close, nrmse};
    use crate::recon::filter::{FilterKind, window};

    fn ones(n: usize) -> Vec<f32> {
        vec![1.0; n]
    }

    /// `(n_in, n_out, ratio, filtered)`.
    fn cases() -> Vec<(usize, usize, f64, bool)> {
        vec![
            (8, 8, 1.0, true),
            (8, 16, 1.0, false),
            (9, 16, 1.0, true),
            (16, 9, 1.0, false),
            (12, 8, 1.5, false),
            (13, 13, 1.0, true),
            (7, 1, 1.0, false),
            (1, 1, 1.0, true),
            (10, 12, 1.5, true),
        ]
    }

    #[test]
    fn transforms_agree_with_the_dense_matrix() {
        for (n, m, ratio, filtered) in cases() {
            let w = filtered.then(|| window(FilterKind::Hamming, 0.0, n));
            let axis = Axis::new(n, m, ratio, w.clone(), &ones(n));
            let data = Rng::new(3).complex(2 * n * 3);
            let fast = axis.run(&data, 3);
            let slow = dense(
                &axis.matrix(w.as_deref().unwrap_or(&ones(n))),
                &data,
                n,
                m,
                3,
            );
            assert_close(&fast, &slow, 2e-6);
        }
    }

    #[test]
    fn a_constant_keeps_its_value_and_the_centre_its_place() {
        for (n, m, ratio, _) in cases() {
            let axis = Axis::new(n, m, ratio, None, &ones(n));
            let out = axis.run(&vec![Complex32::new(2.0, -1.0); n], 1);
            // Cropped to less than the grid's field of view, nothing is outside.
            for v in &out {
                assert!(
                    (v - Complex32::new(2.0, -1.0)).norm() < 1e-5,
                    "{n} {m} {ratio}: {v}"
                );
            }
        }
        let mut point = vec![Complex32::ZERO; 9];
        point[4] = Complex32::ONE;
        let out = Axis::new(9, 18, 1.0, None, &ones(9)).run(&point, 1);
        assert!((out[9].norm() - 1.0).abs() < 1e-5);
        assert!(out.iter().all(|v| v.norm() <= out[9].norm() + 1e-6));
    }

    #[test]
    fn a_wrong_centre_is_noticed() {
        let axis = Axis::new(8, 16, 1.0, None, &ones(8));
        let data = Rng::new(3).complex(8);
        let right = dense(&axis.matrix(&ones(8)), &data, 8, 16, 1);
        let mut twin = axis.run(&data, 1);
        twin.rotate_left(1);
        assert!(nrmse(&twin, &right) > 0.1);
    }

    #[test]
    fn fractional_sizes_interpolate_a_smooth_object() {
        // A single frequency is reproduced at any position.
        let (n, m, ratio) = (16usize, 11usize, 1.23);
        let wave = |at: f64| {
            let p = Complex64::cis(std::f64::consts::TAU * 3.0 * at);
            Complex32::new(p.re as f32, p.im as f32)
        };
        let data: Vec<Complex32> = (0..n).map(|j| wave((j as f64 - 8.0) / 16.0)).collect();
        let axis = Axis::new(n, m, ratio, None, &ones(n));
        assert!(axis.n_fill.is_none());
        let truth: Vec<Complex32> = (0..m)
            .map(|i| wave((i as f64 - 5.0) / (m as f64 * ratio)))
            .collect();
        assert_close(&axis.run(&data, 1), &truth, 1e-5);
    }

    #[test]
    fn variance_is_that_of_replicas() {
        let mut rng = Rng::new(11);
        for (n, m, ratio, filtered) in cases() {
            let w = filtered.then(|| window(FilterKind::Hann, 0.0, n));
            let mut measured = ones(n);
            measured[..n / 4].fill(0.0);
            let axis = Axis::new(n, m, ratio, w, &measured);
            let sigma: Vec<f32> = (0..n).map(|j| 1.0 + 0.5 * (j as f32 * 0.3).sin()).collect();
            let predicted = axis.run_noise(&sigma.iter().map(|s| s * s).collect::<Vec<_>>(), 1);
            let n_replicas = 4000;
            let mut power = vec![0.0f64; m];
            for _ in 0..n_replicas {
                let mut noise: Vec<Complex32> = sigma.iter().map(|s| rng.normal() * *s).collect();
                Fft::plan(n, Direction::Forward).run_rows(&mut noise);
                noise.iter_mut().zip(&measured).for_each(|(v, w)| *v *= *w);
                Fft::plan(n, Direction::Inverse).run_rows(&mut noise);
                for (p, v) in power.iter_mut().zip(axis.run(&noise, 1)) {
                    *p += f64::from(v.norm_sqr()) / 2.0;
                }
            }
            for (p, v) in power.iter().zip(&predicted) {
                let found = p / n_replicas as f64;
                assert!(
                    (found / f64::from(*v) - 1.0).abs() < 0.1,
                    "{n} {m} {ratio}: {found} {v}"
                );
            }
        }
    }
}
