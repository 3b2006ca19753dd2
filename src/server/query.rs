//! Answers to QUERY: what we are, and the few keys that clients of other servers ask for.

/// The answer to one key.
///
/// # Source
/// Keys and the words for an unknown one: Gadgetron `core/connection`, `QueryHandler`.
pub(super) fn answer(key: &str) -> String {
    match key {
        "ismrmrd::version" => "1.14.2".into(),
        "cauda::version" | "gadgetron::version" => {
            concat!("cauda ", env!("CARGO_PKG_VERSION")).into()
        }
        "cauda::info" | "gadgetron::info" => info(),
        "gadgetron::info::memory" => {
            super::config::physical_memory().map_or_else(|| "unknown".into(), |b| b.to_string())
        }
        "gadgetron::build" => env!("CARGO_PKG_VERSION").into(),
        "gadgetron::info::python" | "gadgetron::info::matlab" | "gadgetron::info::cuda" => {
            "No".into()
        }
        "gadgetron::cuda::devices" => "0".into(),
        _ => "Unknown query".into(),
    }
}

fn info() -> String {
    format!(
        "cauda {} (MR reconstruction, MRD v1 and v2)\n  -- Memory size : {}\n  -- CUDA support : No\n",
        env!("CARGO_PKG_VERSION"),
        super::config::physical_memory()
            .map_or_else(|| "unknown".into(), |b| format!("{} MB", b >> 20))
    )
}
