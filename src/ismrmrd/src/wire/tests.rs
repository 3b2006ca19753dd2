//! Streams: encoded and decoded under any chunking; damaged streams.

use std::io::Read;

use proptest::prelude::*;

use super::*;
use crate::acquisition::AcquisitionHeader;
use crate::image::{ImageHeader, Pixels};
use crate::waveform::WaveformHeader;
use crate::{Complex32, Complex64, Error, Limits};

fn shared(name: &str) -> Option<std::path::PathBuf> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../../shared/data/mrd")
        .join(name);
    let path = if path.exists() {
        path
    } else {
        std::path::Path::new("/work/shared/data/mrd").join(name)
    };
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {name} is not here (../shared/data is absent)");
    None
}

fn image(pixels: Pixels, attributes: &str) -> Message {
    let head = ImageHeader {
        matrix_size: [2, 3, 1],
        channels: 2,
        data_type: pixels.data_type(),
        attribute_string_len: attributes.len() as u32,
        ..Default::default()
    };
    Message::Image(Image {
        head,
        attributes: attributes.into(),
        pixels,
    })
}

fn every_message() -> Vec<Message> {
    let acquisition = |samples: u16, channels: u16, dimensions: u16| {
        let n = usize::from(samples);
        let head = AcquisitionHeader {
            number_of_samples: samples,
            active_channels: channels,
            available_channels: channels,
            trajectory_dimensions: dimensions,
            ..Default::default()
        };
        Message::Acquisition(Acquisition {
            head,
            traj: (0..n * usize::from(dimensions))
                .map(|i| i as f32 / 3.0)
                .collect(),
            data: (0..n * usize::from(channels))
                .map(|i| Complex32::new(i as f32, -1.5))
                .collect(),
        })
    };
    vec![
        Message::ConfigFile("default.xml".into()),
        Message::ConfigText("<a/>".into()),
        Message::Header("<ismrmrdHeader/>".into()),
        Message::Text("DBG é".into()),
        Message::Query {
            correlation_id: 7,
            text: "gadgetron::info".into(),
        },
        Message::Response {
            correlation_id: u64::MAX,
            text: String::new(),
        },
        Message::Error("no".into()),
        acquisition(5, 2, 0),
        acquisition(4, 3, 2),
        acquisition(0, 3, 1),
        image(Pixels::U16((0..12).collect()), "<ismrmrdMeta/>"),
        image(Pixels::I16((-6..6).collect()), ""),
        image(Pixels::U32((0..12).collect()), ""),
        image(Pixels::I32((-6..6).collect()), ""),
        image(Pixels::F32(vec![0.5; 12]), ""),
        image(Pixels::F64(vec![0.25; 12]), ""),
        image(Pixels::C32(vec![Complex32::new(1.0, 2.0); 12]), ""),
        image(Pixels::C64(vec![Complex64::new(1.0, 2.0); 12]), ""),
        Message::Waveform(Waveform {
            head: WaveformHeader {
                channels: 2,
                number_of_samples: 3,
                waveform_id: 1,
                ..Default::default()
            },
            data: vec![1, 2, 3, 4, 5, u32::MAX],
        }),
        Message::NdArray(NdArray {
            shape: vec![3, 2],
            values: Pixels::F32((0..6).map(|i| i as f32).collect()),
        }),
        Message::Dicom {
            bytes: vec![1, 2, 3],
            name: "a.dcm".into(),
            meta: "<ismrmrdMeta/>".into(),
        },
        Message::DependencyQuery("<ismrmrdMeta/>".into()),
        Message::Close,
    ]
}

fn encoded(messages: &[Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for m in messages {
        encode(m, &mut bytes).unwrap();
    }
    bytes
}

#[test]
fn every_message_comes_back() {
    for message in every_message() {
        let bytes = encoded(std::slice::from_ref(&message));
        let step = decode(&bytes, &Limits::default()).unwrap();
        assert_eq!(
            step,
            Step::Message {
                message,
                used: bytes.len()
            }
        );
    }
}

/// A source that gives so many bytes at a time.
struct Dribble<'a>(&'a [u8], usize);

impl Read for Dribble<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = self.1.min(out.len()).min(self.0.len());
        let (now, later) = self.0.split_at(n);
        out[..n].copy_from_slice(now);
        self.0 = later;
        Ok(n)
    }
}

#[test]
fn any_division_of_the_bytes_gives_the_same_messages() {
    let messages = every_message();
    let bytes = encoded(&messages);
    for n in [1, 2, 3, 7, 341, 1025, bytes.len()] {
        let mut reader = Reader::new(Dribble(&bytes, n), Limits::default());
        let mut got = Vec::new();
        while let Some(m) = reader.next_message().unwrap() {
            got.push(m);
        }
        assert_eq!(got, messages, "{n} bytes at a time");
    }
}

#[test]
fn rooms_that_were_given_back_change_nothing() {
    // Rooms that are too long, too short and not of zeros.
    let mut messages = every_message();
    messages.retain(|m| matches!(m, Message::Acquisition(_)));
    let messages: Vec<Message> = messages.iter().cycle().take(20).cloned().collect();
    let bytes = encoded(&messages);
    let mut reader = Reader::new(&bytes[..], Limits::default());
    let (mut got, mut known) = (Vec::new(), 0);
    let mut last = std::ptr::null();
    while let Some(Message::Acquisition(a)) = reader.next_message().unwrap() {
        known += usize::from(a.data.as_ptr() == last && !a.data.is_empty());
        got.push(Message::Acquisition(a.clone()));
        last = a.data.as_ptr();
        reader.give_back(a.data);
    }
    assert_eq!(got, messages);
    assert!(known > 0, "no room was used again");
}

#[test]
fn an_end_inside_a_message_is_said_and_between_messages_is_none() {
    let messages = every_message();
    let bytes = encoded(&messages[..1]);
    assert!(
        Reader::new(&bytes[..], Limits::default())
            .next_message()
            .unwrap()
            .is_some()
    );
    for cut in 1..bytes.len() {
        let error = Reader::new(&bytes[..cut], Limits::default())
            .next_message()
            .unwrap_err()
            .to_string();
        assert!(error.contains("cut off"), "{error}");
    }
    for message in &messages {
        let bytes = encoded(std::slice::from_ref(message));
        for cut in 0..bytes.len() {
            match decode(&bytes[..cut], &Limits::default()).unwrap() {
                Step::Need(n) => assert!(n >= 1 && n <= bytes.len() - cut, "{cut}: {n}"),
                Step::Message { .. } => panic!("a message from {cut} of {} bytes", bytes.len()),
            }
        }
    }
}

#[test]
fn what_peers_do_differently() {
    // python-ismrmrd-server counts a trailing NUL in.
    let mut text = 5_u16.to_le_bytes().to_vec();
    text.extend(6_u32.to_le_bytes());
    text.extend(b"hello\0");
    let Step::Message { message, used } = decode(&text, &Limits::default()).unwrap() else {
        panic!()
    };
    assert_eq!((message, used), (Message::Text("hello".into()), 12));
    // Gadgetron counts it in both lengths of an image.
    let mut bytes = encoded(&[image(Pixels::U16((0..12).collect()), "<ismrmrdMeta/>\0")]);
    let Step::Message { message, used } = decode(&bytes, &Limits::default()).unwrap() else {
        panic!()
    };
    assert_eq!(used, bytes.len());
    let Message::Image(i) = message else { panic!() };
    assert_eq!(i.attributes, "<ismrmrdMeta/>");
    assert_eq!(i.head.attribute_string_len, 15);
    // An unknown data type or number is named.
    bytes[4] = 9;
    assert!(
        decode(&bytes, &Limits::default())
            .unwrap_err()
            .to_string()
            .contains("data type: found 9")
    );
    let error = decode(&[0xff, 0xff], &Limits::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("message number: found 65535"), "{error}");
}

#[test]
fn absurd_sizes_are_refused_before_they_are_waited_for() {
    let limits = Limits {
        image_bytes: 1 << 20,
        xml_bytes: 100,
        ..Limits::default()
    };
    let mut header = 3_u16.to_le_bytes().to_vec();
    header.extend(u32::MAX.to_le_bytes());
    assert!(
        matches!(decode(&header, &limits), Err(Error::TooLarge { declared, .. }) if declared == u64::from(u32::MAX))
    );
    let head = ImageHeader {
        matrix_size: [u16::MAX; 3],
        channels: u16::MAX,
        data_type: 8,
        ..Default::default()
    };
    let mut image = id::IMAGE.to_le_bytes().to_vec();
    image.extend(head.encode());
    image.extend(0_u64.to_le_bytes());
    assert!(matches!(
        decode(&image, &limits),
        Err(Error::TooLarge { .. })
    ));
    let mut array = id::NDARRAY.to_le_bytes().to_vec();
    for n in [5_u16, 1, 2] {
        array.extend(n.to_le_bytes());
    }
    array.extend((1_u64 << 19).to_le_bytes());
    array.extend((1_u64 << 63).to_le_bytes());
    assert!(matches!(
        decode(&array, &limits),
        Err(Error::TooLarge { .. })
    ));
}

#[test]
fn what_contradicts_itself_is_not_written() {
    let mut out = vec![1, 2, 3];
    let Message::Image(mut i) = image(Pixels::U16((0..12).collect()), "") else {
        panic!()
    };
    i.head.channels = 3;
    assert!(encode(&Message::Image(i), &mut out).is_err());
    assert!(encode(&Message::ConfigFile("x".repeat(1024)), &mut out).is_err());
    assert_eq!(out, [1, 2, 3]);
}

#[test]
fn streams_are_recognised_by_content() {
    assert_eq!(sniff(b"yardl\x01"), Some(StreamKind::V2));
    for m in &every_message()[..3] {
        assert_eq!(
            sniff(&encoded(std::slice::from_ref(m))),
            Some(StreamKind::V1)
        );
    }
    for no in [
        &b""[..],
        b"\x89HDF\r\n\x1a\n",
        b"\x03\0\0\0\0\0",
        b"\x01\0\x05\x06",
        b"# Dimensions\n1 2 3",
        &[0; 64],
    ] {
        assert_eq!(sniff(no), None, "{no:?}");
    }
}

fn items(name: &str) -> Option<Vec<Item>> {
    let mut stream = Stream::open(&shared(name)?, Limits::default()).unwrap();
    let mut items = Vec::new();
    while let Some(item) = stream.next_item().unwrap() {
        items.push(item);
    }
    Some(items)
}

fn acquisitions(items: &[Item]) -> Vec<&Acquisition> {
    items
        .iter()
        .filter_map(|i| match i {
            Item::Acquisition(a) => Some(&**a),
            _ => None,
        })
        .collect()
}

#[test]
fn real_v1_streams_read() {
    let Some(images) = items("brain8_images.v1stream") else {
        return;
    };
    let kinds: Vec<u16> = images
        .iter()
        .filter_map(|i| match i {
            Item::Image(i) => Some(i.pixels.data_type()),
            _ => None,
        })
        .collect();
    assert_eq!(kinds, [5, 1, 7]);
    assert!(matches!(images[0], Item::Header(_)));
}

#[cfg(feature = "hdf5")]
#[test]
fn file_v1_stream_and_v2_stream_of_one_scan_agree() {
    use std::ops::ControlFlow;
    let Some(path) = shared("brain8_r2_acs24.h5") else {
        return;
    };
    let file = crate::file::File::open(&path, Limits::default()).unwrap();
    let mut from_file = Vec::new();
    file.for_each_batch("dataset", 50, &mut |batch| {
        from_file.extend(batch.iter().map(|a| a.to_owned()));
        ControlFlow::Continue(())
    })
    .unwrap();
    let header = file.header("dataset").unwrap();

    let v1 = items("brain8_r2_acs24.v1stream").unwrap();
    assert_eq!(v1[0], Item::Text("default.xml".into()));
    assert_eq!(v1[1], Item::Header(Box::new(header.clone())));
    assert!(acquisitions(&v1).into_iter().eq(&from_file));

    let v2 = items("brain8_r2_acs24.v2.mrd").unwrap();
    let Item::Header(h) = &v2[0] else { panic!() };
    assert_eq!(h.encoding, header.encoding);
    assert_eq!(h.measurement_information, header.measurement_information);
    assert_eq!(
        h.acquisition_system_information,
        header.acquisition_system_information
    );
    let v2 = acquisitions(&v2);
    assert_eq!(v2.len(), from_file.len());
    for (a, b) in v2.iter().zip(&from_file) {
        assert_eq!(a.data, b.data);
        assert_eq!(a.traj, b.traj);
        let (mut x, y) = (a.head, b.head);
        // v2 lists the channels, this v1 file leaves its mask empty.
        x.channel_mask = y.channel_mask;
        assert_eq!(x, y);
    }
}

#[test]
fn real_v2_phantoms_read() {
    let Some(all) = items("phantom_v2_c8_m64.mrd") else {
        return;
    };
    let Item::Header(h) = &all[0] else {
        panic!("no header")
    };
    assert_eq!(h.encoding[0].recon_space.matrix_size, [64, 64, 1]);
    let acquisitions = acquisitions(&all);
    assert!(
        acquisitions[0]
            .head
            .has(crate::AcquisitionFlag::IsNoiseMeasurement)
    );
    assert!(acquisitions.iter().all(|a| a.head.active_channels == 8));
    assert!(
        acquisitions
            .iter()
            .all(|a| a.data.iter().all(|c| c.re.is_finite()))
    );
    assert!(items("phantom_v2_c8_m64_r2w16.mrd").unwrap().len() > 64);
    let images = items("phantom_v2_c8_m64.recon.mrd").unwrap();
    let images: Vec<&Image> = images
        .iter()
        .filter_map(|i| match i {
            Item::Image(i) => Some(&**i),
            _ => None,
        })
        .collect();
    assert!(!images.is_empty());
    assert_eq!(images[0].head.matrix_size, [64, 64, 1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2048), number in 0_usize..14) {
        let numbers = [1, 2, 3, 4, 5, 6, 7, 8, 1008, 1018, 1019, 1022, 1026, 1030_u16];
        let mut message = numbers[number].to_le_bytes().to_vec();
        message.extend(&bytes);
        let limits = Limits { image_bytes: 1 << 16, xml_bytes: 1 << 12, ..Limits::default() };
        let mut reader = Reader::new(&message[..], limits);
        while let Ok(Some(_)) = reader.next_message() {}
    }

    #[test]
    fn damaged_messages_are_decoded_or_refused(at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = encoded(&every_message());
        let i = at.index(bytes.len());
        bytes[i] = to;
        bytes.truncate(cut.index(bytes.len()) + 1);
        let mut reader = Reader::new(&bytes[..], Limits { image_bytes: 1 << 16, ..Limits::default() });
        while let Ok(Some(_)) = reader.next_message() {}
    }
}
