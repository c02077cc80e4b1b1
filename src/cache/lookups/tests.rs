//! Who gets which answer, whoever goes together and whoever gives up: against a Redis of a few lines.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncWriteExt as _, BufReader, DuplexStream};
use tokio::time::{sleep, timeout};

use super::*;
use crate::cache::fake::command;
use crate::interleavings::{millis, of_each_seed, shuffled};

const BUDGET: Duration = Duration::from_millis(50);

/// What it was sent.
#[derive(Default)]
struct Seen {
    commands: AtomicUsize,
    keys: AtomicUsize,
}

/// Answers each command after a while: under the key `k` there is `the answer to k`, under one that
/// begins with a `-`, nothing.
async fn redis(stream: DuplexStream, mut rng: fastrand::Rng, seen: Arc<Seen>) {
    let mut stream = BufReader::new(stream);
    while let Some(command) = command(&mut stream).await {
        let words: Vec<&str> = command.split(' ').collect();
        seen.commands.fetch_add(1, Ordering::Relaxed);
        seen.keys.fetch_add(words.len() - 1, Ordering::Relaxed);
        sleep(millis(&mut rng, 5)).await;
        let mut reply = match words[0] {
            "GET" => String::new(),
            "MGET" => format!("*{}\r\n", words.len() - 1),
            word => panic!("{word}"),
        };
        for key in &words[1..] {
            if key.starts_with('-') {
                reply += "$-1\r\n";
            } else {
                let answer = answer(key);
                write!(reply, "${}\r\n{answer}\r\n", answer.len()).unwrap();
            }
        }
        if stream.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn answer(key: &str) -> String {
    format!("the answer to {key}")
}

async fn lookups(rng: fastrand::Rng) -> (Arc<Lookups>, Arc<Seen>) {
    let (ours, theirs) = tokio::io::duplex(1024);
    let seen = Arc::new(Seen::default());
    tokio::spawn(redis(theirs, rng, Arc::clone(&seen)));
    let connection = Connection::over(ours, BUDGET).await;
    (Arc::new(Lookups::new(Arc::new(connection), BUDGET)), seen)
}

#[test]
fn everybody_gets_the_answer_to_their_own_key_whoever_gives_up() {
    let (commands, keys) = (AtomicUsize::new(0), AtomicUsize::new(0));
    of_each_seed(1000, async |mut rng| {
        let (lookups, seen) = lookups(rng.fork()).await;
        let mut caller = |caller: usize| {
            let (lookups, mut rng) = (Arc::clone(&lookups), rng.fork());
            async move {
                for call in 0..3 {
                    let there = rng.bool();
                    let key = format!("{}{caller}:{call}", if there { "" } else { "-" });
                    // Some have less time than others, and some give up.
                    let limit = if rng.u8(..8) == 0 { BUDGET / 2 } else { BUDGET };
                    let patience = if rng.u8(..8) == 0 {
                        millis(&mut rng, 5)
                    } else {
                        BUDGET * 2
                    };
                    let get = shuffled(rng.fork(), lookups.get(&key, limit));
                    match timeout(patience, get).await {
                        Err(_gave_up) => {}
                        Ok(Ok(found)) => {
                            let expected = there.then(|| answer(&key).into_bytes());
                            assert_eq!(found, expected, "{key}");
                        }
                        // Behind others that are answered slowly.
                        Ok(Err(unanswered)) => {
                            assert!(
                                matches!(unanswered, Unanswered::Unavailable),
                                "{unanswered:?}"
                            );
                        }
                    }
                    sleep(millis(&mut rng, 3)).await;
                }
            }
        };
        let callers: Vec<_> = (0..100).map(|n| tokio::spawn(caller(n))).collect();
        for caller in callers {
            caller.await.unwrap();
        }
        // What nobody waits for any more comes to its end as well.
        sleep(BUDGET * 2).await;
        let state = lock(&lookups.state);
        assert_eq!((state.under_way, state.next.callers.len()), (0, 0));
        commands.fetch_add(seen.commands.load(Ordering::Relaxed), Ordering::Relaxed);
        keys.fetch_add(seen.keys.load(Ordering::Relaxed), Ordering::Relaxed);
    });
    let (commands, keys) = (commands.into_inner(), keys.into_inner());
    assert!(keys > 2 * commands, "{keys} keys in {commands} commands");
}

#[test]
fn who_comes_alone_goes_alone_and_at_once() {
    of_each_seed(1, async |rng| {
        let (lookups, seen) = lookups(rng).await;
        for n in 1..=5 {
            let found = lookups.get("k", BUDGET).await.unwrap();
            assert_eq!(found, Some(answer("k").into_bytes()));
            assert_eq!(seen.commands.load(Ordering::Relaxed), n);
        }
    });
}

#[test]
fn those_of_one_moment_share_one_command_up_to_its_size() {
    of_each_seed(1, async |rng| {
        let (lookups, seen) = lookups(rng).await;
        let all = (0..=2 * MOST_TOGETHER).map(|n| {
            let lookups = Arc::clone(&lookups);
            async move { lookups.get(&n.to_string(), BUDGET).await.unwrap() }
        });
        let found = futures_util::future::join_all(all).await;
        for (n, found) in found.into_iter().enumerate() {
            assert_eq!(found, Some(answer(&n.to_string()).into_bytes()));
        }
        // The first one alone, then two full ones.
        assert_eq!(seen.commands.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn without_a_connection_nobody_waits() {
    of_each_seed(1, async |_| {
        let lookups = Lookups::new(Arc::new(Connection::to_nobody()), BUDGET);
        let all = (0..100).map(|n| {
            let lookups = &lookups;
            async move { lookups.get(&n.to_string(), BUDGET).await }
        });
        let moment = tokio::time::Instant::now();
        let found = futures_util::future::join_all(all).await;
        assert!(
            found
                .iter()
                .all(|found| matches!(found, Err(Unanswered::Unavailable)))
        );
        assert_eq!(moment.elapsed(), Duration::ZERO);
    });
}

#[test]
fn nobody_waits_for_a_runtime_that_is_gone() {
    let build = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let (theirs, ours) = (build(), build());
    let lookups = theirs.block_on(async {
        let lookups = lookups(fastrand::Rng::with_seed(0)).await.0;
        // As if another one were under way.
        lock(&lookups.state).under_way = 1;
        lookups
    });
    // It is to be sent on a runtime that does not come to it any more.
    let found = {
        let _entered = theirs.enter();
        lookups.go("k", true)
    };
    drop(theirs);
    let Way::Together(found) = found else {
        panic!("it goes alone");
    };
    let found = ours.block_on(async { timeout(Duration::from_secs(5), found).await });
    assert!(found.expect("somebody waits for ever").is_err());
    assert!(lock(&lookups.state).next.callers.is_empty());
}
