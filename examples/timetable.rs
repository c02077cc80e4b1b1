//! A procedure with an argument of several parts, and a canonical text that gives equal arguments one key.
//!
//!     cargo run --example timetable serve
//!     cargo run --example timetable ask '12@3 20@11'
//!
//! Bus lines leave at fixed intervals: when do all of them leave together? `12@3` is a line that leaves every
//! 12 minutes, first at minute 3.
//!
//! `Display` makes the key in Redis, so it must write equal arguments in the same way. `FromStr` accepts several
//! forms (`20@11,012@+3`, too) and normalizes them, so that the type holds the normal form only. `Display` writes
//! this form:
//!
//!     $ redis-cli GET timetable:12@3,20@11
//!     "51/60"

use std::fmt;
use std::str::FromStr;

use rpcache::{CacheOptions, Cancel, Client, ClientOptions, ComputeError};
use rpcache::{Procedure, ProcedureName, Worker, WorkerOptions};

/// Lines in ascending order, without duplicates. The fields are private, so that no other value exists.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Timetable {
    lines: Vec<Line>,
    /// Minutes after which the timetable repeats: the least common multiple.
    period: u64,
}

/// Leaves at the minutes `first`, `first + every` and so on; `first` is less than `every`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    every: u64,
    first: u64,
}

/// Limits of an argument, because anybody can send one.
const MAX_PERIOD: u64 = 1_000_000_000;
const MAX_LINES: usize = 16;

impl FromStr for Timetable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let separated = |c: char| c == ',' || c.is_whitespace();
        let parts = text.split(separated).filter(|part| !part.is_empty());
        // One more than the limit shows that there are too many.
        let lines = parts.take(MAX_LINES + 1).map(str::parse);
        let mut lines = lines.collect::<Result<Vec<Line>, String>>()?;
        if !(1..=MAX_LINES).contains(&lines.len()) {
            return Err(format!("a timetable has 1 to {MAX_LINES} lines"));
        }
        // Order and duplicates have no meaning.
        lines.sort_unstable();
        lines.dedup();
        let period = lines.iter().try_fold(1, |period: u64, line| {
            let longer = period / gcd(period, line.every) * line.every;
            (longer <= MAX_PERIOD).then_some(longer)
        });
        let period = period.ok_or(format!(
            "the timetable repeats after more than {MAX_PERIOD} min"
        ))?;
        Ok(Self { lines, period })
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("{text:?} is not a line: expected EVERY@FIRST, as in 12@3");
        let (every, first) = text.split_once('@').ok_or_else(invalid)?;
        // Parsing normalizes numbers: `+12` and `012` are 12.
        let every: u64 = every.parse().map_err(|_| invalid())?;
        let first: u64 = first.parse().map_err(|_| invalid())?;
        if !(1..=MAX_PERIOD).contains(&every) {
            return Err(invalid());
        }
        // A line that leaves every 12 minutes and at 15 leaves at 3, too.
        let first = first % every;
        Ok(Self { every, first })
    }
}

impl fmt::Display for Timetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, line) in self.lines.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "," })?;
            write!(f, "{}@{}", line.every, line.first)?;
        }
        Ok(())
    }
}

/// When all lines leave together: at minute `first`, then every `every` minutes. As text `51/60`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Together {
    first: u64,
    every: u64,
}

impl fmt::Display for Together {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.every)
    }
}

impl FromStr for Together {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let parsed = parts.and_then(|(first, every)| {
            Some(Self {
                first: first.parse().ok()?,
                every: every.parse().ok()?,
            })
        });
        parsed.ok_or(format!("{text:?} is not FIRST/EVERY"))
    }
}

/// The procedure. Its name makes the keys `timetable:…` and the queue `rpc_queue.timetable`.
struct WhenTogether;

impl Procedure for WhenTogether {
    type Argument = Timetable;
    type Answer = Together;

    fn name(&self) -> &ProcedureName {
        const { &ProcedureName::new("timetable") }
    }

    /// Tries every departure of the rarest line.
    fn compute(&self, timetable: &Timetable, cancel: &Cancel) -> Result<Together, ComputeError> {
        let Some(rarest) = timetable.lines.last() else {
            return Err(ComputeError::Failed("a timetable without lines".into()));
        };
        let mut minute = rarest.first;
        for tried in 1_u64.. {
            if timetable.lines.iter().all(|line| line.leaves_at(minute)) {
                break;
            }
            minute += rarest.every;
            if minute >= timetable.period {
                // Failures are not stored. If such arguments are frequent, make this an answer.
                let never = "these lines never leave together";
                return Err(ComputeError::BadArgument(never.into()));
            }
            // So that a stopped worker does not wait for a long search.
            if tried % 100_000 == 0 {
                cancel.check()?;
            }
        }
        Ok(Together {
            first: minute,
            every: timetable.period,
        })
    }

    /// Checks each line once, without a search. Within a period the lines leave together once at most, so no wrong
    /// answer passes.
    fn verify(&self, timetable: &Timetable, answer: &Together) -> bool {
        let all_leave = || {
            timetable
                .lines
                .iter()
                .all(|line| line.leaves_at(answer.first))
        };
        answer.every == timetable.period && answer.first < answer.every && all_leave()
    }
}

impl Line {
    fn leaves_at(&self, minute: u64) -> bool {
        minute % self.every == self.first
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = |name, local: &str| std::env::var(name).unwrap_or(local.into());
    let amqp = url("AMQP_URL", "amqp://localhost").parse()?;
    let mut cache = CacheOptions::new(url("REDIS_URL", "redis://localhost").parse()?);
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("serve") => {
            let stop = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
            let worker = Worker::new(WhenTogether, WorkerOptions::new(amqp, cache));
            worker.run(stop).await?;
        }
        Some("ask") => {
            // A short-lived process: its first lookup waits for the connection to Redis.
            cache.wait_for_connection = true;
            let client = Client::new(WhenTogether, ClientOptions::new(amqp, cache));
            for text in arguments {
                let timetable: Timetable = text.parse()?;
                let found = client.call(timetable.clone()).await?;
                let Together { first, every } = found.answer;
                let source = found.source;
                println!("{timetable}: at {first}, then every {every} minutes ({source})");
            }
            client.close().await;
        }
        _ => return Err("usage: timetable serve | timetable ask TIMETABLE...".into()),
    }
    Ok(())
}

/// Tests that every procedure with its own type of argument should have.
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_timetables_have_one_key() {
        for text in [
            "12@3,20@11",
            "20@11 12@3",
            " 012@+3,\t20@31, 12@3",
            "20@11,12@15",
        ] {
            let timetable: Timetable = text.parse().unwrap();
            assert_eq!(timetable.to_string(), "12@3,20@11", "{text:?}");
        }
    }

    #[test]
    fn invalid_timetables_are_refused() {
        let too_many = "2@1,".repeat(MAX_LINES + 1);
        for text in [
            "",
            ",",
            "12",
            "0@0",
            "-1@0",
            "12@x",
            "99999@0,99998@0",
            &too_many,
        ] {
            assert!(text.parse::<Timetable>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_the_right_answer_passes() {
        let timetable: Timetable = "12@3,20@11".parse().unwrap();
        let right = WhenTogether.compute(&timetable, &Cancel::new()).unwrap();
        assert_eq!(right.to_string(), "51/60");
        for first in 0..200 {
            for every in [0, 59, 60, 61, 120] {
                let answer = Together { first, every };
                assert_eq!(WhenTogether.verify(&timetable, &answer), answer == right);
            }
        }
    }

    proptest! {
        /// A canonical text parses to the value that was written, and equal values have the same text.
        #[test]
        fn the_text_is_canonical(lines in prop::collection::vec((1_u64..40, 0_u64..99), 1..4)) {
            let write = |(every, first): &(u64, u64)| format!("0{every}@+{first}");
            let text: Vec<_> = lines.iter().map(write).collect();
            let read: Timetable = text.join(" ").parse().unwrap();
            prop_assert_eq!(&read.to_string().parse::<Timetable>().unwrap(), &read);
            let reversed: Vec<_> = text.into_iter().rev().collect();
            let reversed: Timetable = reversed.join(",").parse().unwrap();
            prop_assert_eq!(read.to_string(), reversed.to_string());
        }

        #[test]
        fn computed_answers_pass(lines in prop::collection::vec((1_u64..40, 0_u64..40), 1..4)) {
            let text: Vec<_> = lines.iter().map(|(every, first)| format!("{every}@{first}")).collect();
            let timetable: Timetable = text.join(",").parse().unwrap();
            if let Ok(answer) = WhenTogether.compute(&timetable, &Cancel::new()) {
                prop_assert!(WhenTogether.verify(&timetable, &answer));
            }
        }
    }
}
