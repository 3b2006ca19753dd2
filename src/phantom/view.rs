//! Pictures of a patient without a scanner: what an ideal, noise-free scan of each contrast, a CT and the labels show in
//! planes through the spine. For looking, and for seeing at once what a seed or a finding is.

use super::acquire::{Block, Subject, tissue_maps};
use super::spine::Patient;
use super::{PhantomError, Structure};
use crate::sequence::{Contrast, FatMethod, FatParams, Region, SequenceParams};

/// A plane through the patient: pixel `[row, column]` lies at `centre + row * down + column * across`, from its middle.
#[derive(Clone, Debug, PartialEq)]
pub struct Plane {
    /// Name.
    pub name: &'static str,
    /// Its middle, LPS, mm.
    pub centre_mm: [f32; 3],
    /// Direction of the rows, unit length.
    pub down: [f32; 3],
    /// Direction of the columns, unit length.
    pub across: [f32; 3],
    /// Width and height of the picture, mm.
    pub fov_mm: f32,
}

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// An ideal scan.
    Scan(Contrast),
    /// CT number.
    Ct,
    /// Structures in colours, lesions in red.
    Labels,
}

impl Show {
    /// All, in the order of a sheet.
    pub const ALL: [Self; 6] = [
        Self::Scan(Contrast::T1w),
        Self::Scan(Contrast::T2w),
        Self::Scan(Contrast::Stir),
        Self::Scan(Contrast::T2fs),
        Self::Ct,
        Self::Labels,
    ];
}

/// The planes of a sheet: sagittal through the middle and through the foramina of both sides, axial through a disc and
/// through pedicles, coronal through the bodies.
pub fn planes(patient: &Patient) -> Vec<Plane> {
    let c = patient.stack_centre_mm();
    let (sagittal, axial, side, level, down) = match patient.draft().region {
        Region::Lumbar => (270.0, 165.0, 17.0, 6, 21.0),
        Region::Cervical => (220.0, 135.0, 13.0, 4, 8.0),
    };
    let mut out: Vec<Plane> = [
        ("middle", 0.0),
        ("right foramina", -side),
        ("left foramina", side),
    ]
    .map(|(name, x)| Plane {
        name,
        centre_mm: [c[0] + x, c[1], c[2]],
        down: [0.0, 0.0, -1.0],
        across: [0.0, 1.0, 0.0],
        fov_mm: sagittal,
    })
    .into();
    if let Some((o, w)) = patient.disc_frame(level) {
        // Along the disc; the picture's middle lies at the canal.
        let down_dir = [0.0, w[2], -w[1]];
        for (name, up) in [("disc", 0.0), ("pedicles", down)] {
            out.push(Plane {
                name,
                centre_mm: [0, 1, 2].map(|k| o[k] + up * w[k] + 14.0 * down_dir[k]),
                down: down_dir,
                across: [1.0, 0.0, 0.0],
                fov_mm: axial,
            });
        }
    }
    out.push(Plane {
        name: "coronal",
        centre_mm: [c[0], c[1] - 12.0, c[2]],
        down: [0.0, 0.0, -1.0],
        across: [1.0, 0.0, 0.0],
        fov_mm: sagittal,
    });
    out
}

/// The scan that a sheet shows for a contrast.
fn sequence(contrast: Contrast, field_strength_t: f64) -> SequenceParams {
    let base = SequenceParams {
        contrast,
        field_strength_t,
        ..SequenceParams::default()
    };
    match contrast {
        Contrast::T1w => SequenceParams {
            tr_ms: 600.0,
            te_ms: 10.0,
            echo_train_length: 3,
            echo_spacing_ms: 10.0,
            refocusing_deg: 150.0,
            n_slices: 1,
            ..base
        },
        Contrast::Stir => SequenceParams {
            tr_ms: 4000.0,
            te_ms: 60.0,
            // Nulls fat of T1 260 and 350 ms.
            ti_ms: Some(180.0 + 42.0 * (field_strength_t - 1.5)),
            echo_train_length: 11,
            echo_spacing_ms: 10.0,
            refocusing_deg: 150.0,
            n_slices: 1,
            ..base
        },
        Contrast::T2fs => SequenceParams {
            te_ms: 83.2,
            echo_train_length: 15,
            n_slices: 1,
            fat: FatParams {
                method: FatMethod::Chess,
                ..FatParams::default()
            },
            ..base
        },
        _ => SequenceParams {
            n_slices: 1,
            ..base
        },
    }
}

/// Pictures of one plane, `[show][row * n + column]`: signal relative to CSF's proton density, HU, or the label plus 32
/// times the lesion. `n x n` pixels; each is the mean of four places in it, labels those of its middle.
///
/// # Errors
/// [`PhantomError`] if a scan of the sheet is impossible at this field strength.
pub fn pictures(
    patient: &Patient,
    plane: &Plane,
    n: usize,
    field_strength_t: f64,
    shows: &[Show],
) -> Result<Vec<Vec<f32>>, PhantomError> {
    let subject = Subject::new(patient.clone(), field_strength_t);
    let sequences: Vec<SequenceParams> = shows
        .iter()
        .filter_map(|show| match show {
            Show::Scan(contrast) => Some(sequence(*contrast, field_strength_t)),
            _ => None,
        })
        .collect();
    let pixel_mm = f64::from(plane.fov_mm) / n as f64;
    let (down, across) = (plane.down.map(f64::from), plane.across.map(f64::from));
    let block = Block {
        matrix: [1, n, n],
        voxel_mm: [pixel_mm; 3],
        centre_mm: plane.centre_mm.map(f64::from),
        axes: [
            std::array::from_fn(|i| {
                let (j, k) = ((i + 1) % 3, (i + 2) % 3);
                across[j] * down[k] - across[k] * down[j]
            }),
            down,
            across,
        ],
    };
    let maps = tissue_maps(&subject, &block, (&sequences, 0.0), 4, patient.draft().seed)?;
    let labels = maps.label.iter().zip(&maps.lesion);
    let labels: Vec<f32> = labels.map(|(l, s)| f32::from(l + 32 * s)).collect();
    let mut scans = maps.contrasts.into_iter();
    Ok(shows
        .iter()
        .map(|show| match show {
            Show::Scan(_) => scans.next().unwrap_or_default(),
            Show::Ct => maps.hu.clone(),
            Show::Labels => labels.clone(),
        })
        .collect())
}

/// Grey or colour of a value: scans between 0 and a high percentile of what is there, CT from -200 to 700 HU.
pub fn colours(show: Show, values: &[f32]) -> Vec<[u8; 3]> {
    let (low, high) = match show {
        Show::Ct => (-200.0, 700.0),
        _ => {
            let mut sorted: Vec<f32> = values.iter().copied().filter(|v| *v > 0.02).collect();
            sorted.sort_by(f32::total_cmp);
            let top = sorted
                .get(sorted.len().saturating_sub(1) * 995 / 1000)
                .copied();
            (0.0, top.unwrap_or(1.0).max(1e-6))
        }
    };
    values
        .iter()
        .map(|&v| match show {
            Show::Labels => label(v),
            _ => {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
                let g = (255.0 * ((v - low) / (high - low)).clamp(0.0, 1.0)).round() as u8;
                [g; 3]
            }
        })
        .collect()
}

fn label(v: f32) -> [u8; 3] {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small whole numbers
    let code = v as usize;
    if code >= 32 {
        return [255, 40, 30];
    }
    match Structure::ALL.get(code) {
        None | Some(Structure::Outside) => [0; 3],
        Some(_) => {
            // Neighbouring numbers get distant hues.
            let hue = (code * 7 % 30) as f32 / 30.0 * 6.0;
            let x = (1.0 - (hue % 2.0 - 1.0).abs()) * 190.0 + 50.0;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 255
            let x = x as u8;
            match code * 7 % 30 / 5 {
                0 => [240, x, 50],
                1 => [x, 240, 50],
                2 => [50, 240, x],
                3 => [50, x, 240],
                4 => [x, 50, 240],
                _ => [240, 50, x],
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::spine::Request;
    use super::*;

    /// Mean of a picture where its labels are of a structure.
    fn mean(picture: &[f32], labels: &[f32], of: Structure) -> f32 {
        let values: Vec<f32> = picture
            .iter()
            .zip(labels)
            .filter(|(_, l)| **l == f32::from(of as u8))
            .map(|(v, _)| *v)
            .collect();
        assert!(values.len() > 20, "{of:?}: {}", values.len());
        values.iter().sum::<f32>() / values.len() as f32
    }

    #[test]
    fn each_contrast_ranks_tissues_as_a_radiologist_expects() {
        for (region, seed) in [(Region::Lumbar, 3), (Region::Cervical, 4)] {
            let patient = Patient::draw(&Request {
                region,
                seed,
                wear: Some(0.0),
                age_years: Some(45.0),
                ..Request::default()
            })
            .unwrap();
            for field in [1.5, 3.0] {
                let plane = &planes(&patient)[0];
                let p = pictures(&patient, plane, 220, field, &Show::ALL).unwrap();
                let [t1, t2, stir, t2fs, ct, labels] = [0, 1, 2, 3, 4, 5].map(|i| &p[i]);
                let fat = |x| mean(x, labels, Structure::Subcutaneous);
                let marrow = |x| mean(x, labels, Structure::VertebralBody);
                let csf = |x| mean(x, labels, Structure::DuralSac);
                let nucleus = |x| mean(x, labels, Structure::Nucleus);
                assert!(fat(t1) > marrow(t1) && marrow(t1) > csf(t1), "T1w");
                assert!(csf(t2) > nucleus(t2) && nucleus(t2) > marrow(t2), "T2w");
                assert!(csf(stir) > marrow(stir) && marrow(stir) > fat(stir), "STIR");
                // Beside air the field is off and fat is left.
                assert!(
                    fat(t2fs) < 0.5 * fat(t2) && csf(t2fs) > 3.0 * marrow(t2fs),
                    "T2FS"
                );
                assert!(
                    fat(ct) < 0.0 && marrow(ct) > 50.0 && csf(ct).abs() < 40.0,
                    "CT"
                );
            }
        }
    }

    #[test]
    fn contrasts_are_those_of_real_images() {
        // Real: T2w TSE of C6 (TPTBox sample, Apache-2.0), means in its masks: CSF 181, cord 69, corpus 64. T2 fat-sat:
        // marrow to cord 0.42, oedema to cord 0.97 (contrast ratios -0.407 +- 0.023, -0.015 +- 0.056, Asian Spine J 1363).
        let seeds = 0..16u64;
        let rows: Vec<[f32; 4]> = seeds
            .clone()
            .map(|seed| {
                let patient = Patient::draw(&Request {
                    region: Region::Cervical,
                    seed,
                    wear: Some(0.0),
                    age_years: Some(50.0),
                    pathology: vec!["modic1:3@C5".parse().unwrap()],
                })
                .unwrap();
                let plane = &planes(&patient)[0];
                let p = pictures(&patient, plane, 160, 3.0, &Show::ALL).unwrap();
                let (t2, t2fs, labels) = (&p[1], &p[3], &p[5]);
                let of = |x: &[f32], s| mean(x, labels, s);
                let cord = of(t2fs, Structure::Cord);
                let lesion: Vec<f32> = t2fs
                    .iter()
                    .zip(labels)
                    .filter(|(_, l)| **l >= 32.0)
                    .map(|(v, _)| *v)
                    .collect();
                let csf = of(t2, Structure::DuralSac);
                [
                    of(t2, Structure::Cord) / csf,
                    of(t2, Structure::VertebralBody) / csf,
                    of(t2fs, Structure::VertebralBody) / cord,
                    lesion.iter().sum::<f32>() / lesion.len() as f32 / cord,
                ]
            })
            .collect();
        let n = rows.len() as f32;
        let real = [0.38, 0.35, 0.42, 0.97];
        for (k, real) in real.into_iter().enumerate() {
            let mean = rows.iter().map(|r| r[k]).sum::<f32>() / n;
            let sd = (rows.iter().map(|r| (r[k] - mean).powi(2)).sum::<f32>() / n).sqrt();
            assert!(
                (mean - real).abs() < sd.max(0.03),
                "{k}: {mean} +- {sd}, real {real}"
            );
        }
    }
}
