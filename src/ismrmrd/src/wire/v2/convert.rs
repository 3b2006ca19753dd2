//! Stream items → acquisitions, waveforms, images and arrays.

use super::super::Item;
use super::super::decode::values;
use super::record::{Record, Result_, malformed, narrow};
use super::schema::{Scalar, Schema, Type};
use super::value::Value;
use crate::Complex32;
use crate::acquisition::{Acquisition, AcquisitionHeader, EncodingCounters};
use crate::image::{Image, ImageHeader, NdArray, Pixels};
use crate::meta::Meta;
use crate::waveform::{Waveform, WaveformHeader};

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

impl Record<'_, '_> {
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
}

fn meta(value: &Value<'_>) -> Meta {
    let Value::Map(map) = value else {
        return Meta::default();
    };
    let text = |v: &Value<'_>| match v {
        Value::Case(_, _, inner) => match &**inner {
            Value::Text(t) => t.to_string(),
            Value::Signed(v) => v.to_string(),
            Value::Real(v) => v.to_string(),
            _ => String::new(),
        },
        Value::Text(t) => t.to_string(),
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
