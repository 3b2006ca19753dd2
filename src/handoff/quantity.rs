//! From a reconstructed image to the numbers of one quantity.

use super::{HandoffError, Quantity, stack::describe, synthetic::is_hounsfield};
use crate::data::{Complex32, ReconImage};

/// Voxels of one image, `[z, y, x]`; for maps `[set, coil, z, y, x]`.
pub(super) enum Values {
    Real(Vec<f32>),
    Complex(Vec<Complex32>),
}

impl Values {
    /// The real numbers; a complex quantity gives its magnitude (no caller asks for that).
    pub(super) fn into_real(self) -> Vec<f32> {
        match self {
            Self::Real(values) => values,
            Self::Complex(values) => values.iter().map(|v| v.norm()).collect(),
        }
    }

    /// As complex numbers.
    pub(super) fn into_complex(self) -> Vec<Complex32> {
        match self {
            Self::Real(values) => values.iter().map(|&v| Complex32::new(v, 0.0)).collect(),
            Self::Complex(values) => values,
        }
    }
}

/// Takes the numbers of `quantity` out of `image`.
///
/// # Errors
/// * [`HandoffError::Unavailable`]: the reconstruction did not give this quantity; the message says why.
/// * [`HandoffError::NotFinite`]: NaN or infinite voxels; they are never replaced.
/// * [`HandoffError::Shape`]: a map whose length is not that of the image.
pub(super) fn extract(image: &ReconImage, quantity: Quantity) -> Result<Values, HandoffError> {
    let matrix = image.geometry.matrix;
    let n = matrix[0] * matrix[1] * matrix[2];
    let check_len = |what: &str, len: usize, needed: usize| {
        if len == needed {
            Ok(())
        } else {
            Err(HandoffError::Shape {
                image: describe(image),
                found: format!("{what} of {len} values"),
                needed: format!("{needed} for the matrix [x, y, z] = {matrix:?}"),
            })
        }
    };
    check_len("voxels", image.voxels.len(), n)?;
    let unavailable = |why: String| HandoffError::Unavailable {
        quantity: quantity.name(),
        image: describe(image),
        why,
    };
    let noise = || {
        let noise = image
            .noise_std
            .as_deref()
            .ok_or_else(|| unavailable(why_no_noise(image)))?;
        check_len("noise map", noise.len(), n)?;
        Ok::<&[f32], HandoffError>(noise)
    };
    let values = match quantity {
        // HU have a sign.
        Quantity::Magnitude if is_hounsfield(image.synthetic.as_deref(), quantity) => {
            Values::Real(image.voxels.iter().map(|v| v.re).collect())
        }
        Quantity::Magnitude => Values::Real(image.voxels.iter().map(|v| v.norm()).collect()),
        Quantity::Phase => Values::Real(image.voxels.iter().map(|v| v.arg()).collect()),
        Quantity::Real => Values::Real(image.voxels.iter().map(|v| v.re).collect()),
        Quantity::Imag => Values::Real(image.voxels.iter().map(|v| v.im).collect()),
        Quantity::Complex => Values::Complex(image.voxels.clone()),
        Quantity::Snr => Values::Real(
            image
                .voxels
                .iter()
                .zip(noise()?)
                // Outside the sensitivity maps neither signal nor noise passes: 0 / 0 there is "no signal".
                .map(|(v, &std)| {
                    if *v == Complex32::ZERO && std == 0.0 {
                        0.0
                    } else {
                        v.norm() / std
                    }
                })
                .collect(),
        ),
        Quantity::NoiseStd => Values::Real(noise()?.to_vec()),
        Quantity::Gfactor => {
            let gfactor = image.gfactor.as_deref().ok_or_else(|| {
                unavailable(
                    "the method that made it gives no g-factor\n  try:    a parallel-imaging method (recon.method = \"sense\" or \"grappa\"), or leave gfactor out".into(),
                )
            })?;
            check_len("g-factor map", gfactor.len(), n)?;
            Values::Real(gfactor.to_vec())
        }
        Quantity::Sigma | Quantity::Abstention | Quantity::Bone
            if quantity != Quantity::Sigma || image.synthetic.is_some() =>
        {
            let synthetic = image.synthetic.as_deref();
            let map = synthetic.and_then(|s| match quantity {
                Quantity::Sigma => s.sigma.as_ref(),
                Quantity::Abstention => s.abstention.as_ref(),
                _ => s.bone.as_ref(),
            });
            let map = map.ok_or_else(|| {
                unavailable("only a synthetic image has it, fresh from its network (bone: a CT)\n  try:    leave it out".into())
            })?;
            check_len("map of the synthetic image", map.len(), n)?;
            Values::Real(map.clone())
        }
        Quantity::Domain => {
            let domain = image.synthetic.as_deref().and_then(|s| s.domain);
            let domain = domain.ok_or_else(|| {
                unavailable("only a synthetic image has it\n  try:    leave it out".into())
            })?;
            Values::Real(vec![domain; n])
        }
        Quantity::Sigma | Quantity::Removed | Quantity::Abstention | Quantity::Bone => {
            let denoised = image.denoised.as_ref().ok_or_else(|| {
                unavailable("no network has denoised it\n  try:    a protocol with [denoise], and look for denoise_failed among the image's marks".into())
            })?;
            check_len("map of the denoised image", denoised.sigma.len(), n)?;
            check_len("map of the denoised image", denoised.removed.len(), n)?;
            if quantity == Quantity::Sigma {
                Values::Real(denoised.sigma.clone())
            } else {
                Values::Complex(denoised.removed.clone())
            }
        }
        Quantity::Csm => {
            let csm = image.csm.as_ref().ok_or_else(|| {
                unavailable("the reconstruction kept no sensitivity maps\n  try:    a method that uses maps (recon.method = \"sense\"), with maps kept".into())
            })?;
            check_len(
                "sensitivity maps",
                csm.maps.len(),
                n * csm.n_sets * csm.n_coils,
            )?;
            Values::Complex(csm.maps.clone())
        }
    };
    check_finite(&values, image, quantity)?;
    Ok(values)
}

fn why_no_noise(image: &ReconImage) -> String {
    let noted = image
        .provenance
        .notes
        .iter()
        .find(|note| note.code.contains("noise"))
        .map_or_else(
            || "the noise of its voxels is not known (no noise readouts in the scan, or a method that does not carry noise)".to_owned(),
            |note| note.text.clone(),
        );
    format!("{noted}\n  try:    give a noise scan, or leave snr and noise_std out")
}

fn check_finite(
    values: &Values,
    image: &ReconImage,
    quantity: Quantity,
) -> Result<(), HandoffError> {
    let (count, first) = match values {
        Values::Real(values) => bad(values.iter().map(|v| v.is_finite())),
        Values::Complex(values) => bad(values.iter().map(|v| v.re.is_finite() && v.im.is_finite())),
    };
    if count == 0 {
        return Ok(());
    }
    let [nx, ny, nz] = image.geometry.matrix.map(|n| n.max(1));
    Err(HandoffError::NotFinite {
        quantity: quantity.name(),
        image: describe(image),
        count,
        first: [first / (nx * ny) % nz, first / nx % ny, first % nx],
    })
}

/// Number of `false`, and where the first stands.
fn bad(is_finite: impl Iterator<Item = bool>) -> (usize, usize) {
    let mut count = 0;
    let mut first = 0;
    for (i, ok) in is_finite.enumerate() {
        if !ok {
            if count == 0 {
                first = i;
            }
            count += 1;
        }
    }
    (count, first)
}

/// Values at the given percentiles (0 to 100, nearest rank) of all `values`.
///
/// An empty list gives `[0, 1]`; equal percentiles are pulled apart so that a window always has a width.
pub(super) fn window(values: &mut [f32], percentiles: [f32; 2]) -> [f32; 2] {
    if values.is_empty() {
        return [0.0, 1.0];
    }
    let rank = |p: f32| ((f64::from(p) / 100.0) * (values.len() - 1) as f64).round() as usize;
    let (i_low, i_high) = (rank(percentiles[0]), rank(percentiles[1]));
    let low = *values.select_nth_unstable_by(i_low, f32::total_cmp).1;
    let high = *values.select_nth_unstable_by(i_high, f32::total_cmp).1;
    if high > low {
        [low, high]
    } else {
        let pad = if low == 0.0 { 0.5 } else { low.abs() * 0.5 };
        [low - pad, high + pad]
    }
}
