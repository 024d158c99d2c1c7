//! `thinet latency` on the smallest model: measured once, then printed again; nothing is replaced unasked.

use crate::fixture::Fixture;

const TINY: [&str; 9] =
    ["latency", "--models", "thinet-tiny", "--batch", "1", "--repeats", "1", "--threads", "1"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    TINY.iter().copied().chain(more.iter().copied()).collect()
}

#[test]
fn a_stored_table_is_printed_again_unless_forced() {
    let fixture = Fixture::new();
    let none = fixture.run(&["table", "latency"]);
    assert_eq!((none.code, none.out.as_str()), (0, "not run: thinet latency\n"));
    assert!(!fixture.path("results").exists());

    let first = fixture.run(&with(&[]));
    assert_eq!(first.code, 0, "{}", first.err);
    assert!(first.err.contains("ready    thinet-tiny (1/1)"), "{}", first.err);
    let line = |text: &str, start: &str| text.lines().find(|l| l.starts_with(start)).unwrap().to_owned();
    assert!(first.out.contains(", 1 thread, batch of 1, median of 1 repeat\n"), "{}", first.out);
    assert!(!line(&first.out, "| ThiNet-Tiny").contains("not run"), "{}", first.out);
    assert!(line(&first.out, "| VGG-16").contains("not run"), "{}", first.out);
    let files = ["csv", "env.json", "md", "parquet"].map(|suffix| format!("results/tables/latency.{suffix}"));
    let read = || files.clone().map(|file| std::fs::read(fixture.path(&file)).unwrap());
    let bytes = read();
    assert!(bytes[0].starts_with(b"run,model,") && bytes[0].windows(7).any(|w| w == b"-b1-t1,"));

    let again = fixture.run(&with(&[]));
    assert_eq!((again.code, &again.out), (0, &first.out), "{}", again.err);
    assert!(again.err.contains("--force"), "{}", again.err);
    assert_eq!(fixture.run(&["table", "latency"]).out, first.out);
    let json = [fixture.run(&with(&["--json"])), fixture.run(&["table", "latency", "--json"])];
    assert_eq!(json[0].out, json[1].out);
    let value = json[0].json();
    let run = value["run"].as_str().unwrap();
    assert!(run.starts_with("latency-cpu-") && run.ends_with("-b1-t1"), "{run}");
    assert!(value["rows"][0]["forward_ms"].is_null());
    assert!(value["rows"][3]["forward_ms"].is_number());
    assert_eq!(read(), bytes, "printing changes nothing");

    // The same device, batch and threads, but other models or repeats than stored.
    let all = ["latency", "--batch", "1", "--threads", "1"];
    for other in [&all[..], &with(&["--models", "vgg16"]), &[&all[..], &["--repeats", "2"]].concat()] {
        let refused = fixture.run(other);
        assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{}", refused.err);
        assert!(refused.err.contains("thinet-tiny; repeats: 1") && refused.err.contains("--force"));
    }
    assert_eq!(read(), bytes, "refusing changes nothing");

    let mut twice = with(&["--force"]);
    twice[6] = "2";
    let forced = fixture.run(&twice);
    assert_eq!(forced.code, 0, "{}", forced.err);
    assert!(forced.out.contains("median of 2 repeats"), "{}", forced.out);
    assert!(!forced.err.contains("kept:"), "the same run is replaced, not set aside: {}", forced.err);
}

#[test]
fn a_folder_that_cannot_be_created_is_reported_before_any_timing() {
    let fixture = Fixture::new();
    fixture.write("blocked", "");
    let ran = fixture.run(&with(&["--results", "blocked", "--force"]));
    assert_eq!(ran.code, 1);
    assert!(ran.err.starts_with("error: cannot create blocked/tables"), "{}", ran.err);
}
