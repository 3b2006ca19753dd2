//! Any bytes as a v2 stream. Seed with small valid streams: the schema is hard to guess.
#![no_main]

use ismrmrd::Limits;
use ismrmrd::wire::v2::Reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let limits = Limits { image_bytes: 1 << 20, xml_bytes: 1 << 16, ..Limits::default() };
    if let Ok(mut reader) = Reader::new(data, limits) {
        while let Ok(Some(_)) = reader.next_item() {}
    }
});
