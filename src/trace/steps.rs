//! What a worker tells of its own steps, as it travels in a reply. Pure.
//!
//! `lookup=35+312 compute=400+10234 fill=10640+201 total=10890`: each step with the microseconds from the
//! moment when the worker took the request to the step's begin, and those that it took. Clocks of two
//! machines are not compared: these are all of one.

use std::fmt;

/// More are not told: steps of one request, and bytes of what they are written in.
const MOST: usize = 16;
const LONGEST: usize = 1024;
const LONGEST_NAME: usize = 20;

/// A longer wait is no worker's: 12 digits are 11 days.
const MOST_DIGITS: usize = 12;

const TOTAL: &str = "total";

/// All steps of one request in one worker, in the order in which they ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Steps {
    steps: Vec<Step>,
    total_us: u64,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Lower-case letters and dashes: of a peer, and harmless.
    pub(crate) name: String,
    /// Since the request was taken.
    pub(crate) started_us: u64,
    pub(crate) took_us: u64,
}

impl Steps {
    pub(crate) fn each(&self) -> &[Step] {
        &self.steps
    }

    /// From the moment when the request was taken until the reply was written.
    pub(crate) fn total_us(&self) -> u64 {
        self.total_us
    }

    pub(crate) fn push(&mut self, step: Step) {
        if self.steps.len() < MOST {
            self.steps.push(step);
        }
    }

    pub(crate) fn ended_after(self, total_us: u64) -> Self {
        Self { total_us, ..self }
    }

    /// `None` for what no worker of ours writes.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let mut words: Vec<&str> = std::str::from_utf8(text).ok()?.split(' ').collect();
        let (name, total) = words.pop()?.split_once('=')?;
        if name != TOTAL || words.len() > MOST {
            return None;
        }
        Some(Self {
            total_us: micros(total)?,
            steps: words.into_iter().map(Step::read).collect::<Option<_>>()?,
        })
    }
}

impl Step {
    fn read(word: &str) -> Option<Self> {
        let (name, times) = word.split_once('=')?;
        let (started, took) = times.split_once('+')?;
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
        if !(1..=LONGEST_NAME).contains(&name.len()) || !name.bytes().all(is_name) {
            return None;
        }
        Some(Self {
            name: name.to_owned(),
            started_us: micros(started)?,
            took_us: micros(took)?,
        })
    }
}

/// Decimal digits and nothing else.
fn micros(digits: &str) -> Option<u64> {
    let fits = digits.len() <= MOST_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| digits.parse().ok())?
}

/// The header in the reply.
impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Step {
            name,
            started_us,
            took_us,
        } in &self.steps
        {
            write!(f, "{name}={started_us}+{took_us} ")?;
        }
        write!(f, "{TOTAL}={}", self.total_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_no_worker_writes_is_none() {
        let endless = format!("{}total=1", "a=1+1 ".repeat(MOST + 1));
        let long = format!("{}=1+1 total=1", "a".repeat(LONGEST_NAME + 1));
        for wrong in [
            "",
            "total",
            "total=",
            "total=-1",
            "total=+1",
            "total=1 ",
            " total=1",
            "total=1234567890123",
            "compute=1+1",
            "compute=1 total=1",
            "compute=1+ total=1",
            "=1+1 total=1",
            "Compute=1+1 total=1",
            "compute\u{1b}=1+1 total=1",
            "compute=1+1  total=1",
            endless.as_str(),
            long.as_str(),
        ] {
            assert_eq!(Steps::read(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(Steps::read(&[0xff]), None);
    }

    #[test]
    fn no_more_is_written_than_may_be_read() {
        let mut steps = Steps::default();
        for _ in 0..2 * MOST {
            steps.push(Step {
                name: "x".repeat(LONGEST_NAME),
                started_us: 999_999_999_999,
                took_us: 999_999_999_999,
            });
        }
        let steps = steps.ended_after(999_999_999_999);
        assert_eq!(Steps::read(steps.to_string().as_bytes()), Some(steps));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            steps in prop::collection::vec(("[a-z-]{1,20}", 0..10_u64.pow(9), 0..10_u64.pow(9)), 0..8),
            total_us in 0..10_u64.pow(12),
        ) {
            let step = |(name, started_us, took_us)| Step { name, started_us, took_us };
            let steps = Steps { steps: steps.into_iter().map(step).collect(), total_us };
            prop_assert_eq!(Steps::read(steps.to_string().as_bytes()), Some(steps));
        }

        #[test]
        fn whatever_comes_is_refused_or_written_alike(text in "([a-z]{0,3}[=+ ][0-9]{0,3}){0,6}") {
            if let Some(steps) = Steps::read(text.as_bytes()) {
                let again = Steps::read(steps.to_string().as_bytes());
                prop_assert_eq!(again, Some(steps));
            }
        }
    }
}
