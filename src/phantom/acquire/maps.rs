//! The patient on a grid: tissue maps, labels, contrasts by the signal equations alone, and a CT.

use rayon::prelude::*;

use super::kspace::{B1_NODES, Play, b1_at, node_of};
use super::scanned::{Sample, Scanner, Slice};
use super::{AcquireParams, Matter, MotionParams, signals};
use crate::phantom::noise::Rng;
use crate::phantom::{PhantomError, Structure, Tissue, Voxel};
use crate::sequence::{Kind, Order, SequenceParams, Train};

/// A block of voxels: index `n/2` of each axis lies at the centre. All in the order z, y, x.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// Voxels.
    pub matrix: [usize; 3],
    /// Their size, mm.
    pub voxel_mm: [f64; 3],
    /// Place of voxel `n/2`, LPS, mm.
    pub centre_mm: [f64; 3],
    /// Directions.
    pub axes: [[f64; 3]; 3],
}

impl Block {
    fn at(&self, index: [f64; 3]) -> [f64; 3] {
        std::array::from_fn(|i| {
            (0..3).fold(self.centre_mm[i], |p, a| {
                p + (index[a] - (self.matrix[a] / 2) as f64) * self.voxel_mm[a] * self.axes[a][i]
            })
        })
    }

    fn len(&self) -> usize {
        self.matrix.iter().product()
    }
}

/// What fills the voxels. All maps are `[z, y, x]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TissueMaps {
    /// [`crate::phantom::Structure`] of all places sampled in the voxel, where they agree, else at its middle.
    pub label: Vec<u16>,
    /// Level, in the same way; 1 is the first, 0 none.
    pub level: Vec<u16>,
    /// Lesion, in the same way.
    pub lesion: Vec<u16>,
    /// Mean proton density, CSF = 1.
    pub pd: Vec<f32>,
    /// Fat's part of it.
    pub fat_fraction: Vec<f32>,
    /// Water's mean T1, ms.
    pub t1_ms: Vec<f32>,
    /// Water's mean T2, ms.
    pub t2_ms: Vec<f32>,
    /// Water's mean T2*, ms.
    pub t2star_ms: Vec<f32>,
    /// Mean CT number, HU.
    pub hu: Vec<f32>,
    /// Deviation of the field, ppm.
    pub field_ppm: Vec<f32>,
    /// Noise-free magnitude of each sequence's image, `[sequence][z, y, x]`.
    pub contrasts: Vec<Vec<f32>>,
}

/// Amplitudes of one sequence at the echo that fills the centre of k-space.
struct Tone {
    /// `[material · B1_NODES + node]`, and fat by node.
    water: Vec<f32>,
    fat: Vec<f32>,
    play: Play,
}

impl Tone {
    fn new<M: Matter + ?Sized>(body: &M, s: &SequenceParams) -> Result<Self, PhantomError> {
        let train = Train::plan(s)?;
        let echo = if s.kind == Kind::Gre {
            0
        } else {
            Order::plan(s)?.effective_echo
        };
        let still = AcquireParams {
            motion: MotionParams::none(),
            ..AcquireParams::default()
        };
        let play = signals::play(body, s, &still, &train, 1e-4);
        let tone = |b: &super::basis::Basis| -> Vec<f32> {
            b.shares
                .iter()
                .map(|shares| {
                    #[allow(clippy::cast_possible_truncation)] // storage precision
                    let v = shares
                        .iter()
                        .zip(&b.functions)
                        .map(|(s, f)| s * f[echo] as f32)
                        .sum();
                    v
                })
                .collect()
        };
        Ok(Self {
            water: tone(&play.contrasts[0].water),
            fat: tone(&play.contrasts[0].fat),
            play,
        })
    }
}

/// Fills a block. Every voxel is the mean of `n_samples` places in it; sequences are played at once, under a transmit
/// field of the unevenness `b1_spread` ([`AcquireParams::b1_spread`]).
///
/// # Errors
/// [`PhantomError`] for a sequence that cannot be played.
pub fn tissue_maps<M: Matter + ?Sized>(
    body: &M,
    block: &Block,
    (sequences, b1_spread): (&[SequenceParams], f64),
    n_samples: usize,
    seed: u64,
) -> Result<TissueMaps, PhantomError> {
    let tones: Vec<Tone> = sequences
        .iter()
        .map(|s| Tone::new(body, s))
        .collect::<Result<_, _>>()?;
    let [_, ny, nx] = block.matrix;
    let rows: Vec<TissueMaps> = (0..block.len() / nx.max(1))
        .into_par_iter()
        .map(|r| {
            let at = [r / ny, r % ny];
            let lattice = Lattice::Voxel(n_samples.max(1));
            row(body, block, (&tones, b1_spread), lattice, seed, at).0
        })
        .collect();
    Ok(joined(rows, block.len(), tones.len()))
}

/// As [`tissue_maps`] with four samples, and with contrasts as the sequences' scans have them (`scanned`). The block's
/// axes are the slice, phase and read directions of the sequences, its slices their matrix. Noise is not in it.
///
/// # Errors
/// [`PhantomError`] for a sequence that cannot be played, or whose matrix is not the block's.
pub fn scanned_maps<M: Matter + ?Sized>(
    body: &M,
    block: &Block,
    (sequences, b1_spread): (&[SequenceParams], f64),
    seed: u64,
) -> Result<TissueMaps, PhantomError> {
    let [nz, ny, nx] = block.matrix;
    let scanners: Vec<Scanner> = sequences
        .par_iter()
        .map(|s| Scanner::plan(body, s, [ny, nx]))
        .collect::<Result<_, _>>()?;
    let rows: Vec<(TissueMaps, Places)> = (0..nz * ny)
        .into_par_iter()
        .map(|r| {
            let at = [r / ny, r % ny];
            row(body, block, (&[], b1_spread), Lattice::Quarters, seed, at)
        })
        .collect();
    let (rows, places): (Vec<TissueMaps>, Vec<Places>) = rows.into_iter().unzip();
    let samples: Vec<Sample> = places.iter().flat_map(|p| &p.samples).copied().collect();
    let node: Vec<f32> = places.iter().flat_map(|p| &p.node).copied().collect();
    drop(places);
    let mut out = joined(rows, block.len(), 0);
    let n = ny * nx;
    let slices: Vec<(&Scanner, usize)> = scanners
        .iter()
        .flat_map(|s| (0..nz).map(move |z| (s, z)))
        .collect();
    let pictures: Vec<Vec<f32>> = slices
        .into_par_iter()
        .map(|(scanner, z)| {
            scanner.picture(&Slice {
                samples: &samples[4 * z * n..][..4 * n],
                field_ppm: &out.field_ppm[z * n..][..n],
                node: &node[z * n..][..n],
            })
        })
        .collect();
    out.contrasts = pictures.chunks(nz).map(<[_]>::concat).collect();
    Ok(out)
}

/// Rows one after the other.
fn joined(rows: Vec<TissueMaps>, n: usize, n_contrasts: usize) -> TissueMaps {
    let mut out = TissueMaps {
        contrasts: vec![Vec::with_capacity(n); n_contrasts],
        ..TissueMaps::default()
    };
    for r in rows {
        out.label.extend(r.label);
        out.level.extend(r.level);
        out.lesion.extend(r.lesion);
        out.pd.extend(r.pd);
        out.fat_fraction.extend(r.fat_fraction);
        out.t1_ms.extend(r.t1_ms);
        out.t2_ms.extend(r.t2_ms);
        out.t2star_ms.extend(r.t2star_ms);
        out.hu.extend(r.hu);
        out.field_ppm.extend(r.field_ppm);
        for (all, one) in out.contrasts.iter_mut().zip(r.contrasts) {
            all.extend(one);
        }
    }
    out
}

/// Places in a voxel that are sampled.
#[derive(Clone, Copy)]
enum Lattice {
    /// So many anywhere in it.
    Voxel(usize),
    /// One in each quarter of its face, at four depths.
    Quarters,
}

impl Lattice {
    fn n(self) -> usize {
        match self {
            Self::Voxel(n) => n,
            Self::Quarters => 4,
        }
    }

    /// Place `j` from the voxel's middle, in voxels, z, y, x; `first` in 0 to 1 is drawn for each voxel.
    fn place(self, j: usize, first: f64) -> [f64; 3] {
        match self {
            // Of rank one, another for every voxel.
            Self::Voxel(n) => {
                let part = |k: f64| (j as f64 * k / n as f64 + first * (1.0 + k)).fract() - 0.5;
                let (y, x) = ((n / 2).max(1) as f64 + 1.0, (n / 3).max(1) as f64);
                [part(1.0), part(y), part(x)]
            }
            // Within the quarters after Roberts' sequence of two dimensions.
            Self::Quarters => {
                let within = |turns: f64, step: f64| (first * turns + j as f64 * step).fract();
                [
                    (j as f64 * 0.25 + first * 2.0).fract() - 0.5,
                    0.5 * ((j / 2) as f64 + within(5.0, 0.754_877_666)) - 0.5,
                    0.5 * ((j % 2) as f64 + within(11.0, 0.569_840_291)) - 0.5,
                ]
            }
        }
    }
}

/// What the places of a row send: `[x][place]`; and the transmit field, `[x]`.
#[derive(Default)]
struct Places {
    samples: Vec<Sample>,
    node: Vec<f32>,
}

/// What is marked of a place: structure, level, lesion.
type Mark = (Structure, u8, u8);

fn mark(v: &Voxel) -> Mark {
    (v.structure, v.level, v.lesion)
}

#[allow(clippy::cast_possible_truncation)] // storage precision
fn row<M: Matter + ?Sized>(
    body: &M,
    block: &Block,
    (tones, b1_spread): (&[Tone], f64),
    lattice: Lattice,
    seed: u64,
    [z, y]: [usize; 2],
) -> (TissueMaps, Places) {
    let [_, ny, nx] = block.matrix;
    let materials = body.materials();
    let middle = body.centre_mm();
    let mut rng = Rng::new(seed ^ 0x006d_6170, (z * ny + y) as u64);
    let mut out = TissueMaps {
        contrasts: vec![vec![0.0; nx]; tones.len()],
        ..TissueMaps::default()
    };
    let mut places = Places::default();
    let mut sums = vec![0.0f32; tones.len()];
    for x in 0..nx {
        let centre = block.at([z as f64, y as f64, x as f64]);
        let field = body.field_ppm(centre.map(|v| v as f32));
        let b1 = b1_at(centre, middle, b1_spread) as f32;
        let node = node_of(b1);
        #[allow(clippy::cast_sign_loss)] // clamped
        let (low, t) = (node as usize, node.fract());
        sums.fill(0.0);
        let (mut pd, mut fat, mut hu) = (0.0, 0.0, 0.0);
        let mut times = [0.0f32; 3];
        let first = rng.uniform();
        places.node.push(node);
        let mut there: Option<Mark> = None;
        let mut is_one_thing = true;
        for j in 0..lattice.n() {
            let [dz, dy, dx] = lattice.place(j, first);
            let p = block.at([z as f64 + dz, y as f64 + dy, x as f64 + dx]);
            let v = body.at(p.map(|v| v as f32));
            hu += v.hu;
            is_one_thing &= *there.get_or_insert(mark(&v)) == mark(&v);
            let m = materials.get(usize::from(v.material));
            let Some(m) = m.filter(|_| v.pd > 0.0) else {
                places.samples.push(Sample::default());
                continue;
            };
            let (w, f) = (v.pd * (1.0 - v.fat_fraction), v.pd * v.fat_fraction);
            places.samples.push(Sample {
                water: w,
                fat: f,
                material: v.material,
            });
            pd += v.pd;
            fat += f;
            for (t, ms) in times
                .iter_mut()
                .zip([m.water_t1_ms, m.water_t2_ms, m.water_t2star_ms])
            {
                *t += w * ms;
            }
            let at = usize::from(v.material) * B1_NODES + low;
            for (sum, tone) in sums.iter_mut().zip(tones) {
                let mix = |of: &[f32], i: usize| match (of.get(i), of.get(i + 1)) {
                    (Some(a), Some(b)) => a + (b - a) * t,
                    _ => 0.0,
                };
                let flow = if m.tissue == Tissue::FlowingBlood {
                    tone.play.flow
                } else {
                    1.0
                };
                let [far, near, left] = tone.play.saturation.as_ref().map_or([1.0; 3], |s| {
                    s.at(field * tone.play.hz_per_ppm as f32, low, t)
                });
                let [a, b] = tone.fat_shares();
                *sum += flow
                    * (w * left * mix(&tone.water, at)
                        + f * (far * a + near * b) * mix(&tone.fat, low));
            }
        }
        // The middle is asked only where the places do not agree.
        let (structure, level, lesion) = match there {
            Some(mark) if is_one_thing => mark,
            _ => mark(&body.at(centre.map(|v| v as f32))),
        };
        out.label.push(structure as u16);
        out.level.push(match level {
            255 => 0,
            n => u16::from(n) + 1,
        });
        out.lesion.push(lesion.into());
        let n = lattice.n() as f32;
        let water = (pd - fat).max(1e-6);
        out.pd.push(pd / n);
        out.fat_fraction.push(if pd > 0.0 { fat / pd } else { 0.0 });
        out.t1_ms.push(times[0] / water);
        out.t2_ms.push(times[1] / water);
        out.t2star_ms.push(times[2] / water);
        out.hu.push(hu / n);
        out.field_ppm.push(field);
        for (c, s) in out.contrasts.iter_mut().zip(&sums) {
            c[x] = (s / n).abs();
        }
    }
    (out, places)
}

impl Tone {
    /// Parts of fat's signal from the peaks far from and near to water, in phase.
    fn fat_shares(&self) -> [f32; 2] {
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let sum = |p: &[(f64, f64)]| p.iter().map(|p| p.0).sum::<f64>() as f32;
        [sum(&self.play.peaks[0]), sum(&self.play.peaks[1])]
    }
}

/// Magnitudes with receiver noise of `noise_std` per component.
pub fn with_noise(image: &[f32], noise_std: f64, seed: u64, stream: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed ^ 0x006e_6f69_7365, stream);
    image
        .iter()
        .map(|v| {
            let n = rng.normal() * noise_std;
            #[allow(clippy::cast_possible_truncation)] // storage precision
            let v = ((f64::from(*v) + n.re).powi(2) + n.im * n.im).sqrt() as f32;
            v
        })
        .collect()
}

/// Noise of one component in an image of one average of the sequence, at the middle of the array, for a signal whose
/// fully relaxed fluid is 1; `snr` as in [`AcquireParams`].
pub fn noise_std(s: &SequenceParams, snr: f64) -> f64 {
    let [nx, ny, nz] = s.encoded_matrix();
    let volume: f64 = s.pixel_mm().iter().product();
    let lines =
        Order::plan(s).map_or((ny * nz) as f64, |o| o.n_measured as f64) * s.averages as f64;
    let sampling_ms = nx as f64 * lines * s.dwell_us() * 1e-3;
    1.0 / (signals::anchor(snr) * s.field_strength_t / 3.0 * volume * sampling_ms.sqrt())
}

/// How a CT is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CtParams {
    /// Standard deviation of the noise, HU.
    pub noise_hu: f64,
    /// Width of the point spread function in the slice at half its height, mm.
    pub psf_mm: f64,
    /// Seed of the noise.
    pub seed: u64,
}

impl Default for CtParams {
    fn default() -> Self {
        Self {
            noise_hu: 20.0,
            psf_mm: 0.8,
            seed: 1,
        }
    }
}

/// A CT of a block, HU, `[z, y, x]`: means over the voxels (the slice profile is a box), blurred in the slice, with noise
/// of the grain of the reconstruction filter.
pub fn ct<M: Matter + ?Sized>(body: &M, block: &Block, params: &CtParams) -> Vec<f32> {
    let [_, ny, nx] = block.matrix;
    let mut out = vec![0.0f32; block.len()];
    let psf = |pixel_mm: f64, fwhm_mm: f64| taps(fwhm_mm / 2.354_82 / pixel_mm);
    let (py, px) = (block.voxel_mm[1], block.voxel_mm[2]);
    let (ky, kx) = (psf(py, params.psf_mm), psf(px, params.psf_mm));
    // Noise is a little finer than the image: half of its blur.
    let (gy, gx) = (psf(py, params.psf_mm / 2.0), psf(px, params.psf_mm / 2.0));
    let power: f32 = gy.iter().map(|v| v * v).sum::<f32>() * gx.iter().map(|v| v * v).sum::<f32>();
    out.par_chunks_mut(ny * nx)
        .enumerate()
        .for_each(|(z, slice)| {
            let mut rng = Rng::new(params.seed ^ 0x6374, z as u64);
            #[allow(clippy::cast_possible_truncation)] // storage precision
            for (i, v) in slice.iter_mut().enumerate() {
                let (y, x) = ((i / nx) as f64, (i % nx) as f64);
                let first = rng.uniform();
                *v = (0..4)
                    .map(|j| {
                        let part =
                            |k: f64| (f64::from(j) * k / 4.0 + first * (1.0 + k)).fract() - 0.5;
                        let p = block.at([z as f64 + part(1.0), y + part(3.0), x + part(2.0)]);
                        body.at(p.map(|v| v as f32)).hu / 4.0
                    })
                    .sum();
            }
            blur(slice, nx, &ky, &kx);
            #[allow(clippy::cast_possible_truncation)] // storage precision
            let mut grain: Vec<f32> = slice
                .iter()
                .map(|_| (rng.normal().re * params.noise_hu) as f32 / power.sqrt())
                .collect();
            blur(&mut grain, nx, &gy, &gx);
            slice.iter_mut().zip(grain).for_each(|(v, g)| *v += g);
        });
    out
}

/// Taps of a Gaussian of a standard deviation in pixels, sum 1.
fn taps(sigma: f64) -> Vec<f32> {
    #[allow(clippy::cast_possible_truncation)] // small
    let reach = (3.0 * sigma).ceil() as i32;
    let all: Vec<f64> = (-reach..=reach)
        .map(|i| (-0.5 * (f64::from(i) / sigma.max(1e-3)).powi(2)).exp())
        .collect();
    let sum: f64 = all.iter().sum();
    #[allow(clippy::cast_possible_truncation)] // storage precision
    all.into_iter().map(|v| (v / sum) as f32).collect()
}

/// Blurs rows and columns; the edge repeats.
fn blur(image: &mut [f32], nx: usize, ky: &[f32], kx: &[f32]) {
    let ny = image.len() / nx.max(1);
    let along = |n: usize, get: &dyn Fn(usize) -> f32, k: &[f32]| -> Vec<f32> {
        let half = k.len() / 2;
        (0..n)
            .map(|i| {
                k.iter()
                    .enumerate()
                    .map(|(j, w)| w * get((i + j).saturating_sub(half).min(n - 1)))
                    .sum()
            })
            .collect()
    };
    for row in image.chunks_exact_mut(nx) {
        let new = along(nx, &|i| row[i], kx);
        row.copy_from_slice(&new);
    }
    for x in 0..nx {
        let new = along(ny, &|i| image[i * nx + x], ky);
        for (y, v) in new.into_iter().enumerate() {
            image[y * nx + x] = v;
        }
    }
}
