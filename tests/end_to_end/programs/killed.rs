//! Guard and worker, ended by any signal: no process of a program outlives them.

use super::processes::{running, sleeping, worker_of};
use super::{Served, words};
use crate::support::process::signal;
use crate::support::{Setup, wait};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A number of seconds that no other process sleeps.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("1000.{}{number}", std::process::id())
}

/// Starts a daemon and a background process, ignores SIGTERM, and never ends.
fn stubborn(sleep: &str) -> String {
    format!(
        "trap '' TERM; setsid sleep {sleep} </dev/null >/dev/null 2>&1 & sleep {sleep} & while :; do sleep {sleep}; done"
    )
}

async fn computing(served: &Served, sleep: &str) -> crate::support::process::Process {
    let call = served.start_call("x");
    wait::wait_until("it computes", async || sleeping(sleep) == 3).await;
    call
}

#[tokio::test]
async fn nothing_outlives_a_killed_guard_or_worker() {
    for victim in ["guard", "worker"] {
        let sleep = unique();
        let served = Served::by(&[], &["sh", "-c", &stubborn(&sleep)]).await;
        let _call = computing(&served, &sleep).await;
        let worker = worker_of(&served.worker);
        let pid = if victim == "guard" {
            served.worker.id()
        } else {
            worker
        };
        signal("KILL", pid);
        let since = Instant::now();
        let is_gone =
            || running(&sleep) == 0 && !std::fs::exists(format!("/proc/{worker}")).unwrap();
        wait::wait_until(&format!("nothing is left after the {victim}"), async || {
            is_gone()
        })
        .await;
        // A second, and more on a machine that is busy.
        let took = since.elapsed();
        assert!(took < Duration::from_secs(5), "{victim}: {took:?}");
        let finished = served.worker.finish().await;
        let expected = if victim == "guard" {
            None
        } else {
            Some(128 + 9)
        };
        assert_eq!(finished.code, expected, "{finished:?}");
    }
}

#[tokio::test]
async fn a_program_finishes_within_the_grace() {
    let sleep = unique();
    let command = format!("sleep {sleep} & read -r x; sleep 1; echo $x");
    // As systemd does by default, both get the signal.
    for both in [false, true] {
        let served = Served::by(&[], &["sh", "-c", &command]).await;
        let call = served.start_call("x");
        wait::wait_until("it computes", async || sleeping(&sleep) == 1).await;
        if both {
            signal("TERM", worker_of(&served.worker));
        }
        let stopped = served.worker.terminate().await;
        assert_eq!(stopped.code, Some(0), "{stopped:?}");
        call.finish().await.answers("x\n");
        assert_eq!(running(&sleep), 0);
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_worker_and_its_programs_at_once() {
    let sleep = unique();
    let served = Served::by(&[], &["sh", "-c", &stubborn(&sleep)]).await;
    let _call = computing(&served, &sleep).await;
    served.worker.signal("INT");
    served.worker.says("taking no more requests").await;
    served.worker.signal("TERM");
    let finished = served.worker.finish().await;
    assert_eq!(finished.code, Some(130), "{finished:?}");
    assert_eq!(running(&sleep), 0);
}

#[tokio::test]
async fn the_exit_code_is_that_of_the_worker() {
    let setup = Setup::new().await;
    // The broker refuses the login.
    let wrong = setup.rpcache(&words(&[], &["cat"]));
    let wrong = wrong.env("AMQP_URL", &setup.vhost.url_with("guest", "wrong"));
    assert_eq!(wrong.run().await.code, Some(3));
}
