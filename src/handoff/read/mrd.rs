//! ISMRMRD images and arrays, in files and in streams.

use std::path::Path;

use ismrmrd::file::File;
use ismrmrd::wire::{Item, Stream};
use ismrmrd::{Image, Limits, NdArray, Pixels, SeriesNames};

use super::{ImageArray, to_c32};
use crate::data::{Complex32, Note};
use crate::handoff::HandoffError;

/// The series to read of those that are there: the one asked for, else `image_1`, else the first.
fn choose<'a>(
    path: &Path,
    names: &'a [String],
    asked: Option<&str>,
) -> Result<(&'a str, Option<Note>), HandoffError> {
    let there = || match names {
        [] => "no series of images or arrays".to_owned(),
        _ => format!("the series {}", names.join(", ")),
    };
    let is_asked = |name: &String| {
        asked.is_some_and(|a| name == a || name.rsplit_once('/').is_some_and(|(_, n)| n == a))
    };
    let chosen = match asked {
        Some(_) => names.iter().find(|n| is_asked(n)),
        None => names
            .iter()
            .find(|n| *n == "dataset/image_1")
            .or_else(|| names.iter().find(|n| n.ends_with("image_1")))
            .or(names.first()),
    };
    let Some(chosen) = chosen else {
        let needed = match asked {
            Some(asked) => format!("the series {asked:?} (--series NAME)"),
            None => "ISMRMRD images or arrays".to_owned(),
        };
        return Err(HandoffError::read(path, there(), needed));
    };
    let note = (names.len() > 1 && asked.is_none()).then(|| {
        let text = format!(
            "{}: {chosen} is read of {} (--series NAME)",
            path.display(),
            there()
        );
        Note::new("series_chosen", text)
    });
    Ok((chosen, note))
}

/// A series of an HDF5 file.
pub(super) fn file(path: &Path, asked: Option<&str>) -> Result<ImageArray, HandoffError> {
    let file = File::open(path, Limits::default())?;
    let groups = file.groups()?;
    let name = |group: &str, series: &str| format!("{}/{series}", group.trim_matches('/'));
    let images = groups
        .iter()
        .flat_map(|g| g.images.iter().map(|i| (g.name.as_str(), i.name.as_str())));
    let arrays = groups
        .iter()
        .flat_map(|g| g.arrays.iter().map(|a| (g.name.as_str(), a.name.as_str())));
    let images: Vec<(&str, &str)> = images.collect();
    let all: Vec<(&str, &str)> = images.iter().copied().chain(arrays).collect();
    let names: Vec<String> = all.iter().map(|(g, s)| name(g, s)).collect();
    let (chosen, note) = choose(path, &names, asked)?;
    let at = names.iter().position(|n| n == chosen).unwrap_or_default();
    let (group, series) = all[at];
    let mut array = if at < images.len() {
        of_images(path, file.images(group, series)?)
    } else {
        of_arrays(path, &file.arrays(group, series)?)
    }?;
    array.note = note;
    Ok(array)
}

/// A series of a stream.
pub(super) fn stream(path: &Path, asked: Option<&str>) -> Result<ImageArray, HandoffError> {
    let mut stream = Stream::open(path, Limits::default())?;
    let mut series = SeriesNames::default();
    let mut names: Vec<String> = Vec::new();
    let (mut images, mut arrays) = (Vec::new(), Vec::new());
    while let Some(item) = stream.next_item()? {
        let name = match item {
            Item::Image(image) => {
                let name =
                    series.image(&format!("image_{}", image.head.image_series_index), &image);
                images.push((name.clone(), *image));
                name
            }
            Item::Array(array) => {
                let name = series.array("array", &array);
                arrays.push((name.clone(), array));
                name
            }
            _ => continue,
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let (chosen, note) = choose(path, &names, asked)?;
    images.retain(|(name, _)| name == chosen);
    arrays.retain(|(name, _)| name == chosen);
    let mut array = if images.is_empty() {
        let arrays: Vec<NdArray> = arrays.into_iter().map(|(_, a)| a).collect();
        of_arrays(path, &arrays)
    } else {
        of_images(path, images.into_iter().map(|(_, i)| i).collect())
    }?;
    array.note = note;
    Ok(array)
}

fn of_arrays(path: &Path, arrays: &[NdArray]) -> Result<ImageArray, HandoffError> {
    let mut voxels = Vec::new();
    let mut is_complex = false;
    for array in arrays {
        is_complex |= append(&array.values, &mut voxels);
    }
    let shape = arrays.first().map_or(&[][..], |a| &a.shape);
    let dims: Vec<usize> = std::iter::once(arrays.len())
        .chain(shape.iter().copied())
        .collect();
    ImageArray::new(path, &dims, voxels, is_complex)
}

/// Puts values behind those that are there; true when they are complex.
fn append(pixels: &Pixels, voxels: &mut Vec<Complex32>) -> bool {
    let real = |v: f64| Complex32::new(v as f32, 0.0);
    match pixels {
        Pixels::U16(v) => voxels.extend(v.iter().map(|v| real(f64::from(*v)))),
        Pixels::I16(v) => voxels.extend(v.iter().map(|v| real(f64::from(*v)))),
        Pixels::U32(v) => voxels.extend(v.iter().map(|v| real(f64::from(*v)))),
        Pixels::I32(v) => voxels.extend(v.iter().map(|v| real(f64::from(*v)))),
        Pixels::F32(v) => voxels.extend(v.iter().map(|v| Complex32::new(*v, 0.0))),
        Pixels::F64(v) => voxels.extend(v.iter().map(|v| real(*v))),
        Pixels::C32(v) => voxels.extend_from_slice(v),
        Pixels::C64(v) => voxels.extend(v.iter().map(|v| to_c32(*v))),
    }
    matches!(pixels, Pixels::C32(_) | Pixels::C64(_))
}

/// Images of one series, frames in front of slices.
fn of_images(path: &Path, mut images: Vec<Image>) -> Result<ImageArray, HandoffError> {
    let height = |i: &Image| {
        let h = &i.head;
        (0..3).map(|k| h.position[k] * h.slice_dir[k]).sum::<f32>()
    };
    let frame = |i: &Image| {
        let h = &i.head;
        (h.contrast, h.set, h.average, h.repetition, h.phase)
    };
    images.sort_by(|a, b| {
        frame(a)
            .cmp(&frame(b))
            .then(height(a).total_cmp(&height(b)))
            .then(a.head.slice.cmp(&b.head.slice))
    });
    let Some(first) = images.first().map(|i| i.head) else {
        return Err(HandoffError::read(
            path,
            "an empty image series",
            "at least one image",
        ));
    };
    let n_frames = images.chunk_by(|a, b| frame(a) == frame(b)).count();
    let [nx, ny, nz] = first.matrix_size.map(usize::from);
    let n_channels = usize::from(first.channels).max(1);
    let mut voxels = Vec::new();
    let mut is_complex = false;
    for image in &images {
        is_complex |= append(&image.pixels, &mut voxels);
    }
    let n = images.len();
    let dims = if n_channels == 1 && nz == 1 && n.is_multiple_of(n_frames) {
        vec![n_frames, n / n_frames, ny, nx]
    } else if n_channels == 1 {
        vec![n, nz, ny, nx]
    } else {
        vec![n, n_channels, nz, ny, nx]
    };
    ImageArray::new(path, &dims, voxels, is_complex)
}
