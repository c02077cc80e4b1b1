//! What `/proc` says of processes: whose children they are, and of which group.

use std::fs;
use std::io;

use rustix::process::{Pid, getpid};

/// The children of the main thread: the kernel gives orphans to the first thread of a process, and computations start
/// theirs on others.
pub(super) fn children_of_main_thread() -> io::Result<Vec<Pid>> {
    let own = getpid();
    match fs::read_to_string(format!("/proc/self/task/{}/children", own.as_raw_nonzero())) {
        Ok(list) => Ok(list.split_whitespace().filter_map(pid).collect()),
        // A kernel without CONFIG_PROC_CHILDREN.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(children()?.into_iter().map(|stat| stat.pid).collect())
        }
        Err(error) => Err(error),
    }
}

/// The children of all threads.
pub(super) fn children() -> io::Result<Vec<Stat>> {
    let own = getpid();
    let all = all_processes()?.into_iter().filter_map(Stat::of);
    Ok(all.filter(|stat| stat.parent == Some(own)).collect())
}

pub(super) fn all_processes() -> io::Result<Vec<Pid>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries
        .filter_map(|entry| pid(entry.ok()?.file_name().to_str()?))
        .collect())
}

/// `None` for 0, which stands for a process outside of this namespace, and for -1, which one that is being reaped has
/// as group: `kill` would take them for something else.
fn pid(text: &str) -> Option<Pid> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.and_then(Pid::from_raw)
}

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: Pid,
    pub(super) is_zombie: bool,
    parent: Option<Pid>,
    pub(super) group: Option<Pid>,
    session: Option<Pid>,
    /// In ticks since the machine started.
    started: u64,
}

impl Stat {
    pub(super) fn of(pid: Pid) -> Option<Self> {
        let line = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        Self::read(&line)
    }

    fn read(line: &str) -> Option<Self> {
        // The name in parentheses may contain any characters.
        let (front, rest) = line.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?;
        Some(Self {
            pid: pid(front.split_whitespace().next()?)?,
            is_zombie: matches!(state, "Z" | "X"),
            parent: pid(fields.next()?),
            group: pid(fields.next()?),
            session: pid(fields.next()?),
            started: fields.nth(15)?.parse().ok()?,
        })
    }

    /// Whether the computation that this process leads can have started the other one.
    pub(super) fn may_have_started(&self, other: &Self) -> bool {
        other.group == Some(self.pid) || other.started >= self.started
    }

    /// Its group, if all processes of that descend from `ancestor`, which it descends from itself: the group is led by it,
    /// or in a session that only a descendant can have begun.
    pub(super) fn own_group(&self, ancestor: &Self) -> Option<Pid> {
        let is_own = self.group == Some(self.pid) || self.session != ancestor.session;
        // 1 would be every process.
        self.group.filter(|group| is_own && !group.is_init())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_whatever_the_name_of_the_process() {
        let fields = "S 1 42 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 1";
        for name in ["sh", "a b", ") S 9 (", ""] {
            let stat = Stat::read(&format!("43 ({name}) {fields}")).unwrap();
            assert_eq!((Some(stat.pid), stat.group), (pid("43"), pid("42")));
            assert_eq!((stat.started, stat.is_zombie), (98765, false));
        }
        let reaped = Stat::read(&format!("43 (sh) {}", fields.replace("42 41", "-1 -1"))).unwrap();
        assert_eq!((reaped.group, reaped.session), (None, None));
        for line in ["", "43 (sh", "43 (sh) S 1", "x (sh) S 1 1"] {
            assert_eq!(Stat::read(line), None);
        }
        let own = Stat::of(getpid()).unwrap();
        assert_eq!((own.pid, own.is_zombie), (getpid(), false));
    }

    fn stat(pid: i32, group: i32, started: u64) -> Stat {
        Stat {
            pid: Pid::from_raw(pid).unwrap(),
            is_zombie: false,
            parent: None,
            group: Pid::from_raw(group),
            session: Pid::from_raw(5),
            started,
        }
    }

    #[test]
    fn only_a_group_of_descendants_is_killed_as_a_whole() {
        let own = stat(10, 9, 500);
        let elsewhere = |group| Stat {
            session: Pid::from_raw(11),
            ..stat(12, group, 500)
        };
        assert_eq!(stat(12, 12, 500).own_group(&own), pid("12"), "it leads it");
        assert_eq!(stat(12, 9, 500).own_group(&own), None, "the worker's");
        assert_eq!(stat(12, 8, 500).own_group(&own), None, "maybe a shell's");
        assert_eq!(elsewhere(11).own_group(&own), pid("11"), "a daemon's");
        for group in [0, 1] {
            assert_eq!(elsewhere(group).own_group(&own), None);
        }
    }

    #[test]
    fn orphan_belongs_to_a_computation_of_its_group_or_that_began_before_it() {
        let leader = stat(10, 10, 500);
        assert!(leader.may_have_started(&stat(11, 10, 400)), "its group");
        assert!(leader.may_have_started(&stat(11, 11, 500)), "the same tick");
        assert!(leader.may_have_started(&stat(11, 11, 501)));
        assert!(!leader.may_have_started(&stat(11, 11, 499)));
    }
}
