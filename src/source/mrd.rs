//! ISMRMRD files and MRD streams, through the package `ismrmrd`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ismrmrd::acquisition::AcquisitionRef;
use ismrmrd::file::{File, GroupInfo};
use ismrmrd::wire::{Item, Message, Stream, encode};
use ismrmrd::{Acquisition, Header, SeriesNames};

use super::{Beside, OpenOptions, Parts, Readouts, SourceError, Visit, VisitBeside};
use crate::data::Note;

pub(crate) fn parse_header(path: &Path, text: &str) -> Result<Header, SourceError> {
    Header::parse(text).map_err(|e| SourceError::ismrmrd(path, e))
}

struct Group {
    path: PathBuf,
    file: File,
    info: GroupInfo,
}

impl Readouts for Group {
    fn count(&self) -> u64 {
        self.info.acquisitions.unwrap_or(0)
    }

    fn for_each_batch(&mut self, visit: &mut Visit<'_>) -> Result<(), SourceError> {
        if self.count() == 0 {
            return Ok(());
        }
        self.file
            .for_each_batch(&self.info.name, super::grid::BATCH, visit)
            .map_err(|e| SourceError::ismrmrd(&self.path, e))
    }

    fn for_each_beside(&mut self, visit: &mut VisitBeside<'_>) -> Result<(), SourceError> {
        let wrap = |e| SourceError::ismrmrd(&self.path, e);
        let (file, info) = (&self.file, &self.info);
        let mut go = |item| visit(item).is_break();
        for waveform in file.waveforms(&info.name).map_err(wrap)? {
            if go(Beside::Waveform(waveform)) {
                return Ok(());
            }
        }
        for series in &info.images {
            for image in file.images(&info.name, &series.name).map_err(wrap)? {
                if go(Beside::Image(series.name.clone(), Box::new(image))) {
                    return Ok(());
                }
            }
        }
        for series in &info.arrays {
            for array in file.arrays(&info.name, &series.name).map_err(wrap)? {
                if go(Beside::Array(series.name.clone(), array)) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// What is there and not read for a reconstruction; nothing when there is nothing.
fn left_out(counts: [(u64, &str); 3]) -> Option<Note> {
    let words: Vec<String> = counts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{n} {what}"))
        .collect();
    (!words.is_empty()).then(|| {
        let text = format!("{} in the file are not used", words.join(", "));
        Note::new("items_left_out", text)
    })
}

pub(crate) fn open_file(path: &Path, options: &OpenOptions) -> Result<Parts, SourceError> {
    let wrap = |e| SourceError::ismrmrd(path, e);
    let file = File::open(path, options.limits).map_err(wrap)?;
    let groups = file.groups().map_err(wrap)?;
    let mut scans: Vec<&GroupInfo> = groups
        .iter()
        .filter(|g| g.acquisitions.is_some() && g.has_header)
        .collect();
    let is_named =
        |g: &GroupInfo, wanted: &str| g.name.trim_matches('/') == wanted.trim_matches('/');
    // A group of images is opened where there is no scan, or where it is asked for by name.
    let wants_images =
        |wanted: &String| options.images && !scans.iter().any(|g| is_named(g, wanted));
    if options.images && scans.is_empty() || options.group.as_ref().is_some_and(wants_images) {
        scans = groups.iter().collect();
    }
    let names = || {
        scans
            .iter()
            .map(|g| g.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let found = || match scans.is_empty() {
        true => "no group with header and acquisitions".to_string(),
        false => format!("groups: {}", names()),
    };
    let chosen = |wanted: &str| scans.iter().find(|g| is_named(g, wanted));
    let refused = |asked: String| SourceError::Option {
        path: path.to_path_buf(),
        asked,
        found: found(),
        hint: "name one of them with --group".into(),
    };
    let info = match (&options.group, &scans[..]) {
        (Some(wanted), _) => chosen(wanted).ok_or_else(|| refused(format!("group {wanted:?}")))?,
        (None, [only]) => only,
        (None, _) => chosen("dataset")
            .ok_or_else(|| refused("a group was not named, and there is no single one".into()))?,
    };
    let info = (*info).clone();
    let mut notes = Vec::new();
    if options.group.is_none() && scans.len() > 1 {
        notes.push(Note::new(
            "group_chosen",
            format!("group {} is read of {}", info.name, names()),
        ));
    }
    let header = if info.has_header {
        file.header(&info.name).map_err(wrap)?
    } else {
        notes.push(Note::new(
            "no_header",
            "there is no XML header beside the images",
        ));
        Header::default()
    };
    let count = |list: &mut dyn Iterator<Item = u64>| list.sum::<u64>();
    let beside = [
        (info.waveforms.unwrap_or(0), "waveforms"),
        (count(&mut info.images.iter().map(|i| i.count)), "images"),
        (count(&mut info.arrays.iter().map(|i| i.count)), "arrays"),
    ];
    if info.acquisitions.unwrap_or(0) == 0 && !(options.images && beside.iter().any(|b| b.0 > 0)) {
        return Err(SourceError::malformed(
            path,
            format!("group {}, data", info.name),
            "no acquisition",
            "at least one",
            "the scan was aborted or the converter failed: convert it again",
        ));
    }
    if !options.images {
        notes.extend(left_out(beside));
    }
    let name = info.name.clone();
    let group = Group {
        path: path.to_path_buf(),
        file,
        info,
    };
    let mut parts = Parts::new(header, notes, Box::new(group));
    parts.group = Some(name);
    Ok(parts)
}

/// Writes all readouts, waveforms, images and arrays with the header into a new file.
pub(crate) fn to_file(
    opened: &mut super::Opened,
    output: &Path,
    group: &str,
) -> Result<u64, SourceError> {
    let wrap = |e| SourceError::ismrmrd(output, e);
    let mut writer = ismrmrd::file::Writer::create(output, group).map_err(wrap)?;
    if opened.header != Header::default() {
        writer.header(&opened.header).map_err(wrap)?;
    }
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
    if let Some(e) = failure.take() {
        return Err(wrap(e));
    }
    opened.for_each_beside(&mut |item| {
        let outcome = match item {
            Beside::Waveform(waveform) => writer.waveform(&waveform),
            Beside::Image(series, image) => writer.image(&series, &image),
            Beside::Array(series, array) => writer.array(&series, &array),
        };
        match outcome {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                failure = Some(e);
                ControlFlow::Break(())
            }
        }
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
    allow_truncated: bool,
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
            let item = match stream.next_item() {
                Err(ismrmrd::Error::CutOff { .. }) if self.allow_truncated => None,
                item => item.map_err(wrap)?,
            };
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

    fn for_each_beside(&mut self, visit: &mut VisitBeside<'_>) -> Result<(), SourceError> {
        let wrap = |e| SourceError::ismrmrd(&self.path, e);
        let mut stream = Stream::open(&self.path, self.limits).map_err(wrap)?;
        let mut series = SeriesNames::default();
        while let Some(item) = stream.next_item().map_err(wrap)? {
            let item = match item {
                Item::Waveform(waveform) => Beside::Waveform(waveform),
                // A stream numbers its series; files name them after the number.
                Item::Image(image) => {
                    let name = format!("image_{}", image.head.image_series_index);
                    Beside::Image(series.image(&name, &image), image)
                }
                Item::Array(array) => Beside::Array(series.array("array", &array), array),
                _ => continue,
            };
            if visit(item).is_break() {
                break;
            }
        }
        Ok(())
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
    let mut others: BTreeMap<String, u64> = BTreeMap::new();
    let mut cut_off = None;
    loop {
        let item = match stream.next_item() {
            Ok(Some(item)) => item,
            Ok(None) => break,
            Err(e @ ismrmrd::Error::CutOff { .. }) if options.allow_truncated => {
                cut_off = Some(e.to_string());
                break;
            }
            Err(e @ ismrmrd::Error::CutOff { .. }) => {
                return Err(SourceError::malformed(
                    path,
                    "MRD stream",
                    e.to_string(),
                    "a stream that is whole",
                    "read its whole readouts with --allow-truncated",
                ));
            }
            Err(e) => return Err(wrap(e)),
        };
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
            Item::Other(name) => *others.entry(name).or_default() += 1,
            Item::Text(_) => {}
        }
    }
    let has_beside = images + waveforms + arrays > 0;
    if readouts == 0 && !(options.images && has_beside) {
        return Err(SourceError::unsupported(
            path,
            format!(
                "an MRD stream without readouts ({images} images, {waveforms} waveforms, {arrays} arrays)"
            ),
            "a stream with acquisitions",
            "name the raw data of the scan; `cauda inspect`, `compare` and `convert` take images",
        ));
    }
    if readouts == 0 {
        header.get_or_insert_default();
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
    if let Some(words) = cut_off {
        notes.push(Note::new("truncated", words));
    } else if !stream.is_closed() {
        notes.push(Note::new(
            "no_close",
            "the stream ends without CLOSE: the scan may be incomplete",
        ));
    }
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
    if headers == 0 {
        notes.push(Note::new(
            "no_header",
            "there is no header beside the images",
        ));
    }
    if !options.images {
        notes.extend(left_out([
            (images, "images"),
            (waveforms, "waveforms"),
            (arrays, "arrays"),
        ]));
    }
    for (name, n) in others {
        notes.push(Note::new(
            "stream_items_unknown",
            format!("{n} items of the stream are not read: {name}"),
        ));
    }
    Ok(Parts::new(
        header,
        notes,
        Box::new(StreamFile {
            path: path.to_path_buf(),
            limits: options.limits,
            count: readouts,
            allow_truncated: options.allow_truncated,
        }),
    ))
}

/// Writes everything as an MRD v1 stream.
pub(crate) fn to_stream(opened: &mut super::Opened, output: &Path) -> Result<u64, SourceError> {
    let io = |e| SourceError::io("cannot write", output, e);
    let file = super::beside(output)?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
    let mut bytes = Vec::new();
    let mut send = |message: &Message| -> Result<(), SourceError> {
        bytes.clear();
        encode(message, &mut bytes).map_err(|e| SourceError::ismrmrd(output, e))?;
        out.write_all(&bytes).map_err(io)
    };
    // Also when the input has none: a stream begins with one.
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
    let mut failure = None;
    opened.for_each_beside(&mut |item| {
        let message = match item {
            Beside::Waveform(waveform) => Message::Waveform(waveform),
            Beside::Image(_, image) => Message::Image(*image),
            Beside::Array(_, array) => Message::NdArray(array),
        };
        match send(&message) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                failure = Some(e);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(e) = failure {
        return Err(e);
    }
    send(&Message::Close)?;
    let file = out.into_inner().map_err(|e| io(e.into_error()))?;
    super::persist(file, output)?;
    Ok(written)
}
