//! A finished series as the stage sees it: magnitudes on one block of voxels, and what its header says of it.

use std::sync::Arc;

use super::SynthError;
use super::grid::{Volume, cross, dot, norm};
use crate::data::{Geometry, ReconImage, Scan};

/// What a header says of a series; `None` where it says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// For people.
    pub name: String,
    /// Everything that names the sequence, in lower case.
    pub words: String,
    /// Patient identifier, else the name.
    pub patient: Option<String>,
    /// Study instance, else its number and date.
    pub study: Option<String>,
    /// Frame of reference.
    pub frame_of_reference: Option<String>,
    /// T.
    pub field_strength_t: Option<f32>,
    /// ms, as all times here.
    pub tr_ms: Option<f32>,
    /// Effective.
    pub te_ms: Option<f32>,
    /// Of an inversion.
    pub ti_ms: Option<f32>,
    /// Echoes of a train.
    pub echo_train_length: Option<f32>,
    /// From echo to echo.
    pub echo_spacing_ms: Option<f32>,
    /// Whether an image of it is marked as synthetic.
    pub is_synthetic: bool,
}

/// A finished series.
#[derive(Clone, Debug)]
pub struct Series {
    /// What its header says.
    pub facts: Facts,
    /// The scan, for the hand-off of what is made from it.
    pub scan: Scan,
    /// Magnitude on an even grid; the last voxel size is from slice to slice.
    pub volume: Volume,
    /// The slices as they were, in the order of the volume; none for a slab.
    pub slices: Vec<Arc<ReconImage>>,
    /// Standard deviation of the noise of a magnitude well above it.
    pub noise_std: f32,
    /// Whether that was taken from the image itself.
    pub noise_is_estimated: bool,
    /// DICOM instances of the slices.
    pub instances: Vec<(String, String)>,
}

impl Series {
    /// The first frame of a scan's images: its lowest encoding, contrast, set, average, repetition and phase.
    ///
    /// # Errors
    /// [`SynthError::NoSeries`]: no images, slices of different size or tilt, uneven distances, NaN.
    pub fn of(scan: &Scan, images: &[ReconImage]) -> Result<Self, SynthError> {
        let facts = facts(scan, images);
        let wrong = |what: String| SynthError::NoSeries {
            series: facts.name.clone(),
            what,
        };
        let frame = |i: &ReconImage| {
            let k = i.key;
            [
                k.encoding_idx,
                k.contrast,
                k.set,
                k.average,
                k.repetition,
                k.cardiac_phase,
            ]
        };
        let first = images.iter().map(frame).min();
        let mut slices: Vec<&ReconImage> =
            images.iter().filter(|i| Some(frame(i)) == first).collect();
        let Some(&lead) = slices.first() else {
            return Err(wrong("no images".to_owned()));
        };
        let normal = lead.geometry.slice_dir.map(f64::from);
        let height = |i: &ReconImage| dot(i.geometry.centre_mm.map(f64::from), normal);
        slices.sort_by(|a, b| height(a).total_cmp(&height(b)));
        let block = block(&slices).map_err(wrong)?;
        let n = lead.geometry.matrix.iter().product::<usize>();
        let mut values = Vec::with_capacity(n * slices.len());
        for slice in &slices {
            if slice.voxels.len() != n {
                return Err(wrong(format!(
                    "{} voxels instead of {n}",
                    slice.voxels.len()
                )));
            }
            values.extend(slice.voxels.iter().map(|v| v.norm()));
        }
        let count = values.iter().filter(|v| !v.is_finite()).count();
        if count > 0 {
            return Err(wrong(format!("{count} voxels are NaN or infinite")));
        }
        let volume = Volume {
            geometry: block,
            values,
        };
        let known = noise_of(&slices);
        Ok(Self {
            noise_std: known.unwrap_or_else(|| volume.noise_estimate()),
            noise_is_estimated: known.is_none(),
            instances: Vec::new(),
            facts,
            scan: scan.clone(),
            volume,
            slices: slices.into_iter().cloned().map(Arc::new).collect(),
        })
    }

    /// Voxels of all slices and what belongs to them, bytes.
    pub fn bytes(&self) -> u64 {
        let of = |i: &Arc<ReconImage>| 24 * i.voxels.len() as u64;
        4 * self.volume.values.len() as u64 + self.slices.iter().map(of).sum::<u64>()
    }
}

/// What the scan's header says, with what its images say of themselves.
pub fn facts(scan: &Scan, images: &[ReconImage]) -> Facts {
    let h = &scan.header;
    let contrast = images.iter().map(|i| i.key.contrast).min().unwrap_or(0);
    let pick = |list: &[f32]| match list {
        [only] => Some(*only),
        _ => list.get(usize::from(contrast)).copied(),
    };
    let positive = |v: &f32| v.is_finite() && *v > 0.0;
    let text = |v: &Option<String>| {
        v.as_deref()
            .map(str::trim)
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
    };
    let measurement = h.measurement_information.clone().unwrap_or_default();
    let study = h.study_information.clone().unwrap_or_default();
    let subject = h.subject_information.clone().unwrap_or_default();
    let sequence = h.sequence_parameters.clone().unwrap_or_default();
    let description = text(&measurement.series_description);
    let protocol = text(&measurement.protocol_name);
    let words: Vec<String> = [
        &description,
        &protocol,
        &text(&measurement.sequence_name),
        &text(&sequence.sequence_type),
    ]
    .into_iter()
    .flatten()
    .map(|w| w.to_lowercase())
    .collect();
    let numbered = text(&study.study_id)
        .into_iter()
        .chain(text(&study.study_date))
        .chain(text(&study.study_time))
        .collect::<Vec<_>>()
        .join(" ");
    let train = h.encoding.first().and_then(|e| e.echo_train_length);
    let system = h.acquisition_system_information.as_ref();
    Facts {
        name: description
            .or(protocol)
            .unwrap_or_else(|| "a series without a name".to_owned()),
        words: words.join(" "),
        patient: text(&subject.patient_id).or_else(|| text(&subject.patient_name)),
        study: text(&study.study_instance_uid).or((!numbered.is_empty()).then_some(numbered)),
        frame_of_reference: text(&measurement.frame_of_reference_uid),
        field_strength_t: system
            .and_then(|s| s.system_field_strength_t)
            .filter(positive),
        tr_ms: pick(&sequence.tr).filter(positive),
        te_ms: pick(&sequence.te).filter(positive),
        ti_ms: pick(&sequence.ti).filter(positive),
        echo_train_length: train.filter(|n| *n > 0).map(|n| n as f32),
        echo_spacing_ms: sequence.echo_spacing.first().copied().filter(positive),
        is_synthetic: images.iter().any(|i| i.synthetic.is_some()),
    }
}

/// Noise that the reconstruction knows, of what a network has left where one was at work: the median of voxels that have any.
fn noise_of(slices: &[&ReconImage]) -> Option<f32> {
    let mut all = Vec::new();
    for slice in slices {
        let map = match &slice.denoised {
            Some(d) => &d.sigma,
            None => slice.noise_std.as_ref()?,
        };
        all.extend(map.iter().step_by(7).copied().filter(|s| *s > 0.0));
    }
    let middle = all.len() / 2;
    (!all.is_empty()).then(|| *all.select_nth_unstable_by(middle, f32::total_cmp).1)
}

/// All slices as one block.
fn block(slices: &[&ReconImage]) -> Result<Geometry, String> {
    let first = slices[0].geometry;
    let directions = [first.read_dir, first.phase_dir, first.slice_dir].map(|d| d.map(f64::from));
    let [read, phase, normal] = directions;
    let is_frame = directions.iter().all(|d| (norm(*d) - 1.0).abs() < 1e-3)
        && dot(read, phase).abs() < 1e-3
        && (dot(cross(read, phase), normal).abs() - 1.0).abs() < 1e-3;
    if !is_frame || !first.voxel_mm.iter().all(|v| v.is_finite() && *v > 0.0) {
        return Err("its header does not say where its voxels lie".to_owned());
    }
    if slices.len() == 1 {
        return Ok(first);
    }
    if first.matrix[2] > 1 {
        return Err("several slabs".to_owned());
    }
    let place = |i: usize| slices[i].geometry.centre_mm.map(f64::from);
    let (start, end, n) = (place(0), place(slices.len() - 1), slices.len());
    let step: [f64; 3] = std::array::from_fn(|k| (end[k] - start[k]) / (n - 1) as f64);
    let pitch_mm = norm(step);
    for (i, slice) in slices.iter().enumerate() {
        let g = slice.geometry;
        if g.matrix != first.matrix || g.voxel_mm != first.voxel_mm {
            return Err(format!("slice {i} has another matrix or other voxels"));
        }
        let is_parallel = [(g.read_dir, read), (g.phase_dir, phase)]
            .iter()
            .all(|(a, b)| dot(a.map(f64::from), *b) > 0.999_99);
        if !is_parallel {
            return Err(format!("slice {i} is not parallel to the first"));
        }
        let off: [f64; 3] = std::array::from_fn(|k| place(i)[k] - start[k] - i as f64 * step[k]);
        if norm(off) > 0.05 * pitch_mm + 0.01 {
            return Err(format!(
                "slice {i} lies {:.2} mm from an even stack: one is missing, or was measured apart",
                norm(off)
            ));
        }
    }
    if !(0.1..100.0).contains(&pitch_mm) || dot(step, normal) < 0.99 * pitch_mm {
        return Err(format!(
            "its slices are {pitch_mm:.2} mm apart, not one behind the other"
        ));
    }
    let mut block = first;
    block.matrix[2] = n;
    #[allow(clippy::cast_possible_truncation)] // storage precision
    {
        block.voxel_mm[2] = pitch_mm as f32;
        block.centre_mm = std::array::from_fn(|k| (start[k] + (n / 2) as f64 * step[k]) as f32);
    }
    Ok(block)
}
