//! Bytes → [`Message`].

use bytemuck::Pod;
use num_complex::Complex32;

use super::{Message, id};
use crate::acquisition::{ACQUISITION_HEADER_BYTES, Acquisition, AcquisitionHeader};
use crate::image::{IMAGE_HEADER_BYTES, Image, ImageHeader, NdArray, Pixels};
use crate::waveform::{WAVEFORM_HEADER_BYTES, Waveform, WaveformHeader};
use crate::{Error, Limits, xml};

/// What [`decode`] found at the front of a buffer.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // a box would cost an allocation for each message
pub enum Step {
    /// At least so many more bytes are needed before the next step.
    Need(usize),
    /// A message, and how many bytes it took.
    Message {
        /// The message.
        message: Message,
        /// Bytes to drop from the front.
        used: usize,
    },
}

/// Takes one message from the front of `buf`, or says how many more bytes it needs.
///
/// Pure: no I/O and no clock; allocates nothing until every declared length has passed `limits` and all
/// bytes are there. Feeding the same bytes in any division yields the same messages.
///
/// Where peers disagree, both ways are read: texts and image attributes with or without trailing NULs;
/// an image's attribute length is the one in front of the attributes, whatever its header says.
///
/// # Units
/// Lengths in bytes. Little-endian: the message tables do not say so, the reference peers do it.
///
/// # Errors
/// * [`Error::Malformed`] for an unknown number — fatal: messages carry no common length, so an unknown one
///   cannot be skipped — and for a body that contradicts itself.
/// * [`Error::TooLarge`], before any allocation.
///
/// "Need more bytes" is [`Step::Need`], not an error.
///
/// # Source
/// ISMRMRD documentation, "Session Protocol" and "Message Types"; ISMRMRD `serialization.cpp`.
pub fn decode(buf: &[u8], limits: &Limits) -> Result<Step, Error> {
    decode_into(buf, limits, &mut Vec::new())
}

/// [`decode`], with samples of readouts in the last of `rooms` instead of a new allocation.
pub(super) fn decode_into(
    buf: &[u8],
    limits: &Limits,
    rooms: &mut Vec<Vec<Complex32>>,
) -> Result<Step, Error> {
    let mut c = Cursor { buf, at: 0, rooms };
    match message(&mut c, limits) {
        Ok(message) => Ok(Step::Message {
            message,
            used: c.at,
        }),
        Err(Stop::Need(n)) => Ok(Step::Need(n.max(1))),
        Err(Stop::Error(e)) => Err(e),
    }
}

/// Why decoding stops short of a message.
enum Stop {
    Need(usize),
    Error(Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Stop::Error(e)
    }
}

struct Cursor<'a, 'r> {
    buf: &'a [u8],
    at: usize,
    rooms: &'r mut Vec<Vec<Complex32>>,
}

impl<'a> Cursor<'a, '_> {
    fn bytes(&mut self, n: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.saturating_add(n);
        match self.buf.get(self.at..end) {
            Some(bytes) => {
                self.at = end;
                Ok(bytes)
            }
            None => Err(Stop::Need(end.saturating_sub(self.buf.len()))),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Stop> {
        let bytes = self.bytes(N)?;
        bytes.first_chunk().ok_or(Stop::Need(N))
    }

    fn u16(&mut self) -> Result<u16, Stop> {
        Ok(u16::from_le_bytes(*self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(*self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Stop> {
        Ok(u64::from_le_bytes(*self.array()?))
    }

    fn text(&mut self, len: u64, what: &'static str, limit: usize) -> Result<String, Stop> {
        let len = within(len, what, limit)?;
        let bytes = self.bytes(len)?;
        Ok(xml::decode(bytes, what)?)
    }

    fn values<T: Pod>(
        &mut self,
        count: u64,
        component: usize,
        limit: usize,
    ) -> Result<Vec<T>, Stop> {
        let bytes = count.saturating_mul(size_of::<T>() as u64);
        let bytes = self.bytes(within(bytes, "bytes of data", limit)?)?;
        Ok(values(bytes, component))
    }
}

/// Copies little-endian values whose real numbers are `component` bytes each.
pub(crate) fn values<T: Pod>(bytes: &[u8], component: usize) -> Vec<T> {
    values_into(Vec::new(), bytes, component)
}

fn values_into<T: Pod>(mut out: Vec<T>, bytes: &[u8], component: usize) -> Vec<T> {
    let n = bytes.len() / size_of::<T>();
    out.resize(n, T::zeroed());
    let to: &mut [u8] = bytemuck::cast_slice_mut(&mut out);
    to.copy_from_slice(bytes.get(..n * size_of::<T>()).unwrap_or_default());
    if cfg!(target_endian = "big") {
        to.chunks_exact_mut(component).for_each(<[u8]>::reverse);
    }
    out
}

fn within(declared: u64, what: &'static str, limit: usize) -> Result<usize, Error> {
    match usize::try_from(declared) {
        Ok(n) if n <= limit => Ok(n),
        _ => Err(Error::TooLarge {
            what,
            declared,
            limit: limit as u64,
        }),
    }
}

fn malformed(place: &str, found: String, needed: &str) -> Error {
    Error::Malformed {
        place: place.to_owned(),
        found,
        needed: needed.to_owned(),
    }
}

fn message(c: &mut Cursor<'_, '_>, limits: &Limits) -> Result<Message, Stop> {
    let text = limits.xml_bytes;
    let number = c.u16()?;
    Ok(match number {
        id::CONFIG_FILE => {
            let name = c.array::<1024>()?;
            let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
            let name = name.get(..end).unwrap_or_default();
            Message::ConfigFile(xml::decode(name, "name of the configuration")?)
        }
        id::CONFIG_TEXT => {
            let n = c.u32()?;
            Message::ConfigText(c.text(n.into(), "bytes of the configuration", text)?)
        }
        id::HEADER => {
            let n = c.u32()?;
            Message::Header(c.text(n.into(), "bytes of the XML header", text)?)
        }
        id::CLOSE => Message::Close,
        id::TEXT => {
            let n = c.u32()?;
            Message::Text(c.text(n.into(), "bytes of a text", text)?)
        }
        id::QUERY => {
            let reserved = c.u64()?;
            if reserved != 0 {
                return Err(
                    malformed("query", format!("{reserved} in the reserved field"), "0").into(),
                );
            }
            let correlation_id = c.u64()?;
            let n = c.u64()?;
            Message::Query {
                correlation_id,
                text: c.text(n, "bytes of a query", text)?,
            }
        }
        id::RESPONSE => {
            let correlation_id = c.u64()?;
            let n = c.u64()?;
            Message::Response {
                correlation_id,
                text: c.text(n, "bytes of a response", text)?,
            }
        }
        id::ERROR => {
            let n = c.u64()?;
            Message::Error(c.text(n, "bytes of an error text", text)?)
        }
        id::ACQUISITION => acquisition(c, limits)?,
        id::IMAGE => image(c, limits)?,
        id::WAVEFORM => {
            let head = WaveformHeader::decode(c.array::<WAVEFORM_HEADER_BYTES>()?);
            let count = u64::from(head.channels) * u64::from(head.number_of_samples);
            Message::Waveform(Waveform {
                head,
                data: c.values(count, 4, limits.image_bytes)?,
            })
        }
        id::NDARRAY => array(c, limits)?,
        id::DICOM_WITH_NAME => {
            let n = within(c.u32()?.into(), "bytes of a DICOM file", limits.image_bytes)?;
            let bytes = c.bytes(n)?;
            let n = c.u64()?;
            let name = c.text(n, "bytes of a file name", limits.attribute_bytes)?;
            let n = c.u64()?;
            let meta = c.text(n, "bytes of meta attributes", limits.attribute_bytes)?;
            Message::Dicom {
                bytes: bytes.to_vec(),
                name,
                meta,
            }
        }
        id::DEPENDENCY_QUERY => {
            let n = c.u64()?;
            Message::DependencyQuery(c.text(n, "bytes of a dependency query", text)?)
        }
        other => {
            let needed =
                "1 to 8, 1008 acquisition, 1018, 1019, 1022 image, 1026 waveform or 1030 array";
            return Err(malformed("message number", other.to_string(), needed).into());
        }
    })
}

fn acquisition(c: &mut Cursor<'_, '_>, limits: &Limits) -> Result<Message, Stop> {
    let head = AcquisitionHeader::decode(c.array::<ACQUISITION_HEADER_BYTES>()?);
    head.check_limits(limits)?;
    let samples = u64::from(head.number_of_samples);
    let traj = samples * u64::from(head.trajectory_dimensions);
    let data = samples * u64::from(head.active_channels);
    // The limits above are the limits here; all bytes must be there before anything is copied.
    let rest = 4 * traj + 8 * data;
    let have = (c.buf.len() - c.at) as u64;
    if have < rest {
        return Err(Stop::Need(
            usize::try_from(rest - have).unwrap_or(usize::MAX),
        ));
    }
    let traj = c.values(traj, 4, usize::MAX)?;
    let room = c.rooms.pop().unwrap_or_default();
    let bytes = c.bytes(usize::try_from(8 * data).unwrap_or(usize::MAX))?;
    let data = values_into(room, bytes, 4);
    Ok(Message::Acquisition(Acquisition { head, traj, data }))
}

fn image(c: &mut Cursor<'_, '_>, limits: &Limits) -> Result<Message, Stop> {
    let head = ImageHeader::decode(c.array::<IMAGE_HEADER_BYTES>()?);
    let n = c.u64()?;
    let attributes = c.text(n, "bytes of image attributes", limits.attribute_bytes)?;
    let pixels = pixels(c, head.data_type, Image::declared_len(&head), limits)?;
    Ok(Message::Image(Image {
        head,
        attributes,
        pixels,
    }))
}

fn pixels(
    c: &mut Cursor<'_, '_>,
    data_type: u16,
    count: u64,
    limits: &Limits,
) -> Result<Pixels, Stop> {
    let limit = limits.image_bytes;
    Ok(match data_type {
        1 => Pixels::U16(c.values(count, 2, limit)?),
        2 => Pixels::I16(c.values(count, 2, limit)?),
        3 => Pixels::U32(c.values(count, 4, limit)?),
        4 => Pixels::I32(c.values(count, 4, limit)?),
        5 => Pixels::F32(c.values(count, 4, limit)?),
        6 => Pixels::F64(c.values(count, 8, limit)?),
        7 => Pixels::C32(c.values(count, 4, limit)?),
        8 => Pixels::C64(c.values(count, 8, limit)?),
        other => return Err(malformed("data type", other.to_string(), "1 to 8").into()),
    })
}

fn array(c: &mut Cursor<'_, '_>, limits: &Limits) -> Result<Message, Stop> {
    let data_type = c.u16()?;
    let _version = c.u16()?;
    let axes = c.u16()?;
    // ISMRMRD's arrays have seven axes at most.
    if axes > 7 {
        return Err(malformed("array", format!("{axes} axes"), "at most 7").into());
    }
    let mut shape = Vec::with_capacity(usize::from(axes));
    let mut count = 1_u64;
    for _ in 0..axes {
        let n = c.u64()?;
        count = count.saturating_mul(n);
        shape.push(within(n, "extent of an array", limits.image_bytes)?);
    }
    shape.reverse();
    let values = pixels(c, data_type, count, limits)?;
    Ok(Message::NdArray(NdArray { shape, values }))
}
