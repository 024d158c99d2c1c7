//! The `thinet` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    thinet_cli::main(&[])
}
