//! SENSE on a card: the launches of `kernels/sense_unfold.cu`, `sense_cg.cu` and `sense_planes.cu`.

use num_complex::Complex32;

use super::column::sum_of_squares;
use super::solver::LEAST_LAMBDA;
use super::{Sense, SenseImage, noise};
use crate::data::{Csm, KSpace};
use crate::device::cuda::{
    Accelerator, Arg, Buffer, CudaError, FftPlan, Stream, Transform, Way, grid, int, sort_lines,
};

/// Blocks that the card factorises in `f32` lose their digits below.
const LEAST_CARD_LAMBDA: f32 = 1e-4;
/// Most voxels that fold onto each other: kernels `sense_unfold_r1` to `r8`.
const MOST_FOLDS: usize = 8;
/// Blocks of the vector kernels.
const VECTOR_BLOCKS: usize = 64;
const BLOCK: usize = 256;
/// Samples that a block of `sense_rows_adjoint_c32` has room for.
const MOST_ADJOINT: usize = 2048;
/// Rows that a block of `column_energy_f64` should have, and blocks beside each other at most.
const ROWS_OF_A_SUM: usize = 64;
const MOST_SUMS: usize = 64;

/// What is asked of the card.
struct Job<'a> {
    sense: &'a Sense,
    card: &'a Accelerator,
    stream: &'a Stream,
    /// Relative Tikhonov weight.
    lambda: f32,
}

/// Complex samples on the card.
type Samples = Buffer<Complex32>;

impl Sense {
    /// Why a card cannot reconstruct what was planned; `None` where it can.
    ///
    /// `lambda` as for [`Sense::run_with`].
    pub fn card_lacks(&self, n_sets: usize, lambda: f32) -> Option<String> {
        let folding = &self.lattice;
        let [n2, n1] = folding.grid;
        let lacks = |what: &str| Some(what.to_owned());
        if n_sets > 1 {
            return lacks("several sets of maps");
        }
        if lambda < LEAST_CARD_LAMBDA {
            return Some(format!(
                "lambda {lambda:e} below {LEAST_CARD_LAMBDA:e}, where f32 loses digits"
            ));
        }
        let mut seen = std::collections::BTreeSet::new();
        if !folding.places.iter().all(|p| seen.insert(*p)) {
            return lacks("lines that were measured twice and not averaged");
        }
        let lengths = if folding.is_exact() {
            if folding.lattice.shift > 0 {
                return lacks("sheared lattices");
            }
            if folding.members.len() > MOST_FOLDS {
                return Some(format!("{} folds", folding.members.len()));
            }
            let [d2, d1] = folding.domain;
            [self.shape.ro, d1, d2]
        } else {
            if self.params.noise_map && n2 > 1 {
                return lacks("noise maps of irregular masks over two axes");
            }
            if self.params.noise_map && folding.members.len() > MOST_FOLDS {
                return Some(format!("{} folds", folding.members.len()));
            }
            [self.shape.ro, n1, n2]
        };
        if !folding.is_exact() && n2 > 1 && n1 > MOST_ADJOINT {
            return Some(format!("masks over two axes of {n1} lines along pe1"));
        }
        let bad = lengths.into_iter().find(|n| FftPlan::new(*n).is_none());
        bad.map(|n| format!("transforms of length {n}"))
    }

    /// [`Sense::run_with`] on a card: the same image within the tolerances of the kernels, 2e-4 with iterations.
    ///
    /// # Errors
    /// Those of the card. Call it only where [`Self::card_lacks`] nothing.
    pub fn run_on(
        &self,
        card: &Accelerator,
        kspace: &KSpace,
        csm: &Csm,
        lambda: f32,
    ) -> Result<SenseImage, CudaError> {
        card.run(|stream| {
            let (samples, sent) = card.send(stream, &kspace.samples)?;
            let (maps, maps_sent) = card.send(stream, &csm.maps)?;
            let image = self.run_there(card, stream, (&samples, &maps), csm, lambda)?;
            card.keep(sent)?;
            card.keep(maps_sent)?;
            Ok(image)
        })
    }

    /// The same for samples and maps that are on the card, in the order of [`KSpace`] and [`Csm`].
    ///
    /// # Errors
    /// Those of the card. Call it only where [`Self::card_lacks`] nothing.
    pub fn run_there(
        &self,
        card: &Accelerator,
        stream: &Stream,
        (samples, maps): (&Buffer<Complex32>, &Buffer<Complex32>),
        csm: &Csm,
        lambda: f32,
    ) -> Result<SenseImage, CudaError> {
        let job = Job {
            sense: self,
            card,
            stream,
            lambda: lambda.max(LEAST_LAMBDA),
        };
        let transformed = job.hybrid(samples)?;
        let hybrid = transformed.as_ref().unwrap_or(samples);
        if self.lattice.is_exact() {
            job.unfold(hybrid, maps)
        } else if self.lattice.grid[0] == 1 {
            job.iterate_lines(hybrid, maps, csm)
        } else {
            job.iterate_planes(hybrid, maps)
        }
    }
}

impl Job<'_> {
    fn transform(&self, n: usize) -> Result<std::sync::Arc<Transform>, CudaError> {
        self.card.transform(n)
    }

    fn room(&self, len: usize) -> Result<Samples, CudaError> {
        self.card.context().buffer(len)
    }

    fn n_lines(&self) -> usize {
        self.sense.lines.len()
    }

    /// Lines `[coil, line, x]`, transformed along the readout; `None` if they are it already.
    fn hybrid(&self, samples: &Samples) -> Result<Option<Samples>, CudaError> {
        let shape = self.sense.shape;
        if shape.ro == 1 {
            return Ok(None);
        }
        let mut hybrid = self.room(samples.len())?;
        let rows = shape.coil * self.n_lines();
        let along = self.transform(shape.ro)?;
        along.rows(self.stream, samples, &mut hybrid, rows, Way::IMAGE)?;
        Ok(Some(hybrid))
    }

    /// Lines at their `places` of `n_places`, each with a factor, zero elsewhere: `[coil, place, x]`.
    fn sorted(
        &self,
        hybrid: &Samples,
        places: impl Iterator<Item = usize>,
        factors: impl Iterator<Item = Complex32>,
        n_places: usize,
    ) -> Result<Samples, CudaError> {
        let shape = self.sense.shape;
        let (mut line_of, mut factor) = (vec![-1; n_places], vec![Complex32::ZERO; n_places]);
        for (line, (place, f)) in (0..).zip(places.zip(factors)) {
            line_of[place] = line;
            factor[place] = f;
        }
        let line_of = self.card.upload(self.stream, &line_of)?;
        let factor = self.card.upload(self.stream, &factor)?;
        let mut out = self.room(shape.coil * n_places * shape.ro)?;
        let sizes = [shape.coil, self.n_lines(), n_places, shape.ro];
        sort_lines(self.stream, (hybrid, &line_of, &factor), &mut out, sizes)?;
        Ok(out)
    }

    /// Exact lattices: one set of small matrices for voxels that fold onto each other.
    fn unfold(&self, hybrid: &Samples, maps: &Samples) -> Result<SenseImage, CudaError> {
        let (shape, folding) = (self.sense.shape, &self.sense.lattice);
        let [n2, n1] = folding.grid;
        let [d2, d1] = folding.domain;
        let lattice = folding.lattice;
        let places = folding.places.iter();
        let places = places.map(|p| p / n1 / lattice.r2 * d1 + p % n1 / lattice.r1);
        let factors = folding.line_phase.iter().copied();
        let sorted = self.sorted(hybrid, places, factors, d2 * d1)?;
        let mut folded = self.room(sorted.len())?;
        let along_pe1 = self.transform(d1)?;
        let batch = [shape.coil * d2, shape.ro];
        along_pe1.columns(self.stream, &sorted, &mut folded, batch, Way::FROM_ZERO)?;
        if d2 > 1 {
            let mut other = sorted;
            let batch = [shape.coil, d1 * shape.ro];
            let along_pe2 = self.transform(d2)?;
            along_pe2.columns(self.stream, &folded, &mut other, batch, Way::FROM_ZERO)?;
            folded = other;
        }
        let members = self.members()?;
        let phase = self.card.upload(self.stream, &folding.voxel_phase)?;
        let plane = n2 * n1;
        let n = plane * shape.ro;
        let blocks = [grid((d2 * d1 * shape.ro).div_ceil(128))?, 1, 1];
        let folds = folding.members.len();
        let mut out = self.room(n)?;
        let mut args = vec![
            Arg::input(&folded),
            Arg::input(maps),
            Arg::input(&members),
            Arg::input(&phase),
            Arg::output(&mut out),
        ];
        args.extend(self.sizes(self.lambda)?);
        let kernel = format!("sense_unfold_r{folds}");
        self.stream.launch(&kernel, blocks, &args)?;
        let (mut noise_std, mut gfactor) = (None, None);
        if self.sense.params.noise_map {
            let (std, g) = self.block_noise(maps, &members, self.lambda)?;
            (noise_std, gfactor) = (Some(std), Some(g));
        }
        let fetched = self.card.fetch(self.stream, &out)?;
        Ok(SenseImage {
            voxels: self.card.take(fetched)?,
            noise_std,
            gfactor,
            iterations: 0,
            residual: 0.0,
        })
    }

    /// First voxels of the rows of each member of the voxels that fold together.
    fn members(&self) -> Result<Buffer<i32>, CudaError> {
        let folding = &self.sense.lattice;
        int(folding.grid[0] * folding.grid[1])?;
        let members = folding.members.iter().flatten().map(|m| *m as i32); // below 2^31, as the line above says
        self.card
            .upload(self.stream, &members.collect::<Vec<i32>>())
    }

    /// The sizes that the kernels of blocks take, and their Tikhonov weight.
    fn sizes(&self, lambda: f32) -> Result<[Arg<'static>; 6], CudaError> {
        let (shape, folding) = (self.sense.shape, &self.sense.lattice);
        let [d2, d1] = folding.domain;
        Ok([
            int(shape.coil)?,
            int(d2)?,
            int(d1)?,
            int(shape.ro)?,
            int(folding.grid[0] * folding.grid[1])?,
            Arg::F32(lambda),
        ])
    }

    /// Noise of the blocks of the lattice, and their g-factor; `lambda` relative to the blocks' own mean diagonal.
    fn block_noise(
        &self,
        maps: &Samples,
        members: &Buffer<i32>,
        lambda: f32,
    ) -> Result<(Vec<f32>, Vec<f32>), CudaError> {
        let (shape, folding) = (self.sense.shape, &self.sense.lattice);
        let n = folding.grid[0] * folding.grid[1] * shape.ro;
        let mut std = self.card.context().buffer::<f32>(n)?;
        let mut g = self.card.context().buffer::<f32>(n)?;
        let mut args = vec![
            Arg::input(maps),
            Arg::input(members),
            Arg::output(&mut std),
            Arg::output(&mut g),
        ];
        args.extend(self.sizes(lambda)?);
        let groups = folding.domain[0] * folding.domain[1] * shape.ro;
        let kernel = format!("sense_gfactor_r{}", folding.members.len());
        let blocks = [grid(groups.div_ceil(128))?, 1, 1];
        self.stream.launch(&kernel, blocks, &args)?;
        let mut std = self.numbers(&std)?;
        // The kernel takes every line as measured once.
        let averaged = 1.0 / folding.weight.sqrt();
        std.iter_mut().for_each(|s| *s *= averaged);
        Ok((std, self.numbers(&g)?))
    }

    fn numbers<T: crate::device::cuda::Element>(
        &self,
        buffer: &Buffer<T>,
    ) -> Result<Vec<T>, CudaError> {
        self.card.download(self.stream, buffer)
    }

    /// Energy of each column of `[rows, n_x]`, and where it stops.
    fn limits(
        &self,
        hybrid: &Samples,
        n_x: usize,
    ) -> Result<(Buffer<f64>, Buffer<f32>), CudaError> {
        let n_rows = hybrid.len() / n_x;
        let n_sums = n_rows.div_ceil(ROWS_OF_A_SUM).min(MOST_SUMS);
        let mut sums = self.card.context().buffer::<f64>(n_sums * n_x)?;
        let mut energy = self.card.context().buffer::<f64>(n_x)?;
        let mut limits = self.card.context().buffer::<f32>(n_x)?;
        let args = [
            Arg::input(hybrid),
            Arg::output(&mut sums),
            int(n_rows)?,
            int(n_x)?,
        ];
        let blocks = [grid(n_x.div_ceil(32))?, grid(n_sums)?, 1];
        self.stream.launch("column_energy_f64", blocks, &args)?;
        let args = [
            Arg::input(&sums),
            Arg::output(&mut energy),
            Arg::output(&mut limits),
            int(n_sums)?,
            int(n_x)?,
            Arg::F32(self.sense.params.tolerance as f32),
        ];
        self.stream.launch("column_limits_f32", [1, 1, 1], &args)?;
        Ok((energy, limits))
    }

    /// Masks along pe1: every column to its end in one launch.
    fn iterate_lines(
        &self,
        hybrid: &Samples,
        maps: &Samples,
        csm: &Csm,
    ) -> Result<SenseImage, CudaError> {
        let n_x = self.sense.shape.ro;
        let params = &self.sense.params;
        let (energy, limits) = self.limits(hybrid, n_x)?;
        let most = vec![i32::try_from(params.max_iterations).unwrap_or(i32::MAX); n_x];
        let solved = self.solve_columns(hybrid, maps, &limits, &most)?;
        let limits = self.numbers(&limits)?;
        let over_limit = |(r, l): (&f32, &f32)| f64::from(r / l);
        let residual = solved.residuals.iter().zip(&limits).map(over_limit);
        let residual = params.tolerance * residual.fold(0.0, f64::max);
        let iterations = solved.iterations.iter().copied().max().unwrap_or(0);
        let (mut noise_std, mut gfactor) = (None, None);
        if params.noise_map {
            let energy = self.numbers(&energy)?;
            let (std, g) = self.replicated_noise(hybrid, maps, csm, &energy, &solved)?;
            (noise_std, gfactor) = (Some(std), Some(g));
        }
        Ok(SenseImage {
            voxels: solved.voxels,
            noise_std,
            gfactor,
            iterations: iterations.unsigned_abs() as usize,
            residual,
        })
    }

    /// Columns `[row, x]` of lines and maps to their solutions.
    fn solve_columns(
        &self,
        hybrid: &Samples,
        maps: &Samples,
        limits: &Buffer<f32>,
        most: &[i32],
    ) -> Result<Columns, CudaError> {
        let (shape, folding) = (self.sense.shape, &self.sense.lattice);
        let (n, n_x) = (shape.pe1, most.len());
        let along = self.transform(n)?;
        // Columns of a block: a power of two, for they share its 256 threads.
        let count = 1 << along.lines(n_x).min(4).ilog2();
        let (mut line_of, mut weights) = (vec![-1i32; n], vec![0.0f32; n]);
        for (i, (line, weight)) in (0..).zip(self.sense.lines.iter().zip(&folding.weights)) {
            line_of[line.pe1 as usize] = i;
            weights[line.pe1 as usize] = *weight;
        }
        let line_of = self.card.upload(self.stream, &line_of)?;
        let weights = self.card.upload(self.stream, &weights)?;
        let most = self.card.upload(self.stream, most)?;
        let mut out = self.room(n * n_x)?;
        let mut iterations = self.card.context().buffer::<i32>(n_x)?;
        let mut residuals = self.card.context().buffer::<f32>(n_x)?;
        let mean_weight = folding.mean_weight as f32;
        let args = [
            Arg::input(maps),
            Arg::input(hybrid),
            Arg::input(&line_of),
            Arg::input(&weights),
            Arg::input(limits),
            Arg::input(&most),
            along.twiddles(),
            Arg::output(&mut out),
            Arg::output(&mut iterations),
            Arg::output(&mut residuals),
            int(shape.coil)?,
            int(n)?,
            int(self.n_lines())?,
            int(n_x)?,
            along.radices(),
            int(count)?,
            Arg::F32(self.lambda * mean_weight),
            Arg::F32(mean_weight),
        ];
        let blocks = [grid(n_x.div_ceil(count))?, 1, 1];
        self.stream.launch("sense_cg_lines_c32", blocks, &args)?;
        let fetched = self.card.fetch(self.stream, &out)?;
        Ok(Columns {
            iterations: self.numbers(&iterations)?,
            residuals: self.numbers(&residuals)?,
            voxels: self.card.take(fetched)?,
        })
    }

    /// Noise and g-factor as [`super::noise`] measures them, the replicas of all measured places side by side.
    fn replicated_noise(
        &self,
        hybrid: &Samples,
        maps: &Samples,
        csm: &Csm,
        energy: &[f64],
        image: &Columns,
    ) -> Result<(Vec<f32>, Vec<f32>), CudaError> {
        let (shape, folding, params) = (self.sense.shape, &self.sense.lattice, &self.sense.params);
        let (n, n_x, replicas) = (shape.pe1, shape.ro, params.replicas);
        let rows = shape.coil * self.n_lines();
        let stride = noise::stride(n_x);
        let places: Vec<usize> = (stride / 2..n_x).step_by(stride).collect();
        let column = |i: usize| places[i / replicas];
        let n_columns = places.len() * replicas;
        let column_of: Vec<i32> = (0..n_columns).map(|i| column(i) as i32).collect();
        // Of a place without signal there is nothing but the noise to iterate for.
        let has_signal = |i: usize| energy[column(i)] > 0.0;
        let gain: Vec<f32> = (0..n_columns)
            .map(|i| match has_signal(i) {
                true => {
                    let relative = (energy[column(i)] / (2 * rows) as f64).sqrt();
                    (noise::LEAST * relative).max(noise::SMALL) as f32
                }
                false => 1.0,
            })
            .collect();
        let most: Vec<i32> = (0..n_columns)
            .map(|i| match has_signal(i) {
                true => image.iterations[column(i)],
                false => i32::try_from(params.max_iterations).unwrap_or(i32::MAX),
            })
            .collect();
        let limits: Vec<f32> = (0..n_columns)
            .map(|i| {
                if has_signal(i) {
                    0.0
                } else {
                    params.tolerance as f32
                }
            })
            .collect();
        let mut added = vec![Complex32::ZERO; rows * n_columns];
        for (place, x) in places.iter().enumerate() {
            let mut rng = noise::rng(*x);
            for replica in 0..replicas {
                for row in 0..rows {
                    let weight = folding.weights[row % self.n_lines()];
                    added[row * n_columns + place * replicas + replica] =
                        rng.normal() * (1.0 / weight.sqrt());
                }
            }
        }
        let column_of = self.card.upload(self.stream, &column_of)?;
        let scale = self.card.upload(self.stream, &gain)?;
        let limits = self.card.upload(self.stream, &limits)?;
        let (added, sent) = self.card.send(self.stream, &added)?;
        let mut lines = self.gathered(hybrid, &column_of, n_x)?;
        let args = [
            Arg::input(&added),
            Arg::input(&scale),
            Arg::output(&mut lines),
            int(n_columns)?,
        ];
        let blocks = [grid(rows)?, grid(n_columns.div_ceil(BLOCK))?, 1];
        self.stream.launch("add_scaled_c32", blocks, &args)?;
        let replica_maps = self.gathered(maps, &column_of, n_x)?;
        let noisy = self.solve_columns(&lines, &replica_maps, &limits, &most)?;
        self.card.keep(sent)?;
        let mut power = vec![0.0f32; n * places.len()];
        for (i, p) in power.iter_mut().enumerate() {
            let (y, place) = (i / places.len(), i % places.len());
            for replica in 0..replicas {
                let at = place * replicas + replica;
                let found = noisy.voxels[y * n_columns + at];
                let truth = if has_signal(at) {
                    image.voxels[y * n_x + places[place]]
                } else {
                    Complex32::ZERO
                };
                let change = (found - truth) * (1.0 / gain[at]);
                *p += change.norm_sqr() * 0.5 / replicas as f32;
            }
        }
        // Relative to the mean diagonal of the blocks alone, which is the share of the lattice's lines.
        let own = folding.weight / folding.members.len() as f32;
        let lambda = self.lambda * folding.mean_weight as f32 / own;
        let (std, _) = self.block_noise(maps, &self.members()?, lambda)?;
        let mut variance: Vec<f32> = std.iter().map(|s| s * s).collect();
        noise::scale_by_replicas(&mut variance, &power, csm.matrix);
        let density = sum_of_squares(&csm.maps, n * n_x);
        let fraction = folding.mean_weight as f32;
        let std: Vec<f32> = variance.iter().map(|v| v.sqrt()).collect();
        let gfactor = std.iter().zip(&density);
        let gfactor = gfactor.map(|(s, d)| s * (d * fraction).sqrt()).collect();
        Ok((std, gfactor))
    }

    /// Columns of `[row, n_x]`, as many as `column_of` names.
    fn gathered(
        &self,
        input: &Samples,
        column_of: &Buffer<i32>,
        n_x: usize,
    ) -> Result<Samples, CudaError> {
        let (rows, n_out) = (input.len() / n_x, column_of.len());
        let mut out = self.room(rows * n_out)?;
        let args = [
            Arg::input(input),
            Arg::input(column_of),
            Arg::output(&mut out),
            int(n_x)?,
            int(n_out)?,
        ];
        let blocks = [grid(rows)?, grid(n_out.div_ceil(BLOCK))?, 1];
        self.stream.launch("gather_columns_c32", blocks, &args)?;
        Ok(out)
    }

    fn turned(&self, input: &Samples, n_x: usize) -> Result<Samples, CudaError> {
        let n_rows = input.len() / n_x;
        let mut out = self.room(input.len())?;
        let args = [
            Arg::input(input),
            Arg::output(&mut out),
            int(n_rows)?,
            int(n_x)?,
        ];
        let blocks = [grid(n_rows.div_ceil(32))?, grid(n_x.div_ceil(32))?, 1];
        self.stream.launch("turn_lines_c32", blocks, &args)?;
        Ok(out)
    }

    /// Masks over two axes: the planes at all places along the readout side by side.
    fn iterate_planes(&self, hybrid: &Samples, maps: &Samples) -> Result<SenseImage, CudaError> {
        let (shape, folding) = (self.sense.shape, &self.sense.lattice);
        let [n2, n1] = folding.grid;
        let (n_x, n_coils, plane) = (shape.ro, shape.coil, n2 * n1);
        let [along2, along1] = [self.transform(n2)?, self.transform(n1)?];
        let first = |k: usize, n: usize| (k + n - n / 2) % n;
        let z = grid(n_x)?;
        // Lines of a block: all coils go through one block of the adjoint.
        let of_rows = along1.lines(n2 * n_coils * n_x);
        let of_columns = along2.lines(n1 * n_coils * n_x);
        let of_adjoint = along1.lines(n2 * n_x).min(MOST_ADJOINT / n1);
        let [rows, columns, adjoint_rows] = [
            grid(n2.div_ceil(of_rows))?,
            grid(n1.div_ceil(of_columns))?,
            grid(n2.div_ceil(of_adjoint))?,
        ];
        let vectors = [grid(plane.div_ceil(BLOCK).min(VECTOR_BLOCKS))?, 1, z];
        let lambda = self.lambda * folding.mean_weight as f32;

        let turned;
        let maps = if n_x == 1 {
            maps
        } else {
            turned = self.turned(maps, n_x)?;
            &turned
        };
        // The right-hand side: weighted lines at their places, DC first along pe1, back to images, and the adjoint maps.
        let lines = self.sense.lines.iter();
        let places = lines.map(|l| l.pe2 as usize * n1 + first(l.pe1 as usize, n1));
        let scale = 1.0 / (n1 as f32).sqrt();
        let factors = folding.weights.iter().map(|w| Complex32::from(w * scale));
        let mut work = self.sorted(hybrid, places, factors, plane)?;
        if n_x > 1 {
            work = self.turned(&work, n_x)?;
        }
        let mut images = self.room(work.len())?;
        let batch = [n_x * n_coils, n1];
        along2.columns(self.stream, &work, &mut images, batch, Way::IMAGE)?;
        let (mut p, mut q) = (self.room(n_x * plane)?, self.room(n_x * plane)?);
        let mut r = self.room(n_x * plane)?;
        let mut curvature = self
            .card
            .context()
            .buffer::<f64>(n_x * adjoint_rows as usize)?;
        self.stream.clear(&mut p)?;
        let adjoint = |input: &Samples, p: &Samples, out: &mut Samples, parts: &mut Buffer<f64>| {
            let args = [
                Arg::input(input),
                Arg::input(maps),
                Arg::input(p),
                along1.twiddles(),
                Arg::output(out),
                Arg::output(parts),
                int(n_coils)?,
                int(n2)?,
                int(n1)?,
                along1.radices(),
                int(of_adjoint)?,
                Arg::F32(lambda),
            ];
            let kernel = "sense_rows_adjoint_c32";
            self.stream.launch(kernel, [adjoint_rows, 1, z], &args)
        };
        adjoint(&images, &p, &mut r, &mut curvature)?;

        let mut weights = vec![0.0f32; plane];
        for (line, weight) in self.sense.lines.iter().zip(&folding.weights) {
            let at = first(line.pe2 as usize, n2) * n1 + first(line.pe1 as usize, n1);
            weights[at] = weight / plane as f32;
        }
        let weights = self.card.upload(self.stream, &weights)?;
        let (_, limits) = self.limits(hybrid, n_x)?;
        let mut inverse = self.card.context().buffer::<f32>(n_x * plane)?;
        let args = [
            Arg::input(maps),
            Arg::output(&mut inverse),
            int(n_coils)?,
            int(plane)?,
            Arg::F32(folding.mean_weight as f32),
            Arg::F32(lambda),
        ];
        self.stream.launch("sense_diagonal_f32", vectors, &args)?;
        let mut x = self.room(n_x * plane)?;
        let n_parts = vectors[0] as usize;
        let mut parts = self.card.context().buffer::<f64>(n_x * n_parts)?;
        let most = self.sense.params.max_iterations;
        let mut rho = self.card.context().buffer::<f64>((most + 1) * n_x)?;
        let args = [
            Arg::input(&r),
            Arg::input(&inverse),
            Arg::output(&mut x),
            Arg::output(&mut p),
            Arg::output(&mut parts),
            int(plane)?,
        ];
        self.stream.launch("cg_begin_c32", vectors, &args)?;
        let args = [Arg::input(&parts), Arg::output(&mut rho), int(n_parts)?];
        self.stream.launch("cg_start_f64", [1, 1, z], &args)?;
        let limits_here = self.numbers(&limits)?;
        let mut work = images;
        let mut progress = Progress::new(&limits_here, self.sense.params.tolerance);
        for iteration in 0..most {
            if iteration % POLL == 0 && progress.is_done(&self.numbers(&rho)?, iteration) {
                break;
            }
            let args = [
                Arg::input(maps),
                Arg::input(&p),
                along1.twiddles(),
                Arg::output(&mut work),
                int(n2)?,
                int(n1)?,
                along1.radices(),
                int(of_rows)?,
            ];
            let blocks = [rows, grid(n_coils)?, z];
            let kernel = "sense_rows_forward_c32";
            self.stream.launch(kernel, blocks, &args)?;
            let args = [
                Arg::output(&mut work),
                Arg::input(&weights),
                along2.twiddles(),
                int(n2)?,
                int(n1)?,
                along2.radices(),
                int(of_columns)?,
            ];
            let blocks = [columns, grid(n_coils)?, z];
            self.stream.launch("sense_columns_c32", blocks, &args)?;
            adjoint(&work, &p, &mut q, &mut curvature)?;
            let args = [
                Arg::input(&p),
                Arg::input(&q),
                Arg::input(&inverse),
                Arg::input(&curvature),
                Arg::input(&rho),
                Arg::input(&limits),
                Arg::output(&mut x),
                Arg::output(&mut r),
                Arg::output(&mut parts),
                int(plane)?,
                int(adjoint_rows as usize)?,
                int(iteration)?,
            ];
            self.stream.launch("cg_step_c32", vectors, &args)?;
            let args = [
                Arg::input(&r),
                Arg::input(&inverse),
                Arg::input(&parts),
                Arg::input(&limits),
                Arg::output(&mut rho),
                Arg::output(&mut p),
                int(plane)?,
                int(n_parts)?,
                int(iteration)?,
            ];
            self.stream.launch("cg_direction_c32", vectors, &args)?;
            progress.iterations = iteration + 1;
        }
        let rho = self.numbers(&rho)?;
        let at = progress.iterations;
        progress.is_done(&rho, at);
        if n_x > 1 {
            x = self.turned(&x, plane)?;
        }
        let fetched = self.card.fetch(self.stream, &x)?;
        Ok(SenseImage {
            voxels: self.card.take(fetched)?,
            noise_std: None,
            gfactor: None,
            iterations: progress.needed,
            residual: progress.residual,
        })
    }
}

/// Solutions of columns side by side.
struct Columns {
    /// `[pe1, column]`.
    voxels: Vec<Complex32>,
    iterations: Vec<i32>,
    /// Preconditioned, relative to each column's start.
    residuals: Vec<f32>,
}

/// Iterations between looks at how far they are: each look waits for the card.
const POLL: usize = 8;

/// How far planes are.
struct Progress<'a> {
    limits: &'a [f32],
    tolerance: f64,
    /// Queued so far.
    iterations: usize,
    /// Until the last plane arrived.
    needed: usize,
    /// Largest, as [`SenseImage::residual`].
    residual: f64,
}

impl<'a> Progress<'a> {
    fn new(limits: &'a [f32], tolerance: f64) -> Self {
        Self {
            limits,
            tolerance,
            iterations: 0,
            needed: 0,
            residual: 0.0,
        }
    }

    /// Whether all have arrived before iteration `at`; `rho` is `[iteration, plane]`, of which `at + 1` rows are there.
    fn is_done(&mut self, rho: &[f64], at: usize) -> bool {
        let n = self.limits.len();
        let over_limit = |iteration: usize, plane: usize| {
            let (start, now) = (rho[plane], rho[iteration * n + plane]);
            match start > 0.0 {
                true => (now / start).sqrt() / f64::from(self.limits[plane]),
                false => 0.0,
            }
        };
        let largest = |i| (0..n).map(|plane| over_limit(i, plane)).fold(0.0, f64::max);
        self.needed = (0..at).find(|i| largest(*i) <= 1.0).unwrap_or(at);
        let last = largest(at);
        self.residual = last * self.tolerance;
        last <= 1.0
    }
}
