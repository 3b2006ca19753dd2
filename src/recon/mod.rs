//! K-space in, image out.
