use super::*;
use crate::CacheOptions;
use crate::fibonacci::{Fibonacci, N};

#[tokio::test]
async fn spans_that_nobody_records_hardly_make_the_future_of_a_hit_larger() {
    let amqp = "amqp://127.0.0.1:1".parse().unwrap();
    let cache = CacheOptions::new("redis://127.0.0.1:1".parse().unwrap());
    let client = Client::new(Fibonacci::default(), ClientOptions::new(amqp, cache));
    let options = CallOptions::default();
    let without = size_of_val(&client.answer(N(30), Call::new(options)));
    let with = size_of_val(&client.call_with(N(30), options));
    // Its arguments, twice, and where it is.
    let own = size_of::<(&Client<Fibonacci>, N, CallOptions, Call, usize)>();
    assert!(with <= without + own, "{with} bytes, {without} without");

    let Inner {
        cache, procedure, ..
    } = &*client.inner;
    let (argument, mut budget) = (Arc::new(N(30)), cache.budget());
    let key = || cache.key(Fibonacci::default().name(), &N(30));
    let within = cache.lookup_within(&mut budget, key(), procedure, &argument);
    let without = size_of_val(&within);
    drop(within);
    let lookup = cache.lookup(key(), procedure, &argument, Call::new(options).deadline());
    let with = size_of_val(&lookup);
    // Its arguments, what is left of the budget, and where it is.
    let deadline = size_of::<tokio::time::Instant>();
    let own = size_of::<(&Cache, Key, [usize; 2], Duration, [usize; 4])>() + deadline;
    assert!(with <= without + own, "{with} bytes, {without} without");
}
