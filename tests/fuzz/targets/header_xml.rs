//! Any bytes: refused, or a header that reads back the same after writing. Also as meta attributes.
#![no_main]

use ismrmrd::{Header, Meta};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(header) = Header::parse_bytes(data) {
        let again = Header::parse(&header.to_xml());
        // Two things do not come back: NaN, which does not equal itself, and control characters, which XML cannot
        // carry and `to_xml` writes as U+FFFD.
        let text = header.to_xml();
        let is_lossy = text.contains("NaN") || text.contains('\u{fffd}');
        assert!(is_lossy || again.is_ok_and(|h| h == header));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(meta) = Meta::parse(text)
    {
        assert!(Meta::parse(&meta.to_xml()).is_ok());
    }
});
