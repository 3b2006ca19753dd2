//! What of CUDA this machine has, found without opening a context on any card.
#![allow(unsafe_code)]

use cudarc::driver::{result, sys};

use super::{Arch, Compiler, CudaError};

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

fn driver() -> Result<String, String> {
    super::driver::find().map_err(|e| e.to_string())?;
    let mut number = 0;
    // SAFETY: the function is here; the call writes one integer to the address of one, and needs no initialisation.
    let status = unsafe { sys::cuDriverGetVersion(&mut number) };
    match status.result() {
        Ok(()) => Ok(version(number)),
        Err(e) => Err(format!("the driver does not tell its version: {e:?}")),
    }
}

fn cards() -> Result<Vec<Card>, String> {
    super::driver::driver().map_err(|e| match e {
        // What to do is said with the driver.
        CudaError::NoDriver { why } => why,
        e => e.to_string(),
    })?;
    let count = result::device::get_count().map_err(|e| format!("no cards counted: {:?}", e.0))?;
    (0..count)
        .map(|ordinal| card(ordinal).map(|(_, c)| c).map_err(|e| e.to_string()))
        .collect()
}

/// A card, of a driver that was initialised.
pub(super) fn card(ordinal: i32) -> Result<(sys::CUdevice, Card), CudaError> {
    let found = result::device::get_count().unwrap_or(0);
    if !(0..found).contains(&ordinal) {
        return Err(CudaError::NoCard { ordinal, found });
    }
    let failed = |call| {
        move |e: result::DriverError| CudaError::Call {
            call,
            card: format!("card {ordinal}"),
            status: format!("{:?}", e.0),
        }
    };
    let device = result::device::get(ordinal).map_err(failed("cuDeviceGet"))?;
    let attribute = |which| {
        // SAFETY: `device` came from the driver just above.
        unsafe { result::device::get_attribute(device, which) }
            .map_err(failed("cuDeviceGetAttribute"))
    };
    use sys::CUdevice_attribute as A;
    let major = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    // SAFETY: as above.
    let memory = unsafe { result::device::total_mem(device) };
    let card = Card {
        name: result::device::get_name(device).map_err(failed("cuDeviceGetName"))?,
        arch: Arch((10 * major + minor).unsigned_abs()),
        memory_bytes: memory.map_err(failed("cuDeviceTotalMem"))? as u64,
    };
    Ok((device, card))
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
                    why.contains("install") && cards.contains("libcuda.so"),
                    "{found:?}"
                );
            }
            (Err(_), Ok(_)) => panic!("cards without a driver: {found:?}"),
            (Ok(_), _) => println!("{found:?}"),
        }
    }
}
