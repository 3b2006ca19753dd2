//! Image meta attributes (`ismrmrdMeta` XML): names with one or more values, order kept.

use crate::Error;
use crate::xml::{self, Element, escape};

/// Ordered meta attributes of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// `(name, values)` in document order.
    pub entries: Vec<(String, Vec<String>)>,
}

impl Meta {
    /// Reads meta attributes; empty text gives none. A name that stands there twice joins its values.
    ///
    /// # Errors
    /// [`Error::Malformed`]: not well formed, another root than `ismrmrdMeta`, an entry without a name.
    pub fn parse(text: &str) -> Result<Meta, Error> {
        let text = xml::trim(text);
        if text.is_empty() {
            return Ok(Meta::default());
        }
        let node = xml::parse(text, "meta attributes")?;
        let malformed = |found: String, needed: &str| Error::Malformed {
            place: "meta attributes".into(),
            found,
            needed: needed.into(),
        };
        if node.name != "ismrmrdMeta" {
            return Err(malformed(
                format!("the root element <{}>", node.name),
                "<ismrmrdMeta>",
            ));
        }
        let mut meta = Meta::default();
        for (i, entry) in Element::root(&node, text)
            .children("meta")
            .iter()
            .enumerate()
        {
            let name = entry.children("name").first().map(Element::text);
            let name =
                name.ok_or_else(|| malformed(format!("entry {i} without a name"), "<name>"))?;
            let values: Vec<String> = entry.children("value").iter().map(Element::text).collect();
            match meta.entries.iter_mut().find(|(n, _)| *n == name) {
                Some((_, have)) => have.extend(values),
                None => meta.entries.push((name, values)),
            }
        }
        Ok(meta)
    }

    /// Writes the attributes as XML; none give the empty text.
    pub fn to_xml(&self) -> String {
        if self.entries.is_empty() {
            return String::new();
        }
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ismrmrdMeta>\n");
        for (name, values) in &self.entries {
            out.push_str(&format!("  <meta>\n    <name>{}</name>\n", escape(name)));
            for value in values {
                out.push_str(&format!("    <value>{}</value>\n", escape(value)));
            }
            out.push_str("  </meta>\n");
        }
        out.push_str("</ismrmrdMeta>\n");
        out
    }

    /// The values of a name.
    pub fn get(&self, name: &str) -> Option<&[String]> {
        self.entries
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, values)| values.as_slice())
    }

    /// The first value of a name.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name)?.first().map(String::as_str)
    }

    /// Gives a name one value, replacing what it had.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.set_all(name, vec![value.to_string()]);
    }

    /// Gives a name several values, replacing what it had.
    pub fn set_all(&mut self, name: &str, values: Vec<String>) {
        match self.entries.iter_mut().find(|(n, _)| n == name) {
            Some((_, have)) => *have = values,
            None => self.entries.push((name.to_owned(), values)),
        }
    }

    /// Adds a value to a name.
    pub fn push(&mut self, name: &str, value: impl ToString) {
        match self.entries.iter_mut().find(|(n, _)| n == name) {
            Some((_, have)) => have.push(value.to_string()),
            None => self
                .entries
                .push((name.to_owned(), vec![value.to_string()])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_with_awkward_text() {
        let mut meta = Meta::default();
        meta.set("ImageComment", "a < b & \"c\"\r\n");
        meta.set_all(
            "ImageType",
            vec!["ORIGINAL".into(), "PRIMARY".into(), String::new()],
        );
        meta.push("GADGETRON_x", 0.25);
        meta.push("GADGETRON_x", 7);
        assert_eq!(Meta::parse(&meta.to_xml()).unwrap(), meta);
        assert_eq!(meta.get("GADGETRON_x").unwrap(), ["0.25", "7"]);
        assert_eq!(meta.get_str("ImageType"), Some("ORIGINAL"));
    }

    #[test]
    fn what_peers_write() {
        assert_eq!(Meta::parse("").unwrap(), Meta::default());
        assert_eq!(Meta::parse("\0").unwrap(), Meta::default());
        let text = "<?xml version=\"1.0\"?>\n<ismrmrdMeta>\n\t<meta>\n\t\t<name>a</name>\n\t\t<value>1</value>\n\t</meta>\
                    <meta><name>a</name><value>2</value></meta></ismrmrdMeta>\n\0";
        assert_eq!(Meta::parse(text).unwrap().get("a").unwrap(), ["1", "2"]);
        assert!(Meta::parse("<other/>").is_err());
        assert!(Meta::parse("<ismrmrdMeta><meta/></ismrmrdMeta>").is_err());
    }
}
