//! Each caller gets the answer to its own key, batched or not, while others give up: against a fake Redis.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncWriteExt as _, BufReader, DuplexStream};
use tokio::time::{sleep, timeout};

use super::*;
use crate::cache::redis::fake::command;
use crate::interleavings::{millis, of_each_seed, shuffled};

const BUDGET: Duration = Duration::from_millis(50);

/// What the fake was sent.
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

fn over(connection: Connection) -> Arc<Batcher> {
    Arc::new(Batcher::new(Arc::new(connection), Arc::default(), BUDGET))
}

async fn batcher(rng: fastrand::Rng) -> (Arc<Batcher>, Arc<Seen>) {
    let (ours, theirs) = tokio::io::duplex(1024);
    let seen = Arc::new(Seen::default());
    tokio::spawn(redis(theirs, rng, Arc::clone(&seen)));
    let connection = Connection::over(ours, BUDGET).await;
    (over(connection), seen)
}

#[test]
fn each_caller_gets_its_own_answer_while_others_give_up() {
    let (commands, keys) = (AtomicUsize::new(0), AtomicUsize::new(0));
    of_each_seed(1000, async |mut rng| {
        let (batcher, seen) = batcher(rng.fork()).await;
        let mut caller = |caller: usize| {
            let (batcher, mut rng) = (Arc::clone(&batcher), rng.fork());
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
                    let get = shuffled(rng.fork(), batcher.get(&key, limit));
                    match timeout(patience, get).await {
                        Err(_gave_up) => {}
                        Ok(Ok(found)) => {
                            let expected = there.then(|| answer(&key).into_bytes());
                            assert_eq!(found, expected, "{key}");
                        }
                        // Behind others that are answered slowly.
                        Ok(Err(unanswered)) => {
                            assert!(
                                matches!(unanswered, CommandError::Unavailable),
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
        // Lookups that were given up end as well.
        sleep(BUDGET * 2).await;
        let waiting = lock(&batcher.next).callers.len();
        assert!(batcher.in_flight.is_none() && waiting == 0, "{batcher:?}");
        commands.fetch_add(seen.commands.load(Ordering::Relaxed), Ordering::Relaxed);
        keys.fetch_add(seen.keys.load(Ordering::Relaxed), Ordering::Relaxed);
    });
    let (commands, keys) = (commands.into_inner(), keys.into_inner());
    assert!(keys > 2 * commands, "{keys} keys in {commands} commands");
}

#[test]
fn a_single_lookup_is_sent_alone_and_at_once() {
    of_each_seed(1, async |rng| {
        let (batcher, seen) = batcher(rng).await;
        for n in 1..=5 {
            let found = batcher.get("k", BUDGET).await.unwrap();
            assert_eq!(found, Some(answer("k").into_bytes()));
            assert_eq!(seen.commands.load(Ordering::Relaxed), n);
        }
    });
}

#[test]
fn lookups_of_one_moment_share_one_command_up_to_its_size() {
    of_each_seed(1, async |rng| {
        let (batcher, seen) = batcher(rng).await;
        let all = (0..=2 * MAX_BATCH).map(|n| {
            let batcher = Arc::clone(&batcher);
            async move { batcher.get(&n.to_string(), BUDGET).await.unwrap() }
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
fn without_a_connection_lookups_fail_at_once() {
    of_each_seed(1, async |_| {
        let batcher = over(Connection::to_nobody());
        let all = (0..100).map(|n| {
            let batcher = &batcher;
            async move { batcher.get(&n.to_string(), BUDGET).await }
        });
        let moment = Instant::now();
        let found = futures_util::future::join_all(all).await;
        assert!(
            found
                .iter()
                .all(|found| matches!(found, Err(CommandError::Unavailable)))
        );
        assert_eq!(moment.elapsed(), Duration::ZERO);
    });
}

#[test]
fn lookups_fail_when_the_batch_s_runtime_is_gone() {
    let build = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let (theirs, ours) = (build(), build());
    let batcher = theirs.block_on(async {
        let batcher = batcher(fastrand::Rng::with_seed(0)).await.0;
        // As if another one were in flight.
        std::mem::forget(batcher.in_flight.begin());
        batcher
    });
    // It is to be sent on a runtime that does not come to it any more.
    let found = {
        let _entered = theirs.enter();
        batcher.route("k", true)
    };
    drop(theirs);
    let Route::Batched(found) = found else {
        panic!("sent alone");
    };
    let found = ours.block_on(async { timeout(Duration::from_secs(5), found).await });
    assert!(found.expect("a lookup waits for ever").is_err());
    assert!(lock(&batcher.next).callers.is_empty());
}
