//! The XML header: every element of the schema, there and back.

use proptest::prelude::*;

use super::*;
use crate::Error;

const SMALL: &str = include_str!("../../tests/data/header_full.xml");

/// A small generator that fills every element of the schema, or leaves it out, from a seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        // xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators".
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: u64) -> usize {
        (self.next() % n) as usize
    }
    fn opt<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(3) > 0).then(|| make(self))
    }
    fn many<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| make(self)).collect()
    }
    fn text(&mut self) -> String {
        const PARTS: [&str; 12] = [
            "a", " ", "<", "&", "\"", "é", "日本", "\n", "\t", "]]>", "x\r\ny", "&amp;",
        ];
        (0..self.below(6))
            .map(|_| PARTS[self.below(PARTS.len() as u64)])
            .collect()
    }
    fn word(&mut self) -> String {
        ["embedded", "2026-11-23", "12:34:56.789", "HFS", "M"][self.below(5)].to_owned()
    }
    fn f32(&mut self) -> f32 {
        loop {
            let v = f32::from_bits(self.next() as u32);
            if v.is_finite() {
                return v;
            }
        }
    }
    fn f64(&mut self) -> f64 {
        match self.below(5) {
            0 => f64::INFINITY,
            1 => f64::NEG_INFINITY,
            _ => f64::from(self.f32()) / 3.0,
        }
    }
    fn i64(&mut self) -> i64 {
        self.next().cast_signed()
    }
    fn u32(&mut self) -> u32 {
        self.next() as u32
    }
    fn user(&mut self) -> UserParameters {
        UserParameters {
            long: self.many(|d| (d.text(), d.i64())),
            double: self.many(|d| (d.text(), d.f64())),
            string: self.many(|d| (d.text(), d.text())),
            base64: self.many(|d| (d.text(), "QUJD".to_owned())),
        }
    }
    fn space(&mut self) -> EncodingSpace {
        EncodingSpace {
            matrix_size: [0; 3].map(|_| self.u32().max(1)),
            field_of_view_mm: [0; 3].map(|_| self.f32().abs()),
        }
    }
    fn limit(&mut self) -> Option<Limit> {
        self.opt(|d| Limit {
            minimum: d.u32(),
            maximum: d.u32(),
            center: d.u32(),
        })
    }
    fn encoding(&mut self) -> Encoding {
        Encoding {
            encoded_space: self.space(),
            recon_space: self.space(),
            encoding_limits: EncodingLimits {
                kspace_encoding_step_0: self.limit(),
                kspace_encoding_step_1: self.limit(),
                kspace_encoding_step_2: self.limit(),
                average: self.limit(),
                slice: self.limit(),
                contrast: self.limit(),
                phase: self.limit(),
                repetition: self.limit(),
                set: self.limit(),
                segment: self.limit(),
                user: [0; 8].map(|_| self.limit()),
            },
            trajectory: match self.below(7) {
                0 => Trajectory::Cartesian,
                1 => Trajectory::Epi,
                2 => Trajectory::Radial,
                3 => Trajectory::GoldenAngle,
                4 => Trajectory::Spiral,
                5 => Trajectory::Other,
                _ => Trajectory::Unknown("rosette".into()),
            },
            trajectory_description: self.opt(|d| TrajectoryDescription {
                identifier: d.text(),
                user_parameters: d.user(),
                comment: d.opt(Dice::text),
            }),
            parallel_imaging: self.opt(|d| ParallelImaging {
                acceleration_factor: [d.u32(), d.u32()],
                calibration_mode: d.opt(Dice::word),
                interleaving_dimension: d.opt(Dice::word),
                multiband: d.opt(|d| Multiband {
                    spacing: d.many(|d| d.many(Dice::f32)),
                    delta_kz: d.f32(),
                    multiband_factor: d.u32(),
                    calibration: "full3D".into(),
                    calibration_encoding: d.next(),
                }),
            }),
            echo_train_length: self.opt(Dice::i64),
        }
    }
    fn header(&mut self) -> Header {
        Header {
            version: self.opt(Dice::i64),
            subject_information: self.opt(|d| SubjectInformation {
                patient_name: d.opt(Dice::text),
                patient_weight_kg: d.opt(Dice::f32),
                patient_height_m: d.opt(Dice::f32),
                patient_id: d.opt(Dice::text),
                patient_birthdate: d.opt(Dice::word),
                patient_gender: d.opt(Dice::word),
            }),
            study_information: self.opt(|d| StudyInformation {
                study_date: d.opt(Dice::word),
                study_time: d.opt(Dice::word),
                study_id: d.opt(Dice::text),
                accession_number: d.opt(Dice::i64),
                referring_physician_name: d.opt(Dice::text),
                study_description: d.opt(Dice::text),
                study_instance_uid: d.opt(Dice::text),
                body_part_examined: d.opt(Dice::text),
            }),
            measurement_information: self.opt(|d| MeasurementInformation {
                measurement_id: d.opt(Dice::text),
                series_date: d.opt(Dice::word),
                series_time: d.opt(Dice::word),
                patient_position: if d.below(4) == 0 {
                    String::new()
                } else {
                    "FFDL".into()
                },
                relative_table_position: d.opt(|d| [d.f32(), d.f32(), d.f32()]),
                initial_series_number: d.opt(Dice::i64),
                protocol_name: d.opt(Dice::text),
                sequence_name: d.opt(Dice::text),
                series_description: d.opt(Dice::text),
                measurement_dependency: d.many(|d| MeasurementDependency {
                    dependency_type: d.text(),
                    measurement_id: d.text(),
                }),
                series_instance_uid_root: d.opt(Dice::text),
                frame_of_reference_uid: d.opt(Dice::text),
                referenced_image_sequence: d.many(Dice::text),
            }),
            acquisition_system_information: self.opt(|d| AcquisitionSystemInformation {
                system_vendor: d.opt(Dice::text),
                system_model: d.opt(Dice::text),
                system_field_strength_t: d.opt(Dice::f32),
                relative_receiver_noise_bandwidth: d.opt(Dice::f32),
                receiver_channels: d.opt(Dice::u32),
                coil_label: d.many(|d| CoilLabel {
                    coil_number: d.u32(),
                    coil_name: d.text(),
                }),
                institution_name: d.opt(Dice::text),
                station_name: d.opt(Dice::text),
                device_id: d.opt(Dice::text),
                device_serial_number: d.opt(Dice::text),
            }),
            experimental_conditions: ExperimentalConditions {
                h1_resonance_frequency_hz: self.i64(),
            },
            encoding: self.many(Dice::encoding),
            sequence_parameters: self.opt(|d| SequenceParameters {
                tr: d.many(Dice::f32),
                te: d.many(Dice::f32),
                ti: d.many(Dice::f32),
                flip_angle_deg: d.many(Dice::f32),
                sequence_type: d.opt(Dice::text),
                echo_spacing: d.many(Dice::f32),
                diffusion_dimension: d.opt(Dice::word),
                diffusion: d.many(|d| Diffusion {
                    gradient_direction: [d.f32(), d.f32(), d.f32()],
                    bvalue: d.f32(),
                }),
                diffusion_scheme: d.opt(Dice::text),
            }),
            user_parameters: self.opt(Dice::user),
            waveform_information: self.many(|d| WaveformInformation {
                waveform_name: d.text(),
                waveform_type: "ecg".into(),
                user_parameters: d.user(),
            }),
            unknown: self.many(|d| UnknownElement {
                parent: String::new(),
                xml: format!("<vendor{} a=\"1\">x &amp; y<deep/></vendor{0}>", d.below(9)),
            }),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_written_reads_back_the_same(seed in 1_u64..u64::MAX) {
        let header = Dice(seed).header();
        let xml = header.to_xml();
        prop_assert_eq!(Header::parse(&xml).unwrap(), header);
    }

    #[test]
    fn damaged_text_is_read_or_refused(at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = SMALL.as_bytes().to_vec();
        let i = at.index(bytes.len());
        bytes[i] = to;
        if to % 3 == 0 {
            bytes.truncate(cut.index(bytes.len()));
        }
        drop(Header::parse_bytes(&bytes).map(|h| h.to_xml()));
    }
}

#[test]
fn every_element_of_the_schema_is_known() {
    let header = Header::parse(SMALL).unwrap();
    assert_eq!(header.unknown, []);
    // Each once more through the writer, so that none is dropped on either way.
    let again = header.to_xml();
    let words = |xml: &str| {
        xml.split(['<', '>'])
            .map(|w| w.trim().to_owned())
            .filter(|w| !w.is_empty())
            .collect::<Vec<_>>()
    };
    let (mut a, mut b) = (
        words(SMALL.split_once("<version>").unwrap().1),
        words(again.split_once("<version>").unwrap().1),
    );
    a.sort();
    b.sort();
    assert_eq!(a, b);
    assert_eq!(header.encoding.len(), 2);
    assert_eq!(
        header.encoding[0].encoding_limits.user[7],
        Some(Limit {
            minimum: 0,
            maximum: 7,
            center: 3
        })
    );
    assert_eq!(
        header.encoding[0]
            .parallel_imaging
            .as_ref()
            .unwrap()
            .multiband
            .as_ref()
            .unwrap()
            .spacing,
        [vec![1.5, 2.5]]
    );
    assert_eq!(
        header.sequence_parameters.as_ref().unwrap().diffusion[0].gradient_direction,
        [0.5, 0.25, -1.0]
    );
    assert_eq!(
        header.user_parameters.as_ref().unwrap().base64,
        [("blob".to_owned(), "QUJD".to_owned())]
    );
}

const MINIMAL: &str = "<encoding><encodedSpace><matrixSize><x>4</x><y>4</y><z>1</z></matrixSize>\
    <fieldOfView_mm><x>1</x><y>1</y><z>1</z></fieldOfView_mm></encodedSpace>\
    <reconSpace><matrixSize><x>4</x><y>4</y><z>1</z></matrixSize>\
    <fieldOfView_mm><x>1</x><y>1</y><z>1</z></fieldOfView_mm></reconSpace>\
    <trajectory>cartesian</trajectory></encoding>";

#[test]
fn unknown_elements_keep_their_place() {
    let inner = MINIMAL.replace(
        "</encoding>",
        "<v:shift xmlns:v=\"urn:v\" unit=\"mm\"><v:x>1</v:x></v:shift></encoding>",
    );
    let xml = format!(
        "<ismrmrdHeader xmlns:q=\"urn:q\"><q:first/>{MINIMAL}{inner}<second>2</second></ismrmrdHeader>"
    );
    let header = Header::parse(&xml).unwrap();
    let places: Vec<&str> = header.unknown.iter().map(|u| u.parent.as_str()).collect();
    assert_eq!(places, ["encoding[1]", "", ""]);
    assert_eq!(header.unknown[1].xml, "<q:first xmlns:q=\"urn:q\"/>");
    let again = Header::parse(&header.to_xml()).unwrap();
    assert_eq!(again, header);
    // The parent is gone: kept at the root, not dropped.
    let mut shorter = header;
    shorter.encoding.pop();
    assert!(shorter.to_xml().contains("v:shift"));
}

#[test]
fn ways_of_writing_that_peers_use() {
    let plain = Header::parse(&format!("<ismrmrdHeader>{MINIMAL}</ismrmrdHeader>")).unwrap();
    let prefixed = MINIMAL
        .replace("</", "\u{1}")
        .replace('<', "<i:")
        .replace('\u{1}', "</i:");
    for xml in [
        format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"ascii\"?><ismrmrdHeader>{MINIMAL}</ismrmrdHeader>\0\0"
        ),
        format!(
            "<!-- c --><ismrmrdHeader xmlns=\"http://www.ismrm.org/ISMRMRD\">{MINIMAL}</ismrmrdHeader>\n"
        ),
        format!(
            "<i:ismrmrdHeader xmlns:i=\"http://www.ismrm.org/ISMRMRD\">{prefixed}</i:ismrmrdHeader>"
        ),
        format!(
            "<ismrmrdHeader>{}</ismrmrdHeader>",
            MINIMAL.replace("<x>4</x>", "<x> 4.0\n</x>")
        ),
    ] {
        assert_eq!(Header::parse(&xml).unwrap(), plain, "{xml}");
    }
}

#[test]
fn values_that_do_not_parse_name_place_found_and_needed() {
    let xml = |from: &str, to: &str| {
        format!(
            "<ismrmrdHeader>{}</ismrmrdHeader>",
            MINIMAL.replacen(from, to, 1)
        )
    };
    for (from, to, message) in [
        (
            "<x>4</x>",
            "<x>NaN</x>",
            "header: encoding[0]/encodedSpace/matrixSize/x: found \"NaN\", needed a whole number",
        ),
        (
            "<x>4</x>",
            "<x>-4</x>",
            "matrixSize/x: found \"-4\", needed a whole number from 1",
        ),
        (
            "<x>4</x>",
            "<x>0</x>",
            "matrixSize/x: found 0, needed at least 1",
        ),
        (
            "<x>4</x>",
            "<x>4294967296</x>",
            "found \"4294967296\", needed a whole number from 1 to 4294967295",
        ),
        ("<x>4</x>", "<x>4.5</x>", "found \"4.5\""),
        ("<x>4</x>", "<x></x>", "found \"\""),
        (
            "<x>4</x>",
            "",
            "encoding[0]/encodedSpace/matrixSize/x: found nothing, needed the element",
        ),
        (
            "<x>4</x>",
            "<x>4</x><x>5</x>",
            "matrixSize/x: found 2 elements, needed one",
        ),
        (
            "<x>1</x>",
            "<x>inf</x>",
            "fieldOfView_mm/x: found \"inf\", needed a finite number",
        ),
        (
            "<x>1</x>",
            "<x>-1</x>",
            "fieldOfView_mm/x: found -1, needed a length in mm, not negative",
        ),
        (
            "<trajectory>cartesian</trajectory>",
            "",
            "encoding[0]/trajectory: found nothing",
        ),
        ("</encoding>", "", "needed well-formed XML"),
    ] {
        let error = Header::parse(&xml(from, to)).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }));
        assert!(
            error.to_string().contains(message),
            "{error}\n  lacks {message}"
        );
    }
    assert!(
        Header::parse("")
            .unwrap_err()
            .to_string()
            .contains("found nothing")
    );
    assert!(
        Header::parse("<a/>")
            .unwrap_err()
            .to_string()
            .contains("the root element <a>")
    );
}
