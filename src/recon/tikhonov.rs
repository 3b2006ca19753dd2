//! Tikhonov weights found from the scan itself.
//!
//! `Frame` -> [`Outside`], the noise and signal where lines are missing, from which GRAPPA makes its ridge; with
//! low-resolution coil images -> [`Wiener`], the weight of SENSE. For an image with signal energy `s` per voxel and
//! complex noise of variance `v` per sample, the linear estimate of least expected error has weight `v / s`, whatever the coils. The
//! calibration lines in the middle of k-space settle nearly all of the image by themselves; what unfolding has to find
//! lies outside them, and so only the energy out there counts: with 24 lines, some 30 times less than all of it.
//!
//! # Source
//! The Wiener filter. An automatic weight for SENSE was found by an L-curve in Lin et al., Magn Reson Med 51:559-567
//! (2004), doi:10.1002/mrm.10718; taking the energy outside the calibration block, which needs no search, is ours.

use rayon::prelude::*;

use super::combine::low_res::LowRes;
use super::sampling::Sampling;
use crate::data::{Frame, KSpace};
use crate::num::complex;
use crate::num::fft::{Direction, Fft};

/// A Tikhonov weight: `"auto"`, or a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, schemars::JsonSchema)]
#[serde(untagged)]
#[schemars(transform = number_or_auto)]
pub enum Lambda {
    /// Found from each frame: noise over the energy that unfolding has to find.
    #[default]
    #[serde(serialize_with = "write_auto")]
    Auto,
    /// As given.
    Fixed(f32),
}

fn write_auto<S: serde::Serializer>(to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str("auto")
}

fn number_or_auto(schema: &mut schemars::Schema) {
    schema.remove("anyOf");
    schema.insert("type".into(), "\"auto\" or a number".into());
}

impl From<f32> for Lambda {
    fn from(value: f32) -> Self {
        Self::Fixed(value)
    }
}

impl std::fmt::Display for Lambda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(value) => write!(f, "{value:e}"),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Lambda {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Words;
        impl serde::de::Visitor<'_> for Words {
            type Value = Lambda;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"auto\" or a number, 0 or more")
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Lambda, E> {
                if v == "auto" {
                    Ok(Lambda::Auto)
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Str(v), &self))
                }
            }
            fn visit_f64<E>(self, v: f64) -> Result<Lambda, E> {
                Ok(Lambda::Fixed(v as f32))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Lambda, E> {
                Ok(Lambda::Fixed(v as f32))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Lambda, E> {
                Ok(Lambda::Fixed(v as f32))
            }
        }
        from.deserialize_any(Words)
    }
}

/// Noise of a scan, and its signal outside the calibration block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outside {
    /// Variance of the complex noise of one sample measured once.
    pub(crate) noise: f64,
    /// Whether the noise was measured, not read off the quietest columns.
    is_measured: bool,
    /// Energy of the signal in all lines of the grid outside the block, measured or not, all coils.
    energy: f64,
    /// Samples of those lines, all coils.
    samples: f64,
}

impl Outside {
    pub(crate) fn of(frame: &Frame, sampling: &Sampling) -> Self {
        let kspace = &frame.kspace;
        let shape = kspace.shape;
        let per_line = (shape.coil * kspace.ro_range.len()) as f64;
        let noise = if frame.is_whitened {
            2.0
        } else {
            quiet_columns(kspace)
        };
        Self {
            noise,
            is_measured: frame.is_whitened,
            energy: energy_outside(kspace, sampling, noise * per_line),
            samples: (shape.plane() / shape.ro - sampling.acs.len()) as f64 * per_line,
        }
    }

    /// Energy of the signal per sample.
    pub(crate) fn energy_per_sample(&self) -> f64 {
        self.energy / self.samples.max(1.0)
    }

    /// Where the noise is known from.
    pub(crate) fn origin(&self) -> &'static str {
        if self.is_measured {
            "measured noise"
        } else {
            "noise read off the quietest columns along the readout, without a noise scan,"
        }
    }
}

/// The weight, and what it was made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Wiener {
    /// Relative to the mean diagonal of the normal operator, as `sense.lambda`.
    pub(crate) lambda: f32,
    outside: Outside,
    /// Signal energy outside the calibration lines, per voxel of the object; over `noise` it is an SNR.
    energy: f64,
    /// Share of the voxels in which the object lies.
    object: f64,
}

/// More regularisation than this relative to the normal operator would halve what was measured directly.
const LARGEST: f64 = 1.0;
/// Rings of k-space over which the energy is averaged: measured lines stand for their neighbours that were not.
const RINGS: usize = 12;

impl Wiener {
    /// `low` are the coil images of the calibration lines, for the size of the object.
    pub(crate) fn of(frame: &Frame, sampling: &Sampling, low: &LowRes) -> Self {
        let kspace = &frame.kspace;
        let shape = kspace.shape;
        let n_ro = kspace.ro_range.len();
        let outside = Outside::of(frame, sampling);
        let voxels = shape.plane() as f64 * low.object_share();
        let energy = outside.energy / voxels.max(1.0);
        // A column along the readout gets its noise from the measured samples alone.
        let noise_of_column = outside.noise * n_ro as f64 / shape.ro as f64;
        let weights: f64 = kspace
            .lines
            .iter()
            .map(|l| f64::from(l.averages.max(1)))
            .sum();
        let mean_weight = weights / (shape.pe2 * shape.pe1) as f64;
        let is_complete = sampling.acs.len() == shape.pe2 * shape.pe1;
        let lambda = if is_complete {
            0.0
        } else {
            (noise_of_column / energy.max(f64::MIN_POSITIVE) / mean_weight).min(LARGEST)
        };
        Self {
            lambda: lambda as f32,
            outside,
            energy,
            object: low.object_share(),
        }
    }

    /// A sentence for the provenance.
    pub(crate) fn describe(&self) -> String {
        format!(
            "lambda {:.2e}, automatic: {} over the signal energy of the lines outside the calibration block ({:.1} times \
             the noise per voxel of the object, which fills {:.0} % of the field of view)",
            self.lambda,
            self.outside.origin(),
            self.energy / self.outside.noise.max(f64::MIN_POSITIVE),
            100.0 * self.object
        )
    }
}

/// Energy of the signal outside the calibration block, all coils, over the whole grid: means over rings of equal
/// distance from the centre, each times the lines of its ring. Rings without a measured line take the next one's mean.
fn energy_outside(kspace: &KSpace, sampling: &Sampling, noise_per_line: f64) -> f64 {
    let shape = kspace.shape;
    let ring_of = |k2: usize, k1: usize| {
        let r = |k: usize, n: usize| 2.0 * k.abs_diff(n / 2) as f64 / n as f64;
        let r = r(k2, shape.pe2).max(r(k1, shape.pe1)) * RINGS as f64;
        (r as usize).min(RINGS - 1)
    };
    let mut lines = [0usize; RINGS];
    for k2 in 0..shape.pe2 {
        for k1 in 0..shape.pe1 {
            lines[ring_of(k2, k1)] += usize::from(!sampling.acs.contains(k2, k1));
        }
    }
    let mut energy = [0.0f64; RINGS];
    let mut measured = [0usize; RINGS];
    let power_of = |i: usize| -> f64 {
        (0..shape.coil)
            .map(|c| f64::from(complex::energy(&kspace.line(c, i)[kspace.ro_range.clone()])))
            .sum()
    };
    let outside: Vec<usize> = (0..kspace.lines.len())
        .filter(|&i| {
            let line = &kspace.lines[i];
            !sampling.acs.contains(line.pe2 as usize, line.pe1 as usize)
        })
        .collect();
    let powers: Vec<f64> = outside.par_iter().map(|&i| power_of(i)).collect();
    for (&i, power) in outside.iter().zip(powers) {
        let line = &kspace.lines[i];
        let ring = ring_of(line.pe2 as usize, line.pe1 as usize);
        energy[ring] += power - noise_per_line / f64::from(line.averages.max(1));
        measured[ring] += 1;
    }
    let mut total = 0.0;
    let mut last = None;
    let mut waiting = 0;
    for ring in 0..RINGS {
        if measured[ring] > 0 {
            last = Some((energy[ring] / measured[ring] as f64).max(0.0));
        }
        match last {
            Some(mean) => {
                total += mean * (lines[ring] + waiting) as f64;
                waiting = 0;
            }
            None => waiting += lines[ring],
        }
    }
    total
}

/// Noise variance of a complex sample, from the twentieth of all places along the readout where the outermost quarter
/// of the lines has least energy: outside the object, or where it is smooth.
fn quiet_columns(kspace: &KSpace) -> f64 {
    let shape = kspace.shape;
    let distance = |i: usize| {
        let l = &kspace.lines[i];
        let r = |k: u32, n: usize| (k as usize).abs_diff(n / 2) as f64 / n as f64;
        r(l.pe2, shape.pe2).max(r(l.pe1, shape.pe1))
    };
    let mut outer: Vec<usize> = (0..kspace.lines.len()).collect();
    outer.sort_by(|a, b| distance(*b).total_cmp(&distance(*a)).then(a.cmp(b)));
    outer.truncate(kspace.lines.len().div_ceil(4));
    let fft = Fft::plan(shape.ro, Direction::Inverse);
    let mut energy = vec![0.0f64; shape.ro];
    for &i in &outer {
        let averages = f64::from(kspace.lines[i].averages.max(1));
        for coil in 0..shape.coil {
            let mut row = kspace.line(coil, i).to_vec();
            fft.run_rows(&mut row);
            for (e, v) in energy.iter_mut().zip(&row) {
                *e += averages * f64::from(v.norm_sqr());
            }
        }
    }
    energy.sort_by(f64::total_cmp);
    let quiet = &energy[..(shape.ro / 20).clamp(1, shape.ro)];
    let mean = quiet.iter().sum::<f64>() / (quiet.len() * outer.len() * shape.coil) as f64;
    // Where only a part of the readout was measured, a column holds that part of the noise.
    mean * shape.ro as f64 / kspace.ro_range.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Calibration;
    use crate::recon::acs;
    use crate::recon::sampling;
    use crate::recon::sense::Lambda;
    use crate::recon::testing::{Sim, error_inside};
    use crate::recon::tests::recon;
    use crate::recon::{Method, ReconParams};

    fn wiener(frame: &Frame) -> Wiener {
        let (block, origin) = acs::locate(frame, Calibration::Embedded);
        let low = LowRes::from_acs(&acs::cut(frame, &block, origin), 24);
        Wiener::of(frame, &sampling::of(&frame.kspace), &low)
    }

    fn r4(k: usize) -> bool {
        k.is_multiple_of(4) || (36..60).contains(&k)
    }

    #[test]
    fn the_weight_falls_with_the_square_of_the_signal_and_vanishes_for_complete_scans() {
        let at = |level: f32| wiener(&Sim::new(8, 1, 96, 80, level).frame(|_, k| r4(k), 1.0, 3));
        let (faint, bright) = (at(20.0), at(80.0));
        let ratio = faint.lambda / bright.lambda;
        assert!((12.0..20.0).contains(&ratio), "{ratio}");
        let full = wiener(&Sim::new(8, 1, 96, 80, 20.0).frame(|_, _| true, 1.0, 3));
        assert_eq!(full.lambda, 0.0);
        // Nothing but noise outside the calibration block: the largest weight, not infinity.
        let none = at(0.0);
        assert_eq!(none.lambda, LARGEST as f32);
    }

    #[test]
    fn a_scan_without_noise_scan_finds_nearly_the_same_weight_in_any_unit() {
        let mut frame = Sim::new(8, 1, 96, 80, 40.0).frame(|_, k| r4(k), 1.0, 3);
        let measured = wiener(&frame).lambda;
        frame.is_whitened = false;
        frame.kspace.samples.iter_mut().for_each(|v| *v *= 1e-4);
        let guessed = wiener(&frame);
        assert!(
            !guessed.outside.is_measured && guessed.describe().contains("without a noise scan")
        );
        let ratio = guessed.lambda / measured;
        assert!((0.6..1.7).contains(&ratio), "{ratio}");
    }

    /// Against the truth: within 3 % of the best of a ladder of weights; a twin that counts all of the energy is not.
    #[test]
    fn it_is_near_the_best_weight_there_is_and_a_twin_that_counts_the_centre_is_not() {
        for level in [15.0, 60.0] {
            let sim = Sim::new(8, 1, 96, 80, level);
            let frame = sim.frame(|_, k| r4(k), 1.0, 3);
            let error = |lambda: Lambda| {
                let mut params = ReconParams {
                    method: Method::Sense,
                    ..ReconParams::default()
                };
                params.sense.lambda = lambda;
                let image = recon(&frame, &params).unwrap();
                error_inside(&image.voxels, &sim.truth, &sim.inside)
            };
            let best = (0..12)
                .map(|i| error(Lambda::Fixed(1e-3 * 2f32.powi(i))))
                .fold(f64::INFINITY, f64::min);
            let auto = error(Lambda::Auto);
            println!("level {level}: auto {auto:.4}, best {best:.4}");
            assert!(auto < 1.03 * best, "level {level}: {auto} {best}");
            let twin = wiener(&frame).lambda / 30.0;
            assert!(error(Lambda::Fixed(twin)) > 1.03 * best);
        }
    }
}
