//! Image meta attributes (`ismrmrdMeta` XML): names with one or more values, order kept.

/// Ordered meta attributes of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// `(name, values)` in document order.
    pub entries: Vec<(String, Vec<String>)>,
}
