//! What was measured, read from the mask: calibration block, lattice, partial Fourier.
//!
//! `KSpace` -> [`Sampling`]. The mask decides; the header is only asked where the mask cannot say. Every integer
//! lattice of the plane has a Hermite normal form, so trying `(r1, r2, shift)` finds CAIPIRINHA patterns as well
//! as plain ones, whatever the scanner calls them.

use crate::data::KSpace;

/// Largest reduction along one axis that is looked for.
const MAX_REDUCTION: usize = 16;

/// Lattice of regularly sampled lines: all `(pe2, pe1)` with `pe2 = o2 + j*r2`, `pe1 = o1 + j*shift + i*r1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lattice {
    /// Reduction along the first phase-encoding axis.
    pub r1: usize,
    /// Reduction along the second phase-encoding axis.
    pub r2: usize,
    /// Shift along pe1 from one sampled pe2 to the next (CAIPIRINHA), `0..r1`.
    pub shift: usize,
    /// Offset along pe1 of the lattice at `pe2 = o2`, `0..r1`.
    pub o1: usize,
    /// Offset along pe2, `0..r2`.
    pub o2: usize,
}

impl Lattice {
    /// Every line.
    pub const FULL: Self = Self {
        r1: 1,
        r2: 1,
        shift: 0,
        o1: 0,
        o2: 0,
    };

    /// Total reduction.
    pub fn reduction(&self) -> usize {
        self.r1 * self.r2
    }

    /// Whether a line is on the lattice; indices may be negative (outside the grid).
    pub fn contains(&self, pe2: i64, pe1: i64) -> bool {
        let (r1, r2) = (self.r1 as i64, self.r2 as i64);
        let row = pe2 - self.o2 as i64;
        if row.rem_euclid(r2) != 0 {
            return false;
        }
        let at = self.o1 as i64 + row.div_euclid(r2) * self.shift as i64;
        (pe1 - at).rem_euclid(r1) == 0
    }
}

/// Half-open block of lines, `pe2` then `pe1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Along pe2.
    pub pe2: std::ops::Range<usize>,
    /// Along pe1.
    pub pe1: std::ops::Range<usize>,
}

impl Block {
    /// Lines in it.
    pub fn len(&self) -> usize {
        self.pe2.len() * self.pe1.len()
    }

    /// Whether it holds no line.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a line is in it.
    pub fn contains(&self, pe2: usize, pe1: usize) -> bool {
        self.pe2.contains(&pe2) && self.pe1.contains(&pe1)
    }
}

/// What the mask looks like.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Lines measured.
    pub n_lines: usize,
    /// Lattice that the lines outside the calibration block lie on, if they are regular.
    pub lattice: Option<Lattice>,
    /// Lattice points inside `extent` that are missing (only counted when `lattice` is some; they lie in the corners).
    pub missing: usize,
    /// Largest fully sampled block around the k-space centre; empty if the centre was not measured.
    pub acs: Block,
    /// Smallest block that holds every measured line.
    pub extent: Block,
}

/// Reads a mask `[pe2, pe1]`.
pub fn analyse(mask: &[bool], n2: usize, n1: usize) -> Sampling {
    let acs = central_block(mask, n2, n1);
    let extent = extent(mask, n2, n1);
    let (lattice, missing) = match find_lattice(mask, n1, &acs, &extent) {
        Some((lattice, missing)) => (Some(lattice), missing),
        None => (None, 0),
    };
    Sampling {
        n_lines: mask.iter().filter(|m| **m).count(),
        lattice,
        missing,
        acs,
        extent,
    }
}

/// Reads the sampling of a k-space.
pub fn of(kspace: &KSpace) -> Sampling {
    analyse(&kspace.mask(), kspace.shape.pe2, kspace.shape.pe1)
}

/// Largest fully sampled rectangle that contains the centre, grown one row or column at a time, both axes in turn.
pub fn central_block(mask: &[bool], n2: usize, n1: usize) -> Block {
    let (c2, c1) = (n2 / 2, n1 / 2);
    if mask.is_empty() || !mask[c2 * n1 + c1] {
        return Block {
            pe2: c2..c2,
            pe1: c1..c1,
        };
    }
    let full = |pe2: std::ops::Range<usize>, pe1: std::ops::Range<usize>| {
        pe2.into_iter().all(|k2| {
            mask[k2 * n1 + pe1.start..k2 * n1 + pe1.end]
                .iter()
                .all(|m| *m)
        })
    };
    let grow = |first_pe1: bool| {
        let mut b = Block {
            pe2: c2..c2 + 1,
            pe1: c1..c1 + 1,
        };
        loop {
            let before = b.len();
            for turn in 0..2 {
                if (turn == 0) == first_pe1 {
                    if b.pe1.start > 0 && full(b.pe2.clone(), b.pe1.start - 1..b.pe1.start) {
                        b.pe1.start -= 1;
                    }
                    if b.pe1.end < n1 && full(b.pe2.clone(), b.pe1.end..b.pe1.end + 1) {
                        b.pe1.end += 1;
                    }
                } else {
                    if b.pe2.start > 0 && full(b.pe2.start - 1..b.pe2.start, b.pe1.clone()) {
                        b.pe2.start -= 1;
                    }
                    if b.pe2.end < n2 && full(b.pe2.end..b.pe2.end + 1, b.pe1.clone()) {
                        b.pe2.end += 1;
                    }
                }
            }
            if b.len() == before {
                return b;
            }
        }
    };
    let (a, b) = (grow(true), grow(false));
    if b.len() > a.len() { b } else { a }
}

fn extent(mask: &[bool], n2: usize, n1: usize) -> Block {
    let mut b = Block {
        pe2: n2..0,
        pe1: n1..0,
    };
    for k2 in 0..n2 {
        for k1 in 0..n1 {
            if mask[k2 * n1 + k1] {
                b.pe2 = b.pe2.start.min(k2)..b.pe2.end.max(k2 + 1);
                b.pe1 = b.pe1.start.min(k1)..b.pe1.end.max(k1 + 1);
            }
        }
    }
    if b.pe2.start >= b.pe2.end {
        return Block {
            pe2: 0..0,
            pe1: 0..0,
        };
    }
    b
}

/// The sparsest lattice that holds every line outside the calibration block and none of whose points is missing,
/// except towards the corners of a 3D extent (elliptic scanning).
fn find_lattice(mask: &[bool], n1: usize, acs: &Block, extent: &Block) -> Option<(Lattice, usize)> {
    if extent.is_empty() {
        return None;
    }
    let outside: Vec<(usize, usize)> = extent
        .pe2
        .clone()
        .flat_map(|k2| extent.pe1.clone().map(move |k1| (k2, k1)))
        .filter(|&(k2, k1)| mask[k2 * n1 + k1] && !acs.contains(k2, k1))
        .collect();
    if outside.is_empty() {
        return Some((Lattice::FULL, 0));
    }
    let mut best: Option<(Lattice, usize)> = None;
    let max2 = if extent.pe2.len() == 1 {
        1
    } else {
        MAX_REDUCTION
    };
    for r2 in 1..=max2.min(extent.pe2.len()) {
        for r1 in 1..=MAX_REDUCTION.min(extent.pe1.len()) {
            if best.is_some_and(|(l, _)| l.reduction() >= r1 * r2) {
                continue;
            }
            for shift in 0..r1 {
                let (k2, k1) = outside[0];
                let o2 = k2 % r2;
                let back = (k2 / r2 * shift) % r1;
                let o1 = (k1 % r1 + r1 - back) % r1;
                let lattice = Lattice {
                    r1,
                    r2,
                    shift,
                    o1,
                    o2,
                };
                if r2 * shift > 0 && extent.pe2.len() <= r2 {
                    continue;
                }
                if !outside
                    .iter()
                    .all(|&(k2, k1)| lattice.contains(k2 as i64, k1 as i64))
                {
                    continue;
                }
                if let Some(missing) = missing_points(mask, n1, extent, &lattice) {
                    best = Some((lattice, missing));
                    break;
                }
            }
        }
    }
    best
}

/// Lattice points that were not measured, if none of them lies inside the ellipse inscribed in the extent.
fn missing_points(mask: &[bool], n1: usize, extent: &Block, lattice: &Lattice) -> Option<usize> {
    let mut missing = 0;
    let is_3d = extent.pe2.len() > 1;
    let radius = |k: usize, range: &std::ops::Range<usize>| {
        let half = range.len() as f64 / 2.0;
        ((k as f64 + 0.5 - range.start as f64) - half) / half
    };
    for k2 in extent.pe2.clone() {
        for k1 in extent.pe1.clone() {
            if mask[k2 * n1 + k1] || !lattice.contains(k2 as i64, k1 as i64) {
                continue;
            }
            let (u, v) = (radius(k2, &extent.pe2), radius(k1, &extent.pe1));
            if !is_3d || u * u + v * v < 0.95 {
                return None;
            }
            missing += 1;
        }
    }
    Some(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(n2: usize, n1: usize, f: impl Fn(usize, usize) -> bool) -> Vec<bool> {
        (0..n2 * n1).map(|i| f(i / n1, i % n1)).collect()
    }

    #[test]
    fn full_mask_is_reduction_one_and_all_acs() {
        let s = analyse(&mask(1, 9, |_, _| true), 1, 9);
        assert_eq!(s.lattice, Some(Lattice::FULL));
        assert_eq!(
            s.acs,
            Block {
                pe2: 0..1,
                pe1: 0..9
            }
        );
    }

    #[test]
    fn every_third_line_with_acs_is_found_with_its_offset() {
        let s = analyse(
            &mask(1, 61, |_, k| k % 3 == 2 || (24..40).contains(&k)),
            1,
            61,
        );
        let l = s.lattice.unwrap();
        assert_eq!((l.r1, l.r2, l.o1), (3, 1, 2));
        // Lines 23 and 41 belong to the lattice; only 23 touches the block.
        assert_eq!(s.acs.pe1, 23..40);
    }

    #[test]
    fn caipirinha_shift_is_found_in_any_orientation() {
        for (r1, r2, shift) in [
            (2, 2, 1),
            (4, 1, 0),
            (1, 4, 0),
            (4, 2, 2),
            (3, 3, 1),
            (4, 1, 1),
            (6, 1, 4),
        ] {
            let lattice = Lattice {
                r1,
                r2,
                shift,
                o1: r1 - 1,
                o2: r2 / 2,
            };
            let m = mask(24, 36, |k2, k1| {
                lattice.contains(k2 as i64, k1 as i64)
                    || ((8..16).contains(&k2) && (12..24).contains(&k1))
            });
            let found = analyse(&m, 24, 36).lattice.unwrap();
            assert_eq!(found.reduction(), r1 * r2, "{lattice:?}");
            for k2 in 0..24 {
                for k1 in 0..36 {
                    assert_eq!(
                        found.contains(k2, k1),
                        lattice.contains(k2, k1),
                        "{lattice:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_dropped_line_makes_the_pattern_irregular() {
        let m = mask(1, 64, |_, k| {
            (k % 2 == 0 && k != 10) || (26..38).contains(&k)
        });
        assert_eq!(analyse(&m, 1, 64).lattice, None);
    }

    #[test]
    fn elliptic_corners_are_counted_not_refused() {
        let m = mask(32, 32, |k2, k1| {
            let r = |k: usize| (k as f64 + 0.5 - 16.0) / 16.0;
            (k2 % 2 == 0 && k1 % 2 == 0 || ((12..20).contains(&k2) && (12..20).contains(&k1)))
                && r(k2).powi(2) + r(k1).powi(2) <= 1.0
        });
        let s = analyse(&m, 32, 32);
        assert_eq!(s.lattice.map(|l| (l.r1, l.r2)), Some((2, 2)));
        assert!(s.missing > 0);
    }

    #[test]
    fn partial_fourier_shows_in_the_extent() {
        let s = analyse(&mask(1, 64, |_, k| k >= 20), 1, 64);
        assert_eq!(s.extent.pe1, 20..64);
        assert_eq!(s.lattice, Some(Lattice::FULL));
    }

    #[test]
    fn centre_not_measured_means_no_acs() {
        let s = analyse(&mask(1, 64, |_, k| k % 2 == 1), 1, 64);
        assert!(s.acs.is_empty());
        assert_eq!(s.lattice.unwrap().o1, 1);
    }
}
