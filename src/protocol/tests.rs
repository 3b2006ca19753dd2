//! Errors name the key, the value and what is allowed; overlays are typed; the printed keys are complete.

use super::*;

const HEAD: &str = "schema = 1\ntitle = \"t\"\nintended_use = \"research\"\n";

fn parse(body: &str, overlays: &[&str]) -> Result<Protocol, ProtocolError> {
    let overlays: Vec<String> = overlays.iter().map(|s| (*s).to_owned()).collect();
    Protocol::parse("p", &format!("{HEAD}{body}"), &overlays)
}

fn message(body: &str, overlays: &[&str]) -> String {
    parse(body, overlays).unwrap_err().to_string()
}

#[test]
fn unknown_key_is_named_with_its_table_and_the_nearest() {
    let m = message("[device]\nthread = 2\n", &[]);
    assert_eq!(
        m,
        "protocol p: device.thread: no such key; did you mean threads?; keys here: prefer, on_cuda_fault, threads, memory_budget_mib"
    );
    assert!(message("devise = 1\n", &[]).starts_with("protocol p: devise: no such key"));
}

#[test]
fn wrong_value_is_named_with_what_is_allowed() {
    let m = message("", &["pipeline.on_frame_error=fial"]);
    assert_eq!(
        m,
        "protocol p: pipeline.on_frame_error: \"fial\" is not allowed; did you mean fail?; allowed: fail, deliver_rest"
    );
    let m = message("", &["device.threads=many"]);
    assert!(m.contains("device.threads") && m.contains("many"), "{m}");
}

#[test]
fn overlays_are_typed_and_change_the_digest() {
    let plain = parse("", &[]).unwrap();
    let set = parse("", &["device.threads=3", "scan.acceleration={pe1=2}"]).unwrap();
    assert_eq!(set.file.device.threads, 3);
    assert_eq!(
        set.file.scan.acceleration,
        Some(schema::Acceleration { pe1: 2, pe2: 1 })
    );
    assert_ne!(plain.digest, set.digest);
    assert_eq!(plain.digest, parse("", &[]).unwrap().digest);
    assert!(matches!(
        parse("", &["nonsense"]),
        Err(ProtocolError::Overlay { .. })
    ));
    assert!(matches!(
        parse("", &["title.x=1"]),
        Err(ProtocolError::NotATable { .. })
    ));
}

#[test]
fn another_schema_is_refused() {
    let text = HEAD.replace("schema = 1", "schema = 2");
    assert!(matches!(
        Protocol::parse("p", &text, &[]),
        Err(ProtocolError::Schema { found: 2, .. })
    ));
}

#[test]
fn unknown_name_lists_names() {
    let m = Registry.find("defualt", &[]).unwrap_err().to_string();
    assert!(
        m.contains("did you mean default?") && m.contains("there are: default"),
        "{m}"
    );
}

#[test]
fn every_key_has_a_meaning_and_a_kind() {
    let entries = explain::entries();
    assert!(entries.len() > 10);
    for e in &entries {
        assert!(!e.meaning.is_empty(), "{} has no doc comment", e.key);
        assert_ne!(e.kind, "value", "{} has no kind", e.key);
    }
    let threads = entries.iter().find(|e| e.key == "device.threads").unwrap();
    assert_eq!(
        (threads.kind.as_str(), threads.default.as_str()),
        ("integer", "0")
    );
    let prefer = entries.iter().find(|e| e.key == "device.prefer").unwrap();
    assert_eq!(prefer.kind, "\"auto\", \"cpu\", \"cuda\"");
}
