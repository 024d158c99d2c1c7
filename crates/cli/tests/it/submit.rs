//! The batch scripts of a submission. `make test-slurm` runs them through Slurm.

use std::fs;

use crate::fixture::Fixture;

#[test]
fn batch_scripts_hold_the_options_and_the_device_of_the_tasks() {
    let fixture = Fixture::with_study();
    let mut arguments = vec!["submit", "small.toml", "--data", "images", "--dry-run", "--partition", "gpu"];
    arguments.extend(["--gpus-per-task", "1", "--time", "8:00:00", "--mem", "4G", "--max-running", "3"]);
    arguments.extend(["--checkpoint-every", "60", "--", "--account=lab", "--constraint=a100|h100"]);
    let asked = fixture.run(&arguments);
    assert_eq!(asked.code, 0, "{}", asked.err);
    let run = fixture.entry("results/runs", "");
    let mut text = asked.out;
    for name in ["001-dense-0", "001-cells-0", "001-tables"] {
        let script = fs::read_to_string(run.join(format!("slurm/{name}.sbatch"))).unwrap();
        text.push_str(&format!("--- {name}.sbatch\n{script}"));
    }
    let (folder, run) = (fixture.path("").canonicalize().unwrap(), run.file_name().unwrap().to_owned());
    let text = text
        .replace(env!("CARGO_BIN_EXE_thinet"), "THINET")
        .replace(folder.to_str().unwrap().trim_end_matches('/'), "DIR")
        .replace(run.to_str().unwrap(), "RUN");
    insta::assert_snapshot!(text);
}
