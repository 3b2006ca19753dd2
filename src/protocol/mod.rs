//! TOML in, plan out.
