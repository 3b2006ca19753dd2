//! One page with two pictures of a bench run: latency over time, and how it is distributed. SVG by hand, no script.

use std::fmt::Write as _;

use super::bench::{BenchReport, Timeline};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 56.0;

/// A page that needs nothing else.
pub(super) fn page(report: &BenchReport, timeline: &Timeline) -> String {
    let json = serde_json::to_string_pretty(report).unwrap_or_default();
    let json = json.replace('&', "&amp;").replace('<', "&lt;");
    let mut latencies: Vec<f64> = timeline.iter().map(|t| t.1).collect();
    latencies.sort_by(f64::total_cmp);
    let cumulative: Timeline = latencies
        .iter()
        .enumerate()
        .map(|(i, l)| (*l, 100.0 * (i + 1) as f64 / latencies.len() as f64))
        .collect();
    format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>cauda bench</title>\n\
         <style>body{{font:14px sans-serif;margin:2em}}pre{{font-size:12px}}</style>\n\
         <h1>cauda bench</h1>\n<h2>Latency of each frame</h2>\n{}<h2>Frames not later than</h2>\n{}<pre>{json}</pre>\n",
        chart(
            timeline,
            "time, s",
            "last readout sent to image read, ms",
            false
        ),
        chart(&cumulative, "latency, ms", "frames, %", true),
    )
}

fn chart(points: &Timeline, x_name: &str, y_name: &str, is_line: bool) -> String {
    let range = |of: fn(&(f64, f64)) -> f64| {
        let max = points.iter().map(of).fold(0.0, f64::max);
        if max > 0.0 { max } else { 1.0 }
    };
    let (x_max, y_max) = (range(|p| p.0), range(|p| p.1));
    let x = |v: f64| MARGIN + v / x_max * (WIDTH - 2.0 * MARGIN);
    let y = |v: f64| HEIGHT - MARGIN - v / y_max * (HEIGHT - 1.5 * MARGIN);
    let mut out = format!(
        "<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n"
    );
    // Writing to a string cannot fail.
    let mut add = |text: std::fmt::Arguments<'_>| out.write_fmt(text).unwrap_or(());
    for i in 0..=5 {
        let part = f64::from(i) / 5.0;
        let (xv, yv) = (part * x_max, part * y_max);
        add(format_args!(
            "<line x1=\"{MARGIN}\" x2=\"{}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{2}\" y=\"{1:.1}\" text-anchor=\"end\">{yv:.2}</text>\
             <text x=\"{3:.1}\" y=\"{4}\" text-anchor=\"middle\">{xv:.2}</text>\n",
            WIDTH - MARGIN,
            y(yv),
            MARGIN - 6.0,
            x(xv),
            HEIGHT - MARGIN + 16.0
        ));
    }
    if is_line {
        let path: Vec<String> = points
            .iter()
            .map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1)))
            .collect();
        add(format_args!(
            "<polyline fill=\"none\" stroke=\"#06c\" points=\"{}\"/>\n",
            path.join(" ")
        ));
    } else {
        for p in points {
            add(format_args!(
                "<circle r=\"1.5\" fill=\"#06c\" cx=\"{:.1}\" cy=\"{:.1}\"/>\n",
                x(p.0),
                y(p.1)
            ));
        }
    }
    add(format_args!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{x_name}</text>\
         <text x=\"{MARGIN}\" y=\"14\">{y_name}</text>\n</svg>\n",
        WIDTH / 2.0,
        HEIGHT - 12.0
    ));
    out
}
