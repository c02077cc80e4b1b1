//! Tests of the copies: expiry, invalidation beside lookups, weight.

use std::sync::Barrier;
use std::thread;

use super::*;
use crate::procedure_name::ProcedureName;

const MINUTE: Duration = Duration::from_secs(60);

fn copies(size: usize) -> Copies<String> {
    Copies::new("p:".to_owned(), size, MINUTE)
}

fn key(argument: &str) -> Key {
    Key::new(None, &ProcedureName::new("p"), argument)
}

fn found(answer: &str) -> Resolved<String> {
    Resolved::from_store(answer.to_owned())
}

fn answer(copies: &Copies<String>, argument: &str, now: Instant) -> Option<String> {
    let found = copies.get(key(argument).as_bytes(), now)?;
    assert_eq!(found.source, Source::Local);
    Some(found.answer)
}

#[test]
fn copy_is_found_until_it_expires() {
    let (copies, start) = (copies(1 << 20), Instant::now());
    assert_eq!(answer(&copies, "30", start), None);
    copies.keep(copies.ticket(&key("30")), &found("832040"), start);
    let last = start + Duration::from_millis(59_999);
    assert_eq!(answer(&copies, "30", last).as_deref(), Some("832040"));
    assert_eq!(answer(&copies, "30", start + MINUTE), None);
    copies.keep(copies.ticket(&key("30")), &found("832040"), start + MINUTE);
    assert!(answer(&copies, "30", start + MINUTE).is_some());
}

#[test]
fn answer_looked_up_before_an_invalidation_is_not_kept() {
    let (copies, now) = (copies(1 << 20), Instant::now());
    for purge in [Purge::Everything, Purge::Keys(vec!["p:30"])] {
        let ticket = copies.ticket(&key("30"));
        copies.purge(&purge);
        copies.keep(ticket, &found("old"), now);
        assert_eq!(answer(&copies, "30", now), None, "{purge:?}");
        copies.keep(copies.ticket(&key("30")), &found("new"), now);
        assert_eq!(answer(&copies, "30", now).as_deref(), Some("new"));
        copies.purge(&purge);
        assert_eq!(answer(&copies, "30", now), None, "{purge:?}");
    }
}

#[test]
fn invalidation_drops_only_the_keys_that_it_names() {
    let (copies, now) = (copies(1 << 20), Instant::now());
    for n in ["30", "31"] {
        copies.keep(copies.ticket(&key(n)), &found(n), now);
    }
    copies.purge(&Purge::Keys(vec!["p:31", "p:32"]));
    assert_eq!(answer(&copies, "30", now).as_deref(), Some("30"));
    assert_eq!(answer(&copies, "31", now), None);
    let ticket = copies.ticket(&key("31"));
    copies.purge(&Purge::Keys(vec![]));
    copies.keep(ticket, &found("31"), now);
    assert!(answer(&copies, "31", now).is_some(), "nothing was purged");
}

/// Whenever the purge comes: an answer that was looked up before it is gone once both have ended.
#[test]
fn concurrent_invalidation_leaves_no_old_copy() {
    const ROUNDS: usize = 20_000;
    let (copies, now) = (copies(1 << 20), Instant::now());
    let together = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                together.wait();
                match round % 2 {
                    0 => copies.purge(&Purge::Keys(vec!["p:30"])),
                    _ => copies.purge(&Purge::Everything),
                }
                together.wait();
            }
        });
        for round in 0..ROUNDS {
            let ticket = copies.ticket(&key("30"));
            together.wait();
            // The purge then comes before, during or after it.
            (0..round % 64).for_each(|_| std::hint::spin_loop());
            copies.keep(ticket, &found("old"), now);
            together.wait();
            let left = answer(&copies, "30", now);
            // A panic would leave the other thread waiting.
            if left.is_some() {
                std::process::abort();
            }
        }
    });
}

#[test]
fn refresh_replaces_a_copy_and_lookups_in_flight_do_not_undo_it() {
    let (copies, now) = (copies(1 << 20), Instant::now());
    copies.keep(copies.ticket(&key("30")), &found("old"), now);
    let (lookup, refresh) = (copies.ticket(&key("30")), copies.ticket(&key("30")));
    copies.replace(refresh, &found("new"), now);
    copies.keep(lookup, &found("old"), now);
    assert_eq!(answer(&copies, "30", now).as_deref(), Some("new"));

    let refresh = copies.ticket(&key("30"));
    copies.purge(&Purge::Keys(vec!["p:31"]));
    copies.replace(refresh, &found("of another time"), now);
    assert_eq!(answer(&copies, "30", now), None, "neither old nor doubtful");
}

#[test]
fn weight_is_bounded_and_counts_keys_answers_and_overhead() {
    let (size, now) = (1 << 20, Instant::now());
    let copies = copies(size);
    copies.keep(copies.ticket(&key("30")), &found("832040"), now);
    assert_eq!(copies.entries.weight(), (4 + 6 + OVERHEAD) as u64);
    for n in 0..20_000 {
        let n = format!("{n}");
        copies.keep(copies.ticket(&key(&n)), &found(&"9".repeat(100)), now);
        assert!(copies.entries.weight() <= size as u64);
    }
    let full = copies.entries.weight();
    assert!(full > size as u64 * 9 / 10, "{full}");
}

#[test]
fn answer_that_is_too_large_is_not_kept_and_drops_the_old_copy() {
    let now = Instant::now();
    for size in [0, 100, OVERHEAD + 500, 100_000, 10_000_000] {
        let copies = copies(size);
        copies.keep(copies.ticket(&key("30")), &found("832040"), now);
        assert_eq!(answer(&copies, "30", now).is_some(), size > 300, "{size}");
        copies.keep(copies.ticket(&key("30")), &found(&"9".repeat(size)), now);
        assert_eq!(answer(&copies, "30", now), None, "{size}");
        assert!(copies.entries.weight() <= size as u64);
    }
    let (copies, part) = (copies(10_000_000), 10_000_000 / MAX_SHARDS);
    let fits = "9".repeat(part * 9 / 10);
    copies.keep(copies.ticket(&key("30")), &found(&fits), now);
    assert!(answer(&copies, "30", now).is_some());
}

#[test]
fn endless_ttl_keeps_no_copy_rather_than_overflow() {
    let copies = Copies::new("p:".to_owned(), 1 << 20, Duration::MAX);
    let now = Instant::now();
    copies.keep(copies.ticket(&key("30")), &found("832040"), now);
    assert_eq!(answer(&copies, "30", now), None);
}
