//! Puts the commit that the program is built from into it, then links like every crate that uses tch, or for a wheel
//! (`THINET_WHEEL` is set): there the program finds the libtorch of the Python environment that it is installed in, with or without
//! CUDA.
//!
//! `THINET_COMMIT` and `THINET_DIRTY` are left unset where the sources are not those of a checkout.
#![allow(clippy::print_stdout, reason = "a build script speaks to cargo on standard output")]

use std::path::Path;
use std::process::Command;

#[path = "../link_torch.rs"]
mod link_torch;

/// What the program is built from, relative to this package's folder.
const SOURCES: [&str; 4] =
    ["../../crates", "../../Cargo.toml", "../../Cargo.lock", "../../rust-toolchain.toml"];

/// Versions of Python 3 that torch has wheels for.
const PYTHONS: std::ops::RangeInclusive<u32> = 10..=14;

fn main() {
    println!("cargo::rerun-if-env-changed=THINET_WHEEL");
    match std::env::var_os("THINET_WHEEL") {
        Some(_) => link_in_wheel(),
        None => link_torch::main(),
    }
    for source in SOURCES.into_iter().filter(|source| Path::new(source).exists()) {
        println!("cargo::rerun-if-changed={source}");
    }
    // An archive that was unpacked inside another checkout is not part of it.
    if git(&["ls-files", "--error-unmatch", "Cargo.toml"]).is_none() {
        return;
    }
    // A commit changes the branch's file, a change of the branch changes HEAD. The index is left out: `git status` alone
    // writes it, and a staged change has changed a source as well. In a worktree `.git` is a file, so git is
    // asked where these are.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]).unwrap_or_default();
    for name in ["HEAD", "logs/HEAD", "packed-refs", &branch].into_iter().filter(|name| !name.is_empty()) {
        // Cargo would rerun this script on every call because of a missing file.
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    if let Some(commit) = git(&["rev-parse", "HEAD"]) {
        println!("cargo::rustc-env=THINET_COMMIT={commit}");
    }
    let mut status = vec!["status", "--porcelain", "--untracked-files=no", "--"];
    status.extend(SOURCES);
    if let Some(changes) = git(&status) {
        println!("cargo::rustc-env=THINET_DIRTY={}", !changes.is_empty());
    }
}

/// The program is `bin/thinet` of an environment; Debian's own Python keeps packages in dist-packages.
fn link_in_wheel() {
    for (python, packages) in PYTHONS.flat_map(|n| ["site-packages", "dist-packages"].map(|name| (n, name))) {
        let lib = format!("$ORIGIN/../lib/python3.{python}/{packages}/torch/lib");
        link_torch::link_args(&["-Xlinker", "-rpath", "-Xlinker", &lib]);
    }
}

/// What git prints, if it is there and succeeds.
fn git(arguments: &[&str]) -> Option<String> {
    // Without this, `git status` would write the index.
    let output = Command::new("git").arg("--no-optional-locks").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
