//! The CPU time of processes and of the machine, from /proc.

use std::fs::read_to_string;
use std::time::Instant;

/// Ticks of /proc in a second, on every machine that Rust and RabbitMQ run on.
const TICKS: f64 = 100.0;

/// The processes of a run beside its client.
pub(crate) struct Processes {
    pub(crate) worker: Vec<u32>,
    pub(crate) rabbitmq: Vec<u32>,
    pub(crate) redis: Vec<u32>,
}

/// CPU time in seconds; the difference of two readings is that of the time between them.
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    at: Instant,
    /// Processes that this one has started and waited for.
    pub(crate) client: f64,
    pub(crate) worker: f64,
    pub(crate) rabbitmq: f64,
    pub(crate) redis: f64,
    /// This process.
    pub(crate) own: f64,
    /// All of the machine.
    machine: f64,
}

impl Processes {
    pub(crate) fn read(&self) -> Reading {
        let sum = |pids: &[u32]| pids.iter().map(|&pid| of(pid)).sum();
        let [own, client] = fields("self");
        Reading {
            at: Instant::now(),
            client,
            worker: sum(&self.worker),
            rabbitmq: sum(&self.rabbitmq),
            redis: sum(&self.redis),
            own,
            machine: machine(),
        }
    }

    /// What was used since that reading, and in how many seconds.
    pub(crate) fn since(&self, before: Reading) -> (Reading, f64) {
        let now = self.read();
        let used = Reading {
            at: now.at,
            client: now.client - before.client,
            worker: now.worker - before.worker,
            rabbitmq: now.rabbitmq - before.rabbitmq,
            redis: now.redis - before.redis,
            own: now.own - before.own,
            machine: now.machine - before.machine,
        };
        (used, (now.at - before.at).as_secs_f64())
    }
}

impl Reading {
    /// Other programs of the machine, and the kernel's own.
    pub(crate) fn others(&self) -> f64 {
        let ours = self.client + self.worker + self.rabbitmq + self.redis + self.own;
        (self.machine - ours).max(0.0)
    }
}

/// The CPU time of a process.
pub(crate) fn of(pid: u32) -> f64 {
    fields(&pid.to_string())[0]
}

/// The CPU time of a process, and of its children that it has waited for.
fn fields(process: &str) -> [f64; 2] {
    let stat = read_to_string(format!("/proc/{process}/stat")).expect("the process lives");
    // The program's name, in brackets, may contain anything.
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    let numbers: Vec<f64> = fields
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(|number| number.parse().expect("a number"))
        .collect();
    [numbers[0] + numbers[1], numbers[2] + numbers[3]].map(|ticks| ticks / TICKS)
}

/// The time that all cores were busy.
fn machine() -> f64 {
    let stat = read_to_string("/proc/stat").expect("Linux");
    let numbers: Vec<f64> = stat
        .lines()
        .next()
        .into_iter()
        .flat_map(str::split_whitespace)
        .skip(1)
        .map(|number| number.parse().expect("a number"))
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let busy = [0, 1, 2, 5, 6, 7].map(|field| numbers[field]);
    busy.iter().sum::<f64>() / TICKS
}
