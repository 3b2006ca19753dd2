//! Whole scans through the door.
