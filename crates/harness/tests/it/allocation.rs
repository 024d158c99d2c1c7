//! A global allocation: widths from one ranking of all layers' channels, fixed by a stage of their own, and what a run, a resumed run,
//! a merge and a control make of it.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;

use thinet_graph::{Convention, at_widths, count};
use thinet_harness::events::Silent;
use thinet_harness::inspect::{Reason, why};
use thinet_harness::run::{Outcome, RunOptions, preflight, run};
use thinet_harness::store::{StageKind, Store};
use thinet_harness::study::{Plan, manifest};
use thinet_models::load_net;
use thinet_report::records::{FROM_SCRATCH, Status};

use crate::fixture::{DiesAt, Fixture, SPEC, one_shot};

/// [`SPEC`] with a global allocation, these lines in place of its keep rates, and these methods.
fn global(lines: &str, methods: &str) -> String {
    let spec =
        one_shot(SPEC).replace("keep-rates = [0.5, 0.75]", &format!("allocation = \"global\"\n{lines}"));
    format!("{}{methods}", &spec[..spec.find("[[methods]]").unwrap()])
}

const L1_TWICE_AND_APOZ: &str = "[[methods]]\nselector = \"weight-sum-l1\"\n\
    [[methods]]\nselector = \"weight-sum-l1\"\nreconstruction = \"channel-scale\"\n[[methods]]\nselector = \"apoz\"\n";
const CONTROL: &str = "[from-scratch]\nsteps = 2\nbatch = 16\nlr = 0.01\n";

/// Widths by method of the cells that were run; of the control those of the stored net.
fn widths(fixture: &Fixture, plan: &Plan, outcome: &Outcome) -> BTreeMap<(String, u64), Vec<usize>> {
    let mut widths = BTreeMap::new();
    for (cell, record) in plan.cells.iter().zip(&outcome.study.cells) {
        assert_eq!((record.status, &record.id), (Status::Done, &cell.id.to_string()));
        let file = fixture.path("results/store").join(cell.id.as_str()).join("weights.safetensors");
        let (net, _) = load_net(&file, tch::Device::Cpu).unwrap();
        let rows = |name: &str| net.weights.get(&format!("{name}.weight")).unwrap().size()[0] as usize;
        let own = ["conv1", "conv2", "conv3"].map(rows).to_vec();
        // The tables have the size of the net that is stored.
        let size = record.size.unwrap();
        assert_eq!(size.paper, count(&net.graph, Convention::Paper), "{}", record.method);
        assert!(own.iter().zip([1, 2, 2]).all(|(width, least)| *width >= least), "{own:?}");
        widths.insert((record.method.clone(), (100.0 * record.keep_rate) as u64), own);
    }
    widths
}

fn with_control(lines: &str, methods: &str) -> String {
    global(lines, methods).replace("[dense]\n", &format!("{CONTROL}[dense]\n"))
}

// Convolutions of 8, 12 and 16 channels: 36, of which a tenth of each stays, 1, 2 and 2.
#[test]
fn each_method_and_its_control_have_the_widths_that_its_scores_fix() {
    let fixture = Fixture::new();
    let spec = with_control("keep-rates = [0.5, 0.25]", L1_TWICE_AND_APOZ);
    let plan = fixture.plan(&spec, "results").unwrap();
    // Methods with one selector share the stage.
    let labels: Vec<&str> = plan.allocations.iter().map(|stage| stage.label.as_str()).collect();
    assert_eq!(
        labels,
        [
            "allocation by weight-sum-l1 r=0.5 seed 0",
            "allocation by weight-sum-l1 r=0.25 seed 0",
            "allocation by apoz r=0.5 seed 0",
            "allocation by apoz r=0.25 seed 0",
        ]
    );
    assert!(plan.cells.iter().all(|cell| plan.allocated_net(cell).unwrap().is_none()));
    let outcome = fixture.run(&spec, "results", &Silent);
    // Dense net, moments and zeros, allocations, six cells, four controls.
    assert_eq!(outcome.stages_run, 1 + 2 + 4 + 6 + 4);
    let widths = widths(&fixture, &plan, &outcome);
    for (method, control) in [
        ("weight-sum-l1", "From scratch as weight-sum-l1"),
        ("weight-sum-l1 + channel-scale", "From scratch as weight-sum-l1"),
        ("apoz", "From scratch as apoz"),
    ] {
        for (rate, channels) in [(50, 18), (25, 9)] {
            let own = &widths[&(method.to_owned(), rate)];
            assert_eq!(own.iter().sum::<usize>(), channels, "{method} at {rate}: {own:?}");
            assert_eq!(own, &widths[&(control.to_owned(), rate)], "{method} at {rate}");
        }
    }
    // Kept channels of the fewest are among those of more.
    let kept = |rate: f64| {
        let cells = &outcome.study.cells;
        cells.iter().find(|cell| cell.method == "apoz" && cell.keep_rate == rate).unwrap().kept.clone()
    };
    for (layer, few) in kept(0.25) {
        assert!(few.kept().iter().all(|channel| kept(0.5)[&layer].kept().contains(channel)), "{layer}");
    }
    // The plan shows the widths once they are stored.
    let again = fixture.plan(&spec, "results").unwrap();
    let known = again.allocated_net(&again.cells[0]).unwrap().unwrap();
    assert_eq!(
        known.keep.iter().map(|(_, keep)| *keep).collect::<Vec<_>>(),
        widths[&("weight-sum-l1".to_owned(), 50)]
    );
    assert_eq!(known.channels_fraction, 0.5);
    // Asked and got.
    let frame = &outcome.tables[0].frame;
    let channels = frame.column("channels_fraction").unwrap().f64().unwrap();
    assert_eq!(channels.iter().flatten().filter(|share| [0.5, 0.25].contains(share)).count(), 10);
    let text = outcome.tables[0].markdown();
    assert!(
        text.contains("channels kept, % | FLOPs kept, %") && text.contains("allocation = \"global\""),
        "{text}"
    );
}

/// Norms of the filters of the stored dense net, ranked here once more.
#[test]
fn the_channels_that_stay_are_those_with_the_largest_normalised_scores() {
    let fixture = Fixture::new();
    for (normalisation, divide) in [
        ("max", (|norms: &[f64]| norms.iter().fold(0.0, |a: f64, b| a.max(*b))) as fn(&[f64]) -> f64),
        ("mean", |norms| norms.iter().sum::<f64>() / norms.len() as f64),
        ("l2", |norms| norms.iter().map(|norm| norm * norm).sum::<f64>().sqrt()),
        ("none", |_| 1.0),
    ] {
        let lines = format!("keep-rates = [0.3]\nnormalisation = \"{normalisation}\"");
        let spec = global(&lines, "[[methods]]\nselector = \"weight-sum-l1\"\n");
        let plan = fixture.plan(&spec, "results").unwrap();
        let outcome = fixture.run(&spec, "results", &Silent);
        let dense = fixture.path("results/store").join(plan.dense[0].id.as_str()).join("weights.safetensors");
        let (net, _) = load_net(&dense, tch::Device::Cpu).unwrap();
        let mut all = Vec::new();
        for layer in ["conv1", "conv2", "conv3"] {
            let weights = net.weights.get(&format!("{layer}.weight")).unwrap().to_kind(tch::Kind::Double);
            let norms = weights.abs().flatten(1, -1).sum_dim_intlist(1, false, tch::Kind::Double);
            let norms = Vec::<f64>::try_from(norms).unwrap();
            let divisor = divide(&norms);
            all.extend(norms.iter().enumerate().map(|(channel, norm)| (norm / divisor, layer, channel)));
        }
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        // floor(36 · 0.3) = 10 stay, and a tenth of each layer in any case.
        let mut expected: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (layer, channels) in [("conv1", 8), ("conv2", 12), ("conv3", 16)] {
            expected.insert(layer, (0..channels).collect());
        }
        for (_, layer, channel) in all {
            let left: usize = expected.values().map(Vec::len).sum();
            let least = if layer == "conv1" { 1 } else { 2 };
            if left > 10 && expected[layer].len() > least {
                expected.get_mut(layer).unwrap().retain(|kept| *kept != channel);
            }
        }
        let kept = outcome.study.cells[0].kept.iter();
        let found: BTreeMap<&str, Vec<usize>> =
            kept.map(|(layer, set)| (layer.as_str(), set.kept().to_vec())).collect();
        assert_eq!(found, expected, "{normalisation}");
    }
}

#[test]
fn a_target_of_flops_is_met_with_as_few_removals_as_possible() {
    let fixture = Fixture::new();
    let spec = with_control("flops = [0.5, 0.2]", L1_TWICE_AND_APOZ);
    let plan = fixture.plan(&spec, "results").unwrap();
    let outcome = fixture.run(&spec, "results", &Silent);
    let widths = widths(&fixture, &plan, &outcome);
    let dense = plan.size.paper.flops as f64;
    for cell in &outcome.study.cells {
        let target = cell.flops_target.unwrap();
        let got = cell.size.unwrap().paper.flops as f64 / dense;
        // A channel more of every layer, one at a time, would be too much for at least one of them: the one removed last.
        let own = &widths[&(cell.method.clone(), (100.0 * cell.keep_rate) as u64)];
        let with_one_more = (0..3).map(|layer| {
            let mut more = own.clone();
            more[layer] = (more[layer] + 1).min([8, 12, 16][layer]);
            let names = ["conv1", "conv2", "conv3"].map(str::to_owned);
            let net = at_widths(&plan.graph, names.into_iter().zip(more).collect()).unwrap();
            count(&net.graph, Convention::Paper).flops as f64 / dense
        });
        assert!(got <= target, "{}: {got} of {target}", cell.method);
        assert!(with_one_more.fold(0.0, f64::max) > target, "{}: {own:?} for {target}", cell.method);
    }
    let text = outcome.tables[0].markdown();
    assert!(text.contains("channels kept, % | FLOPs target, % | FLOPs kept, %"), "{text}");
}

#[test]
fn a_run_goes_on_where_it_was_interrupted_and_gives_the_same_tables() {
    let fixture = Fixture::new();
    let spec = with_control("keep-rates = [0.5]", L1_TWICE_AND_APOZ);
    fixture.run(&spec, "results", &Silent);
    let plan = fixture.plan(&spec, "results").unwrap();
    let tables = fixture.tables("results");
    // Another folder has the same stages, kept channels and tensors.
    fixture.run(&spec, "others", &Silent);
    fixture.assert_same_stages("results", "others");
    // The allocation is gone: it is run again, and nothing else.
    let allocation = fixture.path("results/store").join(plan.allocations[0].id.as_str());
    fs::remove_dir_all(&allocation).unwrap();
    let before = why(&plan).unwrap();
    assert_eq!(before.len(), 1);
    assert_eq!(before[0].label, "allocation by weight-sum-l1 r=0.5 seed 0");
    assert_eq!(fixture.run(&spec, "results", &Silent).stages_run, 1);
    assert_eq!(fixture.tables("results"), tables);
    // A cell and the control are gone: their widths are read from the stored allocation.
    for cell in [&plan.cells[1], plan.cells.last().unwrap()] {
        fs::remove_dir_all(fixture.path("results/store").join(cell.id.as_str())).unwrap();
    }
    assert_eq!(fixture.run(&spec, "results", &Silent).stages_run, 2);
    assert_eq!(fixture.tables("results"), tables);
    // A damaged record is set aside and made again.
    fs::write(allocation.join("result.json"), "{}").unwrap();
    assert_eq!(fixture.run(&spec, "results", &Silent).stages_run, 1);
    assert_eq!(fixture.tables("results"), tables);
}

#[test]
fn dying_at_any_event_and_starting_again_gives_the_same_widths_and_tables() {
    let fixture = Fixture::new();
    let spec = with_control("flops = [0.5]", L1_TWICE_AND_APOZ);
    fixture.run(&spec, "unbroken", &Silent);
    let mut deaths = 0;
    // In the dense net, calibrations, allocations, cells and controls.
    for event in [10, 26, 14, 20, 30, 60] {
        let reporter = DiesAt { left: AtomicUsize::new(event) };
        deaths +=
            usize::from(catch_unwind(AssertUnwindSafe(|| fixture.run(&spec, "broken", &reporter))).is_err());
    }
    assert!(deaths >= 4, "the study died {deaths} times");
    fixture.run(&spec, "broken", &Silent);
    fixture.assert_same_stages("unbroken", "broken");
    assert_eq!(fixture.tables("broken"), fixture.tables("unbroken"));
}

#[test]
fn stages_of_a_uniform_allocation_are_shared_and_keep_their_ids() {
    let fixture = Fixture::new();
    let methods = "[[methods]]\nselector = \"apoz\"\n";
    let uniform =
        fixture.plan(&global("keep-rates = [0.5]", methods).replace("\"global\"", "\"uniform\""), "results");
    let plain = fixture
        .plan(&global("keep-rates = [0.5]", methods).replace("allocation = \"global\"\n", ""), "results");
    let (uniform, plain) = (uniform.unwrap(), plain.unwrap());
    assert_eq!((&uniform.run, &uniform.spec_hash), (&plain.run, &plain.spec_hash));
    let global = fixture.plan(&global("keep-rates = [0.5]", methods), "results").unwrap();
    let ids = |plan: &Plan, kind: StageKind| -> Vec<String> {
        let stages = manifest(plan).stages.into_iter().filter(move |stage| stage.kind == kind);
        stages.map(|stage| stage.id).filter(|id| !id.starts_with("allocation-")).collect()
    };
    for kind in [StageKind::Dense, StageKind::Evidence] {
        assert_eq!(ids(&global, kind), ids(&plain, kind), "{kind:?}");
    }
    assert_ne!(ids(&global, StageKind::Cell), ids(&plain, StageKind::Cell));
    // Each cell waits for its allocation, and that for the dense net and its evidence.
    let stages = manifest(&global).stages;
    let needs = |id: &str| &stages.iter().find(|stage| stage.id == id).unwrap().needs;
    let allocation = global.allocations[0].id.to_string();
    assert!(needs(global.cells[0].id.as_str()).contains(&allocation));
    assert_eq!(needs(&allocation).len(), 2, "the dense net and the zero counts");
}

#[test]
fn normalisation_and_asked_value_make_another_stage_and_are_named() {
    let fixture = Fixture::new();
    let methods = "[[methods]]\nselector = \"weight-sum-l1\"\n";
    let spec = with_control("keep-rates = [0.5]", methods);
    fixture.run(&spec, "results", &Silent);
    let other = spec.replace("allocation = \"global\"", "allocation = \"global\"\nnormalisation = \"l2\"");
    let plan = fixture.plan(&other, "results").unwrap();
    let reasons = why(&plan).unwrap();
    assert_eq!(reasons.len(), 3, "the allocation, the cell and the control: {reasons:?}");
    for found in &reasons {
        let Reason::Differs { inputs, .. } = &found.reason else { panic!("{found:?}") };
        let named: Vec<String> =
            inputs.iter().map(|d| format!("{} {:?} {:?}", d.key, d.first, d.second)).collect();
        assert_eq!(named, ["prune.normalisation Some(\"mean\") Some(\"l2\")"], "{}", found.label);
    }
    // The default written out is the same stage.
    let written =
        spec.replace("allocation = \"global\"", "allocation = \"global\"\nnormalisation = \"mean\"");
    assert!(why(&fixture.plan(&written, "results").unwrap()).unwrap().is_empty());
}

#[test]
fn a_uniform_and_a_global_allocation_stand_side_by_side_as_variants() {
    let fixture = Fixture::new();
    let methods = "[[methods]]\nselector = \"apoz\"\n[[methods]]\nselector = \"random\"\n\
                   [[variants]]\nname = \"uniform\"\n\"prune.allocation\" = \"uniform\"\n\
                   [[variants]]\nname = \"global\"\n\"prune.allocation\" = \"global\"\n";
    let spec = with_control("flops = [0.5]", methods);
    let outcome = fixture.run(&spec, "results", &Silent);
    let cells = &outcome.study.cells;
    assert_eq!(cells.len(), 3 + 4, "two methods and the control; two methods and two controls");
    let rates: Vec<f64> = cells.iter().map(|cell| cell.keep_rate).collect();
    assert_eq!(rates, [0.7; 7], "a target stands under the same keep rate");
    for cell in cells {
        let is_global = cell.variant.as_deref() == Some("global");
        assert_eq!((cell.is_allocated(), cell.channels_fraction.is_some()), (is_global, is_global));
        assert!(
            cell.size.unwrap().paper.flops as f64 <= 0.5 * outcome.study.dense[0].size.paper.flops as f64
        );
    }
    assert!(cells.iter().filter(|cell| cell.selector == FROM_SCRATCH).count() == 3);
}

#[test]
fn a_preflight_takes_a_step_of_the_allocation() {
    let fixture = Fixture::new();
    for (lines, methods) in [("flops = [0.05]", "apoz"), ("keep-rates = [0.2, 0.5]", "random")] {
        let methods = format!("[[methods]]\nselector = \"{methods}\"\n");
        let plan = fixture.plan(&with_control(lines, &methods), "results").unwrap();
        let stages = preflight(&plan, &RunOptions::default(), &Silent).unwrap();
        // Dense net, moments (and zero counts), allocation, cell, control.
        assert_eq!(stages, if methods.contains("apoz") { 6 } else { 5 });
    }
}

#[test]
fn what_has_no_meaning_with_it_or_cannot_be_reached_is_refused_by_name() {
    let fixture = Fixture::new();
    let apoz = "[[methods]]\nselector = \"apoz\"\n";
    let problem = |spec: &str| match fixture.plan(spec, "results") {
        Ok(_) => panic!("{spec}"),
        Err(error) => error.to_string(),
    };
    for (spec, expected) in [
        (
            global(
                "keep-rates = [0.5]",
                "[[methods]]\nselector = \"apoz\"\n[[methods]]\nselector = \"thinet\"\n",
            ),
            "methods[1].selector: prune.allocation = \"global\": selector \"thinet\" gives an order of the channels of a \
             layer and no scores that could be compared between layers; selectors with scores: apoz, ",
        ),
        (
            global("keep-rates = [0.5]", apoz).replace("mode = \"one-shot\"\n", ""),
            "prune.allocation: \"global\" ranks the channels of all layers from one calibration: it needs mode = \"one-shot\"",
        ),
        (
            global("keep-rates = [0.5]\nlayer-rates = { conv1 = 0.5 }", apoz),
            "prune.layer-rates: has no meaning with allocation = \"global\"",
        ),
        (
            global("keep-rates = [0.5]\nnormalisation = \"max\"", apoz).replace("\"global\"", "\"uniform\""),
            "prune.normalisation: has no meaning without allocation = \"global\"",
        ),
        (
            global("keep-rates = [0.1]", apoz),
            "prune.keep-rates: 0.1 of the 36 channels of all layers cannot be kept: a tenth of each layer stays, so the \
             least is 0.1389 (rounded up; 5 channels)",
        ),
        // Widths 1, 2 and 2 have 6,912 + 1,152 + 2,304 + 768 multiply-adds: 22,272 FLOPs and 20 of batch norms, of 454,800.
        (
            global("flops = [0.04]", apoz),
            "prune.flops: 0.04 of the dense net's FLOPs cannot be reached: a tenth of each layer stays, so the least is \
             0.0491 (rounded up)",
        ),
        (
            global("keep-rates = [0.7]\nflops = [0.5]", apoz),
            "prune.flops: 0.5 stands in tables under the uniform keep rate that meets it, 0.7, which is another row",
        ),
        (
            global("keep-rates = [0.5]", apoz)
                .replace("table = \"small\"", "table = \"small\"\npaper-table = \"x\""),
            "paper-table: has no rows for allocation = \"global\"",
        ),
    ] {
        let found = problem(&spec);
        assert!(found.contains(expected), "{expected}\n{found}");
    }
}

#[test]
fn scores_of_a_program_are_ranked_and_an_order_is_refused_by_name() {
    let fixture = Fixture::new();
    let program = |answer: &str| {
        format!(
            "import json, sys\nprint(json.dumps({{\"protocol\": 1, \"name\": \"test\", \"needs\": []}}), flush=True)\n\
             for line in sys.stdin:\n    q = json.loads(line)\n    c = q[\"channels\"]\n    \
             print(json.dumps({answer}), flush=True)\n"
        )
    };
    // Scores 1 to 8 of 8, 1 to 12 of 12 and 1 to 16 of 16: over the largest they are shares, so each layer loses the same part.
    fs::write(fixture.path("scores.py"), program("{\"scores\": [i + 1 for i in range(c)]}")).unwrap();
    fs::write(fixture.path("order.py"), program("{\"order\": list(range(c))}")).unwrap();
    let spec = |file: &str, lines: &str| {
        let methods =
            format!("[[methods]]\nselector = {{ command = [\"python3\", \"{file}\"], needs = [] }}\n");
        with_control(lines, &methods)
    };
    let half = "keep-rates = [0.5]\nnormalisation = \"max\"";
    let allowed = RunOptions { allow_commands: true, ..RunOptions::default() };
    let plan = fixture.plan(&spec("scores.py", half), "results").unwrap();
    let outcome = run(&plan, &allowed, &Silent).unwrap();
    assert!(outcome.failure.is_none(), "{:?}", outcome.failure);
    for cell in &outcome.study.cells {
        assert_eq!(cell.channels_fraction, Some(0.5), "{}", cell.method);
    }
    let kept = &outcome.study.cells[0].kept;
    assert_eq!(["conv1", "conv2", "conv3"].map(|layer| kept[layer].len()), [4, 6, 8]);
    assert_eq!(kept["conv1"].kept(), [4, 5, 6, 7]);
    // As they are, equal scores go layer by layer: 18 removals take six of each.
    // Shares of a half of the FLOPs: twelve removals by share leave 5, 8 and 11 channels with 225,120 of 454,800 FLOPs, eleven leave 6, 8
    // and 11 with 248,164.
    for (lines, expected) in [
        ("keep-rates = [0.5]\nnormalisation = \"none\"", [2, 6, 10]),
        ("flops = [0.5]\nnormalisation = \"max\"", [5, 8, 11]),
    ] {
        let spec = spec("scores.py", lines).replace(CONTROL, "");
        let plan = fixture.plan(&spec, "results").unwrap();
        let outcome = run(&plan, &allowed, &Silent).unwrap();
        let kept = &outcome.study.cells[0].kept;
        assert_eq!(["conv1", "conv2", "conv3"].map(|layer| kept[layer].len()), expected, "{lines}");
        assert_eq!(kept["conv3"].kept().last(), Some(&15), "the largest score stays");
    }
    // What is stored needs no program.
    assert!(fixture.plan(&spec("scores.py", half), "results").unwrap().commands_to_run().is_empty());

    let plan = fixture.plan(&spec("order.py", half), "results").unwrap();
    assert_eq!(plan.commands_to_run().len(), 1);
    let error = run(&plan, &allowed, &Silent).unwrap_err().to_string();
    assert!(error.contains("it answered with an order") && error.contains("conv1"), "{error}");
    assert!(Store::at(&plan.results).failure(plan.allocations[0].id.as_str()).is_some());
}
