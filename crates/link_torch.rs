//! Build script shared by every crate that uses tch: programs find libtorch when they run, and CUDA stays linked.
#![allow(clippy::print_stdout, reason = "a build script speaks to cargo on standard output")]

use std::path::Path;

pub(crate) fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    // .cargo/config.toml sets it to the absolute path of `.libtorch`.
    let Ok(root) = std::env::var("LIBTORCH") else {
        println!("cargo::error=LIBTORCH is not set: run cargo inside the project (.cargo/config.toml)");
        return;
    };
    let lib = Path::new(&root).join("lib");
    if !lib.join("libtorch_cpu.so").exists() {
        println!("cargo::error=no libtorch in {root}: run `make setup` once");
        return;
    }
    // Two arguments, because -Wl splits at commas and a folder's name may hold one.
    link_args(&["-Xlinker", "-rpath", "-Xlinker", &lib.display().to_string()]);
    // Programs load it when a GPU is asked for. Release builds have it from the start; debug ones, which tests start hundreds of times, save a
    // fifth of a second and 370 MB each without it.
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if is_release && lib.join("libtorch_cuda.so").exists() {
        // No symbol of it is named in the program, so the linker would drop the library that registers the kernels.
        println!("cargo::rustc-link-search=native={}", lib.display());
        link_args(&["-Wl,--no-as-needed", "-ltorch_cuda", "-Wl,--as-needed"]);
    }
}

/// Adds the arguments to the link step of this package's programs, tests, benches and examples.
pub(crate) fn link_args(args: &[&str]) {
    for arg in args {
        println!("cargo::rustc-link-arg={arg}");
    }
}
