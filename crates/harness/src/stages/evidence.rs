//! The one-shot evidence of a dense net: one calibration pass serves all layers, selectors and keep rates.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::json;
use tch::{Kind, Tensor};
use thinet_graph::{PrunableLayer, prunable_layer};
use thinet_models::{Net, load_tensors, save_tensors};
use thinet_seed::Seed;
use thinet_selectors::{Evidence, Moments, ZeroCounts};

use super::calibrate::calibrate;
use super::{Context, Made, dense};
use crate::error::HarnessError;
use crate::plan::DensePlan;
use crate::progress::Event;
use crate::records::Status;

const FILE: &str = "evidence.safetensors";

/// Makes the stage if it is not stored. The dense net must be.
pub(crate) fn ensure(context: &Context<'_>, dense: &DensePlan) -> Result<(), HarnessError> {
    let id = &dense.evidence;
    if context.store.result(id)?.is_some() {
        return Ok(());
    }
    let started = Instant::now();
    let label = dense.evidence_label();
    context.reporter.event(&Event::StageStarted { id: id.to_string(), label });
    let folder = context.store.begin(id)?;
    let net = dense::load(context, dense)?;
    let seed = Seed::root(dense.seed).child("calibration");
    let progress = |done, total| context.progress(id, "calibrate", done, total);
    let evidence = calibrate(context, &net, layers(context, &net)?, seed, &progress)?;

    let mut tensors = Vec::new();
    for layer in &evidence {
        let (Some(zeros), Some(moments)) = (&layer.zeros, &layer.moments) else {
            unreachable!("calibrate gathers everything")
        };
        let c = layer.channels as i64;
        let gram: Vec<f64> = (0..layer.channels).flat_map(|i| moments.row(i).to_vec()).collect();
        let counts: Vec<i64> = zeros.zeros.iter().map(|&n| n as i64).collect();
        let mut push = |name: &str, tensor| tensors.push((format!("{}.{name}", layer.layer), tensor));
        push("gram", Tensor::f_from_slice(&gram)?.f_view([c, c])?);
        push("rows", Tensor::f_from_slice(&[moments.rows() as i64])?);
        push("zeros", Tensor::f_from_slice(&counts)?);
        push("total", Tensor::f_from_slice(&[zeros.total as i64])?);
    }
    context.claim.check()?;
    save_tensors(&folder.join(FILE), &tensors, &BTreeMap::from([("stage".to_owned(), id.to_string())]))?;
    let made = Made {
        id,
        inputs: json!({ "dense": dense.id.as_str() }),
        status: Status::Done,
        rows: Vec::new(),
        kept: BTreeMap::new(),
        test_images: None,
        started,
        summary: format!("{} layers", evidence.len()),
    };
    context.finish(made, &[FILE])?;
    Ok(())
}

/// The stored evidence in pruning order; filters are read from the dense net.
pub(crate) fn load(
    context: &Context<'_>,
    dense: &DensePlan,
    net: &Net,
) -> Result<Vec<Evidence>, HarnessError> {
    let id = &dense.evidence;
    let result = context
        .store
        .result(id)?
        .ok_or_else(|| HarnessError::NotRun { what: id.to_string(), spec: context.plan.path.clone() })?;
    let path = context.store.checked_file(id, &result, FILE)?;
    let (tensors, _) = load_tensors(&path, tch::Device::Cpu)?;
    let damaged = |problem: String| HarnessError::Damaged { path: path.clone(), problem };
    let tensor = |layer: &PrunableLayer, name: &str, kind: Kind| {
        let name = format!("{}.{name}", layer.name);
        let found = tensors.get(&name).ok_or_else(|| damaged(format!("no {name}")))?;
        if found.kind() == kind { Ok(found) } else { Err(damaged(format!("{name} is {:?}", found.kind()))) }
    };
    let counts = |layer: &PrunableLayer, name: &str| -> Result<Vec<u64>, HarnessError> {
        let numbers = Vec::<i64>::try_from(tensor(layer, name, Kind::Int64)?)?;
        Ok(numbers.into_iter().map(|n| n as u64).collect())
    };
    let mut all = Vec::new();
    for layer in layers(context, net)? {
        let gram = Vec::<f64>::try_from(tensor(&layer, "gram", Kind::Double)?.f_flatten(0, -1)?)?;
        let single = |name: &str| -> Result<u64, HarnessError> {
            counts(&layer, name)?.first().copied().ok_or_else(|| damaged(format!("{name} is empty")))
        };
        let moments =
            Moments::new(layer.channels, single("rows")?, gram).map_err(|e| damaged(e.to_string()))?;
        let zeros = ZeroCounts { zeros: counts(&layer, "zeros")?, total: single("total")? };
        let filters =
            thinet_sampling::filters(&layer.name, net.weights.get(&format!("{}.weight", layer.name))?)?;
        all.push(Evidence {
            layer: layer.name,
            channels: layer.channels,
            filters: Some(filters),
            zeros: Some(zeros),
            moments: Some(moments),
        });
    }
    Ok(all)
}

fn layers(context: &Context<'_>, net: &Net) -> Result<Vec<PrunableLayer>, HarnessError> {
    let names = context.plan.layers.iter();
    Ok(names.map(|name| prunable_layer(&net.graph, name)).collect::<Result<_, _>>()?)
}
