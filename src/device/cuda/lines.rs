//! Lines of k-space on a card.

use num_complex::Complex32;

use super::{Arg, Buffer, CudaError, Queue, grid, int};

/// Threads of `sort_lines_c32`.
const BLOCK: usize = 256;

/// Lines `[coil, line, x]` at their places, each with a factor: `[coil, place, x]`, zero where no line belongs.
///
/// # Shapes
/// `line_of` (the line of each place, or -1) and `factor` are `[place]` at least; `n_x` samples in a line.
///
/// # Errors
/// As [`Queue::launch`].
pub fn sort_lines(
    queue: &impl Queue,
    (lines, line_of, factor): (&Buffer<Complex32>, &Buffer<i32>, &Buffer<Complex32>),
    out: &mut Buffer<Complex32>,
    [n_coils, n_lines, n_places, n_x]: [usize; 4],
) -> Result<(), CudaError> {
    let args = [
        Arg::input(lines),
        Arg::input(line_of),
        Arg::input(factor),
        Arg::output(out),
        int(n_lines)?,
        int(n_places)?,
        int(n_x)?,
    ];
    let blocks = [grid((n_places * n_x).div_ceil(BLOCK))?, grid(n_coils)?, 1];
    queue.launch("sort_lines_c32", blocks, &args)
}
