//! The numbers of the digital spine: `parameters.toml`, where each table names its source.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;

use super::Tissue;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    pub(crate) tissue: BTreeMap<Tissue, TissueRow>,
    pub(crate) jitter: Jitter,
    pub(crate) fat_pool: FatPoolRow,
    pub(crate) age: Age,
    pub(crate) lumbar: Morphometry,
    pub(crate) cervical: Morphometry,
}

/// One tissue. Pairs of T1 are for 1.5 and 3 T.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TissueRow {
    pub(crate) pd: f64,
    pub(crate) fat: f64,
    #[serde(default)]
    pub(crate) fat_sd: f64,
    pub(crate) t1_ms: [f64; 2],
    pub(crate) t2_ms: f64,
    pub(crate) t2_range_ms: Option<[f64; 2]>,
    pub(crate) t2_rel_sd: Option<f64>,
    pub(crate) t2star_ms: f64,
    /// Mean and standard deviation from patient to patient.
    pub(crate) hu: [f64; 2],
    #[allow(dead_code)] // for readers of the file
    source: String,
}

/// Spread from patient to patient where a tissue states none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Jitter {
    #[allow(dead_code)]
    source: String,
    pub(crate) pd_rel: f64,
    pub(crate) t1_rel: f64,
    pub(crate) t2_rel: f64,
}

/// The one pool of fat.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FatPoolRow {
    #[allow(dead_code)]
    source: String,
    pub(crate) t1_ms: [f64; 2],
    pub(crate) t1_range_ms: [[f64; 2]; 2],
    pub(crate) t2_ms: f64,
    pub(crate) t2_range_ms: [f64; 2],
}

/// What years change.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Age {
    #[allow(dead_code)]
    source: String,
    pub(crate) years: [f64; 2],
    pub(crate) marrow_fat_at_45: f64,
    pub(crate) marrow_fat_per_year: f64,
    pub(crate) marrow_fat_male: f64,
    pub(crate) marrow_fat_sd: f64,
    pub(crate) marrow_hu_at_30: f64,
    pub(crate) marrow_hu_per_year: f64,
    pub(crate) marrow_hu_sd: f64,
    pub(crate) muscle_fat_at_38: f64,
    pub(crate) muscle_fat_per_year: f64,
    pub(crate) muscle_fat_sd: f64,
}

/// Sizes of one region; arrays go from head to feet, discs stand below their vertebra.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Morphometry {
    #[allow(dead_code)]
    source: String,
    pub(crate) names: Vec<String>,
    pub(crate) anterior_height_mm: Vec<f64>,
    pub(crate) posterior_height_mm: Vec<f64>,
    pub(crate) height_sd_mm: f64,
    pub(crate) superior_length_mm: Vec<f64>,
    pub(crate) inferior_length_mm: Vec<f64>,
    pub(crate) length_sd_mm: f64,
    pub(crate) width_mm: Vec<f64>,
    pub(crate) pedicle_width_mm: Vec<f64>,
    pub(crate) pedicle_width_sd_mm: f64,
    pub(crate) pedicle_height_mm: Vec<f64>,
    pub(crate) pedicle_height_sd_mm: f64,
    pub(crate) canal_ap_mm: Vec<f64>,
    pub(crate) canal_ap_sd_mm: f64,
    pub(crate) canal_width_mm: Vec<f64>,
    pub(crate) canal_width_sd_mm: f64,
    pub(crate) disc_anterior_mm: Vec<f64>,
    pub(crate) disc_middle_mm: Vec<f64>,
    pub(crate) disc_posterior_mm: Vec<f64>,
    pub(crate) disc_sd_mm: f64,
    pub(crate) flavum_mm: Vec<f64>,
    pub(crate) flavum_sd_mm: f64,
    pub(crate) lamina_mm: Vec<f64>,
    pub(crate) spinous_length_mm: Vec<f64>,
    pub(crate) transverse_reach_mm: Vec<f64>,
    pub(crate) root_mm: Vec<f64>,
    pub(crate) root_sd_mm: f64,
    pub(crate) endplate_concavity_mm: Vec<f64>,
    pub(crate) facet_tilt_deg: Vec<f64>,
    pub(crate) base_tilt_deg: f64,
    pub(crate) base_tilt_sd_deg: f64,
    pub(crate) base_vertebra: usize,
    pub(crate) cord_ap_mm: Vec<f64>,
    pub(crate) cord_width_mm: Vec<f64>,
    pub(crate) conus_level: f64,
    pub(crate) conus_level_sd: f64,
}

/// The file, parsed once. A test proves that the file that ships parses.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn parameters() -> Result<&'static Parameters, &'static str> {
    static FILE: OnceLock<Result<Parameters, String>> = OnceLock::new();
    FILE.get_or_init(|| toml::from_str(include_str!("parameters.toml")).map_err(|e| e.to_string()))
        .as_ref()
        .map_err(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_parses_and_every_array_has_one_entry_per_vertebra() {
        let p = parameters().unwrap();
        for m in [&p.lumbar, &p.cervical] {
            for a in [
                &m.anterior_height_mm,
                &m.posterior_height_mm,
                &m.superior_length_mm,
                &m.inferior_length_mm,
                &m.width_mm,
                &m.pedicle_width_mm,
                &m.pedicle_height_mm,
                &m.canal_ap_mm,
                &m.canal_width_mm,
                &m.disc_anterior_mm,
                &m.disc_middle_mm,
                &m.disc_posterior_mm,
                &m.flavum_mm,
                &m.lamina_mm,
                &m.spinous_length_mm,
                &m.transverse_reach_mm,
                &m.root_mm,
                &m.endplate_concavity_mm,
                &m.facet_tilt_deg,
                &m.cord_ap_mm,
                &m.cord_width_mm,
            ] {
                assert_eq!(a.len(), m.names.len(), "{a:?}");
            }
            assert!(m.base_vertebra < m.names.len());
        }
        for t in p.tissue.values() {
            if let Some([low, high]) = t.t2_range_ms {
                assert!((low..=high).contains(&t.t2_ms), "{t:?}");
            }
        }
    }
}
