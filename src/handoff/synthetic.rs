//! What every format says of an image that was not measured, in one place: title, caution, maker, sources.
//!
//! Formats with a header say it there; the others (NIfTI beside its description, `.npy`, `.cfl`, PNG) get a `.json` beside
//! them. A reader of ours takes the mark from either, so that what is made from a marked image is marked.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{HandoffError, Quantity, deliver::DeliveredFile, deliver::Staging, stack::Stack};
use crate::data::{ReconImage, Scan, SourceSeries, Synthetic, SyntheticKind};

/// The mark of a series: any of its images has it.
pub(super) fn of<'a>(images: impl IntoIterator<Item = &'a ReconImage>) -> Option<&'a Synthetic> {
    images.into_iter().find_map(|i| i.synthetic.as_deref())
}

/// The mark of a stack.
pub(super) fn of_stack<'a>(stack: &Stack<'a>) -> Option<&'a Synthetic> {
    of(stack.frames.iter().flatten().copied())
}

/// Value 4 of Image Type, at most 16 letters.
pub(super) fn contrast(kind: SyntheticKind, quantity: Quantity) -> &'static str {
    match (quantity, kind) {
        (Quantity::Sigma, _) => "SYNTHETIC_SIGMA",
        (Quantity::Abstention, _) => "SYNTHETIC_ABST",
        (Quantity::Bone, _) => "SYNTHETIC_BONE",
        (Quantity::Domain, _) => "SYNTHETIC_DOMAIN",
        (_, SyntheticKind::Stir) => "SYNTHETIC_STIR",
        (_, SyntheticKind::T2fs) => "SYNTHETIC_T2FS",
        (_, SyntheticKind::Ct) => "SYNTHETIC_CT",
    }
}

/// A series' name that says what it is, whatever the header calls it.
pub(super) fn named(synthetic: Option<&Synthetic>, name: &str) -> String {
    match synthetic {
        Some(s) if !name.to_uppercase().contains("SYNTHETIC") => {
            format!("{} {name}", s.kind.title()).trim_end().to_owned()
        }
        _ => name.to_owned(),
    }
}

/// Whether a quantity is the CT itself, in HU.
pub(super) fn is_hounsfield(synthetic: Option<&Synthetic>, quantity: Quantity) -> bool {
    synthetic.is_some_and(|s| s.kind == SyntheticKind::Ct)
        && matches!(quantity, Quantity::Magnitude | Quantity::Real)
}

/// Unit of a quantity of a synthetic image.
pub(super) fn unit(synthetic: &Synthetic, quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Abstention | Quantity::Bone | Quantity::Domain => "1",
        _ if synthetic.kind == SyntheticKind::Ct => "HU",
        _ => "arbitrary",
    }
}

/// What stands beside a file, with the words of BIDS where it has any.
pub(super) fn sidecar(
    synthetic: &Synthetic,
    image: &ReconImage,
    quantity: Quantity,
    scan: &Scan,
) -> Value {
    let name = scan
        .header
        .measurement_information
        .as_ref()
        .and_then(|m| m.series_description.as_deref())
        .unwrap_or("");
    let times = super::timing::of(scan, usize::from(image.key.contrast));
    let seconds = |ms: Option<f32>| ms.map(|v| f64::from(v) / 1e3);
    let notes: Vec<String> = image
        .provenance
        .notes
        .iter()
        .map(|n| format!("{}: {}", n.code, n.text))
        .collect();
    json!({
        "SyntheticData": "YES",
        "SeriesDescription": named(Some(synthetic), name),
        "ImageComments": format!("{}. Research use.", synthetic.sentence()),
        "ImageType": ["DERIVED", "SECONDARY", "OTHER", contrast(synthetic.kind, quantity)],
        "ContentQualification": "RESEARCH",
        "Quantity": quantity.name(),
        "Units": unit(synthetic, quantity),
        "SyntheticKind": synthetic.kind,
        "AlgorithmName": synthetic.model,
        "AlgorithmVersion": synthetic.version,
        "AlgorithmDigest": synthetic.digest,
        "Domain": synthetic.domain,
        "Sources": synthetic.sources,
        "RepetitionTime": seconds(times.tr_ms),
        "EchoTime": seconds(times.te_ms),
        "InversionTime": seconds(times.ti_ms),
        "Notes": notes,
    })
}

/// Name of what stands beside a file.
pub(super) fn beside(path: &Path) -> PathBuf {
    let name = path
        .file_name()
        .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let lower = name.to_lowercase();
    let cut = if lower.ends_with(".nii.gz") {
        name.len() - 7
    } else {
        name.rfind('.').unwrap_or(name.len())
    };
    path.with_file_name(format!("{}.json", &name[..cut]))
}

/// Writes it, if the stack is marked.
pub(super) fn write_beside(
    staging: &mut Staging,
    stack: &Stack<'_>,
    quantity: Quantity,
    scan: &Scan,
    path: &Path,
) -> Result<(), HandoffError> {
    let Some(synthetic) = of_stack(stack) else {
        return Ok(());
    };
    let text = format!(
        "{:#}\n",
        sidecar(synthetic, stack.frames[0][0], quantity, scan)
    );
    let file = DeliveredFile {
        path: beside(path),
        format: "json",
        quantities: vec![quantity],
        n_slices: 0,
        bytes: 0,
        window: None,
    };
    staging.write(file, |out| std::io::Write::write_all(out, text.as_bytes()))
}

/// The mark from what stands beside a file.
pub(super) fn from_sidecar(value: &Value) -> Option<Synthetic> {
    if !value["SyntheticData"].as_str()?.eq_ignore_ascii_case("YES") {
        return None;
    }
    let text = |key: &str| value[key].as_str().unwrap_or("UNKNOWN").to_owned();
    Some(Synthetic {
        kind: serde_json::from_value(value["SyntheticKind"].clone())
            .ok()
            .unwrap_or_else(|| kind_of(&text("SeriesDescription"))),
        model: text("AlgorithmName"),
        version: text("AlgorithmVersion"),
        digest: text("AlgorithmDigest"),
        sources: serde_json::from_value::<Vec<SourceSeries>>(value["Sources"].clone())
            .unwrap_or_default(),
        sigma: None,
        abstention: None,
        bone: None,
        #[allow(clippy::cast_possible_truncation)] // storage precision
        domain: value["Domain"].as_f64().map(|v| v as f32),
    })
}

/// What kind a marked image is whose mark does not say so: from its name. CT is the one whose caution is strictest.
pub(super) fn kind_of(name: &str) -> SyntheticKind {
    let name = name.to_uppercase();
    if name.contains("STIR") {
        SyntheticKind::Stir
    } else if name.contains("T2FS") {
        SyntheticKind::T2fs
    } else {
        SyntheticKind::Ct
    }
}
