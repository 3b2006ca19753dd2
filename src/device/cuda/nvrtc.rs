//! NVRTC: kernel text in, an image for one architecture out. Needs no driver and no card.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use cudarc::nvrtc::result::NvrtcError;
use cudarc::nvrtc::sys;

use super::{Arch, CudaError, Kernel};

/// How every kernel is compiled. Fused multiply-adds stay on: the CPU's versions use them too.
pub(super) const OPTIONS: [&str; 3] = ["--std=c++17", "--restrict", "-default-device"];

/// The compiler of this machine.
#[derive(Clone, Debug)]
pub struct Compiler {
    version: String,
}

/// Destroys its program.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `nvrtcCreateProgram`, destroyed here and nowhere else. A failure leaves a little memory.
        unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

fn check(call: &'static str, status: sys::nvrtcResult) -> Result<(), CudaError> {
    status
        .result()
        .map_err(|NvrtcError(status)| CudaError::Compiler {
            call,
            hint: match status {
                sys::nvrtcResult::NVRTC_ERROR_BUILTIN_OPERATION_FAILURE => {
                    "; its libnvrtc-builtins must be in LD_LIBRARY_PATH"
                }
                _ => "",
            },
            status: format!("{status:?}"),
        })
}

impl Compiler {
    /// Looks for the library.
    ///
    /// # Errors
    /// [`CudaError::Compiler`]: it is not here, or too broken to tell its version.
    pub fn find() -> Result<Self, CudaError> {
        // SAFETY: opens libnvrtc, whose initialisers NVIDIA ships to be run on opening, and looks at nothing in it.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::Compiler {
                call: "looking for libnvrtc.so",
                status: "nothing".into(),
                hint: "; kernels are taken from the cache or from shipped images. To compile them: `pip install \
                       nvidia-cuda-nvrtc-cu12` and its lib folder in LD_LIBRARY_PATH, or the CUDA toolkit",
            });
        }
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the library is here; the call writes two integers to the addresses of two.
        check("nvrtcVersion", unsafe {
            sys::nvrtcVersion(&mut major, &mut minor)
        })?;
        Ok(Self {
            version: format!("{major}.{minor}"),
        })
    }

    /// Major and minor.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Compiles to machine code. Warnings are errors: nobody would read them.
    ///
    /// # Errors
    /// [`CudaError::Compile`] with the compiler's words; [`CudaError::Compiler`].
    pub fn compile(&self, kernel: &Kernel, arch: Arch) -> Result<Vec<u8>, CudaError> {
        let text = |s: &str| {
            CString::new(s).map_err(|_| CudaError::Compile {
                kernel: kernel.name.to_owned(),
                arch,
                version: self.version.clone(),
                log: "the text holds a NUL".into(),
            })
        };
        let (source, name) = (text(kernel.text)?, text(kernel.name)?);
        let headers = kernel.headers.iter().map(|(_, h)| text(h));
        let headers = headers.collect::<Result<Vec<_>, _>>()?;
        let names = kernel.headers.iter().map(|(n, _)| text(n));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        let pointers = |of: &[CString]| of.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
        let (header_pointers, name_pointers) = (pointers(&headers), pointers(&names));
        let count = i32::try_from(headers.len()).unwrap_or(i32::MAX);
        let mut raw: sys::nvrtcProgram = ptr::null_mut();
        // SAFETY: all strings end with a NUL and outlive the program, which is dropped at the end of this function,
        // before them; both lists have `count` entries.
        check("nvrtcCreateProgram", unsafe {
            sys::nvrtcCreateProgram(
                &mut raw,
                source.as_ptr(),
                name.as_ptr(),
                count,
                header_pointers.as_ptr(),
                name_pointers.as_ptr(),
            )
        })?;
        let program = Program(raw);
        let mut options = vec![text(&format!("--gpu-architecture={arch}"))?];
        for option in OPTIONS {
            options.push(text(option)?);
        }
        let option_pointers = pointers(&options);
        let count = i32::try_from(options.len()).unwrap_or(i32::MAX);
        // SAFETY: the program is alive; the options end with a NUL, outlive the call, and there are `count`.
        let status =
            unsafe { sys::nvrtcCompileProgram(program.0, count, option_pointers.as_ptr()) };
        let log = log(&program)?;
        let is_refused = status == sys::nvrtcResult::NVRTC_ERROR_COMPILATION;
        if is_refused || (status == sys::nvrtcResult::NVRTC_SUCCESS && log.contains("warning")) {
            return Err(CudaError::Compile {
                kernel: kernel.name.to_owned(),
                arch,
                version: self.version.clone(),
                log,
            });
        }
        check("nvrtcCompileProgram", status)?;
        let mut size = 0;
        // SAFETY: the program is compiled; the call writes one size to the address of one.
        check("nvrtcGetCUBINSize", unsafe {
            sys::nvrtcGetCUBINSize(program.0, &mut size)
        })?;
        let mut image = vec![0u8; size];
        // SAFETY: the image has as many bytes as the line above said that the call writes.
        check("nvrtcGetCUBIN", unsafe {
            sys::nvrtcGetCUBIN(program.0, image.as_mut_ptr().cast::<c_char>())
        })?;
        Ok(image)
    }
}

fn log(program: &Program) -> Result<String, CudaError> {
    let mut size = 0;
    // SAFETY: the program is alive; the call writes one size to the address of one.
    check("nvrtcGetProgramLogSize", unsafe {
        sys::nvrtcGetProgramLogSize(program.0, &mut size)
    })?;
    let mut log = vec![0u8; size.max(1)];
    // SAFETY: the log has as many bytes as the line above said that the call writes.
    check("nvrtcGetProgramLog", unsafe {
        sys::nvrtcGetProgramLog(program.0, log.as_mut_ptr().cast::<c_char>())
    })?;
    let words = CStr::from_bytes_until_nul(&log).map_or_else(|_| "".into(), CStr::to_string_lossy);
    Ok(words.trim().to_owned())
}
