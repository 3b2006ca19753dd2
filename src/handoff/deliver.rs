//! Staging: everything is written beside its place and moved there when all of it is complete.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use serde::Serialize;
use tempfile::{Builder, NamedTempFile, TempDir};

use super::{HandoffError, Quantity};
use crate::data::Note;

/// One file that was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeliveredFile {
    /// Where.
    pub path: PathBuf,
    /// `dicom`, `dicom_enhanced`, `nifti`, `png`, `npy`, `cfl`, `ismrmrd`.
    pub format: &'static str,
    /// What its voxels say; an ISMRMRD file may hold several.
    pub quantities: Vec<Quantity>,
    /// Slices (2D) or partitions (3D) in it, over all frames.
    pub n_slices: usize,
    /// Size.
    pub bytes: u64,
    /// Grey window `[low, high]` in units of the quantity, where one was applied or stated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<[f32; 2]>,
}

/// What was handed out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Delivered {
    /// Files in the order written.
    pub files: Vec<DeliveredFile>,
    /// Slices or partitions per quantity.
    pub slices_per_quantity: Vec<(Quantity, usize)>,
    /// Sum over the files.
    pub bytes: u64,
    /// What a reader of the files must be able to find out: assumed positions, cut texts, split stacks.
    pub notes: Vec<Note>,
}

enum Place {
    /// A finished temporary file and where it goes.
    File(NamedTempFile),
    /// Written into the temporary folder under its own name.
    InFolder,
}

/// Files under way. Dropping it removes every one of them.
pub(super) struct Staging {
    overwrite: bool,
    folder: Option<(TempDir, PathBuf)>,
    pending: Vec<(Place, DeliveredFile)>,
    notes: Vec<Note>,
    /// Of files that hold several quantities.
    counts: Vec<(Quantity, usize)>,
}

impl Staging {
    /// Single files next to each other.
    pub(super) fn files(overwrite: bool) -> Self {
        Self {
            overwrite,
            folder: None,
            pending: Vec::new(),
            notes: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// A folder that appears at `target` when all of its files are complete.
    ///
    /// # Errors
    /// The target exists and may not be replaced; the parent folder is absent or not writable.
    pub(super) fn folder(target: &Path, overwrite: bool) -> Result<Self, HandoffError> {
        check_folder(target, overwrite)?;
        let parent = parent_of(target);
        let mut builder = Builder::new();
        builder.prefix(".cauda-").suffix(".part");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o777));
        }
        let dir = builder
            .tempdir_in(&parent)
            .map_err(|e| HandoffError::io("making a folder in", &parent, e))?;
        let mut staging = Self::files(overwrite);
        staging.folder = Some((dir, target.to_path_buf()));
        Ok(staging)
    }

    pub(super) fn note(&mut self, note: Note) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Counts slices of a file that holds several quantities.
    pub(super) fn count(&mut self, quantity: Quantity, n: usize) {
        self.counts.push((quantity, n));
    }

    /// Writes one file through `write`; `file.bytes` is filled in here.
    ///
    /// # Errors
    /// [`HandoffError::Exists`], [`HandoffError::Io`]; on any error the temporary file is gone.
    pub(super) fn write(
        &mut self,
        mut file: DeliveredFile,
        write: impl FnOnce(&mut BufWriter<&mut File>) -> std::io::Result<()>,
    ) -> Result<(), HandoffError> {
        let target = file.path.clone();
        // Network file systems report a full disk only when the cache is written back. The files of a folder are
        // synchronised together, in `commit`: one by one, a hundred slices would wait for a hundred disk turns.
        let is_synced_here = self.folder.is_none();
        let fill = |handle: &mut File| -> std::io::Result<u64> {
            let mut writer = BufWriter::with_capacity(1 << 20, &mut *handle);
            write(&mut writer)?;
            writer.flush()?;
            drop(writer);
            if is_synced_here {
                handle.sync_all()?;
            }
            Ok(handle.metadata()?.len())
        };
        if let Some((dir, folder)) = &self.folder {
            let name = target
                .file_name()
                .ok_or_else(|| HandoffError::UnknownFormat {
                    path: target.clone(),
                })?;
            let mut handle = File::create_new(dir.path().join(name))
                .map_err(|e| HandoffError::io("writing", &target, e))?;
            file.bytes = fill(&mut handle).map_err(|e| HandoffError::io("writing", &target, e))?;
            file.path = folder.join(name);
            self.pending.push((Place::InFolder, file));
        } else {
            let mut temporary = self.beside(&target)?;
            file.bytes = fill(temporary.as_file_mut())
                .map_err(|e| HandoffError::io("writing", &target, e))?;
            self.pending.push((Place::File(temporary), file));
        }
        Ok(())
    }

    /// An empty temporary file next to `target`, for a library that writes by path; give it back to [`Staging::adopt`].
    pub(super) fn beside(&self, target: &Path) -> Result<NamedTempFile, HandoffError> {
        if !self.overwrite && target.symlink_metadata().is_ok() || target.is_dir() {
            return Err(HandoffError::Exists {
                path: target.to_path_buf(),
            });
        }
        let parent = parent_of(target);
        let mut builder = Builder::new();
        builder.prefix(".cauda-").suffix(".part");
        #[cfg(unix)]
        {
            // As an ordinary file would get; the umask still applies.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        builder
            .tempfile_in(&parent)
            .map_err(|e| HandoffError::io("making a file in", &parent, e))
    }

    /// Takes a temporary file that a library has filled.
    pub(super) fn adopt(
        &mut self,
        temporary: NamedTempFile,
        mut file: DeliveredFile,
    ) -> Result<(), HandoffError> {
        file.bytes = fs::metadata(temporary.path())
            .map_err(|e| HandoffError::io("writing", &file.path, e))?
            .len();
        self.pending.push((Place::File(temporary), file));
        Ok(())
    }

    /// Moves everything to its place.
    ///
    /// # Errors
    /// The system refuses a rename. New files that were already in place are removed again; files that were
    /// *replaced* before the refusal keep their new, complete content.
    pub(super) fn commit(self) -> Result<Delivered, HandoffError> {
        let mut delivered = Delivered {
            notes: self.notes,
            ..Delivered::default()
        };
        if let Some((dir, target)) = self.folder {
            self.pending
                .par_iter()
                .filter_map(|(_, file)| file.path.file_name())
                .try_for_each(|name| File::open(dir.path().join(name))?.sync_all())
                .map_err(|e| HandoffError::io("writing", &target, e))?;
            place_folder(dir, &target, self.overwrite)?;
        }
        for (quantity, n) in &self.counts {
            delivered.count(*quantity, *n);
        }
        let mut placed: Vec<PathBuf> = Vec::new();
        for (place, file) in self.pending {
            if let Place::File(temporary) = place {
                let is_new = file.path.symlink_metadata().is_err();
                let outcome = if self.overwrite {
                    temporary.persist(&file.path)
                } else {
                    temporary.persist_noclobber(&file.path)
                };
                if let Err(refused) = outcome {
                    for path in placed {
                        // The refusal is what the user must hear; a failing clean-up would only hide it.
                        drop(fs::remove_file(path));
                    }
                    return Err(HandoffError::io("renaming to", &file.path, refused.error));
                }
                if is_new {
                    placed.push(file.path.clone());
                }
            }
            delivered.bytes += file.bytes;
            if let ([quantity], true) = (&file.quantities[..], self.counts.is_empty()) {
                delivered.count(*quantity, file.n_slices);
            }
            delivered.files.push(file);
        }
        Ok(delivered)
    }
}

impl Delivered {
    pub(super) fn count(&mut self, quantity: Quantity, n: usize) {
        match self
            .slices_per_quantity
            .iter_mut()
            .find(|(q, _)| *q == quantity)
        {
            Some((_, count)) => *count += n,
            None => self.slices_per_quantity.push((quantity, n)),
        }
    }
}

fn parent_of(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Whether a folder may appear at `target`: it is absent, empty, or (with `overwrite`) holds only our own files.
fn check_folder(target: &Path, overwrite: bool) -> Result<(), HandoffError> {
    let metadata = match target.symlink_metadata() {
        Err(_) => return Ok(()),
        Ok(metadata) => metadata,
    };
    if !metadata.is_dir() {
        return Err(HandoffError::Exists {
            path: target.to_path_buf(),
        });
    }
    let entries =
        fs::read_dir(target).map_err(|e| HandoffError::io("reading folder", target, e))?;
    for entry in entries {
        let entry = entry.map_err(|e| HandoffError::io("reading folder", target, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = entry.file_type().is_ok_and(|t| t.is_file())
            && name.ends_with(".dcm")
            && Quantity::ALL.iter().any(|q| name.starts_with(q.name()));
        if !is_ours {
            return Err(HandoffError::ForeignFolder {
                path: target.to_path_buf(),
                found: name,
            });
        }
        if !overwrite {
            return Err(HandoffError::Exists {
                path: target.to_path_buf(),
            });
        }
    }
    Ok(())
}

/// Swaps the finished folder in. The old one is moved aside first and comes back if the swap is refused.
fn place_folder(dir: TempDir, target: &Path, overwrite: bool) -> Result<(), HandoffError> {
    check_folder(target, overwrite)?;
    let refused = |e| HandoffError::io("renaming to", target, e);
    if target.symlink_metadata().is_err() {
        fs::rename(dir.path(), target).map_err(refused)?;
        // Moved away: there is nothing left to clean up under the temporary name.
        drop(dir.keep());
        return Ok(());
    }
    let aside = Builder::new()
        .prefix(".cauda-")
        .suffix(".old")
        .tempdir_in(parent_of(target))
        .map_err(refused)?;
    let old = aside.path().join("old");
    fs::rename(target, &old).map_err(refused)?;
    if let Err(error) = fs::rename(dir.path(), target) {
        fs::rename(&old, target).map_err(refused)?;
        return Err(refused(error));
    }
    drop(dir.keep());
    aside
        .close()
        .map_err(|e| HandoffError::io("removing the old", target, e))
}
