//! `thinet show`: prints a stored run, a stage, or the network in a weight file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use thinet_graph::{Convention, Graph, count};
use thinet_harness::HarnessError;
use thinet_harness::inspect::{Run, find_run};
use thinet_harness::store::{Manifest, StageResult, Store, run_environment, run_spec};
use thinet_models::{FileContents, Layout};
use thinet_report::records::Environment;
use thinet_report::tables::one_line;

use crate::exit::BadArgument;
use crate::output::print_json;

/// Show a stored run, a stage of a table, or the network in a weight file
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A run (its name or id or the beginning of one, its folder, its spec or a table of it), a stage's id (the
    /// column `cell` of a table) or a .safetensors file
    what: String,
    /// Results folder
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { what, results, json } = arguments;
    let json = *json;
    if what.ends_with(".safetensors") {
        return show_weights(Path::new(what), json);
    }
    if is_weight_file(what) {
        let problem = if Path::new(what).is_file() {
            "show reads the .safetensors files of this program; a checkpoint of another program is read by `dense.weights` of a \
             spec"
        } else {
            "there is no such file"
        };
        return Err(BadArgument(format!("{what}: {problem}")).into());
    }
    match Store::at(results).find(what)? {
        Some(stage) => show_stage(&stage, json),
        None => show_run(&find_run(results, what)?, json),
    }
}

/// Whether this is the name of a weight file of another program.
fn is_weight_file(what: &str) -> bool {
    let extension = Path::new(what).extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|e| ["pth", "pt", "ckpt", "bin", "pkl", "pickle", "tar", "h5", "onnx"].contains(&e))
}

/// Prints where a row of a table comes from.
fn show_stage(stage: &StageResult, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(stage);
    }
    println!("{}: {:?}, {:.1} s\n", stage.id, stage.status, stage.seconds);
    println!(
        "from:     {}",
        stage.environment.as_ref().map_or_else(|| "an older version".to_owned(), origin_of)
    );
    for (name, hash) in &stage.files {
        println!("file:     {name}, blake3 {hash}");
    }
    for row in &stage.rows {
        let layer = if row.layer.is_empty() { "" } else { &format!(" of {}", row.layer) };
        println!("measured: {}{layer} {}: {}", row.metric.name(), row.phase.name(), row.value);
    }
    for (layer, kept) in &stage.kept {
        println!("kept:     {layer}: {} of {}: {:?}", kept.kept().len(), kept.width(), kept.kept());
    }
    println!("\n## What its id depends on\n\n{}", serde_json::to_string_pretty(&stage.inputs)?);
    Ok(())
}

fn origin_of(environment: &Environment) -> String {
    let commit = environment.program_commit.as_deref();
    let commit = commit.map_or("an unknown commit", |commit| &commit[..commit.len().min(12)]);
    let dirty = if environment.program_dirty == Some(true) { " with changes" } else { "" };
    let Environment { version, libtorch, device, threads, cpu, host, .. } = environment;
    let (cpu, host) = (cpu.as_deref().unwrap_or("unknown processor"), host.as_deref().unwrap_or("unknown"));
    format!(
        "version {version} of {commit}{dirty}, libtorch {libtorch}, {device}, {threads} threads, {cpu}, host {host}"
    )
}

/// Which programs and machines computed the stages of a run, and how many each.
fn origins(results: &Path, folder: &Path) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut origins = BTreeMap::new();
    let store = Store::at(results);
    for stage in Manifest::read(folder)?.into_iter().flat_map(|list| list.stages) {
        let result = match store.find(&stage.id) {
            Err(HarnessError::Damaged { .. }) => {
                *origins.entry("a record that cannot be read".to_owned()).or_default() += 1;
                continue;
            }
            result => result?,
        };
        if let Some(result) = result {
            let origin = result.environment.as_ref().map_or_else(|| "an older version".to_owned(), origin_of);
            *origins.entry(origin).or_default() += 1;
        }
    }
    Ok(origins)
}

fn show_run(run: &Run, json: bool) -> anyhow::Result<()> {
    let folder = run.folder();
    let spec = run_spec(&folder)?;
    // A run that has never ended has none.
    let environment = run_environment(&folder)?.unwrap_or_else(|| "null".to_owned());
    let origins = origins(&run.results, &folder)?;
    if json {
        let spec: toml::Value = toml::from_str(&spec)?;
        let environment: serde_json::Value = serde_json::from_str(&environment)?;
        return print_json(&serde_json::json!({
            "folder": folder, "spec": spec, "environment": environment, "stages-made-by": origins,
        }));
    }
    let path = folder.display();
    println!("# {path}\n\n## Spec, every default filled in\n\n{spec}\n## Environment\n\n{environment}");
    println!("## Stages were computed by\n");
    for (origin, stages) in origins {
        println!("{stages} × {origin}");
    }
    Ok(())
}

fn show_weights(path: &Path, json: bool) -> anyhow::Result<()> {
    let contents = thinet_models::file_contents(path).map_err(HarnessError::from)?;
    let is_own = contents.metadata.get("layout").is_none_or(|layout| layout == Layout::Own.name());
    if contents.graph.is_none() || !is_own {
        return show_foreign(path, &contents, json);
    }
    let (net, metadata) = thinet_models::load_net(path, tch::Device::Cpu).map_err(HarnessError::from)?;
    let counts = counts(&net.graph);
    if json {
        return print_json(
            &serde_json::json!({ "graph": net.graph, "counts": counts, "metadata": metadata }),
        );
    }
    print_graph(&net.graph);
    for tensor in net.graph.tensors() {
        println!("  {:<40} {:?}", tensor.name, tensor.shape);
    }
    for (key, value) in metadata {
        println!("{key}: {value}");
    }
    Ok(())
}

/// A graph's counts under every convention, as JSON.
fn counts(graph: &Graph) -> Vec<serde_json::Value> {
    let of = |convention| serde_json::json!({ "convention": convention, "counts": count(graph, convention) });
    Convention::ALL.map(of).to_vec()
}

fn print_graph(graph: &Graph) {
    let [c, h, w] = graph.input_shape();
    println!("{}: input {c}×{h}×{w}, {} classes", graph.name(), graph.classes());
    for convention in Convention::ALL {
        let counts = count(graph, convention);
        println!(
            "  {convention}: {} parameters, {} FLOPs, {:.2} MiB",
            counts.params,
            counts.flops,
            counts.mib()
        );
    }
}

/// A file with the names of another library: an exported net with its graph, or a file of another program.
fn show_foreign(path: &Path, contents: &FileContents, json: bool) -> anyhow::Result<()> {
    let FileContents { graph, tensors, metadata } = contents;
    if json {
        let tensors: Vec<_> = tensors
            .iter()
            .map(|(name, dtype, shape)| serde_json::json!({ "name": name, "dtype": dtype, "shape": shape }))
            .collect();
        let counts = graph.as_ref().map(counts);
        return print_json(&serde_json::json!({
            "graph": graph, "counts": counts, "metadata": metadata, "tensors": tensors,
        }));
    }
    match graph {
        Some(graph) => print_graph(graph),
        None => println!("{}: no graph in its metadata, so it is not a net of this program", path.display()),
    }
    for (name, dtype, shape) in tensors {
        let dtype = if dtype == "f32" { String::new() } else { format!(" {dtype}") };
        println!("  {name:<40} {shape:?}{dtype}");
    }
    for (key, value) in metadata {
        println!("{key}: {}", one_line(value));
    }
    Ok(())
}
