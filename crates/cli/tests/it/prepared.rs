//! `thinet data prepare`: a study on prepared photographs has the same results, and its command says what goes wrong.

use std::fs;

use crate::fixture::{Fixture, tables};
use crate::photographs;

const SPEC: &str = r#"
name = "photos"
table = "photos"
[dataset]
kind = "imagenet"
classes = 2
protocol = "caffe-short"
side = 36
crop = 32
[net]
arch = "tiny"
[dense]
allow-chance = true
[dense.train]
epochs = 2
batch = 4
lr = 0.01
augment = { random-crop = true, mirror = true }
[prune]
keep-rates = [0.5]
[prune.after-last]
steps = 2
batch = 4
lr = 0.01
augment = { random-crop = true }
[calibration]
images-per-class = 3
positions-per-image = 2
[[methods]]
selector = "thinet"
[[methods]]
selector = "apoz"
"#;

/// Photographs of two classes in the folder `photos`, and [`SPEC`].
fn fixture() -> Fixture {
    let fixture = Fixture::new();
    photographs::imagenet(&fixture.path("photos"), 2, 6, |_| 3, |i| [40 + 7 * i, 60 - 5 * i]);
    fixture.write("photos.toml", SPEC);
    fixture
}

#[test]
fn a_study_on_prepared_photographs_has_the_ids_and_bytes_of_one_that_decodes() {
    let fixture = fixture();
    let run = |results: &str, more: &[&str]| {
        let command = ["run", "photos.toml", "--data", "photos", "--jobs", "2", "--results", results];
        let ran = fixture.run(&[&command, more].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        let mut stages: Vec<String> = fs::read_dir(fixture.path(results).join("store"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        stages.sort();
        (ran.err, stages, tables(&fixture.path(results)))
    };
    let (lines, stages, expected) = run("decoded", &[]);
    assert!(!lines.contains("images are read from"), "{lines}");

    // In the folder of the dataset, and elsewhere.
    for (results, folder, more) in
        [("here", "photos/prepared", &[][..]), ("elsewhere", "files", &["--prepared", "files"])]
    {
        let prepare = ["data", "prepare", "--for", "photos.toml", "--data", "photos"];
        let made = fixture.run(&[&prepare, more].concat());
        assert_eq!((made.code, made.out.as_str()), (0, ""), "{}", made.err);
        let lines: Vec<&str> = made.err.lines().collect();
        assert_eq!(lines.len(), 3, "{}", made.err);
        let first = format!("preparing in {folder}: 18 images take 0.1 MB; ");
        assert!(lines[0].starts_with(&first) && lines[0].ends_with(" are free"), "{}", lines[0]);
        for (line, part, images) in [(lines[1], "train", 12), (lines[2], "test", 6)] {
            let start = format!("prepared {folder}/imagenet-{part}-caffe-short-36.");
            assert!(
                line.starts_with(&start) && line.contains(&format!(".pixels: {images} images, 0.")),
                "{line}"
            );
        }
        let (lines, found_stages, found) = run(results, more);
        let read =
            lines.lines().filter(|line| line.starts_with(&format!("photos: images are read from {folder}/")));
        assert_eq!(read.count(), 2, "{lines}");
        assert_eq!(found_stages, stages);
        assert_eq!(found, expected);
        let plan = fixture.run(&[&["plan", "photos.toml", "--data", "photos"], more].concat());
        assert!(plan.out.contains(&format!("read from   {folder}/imagenet-train-")), "{}", plan.out);
        let again = fixture.run(&[&prepare, more].concat());
        assert!(again.err.lines().all(|line| line.ends_with(".pixels is there and whole")), "{}", again.err);
        if more.is_empty() {
            fs::remove_dir_all(fixture.path("photos/prepared")).unwrap();
        }
    }
}

#[test]
fn a_stale_file_stops_every_command_and_preparing_again_helps() {
    let fixture = fixture();
    let prepare = ["data", "prepare", "--for", "photos.toml", "--data", "photos"];
    assert_eq!(fixture.run(&prepare).code, 0);
    let image = |number: u32| fixture.path(&format!("photos/val/n01440764/ILSVRC2012_val_{number:08}.JPEG"));
    fs::copy(image(0), image(98)).unwrap();
    for command in ["run", "plan"] {
        let ran = fixture.run(&[command, "photos.toml", "--data", "photos"]);
        assert_eq!(ran.code, 3, "{}", ran.err);
        let start = "error: photos/prepared/imagenet-test-caffe-short-36.";
        let end = ".pixels: it was prepared from other images (6 then, 7 now): files in DIR/photos were added, removed, \
                   moved or changed; run `thinet data prepare` again, or remove it to decode the images each time\n";
        assert!(ran.err.starts_with(start) && ran.err.ends_with(end), "{}", ran.err);
    }
    // A check decodes the images themselves.
    let check = fixture.run(&["data", "check", "--for", "photos.toml", "--data", "photos"]);
    assert!(check.out.contains("19 of 19 files decoded, 0 damaged"), "{}", check.out);
    let again = fixture.run(&prepare);
    assert!(again.err.contains("as the images have changed since\n"), "{}", again.err);
    let plan = fixture.run(&["plan", "photos.toml", "--data", "photos"]);
    assert_eq!(plan.code, 0, "{}", plan.err);
}

#[test]
fn what_cannot_be_prepared_is_an_error_of_the_spec_or_the_data() {
    let fixture = fixture();
    fixture.write("photos.toml", &SPEC.replace("caffe-short", "torchvision"));
    let ran = fixture.run(&["data", "prepare", "--for", "photos.toml", "--data", "photos"]);
    let expected = "error: photos.toml: dataset.protocol: torchvision resizes a random part of each training image, so there \
                    is nothing to keep; the images are decoded each time\n";
    assert_eq!((ran.code, ran.err.as_str()), (2, expected));
    fixture.write("photos.toml", SPEC);
    fixture.write("file", "");
    let arguments =
        ["data", "prepare", "--for", "photos.toml", "--data", "photos", "--prepared", "file/below"];
    let ran = fixture.run(&arguments);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.err.starts_with("error: file/below: cannot create: "), "{}", ran.err);
    assert!(ran.err.ends_with("; --prepared DIR names another folder\n"), "{}", ran.err);
}
