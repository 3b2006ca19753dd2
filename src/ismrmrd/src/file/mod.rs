//! ISMRMRD HDF5 files, read and written.
//!
//! [`File`] reads: any group name, several groups, acquisitions, waveforms, images, arrays. [`Writer`]
//! writes a file beside its target and renames it when it is complete.
//!
//! Acquisitions are read by one of two paths, which [`File::reader_kind`] names: *direct*, from a memory
//! map with samples borrowed, when the layout is the usual one; through the HDF5 library otherwise.
//! HDF5 calls are serialised by one lock in the binding, so a file belongs on one thread.

mod heap;
mod inflate;
mod layout;
mod read;
mod table;
#[cfg(test)]
mod tests;
mod write;

pub use read::{ArraysInfo, File, GroupInfo, ImagesInfo, ReaderKind};
pub use write::Writer;

use std::path::Path;

use crate::Error;

/// Turns the library's error into ours.
fn hdf5_error(what: impl Into<String>) -> impl FnOnce(hdf5::Error) -> Error {
    move |e| {
        let what = what.into();
        let message = e.to_string();
        if message.contains("truncated file") {
            return Error::Malformed {
                place: what,
                found: format!("a cut-off HDF5 file ({message})"),
                needed: "the whole file: copy or convert it again".into(),
            };
        }
        Error::Hdf5 { what, message }
    }
}

/// Turns an error of writing into ours. The system's refusal (a full disk, a quota) stands deep in the library's stack
/// of messages as `errno = 28`; it is what the user must hear, so it becomes [`Error::Io`].
fn write_error(target: &Path, what: String) -> impl FnOnce(hdf5::Error) -> Error + use<> {
    let target = target.to_path_buf();
    move |e| {
        let frames = match &e {
            hdf5::Error::HDF5(stack) => stack.clone().expand().ok(),
            hdf5::Error::Internal(_) => None,
        };
        let errno = frames.iter().flat_map(|f| f.iter()).find_map(|frame| {
            let digits = frame.desc().split_once("errno = ")?.1;
            digits
                .split(|c: char| !c.is_ascii_digit())
                .next()?
                .parse()
                .ok()
        });
        match errno {
            Some(errno) => Error::Io {
                what: "write",
                path: target,
                source: std::io::Error::from_raw_os_error(errno),
            },
            None => hdf5_error(format!("write {what}"))(e),
        }
    }
}
