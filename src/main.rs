//! Parse, call the command, map the result to an exit code.

use std::process::ExitCode;

#[allow(unsafe_code)] // the environment, once
fn main() -> ExitCode {
    // libtorch's OpenMP reads this when the plug-in is loaded. Its threads would otherwise spin while they wait, on the cores
    // that the reconstruction wants: a scan of 15 slices took half as long again.
    if std::env::var_os("OMP_WAIT_POLICY").is_none() {
        // SAFETY: nobody else reads or writes the environment: this is the process's first line and its only thread.
        unsafe { std::env::set_var("OMP_WAIT_POLICY", "PASSIVE") };
    }
    cauda::cli::main()
}
