//! The laws of the house that a compiler cannot see: who may name whom, and that the map shows every room.
//!
//! Promised to: everyone who opens one room and wants to know that nothing else moves.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{files, root};

/// The import law: room, and what it may name as `crate::...` or `ismrmrd::...`.
///
/// `data` may name `ismrmrd` because a `Scan` carries its header. `source` opens any file and yields what `ismrmrd`
/// would, so it names nothing else of ours. `phantom` must never name `recon`: a simulator that calls the
/// reconstruction's own operators proves nothing.
const LAW: &[(&str, &[&str])] = &[
    ("data", &["ismrmrd"]),
    ("device", &[]),
    ("num", &["device"]),
    ("model", &["data", "num", "device"]),
    ("source", &["data", "ismrmrd"]),
    ("ingest", &["data", "num", "device", "ismrmrd"]),
    ("recon", &["data", "num", "device", "model"]),
    ("denoise", &["data", "num", "device", "model"]),
    ("synth", &["data", "num", "device", "model"]),
    ("handoff", &["data", "ismrmrd"]),
    ("metrics", &["data"]),
    ("sequence", &[]),
    ("phantom", &["data", "num", "sequence", "ismrmrd"]),
    (
        "protocol",
        &[
            "data", "ingest", "recon", "denoise", "synth", "handoff", "sequence", "device",
        ],
    ),
    (
        "pipeline",
        &[
            "data", "source", "ingest", "recon", "denoise", "synth", "model", "handoff",
            "sequence", "protocol", "metrics", "device", "ismrmrd",
        ],
    ),
    (
        "server",
        &[
            "data", "synth", "handoff", "sequence", "protocol", "pipeline", "metrics", "device",
            "ismrmrd",
        ],
    ),
    (
        "cli",
        &[
            "data", "source", "ingest", "recon", "handoff", "protocol", "metrics", "device",
            "ismrmrd", "phantom", "sequence", "num", "pipeline", "server", "model", "denoise",
            "synth",
        ],
    ),
];

/// Rooms named in `text`: `crate::room` and `ismrmrd::`, also inside `use crate::{a::X, b::Y}`.
fn named(text: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .filter(|l| !l.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut out = BTreeSet::new();
    let word = |s: &str| -> String {
        s.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    for (at, _) in code.match_indices("crate::") {
        let rest = code[at + 7..].trim_start();
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (1, true);
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => start = true,
                    c if !c.is_whitespace() && start && depth == 1 => {
                        out.insert(word(&group[i..]));
                        start = false;
                    }
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            out.insert(word(rest));
        }
    }
    for (at, _) in code.match_indices("ismrmrd::") {
        let before = code[..at].chars().next_back();
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            out.insert("ismrmrd".to_owned());
        }
    }
    out
}

/// Code without the test modules: tests of a room may use any other as an oracle.
fn without_tests(text: &str) -> &str {
    let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    &text[..end]
}

fn rooms() -> BTreeMap<String, Vec<std::path::PathBuf>> {
    let src = root().join("src");
    let mut out: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for path in files(&src, "rs") {
        let below = path.strip_prefix(&src).unwrap();
        let is_package = below.starts_with("ismrmrd") || below.starts_with("model/torch");
        if below.components().count() < 2 || is_package {
            continue;
        }
        let room = below.components().next().unwrap();
        out.entry(room.as_os_str().to_string_lossy().into_owned())
            .or_default()
            .push(path);
    }
    out
}

fn violations(room: &str, path: &str, text: &str) -> Vec<String> {
    let allowed = LAW
        .iter()
        .find(|(r, _)| *r == room)
        .map(|(_, a)| *a)
        .unwrap_or_else(|| panic!("room {room} has no row in the import law"));
    let all: BTreeSet<&str> = LAW.iter().map(|(r, _)| *r).chain(["ismrmrd"]).collect();
    named(without_tests(text))
        .into_iter()
        .filter(|n| all.contains(n.as_str()) && n != room && !allowed.contains(&n.as_str()))
        .map(|n| format!("{path}: {room} names {n}"))
        .collect()
}

#[test]
fn no_room_names_what_it_may_not() {
    let mut found = Vec::new();
    for (room, paths) in rooms() {
        for path in paths {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if matches!(name.as_str(), "tests.rs" | "testing.rs")
                || path.components().any(|c| c.as_os_str() == "tests")
            {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            found.extend(violations(&room, &path.display().to_string(), &text));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_format_package_names_nothing_of_ours() {
    for path in files(&root().join("src/ismrmrd/src"), "rs") {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("cauda::"), "{}", path.display());
    }
}

/// Wrong twins: the checker must see each of these.
#[test]
fn the_checker_rejects_what_it_should() {
    for (room, text) in [
        ("recon", "use crate::ingest::Ingest;"),
        ("recon", "use crate::{data::Frame, handoff::write};"),
        ("num", "fn f(x: crate::data::Frame) {}"),
        (
            "phantom",
            "use crate::{\n    num::fft,\n    recon::{grappa, csm},\n};",
        ),
        ("handoff", "fn f() { crate::recon::plan() }"),
        ("device", "use ismrmrd::Header;"),
        ("data", "use crate::num::fft::Fft;"),
    ] {
        assert_eq!(violations(room, "x.rs", text).len(), 1, "{room}: {text}");
    }
    for (room, text) in [
        ("recon", "use crate::{data::{Frame, Scan}, num::fft};"),
        ("recon", "// see crate::ingest for why"),
        (
            "recon",
            "#[cfg(test)]\nmod tests { use crate::phantom::Scan; }",
        ),
        ("source", "use ismrmrd::{Header, Limits};"),
        ("recon", "use crate::recon::params::ReconParams;"),
    ] {
        assert!(violations(room, "x.rs", text).is_empty(), "{room}: {text}");
    }
}

#[test]
fn every_file_opens_with_what_it_is() {
    for path in files(&root().join("src"), "rs") {
        let text = std::fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap_or("");
        let is_front_page = first.contains("include_str!");
        assert!(
            first.starts_with("//!") || is_front_page,
            "{}: the first line is {first:?}, needed: //! and what the file is",
            path.display()
        );
    }
}

/// Every folder of `src/` has exactly one heading ``### `folder` `` in the map, and the map names no other.
#[test]
fn the_map_shows_every_room_once() {
    let map = std::fs::read_to_string(root().join("src/README.md")).unwrap();
    let mut shown: Vec<&str> = map
        .lines()
        .filter_map(|l| l.strip_prefix("### `"))
        .filter_map(|l| l.split('`').next())
        .collect();
    shown.sort_unstable();
    let mut there: Vec<String> = std::fs::read_dir(root().join("src"))
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    there.sort_unstable();
    assert_eq!(shown, there);
}

/// The map's table of the import law says what this file enforces.
#[test]
fn the_map_states_the_law() {
    let map = std::fs::read_to_string(root().join("src/README.md")).unwrap();
    for (room, allowed) in LAW {
        let row = format!(
            "| `{room}` | {} |",
            if allowed.is_empty() {
                "nothing".to_owned()
            } else if *room == "cli" {
                "anything".to_owned()
            } else {
                allowed
                    .iter()
                    .map(|a| format!("`{a}`"))
                    .collect::<Vec<_>>()
                    .join(" ")
            }
        );
        assert!(map.contains(&row), "src/README.md lacks the row\n{row}");
    }
}

/// A kernel is known by its head and its row; its cases are `tests/kernels.rs`'s to demand.
#[test]
fn every_kernel_source_has_its_head_and_its_row() {
    let page = std::fs::read_to_string(root().join("kernels/README.md")).unwrap();
    let mut n_sources = 0;
    for entry in std::fs::read_dir(root().join("kernels")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "cu") {
            continue;
        }
        n_sources += 1;
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            page.contains(&format!("| `{name}` |")),
            "{name} has no row in kernels/README.md"
        );
        let text = std::fs::read_to_string(&path).unwrap();
        for field in [
            "door",
            "in",
            "out",
            "launch",
            "requires",
            "tolerance",
            "emulated",
        ] {
            assert!(
                text.contains(&format!("\n// {field:<9} ")),
                "the head of {name} lacks {field:?}"
            );
        }
    }
    assert!(n_sources > 0, "there is no kernel");
}

/// The emulator needs a C++ compiler, which users do not.
#[test]
fn only_tests_depend_on_the_emulator() {
    let manifest: toml::Table = std::fs::read_to_string(root().join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let has = |section: &str, package: &str| {
        let table = manifest[section].as_table().unwrap();
        table.contains_key(package)
    };
    for package in ["kernel-emu", "emulated-card"] {
        assert!(has("dev-dependencies", package) && !has("dependencies", package));
    }
}

#[test]
fn the_top_level_is_what_was_agreed() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "LICENSE",
        "README.md",
        ".gitignore",
        ".ci",
        ".github",
        ".git",
        "src",
        "kernels",
        "protocols",
        "benches",
        "tests",
        "scripts", // below: made by tools, ignored by git
        "target",
        "out",
        ".venv",
    ];
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(
            allowed.contains(&name.as_str()),
            "{name} does not belong on the top level"
        );
    }
}
