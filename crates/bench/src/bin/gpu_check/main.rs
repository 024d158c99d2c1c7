//! The program of `make gpu-check`: what a CUDA device computes beside the CPU, and how fast beside PyTorch's own eager
//! loop. `run` starts itself and `gpu-check/eager.py` as child processes, so that one that dies costs its own rows alone.

#![allow(
    clippy::print_stdout,
    reason = "a child process speaks to `run` on standard output, `run` to people"
)]

mod child;
mod latency;
mod nets;
mod parity;
mod report;
mod run;
mod speed;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use thinet_models::{parse_device, set_compute_threads};

use crate::child::Message;
use crate::nets::Scale;
use crate::run::threads;

const USAGE: &str = "gpu-check run OUT DEVICE [--seconds N]; for `run` alone: parity DEVICE | \
                     train NET PRECISION DEVICE | calibrate NET DEVICE | latency OUT DEVICE";
/// What `run` takes at most unless told otherwise.
const SECONDS: u64 = 450;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let is_child = words.first() != Some(&"run");
    let error = match dispatch(&words) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    if is_child {
        Message::Error(report::one_line(&format!("{error:#}"))).send();
    } else {
        println!("error: {error:#}");
    }
    ExitCode::FAILURE
}

fn dispatch(words: &[&str]) -> Result<()> {
    let scale = Scale::of_environment();
    set_compute_threads(threads())?;
    match *words {
        ["run", out, device] => run::run(Path::new(out), device, Duration::from_secs(SECONDS), scale),
        ["run", out, device, "--seconds", seconds] => {
            let seconds = seconds.parse().context("--seconds")?;
            run::run(Path::new(out), device, Duration::from_secs(seconds), scale)
        }
        ["parity", device] => parity::serve(parse_device(device)?, scale),
        ["train", net, precision, device] => speed::train(net, precision, parse_device(device)?, scale),
        ["calibrate", net, device] => speed::calibrate(net, parse_device(device)?, scale),
        ["latency", out, device] => latency::serve(Path::new(out), parse_device(device)?, scale),
        _ => bail!("usage: {USAGE}"),
    }
}
