//! What a kernel wants, read from its text: parameters, threads of a block.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::{KERNELS, Kernel};

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Param {
    /// `IN(T)`.
    In(String),
    /// `OUT(T)`.
    Out(String),
    /// `int`.
    I32,
    /// `float`.
    F32,
}

impl std::fmt::Display for Param {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::In(t) => write!(f, "IN({t})"),
            Self::Out(t) => write!(f, "OUT({t})"),
            Self::I32 => write!(f, "int"),
            Self::F32 => write!(f, "float"),
        }
    }
}

/// A kernel's.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    pub(super) name: String,
    /// The file that holds it.
    pub(super) file: &'static Kernel,
    pub(super) params: Vec<Param>,
    /// Threads of a block, as `THREADS` says: the kernels count on exactly so many.
    pub(super) threads: u32,
}

/// Of a kernel in [`KERNELS`].
pub(super) fn signature(name: &str) -> Option<&'static Signature> {
    static ALL: LazyLock<BTreeMap<String, Signature>> = LazyLock::new(|| {
        let all = KERNELS.iter().flat_map(parse);
        all.map(|s| (s.name.clone(), s)).collect()
    });
    ALL.get(name)
}

/// All of a file; what cannot be read is left out, and a test says so.
fn parse(file: &'static Kernel) -> Vec<Signature> {
    let starts = file.text.match_indices("\nKERNEL");
    starts
        .filter_map(|(at, _)| one(file, &file.text[at + 1..]))
        .collect()
}

/// `KERNEL THREADS(n) name(parameters) {`, or `KERNEL_MAKER(name, ...)` of a macro whose body is that.
fn one(file: &'static Kernel, text: &str) -> Option<Signature> {
    let (maker, _) = text.split_once('(')?;
    let (body, words) = if maker.starts_with("KERNEL_") {
        let define = format!("#define {maker}(");
        let body = &file.text[file.text.find(&define)?..];
        let keys = list(inside(body)?);
        let values = list(inside(text)?);
        let words: BTreeMap<_, _> = keys.into_iter().zip(values).collect();
        (&body[body.find("KERNEL ")?..], words)
    } else {
        (text, BTreeMap::new())
    };
    let replaced = |word: &str| -> String { words.get(word).map_or(word, |w| w).to_owned() };
    let rest = body.strip_prefix("KERNEL ")?;
    let expression = replaced(inside(rest.strip_prefix("THREADS")?)?);
    let headers = file.headers.iter().map(|(_, text)| *text);
    let threads = headers
        .chain([file.text])
        .find_map(|text| number(text, &expression))?;
    let rest = rest.split_once(')')?.1;
    let (name, _) = rest.split_once('(')?;
    let params = list(inside(rest)?).into_iter().map(param);
    Some(Signature {
        name: replaced(name.trim()),
        file,
        params: params.collect::<Option<_>>()?,
        threads,
    })
}

/// What the first parentheses hold.
fn inside(text: &str) -> Option<&str> {
    let from = text.find('(')? + 1;
    let mut depth = 1;
    for (i, c) in text[from..].char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&text[from..from + i]);
        }
    }
    None
}

fn list(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).collect()
}

fn param(text: &str) -> Option<Param> {
    let (kind, _) = text.rsplit_once(' ')?;
    let buffer = |kind: &str, prefix: &str| {
        let rest = kind.trim().strip_prefix(prefix)?.strip_prefix('(')?;
        Some(rest.strip_suffix(')')?.to_owned())
    };
    match kind.trim() {
        "int" => Some(Param::I32),
        "float" => Some(Param::F32),
        other => buffer(other, "IN")
            .map(Param::In)
            .or_else(|| buffer(other, "OUT").map(Param::Out)),
    }
}

/// A number, or a constant of the file: `constexpr int NAME = 128;`.
fn number(text: &str, expression: &str) -> Option<u32> {
    expression.parse().ok().or_else(|| {
        let value = text.split_once(&format!("constexpr int {expression} ="))?.1;
        value.split_once(';')?.0.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_of_every_file_is_read() {
        for file in KERNELS {
            let found = parse(file);
            let n = file.text.matches("\nKERNEL").count();
            assert!(n > 0 && found.len() == n, "{}: {found:?}", file.name);
        }
    }

    #[test]
    fn signatures_are_as_the_text_says() {
        let of = |name| {
            let s = signature(name).unwrap();
            let params: Vec<String> = s.params.iter().map(Param::to_string).collect();
            (s.file.name, s.threads, params.join(" "))
        };
        let words = |s: &str| s.to_owned();
        assert_eq!(
            of("whiten_c32"),
            (
                "whiten.cu",
                128,
                words("IN(float2) IN(float2) OUT(float2) int int int")
            )
        );
        assert_eq!(
            of("sense_gfactor_r8"),
            (
                "sense_unfold.cu",
                128,
                words("IN(float2) IN(int) OUT(float) OUT(float) int int int int int float")
            )
        );
        assert_eq!(of("combine_rss_c32").1, 256);
        assert!(signature("sense_unfold_r9").is_none());
    }
}
