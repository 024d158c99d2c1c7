//! Selectors that are programs, on the command line: permission, workers, kills, Slurm, and the Python module with its examples.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::fixture::{Fixture, SPEC, files, tables, wait_until};

/// Weight sums without NumPy. Waits before each answer while there is a file `wait`.
const L1: &str = r#"
import json, os, struct, sys, time
print('{"protocol": 1, "name": "l1", "needs": ["filters"]}', flush=True)
for line in sys.stdin:
    q = json.loads(line)
    content = open(q["evidence"], "rb").read()
    (length,) = struct.unpack_from("<Q", content)
    entry = json.loads(content[8:8 + length])[q["layer"] + ".filters"]
    start, end = (8 + length + at for at in entry["data_offsets"])
    weights = [abs(w) for (w,) in struct.iter_unpack("<f", content[start:end])]
    n = entry["shape"][1]
    open("asked", "a").write(q["layer"] + "\n")
    while os.path.exists("wait"):
        time.sleep(0.02)
    print(json.dumps({"scores": [sum(weights[c * n:(c + 1) * n]) for c in range(q["channels"])]}), flush=True)
"#;

const RUN: [&str; 4] = ["run", "own.toml", "--data", "images"];

/// [`SPEC`] with these selectors as its methods.
fn spec(selectors: &[&str]) -> String {
    let methods: Vec<String> =
        selectors.iter().map(|selector| format!("{{ selector = {selector} }}")).collect();
    format!("{}methods = [{}]\n", &SPEC[..SPEC.find("methods").unwrap()], methods.join(", "))
}

fn fixture() -> Fixture {
    let fixture = Fixture::with_study();
    fixture.write("l1.py", L1);
    let own = "{ command = [\"python3\", \"l1.py\"], needs = [\"filters\"] }";
    fixture.write("own.toml", &spec(&[own, "\"weight-sum-l1\""]));
    fixture
}

#[test]
fn a_program_runs_with_permission_only_and_workers_inherit_it() {
    let fixture = fixture();
    let ran = fixture.run(&RUN);
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.err.contains("python3 l1.py") && ran.err.contains("--allow-commands"), "{}", ran.err);
    assert!(!fixture.path("asked").exists() && !fixture.path("results/store").exists());

    let ran = fixture.run(&["plan", "own.toml", "--data", "images"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let expected = "program     l1: python3 l1.py (in DIR; reads l1.py); needs --allow-commands";
    assert!(ran.out.contains(expected), "{}", ran.out);
    assert!(!fixture.path("asked").exists());

    let ran = fixture.run(&[&RUN[..], &["--allow-commands", "--jobs", "2"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    let kept = fs::read_to_string(fixture.path("results/tables/small.kept.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    let cells: Vec<String> = kept["cells"]
        .as_array()
        .map_or_else(Vec::new, |cells| cells.iter().map(|cell| cell["kept"].to_string()).collect());
    assert_eq!(cells.len(), 2, "{kept}");
    assert_eq!(cells[0], cells[1]);
    // Everything is stored now.
    assert_eq!(fixture.run(&RUN).code, 0);

    let ran = fixture.run(&["verify", "small", "--all", "--spec", "own.toml", "--data", "images"]);
    assert!(ran.code != 0 && ran.err.contains("--allow-commands"), "{}", ran.err);
    let ran = fixture.run(&[
        "verify",
        "small",
        "--all",
        "--spec",
        "own.toml",
        "--data",
        "images",
        "--allow-commands",
    ]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
}

#[test]
fn a_study_with_a_program_that_is_killed_and_started_again_has_the_same_tables() {
    let fixture = fixture();
    let allowed = |results| [&RUN[..], &["--allow-commands", "--results", results]].concat();
    let unbroken = fixture.run(&[&allowed("unbroken")[..], &["--jobs", "1"]].concat());
    assert_eq!(unbroken.code, 0, "{}", unbroken.err);

    fs::remove_file(fixture.path("asked")).unwrap();
    fixture.write("wait", "");
    let mut run = fixture
        .command(&[&allowed("broken")[..], &["--jobs", "2"]].concat())
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert!(wait_until(|| fixture.path("asked").exists()));
    run.kill().unwrap();
    run.wait().unwrap();
    fs::remove_file(fixture.path("wait")).unwrap();
    let again = fixture.run(&[&allowed("broken")[..], &["--jobs", "2"]].concat());
    assert_eq!(again.code, 0, "{}", again.err);
    assert_eq!(tables(&fixture.path("broken")), tables(&fixture.path("unbroken")));
    let left = files(&fixture.path("broken/store"));
    assert!(!left.iter().any(|file| file.to_string_lossy().contains("selector-")), "{left:?}");
}

#[test]
fn tasks_of_slurm_inherit_the_permission() {
    let fixture = fixture();
    let submit = ["submit", "own.toml", "--data", "images", "--dry-run"];
    assert_eq!(fixture.run(&submit).code, 2);
    let ran = fixture.run(&[&submit[..], &["--allow-commands"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    let scripts: Vec<String> = files(&fixture.path("results/runs"))
        .into_iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "sbatch"))
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let allowed = scripts.iter().filter(|script| script.contains("--allow-commands")).count();
    // The job that writes the tables runs no stage.
    assert_eq!((scripts.len(), allowed), (3, 2), "{scripts:?}");
}

/// A Python with NumPy: that of libtorch, an activated one, or the system's.
fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let libtorch = std::env::var_os("LIBTORCH").map_or_else(|| root.join(".libtorch"), PathBuf::from);
    // <environment>/lib/python3.N/site-packages/torch
    let beside =
        libtorch.canonicalize().ok().and_then(|folder| Some(folder.ancestors().nth(4)?.join("bin/python")));
    let activated = std::env::var_os("VIRTUAL_ENV").map(|folder| Path::new(&folder).join("bin/python"));
    [beside, activated, Some("python3".into())].into_iter().flatten().find(|python| {
        Command::new(python).args(["-c", "import numpy"]).output().is_ok_and(|done| done.status.success())
    })
}

#[test]
fn the_examples_in_python_select_as_they_say() {
    let Some(python) = python() else { return };
    let fixture = Fixture::with_study();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/examples");
    let example = |name: &str| {
        fs::copy(examples.join(name), fixture.path(name)).unwrap();
        format!("{{ command = [{:?}, {name:?}] }}", python.display().to_string())
    };
    let (l1, replaceable) = (example("l1.py"), example("replaceable.py"));
    fixture.write("own.toml", &spec(&[&l1, "\"weight-sum-l1\"", &replaceable, "\"thinet\""]));
    let ran = fixture.run(&[&RUN[..], &["--allow-commands", "--json"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    let study = ran.json();
    let kept: Vec<String> =
        study["cells"].as_array().unwrap().iter().map(|cell| cell["kept"].to_string()).collect();
    assert_eq!(kept.len(), 4);
    assert_eq!(kept[0], kept[1], "l1.py selects as weight-sum-l1");
    assert!(kept[2] != kept[1] && kept[2].contains("conv1"), "{}", kept[2]);
}
