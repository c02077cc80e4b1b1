//! Memory, descriptors and threads of a process, read from /proc, to find leaks; and the members of a process group.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    pub(crate) process: u32,
    pub(crate) rss_kb: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
}

impl Usage {
    pub(crate) fn of(process: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let value = |name| {
            let mut lines = status.lines();
            lines
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        Some(Self {
            process,
            rss_kb: value("VmRSS:")?.trim_end_matches(" kB").parse().ok()?,
            threads: value("Threads:")?.parse().ok()?,
            descriptors: std::fs::read_dir(format!("/proc/{process}/fd"))
                .ok()?
                .count() as u64,
        })
    }
}

/// The usage of one process at the start and at the end; the process may have been replaced between.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Growth {
    pub(crate) name: String,
    pub(crate) start: Option<Usage>,
    pub(crate) end: Option<Usage>,
}

impl Growth {
    /// Whether a process that was not replaced holds much more at the end than at the start. Memory may grow up to
    /// a bound with the number of calls in flight.
    pub(crate) fn is_leak(&self) -> bool {
        match (self.start, self.end) {
            (Some(start), Some(end)) if start.process == end.process => {
                end.descriptors > start.descriptors + 8
                    || end.threads > start.threads + 16
                    || end.rss_kb > start.rss_kb * 2 + 100_000
            }
            _ => false,
        }
    }
}

/// The processes of a group, by name.
pub(crate) fn members(group: i32) -> Vec<String> {
    let of = |process: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        // State, parent, group.
        let mut fields = rest.split_whitespace();
        let state = fields.next()?;
        (fields.nth(1)?.parse() == Ok(group) && state != "Z").then(|| name.to_owned())
    };
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(of)
        .collect()
}
