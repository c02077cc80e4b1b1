//! A call is one trace in both processes: the spans, their parents and attributes.

use crate::protobuf::{Kind, Span};
use crate::setup::{SECRET, Setup};
use crate::support::amqp::{Caller, headers};

/// An argument that is computed under a lease, on a thread for computing.
const EXPENSIVE: &str = "100000";

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
    let finished = setup.call(&[EXPENSIVE]).await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(worker.terminate().await.code, Some(0));
    let spans = setup.collector.all();
    let send = callers_half(&spans);
    workers_half(&spans, send);
    assert_eq!(spans.len(), 12, "{spans:#?}");

    let own = format!("authorization: {SECRET}");
    let bytes = setup.collector.bytes();
    assert!(bytes.contains(&own), "the collector gets its own password");
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

/// Checks the spans from the call to `send`, which it returns.
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

/// Checks the spans from the delivery of the request to the reply.
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

    // The claim takes the lease and looks up; the fill stores and releases the lease.
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
async fn failure_is_recorded_by_client_and_worker() {
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

/// A foreign client sends a trace of its own.
#[tokio::test]
async fn worker_joins_valid_sampled_traces_of_foreign_clients() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";
    let setup = Setup::new().await;
    let worker = setup.serving(setup.traced("worker", &["worker"])).await;
    let mut caller = Caller::direct(&setup.amqp).await;
    for (n, parent) in [
        ("30", format!("00-{TRACE}-{PARENT}-01")),
        // Not sampled by its client, so not by the worker.
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
