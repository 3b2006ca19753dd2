//! Stage borders: a panic becomes a fault, non-finite values are counted.

use std::any::Any;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Mutex;

use num_complex::Complex32;

use crate::data::{Fault, FaultKind};

/// Where the last panic happened; the payload that `catch_unwind` returns does not say.
static LAST_PLACE: Mutex<Option<String>> = Mutex::new(None);

/// Panic hook that remembers the place instead of printing it.
pub fn remember_panic(info: &PanicHookInfo<'_>) {
    let place = info
        .location()
        .map(|l| format!("{}:{}", l.file(), l.line()));
    *LAST_PLACE.lock().unwrap_or_else(|e| e.into_inner()) = place;
}

/// The words of a caught panic, with its place if it was remembered.
pub fn panic_text(payload: &(dyn Any + Send)) -> String {
    let words = payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown panic".to_owned());
    let place = LAST_PLACE.lock().unwrap_or_else(|e| e.into_inner()).take();
    match place {
        Some(place) => format!("{} ({place})", words.replace('\n', " ")),
        None => words.replace('\n', " "),
    }
}

/// Runs one stage; a panic inside becomes a [`FaultKind::Bug`].
///
/// # Errors
/// Those of `work`, and the caught panic.
pub fn border<T>(room: &'static str, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        Err(Fault::new(
            FaultKind::Bug,
            room,
            format!(
                "a fault of this program in {room}: {}; please report it with the scan's header",
                panic_text(payload.as_ref())
            ),
        ))
    })
}

/// Counts samples with a part that is NaN or infinite.
pub fn count_non_finite(values: &[Complex32]) -> u64 {
    // All exponent bits set is the definition of not finite; integer compares of a block run side by side.
    const EXPONENT: u32 = 0x7f80_0000;
    values
        .chunks(4096)
        .map(|block| {
            let count: u32 = block
                .iter()
                .map(|v| {
                    let re = v.re.to_bits() & EXPONENT == EXPONENT;
                    let im = v.im.to_bits() & EXPONENT == EXPONENT;
                    u32::from(re | im)
                })
                .sum();
            u64::from(count)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_bug() {
        let fault = border::<()>("recon", || panic!("index 7 of 3")).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Bug);
        assert!(fault.message.contains("index 7 of 3"), "{}", fault.message);
    }

    #[test]
    fn every_kind_of_non_finite_value_counts_once() {
        let mut v = vec![Complex32::new(1e38, -1e38); 10_000];
        assert_eq!(count_non_finite(&v), 0);
        v[3].re = f32::NAN;
        v[4_097].im = f32::INFINITY;
        v[9_999] = Complex32::new(f32::NEG_INFINITY, f32::NAN);
        assert_eq!(count_non_finite(&v), 3);
    }
}
