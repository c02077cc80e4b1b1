//! `rpcache completions`: prints the script with which a shell completes commands and options.

use std::io::{self, Write as _};

use clap_complete::{generate, shells};

use crate::args::{self, Shell};
use crate::output::Failure;

pub(crate) fn run(args: &args::Completions) -> Result<(), Failure> {
    let (mut command, name) = (args::Args::definition(), "rpcache");
    // In memory first: the generators panic if a write fails.
    let mut script = Vec::new();
    match args.shell {
        Shell::Bash => generate(shells::Bash, &mut command, name, &mut script),
        Shell::Zsh => generate(shells::Zsh, &mut command, name, &mut script),
        Shell::Fish => generate(shells::Fish, &mut command, name, &mut script),
    }
    Ok(io::stdout().write_all(&script)?)
}
