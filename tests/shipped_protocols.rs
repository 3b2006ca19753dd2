//! Every protocol that ships parses, is registered under its stem, and is on the page that explains it.
//!
//! Promised to: a site that names a protocol in a script and expects it to be there, and to mean what the page says.

use cauda::protocol::{Protocol, Registry, explain};

use crate::support::{cauda_in, files, outputs, root};

/// A scan that a protocol is for.
fn phantom_for(protocol: &str) -> String {
    let p = Registry.find_shipped(protocol, &[]).unwrap();
    if protocol == "cg_sense" {
        return "simulate scan.h5 --preset random --set matrix=[64,64,1] --set n_coils=8"
            .to_owned();
    }
    let [r1, r2] = match (&p.file.sequence, p.file.scan.acceleration) {
        (_, Some(a)) => [a.pe1, a.pe2],
        (Some(_), None) => [1, 1],
        (None, None) => [2, 1],
    };
    let (n2, acs2) = match p.file.scan.dimensions {
        Some(3) => (32, 16),
        _ => (1, 0),
    };
    format!(
        "simulate scan.h5 --set matrix=[64,64,{n2}] --set n_coils=8 --set acceleration=[{r1},{r2}] --set acs=[24,{acs2}]"
    )
}

#[test]
fn all_plan_and_run_on_the_phantom() {
    for s in Registry.shipped() {
        let dir = tempfile::tempdir().unwrap();
        for line in [
            phantom_for(s.name),
            format!("plan {} --like scan.h5", s.name),
            format!("recon scan.h5 -o out.npy -o out.h5 --protocol {}", s.name),
        ] {
            let output = cauda_in(dir.path(), &line);
            assert_eq!(
                output.status.code(),
                Some(0),
                "{}: {line}: {}",
                s.name,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        assert!(
            outputs(dir.path()).contains(&"out.h5".to_owned()),
            "{}",
            s.name
        );
    }
}

#[test]
fn a_scan_that_a_protocol_is_not_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let made = cauda_in(dir.path(), &phantom_for("default"));
    assert_eq!(made.status.code(), Some(0));
    let output = cauda_in(dir.path(), "recon scan.h5 -o out.npy --protocol grappa_r4");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(
        stderr.contains("scan.acceleration asks for 4x1, the scan has 2x1"),
        "{stderr}"
    );
    assert_eq!(outputs(dir.path()), ["scan.h5"]);
}

#[test]
fn the_registry_is_the_folder() {
    let mut there: Vec<String> = files(&root().join("protocols"), "toml")
        .iter()
        .map(|p| p.file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|stem| stem != "exams")
        .collect();
    let mut shipped: Vec<String> = Registry
        .shipped()
        .iter()
        .map(|s| s.name.to_owned())
        .collect();
    there.sort();
    shipped.sort();
    assert_eq!(there, shipped);
}

#[test]
fn all_parse() {
    for s in Registry.shipped() {
        let p = Protocol::parse(s.name, s.text, &[]).unwrap_or_else(|e| panic!("{e}"));
        assert!(!p.file.title.is_empty());
    }
}

#[test]
fn the_page_is_generated_from_the_source() {
    let kept = std::fs::read_to_string(root().join("protocols/README.md")).unwrap();
    assert!(
        kept.trim_end() == explain::readme().trim_end(),
        "protocols/README.md is stale: cargo run -- protocol explain --markdown > protocols/README.md"
    );
}

fn scan_s(name: &str) -> f64 {
    let p = Registry.find_shipped(name, &[]).unwrap();
    cauda::sequence::Timing::plan(p.sequence().unwrap())
        .unwrap()
        .scan_s
}

/// The savings that were published for fast protocols with learned reconstruction exist as pairs, by computed time.
#[test]
fn the_named_pairs_save_what_their_titles_say() {
    for (series, percent) in [
        ("lumbar_sag_t1", 40.0),
        ("lumbar_sag_t2", 52.0),
        ("lumbar_3d_t2", 54.0),
    ] {
        let fast = Registry
            .find_shipped(&format!("{series}_fast"), &[])
            .unwrap();
        assert!(
            fast.file
                .title
                .contains(&format!("{percent} % shorter than {series}_standard")),
            "{}",
            fast.file.title
        );
        let saved = 100.0
            * (1.0 - scan_s(&format!("{series}_fast")) / scan_s(&format!("{series}_standard")));
        assert!(
            (saved - percent).abs() <= 1.0,
            "{series} saves {saved:.2} %, needed {percent}"
        );
    }
}

#[test]
fn exams_are_of_shipped_protocols_and_the_fast_ones_are_faster() {
    let exams = Registry.exams().unwrap();
    let total = |name: &str| -> f64 { exams[name].protocols.iter().map(|p| scan_s(p)).sum() };
    for exam in exams.values() {
        assert!(!exam.title.is_empty() && !exam.protocols.is_empty());
    }
    for region in ["lumbar", "cervical"] {
        let (standard, fast) = (
            total(&format!("{region}_standard")),
            total(&format!("{region}_fast")),
        );
        assert!(fast < 0.65 * standard, "{region}: {standard} s, {fast} s");
    }
    assert!(total("lumbar_fast_synthetic") < total("lumbar_fast"));
}
