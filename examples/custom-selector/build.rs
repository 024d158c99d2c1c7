//! Lets the program find libtorch where it was built; without this, set LD_LIBRARY_PATH to the `lib` folder of libtorch.

fn main() {
    let libtorch = std::env::var("LIBTORCH").expect("set LIBTORCH to the folder of libtorch 2.11.0");
    for argument in ["-Xlinker", "-rpath", "-Xlinker", &format!("{libtorch}/lib")] {
        println!("cargo::rustc-link-arg={argument}");
    }
}
