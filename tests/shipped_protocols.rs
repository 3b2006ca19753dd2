//! Every protocol that ships parses, is registered under its stem, and is on the page that explains it.
//!
//! Promised to: a site that names a protocol in a script and expects it to be there, and to mean what the page says.

use cauda::protocol::{Protocol, Registry, explain};

use crate::support::{cauda_in, files, outputs, root};

/// A scan that a protocol is for.
fn phantom_for(protocol: &str) -> &'static str {
    match protocol {
        "grappa_r4" => {
            "simulate scan.h5 --set matrix=[64,64,1] --set n_coils=8 --set acceleration=[4,1] --set acs=[24,0]"
        }
        "cg_sense" => "simulate scan.h5 --preset random --set matrix=[64,64,1] --set n_coils=8",
        _ => {
            "simulate scan.h5 --set matrix=[64,64,1] --set n_coils=8 --set acceleration=[2,1] --set acs=[24,0]"
        }
    }
}

#[test]
fn all_plan_and_run_on_the_phantom() {
    for s in Registry.shipped() {
        let dir = tempfile::tempdir().unwrap();
        for line in [
            phantom_for(s.name).to_owned(),
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
    let made = cauda_in(dir.path(), phantom_for("default"));
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
