//! Images and arrays.

use hdf5::datatype::ByteOrder;
use hdf5::types::{FloatSize, H5Type, IntSize, TypeDescriptor};
use hdf5::{Dataset, Group, Hyperslab, Selection, SliceOrIndex};
use ndarray::IxDyn;

use super::super::inflate::inflate;
use super::super::layout::{Cx, CxShort, RawImageHeader, same_bytes};
use super::{File, dtype_of, hdf5_error, is_compound_with, slice};
use crate::Error;
use crate::image::{Image, ImageHeader, NdArray, Pixels};
use crate::wire::values;

impl File {
    /// All images of a series.
    ///
    /// # Errors
    /// [`Error::Missing`] for a series that is not there; [`Error::Malformed`] for headers that contradict the
    /// voxels; [`Error::TooLarge`].
    pub fn images(&self, group: &str, name: &str) -> Result<Vec<Image>, Error> {
        let g = self.group(group)?;
        let series = g.group(name).map_err(|_| {
            let images = self
                .groups()
                .unwrap_or_default()
                .into_iter()
                .find(|i| i.name == group.trim_matches('/'));
            let names: Vec<String> = images
                .into_iter()
                .flat_map(|i| i.images)
                .map(|i| i.name)
                .collect();
            Error::Missing {
                what: format!("image series \"{name}\" in group \"{group}\""),
                path: self.path.clone(),
                found: if names.is_empty() {
                    "no image series".into()
                } else {
                    names.join(", ")
                },
            }
        })?;
        let path = format!("{}/{name}", group.trim_matches('/'));
        let heads = self.dataset(&series, &path, "header", "image headers")?;
        self.check_members::<RawImageHeader>(&heads, &self.place(&path, "header"))?;
        let data = self.dataset(&series, &path, "data", "image voxels")?;
        let has_attributes = self.list(&series)?.iter().any(|(n, _)| n == "attributes");
        let attributes = if has_attributes {
            Some(self.dataset(&series, &path, "attributes", "attributes")?)
        } else {
            None
        };
        let place = self.place(&path, "data");
        let shape = data.shape();
        let count = heads.shape().first().copied().unwrap_or(0);
        if shape.first() != Some(&count) {
            return Err(self.malformed(
                place,
                format!("shape {shape:?}"),
                format!("{count} images, one for each header"),
            ));
        }
        let per_image = self.check_size(&data, &place)?;
        // The usual layout is read without the library, which cannot undo compression here.
        let usual = little_endian(&heads)
            && dtype_of(&heads).is_some_and(|t| same_bytes(&t, &RawImageHeader::type_descriptor()));
        let plain_heads = if usual {
            self.table(&heads)?.ok()
        } else {
            None
        };
        let inflated = self.inflated(&data, &place)?;
        let mut images = Vec::new();
        for i in 0..count {
            let head = match &plain_heads {
                Some(table) => table
                    .element(i, self.bytes())
                    .and_then(|b| b.first_chunk())
                    .map(ImageHeader::decode),
                None => slice::<RawImageHeader>(&heads, i..i + 1)
                    .map_err(hdf5_error(self.place(&path, "header")))?
                    .first()
                    .map(|h| ImageHeader::decode(&h.0)),
            };
            let head = head.unwrap_or_default();
            let declared = Image::declared_len(&head);
            if declared != per_image as u64 {
                let [x, y, z] = head.matrix_size;
                let found = format!(
                    "a header of {} channels, matrix {x} x {y} x {z}",
                    head.channels
                );
                return Err(self.malformed(
                    format!("{place}[{i}]"),
                    found,
                    format!("{per_image} voxels as in shape {shape:?}"),
                ));
            }
            let attributes = match &attributes {
                Some(ds) => {
                    let place = self.place(&path, &format!("attributes[{i}]"));
                    let bytes = self.string(
                        ds,
                        i,
                        "bytes of image attributes",
                        self.limits.attribute_bytes,
                        &place,
                    )?;
                    crate::xml::decode(&bytes, &place)?
                }
                None => String::new(),
            };
            images.push(Image {
                head,
                attributes,
                pixels: self.pixels(&data, i, &place, inflated.as_deref())?,
            });
        }
        Ok(images)
    }

    /// All arrays of a series.
    ///
    /// # Errors
    /// As [`File::images`].
    pub fn arrays(&self, group: &str, name: &str) -> Result<Vec<NdArray>, Error> {
        let g = self.group(group)?;
        let ds = self.dataset(&g, group, name, "array")?;
        let place = self.place(group, name);
        let shape = ds.shape();
        let Some((&count, shape)) = shape.split_first() else {
            return Err(self.malformed(place, "a single value", "an array"));
        };
        self.check_size(&ds, &place)?;
        let inflated = self.inflated(&ds, &place)?;
        (0..count)
            .map(|i| {
                Ok(NdArray {
                    shape: shape.to_vec(),
                    values: self.pixels(&ds, i, &place, inflated.as_deref())?,
                })
            })
            .collect()
    }

    /// Values of each element along the first axis, within the limits and not more than storage can hold.
    fn check_size(&self, ds: &Dataset, place: &str) -> Result<usize, Error> {
        let shape = ds.shape();
        let bytes = ds.dtype().map_err(hdf5_error(place))?.size();
        let per = shape
            .iter()
            .skip(1)
            .try_fold(1_usize, |n, &m| n.checked_mul(m))
            .unwrap_or(usize::MAX);
        let declared = per.saturating_mul(bytes);
        if declared > self.limits.image_bytes {
            return Err(Error::TooLarge {
                what: "bytes of one image",
                declared: declared as u64,
                limit: self.limits.image_bytes as u64,
            });
        }
        let count = shape.first().copied().unwrap_or(0);
        self.check_stored(ds, count, declared, place)?;
        Ok(per)
    }

    /// The values of a compressed data set; `None` when it is not compressed.
    fn inflated(&self, ds: &Dataset, place: &str) -> Result<Option<Vec<u8>>, Error> {
        let filters = ds.filters();
        if filters.is_empty() {
            return Ok(None);
        }
        let reason = match self.userblock {
            0 => match inflate(ds, self.bytes(), self.limits.image_bytes)? {
                Ok(_) if !little_endian(ds) => "another byte order".to_owned(),
                Ok(all) => return Ok(Some(all)),
                Err(reason) => reason,
            },
            n => format!("a user block of {n} bytes"),
        };
        Err(self.malformed(
            place.into(),
            format!("data behind {filters:?}: {reason}"),
            "data that is plain, or compressed by deflate; h5repack -f NONE makes it plain",
        ))
    }

    fn pixels(
        &self,
        ds: &Dataset,
        i: usize,
        place: &str,
        inflated: Option<&[u8]>,
    ) -> Result<Pixels, Error> {
        let fail = || hdf5_error(format!("{place}[{i}]"));
        let unsupported = || {
            let found = dtype_of(ds).map_or_else(|| "a type".to_owned(), |t| format!("type {t}"));
            self.malformed(
                place.into(),
                found,
                "one of the eight pixel types of ISMRMRD",
            )
        };
        let kind = pixel_kind(ds).ok_or_else(unsupported)?;
        if let Some(all) = inflated {
            let element = ds.dtype().map_err(fail())?.size();
            let (component, whole) = kind.bytes();
            let each = ds.shape().iter().skip(1).product::<usize>() * element;
            let bytes = all.get(i * each..(i + 1) * each).unwrap_or_default();
            if element != whole {
                return Err(unsupported());
            }
            return Ok(match kind {
                PixelKind::U16 => Pixels::U16(values(bytes, component)),
                PixelKind::I16 => Pixels::I16(values(bytes, component)),
                PixelKind::U32 => Pixels::U32(values(bytes, component)),
                PixelKind::I32 => Pixels::I32(values(bytes, component)),
                PixelKind::F32 => Pixels::F32(values(bytes, component)),
                PixelKind::F64 => Pixels::F64(values(bytes, component)),
                PixelKind::C32 | PixelKind::C32Short => Pixels::C32(values(bytes, component)),
                PixelKind::C64 | PixelKind::C64Short => Pixels::C64(values(bytes, component)),
            });
        }
        Ok(match kind {
            PixelKind::U16 => Pixels::U16(plane::<u16>(ds, i).map_err(fail())?),
            PixelKind::I16 => Pixels::I16(plane::<i16>(ds, i).map_err(fail())?),
            PixelKind::U32 => Pixels::U32(plane::<u32>(ds, i).map_err(fail())?),
            PixelKind::I32 => Pixels::I32(plane::<i32>(ds, i).map_err(fail())?),
            PixelKind::F32 => Pixels::F32(plane::<f32>(ds, i).map_err(fail())?),
            PixelKind::F64 => Pixels::F64(plane::<f64>(ds, i).map_err(fail())?),
            PixelKind::C32 => Pixels::C32(
                plane::<Cx<f32>>(ds, i)
                    .map_err(fail())?
                    .into_iter()
                    .map(|c| c.0)
                    .collect(),
            ),
            PixelKind::C64 => Pixels::C64(
                plane::<Cx<f64>>(ds, i)
                    .map_err(fail())?
                    .into_iter()
                    .map(|c| c.0)
                    .collect(),
            ),
            PixelKind::C32Short => Pixels::C32(
                plane::<CxShort<f32>>(ds, i)
                    .map_err(fail())?
                    .into_iter()
                    .map(|c| c.0)
                    .collect(),
            ),
            PixelKind::C64Short => Pixels::C64(
                plane::<CxShort<f64>>(ds, i)
                    .map_err(fail())?
                    .into_iter()
                    .map(|c| c.0)
                    .collect(),
            ),
        })
    }
}

/// Count and shape of an image series, when the group is one.
pub(super) fn image_series(group: &Group) -> Option<(u64, Vec<usize>)> {
    if !group.link_exists("header") || !group.link_exists("data") {
        return None;
    }
    let heads = group.dataset("header").ok()?;
    let shape = group.dataset("data").ok()?.shape();
    if !is_compound_with(&heads, &["matrix_size", "data_type"]) {
        return None;
    }
    Some((
        heads.shape().first().map_or(0, |&n| n as u64),
        shape.get(1..).unwrap_or_default().to_vec(),
    ))
}

pub(super) enum PixelKind {
    U16,
    I16,
    U32,
    I32,
    F32,
    F64,
    C32,
    C64,
    C32Short,
    C64Short,
}

impl PixelKind {
    /// Bytes of a real number and of a value.
    fn bytes(&self) -> (usize, usize) {
        match self {
            PixelKind::U16 | PixelKind::I16 => (2, 2),
            PixelKind::U32 | PixelKind::I32 | PixelKind::F32 => (4, 4),
            PixelKind::F64 => (8, 8),
            PixelKind::C32 | PixelKind::C32Short => (4, 8),
            PixelKind::C64 | PixelKind::C64Short => (8, 16),
        }
    }
}

fn little_endian(ds: &Dataset) -> bool {
    ds.dtype()
        .is_ok_and(|t| t.byte_order() == ByteOrder::LittleEndian)
}

pub(super) fn pixel_kind(ds: &Dataset) -> Option<PixelKind> {
    Some(match dtype_of(ds)? {
        TypeDescriptor::Unsigned(IntSize::U2) => PixelKind::U16,
        TypeDescriptor::Integer(IntSize::U2) => PixelKind::I16,
        TypeDescriptor::Unsigned(IntSize::U4) => PixelKind::U32,
        TypeDescriptor::Integer(IntSize::U4) => PixelKind::I32,
        TypeDescriptor::Float(FloatSize::U4) => PixelKind::F32,
        TypeDescriptor::Float(FloatSize::U8) => PixelKind::F64,
        TypeDescriptor::Compound(c) => {
            let [a, b] = c.fields.as_slice() else {
                return None;
            };
            match (a.name.as_str(), b.name.as_str(), &a.ty, &b.ty) {
                (
                    "real",
                    "imag",
                    TypeDescriptor::Float(FloatSize::U4),
                    TypeDescriptor::Float(_),
                ) => PixelKind::C32,
                (
                    "real",
                    "imag",
                    TypeDescriptor::Float(FloatSize::U8),
                    TypeDescriptor::Float(_),
                ) => PixelKind::C64,
                ("r", "i", TypeDescriptor::Float(FloatSize::U4), TypeDescriptor::Float(_)) => {
                    PixelKind::C32Short
                }
                ("r", "i", TypeDescriptor::Float(FloatSize::U8), TypeDescriptor::Float(_)) => {
                    PixelKind::C64Short
                }
                _ => return None,
            }
        }
        _ => return None,
    })
}

/// Element `i` of the first axis with all other axes whole.
fn plane<T: H5Type>(ds: &Dataset, i: usize) -> hdf5::Result<Vec<T>> {
    let mut axes = vec![SliceOrIndex::from(i..i + 1)];
    axes.extend(ds.shape().iter().skip(1).map(|&n| SliceOrIndex::from(0..n)));
    let array = ds.read_slice::<T, _, IxDyn>(Selection::from(Hyperslab::from(axes)))?;
    Ok(array.into_raw_vec_and_offset().0)
}
