//! A small XML tree: text in, elements with their place out. Header and meta attributes are read from it.
//!
//! A tree (instead of events) because the reader takes the elements it knows, in any order, and hands
//! back what is left over untouched.

use std::cell::Cell;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::Error;

/// Elements of one document; a header of a real scan has some hundreds.
const MAX_ELEMENTS: usize = 1 << 20;
/// Nesting; the schema needs seven.
const MAX_DEPTH: usize = 64;

/// One element.
#[derive(Debug)]
pub(crate) struct Node {
    /// Local name, prefix removed.
    pub(crate) name: String,
    /// `(qualified name, value)`.
    attributes: Vec<(String, String)>,
    /// Character data that stands directly in the element.
    pub(crate) text: String,
    pub(crate) children: Vec<Node>,
    /// Bytes of the source that are this element.
    span: (usize, usize),
    taken: Cell<bool>,
}

/// Removes what peers put around a document: byte order mark, white space and NULs.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_start_matches('\u{feff}')
        .trim_end_matches('\0')
        .trim_matches(|c: char| c.is_ascii_whitespace())
}

/// Decodes a document's bytes: UTF-8, UTF-16 with a byte order mark, or a declared Latin-1.
///
/// # Errors
/// [`Error::Malformed`] for bytes that are none of these.
pub(crate) fn decode(bytes: &[u8], what: &str) -> Result<String, Error> {
    let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
    let utf16 = |from_bytes: fn([u8; 2]) -> u16| {
        // The trailing NUL of a UTF-16 unit is part of a character here: only whole zero units are padding.
        let units = bytes.get(2..).unwrap_or_default().chunks_exact(2);
        let units: Vec<u16> = units
            .map(|p| {
                from_bytes([
                    p.first().copied().unwrap_or(0),
                    p.last().copied().unwrap_or(0),
                ])
            })
            .collect();
        String::from_utf16(&units).map(|s| s.trim_end_matches('\0').to_owned())
    };
    let malformed = |found: String| Error::Malformed {
        place: what.to_owned(),
        found,
        needed: "XML text in UTF-8 (or UTF-16 with a byte order mark, or declared ISO-8859-1)"
            .into(),
    };
    match bytes {
        [0xff, 0xfe, ..] => return utf16(u16::from_le_bytes).map_err(|e| malformed(e.to_string())),
        [0xfe, 0xff, ..] => return utf16(u16::from_be_bytes).map_err(|e| malformed(e.to_string())),
        _ => {}
    }
    let bytes = bytes.get(..end).unwrap_or_default();
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => {
            let declaration: String = bytes.iter().take(120).map(|&b| char::from(b)).collect();
            let declaration = declaration.to_ascii_lowercase();
            let declared = declaration.split("?>").next().unwrap_or_default();
            // Windows-1252 differs from Latin-1 only in 0x80..0x9f, which are control characters in the latter.
            if ["iso-8859-1", "latin1", "latin-1", "windows-1252"]
                .iter()
                .any(|e| declared.contains(e))
            {
                return Ok(bytes.iter().map(|&b| char::from(b)).collect());
            }
            let at = error.valid_up_to();
            let byte = bytes.get(at).copied().unwrap_or(0);
            Err(malformed(format!(
                "byte 0x{byte:02x} at offset {at}, which is not UTF-8"
            )))
        }
    }
}

/// Parses a document into its root element.
///
/// # Errors
/// [`Error::Malformed`] with the byte offset: not well formed, an entity that is not predefined (document
/// type definitions are not expanded), nested deeper than 64 or more than a million elements.
pub(crate) fn parse(text: &str, what: &str) -> Result<Node, Error> {
    let malformed = |at: usize, found: String, needed: &str| Error::Malformed {
        place: format!("{what}, byte {at}"),
        found,
        needed: needed.to_owned(),
    };
    if text.is_empty() {
        return Err(malformed(0, "nothing".into(), "an XML document"));
    }
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Node> = Vec::new();
    let mut root: Option<Node> = None;
    let mut elements = 0_usize;
    loop {
        let start = position(&reader);
        let event = reader.read_event().map_err(|e| {
            malformed(
                to_usize(reader.error_position()),
                e.to_string(),
                "well-formed XML",
            )
        })?;
        let end = position(&reader);
        match event {
            Event::Start(tag) | Event::Empty(tag) if root.is_some() && open.is_empty() => {
                let name = tag.name().as_ref().to_owned();
                return Err(malformed(
                    start,
                    format!("a second root element <{name}>"),
                    "one",
                ));
            }
            Event::Start(tag) => {
                elements += 1;
                if elements > MAX_ELEMENTS || open.len() >= MAX_DEPTH {
                    let found = format!("{elements} elements, {} deep", open.len() + 1);
                    let needed = format!("at most {MAX_ELEMENTS} elements, {MAX_DEPTH} deep");
                    return Err(malformed(start, found, &needed));
                }
                open.push(
                    node(&tag, start, end)
                        .map_err(|e| malformed(start, e, "well-formed attributes"))?,
                );
            }
            Event::Empty(tag) => {
                elements += 1;
                if elements > MAX_ELEMENTS {
                    return Err(malformed(
                        start,
                        format!("{elements} elements"),
                        "fewer elements",
                    ));
                }
                let node = node(&tag, start, end)
                    .map_err(|e| malformed(start, e, "well-formed attributes"))?;
                close(node, end, &mut open, &mut root);
            }
            Event::End(_) => {
                if let Some(node) = open.pop() {
                    close(node, end, &mut open, &mut root);
                }
            }
            Event::Text(text) => append(&mut open, &text.xml10_content()),
            Event::CData(data) => append(&mut open, &data.xml10_content()),
            Event::GeneralRef(reference) => {
                let name = reference.xml10_content().into_owned();
                let resolved = match name.as_str() {
                    "lt" => Some('<'),
                    "gt" => Some('>'),
                    "amp" => Some('&'),
                    "apos" => Some('\''),
                    "quot" => Some('"'),
                    _ => reference.resolve_char_ref().ok().flatten(),
                };
                let Some(c) = resolved else {
                    return Err(malformed(
                        start,
                        format!("the entity &{name};"),
                        "a predefined entity",
                    ));
                };
                append(&mut open, c.encode_utf8(&mut [0; 4]));
            }
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            Event::Eof => break,
        }
    }
    if let Some(node) = open.last() {
        let found = format!("the end of the text inside <{}>", node.name);
        return Err(malformed(
            text.len(),
            found,
            "its closing tag: the text is cut off",
        ));
    }
    root.ok_or_else(|| malformed(0, "no element".into(), "an XML document"))
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn position(reader: &Reader<&[u8]>) -> usize {
    to_usize(reader.buffer_position())
}

fn node(tag: &BytesStart<'_>, start: usize, end: usize) -> Result<Node, String> {
    let mut attributes = Vec::new();
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|e| e.to_string())?;
        let value = quick_xml::escape::unescape(&attribute.value).map_err(|e| e.to_string())?;
        attributes.push((attribute.key.as_ref().to_owned(), value.into_owned()));
    }
    Ok(Node {
        name: tag.local_name().as_ref().to_owned(),
        attributes,
        text: String::new(),
        children: Vec::new(),
        span: (start, end),
        taken: Cell::new(false),
    })
}

fn close(mut node: Node, end: usize, open: &mut [Node], root: &mut Option<Node>) {
    node.span.1 = end;
    match open.last_mut() {
        Some(parent) => parent.children.push(node),
        None => *root = Some(node),
    }
}

fn append(open: &mut [Node], text: &str) {
    if let Some(node) = open.last_mut() {
        node.text.push_str(text);
    }
}

/// An element, where it stands, and which of its children have been asked for.
pub(crate) struct Element<'a> {
    node: &'a Node,
    source: &'a str,
    /// Path below the root, `encoding[0]/encodedSpace`; empty for the root.
    pub(crate) path: String,
    /// Name-space declarations in force, outermost first.
    scope: Vec<&'a (String, String)>,
}

impl<'a> Element<'a> {
    pub(crate) fn root(node: &'a Node, source: &'a str) -> Self {
        let scope = node
            .attributes
            .iter()
            .filter(|(key, _)| key.starts_with("xmlns"))
            .collect();
        Self {
            node,
            source,
            path: String::new(),
            scope,
        }
    }

    fn enter(&self, node: &'a Node, index: Option<usize>) -> Self {
        let step = match index {
            Some(i) => format!("{}[{i}]", node.name),
            None => node.name.clone(),
        };
        let path = if self.path.is_empty() {
            step
        } else {
            format!("{}/{step}", self.path)
        };
        let mut scope = self.scope.clone();
        scope.extend(
            node.attributes
                .iter()
                .filter(|(key, _)| key.starts_with("xmlns")),
        );
        Self {
            node,
            source: self.source,
            path,
            scope,
        }
    }

    /// All children of this name, in document order, marked as known.
    pub(crate) fn children(&self, name: &str) -> Vec<Element<'a>> {
        let found = self.node.children.iter().filter(|c| c.name == name);
        found
            .enumerate()
            .map(|(i, node)| {
                node.taken.set(true);
                self.enter(node, Some(i))
            })
            .collect()
    }

    /// The child of this name.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it stands there twice: which one holds would be a guess.
    pub(crate) fn child(&self, name: &str) -> Result<Option<Element<'a>>, Error> {
        let mut found = self.node.children.iter().filter(|c| c.name == name);
        let Some(first) = found.next() else {
            return Ok(None);
        };
        if found.next().is_some() {
            let count = 2 + found.count();
            return Err(self.malformed(name, format!("{count} elements"), "one"));
        }
        first.taken.set(true);
        Ok(Some(self.enter(first, None)))
    }

    /// As [`Self::child`], and it must be there.
    pub(crate) fn required(&self, name: &str) -> Result<Element<'a>, Error> {
        self.child(name)?
            .ok_or_else(|| self.malformed(name, "nothing".into(), "the element"))
    }

    /// Text as it stands.
    pub(crate) fn text(&self) -> String {
        self.node.text.clone()
    }

    /// Text without the white space around it.
    pub(crate) fn word(&self) -> &'a str {
        self.node.text.trim()
    }

    /// Name-value children given as one element each.
    pub(crate) fn string(&self, name: &str) -> Result<Option<String>, Error> {
        Ok(self.child(name)?.map(|c| c.text()))
    }

    /// An error about a child of this element (or the element itself for an empty name).
    pub(crate) fn malformed(&self, name: &str, found: String, needed: &str) -> Error {
        let place = match (self.path.is_empty(), name.is_empty()) {
            (true, _) => format!("header: {name}"),
            (false, true) => format!("header: {}", self.path),
            (false, false) => format!("header: {}/{name}", self.path),
        };
        Error::Malformed {
            place,
            found,
            needed: needed.to_owned(),
        }
    }

    /// The children that nobody asked for, each as XML that can stand by itself.
    pub(crate) fn left_over(&self) -> Vec<String> {
        let left = self.node.children.iter().filter(|c| !c.taken.get());
        left.map(|c| self.standalone(c)).collect()
    }

    /// The element's own text, with the declarations of outer prefixes that it uses.
    fn standalone(&self, node: &Node) -> String {
        let raw = self
            .source
            .get(node.span.0..node.span.1)
            .unwrap_or_default();
        let mut declarations = String::new();
        let mut done: Vec<&str> = node
            .attributes
            .iter()
            .map(|(key, _)| key.as_str())
            .collect();
        for (key, value) in self.scope.iter().rev() {
            let Some(prefix) = key.strip_prefix("xmlns:").filter(|p| !p.is_empty()) else {
                continue;
            };
            if !done.contains(&key.as_str()) && raw.contains(&format!("{prefix}:")) {
                done.push(key);
                declarations.push_str(&format!(" {key}=\"{}\"", escape(value)));
            }
        }
        // A name ends where the parser lets it end: in `<a/b>` it is `a/b`.
        let name = raw.split([' ', '\t', '\r', '\n', '>']).next();
        let name = name.unwrap_or_default();
        let (head, tail) = raw.split_at(name.strip_suffix('/').unwrap_or(name).len());
        format!("{head}{declarations}{tail}")
    }
}

/// Escapes text for element content and attribute values; characters that XML cannot carry become U+FFFD.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Otherwise a reader turns it into a line feed.
            '\r' => out.push_str("&#13;"),
            '\t' | '\n' => out.push(c),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_entities_and_cdata_join() {
        let node = parse("<a>1 &lt; 2 &#x41;<![CDATA[<b>]]></a>", "test").unwrap();
        assert_eq!(node.text, "1 < 2 A<b>");
    }

    #[test]
    fn unknown_entities_and_definitions_are_refused_not_expanded() {
        let bomb = "<!DOCTYPE a [<!ENTITY x 'xxxxxxxx'>]><a>&x;</a>";
        let error = parse(bomb, "test").unwrap_err().to_string();
        assert!(error.contains("&x;"), "{error}");
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "<a>".repeat(1000);
        assert!(
            parse(&deep, "test")
                .unwrap_err()
                .to_string()
                .contains("64 deep")
        );
    }

    #[test]
    fn cut_off_text_says_so() {
        let error = parse("<a><b>1</b>", "test").unwrap_err().to_string();
        assert!(error.contains("cut off"), "{error}");
    }

    #[test]
    fn left_over_carries_its_prefixes() {
        let text = r#"<a xmlns:q="urn:q"><known/><q:new x="1"/></a>"#;
        let node = parse(text, "test").unwrap();
        let root = Element::root(&node, text);
        assert!(root.child("known").unwrap().is_some());
        assert_eq!(root.left_over(), [r#"<q:new xmlns:q="urn:q" x="1"/>"#]);
        // What no writer should write, but the parser takes: a slash in a name, a prefix without letters.
        let text = r#"<a xmlns:="urn:p" xmlns:q="urn:q"><b/q:c/></a>"#;
        let node = parse(text, "test").unwrap();
        let left = Element::root(&node, text).left_over();
        assert_eq!(left, [r#"<b/q:c xmlns:q="urn:q"/>"#]);
    }

    #[test]
    fn bytes_in_several_encodings() {
        let latin = b"<?xml version='1.0' encoding='ISO-8859-1'?><a>M\xfcller</a>\0\0";
        assert!(decode(latin, "test").unwrap().contains("Müller"));
        let utf16: Vec<u8> = [0xfeff_u16]
            .into_iter()
            .chain("<a>é</a>".encode_utf16())
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(decode(&utf16, "test").unwrap(), "<a>é</a>");
        assert!(
            decode(b"<a>\xff</a>", "test")
                .unwrap_err()
                .to_string()
                .contains("offset 3")
        );
        assert_eq!(trim("\u{feff} <a/>\n\0\0"), "<a/>");
    }
}
