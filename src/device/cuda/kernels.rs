//! The kernels' texts: what `kernels/` holds is part of the program.

use super::Kernel;

macro_rules! kernel {
    ($name:literal) => {
        Kernel {
            name: $name,
            text: include_str!(concat!("../../../kernels/", $name)),
            headers: HEADERS,
        }
    };
}

const HEADERS: &[(&str, &str)] = &[
    ("common.cuh", include_str!("../../../kernels/common.cuh")),
    ("fft.cuh", include_str!("../../../kernels/fft.cuh")),
];

/// All of them.
pub const KERNELS: &[Kernel] = &[
    kernel!("combine.cu"),
    kernel!("espirit.cu"),
    kernel!("espirit_space.cu"),
    kernel!("fft.cu"),
    kernel!("grappa_beside.cu"),
    kernel!("grappa_unmix.cu"),
    kernel!("lines.cu"),
    kernel!("sense_cg.cu"),
    kernel!("sense_planes.cu"),
    kernel!("sense_unfold.cu"),
    kernel!("whiten.cu"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda::{Arch, Compiler};

    #[test]
    fn no_text_is_left_behind() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let mut there: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.ends_with(".cu"))
            .collect();
        there.sort();
        let known: Vec<&str> = KERNELS.iter().map(|k| k.name).collect();
        assert_eq!(known, there);
        assert!(
            KERNELS
                .iter()
                .all(|k| k.text.contains("#include \"common.cuh\""))
        );
    }

    #[test]
    fn every_kernel_becomes_an_image() {
        let Ok(compiler) = Compiler::find() else {
            eprintln!("SKIPPED: NVRTC is not here");
            return;
        };
        for kernel in KERNELS {
            let image = compiler.compile(kernel, Arch(90)).unwrap();
            assert!(image.starts_with(b"\x7fELF"), "{}", kernel.name);
        }
    }
}
