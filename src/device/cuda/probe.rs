//! What of CUDA this machine has, found without opening a context on any card.
#![allow(unsafe_code)]

use cudarc::driver::{result, sys};

use super::{Arch, Compiler};

/// One card.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Card {
    /// As the driver calls it.
    pub name: String,
    /// What kernels must be compiled for.
    pub arch: Arch,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

/// What was found.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Probe {
    /// CUDA version that the driver serves, or why there is none.
    pub driver: Result<String, String>,
    /// Cards, or why none can be used.
    pub cards: Result<Vec<Card>, String>,
    /// Version of the run-time compiler, or why there is none.
    pub nvrtc: Result<String, String>,
}

/// Looks for the driver, its cards and the run-time compiler.
pub fn probe() -> Probe {
    Probe {
        driver: driver(),
        cards: cards(),
        nvrtc: Compiler::find()
            .map(|c| c.version().to_owned())
            .map_err(|e| e.to_string()),
    }
}

/// `12080` is `12.8`.
fn version(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

fn is_driver_here() -> bool {
    // SAFETY: opens libcuda, whose initialisers NVIDIA ships to be run on opening, and looks at nothing in it.
    unsafe { sys::is_culib_present() }
}

fn driver() -> Result<String, String> {
    if !is_driver_here() {
        return Err("no libcuda.so: no NVIDIA driver; install it to use a card".into());
    }
    let mut number = 0;
    // SAFETY: the library is here; the call writes one integer to the address of one, and needs no initialisation.
    let status = unsafe { sys::cuDriverGetVersion(&mut number) };
    match status.result() {
        Ok(()) => Ok(version(number)),
        Err(e) => Err(format!("the driver does not tell its version: {e:?}")),
    }
}

fn cards() -> Result<Vec<Card>, String> {
    if !is_driver_here() {
        return Err("no NVIDIA driver".into());
    }
    let failed = |what: &str, e: result::DriverError| format!("{what}: {:?}", e.0);
    result::init().map_err(|e| failed("the driver does not start", e))?;
    let count = result::device::get_count().map_err(|e| failed("no cards counted", e))?;
    (0..count)
        .map(|ordinal| {
            let failed = |e| failed(&format!("card {ordinal}"), e);
            let device = result::device::get(ordinal).map_err(failed)?;
            let attribute = |which| {
                // SAFETY: `device` came from the driver two lines above.
                unsafe { result::device::get_attribute(device, which) }.map_err(failed)
            };
            use sys::CUdevice_attribute as A;
            let major = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
            let minor = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
            // SAFETY: as above.
            let memory = unsafe { result::device::total_mem(device) }.map_err(failed)?;
            Ok(Card {
                name: result::device::get_name(device).map_err(failed)?,
                arch: Arch((10 * major + minor).unsigned_abs()),
                memory_bytes: memory as u64,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_nvidia_writes_them() {
        assert_eq!([12080, 13000, 11040].map(version), ["12.8", "13.0", "11.4"]);
    }

    #[test]
    fn a_machine_without_a_card_says_so_and_goes_on() {
        let found = probe();
        match (&found.driver, &found.cards) {
            (Err(why), Err(cards)) => {
                assert!(
                    why.contains("install") && cards.contains("driver"),
                    "{found:?}"
                );
            }
            (Err(_), Ok(_)) => panic!("cards without a driver: {found:?}"),
            (Ok(_), _) => println!("{found:?}"),
        }
    }
}
