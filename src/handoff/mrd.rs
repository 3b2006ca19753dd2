//! ISMRMRD images: headers, meta attributes and unscaled voxels; in HDF5 with the scan's header beside them, or one by
//! one for a connection ([`MrdSeries`]).
//!
//! One image series per quantity, numbered as Gadgetron numbers them where it does: `image_1` the image, `image_20`
//! the g-factor, `image_300` SNR units. Images of another matrix (a second encoding) go to `image_1_XxYxZ`, since a
//! series in HDF5 has one shape.
//!
//! # Source
//! ISMRMRD `ismrmrd.h` (image header), MRD image meta attributes; FIRE conventions for `DataRole` and `ImageType`.

use std::path::Path;

use ismrmrd::{Image, ImageHeader, ImageType, Meta, Pixels, file::Writer};

use super::{
    HandoffError, HandoffParams, Quantity,
    deliver::{DeliveredFile, Staging},
    quantity::{Values, extract, window},
    stack::{Stack, describe},
    synthetic, timing,
};
use crate::data::{Geometry, ReconImage, Scan, Synthetic, SyntheticKind};

/// Group that everyone expects.
const GROUP: &str = "dataset";

/// `image_series_index` of a quantity; synthetic contrasts count on from 1000, 2000, 3000, so that none meets a measured one.
fn series_index(quantity: Quantity, synthetic: Option<&Synthetic>) -> u16 {
    let base = match synthetic.map(|s| s.kind) {
        None => 0,
        Some(SyntheticKind::Stir) => 1000,
        Some(SyntheticKind::T2fs) => 2000,
        Some(SyntheticKind::Ct) => 3000,
    };
    base + match quantity {
        Quantity::Magnitude => 1,
        Quantity::Phase => 2,
        Quantity::Real => 3,
        Quantity::Imag => 4,
        Quantity::Complex => 5,
        Quantity::Csm => 10,
        Quantity::Gfactor => 20,
        Quantity::NoiseStd => 21,
        Quantity::Sigma => 22,
        Quantity::Removed => 23,
        Quantity::Abstention => 24,
        Quantity::Bone => 25,
        Quantity::Domain => 26,
        Quantity::Snr => 300,
    }
}

fn image_type(quantity: Quantity) -> ImageType {
    match quantity {
        Quantity::Phase => ImageType::Phase,
        Quantity::Real => ImageType::Real,
        Quantity::Imag => ImageType::Imag,
        Quantity::Complex | Quantity::Removed | Quantity::Csm => ImageType::Complex,
        _ => ImageType::Magnitude,
    }
}

/// Writes every quantity into one file.
///
/// # Errors
/// Those of [`extract`]; [`HandoffError::Shape`] for an extent above 65535; [`HandoffError::Io`] when the library or
/// the disk refuses.
pub(super) fn write(
    staging: &mut Staging,
    stacks: &[Stack<'_>],
    scan: &Scan,
    out: &Path,
    params: &HandoffParams,
) -> Result<(), HandoffError> {
    let temporary = staging.beside(out)?;
    let failed = |error: ismrmrd::Error| writing(out, error);
    let mut writer = Writer::create(temporary.path(), GROUP).map_err(failed)?;
    writer.header(&scan.header).map_err(failed)?;
    let first_matrix = stacks[0].slices[0].matrix;
    let mut n_slices = 0;
    for &quantity in &params.quantities {
        let grey = match quantity.is_complex() {
            true => None,
            false => Some(series_window(stacks, quantity, params.window_percentiles)?),
        };
        let mark = synthetic::of(
            stacks
                .iter()
                .flat_map(|s| s.frames.iter().flatten().copied()),
        );
        let index = series_index(quantity, mark);
        let mut n = 0_u16;
        for stack in stacks {
            let matrix = stack.slices[0].matrix;
            let mut name = format!("image_{index}");
            if matrix != first_matrix {
                name += &format!("_{}x{}x{}", matrix[0], matrix[1], matrix[2]);
            }
            for frame in &stack.frames {
                for (image, geometry) in frame.iter().zip(&stack.slices) {
                    n = n.wrapping_add(1);
                    let mut head = header(image, geometry, quantity)?;
                    head.image_index = n;
                    let pixels = match extract(image, quantity)? {
                        Values::Real(values) => Pixels::F32(values),
                        Values::Complex(values) => Pixels::C32(values),
                    };
                    let attributes = meta(image, geometry, quantity, scan, grey).to_xml();
                    let image = Image {
                        head,
                        attributes,
                        pixels,
                    };
                    writer.image(&name, &image).map_err(failed)?;
                    n_slices += geometry.matrix[2];
                }
            }
        }
        staging.count(
            quantity,
            stacks.iter().map(|s| s.frames.len() * s.n_z()).sum(),
        );
    }
    writer.finish().map_err(failed)?;
    let file = DeliveredFile {
        path: out.to_path_buf(),
        format: "ismrmrd",
        quantities: params.quantities.clone(),
        n_slices,
        bytes: 0,
        window: None,
    };
    staging.adopt(temporary, file)
}

/// Images one by one, as they come, for a connection: what [`write`] puts into a file, except that the grey window is
/// that of the image (the series is not known yet) and `image_index` counts in the order of arrival.
#[derive(Clone, Debug)]
pub struct MrdSeries {
    scan: Scan,
    quantities: Vec<Quantity>,
    window_percentiles: [f32; 2],
    count: u16,
}

impl MrdSeries {
    /// Before the first image.
    ///
    /// # Errors
    /// Those of [`HandoffParams::check`].
    pub fn new(scan: Scan, params: &HandoffParams) -> Result<Self, HandoffError> {
        params.check()?;
        Ok(Self {
            scan,
            quantities: params.quantities.clone(),
            window_percentiles: params.window_percentiles,
            count: 0,
        })
    }

    /// One image per quantity. `marks` are meta attributes of the sender.
    ///
    /// # Errors
    /// A quantity that the image does not have; [`HandoffError::Shape`].
    pub fn images(
        &mut self,
        image: &ReconImage,
        marks: &[(String, String)],
    ) -> Result<Vec<Image>, HandoffError> {
        self.count = self.count.wrapping_add(1);
        let mut out = Vec::with_capacity(self.quantities.len());
        for &quantity in &self.quantities {
            let mut head = header(image, &image.geometry, quantity)?;
            head.image_index = self.count;
            let (pixels, grey) = match extract(image, quantity)? {
                Values::Real(values) => {
                    let grey = window(&mut values.clone(), self.window_percentiles);
                    (Pixels::F32(values), Some(grey))
                }
                Values::Complex(values) => (Pixels::C32(values), None),
            };
            let mut meta = meta(image, &image.geometry, quantity, &self.scan, grey);
            for (name, value) in marks {
                meta.set(name, value);
            }
            out.push(Image {
                head,
                attributes: meta.to_xml(),
                pixels,
            });
        }
        Ok(out)
    }
}

fn writing(out: &Path, error: ismrmrd::Error) -> HandoffError {
    match error {
        ismrmrd::Error::Io { source, .. } => HandoffError::io("writing", out, source),
        other => HandoffError::Ismrmrd(other),
    }
}

fn series_window(
    stacks: &[Stack<'_>],
    quantity: Quantity,
    percentiles: [f32; 2],
) -> Result<[f32; 2], HandoffError> {
    let mut values = Vec::new();
    for image in stacks.iter().flat_map(|s| s.frames.iter().flatten()) {
        values.extend(extract(image, quantity)?.into_real());
    }
    Ok(window(&mut values, percentiles))
}

/// The fixed header. `position` is that of voxel `n/2`, as in the acquisitions it came from.
fn header(
    image: &ReconImage,
    geometry: &Geometry,
    quantity: Quantity,
) -> Result<ImageHeader, HandoffError> {
    let too_large = |n: usize| {
        u16::try_from(n).map_err(|_| HandoffError::Shape {
            image: describe(image),
            found: format!("an extent of {n}"),
            needed: "at most 65535 per axis in an ISMRMRD image".into(),
        })
    };
    let [nx, ny, nz] = geometry.matrix;
    let channels = match (&image.csm, quantity) {
        (Some(csm), Quantity::Csm) => csm.n_sets * csm.n_coils,
        _ => 1,
    };
    let key = image.key;
    Ok(ImageHeader {
        measurement_uid: image.stamps.measurement_uid,
        matrix_size: [too_large(nx)?, too_large(ny)?, too_large(nz)?],
        field_of_view: geometry.field_of_view_mm(),
        channels: too_large(channels)?,
        position: geometry.centre_mm,
        read_dir: geometry.read_dir,
        phase_dir: geometry.phase_dir,
        slice_dir: geometry.slice_dir,
        patient_table_position: image.table_position_mm,
        average: key.average,
        slice: key.slice_idx,
        contrast: key.contrast,
        phase: key.cardiac_phase,
        repetition: key.repetition,
        set: key.set,
        acquisition_time_stamp: image.stamps.acquisition_time_stamp,
        physiology_time_stamp: image.stamps.physiology_time_stamp,
        image_type: image_type(quantity) as u16,
        image_series_index: series_index(quantity, image.synthetic.as_deref()),
        ..ImageHeader::default()
    })
}

/// Meta attributes. Servers and converters disagree on some names; both are written.
fn meta(
    image: &ReconImage,
    geometry: &Geometry,
    quantity: Quantity,
    scan: &Scan,
    grey: Option<[f32; 2]>,
) -> Meta {
    let mut meta = Meta::default();
    let mark = image.synthetic.as_deref();
    let is_hounsfield = synthetic::is_hounsfield(mark, quantity);
    let is_map = matches!(
        quantity,
        Quantity::Snr
            | Quantity::Gfactor
            | Quantity::NoiseStd
            | Quantity::Sigma
            | Quantity::Abstention
            | Quantity::Bone
            | Quantity::Domain
            | Quantity::Csm
    ) || is_hounsfield;
    // "Quantitative" keeps clients from scaling the values.
    meta.set("DataRole", if is_map { "Quantitative" } else { "Image" });
    meta.set_all(
        "ImageType",
        super::dicom::image_type(quantity, image)
            .split('\\')
            .map(str::to_owned)
            .collect(),
    );
    let measurement = scan.header.measurement_information.as_ref();
    if let Some(name) = measurement.and_then(|m| {
        m.series_description
            .as_deref()
            .or(m.protocol_name.as_deref())
    }) {
        let name = synthetic::named(mark, name);
        meta.set("SeriesDescription", &name);
        meta.set("SequenceDescription", &name);
    } else if let Some(s) = mark {
        meta.set("SeriesDescription", s.kind.title());
        meta.set("SequenceDescription", s.kind.title());
    }
    if quantity != Quantity::Magnitude {
        meta.set("SeriesDescriptionAdditional", quantity.name());
        meta.set("SequenceDescriptionAdditional", quantity.name());
    }
    let unit = match quantity {
        _ if mark.is_some() => mark.map_or("", |s| synthetic::unit(s, quantity)),
        Quantity::Phase => "rad",
        Quantity::Snr
        | Quantity::Gfactor
        | Quantity::NoiseStd
        | Quantity::Sigma
        | Quantity::Csm => "1",
        _ => "arbitrary",
    };
    meta.set("CaudaQuantity", quantity.name());
    meta.set("CaudaUnit", unit);
    let comments = image
        .provenance
        .notes
        .iter()
        .map(|note| format!("{}: {}", note.code, note.text));
    // What it is comes first.
    let comments: Vec<String> = mark
        .map(Synthetic::sentence)
        .into_iter()
        .chain(comments)
        .collect();
    if !comments.is_empty() {
        meta.set_all("ImageComments", comments.clone());
        meta.set_all("ImageComment", comments);
    }
    let dir = |d: [f32; 3]| d.iter().map(f32::to_string).collect::<Vec<_>>();
    meta.set_all("ImageRowDir", dir(geometry.read_dir));
    meta.set_all("ImageColumnDir", dir(geometry.phase_dir));
    meta.set("Keep_image_geometry", 1);
    if let Some([low, high]) = grey {
        meta.set("WindowCenter", 0.5 * (low + high));
        meta.set("WindowWidth", high - low);
    }
    let times = timing::of(scan, image.key.contrast as usize);
    for (name, value) in [
        ("EchoTime", times.te_ms),
        ("InversionTime", times.ti_ms),
        ("RepetitionTime", times.tr_ms),
        ("FlipAngle", times.flip_angle_deg),
    ] {
        if let Some(value) = value {
            meta.set(name, value);
        }
    }
    if let Some(s) = mark {
        // The name of DICOM's attribute (0008,001C), and what belongs to it.
        meta.set("SyntheticData", "YES");
        meta.set("ContentQualification", "RESEARCH");
        meta.set("CaudaSyntheticKind", s.kind.name());
        meta.set("AlgorithmName", &s.model);
        meta.set("AlgorithmVersion", &s.version);
        meta.set("AlgorithmDigest", &s.digest);
        meta.set_all(
            "CaudaSources",
            s.sources
                .iter()
                .map(|s| format!("{}: {}", s.role, s.name))
                .collect(),
        );
        if let Some(domain) = s.domain {
            meta.set("CaudaDomain", domain);
        }
    }
    if let (Some(csm), Quantity::Csm) = (&image.csm, quantity) {
        meta.set("CaudaSets", csm.n_sets);
        meta.set("CaudaCoils", csm.n_coils);
    }
    let mut history = vec![concat!("cauda ", env!("CARGO_PKG_VERSION")).to_owned()];
    for step in &image.provenance.steps {
        history.push(format!("{} [{}] {}", step.op, step.backend, step.detail));
    }
    meta.set_all("ImageProcessingHistory", history);
    if !image.provenance.protocol.is_empty() {
        meta.set("CaudaProtocol", &image.provenance.protocol);
    }
    if !image.provenance.input.is_empty() {
        meta.set("CaudaInput", &image.provenance.input);
    }
    meta
}
