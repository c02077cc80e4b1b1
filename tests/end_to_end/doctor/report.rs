//! Parses the output of `rpcache doctor`, for comparison.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::SECRET;
use crate::support::Setup;
use crate::support::process::Program;

/// Warnings and failures, and the checks that were skipped because of them.
pub(super) struct Report {
    pub(super) problems: String,
    /// Skipped checks, by the reason.
    pub(super) skipped: BTreeMap<String, Vec<String>>,
}

/// Runs the doctor with and without `--json`, and checks that both outputs agree and text has 80 columns.
pub(super) async fn examine(
    setup: &Setup,
    doctor: impl Fn(Program) -> Program,
    code: i32,
) -> Report {
    let run = async |arguments: &[&str]| {
        let finished = doctor(setup.rpcache(arguments)).run().await;
        let ended = (finished.code, finished.stderr.as_str());
        assert_eq!(ended, (Some(code), ""), "{finished:#?}");
        assert!(!finished.stdout.contains(SECRET), "{finished:#?}");
        finished.stdout
    };
    let report = parse(&scrubbed(setup, &run(&["doctor", "--json"]).await));
    let text = run(&["doctor"]).await;
    for line in text.lines() {
        assert!(
            line.chars().count() <= 80 && !line.contains(char::is_control),
            "{text}"
        );
    }
    for (word, state) in [("WARNING  ", "warning "), ("FAILURE  ", "failure ")] {
        let [lines, expected] = [&text, &report.problems];
        let lines = lines.lines().filter(|line| line.starts_with(word)).count();
        let expected = expected
            .lines()
            .filter(|line| line.starts_with(state))
            .count();
        assert_eq!(lines, expected, "{text}");
    }
    report
}

/// Replaces ports, names and times, which differ between runs.
pub(super) fn scrubbed(setup: &Setup, text: &str) -> String {
    let (amqp, redis) = (setup.vhost.url(), setup.redis.url());
    let (_, vhost) = amqp.rsplit_once('/').unwrap();
    let port = |url: &str| {
        format!(
            ":{}",
            url.rsplit(':').next().unwrap().split('/').next().unwrap()
        )
    };
    let mut text = text
        .replace(&port(&amqp), ":AMQP")
        .replace(&port(&redis), ":REDIS")
        .replace(&format!("/{vhost}"), "/VHOST")
        .replace(&format!("'{vhost}'"), "'VHOST'")
        .replace(&format!(" {vhost}"), " VHOST")
        // RabbitMQ 4.0 names the kind of access; 3.10 does not.
        .replace("REFUSED - write access to", "REFUSED - access to");
    // A hit may be found in less than 0.1 ms.
    text = text.replace(" µs\n", " ms\n").replace(" µs\"", " ms\"");
    for end in [" ms\n", " ms\""] {
        let parts: Vec<_> = text.split(end).map(str::to_owned).collect();
        let last = parts.len() - 1;
        let cut = |(at, part): (usize, &String)| {
            let number = part.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
            if at < last {
                format!("{number}N{end}")
            } else {
                part.clone()
            }
        };
        text = parts.iter().enumerate().map(cut).collect();
    }
    text
}

/// Parses the output of `--json`.
pub(super) fn parse(stdout: &str) -> Report {
    let (mut problems, mut skipped) = (String::new(), BTreeMap::<_, Vec<_>>::new());
    let mut checks = 0;
    for line in stdout.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        if line["check"] == "amqp-cluster" {
            // Only where several nodes are given. The tests of a cluster look at it.
            assert_eq!(line["state"], "skipped");
            continue;
        }
        checks += 1;
        let [check, state, message] =
            ["check", "state", "message"].map(|field| line[field].as_str().unwrap().to_owned());
        match state.as_str() {
            "ok" => assert_eq!(line["remedy"], Value::Null),
            "skipped" => {
                let why = message.strip_prefix("because of ").unwrap_or(&message);
                skipped.entry(why.to_owned()).or_default().push(check);
            }
            state => {
                writeln!(problems, "{state} {check}: {message}").unwrap();
                for step in line["remedy"].as_str().expect("a remedy").lines() {
                    writeln!(problems, "-> {step}").unwrap();
                }
            }
        }
    }
    assert_eq!(checks, 23);
    Report { problems, skipped }
}

impl Report {
    #[track_caller]
    pub(super) fn is(&self, problems: &str, skipped: &[(&str, &[&str])]) {
        assert_eq!(self.problems, problems);
        let ours = self.skipped.iter();
        let ours: Vec<_> = ours
            .map(|(why, checks)| {
                (
                    why.as_str(),
                    checks.iter().map(String::as_str).collect::<Vec<_>>(),
                )
            })
            .collect();
        let expected: Vec<_> = skipped
            .iter()
            .map(|(why, checks)| (*why, checks.to_vec()))
            .collect();
        assert_eq!(ours, expected);
    }
}
