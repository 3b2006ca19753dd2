//! Images in, deliveries out: DICOM, NIfTI, ISMRMRD images, PNG, `.npy`, `.cfl`.
//!
//! [`write()`] turns [`ReconImage`]s and the [`Scan`] they came from into files; [`read_image`] reads the same formats
//! back for comparison. It stands apart from `recon` because nothing here changes a number: voxels are turned by whole
//! steps, scaled where a format holds integers (with the scale written beside them), and never clipped or replaced.
//!
//! # Which file
//! The ending of `out` decides: `.h5` ISMRMRD images, `.nii` / `.nii.gz` NIfTI-1, `.dcm` one DICOM object, `.png` a
//! contact sheet, `.npy` NumPy, `.cfl` BART (with its `.hdr`). No ending, or a closing `/`: a folder with a DICOM
//! series. Names: `NAME[_contrast-N][_set-N][_average-N][_encoding-N][_slab-N][_QUANTITY].ENDING`, where a counter
//! appears only if the scan has more than one, and the magnitude has no suffix. Folders: `QUANTITY-0001.dcm`, ...
//!
//! # Arrays
//! | format | shape, slowest first | voxels |
//! | --- | --- | --- |
//! | NIfTI | `[frame, z, y, x]` | f32, c64 for complex |
//! | `.npy` | `[frame, z, y, x]`; maps `[frame, set, coil, z, y, x]` | f32, c64 |
//! | `.cfl` | BART axes: x 0, y 1, partition 2, coil 3, set 4, frame 10, slice 13 | c64 |
//! | PNG | slices left to right, then down; frames one after the other | 8 bit |
//! | DICOM | one object per slice, or one frame per slice | u16 with slope and intercept |
//! | `.h5` | one image per slice or slab, `[channel, z, y, x]` | f32, c64 |
//!
//! A *frame* is one repetition and cardiac phase (repetition slowest). Slices are sorted by position along the slice
//! direction. PNG and DICOM are turned for display (left on the right, head up; see `orient`), the others keep
//! read, phase, slice.
//!
//! # Geometry
//! MRD directions and positions are patient coordinates (LPS) already: the patient position is handed on as a label
//! and never applied to them. One `Geometry` gives every format its numbers, in `orient`.
//!
//! # Atomic
//! Files are written beside their place under a temporary name and renamed when *all* of them are complete: a full
//! disk or a kill leaves the old state. What exists is not replaced unless `overwrite` is set.

mod cfl;
mod deliver;
mod dicom;
mod error;
mod gzip;
mod mrd;
mod nifti;
mod npy;
mod orient;
mod params;
mod png;
mod quantity;
mod read;
mod stack;
mod synthetic;
#[cfg(test)]
mod tests;
mod timing;
mod volume;

use std::path::{Path, PathBuf};

pub use deliver::{Delivered, DeliveredFile};
pub use error::HandoffError;
pub use mrd::MrdSeries;
pub use params::{DicomKind, DicomParams, HandoffParams, PngParams, Quantity};
pub use read::{ImageArray, ReadSeries, dicom_instances, holds_images, read_image, read_series};

use self::{deliver::Staging, stack::Stack};
use crate::data::{Geometry, Note, ReconImage, Scan};

/// What the ending of an output's name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// ISMRMRD images, `.h5`.
    Ismrmrd,
    /// NIfTI-1, `.nii`.
    Nifti,
    /// Gzipped NIfTI-1, `.nii.gz`.
    NiftiGz,
    /// One DICOM object, `.dcm`.
    Dicom,
    /// A DICOM series in a folder.
    DicomFolder,
    /// Contact sheet, `.png`.
    Png,
    /// NumPy, `.npy`.
    Npy,
    /// BART, `.cfl` and `.hdr`.
    Cfl,
}

impl Format {
    /// Decides by the ending.
    ///
    /// # Errors
    /// [`HandoffError::UnknownFormat`] lists the endings there are.
    pub fn of(out: &Path) -> Result<Self, HandoffError> {
        let unknown = || HandoffError::UnknownFormat {
            path: out.to_path_buf(),
        };
        let text = out.to_string_lossy();
        if text.ends_with('/') || out.is_dir() {
            return Ok(Self::DicomFolder);
        }
        let name = out
            .file_name()
            .ok_or_else(unknown)?
            .to_string_lossy()
            .to_lowercase();
        for (ending, format) in [
            (".h5", Self::Ismrmrd),
            (".nii", Self::Nifti),
            (".nii.gz", Self::NiftiGz),
            (".dcm", Self::Dicom),
            (".png", Self::Png),
            (".npy", Self::Npy),
            (".cfl", Self::Cfl),
        ] {
            if name.ends_with(ending) && name.len() > ending.len() {
                return Ok(format);
            }
        }
        if name.contains('.') {
            Err(unknown())
        } else {
            Ok(Self::DicomFolder)
        }
    }

    /// Whether the format has a place for the quantity: asked before a reconstruction, not after it.
    ///
    /// # Errors
    /// [`HandoffError::UnsupportedQuantity`] names what has.
    pub fn holds(self, quantity: Quantity) -> Result<(), HandoffError> {
        let refused = match self {
            Self::Dicom | Self::DicomFolder if quantity.is_complex() => "DICOM",
            Self::Png if quantity.is_complex() => "PNG",
            Self::Nifti | Self::NiftiGz if quantity == Quantity::Csm => "NIfTI",
            _ => return Ok(()),
        };
        Err(HandoffError::UnsupportedQuantity {
            quantity: quantity.name(),
            format: refused,
            alternatives: if quantity == Quantity::Csm {
                ".h5, .npy or .cfl for sensitivity maps"
            } else {
                "real and imag (or magnitude and phase) as two series; .h5, .npy, .cfl hold complex voxels"
            },
        })
    }
}

/// Writes `images` to `out` in the format that its ending asks for.
///
/// # Errors
/// Everything in [`HandoffError`]; whatever the error, nothing half-written stays behind. The images are checked
/// before the first byte is written.
pub fn write(
    images: &[ReconImage],
    scan: &Scan,
    out: &Path,
    params: &HandoffParams,
) -> Result<Delivered, HandoffError> {
    params.check()?;
    let format = Format::of(out)?;
    for &quantity in &params.quantities {
        format.holds(quantity)?;
    }
    let mut notes = Vec::new();
    let stacks = stack::stacks(images, &mut notes)?;
    let mut staging = match format {
        Format::DicomFolder => Staging::folder(out, params.overwrite)?,
        _ => Staging::files(params.overwrite),
    };
    match format {
        Format::DicomFolder | Format::Dicom => {
            let is_folder = format == Format::DicomFolder;
            dicom::write(&mut staging, images, &stacks, scan, out, is_folder, params)?;
            // One file per slice anyway.
            notes.retain(|n| n.code != "irregular_slices" && n.code != "incomplete_frame");
        }
        Format::Nifti | Format::NiftiGz => {
            let is_gzip = format == Format::NiftiGz;
            write_nifti(&mut staging, &stacks, scan, out, is_gzip, params)?;
        }
        Format::Png => write_png(&mut staging, &stacks, scan, out, params, &mut notes)?,
        Format::Npy => write_npy(&mut staging, &stacks, scan, out, params)?,
        Format::Cfl => write_cfl(&mut staging, &stacks, scan, out, params)?,
        Format::Ismrmrd => mrd::write(&mut staging, &stacks, scan, out, params)?,
    }
    if !matches!(format, Format::Nifti | Format::NiftiGz) {
        notes.retain(|n| n.code != "irregular_slices");
    }
    if format == Format::Ismrmrd {
        notes.retain(|n| n.code != "incomplete_frame");
    }
    for note in notes {
        staging.note(note);
    }
    staging.commit()
}

/// `dir/name.nii.gz` with `suffix` in front of the ending.
pub fn with_suffix(out: &Path, suffix: &str) -> PathBuf {
    let name = out
        .file_name()
        .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let lower = name.to_lowercase();
    let ending = if lower.ends_with(".nii.gz") {
        7
    } else {
        name.len() - name.rfind('.').unwrap_or(name.len())
    };
    let (stem, ending) = name.split_at(name.len() - ending);
    out.with_file_name(format!("{stem}{suffix}{ending}"))
}

fn file(path: PathBuf, format: &'static str, quantity: Quantity, n_slices: usize) -> DeliveredFile {
    DeliveredFile {
        path,
        format,
        quantities: vec![quantity],
        n_slices,
        bytes: 0,
        window: None,
    }
}

fn write_nifti(
    staging: &mut Staging,
    stacks: &[Stack<'_>],
    scan: &Scan,
    out: &Path,
    is_gzip: bool,
    params: &HandoffParams,
) -> Result<(), HandoffError> {
    for &quantity in &params.quantities {
        for stack in stacks {
            // An irregular stack falls apart into its slices, each a volume of its own.
            let parts: Vec<(Stack<'_>, Geometry)> = match stack.block {
                Some(block) => vec![(stack.clone(), block)],
                None => (0..stack.slices.len()).map(|s| single(stack, s)).collect(),
            };
            for (part, block) in parts {
                let volume = volume::gather(&part, quantity)?;
                let path = with_suffix(out, &(part.label.clone() + &quantity.suffix()));
                let n_slices = part.frames.len() * part.n_z();
                staging.write(file(path.clone(), "nifti", quantity, n_slices), |w| {
                    nifti::write(w, &part, &block, &volume, quantity, scan, is_gzip)
                })?;
                synthetic::write_beside(staging, &part, quantity, scan, &path)?;
            }
        }
    }
    Ok(())
}

/// Slice `s` of a stack as a stack of its own.
fn single<'a>(stack: &Stack<'a>, s: usize) -> (Stack<'a>, Geometry) {
    let part = Stack {
        label: format!("{}_slice-{}", stack.label, stack.frames[0][s].key.slice_idx),
        frames: stack.frames.iter().map(|frame| vec![frame[s]]).collect(),
        slices: vec![stack.slices[s]],
        block: Some(stack.slices[s]),
    };
    (part, stack.slices[s])
}

fn write_npy(
    staging: &mut Staging,
    stacks: &[Stack<'_>],
    scan: &Scan,
    out: &Path,
    params: &HandoffParams,
) -> Result<(), HandoffError> {
    for &quantity in &params.quantities {
        for stack in stacks {
            let volume = volume::gather(stack, quantity)?;
            let path = with_suffix(out, &(stack.label.clone() + &quantity.suffix()));
            let n_slices = stack.frames.len() * stack.n_z();
            staging.write(file(path.clone(), "npy", quantity, n_slices), |w| {
                npy::write(w, &volume, quantity == Quantity::Csm)
            })?;
            synthetic::write_beside(staging, stack, quantity, scan, &path)?;
        }
    }
    Ok(())
}

fn write_cfl(
    staging: &mut Staging,
    stacks: &[Stack<'_>],
    scan: &Scan,
    out: &Path,
    params: &HandoffParams,
) -> Result<(), HandoffError> {
    for &quantity in &params.quantities {
        for stack in stacks {
            let volume = volume::gather(stack, quantity)?;
            let is_3d = stack.n_partitions() > 1;
            let dims = cfl::dims(&volume, is_3d);
            let path = with_suffix(out, &(stack.label.clone() + &quantity.suffix()));
            let n_slices = stack.frames.len() * stack.n_z();
            let hdr = file(path.with_extension("hdr"), "cfl", quantity, 0);
            staging.write(hdr, |w| cfl::write_header(w, &dims))?;
            staging.write(file(path.clone(), "cfl", quantity, n_slices), |w| {
                cfl::write_voxels(w, volume, is_3d)
            })?;
            synthetic::write_beside(staging, stack, quantity, scan, &path)?;
        }
    }
    Ok(())
}

fn write_png(
    staging: &mut Staging,
    stacks: &[Stack<'_>],
    scan: &Scan,
    out: &Path,
    params: &HandoffParams,
    notes: &mut Vec<Note>,
) -> Result<(), HandoffError> {
    for &quantity in &params.quantities {
        for stack in stacks {
            let sheet = png::sheet(
                stack,
                quantity,
                params.window_percentiles,
                params.png.columns,
                notes,
            )?;
            let path = with_suffix(out, &(stack.label.clone() + &quantity.suffix()));
            let mut file = file(path.clone(), "png", quantity, sheet.n_tiles);
            file.window = sheet.window;
            staging.write(file, |w| sheet.write(w))?;
            synthetic::write_beside(staging, stack, quantity, scan, &path)?;
        }
    }
    Ok(())
}
