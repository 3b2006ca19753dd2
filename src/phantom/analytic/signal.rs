//! Noise-free k-space of every coil, exact, and the images that belong to it.

use std::collections::BTreeMap;
use std::f64::consts::PI;

use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

use super::Simulate;
use super::coils::{Coil, N_TERMS, ORDER, ring};
use super::shapes::{Ellipsoid, ellipsoids};
use crate::phantom::PhantomError;
use crate::phantom::readout::to_c32;

/// Encoded grid and coils of a scan.
pub(crate) struct Scene {
    /// Encoded matrix x, y, z.
    pub(crate) n: [usize; 3],
    /// Reconstructed over encoded extent, per axis.
    ratio: [f64; 3],
    /// Shift of one coil harmonic is `1/fine` of an encoded step.
    fine: [i64; 3],
    period: [f64; 3],
    pub(crate) coils: Vec<Coil>,
    is_3d: bool,
}

impl Scene {
    pub(crate) fn new(sim: &Simulate) -> Self {
        let n = sim.encoded_matrix();
        let ratio = [0, 1, 2].map(|i| sim.matrix[i] as f64 / n[i] as f64);
        // The period must exceed the field of view, else a coil would see its own repeat.
        let fine = ratio.map(|r| if r <= 1.0 / 1.5 { 1 } else { 2 });
        let period = [0, 1, 2].map(|i| fine[i] as f64 / ratio[i]);
        let is_3d = sim.matrix[2] > 1;
        Self {
            n,
            ratio,
            fine,
            period,
            coils: ring(sim.n_coils, sim.coil_sharpness, period, is_3d),
            is_3d,
        }
    }

    fn harmonics(&self, axis: usize) -> std::ops::RangeInclusive<i64> {
        if axis == 2 && !self.is_3d {
            0..=0
        } else {
            -ORDER..=ORDER
        }
    }

    /// Cycles per reconstructed field of view at a fine index.
    fn k(&self, axis: usize, u: i64) -> f64 {
        u as f64 / self.fine[axis] as f64 * self.ratio[axis]
    }

    /// Factor between the continuous transform and samples of a unitary discrete one.
    fn scale(&self) -> f64 {
        let axes = if self.is_3d { 3 } else { 2 };
        (0..axes)
            .map(|i| (self.n[i] as f64).sqrt() * self.ratio[i])
            .product()
    }

    /// The object's part that one slice shows.
    pub(crate) fn object(&self, sim: &Simulate, slice: usize, contrast: usize) -> Vec<Ellipsoid> {
        let all = ellipsoids(sim.object, contrast);
        let height = (slice as f64 - (sim.n_slices as f64 - 1.0) / 2.0) / sim.n_slices as f64 * 0.8;
        if self.is_3d {
            // Slabs of one stack show the same object from a little further on.
            return all
                .into_iter()
                .map(|e| Ellipsoid {
                    centre: [e.centre[0], e.centre[1], e.centre[2] - height],
                    ..e
                })
                .collect();
        }
        all.iter().filter_map(|e| e.slice(height)).collect()
    }

    fn transform(&self, object: &[Ellipsoid], k: [f64; 3]) -> Complex64 {
        object
            .iter()
            .map(|e| {
                if self.is_3d {
                    e.transform3(k[0], k[1], k[2])
                } else {
                    e.transform2(k[0], k[1])
                }
            })
            .sum()
    }

    /// K-space of the lines, `[line, coil, x]` over the encoded readout.
    pub(crate) fn kspace(
        &self,
        object: &[Ellipsoid],
        coils: &[Coil],
        lines: &[(usize, usize)],
        gain: f64,
    ) -> Vec<Complex32> {
        let [nx, ny, nz] = self.n;
        let u0 = |axis: usize, i: usize, n: usize| (i as i64 - (n / 2) as i64) * self.fine[axis];
        // Object's transform on every row that some line and harmonic need.
        let mut rows: BTreeMap<(i64, i64), usize> = BTreeMap::new();
        for &(pe1, pe2) in lines {
            for q in self.harmonics(2) {
                for p in self.harmonics(1) {
                    rows.entry((u0(2, pe2, nz) - q, u0(1, pe1, ny) - p))
                        .or_insert(0);
                }
            }
        }
        for (i, v) in rows.values_mut().enumerate() {
            *v = i;
        }
        let first_x = u0(0, 0, nx) - ORDER;
        let width = ((nx as i64 - 1) * self.fine[0] + 2 * ORDER + 1).unsigned_abs() as usize;
        let keys: Vec<(i64, i64)> = rows.keys().copied().collect();
        let scale = self.scale() * gain;
        let table: Vec<Vec<Complex64>> = keys
            .par_iter()
            .map(|&(uz, uy)| {
                let (ky, kz) = (self.k(1, uy), self.k(2, uz));
                (0..width)
                    .map(|i| {
                        self.transform(object, [self.k(0, first_x + i as i64), ky, kz]) * scale
                    })
                    .collect()
            })
            .collect();

        let n_coils = coils.len();
        let mut out = vec![Complex32::ZERO; lines.len() * n_coils * nx];
        out.par_chunks_mut(n_coils * nx)
            .zip(lines)
            .for_each(|(block, &(pe1, pe2))| {
                let mut row = vec![Complex64::ZERO; width];
                for (coil, dst) in coils.iter().zip(block.chunks_exact_mut(nx)) {
                    row.fill(Complex64::ZERO);
                    for q in self.harmonics(2) {
                        for p in self.harmonics(1) {
                            let c = coil.terms[1][term(p)]
                                * if self.is_3d {
                                    coil.terms[2][term(q)]
                                } else {
                                    Complex64::ONE
                                };
                            let at = (u0(2, pe2, nz) - q, u0(1, pe1, ny) - p);
                            let Some(&i) = rows.get(&at) else { continue };
                            for (r, t) in row.iter_mut().zip(&table[i]) {
                                *r += c * t;
                            }
                        }
                    }
                    let step = self.fine[0].unsigned_abs() as usize;
                    for (i, v) in dst.iter_mut().enumerate() {
                        // fine index of sample i minus harmonic p, counted from first_x: i·step + ORDER - p
                        let window = &row[i * step..i * step + N_TERMS];
                        let mut s = Complex64::ZERO;
                        for (w, c) in window.iter().rev().zip(&coil.terms[0]) {
                            s += w * c;
                        }
                        *v = to_c32(s);
                    }
                }
            });
        out
    }
}

fn term(p: i64) -> usize {
    (p + ORDER).unsigned_abs() as usize
}

/// What a perfect scan of one slice would show.
///
/// # Shapes
/// `[z, y, x]` of the reconstructed matrix; `csm` and `coil_images` with `[coil]` in front.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// Extents x, y, z.
    pub matrix: [usize; 3],
    /// The object, as far as the encoded k-space shows it.
    pub object: Vec<Complex32>,
    /// Coil sensitivities at the voxels.
    pub csm: Vec<Complex32>,
    /// Noise-free image of each coil from all lines.
    pub coil_images: Vec<Complex32>,
    /// `Σ conj(s) m / Σ |s|²` of the above: the best image of the fully sampled scan.
    pub combined: Vec<Complex32>,
}

/// True images of one slice and contrast (first set, first cardiac phase), in receiver counts.
///
/// # Errors
/// [`PhantomError`].
pub fn truth(sim: &Simulate, slice: usize, contrast: usize) -> Result<Truth, PhantomError> {
    sim.check()?;
    let scene = Scene::new(sim);
    let object = scene.object(sim, slice, contrast);
    let coil_images = scene.images(sim, &object, &scene.coils);
    let uniform = ring(1, 0.0, scene.period, false);
    // The first coil of a ring has a constant phase, which the object's own image must not have.
    let phase = uniform[0].at([0.0; 3], scene.period);
    let mut object_image = scene.images(sim, &object, &uniform);
    object_image.iter_mut().for_each(|v| *v /= to_c32(phase));

    let [mx, my, mz] = sim.matrix;
    let plane = mx * my * mz;
    let mut csm = vec![Complex32::ZERO; scene.coils.len() * plane];
    csm.par_chunks_mut(plane)
        .zip(&scene.coils)
        .for_each(|(map, coil)| {
            let at = |i: usize, n: usize| (i as f64 - (n / 2) as f64) / n as f64;
            for z in 0..mz {
                for y in 0..my {
                    for x in 0..mx {
                        let r = [
                            at(x, mx),
                            at(y, my),
                            if scene.is_3d { at(z, mz) } else { 0.0 },
                        ];
                        map[(z * my + y) * mx + x] = to_c32(coil.at(r, scene.period));
                    }
                }
            }
        });
    let combined = (0..plane)
        .map(|i| {
            let mut s = Complex32::ZERO;
            let mut w = 0.0;
            for c in 0..scene.coils.len() {
                s += csm[c * plane + i].conj() * coil_images[c * plane + i];
                w += csm[c * plane + i].norm_sqr();
            }
            if w > 0.0 { s / w } else { Complex32::ZERO }
        })
        .collect();
    Ok(Truth {
        matrix: sim.matrix,
        object: object_image,
        csm,
        coil_images,
        combined,
    })
}

impl Scene {
    /// Images of all encoded lines, by direct sums, cropped to the reconstructed matrix: `[coil, z, y, x]`.
    fn images(&self, sim: &Simulate, object: &[Ellipsoid], coils: &[Coil]) -> Vec<Complex32> {
        let [nx, ny, nz] = self.n;
        let [mx, my, mz] = sim.matrix;
        let lines: Vec<(usize, usize)> = (0..nz)
            .flat_map(|pe2| (0..ny).map(move |pe1| (pe1, pe2)))
            .collect();
        let k = self.kspace(object, coils, &lines, sim.gain);
        let basis = [basis(nx, mx), basis(ny, my), basis(nz, mz)];
        let n_coils = coils.len();
        let mut out = vec![Complex32::ZERO; n_coils * mz * my * mx];
        out.par_chunks_mut(mz * my * mx)
            .enumerate()
            .for_each(|(c, image)| {
                // x, then y, then z; each a plain matrix product in f64
                let mut a = vec![Complex64::ZERO; nz * ny * mx];
                for (l, row) in a.chunks_exact_mut(mx).enumerate() {
                    let src = &k[(l * n_coils + c) * nx..(l * n_coils + c + 1) * nx];
                    for (i, v) in src.iter().enumerate() {
                        let v = Complex64::new(v.re.into(), v.im.into());
                        for (r, b) in row.iter_mut().zip(&basis[0][i * mx..(i + 1) * mx]) {
                            *r += v * b;
                        }
                    }
                }
                let mut b = vec![Complex64::ZERO; nz * my * mx];
                for z in 0..nz {
                    for i in 0..ny {
                        for y in 0..my {
                            let w = basis[1][i * my + y];
                            let src = &a[(z * ny + i) * mx..(z * ny + i + 1) * mx];
                            let dst = &mut b[(z * my + y) * mx..(z * my + y + 1) * mx];
                            for (d, s) in dst.iter_mut().zip(src) {
                                *d += w * s;
                            }
                        }
                    }
                }
                let mut sum = vec![Complex64::ZERO; mz * my * mx];
                for i in 0..nz {
                    for z in 0..mz {
                        let w = basis[2][i * mz + z];
                        for (d, s) in sum[z * my * mx..(z + 1) * my * mx]
                            .iter_mut()
                            .zip(&b[i * my * mx..(i + 1) * my * mx])
                        {
                            *d += w * s;
                        }
                    }
                }
                for (d, s) in image.iter_mut().zip(&sum) {
                    *d = to_c32(*s);
                }
            });
        out
    }
}

/// `exp(2πi k x / n) / √n` for all `n` k and the central `m` x, `[k, x]`.
fn basis(n: usize, m: usize) -> Vec<Complex64> {
    (0..n)
        .flat_map(|i| {
            (0..m).map(move |j| {
                let k = i as f64 - (n / 2) as f64;
                let x = j as f64 - (m / 2) as f64;
                Complex64::from_polar(1.0 / (n as f64).sqrt(), 2.0 * PI * k * x / n as f64)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phantom::{Object, Simulate};

    fn small(matrix: [usize; 3]) -> Simulate {
        Simulate {
            matrix,
            n_coils: 3,
            object: Object::Body,
            ..Simulate::default()
        }
    }

    // The image of a coil is its sensitivity times the object: away from edges, where ringing is small.
    #[test]
    fn coil_images_are_sensitivity_times_object() {
        for sim in [
            small([48, 40, 1]),
            Simulate {
                oversampling: 1.0,
                phase_oversampling: [0.5, 0.0],
                ..small([33, 40, 1])
            },
            Simulate {
                oversampling: 1.25,
                ..small([20, 24, 10])
            },
        ] {
            let t = truth(&sim, 0, 0).unwrap();
            let n = t.object.len();
            let (mut error, mut energy) = (0.0f64, 0.0f64);
            for c in 0..3 {
                for i in 0..n {
                    let want = t.csm[c * n + i] * t.object[i];
                    error += f64::from((t.coil_images[c * n + i] - want).norm_sqr());
                    energy += f64::from(want.norm_sqr());
                }
            }
            let nrmse = (error / energy).sqrt();
            // Ringing at ten partitions is coarser than at forty lines.
            let tolerance = if sim.matrix[2] > 1 { 0.15 } else { 0.05 };
            assert!(nrmse < tolerance, "{:?}: {nrmse}", sim.matrix);
            // wrong twin: conjugated maps
            let mut twin = 0.0f64;
            for c in 0..3 {
                for i in 0..n {
                    let want = t.csm[c * n + i].conj() * t.object[i];
                    twin += f64::from((t.coil_images[c * n + i] - want).norm_sqr());
                }
            }
            assert!((twin / energy).sqrt() > 0.2);
        }
    }

    #[test]
    fn the_object_has_its_intensities() {
        let sim = Simulate {
            object: Object::SheppLogan,
            n_coils: 1,
            ..small([128, 128, 1])
        };
        let t = truth(&sim, 0, 0).unwrap();
        let at = |x: usize, y: usize| t.object[y * 128 + x];
        // By hand: 1 - 0.8 between the ventricles, + 0.1 in the ellipse above them; air outside.
        assert!(
            (at(64, 60) - Complex32::new(0.2, 0.0)).norm() < 0.03,
            "{}",
            at(64, 60)
        );
        assert!(
            (at(64, 78) - Complex32::new(0.3, 0.0)).norm() < 0.03,
            "{}",
            at(64, 78)
        );
        assert!(at(3, 3).norm() < 0.02);
        // left ventricle (x > 0) is darker
        assert!(at(64 + 14, 64).norm() < 0.06, "{}", at(78, 64));
    }
}
