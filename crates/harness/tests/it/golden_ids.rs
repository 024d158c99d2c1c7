//! Golden ids of real plans, one for each kind of dataset: stored results are found by their ids, so that an id that
//! changes loses them.

use std::fs;
use std::path::Path;

use thinet_harness::study::{Options, Plan};

use crate::shipped_specs::{fetched_fashion_mnist, project, write_cifar10_of_stripes};
use crate::small;

/// Shown beside the difference when a test fails.
const WHAT_TO_DO: &str = "Stages are stored under these ids. Where results did not change, neither may the ids: a key \
that comes later is left out of ids at its default. Where a meaning changed, its version constant is raised, the \
CHANGELOG says which results are made again, and the new ids are taken with INSTA_UPDATE=always.";

/// Everything after `[dataset]` of a study that prunes layer by layer, with most keys that an id holds.
const LAYER_BY_LAYER: &str = r#"
[net]
arch = "tiny"
batch-norm = true
[dense.train]
epochs = 2
batch = 4
lr = 0.05
schedule = { kind = "cosine" }
augment = { crop-padding = 2, mirror = true }
[prune]
keep-rates = [0.5, 0.75]
layer-rates = { conv3 = 0.75 }
[prune.after-layer]
steps = 2
batch = 4
lr = 0.01
[[prune.exceptions]]
layers = ["conv2"]
[prune.after-last]
epochs = 2
batch = 4
lr = 0.01
[calibration]
images-per-class = 1
positions-per-image = 4
[from-scratch]
epochs = 1
batch = 4
lr = 0.01
"#;

/// The same of a study that prunes in one shot.
const ONE_SHOT: &str = r#"
[net]
arch = "tiny"
[dense.train]
epochs = 2
batch = 4
lr = 0.05
[prune]
mode = "one-shot"
keep-rates = [0.5]
[prune.after-last]
epochs = 2
batch = 4
lr = 0.01
[calibration]
images-per-class = 1
positions-per-image = 4
"#;

/// Every method that was registered when these ids were first pinned.
const METHODS: &str = r#"
[[methods]]
selector = "thinet"
reconstruction = "channel-scale"
[[methods]]
selector = "thinet-omp"
[[methods]]
selector = "apoz"
[[methods]]
selector = "weight-sum-l1"
[[methods]]
selector = "weight-sum-l2"
[[methods]]
selector = "random"
"#;

/// The ids of a plan, one a line.
fn ids(plan: &Plan) -> String {
    let mut lines = vec![format!("run: {}", plan.run)];
    for dense in &plan.dense {
        lines.push(format!("{}: {}", dense.label(), dense.id));
        lines.extend(dense.evidence.iter().map(|stage| format!("{}: {}", stage.label, stage.id)));
    }
    lines.extend(plan.allocations.iter().map(|stage| format!("{}: {}", stage.label, stage.id)));
    lines.extend(plan.cells.iter().map(|cell| format!("{}: {}", cell.design.label(), cell.id)));
    lines.join("\n")
}

/// Plans a spec file on data in `folder`.
fn plan(file: &Path, folder: &Path) -> Plan {
    let options = Options { data: Some(folder.to_owned()), ..Options::default() };
    Plan::new(file, &options).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Compares the ids of a study in each mode on `dataset`: the keys of `[dataset]` and further lines about the data.
fn assert_golden(name: &str, dataset: &str, folder: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for (mode, rest) in [("layer-by-layer", LAYER_BY_LAYER), ("one-shot", ONE_SHOT)] {
        let file = scratch.path().join(format!("{mode}.toml"));
        fs::write(&file, format!("name = \"golden\"\n[dataset]\n{dataset}\n{rest}\n{METHODS}")).unwrap();
        text.push_str(&format!("{mode}\n{}\n\n", ids(&plan(&file, folder))));
    }
    assert_snapshot(name, &text);
}

fn assert_snapshot(name: &str, text: &str) {
    insta::with_settings!({ description => WHAT_TO_DO, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

/// Files whose bytes no encoder can change: fingerprints hold the sizes of files.
fn copy_fixed(name: &str, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(project().join("crates/data/tests/golden").join(name), to).unwrap();
}

#[test]
fn fashion_mnist() {
    let folder = fetched_fashion_mnist();
    assert_golden(
        "fashion-mnist",
        "kind = \"fashion-mnist\"\ntrain-limit = 200\n[input]\nsize = 32",
        &folder,
    );
}

#[test]
fn shipped_studies_on_fashion_mnist() {
    let folder = fetched_fashion_mnist();
    let mut text = String::new();
    for name in ["smoke", "fashion-mnist-selectors"] {
        let plan = plan(&project().join(format!("experiments/{name}.toml")), &folder);
        text.push_str(&format!("{name}\n{}\n\n", ids(&plan)));
    }
    assert_snapshot("shipped-studies", &text);
}

#[test]
fn cifar10() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("cifar10");
    write_cifar10_of_stripes(&folder);
    assert_golden("cifar10", "kind = \"cifar10\"", &folder);
}

#[test]
fn a_global_allocation() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("cifar10");
    write_cifar10_of_stripes(&data);
    let file = folder.path().join("global.toml");
    let asked = "keep-rates = [0.5]\nflops = [0.3]\nallocation = \"global\"";
    let rest = ONE_SHOT.replace("keep-rates = [0.5]", asked);
    let methods = "[from-scratch]\nepochs = 1\nbatch = 4\nlr = 0.01\n[[methods]]\nselector = \"weight-sum-l1\"\n\
                   [[methods]]\nselector = \"apoz\"\nreconstruction = \"channel-scale\"\n";
    fs::write(&file, format!("name = \"golden\"\n[dataset]\nkind = \"cifar10\"\n{rest}\n{methods}")).unwrap();
    assert_snapshot("global-allocation", &ids(&plan(&file, &data)));
}

#[test]
fn image_folder() {
    let folder = tempfile::tempdir().unwrap();
    for (split, images) in [("train", 4), ("test", 2)] {
        for class in ["cats", "dogs"] {
            for i in 0..images {
                copy_fixed(
                    "bicubic-32x32.png",
                    &folder.path().join(split).join(class).join(format!("{i}.png")),
                );
            }
        }
    }
    assert_golden("image-folder", "kind = \"image-folder\"\nname = \"Pets\"\nsize = 16", folder.path());
}

#[test]
fn imagenet() {
    let folder = tempfile::tempdir().unwrap();
    for class in 0..3 {
        let wnid = format!("n{:08}", 1_440_764 + class);
        for i in 0..2 {
            copy_fixed("exif.jpg", &folder.path().join(format!("train/{wnid}/{wnid}_{i}.JPEG")));
        }
        copy_fixed(
            "grey.jpg",
            &folder.path().join(format!("val/{wnid}/ILSVRC2012_val_{:08}.JPEG", class + 1)),
        );
    }
    let keys = "kind = \"imagenet\"\nclasses = 3\nprotocol = \"caffe-short\"\n\
                calibration-protocol = \"caffe-squash\"\nside = 36\ncrop = 32";
    assert_golden("imagenet", keys, folder.path());
}

#[test]
fn cub200() {
    let folder = tempfile::tempdir().unwrap();
    small::write_cub200(folder.path(), |_, path| copy_fixed("exif.jpg", path));
    assert_golden("cub200", "kind = \"cub200\"\nside = 36\ncrop = 32", folder.path());
}
