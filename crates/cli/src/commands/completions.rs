//! `thinet completions`: prints the completions of a shell.

use clap::Args;
use clap_complete::Shell;

use crate::cli;
use crate::output::print_text;

/// Print the script with which a shell completes commands and options
#[derive(Debug, Args)]
#[command(after_help = "\
Where shells look for it:
  thinet completions bash > ~/.local/share/bash-completion/completions/thinet
  thinet completions zsh  > ~/.zfunc/_thinet       (with `fpath+=~/.zfunc` before `compinit`)
  thinet completions fish > ~/.config/fish/completions/thinet.fish")]
pub(crate) struct Arguments {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut cli::visible(), "thinet", &mut script);
    print_text(&String::from_utf8(script)?);
    Ok(())
}
