//! A new method against those of a stored study: the spec with which its cells are run, and the records of both together.

use std::fs;
use std::path::{Path, PathBuf};

use thinet_files::write_atomically;
use thinet_report::records::StudyRecord;

use crate::error::HarnessError;
use crate::stages::program::hello_of;
use crate::stop::Stop;
use crate::store::Store;
use crate::study::{CommandSpec, MethodSpec, Plan, SelectorSpec, check, gather};

/// Writes the spec of a study with `method` in place of its own methods to `<results>/compare/<name>.toml`, under a name and with
/// tables of its own. All stages that both share have the ids of the study. A program is started, to learn which evidence it needs.
///
/// # Errors
/// If a dense net of the study is not stored, one of its methods has the same label, or the program cannot be started.
pub fn comparison_spec(plan: &Plan, mut method: MethodSpec, stop: &Stop) -> Result<PathBuf, HarnessError> {
    let store = Store::at(&plan.results);
    if let Some(missing) = plan.dense.iter().find(|dense| !store.is_whole(&dense.id)) {
        return Err(plan.not_run(&format!("the {}", missing.label())));
    }
    let label = method.label();
    if plan.spec.methods.iter().any(|other| other.label() == label) {
        let problem =
            format!("the study has a method {label:?} already; give the new one another name with --label");
        return Err(check::value(&plan.path, "methods", &problem));
    }
    if let SelectorSpec::Command(command) = &mut method.selector {
        let needs = hello_of(command, plan, stop)?.needs;
        command.needs = Some(needs.kinds().map(|kind| kind.key().to_owned()).collect());
    }
    let mut spec = plan.spec.clone();
    let suffix = file_word(&label);
    spec.table = Some(format!("{}-{suffix}", plan.table));
    spec.name = format!("{}-{suffix}", plan.spec.name);
    spec.paper_table = None;
    spec.methods = vec![method];
    // The control is a method of the study; variants may change its keys.
    if spec.variants.is_empty() {
        spec.from_scratch = None;
    }
    let folder = plan.results.join("compare");
    if let Some(weights) = plan.dense_weights() {
        spec.dense.weights = Some(weights.canonicalize().map_err(HarnessError::io("open", &weights))?);
    }
    fs::create_dir_all(&folder).map_err(HarnessError::io("create", &folder))?;
    let path = folder.join(format!("{}.toml", spec.name));
    let about = format!(
        "# Written by `thinet compare {}`; the next comparison of this name replaces it.\n",
        plan.path.display()
    );
    write_atomically(&path, (about + &spec.to_toml()?).as_bytes())?;
    Ok(path)
}

/// The stored records of a study, and those of the cells of a new method that was run with [`comparison_spec`].
///
/// # Errors
/// If the store cannot be read.
pub fn compared(plan: &Plan, own: &Plan) -> Result<StudyRecord, HarnessError> {
    let (study, new) = (gather(plan)?, gather(own)?);
    let label = own.spec.methods[0].label();
    let mut cells = study.cells;
    cells.extend(new.cells.into_iter().filter(|cell| cell.method == label));
    Ok(StudyRecord { name: new.name, table: new.table, run: new.run, cells, ..study })
}

/// A command as it is typed in the folder `here`, as a selector: the name of a registered one, or a program with its arguments.
///
/// # Errors
/// If the words cannot be told apart; the message says why.
pub fn typed_selector(text: &str, files: &[String], here: &Path) -> Result<SelectorSpec, String> {
    let words = shlex::split(text).ok_or_else(|| format!("{text:?} has a quote that is not closed"))?;
    match &words[..] {
        [] => Err("it is empty".to_owned()),
        [name] if thinet_selectors::find(name).is_ok() => Ok(SelectorSpec::Registered(name.clone())),
        _ => Ok(SelectorSpec::Command(CommandSpec {
            command: words,
            files: files.to_vec(),
            folder: Some(here.to_owned()),
            needs: None,
            timeout: CommandSpec::TEN_MINUTES,
        })),
    }
}

/// A label as a part of names of studies and tables: lower-case letters, digits and dashes.
fn file_word(label: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let word: String = label.chars().map(plain).collect();
    let parts: Vec<&str> = word.split('-').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "selector".to_owned() } else { parts.join("-") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_command_is_split_as_a_shell_does() {
        let here = Path::new("/here");
        let selector =
            typed_selector("python3 'my selector.py' --power=2", &["lib.py".to_owned()], here).unwrap();
        let SelectorSpec::Command(command) = selector else { panic!("{selector:?}") };
        assert_eq!(command.command, ["python3", "my selector.py", "--power=2"]);
        assert_eq!((command.files, command.folder.as_deref()), (vec!["lib.py".to_owned()], Some(here)));
        assert_eq!(
            typed_selector("thinet-omp", &[], here),
            Ok(SelectorSpec::Registered("thinet-omp".to_owned()))
        );
        assert!(typed_selector("python3 'x", &[], here).unwrap_err().contains("quote"));
        assert!(typed_selector("  ", &[], here).is_err());
    }

    #[test]
    fn a_label_becomes_a_word_of_a_file_name() {
        assert_eq!(file_word("My idea (v2) + channel-scale"), "my-idea-v2-channel-scale");
        assert_eq!(file_word("λ"), "selector");
    }
}
