//! One gzip member, compressed by all threads: blocks are deflated apart and joined at byte borders (as pigz does).

use std::io::Write;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use rayon::prelude::*;

/// Bytes of one block: fixed, so that the file does not depend on the number of threads.
const BLOCK: usize = 1 << 20;

/// Writes `bytes` as gzip.
///
/// # Numerics
/// Level 1: float voxels hardly shrink more at higher levels, at several times the cost.
///
/// # Source
/// RFC 1951 (a stored empty block after each part aligns it to a byte), RFC 1952. The time field is 0, so that the
/// same image gives the same file.
pub(super) fn write(out: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
    let blocks: Vec<&[u8]> = if bytes.is_empty() {
        vec![&[]]
    } else {
        bytes.chunks(BLOCK).collect()
    };
    let n = blocks.len();
    let parts = blocks
        .par_iter()
        .enumerate()
        .map(|(i, block)| deflate(block, i + 1 == n))
        .collect::<std::io::Result<Vec<(Vec<u8>, Crc)>>>()?;
    out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
    let mut crc = Crc::new();
    for (part, part_crc) in &parts {
        out.write_all(part)?;
        crc.combine(part_crc);
    }
    out.write_all(&crc.sum().to_le_bytes())?;
    out.write_all(&crc.amount().to_le_bytes())
}

fn deflate(block: &[u8], is_last: bool) -> std::io::Result<(Vec<u8>, Crc)> {
    let mut crc = Crc::new();
    crc.update(block);
    let mut compress = Compress::new(Compression::new(1), false);
    let flush = if is_last {
        FlushCompress::Finish
    } else {
        FlushCompress::Sync
    };
    let mut out = Vec::with_capacity(block.len() + block.len() / 1000 + 64);
    loop {
        let taken = compress.total_in() as usize;
        let status = compress
            .compress_vec(&block[taken..], &mut out, flush)
            .map_err(std::io::Error::other)?;
        let all_in = compress.total_in() as usize == block.len();
        let done = match flush {
            FlushCompress::Finish => status == Status::StreamEnd,
            // Room left over after a sync flush means that the flush is complete.
            _ => all_in && out.len() < out.capacity(),
        };
        if done {
            return Ok((out, crc));
        }
        out.reserve(64 << 10);
    }
}
