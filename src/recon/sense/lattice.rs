//! The mask as a lattice with a weight plus the rest, and the voxels that fold onto each other.

use num_complex::{Complex32, Complex64};

use super::Lattice;
use crate::data::KSpace;

/// Whether the lattice is periodic in a grid of `n2 x n1`: only then do whole voxels fold onto each other.
pub(super) fn closes(lattice: &Lattice, n2: usize, n1: usize) -> bool {
    n2.is_multiple_of(lattice.r2)
        && n1.is_multiple_of(lattice.r1)
        && (lattice.shift * (n2 / lattice.r2)).is_multiple_of(lattice.r1)
}

/// How voxels of one plane fold, and what of the mask the lattice does not explain.
///
/// Works on k-space indices counted from a lattice point `o` near the centre, on images turned by the matching phase:
/// then every fold has real weight and transforms need no centring.
#[derive(Clone, Debug)]
pub(super) struct Folding {
    pub(super) lattice: Lattice,
    /// Whether a lattice was found: otherwise it is the full grid, with the mean weight.
    pub(super) is_lattice: bool,
    /// pe2, pe1.
    pub(super) grid: [usize; 2],
    /// Voxels (pe2, pe1) of the fundamental domain: the first of each group of voxels that fold together.
    pub(super) domain: [usize; 2],
    /// For each member of a group and each row of the domain: index of the member's first voxel in the plane. Rows
    /// run along pe1 without a break.
    pub(super) members: Vec<Vec<usize>>,
    /// Weight of a lattice line: inverse variance of whitened noise, that is averages.
    pub(super) weight: f32,
    /// Mean weight of all lines of the grid: the mean diagonal of the normal operator for maps of unit norm.
    pub(super) mean_weight: f64,
    /// Place of each measured line in the plane, counted from `o`.
    pub(super) places: Vec<usize>,
    /// Weight of each measured line.
    pub(super) weights: Vec<f32>,
    /// Weight of every line of the plane beyond the lattice's, counted from `o`; negative where lattice points miss.
    pub(super) rest: Vec<f32>,
    /// Factor of each measured line's sample on the way in.
    pub(super) line_phase: Vec<Complex32>,
    /// Factor of each voxel of the plane on the way out.
    pub(super) voxel_phase: Vec<Complex32>,
}

impl Folding {
    pub(super) fn new(lattice: Lattice, is_lattice: bool, kspace: &KSpace) -> Self {
        let grid = [kspace.shape.pe2, kspace.shape.pe1];
        let [n2, n1] = grid;
        let plane = n2 * n1;
        let weights: Vec<f32> = kspace
            .lines
            .iter()
            .map(|l| l.averages.max(1) as f32)
            .collect();
        let mean_weight = weights.iter().map(|w| f64::from(*w)).sum::<f64>() / plane as f64;
        // A lattice point next to the centre.
        let origin = if is_lattice {
            (0..lattice.r2.max(1) as i64)
                .flat_map(|a| (0..lattice.r1.max(1) as i64).map(move |b| (a, b)))
                .map(|(a, b)| [n2 as i64 / 2 - a, n1 as i64 / 2 - b])
                .find(|[k2, k1]| lattice.contains(*k2, *k1))
                .unwrap_or([n2 as i64 / 2, n1 as i64 / 2])
        } else {
            [n2 as i64 / 2, n1 as i64 / 2]
        };
        let from_origin = |k2: u32, k1: u32| {
            let a = (i64::from(k2) - origin[0]).rem_euclid(n2 as i64) as usize;
            let b = (i64::from(k1) - origin[1]).rem_euclid(n1 as i64) as usize;
            (a, b)
        };
        let places: Vec<usize> = kspace
            .lines
            .iter()
            .map(|l| {
                let (a, b) = from_origin(l.pe2, l.pe1);
                a * n1 + b
            })
            .collect();
        let on_lattice =
            |l: &crate::data::Line| lattice.contains(i64::from(l.pe2), i64::from(l.pe1));
        let weight = if is_lattice {
            // The least of its lines: then what averaged lines have more lies in the rest, and is positive.
            kspace
                .lines
                .iter()
                .zip(&weights)
                .filter(|(l, _)| on_lattice(l))
                .map(|(_, w)| *w)
                .fold(f32::INFINITY, f32::min)
        } else {
            mean_weight as f32
        };
        let mut rest = vec![0.0f32; plane];
        for k2 in 0..n2 {
            for k1 in 0..n1 {
                if lattice.contains(k2 as i64, k1 as i64) {
                    let (a, b) = from_origin(k2 as u32, k1 as u32);
                    rest[a * n1 + b] = -weight;
                }
            }
        }
        for (place, w) in places.iter().zip(&weights) {
            rest[*place] += w;
        }
        let domain = [n2 / lattice.r2, n1 / lattice.r1];
        // The dual lattice: y moves by m n1/r1, and z by (j - shift m / r1) n2/r2, which closure makes whole.
        let mut members = Vec::with_capacity(lattice.reduction());
        for j in 0..lattice.r2 {
            for m in 0..lattice.r1 {
                let back = (n2 / lattice.r2) * lattice.shift * m / lattice.r1;
                let dz = (n2 / lattice.r2 * j + n2 - back % n2) % n2;
                members.push(
                    (0..domain[0])
                        .map(|z| (z + dz) % n2 * n1 + m * domain[1])
                        .collect(),
                );
            }
        }
        let cis = |turns: f64| {
            let v = Complex64::cis(std::f64::consts::TAU * turns.fract());
            Complex32::new(v.re as f32, v.im as f32)
        };
        // With k = k' + o and c = n/2: (k-c)(r-c) = k' r - k' c + (o-c)(r-c), one factor per line, one per voxel.
        let line_phase = places
            .iter()
            .map(|p| {
                let turns = |k: usize, n: usize| -((k * (n / 2)) as f64) / n as f64;
                cis(turns(p / n1, n2) + turns(p % n1, n1))
            })
            .collect();
        let voxel_phase = (0..plane)
            .map(|r| {
                let turns = |r: usize, n: usize, o: i64| {
                    ((o - n as i64 / 2) * (r as i64 - n as i64 / 2)) as f64 / n as f64
                };
                cis(turns(r / n1, n2, origin[0]) + turns(r % n1, n1, origin[1]))
            })
            .collect();
        Self {
            lattice,
            is_lattice,
            grid,
            domain,
            members,
            weight,
            mean_weight,
            places,
            weights,
            rest,
            line_phase,
            voxel_phase,
        }
    }

    /// Whether the lattice is the whole mask.
    pub(super) fn is_exact(&self) -> bool {
        self.rest.iter().all(|w| *w == 0.0)
    }

    /// What the mask looks like.
    pub(super) fn describe(&self) -> String {
        if !self.is_lattice {
            return format!("irregular mask of {} lines", self.places.len());
        }
        let l = &self.lattice;
        let extra = self.rest.iter().filter(|w| **w > 0.0).count();
        let missing = self.rest.iter().filter(|w| **w < 0.0).count();
        let mut text = format!("lattice {}x{}", l.r1, l.r2);
        if l.shift > 0 {
            text += &format!(" shifted by {}", l.shift);
        }
        if extra > 0 {
            text += &format!(" with {extra} lines more");
        }
        if missing > 0 {
            text += &format!(" without {missing} of its lines");
        }
        text
    }
}
