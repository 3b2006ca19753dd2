//! Files of any kind in, an ISMRMRD header and readouts out.
