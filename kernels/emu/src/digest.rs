//! Whether two texts of a kernel are the same.

/// Of a kernel's text and its headers, to know whether two are the same (FNV-1a; not a safeguard against malice).
pub fn digest(text: &str, headers: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for part in std::iter::once(&text).chain(headers) {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}
