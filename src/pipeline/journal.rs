//! Which images of a stream were sent or were being sent: a text file beside the stream, a line for each image.
//!
//! The server writes a line *before* it sends; a reconstruction of the stream that was left behind marks the images that
//! stand in it, so that nobody takes a second copy for a first one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::data::FrameKey;

/// The journal of a stream.
pub fn beside(stream: &Path) -> PathBuf {
    stream.with_extension("sent")
}

/// The line for an image.
pub fn line(key: &FrameKey) -> String {
    let counters = key.counters().map(|n| n.to_string());
    counters.join(" ") + "\n"
}

/// Images that stand in the journal beside `stream`; none without one. A line that was cut short by a kill names an
/// image that was never sent, and is passed over.
pub fn read(stream: &Path) -> BTreeSet<FrameKey> {
    let text = std::fs::read_to_string(beside(stream)).unwrap_or_default();
    text.split_inclusive('\n')
        .filter(|l| l.ends_with('\n'))
        .filter_map(parse)
        .collect()
}

fn parse(line: &str) -> Option<FrameKey> {
    let numbers: Vec<u16> = line
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    Some(FrameKey::from_counters(numbers.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_and_half_a_line_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let stream = dir.path().join("scan.mrd");
        assert!(read(&stream).is_empty());
        let key = |slice_idx| FrameKey {
            slice_idx,
            repetition: 65_535,
            ..FrameKey::default()
        };
        let cut = line(&key(3));
        let text = line(&key(1)) + &line(&key(2)) + "rubbish\n" + &cut[..cut.len() - 1];
        std::fs::write(beside(&stream), text).unwrap();
        assert_eq!(read(&stream), BTreeSet::from([key(1), key(2)]));
    }
}
