//! The program of `make gpu-check`: `thinet` itself, and commands that compare a CUDA device with the CPU and measure how fast it
//! trains and calibrates. `gpu-check/gpu_check.py` runs it beside PyTorch on the GPU machine. Its own commands print lines of JSON;
//! every other first word is one of `thinet`'s commands.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is read by gpu_check.py")]

mod evidence;
mod feeding;
mod input;
mod parity;
mod row;
mod smooth;
mod speed;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use thinet_models::{Device, set_compute_threads};

const USAGE: &str = "gpu-check parity DEVICE BATCH bytes|set|sgd|dropout|MODEL|evidence… | train NET PRECISION BATCH SECONDS DEVICE | \
                     infer NET PRECISION BATCH SECONDS DEVICE | fed NET BATCH SECONDS DEVICE | \
                     calibrate NET BATCH SECONDS DEVICE | load decoding|prepared IMAGES SECONDS THREADS DEVICE | \
                     a command of thinet";

/// The commands that are not thinet's.
const OWN: [&str; 6] = ["parity", "train", "infer", "fed", "calibrate", "load"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // Also where thinet starts its own program as a worker.
    if !words.first().is_some_and(|first| OWN.contains(first)) {
        return thinet_cli::main(&[]);
    }
    match own(&words) {
        Ok(report) => {
            if let Some(report) = report {
                println!("{report}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one of the program's own commands. Returns its line; `parity` has printed its lines itself.
fn own(words: &[&str]) -> Result<Option<Value>> {
    set_compute_threads(cores())?;
    let report = match *words {
        ["parity", device, batch, ref names @ ..] => {
            parity::parity(available(device)?, batch.parse().context("BATCH")?, names)?;
            return Ok(None);
        }
        [what @ ("train" | "infer"), net, precision, batch, seconds, device] => {
            let measure = if what == "train" { speed::train } else { speed::infer };
            let (batch, seconds) = (batch.parse().context("BATCH")?, seconds.parse().context("SECONDS")?);
            measure(net, precision, batch, seconds, available(device)?)?
        }
        [what @ ("fed" | "calibrate"), net, batch, seconds, device] => {
            let measure = if what == "fed" { speed::fed } else { speed::calibrate };
            let (batch, seconds) = (batch.parse().context("BATCH")?, seconds.parse().context("SECONDS")?);
            measure(net, batch, seconds, available(device)?)?
        }
        ["load", way, images, seconds, threads, device] => speed::load(
            way,
            images.parse().context("IMAGES")?,
            seconds.parse().context("SECONDS")?,
            threads.parse().context("THREADS")?,
            available(device)?,
        )?,
        _ => bail!("usage: {USAGE}"),
    };
    Ok(Some(report))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The device of this name, checked to be available.
fn available(name: &str) -> Result<Device> {
    let device: Device = name.parse()?;
    device.check_usable()?;
    Ok(device)
}
