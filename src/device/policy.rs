//! What a site chose: where operators run, and what a fault of the card means.

/// Where operators run; protocol key `device.prefer`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// On a card if there is one that the operator can use, else on the CPU; the recipe says which and why.
    #[default]
    Auto,
    /// On the CPU.
    Cpu,
    /// On a card; without one the plan is refused.
    Cuda,
}

/// What happens to a scan whose card fails; protocol key `device.on_cuda_fault`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The scan fails, with what the card said.
    #[default]
    Fail,
    /// The frame and what comes after it are reconstructed on the CPU; the provenance of each image says so.
    FinishOnCpu,
}
