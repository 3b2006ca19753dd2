//! Cartesian k-space of one frame, stored compactly: only the lines that were measured.

use num_complex::Complex32;

/// Extents of the full k-space grid, slowest axis first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Receive coils, physical or virtual.
    pub coil: usize,
    /// Second phase-encoding axis (1 for a 2D scan).
    pub pe2: usize,
    /// First phase-encoding axis.
    pub pe1: usize,
    /// Readout axis.
    pub ro: usize,
}

impl Shape {
    /// Samples of the full grid.
    pub fn len(&self) -> usize {
        self.coil * self.plane()
    }

    /// Samples of one coil's grid.
    pub fn plane(&self) -> usize {
        self.pe2 * self.pe1 * self.ro
    }

    /// Whether the grid holds no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where a measured line lies on the grid. DC is at index `n/2` of every axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Line {
    /// Index along the second phase-encoding axis.
    pub pe2: u32,
    /// Index along the first phase-encoding axis.
    pub pe1: u32,
    /// How many readouts were averaged into it (1 or more).
    pub averages: u32,
}

/// Measured lines of one frame.
///
/// # Shapes
/// `samples` is `[coil, line, ro]` with `ro` contiguous; `lines` are sorted by `(pe2, pe1)` and unique.
/// A sample outside `ro_range` was not measured (asymmetric echo) and is zero.
///
/// # Units
/// After whitening: noise has standard deviation `1/√averages` in the real and in the imaginary part.
#[derive(Clone, Debug)]
pub struct KSpace {
    /// Full grid.
    pub shape: Shape,
    /// Which lines were measured.
    pub lines: Vec<Line>,
    /// First measured sample and one past the last, along the readout.
    pub ro_range: std::ops::Range<usize>,
    /// `[coil, line, ro]`.
    pub samples: Vec<Complex32>,
}

impl KSpace {
    /// Samples of one coil and one line.
    pub fn line(&self, coil: usize, line: usize) -> &[Complex32] {
        let start = (coil * self.lines.len() + line) * self.shape.ro;
        &self.samples[start..start + self.shape.ro]
    }

    /// All lines of one coil, `[line, ro]`.
    pub fn coil(&self, coil: usize) -> &[Complex32] {
        let n = self.lines.len() * self.shape.ro;
        &self.samples[coil * n..(coil + 1) * n]
    }

    /// Whether each `(pe2, pe1)` was measured, `[pe2, pe1]`.
    pub fn mask(&self) -> Vec<bool> {
        let mut mask = vec![false; self.shape.pe2 * self.shape.pe1];
        for line in &self.lines {
            mask[line.pe2 as usize * self.shape.pe1 + line.pe1 as usize] = true;
        }
        mask
    }

    /// The zero-filled grid, `[coil, pe2, pe1, ro]`.
    pub fn to_grid(&self) -> Vec<Complex32> {
        let mut grid = vec![Complex32::ZERO; self.shape.len()];
        let ro = self.shape.ro;
        for coil in 0..self.shape.coil {
            for (i, line) in self.lines.iter().enumerate() {
                let row = (coil * self.shape.pe2 + line.pe2 as usize) * self.shape.pe1
                    + line.pe1 as usize;
                grid[row * ro..(row + 1) * ro].copy_from_slice(self.line(coil, i));
            }
        }
        grid
    }
}
