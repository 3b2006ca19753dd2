//! From a patient and a sequence to a header and readouts in order of time.

use ismrmrd::header::{
    AcquisitionSystemInformation, CoilLabel, Encoding, EncodingLimits, EncodingSpace,
    ExperimentalConditions, Limit, MeasurementInformation, ParallelImaging, SequenceParameters,
    StudyInformation, SubjectInformation, Trajectory,
};
use ismrmrd::{Acquisition, AcquisitionFlag as Flag, AcquisitionHeader, EncodingCounters, Header};
use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

use super::coils::{CoilArray, Placement, Raster};
use super::fourier::Middle;
use super::kspace::{self, Plane, Play, Pools, Shot, Space};
use super::motion::{Motion, Pose};
use super::{AcquireParams, Block, Matter, signals};
use crate::data::NoiseCovariance;
use crate::phantom::noise::{self, Rng};
use crate::phantom::readout::{self, NoiseScan, set_slice_flags, to_c32, u16_of, u32_of};
use crate::phantom::{CalibrationLines, PhantomError};
use crate::sequence::{
    FatMethod, Kind, Order, PhaseDirection, Plane as SlicePlane, Region, SequenceParams, Timing,
    Train,
};

/// Noise of one component of a sample of 1 µs, receiver counts.
const NOISE_COUNTS: f64 = 1e-3;
/// Ticks of a time stamp in a second, and the tick when a scan begins (nine o'clock).
const TICKS_PER_S: f64 = 400.0;
const FIRST_TICK: f64 = 9.0 * 3600.0 * TICKS_PER_S;
/// Working memory that a scan may take, bytes.
const MOST_BYTES: u64 = 4 << 30;
/// Functions that describe the trains of one sort of matter, at most; they are about six.
const MOST_FUNCTIONS: usize = 8;
/// Largest error of an echo of a train, against the largest echo there is.
const TRAINS_WITHIN: f64 = 1e-4;
/// Half of the width that a slice reaches beyond, in thicknesses.
const PROFILE: f64 = 0.6;

/// A scan of one patient, planned.
pub struct Scan<'a, M: ?Sized> {
    body: &'a M,
    sequence: &'a SequenceParams,
    params: &'a AcquireParams,
    name: String,
    order: Order,
    timing: Timing,
    train: Train,
    array: CoilArray,
    space: Space,
    centre_mm: [f64; 3],
    /// Counts per unit of signal.
    gain: f64,
}

/// What is true of a scan.
#[derive(Clone, Debug, Default)]
pub struct ScanTruth {
    /// Slices (partitions), rows, columns of the image.
    pub matrix: [usize; 3],
    /// Contrasts.
    pub n_contrasts: usize,
    /// Noise-free images of all lines with the weights of their echoes, without motion, as an even coil would receive
    /// them, `[contrast, slice, y, x]`; fresh cerebrospinal fluid is 1.
    pub images: Vec<Complex32>,
    /// Signal-to-noise ratio of a signal of 1 in an unaccelerated image that is combined at its best, `[slice, y, x]`.
    pub snr_of_unit: Vec<f32>,
}

/// What all scans of a drawn patient share.
fn uid(what: &str, seed: u64) -> String {
    const SPACE: uuid::Uuid = uuid::Uuid::from_u128(0x6361_7564_6120_7068_616e_746f_6d00_0001);
    let name = format!("{what} {seed}");
    format!(
        "2.25.{}",
        uuid::Uuid::new_v5(&SPACE, name.as_bytes()).as_u128()
    )
}

/// A readout to be made, and its place in the scan.
#[derive(Clone, Copy, Debug)]
struct Slot {
    shot: Shot,
    slice: usize,
    average: usize,
    segment: usize,
    is_acs: bool,
    is_pattern: bool,
    is_separate: bool,
}

impl<'a, M: Matter + ?Sized> Scan<'a, M> {
    /// Plans a scan.
    ///
    /// # Errors
    /// [`PhantomError`] names what cannot be, also of the sequence.
    pub fn plan(
        body: &'a M,
        sequence: &'a SequenceParams,
        params: &'a AcquireParams,
        protocol_name: &str,
    ) -> Result<Self, PhantomError> {
        params.check()?;
        let timing = Timing::plan(sequence)?;
        let order = Order::plan(sequence)?;
        let train = Train::plan(sequence)?;
        let centre_mm = body.centre_mm();
        let extent = body.extent_mm().map(|e| e.map(f64::from));
        let (placement, is_neck) = match sequence.region {
            Region::Lumbar => (Placement::Table, false),
            Region::Cervical => (Placement::Neck, true),
        };
        let skin = skin(body, centre_mm, is_neck);
        let array = CoilArray::new(
            placement,
            params.n_coils,
            centre_mm,
            skin,
            |p| body.at(to_f32(p)).pd > 0.0,
            extent,
        );
        let [read, phase, slice] = axes(sequence);
        let space = Space {
            n: sequence.encoded_matrix(),
            fov_mm: sequence.encoded_fov_mm(),
            read,
            phase,
            slice,
        };
        // The anchor gives the signal-to-noise ratio of a unit signal per mm³ and root of ms of sampling.
        let [nx, ny, nz] = space.n;
        let volume: f64 = sequence.pixel_mm().iter().product();
        let sampling_ms = (nx * ny * nz) as f64 * sequence.dwell_us() * 1e-3;
        let snr = signals::anchor(params.snr) * sequence.field_strength_t / 3.0
            * volume
            * sampling_ms.sqrt();
        let gain = snr * NOISE_COUNTS / sequence.dwell_us().sqrt();
        let scan = Self {
            body,
            sequence,
            params,
            name: protocol_name.to_owned(),
            order,
            timing,
            train,
            array,
            space,
            centre_mm,
            gain,
        };
        let bytes = scan.memory_bytes();
        if bytes > MOST_BYTES {
            return Err(PhantomError {
                key: "sequence.matrix, acquire.n_coils",
                found: format!(
                    "{} with {} slices in {} concatenation(s) and {} coils: {:.1} GiB of working memory",
                    scan.space.n.map(|n| n.to_string()).join(" x "),
                    sequence.n_slices,
                    scan.timing.concatenations,
                    params.n_coils,
                    bytes as f64 / f64::from(1 << 30)
                ),
                needed: "at most 4 GiB: fewer coils, a smaller matrix, or more concatenations",
            });
        }
        Ok(scan)
    }

    /// Working memory that the scan takes at most, bytes: the lines of one concatenation for all coils, a plane's pools
    /// and the maps of its coils, and the truth.
    pub fn memory_bytes(&self) -> u64 {
        const COMPLEX: u64 = 8;
        let [nx, ny, nz] = self.space.n.map(|n| n as u64);
        let s = self.sequence;
        let (n_coils, n_slices) = (self.array.loops.len() as u64, s.n_slices as u64);
        let per_shot = s.n_echoes.max(1) as u64;
        let lines: u64 = self.order.shots.iter().map(|x| x.lines.len() as u64).sum();
        let in_concatenation = n_slices.div_ceil(self.timing.concatenations.max(1) as u64);
        let signal = lines * per_shot * nx * n_coils * in_concatenation;
        let contrasts = per_shot * s.n_shifts() as u64;
        // Water and fat; fluid that pulses, fat of a wall that breathes, fat that saturation leaves.
        let has = |is: bool| u64::from(is);
        let kinds = 2
            + has(self.params.motion.pulsation > 0.0)
            + has(self.params.motion.respiration_mm > 0.0)
            + has(matches!(s.fat.method, FatMethod::Chess | FatMethod::Spair));
        let pools = kinds * contrasts * MOST_FUNCTIONS.min(s.echo_train_length.max(1)) as u64;
        let fine =
            4 * nx * ny * kspace::repeats(self.body, &self.space, &self.centre_plane()) as u64;
        let plane = pools * fine + n_coils * fine / 2;
        let truth = contrasts * nx * ny * nz * (n_slices + 2);
        COMPLEX * (signal + plane + truth)
    }

    fn centre_plane(&self) -> Plane {
        Plane {
            centre_mm: self.centre_mm,
            depths: Vec::new(),
            number: 0,
        }
    }

    /// Noise amplification of the parallel imaging in the middle of the stack, `[rows, columns]` over the field of view
    /// of the image; 1 and above, 0 where there is no body.
    ///
    /// The pattern is taken as regular and without its calibration lines: what a random one would cost is not said.
    pub fn gfactor(&self, matrix: [usize; 2]) -> Vec<f32> {
        let (s, a) = (self.sequence, self.sequence.acceleration);
        let [_, phase_mm, slab_mm] = self.space.fov_mm;
        let along = |axis: [f64; 3], mm: f64| axis.map(|v| v * mm);
        // Where one period of the pattern has its echoes: the place (u, v) folds if all its lines agree there.
        let (r1, r2, nz) = (a.pe1.max(1), a.pe2.max(1), self.space.n[2]);
        let period = r1 * r2;
        let mut folds = Vec::new();
        for i in 1 - period as i64..period as i64 {
            for j in 0..if nz > 1 { period as i64 } else { 1 } {
                if i == 0 && j == 0 {
                    continue;
                }
                // Lines k2 = r2·m, k1 = r1·n + shift·m: both generators must turn by whole circles.
                let whole = |turns: i64, per: i64| turns.rem_euclid(per) == 0;
                let period = period as i64;
                if whole(i * r1 as i64, period)
                    && (nz == 1 || whole(a.caipi_shift as i64 * i + r2 as i64 * j, period))
                {
                    let (u, v) = (i as f64 / period as f64, j as f64 / period as f64);
                    let (p, q) = (
                        along(self.space.phase, u * phase_mm),
                        along(self.space.slice, v * slab_mm),
                    );
                    for turn in if j == 0 { 0..1 } else { -1..1 } {
                        let back = along(self.space.slice, f64::from(turn) * slab_mm);
                        folds.push(std::array::from_fn(|k| p[k] + q[k] + back[k]));
                    }
                }
            }
        }
        let slab = s.n_partitions as f64 * s.slice_thickness_mm;
        let is_inside = |p: [f64; 3]| {
            let from = |axis: [f64; 3]| -> f64 {
                (0..3).map(|i| (p[i] - self.centre_mm[i]) * axis[i]).sum()
            };
            from(self.space.phase).abs() <= phase_mm / 2.0
                && (!s.is_3d() || from(self.space.slice).abs() <= 0.5 * slab)
                && self.body.at(to_f32(p)).pd > 0.0
        };
        let step = [
            s.fov_mm[1] / matrix[0] as f64,
            s.fov_mm[0] / matrix[1] as f64,
        ];
        let (dy, dx) = (
            along(self.space.phase, step[0]),
            along(self.space.read, step[1]),
        );
        let plane = Raster {
            origin: std::array::from_fn(|i| {
                self.centre_mm[i] - (matrix[0] / 2) as f64 * dy[i] - (matrix[1] / 2) as f64 * dx[i]
            }),
            dx,
            dy,
            n: matrix,
        };
        self.array.gfactor_of(&plane, &folds, is_inside)
    }

    #[cfg(test)]
    pub(super) fn space(&self) -> &Space {
        &self.space
    }

    #[cfg(test)]
    pub(super) fn gain(&self) -> f64 {
        self.gain
    }

    /// The coils.
    pub fn array(&self) -> &CoilArray {
        &self.array
    }

    /// Voxels of all images; slices of a stack are a block whose slices may have gaps.
    pub fn block(&self) -> Block {
        let s = self.sequence;
        let [px, py, pz] = s.pixel_mm();
        let matrix = self.image_matrix();
        let n = s.n_slices;
        // The middle of the stack against that of slice n/2.
        let offset = if s.is_3d() {
            0.0
        } else {
            ((n / 2) as f64 - (n as f64 - 1.0) / 2.0) * s.slice_pitch_mm()
        };
        Block {
            matrix,
            voxel_mm: [if s.is_3d() { pz } else { s.slice_pitch_mm() }, py, px],
            centre_mm: std::array::from_fn(|i| self.centre_mm[i] + offset * self.space.slice[i]),
            axes: [self.space.slice, self.space.phase, self.space.read],
        }
    }

    /// Noise covariance of imaging samples, at their dwell time.
    pub fn noise(&self) -> NoiseCovariance {
        let level = 2.0 * NOISE_COUNTS * NOISE_COUNTS / self.sequence.dwell_us();
        NoiseCovariance {
            n_coils: self.array.loops.len(),
            matrix: self.array.covariance.iter().map(|v| v * level).collect(),
            n_samples: u64::MAX,
            dwell_us: Some(self.sequence.dwell_us()),
        }
    }

    /// Number of readouts, noise included.
    pub fn n_readouts(&self) -> usize {
        let blocks: usize = (0..self.timing.concatenations)
            .map(|c| self.slots(c).len())
            .sum();
        self.params.n_noise_readouts + blocks
    }

    /// Makes the readouts in order of time and gives each to `sink`; finds the truth if `with_truth`.
    ///
    /// A concatenation at a time is in memory.
    ///
    /// # Errors
    /// Whatever `sink` says.
    ///
    /// # Numerics
    /// Transforms in f32, noise in f64 with a stream of its own for each readout: the same bits for any number of
    /// threads.
    pub fn run<E>(
        &self,
        with_truth: bool,
        mut sink: impl FnMut(Acquisition) -> Result<(), E>,
    ) -> Result<Option<ScanTruth>, E> {
        let factor = noise::factor(&self.noise().matrix, self.array.loops.len());
        let p = self.params;
        for i in 0..p.n_noise_readouts {
            sink(self.noise_readout(i, &factor))?;
        }
        let play = signals::play(self.body, self.sequence, p, &self.train, TRAINS_WITHIN);
        let motion = Motion::new(
            &p.motion,
            self.sequence.region == Region::Cervical,
            p.seed,
            p.series,
        );
        let pose = Pose::new(&p.motion, self.centre_mm, p.seed, p.series);
        let mut truth = with_truth.then(|| ScanTruth {
            matrix: self.image_matrix(),
            n_contrasts: play.contrasts.len(),
            ..ScanTruth::default()
        });
        let per_slice = self.image_matrix()[1..].iter().product::<usize>()
            * if self.sequence.is_3d() {
                self.sequence.n_partitions
            } else {
                1
            };
        if let Some(t) = &mut truth {
            let voxels = per_slice * self.sequence.n_slices;
            t.images = vec![Complex32::ZERO; voxels * t.n_contrasts];
            t.snr_of_unit = vec![0.0; voxels];
        }
        let mut number = p.n_noise_readouts;
        for concatenation in 0..self.timing.concatenations {
            let slots = self.slots(concatenation);
            let mut heads: Vec<AcquisitionHeader> = slots
                .iter()
                .enumerate()
                .map(|(i, s)| self.head(number + i, s))
                .collect();
            self.set_flags(&mut heads, concatenation + 1 == self.timing.concatenations);
            let mut signal: Vec<Vec<Vec<Complex32>>> = vec![Vec::new(); self.sequence.n_slices];
            let mut place = vec![0; slots.len()];
            for slice in self.slices(concatenation) {
                let shots: Vec<Shot> = slots
                    .iter()
                    .zip(&mut place)
                    .filter(|(s, _)| s.slice == slice)
                    .enumerate()
                    .map(|(i, (s, place))| {
                        *place = i;
                        s.shot
                    })
                    .collect();
                signal[slice] = self.slice(slice, &shots, &play, &motion, &pose, truth.as_mut());
            }
            // A few at a time, so that noise is made on all threads and little of it waits.
            for (start, group) in (0..).step_by(64).zip(heads.chunks(64)) {
                let made: Vec<Acquisition> = group
                    .par_iter()
                    .enumerate()
                    .map(|(i, head)| {
                        let i = start + i;
                        self.readout(
                            *head,
                            &signal[slots[i].slice],
                            place[i],
                            &factor,
                            (number + i) as u64,
                        )
                    })
                    .collect();
                for a in made {
                    sink(a)?;
                }
            }
            number += slots.len();
        }
        Ok(truth)
    }

    /// Slices of a concatenation in the order of their excitation: every other one first.
    fn slices(&self, concatenation: usize) -> Vec<usize> {
        let all: Vec<usize> = (concatenation..self.sequence.n_slices)
            .step_by(self.timing.concatenations.max(1))
            .collect();
        all.iter()
            .step_by(2)
            .chain(all.iter().skip(1).step_by(2))
            .copied()
            .collect()
    }

    /// Readouts of a concatenation in order of time.
    fn slots(&self, concatenation: usize) -> Vec<Slot> {
        let s = self.sequence;
        let slices = self.slices(concatenation);
        let tr_s = s.tr_ms * 1e-3;
        let step_s = tr_s / slices.len().max(1) as f64;
        let is_separate = self.params.calibration == CalibrationLines::Separate;
        let n_shots = self.order.shots.len() + s.dummy_shots;
        // Every concatenation takes as long as the others.
        let begin_s = (concatenation * n_shots) as f64 * tr_s;
        let before_ms = s.ti_ms.unwrap_or(0.0);
        let mut out = Vec::new();
        if is_separate {
            // A short scan in front, all lines at the weight of the centre.
            let lines = self.order.shots.first().map_or(0, |first| {
                let same = |x: &&crate::sequence::Shot| {
                    x.average == first.average && x.shift == first.shift
                };
                let mut lines: Vec<_> = self
                    .order
                    .shots
                    .iter()
                    .filter(same)
                    .flat_map(|x| &x.lines)
                    .filter(|l| l.is_calibration)
                    .collect();
                lines.sort_by_key(|l| (l.pe2, l.pe1));
                for &slice in &slices {
                    out.extend(lines.iter().map(|l| Slot {
                        shot: Shot {
                            pe1: l.pe1,
                            pe2: l.pe2,
                            contrast: 0,
                            echo: self.order.effective_echo,
                            time_s: begin_s,
                        },
                        slice,
                        average: 0,
                        segment: 0,
                        is_acs: true,
                        is_pattern: false,
                        is_separate: true,
                    }));
                }
                lines.len()
            });
            debug_assert!(lines <= self.order.n_measured);
        }
        for (i, shot) in self.order.shots.iter().enumerate() {
            let shot_s = begin_s + (i + s.dummy_shots) as f64 * tr_s;
            for (position, &slice) in slices.iter().enumerate() {
                let excited_s = shot_s + position as f64 * step_s + before_ms * 1e-3;
                for line in &shot.lines {
                    if is_separate && !line.is_imaging {
                        continue;
                    }
                    for image in 0..s.n_echoes.max(1) {
                        let echo = if s.kind == Kind::Gre {
                            image
                        } else {
                            line.echo
                        };
                        out.push(Slot {
                            shot: Shot {
                                pe1: line.pe1,
                                pe2: line.pe2,
                                contrast: shot.shift * s.n_echoes.max(1) + image,
                                echo: if s.kind == Kind::Gre { 0 } else { line.echo },
                                time_s: excited_s + s.echo_time_ms(echo) * 1e-3,
                            },
                            slice,
                            average: shot.average,
                            segment: if s.kind == Kind::Gre { 0 } else { line.echo },
                            is_acs: line.is_calibration,
                            is_pattern: line.is_imaging,
                            is_separate: false,
                        });
                    }
                }
            }
        }
        out
    }

    /// Noise-free readouts of one slice or slab, `[coil][shot, sample]`, in counts.
    fn slice(
        &self,
        slice: usize,
        shots: &[Shot],
        play: &Play,
        motion: &Motion,
        pose: &Pose,
        truth: Option<&mut ScanTruth>,
    ) -> Vec<Vec<Complex32>> {
        let s = self.sequence;
        let nx = self.space.n[0];
        let n_coils = self.array.loops.len();
        let mut out = vec![vec![Complex32::ZERO; shots.len() * nx]; n_coils];
        // Every line once, without motion, by the coil that receives evenly.
        let still = Motion::new(&super::MotionParams::none(), false, 0, 0);
        let full = if truth.is_some() {
            self.every_line(play)
        } else {
            Vec::new()
        };
        let mut even = vec![vec![Complex32::ZERO; full.len() * nx]];
        for (plane, along) in self.planes(slice) {
            let pools = Pools::sample(self.body, play, &self.space, &plane, pose, self.params.seed);
            let coils = pools.coil_maps(&self.array);
            pools.add(play, &self.space, shots, motion, &coils, along, &mut out);
            if truth.is_some() {
                let map = [pools.even_map()];
                pools.add(play, &self.space, &full, &still, &map, along, &mut even);
            }
        }
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let gain = self.gain as f32;
        out.par_iter_mut()
            .for_each(|c| c.iter_mut().for_each(|v| *v *= gain));
        if let Some(truth) = truth {
            self.put_truth(truth, slice, &even[0]);
        }
        debug_assert_eq!(s.encoded_matrix()[0], nx);
        out
    }

    /// Planes of a slice, or of a slab with their places along pe2 and their shares.
    fn planes(&self, slice: usize) -> Vec<(Plane, (f64, f64))> {
        let s = self.sequence;
        let offset = (slice as f64 - (s.n_slices as f64 - 1.0) / 2.0) * s.slice_pitch_mm();
        let at = |mm: f64| -> [f64; 3] {
            std::array::from_fn(|i| self.centre_mm[i] + (offset + mm) * self.space.slice[i])
        };
        if !s.is_3d() {
            let n = self.params.n_depths;
            let weights: Vec<(f64, f64)> = (0..n)
                .map(|j| {
                    let u = ((j as f64 + 0.5) / n as f64 * 2.0 - 1.0) * PROFILE;
                    (u * s.slice_thickness_mm, profile(u))
                })
                .collect();
            let sum: f64 = weights.iter().map(|w| w.1).sum();
            let plane = Plane {
                centre_mm: at(0.0),
                depths: weights.into_iter().map(|(d, w)| (d, w / sum)).collect(),
                number: slice as u64 + 1,
            };
            return vec![(plane, (0.0, 1.0))];
        }
        let fov = self.space.fov_mm[2];
        let n = 2 * self.space.n[2];
        let slab = s.n_partitions as f64 * s.slice_thickness_mm;
        (0..n)
            .filter_map(|i| {
                let along = (i as f64 - (n / 2) as f64) / n as f64;
                let weight = profile(along * fov / slab);
                (weight > 0.0).then(|| {
                    let plane = Plane {
                        centre_mm: at(along * fov),
                        depths: vec![(0.0, weight)],
                        number: (slice * n + i) as u64 + 1,
                    };
                    (plane, (along, 1.0 / n as f64))
                })
            })
            .collect()
    }

    /// Slices (partitions), rows, columns of all images.
    fn image_matrix(&self) -> [usize; 3] {
        let [x, y, z] = self.sequence.image_matrix();
        [self.sequence.n_slices * z, y, x]
    }

    /// All lines of k-space, those that are left out with the echo of the nearest that is not.
    fn every_line(&self, play: &Play) -> Vec<Shot> {
        let [_, ny, nz] = self.space.n;
        let known = self.order.echo_of_line();
        let nearest = |pe1: usize, pe2: usize| -> usize {
            (0..ny)
                .filter_map(|i| known[pe2 * ny + i].map(|e| (i.abs_diff(pe1), e)))
                .min()
                .map_or(self.order.effective_echo, |(_, e)| e)
        };
        let is_gre = self.sequence.kind == Kind::Gre;
        (0..play.contrasts.len())
            .flat_map(|contrast| {
                (0..nz).flat_map(move |pe2| {
                    (0..ny).map(move |pe1| Shot {
                        pe1,
                        pe2,
                        contrast,
                        echo: if is_gre { 0 } else { nearest(pe1, pe2) },
                        time_s: 0.0,
                    })
                })
            })
            .collect()
    }

    fn put_truth(&self, truth: &mut ScanTruth, slice: usize, lines: &[Complex32]) {
        let [nx, ny, nz] = self.space.n;
        let [_, my, mx] = truth.matrix;
        let mz = self.sequence.n_partitions;
        let scale = 1.0 / ((nx * ny) as f64).sqrt();
        let inverse = Middle::plan([ny, nx], [ny, nx], true, scale);
        let crop = |full: &[Complex32], to: &mut [Complex32]| {
            for (y, row) in to.chunks_exact_mut(mx).enumerate() {
                let from = (y + ny / 2 - my / 2) * nx + nx / 2 - mx / 2;
                row.copy_from_slice(&full[from..from + mx]);
            }
        };
        for contrast in 0..truth.n_contrasts {
            let planes: Vec<Vec<Complex32>> = (0..nz)
                .into_par_iter()
                .map(|z| {
                    let from = (contrast * nz + z) * ny * nx;
                    inverse.run(&mut lines[from..from + ny * nx].to_vec())
                })
                .collect();
            for z in 0..mz {
                let mut sum = vec![Complex32::ZERO; ny * nx];
                for (k, plane) in planes.iter().enumerate() {
                    let angle = std::f64::consts::TAU
                        * (k as f64 - (nz / 2) as f64)
                        * (z as f64 - (mz / 2) as f64)
                        / nz as f64;
                    let w = to_c32(Complex64::from_polar(1.0 / (nz as f64).sqrt(), angle));
                    sum.iter_mut().zip(plane).for_each(|(s, v)| *s += v * w);
                }
                let at = (contrast * truth.matrix[0] + slice * mz + z) * my * mx;
                crop(&sum, &mut truth.images[at..at + my * mx]);
            }
        }
        // What a unit signal would have.
        let unit = self.gain * self.sequence.dwell_us().sqrt() / NOISE_COUNTS;
        let [px, py, pz] = self.sequence.pixel_mm();
        for z in 0..mz {
            let s = self.sequence;
            let depth = (slice as f64 - (s.n_slices as f64 - 1.0) / 2.0) * s.slice_pitch_mm()
                + (z as f64 - (mz / 2) as f64) * if s.is_3d() { pz } else { 0.0 };
            let at = (slice * mz + z) * my * mx;
            truth.snr_of_unit[at..at + my * mx]
                .par_chunks_mut(mx)
                .enumerate()
                .for_each(|(y, row)| {
                    for (x, v) in row.iter_mut().enumerate() {
                        let (u, w) = (
                            (x as f64 - (mx / 2) as f64) * px,
                            (y as f64 - (my / 2) as f64) * py,
                        );
                        let p: [f64; 3] = std::array::from_fn(|i| {
                            self.centre_mm[i]
                                + u * self.space.read[i]
                                + w * self.space.phase[i]
                                + depth * self.space.slice[i]
                        });
                        #[allow(clippy::cast_possible_truncation)] // storage precision
                        let snr = (unit * self.array.snr(p)) as f32;
                        *v = snr;
                    }
                });
        }
    }

    fn base_head(&self, number: usize) -> AcquisitionHeader {
        AcquisitionHeader {
            measurement_uid: u32_of(usize::try_from(self.params.series).unwrap_or(0) + 1),
            scan_counter: u32_of(number + 1),
            ..readout::head(self.array.loops.len())
        }
    }

    fn noise_readout(&self, i: usize, factor: &[Complex64]) -> Acquisition {
        let p = self.params;
        let head = AcquisitionHeader {
            acquisition_time_stamp: tick(-10.0 + 0.01 * i as f64),
            ..self.base_head(i)
        };
        let scan = NoiseScan {
            n_samples: p.noise_samples,
            dwell_us: p.noise_dwell_us,
            bandwidth_ratio: p.noise_bandwidth_ratio,
        };
        let mut rng = Rng::new(p.seed ^ p.series << 48, i as u64);
        readout::noise_readout(head, scan, self.sequence.dwell_us(), factor, &mut rng)
    }

    fn head(&self, number: usize, slot: &Slot) -> AcquisitionHeader {
        let s = self.sequence;
        let nx = self.space.n[0];
        let measured = s.n_samples().clamp(1, nx);
        let start = self.first_line();
        let mut head = self.base_head(number);
        head.acquisition_time_stamp = tick(slot.shot.time_s);
        head.number_of_samples = u16_of(measured);
        #[allow(clippy::cast_possible_truncation)] // storage precision
        {
            head.sample_time_us = s.dwell_us() as f32;
        }
        head.center_sample = u16_of((nx / 2).saturating_sub(nx - measured));
        let offset = (slot.slice as f64 - (s.n_slices as f64 - 1.0) / 2.0) * s.slice_pitch_mm();
        head.position = to_f32(std::array::from_fn(|i| {
            self.centre_mm[i] + offset * self.space.slice[i]
        }));
        head.read_dir = to_f32(self.space.read);
        head.phase_dir = to_f32(self.space.phase);
        head.slice_dir = to_f32(self.space.slice);
        head.idx = EncodingCounters {
            kspace_encode_step_1: u16_of(slot.shot.pe1.saturating_sub(start)),
            kspace_encode_step_2: u16_of(slot.shot.pe2),
            average: u16_of(slot.average),
            slice: u16_of(slot.slice),
            contrast: u16_of(slot.shot.contrast),
            segment: u16_of(slot.segment),
            ..EncodingCounters::default()
        };
        if slot.is_separate {
            head.set(Flag::IsParallelCalibration);
        } else if slot.is_acs && self.params.calibration == CalibrationLines::Embedded {
            head.set(if slot.is_pattern {
                Flag::IsParallelCalibrationAndImaging
            } else {
                Flag::IsParallelCalibration
            });
        }
        head
    }

    /// First and last readouts of slices, and the end.
    fn set_flags(&self, heads: &mut [AcquisitionHeader], is_last: bool) {
        set_slice_flags(heads.iter_mut());
        if is_last && let Some(last) = heads.last_mut() {
            last.set(Flag::LastInRepetition);
            last.set(Flag::LastInMeasurement);
        }
    }

    fn readout(
        &self,
        head: AcquisitionHeader,
        signal: &[Vec<Complex32>],
        place: usize,
        factor: &[Complex64],
        number: u64,
    ) -> Acquisition {
        let nx = self.space.n[0];
        let n = usize::from(head.number_of_samples);
        let first = nx - n;
        let mut rng = Rng::new(self.params.seed ^ self.params.series << 48, number);
        let mut data = noise::readout(&mut rng, factor, signal.len(), n, 1.0);
        for (row, lines) in data.chunks_exact_mut(n).zip(signal) {
            let line = &lines[place * nx + first..(place + 1) * nx];
            for (d, v) in row.iter_mut().zip(line) {
                *d += Complex64::new(v.re.into(), v.im.into());
            }
        }
        Acquisition {
            head,
            traj: Vec::new(),
            data: data.into_iter().map(to_c32).collect(),
        }
    }

    /// Lines that partial Fourier leaves out at the start.
    fn first_line(&self) -> usize {
        self.order
            .shots
            .iter()
            .flat_map(|s| &s.lines)
            .map(|l| l.pe1)
            .min()
            .map_or(0, |least| {
                // A pattern may begin later than k-space does.
                if self.sequence.partial_fourier < 1.0 {
                    least.min(self.space.n[1] / 2)
                } else {
                    0
                }
            })
    }

    /// The header that a converter would write.
    pub fn header(&self) -> Header {
        let s = self.sequence;
        let n = self.space.n;
        let start = self.first_line();
        let limit = |maximum: usize, center: usize| {
            Some(Limit {
                minimum: 0,
                maximum: u32_of(maximum),
                center: u32_of(center),
            })
        };
        let counter = |n: usize| limit(n.max(1) - 1, 0);
        let a = s.acceleration;
        let is_accelerated = a.pe1 * a.pe2 > 1;
        let has_acs = is_accelerated && a.acs_pe1 > 0;
        let n_contrasts = s.n_shifts() * s.n_echoes.max(1);
        let is_tse = s.kind == Kind::Tse;
        let train = if is_tse { s.echo_train_length } else { 1 };
        #[allow(clippy::cast_possible_truncation)] // storage precision
        let f = |v: f64| v as f32;
        #[allow(clippy::cast_possible_truncation)] // 1e8
        let hertz = (s.field_strength_t * crate::sequence::HYDROGEN_HZ_PER_T).round() as i64;
        let (part, sense) = match s.region {
            Region::Lumbar => ("LSPINE", "Spine"),
            Region::Cervical => ("CSPINE", "Neck"),
        };
        Header {
            version: Some(1),
            subject_information: Some(SubjectInformation {
                patient_name: Some(format!("SIMULATED^{:08X}", self.params.seed)),
                patient_id: Some(format!("SIM{:08X}", self.params.seed)),
                ..SubjectInformation::default()
            }),
            study_information: Some(StudyInformation {
                study_description: Some("SIMULATED".into()),
                study_instance_uid: Some(uid("study", self.params.seed)),
                body_part_examined: Some(part.into()),
                ..StudyInformation::default()
            }),
            measurement_information: Some(MeasurementInformation {
                patient_position: "HFS".into(),
                measurement_id: Some(format!(
                    "cauda-simulate-{}-{}",
                    self.params.seed, self.params.series
                )),
                protocol_name: Some(self.name.clone()),
                initial_series_number: i64::try_from(self.params.series + 1).ok(),
                series_description: Some(self.name.clone()),
                // Of the scanner, in which the patient may lie a little elsewhere.
                frame_of_reference_uid: Some(uid("frame of reference", self.params.seed)),
                sequence_name: Some(if is_tse { "tse" } else { "gre" }.into()),
                ..MeasurementInformation::default()
            }),
            acquisition_system_information: Some(AcquisitionSystemInformation {
                system_vendor: Some("Cauda simulator".into()),
                system_model: Some("digital spine".into()),
                system_field_strength_t: Some(f(s.field_strength_t)),
                relative_receiver_noise_bandwidth: Some(self.params.noise_bandwidth_ratio),
                receiver_channels: Some(u32_of(self.array.loops.len())),
                coil_label: (0..self.array.loops.len())
                    .map(|i| CoilLabel {
                        coil_number: u32_of(i),
                        coil_name: format!("{sense}:{}", i + 1),
                    })
                    .collect(),
                ..AcquisitionSystemInformation::default()
            }),
            experimental_conditions: ExperimentalConditions {
                h1_resonance_frequency_hz: hertz,
            },
            encoding: vec![Encoding {
                encoded_space: EncodingSpace {
                    matrix_size: n.map(u32_of),
                    field_of_view_mm: self.space.fov_mm.map(f),
                },
                recon_space: EncodingSpace {
                    matrix_size: s.image_matrix().map(u32_of),
                    field_of_view_mm: [
                        f(s.fov_mm[0]),
                        f(s.fov_mm[1]),
                        f(s.slice_thickness_mm * s.n_partitions as f64),
                    ],
                },
                encoding_limits: EncodingLimits {
                    kspace_encoding_step_0: limit(n[0] - 1, n[0] / 2),
                    kspace_encoding_step_1: limit(n[1] - 1 - start, n[1] / 2 - start),
                    kspace_encoding_step_2: limit(n[2] - 1, n[2] / 2),
                    average: counter(s.averages),
                    slice: counter(s.n_slices),
                    contrast: counter(n_contrasts),
                    phase: counter(1),
                    repetition: counter(1),
                    set: counter(1),
                    segment: counter(train),
                    user: [None; 8],
                },
                trajectory: Trajectory::Cartesian,
                parallel_imaging: is_accelerated.then(|| ParallelImaging {
                    acceleration_factor: [u32_of(a.pe1), u32_of(a.pe2)],
                    calibration_mode: Some(
                        match (has_acs, self.params.calibration) {
                            (false, _) => "other",
                            (_, CalibrationLines::Separate) => "separate",
                            _ => "embedded",
                        }
                        .into(),
                    ),
                    ..ParallelImaging::default()
                }),
                echo_train_length: is_tse.then(|| i64::try_from(train).unwrap_or(i64::MAX)),
                ..Encoding::default()
            }],
            sequence_parameters: Some(SequenceParameters {
                tr: vec![f(s.tr_ms)],
                te: match (s.kind, s.fat.method) {
                    (Kind::Gre, _) => (0..s.n_echoes.max(1))
                        .map(|i| f(s.echo_time_ms(i)))
                        .collect(),
                    (_, FatMethod::Dixon) => s
                        .fat
                        .echo_shifts_ms
                        .iter()
                        .map(|shift| f(s.te_ms + shift))
                        .collect(),
                    _ => vec![f(s.te_ms)],
                },
                ti: s.ti_ms.map(f).into_iter().collect(),
                flip_angle_deg: if is_tse {
                    vec![f(s.excitation_deg), f(s.refocusing_deg)]
                } else {
                    vec![f(s.excitation_deg)]
                },
                sequence_type: Some(if is_tse { "TurboSpinEcho" } else { "Flash" }.into()),
                echo_spacing: if is_tse {
                    vec![f(s.echo_spacing_ms)]
                } else {
                    Vec::new()
                },
                ..SequenceParameters::default()
            }),
            ..Header::default()
        }
    }
}

/// Part of a slice's signal that comes from `u` thicknesses off its middle: full within 0.4, none beyond 0.6.
pub(super) fn profile(u: f64) -> f64 {
    let edge = (u.abs() - 0.4) / 0.2;
    if edge <= 0.0 {
        1.0
    } else if edge >= 1.0 {
        0.0
    } else {
        0.5 + 0.5 * (std::f64::consts::PI * edge).cos()
    }
}

/// Read, phase and slice axes in the patient (LPS).
fn axes(s: &SequenceParams) -> [[f64; 3]; 3] {
    const LEFT: [f64; 3] = [1.0, 0.0, 0.0];
    const BACK: [f64; 3] = [0.0, 1.0, 0.0];
    const FEET: [f64; 3] = [0.0, 0.0, -1.0];
    let phase = match s.phase {
        PhaseDirection::HeadFeet => FEET,
        PhaseDirection::AnteriorPosterior => BACK,
        PhaseDirection::LeftRight => LEFT,
    };
    let (a, b) = match s.plane {
        SlicePlane::Sagittal => (FEET, BACK),
        SlicePlane::Axial => (LEFT, BACK),
        SlicePlane::Coronal => (FEET, LEFT),
    };
    let read = if phase == a { b } else { a };
    let slice = [
        read[1] * phase[2] - read[2] * phase[1],
        read[2] * phase[0] - read[0] * phase[2],
        read[0] * phase[1] - read[1] * phase[0],
    ];
    [read, phase, slice]
}

/// Skin in front of and behind the spine: for the neck near its middle, for the back its farthest point under the
/// array.
fn skin<M: Matter + ?Sized>(body: &M, centre: [f64; 3], is_neck: bool) -> (f64, f64) {
    let [_, [front, back], _] = body.extent_mm().map(|e| e.map(f64::from));
    let inside = |y: f64, z: f64| body.at(to_f32([centre[0], y, z])).pd > 0.0;
    let reach = if is_neck { 60.0 } else { 150.0 };
    let (mut low, mut high) = (centre[1], centre[1]);
    for dz in -4..=4 {
        let z = centre[2] + f64::from(dz) * reach / 4.0;
        let mut y = front;
        while y < low {
            if inside(y, z) {
                low = y;
            }
            y += 2.0;
        }
        let mut y = back;
        while y > high {
            if inside(y, z) {
                high = y;
            }
            y -= 2.0;
        }
    }
    (low, high)
}

#[allow(clippy::cast_possible_truncation)] // storage precision
fn to_f32(v: [f64; 3]) -> [f32; 3] {
    v.map(|v| v as f32)
}

fn tick(time_s: f64) -> u32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // hours
    let t = (FIRST_TICK + time_s * TICKS_PER_S).max(0.0).round() as u32;
    t
}
