//! The options of `rpcache completions` and `rpcache man`, for files that are installed with the command.

use std::path::PathBuf;

use clap::{Args as Group, ValueEnum, ValueHint};

#[derive(Debug, Group)]
#[command(after_help = "\
To install them for one user:
  rpcache completions bash >~/.local/share/bash-completion/completions/rpcache
  rpcache completions zsh >~/.zfunc/_rpcache     with ~/.zfunc in $fpath
  rpcache completions fish >~/.config/fish/completions/rpcache.fish")]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rpcache man call | man -l -      read the page of `rpcache call`
  rpcache man --all man1           write all pages to the folder man1")]
pub(crate) struct Man {
    /// A command such as `call` or `cache ls` [default: the page of rpcache itself]
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,

    /// Write all pages into this folder; it is created if it is missing
    #[arg(long, value_name = "FOLDER", conflicts_with = "command", value_hint = ValueHint::DirPath)]
    pub(crate) all: Option<PathBuf>,
}
