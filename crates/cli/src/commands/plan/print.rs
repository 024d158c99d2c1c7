//! A plan as text.

use super::targets::TargetLine;
use super::{Cost, Report, TuningLine, VariantLine, why};
use crate::group_lines::GroupLine;
use crate::kind_line::KindLine;
use crate::words::{bf16_is_slow, duration, stages_in_words};

/// `conv1_1 … conv4_3`.
fn named(layers: &[String]) -> String {
    match layers {
        [first, .., last] if layers.len() > 4 => format!("{first} … {last} ({} layers)", layers.len()),
        _ => layers.join(", "),
    }
}

pub(super) fn print(report: &Report) -> anyhow::Result<()> {
    let run = report.run.as_ref().map_or_else(String::new, |run| format!(" (run {run})"));
    println!("study       {}{run}", report.study);
    let count = |images: Option<usize>| images.map_or_else(|| "?".to_owned(), |n| n.to_string());
    println!(
        "data        {}: {} training, {} test images",
        report.dataset,
        count(report.train_images),
        count(report.test_images)
    );
    if let Some(missing) = &report.missing {
        println!("missing     {missing}");
    }
    for file in &report.prepared {
        println!("read from   {file}");
    }
    println!("net         {}", report.net);
    if let Some(weights) = &report.weights {
        let missing = if weights.is_file() { "" } else { " (not there)" };
        println!("weights     {}{missing}", weights.display());
    }
    let is_as_spec = |variant: &VariantLine| {
        (&variant.mode, &variant.layers, &variant.tuning) == (&report.mode, &report.layers, &report.tuning)
    };
    let all_as_spec = report.variants.iter().all(is_as_spec);
    if all_as_spec {
        print_pruning(&report.mode, &report.layers, &report.tuning);
    }
    for variant in &report.variants {
        let overrides = if variant.overrides.is_empty() { "as the spec" } else { &variant.overrides };
        println!("variant     {}: {overrides}", variant.name);
        if !all_as_spec {
            print_pruning(&variant.mode, &variant.layers, &variant.tuning);
        }
    }
    for program in &report.programs {
        println!("program     {program}; needs --allow-commands");
    }
    for GroupLine { name, channels, producers, readers, .. } in &report.groups {
        let (producers, readers) = (producers.join(" "), readers.join(" "));
        println!("group       {name}: {channels} channels, computed by {producers}, read by {readers}");
    }
    report.targets.iter().for_each(TargetLine::print);
    println!();
    print_cells(report);
    println!();
    println!(
        "parameters and FLOPs in the paper's convention (no biases; FLOPs = 2 × multiply-adds, one image)"
    );
    match &report.cost {
        Some(cost) => print_cost(cost),
        None => println!("time and disk cannot be estimated without the data"),
    }
    if let Some(reasons) = &report.why {
        println!();
        why::print(reasons);
    }
    Ok(())
}

fn print_pruning(mode: &str, layers: &[String], tuning: &[TuningLine]) {
    println!("pruned      {mode}: {}", layers.join(" "));
    let mut total = Some(0.0);
    for line in tuning {
        println!("tuning      after {}: {}", named(&line.after), line.recipe);
        total = total.zip(line.epochs).map(|(sum, epochs)| sum + epochs * line.after.len() as f64);
    }
    if let Some(total) = total {
        println!("            {} epochs of tuning a cell", (total * 100.0).round() / 100.0);
    }
}

fn print_cells(report: &Report) {
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
    let mut variant = &None;
    for line in &report.cells {
        if line.variant != *variant {
            variant = &line.variant;
            println!("      {}", variant.as_deref().unwrap_or_default());
        }
        let widths = line.widths.as_ref().map_or_else(
            || "known after calibration".to_owned(),
            |widths| widths.iter().map(usize::to_string).collect::<Vec<_>>().join(" "),
        );
        let unknown = || "?".to_owned();
        println!(
            "{:<5} {:<28} {:>5} {:>4} {:>12} {:>9}  {widths}",
            state(line.is_done),
            line.method,
            line.keep_rate,
            line.seed,
            line.parameters.map_or_else(unknown, |parameters| parameters.to_string()),
            line.flops.map_or_else(unknown, |flops| format!("{:.2}", flops as f64 / 1e6)),
        );
    }
}

fn print_cost(cost: &Cost) {
    println!(
        "{} of {} stages are stored ({}); {:.1} tera multiply-adds to do",
        cost.done,
        cost.stages,
        stages_in_words([cost.dense_nets, cost.calibrations, cost.cells]),
        cost.multiply_adds / 1e12
    );
    let rate = format!("{:.0} giga multiply-adds per second and job", cost.rate / 1e9);
    let basis = if cost.is_measured {
        format!("measured on the stored stages: {rate}")
    } else {
        format!("rough: {rate} assumed")
    };
    let (jobs, plural) = (cost.jobs, if cost.jobs == 1 { "" } else { "s" });
    let device = &cost.device;
    println!("time with {jobs} job{plural} on {device}: about {} ({basis})", duration(cost.seconds));
    cost.work.iter().for_each(KindLine::print);
    println!("disk needed: about {:.1} GB", cost.disk_bytes / 1e9);
    if cost.is_bf16_slow && cost.done < cost.stages {
        println!("note: {}", bf16_is_slow());
    }
}
