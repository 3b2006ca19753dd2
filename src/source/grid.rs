//! K-space that comes as an array: which axis is what, which lines were measured, and readouts made from them.
//!
//! BART, NumPy, MATLAB and fastMRI files hold zero-filled arrays. A line that is exactly zero in all coils was not
//! measured and is not emitted: nothing downstream may take a filler for a measurement. Arrays carry no geometry, so
//! the header made here is nominal (1 mm voxels, centre at `n/2`), and a mark says so.

use std::ops::ControlFlow;
use std::path::Path;

use ismrmrd::acquisition::AcquisitionRef;
use ismrmrd::header as xml;
use ismrmrd::{Acquisition, AcquisitionFlag, AcquisitionHeader, Header};
use num_complex::Complex32;

use super::bytes::Bytes;
use super::{Readouts, SourceError, Visit};
use crate::data::Note;

/// Axes that an array of k-space may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Axis {
    Ro,
    Pe1,
    Pe2,
    Coil,
    Contrast,
    Slice,
    Set,
    Phase,
    Repetition,
    Average,
}

/// How many axes there are.
pub(crate) const AXES: usize = 10;

impl Axis {
    /// Axes outside the image, fastest first: the order in which frames are emitted.
    const FRAME: [Axis; 6] = [
        Axis::Contrast,
        Axis::Slice,
        Axis::Set,
        Axis::Phase,
        Axis::Average,
        Axis::Repetition,
    ];

    /// The word used in `axes` options and marks.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Axis::Ro => "ro",
            Axis::Pe1 => "pe1",
            Axis::Pe2 => "pe2",
            Axis::Coil => "coil",
            Axis::Contrast => "contrast",
            Axis::Slice => "slice",
            Axis::Set => "set",
            Axis::Phase => "phase",
            Axis::Repetition => "repetition",
            Axis::Average => "average",
        }
    }

    /// Reads a comma-separated list of axis words.
    pub(crate) fn parse_list(text: &str) -> Result<Vec<Axis>, String> {
        let all = [
            Axis::Ro,
            Axis::Pe1,
            Axis::Pe2,
            Axis::Coil,
            Axis::Contrast,
            Axis::Slice,
            Axis::Set,
            Axis::Phase,
            Axis::Repetition,
            Axis::Average,
        ];
        let mut axes = Vec::new();
        for word in text.split(',').map(str::trim) {
            let axis = all
                .into_iter()
                .find(|a| a.word() == word)
                .ok_or_else(|| format!("{word:?} is not an axis"))?;
            if axes.contains(&axis) {
                return Err(format!("axis {word:?} is named twice"));
            }
            axes.push(axis);
        }
        Ok(axes)
    }

    /// Words of a list of axes.
    pub(crate) fn words(axes: &[Axis]) -> String {
        axes.iter().map(|a| a.word()).collect::<Vec<_>>().join(",")
    }
}

/// Extents and strides (in samples) of every axis; absent axes have extent 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) extent: [usize; AXES],
    pub(crate) stride: [usize; AXES],
}

impl Layout {
    /// Layout of an array whose axes are listed fastest first.
    pub(crate) fn fastest_first(axes: &[(Axis, usize)]) -> Option<Self> {
        let mut layout = Self {
            extent: [1; AXES],
            stride: [0; AXES],
        };
        let mut stride = 1usize;
        for &(axis, n) in axes {
            layout.extent[axis as usize] = n;
            layout.stride[axis as usize] = stride;
            stride = stride.checked_mul(n)?;
        }
        Some(layout)
    }

    pub(crate) fn n(&self, axis: Axis) -> usize {
        self.extent[axis as usize]
    }

    /// Samples in all.
    pub(crate) fn len(&self) -> Option<usize> {
        self.extent
            .iter()
            .try_fold(1usize, |product, &n| product.checked_mul(n))
    }

    fn offset(&self, index: &[usize; AXES]) -> usize {
        index.iter().zip(&self.stride).map(|(i, s)| i * s).sum()
    }

    fn swap(&mut self, a: Axis, b: Axis) {
        self.extent.swap(a as usize, b as usize);
        self.stride.swap(a as usize, b as usize);
    }
}

/// How one sample is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    /// Two little-endian `f32`.
    Complex32,
    /// Two little-endian `f64`, rounded when read.
    Complex64,
}

impl Element {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Complex32 => 8,
            Self::Complex64 => 16,
        }
    }
}

/// Where the samples are.
#[derive(Debug)]
pub(crate) enum Store {
    Mapped {
        bytes: Bytes,
        start: usize,
        element: Element,
    },
    Owned(Vec<Complex32>),
}

impl Store {
    /// One sample; zero outside the store (extents are checked against the file before a grid is made).
    fn get(&self, index: usize) -> Complex32 {
        match self {
            Self::Owned(samples) => samples.get(index).copied().unwrap_or_default(),
            Self::Mapped {
                bytes,
                start,
                element,
            } => {
                let at = start + index * element.bytes();
                let Some(b) = bytes.all().get(at..at + element.bytes()) else {
                    return Complex32::ZERO;
                };
                match element {
                    Element::Complex32 => Complex32::new(f32_of(&b[0..4]), f32_of(&b[4..8])),
                    Element::Complex64 => {
                        Complex32::new(f64_of(&b[0..8]) as f32, f64_of(&b[8..16]) as f32)
                    }
                }
            }
        }
    }

    fn gather(&self, start: usize, stride: usize, out: &mut [Complex32]) {
        // Neighbouring samples of the common kind are copied at once.
        if let Self::Mapped {
            bytes,
            start: begin,
            element: Element::Complex32,
        } = self
            && stride == 1
            && let Some(line) = bytes
                .all()
                .get(begin + 8 * start..begin + 8 * (start + out.len()))
        {
            // Little-endian hosts only, as everywhere in this package: file order is memory order.
            bytemuck::cast_slice_mut::<Complex32, u8>(out).copy_from_slice(line);
            return;
        }
        for (i, sample) in out.iter_mut().enumerate() {
            *sample = self.get(start + i * stride);
        }
    }
}

fn f32_of(b: &[u8]) -> f32 {
    b.try_into().map(f32::from_le_bytes).unwrap_or_default()
}

fn f64_of(b: &[u8]) -> f64 {
    b.try_into().map(f64::from_le_bytes).unwrap_or_default()
}

/// A measured line: which frame, where, and where its samples begin.
#[derive(Clone, Copy, Debug)]
struct Line {
    index: [u16; AXES],
    first: bool,
    last: bool,
}

/// Readouts made from an array.
#[derive(Debug)]
pub(crate) struct Grid {
    store: Store,
    layout: Layout,
    lines: Vec<Line>,
    /// First measured sample and one past the last, over all lines.
    ro: std::ops::Range<usize>,
}

impl Grid {
    /// Finds the measured lines of an array and what has to be said about it.
    ///
    /// # Errors
    /// Extents above what counters can say (65,535), or no sample that is not zero.
    pub(crate) fn new(
        path: &Path,
        store: Store,
        mut layout: Layout,
        notes: &mut Vec<Note>,
    ) -> Result<Self, SourceError> {
        for n in layout.extent {
            if n > usize::from(u16::MAX) {
                return Err(SourceError::TooLarge {
                    path: path.to_path_buf(),
                    what: "extent of an axis (counters are 16 bits wide)",
                    declared: n as u64,
                    limit: u64::from(u16::MAX),
                });
            }
        }
        // BART's convention for a 2D slice taken from a 3D scan leaves the read axis at 1. When whole lines of the
        // next axis are there, that axis is as good as a readout; when single points are missing, it is not.
        let lifted = layout.n(Axis::Ro) == 1 && layout.n(Axis::Pe1) > 1 && layout.n(Axis::Pe2) > 1;
        if lifted {
            layout.swap(Axis::Ro, Axis::Pe1);
            layout.swap(Axis::Pe1, Axis::Pe2);
        }
        let mut scan = scan(&store, &layout);
        if scan.pointwise && layout.n(Axis::Pe2) == 1 {
            layout.swap(Axis::Pe1, Axis::Pe2);
            layout.swap(Axis::Ro, Axis::Pe1);
            let n = [layout.n(Axis::Pe1), layout.n(Axis::Pe2)];
            notes.push(Note::new(
                "pointwise_sampling",
                format!(
                    "single points are missing along both axes: taken as the {} x {} phase-encoding plane of a 3D scan \
                     with one sample along the readout",
                    n[0], n[1]
                ),
            ));
            scan = self::scan(&store, &layout);
        } else if lifted {
            notes.push(Note::new(
                "readout_from_phase_axis",
                format!(
                    "the read axis has extent 1; the first phase axis ({} samples, complete where measured) is taken \
                     as the readout",
                    layout.n(Axis::Ro)
                ),
            ));
        }
        if scan.lines.is_empty() {
            return Err(SourceError::malformed(
                path,
                "samples",
                "every sample is zero",
                "at least one measured line",
                "check how the file was made: it holds no signal",
            ));
        }
        let total: usize = layout.n(Axis::Pe1) * layout.n(Axis::Pe2) * frames(&layout);
        if scan.lines.len() < total {
            notes.push(Note::new(
                "zeros_not_measured",
                format!(
                    "{} of {} lines are exactly zero in all coils and are taken as not measured",
                    total - scan.lines.len(),
                    total
                ),
            ));
        }
        if scan.ro != (0..layout.n(Axis::Ro)) {
            notes.push(Note::new(
                "readout_zero_padded",
                format!(
                    "samples {}..{} of {} were measured along the readout (the rest is zero on every line)",
                    scan.ro.start,
                    scan.ro.end,
                    layout.n(Axis::Ro)
                ),
            ));
        }
        Ok(Self {
            store,
            layout,
            lines: scan.lines,
            ro: scan.ro,
        })
    }

    /// A header with the array's extents and nominal geometry.
    pub(crate) fn nominal_header(&self, notes: &mut Vec<Note>) -> Header {
        notes.push(Note::new(
            "nominal_geometry",
            "the file says nothing about geometry: voxels of 1 mm, axial, at the isocentre, are assumed; sizes and \
             orientation in the output are not those of the patient",
        ));
        let n = |axis| self.layout.n(axis) as u32;
        let matrix = [n(Axis::Ro), n(Axis::Pe1), n(Axis::Pe2)];
        let space = xml::EncodingSpace {
            matrix_size: matrix,
            field_of_view_mm: matrix.map(|m| m as f32),
        };
        let limit = |axis| {
            Some(xml::Limit {
                minimum: 0,
                maximum: n(axis) - 1,
                center: 0,
            })
        };
        let centred = |axis| {
            Some(xml::Limit {
                minimum: 0,
                maximum: n(axis) - 1,
                center: n(axis) / 2,
            })
        };
        Header {
            measurement_information: Some(xml::MeasurementInformation {
                patient_position: "HFS".into(),
                ..Default::default()
            }),
            acquisition_system_information: Some(xml::AcquisitionSystemInformation {
                receiver_channels: Some(n(Axis::Coil)),
                ..Default::default()
            }),
            encoding: vec![xml::Encoding {
                encoded_space: space,
                recon_space: space,
                encoding_limits: xml::EncodingLimits {
                    kspace_encoding_step_0: centred(Axis::Ro),
                    kspace_encoding_step_1: centred(Axis::Pe1),
                    kspace_encoding_step_2: centred(Axis::Pe2),
                    average: limit(Axis::Average),
                    slice: limit(Axis::Slice),
                    contrast: limit(Axis::Contrast),
                    phase: limit(Axis::Phase),
                    repetition: limit(Axis::Repetition),
                    set: limit(Axis::Set),
                    ..Default::default()
                },
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn acquisition(&self, number: usize, line: &Line) -> Acquisition {
        let at = |axis: Axis| line.index[axis as usize];
        let n_coils = self.layout.n(Axis::Coil);
        let n_samples = self.ro.len();
        let mut head = AcquisitionHeader {
            scan_counter: number as u32,
            number_of_samples: n_samples as u16,
            available_channels: n_coils as u16,
            active_channels: n_coils as u16,
            // Grid centre n/2, counted from the first sample that was measured.
            center_sample: (self.layout.n(Axis::Ro) / 2).saturating_sub(self.ro.start) as u16,
            ..Default::default()
        };
        let slices = self.layout.n(Axis::Slice);
        head.position[2] = f32::from(at(Axis::Slice)) - (slices as f32 - 1.0) / 2.0;
        for coil in 0..n_coils.min(1024) {
            head.channel_mask[coil / 64] |= 1 << (coil % 64);
        }
        head.idx.kspace_encode_step_1 = at(Axis::Pe1);
        head.idx.kspace_encode_step_2 = at(Axis::Pe2);
        head.idx.contrast = at(Axis::Contrast);
        head.idx.slice = at(Axis::Slice);
        head.idx.set = at(Axis::Set);
        head.idx.phase = at(Axis::Phase);
        head.idx.average = at(Axis::Average);
        head.idx.repetition = at(Axis::Repetition);
        if line.first {
            head.set(AcquisitionFlag::FirstInSlice);
        }
        if line.last {
            head.set(AcquisitionFlag::LastInSlice);
        }
        if number + 1 == self.lines.len() {
            head.set(AcquisitionFlag::LastInMeasurement);
        }
        let mut data = vec![Complex32::ZERO; n_coils * n_samples];
        let mut index = line.index.map(usize::from);
        index[Axis::Ro as usize] = self.ro.start;
        for (coil, out) in data.chunks_mut(n_samples.max(1)).enumerate() {
            index[Axis::Coil as usize] = coil;
            self.store.gather(
                self.layout.offset(&index),
                self.layout.stride[Axis::Ro as usize],
                out,
            );
        }
        Acquisition {
            head,
            traj: Vec::new(),
            data,
        }
    }
}

impl Readouts for Grid {
    fn count(&self) -> u64 {
        self.lines.len() as u64
    }

    fn for_each_batch(&mut self, visit: &mut Visit<'_>) -> Result<(), SourceError> {
        for (batch, lines) in self.lines.chunks(BATCH).enumerate() {
            let readouts: Vec<Acquisition> = lines
                .iter()
                .enumerate()
                .map(|(i, line)| self.acquisition(batch * BATCH + i, line))
                .collect();
            let refs: Vec<AcquisitionRef<'_>> = readouts.iter().map(Acquisition::as_ref).collect();
            if let ControlFlow::Break(()) = visit(&refs) {
                break;
            }
        }
        Ok(())
    }
}

/// Readouts handed out at a time.
pub(crate) const BATCH: usize = 64;

fn frames(layout: &Layout) -> usize {
    Axis::FRAME.iter().map(|&axis| layout.n(axis)).product()
}

struct Scanned {
    lines: Vec<Line>,
    ro: std::ops::Range<usize>,
    /// Single samples are missing inside the lines, so that the readout axis is no readout.
    pointwise: bool,
}

/// Looks which lines are measured. A line is measured when any sample of any coil is not zero.
fn scan(store: &Store, layout: &Layout) -> Scanned {
    let n_ro = layout.n(Axis::Ro);
    let n_coils = layout.n(Axis::Coil);
    let [ro_stride, coil_stride] = [Axis::Ro, Axis::Coil].map(|a| layout.stride[a as usize]);
    let is_zero = |start: usize, ro: usize| {
        (0..n_coils)
            .all(|coil| store.get(start + coil * coil_stride + ro * ro_stride) == Complex32::ZERO)
    };
    let mut lines: Vec<Line> = Vec::new();
    let (mut first_ro, mut end_ro) = (n_ro, 0);
    let (mut holed, mut looked_at) = (0usize, 0usize);
    for frame in 0..frames(layout) {
        let mut index = [0usize; AXES];
        let mut rest = frame;
        for axis in Axis::FRAME {
            index[axis as usize] = rest % layout.n(axis);
            rest /= layout.n(axis);
        }
        let begin = lines.len();
        for pe2 in 0..layout.n(Axis::Pe2) {
            for pe1 in 0..layout.n(Axis::Pe1) {
                index[Axis::Pe1 as usize] = pe1;
                index[Axis::Pe2 as usize] = pe2;
                let start = layout.offset(&index);
                let Some(first) = (0..n_ro).find(|&ro| !is_zero(start, ro)) else {
                    continue;
                };
                let end = (first..n_ro)
                    .rev()
                    .find(|&ro| !is_zero(start, ro))
                    .map_or(first + 1, |ro| ro + 1);
                if frame == 0 {
                    looked_at += 1;
                    holed += usize::from((first..end).any(|ro| is_zero(start, ro)));
                }
                first_ro = first_ro.min(first);
                end_ro = end_ro.max(end);
                lines.push(Line {
                    // Extents were checked to fit 16 bits.
                    index: index.map(|i| i as u16),
                    first: false,
                    last: false,
                });
            }
        }
        if let Some(line) = lines.get_mut(begin..).and_then(<[Line]>::first_mut) {
            line.first = true;
        }
        if lines.len() > begin
            && let Some(line) = lines.last_mut()
        {
            line.last = true;
        }
    }
    Scanned {
        lines,
        ro: first_ro..end_ro.max(first_ro),
        pointwise: n_ro > 1 && holed * 4 > looked_at,
    }
}
