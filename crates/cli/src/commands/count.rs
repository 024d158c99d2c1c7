//! `thinet count`: counts parameters, FLOPs and multiply-adds of a network, or of the paper's eight models beside the published values.

use clap::Args;
use serde::Serialize;
use thinet_graph::{
    Convention, Counts, Graph, channel_group, count as count_graph, count_layers, kept_channels,
    prunable_layers, with_channels,
};
use thinet_harness::HarnessError;
use thinet_nets::{Arch, NetSpec, ResNetStride, resnet50_pruned_layers, vgg16_pruned_layers};
use thinet_report::tables::{self, grouped};

use crate::exit::BadArgument;
use crate::group_lines::group_lines;
use crate::output::print_json;

/// Count parameters, FLOPs and multiply-adds of a network
#[derive(Debug, Args)]
#[command(after_help = "\
FLOPs = 2 x multiply-adds of convolutions and fully connected layers, for one image.
  paper           weights without biases, two values per batch-norm channel
  all-parameters  every trained value

Examples:
  thinet count --all
  thinet count resnet50 --stride 3x3
  thinet count vgg16-gap --keep-rate 0.5 --layers
  thinet count resnet50 --groups
  thinet count resnet50 --keep-rate 0.5 --prune layer4.0.add")]
pub(crate) struct Arguments {
    /// The network, see `thinet list models`
    #[arg(value_name = "MODEL", required_unless_present = "all", conflicts_with = "all")]
    model: Option<String>,
    /// Count the paper's eight models, beside the published values
    #[arg(long)]
    all: bool,
    /// Convolution that strides in the down-sampling blocks of a ResNet
    #[arg(long, value_name = "1x1|3x3")]
    stride: Option<String>,
    /// Width multiplier
    #[arg(long, value_name = "W", default_value_t = 1.0)]
    width: f64,
    /// Keep this fraction of the channels of each pruned layer
    #[arg(long, value_name = "R")]
    keep_rate: Option<f64>,
    /// Layers or groups that --keep-rate prunes [default: the paper's choice, else every convolution that one layer alone
    /// reads]
    #[arg(long, value_name = "LAYER,…", value_delimiter = ',', requires = "keep_rate")]
    prune: Vec<String>,
    /// Channels, height and width of the input [default: the network's own]
    #[arg(long, value_name = "CxHxW")]
    input: Option<String>,
    /// Number of classes [default: the network's own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    classes: Option<u32>,
    /// Print a line for each layer
    #[arg(long, conflicts_with = "all")]
    layers: bool,
    /// Print a line for each group of channels that can be pruned: what `prune.layers` of a spec may name
    #[arg(long, conflicts_with_all = ["all", "layers"])]
    groups: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.all {
        let table = tables::compression().map_err(HarnessError::from)?;
        if arguments.json {
            return print_json(&table.rows().map_err(HarnessError::from)?);
        }
        println!("{}", table.markdown());
        return Ok(());
    }
    let name = arguments.model.as_deref().unwrap_or_default();
    let graph = build(name, arguments).map_err(|e| BadArgument(format!("{name}: {e}")))?;
    if arguments.groups {
        return print_groups(&graph, arguments.json);
    }
    if arguments.layers { print_layers(&graph, arguments.json) } else { print_total(&graph, arguments.json) }
}

/// The network that the arguments describe.
fn build(name: &str, arguments: &Arguments) -> anyhow::Result<Graph> {
    let arch: Arch = name.parse()?;
    let mut spec = NetSpec::new(arch);
    spec.width = arguments.width;
    spec.stride = arguments.stride.as_deref().map(str::parse::<ResNetStride>).transpose()?;
    let input = arguments.input.as_deref().map_or(Ok(arch.input()), parse_input)?;
    let classes = arguments.classes.map_or(arch.classes(), |n| n as usize);
    let mut graph = spec.build(input, classes)?;
    if let Some(rate) = arguments.keep_rate {
        let layers =
            if arguments.prune.is_empty() { paper_layers(arch, &graph) } else { arguments.prune.clone() };
        for layer in &layers {
            let kept = kept_channels(layer, channel_group(&graph, layer)?.channels, rate)?;
            graph = with_channels(&graph, layer, kept)?;
        }
    }
    Ok(graph)
}

/// The layers that the paper prunes in this network, else every prunable one.
fn paper_layers(arch: Arch, graph: &Graph) -> Vec<String> {
    match arch {
        Arch::Vgg16 | Arch::Vgg16Gap => vgg16_pruned_layers(),
        Arch::Resnet50 => resnet50_pruned_layers(),
        _ => prunable_layers(graph).into_iter().map(|layer| layer.name).collect(),
    }
}

/// Largest side of an input; beyond it counts would overflow.
const SIDE: usize = 4096;

fn parse_input(text: &str) -> anyhow::Result<[usize; 3]> {
    let numbers: Vec<usize> = text.split(['x', '×']).filter_map(|part| part.parse().ok()).collect();
    let is_side = |number: &usize| (1..=SIDE).contains(number);
    match numbers[..] {
        [c, h, w] if text.split(['x', '×']).count() == 3 && numbers.iter().all(is_side) => Ok([c, h, w]),
        _ => anyhow::bail!(
            "--input {text:?} is not channels x height x width, each from 1 to {SIDE}, such as 3x224x224"
        ),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Total {
    model: String,
    input: [usize; 3],
    classes: usize,
    counts: Vec<Line>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Line {
    convention: Convention,
    #[serde(flatten)]
    counts: Counts,
    mib: f64,
}

fn print_total(graph: &Graph, json: bool) -> anyhow::Result<()> {
    let counts = Convention::ALL.map(|convention| {
        let counts = count_graph(graph, convention);
        Line { convention, counts, mib: counts.mib() }
    });
    let total = Total {
        model: graph.name().to_owned(),
        input: graph.input_shape(),
        classes: graph.classes(),
        counts: counts.into(),
    };
    if json {
        return print_json(&total);
    }
    let [c, h, w] = total.input;
    println!("{}, input {c}×{h}×{w}, {} classes", total.model, total.classes);
    println!("{:<15} {:>15} {:>18} {:>18} {:>10}", "convention", "parameters", "FLOPs", "MACs", "MiB fp32");
    for Line { convention, counts, mib } in &total.counts {
        println!(
            "{:<15} {:>15} {:>18} {:>18} {mib:>10.2}",
            convention.to_string(),
            grouped(counts.params),
            grouped(counts.flops),
            grouped(counts.macs)
        );
    }
    Ok(())
}

fn print_layers(graph: &Graph, json: bool) -> anyhow::Result<()> {
    let layers = count_layers(graph, Convention::AllParameters);
    if json {
        let lines: Vec<_> = layers
            .iter()
            .map(|layer| {
                serde_json::json!({
                    "name": layer.name, "kind": layer.kind, "output": layer.output.to_string(), "counts": layer.counts
                })
            })
            .collect();
        return print_json(&lines);
    }
    println!("{:<24} {:<10} {:>13} {:>13} {:>15}", "layer", "kind", "output", "parameters", "MACs");
    for layer in layers {
        println!(
            "{:<24} {:<10} {:>13} {:>13} {:>15}",
            layer.name,
            layer.kind,
            layer.output.to_string(),
            grouped(layer.counts.params),
            grouped(layer.counts.macs)
        );
    }
    println!("every trained value counts as a parameter; MACs are for one image");
    Ok(())
}

fn print_groups(graph: &Graph, json: bool) -> anyhow::Result<()> {
    let lines = group_lines(graph);
    if json {
        return print_json(&lines);
    }
    println!("{:<20} {:>8}  {:<5}  computed by → read by", "group", "channels", "\"all\"");
    for line in lines {
        let in_all = if line.in_all { "yes" } else { "no" };
        let (producers, readers) = (line.producers.join(" "), line.readers.join(" "));
        println!("{:<20} {:>8}  {in_all:<5}  {producers} → {readers}", line.name, line.channels);
    }
    println!("prune.layers of a spec names groups; \"all\" prunes those marked yes");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_three_positive_numbers() {
        assert_eq!(parse_input("3x224x224").unwrap(), [3, 224, 224]);
        for wrong in ["", "3x224", "3x224x224x1", "3xax224", "0x1x1", "3x9000000000x9000000000", "3x5000x1"] {
            assert!(parse_input(wrong).is_err(), "{wrong}");
        }
    }
}
