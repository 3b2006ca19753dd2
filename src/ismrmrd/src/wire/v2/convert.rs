//! Values → the types of this package.

use super::super::Item;
use super::super::decode::values;
use super::schema::{Scalar, Schema, Type};
use super::value::Value;
use crate::acquisition::{Acquisition, AcquisitionHeader, EncodingCounters};
use crate::header::*;
use crate::image::{Image, ImageHeader, NdArray, Pixels};
use crate::meta::Meta;
use crate::waveform::{Waveform, WaveformHeader};
use crate::{Complex32, Error};

/// A record whose fields are asked for by name.
#[derive(Clone, Copy)]
pub(super) struct Record<'s, 'v> {
    schema: &'s Schema,
    value: &'v Value<'v>,
}

type Result_<T> = Result<T, Error>;

fn malformed(place: &str, found: impl Into<String>, needed: &str) -> Error {
    Error::Malformed {
        place: place.to_owned(),
        found: found.into(),
        needed: needed.to_owned(),
    }
}

/// Takes a stream item apart.
pub(super) fn items(schema: &Schema, value: &Value<'_>) -> Result_<Vec<Item>> {
    let Value::Case(union, index, body) = value else {
        return Ok(vec![Item::Other("item without a kind".into())]);
    };
    let tag = match schema.get(*union) {
        Type::Union(cases) => cases.get(*index).map_or("", |c| c.0.as_str()),
        _ => "",
    };
    let record = Record {
        schema,
        value: body,
    };
    // 2.0 writes the tags with a capital, 2.2 without.
    Ok(match tag.to_ascii_lowercase().as_str() {
        "acquisition" => record.acquisition()?,
        "waveformuint32" => vec![Item::Waveform(record.waveform()?)],
        "acquisitionbucket" => {
            let mut items = Vec::new();
            for name in ["data", "ref"] {
                for value in record.list(name) {
                    items.extend(Record { schema, value }.acquisition()?);
                }
            }
            for value in record.list("waveforms") {
                items.push(Item::Waveform(Record { schema, value }.waveform()?));
            }
            items
        }
        "arraycomplexfloat" => vec![Item::Array(array(body)?)],
        "imagearray" => record.image_array()?,
        "imageuint16" => vec![record.image(1)?],
        "imageint16" => vec![record.image(2)?],
        "imageuint32" => vec![record.image(3)?],
        "imageint32" => vec![record.image(4)?],
        "imagefloat" => vec![record.image(5)?],
        "imagedouble" => vec![record.image(6)?],
        "imagecomplexfloat" => vec![record.image(7)?],
        "imagecomplexdouble" => vec![record.image(8)?],
        other => vec![Item::Other(other.to_owned())],
    })
}

fn narrow<T: TryFrom<u64>>(value: u64, place: &str) -> Result_<T> {
    T::try_from(value).map_err(|_| {
        malformed(
            place,
            value.to_string(),
            "a value that an ISMRMRD header can hold",
        )
    })
}

/// Nanoseconds as a v1 time stamp: milliseconds, modulo 2³².
fn milliseconds(ns: u64) -> u32 {
    (((ns + 500_000) / 1_000_000) & u64::from(u32::MAX)) as u32
}

impl<'s, 'v> Record<'s, 'v> {
    pub(super) fn new(schema: &'s Schema, value: &'v Value<'v>) -> Self {
        Self { schema, value }
    }

    /// The field of this name, unless it is absent or null.
    fn field(&self, name: &str) -> Option<&'v Value<'v>> {
        let Value::Record(id, values) = self.value else {
            return None;
        };
        let Type::Record(fields) = self.schema.get(*id) else {
            return None;
        };
        let at = fields.iter().position(|(n, _)| n == name)?;
        values.get(at).filter(|v| !matches!(v, Value::Null))
    }

    fn sub(&self, name: &str) -> Option<Record<'s, 'v>> {
        Some(Record {
            schema: self.schema,
            value: self.field(name)?,
        })
    }

    fn needed(&self, name: &str) -> Result_<Record<'s, 'v>> {
        self.sub(name)
            .ok_or_else(|| malformed(name, "nothing", "the field"))
    }

    fn list(&self, name: &str) -> &'v [Value<'v>] {
        match self.field(name) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    fn records(&self, name: &str) -> Vec<Record<'s, 'v>> {
        self.list(name)
            .iter()
            .map(|value| Record {
                schema: self.schema,
                value,
            })
            .collect()
    }

    fn unsigned(&self, name: &str) -> Option<u64> {
        match self.field(name)? {
            Value::Unsigned(v) => Some(*v),
            Value::Symbol(_, v) => Some(v.cast_unsigned()),
            _ => None,
        }
    }

    fn small<T: TryFrom<u64> + Default>(&self, name: &str) -> Result_<T> {
        self.unsigned(name)
            .map_or(Ok(T::default()), |v| narrow(v, name))
    }

    fn signed(&self, name: &str) -> Option<i64> {
        match self.field(name)? {
            Value::Signed(v) => Some(*v),
            _ => None,
        }
    }

    fn real(&self, name: &str) -> Option<f32> {
        match self.field(name)? {
            Value::Real(v) => Some(*v as f32),
            _ => None,
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.field(name)? {
            Value::Text(t) => Some((*t).to_owned()),
            _ => None,
        }
    }

    fn date(&self, name: &str) -> Option<String> {
        match self.field(name)? {
            Value::Date(days) => Some(date(*days)),
            _ => None,
        }
    }

    fn time(&self, name: &str) -> Option<String> {
        match self.field(name)? {
            Value::Time(ns) => Some(time(*ns)),
            _ => None,
        }
    }

    /// The symbol of an enumeration; a number that it does not know is written as such.
    fn symbol(&self, name: &str) -> Option<String> {
        let Value::Symbol(id, v) = self.field(name)? else {
            return None;
        };
        let Type::Enum(_, symbols) = self.schema.get(*id) else {
            return None;
        };
        Some(
            symbols
                .iter()
                .find(|(_, n)| n == v)
                .map_or_else(|| v.to_string(), |(s, _)| s.clone()),
        )
    }

    fn three(&self, name: &str) -> [f32; 3] {
        match self.field(name) {
            Some(Value::Array(_, Scalar::F32, bytes)) => {
                let v: Vec<f32> = values(bytes, 4);
                v.first_chunk().copied().unwrap_or_default()
            }
            _ => [0.0; 3],
        }
    }

    /// The first values of a list, and whether there were more than fit.
    fn some<T: Copy + Default, const N: usize>(
        &self,
        name: &str,
        of: impl Fn(&Value<'_>) -> Option<T>,
    ) -> Result_<[T; N]> {
        let list = self.list(name);
        if list.len() > N {
            return Err(malformed(
                name,
                format!("{} values", list.len()),
                &format!("at most {N}, as an ISMRMRD header can hold"),
            ));
        }
        let mut out = [T::default(); N];
        for (to, value) in out.iter_mut().zip(list) {
            *to = of(value).unwrap_or_default();
        }
        Ok(out)
    }

    fn user_int(&self) -> Result_<[i32; 8]> {
        self.some("userInt", |v| match v {
            Value::Signed(v) => i32::try_from(*v).ok(),
            _ => None,
        })
    }

    fn user_float(&self) -> Result_<[f32; 8]> {
        self.some("userFloat", |v| match v {
            Value::Real(v) => Some(*v as f32),
            _ => None,
        })
    }

    fn stamp(&self, ticks: &str, ns: &str) -> Result_<u32> {
        match self.unsigned(ns) {
            Some(ns) => Ok(milliseconds(ns)),
            None => self.small(ticks),
        }
    }

    fn physiology(&self) -> Result_<[u32; 3]> {
        if self.field("physiologyTimeStampNs").is_some() {
            return self.some("physiologyTimeStampNs", |v| match v {
                Value::Unsigned(v) => Some(milliseconds(*v)),
                _ => None,
            });
        }
        self.some("physiologyTimeStamp", |v| match v {
            Value::Unsigned(v) => u32::try_from(*v).ok(),
            _ => None,
        })
    }

    fn sample_time_us(&self) -> f32 {
        match self.unsigned("sampleTimeNs") {
            Some(ns) => (ns as f64 / 1000.0) as f32,
            None => self.real("sampleTimeUs").unwrap_or(0.0),
        }
    }

    fn acquisition(&self) -> Result_<Vec<Item>> {
        let h = self.needed("head")?;
        let idx = h.needed("idx")?;
        let Some(Value::Array(shape, Scalar::C32, bytes)) = self.field("data") else {
            return Err(malformed(
                "acquisition data",
                "another type",
                "an array of complex numbers",
            ));
        };
        let &[channels, samples] = shape.as_slice() else {
            return Err(malformed(
                "acquisition data",
                format!("shape {shape:?}"),
                "[coils, samples]",
            ));
        };
        let data: Vec<Complex32> = values(bytes, 4);
        // [basis, samples] there, [sample, dimension] here.
        let (dimensions, traj) = match self.field("trajectory") {
            Some(Value::Array(shape, Scalar::F32, bytes)) if !bytes.is_empty() => {
                let &[basis, n] = shape.as_slice() else {
                    return Err(malformed(
                        "trajectory",
                        format!("shape {shape:?}"),
                        "[basis, samples]",
                    ));
                };
                if n != samples {
                    return Err(malformed(
                        "trajectory",
                        format!("{n} samples"),
                        &format!("{samples}, as the data"),
                    ));
                }
                let there: Vec<f32> = values(bytes, 4);
                let here = (0..n).flat_map(|s| there.iter().skip(s).step_by(n.max(1)).copied());
                (basis, here.collect())
            }
            _ => (0, Vec::new()),
        };
        let order = h.list("channelOrder");
        let mut channel_mask = [0_u64; 16];
        for channel in order {
            if let Value::Unsigned(c) = channel
                && let Some(word) = channel_mask.get_mut((c / 64) as usize)
            {
                *word |= 1 << (c % 64);
            }
        }
        let head = AcquisitionHeader {
            version: 1,
            flags: h.unsigned("flags").unwrap_or(0),
            measurement_uid: h.small("measurementUid")?,
            scan_counter: h.small("scanCounter")?,
            acquisition_time_stamp: h.stamp("acquisitionTimeStamp", "acquisitionTimeStampNs")?,
            physiology_time_stamp: h.physiology()?,
            number_of_samples: narrow(samples as u64, "samples")?,
            available_channels: narrow(channels as u64, "coils")?,
            active_channels: narrow(channels as u64, "coils")?,
            channel_mask,
            discard_pre: h.small("discardPre")?,
            discard_post: h.small("discardPost")?,
            center_sample: h.small("centerSample")?,
            encoding_space_ref: h.small("encodingSpaceRef")?,
            trajectory_dimensions: narrow(dimensions as u64, "trajectory dimensions")?,
            sample_time_us: h.sample_time_us(),
            position: h.three("position"),
            read_dir: h.three("readDir"),
            phase_dir: h.three("phaseDir"),
            slice_dir: h.three("sliceDir"),
            patient_table_position: h.three("patientTablePosition"),
            idx: EncodingCounters {
                kspace_encode_step_1: idx.small("kspaceEncodeStep1")?,
                kspace_encode_step_2: idx.small("kspaceEncodeStep2")?,
                average: idx.small("average")?,
                slice: idx.small("slice")?,
                contrast: idx.small("contrast")?,
                phase: idx.small("phase")?,
                repetition: idx.small("repetition")?,
                set: idx.small("set")?,
                segment: idx.small("segment")?,
                user: idx.some("user", |v| match v {
                    Value::Unsigned(v) => u16::try_from(*v).ok(),
                    _ => None,
                })?,
            },
            user_int: h.user_int()?,
            user_float: h.user_float()?,
        };
        let mut items = vec![Item::Acquisition(Box::new(Acquisition {
            head,
            traj,
            data,
        }))];
        if self.field("phase").is_some() {
            // v1 has no place for the receiver phase of each sample; the caller is told that it was there.
            items.push(Item::Other("phase of an acquisition".into()));
        }
        Ok(items)
    }

    fn waveform(&self) -> Result_<Waveform> {
        let Some(Value::Items(shape, list)) = self.field("data") else {
            return Err(malformed(
                "waveform data",
                "another type",
                "an array of integers",
            ));
        };
        let &[channels, samples] = shape.as_slice() else {
            return Err(malformed(
                "waveform data",
                format!("shape {shape:?}"),
                "[channels, samples]",
            ));
        };
        let word = |v: &Value<'_>| match v {
            Value::Unsigned(v) => narrow(*v, "waveform data"),
            _ => Err(malformed("waveform data", "another type", "an integer")),
        };
        Ok(Waveform {
            head: WaveformHeader {
                version: 1,
                flags: self.unsigned("flags").unwrap_or(0),
                measurement_uid: self.small("measurementUid")?,
                scan_counter: self.small("scanCounter")?,
                time_stamp: self.stamp("timeStamp", "timeStampNs")?,
                number_of_samples: narrow(samples as u64, "samples")?,
                channels: narrow(channels as u64, "channels")?,
                sample_time_us: self.sample_time_us(),
                waveform_id: self.small("waveformId")?,
            },
            data: list.iter().map(word).collect::<Result_<_>>()?,
        })
    }

    fn image(&self, data_type: u16) -> Result_<Item> {
        let data = self
            .field("data")
            .ok_or_else(|| malformed("image data", "nothing", "voxels"))?;
        let (shape, pixels) = pixels(data, data_type)?;
        let meta = match self.field("meta") {
            Some(value) => meta(value),
            None => Meta::default(),
        };
        Ok(Item::Image(Box::new(
            self.needed("head")?.image_with(&shape, pixels, &meta)?,
        )))
    }

    /// Called on the image's head.
    fn image_with(&self, shape: &[usize], pixels: Pixels, meta: &Meta) -> Result_<Image> {
        let &[channels, z, y, x] = shape else {
            return Err(malformed(
                "image data",
                format!("shape {shape:?}"),
                "[channel, z, y, x]",
            ));
        };
        let size = |n: usize| narrow::<u16>(n as u64, "matrix size");
        let attributes = meta.to_xml();
        let head = ImageHeader {
            version: 1,
            data_type: pixels.data_type(),
            flags: self.unsigned("flags").unwrap_or(0),
            measurement_uid: self.small("measurementUid")?,
            matrix_size: [size(x)?, size(y)?, size(z)?],
            field_of_view: self.three("fieldOfView"),
            channels: size(channels)?,
            position: self.three("position"),
            read_dir: self.three("colDir"),
            phase_dir: self.three("lineDir"),
            slice_dir: self.three("sliceDir"),
            patient_table_position: self.three("patientTablePosition"),
            average: self.small("average")?,
            slice: self.small("slice")?,
            contrast: self.small("contrast")?,
            phase: self.small("phase")?,
            repetition: self.small("repetition")?,
            set: self.small("set")?,
            acquisition_time_stamp: self.stamp("acquisitionTimeStamp", "acquisitionTimeStampNs")?,
            physiology_time_stamp: self.physiology()?,
            image_type: match self.field("imageType") {
                Some(Value::Symbol(_, v)) => narrow(v.cast_unsigned(), "image type")?,
                _ => 0,
            },
            image_index: self.small("imageIndex")?,
            image_series_index: self.small("imageSeriesIndex")?,
            user_int: self.user_int()?,
            user_float: self.user_float()?,
            attribute_string_len: narrow(attributes.len() as u64, "length of the attributes")?,
        };
        Ok(Image {
            head,
            attributes,
            pixels,
        })
    }

    /// `data` `[loc, s, n, channel, z, y, x]`, one head for each of `[loc, s, n]`.
    fn image_array(&self) -> Result_<Vec<Item>> {
        let Some(Value::Array(shape, Scalar::C32, bytes)) = self.field("data") else {
            return Err(malformed("image array", "another type", "complex voxels"));
        };
        let (Some(Value::Items(_, heads)), &[loc, s, n, ref image @ ..]) =
            (self.field("headers"), shape.as_slice())
        else {
            return Err(malformed(
                "image array",
                format!("shape {shape:?}"),
                "[loc, s, n, channel, z, y, x] and headers",
            ));
        };
        let count = loc.saturating_mul(s).saturating_mul(n);
        if heads.len() != count {
            return Err(malformed(
                "image array",
                format!("{} headers", heads.len()),
                &format!("{count}"),
            ));
        }
        let metas: &[Value<'_>] = match self.field("meta") {
            Some(Value::Items(_, metas)) => metas,
            _ => &[],
        };
        let each = bytes.len() / count.max(1);
        let mut items = Vec::new();
        for (i, value) in heads.iter().enumerate() {
            let voxels = bytes.get(i * each..(i + 1) * each).unwrap_or_default();
            let meta = metas.get(i).map(meta).unwrap_or_default();
            let head = Record {
                schema: self.schema,
                value,
            };
            items.push(Item::Image(Box::new(head.image_with(
                image,
                Pixels::C32(values(voxels, 4)),
                &meta,
            )?)));
        }
        Ok(items)
    }

    pub(super) fn header(&self) -> Result_<Header> {
        let text = |r: &Self, n: &str| r.text(n).unwrap_or_default();
        let mut encoding = Vec::new();
        for e in self.records("encoding") {
            encoding.push(e.encoding()?);
        }
        let measurement = |m: Record<'s, 'v>| -> Result_<MeasurementInformation> {
            let table = m.sub("relativeTablePosition");
            let dependency = |d: &Self| MeasurementDependency {
                dependency_type: text(d, "dependencyType"),
                measurement_id: text(d, "measurementID"),
            };
            let uids = m
                .sub("referencedImageSequence")
                .map(|r| r.texts("referencedSOPInstanceUID"));
            Ok(MeasurementInformation {
                measurement_id: m.text("measurementID"),
                series_date: m.date("seriesDate"),
                series_time: m.time("seriesTime"),
                patient_position: m
                    .symbol("patientPosition")
                    .unwrap_or_default()
                    .to_ascii_uppercase(),
                relative_table_position: table.map(|t| t.xyz()),
                initial_series_number: m.signed("initialSeriesNumber"),
                protocol_name: m.text("protocolName"),
                sequence_name: m.text("sequenceName"),
                series_description: m.text("seriesDescription"),
                measurement_dependency: m
                    .records("measurementDependency")
                    .iter()
                    .map(dependency)
                    .collect(),
                series_instance_uid_root: m.text("seriesInstanceUIDRoot"),
                frame_of_reference_uid: m.text("frameOfReferenceUID"),
                referenced_image_sequence: uids.unwrap_or_default(),
            })
        };
        let system = |a: Record<'s, 'v>| -> Result_<AcquisitionSystemInformation> {
            let mut coil_label = Vec::new();
            for c in a.records("coilLabel") {
                coil_label.push(CoilLabel {
                    coil_number: c.small("coilNumber")?,
                    coil_name: text(&c, "coilName"),
                });
            }
            Ok(AcquisitionSystemInformation {
                system_vendor: a.text("systemVendor"),
                system_model: a.text("systemModel"),
                system_field_strength_t: a.real("systemFieldStrengthT"),
                relative_receiver_noise_bandwidth: a.real("relativeReceiverNoiseBandwidth"),
                receiver_channels: a
                    .unsigned("receiverChannels")
                    .map(|v| narrow(v, "receiverChannels"))
                    .transpose()?,
                coil_label,
                institution_name: a.text("institutionName"),
                station_name: a.text("stationName"),
                device_id: a.text("deviceID"),
                device_serial_number: a.text("deviceSerialNumber"),
            })
        };
        let waveform = |w: &Self| WaveformInformation {
            waveform_name: text(w, "waveformName"),
            waveform_type: w.symbol("waveformType").unwrap_or_default(),
            user_parameters: w
                .sub("userParameters")
                .map(|u| u.user())
                .unwrap_or_default(),
        };
        Ok(Header {
            version: self.signed("version"),
            subject_information: self.sub("subjectInformation").map(|s| SubjectInformation {
                patient_name: s.text("patientName"),
                patient_weight_kg: s.real("patientWeightKg"),
                patient_height_m: s.real("patientHeightM"),
                patient_id: s.text("patientID"),
                patient_birthdate: s.date("patientBirthdate"),
                patient_gender: s.symbol("patientGender").map(|g| g.to_ascii_uppercase()),
            }),
            study_information: self.sub("studyInformation").map(|s| StudyInformation {
                study_date: s.date("studyDate"),
                study_time: s.time("studyTime"),
                study_id: s.text("studyID"),
                accession_number: s.signed("accessionNumber"),
                referring_physician_name: s.text("referringPhysicianName"),
                study_description: s.text("studyDescription"),
                study_instance_uid: s.text("studyInstanceUID"),
                body_part_examined: s.text("bodyPartExamined"),
            }),
            measurement_information: self
                .sub("measurementInformation")
                .map(measurement)
                .transpose()?,
            acquisition_system_information: self
                .sub("acquisitionSystemInformation")
                .map(system)
                .transpose()?,
            experimental_conditions: ExperimentalConditions {
                h1_resonance_frequency_hz: self
                    .sub("experimentalConditions")
                    .and_then(|e| e.signed("h1resonanceFrequencyHz"))
                    .unwrap_or(0),
            },
            encoding,
            sequence_parameters: self.sub("sequenceParameters").map(|s| s.sequence()),
            user_parameters: self.sub("userParameters").map(|u| u.user()),
            waveform_information: self
                .records("waveformInformation")
                .iter()
                .map(waveform)
                .collect(),
            unknown: Vec::new(),
        })
    }

    fn texts(&self, name: &str) -> Vec<String> {
        let text = |v: &Value<'_>| match v {
            Value::Text(t) => Some((*t).to_owned()),
            _ => None,
        };
        self.list(name).iter().filter_map(text).collect()
    }

    fn reals(&self, name: &str) -> Vec<f32> {
        let real = |v: &Value<'_>| match v {
            Value::Real(v) => Some(*v as f32),
            _ => None,
        };
        self.list(name).iter().filter_map(real).collect()
    }

    fn xyz(&self) -> [f32; 3] {
        ["x", "y", "z"].map(|n| self.real(n).unwrap_or(0.0))
    }

    fn space(&self) -> Result_<EncodingSpace> {
        let m = self.needed("matrixSize")?;
        Ok(EncodingSpace {
            matrix_size: [m.small("x")?, m.small("y")?, m.small("z")?],
            field_of_view_mm: self.needed("fieldOfViewMm")?.xyz(),
        })
    }

    fn limit(&self, name: &str) -> Result_<Option<Limit>> {
        let Some(l) = self.sub(name) else {
            return Ok(None);
        };
        Ok(Some(Limit {
            minimum: l.small("minimum")?,
            maximum: l.small("maximum")?,
            center: l.small("center")?,
        }))
    }

    fn encoding(&self) -> Result_<Encoding> {
        let l = self.needed("encodingLimits")?;
        let mut user = [None; 8];
        for (i, u) in user.iter_mut().enumerate() {
            *u = l.limit(&format!("user{i}"))?;
        }
        let encoding_limits = EncodingLimits {
            kspace_encoding_step_0: l.limit("kspaceEncodingStep0")?,
            kspace_encoding_step_1: l.limit("kspaceEncodingStep1")?,
            kspace_encoding_step_2: l.limit("kspaceEncodingStep2")?,
            average: l.limit("average")?,
            slice: l.limit("slice")?,
            contrast: l.limit("contrast")?,
            phase: l.limit("phase")?,
            repetition: l.limit("repetition")?,
            set: l.limit("set")?,
            segment: l.limit("segment")?,
            user,
        };
        let trajectory = match self.symbol("trajectory").unwrap_or_default().as_str() {
            "cartesian" => Trajectory::Cartesian,
            "epi" => Trajectory::Epi,
            "radial" => Trajectory::Radial,
            "goldenangle" => Trajectory::GoldenAngle,
            "spiral" => Trajectory::Spiral,
            "other" => Trajectory::Other,
            word => Trajectory::Unknown(word.to_owned()),
        };
        let parallel = |p: Record<'s, 'v>| -> Result_<ParallelImaging> {
            let f = p.needed("accelerationFactor")?;
            let multiband = |m: Record<'s, 'v>| -> Result_<Multiband> {
                Ok(Multiband {
                    spacing: m.records("spacing").iter().map(|s| s.reals("dZ")).collect(),
                    delta_kz: m.real("deltaKz").unwrap_or(0.0),
                    multiband_factor: m.small("multibandFactor")?,
                    calibration: m.symbol("calibration").unwrap_or_default(),
                    calibration_encoding: m.unsigned("calibrationEncoding").unwrap_or(0),
                })
            };
            Ok(ParallelImaging {
                acceleration_factor: [
                    f.small("kspaceEncodingStep1")?,
                    f.small("kspaceEncodingStep2")?,
                ],
                calibration_mode: p.symbol("calibrationMode"),
                interleaving_dimension: p.symbol("interleavingDimension"),
                multiband: p.sub("multiband").map(multiband).transpose()?,
            })
        };
        Ok(Encoding {
            encoded_space: self.needed("encodedSpace")?.space()?,
            recon_space: self.needed("reconSpace")?.space()?,
            encoding_limits,
            trajectory,
            trajectory_description: self.sub("trajectoryDescription").map(|t| {
                TrajectoryDescription {
                    identifier: t.text("identifier").unwrap_or_default(),
                    user_parameters: t.user(),
                    comment: t.text("comment"),
                }
            }),
            parallel_imaging: self.sub("parallelImaging").map(parallel).transpose()?,
            echo_train_length: self.signed("echoTrainLength"),
        })
    }

    fn sequence(&self) -> SequenceParameters {
        let diffusion = |d: &Self| {
            let g = d.sub("gradientDirection");
            let part = |n: &str| g.and_then(|g| g.real(n)).unwrap_or(0.0);
            Diffusion {
                gradient_direction: [part("rl"), part("ap"), part("fh")],
                bvalue: d.real("bvalue").unwrap_or(0.0),
            }
        };
        // "user0" there, "user_0" in the XML schema.
        let dimension = self
            .symbol("diffusionDimension")
            .map(|d| match d.strip_prefix("user") {
                Some(n) => format!("user_{n}"),
                None => d,
            });
        SequenceParameters {
            tr: self.reals("tR"),
            te: self.reals("tE"),
            ti: self.reals("tI"),
            flip_angle_deg: self.reals("flipAngleDeg"),
            sequence_type: self.text("sequenceType"),
            echo_spacing: self.reals("echoSpacing"),
            diffusion_dimension: dimension,
            diffusion: self.records("diffusion").iter().map(diffusion).collect(),
            diffusion_scheme: self.text("diffusionScheme"),
        }
    }

    fn user(&self) -> UserParameters {
        let name = |p: &Self| p.text("name").unwrap_or_default();
        let texts = |list: &str| -> Vec<(String, String)> {
            self.records(list)
                .iter()
                .map(|p| (name(p), p.text("value").unwrap_or_default()))
                .collect()
        };
        let double = |p: &Self| match p.field("value") {
            Some(Value::Real(v)) => *v,
            _ => 0.0,
        };
        UserParameters {
            long: self
                .records("userParameterLong")
                .iter()
                .map(|p| (name(p), p.signed("value").unwrap_or(0)))
                .collect(),
            double: self
                .records("userParameterDouble")
                .iter()
                .map(|p| (name(p), double(p)))
                .collect(),
            string: texts("userParameterString"),
            base64: texts("userParameterBase64"),
        }
    }
}

fn meta(value: &Value<'_>) -> Meta {
    let Value::Map(map) = value else {
        return Meta::default();
    };
    let text = |v: &Value<'_>| match v {
        Value::Case(_, _, inner) => match &**inner {
            Value::Text(t) => (*t).to_owned(),
            Value::Signed(v) => v.to_string(),
            Value::Real(v) => v.to_string(),
            _ => String::new(),
        },
        Value::Text(t) => (*t).to_owned(),
        _ => String::new(),
    };
    let mut meta = Meta::default();
    for (key, list) in map {
        if let (Value::Text(key), Value::List(list)) = (key, list) {
            meta.set_all(key, list.iter().map(text).collect());
        }
    }
    meta
}

fn array(value: &Value<'_>) -> Result_<NdArray> {
    let (shape, values) = pixels(value, 7)?;
    Ok(NdArray { shape, values })
}

fn pixels(value: &Value<'_>, data_type: u16) -> Result_<(Vec<usize>, Pixels)> {
    let wrong = || {
        malformed(
            "voxels",
            "another type",
            "the type that the item's name says",
        )
    };
    match value {
        Value::Array(shape, scalar, bytes) => {
            let pixels = match (data_type, scalar) {
                (5, Scalar::F32) => Pixels::F32(values(bytes, 4)),
                (6, Scalar::F64) => Pixels::F64(values(bytes, 8)),
                (7, Scalar::C32) => Pixels::C32(values(bytes, 4)),
                (8, Scalar::C64) => Pixels::C64(values(bytes, 8)),
                _ => return Err(wrong()),
            };
            Ok((shape.clone(), pixels))
        }
        // Integers of more than a byte are varints, one by one.
        Value::Items(shape, list) => {
            fn each<T: TryFrom<i64>>(list: &[Value<'_>]) -> Result_<Vec<T>> {
                let one = |v: &Value<'_>| {
                    let v = match v {
                        Value::Signed(v) => Some(*v),
                        Value::Unsigned(v) => i64::try_from(*v).ok(),
                        _ => None,
                    };
                    v.and_then(|v| T::try_from(v).ok()).ok_or_else(|| {
                        malformed("voxels", "a value out of range", "one of its type")
                    })
                };
                list.iter().map(one).collect()
            }
            let pixels = match data_type {
                1 => Pixels::U16(each(list)?),
                2 => Pixels::I16(each(list)?),
                3 => Pixels::U32(each(list)?),
                4 => Pixels::I32(each(list)?),
                _ => return Err(wrong()),
            };
            Ok((shape.clone(), pixels))
        }
        _ => Err(wrong()),
    }
}

/// Days since 1970 as `YYYY-MM-DD`.
///
/// # Source
/// Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn date(days: i64) -> String {
    // Outside some million years the arithmetic below is of no use to anybody.
    let z = days.clamp(-400_000_000, 400_000_000) + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Nanoseconds since midnight as `HH:MM:SS`, with a fraction when there is one.
fn time(ns: i64) -> String {
    let (seconds, fraction) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    let (h, m, s) = (
        seconds.div_euclid(3600),
        seconds.rem_euclid(3600) / 60,
        seconds.rem_euclid(60),
    );
    let whole = format!("{h:02}:{m:02}:{s:02}");
    if fraction == 0 {
        return whole;
    }
    format!("{whole}.{}", format!("{fraction:09}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(-1), "1969-12-31");
        assert_eq!(date(11_016), "2000-02-29");
        assert_eq!(date(20_780), "2026-11-23");
        assert_eq!(time(0), "00:00:00");
        assert_eq!(time(45_296_500_000_000), "12:34:56.5");
        assert_eq!(milliseconds(2_500_000), 3);
        assert_eq!(milliseconds(1_000_000 * ((1 << 32) + 7)), 7);
    }
}
