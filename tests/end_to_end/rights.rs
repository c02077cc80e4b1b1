//! The least rights at the broker that are enough: the worker's user may write to the default
//! exchange and read its queue, the client's may only write to the default exchange.

use crate::support::amqp::{Caller, Declared, QUEUE};
use crate::support::{DEAR, Setup, fibonacci};

#[tokio::test]
async fn worker_and_call_work_with_the_least_rights() {
    let setup = Setup::new().await;
    setup
        .broker
        .declare(QUEUE, Declared::DurableQuorum)
        .await
        .unwrap();
    let program = setup
        .rpcache(&["worker"])
        .env("AMQP_URL", &setup.vhost.url_of("worker"));
    let worker = setup.serving(program).await;

    for n in [30, DEAR] {
        let call = setup
            .rpcache(&["call", &n.to_string()])
            .env("AMQP_URL", &setup.vhost.url_of("client"));
        call.run().await.answers(&format!("{}\n", fibonacci(n)));
        assert_eq!(
            setup.redis.get(&format!("fib:{n}")).await,
            Some(fibonacci(n))
        );
    }
    setup.assert_settled(worker).await;
}

#[tokio::test]
async fn raw_caller_with_the_least_rights_is_served() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    Caller::direct(&setup.vhost.url_of("client"))
        .await
        .is_served()
        .await;
}

#[tokio::test]
async fn worker_that_may_not_create_the_queue_says_so() {
    let setup = Setup::new().await;
    let program = setup
        .rpcache(&["worker"])
        .env("AMQP_URL", &setup.vhost.url_of("worker"));
    program.run().await.refuses(3, QUEUE);
}
