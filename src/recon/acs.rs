//! The fully sampled block around the k-space centre that weights and maps are calibrated from.
//!
//! `Frame` -> [`Acs`]: a dense array cut from the imaging lines, from the separate reference, or from both.

use num_complex::Complex32;

use super::sampling::{Block, central_block};
use crate::data::{Calibration, Frame, KSpace, Line, Shape};

/// Dense calibration block.
///
/// # Shapes
/// `samples` is `[coil, pe2, pe1, ro]` of `shape`; `dc` is the index of the k-space centre inside the block
/// (`pe2`, `pe1`, `ro`).
#[derive(Clone, Debug)]
pub(crate) struct Acs {
    pub(crate) shape: Shape,
    pub(crate) dc: [usize; 3],
    /// Block in the full grid.
    pub(crate) block: Block,
    /// Measured part of the readout.
    pub(crate) ro_range: std::ops::Range<usize>,
    /// `imaging lines`, `reference` or `both`.
    pub(crate) origin: &'static str,
    /// Mean over the lines of `1 / averages`: the variance of their noise relative to a single measurement.
    pub(crate) variance: f64,
    pub(crate) samples: Vec<Complex32>,
}

impl Acs {
    /// One line, `[ro]`.
    pub(crate) fn line(&self, coil: usize, pe2: usize, pe1: usize) -> &[Complex32] {
        let ro = self.shape.ro;
        let row = (coil * self.shape.pe2 + pe2) * self.shape.pe1 + pe1;
        &self.samples[row * ro..(row + 1) * ro]
    }

    /// As a k-space with its lines at their place on the full grid.
    pub(crate) fn to_kspace(&self, full: Shape) -> KSpace {
        let lines = self
            .block
            .pe2
            .clone()
            .flat_map(|k2| {
                self.block.pe1.clone().map(move |k1| Line {
                    pe2: k2 as u32,
                    pe1: k1 as u32,
                    averages: 1,
                })
            })
            .collect();
        KSpace {
            shape: Shape {
                coil: self.shape.coil,
                ..full
            },
            lines,
            ro_range: self.ro_range.clone(),
            samples: self.samples.clone(),
        }
    }
}

/// Where the calibration block of a frame lies, and from which lines it comes. Nothing is copied.
pub(crate) fn locate(frame: &Frame, calibration: Calibration) -> (Block, &'static str) {
    let shape = frame.kspace.shape;
    let own = frame.kspace.mask();
    let own_block = central_block(&own, shape.pe2, shape.pe1);
    let Some(reference) = &frame.reference else {
        return (own_block, "imaging lines");
    };
    let apart = reference.mask();
    let reference_block = central_block(&apart, shape.pe2, shape.pe1);
    let mut best =
        if reference_block.len() >= own_block.len() || calibration == Calibration::Separate {
            (reference_block, "reference")
        } else {
            (own_block, "imaging lines")
        };
    // A separate reference may have another contrast: its lines are mixed with imaging lines only where the
    // header says that both belong to one measurement.
    if calibration == Calibration::Embedded {
        let both: Vec<bool> = own.iter().zip(&apart).map(|(a, b)| *a || *b).collect();
        let block = central_block(&both, shape.pe2, shape.pe1);
        if block.len() > best.0.len() {
            best = (block, "both");
        }
    }
    best
}

/// Cuts the block found by [`locate`].
pub(crate) fn cut(frame: &Frame, block: &Block, origin: &'static str) -> Acs {
    let full = frame.kspace.shape;
    let shape = Shape {
        coil: full.coil,
        pe2: block.pe2.len(),
        pe1: block.pe1.len(),
        ro: full.ro,
    };
    let mut samples = vec![Complex32::ZERO; shape.len()];
    let mut sources: Vec<&KSpace> = Vec::new();
    if origin != "reference" {
        sources.push(&frame.kspace);
    }
    if origin != "imaging lines" {
        sources.extend(frame.reference.as_ref());
    }
    let mut ro_range = 0..full.ro;
    let (mut variance, mut lines) = (0.0, 0usize);
    for source in sources {
        ro_range = ro_range.start.max(source.ro_range.start)..ro_range.end.min(source.ro_range.end);
        for (i, line) in source.lines.iter().enumerate() {
            let (k2, k1) = (line.pe2 as usize, line.pe1 as usize);
            if !block.contains(k2, k1) {
                continue;
            }
            variance += 1.0 / f64::from(line.averages.max(1));
            lines += 1;
            for coil in 0..shape.coil {
                let row =
                    (coil * shape.pe2 + k2 - block.pe2.start) * shape.pe1 + k1 - block.pe1.start;
                samples[row * shape.ro..(row + 1) * shape.ro].copy_from_slice(source.line(coil, i));
            }
        }
    }
    Acs {
        shape,
        dc: [
            full.pe2 / 2 - block.pe2.start.min(full.pe2 / 2),
            full.pe1 / 2 - block.pe1.start.min(full.pe1 / 2),
            full.ro / 2,
        ],
        block: block.clone(),
        ro_range,
        origin,
        variance: variance / lines.max(1) as f64,
        samples,
    }
}
