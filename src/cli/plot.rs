//! Two pictures of a bench run: latency over time, and how it is distributed; as a page, as SVG or as PNG. Drawn by hand:
//! no script, no fonts of the system, the same on every machine.

use std::fmt::Write as _;
use std::path::Path;

use super::bench::{BenchReport, Timeline};
use crate::data::{Fault, FaultKind};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 56.0;
/// Room above a chart for its title, where there is no page around it.
const TITLE: f64 = 28.0;
/// Pixels of a PNG per unit.
const SCALE: f64 = 2.0;

/// What the ending of the output asks for.
#[derive(Clone, Copy)]
pub(super) enum Format {
    Html,
    Svg,
    Png,
}

impl Format {
    /// # Errors
    /// Another ending.
    pub(super) fn of(path: &Path) -> Result<Self, Fault> {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        match ending.to_ascii_lowercase().as_str() {
            "html" => Ok(Self::Html),
            "svg" => Ok(Self::Svg),
            "png" => Ok(Self::Png),
            _ => Err(Fault::new(
                FaultKind::Protocol,
                "cli",
                format!(
                    "--plot: found the ending {ending:?}, needed .png, .svg or .html: {}",
                    path.display()
                ),
            )),
        }
    }

    /// The file.
    ///
    /// # Errors
    /// The PNG cannot be encoded.
    pub(super) fn draw(self, report: &BenchReport, timeline: &Timeline) -> Result<Vec<u8>, Fault> {
        let charts = charts(timeline);
        match self {
            Self::Html => Ok(page(report, &charts).into_bytes()),
            Self::Svg => Ok(svg(&stacked(&charts), charts.len() as f64 * (TITLE + HEIGHT)).into()),
            Self::Png => png(&stacked(&charts), charts.len() as f64 * (TITLE + HEIGHT)),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Ink {
    Grid,
    Data,
    Text,
}

#[derive(Clone)]
enum Shape {
    Line(Ink, [f64; 2], [f64; 2]),
    Dot([f64; 2]),
    /// Words whose base line begins, is centred or ends (0, 0.5, 1) there.
    Words([f64; 2], f64, String),
}

type Chart = (&'static str, Vec<Shape>);

fn charts(timeline: &Timeline) -> [Chart; 2] {
    let mut latencies: Vec<f64> = timeline.iter().map(|t| t.1).collect();
    latencies.sort_by(f64::total_cmp);
    let n = latencies.len() as f64;
    let share = |(i, l): (usize, &f64)| (*l, 100.0 * (i + 1) as f64 / n);
    let cumulative: Timeline = latencies.iter().enumerate().map(share).collect();
    let y_name = "last readout sent to image read, ms";
    [
        (
            "Latency of each frame",
            chart(timeline, "time, s", y_name, false),
        ),
        (
            "Frames not later than",
            chart(&cumulative, "latency, ms", "frames, %", true),
        ),
    ]
}

fn chart(points: &Timeline, x_name: &str, y_name: &str, is_line: bool) -> Vec<Shape> {
    let range = |of: fn(&(f64, f64)) -> f64| {
        let max = points.iter().map(of).fold(0.0, f64::max);
        if max > 0.0 { max } else { 1.0 }
    };
    let (x_max, y_max) = (range(|p| p.0), range(|p| p.1));
    let x = |v: f64| MARGIN + v / x_max * (WIDTH - 2.0 * MARGIN);
    let y = |v: f64| HEIGHT - MARGIN - v / y_max * (HEIGHT - 1.5 * MARGIN);
    let at = |p: &(f64, f64)| [x(p.0), y(p.1)];
    let mut out = Vec::new();
    for i in 0..=5 {
        let part = f64::from(i) / 5.0;
        let (xv, yv) = (part * x_max, part * y_max);
        let ends = [[MARGIN, y(yv)], [WIDTH - MARGIN, y(yv)]];
        out.push(Shape::Line(Ink::Grid, ends[0], ends[1]));
        let (left, below) = ([MARGIN - 6.0, y(yv)], [x(xv), HEIGHT - MARGIN + 16.0]);
        out.push(Shape::Words(left, 1.0, number(yv, y_max)));
        out.push(Shape::Words(below, 0.5, number(xv, x_max)));
    }
    if is_line {
        let pairs = points.iter().zip(points.iter().skip(1));
        out.extend(pairs.map(|(a, b)| Shape::Line(Ink::Data, at(a), at(b))));
    } else {
        out.extend(points.iter().map(|p| Shape::Dot(at(p))));
    }
    let below = [WIDTH / 2.0, HEIGHT - 12.0];
    out.push(Shape::Words(below, 0.5, x_name.to_owned()));
    out.push(Shape::Words([MARGIN, 14.0], 0.0, y_name.to_owned()));
    out
}

/// With two digits behind the point, while there is room for them.
fn number(value: f64, max: f64) -> String {
    let digits = if max < 1000.0 { 2 } else { 0 };
    format!("{value:.digits$}")
}

/// One below the other, with their titles.
fn stacked(charts: &[Chart]) -> Vec<Shape> {
    let mut out = Vec::new();
    let mut top = 0.0;
    for (title, shapes) in charts {
        out.push(Shape::Words([MARGIN, top + 20.0], 0.0, (*title).to_owned()));
        top += TITLE;
        let down = |[x, y]: [f64; 2]| [x, y + top];
        out.extend(shapes.iter().cloned().map(|shape| match shape {
            Shape::Line(ink, from, to) => Shape::Line(ink, down(from), down(to)),
            Shape::Dot(at) => Shape::Dot(down(at)),
            Shape::Words(at, anchor, words) => Shape::Words(down(at), anchor, words),
        }));
        top += HEIGHT;
    }
    out
}

/// A page that needs nothing else.
fn page(report: &BenchReport, charts: &[Chart]) -> String {
    let json = serde_json::to_string_pretty(report).unwrap_or_default();
    let json = json.replace('&', "&amp;").replace('<', "&lt;");
    let pictures = charts
        .iter()
        .map(|(title, shapes)| format!("<h2>{title}</h2>\n{}", svg(shapes, HEIGHT)));
    format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>cauda bench</title>\n\
         <style>body{{font:14px sans-serif;margin:2em}}pre{{font-size:12px}}</style>\n\
         <h1>cauda bench</h1>\n{}<pre>{json}</pre>\n",
        pictures.collect::<String>()
    )
}

fn svg(shapes: &[Shape], height: f64) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n"
    );
    for shape in shapes {
        // Writing to a string cannot fail.
        let done = match shape {
            Shape::Line(ink, [x1, y1], [x2, y2]) => {
                let colour = if *ink == Ink::Grid { "#ddd" } else { "#06c" };
                writeln!(
                    out,
                    "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
                )
            }
            Shape::Dot([x, y]) => {
                writeln!(
                    out,
                    "<circle r=\"1.5\" fill=\"#06c\" cx=\"{x:.1}\" cy=\"{y:.1}\"/>"
                )
            }
            Shape::Words([x, y], anchor, words) => {
                let anchor = match anchor {
                    0.0 => "start",
                    1.0 => "end",
                    _ => "middle",
                };
                writeln!(
                    out,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
                )
            }
        };
        done.unwrap_or(());
    }
    out + "</svg>\n"
}

struct Canvas {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Canvas {
    /// A filled square around a place in units; what lies outside is not drawn.
    fn square(&mut self, [x, y]: [f64; 2], radius: f64, ink: Ink) {
        let colour: [u8; 3] = match ink {
            Ink::Grid => [0xdd; 3],
            Ink::Data => [0x00, 0x66, 0xcc],
            Ink::Text => [0x20; 3],
        };
        let span = |v: f64, end: usize| {
            let low = ((v - radius) * SCALE).round().max(0.0) as usize;
            low..(((v + radius) * SCALE).round().max(0.0) as usize).min(end)
        };
        for row in span(y, self.height) {
            for column in span(x, self.width) {
                let at = 3 * (row * self.width + column);
                if let Some(pixel) = self.rgb.get_mut(at..at + 3) {
                    pixel.copy_from_slice(&colour);
                }
            }
        }
    }

    fn draw(&mut self, shape: &Shape) {
        match shape {
            Shape::Dot(at) => self.square(*at, 1.5, Ink::Data),
            Shape::Line(ink, from, to) => {
                let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
                let steps = (SCALE * dx.abs().max(dy.abs())).ceil().max(1.0);
                for i in 0..=steps as usize {
                    let part = i as f64 / steps;
                    let at = [from[0] + part * dx, from[1] + part * dy];
                    self.square(at, 0.5, *ink);
                }
            }
            Shape::Words([x, y], anchor, words) => {
                let left = x - anchor * ADVANCE * words.chars().count() as f64;
                for (i, c) in words.chars().enumerate() {
                    for (column, bits) in glyph(c).into_iter().enumerate() {
                        for row in (0..8).filter(|row| bits >> row & 1 == 1) {
                            let x = left + i as f64 * ADVANCE + column as f64;
                            self.square([x + 0.5, y - 6.5 + f64::from(row)], 0.5, Ink::Text);
                        }
                    }
                }
            }
        }
    }
}

fn png(shapes: &[Shape], height: f64) -> Result<Vec<u8>, Fault> {
    let (width, height) = ((SCALE * WIDTH) as usize, (SCALE * height) as usize);
    let mut canvas = Canvas {
        width,
        height,
        rgb: vec![0xff; 3 * width * height],
    };
    for shape in shapes {
        canvas.draw(shape);
    }
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder
        .write_header()
        .and_then(|mut writer| {
            writer.write_image_data(&canvas.rgb)?;
            writer.finish()
        })
        .map_err(|e| Fault::new(FaultKind::Bug, "cli", format!("the plot: {e}")))?;
    Ok(out)
}

/// From one letter to the next, in units.
const ADVANCE: f64 = 6.0;

/// Columns of a letter of 5 by 7, the lowest bit on top.
fn glyph(c: char) -> [u8; 5] {
    const DIGITS: [[u8; 5]; 10] = [
        [0x3e, 0x51, 0x49, 0x45, 0x3e],
        [0x00, 0x42, 0x7f, 0x40, 0x00],
        [0x42, 0x61, 0x51, 0x49, 0x46],
        [0x21, 0x41, 0x45, 0x4b, 0x31],
        [0x18, 0x14, 0x12, 0x7f, 0x10],
        [0x27, 0x45, 0x45, 0x45, 0x39],
        [0x3c, 0x4a, 0x49, 0x49, 0x30],
        [0x01, 0x71, 0x09, 0x05, 0x03],
        [0x36, 0x49, 0x49, 0x49, 0x36],
        [0x06, 0x49, 0x49, 0x29, 0x1e],
    ];
    const LETTERS: [[u8; 5]; 26] = [
        [0x20, 0x54, 0x54, 0x54, 0x78],
        [0x7f, 0x48, 0x44, 0x44, 0x38],
        [0x38, 0x44, 0x44, 0x44, 0x20],
        [0x38, 0x44, 0x44, 0x48, 0x7f],
        [0x38, 0x54, 0x54, 0x54, 0x18],
        [0x08, 0x7e, 0x09, 0x01, 0x02],
        [0x0c, 0x52, 0x52, 0x52, 0x3e],
        [0x7f, 0x08, 0x04, 0x04, 0x78],
        [0x00, 0x44, 0x7d, 0x40, 0x00],
        [0x20, 0x40, 0x44, 0x3d, 0x00],
        [0x7f, 0x10, 0x28, 0x44, 0x00],
        [0x00, 0x41, 0x7f, 0x40, 0x00],
        [0x7c, 0x04, 0x18, 0x04, 0x78],
        [0x7c, 0x08, 0x04, 0x04, 0x78],
        [0x38, 0x44, 0x44, 0x44, 0x38],
        [0x7c, 0x14, 0x14, 0x14, 0x08],
        [0x08, 0x14, 0x14, 0x18, 0x7c],
        [0x7c, 0x08, 0x04, 0x04, 0x08],
        [0x48, 0x54, 0x54, 0x54, 0x20],
        [0x04, 0x3f, 0x44, 0x40, 0x20],
        [0x3c, 0x40, 0x40, 0x20, 0x7c],
        [0x1c, 0x20, 0x40, 0x20, 0x1c],
        [0x3c, 0x40, 0x30, 0x40, 0x3c],
        [0x44, 0x28, 0x10, 0x28, 0x44],
        [0x0c, 0x50, 0x50, 0x50, 0x3c],
        [0x44, 0x64, 0x54, 0x4c, 0x44],
    ];
    let among = |of: &[[u8; 5]], first: char| {
        let index = (c as usize).checked_sub(first as usize)?;
        of.get(index).copied()
    };
    match c {
        ' ' => Some([0; 5]),
        '%' => Some([0x23, 0x13, 0x08, 0x64, 0x62]),
        ',' => Some([0x00, 0x50, 0x30, 0x00, 0x00]),
        '.' => Some([0x00, 0x60, 0x60, 0x00, 0x00]),
        'F' => Some([0x7f, 0x09, 0x09, 0x09, 0x01]),
        'L' => Some([0x7f, 0x40, 0x40, 0x40, 0x40]),
        '0'..='9' => among(&DIGITS, '0'),
        _ => among(&LETTERS, 'a'),
    }
    .unwrap_or(BLANK)
}

/// Shown for a character without a letter.
const BLANK: [u8; 5] = [0x7f; 5];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_png_shows_every_frame_and_every_letter() {
        let timeline: Timeline = (0..50)
            .map(|i| (f64::from(i), 1.0 + f64::from(i % 7)))
            .collect();
        let charts = charts(&timeline);
        let shapes = stacked(&charts);
        for shape in &shapes {
            if let Shape::Words(_, _, words) = shape {
                assert!(words.chars().all(|c| glyph(c) != BLANK), "{words}");
            }
        }
        let height = charts.len() as f64 * (TITLE + HEIGHT);
        let bytes = png(&shapes, height).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
            .read_info()
            .unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut rgb).unwrap();
        assert_eq!((info.width, info.height), (1720, 1312));
        let mut n_dots = 0;
        for shape in &shapes {
            if let Shape::Dot([x, y]) = shape {
                let at = 3 * ((y * SCALE) as usize * info.width as usize + (x * SCALE) as usize);
                assert_eq!(rgb[at..at + 3], [0x00, 0x66, 0xcc]);
                n_dots += 1;
            }
        }
        assert_eq!(n_dots, 50);
        assert_eq!(svg(&shapes, height).matches("<circle").count(), 50);
        let dark = rgb.chunks_exact(3).filter(|p| p == &[0x20; 3]).count();
        assert!(dark > 5_000, "{dark} pixels of text");
    }
}
