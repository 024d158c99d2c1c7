//! `thinet plan`: cells, what is done, FLOPs and a time estimate. Touches nothing.

use serde::Serialize;
use thinet_harness::store::Store;
use thinet_harness::{Estimate, estimate};

use super::{duration, jobs, open_plan, print_json};
use crate::args::Study;

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    experiment: String,
    run: String,
    dataset: String,
    train_images: usize,
    test_images: usize,
    net: String,
    layers: Vec<String>,
    dense: Vec<DenseLine>,
    cells: Vec<CellLine>,
    cost: Cost,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct DenseLine {
    id: String,
    seed: u64,
    is_done: bool,
    parameters: u64,
    flops: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct CellLine {
    id: String,
    method: String,
    keep_rate: f64,
    seed: u64,
    is_done: bool,
    parameters: u64,
    flops: u64,
    widths: Vec<usize>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Cost {
    stages: usize,
    done: usize,
    multiply_adds: f64,
    seconds: f64,
    jobs: usize,
    is_measured: bool,
}

pub(crate) fn plan(study: &Study, asked: Option<u16>, json: bool) -> anyhow::Result<()> {
    let plan = open_plan(&study.spec, &study.place.options(study.seeds))?;
    let jobs = jobs(asked, plan.spec.compute.threads);
    let Estimate { stages, done, macs, seconds, is_measured } = estimate(&plan, jobs)?;
    let store = Store::at(&plan.results);
    let report = Report {
        experiment: plan.spec.name.clone(),
        run: plan.run.clone(),
        dataset: plan.data.train.name().to_owned(),
        train_images: plan.data.train.len(),
        test_images: plan.data.test.len(),
        net: plan.net_label(),
        layers: plan.layers.clone(),
        dense: plan
            .dense
            .iter()
            .map(|stage| DenseLine {
                id: stage.id.to_string(),
                seed: stage.seed,
                is_done: store.is_done(&stage.id),
                parameters: plan.size.paper.params,
                flops: plan.size.paper.flops,
            })
            .collect(),
        cells: plan
            .cells
            .iter()
            .map(|cell| CellLine {
                id: cell.id.to_string(),
                method: cell.method.label(),
                keep_rate: cell.keep_rate,
                seed: cell.seed,
                is_done: store.is_done(&cell.id),
                parameters: cell.size.paper.params,
                flops: cell.size.paper.flops,
                widths: cell.keep.iter().map(|(_, kept)| *kept).collect(),
            })
            .collect(),
        cost: Cost { stages, done, multiply_adds: macs, seconds, jobs, is_measured },
    };
    if json { print_json(&report) } else { print(&report, &plan.spec.prune.mode.to_string()) }
}

fn print(report: &Report, mode: &str) -> anyhow::Result<()> {
    println!("experiment  {} (run {})", report.experiment, report.run);
    println!(
        "data        {}: {} training, {} test images",
        report.dataset, report.train_images, report.test_images
    );
    println!("net         {}", report.net);
    println!("pruned      {mode}: {}", report.layers.join(" "));
    println!();
    println!(
        "{:<5} {:<28} {:>5} {:>4} {:>12} {:>9}  widths kept",
        "state", "method", "keep", "seed", "parameters", "MFLOPs"
    );
    let state = |is_done: bool| if is_done { "done" } else { "to do" };
    for line in &report.dense {
        let mega = line.flops as f64 / 1e6;
        println!(
            "{:<5} {:<28} {:>5} {:>4} {:>12} {mega:>9.2}",
            state(line.is_done),
            "dense",
            "",
            line.seed,
            line.parameters
        );
    }
    for line in &report.cells {
        let widths: Vec<String> = line.widths.iter().map(usize::to_string).collect();
        let mega = line.flops as f64 / 1e6;
        println!(
            "{:<5} {:<28} {:>5} {:>4} {:>12} {mega:>9.2}  {}",
            state(line.is_done),
            line.method,
            line.keep_rate,
            line.seed,
            line.parameters,
            widths.join(" ")
        );
    }
    let Cost { stages, done, multiply_adds, seconds, jobs, is_measured } = report.cost;
    println!();
    println!(
        "parameters and FLOPs in the paper's convention (no biases; FLOPs = 2 × multiply-adds, one image)"
    );
    println!("{done} of {stages} stages are stored; {:.1} tera multiply-adds to do", multiply_adds / 1e12);
    let basis = if is_measured {
        "measured on the stored stages"
    } else {
        "rough: 20 giga multiply-adds a second and thread assumed"
    };
    let plural = if jobs == 1 { "" } else { "s" };
    println!("time with {jobs} job{plural}: about {} ({basis})", duration(seconds));
    Ok(())
}
