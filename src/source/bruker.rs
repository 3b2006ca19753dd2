//! Bruker ParaVision scans (5.1 to 7, `fid` with `method` and `acqp`): 2D and 3D Cartesian, RARE included.
//!
//! A `fid` is a list of blocks, one per readout; each holds the receivers one after the other, padded to a multiple of
//! 256 values with `Standard_KBlock_Format`. Loop order, fastest first: echo of the train (`ACQ_phase_factor`), object
//! (`NI`: slices in `PVM_ObjOrderList`, echo images), phase-encoding segment, second phase encoding, repetition.
//!
//! The receiver moves the field of view along the readout while it measures; along the phases nothing does, so every line
//! is turned here by the planned offset, as ParaVision's reconstruction turns it (`RECO_rotate`). The magnitude of no
//! sample changes.
//!
//! # Source
//! Layout as in Bruker's ParaVision manual (D02, "File Formats"), checked against the vendor's own image (`2dseq`) of a
//! RARE scan. Parameters are JCAMP-DX ("labelled data records").

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ismrmrd::acquisition::AcquisitionRef;
use ismrmrd::header as xml;
use ismrmrd::{Acquisition, AcquisitionFlag, AcquisitionHeader, Header};
use num_complex::Complex32;

use super::bytes::Bytes;
use super::grid::BATCH;
use super::{Parts, Readouts, SourceError, Visit};
use crate::data::Note;

/// The scan's folder, if `path` is one or lies in one.
pub(crate) fn folder(path: &Path) -> Option<PathBuf> {
    let candidate = if path.is_dir() {
        path.to_path_buf()
    } else {
        let name = path.file_name()?.to_str()?;
        if !["fid", "method", "acqp", "rawdata.job0"].contains(&name) {
            return None;
        }
        super::folder_of(path)
    };
    let jcamp =
        |name: &str| std::fs::read(candidate.join(name)).is_ok_and(|b| b.starts_with(b"##TITLE"));
    (jcamp("acqp") && jcamp("method")).then_some(candidate)
}

/// Parameters of one JCAMP-DX file, values as written.
#[derive(Debug, Default)]
struct Jcamp {
    values: BTreeMap<String, String>,
}

impl Jcamp {
    fn read(path: &Path) -> Result<Self, SourceError> {
        let size = std::fs::metadata(path)
            .map_err(|e| SourceError::io("cannot read the size", path, e))?
            .len();
        if size > 64 << 20 {
            return Err(SourceError::TooLarge {
                path: path.to_path_buf(),
                what: "bytes of a parameter file",
                declared: size,
                limit: 64 << 20,
            });
        }
        let bytes = std::fs::read(path).map_err(|e| SourceError::io("cannot read", path, e))?;
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    fn parse(text: &str) -> Self {
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        let mut current: Option<String> = None;
        for line in text.lines() {
            if line.starts_with("$$") {
                continue;
            }
            if let Some(record) = line.strip_prefix("##") {
                let (key, value) = record.split_once('=').unwrap_or((record, ""));
                let key = key.trim_start_matches('$').to_string();
                values.insert(key.clone(), value.trim().to_string());
                current = Some(key);
            } else if let Some(value) = current.as_ref().and_then(|k| values.get_mut(k)) {
                value.push('\n');
                value.push_str(line);
            }
        }
        Self { values }
    }

    /// The value without its `( n )` shape.
    fn text(&self, key: &str) -> Option<&str> {
        let value = self.values.get(key)?;
        let body = match value.split_once('\n') {
            Some((shape, body)) if shape.starts_with('(') => body,
            _ => value.as_str(),
        };
        Some(body.trim().trim_start_matches('<').trim_end_matches('>'))
    }

    /// Numbers, with ParaVision's run-length form `@3*(1.5)` written out.
    fn numbers(&self, key: &str) -> Vec<f64> {
        let mut out = Vec::new();
        for word in self.text(key).unwrap_or_default().split_whitespace() {
            if let Some((n, value)) = word.strip_prefix('@').and_then(|w| w.split_once("*(")) {
                let (n, value) = (
                    n.parse::<usize>(),
                    value.trim_end_matches(')').parse::<f64>(),
                );
                if let (Ok(n), Ok(value)) = (n, value) {
                    out.extend(std::iter::repeat_n(value, n.min(1 << 20)));
                }
            } else if let Ok(value) = word.parse() {
                out.push(value);
            }
        }
        out
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.numbers(key).first().copied()
    }

    fn count(&self, key: &str) -> Option<usize> {
        self.number(key)
            .filter(|n| *n >= 0.0 && *n < 1e9)
            .map(|n| n as usize)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sample {
    Int16,
    Int32,
    Float32,
}

/// Readouts of a `fid`.
#[derive(Debug)]
struct Fid {
    path: PathBuf,
    bytes: Bytes,
    sample: Sample,
    is_big_endian: bool,
    n_samples: usize,
    n_coils: usize,
    /// Values from one block to the next.
    block_values: usize,
    heads: Vec<AcquisitionHeader>,
    /// Of each slice: turns per step along pe1 and pe2 that move the field of view to its planned centre.
    turns: Vec<[f64; 2]>,
    /// Counters at the centre of k-space.
    centre: [usize; 2],
}

impl Fid {
    fn acquisition(&self, number: usize) -> Result<Acquisition, SourceError> {
        let head = self.heads[number];
        let width = if self.sample == Sample::Int16 { 2 } else { 4 };
        let mut data = Vec::with_capacity(self.n_coils * self.n_samples);
        let start = number * self.block_values * width;
        let block = self
            .bytes
            .all()
            .get(start..start + self.n_coils * self.n_samples * 2 * width);
        let block = block.ok_or_else(|| {
            SourceError::malformed(
                &self.path,
                format!("readout {number} at byte {start}"),
                "end of file",
                "the whole readout",
                "the copy was cut short: copy the scan again",
            )
        })?;
        let value = |i: usize| -> f32 {
            let at = i * width;
            match self.sample {
                Sample::Int16 => {
                    let b = [block[at], block[at + 1]];
                    f32::from(if self.is_big_endian {
                        i16::from_be_bytes(b)
                    } else {
                        i16::from_le_bytes(b)
                    })
                }
                Sample::Int32 | Sample::Float32 => {
                    let b = [block[at], block[at + 1], block[at + 2], block[at + 3]];
                    let word = if self.is_big_endian {
                        u32::from_be_bytes(b)
                    } else {
                        u32::from_le_bytes(b)
                    };
                    if self.sample == Sample::Float32 {
                        f32::from_bits(word)
                    } else {
                        word as i32 as f32
                    }
                }
            }
        };
        let turns = self.turns.get(usize::from(head.idx.slice));
        let turns = turns.copied().unwrap_or_default();
        let steps = [head.idx.kspace_encode_step_1, head.idx.kspace_encode_step_2];
        let angle: f64 = (0..2)
            .map(|i| (f64::from(steps[i]) - self.centre[i] as f64) * turns[i])
            .sum::<f64>()
            * -std::f64::consts::TAU;
        let turn = Complex32::new(angle.cos() as f32, angle.sin() as f32);
        for i in 0..self.n_coils * self.n_samples {
            let measured = Complex32::new(value(2 * i), value(2 * i + 1));
            data.push(if angle == 0.0 {
                measured
            } else {
                measured * turn
            });
        }
        Ok(Acquisition {
            head,
            traj: Vec::new(),
            data,
        })
    }
}

impl Readouts for Fid {
    fn count(&self) -> u64 {
        self.heads.len() as u64
    }

    fn for_each_batch(&mut self, visit: &mut Visit<'_>) -> Result<(), SourceError> {
        let mut at = 0;
        while at < self.heads.len() {
            let end = (at + BATCH).min(self.heads.len());
            let readouts = (at..end)
                .map(|i| self.acquisition(i))
                .collect::<Result<Vec<_>, _>>()?;
            let refs: Vec<AcquisitionRef<'_>> = readouts.iter().map(Acquisition::as_ref).collect();
            if let ControlFlow::Break(()) = visit(&refs) {
                break;
            }
            at = end;
        }
        Ok(())
    }
}

pub(crate) fn open(folder: &Path) -> Result<Parts, SourceError> {
    let method = Jcamp::read(&folder.join("method"))?;
    let acqp = Jcamp::read(&folder.join("acqp"))?;
    let mut notes = Vec::new();
    let fid = ["fid", "rawdata.job0"]
        .iter()
        .map(|n| folder.join(n))
        .find(|p| p.is_file());
    let Some(fid) = fid else {
        return Err(SourceError::malformed(
            folder,
            "ParaVision scan",
            "no fid and no rawdata.job0",
            "the raw data beside method and acqp",
            "copy the whole scan folder; if it was deleted on the scanner, only images are left",
        ));
    };
    let missing = |key: &str| {
        SourceError::malformed(
            folder,
            format!("parameter {key}"),
            "absent or not a number",
            "a value, as ParaVision 5.1 and later write",
            "copy method and acqp of the scan again",
        )
    };
    let matrix: Vec<usize> = method
        .numbers("PVM_EncMatrix")
        .iter()
        .map(|&n| n as usize)
        .collect();
    let (&n_samples, &n_pe1) = (
        matrix.first().ok_or_else(|| missing("PVM_EncMatrix"))?,
        matrix.get(1).ok_or_else(|| missing("PVM_EncMatrix"))?,
    );
    let n_pe2 = matrix.get(2).copied().unwrap_or(1);
    let n_coils = method.count("PVM_EncNReceivers").unwrap_or(1).max(1);
    let n_objects = acqp.count("NI").ok_or_else(|| missing("NI"))?.max(1);
    let n_repetitions = acqp.count("NR").unwrap_or(1).max(1);
    let train = acqp.count("ACQ_phase_factor").unwrap_or(1).max(1);
    let n_echoes = method.count("PVM_NEchoImages").unwrap_or(1).max(1);
    if let Some(m) = method.text("Method")
        && ["EPI", "SPIRAL", "UTE", "ZTE", "RADIAL"]
            .iter()
            .any(|w| m.to_ascii_uppercase().contains(w))
    {
        return Err(SourceError::unsupported(
            folder,
            format!("a ParaVision scan of method {m}"),
            "a Cartesian scan with one phase-encoding step per readout",
            "convert it to ISMRMRD with Bruker's or MRIReco's converter",
        ));
    }
    for (what, n) in [
        ("PVM_EncMatrix", n_samples),
        ("PVM_EncMatrix", n_pe1),
        ("PVM_EncMatrix", n_pe2),
        ("PVM_EncNReceivers", n_coils),
        ("NI", n_objects),
        ("NR", n_repetitions),
    ] {
        if n == 0 || n > usize::from(u16::MAX) {
            return Err(SourceError::malformed(
                folder,
                format!("parameter {what}"),
                n.to_string(),
                "1 to 65535",
                "the parameter file is damaged: copy it again",
            ));
        }
    }
    if !n_pe1.is_multiple_of(train) || !n_objects.is_multiple_of(n_echoes) {
        return Err(SourceError::malformed(
            folder,
            "loop parameters",
            format!(
                "{n_pe1} lines in trains of {train}, {n_objects} objects with {n_echoes} echo images"
            ),
            "whole trains and whole slices",
            "this loop order is not known here: please report the method file",
        ));
    }
    let (sample, word) = match (acqp.text("GO_raw_data_format"), acqp.text("ACQ_word_size")) {
        (Some("GO_16BIT_SGN_INT"), _) => (Sample::Int16, 2),
        (Some("GO_32BIT_FLOAT"), _) => (Sample::Float32, 4),
        (Some("GO_32BIT_SGN_INT"), _) | (None, Some("_32_BIT")) => (Sample::Int32, 4),
        (format, size) => {
            return Err(SourceError::unsupported(
                folder,
                format!("raw data format {format:?} (word size {size:?})"),
                "GO_16BIT_SGN_INT, GO_32BIT_SGN_INT or GO_32BIT_FLOAT",
                "please report the acqp file",
            ));
        }
    };
    let values = 2 * n_samples * n_coils;
    let in_blocks = acqp.text("GO_block_size") != Some("continuous") && fid.ends_with("fid");
    // "Standard_KBlock_Format": every readout begins at a multiple of 1 KiB (256 values of 4 bytes).
    let block_values = if in_blocks {
        values.next_multiple_of(1024 / word)
    } else {
        values
    };
    let n_readouts = n_pe1
        .checked_mul(n_pe2)
        .and_then(|n| n.checked_mul(n_objects))
        .and_then(|n| n.checked_mul(n_repetitions))
        .filter(|n| *n < 1 << 28)
        .ok_or_else(|| missing("NI x NR x PVM_EncMatrix within reason"))?;
    let bytes = Bytes::open(&fid)?;
    let needed = n_readouts.checked_mul(block_values * word);
    let found = bytes.all().len();
    if needed.is_none_or(|n| n > found) {
        return Err(SourceError::malformed(
            &fid,
            "size of the file",
            format!("{found} bytes"),
            format!(
                "{} bytes: {n_readouts} readouts of {} bytes ({n_samples} samples x {n_coils} coils)",
                needed.map_or("more than 2^64".into(), |n| n.to_string()),
                block_values * word
            ),
            "the scan was stopped early or the copy was cut short",
        ));
    }
    if needed.is_some_and(|n| n < found) {
        notes.push(Note::new(
            "bytes_left_over",
            format!(
                "{} bytes after the last readout of the fid are not read",
                found - needed.unwrap_or(0)
            ),
        ));
    }
    // Steps are counted from the centre of k-space (-n/2 ... n/2-1); counters begin at 0.
    let steps = |key: &str, n: usize| -> Result<Vec<u16>, SourceError> {
        let list = method.numbers(key);
        if list.is_empty() {
            return Ok((0..n as u16).collect());
        }
        if list.len() != n {
            return Err(missing(key));
        }
        list.iter()
            .map(|&s| {
                let line = s + (n / 2) as f64;
                (line >= 0.0 && line < n as f64).then_some(line as u16).ok_or_else(|| {
                    SourceError::unsupported(
                        folder,
                        format!("{key} has step {s}, outside a grid of {n} lines (accelerated or partial Fourier)"),
                        "a ParaVision scan with as many steps as lines",
                        "convert it to ISMRMRD with Bruker's or MRIReco's converter",
                    )
                })
            })
            .collect()
    };
    let steps1 = steps("PVM_EncSteps1", n_pe1)?;
    let steps2 = steps("PVM_EncSteps2", n_pe2)?;
    let n_slices = n_objects / n_echoes;
    let order: Vec<usize> = {
        let list = method.numbers("PVM_ObjOrderList");
        if list.len() == n_slices && list.iter().all(|&s| s >= 0.0 && s < n_slices as f64) {
            list.iter().map(|&s| s as usize).collect()
        } else {
            notes.push(Note::new(
                "slice_order_assumed",
                "PVM_ObjOrderList is absent: slices are taken in order",
            ));
            (0..n_slices).collect()
        }
    };
    let geometry = Gradients::read(&acqp, &method, n_slices, &mut notes);
    let dwell_us = method
        .number("PVM_EffSWh")
        .filter(|bw| *bw > 0.0)
        .map_or(0.0, |bw| 1e6 / bw) as f32;
    let mut heads = Vec::with_capacity(n_readouts);
    for repetition in 0..n_repetitions {
        for &step2 in &steps2 {
            for segment in 0..n_pe1 / train {
                for object in 0..n_objects {
                    let (echo, slice) = (object % n_echoes, order[object / n_echoes]);
                    for echo_in_train in 0..train {
                        let mut head = AcquisitionHeader {
                            scan_counter: heads.len() as u32 + 1,
                            number_of_samples: n_samples as u16,
                            available_channels: n_coils as u16,
                            active_channels: n_coils as u16,
                            center_sample: (n_samples / 2) as u16,
                            sample_time_us: dwell_us,
                            ..Default::default()
                        };
                        geometry.place(&mut head, slice);
                        for coil in 0..n_coils.min(1024) {
                            head.channel_mask[coil / 64] |= 1 << (coil % 64);
                        }
                        head.idx.kspace_encode_step_1 = steps1[segment * train + echo_in_train];
                        head.idx.kspace_encode_step_2 = step2;
                        head.idx.slice = slice as u16;
                        head.idx.contrast = echo as u16;
                        head.idx.repetition = repetition as u16;
                        head.idx.segment = echo_in_train as u16;
                        heads.push(head);
                    }
                }
            }
        }
    }
    mark_first_and_last(&mut heads);
    let header = header(
        &method,
        &acqp,
        [n_samples, n_pe1, n_pe2],
        n_coils,
        [n_slices, n_echoes, n_repetitions, train],
    );
    let readouts = Fid {
        path: fid,
        bytes,
        sample,
        is_big_endian: acqp.text("BYTORDA") == Some("big"),
        n_samples,
        n_coils,
        block_values,
        heads,
        turns: geometry.turns(&header),
        centre: [n_pe1 / 2, n_pe2 / 2],
    };
    Ok(Parts::new(header, notes, Box::new(readouts)))
}

fn mark_first_and_last(heads: &mut [AcquisitionHeader]) {
    let mut last: BTreeMap<(u16, u16, u16), (usize, usize)> = BTreeMap::new();
    for (i, head) in heads.iter().enumerate() {
        let key = (head.idx.repetition, head.idx.contrast, head.idx.slice);
        last.entry(key).or_insert((i, i)).1 = i;
    }
    for (first, end) in last.into_values() {
        heads[first].set(AcquisitionFlag::FirstInSlice);
        heads[end].set(AcquisitionFlag::LastInSlice);
    }
    if let Some(head) = heads.last_mut() {
        head.set(AcquisitionFlag::LastInMeasurement);
    }
}

/// Orientation and offsets of every slice.
struct Gradients {
    /// Rows: read, phase, slice gradient in the subject's coordinates (LPS).
    rows: [[f32; 3]; 3],
    /// Of each slice: centre of the field of view along read, phase, slice and second phase gradient, mm.
    offsets: Vec<[f32; 4]>,
}

impl Gradients {
    fn read(acqp: &Jcamp, method: &Jcamp, n_slices: usize, notes: &mut Vec<Note>) -> Self {
        let list = acqp.numbers("ACQ_grad_matrix");
        let mut rows = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        if list.len() >= 9 {
            // From the magnet to the subject: turned about its length when prone, about its breadth feet first.
            let position = acqp.text("ACQ_patient_pos").unwrap_or_default();
            let is_prone = position.ends_with("Prone");
            let is_feet_first = position.starts_with("Foot");
            let sign = |is_turned: bool| if is_turned { -1.0 } else { 1.0 };
            let signs = [
                sign(is_prone != is_feet_first),
                sign(is_prone),
                sign(is_feet_first),
            ];
            for (i, value) in list.iter().take(9).enumerate() {
                rows[i / 3][i % 3] = *value as f32 * signs[i % 3];
            }
            if position != "Head_Prone" {
                notes.push(Note::new(
                    "bruker_orientation_unverified",
                    format!(
                        "directions are right for Head_Prone, the position that a vendor's image was at hand for; for \
                         {position:?} they follow by turning the subject: check left and right before relying on them"
                    ),
                ));
            }
        } else {
            notes.push(Note::new(
                "nominal_orientation",
                "ACQ_grad_matrix is absent: axial orientation is assumed",
            ));
        }
        let thickness = method.number("PVM_SliceThick").unwrap_or(1.0);
        let slice = acqp.numbers("ACQ_slice_offset");
        let at = |key: &str, i: usize| {
            let list = acqp.numbers(key);
            list.get(i).or(list.first()).copied().unwrap_or(0.0) as f32
        };
        let offsets = (0..n_slices)
            .map(|i| {
                let along = slice.get(i).copied().unwrap_or_else(|| {
                    slice.first().copied().unwrap_or(0.0)
                        + (i as f64 - (n_slices as f64 - 1.0) / 2.0) * thickness
                });
                [
                    at("ACQ_read_offset", i),
                    at("ACQ_phase1_offset", i),
                    along as f32,
                    at("ACQ_phase2_offset", i),
                ]
            })
            .collect();
        Self { rows, offsets }
    }

    /// A sample is the conjugate of what the gradient's direction would give, so an image of it runs against the
    /// gradients: read and phase directions are turned, as the vendor's image has them.
    fn place(&self, head: &mut AcquisitionHeader, slice: usize) {
        let [read, phase, slice_dir] = self.rows;
        head.read_dir = read.map(|v| -v);
        head.phase_dir = phase.map(|v| -v);
        head.slice_dir = slice_dir;
        let offset = self.offsets.get(slice).copied().unwrap_or_default();
        for axis in 0..3 {
            head.position[axis] = (0..3).map(|i| offset[i] * self.rows[i][axis]).sum();
        }
    }

    /// Turns per step along pe1 and pe2, of each slice.
    fn turns(&self, header: &Header) -> Vec<[f64; 2]> {
        let fov = header
            .encoding
            .first()
            .map_or([0.0; 3], |e| e.encoded_space.field_of_view_mm);
        let per_step = |offset: f32, mm: f32| match mm > 0.0 {
            true => f64::from(offset) / f64::from(mm),
            false => 0.0,
        };
        self.offsets
            .iter()
            .map(|o| [per_step(o[1], fov[1]), per_step(o[3], fov[2])])
            .collect()
    }
}

fn header(
    method: &Jcamp,
    acqp: &Jcamp,
    encoded: [usize; 3],
    n_coils: usize,
    loops: [usize; 4],
) -> Header {
    let [n_slices, n_echoes, n_repetitions, train] = loops;
    let fov = method.numbers("PVM_Fov");
    let recon = method.numbers("PVM_Matrix");
    let anti_alias = method.numbers("PVM_AntiAlias");
    let thickness = method.number("PVM_SliceThick").unwrap_or(1.0) as f32;
    let mut recon_space = xml::EncodingSpace {
        matrix_size: [1; 3],
        field_of_view_mm: [thickness; 3],
    };
    let mut encoded_space = recon_space;
    for (axis, &n) in encoded.iter().enumerate() {
        let mm = fov.get(axis).copied().unwrap_or(f64::from(thickness)) as f32;
        encoded_space.matrix_size[axis] = n as u32;
        recon_space.matrix_size[axis] = recon.get(axis).map_or(n, |n| (*n as usize).max(1)) as u32;
        recon_space.field_of_view_mm[axis] = mm;
        encoded_space.field_of_view_mm[axis] =
            mm * anti_alias.get(axis).copied().unwrap_or(1.0).max(1.0) as f32;
    }
    let centred = |n: usize| {
        Some(xml::Limit {
            minimum: 0,
            maximum: n as u32 - 1,
            center: (n / 2) as u32,
        })
    };
    let limit = |n: usize| {
        Some(xml::Limit {
            minimum: 0,
            maximum: n as u32 - 1,
            center: 0,
        })
    };
    let accelerations: Vec<u32> = ["PVM_EncPpi", "PVM_EncPpiAccel1"]
        .iter()
        .map(|k| method.numbers(k))
        .find(|v| !v.is_empty())
        .unwrap_or_default()
        .iter()
        .map(|n| n.round().max(1.0) as u32)
        .collect();
    let acceleration = [
        accelerations.get(1).copied().unwrap_or(1),
        accelerations.get(2).copied().unwrap_or(1),
    ];
    let te: Vec<f32> = {
        let effective = method.numbers("EffectiveTE");
        let list = if effective.is_empty() {
            method.numbers("PVM_EchoTime")
        } else {
            effective
        };
        list.iter().map(|t| *t as f32).collect()
    };
    let frequency_mhz = acqp.number("BF1").or_else(|| method.number("PVM_FrqWork"));
    let position = match acqp.text("ACQ_patient_pos").unwrap_or_default() {
        "Head_Prone" => "HFP",
        "Head_Left" => "HFDL",
        "Head_Right" => "HFDR",
        "Foot_Supine" => "FFS",
        "Foot_Prone" => "FFP",
        "Foot_Left" => "FFDL",
        "Foot_Right" => "FFDR",
        _ => "HFS",
    };
    Header {
        measurement_information: Some(xml::MeasurementInformation {
            patient_position: position.into(),
            protocol_name: acqp.text("ACQ_protocol_name").map(str::to_string),
            sequence_name: method.text("Method").map(str::to_string),
            ..Default::default()
        }),
        acquisition_system_information: Some(xml::AcquisitionSystemInformation {
            system_vendor: Some("Bruker".into()),
            system_model: acqp.text("ACQ_station").map(str::to_string),
            system_field_strength_t: frequency_mhz.map(|f| (f / 42.577_478) as f32),
            receiver_channels: Some(n_coils as u32),
            institution_name: acqp.text("ACQ_institution").map(str::to_string),
            ..Default::default()
        }),
        experimental_conditions: xml::ExperimentalConditions {
            h1_resonance_frequency_hz: frequency_mhz.map_or(0, |f| (f * 1e6).round() as i64),
        },
        encoding: vec![xml::Encoding {
            encoded_space,
            recon_space,
            encoding_limits: xml::EncodingLimits {
                kspace_encoding_step_0: centred(encoded[0]),
                kspace_encoding_step_1: centred(encoded[1]),
                kspace_encoding_step_2: centred(encoded[2]),
                average: limit(1),
                slice: limit(n_slices),
                contrast: limit(n_echoes),
                phase: limit(1),
                repetition: limit(n_repetitions),
                set: limit(1),
                segment: limit(train),
                ..Default::default()
            },
            parallel_imaging: (acceleration != [1, 1]).then(|| xml::ParallelImaging {
                acceleration_factor: acceleration,
                ..Default::default()
            }),
            echo_train_length: Some(train as i64),
            ..Default::default()
        }],
        sequence_parameters: Some(xml::SequenceParameters {
            tr: method
                .number("PVM_RepetitionTime")
                .map(|t| t as f32)
                .into_iter()
                .collect(),
            te,
            flip_angle_deg: acqp
                .number("ACQ_flip_angle")
                .map(|a| a as f32)
                .into_iter()
                .collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jcamp_lists_and_runs_are_written_out() {
        let j = Jcamp::parse("##TITLE=x\n##$A=( 5 )\n1 2 @3*(7.5)\n$$ note\n##$B=<text>\n##$C=4\n");
        assert_eq!(j.numbers("A"), [1.0, 2.0, 7.5, 7.5, 7.5]);
        assert_eq!(j.text("B"), Some("text"));
        assert_eq!(j.count("C"), Some(4));
        assert_eq!(j.count("absent"), None);
    }
}
