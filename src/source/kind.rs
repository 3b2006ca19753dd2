//! What kind of file a path is, from its content, never from its name.
//!
//! The one exception is a BART `.cfl`, which is raw numbers without a mark: it is recognised through the `.hdr` beside
//! it, whose content is checked.

use std::io::Read as _;
use std::path::Path;

use ismrmrd::wire::StreamKind;

use super::{SourceError, bart, bruker, npy, twix};

/// Kinds of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// ISMRMRD HDF5 with acquisitions.
    Ismrmrd,
    /// ISMRMRD HDF5 with images or arrays and no acquisitions.
    IsmrmrdImages,
    /// fastMRI HDF5.
    FastMri,
    /// HDF5 of another layout.
    OtherHdf5,
    /// MRD version 1 byte stream.
    MrdV1Stream,
    /// MRD version 2 (yardl binary) stream.
    MrdV2Stream,
    /// BART `.cfl`/`.hdr`.
    Bart,
    /// Siemens twix, VA/VB line.
    TwixVb,
    /// Siemens twix, VD/VE line and later.
    TwixVd,
    /// Bruker ParaVision scan folder.
    Bruker,
    /// NumPy array.
    Npy,
    /// MATLAB level 5.
    Mat,
}

impl Kind {
    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ismrmrd => "ISMRMRD HDF5",
            Self::IsmrmrdImages => "ISMRMRD HDF5, images only",
            Self::FastMri => "fastMRI HDF5",
            Self::OtherHdf5 => "HDF5 of another layout",
            Self::MrdV1Stream => "MRD v1 stream",
            Self::MrdV2Stream => "MRD v2 stream",
            Self::Bart => "BART cfl/hdr",
            Self::TwixVb => "Siemens twix (VB)",
            Self::TwixVd => "Siemens twix (VD/VE)",
            Self::Bruker => "Bruker ParaVision",
            Self::Npy => "NumPy array",
            Self::Mat => "MATLAB level 5",
        }
    }
}

/// What can be read, for messages.
pub const SUPPORTED: &str = "ISMRMRD (.h5), MRD v1 and v2 streams, fastMRI (.h5), Siemens twix (.dat), BART (.cfl/.hdr), \
                             Bruker ParaVision (scan folder), NumPy (.npy), MATLAB (.mat, not -v7.3)";

/// Bytes read to recognise a file.
const HEAD_BYTES: u64 = 256 << 10;

/// First bytes of every HDF5 file or of the block after its user block.
const HDF5_MAGIC: &[u8] = b"\x89HDF\r\n\x1a\n";

/// Says what kind of file this is.
///
/// # Errors
/// * [`SourceError::Io`]: the file cannot be opened or read.
/// * [`SourceError::Unsupported`]: what the file is instead, by its content, and what would be read.
pub fn detect(path: &Path) -> Result<Kind, SourceError> {
    // A stem names no file of its own.
    if bart::pair(path).is_some() {
        return Ok(Kind::Bart);
    }
    let refuse =
        |found: String, hint: &str| Err(SourceError::unsupported(path, found, SUPPORTED, hint));
    if path.is_dir() {
        if bruker::folder(path).is_some() {
            return Ok(Kind::Bruker);
        }
        return refuse(
            "a folder, not a Bruker scan (no method and acqp in it)".into(),
            "name a file, or the folder of one Bruker scan (the one with fid, method, acqp)",
        );
    }
    let mut file =
        std::fs::File::open(path).map_err(|e| SourceError::io("cannot open", path, e))?;
    let mut head = Vec::new();
    file.by_ref()
        .take(HEAD_BYTES)
        .read_to_end(&mut head)
        .map_err(|e| SourceError::io("cannot read", path, e))?;
    if head.is_empty() {
        return refuse("the file is empty".into(), "copy it again");
    }
    // HDF5 may stand behind a user block of 512 bytes times a power of two.
    let hdf5_at = std::iter::once(0)
        .chain((9..18).map(|p| 1usize << p))
        .find(|&at| head.get(at..).is_some_and(|b| b.starts_with(HDF5_MAGIC)));
    if let Some(at) = hdf5_at {
        if head.starts_with(b"MATLAB 7.3") {
            return refuse(
                "a MATLAB file of version 7.3 (HDF5 inside)".into(),
                "save it again with `save -v7`, or write the array with numpy.save",
            );
        }
        if at > 0 {
            return refuse(
                format!("HDF5 behind a user block of {at} bytes"),
                "copy the data into a file without one",
            );
        }
        return hdf5_kind(path);
    }
    if head.starts_with(npy::MAGIC) {
        return Ok(Kind::Npy);
    }
    if head.len() >= 128
        && head.starts_with(b"MATLAB 5.0")
        && matches!(head.get(126..128), Some(b"IM" | b"MI"))
    {
        return Ok(Kind::Mat);
    }
    match twix::detect(&head) {
        Some(twix::Baseline::Vd) => return Ok(Kind::TwixVd),
        Some(twix::Baseline::Vb) => return Ok(Kind::TwixVb),
        None => {}
    }
    if bruker::folder(path).is_some() {
        return Ok(Kind::Bruker);
    }
    match ismrmrd::wire::sniff(&head) {
        Some(StreamKind::V1) => return Ok(Kind::MrdV1Stream),
        Some(StreamKind::V2) => return Ok(Kind::MrdV2Stream),
        None => {}
    }
    let image = |what: &str| {
        refuse(
            format!("{what}: an image, not k-space"),
            "name the raw data of the scan",
        )
    };
    if head.get(128..132) == Some(b"DICM") {
        return image("DICOM");
    }
    if matches!(head.get(344..348), Some(b"n+1\0" | b"ni1\0"))
        || matches!(head.get(4..8), Some(b"n+2\0"))
    {
        return image("NIfTI");
    }
    for (magic, what) in [
        (&b"\x89PNG"[..], "PNG"),
        (b"\xff\xd8\xff", "JPEG"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"NRRD0", "NRRD"),
        (b"NES:", "NRRD"),
    ] {
        if head.starts_with(magic) {
            return image(what);
        }
    }
    for (magic, what, hint) in [
        (
            &b"\x1f\x8b"[..],
            "a gzip-compressed file (a NIfTI image, as a rule)",
            "decompress it first, if it holds k-space",
        ),
        (
            b"PK\x03\x04",
            "a zip archive (or .npz)",
            "unpack it and name the file within",
        ),
        (
            b"# Dimensions",
            "a BART header without its .cfl",
            "copy NAME.cfl beside NAME.hdr",
        ),
        (
            b"##TITLE",
            "a Bruker parameter file outside a scan folder",
            "name the scan's folder (with fid, method, acqp)",
        ),
        (
            b"<?xml",
            "an XML text, such as a header alone",
            "name the file with the readouts",
        ),
        (
            b"<ismrmrdHeader",
            "an ISMRMRD header alone",
            "name the file with the readouts",
        ),
    ] {
        if head.starts_with(magic) {
            return refuse(what.into(), hint);
        }
    }
    let has_name = |suffix: &str| {
        path.extension()
            .is_some_and(|e| e.eq_ignore_ascii_case(suffix))
    };
    if has_name("cfl") {
        return refuse(
            "a file named .cfl without a BART header beside it".into(),
            "copy NAME.hdr beside NAME.cfl",
        );
    }
    if head.iter().all(|&b| b == 0) {
        return refuse(
            "nothing but zeros".into(),
            "the copy failed: copy the file again",
        );
    }
    let text = head
        .iter()
        .take(512)
        .all(|&b| b >= 0x20 && b != 0x7f || matches!(b, b'\n' | b'\r' | b'\t'));
    if text {
        let line: String = String::from_utf8_lossy(&head)
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(60)
            .collect();
        return refuse(
            format!("text beginning with {line:?}"),
            "name the raw data of the scan",
        );
    }
    let hex: Vec<String> = head.iter().take(16).map(|b| format!("{b:02x}")).collect();
    refuse(
        format!("content of no known kind, beginning with {}", hex.join(" ")),
        "check that the file is whole; vendor files other than these need a converter to ISMRMRD",
    )
}

fn hdf5_kind(path: &Path) -> Result<Kind, SourceError> {
    super::hdf5::kind(path, ismrmrd::Limits::default())
}
