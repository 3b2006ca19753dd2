//! What is in a file: its groups and what each of them holds.

use hdf5::dataset::Layout;
use hdf5::{Dataset, Group, LinkType, LocationType};

use super::images::{image_series, pixel_kind};
use super::{File, hdf5_error, is_compound_with};
use crate::Error;

/// Groups below groups that are searched, and groups in all: links may form circles.
const MAX_GROUP_DEPTH: usize = 4;
const MAX_GROUPS: usize = 4096;

/// What one group holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupInfo {
    /// Path in the file without the leading slash; `/` for the root.
    pub name: String,
    /// Whether there is an XML header.
    pub has_header: bool,
    /// Acquisitions, when there is a data set of them.
    pub acquisitions: Option<u64>,
    /// Waveforms, when there is a data set of them.
    pub waveforms: Option<u64>,
    /// Image series.
    pub images: Vec<ImagesInfo>,
    /// Array series.
    pub arrays: Vec<ArraysInfo>,
}

/// A series of images of one size and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagesInfo {
    /// Name below the group.
    pub name: String,
    /// How many.
    pub count: u64,
    /// `[channel, z, y, x]` of each.
    pub shape: Vec<usize>,
}

/// A series of arrays of one size and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArraysInfo {
    /// Name below the group.
    pub name: String,
    /// How many.
    pub count: u64,
    /// Shape of each.
    pub shape: Vec<usize>,
}

impl File {
    /// Every group that holds a header, acquisitions, waveforms, images or arrays.
    ///
    /// # Errors
    /// [`Error::Hdf5`] when the library cannot list a group.
    pub fn groups(&self) -> Result<Vec<GroupInfo>, Error> {
        let mut found = Vec::new();
        let mut visited = 0;
        self.search(&self.h5, "", 0, &mut visited, &mut found)?;
        Ok(found)
    }

    fn search(
        &self,
        group: &Group,
        name: &str,
        depth: usize,
        visited: &mut usize,
        found: &mut Vec<GroupInfo>,
    ) -> Result<(), Error> {
        *visited += 1;
        if *visited > MAX_GROUPS {
            return Err(Error::TooLarge {
                what: "groups in the file",
                declared: *visited as u64,
                limit: MAX_GROUPS as u64,
            });
        }
        let members = self.list(group)?;
        let mut info = GroupInfo {
            name: if name.is_empty() {
                "/".into()
            } else {
                name.into()
            },
            ..Default::default()
        };
        let mut below = Vec::new();
        for (member, kind) in members {
            match kind {
                LocationType::Dataset => {
                    let Ok(ds) = group.dataset(&member) else {
                        continue;
                    };
                    let shape = ds.shape();
                    let count = shape.first().map_or(1, |&n| n as u64);
                    match member.as_str() {
                        "xml" => info.has_header = true,
                        "data" if is_compound_with(&ds, &["head", "data"]) => {
                            info.acquisitions = Some(count)
                        }
                        "waveforms" if is_compound_with(&ds, &["head", "data"]) => {
                            info.waveforms = Some(count)
                        }
                        _ if pixel_kind(&ds).is_some() && shape.len() > 1 => {
                            let shape = shape.get(1..).unwrap_or_default().to_vec();
                            info.arrays.push(ArraysInfo {
                                name: member,
                                count,
                                shape,
                            });
                        }
                        _ => {}
                    }
                }
                LocationType::Group => {
                    let Ok(sub) = group.group(&member) else {
                        continue;
                    };
                    match image_series(&sub) {
                        Some((count, shape)) => info.images.push(ImagesInfo {
                            name: member,
                            count,
                            shape,
                        }),
                        None => below.push((member, sub)),
                    }
                }
                _ => {}
            }
        }
        // Arrays alone make a group ours only below the root: any HDF5 file may have arrays in its root.
        let ours = info.has_header
            || info.acquisitions.is_some()
            || info.waveforms.is_some()
            || !info.images.is_empty();
        if ours || (!name.is_empty() && !info.arrays.is_empty()) {
            found.push(info);
        }
        if depth < MAX_GROUP_DEPTH {
            for (member, sub) in below {
                let path = if name.is_empty() {
                    member
                } else {
                    format!("{name}/{member}")
                };
                self.search(&sub, &path, depth + 1, visited, found)?;
            }
        }
        Ok(())
    }

    /// Members by name and kind. Links that lead to other files are left out: a file does not get to
    /// name which of the reader's files are opened.
    pub(super) fn list(&self, group: &Group) -> Result<Vec<(String, LocationType)>, Error> {
        let names = group
            .iter_visit_default(Vec::new(), |_, name, info, names: &mut Vec<String>| {
                if info.link_type != LinkType::External {
                    names.push(name.to_owned());
                }
                true
            })
            .map_err(hdf5_error(format!(
                "{}: list of group {}",
                self.path.display(),
                group.name()
            )))?;
        let kind = |name: String| {
            group
                .loc_info_by_name(&name)
                .ok()
                .map(|info| (name, info.loc_type))
        };
        Ok(names.into_iter().filter_map(kind).collect())
    }

    pub(super) fn group(&self, name: &str) -> Result<Group, Error> {
        let path = name.trim_matches('/');
        let group = if path.is_empty() {
            self.h5.group("/")
        } else {
            self.h5.group(path)
        };
        group.map_err(|_| {
            let found = match self.groups() {
                Ok(groups) if groups.is_empty() => "no group of ISMRMRD data".to_owned(),
                Ok(groups) => groups
                    .iter()
                    .map(|g| format!("\"{}\"", g.name))
                    .collect::<Vec<_>>()
                    .join(", "),
                Err(e) => e.to_string(),
            };
            Error::Missing {
                what: format!("group \"{name}\""),
                path: self.path.clone(),
                found,
            }
        })
    }

    pub(super) fn dataset(
        &self,
        group: &Group,
        group_name: &str,
        member: &str,
        what: &str,
    ) -> Result<Dataset, Error> {
        let names = self.list(group)?;
        if !names
            .iter()
            .any(|(name, kind)| name == member && *kind == LocationType::Dataset)
        {
            let found = names
                .iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            return Err(Error::Missing {
                what: format!("{what} (data set \"{member}\" in group \"{group_name}\")"),
                path: self.path.clone(),
                found: if found.is_empty() {
                    "an empty group".into()
                } else {
                    found
                },
            });
        }
        let place = self.place(group_name, member);
        let ds = group.dataset(member).map_err(hdf5_error(place.clone()))?;
        let plain = matches!(
            ds.layout(),
            Layout::Contiguous | Layout::Chunked | Layout::Compact
        );
        let external = ds.dcpl().is_ok_and(|p| !p.external().is_empty());
        if !plain || external {
            return Err(self.malformed(place, "data kept in other files", "data inside the file"));
        }
        Ok(ds)
    }
}
