//! PNG contact sheet: every slice of a series as a tile, turned and windowed as a DICOM viewer would show it.

use std::io::Write;

use super::{HandoffError, Quantity, orient::Display, quantity, stack::Stack, volume::gather};
use crate::data::Note;

/// Largest sheet in pixels. Above it only the first frame is shown, and a note says so.
const MAX_PIXELS: usize = 64 << 20;

/// A picture ready to be encoded.
pub(super) struct Sheet {
    width: usize,
    height: usize,
    is_rgb: bool,
    pixels: Vec<u8>,
    /// Values shown black and white; `None` for the cyclic colours of phase.
    pub(super) window: Option<[f32; 2]>,
    /// Tiles on it.
    pub(super) n_tiles: usize,
    /// Of a synthetic image: written over the top, and in the file's texts.
    words: Option<[String; 2]>,
}

/// Lays out a stack: slices in the order of the stack, left to right, then down; frames one after the other.
///
/// Voxels that are not square are repeated along the coarser axis by linear interpolation, so that a pixel of the
/// sheet is as wide as high. Grey: black and white are the percentiles of all shown values. Phase: hue, red at 0,
/// cyan at ±π, so that a wrap is no edge.
pub(super) fn sheet(
    stack: &Stack<'_>,
    quantity: Quantity,
    percentiles: [f32; 2],
    columns: usize,
    notes: &mut Vec<Note>,
) -> Result<Sheet, HandoffError> {
    let mut values = gather(stack, quantity)?.values.into_real();
    let [nx, ny, _] = stack.slices[0].matrix;
    let display = Display::of(&stack.slices[0]);
    let plane = display.plane(&stack.slices[0], 0);
    let [row_mm, column_mm] = plane.pixel_spacing;
    let pixel_mm = row_mm.min(column_mm);
    let is_square = (row_mm - column_mm).abs() < 0.01 * pixel_mm;
    let (tile_rows, tile_columns) = if is_square {
        (plane.rows, plane.columns)
    } else {
        (
            ((plane.rows as f64 * row_mm / pixel_mm).round() as usize).max(1),
            ((plane.columns as f64 * column_mm / pixel_mm).round() as usize).max(1),
        )
    };
    let tile = tile_rows * tile_columns;
    let mut n_tiles = stack.frames.len() * stack.n_z();
    if n_tiles * tile > MAX_PIXELS && stack.frames.len() > 1 {
        n_tiles = stack.n_z();
        values.truncate(n_tiles * nx * ny);
        notes.push(Note::new(
            "sheet_first_frame",
            format!(
                "{} frames do not fit on one sheet: it shows the first",
                stack.frames.len()
            ),
        ));
    }
    if n_tiles * tile > MAX_PIXELS {
        let n = (MAX_PIXELS / tile).max(1);
        notes.push(Note::new(
            "sheet_cut",
            format!("{n_tiles} slices do not fit on one sheet: it shows the first {n}"),
        ));
        n_tiles = n;
        values.truncate(n_tiles * nx * ny);
    }
    let columns = if columns > 0 {
        columns.min(n_tiles)
    } else {
        let square = (n_tiles as f64 * tile_rows as f64 / tile_columns as f64).sqrt();
        (square.ceil() as usize).clamp(1, n_tiles)
    };
    let rows = n_tiles.div_ceil(columns);
    let is_rgb = quantity == Quantity::Phase;
    let window = (!is_rgb).then(|| quantity::window(&mut values.clone(), percentiles));
    let depth = if is_rgb { 3 } else { 1 };
    let words = super::synthetic::of_stack(stack).map(|s| {
        [
            s.kind.title().to_owned(),
            format!("{}. Research use.", s.sentence()),
        ]
    });
    let band = if words.is_some() { BAND } else { 0 };
    let (width, height) = (columns * tile_columns, rows * tile_rows + band);
    let mut pixels = vec![0_u8; width * height * depth];
    if let Some([title, _]) = &words {
        write_over(title, width, depth, &mut pixels);
    }
    for (i, slice) in values.chunks_exact(nx * ny).enumerate() {
        let turned = display.apply(slice, nx, ny);
        let (x0, y0) = (i % columns * tile_columns, band + i / columns * tile_rows);
        for row in 0..tile_rows {
            for column in 0..tile_columns {
                let at = ((y0 + row) * width + x0 + column) * depth;
                if let Some([low, high]) = window {
                    let value = sample(
                        &turned,
                        &plane_size(&plane),
                        [row, column],
                        [tile_rows, tile_columns],
                    );
                    let grey = (value - low) / (high - low) * 255.0;
                    pixels[at] = grey.clamp(0.0, 255.0).round() as u8;
                } else {
                    // Phase is not interpolated: the mean of +π and −π is not 0.
                    let r = row * plane.rows / tile_rows;
                    let c = column * plane.columns / tile_columns;
                    pixels[at..at + 3].copy_from_slice(&hue(turned[r * plane.columns + c]));
                }
            }
        }
    }
    Ok(Sheet {
        width,
        height,
        is_rgb,
        pixels,
        window,
        n_tiles,
        words,
    })
}

/// Rows above a sheet of synthetic images.
const BAND: usize = 11;

/// White letters of 5 by 7 on the black band; what does not fit on a narrow sheet stands in the file's texts.
fn write_over(title: &str, width: usize, depth: usize, pixels: &mut [u8]) {
    for (i, c) in title.chars().enumerate() {
        for (column, bits) in glyph(c).into_iter().enumerate() {
            let x = 2 + 6 * i + column;
            for y in (0..7).filter(|y| bits >> y & 1 == 1 && x < width) {
                let at = ((2 + y) * width + x) * depth;
                pixels[at..at + depth].fill(255);
            }
        }
    }
}

/// Columns of a letter, the lowest bit on top; those of the titles of synthetic images.
fn glyph(c: char) -> [u8; 5] {
    match c {
        'S' => [0x46, 0x49, 0x49, 0x49, 0x31],
        'Y' => [0x07, 0x08, 0x70, 0x08, 0x07],
        'N' => [0x7f, 0x04, 0x08, 0x10, 0x7f],
        'T' => [0x01, 0x01, 0x7f, 0x01, 0x01],
        'H' => [0x7f, 0x08, 0x08, 0x08, 0x7f],
        'E' => [0x7f, 0x49, 0x49, 0x49, 0x41],
        'I' => [0x00, 0x41, 0x7f, 0x41, 0x00],
        'C' => [0x3e, 0x41, 0x41, 0x41, 0x22],
        'R' => [0x7f, 0x09, 0x19, 0x29, 0x46],
        'F' => [0x7f, 0x09, 0x09, 0x09, 0x01],
        '2' => [0x42, 0x61, 0x51, 0x49, 0x46],
        _ => [0; 5],
    }
}

fn plane_size(plane: &super::orient::Plane) -> [usize; 2] {
    [plane.rows, plane.columns]
}

/// Linear interpolation at the centre of a tile's pixel.
fn sample(values: &[f32], size: &[usize; 2], at: [usize; 2], tile: [usize; 2]) -> f32 {
    if *size == tile {
        return values[at[0] * size[1] + at[1]];
    }
    let place = |i: usize| {
        let p = ((at[i] as f64 + 0.5) * size[i] as f64 / tile[i] as f64 - 0.5)
            .clamp(0.0, (size[i] - 1) as f64);
        let low = p.floor() as usize;
        (low, (low + 1).min(size[i] - 1), (p - low as f64) as f32)
    };
    let (r0, r1, fr) = place(0);
    let (c0, c1, fc) = place(1);
    let v = |r: usize, c: usize| values[r * size[1] + c];
    let upper = v(r0, c0) * (1.0 - fc) + v(r0, c1) * fc;
    let lower = v(r1, c0) * (1.0 - fc) + v(r1, c1) * fc;
    upper * (1.0 - fr) + lower * fr
}

/// Full-brightness hue of an angle: red at 0, cyan at ±π.
fn hue(phase: f32) -> [u8; 3] {
    let turn = (phase / std::f32::consts::TAU).rem_euclid(1.0) * 6.0;
    [0.0_f32, 4.0, 2.0].map(|shift| {
        let t = (turn + shift).rem_euclid(6.0);
        let level = ((t - 3.0).abs() - 1.0).clamp(0.0, 1.0);
        (level * 255.0).round() as u8
    })
}

impl Sheet {
    /// Encodes the sheet.
    pub(super) fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let size = |n: usize| {
            u32::try_from(n).map_err(|_| std::io::Error::other("sheet larger than PNG allows"))
        };
        let mut encoder = png::Encoder::new(out, size(self.width)?, size(self.height)?);
        encoder.set_color(if self.is_rgb {
            png::ColorType::Rgb
        } else {
            png::ColorType::Grayscale
        });
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        if let Some([title, words]) = &self.words {
            for (key, text) in [("Title", title), ("Description", words), ("Warning", words)] {
                encoder
                    .add_text_chunk(key.to_owned(), text.clone())
                    .map_err(into_io)?;
            }
        }
        let mut writer = encoder.write_header().map_err(into_io)?;
        writer.write_image_data(&self.pixels).map_err(into_io)?;
        writer.finish().map_err(into_io)
    }
}

/// Keeps the system's own answer, so that a full disk is still seen as one.
fn into_io(error: png::EncodingError) -> std::io::Error {
    match error {
        png::EncodingError::IoError(error) => error,
        other => std::io::Error::other(other),
    }
}
