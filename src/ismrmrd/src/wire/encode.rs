//! [`Message`] → bytes.

use bytemuck::Pod;

use super::{Message, id};
use crate::Error;
use crate::acquisition::AcquisitionRef;
use crate::image::{NdArray, Pixels};

/// Appends a message to `out`, as the specification has it: texts without a trailing NUL.
///
/// # Errors
/// [`Error::TooLarge`] for a text that its length field cannot hold; [`Error::Malformed`] when a header
/// contradicts its data. `out` is then as it was.
///
/// # Source
/// As [`super::decode`].
pub fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), Error> {
    let before = out.len();
    let done = put(message, out);
    if done.is_err() {
        out.truncate(before);
    }
    done
}

/// Appends a readout that stays where it is: [`Message::Acquisition`] without the copy.
///
/// # Errors
/// As [`encode`].
pub fn encode_acquisition(readout: &AcquisitionRef<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    let before = out.len();
    out.extend(id::ACQUISITION.to_le_bytes());
    let done = acquisition(readout, out);
    if done.is_err() {
        out.truncate(before);
    }
    done
}

fn acquisition(a: &AcquisitionRef<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    let samples = usize::from(a.head.number_of_samples);
    let traj = samples * usize::from(a.head.trajectory_dimensions);
    let data = samples * usize::from(a.head.active_channels);
    check("acquisition: trajectory", a.traj.len(), traj)?;
    check("acquisition: data", a.data.len(), data)?;
    out.extend(a.head.encode());
    values(a.traj, 4, out);
    values(a.data, 4, out);
    Ok(())
}

fn put(message: &Message, out: &mut Vec<u8>) -> Result<(), Error> {
    out.extend(message.id().to_le_bytes());
    match message {
        Message::ConfigFile(name) => {
            // The field is NUL-terminated, so 1023 bytes of name.
            let mut field = [0_u8; 1024];
            let bytes = name.as_bytes();
            match field.get_mut(..bytes.len()) {
                Some(to) if bytes.len() < 1024 => to.copy_from_slice(bytes),
                _ => {
                    return Err(too_large(
                        "bytes of a configuration's name",
                        bytes.len(),
                        1023,
                    ));
                }
            }
            out.extend(field);
        }
        Message::ConfigText(t) | Message::Header(t) | Message::Text(t) => {
            let n = u32::try_from(t.len())
                .map_err(|_| too_large("bytes of a text", t.len(), u32::MAX.into()))?;
            out.extend(n.to_le_bytes());
            out.extend(t.as_bytes());
        }
        Message::Close => {}
        Message::Query {
            correlation_id,
            text,
        } => {
            out.extend(0_u64.to_le_bytes());
            out.extend(correlation_id.to_le_bytes());
            long_text(text, out);
        }
        Message::Response {
            correlation_id,
            text,
        } => {
            out.extend(correlation_id.to_le_bytes());
            long_text(text, out);
        }
        Message::Error(t) | Message::DependencyQuery(t) => long_text(t, out),
        Message::Acquisition(a) => acquisition(&a.as_ref(), out)?,
        Message::Image(image) => {
            let declared = crate::Image::declared_len(&image.head);
            check(
                "image",
                image.pixels.len(),
                usize::try_from(declared).unwrap_or(usize::MAX),
            )?;
            out.extend(image.header_for_writing().encode());
            long_text(&image.attributes, out);
            pixels(&image.pixels, out);
        }
        Message::Waveform(w) => {
            let declared = usize::from(w.head.channels) * usize::from(w.head.number_of_samples);
            check("waveform", w.data.len(), declared)?;
            out.extend(w.head.encode());
            values(&w.data, 4, out);
        }
        Message::NdArray(a) => array(a, out)?,
        Message::Dicom { bytes, name, meta } => {
            let n = u32::try_from(bytes.len())
                .map_err(|_| too_large("bytes of a DICOM file", bytes.len(), u32::MAX.into()))?;
            out.extend(n.to_le_bytes());
            out.extend(bytes);
            long_text(name, out);
            long_text(meta, out);
        }
    }
    Ok(())
}

fn too_large(what: &'static str, declared: usize, limit: u64) -> Error {
    Error::TooLarge {
        what,
        declared: declared as u64,
        limit,
    }
}

fn check(place: &str, have: usize, declared: usize) -> Result<(), Error> {
    if have == declared {
        return Ok(());
    }
    Err(Error::Malformed {
        place: place.to_owned(),
        found: format!("{have} values"),
        needed: format!("{declared}, as the header says"),
    })
}

fn long_text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn array(a: &NdArray, out: &mut Vec<u8>) -> Result<(), Error> {
    if a.shape.len() > 7 {
        return Err(too_large("axes of an array", a.shape.len(), 7));
    }
    let declared = a.shape.iter().try_fold(1_usize, |n, &m| n.checked_mul(m));
    check("array", a.values.len(), declared.unwrap_or(usize::MAX))?;
    out.extend(a.values.data_type().to_le_bytes());
    out.extend(1_u16.to_le_bytes());
    out.extend((a.shape.len() as u16).to_le_bytes());
    for &n in a.shape.iter().rev() {
        out.extend((n as u64).to_le_bytes());
    }
    pixels(&a.values, out);
    Ok(())
}

/// Appends voxels, little-endian.
pub(crate) fn pixels(p: &Pixels, out: &mut Vec<u8>) {
    match p {
        Pixels::U16(v) => values(v, 2, out),
        Pixels::I16(v) => values(v, 2, out),
        Pixels::U32(v) => values(v, 4, out),
        Pixels::I32(v) => values(v, 4, out),
        Pixels::F32(v) => values(v, 4, out),
        Pixels::F64(v) => values(v, 8, out),
        Pixels::C32(v) => values(v, 4, out),
        Pixels::C64(v) => values(v, 8, out),
    }
}

/// Appends values whose components have `component` bytes, little-endian.
pub(crate) fn values<T: Pod>(values: &[T], component: usize, out: &mut Vec<u8>) {
    let from = out.len();
    out.extend_from_slice(bytemuck::cast_slice(values));
    if cfg!(target_endian = "big")
        && let Some(new) = out.get_mut(from..)
    {
        new.chunks_exact_mut(component).for_each(<[u8]>::reverse);
    }
}
