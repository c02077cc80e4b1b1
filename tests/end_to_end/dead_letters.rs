//! The worker's connection for dead letters: it is separate, and rejected requests are not counted as failures.

use crate::redelivered::queue_with_dead_letters;
use crate::support::amqp::{Broker, Worker};
use crate::support::http::{get, scraped, series};
use crate::support::rabbitmq::broker;
use crate::support::{Setup, wait};
use lapin::options::BasicRejectOptions;

/// A foreign worker has replied, and rejects the request nevertheless.
#[tokio::test]
async fn rejected_request_is_not_counted_as_a_failure() {
    let setup = Setup::new().await;
    queue_with_dead_letters(&setup, &[]).await;
    let mut foreign = Worker::consuming(Broker::connect(&setup.vhost.url()).await).await;
    let mut caller = setup.caller().await;
    let properties = caller.properties();
    caller.send(b"30", properties).await;
    let request = foreign.take_unsettled().await;
    foreign.reply(&request, "832040").await;
    caller.next_reply().await.answers("832040");
    let options = BasicRejectOptions { requeue: false };
    request.reject(options).await.unwrap();
    foreign.close().await;
    let (worker, address) = scraped(&setup, &[]).await;
    // The dead letter is answered, for a caller without a reply.
    caller.next_reply().await.fails_as("failed");
    let failed = series("rpcache_errors_total", r#"code="failed""#);
    let counted = get(address, "/metrics").await.number(&failed);
    assert!(counted < 0.5, "{counted}");
    setup.assert_settled(worker).await;
}

/// Closes the connections of this vhost that have this name. Connections of other tests may end meanwhile.
fn close_connections(setup: &Setup, name: &str) {
    let expression = format!(
        "lists:foreach(fun(Pid) ->
            case catch rabbit_reader:info(Pid, [vhost, client_properties]) of
                [{{vhost, <<\"{}\">>}}, {{client_properties, Properties}}] when is_list(Properties) ->
                    case [Name || {{<<\"connection_name\">>, _, Name}} <- Properties] of
                        [<<\"{name}\", _/binary>>] ->
                            rabbit_networking:close_connection(Pid, \"test\");
                        _ -> ok
                    end;
                _ -> ok
            end
        end, rabbit_networking:connections()).",
        setup.vhost.name()
    );
    broker().evaluate(&expression).unwrap();
}

#[tokio::test]
async fn losing_the_connection_for_dead_letters_keeps_the_session() {
    let setup = Setup::new().await;
    queue_with_dead_letters(&setup, &[]).await;
    let worker = setup.worker(&[]).await;
    let serving = async |serving: u32| {
        wait::wait_until("dead letters are consumed, or not", async || {
            setup.consumers("rpc_queue.dead").await == serving
        })
        .await;
    };
    for _ in 0..3 {
        serving(1).await;
        close_connections(&setup, "rpcache worker dead letters");
        worker.says("lost the connection for dead letters").await;
        setup.caller().await.is_served().await;
    }
    serving(1).await;
    let finished = setup.assert_settled(worker).await;
    assert!(!finished.stderr.contains("lost RabbitMQ"), "{finished:#?}");
}
