//! From the encoded grid to the image's matrix and field of view, with the noise that goes along.
