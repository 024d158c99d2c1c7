//! Compiles the switches that the bindings lack (`src/switches.cpp`), then links like every crate that uses tch.

use std::path::Path;

#[path = "../link_torch.rs"]
mod link_torch;

fn main() {
    link_torch::main();
    let Ok(root) = std::env::var("LIBTORCH") else { return };
    let include = Path::new(&root).join("include");
    if !include.join("ATen").is_dir() {
        println!("cargo::error=no headers in {}: run `make setup` once", include.display());
        return;
    }
    println!("cargo::rerun-if-changed=src/switches.cpp");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .include(include)
        .file("src/switches.cpp")
        .compile("thinet_switches");
}
