//! Images in, deliveries out.
