//! ISMRMRD files and MRD streams, through the package `ismrmrd`.

use std::path::{Path, PathBuf};

use ismrmrd::Header;
use ismrmrd::file::File;

use super::{OpenOptions, Parts, Readouts, SourceError, Visit};
use crate::data::Note;

pub(crate) fn parse_header(path: &Path, text: &str) -> Result<Header, SourceError> {
    Header::parse(text).map_err(|e| SourceError::ismrmrd(path, e))
}

struct Group {
    path: PathBuf,
    file: File,
    name: String,
    count: u64,
}

impl Readouts for Group {
    fn count(&self) -> u64 {
        self.count
    }

    fn for_each_batch(&mut self, visit: &mut Visit<'_>) -> Result<(), SourceError> {
        self.file
            .for_each_batch(&self.name, super::grid::BATCH, visit)
            .map_err(|e| SourceError::ismrmrd(&self.path, e))
    }
}

pub(crate) fn open_file(path: &Path, options: &OpenOptions) -> Result<Parts, SourceError> {
    let wrap = |e| SourceError::ismrmrd(path, e);
    let file = File::open(path, options.limits).map_err(wrap)?;
    let groups = file.groups().map_err(wrap)?;
    let scans: Vec<&str> = groups
        .iter()
        .filter(|g| g.acquisitions.is_some() && g.has_header)
        .map(|g| g.name.as_str())
        .collect();
    let found = || {
        if scans.is_empty() {
            "no group with header and acquisitions".to_string()
        } else {
            format!("groups with acquisitions: {}", scans.join(", "))
        }
    };
    let trimmed = |name: &str| name.trim_matches('/').to_string();
    let name = match &options.group {
        Some(wanted) => scans
            .iter()
            .find(|name| trimmed(name) == trimmed(wanted))
            .ok_or_else(|| SourceError::Option {
                path: path.to_path_buf(),
                asked: format!("group {wanted:?}"),
                found: found(),
                hint: "name one of them with --group".into(),
            })?,
        None => match scans[..] {
            [ref only] => only,
            _ => scans
                .iter()
                .find(|name| trimmed(name) == "dataset")
                .ok_or_else(|| SourceError::Option {
                    path: path.to_path_buf(),
                    asked: "a group was not named, and there is no single one".into(),
                    found: found(),
                    hint: "name one of them with --group".into(),
                })?,
        },
    };
    let name = (*name).to_string();
    let mut notes = Vec::new();
    if options.group.is_none() && scans.len() > 1 {
        notes.push(Note::new(
            "group_chosen",
            format!("group {name} is read of {}", scans.join(", ")),
        ));
    }
    let header = file.header(&name).map_err(wrap)?;
    let count = file.number_of_acquisitions(&name).map_err(wrap)?;
    if count == 0 {
        return Err(SourceError::malformed(
            path,
            format!("group {name}, data"),
            "no acquisition",
            "at least one",
            "the scan was aborted or the converter failed: convert it again",
        ));
    }
    let mut parts = Parts::new(
        header,
        notes,
        Box::new(Group {
            path: path.to_path_buf(),
            file,
            name: name.clone(),
            count,
        }),
    );
    parts.group = Some(name);
    Ok(parts)
}

/// Writes all readouts with the header into a new file.
pub(crate) fn to_file(
    opened: &mut super::Opened,
    output: &Path,
    group: &str,
) -> Result<u64, SourceError> {
    let wrap = |e| SourceError::ismrmrd(output, e);
    let mut writer = ismrmrd::file::Writer::create(output, group).map_err(wrap)?;
    writer.header(&opened.header).map_err(wrap)?;
    let mut failure = None;
    let mut written = 0;
    opened.for_each_batch(&mut |batch| {
        for readout in batch {
            if let Err(e) = writer.acquisition_ref(readout) {
                failure = Some(e);
                return std::ops::ControlFlow::Break(());
            }
            written += 1;
        }
        std::ops::ControlFlow::Continue(())
    })?;
    match failure {
        Some(e) => Err(wrap(e)),
        None => {
            writer.finish().map_err(wrap)?;
            Ok(written)
        }
    }
}

pub(crate) fn open_v1(path: &Path, _options: &OpenOptions) -> Result<Parts, SourceError> {
    Err(not_yet(path, "an MRD v1 stream"))
}

pub(crate) fn open_v2(path: &Path, _options: &OpenOptions) -> Result<Parts, SourceError> {
    Err(not_yet(path, "an MRD v2 stream"))
}

fn not_yet(path: &Path, what: &str) -> SourceError {
    SourceError::unsupported(
        path,
        what,
        "a build that reads streams",
        "convert it with ismrmrd_stream_to_hdf5",
    )
}
