//! ISMRMRD HDF5 files, read and written.
//!
//! [`File`] reads: any group name, several groups, acquisitions, waveforms, images, arrays. [`Writer`]
//! writes a file beside its target, without the HDF5 library, and renames it when it is complete.
//!
//! Acquisitions are read by one of two paths, which [`File::reader_kind`] names: *direct*, from a memory
//! map with samples borrowed, when the layout is the usual one; through the HDF5 library otherwise.
//! HDF5 calls are serialised by one lock in the binding, so a file belongs on one thread.

mod guard;
mod heap;
mod inflate;
mod layout;
mod output;
mod read;
mod table;
#[cfg(test)]
mod tests;
mod write;

pub use read::{ArraysInfo, File, GroupInfo, ImagesInfo, ReaderKind, check};
pub use write::Writer;

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
