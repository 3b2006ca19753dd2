//! Compiles `settle.cpp` with the headers of `$LIBTORCH`; the library will look for libtorch in the folder `libtorch` beside it.

fn main() {
    println!("cargo::rerun-if-changed=src/settle.cpp");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = std::env::var_os("LIBTORCH") else {
        println!(
            "cargo::error=needed: LIBTORCH, a folder with include/ and lib/; scripts/torch.sh sets it"
        );
        return;
    };
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .include(std::path::Path::new(&libtorch).join("include"))
        .file("src/settle.cpp")
        .compile("settle");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-rpath,$ORIGIN/libtorch");
}
