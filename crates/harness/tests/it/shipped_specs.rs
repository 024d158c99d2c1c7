//! Every shipped spec parses, plans and takes its first training step, on the data it names.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use thinet_data::DatasetSpec;
use thinet_harness::events::{Event, Reporter};
use thinet_harness::run::{RunOptions, run};
use thinet_harness::study::{Options, Plan, ResolvedStudy, Spec, VariantSpec, gather};
use thinet_report::records::FROM_SCRATCH;

use crate::small;

pub(crate) fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn experiments() -> Vec<PathBuf> {
    let mut specs = Vec::new();
    let mut folders = vec![project().join("experiments")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|e| e == "toml") => specs.push(path),
                false => {}
            }
        }
    }
    specs.sort();
    specs
}

fn is_paper_scale(spec: &Spec) -> bool {
    matches!(spec.dataset, DatasetSpec::Imagenet(_) | DatasetSpec::Cub200(_))
}

#[test]
fn every_shipped_spec_parses_and_opens_with_question_command_and_time() {
    let files = experiments();
    assert_eq!(files.len(), 43);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for needed in ["# Question:", "# Command:", "# Data:", "# Time:", "# Follows:"] {
            assert!(text.contains(needed), "{}: no {needed}", file.display());
        }
        let spec = Spec::read(&file).unwrap();
        let is_published = is_paper_scale(&spec) || is_rerun(&spec);
        assert_eq!(text.contains("# Unverified:"), is_published, "{}", file.display());
        assert_eq!(text.contains("# Unmatched:"), is_rerun(&spec), "{}", file.display());
        let header: Vec<&str> =
            text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim).collect();
        let header = header.join(" ");
        assert_eq!(
            header.contains("a schedule of its own"),
            spec.from_scratch.is_some(),
            "{}",
            file.display()
        );
        assert!(!header.contains("same schedule"), "{}", file.display());
        // Studies on a GPU must be reproducible.
        let is_for_gpus = is_paper_scale(&spec) || header.contains("--device cuda:0");
        assert_eq!(spec.compute.deterministic, is_for_gpus, "{}", file.display());
        let stem = file.file_stem().and_then(|s| s.to_str()).unwrap();
        let name = if stem == "selectors" { "cub200-selectors" } else { stem };
        assert_eq!(spec.name, name);
    }
}

/// Whether a study re-runs other people's numbers.
fn is_rerun(spec: &Spec) -> bool {
    spec.paper_table.as_deref() == Some("cifar10-published")
}

/// Whether `experiments/cifar10-jpeg` holds the same study on a JPEG copy.
fn has_jpeg_twin(spec: &Spec) -> bool {
    spec.name.starts_with("cifar10-narrow-")
}

#[test]
fn studies_of_cifar_10_differ_from_their_jpeg_twins_in_the_data_alone() {
    let folder = |name: &str| project().join("experiments").join(name);
    let without_data = |file: &Path| {
        let mut spec: toml::Table = toml::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        (spec.remove("name").unwrap(), spec.remove("dataset").unwrap(), spec)
    };
    let mut twins = 0;
    for entry in fs::read_dir(folder("cifar10-jpeg")).unwrap() {
        let file = entry.unwrap().path();
        let (name, dataset, study) = without_data(&file);
        let name = name.as_str().unwrap().replace("jpeg", "narrow");
        let twin = folder("cifar10-narrow").join(format!("{name}.toml"));
        let (twin_name, twin_dataset, twin_study) = without_data(&twin);
        assert_eq!((twin_name.as_str(), &twin_study), (Some(name.as_str()), &study));
        assert_eq!(dataset["kind"].as_str(), Some("image-folder"));
        assert_eq!(dataset["name"].as_str(), Some("CIFAR-10 (JPEG copy)"));
        assert_eq!(twin_dataset["kind"].as_str(), Some("cifar10"));
        twins += 1;
    }
    assert_eq!(twins, fs::read_dir(folder("cifar10-narrow")).unwrap().count());
}

#[test]
fn every_spec_at_the_papers_scale_plans_and_takes_its_first_step() {
    plan_and_take_a_step(11, is_paper_scale);
}

#[test]
fn every_spec_of_other_peoples_numbers_plans_and_takes_its_first_step() {
    plan_and_take_a_step(4, is_rerun);
}

#[test]
fn every_other_spec_plans_and_takes_its_first_step() {
    plan_and_take_a_step(18, |spec| !is_paper_scale(spec) && !is_rerun(spec) && !has_jpeg_twin(spec));
}

/// Plans the `count` shipped specs of this kind and stops each after its first training step, whose loss must be that of random weights.
fn plan_and_take_a_step(count: usize, is_meant: impl Fn(&Spec) -> bool) {
    let scratch = tempfile::tempdir().unwrap();
    let specs = experiments().into_iter().map(|file| (Spec::read(&file).unwrap(), file));
    let specs: Vec<_> = specs.filter(|(spec, _)| is_meant(spec)).collect();
    assert_eq!(specs.len(), count);
    for (spec, file) in specs {
        // At full size a step of VGG-16 takes minutes here: the same nets and recipes on small images.
        let (file, data) = if is_paper_scale(&spec) {
            (small::spec(&file, scratch.path()), small::data(&spec, scratch.path()))
        } else if is_rerun(&spec) {
            (small::with_small_batches(&file, scratch.path()), data_of(&spec, scratch.path()))
        } else {
            (file, data_of(&spec, scratch.path()))
        };
        let results = scratch.path().join(&spec.name);
        let options = Options { data: Some(data), results, ..Options::default() };
        let plan = Plan::new(&file, &options).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let methods = spec.methods.len() + usize::from(spec.from_scratch.is_some());
        let rates = spec.prune.keep_rates.iter().filter(|rate| **rate < 1.0).count() + spec.prune.flops.len();
        let cells = spec.variants.len().max(1) * methods * rates * spec.seeds as usize;
        assert_eq!(plan.cells.len(), cells, "{}", file.display());
        let reporter = StopsAtFirstStep::default();
        let options = RunOptions::default();
        let stopped = catch_unwind(AssertUnwindSafe(|| run(&plan, &options, &reporter)));
        if let Ok(Err(error)) = &stopped {
            panic!("{}: {error}", file.display());
        }
        let loss = reporter.loss.into_inner().unwrap();
        let classes = plan.data.train.classes() as f64;
        // At random weights about the logarithm of the number of classes.
        let near = (0.5 * classes.ln()..2.5 * classes.ln() + 2.0).contains(&loss.unwrap_or(f64::NAN));
        assert!(stopped.is_err() && near, "{}: {loss:?}", file.display());
    }
}

#[test]
fn vgg16_conv_tunes_for_24_epochs_as_the_authors_code_does() {
    let file = project().join("experiments/imagenet/vgg16-conv.toml");
    let resolved = ResolvedStudy::without_data(&file, &Options::default()).unwrap().unwrap();
    let prune = &resolved.spec.prune;
    let epochs = |layer: &String| {
        let last = layer == resolved.spec.prune.layers.last().unwrap();
        prune.recipe_after(layer, last).map_or(0, |recipe| recipe.epochs.unwrap())
    };
    let each: Vec<usize> = resolved.spec.prune.layers.iter().map(epochs).collect();
    assert_eq!(each, [1, 2, 1, 2, 1, 1, 2, 1, 1, 12]);
    assert_eq!(each.iter().sum::<usize>(), 24);
    let widths: Vec<usize> = resolved.cells[0].keep.iter().map(|(_, kept)| *kept).collect();
    assert_eq!(widths, [32, 32, 64, 64, 128, 128, 128, 256, 256, 256]);
    let second = prune.recipe_after("conv1_2", false).unwrap();
    let rates = [0, 10_008, 10_009, 20_017].map(|step| second.schedule.lr(second.lr, step, 20_018, 10_009));
    for (rate, expected) in rates.iter().zip([1e-3, 1e-3, 1e-4, 1e-4]) {
        assert!((rate - expected).abs() < 1e-12, "{rates:?}");
    }
}

#[test]
fn resnet50_tunes_after_each_block_for_24_epochs() {
    for name in ["resnet50-caffe", "resnet50-torchvision"] {
        let file = project().join(format!("experiments/imagenet/{name}.toml"));
        let resolved = ResolvedStudy::without_data(&file, &Options::default()).unwrap().unwrap();
        assert_eq!(resolved.spec.prune.layers, thinet_nets::resnet50_pruned_layers());
        let prune = &resolved.spec.prune;
        let mut total = 0;
        for layer in &resolved.spec.prune.layers {
            let last = layer == resolved.spec.prune.layers.last().unwrap();
            let epochs = prune.recipe_after(layer, last).map_or(0, |recipe| recipe.epochs.unwrap());
            assert_eq!(epochs > 0, layer.ends_with("conv2"), "{layer}");
            total += epochs;
        }
        assert_eq!(total, 24);
    }
}

#[test]
fn the_ablation_of_tuning_gives_every_net_the_same_number_of_steps() {
    let file = project().join("experiments/fashion-mnist-ablation-tuning.toml");
    let options = Options { data: Some(fetched_fashion_mnist()), ..Options::default() };
    let plan = Plan::new(&file, &options).unwrap();
    let study = gather(&plan).unwrap();
    let dense = plan.spec.dense.train.as_ref().unwrap().total_steps(plan.data.train.len()) as u64;
    for cell in &study.cells {
        let before = if cell.selector == FROM_SCRATCH { 0 } else { dense };
        assert_eq!(before + cell.tuning_steps.unwrap(), dense + 9 * 60 + 468, "{}", cell.method);
    }
}

#[test]
fn the_ablations_share_the_dense_nets_of_the_default_study() {
    let dense = |name: &str| {
        let file = project().join(format!("experiments/fashion-mnist-{name}.toml"));
        let options = Options { data: Some(fetched_fashion_mnist()), seeds: Some(3), ..Options::default() };
        Plan::new(&file, &options).unwrap().dense.into_iter().map(|dense| dense.id).collect::<Vec<_>>()
    };
    for name in ["ablation-calibration", "ablation-tuning", "selection"] {
        assert_eq!(dense(name), dense("selectors"), "{name}");
    }
}

#[test]
fn paper_scale_widths_are_those_of_the_published_models() {
    let published = |stride| {
        let models = thinet_nets::paper_models(stride).unwrap();
        models.into_iter().map(|model| (model.name, model.build().unwrap())).collect::<Vec<_>>()
    };
    for (name, expected) in [
        ("vgg16-conv", &["thinet-conv"][..]),
        ("vgg16-gap", &["thinet-gap"]),
        ("vgg16-tiny", &["thinet-tiny"]),
        ("resnet50-caffe", &["thinet-70", "thinet-50", "thinet-30"]),
        ("resnet50-torchvision", &["thinet-70", "thinet-50", "thinet-30"]),
    ] {
        for twin in ["", "-twins"] {
            let file = project().join(format!("experiments/imagenet/{name}{twin}.toml"));
            let resolved = ResolvedStudy::without_data(&file, &Options::default()).unwrap().unwrap();
            let models = published(resolved.spec.net.stride.unwrap_or_default());
            let mut found = Vec::new();
            for cell in &resolved.cells {
                let model = models.iter().find(|(_, graph)| graph.nodes() == cell.graph.nodes());
                let model = model.unwrap_or_else(|| panic!("{name}{twin}: no model of these widths")).0;
                if !found.contains(&model) {
                    found.push(model);
                }
            }
            assert_eq!(found, expected, "{name}{twin}");
        }
    }
}

/// The folder of the data a spec names: Fashion-MNIST itself, and for CIFAR-10 generated images in its format, as tests download
/// nothing that large.
fn data_of(spec: &Spec, scratch: &Path) -> PathBuf {
    match &spec.dataset {
        DatasetSpec::FashionMnist(_) => fetched_fashion_mnist(),
        DatasetSpec::Cifar10(_) => {
            let folder = scratch.join("cifar10");
            write_cifar10_of_stripes(&folder);
            folder
        }
        DatasetSpec::ImageFolder(_) => small::image_folder(&scratch.join("image-folder")),
        other => panic!("no test data for {}", other.name()),
    }
}

/// The folder with Fashion-MNIST, fetched if it is not there.
pub(crate) fn fetched_fashion_mnist() -> PathBuf {
    let folder = project().join("data/fashion-mnist");
    let dataset = DatasetSpec::named("fashion-mnist").unwrap();
    thinet_data::fetch(&dataset, &folder, &mut |_| {}).unwrap();
    folder
}

/// Six files of 10,000 records in CIFAR-10's binary format.
pub(crate) fn write_cifar10_of_stripes(folder: &Path) {
    if folder.is_dir() {
        return;
    }
    fs::create_dir_all(folder).unwrap();
    let files =
        ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];
    for (number, name) in files.into_iter().enumerate() {
        let mut bytes = Vec::with_capacity(10_000 * 3073);
        for record in 0..10_000_usize {
            let class = record % 10;
            bytes.push(class as u8);
            bytes.extend((0..3072).map(|pixel| ((pixel * (class + 1) + record + number) % 256) as u8));
        }
        fs::write(folder.join(format!("{name}.bin")), bytes).unwrap();
    }
}

/// Panics after the first training step and keeps its loss.
#[derive(Default)]
struct StopsAtFirstStep {
    loss: Mutex<Option<f64>>,
}

impl Reporter for StopsAtFirstStep {
    fn event(&self, event: &Event) {
        if let Event::Progress { loss: Some(loss), .. } = event {
            *self.loss.lock().unwrap() = Some(*loss);
            std::panic::panic_any("stopped by the test");
        }
    }
}

/// As for the default net, below.
#[test]
fn the_selection_studies_of_vgg16_share_their_dense_nets() {
    for data in ["jpeg", "narrow"] {
        let read = |study: &str| {
            let file = format!("experiments/cifar10-{data}/cifar10-{data}-vgg16-{study}.toml");
            Spec::read(&project().join(file)).unwrap()
        };
        let (first, other) = (read("selection"), read("criteria"));
        assert_eq!(
            (&other.dataset, &other.input, &other.net, &other.compute, &other.dense, other.seeds),
            (&first.dataset, &first.input, &first.net, &first.compute, &first.dense, first.seeds)
        );
        // Their calibrations and common methods, too.
        assert_eq!((&other.prune, &other.calibration), (&first.prune, &first.calibration));
        let common = other.methods.iter().filter(|method| first.methods.contains(method));
        assert_eq!(common.count(), 4);
    }
}

/// What is said of a net before and after tuning is said of the same dense nets; but the selection of VGG-16 is an older study in bfloat16.
#[test]
fn tuned_studies_of_cifar_10_share_their_dense_nets_with_the_others_of_the_net() {
    for data in ["jpeg", "narrow"] {
        let read = |study: &str| {
            let file = format!("experiments/cifar10-{data}/cifar10-{data}-{study}.toml");
            Spec::read(&project().join(file)).unwrap()
        };
        for (first, other) in [("vgg16-gap", "vgg16-gap-selection"), ("resnet20", "resnet20-selection")] {
            let (first, other) = (read(first), read(other));
            assert_eq!(
                (&other.dataset, &other.input, &other.net, &other.compute, &other.dense),
                (&first.dataset, &first.input, &first.net, &first.compute, &first.dense),
                "{}",
                other.name
            );
            assert!(other.seeds >= first.seeds, "{}", other.name);
        }
    }
}

/// It is the tuned study, short enough for a CPU: other epochs of the dense net, fewer methods and keep rates. A control from scratch that is
/// trained otherwise than the dense net would measure the recipe.
#[test]
fn the_study_from_scratch_of_cifar_10_trains_its_control_as_its_dense_net() {
    for data in ["jpeg", "narrow"] {
        let read = |study: &str| {
            let file = format!("experiments/cifar10-{data}/cifar10-{data}-{study}.toml");
            Spec::read(&project().join(file)).unwrap()
        };
        let (tuned, study) = (read("vgg16"), read("vgg16-scratch"));
        assert_eq!(study.from_scratch, study.dense.train);
        assert!(study.methods.iter().all(|method| tuned.methods.contains(method)));
        assert!(study.prune.keep_rates.iter().all(|rate| tuned.prune.keep_rates.contains(rate)));
        let mut same = tuned.clone();
        same.name.clone_from(&study.name);
        same.dense.train.as_mut().unwrap().epochs = study.dense.train.as_ref().unwrap().epochs;
        same.from_scratch.clone_from(&study.from_scratch);
        same.methods.clone_from(&study.methods);
        same.prune.keep_rates.clone_from(&study.prune.keep_rates);
        assert_eq!(study, same);
    }
}

#[test]
fn the_study_of_draws_has_the_dense_nets_of_the_one_from_scratch_and_as_many_draws_of_each_sample() {
    for data in ["jpeg", "narrow"] {
        let read = |study: &str| {
            let file = format!("experiments/cifar10-{data}/cifar10-{data}-vgg16-{study}.toml");
            Spec::read(&project().join(file)).unwrap()
        };
        let (first, draws) = (read("scratch"), read("calibration"));
        assert_eq!(
            (&draws.dataset, &draws.input, &draws.net, &draws.compute, &draws.dense, draws.seeds),
            (&first.dataset, &first.input, &first.net, &first.compute, &first.dense, first.seeds)
        );
        let value = |variant: &VariantSpec, key: &str| {
            variant.overrides[&format!("calibration.{key}")].as_integer().unwrap()
        };
        let keys = ["images-per-class", "positions-per-image", "draw"];
        let all: Vec<[i64; 3]> =
            draws.variants.iter().map(|variant| keys.map(|key| value(variant, key))).collect();
        for sample in all.chunks(6) {
            let expected: Vec<[i64; 3]> = (0..6).map(|draw| [sample[0][0], sample[0][1], draw]).collect();
            assert_eq!(sample, expected);
        }
        assert_eq!(all[0], [10, 10, 0], "the paper's sample");
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "each sample once");
    }
}

/// A recipe changed in one of them alone would train other dense nets, at half an hour each study.
#[test]
fn the_studies_of_the_default_net_share_their_dense_nets() {
    let read = |name: &str| Spec::read(&project().join("experiments").join(name)).unwrap();
    let first = read("fashion-mnist-selectors.toml");
    for other in ["selection", "seeds", "ablation-calibration", "ablation-tuning"] {
        let spec = read(&format!("fashion-mnist-{other}.toml"));
        assert_eq!(
            (&spec.dataset, &spec.input, &spec.net, &spec.compute, &spec.dense),
            (&first.dataset, &first.input, &first.net, &first.compute, &first.dense),
            "{other}"
        );
        assert!(spec.seeds >= first.seeds, "{other}");
    }
}
