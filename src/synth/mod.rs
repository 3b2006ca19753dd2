//! Finished series of one study in, contrasts that nobody measured out, each with how sure it is.
//!
//! [`Synthesiser`] is the door: planned once (networks, parameters), run for each examination. T1w and T2w find their
//! roles (`role`), T2w is registered to T1w (`register`) and brought onto its grid, both are scaled, the networks run slice
//! by slice, and every slice leaves as soon as it is there. Everything lies on the grid of T1w and in its frame of reference.
//!
//! # What happens to a set that is not as it should be
//! | found | STIR, T2FS | CT |
//! | --- | --- | --- |
//! | T1w and T2w of one study | made | made |
//! | no T2w | refused | from T1w alone, marked |
//! | T2w, but not of that frame of reference, not sagittal, too little in common, or moved too far | refused | from T1w alone, marked |
//! | no T1w; T1w not sagittal | refused | refused |
//! | different patients or studies; roles exchanged, alike, or of another contrast; a synthetic source | refused | refused |
//! | network not there, not of the contract, answer not finite | that one refused | that one refused |
//! | no frame of reference stated | made, marked | made, marked |
//! | times of the sequence not stated | usual ones stand for them, marked | likewise |
//! | T2w does not cover the field of view | it abstains there, marked | it abstains there, marked |
//! | signal voids (metal, gas, flowing blood) of more than 1 ml | it abstains there, marked | it abstains there, marked |
//! | outside of what a network knows (`domain` above 1) | it abstains on the whole slice, marked | likewise |
//!
//! The acquired images are not touched, and whoever calls this has handed them on before.

mod error;
mod grid;
mod network;
mod params;
mod register;
mod role;
mod series;

pub use error::{Refused, SynthError};
pub use grid::Volume;
pub use params::SynthParams;
pub use register::{Registered, Rigid};
pub use series::{Facts, Series, facts};

use std::sync::Arc;

use num_complex::Complex32;

use crate::data::{
    Fault, FrameKey, Geometry, Intensity, Note, ReconImage, Scan, SourceSeries, Step, Synthetic,
    SyntheticKind,
};
use crate::model::{Model, ModelError};
use grid::{Affine, Turn};
use network::{CT, FS, Network, Planes};

/// Slices may be tilted from sagittal by so much.
const MOST_TILT_DEG: f64 = 30.0;
/// Share of the body in T1w that T2w must cover, percent.
const LEAST_OVERLAP: f64 = 60.0;
/// Voids below this are cortical bone, vessels and the like, ml.
const VOID_ML: f64 = 1.0;

/// Series in their roles.
#[derive(Clone, Debug)]
pub struct Exam {
    /// T1-weighted.
    pub t1w: Option<Series>,
    /// T2-weighted.
    pub t2w: Option<Series>,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many slices of each were made.
    pub made: Vec<(SyntheticKind, usize)>,
    /// What was asked for and is not there.
    pub refused: Vec<Refused>,
    /// How T2w lay to T1w.
    pub registered: Option<Registered>,
    /// Marks of the set as a whole.
    pub notes: Vec<Note>,
}

/// What takes the slices, each with the scan that it belongs to.
pub type Leave<'a> = dyn FnMut(&Scan, ReconImage) -> Result<(), Fault> + Send + 'a;

/// The planned stage.
#[derive(Debug)]
pub struct Synthesiser {
    params: SynthParams,
    fs: Result<Network, SynthError>,
    ct: Result<Network, SynthError>,
}

/// A set on one grid.
struct Set {
    turn: Turn,
    matrix: [usize; 3],
    /// In units of the scale.
    t1w: Vec<f32>,
    t2w: Option<Vec<f32>>,
    scale: [f32; 2],
    noise: [f32; 2],
    /// Where nothing may be said, whatever a network says.
    is_void: Vec<bool>,
    notes: Vec<Note>,
    registered: Option<Registered>,
}

/// Numbers of the sequences, usual ones where the header is silent.
struct Numbers {
    field_strength_t: f32,
    sequence: Vec<f32>,
    assumed: Vec<&'static str>,
}

impl Synthesiser {
    /// Checks the parameters and loads what is needed for what is wanted. A network that cannot be had refuses its own
    /// images only, when they are asked for.
    ///
    /// # Errors
    /// [`SynthError::Params`].
    pub fn plan(
        params: &SynthParams,
        load: &mut dyn FnMut(&str) -> Result<Arc<Model>, ModelError>,
    ) -> Result<Self, SynthError> {
        params.check()?;
        let not_asked = || Err(SynthError::Model("not asked for".to_owned()));
        let wants = |k: &SyntheticKind| params.want.contains(k);
        let mut network = |is_wanted: bool, which: &str, contract| {
            if !is_wanted {
                return not_asked();
            }
            Ok(Network::new(load(which)?, contract)?)
        };
        Ok(Self {
            fs: network(
                wants(&SyntheticKind::Stir) || wants(&SyntheticKind::T2fs),
                &params.fs_model,
                &FS,
            ),
            ct: network(wants(&SyntheticKind::Ct), &params.ct_model, &CT),
            params: params.clone(),
        })
    }

    /// Makes what is wanted of an examination. Slices leave as they are made: those of STIR and T2FS, then those of CT.
    ///
    /// # Errors
    /// Those of `leave`. What cannot be made is in the report, not an error.
    pub fn run(&self, exam: &Exam, leave: &mut Leave<'_>) -> Result<Report, Fault> {
        let mut report = Report::default();
        let refuse = |report: &mut Report, kinds: &[SyntheticKind], why: &SynthError| {
            for kind in kinds {
                report.refused.push(Refused {
                    kind: *kind,
                    why: why.clone(),
                });
            }
        };
        let (ct, fs): (Vec<SyntheticKind>, Vec<SyntheticKind>) =
            (self.params.want.iter()).partition(|k| **k == SyntheticKind::Ct);
        // What lacks its network needs no registration.
        let mut fs = match &self.fs {
            Err(why) => {
                refuse(&mut report, &fs, why);
                Vec::new()
            }
            Ok(_) => fs,
        };
        let ct = match &self.ct {
            Err(why) => {
                refuse(&mut report, &ct, why);
                Vec::new()
            }
            Ok(_) => ct,
        };
        if fs.is_empty() && ct.is_empty() {
            return Ok(report);
        }
        let (t1w, set) = match self.prepare(exam) {
            Ok(set) => set,
            Err(why) => {
                refuse(&mut report, &[fs, ct].concat(), &why);
                return Ok(report);
            }
        };
        let (set, without) = set;
        report.registered = set.registered;
        report.notes.clone_from(&set.notes);
        if let Some(why) = &without {
            let of = |kind: &SyntheticKind| match why {
                SynthError::NoT2w { found, .. } => SynthError::NoT2w {
                    found: found.clone(),
                    kind: kind.title(),
                },
                other => other.clone(),
            };
            for kind in fs.drain(..) {
                let why = of(&kind);
                refuse(&mut report, &[kind], &why);
            }
            if !ct.is_empty() {
                report.notes.push(Note::new(
                    "synth_without_t2w",
                    format!("CT is made from T1w alone: {}", one_line(&why.to_string())),
                ));
            }
        }
        let numbers = self.numbers(t1w, exam.t2w.as_ref().filter(|_| set.t2w.is_some()));
        if !numbers.assumed.is_empty() {
            report.notes.push(Note::new(
                "synth_times_assumed",
                format!(
                    "the headers do not state {}: usual values stand for them",
                    numbers.assumed.join(", ")
                ),
            ));
        }
        let notes = report.notes.clone();
        let job = Job {
            params: &self.params,
            set: &set,
            numbers: &numbers,
            t1w,
            t2w: exam.t2w.as_ref().filter(|_| set.t2w.is_some()),
            notes: &notes,
        };
        let mut outside: Vec<(SyntheticKind, f32)> = Vec::new();
        let mut seen = |scan: &Scan, image: ReconImage| {
            let mark = image.synthetic.as_deref();
            let beyond = mark.and_then(|s| Some((s.kind, s.domain.filter(|d| *d > 1.0)?)));
            outside.extend(beyond);
            leave(scan, image)
        };
        let leave: &mut Leave<'_> = &mut seen;
        if let (Ok(network), false) = (&self.fs, fs.is_empty()) {
            match job.fs(network, &fs, leave) {
                Ok(n) => report.made.extend(fs.iter().map(|k| (*k, n))),
                Err(Stop::Synth(why)) => refuse(&mut report, &fs, &why),
                Err(Stop::Leave(f)) => return Err(f),
            }
        }
        if let (Ok(network), false) = (&self.ct, ct.is_empty()) {
            match job.ct(network, leave) {
                Ok(n) => report.made.push((SyntheticKind::Ct, n)),
                Err(Stop::Synth(why)) => refuse(&mut report, &ct, &why),
                Err(Stop::Leave(f)) => return Err(f),
            }
        }
        for (kind, n) in &report.made {
            let beyond = outside.iter().filter(|(k, _)| k == kind).map(|(_, d)| *d);
            let (n_beyond, most) = beyond.fold((0, 0.0f32), |(n, m), d| (n + 1, m.max(d)));
            if n_beyond > 0 {
                report.notes.push(Note::new(
                    "synth_out_of_domain",
                    format!(
                        "{}: {n_beyond} of {n} slices are unlike what the network was trained on (up to {most:.1}, at most 1): it abstains on \
                         the whole of them; another region, contrast or uneven coils (recon.intensity_correction.enabled)",
                        kind.title()
                    ),
                ));
            }
        }
        Ok(report)
    }

    /// The ladder: what may be made, on one grid. The second is why T2w is not used.
    #[allow(clippy::type_complexity)]
    fn prepare<'a>(
        &self,
        exam: &'a Exam,
    ) -> Result<(&'a Series, (Set, Option<SynthError>)), SynthError> {
        let there: Vec<&str> = [&exam.t1w, &exam.t2w]
            .into_iter()
            .flatten()
            .map(|s| s.facts.name.as_str())
            .collect();
        let found = if there.is_empty() {
            "nothing".to_owned()
        } else {
            there.join(", ")
        };
        let t1w = exam.t1w.as_ref().ok_or(SynthError::NoT1w {
            found: found.clone(),
        })?;
        for s in [&exam.t1w, &exam.t2w].into_iter().flatten() {
            if s.facts.is_synthetic {
                return Err(SynthError::FromSynthetic {
                    series: s.facts.name.clone(),
                });
            }
        }
        let turn = sagittal(t1w)?;
        let fixed = turn.there(&t1w.volume);
        let body = fixed.body();
        let scale = fixed.percentile(0.995).max(f32::MIN_POSITIVE);
        let mut set = Set {
            turn,
            matrix: turn.size(),
            t1w: fixed.values.iter().map(|v| v / scale).collect(),
            t2w: None,
            scale: [scale, 1.0],
            noise: [t1w.noise_std / scale, 0.0],
            is_void: Vec::new(),
            notes: Vec::new(),
            registered: None,
        };
        let mut outside = None;
        let without = match &exam.t2w {
            None => Some(SynthError::NoT2w { found, kind: "it" }),
            Some(t2w) => {
                identity(t1w, t2w, &mut set.notes)?;
                match self.align(t1w, t2w, &fixed, &body, &mut set) {
                    Ok(is_there) => {
                        outside = Some(is_there);
                        None
                    }
                    // Voxels that are not what the roles say make T1w doubtful as well.
                    Err(why @ SynthError::Signal { .. }) => return Err(why),
                    Err(why) => Some(why),
                }
            }
        };
        set.is_void = self.voids(&fixed, &body, outside.as_deref(), &mut set);
        Ok((t1w, (set, without)))
    }

    /// Registers T2w to T1w and puts it on its grid; returns where it is there.
    fn align(
        &self,
        t1w: &Series,
        t2w: &Series,
        fixed: &Volume,
        body: &[bool],
        set: &mut Set,
    ) -> Result<Vec<bool>, SynthError> {
        let (first, second) = (t1w.facts.name.clone(), t2w.facts.name.clone());
        if let [Some(a), Some(b)] = [&t1w.facts, &t2w.facts].map(|f| f.frame_of_reference.clone())
            && a != b
        {
            return Err(SynthError::Identity {
                t1w: first,
                t2w: second,
                what: "frame of reference",
                found: [a, b],
            });
        }
        sagittal(t2w)?;
        let registered = register::register(fixed, &t2w.volume, body);
        let r = registered.rigid;
        let percent = 100.0 * registered.overlap;
        if percent < LEAST_OVERLAP {
            return Err(SynthError::Overlap {
                t1w: first,
                t2w: second,
                percent,
                least: LEAST_OVERLAP,
            });
        }
        let most = |v: [f64; 3]| v.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        let words = format!(
            "{:.1}, {:.1}, {:.1} mm along and {:.1}, {:.1}, {:.1} degrees about left, back, head",
            r.shift_mm[0],
            r.shift_mm[1],
            r.shift_mm[2],
            r.rotation_deg[0],
            r.rotation_deg[1],
            r.rotation_deg[2]
        );
        let limits = [self.params.max_shift_mm, self.params.max_rotation_deg];
        // Half a pixel is what the search is good for.
        let slack = 0.5 * f64::from(fixed.geometry.voxel_mm[0]);
        if most(r.shift_mm) > limits[0] + slack || most(r.rotation_deg) > limits[1] + 0.3 {
            return Err(SynthError::Motion {
                t1w: first,
                t2w: second,
                found: words,
                shift_mm: limits[0],
                rotation_deg: limits[1],
            });
        }
        let to_voxels = Affine::to_voxels(&t2w.volume.geometry)
            .after(&r.affine())
            .after(&Affine::of_voxels(&fixed.geometry));
        let moved = t2w.volume.resampled(&fixed.geometry, &to_voxels);
        let scale = t2w.volume.percentile(0.995).max(f32::MIN_POSITIVE);
        let scaled: Vec<f32> = moved.values.iter().map(|v| v / scale).collect();
        let both: Vec<bool> = body
            .iter()
            .zip(&moved.is_there)
            .map(|(a, b)| *a && *b)
            .collect();
        let resampled = Volume {
            geometry: fixed.geometry,
            values: moved.values,
        };
        role::signal(fixed, &resampled, &both).map_err(|why| SynthError::Signal {
            t1w: first,
            t2w: second,
            why,
        })?;
        set.scale[1] = scale;
        set.noise[1] = t2w.noise_std * moved.noise_gain / scale;
        set.t2w = Some(scaled);
        set.registered = Some(registered);
        set.notes.push(Note::new(
            "synth_registered",
            format!(
                "T2w was brought onto the grid of T1w; the patient had moved by {words} (mutual information {:.3} before, {:.3} after)",
                registered.information[0], registered.information[1]
            ),
        ));
        Ok(moved.is_there)
    }

    /// Where the set says nothing: T2w does not reach, or no signal comes from inside of the body.
    fn voids(
        &self,
        fixed: &Volume,
        body: &[bool],
        is_there: Option<&[bool]>,
        set: &mut Set,
    ) -> Vec<bool> {
        let ml = |n: usize| {
            let voxel: f32 = fixed.geometry.voxel_mm.iter().product();
            f64::from(voxel) * n as f64 / 1e3
        };
        let n_body = body.iter().filter(|b| **b).count().max(1);
        let mut is_void = vec![false; body.len()];
        if let Some(is_there) = is_there {
            let n = body
                .iter()
                .zip(is_there)
                .filter(|(b, t)| **b && !**t)
                .count();
            if n > 0 {
                let percent = 100.0 * n as f64 / n_body as f64;
                set.notes.push(Note::new(
                    "synth_outside_t2w",
                    format!("{percent:.1} % of the body in T1w lies outside of T2w: the networks abstain there"),
                ));
            }
            (is_void.iter_mut().zip(is_there)).for_each(|(v, t)| *v = !t);
        }
        let mut dark = fixed.clone();
        dark.values.clone_from(&set.t1w);
        if let Some(t2w) = &set.t2w {
            (dark.values.iter_mut().zip(t2w)).for_each(|(a, b)| *a = a.max(*b));
        }
        // Smoothed, so that only what is thick is dark: darker than noise, or than a twentieth of what is around. Fluid on T1w
        // is not as dark as that.
        let dark = dark.smoothed(3.0);
        let around = dark.local(body, 20.0);
        let floor = 2.0 * set.noise[0].max(set.noise[1]);
        let is_dark = |i: usize| body[i] && (dark.values[i] < floor || around[i] < 0.05);
        let n = (0..body.len()).filter(|i| is_dark(*i)).count();
        if ml(n) > VOID_ML {
            set.notes.push(Note::new(
                "synth_signal_void",
                format!(
                    "{:.1} ml inside of the body send no signal above noise (metal, gas, flowing blood, or too far from the coils): the networks abstain there",
                    ml(n)
                ),
            ));
            let around = Volume {
                geometry: fixed.geometry,
                values: (0..body.len())
                    .map(|i| f32::from(u8::from(is_dark(i))))
                    .collect(),
            }
            .smoothed(3.0);
            (is_void.iter_mut().zip(&around.values)).for_each(|(v, a)| *v |= *a > 0.05);
        }
        is_void
    }

    fn numbers(&self, t1w: &Series, t2w: Option<&Series>) -> Numbers {
        let mut assumed = Vec::new();
        let mut or = |name, value: Option<f32>, usual: f32| {
            value.unwrap_or_else(|| {
                assumed.push(name);
                usual
            })
        };
        let none = Facts::default();
        let (a, b) = (&t1w.facts, t2w.map_or(&none, |s| &s.facts));
        let b0 = or(
            "the field strength",
            a.field_strength_t.or(b.field_strength_t),
            1.5,
        );
        let p = &self.params;
        let mut sequence = vec![b0];
        if t2w.is_some() {
            sequence.extend([
                or("TR of T1w", a.tr_ms, 600.0),
                or("TE of T1w", a.te_ms, 10.0),
                or("echo train of T1w", a.echo_train_length, 3.0),
                or("echo spacing of T1w", a.echo_spacing_ms, 10.0),
                or("TR of T2w", b.tr_ms, 3500.0),
                or("TE of T2w", b.te_ms, 100.0),
                or("echo train of T2w", b.echo_train_length, 19.0),
                or("echo spacing of T2w", b.echo_spacing_ms, 10.0),
                p.stir_tr_ms,
                p.stir_te_ms,
                p.ti_ms(b0),
                p.stir_esp_ms,
                p.t2fs_tr_ms,
                p.t2fs_te_ms,
                p.t2fs_residual_fat,
            ]);
        }
        Numbers {
            field_strength_t: b0,
            sequence,
            assumed,
        }
    }
}

/// The turn of a series' slices, if they are sagittal.
fn sagittal(series: &Series) -> Result<Turn, SynthError> {
    let (turn, degrees) = Turn::of(&series.volume.geometry);
    if degrees > MOST_TILT_DEG {
        return Err(SynthError::Plane {
            series: series.facts.name.clone(),
            degrees,
            most: MOST_TILT_DEG,
        });
    }
    Ok(turn)
}

/// One patient, one study; frames of reference are for [`Synthesiser::align`].
fn identity(t1w: &Series, t2w: &Series, notes: &mut Vec<Note>) -> Result<(), SynthError> {
    let (a, b) = (&t1w.facts, &t2w.facts);
    for (what, pair) in [
        ("patient", [&a.patient, &b.patient]),
        ("study", [&a.study, &b.study]),
    ] {
        if let [Some(x), Some(y)] = pair
            && x != y
        {
            return Err(SynthError::Identity {
                t1w: a.name.clone(),
                t2w: b.name.clone(),
                what,
                found: [x.clone(), y.clone()],
            });
        }
    }
    if a.frame_of_reference.is_none() || b.frame_of_reference.is_none() {
        notes.push(Note::new(
            "synth_frame_unstated",
            "a header states no frame of reference: the coordinates of T1w and T2w are taken to be of one scanner and one position",
        ));
    }
    if a.patient.is_none() || b.patient.is_none() {
        notes.push(Note::new(
            "synth_patient_unstated",
            "a header states no patient: that both series are of one is the word of whoever gave them",
        ));
    }
    Ok(())
}

/// Why slices stopped.
enum Stop {
    Synth(SynthError),
    Leave(Fault),
}

impl From<SynthError> for Stop {
    fn from(e: SynthError) -> Self {
        Self::Synth(e)
    }
}

/// One run of one network.
struct Job<'a> {
    params: &'a SynthParams,
    set: &'a Set,
    numbers: &'a Numbers,
    t1w: &'a Series,
    t2w: Option<&'a Series>,
    notes: &'a [Note],
}

/// One slice of one contrast, on the networks' axes.
struct Made {
    kind: SyntheticKind,
    z: usize,
    values: Vec<f32>,
    sigma: Vec<f32>,
    abstains: Vec<bool>,
    bone: Option<Vec<f32>>,
    domain: f32,
}

impl Job<'_> {
    fn planes<'s>(&'s self, none: &'s [f32]) -> Planes<'s> {
        Planes {
            t1w: &self.set.t1w,
            t2w: self.set.t2w.as_deref().unwrap_or(none),
            matrix: self.set.matrix,
        }
    }

    /// Where a slice may not be read: `limits` are maps and what they may reach.
    fn abstains(&self, z: usize, domain: f32, limits: &[(&[f32], f32)]) -> Vec<bool> {
        let n = self.set.matrix[0] * self.set.matrix[1];
        let is_void = &self.set.is_void[z * n..][..n];
        (0..n)
            .map(|i| domain > 1.0 || is_void[i] || limits.iter().any(|(map, most)| map[i] > *most))
            .collect()
    }

    fn fs(
        &self,
        network: &Network,
        kinds: &[SyntheticKind],
        leave: &mut Leave<'_>,
    ) -> Result<usize, Stop> {
        let scans: Vec<Scan> = kinds.iter().map(|k| self.scan(*k)).collect();
        let n = self.set.matrix[0] * self.set.matrix[1];
        let most = network.limit("mismatch");
        let numbers = [
            ("noise", self.set.noise.to_vec()),
            ("sequence", self.numbers.sequence.clone()),
        ];
        network.run::<Stop>(self.planes(&[]), &numbers, &mut |z, mut answer| {
            let mismatch = answer.take("mismatch");
            for (kind, scan) in kinds.iter().zip(&scans) {
                let (name, sigma_name) = match kind {
                    SyntheticKind::Stir => ("stir", "stir_sigma"),
                    _ => ("t2fs", "t2fs_sigma"),
                };
                let (mut values, mut sigma) = (answer.take(name), answer.take(sigma_name));
                let abstains = self.abstains(
                    z,
                    answer.domain,
                    &[
                        (&mismatch[..n], most),
                        (&mismatch[n..], most),
                        (&sigma, network.limit(sigma_name)),
                    ],
                );
                let scale = self.set.scale[1];
                // A magnitude.
                values.iter_mut().for_each(|v| *v = v.max(0.0) * scale);
                sigma.iter_mut().for_each(|v| *v *= scale);
                let made = Made {
                    kind: *kind,
                    z,
                    values,
                    sigma,
                    abstains,
                    bone: None,
                    domain: answer.domain,
                };
                leave(scan, self.image(made, network)).map_err(Stop::Leave)?;
            }
            Ok(())
        })?;
        Ok(self.set.matrix[2])
    }

    fn ct(&self, network: &Network, leave: &mut Leave<'_>) -> Result<usize, Stop> {
        let scan = self.scan(SyntheticKind::Ct);
        let has_t2w = f32::from(u8::from(self.set.t2w.is_some()));
        let [pixel_mm, _, pitch_mm] = self.t1w.volume.geometry.voxel_mm;
        let numbers = [
            ("noise", self.set.noise.to_vec()),
            (
                "geometry",
                vec![has_t2w, pixel_mm, pitch_mm, self.numbers.field_strength_t],
            ),
        ];
        let none = match self.set.t2w {
            Some(_) => Vec::new(),
            None => vec![0.0; self.set.t1w.len()],
        };
        network.run::<Stop>(self.planes(&none), &numbers, &mut |z, mut answer| {
            let sigma = answer.take("sigma");
            let abstains = self.abstains(z, answer.domain, &[(&sigma, network.limit("hu_sigma"))]);
            let made = Made {
                kind: SyntheticKind::Ct,
                z,
                values: answer.take("hu"),
                sigma,
                abstains,
                bone: Some(answer.take("bone")),
                domain: answer.domain,
            };
            leave(&scan, self.image(made, network)).map_err(Stop::Leave)
        })?;
        Ok(self.set.matrix[2])
    }

    /// The slice as an image of its own series, turned back.
    fn image(&self, made: Made, network: &Network) -> ReconImage {
        let turn = &self.set.turn;
        let (slice, values) = turn.back(made.z, &made.values);
        let back = |map: &[f32]| turn.back(made.z, map).1;
        let flags: Vec<f32> = made
            .abstains
            .iter()
            .map(|a| f32::from(u8::from(*a)))
            .collect();
        let manifest = network.model.manifest();
        let kind = made.kind;
        let synthetic = Synthetic {
            kind,
            model: manifest.name.clone(),
            version: manifest.version.clone(),
            digest: manifest.sha256.clone(),
            sources: self.sources(),
            sigma: Some(back(&made.sigma)),
            abstention: Some(back(&flags)),
            bone: made.bone.as_deref().map(back),
            domain: Some(made.domain),
        };
        let source = self
            .t1w
            .slices
            .get(slice)
            .filter(|_| self.t1w.slices.len() > 1);
        let lead = source.or(self.t1w.slices.first());
        let mut provenance = lead.map(|i| i.provenance.clone()).unwrap_or_default();
        let names: Vec<String> = synthetic
            .sources
            .iter()
            .map(|s| format!("{} ({})", s.role, s.name))
            .collect();
        let marks: Vec<&str> = provenance.notes.iter().map(|n| n.code).collect();
        let mut notes = vec![Note::new(
            "synthetic",
            format!(
                "{}; not measured: made from {} on the grid of T1w by the network {}",
                synthetic.sentence(),
                names.join(" and "),
                manifest.id()
            ),
        )];
        if made.domain > 1.0 {
            notes.push(Note::new(
                "synth_out_of_domain",
                format!(
                    "the slice is unlike what the network was trained on ({:.2}, at most 1): it abstains everywhere",
                    made.domain
                ),
            ));
        }
        notes.extend(self.notes.iter().cloned());
        if !marks.is_empty() {
            notes.push(Note::new(
                "synth_source_marks",
                format!("T1w is marked itself: {}", marks.join(", ")),
            ));
        }
        provenance.steps = vec![Step {
            op: format!("synth/{}", kind.name()),
            backend: "cpu",
            detail: format!(
                "{} on {}, {}",
                manifest.id(),
                network.model.runtime(),
                self.target(kind)
            ),
        }];
        provenance.notes = notes;
        let key = lead.map_or(0, |i| i.key.slice_idx);
        ReconImage {
            key: FrameKey {
                slice_idx: if source.is_some() {
                    key
                } else {
                    u16::try_from(slice).unwrap_or(u16::MAX)
                },
                ..FrameKey::default()
            },
            geometry: source.map_or_else(|| self.slice_geometry(slice), |i| i.geometry),
            table_position_mm: lead.map_or([0.0; 3], |i| i.table_position_mm),
            voxels: values.into_iter().map(|v| Complex32::new(v, 0.0)).collect(),
            intensity: Intensity::Arbitrary,
            noise_std: None,
            gfactor: None,
            finer: [1.0; 3],
            denoised: None,
            synthetic: Some(Box::new(synthetic)),
            csm: None,
            stamps: lead.map(|i| i.stamps).unwrap_or_default(),
            provenance,
        }
    }

    /// Slice of a slab.
    fn slice_geometry(&self, slice: usize) -> Geometry {
        let g = self.t1w.volume.geometry;
        let [nx, ny, _] = g.matrix;
        let middle = [(nx / 2) as f64, (ny / 2) as f64, slice as f64];
        #[allow(clippy::cast_possible_truncation)] // storage precision
        Geometry {
            matrix: [nx, ny, 1],
            centre_mm: g.voxel_to_patient(middle).map(|v| v as f32),
            ..g
        }
    }

    fn sources(&self) -> Vec<SourceSeries> {
        [("T1w", Some(self.t1w)), ("T2w", self.t2w)]
            .into_iter()
            .filter_map(|(role, s)| s.map(|s| (role, s)))
            .map(|(role, s)| SourceSeries {
                role: role.to_owned(),
                name: s.facts.name.clone(),
                instances: s.instances.clone(),
            })
            .collect()
    }

    /// The sequence that is meant, in words.
    fn target(&self, kind: SyntheticKind) -> String {
        let p = self.params;
        match kind {
            SyntheticKind::Stir => format!(
                "TR {} ms, TE {} ms, TI {} ms",
                p.stir_tr_ms,
                p.stir_te_ms,
                p.ti_ms(self.numbers.field_strength_t)
            ),
            SyntheticKind::T2fs => format!(
                "TR {} ms, TE {} ms, {} of the fat left",
                p.t2fs_tr_ms, p.t2fs_te_ms, p.t2fs_residual_fat
            ),
            SyntheticKind::Ct => "HU".to_owned(),
        }
    }

    /// The scan that was never made: that of T1w with the name and the times of what is meant, and nothing of its sampling.
    fn scan(&self, kind: SyntheticKind) -> Scan {
        let mut header = (*self.t1w.scan.header).clone();
        let p = self.params;
        let mut measurement = header.measurement_information.take().unwrap_or_default();
        let words = match kind {
            SyntheticKind::Stir => format!(
                " TI {} TE {}",
                p.ti_ms(self.numbers.field_strength_t),
                p.stir_te_ms
            ),
            SyntheticKind::T2fs => format!(" TE {}", p.t2fs_te_ms),
            SyntheticKind::Ct => String::new(),
        };
        measurement.series_description = Some(format!("{}{words}", kind.title()));
        measurement.protocol_name = Some(kind.title().to_owned());
        measurement.sequence_name = None;
        header.measurement_information = Some(measurement);
        let mut sequence = header.sequence_parameters.take().unwrap_or_default();
        let (tr, te, ti) = match kind {
            SyntheticKind::Stir => (
                vec![p.stir_tr_ms],
                vec![p.stir_te_ms],
                vec![p.ti_ms(self.numbers.field_strength_t)],
            ),
            SyntheticKind::T2fs => (vec![p.t2fs_tr_ms], vec![p.t2fs_te_ms], Vec::new()),
            SyntheticKind::Ct => (Vec::new(), Vec::new(), Vec::new()),
        };
        (sequence.tr, sequence.te, sequence.ti) = (tr, te, ti);
        sequence.flip_angle_deg.clear();
        sequence.echo_spacing.clear();
        sequence.sequence_type = None;
        header.sequence_parameters = Some(sequence);
        for encoding in &mut header.encoding {
            encoding.parallel_imaging = None;
            encoding.echo_train_length = None;
        }
        Scan {
            header: Arc::new(header),
            encodings: Vec::new(),
        }
    }
}

fn one_line(text: &str) -> String {
    text.split('\n')
        .map(str::trim)
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests;
