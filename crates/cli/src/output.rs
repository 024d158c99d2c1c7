//! Output of commands: lines, without the panic of the standard macros on a closed pipe; JSON; tables and their files.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write as _};
use std::path::PathBuf;

use thinet_harness::run::Outcome;
use thinet_report::tables::{CHECKLIST, LAYERS, LOSSES, TableFiles};

/// `println!` of this crate. `thinet plan … | head` ends here, quietly; any other failure is an error.
macro_rules! println {
    () => { $crate::output::line(format_args!("")) };
    ($($text:tt)*) => { $crate::output::line(format_args!($($text)*)) };
}

/// `eprintln!` of this crate. A failure is ignored: a run goes on without a reader.
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::output::note(format_args!($($text)*)) };
}

pub(crate) fn line(text: Arguments<'_>) {
    ended(writeln!(io::stdout(), "{text}"));
}

/// Prints a text that has its line ends.
pub(crate) fn print_text(text: &str) {
    ended(io::stdout().write_all(text.as_bytes()));
}

/// Ends the program if its output cannot be written: quietly where there is no reader.
fn ended(written: io::Result<()>) {
    let Err(error) = written else { return };
    let reader_has_gone = error.kind() == ErrorKind::BrokenPipe;
    if !reader_has_gone {
        note(format_args!("error: cannot write to standard output: {error}"));
    }
    #[expect(clippy::exit, reason = "there is no reader left to print for")]
    std::process::exit(i32::from(!reader_has_gone));
}

pub(crate) fn note(text: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints a value as indented JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints the tables of a run, but the long one of its layers and its checklist, and where they were written.
pub(crate) fn print_tables(outcome: &Outcome) {
    let is_printed = |name: &str| ![LAYERS, LOSSES, CHECKLIST].iter().any(|suffix| name.ends_with(suffix));
    for table in outcome.tables.iter().filter(|table| is_printed(&table.name)) {
        println!("{}", table.markdown());
    }
    for written in &outcome.written {
        report_written(written);
    }
}

/// Reports the files of a table, and where a table of another run was moved.
pub(crate) fn report_written(written: &TableFiles) {
    if let Some(first) = written.files.first() {
        // `kept.json` of `smoke.kept.json`: a table's name holds no dot.
        let suffix = |file: &PathBuf| Some(file.file_name()?.to_str()?.split_once('.')?.1.to_owned());
        let others: Vec<String> = written.files[1..].iter().filter_map(suffix).collect();
        eprintln!("written: {} (and {})", first.display(), others.join(", "));
    }
    for file in &written.set_aside {
        eprintln!("kept:    {} (of another run)", file.display());
    }
}
