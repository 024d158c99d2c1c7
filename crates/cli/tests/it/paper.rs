//! Studies at the paper's scale without their data, export, and the check of a dataset.

use std::path::Path;

use crate::fixture::{Fixture, SPEC, files};

fn shipped(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments").join(name).display().to_string()
}

#[test]
fn without_data_the_tables_say_not_run_and_stay_the_same() {
    let fixture = Fixture::new();
    let names = ["imagenet/vgg16-conv-twins.toml", "imagenet/vgg16-conv.toml", "cub200/selectors.toml"];
    let specs = names.map(shipped);
    let mut arguments = vec!["paper"];
    arguments.extend(specs.iter().map(String::as_str));
    let first = fixture.run(&arguments);
    assert_eq!(first.code, 0, "{}", first.err);
    let last = first.out.lines().last().unwrap();
    assert!(last.starts_with("Not run: cub200-selectors, vgg16-conv, vgg16-conv-twins, latency"), "{last}");
    assert!(last.ends_with("IMAGENET=/path/to/ILSVRC2012 CUB=/path/to/CUB_200_2011 DEVICE=cuda:0"), "{last}");
    // For tables that were not run a line is printed; they are in their files.
    assert!(first.out.lines().count() <= 25, "{}", first.out);
    assert!(first.out.contains("imagenet-vgg16.md    6 rows, not run"), "{}", first.out);
    let table = std::fs::read_to_string(fixture.path("results/tables/imagenet-vgg16.md")).unwrap();
    let line = table.lines().find(|line| line.contains("| thinet-conv | vgg16-conv ")).unwrap();
    assert!(line.contains("not run") && line.contains("69.80") && line.contains("1.70"), "{line}");
    let tables = || {
        let files = files(&fixture.path("results/tables"));
        files.into_iter().map(|file| (std::fs::read(&file).unwrap(), file)).collect::<Vec<_>>()
    };
    let before = tables();
    assert!(before.iter().any(|(_, file)| file.ends_with("imagenet-vgg16.csv")));
    assert!(before.iter().any(|(_, file)| file.ends_with("cub200-selectors-summary.md")));
    let again = fixture.run(&arguments);
    assert_eq!((again.code, &again.out), (0, &first.out));
    assert_eq!(tables(), before);

    // A table that was measured earlier stays, and does not count as missing.
    let stored = "run,experiment,status\n0123456789ab,vgg16-conv,done\n";
    fixture.write("results/tables/imagenet-vgg16.csv", stored);
    fixture.write("results/tables/imagenet-vgg16.md", "measured earlier\n");
    let third = fixture.run(&arguments);
    assert_eq!(third.code, 0, "{}", third.err);
    assert!(third.err.contains("imagenet-vgg16.md (measured earlier)"), "{}", third.err);
    assert!(third.out.contains("Not run: cub200-selectors, vgg16-conv-twins, latency"), "{}", third.out);
    let csv = std::fs::read_to_string(fixture.path("results/tables/imagenet-vgg16.csv")).unwrap();
    assert_eq!(csv, stored);

    // Nor is the table of another study overwritten.
    let foreign = "run,experiment,status\nnot-run,birds,not-run\n";
    fixture.write("results/tables/imagenet-vgg16.csv", foreign);
    let with_data = [&arguments[..], &["--imagenet", "nowhere"]].concat();
    let refused = fixture.run(&with_data);
    assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{}", refused.err);
    assert!(refused.err.contains("table imagenet-vgg16 holds birds, not vgg16-conv"), "{}", refused.err);

    fixture.write("small.toml", SPEC);
    let other = fixture.run(&["paper", "small.toml"]);
    assert_eq!(other.code, 2);
    assert!(other.err.contains("only imagenet, cub200 and cifar10 studies"), "{}", other.err);
}

#[test]
fn other_peoples_numbers_on_cifar10_have_a_table_of_their_own() {
    let fixture = Fixture::new();
    let names = ["resnet56-distiller-68m", "resnet56-distiller-79m", "resnet56-wang", "vgg16-li"];
    let specs = names.map(|name| shipped(&format!("cifar10/cifar10-{name}.toml")));
    let mut arguments = vec!["paper"];
    arguments.extend(specs.iter().map(String::as_str));
    let ran = fixture.run(&arguments);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let last = ran.out.lines().last().unwrap();
    assert!(last.contains("Not run: cifar10-resnet56-distiller-68m, "), "{last}");
    assert!(
        last.ends_with("make reproduce-table CIFAR10=/path/to/cifar-10-batches-bin DEVICE=cuda:0"),
        "{last}"
    );
    assert!(ran.out.contains("cifar10-published.md  40 rows, not run"), "{}", ran.out);
    let table = std::fs::read_to_string(fixture.path("results/tables/cifar10-published.md")).unwrap();
    let line = table
        .lines()
        .find(|line| line.contains("| APoZ, gradual ") && line.contains("| 78,856,832 "))
        .unwrap();
    assert!(line.contains("93.03") && line.contains("78.86") && line.contains("not run"), "{line}");
}

#[test]
fn the_closing_lines_begin_with_the_result_of_the_study() {
    let fixture = Fixture::with_study();
    assert_eq!(fixture.run(&["run", "small.toml", "--data", "images"]).code, 0);
    let ran = fixture.run(&["paper", &shipped("cub200/selectors.toml"), "--study", "small.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.out.starts_with("## Result of small: tuned top-1, %, at each keep rate; dense "),
        "{}",
        ran.out
    );
    assert!(ran.out.lines().count() <= 25, "{}", ran.out);
    let row = ran.out.lines().find(|line| line.starts_with("| random ")).unwrap();
    assert!(row.split('|').nth(2).unwrap().trim().parse::<f64>().is_ok(), "{row}");

    // The same lines apart from the work, with what was made in between.
    let apart = |when: &str| {
        fixture.run(&["paper", &shipped("cub200/selectors.toml"), "--study", "small.toml", "--closing", when])
    };
    let never = apart("never");
    assert_eq!((never.code, never.out.as_str()), (0, ""), "{}", never.err);
    let only = apart("only");
    assert_eq!((only.code, &only.out, only.err.as_str()), (0, &ran.out, ""));
    assert_eq!(fixture.run(&["report"]).code, 0);
    let only = apart("only").out;
    assert!(only.lines().any(|line| line.starts_with("Report: results/report/index.html ")), "{only}");
}

#[test]
fn a_study_that_fails_is_named_and_the_others_get_their_tables() {
    let fixture = Fixture::new();
    let (conv, birds) = (shipped("imagenet/vgg16-conv.toml"), shipped("cub200/selectors.toml"));
    let ran = fixture.run(&["paper", &conv, &birds, "--imagenet", "nowhere"]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.err.contains("vgg16-conv.toml: nowhere/train: not found"), "{}", ran.err);
    assert!(ran.err.lines().last().unwrap().starts_with("error: some studies failed"), "{}", ran.err);
    assert!(fixture.path("results/tables/imagenet-vgg16.md").exists());
    assert!(fixture.path("results/tables/cub200-selectors.md").exists());
}

#[test]
fn a_plan_of_a_paper_scale_study_needs_neither_data_nor_device() {
    let fixture = Fixture::new();
    let ran = fixture.run(&["plan", &shipped("imagenet/vgg16-conv.toml"), "--device", "cuda:0"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    for text in [
        "ImageNet: 1281167 training, 50000 test images",
        "after conv1_2, conv2_2, conv3_3: 2 epochs of batch 128, lr 0.001, × 0.1 at 50 %",
        "data/weights/vgg16-caffe.pth (not there)",
        "after conv4_3: 12 epochs of batch 128",
        "24 epochs of tuning a cell",
        "32 32 64 64 128 128 128 256 256 256",
        "time with 1 job on cuda:0: about",
        "  1 dense net: about",
        " each, bounded by ",
        "(assumed rates)",
        "disk needed: about",
    ] {
        assert!(ran.out.contains(text), "{text:?} is not in\n{}", ran.out);
    }
}

#[test]
fn a_stored_net_is_exported_once() {
    let fixture = Fixture::with_study();
    let ran = fixture.run(&["run", "small.toml", "--data", "images", "--json"]);
    let study = ran.json();
    let cell = study["cells"][0]["id"].as_str().unwrap().to_owned();
    let arguments = ["export", &cell, "--layout", "own", "-o", "net.safetensors"];
    let first = fixture.run(&arguments);
    assert_eq!(first.code, 0, "{}", first.err);
    let bytes = std::fs::read(fixture.path("net.safetensors")).unwrap();
    let again = fixture.run(&arguments);
    assert_eq!(again.code, 2);
    assert!(again.err.contains("net.safetensors exists already; --force replaces it"), "{}", again.err);
    assert_eq!(
        fixture.run(&["export", &cell, "--layout", "own", "-o", "net.safetensors", "--force"]).code,
        0
    );
    assert_eq!(std::fs::read(fixture.path("net.safetensors")).unwrap(), bytes);
    let shown = fixture.run(&["show", "net.safetensors"]);
    assert!(shown.out.starts_with("tiny: input 1×16×16, 3 classes"), "{}", shown.out);
    let unknown = fixture.run(&["export", "cell-0", "-o", "x.safetensors"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("is neither a .safetensors file nor a stage"), "{}", unknown.err);
}

#[test]
fn a_dataset_with_a_damaged_photograph_fails_its_check() {
    let fixture = Fixture::new();
    fixture.images(3, 16, 8);
    let spec = SPEC.replace("channels = 1", "channels = 1, cache = false");
    fixture.write("small.toml", &spec);
    let check = || fixture.run(&["data", "check", "--for", "small.toml", "--data", "images"]);
    let good = check();
    assert_eq!(good.code, 0, "{}", good.err);
    assert!(good.out.contains("72 of 72 files decoded, 0 damaged"), "{}", good.out);
    fixture.write("images/train/class1/003.png", "no image");
    let bad = check();
    assert_eq!(bad.code, 3, "{}", bad.out);
    assert!(bad.out.contains("damaged: images/train/class1/003.png"), "{}", bad.out);
    assert_eq!(bad.err, "error: 1 file cannot be decoded\n");
}
