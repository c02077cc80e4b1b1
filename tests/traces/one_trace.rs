//! One call is one trace, across both processes.

use crate::protobuf::{Kind, Span};
use crate::setup::{SECRET, Setup};
use crate::support::amqp::{Caller, headers};

/// An argument that is computed under a lease, on a thread for computing.
const DEAR: &str = "100000";

#[track_caller]
fn named<'a>(spans: &'a [Span], service: &str, name: &str) -> &'a Span {
    let mut found = spans
        .iter()
        .filter(|span| span.service == service && span.name == name);
    match (found.next(), found.next()) {
        (Some(span), None) => span,
        _ => panic!("not one {name:?} of {service} in {spans:#?}"),
    }
}

#[track_caller]
fn has(span: &Span, attributes: &[(&str, &str)]) {
    for (name, value) in attributes {
        let found = span.attributes.get(*name).map(String::as_str);
        assert_eq!(found, Some(*value), "{name} of {span:#?}");
    }
}

#[tokio::test]
async fn miss_is_one_trace_from_lookup_to_reply() {
    let setup = Setup::new().await;
    let worker = setup.serving(setup.traced("worker", &["worker"])).await;
    let finished = setup.call(&[DEAR]).await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(worker.terminate().await.code, Some(0));
    let spans = setup.collector.all();
    let send = callers_half(&spans);
    workers_half(&spans, send);
    assert_eq!(spans.len(), 12, "{spans:#?}");

    let own = format!("authorization: {SECRET}");
    let bytes = setup.collector.bytes();
    assert!(bytes.contains(&own), "the collector's own");
    let bytes = bytes.replace(&own, "");
    for secret in [SECRET, "guest:", "amq.rabbitmq.reply-to"] {
        assert!(!bytes.contains(secret), "{secret} in {bytes:?}");
    }
}

#[track_caller]
fn is_child(child: &Span, parent: &Span) {
    assert_eq!(child.parent, parent.id, "{child:#?} of {parent:#?}");
    assert_eq!(child.trace, parent.trace);
    assert!(child.start >= parent.start, "{child:#?} of {parent:#?}");
    assert!(child.end >= child.start, "{child:#?}");
}

/// From the call to the sending of its request, which is returned.
fn callers_half(spans: &[Span]) -> &Span {
    let caller = |name| named(spans, "caller", name);
    let call = caller("call fib");
    assert_eq!((call.parent.as_str(), call.kind), ("", Kind::Internal));
    has(
        call,
        &[
            ("rpcache.key", "fib:100000"),
            ("rpcache.source", "computed"),
        ],
    );
    is_child(caller("connect to Redis"), call);

    let lookup = caller("GET");
    is_child(lookup, call);
    assert_eq!(lookup.kind, Kind::Client);
    has(
        lookup,
        &[("db.system.name", "redis"), ("db.operation.name", "GET")],
    );
    has(
        lookup,
        &[("rpcache.step", "lookup"), ("rpcache.result", "miss")],
    );

    let request = caller("request");
    is_child(request, call);
    is_child(caller("connect to RabbitMQ"), request);
    let send = caller("send rpc_queue");
    is_child(send, request);
    assert_eq!(send.kind, Kind::Producer);
    has(send, &[("messaging.operation.type", "send")]);
    let conversation = "messaging.message.conversation_id";
    assert_eq!(
        send.attributes[conversation],
        request.attributes[conversation]
    );
    send
}

/// From the taking of the request to the reply.
fn workers_half(spans: &[Span], send: &Span) {
    let worker = |name| named(spans, "worker", name);
    let process = worker("process rpc_queue");
    is_child(process, send);
    assert_eq!(process.kind, Kind::Consumer);
    has(
        process,
        &[
            ("messaging.operation.type", "process"),
            ("rpcache.source", "computed"),
        ],
    );
    for name in [
        "system",
        "destination.name",
        "message.body.size",
        "message.conversation_id",
    ] {
        let name = format!("messaging.{name}");
        assert_eq!(process.attributes[&name], send.attributes[&name]);
    }
    assert_eq!(send.attributes["messaging.destination.name"], "rpc_queue");

    // Taking the lease with the look, then storing with the release of the lease.
    let mut pipelines: Vec<&Span> = spans
        .iter()
        .filter(|span| span.name == "PIPELINE")
        .collect();
    pipelines.sort_by_key(|span| span.start);
    let [claim, fill] = pipelines[..] else {
        panic!("{spans:#?}")
    };
    has(
        claim,
        &[("rpcache.step", "lookup"), ("rpcache.result", "miss")],
    );
    has(
        fill,
        &[("rpcache.step", "fill"), ("db.system.name", "redis")],
    );
    let reply = worker("send (temporary)");
    has(
        reply,
        &[
            ("messaging.destination.temporary", "true"),
            ("messaging.operation.type", "send"),
        ],
    );
    let steps = [
        claim,
        worker("wait for a slot"),
        worker("compute"),
        fill,
        reply,
    ];
    for step in steps {
        is_child(step, process);
    }
    assert!(steps.is_sorted_by_key(|step| step.start), "{steps:#?}");
    let (client, internal) = (Kind::Client, Kind::Internal);
    let kinds = [client, internal, internal, client, client];
    assert_eq!(steps.map(|step| step.kind), kinds);
}

#[tokio::test]
async fn hit_is_a_call_and_a_lookup() {
    let setup = Setup::new().await;
    let worker = setup.serving(setup.plain(&["worker"])).await;
    setup.plain(&["call", "30"]).run().await.answers("832040\n");
    setup.call(&["30"]).await.answers("832040\n");
    let spans = setup.collector.all();
    let lookup = named(&spans, "caller", "GET");
    has(lookup, &[("rpcache.result", "hit")]);
    assert_eq!(lookup.parent, named(&spans, "caller", "call fib").id);
    assert_eq!(spans.len(), 3, "{spans:#?}");
    drop(worker);
}

#[tokio::test]
async fn failure_is_told_by_both_sides() {
    let setup = Setup::new().await;
    let worker = setup
        .serving(setup.traced("worker", &["worker", "--max-n", "100"]))
        .await;
    assert_eq!(setup.call(&["101"]).await.code, Some(1));
    worker.terminate().await;
    let spans = setup.collector.all();
    for (service, name) in [("caller", "call fib"), ("worker", "process rpc_queue")] {
        let span = named(&spans, service, name);
        has(span, &[("error.type", "too-large")]);
        assert!(span.failed, "{span:#?}");
    }
}

/// A client in any language that has a trace of its own.
#[tokio::test]
async fn worker_joins_the_trace_of_a_foreign_client_and_none_that_is_no_trace() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";
    let setup = Setup::new().await;
    let worker = setup.serving(setup.traced("worker", &["worker"])).await;
    let mut caller = Caller::direct(&setup.amqp).await;
    for (n, parent) in [
        ("30", format!("00-{TRACE}-{PARENT}-01")),
        // Not recorded by its client: nor by the worker.
        ("31", format!("00-{TRACE}-{PARENT}-00")),
        ("32", format!("00-{TRACE}-{}-01", "0".repeat(16))),
    ] {
        let asked = caller
            .properties()
            .with_headers(headers(&[("traceparent", &parent)]));
        let reply = caller.ask_with(n.as_bytes(), asked).await;
        assert_eq!(reply.header("traceparent"), None);
    }
    worker.terminate().await;
    let spans = setup.collector.all();
    let processes: Vec<&Span> = spans
        .iter()
        .filter(|span| span.kind == Kind::Consumer)
        .collect();
    let [joined, own] = processes[..] else {
        panic!("{spans:#?}")
    };
    assert_eq!(
        (joined.trace.as_str(), joined.parent.as_str()),
        (TRACE, PARENT)
    );
    assert_ne!(own.trace, TRACE);
    assert!(own.parent.is_empty());
}

#[tokio::test]
async fn each_of_many_calls_is_a_trace() {
    let setup = Setup::new().await;
    let worker = setup.serving(setup.traced("worker", &["worker"])).await;
    assert_eq!(setup.call(&["30..32"]).await.code, Some(0));
    worker.terminate().await;
    let spans = setup.collector.all();
    let calls: Vec<&Span> = spans
        .iter()
        .filter(|span| span.name == "call fib")
        .collect();
    assert_eq!(calls.len(), 3, "{spans:#?}");
    for call in calls {
        let of = |name: &str, parent: &Span| {
            let child = |span: &&Span| span.name == name && span.parent == parent.id;
            spans
                .iter()
                .find(child)
                .unwrap_or_else(|| panic!("no {name} in {spans:#?}"))
                .clone()
        };
        has(
            &of("MGET", call),
            &[("db.operation.batch.size", "3"), ("rpcache.result", "miss")],
        );
        let send = of("send rpc_queue", &of("request", call));
        of("compute", &of("process rpc_queue", &send));
    }
}
