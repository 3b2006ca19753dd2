//! What the digital spine promises: sizes, truth, findings, no leaks.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::*;
use crate::phantom::parameters::parameters;

fn healthy(region: Region, seed: u64) -> Patient {
    Patient::draw(&Request {
        region,
        seed,
        wear: Some(0.0),
        ..Request::default()
    })
    .unwrap()
}

fn with(region: Region, seed: u64, findings: &[&str]) -> Patient {
    Patient::draw(&Request {
        region,
        seed,
        wear: Some(0.0),
        age_years: Some(40.0),
        pathology: findings.iter().map(|f| f.parse().unwrap()).collect(),
    })
    .unwrap()
}

/// Voxels of a sagittal and an axial plane through the middle of the stack.
fn planes(patient: &Patient, pixel: f32) -> Vec<Voxel> {
    let c = patient.stack_centre_mm();
    (0..2 * 90 * 90usize)
        .into_par_iter()
        .map(|i| {
            let (plane, r, q) = (i / 8100, (i / 90) % 90, i % 90);
            let (a, b) = ((r as f32 - 45.0) * pixel, (q as f32 - 45.0) * pixel);
            patient.at(if plane == 0 {
                [c[0], c[1] + a, c[2] + b]
            } else {
                [c[0] + a, c[1] + b, c[2]]
            })
        })
        .collect()
}

#[test]
fn sizes_of_500_seeds_are_those_of_the_tables() {
    let p = parameters().unwrap();
    for (region, m, levels) in [
        (Region::Lumbar, &p.lumbar, 3..8),
        (Region::Cervical, &p.cervical, 2..7),
    ] {
        let all: Vec<Vec<Measurements>> = (0..500u64)
            .into_par_iter()
            .map(|seed| {
                let patient = healthy(region, seed);
                levels.clone().map(|i| patient.measure_shapes(i)).collect()
            })
            .collect();
        for (k, i) in levels.enumerate() {
            let mean = |f: &dyn Fn(&Measurements) -> f64| {
                all.iter().map(|x| f(&x[k])).sum::<f64>() / all.len() as f64
            };
            let rows = [
                (
                    "anterior",
                    mean(&|x| x.body_height_mm[0]),
                    m.anterior_height_mm[i],
                    m.height_sd_mm,
                ),
                (
                    "posterior",
                    mean(&|x| x.body_height_mm[2]),
                    m.posterior_height_mm[i],
                    m.height_sd_mm,
                ),
                (
                    "superior",
                    mean(&|x| x.endplate_ap_mm[0]),
                    m.superior_length_mm[i],
                    m.length_sd_mm,
                ),
                (
                    "inferior",
                    mean(&|x| x.endplate_ap_mm[1]),
                    m.inferior_length_mm[i],
                    m.length_sd_mm,
                ),
                (
                    "pedicle width",
                    mean(&|x| x.pedicle_width_mm[0]),
                    m.pedicle_width_mm[i],
                    m.pedicle_width_sd_mm,
                ),
                (
                    "pedicle height",
                    mean(&|x| x.pedicle_height_mm[1]),
                    m.pedicle_height_mm[i],
                    m.pedicle_height_sd_mm,
                ),
                (
                    "disc front",
                    mean(&|x| x.disc_height_mm[0]),
                    m.disc_anterior_mm[i],
                    m.disc_sd_mm,
                ),
                (
                    "disc middle",
                    mean(&|x| x.disc_height_mm[1]),
                    m.disc_middle_mm[i],
                    m.disc_sd_mm,
                ),
                (
                    "disc back",
                    mean(&|x| x.disc_height_mm[2]),
                    m.disc_posterior_mm[i],
                    m.disc_sd_mm,
                ),
                (
                    "canal width",
                    mean(&|x| x.canal_transverse_mm),
                    m.canal_width_mm[i],
                    m.canal_width_sd_mm,
                ),
            ];
            for (what, found, table, sd) in rows {
                assert!(
                    (found - table).abs() < sd,
                    "{region:?} {} {what}: {found:.2}, table {table} +- {sd}",
                    m.names[i]
                );
            }
        }
    }
}

#[test]
fn areas_and_passages_are_those_of_people() {
    let all: Vec<Truth> = (0..24u64)
        .into_par_iter()
        .map(|s| healthy(Region::Lumbar, s).truth())
        .collect();
    let mean = |f: &dyn Fn(&LevelTruth) -> f64, k: usize| {
        all.iter().map(|t| f(&t.levels[k])).sum::<f64>() / all.len() as f64
    };
    for k in 1..5 {
        // Canal near constant from L1 to L5, 15.6 +- 2.1 mm at L5 (Cook 2021).
        let ap = mean(&|l| l.measurements.canal_ap_mm, k);
        assert!((13.5..18.5).contains(&ap), "{k} {ap}");
        // A healthy sac is wider than the limit of stenosis.
        let area = mean(&|l| l.measurements.dural_sac_area_mm2, k);
        assert!((120.0..230.0).contains(&area), "{k} {area}");
        let height = mean(&|l| l.measurements.foramen_height_mm[0], k);
        assert!((15.0..26.0).contains(&height), "{k} {height}");
        let width = mean(&|l| l.measurements.foramen_width_mm[1], k);
        assert!((5.0..14.0).contains(&width), "{k} {width}");
    }
    let lordosis: f64 = (1..5)
        .map(|k| mean(&|l| l.measurements.segmental_lordosis_deg, k))
        .sum();
    assert!((25.0..60.0).contains(&lordosis), "{lordosis}");
}

#[test]
fn no_two_seeds_are_alike_and_one_seed_is_the_same_on_any_number_of_threads() {
    let mut seen = BTreeSet::new();
    for seed in 0..40u64 {
        let truth = serde_json::to_string(healthy(Region::Lumbar, seed).draft()).unwrap();
        assert!(seen.insert(truth), "{seed}");
    }
    let of = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let patient = Patient::draw(&Request {
                region: Region::Lumbar,
                seed: 5,
                pathology: Pathology::random(Region::Lumbar, 5),
                ..Request::default()
            })
            .unwrap();
            (
                planes(&patient, 2.0),
                serde_json::to_string(&patient.truth().draft).unwrap(),
            )
        })
    };
    let one = of(1);
    assert_eq!(one, of(2));
    assert_eq!(one, of(7));
}

#[test]
fn transverse_processes_are_outside_the_canal_or_are_none() {
    for seed in 0..100 {
        for region in [Region::Lumbar, Region::Cervical] {
            for level in &healthy(region, seed).draft.levels {
                let reach = level.transverse_mm;
                let is_outside = reach == 0.0 || reach > 0.5 * level.canal_width_mm + 2.0;
                assert!(is_outside, "{} of seed {seed}: {reach} mm", level.name);
            }
        }
    }
}

#[test]
fn every_structure_is_somewhere() {
    let mut seen = BTreeSet::new();
    for patient in [
        with(Region::Lumbar, 2, &["metal@L4"]),
        with(Region::Cervical, 2, &[]),
    ] {
        let [x, y, z] = patient.extent_mm();
        let n = [60usize, 60, 110];
        let places: Vec<Structure> = (0..n.iter().product())
            .into_par_iter()
            .map(|i: usize| {
                let at = |k: usize, lim: [f32; 2], of: usize| {
                    lim[0] + (lim[1] - lim[0]) * (k as f32 + 0.5) / of as f32
                };
                // Denser about the spine.
                let c = patient.stack_centre_mm();
                let p = if i.is_multiple_of(2) {
                    [
                        at(i % 60, x, 60),
                        at((i / 60) % 60, y, 60),
                        at(i / 3600, z, n[2]),
                    ]
                } else {
                    [
                        c[0] - 30.0 + (i % 60) as f32,
                        c[1] - 40.0 + 1.7 * ((i / 60) % 60) as f32,
                        at(i / 3600, z, n[2]),
                    ]
                };
                patient.at(p).structure
            })
            .collect();
        seen.extend(places);
    }
    for s in Structure::ALL {
        assert!(seen.contains(&s), "{s:?}");
    }
}

#[test]
fn stenosis_narrows_the_sac_with_its_severity() {
    for seed in [3, 8] {
        let area = |findings: &[&str]| {
            with(Region::Lumbar, seed, findings).truth().levels[4]
                .measurements
                .dural_sac_area_mm2
        };
        let (none, mild, severe) = (
            area(&[]),
            area(&["central_stenosis:1@L4"]),
            area(&["central_stenosis:3@L4"]),
        );
        assert!(none > mild && mild > severe, "{none} {mild} {severe}");
        assert!(severe < 100.0, "{severe}");
        let left = with(Region::Lumbar, seed, &["foraminal_stenosis:3@L4-left"]).truth();
        let m = &left.levels[4].measurements;
        assert!(m.foramen_width_mm[1] < 0.7 * m.foramen_width_mm[0], "{m:?}");
        assert_eq!(left.levels[4].grades.facet[1], 2);
    }
}

#[test]
fn fractures_lose_the_height_of_their_grade() {
    for (severity, low, high) in [(1, 0.15, 0.28), (2, 0.25, 0.38), (3, 0.40, 0.55)] {
        let before = with(Region::Lumbar, 4, &[])
            .measure_shapes(3)
            .body_height_mm;
        let after = with(
            Region::Lumbar,
            4,
            &[&format!("fracture_traumatic:{severity}@L1")],
        )
        .measure_shapes(3)
        .body_height_mm;
        let lost = 1.0 - after[0] / before[0];
        assert!((low..high).contains(&lost), "{severity}: {lost}");
    }
}

#[test]
fn every_finding_is_in_the_picture_or_refused_with_what_would_do() {
    use pathology::Kind;
    for kind in Kind::ALL {
        for region in [Region::Lumbar, Region::Cervical] {
            let request = Request {
                region,
                seed: 9,
                pathology: vec![kind.name().parse().unwrap()],
                ..Request::default()
            };
            let Ok(patient) = Patient::draw(&request) else {
                assert!(region == Region::Cervical, "{kind:?}");
                continue;
            };
            let truth = patient.truth();
            assert!(
                truth.lesions.iter().any(|l| l.name == kind.name()),
                "{kind:?}"
            );
            let plain = Patient::draw(&Request {
                pathology: Vec::new(),
                ..request.clone()
            })
            .unwrap();
            let changes_shape = plain.draft() != patient.draft();
            let volume = truth
                .lesions
                .iter()
                .find_map(|l| l.centre_mm.zip(l.half_mm))
                .is_some_and(|(c, h)| {
                    (0..8000).any(|i: usize| {
                        let at = |k: usize| (k as f32 / 9.5 - 1.0) * 1.1;
                        let q = [at(i % 20), at((i / 20) % 20), at(i / 400)];
                        patient
                            .at([0, 1, 2].map(|k| c[k] + q[k] * h[k].max(1.0)))
                            .lesion
                            > 0
                    })
                });
            assert!(
                changes_shape || volume || kind == Kind::Metal,
                "{kind:?} {region:?}: nothing changed"
            );
        }
    }
    let wrong = Patient::draw(&Request {
        region: Region::Lumbar,
        seed: 1,
        pathology: vec!["modic1@C5".parse().unwrap()],
        ..Request::default()
    })
    .unwrap_err()
    .to_string();
    assert!(wrong.contains("L4") && wrong.contains("C5"), "{wrong}");
}

/// Mean absolute error of the best line through (x, y).
fn residual(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let (mx, my) = (
        points.iter().map(|p| p.0).sum::<f64>() / n,
        points.iter().map(|p| p.1).sum::<f64>() / n,
    );
    let sxy: f64 = points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum();
    let sxx: f64 = points.iter().map(|p| (p.0 - mx).powi(2)).sum();
    points
        .iter()
        .map(|p| (p.1 - my - sxy / sxx * (p.0 - mx)).abs())
        .sum::<f64>()
        / n
}

#[test]
fn t1w_does_not_tell_the_density_of_bone() {
    // What T1w sees of marrow is its fat and its T1; at one age the error of HU from it has the floor 0.8 x 40 HU.
    let points = |leak: bool| -> Vec<(f64, f64)> {
        (0..400u64)
            .map(|seed| {
                let patient = Patient::draw(&Request {
                    seed,
                    age_years: Some(60.0),
                    ..Request::default()
                })
                .unwrap();
                let l = &patient.draft().levels[5];
                let m = &patient.materials(1.5)[usize::from(patient.matters.of(Tissue::Marrow))];
                let fat = patient.fat_pool(1.5);
                let s = |t1: f32| 1.0 - f64::from(-570.0 / t1).exp();
                let t1w = f64::from(m.pd)
                    * ((1.0 - l.marrow_fat) * s(m.water_t1_ms) + l.marrow_fat * s(fat.t1_ms));
                (
                    t1w,
                    if leak {
                        300.0 - 250.0 * l.marrow_fat
                    } else {
                        l.marrow_hu
                    },
                )
            })
            .collect()
    };
    let error = residual(&points(false));
    assert!((28.0..40.0).contains(&error), "{error}");
    // The wrong twin: mineral as a function of fat.
    assert!(residual(&points(true)) < 28.0);
}

#[test]
fn materials_follow_field_and_table() {
    let patient = healthy(Region::Lumbar, 1);
    let (low, high) = (patient.materials(1.5), patient.materials(3.0));
    let p = parameters().unwrap();
    for (a, b) in low.iter().zip(&high) {
        let row = &p.tissue[&a.tissue];
        let ratio = row.t1_ms[1] / row.t1_ms[0];
        assert!(
            (f64::from(b.water_t1_ms / a.water_t1_ms) - ratio).abs() < 0.35,
            "{a:?}"
        );
        assert!(a.water_t2star_ms <= a.water_t2_ms * 1.3, "{a:?}");
    }
    assert_eq!(low[usize::from(patient.matters.of(Tissue::Csf))].pd, 1.0);
    assert_eq!(patient.at([0.0, 900.0, 0.0]).structure, Structure::Outside);
    assert_eq!(
        low[usize::from(patient.at([0.0, 900.0, 0.0]).material)].tissue,
        Tissue::Air
    );
}
