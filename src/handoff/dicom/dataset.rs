//! Building data sets: value representations, their length limits, and numbers as text.

use dicom_core::{DataElement, PrimitiveValue, Tag, VR, value::DataSetSequence};
use dicom_object::InMemDicomObject;

use crate::data::Note;

/// A data set under construction, with notes on every text that did not fit.
#[derive(Default)]
pub(super) struct Dataset {
    object: Option<InMemDicomObject>,
    pub(super) notes: Vec<Note>,
}

/// Most characters of one value (PS3.5, table 6.2-1); `None`: no limit that matters here.
fn limit(vr: VR) -> Option<usize> {
    Some(match vr {
        VR::SH | VR::CS | VR::AE => 16,
        VR::LO | VR::PN | VR::UI => 64,
        VR::ST => 1024,
        VR::LT => 10_240,
        _ => return None,
    })
}

impl Dataset {
    fn put_value(&mut self, tag: Tag, vr: VR, value: PrimitiveValue) {
        self.object
            .get_or_insert_with(InMemDicomObject::new_empty)
            .put(DataElement::new(tag, vr, value));
    }

    /// A text of any origin: control characters and the value separator become spaces, what is too long is cut, and
    /// code strings are brought to their alphabet. A cut leaves a note.
    pub(super) fn text(&mut self, tag: Tag, vr: VR, text: &str) {
        let may_hold_lines = matches!(vr, VR::ST | VR::LT);
        let mut clean: String = text
            .trim()
            .chars()
            .map(|c| match c {
                '\n' if may_hold_lines => '\n',
                '\\' if !may_hold_lines => ' ',
                c if c.is_control() => ' ',
                c if vr == VR::CS && !(c.is_ascii_alphanumeric() || c == ' ') => '_',
                c if vr == VR::CS => c.to_ascii_uppercase(),
                c => c,
            })
            .collect();
        if let Some(limit) = limit(vr).filter(|limit| clean.chars().count() > *limit) {
            clean = clean
                .chars()
                .take(limit)
                .collect::<String>()
                .trim_end()
                .to_owned();
            self.notes.push(Note::new(
                "dicom_text_cut",
                format!("DICOM attribute {tag} holds {limit} characters: its text was cut"),
            ));
        }
        self.put_value(tag, vr, PrimitiveValue::from(clean));
    }

    /// A text, or an empty element (type 2) when there is none.
    pub(super) fn text_or_empty(&mut self, tag: Tag, vr: VR, text: Option<&str>) {
        match text.map(str::trim) {
            Some(text) if !text.is_empty() => self.text(tag, vr, text),
            _ => self.empty(tag, vr),
        }
    }

    /// A text if there is one (type 3).
    pub(super) fn text_if(&mut self, tag: Tag, vr: VR, text: Option<&str>) {
        if let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) {
            self.text(tag, vr, text);
        }
    }

    /// A value of our own making, with its separators: written as it stands.
    pub(super) fn word(&mut self, tag: Tag, vr: VR, word: &str) {
        self.put_value(tag, vr, PrimitiveValue::from(word));
    }

    /// An element without value.
    pub(super) fn empty(&mut self, tag: Tag, vr: VR) {
        self.put_value(tag, vr, PrimitiveValue::Empty);
    }

    /// Decimal strings.
    pub(super) fn ds(&mut self, tag: Tag, values: &[f64]) {
        let text: Vec<String> = values.iter().map(|&v| decimal(v)).collect();
        self.word(tag, VR::DS, &text.join("\\"));
    }

    /// An integer string.
    pub(super) fn is(&mut self, tag: Tag, value: usize) {
        self.word(tag, VR::IS, &value.to_string());
    }

    /// Unsigned 16-bit numbers.
    pub(super) fn us(&mut self, tag: Tag, values: &[u16]) {
        self.put_value(
            tag,
            VR::US,
            PrimitiveValue::U16(values.iter().copied().collect()),
        );
    }

    /// Unsigned 32-bit numbers.
    pub(super) fn ul(&mut self, tag: Tag, values: &[u32]) {
        self.put_value(
            tag,
            VR::UL,
            PrimitiveValue::U32(values.iter().copied().collect()),
        );
    }

    /// Double-precision numbers.
    pub(super) fn fd(&mut self, tag: Tag, values: &[f64]) {
        self.put_value(
            tag,
            VR::FD,
            PrimitiveValue::F64(values.iter().copied().collect()),
        );
    }

    /// An attribute tag as value.
    pub(super) fn at(&mut self, tag: Tag, value: Tag) {
        self.put_value(
            tag,
            VR::AT,
            PrimitiveValue::Tags([value].into_iter().collect()),
        );
    }

    /// 16-bit pixels.
    pub(super) fn pixels(&mut self, tag: Tag, values: Vec<u16>) {
        self.put_value(tag, VR::OW, PrimitiveValue::U16(values.into()));
    }

    /// A sequence.
    pub(super) fn sequence(&mut self, tag: Tag, items: Vec<Dataset>) {
        let mut objects = Vec::with_capacity(items.len());
        for item in items {
            let (object, notes) = item.finish();
            self.notes.extend(notes);
            objects.push(object);
        }
        self.object
            .get_or_insert_with(InMemDicomObject::new_empty)
            .put(DataElement::new(
                tag,
                VR::SQ,
                DataSetSequence::from(objects),
            ));
    }

    /// A sequence of one item, filled by `fill`.
    pub(super) fn item(&mut self, tag: Tag, fill: impl FnOnce(&mut Dataset)) {
        let mut item = Dataset::default();
        fill(&mut item);
        self.sequence(tag, vec![item]);
    }

    /// A code sequence of one item.
    pub(super) fn code(&mut self, tag: Tag, value: &str, scheme: &str, meaning: &str) {
        use dicom_dictionary_std::tags;
        self.item(tag, |item| {
            item.text(tags::CODE_VALUE, VR::SH, value);
            item.text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, scheme);
            item.text(tags::CODE_MEANING, VR::LO, meaning);
        });
    }

    pub(super) fn finish(self) -> (InMemDicomObject, Vec<Note>) {
        (
            self.object.unwrap_or_else(InMemDicomObject::new_empty),
            self.notes,
        )
    }
}

/// A number in at most 16 characters, as near as they allow.
pub(super) fn decimal(value: f64) -> String {
    let plain = format!("{value}");
    if plain.len() <= 16 {
        return if plain == "-0" { "0".into() } else { plain };
    }
    // The plain form keeps most digits for numbers of everyday size.
    if (1e-4..1e15).contains(&value.abs()) {
        for digits in (0..=14).rev() {
            let text = format!("{value:.digits$}");
            if text.len() <= 16 {
                return text;
            }
        }
    }
    for digits in (0..=14).rev() {
        let text = format!("{value:.digits$e}");
        if text.len() <= 16 {
            return text;
        }
    }
    plain
}

/// `2026-01-31` or `20260131` as `20260131`; `None` if it is no date.
pub(super) fn date(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(char::is_ascii_digit).take(8).collect();
    let month: u8 = digits.get(4..6)?.parse().ok()?;
    let day: u8 = digits.get(6..8)?.parse().ok()?;
    ((1..=12).contains(&month) && (1..=31).contains(&day)).then_some(digits)
}

/// `12:34:56.789` (also with a time zone behind it) as `123456.789`; `None` if it is no time.
pub(super) fn time(text: &str) -> Option<String> {
    let text = text.trim();
    let end = text.find(['Z', '+', '-']).unwrap_or(text.len());
    let (whole, fraction) = text[..end].split_once('.').unwrap_or((&text[..end], ""));
    let digits: String = whole.chars().filter(|c| *c != ':').collect();
    if digits.len() != 6 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| digits[range].parse::<u8>().ok();
    if number(0..2)? > 23 || number(2..4)? > 59 || number(4..6)? > 60 {
        return None;
    }
    let fraction: String = fraction
        .chars()
        .take_while(char::is_ascii_digit)
        .take(6)
        .collect();
    Some(if fraction.is_empty() {
        digits
    } else {
        format!("{digits}.{fraction}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_fit_and_stay_near() {
        for value in [
            0.0,
            -0.0,
            1.0,
            -1.5,
            std::f64::consts::PI,
            -1e-7 / 3.0,
            1e-20 / 3.0,
            65535.0 / 7.0,
            -12345.678901234567,
            1e22,
            123456789012345680.0,
        ] {
            let text = decimal(value);
            assert!(text.len() <= 16, "{text}");
            let back: f64 = text.parse().unwrap();
            assert!((back - value).abs() <= 1e-9 * value.abs(), "{value} {text}");
        }
        assert_eq!(decimal(-0.0), "0");
    }

    #[test]
    fn dates_and_times() {
        assert_eq!(date("2012-08-13").as_deref(), Some("20120813"));
        assert_eq!(date("20120813").as_deref(), Some("20120813"));
        assert_eq!(date("2012-13-13"), None);
        assert_eq!(date("soon"), None);
        assert_eq!(time("09:10:12").as_deref(), Some("091012"));
        assert_eq!(time("09:10:12.5+01:00").as_deref(), Some("091012.5"));
        assert_eq!(time("091012.5").as_deref(), Some("091012.5"));
        assert_eq!(time("25:10:12"), None);
        assert_eq!(time("9:10"), None);
    }

    #[test]
    fn long_texts_are_cut_with_a_note() {
        let mut d = Dataset::default();
        d.text(
            dicom_dictionary_std::tags::STUDY_ID,
            VR::SH,
            "ä12345678901234567\\8",
        );
        assert_eq!(d.notes.len(), 1);
        let (object, _) = d.finish();
        let element = object
            .element(dicom_dictionary_std::tags::STUDY_ID)
            .unwrap();
        assert_eq!(element.to_str().unwrap(), "ä123456789012345");
    }
}
