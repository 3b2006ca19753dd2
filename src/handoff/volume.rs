//! All voxels of a stack, for the formats that hold a whole array: shapes, order, bytes.

use super::{
    HandoffError, Quantity,
    quantity::{Values, extract},
    stack::{Stack, describe},
};

/// An array of a stack.
///
/// # Shapes
/// `dims` slowest first, always six: `[frame, set, coil, z, y, x]`; set and coil are 1 except for sensitivity maps.
pub(super) struct Volume {
    pub(super) dims: [usize; 6],
    pub(super) values: Values,
}

impl Volume {
    /// Little-endian bytes: `f32`, or real and imaginary `f32` pairs.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match &self.values {
            Values::Real(values) => to_le(values),
            Values::Complex(values) => {
                to_le(bytemuck::cast_slice::<crate::data::Complex32, f32>(values))
            }
        }
    }
}

fn to_le(values: &[f32]) -> Vec<u8> {
    if cfg!(target_endian = "little") {
        bytemuck::cast_slice(values).to_vec()
    } else {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }
}

/// Gathers `quantity` of every frame and slice.
///
/// # Errors
/// Those of [`extract`]; [`HandoffError::Shape`] when the maps of two slices differ in sets or coils.
pub(super) fn gather(stack: &Stack<'_>, quantity: Quantity) -> Result<Volume, HandoffError> {
    let [nx, ny, n_partitions] = stack.slices[0].matrix;
    let n_image = nx * ny * n_partitions;
    let first = stack.frames[0][0];
    let maps = |image: &crate::data::ReconImage| match (&image.csm, quantity) {
        (Some(csm), Quantity::Csm) => (csm.n_sets, csm.n_coils),
        _ => (1, 1),
    };
    let (n_sets, n_coils) = maps(first);
    let dims = [stack.frames.len(), n_sets, n_coils, stack.n_z(), ny, nx];
    let n_total = dims.iter().product();
    let mut real = Vec::new();
    let mut complex = Vec::new();
    for frame in &stack.frames {
        let mut parts = Vec::with_capacity(frame.len());
        for image in frame {
            if maps(image) != (n_sets, n_coils) {
                return Err(HandoffError::Shape {
                    image: describe(image),
                    found: format!("sensitivity maps of (sets, coils) = {:?}", maps(image)),
                    needed: format!("{:?}, as {} has", (n_sets, n_coils), describe(first)),
                });
            }
            parts.push(extract(image, quantity)?);
        }
        for map in 0..n_sets * n_coils {
            let range = map * n_image..(map + 1) * n_image;
            for part in &parts {
                match part {
                    Values::Real(values) => {
                        reserve(&mut real, n_total);
                        real.extend_from_slice(&values[range.clone()]);
                    }
                    Values::Complex(values) => {
                        reserve(&mut complex, n_total);
                        complex.extend_from_slice(&values[range.clone()]);
                    }
                }
            }
        }
    }
    let values = if quantity.is_complex() {
        Values::Complex(complex)
    } else {
        Values::Real(real)
    };
    Ok(Volume { dims, values })
}

fn reserve<T>(values: &mut Vec<T>, n: usize) {
    if values.is_empty() {
        values.reserve_exact(n);
    }
}
