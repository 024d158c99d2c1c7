//! `thinet show`: a stored run, or the network in a weight file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use thinet_graph::{Convention, count};
use thinet_harness::{HarnessError, list_runs};

use super::print_json;
use crate::exit::BadArgument;

pub(crate) fn show(what: &str, results: &Path, json: bool) -> anyhow::Result<()> {
    if what.ends_with(".safetensors") {
        show_weights(Path::new(what), json)
    } else {
        show_run(&find_run(what, results)?, json)
    }
}

/// The folder of the one run whose name starts with `what`.
fn find_run(what: &str, results: &Path) -> anyhow::Result<PathBuf> {
    let names = list_runs(results)?;
    let found: Vec<&String> = names.iter().filter(|name| name.starts_with(what)).collect();
    match found[..] {
        [one] => Ok(results.join("runs").join(one)),
        [] => {
            let stored = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Err(BadArgument(format!(
                "no run in {} starts with {what:?}; stored: {stored}",
                results.display()
            ))
            .into())
        }
        _ => Err(BadArgument(format!("several runs start with {what:?}: {found:?}")).into()),
    }
}

fn show_run(folder: &Path, json: bool) -> anyhow::Result<()> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (spec, environment) = (read("resolved.toml")?, read("env.json")?);
    if json {
        let spec: serde_json::Value = thinet_harness::spec::Spec::parse(&spec, &folder.join("resolved.toml"))
            .map_err(HarnessError::from)
            .and_then(|spec| serde_json::to_value(spec).map_err(HarnessError::Json))?;
        let environment: serde_json::Value = serde_json::from_str(&environment)?;
        return print_json(
            &serde_json::json!({ "folder": folder, "spec": spec, "environment": environment }),
        );
    }
    println!(
        "# {}\n\n## Spec, every default filled in\n\n{spec}\n## Environment\n\n{environment}",
        folder.display()
    );
    Ok(())
}

fn show_weights(path: &Path, json: bool) -> anyhow::Result<()> {
    let (net, metadata) = thinet_models::load_net(path, tch::Device::Cpu).map_err(HarnessError::from)?;
    let counts = Convention::ALL.map(|convention| (convention, count(&net.graph, convention)));
    if json {
        let counts: Vec<_> = counts
            .iter()
            .map(|(convention, counts)| serde_json::json!({ "convention": convention, "counts": counts }))
            .collect();
        return print_json(
            &serde_json::json!({ "graph": net.graph, "counts": counts, "metadata": metadata }),
        );
    }
    let [c, h, w] = net.graph.input_shape();
    println!("{}: input {c}×{h}×{w}, {} classes", net.graph.name(), net.graph.classes());
    for (convention, counts) in counts {
        println!(
            "  {convention}: {} parameters, {} FLOPs, {:.2} MiB",
            counts.params,
            counts.flops,
            counts.mib()
        );
    }
    for tensor in net.graph.tensors() {
        println!("  {:<40} {:?}", tensor.name, tensor.shape);
    }
    for (key, value) in metadata {
        println!("{key}: {value}");
    }
    Ok(())
}
