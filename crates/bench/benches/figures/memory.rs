//! Peak memory of a calibration pass of few and of many rows, each in a process of its own.
//!
//! A process's peak never decreases, so this program starts itself twice, with the number of rows as its
//! arguments.

use std::env;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use thinet_bench::{Bound, Figure, process_memory};
use thinet_sampling::SamplingSpec;

use crate::calibration::{Case, Pass, row_values};

const FEW: usize = 10_000;
const MANY: usize = 1_000_000;
/// The first argument of a child.
const ARGUMENT: &str = "--calibrate-rows";

/// What a child reports, in KiB.
struct Report {
    /// Before the first batch: the program, libtorch, the network and a batch of images.
    before: u64,
    peak: u64,
    /// Values that the rows of all layers together held.
    values: u64,
}

/// The rows that this process is asked to calibrate with, if it is such a child.
pub(crate) fn rows_to_calibrate() -> Result<Option<usize>> {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() != Some(ARGUMENT) {
        return Ok(None);
    }
    let rows = arguments.next().with_context(|| format!("{ARGUMENT} needs a number of rows"))?;
    Ok(Some(rows.parse().with_context(|| format!("{ARGUMENT} {rows}"))?))
}

/// The child: calibrates every layer with `rows` rows, and prints its memory.
pub(crate) fn calibrate_and_report(rows: usize) -> Result<()> {
    let case = Case::small();
    let pass = Pass::new(&case)?;
    let before = process_memory()?.resident;
    let mut collector = pass.collector()?;
    let images = rows / SamplingSpec::default().positions_per_image;
    for first in (0..images).step_by(case.batch) {
        pass.batch(&mut collector, first, &mut |_| ())?;
    }
    let seen =
        collector.finish()?.iter().filter_map(|evidence| Some(evidence.moments.as_ref()?.rows())).min();
    ensure!(seen == Some(rows as u64), "{rows} rows were asked for, {seen:?} were seen");
    println!("{before} {} {}", process_memory()?.peak, rows * row_values(&pass.layers));
    Ok(())
}

pub(crate) fn figure() -> Result<Figure> {
    let (few, many) = (child(FEW)?, child(MANY)?);
    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    Ok(Figure {
        name: "peak memory of calibration, m = 1,000,000 over m = 10,000".to_owned(),
        ours: mib(many.peak),
        reference: mib(few.peak),
        ratio: Some(many.peak as f64 / few.peak as f64),
        required: Some(Bound::AtMost(1.05)),
        note: format!(
            "measured: peak resident set (VmHWM) of a process each, VGG-16-GAP ×1/8 32×32, all layers and selectors. \
             Before the pass there were {} and {}, so the pass itself added {} and {}; the rows as a matrix would take \
             {:.1} GiB",
            mib(many.before),
            mib(few.before),
            mib(many.peak.saturating_sub(many.before)),
            mib(few.peak.saturating_sub(few.before)),
            (many.values * size_of::<f64>() as u64) as f64 / 1024_f64.powi(3),
        ),
    })
}

fn child(rows: usize) -> Result<Report> {
    let program = env::current_exe()?;
    let output = Command::new(&program)
        .args([ARGUMENT, &rows.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start of {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "calibration with {rows} rows ended with {}: {text}", output.status);
    let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
    match numbers.as_deref() {
        Ok(&[before, peak, values]) => Ok(Report { before, peak, values }),
        _ => bail!("calibration with {rows} rows reported {text:?}"),
    }
}
