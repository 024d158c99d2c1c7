//! The performance figures of this project, each measured in turn with its reference on one thread: `make bench`.
//!
//! Criterion does the sampling and keeps our own times from run to run. Every sample of ours has the reference's
//! beside it, and the table at the end comes from these pairs. A filter (`cargo bench -p thinet-bench -- training`)
//! leaves out the others; only peak memory is always measured.
#![allow(clippy::print_stdout, reason = "this program prints the table of figures")]

mod calibration;
mod estimates;
mod feeding;
mod in_turn;
mod loaders;
mod memory;
mod moments;
mod noise;
mod prepared;
mod program;
mod pytorch;
mod selection;
mod training;
mod waves;

use std::time::Duration;

use anyhow::Result;
use criterion::Criterion;
use thinet_bench::table;

fn main() -> Result<()> {
    thinet_models::set_compute_threads(1)?;
    if let Some(rows) = memory::rows_to_calibrate()? {
        return memory::calibrate_and_report(rows);
    }
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_secs(20))
        .configure_from_args();

    let mut figures = selection::figures(&mut criterion)?;
    figures.extend(moments::figures(&mut criterion)?);
    figures.push(memory::figure()?);
    figures.extend(calibration::figures(&mut criterion)?);
    figures.push(training::figure(&mut criterion)?);
    figures.extend(prepared::figures(&mut criterion)?);
    figures.extend(feeding::figures(&mut criterion)?);
    figures.push(loaders::figure(&mut criterion)?);
    figures.extend(estimates::figures(&mut criterion)?);
    figures.extend(program::figures(&mut criterion)?);
    criterion.final_summary();
    println!("\nOne thread; libtorch {}.\n\n{}", thinet_models::LIBTORCH_VERSION, table(&figures));
    Ok(())
}
