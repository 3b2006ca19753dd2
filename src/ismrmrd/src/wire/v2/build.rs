//! The types of this package → values of an MRD schema: 2.2, or 2.0 and 2.1, where times are vendor ticks.
//!
//! Everything that a v1 header holds is written, zeros too, as `ismrmrd_to_mrd` does: a reader cannot tell a zero from
//! nothing in v1. What v2 has no place for is named by an error or, where it means nothing to a reconstruction, left out
//! (the version of a header, `available_channels`, the channel mask beyond the order of channels).

use std::borrow::Cow;

use bytemuck::Pod;

use super::schema::{Id, Scalar, Schema, Type};
use super::value::Value;
use crate::Error;
use crate::acquisition::Acquisition;
use crate::header::*;
use crate::image::{Image, NdArray, Pixels};
use crate::meta::Meta;
use crate::waveform::Waveform;

type Fields<'v> = Vec<(&'static str, Value<'v>)>;
type Field<'v> = Result<(&'static str, Value<'v>), Error>;

/// Fields that one version of MRD v2 has and another has not; both are offered.
const OF_ONE_VERSION: [&str; 8] = [
    "acquisitionTimeStampNs",
    "acquisitionTimeStamp",
    "physiologyTimeStampNs",
    "physiologyTimeStamp",
    "timeStampNs",
    "timeStamp",
    "sampleTimeNs",
    "sampleTimeUs",
];

/// Makes values of the types of a schema.
#[derive(Clone, Copy)]
pub(super) struct Builder<'s> {
    pub(super) schema: &'s Schema,
}

fn malformed(place: &str, found: String, needed: &str) -> Error {
    Error::Malformed {
        place: place.to_owned(),
        found,
        needed: needed.to_owned(),
    }
}

fn text(text: &str) -> Value<'_> {
    Value::Text(Cow::Borrowed(text))
}

fn some_text(text_: &Option<String>) -> Value<'_> {
    text_.as_deref().map_or(Value::Null, text)
}

fn unsigned<'v>(v: impl Into<u64>) -> Value<'v> {
    Value::Unsigned(v.into())
}

fn signed<'v>(v: Option<i64>) -> Value<'v> {
    v.map_or(Value::Null, Value::Signed)
}

fn real<'v>(v: Option<f32>) -> Value<'v> {
    v.map_or(Value::Null, |v| Value::Real(v.into()))
}

fn reals<'v>(v: &[f32]) -> Value<'v> {
    Value::List(v.iter().map(|v| Value::Real((*v).into())).collect())
}

/// Little-endian bytes of numbers whose real numbers are `component` bytes each.
fn bytes<T: Pod>(values: &[T], component: usize) -> Cow<'_, [u8]> {
    let bytes: &[u8] = bytemuck::cast_slice(values);
    if cfg!(target_endian = "big") {
        let mut turned = bytes.to_vec();
        turned.chunks_exact_mut(component).for_each(<[u8]>::reverse);
        return Cow::Owned(turned);
    }
    Cow::Borrowed(bytes)
}

fn three(v: &[f32; 3]) -> Value<'_> {
    Value::Array(vec![3], Scalar::F32, bytes(v, 4))
}

/// A v1 time stamp is taken for milliseconds, as everywhere in this package.
fn milliseconds<'v>(ms: u32) -> Value<'v> {
    Value::Unsigned(u64::from(ms) * 1_000_000)
}

fn sample_time<'v>(us: f32) -> Value<'v> {
    // A negative or undefined time becomes 0, which means "not stated" in both formats.
    Value::Unsigned((f64::from(us) * 1000.0).round() as u64)
}

/// Time stamps of an acquisition or an image, for either version.
fn stamps<'v>(acquisition: u32, physiology: &[u32; 3]) -> [(&'static str, Value<'v>); 4] {
    let list = |of: fn(u32) -> Value<'v>| Value::List(physiology.iter().map(|v| of(*v)).collect());
    [
        ("acquisitionTimeStampNs", milliseconds(acquisition)),
        ("acquisitionTimeStamp", unsigned(acquisition)),
        ("physiologyTimeStampNs", list(milliseconds)),
        ("physiologyTimeStamp", list(unsigned)),
    ]
}

fn xyz<'v>([x, y, z]: [f32; 3]) -> Fields<'v> {
    vec![
        ("x", real(Some(x))),
        ("y", real(Some(y))),
        ("z", real(Some(z))),
    ]
}

fn user_ints<'v>(v: &[i32; 8]) -> Value<'v> {
    Value::List(v.iter().map(|v| Value::Signed((*v).into())).collect())
}

impl<'s> Builder<'s> {
    fn below(self, id: Id) -> Id {
        match self.schema.get(id) {
            Type::Optional(of) => *of,
            _ => id,
        }
    }

    /// Type of a field; of its elements if it is a list.
    fn field(self, record: Id, name: &str) -> Result<Id, Error> {
        let Type::Record(fields) = self.schema.get(self.below(record)) else {
            return Err(malformed(
                "schema",
                format!("no record around {name}"),
                "a record",
            ));
        };
        let field = fields.iter().find(|f| f.0 == name).map(|f| self.below(f.1));
        let field = field.ok_or_else(|| malformed("schema", format!("no field {name}"), "it"))?;
        Ok(match self.schema.get(field) {
            Type::Vector(item, _) => *item,
            _ => field,
        })
    }

    /// A record of the fields given; the others are null, empty or zero.
    fn record<'v>(self, id: Id, mut fields: Fields<'v>) -> Result<Value<'v>, Error> {
        let id = self.below(id);
        let Type::Record(types) = self.schema.get(id) else {
            return Err(malformed("schema", "another type".into(), "a record"));
        };
        let mut values = Vec::with_capacity(types.len());
        for (name, of) in types {
            let given = fields.iter().position(|f| f.0 == name);
            values.push(match given {
                Some(at) => fields.swap_remove(at).1,
                None => self.nothing(*of),
            });
        }
        match fields.iter().find(|f| !OF_ONE_VERSION.contains(&f.0)) {
            None => Ok(Value::Record(id, values)),
            Some((name, _)) => Err(malformed("schema", format!("no field {name}"), "it")),
        }
    }

    /// A field that is a record.
    fn part<'v>(self, at: Id, name: &'static str, fields: Fields<'v>) -> Field<'v> {
        Ok((name, self.record(self.field(at, name)?, fields)?))
    }

    /// A field that is a list of records.
    fn parts<'v>(
        self,
        at: Id,
        name: &'static str,
        items: impl Iterator<Item = Fields<'v>>,
    ) -> Field<'v> {
        let id = self.field(at, name)?;
        let values = items.map(|fields| self.record(id, fields));
        Ok((name, Value::List(values.collect::<Result<_, _>>()?)))
    }

    /// A field that is a word of an enumeration.
    fn word<'v>(self, at: Id, name: &'static str, word: Option<&str>) -> Field<'v> {
        Ok((name, self.symbol(self.field(at, name)?, word)?))
    }

    fn nothing<'v>(self, id: Id) -> Value<'v> {
        match self.schema.get(id) {
            Type::Vector(..) => Value::List(Vec::new()),
            Type::Map(..) => Value::Map(Vec::new()),
            Type::Unsigned => Value::Unsigned(0),
            Type::Signed => Value::Signed(0),
            Type::Text => text(""),
            _ => Value::Null,
        }
    }

    /// A word of an enumeration; `None` stays null.
    fn symbol<'v>(self, id: Id, word: Option<&str>) -> Result<Value<'v>, Error> {
        let Some(word) = word else {
            return Ok(Value::Null);
        };
        let id = self.below(id);
        let Type::Enum(_, symbols) = self.schema.get(id) else {
            return Err(malformed("schema", "another type".into(), "an enumeration"));
        };
        symbols
            .iter()
            .find(|(s, _)| s.eq_ignore_ascii_case(word))
            .map(|(_, v)| Value::Symbol(id, *v))
            .ok_or_else(|| {
                let known: Vec<&str> = symbols.iter().map(|s| s.0.as_str()).collect();
                malformed(
                    "header for MRD v2",
                    format!("{word:?}"),
                    &format!("one of {}", known.join(", ")),
                )
            })
    }

    /// An item of the data stream.
    fn item<'v>(
        self,
        tag: &str,
        make: impl FnOnce(Id) -> Result<Value<'v>, Error>,
    ) -> Result<Value<'v>, Error> {
        let Type::Union(cases) = self.schema.get(self.schema.item) else {
            return Err(malformed(
                "schema",
                "another type".into(),
                "a union of items",
            ));
        };
        // 2.0 and 2.1 write the tags with a capital.
        let at = cases.iter().position(|c| c.0.eq_ignore_ascii_case(tag));
        match at.and_then(|at| Some((at, cases.get(at)?.1?))) {
            Some((at, of)) => Ok(Value::Case(self.schema.item, at, Box::new(make(of)?))),
            None => Err(malformed("schema", format!("no item {tag}"), "it")),
        }
    }

    pub(super) fn acquisition(self, a: &Acquisition) -> Result<Value<'_>, Error> {
        let h = &a.head;
        let (channels, samples) = (
            usize::from(h.active_channels),
            usize::from(h.number_of_samples),
        );
        let dimensions = usize::from(h.trajectory_dimensions);
        if a.data.len() != channels * samples || a.traj.len() != dimensions * samples {
            return Err(malformed(
                "acquisition",
                format!(
                    "{} samples, {} trajectory values",
                    a.data.len(),
                    a.traj.len()
                ),
                "as many as its header says",
            ));
        }
        // [sample, dimension] here, [basis, samples] there.
        let traj: Vec<f32> = (0..dimensions)
            .flat_map(|d| a.traj.iter().skip(d).step_by(dimensions).copied())
            .collect();
        let traj = match dimensions {
            0 => Value::Array(vec![0, 0], Scalar::F32, Cow::Borrowed(&[])),
            _ => Value::Array(
                vec![dimensions, samples],
                Scalar::F32,
                Cow::Owned(bytes(&traj, 4).into_owned()),
            ),
        };
        self.item("acquisition", |id| {
            let head = self.field(id, "head")?;
            let i = &h.idx;
            // `ismrmrd_to_mrd` writes none where all are zero.
            let last = i.user.iter().rposition(|v| *v != 0).map_or(0, |at| at + 1);
            let user = i.user.get(..last).unwrap_or_default();
            let idx = self.part(
                head,
                "idx",
                vec![
                    ("kspaceEncodeStep1", unsigned(i.kspace_encode_step_1)),
                    ("kspaceEncodeStep2", unsigned(i.kspace_encode_step_2)),
                    ("average", unsigned(i.average)),
                    ("slice", unsigned(i.slice)),
                    ("contrast", unsigned(i.contrast)),
                    ("phase", unsigned(i.phase)),
                    ("repetition", unsigned(i.repetition)),
                    ("set", unsigned(i.set)),
                    ("segment", unsigned(i.segment)),
                    (
                        "user",
                        Value::List(user.iter().map(|v| unsigned(*v)).collect()),
                    ),
                ],
            )?;
            let order = channel_order(&h.channel_mask, channels);
            let flags = self.field(head, "flags")?;
            let mut fields = vec![
                ("flags", Value::Symbol(flags, h.flags.cast_signed())),
                idx,
                ("measurementUid", unsigned(h.measurement_uid)),
                ("scanCounter", unsigned(h.scan_counter)),
                (
                    "channelOrder",
                    Value::List(order.into_iter().map(Value::Unsigned).collect()),
                ),
                ("discardPre", unsigned(h.discard_pre)),
                ("discardPost", unsigned(h.discard_post)),
                ("centerSample", unsigned(h.center_sample)),
                ("encodingSpaceRef", unsigned(h.encoding_space_ref)),
                ("sampleTimeNs", sample_time(h.sample_time_us)),
                ("sampleTimeUs", real(Some(h.sample_time_us))),
                ("position", three(&h.position)),
                ("readDir", three(&h.read_dir)),
                ("phaseDir", three(&h.phase_dir)),
                ("sliceDir", three(&h.slice_dir)),
                ("patientTablePosition", three(&h.patient_table_position)),
                ("userInt", user_ints(&h.user_int)),
                ("userFloat", reals(&h.user_float)),
            ];
            fields.extend(stamps(h.acquisition_time_stamp, &h.physiology_time_stamp));
            let head = self.record(head, fields)?;
            self.record(
                id,
                vec![
                    ("head", head),
                    (
                        "data",
                        Value::Array(vec![channels, samples], Scalar::C32, bytes(&a.data, 4)),
                    ),
                    ("trajectory", traj),
                ],
            )
        })
    }

    pub(super) fn waveform(self, w: &Waveform) -> Result<Value<'_>, Error> {
        let h = &w.head;
        let shape = vec![usize::from(h.channels), usize::from(h.number_of_samples)];
        if w.data.len() != shape.iter().product::<usize>() {
            return Err(malformed(
                "waveform",
                format!("{} values", w.data.len()),
                "as many as its header says",
            ));
        }
        self.item("waveformUint32", |id| {
            self.record(
                id,
                vec![
                    ("flags", unsigned(h.flags)),
                    ("measurementUid", unsigned(h.measurement_uid)),
                    ("scanCounter", unsigned(h.scan_counter)),
                    ("timeStampNs", milliseconds(h.time_stamp)),
                    ("timeStamp", unsigned(h.time_stamp)),
                    ("sampleTimeNs", sample_time(h.sample_time_us)),
                    ("sampleTimeUs", real(Some(h.sample_time_us))),
                    ("waveformId", unsigned(h.waveform_id)),
                    (
                        "data",
                        Value::Items(shape, w.data.iter().map(|v| unsigned(*v)).collect()),
                    ),
                ],
            )
        })
    }

    pub(super) fn array(self, a: &NdArray) -> Result<Value<'_>, Error> {
        let Pixels::C32(values) = &a.values else {
            return Err(malformed(
                "array for MRD v2",
                "another type".into(),
                "complex numbers of 32 bits",
            ));
        };
        self.item("arrayComplexFloat", |_| {
            Ok(Value::Array(a.shape.clone(), Scalar::C32, bytes(values, 4)))
        })
    }

    pub(super) fn image(self, image: &Image) -> Result<Value<'_>, Error> {
        let h = &image.head;
        let [x, y, z] = h.matrix_size.map(usize::from);
        let shape = vec![usize::from(h.channels), z, y, x];
        if image.pixels.len() != shape.iter().product::<usize>() {
            return Err(malformed(
                "image",
                format!("{} voxels", image.pixels.len()),
                "as many as its header says",
            ));
        }
        let (tag, data) = pixels(&image.pixels, shape);
        let meta = Meta::parse(&image.attributes)?;
        self.item(tag, |id| {
            let head_id = self.field(id, "head")?;
            let flags = self.field(head_id, "flags")?;
            let mut fields = vec![
                ("flags", Value::Symbol(flags, h.flags.cast_signed())),
                ("measurementUid", unsigned(h.measurement_uid)),
                ("fieldOfView", three(&h.field_of_view)),
                ("position", three(&h.position)),
                ("colDir", three(&h.read_dir)),
                ("lineDir", three(&h.phase_dir)),
                ("sliceDir", three(&h.slice_dir)),
                ("patientTablePosition", three(&h.patient_table_position)),
                ("average", unsigned(h.average)),
                ("slice", unsigned(h.slice)),
                ("contrast", unsigned(h.contrast)),
                ("phase", unsigned(h.phase)),
                ("repetition", unsigned(h.repetition)),
                ("set", unsigned(h.set)),
                (
                    "imageType",
                    Value::Symbol(self.field(head_id, "imageType")?, h.image_type.into()),
                ),
                ("imageIndex", unsigned(h.image_index)),
                ("imageSeriesIndex", unsigned(h.image_series_index)),
                ("userInt", user_ints(&h.user_int)),
                ("userFloat", reals(&h.user_float)),
            ];
            fields.extend(stamps(h.acquisition_time_stamp, &h.physiology_time_stamp));
            let head = self.record(head_id, fields)?;
            let meta = self.meta(self.field(id, "meta")?, meta)?;
            self.record(id, vec![("head", head), ("data", data), ("meta", meta)])
        })
    }

    /// Every value as a text: v1 has nothing else, and what looks like a number may be a name.
    fn meta<'v>(self, id: Id, meta: Meta) -> Result<Value<'v>, Error> {
        let Type::Map(_, values) = self.schema.get(id) else {
            return Err(malformed(
                "schema",
                "another type".into(),
                "a map of meta attributes",
            ));
        };
        let Type::Vector(union, _) = self.schema.get(*values) else {
            return Err(malformed(
                "schema",
                "another type".into(),
                "lists of meta attributes",
            ));
        };
        let word = |v: String| Value::Case(*union, 0, Box::new(Value::Text(Cow::Owned(v))));
        let entry = |(name, values): (String, Vec<String>)| {
            (
                Value::Text(Cow::Owned(name)),
                Value::List(values.into_iter().map(word).collect()),
            )
        };
        Ok(Value::Map(meta.entries.into_iter().map(entry).collect()))
    }

    /// The header step.
    pub(super) fn header<'v>(self, h: &'v Header) -> Result<Value<'v>, Error> {
        let id = self.schema.header;
        let of = |name: &str| self.field(id, name);
        let mut fields: Fields<'v> = vec![("version", signed(h.version))];
        if let Some(s) = &h.subject_information {
            let at = of("subjectInformation")?;
            fields.push((
                "subjectInformation",
                self.record(
                    at,
                    vec![
                        ("patientName", some_text(&s.patient_name)),
                        ("patientWeightKg", real(s.patient_weight_kg)),
                        ("patientHeightM", real(s.patient_height_m)),
                        ("patientID", some_text(&s.patient_id)),
                        ("patientBirthdate", date(&s.patient_birthdate)?),
                        self.word(at, "patientGender", s.patient_gender.as_deref())?,
                    ],
                )?,
            ));
        }
        if let Some(s) = &h.study_information {
            fields.push(self.part(
                id,
                "studyInformation",
                vec![
                    ("studyDate", date(&s.study_date)?),
                    ("studyTime", time(&s.study_time)?),
                    ("studyID", some_text(&s.study_id)),
                    ("accessionNumber", signed(s.accession_number)),
                    (
                        "referringPhysicianName",
                        some_text(&s.referring_physician_name),
                    ),
                    ("studyDescription", some_text(&s.study_description)),
                    ("studyInstanceUID", some_text(&s.study_instance_uid)),
                    ("bodyPartExamined", some_text(&s.body_part_examined)),
                ],
            )?);
        }
        if let Some(m) = &h.measurement_information {
            fields.push((
                "measurementInformation",
                self.measurement(of("measurementInformation")?, m)?,
            ));
        }
        if let Some(a) = &h.acquisition_system_information {
            let at = of("acquisitionSystemInformation")?;
            let labels = a.coil_label.iter().map(|c| {
                vec![
                    ("coilNumber", unsigned(c.coil_number)),
                    ("coilName", text(&c.coil_name)),
                ]
            });
            fields.push((
                "acquisitionSystemInformation",
                self.record(
                    at,
                    vec![
                        ("systemVendor", some_text(&a.system_vendor)),
                        ("systemModel", some_text(&a.system_model)),
                        ("systemFieldStrengthT", real(a.system_field_strength_t)),
                        (
                            "relativeReceiverNoiseBandwidth",
                            real(a.relative_receiver_noise_bandwidth),
                        ),
                        (
                            "receiverChannels",
                            a.receiver_channels.map_or(Value::Null, unsigned),
                        ),
                        self.parts(at, "coilLabel", labels)?,
                        ("institutionName", some_text(&a.institution_name)),
                        ("stationName", some_text(&a.station_name)),
                        ("deviceID", some_text(&a.device_id)),
                        ("deviceSerialNumber", some_text(&a.device_serial_number)),
                    ],
                )?,
            ));
        }
        let hz = h.experimental_conditions.h1_resonance_frequency_hz;
        let hz = vec![("h1resonanceFrequencyHz", Value::Signed(hz))];
        fields.push(self.part(id, "experimentalConditions", hz)?);
        let at = of("encoding")?;
        let encodings = h.encoding.iter().map(|e| self.encoding(at, e));
        fields.push((
            "encoding",
            Value::List(encodings.collect::<Result<_, _>>()?),
        ));
        if let Some(s) = &h.sequence_parameters {
            fields.push((
                "sequenceParameters",
                self.sequence(of("sequenceParameters")?, s)?,
            ));
        }
        if let Some(u) = &h.user_parameters {
            let at = of("userParameters")?;
            fields.push(("userParameters", self.record(at, self.user(at, u, true)?)?));
        }
        let at = of("waveformInformation")?;
        let waveforms = h.waveform_information.iter().map(|w| {
            let user = self.field(at, "userParameters")?;
            self.record(
                at,
                vec![
                    ("waveformName", text(&w.waveform_name)),
                    self.word(at, "waveformType", Some(&w.waveform_type))?,
                    self.part(
                        at,
                        "userParameters",
                        self.user(user, &w.user_parameters, true)?,
                    )?,
                ],
            )
        });
        fields.push((
            "waveformInformation",
            Value::List(waveforms.collect::<Result<_, _>>()?),
        ));
        self.record(id, fields)
    }

    fn measurement<'v>(self, at: Id, m: &'v MeasurementInformation) -> Result<Value<'v>, Error> {
        let dependencies = m.measurement_dependency.iter().map(|d| {
            vec![
                ("dependencyType", text(&d.dependency_type)),
                ("measurementID", text(&d.measurement_id)),
            ]
        });
        let mut fields = vec![
            ("measurementID", some_text(&m.measurement_id)),
            ("seriesDate", date(&m.series_date)?),
            ("seriesTime", time(&m.series_time)?),
            self.word(at, "patientPosition", Some(&m.patient_position))?,
            ("initialSeriesNumber", signed(m.initial_series_number)),
            ("protocolName", some_text(&m.protocol_name)),
            ("sequenceName", some_text(&m.sequence_name)),
            ("seriesDescription", some_text(&m.series_description)),
            self.parts(at, "measurementDependency", dependencies)?,
            (
                "seriesInstanceUIDRoot",
                some_text(&m.series_instance_uid_root),
            ),
            ("frameOfReferenceUID", some_text(&m.frame_of_reference_uid)),
        ];
        if let Some(table) = m.relative_table_position {
            fields.push(self.part(at, "relativeTablePosition", xyz(table))?);
        }
        if !m.referenced_image_sequence.is_empty() {
            let uids = m.referenced_image_sequence.iter().map(|u| text(u));
            let uids = vec![("referencedSOPInstanceUID", Value::List(uids.collect()))];
            fields.push(self.part(at, "referencedImageSequence", uids)?);
        }
        self.record(at, fields)
    }

    fn space<'v>(self, at: Id, name: &'static str, s: &EncodingSpace) -> Field<'v> {
        let [x, y, z] = s.matrix_size;
        let matrix = vec![("x", unsigned(x)), ("y", unsigned(y)), ("z", unsigned(z))];
        let space = self.field(at, name)?;
        let fields = vec![
            self.part(space, "matrixSize", matrix)?,
            self.part(space, "fieldOfViewMm", xyz(s.field_of_view_mm))?,
        ];
        Ok((name, self.record(space, fields)?))
    }

    fn encoding<'v>(self, at: Id, e: &'v Encoding) -> Result<Value<'v>, Error> {
        let limits_at = self.field(at, "encodingLimits")?;
        let mut limits = Vec::new();
        let names = EncodingLimits::NAMES.into_iter().map(|names| names.1);
        for (name, limit) in names.zip(e.encoding_limits.all()) {
            if let Some(limit) = limit {
                let fields = vec![
                    ("minimum", unsigned(limit.minimum)),
                    ("maximum", unsigned(limit.maximum)),
                    ("center", unsigned(limit.center)),
                ];
                limits.push(self.part(limits_at, name, fields)?);
            }
        }
        let mut fields = vec![
            self.space(at, "encodedSpace", &e.encoded_space)?,
            self.space(at, "reconSpace", &e.recon_space)?,
            ("encodingLimits", self.record(limits_at, limits)?),
            self.word(at, "trajectory", Some(e.trajectory.word()))?,
            ("echoTrainLength", signed(e.echo_train_length)),
        ];
        if let Some(t) = &e.trajectory_description {
            let at = self.field(at, "trajectoryDescription")?;
            let mut inner = self.user(at, &t.user_parameters, false)?;
            inner.push(("identifier", text(&t.identifier)));
            inner.push(("comment", some_text(&t.comment)));
            fields.push(("trajectoryDescription", self.record(at, inner)?));
        }
        if let Some(p) = &e.parallel_imaging {
            let parallel = self.parallel(self.field(at, "parallelImaging")?, p)?;
            fields.push(("parallelImaging", parallel));
        }
        self.record(at, fields)
    }

    fn parallel<'v>(self, at: Id, p: &'v ParallelImaging) -> Result<Value<'v>, Error> {
        let [one, two] = p.acceleration_factor;
        let factor = vec![
            ("kspaceEncodingStep1", unsigned(one)),
            ("kspaceEncodingStep2", unsigned(two)),
        ];
        let interleaving = p.interleaving_dimension.as_deref();
        let mut fields = vec![
            self.part(at, "accelerationFactor", factor)?,
            self.word(at, "calibrationMode", p.calibration_mode.as_deref())?,
            self.word(at, "interleavingDimension", interleaving)?,
        ];
        if let Some(m) = &p.multiband {
            let of = self.field(at, "multiband")?;
            let spacings = m.spacing.iter().map(|dz| vec![("dZ", reals(dz))]);
            let multiband = vec![
                self.parts(of, "spacing", spacings)?,
                ("deltaKz", real(Some(m.delta_kz))),
                ("multibandFactor", unsigned(m.multiband_factor)),
                self.word(of, "calibration", Some(&m.calibration))?,
                ("calibrationEncoding", unsigned(m.calibration_encoding)),
            ];
            fields.push(("multiband", self.record(of, multiband)?));
        }
        self.record(at, fields)
    }

    fn sequence<'v>(self, at: Id, s: &'v SequenceParameters) -> Result<Value<'v>, Error> {
        let diffusion = self.field(at, "diffusion")?;
        let diffusions = s.diffusion.iter().map(|d| {
            let [rl, ap, fh] = d.gradient_direction.map(|v| real(Some(v)));
            let direction = vec![("rl", rl), ("ap", ap), ("fh", fh)];
            let fields = vec![
                self.part(diffusion, "gradientDirection", direction)?,
                ("bvalue", real(Some(d.bvalue))),
            ];
            self.record(diffusion, fields)
        });
        // "user_0" in the XML schema, "user0" there.
        let dimension = s
            .diffusion_dimension
            .as_deref()
            .map(|d| d.replace("user_", "user"));
        self.record(
            at,
            vec![
                ("tR", reals(&s.tr)),
                ("tE", reals(&s.te)),
                ("tI", reals(&s.ti)),
                ("flipAngleDeg", reals(&s.flip_angle_deg)),
                ("sequenceType", some_text(&s.sequence_type)),
                ("echoSpacing", reals(&s.echo_spacing)),
                self.word(at, "diffusionDimension", dimension.as_deref())?,
                (
                    "diffusion",
                    Value::List(diffusions.collect::<Result<_, _>>()?),
                ),
                ("diffusionScheme", some_text(&s.diffusion_scheme)),
            ],
        )
    }

    fn user<'v>(
        self,
        at: Id,
        u: &'v UserParameters,
        has_base64: bool,
    ) -> Result<Fields<'v>, Error> {
        let list = |name: &'static str, pairs: Vec<(&'v str, Value<'v>)>| {
            let pairs = pairs.into_iter();
            let pairs = pairs.map(|(n, v)| vec![("name", text(n)), ("value", v)]);
            self.parts(at, name, pairs)
        };
        let texts = |pairs: &'v [(String, String)]| {
            pairs.iter().map(|(n, v)| (n.as_str(), text(v))).collect()
        };
        let mut out = vec![
            list(
                "userParameterLong",
                u.long
                    .iter()
                    .map(|(n, v)| (n.as_str(), Value::Signed(*v)))
                    .collect(),
            )?,
            list(
                "userParameterDouble",
                u.double
                    .iter()
                    .map(|(n, v)| (n.as_str(), Value::Real(*v)))
                    .collect(),
            )?,
            list("userParameterString", texts(&u.string))?,
        ];
        if has_base64 {
            out.push(list("userParameterBase64", texts(&u.base64))?);
        }
        Ok(out)
    }
}

/// The channels whose bits are set; without any, as many as there are, in order.
fn channel_order(mask: &[u64; 16], channels: usize) -> Vec<u64> {
    let set: Vec<u64> = (0..1024)
        .filter(|c| {
            mask.get((c / 64) as usize)
                .is_some_and(|w| w >> (c % 64) & 1 == 1)
        })
        .collect();
    if set.is_empty() {
        (0..channels as u64).collect()
    } else {
        set
    }
}

fn pixels(pixels: &Pixels, shape: Vec<usize>) -> (&'static str, Value<'_>) {
    fn integers<'v, T: Copy>(shape: Vec<usize>, v: &[T], of: impl Fn(T) -> Value<'v>) -> Value<'v> {
        Value::Items(shape, v.iter().map(|v| of(*v)).collect())
    }
    match pixels {
        Pixels::U16(v) => ("imageUint16", integers(shape, v, unsigned)),
        Pixels::I16(v) => (
            "imageInt16",
            integers(shape, v, |v| Value::Signed(v.into())),
        ),
        Pixels::U32(v) => ("imageUint32", integers(shape, v, unsigned)),
        Pixels::I32(v) => (
            "imageInt32",
            integers(shape, v, |v| Value::Signed(v.into())),
        ),
        Pixels::F32(v) => ("imageFloat", Value::Array(shape, Scalar::F32, bytes(v, 4))),
        Pixels::F64(v) => ("imageDouble", Value::Array(shape, Scalar::F64, bytes(v, 8))),
        Pixels::C32(v) => (
            "imageComplexFloat",
            Value::Array(shape, Scalar::C32, bytes(v, 4)),
        ),
        Pixels::C64(v) => (
            "imageComplexDouble",
            Value::Array(shape, Scalar::C64, bytes(v, 8)),
        ),
    }
}

/// `YYYY-MM-DD` as days since 1970.
///
/// # Source
/// Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn date<'v>(text: &Option<String>) -> Result<Value<'v>, Error> {
    let Some(text) = text else {
        return Ok(Value::Null);
    };
    let wrong = || malformed("header for MRD v2", format!("date {text:?}"), "YYYY-MM-DD");
    let mut parts = text.trim().splitn(3, '-').map(str::parse::<i64>);
    let (Some(Ok(y)), Some(Ok(m)), Some(Ok(d))) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong());
    };
    if !(1..=12).contains(&m) || !(1..=31).contains(&d) || !(0..=9999).contains(&y) {
        return Err(wrong());
    }
    let y = if m <= 2 { y - 1 } else { y };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (m + if m > 2 { -3 } else { 9 }) + 2) / 5 + d - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    Ok(Value::Date(era * 146_097 + doe - 719_468))
}

/// `HH:MM:SS`, perhaps with a fraction, as nanoseconds since midnight.
fn time<'v>(text: &Option<String>) -> Result<Value<'v>, Error> {
    let Some(text) = text else {
        return Ok(Value::Null);
    };
    let wrong = || malformed("header for MRD v2", format!("time {text:?}"), "HH:MM:SS");
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let mut parts = whole.splitn(3, ':').map(str::parse::<i64>);
    let (Some(Ok(h)), Some(Ok(m)), Some(Ok(s))) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong());
    };
    let mut digits: String = fraction.chars().take(9).collect();
    while digits.len() < 9 {
        digits.push('0');
    }
    let ns: i64 = digits.parse().map_err(|_| wrong())?;
    if !(0..24).contains(&h) || !(0..60).contains(&m) || !(0..61).contains(&s) {
        return Err(wrong());
    }
    Ok(Value::Time((h * 3600 + m * 60 + s) * 1_000_000_000 + ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_by_hand() {
        let date = |t: &str| match date(&Some(t.into())) {
            Ok(Value::Date(d)) => Some(d),
            _ => None,
        };
        assert_eq!(date("1970-01-01"), Some(0));
        assert_eq!(date("1969-12-31"), Some(-1));
        assert_eq!(date("2000-02-29"), Some(11_016));
        assert_eq!(date("2026-11-23"), Some(20_780));
        assert_eq!(date("20261123"), None);
        assert_eq!(date("2026-13-23"), None);
        let time = |t: &str| match time(&Some(t.into())) {
            Ok(Value::Time(ns)) => Some(ns),
            _ => None,
        };
        assert_eq!(time("12:34:56.5"), Some(45_296_500_000_000));
        assert_eq!(time("00:00:00"), Some(0));
        assert_eq!(time("25:00:00"), None);
        assert_eq!(time("noon"), None);
    }
}
