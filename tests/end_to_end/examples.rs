//! The examples of this package do what they say at their top. `cargo test` builds them before.

use crate::support::process::{Finished, Program};
use crate::support::{Setup, wait};

#[tokio::test]
async fn prime_factors_are_served_called_and_cached() {
    let setup = Setup::new().await;
    let _worker = setup
        .knowing(Program::example("prime_factors", &["serve"]))
        .start();
    wait::wait_until("it serves", async || {
        setup.consumers("rpc_queue.factors").await == 1
    })
    .await;

    call(&setup)
        .await
        .answers("360: 2 2 2 3 3 5 (computed)\n97: 97 (computed)\n");
    assert_eq!(setup.redis.keys().await, ["factors:360", "factors:97"]);
    call(&setup)
        .await
        .answers("360: 2 2 2 3 3 5 (cache)\n97: 97 (cache)\n");
}

async fn call(setup: &Setup) -> Finished {
    let program = Program::example("prime_factors", &["call", "360", "97"]);
    setup.knowing(program).run().await
}
