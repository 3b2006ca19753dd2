//! Every protocol that ships parses, is registered under its stem, and is on the page that explains it.
//!
//! Promised to: a site that names a protocol in a script and expects it to be there, and to mean what the page says.

use cauda::protocol::{Protocol, Registry, explain};

use crate::support::{files, root};

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
