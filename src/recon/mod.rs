//! K-space in, image out.
//!
//! `Frame` -> `ReconImage`: coil compression, parallel imaging (GRAPPA, SENSE) or plain Fourier transform, coil
//! combination, partial Fourier, k-space filter, interpolation to the image's matrix, and the noise of every voxel
//! all along the way. Knows `data`, `num` and `device`, no file and no pipeline.
//!
//! [`Recon::plan`] decides once per encoding and sampling pattern what will be done, and says why;
//! [`Recon::run`] does it for every frame with that pattern.

pub(crate) mod acs;
mod auto;
pub mod combine;
pub mod compress;
pub mod csm;
mod error;
pub mod filter;
pub mod grappa;
pub mod intensity;
pub mod interpolate;
mod known;
mod on_card;
mod params;
pub mod partial_fourier;
pub mod replica;
mod run;
pub mod sampling;
pub mod sense;
mod smooth;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tikhonov;
pub mod unrolled;

pub use error::ReconError;
pub use known::{Calibrations, Keep};
pub use params::{Method, OutputParams, ReconParams};

use auto::{Choice, Facts};
use filter::FilterParams;
use grappa::window::Window;
use known::Known;
use sampling::{Block, Sampling};

use crate::data::{Calibration, Frame, Geometry, Note, ReconImage, Scan, ScanEncoding, Shape};
use crate::device::{CardUse, Device, Recipe};
use on_card::Card;

/// A planned reconstruction: one encoding, one sampling pattern.
#[derive(Clone, Debug)]
pub struct Recon {
    params: ReconParams,
    shape: Shape,
    ro_range: std::ops::Range<usize>,
    mask: Vec<bool>,
    sampling: Sampling,
    calibration: Calibration,
    acs_block: Block,
    acs_origin: &'static str,
    /// Lines that GRAPPA fills: the measured extent, up to the edge of the grid where that is less than a step away.
    fill_extent: Block,
    choice: Choice,
    window: Option<Window>,
    sense: Option<sense::Sense>,
    /// Where operators that have kernels run; otherwise on the CPU.
    card: Option<Card>,
    /// Of `unrolled`.
    network: Option<unrolled::Network>,
    partial_fourier: partial_fourier::Plan,
    /// z, y, x.
    axes: [interpolate::Axis; 3],
    /// The same without filter, for maps.
    map_axes: [interpolate::Axis; 3],
    interpolation: String,
    variance_factor: f32,
    /// Matrix and voxel size of the image; places are those of each frame.
    geometry: Geometry,
    notes: Vec<Note>,
    recipes: Vec<Recipe>,
}

impl Recon {
    /// Decides method, shapes and scratch for frames that are sampled like `frame`.
    ///
    /// # Errors
    /// * [`ReconError::Parameter`]: a parameter is outside its range.
    /// * [`ReconError::NoEncoding`], [`ReconError::NoLines`]: there is nothing Cartesian to reconstruct.
    /// * [`ReconError::Calibration`]: too few calibration lines; another method is never taken instead.
    /// * [`ReconError::Pattern`]: the method asked for does not fit the sampling.
    /// * [`ReconError::Memory`]: working memory exceeds the device's budget.
    /// * [`ReconError::Card`]: a card is required and has no kernels for the method.
    pub fn plan(
        scan: &Scan,
        frame: &Frame,
        params: &ReconParams,
        device: &Device,
    ) -> Result<Self, ReconError> {
        params.check()?;
        let encoding_idx = frame.key.encoding_idx;
        let Some(Some(encoding)) = scan.encodings.get(usize::from(encoding_idx)) else {
            return Err(ReconError::NoEncoding {
                encoding_idx,
                n_encodings: scan.encodings.len(),
            });
        };
        let shape = frame.kspace.shape;
        if frame.kspace.lines.is_empty() || shape.is_empty() {
            return Err(ReconError::NoLines {
                frame: format!("{:?}", frame.key),
            });
        }
        let sampling = sampling::of(&frame.kspace);
        let (acs_block, acs_origin) = acs::locate(frame, encoding.calibration);
        if acs_block.is_empty() {
            return Err(ReconError::NoCentre {
                frame: format!("{:?}", frame.key),
                lines: frame.kspace.lines.len(),
            });
        }
        let choice = auto::choose(
            &Facts {
                sampling: &sampling,
                calibration: &acs_block,
                n_coils: coils_of(params, shape.coil),
                n_ro: frame.kspace.ro_range.len(),
                grid: [shape.pe2, shape.pe1],
            },
            params,
        )?;
        let fill_extent = reach_edges(&sampling, &frame.kspace.mask(), shape);
        let window = match (choice.method, choice.lattice) {
            (Method::Grappa, Some(lattice)) => {
                let is_3d = shape.pe2 > 1;
                Some(Window::new(lattice, &params.grappa, is_3d, &acs_block))
            }
            _ => None,
        };
        let sense = match choice.method {
            Method::Sense | Method::CgSense | Method::Unrolled => {
                let solver = Self::sense_params_of(params, frame);
                Some(sense::Sense::plan(&frame.kspace, &solver)?)
            }
            _ => None,
        };
        let chosen = (choice.method, choice.lattice.as_ref());
        let chosen = match choice.method {
            // Elsewhere a lattice says nothing of GRAPPA.
            Method::Grappa
                if params.grappa.apply != grappa::Apply::Kspace
                    && params.combine.method == combine::CombineMethod::Adaptive =>
            {
                chosen
            }
            method => (method, None),
        };
        let placed = Card::of(device, &frame.kspace, sense.as_ref(), chosen)?;
        let (card, not_on_a_card) = match placed {
            Ok(card) => (Some(card), None),
            Err(why) => (None, why),
        };
        let partial_fourier = plan_partial_fourier(&choice, &fill_extent, frame, params)?;
        let mut notes: Vec<Note> = choice
            .warning
            .iter()
            .map(|(code, text)| Note::new(code, text.clone()))
            .collect();
        if let CardUse::No { why: Some(why) } = &device.card {
            notes.push(Note::new("card_not_used", format!("all on the CPU: {why}")));
        }
        let geometry = image_geometry(&frame.geometry, params.matrix, shape)?;
        let (noise_windows, variance_factor) = partial_fourier.noise();
        let ratios = field_of_view_ratios(encoding, &geometry, shape, &mut notes);
        let axes = plan_axes(&params.filter, shape, &geometry, ratios, &noise_windows);
        let map_axes = plan_axes(
            &FilterParams::default(),
            shape,
            &geometry,
            ratios,
            &noise_windows,
        );
        let interpolation = format!(
            "x {}, y {}, z {}; filter {:?}; values keep their scale",
            axes[2].describe(),
            axes[1].describe(),
            axes[0].describe(),
            params.filter.kind
        );
        let mut plan = Self {
            params: params.clone(),
            shape,
            ro_range: frame.kspace.ro_range.clone(),
            mask: frame.kspace.mask(),
            sampling,
            calibration: encoding.calibration,
            acs_block,
            acs_origin,
            fill_extent,
            choice,
            window,
            sense,
            card,
            network: None,
            partial_fourier,
            axes,
            map_axes,
            interpolation,
            variance_factor,
            geometry,
            notes,
            recipes: Vec::new(),
        };
        plan.recipes = plan.describe(not_on_a_card.as_deref());
        plan.check_memory(device)?;
        Ok(plan)
    }

    /// With the network of `unrolled`, or why there is none: then SENSE images go out, marked.
    #[must_use]
    pub fn with_network(mut self, network: unrolled::Network) -> Self {
        self.network = Some(network);
        self
    }

    /// What was decided and why, in the order in which it runs.
    pub fn recipes(&self) -> &[Recipe] {
        &self.recipes
    }

    /// The method that runs; never [`Method::Auto`].
    pub fn method(&self) -> Method {
        self.choice.method
    }

    /// Reconstructs one frame, on the current rayon pool; several frames may run at once.
    ///
    /// # Errors
    /// * [`ReconError::PatternChanged`]: the frame is not sampled as planned.
    /// * [`ReconError::Singular`], [`ReconError::NotFinite`]: the data does not allow it.
    /// * [`ReconError::Card`]: the card failed, and the CPU is not to finish.
    pub fn run(&self, frame: &Frame) -> Result<ReconImage, ReconError> {
        self.run_calibrated(frame, frame, Known::default())
    }

    /// [`Recon::run`] with calibrations that may be known from another frame or another scan: the same bits, sooner.
    ///
    /// # Errors
    /// Those of [`Recon::run`].
    pub fn run_with(
        &self,
        frame: &Frame,
        calibrations: &Calibrations,
    ) -> Result<ReconImage, ReconError> {
        let is_first = frame.key.repetition == 0 && frame.key.cardiac_phase == 0;
        let is_kept = match calibrations.keep() {
            // Each frame of an interleaved scan has a reference of its own.
            _ if self.calibration == Calibration::Interleaved => false,
            Keep::References => self.acs_origin == "reference",
            Keep::FirstFrames => self.acs_origin == "reference" || is_first,
        };
        self.run_calibrated(frame, frame, Known(is_kept.then_some(calibrations)))
    }

    /// `not_on_a_card`: why a card that is here is not used.
    fn describe(&self, not_on_a_card: Option<&str>) -> Vec<Recipe> {
        let place = match (&self.card, not_on_a_card, &self.sense) {
            (Some(card), _, Some(_)) => format!("; on {}", card.name()),
            (Some(card), _, None) => format!("; frames whose weights are known on {}", card.name()),
            (None, Some(why), _) => format!("; on the CPU: {why}"),
            (None, None, _) => String::new(),
        };
        let grid = self.shape.len() as u64 * 8;
        let mut recipes = vec![Recipe {
            op: format!("recon/{}", self.choice.method.name()),
            backend: "cpu",
            detail: format!(
                "{} coils, {} x {} x {} (ro x pe1 x pe2)",
                self.shape.coil, self.shape.ro, self.shape.pe1, self.shape.pe2
            ),
            scratch_bytes: 3 * grid,
            reason: self.choice.reason.clone() + &place,
        }];
        recipes.extend(self.sense.iter().map(|s| {
            let mut recipe = s.recipe().clone();
            if self.card.is_some() {
                recipe.backend = "cuda";
            }
            recipe.reason += &place;
            recipe
        }));
        if let Some(method) = self.partial_fourier.method() {
            recipes.push(Recipe {
                op: "recon/partial_fourier".into(),
                backend: "cpu",
                detail: format!("{method:?}"),
                scratch_bytes: 4 * grid / self.shape.coil as u64,
                reason: self.partial_fourier.reason.clone(),
            });
        }
        if !self.axes.iter().all(interpolate::Axis::is_identity) {
            recipes.push(Recipe {
                op: "recon/interpolate".into(),
                backend: "cpu",
                detail: self.interpolation.clone(),
                scratch_bytes: 3 * 8 * self.geometry.matrix.iter().product::<usize>() as u64,
                reason: "the image's matrix, field of view or filter asks for it".into(),
            });
        }
        recipes
    }

    fn check_memory(&self, device: &Device) -> Result<(), ReconError> {
        let need: u64 = self.recipes.iter().map(|r| r.scratch_bytes).sum();
        if need <= device.memory_bytes {
            return Ok(());
        }
        Err(ReconError::Memory {
            need_mb: need >> 20,
            have_mb: device.memory_bytes >> 20,
            hint: "compress coils (`compress.method = \"svd\"`) or allow more memory",
        })
    }

    /// The planned matrix at the frame's own place.
    fn geometry_of(&self, frame: &Frame) -> Geometry {
        Geometry {
            matrix: self.geometry.matrix,
            voxel_mm: self.geometry.voxel_mm,
            ..frame.geometry
        }
    }
}

/// Coils that weights are calibrated for. How many virtual coils an energy asks for is known only in `run`, which
/// checks again: here at least one is certain.
fn coils_of(params: &ReconParams, n_coils: usize) -> usize {
    match (params.compress.method, params.compress.n_virtual) {
        (compress::CompressMethod::None, _) => n_coils,
        (_, 0) => n_coils.min(2),
        (_, n) => n.min(n_coils),
    }
}

/// The measured extent, widened to the edge of the grid where less than one step of the lattice is missing.
///
/// The outermost lines of an irregular mask fall where chance put them: one side counts as not measured only where
/// the other side's lines are at least half as dense as in the rest of the mask.
fn reach_edges(sampling: &Sampling, mask: &[bool], shape: Shape) -> Block {
    let (r1, r2) = sampling.lattice.map_or((1, 1), |l| (l.r1, l.r2));
    let extent = &sampling.extent;
    let lines = |block: &Block| -> usize {
        let row = |k2: usize| &mask[k2 * shape.pe1..(k2 + 1) * shape.pe1][block.pe1.clone()];
        block
            .pe2
            .clone()
            .map(|k2| row(k2).iter().filter(|m| **m).count())
            .sum()
    };
    let density = (lines(extent) - lines(&sampling.acs)) as f64
        / (extent.len() - sampling.acs.len()).max(1) as f64;
    let widen = |range: &std::ops::Range<usize>, n: usize, r: usize, is_pe1: bool| {
        let start = if range.start < r { 0 } else { range.start };
        let end = if n - range.end < r { n } else { range.end };
        if sampling.lattice.is_some() || range.is_empty() {
            return start..end;
        }
        // The lines whose mirror images were not measured.
        let mirror = |k: usize| (2 * (n / 2)).saturating_sub(k);
        let alone = if n / 2 - range.start.min(n / 2) < range.end.saturating_sub(n / 2 + 1) {
            mirror(range.start) + 1..range.end
        } else {
            range.start..(mirror(range.end - 1)).max(range.start)
        };
        let block = if is_pe1 {
            Block {
                pe2: extent.pe2.clone(),
                pe1: alone,
            }
        } else {
            Block {
                pe2: alone,
                pe1: extent.pe1.clone(),
            }
        };
        if lines(&block) as f64 >= 0.5 * density * block.len() as f64 {
            start..end
        } else {
            0..n
        }
    };
    Block {
        pe2: widen(&extent.pe2, shape.pe2, r2, false),
        pe1: widen(&extent.pe1, shape.pe1, r1, true),
    }
}

fn plan_partial_fourier(
    choice: &Choice,
    extent: &Block,
    frame: &Frame,
    params: &ReconParams,
) -> Result<partial_fourier::Plan, ReconError> {
    let shape = frame.kspace.shape;
    let (r1, r2) = choice.lattice.map_or((1, 1), |l| (l.r1, l.r2));
    let axis = |n, measured: &std::ops::Range<usize>| partial_fourier::AxisExtent {
        n,
        measured: measured.clone(),
    };
    partial_fourier::Plan::new(
        [
            axis(shape.pe2, &extent.pe2),
            axis(shape.pe1, &extent.pe1),
            axis(shape.ro, &frame.kspace.ro_range),
        ],
        [r2, r1, 1],
        &params.partial_fourier,
    )
}

fn image_geometry(
    frame: &Geometry,
    matrix: Option<[usize; 3]>,
    shape: Shape,
) -> Result<Geometry, ReconError> {
    let Some(matrix) = matrix else {
        let n_z = if shape.pe2 == 1 { 1 } else { frame.matrix[2] };
        return Ok(Geometry {
            matrix: [frame.matrix[0], frame.matrix[1], n_z],
            ..*frame
        });
    };
    if shape.pe2 == 1 && matrix[2] != 1 {
        return Err(ReconError::Parameter {
            key: "matrix",
            value: format!("{matrix:?}"),
            allowed: "1 along z for a 2D scan",
        });
    }
    let fov = frame.field_of_view_mm();
    Ok(Geometry {
        matrix,
        voxel_mm: [0, 1, 2].map(|a| fov[a] / matrix[a] as f32),
        ..*frame
    })
}

/// Field of view of the grid over that of the image, along x, y, z.
fn field_of_view_ratios(
    encoding: &ScanEncoding,
    geometry: &Geometry,
    shape: Shape,
    notes: &mut Vec<Note>,
) -> [f64; 3] {
    let grid = [shape.ro, shape.pe1, shape.pe2];
    let image = geometry.field_of_view_mm();
    let mut unknown = Vec::new();
    let ratios = std::array::from_fn(|a| {
        if grid[a] == 1 {
            return 1.0;
        }
        let encoded = encoding.encoded;
        let own = f64::from(encoded.field_of_view_mm[a]) * grid[a] as f64
            / encoded.matrix[a].max(1) as f64;
        let ratio = own / f64::from(image[a]);
        if ratio.is_finite() && (0.05..=20.0).contains(&ratio) {
            return ratio;
        }
        unknown.push(["x", "y", "z"][a]);
        1.0
    });
    if !unknown.is_empty() {
        notes.push(Note::new(
            "field_of_view_unknown",
            format!(
                "the header's fields of view along {} make no sense ({:?} mm encoded, {image:?} mm image): the whole \
                 encoded field of view is shown",
                unknown.join(", "),
                encoding.encoded.field_of_view_mm
            ),
        ));
    }
    ratios
}

fn plan_axes(
    params: &FilterParams,
    shape: Shape,
    geometry: &Geometry,
    ratios: [f64; 3],
    noise_windows: &[Vec<f32>; 3],
) -> [interpolate::Axis; 3] {
    let grid = [shape.pe2, shape.pe1, shape.ro];
    std::array::from_fn(|a| {
        let n = grid[a];
        let window =
            (params.is_on(2 - a) && n > 1).then(|| filter::window(params.kind, params.width, n));
        let n_out = if n == 1 { 1 } else { geometry.matrix[2 - a] };
        interpolate::Axis::new(n, n_out, ratios[2 - a], window, &noise_windows[a])
    })
}
