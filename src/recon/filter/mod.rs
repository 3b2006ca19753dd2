//! K-space filters (apodisation): one real window per axis, 1 at the centre.

use serde::{Deserialize, Serialize};

use super::error::ReconError;
use super::params::require;

/// Shape of the window.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FilterKind {
    /// No filter.
    #[default]
    None,
    /// Flat, with cosine flanks over the outer share `width`.
    Tukey,
    /// Raised cosine, 0.08 at the edge of k-space.
    Hamming,
    /// Raised cosine, 0 just beyond the edge of k-space.
    Hann,
    /// Gaussian with standard deviation `width` times half the width of k-space.
    Gaussian,
}

/// K-space filter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FilterParams {
    /// `none`, `tukey`, `hamming`, `hann` or `gaussian`.
    pub kind: FilterKind,
    /// `tukey`: share of each half that is rolled off, 0 to 1. `gaussian`: standard deviation as a share of half
    /// the k-space, 0.05 to 10. Unused by the others.
    pub width: f64,
    /// Filter along the readout.
    pub ro: bool,
    /// Filter along the first phase-encoding axis.
    pub pe1: bool,
    /// Filter along the second phase-encoding axis (3D).
    pub pe2: bool,
}

impl Default for FilterParams {
    fn default() -> Self {
        Self {
            kind: FilterKind::None,
            width: 0.3,
            ro: true,
            pe1: true,
            pe2: true,
        }
    }
}

impl FilterParams {
    pub(crate) fn check(&self) -> Result<(), ReconError> {
        match self.kind {
            FilterKind::Tukey => require(
                (0.0..=1.0).contains(&self.width),
                "filter.width",
                self.width,
                "0 to 1 for tukey",
            ),
            FilterKind::Gaussian => require(
                (0.05..=10.0).contains(&self.width),
                "filter.width",
                self.width,
                "0.05 to 10 for gaussian",
            ),
            _ => Ok(()),
        }
    }

    /// Whether an axis (0 readout, 1 pe1, 2 pe2) is filtered.
    pub(crate) fn is_on(&self, axis: usize) -> bool {
        self.kind != FilterKind::None && [self.ro, self.pe1, self.pe2][axis]
    }
}

/// The window over an axis of `n` samples, DC at `n/2`; symmetric about DC, 1 there.
pub fn window(kind: FilterKind, width: f64, n: usize) -> Vec<f32> {
    let half = (n as f64 / 2.0).max(1.0);
    (0..n)
        .map(|k| {
            let r = ((k as f64 - (n / 2) as f64) / half).abs().min(1.0);
            let cosine = |x: f64| 0.5 + 0.5 * (std::f64::consts::PI * x).cos();
            let w = match kind {
                FilterKind::None => 1.0,
                FilterKind::Hamming => 0.08 + 0.92 * cosine(r),
                FilterKind::Hann => cosine(r * half / (half + 1.0)),
                FilterKind::Gaussian => (-0.5 * (r / width).powi(2)).exp(),
                FilterKind::Tukey if r <= 1.0 - width => 1.0,
                FilterKind::Tukey => cosine((r - (1.0 - width)) / width * half / (half + 1.0)),
            };
            w as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [FilterKind; 5] = [
        FilterKind::None,
        FilterKind::Tukey,
        FilterKind::Hamming,
        FilterKind::Hann,
        FilterKind::Gaussian,
    ];

    #[test]
    fn windows_are_one_at_dc_symmetric_and_never_rise_outwards() {
        for kind in KINDS {
            for n in [1, 2, 7, 64, 81] {
                let w = window(kind, 0.4, n);
                assert_eq!(w[n / 2], 1.0, "{kind:?} {n}");
                for k in 1..=n / 2 {
                    assert!(w[n / 2 - k] <= w[n / 2 - k + 1] + 1e-7);
                    if n / 2 + k < n {
                        assert_eq!(w[n / 2 - k], w[n / 2 + k], "{kind:?} {n} {k}");
                    }
                    assert!((0.0..=1.0).contains(&w[n / 2 - k]));
                }
            }
        }
    }

    #[test]
    fn known_values() {
        assert!((window(FilterKind::Hamming, 0.0, 64)[0] - 0.08).abs() < 1e-6);
        assert!((window(FilterKind::Gaussian, 0.5, 64)[16] - (-0.5f32).exp()).abs() < 1e-6);
        assert_eq!(window(FilterKind::Tukey, 0.25, 64)[8], 1.0);
        assert!(window(FilterKind::Tukey, 0.25, 64)[0] < 0.05);
    }
}
