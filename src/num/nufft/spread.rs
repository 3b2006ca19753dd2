//! Between samples and grid: eight coils side by side, the same weights in both directions.
//!
//! Interpolation goes through the samples in the order in which they were measured. Spreading goes through them sorted by
//! bins of the grid, and every slab of the grid belongs to one task, which takes from a sample only what falls into its
//! slab: no locks, and every cell is summed in an order that the plan fixed. The last axis has its first cells again
//! behind its last, so that only rows wrap.
#![allow(
    clippy::needless_range_loop,
    reason = "an index into the weights is also one into rows, which wrap"
)]

use num_complex::Complex32;
use rayon::prelude::*;

use super::kernel::CELLS;
use crate::num::complex::{Kernel, dispatch, fma};
use crate::num::lanes::{LANES, Lanes, scatter_rows};

/// Where a sample lies: the first cell of its window, and its place between two cells, from -1 to 1. Axes slow to fast.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) first: [u32; 3],
    pub(super) between: [f32; 3],
}

/// Cells of a bin along each axis: with the window around it, it stays in the first-level cache.
const BIN: [usize; 3] = [8, 8, 16];
/// Parts into which the work is cut: enough that many threads end at about the same time.
const PARTS: usize = 48;
/// Samples whose results are kept before they are sorted to their coils.
const CHUNK: usize = 512;

/// Rows of the slow axis that one task fills, and the samples that may reach it.
#[derive(Debug)]
pub(super) struct Slab {
    pub(super) rows: std::ops::Range<usize>,
    /// Ranges of the sorted order.
    samples: Vec<std::ops::Range<usize>>,
}

#[derive(Debug)]
pub(super) struct Lattice {
    /// Cells per axis, slow to fast; the middle one is 1 in 2D.
    pub(super) size: [usize; 3],
    /// Cells that a window covers along the slow and the fast axis.
    pub(super) width: usize,
    /// Coefficients per axis.
    pub(super) windows: [Vec<[f32; CELLS]>; 3],
    points: Vec<Point>,
    order: Vec<u32>,
    pub(super) slabs: Vec<Slab>,
}

impl Lattice {
    pub(super) fn new(
        size: [usize; 3],
        width: usize,
        windows: [Vec<[f32; CELLS]>; 3],
        points: Vec<Point>,
    ) -> Self {
        let bins: [usize; 3] = std::array::from_fn(|a| size[a].div_ceil(BIN[a]));
        let bin = |p: &Point| {
            let [s, m, f]: [usize; 3] = std::array::from_fn(|a| p.first[a] as usize / BIN[a]);
            (s * bins[1] + m) * bins[2] + f
        };
        // Counting sort, stable: neighbours on a trajectory stay neighbours.
        let mut starts = vec![0usize; bins.iter().product::<usize>() + 1];
        for p in &points {
            starts[bin(p) + 1] += 1;
        }
        for b in 1..starts.len() {
            starts[b] += starts[b - 1];
        }
        let (mut next, mut order) = (starts.clone(), vec![0u32; points.len()]);
        for (i, p) in points.iter().enumerate() {
            let at = &mut next[bin(p)];
            order[*at] = i as u32;
            *at += 1;
        }
        let layer = |s: usize| starts[s * bins[1] * bins[2]]..starts[(s + 1) * bins[1] * bins[2]];
        let mut lattice = Self {
            size,
            width,
            windows,
            points,
            order,
            slabs: Vec::new(),
        };
        let per_sample = width * width * if size[1] > 1 { width } else { 1 };
        // A cell costs its Fourier transform: about as much as ten cells of a window.
        let per_layer = 10 * BIN[0] * size[1] * size[2];
        let work = |s: usize| layer(s).len() * per_sample + per_layer;
        let part = (0..bins[0]).map(work).sum::<usize>() / PARTS;
        let mut first = 0;
        while first < bins[0] {
            let (mut end, mut sum) = (first + 1, work(first));
            while end < bins[0] && sum + work(end) <= part {
                sum += work(end);
                end += 1;
            }
            let rows = first * BIN[0]..(end * BIN[0]).min(size[0]);
            // Windows that begin up to a width before the slab reach it; rows wrap.
            let mut reach = Vec::new();
            for back in (1..width).rev() {
                let row = (rows.start + width * size[0] - back) % size[0];
                if !reach.contains(&(row / BIN[0])) && !(first..end).contains(&(row / BIN[0])) {
                    reach.push(row / BIN[0]);
                }
            }
            reach.extend(first..end);
            let samples = reach.into_iter().map(layer).collect();
            lattice.slabs.push(Slab { rows, samples });
            first = end;
        }
        lattice
    }

    pub(super) fn n_samples(&self) -> usize {
        self.points.len()
    }

    /// Length of a row with the cells that it has twice.
    pub(super) fn pitch(&self) -> usize {
        self.size[2] + self.width - 1
    }

    /// Fills `slab`, `[row, mid, pitch]`, with what the samples of up to eight coils leave in it.
    pub(super) fn spread(&self, which: &Slab, samples: &[Complex32], slab: &mut [Lanes]) {
        slab.fill(Lanes::ZERO);
        macro_rules! widths {
            ($($w:literal $p:literal),*) => {
                match self.width {
                    $($w => dispatch(Spread::<$w, $p> { lattice: self, which, samples, slab }),)*
                    _ => debug_assert!(false, "no loop for this width"),
                }
            };
        }
        widths!(3 8, 4 8, 5 8, 6 8, 7 8, 8 8, 9 16, 10 16, 11 16, 12 16);
        // What lies behind the end is what lies at the beginning.
        let size = self.size[2];
        for row in slab.chunks_exact_mut(self.pitch()) {
            for i in size..row.len() {
                row[i - size] = row[i - size].plus::<false>(1.0, row[i]);
            }
        }
    }

    /// Fills `samples`, `[coil, sample]` of up to eight coils, from `grid`, `[slow, mid, pitch]`.
    pub(super) fn interpolate(&self, grid: &[Lanes], samples: &mut [Complex32]) {
        let n = self.n_samples();
        let mut tasks: Vec<Vec<&mut [Complex32]>> =
            (0..n.div_ceil(CHUNK)).map(|_| Vec::new()).collect();
        for coil in samples.chunks_exact_mut(n) {
            for (task, part) in tasks.iter_mut().zip(coil.chunks_mut(CHUNK)) {
                task.push(part);
            }
        }
        tasks.into_par_iter().enumerate().for_each_init(
            || (vec![Lanes::ZERO; CHUNK], vec![Complex32::ZERO; CHUNK * LANES]),
            |(found, sorted), (task, coils)| {
                let points = &self.points[task * CHUNK..n.min((task + 1) * CHUNK)];
                let found = &mut found[..points.len()];
                macro_rules! widths {
                    ($($w:literal $p:literal),*) => {
                        match self.width {
                            $($w => dispatch(Interpolate::<$w, $p> { lattice: self, points, grid, found }),)*
                            _ => debug_assert!(false, "no loop for this width"),
                        }
                    };
                }
                widths!(3 8, 4 8, 5 8, 6 8, 7 8, 8 8, 9 16, 10 16, 11 16, 12 16);
                let sorted = &mut sorted[..coils.len() * points.len()];
                scatter_rows(found, points.len(), |x| x, 1.0, sorted);
                for (coil, values) in coils.into_iter().zip(sorted.chunks_exact(points.len())) {
                    coil.copy_from_slice(values);
                }
            },
        );
    }
}

#[inline(always)]
fn weights<const FMA: bool, const P: usize>(rows: &[[f32; CELLS]], t: f32) -> [f32; P] {
    let mut w = [0.0; P];
    for row in rows.iter().rev() {
        for (w, c) in w.iter_mut().zip(row) {
            *w = fma::<FMA>(*w, t, *c);
        }
    }
    w
}

struct Spread<'a, const W: usize, const P: usize> {
    lattice: &'a Lattice,
    which: &'a Slab,
    samples: &'a [Complex32],
    slab: &'a mut [Lanes],
}

impl<const W: usize, const P: usize> Kernel for Spread<'_, W, P> {
    type Out = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let l = self.lattice;
        let [n_slow, n_mid, _] = l.size;
        let (pitch, n) = (l.pitch(), l.points.len());
        let mids = if n_mid > 1 { W } else { 1 };
        let rows = &self.which.rows;
        for index in self.which.samples.iter().flat_map(|r| &l.order[r.clone()]) {
            let index = *index as usize;
            let point = &l.points[index];
            let [slow, mid, fast] = point.first.map(|v| v as usize);
            let is_ours = |j: usize| {
                let row = slow + j;
                rows.contains(&if row >= n_slow { row - n_slow } else { row })
            };
            if !(0..W).any(is_ours) {
                continue;
            }
            let mut value = Lanes::ZERO;
            for (lane, coil) in self.samples.chunks_exact(n).enumerate().take(LANES) {
                value.set(lane, coil[index]);
            }
            let ws: [f32; P] = weights::<FMA, P>(&l.windows[0], point.between[0]);
            let wm: [f32; P] = weights::<FMA, P>(&l.windows[1], point.between[1]);
            let wf: [f32; P] = weights::<FMA, P>(&l.windows[2], point.between[2]);
            for j in 0..W {
                let row = slow + j;
                let row = if row >= n_slow { row - n_slow } else { row };
                if !rows.contains(&row) {
                    continue;
                }
                for m in 0..mids {
                    let at = mid + m;
                    let at = if at >= n_mid { at - n_mid } else { at };
                    let start = ((row - rows.start) * n_mid + at) * pitch + fast;
                    let value = value.scaled(ws[j] * wm[m]);
                    for (cell, w) in self.slab[start..start + W].iter_mut().zip(&wf) {
                        *cell = cell.plus::<FMA>(*w, value);
                    }
                }
            }
        }
    }
}

struct Interpolate<'a, const W: usize, const P: usize> {
    lattice: &'a Lattice,
    points: &'a [Point],
    grid: &'a [Lanes],
    found: &'a mut [Lanes],
}

impl<const W: usize, const P: usize> Kernel for Interpolate<'_, W, P> {
    type Out = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let l = self.lattice;
        let [n_slow, n_mid, _] = l.size;
        let pitch = l.pitch();
        let mids = if n_mid > 1 { W } else { 1 };
        for (point, found) in self.points.iter().zip(self.found) {
            let [slow, mid, fast] = point.first.map(|v| v as usize);
            let ws: [f32; P] = weights::<FMA, P>(&l.windows[0], point.between[0]);
            let wm: [f32; P] = weights::<FMA, P>(&l.windows[1], point.between[1]);
            let wf: [f32; P] = weights::<FMA, P>(&l.windows[2], point.between[2]);
            let mut sum = Lanes::ZERO;
            for j in 0..W {
                let row = slow + j;
                let row = if row >= n_slow { row - n_slow } else { row };
                for m in 0..mids {
                    let at = mid + m;
                    let at = if at >= n_mid { at - n_mid } else { at };
                    let start = (row * n_mid + at) * pitch + fast;
                    let mut part = Lanes::ZERO;
                    for (cell, w) in self.grid[start..start + W].iter().zip(&wf) {
                        part = part.plus::<FMA>(*w, *cell);
                    }
                    sum = sum.plus::<FMA>(ws[j] * wm[m], part);
                }
            }
            *found = sum;
        }
    }
}
