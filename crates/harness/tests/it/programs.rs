//! Selectors that are programs: they select as a registered selector with the same rule, bad ones fail their own cells with a clear
//! error, and none is run without permission. The programs are small Python files without NumPy.

use std::collections::BTreeMap;
use std::fs;

use thinet_graph::ChannelSet;
use thinet_harness::HarnessError;
use thinet_harness::events::Silent;
use thinet_harness::run::{Outcome, RunOptions, run};
use thinet_harness::study::Plan;
use thinet_report::records::Status;

use crate::fixture::{Fixture, Notes, SPEC, one_shot};

/// The start of every program: a hello, then a loop over questions; `q` is the question and `c` the number of channels.
const START: &str = r#"
import json, random, struct, sys, time
print(json.dumps({"protocol": 1, "name": "test", "needs": NEEDS}), flush=True)
asked = 0
for line in sys.stdin:
    q = json.loads(line)
    c = q["channels"]
    asked += 1
    say = lambda **answer: print(json.dumps(answer), flush=True)
"#;

/// Weight sums of the filters in a file of evidence, in the order of memory.
const L1: &str = r#"
    with open(q["evidence"], "rb") as file:
        content = file.read()
    (length,) = struct.unpack_from("<Q", content)
    entry = json.loads(content[8:8 + length])[q["layer"] + ".filters"]
    assert entry["dtype"] == "F32" and entry["shape"][0] == c
    start, end = (8 + length + at for at in entry["data_offsets"])
    weights = [abs(w) for (w,) in struct.iter_unpack("<f", content[start:end])]
    n = entry["shape"][1]
    scores = []
    for channel in range(c):
        total = 0.0
        for w in weights[channel * n:(channel + 1) * n]:
            total += w
        scores.append(total)
    print("looked at", q["layer"], file=sys.stderr, flush=True)
    say(scores=scores)
"#;

/// Writes a program that needs these kinds of evidence and does this with every question.
fn program(fixture: &Fixture, file: &str, needs: &str, body: &str) {
    fs::write(fixture.path(file), START.replace("NEEDS", needs) + body).unwrap();
}

/// [`SPEC`] with these methods in place of its own.
fn with_methods(spec: &str, methods: &str) -> String {
    format!("{}{methods}", &spec[..spec.find("[[methods]]").unwrap()])
}

fn method(file: &str, more: &str) -> String {
    format!("[[methods]]\nselector = {{ command = [\"python3\", \"{file}\"]{more} }}\n")
}

/// A program that a shell runs, and that has two seconds for an answer: a shell starts faster than Python.
fn shell(file: &str) -> String {
    format!("[[methods]]\nselector = {{ command = [\"sh\", \"{file}\"], needs = [], timeout = 2 }}\n")
}

fn run_allowed(
    plan: &Plan,
    reporter: &dyn thinet_harness::events::Reporter,
) -> Result<Outcome, HarnessError> {
    run(plan, &RunOptions { allow_commands: true, ..RunOptions::default() }, reporter)
}

/// The kept channels of each cell of a method, by keep rate in per cent, layer by layer.
fn kept(outcome: &Outcome, method: &str) -> BTreeMap<u64, BTreeMap<String, ChannelSet>> {
    let cells = outcome.study.cells.iter().filter(|cell| cell.method == method);
    cells.map(|cell| ((cell.keep_rate * 100.0) as u64, cell.kept.clone())).collect()
}

#[test]
fn a_program_with_the_rule_of_a_registered_selector_gives_its_results_in_both_modes() {
    let fixture = Fixture::new();
    program(&fixture, "l1.py", "['filters']", L1);
    let methods = format!("{}[[methods]]\nselector = \"weight-sum-l1\"\n", method("l1.py", ""));
    for (spec, results) in [(SPEC.to_owned(), "layers"), (one_shot(SPEC), "at-once")] {
        let plan = fixture.plan(&with_methods(&spec, &methods), results).unwrap();
        let notes = Notes::default();
        let outcome = run_allowed(&plan, &notes).unwrap();
        assert!(outcome.failure.is_none(), "{:?}", outcome.failure);
        let (own, registered) = (kept(&outcome, "l1"), kept(&outcome, "weight-sum-l1"));
        assert_eq!(own, registered);
        assert_eq!(own.len(), 2);
        assert!(own.values().all(|layers| layers.values().any(|kept| !kept.is_all())));
        for cell in outcome.study.cells.iter().filter(|cell| cell.method == "l1") {
            let same = |other: &&thinet_report::records::CellRecord| {
                other.method == "weight-sum-l1" && other.keep_rate == cell.keep_rate
            };
            assert_eq!(outcome.study.cells.iter().find(same).unwrap().rows, cell.rows);
            assert_eq!(cell.selector, "python3 l1.py");
        }
        let notes = notes.into_texts();
        assert!(notes.iter().any(|note| note.ends_with(": looked at conv1")), "{notes:?}");
        // No file of evidence stays.
        for stage in fs::read_dir(fixture.path(results).join("store")).unwrap() {
            let stage = stage.unwrap().path();
            let files = fs::read_dir(&stage).into_iter().flatten().map(|file| file.unwrap().file_name());
            assert!(!files.into_iter().any(|name| name.to_string_lossy().contains("selector-")), "{stage:?}");
        }
        // Nothing is left to run, so nothing has to be allowed.
        assert!(plan.commands_to_run().is_empty());
        assert_eq!(run(&plan, &RunOptions::default(), &Silent).unwrap().stages_run, 0);
    }
}

#[test]
fn one_answer_serves_all_keep_rates_of_a_layer_and_seed_in_one_shot_mode() {
    let fixture = Fixture::new();
    let body = "    print('asked', q['layer'], q['keep'], file=sys.stderr, flush=True)\n    say(order=list(range(c)))\n";
    program(&fixture, "first.py", "[]", body);
    let plan =
        fixture.plan(&with_methods(&one_shot(SPEC), &method("first.py", ", needs = []")), "results").unwrap();
    let notes = Notes::default();
    let outcome = run_allowed(&plan, &notes).unwrap();
    assert!(outcome.failure.is_none(), "{:?}", outcome.failure);
    let asked: Vec<String> = notes.into_texts().into_iter().filter(|note| note.contains(": asked")).collect();
    let layers = plan.spec.prune.layers.len();
    assert_eq!(asked.len(), layers, "{asked:?}");
    // Both keep rates are named, although the first cell needs one.
    assert!(asked.iter().all(|note| note.contains(", ")), "{asked:?}");

    // So an answer must not depend on them.
    program(
        &fixture,
        "keeps.py",
        "[]",
        "    say(order=list(range(c))[::1 if len(q['keep']) == 2 else -1])\n",
    );
    let methods = method("keeps.py", ", needs = []") + "[[methods]]\nselector = \"random\"\n";
    let plan = fixture.plan(&with_methods(&one_shot(SPEC), &methods), "results").unwrap();
    let failure = run_allowed(&plan, &Silent).unwrap().failure.unwrap().to_string();
    assert!(failure.contains("a second process, asked in another order, gave another answer"), "{failure}");
}

#[test]
fn bad_programs_fail_their_own_cells_with_a_clear_error_and_the_others_go_on() {
    // `conv1`, the first layer, has 8 channels, of which 4 are kept.
    let bad = [
        ("crash", "", "echo 'no luck' >&2; exit 3", "gave no answer: it ended (exit status: 3)"),
        ("killed", "", "kill -9 $$", "gave no answer: it ended (signal: 9 (SIGKILL))"),
        ("garbage", "", "echo 'here you are'", "its answer \"here you are\" cannot be read"),
        ("empty", "", "echo", "its answer \"\" cannot be read"),
        ("bytes", "", "printf '\\377\\n'", "printed a line that is no UTF-8 text"),
        ("endless", "", "tr '\\0' x </dev/zero", "printed a line of more than 16777216 bytes"),
        ("short", "", "echo '{\"order\": [0]}'", "its order lists 1 channels; 4 to 8 are needed"),
        ("scores", "", "echo '{\"scores\": [1, 2, 3]}'", "it gave 3 scores for 8 channels"),
        ("twice", "", "echo '{\"order\": [1, 2, 3, 1]}'", "its order lists channel 1 twice"),
        (
            "beyond",
            "",
            "echo '{\"order\": [5, 6, 7, 8]}'",
            "its order lists channel 8, and the layer has 0 to 7",
        ),
        ("nan", "", "echo '{\"scores\": [1, 2, 3, NaN]}'", "NaN and Infinity are no numbers of JSON"),
        ("says", "", "echo '{\"error\": \"no idea\"}'", "layer conv1: no idea"),
        (
            "changes",
            ", files = [\"notes.txt\"]",
            "echo >>notes.txt; echo '{\"order\": [1, 2, 3, 4]}'",
            "notes.txt has changed since the study was planned; start the run again",
        ),
    ];
    let stateful = [
        ("raises", "    raise ValueError('odd ' + q['layer'])\n", "ValueError: odd conv1"),
        (
            "draws",
            "    order = list(range(c))\n    random.shuffle(order)\n    say(order=order)\n",
            "a second process, asked in another order, gave another answer for layer \"conv1\"",
        ),
        (
            "counts",
            "    say(order=list(range(c))[::1 if asked == 1 else -1])\n",
            "gave another answer for layer \"conv2\"",
        ),
    ];
    let fixture = Fixture::new();
    fs::write(fixture.path("notes.txt"), "").unwrap();
    let mut methods = "[[methods]]\nselector = \"random\"\nlabel = \"fine\"\n".to_owned();
    for (name, more, body, _) in &bad {
        let loop_ = format!(
            "echo '{{\"protocol\": 1, \"name\": \"{name}\", \"needs\": []}}'\nwhile read -r question; do {body}; done\n"
        );
        fs::write(fixture.path(&format!("{name}.sh")), loop_).unwrap();
        methods +=
            &format!("[[methods]]\nselector = {{ command = [\"sh\", \"{name}.sh\"], needs = []{more} }}\n");
    }
    for (name, body, _) in &stateful {
        program(&fixture, &format!("{name}.py"), "[]", body);
        methods += &method(&format!("{name}.py"), ", needs = []");
    }
    let spec = with_methods(SPEC, &methods).replace("[0.5, 0.75]", "[0.5]");
    let plan = fixture.plan(&spec, "results").unwrap();
    let failures = Failures::default();
    let outcome = run_allowed(&plan, &failures).unwrap();
    let failure = outcome.failure.unwrap().to_string();
    let count = bad.len() + stateful.len();
    assert!(failure.starts_with(&format!("{count} of {} stages failed", count + 2)), "{failure}");
    for cell in &outcome.study.cells {
        let expected = if cell.method == "fine" { Status::Done } else { Status::NotRun };
        assert_eq!(cell.status, expected, "{}", cell.method);
    }
    let failures = failures.0.into_inner().unwrap();
    let of =
        |name: &str| &failures.iter().find(|(label, _)| label.starts_with(&format!("{name} r="))).unwrap().1;
    let of_shell = bad.iter().map(|(name, _, _, expected)| (*name, *expected));
    for (name, expected) in of_shell.chain(stateful.iter().map(|(name, _, expected)| (*name, *expected))) {
        let error = of(name);
        assert!(error.contains(expected) && error.contains(&format!(" {name}.")), "{name}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    assert!(of("crash").ends_with("; its standard error ends with: no luck"), "{}", of("crash"));
    assert!(of("garbage").ends_with("; it printed nothing on standard error"), "{}", of("garbage"));
}

#[test]
fn lines_on_standard_error_are_notes_unless_the_error_shows_them() {
    // An error shows ten lines, and 200 between two answers are kept.
    for (printed, expected, more) in [(5, 0, None), (15, 5, None), (205, 195, None), (230, 200, Some(20))] {
        let fixture = Fixture::new();
        let hello = "{\"protocol\": 1, \"name\": \"test\", \"needs\": []}";
        let text = format!("echo '{hello}'\nread -r question\nseq -f 'line %g' {printed} >&2\nexit 1\n");
        fs::write(fixture.path("prints.sh"), text).unwrap();
        let spec = with_methods(SPEC, &shell("prints.sh")).replace("[0.5, 0.75]", "[0.5]");
        let notes = Notes::default();
        let error = run_allowed(&fixture.plan(&spec, "results").unwrap(), &notes).unwrap_err().to_string();
        let shown: Vec<String> = (printed.max(10) - 9..=printed).map(|line| format!("line {line}")).collect();
        assert!(error.ends_with(&shown.join(" | ")), "{error}");
        let texts: Vec<String> =
            notes.into_texts().into_iter().filter(|text| text.contains(" line")).collect();
        let count = texts.iter().filter(|text| text.contains(": line ")).count();
        assert_eq!(count, expected, "of {printed} lines: {texts:?}");
        let last = texts.iter().find(|text| text.contains("more lines"));
        let more = more.map(|more: usize| format!("… and {more} more lines"));
        assert_eq!(last.is_some(), more.is_some(), "{last:?}");
        assert!(more.is_none_or(|more| last.unwrap().ends_with(&more)), "{last:?}");
    }
}

#[test]
fn a_program_that_cannot_work_is_refused_before_anything_is_started() {
    let hello = |hello: &str| format!("print('{hello}', flush=True)\nimport sys\nsys.stdin.read()\n");
    let fixture = Fixture::new();
    let refused = |name: &str, spec: &str, methods: &str| {
        let plan = fixture.plan(&with_methods(spec, methods), name).unwrap();
        let error = run_allowed(&plan, &Silent).unwrap_err();
        assert!(error.is_bad_spec(), "{error}");
        assert!(!fixture.path(name).join("runs").read_dir().unwrap().any(|_| true), "{name}");
        error.to_string()
    };
    for (name, text, expected) in [
        ("syntax", "for".to_owned(), "SyntaxError"),
        ("silent", "import sys\nsys.exit(0)\n".to_owned(), "said no hello: it ended (exit status: 0)"),
        ("chatty", hello("Hi"), "its first line \"Hi\" is no hello"),
        ("future", hello(r#"{"protocol": 2, "name": "x", "needs": []}"#), "it follows protocol 2, and"),
        (
            "greedy",
            hello(r#"{"protocol": 1, "name": "x", "needs": ["moments"]}"#),
            "it needs \"moments\", which the key needs",
        ),
        ("odd", hello(r#"{"protocol": 1, "name": "x", "needs": ["zero"]}"#), "did you mean \"zeros\"?"),
    ] {
        fs::write(fixture.path(&format!("{name}.py")), text).unwrap();
        let error = refused(name, SPEC, &method(&format!("{name}.py"), ", needs = [\"filters\"]"));
        assert!(error.contains(expected) && error.contains("methods[0].selector: "), "{name}: {error}");
    }
    fs::write(fixture.path("waits.sh"), "sleep 600\n").unwrap();
    let error = refused("waits", SPEC, &shell("waits.sh"));
    assert!(error.contains("said no hello within 2 s (key timeout)"), "{error}");
    let error = refused("absent", SPEC, "[[methods]]\nselector = { command = [\"no-such-program\"] }\n");
    assert!(error.contains("`no-such-program`: cannot be started: "), "{error}");
    fs::write(fixture.path("bare.py"), "print()\n").unwrap();
    let error = refused("bare", SPEC, "[[methods]]\nselector = { command = [\"bare.py\"] }\n");
    assert!(error.contains("to run it: python3 bare.py, or ./bare.py if it is a program"), "{error}");
    // Layers without batch norm have no scales.
    fs::write(
        fixture.path("scales.py"),
        hello(r#"{"protocol": 1, "name": "x", "needs": ["batch-norm-scales"]}"#),
    )
    .unwrap();
    let error = refused(
        "scales",
        &SPEC.replace("batch-norm = true", "batch-norm = false"),
        &method("scales.py", ", timeout = 5"),
    );
    assert!(error.contains("layer \"conv1\" has no batch-norm scales"), "{error}");
    // Without the key `needs` nothing is gathered that takes a backward pass.
    fs::write(fixture.path("gradients.py"), hello(r#"{"protocol": 1, "name": "x", "needs": ["gradients"]}"#))
        .unwrap();
    for (name, spec) in [("gradients", SPEC.to_owned()), ("gradients-at-once", one_shot(SPEC))] {
        let error = refused(name, &spec, &method("gradients.py", ", timeout = 5"));
        let expected = "methods[0].selector: the program needs \"gradients\", which is gathered only where the key \
                        `needs` names it";
        assert!(error.ends_with(expected), "{error}");
    }
    // Files are read with the spec.
    let error = fixture.plan(&with_methods(SPEC, &method("scales.py", ", files = [\"none.py\"]")), "x");
    let error = error.err().unwrap().to_string();
    assert!(error.contains("methods[0].selector: cannot read ") && error.contains("none.py"), "{error}");
}

#[test]
fn nothing_runs_without_permission() {
    let fixture = Fixture::new();
    let mark = fixture.path("mark");
    fs::write(fixture.path("marks.py"), format!("open({:?}, 'w')\n", mark.display().to_string())).unwrap();
    let plan = fixture.plan(&with_methods(SPEC, &method("marks.py", "")), "results").unwrap();
    let error = run(&plan, &RunOptions::default(), &Silent).unwrap_err();
    assert!(error.is_bad_spec() && error.to_string().contains("python3 marks.py"), "{error}");
    let runner = thinet_harness::run::StageRunner::new(&plan, &RunOptions::default()).unwrap();
    runner.run_stage(plan.dense[0].id.as_str(), &Silent).unwrap();
    let error = runner.run_stage(plan.cells[0].id.as_str(), &Silent).unwrap_err();
    assert!(matches!(error, HarnessError::CommandsNotAllowed { .. }), "{error}");
    assert!(!mark.exists());
}

#[test]
fn a_program_and_all_that_it_started_are_ended_when_it_is_too_slow() {
    let fixture = Fixture::new();
    let text = "echo '{\"protocol\": 1, \"name\": \"slow\", \"needs\": []}'\nread question\necho waiting >&2\nsleep 600 &\n\
                echo $! >child\nwait\n";
    fs::write(fixture.path("slow.sh"), text).unwrap();
    let methods = shell("slow.sh") + "[[methods]]\nselector = \"random\"\n";
    let plan =
        fixture.plan(&with_methods(&SPEC.replace("[0.5, 0.75]", "[0.5]"), &methods), "results").unwrap();
    let failure = run_allowed(&plan, &Silent).unwrap().failure.unwrap().to_string();
    let expected =
        "layer conv1: gave no answer within 2 s (key timeout); its standard error ends with: waiting";
    assert!(failure.contains(expected), "{failure}");
    let child = fs::read_to_string(fixture.path("child")).unwrap().trim().to_owned();
    // Ended processes that nobody waits for are zombies until init does.
    let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}

/// Records the labels and errors of stages that failed.
#[derive(Default)]
struct Failures(std::sync::Mutex<Vec<(String, String)>>);

impl thinet_harness::events::Reporter for Failures {
    fn event(&self, event: &thinet_harness::events::Event) {
        if let thinet_harness::events::Event::StageFailed { label, error, .. } = event {
            self.0.lock().unwrap().push((label.clone(), error.clone()));
        }
    }
}
