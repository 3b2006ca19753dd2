//! Large planes in overlapping pieces: a network sees no more than it was made for, and memory stays bounded.

use std::ops::Range;

/// One piece of a plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// What the network sees, rows and columns of the plane; beyond its edges the plane is mirrored.
    pub seen: [Range<isize>; 2],
    /// What of its answer is kept, rows and columns of the plane; the pieces of all tiles cover it once.
    pub kept: [Range<usize>; 2],
}

/// How a plane is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiles {
    plane: [usize; 2],
    /// The pieces, row by row.
    pub tiles: Vec<Tile>,
}

impl Tiles {
    /// Cuts a plane of `plane` rows and columns into tiles of at most `most` rows and columns, multiples of `multiple`, whose
    /// answers are kept up to `margin` from their edges inside of the plane. A plane that fits is one tile.
    pub fn cut(plane: [usize; 2], most: usize, multiple: usize, margin: usize) -> Self {
        let multiple = multiple.max(1);
        let axes = plane.map(|n| pieces(n, most.max(2 * margin + multiple), multiple, margin));
        let tiles = axes[0].iter().flat_map(|y| {
            axes[1].iter().map(|x| Tile {
                seen: [y.0.clone(), x.0.clone()],
                kept: [y.1.clone(), x.1.clone()],
            })
        });
        Self {
            plane,
            tiles: tiles.collect(),
        }
    }

    /// What a tile sees of a plane, appended to `to`; beyond the edges the plane's mirror image.
    pub fn read(&self, tile: &Tile, plane: &[f32], to: &mut Vec<f32>) {
        let [ny, nx] = self.plane;
        for y in tile.seen[0].clone() {
            let row = &plane[mirrored(y, ny) * nx..][..nx];
            let Range { start, end } = tile.seen[1].clone();
            let inside =
                start.max(0).cast_unsigned()..end.clamp(0, nx.cast_signed()).cast_unsigned();
            to.extend((start..0).map(|x| row[mirrored(x, nx)]));
            to.extend_from_slice(&row[inside]);
            to.extend((nx.cast_signed()..end).map(|x| row[mirrored(x, nx)]));
        }
    }

    /// Puts what is kept of a tile's answer into a plane.
    pub fn write(&self, tile: &Tile, answer: &[f32], plane: &mut [f32]) {
        let nx = self.plane[1];
        let wide = tile.size()[1];
        for y in tile.kept[0].clone() {
            let from = y.wrapping_add_signed(-tile.seen[0].start) * wide
                + tile.kept[1].start.wrapping_add_signed(-tile.seen[1].start);
            plane[y * nx..][tile.kept[1].clone()]
                .copy_from_slice(&answer[from..][..tile.kept[1].len()]);
        }
    }
}

impl Tile {
    /// Rows and columns that the network sees.
    pub fn size(&self) -> [usize; 2] {
        [0, 1].map(|a| self.seen[a].end.abs_diff(self.seen[a].start))
    }
}

/// What is seen and what is kept along one axis.
fn pieces(
    n: usize,
    most: usize,
    multiple: usize,
    margin: usize,
) -> Vec<(Range<isize>, Range<usize>)> {
    let whole = n.div_ceil(multiple) * multiple;
    let most = (most / multiple * multiple).max(multiple);
    let signed = |v: usize| v.cast_signed();
    if whole <= most {
        return vec![(0..signed(whole), 0..n)];
    }
    let step = most - 2 * margin;
    let count = (n - 2 * margin).div_ceil(step);
    // The last one ends where the plane ends, as far as a multiple allows.
    let last = whole - most;
    let starts: Vec<usize> = (0..count).map(|i| (i * step).min(last)).collect();
    let keep = |i: usize| {
        let begin = if i == 0 {
            0
        } else {
            starts[i - 1] + most - margin
        };
        let end = if i + 1 == count {
            n
        } else {
            starts[i] + most - margin
        };
        begin..end
    };
    (0..count)
        .map(|i| (signed(starts[i])..signed(starts[i] + most), keep(i)))
        .collect()
}

/// Index in a plane of `n` that is mirrored about its first and last value.
fn mirrored(i: isize, n: usize) -> usize {
    let period = 2 * n.max(2) - 2;
    let i = i.rem_euclid(period.cast_signed()).cast_unsigned();
    if i < n { i } else { (period - i).min(n - 1) }
}
