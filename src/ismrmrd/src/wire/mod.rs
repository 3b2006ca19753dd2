//! MRD streams: v1 messages and v2 (yardl) records.
