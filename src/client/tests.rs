use super::*;
use crate::fibonacci::{Fibonacci, N};

#[tokio::test]
async fn spans_that_nobody_records_make_the_future_of_a_hit_no_larger() {
    let amqp = "amqp://127.0.0.1:1".parse().unwrap();
    let cache = CacheOptions::new("redis://127.0.0.1:1".parse().unwrap());
    let client = Client::new(Fibonacci::default(), ClientOptions::new(amqp, cache));
    let options = CallOptions::default();
    let without = size_of_val(&client.answer(N(30), Call::new(options)));
    let with = size_of_val(&client.call_with(N(30), options));
    // Its arguments, and where it is.
    let own = size_of::<(&Client<Fibonacci>, N, CallOptions, Call, usize)>();
    assert!(with <= without + 2 * own, "{with} bytes, {without} without");
    assert!(with < 1024, "{with} bytes");
}
