//! Servers that each run as a user of their own, so that rules of iptables can drop their packets alone. Takes root
//! and iptables; without root, servers run as the user of the tests.

use std::path::Path;
use std::process::Command;

/// Rules of iptables that drop packets; deleted when dropped.
pub(crate) struct Dropped(Vec<Vec<String>>);

impl Dropped {
    /// Drops what `user` sends on loopback, as far as it matches; each of `matches` is a rule.
    pub(crate) fn of(user: u16, matches: &[&[&str]]) -> Result<Self, String> {
        let user = user.to_string();
        let mut dropped = Self(Vec::new());
        for matches in matches {
            let owner = ["OUTPUT", "-o", "lo", "-p", "tcp", "-m", "owner"];
            let mut rule = [&owner[..], &["--uid-owner", &user], matches].concat();
            rule.extend(["-j", "DROP"]);
            // Waits for another process that changes rules.
            run("iptables", &[&["-w", "-I"], &rule[..]].concat())?;
            dropped
                .0
                .push(rule.into_iter().map(str::to_owned).collect());
        }
        Ok(dropped)
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        for rule in &self.0 {
            let rule = rule.iter().map(String::as_str);
            let delete: Vec<_> = ["-w", "-D"].into_iter().chain(rule).collect();
            run("iptables", &delete).expect("what was inserted can be deleted");
        }
    }
}

/// Why packets cannot be dropped here; `None`: they can.
pub(crate) fn obstacle() -> Option<String> {
    if !is_root() {
        return Some("cutting off a server takes root".to_owned());
    }
    run("iptables", &["-w", "-L", "OUTPUT", "-n"]).err()
}

/// A program that runs as this user if the tests run as root, otherwise as the user of the tests.
pub(crate) fn command(program: &Path, user: u16) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &user.to_string(), "--clear-groups"])
        .arg(program);
    command
}

/// Gives a folder of the run, with what is in it, to the user.
pub(crate) fn give(folder: &Path, user: u16) {
    if !is_root() {
        return;
    }
    let parent = folder.parent().expect("the run's folder");
    run("chmod", &["711", &parent.display().to_string()]).expect("the folder is ours");
    let chown = ["-R", &user.to_string(), &folder.display().to_string()];
    run("chown", &chown).expect("root may give files away");
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    user.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("cannot run {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let refused = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}", refused.trim()))
}
