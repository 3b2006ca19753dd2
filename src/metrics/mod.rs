//! Counters, stage times, image quality.
