//! Completions and manual pages, which the command prints itself.

use crate::support::process::{Finished, Program};

/// A value of the environment that must not be printed.
const SECRET: &str = "s3cret";

async fn printed(arguments: &[&str]) -> String {
    let url = format!("redis://:{SECRET}@localhost");
    let program = Program::rpcache(arguments).env("REDIS_URL", &url);
    let finished = program.env("RPCACHE_QUEUE", SECRET).run().await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(finished.stderr, "");
    assert!(!finished.stdout.contains(SECRET), "{finished:#?}");
    finished.stdout
}

/// The completions that bash offers after the last of these words.
async fn offered(words: &[&str]) -> Vec<String> {
    let script = printed(&["completions", "bash"]).await;
    let press_tab = r#"
        eval "$SCRIPT"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _rpcache rpcache "${*: -1}" "${@: -2:1}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let arguments = [&["-c", press_tab, "bash"], words].concat();
    let program = Program::new("bash", &arguments).env("SCRIPT", &script);
    let Finished { stdout, .. } = program.run().await;
    stdout.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn bash_completes_commands_options_and_values() {
    assert_eq!(offered(&["rpcache", "wo"]).await, ["worker"]);
    assert_eq!(offered(&["rpcache", "cache", "ver"]).await, ["verify"]);
    assert_eq!(offered(&["rpcache", "call", "--ref"]).await, ["--refresh"]);
    let algorithm = ["rpcache", "worker", "--algorithm", "d"];
    assert_eq!(offered(&algorithm).await, ["doubling"]);
}

#[tokio::test]
async fn zsh_and_fish_have_completions() {
    let zsh = printed(&["completions", "zsh"]).await;
    assert!(zsh.starts_with("#compdef rpcache\n"), "{zsh}");
    let fish = printed(&["completions", "fish"]).await;
    assert!(fish.contains("complete -c rpcache"), "{fish}");
    let unknown = Program::rpcache(&["completions", "tcsh"]).run().await;
    unknown.refuses(2, "bash, zsh, fish");
}

#[tokio::test]
async fn manual_has_a_page_for_each_command() {
    let page = printed(&["man"]).await;
    assert!(page.contains("\n.SH \"EXIT CODES\"\n.nf\n"), "{page}");
    let page = printed(&["man", "cache", "verify"]).await;
    assert!(page.contains(r"rpcache\-cache\-verify \- "), "{page}");
    let page = printed(&["man", "worker"]).await;
    assert!(page.contains("REDIS_URL"), "{page}");
    let unknown = Program::rpcache(&["man", "wurker"]).run().await;
    unknown.refuses(2, "wurker");
}

#[tokio::test]
async fn manual_is_written_into_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let new = folder.path().join("man1");
    printed(&["man", "--all", new.to_str().unwrap()]).await;
    let worker = std::fs::read_to_string(new.join("rpcache-worker.1")).unwrap();
    assert_eq!(worker, printed(&["man", "worker"]).await);
    let file = new.join("rpcache.1");
    let nowhere = ["man", "--all", file.to_str().unwrap()];
    Program::rpcache(&nowhere)
        .run()
        .await
        .refuses(1, "cannot write");
}
