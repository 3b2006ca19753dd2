//! Ctrl-C and the termination signal: the first asks for an ordered end, the second ends at once.

use std::sync::atomic::{AtomicBool, Ordering};

static IS_SET: AtomicBool = AtomicBool::new(false);

/// What a shell expects of a program that was interrupted: 128 + 2.
pub const EXIT_CODE: u8 = 130;

/// Whether an end was asked for.
pub fn is_set() -> bool {
    IS_SET.load(Ordering::Relaxed)
}

/// The end that was asked for has come in order.
pub(super) fn clear() {
    IS_SET.store(false, Ordering::Relaxed);
}

/// Takes over the signals. The pipeline asks between batches and frames; outputs are written beside their names and
/// renamed when whole, so an end at any moment leaves no half output.
pub(super) fn install() {
    let handler = || {
        if IS_SET.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(EXIT_CODE));
        }
    };
    // Failing means that a handler is there already, or the platform has no signals: the default then ends the
    // process at once, which is the second-best answer to Ctrl-C.
    if let Err(e) = ctrlc::set_handler(handler) {
        super::output::note(&format!("Ctrl-C ends at once, without tidying up: {e}"));
    }
}
