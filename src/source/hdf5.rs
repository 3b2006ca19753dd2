//! What an HDF5 file holds, as far as needed to tell kinds apart and to say what is there.

use std::path::Path;

use hdf5::types::{FixedAscii, FixedUnicode, TypeDescriptor, VarLenAscii, VarLenUnicode};

use super::{Kind, SourceError};

/// Opens read-only; nothing may change the file.
pub(crate) fn open(path: &Path) -> Result<hdf5::File, SourceError> {
    ismrmrd::file::check(path).map_err(|e| SourceError::ismrmrd(path, e))?;
    hdf5::File::open(path).map_err(|e| {
        SourceError::malformed(
            path,
            "HDF5",
            e.to_string(),
            "a whole HDF5 file",
            "the copy was cut short or the file is still being written: copy it again",
        )
    })
}

/// Tells ISMRMRD, fastMRI and other layouts apart.
pub(crate) fn kind(path: &Path, limits: ismrmrd::Limits) -> Result<Kind, SourceError> {
    let file = open(path)?;
    if file.dataset("kspace").is_ok() {
        return Ok(Kind::FastMri);
    }
    drop(file);
    let groups = ismrmrd::file::File::open(path, limits)
        .and_then(|f| f.groups())
        .map_err(|e| SourceError::ismrmrd(path, e))?;
    Ok(
        if groups
            .iter()
            .any(|g| g.has_header && g.acquisitions.is_some())
        {
            Kind::Ismrmrd
        } else if groups
            .iter()
            .any(|g| !g.images.is_empty() || (g.has_header && !g.arrays.is_empty()))
        {
            Kind::IsmrmrdImages
        } else {
            Kind::OtherHdf5
        },
    )
}

/// Refuses a file without readouts and lists what is inside.
pub(crate) fn refuse(path: &Path) -> SourceError {
    let mut list = Vec::new();
    let mut has_images = false;
    if let Ok(file) = open(path) {
        walk(&file, "", 0, &mut list);
        has_images = matches!(
            kind(path, ismrmrd::Limits::default()),
            Ok(Kind::IsmrmrdImages)
        );
    }
    let inside = if list.is_empty() {
        "nothing".into()
    } else {
        list.join(", ")
    };
    if has_images {
        SourceError::unsupported(
            path,
            format!("ISMRMRD images or arrays without readouts; inside: {inside}"),
            "a group with xml and data (acquisitions)",
            "name the raw data of the scan; `cauda inspect`, `compare` and `convert` take images",
        )
    } else {
        SourceError::unsupported(
            path,
            format!("HDF5 of an unknown layout; inside: {inside}"),
            "ISMRMRD (a group with xml and data) or fastMRI (a data set kspace)",
            "convert it to ISMRMRD",
        )
    }
}

/// At most this many names go into a message.
const MAX_LISTED: usize = 24;

fn walk(group: &hdf5::Group, path: &str, depth: usize, list: &mut Vec<String>) {
    for name in group.member_names().unwrap_or_default() {
        if list.len() == MAX_LISTED {
            list.push("...".into());
        }
        if list.len() > MAX_LISTED {
            return;
        }
        let full = format!("{path}/{name}");
        if let Ok(set) = group.dataset(&name) {
            let shape: Vec<String> = set.shape().iter().map(usize::to_string).collect();
            list.push(format!("{full} [{}]", shape.join("x")));
        } else if let Ok(inner) = group.group(&name)
            && depth < 4
        {
            let before = list.len();
            walk(&inner, &full, depth + 1, list);
            if list.len() == before {
                list.push(format!("{full}/ (empty)"));
            }
        }
    }
}

/// Text of a data set of one string, of any of HDF5's string types.
pub(crate) fn text(path: &Path, set: &hdf5::Dataset, limit: usize) -> Result<String, SourceError> {
    let name = set.name();
    let bad = |found: String| {
        SourceError::malformed(
            path,
            name.clone(),
            found,
            "one string",
            "write the file again with its header",
        )
    };
    let descriptor = set
        .dtype()
        .and_then(|t| t.to_descriptor())
        .map_err(|e| bad(e.to_string()))?;
    let text = match descriptor {
        TypeDescriptor::VarLenUnicode => set.read_raw::<VarLenUnicode>().map(first_string),
        TypeDescriptor::VarLenAscii => set.read_raw::<VarLenAscii>().map(first_string),
        TypeDescriptor::FixedAscii(n) if n <= MAX_FIXED => {
            set.read_raw::<FixedAscii<MAX_FIXED>>().map(first_string)
        }
        TypeDescriptor::FixedUnicode(n) if n <= MAX_FIXED => {
            set.read_raw::<FixedUnicode<MAX_FIXED>>().map(first_string)
        }
        other => return Err(bad(other.to_string())),
    };
    let text = text
        .map_err(|e| bad(e.to_string()))?
        .ok_or_else(|| bad("no string".into()))?;
    if text.len() > limit {
        return Err(SourceError::TooLarge {
            path: path.to_path_buf(),
            what: "bytes of the XML header",
            declared: text.len() as u64,
            limit: limit as u64,
        });
    }
    Ok(text)
}

/// Longest fixed-length string that is read.
const MAX_FIXED: usize = 1 << 17;

fn first_string<S: std::fmt::Display>(list: Vec<S>) -> Option<String> {
    list.first().map(S::to_string)
}
