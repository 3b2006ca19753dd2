//! Folded images unmixed on a card, for frames whose unmixing weights are known: one upload, one graph, one download.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use num_complex::Complex32;

use super::fold::Unmixing;
use crate::data::KSpace;
use crate::device::cuda::{
    Accelerator, Arg, Buffer, Capture, CudaError, FftPlan, Graph, Queue, Stream, Transform, Way,
    grid, int, sort_lines,
};
use crate::num::lanes::{LANES, Lanes};

/// What the graph launches; loaded before it is made.
const KERNELS: [&str; 7] = [
    "fft_rows_c32",
    "sort_lines_c32",
    "fft_columns_c32",
    "grappa_unmix_c32",
    "grappa_difference_c32",
    "grappa_spread_c32",
    "add_product_c32",
];

/// Unmixing weights on a card, and the graph that uses them.
#[derive(Debug)]
pub(super) struct OnCard {
    card: Arc<Accelerator>,
    /// One frame at a time: the graph has one set of buffers.
    slot: Mutex<Slot>,
}

#[derive(Debug)]
struct Slot {
    samples: Buffer<Complex32>,
    /// `[pe1, ro]`, the middle of the image first.
    out: Buffer<Complex32>,
    graph: Graph,
}

/// Memory that the graph uses; it holds what it needs of it.
struct Frame {
    samples: Buffer<Complex32>,
    hybrid: Buffer<Complex32>,
    sorted: Buffer<Complex32>,
    folded: Buffer<Complex32>,
    out: Buffer<Complex32>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a card cannot unmix such frames; `None` where it can.
pub(crate) fn lacks(shape: crate::data::Shape, n_pattern: usize, r1: usize) -> Option<String> {
    let short = short_length(n_pattern, r1, shape.pe1);
    let lengths = [shape.ro, short, shape.pe1];
    let bad = lengths.into_iter().find(|n| FftPlan::new(*n).is_none());
    bad.map(|n| format!("transforms of length {n}"))
}

/// Length of the transform of the pattern's lines.
fn short_length(n_pattern: usize, r1: usize, ny: usize) -> usize {
    if n_pattern * r1 == ny { n_pattern } else { ny }
}

impl Unmixing {
    /// [`super::fold::unfold_known`] on a card: the same voxels within 1e-5 of their root mean square.
    ///
    /// # Errors
    /// Those of the card. Call it only where it [`lacks`] nothing.
    pub(crate) fn unfold_on(
        &self,
        card: &Arc<Accelerator>,
        kspace: &KSpace,
    ) -> Result<Vec<Complex32>, CudaError> {
        let on_card = self.on(card, kspace)?;
        let mut slot = lock(&on_card.slot);
        let slot = &mut *slot;
        card.run(|stream| {
            let sent = card.send_into(stream, &kspace.samples, &mut slot.samples)?;
            stream.replay(&slot.graph)?;
            let fetched = card.fetch(stream, &slot.out)?;
            let mut voxels = card.take(fetched)?;
            card.keep(sent)?;
            let (ny, nx) = (kspace.shape.pe1, kspace.shape.ro);
            voxels.rotate_right(ny / 2 * nx);
            Ok(voxels)
        })
    }

    /// The weights on this card, put there if they are not.
    fn on(&self, card: &Arc<Accelerator>, kspace: &KSpace) -> Result<Arc<OnCard>, CudaError> {
        let mut known = lock(&self.on_card);
        if let Some(on_card) = known.as_ref()
            && Arc::ptr_eq(&on_card.card, card)
        {
            return Ok(on_card.clone());
        }
        let made = Arc::new(OnCard::new(card, kspace, self)?);
        *known = Some(made.clone());
        Ok(made)
    }
}

impl OnCard {
    fn new(
        card: &Arc<Accelerator>,
        kspace: &KSpace,
        unmixing: &Unmixing,
    ) -> Result<Self, CudaError> {
        let slot = Mutex::new(Plan::new(card, kspace, unmixing)?.slot()?);
        Ok(Self {
            card: card.clone(),
            slot,
        })
    }
}

/// Which lines are of the pattern, and how long its transform is.
struct Plan<'a> {
    card: &'a Accelerator,
    unmixing: &'a Unmixing,
    n_coils: usize,
    ny: usize,
    nx: usize,
    n_lines: usize,
    /// Lines of the pattern and beside it, as k-space has them.
    pattern: Vec<usize>,
    beside: Vec<usize>,
    /// Place of each line of the pattern among the `m` frequencies of the short transform, DC first.
    places: Vec<usize>,
    m: usize,
    along_x: Arc<Transform>,
    short: Arc<Transform>,
    long: Arc<Transform>,
}

impl<'a> Plan<'a> {
    fn new(
        card: &'a Accelerator,
        kspace: &KSpace,
        unmixing: &'a Unmixing,
    ) -> Result<Self, CudaError> {
        let (ny, nx) = (kspace.shape.pe1, kspace.shape.ro);
        let lattice = unmixing.weights.window.lattice;
        let on_pattern = |i: &usize| lattice.contains(0, i64::from(kspace.lines[*i].pe1));
        let (pattern, beside): (Vec<usize>, Vec<usize>) =
            (0..kspace.lines.len()).partition(on_pattern);
        let m = short_length(pattern.len(), lattice.r1, ny);
        let from_middle = |i: usize, middle: usize, n: usize| (i + n - middle) % n;
        let places = (0..pattern.len())
            .map(|row| {
                if m == pattern.len() {
                    from_middle(row, m / 2, m)
                } else {
                    from_middle(kspace.lines[pattern[row]].pe1 as usize, ny / 2, ny)
                }
            })
            .collect();
        Ok(Self {
            card,
            unmixing,
            n_coils: kspace.shape.coil,
            ny,
            nx,
            n_lines: kspace.lines.len(),
            pattern,
            beside,
            places,
            m,
            along_x: card.transform(nx)?,
            short: card.transform(m)?,
            long: card.transform(ny)?,
        })
    }

    fn slot(&self) -> Result<Slot, CudaError> {
        let context = self.card.context();
        KERNELS.iter().try_for_each(|k| context.load(k))?;
        let image = self.ny * self.nx;
        let mut frame = Frame {
            samples: context.buffer(self.n_coils * self.n_lines * self.nx)?,
            hybrid: context.buffer(self.n_coils * self.n_lines * self.nx)?,
            sorted: context.buffer(self.n_coils * self.m * self.nx)?,
            folded: context.buffer(self.n_coils * self.m * self.nx)?,
            out: context.buffer(image)?,
        };
        let (weights, tables) = self.card.run(|stream| {
            let mut line_of = vec![-1i32; self.m];
            for (place, line) in self.places.iter().zip(&self.pattern) {
                line_of[*place] = index(*line)?;
            }
            let tables = Tables {
                line_of: self.card.upload(stream, &line_of)?,
                ones: self
                    .card
                    .upload(stream, &vec![Complex32::ONE; self.m.max(self.ny)])?,
            };
            let weights = self.weights();
            let (weights, sent) = self.card.send(stream, &weights)?;
            self.card.keep(sent)?;
            Ok((weights, tables))
        })?;
        let beside = (!self.unmixing.lines.is_empty())
            .then(|| self.card.run(|stream| Beside::new(self, stream)))
            .transpose()?;
        let graph = context.capture(|queue| {
            self.unmix(queue, &mut frame, &weights, &tables)?;
            match beside {
                Some(mut beside) => beside.add(self, queue, &mut frame),
                None => Ok(()),
            }
        })?;
        Ok(Slot {
            samples: frame.samples,
            out: frame.out,
            graph,
        })
    }

    /// Eight columns side by side to rows of `nx`, times `scale`: `[row, x]`, rows that are `columns(block)` of each block.
    fn rows(&self, n_rows: usize, column: impl Fn(usize, usize) -> Lanes) -> Vec<Complex32> {
        let mut out = vec![Complex32::ZERO; n_rows * self.nx];
        for (row, out) in out.chunks_exact_mut(self.nx).enumerate() {
            for (block, out) in out.chunks_mut(LANES).enumerate() {
                column(block, row).store(out);
            }
        }
        out
    }

    /// What folded images are multiplied with, `[coil, y, x]`: all factors of the sum over coils are in it, and the scale
    /// that unitary transforms leave out.
    fn weights(&self) -> Vec<Complex32> {
        let blocks = &self.unmixing.blocks;
        let scale = (self.m as f32).sqrt();
        self.rows(self.n_coils * self.ny, |block, row| {
            let turn = blocks[block].turn[row % self.ny];
            let product = Lanes::ZERO;
            let product = product.plus_product::<false, false>(blocks[block].numerators[row], turn);
            product.scaled(scale)
        })
    }

    fn unmix(
        &self,
        queue: &Capture,
        frame: &mut Frame,
        weights: &Buffer<Complex32>,
        tables: &Tables,
    ) -> Result<(), CudaError> {
        let rows = self.n_coils * self.n_lines;
        self.along_x
            .rows(queue, &frame.samples, &mut frame.hybrid, rows, Way::IMAGE)?;
        let lines = (&frame.hybrid, &tables.line_of, &tables.ones);
        let sizes = [self.n_coils, self.n_lines, self.m, self.nx];
        sort_lines(queue, lines, &mut frame.sorted, sizes)?;
        let batch = [self.n_coils, self.nx];
        self.short.columns(
            queue,
            &frame.sorted,
            &mut frame.folded,
            batch,
            Way::FROM_ZERO,
        )?;
        let folds = self.ny / self.m;
        let args = [
            Arg::input(&frame.folded),
            Arg::input(weights),
            Arg::input(&tables.ones),
            Arg::output(&mut frame.out),
            int(self.n_coils)?,
            int(folds)?,
            int(self.m)?,
            int(self.nx)?,
        ];
        let pairs = self.m * self.nx.div_ceil(2);
        let blocks = [grid(pairs.div_ceil(128))?, 1, grid(folds.div_ceil(4))?];
        queue.launch("grappa_unmix_c32", blocks, &args)
    }
}

fn index(i: usize) -> Result<i32, CudaError> {
    i32::try_from(i).map_err(|_| CudaError::Wrong {
        what: format!("index {i}"),
        why: "kernels count below 2^31".into(),
    })
}

struct Tables {
    line_of: Buffer<i32>,
    ones: Buffer<Complex32>,
}

/// What filling makes beyond the wrapped convolution of the pattern's lines ([`super::fold`]).
struct Beside {
    n_diff: usize,
    n_rows: usize,
    predictors: Buffer<Complex32>,
    conjugate: Buffer<Complex32>,
    /// Factor of the image, `[y, x]`.
    turn: Buffer<Complex32>,
    measured: Buffer<i32>,
    starts: Buffer<i32>,
    predictor: Buffer<i32>,
    source: Buffer<i32>,
    shifts: Buffer<i32>,
    difference: Buffer<Complex32>,
    spectrum: Buffer<Complex32>,
    image: Buffer<Complex32>,
}

impl Beside {
    fn new(plan: &Plan<'_>, stream: &Stream) -> Result<Self, CudaError> {
        let unmixing = plan.unmixing;
        let (blocks, lines) = (&unmixing.blocks, &unmixing.lines);
        let [n_predictors, n_conjugate] = blocks.first().map_or([0, 0], |b| {
            [b.beside.predictors.len(), b.beside.conjugate.len()]
        });
        let predictors = plan.rows(n_predictors, |block, i| blocks[block].beside.predictors[i]);
        let conjugate = plan.rows(n_conjugate, |block, i| blocks[block].beside.conjugate[i]);
        let scale = (plan.ny as f32).sqrt();
        let turn = plan.rows(plan.ny, |block, y| blocks[block].turn[y].scaled(scale));
        let n_rows = n_conjugate / plan.n_coils;
        let (mut measured, mut starts) = (Vec::new(), vec![0i32]);
        let (mut predictor, mut source, mut shifts) = (Vec::new(), Vec::new(), Vec::new());
        for line in lines {
            measured.push(
                line.measured
                    .map_or(Ok(-1), |row| index(plan.beside[row]))?,
            );
            for &(of, row) in &line.terms {
                predictor.push(index(of)?);
                source.push(index(plan.pattern[row])?);
            }
            starts.push(index(predictor.len())?);
            let first = line.line as i64 - (plan.ny / 2) as i64 - (n_rows / 2) as i64;
            shifts.push(index(first.rem_euclid(plan.ny as i64) as usize)?);
        }
        if predictor.is_empty() {
            // No buffer is empty; no line looks at this term.
            predictor.push(0);
            source.push(0);
        }
        let card = plan.card;
        let context = card.context();
        Ok(Self {
            n_diff: lines.len(),
            n_rows,
            predictors: card.upload(stream, &predictors)?,
            conjugate: card.upload(stream, &conjugate)?,
            turn: card.upload(stream, &turn)?,
            measured: card.upload(stream, &measured)?,
            starts: card.upload(stream, &starts)?,
            predictor: card.upload(stream, &predictor)?,
            source: card.upload(stream, &source)?,
            shifts: card.upload(stream, &shifts)?,
            difference: context.buffer(lines.len() * plan.n_coils * plan.nx)?,
            spectrum: context.buffer(plan.ny * plan.nx)?,
            image: context.buffer(plan.ny * plan.nx)?,
        })
    }

    fn add(
        &mut self,
        plan: &Plan<'_>,
        queue: &Capture,
        frame: &mut Frame,
    ) -> Result<(), CudaError> {
        let columns = grid(plan.nx.div_ceil(128))?;
        let args = [
            Arg::input(&frame.hybrid),
            Arg::input(&self.predictors),
            Arg::input(&self.measured),
            Arg::input(&self.starts),
            Arg::input(&self.predictor),
            Arg::input(&self.source),
            Arg::output(&mut self.difference),
            int(plan.n_coils)?,
            int(plan.n_lines)?,
            int(plan.nx)?,
        ];
        let blocks = [columns, grid(plan.n_coils)?, grid(self.n_diff)?];
        queue.launch("grappa_difference_c32", blocks, &args)?;
        let args = [
            Arg::input(&self.difference),
            Arg::input(&self.conjugate),
            Arg::input(&self.shifts),
            Arg::output(&mut self.spectrum),
            int(plan.n_coils)?,
            int(self.n_diff)?,
            int(self.n_rows)?,
            int(plan.ny)?,
            int(plan.nx)?,
        ];
        let blocks = [columns, grid(plan.ny)?, 1];
        queue.launch("grappa_spread_c32", blocks, &args)?;
        let batch = [1, plan.nx];
        plan.long.columns(
            queue,
            &self.spectrum,
            &mut self.image,
            batch,
            Way::FROM_ZERO,
        )?;
        let n = plan.ny * plan.nx;
        let args = [
            Arg::input(&self.turn),
            Arg::input(&self.image),
            Arg::output(&mut frame.out),
            int(n)?,
        ];
        queue.launch("add_product_c32", [grid(n.div_ceil(128))?, 1, 1], &args)
    }
}
