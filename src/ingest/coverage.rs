//! Which lines a frame should have and which are missing.

use crate::data::{Note, ScanEncoding};

/// The regular pattern that explains most of the measured lines: `(pe2 - o2) % r2 == 0` and
/// `(pe1 - o1 - shift·(pe2 - o2)/r2) % r1 == 0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pattern {
    r1: usize,
    r2: usize,
    o1: usize,
    o2: usize,
    shift: usize,
}

impl Pattern {
    fn has(&self, pe1: usize, pe2: usize) -> bool {
        let row = pe2 + self.r2 - self.o2;
        row.is_multiple_of(self.r2) && {
            let row = (row / self.r2).wrapping_sub(1);
            // pe1 ≡ o1 + shift·row (mod r1); row may be -1 when pe2 < o2, which the test above excludes
            let want = (self.o1 + self.shift * (row % self.r1)) % self.r1;
            pe1 % self.r1 == want
        }
    }

    fn fit(mask: &Mask, r1: usize, r2: usize) -> Self {
        // One count per (o2, shift, o1). Ties go to the smaller shift, then offsets: iteration order decides.
        let mut counts = vec![0usize; r2 * r1 * r1];
        for pe2 in 0..mask.n2 {
            for pe1 in 0..mask.n1 {
                if !mask.has(pe1, pe2) {
                    continue;
                }
                let (row, o2) = (pe2 / r2, pe2 % r2);
                for shift in 0..r1 {
                    let o1 = (pe1 + r1 * r1 - shift * (row % r1)) % r1;
                    counts[(shift * r2 + o2) * r1 + o1] += 1;
                }
            }
        }
        let mut best = Self {
            r1,
            r2,
            o1: 0,
            o2: 0,
            shift: 0,
        };
        let mut most = 0;
        for shift in 0..r1 {
            for o2 in 0..r2 {
                for o1 in 0..r1 {
                    let count = counts[(shift * r2 + o2) * r1 + o1];
                    if count > most {
                        most = count;
                        best = Self {
                            r1,
                            r2,
                            o1,
                            o2,
                            shift,
                        };
                    }
                }
            }
        }
        best
    }
}

/// Measured lines on the grid.
pub(crate) struct Mask {
    n1: usize,
    n2: usize,
    bits: Vec<bool>,
}

impl Mask {
    pub(crate) fn new(n1: usize, n2: usize) -> Self {
        Self {
            n1,
            n2,
            bits: vec![false; n1 * n2],
        }
    }

    pub(crate) fn set(&mut self, pe1: u32, pe2: u32) {
        self.bits[pe2 as usize * self.n1 + pe1 as usize] = true;
    }

    fn has(&self, pe1: usize, pe2: usize) -> bool {
        self.bits[pe2 * self.n1 + pe1]
    }
}

/// What the mask says against what the header announces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coverage {
    /// Announced lines, after acceleration and partial Fourier, that were not measured: `(pe2, pe1)`.
    pub(crate) missing: Vec<(usize, usize)>,
    /// Announced lines.
    pub(crate) announced: usize,
    /// Spacing along pe1 when the header states none but the lines have one.
    pub(crate) unstated_spacing: Option<usize>,
}

/// First and last index on the grid of the announced lines of one axis.
fn span(
    centre: usize,
    first: usize,
    last: Option<usize>,
    n: usize,
    measured: (usize, usize),
) -> (usize, usize) {
    match last {
        None => measured,
        Some(last) => {
            let shift = (n / 2) as i64 - centre as i64;
            let clamp = |v: i64| v.clamp(0, n as i64 - 1).unsigned_abs() as usize;
            (clamp(first as i64 + shift), clamp(last as i64 + shift))
        }
    }
}

/// Finds the missing lines.
///
/// Lines that acceleration, partial Fourier (limits that do not span the matrix) leave out are not missing.
pub(crate) fn coverage(mask: &Mask, e: &ScanEncoding) -> Coverage {
    let any1: Vec<usize> = (0..mask.n1)
        .filter(|&a| (0..mask.n2).any(|b| mask.has(a, b)))
        .collect();
    let any2: Vec<usize> = (0..mask.n2)
        .filter(|&b| (0..mask.n1).any(|a| mask.has(a, b)))
        .collect();
    let (Some(&a0), Some(&a1), Some(&b0), Some(&b1)) =
        (any1.first(), any1.last(), any2.first(), any2.last())
    else {
        return Coverage::default();
    };
    let (f1, l1) = span(
        e.pe1_centre,
        e.first_line[0],
        e.last_line[0],
        mask.n1,
        (a0, a1),
    );
    let (f2, l2) = span(
        e.pe2_centre,
        e.first_line[1],
        e.last_line[1],
        mask.n2,
        (b0, b1),
    );
    let [r1, r2] = e.acceleration;
    let spacing = any1
        .windows(2)
        .map(|w| w[1] - w[0])
        .reduce(gcd)
        .unwrap_or(1);
    // Regular spacing that nobody announced is undersampling, not hundreds of missing lines.
    let unstated_spacing = (r1 == 1 && spacing > 1 && any1.len() >= 4).then_some(spacing);
    let r1 = unstated_spacing.unwrap_or(r1);
    let pattern = Pattern::fit(mask, r1, r2);
    let mut missing = Vec::new();
    let mut announced = 0;
    for pe2 in f2..=l2 {
        for pe1 in f1..=l1 {
            if pattern.has(pe1, pe2) {
                announced += 1;
                if !mask.has(pe1, pe2) {
                    missing.push((pe2, pe1));
                }
            }
        }
    }
    Coverage {
        missing,
        announced,
        unstated_spacing,
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Coverage {
    /// Says what is missing.
    pub(crate) fn notes(&self, e: &ScanEncoding, notes: &mut Vec<Note>) {
        if let Some(spacing) = self.unstated_spacing {
            notes.push(Note::new(
                "acceleration_unstated",
                format!(
                    "the header states no acceleration along pe1, the lines are every {spacing}th: read as R = {spacing}"
                ),
            ));
        }
        let n = self.missing.len();
        if n == 0 {
            return;
        }
        if n * 4 > self.announced {
            notes.push(Note::new(
                "irregular_sampling",
                format!(
                    "{} of {} announced lines were measured (stated acceleration {} x {}): read as irregular undersampling",
                    self.announced - n,
                    self.announced,
                    e.acceleration[0],
                    e.acceleration[1]
                ),
            ));
        } else {
            notes.push(Note::new(
                "missing_lines",
                format!(
                    "{n} of {} announced lines are missing: {}",
                    self.announced,
                    list(&self.missing)
                ),
            ));
        }
    }
}

/// Up to six `(pe2, pe1)` as text.
pub(crate) fn list(lines: &[(usize, usize)]) -> String {
    let is_2d = lines.iter().all(|l| l.0 == 0);
    let mut words: Vec<String> = lines
        .iter()
        .take(6)
        .map(|&(pe2, pe1)| {
            if is_2d {
                format!("pe1 {pe1}")
            } else {
                format!("pe1 {pe1} pe2 {pe2}")
            }
        })
        .collect();
    if lines.len() > 6 {
        words.push("...".into());
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Calibration, Space};

    fn encoding(n1: usize, n2: usize, acceleration: [usize; 2]) -> ScanEncoding {
        let space = Space {
            matrix: [4, n1, n2],
            field_of_view_mm: [1.0; 3],
        };
        ScanEncoding {
            encoded: space,
            recon_space: space,
            pe1_centre: n1 / 2,
            pe2_centre: n2 / 2,
            last_line: [Some(n1 - 1), Some(n2 - 1)],
            first_line: [0, 0],
            acceleration,
            calibration: Calibration::Unstated,
            grid: [4, n1, n2],
        }
    }

    fn mask(n1: usize, n2: usize, f: impl Fn(usize, usize) -> bool) -> Mask {
        let mut m = Mask::new(n1, n2);
        for b in 0..n2 {
            for a in 0..n1 {
                if f(a, b) {
                    m.set(a as u32, b as u32);
                }
            }
        }
        m
    }

    #[test]
    fn full_and_regular_scans_miss_nothing() {
        let m = mask(11, 1, |_, _| true);
        assert_eq!(coverage(&m, &encoding(11, 1, [1, 1])).missing, []);
        // R = 3 from line 2, with calibration lines 4..7
        let m = mask(12, 1, |a, _| a % 3 == 2 || (4..8).contains(&a));
        let c = coverage(&m, &encoding(12, 1, [3, 1]));
        assert_eq!((c.missing, c.announced), (vec![], 4));
        // CAIPI 2x2 with shift 1 from an odd offset
        let m = mask(8, 8, |a, b| b % 2 == 1 && (a + b / 2) % 2 == 0);
        let c = coverage(&m, &encoding(8, 8, [2, 2]));
        assert_eq!((c.missing, c.announced), (vec![], 16));
        // shift 2 of r1 = 3, offset along pe2
        let m = mask(9, 8, |a, b| b % 2 == 1 && a % 3 == (1 + 2 * (b / 2)) % 3);
        assert_eq!(coverage(&m, &encoding(9, 8, [3, 2])).missing, []);
    }

    #[test]
    fn gaps_are_seen() {
        let m = mask(11, 1, |a, _| a != 4 && a != 10);
        assert_eq!(
            coverage(&m, &encoding(11, 1, [1, 1])).missing,
            [(0, 4), (0, 10)]
        );
        let m = mask(12, 1, |a, _| a % 3 == 2 && a != 8);
        assert_eq!(coverage(&m, &encoding(12, 1, [3, 1])).missing, [(0, 8)]);
        let m = mask(8, 4, |a, b| (a, b) != (3, 2));
        assert_eq!(coverage(&m, &encoding(8, 4, [1, 1])).missing, [(2, 3)]);
    }

    #[test]
    fn partial_fourier_is_not_missing() {
        let mut e = encoding(12, 1, [1, 1]);
        // counters 0..8 with centre 3: indices 3..11
        e.pe1_centre = 3;
        e.last_line[0] = Some(8);
        let m = mask(12, 1, |a, _| a >= 3);
        let c = coverage(&m, &e);
        assert_eq!((c.missing, c.announced), (vec![], 9));
    }

    #[test]
    fn unstated_acceleration_is_named() {
        let m = mask(12, 1, |a, _| a % 2 == 1);
        let c = coverage(&m, &encoding(12, 1, [1, 1]));
        assert_eq!(c.unstated_spacing, Some(2));
        assert_eq!(c.missing, []);
    }
}
