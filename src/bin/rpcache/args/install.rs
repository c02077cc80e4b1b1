//! `rpcache completions` and `rpcache man`, as typed: what is installed beside the command.

use std::path::PathBuf;

use clap::{Args as Group, ValueEnum, ValueHint};

#[derive(Debug, Group)]
#[command(after_help = "\
Where they go, for one user:
  rpcache completions bash >~/.local/share/bash-completion/completions/rpcache
  rpcache completions zsh >~/.zfunc/_rpcache     with ~/.zfunc in $fpath
  rpcache completions fish >~/.config/fish/completions/rpcache.fish")]
pub(crate) struct Completions {
    /// The shell that is to know the commands and options
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
  rpcache man --all man1           write all pages into the folder man1")]
pub(crate) struct Man {
    /// Whose page: nothing for rpcache itself, or a command such as `call` or `cache ls`
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,

    /// Write all pages into this folder, which is created where it is missing
    #[arg(long, value_name = "FOLDER", conflicts_with = "command", value_hint = ValueHint::DirPath)]
    pub(crate) all: Option<PathBuf>,
}
