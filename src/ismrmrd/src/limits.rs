//! What a file or a peer may declare before we allocate.

/// Upper bounds on declared sizes. Exceeding one is [`crate::Error::TooLarge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Receive channels of one acquisition.
    pub channels: usize,
    /// Samples of one acquisition.
    pub samples: usize,
    /// Components per sample of a trajectory.
    pub trajectory_dimensions: usize,
    /// Bytes of the XML header.
    pub xml_bytes: usize,
    /// Bytes of one image's meta attributes.
    pub attribute_bytes: usize,
    /// Bytes of one image's voxels.
    pub image_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channels: 1024,
            samples: 65_535,
            trajectory_dimensions: 16,
            xml_bytes: 64 << 20,
            attribute_bytes: 16 << 20,
            image_bytes: 4 << 30,
        }
    }
}
