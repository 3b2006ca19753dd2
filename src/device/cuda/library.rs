//! Kernels as images for one card: from images that came along, from the cache, or compiled now and kept.
//!
//! An image is found by what it is made of: the digest of the kernel's text with all that it includes and of the
//! options, the architecture, and in the cache the version of the compiler. So a new text, compiler or card compiles
//! anew, and nothing that is stale is ever loaded.

use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::nvrtc::OPTIONS;
use super::{Arch, Compiler, CudaError};

/// A kernel's text.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Name of its file in `kernels/`.
    pub name: &'static str,
    /// The text.
    pub text: &'static str,
    /// What it may include: name and text.
    pub headers: &'static [(&'static str, &'static str)],
}

impl Kernel {
    /// Of text, headers and options: hexadecimal, 32 digits.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let headers = self.headers.iter().flat_map(|(n, h)| [*n, *h]);
        for part in [self.text].into_iter().chain(headers).chain(OPTIONS) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let bytes = hash.finalize();
        bytes[..16].iter().map(|b| format!("{b:02x}")).collect()
    }

    fn stem(&self) -> &str {
        self.name.strip_suffix(".cu").unwrap_or(self.name)
    }

    /// Name of the file of an image that travels.
    pub fn shipped(&self, arch: Arch) -> String {
        format!("{}.{arch}.{}.cubin", self.stem(), self.digest())
    }

    /// Name of an image in the cache.
    fn cached(&self, arch: Arch, version: &str) -> String {
        format!(
            "{}.{arch}.nvrtc{version}.{}.cubin",
            self.stem(),
            self.digest()
        )
    }
}

/// Where an image came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It came along with the program.
    Shipped(PathBuf),
    /// It was compiled before.
    Cached(PathBuf),
    /// It was compiled now, by this version of the compiler.
    Compiled(String),
}

/// Machine code of one kernel file.
#[derive(Clone, Debug)]
pub struct Image {
    /// ELF.
    pub bytes: Vec<u8>,
    /// Where it came from.
    pub origin: Origin,
    /// Why an image that was compiled now will be compiled again at the next start.
    pub not_kept: Option<String>,
}

impl Image {
    fn found(bytes: Vec<u8>, origin: Origin) -> Self {
        Self {
            bytes,
            origin,
            not_kept: None,
        }
    }
}

/// Where images are looked for and kept.
#[derive(Clone, Debug)]
pub struct Library {
    shipped: Vec<PathBuf>,
    cache: Option<PathBuf>,
    compiler: Option<Compiler>,
}

impl Library {
    /// `shipped`: folders of images that came along; `cache`: where compiled ones are kept.
    pub fn new(shipped: Vec<PathBuf>, cache: Option<PathBuf>, compiler: Option<Compiler>) -> Self {
        Self {
            shipped,
            cache,
            compiler,
        }
    }

    /// By the environment: images in `CAUDA_KERNELS` and in `kernels` beside the program; the cache in `CAUDA_CACHE`, else
    /// `XDG_CACHE_HOME/cauda`, else `~/.cache/cauda`.
    pub fn open() -> Self {
        let folder = |key: &str| {
            let path = std::env::var_os(key).filter(|p| !p.is_empty())?;
            Some(PathBuf::from(path))
        };
        let beside = std::env::current_exe()
            .ok()
            .and_then(|p| Some(p.parent()?.join("kernels")));
        let cache = folder("CAUDA_CACHE")
            .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("cauda")))
            .or_else(|| Some(folder("HOME")?.join(".cache/cauda")));
        Self::new(
            folder("CAUDA_KERNELS").into_iter().chain(beside).collect(),
            cache.map(|c| c.join("kernels")),
            Compiler::find().ok(),
        )
    }

    /// Where compiled images are kept.
    pub fn cache(&self) -> Option<&Path> {
        self.cache.as_deref()
    }

    /// The image of a kernel.
    ///
    /// # Errors
    /// [`CudaError::NoImage`], [`CudaError::Compile`], [`CudaError::Compiler`]. An image that cannot be kept is used all
    /// the same, and says so.
    pub fn image(&self, kernel: &Kernel, arch: Arch) -> Result<Image, CudaError> {
        let version = self.compiler.as_ref().map_or("", |c| c.version());
        let cached = self
            .cache
            .as_ref()
            .map(|c| c.join(kernel.cached(arch, version)));
        let found = |path: &Path| std::fs::read(path).ok().filter(|b| is_image(b));
        for folder in &self.shipped {
            let path = folder.join(kernel.shipped(arch));
            if let Some(bytes) = found(&path) {
                return Ok(Image::found(bytes, Origin::Shipped(path)));
            }
        }
        let Some(compiler) = &self.compiler else {
            let folders = self.shipped.iter().map(|p| p.display().to_string());
            return Err(CudaError::NoImage {
                kernel: kernel.name,
                arch,
                searched: folders.collect::<Vec<_>>().join(", "),
            });
        };
        if let Some(path) = &cached
            && let Some(bytes) = found(path)
        {
            return Ok(Image::found(bytes, Origin::Cached(path.clone())));
        }
        let bytes = compiler.compile(kernel, arch)?;
        let not_kept = match &cached {
            Some(path) => store(path, &bytes).err().map(|e| e.to_string()),
            None => Some("there is no cache folder: set CAUDA_CACHE".into()),
        };
        Ok(Image {
            bytes,
            origin: Origin::Compiled(version.to_owned()),
            not_kept,
        })
    }

    /// Compiles for a machine that has only the driver; returns the file.
    ///
    /// # Errors
    /// As [`Self::image`], and [`CudaError::Store`].
    pub fn ship(&self, kernel: &Kernel, arch: Arch, folder: &Path) -> Result<PathBuf, CudaError> {
        let image = self.image(kernel, arch)?;
        let path = folder.join(kernel.shipped(arch));
        store(&path, &image.bytes)?;
        Ok(path)
    }
}

/// Whether it is what a compiler made: a file that a power cut left empty is not.
fn is_image(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// Beside it first, so that another process never reads half an image.
fn store(path: &Path, bytes: &[u8]) -> Result<(), CudaError> {
    let write = || -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|source| CudaError::Store {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: (&str, &str) = ("half.cuh", "#define HALF 0.5f\n");
    const KERNEL: Kernel = Kernel {
        name: "halve.cu",
        text: "#include \"half.cuh\"\nextern \"C\" __global__ void halve(float *v) { v[threadIdx.x] *= HALF; }\n",
        headers: &[HEADER],
    };

    #[test]
    fn a_digest_knows_text_headers_and_their_borders() {
        let digest = |text, headers| {
            let kernel = Kernel {
                name: "k.cu",
                text,
                headers,
            };
            kernel.digest()
        };
        let all = [
            digest("ab", &[]),
            digest("a", &[]),
            digest("ab", &[HEADER]),
            digest("ab", &[("half.cuh", "#define HALF 0.4f\n")]),
            digest("a", &[("b", "")]),
            digest("", &[("a", "b")]),
        ];
        let unique: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(unique.len(), all.len());
        assert_eq!(all[0].len(), 32);
    }

    #[test]
    fn without_a_compiler_only_images_that_came_along_and_are_of_this_text_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_owned();
        let library = Library::new(vec![folder.clone()], None, None);
        let words = library.image(&KERNEL, Arch(90)).unwrap_err().to_string();
        for part in [
            "halve.cu",
            "sm_90",
            "install NVRTC",
            &folder.display().to_string(),
        ] {
            assert!(words.contains(part), "{words}");
        }
        let path = folder.join(KERNEL.shipped(Arch(90)));
        // Half an image is none.
        std::fs::write(&path, b"").unwrap();
        assert!(library.image(&KERNEL, Arch(90)).is_err());
        std::fs::write(&path, b"\x7fELF...").unwrap();
        assert_eq!(
            library.image(&KERNEL, Arch(90)).unwrap().origin,
            Origin::Shipped(path)
        );
        assert!(library.image(&KERNEL, Arch(80)).is_err());
        let other = Kernel {
            text: "// another text",
            ..KERNEL
        };
        assert!(library.image(&other, Arch(90)).is_err());
    }

    #[test]
    fn compiled_once_kept_and_shipped() {
        let Ok(compiler) = Compiler::find() else {
            eprintln!("SKIPPED: NVRTC is not here");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let (cache, out) = (dir.path().join("cache"), dir.path().join("out"));
        let library = Library::new(Vec::new(), Some(cache), Some(compiler.clone()));
        let first = library.image(&KERNEL, Arch(90)).unwrap();
        assert!(matches!(first.origin, Origin::Compiled(_)) && first.not_kept.is_none());
        let homeless = Library::new(Vec::new(), None, Some(compiler.clone()));
        let image = homeless.image(&KERNEL, Arch(90)).unwrap();
        assert!(
            image
                .not_kept
                .is_some_and(|why| why.contains("CAUDA_CACHE"))
        );
        let second = library.image(&KERNEL, Arch(90)).unwrap();
        assert!(matches!(second.origin, Origin::Cached(_)));
        assert!(first.bytes == second.bytes && is_image(&first.bytes));
        library.ship(&KERNEL, Arch(80), &out).unwrap();
        let bare = Library::new(vec![out], None, None);
        assert!(matches!(
            bare.image(&KERNEL, Arch(80)).unwrap().origin,
            Origin::Shipped(_)
        ));
        // The compiler's words reach whoever wrote the kernel.
        let wrong = Kernel {
            text: "extern \"C\" __global__ void halve(float *v) { v[0] = nothing; }",
            ..KERNEL
        };
        let words = library.image(&wrong, Arch(90)).unwrap_err().to_string();
        assert!(
            words.contains("halve.cu") && words.contains("nothing"),
            "{words}"
        );
    }
}
