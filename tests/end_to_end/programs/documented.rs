//! The examples of docs/programs.md: every command that it shows is run, and prints what it shows.

use crate::support::process::Program;
use crate::support::{Setup, lifetime, wait};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The blocks of code in the page: the language and the text of each.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let blocks = page.split("\n```").skip(1).step_by(2);
    let blocks = blocks.map(|block| block.split_once('\n').unwrap());
    blocks.collect()
}

/// A command of a console, and what it prints.
fn commands(console: &str) -> Vec<(&str, String)> {
    let commands = console.split("$ ").skip(1);
    let commands = commands.map(|command| command.split_once('\n').unwrap_or((command, "")));
    let ended = |printed: &str| match printed {
        "" => String::new(),
        printed => printed.trim_end().to_owned() + "\n",
    };
    commands
        .map(|(line, printed)| (line, ended(printed)))
        .collect()
}

#[tokio::test]
async fn every_command_prints_what_the_page_shows() {
    let page = include_str!("../../../docs/programs.md");
    let setup = Setup::new().await;
    let folder = lifetime::folder("examples");
    let binaries = Path::new(env!("CARGO_BIN_EXE_rpcache")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let run = |line: &str| {
        let line = format!("cd {} && {line}", folder.display());
        setup.knowing(Program::shell(&line)).env("PATH", &path)
    };
    let (mut workers, mut checked) = (Vec::new(), 0);
    for (language, text) in blocks(page) {
        if language == "python" {
            // The second line is its name.
            let name = text.split("# ").nth(1).unwrap().split(':').next().unwrap();
            std::fs::write(folder.join(name), text).unwrap();
            // As an editor leaves it: the page makes it executable.
            let mode = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(folder.join(name), mode).unwrap();
            continue;
        }
        assert_eq!(language, "console");
        for (line, printed) in commands(text) {
            if let Some(worker) = line.strip_suffix(" &") {
                let name = worker
                    .split_whitespace()
                    .skip_while(|word| *word != "--procedure")
                    .nth(1);
                let queue = format!("rpc_queue.{}", name.unwrap());
                workers.push(run(&format!("exec {worker}")).start());
                wait::wait_until(worker, async || setup.consumers(&queue).await == 1).await;
            } else {
                let finished = run(line).run().await;
                assert_eq!(
                    (finished.code, &finished.stdout),
                    (Some(0), &printed),
                    "{line}: {finished:?}"
                );
                checked += 1;
            }
        }
    }
    assert_eq!((workers.len(), checked), (3, 8));
}
