//! The processes below a worker, read from `/proc`.

use crate::support::process::Process;
use std::collections::HashSet;

/// A process: its id and its parent's, and its command line. Zombies have an empty one.
struct Entry {
    pid: u32,
    parent: u32,
    command: String,
}

fn all() -> Vec<Entry> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let entries = entries.filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        Some(Entry {
            pid,
            parent: fields.nth(1)?.parse().ok()?,
            command: String::from_utf8_lossy(&command).replace('\0', " "),
        })
    });
    entries.collect()
}

/// All descendants of a process, zombies included.
pub(super) fn descendants(of: u32) -> HashSet<u32> {
    let all = all();
    let mut found = HashSet::from([of]);
    loop {
        let more = all.iter().filter(|entry| found.contains(&entry.parent));
        let more: Vec<u32> = more
            .map(|entry| entry.pid)
            .filter(|pid| !found.contains(pid))
            .collect();
        if more.is_empty() {
            found.remove(&of);
            return found;
        }
        found.extend(more);
    }
}

/// The processes whose command line contains this text, of any parent.
pub(super) fn running(text: &str) -> usize {
    let own = std::process::id();
    let all = all();
    all.iter()
        .filter(|entry| entry.pid != own && entry.command.contains(text))
        .count()
}

/// The processes `sleep` with this number.
pub(super) fn sleeping(seconds: &str) -> usize {
    let command = format!("sleep {seconds} ");
    all()
        .iter()
        .filter(|entry| entry.command == command)
        .count()
}

/// The worker that a guard has started.
pub(super) fn worker_of(guard: &Process) -> u32 {
    let child = all()
        .into_iter()
        .find(|entry| entry.parent == guard.id() && !entry.command.is_empty());
    child.expect("the guard has a worker").pid
}

/// The number of descriptors that a process has open.
pub(super) fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}
