use std::sync::Barrier;
use std::thread;

use super::*;
use crate::procedure::ProcedureName;

const MINUTE: Duration = Duration::from_secs(60);

fn tier(size: usize) -> Tier<String> {
    Tier::new("p:".to_owned(), size, MINUTE)
}

fn key(argument: &str) -> Key {
    Key::new(None, &ProcedureName::new("p"), argument)
}

fn found(answer: &str) -> Found<String> {
    Found::in_cache(answer.to_owned())
}

fn answer(tier: &Tier<String>, argument: &str, now: Instant) -> Option<String> {
    let found = tier.get(key(argument).as_bytes(), now)?;
    assert_eq!(found.source, Source::Local);
    Some(found.answer)
}

#[test]
fn what_was_kept_is_found_until_its_time_is_up() {
    let (tier, start) = (tier(1 << 20), Instant::now());
    assert_eq!(answer(&tier, "30", start), None);
    tier.keep(tier.keeping(&key("30")), &found("832040"), start);
    let last = start + Duration::from_millis(59_999);
    assert_eq!(answer(&tier, "30", last).as_deref(), Some("832040"));
    assert_eq!(answer(&tier, "30", start + MINUTE), None);
    tier.keep(tier.keeping(&key("30")), &found("832040"), start + MINUTE);
    assert!(answer(&tier, "30", start + MINUTE).is_some());
}

#[test]
fn what_was_looked_for_before_a_purge_is_not_kept_after_it() {
    let (tier, now) = (tier(1 << 20), Instant::now());
    for purge in [Purge::Everything, Purge::Keys(vec!["p:30"])] {
        let keeping = tier.keeping(&key("30"));
        tier.purge(&purge);
        tier.keep(keeping, &found("old"), now);
        assert_eq!(answer(&tier, "30", now), None, "{purge:?}");
        tier.keep(tier.keeping(&key("30")), &found("new"), now);
        assert_eq!(answer(&tier, "30", now).as_deref(), Some("new"));
        tier.purge(&purge);
        assert_eq!(answer(&tier, "30", now), None, "{purge:?}");
    }
}

#[test]
fn a_purge_spares_what_it_does_not_name() {
    let (tier, now) = (tier(1 << 20), Instant::now());
    for n in ["30", "31"] {
        tier.keep(tier.keeping(&key(n)), &found(n), now);
    }
    tier.purge(&Purge::Keys(vec!["p:31", "p:32"]));
    assert_eq!(answer(&tier, "30", now).as_deref(), Some("30"));
    assert_eq!(answer(&tier, "31", now), None);
    let keeping = tier.keeping(&key("31"));
    tier.purge(&Purge::Keys(vec![]));
    tier.keep(keeping, &found("31"), now);
    assert!(answer(&tier, "31", now).is_some(), "nothing was purged");
}

/// However a purge falls into it: what was looked for before the purge is gone once both have ended.
#[test]
fn a_purge_at_the_same_moment_leaves_nothing_old() {
    const ROUNDS: usize = 20_000;
    let (tier, now) = (tier(1 << 20), Instant::now());
    let together = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                together.wait();
                match round % 2 {
                    0 => tier.purge(&Purge::Keys(vec!["p:30"])),
                    _ => tier.purge(&Purge::Everything),
                }
                together.wait();
            }
        });
        for round in 0..ROUNDS {
            let keeping = tier.keeping(&key("30"));
            together.wait();
            // So that the purge falls now before it, now into it, now behind it.
            (0..round % 64).for_each(|_| std::hint::spin_loop());
            tier.keep(keeping, &found("old"), now);
            together.wait();
            let left = answer(&tier, "30", now);
            // A panic would leave the other one waiting.
            if left.is_some() {
                std::process::abort();
            }
        }
    });
}

#[test]
fn a_refresh_replaces_and_lookups_under_way_do_not_undo_it() {
    let (tier, now) = (tier(1 << 20), Instant::now());
    tier.keep(tier.keeping(&key("30")), &found("old"), now);
    let (lookup, refresh) = (tier.keeping(&key("30")), tier.keeping(&key("30")));
    tier.replace(refresh, &found("new"), now);
    tier.keep(lookup, &found("old"), now);
    assert_eq!(answer(&tier, "30", now).as_deref(), Some("new"));

    let refresh = tier.keeping(&key("30"));
    tier.purge(&Purge::Keys(vec!["p:31"]));
    tier.replace(refresh, &found("of another time"), now);
    assert_eq!(answer(&tier, "30", now), None, "neither old nor doubtful");
}

#[test]
fn its_weight_is_bounded_and_counts_keys_answers_and_overhead() {
    let (size, now) = (1 << 20, Instant::now());
    let tier = tier(size);
    tier.keep(tier.keeping(&key("30")), &found("832040"), now);
    assert_eq!(tier.entries.weight(), (4 + 6 + OVERHEAD) as u64);
    for n in 0..20_000 {
        let n = format!("{n}");
        tier.keep(tier.keeping(&key(&n)), &found(&"9".repeat(100)), now);
        assert!(tier.entries.weight() <= size as u64);
    }
    let full = tier.entries.weight();
    assert!(full > size as u64 * 9 / 10, "{full}");
}

#[test]
fn what_is_too_large_is_not_kept_and_leaves_nothing_older() {
    let now = Instant::now();
    for size in [0, 100, OVERHEAD + 500, 100_000, 10_000_000] {
        let tier = tier(size);
        tier.keep(tier.keeping(&key("30")), &found("832040"), now);
        assert_eq!(answer(&tier, "30", now).is_some(), size > 300, "{size}");
        tier.keep(tier.keeping(&key("30")), &found(&"9".repeat(size)), now);
        assert_eq!(answer(&tier, "30", now), None, "{size}");
        assert!(tier.entries.weight() <= size as u64);
    }
    let (tier, part) = (tier(10_000_000), 10_000_000 / PARTS);
    let fits = "9".repeat(part * 9 / 10);
    tier.keep(tier.keeping(&key("30")), &found(&fits), now);
    assert!(answer(&tier, "30", now).is_some());
}

#[test]
fn a_time_without_end_keeps_nothing_instead_of_overflowing() {
    let tier = Tier::new("p:".to_owned(), 1 << 20, Duration::MAX);
    let now = Instant::now();
    tier.keep(tier.keeping(&key("30")), &found("832040"), now);
    assert_eq!(answer(&tier, "30", now), None);
}
