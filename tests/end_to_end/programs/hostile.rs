//! Programs that misbehave: every call ends at its deadline, with its slot free and no process or descriptor left.

use super::processes::{descriptors, running, worker_of};
use super::{QUEUE, Served, script};
use crate::support::process::Finished;
use crate::support::wait;
use std::time::Duration;

/// Misbehaves as its argument says.
const HOSTILE: &str = r#"#!/bin/sh
read -r what rest
case $what in
  good) echo fine ;;
  daemon-with-stdout) setsid sleep 1000 & echo started ;;
  daemon-without) setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo started ;;
  background) sleep 1000 & echo started ;;
  daemon-that-writes) setsid sh -c 'exec yes' & echo started; exit 3 ;;
  ignores-term) trap '' TERM; while :; do sleep 1000; done ;;
  stopped) kill -STOP $$ ;;
  endless-stdout) exec yes ;;
  half-a-line) exec tr '\0' x < /dev/zero ;;
  endless-stderr) exec yes >&2 ;;
  gigabyte-on-stderr) yes | head -c 1000000000 >&2; echo fine ;;
  closes-all) exec <&- >&- 2>&-; sleep 1000 ;;
  segfault) kill -SEGV $$ ;;
  limit) ulimit -f 1; exec dd if=/dev/zero of="$0.out" bs=4096 count=10 ;;
  forks) exec python3 -c '
import os
for _ in range(4):
    if os.fork() == 0:
        for _ in range(3000):
            if os.fork():
                os._exit(0)
            os.setsid()
        os.execlp("sleep", "sleep", "1000")
import time
time.sleep(1000)' ;;
esac
"#;

const TIMEOUT: Duration = Duration::from_secs(1);

/// The reply may be this much later on a busy machine. Far less than the 2 s that processes get to end, which must not
/// delay it.
const SLACK: Duration = Duration::from_millis(1500);

/// What the caller hears: an answer, or a part of the message.
type Hears = Result<&'static str, &'static str>;

const LATE: Hears = Err("the program did not end within 1 s");

async fn hears(served: &Served, what: &str, expected: Hears) -> Finished {
    let finished = served.call(what).await;
    match expected {
        Ok(answer) => finished.answers(&format!("{answer}\n")),
        Err(message) => finished.refuses(1, message),
    }
    finished
}

async fn misbehave(cases: &[(&str, Hears)]) {
    let program = script(HOSTILE);
    let served = Served::by(&["--exec-timeout", "1s"], &[&program]).await;
    hears(&served, "good 0", Ok("fine")).await;
    served.nothing_is_left().await;
    let worker = worker_of(&served.worker);
    let before = descriptors(worker);
    for (number, (what, expected)) in cases.iter().enumerate() {
        let took = hears(&served, what, *expected).await.took;
        if *expected == LATE {
            assert!(
                took >= TIMEOUT && took < TIMEOUT + SLACK,
                "{what}: {took:?}"
            );
        }
        // The slot is free, if only after its processes have ended.
        hears(&served, &format!("good {what} {number}"), Ok("fine")).await;
        served.nothing_is_left().await;
        wait::wait_until("no descriptor is left", async || {
            descriptors(worker) <= before
        })
        .await;
        assert_eq!(
            running(&program),
            1 + 1,
            "{what}: guard and worker have it in their command line"
        );
    }
}

#[tokio::test]
async fn processes_that_a_program_leaves_are_ended() {
    misbehave(&[
        ("daemon-with-stdout", Ok("started")),
        ("daemon-without", Ok("started")),
        ("background", Ok("started")),
        ("daemon-that-writes", Err("exit code 3")),
    ])
    .await;
}

#[tokio::test]
async fn programs_that_do_not_end_are_ended() {
    misbehave(&[
        ("ignores-term", LATE),
        ("stopped", LATE),
        ("closes-all", LATE),
    ])
    .await;
}

#[tokio::test]
async fn programs_that_fork_faster_than_they_are_killed_are_ended() {
    misbehave(&[("forks", LATE)]).await;
}

#[tokio::test]
async fn programs_that_write_without_end_are_ended() {
    misbehave(&[
        ("endless-stdout", Err("8388608 bytes")),
        ("half-a-line", Err("8388608 bytes")),
        ("endless-stderr", LATE),
    ])
    .await;
}

#[tokio::test]
async fn programs_that_crash_fail_their_call_alone() {
    misbehave(&[("segfault", Err("SIGSEGV")), ("limit", Err("SIGXFSZ"))]).await;
}

#[tokio::test]
async fn an_argument_that_is_never_read_blocks_nothing() {
    // With its newline, more than a pipe holds.
    let large = "x".repeat(64 * 1024);
    for (command, code) in [
        (["sleep", "1000"], Some("failed")),
        (["echo", "deaf"], None),
    ] {
        let served = Served::by(&["--exec-timeout", "1s"], &command).await;
        let mut caller = served.setup.caller().await;
        let properties = caller.properties();
        caller
            .broker
            .publish(QUEUE, large.as_bytes(), properties)
            .await;
        let reply = caller.next_reply().await;
        assert_eq!(reply.header("x-rpcache-error"), code, "{reply:?}");
        served.nothing_is_left().await;
    }
}

#[tokio::test]
async fn the_time_of_a_request_is_a_limit_too() {
    let served = Served::by(&["--exec-timeout", "1h"], &["sleep", "1000"]).await;
    let mut caller = served.setup.caller().await;
    let properties = caller.properties().with_expiration("1000".into());
    caller.broker.publish(QUEUE, b"x", properties).await;
    caller.next_reply().await.fails_as("expired");
    served.nothing_is_left().await;
}

#[tokio::test]
async fn an_orphan_of_a_running_computation_is_left_alone() {
    // Adopted while its own computation runs: it must be left alone until that ends.
    let long =
        script("#!/bin/sh\nread -r x\n(setsid sh -c 'sleep 1; echo late' &)\nsleep 2\necho end\n");
    let served = Served::by(&[], &[&long]).await;
    served.call("1").await.answers("late\nend\n");
    served.nothing_is_left().await;
}
