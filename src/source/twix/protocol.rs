//! The protocol that stands before the readouts of a twix measurement.
//!
//! A measurement header is a few named text buffers (`Config`, `Dicom`, `Meas`, `MeasYaps`, `Phoenix`, `Spice`) in two
//! languages: **XProtocol** (`<ParamLong."lPartitions"> { 16 }`, nested maps) and **ASCCONV** (`sKSpace.lPartitions =
//! 16`, one per line). ASCCONV leaves out what is zero.
//!
//! Values are kept as text under dotted paths: `MEAS.sKSpace.lPartitions`, `YAPS.iNoOfFourierLines`,
//! `sSliceArray.asSlice[0].dThickness`.

use std::collections::BTreeMap;

use crate::source::bytes::u32_at;

/// All parameters of a measurement.
#[derive(Debug, Default)]
pub(crate) struct Protocol {
    /// From ASCCONV (`MeasYaps`).
    yaps: BTreeMap<String, String>,
    /// From the XProtocol of `Meas`, then of the other buffers.
    xprot: BTreeMap<String, Vec<String>>,
    /// Names and lengths of the buffers.
    pub(crate) buffers: Vec<(String, usize)>,
}

/// Nesting beyond this is no protocol; the parser is recursive.
const MAX_DEPTH: usize = 64;

impl Protocol {
    /// Parses the header of one measurement; `Err` tells place, found, needed.
    pub(crate) fn parse(header: &[u8]) -> Result<Self, (String, String, String)> {
        let count = u32_at(header, 4).unwrap_or(0) as usize;
        if count == 0 || count > 64 {
            return Err((
                "number of header buffers".into(),
                count.to_string(),
                "1 to 64".into(),
            ));
        }
        let mut protocol = Self::default();
        let mut texts: Vec<(String, String)> = Vec::new();
        let mut at = 8;
        for i in 0..count {
            let rest = header.get(at..).unwrap_or_default();
            let end = rest.iter().take(64).position(|&b| b == 0);
            let (Some(end), place) = (
                end,
                format!("header buffer {i} at byte {at} of the measurement"),
            ) else {
                return Err((
                    format!("header buffer {i} at byte {at} of the measurement"),
                    "no name".into(),
                    "a name of at most 63 letters".into(),
                ));
            };
            let name = String::from_utf8_lossy(&rest[..end]).into_owned();
            let length = u32_at(rest, end + 1).unwrap_or(u32::MAX) as usize;
            let body = rest
                .get(end + 5..)
                .and_then(|b| b.get(..length))
                .ok_or_else(|| {
                    (
                        place,
                        format!(
                            "{name:?} with {length} bytes, {} left",
                            rest.len().saturating_sub(end + 5)
                        ),
                        "a buffer within the header".to_string(),
                    )
                })?;
            protocol.buffers.push((name.clone(), length));
            // Scanner text is Latin-1: every byte is one character.
            texts.push((name, body.iter().map(|&b| char::from(b)).collect()));
            at += end + 5 + length;
        }
        for name in ["MeasYaps", "Phoenix"] {
            if let Some((_, text)) = texts.iter().find(|(n, _)| n == name)
                && protocol.yaps.is_empty()
            {
                ascconv(text, &mut protocol.yaps);
            }
        }
        for name in ["Meas", "Dicom", "Config"] {
            if let Some((_, text)) = texts.iter().find(|(n, _)| n == name) {
                let mut found = BTreeMap::new();
                xprotocol(text, &mut found);
                for (key, value) in found {
                    protocol.xprot.entry(key).or_insert(value);
                }
            }
        }
        Ok(protocol)
    }

    /// Text of the first key that has a value. Keys of `MEAS` are looked up in ASCCONV first.
    pub(crate) fn text(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| {
            key.strip_prefix("MEAS.")
                .and_then(|k| self.yaps.get(k).map(String::as_str))
                .or_else(|| {
                    // XProtocol writes indices as path elements.
                    self.xprot
                        .get(*key)
                        .and_then(|v| v.first())
                        .map(String::as_str)
                })
                .filter(|v| !v.is_empty())
        })
    }

    /// A number; hexadecimal (`0x10`) is accepted as the scanner writes it.
    pub(crate) fn number(&self, keys: &[&str]) -> Option<f64> {
        let text = self.text(keys)?;
        match text.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16).ok().map(|n| n as f64),
            None => text.parse().ok().filter(|n: &f64| n.is_finite()),
        }
    }

    /// A count: 0 to 2^31.
    pub(crate) fn count(&self, keys: &[&str]) -> Option<u32> {
        self.number(keys)
            .filter(|n| *n >= 0.0 && *n <= f64::from(i32::MAX))
            .map(|n| n as u32)
    }

    /// All values of an XProtocol array.
    pub(crate) fn list(&self, key: &str) -> &[String] {
        self.xprot.get(key).map_or(&[], Vec::as_slice)
    }

    /// Elements `name[0]`, `name[1]`, ... of ASCCONV as numbers, up to the first that is absent.
    pub(crate) fn series(&self, name: &str, at_most: usize) -> Vec<f64> {
        (0..at_most)
            .map_while(|i| self.number(&[&format!("MEAS.{name}[{i}]")]))
            .collect()
    }
}

fn ascconv(text: &str, out: &mut BTreeMap<String, String>) {
    let Some(begin) = text.find("### ASCCONV BEGIN") else {
        return;
    };
    let body = &text[begin..];
    let body = &body[..body.find("### ASCCONV END").unwrap_or(body.len())];
    for line in body.lines().skip(1) {
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        // Comments follow values in VB ("= 0.5 # 1/2").
        let value = value.trim();
        let value = match value.strip_prefix('"') {
            // VB writes strings with doubled quotes: ""gre"".
            Some(v) => v.trim_matches('"'),
            None => value.split('#').next().unwrap_or_default().trim(),
        };
        out.insert(key.trim().to_string(), value.to_string());
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token<'a> {
    Open,
    Close,
    /// `<Name>` or `<Name."label">`.
    Tag(&'a str, Option<&'a str>),
    Value(&'a str),
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        let bytes = self.text.as_bytes();
        while bytes
            .get(self.at)
            .is_some_and(|b| b.is_ascii_whitespace() || *b == 0)
        {
            self.at += 1;
        }
        let start = self.at;
        let first = *bytes.get(start)?;
        let until = |from: usize, stop: &dyn Fn(u8) -> bool| {
            bytes[from..]
                .iter()
                .position(|&b| stop(b))
                .map_or(bytes.len(), |n| from + n)
        };
        match first {
            b'{' => {
                self.at += 1;
                Some(Token::Open)
            }
            b'}' => {
                self.at += 1;
                Some(Token::Close)
            }
            b'"' => {
                // A doubled quote inside a string stands for a quote; the scanner does not nest them otherwise.
                let end = until(start + 1, &|b| b == b'"');
                self.at = end + 1;
                Some(Token::Value(
                    self.text.get(start + 1..end).unwrap_or_default(),
                ))
            }
            b'<' => {
                let end = until(start, &|b| b == b'>');
                self.at = end + 1;
                let tag = self.text.get(start + 1..end).unwrap_or_default();
                Some(match tag.split_once('.') {
                    Some((name, label)) if label.starts_with('"') => {
                        Token::Tag(name, Some(label.trim_matches('"')))
                    }
                    _ => Token::Tag(tag, None),
                })
            }
            _ => {
                let end = until(start, &|b| {
                    b.is_ascii_whitespace() || b == b'{' || b == b'}' || b == b'<' || b == 0
                });
                self.at = end.max(start + 1);
                Some(Token::Value(
                    self.text.get(start..self.at).unwrap_or_default(),
                ))
            }
        }
    }

    fn peek(&mut self) -> Option<Token<'a>> {
        let at = self.at;
        let token = self.next();
        self.at = at;
        token
    }

    /// Passes over a balanced `{ ... }`, the opening brace not yet taken.
    fn skip_braces(&mut self) {
        let mut depth = 0usize;
        while let Some(token) = self.next() {
            match token {
                Token::Open => depth += 1,
                Token::Close => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return;
                    }
                }
                _ if depth == 0 => return,
                _ => {}
            }
        }
    }
}

fn xprotocol(text: &str, out: &mut BTreeMap<String, Vec<String>>) {
    // Scanner text was made one character per byte, so a non-ASCII letter is two bytes here; tokens are cut at ASCII
    // characters only, hence always at character borders.
    let mut lexer = Lexer { text, at: 0 };
    while let Some(token) = lexer.next() {
        if let Token::Tag(name, None) = token
            && name == "XProtocol"
        {
            if lexer.peek() == Some(Token::Open) {
                lexer.next();
            }
            body(&mut lexer, "", 0, out);
            return;
        }
    }
}

/// Reads up to the closing brace; returns the plain values met.
fn body<'a>(
    lexer: &mut Lexer<'a>,
    path: &str,
    depth: usize,
    out: &mut BTreeMap<String, Vec<String>>,
) -> Vec<String> {
    let mut values = Vec::new();
    while let Some(token) = lexer.next() {
        match token {
            Token::Close => return values,
            Token::Value(v) => values.push(v.to_string()),
            Token::Open => {
                // An element of an array: its values belong to the array.
                if depth >= MAX_DEPTH {
                    lexer.at -= 1;
                    lexer.skip_braces();
                } else {
                    values.extend(body(lexer, path, depth + 1, out));
                }
            }
            Token::Tag(kind, Some(label)) => {
                if lexer.peek() != Some(Token::Open) {
                    continue;
                }
                if depth >= MAX_DEPTH || !kind.starts_with("Param") {
                    lexer.skip_braces();
                    continue;
                }
                lexer.next();
                let child = match (path.is_empty(), label.is_empty()) {
                    (_, true) => path.to_string(),
                    (true, false) => label.to_string(),
                    (false, false) => format!("{path}.{label}"),
                };
                let found = body(lexer, &child, depth + 1, out);
                if !found.is_empty() && !label.is_empty() {
                    out.entry(child).or_insert(found);
                }
            }
            Token::Tag("Default", None) => {
                // `<Default> <ParamLong.""> { ... }` describes elements, it is none.
                if let Some(Token::Tag(..)) = lexer.peek() {
                    lexer.next();
                    if lexer.peek() == Some(Token::Open) {
                        lexer.skip_braces();
                    }
                }
            }
            Token::Tag(_, None) => {
                // An attribute (`<Precision> 6`, `<LimitRange> { 0 1 }`) takes one value, unless another tag follows.
                match lexer.peek() {
                    Some(Token::Open) => lexer.skip_braces(),
                    Some(Token::Value(_)) => {
                        lexer.next();
                    }
                    _ => {}
                }
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xprotocol_values_are_found_under_their_paths_and_attributes_are_not_values() {
        let text = r#"<XProtocol> { <Name> "x" <ID> 1 <EVAStringTable> { 2 500 "a { b" 501 "c" }
            <ParamMap.""> { <ParamMap."YAPS"> { <ParamLong."n"> { 320 }
              <ParamDouble."d"> { <Precision> 6 2.5 } <ParamDouble."none"> { <Precision> 6 }
              <ParamLong."range"> { <LimitRange> { 0 9 } 4 }
              <ParamArray."list"> { <Default> <ParamLong.""> { } { 1 } { 2 } { } }
              <ParamString."s"> { "HFS" } } } }"#;
        let mut out = BTreeMap::new();
        xprotocol(text, &mut out);
        assert_eq!(out["YAPS.n"], ["320"]);
        assert_eq!(out["YAPS.d"], ["2.5"]);
        assert!(!out.contains_key("YAPS.none"));
        assert_eq!(out["YAPS.range"], ["4"]);
        assert_eq!(out["YAPS.list"], ["1", "2"]);
        assert_eq!(out["YAPS.s"], ["HFS"]);
    }

    #[test]
    fn ascconv_reads_vb_and_ve_spellings() {
        let mut out = BTreeMap::new();
        ascconv(
            "junk\n### ASCCONV BEGIN object=x ###\na.b[0]\t = \t11600\nt = \"\"gre\"\"\nv = \"gre\"\nh = 0x10\nd = 0.5 # half\n### ASCCONV END ###\nz = 1\n",
            &mut out,
        );
        assert_eq!(out["a.b[0]"], "11600");
        assert_eq!(out["t"], "gre");
        assert_eq!(out["v"], "gre");
        assert_eq!(out["d"], "0.5");
        assert!(!out.contains_key("z"));
        let protocol = Protocol {
            yaps: out,
            ..Protocol::default()
        };
        assert_eq!(protocol.number(&["MEAS.h"]), Some(16.0));
    }

    #[test]
    fn deep_nesting_is_cut_and_broken_text_ends() {
        let mut text = String::from("<XProtocol> {");
        for _ in 0..100_000 {
            text.push_str("<ParamMap.\"a\"> {");
        }
        let mut out = BTreeMap::new();
        xprotocol(&text, &mut out);
        xprotocol(&"{".repeat(100_000), &mut out);
        xprotocol("<XProtocol> { <ParamLong.\"", &mut out);
        assert!(out.is_empty());
    }
}
