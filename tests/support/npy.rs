//! Small `.npy` arrays of `tests/golden` (version 1, C order, little-endian) and the numbers of `case.toml`.

use cauda::data::Complex32;
use std::path::PathBuf;

/// One golden case.
pub(crate) struct Golden {
    folder: PathBuf,
    case: toml::Table,
}

impl Golden {
    pub(crate) fn open(case: &str) -> Self {
        let folder = super::root().join("tests/golden").join(case);
        let text = std::fs::read_to_string(folder.join("case.toml")).unwrap();
        Self {
            folder,
            case: text.parse().unwrap(),
        }
    }

    /// A number under `[thresholds]`.
    pub(crate) fn number(&self, key: &str) -> f64 {
        let value = &self.case["thresholds"][key];
        value
            .as_float()
            .or_else(|| value.as_integer().map(|i| i as f64))
            .unwrap_or_else(|| panic!("{key} is no number"))
    }

    /// Element type, shape and bytes.
    fn raw(&self, name: &str) -> (String, Vec<usize>, Vec<u8>) {
        let bytes = std::fs::read(self.folder.join(format!("{name}.npy"))).unwrap();
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{name}: not npy 1.0");
        let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let header = std::str::from_utf8(&bytes[10..end]).unwrap();
        assert!(header.contains("'fortran_order': False"), "{name}");
        let between = |from: &str, to: char| {
            let start = header.find(from).unwrap() + from.len();
            let len = header[start..].find(to).unwrap();
            header[start..start + len].to_owned()
        };
        let shape = between("'shape': (", ')')
            .split(',')
            .filter_map(|s| s.trim().parse().ok())
            .collect();
        (between("'descr': '", '\''), shape, bytes[end..].to_vec())
    }

    /// A complex64 array.
    pub(crate) fn complex(&self, name: &str) -> (Vec<usize>, Vec<Complex32>) {
        let (kind, shape, bytes) = self.raw(name);
        assert_eq!(kind, "<c8", "{name}");
        let float = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let values = bytes
            .chunks_exact(8)
            .map(|b| Complex32::new(float(&b[..4]), float(&b[4..])))
            .collect();
        (shape, values)
    }

    /// A float32 array.
    pub(crate) fn real(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (kind, shape, bytes) = self.raw(name);
        assert_eq!(kind, "<f4", "{name}");
        let values = bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        (shape, values)
    }

    /// An int16 array.
    pub(crate) fn counts(&self, name: &str) -> (Vec<usize>, Vec<i16>) {
        let (kind, shape, bytes) = self.raw(name);
        assert_eq!(kind, "<i2", "{name}");
        let values = bytes
            .chunks_exact(2)
            .map(|b| i16::from_le_bytes([b[0], b[1]]))
            .collect();
        (shape, values)
    }

    /// A bool array.
    pub(crate) fn mask(&self, name: &str) -> (Vec<usize>, Vec<bool>) {
        let (kind, shape, bytes) = self.raw(name);
        assert_eq!(kind, "|b1", "{name}");
        (shape, bytes.iter().map(|b| *b != 0).collect())
    }
}
