//! ISMRMRD files and MRD streams, through the package `ismrmrd`.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ismrmrd::acquisition::AcquisitionRef;
use ismrmrd::file::File;
use ismrmrd::wire::{Item, Message, Stream, encode};
use ismrmrd::{Acquisition, Header};

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
                return ControlFlow::Break(());
            }
            written += 1;
        }
        ControlFlow::Continue(())
    })?;
    match failure {
        Some(e) => Err(wrap(e)),
        None => {
            writer.finish().map_err(wrap)?;
            Ok(written)
        }
    }
}

struct StreamFile {
    path: PathBuf,
    limits: ismrmrd::Limits,
    count: u64,
}

impl Readouts for StreamFile {
    fn count(&self) -> u64 {
        self.count
    }

    fn for_each_batch(&mut self, visit: &mut Visit<'_>) -> Result<(), SourceError> {
        let wrap = |e| SourceError::ismrmrd(&self.path, e);
        let mut stream = Stream::open(&self.path, self.limits).map_err(wrap)?;
        let mut batch: Vec<Acquisition> = Vec::with_capacity(super::grid::BATCH);
        loop {
            let item = stream.next_item().map_err(wrap)?;
            let is_end = item.is_none();
            if let Some(Item::Acquisition(readout)) = item {
                batch.push(*readout);
            }
            if batch.len() == super::grid::BATCH || (is_end && !batch.is_empty()) {
                let refs: Vec<AcquisitionRef<'_>> = batch.iter().map(Acquisition::as_ref).collect();
                if let ControlFlow::Break(()) = visit(&refs) {
                    return Ok(());
                }
                batch.clear();
            }
            if is_end {
                return Ok(());
            }
        }
    }
}

/// Opens an MRD stream of either version. One pass counts what it carries; readouts are decoded again when visited, so
/// that memory does not grow with the file.
pub(crate) fn open_stream(path: &Path, options: &OpenOptions) -> Result<Parts, SourceError> {
    let wrap = |e| SourceError::ismrmrd(path, e);
    let mut stream = Stream::open(path, options.limits).map_err(wrap)?;
    let mut header = None;
    let (mut readouts, mut before_header, mut headers) = (0u64, 0u64, 0u64);
    let (mut waveforms, mut images, mut arrays) = (0u64, 0u64, 0u64);
    while let Some(item) = stream.next_item().map_err(wrap)? {
        match item {
            Item::Header(h) => {
                headers += 1;
                header.get_or_insert(*h);
            }
            Item::Acquisition(_) => {
                readouts += 1;
                before_header += u64::from(header.is_none());
            }
            Item::Waveform(_) => waveforms += 1,
            Item::Image(_) => images += 1,
            Item::Array(_) => arrays += 1,
            _ => {}
        }
    }
    if readouts == 0 {
        return Err(SourceError::unsupported(
            path,
            format!(
                "an MRD stream without readouts ({images} images, {waveforms} waveforms, {arrays} arrays)"
            ),
            "a stream with acquisitions",
            "name the raw data of the scan; images are compared with `cauda compare`",
        ));
    }
    let Some(header) = header else {
        return Err(SourceError::malformed(
            path,
            "MRD stream",
            format!("{readouts} readouts and no header"),
            "the header before the readouts",
            "record the stream from its beginning",
        ));
    };
    let mut notes = Vec::new();
    if before_header > 0 {
        notes.push(Note::new(
            "header_not_first",
            format!("{before_header} readouts stand before the header of the stream"),
        ));
    }
    if headers > 1 {
        notes.push(Note::new(
            "several_headers",
            format!("the stream has {headers} headers: the first is read"),
        ));
    }
    for (n, what) in [
        (images, "images"),
        (waveforms, "waveforms"),
        (arrays, "arrays"),
    ] {
        if n > 0 {
            notes.push(Note::new(
                "stream_items_left_out",
                format!("{n} {what} in the stream are not read"),
            ));
        }
    }
    Ok(Parts::new(
        header,
        notes,
        Box::new(StreamFile {
            path: path.to_path_buf(),
            limits: options.limits,
            count: readouts,
        }),
    ))
}

/// Writes header and readouts as an MRD v1 stream.
pub(crate) fn to_stream(opened: &mut super::Opened, output: &Path) -> Result<u64, SourceError> {
    let io = |e| SourceError::io("cannot write", output, e);
    let file = tempfile::NamedTempFile::new_in(super::folder_of(output))
        .map_err(|e| SourceError::io("cannot write beside", output, e))?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
    let mut bytes = Vec::new();
    let mut send = |message: &Message| -> Result<(), SourceError> {
        bytes.clear();
        encode(message, &mut bytes).map_err(|e| SourceError::ismrmrd(output, e))?;
        out.write_all(&bytes).map_err(io)
    };
    send(&Message::Header(opened.header.to_xml()))?;
    let mut failure = None;
    let mut written = 0;
    opened.for_each_batch(&mut |batch| {
        for readout in batch {
            if let Err(e) = send(&Message::Acquisition(readout.to_owned())) {
                failure = Some(e);
                return ControlFlow::Break(());
            }
            written += 1;
        }
        ControlFlow::Continue(())
    })?;
    if let Some(e) = failure {
        return Err(e);
    }
    send(&Message::Close)?;
    let file = out.into_inner().map_err(|e| io(e.into_error()))?;
    super::persist(file, output)?;
    Ok(written)
}
