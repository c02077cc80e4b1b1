//! Measures the parts of a call that only compute, each by itself: `scripts/bench criterion`.
//!
//! Some are private to the library: their files, which use only each other, are compiled a second time as
//! modules of this program. The others are public API.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a run that cannot go on ends by panicking"
)]
#![expect(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the library's files have more than is measured, and tests"
)]

// Names that the files below use by `crate::`.
#[path = "../../src/cache_use.rs"]
mod cache_use;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/interleavings.rs"]
mod interleavings;
#[path = "../../src/source.rs"]
mod source;
#[path = "../../src/text.rs"]
mod text;
mod procedure {
    pub(crate) use rpcache::Procedure;
}
mod procedure_name {
    pub(crate) use rpcache::ProcedureName;
}
mod tls {
    pub(crate) use rpcache::tls::TlsFault;
}

#[path = "../../src/broker"]
mod broker {
    pub(crate) mod frames;
    pub(crate) use self::frames::MAX_BODY;
    pub(crate) use self::frames::properties::{CORRELATION_BYTES, OVERSIZED};
}
#[path = "../../src/cache/key.rs"]
mod key;
#[path = "../../src"]
mod library {
    pub(crate) mod message;
}
use library::message;
#[path = "../../src/trace"]
mod trace {
    pub(crate) mod context;
    pub(crate) mod steps;
}
#[path = "../../src/requester"]
mod requester {
    pub(crate) mod pending;

    pub(crate) fn table(most: usize) -> pending::Pending {
        pending::Pending::new(most)
    }
}

mod fibonacci;
mod messages;
mod waiting;
mod wire;

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;

fn main() {
    // So that some thirty measurements take a minute.
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(50)
        .nresamples(10_000)
        .configure_from_args();
    messages::measure(&mut criterion);
    wire::measure(&mut criterion);
    waiting::measure(&mut criterion);
    keys(&mut criterion);
    fibonacci::measure(&mut criterion);
    criterion.final_summary();
}

/// The key, which every call makes first. Arguments of more than 200 bytes are hashed.
fn keys(criterion: &mut Criterion) {
    let fib = rpcache::ProcedureName::new("fib");
    let mut group = criterion.benchmark_group("key");
    let namespace = "prod".parse().expect("a namespace");
    let (escaped, long) = ("a b ".repeat(10), "x".repeat(1000));
    for (name, namespace, argument) in [
        ("fib:30", None, "30"),
        ("prod:fib:30", Some(&namespace), "30"),
        ("of 40 characters, 20 escaped", None, &escaped),
        ("of 1000 characters, hashed", None, &long),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| key::Key::new(namespace, &fib, black_box(argument)));
        });
    }
}
