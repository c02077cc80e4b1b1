//! Tests of the size of a call's future.

use super::*;
use crate::CacheOptions;
use crate::fibonacci::{Fibonacci, N};

#[tokio::test]
async fn spans_that_are_not_recorded_hardly_make_the_future_of_a_hit_larger() {
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
    let in_store = cache.lookup_in_store(key(), &mut budget, procedure, &argument);
    let without = size_of_val(&in_store);
    drop(in_store);
    let lookup = cache.lookup(key(), &mut budget, procedure, &argument);
    let with = size_of_val(&lookup);
    // Its arguments, and where it is.
    let own = size_of::<(&Cache, Key, [usize; 3], [usize; 4])>();
    assert!(with <= without + own, "{with} bytes, {without} without");
}
