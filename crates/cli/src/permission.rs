//! Permission to run the programs that a spec names as selectors: the option, or a question on a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use thinet_harness::HarnessError;
use thinet_harness::study::{Plan, SelectorCommand};

/// Whether programs may run: if the option says so, or none would run, or somebody at the terminal agrees. A spec of a stranger must not
/// run a stranger's program unasked.
///
/// # Errors
/// If a program would run that nobody has allowed.
pub(crate) fn may_run_commands(plan: &Plan, is_allowed: bool) -> anyhow::Result<bool> {
    let commands = plan.commands_to_run();
    if is_allowed || commands.is_empty() {
        return Ok(is_allowed);
    }
    if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() && agrees(plan, &commands)? {
        return Ok(true);
    }
    let commands = commands.iter().map(|command| command.words()).collect::<Vec<_>>().join(", ");
    Err(HarnessError::CommandsNotAllowed { commands }.into())
}

/// Shows the programs and asks.
fn agrees(plan: &Plan, commands: &[Arc<SelectorCommand>]) -> anyhow::Result<bool> {
    eprintln!("{} runs these programs to select channels:", plan.path.display());
    for command in commands {
        eprintln!("  {}", described(command));
    }
    eprint!("run them? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

/// `python3 my_selector.py (in /home/me/study; reads my_selector.py)`.
pub(crate) fn described(command: &SelectorCommand) -> String {
    let files: Vec<&str> = command.files.keys().map(String::as_str).collect();
    let reads = if files.is_empty() { String::new() } else { format!("; reads {}", files.join(", ")) };
    format!("{} (in {}{reads})", command.words(), command.folder.display())
}
