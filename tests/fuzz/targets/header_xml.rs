//! Any bytes: refused, or a header that reads back the same after writing. Also as meta attributes.
#![no_main]

use ismrmrd::{Header, Meta};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(header) = Header::parse_bytes(data) {
        let again = Header::parse(&header.to_xml());
        // NaN is the one value that does not equal itself; a user parameter may hold it.
        let nan = header.to_xml().contains("NaN");
        assert!(nan || again.is_ok_and(|h| h == header));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(meta) = Meta::parse(text)
    {
        assert!(Meta::parse(&meta.to_xml()).is_ok());
    }
});
