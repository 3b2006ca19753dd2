//! Any bytes as a v1 stream; what decodes encodes to something that decodes to the same.
#![no_main]

use ismrmrd::Limits;
use ismrmrd::wire::{Step, decode, encode, sniff};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let limits = Limits { image_bytes: 1 << 20, xml_bytes: 1 << 16, ..Limits::default() };
    drop(sniff(data));
    let mut rest = data;
    while let Ok(Step::Message { message, used }) = decode(rest, &limits) {
        let mut bytes = Vec::new();
        // NaN does not equal itself, so the bytes are compared.
        if encode(&message, &mut bytes).is_ok()
            && let Ok(Step::Message { message, .. }) = decode(&bytes, &limits)
        {
            let mut again = Vec::new();
            assert!(encode(&message, &mut again).is_ok() && again == bytes);
        }
        rest = rest.get(used..).unwrap_or_default();
    }
});
