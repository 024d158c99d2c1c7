//! `thinet data check` on image folders: many damaged files, one class only, folders of any name.

use std::fs;

use crate::fixture::{Fixture, SPEC};

#[test]
fn a_check_counts_all_damaged_files_and_names_the_first_twenty() {
    let fixture = Fixture::with_study();
    for class in 0..2 {
        for image in 0..12 {
            fixture.write(&format!("images/train/class{class}/{image:03}.png"), "no image");
        }
    }
    let check = fixture.run(&["data", "check", "--for", "small.toml", "--data", "images"]);
    assert_eq!((check.code, check.err.as_str()), (3, "error: 24 files cannot be decoded\n"), "{}", check.out);
    let named: Vec<&str> = check.out.lines().filter(|line| line.starts_with("damaged: ")).collect();
    assert_eq!((named.len(), named[20]), (21, "damaged: and 4 more; --json names all"));
    assert!(named[0].starts_with("damaged: images/train/class0/000.png: "), "{}", named[0]);
    assert!(check.out.ends_with("72 of 72 files decoded, 24 damaged\n"), "{}", check.out);
    let json = fixture.run(&["data", "check", "--for", "small.toml", "--data", "images", "--json"]);
    let report = json.json();
    assert_eq!((json.code, report["damaged"].as_array().unwrap().len()), (3, 24));
}

#[test]
fn images_of_one_class_only_fail_their_check() {
    let fixture = Fixture::new();
    fixture.images(1, 4, 2);
    fixture.write("small.toml", SPEC);
    let check = fixture.run(&["data", "check", "--for", "small.toml", "--data", "images"]);
    assert_eq!(check.code, 3, "{}", check.out);
    assert!(check.out.contains("problem: all 4 training images are of one class\n"), "{}", check.out);
    let expected = "error: all 4 training images are of one class; all 2 test images are of one class\n";
    assert_eq!(check.err, expected);
    let run = fixture.run(&["run", "small.toml", "--data", "images"]);
    assert_eq!((run.code, run.err), (3, expected.replace("error: ", "error: images: ")));
    assert!(!fixture.path("results").exists());
}

#[test]
fn a_limit_above_the_number_of_images_is_refused_with_its_spec() {
    let fixture = Fixture::new();
    fixture.images(3, 4, 2);
    fixture.write("small.toml", &SPEC.replace("size = 16", "size = 16, train-limit = 13"));
    for command in [&["data", "check", "--for"][..], &["run"]] {
        let ran = fixture.run(&[command, &["small.toml", "--data", "images"]].concat());
        let expected =
            "error: small.toml: dataset.train-limit: 13 is more than the 12 images there are (Waves)\n";
        assert_eq!((ran.code, ran.err.as_str()), (2, expected), "{command:?}");
    }
}

#[test]
fn a_folder_named_like_an_image_counts_as_damaged() {
    let fixture = Fixture::new();
    fixture.images(3, 4, 2);
    fixture.write("small.toml", SPEC);
    fs::create_dir(fixture.path("images/train/class0/x.png")).unwrap();
    let check = fixture.run(&["data", "check", "--for", "small.toml", "--data", "images"]);
    assert_eq!((check.code, check.err.as_str()), (3, "error: 1 file cannot be decoded\n"), "{}", check.out);
    let named = "damaged: images/train/class0/x.png: is a folder, expected a .png, .jpg or .jpeg file\n";
    assert!(check.out.contains(named), "{}", check.out);
}

#[cfg(unix)]
#[test]
fn a_folder_whose_name_is_not_utf8_is_checked_and_used() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let fixture = Fixture::with_study();
    let odd = OsStr::from_bytes(b"caf\xe9");
    fs::rename(fixture.path("images"), fixture.path("").join(odd)).unwrap();
    for arguments in
        [&["data", "check", "--json", "--for", "small.toml", "--data"][..], &["run", "small.toml", "--data"]]
    {
        let done = fixture.command(arguments).arg(odd).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}
