//! What is written is what was read, byte for byte; streams of mrd-python are the oracle.

use std::path::{Path, PathBuf};

use super::*;
use crate::wire::{Message, Stream, decode};
use crate::{Acquisition, Image, ImageHeader, Meta, NdArray, Pixels, Waveform, wire};

/// Reads a stream and writes every value again, blocks as they were.
fn rewritten(bytes: &[u8]) -> Vec<u8> {
    let limits = Limits::default();
    let mut c = Cursor::new(bytes);
    c.bytes(9).unwrap();
    let schema = Schema::parse(c.text(1 << 20).unwrap()).unwrap();
    let mut out = bytes[..c.at()].to_vec();
    let header = c.value(&schema, schema.header, &limits).unwrap();
    value::put(&schema, schema.header, &header, &mut out).unwrap();
    loop {
        let n = c.varint().unwrap();
        value::put_varint(n, &mut out);
        if n == 0 {
            return out;
        }
        for _ in 0..n {
            let mut item = Cursor::new(&bytes[c.at()..]);
            let value = item.value(&schema, schema.item, &limits).unwrap();
            value::put(&schema, schema.item, &value, &mut out).unwrap();
            c.bytes(item.at()).unwrap();
        }
    }
}

/// Reads a stream into this package's types and writes these, an item in a block as mrd's programs do.
fn translated(path: &Path) -> Vec<u8> {
    let mut stream = Stream::open(path, Limits::default()).unwrap();
    let mut out = Vec::new();
    while let Some(next) = stream.next_item().unwrap() {
        match next {
            Item::Header(header) => writer().begin(Some(&header), &mut out).unwrap(),
            Item::Text(_) => {}
            next => writer().item(&next, &mut out).unwrap(),
        }
    }
    writer().end(&mut out);
    out
}

fn writer() -> Writer {
    Writer::new().unwrap()
}

fn assert_same(ours: &[u8], theirs: &[u8], what: &str) {
    if ours == theirs {
        return;
    }
    let at = ours.iter().zip(theirs).position(|(a, b)| a != b);
    let at = at.unwrap_or(ours.len().min(theirs.len()));
    let near = |b: &[u8]| format!("{:?}", &b[at.saturating_sub(24)..(at + 24).min(b.len())]);
    panic!(
        "{what}: {} bytes, needed {}; the first difference at {at}:\n ours   {}\n theirs {}",
        ours.len(),
        theirs.len(),
        near(ours),
        near(theirs)
    );
}

fn local(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// `../shared/data/mrd` of the workplace: larger streams, some of which may not be passed on.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/data/mrd")
        .join(name);
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: there is no {}", path.display());
    None
}

#[test]
fn values_of_other_programs_come_out_byte_for_byte() {
    let mut paths = vec![
        local("phantom_v2_c2_m16.mrd"),
        local("phantom_v2_c2_m16.recon.mrd"),
    ];
    for name in [
        "phantom_v2_c8_m64.mrd",
        "phantom_v2_c8_m64.recon.mrd",
        "phantom_v2_c8_m64_r2w16.mrd",
        "brain8_r2_acs24.v2.mrd",
    ] {
        paths.extend(shared(name));
    }
    for path in paths {
        let bytes = std::fs::read(&path).unwrap();
        assert_same(&rewritten(&bytes), &bytes, &path.display().to_string());
    }
}

/// `ismrmrd_to_mrd` made one of the other.
#[test]
fn v1_is_translated_as_the_peer_does_it() {
    if let (Some(v1), Some(v2)) = (
        shared("brain8_r2_acs24.v1stream"),
        shared("brain8_r2_acs24.v2.mrd"),
    ) {
        let theirs = std::fs::read(&v2).unwrap();
        assert_same(&translated(&v1), &theirs, "v1 as v2");
        assert_same(&translated(&v2), &theirs, "v2 through v1 types");
    }
}

fn awkward() -> (Header, Vec<Item>) {
    let text = std::fs::read_to_string(local("header_full.xml")).unwrap();
    let mut header = Header::parse(&text).unwrap();
    header.unknown.clear();
    let mut acquisition = Acquisition::default();
    acquisition.head.number_of_samples = 5;
    acquisition.head.active_channels = 3;
    acquisition.head.available_channels = 3;
    acquisition.head.channel_mask[0] = 0b10_0000_1001;
    acquisition.head.trajectory_dimensions = 2;
    acquisition.head.acquisition_time_stamp = u32::MAX;
    acquisition.head.sample_time_us = 2.5;
    acquisition.head.user_int = [i32::MIN, -1, 0, 1, i32::MAX, 0, 0, 7];
    acquisition.head.user_float[7] = f32::MIN_POSITIVE;
    acquisition.head.flags = u64::MAX;
    acquisition.head.version = 1;
    acquisition.traj = (0..10u8).map(f32::from).collect();
    acquisition.data = (0..15u8)
        .map(|i| crate::Complex32::new(i.into(), -f32::from(i)))
        .collect();
    let mut waveform = Waveform::default();
    waveform.head.version = 1;
    waveform.head.channels = 2;
    waveform.head.number_of_samples = 2;
    waveform.data = vec![0, 127, 128, u32::MAX];
    let mut meta = Meta::default();
    meta.set("ImageComment", "größer < 1 & \"mehr\"");
    meta.set_all(
        "ImageType",
        vec!["DERIVED".into(), String::new(), "M".into()],
    );
    let image = |pixels: Pixels| {
        let mut image = Image {
            head: ImageHeader {
                matrix_size: [2, 1, 1],
                image_type: 1,
                image_index: 9,
                position: [1.5, -2.0, 3.25],
                ..ImageHeader::default()
            },
            attributes: meta.to_xml(),
            pixels,
        };
        image.head = image.header_for_writing();
        Item::Image(Box::new(image))
    };
    let c = crate::Complex32::new(1.0, -2.0);
    let z = crate::Complex64::new(1.0, -2.0);
    let items = vec![
        Item::Acquisition(Box::new(acquisition)),
        Item::Waveform(waveform),
        image(Pixels::U16(vec![0, u16::MAX])),
        image(Pixels::I16(vec![i16::MIN, i16::MAX])),
        image(Pixels::U32(vec![0, u32::MAX])),
        image(Pixels::I32(vec![i32::MIN, i32::MAX])),
        image(Pixels::F32(vec![0.5, f32::MAX])),
        image(Pixels::F64(vec![0.5, f64::MAX])),
        image(Pixels::C32(vec![c, c])),
        image(Pixels::C64(vec![z, z])),
        Item::Array(NdArray {
            shape: vec![1, 2, 1],
            values: Pixels::C32(vec![c, c]),
        }),
    ];
    (header, items)
}

#[test]
fn everything_that_v1_holds_survives() {
    let (header, items) = awkward();
    let mut bytes = Vec::new();
    writer().begin(Some(&header), &mut bytes).unwrap();
    for i in &items {
        writer().item(i, &mut bytes).unwrap();
    }
    writer().end(&mut bytes);
    let mut reader = Reader::new(bytes.as_slice(), Limits::default()).unwrap();
    assert_eq!(
        reader.next_item().unwrap(),
        Some(Item::Header(Box::new(header)))
    );
    for i in items {
        assert_eq!(reader.next_item().unwrap(), Some(i));
    }
    assert_eq!(reader.next_item().unwrap(), None);
    assert_eq!(rewritten(&bytes), bytes);
}

/// An older peer takes only its own schema: times are ticks there, and tags begin with a capital.
#[test]
fn an_answer_is_written_in_the_schema_of_the_question() {
    let (_, items) = awkward();
    for name in ["phantom_v2_c2_m16.mrd", "phantom_v2_c2_m16.recon.mrd"] {
        let bytes = std::fs::read(local(name)).unwrap();
        let reader = Reader::new(bytes.as_slice(), Limits::default()).unwrap();
        let writer = reader.writer();
        let mut out = Vec::new();
        writer.begin(reader.header(), &mut out).unwrap();
        assert_same(&out, &bytes[..out.len()], name);
        for i in &items {
            writer.item(i, &mut out).unwrap();
        }
        writer.end(&mut out);
        let mut reader = Reader::new(out.as_slice(), Limits::default()).unwrap();
        reader.next_item().unwrap();
        for i in &items {
            assert_eq!(reader.next_item().unwrap().as_ref(), Some(i));
        }
    }
}

/// Gives one byte at a time.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let n = to.len().min(self.0.len()).min(1);
        to[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

#[test]
fn what_is_ready_is_given_without_reading() {
    let (header, items) = awkward();
    let mut bytes = Vec::new();
    writer().begin(Some(&header), &mut bytes).unwrap();
    let mut reader = Reader::new(bytes.as_slice(), Limits::default()).unwrap();
    assert!(matches!(
        reader.next_ready().unwrap(),
        Some(Item::Header(_))
    ));
    assert_eq!(reader.next_ready().unwrap(), None);
    for i in &items[..3] {
        writer().item(i, &mut bytes).unwrap();
    }
    writer().end(&mut bytes);
    let mut reader = Reader::new(Trickle(&bytes), Limits::default()).unwrap();
    reader.next_item().unwrap();
    for i in &items[..3] {
        assert_eq!(reader.next_item().unwrap().as_ref(), Some(i));
    }
    assert_eq!(reader.next_item().unwrap(), None);
}

#[test]
fn what_contradicts_itself_is_not_written() {
    let mut out = vec![7];
    let mut acquisition = Acquisition::default();
    acquisition.head.number_of_samples = 4;
    assert!(
        writer()
            .item(&Item::Acquisition(Box::new(acquisition)), &mut out)
            .is_ok()
    );
    let mut acquisition = Acquisition::default();
    acquisition.head.number_of_samples = 4;
    acquisition.head.active_channels = 1;
    out.truncate(1);
    assert!(
        writer()
            .item(&Item::Acquisition(Box::new(acquisition)), &mut out)
            .is_err()
    );
    assert!(writer().item(&Item::Text("x".into()), &mut out).is_err());
    let mut header = awkward().0;
    if let Some(m) = &mut header.measurement_information {
        m.patient_position = "UPSIDE DOWN".into();
    }
    let error = writer()
        .begin(Some(&header), &mut out)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("UPSIDE DOWN") && error.contains("hFS"),
        "{error}"
    );
    assert_eq!(out, [7]);
    // The v1 decoder never takes one for its own.
    assert!(decode(b"yardl", &Limits::default()).is_err());
    assert!(wire::sniff(b"yardl\x01\0\0\0").is_some());
    assert_eq!(Message::Close.id(), 4);
}
