//! Writes the evidence of a study's dense nets for other programs: what is stored, and what a selector reads from the net.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tch::Device;
use thinet_files::write_atomically;
use thinet_graph::{ChannelGroup, channel_group};
use thinet_models::{load_net, load_tensors};
use thinet_report::records::Mode;
use thinet_sampling::{GroupOf, check_needs, gathered_kinds, read_from_net};
use thinet_selectors::Needs;

use super::{RunOptions, StageRunner};
use crate::error::HarnessError;
use crate::events::Reporter;
use crate::stages::evidence_file;
use crate::stages::program::{PYTHON_FILE, PYTHON_MODULE};
use crate::store::paths::{EVIDENCE, WEIGHTS};
use crate::store::{Store, paths};
use crate::study::{CommandSpec, DensePlan, EvidencePlan, MethodSpec, Options, Plan, SelectorSpec, Spec};

/// Writes a file of every kind of evidence for each seed of a study, `seed-<seed>.safetensors`, and the Python module that reads it.
/// Returns the files. The evidence is that of the dense net, as in one-shot mode; kinds that are not stored are gathered and stored.
///
/// # Errors
/// If a dense net is not stored or unfit, the evidence cannot be gathered, or a file cannot be written.
pub fn export_evidence(
    spec: &Path,
    options: &Options,
    run: &RunOptions,
    out: &Path,
    reporter: &dyn Reporter,
) -> Result<Vec<PathBuf>, HarnessError> {
    let plan = plan_of(spec, options)?;
    let store = Store::at(&plan.results);
    if let Some(missing) = plan.dense.iter().find(|dense| !store.is_whole(&dense.id)) {
        return Err(plan.not_run(&format!("the {}", missing.label())));
    }
    fs::create_dir_all(out).map_err(HarnessError::io("create", out))?;
    let runner = StageRunner::new(&plan, run)?;
    let mut files = Vec::new();
    for dense in &plan.dense {
        for stage in &dense.evidence {
            runner.run_stage(stage.id.as_str(), reporter)?;
        }
        let file = out.join(format!("seed-{}.safetensors", dense.seed));
        write(&plan, &store, dense, &file)?;
        files.push(file);
    }
    let module = out.join(PYTHON_FILE);
    write_atomically(&module, PYTHON_MODULE.as_bytes())?;
    files.push(module);
    // The curves of the calibrations belong to no run.
    let folder = plan.run_folder();
    if !folder.join(paths::SPEC).exists() && folder.exists() {
        fs::remove_dir_all(&folder).map_err(HarnessError::io("remove", &folder))?;
    }
    Ok(files)
}

/// The study in one-shot mode with a method that reads every kind that is gathered. None of its cells is run.
fn plan_of(path: &Path, options: &Options) -> Result<Plan, HarnessError> {
    let mut spec = Spec::read(path)?;
    spec.seeds = options.seeds.unwrap_or(spec.seeds);
    spec.variants.clear();
    spec.from_scratch = None;
    spec.prune.mode = Mode::OneShot;
    spec.prune.after_layer = None;
    spec.prune.exceptions.clear();
    let keys = gathered_kinds().iter().map(|gathered| gathered.kind().key().to_owned());
    let reader = CommandSpec {
        command: vec!["thinet evidence".to_owned()],
        files: Vec::new(),
        folder: None,
        needs: Some(keys.collect()),
        timeout: 1,
    };
    let (selector, reconstruction) = (SelectorSpec::Command(reader), "none".to_owned());
    spec.methods = vec![MethodSpec { selector, reconstruction, label: None }];
    Plan::of_spec(spec, path, options)
}

fn write(plan: &Plan, store: &Store, dense: &DensePlan, file: &Path) -> Result<(), HarnessError> {
    let layers = &plan.spec.prune.layers;
    let net = stored_file(plan, store, dense, None)?;
    let (net, _) = load_net(&net, Device::Cpu)?;
    let weight = |name: &str| net.weights.get(name).ok();
    let groups = layers.iter().map(|name| channel_group(&net.graph, name));
    let groups: Vec<ChannelGroup> = groups.collect::<Result<_, _>>()?;
    let mut evidence = Vec::new();
    for group in &groups {
        // Not every layer has a batch norm.
        let scales = Needs::BATCH_NORM_SCALES;
        let scales = if check_needs(scales, group).is_ok() { scales } else { Needs::NONE };
        let of = GroupOf { graph: &net.graph, group, weight: &weight };
        evidence.push(read_from_net(of, Needs::FILTERS | scales)?);
    }
    let mut tensors = evidence_file::tensors(&evidence, Needs::NONE)?;
    for stage in &dense.evidence {
        tensors.extend(load_tensors(&stored_file(plan, store, dense, Some(stage))?, Device::Cpu)?.0);
    }
    let metadata = BTreeMap::from([
        ("study".to_owned(), plan.spec.name.clone()),
        ("seed".to_owned(), dense.seed.to_string()),
        ("dense".to_owned(), dense.id.to_string()),
        ("layers".to_owned(), serde_json::to_string(layers).map_err(HarnessError::Json)?),
    ]);
    evidence_file::save(file, &tensors, &metadata)
}

/// The net of a dense stage, or the evidence of a stage of it, compared with its checksum.
fn stored_file(
    plan: &Plan,
    store: &Store,
    dense: &DensePlan,
    evidence: Option<&EvidencePlan>,
) -> Result<PathBuf, HarnessError> {
    let (id, name) = evidence.map_or((&dense.id, WEIGHTS), |stage| (&stage.id, EVIDENCE));
    let result = store.result(id)?.ok_or_else(|| plan.not_run(id.as_str()))?;
    store.checked_file(id, &result, name)
}
