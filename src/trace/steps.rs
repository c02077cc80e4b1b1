//! Parses and writes a worker's report of its steps, a header of the reply. Pure.
//!
//! `lookup=35+312 compute=400+10234 fill=10640+201 total=10890`: for each step, the microseconds from receiving the
//! request to the start of the step, and its duration. All times are of the worker's clock.

use std::fmt;

/// Limits of a report: its steps, its bytes, and the bytes of a step's name.
const MAX_STEPS: usize = 16;
const MAX_LENGTH: usize = 1024;
const MAX_NAME_LENGTH: usize = 20;

/// Digits of a time in microseconds: 12 digits are 11 days.
const MAX_DIGITS: usize = 12;

const TOTAL: &str = "total";

/// The steps of one request in one worker, in the order in which they ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Steps {
    steps: Vec<Step>,
    total_us: u64,
}

/// One step and its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Lower-case letters and dashes, also if a peer sent it.
    pub(crate) name: String,
    /// Since the request was received.
    pub(crate) started_us: u64,
    pub(crate) took_us: u64,
}

impl Steps {
    pub(crate) fn each(&self) -> &[Step] {
        &self.steps
    }

    /// From receiving the request until the reply was written.
    pub(crate) fn total_us(&self) -> u64 {
        self.total_us
    }

    pub(crate) fn push(&mut self, step: Step) {
        if self.steps.len() < MAX_STEPS {
            self.steps.push(step);
        }
    }

    pub(crate) fn ended_after(self, total_us: u64) -> Self {
        Self { total_us, ..self }
    }

    /// Parses a report; `None` if it is invalid.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        if text.len() > MAX_LENGTH {
            return None;
        }
        let mut words: Vec<&str> = std::str::from_utf8(text).ok()?.split(' ').collect();
        let (name, total) = words.pop()?.split_once('=')?;
        if name != TOTAL || words.len() > MAX_STEPS {
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
        if !(1..=MAX_NAME_LENGTH).contains(&name.len()) || !name.bytes().all(is_name) {
            return None;
        }
        Some(Self {
            name: name.to_owned(),
            started_us: micros(started)?,
            took_us: micros(took)?,
        })
    }
}

/// Parses decimal digits, without a sign.
fn micros(digits: &str) -> Option<u64> {
    let fits = digits.len() <= MAX_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
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
    fn an_invalid_report_is_none() {
        let endless = format!("{}total=1", "a=1+1 ".repeat(MAX_STEPS + 1));
        let long = format!("{}=1+1 total=1", "a".repeat(MAX_NAME_LENGTH + 1));
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
    fn the_largest_report_is_parsed() {
        let mut steps = Steps::default();
        for _ in 0..2 * MAX_STEPS {
            steps.push(Step {
                name: "x".repeat(MAX_NAME_LENGTH),
                started_us: 999_999_999_999,
                took_us: 999_999_999_999,
            });
        }
        let steps = steps.ended_after(999_999_999_999);
        assert_eq!(Steps::read(steps.to_string().as_bytes()), Some(steps));
    }

    proptest! {
        #[test]
        fn a_written_report_is_parsed(
            steps in prop::collection::vec(("[a-z-]{1,20}", 0..10_u64.pow(9), 0..10_u64.pow(9)), 0..8),
            total_us in 0..10_u64.pow(12),
        ) {
            let step = |(name, started_us, took_us)| Step { name, started_us, took_us };
            let steps = Steps { steps: steps.into_iter().map(step).collect(), total_us };
            prop_assert_eq!(Steps::read(steps.to_string().as_bytes()), Some(steps));
        }

        #[test]
        fn a_parsed_report_is_written_alike(text in "([a-z]{0,3}[=+ ][0-9]{0,3}){0,6}") {
            if let Some(steps) = Steps::read(text.as_bytes()) {
                let again = Steps::read(steps.to_string().as_bytes());
                prop_assert_eq!(again, Some(steps));
            }
        }
    }
}
