//! Which measured lines predict which missing ones.

use super::GrappaParams;
use crate::recon::sampling::{Block, Lattice};

/// A 3D window of 3 x 3 lines needs a calibration block of this size to be better than one of 2 x 2, measured on simulated
/// scans.
const LARGE_BLOCK: usize = 16;

/// Sources and targets relative to a measured lattice point, as `(pe2, pe1)` steps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Window {
    pub(crate) lattice: Lattice,
    /// Measured lines that are looked at.
    pub(crate) sources: Vec<(i64, i64)>,
    /// Missing lines that are predicted: one per coset of the lattice.
    pub(crate) targets: Vec<(i64, i64)>,
    /// Samples along the readout, odd.
    pub(crate) ro: usize,
}

impl Window {
    /// The window for a lattice; `is_3d` when there is more than one line along pe2. `block`: what calibrates.
    pub(crate) fn new(lattice: Lattice, params: &GrappaParams, is_3d: bool, block: &Block) -> Self {
        // Between two measured lines an even number of sources surrounds the target; along an axis where every
        // line is measured the target's own line is in the middle of an odd number.
        let count = |wanted: usize, r: usize| if r > 1 { wanted } else { wanted | 1 };
        let is_large = block.pe1.len().min(block.pe2.len()) >= LARGE_BLOCK;
        let usual = if is_3d && is_large { 3 } else { 2 };
        let w1 = count(params.window_pe1.unwrap_or(usual), lattice.r1);
        let w2 = if is_3d {
            count(params.window_pe2.unwrap_or(usual), lattice.r2)
        } else {
            1
        };
        let (m1, m2) = ((w1 as i64 - 1) / 2, (w2 as i64 - 1) / 2);
        let (r1, r2) = (lattice.r1 as i64, lattice.r2 as i64);
        let mut sources = Vec::new();
        for j in -m2..w2 as i64 - m2 {
            // The sheared row is taken where it is nearest to the base point.
            let sheared = (j * lattice.shift as i64 + r1 / 2).rem_euclid(r1) - r1 / 2;
            for i in -m1..w1 as i64 - m1 {
                sources.push((j * r2, sheared + i * r1));
            }
        }
        let targets = (0..r2)
            .flat_map(|o2| (0..r1).map(move |o1| (o2, o1)))
            .filter(|t| *t != (0, 0))
            .collect();
        Self {
            lattice,
            sources,
            targets,
            ro: params.window_ro,
        }
    }

    /// Whether it looks along two phase-encoding axes.
    pub(crate) fn is_3d(&self) -> bool {
        self.sources.iter().any(|s| s.0 != 0)
    }

    /// Lines needed along pe2 and pe1 for one position of the window.
    pub(crate) fn span(&self) -> [usize; 2] {
        let [lo, hi] = self.bounds();
        [(hi.0 - lo.0 + 1) as usize, (hi.1 - lo.1 + 1) as usize]
    }

    /// Smallest and largest step of sources and targets.
    pub(crate) fn bounds(&self) -> [(i64, i64); 2] {
        let all = || self.sources.iter().chain(&self.targets);
        let fold = |f: fn(i64, i64) -> i64| {
            (
                all().fold(0, |m, s| f(m, s.0)),
                all().fold(0, |m, s| f(m, s.1)),
            )
        };
        [fold(i64::min), fold(i64::max)]
    }

    /// Unknowns per target and coil.
    pub(crate) fn n_unknowns(&self, n_coils: usize) -> usize {
        self.sources.len() * self.ro * n_coils
    }

    /// Base positions at which the whole window lies inside a calibration block, in block coordinates.
    pub(crate) fn positions(&self, block: &Block) -> Vec<(usize, usize)> {
        let [lo, hi] = self.bounds();
        let range = |len: usize, lo: i64, hi: i64| (-lo)..(len as i64 - hi).max(-lo);
        range(block.pe2.len(), lo.0, hi.0)
            .flat_map(|b2| {
                range(block.pe1.len(), lo.1, hi.1).map(move |b1| (b2 as usize, b1 as usize))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_measured_and_every_target_is_not() {
        for (r1, r2, shift, is_3d) in [
            (2, 1, 0, false),
            (4, 1, 0, false),
            (2, 2, 1, true),
            (4, 2, 2, true),
            (4, 1, 2, true),
            (1, 3, 0, true),
            (3, 3, 2, true),
        ] {
            let lattice = Lattice {
                r1,
                r2,
                shift,
                o1: 0,
                o2: 0,
            };
            let block = Block {
                pe2: 0..if is_3d { 16 } else { 1 },
                pe1: 0..16,
            };
            let w = Window::new(lattice, &GrappaParams::default(), is_3d, &block);
            assert!(
                w.sources.iter().all(|s| lattice.contains(s.0, s.1)),
                "{lattice:?}"
            );
            assert_eq!(w.targets.len(), r1 * r2 - 1);
            assert!(
                w.targets.iter().all(|t| !lattice.contains(t.0, t.1)),
                "{lattice:?}"
            );
            // No two targets in the same coset.
            for (i, a) in w.targets.iter().enumerate() {
                for b in &w.targets[..i] {
                    assert!(!lattice.contains(a.0 - b.0, a.1 - b.1));
                }
            }
        }
    }

    #[test]
    fn one_dimension_is_the_textbook_window() {
        let lattice = Lattice {
            r1: 4,
            ..Lattice::FULL
        };
        let params = GrappaParams {
            window_pe1: Some(4),
            ..Default::default()
        };
        let block = Block {
            pe2: 0..1,
            pe1: 10..34,
        };
        let w = Window::new(lattice, &params, false, &block);
        assert_eq!(w.sources, [(0, -4), (0, 0), (0, 4), (0, 8)]);
        assert_eq!(w.targets, [(0, 1), (0, 2), (0, 3)]);
        assert_eq!(w.span(), [1, 13]);
        assert_eq!(w.positions(&block).len(), 12);
    }
}
