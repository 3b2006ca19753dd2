//! Between image and grid: transforms of eight coils side by side that skip what is known to be zero or not asked for.
//!
//! Every stage reads columns and writes rows, so that tasks write apart: the axes come out turned, the grid is
//! `[kx, ky, kz]` with frequencies `0..size` in natural order.

use std::sync::Arc;

use num_complex::Complex32;
use rayon::prelude::*;

use crate::num::lanes::{LANES, LaneFft, Lanes, gather_rows, scatter_rows};

/// Columns that a task transforms: what is read together is whole cache lines of neighbours.
const COLUMNS: usize = 4;

/// One axis: `n` voxels, `size` frequencies.
#[derive(Debug)]
pub(super) struct Axis {
    pub(super) n: usize,
    pub(super) size: usize,
    fft: Arc<LaneFft>,
    places: Vec<usize>,
    /// Factor of every voxel.
    pub(super) factors: Vec<f32>,
}

impl Axis {
    pub(super) fn new(n: usize, size: usize, factors: Vec<f32>) -> Self {
        let fft = LaneFft::plan(size);
        let places = fft.places();
        Self {
            n,
            size,
            fft,
            places,
            factors,
        }
    }

    /// Where a voxel stands among `size`: the one at `n/2` first.
    #[inline]
    fn at(&self, x: usize) -> usize {
        let c = self.n / 2;
        if x >= c { x - c } else { x + self.size - c }
    }

    fn unused(&self) -> std::ops::Range<usize> {
        let c = self.n / 2;
        self.n - c..self.size - c
    }

    /// `[outer, n, inner]` to rows `[outer inner, pitch]` of frequencies, the first ones again behind the last.
    fn up(&self, from: &[Lanes], inner: usize, to: &mut [Lanes], pitch: usize) {
        let (n, size) = (self.n, self.size);
        to.par_chunks_mut(COLUMNS * pitch)
            .enumerate()
            .for_each_init(
                || vec![Lanes::ZERO; COLUMNS * size],
                |buffer, (task, rows)| {
                    let starts = starts(task * COLUMNS, inner, n);
                    for (column, _) in buffer.chunks_exact_mut(size).zip(rows.chunks(pitch)) {
                        column[self.unused()].fill(Lanes::ZERO);
                    }
                    let count = rows.len() / pitch;
                    for x in 0..n {
                        let at = self.at(x);
                        for (c, start) in starts.iter().enumerate().take(count) {
                            buffer[c * size + at] = from[start + x * inner];
                        }
                    }
                    for (row, column) in rows.chunks_exact_mut(pitch).zip(buffer.chunks_mut(size)) {
                        self.fft.forward(column);
                        for (to, place) in row.iter_mut().zip(&self.places) {
                            *to = column[*place];
                        }
                        row.copy_within(..pitch - size, size);
                    }
                },
            );
    }

    /// `[outer, size, inner]` to rows `[outer inner, n]` of voxels: the transpose of [`Axis::up`] without its pitch.
    fn down(&self, from: &[Lanes], inner: usize, to: &mut [Lanes]) {
        to.par_chunks_mut(COLUMNS * self.n)
            .enumerate()
            .for_each_init(
                || vec![Lanes::ZERO; COLUMNS * self.size],
                |buffer, (task, rows)| {
                    self.columns(from, inner, task * COLUMNS, rows.len() / self.n, buffer);
                    for (row, column) in rows.chunks_exact_mut(self.n).zip(buffer.chunks(self.size))
                    {
                        self.voxels(column, row);
                    }
                },
            );
    }

    /// Reads columns and transforms them back.
    fn columns(
        &self,
        from: &[Lanes],
        inner: usize,
        first: usize,
        count: usize,
        buffer: &mut [Lanes],
    ) {
        let starts = starts(first, inner, self.size);
        for (q, place) in self.places.iter().enumerate() {
            for (c, start) in starts.iter().enumerate().take(count) {
                buffer[c * self.size + place] = from[start + q * inner];
            }
        }
        for column in buffer.chunks_exact_mut(self.size).take(count) {
            self.fft.inverse(column);
        }
    }

    fn voxels(&self, column: &[Lanes], row: &mut [Lanes]) {
        for (x, to) in row.iter_mut().enumerate() {
            *to = column[self.at(x)];
        }
    }

    /// One row of frequencies to voxels, on this thread.
    pub(super) fn row_down(&self, row: &[Lanes], buffer: &mut [Lanes], to: &mut [Lanes]) {
        for (v, place) in row.iter().zip(&self.places) {
            buffer[*place] = *v;
        }
        self.fft.inverse(buffer);
        self.voxels(buffer, to);
    }
}

/// Where neighbouring columns of `[outer, n, inner]` begin.
fn starts(first: usize, inner: usize, n: usize) -> [usize; COLUMNS] {
    std::array::from_fn(|c| {
        let r = first + c;
        r / inner * n * inner + r % inner
    })
}

/// The axes of an image, x first.
#[derive(Debug)]
pub(super) struct Axes(pub(super) Vec<Axis>);

impl Axes {
    pub(super) fn voxels(&self) -> usize {
        self.0.iter().map(|a| a.n).product()
    }

    /// Factor of each row of voxels: that of its y and z.
    fn of_rows(&self) -> Vec<f32> {
        let ys = &self.0[1].factors;
        match self.0.get(2) {
            Some(z) => z
                .factors
                .iter()
                .flat_map(|z| ys.iter().map(move |y| y * z))
                .collect(),
            None => ys.clone(),
        }
    }

    /// Elements that the larger and the smaller working array need; rows of the grid have length `pitch`.
    pub(super) fn scratch(&self, pitch: usize) -> [usize; 2] {
        let (x, y) = (&self.0[0], &self.0[1]);
        match self.0.get(2) {
            Some(z) => [
                x.size * y.size.max(y.n) * pitch.max(z.n),
                x.size * y.size * z.n,
            ],
            None => [x.size * pitch, x.size * y.n],
        }
    }

    /// Up to eight images `[coil, z, y, x]` to the grid, rows of length `pitch`, in `grid`.
    pub(super) fn up(
        &self,
        images: &[Complex32],
        grid: &mut [Lanes],
        other: &mut [Lanes],
        pitch: usize,
    ) {
        let (x, y) = (&self.0[0], &self.0[1]);
        let n_rows = self.voxels() / x.n;
        match self.0.get(2) {
            None => {
                let first = &mut other[..n_rows * x.size];
                self.first_up(images, first);
                y.up(first, x.size, &mut grid[..x.size * pitch], pitch);
            }
            Some(z) => {
                let first = &mut grid[..n_rows * x.size];
                self.first_up(images, first);
                let second = &mut other[..z.n * x.size * y.size];
                y.up(first, x.size, second, y.size);
                let inner = x.size * y.size;
                z.up(second, inner, &mut grid[..inner * pitch], pitch);
            }
        }
    }

    fn first_up(&self, images: &[Complex32], to: &mut [Lanes]) {
        let (x, voxels) = (&self.0[0], self.voxels());
        let of_rows = self.of_rows();
        to.par_chunks_mut(COLUMNS * x.size)
            .enumerate()
            .for_each_init(
                || {
                    (
                        vec![Complex32::ZERO; LANES * x.n],
                        vec![Lanes::ZERO; x.size],
                    )
                },
                |(rows, column), (task, to)| {
                    for (c, to) in to.chunks_exact_mut(x.size).enumerate() {
                        let r = task * COLUMNS + c;
                        for (row, image) in
                            rows.chunks_exact_mut(x.n).zip(images.chunks_exact(voxels))
                        {
                            row.copy_from_slice(&image[r * x.n..(r + 1) * x.n]);
                        }
                        column[x.unused()].fill(Lanes::ZERO);
                        gather_rows(rows, x.n, |i| x.at(i), column);
                        for (i, factor) in x.factors.iter().enumerate() {
                            let v = &mut column[x.at(i)];
                            *v = v.scaled(factor * of_rows[r]);
                        }
                        x.fft.forward(column);
                        for (to, place) in to.iter_mut().zip(&x.places) {
                            *to = column[*place];
                        }
                    }
                },
            );
    }

    /// The fast axis of the whole grid, without a pitch, to voxels: what precedes [`Axes::down`].
    pub(super) fn first_down(&self, grid: &[Lanes], to: &mut [Lanes]) {
        if let Some(axis) = self.0.last() {
            axis.down(grid, 1, to);
        }
    }

    /// `[kx, y]` or `[kx, ky, z]` in `from` to images `[coil, z, y, x]`; `other` is overwritten.
    pub(super) fn down(&self, from: &[Lanes], other: &mut [Lanes], images: &mut [Complex32]) {
        let (x, y) = (&self.0[0], &self.0[1]);
        match self.0.get(2) {
            None => self.last_down(&from[..x.size * y.n], images),
            Some(z) => {
                let second = &mut other[..x.size * z.n * y.n];
                y.down(&from[..x.size * y.size * z.n], z.n, second);
                self.last_down(second, images);
            }
        }
    }

    fn last_down(&self, from: &[Lanes], images: &mut [Complex32]) {
        let (x, voxels) = (&self.0[0], self.voxels());
        let (of_rows, n_rows) = (self.of_rows(), voxels / x.n);
        let mut tasks: Vec<Vec<&mut [Complex32]>> =
            (0..n_rows.div_ceil(COLUMNS)).map(|_| Vec::new()).collect();
        for image in images.chunks_exact_mut(voxels) {
            for (task, rows) in tasks.iter_mut().zip(image.chunks_mut(COLUMNS * x.n)) {
                task.push(rows);
            }
        }
        tasks.into_par_iter().enumerate().for_each_init(
            || {
                (
                    vec![Complex32::ZERO; LANES * x.n],
                    vec![Lanes::ZERO; COLUMNS * x.size],
                )
            },
            |(rows, buffer), (task, mut coils)| {
                let first = task * COLUMNS;
                let count = (n_rows - first).min(COLUMNS);
                x.columns(from, n_rows, first, count, buffer);
                for (c, column) in buffer.chunks_exact_mut(x.size).take(count).enumerate() {
                    for (i, factor) in x.factors.iter().enumerate() {
                        let v = &mut column[x.at(i)];
                        *v = v.scaled(factor * of_rows[first + c]);
                    }
                    let rows = &mut rows[..coils.len() * x.n];
                    scatter_rows(column, x.n, |i| x.at(i), 1.0, rows);
                    for (coil, row) in coils.iter_mut().zip(rows.chunks_exact(x.n)) {
                        coil[c * x.n..(c + 1) * x.n].copy_from_slice(row);
                    }
                }
            },
        );
    }
}
