//! Receive arrays made of wire: sensitivities and noise from the laws of Biot and Savart, and the g-factor they allow.
//!
//! A coil is a closed polygon of straight wires in the patient's frame (LPS, mm). What it receives from a spin is the
//! left-turning part of the field that a unit current would make there (reciprocity); what noise it receives is the
//! power that this current would lose in the body, `R_ij = ∫ σ E_i·E_j`, with the electric field of a changing vector
//! potential, `E = −∂A/∂t`, and the part that its own copper and amplifier add.
//!
//! # Source
//! Roemer et al., Magn Reson Med 16:192-225 (1990), doi:10.1002/mrm.1910160203; Hoult and Richards, J Magn Reson
//! 24:71-85 (1976), doi:10.1016/0022-2364(76)90233-X (reciprocity); Pruessmann et al., Magn Reson Med 42:952-962 (1999)
//! (g-factor). We leave out the electric potential of charges on the body's surface.

use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

use crate::num::linalg;

type Point = [f64; 3];

/// Radius within which a wire is a tube, mm: keeps the field finite.
const WIRE_MM: f64 = 4.0;
/// Distance of the points between which sensitivities are interpolated, mm.
const GRID_MM: f64 = 6.0;

fn sub(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

fn dot(a: Point, b: Point) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// Corners of a closed loop of wire, LPS, mm.
#[derive(Clone, Debug, PartialEq)]
pub struct Loop(pub Vec<[f64; 3]>);

impl Loop {
    fn wires(&self) -> impl Iterator<Item = (Point, Point)> + '_ {
        let next = self.0.iter().cycle().skip(1);
        self.0.iter().zip(next).map(|(a, b)| (*a, *b))
    }

    /// Magnetic field of 1 A, µT (`µ0/4π` is 0.1 µT·m/A, so 100 µT·mm/A).
    ///
    /// # Source
    /// A straight wire from `a` to `b` in closed form: `B = µ0 I/4π · (r1 × r2)(|r1| + |r2|) / (|r1||r2|(|r1||r2| +
    /// r1·r2))` with `r = p − a`, `p − b`.
    pub fn field_ut(&self, p: [f64; 3]) -> [f64; 3] {
        let mut out = [0.0; 3];
        for (a, b) in self.wires() {
            let (r1, r2) = (sub(p, a), sub(p, b));
            // The tube: as if the point were a little further off.
            let n1 = (dot(r1, r1) + WIRE_MM * WIRE_MM).sqrt();
            let n2 = (dot(r2, r2) + WIRE_MM * WIRE_MM).sqrt();
            let c = [
                r1[1] * r2[2] - r1[2] * r2[1],
                r1[2] * r2[0] - r1[0] * r2[2],
                r1[0] * r2[1] - r1[1] * r2[0],
            ];
            let f = 100.0 * (n1 + n2) / (n1 * n2 * (n1 * n2 + dot(r1, r2)).max(1e-9));
            for i in 0..3 {
                out[i] += f * c[i];
            }
        }
        out
    }

    /// Vector potential of 1 A, in units of `µ0/4π`.
    fn potential(&self, p: Point) -> Point {
        let mut out = [0.0; 3];
        for (a, b) in self.wires() {
            let along = sub(b, a);
            let length = dot(along, along).sqrt();
            let (r1, r2) = (sub(p, a), sub(p, b));
            let n1 = (dot(r1, r1) + WIRE_MM * WIRE_MM).sqrt();
            let n2 = (dot(r2, r2) + WIRE_MM * WIRE_MM).sqrt();
            let f = ((n1 + n2 + length) / (n1 + n2 - length).max(1e-9)).ln() / length;
            for i in 0..3 {
                out[i] += f * along[i];
            }
        }
        out
    }

    /// Receive sensitivity: `Bx − i By` about the axis of the magnet (the patient's head-foot axis), µT/A.
    pub fn sensitivity(&self, p: [f64; 3]) -> Complex64 {
        let b = self.field_ut(p);
        Complex64::new(b[0], -b[1])
    }
}

/// Loops and the noise that belongs to them.
#[derive(Clone, Debug)]
pub struct CoilArray {
    /// One per coil.
    pub loops: Vec<Loop>,
    /// Noise covariance `[coil, coil]`; scaled so that the sensitivities below have unit signal-to-noise ratio at the
    /// centre of the examination when combined at their best.
    pub covariance: Vec<Complex64>,
}

/// Where on the patient an array lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In the table, under the back: columns from left to right, rows from head to feet.
    Table,
    /// Around the neck: half of the loops behind, half in front.
    Neck,
}

impl CoilArray {
    /// Builds an array of `n_coils` loops round `centre_mm` and finds its noise in a body.
    ///
    /// `front_mm` and `back_mm` are the patient's skin there (LPS: the back has the larger value), `is_body(p)` says
    /// where current may flow.
    pub fn new(
        placement: Placement,
        n_coils: usize,
        centre_mm: [f64; 3],
        (front_mm, back_mm): (f64, f64),
        is_body: impl Fn([f64; 3]) -> bool + Sync,
        extent_mm: [[f64; 2]; 3],
    ) -> Self {
        let loops = match placement {
            Placement::Table => table(n_coils, centre_mm, back_mm + 20.0),
            Placement::Neck => {
                let behind = n_coils.div_ceil(2);
                let mut loops = sheet(behind, 2, centre_mm, back_mm + 15.0, [95.0, 95.0], 70.0);
                loops.extend(sheet(
                    n_coils - behind,
                    2,
                    centre_mm,
                    front_mm - 15.0,
                    [95.0, 95.0],
                    70.0,
                ));
                loops
            }
        };
        let mut covariance = losses(&loops, is_body, extent_mm);
        let n = loops.len();
        // Copper and amplifier: a third of the noise of the mean loop.
        let mean = (0..n).map(|i| covariance[i * n + i].re).sum::<f64>() / n as f64;
        let own = if mean > 0.0 { 0.5 * mean } else { 1.0 };
        for i in 0..n {
            covariance[i * n + i] += own;
        }
        let mut array = Self { loops, covariance };
        let best = array.snr(centre_mm);
        if best > 0.0 {
            for v in &mut array.covariance {
                *v *= best * best;
            }
        }
        array
    }

    /// Signal-to-noise ratio of a unit signal at `p`, combined at its best: `√(sᴴ Ψ⁻¹ s)`.
    pub fn snr(&self, p: [f64; 3]) -> f64 {
        let n = self.loops.len();
        let s: Vec<Complex64> = self.loops.iter().map(|l| l.sensitivity(p)).collect();
        let Ok(l) = linalg::cholesky(&self.covariance, n) else {
            return 0.0;
        };
        let mut x = s.clone();
        linalg::cholesky_solve(&l, n, &mut x);
        s.iter()
            .zip(&x)
            .map(|(a, b)| (a.conj() * b).re)
            .sum::<f64>()
            .max(0.0)
            .sqrt()
    }

    /// Sensitivities `[coil, y, x]` in a plane: pixel `(y, x)` is at `origin + x·dx + y·dy`.
    ///
    /// Exact every few millimetres and interpolated by cubics between.
    pub(super) fn maps(&self, plane: &Raster) -> Vec<Vec<Complex32>> {
        let [ny, nx] = plane.n;
        let norm = |v: Point| dot(v, v).sqrt();
        // Three more knots than intervals, one before the first pixel.
        let knots = |n: usize, step: f64| {
            let per = (step / GRID_MM).min(1.0);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small
            let count = ((n as f64 - 1.0) * per).ceil() as usize + 4;
            (per, count)
        };
        let ((px, kx), (py, ky)) = (knots(nx, norm(plane.dx)), knots(ny, norm(plane.dy)));
        let taps = |n: usize, per: f64| -> Vec<(usize, [f32; 4])> {
            (0..n)
                .map(|i| {
                    let at = i as f64 * per;
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                    // storage precision; small
                    let (first, t) = (at.floor() as usize, (at - at.floor()) as f32);
                    // Lagrange through four knots.
                    let w = [
                        -t * (t - 1.0) * (t - 2.0) / 6.0,
                        (t + 1.0) * (t - 1.0) * (t - 2.0) / 2.0,
                        -(t + 1.0) * t * (t - 2.0) / 2.0,
                        (t + 1.0) * t * (t - 1.0) / 6.0,
                    ];
                    (first, w)
                })
                .collect()
        };
        let (tx, ty) = (taps(nx, px), taps(ny, py));
        self.loops
            .par_iter()
            .map(|l| {
                #[allow(clippy::cast_possible_truncation)] // storage precision
                let grid: Vec<Complex32> = (0..ky * kx)
                    .map(|i| {
                        let (v, u) = ((i / kx) as f64 - 1.0, (i % kx) as f64 - 1.0);
                        let p = plane.at(v / py, u / px);
                        let s = l.sensitivity(p);
                        Complex32::new(s.re as f32, s.im as f32)
                    })
                    .collect();
                let mut out = Vec::with_capacity(ny * nx);
                let mut row = vec![Complex32::ZERO; kx];
                for (y, wy) in &ty {
                    for (k, r) in row.iter_mut().enumerate() {
                        *r = (0..4).map(|j| grid[(y + j) * kx + k] * wy[j]).sum();
                    }
                    out.extend(
                        tx.iter()
                            .map(|(x, wx)| (0..4).map(|j| row[x + j] * wx[j]).sum::<Complex32>()),
                    );
                }
                out
            })
            .collect()
    }

    /// Noise amplification of a regular pattern at the points of a plane: `[y, x]`, 1 and above; 0 where `is_inside`
    /// says that there is nothing.
    ///
    /// `r` is the acceleration along the plane's y and `shift_mm` the distance of the pixels that fold together
    /// (field of view over acceleration).
    ///
    /// # Source
    /// Pruessmann, equation 23: `g = √([SᴴΨ⁻¹S]⁻¹_ρρ [SᴴΨ⁻¹S]_ρρ)`.
    pub fn gfactor(
        &self,
        plane: &Raster,
        r: usize,
        shift_mm: f64,
        is_inside: impl Fn([f64; 3]) -> bool + Sync,
    ) -> Vec<f32> {
        let step = dot(plane.dy, plane.dy).sqrt();
        let r = i32::try_from(r.max(1)).unwrap_or(i32::MAX);
        let folds: Vec<Point> = (1 - r..r)
            .filter(|k| *k != 0)
            .map(|k| plane.dy.map(|v| v / step * shift_mm * f64::from(k)))
            .collect();
        self.gfactor_of(plane, &folds, is_inside)
    }

    /// As `gfactor`, with the displacements of all places that fold together.
    pub(super) fn gfactor_of(
        &self,
        plane: &Raster,
        folds: &[[f64; 3]],
        is_inside: impl Fn([f64; 3]) -> bool + Sync,
    ) -> Vec<f32> {
        let n = self.loops.len();
        let Ok(l) = linalg::cholesky(&self.covariance, n) else {
            return Vec::new();
        };
        (0..plane.n[0] * plane.n[1])
            .into_par_iter()
            .map(|i| {
                let p = plane.at((i / plane.n[1]) as f64, (i % plane.n[1]) as f64);
                if !is_inside(p) {
                    return 0.0;
                }
                // Every place that folds onto this one and holds matter, this one first.
                let mut places = vec![p];
                places.extend(
                    folds
                        .iter()
                        .map(|fold| -> Point { std::array::from_fn(|a| p[a] + fold[a]) })
                        .filter(|q| is_inside(*q)),
                );
                let s: Vec<Vec<Complex64>> = places
                    .iter()
                    .map(|q| self.loops.iter().map(|l| l.sensitivity(*q)).collect())
                    .collect();
                let m = s.len();
                let mut gram = vec![Complex64::ZERO; m * m];
                for b in 0..m {
                    let mut x = s[b].clone();
                    linalg::cholesky_solve(&l, n, &mut x);
                    for a in 0..m {
                        gram[a * m + b] = s[a].iter().zip(&x).map(|(u, v)| u.conj() * v).sum();
                    }
                }
                let Ok(inverse) = linalg::inverse_hermitian(&gram, m) else {
                    return f32::INFINITY;
                };
                #[allow(clippy::cast_possible_truncation)] // storage precision
                let g = (inverse[0].re * gram[0].re).max(1.0).sqrt() as f32;
                g
            })
            .collect()
    }
}

/// Pixels of a plane: `(y, x)` lies at `origin + x·dx + y·dy`, mm.
#[derive(Clone, Copy, Debug)]
pub struct Raster {
    /// Position of pixel (0, 0).
    pub origin: [f64; 3],
    /// Step to the next column.
    pub dx: [f64; 3],
    /// Step to the next row.
    pub dy: [f64; 3],
    /// Rows and columns.
    pub n: [usize; 2],
}

impl Raster {
    pub(super) fn at(&self, y: f64, x: f64) -> Point {
        std::array::from_fn(|i| self.origin[i] + x * self.dx[i] + y * self.dy[i])
    }
}

/// Columns and rows of the table: two columns up to eight coils, else four over a wide back.
fn table(n_coils: usize, centre: Point, y: f64) -> Vec<Loop> {
    let columns = match n_coils {
        1 => 1,
        2..=8 => 2,
        9..=15 => 3,
        _ => 4,
    };
    sheet(
        n_coils,
        columns,
        centre,
        y,
        [90.0, 130.0],
        75.0 + 2.0 * columns as f64,
    )
}

/// Loops in a plane behind or before the body; neighbours overlap by about a tenth, which is what decouples them.
fn sheet(
    n_coils: usize,
    columns: usize,
    centre: Point,
    y: f64,
    [width, height]: [f64; 2],
    pitch: f64,
) -> Vec<Loop> {
    let rows = n_coils.div_ceil(columns.max(1));
    (0..n_coils)
        .map(|i| {
            let (row, column) = (i / columns, i % columns);
            let in_row = columns.min(n_coils - row * columns);
            let x = centre[0] + (column as f64 - (in_row as f64 - 1.0) / 2.0) * pitch;
            let z = centre[2] + ((rows as f64 - 1.0) / 2.0 - row as f64) * height * 0.9;
            // An octagon: a rectangle with its corners cut.
            let (w, h, cut) = (width / 2.0, height / 2.0, width / 5.0);
            Loop(
                [
                    [w, h - cut],
                    [w - cut, h],
                    [cut - w, h],
                    [-w, h - cut],
                    [-w, cut - h],
                    [cut - w, -h],
                    [w - cut, -h],
                    [w, cut - h],
                ]
                .map(|[u, v]| [x + u, y, z + v])
                .to_vec(),
            )
        })
        .collect()
}

/// Power that unit currents lose in the body together, `[coil, coil]`, on a raster of 12 mm.
fn losses(
    loops: &[Loop],
    is_body: impl Fn(Point) -> bool + Sync,
    extent: [[f64; 2]; 3],
) -> Vec<Complex64> {
    const STEP_MM: f64 = 12.0;
    let n = loops.len();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small
    let counts = extent.map(|[a, b]| ((b - a).max(0.0) / STEP_MM).ceil() as usize);
    // Planes are summed apart and then in order: the same bits for any number of threads.
    let planes: Vec<Vec<f64>> = (0..counts[2])
        .into_par_iter()
        .map(|k| {
            let mut sum = vec![0.0; n * n];
            for j in 0..counts[1] {
                for i in 0..counts[0] {
                    let at = [i, j, k];
                    let p: Point =
                        std::array::from_fn(|a| extent[a][0] + (at[a] as f64 + 0.5) * STEP_MM);
                    if !is_body(p) {
                        continue;
                    }
                    let a: Vec<Point> = loops.iter().map(|l| l.potential(p)).collect();
                    for c in 0..n {
                        for d in 0..=c {
                            sum[c * n + d] += dot(a[c], a[d]);
                        }
                    }
                }
            }
            sum
        })
        .collect();
    let mut out = vec![Complex64::ZERO; n * n];
    for c in 0..n {
        for d in 0..=c {
            let sum: f64 = planes.iter().map(|p| p[c * n + d]).sum();
            out[c * n + d] = sum.into();
            out[d * n + c] = sum.into();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    fn circle(radius: f64, sides: usize) -> Loop {
        Loop(
            (0..sides)
                .map(|i| {
                    let (s, c) = (TAU * i as f64 / sides as f64).sin_cos();
                    [radius * c, 0.0, radius * s]
                })
                .collect(),
        )
    }

    fn body(p: Point) -> bool {
        (p[0] / 160.0).powi(2) + (p[1] / 110.0).powi(2) <= 1.0
    }

    fn array(n: usize) -> CoilArray {
        let extent = [[-160.0, 160.0], [-110.0, 110.0], [-250.0, 250.0]];
        let skin = (-110.0, 110.0);
        CoilArray::new(Placement::Table, n, [0.0, 60.0, 0.0], skin, body, extent)
    }

    #[test]
    fn a_circle_on_its_axis_is_the_closed_form() {
        let radius = 50.0;
        let l = circle(radius, 256);
        for y in [30.0, 60.0, 150.0] {
            let b = l.field_ut([0.0, y, 0.0]);
            // µ0 I R² / 2 (R² + y²)^1.5, with µ0 = 400π µT·mm/A
            let want = 200.0 * std::f64::consts::PI * radius * radius
                / (radius * radius + y * y).powf(1.5);
            assert!((b[1].abs() / want - 1.0).abs() < 0.01, "{y} {b:?} {want}");
            assert!(b[0].abs() < 1e-3 * want && b[2].abs() < 1e-3 * want);
        }
    }

    #[test]
    fn the_field_is_the_curl_of_the_potential() {
        let l = sheet(1, 1, [3.0, 0.0, 5.0], 80.0, [90.0, 130.0], 75.0).remove(0);
        let (p, h) = ([20.0, 10.0, 40.0], 0.01);
        let d = |axis: usize, of: usize| {
            let (mut a, mut b) = (p, p);
            a[axis] += h;
            b[axis] -= h;
            (l.potential(a)[of] - l.potential(b)[of]) / (2.0 * h)
        };
        let curl = [d(1, 2) - d(2, 1), d(2, 0) - d(0, 2), d(0, 1) - d(1, 0)];
        let b = l.field_ut(p);
        for i in 0..3 {
            assert!(
                (curl[i] * 100.0 - b[i]).abs() < 0.01 * dot(b, b).sqrt(),
                "{curl:?} {b:?}"
            );
        }
    }

    #[test]
    fn near_loops_share_noise_and_far_ones_do_not() {
        let a = array(8);
        let rho = |i: usize, j: usize| {
            a.covariance[i * 8 + j].re
                / (a.covariance[i * 8 + i].re * a.covariance[j * 8 + j].re).sqrt()
        };
        assert!(rho(0, 2) > 0.02 && rho(0, 2) < 0.7, "{}", rho(0, 2));
        assert!(
            rho(0, 6).abs() < 0.5 * rho(0, 2),
            "{} {}",
            rho(0, 6),
            rho(0, 2)
        );
        assert!(linalg::cholesky(&a.covariance, 8).is_ok());
        assert!((a.snr([0.0, 60.0, 0.0]) - 1.0).abs() < 1e-9);
        // The back is loud, the belly faint.
        assert!(a.snr([0.0, 95.0, 0.0]) > 1.5 && a.snr([0.0, -80.0, 0.0]) < 0.5);
    }

    #[test]
    fn interpolated_maps_are_the_field() {
        let a = array(4);
        let raster = Raster {
            origin: [-40.0, -90.0, 100.0],
            dx: [0.9, 0.0, -0.1],
            dy: [0.0, 1.1, 0.0],
            n: [170, 91],
        };
        let maps = a.maps(&raster);
        for (y, x) in [(0, 0), (169, 90), (80, 33), (101, 7)] {
            let p = raster.at(y as f64, x as f64);
            for (c, l) in a.loops.iter().enumerate() {
                let want = l.sensitivity(p);
                let got = maps[c][y * 91 + x];
                let e = (Complex64::new(got.re.into(), got.im.into()) - want).norm();
                assert!(e < 2e-3 * want.norm().max(0.2), "{y} {x} {got} {want}");
            }
        }
    }

    #[test]
    fn g_is_one_without_folding_and_grows_with_it() {
        let a = array(12);
        let raster = Raster {
            origin: [-100.0, -100.0, 0.0],
            dx: [20.0, 0.0, 0.0],
            dy: [0.0, 20.0, 0.0],
            n: [11, 11],
        };
        let mean = |r: usize| {
            let g = a.gfactor(&raster, r, 240.0 / r as f64, body);
            let inside: Vec<f32> = g.into_iter().filter(|g| *g > 0.0).collect();
            assert!(inside.iter().all(|g| *g >= 1.0 && g.is_finite()));
            inside.iter().sum::<f32>() / inside.len() as f32
        };
        assert!((mean(1) - 1.0).abs() < 1e-6);
        assert!(mean(2) > 1.0 && mean(3) > mean(2));
    }

    #[test]
    fn g_is_the_noise_of_the_unfolded_pixel() {
        // The unfolding matrix written out for two places: U = (SᴴS)⁻¹Sᴴ after whitening, noise UUᴴ.
        let a = array(6);
        let raster = Raster {
            origin: [10.0, -30.0, 20.0],
            dx: [1.0, 0.0, 0.0],
            dy: [0.0, 1.0, 0.0],
            n: [1, 1],
        };
        let inside = |p: Point| p[1] < 100.0 && p[1] > -80.0;
        let g = f64::from(a.gfactor(&raster, 2, 100.0, inside)[0]);
        let l = linalg::cholesky(&a.covariance, 6).unwrap();
        let white = |p: Point| -> Vec<Complex64> {
            let mut x: Vec<Complex64> = a.loops.iter().map(|c| c.sensitivity(p)).collect();
            for i in 0..6 {
                let done: Complex64 = (0..i).map(|k| l[i * 6 + k] * x[k]).sum();
                x[i] = (x[i] - done) / l[i * 6 + i].re;
            }
            x
        };
        let (s, t) = (white([10.0, -30.0, 20.0]), white([10.0, 70.0, 20.0]));
        let inner = |a: &[Complex64], b: &[Complex64]| -> Complex64 {
            a.iter().zip(b).map(|(x, y)| x.conj() * y).sum()
        };
        let (ss, tt, st) = (inner(&s, &s).re, inner(&t, &t).re, inner(&s, &t));
        let want = (1.0 / (1.0 - st.norm_sqr() / (ss * tt))).sqrt();
        assert!((g - want).abs() < 1e-5 * want, "{g} {want}");
        assert!(g > 1.001);
    }
}
