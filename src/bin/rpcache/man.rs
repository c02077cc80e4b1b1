//! `rpcache man`: writes manual pages from the same texts as `--help`. One for rpcache, and one per command.
//!
//! They are the same on every machine: the environment does not change them.

mod page;

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use clap::Command;

use self::page::Page;
use crate::args;
use crate::output::Failure;

pub(crate) fn run(args: &args::Man) -> Result<(), Failure> {
    let mut rpcache = args::Args::definition().disable_help_subcommand(true);
    // Gives the commands their full names and the global options.
    rpcache.build();
    if let Some(folder) = &args.all {
        return write_all(&rpcache, folder).map_err(|error| {
            let folder = folder.display();
            Failure::new(1, format!("cannot write to the folder {folder}: {error}"))
        });
    }
    let command = named(&rpcache, &args.command)?;
    Ok(io::stdout().write_all(&Page::of(command).text()?)?)
}

fn named<'a>(rpcache: &'a Command, path: &[String]) -> Result<&'a Command, Failure> {
    path.iter().try_fold(rpcache, |parent, name| {
        parent.find_subcommand(name).ok_or_else(|| {
            let parent = parent.get_bin_name().unwrap_or("rpcache");
            let nothing = format!("{parent} has no command {name:?}; see {parent} --help");
            Failure::new(2, nothing)
        })
    })
}

fn write_all(rpcache: &Command, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut commands = vec![rpcache];
    while let Some(command) = commands.pop() {
        let page = Page::of(command);
        fs::write(folder.join(page.file_name()), page.text()?)?;
        commands.extend(command.get_subcommands());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built() -> Command {
        let mut rpcache = args::Args::definition().disable_help_subcommand(true);
        rpcache.build();
        rpcache
    }

    #[test]
    fn commands_are_found_by_their_names() {
        let rpcache = built();
        let name = |path: &[&str]| {
            let path: Vec<_> = path.iter().map(|&name| name.to_owned()).collect();
            named(&rpcache, &path).map(|command| Page::of(command).file_name())
        };
        assert_eq!(name(&[]).unwrap(), "rpcache.1");
        assert_eq!(name(&["cache", "ls"]).unwrap(), "rpcache-cache-ls.1");
        let failure = name(&["cache", "lost"]).unwrap_err();
        let expected = "rpcache cache has no command \"lost\"; see rpcache cache --help";
        assert_eq!(failure.message(), Some(expected));
    }

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        write_all(&built(), folder.path()).unwrap();
        let mut pages = fs::read_dir(folder.path()).unwrap();
        assert!(pages.all(|page| page.unwrap().metadata().unwrap().len() > 500));
        for page in ["rpcache.1", "rpcache-worker.1", "rpcache-cache-verify.1"] {
            assert!(folder.path().join(page).exists(), "{page}");
        }
    }
}
