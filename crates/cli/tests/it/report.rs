//! `thinet report`: where the page lies, what it links to, and tables that it cannot show.

use std::fs;

use crate::fixture::Fixture;

#[test]
fn the_page_lies_in_the_results_folder_and_links_to_the_runs_that_are_there() {
    let fixture = Fixture::with_study();
    assert_eq!(fixture.run(&["run", "small.toml", "--data", "images"]).code, 0);
    let ran = fixture.run(&["report"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.starts_with("results/report/index.html\nresults/report/cells/"), "{}", ran.out);
    assert!(
        ran.err.contains("results/report/vega.js does not exist; `make report` writes it"),
        "{}",
        ran.err
    );
    let page = || fs::read_to_string(fixture.path("results/report/index.html")).unwrap();
    let first = page();
    let run = fixture.entry("results/runs", "small-");
    let link = format!("href=\"../runs/{}/\"", run.file_name().unwrap().to_str().unwrap());
    assert!(first.contains(&link), "{link}");
    assert_eq!(fixture.run(&["report"]).code, 0);
    assert_eq!(page(), first, "the same bytes");

    // Elsewhere, links are whole paths.
    let elsewhere = fixture.run(&["report", "--out", "elsewhere"]);
    assert_eq!(elsewhere.code, 0, "{}", elsewhere.err);
    let text = fs::read_to_string(fixture.path("elsewhere/index.html")).unwrap();
    assert!(text.contains(&format!("href=\"{}/\"", run.display())), "{}", run.display());

    // Without the folder of the run the page is the same but for saying so.
    fs::remove_dir_all(&run).unwrap();
    assert_eq!(fixture.run(&["report"]).code, 0);
    assert!(page().contains("is not on this machine"));
}

#[test]
fn a_table_that_cannot_be_shown_is_named_and_the_page_written() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path("results/tables")).unwrap();
    fixture.write("results/tables/old-summary.csv", "run,method\n0123abcd,random\n");
    let ran = fixture.run(&["report"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    let line = ran.err.lines().last().unwrap();
    assert!(line.starts_with("error: some tables cannot be shown, the others are: "), "{line}");
    assert!(line.contains("old-summary.csv has no column"), "{line}");
    let page = fs::read_to_string(fixture.path("results/report/index.html")).unwrap();
    assert!(page.contains("Tables that cannot be shown") && page.contains("old-summary.csv has no column"));
}
