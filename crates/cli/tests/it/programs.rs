//! Selectors that are programs, on the command line: permission, workers, kills, Slurm, and the Python module with its examples.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thinet_models::load_tensors;

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

/// A Python with NumPy: that of libtorch, an activated one, or the system's. `make test` installs it.
fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let libtorch = std::env::var_os("LIBTORCH").map_or_else(|| root.join(".libtorch"), PathBuf::from);
    // <environment>/lib/python3.N/site-packages/torch
    let beside =
        libtorch.canonicalize().ok().and_then(|folder| Some(folder.ancestors().nth(4)?.join("bin/python")));
    let activated = std::env::var_os("VIRTUAL_ENV").map(|folder| Path::new(&folder).join("bin/python"));
    let of_set_up = Some(root.join(".venv/bin/python"));
    let found = [beside, of_set_up, activated, Some("python3".into()), Some("python".into())]
        .into_iter()
        .flatten()
        .find(|python| {
            Command::new(python).args(["-c", "import numpy"]).output().is_ok_and(|done| done.status.success())
        });
    found.expect("a Python with NumPy: run scripts/numpy.sh")
}

#[test]
fn the_examples_in_python_select_as_they_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let examples = root.join("python/examples");
    let page = fs::read_to_string(root.join("docs/your-own-selector.md")).unwrap();
    assert!(
        page.contains(&fs::read_to_string(examples.join("replaceable.py")).unwrap()),
        "the page shows the example as it is"
    );
    let python = python();
    let fixture = Fixture::with_study();
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

#[test]
fn a_selector_in_python_that_raises_is_answered_with_one_line_that_names_its_lines() {
    let fixture = Fixture::with_study();
    let selectors = [
        (
            "raises.py",
            "    return helper(evidence.filters)\n",
            "ZeroDivisionError: division by zero (raises.py:7 in small, raises.py:5 in helper)",
        ),
        (
            "absent.py",
            "    return evidence.zeros\n",
            "no zeros of layer conv1: it holds filters; name the kind of evidence in needs",
        ),
        ("wrong.py", "    return evidence.filters\n", "ValueError: scores have shape ("),
        (
            "nan.py",
            "    return np.full(len(evidence.filters), np.nan)\n",
            "ValueError: the score of channel 0 is nan",
        ),
        (
            "chained.py",
            "    try:\n        return {}[\"x\"]\n    except KeyError:\n        raise RuntimeError(\"none\")\n",
            "RuntimeError: none (chained.py:10 in small); from KeyError: 'x' (chained.py:8 in small)",
        ),
        ("complex.py", "    return np.ones(len(evidence.filters)) * 1j\n", "is not JSON serializable"),
    ];
    let python = python();
    let commands = selectors.map(|(file, body, _)| {
        let head = "import numpy as np\nfrom thinet_selector import serve\n\ndef helper(filters):\n    return 1 / 0\ndef small(evidence):\n";
        let tail = "serve(\"small\", needs=[\"filters\"], scores=small)\n";
        fixture.write(file, &format!("{head}{body}{tail}"));
        format!("{{ command = [{:?}, {file:?}] }}", python.display().to_string())
    });
    fixture.write("own.toml", &spec(&commands.each_ref().map(String::as_str)));
    let ran = fixture.run(&[&RUN[..], &["--allow-commands"]].concat());
    assert_eq!(ran.code, 1, "{}", ran.err);
    for (file, _, expected) in selectors {
        let lines: Vec<&str> = ran.err.lines().filter(|line| line.contains(file)).collect();
        // Where it failed; the first of all failures is named at the end, too.
        assert!(lines.iter().any(|line| line.contains(expected)), "{file}: {lines:?}");
        assert!(lines.iter().all(|line| !line.starts_with("note")), "{file}: {lines:?}");
    }
}

#[test]
fn a_new_method_is_compared_with_those_of_a_stored_study() {
    let fixture = Fixture::with_study();
    fixture.write("l1.py", L1);
    fixture.write("small.toml", &SPEC.replace("name = \"small\"", "name = \"small\"\nseeds = 3"));
    let compare = ["compare", "small.toml", "--data", "images", "--selector", "python3 l1.py"];
    let ran = fixture.run(&compare);
    assert!(ran.code == 1 && ran.err.contains("run the study first: thinet run small.toml"), "{}", ran.err);

    assert_eq!(fixture.run(&["run", "small.toml", "--data", "images"]).code, 0);
    let cells = || {
        files(&fixture.path("results/store"))
            .iter()
            .filter(|f| f.to_string_lossy().contains("/cell-"))
            .count()
    };
    let (before, cells_before) = (tables(&fixture.path("results")), cells());
    let ran = fixture.run(&compare);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("# l1 against the other methods on Waves"), "{}", ran.out);
    for part in [
        "before tuning",
        "after tuning",
        "thinet + channel-scale",
        "random",
        "seeds for half a point",
        "FLOPs each",
    ] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    // Three new cells of two files each; every table of the study is as it was.
    assert_eq!(cells() - cells_before, 3 * 2);
    let after = tables(&fixture.path("results"));
    assert!(before.iter().all(|(name, bytes)| after[name] == *bytes));
    for suffix in ["csv", "md", "json", "parquet"] {
        assert!(after.contains_key(&format!("small-l1-verdict.{suffix}")), "{suffix}: {:?}", after.keys());
    }
    let rows: serde_json::Value = serde_json::from_slice(&after["small-l1-verdict.json"]).unwrap();
    // Two phases, two other methods.
    assert_eq!(rows.as_array().unwrap().len(), 4, "{rows}");
    assert!(rows.as_array().unwrap().iter().all(|row| row["n"] == 3 && row["method"] == "l1"), "{rows}");
    assert!(fixture.path("results/figures/small-l1-verdict.vl.json").is_file());

    // The differences are those of the two studies' own tables.
    let top1 = |table: &str, method: &str| -> Vec<f64> {
        let csv = String::from_utf8(after[&format!("{table}.csv")].clone()).unwrap();
        let mut lines = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let heading = lines.next().unwrap();
        let at = |name: &str| heading.iter().position(|column| *column == name).unwrap();
        let (label, value) = (at("method"), at("after_fine_tune_top1"));
        lines.filter(|line| line[label] == method).map(|line| line[value].parse().unwrap()).collect()
    };
    let (own, random) = (top1("small-l1", "l1"), top1("small", "random"));
    assert_eq!((own.len(), random.len()), (3, 3));
    let mean = own.iter().zip(&random).map(|(own, random)| own - random).sum::<f64>() / 3.0;
    let row = rows
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["against"] == "random" && row["stage"] == "after-fine-tune");
    assert!((row.unwrap()["top1_difference"].as_f64().unwrap() - mean).abs() < 1e-9);

    // A second time nothing is run; the name of another method is refused, and so is a study of one seed.
    let ran = fixture.run(&[&compare[..], &["--json"]].concat());
    assert_eq!((ran.code, ran.json()), (0, rows), "{}", ran.err);
    let ran = fixture.run(&[&compare[..], &["--label", "random"]].concat());
    assert!(ran.code == 2 && ran.err.contains("--label"), "{}", ran.err);
    let ran = fixture.run(&[&compare[..], &["--seeds", "1"]].concat());
    let advice =
        "thinet run small.toml --seeds 3 --data images && thinet compare small.toml --seeds 3 --data images";
    assert!(ran.code == 2 && ran.err.contains(advice), "{}", ran.err);
    // Of more seeds nothing is stored.
    let ran = fixture.run(&[&compare[..], &["--seeds", "5"]].concat());
    assert!(ran.err.contains("thinet run small.toml --seeds 5 --data images\n"), "{}", ran.err);
    // A registered selector is a method like any other.
    let ran =
        fixture.run(&["compare", "small.toml", "--data", "images", "--selector", "apoz", "--label", "zeros"]);
    assert!(ran.code == 0 && ran.out.contains("zeros against the other methods"), "{}", ran.err);
}

/// Prints the order of weight sums of each layer.
const READ: &str = r#"
import sys
sys.path.insert(0, "evidence")
import numpy as np
from thinet_selector import Evidence, layers
for layer in layers("evidence/seed-0.safetensors"):
    e = Evidence("evidence/seed-0.safetensors", layer)
    sums = np.abs(e.filters.astype(np.float64)).cumsum(axis=1)[:, -1]
    assert e.gram.shape == (len(sums), len(sums)) and e.rows > 0 and (e.zeros <= e.total).all() and (e.mean <= e.max).all()
    kept = sorted(np.argsort(sums, kind="stable")[len(sums) - len(sums) // 2:].tolist())
    print(layer, kept)
"#;

#[test]
fn the_evidence_of_a_study_is_written_for_notebooks_and_read_by_the_module() {
    let fixture = Fixture::with_study();
    let one_shot = spec(&["\"thinet\"", "\"weight-sum-l1\""])
        .replace("prune.keep-rates", "prune.mode = \"one-shot\"\nprune.keep-rates");
    fixture.write("own.toml", &one_shot);
    let evidence = ["evidence", "own.toml", "--data", "images", "--out", "evidence"];
    let ran = fixture.run(&evidence);
    assert!(ran.code == 1 && ran.err.contains("thinet run own.toml"), "{}", ran.err);
    let ran = fixture.run(&[&RUN[..], &["--json"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    let study = ran.json();
    let runs = || fs::read_dir(fixture.path("results/runs")).unwrap().count();
    let before = runs();
    let ran = fixture.run(&evidence);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.out, "evidence/seed-0.safetensors\nevidence/thinet_selector.py\n");
    assert_eq!(runs(), before);

    let load = |path: &Path| load_tensors(path, tch::Device::Cpu).unwrap();
    let (written, metadata) = load(&fixture.path("evidence/seed-0.safetensors"));
    assert_eq!((metadata["study"].as_str(), metadata["seed"].as_str()), ("small", "0"));
    let stored = fixture.entry("results/store", "moments-").join("evidence.safetensors");
    let (stored, _) = load(&stored);
    assert!(!stored.is_empty() && stored.iter().all(|(name, tensor)| written[name] == *tensor));
    for name in [
        "conv1.filters",
        "conv1.zeros",
        "conv1.total",
        "conv1.mean",
        "conv1.values",
        "conv1.taylor-abs",
        "conv3.gram",
    ] {
        assert!(written.contains_key(name), "{name}: {:?}", written.keys());
    }

    let python = python();
    let done = Command::new(python).args(["-c", READ]).current_dir(fixture.path("")).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let printed = String::from_utf8(done.stdout).unwrap();
    let kept = &study["cells"][1]["kept"];
    for layer in ["conv1", "conv2", "conv3"] {
        let expected: Vec<u64> =
            kept[layer]["kept"].as_array().unwrap().iter().map(|channel| channel.as_u64().unwrap()).collect();
        assert!(printed.contains(&format!("{layer} {expected:?}")), "{printed}\n{layer} {expected:?}");
    }
}
