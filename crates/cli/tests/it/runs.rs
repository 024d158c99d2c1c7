//! A run is found by every name it has, by every command, and all commands count the same.

use std::fs;

use crate::fixture::{Fixture, SPEC};

/// A fixture with a finished one-shot study of two seeds, started with `--seeds 2` on the spec's one.
fn studied() -> (Fixture, String) {
    let fixture = Fixture::new();
    fixture.images(3, 16, 8);
    let one_shot = SPEC
        .replace("prune.keep-rates", "prune.mode = \"one-shot\"\nprune.layers = \"all\"\nprune.keep-rates");
    fixture.write("small.toml", &one_shot);
    let ran = fixture.run(&["run", "small.toml", "--data", "images", "--jobs", "2", "--seeds", "2"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let run = fixture.entry("results/runs", "").file_name().unwrap().to_str().unwrap().to_owned();
    (fixture, run)
}

#[test]
fn plan_run_and_status_count_the_same_stages() {
    let (fixture, _) = studied();
    fs::rename(fixture.path("results"), fixture.path("before")).unwrap();
    let plan = fixture.run(&["plan", "small.toml", "--data", "images", "--seeds", "2"]);
    let line = plan.out.lines().find(|line| line.contains("stages are stored")).unwrap();
    let (counts, kinds) = line.split_once(" (").unwrap();
    let kinds = kinds.split_once(')').unwrap().0;
    let stages = counts.split(' ').nth(2).unwrap();
    assert!(kinds.starts_with("2 dense nets, ") && kinds.ends_with("calibrations and 4 cells"), "{line}");

    let ran = fixture.run(&["run", "small.toml", "--data", "images", "--seeds", "2"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.err.contains(&format!("small: {stages} stages, 0 stored")) && ran.err.contains(kinds),
        "{}",
        ran.err
    );
    let done: Vec<&str> = ran.err.lines().filter(|line| line.starts_with("done ")).collect();
    assert_eq!(done.len().to_string(), stages, "{}", ran.err);
    assert!(done.last().unwrap().contains(&format!(" {stages}/{stages} ")), "{}", ran.err);

    let status = fixture.run(&["status", "small.toml", "--seeds", "2"]);
    assert!(status.out.contains(&format!(": {stages} of {stages} stages done")), "{}", status.out);
    assert!(status.out.contains(&format!("stages: {kinds}\n")), "{}", status.out);
}

#[test]
fn variants_are_planned_run_in_workers_and_counted() {
    let fixture = Fixture::new();
    fixture.images(3, 16, 8);
    let variants =
        "[[variants]]\nname = \"layers\"\n[[variants]]\nname = \"at once\"\n\"prune.mode\" = \"one-shot\"\n";
    fixture.write("small.toml", &format!("{SPEC}\n{variants}"));
    let plan = fixture.run(&["plan", "small.toml", "--data", "images"]);
    assert_eq!(plan.code, 0, "{}", plan.err);
    for text in [
        "variant     layers: as the spec\npruned      layer-by-layer: ",
        "variant     at once: prune.mode = \"one-shot\"\npruned      one-shot: ",
        "\n      at once\nto do ",
        " and 4 cells)",
    ] {
        assert!(plan.out.contains(text), "{text:?} is not in\n{}", plan.out);
    }
    let json = fixture.run(&["plan", "small.toml", "--data", "images", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (&json["variants"][1]["mode"], &json["cells"][3]["variant"]),
        (&"one-shot".into(), &"at once".into())
    );

    let ran = fixture.run(&["run", "small.toml", "--data", "images", "--jobs", "2"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let stages = json["cost"]["stages"].as_u64().unwrap();
    let status = fixture.run(&["status", "small.toml"]);
    assert!(status.out.contains(&format!(": {stages} of {stages} stages done")), "{}", status.out);
    let table = fs::read_to_string(fixture.path("results/tables/small.csv")).unwrap();
    assert!(table.starts_with("run,variant,method,"), "{table}");
    let of_variant = |name: &str| table.lines().filter(|line| line.contains(&format!(",{name},"))).count();
    assert_eq!((of_variant("layers"), of_variant("at once")), (2, 2), "{table}");
}

#[test]
fn a_run_is_found_by_name_id_folder_spec_and_table() {
    let (fixture, name) = studied();
    let id = name.strip_prefix("small-").unwrap();
    let table = fs::read_to_string(fixture.path("results/tables/small.csv")).unwrap();
    assert!(
        table.lines().nth(1).unwrap().starts_with(&format!("{id},")),
        "the id is the one that tables print"
    );
    let folder = format!("results/runs/{name}");
    for what in [&*name, id, &id[..6], &folder, "small", "small.toml"] {
        let status = fixture.run(&["status", what]);
        assert!(
            status.out.starts_with(&format!("{name}: ")) && status.out.contains("stages done\n"),
            "{what}: {}",
            status.out
        );
        let shown = fixture.run(&["show", what]);
        assert!(shown.out.contains(&format!("runs/{name}\n")), "{what}: {}{}", shown.out, shown.err);
        let differs = fixture.run(&["diff", what, &name]);
        assert!(differs.code == 0 && differs.out.contains(" differ"), "{what}: {}", differs.err);
        let cleaned = fixture.run(&["clean", "--run", what, "--dry-run"]);
        assert!(cleaned.code == 0 && cleaned.out.contains(&name), "{what}: {}{}", cleaned.out, cleaned.err);
        if what != "small.toml" {
            let written = fixture.run(&["table", what, "--data", "images"]);
            assert!(written.code == 0 && written.out.contains("| random"), "{what}: {}", written.err);
            let verified = fixture.run(&["verify", what, "--data", "images"]);
            assert!(
                verified.code == 0 && verified.out.contains("1 of 1 cells agree"),
                "{what}: {}",
                verified.err
            );
        }
    }
    for command in ["status", "show", "table", "verify"] {
        let ran = fixture.run(&[command, "fish"]);
        assert_eq!((ran.code, ran.err.lines().count()), (2, 1), "{command}: {}", ran.err);
        assert!(
            ran.err.contains("\"fish\"") && (ran.err.contains(&name) || ran.err.contains("tables: small")),
            "{}",
            ran.err
        );
    }
    let other = fixture.run(&["status", "small.toml", "--seeds", "3"]);
    assert!(
        other.err.contains("start it: thinet run small.toml --seeds 3") && other.err.contains(&name),
        "{}",
        other.err
    );
    let weights = fixture.run(&["show", "resnet18.pth"]);
    assert!(
        weights.code == 2 && weights.err.contains("resnet18.pth: there is no such file"),
        "{}",
        weights.err
    );
}

#[test]
fn copies_of_runs_and_of_results_folders_are_found_with_their_stages() {
    let (fixture, name) = studied();
    let copy = |from: &str, to: &str| {
        let status =
            std::process::Command::new("cp").arg("-r").arg(fixture.path(from)).arg(fixture.path(to)).status();
        assert!(status.unwrap().success());
    };
    let folder = format!("results/runs/{name}");
    copy(&folder, "alone");
    copy("results", "everything");
    let all_done = |arguments: &[&str]| {
        let status = fixture.run(arguments);
        let first = status.out.lines().next().unwrap_or_default().to_owned();
        let counts = first.rsplit(": ").next().unwrap_or_default().split(' ').collect::<Vec<_>>();
        assert!(
            counts.len() > 2 && counts[0] == counts[2] && counts[0] != "0",
            "{arguments:?}: {first}{}",
            status.err
        );
    };
    // The run's own folder and its copy have their stages in the results folder here.
    all_done(&["status", "alone"]);
    fs::rename(fixture.path("results"), fixture.path("elsewhere")).unwrap();
    all_done(&["status", &format!("everything/runs/{name}")]);
    all_done(&["status", "small.toml", "--results", "everything"]);
    let alone = fixture.run(&["status", "alone"]);
    assert!(
        alone.err.contains("none of its stages is in results/store; --results names"),
        "{}{}",
        alone.out,
        alone.err
    );
    all_done(&["status", "alone", "--results", "elsewhere"]);
    let verified = fixture.run(&["verify", "small", "--results", "everything", "--data", "images"]);
    assert!(verified.code == 0 && verified.out.contains("weights too"), "{}{}", verified.out, verified.err);
}

#[test]
fn a_plan_of_sixty_thousand_cells_fits_into_a_gigabyte() {
    let fixture = Fixture::new();
    fixture.images(10, 16, 8);
    let rates: Vec<String> = (0..30).map(|i| format!("{:.2}", 0.3 + f64::from(i) * 0.02)).collect();
    let spec = SPEC
        .replace("[0.5]", &format!("[{}]", rates.join(", ")))
        .replace("arch = \"tiny\"", "arch = \"cifar-resnet20\"")
        .replace("size = 16", "size = 32")
        .replace("name = \"small\"", "name = \"large\"\nseeds = 1000");
    fixture.write("large.toml", &spec);
    let mut command = std::process::Command::new("sh");
    command.current_dir(fixture.path("")).args(["-c", "ulimit -d 1048576; exec \"$0\" \"$@\""]);
    let thinet = env!("CARGO_BIN_EXE_thinet");
    let planned =
        command.args([thinet, "plan", "large.toml", "--data", "images", "--json"]).output().unwrap();
    let error = String::from_utf8_lossy(&planned.stderr);
    assert!(planned.status.success(), "{}: {error}", planned.status);
    let plan: serde_json::Value = serde_json::from_slice(&planned.stdout).unwrap();
    assert_eq!(plan["cost"]["cells"], 60_000);
}
