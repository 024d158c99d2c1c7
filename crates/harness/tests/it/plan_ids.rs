//! Ids of stages: whatever can change a result is in the id of each stage that depends on it, and nothing else is.

use std::collections::BTreeSet;

use serde_json::json;
use thinet_harness::store::StageId;
use thinet_harness::study::{Options, Plan, manifest};
use thinet_models::Device;

use crate::fixture::{Fixture, SPEC};

/// The ids of a plan by what they depend on.
#[derive(Debug, PartialEq)]
struct Ids {
    dense: Vec<String>,
    /// Pruned cells in the order of the plan.
    cells: Vec<String>,
    /// Controls from a random start.
    scratch: Vec<String>,
}

fn planned(fixture: &Fixture, replacements: &[(&str, &str)]) -> Plan {
    let mut spec =
        SPEC.replacen("table =", "from-scratch = { steps = 2, batch = 16, lr = 0.07 }\ntable =", 1);
    for (from, to) in replacements {
        assert!(spec.contains(from), "{from:?} is not in the spec");
        spec = spec.replacen(from, to, 1);
    }
    fixture.plan(&spec, "results").unwrap_or_else(|error| panic!("{replacements:?}: {error}"))
}

fn ids(plan: &Plan) -> Ids {
    let of = |is_from_scratch| {
        let cells = plan.cells.iter().filter(move |cell| cell.design.is_from_scratch == is_from_scratch);
        cells.map(|cell| cell.id.as_str().to_owned()).collect()
    };
    let dense = plan.dense.iter().map(|dense| dense.id.as_str().to_owned()).collect();
    Ids { dense, cells: of(false), scratch: of(true) }
}

/// Whether every id differs from its counterpart; panics if some do and some do not.
fn moved(before: &[String], after: &[String], what: &str) -> bool {
    let same = before.iter().filter(|id| after.contains(id)).count();
    assert!(same == 0 || (same == before.len() && same == after.len()), "{what}: {same} of {}", before.len());
    same == 0
}

/// Checks that each change moves exactly these ids: dense nets, pruned cells, controls.
fn assert_moved(fixture: &Fixture, expected: [bool; 3], changes: &[(&str, &str)]) {
    let before = ids(&planned(fixture, &[]));
    for change in changes {
        let after = ids(&planned(fixture, &[*change]));
        let found = [
            moved(&before.dense, &after.dense, change.1),
            moved(&before.cells, &after.cells, change.1),
            moved(&before.scratch, &after.scratch, change.1),
        ];
        assert_eq!(found, expected, "dense nets, cells, controls after {change:?}");
    }
}

#[test]
fn data_net_input_and_computing_are_in_every_id() {
    let before_net = |table: &str| format!("{table}\n[net]");
    let changes = [
        before_net("[input]\nmean = [0.1, 0.2, 0.3]"),
        before_net("[input]\nstd = [0.1, 0.2, 0.3]"),
        before_net("[input]\norder = \"bgr\""),
        before_net("[input]\nrange = 255.0"),
        before_net("[input]\nsize = 20"),
        before_net("[compute]\nthreads = 2"),
        before_net("[compute]\nchannels-last = true"),
        before_net("[compute]\nprecision = \"bf16\""),
        before_net("[compute]\ntf32 = true"),
        before_net("[compute]\ndeterministic = true"),
    ];
    let mut changes: Vec<_> = changes.iter().map(|to| ("[net]", to.as_str())).collect();
    changes.extend([
        ("size = 16", "size = 12"),
        ("size = 16", "size = 16\ntrain-limit = 90"),
        ("size = 16", "size = 16\ntest-limit = 40"),
        ("size = 16", "size = 16\nvalidation = 10"),
        ("arch = \"tiny\"", "arch = \"tiny\"\nwidth = 2.0"),
        ("batch-norm = true", "batch-norm = false"),
    ]);
    assert_moved(&Fixture::new(), [true; 3], &changes);
}

#[test]
fn every_key_of_the_dense_nets_recipe_is_in_its_id_and_its_cells_but_not_in_the_controls() {
    let recipe = "epochs = 2\nbatch = 16\nlr = 0.05\n";
    let with = |line: &str| format!("{recipe}{line}\n");
    let changes = [
        recipe.replace("epochs = 2", "epochs = 3"),
        recipe.replace("epochs = 2", "steps = 12"),
        recipe.replace("batch = 16", "batch = 8"),
        recipe.replace("lr = 0.05", "lr = 0.06"),
        with("momentum = 0.8"),
        with("weight-decay = 1e-4"),
        with("bias-lr = 2.0"),
        with("bias-decay = 0.0"),
        with("layer-lr = { fc = 2.0 }"),
        with("layer-decay = { fc = 2.0 }"),
        with("nesterov = true"),
        with("schedule = { kind = \"cosine\" }"),
        with("schedule = { kind = \"exponential\", gamma = 0.95 }"),
        with("warm-up = 0.1"),
        with("init = \"fan-in\""),
    ];
    let mut changes: Vec<_> = changes.iter().map(|to| (recipe, to.as_str())).collect();
    changes.extend([("crop-padding = 2", "crop-padding = 1"), ("mirror = true", "mirror = false")]);
    assert_moved(&Fixture::new(), [true, true, false], &changes);
}

#[test]
fn how_is_pruned_calibrated_and_tuned_is_in_the_cells_alone() {
    let prune = |line: &str| format!("[prune]\n{line}");
    let recipe = "{ steps = 1, batch = 16, lr = 0.01 }";
    let changes = [
        prune("layers = [\"conv2\", \"conv1\", \"conv3\"]"),
        prune("estimate-batch-norm = true"),
        prune("exceptions = [{ layers = [\"conv1\"] }]"),
        prune(&format!("exceptions = [{{ layers = [\"conv1\"], recipe = {recipe} }}]")),
    ];
    let mut changes: Vec<_> = changes.iter().map(|to| ("[prune]", to.as_str())).collect();
    let after_last = "[prune.after-last]\nepochs = 2\n";
    changes.extend([
        ("[prune.after-layer]\nsteps = 2\n", "[prune.after-layer]\nsteps = 3\n"),
        (after_last, "[prune.after-last]\nepochs = 3\n"),
        ("images-per-class = 3", "images-per-class = 2"),
        ("positions-per-image = 4", "positions-per-image = 3"),
    ]);
    let fixture = Fixture::new();
    assert_moved(&fixture, [false, true, false], &changes);
    // The control has the widths of the pruned nets, so what changes those changes it as well.
    let widths = [prune("layers = [\"conv1\", \"conv2\"]"), prune("layer-rates = { conv1 = 0.9 }")];
    assert_moved(&fixture, [false, true, true], &widths.each_ref().map(|to| ("[prune]", to.as_str())));

    let without = "[prune.after-layer]\nsteps = 2\nbatch = 16\nlr = 0.01\n";
    let plain = ids(&planned(&fixture, &[(without, "")]));
    let one_shot = ids(&planned(&fixture, &[(without, ""), ("[prune]", "[prune]\nmode = \"one-shot\"")]));
    assert_eq!((&plain.dense, &plain.scratch), (&one_shot.dense, &one_shot.scratch));
    assert!(moved(&plain.cells, &one_shot.cells, "one-shot"));
    assert_moved(&fixture, [false, true, false], &[(without, "")]);
}

#[test]
fn the_controls_recipe_is_in_the_controls_alone() {
    assert_moved(
        &Fixture::new(),
        [false, false, true],
        &[("lr = 0.07", "lr = 0.08"), ("steps = 2", "steps = 3")],
    );
}

#[test]
fn names_labels_and_defaults_written_out_are_in_no_id() {
    let defaults = "[input]\norder = \"rgb\"\nrange = 1.0\nsize = 16\n[compute]\nthreads = 1\nprecision = \"f32\"\n\
                    tf32 = false\ndeterministic = false\nchannels-last = false\n[net]\nwidth = 1.0";
    let recipe = "lr = 0.05\nmomentum = 0.9\nnesterov = false\nweight-decay = 5e-4\nbias-lr = 1.0\nbias-decay = 1.0\n\
                  schedule = { kind = \"constant\" }\nwarm-up = 0.0\ninit = \"fan-out\"";
    assert_moved(
        &Fixture::new(),
        [false; 3],
        &[
            ("name = \"small\"", "name = \"other\""),
            ("table = \"small\"", "table = \"other\""),
            ("table = \"small\"", "table = \"small\"\npaper-table = \"imagenet-vgg16\""),
            ("selector = \"apoz\"", "selector = \"apoz\"\nlabel = \"zeros\""),
            ("selector = \"apoz\"", "selector = \"apoz\"\nreconstruction = \"none\""),
            ("[net]", defaults),
            ("lr = 0.05", recipe),
            ("[prune]", "[prune]\nestimate-batch-norm = false"),
            ("[prune]", "[prune]\nmode = \"layer-by-layer\"\nlayers = [\"conv1\", \"conv2\", \"conv3\"]"),
            ("[0.5, 0.75]", "[0.75, 0.5]"),
        ],
    );
}

#[test]
fn what_a_gpu_computes_has_a_version_of_its_own_in_every_id() {
    let fixture = Fixture::new();
    let cpu = planned(&fixture, &[]);
    let options = Options { device: Device::Cuda(1), is_elsewhere: true, ..fixture.options("results") };
    let gpu = Plan::new(&fixture.path("spec.toml"), &options).unwrap();
    assert_eq!(
        (&cpu.dense[0].inputs["device"], cpu.dense[0].inputs.get("gpu-version")),
        (&json!("cpu"), None)
    );
    assert_eq!(
        (&gpu.dense[0].inputs["device"], &gpu.dense[0].inputs["gpu-version"]),
        (&json!("cuda"), &json!(2))
    );
    let (cpu, gpu) = (ids(&cpu), ids(&gpu));
    for (cpu, gpu) in [(&cpu.dense, &gpu.dense), (&cpu.cells, &gpu.cells), (&cpu.scratch, &gpu.scratch)] {
        assert!(moved(cpu, gpu, "a GPU"));
    }
}

#[test]
fn every_stage_has_an_id_of_its_own_whatever_else_is_in_the_study() {
    let fixture = Fixture::new();
    let plan = planned(&fixture, &[("table =", "seeds = 2\ntable =")]);
    let two = ids(&plan);
    assert_eq!((two.dense.len(), two.cells.len(), two.scratch.len()), (2, 12, 4));
    let all: BTreeSet<&String> = two.dense.iter().chain(&two.cells).chain(&two.scratch).collect();
    assert_eq!(all.len(), 18);

    // A seed, a method, a reconstruction or a rate more changes no id of the others.
    let one = planned(&fixture, &[]);
    assert_ne!(one.run, plan.run);
    let one = ids(&one);
    assert_eq!(one.dense, two.dense[..1]);
    assert!(
        one.cells.iter().all(|id| two.cells.contains(id))
            && one.scratch.iter().all(|id| two.scratch.contains(id))
    );
    let fewer =
        ids(&planned(&fixture, &[("[[methods]]\nselector = \"apoz\"\n", ""), ("[0.5, 0.75]", "[0.75]")]));
    assert_eq!((&fewer.dense, fewer.cells.len(), fewer.scratch.len()), (&one.dense, 2, 1));
    assert!(fewer.cells.iter().all(|id| one.cells.contains(id)) && one.scratch.contains(&fewer.scratch[0]));
}

#[test]
fn what_went_into_a_cells_id_is_known_and_gives_the_id() {
    let fixture = Fixture::new();
    let plan = planned(&fixture, &[]);
    for cell in &plan.cells {
        let inputs = plan.cell_inputs(cell).unwrap();
        let kind = if cell.design.is_from_scratch { "scratch" } else { "cell" };
        assert_eq!(StageId::of(kind, 1, &inputs), cell.id);
    }
    let inputs = plan.cell_inputs(&plan.cells[0]).unwrap();
    let found = ["dense", "selector", "reconstruction", "keep-rate"].map(|key| inputs[key].clone());
    let dense = plan.dense[0].id.as_str();
    assert_eq!(found, [json!(dense), json!("thinet"), json!("channel-scale"), json!(0.5)]);
}

#[test]
fn a_run_lies_in_a_folder_of_its_name_and_id_and_its_net_has_a_name() {
    let fixture = Fixture::new();
    let plan = planned(&fixture, &[]);
    assert_eq!(plan.run_folder(), fixture.path("results/runs").join(format!("small-{}", plan.run)));
    assert_eq!(plan.net_label(), "tiny ×1, input 3×16×16");
}

#[test]
fn stages_run_by_seed_then_rate_then_method_and_a_control_needs_no_dense_net() {
    let fixture = Fixture::new();
    let plan = planned(&fixture, &[("table =", "seeds = 2\ntable ="), ("[0.5, 0.75]", "[0.75, 0.5, 0.25]")]);
    let mut expected = Vec::new();
    for seed in 0..2 {
        expected.push((format!("dense net, seed {seed}"), Vec::new()));
    }
    for seed in 0..2 {
        let dense = plan.dense[seed].id.to_string();
        for rate in ["0.75", "0.5", "0.25"] {
            for method in ["thinet + channel-scale", "apoz", "random"] {
                expected.push((format!("{method} r={rate} seed {seed}"), vec![dense.clone()]));
            }
            expected.push((format!("From scratch r={rate} seed {seed}"), Vec::new()));
        }
    }
    let found: Vec<_> = manifest(&plan).stages.into_iter().map(|stage| (stage.label, stage.needs)).collect();
    assert_eq!(found, expected);
}
