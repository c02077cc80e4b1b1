//! Defines the spans of a call: the client's in order, then the worker's.
//!
//! Span kinds are OpenTelemetry's: `client` for waiting for another program, `producer` and `consumer` for sending
//! and processing a request, `internal` for the rest.

use std::fmt::Display;

use tracing::field::Empty;
use tracing::{Span, trace_span};

use super::context::TraceContext;
use super::{TARGET, set_parent};
use crate::procedure_name::ProcedureName;
use crate::queue::QueueName;
use crate::text::quote;

/// A whole call. The root span, unless the caller has a span of its own.
pub(crate) fn call(procedure: &ProcedureName, key: &impl Display) -> Span {
    trace_span!(
        target: TARGET,
        "call",
        otel.name = format!("call {procedure}"),
        otel.kind = "internal",
        rpcache.key = %key,
        rpcache.source = Empty,
        "error.type" = Empty,
        otel.status_code = Empty,
    )
}

/// The wait for the first connection to Redis.
pub(crate) fn connect_to_redis() -> Span {
    trace_span!(
        target: TARGET,
        "connect-redis",
        otel.name = "connect to Redis",
        otel.kind = "client",
        db.system.name = "redis",
    )
}

/// A Redis command, or several in one round trip, as OpenTelemetry names them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operation {
    Get,
    /// With this number of keys.
    Mget(usize),
    Set,
    Pipeline,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Mget(_) => "MGET",
            Self::Set => "SET",
            Self::Pipeline => "PIPELINE",
        }
    }

    fn keys(self) -> Option<u64> {
        match self {
            // By the conventions, a single operation has no batch size.
            Self::Mget(keys) => u64::try_from(keys).ok(),
            Self::Get | Self::Set | Self::Pipeline => None,
        }
    }
}

/// A lookup in Redis, including the verification of the answer.
pub(crate) fn lookup(operation: Operation) -> Span {
    let name = operation.name();
    trace_span!(
        target: TARGET,
        "lookup",
        otel.name = name,
        otel.kind = "client",
        db.system.name = "redis",
        db.operation.name = name,
        db.operation.batch.size = operation.keys(),
        rpcache.step = "lookup",
        rpcache.result = Empty,
    )
}

/// Storing an answer in Redis.
pub(crate) fn store(operation: Operation) -> Span {
    let name = operation.name();
    trace_span!(
        target: TARGET,
        "fill",
        otel.name = name,
        otel.kind = "client",
        db.system.name = "redis",
        db.operation.name = name,
        rpcache.step = "fill",
        rpcache.result = Empty,
    )
}

/// The wait for a flight that another call or request of this process started.
pub(crate) fn join() -> Span {
    trace_span!(
        target: TARGET,
        "shared-flight",
        otel.name = "wait for another call",
        otel.kind = "internal",
    )
}

/// From a request to its reply, including retries.
pub(crate) fn request(conversation: &str) -> Span {
    trace_span!(
        target: TARGET,
        "request",
        otel.kind = "internal",
        messaging.system = "rabbitmq",
        messaging.message.conversation_id = conversation,
        rpcache.replied = Empty,
        "error.type" = Empty,
        otel.status_code = Empty,
    )
}

/// The wait for a session with the broker.
pub(crate) fn connect_to_rabbitmq() -> Span {
    trace_span!(
        target: TARGET,
        "connect-rabbitmq",
        otel.name = "connect to RabbitMQ",
        otel.kind = "client",
        messaging.system = "rabbitmq",
    )
}

/// From publishing a request to the broker's confirm. The parent of the worker's span.
pub(crate) fn send(queue: &str, conversation: &str, size: usize) -> Span {
    trace_span!(
        target: TARGET,
        "send",
        otel.name = format!("send {queue}"),
        otel.kind = "producer",
        messaging.system = "rabbitmq",
        messaging.operation.name = "send",
        messaging.operation.r#type = "send",
        messaging.destination.name = queue,
        messaging.message.conversation_id = conversation,
        messaging.message.body.size = size,
    )
}

/// A worker's part of a call: from receiving a request until it is settled. The time between the start of its
/// parent and its own is the wait in the queue, as far as the clocks of the two machines agree.
pub(crate) fn process(
    queue: &QueueName,
    correlation_id: Option<&[u8]>,
    body_size: usize,
    redelivered: bool,
    parent: Option<&TraceContext>,
) -> Span {
    let span = trace_span!(
        target: TARGET,
        "process",
        otel.name = format!("process {queue}"),
        otel.kind = "consumer",
        messaging.system = "rabbitmq",
        messaging.operation.name = "process",
        messaging.operation.r#type = "process",
        messaging.destination.name = %queue,
        messaging.message.conversation_id = correlation_id.map(quote),
        messaging.message.body.size = body_size,
        rpcache.redelivered = redelivered,
        rpcache.source = Empty,
        "error.type" = Empty,
        otel.status_code = Empty,
    );
    if let Some(parent) = parent {
        set_parent(&span, parent);
    }
    span
}

/// A step of a worker's work on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// The lookup in Redis, possibly with the attempt to take the lease.
    Lookup,
    /// The wait for the worker that holds the lease.
    LeaseWait,
    /// The wait for another request's flight in this worker.
    FlightWait,
    /// The wait for a compute slot; a redelivered request also waits for its turn.
    SlotWait,
    Compute,
    Fill,
}

impl Work {
    /// The name in the reply's report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::LeaseWait => "lease-wait",
            Self::FlightWait => "shared-flight",
            Self::SlotWait => "slot-wait",
            Self::Compute => "compute",
            Self::Fill => "fill",
        }
    }

    pub(super) fn span(self) -> Span {
        match self {
            // The cache creates these spans itself.
            Self::Lookup | Self::Fill => Span::none(),
            Self::LeaseWait => trace_span!(
                target: TARGET,
                "lease-wait",
                otel.name = "wait for another worker",
                otel.kind = "internal",
            ),
            Self::FlightWait => join(),
            Self::SlotWait => trace_span!(
                target: TARGET,
                "slot-wait",
                otel.name = "wait for a slot",
                otel.kind = "internal",
            ),
            Self::Compute => trace_span!(target: TARGET, "compute", otel.kind = "internal"),
        }
    }
}

/// From publishing a reply to the broker's confirm. Of kind `client`, not `producer`, because a reply carries no
/// trace context. Without the callback queue's name, which is generated for one client.
pub(crate) fn reply() -> Span {
    trace_span!(
        target: TARGET,
        "reply",
        otel.name = "send (temporary)",
        otel.kind = "client",
        messaging.system = "rabbitmq",
        messaging.operation.name = "send",
        messaging.operation.r#type = "send",
        messaging.destination.temporary = true,
        messaging.destination.anonymous = true,
        rpcache.step = "reply",
    )
}
