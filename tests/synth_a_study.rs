//! Contrasts that nobody measured: to whoever reads them and must know it, and to whoever gave the wrong series and must be
//! told. The acquired images go out first, and are what they would have been.
//!
//! Through the binary and over the wire, with networks that are arithmetic (`tests/data/synth`).

use std::path::Path;

use ismrmrd::Meta;
use ismrmrd::wire::{Message, encode};

use crate::support::server::Running;
use crate::support::{cauda_in, data};

const SIZE: &str = "--set sequence.matrix=[128,96] --set sequence.n_slices=7 --set acquire.n_coils=6 --set acquire.n_depths=3";

fn good(dir: &Path, line: &str) -> serde_json::Value {
    let output = cauda_in(dir, line);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{line}: {said}");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// Exit code and words.
fn refused(dir: &Path, line: &str) -> (i32, String) {
    let output = cauda_in(dir, line);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), said)
}

/// T1w of a patient, and T2w after he moved.
fn study(dir: &Path, seed: u32) {
    for (name, series) in [("t1", 0), ("t2", 1)] {
        good(
            dir,
            &format!(
                "simulate --protocol lumbar_sag_{name}_fast --seed {seed} --series {series} {SIZE} -o {name}.h5 --force"
            ),
        );
    }
}

fn standins() -> String {
    let path = |name: &str| {
        data("synth")
            .join(name)
            .join("model.toml")
            .display()
            .to_string()
    };
    format!(
        "--set synth.fs_model={} --set synth.ct_model={}",
        path("synth_fs"),
        path("synth_ct")
    )
}

fn tag(path: &Path, tag: dicom_core::Tag) -> String {
    let object = dicom_object::open_file(path).unwrap();
    let element = object.element(tag).unwrap();
    element.to_str().unwrap().trim().to_owned()
}

#[test]
fn k_space_in_marked_contrasts_out_and_what_was_measured_first() {
    use dicom_dictionary_std::tags;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    study(dir, 7);
    let nets = standins();
    let made = good(dir, &format!("synth t1.h5 t2.h5 -o exam/ {nets} --json"));
    assert_eq!(made["made"].as_array().unwrap().len(), 3);
    assert_eq!(made["refused"].as_array().unwrap().len(), 0);
    let names: Vec<String> = made["delivered"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| {
            d["files"][0]["path"]
                .as_str()
                .unwrap()
                .split('/')
                .nth(1)
                .unwrap()
                .to_owned()
        })
        .collect();
    // What was measured is safe before anything is made up, and CT comes behind what waits for no CT.
    assert_eq!(names, ["t1w", "t2w", "stir", "t2fs", "ct"]);
    good(dir, &format!("recon t1.h5 -o alone/ {nets}"));
    let bytes = |p: &str| std::fs::read(dir.join(p)).unwrap();
    assert!(bytes("exam/t1w/magnitude-0003.dcm") == bytes("alone/magnitude-0003.dcm"));
    let (t1w, stir, ct) = (
        dir.join("exam/t1w/magnitude-0003.dcm"),
        dir.join("exam/stir/magnitude-0003.dcm"),
        dir.join("exam/ct/magnitude-0003.dcm"),
    );
    for mark in [&stir, &ct] {
        assert_eq!(tag(mark, tags::SYNTHETIC_DATA), "YES");
        for same in [
            tags::STUDY_INSTANCE_UID,
            tags::FRAME_OF_REFERENCE_UID,
            tags::PATIENT_ID,
            tags::IMAGE_POSITION_PATIENT,
            tags::IMAGE_ORIENTATION_PATIENT,
        ] {
            assert_eq!(tag(mark, same), tag(&t1w, same), "{same}");
        }
        assert_ne!(
            tag(mark, tags::SERIES_INSTANCE_UID),
            tag(&t1w, tags::SERIES_INSTANCE_UID)
        );
    }
    assert_eq!(tag(&t1w, tags::SYNTHETIC_DATA), "NO");
    assert_eq!(tag(&stir, tags::INVERSION_TIME), "220");
    assert!(tag(&stir, tags::SERIES_DESCRIPTION).contains("SYNTHETIC STIR"));
    assert_eq!(tag(&ct, tags::RESCALE_TYPE), "HU");
    // Its sources are the files that went out before it.
    let object = dicom_object::open_file(&stir).unwrap();
    let sources = object.element(tags::SOURCE_IMAGE_SEQUENCE).unwrap();
    let sources: Vec<String> = sources
        .items()
        .unwrap()
        .iter()
        .map(|i| {
            i.element(tags::REFERENCED_SOP_INSTANCE_UID)
                .unwrap()
                .to_str()
                .unwrap()
                .trim()
                .to_owned()
        })
        .collect();
    assert_eq!(sources.len(), 14);
    assert!(sources.contains(&tag(&t1w, tags::SOP_INSTANCE_UID)));

    // From finished images as from k-space, whatever they are kept in.
    let by_file = good(
        dir,
        &format!("synth exam/t1w exam/t2w -o again.nii.gz {nets} --json"),
    );
    let shift = |v: &serde_json::Value| -> Vec<f64> {
        let list = v["registered"]["shift_mm"].as_array().unwrap();
        list.iter().map(|v| v.as_f64().unwrap()).collect()
    };
    for (a, b) in shift(&made).iter().zip(shift(&by_file)) {
        assert!((a - b).abs() < 0.3, "{made} {by_file}");
    }
    let sidecar: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("again_stir.json")).unwrap()).unwrap();
    assert_eq!(sidecar["SyntheticData"], "YES");
    // Nothing is made from what was made.
    let (code, said) = refused(
        dir,
        &format!("synth exam/t1w again_ct.nii.gz -o no.npy {nets}"),
    );
    assert_eq!(code, 3);
    assert!(
        said.contains("synthetic") || said.contains("SYNTHETIC"),
        "{said}"
    );
    // A second run is told that outputs exist.
    let (code, _) = refused(
        dir,
        &format!("synth exam/t1w exam/t2w -o again.nii.gz {nets}"),
    );
    assert_ne!(code, 0);
}

#[test]
fn wrong_sets_are_refused_with_words_and_degraded_with_marks() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    study(dir, 8);
    let nets = standins();
    // Exchanged.
    let (code, said) = refused(dir, &format!("synth t2.h5 t1.h5 -o a.npy {nets}"));
    assert_eq!(code, 3);
    assert!(
        said.contains("was given as T1w") && said.contains("T1w first"),
        "{said}"
    );
    // By then what was measured is out.
    assert!(dir.join("a_t1w.npy").is_file() && dir.join("a_t2w.npy").is_file());
    // Exchanged, and nothing in the header: .nii without a name and times.
    good(dir, "recon t1.h5 -o x.nii");
    good(dir, "recon t2.h5 -o y.nii");
    for name in ["x.nii", "y.nii"] {
        let mut bytes = std::fs::read(dir.join(name)).unwrap();
        bytes[148..228].fill(0);
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    let (code, said) = refused(dir, &format!("synth y.nii x.nii -o b.npy {nets}"));
    assert_eq!(code, 3);
    assert!(said.contains("exchanged or alike"), "{said}");
    good(dir, &format!("synth x.nii y.nii -o b.npy {nets}"));
    // One of another patient.
    std::fs::rename(dir.join("t1.h5"), dir.join("one.h5")).unwrap();
    study(dir, 9);
    let (code, said) = refused(dir, &format!("synth one.h5 t2.h5 -o c.npy {nets}"));
    assert_eq!(code, 3);
    assert!(said.contains("not of one patient"), "{said}");
    // T1w alone: CT, marked; exit code 1, since STIR was asked for too.
    let (code, said) = refused(dir, &format!("synth t1.h5 -o d.npy {nets}"));
    assert_eq!(code, 1);
    assert!(
        said.contains("no SYNTHETIC STIR") && said.contains("T1w alone"),
        "{said}"
    );
    assert!(dir.join("d_ct.npy").is_file() && !dir.join("d_stir.npy").exists());
    // Networks that are not there are named.
    let (code, said) = refused(
        dir,
        "synth t1.h5 t2.h5 -o e.npy --set synth.fs_model=nothing --want stir",
    );
    assert_eq!(code, 4);
    assert!(said.contains("nothing"), "{said}");
    // The patient moved farther than the site allows.
    let (code, said) = refused(
        dir,
        &format!(
            "synth t1.h5 t2.h5 -o f.npy {nets} --set synth.max_shift_mm=0 --set synth.max_rotation_deg=0 --want stir"
        ),
    );
    assert!(code == 3 && said.contains("moved between"), "{code} {said}");
}

/// A scan as a client sends it, with keys laid over the server's protocol.
fn stream(dir: &Path, name: &str, wait_s: f64) -> Vec<u8> {
    good(
        dir,
        &format!("convert {name}.h5 {name}_{wait_s}.mrd --force"),
    );
    let mut bytes = Vec::new();
    let text = format!("[synth]\nwait_s = {wait_s:?}\n");
    encode(&Message::ConfigText(text), &mut bytes).unwrap();
    bytes.extend(std::fs::read(dir.join(format!("{name}_{wait_s}.mrd"))).unwrap());
    bytes
}

#[test]
fn the_scan_that_completes_a_study_gets_what_is_made_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    study(dir, 10);
    let server = Running::start(|_| {});
    let first = server.talk(&stream(dir, "t1", 600.0));
    first.assert_good(7);
    assert!(
        first.words.iter().any(|w| w.contains("waits up to 600 s")),
        "{:?}",
        first.words
    );
    let second = server.talk(&stream(dir, "t2", 600.0));
    // Seven acquired, then image, error and abstention of STIR and T2FS, and bone beside those of CT.
    second.assert_good(7 + 7 * (3 + 3 + 4));
    let is_marked = |i: &ismrmrd::Image| {
        let meta = Meta::parse(&i.attributes).unwrap();
        meta.get_str("SyntheticData") == Some("YES")
    };
    assert!(second.images[..7].iter().all(|i| !is_marked(i)));
    assert!(second.images[7..].iter().all(is_marked));
    assert!(
        second.images[7..]
            .iter()
            .all(|i| i.head.image_series_index > 1000)
    );
    assert!(
        second
            .words
            .iter()
            .any(|w| w.contains("not for exclusion of marrow lesions")),
        "{:?}",
        second.words
    );
    // On the grid of T1w, slice by slice.
    let places = |images: &[ismrmrd::Image], series: u16| -> Vec<[f32; 3]> {
        let these = images
            .iter()
            .filter(|i| i.head.image_series_index == series);
        let mut places: Vec<[f32; 3]> = these.map(|i| i.head.position).collect();
        places.sort_by(|a, b| a[0].total_cmp(&b[0]));
        places
    };
    assert_eq!(places(&second.images, 1001), places(&first.images, 1));

    // The set is used up: another T2w waits again.
    let third = server.talk(&stream(dir, "t2", 1.0));
    third.assert_good(7);
    // Whoever comes too late is told; his images are there all the same.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    let late = server.talk(&stream(dir, "t1", 600.0));
    late.assert_good(7);
    assert!(
        late.words
            .iter()
            .any(|w| w.starts_with("INFO") || w.contains("given up")),
        "{:?}",
        late.words
    );
    assert!(
        late.words
            .iter()
            .any(|w| w.contains("that set was given up")),
        "{:?}",
        late.words
    );
    // A protocol without the table makes nothing up.
    let mut plain = Vec::new();
    encode(&Message::ConfigFile("default".into()), &mut plain).unwrap();
    plain.extend(std::fs::read(dir.join("t2_1.mrd")).unwrap());
    server.talk(&plain).assert_good(7);
}
