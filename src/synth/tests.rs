//! Against drawn patients, whose place is known, and networks that are arithmetic (`tests/data/synth`), by hand.

use std::sync::{Arc, OnceLock};

use num_complex::Complex32;

use super::grid::{Affine, Turn, Volume};
use super::register::{Rigid, register};
use super::role::{Contrast as Found, contrast, signal};
use super::*;
use crate::data::{AcquisitionStamps, Provenance};
use crate::model::RuntimeKind;
use crate::phantom::acquire::{
    AcquireParams, Block, Matter, Subject, noise_std, scanned_maps, with_noise,
};
use crate::phantom::spine::{Patient, Request};
use crate::sequence::{Contrast, SequenceParams};

fn sequence(contrast: Contrast, n: usize) -> SequenceParams {
    let (tr_ms, te_ms, echo_train_length) = match contrast {
        Contrast::T1w => (600.0, 10.0, 4),
        _ => (3500.0, 100.0, 19),
    };
    SequenceParams {
        contrast,
        field_strength_t: 1.5,
        matrix: [n, n],
        fov_mm: [280.0; 2],
        phase_oversampling: 0.0,
        n_slices: 11,
        slice_thickness_mm: 4.0,
        bandwidth_hz_per_pixel: 300.0,
        tr_ms,
        te_ms,
        echo_train_length,
        echo_spacing_ms: 10.0,
        ..SequenceParams::default()
    }
}

/// A patient's T1w and T2w, the latter as if the patient lay elsewhere by `rigid`, about the middle.
fn pair(seed: u64, n: usize, rigid: Option<&Rigid>) -> [Volume; 2] {
    let patient = Patient::draw(&Request {
        seed,
        ..Request::default()
    })
    .unwrap();
    let subject = Subject::new(patient, 1.5);
    let c = subject.centre_mm();
    [Contrast::T1w, Contrast::T2w].map(|contrast| {
        let s = sequence(contrast, n);
        let mm = 280.0 / n as f64;
        let mut block = Block {
            matrix: [s.n_slices, n, n],
            voxel_mm: [4.4, mm, mm],
            centre_mm: c,
            axes: [[-1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]],
        };
        let geometry = Geometry {
            matrix: [n, n, s.n_slices],
            voxel_mm: [mm as f32, mm as f32, 4.4],
            centre_mm: middle(&c),
            read_dir: [0.0, 1.0, 0.0],
            phase_dir: [0.0, 0.0, -1.0],
            slice_dir: [-1.0, 0.0, 0.0],
        };
        if let (Some(r), Contrast::T2w) = (rigid, contrast) {
            // Which anatomy is at a place of the scanner: the inverse of the motion.
            let m = r.affine().m;
            let back = |v: [f64; 3]| -> [f64; 3] {
                std::array::from_fn(|i| (0..3).map(|k| m[k][i] * v[k]).sum())
            };
            let off = back(r.shift_mm);
            block.centre_mm = std::array::from_fn(|i| c[i] - off[i]);
            block.axes = block.axes.map(back);
        }
        let mut maps =
            scanned_maps(&subject, &block, (std::slice::from_ref(&s), 0.0), seed).unwrap();
        let std = noise_std(&s, AcquireParams::default().snr);
        let values = with_noise(&maps.contrasts.remove(0), std, seed, 1);
        Volume { geometry, values }
    })
}

fn middle(c: &[f64; 3]) -> [f32; 3] {
    c.map(|v| v as f32)
}

/// The one pair that most tests look at: T2w moved.
fn moved() -> &'static [Volume; 2] {
    static PAIR: OnceLock<[Volume; 2]> = OnceLock::new();
    PAIR.get_or_init(|| pair(21, 112, Some(&motion())))
}

fn motion() -> Rigid {
    Rigid {
        centre_mm: [0.0; 3],
        shift_mm: [1.5, -2.0, 3.0],
        rotation_deg: [-2.0, 0.5, 1.0],
    }
}

/// A volume as a scan's images, its header with the words of its contrast.
fn series(volume: &Volume, name: &str, tr_te: Option<[f32; 2]>, patient: &str) -> Series {
    use ismrmrd::header::*;
    let header = Header {
        subject_information: Some(SubjectInformation {
            patient_id: Some(patient.into()),
            ..Default::default()
        }),
        measurement_information: Some(MeasurementInformation {
            patient_position: "HFS".into(),
            protocol_name: Some(name.into()),
            frame_of_reference_uid: Some("1.2.3".into()),
            ..Default::default()
        }),
        acquisition_system_information: Some(AcquisitionSystemInformation {
            system_field_strength_t: Some(1.5),
            ..Default::default()
        }),
        sequence_parameters: tr_te.map(|[tr, te]| SequenceParameters {
            tr: vec![tr],
            te: vec![te],
            echo_spacing: vec![10.0],
            ..Default::default()
        }),
        ..Default::default()
    };
    let scan = Scan {
        header: Arc::new(header),
        encodings: Vec::new(),
    };
    let g = volume.geometry;
    let [nx, ny, nz] = g.matrix;
    let image = |z: usize| ReconImage {
        key: FrameKey {
            // In another order than in space.
            slice_idx: ((z * 2) % nz + usize::from(z * 2 >= nz && nz.is_multiple_of(2))) as u16,
            ..FrameKey::default()
        },
        geometry: Geometry {
            matrix: [nx, ny, 1],
            voxel_mm: [g.voxel_mm[0], g.voxel_mm[1], 4.0],
            centre_mm: middle(&g.voxel_to_patient([(nx / 2) as f64, (ny / 2) as f64, z as f64])),
            ..g
        },
        table_position_mm: [0.0; 3],
        voxels: volume.values[z * nx * ny..][..nx * ny]
            .iter()
            .map(|v| Complex32::from_polar(*v, 0.3))
            .collect(),
        intensity: Intensity::WithNoise,
        noise_std: Some(vec![0.01; nx * ny]),
        gfactor: None,
        finer: [1.0; 3],
        denoised: None,
        synthetic: None,
        csm: None,
        stamps: AcquisitionStamps::default(),
        provenance: Provenance::default(),
    };
    let mut images: Vec<ReconImage> = (0..nz).map(image).collect();
    images.reverse();
    Series::of(&scan, &images).unwrap()
}

const T1: Option<[f32; 2]> = Some([600.0, 10.0]);
const T2: Option<[f32; 2]> = Some([3500.0, 100.0]);

fn exam() -> Exam {
    let [a, b] = moved();
    Exam::given(
        Some(series(a, "t1_tse_sag", T1, "P")),
        Some(series(b, "t2_tse_sag", T2, "P")),
    )
    .unwrap()
}

fn standin(params: &SynthParams) -> Synthesiser {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/synth");
    let params = SynthParams {
        fs_model: format!("{root}/synth_fs/model.toml"),
        ct_model: format!("{root}/synth_ct/model.toml"),
        ..params.clone()
    };
    Synthesiser::plan(&params, &mut |which| {
        Ok(Arc::new(Model::load(which, RuntimeKind::Onnx, 1)?))
    })
    .unwrap()
}

fn run(stage: &Synthesiser, exam: &Exam) -> (Report, Vec<(Scan, ReconImage)>) {
    let mut out = Vec::new();
    let report = stage
        .run(exam, &mut |scan, image| {
            out.push((scan.clone(), image));
            Ok(())
        })
        .unwrap();
    (report, out)
}

fn codes(notes: &[Note]) -> Vec<&str> {
    notes.iter().map(|n| n.code).collect()
}

#[test]
fn a_patient_who_moved_is_found_again() {
    for (seed, shift_mm, rotation_deg) in [
        (11, [0.0; 3], [0.0; 3]),
        (13, [-2.5, 3.0, -4.0], [2.0, -1.5, -3.0]),
        (14, [4.5, -4.8, 4.9], [-4.5, 3.0, 4.8]),
    ] {
        let [t1w, t2w] = pair(
            seed,
            160,
            Some(&Rigid {
                centre_mm: [0.0; 3],
                shift_mm,
                rotation_deg,
            }),
        );
        let truth = Rigid {
            centre_mm: t1w.geometry.centre_mm.map(f64::from),
            shift_mm,
            rotation_deg,
        };
        let body = t1w.body();
        let found = register(&t1w, &t2w, &body);
        assert_eq!(found, register(&t1w, &t2w, &body), "not the same twice");
        let [nx, ny, _] = t1w.geometry.matrix;
        for i in (0..body.len()).filter(|i| body[*i]).step_by(97) {
            let index = [i % nx, i / nx % ny, i / (nx * ny)].map(|i| i as f64);
            let p = t1w.geometry.voxel_to_patient(index);
            let (a, b) = (truth.at(p), found.rigid.at(p));
            let off: [f64; 3] = std::array::from_fn(|k| (a[k] - b[k]).abs());
            // A fifth of a pixel in the plane and of a millimetre across.
            let mm = f64::from(t1w.geometry.voxel_mm[0]);
            assert!(
                off[1] < 0.2 * mm && off[2] < 0.2 * mm && off[0] < 0.2,
                "{seed} {off:?} {found:?}"
            );
        }
        // Not found would be seen.
        assert!(found.information[1] > 1.0, "{found:?}");
    }
}

#[test]
fn blocks_are_turned_to_the_networks_axes_and_back() {
    let base = Geometry {
        matrix: [4, 3, 2],
        voxel_mm: [1.0, 2.0, 5.0],
        centre_mm: [3.0, -7.0, 11.0],
        read_dir: [0.0, 0.0, 1.0],
        phase_dir: [0.0, -1.0, 0.0],
        slice_dir: [1.0, 0.0, 0.0],
    };
    let straight = Geometry {
        read_dir: [0.0, 0.99, -0.141_067_36],
        phase_dir: [0.0, -0.141_067_36, -0.99],
        slice_dir: [-1.0, 0.0, 0.0],
        ..base
    };
    for g in [base, straight] {
        let volume = Volume {
            geometry: g,
            values: (0..24).map(|v| v as f32).collect(),
        };
        let (turn, tilt) = Turn::of(&g);
        assert!(tilt < 0.1);
        let turned = turn.there(&volume);
        let t = turned.geometry;
        assert!(t.read_dir[1] > 0.9 && t.phase_dir[2] < -0.9 && t.slice_dir[0] < -0.9);
        // Every value is where it was.
        let [nx, ny, nz] = t.matrix;
        let to_old = Affine::to_voxels(&g);
        for (i, v) in turned.values.iter().enumerate() {
            let index = [i % nx, i / nx % ny, i / (nx * ny)].map(|i| i as f64);
            let old = to_old.at(t.voxel_to_patient(index)).map(f64::round);
            assert_eq!(*v, (old[0] + 4.0 * (old[1] + 3.0 * old[2])) as f32);
        }
        for z in 0..nz {
            let (slice, back) = turn.back(z, &turned.values[z * nx * ny..][..nx * ny]);
            assert_eq!(back, volume.values[slice * 12..][..12]);
        }
    }
    let axial = Geometry {
        slice_dir: [0.0, 0.0, 1.0],
        read_dir: [1.0, 0.0, 0.0],
        phase_dir: [0.0, 1.0, 0.0],
        ..base
    };
    assert!(Turn::of(&axial).1 > 89.0);
}

#[test]
fn another_grid_gets_what_lies_there() {
    let g = Geometry {
        matrix: [20, 20, 5],
        voxel_mm: [1.0, 1.0, 4.0],
        centre_mm: [0.0; 3],
        read_dir: [0.0, 1.0, 0.0],
        phase_dir: [0.0, 0.0, -1.0],
        slice_dir: [-1.0, 0.0, 0.0],
    };
    // A plane through the place: any interpolation but a wrong one gives it back.
    let plane = |p: [f64; 3]| (200.0 + 3.0 * p[0] - 2.0 * p[1] + 0.5 * p[2]) as f32;
    let index = |i: usize| [i % 20, i / 20 % 20, i / 400].map(|i| i as f64);
    let volume = Volume {
        geometry: g,
        values: (0..2000)
            .map(|i| plane(g.voxel_to_patient(index(i))))
            .collect(),
    };
    let grid = Geometry {
        centre_mm: [1.3, -2.4, 0.7],
        read_dir: [0.0, 0.0, 1.0],
        phase_dir: [0.0, 1.0, 0.0],
        voxel_mm: [0.7, 0.9, 3.0],
        ..g
    };
    let map = Affine::to_voxels(&g).after(&Affine::of_voxels(&grid));
    let got = volume.resampled(&grid, &map);
    let mut n = 0;
    for (i, v) in got.values.iter().enumerate() {
        let p = grid.voxel_to_patient(index(i));
        let at = map.at(index(i));
        let is_inside = |k: usize, last: f64| (1.0..=last - 1.0).contains(&at[k]);
        if is_inside(0, 19.0) && is_inside(1, 19.0) && (0.0..=4.0).contains(&at[2]) {
            n += 1;
            assert!(got.is_there[i] && (v - plane(p)).abs() < 1e-3, "{at:?}");
        }
        assert_eq!(
            got.is_there[i],
            (0..3).all(|k| (-0.5..=[19.5, 19.5, 4.5][k]).contains(&at[k]))
        );
    }
    assert!(
        n > 300 && (0.4..0.9).contains(&got.noise_gain),
        "{n} {}",
        got.noise_gain
    );
    // Itself is left as it is.
    let same = volume.resampled(&g, &Affine::to_voxels(&g).after(&Affine::of_voxels(&g)));
    for (a, b) in same.values.iter().zip(&volume.values) {
        assert!((a - b).abs() < 1e-3);
    }
    assert!((same.noise_gain - 1.0).abs() < 1e-5);
}

#[test]
fn roles_are_read_from_times_and_names_and_nothing_is_guessed() {
    let facts = |name: &str, tr_te: Option<[f32; 2]>, ti: Option<f32>| Facts {
        name: name.into(),
        words: name.to_lowercase(),
        tr_ms: tr_te.map(|t| t[0]),
        te_ms: tr_te.map(|t| t[1]),
        ti_ms: ti,
        ..Facts::default()
    };
    let of = |name, tr_te, ti| contrast(&facts(name, tr_te, ti));
    assert_eq!(of("sag", T1, None), Found::T1w);
    assert_eq!(of("sag", T2, None), Found::T2w);
    assert_eq!(of("t1_tse_sag", None, None), Found::T1w);
    assert_eq!(of("Sag T2 FRFSE", None, None), Found::T2w);
    assert_eq!(of("sag", None, None), Found::Unstated);
    assert_eq!(of("t1 t2", None, None), Found::Unstated);
    for (name, tr_te, ti) in [
        ("t2_tse", T1, None),
        ("t1_tse", T2, None),
        ("sag", Some([3500.0, 12.0]), None),
        ("t2_tse_fs_sag", T2, None),
        ("t2_tse_dixon", T2, None),
        ("t2star", None, None),
        ("t2_tirm", T2, None),
        ("t2_tse", T2, Some(160.0)),
    ] {
        assert!(
            matches!(of(name, tr_te, ti), Found::Other(_)),
            "{name} {tr_te:?} {ti:?}"
        );
    }
}

#[test]
fn the_whole_set_comes_out_on_the_grid_of_t1w_and_marked() {
    let exam = exam();
    let t1w = exam.t1w.as_ref().unwrap();
    let stage = standin(&SynthParams {
        stir_ti_ms: 200.0,
        ..SynthParams::default()
    });
    let (report, out) = run(&stage, &exam);
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    let kinds = [SyntheticKind::Stir, SyntheticKind::T2fs, SyntheticKind::Ct];
    assert_eq!(report.made, kinds.map(|k| (k, 11)));
    assert_eq!(out.len(), 33);
    let rigid = report.registered.unwrap().rigid;
    for k in 0..3 {
        assert!(
            (rigid.shift_mm[k] - motion().shift_mm[k]).abs() < 0.5,
            "{rigid:?}"
        );
    }
    // Each leaves with its slice: STIR and T2FS side by side, then CT.
    let order: Vec<SyntheticKind> = out
        .iter()
        .map(|(_, i)| i.synthetic.as_ref().unwrap().kind)
        .collect();
    assert!(
        order[..22]
            .chunks(2)
            .all(|c| c == [SyntheticKind::Stir, SyntheticKind::T2fs])
    );

    let [t1, t2] = [&exam.t1w, &exam.t2w].map(|s| s.as_ref().unwrap());
    let scales = [t1, t2].map(|s| s.volume.percentile(0.995));
    let n = 112 * 112;
    let mut abstained = 0;
    for (scan, image) in &out {
        let s = image.synthetic.as_ref().unwrap();
        assert_eq!(
            (s.model.as_str(), s.version.as_str(), s.digest.len()),
            (
                if s.kind == SyntheticKind::Ct {
                    "synth_ct_standin"
                } else {
                    "synth_fs_standin"
                },
                "0",
                64
            )
        );
        assert_eq!(
            s.sources
                .iter()
                .map(|s| s.role.as_str())
                .collect::<Vec<_>>(),
            ["T1w", "T2w"]
        );
        // The slice is one of T1w, with its own thickness.
        let source = t1w
            .slices
            .iter()
            .find(|i| i.key.slice_idx == image.key.slice_idx)
            .unwrap();
        assert_eq!(image.geometry, source.geometry);
        assert_eq!(image.provenance.notes[0].code, "synthetic");
        assert!(image.provenance.notes[0].text.contains(s.kind.caution()));
        let named = scan.header.measurement_information.as_ref().unwrap();
        assert!(
            named
                .series_description
                .as_ref()
                .unwrap()
                .starts_with(s.kind.title())
        );
        assert_eq!(named.frame_of_reference_uid.as_deref(), Some("1.2.3"));
        let times = scan.header.sequence_parameters.as_ref().unwrap();
        match s.kind {
            SyntheticKind::Stir => assert_eq!((times.te[0], times.ti[0]), (60.0, 200.0)),
            SyntheticKind::T2fs => assert_eq!((times.te[0], times.ti.len()), (80.0, 0)),
            SyntheticKind::Ct => assert!(times.te.is_empty() && times.tr.is_empty()),
        }
        // By hand: sigma and abstention follow from T1w alone, which is not interpolated.
        let (sigma, abstention) = (s.sigma.as_ref().unwrap(), s.abstention.as_ref().unwrap());
        for i in 0..n {
            let a = source.voxels[i].norm() / scales[0];
            let want = match s.kind {
                SyntheticKind::Stir => None,
                SyntheticKind::T2fs => Some(0.2 * a * scales[1]),
                SyntheticKind::Ct => Some(40.0 + 100.0 * a),
            };
            if let Some(want) = want {
                assert!(
                    (sigma[i] - want).abs() < 1e-3 * want.abs() + 1e-5,
                    "{:?} {i}",
                    s.kind
                );
            }
            let must = match s.kind {
                SyntheticKind::Stir => a > 1.21,
                SyntheticKind::T2fs => a > 0.76,
                SyntheticKind::Ct => a > 0.91,
            };
            assert!(!must || abstention[i] == 1.0, "{:?} {i} {a}", s.kind);
            abstained += usize::from(abstention[i] == 1.0);
        }
        if s.kind == SyntheticKind::Ct {
            assert!(image.voxels.iter().any(|v| v.re < 0.0));
        }
    }
    assert!(abstained > 100 && abstained < 33 * n / 2, "{abstained}");
    // What T2w does not cover is said.
    assert!(codes(&report.notes).contains(&"synth_registered"));
    assert!(
        codes(&report.notes).contains(&"synth_outside_t2w"),
        "{:?}",
        report.notes
    );
    // With the patient where he was, all of it comes from the same places: STIR by hand.
    let [a, b] = pair(21, 112, None);
    let still = Exam::given(
        Some(series(&a, "t1", T1, "P")),
        Some(series(&b, "t2", T2, "P")),
    )
    .unwrap();
    let (_, out) = run(&stage, &still);
    let (a, b) = (a.smoothed(1.5), b.smoothed(1.5));
    let mid = 5;
    let (_, image) = &out[2 * mid];
    let got = Volume {
        geometry: Geometry {
            matrix: [112, 112, 1],
            ..a.geometry
        },
        values: image.voxels.iter().map(|v| v.re).collect(),
    };
    let (mut off, mut sum) = (0.0, 0.0);
    for i in 0..n {
        let at = mid * n + i;
        let want =
            (b.values[at] / scales[1] - 0.5 * a.values[at] / scales[0]).abs() * 1.2 * scales[1];
        off += f64::from((got.smoothed(1.5).values[0] * 0.0 + got.values[i] - want).abs());
        sum += f64::from(want.abs());
    }
    assert!(off / sum < 0.5, "{}", off / sum);
}

#[test]
fn the_ladder() {
    let [a, b] = moved();
    let whole = exam();
    let stage = standin(&SynthParams::default());
    let (t1w, t2w) = (whole.t1w.clone().unwrap(), whole.t2w.clone().unwrap());
    let refused = |exam: &Exam| -> (Vec<SyntheticKind>, String, Vec<String>) {
        let (report, out) = run(&stage, exam);
        let kinds: Vec<_> = report.refused.iter().map(|r| r.kind).collect();
        for (_, image) in &out {
            assert!(!kinds.contains(&image.synthetic.as_ref().unwrap().kind));
        }
        let why = report
            .refused
            .first()
            .map_or_else(String::new, |r| r.why.to_string());
        let notes = report.notes.iter().map(|n| n.code.to_owned()).collect();
        (kinds, why, notes)
    };
    let fs = vec![SyntheticKind::Stir, SyntheticKind::T2fs];
    let all = [fs.clone(), vec![SyntheticKind::Ct]].concat();

    // T1w alone: CT from it.
    let (kinds, why, notes) = refused(&Exam {
        t1w: Some(t1w.clone()),
        t2w: None,
    });
    assert_eq!(kinds, fs);
    assert!(
        why.contains("no T2w") && why.contains("SYNTHETIC STIR needs"),
        "{why}"
    );
    assert!(notes.contains(&"synth_without_t2w".to_owned()), "{notes:?}");
    // T2w alone: nothing.
    let (kinds, why, _) = refused(&Exam {
        t1w: None,
        t2w: Some(t2w.clone()),
    });
    assert_eq!(kinds, all);
    assert!(why.contains("no T1w"), "{why}");
    // Another patient, another study: nothing; another frame of reference: CT from T1w alone.
    let with = |change: &dyn Fn(&mut Facts)| {
        let mut t2w = t2w.clone();
        change(&mut t2w.facts);
        Exam {
            t1w: Some(t1w.clone()),
            t2w: Some(t2w),
        }
    };
    for (exam, word) in [
        (with(&|f| f.patient = Some("Q".into())), "patient"),
        (with(&|f| f.is_synthetic = true), "synthetic"),
    ] {
        let (kinds, why, _) = refused(&exam);
        assert_eq!(kinds, all);
        assert!(why.contains(word), "{why}");
    }
    let (kinds, why, notes) = refused(&with(&|f| f.frame_of_reference = Some("9.9".into())));
    assert_eq!(kinds, fs);
    assert!(
        why.contains("frame of reference") && notes.contains(&"synth_without_t2w".to_owned()),
        "{why}"
    );
    let (kinds, _, notes) = refused(&with(&|f| f.frame_of_reference = None));
    assert!(kinds.is_empty() && notes.contains(&"synth_frame_unstated".to_owned()));
    let (kinds, _, notes) = refused(&with(&|f| f.tr_ms = None));
    assert!(kinds.is_empty() && notes.contains(&"synth_times_assumed".to_owned()));
    // Exchanged: by the header, or, where that is silent, by the voxels; and twice the same.
    let swapped = Exam::given(Some(t2w.clone()), Some(t1w.clone())).unwrap_err();
    assert!(
        matches!(swapped, SynthError::Role { given: "T1w", .. }),
        "{swapped}"
    );
    let silent = |v: &Volume| series(v, "sag", None, "P");
    for (x, y) in [(b, a), (a, a), (b, b)] {
        let exam = Exam::given(Some(silent(x)), Some(silent(y))).unwrap();
        let (kinds, why, _) = refused(&exam);
        assert_eq!(kinds, all);
        assert!(why.contains("exchanged or alike"), "{why}");
    }
    let (kinds, _, _) = refused(&Exam::given(Some(silent(a)), Some(silent(b))).unwrap());
    assert!(kinds.is_empty());
    // Moved too far, for a site that allows less.
    let strict = standin(&SynthParams {
        max_shift_mm: 1.0,
        ..SynthParams::default()
    });
    let (report, _) = run(&strict, &whole);
    assert!(
        matches!(report.refused[0].why, SynthError::Motion { .. }),
        "{:?}",
        report.refused
    );
    assert_eq!(report.made, [(SyntheticKind::Ct, 11)]);
    // Half of the field of view.
    let mut half = t2w.clone();
    half.volume.geometry.matrix[2] = 5;
    half.volume.values.truncate(5 * 112 * 112);
    half.volume.geometry.centre_mm =
        middle(&t2w.volume.geometry.voxel_to_patient([56.0, 56.0, 2.0]));
    let (kinds, why, _) = refused(&Exam {
        t1w: Some(t1w.clone()),
        t2w: Some(half),
    });
    assert_eq!(kinds, fs);
    assert!(why.contains("% of the body"), "{why}");
    // A field that the stand-in does not know: everything abstains, and says so.
    let mut far = whole.clone();
    far.t1w.as_mut().unwrap().facts.field_strength_t = Some(7.0);
    let (report, out) = run(&stage, &far);
    assert!(
        codes(&report.notes).contains(&"synth_out_of_domain"),
        "{report:?}"
    );
    for (_, image) in &out {
        let s = image.synthetic.as_ref().unwrap();
        assert!(
            s.domain.unwrap() > 1.0 && s.abstention.as_ref().unwrap().iter().all(|a| *a == 1.0)
        );
        assert!(codes(&image.provenance.notes).contains(&"synth_out_of_domain"));
    }
    // An implant: nothing is said where there is no signal.
    let mut metal = whole.clone();
    for s in [&mut metal.t1w, &mut metal.t2w] {
        let v = &mut s.as_mut().unwrap().volume;
        for z in 3..8 {
            for y in 40..60 {
                v.values[(z * 112 + y) * 112 + 50..][..16].fill(0.0);
            }
        }
    }
    let (report, out) = run(&stage, &metal);
    assert!(
        codes(&report.notes).contains(&"synth_signal_void"),
        "{:?}",
        report.notes
    );
    let (_, image) = &out[10];
    assert_eq!(
        image
            .synthetic
            .as_ref()
            .unwrap()
            .abstention
            .as_ref()
            .unwrap()[50 * 112 + 57],
        1.0
    );
    // A network that is not there refuses its own images only.
    let params = SynthParams {
        ct_model: format!(
            "{}/tests/data/synth/synth_ct/model.toml",
            env!("CARGO_MANIFEST_DIR")
        ),
        fs_model: "synth_nothing".to_owned(),
        ..SynthParams::default()
    };
    let stage = Synthesiser::plan(&params, &mut |which| {
        Ok(Arc::new(Model::load(which, RuntimeKind::Onnx, 1)?))
    })
    .unwrap();
    let (report, _) = run(&stage, &whole);
    assert_eq!(report.made, [(SyntheticKind::Ct, 11)]);
    assert!(report.refused[0].why.to_string().contains("synth_nothing"));
}

#[test]
fn axial_slices_and_heaps_are_no_series() {
    let [a, _] = moved();
    let whole = series(a, "t1", T1, "P");
    let mut images: Vec<ReconImage> = whole.slices.iter().map(|i| (**i).clone()).collect();
    images.remove(4);
    let e = Series::of(&whole.scan, &images).unwrap_err();
    assert!(e.to_string().contains("from an even stack"), "{e}");
    assert!(matches!(
        Series::of(&whole.scan, &[]),
        Err(SynthError::NoSeries { .. })
    ));
    let mut axial = a.clone();
    axial.geometry.read_dir = [1.0, 0.0, 0.0];
    axial.geometry.phase_dir = [0.0, 1.0, 0.0];
    axial.geometry.slice_dir = [0.0, 0.0, 1.0];
    let exam = Exam::given(Some(series(&axial, "t1", T1, "P")), None).unwrap();
    let (report, out) = run(&standin(&SynthParams::default()), &exam);
    assert!(out.is_empty() && matches!(report.refused[2].why, SynthError::Plane { .. }));
}

#[test]
fn a_network_of_another_contract_is_refused() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/synth/synth_fs");
    let text = std::fs::read_to_string(format!("{root}/model.toml")).unwrap();
    let exam = exam();
    for (from, to) in [
        ("kind = \"synth_fs\"", "kind = \"synth_ct\""),
        ("slices = 3", "slices = 3\ntiny = true"),
        ("stir_sigma = 0.5\n", ""),
        ("mismatch = 0.2", "mismatch = nan"),
        ("[\"n\", 16]", "[\"n\", 17]"),
    ] {
        assert!(text.contains(from), "{from}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.toml");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        std::fs::copy(
            format!("{root}/model.onnx"),
            folder.path().join("model.onnx"),
        )
        .unwrap();
        let params = SynthParams {
            want: vec![SyntheticKind::Stir],
            fs_model: path.to_str().unwrap().to_owned(),
            ..SynthParams::default()
        };
        let stage = Synthesiser::plan(&params, &mut |which| {
            Ok(Arc::new(Model::load(which, RuntimeKind::Onnx, 1)?))
        })
        .unwrap();
        let (report, out) = run(&stage, &exam);
        assert!(out.is_empty() && report.refused.len() == 1, "{from}");
    }
    for params in [
        SynthParams {
            want: Vec::new(),
            ..SynthParams::default()
        },
        SynthParams {
            want: vec![SyntheticKind::Ct; 2],
            ..SynthParams::default()
        },
        SynthParams {
            stir_te_ms: f32::NAN,
            ..SynthParams::default()
        },
        SynthParams {
            max_shift_mm: 50.0,
            ..SynthParams::default()
        },
    ] {
        assert!(matches!(params.check(), Err(SynthError::Params { .. })));
    }
}

/// Fluid tells them apart in any patient; a wrong twin that looks at brightness alone would not.
#[test]
fn voxels_tell_t1w_from_t2w() {
    for seed in [31, 32, 33] {
        let [a, b] = pair(seed, 96, None);
        // As a surface coil sees it, too: ten times as bright at the back.
        let shaded = |v: &Volume| {
            let mut v = v.clone();
            for (i, value) in v.values.iter_mut().enumerate() {
                *value *= (2.3 * (i % 96) as f32 / 96.0).exp();
            }
            v
        };
        let body = a.body();
        assert_eq!(signal(&shaded(&a), &shaded(&b), &body), Ok(()));
        assert!(signal(&shaded(&b), &shaded(&a), &body).is_err());
        assert_eq!(signal(&a, &b, &body), Ok(()));
        assert!(signal(&b, &a, &body).is_err());
        assert!(signal(&a, &a, &body).is_err());
    }
}
