//! Every key with its meaning, type, default: from the doc comments of the parameter structs themselves.
//!
//! One source for `cauda protocol explain` and `protocols/README.md`, so that neither can go stale.

use serde_json::Value;

use super::{ProtocolFile, schema};

/// One key or table of a protocol.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Entry {
    /// Dotted key.
    pub key: String,
    /// `table`, `integer`, `number`, `boolean`, `string`, `list`, or the allowed words.
    pub kind: String,
    /// Default as TOML; empty when required, absent or a table.
    pub default: String,
    /// What it means, with unit.
    pub meaning: String,
}

/// All keys in the order of the file, tables before their keys.
pub fn entries() -> Vec<Entry> {
    let root = schemars::schema_for!(ProtocolFile).to_value();
    let defaults = schema::defaults();
    let mut out = Vec::new();
    walk(&root, &root, "", &defaults, &mut out);
    out
}

fn walk(root: &Value, node: &Value, prefix: &str, defaults: &Value, out: &mut Vec<Entry>) {
    let node = resolve(root, node);
    let Some(properties) = node.get("properties").and_then(Value::as_object) else {
        return;
    };
    let mut tables = Vec::new();
    for (name, property) in properties {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        let target = resolve(root, property);
        let default = defaults.get(name).unwrap_or(&Value::Null);
        let meaning = text(property).or_else(|| text(target)).unwrap_or_default();
        if target.get("properties").is_some() {
            tables.push((key, meaning, target, default));
            continue;
        }
        out.push(Entry {
            kind: kind(root, target),
            default: toml_text(default),
            meaning,
            key,
        });
    }
    // As in a TOML file: the keys of a table stand before the tables below it.
    for (key, meaning, target, default) in tables {
        out.push(Entry {
            kind: "table".to_owned(),
            default: String::new(),
            meaning,
            key: key.clone(),
        });
        walk(root, target, &key, default, out);
    }
}

/// Follows `$ref`, single-entry `allOf`, and the non-null side of an `anyOf`.
fn resolve<'a>(root: &'a Value, node: &'a Value) -> &'a Value {
    if let Some(path) = node.get("$ref").and_then(Value::as_str) {
        let pointer = path.trim_start_matches('#');
        return root.pointer(pointer).map_or(node, |n| resolve(root, n));
    }
    for many in ["allOf", "anyOf"] {
        if let Some(list) = node.get(many).and_then(Value::as_array)
            && let Some(inner) = list
                .iter()
                .find(|n| n.get("type").and_then(Value::as_str) != Some("null"))
        {
            return resolve(root, inner);
        }
    }
    node
}

fn text(node: &Value) -> Option<String> {
    node.get("description")
        .and_then(Value::as_str)
        .map(|t| t.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn kind(root: &Value, node: &Value) -> String {
    let mut words = Vec::new();
    allowed_words(root, node, &mut words);
    if !words.is_empty() {
        return words.join(", ");
    }
    let simple = match node.get("type") {
        Some(Value::String(t)) => t.as_str(),
        Some(Value::Array(list)) => list
            .iter()
            .filter_map(Value::as_str)
            .find(|t| *t != "null")
            .unwrap_or("value"),
        _ => "value",
    };
    if simple == "array" {
        let item = node
            .get("items")
            .or_else(|| node.get("prefixItems").and_then(|p| p.get(0)))
            .map_or_else(|| "value".to_owned(), |i| kind(root, resolve(root, i)));
        return format!("list of {item}");
    }
    simple.to_owned()
}

fn allowed_words(root: &Value, node: &Value, out: &mut Vec<String>) {
    for v in node
        .get("enum")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .chain(node.get("const"))
    {
        out.push(toml_text(v));
    }
    for inner in node
        .get("oneOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let inner = resolve(root, inner);
        if let Some(list) = inner.get("properties").and_then(Value::as_object) {
            // A variant that carries data is a table with one key.
            out.extend(list.keys().map(|k| format!("{{ {k} = ... }}")));
        }
        allowed_words(root, inner, out);
    }
}

fn toml_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Array(list) => format!(
            "[{}]",
            list.iter().map(toml_text).collect::<Vec<_>>().join(", ")
        ),
        Value::Object(map) => format!(
            "{{ {} }}",
            map.iter()
                .map(|(k, v)| format!("{k} = {}", toml_text(v)))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        Value::Number(n) => match n.as_f64() {
            // 1e-3 is stored in f32 by some rooms: print the digits that were typed.
            Some(x) if n.is_f64() => short_float(x),
            _ => n.to_string(),
        },
        other => other.to_string(),
    }
}

fn short_float(x: f64) -> String {
    let narrow = x as f32;
    if f64::from(narrow) == x {
        format!("{narrow:?}")
    } else {
        format!("{x:?}")
    }
}

/// `protocols/README.md`, whole.
pub fn readme() -> String {
    let mut out = String::from(README_HEAD);
    out.push_str("| protocol | title |\n| --- | --- |\n");
    for shipped in super::Registry.shipped() {
        let title = super::Protocol::parse(shipped.name, shipped.text, &[])
            .map_or_else(|e| e.to_string(), |p| p.file.title);
        out.push_str(&format!("| `{}` | {title} |\n", shipped.name));
    }
    out.push_str("\n## Every key\n");
    let mut is_open = false;
    for entry in entries() {
        if entry.kind == "table" {
            out.push_str(&format!("\n### `[{}]`\n\n{}\n", entry.key, entry.meaning));
            is_open = false;
            continue;
        }
        if !is_open {
            out.push_str("\n| key | kind | default | meaning |\n| --- | --- | --- | --- |\n");
            is_open = true;
        }
        out.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            entry.key,
            cell(&entry.kind),
            if entry.default.is_empty() {
                String::new()
            } else {
                format!("`{}`", cell(&entry.default))
            },
            cell(&entry.meaning)
        ));
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

const README_HEAD: &str = "\
# Protocols

What a site chooses; one TOML per clinical use. This page is generated from the doc comments of the parameter structs
(`cauda protocol explain --markdown`), and a test compares.

* `cauda recon scan.h5 -o out.nii.gz --protocol NAME` takes a protocol by its stem; a file of your own, by its path.
* `--set key=value` lays one key over it: `--set recon.method=grappa`.
* `schema = 1`, `title` and `intended_use` are required; every other key has a default. Unknown keys are refused.
* Add one: put `NAME.toml` here, add its stem to `SHIPPED` in `src/protocol/registry.rs`; a test parses, plans and
  runs it on the phantom.

";
