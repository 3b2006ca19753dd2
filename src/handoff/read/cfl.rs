//! BART's `.cfl` with its `.hdr`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use super::{ImageArray, Type, count, exactly, io, permuted, to_c32};
use crate::handoff::HandoffError;

/// Header and data: the path is either of them, or the stem to which BART appends.
fn names(path: &Path) -> [PathBuf; 2] {
    let ending = path.extension().and_then(|e| e.to_str());
    if matches!(ending, Some("cfl" | "hdr")) {
        return [path.with_extension("hdr"), path.with_extension("cfl")];
    }
    [".hdr", ".cfl"].map(|ending| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    })
}

pub(super) fn is_pair(path: &Path) -> bool {
    names(path).iter().all(|name| name.is_file())
}

pub(super) fn read(path: &Path) -> Result<ImageArray, HandoffError> {
    let [hdr, cfl] = names(path);
    let text = fs::read_to_string(&hdr).map_err(io(&hdr))?;
    let line = text
        .split_once("# Dimensions")
        .map_or(text.as_str(), |(_, rest)| rest)
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with('#'))
        .unwrap_or("");
    let mut dims = Vec::new();
    for word in line.split_whitespace() {
        dims.push(
            word.parse::<usize>()
                .ok()
                .filter(|n| *n > 0)
                .ok_or_else(|| {
                    HandoffError::read(
                        &hdr,
                        format!("the extents {line:?}"),
                        "positive whole numbers",
                    )
                })?,
        );
    }
    dims.resize(dims.len().max(16), 1);
    let size = fs::metadata(&cfl).map_err(io(&cfl))?.len();
    let n = count(&cfl, &dims, Some(size / 8))?;
    let bytes = exactly(&cfl, File::open(&cfl).map_err(io(&cfl))?, n * 8)?;
    let values = Type::C32.decode(&bytes, false);
    // All other axes in front, slowest first, then slice and partition as one, then phase and read.
    let mut strides = vec![1_usize; dims.len()];
    for i in 1..dims.len() {
        strides[i] = strides[i - 1] * dims[i - 1];
    }
    let mut axes: Vec<usize> = (3..dims.len())
        .rev()
        .filter(|a| *a != 13 && dims[*a] > 1)
        .collect();
    let mut out_dims: Vec<usize> = axes.iter().map(|a| dims[*a]).collect();
    out_dims.extend([dims[13] * dims[2], dims[1], dims[0]]);
    axes.extend([13, 2, 1, 0]);
    let picked: Vec<usize> = axes.iter().map(|a| dims[*a]).collect();
    let steps: Vec<usize> = axes.iter().map(|a| strides[*a]).collect();
    let values = permuted(&values, &picked, &steps);
    ImageArray::new(
        path,
        &out_dims,
        values.into_iter().map(to_c32).collect(),
        true,
    )
}
